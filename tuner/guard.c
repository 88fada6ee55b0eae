/* guard.c - guard zones: set before a kernel runs, looked at after. */
#include "guard.h"
#include "fail.h"
#include <stdlib.h>
#include <string.h>

qn_status qn__guarded_init(qn_guarded *g, qn_device *d, const char *name, size_t size) {
  void *base = NULL;
  *g = (qn_guarded){.device = d, .name = name, .size = size, .guard = d->info.timed ? QN_GUARD_BYTES : 0};
  QN_TRY(d->ops->alloc(d, size + 2 * g->guard, &base));
  g->base = base;
  return QN_OK;
}

void qn__guarded_fini(qn_guarded *g) {
  if (g->base) g->device->ops->free(g->device, g->base);
  *g = (qn_guarded){0};
}

qn_status qn__guarded_resize(qn_guarded *g, qn_device *d, const char *name, size_t size) {
  if (g->base && g->size == size) return QN_OK;
  qn__guarded_fini(g);
  return qn__guarded_init(g, d, name, size);
}

enum { BLOCK = 1 << 20 }; /* bytes of a copy: a GPU takes microseconds for the smallest */
_Static_assert(QN_GUARD_BYTES <= BLOCK, "a guard is one copy");

static const unsigned char *poison(void) {
  static unsigned char bytes[BLOCK];
  if (!bytes[0]) memset(bytes, 0xff, sizeof bytes); /* a worker has one thread */
  return bytes;
}

static qn_status upload(const qn_guarded *g, size_t at, const void *data, size_t bytes) {
  return g->device->ops->upload(g->device, g->base + at, data, bytes);
}

qn_status qn__guarded_set(qn_guarded *g, const void *data) {
  QN_TRY(upload(g, 0, poison(), g->guard));
  QN_TRY(upload(g, g->guard + g->size, poison(), g->guard));
  if (data) return upload(g, g->guard, data, g->size);
  for (size_t at = 0; at < g->size; at += BLOCK)
    QN_TRY(upload(g, g->guard + at, poison(), g->size - at < BLOCK ? g->size - at : BLOCK));
  return QN_OK;
}

/* Compare `bytes` bytes at `at` with `want`, a block at a time. */
static qn_status compare(const qn_guarded *g, size_t at, const unsigned char *want, size_t bytes, const char *what) {
  static unsigned char have[BLOCK];
  for (size_t i = 0; i < bytes; i += sizeof have) {
    size_t n = bytes - i < sizeof have ? bytes - i : sizeof have;
    QN_TRY(g->device->ops->download(g->device, have, g->base + at + i, n));
    if (!memcmp(have, want + i, n)) continue;
    size_t j = 0;
    while (have[j] == want[i + j]) j++;
    long long offset = (long long)(at + i + j) - (long long)g->guard;
    return qn__fail(QN_E_WRONG, "wrote %s buffer '%s' of %zu bytes, at offset %lld", what, g->name, g->size, offset);
  }
  return QN_OK;
}

qn_status qn__guarded_check(const qn_guarded *g, const void *data, size_t bytes) {
  if (!g->base) return QN_OK;
  QN_TRY(compare(g, 0, poison(), g->guard, "before"));
  QN_TRY(compare(g, g->guard + g->size, poison(), g->guard, "behind"));
  return compare(g, g->guard, data, bytes, "into the read-only");
}
