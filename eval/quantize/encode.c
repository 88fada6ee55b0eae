/* encode.c - codes nearest to the weights, given the planes; and planes whose neighbours would serve them better. */
#include "convert.h"
#include "fit.h"
#include "model.h"
#include <math.h>
#include <string.h>

/* ---- What codes mean --------------------------------------------------------------------------------------------- */

static void reverse(double *v, int n) {
  for (int i = 0, j = n - 1; i < j; i++, j--) {
    double x = v[i];
    v[i] = v[j], v[j] = x;
  }
}

void qn__meanings_find(const qn__fit *t, int64_t cell, double *room, qn__meanings *m) {
  const qn__rule *r = &t->r;
  double plane[QN_FORMAT_PLANES], ends[2];
  for (uint32_t i = 0; i < t->f->n_planes; i++) plane[i] = qn__fit_value(t, i, cell);
  *m = (qn__meanings){.n = r->n, .value = room, .code = r->code};
  if (!r->n) {
    qn__rule_decode(t->f, 2, (const double[]){0, 1}, plane, ends);
    m->offset = ends[0];
    m->slope = ends[1] - ends[0];
    return;
  }
  qn__rule_decode(t->f, r->n, r->q, plane, room);
  if (room[0] == room[r->n - 1]) m->n = 1, m->code = &r->zero;
  if (room[0] <= room[m->n - 1]) return;
  reverse(room, m->n);
  m->code = r->falling;
}

static int nearest(const qn__meanings *m, double x) {
  int i = qn__lower_bound(m->value, m->n, x);
  if (!i) return i;
  double below = x - m->value[i - 1], above = fabs(m->value[i] - x);
  if (below != above) return below < above ? i - 1 : i;
  int odd = m->code[i] & 1, odd_below = m->code[i - 1] & 1;
  return odd != odd_below ? i - !odd_below : i - (m->code[i - 1] < m->code[i]);
}

double qn__meanings_encode(const qn__fit *t, const qn__meanings *m, double x, void *codes, int64_t i) {
  if (m->n) {
    int at = nearest(m, x);
    if (codes) ((uint8_t *)codes)[i] = m->code[at];
    return m->value[at];
  }
  qn_type type = (qn_type)t->f->cast;
  uint64_t one; /* of any type */
  void *to = codes ? codes : &one;
  i = codes ? i : 0;
  qn__store_f64(type, to, i, (x - m->offset) / m->slope);
  return m->slope * qn__load_f64(type, to, i) + m->offset;
}

/* ---- Encoding ---------------------------------------------------------------------------------------------------- */

/* The weights of row n in a cell that begins at column k0. Adds to e. */
static void encode_segment(const qn__fit *t, const qn__meanings *m, int64_t n, int64_t k0, qn__quantize_error *e) {
  for (int64_t k = k0; k < t->k && k < k0 + t->cols; k++) {
    double x = (double)t->w[n * t->k + k], d = x - qn__meanings_encode(t, m, x, qn__fill(t->p, 0), n * t->k + k);
    e->error2 += d * d;
    e->weight2 += x * x;
    e->largest = fmax(e->largest, fabs(d));
  }
}

static void encode_rows(void *ud, int64_t begin, int64_t end, int32_t thread) {
  const qn__fit *t = ud;
  qn__meanings m;
  double room[QN_CODES];
  (void)thread;
  for (int64_t n = begin; n < end; n++)
    for (int64_t j = 0; j < t->across; j++) {
      qn__meanings_find(t, n / t->rows * t->across + j, room, &m);
      encode_segment(t, &m, n, j * t->cols, &t->row[n]);
    }
}

void qn__fit_encode(qn__fit *t) { qn__pool_run(t->pool, encode_rows, t, t->n); }

/* ---- Refining ---------------------------------------------------------------------------------------------------- */

static double segment_error(const qn__fit *t, const qn__meanings *m, int64_t n, int64_t k0) {
  int64_t end = k0 + t->cols < t->k ? k0 + t->cols : t->k;
  double sum = 0, d[QN__TILE];
  for (int64_t k = k0, count; k < end; k += count) {
    count = end - k < QN__TILE ? end - k : QN__TILE;
    for (int64_t i = 0; i < count; i++) {
      double x = (double)t->w[n * t->k + k + i];
      d[i] = x - qn__meanings_encode(t, m, x, NULL, 0);
    }
    sum += qn__fit_weigh(t, k, count, d);
  }
  return sum;
}

/* Squared error of the weights that share element e of plane p. */
static double element_error(const qn__fit *t, uint32_t p, int64_t e) {
  const qn_format_plane *s = &t->f->plane[p];
  int64_t cols = t->p->plane[1 + p].cols, rows = s->rows ? s->rows : t->n, wide = s->cols ? s->cols : t->k;
  qn__meanings m;
  double room[QN_CODES], sum = 0;
  for (int64_t r = e / cols * rows; r < t->n && r < (e / cols + 1) * rows; r++)
    for (int64_t k = e % cols * wide; k < t->k && k < (e % cols + 1) * wide; k += t->cols) {
      qn__meanings_find(t, r / t->rows * t->across + k / t->cols, room, &m);
      sum += segment_error(t, &m, r, k);
    }
  return sum;
}

/* Try the neighbours of elements of the plane t->refined. */
static void refine(void *ud, int64_t begin, int64_t end, int32_t thread) {
  qn__fit *t = ud;
  const qn_format_plane *s = &t->f->plane[t->refined];
  void *data = qn__fit_data(t, t->refined);
  (void)thread;
  for (int64_t e = begin; e < end; e++) {
    double least = element_error(t, t->refined, e);
    for (int up = 0; up < 2; up++) {
      if (!qn__plane_step(s, data, e, up)) continue;
      double now = element_error(t, t->refined, e);
      if (now < least) least = now;
      else qn__plane_step(s, data, e, !up);
    }
  }
}

/* A step of a narrow plane or of an f16 moves the codes far from zero; one of an f32 moves nothing. */
void qn__fit_refine(qn__fit *t) {
  for (uint32_t i = 0; i < t->f->n_planes; i++) {
    int64_t count = t->p->plane[1 + i].rows * t->p->plane[1 + i].cols;
    if (qn_type_bits((qn_type)t->f->plane[i].type) > 16) continue;
    t->refined = i;
    qn__pool_run(t->pool, refine, t, count);
  }
}
