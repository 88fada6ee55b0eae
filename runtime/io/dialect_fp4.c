/* dialect_fp4.c - E2M1 weights, two in a byte, the even k in the low nibble.
 *
 *     compressed-tensors nvfp4  weight_packed U8 [N, K/2]   weight_scale E4M3 [N, K/16]   weight_global_scale F32 [1]
 *     ModelOpt nvfp4            weight U8 [N, K/2]          weight_scale E4M3 [N, K/16]   weight_scale_2 F32
 *         W = e2m1 * (e4m3 * global), where ModelOpt stores global and compressed-tensors its reciprocal
 *     compressed-tensors mxfp4  weight_packed U8 [N, K/2]   weight_scale U8 [N, K/32]
 *     Quark mxfp4               weight U8 [N, K/2]          weight_scale U8 [N, K/32]
 *     DeepSeek's experts        weight I8 [N, K/2]          scale E8M0 [N, K/32]
 *     gpt-oss                   X_blocks U8 [E, N, K/32, 16]   X_scales U8 [E, N, K/32]
 *         W = e2m1 * 2^(scale - 127)
 *
 * Each may be a stack of E experts, which are slices. Rows of gpt-oss's gate_up_proj are interleaved (even: gate, odd:
 * up) and stay so. */
#include "ct.h"
#include <string.h>

enum { CODES, SCALE, GLOBAL };

static void unpack(const uint8_t *from, size_t bytes, uint8_t *codes) {
  for (size_t i = 0; i < bytes; i++) {
    codes[2 * i] = from[i] & 15;
    codes[2 * i + 1] = from[i] >> 4;
  }
}

static qn_status enter(const qn_model *m, qn__weight *w, const char *format, int64_t group, qn_type scale) {
  w->bits = 4;
  w->group = group;
  w->groups = w->pub.k / group;
  w->rows = w->pub.n;
  w->pub.activation = m->activation;
  if (w->pub.n < 1 || w->pub.k < group || w->pub.k % group)
    return qn__fail(QN_E_FORMAT, "%s: %jd x %jd codes do not divide into groups of %jd", w->part[CODES]->name,
                    (intmax_t)w->pub.n, (intmax_t)w->pub.k, (intmax_t)group);
  QN_TRY(qn__spell(w, format, "", "", QN_T_NONE));
  w->scale = scale;
  return QN_OK;
}

/* Codes in the shape [N, K/2], or a stack of such. */
static qn_status enter_matrices(const qn_model *m, qn__weight *w, const char *format, int64_t group, qn_type scale) {
  QN_TRY(qn__enter_stack(w, "U8 I8"));
  w->pub.k *= 2;
  return enter(m, w, format, group, scale);
}

static qn_status read(const qn__weight *w, int64_t slice, qn_planes **out) {
  int64_t n = w->pub.n, k = w->pub.k;
  const qn__spec spec[] = {{"codes", QN_T_U8, n, k, NULL},
                           {"scale", w->scale, n, w->groups, qn__slice(w, SCALE, slice)},
                           {"global", QN_T_F32, 1, 1, NULL}};
  QN_TRY(qn__planes_new(w, spec, w->part[GLOBAL] ? 3 : 2, false, out));
  unpack(qn__slice(w, CODES, slice), (size_t)(n * k / 2), qn__fill(*out, 0));
  if (!w->part[GLOBAL]) return QN_OK;
  float global = qn__f32(qn__slice(w, GLOBAL, slice));
  *(float *)qn__fill(*out, 2) = w->dialect == &qn__ct_nvfp4 ? 1 / global : global;
  return QN_OK;
}

/* ---- NVFP4 ------------------------------------------------------------------------------------------------------- */

static bool is_nvfp4(const qn_model *m, const qn__weight *w) {
  (void)m;
  return w->part[CODES]->type == QN_T_U8 && w->part[SCALE]->type == QN_T_E4M3;
}

