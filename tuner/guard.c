/* guard.c - guards: set before a kernel runs, looked at after. */
#include "guard.h"
#include "fail.h"
#include "heap.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { GUARD = 4096, LINE = 256, CHUNK = 1 << 20 };

static bool on_host(const qn_device *d) { return d->target->host_memory; }
static size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }
static size_t page_bytes(void) { return (size_t)sysconf(_SC_PAGESIZE); }

/* ---- Memory ------------------------------------------------------------------------------------------------------ */

/* Whole pages between two that nobody may touch. Many begin at a huge page, as they do where they serve. */
static qn_status map(size_t room, char **first) {
  size_t page = page_bytes(), unit = room >= 2 * (size_t)QN_HUGE_PAGE ? QN_HUGE_PAGE : page, all = room + unit + page;
  char *p = mmap(NULL, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return qn__fail(QN_E_NOMEM, "%zu bytes of memory", room);
  *first = p + (round_up((size_t)p + page, unit) - (size_t)p);
  char *end = *first + room + page;
  if (*first - page > p) munmap(p, (size_t)(*first - page - p));
  if (end < p + all) munmap(end, (size_t)(p + all - end));
  if (unit == QN_HUGE_PAGE) qn__huge_pages(*first, room);
  if (!room || !mprotect(*first, room, PROT_READ | PROT_WRITE)) return QN_OK;
  munmap(*first - page, room + 2 * page);
  return qn__fail(QN_E_NOMEM, "%zu bytes of memory", room);
}

static qn_status make_room(qn_guarded *g, qn_device *d, size_t room) {
  void *p = NULL;
  if (g->first && g->room == room) return QN_OK;
  qn__guarded_fini(g);
  QN_TRY(on_host(d) ? map(room, (char **)&p) : d->ops->alloc(d, room, &p));
  *g = (qn_guarded){.device = d, .first = p, .room = room};
  return QN_OK;
}

qn_status qn__guarded_place(qn_guarded *g, qn_device *d, const char *name, size_t size, size_t align, qn_fence fence) {
  bool host = on_host(d);
  size_t guard = d->info.timed && !host ? GUARD : 0, unit = host ? page_bytes() : fence.at_end ? LINE : 1;
  size_t lead = fence.odd ? align : 0, inner = round_up(lead + size, unit);
  QN_TRY(make_room(g, d, guard + inner + guard));
  g->name = name, g->size = size, g->fence = fence;
  g->before = guard + (fence.at_end ? (inner - size) / align * align : lead);
  return QN_OK;
}

void qn__guarded_fini(qn_guarded *g) {
  if (g->first && on_host(g->device)) munmap(g->first - page_bytes(), g->room + 2 * page_bytes());
  else if (g->first) g->device->ops->free(g->device, g->first);
  *g = (qn_guarded){0};
}

bool qn__guarded_near(const qn_guarded *g, const void *address, long long *offset) {
  uintptr_t first = (uintptr_t)g->first, at = (uintptr_t)address, page = page_bytes();
  *offset = (long long)(at - first) - (long long)g->before;
  return g->first && at >= first - page && at < first + g->room + page;
}

/* ---- Contents ---------------------------------------------------------------------------------------------------- */

/* Bytes of a fence, CHUNK of them. Of the process, as `fetched` is: a worker has one thread. */
static const unsigned char *filled(unsigned char byte) {
  static unsigned char bytes[CHUNK];
  if (bytes[0] != byte) memset(bytes, byte, sizeof bytes);
  return bytes;
}

/* May all of it be written, or nothing? */
static void allow(const qn_guarded *g, bool writing) {
  if (g->room && on_host(g->device)) mprotect(g->first, g->room, writing ? PROT_READ | PROT_WRITE : PROT_READ);
}

void qn__guarded_forbid(const qn_guarded *g, size_t row, size_t stride, bool forbid) {
  size_t page = page_bytes();
  if (!on_host(g->device) || stride % page || stride - row < page) return;
  for (size_t at = g->before; at + stride < g->before + g->size; at += stride) {
    size_t from = round_up(at + row, page), to = (at + stride) / page * page;
    mprotect(g->first + from, to - from, forbid ? PROT_NONE : PROT_READ | PROT_WRITE);
  }
}

static qn_status fill(const qn_guarded *g, size_t at, size_t bytes) {
  if (on_host(g->device)) return memset(g->first + at, g->fence.byte, bytes), QN_OK;
  for (size_t i = 0; i < bytes; i += CHUNK)
    QN_TRY(g->device->ops->upload(g->device, g->first + at + i, filled(g->fence.byte),
                                  bytes - i < CHUNK ? bytes - i : CHUNK));
  return QN_OK;
}

qn_status qn__guarded_set(const qn_guarded *g, const void *data) {
  size_t end = g->before + g->size;
  allow(g, true);
  if (!data && g->device->info.timed) return fill(g, 0, g->room);
  if (g->device->info.timed) {
    QN_TRY(fill(g, 0, g->before));
    QN_TRY(fill(g, end, g->room - end));
  }
  QN_TRY(data ? g->device->ops->upload(g->device, g->first + g->before, data, g->size) : fill(g, g->before, g->size));
  if (data) allow(g, false);
  return QN_OK;
}

static unsigned char fetched[CHUNK];

/* `bytes` bytes at `at` are those of `want`, or, where that is NULL, the fence's. `all`: the memory, if it is here. */
static qn_status check(const qn_guarded *g, const unsigned char *all, size_t at, const unsigned char *want,
                       size_t bytes, const char *what) {
  for (size_t i = 0; i < bytes; i += CHUNK) {
    size_t n = bytes - i < CHUNK ? bytes - i : CHUNK, j = 0;
    const unsigned char *w = want ? want + i : filled(g->fence.byte), *have = all ? all + at + i : fetched;
    if (!all) QN_TRY(g->device->ops->download(g->device, fetched, g->first + at + i, n));
    if (!memcmp(have, w, n)) continue;
    while (have[j] == w[j]) j++;
    return qn__fail(QN_E_WRONG, "wrote %s buffer '%s' of %zu bytes, at offset %lld", what, g->name, g->size,
                    (long long)(at + i + j) - (long long)g->before);
  }
  return QN_OK;
}

qn_status qn__guarded_check(const qn_guarded *g, const void *data, size_t bytes) {
  if (!g->first) return QN_OK;
  const unsigned char *all = on_host(g->device) ? (unsigned char *)g->first : NULL;
  if (!all && g->room <= CHUNK) { /* at once: a copy takes as long as a short kernel */
    QN_TRY(g->device->ops->download(g->device, fetched, g->first, g->room));
    all = fetched;
  }
  size_t end = g->before + g->size;
  if (g->device->info.timed) {
    QN_TRY(check(g, all, 0, NULL, g->before, "before"));
    QN_TRY(check(g, all, end, NULL, g->room - end, "behind"));
  }
  return check(g, all, g->before, data, bytes, "into the read-only");
}
