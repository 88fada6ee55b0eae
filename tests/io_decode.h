/* io_decode.h - planes as numbers, by the decode rules of templates/formats. */
#ifndef IO_DECODE_H
#define IO_DECODE_H
#include "quernel_io.h"

/* out[n,k] as float, act-order undone. Returns NULL, or what is wrong (an unknown format, a plane missing). */
const char *io_decode(const qn_planes *p, float *out);
#endif
