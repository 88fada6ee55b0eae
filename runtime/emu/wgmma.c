/* wgmma.c - warpgroup matrix multiply of sm_90a.
 *
 * Warp w of the group owns rows 16w to 16w + 15, so that each warp computes alone: A from registers or shared memory, B
 * from shared memory through a descriptor. It runs when wait_group covers it (late) with A's registers as they were at
 * issue. Source: PTX ISA, "Asynchronous Warpgroup Level Matrix Multiply-Accumulate Operation", "Matrix Descriptor
 * Format", "Shared Memory Matrix Layout", "wgmma.mma_async". */
#include "async.h"
#include "product.h"
#include "reach.h"
#include "rule.h"
#include "watch.h"
#include <stdlib.h>

typedef uint32_t u32;
typedef uint64_t u64;

typedef struct wgmma_shape {
  int n, k, d, a, b, nd;
  bool registers, trans_a, trans_b;
  float scale_a, scale_b;
} wgmma_shape;

/* A descriptor: start >> 4 in bits 0-13, leading offset >> 4 in 16-29, stride offset >> 4 in 32-45, swizzle in
 * 62-63. */
typedef struct descriptor {
  u32 start, leading, stride, span; /* span: bytes of a swizzled row, 16 for none */
  u32 mask;                         /* of the 16-byte units that the swizzle moves */
} descriptor;

static descriptor unpack_descriptor(u64 d) {
  static const u32 spans[] = {16, 128, 64, 32};
  u32 s = spans[d >> 62];
  return (descriptor){(u32)(d & 0x3fff) << 4, (u32)(d >> 16 & 0x3fff) << 4, (u32)(d >> 32 & 0x3fff) << 4, s,
                      s / 16 - 1};
}

/* Offset of 16 bytes: unit `u` of the contiguous dimension, line `r` of the other. K-major: lines are rows (m or n) and
 * the unit runs along k; MN-major: lines are k and the unit runs along m or n. */
static u32 unit_address(const descriptor *d, u32 r, u32 u, bool mn_major) {
  u32 units = d->span / 16, at;
  if (!mn_major)
    at = units == 1 ? (r >> 3) * d->stride + (r & 7) * 16 + u * d->leading
                    : (r >> 3) * d->stride + (r & 7) * d->span + u * 16;
  else
    at = units == 1 ? (r >> 3) * d->leading + (r & 7) * 16 + u * d->stride
                    : (r >> 3) * d->stride + (r & 7) * d->span + u % units * 16 + u / units * d->leading;
  at += d->start;
  return at ^ ((at >> 7 & d->mask) << 4);
}

static const uint8_t *unit(warp *w, u32 at) {
  u32 offset;
  cta *c = qn__emu_shared_at(w, -1, at & SHARED_OFFSET, 16, &offset);
  if (c) touch_range(w, -1, c, offset, 16, ASYNC_READ);
  return c ? c->data + offset : NULL;
}

/* Eight rows (m or n) from `row` and the 16 bytes of k at `u`, laid out as a fragment register holds them. */
static void core_matrix(warp *w, const descriptor *d, bool mn_major, u32 row, u32 u, u32 reg[LANES]) {
  uint16_t turned[8][8], (*x)[8] = mn_major ? turned : (uint16_t(*)[8])(void *)reg;
  for (u32 r = 0; r < 8; r++) {
    const uint8_t *p =
        unit(w, mn_major ? unit_address(d, 8 * u + r, row / 8, true) : unit_address(d, row + r, u, false));
    if (p) memcpy(x[r], p, 16);
    else memset(x[r], 0, 16);
  }
  if (mn_major) TRANSPOSE(uint16_t, x, reg, 8);
}

