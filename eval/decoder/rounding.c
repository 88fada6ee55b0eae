/* rounding.c - see rounding.h. */
#include "rounding.h"
#include "fail.h"
#include "narrow.h"
#include <stdio.h>
#include <string.h>

typedef enum scaling { TO_LARGEST, TO_RANGE, POWER, TWO_LEVELS } scaling;

typedef struct qn__rounding_kind {
  const char *name;
  qn_form code;
  scaling scaling;
} kind;

#define E4M3                                                                                                           \
  { QN_KIND_NAN_LAST, 4, 3, QN_AS_X_NO }
#define E2M1                                                                                                           \
  { QN_KIND_FINITE, 2, 1, QN_AS_X_NO }
#define I8                                                                                                             \
  { QN_KIND_SIGNED, 0, 0, QN_AS_X_NO }

static const kind kinds[] = {
    {"i8", I8, TO_LARGEST},      {"e4m3", E4M3, TO_LARGEST}, {"e5m2", {QN_KIND_IEEE, 5, 2, QN_AS_X_NO}, TO_LARGEST},
    {"i8z", I8, TO_RANGE},       {"mxfp8", E4M3, POWER},     {"mxfp4", E2M1, POWER},
    {"nvfp4", E2M1, TWO_LEVELS},
};

/* ---- Scales ------------------------------------------------------------------------------------------------------ */

static float largest_code(qn_form f) {
  return f.kind == QN_KIND_SIGNED ? 127 : qn__narrow_value(f, qn__form_largest(f));
}

static float nearest(qn_form f, float v) { return qn__narrow_value(f, qn__narrow_nearest(f, v)); }

/* The power of two nearest to the largest (from 1.75 on the next one) becomes that of the largest code. */
static float power_of_two(qn_form f, float top) {
  float p = qn__f32_of_bits((qn__bits_of_f32(top) + (1u << 21)) & 0x7f800000);
  return fmaxf(p, 0x1p-126f) / (float)(1 << ilogbf(largest_code(f)));
}

static float scale_of(const qn__rounding *r, float top) {
  static const qn_form e4m3 = E4M3;
  if (r->fixed) return r->scale;
  if (r->kind->scaling == POWER) return power_of_two(r->kind->code, top);
  float scale = top / largest_code(r->kind->code);
  if (r->kind->scaling != TWO_LEVELS) return scale;
  scale = nearest(e4m3, scale / r->scale);
  return (scale == 0 ? .125f : scale) * r->scale;
}

/* ---- Rounding ---------------------------------------------------------------------------------------------------- */

typedef struct job {
  const qn__rounding *r;
  const float *x;
  float *y;
} job;

static float clamp(float v, float least, float most) {
  v = v > least ? v : least; /* NaN becomes the least, as in qn_quantize_rows */
  return v < most ? v : most;
}

/* Codes -128 .. 127 with a zero point. */
static void round_range(const float *x, float *y, int64_t n) {
  float low = 0, high = 0;
  for (int64_t j = 0; j < n; j++) low = fminf(low, x[j]), high = fmaxf(high, x[j]);
  float scale = (high - low) / 255;
  if (scale == 0) scale = 0x1p-23f;
  float zero = rintf(clamp(-128 - low / scale, -128, 127));
  for (int64_t j = 0; j < n; j++) y[j] = (rintf(clamp(x[j] / scale + zero, -128, 127)) - zero) * scale;
}

static void round_part(const qn__rounding *r, const float *x, float *y) {
  const qn_form f = r->kind->code;
  float top = 0;
  if (r->kind->scaling == TO_RANGE) {
    round_range(x, y, r->part);
    return;
  }
  for (int64_t j = 0; j < r->part; j++) top = fabsf(x[j]) > top ? fabsf(x[j]) : top;
  float scale = scale_of(r, top);
  if (scale == 0)
    for (int64_t j = 0; j < r->part; j++) y[j] = 0;
  else if (f.kind == QN_KIND_SIGNED)
    for (int64_t j = 0; j < r->part; j++) y[j] = rintf(clamp(x[j] / scale, r->fixed ? -128 : -127, 127)) * scale;
  else
    for (int64_t j = 0; j < r->part; j++) y[j] = nearest(f, x[j] / scale) * scale;
}

static void run(void *ud, int64_t begin, int64_t end, int32_t thread) {
  const job *a = ud;
  (void)thread;
  for (int64_t i = begin; i < end; i++) round_part(a->r, a->x + i * a->r->part, a->y + i * a->r->part);
}

void qn__rounding_run(qn_pool *pool, const qn__rounding *r, const float *x, float *y, int64_t n) {
  job a = {r, x, y};
  qn__pool_run(pool, run, &a, n / r->part);
}

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

static const kind *find_kind(const char *text, size_t length) {
  for (size_t i = 0; i < QN_COUNT(kinds); i++)
    if (strlen(kinds[i].name) == length && !strncmp(kinds[i].name, text, length)) return &kinds[i];
  return NULL;
}

qn_status qn__rounding_read(const char *text, int64_t k, float scale, const char *name, qn__rounding *out) {
  *out = (qn__rounding){0};
  if (!text) return QN_OK;
  size_t length = strcspn(text, ".");
  const char *grain = text + length + (text[length] == '.');
  const kind *found = find_kind(text, length);
  intmax_t part = k;
  int end = 0;
  bool group = sscanf(grain, "g%jd%n", &part, &end) == 1 && !grain[end];
  if (!found || (!group && strcmp(grain, "row") && strcmp(grain, "tensor")))
    return qn__fail(QN_E_SHAPE,
                    "%s wants activations as '%s'; known: i8, i8z, e4m3, e5m2, mxfp8, mxfp4, nvfp4 by row, tensor or "
                    "group",
                    name, text);
  if (part < 1 || k % part)
    return qn__fail(QN_E_SHAPE, "%s wants activations as '%s', which does not divide its K = %jd", name, text,
                    (intmax_t)k);
  if (found->scaling == TWO_LEVELS && scale == 0)
    return qn__fail(QN_E_SHAPE, "%s wants activations as '%s', and the file has no scale for them", name, text);
  *out = (qn__rounding){found, part, scale, scale != 0 && !strcmp(grain, "tensor")};
  return QN_OK;
}
