/* names.h - which tensor of a checkpoint is which parameter of a decoder.
 *
 * Checkpoints name and cut their weights in many ways: q, k and v in one tensor, gate and up as alternate rows, experts
 * stacked or apart. Here a parameter is rows of a stored weight. What a file stores otherwise than it is used (Gemma's
 * norms are w in a checkpoint of Hugging Face, 1 + w in a GGUF) is told apart here, too, by qn__params_vector. */
#ifndef QN_EVAL_NAMES_H
#define QN_EVAL_NAMES_H
#include "config.h"

typedef enum qn__param {
  /* of the model (layer 0) */
  QN_P_EMBED,
  QN_P_NORM,
  QN_P_HEAD, /* the embedding's tensor if the model has no head of its own */
  /* vectors of a layer; those of q and k [head_dim], or of all heads together */
  QN_P_NORM_ATTENTION_IN,
  QN_P_NORM_ATTENTION_OUT,
  QN_P_NORM_MLP_IN,
  QN_P_NORM_MLP_OUT,
  QN_P_NORM_Q,
  QN_P_NORM_K,
  QN_P_SINKS, /* [heads] */
  /* attention */
  QN_P_Q,
  QN_P_K,
  QN_P_V,
  QN_P_Q_GATE,
  QN_P_O,
  /* mlp; of experts `expert` is their number */
  QN_P_GATE,
  QN_P_UP,
  QN_P_DOWN,
  QN_P_ROUTER,
  QN_P_EXPERT_GATE,
  QN_P_EXPERT_UP,
  QN_P_EXPERT_DOWN,
  QN_P_SHARED_ROUTER, /* one row */
  QN_P_SHARED_GATE,
  QN_P_SHARED_UP,
  QN_P_SHARED_DOWN,
  /* delta net: z, a and b of each value head; conv [channels of q, k, v, taps]; decay and dt [value_heads] */
  QN_P_DELTA_Q,
  QN_P_DELTA_K,
  QN_P_DELTA_V,
  QN_P_DELTA_Z,
  QN_P_DELTA_A,
  QN_P_DELTA_B,
  QN_P_DELTA_O,
  QN_P_DELTA_CONV,
  QN_P_DELTA_DECAY,
  QN_P_DELTA_DT,
  QN_P_DELTA_NORM, /* [value_dim] */
  QN_P_COUNT
} qn__param;

static inline bool qn__of_expert(qn__param what) { return what >= QN_P_EXPERT_GATE && what <= QN_P_EXPERT_DOWN; }

/* Row i of a parameter is row first + i / run * step + i % run of matrix `slice` of the tensor. */
typedef struct qn__rows {
  const qn_tensor *tensor;
  const qn_raw *bias; /* [tensor->n] or [slices, tensor->n], rows as the weight's; NULL: none */
  int64_t slice, n, k, first, run, step;
} qn__rows;

/* Is that a tensor of a module that predicts further tokens (mtp.*, blk.N.nextn.*)? */
bool qn__predicts_further(const char *name);

typedef struct qn__params qn__params;

/* Find every parameter that `config` calls for, and check its shape. `model` and `config` outlive it. Fails by name
 * on one that is missing, of another shape or unreadable, and on a tensor of a layer that is no parameter: a model that
 * has more than we compute would be evaluated wrong. QN_E_FORMAT, QN_E_SHAPE. Any thread. */
qn_status qn__params_open(const qn_model *model, const qn__config *config, qn__params **out);
void qn__params_close(qn__params *p); /* NULL is accepted */

/* Where a parameter is, or NULL if the model has none. Valid as long as p. Vectors are n x 1. */
const qn__rows *qn__params_find(const qn__params *p, qn__param what, int layer, int64_t expert);

/* A vector (norm, sinks, convolution, decay, dt) as it is used: out[n * k] of qn__params_find. */
qn_status qn__params_vector(const qn__params *p, qn__param what, int layer, float *out);

/* A norm, as it is used, divided by s [n]: norm becomes what it is after the tensor's type has held it, and s what it
 * was over what it is, so that nothing is lost. s is 1 where it would be 0 or no finite number. */
void qn__params_divide(const qn__params *p, qn__param what, int layer, float *norm, float *s);

/* A norm, as it is used, in the tensor's type and as the tensor holds it. */
void qn__params_store(const qn__params *p, qn__param what, int layer, const float *norm, void *out);

/* The bias of a linear parameter: out[n]; zeros if there is none. */
qn_status qn__params_bias(const qn__params *p, qn__param what, int layer, int64_t expert, float *out);
#endif
