/* test_cuda.c - every CUDA family on every kind of weight, run by the PTX interpreter against the float64 reference.
 *
 * One list of problems and architectures. For each, the variants that cover the space (every pair of values of two
 * parameters) are compiled by NVRTC and verified by the tool: launches take turns in late and random order, every check
 * of the interpreter is on. Shapes small and ragged are the verifier's own; those here decide which rules apply. */
#include "cli_fixture.h"

static const struct {
  const char *device, *problem;
} rows[] = {
    /* one problem on both families of compilers, and what only later architectures have */
    {"emu:sm_80", "int4.g128:4096x4096:f16-f16"},
    {"emu:sm_90a", "int4.g128:4096x4096:f16-f16"},
    {"emu:sm_120a", "int4.g128:4096x4096:f16-f16"},
    /* zero points, scale types, outputs, bias */
    {"emu:sm_90a", "int4.g64.z:4096x4096:bf16-bf16+bias"},
    {"emu:sm_80", "int4.g32.zf:1024x4096:f16-f32"},
    {"emu:sm_120a", "int4.row.bf16:4096x4096:bf16-f16+bias"},
    /* other widths: one slice, several slices, as many bits as a byte has */
    {"emu:sm_80", "int6.g64.z:4096x4096:f16-f16"},
    {"emu:sm_90a", "int8.g128:4096x4096:f16-f32"},
    {"emu:sm_80", "int8.g32.z.f32:4096x4096:bf16-bf16"},
    /* tables, dense weights */
    {"emu:sm_90a", "nf4.g64:4096x4096:f16-f16"},
    {"emu:sm_120a", "nf4.g64.f32:4096x4096:bf16-bf16"},
    {"emu:sm_80", "f16:4096x4096:f16-f16"},
    {"emu:sm_90a", "bf16:4096x4096:bf16-f32"},
};

START_TEST(every_variant_is_right) {
  int status = cli("quernel verify --problem %s --space reduced --device %s --store store --quiet", rows[_i].problem,
                   rows[_i].device);
  unsigned verified = 0;
  int said = sscanf(cli_out, "%u variants verified", &verified);
  ck_assert_msg(status == 0 && said == 1 && verified >= 10,
                "%s on %s: exit %d\n%s%s\n  again: %s/quernel verify --problem %s --space reduced --device %s",
                rows[_i].problem, rows[_i].device, status, cli_out, cli_err, QN_BUILD, rows[_i].problem,
                rows[_i].device);
}
END_TEST

int main(void) {
  Suite *s = suite_create("cuda");
  TCase *t = tcase_create("interpreter");
  tcase_add_checked_fixture(t, cli_enter, cli_leave);
  tcase_add_loop_test(t, every_variant_is_right, 0, (int)(sizeof rows / sizeof *rows));
  tcase_set_timeout(t, 300);
  suite_add_tcase(s, t);
  SRunner *r = srunner_create(s);
  srunner_run_all(r, CK_ENV);
  int failed = srunner_ntests_failed(r);
  srunner_free(r);
  return failed != 0;
}
