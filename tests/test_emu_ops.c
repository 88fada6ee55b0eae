/* test_emu_ops.c - single instructions of the PTX interpreter against plain C.
 *
 * Each row is a line of PTX that computes %r0 (or %rd0) from %r1, %r2, %r3 (or %rd1...), and its expected values. The
 * inputs of a lane are those of its row; a wrong row prints itself. */
#include "emu_fixture.h"
#include "fail.h"
#include "suite.h"
#include <check.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- 32-bit rows ------------------------------------------------------------------------------------------------- */

static const struct {
  const char *ptx;
  uint32_t a, b, c, want;
} ops[] = {
    {"add.s32 %r0, %r1, %r2;", 0x7fffffff, 1, 0, 0x80000000},
    {"sub.sat.s32 %r0, %r1, %r2;", 0x80000000, 1, 0, 0x80000000},
    {"mul.hi.s32 %r0, %r1, %r2;", 0xffffffff, 0x80000000, 0, 0},
    {"mul.hi.u32 %r0, %r1, %r2;", 0xffffffff, 0xffffffff, 0, 0xfffffffe},
    {"mad.lo.s32 %r0, %r1, %r2, %r3;", 0x10000, 0x10001, 7, 0x10007},
    {"div.s32 %r0, %r1, %r2;", 0x80000000, 0xffffffff, 0, 0x80000000},
    {"div.s32 %r0, %r1, %r2;", (uint32_t)-7, 2, 0, (uint32_t)-3},
    {"rem.s32 %r0, %r1, %r2;", (uint32_t)-7, 2, 0, (uint32_t)-1},
    {"shl.b32 %r0, %r1, %r2;", 1, 32, 0, 0},
    {"shr.s32 %r0, %r1, %r2;", 0x80000000, 99, 0, 0xffffffff},
    {"shr.u32 %r0, %r1, %r2;", 0x80000000, 31, 0, 1},
    {"lop3.b32 %r0, %r1, %r2, %r3, 0xea;", 0xf0f0, 0xff00, 3, 0xf003},
    {"lop3.b32 %r0, %r1, %r2, %r3, 0x96;", 0xff, 0x0f, 0x33, 0xff ^ 0x0f ^ 0x33},
    {"lop3.b32 %r0, %r1, %r2, %r3, 0xca;", 0xff00ff00, 0x12345678, 0x9abcdef0, 0x12bc56f0},
    {"prmt.b32 %r0, %r1, %r2, %r3;", 0x33221100, 0x77665544, 0x5140, 0x55114400},
    {"prmt.b32 %r0, %r1, %r2, %r3;", 0x80000000, 0, 0xb, 0xff},
    {"bfe.u32 %r0, %r1, %r2, %r3;", 0x12345678, 8, 12, 0x456},
    {"bfe.s32 %r0, %r1, %r2, %r3;", 0x00000f00, 8, 4, 0xffffffff},
    {"bfe.s32 %r0, %r1, %r2, %r3;", 0x80000000, 40, 4, 0xffffffff},
    {"bfe.u32 %r0, %r1, %r2, %r3;", 0xffffffff, 0, 0, 0},
    {"bfi.b32 %r0, %r1, %r2, %r3, 8;", 0xab, 0xffffffff, 8, 0xffffabff},
    {"shf.l.wrap.b32 %r0, %r1, %r2, %r3;", 0x80000000, 1, 1, 3},
    {"shf.r.wrap.b32 %r0, %r1, %r2, %r3;", 0, 1, 33, 0x80000000},
    {"shf.r.clamp.b32 %r0, %r1, %r2, %r3;", 5, 9, 40, 9},
    {"dp4a.s32.s32 %r0, %r1, %r2, %r3;", 0xff02017f, 0x01ff0302, 100, 100 - 1 - 2 + 3 + 254},
    {"dp4a.u32.s32 %r0, %r1, %r2, %r3;", 0x000000ff, 0x000000ff, 0, (uint32_t)-255},
    {"popc.b32 %r0, %r1;", 0xf00f, 0, 0, 8},
    {"clz.b32 %r0, %r1;", 0, 0, 0, 32},
    {"bfind.s32 %r0, %r1;", 0xffffffff, 0, 0, 0xffffffff},
    {"bfind.u32 %r0, %r1;", 0x00010000, 0, 0, 16},
    {"brev.b32 %r0, %r1;", 0x00000013, 0, 0, 0xc8000000},
    {"sad.s32 %r0, %r1, %r2, %r3;", (uint32_t)-5, 5, 1, 11},
    {"{.reg .u32 x; add.cc.u32 x, %r1, %r2; addc.u32 %r0, %r3, 0;}", 0xffffffff, 1, 7, 8},
    {"{.reg .pred p, q; setp.lt.and.u32 p|q, %r1, %r2, 1; selp.b32 %r0, 1, 2, q;}", 5, 3, 0, 1},
    {"{.reg .b16 x, y; mov.b32 {x, y}, %r1; mov.b32 %r0, {y, x};}", 0x12345678, 0, 0, 0x56781234},
    /* floats: bits */
    {"add.f32 %r0, %r1, %r2;", 0x3f800000, 0x33800000, 0, 0x3f800000},
    {"fma.rn.f32 %r0, %r1, %r2, %r3;", 0x3f800001, 0x3f800001, 0xbf800002, 0x28800000},
    {"add.ftz.f32 %r0, %r1, %r2;", 0x00000001, 0x80000000, 0, 0},
    {"add.sat.f32 %r0, %r1, %r2;", 0x40000000, 0, 0, 0x3f800000},
    {"min.f32 %r0, %r1, %r2;", 0x7fc00000, 0x3f800000, 0, 0x3f800000},
    {"max.NaN.f32 %r0, %r1, %r2;", 0x7fc00000, 0x3f800000, 0, 0xffffffff & 0x7fffffff},
    {"min.f32 %r0, %r1, %r2;", 0x00000000, 0x80000000, 0, 0x80000000},
    {"copysign.f32 %r0, %r1, %r2;", 0x80000000, 0x3f800000, 0, 0xbf800000},
    /* halves: a product whose rounding in two steps would differ */
    {"mul.rn.f16x2 %r0, %r1, %r2;", 0x3c013c01, 0x3c013c01, 0, 0x3c023c02},
    {"fma.rn.f16x2 %r0, %r1, %r2, %r3;", 0x3c003c00, 0x64006400, 0x2c002c00, 0x64006400},
    {"fma.rn.relu.f16x2 %r0, %r1, %r2, %r3;", 0xbc003c00, 0x3c003c00, 0, 0x00003c00},
    {"fma.rn.bf16x2 %r0, %r1, %r2, %r3;", 0x3f803f80, 0x3f803f80, 0x3b803b80, 0x3f803f80},
    {"add.f32 %r0, %r1, -1.5;", 0x40000000, 0, 0, 0x3f000000}, /* decimal reals are doubles, then of the type wanted */
    {"{.reg .f64 d; mov.f64 d, 25e-2; cvt.rn.f32.f64 %r0, d;}", 0, 0, 0, 0x3e800000},
    {"createpolicy.fractional.L2::evict_first.b64 %rd3, 1.0; mov.u32 %r0, 7;", 0, 0, 0, 7},
    {"sub.rn.f16x2 %r0, %r1, %r2;", 0x640f6401, 0x64086408, 0, 0x4700c700},
    /* conversions */
    {"{.reg .b16 h; cvt.rn.f16.f32 h, %r1; cvt.u32.u16 %r0, h;}", 0x477ff000, 0, 0, 0x7c00},
    {"{.reg .b16 h; cvt.rn.f16.f32 h, %r1; cvt.u32.u16 %r0, h;}", 0x33000001, 0, 0, 0x0001},
    {"{.reg .b16 h; cvt.rz.f16.f32 h, %r1; cvt.u32.u16 %r0, h;}", 0x3f801fff, 0, 0, 0x3c00},
    {"{.reg .b16 h; cvt.rn.bf16.f32 h, %r1; cvt.u32.u16 %r0, h;}", 0x3f808000, 0, 0, 0x3f80},
    {"cvt.rn.f16x2.f32 %r0, %r1, %r2;", 0x3f800000, 0x40000000, 0, 0x3c004000},
    {"cvt.rn.satfinite.f16x2.f32 %r0, %r1, %r2;", 0x477ff000, 0xff800000, 0, 0x7bfffbff},
    {"cvt.rn.satfinite.bf16x2.f32 %r0, %r1, %r2;", 0x7f7fffff, 0x7fc00000, 0, 0x7f7f7fff},
    {"cvt.rzi.s32.f32 %r0, %r1;", 0xcf800000, 0, 0, 0x80000000},
    {"cvt.rni.s32.f32 %r0, %r1;", 0x40200000, 0, 0, 2},
    {"cvt.rzi.u32.f32 %r0, %r1;", 0xbf800000, 0, 0, 0},
    {"cvt.rn.f32.s32 %r0, %r1;", 0x7fffffff, 0, 0, 0x4f000000},
    {"cvt.s32.s8 %r0, %r1;", 0x12345680, 0, 0, 0xffffff80},
    {"cvt.sat.s8.s32 %r0, %r1;", 300, 0, 0, 127},
    {"{.reg .b16 h; cvt.rn.satfinite.e4m3x2.f32 h, %r1, %r2; cvt.u32.u16 %r0, h;}", 0x43e00000, 0x447a0000, 0, 0x7e7e},
    {"{.reg .b16 h; cvt.rn.satfinite.e5m2x2.f32 h, %r1, %r2; cvt.u32.u16 %r0, h;}", 0x3f800000, 0xbf900000, 0, 0x3cbc},
    {"{.reg .b16 h; cvt.u16.u32 h, %r1; cvt.rn.f16x2.e4m3x2 %r0, h;}", 0x3801, 0, 0, 0x3c001800},
    {"cvt.rna.tf32.f32 %r0, %r1;", 0x3f801000, 0, 0, 0x3f802000},
};

