/* fuzz_arch.c - libFuzzer target for what a configuration says of an architecture (clang, cmake -DQUERNEL_FUZZ=ON
 * -DQUERNEL_SANITIZE=address,undefined).
 *
 * tests/fuzz runs it, from a corpus that test_arch --seeds DIR writes. Input: a letter, 'a' for the first of the
 * checkpoints in tests/models/arch, and a config.json for it. */
#include "arch_made.h"
#include "names.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static char folder[64], weights[96], config[96];

static void clean(void) { unlink(weights), unlink(config), rmdir(folder); }

static void make_folder(void) {
  snprintf(folder, sizeof folder, "%s/quernel-fuzz-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
  if (!mkdtemp(folder)) perror(folder), exit(2);
  snprintf(weights, sizeof weights, "%s/model.safetensors", folder);
  snprintf(config, sizeof config, "%s/config.json", folder);
  atexit(clean);
}

static void put(const char *name, const uint8_t *text, size_t n) {
  char target[512];
  FILE *f = fopen(config, "wb");
  if (!f || fwrite(text, 1, n, f) != n || fclose(f)) perror(config), exit(2);
  snprintf(target, sizeof target, "%s/%s/model.safetensors", arch_models, name);
  unlink(weights);
  if (symlink(target, weights)) perror(weights), exit(2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  if (!*folder) make_folder();
  if (!bytes) return 0;
  put(arch_made[(data[0] - 'a') % QN_COUNT(arch_made)].name, data + 1, bytes - 1);
  arch_touch(folder);
  return 0;
}
