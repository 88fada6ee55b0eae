/* test_quantize.c - weights into every format of templates/formats, grain by grain and type by type: each code is the
 * nearest by the decode rule, nothing is clipped, every code is reached, what a format can represent comes back. */
#include "fail.h"
#include "generator.h"
#include "io_format.h"
#include "quantize.h"
#include "quernel_io.h"
#include "suite.h"
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 4, K = 280, COUNT = N * K, CODES = 256 };

static uint64_t seed;
static double uniform(void) { /* -1 .. 1, splitmix64 (Steele, Lea, Flood) */
  uint64_t z = seed += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return (double)((z ^ z >> 31) >> 11) * 0x1p-52 - 1;
}

/* ---- One format, quantized --------------------------------------------------------------------------------------- */

typedef struct made {
  qn_format f;
  float w[COUNT];
  qn_planes *p;
  qn__quantize_error e;
  double value[CODES][COUNT]; /* what each code would mean in each place; NaN where it means no number */
  int n;                      /* codes; 0: too many to try each */
  double is[COUNT];
} made;

static made *begin(const char *spelling) {
  static made one; /* large, and each case has its own process */
  made *m = &one;
  const char *wrong = generator_format(spelling, &m->f);
  ck_assert_msg(!wrong, "%s: %s", spelling, wrong);
  m->n = m->f.bits <= 8 ? 1 << m->f.bits : 0;
  return m;
}

static void finish(made *m) {
  qn_planes_free(m->p);
  m->p = NULL;
}

static uint8_t *codes(const made *m) { return (uint8_t *)(uintptr_t)m->p->plane[0].data; }

static void decode_each_code(made *m) {
  uint8_t keep[COUNT];
  memcpy(keep, codes(m), sizeof keep);
  for (int c = 0; c < m->n; c++) {
    memset(codes(m), c, COUNT);
    ck_assert_int_eq(qn__dequantize(&m->f, m->p, 0, N, m->value[c]), QN_OK);
  }
  memcpy(codes(m), keep, sizeof keep);
}

static void quantize(made *m, const char *scales) {
  qn_planes_free(m->p);
  qn_status s = qn__quantize(&m->f, m->w, N, K, &(qn__quantize_options){.scales = scales, .threads = 1}, &m->p, &m->e);
  ck_assert_msg(s == QN_OK, "%s: %s", m->f.name, qn__errmsg());
  ck_assert_msg(qn__planes_check(NULL, &m->f, m->p) == QN_OK, "%s: %s", m->f.name, qn__errmsg());
  ck_assert_int_eq(qn__dequantize(&m->f, m->p, 0, N, m->is), QN_OK);
}

static void quantize_and_look(made *m, const char *scales) {
  quantize(m, scales);
  decode_each_code(m);
}

/* ---- Nearest ----------------------------------------------------------------------------------------------------- */

/* The code that quantize.h promises for place i, by trying all. */
static int promised(const made *m, int i) {
  int best = -1;
  double least = INFINITY, smallest = INFINITY;
  for (int c = 0; c < m->n; c++) {
    double v = m->value[c][i], d = fabs(v - (double)m->w[i]);
    if (!isfinite(v) || d > least) continue;
    bool same = best >= 0 && v == m->value[best][i];
    if (d < least || (!same && best % 2 && c % 2 == 0)) least = d, best = c;
    smallest = fmin(smallest, fabs(v));
  }
  return best;
}

static void check_nearest(const made *m) {
  double error2 = 0, weight2 = 0, largest = 0;
  for (int i = 0; i < COUNT; i++) {
    double d = (double)m->w[i] - m->is[i];
    error2 += d * d;
    weight2 += (double)m->w[i] * (double)m->w[i];
    largest = fmax(largest, fabs(d));
    if (!m->n) continue;
    int c = promised(m, i);
    ck_assert_msg(fabs(d) == fabs((double)m->w[i] - m->value[c][i]), "%s: [%d, %d] is %g and became %g; %g is nearer",
                  m->f.name, i / K, i % K, (double)m->w[i], m->is[i], m->value[c][i]);
    bool flat = m->value[codes(m)[i]][i] == m->value[c][i]; /* several codes mean the same */
    ck_assert_msg(codes(m)[i] == c || flat, "%s: [%d, %d] has code %d, of two as near %d is promised", m->f.name, i / K,
                  i % K, codes(m)[i], c);
  }
  ck_assert_double_le(fabs(m->e.error2 - error2), 1e-9 * error2);
  ck_assert_double_le(fabs(m->e.weight2 - weight2), 1e-9 * weight2);
  ck_assert_double_eq(m->e.largest, largest);
}

