/* test_store_writers.c - writers of a store that find no room, are killed, or race: nobody waits, and a reader never
 * sees half a file. */
#include "store_fixture.h"
#include "store_tools.h"
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>

/* Too little room: an error that names the file; what was there stays, nothing half-written is added. */
static void expect_full(qn_store *s) {
  char *big = malloc(1 << 20), before[4096];
  memset(big, 'x', 1 << 20);
  big[(1 << 20) - 1] = 0;
  int n = files(s, "evidence", "", NULL);
  cJSON *j = cJSON_CreateString(big);
  ck_fails(QN_E_IO, qn__store_path(s), qn__store_put(s, "evidence", "a", j));
  snprintf(before, sizeof before, "%s", qn__errmsg());
  ck_assert_msg(strstr(before, "No space left") || strstr(before, "File too large"), "%s", before);
  ck_assert(get(s, "a") == 1);
  ck_fails(QN_E_IO, qn__store_path(s), qn__store_put(s, "evidence", "b", j));
  qn_artifact a = {.image = (unsigned char *)big, .size = 1 << 20};
  ck_fails(QN_E_IO, qn__store_path(s), qn__store_artifact_put(s, variant, QN_OK, NULL, &a));
  qn_status status;
  ck_assert(!qn__store_artifact_get(s, variant, &status, &a, before, sizeof before));
  ck_assert_int_eq(files(s, "evidence", "", NULL), n);
  ck_assert_int_eq(files(s, "artifact", "", NULL), 0);
  cJSON_Delete(j);
  free(big);
}

START_TEST(test_file_too_large) {
  qn_store *s = open_at(root);
  put(s, "a", 1);
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &(struct rlimit){4096, 4096});
  expect_full(s);
  qn__store_close(s);
}
END_TEST

/* A file system of 256 KiB, where the machine lets us mount one; the limit above tests the same without. */
START_TEST(test_disk_full) {
  if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
      mount("tmpfs", root, "tmpfs", 0, "size=256k,mode=700")) {
    puts("store_writers: no file system may be mounted here: a full one is not tried");
    return;
  }
  qn_store *s = open_at(root);
  put(s, "a", 1);
  expect_full(s);
  qn__store_close(s);
  umount(root);
}
END_TEST

static cJSON *long_value(int i) {
  cJSON *j = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(j, "list");
  cJSON_AddNumberToObject(j, "seconds", i);
  for (int k = 0; k < 500; k++) cJSON_AddItemToArray(list, cJSON_CreateNumber(i));
  return j;
}

static int is_long_value(const cJSON *j) {
  double i = value_of(j);
  const cJSON *list = cJSON_GetObjectItemCaseSensitive(j, "list"), *x;
  cJSON_ArrayForEach(x, list)
    if (x->valuedouble != i) return 0;
  return cJSON_GetArraySize(list) == 500;
}

/* Killed at any moment, a writer leaves a whole old entry or a whole new one; gc clears away the rest. */
START_TEST(test_killed_writer) {
  qn_store *s = open_at(root);
  rng r = {3};
  int first = 0;
  for (int round = 0; round < 25; round++) {
    pid_t pid = fork();
    if (!pid)
      for (int i = round * 100000;; i++) {
        cJSON *j = long_value(i);
        if (qn__store_put(s, "evidence", "x", j)) _exit(1);
        cJSON_Delete(j);
      }
    usleep((useconds_t)(500 + draw(&r) % 12000));
    kill(pid, SIGKILL);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    cJSON *j = qn__store_get(s, "evidence", "x");
    ck_assert_msg(j ? is_long_value(j) : !first, "round %d: no whole entry", round);
    first |= j != NULL;
    cJSON_Delete(j);
  }
  ck_assert(first);
  int left = files(s, "evidence", "", NULL) - 1;
  qn_store_counts c;
  ck_ok(qn__store_gc(root, 3600, &c));
  ck_assert_uint_eq(c.removed, 0); /* too young: it may be somebody's work */
  ck_ok(qn__store_gc(root, -1, &c));
  ck_assert_int_eq((int)c.removed, left);
  ck_assert_int_eq(files(s, "evidence", "", NULL), 1);
  qn__store_close(s);
}
END_TEST

/* Sixteen writers of one entry and of their own, and a reader who never sees half a file. */
START_TEST(test_many_writers) {
  enum { writers = 16, rounds = 12 };
  pid_t pid[writers];
  for (int w = 0; w < writers; w++)
    if (!(pid[w] = fork())) {
      qn_store *s = open_at(root);
      for (int i = 0; i < rounds; i++) {
        char key[32];
        cJSON *j = long_value(w * 1000 + i);
        snprintf(key, sizeof key, "own %d", w);
        if (qn__store_put(s, "evidence", "shared", j) || qn__store_put(s, "evidence", key, j)) _exit(1);
        cJSON_Delete(j);
      }
      _exit(0);
    }
  qn_store *s = open_at(root);
  int running = writers, seen = 0, failed = 0;
  while (running) {
    cJSON *j = qn__store_get(s, "evidence", "shared");
    ck_assert(j ? is_long_value(j) : !seen); /* once there, always there */
    seen |= j != NULL;
    cJSON_Delete(j);
    for (int w = 0, status; w < writers; w++)
      if (pid[w] && waitpid(pid[w], &status, WNOHANG) == pid[w]) pid[w] = 0, running--, failed += status != 0;
  }
  ck_assert_int_eq(failed, 0);
  for (int w = 0; w < writers; w++) {
    char key[32];
    snprintf(key, sizeof key, "own %d", w);
    ck_assert(get(s, key) == w * 1000 + rounds - 1);
  }
  ck_assert_int_eq(files(s, "evidence", "", NULL), writers + 1);
  qn__store_close(s);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(test_file_too_large, 1),
      CASE(test_disk_full, 1),
      CASE(test_killed_writer, 1),
      CASE(test_many_writers, 1),
  };
  return RUN_CASES(argv[0], cases, own_root, drop_root, 120);
}
