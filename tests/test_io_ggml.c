/* test_io_ggml.c - every block type of GGUF, random blocks: what the planes decode to against the type's definition,
 * written here element by element. */
#include "fail.h"
#include "ggml.h"
#include "io_decode.h"
#include "suite.h"
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- Definitions: element i of block b --------------------------------------------------------------------------- */

static double half(const uint8_t *p) {
  uint16_t h;
  float x = 0;
  memcpy(&h, p, 2);
  qn_convert(&h, QN_T_F16, &x, QN_T_F32, 1);
  return (double)x;
}

static int nibble(const uint8_t *qs, int i) { return i < 16 ? qs[i] & 15 : qs[i - 16] >> 4; }
static int fifth(const uint8_t *qh, int i) { return (qh[i / 8] >> i % 8 & 1) << 4; }
static int two(const uint8_t *qs, int i) { return qs[32 * (i / 128) + i % 32] >> 2 * (i % 128 / 32) & 3; }
static const int iq4[] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
static const double e2m1[] = {0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6};

static double q1_0(const uint8_t *b, int i) { return half(b) * (b[2 + i / 8] >> i % 8 & 1 ? 1 : -1); }
static double q4_0(const uint8_t *b, int i) { return half(b) * (nibble(b + 2, i) - 8); }
static double q4_1(const uint8_t *b, int i) { return half(b) * nibble(b + 4, i) + half(b + 2); }
static double q5_0(const uint8_t *b, int i) { return half(b) * ((nibble(b + 6, i) | fifth(b + 2, i)) - 16); }
static double q5_1(const uint8_t *b, int i) { return half(b) * (nibble(b + 8, i) | fifth(b + 4, i)) + half(b + 2); }
static double q8_0(const uint8_t *b, int i) { return half(b) * (int8_t)b[2 + i]; }
static double iq4_nl(const uint8_t *b, int i) { return half(b) * iq4[nibble(b + 2, i)]; }
static double mxfp4(const uint8_t *b, int i) { return ldexp(e2m1[nibble(b + 1, i)], b[0] - 127); }
static double tq2_0(const uint8_t *b, int i) { return half(b + 64) * (two(b, i) - 1); }
static double q2_0(const uint8_t *b, int i) { return half(b) * ((b[2 + i / 4] >> 2 * (i % 4) & 3) - 1); }

static double nvfp4(const uint8_t *b, int i) {
  int e = b[i / 16] & 0x7f, t = i / 16, j = i % 16;
  double scale = e == 0x7f ? 0 : e >> 3 ? ldexp(8 + (e & 7), (e >> 3) - 10) : ldexp(e & 7, -9);
  return scale * e2m1[b[4 + 8 * t + j % 8] >> (j < 8 ? 0 : 4) & 15];
}

static double q2_k(const uint8_t *b, int i) {
  return half(b + 80) * (b[i / 16] & 15) * two(b + 16, i) - half(b + 82) * (b[i / 16] >> 4);
}

static double q3_k(const uint8_t *b, int i) {
  int s = i / 16, h = i / 128, j = i % 128 / 32, l = i % 32;
  int low = s < 8 ? b[96 + s] & 15 : b[96 + s - 8] >> 4, high = b[96 + 8 + s % 4] >> 2 * (s / 4) & 3;
  int q = two(b + 32, i) - (b[l] >> (4 * h + j) & 1 ? 0 : 4);
  return half(b + 108) * ((low | high << 4) - 32) * q;
}

static double with_minimum(const uint8_t *b, int i, int q) { /* Q4_K and Q5_K */
  const uint8_t *s = b + 4;
  int j = i / 32, sc = s[j] & 63, mn = s[(j + 4) % 12] & 63;
  if (j >= 4) {
    sc = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
    mn = s[j + 4] >> 4 | (s[j] >> 6) << 4;
  }
  return half(b) * sc * q - half(b + 2) * mn;
}

