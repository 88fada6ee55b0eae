/* bulk.c - cp.async.bulk, TMA (cp.async.bulk.tensor), tensor maps, distributed shared memory.
 *
 * A copy into shared memory announces its bytes on an mbarrier when it lands; a copy out of it belongs to the bulk
 * groups of its thread. Tensor maps are our own 128 bytes, because the driver's encoding is not public. Not supported:
 * im2col, interleaved layouts, gather and scatter. Source: PTX ISA, "cp.async.bulk", "cp.async.bulk.tensor",
 * "cp.reduce.async.bulk", "Tensors" (Bounding-Box, Out-of-boundary access, Swizzling modes); CUDA driver API,
 * cuTensorMapEncodeTiled. */
#include "async.h"
#include "checks.h"
#include "fail.h"
#include "half.h"
#include "rule.h"
#include "shadow.h"
#include <stdlib.h>

typedef uint32_t u32;
typedef uint64_t u64;

/* ---- Tensor maps ------------------------------------------------------------------------------------------------- */

typedef struct tensor_map {
  u32 magic;
  uint8_t type, rank, swizzle, fill;
  u64 address, stride[4];
  u32 dim[5]; /* less one */
  uint16_t box[5];
  uint8_t step[5];
} tensor_map;
_Static_assert(sizeof(tensor_map) <= 128, "a tensor map is 128 bytes");
enum { MAP_MAGIC = 0x50414d51 };

/* CUtensorMapDataType: bytes of an element. */
static const uint8_t type_bytes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4};
/* CUtensorMapSwizzle: bytes of a row. */
static const u32 swizzle_span[] = {0, 32, 64, 128};

qn_status qn__emu_tensor_encode(void *map, int kind, uint32_t rank, uint64_t address, const uint64_t *dims,
                                const uint64_t *strides, const uint32_t *box, const uint32_t *steps, int interleave,
                                int swizzle, int promotion, int fill) {
  if (kind < 0 || kind >= (int)QN_COUNT(type_bytes)) return qn__fail(QN_E_ARG, "tensor map: data type %d", kind);
  if (rank < 1 || rank > 5) return qn__fail(QN_E_ARG, "tensor map: rank %u is not 1 to 5", rank);
  if (interleave) return qn__fail(QN_E_ARG, "tensor map: interleaved layouts are not supported");
  if (swizzle < 0 || swizzle > 3) return qn__fail(QN_E_ARG, "tensor map: swizzle %d is not 0 to 3", swizzle);
  if (promotion < 0 || promotion > 3 || fill < 0 || fill > 1)
    return qn__fail(QN_E_ARG, "tensor map: promotion %d, fill %d", promotion, fill);
  if (!address || address & 15 || (uintptr_t)map & 63)
    return qn__fail(QN_E_ARG, "tensor map: address 0x%llx is not aligned to 16", (unsigned long long)address);
  tensor_map m = {.magic = MAP_MAGIC,
                  .type = (uint8_t)kind,
                  .rank = (uint8_t)rank,
                  .swizzle = (uint8_t)swizzle,
                  .fill = (uint8_t)fill,
                  .address = address};
  u32 size = type_bytes[kind];
  for (u32 r = 0; r < rank; r++) {
    if (!dims[r] || dims[r] > UINT64_C(1) << 32)
      return qn__fail(QN_E_ARG, "tensor map: dimension %u is %llu", r, (unsigned long long)dims[r]);
    if (!box[r] || box[r] > 256)
      return qn__fail(QN_E_ARG, "tensor map: box %u of dimension %u is not 1 to 256", box[r], r);
    if (steps[r] != 1)
      return qn__fail(QN_E_ARG, "tensor map: element stride %u of dimension %u: only 1 is supported", steps[r], r);
    if (r && (strides[r - 1] & 15 || strides[r - 1] >= UINT64_C(1) << 40 || !strides[r - 1]))
      return qn__fail(QN_E_ARG, "tensor map: stride %llu of dimension %u is not a multiple of 16 below 2^40",
                      (unsigned long long)strides[r - 1], r);
    m.dim[r] = (u32)(dims[r] - 1), m.box[r] = (uint16_t)box[r], m.step[r] = 1;
    if (r) m.stride[r - 1] = strides[r - 1];
  }
  if (box[0] * size % 16)
    return qn__fail(QN_E_ARG, "tensor map: inner box of %u bytes is no multiple of 16", box[0] * size);
  if (swizzle && box[0] * size > swizzle_span[swizzle])
    return qn__fail(QN_E_ARG, "tensor map: inner box of %u bytes is over the swizzle's %u", box[0] * size,
                    swizzle_span[swizzle]);
  memset(map, 0, 128);
  memcpy(map, &m, sizeof m);
  return QN_OK;
}

