/* reference_model.h - a reference model's final hidden states, kept once for all candidates.
 *
 * What a candidate is compared with are the reference's logits. Those of a window of 512 tokens and 128 256 words take
 * 263 MB; the hidden states that they follow from take 8 MB and lose nothing: the head is multiplied anew, in f32, a
 * few rows at a time, whenever the logits are wanted.
 *
 * The file is made at its full size, so that a full disk is told at once, and then filled window by window:
 *
 *     a page: "quernel reference 1 HASH\n", HASH of the model, of the windows and of the sizes
 *     hashes [n]: of the data of each window, 16 bytes; zero or wrong: it is not there yet
 *     from the next page on, data [n, scored, hidden] f32, little-endian: the rows whose next token is scored
 *
 * A window that was torn when a run was killed has a wrong hash, and is computed anew. */
#ifndef QN_EVAL_REFERENCE_MODEL_H
#define QN_EVAL_REFERENCE_MODEL_H
#include "decoder.h"
#include "windows.h"

typedef struct qn__reference qn__reference;

/* d: the reference model's decoder, unchanged in the meantime; model: a text from which follows what it computes. path
 * NULL: nothing is kept, hidden states are computed whenever they are asked for. All three belong to the caller and
 * outlive the reference. QN_E_ARG: the file is of another model or of other windows; QN_E_IO: there is no room for it
 * (how much it needs), it cannot be written, or another run is at work on it; QN_E_NOMEM. */
qn_status qn__reference_open(qn__decoder *d, const char *model, const qn__windows *w, const char *path,
                             qn__reference **out);
void qn__reference_close(qn__reference *r); /* NULL is accepted */

/* h [count, scored, hidden] of windows first .. first + count - 1: read, else computed and kept. */
qn_status qn__reference_hidden(qn__reference *r, int64_t first, int64_t count, float *h);

qn__decoder *qn__reference_decoder(const qn__reference *r); /* for its head */
const qn__windows *qn__reference_windows(const qn__reference *r);
const char *qn__reference_hash(const qn__reference *r); /* of the model and of the windows */

/* The hidden states of windows that a decoder sees in one pass, without the rows that are not scored. */
qn_status qn__scored_hidden(qn__decoder *d, const qn__windows *w, int64_t first, int64_t count, float *h);

/* Hash of the files of a model, and of its config.json: what it computes follows from them. Reads all of them. */
qn_status qn__model_hash(const qn_model *model, char out[33]);
#endif
