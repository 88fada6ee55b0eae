/* artifact.h - a compiled variant: the generator's compilers make it, the store keeps it. */
#ifndef QN_ARTIFACT_H
#define QN_ARTIFACT_H
#include <stddef.h>

typedef struct qn_artifact {
  char hash[33];        /* XXH3-128 of the image, hexadecimal */
  unsigned char *image; /* host: position-independent ELF shared object without undefined symbols; CUDA: cubin, or PTX
                           with its zero byte */
  size_t size;
  char *ptx;      /* beside a cubin, the PTX that it was made of; else NULL */
  int registers;  /* CUDA: per thread, the largest of its kernels; host and PTX: 0 */
  int shared;     /* CUDA: static shared memory, bytes */
  int spills;     /* CUDA: bytes of spill stores and loads, frame included; host and PTX: 0 */
  double seconds; /* of compiling */
  char *log;      /* compiler's messages; "" if none */
} qn_artifact;

/* Free what an artifact holds and make it empty. NULL is accepted. */
void qn__artifact_free(qn_artifact *a);
#endif
