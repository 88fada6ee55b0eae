/* test_problem.c - spellings of problems, and conversion of activations. */
#include "convert.h"
#include "runtime_fixture.h"
#include <math.h>

START_TEST(test_spellings) {
  static const struct {
    const char *in, *full;
    qn_problem p;
  } good[] = {
      {"int4.g128:4096x11008:bf16-f32+bias",
       "int4.g128:4096x11008:bf16-f32+bias",
       {.n = 4096, .k = 11008, .act = QN_T_BF16, .out = QN_T_F32, .epilogue = {QN_EPILOGUE_BIAS}}},
      {"int4.g128:1x2147483647:i8-f16",
       "int4.g128:1x2147483647:i8-f16",
       {.n = 1, .k = 2147483647, .act = QN_T_I8, .out = QN_T_F16}},
      {"int4:7x9:f32~i8", "int4:7x9:f32~i8", {.n = 7, .k = 9, .act = QN_T_I8, .x = QN_T_F32}},
      {"int4:7x9:f16~e4m3-bf16+bias",
       "int4:7x9:f16~e4m3-bf16+bias",
       {.n = 7, .k = 9, .act = QN_T_E4M3, .out = QN_T_BF16, .x = QN_T_F16, .epilogue = {QN_EPILOGUE_BIAS}}},
      {"nf4.g64.f32:7x9", "nf4.g64.f32:7x9", {.n = 7, .k = 9}},
      {"nf4.g64.f32:7x9+bias", "nf4.g64.f32:7x9+bias", {.n = 7, .k = 9, .epilogue = {QN_EPILOGUE_BIAS}}},
      {"int4:4096x7x9", "int4:4096x7x9", {.experts = 4096, .n = 7, .k = 9}},
      {"int4:1x7x9:f32+bias",
       "int4:1x7x9:f32+bias",
       {.experts = 1, .n = 7, .k = 9, .act = QN_T_F32, .epilogue = {QN_EPILOGUE_BIAS}}},
      {"f16:7x9:f16", "f16:7x9:f16", {.n = 7, .k = 9, .act = QN_T_F16}},
  };
  for (size_t i = 0; i < QN_COUNT(good); i++) {
    qn_problem p;
    ck_ok(qn__problem_parse(good[i].in, &p));
    ck_assert_str_eq(p.spelling, good[i].full);
    ck_assert_int_eq(p.n, good[i].p.n);
    ck_assert_int_eq(p.k, good[i].p.k);
    ck_assert_int_eq(p.experts, good[i].p.experts);
    ck_assert_uint_eq(p.act, good[i].p.act);
    ck_assert_uint_eq(p.out, good[i].p.out);
    ck_assert_uint_eq(p.x, good[i].p.x);
    ck_assert_mem_eq(p.epilogue, good[i].p.epilogue, sizeof p.epilogue);
    ck_assert_int_eq(strncmp(p.format, good[i].in, strlen(p.format)), 0);
  }
}
END_TEST

