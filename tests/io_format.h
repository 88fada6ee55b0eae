/* io_format.h - spellings of all formats of templates/formats. */
#ifndef IO_FORMAT_H
#define IO_FORMAT_H

/* The i-th of a list that has every format with each grain and each type of each plane; NULL past the last. */
const char *io_format_spelling(int i);
#endif