/* Half the distance from the code's value to the next, on the side of the weight or, at an end, on the other. */
static double half_step(const made *m, int i) {
  double v = m->is[i], above = INFINITY, below = -INFINITY;
  for (int c = 0; c < m->n; c++) {
    double x = m->value[c][i];
    if (!isfinite(x)) continue;
    if (x > v) above = fmin(above, x);
    if (x < v) below = fmax(below, x);
  }
  if (isinf(above) && isinf(below)) return 0; /* all codes mean the same */
  if (isinf(above) || (isfinite(below) && (double)m->w[i] < v)) return (v - below) / 2;
  return (above - v) / 2;
}

/* `slack` in half steps: what rounding the zero point to its type costs. */
static void check_half_step(const made *m, double slack) {
  for (int i = 0; m->n && i < COUNT; i++) {
    double d = fabs((double)m->w[i] - m->is[i]), half = half_step(m, i);
    ck_assert_msg(d <= half * (1 + slack) + 1e-12 * fabs(m->is[i]), "%s: [%d, %d] is %g, became %g; half a step is %g",
                  m->f.name, i / K, i % K, (double)m->w[i], m->is[i], half);
  }
}

/* ---- Weights ----------------------------------------------------------------------------------------------------- */

static void bell(float *w) {
  for (int i = 0; i < COUNT; i++) w[i] = (float)(0.03 * (uniform() + uniform() + uniform() + uniform()));
}
static void outlier(float *w) {
  bell(w);
  w[3 * K + 77] = 1000;
}
static void zero_rows(float *w) {
  bell(w);
  memset(w + 2 * K, 0, 2 * K * sizeof *w);
}
static void positive(float *w) {
  for (int i = 0; i < COUNT; i++) w[i] = (float)(0.05 + 0.02 * uniform());
}
static void tiny(float *w) {
  for (int i = 0; i < COUNT; i++) w[i] = (float)(1e-6 * uniform());
}

static const struct {
  const char *name;
  void (*fill)(float *w);
} kinds[] = {{"bell", bell}, {"outlier", outlier}, {"zero rows", zero_rows}, {"positive", positive}, {"tiny", tiny}};

/* An f16 zero point below 256 is off by up to 1/16 of a step. */
static double slack_of(const made *m) {
  for (uint32_t i = 0; i < m->f.n_planes; i++)
    if (!strcmp(m->f.plane[i].name, "zero") && m->f.plane[i].type == QN_T_F16) return 0.125 + 1e-9;
  return 1e-9;
}

/* One bit without a zero point: 0 and a negative number, which no positive weight is within half a step of. */
static bool one_sided(const made *m) {
  for (int c = 0; c < m->n; c++)
    if (m->value[c][0] > 0) return false;
  return m->n != 0;
}

/* To try 256 codes takes long: wide formats, which are many, meet every other kind of weights. */
static void codes_are_nearest_and_nothing_is_clipped(made *m, uint64_t start) {
  enum { FEW = 64 };
  const bool wide = m->n > FEW;
  for (size_t kind = wide ? start % 2 : 0; kind < QN_COUNT(kinds); kind += wide ? 2 : 1) {
    seed = start;
    kinds[kind].fill(m->w);
    quantize_and_look(m, "minmax");
    check_nearest(m);
    if (!one_sided(m)) check_half_step(m, slack_of(m));
  }
}

/* Of 8 bits and more there is nothing to gain, but the last bit of a scale may fall the other way. */
static void mse_has_the_lesser_error(made *m, uint64_t start) {
  seed = start;
  bell(m->w);
  quantize(m, "minmax");
  double before = m->e.error2;
  quantize_and_look(m, "mse");
  check_nearest(m);
  ck_assert_msg(m->e.error2 <= 1.01 * before, "%s: %g, with minmax %g", m->f.name, m->e.error2, before);
}

/* ---- What a format can represent --------------------------------------------------------------------------------- */

/* Weights that are codes' values under the planes at hand: all codes in turn, the extreme ones in every 16 columns. */
static void take_values(made *m, int phase) {
  for (int i = 0; i < COUNT; i++) {
    int least = -1, most = -1, any = (i + i / K + phase) % m->n;
    for (int c = 0; c < m->n; c++) {
      if (!isfinite(m->value[c][i])) continue;
      if (least < 0 || m->value[c][i] < m->value[least][i]) least = c;
      if (most < 0 || m->value[c][i] > m->value[most][i]) most = c;
    }
    if (!isfinite(m->value[any][i])) any = least;
    m->w[i] = (float)m->value[i % K % 16 == 0 ? least : i % K % 16 == 1 ? most : any][i];
  }
}

