/* op_int.c - integer and bit instructions on rows of 32 lanes.
 *
 * Every operation computes all lanes and writes back under the mask, so that the compiler turns each loop into vector
 * code; the file is compiled once per instruction set. Predicates are words of 32 bits. Source: PTX ISA, "Integer
 * Arithmetic", "Logic and Shift", "Data Movement" (prmt). */
#include "rule.h"

typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;

#define UNARY(name, D, A, expr)                                                                                        \
  static void name(warp *w, const insn *i, uint32_t m) {                                                               \
    const A *pa = ROW(A, i->a);                                                                                        \
    D *d = ROW(D, i->d), t[LANES];                                                                                     \
    EACH_LANE(l) {                                                                                                     \
      A a = pa[l];                                                                                                     \
      t[l] = (D)(expr);                                                                                                \
    }                                                                                                                  \
    STORE_ROW(D, d, t, m);                                                                                             \
  }
#define BINARY(name, D, A, B, expr)                                                                                    \
  static void name(warp *w, const insn *i, uint32_t m) {                                                               \
    const A *pa = ROW(A, i->a);                                                                                        \
    const B *pb = ROW(B, i->b);                                                                                        \
    D *d = ROW(D, i->d), t[LANES];                                                                                     \
    EACH_LANE(l) {                                                                                                     \
      A a = pa[l];                                                                                                     \
      B b = pb[l];                                                                                                     \
      t[l] = (D)(expr);                                                                                                \
    }                                                                                                                  \
    STORE_ROW(D, d, t, m);                                                                                             \
  }
#define TERNARY(name, D, A, B, C, expr)                                                                                \
  static void name(warp *w, const insn *i, uint32_t m) {                                                               \
    const A *pa = ROW(A, i->a);                                                                                        \
    const B *pb = ROW(B, i->b);                                                                                        \
    const C *pc = ROW(C, i->c);                                                                                        \
    D *d = ROW(D, i->d), t[LANES];                                                                                     \
    EACH_LANE(l) {                                                                                                     \
      A a = pa[l];                                                                                                     \
      B b = pb[l];                                                                                                     \
      C c = pc[l];                                                                                                     \
      t[l] = (D)(expr);                                                                                                \
    }                                                                                                                  \
    STORE_ROW(D, d, t, m);                                                                                             \
  }

