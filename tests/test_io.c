/* test_io.c - checkpoint readers: real files decode to what the tools that wrote them say; damaged files are
 * refused. */
#include "fail.h"
#include "io_decode.h"
#include "quernel_io.h"
#include "suite.h"
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODELS QN_TESTS "/models/"

/* ---- Truth ------------------------------------------------------------------------------------------------------- */

/* `step`: the last bit that the tool kept, at a row's largest element: it computed scale x code in f16 (2^-11), bf16
 * (2^-8) or f32 (0). */
static const struct {
  const char *model, *truth, *dialect, *format;
  double step;
} rows[] = {
    {"tiny-llama-gptq4", "gptq4", "gptq", "int4.g128", 0x1p-11},
    {"tiny-llama-gptq4-act", "gptq4-act", "gptq", "int4.g64.z", 0x1p-11},
    {"tiny-llama-awq4", "awq4", "awq", "int4.g64.z", 0x1p-11},
    {"tiny-llama-ct-w4a16", "ct-w4a16", "compressed-tensors/pack-quantized", "int4.g64", 0},
    {"tiny-llama-ct-w8a8", "ct-w8a8", "compressed-tensors/int-quantized", "int8.row", 0},
    {"tiny-llama-ct-fp8-block", "ct-fp8-block", "compressed-tensors/float-quantized", "e4m3.b128x128", 0},
    {"tiny-llama-ct-nvfp4", "ct-nvfp4", "compressed-tensors/nvfp4-pack-quantized", "nvfp4", 0x1p-8},
    {"tiny-llama-bnb-nf4", "bnb-nf4", "bitsandbytes/nf4", "nf4.g64.f32", 0},
    {"tiny-llama-q4_0.gguf", "q4_0.gguf", "gguf/Q4_0", "int4.g32", 0},
    {"tiny-llama-q4_k_m.gguf", "q4_k_m.gguf", "gguf/Q4_K", "q4_k", 0},
    {"tiny-llama-q8_0.gguf", "q8_0.gguf", "gguf/Q8_0", "int8.g32", 0},
};

static const struct {
  const char *hugging_face, *gguf;
} layers[] = {{"model.layers.1.self_attn.k_proj.weight", "blk.1.attn_k.weight"},
              {"model.layers.2.mlp.down_proj.weight", "blk.2.ffn_down.weight"}};

static float *decode(const qn_model *m, const qn_tensor *t) { /* freed by the caller */
  qn_planes *p;
  ck_assert_msg(qn_model_planes(m, t, 0, &p) == QN_OK, "%s", qn_io_errmsg());
  float *x = malloc((size_t)(p->n * p->k) * sizeof *x);
  const char *wrong = io_decode(p, x);
  ck_assert_msg(!wrong, "%s: %s", t->name, wrong);
  qn_planes_free(p);
  return x;
}

/* Compare the first rows of a weight with truth. Returns elements that differ. */
static int compare(const qn_model *m, const qn_model *truth, int layer, int row) {
  const char *name = layers[layer].hugging_face;
  const qn_raw *want = qn_model_find_raw(truth, name);
  const qn_tensor *t = qn_model_find(m, strstr(rows[row].model, "gguf") ? layers[layer].gguf : name);
  ck_assert_msg(want && t, "%s is missing", name);
  ck_assert_msg(t->format != NULL, "%s: %s", name, t->refusal);
  if (!layer || strcmp(rows[row].format, "q4_k")) { /* a mixture: down_proj is Q6_K there */
    ck_assert_str_eq(t->format, rows[row].format);
    ck_assert_str_eq(t->dialect, rows[row].dialect);
  }
  ck_assert_int_eq(want->dim[1], t->k);
  float *x = decode(m, t);
  int wrong = 0;
  for (int64_t n = 0; n < want->dim[0]; n++) {
    const float *w = (const float *)want->data + n * t->k;
    float largest = 0;
    for (int64_t k = 0; k < t->k; k++) largest = fmaxf(largest, fabsf(w[k]));
    for (int64_t k = 0; k < t->k; k++)
      wrong += !(fabs((double)x[n * t->k + k] - (double)w[k]) <= rows[row].step * (double)largest);
  }
  free(x);
  return wrong;
}

