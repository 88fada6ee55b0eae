/* arch.h - the architectures that can be evaluated: what each does beyond Llama, as data. */
#ifndef QN_EVAL_ARCH_H
#define QN_EVAL_ARCH_H
#include "config.h"

/* ---- Settings ---------------------------------------------------------------------------------------------------- */

/* name, key of config.json, another that it may have instead, key of a GGUF (NULL: none) */
#define QN_SETTINGS(X)                                                                                                 \
  X(HIDDEN, "hidden_size", NULL, "embedding_length")                                                                   \
  X(LAYERS, "num_hidden_layers", NULL, "block_count")                                                                  \
  X(EXTRA_LAYERS, NULL, NULL, "nextn_predict_layers") /* of those: they predict further tokens */                      \
  X(HEADS, "num_attention_heads", NULL, "attention.head_count")                                                        \
  X(KV_HEADS, "num_key_value_heads", NULL, "attention.head_count_kv")                                                  \
  X(HEAD_DIM, "head_dim", NULL, "attention.key_length")                                                                \
  X(VALUE_DIM, "v_head_dim", NULL, "attention.value_length")                                                           \
  X(MLP, "intermediate_size", NULL, "feed_forward_length")                                                             \
  X(CONTEXT, "max_position_embeddings", NULL, "context_length")                                                        \
  X(EPS, "rms_norm_eps", NULL, "attention.layer_norm_rms_epsilon")                                                     \
  X(ACTIVATION, "hidden_activation", "hidden_act", NULL)                                                               \
  X(LIMIT, "swiglu_limit", NULL, NULL)                                                                                 \
  X(ALPHA, "swiglu_alpha", NULL, NULL)                                                                                 \
  X(BIDIRECTIONAL, "use_bidirectional_attention", NULL, NULL)                                                          \
  X(OUTPUT_GATE, "attn_output_gate", NULL, NULL)                                                                       \
  X(LAYER_TYPES, "layer_types", NULL, NULL)                                                                            \
  X(WINDOW, "sliding_window", NULL, "attention.sliding_window")                                                        \
  X(USE_WINDOW, "use_sliding_window", NULL, NULL)                                                                      \
  X(WINDOW_FROM, "max_window_layers", NULL, NULL)                                                                      \
  X(WINDOW_PERIOD, "sliding_window_pattern", "_sliding_window_pattern", "attention.sliding_window_pattern")            \
  X(FULL_PERIOD, "full_attention_interval", NULL, "full_attention_interval")                                           \
  X(ROPE_LAYERS, "no_rope_layers", NULL, NULL) /* 1: this layer has positions */                                       \
  X(NO_ROPE_PERIOD, "no_rope_layer_interval", NULL, NULL)                                                              \
  X(EMBED_SCALE, "embedding_multiplier", NULL, "embedding_scale")                                                      \
  X(RESIDUAL_SCALE, "residual_multiplier", NULL, "residual_scale")                                                     \
  X(ATTENTION_SCALE, "attention_multiplier", NULL, "attention.scale")                                                  \
  X(QUERY_SCALAR, "query_pre_attn_scalar", NULL, NULL)                                                                 \
  X(LOGIT_DIVISOR, "logits_scaling", NULL, "logit_scale")                                                              \
  X(ATTENTION_CAP, "attn_logit_softcapping", NULL, "attn_logit_softcapping")                                           \
  X(LOGIT_CAP, "final_logit_softcapping", NULL, "final_logit_softcapping")                                             \
  X(EXPERTS, "num_experts", "num_local_experts", "expert_count")                                                       \
  X(EXPERTS_USED, "num_experts_per_tok", NULL, "expert_used_count")                                                    \
  X(EXPERT_MLP, "moe_intermediate_size", NULL, "expert_feed_forward_length")                                           \
  X(SHARED_MLP, "shared_expert_intermediate_size", NULL, "expert_shared_feed_forward_length")                          \
  X(NORMALIZE, "norm_topk_prob", NULL, "expert_weights_norm")                                                          \
  X(EXPERT_PERIOD, "decoder_sparse_step", NULL, NULL)                                                                  \
  X(DENSE_LAYERS, "mlp_only_layers", NULL, NULL)                                                                       \
  X(DELTA_KEY_HEADS, "linear_num_key_heads", NULL, "ssm.group_count")                                                  \
  X(DELTA_VALUE_HEADS, "linear_num_value_heads", NULL, "ssm.time_step_rank")                                           \
  X(DELTA_KEY_DIM, "linear_key_head_dim", NULL, "ssm.state_size")                                                      \
  X(DELTA_VALUE_DIM, "linear_value_head_dim", NULL, NULL)                                                              \
  X(DELTA_INNER, NULL, NULL, "ssm.inner_size") /* value heads * their size */                                          \
  X(DELTA_CONV, "linear_conv_kernel_dim", NULL, "ssm.conv_kernel")                                                     \
  X(ROPE_TYPE, "rope_type", "type", "rope.scaling.type")                                                               \
  X(ROPE_THETA, "rope_theta", NULL, "rope.freq_base")                                                                  \
  X(ROPE_LOCAL_THETA, "rope_local_base_freq", NULL, "rope.freq_base_swa")                                              \
  X(ROPE_SHARE, "partial_rotary_factor", NULL, NULL)                                                                   \
  X(ROPE_DIMS, NULL, NULL, "rope.dimension_count")                                                                     \
  X(ROPE_FACTOR, "factor", NULL, "rope.scaling.factor")                                                                \
  X(ROPE_ORIGINAL, "original_max_position_embeddings", NULL, "rope.scaling.original_context_length")                   \
  X(ROPE_ATTENTION, "attention_factor", NULL, "rope.scaling.yarn_attn_factor")                                         \
  X(ROPE_ATTENTION_GGUF, NULL, NULL, "rope.scaling.attn_factor")                                                       \
  X(ROPE_BETA_FAST, "beta_fast", NULL, "rope.scaling.yarn_beta_fast")                                                  \
  X(ROPE_BETA_SLOW, "beta_slow", NULL, "rope.scaling.yarn_beta_slow")                                                  \
  X(ROPE_MSCALE, "mscale", NULL, NULL)                                                                                 \
  X(ROPE_MSCALE_ALL, "mscale_all_dim", NULL, NULL)                                                                     \
  X(ROPE_TRUNCATE, "truncate", NULL, NULL)                                                                             \
  X(ROPE_LOW, "low_freq_factor", NULL, NULL)                                                                           \
  X(ROPE_HIGH, "high_freq_factor", NULL, NULL)                                                                         \
  X(ROPE_SHORT, "short_factor", NULL, NULL)                                                                            \
  X(ROPE_LONG, "long_factor", NULL, NULL)