/* One level of planes, narrow enough that a product with a code is exact in f32. */
static bool exact(const made *m) {
  for (uint32_t i = 0; i < m->f.n_planes; i++)
    if (m->f.plane[i].rows != m->f.plane[0].rows || m->f.plane[i].cols != m->f.plane[0].cols ||
        qn_type_bits((qn_type)m->f.plane[i].type) > 16)
      return false;
  return m->n != 0;
}

static void every_code_is_reached_and_representable_weights_come_back(made *m, uint64_t start) {
  bool used[CODES] = {false};
  double before[COUNT];
  seed = start;
  bell(m->w);
  quantize_and_look(m, "minmax");
  for (int phase = 0; m->n && phase < 2; phase++) {
    take_values(m, 131 * phase);
    quantize_and_look(m, "minmax"); /* its planes may differ from the first ones; from here on nothing moves */
    take_values(m, 131 * phase);
    memcpy(before, m->is, sizeof before);
    quantize_and_look(m, "minmax");
    for (int i = 0; i < COUNT; i++) {
      used[codes(m)[i]] = true;
      ck_assert_msg(!exact(m) || (float)m->is[i] == m->w[i], "%s: [%d, %d] is %.17g, came back as %.17g", m->f.name,
                    i / K, i % K, (double)m->w[i], m->is[i]);
    }
  }
  for (int c = 0; c < m->n; c++) {
    bool twin = !isfinite(m->value[c][0]);
    for (int lower = 0; lower < c; lower++) twin = twin || m->value[lower][0] == m->value[c][0];
    ck_assert_msg(used[c] || twin, "%s: code %d is never used", m->f.name, c);
  }
}

/* Halfway between two codes the even one is taken. */
static void ties_are_decided_as_promised(made *m, uint64_t start) {
  seed = start;
  bell(m->w);
  quantize_and_look(m, "minmax");
  for (int again = 0; m->n && again < 2; again++) {
    take_values(m, 0);
    quantize_and_look(m, "minmax");
  }
  for (int i = 0; m->n && i < COUNT; i++)
    if (i % K % 16 > 1) m->w[i] = (float)(m->is[i] + half_step(m, i));
  quantize_and_look(m, "minmax");
  check_nearest(m);
}

/* ---- Edges ------------------------------------------------------------------------------------------------------- */

static void zero_rows_decode_to_zero(made *m, uint64_t start) {
  seed = start;
  zero_rows(m->w);
  quantize_and_look(m, "minmax");
  double smallest = INFINITY; /* where a scale is shared with other rows: the value nearest to zero */
  for (int c = 0; c < m->n; c++) smallest = fmin(smallest, fabs(m->value[c][2 * K]));
  for (int i = 2 * K; i < 4 * K; i++)
    ck_assert_msg(fabs(m->is[i]) <= (m->n ? smallest : 0), "%s: [%d, %d] is %g", m->f.name, i / K, i % K, m->is[i]);
}

static void threads_do_not_show(made *m, uint64_t start) {
  seed = start;
  bell(m->w);
  quantize(m, "mse");
  qn_planes *p;
  qn__quantize_error e;
  const qn__quantize_options three = {.scales = "mse", .threads = 3};
  ck_assert_int_eq(qn__quantize(&m->f, m->w, N, K, &three, &p, &e), QN_OK);
  ck_assert_double_eq(e.error2, m->e.error2);
  for (int i = 0; i < p->n_planes; i++) {
    const qn_plane *a = &p->plane[i], *b = &m->p->plane[i];
    size_t bytes = (size_t)(a->rows * a->cols) * ((size_t)qn_type_bits(a->type) / 8);
    ck_assert_msg(!memcmp(a->data, b->data, bytes), "%s: %s differs", m->f.name, a->name);
  }
  qn_planes_free(p);
}

START_TEST(each_format) {
  static void (*const parts[])(made *, uint64_t) = {
      codes_are_nearest_and_nothing_is_clipped,
      mse_has_the_lesser_error,
      every_code_is_reached_and_representable_weights_come_back,
      ties_are_decided_as_promised,
      zero_rows_decode_to_zero,
      threads_do_not_show,
  };
  for (size_t i = 0; i < QN_COUNT(parts); i++) {
    made *m = begin(io_format_spelling(_i));
    parts[i](m, (uint64_t)_i);
    finish(m);
  }
}
END_TEST

