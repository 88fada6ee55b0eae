/* fuzz_model.c - libFuzzer target for the checkpoint readers (clang, cmake -DQUERNEL_FUZZ=ON
 * -DQUERNEL_SANITIZE=address,undefined).
 *
 * tests/fuzz runs it, from a corpus that test_io_damage --seeds DIR writes. Input: a .gguf; or u16 length, that much config.json, and a
 * .safetensors. With the top bit of the length set the latter is a header, a zero byte and some data instead: lengths
 * and offsets are made to fit, so that shapes and types can go wrong one at a time, and dialects get to see them. */
#include "io_touch.h"
#include "model.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static char folder[64], model[64], config[64];

static void spill(const char *path, const uint8_t *from, size_t n) {
  FILE *f = fopen(path, "wb");
  if (!f || fwrite(from, 1, n, f) != n || fclose(f)) perror(path), exit(2);
}

/* Give the tensor its place at `at`. Returns its bytes, 0 if it has no sensible type and shape. */
static size_t place(cJSON *tensor, size_t at) {
  const cJSON *shape = cJSON_GetObjectItemCaseSensitive(tensor, "shape"), *d;
  const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(tensor, "dtype"));
  const qn__dtype *type = name ? qn__safetensors_dtype(name, strlen(name)) : NULL;
  int64_t dim[QN_MAX_DIMS];
  int n = 0;
  uint64_t bytes;
  cJSON_ArrayForEach(d, shape) if (n < QN_MAX_DIMS) dim[n++] = d->valueint < 0 ? 0 : d->valueint;
  if (!type || !qn__dtype_bytes(type, dim, n, &bytes) || bytes > 1 << 16) return 0;
  cJSON_DeleteItemFromObjectCaseSensitive(tensor, "data_offsets");
  cJSON_AddItemToObject(tensor, "data_offsets",
                        cJSON_CreateDoubleArray((double[]){(double)at, (double)(at + bytes)}, 2));
  return bytes;
}

/* A file with this header, in which the data is repeated as often as it takes. */
static void spill_fitted(const uint8_t *from, size_t n) {
  size_t text = strnlen((const char *)from, n), at = 0, have = text + 1 < n ? n - text - 1 : 0;
  cJSON *header = cJSON_ParseWithLength((const char *)from, text), *tensor;
  cJSON_ArrayForEach(tensor, header) at += place(tensor, at);
  char *json = header ? cJSON_PrintUnformatted(header) : NULL;
  uint64_t length = json ? strlen(json) : 0;
  FILE *f = fopen(model, "wb");
  if (!f) perror(model), exit(2);
  fwrite(&length, 8, 1, f);
  fwrite(json, 1, length, f);
  for (size_t i = 0; i < at; i++) fputc(have ? from[text + 1 + i % have] : 0, f);
  fclose(f);
  free(json);
  cJSON_Delete(header);
}

static void clean(void) { unlink(model), unlink(config), rmdir(folder); }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  if (!*model) {
    snprintf(folder, sizeof folder, "%s/quernel-fuzz-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (!mkdtemp(folder)) perror(folder), exit(2);
    snprintf(model, sizeof model, "%s/x", folder);
    snprintf(config, sizeof config, "%s/config.json", folder);
    atexit(clean);
  }
  size_t head = 0;
  bool fitted = false;
  if (bytes >= 2 && memcmp(data, "GG", 2)) {
    head = (size_t)data[0] | (size_t)(data[1] & 0x7f) << 8;
    fitted = data[1] & 0x80;
    head = head > bytes - 2 ? bytes - 2 : head;
    spill(config, data + 2, head);
    head += 2;
  } else unlink(config);
  if (fitted) spill_fitted(data + head, bytes - head);
  else spill(model, data + head, bytes - head);
  io_touch(model);
  return 0;
}
