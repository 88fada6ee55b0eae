/* dialect_plain.c - what no other dialect claims: matrices of floats are dense weights, in three dimensions a stack of
 * them; vectors and the rest are no weights. Most are stored [out, in] as N x K, some [in, out]. */
#include "model.h"
#include <string.h>

/* ---- What is stored [in, out] ------------------------------------------------------------------------------------ */

/* Architectures that store some matrices [in, out], and how the names of these end. */
static const struct {
  const char *types[5], *names[4];
} in_out[] = {
    {{"gpt2", "openai-gpt", "imagegpt", "decision_transformer"}, /* Conv1D */
     {".c_attn.weight", ".c_proj.weight", ".c_fc.weight", ".q_attn.weight"}},
    {{"gpt_oss", "llama4", "llama4_text", "qwen3_vl_moe", "qwen3_vl_moe_text"},
     {".experts.gate_up_proj", ".experts.down_proj"}},
    {{"aria", "aria_text"}, {".experts.fc1.weight", ".experts.fc2.weight"}},
};

static bool is_in_out(const qn_model *m, const char *name) {
  for (size_t i = 0; i < QN_COUNT(in_out); i++)
    for (size_t t = 0; t < QN_COUNT(in_out[i].types) && in_out[i].types[t]; t++)
      for (size_t n = 0; n < QN_COUNT(in_out[i].names) && in_out[i].names[n]; n++)
        if (qn__ends_with(name, in_out[i].names[n]) && qn__architecture_is(m, in_out[i].types[t])) return true;
  return false;
}

/* Experts that are parameters of one module. Of an architecture that is not known the hidden size tells: it is what
 * goes into gate and up, and what comes out of down. */
static qn_status experts_order(const qn_model *m, const qn_raw *q, bool *transposed) {
  static const char *const names[] = {".experts.gate_up_proj", ".experts.up_proj", ".experts.gate_proj", ".experts.w1",
                                      ".experts.w3",           ".experts.w13",     ".experts.down_proj", ".experts.w2"};
  size_t i = 0;
  while (i < QN_COUNT(names) && !qn__ends_with(q->name, names[i])) i++;
  if (i == QN_COUNT(names)) return QN_OK;
  bool up = i < 6;
  const cJSON *size = qn__config_value(m, "hidden_size");
  double hidden = cJSON_IsNumber(size) ? size->valuedouble : 0;
  bool as_in_out = (double)q->dim[up ? 1 : 2] == hidden, as_out_in = (double)q->dim[up ? 2 : 1] == hidden;
  *transposed = as_in_out;
  if (as_in_out != as_out_in) return QN_OK;
  return qn__fail(QN_E_SHAPE, "%jd x %jd: no configuration tells whether it is stored [out, in] or [in, out]",
                  (intmax_t)q->dim[1], (intmax_t)q->dim[2]);
}

static qn_status find_order(const qn_model *m, const qn_raw *q, bool *transposed) {
  *transposed = false;
  if (qn_model_find_meta(m, "quernel.planes") && qn_model_find_meta(m, q->name)) return QN_OK; /* written as N x K */
  *transposed = is_in_out(m, q->name);
  if (strstr(q->name, ".experts.mlp.") && qn__architecture_is(m, "dbrx"))
    return qn__fail(QN_E_SHAPE, "DBRX stores its experts in one matrix, which is not read; take them one by one");
  return q->n_dims == 3 && !*transposed ? experts_order(m, q, transposed) : QN_OK;
}

/* ---- The dialect ------------------------------------------------------------------------------------------------- */

static qn_status claim(const qn_model *m, qn__weight *w) {
  const qn_raw *q = w->part[0];
  bool transposed;
  if (q->n_dims < 2 || q->n_dims > 3 || !q->bytes) return QN_OK;
  bool is_read = q->type == QN_T_F16 || q->type == QN_T_BF16 || q->type == QN_T_F32;
  if (!is_read && qn__ends_with(q->name, ".weight") &&
      strchr("FC", *q->dtype)) /* not one of integers: that is a table */
    return qn__part_float(w, 0, q->n_dims, q->dim);
  if (!is_read) return QN_OK;
  QN_TRY(find_order(m, q, &transposed));
  w->mode = transposed;
  w->pub.slices = q->n_dims == 3 ? q->dim[0] : 1;
  w->pub.n = q->dim[q->n_dims - 2 + transposed];
  w->pub.k = q->dim[q->n_dims - 1 - transposed];
  QN_TRY(qn__spell(w, qn_type_name(q->type), "", "", QN_T_NONE));
  w->scale = q->type;
  return QN_OK;
}

static qn_status read(const qn__weight *w, int64_t slice, qn_planes **out) {
  qn_type codes = qn_type_bits(w->scale) == 32 ? QN_T_U32 : QN_T_U16;
  const uint8_t *at = w->part[0]->data;
  size_t bytes = (size_t)qn_type_bits(w->scale) / 8;
  at += (size_t)(slice * w->pub.n * w->pub.k) * bytes;
  const qn__spec spec = {"codes", codes, w->pub.n, w->pub.k, w->mode ? NULL : at};
  QN_TRY(qn__planes_new(w, &spec, 1, false, out));
  if (w->mode) qn__transpose(qn__fill(*out, 0), at, w->pub.k, w->pub.n, bytes);
  return QN_OK;
}

const qn__dialect qn__plain = {"plain", "", {NULL}, "", NULL, claim, read};