START_TEST(test_bad_spellings) {
  static const struct {
    const char *in, *part;
    qn_status status;
  } bad[] = {
      {"", "no format", QN_E_ARG},
      {"int4.g128", "no format", QN_E_ARG},
      {":4x4", "no format", QN_E_ARG},
      {"int4:x4", "N is not a number", QN_E_ARG},
      {"int4:-4x4", "N is not a number", QN_E_ARG},
      {"int4:4", "no 'x'", QN_E_ARG},
      {"int4:4x", "no 'x'", QN_E_ARG},
      {"int4:4x4x", "no number after 'x'", QN_E_ARG},
      {"int4:2x2x4x4", "is no step", QN_E_ARG},
      {"int4:0x4x4", "E = 0 is outside 1 .. 4096", QN_E_SHAPE},
      {"int4:4097x4x4", "E = 4097 is outside 1 .. 4096", QN_E_SHAPE},
      {"int4:2x0x4", "N = 0 is outside", QN_E_SHAPE},
      {"int4:0x4", "1 .. 2147483647", QN_E_SHAPE},
      {"int4:4x0", "1 .. 2147483647", QN_E_SHAPE},
      {"int4:2147483648x4", "1 .. 2147483647", QN_E_SHAPE},
      {"int4:4x99999999999999999999999", "1 .. 2147483647", QN_E_SHAPE},
      {"int4:4x4:", "activation", QN_E_ARG},
      {"int4:4x4:f17", "activation", QN_E_ARG},
      {"int4:4x4:u8", "activation", QN_E_ARG},
      {"int4:4x4:i8~i8", "types of X before a '~' are f16, bf16 or f32", QN_E_ARG},
      {"int4:4x4:~i8", "types of X before a '~' are f16, bf16 or f32", QN_E_ARG},
      {"int4:4x4:f32~", "types behind a '~' are i8, e4m3 or e5m2", QN_E_ARG},
      {"int4:4x4:f32~bf16-f32", "types behind a '~' are i8, e4m3 or e5m2", QN_E_ARG},
      {"int4:4x4:f32~i8~i8", "types behind a '~' are i8, e4m3 or e5m2", QN_E_ARG},
      {"int4:4x4:bf16-", "output", QN_E_ARG},
      {"int4:4x4:bf16-f33", "output", QN_E_ARG},
      {"int4:4x4:bf16-f32+relu", "no step is called '+relu'; known: +bias", QN_E_ARG},
      {"int4:4x4*gate", "follows a function of the gate", QN_E_ARG},
      {"int4:4x4.silu+bias*gate", "follows a function of the gate", QN_E_ARG},
      {"int4:5x4.silu*gate", "N must be even", QN_E_ARG},
      {"int4:4x4+residual.silu*gate", "'+residual' has an element for each column of Y", QN_E_ARG},
      {"int4:4x4.silu*gate+bias", "'+bias' has an element for each row of W", QN_E_ARG},
      {"int4:4x4+bias+bias", "'+bias' is there twice", QN_E_ARG},
      {"int4:4x4 ", "' ' is no step", QN_E_ARG},
      {"a-name-of-a-format-that-is-very-much-longer-than-anyone-would-want-it-to-be:4x4", "too long", QN_E_ARG},
  };
  for (size_t i = 0; i < QN_COUNT(bad); i++) {
    qn_problem p;
    ck_fails(bad[i].status, bad[i].part, qn__problem_parse(bad[i].in, &p));
  }
  qn_problem p;
  ck_fails(QN_E_ARG, "NULL", qn__problem_parse(NULL, &p));
}
END_TEST

/* A format answers to the words of its name in any order, and to those that say what is so anyway; to nothing else. */
START_TEST(test_names_of_formats) {
  static const qn_format f = {.name = "int4.g128.z", .implied = "g128.f16"};
  static const char *const yes[] = {"int4.g128.z", "int4.z", "int4.z.g128", "int4.g128.f16.z", "int4.f16.z"};
  static const char *const no[] = {
      "",    "int4",        "int4.g128",        "int4.g64.z",        "int4.g128.zf", "int8.g128.z",
      "int", "g128.int4.z", "int4.g128.bf16.z", "int4.g128.z.int4.x"};
  for (size_t i = 0; i < QN_COUNT(yes); i++) ck_assert_msg(qn__format_named(&f, yes[i]), "'%s'", yes[i]);
  for (size_t i = 0; i < QN_COUNT(no); i++) ck_assert_msg(!qn__format_named(&f, no[i]), "'%s'", no[i]);
}
END_TEST

/* Every half and every bfloat16 goes to f32 and back unchanged (NaN stays NaN). */
START_TEST(test_sixteen_bit_floats_round_trip) {
  qn_type t = _i ? QN_T_BF16 : QN_T_F16;
  for (uint32_t c = 0; c < 65536; c++) {
    uint16_t in = (uint16_t)c, out;
    float f;
    ck_ok(qn_convert(&in, t, &f, QN_T_F32, 1));
    ck_ok(qn_convert(&f, QN_T_F32, &out, t, 1));
    if (isnan(f)) ck_assert(isnan(qn__load_f64(t, &out, 0)));
    else ck_assert_uint_eq(in, out);
    ck_assert(isnan(f) || (double)f == qn__load_f64(t, &in, 0));
  }
}
END_TEST

