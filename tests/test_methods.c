/* test_methods.c - methods that know of the inputs of a weight, against textbook versions of them in plain loops. */
#include "awq.h"
#include "cpu.h"
#include "fail.h"
#include "generator.h"
#include "quantize.h"
#include "quernel_io.h"
#include "suite.h"
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 70, K = 144, TOKENS = 300, COUNT = N * K, CODES = 256 };

static uint64_t seed = 1;
static double uniform(void) { /* -1 .. 1, splitmix64 (Steele, Lea, Flood) */
  uint64_t z = seed += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return (double)((z ^ z >> 31) >> 11) * 0x1p-52 - 1;
}

/* ---- A weight and its inputs ------------------------------------------------------------------------------------- */

static float w[COUNT], x[TOKENS * K], original[TOKENS * K];
static qn__inputs seen;
static qn_pool *pool;

/* Inputs of different strength that hang together: each is part of the one before. The unquantized model's are near. */
static void draw(void) {
  for (int i = 0; i < COUNT; i++) w[i] = (float)(uniform() + uniform() + uniform());
  for (int t = 0; t < TOKENS; t++)
    for (int i = 0; i < K; i++) {
      double before = i ? (double)x[t * K + i - 1] : 0;
      x[t * K + i] = (float)(0.7 * before + (1 + i % 7) * uniform());
      original[t * K + i] = x[t * K + i] * 1.1f + (float)(0.3 * uniform() + 0.1 * before);
    }
}

static void look(int see) {
  ck_assert_int_eq(qn__inputs_init(&seen, K, see), QN_OK);
  ck_assert_int_eq(qn__inputs_add(&seen, pool, x, see & QN__SEE_CROSS ? original : NULL, 100), QN_OK);
  ck_assert_int_eq(qn__inputs_add(&seen, pool, x + 100 * K, original + 100 * K, TOKENS - 100), QN_OK);
  qn__inputs_finish(&seen);
}

static void setup(void) {
  ck_assert_int_eq(qn__pool_new(NULL, 2, &pool), QN_OK);
  draw();
}

static void teardown(void) {
  qn__inputs_fini(&seen);
  qn__pool_free(pool);
}

static qn_planes *quantize(const qn_format *f, const char *method, const char *scales, int threads,
                           qn__quantize_error *e) {
  qn_planes *p;
  const qn__quantize_options o = {method, scales, threads, seen.k ? &seen : NULL};
  ck_assert_msg(qn__quantize(f, w, N, K, &o, &p, e) == QN_OK, "%s %s: %s", f->name, method, qn__errmsg());
  return p;
}

static const uint8_t *codes(const qn_planes *p) { return p->plane[0].data; }

static qn_format format_of(const char *spelling) {
  qn_format f;
  const char *wrong = generator_format(spelling, &f);
  ck_assert_msg(!wrong, "%s: %s", spelling, wrong);
  return f;
}

static void same_planes(const qn_planes *a, const qn_planes *b) {
  for (int i = 0; i < a->n_planes; i++) {
    size_t bytes = (size_t)(a->plane[i].rows * a->plane[i].cols) * ((size_t)qn_type_bits(a->plane[i].type) / 8);
    ck_assert_msg(!memcmp(a->plane[i].data, b->plane[i].data, bytes), "%s: %s differs", a->format, a->plane[i].name);
  }
}

/* The sum over rows of dᵀ H d, where d = weight - decoded, or the weight if `is` is NULL. */
static double output_square(const double *is) {
  double sum = 0;
  for (int n = 0; n < N; n++)
    for (int t = 0; t < TOKENS; t++) {
      double y = 0;
      for (int k = 0; k < K; k++) y += ((double)w[n * K + k] - (is ? is[n * K + k] : 0)) * (double)x[t * K + k];
      sum += 2 * y * y / TOKENS;
    }
  return sum;
}

/* ---- Matrices ---------------------------------------------------------------------------------------------------- */

enum { SIDE = 3 * QN__TILE };

static double a[SIDE * SIDE], u[SIDE * SIDE], b[SIDE * SIDE], y[SIDE * SIDE];

