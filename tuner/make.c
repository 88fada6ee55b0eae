/* make.c - one thread hands the sources to qn_compile_all; an entrant is ready once its artifact is in the store. */
#include "make.h"
#include "fail.h"
#include "measure.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is known of an entrant now: an artifact, or a failure with its reason. */
static void settle(const qn_store *store, qn_entrant *e, qn_status s, const char *why, const qn_artifact *a) {
  char text[64];
  e->failed = s != QN_OK;
  if (!e->failed) {
    snprintf(e->image, sizeof e->image, "%.4000s/artifact/%s.bin", qn_store_path(store), a->hash);
    snprintf(e->sum, sizeof e->sum, "%s", a->hash);
    snprintf(text, sizeof text, "spills %d bytes of registers", a->spills);
    why = a->spills ? text : NULL;
  }
  e->why = why ? strdup(why) : NULL;
  e->ready = true;
}

/* A failure that is not the source's, or a request to stop, ends it. */
static int compiled(void *ud, size_t i, qn_status s, const char *why, qn_artifact *a) {
  qn_maker *m = ud;
  bool source = s == QN_OK || s == QN_E_COMPILE;
  qn_status stored = source ? qn_store_artifact_put(m->store, m->entrant[i]->c->hash, s, why, a) : QN_OK;
  pthread_mutex_lock(&m->lock);
  if (source && !stored) settle(m->store, m->entrant[i], s, why, a);
  else {
    m->status = stored ? stored : s;
    snprintf(m->failure, sizeof m->failure, "%s", stored ? qn__errmsg() : why);
  }
  int stop = m->stop || m->status;
  pthread_cond_signal(&m->change);
  pthread_mutex_unlock(&m->lock);
  return stop;
}

static void *work(void *ud) {
  qn_maker *m = ud;
  qn_compile_all(m->source, m->n, m->threads, compiled, m);
  pthread_mutex_lock(&m->lock);
  m->running = false;
  pthread_cond_signal(&m->change);
  pthread_mutex_unlock(&m->lock);
  return NULL;
}

/* What need not be compiled is ready at once; the others are listed. */
static void sort_out(qn_maker *m, qn_entrant *e) {
  qn_artifact a;
  qn_status known;
  char why[1400];
  if (e->c->library) {
    e->ready = true;
    return;
  }
  if (qn_store_artifact_get(m->store, e->c->hash, &known, &a, why, sizeof why)) {
    e->known = true;
    settle(m->store, e, known, why, &a);
    qn_artifact_free(&a);
    return;
  }
  m->source[m->n] = (qn_source){e->c->name, m->target, e->c->arch, e->c->flags, e->c->source};
  m->entrant[m->n++] = e;
}

qn_status qn__maker_start(qn_maker *m, qn_store *store, const char *target, qn_entrant *const *order, size_t n,
                          int threads) {
  pthread_condattr_t monotonic;
  *m = (qn_maker){.store = store, .threads = threads, .lock = PTHREAD_MUTEX_INITIALIZER};
  snprintf(m->target, sizeof m->target, "%s", target);
  m->entrant = calloc(n + 1, sizeof *m->entrant);
  m->source = calloc(n + 1, sizeof *m->source);
  if (!m->entrant || !m->source) return qn__fail(QN_E_NOMEM, "no memory for sources");
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_cond_init(&m->change, &monotonic);
  pthread_condattr_destroy(&monotonic);
  for (size_t i = 0; i < n; i++) sort_out(m, order[i]);
  m->running = m->n > 0;
  if (!m->running || !pthread_create(&m->thread, NULL, work, m)) return QN_OK;
  m->running = false;
  m->n = 0;
  return qn__fail(QN_E_NOMEM, "no thread to compile on");
}

bool qn__maker_wait(qn_maker *m, const qn_entrant *e, double until) {
  double whole = floor(fmin(until, 1e9));
  struct timespec moment = {(time_t)whole, (long)(1e9 * (fmin(until, 1e9) - whole))};
  pthread_mutex_lock(&m->lock);
  while (!e->ready && m->running && qn__now() < until) pthread_cond_timedwait(&m->change, &m->lock, &moment);
  bool ready = e->ready;
  pthread_mutex_unlock(&m->lock);
  return ready;
}

qn_status qn__maker_stop(qn_maker *m) {
  if (m->n) {
    pthread_mutex_lock(&m->lock);
    m->stop = true;
    pthread_mutex_unlock(&m->lock);
    pthread_join(m->thread, NULL);
  }
  free(m->entrant);
  free(m->source);
  m->entrant = NULL;
  m->source = NULL;
  m->n = 0;
  return m->status ? qn__fail(m->status, "%s", m->failure) : QN_OK;
}
