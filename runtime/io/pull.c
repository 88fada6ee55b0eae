/* pull.c - see pull.h. Grammar of RFC 8259; numbers in skipped values are checked loosely. */
#include "pull.h"
#include <string.h>

static bool bad(qn__pull *j, const char *what) {
  if (!j->bad) j->bad = what;
  return false;
}

static void blanks(qn__pull *j) {
  while (j->p < j->end && strchr(" \t\n\r", *j->p) && *j->p) j->p++;
}

bool qn__pull_take(qn__pull *j, char c) {
  blanks(j);
  if (j->bad || j->p == j->end || *j->p != c) return false;
  j->p++;
  return true;
}

bool qn__pull_end(qn__pull *j) {
  blanks(j);
  return j->p == j->end;
}

bool qn__pull_need(qn__pull *j, char c) {
  static const char *const what[] = {"'{'", "'}'", "'['", "']'", "':'", "','", "'\"'"};
  if (qn__pull_take(j, c)) return true;
  for (size_t i = 0; i < sizeof what / sizeof *what; i++)
    if (what[i][1] == c) return bad(j, what[i]);
  return bad(j, "another character");
}

bool qn__pull_int(qn__pull *j, uint64_t *v) {
  blanks(j);
  const char *start = j->p;
  for (*v = 0; j->p < j->end && *j->p >= '0' && *j->p <= '9'; j->p++)
    if (__builtin_mul_overflow(*v, 10u, v) || __builtin_add_overflow(*v, (uint64_t)(*j->p - '0'), v))
      return bad(j, "a number below 2^64");
  if (j->p == start || (*start == '0' && j->p - start > 1)) return bad(j, "a whole number");
  if (j->p < j->end && strchr(".eE", *j->p) && *j->p) return bad(j, "a whole number");
  return true;
}

static bool hex4(qn__pull *j, uint32_t *v) {
  *v = 0;
  for (int i = 0; i < 4; i++, j->p++) {
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    const char *d = j->p < j->end && *j->p ? strchr(digits, *j->p) : NULL;
    if (!d) return bad(j, "four hexadecimal digits");
    *v = *v << 4 | ((uint32_t)(d - digits) & 15);
  }
  return true;
}

static size_t utf8(uint32_t c, char out[4]) {
  if (c < 0x80) return out[0] = (char)c, 1;
  size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
  for (size_t i = n - 1; i; i--, c >>= 6) out[i] = (char)(0x80 | (c & 63));
  out[0] = (char)(0xf00 >> n | c);
  return n;
}

static bool escape(qn__pull *j, char piece[4], size_t *n) { /* after the backslash */
  static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
  if (j->p == j->end) return bad(j, "the end of the string");
  char c = *j->p++;
  const char *at = c ? strchr(from, c) : NULL;
  *n = 1;
  if (at) return piece[0] = to[at - from], true;
  uint32_t u, low;
  if (c != 'u') return bad(j, "an escape of JSON");
  if (!hex4(j, &u)) return false;
  if (u >= 0xd800 && u < 0xdc00) { /* the first of a surrogate pair */
    if (j->end - j->p < 6 || j->p[0] != '\\' || j->p[1] != 'u') return bad(j, "a surrogate pair");
    j->p += 2;
    if (!hex4(j, &low)) return false;
    if (low < 0xdc00 || low > 0xdfff) return bad(j, "a surrogate pair");
    u = 0x10000 + ((u - 0xd800) << 10) + (low - 0xdc00);
  } else if (u >= 0xdc00 && u < 0xe000) return bad(j, "a surrogate pair");
  *n = utf8(u, piece);
  return true;
}

bool qn__pull_string(qn__pull *j, char *out, size_t cap, size_t *length) {
  if (!qn__pull_need(j, '"')) return false;
  for (size_t at = 0; j->p < j->end;) {
    char piece[4] = {*j->p++};
    size_t n = 1;
    if (piece[0] == '"') {
      if (out) out[at] = 0;
      if (length) *length = at;
      return true;
    }
    if ((unsigned char)piece[0] < 0x20) return bad(j, "a printable character");
    if (piece[0] == '\\' && !escape(j, piece, &n)) return false;
    if (!out) continue;
    if (!piece[0]) return bad(j, "a name without a zero byte");
    if (cap - at <= n) return bad(j, "a shorter name");
    memcpy(out + at, piece, n);
    at += n;
  }
  return bad(j, "the end of the string");
}

static bool word(qn__pull *j) { /* true, false, null, a number, and what Python takes for one */
  static const char *const words[] = {"true", "false", "null", "NaN", "Infinity", "-Infinity"};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
    size_t n = strlen(words[i]);
    if ((size_t)(j->end - j->p) >= n && !memcmp(j->p, words[i], n)) return j->p += n, true;
  }
  const char *start = j->p;
  while (j->p < j->end && *j->p && strchr("+-.0123456789eE", *j->p)) j->p++;
  return j->p > start || bad(j, "a value");
}

static bool skip(qn__pull *j, int depth) {
  if (depth > 64) return bad(j, "less than 64 levels");
  blanks(j);
  if (j->p < j->end && *j->p == '"') return qn__pull_string(j, NULL, 0, NULL);
  if (qn__pull_take(j, '[')) {
    if (qn__pull_take(j, ']')) return true;
    do {
      if (!skip(j, depth + 1)) return false;
    } while (qn__pull_take(j, ','));
    return qn__pull_need(j, ']');
  }
  if (qn__pull_take(j, '{')) {
    if (qn__pull_take(j, '}')) return true;
    do {
      if (!qn__pull_string(j, NULL, 0, NULL) || !qn__pull_need(j, ':') || !skip(j, depth + 1)) return false;
    } while (qn__pull_take(j, ','));
    return qn__pull_need(j, '}');
  }
  return word(j);
}

bool qn__pull_skip(qn__pull *j) { return !j->bad && skip(j, 0); }