static void run_row(const char *body, uint32_t a, uint32_t b, uint32_t c, uint32_t out[32]) {
  char ptx[2048];
  snprintf(
      ptx, sizeof ptx,
      ".version 9.0\n.target sm_90a\n.address_size 64\n.visible .entry k(.param .u64 p, .param .u32 a, .param .u32 b,\n"
      ".param .u32 c)\n{.reg .b32 %%r<8>; .reg .b64 %%rd<4>; .reg .pred %%p<4>;\nld.param.u64 %%rd1, [p];\n"
      "ld.param.u32 %%r1, [a];\nld.param.u32 %%r2, [b];\nld.param.u32 %%r3, [c];\nmov.u32 %%r4, %%tid.x;\n%s\n"
      "mul.wide.u32 %%rd2, %%r4, 4;\nadd.s64 %%rd1, %%rd1, %%rd2;\nst.global.u32 [%%rd1], %%r0;\nret;\n}\n",
      body);
  qn_emu *e;
  qn_emu_module *m;
  const qn_emu_kernel *f;
  qn_emu_report *r;
  uint64_t p;
  char line[1024];
  ck_assert(!qn__emu_open(90, 'a', &e) && !qn__emu_alloc(e, 128, &p));
  ck_assert_msg(!qn__emu_module_load(e, ptx, &m), "%s: %s", body, qn__errmsg());
  ck_assert(!qn__emu_kernel_find(m, "k", &f));
  qn_emu_launch how = {
      .grid = {1, 1, 1}, .block = {32, 1, 1}, .params = (const void *[]){&p, &a, &b, &c}, .nparams = 4, .threads = 1};
  ck_assert_msg(!qn__emu_run(f, &how, &r), "%s", qn__errmsg());
  ck_assert_msg(!r->findings, "%s: %s", body, r->count ? qn__emu_finding_print(r->list, line, sizeof line) : "");
  ck_assert(!qn__emu_read(e, out, p, 128));
  qn__emu_report_free(r);
  qn__emu_close(e);
}

