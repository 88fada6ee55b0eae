/* task_file.h - the items of a task file as texts. */
#ifndef QN_SCORE_TASK_FILE_H
#define QN_SCORE_TASK_FILE_H
#include "quernel.h"

enum { QN_CHOICES = 64 }; /* of an item, at most */

typedef struct qn__item_text {
  int64_t line;
  const char *context, *delimiter, *choice[QN_CHOICES];
  int n, gold; /* n = 1: a continuation */
} qn__item_text;

/* Each item of a .jsonl or .csv in turn, valid during the call. A failure of `item` is told with the place, "FILE:LINE:
 * why", and ends it. QN_E_FORMAT (a line that is no item; a file without items; of another kind), QN_E_IO, QN_E_NOMEM.
 */
qn_status qn__task_file_read(const char *path, qn_status (*item)(void *ud, const qn__item_text *x), void *ud);
#endif
