/* ggml.h - what the readers of GGUF's blocks share. */
#ifndef QN_IO_GGML_H
#define QN_IO_GGML_H
#include "model.h"

/* Where a block's parts go; NULL for planes that the format lacks. */
typedef struct qn__ggml_dest {
  uint8_t *codes;
  void *scale, *min, *d, *dmin;
} qn__ggml_dest;

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
