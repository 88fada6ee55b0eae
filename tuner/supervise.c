/* supervise.c - the worker is a process group of its own, so that killing it leaves nothing behind. */
#include "supervise.h"
#include "fail.h"
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

extern char **environ;
enum { start_seconds = 60 };

static void reap(qn_supervisor *s, int *status) {
  if (!s->pid) return;
  kill(-s->pid, SIGKILL);
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
    return qn__fail(QN_E_IO, "socketpair: %s", strerror(errno));
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attr;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attr);
  posix_spawn_file_actions_adddup2(&actions, fd[1], 0);
  posix_spawn_file_actions_adddup2(&actions, fd[1], 1);
  posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP);
  int e = posix_spawn(&s->pid, s->program, &actions, &attr, argv, environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attr);
  close(fd[1]);
  if (e) {
    close(fd[0]);
    s->pid = 0;
    return qn__fail(QN_E_IO, "cannot start the worker %s: %s", s->program, strerror(e));
  }
  s->fd = fd[0];
  return QN_OK;
}

/* The worker's next line. NULL: it ended (*late 0) or was silent for too long (*late 1). */
static cJSON *read_line(qn_supervisor *s, int *late) {
  double deadline = qn__now() + s->limit;
  for (;;) {
    char *end = s->used ? memchr(s->line, '\n', s->used) : NULL;
    if (end) {
      size_t n = (size_t)(end - s->line) + 1;
      cJSON *j = cJSON_ParseWithLength(s->line, n);
      memmove(s->line, s->line + n, s->used -= n);
      return j;
    }
    if (s->used == s->room) {
      char *p = realloc(s->line, s->room = s->room ? s->room * 2 : 4096);
      if (!p) return NULL;
      s->line = p;
    }
    double left = deadline - qn__now();
    *late = left <= 0;
    struct pollfd p = {.fd = s->fd, .events = POLLIN};
    if (*late || (poll(&p, 1, (int)(left * 1e3) + 1) < 0 && errno != EINTR)) return NULL;
    if (!p.revents) continue;
    ssize_t n = read(s->fd, s->line + s->used, s->room - s->used);
    if (n <= 0) return NULL;
    s->used += (size_t)n;
  }
}

/* The worker's answer, after any number of steps. */
static cJSON *read_answer(qn_supervisor *s, double seconds, int *late) {
  cJSON *j;
  const char *step;
  s->limit = seconds;
  *s->step = 0;
  while ((j = read_line(s, late)) && (step = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, "step")))) {
    double limit = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(j, "limit"));
    snprintf(s->step, sizeof s->step, "%s", step);
    s->limit = limit < seconds ? limit : seconds;
    cJSON_Delete(j);
  }
  return j;
}

static qn_status ended(qn_supervisor *s, int late) {
  int status = 0;
  bool alive = waitpid(s->pid, &status, WNOHANG) == 0; /* before it is killed */
  if (alive && !late) {                                /* it closed the line and is on its way out */
    usleep(100000);
    alive = waitpid(s->pid, &status, WNOHANG) == 0;
  }
  if (!alive) {
    kill(-s->pid, SIGKILL);
    close(s->fd);
    s->pid = 0;
    s->used = 0;
  } else reap(s, &status);
  if (late)
    return qn__fail(QN_E_WRONG, "hangs: %s, not done after %.3g s; killed", *s->step ? s->step : "no answer", s->limit);
  if (WIFSIGNALED(status)) return qn__fail(QN_E_WRONG, "crashed: %s", strsignal(WTERMSIG(status)));
  return qn__fail(QN_E_WRONG, "the worker ended with status %d", WEXITSTATUS(status));
}

static qn_status status_of(const cJSON *answer) {
  const cJSON *j = cJSON_GetObjectItemCaseSensitive(answer, "status");
  const char *why = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(answer, "why"));
  if (!cJSON_IsNumber(j)) return qn__fail(QN_E_WRONG, "the worker's answer makes no sense");
  return j->valueint == QN_OK ? QN_OK : qn__fail((qn_status)j->valueint, "%s", why ? why : "");
}

static qn_status start(qn_supervisor *s) {
  int late = 0;
  QN_TRY(spawn(s));
  cJSON *hello = read_answer(s, start_seconds, &late);
  if (!hello) return ended(s, late);
  qn_status status = status_of(hello);
  if (status == QN_OK) status = qn__info_from_json(cJSON_GetObjectItemCaseSensitive(hello, "info"), &s->info);
  cJSON_Delete(hello);
  if (status != QN_OK) reap(s, &late);
  return status;
}

qn_status qn__supervisor_init(qn_supervisor *s, const char *program, const char *device) {
  *s = (qn_supervisor){.program = program, .device = device ? device : "host", .restarts = 0};
  return start(s);
}

void qn__supervisor_fini(qn_supervisor *s) {
  int status;
  reap(s, &status);
  free(s->line);
  *s = (qn_supervisor){0};
}

qn_status qn__supervisor_ask(qn_supervisor *s, cJSON *request, double seconds, cJSON **answer, bool *died) {
  if (answer) *answer = NULL;
  if (died) *died = false;
  char *text = request ? cJSON_PrintUnformatted(request) : NULL;
  cJSON_Delete(request);
  if (!text) return qn__fail(QN_E_NOMEM, "no memory for a request");
  qn_status status = QN_OK;
  if (!s->pid) {
    s->restarts++;
    status = start(s);
  }
  int late = 0;
  cJSON *j = NULL;
  if (status == QN_OK) {
    size_t n = strlen(text);
    text[n] = '\n'; /* in place of the terminator */
    for (size_t at = 0; at <= n;) {
      ssize_t w = send(s->fd, text + at, n + 1 - at, MSG_NOSIGNAL);
      if (w < 0 && errno == EINTR) continue;
      if (w <= 0) break; /* it is gone: reading says how */
      at += (size_t)w;
    }
    j = read_answer(s, seconds, &late);
    if (j) status = status_of(j);
    else {
      status = ended(s, late);
      if (died) *died = true;
    }
  }
  cJSON_free(text);
  if (answer) *answer = j;
  else cJSON_Delete(j);
  return status;
}
