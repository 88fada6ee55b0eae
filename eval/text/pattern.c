/* pattern.c - see pattern.h. */
#include "pattern.h"
#include "utf8.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Oniguruma's syntax as PCRE2's ------------------------------------------------------------------------------- */

/* PCRE2 counts U+180E as a space, and no mark as a part of a word. By the name of a script it means all characters that
 * are also used with it. */
static const struct {
  char escape;
  const char *members; /* of a class */
} classes[] = {
    {'s', "\\t-\\r\\x{85}\\p{Z}"},
    {'w', "\\p{Alphabetic}\\p{M}\\p{N}\\p{Pc}"},
};

typedef struct rewriting {
  const char *source, *at;
  char *out;
  bool in_class;
} rewriting;

static qn_status refuse(const rewriting *r, const char *what) {
  return qn__fail(QN_E_SHAPE, "pattern %.200s: %s at byte %td is not read", r->source, what, r->at - r->source);
}

static void put(rewriting *r, const char *text, size_t n) {
  memcpy(r->out, text, n); /* there is room: see LONGEST */
  r->out += n;
}
static void put_text(rewriting *r, const char *text) { put(r, text, strlen(text)); }

/* An escape: of a letter, or of a letter with something in braces. */
static void put_escape(rewriting *r) {
  const char *name = r->at[2] == '{' && strchr("pPx", r->at[1]) ? r->at + 3 + (r->at[3] == '^') : NULL;
  const char *close = name ? strchr(name, '}') : NULL;
  const char *end = close ? close + 1 : r->at + 2;
  if (close && r->at[1] != 'x' && close - name > 2) { /* no category: a script */
    put(r, r->at, (size_t)(name - r->at));
    put_text(r, "sc:");
    r->at = name;
  }
  put(r, r->at, (size_t)(end - r->at));
  r->at = end;
}

static qn_status rewrite_escape(rewriting *r) {
  char c = r->at[1];
  for (size_t i = 0; i < QN_COUNT(classes); i++) {
    bool others = c == classes[i].escape - 'a' + 'A';
    if (c != classes[i].escape && !others) continue;
    if (others && r->in_class) return refuse(r, "a class without members of another");
    put_text(r, r->in_class ? "" : others ? "[^" : "[");
    put_text(r, classes[i].members);
    put_text(r, r->in_class ? "" : "]");
    r->at += 2;
    return QN_OK;
  }
  bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '1' && c <= '9');
  if (!c || (letter && !strchr("aefnrtdDpPxzAZ", c))) return refuse(r, "an escape");
  put_escape(r);
  return QN_OK;
}

static qn_status rewrite_in_class(rewriting *r) {
  if (!strncmp(r->at, "&&", 2)) return refuse(r, "an intersection of classes");
  if (*r->at == '[') return refuse(r, "a class within a class");
  if (*r->at == ']') r->in_class = false;
  put(r, r->at++, 1);
  return QN_OK;
}

static qn_status rewrite_outside(rewriting *r) {
  if (!strncmp(r->at, "(?", 2) && r->at[2 + strspn(r->at + 2, "ix-")] != ':' && strspn(r->at + 2, "imsx-"))
    return refuse(r, "an option");
  if (!strncmp(r->at, "{,", 2) || !strncmp(r->at, "}+", 2)) return refuse(r, "a repeat");
  if (*r->at == '[') { /* a bracket that closes at once is a member */
    r->in_class = true;
    size_t n = r->at[1] == '^' ? 2 : 1;
    n += r->at[n] == ']';
    put(r, r->at, n);
    r->at += n;
    return QN_OK;
  }
  put(r, r->at++, 1);
  return QN_OK;
}

static qn_status rewrite(const char *source, char *out) {
  rewriting r = {.source = source, .at = source, .out = out};
  while (*r.at) QN_TRY(*r.at == '\\' ? rewrite_escape(&r) : r.in_class ? rewrite_in_class(&r) : rewrite_outside(&r));
  *r.out = 0;
  return QN_OK;
}

/* ---- Patterns ---------------------------------------------------------------------------------------------------- */

static qn_status compile(const char *source, uint32_t options, pcre2_code **out) {
  int why;
  PCRE2_SIZE at;
  pcre2_compile_context *c = pcre2_compile_context_create(NULL);
  if (!c) return qn__fail(QN_E_NOMEM, "no memory for a pattern");
  pcre2_set_newline(c, PCRE2_NEWLINE_LF);
  *out = pcre2_compile((PCRE2_SPTR)source, PCRE2_ZERO_TERMINATED, options, &why, &at, c);
  pcre2_compile_context_free(c);
  if (*out) return QN_OK;
  if (why == PCRE2_ERROR_HEAP_FAILED || why == PCRE2_ERROR_NOMEMORY)
    return qn__fail(QN_E_NOMEM, "no memory for a pattern");
  char text[128];
  pcre2_get_error_message(why, (PCRE2_UCHAR *)text, sizeof text);
  return qn__fail(QN_E_SHAPE, "pattern %.200s: %s", source, text);
}

qn_status qn__pattern_new(const char *source, bool literal, pcre2_code **out) {
  enum { LONGEST = 40, MOST = 1 << 16 }; /* bytes that one byte becomes; of a pattern */
  *out = NULL;
  size_t n = strlen(source);
  if (!n || n > MOST) return qn__fail(QN_E_SHAPE, "a pattern of %zu bytes is not read, at most %d", n, MOST);
  if (literal) return compile(source, PCRE2_UTF | PCRE2_LITERAL, out);
  char *rewritten = malloc(n * LONGEST + 1);
  if (!rewritten) return qn__fail(QN_E_NOMEM, "no memory for a pattern");
  qn_status s = rewrite(source, rewritten);
  if (s == QN_OK) s = compile(rewritten, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, out);
  free(rewritten);
  return s;
}

/* ---- Matches ----------------------------------------------------------------------------------------------------- */

qn_status qn__matches_next(qn__matches *m, bool *found) {
  *found = false;
  while (m->from <= m->n) {
    int count = pcre2_match(m->pattern, (PCRE2_SPTR)m->text, m->n, m->from, PCRE2_NO_UTF_CHECK, m->data, NULL);
    if (count == PCRE2_ERROR_NOMATCH) break;
    if (count == PCRE2_ERROR_NOMEMORY) return qn__fail(QN_E_NOMEM, "no memory for a pattern's matches");
    if (count < 0)
      return qn__fail(QN_E_LIMIT, "the tokenizer's pattern takes too long at byte %zu of a piece of text", m->from);
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(m->data);
    if (at[0] == at[1] && m->any && m->end == at[0]) {
      m->from += m->from < m->n ? qn__utf8_bytes(m->text[m->from]) : 1;
      continue;
    }
    m->begin = at[0];
    m->end = m->from = at[1];
    m->any = *found = true;
    return QN_OK;
  }
  m->from = m->n + 1;
  return QN_OK;
}
