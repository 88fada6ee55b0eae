/* test_worker.c - a worker on its leash: it answers, and whatever a kernel does to it, the supervisor lives and goes
 * on. */
#include "suite.h"
#include "supervise.h"
#include "tuner_fixture.h"
#include "watch.h"
#include <signal.h>
#include <sys/wait.h>

static qn_supervisor supervisor;

static void init(void) {
  folder_init();
  ck_assert_msg(qn__supervisor_init(&supervisor, WORKER, "host:2") == QN_OK, "%s", qn__errmsg());
}

static void fini(void) {
  qn__supervisor_fini(&supervisor);
  folder_fini();
}

static cJSON *request(const char *op, const qn_case *c, int64_t m, int reps) {
  cJSON *j = cJSON_CreateObject();
  cJSON_AddStringToObject(j, "op", op);
  cJSON_AddNumberToObject(j, "slot", 0);
  cJSON_AddNumberToObject(j, "m", (double)m);
  cJSON_AddNumberToObject(j, "reps", reps);
  if (c) cJSON_AddItemToObject(j, "case", qn__case_to_json(c));
  return j;
}

static qn_status ask(cJSON *r) { return qn__supervisor_ask(&supervisor, r, 60, NULL); }

/* The good kernel is verified by whichever worker there is now. */
static void check_works(void) {
  qn_case *c = test_case(NULL, 64, 64);
  ck_assert_msg(ask(request("verify", c, 1, 0)) == QN_OK, "%s", qn__errmsg());
  ck_assert_int_eq(supervisor.fault, QN_FAULT_NONE);
  free(c);
}

START_TEST(describes_its_device) {
  ck_assert_str_eq(supervisor.info.target, "host");
  ck_assert_int_eq(supervisor.info.threads, 2);
  ck_assert(supervisor.info.timed);
  check_works();
  ck_assert_int_eq(supervisor.restarts, 0);
}
END_TEST

START_TEST(opens_times_and_checks) {
  qn_case *c = test_case(NULL, 70, 100);
  cJSON *answer;
  ck_assert_msg(qn__supervisor_ask(&supervisor, request("open", c, 3, 0), 60, &answer) == QN_OK, "%s", qn__errmsg());
  cJSON_Delete(answer);
  ck_assert_int_eq(qn__supervisor_ask(&supervisor, request("time", NULL, 3, 5), 60, &answer), QN_OK);
  const cJSON *seconds = cJSON_GetObjectItem(answer, "seconds"), *item;
  ck_assert_int_eq(cJSON_GetArraySize(seconds), 5);
  cJSON_ArrayForEach(item, seconds) ck_assert(item->valuedouble > 0);
  cJSON_Delete(answer);
  ck_assert_int_eq(ask(request("check", NULL, 3, 0)), QN_OK);
  free(c);
}
END_TEST

static cJSON *dense_request(int64_t m) {
  cJSON *j = request("blas", NULL, m, 0);
  cJSON_AddNumberToObject(j, "n", 96);
  cJSON_AddNumberToObject(j, "k", 64);
  return j;
}

/* One row is a product with a vector, more are one with a matrix. */
START_TEST(dense_product_is_timed) {
  static const int64_t ms[] = {1, 5};
  cJSON *answer;
  ck_assert_msg(qn__supervisor_ask(&supervisor, dense_request(ms[_i]), 60, &answer) == QN_OK,
                "%s; tests/setup installs it", qn__errmsg());
  const cJSON *seconds = cJSON_GetObjectItem(answer, "seconds"), *item;
  ck_assert_int_gt(cJSON_GetArraySize(seconds), 1);
  cJSON_ArrayForEach(item, seconds) ck_assert(item->valuedouble > 0);
  ck_assert_str_eq(cJSON_GetStringValue(cJSON_GetObjectItem(answer, "by")), "OpenBLAS");
  cJSON_Delete(answer);
}
END_TEST

