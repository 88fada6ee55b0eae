/* test_emu.c - the PTX interpreter on the sample kernels: right results, no false alarm; every seeded bug found.
 *
 * A seeded bug is an edit of golden PTX. Run one again: CK_RUN_CASE=seeded_bug_is_found, or QN_CASE=NAME for a single
 * row. */
#include "emu_samples.h"
#include "fail.h"
#include "suite.h"
#include <check.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 32 };

/* ---- Samples ----------------------------------------------------------------------------------------------------- */

static const struct {
  const char *file, *device;
  sample s;
} samples[] = {
    {"gemv.sm_80.ptx", "sm_80", {SAMPLE_GEMV, 1, 37, 512}},
    {"gemv.sm_90a.ptx", "sm_90a", {SAMPLE_GEMV, 1, 37, 264}},
    {"gemv.sm_120a.ptx", "sm_120a", {SAMPLE_GEMV, 1, 5, 8}},
    {"mma.sm_80.ptx", "sm_80", {SAMPLE_MMA, 37, 128, 160}},
    {"mma.sm_90a.ptx", "sm_90a", {SAMPLE_MMA, 1, 64, 32}},
    {"mma.sm_120a.ptx", "sm_120a", {SAMPLE_MMA, 70, 128, 128}},
    {"wgmma.sm_90a.ptx", "sm_90a", {SAMPLE_WGMMA, 70, 40, 448}},
    {"wgmma.sm_90a.ptx", "sm_90a", {SAMPLE_WGMMA, 3, 32, 64}},
};
enum { RUNS = 4 }; /* late, and three random seeds */

START_TEST(test_samples_are_clean_and_right) {
  int row = _i / RUNS, seed = _i % RUNS;
  char *ptx = sample_text(samples[row].file), line[1024];
  ck_assert_ptr_nonnull(ptx);
  qn_emu_launch how = {.mode = seed ? QN_EMU_RANDOM : QN_EMU_LATE, .seed = (uint64_t)seed};
  qn_emu_report *r;
  double error;
  qn_status s = sample_run(ptx, samples[row].s, samples[row].device, &how, &error, &r);
  ck_assert_msg(!s, "%s: %s", samples[row].file, qn__errmsg());
  ck_assert_msg(!r->findings, "%s seed %d: %s", samples[row].file, seed,
                r->count ? qn__emu_finding_print(r->list, line, sizeof line) : "");
  ck_assert_msg(error < 2e-3, "%s seed %d: error %g", samples[row].file, seed, error);
  ck_assert(r->complete && r->counters.warp_insns > 0);
  ck_assert_msg(r->counters.shared_passes == r->counters.shared_ideal || samples[row].s.kind == SAMPLE_WGMMA,
                "%s has bank conflicts", samples[row].file);
  qn__emu_report_free(r);
  free(ptx);
}
END_TEST

/* ---- Seeded bugs ------------------------------------------------------------------------------------------------- */

#define F(kind) (1u << QN_EMU_F_##kind)
#define RESULT (1u << 31) /* the result is wrong */
#define PASSES (1u << 30) /* shared memory is walked more often than need be: bank conflicts */

