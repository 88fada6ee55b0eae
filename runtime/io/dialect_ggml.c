/* dialect_ggml.c - GGUF's block types: a table of how each block becomes codes and scales.
 *
 *   Q4_0  f16 d; 16 bytes: low nibbles are elements 0-15, high ones 16-31     W = d * (q - 8)
 *   Q8_0  f16 d; 32 int8                                                      W = d * q; codes are q + 128
 *   Q6_K  256 codes of 4 + 2 bits, int8 s per 16, f16 d                       W = d * s * (q - 32); d * s is exact in
 * f32
 *
 * Source: ggml-common.h and the dequantizers of ggml-quants.c. */
#include "model.h"
#include <string.h>

static void q4_0(const uint8_t *block, uint8_t *codes, void *scale) {
  memcpy(scale, block, 2);
  for (int i = 0; i < 16; i++) codes[i] = block[2 + i] & 15, codes[16 + i] = block[2 + i] >> 4;
}

static void q8_0(const uint8_t *block, uint8_t *codes, void *scale) {
  memcpy(scale, block, 2);
  for (int i = 0; i < 32; i++) codes[i] = block[2 + i] ^ 0x80;
}

static void q6_k(const uint8_t *block, uint8_t *codes, void *scale) {
  const uint8_t *low = block, *high = block + 128, *sub = block + 192;
  float d, *out = scale;
  qn_convert(block + 208, QN_T_F16, &d, QN_T_F32, 1);
  for (int i = 0; i < 16; i++) out[i] = d * (float)(int8_t)sub[i];
  for (int half = 0; half < 2; half++, codes += 128, low += 64, high += 32)
    for (int i = 0; i < 32; i++)
      for (int part = 0; part < 4; part++)
        codes[32 * part + i] =
            (uint8_t)((low[i + 32 * (part & 1)] >> 4 * (part >> 1) & 15) | (high[i] >> 2 * part & 3) << 4);
}

static const struct block {
  const char *dtype, *base, *grain;
  int elements, group;
  qn_type scale;
  void (*open)(const uint8_t *block, uint8_t *codes, void *scale);
} blocks[] = {
    {"Q4_0", "int4", "g32", 32, 32, QN_T_F16, q4_0},
    {"Q8_0", "int8", "g32", 32, 32, QN_T_F16, q8_0},
    {"Q6_K", "int6", "g16", 256, 16, QN_T_F32, q6_k},
};

static bool match(const qn_model *m, const qn__weight *w) {
  return m->gguf && w->part[0]->type == QN_T_NONE && w->part[0]->n_dims >= 2;
}

static qn_status claim(const qn_model *m, qn__weight *w) {
  (void)m;
  const qn_raw *q = w->part[0];
  w->pub.quantized = true;
  w->pub.slices = q->n_dims == 3 ? q->dim[0] : 1;
  w->pub.n = q->dim[q->n_dims - 2];
  w->pub.k = q->dim[q->n_dims - 1];
  for (size_t i = 0; i < QN_COUNT(blocks); i++)
    if (!strcmp(blocks[i].dtype, q->dtype)) {
      w->mode = (int)i;
      return qn__spell(w, blocks[i].base, blocks[i].grain, "", blocks[i].scale);
    }
  return qn__fail(QN_E_FORMAT, "%s: block type %s has no format", q->name, q->dtype);
}

static qn_status read(const qn__weight *w, int64_t slice, qn_planes **out) {
  const struct block *b = &blocks[w->mode];
  int64_t n = w->pub.n, k = w->pub.k, size = ((const qn__stored *)w->part[0])->dtype->bytes,
          count = n * (k / b->elements);
  qn__spec spec[] = {{"codes", QN_T_U8, n, k, NULL}, {"scale", b->scale, n, k / b->group, NULL}};
  qn_planes *p;
  QN_TRY(qn__planes_new(w, spec, 2, false, &p));
  uint8_t *codes = qn__fill(p, 0), *scale = qn__fill(p, 1);
  int64_t step = b->elements / b->group * (qn_type_bits(b->scale) / 8);
  const uint8_t *block = (const uint8_t *)w->part[0]->data + slice * count * size;
  for (int64_t i = 0; i < count; i++) b->open(block + i * size, codes + i * b->elements, scale + i * step);
  *out = p;
  return QN_OK;
}

const qn__dialect qn__ggml = {"gguf", "", {NULL}, "", match, claim, read};
