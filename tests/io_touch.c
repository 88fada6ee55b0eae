/* io_touch.c - see io_touch.h. */
#include "io_touch.h"
#include "model.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- Fences ------------------------------------------------------------------------------------------------------ */
/* A weight is read from its own parts. Under AddressSanitizer the rest of the model's files is out of bounds meanwhile:
 * what lies behind a tensor would else be mapped memory, and reading it no fault. */

#if defined __SANITIZE_ADDRESS__ || defined __has_feature
#if defined __SANITIZE_ADDRESS__ || __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#define FENCES
#endif
#endif

#ifdef FENCES
static void fence(const qn_model *m, const qn_tensor *t, bool up) {
  const qn__weight *w = (const qn__weight *)t;
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  for (int i = 0; i < m->n_files; i++) {
    const qn__map *f = &m->file[i];
    size_t mapped = (f->bytes + page - 1) / page * page;
    if (up) ASAN_POISON_MEMORY_REGION(f->data, mapped);
    else ASAN_UNPOISON_MEMORY_REGION(f->data, mapped);
  }
  for (int i = 0; i < QN__PARTS; i++)
    if (w->part[i]) ASAN_UNPOISON_MEMORY_REGION(w->part[i]->data, w->part[i]->bytes);
}
#else
static void fence(const qn_model *m, const qn_tensor *t, bool up) { (void)m, (void)t, (void)up; }
#endif

static volatile unsigned sink;

static void touch(const void *p, size_t bytes) {
  unsigned sum = 0;
  for (size_t i = 0; i < bytes; i++) sum += ((const unsigned char *)p)[i];
  sink += sum;
}

static int touch_tensor(const qn_model *m, const qn_tensor *t) {
  int planes = 0;
  touch(t->name, strlen(t->name));
  touch(t->dialect, strlen(t->dialect));
  if (!t->format != (t->refusal || !t->n)) abort(); /* a matrix has a format or a reason for none */
  for (int64_t slice = 0; slice < t->slices && slice < 4; slice++) {
    qn_planes *p = NULL;
    fence(m, t, true);
    qn_status s = qn_model_planes(m, t, slice, &p);
    fence(m, t, false);
    if (s) {
      if (!*qn_io_errmsg() || p) abort();
      continue;
    }
    for (int i = 0; i < p->n_planes; i++, planes++) {
      const qn_plane *x = &p->plane[i];
      touch(x->data, (size_t)(x->rows * x->cols * qn_type_bits(x->type) / 8));
    }
    if (p->perm) touch(p->perm, (size_t)p->k * sizeof *p->perm);
    qn_planes_free(p);
  }
  return planes;
}

/* It has its tensors, or a reason why it cannot be read as one; its planes are those of these. */
static void touch_stack(const qn_stack *s) {
  touch(s->name, strlen(s->name));
  if (!s->format == !s->refusal || s->experts < 1) abort();
  for (int64_t e = 0; e < s->experts; e++) {
    const qn_tensor *t = s->tensor[e];
    if (s->format && (t->n != s->n || t->k != s->k || strcmp(t->format, s->format))) abort();
    if (t->slices > 1 && s->format && t->slices != s->experts) abort();
  }
}

int io_touch(const char *path) {
  qn_model *m;
  qn_status s = qn_model_open(path, &m);
  if (s != QN_OK) {
    if (m || !*qn_io_errmsg()) abort();
    return -1;
  }
  int planes = 0;
  const qn_tensor *t;
  const qn_raw *r;
  const qn_meta *v;
  const qn_stack *stack;
  for (size_t i = 0; (r = qn_model_raw(m, i)); i++) touch(r->name, strlen(r->name)), touch(r->data, r->bytes);
  for (size_t i = 0; (v = qn_model_meta(m, i)); i++) {
    if (qn_model_find_meta(m, v->key) != v) abort();
    if (v->type == QN_META_STRING) touch(v->data, v->count);
  }
  for (size_t i = 0; (t = qn_model_tensor(m, i)); i++) planes += touch_tensor(m, t);
  for (size_t i = 0; (stack = qn_model_stack(m, i)); i++) touch_stack(stack);
  qn_model_close(m);
  return planes;
}
