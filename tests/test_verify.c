/* test_verify.c - the verifier lets a right kernel pass and says of a wrong one what is wrong with it. */
#include "call.h"
#include "device_host.h"
#include "suite.h"
#include "supervise.h"
#include "tuner_fixture.h"
#include "verify.h"
#include <math.h>

/* Every fault that does not end the process, and a word of the sentence that it must earn. */
typedef struct fault {
  const char *fault, *says;
} fault;
static const fault faults[] = {
    {"UNWRITTEN", "not written"},
    {"WRITES_GAP", "behind its last column"},
    {"SAME_GAP", "behind its last column"},
    {"TAIL", "exact draw"},
    {"INEXACT", "exact draw"},
    {"LATE", "repeat 50 "},
    {"LATER", "repeat"},
    {"ONCE", "repeat"},
    {"RANDOM", "bits"},
    {"DEPENDS_ON_M", "batch-invariant"},
    {"DEPENDS_ON_BIG_M", "batch-invariant, but row 0 at M = 45 and at M = 46 differ"},
    {"M7", "M = 7"},
    {"ABOVE_40", "M = 41"},
    {"ABOVE_1000", "M = 1027"},
    {"M512", "M = 512"},
    {"K59", "5 x 59"},
    {"N100_K40", "100 x 40"},
    {"NEGATIVE_ZERO", "exact draw"},
    {"DENORMAL", "hard draw"},
    {"LARGE", "hard draw"},
    {"PAIRS", "differs in bits"},
    {"REMEMBERS", "72 x 160, M = 3"},
    {"TRUSTS_SCRATCH", "not a number"},
    {"COUNTS", "left the counters of 4 bytes other than zero"},
    {"OVERRUN_Y", "behind"},
    {"EMPTY", ""}, /* a race */
#ifdef __x86_64__
    {"ROUNDS", "floating-point control"},
    {"X87", "x87"},
    {"BACKWARD", "direction"},
    {"BLOCKS", "blocked signals"},
    {"CLOSES", "other open files"},
    {"TIMER", "other timers"},
    {"FORKS", "other child processes"},
    {"KEEPS", "keeps memory"},
    {"NICE", "priority"},
    {"MASKS", "mask of new files"},
    {"DESERTS", "process group"},
#endif
};

/* Faults that a process does not survive, or not the sanitizers in it. Where a page beside a buffer was touched is
 * said. */
static const fault deadly[] = {
#ifdef __x86_64__
    {"LIMITS", "other limits"},
    {"THREAD", "other threads"},
#endif
    {"WRITES_X", "read-only offset 0 of buffer 'x'"},
    {"REWRITES_W", "read-only offset 5 of buffer 'weights'"},
    {"REWRITES_GAP", "between rows, offset 200 of buffer 'y'"},
    {"UNDERRUN_W", "offset -1 of buffer 'weights' of"},
    {"READS_W", "offset -1 of buffer 'weights' of"},
    {"READS_GAP", "offset 4 of buffer 'x' of 4 bytes"},
    {"READS_X", "offset 640 of buffer 'x' of 640 bytes"},
    {"REWRITES_Y", "offset 288 of buffer 'y' of 288 bytes"},
};

static qn_status verify(qn_case *c, double *error) {
  qn_device *d;
  qn_draws *draws;
  qn_subject s;
  ck_assert_int_eq(qn__device_host_open(NULL, 2, &d), QN_OK);
  ck_assert_int_eq(qn__draws_new(&draws), QN_OK);
  qn_status status = qn__subject_open(d, c, &s);
  if (!status) {
    status = qn__verify(&s, draws, error);
    qn__subject_close(&s);
  }
  qn__draws_free(draws);
  qn__device_close(d);
  return status;
}

START_TEST(right_kernel_passes) {
  qn_case *c = test_case(NULL, 64, 64);
  double error = 2;
  ck_assert_msg(verify(c, &error) == QN_OK, "%s", qn__errmsg());
  ck_assert(error >= 0 && error <= 1);
  free(c);
}
END_TEST

START_TEST(wrong_kernel_is_found_out) {
  qn_case *c = test_case(faults[_i].fault, 64, 64);
  double error;
  ck_assert_msg(verify(c, &error) == QN_E_WRONG, "%s passed", faults[_i].fault);
  ck_assert_msg(strstr(qn__errmsg(), faults[_i].says) != NULL, "%s: '%s' does not say '%s'", faults[_i].fault,
                qn__errmsg(), faults[_i].says);
  free(c);
}
END_TEST