/* Between two neighbours: below the middle the lower, above it the upper, at it the even one. */
START_TEST(test_rounding_to_nearest_even) {
  qn_type t = _i ? QN_T_BF16 : QN_T_F16;
  uint32_t last = _i ? 0x7f7f : 0x7bff;
  for (uint32_t c = 0; c < last; c++) {
    uint16_t low = (uint16_t)c, high = (uint16_t)(c + 1), out;
    float middle = (float)((qn__load_f64(t, &low, 0) + qn__load_f64(t, &high, 0)) / 2);
    float in[3] = {nextafterf(middle, 0), middle, nextafterf(middle, INFINITY)};
    uint16_t want[3] = {low, c & 1 ? high : low, high};
    for (int i = 0; i < 3; i++) {
      ck_ok(qn_convert(&in[i], QN_T_F32, &out, t, 1));
      ck_assert_msg(out == want[i], "%s of %a is %04x, not %04x", qn_type_name(t), (double)in[i], out, want[i]);
    }
  }
  const float big[] = {65519.996f, 65520.0f, 1e38f, INFINITY};
  uint16_t out[4];
  ck_ok(qn_convert(big, QN_T_F32, out, QN_T_F16, 4));
  ck_assert_uint_eq(out[0], 0x7bff);
  for (int i = 1; i < 4; i++) ck_assert_uint_eq(out[i], 0x7c00);
}
END_TEST

START_TEST(test_eight_bit_floats) {
  const struct {
    qn_type t;
    uint8_t code;
    double value;
  } known[] = {{QN_T_E4M3, 0x7e, 448},   {QN_T_E4M3, 0x01, 0x1p-9},  {QN_T_E4M3, 0xb8, -1}, {QN_T_E4M3, 0x08, 0x1p-6},
               {QN_T_E5M2, 0x7b, 57344}, {QN_T_E5M2, 0x01, 0x1p-16}, {QN_T_E5M2, 0xbc, -1}, {QN_T_E8M0, 127, 1},
               {QN_T_E8M0, 0, 0x1p-127}, {QN_T_E8M0, 254, 0x1p127}};
  for (size_t i = 0; i < QN_COUNT(known); i++)
    ck_assert_double_eq(qn__load_f64(known[i].t, &known[i].code, 0), known[i].value);
  for (int t = QN_T_E4M3; t <= QN_T_E8M0; t++)
    for (int c = 0; c < 256; c++) {
      uint8_t in = (uint8_t)c, out = 0;
      double v = qn__load_f64((qn_type)t, &in, 0);
      if (!isfinite(v)) continue;
      qn__store_f64((qn_type)t, &out, 0, v);
      ck_assert_uint_eq(in, out);
    }
}
END_TEST

/* A float64 is rounded once: beside the middle of two neighbours, nearer than any f32, the nearer one is taken. */
START_TEST(test_rounding_of_float64) {
  static const struct {
    qn_type t;
    uint32_t last; /* the largest finite one */
  } types[] = {{QN_T_F16, 0x7bff}, {QN_T_BF16, 0x7f7f}, {QN_T_E4M3, 0x7e}, {QN_T_E5M2, 0x7b}, {QN_T_E8M0, 0xfe}};
  qn_type t = types[_i].t;
  for (uint32_t c = 0; c < types[_i].last; c++) {
    uint16_t low = (uint16_t)c, high = (uint16_t)(c + 1);
    double a = qn__load_f64(t, &low, 0), b = qn__load_f64(t, &high, 0), middle = (a + b) / 2;
    double in[] = {a, nextafter(middle, a), middle, nextafter(middle, b), b};
    uint32_t want[] = {c, c, c & 1 ? c + 1 : c, c + 1, c + 1};
    for (int i = 0; i < 5; i++) {
      char odd[3] = {0};
      uint16_t out;
      qn__store_f64(t, odd + 1, 0, in[i]);
      memcpy(&out, odd + 1, 2);
      ck_assert_msg(out == want[i], "%s of %a is %04x, not %04x", qn_type_name(t), in[i], out, want[i]);
    }
  }
  double largest = qn__load_f64(t, &types[_i].last, 0);
  uint16_t huge = 0, nan = 0;
  qn__store_f64(t, &huge, 0, 1e300);
  qn__store_f64(t, &nan, 0, NAN);
  ck_assert_double_eq(qn__load_f64(t, &huge, 0), qn_type_bits(t) == 16 ? (double)INFINITY : largest);
  ck_assert(isnan(qn__load_f64(t, &nan, 0)));
}
END_TEST

