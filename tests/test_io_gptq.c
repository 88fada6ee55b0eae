/* test_io_gptq.c - integers packed into words as GPTQ and AWQ do: every width, version, packing and order, over random
 * shapes. */
#include "io_packed.h"

/* ---- GPTQ -------------------------------------------------------------------------------------------------------- */

static const struct {
  int bits;
  const char *layout; /* checkpoint_format; AutoRound's is packing_format */
  bool sym, order, channel;
} gptq[] = {{2, "gptq", false, false, true},
            {4, "gptq", true, false, true},
            {8, "gptq_v2", false, false, true},
            {2, "gptq", false, false, false},
            {2, "gptq", true, false, false},
            {2, "gptq_v2", false, false, false},
            {3, "gptq", false, true, false},
            {3, "gptq_v2", true, false, false},
            {3, "gptq_p", false, false, false},
            {4, "gptq", false, true, false},
            {4, "gptq", true, true, false},
            {4, "gptq_v2", false, true, false},
            {4, "gptq_p", false, false, false},
            {5, "gptq_p", false, true, false},
            {6, "gptq_p", false, false, false},
            {6, "gptq_p", true, true, false},
            {7, "gptq_p", false, false, false},
            {8, "gptq", false, false, false},
            {8, "gptq_v2", true, false, false},
            {4, "auto_round", false, false, false},
            {4, "auto_round:gptqmodel", true, false, false},
            {2, "auto_round:auto_gptq", false, false, false}};

START_TEST(gptq_of_every_width) {
  int row = _i % (int)QN_COUNT(gptq);
  seed = (uint64_t)_i;
  bits = gptq[row].bits;
  packing how = strcmp(gptq[row].layout, "gptq_p") ? DENSE : PLANAR;
  /* g_idx tells K; without it the rows of words do. */
  make_weight(1 + draw(100), gptq[row].order ? 33 + draw(MOST - 32) : 32 * (2 + draw(3)),
              gptq[row].channel ? MOST : 32);
  if (gptq[row].sym) midpoints();
  if (gptq[row].order) shuffle_groups();
  uint32_t *q = add("a.qweight", "I32", words_for(how, k), n, 4);
  uint32_t *z = add("a.qzeros", "I32", groups, words_for(how, n), 4);
  add_scales("a.scales", true);
  if (gptq[row].order) memcpy(add("a.g_idx", "I32", k, -1, 4), group_of, (size_t)k * 4);
  else if (_i % 3 == 1) add("a.g_idx", "I32", k, -1, 4); /* zeros: no order was set */
  const char *key = strncmp(gptq[row].layout, "auto_round", 10) ? "checkpoint_format" : "packing_format";
  int less = !strcmp(gptq[row].layout, "gptq") || strstr(gptq[row].layout, ":auto_gptq"); /* version 1 stores z - 1 */
  for (int64_t i = 0; i < n; i++) {
    for (int64_t j = 0; j < k; j++) put_code(q + i, n, how, j, code[i][j]);
    for (int64_t g = 0; g < groups; g++)
      put_code(z + g * words_for(how, n), 1, how, i, (unsigned)(zero[i][g] - less) & ((1u << bits) - 1));
  }
  char config[256], format[32];
  snprintf(
      config, sizeof config,
      "{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":%d,\"group_size\":%d,\"desc_act\":%s,\"sym\":%s,"
      "\"%s\":\"%s\"}}",
      bits, gptq[row].channel ? -1 : 32, gptq[row].order ? "true" : "false", gptq[row].sym ? "true" : "false", key,
      gptq[row].layout);
  snprintf(format, sizeof format, "int%d.%s%s", bits, gptq[row].channel ? "row" : "g32", gptq[row].sym ? "" : ".z");
  want_integers(false);
  compare(config, format, gptq[row].layout);
}
END_TEST

START_TEST(a_shard_of_an_ordered_weight) { /* all groups, but not all of their members */
  bool sym = _i % 2;
  seed = (uint64_t)_i;
  bits = 4;
  make_weight(8 * (1 + draw(8)), 64, 16);
  if (sym) midpoints();
  for (int64_t j = 0; j < k; j++) group_of[j] = (int32_t)draw(groups);
  uint32_t *q = add("a.qweight", "I32", k / 8, n, 4), *z = add("a.qzeros", "I32", groups, n / 8, 4);
  add_scales("a.scales", true);
  memcpy(add("a.g_idx", "I32", k, -1, 4), group_of, (size_t)k * 4);
  for (int64_t i = 0; i < n; i++) {
    for (int64_t j = 0; j < k; j++) put_code(q + i, n, DENSE, j, code[i][j]);
    for (int64_t g = 0; g < groups; g++) put_code(z + g * (n / 8), 1, DENSE, i, (unsigned)(zero[i][g] - 1) & 15);
  }
  want_integers(false);
  compare(sym ? "{\"quantization_config\":{\"bits\":4,\"group_size\":32,\"desc_act\":true,\"sym\":true}}"
              : "{\"quantization_config\":{\"bits\":4,\"group_size\":32,\"desc_act\":true,\"sym\":false}}",
          sym ? "int4.g1" : "int4.g1.z", "a shard");
}
END_TEST

/* ---- AWQ --------------------------------------------------------------------------------------------------------- */

typedef enum awq_layout { WORDS_OF_N, WORDS_OF_K, FOUR_ROWS } awq_layout;