static int k_nibble(const uint8_t *qs, int i) { return qs[32 * (i / 64) + i % 32] >> 4 * (i / 32 % 2) & 15; }
static double q4_k(const uint8_t *b, int i) { return with_minimum(b, i, k_nibble(b + 16, i)); }
static double q5_k(const uint8_t *b, int i) {
  return with_minimum(b, i, k_nibble(b + 48, i) | (b[16 + i % 32] >> i / 32 & 1) << 4);
}

static double q6_k(const uint8_t *b, int i) {
  int h = i / 128, j = i % 128 / 32, l = i % 32;
  int low = b[64 * h + 32 * (j % 2) + l] >> 4 * (j / 2) & 15, high = b[128 + 32 * h + l] >> 2 * j & 3;
  return half(b + 208) * (int8_t)b[192 + i / 16] * ((low | high << 4) - 32);
}

static double iq4_xs(const uint8_t *b, int i) {
  int j = i / 32, high = b[2] | b[3] << 8;
  int scale = (b[4 + j / 2] >> 4 * (j % 2) & 15) | (high >> 2 * j & 3) << 4;
  return half(b) * (scale - 32) * iq4[nibble(b + 8 + 16 * j, i % 32)];
}

static double tq1_0(const uint8_t *b, int i) { /* five trits a byte: the n-th digit of byte / 256 in base 3 */
  int byte, n;
  if (i < 160) byte = b[i % 32], n = i / 32;
  else if (i < 240) byte = b[32 + (i - 160) % 16], n = (i - 160) / 16;
  else byte = b[48 + (i - 240) % 4], n = (i - 240) / 4;
  while (n--) byte = byte * 3 % 256;
  return half(b + 52) * ((byte * 3 >> 8) - 1);
}

/* Weight i of 256 is j of entry i / 8 (or / 4) of the code book. */
static int iq2_value(const uint16_t *grid, int i) {
  static const int magnitude[] = {8, 25, 43};
  return magnitude[*grid >> 2 * (i % 8) & 3];
}

static int iq3_index(const uint16_t *grid, int i) { return *grid >> 3 * (i % 4) & 7; }
static double iq1_value(unsigned entry, int i) { return (qn__grid_iq1[entry] >> 2 * (i % 8) & 3) - 1; }
static int bit(const uint8_t *bits, int i) { return bits[i / 8] >> i % 8 & 1; }
static unsigned word(const uint8_t *p) {
  return p[0] | (unsigned)p[1] << 8 | (unsigned)p[2] << 16 | (unsigned)p[3] << 24;
}

static int even(unsigned signs, int i) { /* sign i of eight in seven bits, the eighth makes their number even */
  int last = 0;
  for (int j = 0; j < 7; j++) last ^= signs >> j & 1;
  return i < 7 ? (int)(signs >> i & 1) : last;
}

static double iq1_s(const uint8_t *b, int i) {
  unsigned high = b[34 + i / 32 * 2] | (unsigned)b[35 + i / 32 * 2] << 8;
  double value = iq1_value(b[2 + i / 8] | (high >> 3 * (i / 8 % 4) & 7) << 8, i);
  return half(b) * (2 * (high >> 12 & 7) + 1) * (value + (high & 0x8000 ? -0.125 : 0.125));
}

static double iq1_m(const uint8_t *b, int i) {
  const uint8_t *s = b + 48, d[2] = {s[1] >> 4 | (s[3] & 0xf0), s[5] >> 4 | (s[7] & 0xf0)};
  unsigned high = b[32 + i / 16] >> 4 * (i / 8 % 2) & 15, scale = word(s + i / 64 * 2) >> 3 * (i / 16 % 4) & 7;
  return half(d) * (2 * scale + 1) * (iq1_value(b[i / 8] | (high & 7) << 8, i) + (high & 8 ? -0.125 : 0.125));
}

static double iq2_xxs(const uint8_t *b, int i) {
  unsigned signs = word(b + 6 + i / 32 * 8);
  int value = iq2_value(&qn__grid_iq2_xxs[b[2 + i / 32 * 8 + i / 8 % 4]], i);
  return half(b) * (0.5 + (signs >> 28)) * 0.25 * (even(signs >> 7 * (i / 8 % 4), i % 8) ? -value : value);
}

