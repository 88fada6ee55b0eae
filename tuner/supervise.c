/* supervise.c - the worker is a process group of its own, so that killing it leaves nothing behind. */
#include "supervise.h"
#include "fail.h"
#include "json.h"
#include "leash.h"
#include "measure.h"
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { start_seconds = 60, longest_line = 1 << 20 };

/* How a conversation broke off. */
typedef enum loss { ENDED, SILENT, NONSENSE, MEMORY } loss;

static volatile pid_t started; /* the worker of this process that runs: a signal handler asks for it */

bool qn__supervisor_sent(pid_t sender) { return started && (sender == started || getpgid(sender) == started); }

static void reap(qn_supervisor *s, int *status) {
  if (!s->pid) return;
  started = 0;
  kill(-s->pid, SIGKILL);
  kill(s->pid, SIGKILL);          /* a kernel may have left the group */
  qn__leash_group(s->pid, false); /* before its number is free for others */
  while (waitpid(s->pid, status, 0) < 0 && errno == EINTR) {
  }
  close(s->fd);
  s->pid = 0;
  s->used = 0;
}

static qn_status spawn(qn_supervisor *s) {
  int fd[2];
  char *argv[] = {(char *)(uintptr_t)s->program, (char *)(uintptr_t)s->device, NULL};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd))
    return qn__fail(qn__errno_status(errno), "socketpair: %s", strerror(errno));
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attr;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attr);
  int e = posix_spawn_file_actions_adddup2(&actions, fd[1], 0);
  if (!e) e = posix_spawn_file_actions_adddup2(&actions, fd[1], 1);
  posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP);
  if (!e) e = posix_spawn(&s->pid, s->program, &actions, &attr, argv, environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attr);
  close(fd[1]);
  if (e) {
    close(fd[0]);
    s->pid = 0;
    return qn__fail(qn__errno_status(e), "cannot start the worker %s: %s", s->program, strerror(e));
  }
  s->fd = fd[0];
  s->fresh = true;
  started = s->pid;
  qn__leash_group(s->pid, true);
  return QN_OK;
}

/* The worker's next line, or NULL and how it was lost. */
static cJSON *read_line(qn_supervisor *s, loss *how) {
  double deadline = qn__now() + s->limit;
  for (;;) {
    char *end = s->used ? memchr(s->line, '\n', s->used) : NULL;
    if (end) {
      size_t n = (size_t)(end - s->line) + 1;
      errno = 0; /* which tells a lack of memory from nonsense */
      cJSON *j = cJSON_ParseWithLength(s->line, n);
      *how = errno == ENOMEM ? MEMORY : NONSENSE;
      memmove(s->line, s->line + n, s->used -= n);
      return j;
    }
    if (s->used == s->room) {
      size_t room = s->room ? s->room * 2 : 4096;
      char *p = room <= longest_line ? realloc(s->line, room) : NULL;
      *how = room <= longest_line ? MEMORY : NONSENSE;
      if (!p) return NULL;
      s->line = p, s->room = room;
    }
    double left = deadline - qn__now();
    struct pollfd p = {.fd = s->fd, .events = POLLIN};
    *how = left <= 0 ? SILENT : ENDED;
    if (left <= 0 || (poll(&p, 1, (int)(left * 1e3) + 1) < 0 && errno != EINTR)) return NULL;
    if (!p.revents) continue;
    ssize_t n = read(s->fd, s->line + s->used, s->room - s->used);
    if (n <= 0) return NULL;
    s->used += (size_t)n;
  }
}

/* The worker's answer, after any number of steps. */
static cJSON *read_answer(qn_supervisor *s, double seconds, loss *how) {
  cJSON *j;
  const char *step;
  s->limit = seconds;
  *s->step = 0;
  while ((j = read_line(s, how)) && (step = qn__json_text(j, "step", NULL))) {
    double limit = cJSON_GetNumberValue(qn__json_get(j, "limit"));
    snprintf(s->step, sizeof s->step, "%s", step);
    s->limit = limit < seconds ? limit : seconds;
    cJSON_Delete(j);
  }
  return j;
}

/* Signals that a kernel draws upon itself; every other one was sent. */
static bool is_crash(int signal) {
  static const int list[] = {SIGILL, SIGABRT, SIGBUS,  SIGFPE,    SIGSEGV, SIGTRAP,
                             SIGSYS, SIGPIPE, SIGALRM, SIGVTALRM, SIGPROF};
  for (size_t i = 0; i < QN_COUNT(list); i++)
    if (signal == list[i]) return true;
  return false;
}

/* A worker that has closed its line may need a moment to end. */
static bool has_ended(pid_t pid) {
  for (int i = 0; i < 200; i++, usleep(10000)) {
    siginfo_t end = {0};
    if (waitid(P_PID, (id_t)pid, &end, WEXITED | WNOHANG | WNOWAIT) || end.si_pid) return true;
  }
  return false;
}

