/* test_io_pack.c - the settings that the sample checkpoints do not have: every width, version, packing, axis and order
 * of the integer dialects, over random shapes. Codes are packed here bit by bit after the definition, written to a
 * file, read back and decoded; the weights must agree exactly. */
#include "fail.h"
#include "io_decode.h"
#include "model.h"
#include "suite.h"
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST = 128 }; /* of N and of K */

static uint64_t seed;

static int64_t draw(int64_t below) { /* PCG's multiplier, upper bits */
  seed = seed * 6364136223846793005u + 1442695040888963407u;
  return (int64_t)(seed >> 33) % below;
}

/* ---- A weight ---------------------------------------------------------------------------------------------------- */

static int bits;
static int64_t n, k, group, groups;
static uint8_t code[MOST][MOST], zero[MOST][MOST];
static float scale[MOST][MOST], half_zero[MOST][MOST];
static int32_t group_of[MOST];

static int64_t ceildiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

static void make_weight(int64_t rows, int64_t cols, int64_t size) {
  n = rows, k = cols, group = size, groups = ceildiv(k, group);
  for (int64_t i = 0; i < n; i++) {
    for (int64_t j = 0; j < k; j++) code[i][j] = (uint8_t)draw(1 << bits);
    for (int64_t g = 0; g < groups; g++) {
      zero[i][g] = (uint8_t)draw(1 << bits);
      half_zero[i][g] = (float)draw(1000) / 64;
      scale[i][g] = (float)(1 + draw(1023)) / 4096;
    }
  }
  for (int64_t j = 0; j < k; j++) group_of[j] = (int32_t)(j / group);
}

static void shuffle_groups(void) {
  for (int64_t j = k - 1; j > 0; j--) {
    int64_t other = draw(j + 1);
    int32_t t = group_of[j];
    group_of[j] = group_of[other], group_of[other] = t;
  }
}

static void midpoints(void) {
  for (int64_t i = 0; i < n; i++)
    for (int64_t g = 0; g < groups; g++) zero[i][g] = (uint8_t)(1 << (bits - 1));
}

static uint16_t half(float x) {
  uint16_t h = 0;
  qn_convert(&x, QN_T_F32, &h, QN_T_F16, 1);
  return h;
}

/* ---- Packing ----------------------------------------------------------------------------------------------------- */

typedef enum packing { DENSE, PADDED, PLANAR } packing;

/* Put code i of a line into words `stride` apart. */
static void put_code(uint32_t *words, int64_t stride, packing how, int64_t i, unsigned value) {
  static const uint8_t planes[9][4] = {{0}, {1}, {2}, {2, 1}, {4}, {4, 1}, {4, 2}, {4, 2, 1}, {8}};
  const uint8_t whole[4] = {(uint8_t)bits};
  const uint8_t *widths = how == PLANAR ? planes[bits] : whole;
  int64_t base = how == PLANAR ? i / 32 * bits * 32 : 0, at = how == PLANAR ? i % 32 : i;
  for (int shift = 0; *widths; shift += *widths++) {
    for (int b = 0; b < *widths; b++) {
      int64_t bit = base + at * *widths + b;
      if (how == PADDED) bit = i / (32 / bits) * 32 + i % (32 / bits) * bits + b;
      words[bit / 32 * stride] |= (uint32_t)(value >> (shift + b) & 1) << bit % 32;
    }
    base += 32 * *widths;
  }
}

static int64_t words_for(packing how, int64_t count) {
  if (how == PLANAR) return ceildiv(count, 32) * bits;
  return how == PADDED ? ceildiv(count, 32 / bits) : ceildiv(count * bits, 32);
}

/* ---- A checkpoint ------------------------------------------------------------------------------------------------ */

static char folder[64];
static qn_save save[12];
static size_t n_save;

static void *add(const char *name, const char *dtype, int64_t d0, int64_t d1, size_t item) { /* d1 < 0: a vector */
  void *data = calloc((size_t)(d0 * (d1 < 0 ? 1 : d1)) + 1, item);
  save[n_save++] = (qn_save){name, dtype, d1 < 0 ? 1 : 2, {d0, d1}, data};
  return data;
}

