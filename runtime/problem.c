/* problem.c - the spelling of a problem: FORMAT:[Ex]NxK[:[X~]ACT[-OUT]][EPILOGUE]. */
#include "fail.h"

#include "desc.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A decimal number without sign at *s, moved past it. 0 where there is none; saturates. */
static int64_t number(const char **s) {
  int64_t v = 0;
  for (; **s >= '0' && **s <= '9'; ++*s) v = v > INT64_MAX / 16 ? INT64_MAX / 16 : v * 10 + (**s - '0');
  return v;
}

static qn_status bad_spelling(const char *spelling, const char *why) {
  return qn__fail(QN_E_ARG,
                  "problem '%.160s': %s; the form is FORMAT:[Ex]NxK[:[X~]ACT[-OUT]][EPILOGUE], e.g. "
                  "int4.g128:4096x4096:bf16-f32+bias",
                  spelling, why);
}

/* Sets of types, by what they may be. */
enum { PLAIN = 1 << QN_AS_X_PLAIN, SCALED = 1 << QN_AS_X_SCALED };

static bool fits(qn_type t, unsigned set) { return set >> qn__form[t].as_x & 1; }

/* What is wrong with a type that is none of the set: "outputs are f16, bf16 or f32". */
static qn_status bad_type(const char *spelling, const char *what, unsigned set) {
  const char *name[QN__TYPES];
  char why[128];
  int n = 0, at = snprintf(why, sizeof why, "%s are ", what);
  for (unsigned as = PLAIN; as <= SCALED; as <<= 1)
    for (int t = 0; t < QN__TYPES; t++)
      if (fits((qn_type)t, as & set)) name[n++] = qn_type_name((qn_type)t);
  for (int i = 0; i < n; i++)
    at += snprintf(why + at, sizeof why - (size_t)at, "%s%s", !i ? "" : i < n - 1 ? ", " : " or ", name[i]);
  return bad_spelling(spelling, why);
}

/* The type whose name is `length` bytes at s, if it is of the set. */
static qn_type type_at(const char *s, size_t length, unsigned set) {
  char name[16];
  snprintf(name, sizeof name, "%.*s", (int)length, s);
  qn_type t = length < sizeof name ? qn_type_from_name(name) : QN_T_NONE;
  return fits(t, set) ? t : QN_T_NONE;
}

/* ---- Epilogues --------------------------------------------------------------------------------------------------- */

#define STEP_BEGINS "+*."

static const char *step_spelling(int code) { return code < QN_EPILOGUE_COUNT ? qn__epilogue_step[code].spelling : "?"; }

/* Number of the step that is spelled by `length` bytes at s; QN_EPILOGUE_END: there is none. */
static uint8_t step_at(const char *s, size_t length) {
  for (int code = 1; code < QN_EPILOGUE_COUNT; code++)
    if (strlen(step_spelling(code)) == length && !memcmp(step_spelling(code), s, length)) return (uint8_t)code;
  return QN_EPILOGUE_END;
}

/* "+bias …": every step, in the order of the table. */
static void list_steps(char *out, size_t size) {
  *out = 0;
  for (int code = 1; code < QN_EPILOGUE_COUNT; code++) {
    size_t n = strlen(out);
    snprintf(out + n, size - n, "%s%s", n ? " " : "", step_spelling(code));
  }
}

static qn_status parse_epilogue(const char *spelling, const char *s, qn_problem *out) {
  char why[256], known[192];
  for (int i = 0; *s; i++) {
    size_t length = 1 + strcspn(s + 1, STEP_BEGINS);
    list_steps(known, sizeof known);
    if (!strchr(STEP_BEGINS, *s)) snprintf(why, sizeof why, "'%.32s' is no step of an epilogue; known: %s", s, known);
    else if (!step_at(s, length))
      snprintf(why, sizeof why, "no step is called '%.*s'; known: %s", (int)(length < 32 ? length : 32), s, known);
    else if (i == QN_EPILOGUE_STEPS) snprintf(why, sizeof why, "an epilogue has at most %d steps", QN_EPILOGUE_STEPS);
    else {
      out->epilogue[i] = step_at(s, length), s += length;
      continue;
    }
    return bad_spelling(spelling, why);
  }
  return QN_OK;
}

static qn_status bad_step(const qn_problem *p, int i, const char *why) {
  return qn__fail(QN_E_ARG, "problem '%s': '%s' %s", p->spelling, step_spelling(p->epilogue[i]), why);
}

/* Step i: does it come once, and, where there is *gate, on the side of it where the operand's columns are? */
static qn_status check_step(const qn_problem *p, int i) {
  int operand = qn__epilogue_step[p->epilogue[i]].operand;
  qn_problem wide = *p;
  wide.n = 4;
  if (memchr(p->epilogue, p->epilogue[i], (size_t)i)) return bad_step(p, i, "is there twice; a step may come once");
  if (operand == QN_ARG_UP && (!i || qn__epilogue_step[p->epilogue[i - 1]].operand != QN_ARG_COUNT))
    return bad_step(p, i, "follows a function of the gate, as in '.silu*gate'");
  if (operand == QN_ARG_UP && p->n % 2) return bad_step(p, i, "pairs rows 0 .. N/2 with the rest: N must be even");
  if (operand >= QN_ARG_COUNT || !qn__gated(p)) return QN_OK;
  int gate = 0;
  while (qn__epilogue_step[p->epilogue[gate]].operand != QN_ARG_UP) gate++;
  int64_t cols = qn__operand(&wide, (qn_arg)operand).cols;
  if (i < gate && cols == qn__columns(&wide))
    return bad_step(p, i, "has an element for each column of Y: it comes behind '*gate'");
  if (i > gate && cols == wide.n) return bad_step(p, i, "has an element for each row of W: it comes before '*gate'");
  return QN_OK;
}

