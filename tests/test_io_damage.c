/* test_io_damage.c - the files of every test vector, damaged: each opens or is refused with a message, and what opens
 * can be read to the last byte.
 *
 *     test_io_damage [ROUNDS [VECTOR [ROUND]]]     all vectors, or one, or one round of one
 *     test_io_damage --seeds DIR                   write them undamaged, as a corpus for fuzz_model
 *
 * Deterministic: round r of vector v always does the same damage to the container, to its config.json or to the shape
 * of one of its tensors. Run it under
 * sanitizers to see reads out of bounds; fuzz_model.c searches without end. */
#include "io_fit.h"
#include "io_touch.h"
#include "model.h"
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

/* Another shape of a tensor, in a file that is well-formed: none, one, odd, some more or less, huge beside zero. */
static void reshape(const char *path) {
  static const double huge[] = {0x1p31, 0x1p32, 0x1p40, 0x1p61};
  uint64_t header;
  memcpy(&header, original[0], sizeof header);
  cJSON *json = cJSON_ParseWithLength((const char *)original[0] + 8, header);
  cJSON *shape = cJSON_GetObjectItem(cJSON_GetArrayItem(json, (int)draw((uint64_t)cJSON_GetArraySize(json))), "shape");
  int dims = cJSON_GetArraySize(shape), which = dims ? (int)draw((uint64_t)dims) : 0;
  cJSON *d = cJSON_GetArrayItem(shape, which), *other = cJSON_GetArrayItem(shape, which ? 0 : 1);
  const double is = d ? d->valuedouble : 0, some[] = {0, 1, 3, is - 1, is + 1, is * 2, is * 32};
  switch (d ? draw(9) : 9) {
  case 7:
    cJSON_SetNumberValue(d, huge[draw(QN_COUNT(huge))]);
    if (other) cJSON_SetNumberValue(other, 0);
    break;
  case 8:
    cJSON_DeleteItemFromArray(shape, which);
    break;
  case 9:
    cJSON_AddItemToArray(shape, cJSON_CreateNumber(1));
    break;
  default:
    cJSON_SetNumberValue(d, some[draw(QN_COUNT(some))]);
  }
  io_fit(path, json, original[0] + 8 + header, length[0] - 8 - header);
  cJSON_Delete(json);
}

static void one_round(const char *path, int vector, int round) {
  seed = (uint64_t)vector << 32 | (unsigned)round;
  if (memcmp(original[0], "GGUF", 4) && draw(4) == 0) {
    reshape(path);
    io_touch(path);
    spill(path, original[0], length[0]);
    return;
  }
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

/* ---- A corpus for fuzz_model.c, in the forms that it takes ------------------------------------------------------- */

static void seed_file(const char *folder, const char *family, const char *name, const uint8_t *from, size_t n) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s-%s", folder, family, name);
  spill(path, from, n);
}

/* A vector as it is, a .safetensors also as header and data. */
static void seed_vector(const char *folder, const cJSON *v, int index) {
  char name[32];
  const char *path = vector_write(v);
  size_t config = slurp(vector_config, changed + 2), n = slurp(path, original[0]);
  uint64_t header;
  snprintf(name, sizeof name, "%02d", index);
  if (n + config + 2 > MOST) return;
  if (!memcmp(original[0], "GGUF", 4)) {
    seed_file(folder, "gguf", name, original[0], n);
    return;
  }
  memcpy(changed, &(uint16_t){(uint16_t)config}, 2);
  memcpy(changed + 2 + config, original[0], n);
  seed_file(folder, "safetensors", name, changed, n + config + 2);
  memcpy(&header, original[0], sizeof header);
  changed[1] |= 0x80;
  memcpy(changed + 2 + config, original[0] + 8, header);
  changed[2 + config + header] = 0;
  memcpy(changed + 3 + config + header, original[0] + 8 + header, n - 8 - header);
  snprintf(name, sizeof name, "%02d-fitted", index);
  seed_file(folder, "safetensors", name, changed, n - 8 + config + 3);
}

static void put(size_t *n, uint64_t v, size_t bytes) {
  memcpy(changed + *n, &v, bytes);
  *n += bytes;
}

