/* oom.h - memory that runs out: each allocation of a piece of work fails in turn, alone or with all that follow.
 * Nothing crashes, nothing leaks, the status is QN_E_NOMEM or the work is done all the same, and then it works again.
 *
 * Every allocation of the process is counted, those of cJSON and the C library, too. A long piece of work is sampled;
 * QN_SEED draws another sample, and a failure says which allocation it was. */
#ifndef OOM_H
#define OOM_H
#include "runtime_fixture.h"
#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>

/* ---- Memory that fails ------------------------------------------------------------------------------------------- */

static atomic_long live;      /* blocks in use */
static atomic_size_t calls;   /* since the last arming */
static atomic_size_t fail_at; /* the call that fails; 0: none */
static atomic_bool and_all_after;

static bool fails(void) {
  size_t at = fail_at, now = ++calls;
  bool fail = at && (now == at || (and_all_after && now > at));
  if (fail) errno = ENOMEM;
  return fail;
}

static void *counted(void *p) {
  live += p != NULL;
  return p;
}

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);
void *__libc_memalign(size_t align, size_t size);
void __libc_free(void *p);

#pragma GCC visibility push(default) /* for other libraries, too */
void *malloc(size_t size) { return fails() ? NULL : counted(__libc_malloc(size)); }
void *calloc(size_t n, size_t size) { return fails() ? NULL : counted(__libc_calloc(n, size)); }
void *aligned_alloc(size_t align, size_t size) { return fails() ? NULL : counted(__libc_memalign(align, size)); }
void *memalign(size_t align, size_t size) { return aligned_alloc(align, size); }
int posix_memalign(void **p, size_t align, size_t size) { return (*p = aligned_alloc(align, size)) ? 0 : ENOMEM; }
void free(void *p) {
  live -= p != NULL;
  __libc_free(p);
}
void *realloc(void *p, size_t size) {
  if (!p) return malloc(size);
  return fails() ? NULL : __libc_realloc(p, size); /* nobody here asks for size 0 */
}
#pragma GCC visibility pop

static void arm(size_t at, bool all) {
  and_all_after = all;
  calls = 0;
  fail_at = at;
}

static uint64_t seed_of_sample(void) {
  const char *seed = getenv("QN_SEED");
  return seed ? strtoull(seed, NULL, 10) : 1;
}
#endif
