/* encode_ct.c - planes as compressed-tensors: see dialect_ct.c, dialect_fp8.c and dialect_fp4.c for the layouts.
 *
 * Act-order is not written: the tool dropped it in August 2026. Integers are packed ("pack-quantized", activations as
 * they are), or of 8 bits plain ("int-quantized", for activations of 8 bits). Codes are packed as one stream, as the
 * tool does since May 2026; of widths that divide 32 that is the same as words of whole codes. */
#include "encode.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- Integers ---------------------------------------------------------------------------------------------------- */

enum { CODES, SCALE, LAST };

static qn_status add_scales(const qn__source *s, qn__encoded *e) {
  const qn_plane *x = s->scale;
  bool one = x->rows == 1 && x->cols == 1;
  if (s->grouped) QN_TRY(qn__encode_whole("K", s->p->k, s->cols));
  qn__encode_part(e, ".weight_scale", qn__dtype_name(x->type), one ? 1 : 2, (int64_t[]){x->rows, x->cols});
  return QN_OK;
}

static qn_status check_integers(const qn__source *s) {
  if (s->p->perm) return qn__fail(QN_E_SHAPE, "act-order is not held");
  if (s->min || (s->zero && s->zero->type != QN_T_U8))
    return qn__fail(QN_E_SHAPE, "integers are held with integer zero points or none");
  return QN_OK;
}

static qn_status shape_packed(const qn__source *s, qn__encoded *e) {
  const qn_planes *p = s->p;
  QN_TRY(check_integers(s));
  int64_t rows = s->scale->rows, groups = s->scale->cols;
  qn__encode_part(e, ".weight_packed", "I32", 2, (int64_t[]){p->n, qn__packed_words(p->k, s->bits, QN__DENSE)});
  QN_TRY(add_scales(s, e));
  qn__encode_part(e, ".weight_shape", "I64", 1, (int64_t[]){2});
  if (s->zero && rows == 1) qn__encode_part(e, ".weight_zero_point", "I8", 1, (int64_t[]){1});
  else if (s->zero)
    qn__encode_part(e, ".weight_zero_point", "I32", 2, (int64_t[]){qn__packed_words(rows, s->bits, QN__DENSE), groups});
  return QN_OK;
}

/* Codes as signed numbers. */
static void signs(const qn__source *s, const uint8_t *code, int64_t count, uint8_t *to) {
  for (int64_t i = 0; i < count; i++) to[i] = (uint8_t)(code[i] - (1 << (s->bits - 1)));
}

static void copy_scales(const qn__source *s, const qn__encoded *e) {
  memcpy(qn__encode_at(e, SCALE), s->scale->data, e->bytes[SCALE]);
}

/* Zero points, packed along N. */
static qn_status pack_zeros(const qn__source *s, uint8_t *words) {
  int64_t rows = s->zero->rows, groups = s->zero->cols;
  uint8_t *column = malloc((size_t)rows);
  if (!column) return qn__fail(QN_E_NOMEM, "no memory for %jd zero points", (intmax_t)rows);
  for (int64_t g = 0; g < groups; g++) {
    for (int64_t i = 0; i < rows; i++) column[i] = ((const uint8_t *)s->zero->data)[i * groups + g];
    qn__pack(column, s->bits, rows, words + 4 * g, 4 * (size_t)groups);
  }
  free(column);
  return QN_OK;
}

static qn_status fill_packed(const qn__source *s, const qn__encoded *e) {
  const qn_planes *p = s->p;
  int64_t row = 4 * qn__packed_words(p->k, s->bits, QN__DENSE);
  const uint8_t *codes = p->plane[0].data;
  uint8_t *words = qn__encode_at(e, CODES);
  for (int64_t i = 0; i < p->n; i++) qn__pack(codes + i * p->k, s->bits, p->k, words + i * row, 4);
  copy_scales(s, e);
  memcpy(qn__encode_at(e, LAST), (int64_t[]){p->n, p->k}, 16);
  if (!s->zero) return QN_OK;
  if (s->zero->rows > 1) return pack_zeros(s, qn__encode_at(e, LAST + 1));
  signs(s, s->zero->data, 1, qn__encode_at(e, LAST + 1));
  return QN_OK;
}

/* GGUF's q3_k and q6_k are such integers, whose scales are products of two planes. f32 holds these exactly. */
static qn__source flattened(const qn__source *s, qn_plane *scale) {
  qn__source flat = *s;
  *scale = *s->scale;
  scale->type = QN_T_F32;
  flat.scale = scale;
  flat.bits = s->base[1] - '0';
  flat.rows = 1, flat.cols = 16, flat.grouped = true;
  return flat;
}

static qn_status shape_flattened(const qn__source *s, qn__encoded *e) {
  qn_plane scale;
  qn__source flat = flattened(s, &scale);
  return shape_packed(&flat, e);
}

static qn_status fill_flattened(const qn__source *s, const qn__encoded *e) {
  qn_plane scale;
  qn__source flat = flattened(s, &scale);
  const qn_plane *d = qn_planes_find(s->p, "d");
  int64_t n = scale.rows, groups = scale.cols;
  float *products = malloc((size_t)(n * groups) * sizeof *products);
  if (!products) return qn__fail(QN_E_NOMEM, "no memory for %jd scales", (intmax_t)(n * groups));
  for (int64_t i = 0; i < n * groups; i++)
    products[i] = qn__load_float(d->data, d->type, i / groups * d->cols + i % groups / 16) *
                  (float)((const int8_t *)s->scale->data)[i];
  scale.data = products;
  qn_status status = fill_packed(&flat, e);
  free(products);
  return status;
}