static const struct {
  const char *format, *method, *scales, *message;
  float weight; /* at [2, 5] */
  qn_status status;
} refused[] = {
    {"int4.g128", NULL, NULL, "[2, 5] is nan", NAN, QN_E_ARG},
    {"int4.g128", NULL, "mse", "[2, 5] is -inf", -INFINITY, QN_E_ARG},
    {"f16", NULL, NULL, "'codes'[2, 5]", 1e6f, QN_E_ARG},
    {"int4.g128", NULL, NULL, "'scale'[2, 0] of format 'int4.g128': 142857 is beyond f16", 1e6f, QN_E_LIMIT},
    {"int4.g128.bf16", NULL, NULL, NULL, 1e6f, QN_OK},
    {"int4.g128", "best", NULL, "method 'best'; known: rtn, imatrix, awq, gptq, gptaq, awq+gptq, awq+gptaq", 1,
     QN_E_ARG},
    {"int4.g128", NULL, "best", "scales 'best'; known: minmax, mse, outputs, full, full-mse", 1, QN_E_ARG},
    {"int4.g128.z", NULL, "full", "'int4.g128.z' has a zero point", 1, QN_E_ARG},
    {"int4.g128", "gptq", NULL, "'gptq' needs statistics", 1, QN_E_ARG},
};

START_TEST(what_cannot_be_is_refused) {
  made *m = begin(refused[_i].format);
  bell(m->w);
  m->w[2 * K + 5] = refused[_i].weight;
  const qn__quantize_options o = {refused[_i].method, refused[_i].scales, 1, NULL};
  ck_assert_int_eq(qn__quantize(&m->f, m->w, N, K, &o, &m->p, &m->e), refused[_i].status);
  if (refused[_i].message) {
    ck_assert_msg(strstr(qn__errmsg(), refused[_i].message) != NULL, "%s", qn__errmsg());
    ck_assert_ptr_null(m->p);
  }
  finish(m);
}
END_TEST

/* Rules that are no sum of products, or leave the choice between two products open. */
static const struct {
  const char *what;
  qn_pool decode; /* of q and two planes, a and b */
} rules[] = {
    {"sum of products", {3, {{QN_OP_VAR, 0, 0}, {QN_OP_VAR, 1, 0}, {QN_OP_DIV, 0, 0}}}},
    {"sum of products",
     {5, {{QN_OP_VAR, 0, 0}, {QN_OP_VAR, 1, 0}, {QN_OP_MUL, 0, 0}, {QN_OP_VAR, 1, 0}, {QN_OP_MUL, 0, 0}}}},
    {"0 products with the code", {1, {{QN_OP_VAR, 1, 0}}}},
    {"2 products with the code",
     {5, {{QN_OP_VAR, 0, 0}, {QN_OP_VAR, 1, 0}, {QN_OP_VAR, 2, 0}, {QN_OP_ADD, 0, 0}, {QN_OP_MUL, 0, 0}}}},
};

START_TEST(rules_that_cannot_be_written_are_refused) {
  made *m = begin("int4");
  m->f = (qn_format){.name = "odd", .bits = 4, .codes = QN_T_U8, .n_planes = 2, .decode = rules[_i].decode};
  for (int i = 0; i < 2; i++)
    m->f.plane[i] = (qn_format_plane){.name = {(char)('a' + i)}, .type = QN_T_F16, .rows = 1, .cols = 32};
  ck_assert_int_eq(qn__format_check(&m->f), QN_OK);
  ck_assert_int_eq(qn__quantize(&m->f, m->w, N, K, NULL, &m->p, &m->e), QN_E_SHAPE);
  ck_assert_msg(strstr(qn__errmsg(), rules[_i].what) != NULL, "%s", qn__errmsg());
  finish(m);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  int formats = 0;
  while (io_format_spelling(formats)) formats++;
  Suite *s = suite_create("quantize");
  TCase *t = tcase_create("formats");
  tcase_set_timeout(t, 120);
  tcase_add_loop_test(t, each_format, 0, formats);
  tcase_add_loop_test(t, what_cannot_be_is_refused, 0, (int)QN_COUNT(refused));
  tcase_add_loop_test(t, rules_that_cannot_be_written_are_refused, 0, (int)QN_COUNT(rules));
  suite_add_tcase(s, t);
  return run_suite(s, argv[0]);
}