static void draw_positive_definite(void) {
  static double root[SIDE * SIDE];
  for (int i = 0; i < SIDE * SIDE; i++) root[i] = uniform(), b[i] = uniform();
  qn__gram_add(pool, SIDE, SIDE, root, a);
  for (int i = 0; i < SIDE; i++) {
    a[i * SIDE + i] += 1;
    for (int j = 0; j < i; j++) a[i * SIDE + j] = a[j * SIDE + i];
  }
}

START_TEST(factors_and_solutions_give_the_matrix_back) {
  draw_positive_definite();
  memcpy(u, a, sizeof u);
  memcpy(y, b, sizeof y);
  ck_assert(qn__cholesky(pool, SIDE, u, y));
  for (int i = 0; i < SIDE; i++)
    for (int j = 0; j < SIDE; j++) {
      double product = 0, right = 0;
      for (int p = 0; p <= (i < j ? i : j); p++) product += u[p * SIDE + i] * u[p * SIDE + j];
      for (int p = 0; p <= i; p++) right += u[p * SIDE + i] * y[p * SIDE + j];
      ck_assert_double_le(fabs(product - a[i * SIDE + j]), 1e-10 * SIDE);
      ck_assert_double_le(fabs(right - b[i * SIDE + j]), 1e-10 * SIDE);
    }
  qn__matrix_transpose(pool, SIDE, u);
  qn__solve_upper(pool, SIDE, u, y); /* y = (UᵀU)⁻¹ b */
  for (int i = 0; i < SIDE; i++)
    for (int j = 0; j < SIDE; j++) {
      double product = 0;
      for (int p = 0; p < SIDE; p++) product += a[i * SIDE + p] * y[p * SIDE + j];
      ck_assert_double_le(fabs(product - b[i * SIDE + j]), 1e-8);
    }
}
END_TEST

START_TEST(what_is_not_positive_definite_is_told) {
  draw_positive_definite();
  a[100 * SIDE + 100] = -1;
  ck_assert(!qn__cholesky(pool, SIDE, a, NULL));
  draw_positive_definite();
  a[70 * SIDE + 70] = NAN;
  ck_assert(!qn__cholesky(pool, SIDE, a, NULL));
}
END_TEST

/* ---- Textbook versions ------------------------------------------------------------------------------------------- */

static double h[K][K], inverse[K][K], upper[K][K], carried[K][K];
static int order[K];

/* The inverse of a symmetric matrix by Gauss and Jordan. */
static void invert(double (*m)[K], double (*out)[K]) {
  memset(out, 0, sizeof inverse);
  for (int i = 0; i < K; i++) out[i][i] = 1;
  for (int p = 0; p < K; p++) {
    double pivot = m[p][p];
    for (int j = 0; j < K; j++) m[p][j] /= pivot, out[p][j] /= pivot;
    for (int i = 0; i < K; i++) {
      double f = i == p ? 0 : m[i][p];
      for (int j = 0; j < K; j++) m[i][j] -= f * m[p][j], out[i][j] -= f * out[p][j];
    }
  }
}

/* m = outᵀ out, out upper. */
static void cholesky(double (*m)[K], double (*out)[K]) {
  memset(out, 0, sizeof upper);
  for (int i = 0; i < K; i++)
    for (int j = i; j < K; j++) {
      double sum = m[i][j];
      for (int p = 0; p < i; p++) sum -= out[p][i] * out[p][j];
      out[i][j] = i == j ? sqrt(sum) : sum / out[i][i];
    }
}

static double product(const float *left, const float *less, const float *right, int i, int j) {
  double sum = 0;
  for (int t = 0; t < TOKENS; t++)
    sum += ((double)left[t * K + i] - (less ? (double)less[t * K + i] : 0)) * (double)right[t * K + j];
  return 2 * sum / TOKENS;
}

static void prepare(void) {
  double mean = 0;
  for (int i = 0; i < K; i++) {
    mean += product(x, NULL, x, i, i) / K;
    order[i] = i;
    for (int j = i; j > 0 && product(x, NULL, x, order[j], order[j]) > product(x, NULL, x, order[j - 1], order[j - 1]);
         j--) {
      int swap = order[j];
      order[j] = order[j - 1], order[j - 1] = swap;
    }
  }
  for (int i = 0; i < K; i++)
    for (int j = 0; j < K; j++) h[i][j] = product(x, NULL, x, order[i], order[j]) + (i == j ? 0.01 * mean : 0);
  invert(h, inverse);
  cholesky(inverse, upper);
}

