/* dtype.c - the element types of both containers, as one kind of record: `elems` elements take `bytes` bytes. */
#include "model.h"
#include <string.h>

static const qn__dtype safetensors[] = {
    {"BOOL", -1, 1, 1, QN_T_NONE},
    {"U8", -1, 1, 1, QN_T_U8},
    {"I8", -1, 1, 1, QN_T_I8},
    {"F8_E5M2", -1, 1, 1, QN_T_E5M2},
    {"F8_E4M3", -1, 1, 1, QN_T_E4M3},
    {"F8_E8M0", -1, 1, 1, QN_T_E8M0},
    {"F8_E4M3FNUZ", -1, 1, 1, QN_T_NONE},
    {"F8_E5M2FNUZ", -1, 1, 1, QN_T_NONE},
    {"I16", -1, 1, 2, QN_T_NONE},
    {"U16", -1, 1, 2, QN_T_U16},
    {"F16", -1, 1, 2, QN_T_F16},
    {"BF16", -1, 1, 2, QN_T_BF16},
    {"I32", -1, 1, 4, QN_T_I32},
    {"U32", -1, 1, 4, QN_T_U32},
    {"F32", -1, 1, 4, QN_T_F32},
    {"I64", -1, 1, 8, QN_T_NONE},
    {"U64", -1, 1, 8, QN_T_NONE},
    {"F64", -1, 1, 8, QN_T_F64},
    {"C64", -1, 1, 8, QN_T_NONE},
    {"F4", -1, 2, 1, QN_T_NONE},
    {"F6_E2M3", -1, 4, 3, QN_T_NONE},
    {"F6_E3M2", -1, 4, 3, QN_T_NONE},
};

static const qn__dtype ggml[] = {
    {"F32", 0, 1, 4, QN_T_F32},          {"F16", 1, 1, 2, QN_T_F16},          {"Q4_0", 2, 32, 18, QN_T_NONE},
    {"Q4_1", 3, 32, 20, QN_T_NONE},      {"Q5_0", 6, 32, 22, QN_T_NONE},      {"Q5_1", 7, 32, 24, QN_T_NONE},
    {"Q8_0", 8, 32, 34, QN_T_NONE},      {"Q8_1", 9, 32, 36, QN_T_NONE},      {"Q2_K", 10, 256, 84, QN_T_NONE},
    {"Q3_K", 11, 256, 110, QN_T_NONE},   {"Q4_K", 12, 256, 144, QN_T_NONE},   {"Q5_K", 13, 256, 176, QN_T_NONE},
    {"Q6_K", 14, 256, 210, QN_T_NONE},   {"Q8_K", 15, 256, 292, QN_T_NONE},   {"IQ2_XXS", 16, 256, 66, QN_T_NONE},
    {"IQ2_XS", 17, 256, 74, QN_T_NONE},  {"IQ3_XXS", 18, 256, 98, QN_T_NONE}, {"IQ1_S", 19, 256, 50, QN_T_NONE},
    {"IQ4_NL", 20, 32, 18, QN_T_NONE},   {"IQ3_S", 21, 256, 110, QN_T_NONE},  {"IQ2_S", 22, 256, 82, QN_T_NONE},
    {"IQ4_XS", 23, 256, 136, QN_T_NONE}, {"I8", 24, 1, 1, QN_T_I8},           {"I16", 25, 1, 2, QN_T_NONE},
    {"I32", 26, 1, 4, QN_T_I32},         {"I64", 27, 1, 8, QN_T_NONE},        {"F64", 28, 1, 8, QN_T_F64},
    {"IQ1_M", 29, 256, 56, QN_T_NONE},   {"BF16", 30, 1, 2, QN_T_BF16},       {"TQ1_0", 34, 256, 54, QN_T_NONE},
    {"TQ2_0", 35, 256, 66, QN_T_NONE},   {"I2_S", 36, 4, 1, QN_T_NONE},       {"MXFP4", 39, 32, 17, QN_T_NONE},
    {"NVFP4", 40, 64, 36, QN_T_NONE},    {"Q1_0", 41, 128, 18, QN_T_NONE},    {"Q2_0", 42, 64, 18, QN_T_NONE},
};

const qn__dtype *qn__safetensors_dtype(const char *name, size_t length) {
  for (size_t i = 0; i < QN_COUNT(safetensors); i++)
    if (strlen(safetensors[i].name) == length && !memcmp(safetensors[i].name, name, length)) return &safetensors[i];
  return NULL;
}

const qn__dtype *qn__ggml_dtype(uint32_t id) {
  for (size_t i = 0; i < QN_COUNT(ggml); i++)
    if (ggml[i].id == (int64_t)id) return &ggml[i];
  return NULL;
}

const char *qn__dtype_name(qn_type type) {
  for (size_t i = 0; i < QN_COUNT(safetensors); i++)
    if (type != QN_T_NONE && safetensors[i].type == type) return safetensors[i].name;
  return NULL;
}

const qn__dtype *qn__dtype_named(const char *name, bool gguf) {
  if (!gguf) return qn__safetensors_dtype(name, strlen(name));
  for (size_t i = 0; i < QN_COUNT(ggml); i++)
    if (!strcmp(ggml[i].name, name)) return &ggml[i];
  return NULL;
}

bool qn__dtype_bytes(const qn__dtype *t, const int64_t *dim, int n_dims, uint64_t *bytes) {
  int64_t n = 1;
  bool empty = false;
  for (int i = 0; i < n_dims; i++) {
    if (dim[i] < 0) return false;
    if (!dim[i]) empty = true;
    else if (__builtin_mul_overflow(n, dim[i], &n)) return false;
  }
  if (empty) n = 0;
  int64_t row = n_dims && t->id >= 0 ? dim[n_dims - 1] : n; /* ggml's blocks do not cross rows */
  if (row % t->elems) return false;
  *bytes = (uint64_t)(n / t->elems);
  return !__builtin_mul_overflow(*bytes, (uint64_t)t->bytes, bytes) && *bytes <= INT64_MAX;
}
