/* blas.c - see blas.h. */
#include "blas.h"
#include "fail.h"
#include <dlfcn.h>
#include <pthread.h>

static const char name[] = "libopenblas.so.0";
/* Of the process, as a library is: loaded once. */
static void *library;
static qn_blas found;

static void look(void) {
  library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (!library) return;
  *(void **)&found.set_threads = dlsym(library, "openblas_set_num_threads");
  *(void **)&found.sgemm = dlsym(library, "cblas_sgemm");
  *(void **)&found.sgemv = dlsym(library, "cblas_sgemv");
}

qn_status qn__blas(const qn_blas **out) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, look);
  *out = NULL;
  if (!library) return qn__fail(QN_E_DEVICE, "OpenBLAS (%s) is not installed", name);
  if (!found.sgemm || !found.sgemv) return qn__fail(QN_E_DEVICE, "%s has no cblas_sgemm or cblas_sgemv", name);
  *out = &found;
  return QN_OK;
}
