/* grouped.c - the experts of a stack on the host: one launch runs a step for all of them.
 *
 * A kernel of a stack computes the rows of one expert, as a kernel of one weight does for all rows, and is told where
 * they are (quernel.h, qn_function_args). The schedule sorts the rows and puts the experts that have some one behind
 * the other, as
 *
 *   expert        3          7     12
 *   work units    |..........|.....|...............|      threads share the units evenly, however uneven the experts
 *
 * A work item, a row to arrange or a panel of columns, takes as many units as it is work. */
#include "fail.h"
#include "recipe.h"
#include <string.h>

/* What reading a panel's weights costs, in rows of its product: between 6 and 7 with AVX-512, for int8 and bf16. */
enum { PANEL_ROWS = 6 };

/* One step for all experts. Expert i has the units first[i] .. first[i + 1] - 1, `item` of them to a work item. */
typedef struct experts_step {
  qn_host_entry entry;
  int64_t *first, *item;
} experts_step;

/* In the scratch, its lists behind it. Experts without rows are left out: `number` says which the others are. */
typedef struct schedule {
  qn_host_args args; /* of the call, but for what differs between experts */
  int64_t bytes;
  experts_step step[QN_RECIPE_STEPS];
  int32_t *number, *offsets, *rows;
} schedule;

/* Units of every step, then numbers, offsets and rows. */
int64_t qn__grouped_bytes(const qn_bound *b, int64_t m) {
  int64_t units = b->n_steps * (2 * b->experts + 1) * 8, lists = (2 * b->experts + 1 + m) * 4;
  return qn__workspace_bytes((int64_t)sizeof(schedule) + units + lists);
}

/* ---- Rows -------------------------------------------------------------------------------------------------------- */

static qn_status check_offsets(const qn_host_args *a) {
  for (int64_t e = 0, before = 0; e <= a->experts; before = a->offsets[e++])
    if (a->offsets[e] < before || a->offsets[e] > a->m)
      return qn__fail(QN_E_ARG, "offset %lld of rows is %d, allowed %lld .. m = %lld", (long long)e, a->offsets[e],
                      (long long)before, (long long)a->m);
  return a->offsets[0] ? qn__fail(QN_E_ARG, "offset 0 of rows is %d, allowed 0", a->offsets[0]) : QN_OK;
}

static qn_status check_ids(const qn_host_args *a) {
  for (int64_t r = 0; r < a->m; r++)
    if (a->ids[r] >= a->experts)
      return qn__fail(QN_E_ARG, "id %lld of rows is expert %d, the stack has %lld", (long long)r, a->ids[r],
                      (long long)a->experts);
  return QN_OK;
}

/* Sort the rows by ids, those of an expert in their order: offsets[e] .. offsets[e + 1] - 1 of `rows`. */
static void sort_rows(const qn_host_args *a, int32_t *offsets, int32_t *rows) {
  memset(offsets, 0, (size_t)(a->experts + 1) * sizeof *offsets);
  for (int64_t r = 0; r < a->m; r++)
    if (a->ids[r] >= 0) offsets[a->ids[r] + 1]++;
  for (int64_t e = 0; e < a->experts; e++) offsets[e + 1] += offsets[e];
  for (int64_t r = 0; r < a->m; r++)
    if (a->ids[r] >= 0) rows[offsets[a->ids[r]]++] = (int32_t)r;
  for (int64_t e = a->experts; e > 0; e--) offsets[e] = offsets[e - 1];
  offsets[0] = 0;
}

/* Leave out the experts without rows. Returns how many are left. */
static int64_t number_experts(const int32_t *all, int64_t experts, int32_t *number, int32_t *offsets) {
  int64_t n = 0;
  for (int64_t e = 0; e < experts; e++) {
    int32_t begin = all[e], end = all[e + 1];
    if (begin == end) continue;
    number[n] = (int32_t)e;
    offsets[n] = begin, offsets[++n] = end;
  }
  if (!n) offsets[0] = 0;
  return n;
}

/* ---- Running ----------------------------------------------------------------------------------------------------- */

/* The arguments of expert i of those that have rows. */
static qn_host_args args_of(const schedule *s, int64_t i) {
  qn_host_args a = s->args;
  int64_t e = s->number[i];
  a.expert = i;
  a.m = s->offsets[i + 1] - s->offsets[i];
  a.w = (const char *)a.w + e * s->bytes;
  if (a.perm) a.perm += e * a.k;
  if (a.bias) a.bias = (const float *)a.bias + e * a.n;
  if (a.scale) a.scale += e;
  return a;
}

