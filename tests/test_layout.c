/* test_layout.c - layouts are bijections, planes are checked, the reference is the formula. */
#include "device_host.h"
#include "reference.h"
#include "runtime_fixture.h"
#include "unpack.h"
#include <math.h>

/* Cut `size` at random into digits of one axis, the innermost of stride `stride`; returns how many. */
static uint32_t cut(rng *r, uint8_t axis, uint32_t size, uint32_t stride, qn_digit *out) {
  uint32_t n = 0;
  while (size > 1 && n < 3) {
    uint32_t part = 1u << (1 + below(r, 3));
    if (part > size || size % part || n == 2) part = size;
    out[n++] = (qn_digit){axis, part, stride};
    stride *= part, size /= part;
  }
  return n;
}

static void shuffle(rng *r, qn_digit *d, uint32_t n) {
  for (uint32_t i = n; i > 1; i--) {
    uint32_t j = below(r, i);
    qn_digit t = d[i - 1];
    d[i - 1] = d[j], d[j] = t;
  }
}

/* A random field of one plane: all of its digits inside a tile, in any order. */
static qn_field random_field(rng *r, const qn_layout *l, const qn_format *f, uint32_t plane, uint32_t lo,
                             uint32_t bits) {
  const qn_format_plane *p = plane ? &f->plane[plane - 1] : NULL;
  uint32_t rows = p ? p->rows : 1, cols = p ? p->cols : 1;
  qn_field out = {.plane = plane, .type = p ? p->type : f->codes, .lo = lo, .bits = bits};
  if (rows) out.n_digits += cut(r, 0, l->tile_n / rows, rows, out.digit);
  if (cols) out.n_digits += cut(r, 1, l->tile_k / cols, cols, out.digit + out.n_digits);
  shuffle(r, out.digit, out.n_digits);
  return out;
}

/* Codes of random width in one or two slices, scales and zeros in sections of their own or beside the codes. */
static qn_layout random_layout(rng *r, const qn_format *f) {
  qn_layout l = {.name = "random",
                 .hash = "0",
                 .tile_n = 8u << below(r, 3),
                 .tile_k = f->plane[0].cols << below(r, 2),
                 .pad_code = below(r, 1u << f->bits),
                 .pairs = below(r, 2)};
  uint32_t split = f->bits > 1 && below(r, 2) ? 1 + below(r, f->bits - 1) : f->bits;
  for (uint32_t part = 0; part < 2 + f->n_planes; part++) {
    if (part == 1 && split == f->bits) continue;
    if (!l.n_sections || (below(r, 2) && l.n_sections < QN_LAYOUT_SECTIONS)) {
      qn_section *s = &l.section[l.n_sections++];
      s->n_outer = 2;
      s->outer[0] = (qn_digit){0, 0, l.tile_n}, s->outer[1] = (qn_digit){1, 0, l.tile_k};
      shuffle(r, s->outer, 2);
    }
    qn_section *s = &l.section[l.n_sections - 1];
    s->field[s->n_fields++] =
        part == 0   ? random_field(r, &l, f, 0, 0, split)
        : part == 1 ? random_field(r, &l, f, 0, split, f->bits - split)
                    : random_field(r, &l, f, part - 1, 0, (uint32_t)qn_type_bits((qn_type)f->plane[part - 2].type));
  }
  return l;
}

/* Threads share the records of a section, and the bytes stay the same. */
static void check_threads(const qn_layout *l, const qn_format *f, const qn_planes *p, const uint8_t *want, size_t bytes,
                          int seed) {
  qn_device *d;
  uint8_t *packed = malloc(bytes);
  memset(packed, 0x5a, bytes);
  ck_ok(qn__device_host_open(NULL, 3, &d));
  ck_ok(qn__layout_pack(d, l, f, p, packed));
  ck_assert_msg(!memcmp(packed, want, bytes), "%s [%lld, %lld], seed %d: three threads pack otherwise", f->name,
                (long long)p->n, (long long)p->k, seed);
  qn__device_close(d);
  free(packed);
}

