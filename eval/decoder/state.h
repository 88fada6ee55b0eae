/* state.h - what a decoder holds; for its own files. */
#ifndef QN_EVAL_STATE_H
#define QN_EVAL_STATE_H
#include "decoder.h"
#include "linear.h"
#include "names.h"
#include "ops.h"

/* A linear parameter: columns first + i / run * step + i % run of what site `site` gives; -1: the model has none. */
typedef struct qn__link {
  int site;
  int64_t n, first, run, step;
  float *bias; /* [n] or NULL */
} qn__link;

/* Inputs of a layer, by number; QN_IN_EACH further on are those of the next expert. The head's is the first of a layer
 * behind the last. */
enum {
  QN_IN_MIXER,
  QN_IN_O,
  QN_IN_MLP,
  QN_IN_DOWN,
  QN_IN_SHARED_DOWN,
  QN_IN_EXPERT,
  QN_IN_EXPERT_DOWN,
  QN_IN_EACH = 2
};

/* How many numbers a layer has. */
static inline int qn__inputs_each(const qn__config *c) { return QN_IN_EXPERT + QN_IN_EACH * c->experts.n; }

/* The angles of a rope, for the positions of `length` tokens. */
typedef struct qn__angles {
  float *table;
  int64_t length;
} qn__angles;

/* A format that a tensor has, under the tensor's spelling. */
typedef struct qn__known_format {
  struct qn__known_format *next;
  const char *spelling;
  qn_format f;
} qn__known_format;

struct qn__decoder {
  const qn_model *model;
  qn__config *config;
  qn__params *params;
  qn_pool *pool;
  int threads;
  qn__scratch scratch;
  qn__known_format *formats;
  qn__site *site; /* beside linears.all */
  qn__linears linears;
  qn__link *link; /* [n_layers + 1][slots]; the last has the head alone */
  int slots;
  float **vector;       /* [n_layers][QN_P_COUNT], made when first asked for */
  qn_planes *embedding; /* likewise */
  qn__angles angles[QN__ROPES];
};

/* Keys, values and states of one layer for the windows of a pass. */
typedef struct qn__memory {
  qn__cache cache;
  float *conv,
      *state; /* of a delta net: [windows, channels, conv - 1] and [windows, value_heads, key_dim, value_dim] */
} qn__memory;

const qn__link *qn__decoder_link(const qn__decoder *d, qn__param what, int layer, int64_t expert);
/* A vector as it is used; the decoder's. */
qn_status qn__decoder_vector(qn__decoder *d, qn__param what, int layer, const float **out);
/* See qn__rope_table; the decoder's until the next call for this rope. */
qn_status qn__decoder_angles(qn__decoder *d, int rope, int64_t length, const float **table);

/* Memory of a layer for `windows` sequences of up to `tokens` tokens, in `data`, which is zero for new sequences.
 * Returns the floats that it takes; data may be NULL to learn that. */
int64_t qn__memory_init(qn__memory *m, const qn__config *c, int layer, int64_t windows, int64_t tokens, float *data);

/* The same for windows from `first` on. */
qn__memory qn__memory_from(const qn__memory *m, const qn__config *c, int64_t first, int64_t windows);

/* A layer over tokens past .. past + length of each window, which `memory` holds the past of. `context`: tokens that a
 * window may have in all. */
typedef struct qn__pass {
  qn__decoder *d;
  int layer;
  qn__half half;
  const qn__decoder_hook *hook; /* or NULL */
  int64_t windows, length, past, context;
  const qn__memory *memory; /* NULL: each window begins here, and is forgotten */
} qn__pass;
qn_status qn__pass_layer(const qn__pass *p, float *x);
#endif
