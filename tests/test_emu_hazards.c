/* test_emu_hazards.c - what a GPU may get away with: registers that wgmma has in flight, registers handed over, grids
 * that begin early; scales from where there are none. Each check has kernels that are right, and seeded bugs that it
 * finds, late and at random.
 *
 * Run one row again: QN_CASE=NAME build/tests/test_emu_hazards. */
#include "emu_fixture.h"
#include "fail.h"
#include "suite.h"
#include <check.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* wgmma m64n8k8 of tf32: D in %s0 .. %s3, A in %a0 .. %a3, B in shared memory, which is zero; %p1 is true. */
#define REGISTERS ".reg .f32 %s<4>;\n.reg .b32 %a<8>;\n"
#define PREPARE                                                                                                        \
  "mov.u32 %r2, ring; mad.lo.u32 %r3, %r0, 16, %r2; mov.u32 %r4, 0; st.shared.v4.u32 [%r3], {%r4, %r4, %r4, %r4};\n"   \
  "fence.proxy.async.shared::cta; bar.sync 0; shr.u32 %r5, %r2, 4; cvt.u64.u32 %rd3, %r5;\n"                           \
  "add.s64 %rd3, %rd3, 68720001024; setp.eq.u32 %p1, 0, 0;\n"                                                          \
  "mov.b32 %a0, 1; mov.b32 %a1, 1; mov.b32 %a2, 1; mov.b32 %a3, 1; mov.b32 %a4, 1; mov.b32 %a5, 1; mov.b32 %a6, 1;\n"  \
  "mov.b32 %a7, 1; mov.f32 %s0, 1.0; mov.f32 %s1, 1.0; mov.f32 %s2, 1.0; mov.f32 %s3, 1.0;\n"
#define OP "wgmma.mma_async.sync.aligned.m64n8k8.f32.tf32.tf32 {%s0, %s1, %s2, %s3}, "
#define SHARED_A OP "%rd3, %rd3, %p1, 1, 1;\n"
#define FIRST_A OP "{%a0, %a1, %a2, %a3}, %rd3, %p1, 1, 1;\n"
#define SECOND_A OP "{%a4, %a5, %a6, %a7}, %rd3, %p1, 1, 1;\n"
#define FENCE "wgmma.fence.sync.aligned;\n"
#define COMMIT "wgmma.commit_group.sync.aligned;\n"
#define WAIT(n) "wgmma.wait_group.sync.aligned " #n ";\n"

/* mma with scales of two blocks of k, from the bytes and threads that are said. */
#define SCALED(of_a, of_b)                                                                                             \
  "mma.sync.aligned.m16n8k64.row.col.kind::mxf4.block_scale.scale_vec::2X.f32.e2m1.e2m1.f32.ue8m0 "                    \
  "{%s0, %s1, %s2, %s3}, {%a0, %a1, %a2, %a3}, {%a4, %a5}, {%s0, %s1, %s2, %s3}, %r4, " of_a ", %r4, " of_b ";\n"

/* A word of `in`, or of `out`, for each thread. */
#define READ "mul.wide.u32 %rd4, %r0, 4; add.s64 %rd5, %rd0, %rd4; ld.global.u32 %r6, [%rd5];\n"
#define WRITE "mul.wide.u32 %rd4, %r0, 4; add.s64 %rd6, %rd1, %rd4; st.global.u32 [%rd6], %r6;\n"
#define GRID "griddepcontrol.wait;\n"

/* The first four warps give registers back, the others take more. 256 threads begin with 168 each. */
#define HANDED_OVER(less, more)                                                                                        \
  "setp.ge.u32 %p0, %r0, 128; @%p0 bra MORE; setmaxnreg.dec.sync.aligned.u32 " less "; bra END;\n"                     \
  "MORE: setmaxnreg.inc.sync.aligned.u32 " more "; END:\n"

