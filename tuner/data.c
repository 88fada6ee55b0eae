/* data.c - draws of weights and activations. Palettes first, then matrices filled from them, then the reference. */
#include "data.h"
#include "convert.h"
#include "fail.h"
#include "reference.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

uint64_t qn__random(uint64_t *state) {
  uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  return z ^ z >> 31;
}

/* Uniform in [lo, hi). */
static double uniform(uint64_t *state, double lo, double hi) {
  return lo + (hi - lo) * (double)(qn__random(state) >> 11) * 0x1p-53;
}

/* ---- Palettes ---------------------------------------------------------------------------------------------------- */

#define PALETTE 1024

typedef struct palette {
  int n, size; /* elements, bytes of one */
  double max;  /* largest magnitude put in */
  unsigned char data[PALETTE * 8];
} palette;

static void palette_init(palette *p, qn_type t) { *p = (palette){.size = qn_type_bits(t) / 8}; }

static void palette_add(palette *p, qn_type t, double v) {
  if (p->n == PALETTE) return;
  qn__store_f64(t, p->data, p->n, v);
  v = fabs(qn__load_f64(t, p->data, p->n++));
  p->max = v > p->max ? v : p->max;
}

/* n elements of dst, each drawn from the palette: four to a random number. */
static void palette_fill(const palette *p, void *dst, int64_t n, uint64_t *state) {
  unsigned char *out = dst;
  uint64_t bits = 0;
  for (int64_t i = 0; i < n; i++, out += p->size, bits >>= 16) {
    if (!(i & 3)) bits = qn__random(state);
    const unsigned char *e = p->data + ((bits & 0xffff) * (uint64_t)p->n >> 16) * (uint64_t)p->size;
    qn__copy(out, e, p->size);
  }
}

/* Scales of a type that a product with small codes and activations keeps well inside f32 and, for f16 outputs, f16. */
static void scale_range(uint32_t type, qn_draw_kind kind, double *lo, double *hi) {
  bool narrow = type == QN_T_F16 || type == QN_T_E4M3 || type == QN_T_E5M2;
  *lo = kind != QN_DRAW_HARD ? -8 : narrow ? -11 : -24;
  *hi = kind != QN_DRAW_HARD ? -4 : narrow ? 1 : 4;
}

/* Value of code c where plane i has value[i]. */
static double code_value(const qn_format *f, uint32_t c, const double value[]) {
  uint32_t raw = c;
  double q = f->cast ? qn__load_f64((qn_type)f->cast, &raw, 0) : (double)c, out;
  const double *var[1 + QN_FORMAT_PLANES] = {&q};
  for (uint32_t i = 0; i < f->n_planes; i++) var[1 + i] = &value[i];
  qn__expr_f64(qn__decode_rule(f), 1, var, f->table, &out, NULL);
  return out;
}

/* Is plane i a zero point: does the rule know of it and the code their difference only? */
static bool is_zero_point(const qn_format *f, uint32_t i) {
  double value[QN_FORMAT_PLANES], first = 0;
  if (f->cast) return false;
  for (uint32_t k = 0; k < f->n_planes; k++) value[k] = 2;
  for (uint32_t c = 0; c < 4 && c < 1u << f->bits; c++) {
    value[i] = c + 1;
    double v = code_value(f, c, value);
    if (!c) first = v;
    if (v != first) return false;
  }
  return true;
}

/* Element i of a plane in exact draws: powers of two; of integers the smallest, more of zero points than of scales. */
static uint32_t exact_count(const qn_format *f, uint32_t plane) {
  const qn_format_plane *p = &f->plane[plane];
  uint32_t most = is_zero_point(f, plane) ? 15 : 3;
  return qn__is_float(p->type) ? 3 : 1 + (p->max && p->max < most ? p->max : most);
}

static double exact_value(const qn_format_plane *p, uint32_t i) {
  return qn__is_float(p->type) ? 1 << i : (int)i - qn__is_signed(p->type);
}