START_TEST(weights_decode_to_the_tools_own_values) {
  char path[512];
  qn_model *m, *truth;
  snprintf(path, sizeof path, MODELS "%s", rows[_i].model);
  ck_assert_msg(qn_model_open(path, &m) == QN_OK, "%s", qn_io_errmsg());
  snprintf(path, sizeof path, MODELS "truth/%s.safetensors", rows[_i].truth);
  ck_assert_msg(qn_model_open(path, &truth) == QN_OK, "%s", qn_io_errmsg());
  int wrong = compare(m, truth, 0, _i) + compare(m, truth, 1, _i);
  ck_assert_msg(!wrong, "%s: %d elements differ; again: ctest --test-dir " QN_BUILD " -R '^io$' (row %d)",
                rows[_i].model, wrong, _i);
  qn_model_close(m);
  qn_model_close(truth);
}
END_TEST

START_TEST(every_weight_of_a_model_can_be_read) {
  char path[512];
  qn_model *m;
  snprintf(path, sizeof path, MODELS "%s", rows[_i].model);
  ck_assert_int_eq(qn_model_open(path, &m), QN_OK);
  int quantized = 0;
  const qn_tensor *t;
  for (size_t i = 0; (t = qn_model_tensor(m, i)); i++) {
    qn_planes *p = NULL;
    if (!t->format) ck_assert_msg(!t->refusal, "%s: %s", t->name, t->refusal);
    else ck_assert_msg(qn_model_planes(m, t, 0, &p) == QN_OK, "%s: %s", t->name, qn_io_errmsg());
    quantized += t->quantized && t->linear;
    qn_planes_free(p);
  }
  ck_assert_int_ge(quantized, 28); /* 4 layers of q k v o gate up down */
  qn_model_close(m);
}
END_TEST

/* ---- Hostile files ----------------------------------------------------------------------------------------------- */

static char *slurp(const char *path, size_t *n) {
  FILE *f = fopen(path, "rb");
  ck_assert_msg(f != NULL, "%s", path);
  fseek(f, 0, SEEK_END);
  *n = (size_t)ftell(f);
  rewind(f);
  char *p = malloc(*n);
  ck_assert_uint_eq(fread(p, 1, *n, f), *n);
  fclose(f);
  return p;
}

static qn_status open_bytes(const void *data, size_t n, qn_model **m) {
  char path[] = "/tmp/quernel-io-XXXXXX";
  int fd = mkstemp(path);
  ck_assert_int_eq(write(fd, data, n), (ssize_t)n);
  close(fd);
  qn_status s = qn_model_open(path, m);
  unlink(path);
  return s;
}

START_TEST(truncated_files_are_refused) {
  static const char *const files[] = {MODELS "tiny-llama-gptq4/model.safetensors", MODELS "tiny-llama-q4_0.gguf"};
  for (size_t f = 0; f < QN_COUNT(files); f++) {
    size_t n;
    char *data = slurp(files[f], &n);
    for (size_t cut = 1; cut < n; cut = cut < 4096 ? cut + 131 : cut * 3 / 2) {
      qn_model *m;
      ck_assert_msg(open_bytes(data, cut, &m) != QN_OK, "%s cut at %zu opens", files[f], cut);
      ck_assert_msg(*qn_io_errmsg() != 0, "no detail");
    }
    free(data);
  }
}
END_TEST

/* Bytes of the head changed at random: an error or a model all of whose planes can be asked for. */
START_TEST(damaged_heads_never_crash) {
  static const char *const files[] = {MODELS "tiny-llama-gptq4/model.safetensors", MODELS "tiny-llama-q4_0.gguf"};
  uint64_t seed = 12345 + (uint64_t)_i;
  for (size_t f = 0; f < QN_COUNT(files); f++) {
    size_t n;
    char *data = slurp(files[f], &n);
    for (int change = 0; change < 3; change++) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      data[(seed >> 20) % 6000] = (char)(seed >> 50);
    }
    qn_model *m;
    if (open_bytes(data, n, &m) == QN_OK) {
      const qn_tensor *t;
      for (size_t i = 0; (t = qn_model_tensor(m, i)); i++) {
        qn_planes *p = NULL;
        if (t->format && qn_model_planes(m, t, 0, &p) == QN_OK) qn_planes_free(p);
      }
      qn_model_close(m);
    }
    free(data);
  }
}
END_TEST

