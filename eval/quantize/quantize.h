/* quantize.h - planes of any format out of a matrix of numbers.
 *
 * Everything follows from the format's description: its decode rule, its codes, its planes with their types and how
 * many weights share an element. Nothing is known by name, so a format that a script adds is written like any other.
 *
 * Scales follow one of two rules. "minmax": the least scale that reaches the largest weight (with an offset, the range
 * of the weights), each plane of a chain rounded so that nothing is clipped. "mse": the range is drawn in step by step
 * as long as the squared error falls, planes are rounded to nearest and each tries its neighbours.
 *
 * Codes are nearest by the decode rule itself, in float64, planes already rounded to their types. Of two that are
 * equally near the even one is taken, of two even or odd ones, and of two that mean the same, the lower. */
#ifndef QN_QUANTIZE_H
#define QN_QUANTIZE_H
#include "desc.h"
#include "loss.h"

typedef struct qn__quantize_options {
  const char *method; /* NULL: "rtn", round to nearest */
  const char *scales; /* NULL: "minmax" */
  int threads;        /* 0: one for each CPU */
} qn__quantize_options;

/* W[n,k] in format f. *out is freed with qn_planes_free and holds names that belong to f. Repeats agree bit for bit,
 * whatever the number of threads.
 * Returns QN_E_ARG (a method or scales that do not exist; a weight that is no finite number, with its place),
 * QN_E_SHAPE (a rule that is no sum of products of planes), QN_E_LIMIT (a scale beyond its type), QN_E_NOMEM. Any
 * thread. */
qn_status qn__quantize(const qn_format *f, const float *w, int64_t n, int64_t k, const qn__quantize_options *options,
                       qn_planes **out, qn__quantize_error *error);
#endif
