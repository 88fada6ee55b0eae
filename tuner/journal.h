/* journal.h - what a tuner is about to do, on disk before it does it.
 *
 * Evidence is stored entry by entry, so a killed run loses only the step it was in. That step is the journal's last
 * open line. Kernels run in a worker, so one cannot end a tuner but by taking the machine down: a step is suspect only
 * if the machine was started anew since, and one that was open when that happened twice is not tried a third time. A
 * tuner that was merely killed says nothing about its step. */
#ifndef QN_JOURNAL_H
#define QN_JOURNAL_H
#include "store.h"

typedef struct qn_journal {
  int fd;
  char path[4200];
} qn_journal;

/* Take over what dead tuners left open (counted in the store as "suspect" entries), and begin a journal of our own. */
qn_status qn__journal_open(qn_store *s, qn_journal *out);
/* The step named `what` begins: appended and fsynced. */
qn_status qn__journal_begin(qn_journal *j, const char *what);
qn_status qn__journal_end(qn_journal *j);
/* Was this step open when the machine went down, twice? */
bool qn__journal_suspect(qn_store *s, const char *what);
void qn__journal_close(qn_journal *j); /* removes the file: nothing is open */
#endif
