/* test_kernels.c - every kind of weight times every kind of activation on the host, against the float64 reference.
 *
 * One list of problems. For each, every variant of the reduced space (both ends of each parameter: portable C and
 * AVX-512 where there is one, narrow and wide panels, short and tall tiles) is compiled and verified by the tool.
 * Shapes are awkward on purpose: columns that do not fill a panel, a K that ends within a group or within a vector. */
#include "cli_fixture.h"

static const char *const problems[] = {
    /* group, zero point and scale types of the integer formats, with every activation and output */
    "int4.g128:80x256:bf16-f32",
    "int4.g64.z:33x192:i8-bf16+bias",
    "int4.g32.zf:64x160:f32-f16",
    "int4.row:17x97:bf16-bf16",
    "int6.g64.zf:31x192:bf16-f32+bias",
    "int6.g32.z.bf16:70x96:f32-bf16",
    "int6.row.f32:66x130:i8-f16",
    "int8.g128:47x384:bf16-f16",
    "int8.g64.zf.f32:64x128:i8-bf16",
    "int8.row:48x100:i8-f32+bias",
    "int4.g128:32x200:bf16-f32", /* a K that is no multiple of the group */
    /* a table of values */
    "nf4.g64:80x128:bf16-f32",
    "nf4.g32.bf16:33x96:f32-bf16+bias",
    /* dense weights */
    "f32:33x65:f32-f32",
    "f16:64x96:f32-bf16+bias",
    "bf16:50x130:bf16-f16",
};

START_TEST(every_variant_is_right) {
  int status = cli("quernel verify --problem %s --space reduced --device host --store store --quiet", problems[_i]);
  unsigned verified = 0, known = 0;
  int said = sscanf(cli_out, "%u variants verified (known %u)", &verified, &known);
  ck_assert_msg(status == 0 && said == 2 && verified >= 8,
                "%s: exit %d\n%s%s\n  again: %s/quernel verify --problem %s --space reduced --device host",
                problems[_i], status, cli_out, cli_err, QN_BUILD, problems[_i]);
}
END_TEST

int main(void) {
  Suite *s = suite_create("kernels");
  TCase *t = tcase_create("host");
  tcase_add_checked_fixture(t, cli_enter, cli_leave);
  tcase_add_loop_test(t, every_variant_is_right, 0, (int)(sizeof problems / sizeof *problems));
  tcase_set_timeout(t, 300);
  suite_add_tcase(s, t);
  SRunner *r = srunner_create(s);
  srunner_run_all(r, CK_ENV);
  int failed = srunner_ntests_failed(r);
  srunner_free(r);
  return failed != 0;
}
