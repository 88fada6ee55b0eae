/* vectors.h - what a GPU answered: files ARCH.vectors of a folder, one for each architecture that recorded.
 *
 *     "quernel conformance 1 ARCH PRODUCT, driver VERSION, DATE\n", then for each form
 *     "NAME\n", u32 words of x, u32 words of y, x, y (little-endian) */
#ifndef QN_VECTORS_H
#define QN_VECTORS_H
#include "device.h"
#include "forms.h"
#include <stdio.h>

typedef struct vector {
  char *name, *arch;
  uint32_t nx, ny, *x, *y;
} vector;

typedef struct vectors {
  vector *list;
  size_t n;
} vectors;

/* All vectors of a folder that were recorded on architecture `sm` (0: on any). A folder without any is no error. */
qn_status vectors_read(const char *folder, int sm, vectors *out);
const vector *vectors_find(const vectors *v, const char *name); /* NULL: none */
void vectors_free(vectors *v);

/* Begin the file of this device; append a form to it. */
qn_status vectors_create(const char *folder, const qn_device_info *info, FILE **out);
qn_status vectors_append(FILE *f, const form *of, const uint32_t *x, const uint32_t *y);
#endif
