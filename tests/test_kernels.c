/* test_kernels.c - every format times every kind of activation on the host, against the float64 reference.
 *
 * Each pair is verified by the tool with the widest instructions of this CPU, in a family and a layout that take turns:
 * the four types of activations meet a format in all four of them, if it has both layouts. With one type it runs in
 * portable C, too, with another in AVX2; a few problems run in the whole reduced space (both ends of each parameter).
 * What has the family and the layout in common is verified by one call of the tool.
 * With QN_PART in the environment, for machines that are emulated, the widest instructions meet every other format with
 * one type, portable C every eighth; what is refused and the spaces are left out.
 * The tool's own shapes are awkward: columns that do not fill a panel, a K that ends within a group or within a vector.
 * A format that is registered and not listed here fails. */
#include "cli_fixture.h"
#include "cpu.h"
#include "fail.h"
#include "format_list.h"
#include <stdbool.h>

static const struct {
  const char *format, *refused[4]; /* why, for each activation type */
} formats[] = {
#define X(spelling, f32, bf16, i8) {spelling, {f32, bf16, i8, bf16}},
    FORMAT_LIST(X)
#undef X
};
static const char *const acts[] = {"f32", "bf16", "i8", "e4m3"};

#define N_FORMATS ((int)(sizeof formats / sizeof *formats))

/* Verify all variants of some problems, "--problem P --problem Q": `least` of them or more are right, none is wrong. */
static unsigned verified_all(unsigned least, const char *problems, const char *options) {
  int status = cli("quernel verify %s %s --device host --store store --quiet", problems, options);
  unsigned count = 0;
  int said = sscanf(cli_out, "%u of %*u variants are right", &count);
  ck_assert_msg(status == 0 && said == 1 && count >= least,
                "exit %d\n%s%s\n  again: %s/quernel verify %s %s --device host", status, cli_out, cli_err, QN_BUILD,
                problems, options);
  return count;
}

static void verified(unsigned least, const char *problem, const char *options) {
  char one[128];
  snprintf(one, sizeof one, "--problem %s", problem);
  verified_all(least, one, options);
}

static const struct {
  const char *isa, *tile, *needs;
  int turn;   /* where to look for the one activation type it meets a format with, format 0 beginning there */
  bool whole; /* it meets a format with every type */
} sets[] = {{"avx512", "NR=32 --fix MR=4", "avx512bf16 avx512vbmi avx512vl avx512vnni", 2, true},
            {"neon", "NR=16 --fix MR=4", "aarch64 bf16 dotprod", 2, true},
            {"avx2", "NR=16 --fix MR=2", "avx2 f16c fma", 0, false},
            {"c", "NR=16 --fix MR=2", "", 1, false}};

static bool part(void) { return getenv("QN_PART") != NULL; }

static bool here(size_t set) {
  char missing[32];
  return qn__cpu_has(sets[set].needs, missing, sizeof missing);
}

/* The first activation type that the format takes, from one on. */
static int act_of(int format, int a) {
  while (formats[format].refused[a % 4]) a++;
  return a % 4;
}

/* Does the instruction set run this format with this type? */
static bool meets(size_t set, int f, int a) {
  if (!here(set)) return false;
  if (part())
    return sets[set].whole ? f % 2 == f / 8 % 2 && a == act_of(f, f / 2) : f % 8 == 0 && a == act_of(f, f / 8);
  return sets[set].whole || a == act_of(f, f + sets[set].turn);
}

/* Formats times types, as 4 * format + type, that are refused. */
static int refused[4 * N_FORMATS], n_refused;

/* A record holds the scale of its group: dense weights have none, and those of rows and of groups that are cut into
 * several lie apart. */
static bool in_records(const char *format) {
  static const char *const apart[] = {".row", ".tensor", ".g512"}, *const dense[] = {"f32", "f16", "bf16"};
  for (int i = 0; i < 3; i++)
    if (strstr(format, apart[i]) || !strcmp(format, dense[i])) return false;
  return true;
}

