/* leash.c - the keeper and what it is told; scratch folders. See leash.h. */
#include "leash.h"
#include "tree.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- The keeper -------------------------------------------------------------------------------------------------- */

/* A process group, or with group 0 a path. */
typedef struct item {
  bool held;
  pid_t group;
  char path[PATH_MAX];
} item;

/* A process that is being killed may still put a file into a folder that is being removed. */
static void drop(const item *x) {
  if (x->group) kill(-x->group, SIGKILL);
  else
    for (int tries = 100; tries && qn__tree_remove(x->path) && errno != ENOENT; tries--) usleep(10000);
}

/* Room for what the threads of qn__compile_all have at once. */
static void note(item *list, size_t n, const item *x) {
  for (size_t i = 0; i < n; i++) {
    bool same = list[i].held && list[i].group == x->group && !strcmp(list[i].path, x->path);
    if (x->held ? list[i].held : !same) continue;
    list[i] = *x;
    return;
  }
}

/* The keeper's life. Groups come first: what they would write into the folders ends with them. */
static void keep(int fd) {
  static item list[1024];
  item x;
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, NULL);
  setsid();
  dup2(fd, 0); /* everything else is closed: who waits for the end of a pipe of ours must not wait for the keeper */
  closefrom(1);
  while (x = (item){0}, recv(0, &x, sizeof x, 0) > 0) note(list, QN_COUNT(list), &x);
  for (int paths = 0; paths < 2; paths++)
    for (size_t i = 0; i < QN_COUNT(list); i++)
      if (list[i].held && (list[i].group == 0) == paths) drop(&list[i]);
  _exit(0);
}

/* ---- Our end ----------------------------------------------------------------------------------------------------- */

static int keeper = -1; /* our end of the socket */
static volatile sig_atomic_t pulled;

/* The keeper is nobody's child: a program that waits for its children does not meet it. */
static qn_status start(void) {
  int fd[2], status = 0;
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fd))
    return qn__fail(qn__errno_status(errno), "socketpair: %s", strerror(errno));
  pid_t pid = fork();
  if (pid == 0) {
    close(fd[0]);
    pid = fork();
    if (pid == 0) keep(fd[1]);
    _exit(pid < 0);
  }
  close(fd[1]);
  if (pid < 0 || (waitpid(pid, &status, 0) == pid && status)) {
    close(fd[0]);
    return qn__fail(QN_E_IO, "no process can be started beside this one, to clean up after it");
  }
  keeper = fd[0];
  return QN_OK;
}

qn_status qn__leash_start(void) {
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  pthread_mutex_lock(&lock);
  qn_status s = keeper < 0 ? start() : QN_OK;
  pthread_mutex_unlock(&lock);
  return s;
}

static void tell(const item *x) {
  size_t size = offsetof(item, path) + strlen(x->path);
  if (keeper < 0 || send(keeper, x, size, MSG_NOSIGNAL) == (ssize_t)size) return;
  if (!pulled) return; /* the keeper was killed: the next run's sweep is left */
  if (x->held) drop(x);
  for (;;) pause(); /* a signal is ending the process */
}

void qn__leash_group(pid_t group, bool held) { tell(&(item){.held = held, .group = group}); }

void qn__leash_path(const char *path, bool held) {
  item x = {.held = held};
  memcpy(x.path, path, strnlen(path, sizeof x.path - 1));
  tell(&x);
}

void qn__leash_pull(void) {
  char none;
  pulled = 1;
  if (keeper < 0) return;
  shutdown(keeper, SHUT_WR);
  while (recv(keeper, &none, 1, 0) < 0 && errno == EINTR) {
  }
}

/* ---- Scratch folders --------------------------------------------------------------------------------------------- */

static const char stem[] = "quernel-scratch-";

/* Lock a folder of our own: -1 if it is gone, another user's or, with LOCK_NB, locked. */
static int lock_folder(const char *path, int how) {
  struct stat st;
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return -1;
  bool locked = !flock(fd, LOCK_EX | how) || !how; /* a file system without locks has no sweep either */
  if (locked && !fstat(fd, &st) && st.st_uid == geteuid() && st.st_nlink) return fd;
  close(fd);
  return -1;
}

static const char *root(void) {
  const char *own = getenv("TMPDIR");
  return own && *own ? own : "/tmp";
}

static void sweep(void) {
  DIR *d = opendir(root());
  for (struct dirent *f; d && (f = readdir(d));) {
    char path[PATH_MAX];
    if (strncmp(f->d_name, stem, strlen(stem)) ||
        snprintf(path, sizeof path, "%s/%s", root(), f->d_name) >= (int)sizeof path)
      continue;
    int fd = lock_folder(path, LOCK_NB);
    if (fd < 0) continue;
    qn__tree_remove(path);
    close(fd);
  }
  if (d) closedir(d);
}

qn_status qn__scratch_open(qn_scratch *s) {
  static pthread_once_t swept = PTHREAD_ONCE_INIT;
  *s = (qn_scratch){.lock = -1};
  QN_TRY(qn__leash_start());
  pthread_once(&swept, sweep);
  do { /* a sweep may meet it before it is locked, and remove it */
    if (snprintf(s->path, sizeof s->path, "%s/%sXXXXXX", root(), stem) >= (int)sizeof s->path || !mkdtemp(s->path))
      return qn__fail(QN_E_IO, "no folder for temporary files in %.200s: %s; TMPDIR names another place", root(),
                      strerror(errno));
    s->lock = lock_folder(s->path, 0);
  } while (s->lock < 0 && access(s->path, F_OK));
  qn__leash_path(s->path, true);
  if (s->lock >= 0) return QN_OK;
  qn__fail(qn__errno_status(errno), "%s: %s", s->path, strerror(errno));
  qn__scratch_close(s);
  return QN_E_IO;
}

void qn__scratch_close(qn_scratch *s) {
  if (!*s->path) return;
  if (!qn__tree_remove(s->path)) qn__leash_path(s->path, false); /* else the keeper tries again */
  if (s->lock >= 0) close(s->lock);
  *s = (qn_scratch){.lock = -1};
}
