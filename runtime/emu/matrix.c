/* matrix.c - ldmatrix, stmatrix, movmatrix and mma.sync.
 *
 * Products of the types in use are exact in float or int. Not modelled: the hardware's order and truncation of sums, so
 * that results are compared within a bound; sparse forms (refused). Source: PTX ISA, "ldmatrix", "stmatrix",
 * "movmatrix", "mma", "Block Scaling for mma.sync". */
#include "product.h"
#include "reach.h"
#include "rule.h"
#include <math.h>

typedef uint32_t u32;
typedef uint64_t u64;

static bool whole_warp(warp *w, u32 m) {
  if (m == ALL) return true;
  qn__emu_find(w, -1, QN_EMU_F_DIVERGE, "only lanes 0x%08x execute it", m);
  return false;
}

/* ---- ldmatrix, stmatrix ------------------------------------------------------------------------------------------ */

/* Host pointers to the rows of 16 bytes; matrix q has those of lanes 8q to 8q + 7. NULL after a finding. */
static void reach_rows(warp *w, const insn *i, uint8_t *rows[LANES]) {
  u32 lanes = ALL >> (LANES - 8 * i->count), a[LANES];
  u64 ad[LANES];
  row_addresses(w, i->a, i->imm, ad);
  EACH_LANE(l) a[l] = (u32)ad[l];
  u32 ok = aligned_lanes(w, ad, lanes, 16);
  ok = reach_shared(w, a, ok, 16, i->store ? GENERIC_WRITE : GENERIC_READ, rows);
  u32 bad = ~ok;
  EACH_SET(l, bad) rows[l] = NULL;
}

/* Lane l holds the pair of row l / 4, columns 2 (l % 4) and the next; .trans: rows and columns swapped. */
typedef uint16_t eight[8];
static void transpose(const eight *from, eight *to) {
  for (int r = 0; r < 8; r++)
    for (int c = 0; c < 8; c++) to[r][c] = from[c][r];
}

static void ldmatrix(warp *w, const insn *i, u32 m) {
  uint8_t *rows[LANES];
  if (!whole_warp(w, m)) return;
  reach_rows(w, i, rows);
  for (int q = 0; q < i->count; q++) {
    eight x[8] = {{0}};
    for (int r = 0; r < 8; r++)
      if (rows[8 * q + r]) memcpy(x[r], rows[8 * q + r], 16);
    if (i->sub) transpose(x, ROW(eight, i->regs[q]));
    else memcpy(ROW(u32, i->regs[q]), x, sizeof x);
  }
}

static void stmatrix(warp *w, const insn *i, u32 m) {
  uint8_t *rows[LANES];
  if (!whole_warp(w, m)) return;
  reach_rows(w, i, rows);
  for (int q = 0; q < i->count; q++) {
    eight x[8];
    if (i->sub) transpose(ROW(eight, i->regs[q]), x);
    else memcpy(x, ROW(u32, i->regs[q]), sizeof x);
    for (int r = 0; r < 8; r++)
      if (rows[8 * q + r]) memcpy(rows[8 * q + r], x[r], 16);
  }
}

static void decode_rows(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  static const uint8_t counts[] = {1, 2, 4};
  qn__emu_operands(p, o, n, 2, 2);
  i->store = *o->token[0] == 's';
  i->sub = qn__emu_has(o, "trans");
  i->count = counts[qn__emu_which(o, "x1|x2|x4")];
  qn__emu_address(p, &ops[!i->store], &i->a, &i->imm);
  i->regs = qn__emu_list(p, &ops[i->store], 1, 4, &i->nregs);
  if (i->nregs != i->count) qn__emu_refuse(p, "%d registers where %d are wanted", i->nregs, i->count);
}

static void movmatrix(warp *w, const insn *i, u32 m) {
  eight t[8];
  if (!whole_warp(w, m)) return;
  transpose(ROW(eight, i->a), t);
  memcpy(ROW(u32, i->d), t, sizeof t);
}

/* ---- mma --------------------------------------------------------------------------------------------------------- */

/* Where the scales of A or B are: a register, and rows of the numbers of its first byte and of the thread that holds
 * it. */
typedef struct scale_at {
  u32 row, byte, thread;
} scale_at;

typedef struct shape {
  uint16_t m, n, k;
  uint8_t d, a, b, c, na, nb, nc, nd;
  uint8_t blocks, fine; /* blocks of k with a scale each, 0: none; scales are ue4m3, not ue8m0 */
  scale_at of_a, of_b;
} shape;

