/* op_select.c - comparison, selection and moves on rows of 32 lanes, as op_int.c does arithmetic.
 *
 * Source: PTX ISA, "Comparison and Selection", "Data Movement" (mov, cvta, isspacep). */
#include "rule.h"

typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;

/* ---- Comparison and selection ------------------------------------------------------------------------------------ */

static inline u32 gather_bits(const uint8_t t[LANES]) {
  u32 r = 0;
  for (int k = 0; k < 4; k++) {
    u64 x;
    memcpy(&x, t + 8 * k, 8);
    r |= (u32)((x * UINT64_C(0x0102040810204080)) >> 56) << 8 * k;
  }
  return r;
}

/* setp and set: i->sub is the comparison; flags: bits 0-1 how to combine with predicate c (and or xor), bit 2 c is
 * negated. */
enum { EQ, NE, LT, LE, GT, GE, EQU, NEU, LTU, LEU, GTU, GEU, NUM, NANC };
static const char comparisons[] = "eq|ne|lt|le|gt|ge|equ|neu|ltu|leu|gtu|geu|num|nan";

#define LOOP_COMPARE(test)                                                                                             \
  EACH_LANE(l) { t[l] = test; }                                                                                        \
  break
#define COMPARE(T)                                                                                                     \
  static u32 compare_##T(const void *pa, const void *pb, int how) {                                                    \
    const T *a = pa, *b = pb;                                                                                          \
    uint8_t t[LANES];                                                                                                  \
    switch (how) {                                                                                                     \
    case EQ:                                                                                                           \
      LOOP_COMPARE(a[l] == b[l]);                                                                                      \
    case NE:                                                                                                           \
      LOOP_COMPARE((a[l] < b[l]) | (a[l] > b[l]));                                                                     \
    case LT:                                                                                                           \
      LOOP_COMPARE(a[l] < b[l]);                                                                                       \
    case LE:                                                                                                           \
      LOOP_COMPARE(a[l] <= b[l]);                                                                                      \
    case GT:                                                                                                           \
      LOOP_COMPARE(a[l] > b[l]);                                                                                       \
    case GE:                                                                                                           \
      LOOP_COMPARE(a[l] >= b[l]);                                                                                      \
    case EQU:                                                                                                          \
      LOOP_COMPARE(!((a[l] < b[l]) | (a[l] > b[l])));                                                                  \
    case NEU:                                                                                                          \
      LOOP_COMPARE(!(a[l] == b[l]));                                                                                   \
    case LTU:                                                                                                          \
      LOOP_COMPARE(!(a[l] >= b[l]));                                                                                   \
    case LEU:                                                                                                          \
      LOOP_COMPARE(!(a[l] > b[l]));                                                                                    \
    case GTU:                                                                                                          \
      LOOP_COMPARE(!(a[l] <= b[l]));                                                                                   \
    case GEU:                                                                                                          \
      LOOP_COMPARE(!(a[l] < b[l]));                                                                                    \
    case NUM:                                                                                                          \
      LOOP_COMPARE((a[l] == a[l]) & (b[l] == b[l]));                                                                   \
    default:                                                                                                           \
      LOOP_COMPARE((a[l] != a[l]) | (b[l] != b[l]));                                                                   \
    }                                                                                                                  \
    return gather_bits(t);                                                                                             \
  }
COMPARE(u16)
COMPARE(s16)
COMPARE(u32)
COMPARE(s32)
COMPARE(u64)
COMPARE(s64)
COMPARE(float)
COMPARE(double)

static u32 compare(const warp *w, const insn *i) {
  const void *a = ROW(void, i->a), *b = ROW(void, i->b);
  switch (i->type) {
  case T_B16:
  case T_U16:
    return compare_u16(a, b, i->sub);
  case T_S16:
    return compare_s16(a, b, i->sub);
  case T_B32:
  case T_U32:
    return compare_u32(a, b, i->sub);
  case T_S32:
    return compare_s32(a, b, i->sub);
  case T_B64:
  case T_U64:
    return compare_u64(a, b, i->sub);
  case T_S64:
    return compare_s64(a, b, i->sub);
  case T_F32:
    return compare_float(a, b, i->sub);
  default:
    return compare_double(a, b, i->sub);
  }
}

