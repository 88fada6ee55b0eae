/* guard.h - device memory that is watched on both sides, for a kernel's arguments.
 *
 * On the host the contents end, or begin, at a page that nobody may touch: even a read there ends the process. What is
 * left of a page on their other side is a guard; contents that are given may only be read. On a GPU a guard stands on
 * either side. All bytes of a guard are the same: what a kernel writes there is seen afterwards, unless it is just that
 * byte, so that kernels are run with two.
 * The interpreter watches every access itself: there a guard would only be room to hide in. */
#ifndef QN_GUARD_H
#define QN_GUARD_H
#include "device.h"

typedef struct qn_fence {
  bool at_end; /* the contents end at what is forbidden, wherever they begin; else they begin there, aligned to 256 */
  bool odd;    /* or behind it, at an odd multiple of their alignment */
  unsigned char byte; /* fills guards and outputs. 0xff is NaN in every float type: what is read shows in the result */
} qn_fence;

typedef struct qn_guarded {
  qn_device *device;
  const char *name; /* for messages */
  qn_fence fence;
  char *first; /* of the bytes that may be touched; NULL: nothing */
  size_t room; /* all of them: guard, contents, guard */
  size_t before, size;
} qn_guarded;

/* Room for `size` bytes, aligned to `align`, a power of two up to 256; contents undefined. *g is zero, or has memory
 * that is kept where it is as large. QN_E_NOMEM, QN_E_CUDA. */
qn_status qn__guarded_place(qn_guarded *g, qn_device *d, const char *name, size_t size, size_t align, qn_fence fence);
void qn__guarded_fini(qn_guarded *g);

static inline void *qn__guarded_at(const qn_guarded *g) { return g->first ? g->first + g->before : NULL; }

/* Does `address`, on the host, lie in the pages beside the contents or in those? *offset: from where they begin. */
bool qn__guarded_near(const qn_guarded *g, const void *address, long long *offset);

/* Set the guards, and the contents to `data`, to be read only, or to the guards' byte if that is NULL. */
qn_status qn__guarded_set(const qn_guarded *g, const void *data);
/* On the host: forbid, or allow again, what are whole pages between rows of `row` bytes that begin every `stride`
 * bytes. There are none where a stride is not of pages. */
void qn__guarded_forbid(const qn_guarded *g, size_t row, size_t stride, bool forbid);
/* Are both guards untouched, and the first `bytes` of the contents equal to `data`? QN_E_WRONG names the first byte. */
qn_status qn__guarded_check(const qn_guarded *g, const void *data, size_t bytes);
#endif