typedef enum qn__setting {
#define QN_X(name, ...) QN_S_##name,
  QN_SETTINGS(QN_X)
#undef QN_X
      QN_S_COUNT
} qn__setting;

/* ---- Architectures ----------------------------------------------------------------------------------------------- */

/* Which layers have a window, if config.json has no layer_types and says a window. */
typedef enum qn__sliding {
  QN_SLIDING_NONE,
  QN_SLIDING_ALL,
  QN_SLIDING_FROM, /* those from max_window_layers on */
  QN_SLIDING_MOST  /* all but each n-th (WINDOW_PERIOD) */
} qn__sliding;

enum { QN__STANDARDS = 10 };

typedef struct qn__arch {
  const char *type[6]; /* model_type in config.json */
  const char *gguf[3]; /* general.architecture of a GGUF */
  bool norm_out;       /* norms behind attention and mlp */
  bool no_norm_in;     /* none before them */
  bool plus_one;       /* a norm multiplies by 1 + w; a GGUF stores the sum */
  qn__qk_norm qk_norm;
  qn__activation activation; /* if the file is silent */
  bool clamped;              /* the activation is QN_ACT_CLAMPED, whatever the file says */
  bool sinks, gated;
  bool delta;          /* all layers but each n-th (FULL_PERIOD) are gated delta nets */
  bool embed_root;     /* embeddings are multiplied by sqrt(hidden) */
  bool local_rope;     /* layers with a window have a rope of their own, without scaling */
  bool gguf_pairs;     /* a GGUF has the rows of q and k in the order in which neighbours turn together */
  bool gguf_attention; /* a GGUF's attn_factor is all of YaRN's scale, else it comes on top of the usual one */
  bool gguf_tiled;     /* a GGUF has the value heads of its delta nets in another order */
  qn__sliding sliding;
  struct {
    int layers;
    double scalar;
  } gguf_query; /* QUERY_SCALAR of the model with so many layers; of others it is head_dim, as no GGUF says it */
  struct {
    qn__setting what;
    double value;
  } standard[QN__STANDARDS]; /* where the file is silent; {0} ends the list */
} qn__arch;

/* The row of a model_type, or of a GGUF's architecture, and that name as the table has it.
 * QN_E_FORMAT: there is none; the message lists those that are. */
qn_status qn__arch_find(const char *name, bool gguf, const qn__arch **out, const char **known);

/* The i-th row; NULL past the last. */
const qn__arch *qn__arch_at(size_t i);
#endif