static const struct hazard {
  const char *name, *finding, *says, *body;
} hazards[] = {
    /* wgmma and its registers */
    {"one group after the other", NULL, NULL, PREPARE FENCE SHARED_A COMMIT WAIT(0) FENCE SHARED_A COMMIT WAIT(0)},
    {"sums of one shape follow each other", NULL, NULL, PREPARE FENCE SHARED_A SHARED_A COMMIT SHARED_A COMMIT WAIT(0)},
    {"A is made anew while the other A is in flight", NULL, NULL,
     PREPARE FENCE FIRST_A COMMIT "mov.b32 %a4, 2;\n" FENCE SECOND_A COMMIT WAIT(1) "mov.b32 %a0, 3;\n" WAIT(0)},
    {"sums are read before the wait", "wgmma", "register %s2, which is in D of the wgmma of line",
     PREPARE FENCE SHARED_A COMMIT "add.f32 %s2, %s2, %s2;\n" WAIT(0)},
    {"a store of sums before the wait", "wgmma", "st.global.f32",
     PREPARE FENCE SHARED_A COMMIT "st.global.f32 [%rd1], %s1;\n" WAIT(0)},
    {"A is overwritten before the wait", "wgmma", "register %a3, which is in A",
     PREPARE FENCE FIRST_A COMMIT "mov.b32 %a3, 2;\n" WAIT(0)},
    {"a wait that leaves the group of A out", "wgmma", "register %a5, which is in A",
     PREPARE FENCE FIRST_A COMMIT SECOND_A COMMIT WAIT(1) "mov.b32 %a5, 2;\n" WAIT(0)},
    {"no fence at all", "wgmma", "no wgmma.fence stands between it and the last use of register %s0 of D",
     PREPARE SHARED_A COMMIT WAIT(0)},
    {"no fence behind a new A", "wgmma", "last use of register %a1 of A",
     PREPARE FENCE FIRST_A COMMIT WAIT(0) "mov.b32 %a1, 2;\n" FIRST_A COMMIT WAIT(0)},
    {"no fence behind a use of the sums", "wgmma", "last use of register %s3 of D",
     PREPARE FENCE SHARED_A COMMIT WAIT(0) "st.global.f32 [%rd1], %s3;\n" SHARED_A COMMIT WAIT(0)},
    {"sums of another shape", "wgmma", "the last wgmma of another shape with register %s0",
     PREPARE FENCE SHARED_A "wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%s0, %s1, %s2, %s3}, %rd3, %rd3, %p1, "
                            "1, 1, 0, 0;\n" COMMIT WAIT(0)},
    /* scales of mma */
    {"scales that begin amid the others", "value", "scales from byte 1 of thread 0: bytes in steps of 2",
     PREPARE SCALED("{1, 0}", "{0, 0}")},
    {"scales of a thread that has none", "value", "of thread 2: bytes in steps of 2 below 4, threads below 2",
     PREPARE SCALED("{0, 2}", "{0, 0}")},
    /* setmaxnreg */
    {"registers handed over", NULL, NULL, HANDED_OVER("40", "232")},
    {"more registers than the others gave", "deadlock", "168 registers and wait forever: 2304 more are wanted",
     HANDED_OVER("104", "240")},
    {"registers that nobody gives", "deadlock", "2048 more are wanted, the pool of the CTA has 0",
     "setmaxnreg.inc.sync.aligned.u32 232;"},
    {"gives back more than it has", "value", "240 registers where a thread has 168",
     "setmaxnreg.dec.sync.aligned.u32 240;"},
    {"half a warp", "diverge", "setmaxnreg",
     "and.b32 %r2, %r0, 16; setp.eq.u32 %p0, %r2, 0; @%p0 setmaxnreg.dec.sync.aligned.u32 40;"},
    /* grids in a row; `in` is what no kernel writes */
    {"constants before the wait, the rest behind it", NULL, NULL, READ GRID WRITE},
    {"one thread waits for all", NULL, NULL,
     "setp.eq.u32 %p0, %r0, 0; @!%p0 bra ON;\n" GRID "ON: bar.sync 0;\n" READ WRITE},
    {"a write before the wait", "grid", "which the grid in front may still use", READ WRITE},
    {"a read of what a kernel writes", "grid", "read of 4 bytes at 0x", "ld.global.u32 %r7, [%rd1];\n"},
    {"a bulk copy before the wait", "grid", "cp.async.bulk.global",
     PREPARE "setp.eq.u32 %p0, %r0, 0; mov.u32 %r7, 16;\n"
             "@%p0 cp.async.bulk.global.shared::cta.bulk_group [%rd1], [%r2], %r7;\n"
             "@%p0 cp.async.bulk.commit_group; @%p0 cp.async.bulk.wait_group 0;\n"},
    {"an atomic before the wait", "grid", "red.global", "mov.u32 %r6, 1; red.global.add.u32 [%rd1], %r6;\n"},
    {"a wait of another warp with no barrier", "grid", "write of 4 bytes",
     "setp.lt.u32 %p0, %r0, 32; @!%p0 bra ON;\n" GRID "ON:\n" READ WRITE},
};