/* The number of the expert that has a unit. */
static int64_t expert_at(const int64_t *first, int64_t n, int64_t unit) {
  int64_t lo = 0;
  for (int64_t hi = n; hi - lo > 1;) {
    int64_t mid = (lo + hi) / 2;
    if (first[mid] <= unit) lo = mid;
    else hi = mid;
  }
  return lo;
}

/* The work items that begin within the units begin .. end - 1. */
static void run_step(const qn_host_args *a, int number, int64_t begin, int64_t end, int32_t thread) {
  const schedule *s = a->scratch;
  const experts_step *step = &s->step[number];
  for (int64_t n = s->args.experts, i = expert_at(step->first, n, begin); i < n && step->first[i] < end; i++) {
    int64_t item = step->item[i], stop = step->first[i + 1] < end ? step->first[i + 1] : end;
    int64_t from = begin > step->first[i] ? (begin - step->first[i] + item - 1) / item : 0;
    int64_t to = (stop - step->first[i] + item - 1) / item;
    qn_host_args own = args_of(s, i);
    if (from < to) step->entry(&own, from, to, thread);
  }
}

static void run_first(const qn_host_args *a, int64_t begin, int64_t end, int32_t t) { run_step(a, 0, begin, end, t); }
static void run_second(const qn_host_args *a, int64_t begin, int64_t end, int32_t t) { run_step(a, 1, begin, end, t); }
static void run_third(const qn_host_args *a, int64_t begin, int64_t end, int32_t t) { run_step(a, 2, begin, end, t); }

/* ---- Making the schedule ----------------------------------------------------------------------------------------- */

/* Where the lists are. */
static schedule *place(const qn_bound *b, void *at) {
  schedule *s = at;
  int64_t *next = (int64_t *)(s + 1);
  for (uint32_t i = 0; i < b->n_steps; i++) {
    s->step[i].first = next, next += b->experts + 1;
    s->step[i].item = next, next += b->experts;
  }
  s->number = (int32_t *)next;
  s->offsets = s->number + b->experts;
  s->rows = s->offsets + b->experts + 1;
  return s;
}

/* Append the units of expert i. The last step is the product. */
static qn_status count_units(const qn_device *d, const qn_bound *b, schedule *s, int64_t i, qn_launch *l) {
  uint32_t n;
  int64_t m = s->offsets[i + 1] - s->offsets[i];
  QN_TRY(qn__bound_launches(d, b, m, false, l, &n));
  for (uint32_t j = 0; j < n; j++) {
    s->step[j].item[i] = j + 1 < n ? 1 : PANEL_ROWS + m;
    s->step[j].first[i + 1] = s->step[j].first[i] + l[j].grid[0] * s->step[j].item[i];
  }
  return QN_OK;
}

qn_status qn__grouped_launches(qn_device *d, const qn_bound *b, qn_host_args *a, qn_launch l[QN_RECIPE_STEPS],
                               uint32_t *n) {
  static const qn_host_entry run[] = {run_first, run_second, run_third};
  _Static_assert(QN_COUNT(run) == QN_RECIPE_STEPS, "one for each step");
  QN_TRY(a->ids ? check_ids(a) : check_offsets(a));
  schedule *s = place(b, a->scratch);
  s->args = *a, s->bytes = b->bytes;
  if (a->ids) sort_rows(a, s->offsets, s->rows), s->args.rows = s->rows;
  s->args.experts = number_experts(a->ids ? s->offsets : a->offsets, a->experts, s->number, s->offsets);
  s->args.offsets = s->offsets;
  s->args.scratch = (char *)a->scratch + qn__grouped_bytes(b, a->m);
  QN_TRY(qn__bound_launches(d, b, 1, false, l, n));
  for (uint32_t j = 0; j < *n; j++) {
    memcpy(&s->step[j].entry, &l[j].fn, sizeof s->step[j].entry);
    s->step[j].first[0] = 0;
  }
  for (int64_t i = 0; i < s->args.experts; i++) QN_TRY(count_units(d, b, s, i, l));
  for (uint32_t j = 0; j < *n; j++) {
    memcpy(&l[j].fn, &run[j], sizeof l[j].fn);
    l[j].grid[0] = s->step[j].first[s->args.experts];
  }
  *a = (qn_host_args){.scratch = s};
  return QN_OK;
}