static const struct {
  const char *name, *file;
  struct edit {
    const char *find, *replace;
  } edits[2];
  uint32_t expect; /* the check that finds it */
} bugs[] = {
    /* cp.async and mma */
    {"lax cp.async wait", "mma", {{"cp.async.wait_group 1", "cp.async.wait_group 2"}}, F(WAIT)},
    {"barrier removed", "mma", {{"bar.sync", "//"}}, F(RACE)},
    {"commit removed", "mma", {{"cp.async.commit_group;", ""}}, F(WAIT)},
    {"row predicate of the copy removed",
     "mma",
     {{"selp.b32 \t%r11, 16, 0, %p1", "mov.b32 %r11, 16"}, {"selp.b32 \t%r54, %r49, 0, %p1", "mov.b32 %r54, %r49"}},
     F(BOUNDS)},
    {"row predicate of the store removed",
     "mma",
     {{"setp.lt.s32 \t%p7, %r18, %r40", "setp.eq.s32 %p7, %r18, %r18"}},
     F(BOUNDS)},
    {"swizzle on one side only", "mma", {{"xor.b32  \t%r50, %r8, %r1", "mov.b32 %r50, %r1"}}, RESULT},
    {"no swizzle on both sides",
     "mma",
     {{"xor.b32  \t%r50, %r8, %r1", "mov.b32 %r50, %r1"}, {"and.b32  \t%r81, %r80, 3", "mov.b32 %r81, 0"}},
     PASSES},
    {"wrong fragment row", "mma", {{"shr.u32 \t%r204, %r203, 2", "shr.u32 %r204, %r203, 3"}}, RESULT},
    {"wrong fragment column", "mma", {{"and.b32  \t%r209, %r208, 6", "and.b32 %r209, %r208, 2"}}, RESULT},
    {"misaligned copy", "mma", {{"add.s32 \t%r60, %r10, 2048", "add.s32 %r60, %r10, 2052"}}, F(ALIGN)},
    {"copy past the ring", "mma", {{"add.s32 \t%r66, %r10, 6144", "add.s32 %r66, %r10, 61440"}}, F(BOUNDS)},
    {"copy forgotten", "mma", {{"cp.async.cg.shared.global [%r62], [%rd27], 16, %r63;", ""}}, F(UNINIT)},
    {"source size over the copy", "mma", {{"selp.b32 \t%r11, 16, 0, %p1", "selp.b32 %r11, 24, 0, %p1"}}, F(VALUE)},
    {"divergent barrier", "mma", {{"bar.sync", "@%p1 bar.sync"}}, F(DIVERGE)},
    {"divergent ldmatrix", "mma", {{"ldmatrix.sync", "@%p1 ldmatrix.sync"}}, F(DIVERGE)},
    {"barrier of too many threads", "mma", {{"bar.sync \t0", "bar.sync 0, 160"}}, F(BARRIER)},
    {"store to read-only rows", "mma", {{"add.s64 \t%rd12, %rd1, %rd56", "add.s64 %rd12, %rd56, 4096"}}, F(BOUNDS)},
    {"loop without end", "mma", {{"setp.eq.s32 \t%p6, %r223, 0", "setp.eq.s32 %p6, 1, 0"}}, F(BUDGET)},
    /* gemv */
    {"row guard removed", "gemv", {{"@%p1 bra", "@!%p1 bra"}}, F(BOUNDS)},
    {"lane leaves before a shuffle", "gemv", {{"@%p2 bra \t$L__BB0_8", "@%p2 bra $L__BB0_10"}}, F(MASK)},
    {"member mask of half a warp", "gemv", {{"mov.u32 \t%r221, -1", "mov.u32 %r221, 65535"}}, F(MASK)},
    {"misaligned load", "gemv", {{"mul.wide.s32 \t%rd22, %r26, 4", "mul.wide.s32 %rd22, %r26, 3"}}, F(ALIGN)},
    {"reduction without its last step", "gemv", {{"mov.u32 \t%r233, 1", "mov.u32 %r233, 2"}}, RESULT},
    /* mbarrier, TMA, wgmma */
    {"wgmma wait left out", "wgmma", {{"wgmma.wait_group.sync.aligned 0", "wgmma.wait_group.sync.aligned 1"}}, F(WAIT)},
    {"expect_tx too small", "wgmma", {{"mov.u32 \t%r114, 12288", "mov.u32 %r114, 12272"}}, F(DEADLOCK)},
    {"expect_tx too large", "wgmma", {{"mov.u32 \t%r114, 12288", "mov.u32 %r114, 12304"}}, F(DEADLOCK)},
    {"arrival without expect_tx",
     "wgmma",
     {{"mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r120], %r114;", "mbarrier.arrive.shared::cta.b64 _, [%r120];"}},
     F(WAIT)},
    {"consumer does not arrive", "wgmma", {{"mbarrier.arrive.shared::cta.b64 _, [%r36];", ""}}, F(DEADLOCK)},
    {"producer does not wait", "wgmma", {{"@!p bra AGAIN;", ""}}, F(RACE)},
    {"consumer does not wait",
     "wgmma",
     {{"mbarrier.try_wait.parity.shared::cta.b64 p, [%r34], %r35;", "setp.eq.u32 p, 0, 0;"}},
     F(UNINIT)},
    {"phase never flips", "wgmma", {{"and.b32  \t%r35, %r37, 1", "and.b32 %r35, %r37, 0"}}, F(WAIT)},
    {"wrong initial phase", "wgmma", {{"not.b32 \t%r124, %r123", "mov.b32 %r124, %r123"}}, F(DEADLOCK)},
    {"proxy fence removed", "wgmma", {{"fence.proxy.async.shared::cta;", ""}}, F(PROXY)},
    {"fence of mbarrier init removed", "wgmma", {{"fence.mbarrier_init.release.cluster;", ""}}, F(PROXY)},
    {"barrier behind mbarrier init removed", "wgmma", {{"bar.sync \t0;", ""}}, F(RACE)},
    {"wgmma fence removed", "wgmma", {{"wgmma.fence.sync.aligned;", ""}}, F(WGMMA)},
    {"wgmma never committed", "wgmma", {{"wgmma.commit_group.sync.aligned;", ""}}, F(EXIT)},
    {"bulk store not waited for", "wgmma", {{"cp.async.bulk.wait_group 0;", ""}}, F(EXIT)},
    {"bulk store not committed", "wgmma", {{"cp.async.bulk.commit_group;", ""}}, F(EXIT)},
    {"barrier before the bulk store removed", "wgmma", {{"bar.sync 1, 128;", ""}}, F(RACE)},
    {"descriptor of another swizzle", "wgmma", {{"4611686293305360384", "9223372311732748288"}}, RESULT},
    {"descriptor past the tile", "wgmma", {{"add.s32 \t%r49, %r43, 32", "add.s32 %r49, %r43, 16384"}}, F(WAIT)},
    {"copy to the middle of a swizzle row",
     "wgmma",
     {{"add.s32 \t%r119, %r115, 8192", "add.s32 %r119, %r115, 8208"}},
     F(ALIGN)},
    {"copy at a wrong coordinate", "wgmma", {{"{%r137, %r9}", "{%r137, %r10}"}}, RESULT},
    {"mbarrier of a wrong count", "wgmma", {{"[%r24], 128", "[%r24], 129"}}, F(DEADLOCK)},
    {"mbarrier of too few arrivals", "wgmma", {{"[%r24], 128", "[%r24], 32"}}, F(DEADLOCK)},
    {"mbarrier not initialised", "wgmma", {{"mbarrier.init.shared::cta.b64 [%r25], 1;", ""}}, F(MBARRIER)},
    {"mbarrier initialised twice",
     "wgmma",
     {{"mbarrier.init.shared::cta.b64 [%r25], 1;", "mbarrier.init.shared::cta.b64 [%r23], 1;"}},
     F(MBARRIER)},
};

