/* test_format_vectors.c - test vectors of every format, read from files that are made of them, compared bit for bit.
 *
 *     test_format_vectors [FILE.json…]
 *
 * A vector is {id, format, params, tensors {name: {dtype, shape, hex}}, expected {shape, values}}. Each becomes the
 * file that its tool would have written (a .gguf of one tensor, or a .safetensors with a config.json), is opened
 * through the public interface and decoded. Prints "id: exact" or the first difference; exits 1 if any differs. */
#include "fail.h"
#include "io.h"
#include "io_decode.h"
#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/tmp/quernel-vectors-XXXXXX", path[256], config_path[256];

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
  add(key, is_whole ? "I32" : "F32", 0, NULL, memcpy(malloc(4), is_whole ? (void *)&whole : (void *)&real, 4));
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
  } methods[] = {{"gptq", "gptq"}, {"awq", "awq"}, {"compressed", "compressed-tensors"}, {"bitnet", "bitnet"}};
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
  write_file(config_path, json, strlen(json));
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

static void write_vector(const cJSON *v) {
  const cJSON *file = get(get(v, "tensors"), "file");
  unlink(config_path);
  if (file) {
    size_t bytes;
    uint8_t *data = unhex(text(file, "hex"), &bytes);
    snprintf(path, sizeof path, "%s/x.%s", folder, starts(text(v, "format"), "gguf") ? "gguf" : "safetensors");
    write_file(path, data, bytes);
    free(data);
  } else if (get(get(v, "params"), "ggml_type")) write_gguf(v);
  else write_safetensors(v);
}

/* ---- Comparing --------------------------------------------------------------------------------------------------- */

static bool expect(const char *id, const cJSON *v, const float *x, int64_t n, int64_t k) {
  const cJSON *rows = get(get(v, "expected"), "values"), *row, *value;
  int64_t r = 0, c = 0;
  if (cJSON_GetArraySize(rows) != n || cJSON_GetArraySize(rows->child) != k)
    return printf("%s: %jd x %jd, expected %d x %d\n", id, (intmax_t)n, (intmax_t)k, cJSON_GetArraySize(rows),
                  cJSON_GetArraySize(rows->child)),
           false;
  cJSON_ArrayForEach(row, rows) {
    c = 0;
    cJSON_ArrayForEach(value, row) {
      float want = cJSON_IsNumber(value) ? (float)value->valuedouble : NAN, is = x[r * k + c];
      if (is != want && !(isnan(is) && isnan(want)))
        return printf("%s: [%jd, %jd] is %.9g, expected %.9g\n", id, (intmax_t)r, (intmax_t)c, (double)is,
                      (double)want),
               false;
      c++;
    }
    r++;
  }
  return true;
}

/* The weight that the vector is about: the only one with a format, or the first. */
static const qn_tensor *subject(const qn_model *m) {
  const qn_tensor *t, *first = NULL;
  for (size_t i = 0; (t = qn_model_tensor(m, i)); i++)
    if ((t->format || t->refusal) && (!first || (t->quantized && !first->quantized))) first = t;
  return first;
}

static bool try_vector(const cJSON *v) {
  const char *id = text(v, "id");
  qn_model *m = NULL;
  qn_planes *p = NULL;
  write_vector(v);
  bool ok = qn_model_open(path, &m) == QN_OK;
  const qn_tensor *t = ok ? subject(m) : NULL;
  ok = ok && t && qn_model_planes(m, t, 0, &p) == QN_OK;
  if (!ok) printf("%s: %s\n", id, m && !t ? "no weight is recognised" : qn_io_errmsg());
  float *x = ok ? malloc((size_t)(p->n * p->k) * sizeof *x) : NULL;
  const char *wrong = ok ? io_decode(p, x) : NULL;
  if (wrong) printf("%s: no formula: %s\n", id, wrong), ok = false;
  ok = ok && expect(id, v, x, p->n, p->k);
  if (ok) printf("%s: exact (%s, %s)\n", id, t->dialect, t->format);
  free(x);
  qn_planes_free(p);
  qn_model_close(m);
  return ok;
}

static int try_file(const char *name) {
  size_t bytes;
  FILE *f = fopen(name, "rb");
  if (!f) return perror(name), 1;
  fseek(f, 0, SEEK_END);
  bytes = (size_t)ftell(f);
  rewind(f);
  char *data = malloc(bytes + 1);
  cJSON *root = data && fread(data, 1, bytes, f) == bytes ? cJSON_ParseWithLength(data, bytes) : NULL;
  const cJSON *v, *vectors = cJSON_IsArray(root) ? root : get(root, "vectors");
  int wrong = 0, count = 0;
  cJSON_ArrayForEach(v, vectors) wrong += !try_vector(v), count++;
  printf("%s: %d of %d exact\n", name, count - wrong, count);
  cJSON_Delete(root);
  free(data);
  fclose(f);
  return wrong || !count;
}

int main(int argc, char **argv) {
  int failed = 0;
  if (!mkdtemp(folder)) return perror(folder), 2;
  snprintf(config_path, sizeof config_path, "%s/config.json", folder);
  if (argc < 2) failed = try_file(QN_TESTS "/vectors/format_vectors.json");
  for (int i = 1; i < argc; i++) failed |= try_file(argv[i]);
  unlink(config_path);
  snprintf(path, sizeof path, "%s/x.gguf", folder), unlink(path);
  snprintf(path, sizeof path, "%s/x.safetensors", folder), unlink(path);
  rmdir(folder);
  return failed;
}
