/* encode.h - planes as tensors of the dialects that other tools read: what dialect_*.c undoes, bit for bit, but for the
 * global scale of nvfp4 in compressed-tensors, which is stored as its reciprocal.
 *
 * For each target there is one file encode_*.c beside the readers. It says which formats the target holds, the tensors
 * that a weight of such a format becomes, and what is in them. Nothing here knows a file or a configuration. */
#ifndef QN_IO_ENCODE_H
#define QN_IO_ENCODE_H
#include "model.h"

/* The tensors of one matrix. A part's name is what follows the stem of the weight's name: ".qweight"; data belongs to
 * it. */
typedef struct qn__encoded {
  const char *dialect; /* that reads them: "gptq", "compressed-tensors/nvfp4-pack-quantized" */
  int count;
  qn_save part[QN__PARTS];
  size_t bytes[QN__PARTS];
} qn__encoded;

/* Planes, and what their format's name says of them. */
typedef struct qn__source {
  const qn_planes *p;
  const qn_plane *scale, *zero, *min; /* NULL where the format has none */
  char base[24];                      /* "int4", "nvfp4" */
  int bits;                           /* of int1 to int8; else 0 */
  int64_t rows, cols;                 /* of W that share a scale, 0: all; both 0 also where the name does not say */
  bool grouped;                       /* cols is the size of groups along K, a scale for each in each row */
} qn__source;

/* The matrix as `to` has it: "gptq", "gptq_v2", "awq", "compressed-tensors", "compressed-tensors/int-quantized" for
 * integers that meet integer activations, "gguf". With `data` planes are read; without it only names, dtypes and shapes
 * are made, and of the planes only types and shapes looked at. *out is freed with qn__encoded_free.
 * Returns QN_E_SHAPE if the target does not hold it, with the reason; QN_E_ARG for an unknown target; QN_E_NOMEM. */
qn_status qn__encode(const char *to, const qn_planes *p, bool data, qn__encoded **out);
void qn__encoded_free(qn__encoded *e); /* NULL is accepted */

/* Bring the rows of a GGUF's q or k, which the rotation takes in halves, into the order that llama.cpp wants for these
 * architectures: row i and row i + half of a head side by side. QN_E_SHAPE if the rows are none of so many heads. */
qn_status qn__encoded_rotate(qn__encoded *e, int64_t heads);

/* The i-th target; NULL past the last. */
const char *qn__encode_target(size_t i);

/* ---- For encode_*.c ---------------------------------------------------------------------------------------------- */

/* `shape` checks and calls qn__encode_part for each part, `fill` writes them: they are there and zero. */
typedef struct qn__repacker {
  const char *to, *dialect;
  qn_status (*shape)(const qn__source *s, qn__encoded *e);
  qn_status (*fill)(const qn__source *s, const qn__encoded *e);
} qn__repacker;

extern const qn__repacker qn__encode_gptq, qn__encode_gptq_v2, qn__encode_awq, qn__encode_ct, qn__encode_ct_int,
    qn__encode_ggml;

/* Add a part. */
void qn__encode_part(qn__encoded *e, const char *name, const char *dtype, int n_dims, const int64_t *dim);

static inline void *qn__encode_at(const qn__encoded *e, int i) { return (void *)(uintptr_t)e->part[i].data; }

static inline int64_t qn__group_size(const qn__source *s) { return s->cols ? s->cols : s->p->k; }

/* Is `size` a multiple of `step`? The failure names both. `what`: "N", "K". */
qn_status qn__encode_whole(const char *what, int64_t size, int64_t step);

/* Are the scales f16 or bf16? */
qn_status qn__encode_scales(const qn__source *s);
#endif