/* PTX ISA, "Swizzling modes": address bits 4 to 6 are xored with bits 7 to 9, as many as the span has 16-byte units. */
static u32 swizzled(u32 at, int swizzle) { return swizzle ? at ^ ((at >> 7 & ((1u << swizzle) - 1)) << 4) : at; }

/* ---- The boxes of a tensor --------------------------------------------------------------------------------------- */

/* Global address of a row of the box, and which of its elements lie inside (first, count). */
static bool box_row(const tensor_map *m, const int32_t at[5], const u32 index[5], u64 *address, u32 *first,
                    u32 *count) {
  u32 size = type_bytes[m->type];
  *address = m->address;
  for (u32 r = 1; r < m->rank; r++) {
    int64_t x = (int64_t)at[r] + index[r];
    if (x < 0 || x > m->dim[r]) return false;
    *address += (u64)x * m->stride[r - 1];
  }
  int64_t low = at[0] < 0 ? -(int64_t)at[0] : 0, high = (int64_t)m->dim[0] + 1 - at[0];
  if (high > m->box[0]) high = m->box[0];
  if (low >= high) return false;
  *first = (u32)low, *count = (u32)(high - low);
  *address += (u64)(at[0] + low) * size;
  return true;
}

static bool next_row(const tensor_map *m, u32 index[5]) {
  for (u32 r = 1; r < m->rank; r++) {
    if (++index[r] < m->box[r]) return true;
    index[r] = 0;
  }
  return false;
}

static u32 box_bytes(const tensor_map *m) {
  u32 n = type_bytes[m->type];
  for (u32 r = 0; r < m->rank; r++) n *= m->box[r];
  return n;
}

static void reduce_bytes(uint8_t *to, const uint8_t *from, u32 bytes, const insn *i, int kind);

/* Move the box between global memory and c's shared memory at `shared`. */
static void move_box(job *j, cta *c, u32 shared, bool store) {
  tensor_map m;
  memcpy(&m, j->bulk.map, sizeof m);
  u32 index[5] = {0}, size = type_bytes[m.type], row = m.box[0] * size, at = shared;
  do {
    u64 address = 0;
    u32 first = 0, count = 0;
    bool inside = box_row(&m, j->bulk.at, index, &address, &first, &count);
    uint8_t *g = inside ? qn__emu_global_use(j->warp, -1, address, (u64)count * size, store) : NULL;
    uint8_t line[256 * 8];
    for (u32 k = 0; k < row; k += 16) {
      u32 s = swizzled(at + k, m.swizzle);
      if (store) memcpy(line + k, c->data + s, 16);
    }
    if (store && g) reduce_bytes(g, line + first * size, count * size, j->insn, m.type);
    if (!store) {
      memset(line, m.fill ? 0xff : 0, row);
      if (g) memcpy(line + first * size, g, (size_t)count * size);
      for (u32 k = 0; k < row; k += 16) memcpy(c->data + swizzled(at + k, m.swizzle), line + k, 16);
    }
    at += row;
  } while (next_row(&m, index));
}