/* P = α ((ΔX Xᵀ Uᵀ), strictly upper) U. */
static void prepare_carried(void) {
  static double m[K][K];
  for (int i = 0; i < K; i++)
    for (int j = 0; j < K; j++) {
      m[i][j] = 0;
      for (int p = j; p < K && i < j; p++) m[i][j] += 0.25 * product(original, x, x, order[i], order[p]) * upper[j][p];
    }
  for (int i = 0; i < K; i++)
    for (int j = 0; j < K; j++) {
      carried[i][j] = 0;
      for (int p = i + 1; p <= j; p++) carried[i][j] += m[i][p] * upper[p][j];
    }
}

/* GPTQ as its paper has it: each error, over the diagonal, is taken from the columns that come later. */
static void textbook(const double (*value)[COUNT], int n_codes, bool carry, uint8_t *out) {
  for (int n = 0; n < N; n++) {
    double row[K];
    for (int i = 0; i < K; i++) row[i] = (double)w[n * K + order[i]];
    for (int i = 0; i < K; i++) {
      int at = n * K + order[i], best = 0;
      for (int c = 1; c < n_codes; c++)
        if (fabs(value[c][at] - row[i]) < fabs(value[best][at] - row[i])) best = c;
      double error = (row[i] - value[best][at]) / upper[i][i], was = row[i];
      for (int j = i; j < K; j++) row[j] -= error * upper[i][j] - (carry ? was * carried[i][j] : 0);
      out[at] = (uint8_t)best;
    }
  }
}

static const char *const textbook_formats[] = {"int4.g64.z", "int3.g48", "nf4.g64.f32", "int2.g16.zf32.f32"};

START_TEST(codes_are_those_of_the_textbook) {
  static double value[16][COUNT];
  static uint8_t want[COUNT];
  qn_format f = format_of(textbook_formats[_i / 2]);
  bool carry = _i % 2;
  qn__quantize_error e;
  look(QN__SEE_CROSS);
  qn_planes *p = quantize(&f, "rtn", NULL, 1, &e);
  for (int c = 0; c < 1 << f.bits; c++) {
    memset((uint8_t *)(uintptr_t)codes(p), c, COUNT);
    ck_assert_int_eq(qn__dequantize(&f, p, 0, N, value[c]), QN_OK);
  }
  prepare();
  if (carry) prepare_carried();
  textbook((const double(*)[COUNT])value, 1 << f.bits, carry, want);
  qn_planes_free(p);
  p = quantize(&f, carry ? "gptaq" : "gptq", "minmax", 2, &e);
  int differ = 0;
  for (int i = 0; i < COUNT; i++) differ += codes(p)[i] != want[i];
  ck_assert_msg(!differ, "%s: %d of %d codes differ", f.name, differ, COUNT);
  qn_planes_free(p);
}
END_TEST

/* ---- Every format ------------------------------------------------------------------------------------------------ */

static const char *const formats[] = {
    "int4.g64.z", "int2.g32", "int8.row", "int4.g32.m", "nf4.g64.f32", "fp4.g64.f32",        "mxfp4", "mxfp8",
    "nvfp4",      "q2_k",     "q4_k",     "iq4_nl.g32", "qserve.g128", "e4m3.b128x128.bf16", "bf16"};

