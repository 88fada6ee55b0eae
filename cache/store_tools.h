/* store_tools.h - looking after stores: what is in one, what is damaged, how two differ, carrying results from one to
 * another, throwing out what is of no use.
 *
 * Each tool takes whole roots (NULL: the default, as for qn__store_open) with all their environments, and may run while
 * others use them. QN_E_IO: a root that is not there (but merge makes `into`), or cannot be written; QN_E_NOMEM. */
#ifndef QN_STORE_TOOLS_H
#define QN_STORE_TOOLS_H
#include "quernel.h"
#include <cjson/cJSON.h>

/* An environment of a root: one machine, compiler and policy. */
typedef struct qn_store_environment {
  const char *path, *hash;         /* ROOT/ENV, ENV; valid during the call, as all of this */
  const cJSON *about;              /* its env.json; NULL if that is not readable */
  size_t artifacts, failures;      /* compiled variants; variants that do not compile */
  size_t evidence, plans, damaged; /* entries; files that verify would report */
  size_t older;                    /* entries of an older schema, which nobody reads: gc removes them */
  int64_t bytes;                   /* of all files */
  int64_t first, last;             /* when the oldest and the newest file was written, seconds since 1970; 0: none */
  cJSON *problems;                 /* array: those that were timed, with their M: "int4.g128:64x64:bf16-f32 M=4" */
  cJSON *rejected, *suspects;      /* arrays of {key, name, why}: verdicts on kernels, steps that took a run along */
} qn_store_environment;

/* Visit every environment, until `each` returns non-zero. */
qn_status qn__store_list(const char *root, int (*each)(void *ud, const qn_store_environment *e), void *ud);

/* Hash every file again and report each that is damaged, misplaced, or left over from a writer that was killed. */
qn_status qn__store_verify(const char *root, void (*report)(void *ud, const char *path, const char *what), void *ud);

/* Visit the evidence and plans in which two roots differ; a value that one of them lacks is NULL. */
qn_status qn__store_diff(const char *a, const char *b,
                         void (*each)(void *ud, const char *env, const char *kind, const char *key, const cJSON *in_a,
                                      const cJSON *in_b),
                         void *ud);

/* What merge and gc did with the files they met. */
typedef struct qn_store_counts {
  size_t copied;   /* not there before */
  size_t replaced; /* there, but damaged or on weaker evidence */
  size_t kept;     /* there, on evidence as good or better */
  size_t same;     /* there already */
  size_t damaged;  /* passed over, or by gc removed */
  size_t removed;
} qn_store_counts;

/* Copy what `from` has into `into`. Where both have an entry and differ, `better` says whether theirs is the better
 * evidence; NULL: the one whose "samples" is the larger number (none: 0), on equality mine. `from` is only read. */
typedef int (*qn_store_better)(void *ud, const char *kind, const char *key, const cJSON *mine, const cJSON *theirs);
qn_status qn__store_merge(const char *into, const char *from, qn_store_better better, void *ud, qn_store_counts *out);

/* Forget verdicts, timings and suspicions about `wanted`: the key of an entry, the hash or the name of a variant, a
 * problem, or problems by their format or format and shape. Compiled kernels stay; one that did not compile is tried
 * again. *n: entries removed. */
qn_status qn__store_forget(const char *root, const char *wanted, size_t *n);

/* Remove what nobody can use: damaged entries and images, entries of an older schema, images that no entry names,
 * temporary files of writers that were killed. Files younger than `age` seconds stay: they may be somebody's unfinished
 * work (3600 is safe). */
qn_status qn__store_gc(const char *root, double age, qn_store_counts *out);
#endif
