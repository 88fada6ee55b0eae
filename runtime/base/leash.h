/* leash.h - what must not outlive this process, whatever ends it: a return, a signal, kill -9.
 *
 * A second small process, the keeper, holds the other end of a socket. It is told of every process group, file and
 * folder that is on the leash. When our end is closed, which the system does for a process that is killed, the keeper
 * kills those groups, removes those files and folders, and ends. It starts with qn__leash_start or the first scratch
 * folder; before that nothing is on a leash, so a program that only serves has no second process. Any thread. */
#ifndef QN_LEASH_H
#define QN_LEASH_H
#include "fail.h"
#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

/* Start the keeper, once. QN_E_IO: no process can be started. */
qn_status qn__leash_start(void);

/* Put a process group or a path on the leash, or take it off. */
void qn__leash_group(pid_t group, bool held);
void qn__leash_path(const char *path, bool held);

/* End and remove all that is on the leash and wait until that is done. For a signal handler, which ends the process
 * next: threads that put something on the leash from now on stand still. Async-signal-safe. */
void qn__leash_pull(void);

/* A new folder in $TMPDIR, else /tmp, on the leash, locked as long as it is used. The first one removes the folders
 * that nobody has locked: their process was killed and its keeper with it. QN_E_IO with the path and the reason. */
typedef struct qn_scratch {
  int lock;
  char path[PATH_MAX];
} qn_scratch;
qn_status qn__scratch_open(qn_scratch *s);
void qn__scratch_close(qn_scratch *s); /* removes it with all that is in it; a closed one is left alone */
#endif
