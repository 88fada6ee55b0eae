/* finals.c - the best eight and the incumbent meet, in interleaved rounds of random order: those of a layout, to find
 * who serves an M, or one of each layout, to find which is best.
 *
 * Whoever cannot be told from the fastest by the ratios of their rounds shares its place, and the place goes to the
 * incumbent, else to the winner of the neighbouring M, else to fewer resources, else to the smaller hash. Reasons:
 * design after FlashInfer's and Helion's accounts of unstable winners. */
#include "contest.h"
#include "data.h"
#include "fail.h"
#include "hash.h"
#include "json.h"
#include "protocol.h"
#include "stats.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { most = 8, most_rounds = 64 };
_Static_assert(most + 1 <= QN_SLOTS, "a slot of the worker for each, and for the incumbent");
static const int rounds_of[] = {7, 15, 41}; /* quick, normal, full */
#define NEAR 1.15                           /* times the best lap: who is beyond is not invited */
#define TIE 0.01                            /* nearer than this is a tie whatever the interval says */
#define REPLACE 0.02                        /* an incumbent goes only for this much */

typedef struct final {
  const qn_racer *c;
  double t[most_rounds], bandwidth[most_rounds];
  int disturbed; /* of the rounds */
  qn_point x;
  double low; /* the least that its ratio to the fastest may be */
} final;

/* Who meets at which M. */
typedef struct meeting {
  size_t first, last; /* by their laps at these M of the contest, each as a share of the best */
  int64_t m;
  bool of_layouts; /* the fastest of each alone */
  const char *incumbent, *neighbour;
  final *list;
  size_t n;
} meeting;

/* ---- Who takes part ---------------------------------------------------------------------------------------------- */

static bool is(const final *x, const char *hash) { return hash && !strcmp(x->c->e->c->hash, hash); }

/* How near it came to the best at one of the M, 1 at the least; 0: it was not timed, or does not serve this M. */
static double nearness(const qn_contest *f, const meeting *x, const qn_racer *c, const double best[]) {
  double near = 0;
  if (!qn__contest_stands(f, c) || !qn__serves(c->e->c->m_min, c->e->c->m_max, x->m, x->m)) return 0;
  for (size_t i = x->first; i <= x->last; i++) {
    double share = qn__lap(c, i) / best[i];
    if (share > 0 && (!near || share < near)) near = share;
  }
  return near;
}

static int by_nearness(const void *a, const void *b) {
  const final *x = a, *y = b;
  if (x->low != y->low) return x->low < y->low ? -1 : 1;
  return strcmp(x->c->e->c->hash, y->c->e->c->hash);
}

static bool has_layout(const final *list, size_t n, const char *layout) {
  while (n)
    if (!strcmp(list[--n].c->e->c->layout.hash, layout)) return true;
  return false;
}

/* All that were timed, by their laps; then those that are not invited go. */
static void invite(const qn_contest *f, meeting *x) {
  double best[QN_PLAN_POINTS] = {0}, near;
  size_t n = 0;
  for (const qn_racer *c = f->racer; c < f->racer + f->n; c++)
    for (size_t i = x->first; i <= x->last; i++)
      if (qn__contest_stands(f, c) && qn__lap(c, i) > 0 && (!best[i] || qn__lap(c, i) < best[i]))
        best[i] = qn__lap(c, i);
  for (const qn_racer *c = f->racer; c < f->racer + f->n; c++)
    if ((near = nearness(f, x, c, best)) > 0) x->list[n++] = (final){.c = c, .x = c->lap[x->last], .low = near};
  if (n) qsort(x->list, n, sizeof *x->list, by_nearness);
  x->n = 0;
  for (size_t k = 0; k < n; k++) {
    const final *one = &x->list[k];
    bool near_enough = x->n < most && one->low <= NEAR;
    if (x->of_layouts && has_layout(x->list, x->n, one->c->e->c->layout.hash)) continue;
    if (near_enough || is(one, x->incumbent)) x->list[x->n++] = *one;
  }
  for (size_t k = 0; k < x->n; k++) x->list[k].low = 2; /* as long as they have not met, their laps decide */
}