/* Hand-made safetensors headers, each wrong in one way. */
static const struct {
  const char *header, *expected;
  size_t data;
} headers[] = {
    {"{\"a\":{\"dtype\":\"F16\",\"shape\":[2,2],\"data_offsets\":[0,8]}}", NULL, 8},
    {"{\"a\":{\"dtype\":\"F16\",\"shape\":[2,2],\"data_offsets\":[0,9]}}", "its shape needs 8", 9},
    {"{\"a\":{\"dtype\":\"F16\",\"shape\":[2,2],\"data_offsets\":[0,8]}}", "truncated", 4},
    {"{\"a\":{\"dtype\":\"F16\",\"shape\":[2,2],\"data_offsets\":[0,8]}}", "after the last tensor", 12},
    {"{\"a\":{\"dtype\":\"F99\",\"shape\":[2],\"data_offsets\":[0,8]}}", "unknown dtype", 8},
    {"{\"a\":{\"dtype\":\"F16\",\"shape\":[4294967296,4294967296,4294967296],\"data_offsets\":[0,8]}}", "overflows", 8},
    {"{\"a\":{\"dtype\":\"F16\",\"shape\":[-1,4],\"data_offsets\":[0,8]}}", "whole number expected", 8},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_"
     "offsets\":[2,6]}}",
     "overlap", 6},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_"
     "offsets\":[6,10]}}",
     "hole", 10},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_"
     "offsets\":[2,4]}}",
     "occurs twice", 4},
    {"{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", "key k occurs twice", 0},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4]", "'}' expected", 4},
};

START_TEST(wrong_headers_say_what_is_wrong) {
  char file[1024] = {0};
  uint64_t n = strlen(headers[_i].header);
  memcpy(file, &n, 8);
  memcpy(file + 8, headers[_i].header, n);
  qn_model *m = NULL;
  qn_status s = open_bytes(file, 8 + n + headers[_i].data, &m);
  if (!headers[_i].expected) ck_assert_msg(s == QN_OK, "%s", qn_io_errmsg());
  else {
    ck_assert_int_eq(s, QN_E_FORMAT);
    ck_assert_msg(strstr(qn_io_errmsg(), headers[_i].expected) != NULL, "%s", qn_io_errmsg());
  }
  qn_model_close(m);
}
END_TEST

START_TEST(missing_files_are_named) {
  qn_model *m;
  ck_assert_int_eq(qn_model_open("/nowhere/model", &m), QN_E_IO);
  ck_assert_msg(strstr(qn_io_errmsg(), "/nowhere/model") != NULL, "%s", qn_io_errmsg());
}
END_TEST

START_TEST(npy_has_the_header_that_numpy_reads) {
  char path[] = "/tmp/quernel-npy-XXXXXX";
  close(mkstemp(path));
  const float x[6] = {1, 2, 3, 4, 5, 6};
  ck_assert_int_eq(qn_npy_write(path, x, 2, 3), QN_OK);
  size_t n;
  char *data = slurp(path, &n);
  ck_assert_uint_eq(n, 128 + sizeof x);
  ck_assert(!memcmp(data, "\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", 64));
  ck_assert(!memcmp(data + 128, x, sizeof x));
  free(data);
  unlink(path);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(weights_decode_to_the_tools_own_values, QN_COUNT(rows)),
      CASE(every_weight_of_a_model_can_be_read, QN_COUNT(rows)),
      CASE(truncated_files_are_refused, 1),
      CASE(damaged_heads_never_crash, 100),
      CASE(wrong_headers_say_what_is_wrong, QN_COUNT(headers)),
      CASE(missing_files_are_named, 1),
      CASE(npy_has_the_header_that_numpy_reads, 1),
  };
  return RUN_CASES(argv[0], cases, .timeout = 60);
}
