/* test_emu_async.c - what goes on beside the program: cp.async, bulk copies, TMA, mbarriers, clusters, named barriers.
 *
 * TMA boxes of every swizzle, rank and out-of-bounds fill are compared with a walk over the box by the textbook; the
 * rest are small kernels that write one word per thread. All run late and at random, and no check may raise an
 * alarm. */
#include "emu_fixture.h"
#include "fail.h"
#include "suite.h"
#include <check.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* ---- TMA --------------------------------------------------------------------------------------------------------- */

enum { U8 = 0, U16 = 1, U32 = 2, F16 = 6, F32 = 7, F64 = 8 }; /* CUtensorMapDataType */
static const size_t sizes[] = {[U8] = 1, [U16] = 2, [U32] = 4, [F16] = 2, [F32] = 4, [F64] = 8};

static const struct box {
  int type, swizzle, fill;
  uint32_t rank, dims[5], box[5];
  int at[5];
} boxes[] = {
    {U8, 0, 0, 1, {100}, {64}, {0}},
    {U8, 0, 0, 1, {100}, {64}, {70}},
    {F32, 0, 0, 1, {100}, {32}, {-5}},
    {F16, 0, 0, 2, {64, 20}, {32, 8}, {32, 4}},
    {F16, 1, 0, 2, {64, 20}, {16, 16}, {16, 3}},
    {F16, 2, 0, 2, {64, 40}, {32, 32}, {0, 5}},
    {F16, 3, 0, 2, {128, 70}, {64, 64}, {64, 1}},
    {F16, 3, 0, 2, {100, 70}, {64, 64}, {64, 30}},
    {F16, 3, 1, 2, {100, 70}, {64, 64}, {64, 30}},
    {F32, 3, 1, 2, {40, 30}, {32, 16}, {-3, -4}},
    {U8, 3, 0, 2, {256, 30}, {128, 20}, {-16, 25}},
    {U8, 1, 0, 2, {64, 300}, {32, 256}, {0, 60}},
    {U16, 2, 0, 3, {64, 5, 6}, {32, 4, 3}, {0, 3, 4}},
    {F64, 3, 0, 3, {20, 5, 6}, {16, 2, 3}, {8, -1, 4}},
    {F32, 1, 1, 4, {16, 5, 4, 3}, {8, 3, 2, 2}, {8, 3, -1, 2}},
    {U32, 0, 0, 5, {8, 3, 4, 2, 3}, {4, 2, 3, 2, 2}, {4, -1, 2, 1, 2}},
    {F16, 3, 0, 5, {64, 3, 4, 2, 3}, {64, 2, 3, 1, 2}, {0, 2, 2, 1, 1}},
    {F16, 3, 0, 2, {64, 8}, {64, 8}, {200, 200}}, /* all of it outside */
};

static struct ptx_map map_of(const struct box *b, size_t *bytes) {
  struct ptx_map m = {.type = b->type, .swizzle = b->swizzle, .fill = b->fill, .rank = b->rank};
  uint64_t stride = (b->dims[0] * sizes[b->type] + 15) / 16 * 16;
  for (uint32_t r = 0; r < b->rank; r++) {
    m.dims[r] = b->dims[r], m.box[r] = b->box[r];
    if (r) m.strides[r - 1] = stride, stride *= b->dims[r];
  }
  *bytes = stride;
  return m;
}

static size_t box_bytes(const struct box *b) {
  size_t n = sizes[b->type];
  for (uint32_t r = 0; r < b->rank; r++) n *= b->box[r];
  return n;
}

