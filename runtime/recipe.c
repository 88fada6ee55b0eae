/* recipe.c - launch recipes: checked, bound to a problem, evaluated for M and run.
 *
 * Binding folds every program; mostly only grid[0] is left to compute per call. What a call computes is compared with
 * the limits of the device before the driver sees it. */
#include "recipe.h"
#include "fail.h"
#include <string.h>

static qn_status check_expr(const qn_recipe *r, qn_expr e) {
  if (e.at + e.n > r->pool.n)
    return qn__fail(QN_E_FORMAT, "expression of tokens %u .. %u, the recipe has %u", e.at, e.at + e.n, r->pool.n);
  return qn__expr_check(qn__program(&r->pool, e), QN_VAR_COUNT, 0, true);
}

static qn_status check_map(const qn_recipe *r, const qn_step *s, const qn_tensor_map *m) {
  int bytes = qn_type_bits((qn_type)m->type) / 8;
  bool swizzle = !m->swizzle || m->swizzle == 32 || m->swizzle == 64 || m->swizzle == 128;
  if (m->operand >= QN_POINTERS || !bytes || m->rank < 1 || m->rank > QN_MAP_RANK || !swizzle)
    return qn__fail(QN_E_FORMAT, "step '%s': tensor map of argument %u, type %u, rank %u, swizzle %u", s->entry,
                    m->operand, m->type, m->rank, m->swizzle);
  for (uint32_t i = 0; i < m->rank; i++) {
    if (m->box[i] < 1 || m->box[i] > 256 || !m->dim[i].n)
      return qn__fail(QN_E_FORMAT, "step '%s': tensor map of '%s': dimension %u of a box is %u, allowed 1 .. 256",
                      s->entry, qn__arg[m->operand].name, i, m->box[i]);
    QN_TRY(check_expr(r, m->dim[i]));
  }
  int64_t row = (int64_t)m->box[0] * bytes;
  if (row % 16 || (m->swizzle && row > m->swizzle))
    return qn__fail(QN_E_FORMAT,
                    "step '%s': tensor map of '%s': a row of a box has %lld bytes; wanted are multiples of 16%s",
                    s->entry, qn__arg[m->operand].name, (long long)row, m->swizzle ? " up to the swizzle" : "");
  return QN_OK;
}

static qn_status check_maps(const qn_recipe *r, const qn_step *s) {
  if (s->n_maps > QN_STEP_MAPS)
    return qn__fail(QN_E_FORMAT, "step '%s': %u tensor maps, limit %d", s->entry, s->n_maps, QN_STEP_MAPS);
  for (uint32_t i = 0; i < s->n_maps; i++) QN_TRY(check_map(r, s, &s->map[i]));
  return QN_OK;
}

qn_status qn__recipe_check(const qn_recipe *r) {
  if (r->pool.n > QN_POOL_OPS) return qn__fail(QN_E_FORMAT, "recipe of %u tokens, limit %d", r->pool.n, QN_POOL_OPS);
  if (r->n_steps < 1 || r->n_steps > QN_RECIPE_STEPS)
    return qn__fail(QN_E_FORMAT, "recipe of %u steps, limit %d", r->n_steps, QN_RECIPE_STEPS);
  uint32_t gathering = 0;
  for (uint32_t i = 0; i < r->n_steps; i++) {
    const qn_step *s = &r->step[i];
    if (!s->entry[0] || !memchr(s->entry, 0, sizeof s->entry)) return qn__fail(QN_E_FORMAT, "step %u has no entry", i);
    if (s->n_args > QN_RECIPE_ARGS)
      return qn__fail(QN_E_FORMAT, "step '%s': %u arguments, limit %d", s->entry, s->n_args, QN_RECIPE_ARGS);
    for (uint32_t j = 0; j < s->n_args; j++)
      if (s->arg[j] >= (qn__arg_kind(s->arg[j]) == QN_ARG_MAP ? QN_FIRST_MAP + s->n_maps : QN_ARG_COUNT))
        return qn__fail(QN_E_FORMAT, "step '%s': argument %u unknown", s->entry, s->arg[j]);
    for (int j = 0; j < 3; j++) {
      QN_TRY(check_expr(r, s->grid[j]));
      QN_TRY(check_expr(r, s->block[j]));
      QN_TRY(check_expr(r, s->cluster[j]));
    }
    QN_TRY(check_maps(r, s));
    QN_TRY(check_expr(r, s->shared));
    QN_TRY(check_expr(r, s->gathers));
    gathering += s->gathers.n > 0;
  }
  if (gathering > 1) return qn__fail(QN_E_FORMAT, "%u steps gather X, allowed is 1", gathering);
  if (r->step[r->n_steps - 1].gathers.n) return qn__fail(QN_E_FORMAT, "the last step gathers X, and nobody reads it");
  QN_TRY(check_expr(r, r->counters));
  return check_expr(r, r->scratch);
}

