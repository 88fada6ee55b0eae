/* device_host.c - the host in the table of device.h. */
#include "device_host.h"
#include "cpu.h"
#include "fail.h"
#include "heap.h"
#include "host_load.h"
#include "pool.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

typedef struct host {
  qn_device device;
  qn_pool *pool;
} host;

#define MAX_BYTES ((size_t)1 << 46) /* no machine has more addresses for one process */

static void host_close(qn_device *d) {
  qn__pool_free(((host *)d)->pool);
  qn__free(d->heap, d, sizeof(host));
}

/* Weights are large and read from end to end: they start at a huge page. */
static qn_status host_alloc(qn_device *d, size_t bytes, void **p) {
  size_t align = bytes >= 2 * (size_t)QN_HUGE_PAGE ? QN_HUGE_PAGE : 256;
  *p = bytes <= MAX_BYTES ? qn__alloc_aligned(d->heap, align, bytes) : NULL;
  if (!*p) return qn__fail(QN_E_NOMEM, "%zu bytes of memory", bytes);
  if (align == QN_HUGE_PAGE) qn__huge_pages(*p, bytes);
  return QN_OK;
}

static void host_free(qn_device *d, void *p) { qn__free_aligned(d->heap, p); }

static qn_status host_copy(qn_device *d, void *dst, const void *src, size_t bytes) {
  (void)d;
  if (dst != src) memcpy(dst, src, bytes);
  return QN_OK;
}

static qn_status host_module_load(qn_device *d, const void *image, size_t bytes, qn_module **m) {
  return qn__host_image_open(d->heap, image, bytes, (qn_host_image **)m);
}

static void host_module_free(qn_device *d, qn_module *m) {
  (void)d;
  qn__host_image_close((qn_host_image *)m);
}

static qn_status host_entry(qn_device *d, qn_module *m, const char *name, int64_t shared, void **fn) {
  (void)d, (void)shared;
  return qn__host_image_entry((qn_host_image *)m, name, fn);
}

typedef struct call {
  qn_host_entry entry;
  const qn_host_args *args;
} call;

static void run_items(void *ud, int64_t begin, int64_t end, int32_t thread) {
  const call *c = ud;
  c->entry(c->args, begin, end, thread);
}

static qn_status host_launch(qn_device *d, const qn_launch *l, const qn_host_args *a, void *stream) {
  (void)stream;
  call c = {.args = a};
  memcpy(&c.entry, &l->fn, sizeof c.entry);
  qn__pool_run(((host *)d)->pool, run_items, &c, l->grid[0]);
  return QN_OK;
}

static qn_status host_sync(qn_device *d, void *stream) {
  (void)d, (void)stream;
  return QN_OK;
}

static void host_share(qn_device *d, qn_pool_fn fn, void *ud, int64_t items) {
  qn__pool_run(((host *)d)->pool, fn, ud, items);
}

static const qn_device_ops host_ops = {
    .close = host_close,
    .alloc = host_alloc,
    .free = host_free,
    .upload = host_copy,
    .download = host_copy,
    .module_load = host_module_load,
    .module_free = host_module_free,
    .entry = host_entry,
    .launch = host_launch,
    .sync = host_sync,
    .share = host_share,
};

/* ---- What this machine is ---------------------------------------------------------------------------------------- */

/* The value of a line "KEY : value" of /proc/cpuinfo; "" if there is none. */
static void cpuinfo(const char *key, char *out, size_t size) {
  char line[256];
  *out = 0;
  FILE *f = fopen("/proc/cpuinfo", "r");
  while (f && !*out && fgets(line, sizeof line, f)) {
    char *colon = strstr(line, ": ");
    if (colon && !strncmp(line, key, strlen(key)))
      snprintf(out, size, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
  }
  if (f) fclose(f);
}

/* Vendor, family and model, as x86-64 and aarch64 call them: under a hypervisor the name alone may say little. */
static void model(char *out, size_t size) {
  static const char *const keys[] = {"vendor_id",       "cpu family",  "model\t",
                                     "CPU implementer", "CPU variant", "CPU part"};
  char value[64];
  *out = 0;
  for (size_t i = 0; i < QN_COUNT(keys); i++) {
    cpuinfo(keys[i], value, sizeof value);
    size_t n = strlen(out);
    if (*value) snprintf(out + n, size - n, n ? " %s" : "%s", value);
  }
}

static int64_t cache_size(int name) {
  long v = sysconf(name);
  return v > 0 ? v : 0;
}

static void describe(qn_device_info *i, int threads) {
  struct utsname u;
  *i = (qn_device_info){.target = "host", .threads = threads, .timed = 1};
  if (threads == qn__cpu_count()) strcpy(i->name, "host");
  else snprintf(i->name, sizeof i->name, "host:%d", threads);
  snprintf(i->arch, sizeof i->arch, "%s", qn__cpu_arch());
  cpuinfo("model name", i->product, sizeof i->product);
  if (!uname(&u)) snprintf(i->driver, sizeof i->driver, "%.31s", u.release);
  model(i->model, sizeof i->model);
  i->cache[0] = cache_size(_SC_LEVEL1_DCACHE_SIZE);
  i->cache[1] = cache_size(_SC_LEVEL2_CACHE_SIZE);
  i->cache[2] = cache_size(_SC_LEVEL3_CACHE_SIZE);
  i->var[QN_VAR_T] = threads;
  i->var[QN_VAR_L2] = i->cache[1];
}

qn_status qn__device_host_open(const qn_allocator *heap, int threads, qn_device **out) {
  *out = NULL;
  if (!threads) threads = qn__cpu_count();
  host *h = qn__alloc_zero(heap, sizeof *h);
  if (!h) return qn__fail(QN_E_NOMEM, "host device");
  qn_status s = qn__pool_new(heap, threads, &h->pool);
  if (s) {
    qn__free(heap, h, sizeof *h);
    return s;
  }
  h->device.ops = &host_ops, h->device.heap = heap;
  h->device.target = qn__target("host");
  h->device.host_threads = threads;
  describe(&h->device.info, threads);
  *out = &h->device;
  return QN_OK;
}
