/* heap.h - memory of the host, from the allocator that the caller of qn_open gave; all that a context owns is from
 * here.
 *
 * `heap` is borrowed and lives as long as what was taken from it; NULL is the C library's. Whoever frees says how much
 * there was. NULL is accepted where a block is freed. Any thread. */
#ifndef QN_HEAP_H
#define QN_HEAP_H
#include "quernel.h"

/* `size` bytes > 0, aligned for everything; NULL where there is no memory. */
void *qn__alloc(const qn_allocator *heap, size_t size);
void *qn__alloc_zero(const qn_allocator *heap, size_t size); /* filled with zeros */
void qn__free(const qn_allocator *heap, void *p, size_t size);

/* The same at a multiple of `align`, a power of two; the block itself knows its size. */
void *qn__alloc_aligned(const qn_allocator *heap, size_t align, size_t size);
void qn__free_aligned(const qn_allocator *heap, void *p);

enum { QN_HUGE_PAGE = 2 << 20 };

/* Asks the system for huge pages where such fit whole into these bytes: what is read from end to end misses fewer
 * translations. A hint, which changes no content. */
void qn__huge_pages(void *p, size_t bytes);
#endif