START_TEST(deadly_kernel_is_found_out) {
  const fault *f = &deadly[_i];
  qn_case *c = test_case(f->fault, 64, 64);
  qn_supervisor worker;
  ck_assert_msg(qn__supervisor_init(&worker, WORKER, "host:2") == QN_OK, "%s", qn__errmsg());
  cJSON *request = cJSON_CreateObject();
  cJSON_AddStringToObject(request, "op", "verify");
  cJSON_AddItemToObject(request, "case", qn__case_to_json(c));
  ck_assert_msg(qn__supervisor_ask(&worker, request, 60, NULL) == QN_E_WRONG, "%s passed", f->fault);
  ck_assert_msg(strstr(qn__errmsg(), f->says) != NULL, "%s: '%s' does not say '%s'", f->fault, qn__errmsg(), f->says);
  qn__supervisor_fini(&worker);
  free(c);
}
END_TEST

START_TEST(declared_disorder_is_allowed) {
  qn_case *c = test_case("RANDOM", 64, 64);
  double error;
  c->recipe.deterministic = c->recipe.batch_invariant = 0;
  ck_assert_msg(verify(c, &error) == QN_OK, "%s", qn__errmsg());
  free(c);
}
END_TEST

/* Y += X . W^T */
START_TEST(residual_may_be_y) {
  static const char *const stored_first[] = {NULL, "STORES_FIRST"};
  qn_case *c = test_case(stored_first[_i], 64, 64);
  double error;
  c->problem.epilogue[0] = QN_EPILOGUE_RESIDUAL;
  qn__problem_spell(&c->problem);
  ck_assert_msg(verify(c, &error) == (_i ? QN_E_WRONG : QN_OK), "%s: %s", c->problem.spelling, qn__errmsg());
  free(c);
}
END_TEST

/* Loading: what the supervisor says and what is on the disk must be the same. */
START_TEST(another_image_is_refused) {
  qn_case *c = test_case(NULL, 64, 64);
  double error;
  c->sum[0] = c->sum[0] == '0' ? '1' : '0';
  ck_assert_int_eq(verify(c, &error), QN_E_IO);
  c->sum[0] = 0;
  strcpy(c->recipe.step[0].entry, "nothing");
  ck_assert_int_eq(verify(c, &error), QN_E_NO_KERNEL);
  ck_assert_int_eq(truncate(c->image, 100), 0);
  ck_assert_int_ne(verify(c, &error), QN_OK);
  ck_assert_int_eq(remove(c->image), 0);
  ck_assert_int_eq(verify(c, &error), QN_E_IO);
  free(c);
}
END_TEST

/* ---- Data -------------------------------------------------------------------------------------------------------- */

/* Every partial sum of an exact draw is a multiple of a power of two and below 2^24 of them. */
START_TEST(exact_draws_are_exact) {
  qn_format f = test_format();
  qn_problem p = test_problem(40, 2000);
  qn_draw d;
  ck_assert_int_eq(qn__draw_make(&f, &p, QN_DRAW_EXACT, 40, 2000, 6, 2003, 5, &d), QN_OK);
  ck_assert_int_eq(qn__draw_reference(&f, 40, &d), QN_OK);
  ck_assert(d.exact);
  for (int64_t i = 0; i < QN_DRAW_PERIOD * d.n_cols; i++) {
    ck_assert(d.sum[i] * 2 == floor(d.sum[i] * 2));
    ck_assert(d.magnitude[i] < 0x1p23);
  }
  qn__draw_free(&d);
}
END_TEST

START_TEST(row_of_x_does_not_depend_on_m) {
  qn_format f = test_format();
  qn_problem p = test_problem(8, 96);
  qn_draw few, many;
  for (qn_draw_kind kind = 0; kind < QN_DRAW_KINDS; kind++) {
    ck_assert_int_eq(qn__draw_make(&f, &p, kind, 8, 96, 2, 99, 5, &few), QN_OK);
    ck_assert_int_eq(qn__draw_make(&f, &p, kind, 8, 96, 9, 99, 5, &many), QN_OK);
    ck_assert_int_eq(memcmp(few.args.x, many.args.x, 2 * 99 * sizeof(float)), 0);
    ck_assert_int_eq(memcmp(few.planes.plane[0].data, many.planes.plane[0].data, 8 * 96), 0);
    ck_assert_int_eq(qn__planes_check(NULL, &f, &many.planes), QN_OK);
    qn__draw_free(&few);
    qn__draw_free(&many);
  }
}
END_TEST

