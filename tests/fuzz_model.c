/* fuzz_model.c - libFuzzer target for the checkpoint readers (clang, cmake -DQUERNEL_FUZZ=ON
 * -DQUERNEL_SANITIZE=address,undefined).
 *
 * tests/fuzz runs it, from a corpus that test_io_damage --seeds DIR writes. Input: a .gguf; or "IX" and the index of a
 * folder with one shard; or u16 length, that much config.json, and a .safetensors. With the top bit of the length set
 * the latter is a header, a zero byte and some data instead, which io_fit makes a file of. */
#include "io_fit.h"
#include "io_touch.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static char folder[64], model[64], config[64], index_json[64], shard[64];

static void spill(const char *path, const uint8_t *from, size_t n) {
  FILE *f = fopen(path, "wb");
  if (!f || fwrite(from, 1, n, f) != n || fclose(f)) perror(path), exit(2);
}

static void spill_fitted(const uint8_t *from, size_t n) { /* a header, a zero byte, data */
  size_t text = strnlen((const char *)from, n), used = text + 1 < n ? text + 1 : n;
  cJSON *header = cJSON_ParseWithLength((const char *)from, text);
  io_fit(model, header, from + used, n - used);
  cJSON_Delete(header);
}

static void try_index(const uint8_t *text, size_t n) {
  static const char one[] = "\x40\0\0\0\0\0\0\0"
                            "{\"a.weight\":{\"dtype\":\"U8\",\"shape\":[1,2],\"data_offsets\":[0,2]}}  "
                            "xy";
  spill(index_json, text, n);
  spill(shard, (const uint8_t *)one, sizeof one - 1);
  io_touch(folder);
  unlink(index_json), unlink(shard);
}

static void clean(void) { unlink(model), unlink(config), rmdir(folder); }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  if (!*model) {
    snprintf(folder, sizeof folder, "%s/quernel-fuzz-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (!mkdtemp(folder)) perror(folder), exit(2);
    snprintf(model, sizeof model, "%s/x", folder);
    snprintf(config, sizeof config, "%s/config.json", folder);
    snprintf(index_json, sizeof index_json, "%s/model.safetensors.index.json", folder);
    snprintf(shard, sizeof shard, "%s/a.safetensors", folder);
    atexit(clean);
  }
  if (bytes > 2 && !memcmp(data, "IX", 2)) return try_index(data + 2, bytes - 2), 0;
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