static void plane_palette(const qn_format *f, uint32_t plane, qn_draw_kind kind, uint64_t *state, palette *p) {
  const qn_format_plane *spec = &f->plane[plane];
  qn_type t = (qn_type)spec->type;
  double codes = f->bits <= 8 ? (double)(1 << f->bits) : 1;
  palette_init(p, t);
  if (kind == QN_DRAW_EXACT) {
    for (uint32_t i = 0; i < exact_count(f, plane); i++) palette_add(p, t, exact_value(spec, i));
  } else if (!qn__is_float(spec->type)) {
    int max = spec->max ? (int)spec->max : qn__is_signed(t) ? 127 : 255;
    for (int i = qn__is_signed(t) ? -max - 1 : 0; i <= max; i++) palette_add(p, t, i);
  } else if (is_zero_point(f, plane)) {
    for (int i = 0; i < PALETTE; i++) palette_add(p, t, uniform(state, 0, codes));
  } else {
    double lo, hi;
    scale_range(spec->type, kind, &lo, &hi);
    for (int i = 0; i < PALETTE; i++) palette_add(p, t, exp2(uniform(state, lo, hi)));
  }
}

/* A multiple of 1/2 with at most eight significant bits, which bf16 holds, and small enough for exact sums. */
static bool is_exact(double v) {
  v *= 2;
  if (v != floor(v) || fabs(v) > 8192) return false;
  while (v && v / 2 == floor(v / 2)) v /= 2;
  return fabs(v) < 256;
}

/* Is the weight of code c exact whatever is drawn for the planes? */
static bool is_exact_code(const qn_format *f, uint32_t c) {
  uint32_t combinations = 1, count[QN_FORMAT_PLANES];
  for (uint32_t i = 0; i < f->n_planes; i++) combinations *= count[i] = exact_count(f, i);
  for (uint32_t n = 0; n < combinations; n++) {
    double value[QN_FORMAT_PLANES];
    for (uint32_t i = 0, rest = n; i < f->n_planes; rest /= count[i++])
      value[i] = exact_value(&f->plane[i], rest % count[i]);
    if (!is_exact(code_value(f, c, value))) return false;
  }
  return true;
}

static bool is_finite_code(const qn_format *f, uint32_t c) {
  static const double zero[QN_FORMAT_PLANES];
  return isfinite(code_value(f, c, zero));
}

/* Codes of up to eight bits are tried one by one; a wider code is a float, drawn by its value. */
static void code_palette(const qn_format *f, qn_draw_kind kind, uint64_t *state, palette *p) {
  qn_type codes = (qn_type)f->codes;
  palette_init(p, codes);
  if (f->bits <= 8)
    for (uint32_t c = 0; c < 1u << f->bits; c++) {
      if (kind == QN_DRAW_EXACT ? is_exact_code(f, c) : is_finite_code(f, c)) palette_add(p, codes, c);
    }
  else if (f->cast && kind == QN_DRAW_EXACT)
    for (int v = -8; v <= 8; v++) palette_add(p, (qn_type)f->cast, v);
  else if (f->cast)
    for (int i = 0; i < PALETTE; i++)
      palette_add(p, (qn_type)f->cast, uniform(state, -1, 1) * (kind == QN_DRAW_HARD ? exp2(i % 16 - 8) : 1));
}

/* The largest number of a type of activations with scales without its power of two: 127 of i8, 7 of e4m3. What is
 * rounded from zeros and this, or twice this, has a power of two for a scale, and codes that are exact. */
static int odd_top(qn_type act) {
  double top;
  qn__quantize_group(act, &(float){1}, 1, &top);
  top = qn__load_f64(act, &top, 0);
  while (top / 2 == floor(top / 2)) top /= 2;
  return (int)top;
}

static void x_palette(const qn_problem *problem, qn_draw_kind kind, uint64_t *state, palette *p) {
  qn_type act = qn__x_type(problem);
  palette_init(p, act);
  if (kind == QN_DRAW_EXACT && problem->x)
    for (int v = -5; v <= 5; v++) palette_add(p, act, v < -2 || v > 2 ? -0.0 : v * odd_top((qn_type)problem->act));
  else if (kind == QN_DRAW_EXACT)
    for (int v = -2; v <= 2; v++) palette_add(p, act, v ? v : -0.0);
  else if (qn__act_scaled(act)) /* every number of 8 bits that quantizing gives */
    for (int c = 0; c < 256; c++) {
      double v = qn__load_f64(act, &(uint8_t){(uint8_t)c}, 0);
      if (isfinite(v) && v != -128) palette_add(p, act, v);
    }
  else
    for (int i = 0; i < PALETTE; i++) palette_add(p, act, uniform(state, -2, 2));
}