/* Walk over the box: byte of shared memory and of global memory (or -1) of each element. */
typedef void visit(void *context, const struct box *b, size_t shared, long long global);
static void walk(const struct box *b, const struct ptx_map *m, visit *v, void *context) {
  size_t n = box_bytes(b) / sizes[b->type];
  for (size_t e = 0; e < n; e++) {
    size_t rest = e, shared = e * sizes[b->type];
    long long global = 0;
    for (uint32_t r = 0; r < b->rank; r++, rest /= r ? b->box[r - 1] : 1) {
      long long x = b->at[r] + (long long)(rest % b->box[r]);
      if (x < 0 || x >= (long long)b->dims[r]) global = -1;
      if (global >= 0) global += x * (long long)(r ? m->strides[r - 1] : sizes[b->type]);
    }
    /* lines of 128 bytes, units of 16: the unit is xored with the low bits of the line's number */
    size_t line = shared / 128, unit = shared / 16 % 8, mask = (1u << b->swizzle) - 1;
    v(context, b, line * 128 + (unit ^ (line & mask)) * 16 + shared % 16, global);
  }
}

static void say_coordinates(FILE *f, const struct box *b) {
  for (uint32_t r = 0; r < b->rank; r++) fprintf(f, "mov.s32 %%r%u, %d;\n", 10 + r, b->at[r]);
  fprintf(f, "mov.u32 %%r2, ring;\nsetp.eq.u32 %%p0, %%r0, 0;\n");
}
static void say_box(FILE *f, const struct box *b) {
  fprintf(f, "[%%rd2, {%%r10");
  for (uint32_t r = 1; r < b->rank; r++) fprintf(f, ", %%r%u", 10 + r);
  fprintf(f, "}]");
}
/* Move `bytes`, a multiple of 16, between shared memory and the address in %rd3, 16 bytes a lane. */
static void say_move(FILE *f, bool to_shared, const char *rd, size_t bytes, const char *label) {
  fprintf(f,
          "mul.lo.u32 %%r3, %%r0, 16;\n%s:\nsetp.ge.u32 %%p1, %%r3, %zu;\n@%%p1 bra %s_END;\ncvt.u64.u32 %%rd4, %%r3;\n"
          "add.s64 %%rd5, %s, %%rd4;\nadd.u32 %%r4, %%r2, %%r3;\n",
          label, bytes, label, rd);
  fprintf(f, to_shared ? "ld.global.v4.u32 {%%r20, %%r21, %%r22, %%r23}, [%%rd5];\n"
                         "st.shared.v4.u32 [%%r4], {%%r20, %%r21, %%r22, %%r23};\n"
                       : "ld.shared.v4.u32 {%%r20, %%r21, %%r22, %%r23}, [%%r4];\n"
                         "st.global.v4.u32 [%%rd5], {%%r20, %%r21, %%r22, %%r23};\n");
  fprintf(f, "add.u32 %%r3, %%r3, 512;\nbra %s;\n%s_END:\n", label, label);
}
/* One mbarrier behind the box, for one arrival; its address in %r5. */
static void say_mbarrier(FILE *f, size_t bytes) {
  fprintf(f,
          "add.u32 %%r5, %%r2, %zu;\n@%%p0 mbarrier.init.shared::cta.b64 [%%r5], 1;\n"
          "@%%p0 fence.mbarrier_init.release.cluster;\nbar.sync 0;\n",
          bytes);
}
#define WAIT "WAIT:\nmbarrier.try_wait.parity.shared::cta.b64 %%p2, [%%r5], 0;\n@!%%p2 bra WAIT;\n"

typedef struct expected {
  const uint8_t *from, *got;
  uint8_t *want;
  const char *what;
} expected;

static void check_loaded(void *context, const struct box *b, size_t shared, long long global) {
  const expected *x = context;
  uint8_t zero[8] = {0};
  size_t size = sizes[b->type];
  if (global < 0 && b->fill) { /* a NaN */
    double d = 0;
    float f = 0;
    uint16_t h;
    memcpy(&h, x->got + shared, 2);
    if (b->type == F32) memcpy(&f, x->got + shared, 4);
    bool nan = b->type == F16 ? (h & 0x7fff) > 0x7c00 : b->type == F32 ? isnan(f) : isnan(d);
    ck_assert_msg(nan, "%s: shared byte %zu is no NaN", x->what, shared);
    return;
  }
  ck_assert_msg(!memcmp(x->got + shared, global < 0 ? zero : x->from + global, size),
                "%s: shared byte %zu, global %lld", x->what, shared, global);
}

