/* warp.c - instructions in which the lanes of a warp exchange values; atomics; barriers and other flow.
 *
 * The scheduler has brought all lanes of the member mask together before run() is called. Source: PTX ISA, "shfl.sync",
 * "vote.sync", "match.sync", "redux.sync", "elect.sync", "activemask", "atom", "red", "bar", "membar/fence". */
#include "fail.h"
#include "half.h"
#include "reach.h"
#include "rule.h"

typedef uint32_t u32;
typedef uint64_t u64;

/* ---- Warp -------------------------------------------------------------------------------------------------------- */

static void shfl(warp *w, const insn *i, u32 m) {
  const u32 *a = ROW(u32, i->a), *b = ROW(u32, i->b), *c = ROW(u32, i->c);
  u32 t[LANES], in_range = 0;
  EACH_LANE(l) {
    int by = b[l] & 31, clamp = c[l] & 31, segment = c[l] >> 8 & 31;
    int most = (l & segment) | (clamp & ~segment), least = l & segment, from;
    switch (i->sub) {
    case 0:
      from = l - by;
      break;
    case 1:
      from = l + by;
      break;
    case 2:
      from = l ^ by;
      break;
    default:
      from = least | (by & ~segment);
      break;
    }
    bool in = i->sub == 0 ? from >= most : from <= most;
    if (!in) from = l;
    if (m >> l & 1 && !(m >> from & 1))
      qn__emu_find(w, l, QN_EMU_F_MASK, "shfl reads lane %d, which does not execute it", from);
    t[l] = a[from];
    in_range |= (u32)in << l;
  }
  STORE_ROW(u32, ROW(u32, i->d), t, m);
  if (i->e) STORE_BITS(ROW(u32, i->e), in_range, m);
}

static void decode_shfl(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  qn__emu_operands(p, o, n, 5, 5);
  i->sub = (uint8_t)qn__emu_which(o, "up|down|bfly|idx");
  operand d = ops[0];
  if (d.second && d.second->kind != O_SINK) i->e = qn__emu_predicate(p, d.second, NULL);
  d.second = NULL;
  i->d = qn__emu_dest(p, &d, 4);
  i->a = qn__emu_source(p, &ops[1], 4), i->b = qn__emu_source(p, &ops[2], 4), i->c = qn__emu_source(p, &ops[3], 4);
  i->member = qn__emu_source(p, &ops[4], 4);
}

static void vote(warp *w, const insn *i, u32 m) {
  u32 p = (*ROW(u32, i->a) ^ (i->store ? ALL : 0)) & m;
  if (i->sub == 0) {
    EACH_SET(l, m) ROW(u32, i->d)[l] = p;
    return;
  }
  bool r = i->sub == 1 ? p != 0 : i->sub == 2 ? p == m : p == m || !p;
  STORE_BITS(ROW(u32, i->d), r ? ALL : 0, m);
}
static void decode_vote(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  qn__emu_operands(p, o, n, 3, 3);
  i->sub = (uint8_t)qn__emu_which(o, "ballot|any|all|uni");
  i->d = i->sub ? qn__emu_predicate(p, &ops[0], NULL) : qn__emu_dest(p, &ops[0], 4);
  i->a = qn__emu_predicate(p, &ops[1], &i->store); /* store: the source is negated */
  i->member = qn__emu_source(p, &ops[2], 4);
}

static u64 lane_value(const warp *w, u32 row, int size, u32 l) {
  return size == 8 ? ROW(u64, row)[l] : ROW(u32, row)[l];
}

static void match(warp *w, const insn *i, u32 m) {
  int size = qn__emu_types[i->type].size;
  u32 t[LANES] = {0}, all = ALL;
  EACH_SET(l, m) EACH_SET(k, m) t[l] |= (u32)(lane_value(w, i->a, size, l) == lane_value(w, i->a, size, k)) << k;
  EACH_SET(l, m) if (t[l] != m) all = 0;
  if (i->sub) EACH_SET(l, m) t[l] = all ? m : 0;
  if (i->d) STORE_ROW(u32, ROW(u32, i->d), t, m);
  if (i->e) STORE_BITS(ROW(u32, i->e), all, m);
}
static void decode_match(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  qn__emu_operands(p, o, n, 3, 3);
  i->sub = qn__emu_has(o, "all");
  operand d = ops[0];
  if (d.second && d.second->kind != O_SINK) i->e = qn__emu_predicate(p, d.second, NULL);
  d.second = NULL;
  i->d = qn__emu_dest(p, &d, 4);
  i->a = qn__emu_source(p, &ops[1], qn__emu_types[i->type].size);
  i->member = qn__emu_source(p, &ops[2], 4);
}

