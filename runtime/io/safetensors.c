/* safetensors.c - the container: u64 length, a JSON header of that length, tensors back to back.
 * Source: the safetensors format description; its reader's limits (100 MB of header, no holes, no overlaps) are kept.
 */
#include "model.h"
#include <stdlib.h>
#include <string.h>

enum { header_limit = 100000000 };

typedef struct span {
  uint64_t begin, end;
} span;

static int by_begin(const void *a, const void *b) {
  const span *x = a, *y = b;
  if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
  return x->end < y->end ? -1 : x->end > y->end;
}

/* A whole number of JSON as int64; -1 for anything else. */
static int64_t whole(const cJSON *j) {
  double x = cJSON_IsNumber(j) ? j->valuedouble : -1;
  return x >= 0 && x <= 9007199254740992.0 && x == (double)(int64_t)x ? (int64_t)x : -1;
}

static qn_status add(qn_model *m, const qn__map *f, const cJSON *j, const uint8_t *data, uint64_t size, span *out) {
  const char *dtype = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, "dtype"));
  const cJSON *shape = cJSON_GetObjectItemCaseSensitive(j, "shape"), *d;
  const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(j, "data_offsets");
  const qn__dtype *t = dtype ? qn__safetensors_dtype(dtype, strlen(dtype)) : NULL;
  if (!t) return qn__fail(QN_E_FORMAT, "%s: tensor %s: unknown dtype \"%s\"", f->path, j->string, dtype ? dtype : "");
  int64_t dim[QN_MAX_DIMS], begin = whole(cJSON_GetArrayItem(offsets, 0)), end = whole(cJSON_GetArrayItem(offsets, 1));
  int n = 0;
  if (!cJSON_IsArray(shape) || cJSON_GetArraySize(shape) > QN_MAX_DIMS)
    return qn__fail(QN_E_FORMAT, "%s: tensor %s: shape is missing or has over %d dimensions", f->path, j->string,
                    QN_MAX_DIMS);
  cJSON_ArrayForEach(d, shape) dim[n++] = whole(d);
  uint64_t bytes;
  if (!qn__dtype_bytes(t, dim, n, &bytes))
    return qn__fail(QN_E_FORMAT, "%s: tensor %s: shape is no list of sizes, or overflows", f->path, j->string);
  if (begin < 0 || end < begin || (uint64_t)end > size)
    return qn__fail(QN_E_FORMAT,
                    "%s: tensor %s: data_offsets %lld .. %lld are outside the %llu bytes of data (truncated file?)",
                    f->path, j->string, (long long)begin, (long long)end, (unsigned long long)size);
  if ((uint64_t)(end - begin) != bytes)
    return qn__fail(QN_E_FORMAT, "%s: tensor %s: %lld bytes of data for a shape of %llu", f->path, j->string,
                    (long long)(end - begin), (unsigned long long)bytes);
  *out = (span){(uint64_t)begin, (uint64_t)end};
  return qn__model_store(m, j->string, strlen(j->string), t, dim, n, data + begin, (size_t)bytes);
}

/* Tensors must tile the data: no hole, no overlap. */
static qn_status check_tiling(const qn__map *f, span *s, size_t n, uint64_t size) {
  uint64_t at = 0;
  qsort(s, n, sizeof *s, by_begin);
  for (size_t i = 0; i < n; at = s[i++].end)
    if (s[i].begin != at)
      return qn__fail(QN_E_FORMAT, "%s: data has a %s at byte %llu", f->path, s[i].begin > at ? "hole" : "overlap",
                      (unsigned long long)at);
  return at == size
             ? QN_OK
             : qn__fail(QN_E_FORMAT, "%s: %llu bytes follow the last tensor", f->path, (unsigned long long)(size - at));
}

qn_status qn__safetensors_read(qn_model *m, const qn__map *f) {
  if (f->bytes < 8) return qn__fail(QN_E_FORMAT, "%s: %zu bytes are no safetensors file", f->path, f->bytes);
  uint64_t length = qn__le64(f->data);
  if (length > header_limit || length > f->bytes - 8 || length < 2 || f->data[8] != '{')
    return qn__fail(QN_E_FORMAT, "%s: header of %llu bytes in a file of %zu (no safetensors file, or truncated)",
                    f->path, (unsigned long long)length, f->bytes);
  cJSON *header = cJSON_ParseWithLength((const char *)f->data + 8, length), *j;
  int count = cJSON_IsObject(header) ? cJSON_GetArraySize(header) : 0;
  span *spans = calloc((size_t)count + 1, sizeof *spans);
  qn_status s = !header  ? qn__fail(QN_E_FORMAT, "%s: the header is no JSON", f->path)
                : !spans ? qn__fail(QN_E_NOMEM, "no memory for %d tensors", count)
                         : QN_OK;
  size_t n = 0;
  const uint8_t *data = f->data + 8 + length;
  uint64_t size = f->bytes - 8 - length;
  if (s == QN_OK) cJSON_ArrayForEach(j, header) {
      if (!strcmp(j->string, "__metadata__")) continue;
      if ((s = add(m, f, j, data, size, &spans[n++])) != QN_OK) break;
    }
  if (s == QN_OK) s = check_tiling(f, spans, n, size);
  free(spans);
  cJSON_Delete(header);
  return s;
}
