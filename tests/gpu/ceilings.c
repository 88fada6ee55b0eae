/* ceilings.c - what a GPU can do at most, measured as the tuner measures: cold data, graphs, medians.
 *
 *     ceilings [--device cuda:0] [--source ceilings.cu] [-o FILE.csv]
 *
 * A copy, a pure read of as many bytes as a weight has, an empty kernel, and dense f16 products by cuBLAS, if that is
 * there ($QUERNEL_CUBLAS, else the loader's). First every kernel's result is checked; on a device that must not be
 * timed (the interpreter) that is all. The file: "what,n,k,m,bytes,us,rate,unit". */
#include "compile.h"
#include "dense.h"
#include "driver.h"
#include "fail.h"
#include "stats.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { UNIT = 16, THREADS = 256, REPS = 31 };

typedef struct bench {
  qn_device *device;
  qn_module *module;
  qn_cuda_timer *timer;
  FILE *out;
} bench;

/* ---- Launching --------------------------------------------------------------------------------------------------- */

typedef struct kernel {
  bench *b;
  qn_step step;
  qn_launch launch;
  qn_host_args args;
  void *x[QN_CUDA_CALLS]; /* cold copies, taken in turn; none: args.x */
  int copies;
} kernel;

static qn_status kernel_open(bench *b, const char *name, int n_args, const uint8_t *args, kernel *out) {
  *out = (kernel){.b = b, .step = {.n_args = (uint32_t)n_args}};
  snprintf(out->step.entry, sizeof out->step.entry, "%s", name);
  memcpy(out->step.arg, args, (size_t)n_args);
  out->launch = (qn_launch){.grid = {8 * b->device->info.sms, 1, 1}, .block = {THREADS, 1, 1}, .cluster = {1, 1, 1}};
  return b->device->ops->entry(b->device, b->module, name, 0, &out->launch.fn);
}

static int64_t warps(const kernel *k) { return k->launch.grid[0] * THREADS / 32; }