/* The byte of the scale of block `k` in the register of `lane`. */
static double scale(const warp *w, const shape *s, const scale_at *at, u32 lane, u32 k) {
  u32 first = *ROW(uint16_t, at->byte), bits = ROW(u32, at->row)[lane] >> 8 * ((first + k) & 3) & 255;
  if (s->fine) return qn__narrow_value(qn__form[QN_T_E4M3], bits & 127);
  return bits == 255 ? NAN : ldexp(1, (int)bits - 127);
}

/* Threads of four share the scales: two those of the rows g and g + 8 of A, one those of column g of B. */
static bool scale_chosen(warp *w, const shape *s, const scale_at *at, u32 threads) {
  u32 byte = *ROW(uint16_t, at->byte), thread = *ROW(uint16_t, at->thread);
  if (byte % s->blocks == 0 && byte < 4 && thread < threads) return true;
  qn__emu_find(w, -1, QN_EMU_F_VALUE,
               "scales from byte %u of thread %u: bytes in steps of %u below 4, threads below %u", byte, thread,
               s->blocks, threads);
  return false;
}

/* D += the product of each block times the scales of its row of A and its column of B. */
static void multiply_scaled(warp *w, const shape *s, float d[16][8], float a[16][K_MOST], float b[K_MOST][8]) {
  if (!scale_chosen(w, s, &s->of_a, 2) || !scale_chosen(w, s, &s->of_b, 4)) return;
  u32 pair = 2u * *ROW(uint16_t, s->of_a.thread), one = *ROW(uint16_t, s->of_b.thread), depth = s->k / s->blocks;
  for (u32 k = 0; k < s->blocks; k++) {
    float part[16][8] = {{0}};
    multiply_float(part, (float(*)[K_MOST])(void *)&a[0][k * depth], b + k * depth, 16, (int)depth);
    for (u32 r = 0; r < 16; r++)
      for (u32 c = 0; c < 8; c++)
        d[r][c] += (float)(part[r][c] * scale(w, s, &s->of_a, r % 8 * 4 + pair + r / 8, k) *
                           scale(w, s, &s->of_b, c * 4 + one, k));
  }
}

static void mma(warp *w, const insn *i, u32 m) {
  const shape *s = i->extra;
  float a[16][K_MOST], b[K_MOST][8], d[16][8] = {{0}};
  if (!whole_warp(w, m)) return;
  const u32 *rd = i->regs, *ra = rd + s->nd, *rb = ra + s->na, *rc = rb + s->nb;
  for (int r = 0; r < s->na; r++) a_register(s->a, ROW(u32, ra[r]), s->m == 8 ? 2 * r : r, a);
  for (int r = 0; r < s->nb; r++) b_register(s->b, ROW(u32, rb[r]), r, b);
  gather_d(w, rc, s->nc, s->c, d[0]);
  if (s->blocks) multiply_scaled(w, s, d, a, b);
  else multiply(s->a, d, a, b, s->m, s->k, i->flags & F_SAT);
  scatter_d(w, rd, s->nd, s->d, d[0]);
  w->worker->counters.mma++;
  w->worker->counters.mma_flops += 2ull * s->m * s->n * s->k;
}

static void check_list(parser *p, const operand *o, int want, const char *what) {
  int have = o->kind == O_VECTOR ? o->count : 1;
  if (have != want) qn__emu_refuse(p, "%s has %d registers where the shape takes %d", what, have, want);
}

static scale_at decode_scale(parser *p, const operand *ops) {
  const operand *ids = ops[1].list;
  if (ops[1].kind != O_VECTOR || ops[1].count != 2) qn__emu_refuse(p, "a scale comes with {byte, thread}");
  return (scale_at){qn__emu_source(p, &ops[0], 4), qn__emu_source(p, &ids[0], 2), qn__emu_source(p, &ids[1], 2)};
}

static void decode_blocks(parser *p, shape *s, const opcode *o, operand *ops) {
  s->blocks = qn__emu_has(o, "scale_vec::4X") ? 4 : s->k / 32, s->fine = qn__emu_has(o, "ue4m3");
  s->of_a = decode_scale(p, ops), s->of_b = decode_scale(p, ops + 2);
}

