/* hash.c - the one place that compiles xxHash in: libquernel links no library for it. */
#define XXH_INLINE_ALL
#include "hash.h"
#include <xxhash.h>

void qn__hash128(const void *data, size_t size, uint8_t out[QN_HASH_BYTES]) {
  XXH128_canonicalFromHash((XXH128_canonical_t *)out, XXH3_128bits(data, size));
}

void qn__hash_text(const uint8_t hash[QN_HASH_BYTES], char out[2 * QN_HASH_BYTES + 1]) {
  for (int i = 0; i < QN_HASH_BYTES; i++) {
    out[2 * i] = "0123456789abcdef"[hash[i] >> 4];
    out[2 * i + 1] = "0123456789abcdef"[hash[i] & 15];
  }
  out[2 * QN_HASH_BYTES] = 0;
}