/* Say how the worker was lost, and collect what is left of it. */
static qn_status lose(qn_supervisor *s, loss how) {
  bool by_itself = how == ENDED && has_ended(s->pid);
  int status = 0;
  reap(s, &status);
  s->fault = how == MEMORY || (by_itself && status == QN_WORKER_NOMEM << 8) ? QN_FAULT_OUTSIDE : QN_FAULT_DEATH;
  if (s->fault == QN_FAULT_OUTSIDE) return qn__fail(QN_E_NOMEM, "no memory to talk with the worker");
  if (how == SILENT)
    return qn__fail(QN_E_WRONG, "hangs: %s, not done after %.3g s; killed", *s->step ? s->step : "no answer", s->limit);
  if (how == NONSENSE) return qn__fail(QN_E_WRONG, "the worker's answer does not belong to the question; killed");
  if (!by_itself) return qn__fail(QN_E_WRONG, "the worker closed its line and did not end; killed");
  if (!WIFSIGNALED(status)) return qn__fail(QN_E_WRONG, "the worker ended with status %d", WEXITSTATUS(status));
  if (is_crash(WTERMSIG(status)))
    return qn__fail(QN_E_WRONG, "crashed: %s; %s", strsignal(WTERMSIG(status)), *s->step ? s->step : "before any call");
  s->fault = QN_FAULT_OUTSIDE;
  return qn__fail(QN_E_IO, "a signal ended the worker: %s%s", strsignal(WTERMSIG(status)),
                  WTERMSIG(status) == SIGKILL ? "; the system sends it when memory is short" : "");
}

static qn_fault fault_of(qn_status s) {
  switch ((int)s) {
  case QN_OK:
    return QN_FAULT_NONE;
  case QN_E_NOMEM:
    return QN_FAULT_OUTSIDE;
  case QN_E_CUDA:
    return QN_FAULT_DEATH;
  case QN_E_WRONG:
  case QN_E_FORMAT:
  case QN_E_LIMIT:
  case QN_E_NO_KERNEL:
    return QN_FAULT_WRONG;
  default:
    return QN_FAULT_RUN;
  }
}

static qn_status status_of(const cJSON *answer) {
  int s = qn__json_int(answer, "status", -1);
  return s == QN_OK ? QN_OK : qn__fail(s < 0 ? QN_E_FORMAT : (qn_status)s, "%s", qn__json_text(answer, "why", ""));
}

/* Whoever kills a worker that starts, for want of memory perhaps, may have done with it a moment later. */
static qn_status start(qn_supervisor *s) {
  enum { tries = 3 };
  loss how = ENDED;
  qn_status lost = QN_OK;
  cJSON *hello = NULL;
  for (int i = 0; i < tries && !hello && how == ENDED; i++) {
    usleep((useconds_t)i * 200000);
    QN_TRY(spawn(s));
    if (!(hello = read_answer(s, start_seconds, &how))) lost = lose(s, how);
  }
  s->fault = QN_FAULT_RUN; /* nothing was asked */
  if (!hello)
    return qn__fail(lost == QN_E_NOMEM ? lost : QN_E_IO, "the worker %s does not start: %s", s->program, qn__errmsg());
  qn_status status = status_of(hello);
  if (status == QN_OK) status = qn__info_from_json(qn__json_get(hello, "info"), &s->info);
  cJSON_Delete(hello);
  if (status != QN_OK) reap(s, &(int){0});
  return status;
}

qn_status qn__supervisor_init(qn_supervisor *s, const char *program, const char *device) {
  *s = (qn_supervisor){.program = program, .device = device ? device : "host", .restarts = 0};
  qn_status status = start(s);
  if (status) qn__supervisor_fini(s);
  return status;
}

void qn__supervisor_fini(qn_supervisor *s) {
  int status;
  reap(s, &status);
  free(s->line);
  *s = (qn_supervisor){0};
}

static void send_text(const qn_supervisor *s, const char *text, size_t n) {
  for (size_t at = 0; at < n;) {
    ssize_t w = send(s->fd, text + at, n - at, MSG_NOSIGNAL);
    if (w < 0 && errno == EINTR) continue;
    if (w <= 0) return; /* it is gone: reading says how */
    at += (size_t)w;
  }
}

static qn_status converse(qn_supervisor *s, char *text, double seconds, cJSON **answer) {
  loss how;
  s->fault = QN_FAULT_RUN;
  if (!s->pid) {
    s->restarts++;
    QN_TRY(start(s));
  }
  size_t n = strlen(text);
  text[n] = '\n'; /* in place of the terminator */
  s->fresh = false;
  send_text(s, text, n + 1);
  cJSON *j = read_answer(s, seconds, &how);
  if (qn__json_int(j, "id", -1) != s->asked || qn__json_int(j, "status", -1) < 0) {
    cJSON_Delete(j);
    return lose(s, how);
  }
  qn_status status = status_of(*answer = j);
  s->fault = fault_of(status);
  if (s->fault > QN_FAULT_RUN) reap(s, &(int){0});
  return status;
}

/* A kernel that guesses it could answer for those after it. */
static int draw_number(void) {
  unsigned n;
  return getentropy(&n, sizeof n) ? 0 : (int)(n >> 1);
}

qn_status qn__supervisor_ask(qn_supervisor *s, cJSON *request, double seconds, cJSON **answer) {
  cJSON *j = NULL;
  qn__json_add_number(request, "id", s->asked = draw_number());
  char *text = cJSON_PrintUnformatted(request);
  cJSON_Delete(request);
  s->fault = QN_FAULT_RUN;
  qn_status status = text ? converse(s, text, seconds, &j) : qn__fail(QN_E_NOMEM, "no memory for a request");
  cJSON_free(text);
  if (answer) *answer = j;
  else cJSON_Delete(j);
  return status;
}
