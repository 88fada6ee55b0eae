/* token_files.c - see token_files.h. */
#include "token_files.h"
#include "file.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

cJSON *token_vectors(void) {
  char *text;
  size_t size;
  if (qn__file_read(QN_TESTS "/vectors/tokenizers.json", &text, &size)) return NULL;
  cJSON *root = cJSON_ParseWithLength(text, size);
  free(text);
  return root;
}

const cJSON *token_vector(const cJSON *vectors, const char *list, int i) {
  return cJSON_GetArrayItem(cJSON_GetObjectItem(vectors, list), i);
}

static const cJSON *model_of(const cJSON *vectors, const cJSON *v) {
  return cJSON_GetObjectItem(cJSON_GetObjectItem(vectors, "models"), cJSON_GetObjectItem(v, "model")->valuestring);
}

char *token_json(const cJSON *vectors, const cJSON *v) {
  const cJSON *known = model_of(vectors, v), *x;
  cJSON *j = cJSON_Duplicate(cJSON_GetObjectItem(v, "tokenizer"), true), *model = cJSON_GetObjectItem(j, "model");
  cJSON_ArrayForEach(x, known) cJSON_AddItemToObject(model, x->string, cJSON_Duplicate(x, true));
  char *text = cJSON_PrintUnformatted(j);
  cJSON_Delete(j);
  return text;
}

/* ---- GGUF: see runtime/io/gguf.c --------------------------------------------------------------------------------- */

enum { U32 = 4, I32 = 5, F32 = 6, BOOL = 7, STRING = 8, ARRAY = 9 };

static void put(FILE *f, uint64_t v, size_t bytes) { fwrite(&v, bytes, 1, f); }

static void put_text(FILE *f, const char *s) {
  put(f, strlen(s), 8);
  fputs(s, f);
}

static void put_key(FILE *f, const char *name, uint32_t type) {
  char key[64];
  snprintf(key, sizeof key, "tokenizer.ggml.%s", name);
  put_text(f, key);
  put(f, type, 4);
}

static void put_list(FILE *f, const char *name, uint32_t type, int n) {
  put_key(f, name, ARRAY);
  put(f, type, 4);
  put(f, (uint64_t)n, 8);
}

typedef struct token {
  const char *text;
  float score;
  int32_t kind;
} token;

static void put_tokens(FILE *f, const token *t, int n) {
  put_list(f, "tokens", STRING, n);
  for (int i = 0; i < n; i++) put_text(f, t[i].text ? t[i].text : "");
  put_list(f, "token_type", I32, n);
  for (int i = 0; i < n; i++) fwrite(&t[i].kind, 4, 1, f);
  put_list(f, "scores", F32, n);
  for (int i = 0; i < n; i++) fwrite(&t[i].score, 4, 1, f);
}

static int read_bpe(const cJSON *vectors, const cJSON *v, token *out) {
  const cJSON *x;
  int n = 0;
  cJSON_ArrayForEach(x, cJSON_GetObjectItem(model_of(vectors, v), "vocab")) {
    out[x->valueint] = (token){x->string, 0, 1};
    n = x->valueint >= n ? x->valueint + 1 : n;
  }
  cJSON_ArrayForEach(x, cJSON_GetObjectItem(cJSON_GetObjectItem(v, "tokenizer"), "added_tokens")) {
    int id = cJSON_GetObjectItem(x, "id")->valueint;
    out[id] = (token){cJSON_GetObjectItem(x, "content")->valuestring, 0, 3};
    n = id >= n ? id + 1 : n;
  }
  return n;
}

static int read_scores(const cJSON *v, token *out) {
  const cJSON *x;
  int n = 0;
  cJSON_ArrayForEach(x, cJSON_GetObjectItem(v, "pieces"))
    out[n++] = (token){x->child->valuestring, (float)x->child->next->valuedouble, x->child->next->next->valueint};
  return n;
}

static void put_merges(FILE *f, const cJSON *merges) {
  const cJSON *x;
  char both[256];
  put_list(f, "merges", STRING, cJSON_GetArraySize(merges));
  cJSON_ArrayForEach(x, merges) {
    snprintf(both, sizeof both, "%s %s", x->child->valuestring, x->child->next->valuestring);
    put_text(f, both);
  }
}

void token_gguf(const char *path, const cJSON *vectors, const cJSON *v) {
  token t[2048] = {0};
  const cJSON *pre = cJSON_GetObjectItem(v, "pre");
  int n = pre ? read_bpe(vectors, v, t) : read_scores(v, t);
  FILE *f = fopen(path, "wb");
  if (!f) perror(path), exit(1);
  fputs("GGUF", f);
  put(f, 3, 4), put(f, 1, 8), put(f, 6, 8);
  put_key(f, "model", STRING), put_text(f, pre ? "gpt2" : "llama");
  put_tokens(f, t, n);
  if (pre) {
    put_key(f, "pre", STRING), put_text(f, pre->valuestring);
    put_merges(f, cJSON_GetObjectItem(model_of(vectors, v), "merges"));
  } else {
    put_key(f, "add_space_prefix", BOOL), put(f, cJSON_IsTrue(cJSON_GetObjectItem(v, "prefix")), 1);
    put_key(f, "bos_token_id", U32), put(f, 1, 4);
  }
  put_text(f, "token_embd.weight"), put(f, 2, 4), put(f, 1, 8), put(f, (uint64_t)n, 8), put(f, 0, 4), put(f, 0, 8);
  while (ftell(f) % 32) fputc(0, f);
  for (int i = 0; i < n; i++) put(f, 0, 4);
  fclose(f);
}