/* ---- Values of a launch, by number ------------------------------------------------------------------------------- */

static qn_expr *step_expr(qn_step *s, int i) {
  return i < QN_BLOCK     ? &s->grid[i]
         : i < QN_CLUSTER ? &s->block[i - QN_BLOCK]
         : i < QN_SHARED  ? &s->cluster[i - QN_CLUSTER]
         : i == QN_SHARED ? &s->shared
         : i < QN_DIM     ? &s->gathers
                          : &s->map[(i - QN_DIM) / QN_MAP_RANK].dim[(i - QN_DIM) % QN_MAP_RANK];
}

static int64_t *launch_value(qn_launch *l, uint32_t i) {
  return i < QN_BLOCK     ? &l->grid[i]
         : i < QN_CLUSTER ? &l->block[i - QN_BLOCK]
         : i < QN_SHARED  ? &l->cluster[i - QN_CLUSTER]
         : i == QN_SHARED ? &l->shared
         : i < QN_DIM     ? &l->gathers
                          : &l->dim[(i - QN_DIM) / QN_MAP_RANK][(i - QN_DIM) % QN_MAP_RANK];
}

#define MAX_WORKSPACE (INT64_C(1) << 62)

/* Fold an expression of `r` into a pool. */
static qn_status fold(const qn_recipe *r, const int64_t *var, qn_expr *e, qn_pool *pool) {
  return qn__expr_fold(qn__program(&r->pool, *e), var, 1u << QN_VAR_M, pool, e);
}

/* Values that turn out to be constant leave nothing in the pool. */
static qn_status bind_step(const qn_recipe *r, const int64_t *var, qn_step *s, qn_pool *pool, qn_bound_step *out) {
  for (int i = 0; i < QN_LAUNCH_VALUES; i++) {
    qn_expr *e = step_expr(s, i);
    int64_t value = i < QN_SHARED; /* what is missing is 1, bytes are 0 */
    QN_TRY(fold(r, var, e, pool));
    if (e->n == 1 && pool->op[e->at].code == QN_OP_CONST) value = (int64_t)pool->op[--pool->n].value, e->n = 0;
    else if (e->n) {
      out->dynamic[out->n_dynamic].value = (uint32_t)i;
      out->dynamic[out->n_dynamic++].program = *e;
    }
    *launch_value(&out->launch, (uint32_t)i) = value;
  }
  return QN_OK;
}

qn_status qn__recipe_bind(qn_device *d, const qn_recipe *r, void *const fn[QN_RECIPE_STEPS], const qn_problem *p,
                          int64_t bytes, qn_bound *out) {
  QN_TRY(qn__recipe_check(r));
  int64_t var[QN_VAR_COUNT];
  memcpy(var, d->info.var, sizeof var);
  var[QN_VAR_N] = p->n, var[QN_VAR_K] = p->k, var[QN_VAR_E] = p->experts;
  *out = (qn_bound){.n_steps = r->n_steps, .experts = p->experts, .bytes = bytes, .recipe = *r};
  out->schedules = p->experts && d->target->host_code;
  qn_pool *pool = &out->recipe.pool;
  *pool = (qn_pool){0};
  for (uint32_t i = 0; i < r->n_steps; i++) {
    qn_step *s = &out->recipe.step[i];
    out->step[i].launch = (qn_launch){.fn = fn[i], .step = s, .pdl = (int)r->pdl};
    QN_TRY(bind_step(r, var, s, pool, &out->step[i]));
    for (uint32_t j = 0; j < s->n_args; j++)
      if (qn__arg_kind(s->arg[j]) != QN_ARG_MAP) out->args |= 1u << s->arg[j];
    if (s->gathers.n) out->args |= 1u << QN_ARG_PERM;
  }
  QN_TRY(fold(r, var, &out->recipe.counters, pool));
  return fold(r, var, &out->recipe.scratch, pool);
}

static qn_status greatest(qn_program e, const char *what, int64_t least, int64_t most, int64_t *bytes) {
  const int64_t lo[QN_VAR_COUNT] = {[QN_VAR_M] = least}, hi[QN_VAR_COUNT] = {[QN_VAR_M] = most};
  int64_t fewest;
  QN_TRY(qn__expr_bounds(e, lo, hi, &fewest, bytes));
  return *bytes >= 0 && *bytes <= MAX_WORKSPACE ? QN_OK
                                                : qn__fail(QN_E_LIMIT, "%s of %lld bytes", what, (long long)*bytes);
}

