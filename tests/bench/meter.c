/* meter.c - the tuner's rule of samples, the read rate and the peaks of this machine, for tests/bench/host, which loads
 * this as a library and passes what is to be timed as a function. One thread calls. */
#include "cpu.h"
#include "device_host.h"
#include "fail.h"
#include "measure.h"
#include <stdlib.h>
#include <string.h>

#define API __attribute__((visibility("default")))

typedef struct meter meter;
API meter *bench_meter(int threads, const char **why);
API void bench_begin(meter *m, int count);
API bool bench_sample(meter *m, double (*run)(void), double *seconds, double *bandwidth);
API double bench_peak(meter *m, const char *type);
API size_t bench_size_of(const char *type);

struct meter {
  qn_device *device;
  qn_meter *meter;
  qn_sampling sampling;
  double (*run)(void); /* what is sampled */
};

/* A meter of `threads` threads; NULL and the reason in *why. */
meter *bench_meter(int threads, const char **why) {
  meter *m = calloc(1, sizeof *m);
  qn_status s = m ? qn__device_host_open(NULL, threads, &m->device) : qn__fail(QN_E_NOMEM, "no memory for a meter");
  if (!s) s = qn__meter_new(m->device, (size_t)1 << 28, &m->meter);
  if (!s) return m;
  *why = qn__errmsg();
  if (m) qn__device_close(m->device);
  free(m);
  return NULL;
}

/* Begin with `count` samples, which share their patience with a busy machine. */
void bench_begin(meter *m, int count) { m->sampling = qn__sampling_begin(qn__meter_sampler(m->meter), count); }

static qn_status take(void *ud, qn_sample *out) {
  meter *m = ud;
  out->bandwidth = qn__meter_bandwidth(m->meter);
  out->seconds = m->run();
  return QN_OK;
}

/* One of them: its seconds, bytes/s of plain reads beside it, and whether the machine was disturbed all the same. */
bool bench_sample(meter *m, double (*run)(void), double *seconds, double *bandwidth) {
  qn_sample x = {0};
  m->run = run;
  if (qn__sample(&m->sampling, take, m, &x)) return true;
  *seconds = x.seconds;
  *bandwidth = x.bandwidth;
  return x.disturbed;
}

/* ---- Peaks ------------------------------------------------------------------------------------------------------- */

enum { ROUNDS = 300000, CHAINS = 12 };

#define TRYING 0.2 /* seconds: threads that were just made may share a core for some time */

#ifdef __x86_64__
#define EACH(f, op, r)                                                                                                 \
  f(op, r, "0") f(op, r, "1") f(op, r, "2") f(op, r, "3") f(op, r, "4") f(op, r, "5") f(op, r, "6") f(op, r, "7")      \
      f(op, r, "8") f(op, r, "9") f(op, r, "10") f(op, r, "11")
#define CLEAR(op, r, i) op " %%" r i ", %%" r i ", %%" r i "\n"
#define INTO(op, r, i) op " %%" r "12, %%" r "13, %%" r i "\n"
/* Rounds of a product of two registers into each of so many others that its latency is hidden: five steps on two units
 * take ten. */
#define PEAK(name, op, r)                                                                                              \
  static void name(void *ud, int64_t begin, int64_t end, int32_t thread) {                                             \
    (void)ud, (void)thread;                                                                                            \
    for (int64_t i = begin, rounds = ROUNDS; i < end; i++, rounds = ROUNDS)                                            \
      __asm__ volatile(EACH(CLEAR, "vxorps", "ymm") CLEAR("vxorps", "ymm", "12")                                       \
                           CLEAR("vxorps", "ymm", "13") "1:\n" EACH(INTO, op, r) "dec %0\njnz 1b\nvzeroupper\n"        \
                       : "+r"(rounds)::"xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", \
                         "xmm10", "xmm11", "xmm12", "xmm13");                                                          \
  }
PEAK(i8_512, "vpdpbusd", "zmm")
PEAK(bf16_512, "vdpbf16ps", "zmm")
PEAK(f32_512, "vfmadd231ps", "zmm")
PEAK(f32_256, "vfmadd231ps", "ymm")
#endif

typedef struct peak {
  const char *type, *needs; /* of the operands; instruction sets */
  qn_pool_fn entry;
  int operations; /* of one product: multiplications and additions, one by one */
} peak;

/* The best first. */
static const peak peaks[] = {
#ifdef __x86_64__
    {"i8", "avx512f avx512vnni", i8_512, 128},
    {"bf16", "avx512f avx512bf16", bf16_512, 64},
    {"f32", "avx512f", f32_512, 32},
    {"f32", "avx2 fma", f32_256, 16},
#endif
    {0}};

/* Operations/s of all threads with operands of `type`, the best of many tries; 0: there is no instruction for it. */
double bench_peak(meter *m, const char *type) {
  char missing[32];
  double best = 0;
  const peak *p = peaks;
  while (p->type && (strcmp(p->type, type) || !qn__cpu_has(p->needs, missing, sizeof missing))) p++;
  int threads = m->device->info.threads;
  for (double first = qn__now(), start = first; p->type && start < first + TRYING;) {
    start = qn__now();
    m->device->ops->share(m->device, p->entry, NULL, threads);
    double rate = (double)threads * ROUNDS * CHAINS * p->operations / (qn__now() - start);
    if (rate > best) best = rate;
  }
  return best;
}

/* Bytes of a struct of quernel.h that Python writes, too; 0 for others. */
size_t bench_size_of(const char *type) {
  static const struct {
    const char *type;
    size_t bytes;
  } known[] = {
      {"qn_planes", sizeof(qn_planes)}, {"qn_args", sizeof(qn_args)}, {"qn_open_options", sizeof(qn_open_options)}};
  for (size_t i = 0; i < QN_COUNT(known); i++)
    if (!strcmp(type, known[i].type)) return known[i].bytes;
  return 0;
}