/* Whole pages, too, lie at an address that is aligned no better than promised, in one of the draws. */
START_TEST(no_alignment_is_a_present) {
  static const size_t aligns[] = {1, 4, 256};
  qn_format f = test_format();
  qn_problem p = test_problem(8, 96);
  qn_device *d;
  ck_assert_int_eq(qn__device_host_open(NULL, 1, &d), QN_OK);
  for (size_t i = 0; i < QN_COUNT(aligns); i++) {
    uintptr_t bits = 0;
    for (qn_draw_kind kind = 0; kind < QN_DRAW_KINDS; kind++) {
      qn_guarded g = {0};
      qn_draw draw;
      ck_assert_int_eq(qn__draw_make(&f, &p, kind, 8, 96, 1, 96, 5, &draw), QN_OK);
      ck_assert_int_eq(qn__guarded_place(&g, d, "pages", 1 << 16, aligns[i], draw.fence), QN_OK);
      bits |= (uintptr_t)qn__guarded_at(&g);
      qn__guarded_fini(&g);
      qn__draw_free(&draw);
    }
    ck_assert_uint_eq(bits & (2 * aligns[i] - 1), aligns[i]);
  }
  qn__device_close(d);
}
END_TEST

/* Of an element of 10 whose sum is one of 4096 products. */
static double bound_of(const qn_problem *p, const qn_recipe *r, const char *target) {
  return qn__output_error((qn_type)p->out, (qn_number){10, qn__sum_error(p, r, qn__target(target), 4096, 1000, 2)});
}
static double bound(const qn_problem *p, const char *target) { return bound_of(p, &(qn_recipe){0}, target); }

START_TEST(bound_grows_with_what_it_is_made_of) {
  qn_problem p = test_problem(8, 8);
  double f32 = bound(&p, "host");
  ck_assert(f32 > 0 && f32 < 1000 * 5000 * 0x1p-24);
  ck_assert(bound(&p, "cuda") > f32);
  p.act = QN_T_BF16;
  double bf16 = bound(&p, "host");
  ck_assert(bf16 > f32 && bf16 < 1000 * 0x1p-7);
  p.out = QN_T_BF16;
  ck_assert(bound(&p, "host") >= bf16 + 10 * 0x1p-8);
  static const qn_type scaled[] = {QN_T_I8, QN_T_E4M3}; /* CUDA multiplies both as f16 */
  p.act = QN_T_F16;
  double f16 = bound(&p, "cuda");
  for (int i = 0; i < 2; i++) {
    p.act = scaled[i];
    ck_assert(bound(&p, "cuda") == f16);
    ck_assert(bound(&p, "host") != f16);
  }
  double all = bound_of(&p, &(qn_recipe){.sum_bits = 13}, "cuda");
  double some = bound_of(&p, &(qn_recipe){.sum_bits = 13, .sum_depth = 128}, "cuda");
  ck_assert(f16 < some && some < f16 + 1000 * 131 * 0x1p-13 && all > some);
}
END_TEST

/* Sums of 32 products that keep 13 bits pass where the recipe says so, and not otherwise. */
START_TEST(sums_may_keep_fewer_bits) {
  qn_case *c = test_case("FEW_BITS", 64, 64);
  double error;
  ck_assert_int_eq(verify(c, &error), QN_E_WRONG);
  c->recipe.sum_bits = 13, c->recipe.sum_depth = 32;
  ck_assert_msg(verify(c, &error) == QN_OK, "%s", qn__errmsg());
  c->recipe.sum_bits = 20;
  ck_assert_int_eq(verify(c, &error), QN_E_WRONG);
  free(c);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(right_kernel_passes, 1),
      CASE(declared_disorder_is_allowed, 1),
      CASE(residual_may_be_y, 2),
      CASE(sums_may_keep_fewer_bits, 1),
      CASE(another_image_is_refused, 1),
      CASE(wrong_kernel_is_found_out, QN_COUNT(faults)),
      CASE(deadly_kernel_is_found_out, QN_COUNT(deadly)),
      CASE(exact_draws_are_exact, 1),
      CASE(row_of_x_does_not_depend_on_m, 1),
      CASE(no_alignment_is_a_present, 1),
      CASE(bound_grows_with_what_it_is_made_of, 1),
  };
  return RUN_CASES(argv[0], cases, folder_init, folder_fini, 60);
}