static qn_status claim_nvfp4(const qn_model *m, qn__weight *w) {
  int64_t rows, cols;
  QN_TRY(enter_matrices(m, w, "nvfp4", 16, QN_T_E4M3));
  QN_TRY(qn__slice_is(w, SCALE, "F8_E4M3", 2, (int64_t[]){w->rows, w->groups}));
  QN_TRY(
      qn__part_is(w, GLOBAL, "F32", w->part[GLOBAL]->n_dims, (int64_t[QN_MAX_DIMS]){-1, -1, -1, -1, -1, -1, -1, -1}));
  return qn__scale_shape(w, GLOBAL, &rows, &cols) && rows == 1 && cols == 1
             ? QN_OK
             : qn__fail(QN_E_SHAPE, "%s: more than one for a matrix", w->part[GLOBAL]->name);
}

const qn__dialect qn__ct_nvfp4 = {"compressed-tensors/nvfp4-pack-quantized",
                                  ".weight_packed",
                                  {"!.weight_scale", "!.weight_global_scale"},
                                  ".weight",
                                  is_nvfp4,
                                  claim_nvfp4,
                                  read};

const qn__dialect qn__modelopt = {
    "modelopt/nvfp4", ".weight", {"!.weight_scale", "!.weight_scale_2"}, ".weight", is_nvfp4, claim_nvfp4, read};

/* ---- MXFP4 ------------------------------------------------------------------------------------------------------- */

static bool is_mxfp4(const qn_model *m, const qn__weight *w) {
  const qn_raw *q = w->part[CODES], *s = w->part[SCALE];
  (void)m;
  if (q->type != QN_T_U8 && (q->type != QN_T_I8 || s->type != QN_T_E8M0)) return false;
  return s->type == QN_T_U8 || s->type == QN_T_E8M0;
}

static bool has_mxfp4_shapes(const qn_model *m, const qn__weight *w) {
  const qn_raw *q = w->part[CODES], *s = w->part[SCALE];
  int last = q->n_dims - 1;
  return is_mxfp4(m, w) && last > 0 && s->n_dims == q->n_dims && q->dim[last] / 16 == s->dim[last] &&
         q->dim[last] % 16 == 0;
}

static qn_status claim_mxfp4(const qn_model *m, qn__weight *w) {
  QN_TRY(enter_matrices(m, w, "mxfp4", 32, QN_T_E8M0));
  return qn__slice_is(w, SCALE, "U8 F8_E8M0", 2, (int64_t[]){w->rows, w->groups});
}

const qn__dialect qn__ct_mxfp4 = {"compressed-tensors/mxfp4-pack-quantized",
                                  ".weight_packed",
                                  {"!.weight_scale"},
                                  ".weight",
                                  has_mxfp4_shapes,
                                  claim_mxfp4,
                                  read};

const qn__dialect qn__quark_mxfp4 = {"quark/mxfp4", ".weight", {"!.weight_scale"}, ".weight", has_mxfp4_shapes,
                                     claim_mxfp4,   read};

const qn__dialect qn__deepseek_mxfp4 = {"deepseek/mxfp4", ".weight",   {"!.scale"}, ".weight",
                                        has_mxfp4_shapes, claim_mxfp4, read};

static qn_status claim_gptoss(const qn_model *m, qn__weight *w) {
  const qn_raw *q = w->part[CODES];
  int at = q->n_dims == 4;
  QN_TRY(qn__part_is(w, CODES, "U8", at + 3, (int64_t[]){-1, -1, at ? -1 : 16, 16}));
  w->pub.slices = at ? q->dim[0] : 1;
  w->pub.n = q->dim[at];
  w->pub.k = q->dim[at + 1] * 32;
  QN_TRY(enter(m, w, "mxfp4", 32, QN_T_E8M0));
  return qn__part_is(w, SCALE, "U8 F8_E8M0", at + 2, q->dim);
}

const qn__dialect qn__gptoss = {"gpt-oss/mxfp4", "_blocks", {"!_scales"}, "", is_mxfp4, claim_gptoss, read};

const qn__dialect qn__gptoss_original = {"gpt-oss/mxfp4", ".blocks", {"!.scales"}, "", is_mxfp4, claim_gptoss, read};
