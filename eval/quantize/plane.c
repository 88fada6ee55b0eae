/* plane.c - elements of planes, and how planes are fitted to what the cells need.
 *
 * Planes are fitted one after the other, those shared by more weights first: each gets what the cells under it need,
 * when the planes still to come take their largest value. What rounding left over, the later ones see. */
#include "convert.h"
#include "fail.h"
#include "fit.h"
#include "model.h"
#include "narrow.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- Elements ---------------------------------------------------------------------------------------------------- */

/* The largest value of a type whose range is narrow; 0: it is wide. */
static double top(const qn_format_plane *s) {
  qn_form f = qn__form[s->type];
  int bits = qn_type_bits((qn_type)s->type);
  if (s->max) return s->max;
  if (!qn__is_float(s->type)) return ldexp(1, bits - (f.kind == QN_KIND_SIGNED)) - 1;
  return bits == 8 && f.mantissa ? (double)qn__narrow_value(f, qn__form_largest(f)) : 0;
}

static bool is_integer(const qn_format_plane *s) { return !qn__is_float(s->type); }

void *qn__fit_data(const qn__fit *t, uint32_t p) { return qn__fill(t->p, 1 + (int)p); }

/* The element of plane p that a cell uses. */
static int64_t element(const qn__fit *t, uint32_t p, int64_t cell) {
  const qn_format_plane *s = &t->f->plane[p];
  int64_t row = cell / t->across * t->rows, col = cell % t->across * t->cols;
  return (s->rows ? row / s->rows : 0) * t->p->plane[1 + p].cols + (s->cols ? col / s->cols : 0);
}

double qn__fit_value(const qn__fit *t, uint32_t p, int64_t cell) {
  return qn__load_f64((qn_type)t->f->plane[p].type, qn__fit_data(t, p), element(t, p, cell));
}

bool qn__plane_step(const qn_format_plane *s, void *data, int64_t i, bool up) {
  size_t bytes = (size_t)qn_type_bits((qn_type)s->type) / 8;
  char *at = (char *)data + (size_t)i * bytes;
  uint32_t old = 0, new, sign = qn__form[s->type].mantissa ? 1u << (8 * bytes - 1) : 0;
  memcpy(&old, at, bytes);
  if (sign && !(old & ~sign)) new = up ? 1 : sign | 1;
  else new = old + (up == !(old & sign) ? 1 : UINT32_MAX); /* a negative float grows as its bits shrink */
  double before = qn__load_f64((qn_type)s->type, data, i);
  memcpy(at, &new, bytes);
  double after = qn__load_f64((qn_type)s->type, data, i);
  if (isfinite(after) && (up ? after > before : after < before) && !(s->max && fabs(after) > s->max)) return true;
  memcpy(at, &old, bytes);
  return false;
}

typedef enum direction { NEAREST, DOWN, UP } direction;

/* x within a narrow type's limits, whole where the type is. */
static double admit(const qn_format_plane *s, double x) {
  double limit = top(s);
  if (limit) x = fmin(fmax(x, qn__plane_unsigned(s) ? 0 : -limit), limit);
  return is_integer(s) ? nearbyint(x) : x;
}

double qn__plane_rounded(const qn_format_plane *s, double x) {
  double to;
  qn__store_f64((qn_type)s->type, &to, 0, admit(s, x));
  return qn__load_f64((qn_type)s->type, &to, 0);
}

/* Store x as element i of plane p. Narrow types saturate. */
static qn_status store(const qn__fit *t, uint32_t p, int64_t i, double x, direction d) {
  const qn_format_plane *s = &t->f->plane[p];
  void *data = qn__fit_data(t, p);
  qn__store_f64((qn_type)s->type, data, i, admit(s, x));
  double is = qn__load_f64((qn_type)s->type, data, i);
  if (!isfinite(is))
    return qn__fail(QN_E_LIMIT, "plane '%s'[%jd, %jd] of format '%s': %g is beyond %s; a wider type is needed", s->name,
                    (intmax_t)(i / t->p->plane[1 + p].cols), (intmax_t)(i % t->p->plane[1 + p].cols), t->f->name, x,
                    qn_type_name((qn_type)s->type));
  if (d == UP && is < x) qn__plane_step(s, data, i, true);
  if (d == DOWN && is > x) qn__plane_step(s, data, i, false);
  return QN_OK;
}

/* ---- Fitting ----------------------------------------------------------------------------------------------------- */

/* Product of the planes of `set` other than p: those not yet fitted at their largest. 0 if one of those has no
 * limit. */
static double others(const qn__fit *t, uint32_t set, uint32_t p, int64_t cell) {
  double x = 1;
  for (uint32_t i = 0; i < t->f->n_planes; i++)
    if (i != p && set >> i & 1) x *= t->done >> i & 1 ? qn__fit_value(t, i, cell) : top(&t->f->plane[i]);
  return x;
}

/* What a cell needs of plane p: the larger of what its slope and its offset need. */
static double want(const qn__fit *t, uint32_t p, int64_t cell) {
  const qn__rule *r = &t->r;
  double a = r->slope >> p & 1 ? others(t, r->slope, p, cell) : 0;
  double b = r->offset >> p & 1 ? r->c * others(t, r->offset, p, cell) : 0;
  a = a != 0 ? t->a[cell] / a : 0;
  b = b != 0 ? t->b[cell] / b : 0;
  return fabs(b) > fabs(a) ? b : a;
}

/* Is there a product in which plane p is the last to be fitted, or all that come after have limits? */
static bool bounded(const qn__fit *t, uint32_t p) {
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
static direction rounding(const qn__fit *t, uint32_t p, int64_t cell, double x) {
  const qn__rule *r = &t->r;
  if (t->mse || r->full) return NEAREST;
  if (r->slope >> p & 1 || r->offset & ~t->done & ~(1u << p)) return x < 0 ? DOWN : UP;
  if (!(r->slope & ~t->done)) return NEAREST;
  return r->c * others(t, r->offset, p, cell) > 0 ? DOWN : UP;
}

static qn_status fit_plane(qn__fit *t, uint32_t p) {
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

static double product(const qn__fit *t, uint32_t set, int64_t cell) { return others(t, set, QN_FORMAT_PLANES, cell); }

/* The planes of a set, those that more weights share first. */
static qn_status fit_set(qn__fit *t, uint32_t set) {
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
qn_status qn__fit_planes(qn__fit *t) {
  const qn__rule *r = &t->r;
  for (int64_t c = 0; c < t->cells; c++) qn__rule_ideal(r, t->lo[c], t->hi[c], &t->a[c], &t->b[c]);
  QN_TRY(fit_set(t, r->slope & r->offset));
  for (int64_t c = 0; r->slope == t->done && c < t->cells; c++)
    t->b[c] = t->lo[c] - (t->a[c] = product(t, r->slope, c)) * (r->n ? r->map[0] : 0);
  QN_TRY(fit_set(t, r->offset & ~r->slope));
  for (int64_t c = 0; r->offset && r->slope != (t->done & r->slope) && c < t->cells; c++) {
    t->b[c] = r->c * product(t, r->offset, c);
    t->a[c] = qn__rule_reach(r, t->lo[c] - t->b[c], t->hi[c] - t->b[c]);
  }
  return fit_set(t, r->slope & ~r->offset);
}