static qn_status shape_int(const qn__source *s, qn__encoded *e) {
  if (s->bits != 8) return qn__fail(QN_E_SHAPE, "with activations of 8 bits int8 is held");
  QN_TRY(check_integers(s));
  qn__encode_part(e, ".weight", "I8", 2, (int64_t[]){s->p->n, s->p->k});
  QN_TRY(add_scales(s, e));
  if (s->zero) qn__encode_part(e, ".weight_zero_point", "I8", e->part[SCALE].n_dims, e->part[SCALE].dim);
  return QN_OK;
}

static qn_status fill_int(const qn__source *s, const qn__encoded *e) {
  signs(s, s->p->plane[0].data, s->p->n * s->p->k, qn__encode_at(e, CODES));
  copy_scales(s, e);
  if (s->zero) signs(s, s->zero->data, s->zero->rows * s->zero->cols, qn__encode_at(e, LAST));
  return QN_OK;
}

/* ---- Floats ------------------------------------------------------------------------------------------------------ */

static qn_status shape_float(const qn__source *s, qn__encoded *e) {
  qn__encode_part(e, ".weight", "F8_E4M3", 2, (int64_t[]){s->p->n, s->p->k});
  return add_scales(s, e);
}

static qn_status shape_mxfp8(const qn__source *s, qn__encoded *e) {
  QN_TRY(qn__encode_whole("K", s->p->k, 32));
  qn__encode_part(e, ".weight", "F8_E4M3", 2, (int64_t[]){s->p->n, s->p->k});
  qn__encode_part(e, ".weight_scale", "U8", 2, (int64_t[]){s->p->n, s->p->k / 32});
  return QN_OK;
}

static qn_status fill_float(const qn__source *s, const qn__encoded *e) {
  memcpy(qn__encode_at(e, CODES), s->p->plane[0].data, e->bytes[CODES]);
  copy_scales(s, e);
  return QN_OK;
}

/* Two codes in a byte, the even k low. */
static qn_status shape_fp4(const qn__source *s, qn__encoded *e, int64_t group, const char *scale) {
  QN_TRY(qn__encode_whole("K", s->p->k, group));
  qn__encode_part(e, ".weight_packed", "U8", 2, (int64_t[]){s->p->n, s->p->k / 2});
  qn__encode_part(e, ".weight_scale", scale, 2, (int64_t[]){s->p->n, s->p->k / group});
  return QN_OK;
}

static qn_status shape_mxfp4(const qn__source *s, qn__encoded *e) { return shape_fp4(s, e, 32, "U8"); }

static qn_status shape_nvfp4(const qn__source *s, qn__encoded *e) {
  QN_TRY(shape_fp4(s, e, 16, "F8_E4M3"));
  qn__encode_part(e, ".weight_global_scale", "F32", 1, (int64_t[]){1});
  return QN_OK;
}

static qn_status fill_fp4(const qn__source *s, const qn__encoded *e) {
  const uint8_t *codes = s->p->plane[0].data;
  uint8_t *to = qn__encode_at(e, CODES);
  for (size_t i = 0; i < e->bytes[CODES]; i++) to[i] = (uint8_t)(codes[2 * i] | codes[2 * i + 1] << 4);
  copy_scales(s, e);
  return QN_OK;
}

/* The global scale is stored as its reciprocal: the one of which it is the reciprocal in turn, if there is one. */
static float reciprocal(float global) {
  float near = 1 / global, tried[] = {near, nextafterf(near, 0), nextafterf(near, INFINITY)};
  for (size_t i = 0; i < QN_COUNT(tried); i++)
    if (1 / tried[i] == global) return tried[i];
  return near;
}

static qn_status fill_nvfp4(const qn__source *s, const qn__encoded *e) {
  *(float *)qn__encode_at(e, LAST) = reciprocal(qn__f32(qn_planes_find(s->p, "global")->data));
  return fill_fp4(s, e);
}

/* ---- By format --------------------------------------------------------------------------------------------------- */

static const struct kind {
  const char *base, *dialect;
  qn_status (*shape)(const qn__source *s, qn__encoded *e);
  qn_status (*fill)(const qn__source *s, const qn__encoded *e);
} kinds[] = {
    {"int", "compressed-tensors/pack-quantized", shape_packed, fill_packed},
    {"q3_k", "compressed-tensors/pack-quantized", shape_flattened, fill_flattened},
    {"q6_k", "compressed-tensors/pack-quantized", shape_flattened, fill_flattened},
    {"e4m3", "compressed-tensors/float-quantized", shape_float, fill_float},
    {"nvfp4", "compressed-tensors/nvfp4-pack-quantized", shape_nvfp4, fill_nvfp4},
    {"mxfp4", "compressed-tensors/mxfp4-pack-quantized", shape_mxfp4, fill_fp4},
    {"mxfp8", "compressed-tensors/mxfp8-quantized", shape_mxfp8, fill_float},
};

static const struct kind *find_kind(const qn__source *s) {
  for (size_t i = 0; i < QN_COUNT(kinds); i++)
    if (!strcmp(s->bits ? "int" : s->base, kinds[i].base)) return &kinds[i];
  return NULL;
}

static qn_status shape(const qn__source *s, qn__encoded *e) {
  const struct kind *k = find_kind(s);
  if (!k) return qn__fail(QN_E_SHAPE, "integers, q3_k, q6_k, e4m3, nvfp4, mxfp4 and mxfp8 are held");
  e->dialect = k->dialect;
  return k->shape(s, e);
}

static qn_status fill(const qn__source *s, const qn__encoded *e) { return find_kind(s)->fill(s, e); }

const qn__repacker qn__encode_ct = {"compressed-tensors", NULL, shape, fill},
                   qn__encode_ct_int = {"compressed-tensors/int-quantized", "compressed-tensors/int-quantized",
                                        shape_int, fill_int};
