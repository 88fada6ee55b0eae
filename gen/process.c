/* process.c - run a program with text on its standard input and collect what it writes. */
#include "process.h"
#include "fail.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { output_limit = 64 << 10 };

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Start argv with `fd` as its three standard streams. */
static qn_status start(char *const argv[], char *const env[], int fd, pid_t *pid) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attr;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attr);
  for (int i = 0; i < 3; i++) posix_spawn_file_actions_adddup2(&actions, fd, i);
  posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP); /* a time-out ends its children too */
  int e = posix_spawnp(pid, argv[0], &actions, &attr, argv, env ? env : environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attr);
  return e ? qn__fail(QN_E_IO, "cannot start %s: %s", argv[0], strerror(e)) : QN_OK;
}

/* Feed and drain the socket until the program closes it or the time is over. Returns 0 if the time ran out. */
static int converse(int fd, const char *input, double deadline, char *output) {
  size_t left = input ? strlen(input) : 0, got = 0;
  char sink[4096];
  if (!left) shutdown(fd, SHUT_WR);
  for (;;) {
    double wait = deadline - now();
    if (wait <= 0) return 0;
    struct pollfd p = {.fd = fd, .events = (short)(POLLIN | (left ? POLLOUT : 0))};
    if (poll(&p, 1, (int)(wait * 1e3) + 1) < 0 && errno != EINTR) return 1;
    if (p.revents & POLLOUT && left) {
      ssize_t n = send(fd, input, left, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n > 0) input += n, left -= (size_t)n;
      if (n < 0 && errno != EAGAIN && errno != EINTR) left = 0; /* it reads no more; its output says why */
      if (!left) shutdown(fd, SHUT_WR);
    }
    if (p.revents & (POLLIN | POLLHUP | POLLERR)) {
      size_t room = output_limit - 1 - got;
      ssize_t n = read(fd, room ? output + got : sink, room ? room : sizeof sink);
      if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return 1;
      if (n > 0 && room) output[got += (size_t)n] = 0;
    }
  }
}

qn_status qn__process_run(char *const argv[], char *const env[], const char *input, double seconds,
                          qn_process_result *out) {
  int fd[2];
  pid_t pid;
  *out = (qn_process_result){.output = calloc(1, output_limit)};
  if (!out->output) return qn__fail(QN_E_NOMEM, "no memory for the output of %s", argv[0]);
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd))
    return qn__fail(QN_E_IO, "socketpair: %s", strerror(errno));
  qn_status s = start(argv, env, fd[1], &pid);
  close(fd[1]);
  if (s == QN_OK) {
    int in_time = converse(fd[0], input, now() + seconds, out->output), status = 0;
    if (!in_time) kill(-pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    out->exit_status = !in_time ? 124 : WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  close(fd[0]);
  return s;
}
