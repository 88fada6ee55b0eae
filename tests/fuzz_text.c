/* fuzz_text.c - libFuzzer target for tokenizers, ids from files and tasks (clang, cmake -DQUERNEL_FUZZ=ON
 * -DQUERNEL_SANITIZE=address,undefined).
 *
 * tests/fuzz runs it, from a corpus that test_text and test_task --seeds DIR write. Input: a letter and a file: 't' a
 * tokenizer.json, 'g' a GGUF with a tokenizer, 'n' a .npy, 'l' a .jsonl, 'q' a task's .jsonl, 'c' its .csv. */
#include "task.h"
#include "text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static char folder[64], path[96];

static void clean(void) {
  if (*path) unlink(path);
  rmdir(folder);
}

static void spill(const char *name, const uint8_t *from, size_t n) {
  if (!*folder) {
    snprintf(folder, sizeof folder, "%s/quernel-fuzz-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (!mkdtemp(folder)) perror(folder), exit(2);
    atexit(clean);
  }
  if (*path) unlink(path);
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *f = fopen(path, "wb");
  if (!f || fwrite(from, 1, n, f) != n || fclose(f)) perror(path), exit(2);
}

/* What it makes of a text is decoded again; all of it must be ids that it knows. */
static void use(const qn__tokenizer *t) {
  static const char text[] = "ab  a\n\nA1 'S \u00e9e\u0301\u4e00 <s>aab  \u2581b\U0001f300\t<|x|>  bab";
  qn__ids ids;
  char *back;
  size_t size;
  if (qn__tokenizer_encode(t, text, sizeof text - 1, &ids)) return;
  if (qn__tokenizer_decode(t, ids.id, ids.n, &back, &size)) abort();
  free(back);
  qn__ids_free(&ids);
}

static void try_tokenizer(const qn_model *m, const char *json) {
  qn__tokenizer *t;
  if (qn__tokenizer_open(m, json, &t)) return;
  use(t);
  qn__tokenizer_close(t);
}

/* Of a tokenizer whose kind is not read. */
static void try_ids(const uint8_t *from, size_t n, const char *name) {
  static const char other[] = "{\"model\":{\"type\":\"Unigram\"}}";
  static qn__tokenizer *none;
  qn__ids ids;
  if (!none) spill("t.json", (const uint8_t *)other, sizeof other - 1);
  if (!none && qn__tokenizer_open(NULL, path, &none)) abort();
  spill(name, from, n);
  if (qn__ids_read(path, none, 1000, &ids)) return;
  for (int64_t i = 0; i < ids.n; i++)
    if (ids.id[i] < 0 || ids.id[i] >= 1000) abort();
  qn__ids_free(&ids);
}

static qn_status bytes_as_ids(void *ud, const char *from, size_t size, int32_t **ids, int64_t *n) {
  (void)ud;
  if (!(*ids = malloc((size + 1) * sizeof **ids))) abort();
  for (size_t i = 0; i < size; i++) (*ids)[i] = (unsigned char)from[i];
  *n = (int64_t)size;
  return QN_OK;
}

/* What a task holds can be evaluated. */
static void try_task(const uint8_t *from, size_t n, const char *name) {
  qn__task t;
  spill(name, from, n);
  if (qn__task_read(path, &(qn__task_options){bytes_as_ids, NULL, 30, n % 2 ? 1 : -1}, &t)) return;
  for (int64_t i = 0; i < t.n; i++) {
    const qn__item *x = &t.item[i];
    if (x->n < 1 || x->n > QN_CHOICES || x->gold < 0 || x->gold >= x->n) abort();
    for (int c = 0; c < x->n; c++)
      if (x->choice[c].context < 1 || x->choice[c].n <= x->choice[c].context || x->choice[c].n > 31) abort();
  }
  qn__task_free(&t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  qn_model *m;
  switch (bytes ? *data : 0) {
  case 't':
    spill("t.json", data + 1, bytes - 1);
    try_tokenizer(NULL, path);
    break;
  case 'g':
    spill("x.gguf", data + 1, bytes - 1);
    if (qn_model_open(path, &m)) break;
    try_tokenizer(m, NULL);
    qn_model_close(m);
    break;
  case 'n':
    try_ids(data + 1, bytes - 1, "x.npy");
    break;
  case 'l':
    try_ids(data + 1, bytes - 1, "x.jsonl");
    break;
  case 'q':
    try_task(data + 1, bytes - 1, "x.jsonl");
    break;
  case 'c':
    try_task(data + 1, bytes - 1, "x.csv");
    break;
  }
  return 0;
}