static void add_scales(const char *name, bool by_group) { /* [G, N] or [N, G] */
  uint16_t *s = by_group ? add(name, "F16", groups, n, 2) : add(name, "F16", n, groups, 2);
  for (int64_t i = 0; i < n; i++)
    for (int64_t g = 0; g < groups; g++) s[by_group ? g * n + i : i * groups + g] = half(scale[i][g]);
}

static float want[MOST][MOST];

/* (code - zero) * scale, rounded once. */
static void want_integers(bool half_zeros) {
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < k; j++) {
      int32_t g = group_of[j];
      double z = half_zeros ? (double)half_zero[i][g] : zero[i][g];
      want[i][j] = (float)((code[i][j] - z) * (double)scale[i][g]);
    }
}

/* ---- Stacks: the tensors of two layers, one after the other, become those of two experts ------------------------- */

static float first[MOST][MOST]; /* what is wanted of the first */
static size_t n_first;          /* its tensors; 0: there is one layer */

static void end_first(void) {
  memcpy(first, want, sizeof first);
  n_first = n_save;
}

static void stack(void) {
  ck_assert_uint_eq(n_save, 2 * n_first);
  for (; n_save > n_first; n_save--) {
    qn_save *a = &save[n_save - 1 - n_first], *b = &save[n_save - 1];
    bool shape = !strcmp(a->name, "a.weight_shape");
    const qn__dtype *type = qn__safetensors_dtype(a->dtype, strlen(a->dtype));
    size_t bytes = (size_t)(a->dim[0] * (a->n_dims > 1 ? a->dim[1] : 1)) * (size_t)type->bytes;
    char *both = malloc(2 * bytes);
    memcpy(both, a->data, bytes), memcpy(both + bytes, b->data, bytes);
    if (shape) memcpy(both, (int64_t[]){2, n, k}, 24);
    free((void *)(uintptr_t)a->data), free((void *)(uintptr_t)b->data);
    *a = shape ? (qn_save){a->name, a->dtype, 1, {3}, both}
               : (qn_save){a->name, a->dtype, a->n_dims + 1, {2, a->dim[0], a->dim[1]}, both};
  }
}

/* Open it and compare every weight with what is wanted. */
static void compare(const char *config, const char *format, const char *what) {
  char path[128];
  snprintf(path, sizeof path, "%s/config.json", folder);
  FILE *f = fopen(path, "wb");
  ck_assert_ptr_nonnull(f);
  fputs(config, f);
  fclose(f);
  snprintf(path, sizeof path, "%s/model.safetensors", folder);
  ck_assert_msg(qn_safetensors_write(path, save, n_save, NULL, 0) == QN_OK, "%s", qn_io_errmsg());
  for (; n_save; n_save--) free((void *)(uintptr_t)save[n_save - 1].data);
  qn_model *m;
  qn_planes *p;
  ck_assert_msg(qn_model_open(folder, &m) == QN_OK, "%s: %s", what, qn_io_errmsg());
  const qn_tensor *t = qn_model_find(m, "a.weight");
  ck_assert_msg(t && t->format, "%s: %s", what, t ? t->refusal : "no a.weight");
  ck_assert_str_eq(t->format, format);
  ck_assert_int_eq(t->slices, n_first ? 2 : 1);
  for (int64_t slice = 0; slice < t->slices; slice++) {
    ck_assert_msg(qn_model_planes(m, t, slice, &p) == QN_OK, "%s: %s", what, qn_io_errmsg());
    ck_assert(p->n == n && p->k == k);
    static float x[MOST * MOST];
    ck_assert_ptr_null(io_decode(p, x));
    const float(*wanted)[MOST] = slice + 1 < t->slices ? first : want;
    for (int64_t i = 0; i < n; i++)
      for (int64_t j = 0; j < k; j++)
        ck_assert_msg(x[i * k + j] == wanted[i][j],
                      "%s (%jd x %jd, %d bits, group %jd): [%jd, %jd] is %.9g, not %.9g; again: " QN_BUILD
                      "/tests/test_io_pack",
                      what, (intmax_t)n, (intmax_t)k, bits, (intmax_t)group, (intmax_t)i, (intmax_t)j,
                      (double)x[i * k + j], (double)wanted[i][j]);
    qn_planes_free(p);
  }
  qn_model_close(m);
}