/* Planes come back from packed bytes as they were, whatever the digits, widths and ragged ends. */
START_TEST(test_layouts_are_bijections) {
  rng r = {1000 + (uint64_t)_i};
  qn_format f = make_format(1 + below(&r, 8), 8u << below(&r, 3), below(&r, 2));
  qn_layout l = random_layout(&r, &f);
  int64_t n = (1 + below(&r, 70)) << l.pairs, k = 1 + below(&r, 200), bytes;
  weight w = random_weight(&f, n, k, &r), back = empty_weight(&f, n, k);
  ck_ok(qn__format_check(&f));
  ck_ok(qn__planes_check(NULL, &f, &w.planes));
  ck_ok(qn__layout_check(&l, &f, n, k));
  ck_ok(qn__layout_bytes(&l, n, k, &bytes));
  uint8_t *packed = malloc((size_t)bytes + 16);
  memset(packed + bytes, 0xa5, 16);
  ck_ok(qn__layout_pack(NULL, &l, &f, &w.planes, packed));
  for (int i = 0; i < 16; i++) ck_assert_uint_eq(packed[bytes + i], 0xa5);
  check_threads(&l, &f, &w.planes, packed, (size_t)bytes, 1000 + _i);
  unpack(&l, &f, packed, &back.planes);
  for (uint32_t i = 0; i <= f.n_planes; i++) {
    const qn_plane *p = &w.planes.plane[i];
    size_t size = (size_t)(p->rows * p->cols) * (size_t)qn_type_bits(p->type) / 8;
    ck_assert_msg(!memcmp(w.data[i], back.data[i], size), "plane '%s' of %s [%lld, %lld], seed %d", p->name, f.name,
                  (long long)n, (long long)k, 1000 + _i);
  }
  free(packed);
  free_weight(&w);
  free_weight(&back);
}
END_TEST

/* Two nibbles a byte, the first low; then a section at 256 with the scale; padding takes the pad code. */
START_TEST(test_packed_bytes) {
  qn_format f = make_format(4, 8, false);
  qn_layout l = plain_layout(&f);
  const uint8_t codes[] = {1, 2, 3, 4, 5};
  const float scale[] = {2};
  qn_planes p = {.format = f.name,
                 .n = 1,
                 .k = 5,
                 .n_planes = 2,
                 .plane = {{"scale", QN_T_F32, 1, 1, scale}, {"codes", QN_T_U8, 1, 5, codes}}};
  const uint8_t want[] = {0x21, 0x43, 0x85, 0x88};
  uint8_t packed[512];
  int64_t bytes, offset;
  ck_ok(qn__planes_check(NULL, &f, &p));
  ck_ok(qn__layout_bytes(&l, 1, 5, &bytes));
  ck_assert_int_eq(bytes, 512);
  ck_ok(qn__layout_offset(&l, 1, 1, 5, &offset));
  ck_assert_int_eq(offset, 256);
  memset(packed, 0xff, sizeof packed);
  ck_ok(qn__layout_pack(NULL, &l, &f, &p, packed));
  ck_assert_mem_eq(packed, want, sizeof want);
  ck_assert_mem_eq(packed + 256, scale, sizeof scale);
  for (int i = 4; i < 512; i++) ck_assert(i / 4 == 64 || packed[i] == 0);
}
END_TEST

/* Planes that lie at odd addresses, as in a mapped file, mean the same. */
START_TEST(test_unaligned_planes) {
  rng r = {8};
  qn_format f = make_format(4, 16, true);
  f.codes = QN_T_U16;
  weight w = random_weight(&f, 3, 40, &r);
  qn_planes odd = w.planes;
  char *copy[3];
  double a[120], b[120];
  for (int i = 0; i < 3; i++) {
    const qn_plane *p = &w.planes.plane[i];
    size_t size = (size_t)(p->rows * p->cols * qn_type_bits(p->type) / 8);
    copy[i] = malloc(size + 1);
    odd.plane[i].data = memcpy(copy[i] + 1, p->data, size);
  }
  ck_ok(qn__planes_check(NULL, &f, &odd));
  ck_ok(qn__dequantize(&f, &w.planes, 0, 3, a));
  ck_ok(qn__dequantize(&f, &odd, 0, 3, b));
  ck_assert_mem_eq(a, b, sizeof a);
  for (int i = 0; i < 3; i++) free(copy[i]);
  free_weight(&w);
}
END_TEST