#define QUARK(TYPE, ORDER)                                                                                             \
  "{\"quantization_config\":{\"quant_method\":\"quark\",\"group_size\":16,\"export\":{\"pack_method\":\"" ORDER        \
  "\"},\"global_quant_config\":{\"weight\":{\"dtype\":\"" TYPE "\",\"qscheme\":\"per_group\",\"group_size\":16}}}}"
#define AWQ(VERSION)                                                                                                   \
  "{\"quantization_config\":{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":16,\"version\":\"" VERSION "\"}}"

static const struct {
  const char *config, *codes, *zeros, *scales; /* zeros NULL: none */
  awq_layout layout;
  bool in_order, is_signed;
  const char *format;
} awq[] = {
    {AWQ("GEMM"), "a.qweight", "a.qzeros", "a.scales", WORDS_OF_N, false, false, "int4.g16.z"},
    {AWQ("exllama"), "a.qweight", "a.qzeros", "a.scales", WORDS_OF_N, false, false, "int4.g16.z"},
    {AWQ("gemv"), "a.qweight", "a.qzeros", "a.scales", WORDS_OF_K, false, false, "int4.g16.z"},
    {AWQ("gemv_fast"), "a.qweight", "a.qzeros", "a.scales", FOUR_ROWS, false, false, "int4.g16.m"},
    {QUARK("uint4", "reorder"), "a.weight", "a.weight_zero_point", "a.weight_scale", WORDS_OF_N, false, false,
     "int4.g16.z"},
    {QUARK("int4", "order"), "a.weight", "a.weight_zero_point", "a.weight_scale", WORDS_OF_N, true, true, "int4.g16.z"},
    {QUARK("int4", "reorder"), "a.weight", NULL, "a.weight_scale", WORDS_OF_N, false, true, "int4.g16"},
};

START_TEST(awq_of_every_layout) {
  static const int nibble_of[8] = {0, 4, 1, 5, 2, 6, 3, 7};
  int row = _i % (int)QN_COUNT(awq), flip = awq[row].is_signed ? 8 : 0;
  awq_layout layout = awq[row].layout;
  seed = (uint64_t)_i;
  bits = 4;
  make_weight(8 * (1 + draw(8)), layout == FOUR_ROWS ? 64 * (1 + draw(2)) : 16 * (2 + draw(4)), 16);
  int64_t most = layout == WORDS_OF_N ? groups : groups + 8 - groups % 8; /* scales of a row, some beyond its groups */
  if (!awq[row].zeros) midpoints();
  uint32_t *q = layout == WORDS_OF_N   ? add(awq[row].codes, "I32", k, n / 8, 4)
                : layout == WORDS_OF_K ? add(awq[row].codes, "I32", n, k / 8, 4)
                                       : add(awq[row].codes, "I16", n / 4, k, 2);
  uint16_t *s =
      layout == WORDS_OF_K ? add(awq[row].scales, "F16", n, most, 2) : add(awq[row].scales, "F16", most, n, 2);
  uint32_t *z = !awq[row].zeros        ? NULL
                : layout == WORDS_OF_N ? add(awq[row].zeros, "I32", groups, n / 8, 4)
                : layout == WORDS_OF_K ? add(awq[row].zeros, "I32", n, most / 8, 4)
                                       : add(awq[row].zeros, "F16", most, n, 2);
  want_integers(false);
  for (int64_t i = 0; i < n; i++) {
    int at = awq[row].in_order ? (int)(i % 8) : nibble_of[i % 8];
    for (int64_t j = 0; j < k; j++) {
      int64_t fast = j / 32 * 32 + j / 2 % 4 * 8 + j % 2 * 4 + j / 8 % 4;
      if (layout == WORDS_OF_N) q[j * (n / 8) + i / 8] |= (uint32_t)(code[i][j] ^ flip) << 4 * at;
      else if (layout == WORDS_OF_K) q[(i * k + j) / 8] |= (uint32_t)code[i][j] << 4 * (j % 8);
      else
        ((uint16_t *)q)[(i / 4 * (k / 64) + fast / 64) * 64 + (i % 4 * 64 + fast % 64) / 4] |=
            (uint16_t)(code[i][j] << 4 * (fast % 4));
    }
    for (int64_t g = 0; g < groups; g++) {
      s[layout == WORDS_OF_K ? i * most + g : g * n + i] = half(scale[i][g]);
      if (z && layout == WORDS_OF_N) z[g * (n / 8) + i / 8] |= (uint32_t)(zero[i][g] ^ flip) << 4 * at;
      else if (layout == WORDS_OF_K) z[i * (most / 8) + g / 8] |= (uint32_t)zero[i][g] << 4 * (g % 8);
      else if (z) { /* the minimum, rounded */ float min = -(float)zero[i][g] * scale[i][g];
        uint16_t h = half(min);
        ((uint16_t *)z)[g * n + i] = h;
        qn_convert(&h, QN_T_F16, &min, QN_T_F32, 1);
        for (int64_t j = g * 16; j < g * 16 + 16; j++)
          want[i][j] = (float)((double)code[i][j] * (double)scale[i][g] + (double)min);
      }
    }
  }
  compare(awq[row].config, awq[row].format, awq[row].config);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(gptq_of_every_width, 3 * (int)QN_COUNT(gptq)),
      CASE(a_shard_of_an_ordered_weight, 4),
      CASE(awq_of_every_layout, 3 * (int)QN_COUNT(awq)),
  };
  return RUN_CASES(argv[0], cases, setup, teardown, 60);
}
