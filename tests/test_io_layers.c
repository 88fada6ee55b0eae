/* test_io_layers.c - one layer of each layout that the sample checkpoints do not have, and a stack of two; blocks that
 * cross rows; HQQ. */
#include "io_packed.h"

/* ---- One layer of each layout, and a stack of two ---------------------------------------------------------------- */

static const float e2m1[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};

static double e8m0(unsigned c) { return ldexp(1, (int)c - 127); }

static void nibbles_of_k(const char *name, const char *dtype) { /* two to a byte, the even k low */
  uint8_t *q = add(name, dtype, n, k / 2, 1);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < k; j++) q[(i * k + j) / 2] |= (uint8_t)(code[i][j] << j % 2 * 4);
}

/* Float codes times one scale for each block of `rows` x `cols`, of values that scale_of makes of a byte. */
static void want_floats(uint8_t *s, int64_t rows, int64_t cols, double (*scale_of)(unsigned)) {
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < k; j++) {
      double v = bits == 4 ? (double)e2m1[code[i][j] & 7] * (code[i][j] & 8 ? -1 : 1) : e4m3(code[i][j]);
      uint8_t *at = &s[i / rows * ceildiv(k, cols) + j / cols];
      if (!*at) *at = (uint8_t)(100 + draw(20));
      want[i][j] = (float)(v * scale_of(*at));
    }
}

static void fp8_codes(void) {
  for (int64_t i = 0; i < n * k; i++)
    if (code[i / k][i % k] % 128 == 127) code[i / k][i % k] = 0; /* no NaN */
  uint8_t *q = add("a.weight", "F8_E4M3", n, k, 1);
  for (int64_t i = 0; i < n * k; i++) q[i] = code[i / k][i % k];
}

static void ct_packed(void) {
  uint32_t *q = add("a.weight_packed", "I32", n, k / 8, 4),
           *z = add("a.weight_zero_point", "I32", ceildiv(n, 8), groups, 4);
  memcpy(add("a.weight_shape", "I64", 2, -1, 8), (int64_t[]){n, k}, 16);
  add_scales("a.weight_scale", false);
  for (int64_t i = 0; i < n; i++) {
    for (int64_t j = 0; j < k; j++) put_code(q + i * (k / 8), 1, DENSE, j, code[i][j]);
    for (int64_t g = 0; g < groups; g++) put_code(z + g, groups, DENSE, i, zero[i][g]);
  }
  want_integers(false);
}

static void ct_int8(void) {
  int8_t *q = add("a.weight", "I8", n, k, 1);
  midpoints();
  add_scales("a.weight_scale", false);
  for (int64_t i = 0; i < n * k; i++) q[i] = (int8_t)(code[i / k][i % k] - 128);
  want_integers(false);
}

static void int8_blocks(void) {
  int8_t *q = add("a.weight", "I8", n, k, 1);
  float *s = add("a.weight_scale_inv", "F32", ceildiv(n, 8), ceildiv(k, 16), 4);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < k; j++) {
      q[i * k + j] = (int8_t)(code[i][j] - 128);
      s[i / 8 * ceildiv(k, 16) + j / 16] = scale[i / 8][j / 16 % groups];
      want[i][j] = (float)(q[i * k + j] * (double)scale[i / 8][j / 16 % groups]);
    }
}

static void fp8_blocks(void) {
  fp8_codes();
  want_floats(add("a.weight_scale_inv", "F8_E8M0", ceildiv(n, 8), ceildiv(k, 16), 1), 8, 16, e8m0);
}

static void fp8_blocks_of_bytes(void) {
  fp8_codes();
  want_floats(add("a.scale", "U8", ceildiv(n, 8), ceildiv(k, 16), 1), 8, 16, e8m0);
}

static void fp8_mx(void) {
  fp8_codes();
  want_floats(add("a.weight_scale", "U8", n, k / 32, 1), 1, 32, e8m0);
}

/* Two or three scales for parts of the rows. */
static void fused(int parts, const int64_t *end) {
  float *s = add("a.weight_scale", "F32", parts, -1, 4);
  fp8_codes();
  for (int i = 0; i < parts; i++) s[i] = scale[0][i];
  for (int64_t i = 0, part = 0; i < n; i++) {
    part += i == end[part];
    for (int64_t j = 0; j < k; j++) want[i][j] = (float)(e4m3(code[i][j]) * (double)s[part]);
  }
}

