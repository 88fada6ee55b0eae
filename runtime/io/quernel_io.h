/* quernel_io.h - checkpoint files as planes.
 *
 * A model is one checkpoint: a directory (config.json beside .safetensors, single or sharded), one .safetensors file,
 * or one .gguf. Weights that were made of a GGUF have header.gguf beside them, its header without tensors, in place of
 * config.json. Opening maps the files and reads their headers; no weight is touched, whatever the size. What is in it
 * can be seen in two ways:
 *
 *     qn_raw      a tensor as the file stores it: "model.layers.0.mlp.up_proj.qweight", I32 [32, 768]
 *     qn_tensor   the weight that a group of them stands for: "model.layers.0.mlp.up_proj.weight", dialect "gptq",
 *                 format "int4.g128", 768 x 256
 *
 * qn_model_planes turns a qn_tensor into planes: codes, scales, zero points in the neutral form that qn_prepack takes,
 * whichever dialect they came from. Where the file already has that form the planes point into the mapping.
 *
 * Formats are spelled NAME[.gG|.row|.tensor|.bRxC][.z|.zf|.zf32|.m][.TYPE]: scales per group of G along K, per row, for
 * the whole tensor, or per block of R rows x C columns; "z" an integer zero point per scale, "zf" one that is f16,
 * "zf32" f32, "m" a minimum (added) of the scale's type; TYPE is the type of the scales when it is not f16.
 *
 * Hostile files are safe: every length, offset and count is checked against the file before it is used, and nothing is
 * allocated that the size of the file does not justify. Values are not judged: a NaN scale is refused by qn_prepack.
 * Truncating a file while a model has it open is undefined (the mapping loses its pages).
 *
 * Threads: a model is read-only once open; any number of threads may use it. Errors: a qn_status, and qn_io_errmsg for
 * the detail. A NULL where something is needed is QN_E_ARG; functions without a status answer it with NULL or 0.
 * Nothing here prints or exits. */
