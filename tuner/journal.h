/* journal.h - what a tuner is about to do, on disk before it does it.
 *
 * Evidence is stored entry by entry, so a killed run loses only the step it was in: its journal's last open line. A
 * kernel runs in a worker and should not reach beyond it, but one may take the tuner along, or the machine. So a step
 * that was open when a run went down is suspect, and one with which that happened again and again is not tried any
 * more. A single death says little, for people kill tuners too: hence the patience, and one success clears the step.
 *
 *   ROOT/ENV/journal/HOST.BOOT.PIDS.PID   of one run: its host, the start of its machine, its process namespace, its
 *                                         process. Locked as long as the run lives; taken over by its own host only
 *   ROOT/ENV/suspect/...                  entries of the store by the name of the step: {"weight": W, "why": text} */
#ifndef QN_JOURNAL_H
#define QN_JOURNAL_H
#include "store.h"

typedef struct qn_journal {
  int fd;        /* -1: not open */
  int error;     /* errno of the first line that could not be written; 0: none */
  size_t others; /* runs at work on this store when it was opened, as far as one can tell */
  char path[4500];
} qn_journal;

/* Take over what dead runs of this host left open, and begin a journal of our own. */
qn_status qn__journal_open(qn_store *s, qn_journal *out);
void qn__journal_close(qn_journal *j); /* removes the file: nothing is open */
void qn__journal_drop(void);           /* the same of the one that is open, for a signal handler */

/* The step named `what` begins: appended and synced. A full disk is noted in `error`. */
void qn__journal_begin(qn_journal *j, const char *what);
/* A step of many parts has come to this one. Not synced: it counts if the run goes down, not if the machine does. */
void qn__journal_at(qn_journal *j, const char *what);
void qn__journal_end(qn_journal *j);

/* What speaks against a step: 1 for each run that went down in it, 2 if the machine did. */
int qn__journal_suspicion(qn_store *s, const char *what);
void qn__journal_trust(qn_store *s, const char *what); /* it succeeded: 0 */
enum { QN_SUSPECT = 4 };                               /* so much is enough */
#define QN_SUSPECT_WHY "runs went down in it, again and again"
#endif
