/* dense.c - OpenBLAS and cuBLAS, found at run time, timed like our own kernels. */
#include "dense.h"
#include "blas.h"
#include "clock.h"
#include "fail.h"
#include "watch.h"
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- OpenBLAS ---------------------------------------------------------------------------------------------------- */

typedef struct openblas {
  const qn_blas *blas;
  const float *w, *x;
  float *y;
  int m, n, k, calls; /* calls of a sample: short ones are timed several at once */
  int64_t copies, next;
  const qn_device *d;
  qn_meter *meter;
} openblas;

static void openblas_call(openblas *b) {
  const float *w = b->w + b->next++ % b->copies * b->n * b->k;
  const int order = QN_BLAS_ROW_MAJOR, plain = QN_BLAS_NO_TRANSPOSE, turned = QN_BLAS_TRANSPOSE;
  if (b->m == 1) b->blas->sgemv(order, plain, b->n, b->k, 1, w, b->k, b->x, 1, 0, b->y, 1);
  else b->blas->sgemm(order, plain, turned, b->m, b->n, b->k, 1, b->x, b->k, w, b->k, 0, b->y, b->n);
}

static qn_status openblas_take(void *ud, qn_sample *out) {
  openblas *b = ud;
  qn__watch(b->d, b->m, b->n, b->k, (int64_t)b->n * b->k * 4, b->calls);
  out->bandwidth = qn__meter_bandwidth(b->meter);
  double start = qn__now();
  for (int c = 0; c < b->calls; c++) openblas_call(b);
  out->seconds = (qn__now() - start) / b->calls;
  return QN_OK;
}

static float *ramp(int64_t n, int period) {
  float *p = malloc((size_t)n * sizeof *p);
  const int middle = period / 2;
  for (int64_t i = 0; p && i < n; i++) p[i] = (float)(i % period - middle);
  return p;
}

static qn_status openblas_samples(openblas *b, qn_sample *samples, qn_sampling *how) {
  QN_TRY(openblas_take(b, samples)); /* it makes its threads */
  *how = qn__sampling_begin(qn__meter_sampler(b->meter), QN_DENSE_REPS);
  for (int i = 0; i < QN_DENSE_REPS; i++) QN_TRY(qn__sample(how, openblas_take, b, &samples[i]));
  return QN_OK;
}

qn_status qn__openblas_time(qn_meter *meter, const qn_device *d, int64_t cold, int64_t m, int64_t n, int64_t k,
                            qn_sample *samples, qn_sampling *how) {
  const int64_t work = m * n * k, least = 1 << 22;
  openblas b = {.m = (int)m, .n = (int)n, .k = (int)k, .copies = cold / (n * k * 4) + 2, .d = d, .meter = meter};
  b.calls = work < least ? (int)(least / work) + 1 : 1;
  QN_TRY(qn__blas(&b.blas));
  if (b.blas->set_threads) b.blas->set_threads(d->info.threads);
  float *w = ramp(n * k * b.copies, 251), *x = ramp(m * k, 13), *y = ramp(m * n, 2);
  b.w = w, b.x = x, b.y = y;
  qn_status s = w && x && y ? QN_OK : qn__fail(QN_E_NOMEM, "no memory for the dense product");
  if (s == QN_OK) s = openblas_samples(&b, samples, how);
  free(w), free(x), free(y);
  return s;
}

/* ---- cuBLAS: enum values of cublas_api.h and library_types.h ----------------------------------------------------- */

enum { op_n = 0, op_t = 1, real_16f = 2, compute_32f = 68, default_algorithm = -1 };

typedef struct cublas {
  int (*create)(void **handle);
  int (*destroy)(void *handle);
  int (*set_stream)(void *handle, void *stream);
  int (*gemm)(void *handle, int transa, int transb, int m, int n, int k, const void *alpha, const void *a, int atype,
              int lda, const void *b, int btype, int ldb, const void *beta, void *c, int ctype, int ldc, int compute,
              int algorithm);
  void *handle;
  char *w;
  void *x, *y;
  int m, n, k;
  int64_t copies; /* of w, taken in turn */
} cublas;

