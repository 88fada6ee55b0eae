/* test_compile.c - the host's compiler behind gen/compile.h: what comes out loads and runs, and every way to fail says
 * why. The other back end is tested in test_cubin.c. */
#include "clock.h"
#include "compile.h"
#include "file.h"
#include "host_load.h"
#include "leash.h"
#include "process.h"
#include "runtime_fixture.h"
#include "tree.h"
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>

static const char good[] = "#line 40 \"templates/kernels/host/t.lua\"\n"
                           "static const float weight[4] = {1, 2, 3, 4};\n"
                           "__attribute__((visibility(\"default\"))) void entry(const float *x, float *y, long n) {\n"
                           "  for (long i = 0; i < n; i++) y[i] = 0;\n" /* wants to become memset */
                           "  for (long i = 0; i < n; i++) y[i] = x[i] * weight[i & 3];\n"
                           "}\n";

static qn_source host(const char *text) { return (qn_source){.name = "variant", .target = "host", .text = text}; }

/* A folder of the test's own, as TMPDIR; entries() counts what is in it. */
static char folder[64];
static void own_folder(void) {
  snprintf(folder, sizeof folder, "/tmp/quernel-test-XXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(folder));
  setenv("TMPDIR", folder, 1);
}
static void drop_folder(void) { qn__tree_remove(folder); }
static int entries(void) {
  int n = -2; /* "." and ".." */
  DIR *d = opendir(folder);
  while (readdir(d)) n++;
  closedir(d);
  return n;
}

/* A program that stands in for the compiler. */
static void fake_compiler(const char *script) {
  char path[128];
  snprintf(path, sizeof path, "%s/cc", folder);
  FILE *f = fopen(path, "w");
  fprintf(f, "#!/bin/sh\ncase \" $* \" in *\" -E \"*) echo quernel gcc 1 2 3; exit;; esac\n%s\n", script);
  fclose(f);
  chmod(path, 0755);
  setenv("QUERNEL_CC", path, 1);
}

/* ---- Success ----------------------------------------------------------------------------------------------------- */

/* gcc and clang both; a compiler that is not there is not tested twice. */
static const char *const compilers[] = {"cc", "gcc", "clang"};

START_TEST(test_runs) {
  if (_i == 2 && system("clang --version >/dev/null 2>&1")) return;
  setenv("QUERNEL_CC", compilers[_i], 1);
  qn_source source = host(good);
  qn_artifact a, b;
  ck_ok(qn__compile(&source, &a));
  ck_ok(qn__compile(&source, &b));
  ck_assert_str_eq(a.hash, b.hash);
  ck_assert_uint_eq(a.size, b.size);
  ck_assert(!memcmp(a.image, b.image, a.size)); /* equal input, equal bytes */
  ck_assert(a.seconds > 0);
  ck_assert_str_eq(a.log, "");
  qn_host_image *h;
  void *fn;
  ck_ok(qn__host_image_open(NULL, a.image, a.size, &h));
  ck_ok(qn__host_image_entry(h, "entry", &fn));
  float x[5] = {1, 1, 1, 1, 1}, y[5];
  ((void (*)(const float *, float *, long))(uintptr_t)fn)(x, y, 5);
  for (int i = 0; i < 5; i++) ck_assert(y[i] == (float)(1 + i % 4));
  qn__host_image_close(h);
  qn__artifact_free(&a);
  qn__artifact_free(&b);
  qn__artifact_free(NULL);
  ck_assert_int_eq(entries(), 0);
}
END_TEST

START_TEST(test_flags_reach_the_compiler) {
  qn_source source = host("#if VALUE != 3 || !defined OTHER\n#error \"flags are lost\"\n#endif\nint x;\n");
  qn_artifact a;
  ck_fails(QN_E_COMPILE, "flags are lost", qn__compile(&source, &a));
  qn__artifact_free(&a);
  source.flags = " -DVALUE=3  -DOTHER ";
  ck_ok(qn__compile(&source, &a));
  qn__artifact_free(&a);
}
END_TEST

/* Flags that run a program, load code, or name a file never reach a compiler. */
static const struct {
  const char *target, *flag;
} forbidden[] = {
    {"host", "-wrapper /bin/touch,x"},
    {"host", "-MD -MF x"},
    {"host", "-fplugin=x.so"},
    {"host", "-fpass-plugin=x.so"},
    {"host", "-fdump-tree-all=x"},
    {"host", "-B/tmp"},
    {"host", "-specs=x"},
    {"host", "-Wl,-Map=x"},
    {"host", "-Wa,-aln=x"},
    {"host", "@file"},
    {"host", "-mllvm -load"},
    {"host", "-mllvm=-load=x.so"},
    {"host", "-o x"},
    {"host", "x.c"},
    {"host", "-include x"},
    {"host", "-I/etc"},
    {"host", "-O2/../x"},
    {"host", "-save-temps"},
    {"host", "-fuse-ld=x"},
    {"host", "-imacros x"},
    {"cuda", "--pre-include=/etc/passwd"},
    {"cuda", "-I/etc"},
    {"cuda", "--create-pch=x"},
    {"cuda", "--fdevice-time-trace=x"},
};

START_TEST(test_forbidden_flags) {
  char flags[64], first[64];
  qn_source source = host(good);
  qn_artifact a;
  snprintf(flags, sizeof flags, " -DX=1 %s", forbidden[_i].flag);
  source.target = forbidden[_i].target, source.flags = flags, source.arch = "sm_80";
  snprintf(first, sizeof first, "the flag %.*s;", (int)strcspn(forbidden[_i].flag, " "), forbidden[_i].flag);
  ck_fails(QN_E_ARG, first, qn__compile(&source, &a));
}
END_TEST

/* cc and gcc are one compiler and share a store. */
START_TEST(test_version) {
  char version[64], other[64], line[64];
  setenv("QUERNEL_CC", "gcc", 1);
  ck_ok(qn__compiler_version("host", version, sizeof version));
  int major;
  ck_assert_msg(sscanf(version, "gcc %d.%*d.%*d", &major) == 1 && major >= 4, "version '%s'", version);
  ck_assert_int_eq(symlink("/usr/bin/gcc", strcat(strcpy(line, folder), "/mycc")), 0);
  setenv("QUERNEL_CC", line, 1);
  ck_ok(qn__compiler_version("host", other, sizeof other));
  ck_assert_str_eq(version, other);
  ck_fails(QN_E_ARG, "vax", qn__compiler_version("vax", version, sizeof version));
}
END_TEST

/* ---- Failure ----------------------------------------------------------------------------------------------------- */

static const struct {
  const char *text, *part;
} broken[] = {
    {"#line 12 \"templates/kernels/host/t.lua\"\nint f(void) {\n  return x +;\n}\n",
     "templates/kernels/host/t.lua:13:"},
    {"#line 5 \"a.lua\"\nint f(void) { return missing(1); }\n", "a.lua:5:"},
    {"void *memcpy(void *, const void *, unsigned long);\n"
     "__attribute__((visibility(\"default\"))) void f(char *a, char *b, long n) { memcpy(a, b, n); }\n",
     "needs memcpy"},
    {"extern _Thread_local int t;\n__attribute__((visibility(\"default\"))) int f(void) { return t; }\n", "needs "},
    {"#include \"no_such_file.h\"\n", "no_such_file.h"},
};

START_TEST(test_broken_source) {
  qn_source source = host(broken[_i].text);
  qn_artifact a;
  setenv("LC_ALL", "de_DE.UTF-8", 1); /* the answer must be understood whatever the user speaks */
  ck_fails(QN_E_COMPILE, broken[_i].part, qn__compile(&source, &a));
  ck_assert(!strncmp(qn__errmsg(), "variant: ", 9));
  qn__artifact_free(&a);
  ck_assert_int_eq(entries(), 0);
}
END_TEST

START_TEST(test_no_compiler) {
  qn_source source = host(good);
  qn_artifact a;
  setenv("QUERNEL_CC", "/no/such/compiler", 1);
  ck_fails(QN_E_DEVICE, "/no/such/compiler", qn__compile(&source, &a));
  qn__artifact_free(&a);
  unsetenv("QUERNEL_CC");
  setenv("PATH", "/no/such/folder", 1);
  ck_assert_ptr_null(qn__compiler_path());
  ck_fails(QN_E_DEVICE, "cc, gcc, clang", qn__compile(&source, &a));
  qn__artifact_free(&a);
  fake_compiler("");
  setenv("QUERNEL_CC", "/bin/cat", 1);
  ck_fails(QN_E_DEVICE, "neither gcc nor clang", qn__compile(&source, &a));
  qn__artifact_free(&a);
}
END_TEST

/* What is no fault of the source must not be told as one: it would be remembered. */
static const struct {
  const char *script;
  qn_status status;
  const char *part;
} fakes[] = {
    {"echo 'x.c:1: error: it is broken'; exit 1", QN_E_COMPILE, "x.c:1: error: it is broken"},
    {"kill -9 $$", QN_E_IO, "signal 9"},
    {"echo 'as: No space left on device'; exit 1", QN_E_IO, "No space left"},
    {"echo 'cc: fatal error: Killed signal terminated program cc1'; exit 1", QN_E_IO, "Killed signal"},
    {"exit 0", QN_E_IO, "kernel.so"},                                  /* no object */
    {"touch $TMPDIR/kernel.so $TMPDIR/other.s", QN_E_IO, "kernel.so"}, /* an empty one, and a left-over */
    {"echo nonsense >$TMPDIR/kernel.so", QN_E_FORMAT, "no ELF64 file"},
    {"mkdir -p $TMPDIR/a/b; echo nonsense | tee $TMPDIR/a/b/c >$TMPDIR/kernel.so", QN_E_FORMAT, "no ELF64 file"},
    {"sleep 1000 & echo nonsense >$TMPDIR/kernel.so", QN_E_FORMAT, "no ELF64 file"}, /* a child holds its output */
    {"exec sleep 1000", QN_E_LIMIT, "was killed: there was no more time"},
    {"exec sleep 1000 <&- >&- 2>&-", QN_E_LIMIT,
     "was killed: there was no more time"}, /* it closes its output and lives on */
};

START_TEST(test_failing_compiler) {
  fake_compiler(fakes[_i].script);
  qn_source source = host(good);
  atomic_bool stop = fakes[_i].status == QN_E_LIMIT;
  source.stop = &stop;
  qn_artifact a;
  ck_fails(fakes[_i].status, fakes[_i].part, qn__compile(&source, &a));
  qn__artifact_free(&a);
  ck_assert_int_eq(entries(), 1); /* the compiler itself */
}
END_TEST

START_TEST(test_full_disk) {
  setenv("TMPDIR", "/no/such/folder", 1);
  qn_source source = host(good);
  qn_artifact a;
  ck_fails(QN_E_IO, "/no/such/folder", qn__compile(&source, &a));
  qn__artifact_free(&a);
}
END_TEST

START_TEST(test_bad_arguments) {
  qn_source source = {.name = "variant", .target = "vax", .text = good};
  qn_artifact a;
  ck_fails(QN_E_ARG, "vax", qn__compile(&source, &a));
  source.target = "host";
  char many[1024] = "";
  for (int i = 0; i < 120; i++) strcat(many, "-DX ");
  source.flags = many;
  ck_fails(QN_E_ARG, "flags", qn__compile(&source, &a));
  qn__artifact_free(&a);
}
END_TEST

/* ---- Processes --------------------------------------------------------------------------------------------------- */

/* A program that hangs is killed with all that it started, and long input meets long output without a deadlock. */
START_TEST(test_time_limit) {
  char *hang[] = {(char[]){"sh"}, (char[]){"-c"}, (char[]){"echo begun; sleep 1000 & sleep 1000"}, NULL};
  qn_process_result r;
  ck_ok(qn__process_run(hang, NULL, NULL, 0.2, NULL, &r));
  ck_assert_int_eq(r.exit_status, 124);
  ck_assert_str_eq(r.output, "begun\n");
  free(r.output);

  char *input = calloc(1, (1 << 20) + 1), *cat[] = {(char[]){"cat"}, NULL};
  memset(input, 'x', 1 << 20);
  ck_ok(qn__process_run(cat, NULL, input, 60, NULL, &r));
  ck_assert_int_eq(r.exit_status, 0);
  ck_assert_uint_eq(strlen(r.output), (64 << 10) - 1); /* the rest is read and dropped */
  free(r.output);

  char *deaf[] = {(char[]){"true"}, NULL}, *none[] = {(char[]){"/no/such/program"}, NULL};
  ck_ok(qn__process_run(deaf, NULL, input, 60, NULL, &r)); /* it never reads */
  free(r.output);
  ck_fails(QN_E_IO, "/no/such/program", qn__process_run(none, NULL, NULL, 1, NULL, &r));
  free(r.output);
  free(input);
}
END_TEST

/* ---- What goes with the process ---------------------------------------------------------------------------------- */

static void pull(int number) { (void)number, qn__leash_pull(); }

/* A child holds a folder and a program when it ends: both go, by whatever it is ended. */
static void hold(int end) {
  qn_scratch s;
  qn_process_result r;
  char *script, *argv[] = {(char[]){"sh"}, (char[]){"-c"}, NULL, NULL};
  qn__scratch_open(&s);
  if (asprintf(&script, "cd %s; sleep 1000 & echo $! >n; mv n ../pid; wait", s.path) < 0) _exit(1);
  argv[2] = script;
  if (end == SIGTERM) signal(SIGTERM, pull);
  qn__process_run(argv, NULL, NULL, 100, NULL, &r);
}

static pid_t read_pid(void) {
  char path[128], text[16] = "";
  snprintf(path, sizeof path, "%s/pid", folder);
  FILE *f = fopen(path, "r");
  if (f && !fgets(text, sizeof text, f)) *text = 0;
  if (f) fclose(f);
  return atoi(text);
}

/* Whether it has ended, be it that nobody has asked for its status yet. */
static bool gone(pid_t pid) {
  char path[64], text[8];
  snprintf(path, sizeof path, "/proc/%d/cmdline", (int)pid);
  FILE *f = fopen(path, "r");
  bool empty = !f || !fread(text, 1, 1, f);
  if (f) fclose(f);
  return empty;
}

START_TEST(test_leash) {
  const int end = (const int[]){SIGKILL, SIGTERM}[_i];
  pid_t child = fork(), sleeper;
  if (!child) hold(end), _exit(0);
  while (!(sleeper = read_pid())) usleep(10000);
  ck_assert_int_eq(entries(), 2); /* the number and the folder */
  kill(child, end);
  if (end == SIGTERM)
    while (entries() > 1) usleep(10000); /* it has caught the signal: it is alive */
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  while (entries() > 1 || !gone(sleeper)) usleep(10000); /* else the time runs out */
}
END_TEST

/* Folders that nobody has locked are removed by the next run, those that are used and those of others are not. */
START_TEST(test_sweep) {
  static const char *const names[] = {"quernel-scratch-left01", "quernel-scratch-used01", "quernel-models", "other"};
  char path[PATH_MAX];
  for (size_t i = 0; i < QN_COUNT(names); i++) {
    snprintf(path, sizeof path, "%s/%s", folder, names[i]);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    if (i == 1) ck_assert_int_eq(flock(open(path, O_RDONLY | O_CLOEXEC), LOCK_EX), 0);
  }
  snprintf(path, sizeof path, "%s/quernel-scratch-left01/file", folder);
  ck_assert_int_ge(creat(path, 0600), 0);
  qn_scratch s;
  ck_ok(qn__scratch_open(&s));
  ck_assert_int_eq(entries(), 4);
  qn__scratch_close(&s);
  qn__scratch_close(&s);
  ck_assert_int_eq(entries(), 3);
  for (size_t i = 0; i < QN_COUNT(names); i++) {
    snprintf(path, sizeof path, "%s/%s", folder, names[i]);
    ck_assert_msg(rmdir(path) == (i ? 0 : -1), "%s", names[i]);
  }
}
END_TEST

/* ---- Many -------------------------------------------------------------------------------------------------------- */

enum { jobs = 24 };
typedef struct tally {
  int seen[jobs], calls, inside, limit;
  qn_artifact kept;
} tally;

static int count(void *ud, size_t i, qn_status status, const char *detail, qn_artifact *a) {
  tally *t = ud;
  ck_assert_int_eq(t->inside++, 0); /* one call at a time */
  t->seen[i]++;
  t->calls++;
  if (i % 5 == 3) {
    ck_assert_int_eq(status, QN_E_COMPILE);
    char where[32];
    snprintf(where, sizeof where, "j.lua:%zu:", i + 1);
    ck_assert_msg(strstr(detail, where) != NULL, "job %zu: %s", i, detail);
  } else {
    ck_assert_msg(status == QN_OK, "job %zu: %s", i, detail);
    if (i == 7) t->kept = *a, a->image = NULL, a->log = NULL; /* taken over */
  }
  t->inside--;
  return t->limit && t->calls >= t->limit;
}

START_TEST(test_many) {
  char text[jobs][128];
  qn_source source[jobs];
  for (int i = 0; i < jobs; i++) {
    snprintf(text[i], sizeof text[i],
             "#line %d \"j.lua\"\n__attribute__((visibility(\"default\"))) int f(void) { return %d%s; }\n", i + 1, i,
             i % 5 == 3 ? "+" : "");
    source[i] = host(text[i]);
  }
  tally t = {0};
  ck_ok(qn__compile_all(source, jobs, 2, count, &t));
  for (int i = 0; i < jobs; i++) ck_assert_msg(t.seen[i] == 1, "job %d was seen %d times", i, t.seen[i]);
  ck_assert(t.kept.size && !memcmp(t.kept.image, "\177ELF", 4));
  qn__artifact_free(&t.kept);
  tally few = {.limit = 5};
  ck_ok(qn__compile_all(source, jobs, 2, count, &few));
  ck_assert_msg(few.calls >= 5 && few.calls <= 6, "%d calls after a stop at 5", few.calls);
  qn__artifact_free(&few.kept);
  ck_ok(qn__compile_all(source, 0, 0, count, &t));
  ck_assert_int_eq(entries(), 0);
}
END_TEST

/* The second source with some flags has its header compiled, and all after it read that; another one's does not fit. */
START_TEST(test_headers_do_not_show) {
  static const char text[] = "/* one\n * comment */\n#include <stdint.h>\n"
                             "__attribute__((visibility(\"default\"))) int f(void) { return INT32_MAX; }\n";
  enum { many = 100, times = 4 };
  qn_headers *h = qn__headers_new(many);
  qn_source source = host(text);
  qn_artifact plain[2], a;
  ck_assert_ptr_nonnull(h);
  ck_assert_ptr_null(qn__headers_new(1));
  fake_compiler("echo \"$*\" >>\"${0%/*}/log\"; exec cc \"$@\"");
  for (int i = 0; i < 2; i++) {
    source.flags = i ? "-O1" : "-O2 -fwrapv", source.headers = NULL;
    ck_ok(qn__compile(&source, &plain[i]));
    source.headers = h;
    for (int j = 0; j < times; j++) {
      ck_ok(qn__compile(&source, &a));
      ck_assert(a.size == plain[i].size && !memcmp(a.image, plain[i].image, a.size));
      qn__artifact_free(&a);
    }
    qn__artifact_free(&plain[i]);
  }
  source.text = "#include <stdint.h>\n#line 7 \"h.lua\"\nint32_t f( {}\n";
  ck_assert_int_eq(qn__compile(&source, &a), QN_E_COMPILE);
  ck_assert_msg(strstr(qn_errmsg(), "h.lua:7:") != NULL, "%s", qn_errmsg());
  qn__artifact_free(&a);
  ck_assert_int_eq(entries(), 3); /* the compiler, its log, the headers */
  qn__headers_free(h);
  ck_assert_int_eq(entries(), 2);
  char command[256];
  snprintf(command, sizeof command,
           "test $(grep -c -e ' c-header ' %s/log) = 2 && test $(grep -c -e ' -include ' %s/log) = %d", folder, folder,
           2 * (times - 1) + 1);
  ck_assert_msg(system(command) == 0, "%s", command);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(test_runs, QN_COUNT(compilers)),
      CASE(test_flags_reach_the_compiler, 1),
      CASE(test_forbidden_flags, QN_COUNT(forbidden)),
      CASE(test_version, 1),
      CASE(test_broken_source, QN_COUNT(broken)),
      CASE(test_no_compiler, 1),
      CASE(test_failing_compiler, QN_COUNT(fakes)),
      CASE(test_full_disk, 1),
      CASE(test_bad_arguments, 1),
      CASE(test_time_limit, 1),
      CASE(test_leash, 2),
      CASE(test_sweep, 1),
      CASE(test_many, 1),
      CASE(test_headers_do_not_show, 1),
  };
  return RUN_CASES(argv[0], cases, own_folder, drop_folder, 120);
}
