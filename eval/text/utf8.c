/* utf8.c - see utf8.h. */
#include "utf8.h"

/* Bytes of the character at s, of which n are there; 0: it is none. Table 3-7 of the Unicode Standard. */
static size_t character(const uint8_t *s, size_t n) {
  if (s[0] < 0x80) return 1;
  size_t bytes = s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
  uint8_t least = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80;
  uint8_t most = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
  if (!bytes || bytes > n || s[1] < least || s[1] > most) return 0;
  for (size_t i = 2; i < bytes; i++)
    if ((s[i] & 0xc0) != 0x80) return 0;
  return bytes;
}

size_t qn__utf8_check(const char *s, size_t n) {
  size_t at = 0;
  for (size_t bytes; at < n; at += bytes)
    if (!(bytes = character((const uint8_t *)s + at, n - at))) return at;
  return n;
}
