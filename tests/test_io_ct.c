/* test_io_ct.c - compressed-tensors of every width, one scale for the whole tensor, 8-bit floats of every grain. */
#include "io_packed.h"

/* ---- compressed-tensors ------------------------------------------------------------------------------------------ */

static const struct {
  int bits;
  packing how;
  bool asym, order, channel;
} ct[] = {{1, DENSE, false, false, false}, {2, DENSE, true, false, false},   {3, DENSE, true, false, false},
          {3, PADDED, true, false, false}, {3, PADDED, false, true, false},  {4, DENSE, true, true, false},
          {4, DENSE, false, true, false},  {4, DENSE, true, false, true},    {5, PADDED, true, false, false},
          {5, DENSE, false, false, true},  {6, PADDED, false, false, false}, {7, DENSE, true, false, false},
          {7, PADDED, true, false, true},  {8, DENSE, true, false, true},    {8, DENSE, false, true, false}};

START_TEST(compressed_tensors_of_every_width) {
  int row = _i % (int)QN_COUNT(ct);
  seed = (uint64_t)_i;
  bits = ct[row].bits;
  packing how = ct[row].how;
  k = 40 + draw(80); /* K need not be a multiple of anything */
  make_weight(5 + draw(60), k, ct[row].channel ? k : 16);
  if (!ct[row].asym) midpoints();
  if (ct[row].order) shuffle_groups();
  uint32_t *q = add("a.weight_packed", "I32", n, words_for(how, k), 4);
  memcpy(add("a.weight_shape", "I64", 2, -1, 8), (int64_t[]){n, k}, 16);
  add_scales("a.weight_scale", false);
  uint32_t *z = ct[row].asym ? add("a.weight_zero_point", "I32", words_for(how, n), groups, 4) : NULL;
  if (ct[row].order) memcpy(add("a.weight_g_idx", "I32", k, -1, 4), group_of, (size_t)k * 4);
  for (int64_t i = 0; i < n; i++) {
    for (int64_t j = 0; j < k; j++) put_code(q + i * words_for(how, k), 1, how, j, code[i][j]);
    for (int64_t g = 0; z && g < groups; g++) put_code(z + g, groups, how, i, zero[i][g]);
  }
  char config[256], format[32];
  snprintf(
      config, sizeof config,
      "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"config_groups\":{\"group_0\":{\"weights\":{"
      "\"num_bits\":%d,\"group_size\":%s}}}}}",
      bits, ct[row].channel ? "null" : "16");
  snprintf(format, sizeof format, "int%d.%s%s", bits, ct[row].channel ? "row" : "g16", z ? ".z" : "");
  want_integers(false);
  compare(config, format, "compressed-tensors");
}
END_TEST

START_TEST(int_quantized_with_zero_points) {
  seed = (uint64_t)_i;
  bits = 8;
  make_weight(1 + draw(60), 1 + draw(100), MOST);
  int8_t *q = add("a.weight", "I8", n, k, 1), *z = add("a.weight_zero_point", "I8", n, 1, 1);
  add_scales("a.weight_scale", false);
  for (int64_t i = 0; i < n; i++) {
    z[i] = (int8_t)(zero[i][0] - 128);
    for (int64_t j = 0; j < k; j++) q[i * k + j] = (int8_t)(code[i][j] - 128);
  }
  want_integers(false);
  compare("{}", "int8.row.z", "int-quantized");
}
END_TEST

/* ---- One scale for the whole, and floats ------------------------------------------------------------------------- */

static void one_scale(const char *name) {
  uint16_t h = half(scale[0][0]);
  memcpy(add(name, "F16", 1, -1, 2), &h, 2);
}

START_TEST(a_scale_for_the_whole_tensor) {
  bool packed = _i % 2, asym = _i / 2 % 2;
  seed = (uint64_t)_i;
  bits = packed ? 4 : 8;
  make_weight(2 + draw(60), 8 * (1 + draw(15)), MOST);
  if (!asym) midpoints();
  for (int64_t i = 0; i < n; i++) scale[i][0] = scale[0][0], zero[i][0] = zero[0][0];
  want_integers(false);
  uint32_t *q = packed ? add("a.weight_packed", "I32", n, k / 8, 4) : add("a.weight", "I8", n, k, 1);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < k; j++)
      if (packed) put_code(q + i * (k / 8), 1, DENSE, j, code[i][j]);
      else ((int8_t *)q)[i * k + j] = (int8_t)(code[i][j] - 128);
  if (packed) memcpy(add("a.weight_shape", "I64", 2, -1, 8), (int64_t[]){n, k}, 16);
  if (asym) *(int8_t *)add("a.weight_zero_point", "I8", 1, -1, 1) = (int8_t)(zero[0][0] - (1 << (bits - 1)));
  one_scale("a.weight_scale");
  char format[32];
  snprintf(format, sizeof format, "int%d.tensor%s", bits, asym ? ".z" : "");
  compare("{}", format, "a scale for the tensor");
}
END_TEST

static const struct {
  int64_t rows, cols; /* of a block of codes with one scale; 0: all of them */
  const char *config, *format;
} fp8[] = {
    {0, 0, "{}", "e4m3.tensor"},
    {1, 0, "{}", "e4m3.row"},
    {1, 16, "{\"quantization_config\":{\"config_groups\":{\"a\":{\"weights\":{\"group_size\":16}}}}}", "e4m3.g16"},
    {8, 16, "{\"quantization_config\":{\"weight_block_size\":[8,16]}}", "e4m3.b8x16"},
    {8, 16, "{\"quantization_config\":{\"config_groups\":{\"a\":{\"weights\":{\"block_structure\":[8,16]}}}}}",
     "e4m3.b8x16"},
};

START_TEST(fp8_of_every_grain) {
  int row = _i % (int)QN_COUNT(fp8);
  seed = (uint64_t)_i;
  bits = 8;
  make_weight(17 + draw(60), 16 * (2 + draw(4)) + (fp8[row].rows > 1 ? draw(16) : 0), 1);
  int64_t rows = fp8[row].rows ? fp8[row].rows : n, cols = fp8[row].cols ? fp8[row].cols : k;
  uint8_t *q = add("a.weight", "F8_E4M3", n, k, 1);
  const char *name = row == 3 ? "a.weight_scale_inv" : "a.weight_scale";
  uint16_t *s =
      rows == n && cols == k ? add(name, "F16", 1, -1, 2) : add(name, "F16", ceildiv(n, rows), ceildiv(k, cols), 2);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < k; j++) {
      int64_t r = i / rows, c = j / cols;
      uint8_t v = code[i][j] % 128 == 127 ? 0 : code[i][j]; /* no NaN */
      q[i * k + j] = v;
      s[r * ceildiv(k, cols) + c] = half(scale[r][c]);
      want[i][j] = (float)(e4m3(v) * (double)scale[r][c]);
    }
  compare(fp8[row].config, fp8[row].format, "fp8");
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(compressed_tensors_of_every_width, 3 * (int)QN_COUNT(ct)),
      CASE(int_quantized_with_zero_points, 4),
      CASE(a_scale_for_the_whole_tensor, 8),
      CASE(fp8_of_every_grain, 3 * (int)QN_COUNT(fp8)),
  };
  return RUN_CASES(argv[0], cases, setup, teardown, 60);
}