static void fp8_gate_up(void) { fused(2, (int64_t[]){n / 2, n}); }
static void fp8_qkv(void) { fused(3, (int64_t[]){n / 3, n / 3 * 2, n}); }
static void fp8_qkv_of_few_pairs(void) { fused(3, (int64_t[]){n / 6 * 4, n / 6 * 5, n}); }

static void mx4(void) {
  nibbles_of_k("a.weight", "U8");
  want_floats(add("a.weight_scale", "U8", n, k / 32, 1), 1, 32, e8m0);
}

static void mx4_of_deepseek(void) {
  nibbles_of_k("a.weight", "I8");
  want_floats(add("a.scale", "F8_E8M0", n, k / 32, 1), 1, 32, e8m0);
}

static void nv4(void) {
  nibbles_of_k("a.weight", "U8");
  want_floats(add("a.weight_scale", "F8_E4M3", n, k / 16, 1), 1, 16, e4m3);
  *(float *)add("a.weight_scale_2", "F32", 1, -1, 4) = 0.5f;
  for (int64_t i = 0; i < n * k; i++) want[i / k][i % k] *= 0.5f;
}

static void mlx(const char *dtype, double (*scale_of)(unsigned), int64_t size) {
  int64_t words = k * bits / 32;
  uint32_t *q = add("a.weight", "U32", n, words, 4);
  for (int64_t i = 0; i < n * k; i++) put_code(q + i / k * words, 1, DENSE, i % k, code[i / k][i % k]);
  if (dtype) want_floats(add("a.scales", dtype, n, k / size, 1), 1, size, scale_of);
}

static void mlx_affine(void) {
  mlx(NULL, NULL, 0);
  add_scales("a.scales", false);
  uint16_t *b = add("a.biases", "F16", n, groups, 2);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < k; j++) {
      int64_t g = j / group;
      b[i * groups + g] = half(half_zero[i][g]);
      want[i][j] = (float)((double)code[i][j] * (double)scale[i][g] + (double)half_zero[i][g]);
    }
}

static void mlx_mxfp4(void) { mlx("U8", e8m0, 32); }
static void mlx_nvfp4(void) { mlx("U8", e4m3, 16); }

static void modelopt_int4(void) {
  uint8_t *q = add("a.weight", "U8", n / 2, k, 1);
  midpoints();
  add_scales("a.weight_scale", false);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < k; j++) q[i / 2 * k + j] |= (uint8_t)((code[i][j] ^ 8) << i % 2 * 4);
  want_integers(false);
}

#define BLOCKS "{\"quantization_config\":{\"weight_block_size\":[8,16],\"scale_fmt\":\"ue8m0\"}}"
#define MLX(MODE, BITS) /* of this module; the others have more */                                                     \
  "{\"quantization\":{\"group_size\":64,\"bits\":8,\"a\":{\"group_size\":32,\"bits\":" BITS ",\"mode\":\"" MODE "\"}}" \
  "}"

static const struct {
  void (*make)(void);
  int bits;
  const char *config, *format;
} layers[] = {
    {ct_packed, 4, "{}", "int4.g32.z"},
    {ct_int8, 8, "{}", "int8.g32"},
    {int8_blocks, 8, BLOCKS, "int8.g16.f32"},
    {fp8_blocks, 8, BLOCKS, "e4m3.b8x16.f32"},
    {fp8_blocks_of_bytes, 8, BLOCKS, "e4m3.b8x16.f32"},
    {fp8_mx, 8, "{}", "mxfp8"},
    {fp8_gate_up, 8, "{}", "e4m3.row.f32"},
    {fp8_qkv, 8, "{}", "e4m3.row.f32"},
    {fp8_qkv_of_few_pairs, 8, "{\"num_attention_heads\":8,\"num_key_value_heads\":2}", "e4m3.row.f32"},
    {mx4, 4, "{}", "mxfp4"},
    {mx4_of_deepseek, 4, "{}", "mxfp4"},
    {nv4, 4, "{}", "nvfp4"},
    {mlx_affine, 2, MLX("affine", "2"), "int2.g32.m"},
    {mlx_affine, 3, MLX("affine", "3"), "int3.g32.m"},
    {mlx_affine, 4, MLX("affine", "4"), "int4.g32.m"},
    {mlx_affine, 5, MLX("affine", "5"), "int5.g32.m"},
    {mlx_affine, 6, MLX("affine", "6"), "int6.g32.m"},
    {mlx_affine, 8, MLX("affine", "8"), "int8.g32.m"},
    {mlx_mxfp4, 4, MLX("mxfp4", "4"), "mxfp4"},
    {mlx_nvfp4, 4, MLX("nvfp4", "4"), "nvfp4"},
    {modelopt_int4, 4, "{}", "int4.g32"},
};

