/* test_cuda.c - the CUDA families on every format, run by the PTX interpreter against the float64 reference.
 *
 * Kinds of weights that take different paths go through all variants that cover the space (every pair of values of two
 * parameters); every other format through a few of each family, or is refused for the reason that is said here.
 * Variants are compiled by NVRTC and verified by the tool: launches take turns in late and random order, every check of
 * the interpreter is on. Shapes small and ragged are the verifier's own; those here decide which rules apply. */
#include "cli_fixture.h"
#include "format_list.h"
#include <stdbool.h>

/* Verify all variants of some problems, "--problem P --problem Q": each has one, `least` or more are right, none is
 * wrong. */
static void verified(unsigned least, const char *device, const char *problems, const char *options) {
  int status = cli("quernel verify %s %s --device %s --store store --quiet", problems, options, device);
  unsigned count = 0;
  int said = sscanf(cli_out, "%u of %*u variants are right", &count);
  ck_assert_msg(status == 0 && said == 1 && count >= least,
                "%s on %s: exit %d\n%s%s\n  again: %s/quernel verify %s %s --device %s", problems, device, status,
                cli_out, cli_err, QN_BUILD, problems, options, device);
}

static const struct {
  const char *device, *problem;
} rows[] = {
    /* the plainest; a family writes the same text for every architecture, so that each row is on one; warpgroups, which
     * one architecture has, are below */
    {"emu:sm_120a", "int4.g128:4096x4096:f16-f16"},
    {"emu:sm_75", "int4.g128:4096x4096:f16-f16"}, /* without tensor cores */
    /* zero points, one scale a row, bias; stacks of experts; a code as wide as a byte, where bf16 has 7 bits */
    {"emu:sm_120a", "int4.g64.z:4096x4096:bf16-bf16+bias"},
    {"emu:sm_120a", "int4.row.bf16:5x4096x4096:bf16-f16+bias.gelu+residual"},
    {"emu:sm_80", "int8.g32.z.f32:3x4096x4096:bf16-bf16"},
    /* tables, 8-bit floats in blocks, scales and minima in two levels, a scale for 16 and one of the tensor */
    {"emu:sm_89", "nf4.g64:4096x4096:f16-f16"},
    {"emu:sm_120a", "e4m3.b128x128:4096x4096:bf16-f32"},
    {"emu:sm_80", "q4_k:4096x4096:bf16-bf16"},
    {"emu:sm_120a", "nvfp4:4096x4096:f16-f16"},
    /* activations of 8 bits: results at the end of what f16 holds, both factors the same 8-bit floats */
    {"emu:sm_80", "q4_k:4096x4096:i8-f16"},
    {"emu:sm_80", "e4m3.b128x128:4096x4096:e4m3-bf16+bias"},
    /* products of 8-bit integers: a zero point, a table, one scale a row */
    {"emu:sm_120a", "int4.g64.z:4096x4096:i8-f16*scale.silu*gate"},
    {"emu:sm_80", "iq4_xs:4096x4096:i8-bf16"},
    {"emu:sm_120a", "int8.row:4096x4096:i8-f32"},
    /* dense weights */
    {"emu:sm_80", "f16:4096x4096:f16-f16"},
    {"emu:sm_89", "bf16:4096x4096:bf16-f32"},
};

/* Row i is the first on its device. */
static bool is_first(int i) {
  for (int j = 0; j < i; j++)
    if (!strcmp(rows[i].device, rows[j].device)) return false;
  return true;
}

/* One worker takes all that run on the device of a row. */
START_TEST(every_variant_is_right) {
  char problems[768];
  size_t n = 0;
  unsigned count = 0;
  if (!is_first(_i)) return;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    if (!strcmp(rows[i].device, rows[_i].device)) {
      n += (size_t)snprintf(problems + n, sizeof problems - n, "--problem '%s' ", rows[i].problem), count++;
      ck_assert_uint_lt(n, sizeof problems);
    }
  verified(8 * count, rows[_i].device, problems, "--space reduced");
}
END_TEST

static const char *const devices[] = {"emu:sm_80", "emu:sm_90a", "emu:sm_120a"};

static const char *const formats[] = {
#define X(spelling, f32, bf16, i8) spelling,
    FORMAT_LIST(X)
#undef X
};
#define N_FORMATS ((int)(sizeof formats / sizeof *formats))

/* What tensor cores do not take, and what is said of it; NULL: they take it. Dense weights meet activations of 8 bits
 * in f16. */
