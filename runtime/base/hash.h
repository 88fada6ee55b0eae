/* hash.h - content hashes: XXH3, 128 bits, in the canonical (big-endian) byte order. Not against an adversary. */
#ifndef QN_HASH_H
#define QN_HASH_H
#include <stddef.h>
#include <stdint.h>

#define QN_HASH_BYTES 16
void qn__hash128(const void *data, size_t size, uint8_t out[QN_HASH_BYTES]);
/* A hash as 32 hexadecimal digits and a zero. */
void qn__hash_text(const uint8_t hash[QN_HASH_BYTES], char out[2 * QN_HASH_BYTES + 1]);
/* Both at once. */
static inline void qn__hash_hex(const void *data, size_t size, char out[2 * QN_HASH_BYTES + 1]) {
  uint8_t hash[QN_HASH_BYTES];
  qn__hash128(data, size, hash);
  qn__hash_text(hash, out);
}
#endif