START_TEST(layers_and_stacks_of_them) {
  int row = _i / 2;
  seed = (uint64_t)_i;
  bits = layers[row].bits;
  int64_t rows = 12 * (1 + draw(5)), cols = 32 * (2 + draw(3)); /* 12: halves, thirds, sixths */
  for (int layer = 0; layer <= _i % 2; layer++) {
    if (layer) end_first();
    make_weight(rows, cols, 32);
    layers[row].make();
  }
  if (_i % 2) stack();
  compare(layers[row].config, layers[row].format, layers[row].format);
}
END_TEST

/* As bitsandbytes saves them. */
static const struct {
  const char *name, *state;
  float values[16];
} bnb[] = {{"nf4",
            "a.weight.quant_state.bitsandbytes__nf4",
            {-1, -0.6961928f, -0.52507305f, -0.39491749f, -0.28444138f, -0.18477343f, -0.0910500363f, 0, 0.0795803f,
             0.1609302f, 0.2461123f, 0.33791524f, 0.44070983f, 0.562617f, 0.72295684f, 1}},
           {"fp4",
            "a.weight.quant_state.bitsandbytes__fp4",
            {0, 0.0052083333f, 2 / 3.f, 1, 1 / 3.f, 0.5f, 1 / 6.f, 0.25f, -0.f, -0.0052083333f, -2 / 3.f, -1, -1 / 3.f,
             -0.5f, -1 / 6.f, -0.25f}}};

/* Blocks of 64 codes run over the ends of rows of 48; scales plain or nested. */
START_TEST(bitsandbytes_blocks_cross_rows) {
  static const char state[] = "{\"quant_type\":\"%s\",\"blocksize\":64,\"shape\":[%d,48],\"dtype\":\"float16\","
                              "\"nested_blocksize\":2,\"nested_offset\":0.25}";
  const int table = _i / 2 % (int)QN_COUNT(bnb);
  const float *values = bnb[table].values;
  bool nested = _i % 2;
  char json[256];
  seed = (uint64_t)_i;
  bits = 4;
  make_weight(4 * (1 + draw(8)), 48, 16);
  int64_t blocks = ceildiv(n * k, 64);
  snprintf(json, sizeof json, state, bnb[table].name, (int)n);
  uint8_t *q = add("a.weight", "U8", n * k / 2, 1, 1), *small = NULL;
  float *absmax = nested ? NULL : add("a.weight.absmax", "F32", blocks, -1, 4), *map = NULL, *outer = NULL;
  if (nested) {
    small = add("a.weight.absmax", "U8", blocks, -1, 1);
    outer = add("a.weight.nested_absmax", "F32", ceildiv(blocks, 2), -1, 4);
    map = add("a.weight.nested_quant_map", "F32", 256, -1, 4);
    for (int i = 0; i < 256; i++) map[i] = (float)(i - 100) / 256;
    for (int64_t i = 0; i < ceildiv(blocks, 2); i++) outer[i] = (float)(1 + draw(100)) / 64;
  }
  memcpy(add("a.weight.quant_map", "F32", 16, -1, 4), values, sizeof bnb->values);
  memcpy(add(bnb[table].state, "U8", (int64_t)strlen(json), -1, 1), json, strlen(json));
  for (int64_t b = 0; b < blocks; b++)
    if (nested) small[b] = (uint8_t)draw(256);
    else absmax[b] = (float)(1 + draw(1000)) / 512;
  for (int64_t f = 0; f < n * k; f++) {
    int64_t b = f / 64;
    float a = nested ? map[small[b]] * outer[b / 2] + 0.25f : absmax[b];
    q[f / 2] |= (uint8_t)(code[f / k][f % k] << (f % 2 ? 0 : 4));
    want[f / k][f % k] = (float)((double)values[code[f / k][f % k]] * (double)a);
  }
  compare("{}", table ? "fp4.g16.f32" : "nf4.g16.f32", nested ? "nested blocks" : "blocks");
}
END_TEST

