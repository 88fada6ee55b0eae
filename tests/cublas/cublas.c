/* cublas.c - an invented libcublas that counts its products. It needs its libcublasLt and does not say where that is,
 * as the library of NVIDIA's wheels. */
#include <stddef.h>
#include <stdint.h>

int cublaslt(void);
int cublasCreate_v2(void **handle);
int cublasDestroy_v2(void *handle);
int cublasSetStream_v2(void *handle, void *stream);
int cublasGemmEx(void *handle, int transa, int transb, int m, int n, int k, const void *alpha, const void *a, int atype,
                 int lda, const void *b, int btype, int ldb, const void *beta, void *c, int ctype, int ldc, int compute,
                 int algorithm);

__attribute__((visibility("default"))) int calls, ends; /* products; the greatest distance of a weight, in weights */
static const char *first;

__attribute__((visibility("default"))) int cublasCreate_v2(void **handle) { return *handle = &calls, cublaslt(); }
__attribute__((visibility("default"))) int cublasDestroy_v2(void *handle) { return handle != &calls; }
__attribute__((visibility("default"))) int cublasSetStream_v2(void *handle, void *stream) {
  return handle != &calls || !stream;
}
__attribute__((visibility("default"))) int cublasGemmEx(void *handle, int transa, int transb, int m, int n, int k,
                                                        const void *alpha, const void *a, int atype, int lda,
                                                        const void *b, int btype, int ldb, const void *beta, void *c,
                                                        int ctype, int ldc, int compute, int algorithm) {
  (void)alpha, (void)atype, (void)lda, (void)b, (void)btype, (void)ldb, (void)beta, (void)c, (void)ctype, (void)ldc;
  (void)n, (void)compute, (void)algorithm;
  if (!first) first = a;
  int at = (int)(((const char *)a - first) / (2 * (ptrdiff_t)m * k));
  if (at > ends) ends = at;
  return calls++, handle != &calls || transa != 1 || transb != 0;
}
