/* utf8.h - characters of UTF-8. */
#ifndef QN_EVAL_UTF8_H
#define QN_EVAL_UTF8_H
#include <stddef.h>
#include <stdint.h>

/* The length of valid text's character that begins with this byte. */
static inline size_t qn__utf8_bytes(char first) {
  uint8_t c = (uint8_t)first;
  return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

/* The code point of valid text's character at s. */
static inline uint32_t qn__utf8_point(const char *s) {
  size_t n = qn__utf8_bytes(*s);
  uint32_t c = n == 1 ? (uint8_t)*s : (uint8_t)*s & (0x7fu >> n);
  for (size_t i = 1; i < n; i++) c = c << 6 | ((uint8_t)s[i] & 0x3f);
  return c;
}

/* Writes a code point below 0x800; returns its length. */
static inline size_t qn__utf8_put(uint32_t c, char *out) {
  if (c < 0x80) return out[0] = (char)c, 1;
  out[0] = (char)(0xc0 | c >> 6);
  out[1] = (char)(0x80 | (c & 0x3f));
  return 2;
}

/* Where text is no UTF-8 (surrogates are none); n: nowhere. */
size_t qn__utf8_check(const char *s, size_t n);
#endif
