/* decoder.h - a language model as a function: token ids in, hidden states and logits out.
 *
 * All architectures go through one forward (forward.c), which does what a qn__config says. Everything is computed in
 * f32 or, for the noise floor, rounded to bf16 after every step. Linear layers alone may multiply something else: by
 * other numbers (qn__decoder_replace), or with a pack's kernels (qn__decoder_serve).
 *
 *     embed -> layer 0 … -> finish -> logits          or qn__decoder_hidden, which is all but the last
 *
 * A pass is rows = windows x length tokens. Each window sees itself alone and begins at position 0.
 *
 * Sites.  A site is a linear layer as the checkpoint stores it: a fused q·k·v is one site, an expert of a stack is one.
 * Sites of a layer that multiply the same input have the same `input`. Rows of a weight are in the file's order: a GGUF
 * of the Llama family keeps the rows of q and k as llama.cpp wants them, and the rotation goes by that.
 *
 * Inputs.  What a site multiplies is given by a norm, or by another linear layer. A scale of an input that is taken out
 * there and put into the weights that read it changes nothing (qn__decoder_scale).
 *
 * Memory.  Opening makes no weights. A site's is made, in f32, when it is first multiplied, and stays while there is
 * room (qn__decoder_options.hold); beyond that, layers are made anew in every pass. Results do not depend on it.
 *
 * Results agree bit for bit at any number of threads. Not so across machines: sums go in the order that suits the CPU
 * and the BLAS.
 *
 * Threads: one thread per decoder; several decoders of one model are independent. Errors: a qn_status, and qn__errmsg
 * for the detail. After a failure in qn__decoder_layer or qn__session_step what x or the cache holds is unknown. */
#ifndef QN_EVAL_DECODER_H
#define QN_EVAL_DECODER_H
#include "desc.h"
#include "quernel_io.h"

typedef struct qn__config qn__config; /* config.h */
typedef struct qn__decoder qn__decoder;

typedef struct qn__decoder_options {
  /* The descriptor of a format that a tensor of the model has. Called by qn__decoder_open alone, once for a spelling.
   * Required. */
  qn_status (*format)(void *ud, const char *spelling, qn_format *out);
  void *ud;
  int threads;  /* 0: one for each CPU */
  bool bf16;    /* the noise floor: weights, and what every step leaves behind, are rounded to bf16; sums stay f32 */
  int64_t hold; /* bytes of f32 weights that may stay from one layer to the next; 0: no limit */
} qn__decoder_options;

/* The model outlives the decoder. QN_E_ARG (an architecture or a setting that is not known, by name), QN_E_FORMAT (a
 * config that contradicts the tensors, a tensor that is missing), QN_E_SHAPE, QN_E_NOMEM. */
qn_status qn__decoder_open(const qn_model *model, const qn__decoder_options *options, qn__decoder **out);
void qn__decoder_close(qn__decoder *d); /* NULL is accepted */
const qn__config *qn__decoder_config(const qn__decoder *d);

/* ---- A pass ------------------------------------------------------------------------------------------------------ */

/* The halves of a layer, each of which adds to x: what mixes tokens (attention, a delta net); the mlp or experts. */
typedef enum qn__half { QN__MIXER = 1, QN__MLP = 2, QN__BOTH = QN__MIXER | QN__MLP } qn__half;

/* Told of every input of linear layers before its first product, in pieces: x [rows, k], valid during the call. The
 * rows that an expert gets are the tokens that were routed to it, in order. False ends the layer: x is unknown then,
 * and qn__decoder_layer returns QN_OK. */
typedef struct qn__decoder_hook {
  void *ud;
  bool (*input)(void *ud, int input, const float *x, int64_t rows);
} qn__decoder_hook;

/* x [rows, hidden]. QN_E_ARG: an id outside the vocabulary (which, where, the limit). */
qn_status qn__decoder_embed(qn__decoder *d, const int32_t *ids, int64_t rows, float *x);
/* x [windows * length, hidden], in place, through one half of a layer or both. `hook` may be NULL. */
qn_status qn__decoder_layer(qn__decoder *d, int layer, qn__half half, float *x, int64_t windows, int64_t length,
                            const qn__decoder_hook *hook);
/* The final norm, in place. */
qn_status qn__decoder_finish(qn__decoder *d, float *x, int64_t rows);
/* h [rows, hidden] as qn__decoder_finish leaves it -> logits [rows, vocabulary], scaled and capped. */
qn_status qn__decoder_logits(qn__decoder *d, const float *h, int64_t rows, float *logits);
/* embed, all layers, finish: ids [windows * length] -> h [windows * length, hidden]. */
qn_status qn__decoder_hidden(qn__decoder *d, const int32_t *ids, int64_t windows, int64_t length, float *h);

/* ---- Linear layers ----------------------------------------------------------------------------------------------- */