/* Combine into global memory: plain copy, or the operation of cp.reduce.async.bulk (insn.sub). */
static void reduce_bytes(uint8_t *to, const uint8_t *from, u32 bytes, const insn *i, int kind) {
  if (!i->sub) {
    memcpy(to, from, bytes);
    return;
  }
  bool f32 = i->type == T_F32 || (i->type == T_NONE && (kind == 7 || kind == 10));
  bool f16 = i->type == T_F16 || (i->type == T_NONE && kind == 6),
       bf = i->type == T_BF16 || (i->type == T_NONE && kind == 9);
  u32 size = f32 ? 4 : f16 || bf ? 2 : 4;
  for (u32 k = 0; k + size <= bytes; k += size) {
    u32 x = 0, y = 0, r;
    memcpy(&x, to + k, size), memcpy(&y, from + k, size);
    r = f32   ? qn__bits_of_f32(qn__f32_of_bits(x) + qn__f32_of_bits(y))
        : f16 ? float_half(half_float((uint16_t)x) + half_float((uint16_t)y))
        : bf  ? float_bfloat(bfloat_float((uint16_t)x) + bfloat_float((uint16_t)y))
              : x + y;
    memcpy(to + k, &r, size);
  }
}

/* ---- Finishing --------------------------------------------------------------------------------------------------- */

/* Shared memory has the bytes: stamp them with a new time of the mbarrier's agent and count them off. */
static void announce(job *j, cta *c, u32 shared, mbarrier *b, u32 bytes) {
  cluster *cl = c->cluster;
  u32 stamp = cl->clocks[b->agent] = ++cl->now;
  qn__emu_land(j->warp, c, shared, bytes, b->agent, stamp, false);
  if (b->vc[b->agent] < stamp) b->vc[b->agent] = stamp;
  qn__emu_mbarrier_change(cl, b, 0, -(int64_t)bytes);
  j->warp->worker->counters.bulk_bytes += bytes;
}

static mbarrier *barrier_like(cta *c, u32 offset) {
  for (u32 k = 0; k < c->nmbarriers; k++)
    if (c->mbarriers[k].address == offset) return &c->mbarriers[k];
  return NULL;
}

static void finish_load(job *j, u32 lanes) {
  (void)lanes;
  cluster *cl = j->bulk.target->cluster;
  u32 offset = j->bulk.barrier->address, reads = 0;
  for (u32 r = 0; r < cl->nctas; r++) {
    cta *c = j->bulk.ctas ? &cl->ctas[r] : j->bulk.target;
    if (j->bulk.ctas && !(j->bulk.ctas >> r & 1)) continue;
    mbarrier *b = j->bulk.ctas ? barrier_like(c, offset) : j->bulk.barrier;
    if (!b) {
      qn__emu_find(j->warp, -1, QN_EMU_F_MBARRIER, "CTA %u of the multicast has no mbarrier there", r);
      continue;
    }
    qn__emu_count_flight(c, -(int64_t)j->bulk.size);
    if (j->bulk.map) move_box(j, c, j->bulk.shared, false);
    else {
      const uint8_t *g = qn__emu_global_use(j->warp, -1, j->bulk.other, j->bulk.size, false);
      if (g) memcpy(c->data + j->bulk.shared, g, j->bulk.size);
    }
    qn__emu_count_read(c->worker, j->bulk.other, j->bulk.size, reads++ ? 0 : j->bulk.size);
    announce(j, c, j->bulk.shared, b, j->bulk.size);
    if (!j->bulk.ctas) break;
  }
}

