/* io_fit.c - see io_fit.h. */
#include "io_fit.h"
#include "model.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Give the tensor its place at `at`. Returns its bytes. */
static size_t place(cJSON *tensor, size_t at) {
  const cJSON *shape = cJSON_GetObjectItemCaseSensitive(tensor, "shape"), *d;
  const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(tensor, "dtype"));
  const qn__dtype *type = name ? qn__safetensors_dtype(name, strlen(name)) : NULL;
  int64_t dim[QN_MAX_DIMS];
  int n = 0;
  uint64_t bytes;
  cJSON_ArrayForEach(d, shape)
    if (n < QN_MAX_DIMS) dim[n++] = d->valuedouble >= 0 && d->valuedouble < 0x1p62 ? (int64_t)d->valuedouble : 0;
  if (!type || !qn__dtype_bytes(type, dim, n, &bytes) || bytes > 1 << 16) return 0;
  cJSON_DeleteItemFromObjectCaseSensitive(tensor, "data_offsets");
  cJSON_AddItemToObject(tensor, "data_offsets",
                        cJSON_CreateDoubleArray((double[]){(double)at, (double)(at + bytes)}, 2));
  return bytes;
}

void io_fit(const char *path, cJSON *header, const uint8_t *data, size_t bytes) {
  size_t at = 0;
  cJSON *tensor;
  cJSON_ArrayForEach(tensor, header) at += place(tensor, at);
  char *json = header ? cJSON_PrintUnformatted(header) : NULL;
  uint64_t length = json ? strlen(json) : 0;
  FILE *f = fopen(path, "wb");
  if (!f) perror(path), exit(2);
  fwrite(&length, 8, 1, f);
  fwrite(json, 1, length, f);
  for (size_t i = 0; i < at; i++) fputc(bytes ? data[i % bytes] : 0, f);
  fclose(f);
  free(json);
}