typedef struct qn__site {
  const char *name; /* of the tensor in the checkpoint; the model's */
  int layer;        /* of the head: the number of layers */
  int64_t slice;    /* of a stack of experts; 0 */
  int64_t n, k;
  qn__half half; /* of the layer; of the head QN__MIXER */
  int input;     /* numbered through the model; sites of the same number multiply the same rows */
} qn__site;

/* All of them, by layer, the head last; the decoder's. Returns how many. */
int qn__decoder_sites(const qn__decoder *d, const qn__site **out);
/* w [n,k]: what `site` multiplies by now, pack kernels apart. */
qn_status qn__decoder_weight(qn__decoder *d, int site, float *w);
/* Multiply by w [n,k] instead, which is copied; NULL: by the checkpoint's again. A tied head is no longer tied. */
qn_status qn__decoder_replace(qn__decoder *d, int site, const float *w);
/* Give up the memory of what can be made again: the f32 weights of a layer, -1: of all, what was read of the
 * files, and the room for a pass; and the embedding. What was replaced stays. */
void qn__decoder_forget(qn__decoder *d, int layer);
/* Round the input of the dense product: "TYPE.GRAIN" as in qn_tensor.activation, of which it is the checkpoint's until
 * this is called (rounding.h); NULL: take it as it is. QN_E_SHAPE: another type, a group that does not divide K. */
qn_status qn__decoder_activate(qn__decoder *d, int site, const char *activation);
/* Multiply by a kernel instead: N x K of `gemm` are the site's, its epilogue is empty. The input is converted to the
 * type that it takes, with a scale for each token where it wants one. Both belong to the caller and outlive their use;
 * NULL, NULL: the dense product again. QN_E_SHAPE, QN_E_ARG. */
qn_status qn__decoder_serve(qn__decoder *d, int site, const qn_gemm *gemm, const qn_weight *weight);
/* The same for n sites that are the experts of a stack, in the order of its numbers: E of `gemm` is n. Where all
 * products of a layer's experts are served so, and no hook wants their inputs, each is one call of qn_run_grouped. */
qn_status qn__decoder_serve_stack(qn__decoder *d, const int *site, int64_t n, const qn_gemm *gemm,
                                  const qn_weight *weight);

/* ---- Scaled inputs ----------------------------------------------------------------------------------------------- */

/* An input is divided by s if what gives it is: a norm's weights, or rows of the linear layer before. With the columns
 * of all sites that read it multiplied by s the model computes the same. */
typedef struct qn__giver {
  const qn_raw *norm; /* the tensor of the norm; NULL: it is a linear layer */
  int site;           /* the linear layer; -1 */
} qn__giver;

/* What gives an input. QN_E_SHAPE: it cannot be scaled, and why. */
qn_status qn__decoder_giver(const qn__decoder *d, int input, qn__giver *out);

/* Scale an input by s [k], before any of the sites is replaced. s is rounded so that the norm's type holds its weights
 * divided by s, and is what was taken. Beside what qn__decoder_giver returns: QN_E_ARG (a site is replaced),
 * QN_E_NOMEM; the decoder is of no use then. */
qn_status qn__decoder_scale(qn__decoder *d, int input, float *s);

/* The weights of the norm that gives an input, in the type and the form of its tensor: out [k]. */
qn_status qn__decoder_norm(qn__decoder *d, int input, void *out);

/* Seconds that the products of a site took so far, whatever multiplied there. */
double qn__decoder_seconds(const qn__decoder *d, int site);

/* ---- Decoding with a cache --------------------------------------------------------------------------------------- */

/* `batch` sequences of the same length, at most `context` tokens. Keys and values are f32. */
typedef struct qn__session qn__session;
/* QN_E_ARG: none, or more than 2^16 sequences or 2^24 tokens. QN_E_LIMIT: more than 2^63 bytes. QN_E_NOMEM. */
qn_status qn__session_new(qn__decoder *d, int64_t batch, int64_t context, qn__session **out);
void qn__session_free(qn__session *s); /* before its decoder is closed. NULL is accepted */
/* Append n tokens to each sequence: ids [batch, n] -> h [batch * n, hidden], after the final norm. h NULL: not wanted.
 * QN_E_LIMIT: beyond the context. */
qn_status qn__session_step(qn__session *s, const int32_t *ids, int64_t n, float *h);
/* n tokens further, of which nothing is known but zeros: for timing, which depends on the length alone. QN_E_LIMIT. */
qn_status qn__session_skip(qn__session *s, int64_t n);
/* Bytes of keys, values and states of a session. QN_E_ARG, QN_E_LIMIT. */
qn_status qn__session_bytes(const qn__decoder *d, int64_t batch, int64_t context, int64_t *bytes);
/* Forget what is beyond the first `length` tokens of every sequence. QN_E_ARG: there are fewer, or a layer's state
 * cannot go back (delta nets, unless to 0). */
qn_status qn__session_rewind(qn__session *s, int64_t length);
#endif
