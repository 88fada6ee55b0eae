/* finals.c - the best eight of a layout and the incumbent meet, in interleaved rounds of random order.
 *
 * Whoever cannot be told from the fastest by the ratios of their rounds shares its place, and the place goes to the
 * incumbent, else to the winner of the neighbouring M, else to fewer resources, else to the smaller hash. Reasons:
 * design after FlashInfer's and Helion's accounts of unstable winners. */
#include "contest.h"
#include "data.h"
#include "fail.h"
#include "hash.h"
#include "json.h"
#include "stats.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { most = 8, most_rounds = 64 };
static const int rounds_of[] = {7, 15, 41}; /* quick, normal, full */
#define NEAR 1.15                           /* times the best lap: who is beyond is not invited */
#define TIE 0.01                            /* nearer than this is a tie whatever the interval says */
#define REPLACE 0.02                        /* an incumbent goes only for this much */

typedef struct final {
  const qn_racer *c;
  double t[most_rounds];
  double seconds, low; /* median; the least that its ratio to the fastest may be */
} final;

/* ---- Who takes part ---------------------------------------------------------------------------------------------- */

static bool is(const final *x, const char *hash) { return hash && !strcmp(x->c->e->c->hash, hash); }

static int by_seconds(const void *a, const void *b) {
  const final *x = a, *y = b;
  if (x->seconds != y->seconds) return x->seconds < y->seconds ? -1 : 1;
  return strcmp(x->c->e->c->hash, y->c->e->c->hash);
}

/* All that were timed at M number i, by their laps; then those that are not invited go. */
static size_t invite(const qn_contest *f, size_t i, const char *incumbent, final *list) {
  size_t n = 0, invited = 0;
  for (const qn_racer *c = f->racer; c < f->racer + f->n; c++)
    if (qn__contest_stands(f, c) && c->lap[i] > 0) list[n++] = (final){.c = c, .seconds = c->lap[i], .low = 2};
  if (n) qsort(list, n, sizeof *list, by_seconds);
  double limit = n ? NEAR * list[0].seconds : 0;
  for (size_t k = 0; k < n; k++)
    if ((invited < most && list[k].seconds <= limit) || is(&list[k], incumbent)) list[invited++] = list[k];
  return invited;
}

/* ---- The rounds -------------------------------------------------------------------------------------------------- */

static void finalist_key(const qn_contest *f, const final *x, int64_t m, char key[320]) {
  snprintf(key, 320, "finals %s %s M=%lld", f->p->problem.spelling, x->c->e->c->hash, (long long)m);
}

