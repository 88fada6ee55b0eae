/* scratch.c - see scratch.h: a chain of blocks. */
#include "scratch.h"
#include <stdlib.h>

enum { align = 64, smallest = 1 << 20 };

typedef struct qn__scratch_block {
  struct qn__scratch_block *next;
  size_t size, used;
  char *data;
} block;

static block *new_block(size_t size) {
  block *b = malloc(sizeof *b);
  if (!b) return NULL;
  *b = (block){.size = size < smallest ? smallest : size};
  b->data = aligned_alloc(align, b->size);
  if (!b->data) free(b), b = NULL;
  return b;
}

/* Blocks behind the one that is being filled are empty. One that is too small for this is left out. */
qn_status qn__scratch_take(qn__scratch *s, int64_t count, float **out) {
  size_t size = ((size_t)count * sizeof **out + align - 1) / align * align;
  *out = NULL;
  while (s->now && s->now->size - s->now->used < size && s->now->next) s->now = s->now->next, s->now->used = 0;
  if (!s->now || s->now->size - s->now->used < size) {
    block *b = new_block(size);
    if (!b) return qn__fail(QN_E_NOMEM, "%jd floats for a pass of the decoder", (intmax_t)count);
    *(s->now ? &s->now->next : &s->first) = b;
    s->now = b;
  }
  *out = (float *)(void *)(s->now->data + s->now->used);
  s->now->used += size;
  return QN_OK;
}

qn__scratch_mark qn__scratch_here(const qn__scratch *s) {
  return (qn__scratch_mark){s->now, s->now ? s->now->used : 0};
}

void qn__scratch_back(qn__scratch *s, qn__scratch_mark mark) {
  s->now = mark.block ? mark.block : s->first;
  if (s->now) s->now->used = mark.used;
}

void qn__scratch_fini(qn__scratch *s) {
  for (block *b = s->first, *next; b; b = next) {
    next = b->next;
    free(b->data);
    free(b);
  }
  *s = (qn__scratch){0};
}