/* A stored type may be wider than the plane's: exact both ways. */
START_TEST(test_widening) {
  rng r = {7};
  qn_format f = make_format(4, 16, true);
  f.plane[0].type = QN_T_F16;
  qn_layout l = plain_layout(&f);
  l.section[1].field[0].type = QN_T_F32, l.section[1].field[0].bits = 32;
  l.section[1].field[1].type = QN_T_I32, l.section[1].field[1].bits = 32;
  weight w = random_weight(&f, 3, 40, &r), back = empty_weight(&f, 3, 40);
  int64_t bytes, offset;
  ck_ok(qn__layout_check(&l, &f, 3, 40));
  ck_ok(qn__layout_bytes(&l, 3, 40, &bytes));
  ck_ok(qn__layout_offset(&l, 1, 3, 40, &offset));
  uint8_t *packed = malloc((size_t)bytes);
  ck_ok(qn__layout_pack(NULL, &l, &f, &w.planes, packed));
  int32_t zero;
  memcpy(&zero, packed + offset + 4, 4);
  ck_assert_int_eq(zero, ((uint8_t *)w.data[2])[0]);
  unpack(&l, &f, packed, &back.planes);
  for (int i = 0; i < 3; i++)
    ck_assert_mem_eq(
        w.data[i], back.data[i],
        (size_t)(w.planes.plane[i].rows * w.planes.plane[i].cols * qn_type_bits(w.planes.plane[i].type) / 8));
  free(packed);
  free_weight(&w);
  free_weight(&back);
}
END_TEST

START_TEST(test_bad_layouts) {
  qn_format f = make_format(4, 32, false);
  const qn_layout good = plain_layout(&f);
  qn_layout l;
  ck_ok(qn__layout_check(&good, &f, 64, 64));
#define REFUSED(part, ...)                                                                                             \
  l = good;                                                                                                            \
  __VA_ARGS__;                                                                                                         \
  ck_fails(QN_E_FORMAT, part, qn__layout_check(&l, &f, 64, 64))
  REFUSED("sections", l.n_sections = 0);
  REFUSED("sections", l.n_sections = QN_LAYOUT_SECTIONS + 1);
  REFUSED("tile", l.tile_k = 0);
  REFUSED("pad code", l.pad_code = 16);
  REFUSED("pairs 2 for 64 rows", l.pairs = 2);
  REFUSED("pairs rows, but 2 of them", l.pairs = 1; f.plane[0].rows = 2);
  REFUSED("does not store", l.n_sections = 1);
  REFUSED("does not store", l.section[0].field[0].bits = 3);
  REFUSED("bits", l.section[0].field[0].bits = 5);
  REFUSED("bits", l.section[0].field[0].lo = 0xffffffff);
  REFUSED("plane", l.section[1].field[0].plane = 2);
  REFUSED("stored as", l.section[1].field[0].type = QN_T_F16);
  REFUSED("digits", l.section[0].field[0].n_digits = 11);
  REFUSED("outer digits", l.section[0].n_outer = 5);
  REFUSED("reach", l.section[0].outer[0].stride = 2);         /* odd rows would be missing */
  REFUSED("reach", l.section[0].field[0].digit[0].size = 16); /* half of each group */
  REFUSED("reach", l.section[0].field[0].digit[0].stride = 2);
  REFUSED("reach", l.section[0].outer[1].stride = 16);     /* every code twice */
  REFUSED("reach", l.section[1].outer[1].stride = 64);     /* every other scale */
  REFUSED("reach 16 of", l.section[0].outer[0].size = 16); /* fixed, and too few rows */
  REFUSED("more than", l.section[0].field[0].digit[0].size = 1 << 21);
  REFUSED("size 0", l.section[0].field[0].digit[0].size = 0);
  REFUSED("axis", l.section[0].outer[0].axis = 2);
  /* A scale that leads back to before the plane, were its place kept in 32 bits; and a hundred thousand copies. */
  REFUSED("beyond", l.section[1].field[0].n_digits = 1; l.section[1].field[0].digit[0] = (qn_digit){0, 1 << 20, 64});
  REFUSED("beyond", l.section[1].field[0].n_digits = 1; l.section[1].field[0].digit[0] = (qn_digit){1, 4, 1u << 30});
  REFUSED("beyond", l.section[0].outer[0].size = 65);
  REFUSED("bytes for", l.section[1].n_outer = 4; l.section[1].outer[2] = l.section[1].outer[3] = (qn_digit){0, 64, 1};
          l.section[1].field[0].n_digits = 1; l.section[1].field[0].digit[0] = (qn_digit){1, 64, 1});
  REFUSED("tile", l.tile_n = 64; l.tile_k = 1 << 17);
  REFUSED("stored as", l.section[1].field[0].type = QN_T_U32); /* a float is no integer */
#undef REFUSED
  int64_t bytes;
  ck_fails(QN_E_LIMIT, "2^48", qn__layout_bytes(&good, INT32_MAX, INT32_MAX, &bytes));
}
END_TEST