static qn_status ask(qn_contest *f, const char *op, const final *x, size_t slot, int64_t m, double *seconds) {
  cJSON *answer;
  char key[320];
  qn_ask a = {.op = op, .p = f->p, .e = x->c->e, .slot = (int)slot, .m = m, .reps = 1};
  finalist_key(f, x, m, key);
  qn__journal_at(&f->r->journal, key);
  qn_status s = qn__run_ask(f->r, &a, &answer);
  const cJSON *t = cJSON_GetArrayItem(qn__json_get(answer, "seconds"), 0);
  if (seconds && cJSON_IsNumber(t)) *seconds = t->valuedouble;
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
static qn_status hold(qn_contest *f, final *list, size_t n, int64_t m, int rounds, size_t *last) {
  uint64_t seed = 7;
  size_t order[most + 1];
  for (*last = 0; *last < n; ++*last) QN_TRY(ask(f, "open", &list[*last], *last, m, NULL));
  for (int round = 0; round < rounds; round++) {
    shuffle(order, n, &seed);
    for (size_t k = 0; k < n; k++) {
      *last = order[k];
      QN_TRY(ask(f, "time", &list[*last], *last, m, &list[*last].t[round]));
    }
  }
  for (*last = 0; *last < n; ++*last) QN_TRY(ask(f, "check", &list[*last], *last, m, NULL));
  return QN_OK;
}

/* Medians, and how near each is to the fastest. */
static void judge(final *list, size_t n, size_t rounds) {
  const final *best = list;
  double high;
  for (size_t k = 0; k < n; k++) {
    list[k].seconds = qn__median(list[k].t, rounds);
    if (list[k].seconds < best->seconds) best = &list[k];
  }
  for (size_t k = 0; k < n; k++) qn__ratio_interval(list[k].t, best->t, rounds, &list[k].low, &high);
}

/* The winner by the rule of the file's head. */
static const final *decide(const final *list, size_t n, const char *incumbent, const char *neighbour) {
  const final *best = list, *winner = NULL;
  for (const final *x = list; x < list + n; x++)
    if (x->seconds < best->seconds) best = x;
  for (const final *x = list; x < list + n; x++) {
    bool current = is(x, incumbent);
    if (x->low > 1 && x->seconds > best->seconds * (1 + (current ? REPLACE : TIE))) continue;
    int rank = current ? 2 : is(x, neighbour), other = !winner ? -1 : is(winner, incumbent) ? 2 : is(winner, neighbour);
    int64_t cost = winner ? x->c->e->c->cost - winner->c->e->c->cost : 0;
    if (rank != other ? rank > other : cost ? cost < 0 : strcmp(x->c->e->c->hash, winner->c->e->c->hash) < 0)
      winner = x;
  }
  return winner;
}

/* ---- Evidence: what each took; who wins follows from it ---------------------------------------------------------- */

static cJSON *to_json(const final *list, size_t n) {
  cJSON *j = cJSON_CreateObject(), *all = qn__json_add_array(j, "finalists");
  for (size_t k = 0; k < n; k++) {
    cJSON *x = cJSON_CreateObject();
    qn__json_add_text(x, "hash", list[k].c->e->c->hash);
    qn__json_add_text(x, "name", list[k].c->e->c->name);
    qn__json_add_number(x, "seconds", list[k].seconds);
    qn__json_add_number(x, "ratio", list[k].low);
    qn__json_append(all, x);
  }
  return j;
}

/* False: it does not tell of every one of them. */
static bool from_json(const cJSON *j, final *list, size_t n) {
  const cJSON *x;
  size_t told = 0;
  cJSON_ArrayForEach(x, qn__json_get(j, "finalists")) for (size_t k = 0; k < n; k++) {
    double seconds = qn__json_number(x, "seconds", 0), ratio = qn__json_number(x, "ratio", 0);
    if (!(seconds > 0 && ratio > 0) || !is(&list[k], qn__json_text(x, "hash", NULL))) continue;
    list[k].seconds = seconds;
    list[k].low = ratio;
    told++;
  }
  return told >= n;
}

/* The same question is asked of the same finalists in the same number of rounds. */
static void make_key(const qn_contest *f, const final *list, size_t n, int64_t m, int rounds, char key[400]) {
  char set[(most + 1) * 33] = "", hash[33];
  for (size_t k = 0; k < n; k++) strcat(set, list[k].c->e->c->hash);
  qn__hash_hex(set, strlen(set), hash);
  snprintf(key, 400, "finals %s M=%lld rounds=%d %s", f->p->problem.spelling, (long long)m, rounds, hash);
}

/* *failed: who was asked when it went wrong; NULL: it went well. */
static qn_status meet(qn_contest *f, final *list, size_t n, int64_t m, int rounds, const char *key,
                      const qn_racer **failed) {
  size_t last = 0;
  qn__journal_begin(&f->r->journal, key);
  qn_status s = hold(f, list, n, m, rounds, &last);
  qn__journal_end(&f->r->journal);
  *failed = s == QN_OK ? NULL : list[last].c;
  if (s != QN_OK) return f->r->supervisor.fault > QN_FAULT_RUN ? QN_OK : s;
  judge(list, n, (size_t)rounds);
  cJSON *j = to_json(list, n);
  from_json(j, list, n); /* to go by the same numbers as a run that finds them in the store */
  f->r->counts.timed++;
  qn__run_keep(f->r, "evidence", key, j);
  cJSON_Delete(j);
  return QN_OK;
}

/* Did earlier runs go down with one of them? Then it is out. */
static bool reject_suspects(const qn_contest *f, const final *list, size_t n, int64_t m) {
  char key[320];
  size_t before = f->r->counts.rejected;
  for (size_t k = 0; k < n; k++) {
    finalist_key(f, &list[k], m, key);
    if (qn__journal_suspicion(f->r->store, key) >= QN_SUSPECT) qn__run_reject(f->r, list[k].c->e, QN_SUSPECT_WHY);
  }
  return f->r->counts.rejected > before;
}

/* Among so many a failure may be another's doing: whoever failed is asked alone. If it is at fault the others meet
 * without it; if not they meet again, and after a second time their laps decide. */
static qn_status final_of(qn_contest *f, size_t i, const char *incumbent, const char *neighbour, final *list,
                          const final **winner) {
  qn_tuning *r = f->r;
  int rounds = rounds_of[r->options->effort < 0 || r->options->effort > 2 ? 0 : r->options->effort];
  char key[400], alone[320];
  size_t n;
  const qn_racer *failed = NULL;
  for (int attempts = 2; attempts; attempts -= failed && failed->e->alive) {
    do n = invite(f, i, incumbent, list);
    while (reject_suspects(f, list, n, f->m[i]));
    make_key(f, list, n, f->m[i], rounds, key);
    if (n) qn__run_show(r, "finals", f->p->problem.spelling, list[0].c->e->c->name, f->m[i], list[0].seconds, NULL);
    cJSON *evidence = qn__store_get(r->store, "evidence", key);
    bool known = n && from_json(evidence, list, n);
    r->counts.timed_known += known;
    cJSON_Delete(evidence);
    if (known || n < 2 || qn__run_late(r) || qn__journal_suspicion(r->store, key) >= QN_SUSPECT) break;
    QN_TRY(meet(f, list, n, f->m[i], rounds, key, &failed));
    if (!failed) break;
    qn__run_show(r, "note", NULL, failed->e->c->name, f->m[i], 0, qn__errmsg());
    finalist_key(f, &(final){.c = failed}, f->m[i], alone);
    QN_TRY(qn__contest_alone(f, failed, f->m[i], alone));
  }
  *winner = decide(list, n, incumbent, neighbour);
  return QN_OK;
}

qn_status qn__contest_final(qn_contest *f, size_t i, const char *incumbent, const char *neighbour,
                            const qn_racer **winner, double *seconds) {
  final *list = calloc(f->n + 1, sizeof *list);
  const final *first = NULL;
  if (!list) return qn__fail(QN_E_NOMEM, "no memory for %zu finalists", f->n);
  qn_status s = final_of(f, i, incumbent, neighbour, list, &first);
  *winner = first ? first->c : NULL;
  *seconds = first ? first->seconds : 0;
  free(list);
  return s;
}