static const char *refusal(const char *format, const char *act) {
  static const char *const fine[] = {"int4.g20.zf", "int4.g1.zf", "e5m2.b2x4"}, *const dense[] = {"f32", "f16", "bf16"};
  for (int i = 0; i < 3; i++) {
    if (!strcmp(format, fine[i])) return "groups along K must be multiples of 16 codes";
    if (!strcmp(format, dense[i]) && strcmp(format, !strcmp(act, "bf16") ? act : "f16"))
      return "tensor cores multiply two numbers of one type";
  }
  return NULL;
}

/* Formats take turns: with types of activations, devices, and two variants of a family. */
enum { TURNS = 6 };
static const char *const families[] = {"cuda.decode", "cuda.mma"};

static const char *act_of(int f, int mma) {
  static const char *const acts[] = {"bf16", "f16", "i8", "e4m3"};
  return acts[(f + mma) % 4];
}

/* A tile of many tokens and one of few: of each format a few variants. */
START_TEST(every_format_in_both_families) {
  static const char *const variants[2][2] = {
      {"--fix BM=8 --fix WN=4 --fix SPLIT=2", "--fix BM=16 --fix WN=2 --fix SPLIT=1"},
      {"--fix BM=64 --fix BN=128 --fix WN=4 --fix STAGES=4 --fix SPLIT=2",
       "--fix BM=32 --fix BN=256 --fix BK=64 --fix WN=8 --fix STAGES=4 --fix SPLIT=4"},
  };
  int turn = _i / 2, mma = _i % 2;
  char problems[768], options[192];
  size_t n = 0;
  unsigned count = 0;
  for (int f = turn; f < N_FORMATS; f += TURNS)
    if (!refusal(formats[f], act_of(f, mma))) {
      n +=
          (size_t)snprintf(problems + n, sizeof problems - n, "--problem %s:4096x4096:%s ", formats[f], act_of(f, mma));
      ck_assert_uint_lt(n, sizeof problems);
      count++;
    }
  snprintf(options, sizeof options, "--family %s %s", families[mma], variants[mma][turn % 2]);
  verified(count, devices[turn % 3], problems, options);
}
END_TEST

/* What tensor cores refuse, CUDA cores take. */
START_TEST(what_is_refused_says_why) {
  static const char *const gemv[] = {"--family cuda.gemv --fix WARPS=4 --fix MB=2",
                                     "--family cuda.gemv --fix WARPS=2 --fix MB=1"};
  int f = _i / 2, mma = _i % 2;
  const char *device = devices[f % 3], *why = refusal(formats[f], act_of(f, mma));
  char problem[96];
  if (!why) return;
  snprintf(problem, sizeof problem, "--problem %s:4096x4096:%s", formats[f], act_of(f, mma));
  cli("quernel kernels %s --family %s --device %s", problem, families[mma], device);
  ck_assert_msg(strstr(cli_out, why) != NULL, "%s: \"%s\" is not in\n%s%s", problem, why, cli_out, cli_err);
  cli("quernel kernels %s --family %s --device %s --list", problem, families[mma], device);
  ck_assert_msg(!*cli_out, "%s is said to be refused, but there is\n%s", problem, cli_out);
  if (!mma) verified(1, device, problem, gemv[f % 2]);
}
END_TEST

/* Many tokens: weights by way of scratch, which holds NaN before each call; kinds that are not in the rows above. X of
 * 16 bits meets them in warpgroups, of 8 bits in warps. */
START_TEST(expanded_weights_are_right) {
  verified(
      10, "emu:sm_90a",
      "--problem mxfp4:4096x4096:bf16-bf16 --problem int4.g20.zf:200x640:bf16-bf16 --problem mxfp4:200x512:e4m3-f32 "
      "--problem int4.g128:200x512:i8-f16+bias.gelu_tanh*gate+residual",
      "--family cuda.expand");
}
END_TEST

