/* rule.c - what a decode rule is made of: which planes multiply the code, which stand alone, what the codes mean.
 *
 * A rule that is a sum of products of planes, evaluated where each plane is 0 or 1, shows its coefficients. */
#include "convert.h"
#include "fail.h"
#include "fit.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

void qn__rule_decode(const qn_format *f, int n, const double *q, const double *plane, double *out) {
  double block[1 + QN_FORMAT_PLANES][QN_EXPR_BLOCK];
  const double *var[1 + QN_FORMAT_PLANES];
  for (uint32_t i = 0; i <= f->n_planes; i++) var[i] = block[i];
  for (uint32_t i = 1; i <= f->n_planes; i++)
    for (int j = 0; j < QN_EXPR_BLOCK; j++) block[i][j] = plane[i - 1];
  for (int at = 0; at < n; at += QN_EXPR_BLOCK) {
    int m = n - at < QN_EXPR_BLOCK ? n - at : QN_EXPR_BLOCK;
    memcpy(block[0], q + at, (size_t)m * sizeof *q);
    qn__expr_f64(qn__decode_rule(f), m, var, f->table, out + at, NULL);
  }
}

/* The coefficients of every product of planes, for each code: values where the planes of the set are 1 and the others
 * 0, then those of its subsets taken away. */
static void coefficients(const qn_format *f, int n, const double *q, double (*out)[QN_CODES]) {
  for (uint32_t set = 0; set < 1u << f->n_planes; set++) {
    double plane[QN_FORMAT_PLANES];
    for (uint32_t i = 0; i < f->n_planes; i++) plane[i] = set >> i & 1;
    qn__rule_decode(f, n, q, plane, out[set]);
  }
  for (uint32_t i = 0; i < f->n_planes; i++)
    for (uint32_t set = 0; set < 1u << f->n_planes; set++)
      for (int j = 0; set >> i & 1 && j < n; j++) out[set][j] -= out[set ^ 1u << i][j];
}

static bool constant(const double *x, int n) {
  for (int i = 1; i < n; i++)
    if (x[i] != x[0]) return false;
  return true;
}

/* Do the coefficients give the rule's values elsewhere, too? */
static bool sum_of_products(const qn_format *f, int n, const double *q, double (*c)[QN_CODES]) {
  double plane[QN_FORMAT_PLANES], is[QN_CODES], sum;
  for (uint32_t i = 0; i < f->n_planes; i++) plane[i] = 2;
  qn__rule_decode(f, n, q, plane, is);
  for (int j = 0; j < n; j++) {
    sum = 0;
    for (uint32_t set = 0; set < 1u << f->n_planes; set++) sum += ldexp(c[set][j], __builtin_popcount(set));
    if (!(fabs(sum - is[j]) <= 1e-9 * (fabs(sum) + 1))) return false;
  }
  return true;
}

/* Which set the code multiplies, and which one stands alone. */
static qn_status split_terms(qn__rule *r, const qn_format *f, int n, double (*c)[QN_CODES]) {
  int slopes = 0, offsets = 0;
  for (uint32_t set = 0; set < 1u << f->n_planes; set++)
    if (!constant(c[set], n)) {
      slopes++;
      r->slope = set;
    } else if (c[set][0] != 0) {
      offsets++;
      r->offset = set;
      r->c = c[set][0];
    }
  if (slopes != 1 || offsets > 1 || (offsets && !(r->offset & ~r->slope)))
    return qn__fail(QN_E_SHAPE,
                    "format '%s': a rule of %d products with the code and %d without; it can be written with "
                    "one, and at most one that has a plane of its own",
                    f->name, slopes, offsets);
  return QN_OK;
}

typedef struct meaning {
  double map, q;
  int code;
} meaning;

static int by_map(const void *x, const void *y) {
  const meaning *a = x, *b = y;
  return a->map < b->map ? -1 : a->map > b->map ? 1 : a->code - b->code;
}

static void order_codes(qn__rule *r, meaning *m, int n) {
  qsort(m, (size_t)n, sizeof *m, by_map);
  for (int i = 0; i < n; i++) {
    if (r->n && m[i].map == r->map[r->n - 1]) continue;
    r->map[r->n] = m[i].map;
    r->q[r->n] = m[i].q;
    r->code[r->n++] = (uint8_t)m[i].code;
  }
  for (int i = 0; i < r->n; i++) r->falling[i] = r->code[r->n - 1 - i];
  int zero = 0;
  for (int i = 1; i < r->n; i++)
    if (fabs(r->map[i]) < fabs(r->map[zero])) zero = i;
  r->zero = r->code[zero];
}

/* The numbers that codes mean: all of them where that is few, else two that show the slope. */
static int numbers(const qn_format *f, double q[QN_CODES], int code[QN_CODES]) {
  int n = 0;
  if (f->bits > 8) return q[0] = 0, q[1] = 1, 2;
  for (uint32_t c = 0; c < 1u << f->bits; c++) {
    uint8_t byte = (uint8_t)c;
    q[n] = f->cast ? qn__load_f64((qn_type)f->cast, &byte, 0) : c;
    code[n] = (int)c;
    n += isfinite(q[n]) != 0;
  }
  return n;
}

qn_status qn__rule_read(qn__rule *r, const qn_format *f) {
  double q[QN_CODES], (*c)[QN_CODES] = calloc((size_t)1 << f->n_planes, sizeof *c);
  int code[QN_CODES], n = numbers(f, q, code);
  meaning m[QN_CODES];
  if (!c) return qn__fail(QN_E_NOMEM, "the rule of format '%s'", f->name);
  coefficients(f, n, q, c);
  qn_status s = sum_of_products(f, n, q, c)
                    ? split_terms(r, f, n, c)
                    : qn__fail(QN_E_SHAPE, "format '%s': its rule is no sum of products of planes", f->name);
  for (int i = 0; !s && i < n; i++) m[i] = (meaning){c[r->slope][i], q[i], code[i]};
  if (!s && f->bits <= 8) order_codes(r, m, n);
  free(c);
  return s;
}

/* ---- Slopes and offsets ------------------------------------------------------------------------------------------ */

double qn__rule_reach(const qn__rule *r, double lo, double hi) {
  if (!r->n) return 1;
  double least = r->map[0], most = r->map[r->n - 1];
  return fmax(hi > 0 && most > 0 ? hi / most : 0, lo < 0 && least < 0 ? lo / least : 0);
}

/* Of a map that reaches as far up as down the sign is as good as the other. */
static double full_range(const qn__rule *r, double lo, double hi) {
  double least = r->map[0], most = r->map[r->n - 1], largest = -lo > hi ? lo : hi;
  return -least == most ? fabs(largest) / most : largest / (-least > most ? least : most);
}

void qn__rule_ideal(const qn__rule *r, double lo, double hi, double *a, double *b) {
  *a = r->full && r->n ? full_range(r, lo, hi) : qn__rule_reach(r, lo, hi);
  *b = 0;
  if (!r->n || !r->offset) return;
  *a = (hi - lo) / (r->map[r->n - 1] - r->map[0]);
  *b = lo - *a * r->map[0];
}