START_TEST(test_bad_planes) {
  rng r = {3};
  qn_format f = make_format(4, 32, true);
  weight w = random_weight(&f, 4, 64, &r);
  int32_t perm[64];
  for (int i = 0; i < 64; i++) perm[i] = 63 - i;
  qn_planes p;
  w.planes.perm = perm;
  ck_ok(qn__planes_check(NULL, &f, &w.planes));
#define REFUSED(status, part, change)                                                                                  \
  p = w.planes;                                                                                                        \
  change;                                                                                                              \
  ck_fails(status, part, qn__planes_check(NULL, &f, &p))
  REFUSED(QN_E_ARG, "format", p.format = "int4.g64");
  REFUSED(QN_E_ARG, "format", p.format = NULL);
  REFUSED(QN_E_ARG, "'zero' is missing", p.n_planes = 2);
  REFUSED(QN_E_ARG, "'scale' is missing", p.plane[1].name = "scales");
  REFUSED(QN_E_ARG, "'scale' is missing", p.plane[1].data = NULL);
  REFUSED(QN_E_ARG, "'scale' is f16", p.plane[1].type = QN_T_F16);
  REFUSED(QN_E_SHAPE, "'scale' is [4, 1]", p.plane[1].cols = 1);
  REFUSED(QN_E_SHAPE, "N and K", p.n = 0);
  REFUSED(QN_E_SHAPE, "N and K", p.k = INT64_C(1) << 31);
#undef REFUSED
  ((uint8_t *)w.data[0])[70] = 16;
  ck_fails(QN_E_ARG, "'codes'[1, 6] is 16", qn__planes_check(NULL, &f, &w.planes));
  ((uint8_t *)w.data[0])[70] = 0, ((uint8_t *)w.data[2])[3] = 200;
  ck_fails(QN_E_ARG, "'zero'[1, 1] is 200", qn__planes_check(NULL, &f, &w.planes));
  ((uint8_t *)w.data[2])[3] = 0, ((float *)w.data[1])[7] = NAN;
  ck_fails(QN_E_ARG, "'scale'[3, 1] is nan", qn__planes_check(NULL, &f, &w.planes));
  ((float *)w.data[1])[7] = INFINITY;
  ck_fails(QN_E_ARG, "'scale'[3, 1] is inf", qn__planes_check(NULL, &f, &w.planes));
  ((float *)w.data[1])[7] = 1, perm[5] = 64;
  ck_fails(QN_E_ARG, "perm[5]", qn__planes_check(NULL, &f, &w.planes));
  perm[5] = perm[4];
  ck_fails(QN_E_ARG, "perm[5]", qn__planes_check(NULL, &f, &w.planes));
  free_weight(&w);
}
END_TEST