static inline u32 combine(u32 r, u32 c, int how) { return how == 1 ? r & c : how == 2 ? r | c : how == 3 ? r ^ c : r; }

static void setp(warp *w, const insn *i, uint32_t m) {
  u32 r = compare(w, i), c = i->c ? *ROW(u32, i->c) ^ (i->flags & 4 ? ALL : 0) : 0;
  STORE_BITS(ROW(u32, i->d), combine(r, c, i->flags & 3), m);
  if (i->e) STORE_BITS(ROW(u32, i->e), combine(~r, c, i->flags & 3), m);
}

static void set_b32(warp *w, const insn *i, uint32_t m) {
  u32 r = compare(w, i), c = i->c ? *ROW(u32, i->c) ^ (i->flags & 4 ? ALL : 0) : 0, t[LANES];
  r = combine(r, c, i->flags & 3);
  EACH_LANE(l) t[l] = r >> l & 1 ? i->from == T_F32 ? 0x3f800000 : ALL : 0;
  STORE_ROW(u32, ROW(u32, i->d), t, m);
}

static void decode_compare(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  bool negate;
  qn__emu_operands(p, o, n, 3, 4);
  int how = qn__emu_which(o, comparisons), with = qn__emu_which(o, "and|or|xor"),
      unsigned_name = qn__emu_which(o, "lo|ls|hi|hs");
  i->sub = (uint8_t)(unsigned_name >= 0 ? (const uint8_t[]){LT, LE, GT, GE}[unsigned_name] : how);
  i->flags = (uint8_t)(with + 1);
  if (n != (with >= 0 ? 4 : 3)) qn__emu_refuse(p, "%s with %d operands", o->token[0], n);
  if (with >= 0) i->c = qn__emu_predicate(p, &ops[3], &negate), i->flags |= negate ? 4 : 0;
  i->a = qn__emu_source(p, &ops[1], type_width(i->type)), i->b = qn__emu_source(p, &ops[2], type_width(i->type));
  if (i->run == set_b32) {
    i->from = (uint8_t)qn__emu_token_type(p, o, -2);
    i->d = qn__emu_dest(p, &ops[0], 4);
    return;
  }
  operand first = ops[0];
  if (first.second && first.second->kind != O_SINK) i->e = qn__emu_predicate(p, first.second, NULL);
  first.second = NULL;
  if (first.kind == O_SINK) qn__emu_refuse(p, "setp needs a destination");
  i->d = qn__emu_predicate(p, &first, NULL);
}

/* selp: a bit of the predicate; slct: the sign of c. */
#define SELECT(name, T, C, first)                                                                                      \
  static void name(warp *w, const insn *i, uint32_t m) {                                                               \
    const T *a = ROW(T, i->a), *b = ROW(T, i->b);                                                                      \
    const C *c = ROW(C, i->c);                                                                                         \
    T t[LANES];                                                                                                        \
    EACH_LANE(l) t[l] = (first) ? a[l] : b[l];                                                                         \
    STORE_ROW(T, ROW(T, i->d), t, m);                                                                                  \
  }
SELECT(selp_u16, u16, u32, *c >> l & 1)
SELECT(selp_u32, u32, u32, *c >> l & 1)
SELECT(selp_u64, u64, u32, *c >> l & 1)
SELECT(slct_s32, u32, s32, c[l] >= 0)
SELECT(slct_f32, u32, float, c[l] >= 0)

/* ---- Moves ------------------------------------------------------------------------------------------------------- */

#define MOVE(T)                                                                                                        \
  static void mov_##T(warp *w, const insn *i, uint32_t m) {                                                            \
    T t[LANES];                                                                                                        \
    memcpy(t, ROW(T, i->a), sizeof t);                                                                                 \
    STORE_ROW(T, ROW(T, i->d), t, m);                                                                                  \
  }
MOVE(u16)
MOVE(u32)
MOVE(u64)

