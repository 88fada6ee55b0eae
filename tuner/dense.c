/* dense.c - OpenBLAS, found at run time, timed like our own kernels. */
#include "dense.h"
#include "fail.h"
#include <dlfcn.h>
#include <stdlib.h>

enum { row_major = 101, no_transpose = 111, transpose = 112, reps = 9 };
typedef void (*sgemm_fn)(int, int, int, int, int, int, float, const float *, int, const float *, int, float, float *,
                         int);
typedef void (*sgemv_fn)(int, int, int, int, float, const float *, int, const float *, int, float, float *, int);

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

qn_status qn__blas_time(qn_meter *meter, int threads, int64_t cold, int64_t m, int64_t n, int64_t k, double *seconds) {
  void *lib = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
  if (!lib) return qn__fail(QN_E_DEVICE, "OpenBLAS (libopenblas.so.0) is not installed");
  void (*set_threads)(int);
  sgemm_fn sgemm;
  sgemv_fn sgemv;
  *(void **)&set_threads = dlsym(lib, "openblas_set_num_threads");
  *(void **)&sgemm = dlsym(lib, "cblas_sgemm");
  *(void **)&sgemv = dlsym(lib, "cblas_sgemv");
  if (!sgemm || !sgemv) return qn__fail(QN_E_DEVICE, "libopenblas.so.0 lacks cblas_sgemm or cblas_sgemv");
  if (set_threads) set_threads(threads);

  int64_t size = n * k, copies = cold / (size * 4) + 2;
  float *w = malloc((size_t)(size * copies) * sizeof *w), *x = malloc((size_t)(m * k) * sizeof *x),
        *y = malloc((size_t)(m * n) * sizeof *y);
  qn_status s = w && x && y ? QN_OK : qn__fail(QN_E_NOMEM, "no memory for the dense product");
  double t[reps];
  for (int64_t i = 0; s == QN_OK && i < size * copies; i++) w[i] = (float)(i % 251) - 125;
  for (int64_t i = 0; s == QN_OK && i < m * k; i++) x[i] = (float)(i % 13) - 6;
  for (int i = -1, tries = 0; s == QN_OK && i < reps; tries++) {
    bool quiet = qn__meter_quiet(meter);
    int calls = m * size < 1 << 22 ? (int)((1 << 22) / (m * size)) + 1 : 1;
    double start = qn__now();
    for (int c = 0; c < calls; c++) {
      const float *a = w + (tries * calls + c) % copies * size;
      if (m == 1) sgemv(row_major, no_transpose, (int)n, (int)k, 1, a, (int)k, x, 1, 0, y, 1);
      else sgemm(row_major, no_transpose, transpose, (int)m, (int)n, (int)k, 1, x, (int)k, a, (int)k, 0, y, (int)n);
    }
    double each = (qn__now() - start) / calls;
    quiet = quiet && qn__meter_quiet(meter);
    if (!quiet && tries < 6 * reps) continue;
    if (i >= 0) t[i] = each; /* the first only warms up */
    i++;
  }
  if (s == QN_OK) {
    qsort(t, reps, sizeof *t, ascending);
    *seconds = t[reps / 2];
  }
  free(w);
  free(x);
  free(y);
  return s; /* the library stays: its threads do not survive being unloaded */
}
