/* host_load.h - run a compiled host kernel straight from memory.
 *
 * The image is an ELF64 shared object for this CPU, made with -shared -nostdlib -fPIC: it calls nothing, needs no
 * library and holds no thread-local data. Nothing touches the disk, and no page is ever writable and executable. */
#ifndef QN_HOST_LOAD_H
#define QN_HOST_LOAD_H
#include "heap.h"

typedef struct qn_host_image qn_host_image;

/* Is `image` an ELF shared object for this CPU that could be loaded? QN_E_FORMAT, QN_E_DEVICE (another CPU). */
qn_status qn__host_image_check(const void *image, size_t size);
/* Map and relocate. The image's memory may go after the call. Every offset is checked against `size` and against the
 * mapping; an undefined symbol is named. QN_E_FORMAT, QN_E_DEVICE, QN_E_NOMEM. Any thread. */
qn_status qn__host_image_open(const qn_allocator *heap, const void *image, size_t size, qn_host_image **out);
void qn__host_image_close(qn_host_image *h);
/* Address of a function that the image exports; QN_E_NO_KERNEL if there is none of that name. */
qn_status qn__host_image_entry(const qn_host_image *h, const char *name, void **fn);
#endif