/* ---- The rounds -------------------------------------------------------------------------------------------------- */

/* *x: what it took, if it was asked that. */
static qn_status ask(qn_contest *f, const char *op, final *x, size_t slot, int64_t m, int round) {
  cJSON *answer;
  char key[QN_KEY];
  qn_ask a = {.op = op, .p = f->p, .e = x->c->e, .slot = (int)slot, .m = m, .reps = 1};
  qn__run_time_key("finals", f->p, x->c->e, m, key);
  qn__journal_at(&f->r->journal, key);
  qn_status s = qn__run_ask(f->r, &a, &answer);
  qn__run_samples(answer, "seconds", &x->t[round], 0, 1);
  qn__run_samples(answer, "bandwidth", &x->bandwidth[round], 0, 1);
  x->disturbed += qn__json_number(answer, "disturbed", 0) > 0;
  cJSON_Delete(answer);
  return s;
}

static void shuffle(size_t *order, size_t n, uint64_t *seed) {
  for (size_t k = 0; k < n; k++) order[k] = k;
  for (size_t k = n; k-- > 1;) {
    size_t with = qn__random(seed) % (k + 1), keep = order[k];
    order[k] = order[with], order[with] = keep;
  }
}

/* *last: who was asked last. */
static qn_status hold(qn_contest *f, const meeting *x, int rounds, size_t *last) {
  uint64_t seed = 7;
  size_t order[most + 1];
  for (size_t k = 0; k < x->n; k++) x->list[k].x = (qn_point){.m = x->m}, x->list[k].disturbed = 0;
  for (*last = 0; *last < x->n; ++*last) QN_TRY(ask(f, "open", &x->list[*last], *last, x->m, 0));
  for (int round = 0; round < rounds; round++) {
    shuffle(order, x->n, &seed);
    for (size_t k = 0; k < x->n; k++) {
      *last = order[k];
      QN_TRY(ask(f, "time", &x->list[*last], *last, x->m, round));
    }
  }
  for (*last = 0; *last < x->n; ++*last) QN_TRY(ask(f, "check", &x->list[*last], *last, x->m, 0));
  return QN_OK;
}

/* Medians, and how near each is to the fastest. */
static void judge(final *list, size_t n, size_t rounds) {
  const final *best = list;
  double high;
  for (size_t k = 0; k < n; k++) {
    list[k].x.seconds = qn__median(list[k].t, rounds);
    list[k].x.spread = qn__spread(list[k].t, rounds);
    list[k].x.bandwidth = qn__median(list[k].bandwidth, rounds);
    if (qn__disturbed(list[k].disturbed, rounds)) list[k].x.marks |= QN_DISTURBED;
    if (list[k].x.seconds < best->x.seconds) best = &list[k];
  }
  for (size_t k = 0; k < n; k++) qn__ratio_interval(list[k].t, best->t, rounds, &list[k].low, &high);
}

/* The winner by the rule of the file's head. */
static const final *decide(const final *list, size_t n, const char *incumbent, const char *neighbour) {
  const final *best = list, *winner = NULL;
  for (const final *x = list; x < list + n; x++)
    if (x->x.seconds < best->x.seconds) best = x;
  for (const final *x = list; x < list + n; x++) {
    bool current = is(x, incumbent);
    if (x->low > 1 && x->x.seconds > best->x.seconds * (1 + (current ? REPLACE : TIE))) continue;
    int rank = current ? 2 : is(x, neighbour), other = !winner ? -1 : is(winner, incumbent) ? 2 : is(winner, neighbour);
    int64_t cost = winner ? x->c->e->c->cost - winner->c->e->c->cost : 0;
    if (rank != other ? rank > other : cost ? cost < 0 : strcmp(x->c->e->c->hash, winner->c->e->c->hash) < 0)
      winner = x;
  }
  return winner;
}

