/* guard.h - device memory between guard zones, and a kernel's arguments in such memory.
 *
 * Guards and poison are bytes 0xff: NaN in every float type, so that what a kernel reads where it should not shows in
 * its result, and what it writes there is seen at once. The interpreter watches every access itself: there a guard
 * would only be room to hide in, and has no bytes. */
#ifndef QN_GUARD_H
#define QN_GUARD_H
#include "device.h"

#define QN_GUARD_BYTES 4096

typedef struct qn_guarded {
  qn_device *device;
  const char *name;   /* for messages */
  char *base;         /* device: guard, size bytes, guard; NULL: nothing */
  size_t size, guard; /* bytes of the contents, of a guard */
} qn_guarded;

/* Allocate `size` bytes between guards; contents undefined. QN_E_NOMEM, QN_E_CUDA. */
qn_status qn__guarded_init(qn_guarded *g, qn_device *d, const char *name, size_t size);
void qn__guarded_fini(qn_guarded *g);
/* The same, unless it has that size already. */
qn_status qn__guarded_resize(qn_guarded *g, qn_device *d, const char *name, size_t size);

static inline void *qn__guarded_at(const qn_guarded *g) { return g->base ? g->base + g->guard : NULL; }

/* Set the contents to `data`, or to poison if that is NULL, and both guards. */
qn_status qn__guarded_set(qn_guarded *g, const void *data);
/* Are both guards untouched, and the first `bytes` of the contents equal to `data`? QN_E_WRONG names the first byte. */
qn_status qn__guarded_check(const qn_guarded *g, const void *data, size_t bytes);
#endif