static qn_status enqueue(void *ud, int i, void *stream) {
  kernel *k = ud;
  qn_host_args a = k->args;
  if (k->copies) a.x = k->x[i % k->copies];
  k->launch.step = &k->step;
  return k->b->device->ops->launch(k->b->device, &k->launch, &a, stream);
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Median seconds of a call. */
static qn_status median(bench *b, bool graph, qn_cuda_enqueue call, void *ud, double *seconds) {
  double t[REPS];
  QN_TRY(qn__cuda_time(b->timer, graph, call, ud, QN_CUDA_CALLS, REPS, t));
  qsort(t, REPS, sizeof *t, by_value);
  *seconds = t[REPS / 2];
  return QN_OK;
}

static void row(bench *b, const char *what, const int64_t shape[3], double bytes, double seconds, double rate,
                const char *unit) {
  static const int64_t none[3];
  const int64_t *s = shape ? shape : none;
  fprintf(b->out, "%s,%lld,%lld,%lld,%.0f,%.3f,%.1f,%s\n", what, (long long)s[0], (long long)s[1], (long long)s[2],
          bytes, seconds * 1e6, rate, unit);
  fflush(b->out);
}

static qn_status random_buffer(bench *b, size_t bytes, int seed, void **p) {
  kernel k;
  QN_TRY(b->device->ops->alloc(b->device, bytes, p));
  QN_TRY(kernel_open(b, "fill", 3, (const uint8_t[]){QN_ARG_Y, QN_ARG_N, QN_ARG_M}, &k));
  k.args = (qn_host_args){.y = *p, .n = (int64_t)(bytes / 4), .m = seed};
  QN_TRY(enqueue(&k, 0, NULL));
  return b->device->ops->sync(b->device, NULL);
}

static const uint8_t copy_args[] = {QN_ARG_X, QN_ARG_Y, QN_ARG_N};

/* ---- Are they right? --------------------------------------------------------------------------------------------- */

static qn_status check(bench *b) {
  enum { units = 5003, bytes = units * UNIT };
  static uint32_t x[bytes / 4], y[bytes / 4];
  uint32_t sum = 0, got = 0, zeros = 0;
  const qn_device_ops *ops = b->device->ops;
  void *from, *to;
  kernel empty, copy, stream; /* of few blocks: stream has fewer warps than y has words */
  QN_TRY(kernel_open(b, "empty", 0, NULL, &empty));
  QN_TRY(kernel_open(b, "copy", 3, copy_args, &copy));
  QN_TRY(kernel_open(b, "stream", 3, copy_args, &stream));
  QN_TRY(random_buffer(b, bytes, 1, &from));
  QN_TRY(ops->alloc(b->device, bytes, &to));
  copy.launch.grid[0] = stream.launch.grid[0] = 4;
  copy.args = stream.args = (qn_host_args){.x = from, .y = to, .n = units};
  QN_TRY(enqueue(&empty, 0, NULL));
  QN_TRY(enqueue(&copy, 0, NULL));
  QN_TRY(ops->sync(b->device, NULL));
  QN_TRY(ops->download(b->device, x, from, bytes));
  QN_TRY(ops->download(b->device, y, to, bytes));
  if (memcmp(x, y, bytes)) return qn__fail(QN_E_WRONG, "copy: what arrives is not what was there");
  for (size_t i = 0; i < QN_COUNT(x); i++) sum ^= x[i], zeros += !x[i];
  if (zeros) return qn__fail(QN_E_WRONG, "fill: %u words are zero", zeros);
  QN_TRY(enqueue(&stream, 0, NULL));
  QN_TRY(ops->sync(b->device, NULL));
  QN_TRY(ops->download(b->device, y, to, bytes));
  for (int64_t i = 0; i < warps(&stream); i++) got ^= y[i];
  ops->free(b->device, from), ops->free(b->device, to);
  return got == sum ? QN_OK : qn__fail(QN_E_WRONG, "stream: %08x, not %08x", got, sum);
}

/* ---- Launch, copy, stream ---------------------------------------------------------------------------------------- */

static qn_status time_launch(bench *b) {
  kernel empty;
  double seconds;
  QN_TRY(kernel_open(b, "empty", 0, NULL, &empty));
  empty.launch.grid[0] = 1;
  for (int graph = 0; graph < 2; graph++) {
    QN_TRY(median(b, graph, enqueue, &empty, &seconds));
    row(b, graph ? "empty kernel in a graph" : "empty kernel", NULL, 0, seconds, seconds * 1e6, "us");
  }
  return QN_OK;
}

/* One GiB to another, or half of that where memory is short. Counted: bytes read and bytes written. */
static qn_status time_copy(bench *b) {
  const qn_device_ops *ops = b->device->ops;
  void *x = NULL, *y = NULL;
  kernel k;
  double seconds;
  size_t bytes = (size_t)1 << 30;
  while (random_buffer(b, bytes, 1, &x) || ops->alloc(b->device, bytes, &y)) {
    ops->free(b->device, x), x = NULL;
    if ((bytes /= 2) < (size_t)64 << 20) return qn__fail(QN_E_NOMEM, "copy: no room for two buffers");
  }
  QN_TRY(kernel_open(b, "copy", 3, copy_args, &k));
  k.args = (qn_host_args){.x = x, .y = y, .n = (int64_t)(bytes / UNIT)};
  QN_TRY(median(b, true, enqueue, &k, &seconds));
  row(b, "copy", NULL, 2.0 * (double)bytes, seconds, 2e-9 * (double)bytes / seconds, "GB/s");
  ops->free(b->device, x), ops->free(b->device, y);
  return QN_OK;
}

/* Copies that together are four times the L2 cache; at least three. */
static int cold_copies(const bench *b, size_t bytes) {
  int64_t n = 4 * b->device->info.cache[1] / (int64_t)bytes + 3;
  return n < QN_CUDA_CALLS ? (int)n : QN_CUDA_CALLS;
}
static qn_status open_copies(bench *b, size_t bytes, int n, void **x) {
  for (int i = 0; i < n; i++) QN_TRY(random_buffer(b, bytes, i + 1, &x[i]));
  return QN_OK;
}
static void free_copies(bench *b, int n, void **x) {
  for (int i = 0; i < n; i++) b->device->ops->free(b->device, x[i]);
}

static qn_status time_stream(bench *b, const char *what, const int64_t shape[3], size_t bytes) {
  kernel k;
  double seconds;
  void *y;
  QN_TRY(kernel_open(b, "stream", 3, copy_args, &k));
  QN_TRY(b->device->ops->alloc(b->device, 4 * (size_t)warps(&k), &y));
  k.copies = cold_copies(b, bytes);
  k.args = (qn_host_args){.y = y, .n = (int64_t)(bytes / UNIT)};
  QN_TRY(open_copies(b, bytes, k.copies, k.x));
  QN_TRY(median(b, true, enqueue, &k, &seconds));
  row(b, what, shape, (double)bytes, seconds, 1e-9 * (double)bytes / seconds, "GB/s");
  free_copies(b, k.copies, k.x);
  b->device->ops->free(b->device, y);
  return QN_OK;
}

/* ---- cuBLAS ------------------------------------------------------------------------------------------------------ */

/* Y[m,n] = X[m,k] W[n,k]^T in f16 with f32 sums. */
static qn_status time_dense(bench *b, const char *what, int64_t n, int64_t k, int64_t m) {
  double each[QN_DENSE_REPS];
  QN_TRY(qn__cublas_time(b->timer, b->device, 4 * b->device->info.cache[1], m, n, k, each));
  const double seconds = qn__median(each, QN_DENSE_REPS);
  row(b, what, (const int64_t[]){n, k, m}, 2.0 * (double)(n * k), seconds, 2e-12 * (double)(n * k * m) / seconds,
      "TFLOP/s");
  return QN_OK;
}

/* ---- All of it --------------------------------------------------------------------------------------------------- */

/* What is asked first comes first: time may be short. */
static const int64_t sizes[] = {8192, 4096}, tokens[] = {1, 16, 64, 256, 2048};

static qn_status time_streams(bench *b) {
  static const struct {
    const char *what;
    double bits;
  } weights[] = {{"stream of int4.g128", 4.125}, {"stream of int8.g128", 8.125}, {"stream of f16", 16}};
  for (size_t i = 0; i < QN_COUNT(sizes); i++)
    for (size_t j = 0; j < QN_COUNT(weights); j++) {
      int64_t shape[3] = {sizes[i], sizes[i]};
      QN_TRY(time_stream(b, weights[j].what, shape, (size_t)(weights[j].bits / 8 * (double)(sizes[i] * sizes[i]))));
    }
  return time_stream(b, "stream of 256 MiB", NULL, (size_t)256 << 20);
}

static qn_status time_cublas(bench *b) {
  QN_TRY(time_dense(b, "dense rate", 8192, 8192, 8192));
  for (size_t i = 0; i < QN_COUNT(sizes); i++)
    for (size_t j = 0; j < QN_COUNT(tokens); j++) QN_TRY(time_dense(b, "cublas", sizes[i], sizes[i], tokens[j]));
  return QN_OK;
}

static qn_status load(bench *b, const char *path) {
  char *text = NULL;
  size_t room = 0;
  FILE *f = fopen(path, "r");
  if (!f) return qn__fail(QN_E_IO, "%s cannot be read", path);
  ssize_t n = getdelim(&text, &room, 0, f);
  fclose(f);
  qn_artifact a = {0};
  qn_source source = {.name = path, .target = "cuda", .arch = b->device->info.arch, .text = text};
  qn_status s = n > 0 ? qn__compile(&source, &a) : qn__fail(QN_E_IO, "%s is empty", path);
  if (!s) s = b->device->ops->module_load(b->device, a.image, a.size, &b->module);
  qn__artifact_free(&a);
  free(text);
  return s;
}

static qn_status run(bench *b, const char *device, const char *source) {
  QN_TRY(qn__device_open(NULL, device, &b->device));
  if (strcmp(b->device->info.target, "cuda")) return qn__fail(QN_E_ARG, "%s is no CUDA device", device);
  QN_TRY(load(b, source));
  QN_TRY(check(b));
  if (!b->device->info.timed) return printf("%s: results are right; it must not be timed\n", device), QN_OK;
  fprintf(b->out, "what,n,k,m,bytes,us,rate,unit\n");
  QN_TRY(qn__cuda_timer_new(b->device, &b->timer));
  QN_TRY(time_launch(b));
  QN_TRY(time_copy(b));
  QN_TRY(time_streams(b));
  qn_status s = time_cublas(b);
  if (s == QN_E_DEVICE) return printf("cuBLAS: %s\n", qn__errmsg()), QN_OK; /* not here */
  return s;
}

int main(int argc, char **argv) {
  const char *device = "cuda:0", *source = QN_TESTS "/gpu/ceilings.cu", *out = NULL;
  bench b = {.out = stdout};
  for (int i = 1; i < argc; i += 2) {
    const char **value = !strcmp(argv[i], "--device")   ? &device
                         : !strcmp(argv[i], "--source") ? &source
                         : !strcmp(argv[i], "-o")       ? &out
                                                        : NULL;
    if (!value || i + 1 == argc) {
      fprintf(stderr, "usage: ceilings [--device D] [--source FILE.cu] [-o FILE.csv]\n");
      return 2;
    }
    *value = argv[i + 1];
  }
  if (out && !(b.out = fopen(out, "w"))) {
    fprintf(stderr, "ceilings: %s cannot be written\n", out);
    return 1;
  }
  qn__device_provide("emu:", qn__emu_device_open);
  qn_status s = run(&b, device, source);
  if (s) fprintf(stderr, "ceilings: %s\n", qn__errmsg());
  qn__cuda_timer_free(b.timer);
  if (b.module) b.device->ops->module_free(b.device, b.module);
  qn__device_close(b.device);
  if (out) fclose(b.out);
  return s != QN_OK;
}
