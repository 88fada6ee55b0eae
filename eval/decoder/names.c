/* names.c - which tensor of a checkpoint is which parameter of a decoder: one table for Hugging Face and GGUF. */
#include "names.h"
#include "convert.h"
#include "fail.h"
#include "model.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Rows of fused tensors --------------------------------------------------------------------------------------- */

/* What a cut needs to know. It sets first, run and step of `r`, whose n is there, and returns the tensor's rows. */
typedef struct place {
  const qn__config *c;
  const qn__layer_config *l;
  qn__param what;
} place;

typedef int64_t cut(const place *p, qn__rows *r);

static int64_t span(qn__rows *r, int64_t first, int64_t run, int64_t step, int64_t rows) {
  r->first = first, r->run = run, r->step = step;
  return rows;
}

static int64_t whole(const place *p, qn__rows *r) {
  (void)p;
  return span(r, 0, r->n, r->n, r->n);
}

/* q, k and v one after the other. */
static int64_t qkv(const place *p, qn__rows *r) {
  int64_t dim = p->c->head_dim, q = p->l->heads * dim, kv = p->l->kv_heads * dim;
  int64_t first = p->what == QN_P_Q ? 0 : p->what == QN_P_K ? q : q + kv;
  return span(r, first, r->n, r->n, q + 2 * kv);
}

/* Each head's q, then its gate, if there are gates. */
static int64_t q_and_gate(const place *p, qn__rows *r) {
  if (!p->c->gated) return whole(p, r);
  int64_t dim = p->c->head_dim;
  return span(r, p->what == QN_P_Q ? 0 : dim, dim, 2 * dim, 2 * r->n);
}

/* gate, then up; gpt-oss alternates their rows. */
static int64_t gate_up(const place *p, qn__rows *r) {
  bool up = p->what == QN_P_UP || p->what == QN_P_EXPERT_UP || p->what == QN_P_SHARED_UP;
  if (p->c->activation == QN_ACT_CLAMPED) return span(r, up, 1, 2, 2 * r->n);
  return span(r, up ? r->n : 0, r->n, r->n, 2 * r->n);
}

/* q, k and v of a delta net one after the other. */
static int64_t delta_qkv(const place *p, qn__rows *r) {
  const qn__delta_config *d = &p->c->delta;
  int64_t key = (int64_t)d->key_heads * d->key_dim, value = (int64_t)d->value_heads * d->value_dim;
  int64_t first = p->what == QN_P_DELTA_Q ? 0 : p->what == QN_P_DELTA_K ? key : 2 * key;
  return span(r, first, r->n, r->n, 2 * key + value);
}

/* For each key head its q and k, then v and z of the value heads that read it. */
static int64_t delta_qkvz(const place *p, qn__rows *r) {
  const qn__delta_config *d = &p->c->delta;
  int64_t key = d->key_dim, value = (int64_t)(d->value_heads / d->key_heads) * d->value_dim;
  int64_t step = 2 * key + 2 * value, rows = step * d->key_heads;
  switch (p->what) {
  case QN_P_DELTA_Q:
    return span(r, 0, key, step, rows);
  case QN_P_DELTA_K:
    return span(r, key, key, step, rows);
  case QN_P_DELTA_V:
    return span(r, 2 * key, value, step, rows);
  default:
    return span(r, 2 * key + value, value, step, rows);
  }
}

static int64_t delta_ba(const place *p, qn__rows *r) {
  int64_t heads = p->c->delta.value_heads / p->c->delta.key_heads;
  return span(r, p->what == QN_P_DELTA_B ? 0 : heads, heads, 2 * heads, 2 * r->n);
}

/* ---- Names ------------------------------------------------------------------------------------------------------- */

/* Where a parameter may be: behind the layer's prefix in a checkpoint of Hugging Face, behind blk.N. in a GGUF. "%jd"
 * is the number of an expert; without it experts are slices. The first row counts whose tensor is there and has as many
 * rows as the cut says. NULL: no such name there. */
