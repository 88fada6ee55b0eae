/* access.c - ld and st on every state space.
 *
 * An access becomes one host pointer per lane (reach.h), then the data moves. Source: PTX ISA, "ld", "st", "State
 * Spaces"; cache operators and memory orders do not change a sequentially consistent execution. */
#include "reach.h"
#include "rule.h"

static uint32_t reach_private(warp *w, const insn *i, const uint64_t ad[LANES], uint32_t mask, uint32_t bytes,
                              uint8_t *p[LANES], space s) {
  const run *r = w->worker->run;
  uint32_t size = s == S_LOCAL ? r->module->local_bytes : r->f->kernel.param_bytes;
  EACH_SET(l, mask) {
    uint64_t at = ad[l] & ~WINDOW_MASK;
    if (at > size || bytes > size - at || (s == S_PARAM && i->store)) {
      qn__emu_find(w, (int)l, QN_EMU_F_BOUNDS, "%s of %u bytes at offset %llu of %u bytes of %s memory",
                   i->store ? "write" : "read", bytes, (unsigned long long)at, size,
                   s == S_LOCAL ? "local" : "parameter");
      mask &= ~(1u << l);
      continue;
    }
    p[l] = s == S_LOCAL ? w->local + (size_t)size * l + at : r->params + at;
  }
  return mask;
}

static uint32_t reach_own(warp *w, const insn *i, const uint64_t ad[LANES], uint32_t mask, uint32_t bytes,
                          uint8_t *p[LANES]) {
  uint32_t a[LANES];
  EACH_LANE(l) a[l] = (uint32_t)ad[l];
  return reach_shared(w, a, mask, bytes, i->store ? GENERIC_WRITE : GENERIC_READ, p);
}

static uint32_t reach_generic(warp *w, const insn *i, const uint64_t ad[LANES], uint32_t mask, uint32_t bytes,
                              uint8_t *p[LANES]) {
  uint32_t left = mask, ok = 0;
  while (left) {
    uint64_t window = ad[__builtin_ctz(left)] & WINDOW_MASK;
    uint32_t same = 0;
    EACH_SET(l, left) if ((ad[l] & WINDOW_MASK) == window) same |= 1u << l;
    left &= ~same;
    ok |= window == WINDOW_SHARED  ? reach_own(w, i, ad, same, bytes, p)
          : window == WINDOW_LOCAL ? reach_private(w, i, ad, same, bytes, p, S_LOCAL)
          : window == WINDOW_PARAM ? reach_private(w, i, ad, same, bytes, p, S_PARAM)
                                   : reach_global(w, ad, same, bytes, i->store, p);
  }
  return ok;
}

static uint32_t reach(warp *w, const insn *i, uint32_t mask, uint32_t bytes, uint8_t *p[LANES]) {
  uint64_t ad[LANES];
  row_addresses(w, i->a, i->imm, ad);
  mask = aligned_lanes(w, ad, mask, bytes);
  switch (i->space) {
  case S_GLOBAL:
  case S_CONST:
    return reach_global(w, ad, mask, bytes, i->store, p);
  case S_SHARED:
    return reach_own(w, i, ad, mask, bytes, p);
  case S_LOCAL:
  case S_PARAM:
    return reach_private(w, i, ad, mask, bytes, p, (space)i->space);
  default:
    return reach_generic(w, i, ad, mask, bytes, p);
  }
}

static inline uint64_t extend(uint64_t x, int t) {
  return t == T_S8 ? (uint64_t)(int8_t)x : t == T_S16 ? (uint64_t)(int16_t)x : t == T_S32 ? (uint64_t)(int32_t)x : x;
}

static void load(warp *w, const insn *i, uint32_t m) {
  uint8_t *p[LANES];
  uint32_t size = qn__emu_types[i->type].size;
  m = reach(w, i, m, size * i->count, p);
  for (uint32_t v = 0; v < i->count; v++) {
    if (!i->regs[v]) continue;
    void *d = ROW(void, i->regs[v]);
    if (size == 4 && i->width == 4) {
      EACH_SET(l, m) memcpy((uint32_t *)d + l, p[l] + v * 4, 4);
    } else if (size == 8) {
      EACH_SET(l, m) memcpy((uint64_t *)d + l, p[l] + v * 8, 8);
    } else EACH_SET(l, m) {
        uint64_t x = 0;
        memcpy(&x, p[l] + v * size, size);
        x = extend(x, i->type);
        memcpy((uint8_t *)d + l * i->width, &x, i->width);
      }
  }
}

