/* vector_files.c - see vector_files.h. A vector is {id, format, params, tensors {name: {dtype, shape, hex}},
 * expected}. */
#include "vector_files.h"
#include "fail.h"
#include "quernel_io.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char vector_config[256];
static char folder[64], path[256];

static const cJSON *get(const cJSON *o, const char *key) { return cJSON_GetObjectItemCaseSensitive(o, key); }

static const char *text(const cJSON *o, const char *key) {
  const char *s = cJSON_GetStringValue(get(o, key));
  return s ? s : "";
}

static bool starts(const char *s, const char *head) { return !strncmp(s, head, strlen(head)); }

static uint8_t *unhex(const char *hex, size_t *bytes) {
  *bytes = strlen(hex) / 2;
  uint8_t *p = malloc(*bytes + 1);
  for (size_t i = 0; p && i < *bytes; i++) {
    unsigned v = 0;
    sscanf(hex + 2 * i, "%2x", &v);
    p[i] = (uint8_t)v;
  }
  return p;
}

static void write_file(const char *name, const void *data, size_t bytes) {
  FILE *f = fopen(name, "wb");
  if (!f || fwrite(data, 1, bytes, f) != bytes || fclose(f)) perror(name), exit(2);
}

/* ---- Files of a vector ------------------------------------------------------------------------------------------- */

static void put(FILE *f, uint64_t v, int bytes) { fwrite(&v, (size_t)bytes, 1, f); }

static void put_string(FILE *f, const char *s) {
  put(f, strlen(s), 8);
  fputs(s, f);
}

/* A .gguf with one tensor, "w", of the vector's blocks. */
static void write_gguf(const cJSON *v) {
  const cJSON *params = get(v, "params"), *shape = get(get(v, "expected"), "shape");
  size_t bytes;
  uint8_t *data = unhex(text(get(v, "tensors")->child, "hex"), &bytes);
  snprintf(path, sizeof path, "%s/x.gguf", folder);
  FILE *f = fopen(path, "wb");
  if (!f || !data) perror(path), exit(2);
  fputs("GGUF", f);
  put(f, 3, 4), put(f, 1, 8), put(f, 1, 8);
  put_string(f, "general.architecture"), put(f, 8, 4), put_string(f, "test");
  put_string(f, "w"), put(f, 2, 4);
  put(f, (uint64_t)cJSON_GetArrayItem(shape, 1)->valuedouble, 8),
      put(f, (uint64_t)cJSON_GetArrayItem(shape, 0)->valuedouble, 8);
  put(f, (uint64_t)get(params, "ggml_type")->valuedouble, 4), put(f, 0, 8);
  while (ftell(f) % 32) fputc(0, f);
  fwrite(data, 1, bytes, f);
  while (ftell(f) % 32) fputc(0, f);
  fclose(f);
  free(data);
}

enum { MOST = 32 };
static qn_save save[MOST];
static char names[MOST][128];
static int n_save;

static void add(const char *name, const char *dtype, int n_dims, const int64_t *dim, void *data) {
  if (n_save == MOST) exit(2);
  snprintf(names[n_save], sizeof names[0], "layer.%s", name);
  save[n_save] = (qn_save){.name = names[n_save], .dtype = dtype, .n_dims = n_dims, .data = data};
  memcpy(save[n_save++].dim, dim, (size_t)n_dims * sizeof *dim);
}

static void add_number(const cJSON *params, const char *key) { /* as HQQ saves them: I32, or F32 for 1.58 bits */
  const cJSON *p = get(params, key);
  if (!cJSON_IsNumber(p)) return;
  int32_t whole = p->valueint;
  float real = (float)p->valuedouble;
  bool is_whole = (double)whole == p->valuedouble;
  add(key, is_whole ? "I32" : "F32", 0, (int64_t[]){0},
      memcpy(malloc(4), is_whole ? (void *)&whole : (void *)&real, 4));
}

static void add_text(const char *name, const char *s) {
  add(name, "U8", 1, (int64_t[]){(int64_t)strlen(s)}, strdup(s));
}