static void setup(void) {
  strcpy(folder, "/tmp/quernel-pack-XXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void teardown(void) {
  char command[128];
  snprintf(command, sizeof command, "rm -r %s", folder);
  ck_assert_int_eq(system(command), 0);
}

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

static double e4m3(unsigned c) {
  double v = c >> 3 & 15 ? ldexp(8 + (c & 7), (int)(c >> 3 & 15) - 10) : ldexp(c & 7, -9);
  return c & 128 ? -v : v;
}

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

/* Blocks of 64 codes run over the ends of rows of 48; scales plain or nested. */
START_TEST(bitsandbytes_blocks_cross_rows) {
  static const char state[] = "{\"quant_type\":\"nf4\",\"blocksize\":64,\"shape\":[%d,48],\"dtype\":\"float16\","
                              "\"nested_blocksize\":2,\"nested_offset\":0.25}";
  static const float nf4[16] = {
      -1,         -0.6961928f, -0.52507305f, -0.39491749f, -0.28444138f, -0.18477343f, -0.0910500363f, 0,
      0.0795803f, 0.1609302f,  0.2461123f,   0.33791524f,  0.44070983f,  0.562617f,    0.72295684f,    1};
  bool nested = _i % 2;
  char json[256];
  seed = (uint64_t)_i;
  bits = 4;
  make_weight(4 * (1 + draw(8)), 48, 16);
  int64_t blocks = ceildiv(n * k, 64);
  snprintf(json, sizeof json, state, (int)n);
  uint8_t *q = add("a.weight", "U8", n * k / 2, 1, 1), *small = NULL;
  float *absmax = nested ? NULL : add("a.weight.absmax", "F32", blocks, -1, 4), *map = NULL, *outer = NULL;
  if (nested) {
    small = add("a.weight.absmax", "U8", blocks, -1, 1);
    outer = add("a.weight.nested_absmax", "F32", ceildiv(blocks, 2), -1, 4);
    map = add("a.weight.nested_quant_map", "F32", 256, -1, 4);
    for (int i = 0; i < 256; i++) map[i] = (float)(i - 100) / 256;
    for (int64_t i = 0; i < ceildiv(blocks, 2); i++) outer[i] = (float)(1 + draw(100)) / 64;
  }
  memcpy(add("a.weight.quant_map", "F32", 16, -1, 4), nf4, sizeof nf4);
  memcpy(add("a.weight.quant_state.bitsandbytes__nf4", "U8", (int64_t)strlen(json), -1, 1), json, strlen(json));
  for (int64_t b = 0; b < blocks; b++)
    if (nested) small[b] = (uint8_t)draw(256);
    else absmax[b] = (float)(1 + draw(1000)) / 512;
  for (int64_t f = 0; f < n * k; f++) {
    int64_t b = f / 64;
    float a = nested ? map[small[b]] * outer[b / 2] + 0.25f : absmax[b];
    q[f / 2] |= (uint8_t)(code[f / k][f % k] << (f % 2 ? 0 : 4));
    want[f / k][f % k] = (float)((double)nf4[code[f / k][f % k]] * (double)a);
  }
  compare("{}", "nf4.g16.f32", nested ? "nested blocks" : "blocks");
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
  Suite *s = suite_create("io_pack");
  TCase *t = tcase_create("dialects");
  tcase_add_checked_fixture(t, setup, teardown);
  tcase_add_loop_test(t, gptq_of_every_width, 0, 3 * (int)QN_COUNT(gptq));
  tcase_add_loop_test(t, a_shard_of_an_ordered_weight, 0, 4);
  tcase_add_loop_test(t, awq_of_every_layout, 0, 3 * (int)QN_COUNT(awq));
  tcase_add_loop_test(t, compressed_tensors_of_every_width, 0, 3 * (int)QN_COUNT(ct));
  tcase_add_loop_test(t, int_quantized_with_zero_points, 0, 4);
  tcase_add_loop_test(t, a_scale_for_the_whole_tensor, 0, 8);
  tcase_add_loop_test(t, fp8_of_every_grain, 0, 3 * (int)QN_COUNT(fp8));
  tcase_add_loop_test(t, layers_and_stacks_of_them, 0, 2 * (int)QN_COUNT(layers));
  tcase_add_loop_test(t, bitsandbytes_blocks_cross_rows, 0, 6);
  tcase_add_loop_test(t, hqq_of_both_axes, 0, 8 * (int)QN_COUNT(hqq));
  suite_add_tcase(s, t);
  return run_suite(s, argv[0]);
}