static void finish_store(job *j, u32 lanes) {
  warp *w = j->warp;
  (void)lanes;
  qn__emu_touch(w, -1, j->bulk.target, j->bulk.shared, j->bulk.size, ASYNC_READ);
  if (j->bulk.map) move_box(j, j->bulk.target, j->bulk.shared, true);
  else {
    uint8_t *g = qn__emu_global_use(w, -1, j->bulk.other, j->bulk.size, true);
    if (g) reduce_bytes(g, j->bulk.target->data + j->bulk.shared, j->bulk.size, j->insn, 0);
  }
  w->worker->counters.bulk_bytes += j->bulk.size;
}

static void finish_remote(job *j, u32 lanes) {
  (void)lanes;
  qn__emu_touch(j->warp, -1, j->warp->cta, (u32)j->bulk.other, j->bulk.size, ASYNC_READ);
  memcpy(j->bulk.target->data + j->bulk.shared, j->warp->cta->data + j->bulk.other, j->bulk.size);
  announce(j, j->bulk.target, j->bulk.shared, j->bulk.barrier, j->bulk.size);
}

/* ---- Issue ------------------------------------------------------------------------------------------------------- */

typedef struct bulk_operands {
  u32 row[5]; /* target, source, mbarrier, size, mask or coordinates' base */
  int64_t offset[3];
  u32 at[5];
  int rank;
} bulk_operands;

static bool bulk_aligned(warp *w, int l, u64 shared, u64 global, u32 size) {
  if (!((shared | global | size) & 15)) return true;
  qn__emu_find(w, l, QN_EMU_F_ALIGN, "bulk copy of %u bytes between 0x%llx and 0x%llx: all must be multiples of 16",
               size, (unsigned long long)shared, (unsigned long long)global);
  return false;
}

/* The map that the address names: in the kernel's parameters or in global memory. */
static const uint8_t *map_at(warp *w, int l, u64 address) {
  const run *r = w->worker->run;
  u64 at = address & ~WINDOW_MASK;
  const uint8_t *p = NULL;
  u32 magic = 0;
  if ((address & WINDOW_MASK) == WINDOW_PARAM) {
    if (at + 128 <= r->f->kernel.param_bytes) p = r->params + at;
  } else p = qn__emu_global_use(w, l, address, 128, false);
  if (p) memcpy(&magic, p, 4);
  if (magic == MAP_MAGIC && !(address & 63)) return p;
  qn__emu_find(w, l, QN_EMU_F_ASYNC, "0x%llx is not a tensor map aligned to 64", (unsigned long long)address);
  return NULL;
}

/* Fills what tensor forms share; false after a finding. */
static bool take_box(warp *w, const bulk_operands *b, u32 l, job *j, u64 map_address) {
  tensor_map m;
  j->bulk.map = map_at(w, (int)l, map_address);
  if (!j->bulk.map) return false;
  memcpy(&m, j->bulk.map, sizeof m);
  if (m.rank != b->rank) {
    qn__emu_find(w, (int)l, QN_EMU_F_ASYNC, "a map of rank %u where the instruction has %d coordinates", m.rank,
                 b->rank);
    return false;
  }
  for (int r = 0; r < b->rank; r++) j->bulk.at[r] = ROW(int32_t, b->at[r])[l];
  j->bulk.size = box_bytes(&m), j->bulk.other = m.address;
  return true;
}

static void start_load(warp *w, job *j) {
  u32 all = j->bulk.ctas ? j->bulk.ctas : 1u << j->bulk.target->rank;
  for (u32 r = 0; r < w->cta->cluster->nctas; r++)
    if (all >> r & 1) {
      qn__emu_touch(w, -1, &w->cta->cluster->ctas[r], j->bulk.shared, j->bulk.size, ASYNC_WRITE);
      if (j->finish == finish_load) qn__emu_count_flight(&w->cta->cluster->ctas[r], j->bulk.size);
    }
  mbarrier *b = j->bulk.barrier;
  if (checking(w, QN_EMU_PROXY) && b->init_stamp > w->pvc[b->init_agent]) {
    qn__emu_find(w, -1, QN_EMU_F_PROXY, "no fence made the initialisation of its mbarrier visible to async copies");
    b->init_stamp = 0;
  }
  job **end = &w->cta->cluster->inflight;
  while (*end) end = &(*end)->next;
  *end = j;
}

