/* heap.c - the caller's allocator, or malloc; aligned blocks with a note of what they were cut from. */
#include "heap.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static void *resize(const qn_allocator *heap, void *p, size_t old_size, size_t new_size) {
  if (heap && heap->resize) return heap->resize(heap->user, p, old_size, new_size);
  if (new_size) return realloc(p, new_size);
  free(p);
  return NULL;
}

void *qn__alloc(const qn_allocator *heap, size_t size) { return resize(heap, NULL, 0, size); }

void *qn__alloc_zero(const qn_allocator *heap, size_t size) {
  void *p = qn__alloc(heap, size);
  return p ? memset(p, 0, size) : NULL;
}

void qn__free(const qn_allocator *heap, void *p, size_t size) {
  if (p) resize(heap, p, size, 0);
}

/* Right before an aligned block. */
typedef struct note {
  void *whole;
  size_t size;
} note;

void *qn__alloc_aligned(const qn_allocator *heap, size_t align, size_t size) {
  size_t whole_size = sizeof(note) + align + size;
  char *whole = whole_size > size ? qn__alloc(heap, whole_size) : NULL;
  if (!whole) return NULL;
  char *p = whole + sizeof(note);
  p += -(uintptr_t)p & (align - 1);
  memcpy(p - sizeof(note), &(note){whole, whole_size}, sizeof(note));
  return p;
}

void qn__free_aligned(const qn_allocator *heap, void *p) {
  note n;
  if (!p) return;
  memcpy(&n, (char *)p - sizeof n, sizeof n);
  qn__free(heap, n.whole, n.size);
}

void qn__huge_pages(void *p, size_t bytes) {
  size_t skip = -(uintptr_t)p & (QN_HUGE_PAGE - 1);
  if (bytes >= skip + QN_HUGE_PAGE)
    madvise((char *)p + skip, (bytes - skip) / QN_HUGE_PAGE * QN_HUGE_PAGE, MADV_HUGEPAGE);
}