/* ---- Matrices ---------------------------------------------------------------------------------------------------- */

static int64_t extent(int64_t size, uint32_t share) { return share ? (size + share - 1) / share : 1; }

static qn_status add_plane(qn_draw *d, const char *name, qn_type t, int64_t rows, int64_t cols, const palette *p,
                           uint64_t *state) {
  void *data = malloc((size_t)(rows * cols * p->size));
  if (!data) return qn__fail(QN_E_NOMEM, "plane '%s' of [%lld, %lld]", name, (long long)rows, (long long)cols);
  palette_fill(p, data, rows * cols, state);
  d->planes.plane[d->planes.n_planes++] = (qn_plane){name, t, rows, cols, data};
  return QN_OK;
}

/* With i8, every seventh row of hard codes has the one of the largest weight alone: no sum of integers is larger. */
static void harden_codes(const qn_format *f, const qn_draw *d, const palette *p) {
  double one[QN_FORMAT_PLANES], largest = -INFINITY;
  int best = 0;
  for (uint32_t i = 0; i < f->n_planes; i++) one[i] = 1;
  for (int i = 0; i < p->n; i++) {
    double w = code_value(f, (uint32_t)qn__load_f64((qn_type)f->codes, p->data, i), one);
    if (w > largest) largest = w, best = i;
  }
  char *codes = (char *)d->planes.plane[0].data;
  for (int64_t n = 0; n < d->planes.n; n += 7)
    for (int64_t k = 0; k < d->planes.k; k++)
      memcpy(codes + (n * d->planes.k + k) * p->size, p->data + best * p->size, (size_t)p->size);
}

static qn_status make_weight(const qn_format *f, uint64_t *state, qn_draw *d) {
  palette p;
  code_palette(f, d->kind, state, &p);
  if (d->kind == QN_DRAW_EXACT && p.n < 2) { /* no such codes: draw at random instead */
    d->kind = QN_DRAW_RANDOM;
    d->exact = false;
    code_palette(f, d->kind, state, &p);
  }
  if (!p.n) return qn__fail(QN_E_FORMAT, "format '%s' has no code with a finite value", f->name);
  QN_TRY(add_plane(d, "codes", (qn_type)f->codes, d->planes.n, d->planes.k, &p, state));
  if (d->kind == QN_DRAW_HARD && d->problem.act == QN_T_I8 && f->bits <= 8) harden_codes(f, d, &p);
  for (uint32_t i = 0; i < f->n_planes; i++) {
    const qn_format_plane *spec = &f->plane[i];
    plane_palette(f, i, d->kind, state, &p);
    QN_TRY(add_plane(d, spec->name, (qn_type)spec->type, extent(d->planes.n, spec->rows),
                     extent(d->planes.k, spec->cols), &p, state));
  }
  return QN_OK;
}

/* Element k of hard row r of X, which is x in other draws. Of seven rows one is zero, one of one sign, so that nothing
 * cancels, one has zeros of both signs and denormals, one is large. A type with scales has no such numbers, or all; of
 * i8 two rows have the largest and the least number alone. */
static double hard_value(qn_type act, int64_t r, int64_t k, double x) {
  const double odd[] = {x, -0.0, act == QN_T_F16 ? 0x1p-24 : 0x1p-133, 0, act == QN_T_F16 ? -0x1p-15 : -0x1p-127};
  bool plain = qn__act_scaled(act);
  switch (r % 7) {
  case 0:
    return 0;
  case 1:
    return fabs(x);
  case 2:
    return plain ? x : odd[k % (int64_t)QN_COUNT(odd)];
  case 3:
    return plain ? x : ldexp(x, act == QN_T_F16 ? 14 : 60);
  case 4:
    return act == QN_T_I8 ? INT8_MAX : x;
  case 5:
    return act == QN_T_I8 ? INT8_MIN : x;
  default:
    return x;
  }
}

/* The distance between rows of an operand, of elements and of bytes. */
static int64_t row_stride(const qn_draw *d, const qn_operand *o) {
  return o->stride < QN_ARG_COUNT ? qn__arg_number(&d->args, o->stride) : o->cols;
}
static size_t row_bytes(const qn_draw *d, const qn_operand *o) {
  return (size_t)(row_stride(d, o) * qn_type_bits(o->type) / 8);
}