/* Operations shared by redux and atomics. */
enum { ADD, MIN, MAX, AND, OR, XOR, EXCH, INC, DEC, CAS };
static const char operations[] = "add|min|max|and|or|xor|exch|inc|dec|cas";

static u64 half_pair(u64 x, u64 y, int op, bool bf) {
  u64 r = 0;
  for (int k = 0; k < 2; k++) {
    uint16_t a = (uint16_t)(x >> 16 * k), b = (uint16_t)(y >> 16 * k);
    float u = bf ? bfloat_float(a) : half_float(a), v = bf ? bfloat_float(b) : half_float(b);
    float f = op == ADD ? u + v : op == MIN ? fminf(u, v) : fmaxf(u, v);
    r |= (u64)(bf ? float_bfloat(f) : float_half(f)) << 16 * k;
  }
  return r;
}
static u64 operate(int op, type t, u64 x, u64 y, u64 z) {
  double u, v;
  switch (t) {
  case T_F16:
    return (uint16_t)half_pair(x, y, op, false);
  case T_F16X2:
    return half_pair(x, y, op, false);
  case T_BF16:
    return (uint16_t)half_pair(x, y, op, true);
  case T_BF16X2:
    return half_pair(x, y, op, true);
  case T_F32: {
    float a = qn__f32_of_bits((u32)x), b = qn__f32_of_bits((u32)y);
    return qn__bits_of_f32(op == ADD ? a + b : op == MIN ? fminf(a, b) : fmaxf(a, b));
  }
  case T_F64:
    memcpy(&u, &x, 8), memcpy(&v, &y, 8);
    u += v;
    memcpy(&x, &u, 8);
    return x;
  default:
    break;
  }
  bool less = t == T_S32 ? (int32_t)y < (int32_t)x : t == T_S64 ? (int64_t)y < (int64_t)x : y < x;
  switch (op) {
  case ADD:
    return x + y;
  case MIN:
    return less ? y : x;
  case MAX:
    return less ? x : y;
  case AND:
    return x & y;
  case OR:
    return x | y;
  case XOR:
    return x ^ y;
  case EXCH:
    return y;
  case INC:
    return (u32)x >= (u32)y ? 0 : x + 1;
  case DEC:
    return !(u32)x || (u32)x > (u32)y ? y : x - 1;
  default:
    return x == y ? z : x;
  }
}

static void redux(warp *w, const insn *i, u32 m) {
  u64 r = ROW(u32, i->a)[__builtin_ctz(m)];
  u32 rest = m & (m - 1);
  EACH_SET(l, rest) r = (u32)operate(i->sub, (type)i->type, r, ROW(u32, i->a)[l], 0);
  EACH_SET(l, m) ROW(u32, i->d)[l] = (u32)r;
}
static void decode_redux(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  qn__emu_operands(p, o, n, 3, 3);
  i->sub = (uint8_t)qn__emu_which(o, operations);
  i->d = qn__emu_dest(p, &ops[0], 4), i->a = qn__emu_source(p, &ops[1], 4), i->member = qn__emu_source(p, &ops[2], 4);
}

static void elect(warp *w, const insn *i, u32 m) {
  u32 leader = (u32)__builtin_ctz(m);
  if (i->d) EACH_SET(l, m) ROW(u32, i->d)[l] = leader;
  if (i->e) STORE_BITS(ROW(u32, i->e), 1u << leader, m);
}
static void decode_elect(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  qn__emu_operands(p, o, n, 2, 2);
  operand d = ops[0];
  if (!d.second) qn__emu_refuse(p, "elect.sync needs a predicate");
  i->e = qn__emu_predicate(p, d.second, NULL);
  d.second = NULL;
  if (d.kind != O_SINK) i->d = qn__emu_dest(p, &d, 4);
  i->member = qn__emu_source(p, &ops[1], 4);
}

static void activemask(warp *w, const insn *i, u32 m) { EACH_SET(l, m) ROW(u32, i->d)[l] = m; }

static void warp_sync(warp *w, const insn *i, u32 m) { (void)w, (void)i, (void)m; }
static void decode_member(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  qn__emu_operands(p, o, n, 1, 1);
  i->member = qn__emu_source(p, &ops[0], 4);
}

