/* supervise.c - spawning, listening to and killing a worker. */
#include "supervise.h"
#include "fail.h"
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PREPARE 10 /* times the patience with a kernel */

extern char **environ;

struct qn_worker {
  char program[PATH_MAX], device[64];
  pid_t pid; /* 0: not running */
  qn_line line;
  int starts;
};

/* ---- The program ------------------------------------------------------------------------------------------------- */

static bool beside(char *out, size_t size) {
  char self[PATH_MAX];
  ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
  if (n < 0) return false;
  self[n] = 0;
  char *slash = strrchr(self, '/');
  if (slash) *slash = 0;
  return (size_t)snprintf(out, size, "%s/quernel-worker", self) < size && !access(out, X_OK);
}

static qn_status find_program(const char *given, char *out, size_t size) {
  const char *said = given ? given : getenv("QUERNEL_WORKER");
  if (!said && beside(out, size)) return QN_OK;
  snprintf(out, size, "%s", said ? said : QN_LIBEXEC "/quernel-worker");
  if (!access(out, X_OK)) return QN_OK;
  return qn__fail(QN_E_IO, "worker program %s: %s; QUERNEL_WORKER can name it", out, strerror(errno));
}

qn_status qn__worker_open(const char *program, const char *device, qn_worker **out) {
  qn_worker *w = *out = calloc(1, sizeof *w);
  if (!w) return qn__fail(QN_E_NOMEM, "worker");
  snprintf(w->device, sizeof w->device, "%s", device ? device : "");
  qn_status s = find_program(program, w->program, sizeof w->program);
  if (s) free(w), *out = NULL;
  return s;
}

/* ---- Life and death ---------------------------------------------------------------------------------------------- */

/* The worker's standard input and output are one end of a socket; a socket tells a dead peer without a signal. */
static int spawn(qn_worker *w, int end) {
  char parent[24];
  snprintf(parent, sizeof parent, "%d", (int)getpid());
  char *argv[] = {w->program, w->device, parent, NULL};
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&files);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_adddup2(&files, end, 0);
  posix_spawn_file_actions_adddup2(&files, end, 1);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP); /* a group of its own */
  int error = posix_spawn(&w->pid, w->program, &files, &attributes, argv, environ);
  posix_spawn_file_actions_destroy(&files);
  posix_spawnattr_destroy(&attributes);
  return error;
}

static qn_status start(qn_worker *w) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
    return qn__fail(QN_E_IO, "socketpair: %s", strerror(errno));
  int error = spawn(w, ends[1]);
  close(ends[1]);
  if (error) {
    close(ends[0]);
    w->pid = 0;
    return qn__fail(QN_E_IO, "%s: cannot be started: %s", w->program, strerror(error));
  }
  w->line = (qn_line){.in = ends[0], .out = ends[0]};
  w->starts++;
  return QN_OK;
}

/* End the group and collect the worker; its wait status. */
static int stop(qn_worker *w) {
  int status = 0;
  kill(-w->pid, SIGKILL);
  while (waitpid(w->pid, &status, 0) < 0 && errno == EINTR) {
  }
  close(w->line.in);
  qn__line_fini(&w->line);
  w->pid = 0;
  return status;
}

void qn__worker_close(qn_worker *w) {
  if (w && w->pid) stop(w);
  free(w);
}

int qn__worker_starts(const qn_worker *w) { return w->starts; }

/* It closed the line: give it a moment to end by itself, so that its own signal is seen and not ours. */
static qn_answer died(qn_worker *w) {
  siginfo_t info;
  for (int i = 0; i < 100 && (info.si_pid = 0, !waitid(P_PID, (id_t)w->pid, &info, WEXITED | WNOHANG | WNOWAIT)); i++) {
    if (info.si_pid) break;
    usleep(5000);
  }
  int status = stop(w);
  if (WIFSIGNALED(status))
    qn__fail(QN_E_DEVICE, "killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
  else qn__fail(QN_E_DEVICE, "exited with status %d", WEXITSTATUS(status));
  return QN_ANSWER_DIED;
}

/* ---- Asking ------------------------------------------------------------------------------------------------------ */

/* A failure that the worker reports; it leaves after one that makes it distrust itself, and so it is collected. */
static qn_answer failed(qn_worker *w, const cJSON *j, qn_status *status) {
  const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, "text"));
  *status = qn__status_from_name(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, "status")));
  if (*status == QN_E_WRONG || *status == QN_E_CUDA) stop(w);
  qn__fail(*status, "%s", text ? text : "the worker gives no reason");
  return QN_ANSWER_FAILED;
}

qn_answer qn__worker_ask(qn_worker *w, const cJSON *request, double patience, cJSON **answer, qn_status *status) {
  *answer = NULL;
  *status = QN_OK;
  if (!w->pid && (*status = start(w))) return QN_ANSWER_NONE;
  if (qn__line_write(&w->line, request)) return died(w);
  double wait = PREPARE * patience;
  for (;;) {
    qn_status s = qn__line_read(&w->line, wait, answer);
    if (s == QN_E_LIMIT) {
      stop(w);
      qn__fail(QN_E_LIMIT, "no answer within %g s", wait);
      return QN_ANSWER_HUNG;
    }
    if (s) return died(w);
    if (!cJSON_HasObjectItem(*answer, "begin")) break;
    cJSON_Delete(*answer);
    wait = patience;
  }
  if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(*answer, "ok"))) return QN_ANSWER_OK;
  qn_answer a = failed(w, *answer, status);
  cJSON_Delete(*answer);
  *answer = NULL;
  return a;
}