/* A wheel's libcublas does not say where its libcublasLt is: beside it. */
static void cublaslt_load(const char *beside) {
  char path[PATH_MAX];
  const char *slash = strrchr(beside, '/'), *version = strstr(beside, ".so");
  if (slash && version && snprintf(path, sizeof path, "%.*s/libcublasLt%s", (int)(slash - beside), beside, version) > 0)
    dlopen(path, RTLD_NOW | RTLD_GLOBAL);
}

static qn_status cublas_load(cublas *b) {
  const char *const names[] = {getenv("QUERNEL_CUBLAS"), "libcublas.so.13", "libcublas.so.12", "libcublas.so.11"};
  void *lib = NULL;
  if (names[0]) cublaslt_load(names[0]);
  for (size_t i = 0; !lib && i < QN_COUNT(names); i++) lib = names[i] ? dlopen(names[i], RTLD_NOW | RTLD_LOCAL) : NULL;
  if (!lib) return qn__fail(QN_E_DEVICE, "no libcublas.so.13, .12 or .11; set QUERNEL_CUBLAS");
  *(void **)&b->create = dlsym(lib, "cublasCreate_v2");
  *(void **)&b->destroy = dlsym(lib, "cublasDestroy_v2");
  *(void **)&b->set_stream = dlsym(lib, "cublasSetStream_v2");
  *(void **)&b->gemm = dlsym(lib, "cublasGemmEx");
  return b->create && b->destroy && b->set_stream && b->gemm ? QN_OK
                                                             : qn__fail(QN_E_DEVICE, "cuBLAS has no cublasGemmEx");
}

/* cuBLAS counts columns first: its A is W[n,k] transposed, its B is X, its C is Y. The handle is made by the first
 * call, which is not captured and finds the device's context current. */
static qn_status cublas_enqueue(void *ud, int i, void *stream) {
  cublas *b = ud;
  const float one = 1, zero = 0;
  int error = b->handle ? 0 : b->create(&b->handle);
  if (!error) error = b->set_stream(b->handle, stream);
  if (!error)
    error = b->gemm(b->handle, op_t, op_n, b->n, b->m, b->k, &one, b->w + i % b->copies * b->n * b->k * 2, real_16f,
                    b->k, b->x, real_16f, b->k, &zero, b->y, real_16f, b->n, compute_32f, default_algorithm);
  return error ? qn__fail(QN_E_CUDA, "cuBLAS: status %d", error) : QN_OK;
}

/* f16 numbers from 1/2 to 1, of either sign. */
static qn_status fill(qn_device *d, int64_t n, int64_t copies, void **out) {
  size_t bytes = (size_t)n * 2;
  uint16_t *host = malloc(bytes);
  qn_status s =
      host ? d->ops->alloc(d, bytes * (size_t)copies, out) : qn__fail(QN_E_NOMEM, "no memory for the dense product");
  for (int64_t i = 0; !s && i < n; i++) host[i] = (uint16_t)(0x3800 | (i * 40503 & 0x83ff));
  for (int64_t i = 0; !s && i < copies; i++) s = d->ops->upload(d, (char *)*out + (size_t)i * bytes, host, bytes);
  free(host);
  return s;
}

qn_status qn__cublas_time(qn_cuda_timer *clock, qn_device *d, int64_t cold, int64_t m, int64_t n, int64_t k,
                          double seconds[QN_DENSE_REPS]) {
  cublas b = {.m = (int)m, .n = (int)n, .k = (int)k, .copies = cold / (n * k * 2) + 2};
  double once;
  void *w = NULL;
  if (b.copies > QN_CUDA_CALLS) b.copies = QN_CUDA_CALLS;
  QN_TRY(cublas_load(&b));
  qn_status s = fill(d, n * k, b.copies, &w);
  if (!s) s = fill(d, m * k, 1, &b.x);
  if (!s) s = fill(d, m * n, 1, &b.y);
  b.w = w;
  qn__watch(d, m, n, k, n * k * 2, QN_CUDA_CALLS * (QN_DENSE_REPS + 2));
  if (!s) s = qn__cuda_time(clock, false, cublas_enqueue, &b, 1, 1, &once);
  if (!s) s = qn__cuda_time(clock, true, cublas_enqueue, &b, QN_CUDA_CALLS, QN_DENSE_REPS, seconds);
  if (b.handle) b.destroy(b.handle);
  void *const all[] = {w, b.x, b.y};
  for (size_t i = 0; i < QN_COUNT(all); i++)
    if (all[i]) d->ops->free(d, all[i]);
  return s;
}