START_TEST(test_instruction_has_its_value) {
  uint32_t out[32];
  run_row(ops[_i].ptx, ops[_i].a, ops[_i].b, ops[_i].c, out);
  for (int l = 0; l < 32; l++)
    ck_assert_msg(out[l] == ops[_i].want, "row %d: %s of %08x %08x %08x is %08x, not %08x", _i, ops[_i].ptx, ops[_i].a,
                  ops[_i].b, ops[_i].c, out[l], ops[_i].want);
}
END_TEST

/* ---- Warp rows: the value of each lane --------------------------------------------------------------------------- */

static uint32_t up(uint32_t l) { return l < 3 ? l : l - 3; }
static uint32_t down_in_eights(uint32_t l) { return (l & 7) == 7 ? l : l + 1; }
static uint32_t butterfly(uint32_t l) { return l ^ 5; }
static uint32_t from_nine(uint32_t l) { return (void)l, 9; }
static uint32_t odd_ballot(uint32_t l) { return (void)l, 0xaaaaaaaa; }
static uint32_t thirds(uint32_t l) {
  uint32_t m = 0;
  for (uint32_t k = 0; k < 32; k++) m |= (uint32_t)(k % 3 == l % 3) << k;
  return m;
}
static uint32_t sum(uint32_t l) { return (void)l, 496; }
static uint32_t minus_nine(uint32_t l) { return (void)l, (uint32_t)-9; }
static uint32_t all_ones(uint32_t l) { return (void)l, 0xffffffff; }
static uint32_t sixty_four(uint32_t l) { return (void)l, 64; }
static uint32_t thirty_one(uint32_t l) { return (void)l, 31; }
static uint32_t thirty_two(uint32_t l) { return (void)l, 32; }
static uint32_t zero(uint32_t l) { return (void)l, 0; }
static uint32_t one(uint32_t l) { return (void)l, 1; }
static uint32_t in_range(uint32_t l) { return l >= 3; }
static uint32_t second_of_eights(uint32_t l) { return (l & 24) + 2; }
static uint32_t lanes_below(uint32_t l) { return (1u << l) - 1; }
static uint32_t sum_of_half(uint32_t l) { return l < 16 ? 120 : 376; }
static uint32_t lower_half(uint32_t l) { return l < 16 ? 0xffff : 0; }
static uint32_t identity(uint32_t l) { return l; }
static uint32_t leader(uint32_t l) { return l == 0; }
static uint32_t diverged(uint32_t l) { return l < 7 ? l * 2 + 1 : l + 101; }
static const struct {
  const char *ptx;
  uint32_t (*want)(uint32_t lane);
} warps[] = {
    {"shfl.sync.up.b32 %r0, %r4, 3, 0, -1;", up},
    {"shfl.sync.down.b32 %r0, %r4, 1, 0x1807, -1;", down_in_eights},
    {"shfl.sync.bfly.b32 %r0, %r4, 5, 31, -1;", butterfly},
    {"shfl.sync.idx.b32 %r0, %r4, 9, 31, -1;", from_nine},
    {"and.b32 %r5, %r4, 1; setp.ne.u32 %p1, %r5, 0; vote.sync.ballot.b32 %r0, %p1, -1;", odd_ballot},
    {"rem.u32 %r5, %r4, 3; match.any.sync.b32 %r0, %r5, -1;", thirds},
    {"redux.sync.add.u32 %r0, %r4, -1;", sum},
    {"sub.s32 %r5, %r4, 9; redux.sync.min.s32 %r0, %r5, -1;", minus_nine},
    {"sub.s32 %r5, %r4, 9; redux.sync.max.u32 %r0, %r5, -1;", all_ones},
    {"or.b32 %r5, %r4, 64; redux.sync.and.b32 %r0, %r5, -1;", sixty_four},
    {"redux.sync.or.b32 %r0, %r4, -1;", thirty_one},
    {"redux.sync.xor.b32 %r0, %r4, -1;", zero},
    {"setp.eq.u32 %p1, %r4, 9; vote.sync.any.pred %p2, %p1, -1; selp.u32 %r0, 1, 0, %p2;", one},
    {"setp.ne.u32 %p1, %r4, 9; vote.sync.all.pred %p2, %p1, -1; selp.u32 %r0, 1, 0, %p2;", zero},
    {"setp.lt.u32 %p1, %r4, 99; vote.sync.uni.pred %p2, %p1, -1; selp.u32 %r0, 1, 0, %p2;", one},
    {"mov.u32 %r5, 4; match.all.sync.b32 %r0|%p1, %r5, -1;", all_ones},
    {"match.all.sync.b32 %r0|%p1, %r4, -1;", zero},
    {"shfl.sync.up.b32 %r5|%p1, %r4, 3, 0, -1; selp.u32 %r0, 1, 0, %p1;", in_range},
    {"shfl.sync.idx.b32 %r0, %r4, 2, 0x181f, -1;", second_of_eights},
    {"mov.u32 %r0, %lanemask_lt;", lanes_below},
    /* half of the warp at a time, each with its member mask */
    {"mov.u32 %r0, 0; setp.lt.u32 %p1, %r4, 16; @%p1 bra A; redux.sync.add.u32 %r0, %r4, 0xffff0000; bra B;\n"
     "A: redux.sync.add.u32 %r0, %r4, 0xffff; B: bar.warp.sync -1;",
     sum_of_half},
    {"mov.u32 %r0, 0; setp.lt.u32 %p1, %r4, 16; @%p1 activemask.b32 %r0;", lower_half},
    /* memory of every space; atomics */
    {"{.local .align 4 .b8 l[128]; mov.u64 %rd2, l; mul.wide.u32 %rd3, %r4, 4; add.s64 %rd2, %rd2, %rd3;\n"
     "st.local.u32 [%rd2], %r4; ld.local.u32 %r0, [%rd2];}",
     identity},
    {"{.shared .align 4 .u32 s; setp.eq.u32 %p1, %r4, 0; @%p1 st.shared.u32 [s], 0; bar.sync 0;\n"
     "atom.shared.add.u32 %r5, [s], %r4; bar.sync 0; ld.shared.u32 %r0, [s];}",
     sum},
    {"{.shared .align 4 .u32 s; setp.eq.u32 %p1, %r4, 0; @%p1 st.shared.u32 [s], 0; bar.sync 0;\n"
     "red.shared.max.u32 [s], %r4; bar.sync 0; ld.shared.u32 %r0, [s];}",
     thirty_one},
    {"{.shared .align 4 .u32 s; setp.eq.u32 %p1, %r4, 0; @%p1 st.shared.u32 [s], 5; bar.sync 0;\n"
     "atom.shared.cas.b32 %r5, [s], 5, 31; bar.sync 0; ld.shared.u32 %r0, [s];}",
     thirty_one},
    {"{.shared .align 4 .u32 s; setp.eq.u32 %p1, %r4, 0; @%p1 st.shared.u32 [s], 0; bar.sync 0;\n"
     "red.shared.add.f32 [s], 0f3F800000; bar.sync 0; ld.shared.f32 %r5, [s]; cvt.rzi.u32.f32 %r0, %r5;}",
     thirty_two},
    {"setp.eq.u32 %p1, %r4, 0; @%p1 st.global.u32 [%rd1], 0; bar.sync 0; red.global.add.u32 [%rd1], 1; bar.sync 0;\n"
     "ld.global.u32 %r0, [%rd1]; bar.sync 0;",
     thirty_two},
    {"setp.eq.u32 %p1, %r4, 0; @%p1 st.global.u32 [%rd1], 0; bar.sync 0; atom.global.or.b32 %r5, [%rd1], %r4;\n"
     "bar.sync 0; ld.global.u32 %r0, [%rd1]; bar.sync 0;",
     thirty_one},
    {"{elect.sync _|%p1, -1; selp.b32 %r0, 1, 0, %p1;}", leader},
    {"setp.lt.u32 %p1, %r4, 7;\n@%p1 bra A;\nadd.u32 %r0, %r4, 100;\nbra B;\nA:\nmul.lo.u32 %r0, %r4, 2;\nB:\nadd.u32 "
     "%r0, %r0, 1;",
     diverged},
};