static void harden(qn_draw *d, int64_t r) {
  qn_type act = qn__x_type(&d->problem);
  for (int64_t k = 0, i = r * d->args.ldx; k < d->planes.k; k++, i++) {
    double x = hard_value(act, r, k, qn__load_f64(act, d->args.x, i));
    qn__store_f64(act, (void *)d->args.x, i, x);
    if (fabs(x) > d->x_max[r]) d->x_max[r] = fabs(x);
  }
}

static void fill_x(qn_draw *d, const qn_operand *o, char *x, uint64_t *state) {
  palette p;
  x_palette(&d->problem, d->kind, state, &p);
  for (int64_t r = 0; r < QN_DRAW_PERIOD; r++) {
    uint64_t row_state = *state + (uint64_t)r * UINT64_C(0xd1342543de82ef95);
    palette_fill(&p, x + (size_t)r * row_bytes(d, o), o->cols, &row_state);
    d->x_max[r] = p.max;
    if (d->kind == QN_DRAW_HARD) harden(d, r);
  }
}

enum { LARGEST_SCALE = 4 };

/* Between 1/2 and LARGEST_SCALE, in exact draws a power of two; of scales of X positive, else of either sign. */
static void fill_factors(qn_draw *d, const qn_operand *o, bool positive, void *to, uint64_t *state) {
  for (int64_t r = 0; r < (o->tokens ? QN_DRAW_PERIOD : 1); r++)
    for (int64_t i = 0; i < o->cols; i++) {
      double e = uniform(state, -1, 2), v = exp2(d->kind == QN_DRAW_EXACT ? floor(e) : e);
      qn__store_f64(o->type, to, r * row_stride(d, o) + i, positive || qn__random(state) & 1 ? v : -v);
    }
}

/* Those that the problem has, but Y: the rows of a period. */
static qn_status make_operands(qn_draw *d, uint64_t *state) {
  for (qn_arg i = 0; i < QN_OPERANDS; i++) {
    qn_operand o = qn__operand(&d->problem, i);
    if (!o.has || i == QN_ARG_Y) continue;
    size_t bytes = (size_t)(o.tokens ? QN_DRAW_PERIOD : 1) * row_bytes(d, &o);
    char *p = malloc(bytes);
    if (!p) return qn__fail(QN_E_NOMEM, "%s of %zu bytes", qn__arg[i].name, bytes);
    memset(p, d->fence.byte, bytes);
    qn__arg_point(&d->args, i, p);
    if (i == QN_ARG_X) fill_x(d, &o, p, state);
    else fill_factors(d, &o, i == QN_ARG_X_SCALE, p, state);
  }
  d->args.m = QN_DRAW_PERIOD;
  return QN_OK;
}

qn_status qn__draw_rows(qn_draw *d, int64_t m) {
  for (qn_arg i = 0; i < QN_OPERANDS && m > d->args.m; i++) {
    qn_operand o = qn__operand(&d->problem, i);
    if (!o.has || !o.tokens || i == QN_ARG_Y) continue;
    size_t row = row_bytes(d, &o);
    char *p = realloc(qn__arg_pointer(&d->args, i), (size_t)m * row);
    if (!p) return qn__fail(QN_E_NOMEM, "%s of [%lld, %lld]", qn__arg[i].name, (long long)m, (long long)o.cols);
    qn__arg_point(&d->args, i, p);
    for (int64_t r = d->args.m; r < m; r++) memcpy(p + (size_t)r * row, p + (size_t)(r - QN_DRAW_PERIOD) * row, row);
  }
  if (m > d->args.m) d->args.m = m;
  return QN_OK;
}

/* Contents end at what is forbidden, or begin there, or are aligned no better than promised; guards are read as NaN, or
 * are such that one that is written with that is seen. */
static const qn_fence fences[QN_DRAW_KINDS] = {[QN_DRAW_EXACT] = {.at_end = true, .byte = 0xff},
                                               [QN_DRAW_RANDOM] = {.byte = 0xff},
                                               [QN_DRAW_HARD] = {.odd = true, .byte = 0x55}};