/* A GGUF of one matrix of two rows of a block of each type. */
static void seed_type(const char *folder, uint32_t id) {
  const qn__dtype *t = qn__ggml_dtype(id);
  size_t n = 4;
  if (!t) return;
  memcpy(changed, "GGUF", 4);
  put(&n, 3, 4), put(&n, 1, 8), put(&n, 0, 8);
  put(&n, 1, 8), put(&n, 'w', 1), put(&n, 2, 4), put(&n, (uint64_t)t->elems, 8), put(&n, 2, 8), put(&n, id, 4),
      put(&n, 0, 8);
  while (n % 32) put(&n, 0, 1);
  for (int i = 0; i < 2 * t->bytes + 32; i++) put(&n, draw(256), 1);
  seed_file(folder, "gguf", t->name, changed, n);
}

/* Neutral planes, which no vector has: a stack, and a matrix with an order. */
static void seed_planes(const char *folder) {
  static const char text[] =
      "\0\x80{\"__metadata__\":{\"quernel.planes\":\"1\",\"a.weight\":\"int4.g4 codes:4 scale:16\",\"b.weight\":"
      "\"int4.g4.z codes:4 scale:16 zero:4 perm:32\"},\"a.codes\":{\"dtype\":\"U8\",\"shape\":[2,3,8]},\"a.scale\":"
      "{\"dtype\":\"F16\",\"shape\":[2,3,2]},\"b.codes\":{\"dtype\":\"U8\",\"shape\":[3,2]},\"b.scale\":{\"dtype\":"
      "\"F16\",\"shape\":[3,1]},\"b.zero\":{\"dtype\":\"U8\",\"shape\":[3,1]},\"b.perm\":{\"dtype\":\"I32\",\"shape\":["
      "2]}}"
      "\0\1\0\0\0\0\0\0\0";
  seed_file(folder, "safetensors", "planes", (const uint8_t *)text, sizeof text - 1);
}

/* A model as a whole: layouts that nobody reads, experts, a tied head; and indices of one shard. */
static void seed_whole(const char *folder) {
  static const char text[] =
      "\147\x80{\"model_type\":\"gpt_oss\",\"x\":[NaN,-Infinity],"
      "\"text_config\":{\"tie_word_embeddings\":true,\"hidden_size\":4}}"
      "{\"a.embed_tokens.weight\":{\"dtype\":\"F16\",\"shape\":[4,2]},\"a.b.q_weight\":{\"dtype\":\"I32\",\"shape\":"
      "[2,2]},\"a.b.q_scale\":{\"dtype\":\"I32\",\"shape\":[1,2]},\"a.experts.gate_up_proj\":{\"dtype\":\"F16\","
      "\"shape\":[2,4,6]},\"a.c.weight\":{\"dtype\":\"U8\",\"shape\":[8,8]},\"a.c.scale\":{\"dtype\":\"F8_E8M0\","
      "\"shape\":[2,2]}}"
      "\0\1\2\3";
  static const char *const indices[] = {
      "IX{\"metadata\":{\"total_size\":1},\"weight_map\":{\"a.weight\":\"a.safetensors\",\"b\":\"a.safetensors\"}}",
      "IX{\"weight_map\":{\"\\u00e9\\ud83d\\ude00\":\"gone.safetensors\"}}"};
  seed_file(folder, "safetensors", "whole", (const uint8_t *)text, sizeof text - 1);
  seed_file(folder, "index", "there", (const uint8_t *)indices[0], strlen(indices[0]));
  seed_file(folder, "index", "gone", (const uint8_t *)indices[1], strlen(indices[1]));
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
      if (seeds) seed_vector(argv[2], v, index);
      else if (only < 0 || only == index) failed += one_vector(v, index, argc > 3 ? atoi(argv[3]) : 0, rounds);
      index++;
    }
    cJSON_Delete(root);
  }
  vector_end();
  for (uint32_t id = 0; seeds && id < 64; id++) seed_type(argv[2], id);
  if (seeds) seed_planes(argv[2]), seed_whole(argv[2]);
  if (!seeds) printf("%d vectors, %d rounds each, %d crashed\n", index, rounds, failed);
  return failed || !index;
}