#ifndef QUERNEL_IO_H
#define QUERNEL_IO_H
#include "quernel.h"
#include <stdbool.h>
#ifdef __cplusplus
extern "C" {
#endif

#define QN_MAX_DIMS 8

typedef struct qn_model qn_model;

/* A tensor as stored. Shapes are outermost first also for GGUF (which writes them innermost first). */
typedef struct qn_raw {
  const char *name;
  const char *weight; /* of which it is a part, see qn_model_find */
  const char *dtype;  /* as its container spells it: "F16", "I32", "F8_E4M3", "Q4_K" */
  qn_type type;       /* of its elements; QN_T_NONE for block types and for types that planes do not use */
  int n_dims;         /* 0: a scalar */
  int64_t dim[QN_MAX_DIMS];
  const void *data; /* in the mapping; maybe unaligned */
  size_t bytes;
} qn_raw;

/* A weight. Strings and `raw` belong to the model. */
typedef struct qn_tensor {
  const char *name;
  const char *dialect;    /* "gptq", "awq", "compressed-tensors/pack-quantized", "gguf/Q4_0", "plain"… */
  const char *format;     /* "int4.g128.z"; NULL if it is no matrix (a norm) or `refusal` says why it cannot be read */
  const char *refusal;    /* NULL, or why no planes can be made: "marlin tile order: convert it to the gptq layout" */
  const char *activation; /* NULL, or how the checkpoint wants activations quantized: "i8.row", "nvfp4.g16" */
  const char *tied_to;    /* NULL, or the tensor whose data this is ("lm_head.weight" of a tied model) */
  int64_t slices, n, k;   /* slices > 1: a stack of n x k matrices (experts). 0 x 0: not a matrix */
  uint64_t bytes;         /* in the file: codes, scales, zero points and whatever else only this weight needs. Neutral
                             planes, one code a byte, count as many bits as their format has */
  bool quantized;         /* stored in a quantized form */
  bool linear;            /* multiplies activations: `role` is "linear" or "head" */
  const char *role;       /* what it is for, as its name tells: "linear", "head", "embedding", "norm", "router",
                             "convolution", "adapter", "vision, audio", "table", "parameter", "vector" */
  const char *same_x;     /* NULL, or the first of the weights that read the same X and can be one, their rows in turn:
                             "model.layers.0.self_attn.q_proj.weight" for q, k and v of one format; gate and up */
  const qn_raw *raw;      /* the tensor that holds the codes */
  float activation_scale; /* of "tensor" and nvfp4: the one for all inputs; 0: the file has none */
  const qn_raw *activation_raw; /* the tensor that holds it, or NULL */
} qn_tensor;

/* ---- Models ------------------------------------------------------------------------------------------------------ */

/* Open the checkpoint at `path`. *out is closed with qn_model_close; on failure it is NULL.
 * Returns QN_OK, QN_E_IO, QN_E_FORMAT (which file, tensor and rule), QN_E_NOMEM, QN_E_ARG. */
QN_API qn_status qn_model_open(const char *path, qn_model **out);
QN_API void qn_model_close(qn_model *model); /* NULL is accepted. Invalidates planes and tensors of the model */
/* Give back the memory that holds what was read of the files, as when all weights are prepacked. All stays valid, and
 * is read anew where it is asked for. Any thread, at any time. */
QN_API void qn_model_release(const qn_model *model);

/* The i-th weight, in the order of the file; NULL past the last. */
QN_API const qn_tensor *qn_model_tensor(const qn_model *model, size_t i);
QN_API const qn_tensor *qn_model_find(const qn_model *model, const char *name); /* NULL if there is none */

/* A stack: the experts of a layer for one of its products, linear layers of one format and shape of which a token meets
 * a few. A file has them as slices of one tensor, or as a tensor for each. Experts of several formats are no stack. */
typedef struct qn_stack {
  const char *name;   /* of the tensor that has the slices; of tensors with * for the number: "a.experts.*.up.weight" */
  const char *format; /* of each; NULL: `refusal` says why they cannot be read as one weight */
  const char *refusal; /* NULL, or "the configuration says 8 experts, and number 5 is not there" */
  int64_t experts, n, k;
  const qn_tensor *const *tensor; /* [experts]; where they are slices of one tensor, so often this */
} qn_stack;

/* The i-th stack, in the order of the file; NULL past the last. Its problem is "FORMAT:ExNxK". */
QN_API const qn_stack *qn_model_stack(const qn_model *model, size_t i);

/* The i-th stored tensor; NULL past the last. */
QN_API const qn_raw *qn_model_raw(const qn_model *model, size_t i);
QN_API const qn_raw *qn_model_find_raw(const qn_model *model, const char *name);

/* What should be told of the checkpoint as a whole, or NULL: an index that lists tensors which no file holds. */
QN_API const char *qn_model_remark(const qn_model *model);

/* Text of config.json, or NULL. Not terminated: *length bytes. */
QN_API const char *qn_model_config(const qn_model *model, size_t *length);

/* One key of a GGUF header, or a text of a safetensors header's __metadata__ (texts of 4 kB and more are left out).
 * Numbers are widened into `number`; strings and arrays of GGUF stay in the mapping. */
typedef enum qn_meta_type {
  QN_META_U8,
  QN_META_I8,
  QN_META_U16,
  QN_META_I16,
  QN_META_U32,
  QN_META_I32,
  QN_META_F32,
  QN_META_BOOL,
  QN_META_STRING,
  QN_META_ARRAY,
  QN_META_U64,
  QN_META_I64,
  QN_META_F64,
  QN_META_COUNT
} qn_meta_type;

typedef struct qn_meta {
  const char *key;
  qn_meta_type type, item; /* item: element type of an array */
  uint64_t count;          /* elements of an array, bytes of a string */
  const void *data; /* the string's bytes, the array's elements as stored (strings: u64 length, bytes), or NULL */
  double number;    /* value of a number or bool, rounded to double */
  uint64_t bits;    /* the same, exactly: integers sign-extended to 64 bits, floats as their double's bits */
} qn_meta;

/* The i-th key; NULL past the last. Of two of the same name, the first is found. */
QN_API const qn_meta *qn_model_meta(const qn_model *model, size_t i);
QN_API const qn_meta *qn_model_find_meta(const qn_model *model, const char *key);

/* Bits of the file that one weight costs, scales and zero points counted. */
QN_API double qn_tensor_bpw(const qn_tensor *tensor);

/* Detail of the calling thread's last failure in this library. Never NULL. */
QN_API const char *qn_io_errmsg(void);

/* ---- Planes ------------------------------------------------------------------------------------------------------ */

/* The planes of matrix `slice` (0 <= slice < tensor->slices), in the format tensor->format. *out is freed with
 * qn_planes_free; it points into the model where the file has the neutral form already, so it must not outlive it.
 * Act-order is returned as out->perm, never applied.
 * Returns QN_OK, QN_E_ARG (slice), QN_E_SHAPE (the tensor's refusal), QN_E_FORMAT (contents contradict the header, e.g.
 * a group index beyond the groups), QN_E_NOMEM. */
QN_API qn_status qn_model_planes(const qn_model *model, const qn_tensor *tensor, int64_t slice, qn_planes **out);
QN_API void qn_planes_free(qn_planes *planes); /* NULL is accepted */

/* The same for expert number `expert` of a stack, 0 .. experts - 1, as qn_prepack_expert takes it: with the planes of
 * one expert at a time a stack of any size is packed in little memory. QN_E_SHAPE: the stack's refusal. */
QN_API qn_status qn_model_expert(const qn_model *model, const qn_stack *stack, int64_t expert, qn_planes **out);

/* The plane of that name, or NULL. */
QN_API const qn_plane *qn_planes_find(const qn_planes *planes, const char *name);

/* ---- Writers ----------------------------------------------------------------------------------------------------- */

/* Both write to a temporary name beside `path`, flush it to disk and rename it: a reader sees the old file or the new
 * one, never a part. Return QN_OK, QN_E_IO, QN_E_NOMEM, QN_E_ARG. Any thread. */

/* x[n,k] f32, row-major, as a NumPy file (version 1.0, '<f4'). */
QN_API qn_status qn_npy_write(const char *path, const float *x, int64_t n, int64_t k);

typedef struct qn_save {
  const char *name;  /* UTF-8 */
  const char *dtype; /* a safetensors dtype: "F16", "U8"… */
  int n_dims;
  int64_t dim[QN_MAX_DIMS];
  const void *data;
} qn_save;

/* Tensors, in whatever order; the file has the widest types first, then goes by name, so that data is aligned.
 * meta: `n_meta` pairs of key and value for __metadata__, or NULL. */
QN_API qn_status qn_safetensors_write(const char *path, const qn_save *tensor, size_t n, const char *const *meta,
                                      size_t n_meta);

/* The same piece by piece, for models that do not fit into memory: every tensor's name, dtype and shape are given first
 * (data is not looked at), then their bytes arrive, tensors in any order, a tensor's pieces one after the other.
 * Closing fails if bytes are missing. `tensor` must stay as it is until the writer is closed or abandoned, which both
 * free it; abandoning (NULL is accepted) leaves no file behind. */
typedef struct qn_writer qn_writer;
QN_API qn_status qn_writer_open(const char *path, const qn_save *tensor, size_t n, const char *const *meta,
                                size_t n_meta, qn_writer **out);
QN_API qn_status qn_writer_put(qn_writer *w, const char *name, const void *data, size_t bytes);
QN_API qn_status qn_writer_close(qn_writer *w);
QN_API void qn_writer_abandon(qn_writer *w);

#ifdef __cplusplus
}
#endif
#endif