static double iq2_xs(const uint8_t *b, int i) {
  unsigned q = b[2 + i / 8 * 2] | (unsigned)b[3 + i / 8 * 2] << 8, scale = b[66 + i / 32] >> 4 * (i / 16 % 2) & 15;
  int value = iq2_value(&qn__grid_iq2_xs[q % 512], i);
  return half(b) * (0.5 + scale) * 0.25 * (even(q >> 9, i % 8) ? -value : value);
}

static double iq2_s(const uint8_t *b, int i) {
  unsigned high = b[66 + i / 32] >> 2 * (i / 8 % 4) & 3, scale = b[74 + i / 32] >> 4 * (i / 16 % 2) & 15;
  int value = iq2_value(&qn__grid_iq2_s[b[2 + i / 8] | high << 8], i);
  return half(b) * (0.5 + scale) * 0.25 * (bit(b + 34, i) ? -value : value);
}

static double iq3_xxs(const uint8_t *b, int i) {
  static const int magnitude[] = {4, 12, 20, 28, 36, 44, 52, 62};
  unsigned signs = word(b + 66 + i / 32 * 4);
  int value = magnitude[iq3_index(&qn__grid_iq3_xxs[b[2 + i / 4]], i)];
  return half(b) * (0.5 + (signs >> 28)) * 0.5 * (even(signs >> 7 * (i / 8 % 4), i % 8) ? -value : value);
}

static double iq3_s(const uint8_t *b, int i) {
  unsigned scale = b[106 + i / 64] >> 4 * (i / 32 % 2) & 15;
  int value = 2 * iq3_index(&qn__grid_iq3_s[b[2 + i / 4] | bit(b + 66, i / 4) << 8], i) + 1;
  return half(b) * (1 + 2 * scale) * (bit(b + 74, i) ? -value : value);
}

static const struct type {
  const char *name;
  int id, elements, bytes, halves[2]; /* where the f16 are, 0 meaning none unless it is the first */
  double (*element)(const uint8_t *b, int i);
} types[] = {
    {"Q1_0", 41, 128, 18, {0}, q1_0},      {"Q4_0", 2, 32, 18, {0}, q4_0},      {"Q4_1", 3, 32, 20, {0, 2}, q4_1},
    {"Q5_0", 6, 32, 22, {0}, q5_0},        {"Q5_1", 7, 32, 24, {0, 2}, q5_1},   {"Q8_0", 8, 32, 34, {0}, q8_0},
    {"Q2_K", 10, 256, 84, {80, 82}, q2_k}, {"Q3_K", 11, 256, 110, {108}, q3_k}, {"Q4_K", 12, 256, 144, {0, 2}, q4_k},
    {"Q5_K", 13, 256, 176, {0, 2}, q5_k},  {"Q6_K", 14, 256, 210, {208}, q6_k}, {"IQ4_NL", 20, 32, 18, {0}, iq4_nl},
    {"IQ4_XS", 23, 256, 136, {0}, iq4_xs}, {"TQ1_0", 34, 256, 54, {52}, tq1_0}, {"TQ2_0", 35, 256, 66, {64}, tq2_0},
    {"MXFP4", 39, 32, 17, {-1}, mxfp4},    {"NVFP4", 40, 64, 36, {-1}, nvfp4},  {"Q2_0", 42, 64, 18, {0}, q2_0},
    {"IQ1_S", 19, 256, 50, {0}, iq1_s},    {"IQ1_M", 29, 256, 56, {-1}, iq1_m}, {"IQ2_XXS", 16, 256, 66, {0}, iq2_xxs},
    {"IQ2_XS", 17, 256, 74, {0}, iq2_xs},  {"IQ2_S", 22, 256, 82, {0}, iq2_s},  {"IQ3_XXS", 18, 256, 98, {0}, iq3_xxs},
    {"IQ3_S", 21, 256, 110, {0}, iq3_s},
};

/* ---- Files ------------------------------------------------------------------------------------------------------- */

static uint64_t seed;