/* Global to shared. insn.store: multicast. */
static void bulk_load(warp *w, const insn *i, u32 m) {
  const bulk_operands *b = i->extra;
  EACH_SET(l, m) {
    u32 to = (u32)lane_address(w, b->row[0], b->offset[0], l), at;
    job *j = qn__emu_job(w, i, 1u << l);
    if (!j) return;
    j->finish = finish_load;
    u64 source = lane_address(w, b->row[1], b->offset[1], l);
    bool ok = true;
    if (b->rank) ok = take_box(w, b, l, j, source);
    else {
      j->bulk.other = source, j->bulk.size = ROW(u32, b->row[3])[l];
      ok = bulk_aligned(w, (int)l, to, source, j->bulk.size) && j->bulk.size;
      if (!j->bulk.size) qn__emu_find(w, (int)l, QN_EMU_F_VALUE, "bulk copy of 0 bytes");
    }
    if (ok && b->rank && to & 127)
      qn__emu_find(w, (int)l, QN_EMU_F_ALIGN, "target 0x%x of a tensor copy is not aligned to 128", to), ok = false;
    if (ok) ok = (j->bulk.target = qn__emu_shared_at(w, (int)l, to, j->bulk.size, &at)) && (j->bulk.shared = at, true);
    if (ok && !b->rank) ok = qn__emu_global_at(w, (int)l, source, j->bulk.size, false);
    if (ok)
      ok = (j->bulk.barrier = qn__emu_mbarrier_at(w, (int)l, (u32)lane_address(w, b->row[2], b->offset[2], l), NULL));
    if (ok && i->store) {
      j->bulk.ctas = ROW(uint16_t, b->row[4])[l];
      if (!j->bulk.ctas || j->bulk.ctas >> w->cta->cluster->nctas)
        qn__emu_find(w, (int)l, QN_EMU_F_VALUE, "multicast to CTAs 0x%x", j->bulk.ctas), ok = false;
    }
    if (ok && w->early) qn__emu_early(w, (int)l, j->bulk.other, j->bulk.size, false);
    if (ok) start_load(w, j);
    else free(j);
  }
}

/* Shared to global, in the thread's bulk groups. */
static void bulk_store(warp *w, const insn *i, u32 m) {
  const bulk_operands *b = i->extra;
  EACH_SET(l, m) {
    u32 from = (u32)lane_address(w, b->row[1], b->offset[1], l), at;
    u64 to = lane_address(w, b->row[0], b->offset[0], l);
    job *j = qn__emu_job(w, i, 1u << l);
    if (!j) return;
    j->finish = finish_store;
    bool ok;
    if (b->rank) ok = take_box(w, b, l, j, to);
    else {
      j->bulk.other = to, j->bulk.size = ROW(u32, b->row[3])[l];
      ok = bulk_aligned(w, (int)l, from, to, j->bulk.size) && j->bulk.size &&
           qn__emu_global_at(w, (int)l, to, j->bulk.size, true);
    }
    if (ok && b->rank && from & 127)
      qn__emu_find(w, (int)l, QN_EMU_F_ALIGN, "source 0x%x of a tensor copy is not aligned to 128", from), ok = false;
    if (ok)
      ok = (j->bulk.target = qn__emu_shared_at(w, (int)l, from, j->bulk.size, &at)) && (j->bulk.shared = at, true);
    if (!ok) {
      free(j);
      continue;
    }
    if (w->early) qn__emu_early(w, (int)l, j->bulk.other, j->bulk.size, true);
    qn__emu_touch(w, (int)l, j->bulk.target, at, j->bulk.size, ASYNC_READ);
    qn__emu_groups_add(&w->stores, j);
  }
}