/* The loader meets a file of that name which is no library. */
START_TEST(missing_dense_library_is_named) {
  char path[96];
  qn_supervisor other;
  snprintf(path, sizeof path, "%s/libopenblas.so.0", folder);
  FILE *f = fopen(path, "w");
  ck_assert(f && fputs("no library", f) >= 0 && !fclose(f));
  setenv("LD_LIBRARY_PATH", folder, 1);
  ck_assert_msg(qn__supervisor_init(&other, WORKER, "host:2") == QN_OK, "%s", qn__errmsg());
  ck_assert_int_eq(qn__supervisor_ask(&other, dense_request(1), 60, NULL), QN_E_DEVICE);
  ck_assert_msg(strstr(qn__errmsg(), "OpenBLAS (libopenblas.so.0) is not installed") != NULL, "%s", qn__errmsg());
  qn__supervisor_fini(&other);
}
END_TEST

START_TEST(interpreter_is_not_timed) {
  qn_supervisor emulated;
  ck_assert_msg(qn__supervisor_init(&emulated, WORKER, "emu:sm_80") == QN_OK, "%s", qn__errmsg());
  ck_assert_int_eq(qn__supervisor_ask(&emulated, dense_request(1), 60, NULL), QN_E_DEVICE);
  ck_assert_msg(strstr(qn__errmsg(), "must not be timed") != NULL, "%s", qn__errmsg());
  qn__supervisor_fini(&emulated);
}
END_TEST

START_TEST(crash_costs_only_the_worker) {
  qn_case *c = test_case("CRASH", 64, 64);
  pid_t before = supervisor.pid;
  ck_assert_int_eq(ask(request("verify", c, 1, 0)), QN_E_WRONG);
  ck_assert_int_eq(supervisor.fault, QN_FAULT_DEATH);
  ck_assert_msg(strstr(qn__errmsg(), "crashed") != NULL, "%s", qn__errmsg());
  check_works();
  ck_assert_int_ne(supervisor.pid, before);
  ck_assert_int_eq(supervisor.restarts, 1);
  free(c);
}
END_TEST

START_TEST(hang_is_ended) {
  qn_case *c = test_case("SPIN", 64, 64);
  pid_t before = supervisor.pid;
  ck_assert_int_eq(qn__supervisor_ask(&supervisor, request("verify", c, 1, 0), 1, NULL), QN_E_WRONG);
  ck_assert_int_eq(supervisor.fault, QN_FAULT_DEATH);
  ck_assert_msg(strstr(qn__errmsg(), "hangs: M = 3 of 72 x 160 (calls: 1") != NULL, "%s", qn__errmsg());
  ck_assert_int_eq(kill(before, 0), -1); /* collected, not left to spin */
  check_works();
  free(c);
}
END_TEST

/* What a worker says before it runs a kernel: at least 5 s, else 100 times what bytes and products take. */
START_TEST(patience_follows_from_the_work) {
  static const struct {
    int64_t m, n, k, bytes;
    int calls;
    const char *says;
  } works[] = {{1, 4096, 4096, 8 << 20, 1, "\"limit\":5}"}, {1000, 10000, 10000, 0, 2, "\"limit\":2e+03}"}};
  char *text = NULL;
  size_t size;
  qn_device d = {.info.timed = 1};
  for (size_t i = 0; i < QN_COUNT(works); i++) {
    FILE *out = open_memstream(&text, &size);
    qn__watch_open(out);
    qn__watch(&d, works[i].m, works[i].n, works[i].k, works[i].bytes, works[i].calls);
    qn__watch_open(NULL);
    fclose(out);
    ck_assert_msg(strstr(text, works[i].says) != NULL, "%s", text);
    free(text);
  }
}
END_TEST

/* A kernel that goes wrong at the full shape is told apart from one that is right there. */
static const char *const late[] = {"OVERRUN_Y", "UNDERRUN_W", "UNWRITTEN", "TAIL", "INEXACT", "SPOT", "REMEMBERS"};

START_TEST(full_shape_is_checked_too) {
  qn_case *c = test_case(late[_i], 700, 101);
  ck_assert_msg(ask(request("open", c, 16, 0)) == QN_E_WRONG, "%s is open", late[_i]);
  free(c);
  check_works();
}
END_TEST