START_TEST(test_warp_instruction_has_its_values) {
  uint32_t out[32];
  run_row(warps[_i].ptx, 0, 0, 0, out);
  for (uint32_t l = 0; l < 32; l++)
    ck_assert_msg(out[l] == warps[_i].want(l), "row %d: %s: lane %u has %08x, not %08x", _i, warps[_i].ptx, l, out[l],
                  warps[_i].want(l));
}
END_TEST

/* ---- Exact rounding ---------------------------------------------------------------------------------------------- */

static double half_value(uint32_t h) {
  int e = h >> 10 & 31, f = h & 1023;
  double v = e == 31 ? (f ? NAN : INFINITY) : e ? ldexp(1024 + f, e - 25) : ldexp(f, -24);
  return h & 0x8000 ? -v : v;
}
/* a * b + c rounded to nearest even in fp16, by searching the neighbours in long double. */
static uint32_t exact_fma(uint32_t a, uint32_t b, uint32_t c) {
  long double v = (long double)half_value(a) * half_value(b) + half_value(c), x = fabsl(v);
  if (v == 0) return 0;
  if (x >= 65520) return (v < 0) << 15 | 0x7c00;
  uint32_t low = 0, high = 0x7bff;
  while (low < high) { /* the largest half not above x */
    uint32_t mid = (low + high + 1) / 2;
    if (half_value(mid) <= x) low = mid;
    else high = mid - 1;
  }
  long double down = x - half_value(low), gap = (low == 0x7bff ? 65536.0L : half_value(low + 1)) - x;
  return (v < 0) << 15 | (down < gap || (down == gap && !(low & 1)) ? low : low + 1);
}