/* What one instruction set runs in one way: formats times types, as 4 * format + type. */
typedef struct batch {
  size_t set;
  bool gemm, record;
  int n, pair[4 * N_FORMATS];
} batch;
static batch batches[4 * QN_COUNT(sets)];
static int n_batches, n_pairs;

static bool holds(const batch *b, int f, int a) {
  return !formats[f].refused[a] && meets(b->set, f, a) && (f + a) % 2 == b->gemm &&
         ((f + a) / 2 % 2 && in_records(formats[f].format)) == b->record;
}

static void sort_pairs(void) {
  for (size_t i = 0; i < QN_COUNT(batches); i++) {
    batch *b = &batches[n_batches];
    *b = (batch){.set = i / 4, .gemm = i % 2, .record = i / 2 % 2};
    for (int pair = 0; pair < 4 * N_FORMATS; pair++)
      if (holds(b, pair / 4, pair % 4)) b->pair[b->n++] = pair;
    n_batches += b->n > 0, n_pairs += b->n;
  }
  for (int pair = 0; pair < 4 * N_FORMATS; pair++)
    if (formats[pair / 4].refused[pair % 4]) refused[n_refused++] = pair;
}

static const char *const epilogues[] = {"+bias", ".silu*gate+residual", "+residual*scale",
                                        ".gelu", "+bias.gelu_tanh",     "+bias*scale.relu2*gate"};

/* Of a format every other 8-bit type is what X is rounded to. */
static const char *activations(int format, int a) {
  static const char *const from[] = {"f32~", "bf16~", "f16~"};
  static char text[16];
  bool rounds = a >= 2 && (format + a) % 2;
  snprintf(text, sizeof text, "%s%s", rounds ? from[format / 2 % 3] : "", acts[a]);
  return text;
}

/* Some are stacks of experts. */
static const char *problem_of(int f, int a) {
  static char text[96];
  snprintf(text, sizeof text, "%s:%s80x256:%s%s", formats[f].format, f % 5 == 2 ? "4x" : "", activations(f, a),
           f % 3 ? "" : epilogues[f / 3 % 6]);
  return text;
}

START_TEST(every_format_with_every_activation) {
  const batch *b = &batches[_i];
  char options[160], all[2700];
  size_t n = 0;
  for (int i = 0; i < b->n; i++) {
    n += (size_t)snprintf(all + n, sizeof all - n, "--problem %s ", problem_of(b->pair[i] / 4, b->pair[i] % 4));
    ck_assert_uint_lt(n, sizeof all);
  }
  snprintf(options, sizeof options, "--family %s --fix ISA=%s --fix %s --fix %s --fix LAYOUT=%s",
           b->gemm ? "host.gemm" : "host.gemv", sets[b->set].isa, sets[b->set].tile, b->gemm ? "UNROLL=1" : "PF=0",
           b->record ? "record" : "split");
  ck_assert_msg(verified_all((unsigned)b->n, all, options) == (unsigned)b->n, "%s%s: not one variant each", all,
                options);
}
END_TEST

/* No format has a table of more than 16 entries, which several look-ups make. */
START_TEST(wide_tables_are_right) {
  static const char wide[] = "local values = {}\n"
                             "for i = 1, 64 do values[i] = i * 23 % 64 - 40 end\n"
                             "format { name = 'wide', bits = 6, group = 'row', planes = { scale = { 'f32' } },\n"
                             "  decode = function(q, p) return lookup(values, q) * p.scale end }\n";
  char problem[96], options[160];
  cli_write("wide.lua", wide, sizeof wide - 1);
  snprintf(problem, sizeof problem, "wide:33x192:%s-f32", acts[2 * _i]);
  for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
    if (!here(i)) continue;
    snprintf(options, sizeof options, "--template wide.lua --family host.gemv --fix ISA=%s --fix %s --fix PF=0",
             sets[i].isa, sets[i].tile);
    verified(1, problem, options);
  }
}
END_TEST