static const struct hunted {
  const char *name, *file, *device;
  sample s;
} hunted[] = {
    {"mma", "mma.sm_120a.ptx", "sm_120a", {SAMPLE_MMA, 37, 128, 160}},
    {"gemv", "gemv.sm_80.ptx", "sm_80", {SAMPLE_GEMV, 1, 37, 104}},
    {"wgmma", "wgmma.sm_90a.ptx", "sm_90a", {SAMPLE_WGMMA, 70, 64, 448}},
};

/* The text with one edit; NULL when there is nothing to edit. */
static char *edited(char *text, const struct edit *e) {
  char *at = strstr(text, e->find);
  if (!at) return free(text), NULL;
  char *out = malloc(strlen(text) + strlen(e->replace) + 1);
  sprintf(out, "%.*s%s%s", (int)(at - text), text, e->replace, at + strlen(e->find));
  free(text);
  return out;
}

static uint32_t found_by(const qn_emu_report *r, double error) {
  uint32_t found = error > 2e-3 ? RESULT : 0;
  if (r->counters.shared_passes > r->counters.shared_ideal) found |= PASSES;
  for (int k = 0; k < r->count; k++) found |= 1u << r->list[k].kind;
  return found;
}

static void one_bug(int row) {
  const struct hunted *h = hunted;
  while (strcmp(h->name, bugs[row].file)) h++;
  char *ptx = sample_text(h->file), line[1024] = "nothing";
  for (int k = 0; k < 2 && bugs[row].edits[k].find; k++) {
    ptx = edited(ptx, &bugs[row].edits[k]);
    ck_assert_msg(ptx != NULL, "%s: the text to edit is not there", bugs[row].name);
  }
  qn_emu_launch how = {.seed = 5, .budget = 2000000};
  qn_emu_report *r;
  double error;
  qn_status st = sample_run(ptx, h->s, h->device, &how, &error, &r);
  ck_assert_msg(!st, "%s: %s", bugs[row].name, qn__errmsg());
  if (r->count) qn__emu_finding_print(r->list, line, sizeof line);
  ck_assert_msg(found_by(r, error) & bugs[row].expect, "QN_CASE='%s' test_emu: found 0x%x (%s), error %g",
                bugs[row].name, found_by(r, error), line, error);
  for (int k = 0; k < r->count; k++)
    ck_assert_msg(r->list[k].line > 0 && r->list[k].file_line > 0, "%s has no position", line);
  qn__emu_report_free(r);
  free(ptx);
}