static void decode_mma(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  unsigned sm, sn, sk;
  shape *s = qn__emu_take(p, sizeof *s);
  int scaled = qn__emu_has(o, "block_scale");
  qn__emu_operands(p, o, n, scaled ? 8 : 4, scaled ? 8 : 4);
  const char *at = o->token[3];
  sm = at[1] == '8' ? 8 : 16, sn = 8;
  sk = 0;
  for (const char *c = strchr(at, 'k') + 1; *c; c++) sk = sk * 10 + (unsigned)(*c - '0');
  *s = (shape){.m = (uint16_t)sm, .n = (uint16_t)sn, .k = (uint16_t)sk};
  s->d = (uint8_t)qn__emu_token_type(p, o, -4 - scaled), s->a = (uint8_t)qn__emu_token_type(p, o, -3 - scaled);
  s->b = (uint8_t)qn__emu_token_type(p, o, -2 - scaled), s->c = (uint8_t)qn__emu_token_type(p, o, -1 - scaled);
  if (sk == 64 && s->a == T_E2M1) s->a = s->b = T_E2M1X2;
  if (scaled) decode_blocks(p, s, o, ops + 4);
  int bits = element_bits(s->a);
  if (bits != element_bits(s->b)) qn__emu_refuse(p, "types of A and B do not go together");
  s->na = (uint8_t)(sm * sk * (unsigned)bits / 1024), s->nb = (uint8_t)(sn * sk * (unsigned)bits / 1024);
  s->nd = (uint8_t)(sm * sn / 32 / (s->d == T_F16 ? 2 : 1)), s->nc = (uint8_t)(sm * sn / 32 / (s->c == T_F16 ? 2 : 1));
  if (!s->na || !s->nb || sk > K_MOST || (sm == 8 && s->na > 1))
    qn__emu_refuse(p, "shape m%un%uk%u of that type is not known", sm, sn, sk);
  check_list(p, &ops[0], s->nd, "D"), check_list(p, &ops[1], s->na, "A");
  check_list(p, &ops[2], s->nb, "B"), check_list(p, &ops[3], s->nc, "C");
  i->regs = qn__emu_list(p, ops, 4, 4, &i->nregs);
  i->extra = s;
}

#define SMALL "e4m3|e5m2|e2m3|e3m2|e2m1"
#define MMA(pattern)                                                                                                   \
  { pattern, "", mma, decode_mma, QN_EMU_K_MMA, C_SYNC, 0 }
static const rule rows[] = {
    {"ldmatrix.sync.aligned.m8n8.x1|x2|x4.trans?.shared|shared::cta?.b16", "", ldmatrix, decode_rows, QN_EMU_K_MATRIX,
     C_SYNC, 0},
    {"stmatrix.sync.aligned.m8n8.x1|x2|x4.trans?.shared|shared::cta?.b16", "", stmatrix, decode_rows, QN_EMU_K_MATRIX,
     C_SYNC, 0},
    {"movmatrix.sync.aligned.m8n8.trans.b16", "da", movmatrix, NULL, QN_EMU_K_MATRIX, C_SYNC, 0},
    MMA("mma.sync.aligned.m16n8k8|m16n8k16.row.col.f16|f32.f16.f16.f16|f32"),
    MMA("mma.sync.aligned.m16n8k8|m16n8k16.row.col.f32.bf16.bf16.f32"),
    MMA("mma.sync.aligned.m16n8k4|m16n8k8.row.col.f32.tf32.tf32.f32"),
    MMA("mma.sync.aligned.m8n8k16|m16n8k16|m16n8k32.row.col.satfinite?.s32.s8|u8.s8|u8.s32"),
    MMA("mma.sync.aligned.m8n8k32|m16n8k32|m16n8k64.row.col.satfinite?.s32.s4|u4.s4|u4.s32"),
    MMA("mma.sync.aligned.m16n8k16|m16n8k32.row.col.f16|f32.e4m3|e5m2.e4m3|e5m2.f16|f32"),
    MMA("mma.sync.aligned.m16n8k32.row.col.kind::f8f6f4.f16|f32." SMALL "." SMALL ".f16|f32"),
    MMA("mma.sync.aligned.m16n8k32.row.col.kind::mxf8f6f4.block_scale.scale_vec::1X?.f32." SMALL "." SMALL
        ".f32.ue8m0"),
    MMA("mma.sync.aligned.m16n8k64.row.col.kind::mxf4.block_scale.scale_vec::2X?.f32.e2m1.e2m1.f32.ue8m0"),
    MMA("mma.sync.aligned.m16n8k64.row.col.kind::mxf4nvf4.block_scale.scale_vec::2X|scale_vec::4X.f32.e2m1.e2m1.f32."
        "ue8m0|ue4m3"),
};
DEFINE_RULES(LEVELED(rules_matrix), rows);
