/* elf_image.h - what the generator reads from compiled images: host shared objects and cubins are both ELF64. */
#ifndef QN_ELF_IMAGE_H
#define QN_ELF_IMAGE_H
#include "quernel.h"

/* Fails with QN_E_COMPILE, naming the first symbol that the image expects from elsewhere. */
qn_status qn__elf_no_undefined(const void *image, size_t size, const char *name);

/* Resources of a cubin, the largest over its kernels: registers a thread, bytes of stack frame, static shared
 * memory. */
typedef struct qn_cubin_info {
  int kernels, registers, frame, shared;
} qn_cubin_info;
qn_status qn__cubin_info(const void *image, size_t size, qn_cubin_info *out);
#endif
