/* compile.c - the front of the compilers: one source, or many on all cores. */
#include "compile.h"
#include "back_end.h"
#include "clock.h"
#include "cpu.h"
#include "fail.h"
#include "hash.h"
#include <pthread.h>
#include <regex.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const qn_back_end *const back_ends[] = {&qn__back_end_cc, &qn__back_end_nvrtc};

/* What a back end lets pass; NULL: out of memory. It is kept: each regcomp that runs out of memory leaks some. */
static const regex_t *allowed_by(const qn_back_end *b) {
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  static regex_t allowed[QN_COUNT(back_ends)];
  static bool compiled[QN_COUNT(back_ends)];
  size_t i = 0;
  while (back_ends[i] != b) i++;
  pthread_mutex_lock(&lock);
  if (!compiled[i]) compiled[i] = !regcomp(&allowed[i], b->flags, REG_EXTENDED | REG_NOSUB);
  bool ready = compiled[i];
  pthread_mutex_unlock(&lock);
  return ready ? &allowed[i] : NULL;
}

static qn_status check_flag(const qn_source *source, const qn_back_end *b, const regex_t *allowed, const char *flag) {
  int error = regexec(allowed, flag, 0, NULL, 0);
  if (error == REG_ESPACE) return qn__fail(QN_E_NOMEM, "%s: no memory for its flags", source->name);
  if (!error && strcmp(flag, "-mllvm")) return QN_OK;
  return qn__fail(QN_E_ARG, "%s: its template must not pass the flag %s; known: %s", source->name, flag, b->known);
}

/* Every flag must be one that may be passed. */
static qn_status check_flags(const qn_source *source, const qn_back_end *b) {
  const regex_t *allowed = allowed_by(b);
  char *flags = strdup(source->flags ? source->flags : ""), *save = NULL;
  qn_status s = flags && allowed ? QN_OK : qn__fail(QN_E_NOMEM, "%s: no memory for its flags", source->name);
  for (char *p = s ? NULL : strtok_r(flags, " ", &save); p && s == QN_OK; p = strtok_r(NULL, " ", &save))
    s = check_flag(source, b, allowed, p);
  free(flags);
  return s;
}

/* The back end of a target; NULL: there is none. */
static const qn_back_end *find(const char *target) {
  for (size_t i = 0; i < QN_COUNT(back_ends); i++)
    if (!strcmp(target, back_ends[i]->target)) return back_ends[i];
  return NULL;
}

qn_status qn__compile(const qn_source *source, qn_artifact *out) {
  const qn_back_end *b = find(source->target);
  *out = (qn_artifact){0};
  if (!b) return qn__fail(QN_E_ARG, "%s: unknown target \"%s\"; known: host, cuda", source->name, source->target);
  QN_TRY(check_flags(source, b));
  double start = qn__now();
  qn_status s = b->compile(source, out);
  out->seconds = qn__now() - start;
  if (s == QN_OK) qn__hash_hex(out->image, out->size, out->hash);
  return s;
}

qn_status qn__compiler_version(const char *target, char *text, size_t size) {
  const qn_back_end *b = find(target);
  return b ? b->version(text, size) : qn__fail(QN_E_ARG, "unknown target \"%s\"; known: host, cuda", target);
}

/* ---- Many -------------------------------------------------------------------------------------------------------- */

typedef struct job_list {
  const qn_source *sources;
  size_t n, next;
  int stop;
  qn_compile_done done;
  void *ud;
  pthread_mutex_t lock;
} job_list;

static void *work(void *arg) {
  job_list *jobs = arg;
  pthread_mutex_lock(&jobs->lock);
  while (!jobs->stop && jobs->next < jobs->n) {
    size_t i = jobs->next++;
    pthread_mutex_unlock(&jobs->lock);
    qn_artifact a;
    qn_status s = qn__compile(&jobs->sources[i], &a);
    pthread_mutex_lock(&jobs->lock);
    if (jobs->done(jobs->ud, i, s, s == QN_OK ? "" : qn__errmsg(), &a)) jobs->stop = 1;
    qn__artifact_free(&a);
  }
  pthread_mutex_unlock(&jobs->lock);
  return NULL;
}

qn_status qn__compile_all(const qn_source *sources, size_t n, int threads, qn_compile_done done, void *ud) {
  enum { most = 256 };
  pthread_t thread[most];
  job_list jobs = {.sources = sources, .n = n, .done = done, .ud = ud, .lock = PTHREAD_MUTEX_INITIALIZER};
  if (threads <= 0) threads = qn__cpu_count();
  if (threads > most) threads = most;
  int started = 0;
  while (started < threads - 1 && !pthread_create(&thread[started], NULL, work, &jobs)) started++;
  work(&jobs);
  for (int i = 0; i < started; i++) pthread_join(thread[i], NULL);
  pthread_mutex_destroy(&jobs.lock);
  return QN_OK;
}