/* ---- Evidence: what each took; who wins follows from it ---------------------------------------------------------- */

static cJSON *to_json(const qn_tuning *r, const meeting *x) {
  cJSON *j = cJSON_CreateObject(), *all = qn__json_add_array(j, "finalists");
  double widest = 0;
  uint32_t marks = 0;
  for (const final *one = x->list; one < x->list + x->n; one++) {
    cJSON *item = cJSON_CreateObject();
    qn__json_add_text(item, "hash", one->c->e->c->hash);
    qn__json_add_text(item, "name", one->c->e->c->name);
    qn__json_add_number(item, "seconds", one->x.seconds);
    qn__json_add_number(item, "spread", one->x.spread);
    qn__json_add_number(item, "bandwidth", one->x.bandwidth);
    qn__json_add_number(item, "ratio", one->low);
    qn__json_append(all, item);
    if (one->x.spread > widest) widest = one->x.spread;
    marks |= one->x.marks;
  }
  qn__run_sign(r, j, widest, (marks & QN_DISTURBED) != 0);
  return j;
}

/* False: it does not tell of every one of them. A meeting was disturbed as a whole. */
static bool from_json(const cJSON *j, meeting *x) {
  const cJSON *item;
  size_t told = 0;
  uint32_t marks = cJSON_IsTrue(qn__json_get(j, "disturbed")) ? QN_DISTURBED : 0;
  cJSON_ArrayForEach(item, qn__json_get(j, "finalists"))
    for (final *one = x->list; one < x->list + x->n; one++) {
      double seconds = qn__json_number(item, "seconds", 0), ratio = qn__json_number(item, "ratio", 0);
      if (!(seconds > 0 && ratio > 0) || !is(one, qn__json_text(item, "hash", NULL))) continue;
      one->x = (qn_point){.m = x->m,
                          .seconds = seconds,
                          .spread = qn__json_number(item, "spread", 0),
                          .bandwidth = qn__json_number(item, "bandwidth", 0),
                          .marks = marks};
      one->low = ratio;
      told++;
    }
  return told >= x->n;
}

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* The same question is asked of the same finalists in the same number of rounds. */
static void make_key(const qn_contest *f, const meeting *x, int rounds, char key[QN_KEY]) {
  char set[(most + 1) * 33] = "", hash[33];
  const char *sorted[most + 1];
  for (size_t k = 0; k < x->n; k++) sorted[k] = x->list[k].c->e->c->hash;
  if (x->n) qsort(sorted, x->n, sizeof *sorted, by_text);
  for (size_t k = 0; k < x->n; k++) strcat(set, sorted[k]);
  qn__hash_hex(set, strlen(set), hash);
  snprintf(key, QN_KEY, "finals %s%s M=%lld rounds=%d %s", f->p->problem.spelling, qn__run_share_name(f->p),
           (long long)x->m, rounds, hash);
}

/* *failed: who was asked when it went wrong; NULL: it went well. */
static qn_status meet(qn_contest *f, meeting *x, int rounds, const char *key, const qn_racer **failed) {
  size_t last = 0;
  qn__journal_begin(&f->r->journal, key);
  qn_status s = hold(f, x, rounds, &last);
  qn__journal_end(&f->r->journal);
  *failed = s == QN_OK ? NULL : x->list[last].c;
  if (s != QN_OK) return f->r->supervisor.fault > QN_FAULT_RUN ? QN_OK : s;
  judge(x->list, x->n, (size_t)rounds);
  cJSON *j = to_json(f->r, x);
  from_json(j, x); /* to go by the same numbers as a run that finds them in the store */
  f->r->counts.timed++;
  qn__run_keep(f->r, "evidence", key, j);
  cJSON_Delete(j);
  return QN_OK;
}