/* ---- HQQ --------------------------------------------------------------------------------------------------------- */

static const struct {
  const char *packing;
  int bits, parts, item;
} hqq[] = {
    {"8bit_u8", 8, 1, 1}, {"4bit_u8", 4, 2, 1}, {"3bit_32", 3, 10, 4}, {"2bit_u8", 2, 4, 1}, {"1bit_u8", 1, 8, 1}};

static void put_float(void *array, int64_t i, bool wide, float x) { /* f32 or f16 */
  if (wide) ((float *)array)[i] = x;
  else ((uint16_t *)array)[i] = half(x);
}

static void add_number(const char *name, int32_t v) {
  memcpy(add(name, "I32", 1, -1, 4), &v, 4);
  save[n_save - 1].n_dims = 0;
}

START_TEST(hqq_of_both_axes) {
  int row = _i % (int)QN_COUNT(hqq), axis = _i / (int)QN_COUNT(hqq) % 2;
  bool wide = _i / (2 * (int)QN_COUNT(hqq)) % 2, by_row = axis && _i / (4 * (int)QN_COUNT(hqq)) % 2;
  seed = (uint64_t)_i;
  bits = hqq[row].bits;
  int64_t rows = 32, cols = 64, size = by_row ? cols : 16; /* of W; M is [N K / size, size] or [size, N K / size] */
  make_weight(rows, cols, axis ? size : 1);
  for (int64_t i = 0; wide && i < n; i++)
    for (int64_t g = 0; g < groups; g++) half_zero[i][g] += 0x1p-14f; /* no f16 */
  if (!axis) /* element f has the scale of column f mod (N K / 16) */
    for (int64_t f = 0; f < rows * cols; f++) {
      int64_t column = f % (rows * cols / size);
      scale[f / cols][f % cols] = scale[column / cols][column % cols];
      half_zero[f / cols][f % cols] = half_zero[column / cols][column % cols];
    }
  int64_t count = rows * cols / size, m_rows = axis ? count : size, m_cols = axis ? size : count;
  int64_t step = ceildiv(m_rows, hqq[row].parts);
  uint8_t *q = add("a.W_q", hqq[row].item == 4 ? "I32" : "U8", step, m_cols, (size_t)hqq[row].item);
  const char *type = wide ? "F32" : "F16";
  void *s = add("a.scale", type, axis ? count : 1, axis ? 1 : count, wide ? 4 : 2);
  void *z = add("a.zero", type, axis ? count : 1, axis ? 1 : count, wide ? 4 : 2);
  for (int64_t f = 0; f < rows * cols; f++) {
    int64_t r = f / m_cols, c = f % m_cols, i = f / cols, j = f % cols, of = axis ? r : c;
    int part = (int)(r / step), shift = hqq[row].item == 4 ? 27 - 3 * part : 8 - bits * (part + 1);
    uint32_t word = (uint32_t)code[i][j] << shift;
    for (int b = 0; b < hqq[row].item; b++) q[(r % step * m_cols + c) * hqq[row].item + b] |= (uint8_t)(word >> 8 * b);
    put_float(s, of, wide, scale[i][group_of[j]]);
    put_float(z, of, wide, half_zero[i][group_of[j]]);
  }
  memcpy(add("a.shape", "I64", 2, -1, 8), (int64_t[]){n, k}, 16);
  add_number("a.axis", axis), add_number("a.nbits", bits);
  memcpy(add("a.packing", "U8", (int64_t)strlen(hqq[row].packing), -1, 1), hqq[row].packing, strlen(hqq[row].packing));
  char format[32];
  snprintf(format, sizeof format, "int%d.%s.%s", bits, by_row ? "row" : axis ? "g16" : "g1", wide ? "zf32.f32" : "zf");
  want_integers(true);
  compare("{}", format, hqq[row].packing);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(layers_and_stacks_of_them, 2 * (int)QN_COUNT(layers)),
      CASE(bitsandbytes_blocks_cross_rows, 6),
      CASE(hqq_of_both_axes, 8 * (int)QN_COUNT(hqq)),
  };
  return RUN_CASES(argv[0], cases, setup, teardown, 60);
}
