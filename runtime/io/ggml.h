/* ggml.h - what the readers of GGUF's blocks and their writer share. */
#ifndef QN_IO_GGML_H
#define QN_IO_GGML_H
#include "model.h"

/* Where a block's parts go, or come from; NULL for planes that the format lacks. */
typedef struct qn__ggml_dest {
  uint8_t *codes;
  void *scale, *min, *d, *dmin;
} qn__ggml_dest;

/* A type of blocks. `super`: the codes for a super-scale, 0: none. `minimum`: has "min", of the scale's type, and
 * "dmin" if there are super-scales. */
typedef struct qn__ggml_block {
  const char *dtype, *dialect, *format;
  int bits, elements, group, super; /* codes in a block, for a scale, for a super-scale */
  qn_type scale;
  bool minimum;
  void (*open)(const uint8_t *block, const qn__ggml_dest *to);
  bool (*pack)(const qn__ggml_dest *from,
               uint8_t *block); /* the reverse, or NULL; false: the block has no such scales */
} qn__ggml_block;

extern const qn__ggml_block qn__ggml_blocks[]; /* the last has no dtype */

/* The writers (encode_ggml.c). Blocks are zero before. */
bool qn__pack_q4_0(const qn__ggml_dest *from, uint8_t *block);
bool qn__pack_q4_1(const qn__ggml_dest *from, uint8_t *block);
bool qn__pack_q5_0(const qn__ggml_dest *from, uint8_t *block);
bool qn__pack_q5_1(const qn__ggml_dest *from, uint8_t *block);
bool qn__pack_q8_0(const qn__ggml_dest *from, uint8_t *block);
bool qn__pack_q2_0(const qn__ggml_dest *from, uint8_t *block);
bool qn__pack_mxfp4(const qn__ggml_dest *from, uint8_t *block);
bool qn__pack_nvfp4(const qn__ggml_dest *from, uint8_t *block);
bool qn__pack_q2_k(const qn__ggml_dest *from, uint8_t *block);
bool qn__pack_q3_k(const qn__ggml_dest *from, uint8_t *block);
bool qn__pack_q4_k(const qn__ggml_dest *from, uint8_t *block);
bool qn__pack_q5_k(const qn__ggml_dest *from, uint8_t *block);
bool qn__pack_q6_k(const qn__ggml_dest *from, uint8_t *block);
bool qn__pack_iq4_xs(const qn__ggml_dest *from, uint8_t *block);
bool qn__pack_tq2_0(const qn__ggml_dest *from, uint8_t *block);

/* The I-quants (ggml_iq.c): blocks of 256 whose magnitudes are numbers of code book entries. */
void qn__iq1_s(const uint8_t *block, const qn__ggml_dest *to);
void qn__iq1_m(const uint8_t *block, const qn__ggml_dest *to);
void qn__iq2_xxs(const uint8_t *block, const qn__ggml_dest *to);
void qn__iq2_xs(const uint8_t *block, const qn__ggml_dest *to);
void qn__iq2_s(const uint8_t *block, const qn__ggml_dest *to);
void qn__iq3_xxs(const uint8_t *block, const qn__ggml_dest *to);
void qn__iq3_s(const uint8_t *block, const qn__ggml_dest *to);

extern const uint16_t qn__grid_iq1[2048], qn__grid_iq2_xxs[256], qn__grid_iq2_xs[512], qn__grid_iq2_s[1024];
extern const uint16_t qn__grid_iq3_xxs[256], qn__grid_iq3_s[512];
#endif