static const struct {
  qn__param what;
  const char *json, *gguf;
  cut *cut; /* NULL: a vector */
} names[] = {
    {QN_P_EMBED, "embed_tokens.weight", "token_embd.weight", whole},
    {QN_P_NORM, "norm.weight", "output_norm.weight", NULL},
    {QN_P_NORM_ATTENTION_IN, "input_layernorm.weight", "attn_norm.weight", NULL},
    {QN_P_NORM_ATTENTION_OUT, "post_attention_layernorm.weight", "post_attention_norm.weight", NULL},
    {QN_P_NORM_MLP_IN, "pre_feedforward_layernorm.weight", "ffn_norm.weight", NULL},
    {QN_P_NORM_MLP_IN, "post_attention_layernorm.weight", "post_attention_norm.weight", NULL},
    {QN_P_NORM_MLP_OUT, "post_feedforward_layernorm.weight", "post_ffw_norm.weight", NULL},
    {QN_P_NORM_Q, "self_attn.q_norm.weight", "attn_q_norm.weight", NULL},
    {QN_P_NORM_K, "self_attn.k_norm.weight", "attn_k_norm.weight", NULL},
    {QN_P_SINKS, "self_attn.sinks", "attn_sinks.weight", NULL},
    {QN_P_Q, "self_attn.q_proj.weight", "attn_q.weight", q_and_gate},
    {QN_P_Q, "self_attn.qkv_proj.weight", "attn_qkv.weight", qkv},
    {QN_P_Q_GATE, "self_attn.q_proj.weight", "attn_q.weight", q_and_gate},
    {QN_P_K, "self_attn.k_proj.weight", "attn_k.weight", whole},
    {QN_P_K, "self_attn.qkv_proj.weight", "attn_qkv.weight", qkv},
    {QN_P_V, "self_attn.v_proj.weight", "attn_v.weight", whole},
    {QN_P_V, "self_attn.qkv_proj.weight", "attn_qkv.weight", qkv},
    {QN_P_O, "self_attn.o_proj.weight", "attn_output.weight", whole},
    {QN_P_GATE, "mlp.gate_proj.weight", "ffn_gate.weight", whole},
    {QN_P_GATE, "mlp.gate_up_proj.weight", "ffn_up.weight", gate_up},
    {QN_P_UP, "mlp.up_proj.weight", "ffn_up.weight", whole},
    {QN_P_UP, "mlp.gate_up_proj.weight", "ffn_up.weight", gate_up},
    {QN_P_DOWN, "mlp.down_proj.weight", "ffn_down.weight", whole},
    {QN_P_ROUTER, "mlp.gate.weight", "ffn_gate_inp.weight", whole},
    {QN_P_ROUTER, "mlp.router.weight", NULL, whole},
    {QN_P_ROUTER, "block_sparse_moe.gate.weight", NULL, whole},
    {QN_P_EXPERT_GATE, "mlp.experts.%jd.gate_proj.weight", "ffn_gate_exps.weight", whole},
    {QN_P_EXPERT_GATE, "mlp.experts.gate_up_proj", "ffn_gate_up_exps.weight", gate_up},
    {QN_P_EXPERT_GATE, "block_sparse_moe.experts.%jd.w1.weight", NULL, whole},
    {QN_P_EXPERT_UP, "mlp.experts.%jd.up_proj.weight", "ffn_up_exps.weight", whole},
    {QN_P_EXPERT_UP, "mlp.experts.gate_up_proj", "ffn_gate_up_exps.weight", gate_up},
    {QN_P_EXPERT_UP, "block_sparse_moe.experts.%jd.w3.weight", NULL, whole},
    {QN_P_EXPERT_DOWN, "mlp.experts.%jd.down_proj.weight", "ffn_down_exps.weight", whole},
    {QN_P_EXPERT_DOWN, "mlp.experts.down_proj", NULL, whole},
    {QN_P_EXPERT_DOWN, "block_sparse_moe.experts.%jd.w2.weight", NULL, whole},
    {QN_P_SHARED_ROUTER, "mlp.shared_expert_gate.weight", "ffn_gate_inp_shexp.weight", NULL},
    {QN_P_SHARED_GATE, "mlp.shared_expert.gate_proj.weight", "ffn_gate_shexp.weight", whole},
    {QN_P_SHARED_UP, "mlp.shared_expert.up_proj.weight", "ffn_up_shexp.weight", whole},
    {QN_P_SHARED_DOWN, "mlp.shared_expert.down_proj.weight", "ffn_down_shexp.weight", whole},
    {QN_P_DELTA_Q, "linear_attn.in_proj_qkv.weight", "attn_qkv.weight", delta_qkv},
    {QN_P_DELTA_Q, "linear_attn.in_proj_qkvz.weight", "ssm_in.weight", delta_qkvz},
    {QN_P_DELTA_K, "linear_attn.in_proj_qkv.weight", "attn_qkv.weight", delta_qkv},
    {QN_P_DELTA_K, "linear_attn.in_proj_qkvz.weight", "ssm_in.weight", delta_qkvz},
    {QN_P_DELTA_V, "linear_attn.in_proj_qkv.weight", "attn_qkv.weight", delta_qkv},
    {QN_P_DELTA_V, "linear_attn.in_proj_qkvz.weight", "ssm_in.weight", delta_qkvz},
    {QN_P_DELTA_Z, "linear_attn.in_proj_z.weight", "attn_gate.weight", whole},
    {QN_P_DELTA_Z, "linear_attn.in_proj_qkvz.weight", "ssm_in.weight", delta_qkvz},
    {QN_P_DELTA_A, "linear_attn.in_proj_a.weight", "ssm_alpha.weight", whole},
    {QN_P_DELTA_A, "linear_attn.in_proj_ba.weight", "ssm_ba.weight", delta_ba},
    {QN_P_DELTA_B, "linear_attn.in_proj_b.weight", "ssm_beta.weight", whole},
    {QN_P_DELTA_B, "linear_attn.in_proj_ba.weight", "ssm_ba.weight", delta_ba},
    {QN_P_DELTA_O, "linear_attn.out_proj.weight", "ssm_out.weight", whole},
    {QN_P_DELTA_CONV, "linear_attn.conv1d.weight", "ssm_conv1d.weight", NULL},
    {QN_P_DELTA_DECAY, "linear_attn.A_log", "ssm_a", NULL},
    {QN_P_DELTA_DT, "linear_attn.dt_bias", "ssm_dt.bias", NULL},
    {QN_P_DELTA_NORM, "linear_attn.norm.weight", "ssm_norm.weight", NULL},
};