/* Every kernel ends by writing `out`, as it may. */
START_TEST(test_hazard_is_found) {
  const struct hazard *h = &hazards[_i];
  uint32_t in[256] = {0}, out[256];
  const char *only = getenv("QN_CASE");
  if (only && strcmp(only, h->name)) return;
  ptx_text t;
  ptx_begin(&t, "sm_90a", REGISTERS);
  fprintf(t.f, "%s" GRID "mov.u32 %%r6, 1;\n", h->body);
  fputs(WRITE, t.f);
  ptx_run(&t, &(ptx_case){.what = h->name,
                          .finding = h->finding,
                          .says = h->says,
                          .block = 256,
                          .shared = 4096,
                          .programmatic = 1,
                          .in = in,
                          .in_bytes = sizeof in,
                          .out = out,
                          .out_bytes = sizeof out});
}
END_TEST

/* What the assembler does not know it does not hand over. */
START_TEST(test_setmaxnreg_needs_a_number_to_begin_with) {
  static const char *const bounds[] = {"", ".maxntid 256\n", ".maxntid 256\n.minnctapersm 1\n", ".maxnreg 168\n"};
  char text[512];
  uint32_t out = 0;
  snprintf(text, sizeof text,
           ".version 9.0\n.target sm_90a\n.address_size 64\n"
           ".visible .entry k(.param .u64 in, .param .u64 out, .param .align 64 .b8 map[128])\n%s{\n"
           ".reg .b64 %%rd0;\nsetmaxnreg.dec.sync.aligned.u32 40;\nld.param.u64 %%rd0, [out];\n"
           "st.global.u32 [%%rd0], 1;\nret;\n}\n",
           bounds[_i]);
  ptx_run_text("sm_90a", text,
               &(ptx_case){.what = bounds[_i],
                           .finding = _i < 2 ? "value" : NULL,
                           .says = "the assembler ignores it",
                           .out = &out,
                           .out_bytes = sizeof out});
}
END_TEST

/* ---- Counters ---------------------------------------------------------------------------------------------------- */