START_TEST(what_is_refused_says_why) {
  int f = refused[_i] / 4, a = refused[_i] % 4;
  const char *problem = problem_of(f, a), *why = formats[f].refused[a];
  cli("quernel kernels --problem %s --device host", problem);
  ck_assert_msg(strstr(cli_out, why) != NULL, "%s: \"%s\" is not in\n%s%s", problem, why, cli_out, cli_err);
  cli("quernel kernels --problem %s --device host --list", problem);
  ck_assert_msg(!*cli_out, "%s is said to be refused, but there is\n%s", problem, cli_out);
}
END_TEST

START_TEST(cuda_does_not_round_x) {
  ck_assert_int_eq(cli("quernel kernels --problem int4.g128:80x256:f16~i8-f16 --arch sm_90a"), 0);
  ck_assert_msg(strstr(cli_out, "the family takes X in the type that is multiplied") != NULL, "%s%s", cli_out, cli_err);
  ck_assert_int_eq(cli("quernel kernels --problem int4.g128:80x256:f16~i8-f16 --arch sm_90a --list"), 0);
  ck_assert_str_eq(cli_out, "");
}
END_TEST

START_TEST(foreign_activations_are_refused) {
  ck_assert_int_eq(cli("quernel kernels --problem int4.g128:80x256:f16-f16 --device host"), 0);
  ck_assert_msg(strstr(cli_out, "host kernels take bf16, f32, i8, e4m3 or e5m2") != NULL, "%s%s", cli_out, cli_err);
}
END_TEST

/* Problems in the whole reduced space. */
static const char *const problems[] = {
    "int4.g128:80x256:bf16-bf16+bias", "int3.g16.f32:33x192:i8-f16",   "int6.g16.f32:7x33x192:e4m3-bf16+bias",
    "q4_k:64x512:f16~i8-f32",          "nf4.g64:33x192:bf16~e5m2-f32",
};

START_TEST(every_variant_is_right) { verified(8, problems[_i], "--space reduced"); }
END_TEST

static bool listed(const char *name, size_t n) {
  for (int i = 0; i < N_FORMATS; i++)
    if (!strncmp(formats[i].format, name, n) && (!formats[i].format[n] || formats[i].format[n] == '.')) return true;
  return false;
}

START_TEST(every_registered_format_is_listed) {
  ck_assert_int_eq(cli("quernel formats --json | grep -o '\"name\":\"[a-z0-9_]*' | cut -d'\"' -f4"), 0);
  int count = 0;
  for (const char *p = cli_out; *p; p += strcspn(p, "\n") + 1, count++)
    ck_assert_msg(listed(p, strcspn(p, "\n")), "test_kernels does not list %.*s", (int)strcspn(p, "\n"), p);
  ck_assert_int_ge(count, 20);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  sort_pairs();
  if (part() && n_pairs < N_FORMATS / 2) return fprintf(stderr, "kernels: a wide instruction set is missing\n"), 1;
  for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
    if (!here(i)) fprintf(stderr, "kernels: this CPU has no %s: its kernels are not run\n", sets[i].isa);
  Suite *s = suite_create("kernels");
  TCase *t = tcase_create("host");
  tcase_add_checked_fixture(t, cli_enter, cli_leave);
  tcase_add_test(t, every_registered_format_is_listed);
  tcase_add_test(t, foreign_activations_are_refused);
  tcase_add_test(t, cuda_does_not_round_x);
  tcase_add_loop_test(t, wide_tables_are_right, 0, 2);
  tcase_add_loop_test(t, every_format_with_every_activation, 0, n_batches);
  tcase_add_loop_test(t, what_is_refused_says_why, 0, part() ? 0 : n_refused);
  tcase_add_loop_test(t, every_variant_is_right, 0, part() ? 0 : (int)(sizeof problems / sizeof *problems));
  tcase_set_timeout(t, 600);
  suite_add_tcase(s, t);
  return run_suite(s, argv[0]);
}