/* ---- Which parameters a layer has, and their shapes -------------------------------------------------------------- */

static bool shape_of_model(const qn__config *c, qn__param what, int64_t shape[2]) {
  shape[0] = what == QN_P_NORM ? c->hidden : c->vocab;
  shape[1] = what == QN_P_NORM ? 1 : c->hidden;
  return true;
}

static bool shape_of_attention(const qn__config *c, const qn__layer_config *l, qn__param what, int64_t shape[2]) {
  int64_t dim = c->head_dim, q = l->heads * dim, kv = l->kv_heads * dim;
  bool has = l->mixer == QN_MIXER_ATTENTION, norm = has && c->qk_norm != QN_QK_NONE, each = c->qk_norm == QN_QK_HEAD;
  switch (what) {
  case QN_P_NORM_Q:
    return shape[0] = each ? dim : q, shape[1] = 1, norm;
  case QN_P_NORM_K:
    return shape[0] = each ? dim : kv, shape[1] = 1, norm;
  case QN_P_SINKS:
    return shape[0] = l->heads, shape[1] = 1, has && c->sinks;
  case QN_P_O:
    return shape[0] = c->hidden, shape[1] = q, has;
  default:
    shape[0] = what == QN_P_Q || what == QN_P_Q_GATE ? q : kv;
    return shape[1] = c->hidden, has && (what != QN_P_Q_GATE || c->gated);
  }
}

static bool shape_of_mlp(const qn__config *c, const qn__layer_config *l, qn__param what, int64_t shape[2]) {
  bool experts = !l->mlp, down = what == QN_P_DOWN || what == QN_P_EXPERT_DOWN || what == QN_P_SHARED_DOWN;
  bool has = experts && (what < QN_P_SHARED_ROUTER || c->experts.shared);
  int64_t size = what >= QN_P_SHARED_GATE ? c->experts.shared : c->experts.mlp;
  if (what <= QN_P_DOWN) has = !experts, size = l->mlp;
  if (what == QN_P_ROUTER) size = c->experts.n;
  shape[0] = down || what == QN_P_SHARED_ROUTER ? c->hidden : size;
  shape[1] = down ? size : what == QN_P_SHARED_ROUTER ? 1 : c->hidden;
  return has;
}

