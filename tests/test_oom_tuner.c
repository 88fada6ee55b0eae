/* test_oom_tuner.c - the tuner while memory runs out, in its own process or in the worker's: nobody is blamed for it,
 * and nothing of it is remembered. See oom.h. */
#include "tuner_fixture.h"

#include "json.h"
#include "oom.h"
#include "protocol.h"
#include "supervise.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>

/* ---- The worker -------------------------------------------------------------------------------------------------- */

static size_t *taken; /* allocations of the last worker; shared with it */

static void write_request(FILE *f, const char *op, int id, const qn_case *c) {
  cJSON *j = cJSON_CreateObject();
  qn__json_add_text(j, "op", op);
  qn__json_add_number(j, "id", id);
  qn__json_add_number(j, "slot", 0);
  qn__json_add_number(j, "m", 1);
  if (c) qn__json_add(j, "case", qn__case_to_json(c));
  char *text = cJSON_PrintUnformatted(j);
  fprintf(f, "%s\n", text);
  cJSON_free(text);
  cJSON_Delete(j);
}

/* A worker with the requests of a file, which runs out of memory at its allocation number `at`; what it says. */
static FILE *start_worker(const char *requests, size_t at, bool all, pid_t *pid) {
  int fd[2];
  ck_assert_int_eq(pipe(fd), 0);
  if (!(*pid = fork())) {
    dup2(open(requests, O_RDONLY), 0);
    dup2(fd[1], 1);
    close(fd[0]);
    close(fd[1]);
    arm(at, all);
    int status = qn__worker_main(2, (char *[]){(char[]){"worker"}, (char[]){"host:1"}, NULL});
    *taken = calls;
    _exit(status);
  }
  close(fd[1]);
  return fdopen(fd[0], "r");
}

/* Run one; returns how many answers say that there was no memory. */
static int run_worker(const char *requests, size_t at, bool all) {
  pid_t pid;
  FILE *f = start_worker(requests, at, all, &pid);
  char *line = NULL;
  size_t room = 0;
  int status, refused = 0;
  while (getline(&line, &room, f) > 0) {
    cJSON *j = cJSON_Parse(line);
    int s = qn__json_int(j, "status", -1);
    bool step = qn__json_get(j, "step"), after = refused && s == QN_E_ARG; /* a slot that did not open */
    ck_assert_msg(step || s == QN_OK || s == QN_E_NOMEM || after, "allocation %zu fails%s: %s", at,
                  all ? ", and all after it" : "", line);
    refused += s == QN_E_NOMEM;
    cJSON_Delete(j);
  }
  free(line);
  fclose(f);
  waitpid(pid, &status, 0);
  ck_assert_msg(WIFEXITED(status) && (WEXITSTATUS(status) < 2 || WEXITSTATUS(status) == QN_WORKER_NOMEM),
                "allocation %zu fails%s: the worker's status is %x", at, all ? ", and all after it" : "", status);
  return refused + (WEXITSTATUS(status) == QN_WORKER_NOMEM);
}

START_TEST(test_worker) {
  enum { tries = 16 };
  char requests[64];
  int refused = 0;
  folder_init();
  taken = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ck_assert(taken != MAP_FAILED);
  qn_case *c = test_case(NULL, 64, 64);
  snprintf(requests, sizeof requests, "%s/requests", folder);
  FILE *f = fopen(requests, "w");
  write_request(f, "verify", 1, c);
  write_request(f, "open", 2, c);
  write_request(f, "check", 3, NULL);
  fclose(f);
  ck_assert_int_eq(run_worker(requests, 0, false), 0);
  size_t total = *taken;
  rng r = {seed_of_sample()};
  for (int i = 0; i < tries; i++)
    refused += run_worker(requests, 1 + total * i / tries + below(&r, (uint32_t)(total / tries)), i % 2) > 0;
  ck_assert_int_gt(refused, tries / 2);
  free(c);
  folder_fini();
}
END_TEST

/* ---- The supervisor ---------------------------------------------------------------------------------------------- */

enum { CANDIDATES = 3 };

static qn_status tune(const char *worker, qn_tune_result *r) {
  static const int64_t profile[] = {1, 4};
  static char hash[CANDIDATES][33], *text[CANDIDATES];
  static const char *const names[CANDIDATES] = {"good-a", "good-b", "good-c"};
  static qn_candidate candidate[CANDIDATES];
  for (int i = 0; i < CANDIDATES && !text[i]; i++) {
    text[i] = kernel_text(NULL, names[i]);
    qn__hash_hex(names[i], strlen(names[i]), hash[i]);
    candidate[i] = (qn_candidate){.name = names[i],
                                  .hash = hash[i],
                                  .family = "host.test",
                                  .source = text[i],
                                  .flags = "",
                                  .arch = "",
                                  .params = "{}",
                                  .layout = test_layout("t4.rows"),
                                  .recipe = test_recipe(true),
                                  .m_min = 1,
                                  .cost = i};
  }
  const qn_tune_problem p = {.problem = test_problem(64, 64),
                             .format = test_format(),
                             .candidate = candidate,
                             .n_candidates = CANDIDATES,
                             .generic = &candidate[0]};
  const qn_tune_options o = {
      .device = "host", .store = folder, .worker = worker, .m = profile, .n_m = QN_COUNT(profile), .threads = 1};
  return qn__tune(&p, 1, &o, r);
}

/* A run that fails wherever it may is followed by one that has memory: all candidates are right in it. */
START_TEST(test_supervisor) {
  enum { tries = 8 };
  qn_tune_result r;
  int refused = 0;
  folder_init();
  const char *worker = script_worker("", "");
  arm(0, false);
  ck_ok(tune(worker, &r));
  size_t total = calls, plans = r.n_plans;
  qn__tune_result_free(&r);
  folder_fini();
  rng d = {seed_of_sample()};
  for (int i = 0; i < tries; i++) {
    size_t at = 1 + total * i / tries + below(&d, (uint32_t)(total / tries));
    folder_init();
    worker = script_worker("", "");
    long before = live;
    arm(at, i % 2);
    qn_status s = tune(worker, &r);
    if (!s) qn__tune_result_free(&r);
    arm(0, false);
    long left = live - before;
    refused += s != QN_OK;
    ck_assert_msg(s == QN_OK || s == QN_E_NOMEM, "allocation %zu of %zu fails%s: %s: %s", at, total,
                  i % 2 ? ", and all after it" : "", qn_status_name(s), qn__errmsg());
    ck_assert_msg(!left, "allocation %zu of %zu fails%s: %ld blocks are not given back", at, total,
                  i % 2 ? ", and all after it" : "", left);
    ck_ok(tune(worker, &r));
    ck_assert_msg(!r.counts.rejected && r.n_plans == plans, "allocation %zu of %zu fails%s: %zu rejected later", at,
                  total, i % 2 ? ", and all after it" : "", r.counts.rejected);
    qn__tune_result_free(&r);
    folder_fini();
  }
  ck_assert_int_gt(refused, 0);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {CASE(test_worker, 1), CASE(test_supervisor, 1)};
  return RUN_CASES(argv[0], cases, .timeout = 300);
}