/* Shared of this CTA to shared of another. */
static void bulk_remote(warp *w, const insn *i, u32 m) {
  const bulk_operands *b = i->extra;
  EACH_SET(l, m) {
    u32 to = (u32)lane_address(w, b->row[0], b->offset[0], l), from = (u32)lane_address(w, b->row[1], b->offset[1], l),
        at, source;
    job *j = qn__emu_job(w, i, 1u << l);
    if (!j) return;
    j->finish = finish_remote, j->bulk.size = ROW(u32, b->row[3])[l];
    bool ok =
        bulk_aligned(w, (int)l, to, from, j->bulk.size) && j->bulk.size &&
        qn__emu_shared_at(w, (int)l, from, j->bulk.size, &source) &&
        (j->bulk.target = qn__emu_shared_at(w, (int)l, to, j->bulk.size, &at)) &&
        (j->bulk.barrier = qn__emu_mbarrier_at(w, (int)l, (u32)lane_address(w, b->row[2], b->offset[2], l), NULL));
    if (!ok) {
      free(j);
      continue;
    }
    j->bulk.shared = at, j->bulk.other = source;
    qn__emu_touch(w, (int)l, w->cta, source, j->bulk.size, ASYNC_READ);
    start_load(w, j);
  }
}

static void bulk_commit(warp *w, const insn *i, u32 m) {
  (void)i;
  qn__emu_groups_commit(w->worker, &w->stores, m);
}
static void bulk_wait(warp *w, const insn *i, u32 m) { qn__emu_groups_wait(&w->stores, (u32)i->imm, m, false); }

/* Operand orders: load [dst], [src] or [map, {..}], (size,) [mbar] (, mask); store [dst] or [map, {..}], [src] (,
 * size). */
static void decode_bulk(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  bulk_operands *b = qn__emu_take(p, sizeof *b);
  bool tensor = qn__emu_has(o, "tensor"), store = i->run == bulk_store;
  bool hint = qn__emu_has(o, "L2::cache_hint"), multicast = qn__emu_has(o, "multicast::cluster");
  int want = 2 + !tensor + !store + multicast + hint;
  qn__emu_operands(p, o, n, want, want);
  i->extra = b, i->store = multicast;
  if (!strcmp(o->token[1], "reduce") && store) {
    i->sub = 1;
    if (!qn__emu_has(o, "add")) qn__emu_refuse(p, "only .add is supported");
  }
  qn__emu_address(p, &ops[0], &b->row[0], &b->offset[0]);
  qn__emu_address(p, &ops[1], &b->row[1], &b->offset[1]);
  int k = 2;
  if (!tensor) b->row[3] = qn__emu_source(p, &ops[k++], 4);
  if (!store) qn__emu_address(p, &ops[k], &b->row[2], &b->offset[2]), k++;
  if (multicast) b->row[4] = qn__emu_source(p, &ops[k++], 2);
  const operand *map = store ? &ops[0] : &ops[1];
  if (tensor != (map->count > 0)) qn__emu_refuse(p, "coordinates and .tensor do not go together");
  if (!tensor) return;
  b->rank = map->count;
  if (b->rank > 5 || !qn__emu_has(o, (const char *[]){"1d", "2d", "3d", "4d", "5d"}[b->rank - 1]))
    qn__emu_refuse(p, "%d coordinates", b->rank);
  for (int r = 0; r < b->rank; r++) b->at[r] = qn__emu_source(p, &map->list[r], 4);
}
static void ignore_prefetch(warp *w, const insn *i, u32 m) { (void)w, (void)i, (void)m; }
static void decode_ignored(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  (void)p, (void)i, (void)o, (void)ops, (void)n;
}

/* ---- Clusters: mapa, getctarank ---------------------------------------------------------------------------------- */