static bool shape_of_delta(const qn__config *c, const qn__layer_config *l, qn__param what, int64_t shape[2]) {
  const qn__delta_config *d = &c->delta;
  int64_t key = (int64_t)d->key_heads * d->key_dim, value = (int64_t)d->value_heads * d->value_dim;
  shape[1] = what < QN_P_DELTA_O ? c->hidden : what == QN_P_DELTA_O ? value : 1;
  if (what == QN_P_DELTA_CONV) shape[1] = d->conv;
  shape[0] = what == QN_P_DELTA_Q || what == QN_P_DELTA_K   ? key
             : what == QN_P_DELTA_V || what == QN_P_DELTA_Z ? value
             : what == QN_P_DELTA_O                         ? c->hidden
             : what == QN_P_DELTA_CONV                      ? 2 * key + value
             : what == QN_P_DELTA_NORM                      ? d->value_dim
                                                            : d->value_heads;
  return l->mixer == QN_MIXER_DELTA;
}

/* Does the model, or this layer, have it? Then n x k. */
static bool shape_of(const qn__config *c, const qn__layer_config *l, qn__param what, int64_t shape[2]) {
  if (what <= QN_P_HEAD) return shape_of_model(c, what, shape);
  if (what <= QN_P_NORM_MLP_OUT) {
    bool in = what == QN_P_NORM_ATTENTION_IN || what == QN_P_NORM_MLP_IN;
    return shape[0] = c->hidden, shape[1] = 1, in ? c->norm_in : c->norm_out;
  }
  if (what <= QN_P_O) return shape_of_attention(c, l, what, shape);
  if (what <= QN_P_SHARED_DOWN) return shape_of_mlp(c, l, what, shape);
  return shape_of_delta(c, l, what, shape);
}

/* ---- Finding ----------------------------------------------------------------------------------------------------- */

enum { NAME = 512 };

typedef struct layer_params {
  qn__rows one[QN_P_COUNT]; /* tensor NULL: there is none. Of experts the first */
  qn__rows *expert;         /* [3][experts], or NULL */
} layer_params;

struct qn__params {
  const qn_model *model;
  const qn__config *config;
  bool gguf;         /* are names a GGUF's? */
  char prefix[NAME]; /* what stands in front of "layers." in this checkpoint */
  bool *used;        /* which weights of the model are parameters */
  layer_params *layer;
};

bool qn__predicts_further(const char *name) { return !strncmp(name, "mtp.", 4) || strstr(name, ".nextn."); }

static bool is_decoders(const qn_tensor *t) {
  return strcmp(t->role, "vision, audio") && strcmp(t->role, "adapter") && !qn__predicts_further(t->name);
}

static qn_status find_prefix(qn__params *p) {
  const char *word = p->gguf ? "blk.0." : "layers.0.";
  const qn_tensor *t;
  for (size_t i = 0; (t = qn_model_tensor(p->model, i)); i++) {
    const char *at = strstr(t->name, word);
    if (!at || (at != t->name && at[-1] != '.') || !is_decoders(t)) continue;
    if ((size_t)(at - t->name) >= sizeof p->prefix) break;
    memcpy(p->prefix, t->name, (size_t)(at - t->name));
    return QN_OK;
  }
  return qn__fail(QN_E_FORMAT, "no tensor of a decoder's first layer: none has \"%s\" in its name", word);
}

static const qn_tensor *find_name(const qn__params *p, size_t row, int layer, int64_t expert, char out[NAME]) {
  const char *name = p->gguf ? names[row].gguf : names[row].json;
  size_t at = 0;
  *out = 0;
  if (!name) return NULL;
  if (p->gguf && layer >= 0) at = (size_t)snprintf(out, NAME, "blk.%d.", layer);
  if (!p->gguf) at = (size_t)snprintf(out, NAME, "%s", p->prefix);
  if (!p->gguf && layer >= 0) at += (size_t)snprintf(out + at, NAME - at, "layers.%d.", layer);
  const char *number = strstr(name, "%jd");
  if (!number) snprintf(out + at, NAME - at, "%s", name);
  else snprintf(out + at, NAME - at, "%.*s%jd%s", (int)(number - name), name, (intmax_t)expert, number + 3);
  return qn_model_find(p->model, out);
}

