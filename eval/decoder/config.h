/* config.h - what the forward pass of a decoder must know of a model, as data.
 *
 * One struct describes every architecture: config_read.c fills it from config.json or from the keys of a GGUF header,
 * after the table in arch.c, which says what an architecture does beyond Llama. The forward asks for no architecture's
 * name.
 *
 *     x = embed(ids) * embed_scale
 *     every layer:  x += residual_scale * out(mixer(in(x)));  x += residual_scale * out(mlp(in(x)))
 *     logits = softcap(head(norm(x)) * logit_scale)
 *
 * `in` and `out` are RMS norms where norm_in and norm_out say so, else nothing. The mixer of a layer is attention or a
 * gated delta net, its mlp one gated linear unit or a choice of experts. Where its weights are, names.h tells; a bias
 * is added where the checkpoint has one. */
#ifndef QN_EVAL_CONFIG_H
#define QN_EVAL_CONFIG_H
#include "quernel_io.h"

enum { QN__HEAD_DIM = 512, QN__ROPES = 2 }; /* limits */

/* ---- Positions --------------------------------------------------------------------------------------------------- */

/* Pair i of a head turns by position * frequency[i] radians (all of it in f32, as everywhere else); its cosine and sine
 * are multiplied by `scale`. The first 2 * pairs elements of a head turn, the others stay as they are. */
typedef struct qn__rope {
  int pairs;
  float scale;
  float frequency[QN__HEAD_DIM / 2]; /* of windows of up to `near` tokens, or of all if `near` is 0 */
  int64_t near;
  float far[QN__HEAD_DIM / 2]; /* longrope: of longer ones */
  double dynamic, theta;       /* dynamic: its factor, and the base that grows with the length; 0 elsewhere */
} qn__rope;

/* Frequencies of a window (or of a session's context) of `length` tokens. */
void qn__rope_frequencies(const qn__rope *r, int64_t length, float *frequency);

/* ---- Layers ------------------------------------------------------------------------------------------------------ */

typedef enum qn__mixer { QN_MIXER_ATTENTION, QN_MIXER_DELTA } qn__mixer;

typedef struct qn__layer_config {
  qn__mixer mixer;
  int heads, kv_heads; /* of attention: head h reads key head h / (heads / kv_heads) */
  int rope;            /* of qn__config.rope; -1: no positions */
  int64_t window;      /* a token sees so many, itself counted; 0: all before it */
  int64_t mlp;         /* intermediate size; 0: the layer has experts */
} qn__layer_config;

/* act(gate) * up, but of QN_ACT_CLAMPED: g = min(gate, limit), u = clamp(up, -limit, limit),
 * g * sigmoid(1.702 g) * (u + 1). */
typedef enum qn__activation { QN_ACT_SILU, QN_ACT_GELU, QN_ACT_GELU_TANH, QN_ACT_CLAMPED } qn__activation;

/* RMS norm of q and k before they turn: of each head, or of all heads together. */
typedef enum qn__qk_norm { QN_QK_NONE, QN_QK_HEAD, QN_QK_ALL } qn__qk_norm;

/* p = softmax of the router's n outputs (its bias added); the `used` largest, divided by their sum if `normalize`.
 * mlp = sum of p_e * expert e, plus sigmoid(shared router) * the shared expert if there is one. */
typedef struct qn__expert_config {
  int n, used;
  bool normalize;
  int64_t mlp, shared; /* intermediate size of an expert, of the shared one (0: none) */
} qn__expert_config;

/* Gated delta net (Yang et al. 2024, arXiv 2412.06464), a state S[key_dim, value_dim] for each value head:
 *
 *     q, k, v = silu(conv(...)) over the last `conv` tokens of each channel
 *     q = q / |q| / sqrt(key_dim), k = k / |k|
 *     S = exp(-decay * softplus(a + dt)) * S
 *     S = S + k (sigmoid(b) * (v - S^T k))^T, o = S^T q
 *     out = linear(rms(o) * norm * silu(z)) */
typedef struct qn__delta_config {
  int key_heads, value_heads, key_dim, value_dim, conv;
  bool tiled; /* value head j reads key head j % key_heads, else j / (value_heads / key_heads) */
} qn__delta_config;

/* ---- The model --------------------------------------------------------------------------------------------------- */

typedef struct qn__config {
  const char *architecture;       /* as its file calls it: "qwen3_5_text", "qwen35" */
  int64_t vocab, hidden, context; /* context: positions that the model was made for; 0: not said */
  int n_layers, head_dim;
  double eps;             /* of all norms */
  bool plus_one;          /* the file's norms are w of 1 + w: qn__params_vector adds it */
  bool norm_in, norm_out; /* before and after attention and mlp */
  qn__qk_norm qk_norm;
  qn__activation activation;
  float limit; /* of QN_ACT_CLAMPED */
  bool gated;  /* attention's output is multiplied by sigmoid(q_gate) before the output projection */
  bool sinks;  /* a logit for each head joins the softmax and its share is dropped */
  bool pairs;  /* elements 2i and 2i + 1 of a head turn together, else i and i + rope.pairs */
  float embed_scale, residual_scale, attention_scale, logit_scale; /* factors */
  float attention_softcap, logit_softcap;                          /* cap * tanh(x / cap); 0: none */
  qn__rope rope[QN__ROPES];
  qn__expert_config experts; /* n 0: none */
  qn__delta_config delta;    /* of layers that have one */
  qn__layer_config *layer;
} qn__config;

/* The configuration of a model, freed with qn__config_free. Fails by name on an architecture that is not in the table,
 * a rope or a setting that the forward does not have, and sizes that contradict each other: QN_E_FORMAT. Nothing is
 * said of its tensors. Any thread. */
qn_status qn__config_read(const qn_model *model, qn__config **out);
void qn__config_free(qn__config *c); /* NULL is accepted */
#endif
