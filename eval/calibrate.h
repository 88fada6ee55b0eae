/* calibrate.h - what the linear layers of a model get to see on a text, one after the other.
 *
 * Layer by layer, and inside a layer input by input: the statistics of an input are taken from the model with all that
 * comes before it quantized already ("true sequential"). The caller asks for the next linear layer, quantizes it, and
 * puts what it decodes to into the decoder before it asks again:
 *
 *     while (!(s = qn__calibration_next(c, &site, &seen)) && site >= 0)
 *       …qn__quantize(…, seen)… qn__decoder_replace(quantized, site, w);
 *
 * A run that ended goes on: what it had done comes first, without statistics, and is replaced by what it was quantized
 * to. The same statistics come then.
 *
 * Memory.  Of the decoders' weights only those of one layer are held; of a layer that is behind, the caller may take
 * back what it replaced. Hidden states of all windows are held between layers, in a temporary file if they are large.
 */
#ifndef QN_EVAL_CALIBRATE_H
#define QN_EVAL_CALIBRATE_H
#include "decoder.h"
#include "inputs.h"

typedef struct qn__calibration qn__calibration;

typedef struct qn__calibration_options {
  const int32_t *ids; /* [windows, length]; outlives the calibration */
  int64_t windows, length;
  int see;            /* QN__SEE_…: with QN__SEE_CROSS the unquantized model runs beside */
  const bool *wanted; /* [sites of the decoder] which of them are asked for; copied */
  int known;          /* the first so many of them were quantized before: they are given out without statistics */
  int threads;        /* 0: one for each CPU */
  int64_t memory;     /* bytes that hidden states and statistics may take; 0: 1 GB. Hidden states go to a file beyond
                       * half of it. One input is seen in any case. */
} qn__calibration_options;

/* `original`: a decoder of the same model in which nothing is replaced; NULL without QN__SEE_CROSS. Both outlive it.
 * QN_E_ARG, QN_E_NOMEM, QN_E_IO (the temporary file), and what qn__decoder_embed returns. */
qn_status qn__calibration_new(qn__decoder *quantized, qn__decoder *original, const qn__calibration_options *options,
                              qn__calibration **out);
void qn__calibration_free(qn__calibration *c); /* NULL is accepted */

/* The next site that is wanted, in the order in which the model comes by them, and what it sees: valid until the next
 * call, `tokens` 0 if no token reached it; NULL for one that is known. All halves of layers before the site's are
 * behind. *site is -1 at the end. QN_E_ARG: inputs that are no finite numbers; inputs of experts with QN__SEE_CROSS,
 * for the two models send different tokens to them. QN_E_NOMEM. After an error every further call is one. */
qn_status qn__calibration_next(qn__calibration *c, int *site, const qn__inputs **seen);
#endif
