/* pack_code.c - the records of a pack, each described once for writing and reading alike, and their checks.
 *
 * A coder either appends what it is shown or fills it in; a function that names the fields of a struct in order is
 * therefore the documentation of the record, its writer and its reader. Counts are checked before what they count. */
#include "fail.h"
#include "pack_format.h"
#include "target.h"

/* ---- Elements ---------------------------------------------------------------------------------------------------- */

static void bytes(qn_coder *c, void *p, size_t n) {
  if (!c->error) c->bytes(c, p, n);
}

static void u32(qn_coder *c, uint32_t *v) {
  uint8_t b[4];
  qn__put32(b, *v);
  bytes(c, b, sizeof b);
  if (!c->error) *v = qn__get32(b);
}

static void u64(qn_coder *c, uint64_t *v) {
  uint8_t b[8];
  qn__put64(b, *v);
  bytes(c, b, sizeof b);
  if (!c->error) *v = qn__get64(b);
}

static void i64(qn_coder *c, int64_t *v) { u64(c, (uint64_t *)v); }

static void f64(qn_coder *c, double *v) {
  uint64_t u;
  memcpy(&u, v, sizeof u);
  u64(c, &u);
  memcpy(v, &u, sizeof u);
}

static void f32(qn_coder *c, float *v) {
  uint32_t u;
  memcpy(&u, v, sizeof u);
  u32(c, &u);
  memcpy(v, &u, sizeof u);
}

/* Narrower fields, kept as u32. */
static void u8(qn_coder *c, uint8_t *v) {
  uint32_t u = *v;
  u32(c, &u);
  if (u > UINT8_MAX && !c->error) c->error = "number beyond 255";
  *v = (uint8_t)u;
}

static void u16(qn_coder *c, uint16_t *v) {
  uint32_t u = *v;
  u32(c, &u);
  if (u > UINT16_MAX && !c->error) c->error = "number beyond 65535";
  *v = (uint16_t)u;
}

static void positive(qn_coder *c, int *v) {
  uint32_t u = (uint32_t)*v;
  u32(c, &u);
  if (u > INT32_MAX && !c->error) c->error = "number beyond 2^31";
  *v = (int)u;
}

/* A count of at most `limit`; 0 once anything went wrong, so that a loop over it ends. */
static uint32_t count(qn_coder *c, uint32_t *v, uint32_t limit) {
  u32(c, v);
  if (!c->error && *v > limit) c->error = "count beyond its limit";
  return c->error ? 0 : *v;
}

static void text(qn_coder *c, char *s, size_t room) {
  uint32_t n = (uint32_t)strnlen(s, room);
  u32(c, &n);
  if (!c->error && n >= room) c->error = "text too long";
  bytes(c, s, n);
  if (c->error) return;
  s[n] = 0;
  char printable[256]; /* no text is longer */
  memcpy(printable, s, n + 1);
  qn__printable(printable);
  if (strlen(s) != n || strcmp(printable, s) || strpbrk(s, "\n\t")) c->error = "text with a control character";
}

/* ---- Descriptors ------------------------------------------------------------------------------------------------- */

static void code_pool(qn_coder *c, qn_pool *p) {
  for (uint32_t i = 0, n = count(c, &p->n, QN_POOL_OPS); i < n; i++) {
    u32(c, &p->op[i].code);
    u32(c, &p->op[i].arg);
    f64(c, &p->op[i].value);
  }
}

static void code_expr(qn_coder *c, qn_expr *e) {
  u16(c, &e->at);
  u16(c, &e->n);
}

static void code_format(qn_coder *c, qn_format *f) {
  text(c, f->name, sizeof f->name);
  text(c, f->implied, sizeof f->implied);
  u32(c, &f->bits);
  u32(c, &f->codes);
  u32(c, &f->cast);
  for (uint32_t i = 0, n = count(c, &f->n_planes, QN_FORMAT_PLANES); i < n; i++) {
    qn_format_plane *p = &f->plane[i];
    text(c, p->name, sizeof p->name);
    u32(c, &p->type);
    u32(c, &p->max);
    u32(c, &p->rows);
    u32(c, &p->cols);
  }
  for (uint32_t i = 0, n = count(c, &f->n_tables, QN_COUNT(f->table)); i < n; i++)
    for (int j = 0; j < QN_FORMAT_TABLE; j++) f32(c, &f->table[i][j]);
  code_pool(c, &f->decode);
}