static size_t index_of(const qn__params *p, const qn_tensor *t) {
  return (size_t)((const qn__weight *)(const void *)t - p->model->weight);
}

static int64_t elements(const qn_raw *r) {
  int64_t n = 1;
  for (int i = 0; i < r->n_dims; i++) n *= r->dim[i];
  return n;
}

static bool is_float(const qn_raw *r) { return r->type == QN_T_F32 || r->type == QN_T_F16 || r->type == QN_T_BF16; }

static qn_status use_vector(qn__params *p, const qn_tensor *t, qn__rows *r) {
  if (!is_float(t->raw) || elements(t->raw) != r->n * r->k)
    return qn__fail(QN_E_FORMAT, "%s: %jd elements of %s; %jd floats are expected", t->name, (intmax_t)elements(t->raw),
                    t->raw->dtype, (intmax_t)(r->n * r->k));
  p->used[index_of(p, t)] = true;
  r->tensor = t;
  return QN_OK;
}

/* The bias beside a weight: "x.weight" has "x.bias", "experts.down_proj" has "experts.down_proj_bias". */
static qn_status find_bias(qn__params *p, const qn_tensor *t, qn__rows *r) {
  char name[NAME + 8];
  size_t n = strlen(t->name);
  bool dotted = n > 7 && !strcmp(t->name + n - 7, ".weight");
  snprintf(name, sizeof name, "%.*s%s", (int)(dotted ? n - 7 : n), t->name, dotted ? ".bias" : "_bias");
  const qn_tensor *bias = qn_model_find(p->model, name);
  if (!bias) return QN_OK;
  if (!is_float(bias->raw) || elements(bias->raw) != t->slices * t->n)
    return qn__fail(QN_E_FORMAT, "%s: %jd elements of %s; %jd floats are expected", name, (intmax_t)elements(bias->raw),
                    bias->raw->dtype, (intmax_t)(t->slices * t->n));
  p->used[index_of(p, bias)] = true;
  r->bias = bias->raw;
  return QN_OK;
}

static qn_status use_matrix(qn__params *p, const qn_tensor *t, const qn__rows *found, qn__rows *r) {
  if (t->refusal) return qn__fail(QN_E_SHAPE, "%s: %s", t->name, t->refusal);
  p->used[index_of(p, t)] = true;
  *r = *found;
  r->tensor = t;
  return find_bias(p, t, r);
}

static qn_status missing(const qn__params *p, qn__param what, int layer, int64_t expert, const qn_tensor *wrong,
                         int64_t rows, int64_t k) {
  char list[4 * NAME] = "", name[NAME];
  if (wrong)
    return qn__fail(QN_E_SHAPE, "%s: %jd matrices of %jd x %jd; the configuration makes it %jd x %jd", wrong->name,
                    (intmax_t)wrong->slices, (intmax_t)wrong->n, (intmax_t)wrong->k, (intmax_t)rows, (intmax_t)k);
  for (size_t i = 0, at = 0; i < QN_COUNT(names); i++) {
    if (names[i].what != what) continue;
    find_name(p, i, layer, expert, name);
    if (*name && at < sizeof list) at += (size_t)snprintf(list + at, sizeof list - at, "%s%s", at ? " or " : "", name);
  }
  return qn__fail(QN_E_FORMAT, "the model has no tensor %s", *list ? list : "that its configuration calls for");
}