START_TEST(test_half_fma_rounds_once) {
  uint32_t x = 12345, out[32];
  for (int k = 0; k < 60; k++) {
    uint32_t v[3];
    for (int j = 0; j < 3; j++) {
      x = x * 1664525u + 1013904223u;
      uint32_t h = x >> 16;
      v[j] = (h & 0x7c00) == 0x7c00 ? h & 0xbfff : h;
    }
    run_row("fma.rn.f16x2 %r0, %r1, %r2, %r3;", v[0], v[1], v[2], out);
    uint32_t want = exact_fma(v[0], v[1], v[2]);
    ck_assert_msg((out[0] & 0xffff) == want || (!want && !(out[0] & 0x7fff)), "fma of %04x %04x %04x is %04x, not %04x",
                  v[0], v[1], v[2], out[0] & 0xffff, want);
  }
}
END_TEST

/* ---- Random operands against plain C; 8-bit floats by search ----------------------------------------------------- */

static uint32_t byte_product(uint32_t a, uint32_t b, uint32_t c, bool sa, bool sb) {
  for (int k = 0; k < 4; k++) {
    int32_t x = (int32_t)(a >> 8 * k & 255), y = (int32_t)(b >> 8 * k & 255);
    c += (uint32_t)((sa && x > 127 ? x - 256 : x) * (sb && y > 127 ? y - 256 : y));
  }
  return c;
}
static uint32_t dp4a_ss(uint32_t a, uint32_t b, uint32_t c) { return byte_product(a, b, c, 1, 1); }
static uint32_t dp4a_su(uint32_t a, uint32_t b, uint32_t c) { return byte_product(a, b, c, 1, 0); }
static uint32_t dp4a_us(uint32_t a, uint32_t b, uint32_t c) { return byte_product(a, b, c, 0, 1); }
static uint32_t dp4a_uu(uint32_t a, uint32_t b, uint32_t c) { return byte_product(a, b, c, 0, 0); }
static uint32_t dp2a_lo(uint32_t a, uint32_t b, uint32_t c) {
  return c + (uint32_t)((int16_t)a * (int8_t)b) + (uint32_t)((int16_t)(a >> 16) * (int8_t)(b >> 8));
}
static uint32_t dp2a_hi(uint32_t a, uint32_t b, uint32_t c) { return dp2a_lo(a, b >> 16, c); }
static uint32_t permuted(uint32_t a, uint32_t b, uint32_t c) {
  uint8_t bytes[8], r[4];
  uint32_t out;
  memcpy(bytes, &a, 4), memcpy(bytes + 4, &b, 4);
  for (int k = 0; k < 4; k++) {
    uint32_t n = c >> 4 * k & 15;
    r[k] = n < 8 ? bytes[n] : (int8_t)bytes[n - 8] < 0 ? 255 : 0;
  }
  memcpy(&out, r, 4);
  return out;
}
static uint32_t funnel_left(uint32_t a, uint32_t b, uint32_t c) {
  for (c &= 31; c; c--) b = b << 1 | a >> 31, a <<= 1;
  return b;
}
static uint32_t high_product(uint32_t a, uint32_t b, uint32_t c) { return (void)c, (uint32_t)((uint64_t)a * b >> 32); }

