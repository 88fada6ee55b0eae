/* quantize.c - see quantize.h. How a format is understood, its planes fitted, its codes chosen.
 *
 * A decode rule that is a sum of products of planes, evaluated where each plane is 0 or 1, shows its coefficients:
 *
 *     W = map(code) * product(slope) + c * product(offset)        slope, offset: sets of planes
 *
 * A *cell* is the largest block of weights over which no plane changes. Each cell has a range of weights, and so a
 * slope and an offset that would serve it best as plain numbers. Planes are fitted to these one after the other, those
 * shared by more weights first: each gets what the cells under it need, when the planes still to come take their
 * largest value. What rounding left over, the later ones see.
 *
 * A method decides codes and planes together, from the whole fit; they are listed at the end of the file. */
#include "quantize.h"
#include "convert.h"
#include "cpu.h"
#include "model.h"
#include "pool.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CODES = 256 };

typedef struct rule {
  uint32_t slope, offset; /* bit i: plane i */
  double c;
  int n; /* numbers that a code can mean, ascending, each once; 0: codes are wide floats */
  double map[CODES], q[CODES];
  uint8_t code[CODES], zero; /* zero: the code nearest to it */
} rule;

typedef struct fit {
  const qn_format *f;
  rule r;
  const float *w;
  int64_t n, k;
  int64_t rows, cols, across, cells; /* weights of a cell; cells in a row of them, and in all */
  double *lo, *hi, *a, *b;           /* of each cell: range, slope, offset */
  uint32_t done;                     /* planes that are fitted */
  bool mse;
  uint32_t refined; /* the plane that threads try neighbours of */
  qn_planes *p;
  qn_pool *pool;
  qn__quantize_error *row;
} fit;

/* ---- The rule ---------------------------------------------------------------------------------------------------- */

/* The decode rule for n codes that are the numbers q, where plane i is plane[i]. */
static void decode(const qn_format *f, int n, const double *q, const double *plane, double *out) {
  double block[1 + QN_FORMAT_PLANES][QN_EXPR_BLOCK];
  const double *var[1 + QN_FORMAT_PLANES];
  for (uint32_t i = 0; i <= f->n_planes; i++) var[i] = block[i];
  for (uint32_t i = 1; i <= f->n_planes; i++)
    for (int j = 0; j < QN_EXPR_BLOCK; j++) block[i][j] = plane[i - 1];
  for (int at = 0; at < n; at += QN_EXPR_BLOCK) {
    int m = n - at < QN_EXPR_BLOCK ? n - at : QN_EXPR_BLOCK;
    memcpy(block[0], q + at, (size_t)m * sizeof *q);
    qn__expr_f64(&f->decode, m, var, f->table, out + at, NULL);
  }
}

/* The coefficients of every product of planes, for each code: values where the planes of the set are 1 and the others
 * 0, then those of its subsets taken away. */