#define W QN_EMU_K_WARP
static const rule warp_rows[] = {
    {"shfl.sync.up|down|bfly|idx.b32", "", shfl, decode_shfl, W, C_SYNC, 0},
    {"vote.sync.ballot.b32", "", vote, decode_vote, W, C_SYNC, 0},
    {"vote.sync.any|all|uni.pred", "", vote, decode_vote, W, C_SYNC, 0},
    {"match.any|all.sync.b32|b64", "", match, decode_match, W, C_SYNC, 0},
    {"redux.sync.add|min|max.u32|s32", "", redux, decode_redux, W, C_SYNC, 0},
    {"redux.sync.and|or|xor.b32", "", redux, decode_redux, W, C_SYNC, 0},
    {"redux.sync.min|max.f32", "", redux, decode_redux, W, C_SYNC, 0},
    {"elect.sync", "", elect, decode_elect, W, C_SYNC, 0},
    {"activemask.b32", "d", activemask, NULL, W, 0, 0},
    {"bar.warp.sync", "", warp_sync, decode_member, W, C_SYNC, 0},
};
const rules qn__emu_rules_warp = {warp_rows, QN_COUNT(warp_rows)};

/* ---- Atomics ----------------------------------------------------------------------------------------------------- */

/* CTAs run on several host threads: atomics on global memory exclude each other. */
static pthread_mutex_t atomics = PTHREAD_MUTEX_INITIALIZER;

static uint8_t *atomic_place(warp *w, const insn *i, int lane, u64 ad, u32 size, bool *global) {
  u64 window = i->space == S_SHARED ? WINDOW_SHARED : i->space == S_GLOBAL ? 0 : ad & WINDOW_MASK;
  *global = window == 0;
  if (ad & (size - 1)) {
    qn__emu_find(w, lane, QN_EMU_F_ALIGN, "address 0x%llx of an atomic of %u bytes", (unsigned long long)ad, size);
    return NULL;
  }
  if (*global) {
    uint8_t *p = qn__emu_global_use(w, lane, ad, size, false);
    return p ? qn__emu_global_at(w, lane, ad, size, true) : NULL;
  }
  u32 at;
  cta *c = window == WINDOW_SHARED ? qn__emu_shared_at(w, lane, (u32)ad, size, &at) : NULL;
  if (!c && window != WINDOW_SHARED) qn__emu_find(w, lane, QN_EMU_F_BOUNDS, "atomic on local or parameter memory");
  if (!c) return NULL;
  qn__emu_touch(w, lane, c, at, size, ATOMIC);
  return c->data + at;
}

static u64 row_value(const warp *w, u32 row, u32 width, u32 l) {
  return width == 8 ? ROW(u64, row)[l] : width == 4 ? ROW(u32, row)[l] : ROW(uint16_t, row)[l];
}

static void atomic(warp *w, const insn *i, u32 m) {
  u32 size = qn__emu_types[i->type].size, elements = i->count;
  u64 ads[LANES];
  row_addresses(w, i->a, i->imm, ads);
  if (checking(w, QN_EMU_COUNT) && i->space != S_SHARED) qn__emu_count_global(w, ads, m, size * elements, true);
  EACH_SET(l, m) {
    bool global;
    uint8_t *p = atomic_place(w, i, (int)l, ads[l], size * elements, &global);
    if (!p) continue;
    if (global) pthread_mutex_lock(&atomics);
    for (u32 v = 0; v < elements; v++) {
      u64 old = 0, r;
      memcpy(&old, p + v * size, size);
      r = operate(i->sub, (type)i->type, old, row_value(w, i->regs[v], i->width, l),
                  i->c ? row_value(w, i->c, i->width, l) : 0);
      memcpy(p + v * size, &r, size);
      if (!i->store && v < i->nregs / 2u && i->regs[elements + v]) {
        u32 d = i->regs[elements + v];
        if (i->width == 8) ROW(u64, d)[l] = old;
        else if (i->width == 4) ROW(u32, d)[l] = (u32)old;
        else ROW(uint16_t, d)[l] = (uint16_t)old;
      }
    }
    if (global) pthread_mutex_unlock(&atomics);
  }
}

