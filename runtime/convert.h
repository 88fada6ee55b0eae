/* convert.h - single elements of every type as float64, and back where that is exact. */
#ifndef QN_CONVERT_H
#define QN_CONVERT_H
#include "quernel.h"
#include <string.h>

/* Copy a few elements: of sizes that one has, or a short row of scales, each is one instruction. */
static inline void qn__copy(void *to, const void *from, int64_t bytes) {
  switch (bytes) {
  case 1:
    memcpy(to, from, 1);
    break;
  case 2:
    memcpy(to, from, 2);
    break;
  case 4:
    memcpy(to, from, 4);
    break;
  case 8:
    memcpy(to, from, 8);
    break;
  default:
    memcpy(to, from, (size_t)bytes);
  }
}

/* Element i of an array of type t. NaN for the NaN codes of a float type. */
double qn__load_f64(qn_type t, const void *data, int64_t i);
/* Store v as element i: an integer in the range of its type; for floats the nearest, of two the even one. Beyond the
 * largest, 16 and 32 bits become infinite, 8 bits stay at the largest. NaN stays NaN. data: any alignment. */
void qn__store_f64(qn_type t, void *data, int64_t i, double v);
/* Quantize n numbers that share a scale, which is returned, to a type of activations with scales: the rule of
 * qn_quantize_rows (quernel.h). */
float qn__quantize_group(qn_type type, const float *x, int64_t n, void *q);
/* n elements from i on. */
void qn__load_block(qn_type t, const void *data, int64_t i, int n, double *out);
#endif