static void coefficients(const qn_format *f, int n, const double *q, double (*out)[CODES]) {
  for (uint32_t set = 0; set < 1u << f->n_planes; set++) {
    double plane[QN_FORMAT_PLANES];
    for (uint32_t i = 0; i < f->n_planes; i++) plane[i] = set >> i & 1;
    decode(f, n, q, plane, out[set]);
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
static bool sum_of_products(const qn_format *f, int n, const double *q, double (*c)[CODES]) {
  double plane[QN_FORMAT_PLANES], is[CODES], sum;
  for (uint32_t i = 0; i < f->n_planes; i++) plane[i] = 2;
  decode(f, n, q, plane, is);
  for (int j = 0; j < n; j++) {
    sum = 0;
    for (uint32_t set = 0; set < 1u << f->n_planes; set++) sum += ldexp(c[set][j], __builtin_popcount(set));
    if (!(fabs(sum - is[j]) <= 1e-9 * (fabs(sum) + 1))) return false;
  }
  return true;
}

/* Which set the code multiplies, and which one stands alone. */
static qn_status split_terms(rule *r, const qn_format *f, int n, double (*c)[CODES]) {
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

static void order_codes(rule *r, meaning *m, int n) {
  qsort(m, (size_t)n, sizeof *m, by_map);
  for (int i = 0; i < n; i++) {
    if (r->n && m[i].map == r->map[r->n - 1]) continue;
    r->map[r->n] = m[i].map;
    r->q[r->n] = m[i].q;
    r->code[r->n++] = (uint8_t)m[i].code;
  }
  int zero = 0;
  for (int i = 1; i < r->n; i++)
    if (fabs(r->map[i]) < fabs(r->map[zero])) zero = i;
  r->zero = r->code[zero];
}

/* The numbers that codes mean: all of them where that is few, else two that show the slope. */
static int numbers(const qn_format *f, double q[CODES], int code[CODES]) {
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

static qn_status read_rule(rule *r, const qn_format *f) {
  double q[CODES], (*c)[CODES] = malloc(sizeof *c << f->n_planes);
  int code[CODES], n = numbers(f, q, code);
  meaning m[CODES];
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

/* ---- Elements of planes ------------------------------------------------------------------------------------------ */

/* The largest value of a type whose range is narrow; 0: it is wide. */
static double top(const qn_format_plane *s) {
  static const double of_type[QN_T_COUNT] = {
      [QN_T_U8] = 255,        [QN_T_U16] = 65535, [QN_T_U32] = 4294967295.0, [QN_T_I8] = 127,
      [QN_T_I32] = INT32_MAX, [QN_T_E4M3] = 448,  [QN_T_E5M2] = 57344};
  return s->max ? s->max : of_type[s->type];
}

static bool is_unsigned(const qn_format_plane *s) { return s->type <= QN_T_U32; }
static bool is_integer(const qn_format_plane *s) { return s->type <= QN_T_I32; }

static void *plane_data(const fit *t, uint32_t p) { return qn__fill(t->p, 1 + (int)p); }

/* The element of plane p that a cell uses. */
static int64_t element(const fit *t, uint32_t p, int64_t cell) {
  const qn_format_plane *s = &t->f->plane[p];
  int64_t row = cell / t->across * t->rows, col = cell % t->across * t->cols;
  return (s->rows ? row / s->rows : 0) * t->p->plane[1 + p].cols + (s->cols ? col / s->cols : 0);
}

static double value(const fit *t, uint32_t p, int64_t cell) {
  return qn__load_f64((qn_type)t->f->plane[p].type, plane_data(t, p), element(t, p, cell));
}

/* Make element i the next value above or below; false, and as it was, if there is none. */
static bool step(const qn_format_plane *s, void *data, int64_t i, bool up) {
  size_t bytes = (size_t)qn_type_bits((qn_type)s->type) / 8;
  char *at = (char *)data + (size_t)i * bytes;
  uint32_t old = 0, new, sign = s->type >= QN_T_F16 && s->type != QN_T_E8M0 ? 1u << (8 * bytes - 1) : 0;
  memcpy(&old, at, bytes);
  if (sign && !(old & ~sign)) new = up ? 1 : sign | 1;
  else new = old + (up == !(old & sign) ? 1 : UINT32_MAX); /* a negative float grows as its bits shrink */
  double before = qn__load_f64((qn_type)s->type, data, i);
  memcpy(at, &new, bytes);
  double after = qn__load_f64((qn_type)s->type, data, i);
  if (isfinite(after) && (up ? after > before : after < before) && !(s->max && after > s->max)) return true;
  memcpy(at, &old, bytes);
  return false;
}

typedef enum direction { NEAREST, DOWN, UP } direction;

/* x within a narrow type's limits, whole where the type is. */
static double admit(const qn_format_plane *s, double x) {
  double limit = top(s);
  if (limit) x = fmin(fmax(x, is_unsigned(s) ? 0 : -limit), limit);
  return is_integer(s) ? nearbyint(x) : x;
}

static double rounded(const qn_format_plane *s, double x) {
  double to;
  qn__store_f64((qn_type)s->type, &to, 0, admit(s, x));
  return qn__load_f64((qn_type)s->type, &to, 0);
}

/* Store x as element i of plane p. Narrow types saturate. */
static qn_status store(const fit *t, uint32_t p, int64_t i, double x, direction d) {
  const qn_format_plane *s = &t->f->plane[p];
  void *data = plane_data(t, p);
  qn__store_f64((qn_type)s->type, data, i, admit(s, x));
  double is = qn__load_f64((qn_type)s->type, data, i);
  if (!isfinite(is))
    return qn__fail(QN_E_LIMIT, "plane '%s'[%jd, %jd] of format '%s': %g is beyond %s; a wider type is needed", s->name,
                    (intmax_t)(i / t->p->plane[1 + p].cols), (intmax_t)(i % t->p->plane[1 + p].cols), t->f->name, x,
                    qn_type_name((qn_type)s->type));
  if (d == UP && is < x) step(s, data, i, true);
  if (d == DOWN && is > x) step(s, data, i, false);
  return QN_OK;
}

/* ---- Cells ------------------------------------------------------------------------------------------------------- */

static void find_range(void *ud, int64_t begin, int64_t end, int32_t thread) {
  fit *t = ud;
  (void)thread;
  for (int64_t c = begin; c < end; c++) {
    int64_t r0 = c / t->across * t->rows, k0 = c % t->across * t->cols;
    double lo = INFINITY, hi = -INFINITY;
    for (int64_t r = r0; r < t->n && r < r0 + t->rows; r++)
      for (int64_t k = k0; k < t->k && k < k0 + t->cols; k++) {
        double x = (double)t->w[r * t->k + k];
        lo = x < lo ? x : lo;
        hi = x > hi ? x : hi;
      }
    t->lo[c] = lo;
    t->hi[c] = hi;
  }
}

/* An integer offset without sign cannot leave zero outside the range. */
static bool holds_zero(const fit *t) {
  for (uint32_t i = 0; i < t->f->n_planes; i++)
    if (t->r.offset & ~t->r.slope & 1u << i && is_unsigned(&t->f->plane[i])) return true;
  return false;
}

static void widen_ranges(fit *t) {
  for (int64_t c = 0; c < t->cells; c++) {
    t->lo[c] = fmin(t->lo[c], 0);
    t->hi[c] = fmax(t->hi[c], 0);
  }
}

/* The least slope with which the map reaches from lo to hi, both counted from the offset. */
static double reach(const rule *r, double lo, double hi) {
  if (!r->n) return 1;
  double least = r->map[0], most = r->map[r->n - 1];
  return fmax(hi > 0 && most > 0 ? hi / most : 0, lo < 0 && least < 0 ? lo / least : 0);
}

/* Slope and offset as plain numbers, for a range. */
static void ideal(const rule *r, double lo, double hi, double *a, double *b) {
  *a = reach(r, lo, hi);
  *b = 0;
  if (!r->n || !r->offset) return;
  *a = (hi - lo) / (r->map[r->n - 1] - r->map[0]);
  *b = lo - *a * r->map[0];
}

/* The first of n ascending values that is not below x, or the last. */
static int lower_bound(const double *v, int n, double x) {
  int at = 0;
  for (; n > 1; n -= n / 2) at += v[at + n / 2 - 1] < x ? n / 2 : 0;
  return at;
}

static double cell_error(const fit *t, int64_t c, double a, double b) {
  const rule *r = &t->r;
  int64_t r0 = c / t->across * t->rows, k0 = c % t->across * t->cols;
  double sum = 0;
  for (int64_t n = r0; n < t->n && n < r0 + t->rows; n++)
    for (int64_t k = k0; k < t->k && k < k0 + t->cols; k++) {
      double x = ((double)t->w[n * t->k + k] - b) / a;
      int i = lower_bound(r->map, r->n, x);
      double e = r->map[i] - x, below = i ? x - r->map[i - 1] : INFINITY;
      e = below < fabs(e) ? below : e;
      sum += e * e;
    }
  return sum * a * a;
}

/* The only plane of a set, or NULL. */
static const qn_format_plane *only(const fit *t, uint32_t set) {
  return set && !(set & (set - 1)) ? &t->f->plane[__builtin_ctz(set)] : NULL;
}

/* Slope and offset as they will be stored, where one plane makes each; else as they are. */
static void settle(const fit *t, double lo, double *a, double *b) {
  const rule *r = &t->r;
  const qn_format_plane *slope = only(t, r->slope), *offset = only(t, r->offset & ~r->slope);
  if (slope) *a = rounded(slope, *a);
  if (!offset || (r->offset & r->slope && !slope)) return;
  double unit = r->c * (r->offset & r->slope ? *a : 1);
  if (unit != 0) *b = unit * rounded(offset, (lo - *a * r->map[0]) / unit);
}

/* Draw the range of a cell in to where its squared error is least. */
static void draw_in(void *ud, int64_t begin, int64_t end, int32_t thread) {
  fit *t = ud;
  (void)thread;
  for (int64_t c = begin; c < end; c++) {
    double lo = t->lo[c], hi = t->hi[c], least = INFINITY, a, b;
    double centre = t->r.offset && !holds_zero(t) ? (lo + hi) / 2 : 0;
    for (double share = 1; share > 0.1; share *= 0.95) {
      double l = centre + share * (lo - centre), h = centre + share * (hi - centre);
      ideal(&t->r, l, h, &a, &b);
      settle(t, l, &a, &b);
      double e = a > 0 ? cell_error(t, c, a, b) : INFINITY;
      if (e >= least) continue;
      least = e;
      t->lo[c] = l;
      t->hi[c] = h;
    }
  }
}

/* ---- Planes ------------------------------------------------------------------------------------------------------ */

/* Product of the planes of `set` other than p: those not yet fitted at their largest. 0 if one of those has no
 * limit. */
static double others(const fit *t, uint32_t set, uint32_t p, int64_t cell) {
  double x = 1;
  for (uint32_t i = 0; i < t->f->n_planes; i++)
    if (i != p && set >> i & 1) x *= t->done >> i & 1 ? value(t, i, cell) : top(&t->f->plane[i]);
  return x;
}

/* What a cell needs of plane p: the larger of what its slope and its offset need. */
static double want(const fit *t, uint32_t p, int64_t cell) {
  const rule *r = &t->r;
  double a = r->slope >> p & 1 ? others(t, r->slope, p, cell) : 0;
  double b = r->offset >> p & 1 ? r->c * others(t, r->offset, p, cell) : 0;
  a = a != 0 ? t->a[cell] / a : 0;
  b = b != 0 ? t->b[cell] / b : 0;
  return fabs(b) > fabs(a) ? b : a;
}

/* Is there a product in which plane p is the last to be fitted, or all that come after have limits? */
static bool bounded(const fit *t, uint32_t p) {
  const uint32_t sets[] = {t->r.slope, t->r.offset};
  for (int s = 0; s < 2; s++) {
    bool all = sets[s] >> p & 1;
    for (uint32_t i = 0; i < t->f->n_planes; i++)
      if (i != p && (sets[s] & ~t->done) >> i & 1) all = all && top(&t->f->plane[i]);
    if (all) return true;
  }
  return false;
}

/* So that nothing is clipped: what multiplies the code away from zero, what is added down, as long as the slope comes
 * after it; a zero point that the slope already meets is nearest. */
static direction rounding(const fit *t, uint32_t p, int64_t cell, double x) {
  const rule *r = &t->r;
  if (t->mse) return NEAREST;
  if (r->slope >> p & 1 || r->offset & ~t->done & ~(1u << p)) return x < 0 ? DOWN : UP;
  if (!(r->slope & ~t->done)) return NEAREST;
  return r->c * others(t, r->offset, p, cell) > 0 ? DOWN : UP;
}

static qn_status fit_plane(fit *t, uint32_t p) {
  const qn_plane *out = &t->p->plane[1 + p];
  int64_t count = out->rows * out->cols;
  double *need = calloc((size_t)count, sizeof *need);
  int64_t *from = calloc((size_t)count, sizeof *from); /* a cell under each element */
  qn_status s = need && from ? QN_OK : qn__fail(QN_E_NOMEM, "plane '%s'", t->f->plane[p].name);
  bool one = !bounded(t, p);
  for (int64_t c = 0; !s && c < t->cells; c++) {
    int64_t e = element(t, p, c);
    double x = one ? 1 : want(t, p, c);
    if (fabs(x) > fabs(need[e])) need[e] = x;
    from[e] = c;
  }
  for (int64_t e = 0; !s && e < count; e++) s = store(t, p, e, need[e], rounding(t, p, from[e], need[e]));
  t->done |= 1u << p;
  free(need);
  free(from);
  return s;
}

static double product(const fit *t, uint32_t set, int64_t cell) { return others(t, set, QN_FORMAT_PLANES, cell); }

/* The planes of a set, those that more weights share first. */
static qn_status fit_set(fit *t, uint32_t set) {
  while (set) {
    int64_t least = INT64_MAX;
    uint32_t p = 0;
    for (uint32_t i = 0; i < t->f->n_planes; i++) {
      int64_t count = t->p->plane[1 + i].rows * t->p->plane[1 + i].cols;
      if (set >> i & 1 && count < least) least = count, p = i;
    }
    QN_TRY(fit_plane(t, p));
    set &= ~(1u << p);
  }
  return QN_OK;
}

/* What both products share comes first, then what is left of the offset, then of the slope; each sees what became of
 * the others. */
static qn_status fit_planes(fit *t) {
  const rule *r = &t->r;
  for (int64_t c = 0; c < t->cells; c++) ideal(r, t->lo[c], t->hi[c], &t->a[c], &t->b[c]);
  QN_TRY(fit_set(t, r->slope & r->offset));
  for (int64_t c = 0; r->slope == t->done && c < t->cells; c++)
    t->b[c] = t->lo[c] - (t->a[c] = product(t, r->slope, c)) * (r->n ? r->map[0] : 0);
  QN_TRY(fit_set(t, r->offset & ~r->slope));
  for (int64_t c = 0; r->offset && r->slope != (t->done & r->slope) && c < t->cells; c++) {
    t->b[c] = r->c * product(t, r->offset, c);
    t->a[c] = reach(r, t->lo[c] - t->b[c], t->hi[c] - t->b[c]);
  }
  return fit_set(t, r->slope & ~r->offset);
}

/* ---- Codes ------------------------------------------------------------------------------------------------------- */

/* What the codes mean in a cell, ascending. */
typedef struct meanings {
  int n;
  double value[CODES], slope, offset; /* of wide floats, n = 0: value = slope * code + offset */
  uint8_t code[CODES];
} meanings;

static void reverse(meanings *m) {
  for (int i = 0, j = m->n - 1; i < j; i++, j--) {
    double v = m->value[i];
    uint8_t c = m->code[i];
    m->value[i] = m->value[j], m->value[j] = v;
    m->code[i] = m->code[j], m->code[j] = c;
  }
}

static void find_meanings(const fit *t, int64_t cell, meanings *m) {
  const rule *r = &t->r;
  double plane[QN_FORMAT_PLANES], ends[2];
  for (uint32_t i = 0; i < t->f->n_planes; i++) plane[i] = value(t, i, cell);
  m->n = r->n;
  if (!r->n) {
    decode(t->f, 2, (const double[]){0, 1}, plane, ends);
    m->offset = ends[0];
    m->slope = ends[1] - ends[0];
    return;
  }
  decode(t->f, r->n, r->q, plane, m->value);
  memcpy(m->code, r->code, sizeof m->code);
  if (m->value[0] == m->value[r->n - 1]) m->n = 1, m->code[0] = r->zero;
  if (m->value[0] > m->value[m->n - 1]) reverse(m);
}

static int nearest(const meanings *m, double x) {
  int i = lower_bound(m->value, m->n, x);
  if (!i) return i;
  double below = x - m->value[i - 1], above = fabs(m->value[i] - x);
  if (below != above) return below < above ? i - 1 : i;
  int odd = m->code[i] & 1, odd_below = m->code[i - 1] & 1;
  return odd != odd_below ? i - !odd_below : i - (m->code[i - 1] < m->code[i]);
}

/* The code of the weight x as element i, unless `codes` is NULL; returns what it means. */
static double encode(const fit *t, const meanings *m, double x, void *codes, int64_t i) {
  if (m->n) {
    int at = nearest(m, x);
    if (codes) ((uint8_t *)codes)[i] = m->code[at];
    return m->value[at];
  }
  qn_type type = (qn_type)t->f->cast;
  qn__store_f64(type, codes, i, (x - m->offset) / m->slope);
  return m->slope * qn__load_f64(type, codes, i) + m->offset;
}

/* The weights of row n in a cell that begins at column k0. Adds to e. */
static void encode_segment(const fit *t, const meanings *m, int64_t n, int64_t k0, void *codes, qn__quantize_error *e) {
  for (int64_t k = k0; k < t->k && k < k0 + t->cols; k++) {
    double x = (double)t->w[n * t->k + k], d = x - encode(t, m, x, codes, n * t->k + k);
    e->error2 += d * d;
    e->weight2 += x * x;
    e->largest = fmax(e->largest, fabs(d));
  }
}

static void encode_rows(void *ud, int64_t begin, int64_t end, int32_t thread) {
  const fit *t = ud;
  meanings m;
  (void)thread;
  for (int64_t n = begin; n < end; n++)
    for (int64_t j = 0; j < t->across; j++) {
      find_meanings(t, n / t->rows * t->across + j, &m);
      encode_segment(t, &m, n, j * t->cols, qn__fill(t->p, 0), &t->row[n]);
    }
}

/* ---- Refining ---------------------------------------------------------------------------------------------------- */

/* Squared error of the weights that share element e of plane p. */
static double element_error(const fit *t, uint32_t p, int64_t e) {
  const qn_format_plane *s = &t->f->plane[p];
  int64_t cols = t->p->plane[1 + p].cols, rows = s->rows ? s->rows : t->n, wide = s->cols ? s->cols : t->k;
  qn__quantize_error sum = {0};
  meanings m;
  for (int64_t r = e / cols * rows; r < t->n && r < (e / cols + 1) * rows; r++)
    for (int64_t k = e % cols * wide; k < t->k && k < (e % cols + 1) * wide; k += t->cols) {
      find_meanings(t, r / t->rows * t->across + k / t->cols, &m);
      encode_segment(t, &m, r, k, NULL, &sum);
    }
  return sum.error2;
}

/* Try the neighbours of elements of the plane t->refined. */
static void refine(void *ud, int64_t begin, int64_t end, int32_t thread) {
  fit *t = ud;
  const qn_format_plane *s = &t->f->plane[t->refined];
  void *data = plane_data(t, t->refined);
  (void)thread;
  for (int64_t e = begin; e < end; e++) {
    double least = element_error(t, t->refined, e);
    for (int up = 0; up < 2; up++) {
      if (!step(s, data, e, up)) continue;
      double now = element_error(t, t->refined, e);
      if (now < least) least = now;
      else step(s, data, e, !up);
    }
  }
}

/* A step of a narrow plane or of an f16 moves the codes far from zero; one of an f32 moves nothing. */
static void refine_planes(fit *t) {
  for (uint32_t i = 0; i < t->f->n_planes; i++) {
    int64_t count = t->p->plane[1 + i].rows * t->p->plane[1 + i].cols;
    if (qn_type_bits((qn_type)t->f->plane[i].type) > 16) continue;
    t->refined = i;
    qn__pool_run(t->pool, refine, t, count);
  }
}

/* ---- Methods ----------------------------------------------------------------------------------------------------- */

static qn_status rtn(fit *t) {
  qn__pool_run(t->pool, find_range, t, t->cells);
  if (holds_zero(t)) widen_ranges(t);
  if (t->mse) qn__pool_run(t->pool, draw_in, t, t->cells);
  QN_TRY(fit_planes(t));
  if (t->mse) refine_planes(t);
  qn__pool_run(t->pool, encode_rows, t, t->n);
  return QN_OK;
}

static const struct {
  const char *name;
  qn_status (*run)(fit *t);
} methods[] = {{"rtn", rtn}};

/* ---- The whole --------------------------------------------------------------------------------------------------- */

static int64_t common(int64_t a, uint32_t share) { return share ? qn__gcd(share, a) : a; }

static int64_t extent(int64_t size, uint32_t share) { return share ? qn__ceildiv(size, share) : 1; }

static void find_cells(fit *t) {
  t->rows = t->cols = 0;
  for (uint32_t i = 0; i < t->f->n_planes; i++) {
    t->rows = common(t->rows, t->f->plane[i].rows);
    t->cols = common(t->cols, t->f->plane[i].cols);
  }
  if (!t->rows || t->rows > t->n) t->rows = t->n;
  if (!t->cols || t->cols > t->k) t->cols = t->k;
  t->across = qn__ceildiv(t->k, t->cols);
  t->cells = qn__ceildiv(t->n, t->rows) * t->across;
}

static qn_status allocate(fit *t) {
  const qn__weight w = {.pub = {.name = "the weight", .format = t->f->name, .n = t->n, .k = t->k}};
  qn__spec spec[QN_MAX_PLANES] = {{"codes", (qn_type)t->f->codes, t->n, t->k, NULL}};
  for (uint32_t i = 0; i < t->f->n_planes; i++) {
    const qn_format_plane *s = &t->f->plane[i];
    spec[1 + i] = (qn__spec){s->name, (qn_type)s->type, extent(t->n, s->rows), extent(t->k, s->cols), NULL};
  }
  QN_TRY(qn__planes_new(&w, spec, 1 + (int)t->f->n_planes, false, &t->p));
  double *of_cells = calloc((size_t)t->cells * 4, sizeof *of_cells);
  t->row = calloc((size_t)t->n, sizeof *t->row);
  t->lo = of_cells;
  if (!of_cells || !t->row) return qn__fail(QN_E_NOMEM, "%jd groups of weights", (intmax_t)t->cells);
  t->hi = of_cells + t->cells;
  t->a = of_cells + 2 * t->cells;
  t->b = of_cells + 3 * t->cells;
  return QN_OK;
}

static qn_status check_finite(const float *w, int64_t n, int64_t k) {
  for (int64_t i = 0; i < n * k; i++)
    if (!isfinite(w[i]))
      return qn__fail(QN_E_ARG, "[%jd, %jd] is %g, not a finite number", (intmax_t)(i / k), (intmax_t)(i % k),
                      (double)w[i]);
  return QN_OK;
}

static qn_status read_options(fit *t, const qn__quantize_options *o, size_t *method) {
  const char *name = o && o->method ? o->method : "rtn", *scales = o && o->scales ? o->scales : "minmax";
  t->mse = !strcmp(scales, "mse");
  if (!t->mse && strcmp(scales, "minmax")) return qn__fail(QN_E_ARG, "scales '%s'; known: minmax, mse", scales);
  for (*method = 0; *method < QN_COUNT(methods); ++*method)
    if (!strcmp(methods[*method].name, name)) return QN_OK;
  return qn__fail(QN_E_ARG, "method '%s'; known: rtn", name);
}

static qn_status run(fit *t, const qn__quantize_options *o) {
  size_t method;
  QN_TRY(read_options(t, o, &method));
  QN_TRY(read_rule(&t->r, t->f));
  t->mse = t->mse && t->r.n; /* a wide float needs no smaller range */
  QN_TRY(check_finite(t->w, t->n, t->k));
  find_cells(t);
  QN_TRY(allocate(t));
  QN_TRY(qn__pool_new(o && o->threads ? o->threads : qn__cpu_count(), &t->pool));
  QN_TRY(methods[method].run(t));
  return qn__planes_check(t->f, t->p);
}

qn_status qn__quantize(const qn_format *f, const float *w, int64_t n, int64_t k, const qn__quantize_options *options,
                       qn_planes **out, qn__quantize_error *error) {
  *out = NULL;
  *error = (qn__quantize_error){0};
  if (n < 1 || k < 1 || n > INT32_MAX || k > INT32_MAX)
    return qn__fail(QN_E_SHAPE, "weight of [%jd, %jd]: N and K must be in 1 .. 2147483647", (intmax_t)n, (intmax_t)k);
  fit *t = calloc(1, sizeof *t);
  if (!t) return qn__fail(QN_E_NOMEM, "a weight of [%jd, %jd]", (intmax_t)n, (intmax_t)k);
  *t = (fit){.f = f, .w = w, .n = n, .k = k};
  qn_status s = run(t, options);
  for (int64_t i = 0; !s && i < n; i++) { /* in order, so that the sum does not depend on the threads */
    error->error2 += t->row[i].error2;
    error->weight2 += t->row[i].weight2;
    error->largest = fmax(error->largest, t->row[i].largest);
  }
  if (s) qn_planes_free(t->p);
  else *out = t->p;
  qn__pool_free(t->pool);
  free(t->lo);
  free(t->row);
  free(t);
  return s;
}
