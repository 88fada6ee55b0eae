/* make.c - threads that take one entrant after the other; it is ready once its artifact is in the store. */
#include "make.h"
#include "compile.h"
#include "cpu.h"
#include "fail.h"
#include "measure.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is known of an entrant now: an artifact, or a failure with its reason. */
static void settle(const qn_store *store, qn_entrant *e, qn_status s, const char *why, const qn_artifact *a) {
  e->failed = s == QN_E_COMPILE;
  e->missed = s != QN_OK && !e->failed;
  if (s == QN_OK) {
    snprintf(e->image, sizeof e->image, "%.4000s/artifact/%s.bin", qn__store_path(store), a->hash);
    snprintf(e->sum, sizeof e->sum, "%s", a->hash);
    if (a->spills) snprintf(e->why, sizeof e->why, "spills %d bytes of registers", a->spills);
  } else snprintf(e->why, sizeof e->why, "%s", why);
  e->ready = true;
}

/* Compile, again if the compiler was killed; what says something about the source is kept. */
static qn_status compile(qn_maker *m, const qn_candidate *c, qn_artifact *a, char why[QN_MAKE_WHY]) {
  enum { tries = 3 };
  const qn_source source = {c->name, m->target, c->arch, c->flags, c->source, &m->stop, m->headers};
  qn_status s = QN_E_IO;
  for (int i = 0; i < tries && s == QN_E_IO && !m->stop; i++) {
    if (i) qn__artifact_free(a);
    s = qn__compile(&source, a);
    snprintf(why, QN_MAKE_WHY, "%s", s == QN_OK ? "" : qn__errmsg());
  }
  if (s != QN_OK && s != QN_E_COMPILE) return s;
  qn_status kept = qn__store_artifact_put(m->store, c->hash, s, why, a);
  if (kept != QN_OK) snprintf(why, QN_MAKE_WHY, "%s", qn__errmsg());
  return kept != QN_OK ? kept : s;
}

static void make(qn_maker *m, qn_entrant *e) {
  enum { most_misses = 3 };
  qn_artifact a = {0};
  qn_status s = QN_OK;
  char why[QN_MAKE_WHY];
  bool known = qn__store_artifact_get(m->store, e->c->hash, &s, &a, why, sizeof why);
  if (!known) s = compile(m, e->c, &a, why);
  pthread_mutex_lock(&m->lock);
  bool given_up = m->stop && s != QN_OK && s != QN_E_COMPILE; /* as if it had never begun */
  if (!given_up) {
    e->known = known;
    settle(m->store, e, s, why, &a);
    m->misses = e->missed ? m->misses + 1 : 0;
  }
  if (m->misses == most_misses && !m->stop) {
    m->status = s;
    m->stop = true;
    snprintf(m->failure, sizeof m->failure, "%s", why);
  }
  pthread_cond_broadcast(&m->change);
  pthread_mutex_unlock(&m->lock);
  qn__artifact_free(&a);
}

static void *work(void *ud) {
  qn_maker *m = ud;
  pthread_mutex_lock(&m->lock);
  while (!m->stop && m->next < m->n) {
    qn_entrant *e = m->entrant[m->next++];
    pthread_mutex_unlock(&m->lock);
    make(m, e);
    pthread_mutex_lock(&m->lock);
  }
  m->working--;
  pthread_cond_broadcast(&m->change);
  pthread_mutex_unlock(&m->lock);
  return NULL;
}

/* What need not be compiled is ready at once; the others are listed. */
static void sort_out(qn_maker *m, qn_entrant *e) {
  qn_artifact a;
  qn_status known;
  char why[QN_MAKE_WHY];
  if (e->c->library) {
    e->ready = true;
    return;
  }
  if (qn__store_artifact_get(m->store, e->c->hash, &known, &a, why, sizeof why)) {
    e->known = true;
    settle(m->store, e, known, why, &a);
    qn__artifact_free(&a);
    return;
  }
  m->entrant[m->n++] = e;
}

static void init_lock(qn_maker *m) {
  pthread_condattr_t monotonic;
  pthread_mutex_init(&m->lock, NULL);
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_cond_init(&m->change, &monotonic);
  pthread_condattr_destroy(&monotonic);
}

qn_status qn__maker_start(qn_maker *m, qn_store *store, const char *target, qn_entrant *const *order, size_t n,
                          int threads) {
  *m = (qn_maker){.store = store};
  init_lock(m);
  snprintf(m->target, sizeof m->target, "%s", target);
  if (threads <= 0) threads = qn__cpu_count();
  m->entrant = calloc(n + 1, sizeof *m->entrant);
  m->thread = calloc((size_t)threads, sizeof *m->thread);
  if (!m->entrant || !m->thread) return qn__maker_stop(m), qn__fail(QN_E_NOMEM, "no memory for %zu sources", n);
  for (size_t i = 0; i < n; i++) sort_out(m, order[i]);
  if ((size_t)threads > m->n) threads = (int)m->n;
  m->headers = qn__headers_new(m->n);
  m->working = threads; /* before the first of them looks */
  while (m->threads < threads && !pthread_create(&m->thread[m->threads], NULL, work, m)) m->threads++;
  pthread_mutex_lock(&m->lock);
  m->working -= threads - m->threads;
  pthread_mutex_unlock(&m->lock);
  if (m->threads || !threads) return QN_OK;
  qn__maker_stop(m);
  return qn__fail(QN_E_NOMEM, "no thread to compile on");
}

bool qn__maker_wait(qn_maker *m, const qn_entrant *e, double until) {
  double whole = floor(fmin(until, 1e9));
  struct timespec moment = {(time_t)whole, (long)(1e9 * (fmin(until, 1e9) - whole))};
  pthread_mutex_lock(&m->lock);
  while (!e->ready && m->working && qn__now() < until) pthread_cond_timedwait(&m->change, &m->lock, &moment);
  bool ready = e->ready;
  pthread_mutex_unlock(&m->lock);
  return ready;
}

void qn__maker_stop(qn_maker *m) {
  pthread_mutex_lock(&m->lock);
  m->stop = true;
  pthread_mutex_unlock(&m->lock);
  while (m->threads) pthread_join(m->thread[--m->threads], NULL);
  qn__headers_free(m->headers);
  m->headers = NULL;
  free(m->entrant);
  free(m->thread);
  m->entrant = NULL;
  m->thread = NULL;
}

qn_status qn__maker_failure(qn_maker *m) {
  pthread_mutex_lock(&m->lock);
  qn_status s = m->status ? qn__fail(m->status, "%s", m->failure) : QN_OK;
  pthread_mutex_unlock(&m->lock);
  return s;
}