/* Find one parameter; layer -1: of the model. */
static qn_status find(qn__params *p, qn__param what, int layer, int64_t expert, qn__rows *r) {
  const place where = {p->config, layer < 0 ? NULL : &p->config->layer[layer], what};
  const qn_tensor *wrong = NULL;
  char name[NAME];
  int64_t wrong_rows = 0;
  for (size_t i = 0; i < QN_COUNT(names); i++) {
    if (names[i].what != what) continue;
    const qn_tensor *t = find_name(p, i, layer, expert, name);
    if (!t) continue;
    if (!names[i].cut && p->used[index_of(p, t)]) continue; /* it is another norm here */
    if (!names[i].cut) return use_vector(p, t, r);
    qn__rows found = *r;
    bool stacked = qn__of_expert(what) && !strstr(p->gguf ? names[i].gguf : names[i].json, "%jd");
    int64_t rows = names[i].cut(&where, &found);
    found.slice = stacked ? expert : 0;
    if (t->refusal || (t->n == rows && t->k == r->k && t->slices == (stacked ? p->config->experts.n : 1)))
      return use_matrix(p, t, &found, r);
    if (!wrong) wrong = t, wrong_rows = rows;
  }
  return missing(p, what, layer, expert, wrong, wrong_rows, r->k);
}

/* The head, which a model that ties it to its embedding lists, too. */
static qn_status find_head(qn__params *p, qn__rows *r) {
  const qn_tensor *t;
  for (size_t i = 0; (t = qn_model_tensor(p->model, i)); i++) {
    if (!qn__is_head(t) || !is_decoders(t)) continue;
    qn__rows found = *r;
    if (t->n == whole(NULL, &found) && t->k == r->k) return use_matrix(p, t, &found, r);
    return missing(p, QN_P_HEAD, -1, 0, t, r->n, r->k);
  }
  return qn__fail(QN_E_FORMAT, "the model has no head, and its configuration does not tie it to the embedding");
}

static qn_status find_experts(qn__params *p, int layer, const int64_t shape[2], qn__param what, layer_params *l) {
  int64_t n = p->config->experts.n;
  if (!l->expert) l->expert = calloc((size_t)(3 * n), sizeof *l->expert);
  if (!l->expert) return qn__fail(QN_E_NOMEM, "no memory for %jd experts", (intmax_t)n);
  for (int64_t e = 0; e < n; e++) {
    qn__rows *r = &l->expert[(what - QN_P_EXPERT_GATE) * n + e];
    *r = (qn__rows){.n = shape[0], .k = shape[1]};
    QN_TRY(find(p, what, layer, e, r));
  }
  return QN_OK;
}

static qn_status find_layer(qn__params *p, int layer) {
  layer_params *l = &p->layer[layer];
  int64_t shape[2];
  for (qn__param what = layer ? QN_P_HEAD + 1 : 0; what < QN_P_COUNT; what++) {
    qn__rows *r = &l->one[what];
    if (!shape_of(p->config, &p->config->layer[layer], what, shape)) continue;
    *r = (qn__rows){.n = shape[0], .k = shape[1]};
    if (what == QN_P_HEAD) QN_TRY(find_head(p, r));
    else if (qn__of_expert(what)) QN_TRY(find_experts(p, layer, shape, what, l));
    else QN_TRY(find(p, what, what < QN_P_HEAD ? -1 : layer, 0, r));
  }
  return QN_OK;
}

/* A tensor of a layer that no parameter uses: the model computes something that we do not. */
static qn_status check_rest(const qn__params *p) {
  static const char tail[] = "rotary_emb.inv_freq";
  char start[NAME + 8];
  snprintf(start, sizeof start, "%s%s", p->gguf ? "" : p->prefix, p->gguf ? "blk." : "layers.");
  const qn_tensor *t;
  for (size_t i = 0; (t = qn_model_tensor(p->model, i)); i++) {
    size_t n = strlen(t->name), head = strlen(start);
    if (p->used[i] || !is_decoders(t) || strncmp(t->name, start, head)) continue;
    if (n >= sizeof tail && !strcmp(t->name + n - (sizeof tail - 1), tail)) continue;
    if (strtol(t->name + head, NULL, 10) >= p->config->n_layers) continue; /* they predict further tokens */
    return qn__fail(QN_E_FORMAT, "%s: no parameter of the architecture \"%s\", so what the model computes is unknown",
                    t->name, p->config->architecture);
  }
  return QN_OK;
}