static unsigned draw(void) { /* PCG's multiplier, upper bits */
  seed = seed * 6364136223846793005u + 1442695040888963407u;
  return (unsigned)(seed >> 40);
}

static void put(FILE *f, uint64_t v, int bytes) { fwrite(&v, (size_t)bytes, 1, f); }

static void put_tensor(FILE *f, const char *name, uint64_t k, uint64_t n, uint64_t experts, int type, uint64_t at) {
  put(f, strlen(name), 8), fputs(name, f);
  put(f, 3, 4), put(f, k, 8), put(f, n, 8), put(f, experts, 8), put(f, (uint64_t)type, 4), put(f, at, 8);
}

enum { N = 3, BLOCKS = 2, EXPERTS = 2, COUNT = N * BLOCKS * EXPERTS };

/* Random blocks with scales that are normal numbers, in a stack of two matrices of 3 x 2 blocks. */
static void make_blocks(const struct type *t, uint8_t *data) {
  for (int i = 0; i < COUNT * t->bytes; i++) data[i] = (uint8_t)draw();
  for (int i = 0; i < COUNT; i++)
    for (int h = 0; h < 2 && t->halves[0] >= 0; h++)
      if (h == 0 || t->halves[h])
        data[i * t->bytes + t->halves[h] + 1] = (uint8_t)(0x20 + draw() % 24 + 128 * (draw() % 2));
  for (int i = 0; i < COUNT && !strcmp(t->name, "IQ1_M"); i++) /* the top half of the upper byte of d */
    data[i * t->bytes + 55] = (uint8_t)(0x20 | (data[i * t->bytes + 55] & 0x8f));
  for (int i = 0; i < COUNT && !strcmp(t->name, "MXFP4"); i++) data[i * t->bytes] = (uint8_t)(100 + draw() % 50);
}

static void write_model(const char *path, const struct type *t, const uint8_t *data) {
  FILE *f = fopen(path, "wb");
  ck_assert_ptr_nonnull(f);
  fputs("GGUF", f);
  put(f, 3, 4), put(f, 1, 8), put(f, 0, 8);
  put_tensor(f, "w", (uint64_t)(BLOCKS * t->elements), N, EXPERTS, t->id, 0);
  while (ftell(f) % 32) fputc(0, f);
  fwrite(data, (size_t)t->bytes, COUNT, f);
  ck_assert_int_eq(fclose(f), 0);
}

START_TEST(planes_decode_to_the_definition) {
  const struct type *t = &types[_i % (int)QN_COUNT(types)];
  char path[] = "/tmp/quernel-ggml-XXXXXX", dialect[32];
  static uint8_t data[COUNT * 256];
  seed = (uint64_t)_i + 1;
  close(mkstemp(path));
  make_blocks(t, data);
  write_model(path, t, data);
  qn_model *m;
  ck_assert_msg(qn_model_open(path, &m) == QN_OK, "%s", qn_io_errmsg());
  unlink(path);
  const qn_tensor *w = qn_model_tensor(m, 0);
  ck_assert_msg(w->format != NULL, "%s", w->refusal);
  snprintf(dialect, sizeof dialect, "gguf/%s", t->name);
  ck_assert_str_eq(w->dialect, dialect);
  ck_assert(w->slices == EXPERTS && w->n == N && w->k == BLOCKS * t->elements);
  ck_assert_double_eq_tol(qn_tensor_bpw(w), 8.0 * t->bytes / t->elements, 1e-12);
  for (int e = 0; e < EXPERTS; e++) {
    qn_planes *p;
    float x[N * BLOCKS * 256];
    ck_assert_msg(qn_model_planes(m, w, e, &p) == QN_OK, "%s", qn_io_errmsg());
    ck_assert_ptr_null(io_decode(p, x));
    for (int i = 0; i < N * BLOCKS * t->elements; i++) {
      const uint8_t *block = data + (e * N * BLOCKS + i / t->elements) * t->bytes;
      float want = (float)t->element(block, i % t->elements);
      ck_assert_msg(x[i] == want, "%s: seed %d, slice %d, element %d is %.9g, not %.9g", t->name, _i + 1, e, i,
                    (double)x[i], (double)want);
    }
    qn_planes_free(p);
  }
  qn_model_close(m);
}
END_TEST