START_TEST(test_tma_loads_the_box) {
  const struct box *b = &boxes[_i];
  size_t n, bytes = box_bytes(b), room = (bytes + 1023) / 1024 * 1024;
  struct ptx_map m = map_of(b, &n);
  uint8_t *in = malloc(n), *out = malloc(bytes);
  ptx_seed((uint32_t)_i + 1);
  for (size_t i = 0; i < n; i++) in[i] = (uint8_t)(ptx_random() >> 24 & 0x3f);
  char what[64];
  snprintf(what, sizeof what, "load of box %d", _i);
  ptx_text t;
  ptx_begin(&t, "sm_90a", "");
  say_coordinates(t.f, b), say_mbarrier(t.f, room);
  fprintf(t.f,
          "@%%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%%r5], %zu;\n"
          "@%%p0 cp.async.bulk.tensor.%ud.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%%r2], ",
          bytes, b->rank);
  say_box(t.f, b), fprintf(t.f, ", [%%r5];\n" WAIT);
  say_move(t.f, false, "%rd1", bytes, "COPY");
  ptx_run(&t, &(ptx_case){.what = what,
                          .shared = (uint32_t)room + 16,
                          .in = in,
                          .in_bytes = n,
                          .out = out,
                          .out_bytes = bytes,
                          .map = m});
  walk(b, &m, check_loaded, &(expected){in, out, NULL, what});
  free(in), free(out);
}
END_TEST

static void expect_stored(void *context, const struct box *b, size_t shared, long long global) {
  expected *x = context;
  if (global >= 0) memcpy(x->want + global, x->from + shared, sizes[b->type]);
}

/* A store writes what lies inside the tensor and nothing else; a reduction adds. */
START_TEST(test_tma_stores_the_box) {
  const struct box *b = &boxes[_i / 2];
  bool add = _i % 2;
  if (add && b->type != F32 && b->type != U32) return;
  size_t n, bytes = box_bytes(b);
  struct ptx_map m = map_of(b, &n);
  uint8_t *in = calloc(1, bytes + n), *out = malloc(n), *want = malloc(n);
  ptx_seed((uint32_t)_i + 100);
  for (size_t i = 0; i < bytes; i++) in[i] = (uint8_t)(ptx_random() >> 24 & 0x3f);
  for (size_t i = 0; i < n; i++) want[i] = in[bytes + i] = add ? 0 : 0x11;
  m.of_out = 1;
  char what[64];
  snprintf(what, sizeof what, "%s of box %d", add ? "reduction" : "store", _i / 2);
  ptx_text t;
  ptx_begin(&t, "sm_90a", "");
  say_coordinates(t.f, b);
  fprintf(t.f, "add.s64 %%rd3, %%rd0, %zu;\n", bytes);
  say_move(t.f, true, "%rd3", n, "BEFORE"), say_move(t.f, false, "%rd1", n, "CLEAR");
  say_move(t.f, true, "%rd0", bytes, "BOX");
  fprintf(t.f, "fence.proxy.async.shared::cta;\nbar.sync 0;\n");
  for (int k = 0; k <= add; k++) {
    fprintf(t.f,
            add ? "@%%p0 cp.reduce.async.bulk.tensor.%ud.global.shared::cta.add.tile.bulk_group "
                : "@%%p0 cp.async.bulk.tensor.%ud.global.shared::cta.tile.bulk_group ",
            b->rank);
    say_box(t.f, b), fprintf(t.f, ", [%%r2];\n");
  }
  fprintf(t.f, "@%%p0 cp.async.bulk.commit_group;\n@%%p0 cp.async.bulk.wait_group 0;\n");
  ptx_run(&t, &(ptx_case){.what = what,
                          .shared = (uint32_t)(n > bytes ? n : bytes),
                          .in = in,
                          .in_bytes = bytes + n,
                          .out = out,
                          .out_bytes = n,
                          .map = m});
  walk(b, &m, expect_stored, &(expected){.from = in, .want = want});
  for (size_t i = 0; i < n; i += 4) { /* reductions ran twice */
    uint32_t x, y;
    float f, g;
    memcpy(&x, out + i, 4), memcpy(&y, want + i, 4), memcpy(&f, &x, 4), memcpy(&g, &y, 4);
    bool same = !add ? x == y : b->type == F32 ? f == 2 * g : x == 2 * y;
    ck_assert_msg(same, "%s: global byte %zu is 0x%08x for 0x%08x", what, i, x, y);
  }
  free(in), free(out), free(want);
}
END_TEST

