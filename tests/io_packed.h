/* io_packed.h - a weight of random codes, packed bit by bit after the definition of its dialect, written to a
 * checkpoint, read back and decoded: the weights must agree exactly. */
#ifndef QN_IO_PACKED_H
#define QN_IO_PACKED_H
#include "io_decode.h"
#include "io_folder.h"
#include "model.h"
#include <math.h>

enum { MOST = 128 }; /* of N and of K */

static uint64_t seed;

static inline int64_t draw(int64_t below) { /* PCG's multiplier, upper bits */
  seed = seed * 6364136223846793005u + 1442695040888963407u;
  return (int64_t)(seed >> 33) % below;
}

/* ---- A weight ---------------------------------------------------------------------------------------------------- */

static int bits;
static int64_t n, k, group, groups;
static uint8_t code[MOST][MOST], zero[MOST][MOST];
static float scale[MOST][MOST], half_zero[MOST][MOST];
static int32_t group_of[MOST];

static inline int64_t ceildiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

static inline void make_weight(int64_t rows, int64_t cols, int64_t size) {
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

static inline void shuffle_groups(void) {
  for (int64_t j = k - 1; j > 0; j--) {
    int64_t other = draw(j + 1);
    int32_t t = group_of[j];
    group_of[j] = group_of[other], group_of[other] = t;
  }
}

static inline void midpoints(void) {
  for (int64_t i = 0; i < n; i++)
    for (int64_t g = 0; g < groups; g++) zero[i][g] = (uint8_t)(1 << (bits - 1));
}

static inline uint16_t half(float x) {
  uint16_t h = 0;
  qn_convert(&x, QN_T_F32, &h, QN_T_F16, 1);
  return h;
}

/* ---- Packing ----------------------------------------------------------------------------------------------------- */

typedef enum packing { DENSE, PADDED, PLANAR } packing;

/* Put code i of a line into words `stride` apart. */
static inline void put_code(uint32_t *words, int64_t stride, packing how, int64_t i, unsigned value) {
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

static inline int64_t words_for(packing how, int64_t count) {
  if (how == PLANAR) return ceildiv(count, 32) * bits;
  return how == PADDED ? ceildiv(count, 32 / bits) : ceildiv(count * bits, 32);
}

static inline double e4m3(unsigned c) {
  double v = c >> 3 & 15 ? ldexp(8 + (c & 7), (int)(c >> 3 & 15) - 10) : ldexp(c & 7, -9);
  return c & 128 ? -v : v;
}

/* ---- A checkpoint ------------------------------------------------------------------------------------------------ */

static qn_save save[12];
static size_t n_save;

static inline void *add(const char *name, const char *dtype, int64_t d0, int64_t d1,
                        size_t item) { /* d1 < 0: a vector */
  void *data = calloc((size_t)(d0 * (d1 < 0 ? 1 : d1)) + 1, item);
  save[n_save++] = (qn_save){name, dtype, d1 < 0 ? 1 : 2, {d0, d1}, data};
  return data;
}

static inline void add_scales(const char *name, bool by_group) { /* [G, N] or [N, G] */
  uint16_t *s = by_group ? add(name, "F16", groups, n, 2) : add(name, "F16", n, groups, 2);
  for (int64_t i = 0; i < n; i++)
    for (int64_t g = 0; g < groups; g++) s[by_group ? g * n + i : i * groups + g] = half(scale[i][g]);
}

static float want[MOST][MOST];

/* (code - zero) * scale, rounded once. */
static inline void want_integers(bool half_zeros) {
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

static inline void end_first(void) {
  memcpy(first, want, sizeof first);
  n_first = n_save;
}

static inline void stack(void) {
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
static inline void compare(const char *config, const char *format, const char *what) {
  put_text("config.json", config);
  put_tensors("model.safetensors", save, n_save);
  for (; n_save; n_save--) free((void *)(uintptr_t)save[n_save - 1].data);
  qn_planes *p;
  qn_model *m = open_folder();
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
        ck_assert_msg(x[i * k + j] == wanted[i][j], "%s (%jd x %jd, %d bits, group %jd): [%jd, %jd] is %.9g, not %.9g",
                      what, (intmax_t)n, (intmax_t)k, bits, (intmax_t)group, (intmax_t)i, (intmax_t)j,
                      (double)x[i * k + j], (double)wanted[i][j]);
    qn_planes_free(p);
  }
  qn_model_close(m);
}
#endif
