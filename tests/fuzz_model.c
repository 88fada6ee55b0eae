/* fuzz_model.c - libFuzzer target for the checkpoint readers (clang, cmake -DQUERNEL_FUZZ=ON
 * -DQUERNEL_SANITIZE=address,undefined).
 *
 * A corpus to start from: test_io_damage --seeds DIR. Input: a .gguf, or u16 length, that much config.json, and a
 * .safetensors. */
#include "io_touch.h"
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
  if (bytes >= 2 && memcmp(data, "GG", 2)) {
    head = (size_t)data[0] | (size_t)data[1] << 8;
    head = head > bytes - 2 ? bytes - 2 : head;
    spill(config, data + 2, head);
    head += 2;
  } else unlink(config);
  spill(model, data + head, bytes - head);
  io_touch(model);
  return 0;
}