/* Did earlier runs go down with one of them? Then it is out. */
static bool reject_suspects(const qn_contest *f, const meeting *x) {
  char key[QN_KEY];
  size_t before = f->r->counts.rejected;
  for (size_t k = 0; k < x->n; k++) {
    qn__run_time_key("finals", f->p, x->list[k].c->e, x->m, key);
    if (qn__journal_suspicion(f->r->store, key) >= QN_SUSPECT) qn__run_reject(f->r, x->list[k].c->e, QN_SUSPECT_WHY);
  }
  return f->r->counts.rejected > before;
}

/* Take from the store what it knows. True: they need not meet, or must not. */
static bool settled(qn_contest *f, meeting *x, const char *key) {
  qn_tuning *r = f->r;
  cJSON *evidence = qn__store_get(r->store, "evidence", key);
  bool known = x->n && from_json(evidence, x) && !qn__run_again(r, evidence);
  r->counts.timed_known += known;
  cJSON_Delete(evidence);
  return known || x->n < 2 || qn__journal_suspicion(r->store, key) >= QN_SUSPECT || qn__run_late(r);
}

/* Among so many a failure may be another's doing: whoever failed is asked alone. If it is at fault the others meet
 * without it; if not they meet again, and after a second time their laps decide. */
static qn_status bring_together(qn_contest *f, meeting *x) {
  qn_tuning *r = f->r;
  int rounds = rounds_of[r->options->effort < 0 || r->options->effort > 2 ? 0 : r->options->effort];
  char key[QN_KEY], alone[QN_KEY];
  const qn_racer *failed = NULL;
  for (int attempts = 2; attempts; attempts -= failed && failed->e->alive) {
    do invite(f, x);
    while (reject_suspects(f, x));
    make_key(f, x, rounds, key);
    if (x->n) qn__run_show(r, "finals", f->p->problem.spelling, x->list[0].c->e->c->name, x->m, 0, NULL);
    if (settled(f, x, key)) break;
    QN_TRY(meet(f, x, rounds, key, &failed));
    if (!failed) break;
    qn__run_show(r, "note", NULL, failed->e->c->name, x->m, 0, qn__errmsg());
    qn__run_time_key("finals", f->p, failed->e, x->m, alone);
    QN_TRY(qn__contest_alone(f, failed, x->m, alone));
    invite(f, x); /* without what they did before it failed */
  }
  return QN_OK;
}

qn_status qn__contest_final(qn_contest *f, size_t first, size_t last, int64_t m, const char *incumbent,
                            const char *neighbour, const qn_racer **winner, qn_point *x) {
  meeting all = {.first = first, .last = last, .m = m, .incumbent = incumbent, .neighbour = neighbour};
  all.list = calloc(f->n + 1, sizeof *all.list);
  *winner = NULL;
  if (!all.list) return qn__fail(QN_E_NOMEM, "no memory for %zu finalists", f->n);
  qn_status s = bring_together(f, &all);
  const final *one = s == QN_OK ? decide(all.list, all.n, incumbent, neighbour) : NULL;
  if (one && (first == last || one->x.m == m)) *winner = one->c, *x = one->x;
  free(all.list);
  return s;
}

qn_status qn__contest_layouts(qn_contest *f, size_t i) {
  meeting all = {.first = i, .last = i, .m = f->m[i], .of_layouts = true};
  all.list = calloc(f->n + 1, sizeof *all.list);
  if (!all.list) return qn__fail(QN_E_NOMEM, "no memory for %zu finalists", f->n);
  qn_status s = bring_together(f, &all);
  for (qn_racer *c = f->racer; s == QN_OK && c < f->racer + f->n; c++)
    for (size_t k = 0; k < all.n; k++)
      if (all.list[k].c == c && all.list[k].x.seconds > 0) c->lap[i] = all.list[k].x, c->pace[i] = 1;
  free(all.list);
  return s;
}