static void store(warp *w, const insn *i, uint32_t m) {
  uint8_t *p[LANES];
  uint32_t size = qn__emu_types[i->type].size;
  m = reach(w, i, m, size * i->count, p);
  for (uint32_t v = 0; v < i->count; v++) {
    const uint8_t *d = ROW(uint8_t, i->regs[v]);
    if (size == 4 && i->width == 4) {
      EACH_SET(l, m) memcpy(p[l] + v * 4, d + l * 4, 4);
    } else EACH_SET(l, m) memcpy(p[l] + v * size, d + l * i->width, size);
  }
}

static const uint8_t space_kinds[] = {QN_EMU_K_GLOBAL, QN_EMU_K_GLOBAL, QN_EMU_K_SHARED,
                                      QN_EMU_K_LOCAL,  QN_EMU_K_PARAM,  QN_EMU_K_GLOBAL};
static space space_of(const opcode *o, const operand *memory) {
  static const uint8_t spaces[] = {S_GLOBAL, S_SHARED, S_SHARED, S_SHARED, S_LOCAL, S_PARAM, S_PARAM, S_PARAM, S_CONST};
  int k = qn__emu_which(o, "global|shared|shared::cta|shared::cluster|local|param|param::entry|param::func|const");
  space s = k < 0 ? S_GENERIC : (space)spaces[k];
  return s == S_PARAM && !memory->row && memory->space == S_LOCAL ? S_LOCAL : s; /* parameters of a .func */
}

static void decode_access(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  qn__emu_operands(p, o, n, 2, qn__emu_has(o, "L2::cache_hint") ? 3 : 2);
  i->store = !strcmp(o->token[0], "st");
  const operand *memory = &ops[!i->store], *data = &ops[i->store];
  int vector = qn__emu_which(o, "v2|v4|v8");
  i->count = (uint8_t)(vector < 0 ? 1 : 2 << vector);
  i->space = space_of(o, memory), i->kind = space_kinds[i->space];
  qn__emu_address(p, memory, &i->a, &i->imm);
  if ((data->kind == O_VECTOR ? data->count : 1) != i->count)
    qn__emu_refuse(p, "%d values where %d are wanted", data->count, i->count);
  if (i->count * qn__emu_types[i->type].size > 32) qn__emu_refuse(p, "access of more than 32 bytes");
  i->width = (uint8_t)type_width((type)i->type);
  const operand *list = data->kind == O_VECTOR ? data->list : data;
  for (int k = 0; k < i->count; k++)
    if (list[k].kind == O_REG) {
      if (list[k].width < i->width || list[k].type == T_PRED) qn__emu_refuse(p, "data register is too narrow");
      i->width = list[k].width;
      break;
    }
  if (!i->store)
    for (int k = 0; k < i->count; k++)
      if (list[k].kind != O_REG && list[k].kind != O_SINK) qn__emu_refuse(p, "ld needs a register as destination");
  i->regs = qn__emu_list(p, data, 1, i->width, &i->nregs);
}

#define SPACE "global|shared|shared::cta|shared::cluster|local|param|param::entry|param::func|const?"
#define TYPE "b8|u8|s8|b16|u16|s16|b32|u32|s32|b64|u64|s64|f32|f64"
#define HINTS                                                                                                          \
  "L1::evict_normal|L1::evict_unchanged|L1::evict_first|L1::evict_last|L1::no_allocate?.L2::evict_first|L2::evict_"    \
  "last|L2::evict_normal?.L2::cache_hint?.L2::64B|L2::128B|L2::256B?"
static const rule rows[] = {
    {"ld.weak|relaxed|acquire|volatile?.cta|cluster|gpu|sys?." SPACE ".ca|cg|cs|lu|cv?.nc?." HINTS ".v2|v4|v8?." TYPE,
     "", load, decode_access, QN_EMU_K_GLOBAL, 0, 0},
    {"ldu.global?.v2|v4?." TYPE, "", load, decode_access, QN_EMU_K_GLOBAL, 0, 0},
    {"st.weak|relaxed|release|volatile?.cta|cluster|gpu|sys?." SPACE ".wb|cg|cs|wt?." HINTS ".v2|v4|v8?." TYPE, "",
     store, decode_access, QN_EMU_K_GLOBAL, 0, 0},
};
DEFINE_RULES(LEVELED(rules_access), rows);