qn_status qn__epilogue_check(const qn_problem *p) {
  for (int i = 0; i < QN_EPILOGUE_STEPS; i++)
    if (p->epilogue[i] >= QN_EPILOGUE_COUNT || (p->epilogue[i] && i && !p->epilogue[i - 1]))
      return qn__fail(QN_E_ARG, "problem '%s': step %d of its epilogue is not known", p->spelling, i);
  for (int i = 0; i < QN_EPILOGUE_STEPS && p->epilogue[i]; i++) QN_TRY(check_step(p, i));
  return QN_OK;
}

/* ---- Problems ---------------------------------------------------------------------------------------------------- */

/* ACT or X~ACT at *s, moved past it. */
static qn_status parse_act(const char *spelling, const char **s, qn_problem *out) {
  size_t used = strcspn(*s, "~-" STEP_BEGINS);
  bool rounds = (*s)[used] == '~';
  unsigned set = rounds ? SCALED : PLAIN | SCALED;
  if (rounds) {
    if (!(out->x = type_at(*s, used, PLAIN))) return bad_type(spelling, "types of X before a '~'", PLAIN);
    *s += used + 1;
    used = strcspn(*s, "-" STEP_BEGINS);
  }
  out->act = type_at(*s, used, set);
  *s += used;
  return out->act ? QN_OK : bad_type(spelling, rounds ? "types behind a '~'" : "activations", set);
}

static qn_status bad_size(const char *spelling, char what, int64_t size, int64_t most) {
  return qn__fail(QN_E_SHAPE, "problem '%.160s': %c = %lld is outside 1 .. %lld", spelling, what, (long long)size,
                  (long long)most);
}

/* NxK or ExNxK at *s, moved past it. */
static qn_status parse_shape(const char *spelling, const char **s, qn_problem *out) {
  int64_t size[3];
  int n = 0;
  do {
    if (**s < '0' || **s > '9')
      return bad_spelling(spelling, n > 1 ? "no number after 'x'" : n ? "no 'x' and K after N" : "N is not a number");
    size[n++] = number(s);
  } while (n < 3 && **s == 'x' && ++*s);
  if (n == 1) return bad_spelling(spelling, "no 'x' and K after N");
  out->n = size[n - 2], out->k = size[n - 1];
  if (n == 3 && (size[0] < 1 || size[0] > QN_EXPERTS)) return bad_size(spelling, 'E', size[0], QN_EXPERTS);
  if (n == 3) out->experts = size[0];
  if (out->n < 1 || out->n > INT32_MAX) return bad_size(spelling, 'N', out->n, INT32_MAX);
  return out->k < 1 || out->k > INT32_MAX ? bad_size(spelling, 'K', out->k, INT32_MAX) : QN_OK;
}

qn_status qn__problem_parse(const char *spelling, qn_problem *out) {
  *out = (qn_problem){0};
  if (!spelling) return qn__fail(QN_E_ARG, "problem is NULL");
  size_t name = strcspn(spelling, ":");
  if (!name || spelling[name] != ':') return bad_spelling(spelling, "no format before a ':'");
  if (name >= QN_NAME) return bad_spelling(spelling, "format name too long");
  memcpy(out->format, spelling, name);

  const char *s = spelling + name + 1;
  QN_TRY(parse_shape(spelling, &s, out));

  if (*s == ':') {
    s++;
    QN_TRY(parse_act(spelling, &s, out));
    if (*s == '-') {
      size_t used = strcspn(++s, STEP_BEGINS);
      if (!(out->out = type_at(s, used, PLAIN))) return bad_type(spelling, "outputs", PLAIN);
      s += used;
    }
  }
  QN_TRY(parse_epilogue(spelling, s, out));
  qn__problem_spell(out);
  return qn__epilogue_check(out);
}

/* "" for QN_T_NONE. */
static const char *type_text(uint32_t t) {
  const char *name = t ? qn_type_name((qn_type)t) : "";
  return name ? name : "?";
}

void qn__problem_spell(qn_problem *p) {
  char stack[24] = "";
  if (p->experts) snprintf(stack, sizeof stack, "%lldx", (long long)p->experts);
  int n = snprintf(p->spelling, sizeof p->spelling, "%s:%s%lldx%lld%s%s%s%s%s%s", p->format, stack, (long long)p->n,
                   (long long)p->k, p->act ? ":" : "", type_text(p->x), p->x ? "~" : "", type_text(p->act),
                   p->out ? "-" : "", type_text(p->out));
  for (int i = 0; i < QN_EPILOGUE_STEPS && p->epilogue[i]; i++)
    n += snprintf(p->spelling + n, sizeof p->spelling - (size_t)n, "%s", step_spelling(p->epilogue[i]));
}

/* ---- Names of formats -------------------------------------------------------------------------------------------- */

static bool has_word(const char *list, const char *word, size_t length) {
  for (; *list; list += strspn(list, ".")) {
    size_t n = strcspn(list, ".");
    if (n == length && !memcmp(list, word, n)) return true;
    list += n;
  }
  return false;
}

/* Is every word of `list` in one of the other two? */
static bool all_words_in(const char *list, const char *a, const char *b) {
  for (; *list; list += strspn(list, ".")) {
    size_t n = strcspn(list, ".");
    if (n && !has_word(a, list, n) && !has_word(b, list, n)) return false;
    list += n;
  }
  return true;
}

bool qn__format_named(const qn_format *f, const char *spelling) {
  size_t family = strcspn(spelling, ".");
  return family == strcspn(f->name, ".") && !memcmp(spelling, f->name, family) &&
         all_words_in(spelling, f->name, f->implied) && all_words_in(f->name, spelling, f->implied);
}