START_TEST(feedback_serves_every_format) {
  static double is[COUNT];
  qn_format f = format_of(formats[_i]);
  qn__quantize_error e, again;
  look(QN__SEE_PRODUCTS);
  qn_planes *p = quantize(&f, "gptq", NULL, 1, &e), *three = quantize(&f, "gptq", NULL, 3, &again);
  same_planes(p, three);
  ck_assert(!memcmp(&e, &again, sizeof e));
  ck_assert_int_eq(qn__dequantize(&f, p, 0, N, is), QN_OK);
  double error2 = 0, all = output_square(NULL), left = output_square(is);
  for (int i = 0; i < COUNT; i++) error2 += pow((double)w[i] - is[i], 2);
  ck_assert_double_le(fabs(e.error2 - error2), 1e-9 * error2);
  ck_assert_double_le(fabs(e.output2 - all), 1e-9 * all);
  ck_assert_double_le(fabs(e.output_error2 - left), 1e-6 * left);
  qn_planes_free(three);
  three = quantize(&f, "rtn", "minmax", 1, &again);
  ck_assert_int_eq(qn__dequantize(&f, three, 0, N, is), QN_OK);
  double nearest = output_square(is);
  ck_assert_double_le(fabs(e.nearest_error2 - nearest), 1e-6 * nearest);
  ck_assert_msg(left < 0.7 * nearest, "%s: error of the outputs %g, of nearest codes %g", f.name, left, nearest);
  qn_planes_free(p);
  qn_planes_free(three);
}
END_TEST

/* Ranges that are drawn in for the outputs serve them better, and what is said of the errors is so. */
START_TEST(nearest_codes_serve_the_outputs) {
  static double is[COUNT];
  qn_format f = format_of(formats[_i]);
  qn__quantize_error e, again;
  look(QN__SEE_PRODUCTS);
  qn_planes *p = quantize(&f, "awq", NULL, 1, &e), *three = quantize(&f, "awq", NULL, 3, &again);
  same_planes(p, three);
  ck_assert(!memcmp(&e, &again, sizeof e));
  ck_assert_int_eq(qn__dequantize(&f, p, 0, N, is), QN_OK);
  double all = output_square(NULL), left = output_square(is);
  ck_assert_double_le(fabs(e.output2 - all), 1e-9 * all);
  ck_assert_double_le(fabs(e.output_error2 - left), 1e-9 * left);
  qn_planes_free(three);
  three = quantize(&f, "rtn", "minmax", 1, &again);
  ck_assert_int_eq(qn__dequantize(&f, three, 0, N, is), QN_OK);
  double nearest = output_square(is);
  ck_assert_msg(left < nearest || (f.bits >= 8 && left <= 1.01 * nearest), "%s: error of the outputs %g, minmax %g",
                f.name, left, nearest);
  qn_planes_free(p);
  qn_planes_free(three);
}
END_TEST

/* ---- Scales of inputs -------------------------------------------------------------------------------------------- */

/* The error of the outputs of nearest codes, columns multiplied by s before and divided after. */
static double scaled_error(const qn_format *f, const float *s) {
  static float was[COUNT];
  static double is[COUNT];
  qn__quantize_error e;
  memcpy(was, w, sizeof w);
  for (int i = 0; i < COUNT; i++) w[i] *= s[i % K];
  qn_planes *p = quantize(f, "rtn", "minmax", 1, &e);
  ck_assert_int_eq(qn__dequantize(f, p, 0, N, is), QN_OK);
  for (int i = 0; i < COUNT; i++) is[i] /= (double)s[i % K];
  memcpy(w, was, sizeof w);
  qn_planes_free(p);
  return output_square(is);
}

static const char *const grouped[] = {"int4.g48.z", "int3.g16", "nf4.g48.f32", "int8.row"};

START_TEST(scaled_inputs_lower_the_error_of_nearest_codes) {
  float scale[K], again[K], ones[K];
  qn_format f = format_of(grouped[_i]);
  enum { FIRST = 30 }; /* rows of the first of two weights that read the input */
  const qn__awq_weight weights[] = {{&f, w, FIRST}, {&f, w + FIRST * K, N - FIRST}};
  qn__awq_found found, same;
  for (int t = 0; t < TOKENS; t++) x[t * K + 5] = 0, x[t * K + 40] *= 30;
  look(QN__SEE_PRODUCTS);
  for (int i = 0; i < K; i++) ones[i] = 1;
  ck_assert_int_eq(qn__awq_search(weights, 2, &seen, NULL, 1, scale, &found), QN_OK);
  ck_assert_int_eq(qn__awq_search(weights, 2, &seen, NULL, 3, again, &same), QN_OK);
  ck_assert(!memcmp(scale, again, sizeof scale) && !memcmp(&found, &same, sizeof found));
  double before = scaled_error(&f, ones), now = scaled_error(&f, scale), all = output_square(NULL);
  ck_assert_double_le(fabs(found.output2 - all), 1e-9 * all);
  ck_assert_double_le(fabs(found.before2 - before), 1e-6 * before);
  ck_assert_double_le(fabs(found.scaled2 - now), 1e-4 * now); /* products with a scale that is rounded */
  ck_assert_msg(now < 0.8 * before, "%s: %g, unscaled %g", f.name, now, before);
  ck_assert_double_eq((double)scale[5], 1); /* nothing is known of it */
}
END_TEST

