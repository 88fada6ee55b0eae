/* memory.c - the pretended device: its limits, its address space, copies.
 *
 * Addresses are not host pointers. Every allocation starts on a granule of 64 KiB of its own and is followed by an
 * empty one, so that a look-up is one table read and an overrun never lands in a neighbour. A shadow byte per byte
 * tells what was written. */
#include "fail.h"
#include "module.h"
#include <stdio.h>
#include <stdlib.h>

qn_status qn__emu_open(int sm, char suffix, qn_emu **out) {
  *out = NULL;
  const qn_architecture *l;
  QN_TRY(qn__architecture(sm, suffix, &l));
  qn_emu *e = calloc(1, sizeof *e);
  if (!e) return qn__fail(QN_E_NOMEM, "emulator: out of memory");
  e->limits = *l, e->suffix = suffix;
  e->granules = calloc(GRANULES, sizeof *e->granules);
  e->blocks = calloc(1, sizeof *e->blocks); /* block 0 is none */
  e->nblocks = 1, e->free_granule = 1;
  if (e->granules && e->blocks) return *out = e, QN_OK;
  qn__emu_close(e);
  return qn__fail(QN_E_NOMEM, "emulator: out of memory");
}

qn_status qn__emu_open_name(const char *name, qn_emu **out) {
  const qn_architecture *l;
  char suffix;
  *out = NULL;
  QN_TRY(qn__architecture_named(strncmp(name, "emu:", 4) ? name : name + 4, &suffix, &l));
  return qn__emu_open(l->sm, suffix, out);
}

void qn__emu_close(qn_emu *e) {
  if (!e) return;
  while (e->modules) qn__emu_module_free(e->modules);
  for (uint32_t k = 1; k < e->nblocks; k++)
    if (e->blocks[k]) qn__emu_block_free(e, e->blocks[k]);
  free(e->granules);
  free(e->blocks);
  free(e);
}

const qn_architecture *qn__emu_limits_of(const qn_emu *e) { return &e->limits; }

/* A run of n empty granules behind an empty one (the guard of what may lie before), first fit behind the last
 * allocation, from the start when the end is reached. */
static uint32_t find_granules(const qn_emu *e, uint64_t n) {
  for (int pass = 0; pass < 2; pass++) {
    uint64_t empty = 0;
    for (uint64_t g = pass ? 0 : e->free_granule - 1; g < GRANULES; g++) {
      empty = e->granules[g] ? 0 : empty + 1;
      if (empty == n + 1) return (uint32_t)(g - n + 1);
    }
  }
  return 0;
}

qn_status qn__emu_block_new(qn_emu *e, uint64_t bytes, block **out) {
  uint64_t n = (bytes >> GRANULE_BITS) + 2;
  uint32_t first = n < GRANULES ? find_granules(e, n) : 0;
  block *b = calloc(1, sizeof *b), **more = realloc(e->blocks, (e->nblocks + 1) * sizeof *more);
  if (more) e->blocks = more;
  if (b && first) b->data = aligned_alloc(256, (bytes + 511) & ~UINT64_C(255)), b->shadow = calloc(1, bytes + 32);
  if (!first || !b || !more || !b->data || !b->shadow) {
    if (b) free(b->data), free(b->shadow);
    free(b);
    return qn__fail(QN_E_NOMEM, "emulator: no room for %llu bytes of device memory", (unsigned long long)bytes);
  }
  memset(b->data, 0xcd, (bytes + 511) & ~UINT64_C(255));
  b->base = GLOBAL_BASE + ((uint64_t)first << GRANULE_BITS), b->size = bytes;
  for (uint64_t g = 0; g + 1 < n; g++) e->granules[first + g] = e->nblocks;
  e->free_granule = first + (uint32_t)n;
  e->blocks[e->nblocks++] = b;
  return *out = b, QN_OK;
}

void qn__emu_block_free(qn_emu *e, block *b) {
  uint64_t first = (b->base - GLOBAL_BASE) >> GRANULE_BITS;
  e->blocks[e->granules[first]] = NULL;
  while (e->nblocks > 1 && !e->blocks[e->nblocks - 1]) e->nblocks--;
  for (uint64_t g = first; g <= first + (b->size >> GRANULE_BITS); g++) e->granules[g] = 0;
  free(b->data);
  free(b->shadow);
  free(b);
}

qn_status qn__emu_alloc(qn_emu *e, uint64_t bytes, uint64_t *address) {
  block *b;
  *address = 0;
  if (!bytes) return qn__fail(QN_E_ARG, "emulator: allocation of 0 bytes");
  QN_TRY(qn__emu_block_new(e, bytes, &b));
  return *address = b->base, QN_OK;
}

qn_status qn__emu_free(qn_emu *e, uint64_t address) {
  if (!address) return QN_OK;
  block *b = block_at(e, address);
  if (!b || b->base != address || b->owned)
    return qn__fail(QN_E_ARG, "emulator: 0x%llx is not the start of an allocation", (unsigned long long)address);
  qn__emu_block_free(e, b);
  return QN_OK;
}

static qn_status locate(qn_emu *e, uint64_t address, uint64_t bytes, block **out) {
  *out = block_at(e, address);
  return block_holds(*out, address, bytes)
             ? QN_OK
             : qn__fail(QN_E_ARG, "emulator: %llu bytes at 0x%llx do not lie in one allocation",
                        (unsigned long long)bytes, (unsigned long long)address);
}

static void wrote(block *b, uint64_t at, uint64_t bytes) {
  if (!b->shadow) return;
  memset(b->shadow + at, B_WRITTEN, bytes);
  if (bytes == b->size) free(b->shadow), b->shadow = NULL;
}

qn_status qn__emu_write(qn_emu *e, uint64_t to, const void *from, uint64_t bytes) {
  block *b;
  if (!bytes) return QN_OK;
  QN_TRY(locate(e, to, bytes, &b));
  memcpy(b->data + (to - b->base), from, bytes);
  wrote(b, to - b->base, bytes);
  return QN_OK;
}

qn_status qn__emu_read(qn_emu *e, void *to, uint64_t from, uint64_t bytes) {
  block *b;
  if (!bytes) return QN_OK;
  QN_TRY(locate(e, from, bytes, &b));
  memcpy(to, b->data + (from - b->base), bytes);
  return QN_OK;
}

qn_status qn__emu_fill(qn_emu *e, uint64_t to, uint32_t value, int width, uint64_t count) {
  block *b;
  if (width != 1 && width != 2 && width != 4) return qn__fail(QN_E_ARG, "emulator: fill of %d bytes", width);
  if (count > UINT64_MAX / 4) return qn__fail(QN_E_ARG, "emulator: fill of %llu elements", (unsigned long long)count);
  if (!count) return QN_OK;
  QN_TRY(locate(e, to, count * (unsigned)width, &b));
  for (uint64_t k = 0; k < count; k++) memcpy(b->data + (to - b->base) + k * (unsigned)width, &value, (size_t)width);
  wrote(b, to - b->base, count * (unsigned)width);
  return QN_OK;
}
