/* io_format.h - the formats of templates/formats as descriptors, made by the generator of this source tree. */
#ifndef IO_FORMAT_H
#define IO_FORMAT_H
#include "desc.h"

/* NULL, or what is wrong with the spelling. */
const char *io_format(const char *spelling, qn_format *out);

/* The i-th of a list that has every format with each grain and each type of each plane; NULL past the last. */
const char *io_format_spelling(int i);
#endif