/* Of weights that are all the same and inputs that are as strong no scale is better than none. */
START_TEST(where_nothing_is_to_be_gained_nothing_is_scaled) {
  float scale[K];
  qn_format f = format_of("bf16");
  const qn__awq_weight weight = {&f, w, N};
  qn__awq_found found;
  for (int i = 0; i < COUNT; i++) w[i] = 1;
  look(QN__SEE_PRODUCTS);
  ck_assert_int_eq(qn__awq_search(&weight, 1, &seen, NULL, 2, scale, &found), QN_OK);
  ck_assert_double_eq(found.exponent, -1);
  for (int i = 0; i < K; i++) ck_assert_double_eq((double)scale[i], 1);
}
END_TEST

/* ---- Scales ------------------------------------------------------------------------------------------------------ */

static double weighted_error(const qn_format *f, const qn_planes *p) {
  static double is[COUNT];
  double sum = 0;
  ck_assert_int_eq(qn__dequantize(f, p, 0, N, is), QN_OK);
  for (int i = 0; i < COUNT; i++) sum += seen.square[i % K] * pow((double)w[i] - is[i], 2);
  return sum;
}

static const char *const searched[] = {"int4.g32.z", "int3.g48", "nf4.g64.f32", "q4_k", "nvfp4"};

START_TEST(importance_lowers_the_error_where_inputs_are_strong) {
  qn_format f = format_of(searched[_i]);
  qn__quantize_error e;
  look(0);
  qn_planes *plain = quantize(&f, "rtn", "mse", 1, &e), *weighted = quantize(&f, "imatrix", NULL, 2, &e);
  double before = weighted_error(&f, plain), now = weighted_error(&f, weighted);
  ck_assert_msg(now < before, "%s: %g, without importance %g", f.name, now, before);
  qn_planes_free(plain);
  qn_planes_free(weighted);
}
END_TEST

/* The largest weight of each group is exact, whatever its sign, but for the rounding of the scale. */
START_TEST(full_range_meets_the_largest_weight) {
  static const char *const spelling[] = {"int4.g48.f32", "int2.g16.f32"};
  static double is[COUNT];
  qn_format f = format_of(spelling[_i]);
  int group = (int)f.plane[0].cols;
  qn__quantize_error e;
  qn_planes *p = quantize(&f, "rtn", "full", 1, &e);
  ck_assert_int_eq(qn__dequantize(&f, p, 0, N, is), QN_OK);
  int signs[2] = {0};
  for (int g = 0; g < COUNT; g += group) {
    int most = g;
    for (int i = g; i < g + group; i++)
      if (fabsf(w[i]) > fabsf(w[most])) most = i;
    double far = fabs((double)w[most] - is[most]);
    ck_assert_msg(far <= 1e-6 * fabs((double)w[most]), "%s: %g became %g", f.name, (double)w[most], is[most]);
    signs[w[most] > 0]++;
  }
  ck_assert(signs[0] && signs[1]);
  qn_planes_free(p);
}
END_TEST

/* ---- Refusals ---------------------------------------------------------------------------------------------------- */

static void no_tokens(void) { seen.tokens = 0; }
static void only_zeros(void) { memset(seen.h, 0, (size_t)(seen.pad * seen.pad) * sizeof *seen.h); }
static void indefinite(void) { seen.h[3 * seen.pad + 7] = seen.h[7 * seen.pad + 3] = 1e9; }
static void means_only(void) {
  qn__inputs_fini(&seen);
  look(0);
}
static void other_width(void) { seen.k = K - 1; }

