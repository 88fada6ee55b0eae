/* process.h - run a program with text on its standard input and collect what it writes. */
#ifndef QN_PROCESS_H
#define QN_PROCESS_H
#include "quernel.h"
#include <stdatomic.h>

typedef struct qn_process_result {
  int exit_status; /* of the program; 128 + signal if one ended it; 124 if the time ran out */
  char *output;    /* stdout and stderr together, at most 64 KiB, terminated; caller frees */
} qn_process_result;

/* Run argv (argv[0] found through PATH) in the environment `env` (NULL: ours), feed `input` (may be NULL), wait at most
 * `seconds`, or until *stop (NULL: never), for it to end. What it started and is still running then, or when the time
 * or this process ends, is killed. QN_E_IO if it cannot be started. Any thread. */
qn_status qn__process_run(char *const argv[], char *const env[], const char *input, double seconds,
                          const atomic_bool *stop, qn_process_result *out);
#endif