/* Nearest code of a small float, ties to even, saturating. `largest` is the code of the largest finite number. */
static uint32_t nearest(double v, int exponent, int mantissa, uint32_t largest) {
  uint32_t best = 0, sign = (uint32_t)(signbit(v) != 0) << (exponent + mantissa);
  v = fabs(v);
  for (uint32_t code = 0; code <= largest; code++) {
    double off = fabs(float_of_code(code, exponent, mantissa) - v),
           least = fabs(float_of_code(best, exponent, mantissa) - v);
    if (off < least || (off == least && !(code & 1))) best = code;
  }
  return sign | best;
}
static double real_of(uint32_t bits) {
  float f;
  memcpy(&f, &bits, 4);
  return f;
}
/* Draws floats of the range of an 8-bit format, ties among them. */
static uint32_t small_float(uint32_t x) {
  return (x & 0x80700000) | (118 + (x >> 8 & 15)) << 23 | (x & 1 ? x & 0xfffff : 0);
}
static uint32_t to_e4m3(uint32_t a, uint32_t b, uint32_t c) {
  return (void)c, nearest(real_of(small_float(a)), 4, 3, 0x7e) << 8 | nearest(real_of(small_float(b)), 4, 3, 0x7e);
}
static uint32_t to_e5m2(uint32_t a, uint32_t b, uint32_t c) {
  return (void)c, nearest(real_of(small_float(a)), 5, 2, 0x7b) << 8 | nearest(real_of(small_float(b)), 5, 2, 0x7b);
}
static uint32_t to_e2m1(uint32_t a, uint32_t b, uint32_t c) {
  return (void)c, nearest(real_of(small_float(a)), 2, 1, 7) << 4 | nearest(real_of(small_float(b)), 2, 1, 7);
}
static uint32_t half_of_code(uint32_t code, int exponent, int mantissa, uint32_t nan) {
  uint32_t most = (1u << (exponent + mantissa)) - 1;
  if ((code & most) >= nan) return 0x7fff;
  if (exponent == 5 && (code & most) == 0x7c) return code & 0x80 ? 0xfc00 : 0x7c00;
  double v = fabs(float_of_code(code, exponent, mantissa)); /* a half has it exactly */
  uint32_t low = 0, high = 0x7bff;
  while (low < high) {
    uint32_t middle = (low + high + 1) / 2;
    if (half_value(middle) <= v) low = middle;
    else high = middle - 1;
  }
  return (code >> (exponent + mantissa) & 1) << 15 | low;
}
static uint32_t from_e4m3(uint32_t a, uint32_t b, uint32_t c) {
  return (void)b, (void)c, half_of_code(a >> 8 & 255, 4, 3, 0x7f) << 16 | half_of_code(a & 255, 4, 3, 0x7f);
}
static uint32_t from_e5m2(uint32_t a, uint32_t b, uint32_t c) {
  return (void)b, (void)c, half_of_code(a >> 8 & 255, 5, 2, 0x7d) << 16 | half_of_code(a & 255, 5, 2, 0x7d);
}