/* ---- Small kernels: a word per thread ---------------------------------------------------------------------------- */

#define INIT(count)                                                                                                    \
  "mov.u32 %r2, ring; setp.eq.u32 %p0, %r0, 0; @%p0 mbarrier.init.shared::cta.b64 [%r2], " count ";\n"                 \
  "@%p0 fence.mbarrier_init.release.cluster; bar.sync 0;\n"
#define AWAIT(parity) "{ AGAIN: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r2], " parity "; @!%p2 bra AGAIN; }\n"
#define MINE "mad.lo.u32 %r3, %r0, 16, 1024; add.u32 %r3, %r3, %r2;\n" /* 16 bytes per thread behind the mbarrier */
#define CLUSTER_BARRIER "barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;\n"
#define SOURCE "mul.wide.u32 %rd4, %r0, 16; add.s64 %rd3, %rd0, %rd4;\n" /* 16 bytes per thread of in */

/* Word i of in is i. */
static uint32_t first(uint32_t cta, uint32_t t) { return (void)cta, 4 * t; }
static uint32_t second(uint32_t cta, uint32_t t) { return (void)cta, 4 * t + 1; }
static uint32_t odd_only(uint32_t cta, uint32_t t) { return (void)cta, t & 1 ? 4 * t + 3 : 0; }
static uint32_t even_only(uint32_t cta, uint32_t t) { return (void)cta, t & 1 ? 0 : 4 * t; }
static uint32_t next(uint32_t cta, uint32_t t) { return (void)cta, 4 * (t ^ 1); }
static uint32_t seven(uint32_t cta, uint32_t t) { return (void)cta, (void)t, 7; }
static uint32_t peer(uint32_t cta, uint32_t t) { return (cta ^ 1) * 100 + t; }
static uint32_t rank_of(uint32_t cta, uint32_t t) { return (void)t, cta % 2 + 10 * 2 + 100 * (cta / 2); }
static uint32_t linear(uint32_t cta, uint32_t t) { return (void)cta, t; }
static uint32_t odd_count(uint32_t cta, uint32_t t) { return (void)cta, (void)t, 64; }
static uint32_t produced(uint32_t cta, uint32_t t) { return (void)cta, t < 64 ? 0 : t - 64 + 5; }
static uint32_t reduced(uint32_t cta, uint32_t t) { return (void)cta, 2 * t + 1; }
static uint32_t from_zero(uint32_t cta, uint32_t t) { return (void)cta, 4 * t + 2; }
static uint32_t arrivals(uint32_t cta, uint32_t t) { return (void)t, cta % 2 ? 3 : 4; }

