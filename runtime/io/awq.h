/* awq.h - what reader and writer of AWQ share. */
#ifndef QN_IO_AWQ_H
#define QN_IO_AWQ_H
#include <stdint.h>

/* Nibble i of a word is column qn__awq_order[i] of eight. */
extern const uint8_t qn__awq_order[8];
#endif
