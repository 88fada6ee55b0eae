/* test_gpu.c - the GPU's side, as far as it goes without one: every form of an instruction on the interpreter, the
 * assembler's view of them, vectors that are wrong, and tests/gpu/run on a pretended GPU. */
#include "cli_fixture.h"

#define CONFORMANCE QN_BUILD "/tests/conformance"
#define VECTORS QN_TESTS "/gpu/vectors"

static void succeeds(int status, const char *what) {
  ck_assert_msg(status == 0, "%s: exit %d\n%s%s\n  again: %s", what, status, cli_out, cli_err, cli_command);
}
static void says(const char *text, const char *part) {
  ck_assert_msg(strstr(text, part) != NULL, "'%s' is not in '%s'", part, text);
}

static const char *const devices[] = {"emu:sm_80", "emu:sm_90a", "emu:sm_100a", "emu:sm_120a"};
START_TEST(instructions_do_what_they_should) {
  succeeds(cli(CONFORMANCE " --device %s --check " VECTORS, devices[_i]), devices[_i]);
  says(cli_out, " 0 wrong");
}
END_TEST

static const char *const targets[] = {"sm_75", "sm_80", "sm_89", "sm_90a", "sm_100a", "sm_120a"};
START_TEST(the_assembler_takes_every_form) { succeeds(cli(CONFORMANCE " --compile %s", targets[_i]), targets[_i]); }
END_TEST

/* Vectors are reproduced, until one bit of an answer is another. */
START_TEST(a_wrong_vector_is_found) {
  succeeds(cli(CONFORMANCE " --device emu:sm_80 --only prmt.b32.rc8 --record ."), "record");
  succeeds(cli(CONFORMANCE " --device emu:sm_80 --only prmt.b32.rc8 --check ."), "check");
  says(cli_out, "1 with what a GPU answered");
  FILE *f = fopen(cli_path("sm_80.vectors"), "r+b");
  ck_assert(f && !fseek(f, -1, SEEK_END));
  int last = fgetc(f);
  ck_assert(!fseek(f, -1, SEEK_END));
  fputc(last ^ 1, f);
  fclose(f);
  ck_assert_int_eq(cli(CONFORMANCE " --device emu:sm_80 --only prmt.b32.rc8 --check ."), 1);
  says(cli_out, "FAILED prmt.b32.rc8");
  says(cli_out, "a GPU of sm_80");
}
END_TEST

/* A form that destroys its context fails; those before and behind it do not. */
START_TEST(a_lost_context_costs_one_form) {
  ck_assert_int_eq(cli(CONFORMANCE " --device emu:sm_80 --only prmt --lose rc8"), 1);
  says(cli_out, "FAILED prmt.b32.rc8");
  says(cli_out, "7 forms, 1 wrong");
}
END_TEST

/* The documentation tells how many forms of each family no GPU has confirmed. */
START_TEST(unconfirmed_forms_are_documented) {
  static char readme[1 << 16];
  FILE *f = fopen(QN_TESTS "/gpu/README.md", "r");
  ck_assert_ptr_nonnull(f);
  readme[fread(readme, 1, sizeof readme - 1, f)] = 0;
  fclose(f);
  succeeds(cli(CONFORMANCE " --unconfirmed " VECTORS " | grep -v '^  '"), "unconfirmed");
  int families = 0;
  for (char *line = strtok(cli_out, "\n"); line; line = strtok(NULL, "\n"), families++) says(readme, line);
  ck_assert_int_ge(families, 10);
}
END_TEST

START_TEST(kernels_of_the_ceilings_are_right) {
  succeeds(cli(QN_BUILD "/tests/ceilings --device emu:sm_90a"), "ceilings");
  says(cli_out, "results are right");
}
END_TEST

#define RUN "QUERNEL_BUILD=" QN_BUILD " OUT=out QUERNEL_GPU_STATE=state " QN_TESTS "/gpu/run"
#define ON_EMU RUN " --device emu:sm_90a"
#define ARCHIVE "out/quernel-emu-sm-90a.tar.gz"

/* All parts, and what each leaves in the one archive; then a second call, on a machine that has only that. */
START_TEST(the_interpreter_goes_through_it_all) {
  static const char *const left[] = {
      "results/machine.csv",  "results/parts.csv", "results/log.txt", "results/table.txt", "results/sm_90.vectors",
      "results/chosen.qpack", "parts/reproduce",   "/evidence/",      "/artifact/"};
  succeeds(cli(ON_EMU " --minutes 5"), "everything");
  says(cli_out, "chosen: 25 of 25 are variants");
  says(cli_out, "180 forms, 0 wrong");
  says(cli_out, "nothing was timed yet");
  succeeds(cli("tar tzf " ARCHIVE), "archive");
  for (size_t i = 0; i < sizeof left / sizeof *left; i++) says(cli_out, left[i]);
  succeeds(cli("tar xzOf " ARCHIVE " ./results/parts.csv | grep -c ',done,'"), "parts");
  ck_assert_str_eq(cli_out, "14\n");
  succeeds(cli("mv state away && " ON_EMU " --part chosen"), "a second call");
  says(cli_out, "goes on from");
  says(cli_out, "0 compiled, 0 verified (known 3)");
  succeeds(cli("rm -r state && mv " ARCHIVE " . && " ON_EMU " --list --resume quernel-emu-sm-90a.tar.gz"), "list");
  for (char *line = strtok(cli_out, "\n"); line; line = strtok(NULL, "\n"))
    ck_assert_msg(strstr(line, " done ") || strstr(line, "goes on from"), "'%s'", line);
}
END_TEST