/* Make of %r1 and %r2 what small_float makes. */
#define SMALL(r)                                                                                                       \
  "{.reg .b32 s, e, m; .reg .pred q; and.b32 s, " r ", 0x80700000; shr.u32 e, " r ", 8; and.b32 e, e, 15;\n"           \
  "add.u32 e, e, 118; shl.b32 e, e, 23; and.b32 m, " r ", 1; setp.ne.u32 q, m, 0; and.b32 m, " r ", 0xfffff;\n"        \
  "selp.b32 m, m, 0, q; or.b32 s, s, e; or.b32 " r ", s, m;}\n"
static const struct {
  const char *device, *ptx;
  uint32_t (*want)(uint32_t a, uint32_t b, uint32_t c);
} randoms[] = {
    {"sm_75", "dp4a.s32.s32 %r31, %r10, %r11, %r12;", dp4a_ss},
    {"sm_75", "dp4a.s32.u32 %r31, %r10, %r11, %r12;", dp4a_su},
    {"sm_75", "dp4a.u32.s32 %r31, %r10, %r11, %r12;", dp4a_us},
    {"sm_75", "dp4a.u32.u32 %r31, %r10, %r11, %r12;", dp4a_uu},
    {"sm_75", "dp2a.lo.s32.s32 %r31, %r10, %r11, %r12;", dp2a_lo},
    {"sm_75", "dp2a.hi.s32.s32 %r31, %r10, %r11, %r12;", dp2a_hi},
    {"sm_75", "prmt.b32 %r31, %r10, %r11, %r12;", permuted},
    {"sm_75", "shf.l.wrap.b32 %r31, %r10, %r11, %r12;", funnel_left},
    {"sm_75", "mul.hi.u32 %r31, %r10, %r11;", high_product},
    {"sm_89", SMALL("%r10") SMALL("%r11") "cvt.rn.satfinite.e4m3x2.f32 %h0, %r10, %r11; cvt.u32.u16 %r31, %h0;",
     to_e4m3},
    {"sm_89", SMALL("%r10") SMALL("%r11") "cvt.rn.satfinite.e5m2x2.f32 %h0, %r10, %r11; cvt.u32.u16 %r31, %h0;",
     to_e5m2},
    {"sm_100a",
     SMALL("%r10") SMALL("%r11") "{.reg .b8 x; cvt.rn.satfinite.e2m1x2.f32 x, %r10, %r11; cvt.u32.u8 %r31, x;}",
     to_e2m1},
    {"sm_89", "cvt.u16.u32 %h0, %r10; cvt.rn.f16x2.e4m3x2 %r31, %h0;", from_e4m3},
    {"sm_89", "cvt.u16.u32 %h0, %r10; cvt.rn.f16x2.e5m2x2 %r31, %h0;", from_e5m2},
};