static const struct {
  const char *method;
  void (*spoil)(void);
  const char *message;
  qn_status status;
  const char *scales;
} refused[] = {
    {"gptq", no_tokens, "calibration did not reach it", QN_E_ARG, NULL},
    {"imatrix", no_tokens, "calibration did not reach it", QN_E_ARG, NULL},
    {"gptq", only_zeros, "all of its inputs are 0", QN_E_ARG, NULL},
    {"gptq", indefinite, "not positive definite", QN_E_ARG, NULL},
    {"gptq", means_only, "method 'gptq' needs", QN_E_ARG, NULL},
    {"gptaq", NULL, "method 'gptaq' needs", QN_E_ARG, NULL},
    {"awq", means_only, "method 'awq' needs", QN_E_ARG, NULL},
    {"awq", no_tokens, "calibration did not reach it", QN_E_ARG, NULL},
    {"imatrix", means_only,
     "scales 'outputs' need products of the inputs, from calibration with one of awq, gptq, gptaq, awq+gptq, awq+gptaq",
     QN_E_ARG, "outputs"},
    {"gptq", other_width, "statistics of 143 inputs for K = 144", QN_E_SHAPE, NULL},
};

START_TEST(what_calibration_cannot_tell_is_refused) {
  qn_format f = format_of("int4.g16");
  qn_planes *p;
  qn__quantize_error e;
  look(QN__SEE_PRODUCTS);
  if (refused[_i].spoil) refused[_i].spoil();
  const qn__quantize_options o = {refused[_i].method, refused[_i].scales, 1, &seen};
  ck_assert_int_eq(qn__quantize(&f, w, N, K, &o, &p, &e), refused[_i].status);
  ck_assert_msg(strstr(qn__errmsg(), refused[_i].message) != NULL, "%s", qn__errmsg());
  ck_assert_ptr_null(p);
  seen.k = K;
}
END_TEST

/* A column whose input is always 0 is rounded to nearest and disturbs nothing. */
START_TEST(an_input_that_is_always_zero_stands_alone) {
  static double is[COUNT], nearest[COUNT];
  qn_format f = format_of("int4.g16");
  qn__quantize_error e;
  for (int t = 0; t < TOKENS; t++) x[t * K + 5] = 0;
  look(QN__SEE_PRODUCTS);
  qn_planes *p = quantize(&f, "gptq", NULL, 1, &e), *r = quantize(&f, "rtn", NULL, 1, &e);
  ck_assert_int_eq(qn__dequantize(&f, p, 0, N, is), QN_OK);
  ck_assert_int_eq(qn__dequantize(&f, r, 0, N, nearest), QN_OK);
  for (int n = 0; n < N; n++) ck_assert_double_eq(is[n * K + 5], nearest[n * K + 5]);
  qn_planes_free(p);
  qn_planes_free(r);
}
END_TEST

START_TEST(an_input_that_is_no_number_is_named) {
  x[7 * K + 3] = INFINITY;
  ck_assert_int_eq(qn__inputs_init(&seen, K, 0), QN_OK);
  ck_assert_int_eq(qn__inputs_add(&seen, pool, x, NULL, TOKENS), QN_E_ARG);
  ck_assert_msg(strstr(qn__errmsg(), "input 3 of a token is inf") != NULL, "%s", qn__errmsg());
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  const suite_case cases[] = {
      CASE(factors_and_solutions_give_the_matrix_back, 1),
      CASE(what_is_not_positive_definite_is_told, 1),
      CASE(codes_are_those_of_the_textbook, 2 * QN_COUNT(textbook_formats)),
      CASE(feedback_serves_every_format, QN_COUNT(formats)),
      CASE(nearest_codes_serve_the_outputs, QN_COUNT(formats)),
      CASE(scaled_inputs_lower_the_error_of_nearest_codes, QN_COUNT(grouped)),
      CASE(where_nothing_is_to_be_gained_nothing_is_scaled, 1),
      CASE(importance_lowers_the_error_where_inputs_are_strong, QN_COUNT(searched)),
      CASE(full_range_meets_the_largest_weight, 2),
      CASE(what_calibration_cannot_tell_is_refused, QN_COUNT(refused)),
      CASE(an_input_that_is_always_zero_stands_alone, 1),
      CASE(an_input_that_is_no_number_is_named, 1),
  };
  return RUN_CASES(argv[0], cases, .enter = setup, .leave = teardown, .timeout = 60);
}