/* I2_S has no blocks: codes of the whole matrix, 128 in 32 bytes, then one scale in 32 bytes. */
START_TEST(i2_s_has_one_scale_after_all_codes) {
  char path[] = "/tmp/quernel-ggml-XXXXXX";
  uint8_t data[2 * 256 / 4 + 32] = {0};
  const float scale = 0.75f;
  seed = 7;
  for (int i = 0; i < 128; i++) data[i] = (uint8_t)draw();
  memcpy(data + 128, &scale, 4);
  close(mkstemp(path));
  FILE *f = fopen(path, "wb");
  ck_assert_ptr_nonnull(f);
  fputs("GGUF", f);
  put(f, 3, 4), put(f, 1, 8), put(f, 0, 8);
  put_tensor(f, "w", 256, 2, 1, 36, 0);
  while (ftell(f) % 32) fputc(0, f);
  fwrite(data, 1, sizeof data, f);
  fclose(f);
  qn_model *m;
  qn_planes *p;
  float x[512];
  ck_assert_msg(qn_model_open(path, &m) == QN_OK, "%s", qn_io_errmsg());
  unlink(path);
  ck_assert_str_eq(qn_model_tensor(m, 0)->format, "ternary.tensor.f32");
  ck_assert_msg(qn_model_planes(m, qn_model_tensor(m, 0), 0, &p) == QN_OK, "%s", qn_io_errmsg());
  ck_assert_ptr_null(io_decode(p, x));
  for (int i = 0; i < 512; i++) {
    int code = data[i / 128 * 32 + i % 32] >> (6 - 2 * (i % 128 / 32)) & 3;
    ck_assert_float_eq(x[i], scale * (float)(code - 1));
  }
  qn_planes_free(p);
  qn_model_close(m);
}
END_TEST

/* The code books against a checksum (FNV-1a) of the format's own tables, a byte a weight, which were taken from
 * ggml. */
static const struct grid {
  const char *name;
  const uint16_t *entry;
  int count, bits;
  int8_t value[8];
  uint64_t checksum;
} grids[] = {
    {"iq1", qn__grid_iq1, 2048, 2, {-1, 0, 1}, 0x6703ed863501ae2e},
    {"iq2_xxs", qn__grid_iq2_xxs, 256, 2, {8, 25, 43}, 0xbb4ee025b5ac6e8e},
    {"iq2_xs", qn__grid_iq2_xs, 512, 2, {8, 25, 43}, 0xc9b1ee61e79909bd},
    {"iq2_s", qn__grid_iq2_s, 1024, 2, {8, 25, 43}, 0x123edd38a3b62b90},
    {"iq3_xxs", qn__grid_iq3_xxs, 256, 3, {4, 12, 20, 28, 36, 44, 52, 62}, 0xdfa5dc83d6a155d5},
    {"iq3_s", qn__grid_iq3_s, 512, 3, {1, 3, 5, 7, 9, 11, 13, 15}, 0xfa37020c25b44829},
};

START_TEST(code_books_are_those_of_the_format) {
  const struct grid *g = &grids[_i];
  uint64_t sum = 0xcbf29ce484222325;
  for (int i = 0; i < g->count; i++)
    for (int j = 0; j < (g->bits == 2 ? 8 : 4); j++) {
      int8_t value = g->value[g->entry[i] >> g->bits * j & ((1 << g->bits) - 1)];
      sum = (sum ^ (uint8_t)value) * 0x100000001b3;
    }
  ck_assert_msg(sum == g->checksum, "%s: checksum %#jx", g->name, (uintmax_t)sum);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(planes_decode_to_the_definition, 4 * QN_COUNT(types)),
      CASE(code_books_are_those_of_the_format, QN_COUNT(grids)),
      CASE(i2_s_has_one_scale_after_all_codes, 1),
  };
  return RUN_CASES(argv[0], cases, .timeout = 60);
}
