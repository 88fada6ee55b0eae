/* compile.c - the front of the compilers: one source, or many on all cores. */
#include "compile.h"
#include "clock.h"
#include "compile_internal.h"
#include "cpu.h"
#include "fail.h"
#include "hash.h"
#include <pthread.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>

/* What a template may ask of a compiler, as extended regular expressions: to generate other code. Flags that run a
 * program, load a plug-in, or name a file to read or write are not among them. */
#define MACROS "|-[DU][A-Za-z_][A-Za-z0-9_]*(=.*)?"
#define HOST_FLAGS                                                                                                     \
  "-O([0-3sgz]|fast)?|-m[a-z0-9._-]+(=[A-Za-z0-9][A-Za-z0-9.+_-]*)?|-f[a-z0-9-]+|-ffp-contract=[a-z]+" MACROS
#define CUDA_FLAGS                                                                                                     \
  "-lineinfo|-G|--?use_fast_math|--?(ftz|prec-sqrt|prec-div|fmad)=(true|false)|--?maxrregcount=[0-9]+"                 \
  "|--extra-device-vectorization|(--ptxas-options|-Xptxas)=-[A-Za-z0-9-]+(=[a-z0-9]+)?" MACROS

static const struct back_end {
  const char *target;
  qn_status (*compile)(const qn_source *, qn_artifact *);
  qn_status (*version)(char *, size_t);
  const char *flags, *known; /* what is allowed, and that in words */
} back_ends[] = {
    {"host", qn__compile_cc, qn__cc_version, "^(" HOST_FLAGS ")$", "-O, -m, -f without a file, -D, -U"},
    {"cuda", qn__compile_nvrtc, qn__nvrtc_version, "^(" CUDA_FLAGS ")$",
     "-lineinfo, -G, --use_fast_math, --ftz, --prec-sqrt, --prec-div, --fmad, --maxrregcount, "
     "--extra-device-vectorization, --ptxas-options, -D, -U"},
};

const char *qn__first_errors(const char *log, char *buffer, size_t size) {
  size_t used = 0;
  int lines = 0;
  *buffer = 0;
  for (int pass = 0; pass < 2 && !lines; pass++)
    for (const char *p = log; *p && lines < 3;) {
      size_t n = strcspn(p, "\n");
      const char *hit = pass ? p : memmem(p, n, "error", 5);
      if (hit && n && used + n + 3 < size) {
        if (lines++) memcpy(buffer + used, "; ", 3), used += 2;
        memcpy(buffer + used, p, n);
        buffer[used += n] = 0;
      }
      p += n + (p[n] == '\n');
    }
  return buffer;
}

/* Every flag must be one that may be passed. */
static qn_status check_flags(const qn_source *source, const struct back_end *b) {
  regex_t allowed;
  qn_status s = QN_OK;
  char *flags = strdup(source->flags ? source->flags : ""), *save = NULL;
  if (!flags || regcomp(&allowed, b->flags, REG_EXTENDED | REG_NOSUB)) {
    free(flags);
    return qn__fail(QN_E_NOMEM, "%s: no memory for its flags", source->name);
  }
  for (char *p = strtok_r(flags, " ", &save); p && s == QN_OK; p = strtok_r(NULL, " ", &save))
    if (regexec(&allowed, p, 0, NULL, 0) || !strcmp(p, "-mllvm"))
      s = qn__fail(QN_E_ARG, "%s: its template must not pass the flag %s; known: %s", source->name, p, b->known);
  regfree(&allowed);
  free(flags);
  return s;
}

qn_status qn_compile(const qn_source *source, qn_artifact *out) {
  *out = (qn_artifact){0};
  for (size_t i = 0; i < QN_COUNT(back_ends); i++) {
    if (strcmp(source->target, back_ends[i].target)) continue;
    QN_TRY(check_flags(source, &back_ends[i]));
    double start = qn__now();
    qn_status s = back_ends[i].compile(source, out);
    out->seconds = qn__now() - start;
    if (s != QN_OK) return s;
    uint8_t hash[QN_HASH_BYTES];
    qn__hash128(out->image, out->size, hash);
    qn__hash_text(hash, out->hash);
    return QN_OK;
  }
  return qn__fail(QN_E_ARG, "%s: unknown target \"%s\"; known: host, cuda", source->name, source->target);
}

void qn_artifact_free(qn_artifact *a) {
  if (!a) return;
  free(a->image);
  free(a->ptx);
  free(a->log);
  *a = (qn_artifact){0};
}

qn_status qn_compiler_version(const char *target, char *text, size_t size) {
  for (size_t i = 0; i < QN_COUNT(back_ends); i++)
    if (!strcmp(target, back_ends[i].target)) return back_ends[i].version(text, size);
  return qn__fail(QN_E_ARG, "unknown target \"%s\"", target);
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
    qn_status s = qn_compile(&jobs->sources[i], &a);
    pthread_mutex_lock(&jobs->lock);
    if (jobs->done(jobs->ud, i, s, s == QN_OK ? "" : qn__errmsg(), &a)) jobs->stop = 1;
    qn_artifact_free(&a);
  }
  pthread_mutex_unlock(&jobs->lock);
  return NULL;
}

qn_status qn_compile_all(const qn_source *sources, size_t n, int threads, qn_compile_done done, void *ud) {
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