static void mov_pred(warp *w, const insn *i, uint32_t m) {
  u32 a = *ROW(u32, i->a);
  STORE_BITS(ROW(u32, i->d), a, m);
}

/* {a, b, ...} into one register; i->count elements of i->width bytes, each; a register has at least two. */
static void pack(warp *w, const insn *i, uint32_t m) {
  u64 t[LANES] = {0};
  u32 total = i->count * i->width;
  for (u32 k = 0; k < i->count; k++) {
    u32 shift = 8 * i->width * k;
    if (i->width == 4) EACH_LANE(l) t[l] |= (u64)ROW(u32, i->regs[k])[l] << shift;
    else if (i->width == 2) EACH_LANE(l) t[l] |= (u64)ROW(u16, i->regs[k])[l] << shift;
    else EACH_LANE(l) t[l] |= (u64)(ROW(u16, i->regs[k])[l] & 255) << shift;
  }
  if (total == 8) STORE_ROW(u64, ROW(u64, i->d), t, m);
  else if (total == 4) {
    EACH_SET(l, m) ROW(u32, i->d)[l] = (u32)t[l];
  } else EACH_SET(l, m) ROW(u16, i->d)[l] = (u16)t[l];
}

static void unpack(warp *w, const insn *i, uint32_t m) {
  u64 t[LANES];
  u32 total = i->count * i->width;
  EACH_LANE(l) t[l] = total == 8 ? ROW(u64, i->a)[l] : total == 4 ? ROW(u32, i->a)[l] : ROW(u16, i->a)[l];
  for (u32 k = 0; k < i->count; k++) {
    if (!i->regs[k]) continue;
    u32 shift = 8 * i->width * k;
    if (i->width == 4) EACH_SET(l, m) ROW(u32, i->regs[k])[l] = (u32)(t[l] >> shift);
    else if (i->width == 2) EACH_SET(l, m) ROW(u16, i->regs[k])[l] = (u16)(t[l] >> shift);
    else EACH_SET(l, m) ROW(u16, i->regs[k])[l] = (uint8_t)(t[l] >> shift);
  }
}

static void decode_mov(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  qn__emu_operands(p, o, n, 2, 2);
  uint32_t size = qn__emu_types[i->type].size;
  const operand *v = ops[0].kind == O_VECTOR ? &ops[0] : ops[1].kind == O_VECTOR ? &ops[1] : NULL;
  if (i->type == T_PRED) {
    i->d = qn__emu_predicate(p, &ops[0], NULL), i->a = qn__emu_predicate(p, &ops[1], NULL), i->run = mov_pred;
  } else if (!v) {
    i->d = qn__emu_dest(p, &ops[0], size), i->a = qn__emu_source(p, &ops[1], size);
    i->run = size == 2 ? mov_u16 : size == 4 ? mov_u32 : mov_u64;
  } else {
    if (v->count != 2 && v->count != 4) qn__emu_refuse(p, "mov of %d elements", v->count);
    i->count = (uint8_t)v->count, i->width = (uint8_t)(size / i->count);
    if (!i->width || i->width > 4) qn__emu_refuse(p, "mov of %u bytes per element", i->width);
    i->regs = qn__emu_list(p, v, 1, i->width < 2 ? 2 : i->width, &i->nregs);
    i->run = v == ops ? unpack : pack;
    if (v == ops) i->a = qn__emu_source(p, &ops[1], size);
    else i->d = qn__emu_dest(p, &ops[0], size);
  }
}

