/* dialect_fp8.c - 8-bit float weights, E4M3 or E5M2: W = fp8 * scale.
 *
 *     compressed-tensors float-quantized  weight [N, K]   weight_scale     one, [N, 1], [N, G] or a block each
 *     compressed-tensors mxfp8            weight [N, K]   weight_scale     U8 [N, K/32], E8M0: 2^(u - 127)
 *     ModelOpt FP8, FP8_PB_WO             weight [N, K]   weight_scale     one, [N], or [N/128, 1, K/128, 1]
 *     Hugging Face "fp8"                  weight [N, K]   weight_scale_inv a block each; multiplied despite its name
 *     DeepSeek                            weight [N, K]   scale            the same
 *     Mistral                             weight [N, K]   qscale_weight    one
 *
 * Stacks of experts have E in front of both. Fused projections (q, k and v; gate and up) may have one scale for each
 * part, which becomes one for each row. Scales of blocks may be E8M0, too; they become f32.
 *
 * Blocks are `block_structure` or `weight_block_size` of the configuration, 128 x 128 if it is silent; those at the
 * edges may be partial. The codes are the file's own bytes. */
#include "ct.h"
#include <stdio.h>
#include <string.h>

enum { WEIGHT, SCALE };
/* mode: how many rows the first of several fused projections has, which have a scale each; 0: the weight is one */

static bool is_float8(const qn_model *m, const qn__weight *w) {
  (void)m;
  return w->part[WEIGHT]->type == QN_T_E4M3 || w->part[WEIGHT]->type == QN_T_E5M2;
}

static qn_status enter_codes(qn__weight *w) {
  w->bits = 8;
  return qn__enter_stack(w, "F8_E4M3 F8_E5M2");
}

/* ---- Scales that are floats -------------------------------------------------------------------------------------- */

/* Two or three scales for parts of the rows: equal parts, but q, k and v by the numbers of heads, where given. */
static bool enter_fused(const qn_model *m, qn__weight *w) {
  int64_t parts, cols, first = qn__value_int(qn__config_value(m, "num_attention_heads"), 1),
                       other = qn__value_int(qn__config_value(m, "num_key_value_heads"), first);
  if (!qn__scale_shape(w, SCALE, &parts, &cols) || cols != 1 || parts < 2 || parts > 3) return false;
  if (parts == 2 || first < 1 || other < 1) first = other = 1;
  int64_t all = first + (parts - 1) * other;
  if (parts >= w->pub.n || w->pub.n > INT32_MAX || w->pub.n % all) return false;
  w->mode = (int)(w->pub.n / all * first);
  w->rows = w->pub.n;
  w->groups = 1;
  return true;
}

static qn_status claim_float(const qn_model *m, qn__weight *w) {
  const qn_raw *s = w->part[SCALE];
  const int64_t any[QN_MAX_DIMS] = {-1, -1, -1, -1, -1, -1, -1, -1};
  bool bytes = !strcmp(qn__quant_text(m, "scale_fmt"), "ue8m0"); /* may be E8M0 */
  char grain[24] = "row";
  int64_t block[2];
  QN_TRY(enter_codes(w));
  QN_TRY(qn__part_is(w, SCALE, bytes ? "F16 BF16 F32 F8_E8M0 U8" : "F16 BF16 F32 F8_E8M0", s->n_dims, any));
  bool blocks = qn__layer_block(m, w, SCALE, block);
  if (blocks || !enter_fused(m, w)) QN_TRY(qn__scale_grid(m, w, SCALE, blocks ? block : NULL, grain));
  w->pub.activation = w->dialect != &qn__ct_float && blocks ? "e4m3.g128" : m->activation;
  bool kept = !w->mode && s->type != QN_T_E8M0 && s->type != QN_T_U8;
  return qn__spell(w, qn_type_name(w->part[WEIGHT]->type), grain, "", kept ? s->type : QN_T_F32);
}

/* Scales that are not there as they are needed: of fused projections, or powers of two. */
static void make_scales(const qn__weight *w, int64_t slice, float *to) {
  const void *from = qn__slice(w, SCALE, slice);
  qn_type type = w->part[SCALE]->type == QN_T_U8 ? QN_T_E8M0 : w->part[SCALE]->type;
  int64_t parts, cols, first = w->mode;
  qn__scale_shape(w, SCALE, &parts, &cols);
  for (int64_t i = 0; i < w->rows * w->groups; i++) {
    int64_t at = !first ? i : i < first ? 0 : 1 + (i - first) / ((w->rows - first) / (parts - 1));
    to[i] = qn__load_float(from, type, (size_t)at);
  }
}

static qn_status read(const qn__weight *w, int64_t slice, qn_planes **out) {
  bool made = w->scale == QN_T_F32 && (w->mode || w->part[SCALE]->type != QN_T_F32);
  const qn__spec spec[] = {{"codes", QN_T_U8, w->pub.n, w->pub.k, qn__slice(w, WEIGHT, slice)},
                           {"scale", w->scale, w->rows, w->groups, made ? NULL : qn__slice(w, SCALE, slice)}};
  QN_TRY(qn__planes_new(w, spec, 2, false, out));
  if (made) make_scales(w, slice, qn__fill(*out, 1));
  return QN_OK;
}

const qn__dialect qn__ct_float = {
    "compressed-tensors/float-quantized", ".weight", {"!.weight_scale"}, ".weight", is_float8, claim_float, read};

const qn__dialect qn__fp8 = {"fp8", ".weight", {"!.weight_scale_inv"}, ".weight", is_float8, claim_float, read};

const qn__dialect qn__fp8_experts = {"fp8", "", {"!_scale_inv"}, "", is_float8, claim_float, read};

const qn__dialect qn__mistral_fp8 = {"mistral/fp8", ".weight", {"!.qscale_weight"}, ".weight", is_float8,
                                     claim_float,   read};

const qn__dialect qn__deepseek_fp8 = {"deepseek/fp8", ".weight", {"!.scale"}, ".weight", is_float8, claim_float, read};

/* ---- Scales that are powers of two, for 32 codes each ------------------------------------------------------------ */

static bool is_mxfp8(const qn_model *m, const qn__weight *w) {
  const qn_raw *q = w->part[WEIGHT], *s = w->part[SCALE];
  int last = q->n_dims - 1;
  return is_float8(m, w) && (s->type == QN_T_U8 || s->type == QN_T_E8M0) && last > 0 && s->n_dims == q->n_dims &&
         s->dim[last - 1] == q->dim[last - 1] && s->dim[last] == qn__ceildiv(q->dim[last], 32);
}

static qn_status claim_mxfp8(const qn_model *m, qn__weight *w) {
  QN_TRY(enter_codes(w));
  w->group = 32;
  w->groups = qn__ceildiv(w->pub.k, 32);
  QN_TRY(qn__slice_is(w, SCALE, "U8 F8_E8M0", 2, (int64_t[]){w->rows, w->groups}));
  w->pub.activation = m->activation;
  QN_TRY(qn__spell(w, w->part[WEIGHT]->type == QN_T_E4M3 ? "mxfp8" : "mxfp8_e5m2", "", "", QN_T_NONE));
  w->scale = QN_T_E8M0;
  return QN_OK;
}

const qn__dialect qn__ct_mxfp8 = {
    "compressed-tensors/mxfp8-quantized", ".weight", {"!.weight_scale"}, ".weight", is_mxfp8, claim_mxfp8, read};