static void code_digits(qn_coder *c, uint32_t *n_digits, qn_digit *d, uint32_t limit) {
  for (uint32_t i = 0, n = count(c, n_digits, limit); i < n; i++) {
    u8(c, &d[i].axis);
    u32(c, &d[i].size);
    u32(c, &d[i].stride);
  }
}

static void code_section(qn_coder *c, qn_section *s) {
  code_digits(c, &s->n_outer, s->outer, QN_COUNT(s->outer));
  for (uint32_t i = 0, n = count(c, &s->n_fields, QN_LAYOUT_FIELDS); i < n; i++) {
    qn_field *f = &s->field[i];
    u32(c, &f->plane);
    u32(c, &f->type);
    u32(c, &f->lo);
    u32(c, &f->bits);
    code_digits(c, &f->n_digits, f->digit, QN_LAYOUT_DIGITS);
  }
}

static void code_layout(qn_coder *c, qn_layout *l) {
  text(c, l->name, sizeof l->name);
  text(c, l->hash, sizeof l->hash);
  u32(c, &l->tile_n);
  u32(c, &l->tile_k);
  u32(c, &l->pairs);
  u32(c, &l->pad_code);
  for (uint32_t i = 0, n = count(c, &l->n_sections, QN_LAYOUT_SECTIONS); i < n; i++) code_section(c, &l->section[i]);
}

static void code_map(qn_coder *c, qn_tensor_map *m) {
  u32(c, &m->operand);
  u32(c, &m->type);
  u32(c, &m->swizzle);
  for (uint32_t i = 0, n = count(c, &m->rank, QN_MAP_RANK); i < n; i++) {
    u32(c, &m->box[i]);
    code_expr(c, &m->dim[i]);
  }
}

static void code_step(qn_coder *c, qn_step *s) {
  text(c, s->entry, sizeof s->entry);
  for (uint32_t i = 0, n = count(c, &s->n_args, QN_RECIPE_ARGS); i < n; i++) u8(c, &s->arg[i]);
  for (int i = 0; i < 3; i++) code_expr(c, &s->grid[i]);
  for (int i = 0; i < 3; i++) code_expr(c, &s->block[i]);
  for (int i = 0; i < 3; i++) code_expr(c, &s->cluster[i]);
  code_expr(c, &s->shared);
  code_expr(c, &s->gathers);
  for (uint32_t i = 0, n = count(c, &s->n_maps, QN_STEP_MAPS); i < n; i++) code_map(c, &s->map[i]);
}

static void code_recipe(qn_coder *c, qn_recipe *r) {
  u32(c, &r->deterministic);
  u32(c, &r->batch_invariant);
  u32(c, &r->pdl);
  u32(c, &r->sum_bits);
  u32(c, &r->sum_depth);
  for (uint32_t i = 0, n = count(c, &r->n_steps, QN_RECIPE_STEPS); i < n; i++) code_step(c, &r->step[i]);
  code_expr(c, &r->counters);
  code_expr(c, &r->scratch);
  code_pool(c, &r->pool);
}

static void code_problem(qn_coder *c, qn_problem *p) {
  text(c, p->spelling, sizeof p->spelling);
  text(c, p->format, sizeof p->format);
  i64(c, &p->n);
  i64(c, &p->k);
  i64(c, &p->experts);
  u32(c, &p->act);
  u32(c, &p->out);
  u32(c, &p->x);
  for (int i = 0; i < QN_EPILOGUE_STEPS; i++) u8(c, &p->epilogue[i]);
}

/* ---- Records ----------------------------------------------------------------------------------------------------- */

void qn__code_device(qn_coder *c, qn_pack_device *d) {
  text(c, d->target, sizeof d->target);
  text(c, d->arch, sizeof d->arch);
  text(c, d->product, sizeof d->product);
  u32(c, &d->threads);
}

void qn__code_plan(qn_coder *c, qn_plan *p) {
  code_problem(c, &p->problem);
  u32(c, &p->kind);
  u32(c, &p->device);
  code_format(c, &p->format);
  code_layout(c, &p->layout);
  for (uint32_t i = 0, n = count(c, &p->n_ranges, QN_PLAN_RANGES); i < n; i++) {
    qn_range *r = &p->range[i];
    i64(c, &r->m_min);
    text(c, r->variant, sizeof r->variant);
    text(c, r->runner_up, sizeof r->runner_up);
    f64(c, &r->error);
  }
  for (uint32_t i = 0, n = count(c, &p->n_points, QN_PLAN_POINTS); i < n; i++) {
    qn_point *x = &p->point[i];
    i64(c, &x->m);
    f64(c, &x->seconds);
    f64(c, &x->spread);
    f64(c, &x->dense_seconds);
    f64(c, &x->bandwidth);
    u32(c, &x->marks);
  }
}