static void decode_atomic(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  i->store = !strcmp(o->token[0], "red");
  int k = !i->store, vector = qn__emu_which(o, "v2|v4|v8");
  i->sub = (uint8_t)qn__emu_which(o, operations);
  int values = i->sub == CAS ? 2 : 1, hint = qn__emu_has(o, "L2::cache_hint");
  qn__emu_operands(p, o, n, k + 1 + values + hint, k + 1 + values + hint);
  i->count = (uint8_t)(vector < 0 ? 1 : 2 << vector);
  i->space = (uint8_t)(qn__emu_has(o, "global")                                      ? S_GLOBAL
                       : qn__emu_which(o, "shared|shared::cta|shared::cluster") >= 0 ? S_SHARED
                                                                                     : S_GENERIC);
  i->width = (uint8_t)type_width((type)i->type);
  qn__emu_address(p, &ops[k], &i->a, &i->imm);
  operand both[2] = {ops[k + 1], ops[0]};
  i->regs = qn__emu_list(p, both, 1 + k, i->width, &i->nregs);
  if (i->nregs != i->count * (1 + k)) qn__emu_refuse(p, "%s with %d values", o->token[0], i->nregs);
  if (i->sub == CAS) i->c = qn__emu_source(p, &ops[k + 2], i->width);
  if (k && ops[0].kind != O_SINK && ops[0].kind != O_VECTOR) qn__emu_dest(p, &ops[0], i->width);
}

#define ORDER ".relaxed|acquire|release|acq_rel?.cta|cluster|gpu|sys?.global|shared|shared::cta|shared::cluster?"
static const rule atomic_rows[] = {
    {"atom|red" ORDER ".add.noftz?.L2::cache_hint?.v2|v4|v8?.u32|s32|u64|f32|f64|f16|f16x2|bf16|bf16x2", "", atomic,
     decode_atomic, QN_EMU_K_ATOMIC, 0, 0},
    {"atom|red" ORDER ".min|max.noftz?.L2::cache_hint?.u32|s32|u64|s64|f16|f16x2|bf16|bf16x2", "", atomic,
     decode_atomic, QN_EMU_K_ATOMIC, 0, 0},
    {"atom|red" ORDER ".and|or|xor.L2::cache_hint?.b32|b64", "", atomic, decode_atomic, QN_EMU_K_ATOMIC, 0, 0},
    {"atom|red" ORDER ".inc|dec.L2::cache_hint?.u32", "", atomic, decode_atomic, QN_EMU_K_ATOMIC, 0, 0},
    {"atom" ORDER ".exch|cas.L2::cache_hint?.b16|b32|b64", "", atomic, decode_atomic, QN_EMU_K_ATOMIC, 0, 0},
};
const rules qn__emu_rules_atomic = {atomic_rows, QN_COUNT(atomic_rows)};

/* ---- Flow and fences --------------------------------------------------------------------------------------------- */

static void nothing(warp *w, const insn *i, u32 m) { (void)w, (void)i, (void)m; }
static void decode_ignored(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  (void)p, (void)o, (void)ops, (void)n;
  i->run = nothing;
}
static void grid_wait(warp *w, const insn *i, u32 m) {
  (void)i, (void)m;
  qn__emu_grid_wait(w);
}

/* PTX ISA, "setmaxnreg": what a warp gives back goes to the pool of its CTA; one that wants more waits until the pool
 * has it. store: give back. */
static void setmaxnreg(warp *w, const insn *i, u32 m) {
  u32 wanted = (u32)i->imm, *pool = &w->cta->pool;
  if (m != w->live)
    qn__emu_find(w, -1, QN_EMU_F_DIVERGE, "lanes 0x%08x of the warp's 0x%08x change their registers", m, w->live);
  if (!w->registers) {
    qn__emu_find(w, -1, QN_EMU_F_VALUE,
                 "the assembler ignores it: neither .maxnreg nor .maxntid with .minnctapersm "
                 "says how many registers a thread has at first");
    return;
  }
  if (i->store ? wanted > w->registers : wanted < w->registers)
    qn__emu_find(w, -1, QN_EMU_F_VALUE, "%u registers where a thread has %u", wanted, w->registers);
  else if (!i->store && (wanted - w->registers) * LANES > *pool) {
    w->waiting = m;
    return;
  }
  *pool += LANES * w->registers - LANES * wanted;
  w->registers = wanted;
  if (i->store) w->cta->cluster->events++;
}

