/* measure.c - the arithmetic and the reads, as host kernels of our own; what the system says of our threads. */
#include "measure.h"
#include "cpu.h"
#include "fail.h"
#include "heap.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { rounds = 50000, max_threads = 1024, page = 4096, window = 32 << 20 };

/* The arithmetic and the reads for one instruction set. */
typedef struct units {
  float (*multiply)(float x);
  uint64_t (*read)(const char *from, const char *to);
} units;

struct qn_meter {
  qn_device *device;
  qn_sampler sampler;
  units units;
  unsigned char *memory;
  size_t bytes, at;
  bool cold, filled; /* a worker that only verifies neither warms up nor streams */
  int stat;          /* /proc/stat; -1: not there */
  double stolen;     /* as it was asked last; likewise */
  int tasks; /* threads of this process when it was asked last, and what each had waited for a core, in seconds */
  double waited[max_threads];
  double rate[max_threads];
  double sum[max_threads]; /* so that no result is dropped */
};

/* ---- Vector units ------------------------------------------------------------------------------------------------ */

/* multiply: eight chains of products and sums, which keep every unit at work and which the compiler cannot shorten.
 * read: every byte, with loads of `width`. Each variable is a register. */
#define UNITS(name, width, target)                                                                                     \
  typedef float name##_floats __attribute__((vector_size(width)));                                                     \
  typedef uint64_t name##_words __attribute__((vector_size(width)));                                                   \
  target static float name##_multiply(float x) {                                                                       \
    const name##_floats zero = {0}, half = zero + 0.5f, one = zero + 1;                                                \
    name##_floats a = zero + x, b = a + 1, c = b + 1, d = c + 1, e = d + 1, f = e + 1, g = f + 1, h = g + 1;           \
    for (int r = 0; r < rounds; r++) {                                                                                 \
      a = a * half + one, b = b * half + one, c = c * half + one, d = d * half + one;                                  \
      e = e * half + one, f = f * half + one, g = g * half + one, h = h * half + one;                                  \
    }                                                                                                                  \
    a += b + c + d + e + f + g + h;                                                                                    \
    return a[0];                                                                                                       \
  }                                                                                                                    \
  target static uint64_t name##_read(const char *from, const char *to) {                                               \
    name##_words a = {0}, b = a, c = a, d = a;                                                                         \
    for (const name##_words *p = (const void *)from; p < (const name##_words *)(const void *)to; p += 4)               \
      a ^= p[0], b ^= p[1], c ^= p[2], d ^= p[3];                                                                      \
    a ^= b ^ c ^ d;                                                                                                    \
    return a[0] ^ a[1];                                                                                                \
  }

UNITS(plain, 16, )
#ifdef __x86_64__
UNITS(avx2, 32, __attribute__((target("avx2"))))
UNITS(avx512, 64, __attribute__((target("avx512f"))))
#endif

static units best_units(void) {
#ifdef __x86_64__
  char missing[32];
  if (qn__cpu_has("avx512f", missing, sizeof missing)) return (units){avx512_multiply, avx512_read};
  if (qn__cpu_has("avx2", missing, sizeof missing)) return (units){avx2_multiply, avx2_read};
#endif
  return (units){plain_multiply, plain_read};
}

/* ---- On every thread --------------------------------------------------------------------------------------------- */

static void arithmetic(const qn_host_args *a, int64_t begin, int64_t end, int32_t thread) {
  qn_meter *m = a->scratch;
  for (int64_t i = begin; i < end; i++) {
    double start = qn__now();
    m->sum[thread] += (double)m->units.multiply((float)i);
    m->rate[i] = rounds / (qn__now() - start);
  }
}

static void stream(const qn_host_args *a, int64_t begin, int64_t end, int32_t thread) {
  qn_meter *m = a->scratch;
  const char *p = a->x;
  m->sum[thread] += (double)m->units.read(p + begin * page, p + end * page);
}

/* Run a function of this file on every thread of the device. */
static qn_status run(qn_meter *m, qn_host_entry entry, int64_t items, const void *x) {
  qn_host_args args = {.x = x, .scratch = m};
  qn_launch l = {.grid = {items, 1, 1}, .block = {1, 1, 1}, .cluster = {1, 1, 1}};
  memcpy(&l.fn, &entry, sizeof l.fn);
  return m->device->ops->launch(m->device, &l, &args, NULL);
}

/* ---- The machine ------------------------------------------------------------------------------------------------- */

static double now(void *ud) {
  (void)ud;
  return qn__now();
}

