/* ct.h - what dialects read of the configuration of compressed-tensors, and of those like it. */
#ifndef QN_IO_CT_H
#define QN_IO_CT_H
#include "model.h"

/* The i-th entry of config_groups, or NULL. */
const cJSON *qn__ct_weights(const qn_model *m, int i);

/* How inputs are to be quantized ("i8.row", "nvfp4.g16"), or NULL. The text belongs to the arena. */
const char *qn__activation_find(const qn_model *m, qn__arena *a);

/* Where there are several config_groups, the activation of a weight that has the model's is that of the group which is
 * meant for it: by the name of its layer, by an expression, or as a linear one. "unknown…" if an expression is not
 * understood and no name decides. */
void qn__activation_choose(qn_model *m, qn__weight *w);

/* The one scale that the file has for all inputs of a weight whose activation wants one, if it is there. QN_E_FORMAT: a
 * number that is no scale. */
qn_status qn__activation_scale(const qn_model *m, qn__weight *w);
#endif