static qn_status make(const qn_format *f, const qn_problem *p, qn_draw_kind kind, int64_t n, int64_t k, int64_t ldx,
                      uint64_t seed, qn_draw *out) {
  uint64_t state = seed;
  *out = (qn_draw){.kind = kind, .exact = kind == QN_DRAW_EXACT, .fence = fences[kind], .problem = *p};
  out->planes = (qn_planes){.format = f->name, .n = n, .k = k};
  out->problem.n = n, out->problem.k = k;
  out->args = (qn_host_args){.n = n, .k = k};
  for (qn_arg i = 0; i < QN_OPERANDS; i++) {
    qn_operand o = qn__operand(&out->problem, i);
    if (o.has && o.stride < QN_ARG_COUNT) qn__arg_count(&out->args, o.stride, o.cols + (i == QN_ARG_Y ? 0 : ldx - k));
  }
  QN_TRY(make_weight(f, &state, out));
  QN_TRY(make_operands(out, &state));
  for (int r = 0; r < QN_DRAW_PERIOD && out->args.x_scale; r++) out->x_max[r] *= LARGEST_SCALE;
  return QN_OK;
}

/* What another draw has for each token. */
static void copy_tokens(const qn_draw *from, qn_draw *to) {
  memcpy(to->x_max, from->x_max, sizeof to->x_max);
  for (qn_arg i = 0; i < QN_OPERANDS; i++) {
    qn_operand o = qn__operand(&to->problem, i);
    if (o.has && o.tokens && i != QN_ARG_Y)
      memcpy(qn__arg_pointer(&to->args, i), qn__arg_pointer(&from->args, i), QN_DRAW_PERIOD * row_bytes(to, &o));
  }
}

qn_status qn__draw_make(const qn_format *f, const qn_problem *p, qn_draw_kind kind, int64_t n, int64_t k, int64_t m,
                        int64_t ldx, uint64_t seed, qn_draw *out) {
  *out = (qn_draw){0};
  if (n < 1 || k < 1 || m < 1 || ldx < k)
    return qn__fail(QN_E_SHAPE, "draw of n %lld, k %lld, m %lld, ldx %lld", (long long)n, (long long)k, (long long)m,
                    (long long)ldx);
  QN_TRY(make(f, p, kind, n, k, ldx, seed, out));
  qn_draw *d = out;
  for (int64_t e = 1; e < p->experts && e < QN_DRAW_EXPERTS; e++, d = d->next) {
    if (!(d->next = calloc(1, sizeof *d))) return qn__fail(QN_E_NOMEM, "draw of expert %lld", (long long)e);
    QN_TRY(make(f, p, kind, n, k, ldx, seed + (uint64_t)e * 1000003, d->next));
    copy_tokens(out, d->next);
  }
  return qn__draw_rows(out, m);
}

const qn_draw *qn__draw_expert(const qn_draw *d, int64_t expert) {
  for (expert %= QN_DRAW_EXPERTS; expert > 0; expert--) d = d->next;
  return d;
}

void qn__draw_free(qn_draw *d) {
  if (d->next) qn__draw_free(d->next);
  free(d->next);
  for (int i = 0; i < d->planes.n_planes; i++) free((void *)d->planes.plane[i].data);
  free((void *)d->planes.perm);
  for (qn_arg i = 0; i < QN_OPERANDS; i++) free(qn__arg_pointer(&d->args, i));
  free(d->col);
  free(d->sum);
  free(d->magnitude);
  free(d->want);
  *d = (qn_draw){0};
}

static qn_status permute(qn_draw *d, uint64_t *state) {
  int64_t k = d->planes.k;
  int32_t *perm = calloc((size_t)k, sizeof *perm);
  if (!perm) return qn__fail(QN_E_NOMEM, "permutation of %lld", (long long)k);
  for (int64_t j = 0; j < k; j++) { /* Fisher and Yates, from inside */
    int64_t other = (int64_t)(qn__random(state) % (uint64_t)(j + 1));
    perm[j] = perm[other], perm[other] = (int32_t)j;
  }
  d->planes.perm = perm;
  return QN_OK;
}

qn_status qn__draw_permute(qn_draw *d) {
  uint64_t state = (uint64_t)d->planes.k;
  if (!d->next) return permute(d, &state);
  for (qn_draw *x = d->next; x; x = x->next) QN_TRY(permute(x, &state));
  return QN_OK;
}

