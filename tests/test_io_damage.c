/* test_io_damage.c - the files of every test vector, damaged: each opens or is refused with a message, and what opens
 * can be read to the last byte.
 *
 *     test_io_damage [ROUNDS [VECTOR [ROUND]]]     all vectors, or one, or one round of one
 *     test_io_damage --seeds DIR                   write them undamaged, as a corpus for fuzz_model
 *
 * Deterministic: round r of vector v always does the same damage to the container or to its config.json. Run it under
 * sanitizers to see reads out of bounds; fuzz_model.c searches without end. */
#include "io_touch.h"
#include "vector_files.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST = 1 << 16 };
static uint8_t original[2][MOST], changed[MOST]; /* the container, its config.json */
static size_t length[2];
static uint64_t seed;

static uint64_t draw(uint64_t below) { /* splitmix64 (Steele, Lea, Flood) */
  uint64_t z = seed += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return (z ^ z >> 31) % below;
}

static size_t slurp(const char *path, uint8_t *to) {
  FILE *f = fopen(path, "rb");
  size_t n = f ? fread(to, 1, MOST, f) : 0;
  if (f) fclose(f);
  return n;
}

static void spill(const char *path, const uint8_t *from, size_t n) {
  FILE *f = fopen(path, "wb");
  if (!f || fwrite(from, 1, n, f) != n || fclose(f)) perror(path), exit(2);
}

/* Numbers that break careless arithmetic. */
static const uint64_t nasty[] = {0,         1,          0x7f,       0x80,      0xff,       0x7fff,    0xffff,
                                 INT32_MAX, UINT32_MAX, 1ull << 32, INT64_MAX, 1ull << 63, UINT64_MAX};

static void damage(size_t *n) {
  size_t at = draw(*n), run = 1 + draw(8);
  switch (draw(7)) {
  case 0:
    changed[at] ^= (uint8_t)(1u << draw(8));
    break;
  case 1:
    changed[at] = (uint8_t)draw(256);
    break;
  case 2:
    changed[at] = (uint8_t) "0123456789-.eE[]{}\":,"[draw(21)];
    break;
  case 3:
    *n = at + 1;
    break;
  case 4:
    memcpy(changed + at, &nasty[draw(sizeof nasty / 8)], *n - at < run ? *n - at : run);
    break;
  case 5: /* remove a run */
    run = *n - at < run ? *n - at : run;
    memmove(changed + at, changed + at + run, *n - at - run);
    *n -= run < *n ? run : 0;
    break;
  default: /* repeat one */
    run = *n + run > MOST || at + run > *n ? 0 : run;
    memmove(changed + at + run, changed + at, *n - at);
    *n += run;
  }
}

static void one_round(const char *path, int vector, int round) {
  seed = (uint64_t)vector << 32 | (unsigned)round;
  int which = length[1] && draw(3) == 0;
  const char *file = which ? vector_config : path;
  size_t n = length[which];
  memcpy(changed, original[which], n);
  for (uint64_t i = 0, count = 1 + draw(3); n && i < count; i++) damage(&n);
  spill(file, changed, n);
  io_touch(path);
  spill(file, original[which], length[which]);
}

/* In a child, so that a crash is one failure and its rounds can be told. */
static int one_vector(const cJSON *v, int index, int first, int rounds) {
  const char *path = vector_write(v);
  int tells[2], status, last = -1;
  length[0] = slurp(path, original[0]);
  length[1] = slurp(vector_config, original[1]);
  if (io_touch(path) < 1) return printf("vector %d does not open\n", index), 1;
  if (pipe(tells)) return 1;
  pid_t child = fork();
  if (!child) {
    alarm(120);
    for (int r = first; r < first + rounds; r++) {
      if (write(tells[1], &r, sizeof r) != sizeof r) _exit(2);
      one_round(path, index, r);
    }
    _exit(0);
  }
  close(tells[1]);
  for (int r; read(tells[0], &r, sizeof r) == sizeof r;) last = r;
  close(tells[0]);
  waitpid(child, &status, 0);
  if (status) printf("crash (status %d); again: test_io_damage 1 %d %d\n", status, index, last);
  return status != 0;
}

/* In the form that fuzz_model.c takes; a .safetensors in both. */
static void write_seed(const char *folder, const cJSON *v, int index) {
  char name[4096];
  const char *path = vector_write(v);
  size_t config = slurp(vector_config, changed + 2), n = slurp(path, original[0]);
  bool gguf = n > 4 && !memcmp(original[0], "GGUF", 4);
  uint16_t head = (uint16_t)config;
  if (n + config + 2 > MOST) return;
  memcpy(changed, &head, 2);
  memcpy(changed + 2 + config, original[0], n);
  snprintf(name, sizeof name, "%s/%02d", folder, index);
  spill(name, gguf ? original[0] : changed, gguf ? n : n + config + 2);
  if (gguf) return;
  uint64_t header;
  memcpy(&header, original[0], sizeof header);
  memmove(original[0], original[0] + 8, header);
  original[0][header] = 0;
  memmove(original[0] + header + 1, original[0] + 8 + header, n - 8 - header);
  changed[1] |= 0x80;
  memcpy(changed + 2 + config, original[0], n - 7);
  snprintf(name, sizeof name, "%s/%02d-fitted", folder, index);
  spill(name, changed, n - 7 + config + 2);
}

int main(int argc, char **argv) {
  bool seeds = argc > 2 && !strcmp(argv[1], "--seeds");
  int rounds = argc > 1 ? atoi(argv[1]) : 250, only = argc > 2 ? atoi(argv[2]) : -1, index = 0, failed = 0;
  static const char *const files[] = {QN_TESTS "/vectors/format_vectors.json", QN_TESTS "/vectors/twin_vectors.json"};
  vector_begin();
  for (int f = 0; f < 2; f++) {
    cJSON *root = vector_file(files[f]);
    const cJSON *v;
    cJSON_ArrayForEach(v, vector_list(root)) {
      if (seeds) write_seed(argv[2], v, index);
      else if (only < 0 || only == index) failed += one_vector(v, index, argc > 3 ? atoi(argv[3]) : 0, rounds);
      index++;
    }
    cJSON_Delete(root);
  }
  vector_end();
  if (!seeds) printf("%d vectors, %d rounds each, %d crashed\n", index, rounds, failed);
  return failed || !index;
}
