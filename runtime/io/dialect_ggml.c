/* dialect_ggml.c - GGUF's block types: for each, how a block becomes codes and scales.
 *
 * 32-element blocks hold one or two f16 scales. 256-element super-blocks hold a scale for each 16 or 32 elements, kept
 * in a few bits, times f16 super-scales. Both levels are planes: "scale", "min" and "d", "dmin".
 *
 *     Q1_0                     d (2 q - 1)                                      int1.g128.m
 *     Q4_0 Q5_0 Q8_0           d (q - 8 | 16 | 128; Q8_0 is stored signed)      int4.g32 int5.g32 int8.g32
 *     Q4_1 Q5_1                d q + m                                          int4.g32.m int5.g32.m
 *     Q2_K Q4_K Q5_K           d sc q - dmin mn                                 q2_k q4_k q5_k
 *     Q3_K Q6_K                d sc (q - 4 | 32), sc with a sign                q3_k q6_k
 *     IQ4_NL IQ4_XS            d T[q], d sc T[q]                                iq4_nl.g32 iq4_xs
 *     IQ1_* IQ2_* IQ3_*        d sc T[q], magnitudes by code books (ggml_iq.c)   iq1.g32 iq1.g16 iq2.g32 ... iq3_s
 *     TQ1_0 TQ2_0 Q2_0 I2_S    d (q - 1)                                        ternary.g256 .g64 .tensor.f32
 *     MXFP4 NVFP4              e2m1 2^(e - 127), e2m1 (ue4m3 global)            mxfp4 nvfp4
 *
 * Source: ggml-common.h and the dequantize_row_* of ggml-quants.c; I2_S: bitnet.cpp, the order of its x86 build. */
#include "ggml.h"
#include <string.h>

typedef qn__ggml_dest dest;

static float half(const uint8_t *p) { return qn__load_float(p, QN_T_F16, 0); }

/* ---- Codes ------------------------------------------------------------------------------------------------------- */

static void nibbles(const uint8_t *from, int bytes, uint8_t *codes) { /* low ones first, then the high ones */
  for (int i = 0; i < bytes; i++) {
    codes[i] = from[i] & 15;
    codes[bytes + i] = from[i] >> 4;
  }
}