void qn__draw_flip(const qn_format *f, qn_draw *d) {
  const qn_plane *p = qn__planes_find(f, &d->planes, 0);
  int64_t n = p->rows * p->cols;
  if (d->next) qn__draw_flip(f, d->next);
  if (f->bits <= 8) { /* 8-bit floats: not into a NaN */
    uint8_t *c = (uint8_t *)p->data;
    for (int64_t i = 0; i < n; i++) c[i] ^= !f->cast || (c[i] & 0x7e) != 0x7e;
  } else if (f->codes == QN_T_U16)
    for (int64_t i = 0; i < n; i++) ((uint16_t *)p->data)[i] ^= 1;
  else
    for (int64_t i = 0; i < n; i++) ((uint32_t *)p->data)[i] ^= 1;
}

/* ---- Reference --------------------------------------------------------------------------------------------------- */

/* `count` of 0 .. size - 1, rising: all, or the two ends of the axis and one from each of the equal parts between. */
static int64_t *choose(int64_t size, int64_t *count, uint64_t *state) {
  int64_t n = *count < size ? *count : size, *out = malloc((size_t)n * sizeof *out);
  for (int64_t i = 0; out && i < n; i++) {
    int64_t lo = size * i / n, part = size * (i + 1) / n - lo;
    out[i] = i == 0 ? 0 : i == n - 1 ? size - 1 : lo + (int64_t)(qn__random(state) % (uint64_t)part);
  }
  *count = n;
  return out;
}

#define EXACT_SUM 0x1p23 /* below it f32 holds every multiple of 1/2 */

/* A function is rounded, even where the sum is exact. */
static bool has_function(const qn_problem *p) {
  bool has = false;
  for (int i = 0; i < QN_EPILOGUE_STEPS && p->epilogue[i]; i++)
    has |= qn__epilogue_step[p->epilogue[i]].operand == QN_ARG_COUNT;
  return has;
}

/* Y as a kernel must write it. */
static qn_status make_want(qn_draw *d) {
  qn_operand y = qn__operand(&d->problem, QN_ARG_Y);
  int64_t count = QN_DRAW_PERIOD * y.cols;
  d->want = malloc((size_t)(count * qn_type_bits(y.type) / 8));
  if (!d->want) return qn__fail(QN_E_NOMEM, "Y of %lld elements", (long long)count);
  for (int64_t i = 0; i < count; i++) {
    const qn_number sum[2] = {{.value = d->sum[i]}};
    qn__store_f64(y.type, d->want, i, qn__epilogue(&d->problem, &d->args, i / y.cols, i % y.cols, sum).value);
  }
  return QN_OK;
}

qn_status qn__draw_reference(const qn_format *f, int64_t cols, qn_draw *d) {
  uint64_t state = (uint64_t)(d->planes.n * 31 + d->planes.k);
  int64_t columns = qn__columns(&d->problem);
  d->n_cols = d->exact ? columns : cols;
  d->col = choose(columns, &d->n_cols, &state);
  d->n_sums = qn__gated(&d->problem) ? 2 * d->n_cols : d->n_cols;
  size_t count = (size_t)(QN_DRAW_PERIOD * d->n_sums);
  d->sum = malloc(count * sizeof *d->sum);
  d->magnitude = malloc(count * sizeof *d->magnitude);
  int64_t *row = malloc((size_t)d->n_sums * sizeof *row); /* of W: gates, then the up rows */
  qn_status s =
      d->col && d->sum && d->magnitude && row ? QN_OK : qn__fail(QN_E_NOMEM, "reference of %zu elements", count);
  for (int64_t j = 0; j < d->n_sums && !s; j++) row[j] = d->col[j % d->n_cols] + j / d->n_cols * columns;
  if (!s)
    s = qn__reference(f, &d->planes, &d->args, &d->problem, NULL, QN_DRAW_PERIOD, row, d->n_sums, d->sum, d->magnitude);
  free(row);
  double most = d->problem.epilogue[0] ? EXACT_SUM / 8 : EXACT_SUM;
  for (size_t i = 0; i < count && !s; i++) d->largest = fmax(d->largest, d->magnitude[i]);
  d->exact &= d->largest < most;
  if (!s && d->next) s = qn__draw_reference(f, cols, d->next);
  return s ? s : d->exact && !has_function(&d->problem) ? make_want(d) : QN_OK;
}