/* One scale is not a number, or infinite, or one code too large, anywhere: it is found, and told where it is. */
START_TEST(test_bad_elements_are_found) {
  static const struct {
    qn_type type;
    uint32_t code;
  } bad[] = {{QN_T_F32, 0x7f800000}, {QN_T_F32, 0xffc00000}, {QN_T_F16, 0x7c00}, {QN_T_F16, 0xfe00},
             {QN_T_BF16, 0xff80},    {QN_T_BF16, 0x7fc0},    {QN_T_E4M3, 0x7f},  {QN_T_E4M3, 0xff},
             {QN_T_E5M2, 0xfc},      {QN_T_E5M2, 0x7e},      {QN_T_E8M0, 0xff},  {QN_T_U8, 16},
             {QN_T_U16, 16}};
  enum { K = 600 };
  const int at[] = {0, 255, 256, K - 1};
  rng r = {5};
  qn_format f = make_format(4, 1, false);
  qn_type type = bad[_i].type;
  bool code = type == QN_T_U8 || type == QN_T_U16;
  if (code) f.codes = type;
  else f.plane[0].type = type;
  weight w = random_weight(&f, 1, K, &r);
  char *data = w.data[!code], want[64];
  size_t size = (size_t)qn_type_bits(type) / 8;
  if (!code) memset(data, 0x11, K * size);
  ck_ok(qn__planes_check(NULL, &f, &w.planes));
  for (size_t i = 0; i < QN_COUNT(at); i++) {
    char before[4];
    memcpy(before, data + (size_t)at[i] * size, size);
    memcpy(data + (size_t)at[i] * size, &bad[_i].code, size);
    snprintf(want, sizeof want, "'%s'[0, %d] is", code ? "codes" : "scale", at[i]);
    ck_fails(QN_E_ARG, want, qn__planes_check(NULL, &f, &w.planes));
    memcpy(data + (size_t)at[i] * size, before, size);
  }
  free_weight(&w);
}
END_TEST

/* Two planes that are one array, with groups of different sizes: each is read by its own. */
START_TEST(test_planes_in_one_array) {
  qn_format f = make_format(4, 8, true);
  f.plane[1].cols = 16, f.plane[0].type = QN_T_U8;
  qn_layout l = plain_layout(&f);
  const uint8_t codes[32] = {0}, shared[] = {1, 2, 3, 4};
  qn_planes p = {
      .format = f.name,
      .n = 1,
      .k = 32,
      .n_planes = 3,
      .plane = {{"codes", QN_T_U8, 1, 32, codes}, {"scale", QN_T_U8, 1, 4, shared}, {"zero", QN_T_U8, 1, 2, shared}}};
  uint8_t packed[1024];
  int64_t bytes, offset;
  l.tile_k = 16, l.section[1].outer[1].stride = 16;
  l.section[1].field[0].type = QN_T_U8, l.section[1].field[0].bits = 8;
  l.section[1].field[0].n_digits = l.section[1].field[1].n_digits = 1;
  l.section[1].field[0].digit[0] = l.section[1].field[1].digit[0] = (qn_digit){1, 2, 8};
  ck_ok(qn__planes_check(NULL, &f, &p));
  ck_ok(qn__layout_check(&l, &f, 1, 32));
  ck_ok(qn__layout_bytes(&l, 1, 32, &bytes));
  ck_assert_int_le(bytes, (int64_t)sizeof packed);
  ck_ok(qn__layout_offset(&l, 1, 1, 32, &offset));
  ck_ok(qn__layout_pack(NULL, &l, &f, &p, packed));
  const uint8_t want[] = {1, 2, 1, 1, 3, 4, 2, 2}; /* of each 16 weights two scales, then the zero of both halves */
  ck_assert_mem_eq(packed + offset, want, sizeof want);
}
END_TEST

START_TEST(test_bad_formats) {
  const qn_format good = make_format(4, 32, true);
  qn_format f;
  ck_ok(qn__format_check(&good));
#define REFUSED(part, change)                                                                                          \
  f = good;                                                                                                            \
  change;                                                                                                              \
  ck_fails(QN_E_FORMAT, part, qn__format_check(&f))
  REFUSED("name", f.name[0] = 0);
  REFUSED("codes of type", f.codes = QN_T_F32);
  REFUSED("bits", f.bits = 9);
  REFUSED("bits", f.bits = 0);
  REFUSED("read as", f.cast = QN_T_F16);
  REFUSED("planes", f.n_planes = 8);
  REFUSED("tables", f.n_tables = 3);
  REFUSED("two planes", strcpy(f.plane[1].name, "scale"));
  REFUSED("second plane", strcpy(f.plane[1].name, "codes"));
  REFUSED("type", f.plane[0].type = 99);
  REFUSED("has the limit 256", f.plane[1].max = 256);
  REFUSED("of type f32 has the limit 1", f.plane[0].max = 1);
  REFUSED("no decode", f.decode.n = 0);
  REFUSED("variable", f.decode.op[0].arg = 3);
  REFUSED("operands", f.decode.n = 3; f.decode.op[2] = O(SELECT));
  REFUSED("table", f.decode.op[2] = O(LOOKUP));
#undef REFUSED
}
END_TEST