/* Right when it is opened, wrong after the hundredth call: the check after timing sees it. */
START_TEST(turning_wrong_while_timed_is_seen) {
  qn_case *c = test_case("LATE", 64, 64);
  ck_assert_msg(ask(request("open", c, 1, 0)) == QN_OK, "%s", qn__errmsg());
  ck_assert_int_eq(ask(request("time", NULL, 1, 60)), QN_OK);
  ck_assert_int_eq(ask(request("check", NULL, 1, 0)), QN_E_WRONG);
  free(c);
}
END_TEST

/* What saves time only where nobody compares Y is seen by comparing what was timed. */
START_TEST(being_right_only_when_checked_is_seen) {
  qn_case *c = test_case("LAZY", 700, 64);
  ck_assert_msg(ask(request("open", c, 1, 0)) == QN_OK, "%s", qn__errmsg());
  ck_assert_int_eq(ask(request("time", NULL, 1, 3)), QN_OK);
  ck_assert_int_eq(ask(request("check", NULL, 1, 0)), QN_E_WRONG);
  ck_assert_msg(strstr(qn__errmsg(), "wrote another Y") != NULL, "%s", qn__errmsg());
  free(c);
}
END_TEST

/* A row's bits at few tokens and at many, at the full shape: what small cases do not reach. */
START_TEST(rows_that_depend_on_m_are_seen) {
  qn_case *right = test_case(NULL, 70, 101), *wrong = test_case("DEPENDS_ON_BIG_M", 70, 101);
  wrong->m_tile = 1; /* as it says: more than a few are not tried */
  ck_assert_msg(ask(request("rows", right, 64, 0)) == QN_OK, "%s", qn__errmsg());
  ck_assert_int_eq(ask(request("verify", wrong, 1, 0)), QN_OK);
  ck_assert_int_eq(ask(request("rows", wrong, 64, 0)), QN_E_WRONG);
  ck_assert_msg(strstr(qn__errmsg(), "at M = 64 and at M = 32 differ in bits") != NULL, "%s", qn__errmsg());
  free(right);
  free(wrong);
}
END_TEST

/* More layouts than there are slots, one after the other: each kernel of a problem may have its own. */
START_TEST(many_layouts_take_turns) {
  qn_case *c = test_case(NULL, 70, 101);
  char name[16];
  for (int i = 0; i < 2 * QN_SLOTS; i++) {
    snprintf(name, sizeof name, "t4.%d", i);
    c->layout = test_layout(name);
    cJSON *r = request("open", c, 3, 0);
    cJSON_SetNumberValue(cJSON_GetObjectItem(r, "slot"), (i % 3));
    ck_assert_msg(ask(r) == QN_OK, "layout %d: %s", i, qn__errmsg());
  }
  free(c);
}
END_TEST

/* ---- Whose failure is it? ---------------------------------------------------------------------------------------- */

/* A worker that fails at its first answer, and what is said of it. */
static const struct {
  const char *answer;
  qn_status status;
  qn_fault fault;
  const char *text;
} failures[] = {
    {"kill -KILL $$", QN_E_IO, QN_FAULT_OUTSIDE, "a signal ended the worker: Killed"},
    {"kill -TERM $$", QN_E_IO, QN_FAULT_OUTSIDE, "a signal ended the worker: Terminated"},
    {"status=$NOMEM", QN_E_NOMEM, QN_FAULT_OUTSIDE, "because"},
    {"kill -SEGV $$", QN_E_WRONG, QN_FAULT_DEATH, "crashed: Segmentation fault"},
    {"kill -ALRM $$", QN_E_WRONG, QN_FAULT_DEATH, "crashed: Alarm clock"},
    {"kill -PIPE $$", QN_E_WRONG, QN_FAULT_DEATH, "crashed: Broken pipe"},
    {"exit 3", QN_E_WRONG, QN_FAULT_DEATH, "ended with status 3"},
    {"exec >&- <&-; sleep 9", QN_E_WRONG, QN_FAULT_DEATH, "closed its line"},
    {"sleep 9", QN_E_WRONG, QN_FAULT_DEATH, "hangs: no answer, not done after 4 s"},
    {"status=$CUDA", QN_E_CUDA, QN_FAULT_DEATH, "because"},
    {"echo junk", QN_E_WRONG, QN_FAULT_DEATH, "does not belong to the question"},
    {"echo '{}'", QN_E_WRONG, QN_FAULT_DEATH, "does not belong to the question"},
    {"id=0", QN_E_WRONG, QN_FAULT_DEATH, "does not belong to the question"},
    {"head -c 2000000 /dev/zero", QN_E_WRONG, QN_FAULT_DEATH, "does not belong to the question"},
    {"status=$WRONG", QN_E_WRONG, QN_FAULT_WRONG, "because"},
};

