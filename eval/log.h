/* log.h - what was evaluated, kept as soon as it is known: a killed run goes on, and nothing is evaluated twice.
 *
 * A log has `n` entries of known sizes; each is filled once. The file is a line that says of what it is the log, then
 * records in the order in which they were put: a hash of the rest, number of the entry i64, its size u64, its bytes.
 * Records that are put together are one write. A torn or damaged record ends what is read; it is cut off, and its entry
 * is put anew.
 *
 * The file is locked while it is open: two runs that fill the same log would do the same work. */
#ifndef QN_EVAL_LOG_H
#define QN_EVAL_LOG_H
#include "quernel.h"
#include <stdbool.h>
#include <stddef.h>

typedef struct qn__log {
  int fd; /* -1: nothing is kept beyond the process */
  const char *path;
  int64_t n;
  const size_t *at; /* [n + 1]: entry i is data[at[i]] .. data[at[i + 1] - 1] */
  char *data;
  bool *done; /* [n] */
} qn__log;

/* path NULL: memory only. The folder is made if it is not there. `key`: of what this is the log; `path` and `at` must
 * outlive it. QN_E_IO (it cannot be written; another run has it), QN_E_ARG (it is the log of something else),
 * QN_E_NOMEM. */
qn_status qn__log_open(qn__log *l, const char *path, const char *key, int64_t n, const size_t *at);
/* Entries first .. first + count - 1, whose bytes the caller has put into `data`, are done. QN_E_IO: the disk is full;
 * what was there before is whole. */
qn_status qn__log_put(qn__log *l, int64_t first, int64_t count);
void qn__log_close(qn__log *l);

/* What a log holds, whoever it is of. */
typedef struct qn__log_summary {
  size_t entries;   /* whole ones */
  size_t behind;    /* bytes behind the last of them: damaged, or a writer was killed there */
  char content[33]; /* the same for the same entries, in whatever order they were put */
} qn__log_summary;

/* QN_E_IO, QN_E_NOMEM; QN_E_FORMAT: the file is no log, or torn before it began. A run may write it meanwhile. */
qn_status qn__log_look(const char *path, qn__log_summary *out);
#endif