/* The decode rule and the product against loops written out here, with a permutation and scaled i8 activations. */
START_TEST(test_reference_is_the_formula) {
  enum { N = 5, K = 70, M = 3, LDX = 72 };
  rng r = {11};
  qn_format f = make_format(4, 32, true);
  weight w = random_weight(&f, N, K, &r);
  int32_t perm[K];
  int8_t x[M * LDX];
  float x_scale[M] = {1, 0.5f, 2};
  double dense[N * K], y[2 * 2], mag[2 * 2];
  for (int k = 0; k < K; k++) perm[k] = (k * 3 + 1) % K;
  for (int i = 0; i < M * LDX; i++) x[i] = (int8_t)draw(&r);
  w.planes.perm = perm;
  ck_ok(qn__planes_check(NULL, &f, &w.planes));
  ck_ok(qn__dequantize(&f, &w.planes, 0, N, dense));
  const uint8_t *q = w.data[0], *z = w.data[2];
  const float *s = w.data[1];
  for (int i = 0; i < N * K; i++) {
    int g = i / K * 3 + i % K / 32;
    ck_assert_double_eq(dense[i], ((double)q[i] - z[g]) * (double)s[g]);
  }
  const int64_t rows[] = {2, 0}, cols[] = {4, 1};
  qn_host_args a = {.x = x, .ldx = LDX, .x_scale = x_scale};
  ck_ok(qn__reference(&f, &w.planes, &a, &(qn_problem){.act = QN_T_I8}, rows, 2, cols, 2, y, mag));
  for (int i = 0; i < 4; i++) {
    int64_t m = rows[i / 2], n = cols[i % 2];
    double sum = 0, sum_mag = 0;
    for (int k = 0; k < K; k++) {
      int64_t g = n * 3 + k / 32;
      double xv = (double)x[m * LDX + perm[k]] * (double)x_scale[m];
      sum += xv * dense[n * K + k];
      sum_mag += fabs(xv) * (q[n * K + k] + z[g]) * (double)s[g];
    }
    ck_assert_double_eq(y[i], sum);
    ck_assert_double_eq_tol(mag[i], sum_mag, 1e-9 * sum_mag);
  }
  ck_fails(QN_E_ARG, "rows 0 .. 6", qn__dequantize(&f, &w.planes, 0, 6, dense));
  free_weight(&w);
}
END_TEST

/* A reference that rounds X is that of what qn_quantize_rows makes of each group of the permuted row. */
START_TEST(test_reference_rounds_by_groups) {
  enum { N = 3, K = 70, M = 2, GROUP = 32 };
  rng r = {12};
  qn_format f = make_format(4, GROUP, true);
  weight w = random_weight(&f, N, K, &r);
  int32_t perm[K];
  float x[M * K], rounded[M * K], scale;
  int8_t q[GROUP];
  double want[M * N], have[M * N];
  for (int k = 0; k < K; k++) perm[k] = (k * 3 + 1) % K;
  for (int i = 0; i < M * K; i++) x[i] = (float)draw(&r) / 7;
  for (int m = 0; m < M; m++)
    for (int k = 0; k < K; k += GROUP) {
      float group[GROUP];
      int n = K - k < GROUP ? K - k : GROUP;
      for (int i = 0; i < n; i++) group[i] = x[m * K + perm[k + i]];
      ck_ok(qn_quantize_rows(group, 1, n, n, QN_T_I8, q, &scale));
      for (int i = 0; i < n; i++) rounded[m * K + k + i] = (float)q[i] * scale;
    }
  qn_host_args a = {.x = rounded};
  ck_ok(qn__reference(&f, &w.planes, &a, &(qn_problem){.act = QN_T_F32}, NULL, M, NULL, N, want, NULL));
  a.x = x, w.planes.perm = perm;
  ck_ok(qn__reference(&f, &w.planes, &a, &(qn_problem){.act = QN_T_I8, .x = QN_T_F32}, NULL, M, NULL, N, have, NULL));
  for (int i = 0; i < M * N; i++) ck_assert_double_eq_tol(have[i], want[i], 1e-5 * (1 + fabs(want[i])));
  free_weight(&w);
}
END_TEST