/* Gathered X comes first, then what the recipe says. */
qn_status qn__bound_workspace(const qn_bound *b, int64_t least, int64_t most, bool permuted, qn_workspace *out) {
  const qn_recipe *r = &b->recipe;
  QN_TRY(greatest(qn__program(&r->pool, r->counters), "counters", least, most, &out->counters));
  QN_TRY(greatest(qn__program(&r->pool, r->scratch), "scratch", least, most, &out->scratch));
  for (uint32_t i = 0; permuted && i < b->n_steps; i++) {
    int64_t bytes = b->step[i].launch.gathers;
    if (r->step[i].gathers.n) QN_TRY(greatest(qn__program(&r->pool, r->step[i].gathers), "X", least, most, &bytes));
    out->scratch += qn__workspace_bytes(bytes);
  }
  if (b->schedules) out->scratch += qn__grouped_bytes(b, most);
  return QN_OK;
}

/* ---- Limits and launching ---------------------------------------------------------------------------------------- */

static qn_status launch_check(const qn_device *d, qn_launch *l) {
  for (const qn_launch_limit *x = d->target->limit; x->what; x++) {
    int64_t v = 1, least = x->first != QN_SHARED, most = x->most ? x->most : d->info.smem ? d->info.smem : INT32_MAX;
    for (int i = 0; i < x->n; i++) v *= *launch_value(l, (uint32_t)(x->first + i));
    if (v < least || v > most)
      return qn__fail(QN_E_LIMIT, "'%s' on %s: %s is %lld, allowed %lld .. %lld", l->step->entry, d->info.name, x->what,
                      (long long)v, (long long)least, (long long)most);
  }
  return QN_OK;
}

/* Does a step that gathers X nothing else? Such a one has no W to read. */
static bool gathers_only(const qn_step *s) { return !memchr(s->arg, QN_ARG_W, s->n_args); }

qn_status qn__bound_launches(const qn_device *d, const qn_bound *b, int64_t m, bool permuted,
                             qn_launch l[QN_RECIPE_STEPS], uint32_t *n) {
  const int64_t var[QN_VAR_COUNT] = {[QN_VAR_M] = m};
  *n = 0;
  for (const qn_bound_step *s = b->step; s < b->step + b->n_steps; s++) {
    bool gathers = s->launch.gathers || s->launch.step->gathers.n;
    if (gathers && !permuted && gathers_only(s->launch.step)) continue;
    qn_launch *to = &l[(*n)++];
    *to = s->launch;
    for (uint32_t j = 0; j < s->n_dynamic; j++)
      QN_TRY(qn__expr_i64(qn__program(&b->recipe.pool, s->dynamic[j].program), var,
                          launch_value(to, s->dynamic[j].value)));
    QN_TRY(launch_check(d, to));
  }
  return QN_OK;
}

qn_status qn__call_launches(qn_device *d, const qn_bound *b, qn_host_args *a, qn_launch l[QN_RECIPE_STEPS],
                            uint32_t *n) {
  if (b->schedules) return qn__grouped_launches(d, b, a, l, n);
  QN_TRY(qn__bound_launches(d, b, a->m, a->perm != NULL, l, n));
  for (uint32_t i = 0; a->perm && i < *n; i++)
    if (l[i].gathers) a->scratch = (char *)a->scratch + qn__workspace_bytes(l[i].gathers);
  return QN_OK;
}

/* Gathered X lies right before the scratch of the steps. Of a stack it has a row for each of Y. */
void qn__launch_args(const qn_launch *l, qn_host_args *a, qn_host_args *out) {
  *out = *a;
  if (!l->gathers || !a->perm) return;
  a->x = out->y = (char *)a->scratch - qn__workspace_bytes(l->gathers);
  a->ldx = a->k, a->perm = NULL;
  if (a->experts) a->topk = 1;
}

qn_status qn__launch_all(qn_device *d, const qn_launch *l, uint32_t n, qn_host_args a, void *stream) {
  qn_host_args now;
  for (; n--; l++) {
    qn__launch_args(l, &a, &now);
    QN_TRY(d->ops->launch(d, l, &now, stream));
  }
  return QN_OK;
}

qn_status qn__bound_run(qn_device *d, const qn_bound *b, const qn_host_args *a, void *stream) {
  qn_launch l[QN_RECIPE_STEPS];
  uint32_t n;
  qn_host_args with = *a;
  QN_TRY(qn__call_launches(d, b, &with, l, &n));
  return qn__launch_all(d, l, n, with, stream);
}
