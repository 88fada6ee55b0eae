/* encode_ggml.c - planes as GGUF's block types: the reverse of dialect_ggml.c, function by function. */
#include "encode.h"
#include "ggml.h"
#include <stdlib.h>
#include <string.h>

typedef qn__ggml_dest source;

/* ---- Codes ------------------------------------------------------------------------------------------------------- */

static void put_nibbles(const uint8_t *codes, int bytes, uint8_t *to) {
  for (int i = 0; i < bytes; i++) to[i] = (uint8_t)((codes[i] & 15) | codes[bytes + i] << 4);
}

static void put_crumbs(const uint8_t *codes, uint8_t *to) {
  for (int i = 0; i < 256; i++) to[i / 128 * 32 + i % 32] |= (uint8_t)((codes[i] & 3) << i % 128 / 32 * 2);
}

/* ---- Blocks of 32 ------------------------------------------------------------------------------------------------ */

bool qn__pack_q4_0(const source *s, uint8_t *b) {
  memcpy(b, s->scale, 2);
  put_nibbles(s->codes, 16, b + 2);
  return true;
}

bool qn__pack_q4_1(const source *s, uint8_t *b) {
  memcpy(b, s->scale, 2);
  memcpy(b + 2, s->min, 2);
  put_nibbles(s->codes, 16, b + 4);
  return true;
}

static void put_fifth_bits(const uint8_t *codes, uint8_t *to) {
  uint32_t word = 0;
  for (int i = 0; i < 32; i++) word |= (uint32_t)(codes[i] >> 4) << i;
  qn__put_le32(to, word);
}

bool qn__pack_q5_0(const source *s, uint8_t *b) {
  memcpy(b, s->scale, 2);
  put_fifth_bits(s->codes, b + 2);
  put_nibbles(s->codes, 16, b + 6);
  return true;
}

bool qn__pack_q5_1(const source *s, uint8_t *b) {
  memcpy(b, s->scale, 2);
  memcpy(b + 2, s->min, 2);
  put_fifth_bits(s->codes, b + 4);
  put_nibbles(s->codes, 16, b + 8);
  return true;
}

bool qn__pack_q8_0(const source *s, uint8_t *b) {
  memcpy(b, s->scale, 2);
  for (int i = 0; i < 32; i++) b[2 + i] = s->codes[i] ^ 0x80;
  return true;
}

bool qn__pack_q2_0(const source *s, uint8_t *b) {
  memcpy(b, s->scale, 2);
  for (int i = 0; i < 64; i++) b[2 + i / 4] |= (uint8_t)(s->codes[i] << i % 4 * 2);
  return true;
}

bool qn__pack_mxfp4(const source *s, uint8_t *b) {
  b[0] = *(const uint8_t *)s->scale;
  put_nibbles(s->codes, 16, b + 1);
  return true;
}

bool qn__pack_nvfp4(const source *s, uint8_t *b) { /* scales have no sign here */
  for (int t = 0; t < 4; t++) {
    b[t] = ((const uint8_t *)s->scale)[t];
    if (b[t] & 0x80) return false;
    put_nibbles(s->codes + 16 * t, 8, b + 4 + 8 * t);
  }
  return true;
}

/* ---- Super-blocks ------------------------------------------------------------------------------------------------ */

bool qn__pack_q2_k(const source *s, uint8_t *b) {
  for (int i = 0; i < 16; i++) b[i] = (uint8_t)(((const uint8_t *)s->scale)[i] | ((const uint8_t *)s->min)[i] << 4);
  put_crumbs(s->codes, b + 16);
  memcpy(b + 80, s->d, 2);
  memcpy(b + 82, s->dmin, 2);
  return true;
}

static void put_six_bits(const uint8_t *scale, const uint8_t *min, uint8_t *to) {
  for (int i = 0; i < 4; i++) {
    to[i] = (uint8_t)(scale[i] | scale[i + 4] >> 4 << 6);
    to[i + 4] = (uint8_t)(min[i] | min[i + 4] >> 4 << 6);
    to[i + 8] = (uint8_t)((scale[i + 4] & 15) | min[i + 4] << 4);
  }
}

bool qn__pack_q4_k(const source *s, uint8_t *b) {
  memcpy(b, s->d, 2);
  memcpy(b + 2, s->dmin, 2);
  put_six_bits(s->scale, s->min, b + 4);
  for (int i = 0; i < 4; i++) put_nibbles(s->codes + 64 * i, 32, b + 16 + 32 * i);
  return true;
}

bool qn__pack_q5_k(const source *s, uint8_t *b) {
  memcpy(b, s->d, 2);
  memcpy(b + 2, s->dmin, 2);
  put_six_bits(s->scale, s->min, b + 4);
  for (int i = 0; i < 256; i++) b[16 + i % 32] |= (uint8_t)(s->codes[i] >> 4 << i / 32);
  for (int i = 0; i < 4; i++) put_nibbles(s->codes + 64 * i, 32, b + 48 + 32 * i);
  return true;
}

bool qn__pack_q3_k(const source *s, uint8_t *b) {
  uint8_t *to = b + 96;
  memcpy(b + 108, s->d, 2);
  for (int i = 0; i < 16; i++) {
    int six = ((const int8_t *)s->scale)[i] + 32;
    to[i % 8] |= (uint8_t)((six & 15) << i / 8 * 4);
    to[8 + i % 4] |= (uint8_t)(six >> 4 << 2 * (i / 4));
  }
  put_crumbs(s->codes, b + 32);
  for (int i = 0; i < 256; i++) b[i % 32] |= (uint8_t)(s->codes[i] >> 2 << i / 32);
  return true;
}