/* Products of u16 are taken in u32: int would overflow. Division by zero: all ones (unspecified by the ISA). */
#define FOR_WIDTH(U, S, WIDE)                                                                                          \
  BINARY(add_##U, U, U, U, a + b)                                                                                      \
  BINARY(sub_##U, U, U, U, a - b)                                                                                      \
  BINARY(mul_##U, U, U, U, (WIDE)a *b)                                                                                 \
  TERNARY(mad_##U, U, U, U, U, (WIDE)a *b + c)                                                                         \
  BINARY(min_##U, U, U, U, a < b ? a : b)                                                                              \
  BINARY(max_##U, U, U, U, a > b ? a : b)                                                                              \
  BINARY(min_##S, S, S, S, a < b ? a : b)                                                                              \
  BINARY(max_##S, S, S, S, a > b ? a : b)                                                                              \
  BINARY(and_##U, U, U, U, a &b)                                                                                       \
  BINARY(or_##U, U, U, U, a | b)                                                                                       \
  BINARY(xor_##U, U, U, U, a ^ b)                                                                                      \
  UNARY(not_##U, U, U, ~a)                                                                                             \
  UNARY(cnot_##U, U, U, a == 0)                                                                                        \
  UNARY(neg_##U, U, U, 0 - a)                                                                                          \
  UNARY(abs_##S, U, S, a < 0 ? 0 - (U)a : (U)a)                                                                        \
  BINARY(shl_##U, U, U, u32, b >= sizeof(U) * 8 ? 0 : (WIDE)a << b)                                                    \
  BINARY(shr_##U, U, U, u32, b >= sizeof(U) * 8 ? 0 : a >> b)                                                          \
  BINARY(shr_##S, S, S, u32, a >> (b >= sizeof(U) * 8 ? sizeof(U) * 8 - 1 : b))                                        \
  BINARY(div_##U, U, U, U, b ? a / (b ? b : 1) : (U) ~(U)0)                                                            \
  BINARY(rem_##U, U, U, U, b ? a % (b ? b : 1) : a)                                                                    \
  BINARY(div_##S, S, S, S, b == 0 ? -1 : b == -1 ? (S)(0 - (U)a) : a / b)                                              \
  BINARY(rem_##S, S, S, S, b == 0 ? a : b == -1 ? 0 : a % b)
FOR_WIDTH(u16, s16, u32)
FOR_WIDTH(u32, s32, u32)
FOR_WIDTH(u64, s64, u64)

BINARY(mulw_u16, u32, u16, u16, (u32)a *b)
BINARY(mulw_s16, s32, s16, s16, (s32)a *b)
BINARY(mulw_u32, u64, u32, u32, (u64)a *b)
BINARY(mulw_s32, s64, s32, s32, (s64)a *b)
TERNARY(madw_u16, u32, u16, u16, u32, (u32)a *b + c)
TERNARY(madw_s16, u32, s16, s16, u32, (u32)((s32)a *b) + c)
TERNARY(madw_u32, u64, u32, u32, u64, (u64)a *b + c)
TERNARY(madw_s32, u64, s32, s32, u64, (u64)((s64)a *b) + c)
BINARY(mulh_u16, u16, u16, u16, ((u32)a * b) >> 16)
BINARY(mulh_s16, s16, s16, s16, ((s32)a * b) >> 16)
BINARY(mulh_u32, u32, u32, u32, ((u64)a * b) >> 32)
BINARY(mulh_s32, s32, s32, s32, ((s64)a * b) >> 32)
BINARY(mulh_u64, u64, u64, u64, ((unsigned __int128)a * b) >> 64)
BINARY(mulh_s64, s64, s64, s64, ((__int128)a * b) >> 64)
TERNARY(madh_u32, u32, u32, u32, u32, (u32)(((u64)a * b) >> 32) + c)
TERNARY(madh_s32, u32, s32, s32, u32, (u32)(((s64)a * b) >> 32) + c)
BINARY(mul24_u32, u32, u32, u32, (a & 0xffffff) * (b & 0xffffff))
TERNARY(sad_u32, u32, u32, u32, u32, c + (a < b ? b - a : a - b))
TERNARY(sad_s32, u32, s32, s32, u32, c + (a < b ? (u32)b - (u32)a : (u32)a - (u32)b))

static inline s32 saturate(s64 v) { return v > INT32_MAX ? INT32_MAX : v < INT32_MIN ? INT32_MIN : (s32)v; }
BINARY(adds_s32, s32, s32, s32, saturate((s64)a + b))
BINARY(subs_s32, s32, s32, s32, saturate((s64)a - b))

UNARY(popc_u32, u32, u32, __builtin_popcount(a))
UNARY(popc_u64, u32, u64, __builtin_popcountll(a))
UNARY(clz_u32, u32, u32, a ? __builtin_clz(a) : 32)
UNARY(clz_u64, u32, u64, a ? __builtin_clzll(a) : 64)

static inline u32 reverse(u32 v) {
  v = (v >> 1 & 0x55555555) | (v & 0x55555555) << 1;
  v = (v >> 2 & 0x33333333) | (v & 0x33333333) << 2;
  v = (v >> 4 & 0x0f0f0f0f) | (v & 0x0f0f0f0f) << 4;
  return __builtin_bswap32(v);
}
UNARY(brev_u32, u32, u32, reverse(a))
UNARY(brev_u64, u64, u64, (u64)reverse((u32)a) << 32 | reverse((u32)(a >> 32)))

/* bfind: the highest bit that differs from the sign; .shiftamt: how far to shift it up. i->sub: 1 shiftamt. */
static inline u32 highest(u32 v, u32 shift) {
  return v ? shift ? (u32)__builtin_clz(v) : 31 - (u32)__builtin_clz(v) : ALL;
}
UNARY(bfind_u32, u32, u32, highest(a, i->sub))
UNARY(bfind_s32, u32, u32, highest(a >> 31 ? ~a : a, i->sub))

static inline u32 ones(u32 position, u32 length) {
  u32 low = length > 31 ? ALL : (1u << length) - 1;
  return position > 31 ? 0 : low << position;
}
BINARY(bmsk_clamp, u32, u32, u32, ones(a, b))
BINARY(bmsk_wrap, u32, u32, u32, ones(a & 31, b & 31))

static void bfi_u32(warp *w, const insn *i, uint32_t m) {
  const u32 *a = ROW(u32, i->a), *b = ROW(u32, i->b), *c = ROW(u32, i->c), *e = ROW(u32, i->e);
  u32 t[LANES];
  EACH_LANE(l) {
    u32 position = c[l] & 255, field = ones(position, e[l] & 255);
    t[l] = (b[l] & ~field) | ((position > 31 ? 0 : a[l] << position) & field);
  }
  STORE_ROW(u32, ROW(u32, i->d), t, m);
}

static void bfi_u64(warp *w, const insn *i, uint32_t m) {
  const u64 *a = ROW(u64, i->a), *b = ROW(u64, i->b);
  const u32 *c = ROW(u32, i->c), *e = ROW(u32, i->e);
  u64 t[LANES];
  EACH_LANE(l) {
    u32 position = c[l] & 255, length = e[l] & 255;
    u64 field = position > 63 ? 0 : (length > 63 ? ~(u64)0 : ((u64)1 << length) - 1) << position;
    t[l] = (b[l] & ~field) | ((position > 63 ? 0 : a[l] << position) & field);
  }
  STORE_ROW(u64, ROW(u64, i->d), t, m);
}

/* Beyond the top, a signed field repeats the sign. */
static inline u64 extract(u64 v, u32 bits, bool is_signed, u32 position, u32 length) {
  u64 sign = is_signed ? 0 - (v >> (bits - 1) & 1) : 0;
  if (bits == 32) v = (u32)v | sign << 32;
  u64 r = position >= bits ? sign
          : position       ? (v >> position) | (position && is_signed ? sign << (64 - position) : 0)
                           : v;
  if (!length) return 0;
  if (length >= 64) return r;
  u64 low = ((u64)1 << length) - 1;
  return is_signed && (r >> (length - 1) & 1) ? r | ~low : r & low;
}
TERNARY(bfe_u32, u32, u32, u32, u32, extract(a, 32, false, b & 255, c & 255))
TERNARY(bfe_s32, u32, u32, u32, u32, extract(a, 32, true, b & 255, c & 255))
TERNARY(bfe_u64, u64, u64, u32, u32, extract(a, 64, false, b & 255, c & 255))
TERNARY(bfe_s64, u64, u64, u32, u32, extract(a, 64, true, b & 255, c & 255))

TERNARY(shf_l_wrap, u32, u32, u32, u32, ((u64)b << 32 | a) << (c & 31) >> 32)
TERNARY(shf_r_wrap, u32, u32, u32, u32, ((u64)b << 32 | a) >> (c & 31))
TERNARY(shf_l_clamp, u32, u32, u32, u32, c > 31 ? a : ((u64)b << 32 | a) << c >> 32)
TERNARY(shf_r_clamp, u32, u32, u32, u32, ((u64)b << 32 | a) >> (c > 32 ? 32 : c))

/* lop3: i->imm is the truth table; row k of it is (a, b, c) = bits 2, 1, 0 of k. */
static void lop3_and_or(warp *w, const insn *i, uint32_t m) {
  const u32 *a = ROW(u32, i->a), *b = ROW(u32, i->b), *c = ROW(u32, i->c);
  u32 t[LANES];
  EACH_LANE(l) t[l] = (a[l] & b[l]) | c[l];
  STORE_ROW(u32, ROW(u32, i->d), t, m);
}

static void lop3_any(warp *w, const insn *i, uint32_t m) {
  const u32 *a = ROW(u32, i->a), *b = ROW(u32, i->b), *c = ROW(u32, i->c);
  u32 t[LANES], k[8];
  for (int r = 0; r < 8; r++) k[r] = 0 - (u32)(i->imm >> r & 1);
  EACH_LANE(l) {
    u32 x = a[l], y = b[l], z = c[l];
    u32 low = (~y & ((~z & k[0]) | (z & k[1]))) | (y & ((~z & k[2]) | (z & k[3])));
    u32 high = (~y & ((~z & k[4]) | (z & k[5]))) | (y & ((~z & k[6]) | (z & k[7])));
    t[l] = (~x & low) | (x & high);
  }
  STORE_ROW(u32, ROW(u32, i->d), t, m);
}

static void decode_lop3(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  qn__emu_operands(p, o, n, 5, 5);
  i->d = qn__emu_dest(p, &ops[0], 4);
  i->a = qn__emu_source(p, &ops[1], 4), i->b = qn__emu_source(p, &ops[2], 4), i->c = qn__emu_source(p, &ops[3], 4);
  if (ops[4].kind != O_IMM || ops[4].imm < 0 || ops[4].imm > 255) qn__emu_refuse(p, "the table of lop3 is 0 to 255");
  i->imm = ops[4].imm;
  i->run = i->imm == 0xea ? lop3_and_or : lop3_any;
}

/* prmt modes by name; the default picks four bytes by nibble, bit 3 repeating the byte's sign. */
static inline u32 permute(u32 a, u32 b, u32 selector) {
  u64 v = (u64)b << 32 | a;
  u32 r = 0;
  for (int k = 0; k < 4; k++) {
    u32 s = selector >> 4 * k, byte = (u32)(v >> 8 * (s & 7)) & 255;
    r |= (s & 8 ? (0 - (byte >> 7)) & 255 : byte) << 8 * k;
  }
  return r;
}
TERNARY(prmt, u32, u32, u32, u32, permute(a, b, c))
static const u16 prmt_f4e[4] = {0x3210, 0x4321, 0x5432, 0x6543}, prmt_b4e[4] = {0x5670, 0x6701, 0x7012, 0x0123},
                 prmt_rc8[4] = {0x0000, 0x1111, 0x2222, 0x3333}, prmt_ecl[4] = {0x3210, 0x3211, 0x3222, 0x3333},
                 prmt_ecr[4] = {0x0000, 0x1110, 0x2210, 0x3210}, prmt_rc16[4] = {0x1010, 0x3232, 0x1010, 0x3232};
TERNARY(prmt_mode_f4e, u32, u32, u32, u32, permute(a, b, prmt_f4e[c & 3]))
TERNARY(prmt_mode_b4e, u32, u32, u32, u32, permute(a, b, prmt_b4e[c & 3]))
TERNARY(prmt_mode_rc8, u32, u32, u32, u32, permute(a, b, prmt_rc8[c & 3]))
TERNARY(prmt_mode_ecl, u32, u32, u32, u32, permute(a, b, prmt_ecl[c & 3]))
TERNARY(prmt_mode_ecr, u32, u32, u32, u32, permute(a, b, prmt_ecr[c & 3]))
TERNARY(prmt_mode_rc16, u32, u32, u32, u32, permute(a, b, prmt_rc16[c & 3]))

/* dp4a, dp2a: i->sub bit 0: a signed, bit 1: b signed, bit 2: dp2a takes b's upper half. */
static inline s32 byte_of(u32 v, int k, bool is_signed) {
  u32 b = v >> 8 * k & 255;
  return is_signed ? (s32)(b ^ 128) - 128 : (s32)b;
}
static inline u32 dot4(u32 a, u32 b, u32 c, int sub) {
  for (int k = 0; k < 4; k++) c += (u32)(byte_of(a, k, sub & 1) * byte_of(b, k, sub & 2));
  return c;
}
static inline u32 dot2(u32 a, u32 b, u32 c, int sub) {
  for (int k = 0; k < 2; k++) {
    s32 h = sub & 1 ? (s16)(a >> 16 * k) : (s32)(a >> 16 * k & 0xffff);
    c += (u32)h * (u32)byte_of(b, k + (sub & 4 ? 2 : 0), sub & 2);
  }
  return c;
}
TERNARY(dp4a, u32, u32, u32, u32, dot4(a, b, c, i->sub))
TERNARY(dp2a, u32, u32, u32, u32, dot2(a, b, c, i->sub))
static void decode_dot(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  qn__emu_operands(p, o, n, 4, 4);
  i->sub = (uint8_t)((*o->token[o->n - 2] == 's') | (*o->token[o->n - 1] == 's') << 1 | qn__emu_has(o, "hi") << 2);
  i->d = qn__emu_dest(p, &ops[0], 4);
  i->a = qn__emu_source(p, &ops[1], 4), i->b = qn__emu_source(p, &ops[2], 4), i->c = qn__emu_source(p, &ops[3], 4);
}

/* Carries: one bit per lane in warp.carry. PTX ISA, "Extended-Precision Integer Arithmetic". i->sub: 1 reads the carry,
 * 2 writes it, 4 subtracts. */
static void carry_u32(warp *w, const insn *i, uint32_t m) {
  const u32 *a = ROW(u32, i->a), *b = ROW(u32, i->b);
  u32 t[LANES], out = 0;
  EACH_LANE(l) {
    u64 in = i->sub & 1 ? w->carry >> l & 1 : (i->sub & 4) >> 2;
    u64 sum = (u64)a[l] + (i->sub & 4 ? (u32)~b[l] : b[l]) + in;
    t[l] = (u32)sum, out |= (u32)(sum >> 32 & 1) << l;
  }
  STORE_ROW(u32, ROW(u32, i->d), t, m);
  if (i->sub & 2) STORE_BITS(&w->carry, out, m);
}

#define PREDICATE(name, expr)                                                                                          \
  static void name(warp *w, const insn *i, uint32_t m) {                                                               \
    uint32_t a = *ROW(u32, i->a), b = *ROW(u32, i->b);                                                                 \
    (void)b;                                                                                                           \
    STORE_BITS(ROW(u32, i->d), expr, m);                                                                               \
  }
PREDICATE(and_pred, a &b)
PREDICATE(or_pred, a | b)
PREDICATE(xor_pred, a ^ b)
PREDICATE(not_pred, ~a)

/* ---- Rules ------------------------------------------------------------------------------------------------------- */

#define K QN_EMU_K_INT
#define TYPED(text, form, fn)                                                                                          \
  {text ".u16|s16", form, fn##_u16, NULL, K, 0, 0}, {text ".u32|s32", form, fn##_u32, NULL, K, 0, 0}, {                \
    text ".u64|s64", form, fn##_u64, NULL, K, 0, 0                                                                     \
  }
#define SIGNED(text, form, fn)                                                                                         \
  {text ".s16", form, fn##_s16, NULL, K, 0, 0}, {text ".s32", form, fn##_s32, NULL, K, 0, 0},                          \
      {text ".s64", form, fn##_s64, NULL, K, 0, 0}, {text ".u16", form, fn##_u16, NULL, K, 0, 0},                      \
      {text ".u32", form, fn##_u32, NULL, K, 0, 0}, {                                                                  \
    text ".u64", form, fn##_u64, NULL, K, 0, 0                                                                         \
  }
#define BITS(text, form, fn)                                                                                           \
  {text ".b16", form, fn##_u16, NULL, K, 0, 0}, {text ".b32", form, fn##_u32, NULL, K, 0, 0}, {                        \
    text ".b64", form, fn##_u64, NULL, K, 0, 0                                                                         \
  }
#define LOGIC(text, form, fn)                                                                                          \
  BITS(text, form, fn), { text ".pred", form, fn##_pred, NULL, K, 0, 0 }
#define WIDENING(text, form, fn)                                                                                       \
  {text ".u16", form, fn##_u16, NULL, K, 0, 0}, {text ".s16", form, fn##_s16, NULL, K, 0, 0},                          \
      {text ".u32", form, fn##_u32, NULL, K, 0, 0}, {                                                                  \
    text ".s32", form, fn##_s32, NULL, K, 0, 0                                                                         \
  }

static const rule rows[] = {
    TYPED("add", "dab", add),
    TYPED("sub", "dab", sub),
    TYPED("mul.lo", "dab", mul),
    TYPED("mad.lo", "dabc", mad),
    WIDENING("mul.wide", "Dab", mulw),
    WIDENING("mad.wide", "DabC", madw),
    SIGNED("mul.hi", "dab", mulh),
    {"mad.hi.u32", "dabc", madh_u32, NULL, K, 0, 0},
    {"mad.hi.s32", "dabc", madh_s32, NULL, K, 0, 0},
    {"mul24.lo.u32", "dab", mul24_u32, NULL, K, 0, 0},
    {"sad.u32", "dabc", sad_u32, NULL, K, 0, 0},
    {"sad.s32", "dabc", sad_s32, NULL, K, 0, 0},
    {"add.sat.s32", "dab", adds_s32, NULL, K, 0, 0},
    {"sub.sat.s32", "dab", subs_s32, NULL, K, 0, 0},
    SIGNED("min", "dab", min),
    SIGNED("max", "dab", max),
    SIGNED("div", "dab", div),
    SIGNED("rem", "dab", rem),
    {"neg.s16", "da", neg_u16, NULL, K, 0, 0},
    {"neg.s32", "da", neg_u32, NULL, K, 0, 0},
    {"neg.s64", "da", neg_u64, NULL, K, 0, 0},
    {"abs.s16", "da", abs_s16, NULL, K, 0, 0},
    {"abs.s32", "da", abs_s32, NULL, K, 0, 0},
    {"abs.s64", "da", abs_s64, NULL, K, 0, 0},
    {"add.cc.u32|s32|b32", "dab", carry_u32, NULL, K, 0, 2},
    {"addc.u32|s32|b32", "dab", carry_u32, NULL, K, 0, 1},
    {"addc.cc.u32|s32|b32", "dab", carry_u32, NULL, K, 0, 3},
    {"sub.cc.u32|s32|b32", "dab", carry_u32, NULL, K, 0, 6},
    {"subc.u32|s32|b32", "dab", carry_u32, NULL, K, 0, 5},
    {"subc.cc.u32|s32|b32", "dab", carry_u32, NULL, K, 0, 7},
    /* Logic and Shift Instructions */
    LOGIC("and", "dab", and),
    LOGIC("or", "dab", or),
    LOGIC("xor", "dab", xor),
    LOGIC("not", "da", not ),
    BITS("cnot", "da", cnot),
    BITS("shl", "dab4", shl),
    BITS("shr", "dab4", shr),
    SIGNED("shr", "dab4", shr),
    {"lop3.b32", "", NULL, decode_lop3, K, 0, 0},
    {"shf.l.wrap.b32", "dabc", shf_l_wrap, NULL, K, 0, 0},
    {"shf.r.wrap.b32", "dabc", shf_r_wrap, NULL, K, 0, 0},
    {"shf.l.clamp.b32", "dabc", shf_l_clamp, NULL, K, 0, 0},
    {"shf.r.clamp.b32", "dabc", shf_r_clamp, NULL, K, 0, 0},
    {"popc.b32", "d4a", popc_u32, NULL, K, 0, 0},
    {"popc.b64", "d4a", popc_u64, NULL, K, 0, 0},
    {"clz.b32", "d4a", clz_u32, NULL, K, 0, 0},
    {"clz.b64", "d4a", clz_u64, NULL, K, 0, 0},
    {"brev.b32", "da", brev_u32, NULL, K, 0, 0},
    {"brev.b64", "da", brev_u64, NULL, K, 0, 0},
    {"bfind.u32", "d4a", bfind_u32, NULL, K, 0, 0},
    {"bfind.s32", "d4a", bfind_s32, NULL, K, 0, 0},
    {"bfind.shiftamt.u32", "d4a", bfind_u32, NULL, K, 0, 1},
    {"bfind.shiftamt.s32", "d4a", bfind_s32, NULL, K, 0, 1},
    {"bmsk.clamp.b32", "dab", bmsk_clamp, NULL, K, 0, 0},
    {"bmsk.wrap.b32", "dab", bmsk_wrap, NULL, K, 0, 0},
    {"bfi.b32", "dabc4e4", bfi_u32, NULL, K, 0, 0},
    {"bfi.b64", "dabc4e4", bfi_u64, NULL, K, 0, 0},
    {"bfe.u32", "dab4c4", bfe_u32, NULL, K, 0, 0},
    {"bfe.s32", "dab4c4", bfe_s32, NULL, K, 0, 0},
    {"bfe.u64", "dab4c4", bfe_u64, NULL, K, 0, 0},
    {"bfe.s64", "dab4c4", bfe_s64, NULL, K, 0, 0},
    {"dp4a.u32|s32.u32|s32", "", dp4a, decode_dot, K, 0, 0},
    {"dp2a.lo|hi.u32|s32.u32|s32", "", dp2a, decode_dot, K, 0, 0},
    {"prmt.b32", "dabc", prmt, NULL, K, 0, 0},
    {"prmt.b32.f4e", "d4a4b4c4", prmt_mode_f4e, NULL, K, 0, 0},
    {"prmt.b32.b4e", "d4a4b4c4", prmt_mode_b4e, NULL, K, 0, 0},
    {"prmt.b32.rc8", "d4a4b4c4", prmt_mode_rc8, NULL, K, 0, 0},
    {"prmt.b32.ecl", "d4a4b4c4", prmt_mode_ecl, NULL, K, 0, 0},
    {"prmt.b32.ecr", "d4a4b4c4", prmt_mode_ecr, NULL, K, 0, 0},
    {"prmt.b32.rc16", "d4a4b4c4", prmt_mode_rc16, NULL, K, 0, 0},
};
DEFINE_RULES(LEVELED(rules_int), rows);
