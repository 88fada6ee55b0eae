/* dialect_bitnet.c - BitNet b1.58 as Hugging Face packs it: ternary weights, four quarters of the rows in a byte.
 *
 *     weight U8 [N/4, K]   weight_scale [1]
 *     byte [r, k], bits 2 j and 2 j + 1 = t[r + j N/4, k] + 1, for j = 0..3
 *     W = t * weight_scale of class "autobitlinear", t / weight_scale of "bitlinear" (the default)
 *
 * Source: transformers, integrations/bitnet.py. */
#include "model.h"
#include <string.h>

enum { WEIGHT, SCALE };
enum { DIVIDES = 1 };

static bool match(const qn_model *m, const qn__weight *w) {
  const qn_raw *s = w->part[SCALE];
  (void)m;
  return w->part[WEIGHT]->type == QN_T_U8 && (s->type == QN_T_F16 || s->type == QN_T_BF16 || s->type == QN_T_F32) &&
         s->bytes * 8 == (size_t)qn_type_bits(s->type);
}

static qn_status claim(const qn_model *m, qn__weight *w) {
  const qn_raw *q = w->part[WEIGHT], *s = w->part[SCALE];
  QN_TRY(qn__part_is(w, WEIGHT, "U8", 2, (int64_t[]){-1, -1}));
  QN_TRY(qn__part_float(w, SCALE, s->n_dims ? 1 : 0, (int64_t[]){1}));
  w->bits = 2;
  w->pub.n = q->dim[0] * 4;
  w->pub.k = q->dim[1];
  w->rows = w->groups = 1;
  if (!w->pub.n || !w->pub.k) return qn__fail(QN_E_FORMAT, "%s: a dimension is 0", q->name);
  w->mode = strcmp(qn__quant_text(m, "linear_class"), "autobitlinear") ? DIVIDES : 0;
  w->pub.activation = "i8.row";
  return qn__spell(w, "ternary", "tensor", "", w->mode & DIVIDES ? QN_T_F32 : s->type);
}

static qn_status read(const qn__weight *w, int64_t slice, qn_planes **out) {
  (void)slice;
  const qn_raw *q = w->part[WEIGHT], *s = w->part[SCALE];
  int64_t quarter = w->pub.n / 4, k = w->pub.k;
  const qn__spec spec[] = {{"codes", QN_T_U8, w->pub.n, k, NULL},
                           {"scale", w->scale, 1, 1, w->mode & DIVIDES ? NULL : s->data}};
  QN_TRY(qn__planes_new(w, spec, 2, false, out));
  uint8_t *codes = qn__fill(*out, 0);
  const uint8_t *from = q->data;
  for (int64_t j = 0; j < 4; j++)
    for (int64_t i = 0; i < quarter * k; i++) codes[j * quarter * k + i] = from[i] >> 2 * j & 3;
  if (w->mode & DIVIDES) *(float *)qn__fill(*out, 1) = 1 / qn__load_float(s->data, s->type, 0);
  return QN_OK;
}

const qn__dialect qn__bitnet = {"bitnet", ".weight", {"!.weight_scale"}, ".weight", match, claim, read};