/* Warpgroups take long here: one variant for each kind of weight and of activations, between them all ways to go. */
START_TEST(warpgroups_are_right) {
  static const char *const of[][2] = {
      {"int4.g128:4096x4096:f16-f16", "--fix BM=64 --fix MT=1 --fix SPLIT=2"},
      {"int4.g64.z:4096x4096:bf16-bf16+bias.silu*gate+residual", "--fix BM=32 --fix MT=1 --fix SPLIT=1"},
      {"int5.g64.m:4096x4096:bf16-f16", "--fix BM=32 --fix MT=2 --fix SPLIT=4 --fix SCALE=weight"},
      {"nvfp4:4096x4096:f16-f16", "--fix BM=32 --fix MT=2 --fix SPLIT=1"},
      {"e4m3.b128x128:4096x4096:bf16-f32", "--fix BM=64 --fix MT=2 --fix SPLIT=1 --fix SCALE=weight"},
      {"int8.row:3x4096x4096:f16-f16+bias", "--fix BM=32 --fix MT=1"},
      {"int2.g64:4096x4096:f16-f32", "--fix BM=64 --fix MT=2 --fix SPLIT=1"},
      {"int4.g64.z:4096x4096:i8-f16", "--fix BM=32 --fix MT=1 --fix SPLIT=2"},
      {"int8.row:4096x4096:i8-bf16", "--fix BM=64 --fix MT=1 --fix SPLIT=1"},
      {"mxfp4:4096x4096:e4m3-bf16+bias", "--fix BM=64 --fix MT=1 --fix SPLIT=1"},
      {"e4m3.row:4096x4096:e5m2-f32", "--fix BM=64 --fix MT=2 --fix SPLIT=2"},
      {"int4.g128:4096x4096:bf16-f16", "--fix BM=128 --fix MT=1 --fix SPLIT=2 --fix TOGETHER=2"},
      {"int4.g128:4096x4096:e4m3-f16", "--fix BM=128 --fix MT=1 --fix SPLIT=2 --fix TOGETHER=2"},
      {"bf16:4096x4096:bf16-f32+bias", "--fix BM=128 --fix MT=1 --fix SPLIT=1 --fix TOGETHER=1"}, /* both grids */
  };
  char problem[96], options[192];
  snprintf(problem, sizeof problem, "--problem %s", of[_i][0]);
  snprintf(options, sizeof options, "--family cuda.wgmma %s", of[_i][1]);
  verified(1, "emu:sm_90a", problem, options);
}
END_TEST

/* CTAs that stay go from tile to tile, and share K of those that are left: three, so that few tiles are many. */
START_TEST(warpgroups_that_stay_are_right) {
  static const char *const problems[] = {"int4.g128:4096x4096:f16-f16", "int8.row:4096x4096:i8-bf16",
                                         "int4.g32.bf16:4096x4096:e5m2-f16+bias"};
  int status = cli("quernel run %s/lua/stays.lua %s", QN_TESTS, problems[_i]);
  ck_assert_msg(status == 0, "%s: exit %d\n%s%s\n  again: %s", problems[_i], status, cli_out, cli_err, cli_command);
}
END_TEST

/* Tensor cores that multiply 8-bit floats: with scales of their own, and with scales that wait for the sum. */
START_TEST(products_of_8_bit_floats_are_right) {
#define MANY "cuda.mma --fix BM=32 --fix BN=64 --fix BK=64 --fix WN=4 --fix STAGES=4 --fix SPLIT=1 "
  static const struct {
    const char *device, *problem, *variants;
    unsigned least;
  } floats[] = {
      {"emu:sm_120a", "--problem mxfp4:4096x4096:e4m3-f16", "cuda.decode --fix BM=8 --fix WN=4 --fix SPLIT=2", 1},
      {"emu:sm_120a", "--problem mxfp8:4096x4096:e5m2-bf16", MANY, 1},
      {"emu:sm_120a", "--problem mxfp8_e5m2:4096x4096:e4m3-f32", MANY, 1},
      {"emu:sm_120a", "--problem int4.g128:4096x4096:e4m3-f16+bias", MANY "--fix SCALE=sum", 1},
      {"emu:sm_89", "--problem e4m3.row:4096x4096:e5m2-f16", "cuda.decode --fix BM=16 --fix WN=2 --fix SPLIT=1", 1},
  };
#undef MANY
  char family[192];
  snprintf(family, sizeof family, "--family %s", floats[_i].variants);
  verified(floats[_i].least, floats[_i].device, floats[_i].problem, family);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(every_format_in_both_families, 2 * TURNS),
      CASE(what_is_refused_says_why, 2 * N_FORMATS),
      CASE(every_variant_is_right, sizeof rows / sizeof *rows),
      CASE(expanded_weights_are_right, 1),
      CASE(products_of_8_bit_floats_are_right, 5),
      CASE(warpgroups_are_right, 14),
      CASE(warpgroups_that_stay_are_right, 3),
  };
  return RUN_CASES(argv[0], cases, cli_enter, cli_leave, 900);
}