/* What the tools save beside the arrays. */
static void add_settings(const cJSON *v) {
  const cJSON *params = get(v, "params"), *shape = get(params, "shape");
  if (starts(text(v, "format"), "hqq")) {
    int64_t *dims = malloc(16);
    for (int i = 0; i < 2; i++) dims[i] = (int64_t)cJSON_GetArrayItem(shape, i)->valuedouble;
    add("shape", "I64", 1, (int64_t[]){2}, dims);
    add_number(params, "nbits"), add_number(params, "axis"), add_number(params, "group_size");
    add_text("packing", text(params, "packing"));
  }
  if (starts(text(v, "format"), "bitsandbytes") && shape) {
    char name[64], *json = cJSON_PrintUnformatted(params);
    snprintf(name, sizeof name, "weight.quant_state.bitsandbytes__%s", text(params, "quant_type"));
    add_text(name, json);
    free(json);
  }
}

static const char *quant_method(const char *format) {
  static const struct {
    const char *head, *method;
  } methods[] = {
      {"gptq", "gptq"}, {"awq", "awq"}, {"compressed", "compressed-tensors"}, {"bitnet", "bitnet"}, {"quark", "quark"}};
  for (size_t i = 0; i < QN_COUNT(methods); i++)
    if (starts(format, methods[i].head)) return methods[i].method;
  return "other";
}

/* quantization_config: the vector's parameters, which carry the tools' own names, and the same as config_groups. */
static void write_config(const cJSON *v) {
  cJSON *root = cJSON_CreateObject(), *quant = cJSON_Duplicate(get(v, "params"), 1), *group = cJSON_CreateObject();
  cJSON_AddStringToObject(quant, "quant_method", quant_method(text(v, "format")));
  cJSON_AddBoolToObject(quant, "sym", strstr(text(v, "id"), "_sym") != NULL);
  cJSON_AddItemToObject(group, "weights", cJSON_Duplicate(get(v, "params"), 1));
  cJSON_AddItemToObject(cJSON_AddObjectToObject(quant, "config_groups"), "group_0", group);
  cJSON_AddItemToObject(root, "quantization_config", quant);
  char *json = cJSON_Print(root);
  write_file(vector_config, json, strlen(json));
  free(json);
  cJSON_Delete(root);
}

static void write_safetensors(const cJSON *v) {
  const cJSON *t;
  snprintf(path, sizeof path, "%s/x.safetensors", folder);
  n_save = 0;
  cJSON_ArrayForEach(t, get(v, "tensors")) {
    size_t bytes;
    int64_t dim[QN_MAX_DIMS] = {0};
    int n = cJSON_GetArraySize(get(t, "shape"));
    for (int i = 0; i < n && i < QN_MAX_DIMS; i++)
      dim[i] = (int64_t)cJSON_GetArrayItem(get(t, "shape"), i)->valuedouble;
    add(t->string, text(t, "dtype"), n, dim, unhex(text(t, "hex"), &bytes));
  }
  add_settings(v);
  write_config(v);
  if (qn_safetensors_write(path, save, (size_t)n_save, NULL, 0)) printf("%s\n", qn_io_errmsg()), exit(2);
  for (int i = 0; i < n_save; i++) free((void *)(uintptr_t)save[i].data);
}

const char *vector_write(const cJSON *v) {
  const cJSON *file = get(get(v, "tensors"), "file");
  unlink(vector_config);
  if (file) {
    size_t bytes;
    uint8_t *data = unhex(text(file, "hex"), &bytes);
    snprintf(path, sizeof path, "%s/x.%s", folder, starts(text(v, "format"), "gguf") ? "gguf" : "safetensors");
    write_file(path, data, bytes);
    free(data);
  } else if (get(get(v, "params"), "ggml_type")) write_gguf(v);
  else write_safetensors(v);
  return path;
}

void vector_begin(void) {
  snprintf(folder, sizeof folder, "%s/quernel-vectors-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
  if (!mkdtemp(folder)) perror(folder), exit(2);
  snprintf(vector_config, sizeof vector_config, "%s/config.json", folder);
}

void vector_end(void) {
  unlink(vector_config);
  snprintf(path, sizeof path, "%s/x.gguf", folder), unlink(path);
  snprintf(path, sizeof path, "%s/x.safetensors", folder), unlink(path);
  rmdir(folder);
}

cJSON *vector_file(const char *name) {
  FILE *f = fopen(name, "rb");
  if (!f) return perror(name), NULL;
  fseek(f, 0, SEEK_END);
  size_t bytes = (size_t)ftell(f);
  rewind(f);
  char *data = malloc(bytes + 1);
  cJSON *root = data && fread(data, 1, bytes, f) == bytes ? cJSON_ParseWithLength(data, bytes) : NULL;
  free(data);
  fclose(f);
  return root;
}

const cJSON *vector_list(const cJSON *root) { return cJSON_IsArray(root) ? root : get(root, "vectors"); }
