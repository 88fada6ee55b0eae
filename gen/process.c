/* process.c - run a program with text on its standard input and collect what it writes. */
#include "process.h"
#include "clock.h"
#include "fail.h"
#include "leash.h"
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { output_limit = 64 << 10 };

/* Start argv with `fd` as its three standard streams. */
static qn_status start(char *const argv[], char *const env[], int fd, pid_t *pid) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attr;
  int e = 0;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attr);
  for (int i = 0; i < 3 && !e; i++) e = posix_spawn_file_actions_adddup2(&actions, fd, i);
  posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP); /* what ends it ends its children too */
  if (!e) e = posix_spawnp(pid, argv[0], &actions, &attr, argv, env ? env : environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attr);
  return e ? qn__fail(qn__errno_status(e), "cannot start %s: %s", argv[0], strerror(e)) : QN_OK;
}

typedef struct talk {
  const char *input; /* what is still to be fed */
  size_t left, got;
  char *output;
} talk;

static void feed(talk *t, int fd) {
  ssize_t n = send(fd, t->input, t->left, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (n > 0) t->input += n, t->left -= (size_t)n;
  if (n < 0 && errno != EAGAIN && errno != EINTR) t->left = 0; /* it reads no more; its output says why */
  if (!t->left) shutdown(fd, SHUT_WR);
}

/* Take what is there: bytes, 0 at the end, less than 0 if there is nothing yet. */
static ssize_t drain(talk *t, int fd) {
  char sink[4096];
  size_t room = output_limit - 1 - t->got;
  ssize_t n = recv(fd, room ? t->output + t->got : sink, room ? room : sizeof sink, MSG_DONTWAIT);
  if (n > 0 && room) t->output[t->got += (size_t)n] = 0;
  return n;
}

static bool has_ended(pid_t pid) {
  siginfo_t info = {.si_pid = 0};
  return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) || info.si_pid;
}

/* Feed and drain the socket until the program ends. It alone counts: it may close the socket and live on, or end while
 * a child of its own holds it. False if the time ran out or it was stopped. */
static bool converse(talk *t, int fd, pid_t pid, double deadline, const atomic_bool *stop) {
  struct pollfd p = {.fd = fd};
  if (!t->left) shutdown(fd, SHUT_WR);
  while (!has_ended(pid)) {
    double wait = fmin(deadline - qn__now(), p.fd < 0 ? 1e-3 : 0.1);
    if (wait <= 0 || (stop && *stop)) return false;
    p.events = (short)(POLLIN | (t->left ? POLLOUT : 0));
    if (poll(&p, 1, (int)(wait * 1e3) + 1) <= 0) continue;
    if (p.revents & POLLOUT && t->left) feed(t, fd);
    if (p.revents & (POLLIN | POLLHUP | POLLERR) && !drain(t, fd)) p.fd = -1;
  }
  while (drain(t, fd) > 0) {
  }
  return true;
}

qn_status qn__process_run(char *const argv[], char *const env[], const char *input, double seconds,
                          const atomic_bool *stop, qn_process_result *out) {
  int fd[2], status = 0;
  pid_t pid;
  *out = (qn_process_result){.output = calloc(1, output_limit)};
  if (!out->output) return qn__fail(QN_E_NOMEM, "no memory for the output of %s", argv[0]);
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd))
    return qn__fail(qn__errno_status(errno), "socketpair: %s", strerror(errno));
  qn_status s = start(argv, env, fd[1], &pid);
  close(fd[1]);
  if (s == QN_OK) {
    talk t = {.input = input, .left = input ? strlen(input) : 0, .output = out->output};
    qn__leash_group(pid, true);
    bool in_time = converse(&t, fd[0], pid, qn__now() + seconds, stop);
    kill(-pid, SIGKILL);         /* it, or what it left running */
    qn__leash_group(pid, false); /* before its number is free for others */
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    out->exit_status = !in_time ? 124 : WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  close(fd[0]);
  return s;
}