START_TEST(test_seeded_bug_is_found) {
  const char *only = getenv("QN_CASE");
  if (!only || !strcmp(only, bugs[_i].name)) one_bug(_i);
}
END_TEST

/* ---- Bad input --------------------------------------------------------------------------------------------------- */

#define HEAD ".version 9.0\n.target sm_80\n.address_size 64\n"
#define BODY(text) HEAD ".visible .entry k(.param .u64 p)\n{\n.reg .b32 %r<4>;\n.reg .pred %p<2>;\n" text "\nret;\n}\n"
static const struct {
  const char *ptx, *message;
} refused[] = {
    {HEAD "frobnicate;", "PTX line 4: expected a directive"},
    {HEAD ".frob 3\n", "directive .frob is not known"},
    {BODY("frob.s32 %r1, %r2;"), "PTX line 8: instruction frob.s32 is not known: frob.s32 %r1, %r2;"},
    {BODY("add.q32 %r1, %r2, %r3;"), "instruction add.q32 is not known"},
    {BODY("add.s32 %r1, %r2;"), "add needs more than 2 operands"},
    {BODY("add.s64 %r1, %r2, %r3;"), "register of 32 bits where 64 are wanted"},
    {BODY("add.s32 %r1, %r9, %r3;"), "special register %r9 is not known"},
    {BODY("bra NOWHERE;"), "label NOWHERE is not defined"},
    {BODY("mov.u32 %r1, %frob;"), "special register %frob is not known"},
    {BODY("mov.u32 %tid.x, 3;"), "a special register cannot be written"},
    {BODY("lop3.b32 %r1, %r2, %r3, %r0, 256;"), "the table of lop3"},
    {BODY("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r0, %r1}, [%r2];"), "2 registers where 4 are wanted"},
    {BODY("mma.sync.aligned.m16n8k99.row.col.f32.f16.f16.f32 {%r0}, {%r0}, {%r0}, {%r0};"), "is not known"},
    {".version 9.0\n.target sm_90a\n.address_size 64\n", "does not run on sm_80"},
    {BODY("{"), "text ends inside k"},
    /* what begins and does not end: the text is over, and so is the parser */
    {HEAD ".visible .entry k()\n.pragma \"nounroll", "PTX line 5: text in quotes without end"},
    {HEAD ".pragma \"nounroll", "text in quotes without end"},
    {HEAD ".file 1 \"a.cu", "text in quotes without end"},
    {HEAD "/* comment", "comment without end"},
    {HEAD ".section .debug { .b8 1", "expected '}'"},
    {BODY("mov.f32 %r1, 0f3f80"), "a real constant has 8 digits"},
    {BODY("mov.f32 %r1, 0f 3f80000;"), "a real constant has 8 digits"},
    {BODY("mov.u32 %r1, 0b;"), "expected a number before '0b;"},
    {BODY("mov.u32 %r1, 99999999999999999999;"), "a number beyond 64 bits"},
};

START_TEST(test_text_is_refused_with_its_line) {
  qn_emu *e;
  qn_emu_module *m;
  ck_assert(!qn__emu_open(80, 0, &e));
  ck_assert_int_eq(qn__emu_module_load(e, refused[_i].ptx, &m), QN_E_COMPILE);
  ck_assert_msg(strstr(qn__errmsg(), refused[_i].message) != NULL, "'%s' lacks '%s'", qn__errmsg(),
                refused[_i].message);
  ck_assert_ptr_null(m);
  qn__emu_close(e);
}
END_TEST