/* quernel.h: any alignment, and more than one block of them. */
START_TEST(test_conversion_at_odd_addresses) {
  static const qn_type types[] = {QN_T_F16, QN_T_BF16, QN_T_F32};
  enum { N = 600 };
  qn_type from = types[_i / 3], to = types[_i % 3];
  char src[4 * N + 1], dst[4 * N + 1];
  for (int i = 0; i < N; i++)
    qn__store_f64(from, src + 1, i, i - N / 2); /* exact in bf16 up to 256, near enough above */
  ck_ok(qn_convert(src + 1, from, dst + 1, to, N));
  for (int i = 0; i < N; i++) {
    char want[4];
    qn__store_f64(to, want, 0, qn__load_f64(from, src + 1, i));
    ck_assert_mem_eq(want, dst + 1 + i * (qn_type_bits(to) / 8), (size_t)qn_type_bits(to) / 8);
  }
}
END_TEST

START_TEST(test_conversion_refuses_other_types) {
  float f = 0;
  ck_fails(QN_E_ARG, "i8", qn_convert(&f, QN_T_I8, &f, QN_T_F32, 1));
  ck_fails(QN_E_ARG, "only", qn_convert(&f, QN_T_F32, &f, QN_T_F64, 1));
  ck_fails(QN_E_ARG, "NULL", qn_convert(NULL, QN_T_F32, &f, QN_T_F32, 1));
  ck_fails(QN_E_ARG, "f16 have no scales", qn_quantize_rows(&f, 1, 1, 1, QN_T_F16, &f, &f));
  ck_fails(QN_E_ARG, "NULL", qn_quantize_rows(NULL, 1, 1, 1, QN_T_I8, &f, &f));
  ck_fails(QN_E_ARG, "NULL", qn_quantize_rows(&f, 1, 1, 1, QN_T_I8, NULL, &f));
  ck_fails(QN_E_ARG, "NULL", qn_quantize_rows(&f, 1, 1, 1, QN_T_I8, &f, NULL));
  ck_fails(QN_E_ARG, "m is -1", qn_quantize_rows(&f, -1, 1, 1, QN_T_I8, &f, &f));
  ck_fails(QN_E_ARG, "k 0", qn_quantize_rows(&f, 1, 0, 1, QN_T_I8, &f, &f));
  ck_fails(QN_E_ARG, "ldx 1", qn_quantize_rows(&f, 2, 2, 1, QN_T_I8, &f, &f));
  ck_ok(qn_quantize_rows(NULL, 0, 0, 0, QN_T_I8, NULL, NULL));
}
END_TEST

START_TEST(test_activations_to_i8) {
  float x[3][6] = {{127, -127, 0.5f, 1.5f, -2.5f, 99}, {0, 0, -0.0f, 0, 0, 7}, {1e-3f, 2.54f, -1.27f, 0.63f, 0, 7}};
  int8_t q[3][5], want[3][5] = {{127, -127, 0, 2, -2}, {0}, {0, 127, -64, 32, 0}};
  float scale[3];
  ck_ok(qn_quantize_rows(&x[0][0], 3, 5, 6, QN_T_I8, q, scale));
  for (int i = 0; i < 15; i++) ck_assert_int_eq((&q[0][0])[i], (&want[0][0])[i]);
  ck_assert_float_eq(scale[0], 1);
  ck_assert_float_eq(scale[1], 0);
  ck_assert_float_eq(scale[2], 2.54f / 127);
}
END_TEST