void qn__code_kernel(qn_coder *c, qn_kernel *k) {
  text(c, k->name, sizeof k->name);
  text(c, k->hash, sizeof k->hash);
  text(c, k->target, sizeof k->target);
  text(c, k->arch, sizeof k->arch);
  positive(c, &k->registers);
  positive(c, &k->shared);
  code_recipe(c, &k->recipe);
}

/* ---- Checks ------------------------------------------------------------------------------------------------------ */

static bool is_hash(const char *s) { return strspn(s, "0123456789abcdef") == 32 && !s[32]; }

static bool types_fit(const qn_problem *p) {
  bool rounds = qn__is_type(p->x) && qn__form[p->x].as_x == QN_AS_X_PLAIN && qn__act_scaled(p->act);
  return qn_type_bits((qn_type)p->act) && qn_type_bits((qn_type)p->out) && (!p->x || rounds);
}

static qn_status problem_check(const qn_problem *p, const char *format) {
  qn_problem again = *p;
  qn__problem_spell(&again);
  bool generic = !p->n && !p->k, shaped = p->n >= 1 && p->k >= 1 && p->n <= INT32_MAX && p->k <= INT32_MAX;
  bool stack = p->experts >= 0 && p->experts <= (generic ? 1 : QN_EXPERTS);
  if (strcmp(p->format, format) || strcmp(again.spelling, p->spelling) || !(generic || shaped) || !stack ||
      qn__epilogue_check(p) || !types_fit(p))
    return qn__fail(QN_E_FORMAT, "plan of '%s': not the problem that its fields make, '%s'", p->spelling,
                    again.spelling);
  return QN_OK;
}

qn_status qn__plan_check(const qn_plan *p) {
  QN_TRY(problem_check(&p->problem, p->format.name));
  QN_TRY(qn__format_check(&p->format));
  int64_t n = p->problem.n ? p->problem.n : p->layout.tile_n, k = p->problem.k ? p->problem.k : p->layout.tile_k;
  QN_TRY(qn__layout_check(&p->layout, &p->format, n, k));
  if (p->layout.pairs != qn__gated(&p->problem))
    return qn__fail(QN_E_FORMAT, "plan of '%s': its layout %s rows", p->problem.spelling,
                    p->layout.pairs ? "pairs" : "does not pair");
  if (p->kind >= QN_PLAN_KINDS || p->n_ranges < 1 || p->n_ranges > QN_PLAN_RANGES || p->n_points > QN_PLAN_POINTS)
    return qn__fail(QN_E_FORMAT, "plan of '%s': kind %u, %u ranges, %u points", p->problem.spelling, p->kind,
                    p->n_ranges, p->n_points);
  for (uint32_t i = 0; i < p->n_ranges; i++) {
    const qn_range *r = &p->range[i];
    if (i ? r->m_min <= p->range[i - 1].m_min : r->m_min != 1)
      return qn__fail(QN_E_FORMAT, "plan of '%s': range %u begins at M = %lld", p->problem.spelling, i,
                      (long long)r->m_min);
    if (!is_hash(r->variant) || (*r->runner_up && !is_hash(r->runner_up)))
      return qn__fail(QN_E_FORMAT, "plan of '%s': range %u names no variant", p->problem.spelling, i);
  }
  for (uint32_t i = 0; i < p->n_points; i++)
    if (p->point[i].m <= (i ? p->point[i - 1].m : 0) || p->point[i].marks > QN_MARKS)
      return qn__fail(QN_E_FORMAT, "plan of '%s': point %u is of M = %lld, marks %u", p->problem.spelling, i,
                      (long long)p->point[i].m, p->point[i].marks);
  return QN_OK;
}

qn_status qn__pack_device_check(const qn_pack_device *d) {
  return qn__target(d->target) ? QN_OK : qn__fail(QN_E_FORMAT, "device of target '%s', which is unknown", d->target);
}

qn_status qn__kernel_check(const qn_kernel *k) {
  if (!k->name[0] || !is_hash(k->hash)) return qn__fail(QN_E_FORMAT, "kernel '%s': hash '%s'", k->name, k->hash);
  if (!qn__target(k->target)) return qn__fail(QN_E_FORMAT, "kernel '%s': target '%s' unknown", k->name, k->target);
  if (!k->size && !qn__target(k->target)->host_code)
    return qn__fail(QN_E_FORMAT, "kernel '%s': no image, and no function either", k->name);
  return qn__recipe_check(&k->recipe);
}
