/* measure.c - the probe of arithmetic and the stream of reads, as host kernels of our own. */
#include "measure.h"
#include "fail.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { probe_steps = 100000, quiet_percent = 88, max_threads = 1024, window = 32 << 20 };

struct qn_meter {
  qn_device *device;
  unsigned char *memory;
  size_t bytes, at;
  double best; /* steps/s of the probe on one thread */
  double rate[max_threads];
  uint64_t sum[max_threads];
};

/* A chain-free run of multiplications that the compiler can neither drop nor shorten. */
static uint64_t spin(uint64_t seed) {
  uint64_t a = seed, b = seed + 1, c = seed + 2, d = seed + 3;
  for (int i = 0; i < probe_steps; i++) {
    a *= 0x9e3779b97f4a7c15u, b *= 0xbf58476d1ce4e5b9u, c *= 0x94d049bb133111ebu, d *= 0xd6e8feb86659fd93u;
    __asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d));
  }
  return a ^ b ^ c ^ d;
}

static void probe(const qn_host_args *a, int64_t begin, int64_t end, int32_t thread) {
  qn_meter *m = a->scratch;
  for (int64_t i = begin; i < end; i++) {
    double start = qn__now();
    m->sum[thread] += spin((uint64_t)i);
    m->rate[i] = probe_steps / (qn__now() - start);
  }
}

typedef uint64_t lane __attribute__((vector_size(16)));

static void stream(const qn_host_args *a, int64_t begin, int64_t end, int32_t thread) {
  qn_meter *m = a->scratch;
  const lane *p = (const lane *)(const void *)((const char *)a->x + begin * 4096);
  const lane *stop = (const lane *)(const void *)((const char *)a->x + end * 4096);
  lane s[4] = {0};
  for (; p < stop; p += 8) s[0] += p[0] ^ p[1], s[1] += p[2] ^ p[3], s[2] += p[4] ^ p[5], s[3] += p[6] ^ p[7];
  s[0] += s[1] + s[2] + s[3];
  m->sum[thread] += s[0][0] + s[0][1];
}

/* Run a function of this file on every thread of the device. */
static qn_status run(qn_meter *m, qn_host_entry entry, int64_t items, const void *x) {
  qn_host_args args = {.x = x, .scratch = m};
  qn_launch l = {.grid = {items, 1, 1}, .block = {1, 1, 1}, .cluster = {1, 1, 1}};
  memcpy(&l.fn, &entry, sizeof l.fn);
  return m->device->ops->launch(m->device, &l, &args, NULL);
}

qn_status qn__meter_new(qn_device *d, size_t bytes, qn_meter **out) {
  qn_meter *m = *out = calloc(1, sizeof *m);
  if (!m) return qn__fail(QN_E_NOMEM, "no memory for a meter");
  m->device = d;
  if (!d->target->host_memory) return QN_OK;
  m->bytes = bytes / window * window;
  if (m->bytes < 2 * (size_t)window) m->bytes = 2 * (size_t)window;
  m->memory = aligned_alloc(4096, m->bytes);
  if (!m->memory) {
    free(m);
    *out = NULL;
    return qn__fail(QN_E_NOMEM, "no memory for %zu bytes to stream through", bytes);
  }
  memset(m->memory, 1, m->bytes);
  for (int i = 0; i < 20; i++) qn__meter_quiet(m); /* learn the best rate */
  return QN_OK;
}

void qn__meter_free(qn_meter *m) {
  if (m) free(m->memory);
  free(m);
}

bool qn__meter_quiet(qn_meter *m) {
  int n = m->device->info.threads;
  if (!m->memory || n > max_threads || run(m, probe, n, NULL) != QN_OK) return true;
  double worst = m->rate[0];
  for (int i = 0; i < n; i++) {
    if (m->rate[i] < worst) worst = m->rate[i];
    if (m->rate[i] > m->best) m->best = m->rate[i];
  }
  return worst * 100 >= m->best * quiet_percent;
}

double qn__meter_bandwidth(qn_meter *m) {
  if (!m->memory) return 0;
  double start = qn__now();
  run(m, stream, window / 4096, m->memory + m->at);
  double seconds = qn__now() - start;
  m->at = (m->at + window) % m->bytes;
  return window / seconds;
}