bool qn__pack_q6_k(const source *s, uint8_t *b) {
  memcpy(b + 192, s->scale, 16);
  memcpy(b + 208, s->d, 2);
  for (int h = 0; h < 2; h++) put_nibbles(s->codes + 128 * h, 64, b + 64 * h);
  for (int i = 0; i < 256; i++) b[128 + i / 128 * 32 + i % 32] |= (uint8_t)(s->codes[i] >> 4 << i % 128 / 32 * 2);
  return true;
}

bool qn__pack_iq4_xs(const source *s, uint8_t *b) {
  uint16_t high = 0;
  memcpy(b, s->d, 2);
  for (int i = 0; i < 8; i++) {
    int six = ((const int8_t *)s->scale)[i] + 32;
    b[4 + i / 2] |= (uint8_t)((six & 15) << 4 * (i % 2));
    high |= (uint16_t)(six >> 4 << 2 * i);
    put_nibbles(s->codes + 32 * i, 16, b + 8 + 16 * i);
  }
  memcpy(b + 2, &high, 2);
  return true;
}

bool qn__pack_tq2_0(const source *s, uint8_t *b) {
  put_crumbs(s->codes, b);
  memcpy(b + 64, s->scale, 2);
  return true;
}

/* ---- A weight ---------------------------------------------------------------------------------------------------- */

static const qn__ggml_block *find_block(const qn__source *s) {
  const qn__ggml_block *b = qn__ggml_blocks;
  while (b->dtype && !(b->pack && !strcmp(b->format, s->p->format))) b++;
  return b->dtype ? b : NULL;
}

/* Dense weights have the names of their types. */
static const char *dense(const qn__source *s) {
  qn_type type = qn_type_from_name(s->p->format);
  return type == QN_T_F32 || type == QN_T_F16 || type == QN_T_BF16 ? qn__dtype_name(type) : NULL;
}

static qn_status shape(const qn__source *s, qn__encoded *e) {
  const qn__ggml_block *b = find_block(s);
  const char *dtype = b ? b->dtype : dense(s);
  if (!dtype)
    return qn__fail(QN_E_SHAPE,
                    "int4.g32, int4.g32.m, int5.g32, int5.g32.m, int8.g32, iq4_nl.g32, iq4_xs, q2_k, q3_k, q4_k, "
                    "q5_k, q6_k, mxfp4, nvfp4, ternary.g64 and ternary.g256 are held");
  if (s->p->perm) return qn__fail(QN_E_SHAPE, "act-order is not held");
  if (b) QN_TRY(qn__encode_whole("K", s->p->k, b->elements));
  qn__encode_part(e, ".weight", dtype, 2, (int64_t[]){s->p->n, s->p->k});
  if (b && b->scale == QN_T_E4M3) qn__encode_part(e, ".scale", "F32", 1, (int64_t[]){1});
  return QN_OK;
}

static const void *data_of(const qn_planes *p, const char *name) {
  const qn_plane *x = qn_planes_find(p, name);
  return x ? x->data : NULL;
}

static qn_status fill(const qn__source *s, const qn__encoded *e) {
  const qn_planes *p = s->p;
  const qn__ggml_block *b = find_block(s);
  if (!b) return memcpy(qn__encode_at(e, 0), p->plane[0].data, e->bytes[0]), QN_OK;
  int64_t count = p->n * p->k / b->elements, size = (int64_t)e->bytes[0] / count;
  int64_t scales = b->elements / b->group * (qn_type_bits(b->scale) / 8);
  const uint8_t *codes = p->plane[0].data, *scale = data_of(p, "scale"), *min = data_of(p, "min");
  const uint8_t *d = data_of(p, "d"), *dmin = data_of(p, "dmin");
  for (int64_t i = 0; i < count; i++) {
    source from = {(uint8_t *)(uintptr_t)codes + i * b->elements, (uint8_t *)(uintptr_t)scale + i * scales,
                   min ? (uint8_t *)(uintptr_t)min + i * scales : NULL, d ? (uint8_t *)(uintptr_t)d + 2 * i : NULL,
                   dmin ? (uint8_t *)(uintptr_t)dmin + 2 * i : NULL};
    if (!b->pack(&from, (uint8_t *)qn__encode_at(e, 0) + i * size))
      return qn__fail(QN_E_SHAPE, "%s cannot hold the scales of row %jd from column %jd on", b->dtype,
                      (intmax_t)(i * b->elements / p->k), (intmax_t)(i * b->elements % p->k));
  }
  if (e->count > 1) memcpy(qn__encode_at(e, 1), data_of(p, "global"), 4);
  return QN_OK;
}

qn_status qn__encoded_rotate(qn__encoded *e, int64_t heads) {
  int64_t n = e->part[0].dim[0], half = n / heads / 2;
  size_t row = e->bytes[0] / (size_t)n;
  if (n % (2 * heads))
    return qn__fail(QN_E_SHAPE, "%jd rows are not even heads, %jd of them", (intmax_t)n, (intmax_t)heads);
  if (!e->part[0].data) return QN_OK;
  char *to = qn__encode_at(e, 0), *copy = malloc(e->bytes[0]);
  if (!copy) return qn__fail(QN_E_NOMEM, "no memory for %zu bytes", e->bytes[0]);
  memcpy(copy, to, e->bytes[0]);
  for (int64_t i = 0; i < n; i++) {
    int64_t head = i / (2 * half), at = i % (2 * half);
    memcpy(to + (size_t)i * row, copy + (size_t)(head * 2 * half + at % 2 * half + at / 2) * row, row);
  }
  free(copy);
  return QN_OK;
}

const qn__repacker qn__encode_ggml = {"gguf", "gguf", shape, fill};
