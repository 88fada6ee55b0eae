/* text.h - text as token ids: the tokenizer of a checkpoint, and ids from files.
 *
 * A tokenizer is read from the keys of a GGUF header, or from the tokenizer.json beside the weights. Two kinds make ids
 * of text: byte pair encoding by a list of merges (byte-level or with U+2581 for spaces), and SentencePiece's, by
 * scores. Their ids are those of Hugging Face's `tokenizers` for the same file, special tokens in the text taken as
 * such. Another kind is opened as well, and `refusal` says why it makes no ids: a model of it is evaluated with ids
 * from a file.
 *
 * Hostile files are safe, as those of runtime/io are. Threads: a tokenizer is read-only once open. */
#ifndef QN_EVAL_TEXT_H
#define QN_EVAL_TEXT_H
#include "quernel_io.h"

typedef struct qn__tokenizer qn__tokenizer;

/* Ids in the order of the text; qn__ids_free gives them back. */
typedef struct qn__ids {
  int32_t *id;
  int64_t n;
  int64_t rows, cols; /* of a two-dimensional .npy, windows x length; 0 x 0: one sequence */
  int64_t bytes;      /* of the text; 0: ids were given */
  int64_t dropped;    /* characters for which there is no token; they are left out, as `tokenizers` does */
} qn__ids;

void qn__ids_free(qn__ids *ids); /* leaves it empty */

/* ---- Tokenizers -------------------------------------------------------------------------------------------------- */

/* path: a tokenizer.json; NULL: what belongs to the model. `model` may be NULL if a path is given; else it must outlive
 * the tokenizer.
 * Returns QN_OK, QN_E_IO, QN_E_FORMAT (which file and rule), QN_E_NOMEM, QN_E_ARG. A model without a tokenizer is no
 * failure: see qn__tokenizer_refusal. */
qn_status qn__tokenizer_open(const qn_model *model, const char *path, qn__tokenizer **out);
void qn__tokenizer_close(qn__tokenizer *t); /* NULL is accepted */

/* NULL, or why text cannot be encoded. */
const char *qn__tokenizer_refusal(const qn__tokenizer *t);
/* What it is and from where: "byte-level BPE, 49152 tokens, of model.gguf". */
const char *qn__tokenizer_about(const qn__tokenizer *t);

/* Ids are below this. The model's embedding may have more rows. */
int64_t qn__tokenizer_size(const qn__tokenizer *t);

/* The token that begins a sequence: id -1 if the model names none; add: does the model's own rule put it there? */
typedef struct qn__bos {
  int32_t id;
  bool add;
} qn__bos;
qn__bos qn__tokenizer_bos(const qn__tokenizer *t);
/* Overrule the model's rule, before anything is read. QN_E_ARG: the model names no BOS. */
qn_status qn__tokenizer_set_bos(qn__tokenizer *t, bool add);

/* `size` bytes of UTF-8 as ids, without a BOS. Empty text gives none.
 * Returns QN_E_ARG (no UTF-8, with the offset; a refusal), QN_E_LIMIT (a pattern that takes too long), QN_E_NOMEM. */
qn_status qn__tokenizer_encode(const qn__tokenizer *t, const char *text, size_t size, qn__ids *out);

/* The text that ids stand for; special tokens as they are written. *text is freed with free() and has a zero byte
 * behind `size` bytes; it may be no UTF-8 where ids cut a character.
 * Returns QN_E_ARG (an id that is none, a refusal), QN_E_NOMEM. */
qn_status qn__tokenizer_decode(const qn__tokenizer *t, const int32_t *id, int64_t n, char **text, size_t *size);

/* ---- Files ------------------------------------------------------------------------------------------------------- */

/* Ids of a file: NAME.npy (i32, u16, u32, i64, u8; one sequence, or windows x length), NAME.jsonl (lines
 * {"input_ids": [...]}, joined), else text in UTF-8. Ids must be below `vocabulary` (the rows of the embedding). A BOS
 * that begins a sequence or a line, of a model that wants one, is taken away: whoever makes windows of a sequence puts
 * it before each. Windows stay as they are.
 * Returns QN_E_IO, QN_E_FORMAT (file, line or element, and what is wrong), QN_E_ARG (the tokenizer's refusal),
 * QN_E_NOMEM. */
qn_status qn__ids_read(const char *path, const qn__tokenizer *t, int64_t vocabulary, qn__ids *out);

/* Rows of the model's embedding; 0: it has none. */
int64_t qn__model_vocabulary(const qn_model *model);

/* ids as a NumPy file, i32. QN_E_IO, QN_E_NOMEM. */
qn_status qn__ids_write(const char *path, const qn__ids *ids);

/* ---- Overlap ----------------------------------------------------------------------------------------------------- */

/* How much of a text another one holds, too: runs of QN_RUN ids. */
enum { QN_RUN = 16 };
typedef struct qn__overlap {
  int64_t runs, seen; /* of the text; of these, how many `before` holds */
  int64_t at, from;   /* where the first of them begins in the text, and in `before` */
} qn__overlap;

/* Returns QN_E_NOMEM. */
qn_status qn__overlap_measure(const qn__ids *before, const qn__ids *text, qn__overlap *out);
#endif