static const struct small {
  const char *name, *device;
  uint32_t grid, block, cluster;
  const char *body; /* leaves the word in %r31 */
  uint32_t (*want)(uint32_t cta, uint32_t thread);
} smalls[] = {
    {"cp.async of 16 bytes", "sm_80", 1, 64, 0,
     "mov.u32 %r2, ring;\n" MINE SOURCE "cp.async.cg.shared.global [%r3], [%rd3], 16; cp.async.commit_group;\n"
     "cp.async.wait_group 0; ld.shared.u32 %r31, [%r3];",
     first},
    {"cp.async of 4 and 8 bytes", "sm_80", 1, 32, 0,
     "mov.u32 %r2, ring;\n" MINE SOURCE "cp.async.ca.shared.global [%r3], [%rd3], 8;\n"
     "cp.async.ca.shared.global [%r3+8], [%rd3], 4; cp.async.wait_all; ld.shared.u32 %r31, [%r3+4];",
     second},
    {"cp.async with a source size of 0", "sm_80", 1, 32, 0,
     "mov.u32 %r2, ring;\n" MINE SOURCE "and.b32 %r4, %r0, 1; shl.b32 %r4, %r4, 4;\n"
     "cp.async.cg.shared.global [%r3], [%rd3], 16, %r4; cp.async.wait_all; ld.shared.u32 %r31, [%r3+12];",
     odd_only},
    {"cp.async that ignores its source", "sm_80", 1, 32, 0,
     "mov.u32 %r2, ring;\n" MINE SOURCE "and.b32 %r4, %r0, 1; setp.ne.u32 %p1, %r4, 0;\n"
     "cp.async.cg.shared.global [%r3], [%rd3], 16, %p1; cp.async.wait_all; ld.shared.u32 %r31, [%r3];",
     even_only},
    {"two groups, the older waited for", "sm_80", 1, 32, 0,
     "mov.u32 %r2, ring;\n" MINE SOURCE "cp.async.ca.shared.global [%r3], [%rd3], 4; cp.async.commit_group;\n"
     "cp.async.ca.shared.global [%r3+4], [%rd3+4], 4; cp.async.commit_group; cp.async.wait_group 1;\n"
     "ld.shared.u32 %r31, [%r3]; cp.async.wait_group 0;",
     first},
    {"copies of the neighbour behind a barrier", "sm_80", 1, 64, 0,
     "mov.u32 %r2, ring;\n" MINE SOURCE "cp.async.cg.shared.global [%r3], [%rd3], 16; cp.async.wait_all;\n"
     "bar.sync 0; xor.b32 %r4, %r0, 1; mad.lo.u32 %r3, %r4, 16, 1024; add.u32 %r3, %r3, %r2;\n"
     "ld.shared.u32 %r31, [%r3];",
     next},
    {"copies that arrive on an mbarrier", "sm_80", 1, 64, 0,
     INIT("64") MINE SOURCE
     "cp.async.cg.shared.global [%r3], [%rd3], 16; cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%r2];\n" AWAIT(
         "0") "xor.b32 %r4, %r0, 1; mad.lo.u32 %r3, %r4, 16, 1024; add.u32 %r3, %r3, %r2; ld.shared.u32 %r31, [%r3];",
     next},
    {"mbarrier by state", "sm_80", 1, 64, 0,
     INIT("64") "mbarrier.arrive.shared::cta.b64 %rd4, [%r2];\n"
                "A: mbarrier.test_wait.shared::cta.b64 %p1, [%r2], %rd4; @!%p1 bra A; mov.u32 %r31, %r0;",
     linear},
    {"mbarrier of two phases", "sm_90a", 1, 64, 0,
     INIT("64") "mbarrier.arrive.shared::cta.b64 _, [%r2];\n" AWAIT(
         "0") "mbarrier.arrive.release.cta.shared::cta.b64 _, [%r2];\n" AWAIT("1") "mov.u32 %r31, %r0;",
     linear},
    {"bulk copy in", "sm_90a", 1, 64, 0,
     INIT("1") MINE
     "@%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], 1024; add.u32 %r4, %r2, 1024; mov.u32 %r5, 1024;\n"
     "@%p0 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r4], [%rd0], %r5, [%r2];\n" AWAIT(
         "0") "ld.shared.u32 %r31, [%r3+4];",
     second},
    {"bulk reduction out", "sm_90a", 1, 64, 0,
     "mov.u32 %r2, ring; mad.lo.u32 %r3, %r0, 4, %r2; st.shared.u32 [%r3], %r0; mul.wide.u32 %rd4, %r0, 4;\n"
     "add.s64 %rd3, %rd1, %rd4; mov.u32 %r4, 1; st.global.u32 [%rd3], %r4; fence.proxy.async; bar.sync 0;\n"
     "setp.eq.u32 %p0, %r0, 0; mov.u32 %r5, 256;\n"
     "@%p0 cp.reduce.async.bulk.global.shared::cta.bulk_group.add.u32 [%rd1], [%r2], %r5;\n"
     "@%p0 cp.reduce.async.bulk.global.shared::cta.bulk_group.add.u32 [%rd1], [%r2], %r5;\n"
     "@%p0 cp.async.bulk.commit_group; @%p0 cp.async.bulk.wait_group 0; bar.sync 0; ld.global.u32 %r31, [%rd3];",
     reduced},
    {"bulk copy out", "sm_90a", 1, 64, 0,
     "mov.u32 %r2, ring; mad.lo.u32 %r3, %r0, 4, %r2; st.shared.u32 [%r3], %r0; mul.wide.u32 %rd4, %r0, 4;\n"
     "add.s64 %rd3, %rd1, %rd4; fence.proxy.async; bar.sync 0; setp.eq.u32 %p0, %r0, 0; mov.u32 %r5, 256;\n"
     "@%p0 cp.async.bulk.global.shared::cta.bulk_group [%rd1], [%r2], %r5; @%p0 cp.async.bulk.commit_group;\n"
     "@%p0 cp.async.bulk.wait_group.read 0; @%p0 cp.async.bulk.wait_group 0; bar.sync 0; ld.global.u32 %r31, [%rd3];",
     linear},
    {"load from the peer's shared memory", "sm_90a", 4, 32, 2,
     "mov.u32 %r2, ring; mad.lo.u32 %r3, %r0, 4, %r2; mad.lo.u32 %r4, %r1, 100, %r0; st.shared.u32 [%r3], "
     "%r4;\n" CLUSTER_BARRIER
     "mov.u32 %r5, %cluster_ctarank; xor.b32 %r5, %r5, 1; mapa.shared::cluster.u32 %r6, %r3, %r5;\n"
     "ld.shared::cluster.u32 %r31, [%r6];\n" CLUSTER_BARRIER,
     peer},
    {"store to the peer's shared memory", "sm_90a", 4, 64, 2,
     "mov.u32 %r2, ring; mad.lo.u32 %r3, %r0, 4, %r2; mad.lo.u32 %r4, %r1, 100, %r0; mov.u32 %r5, %cluster_ctarank;\n"
     "xor.b32 %r5, %r5, 1; mapa.shared::cluster.u32 %r6, %r3, %r5;\n" CLUSTER_BARRIER
     "st.shared::cluster.u32 [%r6], %r4;\n" CLUSTER_BARRIER "ld.shared.u32 %r31, [%r3];",
     peer},
    {"generic addresses of the peer", "sm_90a", 2, 32, 2,
     "mov.u64 %rd3, ring; cvta.shared.u64 %rd3, %rd3; mul.wide.u32 %rd4, %r0, 4; add.s64 %rd3, %rd3, %rd4;\n"
     "mad.lo.u32 %r4, %r1, 100, %r0; st.u32 [%rd3], %r4;\n" CLUSTER_BARRIER
     "mov.u32 %r5, %cluster_ctarank; xor.b32 %r5, %r5, 1; mapa.u64 %rd5, %rd3, %r5; ld.u32 %r31, "
     "[%rd5];\n" CLUSTER_BARRIER,
     peer},
    {"ranks and sizes of clusters", "sm_90a", 4, 32, 2,
     "mov.u32 %r2, %cluster_ctarank; mov.u32 %r3, %cluster_nctarank; mov.u32 %r4, %clusterid.x;\n"
     "mad.lo.u32 %r31, %r3, 10, %r2; mad.lo.u32 %r31, %r4, 100, %r31;",
     rank_of},
    {"arrivals on the first CTA's mbarrier", "sm_90a", 2, 32, 2,
     "mov.u32 %r2, ring; setp.eq.u32 %p0, %r0, 0; @%p0 mbarrier.init.shared::cta.b64 [%r2], 32;\n"
     "@%p0 fence.mbarrier_init.release.cluster; mov.u32 %r5, %cluster_ctarank; mov.u32 %r6, 0;\n"
     "mapa.shared::cluster.u32 %r7, %r2, %r6; setp.eq.u32 %p1, %r5, 1; mov.u32 %r31, 3;\n" CLUSTER_BARRIER
     "@%p1 mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r7]; @%p1 bra SECOND;\n"
     "A: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %p2, [%r2], 0; @!%p2 bra A; mov.u32 %r31, 4;\n"
     "SECOND:\n" CLUSTER_BARRIER,
     arrivals},
    {"multicast to both CTAs", "sm_90a", 2, 64, 2,
     INIT("1") MINE
     "@%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], 1024; add.u32 %r4, %r2, 1024; mov.u32 %r5, "
     "1024;\n" CLUSTER_BARRIER "mov.u32 %r6, %cluster_ctarank; setp.eq.and.u32 %p1, %r6, 0, %p0; mov.u16 %h0, 3;\n"
     "@%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%r4], [%rd0], %r5, "
     "[%r2], %h0;\n" AWAIT("0") "ld.shared.u32 %r31, [%r3+8];\n" CLUSTER_BARRIER,
     from_zero},
    {"bulk copy to the peer", "sm_90a", 2, 64, 2,
     INIT("1") "mad.lo.u32 %r3, %r0, 4, 1024; add.u32 %r3, %r3, %r2; mad.lo.u32 %r4, %r1, 100, %r0; st.shared.u32 "
               "[%r3], %r4;\n"
               "fence.proxy.async; bar.sync 0; @%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], "
               "256;\n" CLUSTER_BARRIER "mov.u32 %r5, %cluster_ctarank; xor.b32 %r5, %r5, 1; add.u32 %r6, %r2, 2048; "
               "mapa.shared::cluster.u32 %r6, %r6, %r5;\n"
               "mapa.shared::cluster.u32 %r7, %r2, %r5; add.u32 %r8, %r2, 1024; mov.u32 %r9, 256;\n"
               "@%p0 cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%r6], [%r8], %r9, "
               "[%r7];\n" AWAIT("0") "ld.shared.u32 %r31, [%r3+1024];\n" CLUSTER_BARRIER,
     peer},
    {"producers arrive, consumers wait", "sm_75", 1, 128, 0,
     "mov.u32 %r2, ring; mad.lo.u32 %r3, %r0, 4, %r2; setp.ge.u32 %p0, %r0, 64; mov.u32 %r31, 0; @%p0 bra CONSUMER;\n"
     "add.u32 %r4, %r0, 5; st.shared.u32 [%r3], %r4; bar.arrive 1, 128; bra END;\n"
     "CONSUMER: bar.sync 1, 128; ld.shared.u32 %r31, [%r3+-256];\nEND:\n",
     produced},
    {"barrier that counts", "sm_75", 1, 128, 0,
     "and.b32 %r2, %r0, 1; setp.ne.u32 %p0, %r2, 0; bar.red.popc.u32 %r31, 0, %p0;", odd_count},
    {"barrier that ands and ors", "sm_75", 1, 64, 0,
     "setp.lt.u32 %p0, %r0, 5; bar.red.or.pred %p1, 0, %p0; bar.red.and.pred %p2, 0, %p0; bar.red.and.pred %p3, 0, "
     "%p1;\n"
     "selp.u32 %r2, 1, 0, %p1; selp.u32 %r3, 0, 2, %p2; selp.u32 %r4, 4, 0, %p3; add.u32 %r31, %r2, %r3;\n"
     "add.u32 %r31, %r31, %r4;",
     seven},
};

