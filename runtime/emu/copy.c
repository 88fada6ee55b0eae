/* copy.c - cp.async: copies of 4, 8 or 16 bytes per lane from global to shared memory, in groups.
 *
 * Addresses are checked when the copy is issued; the bytes move when the copy finishes. The source is prefetched
 * meanwhile, as on the device. Source: PTX ISA, "cp.async", "cp.async.commit_group", "cp.async.wait_group". */
#include "async.h"
#include "reach.h"
#include "rule.h"
#include <stdlib.h>

typedef uint32_t u32;
typedef uint64_t u64;

static void land_copy(job *j, u32 lanes) {
  warp *w = j->warp;
  cta *c = w->cta;
  u32 size = (u32)j->insn->imm, now = w->vc[w->agent], landed = 0;
  EACH_SET(l, lanes) {
    u32 at = j->copy.to[l];
    landed += j->copy.bytes[l];
    if (j->copy.bytes[l] < size) memset(c->data + at, 0, size);
    memcpy(c->data + at, j->copy.from[l], j->copy.bytes[l]);
    if (size != 16 || !plain_landing(w, c, at, w->agent, now, true)) qn__emu_land(w, c, at, size, w->agent, now, true);
  }
  qn__emu_count_flight(c, -(int64_t)landed);
}

/* Bytes to read per lane: all, the source size, or none where the predicate ignores the source. Returns the lanes whose
 * size is legal. */
static u32 source_sizes(warp *w, const insn *i, u32 m, u32 bytes[LANES]) {
  u32 size = (u32)i->imm, ignore = i->d ? *ROW(u32, i->d) : 0;
  EACH_LANE(l) bytes[l] = ignore >> l & 1 ? 0 : i->c ? ROW(u32, i->c)[l] : size;
  EACH_SET(l, m) {
    if (bytes[l] <= size) continue;
    qn__emu_find(w, (int)l, QN_EMU_F_VALUE, "source size %u of a copy of %u bytes", bytes[l], size);
    m &= ~(1u << l);
  }
  return m;
}

/* Pointers to the sources of the lanes that read; a lane whose source is out of reach copies zeros. */
static void reach_sources(warp *w, const insn *i, u32 m, job *j) {
  u32 size = (u32)i->imm, whole = 0, part = 0;
  u64 ad[LANES];
  row_addresses(w, i->b, ((const int64_t *)i->extra)[1], ad);
  EACH_SET(l, m)
  whole |= (u32)(j->copy.bytes[l] == size) << l, part |= (u32)(j->copy.bytes[l] && j->copy.bytes[l] < size) << l;
  u32 ok = reach_global(w, ad, aligned_lanes(w, ad, whole, size), size, false, j->copy.from);
  part = aligned_lanes(w, ad, part, size);
  EACH_SET(l, part) {
    j->copy.from[l] = qn__emu_global_use(w, (int)l, ad[l], j->copy.bytes[l], false);
    ok |= (u32)(j->copy.from[l] != NULL) << l;
  }
  EACH_LANE(l) {
    if (ok >> l & 1) __builtin_prefetch(j->copy.from[l]);
    else j->copy.bytes[l] = 0, j->copy.from[l] = w->cta->data;
  }
}

/* Offsets of the targets; returns the lanes whose target is in the executing CTA. */
static u32 own_targets(warp *w, const insn *i, u32 m, u32 to[LANES]) {
  u64 ad[LANES];
  row_addresses(w, i->a, ((const int64_t *)i->extra)[0], ad);
  m = aligned_lanes(w, ad, m, (u32)i->imm);
  EACH_SET(l, m) {
    u32 rank = (u32)ad[l] >> 24;
    to[l] = (u32)ad[l] & SHARED_OFFSET;
    if (!rank || rank == w->cta->rank + 1) continue;
    qn__emu_find(w, (int)l, QN_EMU_F_ASYNC, "cp.async to 0x%x, the shared memory of another CTA", (u32)ad[l]);
    m &= ~(1u << l);
  }
  return m;
}

/* insn: a target, b source with their offsets in extra, c: source size, d: predicate to ignore the source. */
static void cp_async(warp *w, const insn *i, u32 m) {
  job *j = qn__emu_job(w, i, 0);
  uint8_t *targets[LANES];
  if (!j) return;
  j->finish = land_copy;
  m = own_targets(w, i, source_sizes(w, i, m, j->copy.bytes), j->copy.to);
  m = reach_shared(w, j->copy.to, m, (u32)i->imm, COPY_WRITE, targets);
  reach_sources(w, i, m, j);
  j->lanes = m;
  u32 asked = 0;
  EACH_SET(l, m) asked += j->copy.bytes[l];
  qn__emu_count_flight(w->cta, asked);
  if (!m) free(j);
  else if (!late(w) && random_bits(w->worker) % 2) qn__emu_finish(j, m), free(j);
  else qn__emu_groups_add(&w->copies, j);
}

static void decode_copy(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  int64_t *offsets = qn__emu_take(p, 2 * sizeof *offsets);
  int hint = qn__emu_has(o, "L2::cache_hint");
  qn__emu_operands(p, o, n, 3 + hint, 4 + hint);
  if (ops[2].kind != O_IMM || (ops[2].imm != 4 && ops[2].imm != 8 && ops[2].imm != 16))
    qn__emu_refuse(p, "cp.async copies 4, 8 or 16 bytes");
  qn__emu_address(p, &ops[0], &i->a, &offsets[0]);
  qn__emu_address(p, &ops[1], &i->b, &offsets[1]);
  i->imm = ops[2].imm, i->extra = offsets;
  if (qn__emu_has(o, "cg") && i->imm != 16) qn__emu_refuse(p, "cp.async.cg copies 16 bytes");
  if (n - hint < 4) return;
  if (ops[3].kind == O_REG && ops[3].type == T_PRED) i->d = qn__emu_predicate(p, &ops[3], NULL);
  else i->c = qn__emu_source(p, &ops[3], 4);
}

static void commit(warp *w, const insn *i, u32 m) {
  (void)i;
  if (w->copies.count > 4096) qn__emu_groups_wait(&w->copies, 64, m, false);
  qn__emu_groups_commit(w->worker, &w->copies, m);
}
static void wait_group(warp *w, const insn *i, u32 m) { qn__emu_groups_wait(&w->copies, (u32)i->imm, m, false); }
static void wait_all(warp *w, const insn *i, u32 m) {
  (void)i;
  qn__emu_groups_wait(&w->copies, 0, m, true);
}

#define A QN_EMU_K_ASYNC
static const rule rows[] = {
    {"cp.async.ca|cg.shared|shared::cta.global.L2::cache_hint?.L2::64B|L2::128B|L2::256B?", "", cp_async, decode_copy,
     A, 0, 0},
    {"cp.async.commit_group", "", commit, NULL, A, 0, 0},
    {"cp.async.wait_group", "", wait_group, qn__emu_decode_wait, A, 0, 0},
    {"cp.async.wait_all", "", wait_all, NULL, A, 0, 0},
};
DEFINE_RULES(LEVELED(rules_copy), rows);