/* cvta: only the window bits change; i->imm holds them. PTX ISA, "cvta". */
static void cvta_to_generic(warp *w, const insn *i, uint32_t m) {
  const u64 *a = ROW(u64, i->a);
  u64 t[LANES];
  EACH_LANE(l) t[l] = a[l] | (u64)i->imm;
  STORE_ROW(u64, ROW(u64, i->d), t, m);
}
static void cvta_from_generic(warp *w, const insn *i, uint32_t m) {
  const u64 *a = ROW(u64, i->a);
  u64 t[LANES];
  EACH_LANE(l) t[l] = a[l] & ~(u64)i->imm;
  STORE_ROW(u64, ROW(u64, i->d), t, m);
}
static u64 window_of(const opcode *o) {
  static const u64 windows[] = {WINDOW_SHARED, WINDOW_SHARED, WINDOW_SHARED, WINDOW_LOCAL, WINDOW_PARAM, WINDOW_PARAM};
  int k = qn__emu_which(o, "shared|shared::cta|shared::cluster|local|param|param::entry");
  return k < 0 ? 0 : windows[k];
}
static void decode_cvta(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  qn__emu_operands(p, o, n, 2, 2);
  i->imm = (int64_t)window_of(o);
  i->d = qn__emu_dest(p, &ops[0], 8), i->a = qn__emu_source(p, &ops[1], 8);
  i->run = qn__emu_has(o, "to") ? cvta_from_generic : cvta_to_generic;
}
static void isspacep(warp *w, const insn *i, uint32_t m) {
  const u64 *a = ROW(u64, i->a);
  u32 r = 0;
  EACH_LANE(l) r |= (u32)((a[l] & WINDOW_MASK) == (u64)i->imm) << l;
  STORE_BITS(ROW(u32, i->d), r, m);
}
static void decode_isspacep(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  qn__emu_operands(p, o, n, 2, 2);
  i->imm = (int64_t)window_of(o);
  i->d = qn__emu_predicate(p, &ops[0], NULL), i->a = qn__emu_source(p, &ops[1], 8);
}

/* ---- Rules ------------------------------------------------------------------------------------------------------- */

static const rule rows[] = {
    /* Comparison and Selection Instructions */
    {"setp.eq|ne|lt|le|gt|ge|lo|ls|hi|hs.and|or|xor?.b16|u16|s16|b32|u32|s32|b64|u64|s64", "", setp, decode_compare,
     QN_EMU_K_COMPARE, 0, 0},
    {"setp.eq|ne|lt|le|gt|ge|equ|neu|ltu|leu|gtu|geu|num|nan.and|or|xor?.f32|f64", "", setp, decode_compare,
     QN_EMU_K_COMPARE, 0, 0},
    {"set.eq|ne|lt|le|gt|ge|lo|ls|hi|hs|equ|neu|ltu|leu|gtu|geu|num|nan.and|or|xor?.u32|s32|f32.b16|u16|s16|b32|u32|"
     "s32|"
     "b64|u64|s64|f32|f64",
     "", set_b32, decode_compare, QN_EMU_K_COMPARE, 0, 0},
    {"selp.b16|u16|s16", "dabcp", selp_u16, NULL, QN_EMU_K_COMPARE, 0, 0},
    {"selp.b32|u32|s32|f32", "dabcp", selp_u32, NULL, QN_EMU_K_COMPARE, 0, 0},
    {"selp.b64|u64|s64|f64", "dabcp", selp_u64, NULL, QN_EMU_K_COMPARE, 0, 0},
    {"slct.b32|u32|s32|f32.s32", "dabc", slct_s32, NULL, QN_EMU_K_COMPARE, 0, 0},
    {"slct.b32|u32|s32|f32.f32", "dabc", slct_f32, NULL, QN_EMU_K_COMPARE, 0, 0},
    /* Data Movement: mov, cvta, isspacep */
    {"mov.b16|u16|s16|b32|u32|s32|f32|b64|u64|s64|f64|pred", "", NULL, decode_mov, QN_EMU_K_MOVE, 0, 0},
    {"cvta.to?.global|const.u64", "d8a8", mov_u64, NULL, QN_EMU_K_MOVE, 0, 0},
    {"cvta.to?.shared|shared::cta|shared::cluster|local|param|param::entry.u64", "", NULL, decode_cvta, QN_EMU_K_MOVE,
     0, 0},
    {"isspacep.global|const|shared|shared::cta|shared::cluster|local|param|param::entry", "", isspacep, decode_isspacep,
     QN_EMU_K_MOVE, 0, 0},
};
DEFINE_RULES(LEVELED(rules_select), rows);