START_TEST(test_small_kernel_has_its_words) {
  const struct small *s = &smalls[_i];
  uint32_t in[256], out[4 * 128], n = s->grid * s->block;
  for (uint32_t i = 0; i < 256; i++) in[i] = i;
  ptx_text t;
  ptx_begin(&t, s->device, "");
  fputs(s->body, t.f);
  fprintf(t.f,
          "\nmad.lo.u32 %%r30, %%r1, %u, %%r0;\nmul.wide.u32 %%rd30, %%r30, 4;\nadd.s64 %%rd30, %%rd1, %%rd30;\n"
          "st.global.u32 [%%rd30], %%r31;\n",
          s->block);
  ptx_run(&t, &(ptx_case){.what = s->name,
                          .grid = s->grid,
                          .block = s->block,
                          .cluster = s->cluster,
                          .shared = 4096,
                          .in = in,
                          .in_bytes = sizeof in,
                          .out = out,
                          .out_bytes = n * 4});
  for (uint32_t i = 0; i < n; i++)
    ck_assert_msg(out[i] == s->want(i / s->block, i % s->block), "%s: CTA %u thread %u has %u, not %u", s->name,
                  i / s->block, i % s->block, out[i], s->want(i / s->block, i % s->block));
}
END_TEST

/* ---- Atomics on shared memory ------------------------------------------------------------------------------------ */