/* Kernels of 64 threads whose loads and copies can be counted by hand; `in` has 4096 bytes. */
static const struct {
  const char *name, *body;
  uint64_t flight, asked, distinct;
} counted[] = {
    /* two warps, of each a word for all lanes */
    {"a word for every lane", "ld.global.u32 %r6, [%rd0]; add.u32 %r6, %r6, 1;\n", 128, 256, 8},
    {"each lane a word of its own", READ "add.u32 %r6, %r6, 1;\n", 128, 256, 256},
    {"three loads before the first is used",
     "mul.wide.u32 %rd4, %r0, 16; add.s64 %rd5, %rd0, %rd4; ld.global.v2.u32 {%r6, %r7}, [%rd5];\n"
     "ld.global.u32 %r8, [%rd5+8]; ld.global.u32 %r9, [%rd5+12]; bar.sync 0; add.u32 %r6, %r7, 1;\n",
     64 * 16, 64 * 16, 64 * 16},
    {"a load that is used before the next",
     "mul.wide.u32 %rd4, %r0, 16; add.s64 %rd5, %rd0, %rd4; ld.global.u32 %r6, [%rd5]; add.u32 %r6, %r6, 1;\n"
     "ld.global.u32 %r7, [%rd5+4]; add.u32 %r6, %r6, %r7; bar.sync 0;\n",
     128, 512, 512},
    {"two groups of copies in flight",
     "mov.u32 %r2, ring; mad.lo.u32 %r3, %r0, 16, %r2; mul.wide.u32 %rd4, %r0, 16; add.s64 %rd5, %rd0, %rd4;\n"
     "cp.async.cg.shared.global [%r3], [%rd5], 16; cp.async.commit_group;\n"
     "cp.async.cg.shared.global [%r3+1024], [%rd5+1024], 16; cp.async.commit_group; bar.sync 0;\n"
     "cp.async.wait_group 1; cp.async.cg.shared.global [%r3+2048], [%rd5+2048], 16; cp.async.wait_all;\n",
     2 * 64 * 16, 3 * 64 * 16, 3 * 64 * 16},
    {"a bulk copy",
     "mov.u32 %r2, ring; setp.eq.u32 %p0, %r0, 0; add.u32 %r4, %r2, 1024; mov.u32 %r5, 2048;\n"
     "@%p0 mbarrier.init.shared::cta.b64 [%r2], 1; @%p0 fence.mbarrier_init.release.cluster; bar.sync 0;\n"
     "@%p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], 2048;\n"
     "@%p0 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r4], [%rd0], %r5, [%r2];\n"
     "AGAIN: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r2], 0; @!%p2 bra AGAIN;\n",
     2048, 2048, 2048},
};

static int counting; /* the row that is looked at */
static void look_at_counters(const qn_emu_report *r) {
  const char *what = counted[counting].name;
  const qn_emu_counters *c = &r->counters;
  ck_assert_msg(c->flight_bytes == counted[counting].flight, "%s: %llu bytes in flight", what,
                (unsigned long long)c->flight_bytes);
  ck_assert_msg(r->ntraffic == 1 && r->traffic[0].asked == counted[counting].asked &&
                    r->traffic[0].distinct == counted[counting].distinct,
                "%s: %llu bytes asked for, %llu distinct", what, (unsigned long long)r->traffic[0].asked,
                (unsigned long long)r->traffic[0].distinct);
}

START_TEST(test_bytes_are_counted) {
  uint32_t in[1024] = {0}, out[64];
  ptx_text t;
  counting = _i;
  ptx_begin(&t, "sm_90a", "");
  fprintf(t.f, "%sgriddepcontrol.wait;\nmov.u32 %%r6, 1;\n", counted[_i].body);
  fputs(WRITE, t.f);
  ptx_run(&t, &(ptx_case){.what = counted[_i].name,
                          .look = look_at_counters,
                          .block = 64,
                          .shared = 4096,
                          .in = in,
                          .in_bytes = sizeof in,
                          .out = out,
                          .out_bytes = sizeof out});
}
END_TEST

/* A product of m64n8k8 by 256 threads, two warpgroups, A in shared memory: 64 lines and 8 columns of 32 bytes each. */
static void look_at_wgmma(const qn_emu_report *r) { ck_assert_uint_eq(r->counters.wgmma_bytes, 2 * (64 + 8) * 32); }

START_TEST(test_operands_of_wgmma_are_counted) {
  uint32_t out[256];
  ptx_text t;
  ptx_begin(&t, "sm_90a", REGISTERS);
  fputs(PREPARE FENCE SHARED_A COMMIT WAIT(0) "mov.u32 %r6, 1;\n" WRITE, t.f);
  ptx_run(
      &t,
      &(ptx_case){
          .what = "wgmma", .look = look_at_wgmma, .block = 256, .shared = 4096, .out = out, .out_bytes = sizeof out});
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(test_hazard_is_found, QN_COUNT(hazards)), CASE(test_setmaxnreg_needs_a_number_to_begin_with, 4),
      CASE(test_bytes_are_counted, QN_COUNT(counted)), CASE(test_operands_of_wgmma_are_counted, 1)};
  return RUN_CASES(argv[0], cases, .timeout = 120);
}
