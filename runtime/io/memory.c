/* memory.c - what a model's bookkeeping stands on: memory that lives as long as the model, names to indices,
 * mappings. */
#include "file.h"
#include "model.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Arena ------------------------------------------------------------------------------------------------------- */

struct qn__chunk {
  struct qn__chunk *next;
  size_t used, size;
  _Alignas(16) unsigned char data[];
};

void *qn__arena_take(qn__arena *a, size_t bytes) {
  enum { usual = 64 << 10 };
  if (bytes > SIZE_MAX / 2) return NULL;
  bytes = (bytes + 15) / 16 * 16;
  struct qn__chunk *c = a->chunk;
  if (!c || c->size - c->used < bytes) {
    size_t size = bytes > usual ? bytes : usual;
    if (!(c = calloc(1, sizeof *c + size))) return NULL;
    c->size = size;
    c->next = a->chunk;
    a->chunk = c;
  }
  void *p = c->data + c->used;
  c->used += bytes;
  return p;
}

char *qn__arena_text(qn__arena *a, const char *s, size_t length) {
  char *p = qn__arena_take(a, length + 1);
  return p ? memcpy(p, s, length) : NULL;
}

char *qn__arena_print(qn__arena *a, const char *format, ...) {
  va_list args, again;
  va_start(args, format);
  va_copy(again, args);
  int n = vsnprintf(NULL, 0, format, args);
  char *p = n < 0 ? NULL : qn__arena_take(a, (size_t)n + 1);
  if (p) vsnprintf(p, (size_t)n + 1, format, again);
  va_end(again);
  va_end(args);
  return p;
}

void qn__arena_fini(qn__arena *a) {
  for (struct qn__chunk *c = a->chunk, *next; c; c = next) {
    next = c->next;
    free(c);
  }
  a->chunk = NULL;
}

/* ---- Names: open addressing, FNV-1a (Fowler, Noll, Vo) ----------------------------------------------------------- */

static uint64_t name_hash(const char *s) {
  uint64_t h = 14695981039346656037u;
  while (*s) h = (h ^ (unsigned char)*s++) * 1099511628211u;
  return h ^ h >> 29;
}

static const char *name_at(const qn__names *t, size_t i) {
  return *(const char *const *)((const char *)t->base + i * t->stride);
}

qn_status qn__names_init(qn__names *t, const void *base, size_t count, size_t stride, const char **twice) {
  *t = (qn__names){.cap = 16, .count = count, .base = base, .stride = stride};
  *twice = NULL;
  while (t->cap < count * 2) t->cap *= 2;
  if (count >= UINT32_MAX || !(t->slot = calloc(t->cap, sizeof *t->slot)))
    return qn__fail(QN_E_NOMEM, "no memory for the names of %zu tensors", count);
  for (size_t i = 0; i < count; i++) {
    const char *name = name_at(t, i);
    size_t at = name_hash(name) & (t->cap - 1);
    for (; t->slot[at]; at = (at + 1) & (t->cap - 1))
      if (!strcmp(name_at(t, t->slot[at] - 1), name)) *twice = name;
    t->slot[at] = (uint32_t)i + 1;
  }
  return QN_OK;
}

const void *qn__names_find(const qn__names *t, const char *name) {
  if (!t->slot || !name) return NULL;
  for (size_t at = name_hash(name) & (t->cap - 1); t->slot[at]; at = (at + 1) & (t->cap - 1))
    if (!strcmp(name_at(t, t->slot[at] - 1), name)) return (const char *)t->base + (t->slot[at] - 1) * t->stride;
  return NULL;
}

void qn__names_fini(qn__names *t) {
  free(t->slot);
  *t = (qn__names){0};
}

/* ---- Files ------------------------------------------------------------------------------------------------------- */

bool qn__file_exists(const char *path) {
  struct stat st;
  return !stat(path, &st) && S_ISREG(st.st_mode);
}

qn_status qn__map_open(const char *path, qn__map *out) {
  *out = (qn__map){0};
  int fd;
  size_t size;
  QN_TRY(qn__file_open(path, &fd, &size));
  void *p = size ? mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
  qn_status s = !size             ? qn__fail(QN_E_FORMAT, "%s: the file is empty", path)
                : p == MAP_FAILED ? qn__fail(qn__errno_status(errno), "%s: cannot be mapped: %s", path, strerror(errno))
                                  : QN_OK;
  close(fd);
  if (s != QN_OK) return s;
  *out = (qn__map){.data = p, .bytes = size, .path = strdup(path)};
  if (out->path) return QN_OK;
  qn__map_close(out);
  return qn__fail(QN_E_NOMEM, "no memory for a path");
}

void qn__map_release(const qn__map *m) { madvise((void *)(uintptr_t)m->data, m->bytes, MADV_DONTNEED); }

void qn__map_close(qn__map *m) {
  if (m->data) munmap((void *)(uintptr_t)m->data, m->bytes);
  free(m->path);
  *m = (qn__map){0};
}
