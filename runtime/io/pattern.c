/* pattern.c - regular expressions, in which configurations name layers.
 *
 * A piece of an expression takes the set of places in the text where it may begin to the set of those where it may end;
 * a match is a set that is not empty. Nothing is tried twice, so that no expression takes long.
 *
 * The syntax is Python's as far as layers are named with it: . [] \d \w \s (and capitals) | () (?:) (?=) (?!) ^ $ and
 * the counts * + ? {m} {m,} {m,n}, lazy or not. Whatever else there is makes the answer QN__MATCH_UNKNOWN. */
#include "model.h"
#include <ctype.h>
#include <string.h>

enum { LONGEST = 511, DEEPEST = 32, WORK = 1000000 };

typedef struct places {
  uint64_t word[(LONGEST + 1) / 64];
} places;

typedef struct matcher {
  const char *p; /* in the expression */
  const char *text;
  int length, depth;
  int64_t work; /* characters that may still be looked at */
  bool one_way; /* there is no '|': an empty set stays so */
  bool bad;
} matcher;

static bool has(const places *s, int i) { return s->word[i / 64] >> i % 64 & 1; }
static void add(places *s, int i) { s->word[i / 64] |= 1ull << i % 64; }

static int next(const places *s, int i) { /* the first place from i on, or one that no text has */
  for (; i <= LONGEST; i = (i / 64 + 1) * 64) {
    uint64_t rest = s->word[i / 64] >> i % 64;
    if (rest) return i + __builtin_ctzll(rest);
  }
  return i;
}

static bool is_empty(const places *s) { return next(s, 0) > LONGEST; }

static bool join(places *to, const places *from) { /* is any of them new? */
  uint64_t new = 0;
  for (size_t i = 0; i < QN_COUNT(to->word); i++) {
    new |= from->word[i] & ~to->word[i];
    to->word[i] |= from->word[i];
  }
  return new;
}

/* ---- Characters -------------------------------------------------------------------------------------------------- */

typedef struct members {
  bool of[256];
} members;

static void add_kind(members *m, char kind) { /* d w s, or their complement in capitals */
  for (int c = 0; c < 256; c++) {
    bool in = tolower(kind) == 'd'   ? c >= '0' && c <= '9'
              : tolower(kind) == 's' ? strchr(" \t\n\r\f\v", c) && c
                                     : c < 128 && (isalnum(c) || c == '_');
    m->of[c] |= in != (isupper((unsigned char)kind) != 0);
  }
}

/* A character of a class, or a kind of them, which has no end. */
static int read_member(matcher *r, members *m) {
  char c = *r->p;
  if (c) r->p++;
  if (c != '\\') return (unsigned char)c;
  c = *r->p;
  if (c) r->p++;
  if (c && strchr("dwsDWS", c)) return add_kind(m, c), -1;
  r->bad |= !c || isalnum((unsigned char)c); /* \b, \1, \x… */
  return (unsigned char)c;
}

static void read_class(matcher *r, members *m) { /* after the '[' */
  bool inverse = *r->p == '^';
  if (inverse) r->p++;
  for (bool first = true; *r->p && (first || *r->p != ']'); first = false) {
    int low = read_member(r, m), high = low;
    if (low >= 0 && r->p[0] == '-' && r->p[1] && r->p[1] != ']') {
      r->p++;
      high = read_member(r, m);
    }
    r->bad |= high < low;
    for (int c = low; c >= 0 && c <= high; c++) m->of[c] = true;
  }
  r->bad |= *r->p != ']';
  if (*r->p) r->p++;
  for (int c = 0; inverse && c < 256; c++) m->of[c] = !m->of[c];
}

static places character(matcher *r, places in) {
  members m = {{false}};
  places out = {{0}};
  char c = *r->p;
  if (!c || strchr("*+?{)|", c)) return r->bad = true, out;
  if (c == '[') r->p++, read_class(r, &m);
  else if (c == '.') {
    r->p++;
    memset(m.of, true, sizeof m.of);
    m.of['\n'] = false;
  } else {
    int one = read_member(r, &m);
    if (one >= 0) m.of[one] = true;
  }
  for (int i = next(&in, 0); i < r->length; i = next(&in, i + 1))
    if (m.of[(unsigned char)r->text[i]]) add(&out, i + 1);
  return out;
}

