/* test_emu_sources.c - the sample sources through NVRTC, for each architecture that they support, on the PTX
 * interpreter.
 *
 * Where NVRTC is missing, only the golden PTX of mixed.cu runs here; test_emu runs that of the others. */
#include "compile.h"
#include "emu_fixture.h"
#include "emu_samples.h"
#include "fail.h"
#include "ptx/mixed.cu"
#include "suite.h"
#include <check.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* PTX of tests/ptx/NAME.cu; NULL where there is no NVRTC. */
static char *compiled(const char *name, const char *architecture) {
  char file[64], arch[32];
  snprintf(file, sizeof file, "%s.cu", name);
  snprintf(arch, sizeof arch, "compute_%s", architecture);
  char *text = sample_text(file);
  ck_assert_ptr_nonnull(text);
  qn_artifact a;
  qn_status s = qn__compile(&(qn_source){.name = name, .target = "cuda", .arch = arch, .text = text}, &a);
  ck_assert_msg(!s || s == QN_E_DEVICE, "%s for %s: %s", name, arch, qn__errmsg());
  char *ptx = (char *)a.image;
  a.image = NULL;
  qn__artifact_free(&a);
  free(text);
  return ptx;
}

static const char *const architectures[] = {"75", "80", "86", "89", "90a", "100a", "120a"};
static const struct source {
  const char *name;
  int first, last; /* of the architectures */
  sample s;
} sources[] = {
    {"gemv", 0, 6, {SAMPLE_GEMV, 1, 37, 264}},
    {"mma", 1, 6, {SAMPLE_MMA, 37, 128, 160}},
    {"wgmma", 4, 4, {SAMPLE_WGMMA, 70, 64, 448}},
};

START_TEST(test_source_is_clean_and_right) {
  const struct source *x = &sources[_i / (int)QN_COUNT(architectures)];
  int n = _i % (int)QN_COUNT(architectures);
  char device[16], line[1024], *ptx = n < x->first || n > x->last ? NULL : compiled(x->name, architectures[n]);
  if (!ptx) return;
  snprintf(device, sizeof device, "sm_%s", architectures[n]);
  for (uint64_t seed = 0; seed < 3; seed++) { /* late, and two random orders */
    qn_emu_launch how = {.mode = seed ? QN_EMU_RANDOM : QN_EMU_LATE, .seed = seed};
    qn_emu_report *r;
    double error;
    ck_assert_msg(!sample_run(ptx, x->s, device, &how, &error, &r), "%s on %s: %s", x->name, device, qn__errmsg());
    ck_assert_msg(!r->findings, "%s on %s: %s", x->name, device,
                  r->count ? qn__emu_finding_print(r->list, line, sizeof line) : "");
    ck_assert_msg(error < 2e-3, "%s on %s, seed %d: error %g", x->name, device, (int)seed, error);
    qn__emu_report_free(r);
  }
  free(ptx);
}
END_TEST

static void check_mixed(const char *device, const char *ptx) {
  enum { N = 512 };
  uint32_t in[N], out[N];
  ptx_seed(7);
  for (int i = 0; i < N; i++) in[i] = ptx_random();
  ptx_run_text(device, ptx,
               &(ptx_case){.what = device,
                           .grid = N / 128,
                           .block = 128,
                           .in = in,
                           .in_bytes = sizeof in,
                           .out = out,
                           .out_bytes = sizeof out});
  for (uint32_t i = 0; i < N; i++)
    ck_assert_msg(out[i] == mixed(in[i], i), "mixed.cu on %s: thread %u of 0x%08x has 0x%08x, not 0x%08x", device, i,
                  in[i], out[i], mixed(in[i], i));
}

START_TEST(test_ordinary_code_is_as_on_the_host) {
  char device[16], *ptx = compiled("mixed", architectures[_i]);
  snprintf(device, sizeof device, "sm_%s", architectures[_i]);
  if (ptx) check_mixed(device, ptx);
  free(ptx);
}
END_TEST

START_TEST(test_golden_ordinary_code_is_as_on_the_host) {
  char *ptx = sample_text("mixed.sm_80.ptx");
  ck_assert_ptr_nonnull(ptx);
  check_mixed("sm_80", ptx);
  free(ptx);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(test_golden_ordinary_code_is_as_on_the_host, 1),
      CASE(test_ordinary_code_is_as_on_the_host, QN_COUNT(architectures)),
      CASE(test_source_is_clean_and_right, QN_COUNT(sources) * QN_COUNT(architectures)),
  };
  return RUN_CASES(argv[0], cases, .timeout = 120);
}