static double pace(void *ud) {
  qn_meter *m = ud;
  int n = m->device->info.threads;
  if (run(m, arithmetic, n, NULL) != QN_OK) return 0;
  double worst = m->rate[0];
  for (int i = 1; i < n; i++)
    if (m->rate[i] < worst) worst = m->rate[i];
  return worst;
}

/* Seconds that the hypervisor gave to others, of a CPU on the average: the eighth number of the first line of
 * /proc/stat is of all. */
static double stolen(const qn_meter *m) {
  char text[256] = "";
  unsigned long long ticks = 0;
  if (m->stat < 0 || pread(m->stat, text, sizeof text - 1, 0) < 0) return 0;
  if (sscanf(text, "cpu %*u %*u %*u %*u %*u %*u %*u %llu", &ticks) != 1) return 0;
  return (double)ticks / (double)sysconf(_SC_CLK_TCK) / (double)sysconf(_SC_NPROCESSORS_ONLN);
}

/* The most that one thread has waited for a core since it was asked last, though it could have run: the second number
 * of its schedstat, in ns. 0 where the system does not tell, and when threads have come or gone. */
static double waited(qn_meter *m) {
  double most = 0;
  int n = 0;
  DIR *tasks = opendir("/proc/self/task");
  for (const struct dirent *e; tasks && n < max_threads && (e = readdir(tasks));) {
    char name[300], text[64] = "";
    unsigned long long ns = 0;
    snprintf(name, sizeof name, "%s/schedstat", e->d_name);
    int file = *e->d_name == '.' ? -1 : openat(dirfd(tasks), name, O_RDONLY | O_CLOEXEC);
    if (file < 0) continue;
    if (read(file, text, sizeof text - 1) > 0) sscanf(text, "%*u %llu", &ns);
    close(file);
    double seconds = 1e-9 * (double)ns, since = seconds - m->waited[n];
    if (since > most) most = since;
    m->waited[n++] = seconds;
  }
  if (tasks) closedir(tasks);
  bool same = n == m->tasks;
  m->tasks = n;
  return same ? most : 0;
}

static double lost(void *ud) {
  qn_meter *m = ud;
  double steal = stolen(m), seconds = steal - m->stolen;
  m->stolen = steal;
  return seconds + waited(m);
}

static double nothing(void *ud) {
  (void)ud;
  return 0;
}

/* ---- The meter --------------------------------------------------------------------------------------------------- */

bool qn__meter_unbelieved(void) {
  const char *busy = getenv("QUERNEL_BUSY");
  return busy && !strcmp(busy, "ignore");
}

static bool looked_at(const qn_device *d) {
  return d->target->host_memory && d->info.threads <= max_threads && !qn__meter_unbelieved();
}

qn_status qn__meter_new(qn_device *d, size_t bytes, qn_meter **out) {
  qn_meter *m = *out = calloc(1, sizeof *m);
  if (!m) return qn__fail(QN_E_NOMEM, "no memory for a meter");
  m->device = d;
  m->units = best_units();
  m->stat = -1;
  m->sampler.on = (qn_machine){now, nothing, nothing, m};
  if (!d->target->host_memory) return QN_OK;
  m->bytes = bytes / window * window;
  if (m->bytes < 2 * (size_t)window) m->bytes = 2 * (size_t)window;
  m->memory = aligned_alloc(page, m->bytes);
  if (!m->memory) {
    free(m);
    *out = NULL;
    return qn__fail(QN_E_NOMEM, "no memory for %zu bytes to stream through", bytes);
  }
  qn__huge_pages(m->memory, m->bytes);
  if (!looked_at(d)) return QN_OK;
  m->stat = open("/proc/stat", O_RDONLY | O_CLOEXEC);
  m->sampler.on = (qn_machine){now, pace, lost, m};
  m->cold = true;
  return QN_OK;
}

void qn__meter_free(qn_meter *m) {
  if (!m) return;
  if (m->stat >= 0) close(m->stat);
  free(m->memory);
  free(m);
}

qn_sampler *qn__meter_sampler(qn_meter *m) {
  if (m->cold) qn__sampler_warm(&m->sampler);
  m->cold = false;
  return &m->sampler;
}

double qn__meter_bandwidth(qn_meter *m) {
  if (!m->memory) return 0;
  if (!m->filled) memset(m->memory, 1, m->bytes);
  m->filled = true;
  double start = qn__now();
  run(m, stream, window / page, m->memory + m->at);
  double seconds = qn__now() - start;
  m->at = (m->at + window) % m->bytes;
  return window / seconds;
}
