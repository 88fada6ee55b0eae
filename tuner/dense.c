/* dense.c - OpenBLAS by dlopen: present on most machines, needed on none. M = 1 is a matrix-vector product there. */
#include "dense.h"
#include "fail.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112 };

/* int is OpenBLAS's usual blasint; the 64-bit interface has other library names. */
#define FUNCTIONS(F)                                                                                                   \
  F(void, gemm, "cblas_sgemm",                                                                                         \
    (int order, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda, const float *b, int ldb,    \
     float beta, float *c, int ldc))                                                                                   \
  F(void, gemv, "cblas_sgemv",                                                                                         \
    (int order, int ta, int m, int n, float alpha, const float *a, int lda, const float *x, int incx, float beta,      \
     float *y, int incy))                                                                                              \
  F(void, set_threads, "openblas_set_num_threads", (int threads))                                                      \
  F(char *, config, "openblas_get_config", (void))

static const char *const libraries[] = {"libopenblas.so.0", "libopenblas.so", "libopenblasp.so.0"};

struct qn_dense {
  qn_meter *meter;
  qn_device *device;
  void *library;
#define F(type, member, symbol, parameters) type(*member) parameters;
  FUNCTIONS(F)
#undef F
  char name[96];
  /* the product under way */
  int n, k, m;
  int64_t copies, at;
  float *w, *x, *y;
};

static qn_status find_functions(qn_dense *d, const char *library) {
#define F(type, member, symbol, parameters)                                                                            \
  {                                                                                                                    \
    void *p = dlsym(d->library, symbol);                                                                               \
    if (!p) return qn__fail(QN_E_DEVICE, "%s has no function " symbol, library);                                       \
    memcpy(&d->member, &p, sizeof p);                                                                                  \
  }
  FUNCTIONS(F)
#undef F
  return QN_OK;
}

static qn_status load(qn_dense *d) {
  size_t i = 0;
  while (i < QN_COUNT(libraries) && !(d->library = dlopen(libraries[i], RTLD_NOW | RTLD_LOCAL))) i++;
  if (!d->library) return qn__fail(QN_E_DEVICE, "no OpenBLAS here: libopenblas.so.0 is not found");
  QN_TRY(find_functions(d, libraries[i]));
  d->set_threads(d->device->info.threads);
  char version[48] = "";
  sscanf(d->config(), "%*s %47s", version);
  snprintf(d->name, sizeof d->name, "OpenBLAS %s", version);
  return QN_OK;
}

qn_status qn__dense_new(qn_device *device, qn_meter *m, qn_dense **out) {
  qn_dense *d = *out = calloc(1, sizeof *d);
  if (!d) return qn__fail(QN_E_NOMEM, "dense product");
  d->device = device, d->meter = m;
  qn_status s =
      device->info.target[0] == 'h' ? load(d) : qn__fail(QN_E_DEVICE, "no dense library for %s", device->info.target);
  if (s) qn__dense_free(d), *out = NULL;
  return s;
}

void qn__dense_free(qn_dense *d) {
  if (!d) return;
  if (d->library) dlclose(d->library);
  free(d);
}

const char *qn__dense_name(const qn_dense *d) { return d->name; }

/* ---- Timing ------------------------------------------------------------------------------------------------------ */

static qn_status product(void *ud, int i, void *stream) {
  (void)i, (void)stream;
  qn_dense *d = ud;
  const float *w = d->w + (size_t)(d->at++ % d->copies) * (size_t)d->n * (size_t)d->k;
  if (d->m == 1) d->gemv(ROW_MAJOR, NO_TRANS, d->n, d->k, 1, w, d->k, d->x, 1, 0, d->y, 1);
  else d->gemm(ROW_MAJOR, NO_TRANS, TRANS, d->m, d->n, d->k, 1, d->x, d->k, w, d->k, 0, d->y, d->n);
  return QN_OK;
}

static qn_status make(qn_device *d, size_t count, float **out) {
  void *p;
  QN_TRY(d->ops->alloc(d, count * sizeof(float), &p));
  *out = p;
  for (size_t i = 0; i < count; i++) (*out)[i] = (float)(i % 1021) / 1021 - 0.5f; /* 1021 is prime: copies differ */
  return QN_OK;
}

static qn_status time_product(qn_dense *d, int reps, double *seconds) {
  size_t weight = (size_t)d->n * (size_t)d->k;
  QN_TRY(make(d->device, weight * (size_t)d->copies, &d->w));
  QN_TRY(make(d->device, (size_t)d->m * (size_t)d->k, &d->x));
  QN_TRY(make(d->device, (size_t)d->m * (size_t)d->n, &d->y));
  double one;
  for (int i = 0; i < 2; i++) QN_TRY(qn__meter_time(d->meter, product, d, 1, 1, &one, NULL)); /* the first warms up */
  int calls = one < 4e-4 ? (int)(4e-4 / one) : 1;
  return qn__meter_time(d->meter, product, d, calls, reps, seconds, NULL);
}

qn_status qn__dense_time(qn_dense *d, int64_t n, int64_t k, int64_t m, int reps, double *seconds) {
  size_t bytes = (size_t)n * (size_t)k * sizeof(float), cold = qn__meter_cold_bytes(d->meter);
  d->n = (int)n, d->k = (int)k, d->m = (int)m, d->at = 0;
  d->copies = bytes < cold / 2 ? (int64_t)((cold + bytes - 1) / bytes) : 2;
  qn_status s = time_product(d, reps, seconds);
  float **all[] = {&d->w, &d->x, &d->y};
  for (size_t i = 0; i < QN_COUNT(all); i++) {
    if (*all[i]) d->device->ops->free(d->device, *all[i]);
    *all[i] = NULL;
  }
  nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL); /* its threads spin for a while after a product */
  return s;
}
