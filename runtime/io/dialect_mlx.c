/* dialect_mlx.c - MLX: codes packed along K into U32 words, one stream of bits in each row, the lowest first.
 *
 *     weight U32 [N, K b/32]   scales [N, K/g]   biases [N, K/g]        affine: W = code * scale + bias
 *     weight U32 [N, K b/32]   scales U8 [N, K/g]                       mxfp4, mxfp8 (E8M0), nvfp4 (E4M3)
 *
 * Stacks of experts have E in front. Bits, group size and mode are those of the configuration, for the module or for
 * all: shapes tell only the product of the first two.
 *
 * Source: mlx, python/mlx/nn/layers/quantized.py and the documentation of mlx.core.quantize. */
#include "model.h"
#include <stdio.h>
#include <string.h>

enum { WEIGHT, SCALES, BIASES };

static const struct mode {
  const char *name;
  int bits, group; /* 0: configured */
  qn_type scale;   /* NONE: a float, and there are biases */
} modes[] = {
    {"affine", 0, 0, QN_T_NONE},
    {"mxfp4", 4, 32, QN_T_E8M0},
    {"mxfp8", 8, 32, QN_T_E8M0},
    {"nvfp4", 4, 16, QN_T_E4M3},
};

static bool match(const qn_model *m, const qn__weight *w) {
  qn_type s = w->part[SCALES]->type;
  (void)m;
  return w->part[WEIGHT]->type == QN_T_U32 &&
         (s == QN_T_U8 || (w->part[BIASES] && (s == QN_T_F16 || s == QN_T_BF16 || s == QN_T_F32)));
}

static const struct mode *find_mode(const qn_model *m, const qn__weight *w) {
  const char *name = qn__layer_text(m, w, "mode");
  if (!*name && w->part[BIASES]) return modes;
  for (size_t i = 0; i < QN_COUNT(modes); i++)
    if (!strcmp(name, modes[i].name)) return &modes[i];
  return NULL;
}

static qn_status claim(const qn_model *m, qn__weight *w) {
  const qn_raw *q = w->part[WEIGHT], *s = w->part[SCALES];
  QN_TRY(qn__enter_stack(w, "U32"));
  QN_TRY(qn__layer_configure(m, w));
  const struct mode *mode = find_mode(m, w);
  if (!mode) return qn__fail(QN_E_SHAPE, "%s: no configuration says MLX's mode", q->name);
  int64_t words = w->pub.k, bits = mode->bits ? mode->bits : qn__layer_int(m, w, "bits", 0);
  w->group = mode->group ? mode->group : qn__layer_int(m, w, "group_size", 0);
  if (bits < 1 || bits > 8 || w->group < 1)
    return qn__fail(QN_E_SHAPE, "%s: the shapes tell bits x group size only; no configuration says these", q->name);
  w->bits = (int)bits;
  w->pub.k = words * 32 / bits;
  w->groups = w->pub.k / w->group;
  if (words * 32 % bits || w->groups < 1 || w->pub.k % w->group)
    return qn__fail(QN_E_FORMAT, "%s: rows of %jd words are no whole groups of %jd codes of %jd bits", q->name,
                    (intmax_t)words, (intmax_t)w->group, (intmax_t)bits);
  const int64_t shape[2] = {w->rows, w->groups};
  if (mode->scale) {
    QN_TRY(qn__slice_is(w, SCALES, "U8", 2, shape));
    QN_TRY(qn__spell(w, mode->name, "", "", QN_T_NONE));
    w->scale = mode->scale;
    return QN_OK;
  }
  char base[] = {'i', 'n', 't', (char)('0' + bits), 0}, grain[24];
  QN_TRY(qn__slice_is(w, SCALES, "F16 BF16 F32", 2, shape));
  QN_TRY(qn__slice_is(w, BIASES, s->dtype, 2, shape));
  return qn__spell(w, base, qn__grain(w, grain), "m", s->type);
}

static qn_status read(const qn__weight *w, int64_t slice, qn_planes **out) {
  int64_t n = w->pub.n, k = w->pub.k, words = k * w->bits / 32;
  bool affine = w->scale != QN_T_E8M0 && w->scale != QN_T_E4M3, nvfp4 = w->scale == QN_T_E4M3;
  const uint8_t *q = qn__slice(w, WEIGHT, slice);
  qn__spec spec[] = {{"codes", QN_T_U8, n, k, NULL},
                     {"scale", w->scale, n, w->groups, qn__slice(w, SCALES, slice)},
                     {"global", QN_T_F32, 1, 1, NULL}};
  if (affine) spec[2] = (qn__spec){"min", w->scale, n, w->groups, qn__slice(w, BIASES, slice)};
  QN_TRY(qn__planes_new(w, spec, affine || nvfp4 ? 3 : 2, false, out));
  uint8_t *codes = qn__fill(*out, 0);
  for (int64_t i = 0; i < n; i++) qn__unpack(q + 4 * i * words, 4, w->bits, QN__DENSE, k, codes + i * k, 1);
  if (nvfp4) *(float *)qn__fill(*out, 2) = 1;
  return QN_OK;
}

const qn__dialect qn__mlx = {"mlx", ".weight", {"!.scales", ".biases"}, ".weight", match, claim, read};
