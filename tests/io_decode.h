/* io_decode.h - planes as numbers, by the textbook formula of each format, independent of the generator's rules. */
#ifndef IO_DECODE_H
#define IO_DECODE_H
#include "io.h"

/* out[n,k] as float, act-order undone. Returns NULL, or what is wrong (a format without a formula, a plane missing). */
const char *io_decode(const qn_planes *p, float *out);
#endif