/* Six seconds are not enough: it ends, says what was cut, and keeps what it has. */
START_TEST(it_ends_in_time) {
  succeeds(cli(ON_EMU " --minutes 0.1"), "six seconds");
  ck_assert_msg(strstr(cli_out, ": cut after") || strstr(cli_out, "no time left"), "%s", cli_out);
  succeeds(cli("tar xzOf " ARCHIVE " ./results/parts.csv"), "parts");
  says(cli_out, "setup,done,");
}
END_TEST

START_TEST(an_invented_gpu_is_used) {
  succeeds(cli(QN_TESTS "/gpu/test_run"), "test_run");
  says(cli_out, "run: ok");
}
END_TEST

START_TEST(it_says_what_is_missing) {
  ck_assert_int_eq(cli(RUN " --device cuda:99"), 1);
  says(cli_err, "no NVIDIA GPU 99 here");
  ck_assert_ptr_eq(strchr(cli_err, '\n'), cli_err + strlen(cli_err) - 1);
  ck_assert_int_eq(cli(ON_EMU " --part nonsense"), 1);
  says(cli_err, "no part 'nonsense'");
  ck_assert_int_eq(cli(ON_EMU " --minutes soon"), 1);
  says(cli_err, "'soon' is no time");
  ck_assert_int_eq(cli(ON_EMU " --resume nowhere"), 1);
  says(cli_err, "nowhere cannot be unpacked");
}
END_TEST

/* Times that were made up: the fastest of each M, the stream's 4 us over its 5, cuBLAS' 15. */
START_TEST(results_make_a_table) {
  static const char ceilings[] = "what,n,k,m,bytes,us,rate,unit\ncopy,0,0,0,1,1.0,3000.0,GB/s\n"
                                 "stream of int4.g128,4096,4096,0,1,4.0,2000.0,GB/s\n"
                                 "cublas,4096,4096,1,1,15.0,2.0,TFLOP/s\n";
#define P "int4.g128:4096x4096:f16-f16,4096,4096,"
  static const char times[] =
      "problem,n,k,m,variant,us,reps,rejected\n" P "16,cuda.mma/int4.g128/f16-f16/bm16,10.000,10,\n" P
      "1,cuda.gemv/int4.g128/f16-f16/w8,5.000,10,\n" P "1,cuda.gemv/int4.g128/f16-f16/w4,6.000,3,\n" P
      "1,cuda.gemv/int4.g128/f16-f16/w2,0.000,0,wrong\n";
  static const char peers[] = "peer,n,k,m,us\nint4pack,4096,4096,1,7.5\n";
  static const char want[] = "copy                       3000.0 GB/s\n"
                             "problem                       M    us  stream  cuBLAS  int4pack  Triton  variant\n"
                             "int4.g128:4096x4096:f16-f16   1   5.0    0.80    3.00      1.50  -       gemv w8\n"
                             "int4.g128:4096x4096:f16-f16  16  10.0    0.40       -         -  -       mma bm16\n"
                             "1 variants at one M were rejected: times.csv says why\n";
  cli_write("ceilings.csv", ceilings, sizeof ceilings - 1);
  cli_write("times.csv", times, sizeof times - 1);
  cli_write("peers.csv", peers, sizeof peers - 1);
  succeeds(cli("quernel run " QN_TESTS "/gpu/table.lua ."), "table");
  ck_assert_str_eq(cli_out, want);
}
END_TEST

START_TEST(peers_are_timed_as_we_are) {
  succeeds(cli("python3 -B " QN_TESTS "/gpu/test_peers.py"), "peers");
  says(cli_out, "peers: ok");
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(instructions_do_what_they_should, sizeof devices / sizeof *devices),
      CASE(the_assembler_takes_every_form, sizeof targets / sizeof *targets),
      CASE(a_wrong_vector_is_found, 1),
      CASE(a_lost_context_costs_one_form, 1),
      CASE(unconfirmed_forms_are_documented, 1),
      CASE(kernels_of_the_ceilings_are_right, 1),
      CASE(the_interpreter_goes_through_it_all, 1),
      CASE(it_ends_in_time, 1),
      CASE(an_invented_gpu_is_used, 1),
      CASE(it_says_what_is_missing, 1),
      CASE(results_make_a_table, 1),
      CASE(peers_are_timed_as_we_are, 1),
  };
  return RUN_CASES(argv[0], cases, cli_enter, cli_leave, 300);
}