/* ---- Pieces ------------------------------------------------------------------------------------------------------ */

static places either(matcher *r, places in);

/* Which places of `in` does the rest of the group follow, or not follow? */
static places look_ahead(matcher *r, places in, bool wanted) {
  const char *start = r->p;
  places out = {{0}}, end = either(r, out);
  const char *after = r->p;
  for (int i = next(&in, 0); i <= r->length && !r->bad; i = next(&in, i + 1)) {
    places one = {{0}};
    add(&one, i);
    r->p = start;
    end = either(r, one);
    if (is_empty(&end) != wanted) add(&out, i);
  }
  r->p = after;
  return out;
}

static places group(matcher *r, places in) { /* after the '(' */
  static const char *const kinds[] = {"?:", "?=", "?!"};
  size_t kind = 0;
  while (kind < QN_COUNT(kinds) && strncmp(r->p, kinds[kind], 2)) kind++;
  if (kind < QN_COUNT(kinds)) r->p += 2;
  if (*r->p == '?' || ++r->depth > DEEPEST) return r->bad = true, in;
  places out = kind == 1 || kind == 2 ? look_ahead(r, in, kind == 1) : either(r, in);
  r->depth--;
  r->bad |= *r->p != ')';
  if (*r->p) r->p++;
  return out;
}

static places piece(matcher *r, places in) {
  places out = {{0}};
  int edge = *r->p == '^' ? 0 : *r->p == '$' ? r->length : -1;
  if ((r->work -= r->length + 8) < 0) r->bad = true;
  if (r->bad) return out;
  if (*r->p == '(') return r->p++, group(r, in);
  if (edge < 0) return character(r, in);
  r->p++;
  if (has(&in, edge)) add(&out, edge);
  return out;
}

static int number(matcher *r, int fallback) {
  int v = 0;
  if (!isdigit((unsigned char)*r->p)) return fallback;
  for (; isdigit((unsigned char)*r->p); r->p++) v = v < LONGEST ? v * 10 + *r->p - '0' : v;
  return v;
}

static void read_count(matcher *r, int *least, int *most) {
  char c = *r->p;
  if (!c || !strchr("*+?{", c)) return;
  r->p++;
  *least = c == '+';
  *most = c == '?' ? 1 : INT32_MAX;
  if (c == '{') {
    r->bad |= !isdigit((unsigned char)*r->p);
    *least = *most = number(r, 0);
    if (*r->p == ',') r->p++, *most = number(r, INT32_MAX);
    r->bad |= *r->p != '}' || *most < *least;
    if (*r->p) r->p++;
  }
  if (*r->p == '?') r->p++; /* lazy: where it ends differs, not whether it does */
}

static places counted(matcher *r, places in) {
  const char *start = r->p;
  places now = piece(r, in), all = {{0}};
  int least = 1, most = 1;
  read_count(r, &least, &most);
  const char *after = r->p;
  if (least == 1 && most == 1) return now;
  if (!least) all = in;
  for (int i = 1; i <= most && !r->bad && !is_empty(&now); i++) {
    if (i >= least && !join(&all, &now)) break; /* a place that was there leads nowhere new */
    r->p = start;
    now = piece(r, now);
  }
  r->p = after;
  return all;
}

static places either(matcher *r, places in) { /* until ')' or the end */
  places all = {{0}}, now = in;
  for (; !r->bad && *r->p && *r->p != ')'; now = in, r->p++) {
    while (!r->bad && *r->p && *r->p != ')' && *r->p != '|') {
      now = counted(r, now);
      if (r->one_way && !r->depth && is_empty(&now)) r->p = ""; /* most names differ early */
    }
    join(&all, &now);
    if (*r->p != '|') return all;
  }
  join(&all, &now); /* an empty last alternative */
  return all;
}

qn__match qn__pattern_match(const char *pattern, const char *text, size_t length) {
  matcher r = {.p = pattern, .text = text, .length = (int)length, .work = WORK, .one_way = !strchr(pattern, '|')};
  places start = {{1}};
  if (length > LONGEST) return QN__MATCH_UNKNOWN;
  places end = either(&r, start);
  if (r.bad || *r.p) return QN__MATCH_UNKNOWN;
  return is_empty(&end) ? QN__MATCH_NO : QN__MATCH_YES;
}