/* What is not finite shows in the scale of its row, and nowhere else. */
START_TEST(test_activations_that_are_not_finite) {
  const float x[3][2] = {{1, NAN}, {-INFINITY, 1}, {1, 127}};
  int8_t q[3][2];
  float scale[3];
  ck_ok(qn_quantize_rows(&x[0][0], 3, 2, 2, QN_T_I8, q, scale));
  ck_assert_float_nan(scale[0]);
  ck_assert_float_infinite(scale[1]);
  ck_assert_float_eq(scale[2], 1);
  ck_assert_int_eq(q[2][0], 1);
}
END_TEST

/* A row whose largest value is 448 has scale 1: its codes are those of the values themselves. */
static uint8_t code_beside_448(float v) {
  float scale;
  uint8_t q[2];
  ck_ok(qn_quantize_rows((float[]){448, v}, 1, 2, 2, QN_T_E4M3, q, &scale));
  ck_assert_float_eq(scale, 1);
  ck_assert_uint_eq(q[0], 0x7e);
  return q[1];
}

/* Every code comes back, and what lies between two: the nearer one, and half way the even one. */
START_TEST(test_activations_to_e4m3) {
  for (unsigned c = 0; c < 256; c++) {
    uint8_t code = (uint8_t)c, up = (uint8_t)(c + 1);
    if ((c & 0x7f) == 0x7f) continue; /* NaN */
    float v = (float)qn__load_f64(QN_T_E4M3, &code, 0), next = (float)qn__load_f64(QN_T_E4M3, &up, 0);
    ck_assert_uint_eq(code_beside_448(v), c);
    if ((c & 0x7f) == 0x7e) continue; /* the largest */
    float half = (v + next) / 2;
    ck_assert_uint_eq(code_beside_448(half), c & 1 ? c + 1 : c);
    ck_assert_uint_eq(code_beside_448(nextafterf(half, v)), c);
    ck_assert_uint_eq(code_beside_448(nextafterf(half, next)), c + 1);
  }
}
END_TEST

/* Rows of two, 9 is beyond them. The last is so small that its scale, the smallest f32, is a 599th of it: it
 * saturates. */
START_TEST(test_rows_to_e4m3) {
  float x[4][3] = {{2, -4, 9}, {0, -0.0f, 9}, {-3e38f, 3e38f, 9}, {1e-45f, -8.4e-43f, 9}}, scale[4];
  uint8_t q[4][2], want[4][2] = {{0x76, 0xfe}, {0, 0}, {0xfe, 0x7e}, {0x38, 0xfe}};
  ck_ok(qn_quantize_rows(&x[0][0], 4, 2, 3, QN_T_E4M3, q, scale));
  ck_assert_mem_eq(q, want, sizeof want);
  ck_assert_float_eq(scale[0], 4.0f / 448);
  ck_assert_float_eq(scale[1], 0);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(test_spellings, 1),
      CASE(test_bad_spellings, 1),
      CASE(test_names_of_formats, 1),
      CASE(test_sixteen_bit_floats_round_trip, 2),
      CASE(test_rounding_to_nearest_even, 2),
      CASE(test_eight_bit_floats, 1),
      CASE(test_rounding_of_float64, 5),
      CASE(test_conversion_at_odd_addresses, 9),
      CASE(test_conversion_refuses_other_types, 1),
      CASE(test_activations_to_i8, 1),
      CASE(test_activations_that_are_not_finite, 1),
      CASE(test_activations_to_e4m3, 1),
      CASE(test_rows_to_e4m3, 1),
  };
  return RUN_CASES(argv[0], cases, .timeout = 120);
}