START_TEST(test_memory_calls_refuse_bad_ranges) {
  qn_emu *e;
  uint64_t a;
  char x[64];
  ck_assert_int_eq(qn__emu_open(12, 0, &e), QN_E_DEVICE);
  ck_assert_int_eq(qn__emu_open_name("emu:sm_80a", &e), QN_E_DEVICE);
  ck_assert_int_eq(qn__emu_open_name("emu:sm_90a", &e), QN_OK);
  ck_assert_int_eq(qn__emu_alloc(e, 0, &a), QN_E_ARG);
  ck_assert_int_eq(qn__emu_alloc(e, UINT64_C(1) << 50, &a), QN_E_NOMEM);
  ck_assert_int_eq(qn__emu_alloc(e, 64, &a), QN_OK);
  ck_assert_int_eq(qn__emu_write(e, a + 1, x, 64), QN_E_ARG);
  ck_assert_int_eq(qn__emu_read(e, x, a - 1, 1), QN_E_ARG);
  ck_assert_int_eq(qn__emu_fill(e, a, 3, 3, 1), QN_E_ARG);
  ck_assert_int_eq(qn__emu_fill(e, a, 0x01020304, 4, 16), QN_OK);
  ck_assert_int_eq(qn__emu_read(e, x, a, 64), QN_OK);
  ck_assert_int_eq(x[60], 4);
  ck_assert_int_eq(qn__emu_free(e, a + 4), QN_E_ARG);
  ck_assert_int_eq(qn__emu_free(e, a), QN_OK);
  ck_assert_int_eq(qn__emu_read(e, x, a, 1), QN_E_ARG);
  qn__emu_close(e);
}
END_TEST

/* However an allocation lies to others that are gone, what follows it and comes before it is nobody's. */
START_TEST(test_no_allocation_touches_another) {
  qn_emu *e;
  uint64_t a, b, c = 0;
  char x;
  ck_assert_int_eq(qn__emu_open(80, 0, &e), QN_OK);
  ck_assert(!qn__emu_alloc(e, 1, &a) && !qn__emu_alloc(e, 1, &b) && !qn__emu_free(e, b));
  do /* until the address space is used from its start again */
    ck_assert(!qn__emu_free(e, c) && !qn__emu_alloc(e, 1, &c));
  while (c > b);
  ck_assert_int_eq(qn__emu_read(e, &x, a + (1 << 16), 1), QN_E_ARG);
  ck_assert_int_eq(qn__emu_read(e, &x, c - 1, 1), QN_E_ARG);
  qn__emu_close(e);
}
END_TEST

/* ---- Out of memory ----------------------------------------------------------------------------------------------- */

/* The linker calls these in place of the C library's (tests/emu.cmake). */
void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t align, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t align, size_t n);
static long left = -1; /* allocations that succeed; -1: all */
static bool fails(void) { return left >= 0 && left-- == 0 && (left = 0, true); }
void *__wrap_malloc(size_t n) { return fails() ? NULL : __real_malloc(n); }
void *__wrap_calloc(size_t n, size_t size) { return fails() ? NULL : __real_calloc(n, size); }
void *__wrap_realloc(void *p, size_t n) { return fails() ? NULL : __real_realloc(p, n); }
void *__wrap_aligned_alloc(size_t align, size_t n) { return fails() ? NULL : __real_aligned_alloc(align, n); }

/* Copies of 32 lanes, committed by half of them, then by the others: out[lane] = in[lane]. */
static const char halves[] = HEAD ".visible .entry k(.param .u64 in, .param .u64 out)\n{\n.reg .b32 %r<5>;\n"
                                  ".reg .b64 %rd<5>;\n.reg .pred %p<2>;\n.shared .align 16 .b8 tile[128];\n"
                                  "ld.param.u64 %rd1, [in];\nld.param.u64 %rd2, [out];\nmov.u32 %r0, %tid.x;\n"
                                  "shl.b32 %r1, %r0, 2;\ncvt.u64.u32 %rd3, %r1;\nadd.u64 %rd1, %rd1, %rd3;\n"
                                  "add.u64 %rd2, %rd2, %rd3;\nmov.u32 %r2, tile;\nadd.u32 %r2, %r2, %r1;\n"
                                  "setp.lt.u32 %p1, %r0, 16;\ncp.async.ca.shared.global [%r2], [%rd1], 4;\n"
                                  "@%p1 cp.async.commit_group;\ncp.async.commit_group;\ncp.async.wait_all;\n"
                                  "ld.shared.u32 %r3, [%r2];\nst.global.u32 [%rd2], %r3;\nret;\n}\n";