static void decode_setmaxnreg(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  qn__emu_operands(p, o, n, 1, 1);
  if (ops[0].kind != O_IMM || ops[0].imm < 24 || ops[0].imm > 256 || ops[0].imm % 8)
    qn__emu_refuse(p, "setmaxnreg takes 24 to 256 in steps of 8");
  i->imm = ops[0].imm, i->store = qn__emu_has(o, "dec");
}
static void trap(warp *w, const insn *i, u32 m) {
  (void)i;
  qn__emu_find(w, __builtin_ctz(m), QN_EMU_F_TRAP, "the kernel stops itself");
  atomic_store(&w->worker->run->stop, true);
}
static void proxy_fence(warp *w, const insn *i, u32 m) {
  (void)i, (void)m;
  qn__emu_proxy_fence(w);
}

/* bar and barrier: a: id, b: threads, c: predicate of .red, d: its result; store: arrive; flags: 1 aligned. */
static void decode_bar(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  bool red = qn__emu_has(o, "red");
  i->store = qn__emu_has(o, "arrive");
  i->flags = !strcmp(o->token[0], "bar") || qn__emu_has(o, "aligned");
  i->sub = (uint8_t)(red ? qn__emu_which(o, "popc|and|or") + 1 : 0);
  qn__emu_operands(p, o, n, red ? 3 : i->store ? 2 : 1, red ? 4 : 2);
  if (red) i->d = i->sub == 1 ? qn__emu_dest(p, &ops[0], 4) : qn__emu_predicate(p, &ops[0], NULL);
  i->a = qn__emu_source(p, &ops[red], 4);
  if (n - red * 2 > 1) i->b = qn__emu_source(p, &ops[red + 1], 4);
  if (red) i->c = qn__emu_predicate(p, &ops[n - 1], NULL);
}
static void decode_cluster_barrier(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  (void)ops;
  qn__emu_operands(p, o, n, 0, 0);
  i->store = qn__emu_has(o, "arrive");
}

#define B QN_EMU_K_BARRIER
#define O QN_EMU_K_OTHER
static const rule flow_rows[] = {
    {"bar|barrier.cta?.sync|arrive|red.aligned?.popc|and|or?.u32|pred?", "", nothing, decode_bar, B, C_BARRIER, 0},
    {"barrier.cluster.arrive.release|relaxed?.aligned?", "", nothing, decode_cluster_barrier, B, C_CLUSTER, 0},
    {"barrier.cluster.wait.acquire?.aligned?", "", nothing, decode_cluster_barrier, B, C_CLUSTER, 0},
    {"membar.cta|gl|sys", "", nothing, NULL, B, 0, 0},
    {"fence.sc|acq_rel|acquire|release?.cta|cluster|gpu|sys", "", nothing, NULL, B, 0, 0},
    {"fence.proxy.async.global|shared::cta|shared::cluster?", "", proxy_fence, NULL, B, 0, 0},
    {"fence.mbarrier_init.release.cluster", "", proxy_fence, NULL, B, 0, 0},
    {"fence.proxy.alias", "", nothing, NULL, B, 0, 0},
    {"griddepcontrol.launch_dependents", "", nothing, NULL, O, 0, 0},
    {"griddepcontrol.wait", "", grid_wait, NULL, O, 0, 0},
    {"setmaxnreg.inc|dec.sync.aligned.u32", "", setmaxnreg, decode_setmaxnreg, O, C_POOL, 0},
    {"prefetch.global|local?.L1|L2|L2::evict_last|L2::evict_normal", "", nothing, decode_ignored, O, 0, 0},
    {"prefetchu.L1", "", nothing, decode_ignored, O, 0, 0},
    {"prefetch.const|param?.tensormap", "", nothing, decode_ignored, O, 0, 0},
    {"discard.global?.L2", "", nothing, decode_ignored, O, 0, 0},
    {"applypriority.global?.L2::evict_normal", "", nothing, decode_ignored, O, 0, 0},
    {"createpolicy.fractional.L2::evict_last|L2::evict_normal|L2::evict_first|L2::evict_unchanged."
     "L2::evict_first|L2::evict_unchanged?.b64",
     "", nothing, decode_ignored, O, 0, 0},
    {"nanosleep.u32", "", NULL, decode_ignored, O, C_YIELD, 0},
    {"pmevent.mask?", "", nothing, decode_ignored, O, 0, 0},
    {"trap", "", trap, NULL, O, 0, 0},
};
const rules qn__emu_rules_flow = {flow_rows, QN_COUNT(flow_rows)};
