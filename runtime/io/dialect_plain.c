/* dialect_plain.c - what no other dialect claims: matrices of floats are dense weights, in three dimensions a stack of
 * them; vectors and the rest are no weights. Most are stored [out, in] as N x K, some [in, out]. */
#include "model.h"
#include <string.h>

/* ---- What is stored [in, out] ------------------------------------------------------------------------------------ */

/* GPT-2's Conv1D. */
static bool is_conv1d(const qn_model *m, const char *name) {
  static const char *const types[] = {"gpt2", "openai-gpt", "imagegpt", "decision_transformer"},
                           *const modules[] = {".c_attn.weight", ".c_proj.weight", ".c_fc.weight", ".q_attn.weight"};
  bool type = false, module = false;
  for (size_t i = 0; i < QN_COUNT(types); i++) type = type || qn__architecture_is(m, types[i]);
  for (size_t i = 0; i < QN_COUNT(modules); i++) module = module || strstr(name, modules[i]);
  return type && module;
}

static int64_t hidden_size(const qn_model *m) {
  const cJSON *v = qn__config(m, "hidden_size");
  return cJSON_IsNumber(v) && v->valuedouble >= 1 && v->valuedouble <= INT32_MAX ? (int64_t)v->valuedouble : 0;
}

/* Experts that are parameters of one module, "experts.gate_up_proj" or "experts.down_proj": some architectures store
 * them [in, out]. Of another the hidden size tells. */
static qn_status experts_order(const qn_model *m, const qn_raw *q, bool up, bool *transposed) {
  static const char *const types[] = {"gpt_oss",     "llama4",           "llama4_text",
                                      "qwen3_vl_moe", "qwen3_vl_moe_text"};
  for (size_t i = 0; i < QN_COUNT(types); i++)
    if (qn__architecture_is(m, types[i])) return *transposed = true, QN_OK;
  int64_t hidden = hidden_size(m), in_out = q->dim[up ? 1 : 2], out_in = q->dim[up ? 2 : 1];
  *transposed = in_out == hidden;
  if ((in_out == hidden) != (out_in == hidden)) return QN_OK;
  return qn__fail(QN_E_SHAPE, "%jd x %jd: no configuration tells whether it is stored [out, in] or [in, out]",
                  (intmax_t)q->dim[1], (intmax_t)q->dim[2]);
}

static qn_status find_order(const qn_model *m, const qn_raw *q, bool *transposed) {
  const char *experts = strstr(q->name, "experts.");
  bool up = experts && !strcmp(experts, "experts.gate_up_proj"), down = experts && !strcmp(experts, "experts.down_proj");
  *transposed = is_conv1d(m, q->name);
  if (experts && strstr(experts, "experts.mlp.") && qn__architecture_is(m, "dbrx"))
    return qn__fail(QN_E_SHAPE, "DBRX stores its experts in one matrix, which is not read; take them one by one");
  return q->n_dims == 3 && (up || down) ? experts_order(m, q, up, transposed) : QN_OK;
}

/* ---- The dialect ------------------------------------------------------------------------------------------------- */

static qn_status claim(const qn_model *m, qn__weight *w) {
  const qn_raw *q = w->part[0];
  bool transposed;
  if (q->n_dims < 2 || q->n_dims > 3 || !q->bytes) return QN_OK;
  if (q->type != QN_T_F16 && q->type != QN_T_BF16 && q->type != QN_T_F32) return QN_OK;
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