/* Everything from opening to the result, with so many allocations. */
static qn_status copy_halves(const uint32_t in[LANES], uint32_t out[LANES]) {
  qn_emu *e = NULL;
  qn_emu_module *m;
  const qn_emu_kernel *k;
  qn_emu_report *r = NULL;
  uint64_t from, to;
  qn_status s = qn__emu_open(80, 0, &e);
  if (!s) s = qn__emu_alloc(e, 4 * LANES, &from);
  if (!s) s = qn__emu_alloc(e, 4 * LANES, &to);
  if (!s) s = qn__emu_write(e, from, in, 4 * LANES);
  if (!s) s = qn__emu_module_load(e, halves, &m);
  if (!s) s = qn__emu_kernel_find(m, "k", &k);
  qn_emu_launch how = {
      .grid = {1, 1, 1}, .block = {LANES, 1, 1}, .params = (const void *[]){&from, &to}, .nparams = 2, .threads = 1};
  if (!s) s = qn__emu_run(k, &how, &r);
  if (!s && r->findings) s = qn__fail(QN_E_WRONG, "a finding: %s", r->list[0].text);
  if (!s) s = qn__emu_read(e, out, to, 4 * LANES);
  qn__emu_report_free(r);
  qn__emu_close(e);
  return s;
}

/* The first, the second… allocation fails, until none does. */
START_TEST(test_out_of_memory_is_said) {
  uint32_t in[LANES], out[LANES];
  qn_status s = QN_E_NOMEM;
  long n = 0;
  for (int i = 0; i < LANES; i++) in[i] = 1000u + (uint32_t)i;
  for (; s; n++) {
    memset(out, 0, sizeof out);
    left = n;
    s = copy_halves(in, out);
    left = -1;
    ck_assert_msg(!s || s == QN_E_NOMEM, "allocation %ld fails: %s", n, qn__errmsg());
  }
  ck_assert_mem_eq(in, out, sizeof in);
  ck_assert_int_gt(n, 50);
}
END_TEST

/* What stands behind .ptr is of the memory that a parameter points at: the parameter lies at its own alignment. */
START_TEST(test_parameters_lie_as_the_driver_puts_them) {
  static const uint32_t offset[] = {0, 8, 16, 48};
  qn_emu *e;
  qn_emu_module *m;
  const qn_emu_kernel *k;
  ck_assert_int_eq(qn__emu_open(80, 0, &e), QN_OK);
  ck_assert_msg(!qn__emu_module_load(e,
                                     HEAD ".visible .entry k(.param .u32 n, .param .u64 .ptr .align 1 p,\n"
                                          ".param .align 16 .b8 map[32], .param .u64 .ptr .global .align 256 q)\n"
                                          "{\nret;\n}\n",
                                     &m),
                "%s", qn__errmsg());
  ck_assert_int_eq(qn__emu_kernel_find(m, "k", &k), QN_OK);
  ck_assert_int_eq(k->nparams, QN_COUNT(offset));
  for (int i = 0; i < k->nparams; i++)
    ck_assert_msg(k->params[i].offset == offset[i], "parameter %d at %u, not %u", i, k->params[i].offset, offset[i]);
  qn__emu_close(e);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(test_samples_are_clean_and_right, QN_COUNT(samples) * RUNS),
      CASE(test_seeded_bug_is_found, QN_COUNT(bugs)),
      CASE(test_text_is_refused_with_its_line, QN_COUNT(refused)),
      CASE(test_memory_calls_refuse_bad_ranges, 1),
      CASE(test_no_allocation_touches_another, 1),
      CASE(test_out_of_memory_is_said, 1),
      CASE(test_parameters_lie_as_the_driver_puts_them, 1),
  };
  return RUN_CASES(argv[0], cases, .timeout = 120);
}