static void mapa(warp *w, const insn *i, u32 m) {
  EACH_SET(l, m) {
    u32 rank = ROW(u32, i->b)[l];
    if (rank >= w->cta->cluster->nctas)
      qn__emu_find(w, (int)l, QN_EMU_F_VALUE, "CTA %u of a cluster of %u", rank, w->cta->cluster->nctas);
    if (i->width == 8) ROW(u64, i->d)[l] = (ROW(u64, i->a)[l] & ~UINT64_C(0xff000000)) | (u64)(rank + 1) << 24;
    else ROW(u32, i->d)[l] = (ROW(u32, i->a)[l] & SHARED_OFFSET) | (rank + 1) << 24;
  }
}
static void getctarank(warp *w, const insn *i, u32 m) {
  EACH_SET(l, m) {
    u32 rank = (i->width == 8 ? (u32)ROW(u64, i->a)[l] : ROW(u32, i->a)[l]) >> 24;
    ROW(u32, i->d)[l] = rank ? rank - 1 : w->cta->rank;
  }
}
static void decode_mapa(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  bool rank = *o->token[0] == 'g';
  i->width = qn__emu_types[i->type].size;
  qn__emu_operands(p, o, n, rank ? 2 : 3, rank ? 2 : 3);
  i->d = qn__emu_dest(p, &ops[0], rank ? 4 : i->width);
  i->a = qn__emu_source(p, &ops[1], i->width);
  if (!rank) i->b = qn__emu_source(p, &ops[2], 4);
}

#define A QN_EMU_K_ASYNC
#define DIMS "1d|2d|3d|4d|5d"
#define DONE "mbarrier::complete_tx::bytes"
static const rule bulk_rows[] = {
    {"cp.async.bulk.shared::cluster|shared::cta.global." DONE ".multicast::cluster?.L2::cache_hint?", "", bulk_load,
     decode_bulk, A, 0, 0},
    {"cp.async.bulk.tensor." DIMS ".shared::cluster|shared::cta.global.tile?." DONE
     ".multicast::cluster?.cta_group::1?.L2::cache_hint?",
     "", bulk_load, decode_bulk, A, 0, 0},
    {"cp.async.bulk.global.shared::cta.bulk_group.L2::cache_hint?", "", bulk_store, decode_bulk, A, 0, 0},
    {"cp.async.bulk.tensor." DIMS ".global.shared::cta.tile?.bulk_group.L2::cache_hint?", "", bulk_store, decode_bulk,
     A, 0, 0},
    {"cp.reduce.async.bulk.global.shared::cta.bulk_group.L2::cache_hint?.add.noftz?.u32|s32|f32|f16|bf16", "",
     bulk_store, decode_bulk, A, 0, 0},
    {"cp.reduce.async.bulk.tensor." DIMS ".global.shared::cta.add.tile?.bulk_group.L2::cache_hint?", "", bulk_store,
     decode_bulk, A, 0, 0},
    {"cp.async.bulk.shared::cluster.shared::cta." DONE, "", bulk_remote, decode_bulk, A, 0, 0},
    {"cp.async.bulk.commit_group", "", bulk_commit, NULL, A, 0, 0},
    {"cp.async.bulk.wait_group.read?", "", bulk_wait, qn__emu_decode_wait, A, 0, 0},
    {"cp.async.bulk.prefetch.L2.global.L2::cache_hint?", "", ignore_prefetch, decode_ignored, A, 0, 0},
    {"cp.async.bulk.prefetch.tensor." DIMS ".L2.global.tile?.L2::cache_hint?", "", ignore_prefetch, decode_ignored, A,
     0, 0},
    {"mapa.shared::cluster?.u32|u64", "", mapa, decode_mapa, QN_EMU_K_OTHER, 0, 0},
    {"getctarank.shared::cluster?.u32|u64", "", getctarank, decode_mapa, QN_EMU_K_OTHER, 0, 0},
};
const rules qn__emu_rules_bulk = {bulk_rows, QN_COUNT(bulk_rows)};