/* Whatever it was, the next question is asked of another worker. */
START_TEST(failures_are_told_apart) {
  char answer[64];
  qn_supervisor s;
  snprintf(answer, sizeof answer, "if once; then %s; fi", failures[_i].answer);
  ck_assert_int_eq(qn__supervisor_init(&s, script_worker("", answer), "host"), QN_OK);
  qn_status status = qn__supervisor_ask(&s, request("time", NULL, 1, 1), 4, NULL);
  ck_assert_msg(status == failures[_i].status && s.fault == failures[_i].fault &&
                    strstr(qn__errmsg(), failures[_i].text),
                "%s: fault %d, %s: %s", failures[_i].answer, s.fault, qn_status_name(status), qn__errmsg());
  ck_assert_int_eq(qn__supervisor_ask(&s, request("time", NULL, 1, 1), 60, NULL), QN_OK);
  ck_assert_int_eq(s.fault, QN_FAULT_NONE);
  ck_assert_int_eq(s.restarts, 1);
  qn__supervisor_fini(&s);
}
END_TEST

/* A line too many does not become the answer to the next question, whatever number it guesses for that. */
static const char *const guesses[] = {"$id", "$id $((id + 1))"};

START_TEST(forged_answer_is_noticed) {
  qn_supervisor s;
  char answer[128];
  snprintf(answer, sizeof answer, "for n in %s; do [ $op = open ] && echo '{\"status\":0,\"id\":'$n'}'; done",
           guesses[_i]);
  const char *forger = script_worker("", answer);
  ck_assert_int_eq(qn__supervisor_init(&s, forger, "host"), QN_OK);
  ck_assert_int_eq(s.info.cache[0], 0); /* it does not say */
  ck_assert_int_eq(qn__supervisor_ask(&s, request("open", NULL, 1, 1), 60, NULL), QN_OK);
  ck_assert_int_eq(qn__supervisor_ask(&s, request("time", NULL, 1, 1), 60, NULL), QN_E_WRONG);
  ck_assert_int_eq(s.fault, QN_FAULT_DEATH);
  qn__supervisor_fini(&s);
}
END_TEST

/* Killed while it starts: it is started again, and if that does not help the run has failed, not a kernel. */
START_TEST(worker_that_is_killed_at_its_start) {
  qn_supervisor s;
  ck_assert_int_eq(qn__supervisor_init(&s, script_worker("once && kill -KILL $$", ""), "host"), QN_OK);
  qn__supervisor_fini(&s);
  ck_assert_int_eq(qn__supervisor_init(&s, script_worker("once || kill -KILL $$", ""), "host"), QN_E_IO);
  ck_assert_msg(strstr(qn__errmsg(), "does not start: a signal ended the worker: Killed") != NULL, "%s", qn__errmsg());
  rmdir(strcat(strcpy((char[64]){0}, folder), "/once"));
  ck_assert_int_eq(qn__supervisor_init(&s, script_worker("once || kill -KILL $$", "kill -SEGV $$"), "host"), QN_OK);
  ck_assert_int_eq(qn__supervisor_ask(&s, request("time", NULL, 1, 1), 60, NULL), QN_E_WRONG);
  ck_assert_int_eq(qn__supervisor_ask(&s, request("time", NULL, 1, 1), 60, NULL), QN_E_IO);
  ck_assert_int_eq(s.fault, QN_FAULT_RUN);
  qn__supervisor_fini(&s);
}
END_TEST

/* ---- Bad requests ------------------------------------------------------------------------------------------------ */