/* Steps against values worked out elsewhere, at row 1 and column 2; what the error makes of them is no less than it can
 * be and not much more. */
START_TEST(test_epilogue_is_the_formula) {
  static const struct {
    const char *spelling;
    double sum, want;
  } cases[] = {
      {"f32:4x4:f32-f32+bias", 2, 5},
      {"f32:4x4:f32-f32+residual", 2, 12},
      {"f32:4x4:f32-f32*scale", 2, 1},
      {"f32:4x4:f32-f32.silu", 2, 1.7615941559557649},
      {"f32:4x4:f32-f32.silu", -1.25, -0.27837517353163604},
      {"f32:4x4:f32-f32.gelu", 2, 1.9544997361036416},
      {"f32:4x4:f32-f32.gelu", -1, -0.15865525393145707},
      {"f32:4x4:f32-f32.gelu_tanh", 2, 1.9545976940877752},
      {"f32:4x4:f32-f32.relu2", 1.5, 2.25},
      {"f32:4x4:f32-f32+bias*scale.silu+residual", 1, 11.7615941559557649},
      {"f32:8x4:f32-f32+bias.silu*gate", -1, 17.615941559557649}, /* of 3 and of the up row's 3, with biases 3 and 7 */
  };
  const float bias[] = {1, 2, 3, 4, 5, 6, 7, 8}, residual[] = {1, 2, 3, 4, 5, 6, 7, 10, 11, 12}, scale = 0.5f;
  const qn_number up = {3, 0};
  const qn_host_args a = {.bias = bias, .residual = residual, .scale = &scale, .ld_residual = 5};
  for (size_t i = 0; i < QN_COUNT(cases); i++) {
    qn_problem p;
    ck_ok(qn__problem_parse(cases[i].spelling, &p));
    qn_number y = qn__epilogue(&p, &a, 1, 2, (qn_number[2]){{cases[i].sum, 0}, up});
    ck_assert_msg(fabs(y.value - cases[i].want) < 1e-7, "%s of %g is %.17g", cases[i].spelling, cases[i].sum, y.value);
    ck_assert(y.error > 0 && y.error < 30 * 0x1p-24 * fmax(1, fabs(y.value)));
    for (double e = 1e-4; e < 2; e *= 10) {
      double error = qn__epilogue(&p, &a, 1, 2, (qn_number[2]){{cases[i].sum, e}, up}).error, most = 0;
      for (int j = -100; j <= 100; j++)
        most = fmax(most, fabs(qn__epilogue(&p, &a, 1, 2, (qn_number[2]){{cases[i].sum + e * j / 100, 0}, up}).value -
                               y.value));
      ck_assert_msg(error >= most && error <= 1.01 * most + 1e-5, "%s of %g +- %g: %g, seen %g", cases[i].spelling,
                    cases[i].sum, e, error, most);
    }
  }
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(test_layouts_are_bijections, 300),
      CASE(test_packed_bytes, 1),
      CASE(test_unaligned_planes, 1),
      CASE(test_widening, 1),
      CASE(test_bad_layouts, 1),
      CASE(test_bad_planes, 1),
      CASE(test_bad_elements_are_found, 13),
      CASE(test_planes_in_one_array, 1),
      CASE(test_bad_formats, 1),
      CASE(test_reference_is_the_formula, 1),
      CASE(test_reference_rounds_by_groups, 1),
      CASE(test_epilogue_is_the_formula, 1),
  };
  return RUN_CASES(argv[0], cases, .timeout = 120);
}
