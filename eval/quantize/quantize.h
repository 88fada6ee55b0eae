/* quantize.h - planes of any format out of a matrix of numbers.
 *
 * Everything follows from the format's description: its decode rule, its codes, its planes with their types and how
 * many weights share an element. Nothing is known by name, so a format that a script adds is written like any other.
 *
 * Scales follow one of these rules.
 *
 *     minmax     the least scale that reaches the largest weight (with an offset, the range of the weights), each plane
 *                of a chain rounded so that nothing is clipped
 *     mse        the range is drawn in step by step as long as the squared error falls, planes are rounded to nearest
 *                and each tries its neighbours
 *     outputs    the same for the squared error of the outputs, as far as a group alone makes it
 *     full       the scale's sign is such that the code which reaches farthest is the weight of largest magnitude, as
 *                in Q4_0 of GGUF: int4 reaches from -8 to 7, and is turned round where the positive end is the longer
 *                one
 *     full-mse   the same, drawn in
 *
 * Methods are
 *
 *     rtn        round to nearest
 *     imatrix    the same; where scales are searched for, errors weigh what inputs weigh
 *     awq        round to nearest in a model whose inputs are scaled (awq.h); scales go by errors of the outputs
 *     gptq       codes make up for the errors of those before them
 *     gptaq      the same, against the outputs of the unquantized model
 *     awq+gptq   gptq in a model whose inputs are scaled
 *     awq+gptaq  gptaq in such a model
 *
 * Planes come first and stay, so that all methods work for all formats.
 *
 * Codes are nearest (gptq and gptaq: to what is left to make up for) by the decode rule itself, in float64, planes
 * already rounded to their types. Of two that are equally near the even one is taken, of two even or odd ones, and of
 * two that mean the same, the lower. */
#ifndef QN_QUANTIZE_H
#define QN_QUANTIZE_H
#include "desc.h"
#include "inputs.h"
#include "loss.h"

typedef struct qn__quantize_options {
  const char *method;     /* NULL: "rtn" */
  const char *scales;     /* NULL: "mse" for imatrix, "outputs" for awq, else "minmax" */
  int threads;            /* 0: one for each CPU */
  const qn__inputs *seen; /* of the inputs, finished. imatrix needs the means, awq and gptq h, gptaq h and cross */
} qn__quantize_options;

/* W[n,k] in format f. *out is freed with qn_planes_free and holds names that belong to f. Repeats agree bit for bit,
 * whatever the number of threads.
 * Returns QN_E_ARG (a method or scales that do not exist or do not go with the format; a weight that is no finite
 * number, with its place; statistics that are missing, see nothing, or are not positive definite), QN_E_SHAPE (a rule
 * that is no sum of products of planes), QN_E_LIMIT (a scale beyond its type), QN_E_NOMEM. Any thread. */
qn_status qn__quantize(const qn_format *f, const float *w, int64_t n, int64_t k, const qn__quantize_options *options,
                       qn_planes **out, qn__quantize_error *error);

/* What a method needs to see: QN__SEE_… for qn__inputs_init, 0 for the means alone, -1: nothing; and whether the
 * model's inputs are to be scaled before (awq.h), which nothing here does. QN_E_ARG: no such method. */
qn_status qn__quantize_sees(const char *method, int *see, bool *scaled);

/* What a rule of scales needs to see, in the same way. QN_E_ARG: no such rule. */
qn_status qn__quantize_scales_see(const char *scales, int *see);

/* The i-th method and rule of scales, or NULL. */
const char *qn__quantize_method(size_t i);
const char *qn__quantize_scales(size_t i);
#endif
