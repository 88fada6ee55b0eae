/* rope.h - read the rotary positions of a model. */
#ifndef QN_EVAL_ROPE_H
#define QN_EVAL_ROPE_H
#include "settings.h"

/* *r from settings whose part[0] is what config.json says of this rope (NULL: nothing). c: head_dim and context are
 * read. local: the rope of layers with a window, which has a base of its own where the file says one, and no scaling
 * unless its part does. */
qn_status qn__rope_read(const qn__settings *s, const qn__config *c, bool local, qn__rope *r);
#endif