static qn_status find_all(qn__params *p) {
  p->used = calloc(p->model->n_weights + 1, sizeof *p->used);
  p->layer = calloc((size_t)p->config->n_layers, sizeof *p->layer);
  if (!p->used || !p->layer)
    return qn__fail(QN_E_NOMEM, "no memory for the parameters of %d layers", p->config->n_layers);
  QN_TRY(find_prefix(p));
  for (int i = 0; i < p->config->n_layers; i++) QN_TRY(find_layer(p, i));
  return check_rest(p);
}

qn_status qn__params_open(const qn_model *model, const qn__config *config, qn__params **out) {
  *out = NULL;
  qn__params *p = calloc(1, sizeof *p);
  if (!p) return qn__fail(QN_E_NOMEM, "no memory for the parameters of a model");
  p->model = model;
  p->gguf = qn__model_settings(model)->gguf;
  p->config = config;
  qn_status s = find_all(p);
  if (s) qn__params_close(p);
  else *out = p;
  return s;
}

void qn__params_close(qn__params *p) {
  if (!p) return;
  for (int i = 0; p->layer && i < p->config->n_layers; i++) free(p->layer[i].expert);
  free(p->layer);
  free(p->used);
  free(p);
}

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

const qn__rows *qn__params_find(const qn__params *p, qn__param what, int layer, int64_t expert) {
  const layer_params *l = &p->layer[layer];
  const qn__rows *r = &l->one[what];
  if (qn__of_expert(what) && l->expert) r = &l->expert[(what - QN_P_EXPERT_GATE) * p->config->experts.n + expert];
  return r->tensor ? r : NULL;
}

/* What is added to a norm's weights before they are used. */
static float added(const qn__params *p, qn__param what) {
  bool norm = what == QN_P_NORM || (what >= QN_P_NORM_ATTENTION_IN && what <= QN_P_NORM_K);
  return norm && p->config->plus_one ? 1 : 0;
}

/* With what is added to it, and what becomes of the decay. */
static float as_used(const qn__params *p, qn__param what, float v) {
  if (what == QN_P_DELTA_DECAY) return p->gguf ? -v : expf(v);
  return added(p, what) + v;
}

qn_status qn__params_vector(const qn__params *p, qn__param what, int layer, float *out) {
  const qn__rows *r = qn__params_find(p, what, layer, 0);
  if (!r) return qn__fail(QN_E_ARG, "layer %d has no parameter %d", layer, (int)what);
  const qn_raw *raw = r->tensor->raw;
  for (int64_t i = 0; i < r->n * r->k; i++) out[i] = as_used(p, what, qn__load_float(raw->data, raw->type, (size_t)i));
  return QN_OK;
}

static void store(const qn__params *p, qn__param what, qn_type type, float norm, void *out, int64_t i) {
  qn__store_f64(type, out, i, (double)norm - (double)added(p, what));
}

void qn__params_divide(const qn__params *p, qn__param what, int layer, float *norm, float *s) {
  const qn__rows *r = qn__params_find(p, what, layer, 0);
  for (int64_t i = 0; i < r->n; i++) {
    uint32_t held; /* of any float */
    store(p, what, r->tensor->raw->type, norm[i] / s[i], &held, 0);
    float now = as_used(p, what, qn__load_float(&held, r->tensor->raw->type, 0));
    bool fits = now != 0 && isfinite(norm[i] / now) && norm[i] / now != 0;
    s[i] = fits ? norm[i] / now : 1;
    if (fits) norm[i] = now;
  }
}

void qn__params_store(const qn__params *p, qn__param what, int layer, const float *norm, void *out) {
  const qn__rows *r = qn__params_find(p, what, layer, 0);
  for (int64_t i = 0; i < r->n; i++) store(p, what, r->tensor->raw->type, norm[i], out, i);
}

qn_status qn__params_bias(const qn__params *p, qn__param what, int layer, int64_t expert, float *out) {
  const qn__rows *r = qn__params_find(p, what, layer, expert);
  if (!r) return qn__fail(QN_E_ARG, "layer %d has no parameter %d", layer, (int)what);
  for (int64_t i = 0; i < r->n; i++) {
    int64_t row = r->slice * r->tensor->n + r->first + i / r->run * r->step + i % r->run;
    out[i] = r->bias ? qn__load_float(r->bias->data, r->bias->type, (size_t)row) : 0;
  }
  return QN_OK;
}