static void finish_wgmma(job *j, u32 lanes) {
  warp *w = j->warp;
  const wgmma_shape *s = j->insn->extra;
  const descriptor da = unpack_descriptor(j->wgmma.desc_a), db = unpack_descriptor(j->wgmma.desc_b);
  const u32 *regs = j->insn->regs, per = s->d == T_F16 ? 2 : 4; /* registers of eight columns */
  float a[16][K_MOST], b[K_MOST][8], d[16][8], scale = s->scale_a * s->scale_b;
  u32 reg[LANES];
  (void)lanes;
  for (u32 r = 0; r < 4; r++) {
    if (!s->registers) core_matrix(w, &da, s->trans_a, (w->id & 3) * 16 + 8 * (r & 1), r >> 1, reg);
    a_register(s->a, s->registers ? j->wgmma.a[r] : reg, (int)r, a);
  }
  for (u32 n = 0; n < (u32)s->n; n += 8, regs += per) {
    for (u32 u = 0; u < 2; u++) {
      core_matrix(w, &db, s->trans_b, n, u, reg);
      b_register(s->b, reg, (int)u, b);
    }
    if (scale != 1) EACH_LANE(k) for (int c = 0; c < 8; c++) b[k][c] *= scale;
    if (j->wgmma.accumulate) gather_d(w, regs, (int)per, s->d, d[0]);
    else memset(d, 0, sizeof d);
    multiply(s->a, d, a, b, 16, s->k, j->insn->flags & F_SAT);
    scatter_d(w, regs, (int)per, s->d, d[0]);
  }
  qn__watch_finish(w, j->insn, (u32)s->nd);
  w->worker->counters.wgmma++;
  w->worker->counters.wgmma_flops += 2ull * 16 * (u64)s->n * (u64)s->k;
  w->worker->counters.wgmma_bytes += (u64)s->n * 32 / 4 + (s->registers ? 0 : 16 * 32); /* of k: 32 bytes a line */
}

static bool group_ok(warp *w, u32 m) {
  if (m == ALL && (w->id | 3) < w->cta->nwarps) return true;
  qn__emu_find(w, -1, QN_EMU_F_DIVERGE, "lanes 0x%08x of warp %u of %u: a warpgroup is four whole warps", m, w->id,
               w->cta->nwarps);
  return false;
}

static void mma_async(warp *w, const insn *i, u32 m) {
  const wgmma_shape *s = i->extra;
  if (!group_ok(w, m)) return;
  qn__watch_issue(w, i, (u32)s->nd, (u32)(s->n << 16 | s->k));
  job *j = qn__emu_job(w, i, ALL);
  if (!j) return;
  j->finish = finish_wgmma;
  j->wgmma.accumulate = !i->c || *ROW(u32, i->c);
  j->wgmma.desc_b = ROW(u64, i->b)[0];
  if (s->registers) {
    for (int r = 0; r < 4; r++) memcpy(j->wgmma.a[r], ROW(u32, i->regs[s->nd + r]), sizeof j->wgmma.a[r]);
  } else j->wgmma.desc_a = ROW(u64, i->a)[0];
  if ((j->wgmma.desc_b >> 49 | j->wgmma.desc_a >> 49) & 7)
    qn__emu_find(w, -1, QN_EMU_F_WGMMA, "descriptors with a base offset are not supported");
  qn__emu_groups_add(&w->wgmmas, j);
}

static void wgmma_fence(warp *w, const insn *i, u32 m) {
  (void)i;
  if (group_ok(w, m)) qn__watch_fence(w);
}
static void wgmma_commit(warp *w, const insn *i, u32 m) {
  (void)i;
  if (group_ok(w, m)) qn__emu_groups_commit(w->worker, &w->wgmmas, ALL);
}
static void wgmma_wait(warp *w, const insn *i, u32 m) {
  if (group_ok(w, m)) qn__emu_groups_wait(&w->wgmmas, (u32)i->imm, ALL, false);
}
static void decode_wait(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  qn__emu_operands(p, o, n, 1, 1);
  if (ops[0].kind != O_IMM || ops[0].imm < 0 || ops[0].imm > 7) qn__emu_refuse(p, "wgmma.wait_group takes 0 to 7");
  i->imm = ops[0].imm;
}

