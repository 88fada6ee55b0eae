/* pack_seal.h - make the checksums of a pack right, as a faulty or hostile writer would. */
#ifndef PACK_SEAL_H
#define PACK_SEAL_H
#include "hash.h"
#include "pack_format.h"

/* The pack has at least a header and a section table; sections that it has not are left alone. */
static inline void pack_seal(uint8_t *pack, size_t size) {
  qn__put64(pack + 16, size);
  for (int i = 0; i < QN_PACK_SECTIONS; i++) {
    uint8_t *e = pack + QN_PACK_HEADER + i * QN_PACK_ENTRY;
    uint64_t at = qn__get64(e + 8), bytes = qn__get64(e + 16);
    if (at <= size && bytes <= size - at) qn__hash128(pack + at, bytes, e + 24);
  }
  qn__hash128(pack + QN_PACK_HEADER, QN_PACK_TABLE, pack + 32);
  qn__hash128(pack, 48, pack + 48);
}
#endif
