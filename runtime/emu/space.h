/* space.h - address spaces, and the memory of the pretended device. */
#ifndef QN_EMU_SPACE_H
#define QN_EMU_SPACE_H
#include "emu.h"
#include <stdbool.h>

/* PTX ISA, "State Spaces", "Generic Addressing". A generic address carries its window in the top 16 bits; 0 is global.
 * A shared address is 24 bits of offset under the CTA's rank in its cluster plus one (0: the executing CTA). */
typedef enum space { S_GENERIC, S_GLOBAL, S_SHARED, S_LOCAL, S_PARAM, S_CONST } space;
#define WINDOW_SHARED (UINT64_C(1) << 48)
#define WINDOW_LOCAL (UINT64_C(2) << 48)
#define WINDOW_PARAM (UINT64_C(3) << 48)
#define WINDOW_MASK (UINT64_C(0xffff) << 48)
#define GLOBAL_BASE UINT64_C(0x700000000000)
#define GRANULE_BITS 16
#define GRANULES (UINT64_C(1) << 21) /* of 64 KiB: 128 GiB of device addresses */
#define SHARED_BASE 1024u            /* what lies below is the system's, as on sm_90 */
#define SHARED_OFFSET 0xffffffu
#define PARAM_BYTES 4096u

/* Shadow of a byte. */
enum { B_UNWRITTEN = 0, B_PENDING = 1, B_MBARRIER = 2, B_WRITTEN = 0xff };

typedef struct block {
  uint64_t base, size;
  uint8_t *data, *shadow; /* shadow NULL: all written */
  bool readonly, owned;   /* owned by a module */
} block;

struct qn_emu {
  qn_architecture limits;
  char suffix;
  uint32_t *granules; /* index into blocks, 0 none */
  block **blocks;
  uint32_t nblocks, free_granule;
  qn_emu_module *modules;
};

static inline block *block_at(const qn_emu *e, uint64_t address) {
  uint64_t g = (address - GLOBAL_BASE) >> GRANULE_BITS;
  return g < GRANULES ? e->blocks[e->granules[g]] : NULL;
}
static inline bool block_holds(const block *b, uint64_t address, uint64_t bytes) {
  return b && address >= b->base && bytes <= b->size && address - b->base <= b->size - bytes;
}
qn_status qn__emu_block_new(qn_emu *e, uint64_t bytes, block **out);
void qn__emu_block_free(qn_emu *e, block *b);
#endif