#define SUM "mov.u32 %r2, ring; setp.eq.u32 %p0, %r0, 0; mov.u32 %r3, 0; @%p0 st.shared.u32 [%r2], %r3;\n"
#define ADD "mov.u32 %r4, 1; red.shared.add.u32 [%r2], %r4;\n"
static const struct {
  const char *name, *finding, *body;
} atomics[] = {
    {"atomics need no order among themselves", NULL, SUM "bar.sync 0;" ADD "bar.sync 0; ld.shared.u32 %r31, [%r2];"},
    {"atomics before the first value is there", "race", SUM ADD "bar.sync 0; ld.shared.u32 %r31, [%r2];"},
    {"a sum read before all have added", "race", SUM "bar.sync 0;" ADD "ld.shared.u32 %r31, [%r2];"},
    {"a write while others add", "race", SUM "bar.sync 0;" ADD "@%p0 st.shared.u32 [%r2], %r3; mov.u32 %r31, 0;"},
    {"a sum that starts from nothing", "uninit", "mov.u32 %r2, ring;" ADD "mov.u32 %r31, 0;"},
};

START_TEST(test_atomics_are_writes) {
  uint32_t in = 0, out[64];
  ptx_text t;
  ptx_begin(&t, "sm_80", "");
  fprintf(t.f, "%s\nmul.wide.u32 %%rd30, %%r0, 4; add.s64 %%rd30, %%rd1, %%rd30; st.global.u32 [%%rd30], %%r31;\n",
          atomics[_i].body);
  ptx_run(&t, &(ptx_case){.what = atomics[_i].name,
                          .finding = atomics[_i].finding,
                          .block = 64,
                          .shared = 4096,
                          .in = &in,
                          .in_bytes = sizeof in,
                          .out = out,
                          .out_bytes = sizeof out});
  for (uint32_t i = 0; i < 64 && !atomics[_i].finding; i++) ck_assert_uint_eq(out[i], 64);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(test_tma_loads_the_box, QN_COUNT(boxes)),
      CASE(test_tma_stores_the_box, 2 * QN_COUNT(boxes)),
      CASE(test_small_kernel_has_its_words, QN_COUNT(smalls)),
      CASE(test_atomics_are_writes, QN_COUNT(atomics)),
  };
  return RUN_CASES(argv[0], cases, .timeout = 120);
}