/* Three words per thread in, one out; the first words run over all pairs of a byte and its complement. */
START_TEST(test_random_operands_as_in_c) {
  enum { N = 1024 };
  static uint32_t in[N][4], out[N];
  ptx_seed((uint32_t)_i + 1);
  for (uint32_t i = 0; i < N; i++)
    for (int k = 0; k < 4; k++) in[i][k] = ptx_random();
  for (uint32_t i = 0; i < 256; i++) in[i][0] = i | (255 - i) << 8;
  ptx_text t;
  ptx_begin(&t, randoms[_i].device, "");
  fprintf(t.f,
          "mul.wide.u32 %%rd3, %%r0, 16;\nadd.s64 %%rd3, %%rd0, %%rd3;\n"
          "ld.global.v4.u32 {%%r10, %%r11, %%r12, %%r13}, [%%rd3];\n%s\n"
          "mul.wide.u32 %%rd3, %%r0, 4;\nadd.s64 %%rd3, %%rd1, %%rd3;\nst.global.u32 [%%rd3], %%r31;\n",
          randoms[_i].ptx);
  ptx_run(
      &t,
      &(ptx_case){
          .what = randoms[_i].ptx, .block = N, .in = in, .in_bytes = sizeof in, .out = out, .out_bytes = sizeof out});
  for (int i = 0; i < N; i++) {
    uint32_t want = randoms[_i].want(in[i][0], in[i][1], in[i][2]);
    ck_assert_msg(out[i] == want, "row %d: %s of %08x %08x %08x is %08x, not %08x", _i, randoms[_i].ptx, in[i][0],
                  in[i][1], in[i][2], out[i], want);
  }
}
END_TEST

START_TEST(test_lop3_is_its_table) {
  uint32_t out[256], a = 0xf0f0ff00, b = 0xcc3355aa, c = 0xaa0f1234;
  ptx_text t;
  ptx_begin(&t, "sm_75", "");
  fprintf(t.f, "mov.b32 %%r2, %u;\nmov.b32 %%r3, %u;\nmov.b32 %%r4, %u;\nsetp.ne.u32 %%p0, %%r0, 0;\n", a, b, c);
  for (int k = 0; k < 256; k++)
    fprintf(t.f, "lop3.b32 %%r5, %%r2, %%r3, %%r4, %d;\n@!%%p0 st.global.u32 [%%rd1+%d], %%r5;\n", k, 4 * k);
  ptx_run(&t, &(ptx_case){.what = "lop3", .out = out, .out_bytes = sizeof out});
  for (uint32_t k = 0; k < 256; k++)
    for (int bit = 0; bit < 32; bit++) {
      uint32_t row = (a >> bit & 1) * 4 + (b >> bit & 1) * 2 + (c >> bit & 1);
      ck_assert_msg((out[k] >> bit & 1) == (k >> row & 1), "lop3 table 0x%02x bit %d", k, bit);
    }
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(test_instruction_has_its_value, QN_COUNT(ops)),
      CASE(test_warp_instruction_has_its_values, QN_COUNT(warps)),
      CASE(test_half_fma_rounds_once, 1),
      CASE(test_random_operands_as_in_c, QN_COUNT(randoms)),
      CASE(test_lop3_is_its_table, 1),
  };
  return RUN_CASES(argv[0], cases, .timeout = 120);
}
