/* dialect_fp8.c - 8-bit float weights, E4M3 or E5M2: W = fp8 * scale.
 *
 *     compressed-tensors float-quantized  weight [N, K]   weight_scale     one, [N, 1], [N, G] or a block each
 *     compressed-tensors mxfp8            weight [N, K]   weight_scale     U8 [N, K/32], E8M0: 2^(u - 127)
 *     DeepSeek and Hugging Face "fp8"     weight [N, K]   weight_scale_inv a block each; multiplied despite its name
 *
 * Blocks are `block_structure` or `weight_block_size` of the configuration, 128 x 128 if it is silent; those at the
 * edges may be partial. The codes are the file's own bytes. */
#include "ct.h"
#include <stdio.h>
#include <string.h>

enum { WEIGHT, SCALE };

static qn_status enter_codes(qn__weight *w) {
  const qn_raw *q = w->part[WEIGHT];
  QN_TRY(qn__part_is(w, WEIGHT, "F8_E4M3 F8_E5M2", 2, (int64_t[]){-1, -1}));
  w->bits = 8;
  w->pub.n = q->dim[0];
  w->pub.k = q->dim[1];
  return w->pub.n && w->pub.k ? QN_OK : qn__fail(QN_E_FORMAT, "%s: a dimension is 0", q->name);
}

static qn_status read(const qn__weight *w, int64_t slice, qn_planes **out) {
  (void)slice;
  const qn__spec spec[] = {{"codes", QN_T_U8, w->pub.n, w->pub.k, w->part[WEIGHT]->data},
                           {"scale", w->scale, w->rows, w->groups, w->part[SCALE]->data}};
  return qn__planes_new(w, spec, 2, false, out);
}

/* ---- Scales that are floats -------------------------------------------------------------------------------------- */

static bool is_float8(const qn_model *m, const qn__weight *w) {
  (void)m;
  return w->part[WEIGHT]->type == QN_T_E4M3 || w->part[WEIGHT]->type == QN_T_E5M2;
}

static bool pair(const cJSON *list, int64_t out[2]) {
  for (int i = 0; i < 2; i++) {
    const cJSON *v = cJSON_GetArrayItem(list, i);
    if (!cJSON_IsNumber(v) || v->valuedouble < 1 || v->valuedouble > INT32_MAX) return false;
    out[i] = (int64_t)v->valuedouble;
  }
  return true;
}

/* Rows and columns of a block, from whichever part of the configuration fits the scales. */
static bool find_block(const qn_model *m, const qn__weight *w, int64_t block[2]) {
  const qn_raw *s = w->part[SCALE];
  const cJSON *g;
  bool found = pair(cJSON_GetObjectItemCaseSensitive(m->quant, "weight_block_size"), block);
  for (int i = 0; !found && (g = qn__ct_weights(m, i)); i++)
    found = pair(cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(g, "weights"), "block_structure"),
                 block);
  if (!found) block[0] = block[1] = 128;
  return s->n_dims == 2 && s->dim[0] == qn__ceildiv(w->pub.n, block[0]) && s->dim[1] == qn__ceildiv(w->pub.k, block[1]);
}

static qn_status claim_float(const qn_model *m, qn__weight *w) {
  const qn_raw *s = w->part[SCALE];
  char grain[24];
  int64_t block[2], any[QN_MAX_DIMS] = {-1, -1, -1, -1, -1, -1, -1, -1};
  QN_TRY(enter_codes(w));
  QN_TRY(qn__part_float(w, SCALE, s->n_dims, any));
  bool blocks = find_block(m, w, block) && !(s->dim[0] == w->pub.n && s->dim[1] == 1);
  QN_TRY(qn__scale_grid(w, SCALE, blocks ? block : NULL, grain));
  w->pub.activation = w->dialect == &qn__fp8 && blocks ? "e4m3.g128" : m->activation;
  return qn__spell(w, qn_type_name(w->part[WEIGHT]->type), grain, "", s->type);
}

const qn__dialect qn__ct_float = {
    "compressed-tensors/float-quantized", ".weight", {"!.weight_scale"}, ".weight", is_float8, claim_float, read};

const qn__dialect qn__fp8 = {"fp8", ".weight", {"!.weight_scale_inv"}, ".weight", is_float8, claim_float, read};

/* ---- Scales that are powers of two ------------------------------------------------------------------------------- */

static bool is_mxfp8(const qn_model *m, const qn__weight *w) {
  qn_type s = w->part[SCALE]->type;
  return is_float8(m, w) && (s == QN_T_U8 || s == QN_T_E8M0);
}

static qn_status claim_mxfp8(const qn_model *m, qn__weight *w) {
  QN_TRY(enter_codes(w));
  w->rows = w->pub.n;
  w->group = 32;
  w->groups = qn__ceildiv(w->pub.k, 32);
  QN_TRY(qn__part_is(w, SCALE, "U8 F8_E8M0", 2, (int64_t[]){w->rows, w->groups}));
  w->pub.activation = m->activation;
  QN_TRY(qn__spell(w, w->part[WEIGHT]->type == QN_T_E4M3 ? "mxfp8" : "mxfp8_e5m2", "", "", QN_T_NONE));
  w->scale = QN_T_E8M0;
  return QN_OK;
}

const qn__dialect qn__ct_mxfp8 = {
    "compressed-tensors/mxfp8-quantized", ".weight", {"!.weight_scale"}, ".weight", is_mxfp8, claim_mxfp8, read};