START_TEST(nonsense_is_answered) {
  qn_case *c = test_case(NULL, 64, 64);
  ck_assert_int_eq(ask(request("dance", NULL, 1, 0)), QN_E_ARG);
  ck_assert_int_eq(ask(request("time", NULL, 1, 1)), QN_E_ARG);
  ck_assert_int_ne(ask(request("verify", NULL, 1, 0)), QN_OK);
  ck_assert_int_ne(ask(request("open", c, 0, 0)), QN_OK);
  c->layout.tile_k = 0;
  ck_assert_int_ne(ask(request("verify", c, 1, 0)), QN_OK);
  check_works();
  free(c);
}
END_TEST

START_TEST(missing_program_is_named) {
  qn_supervisor s;
  ck_assert_int_eq(qn__supervisor_init(&s, "/nowhere/quernel-worker", "host"), QN_E_IO);
  ck_assert_ptr_nonnull(strstr(qn__errmsg(), "/nowhere/quernel-worker"));
}
END_TEST

START_TEST(program_that_is_no_worker) {
  qn_supervisor s;
  ck_assert_int_ne(qn__supervisor_init(&s, "/bin/true", "host"), QN_OK);
  ck_assert_int_ne(qn__supervisor_init(&s, WORKER, "abacus"), QN_OK);
  ck_assert_msg(strstr(qn__errmsg(), "abacus") != NULL, "%s", qn__errmsg());
}
END_TEST

/* The supervisor is killed: its worker must not outlive it, even inside a kernel that never ends. */
START_TEST(worker_dies_with_its_supervisor) {
  int ends[2];
  pid_t worker = 0;
  qn_case *c = test_case("SPIN", 64, 64);
  ck_assert_int_eq(pipe(ends), 0);
  pid_t parent = fork();
  if (!parent) {
    qn_supervisor s;
    if (qn__supervisor_init(&s, WORKER, "host:2")) _exit(1);
    if (write(ends[1], &s.pid, sizeof s.pid) != sizeof s.pid) _exit(1);
    qn__supervisor_ask(&s, request("verify", c, 1, 0), 60, NULL);
    _exit(0);
  }
  ck_assert_int_eq(read(ends[0], &worker, sizeof worker), sizeof worker);
  usleep(200000);
  ck_assert_int_eq(kill(worker, 0), 0);
  kill(parent, SIGKILL);
  waitpid(parent, NULL, 0);
  for (int i = 0; i < 100 && !kill(worker, 0); i++) usleep(20000);
  char path[64], state = 'X';
  snprintf(path, sizeof path, "/proc/%d/stat", (int)worker); /* gone, or a zombie that nobody collects */
  FILE *f = fopen(path, "r");
  if (f && fscanf(f, "%*d %*s %c", &state) != 1) state = 'X';
  if (f) fclose(f);
  ck_assert_msg(state == 'X' || state == 'Z', "the worker is in state %c", state);
  free(c);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(describes_its_device, 1),
      CASE(opens_times_and_checks, 1),
      CASE(dense_product_is_timed, 2),
      CASE(missing_dense_library_is_named, 1),
      CASE(interpreter_is_not_timed, 1),
      CASE(crash_costs_only_the_worker, 1),
      CASE(hang_is_ended, 1),
      CASE(patience_follows_from_the_work, 1),
      CASE(full_shape_is_checked_too, QN_COUNT(late)),
      CASE(turning_wrong_while_timed_is_seen, 1),
      CASE(being_right_only_when_checked_is_seen, 1),
      CASE(rows_that_depend_on_m_are_seen, 1),
      CASE(many_layouts_take_turns, 1),
      CASE(failures_are_told_apart, QN_COUNT(failures)),
      CASE(forged_answer_is_noticed, QN_COUNT(guesses)),
      CASE(worker_that_is_killed_at_its_start, 1),
      CASE(nonsense_is_answered, 1),
      CASE(missing_program_is_named, 1),
      CASE(program_that_is_no_worker, 1),
      CASE(worker_dies_with_its_supervisor, 1),
  };
  return RUN_CASES(argv[0], cases, init, fini, 60);
}