/* 256 codes of 2 bits: bytes of 32, each of which serves four runs of 32 codes. */
static void crumbs(const uint8_t *from, uint8_t *codes) {
  for (int i = 0; i < 256; i++) codes[i] = from[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
}

/* ---- Blocks of 32 ------------------------------------------------------------------------------------------------ */

static void q4_0(const uint8_t *b, const dest *to) {
  memcpy(to->scale, b, 2);
  nibbles(b + 2, 16, to->codes);
}

static void q4_1(const uint8_t *b, const dest *to) {
  memcpy(to->min, b + 2, 2);
  memcpy(to->scale, b, 2);
  nibbles(b + 4, 16, to->codes);
}

static void fifth_bits(const uint8_t *b, uint8_t *codes) {
  for (int i = 0; i < 32; i++) codes[i] |= (uint8_t)((qn__le32(b) >> i & 1) << 4);
}

static void q5_0(const uint8_t *b, const dest *to) {
  memcpy(to->scale, b, 2);
  nibbles(b + 6, 16, to->codes);
  fifth_bits(b + 2, to->codes);
}

static void q5_1(const uint8_t *b, const dest *to) {
  memcpy(to->scale, b, 2);
  memcpy(to->min, b + 2, 2);
  nibbles(b + 8, 16, to->codes);
  fifth_bits(b + 4, to->codes);
}

static void q8_0(const uint8_t *b, const dest *to) {
  memcpy(to->scale, b, 2);
  for (int i = 0; i < 32; i++) to->codes[i] = b[2 + i] ^ 0x80;
}

static void q1_0(const uint8_t *b, const dest *to) { /* 128 elements: the scale is 2 d, the minimum -d */
  float twice = 2 * half(b);
  qn_convert(&twice, QN_T_F32, to->scale, QN_T_F16, 1);
  *(uint16_t *)to->min = qn__le16(b) ^ 0x8000;
  for (int i = 0; i < 128; i++) to->codes[i] = b[2 + i / 8] >> i % 8 & 1;
}

static void mxfp4(const uint8_t *b, const dest *to) {
  *(uint8_t *)to->scale = b[0];
  nibbles(b + 1, 16, to->codes);
}

static void nvfp4(const uint8_t *b, const dest *to) { /* 64 elements; 0 and 0x7f both mean 0, the sign bit nothing */
  for (int t = 0; t < 4; t++) {
    uint8_t e = b[t] & 0x7f;
    ((uint8_t *)to->scale)[t] = e == 0x7f ? 0 : e;
    nibbles(b + 4 + 8 * t, 8, to->codes + 16 * t);
  }
}

static void q2_0(const uint8_t *b, const dest *to) {
  memcpy(to->scale, b, 2);
  for (int i = 0; i < 64; i++) to->codes[i] = b[2 + i / 4] >> i % 4 * 2 & 3;
}

/* ---- Super-blocks ------------------------------------------------------------------------------------------------ */

static void q2_k(const uint8_t *b, const dest *to) {
  for (int s = 0; s < 16; s++) {
    ((uint8_t *)to->scale)[s] = b[s] & 15;
    ((uint8_t *)to->min)[s] = b[s] >> 4;
  }
  crumbs(b + 16, to->codes);
  memcpy(to->d, b + 80, 2);
  memcpy(to->dmin, b + 82, 2);
}

static void q3_k(const uint8_t *b, const dest *to) {
  const uint8_t *high = b, *s = b + 96;
  memcpy(to->d, b + 108, 2);
  for (int i = 0; i < 16; i++) {
    int low = i < 8 ? s[i] & 15 : s[i - 8] >> 4, top = s[8 + i % 4] >> 2 * (i / 4) & 3;
    ((int8_t *)to->scale)[i] = (int8_t)((low | top << 4) - 32);
  }
  crumbs(b + 32, to->codes);
  for (int i = 0; i < 256; i++) to->codes[i] |= (uint8_t)((high[i % 32] >> i / 32 & 1) << 2);
}

/* Scales and minima of Q4_K and Q5_K: six bits each, eight of each in twelve bytes. */
static void six_bits(const uint8_t *s, uint8_t *scale, uint8_t *min) {
  for (int i = 0; i < 4; i++) {
    scale[i] = s[i] & 63;
    min[i] = s[i + 4] & 63;
    scale[i + 4] = (uint8_t)((s[i + 8] & 15) | s[i] >> 6 << 4);
    min[i + 4] = (uint8_t)(s[i + 8] >> 4 | s[i + 4] >> 6 << 4);
  }
}

static void q4_k(const uint8_t *b, const dest *to) {
  memcpy(to->d, b, 2);
  memcpy(to->dmin, b + 2, 2);
  six_bits(b + 4, to->scale, to->min);
  for (int i = 0; i < 4; i++) nibbles(b + 16 + 32 * i, 32, to->codes + 64 * i);
}

static void q5_k(const uint8_t *b, const dest *to) {
  memcpy(to->d, b, 2);
  memcpy(to->dmin, b + 2, 2);
  six_bits(b + 4, to->scale, to->min);
  for (int i = 0; i < 4; i++) nibbles(b + 48 + 32 * i, 32, to->codes + 64 * i);
  for (int i = 0; i < 256; i++) to->codes[i] |= (uint8_t)((b[16 + i % 32] >> i / 32 & 1) << 4);
}

static void q6_k(const uint8_t *b, const dest *to) {
  memcpy(to->scale, b + 192, 16);
  memcpy(to->d, b + 208, 2);
  for (int h = 0; h < 2; h++) nibbles(b + 64 * h, 64, to->codes + 128 * h);
  for (int i = 0; i < 256; i++)
    to->codes[i] |= (uint8_t)((b[128 + i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3) << 4);
}

static void iq4_xs(const uint8_t *b, const dest *to) {
  memcpy(to->d, b, 2);
  for (int i = 0; i < 8; i++) {
    int scale = (b[4 + i / 2] >> 4 * (i % 2) & 15) | (qn__le16(b + 2) >> 2 * i & 3) << 4;
    ((int8_t *)to->scale)[i] = (int8_t)(scale - 32);
    nibbles(b + 8 + 16 * i, 16, to->codes + 32 * i);
  }
}

/* Trit n of a byte that is a fraction in base 3. */
static uint8_t trit(uint8_t byte, int n) {
  static const uint8_t power[] = {1, 3, 9, 27, 81};
  return (uint8_t)((uint8_t)(byte * power[n]) * 3 >> 8);
}

static void tq1_0(const uint8_t *b, const dest *to) {
  memcpy(to->scale, b + 52, 2);
  for (int i = 0; i < 160; i++) to->codes[i] = trit(b[i % 32], i / 32);
  for (int i = 0; i < 80; i++) to->codes[160 + i] = trit(b[32 + i % 16], i / 16);
  for (int i = 0; i < 16; i++) to->codes[240 + i] = trit(b[48 + i % 4], i / 4);
}

static void tq2_0(const uint8_t *b, const dest *to) {
  memcpy(to->scale, b + 64, 2);
  crumbs(b, to->codes);
}

static void i2_s(const uint8_t *b, const dest *to) { /* 128 elements in 32 bytes, the first in the top bits */
  for (int i = 0; i < 128; i++) to->codes[i] = b[i % 32] >> (6 - i / 32 * 2) & 3;
}

/* ---- The table --------------------------------------------------------------------------------------------------- */

const qn__ggml_block qn__ggml_blocks[] = {
    {"Q1_0", "gguf/Q1_0", "int1.g128.m", 1, 128, 128, 0, QN_T_F16, true, q1_0, NULL},
    {"Q4_0", "gguf/Q4_0", "int4.g32", 4, 32, 32, 0, QN_T_F16, false, q4_0, qn__pack_q4_0},
    {"Q4_1", "gguf/Q4_1", "int4.g32.m", 4, 32, 32, 0, QN_T_F16, true, q4_1, qn__pack_q4_1},
    {"Q5_0", "gguf/Q5_0", "int5.g32", 5, 32, 32, 0, QN_T_F16, false, q5_0, qn__pack_q5_0},
    {"Q5_1", "gguf/Q5_1", "int5.g32.m", 5, 32, 32, 0, QN_T_F16, true, q5_1, qn__pack_q5_1},
    {"Q8_0", "gguf/Q8_0", "int8.g32", 8, 32, 32, 0, QN_T_F16, false, q8_0, qn__pack_q8_0},
    {"IQ4_NL", "gguf/IQ4_NL", "iq4_nl.g32", 4, 32, 32, 0, QN_T_F16, false, q4_0, qn__pack_q4_0},
    {"Q2_0", "gguf/Q2_0", "ternary.g64", 2, 64, 64, 0, QN_T_F16, false, q2_0, qn__pack_q2_0},
    {"MXFP4", "gguf/MXFP4", "mxfp4", 4, 32, 32, 0, QN_T_E8M0, false, mxfp4, qn__pack_mxfp4},
    {"NVFP4", "gguf/NVFP4", "nvfp4", 4, 64, 16, 0, QN_T_E4M3, false, nvfp4, qn__pack_nvfp4},
    {"Q2_K", "gguf/Q2_K", "q2_k", 2, 256, 16, 256, QN_T_U8, true, q2_k, qn__pack_q2_k},
    {"Q3_K", "gguf/Q3_K", "q3_k", 3, 256, 16, 256, QN_T_I8, false, q3_k, qn__pack_q3_k},
    {"Q4_K", "gguf/Q4_K", "q4_k", 4, 256, 32, 256, QN_T_U8, true, q4_k, qn__pack_q4_k},
    {"Q5_K", "gguf/Q5_K", "q5_k", 5, 256, 32, 256, QN_T_U8, true, q5_k, qn__pack_q5_k},
    {"Q6_K", "gguf/Q6_K", "q6_k", 6, 256, 16, 256, QN_T_I8, false, q6_k, qn__pack_q6_k},
    {"IQ4_XS", "gguf/IQ4_XS", "iq4_xs", 4, 256, 32, 256, QN_T_I8, false, iq4_xs, qn__pack_iq4_xs},
    {"IQ1_S", "gguf/IQ1_S", "iq1.g32", 3, 256, 32, 256, QN_T_U8, false, qn__iq1_s, NULL},
    {"IQ1_M", "gguf/IQ1_M", "iq1.g16", 3, 256, 16, 256, QN_T_U8, false, qn__iq1_m, NULL},
    {"IQ2_XXS", "gguf/IQ2_XXS", "iq2.g32", 3, 256, 32, 256, QN_T_U8, false, qn__iq2_xxs, NULL},
    {"IQ2_XS", "gguf/IQ2_XS", "iq2.g16", 3, 256, 16, 256, QN_T_U8, false, qn__iq2_xs, NULL},
    {"IQ2_S", "gguf/IQ2_S", "iq2.g16", 3, 256, 16, 256, QN_T_U8, false, qn__iq2_s, NULL},
    {"IQ3_XXS", "gguf/IQ3_XXS", "iq3_xxs", 4, 256, 32, 256, QN_T_U8, false, qn__iq3_xxs, NULL},
    {"IQ3_S", "gguf/IQ3_S", "iq3_s", 4, 256, 32, 256, QN_T_U8, false, qn__iq3_s, NULL},
    {"TQ1_0", "gguf/TQ1_0", "ternary.g256", 2, 256, 256, 0, QN_T_F16, false, tq1_0, NULL},
    {"TQ2_0", "gguf/TQ2_0", "ternary.g256", 2, 256, 256, 0, QN_T_F16, false, tq2_0, qn__pack_tq2_0},
    {"I2_S", "gguf/I2_S", "ternary.tensor.f32", 2, 128, 0, 0, QN_T_F32, false, i2_s, NULL},
    {0},
};

static bool match(const qn_model *m, const qn__weight *w) {
  return m->gguf && ((const qn__stored *)w->part[0])->dtype->elems > 1;
}

/* NVFP4's scale for the whole tensor stands beside it: "blk.0.ffn_up.scale" for "blk.0.ffn_up.weight". */
static const qn_raw *find_global(const qn_model *m, const char *name) {
  char text[4200];
  const char *tail = strrchr(name, '.');
  size_t stem = tail && !strcmp(tail, ".weight") ? (size_t)(tail - name) : strlen(name);
  if (stem + 8 > sizeof text) return NULL;
  memcpy(text, name, stem);
  memcpy(text + stem, ".scale", 7);
  return qn_model_find_raw(m, text);
}

static qn_status claim(const qn_model *m, qn__weight *w) {
  const qn_raw *q = w->part[0];
  const qn__ggml_block *b = qn__ggml_blocks;
  while (b->dtype && strcmp(b->dtype, q->dtype)) b++;
  if (!b->dtype) return qn__fail(QN_E_SHAPE, "%s: blocks of type %s are not read", q->name, q->dtype);
  w->pub.dialect = b->dialect;
  w->mode = (int)(b - qn__ggml_blocks);
  if (q->n_dims < 2 || q->n_dims > 3) return qn__fail(QN_E_SHAPE, "%s: %d dimensions", q->name, q->n_dims);
  w->pub.slices = q->n_dims == 3 ? q->dim[0] : 1;
  w->pub.n = q->dim[q->n_dims - 2];
  w->pub.k = q->dim[q->n_dims - 1];
  w->bits = b->bits;
  w->scale = b->scale;
  w->rows = b->group ? w->pub.n : 1;
  w->groups = b->group ? w->pub.k / b->group : 1;
  if (!b->group && (w->pub.slices > 1 || w->pub.n * w->pub.k % b->elements))
    return qn__fail(QN_E_SHAPE, "%s: no whole blocks of %d codes", q->name, b->elements);
  if (b->scale == QN_T_E4M3 && (w->part[1] = find_global(m, q->name)))
    QN_TRY(qn__part_is(w, 1, "F32", 1, &w->pub.slices));
  memcpy(w->format, b->format, strlen(b->format) + 1);
  return QN_OK;
}

static qn_status read(const qn__weight *w, int64_t slice, qn_planes **out) {
  const qn__ggml_block *b = &qn__ggml_blocks[w->mode];
  int64_t n = w->pub.n, k = w->pub.k, count = n * k / b->elements, size;
  qn__spec spec[6] = {{"codes", QN_T_U8, n, k, NULL}, {"scale", b->scale, w->rows, w->groups, NULL}};
  int planes = 2, min = 0, d = 0, dmin = 0, global = 0;
  if (b->minimum) spec[min = planes++] = (qn__spec){"min", b->scale, w->rows, w->groups, NULL};
  if (b->super) spec[d = planes++] = (qn__spec){"d", QN_T_F16, n, k / b->super, NULL};
  if (b->super && b->minimum) spec[dmin = planes++] = (qn__spec){"dmin", QN_T_F16, n, k / b->super, NULL};
  if (b->scale == QN_T_E4M3) spec[global = planes++] = (qn__spec){"global", QN_T_F32, 1, 1, NULL};
  QN_TRY(qn__planes_new(w, spec, planes, false, out));
  qn_planes *p = *out;
  const uint8_t *from = w->part[0]->data;
  size = b->group ? ((const qn__stored *)w->part[0])->dtype->bytes : b->elements / 4;
  int64_t per_block = b->group ? b->elements / b->group * (qn_type_bits(b->scale) / 8) : 0;
  from += slice * count * size;
  for (int64_t i = 0; i < count; i++)
    b->open(from + i * size,
            &(dest){(uint8_t *)qn__fill(p, 0) + i * b->elements, (uint8_t *)qn__fill(p, 1) + i * per_block,
                    min ? (uint8_t *)qn__fill(p, min) + i * per_block : NULL, d ? (uint16_t *)qn__fill(p, d) + i : NULL,
                    dmin ? (uint16_t *)qn__fill(p, dmin) + i : NULL});
  if (!b->group) memcpy(qn__fill(p, 1), from + count * size, 4); /* I2_S: after the codes */
  if (global) *(float *)qn__fill(p, global) = w->part[1] ? qn__f32((const uint8_t *)w->part[1]->data + 4 * slice) : 1;
  return QN_OK;
}

const qn__dialect qn__ggml = {"gguf", "", {NULL}, "", match, claim, read};
