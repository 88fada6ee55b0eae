/* ct.h - what the dialects of compressed-tensors share: its configuration. */
#ifndef QN_IO_CT_H
#define QN_IO_CT_H
#include "model.h"

/* The i-th entry of config_groups, or NULL. */
const cJSON *qn__ct_weights(const qn_model *m, int i);

/* How activations are to be quantized to 8 bits ("i8.row", "e4m3.g128"), or NULL. The text belongs to the arena. */
const char *qn__ct_activation(const qn_model *m, qn__arena *a);
#endif