static bool flag(parser *p, const operand *o, const char *what) {
  if (o->kind != O_IMM || (o->imm != 0 && o->imm != 1 && o->imm != -1))
    qn__emu_refuse(p, "%s must be a constant", what);
  return o->imm == 1;
}

/* d, a or a-desc, b-desc, scale-d {, imm-scale-a, imm-scale-b {, imm-trans-a} {, imm-trans-b}}. */
static void decode_wgmma(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  wgmma_shape *s = qn__emu_take(p, sizeof *s);
  const char *at = o->token[4];
  s->n = atoi(at + 4);
  s->k = strchr(at, 'k') ? atoi(strchr(at, 'k') + 1) : 0;
  int sat = qn__emu_has(o, "satfinite");
  s->d = qn__emu_token_type(p, o, 5 + sat), s->a = qn__emu_token_type(p, o, -2), s->b = qn__emu_token_type(p, o, -1);
  s->registers = ops[1].kind == O_VECTOR;
  bool ints = element_int(s->a), half = element_bits(s->a) == 16;
  int want = ints ? 4 : 6 + (half ? (s->registers ? 1 : 2) : 0);
  if (strncmp(at, "m64n", 4) || s->n % 8 || s->n < 8 || s->n > 256 || s->k * element_bits(s->a) != 256 ||
      element_bits(s->a) != element_bits(s->b))
    qn__emu_refuse(p, "shape %s of that type is not known", at);
  qn__emu_operands(p, o, n, want, want);
  s->nd = s->n / 2 / (s->d == T_F16 ? 2 : 1), s->scale_a = s->scale_b = 1;
  if (ops[0].kind != O_VECTOR || ops[0].count != s->nd)
    qn__emu_refuse(p, "D has %d registers, not %d", s->nd, ops[0].count);
  if (s->registers && ops[1].count != 4) qn__emu_refuse(p, "A has 4 registers, not %d", ops[1].count);
  if (n > 5) s->scale_a = flag(p, &ops[4], "scale of A") ? 1 : -1, s->scale_b = flag(p, &ops[5], "scale of B") ? 1 : -1;
  if (half && s->registers) s->trans_b = flag(p, &ops[6], "trans of B");
  if (half && !s->registers) s->trans_a = flag(p, &ops[6], "trans of A"), s->trans_b = flag(p, &ops[7], "trans of B");
  i->regs = qn__emu_list(p, ops, s->registers ? 2 : 1, 4, &i->nregs);
  if (!s->registers) i->a = qn__emu_source(p, &ops[1], 8);
  i->b = qn__emu_source(p, &ops[2], 8);
  i->c = qn__emu_predicate(p, &ops[3], NULL);
  i->extra = s;
}

#define MMA(k, types)                                                                                                  \
  { "wgmma.mma_async.sync.aligned.m64n*" k "." types, "", mma_async, decode_wgmma, QN_EMU_K_WGMMA, C_SYNC, 0 }
static const rule rows[] = {
    {"wgmma.fence.sync.aligned", "", wgmma_fence, NULL, QN_EMU_K_WGMMA, C_SYNC, 0},
    {"wgmma.commit_group.sync.aligned", "", wgmma_commit, NULL, QN_EMU_K_WGMMA, C_SYNC, 0},
    {"wgmma.wait_group.sync.aligned", "", wgmma_wait, decode_wait, QN_EMU_K_WGMMA, C_SYNC, 0},
    MMA("k16", "f16|f32.f16.f16"),
    MMA("k16", "f32.bf16.bf16"),
    MMA("k8", "f32.tf32.tf32"),
    MMA("k32", "f16|f32.e4m3|e5m2.e4m3|e5m2"),
    MMA("k32", "satfinite?.s32.s8|u8.s8|u8"),
    MMA("k32", "s32.s8|u8.s8|u8.satfinite?"),
};
DEFINE_RULES(LEVELED(rules_wgmma), rows);
