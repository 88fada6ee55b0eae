/* forward.c - one layer, of whatever architecture: what the config says, in the order of its formula.
 *
 * A layer is computed in chunks, whole windows in the mixer and rows in the mlp, so that intermediate results stay
 * small. Every linear layer goes through `project`, which tells the hook of its input. */
#include "dense.h"
#include "fail.h"
#include "state.h"
#include <string.h>

#define ENDED ((qn_status)102) /* the hook has seen enough */

enum { chunk_rows = 1024 };

/* Columns of a matrix with rows of its own. */
typedef struct view {
  float *p; /* NULL: the model has no such parameter */
  int64_t ld;
} view;

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Whatever a layer leaves behind is a bf16 where the executor is one. */
static void settle(const qn__pass *p, view x, int64_t rows, int64_t n) {
  if (p->d->linears.bf16) qn__round_rows(p->d->pool, &(qn__round){x.p, x.ld, rows, n});
}

/* ---- Linear layers ----------------------------------------------------------------------------------------------- */

/* Rows of x . w^T of the parameter at `link`, `whole` being all that its site gives. */
static void gather_columns(qn__decoder *d, const qn__link *link, view whole, int64_t rows, const view *out) {
  qn__gather_rows(d->pool, &(qn__gather){.x = whole.p,
                                         .bias = link->bias,
                                         .y = out->p,
                                         .ldx = whole.ld,
                                         .ldy = out->ld,
                                         .rows = rows,
                                         .n = link->n,
                                         .first = link->first,
                                         .run = link->run,
                                         .step = link->step});
}

static qn_status take_columns(qn__decoder *d, const qn__link *link, view whole, int64_t rows, view *out) {
  *out = (view){whole.p + link->first, whole.ld};
  if (link->run >= link->n && !link->bias) return QN_OK;
  out->ld = link->n;
  QN_TRY(qn__scratch_take(&d->scratch, rows * link->n, &out->p));
  gather_columns(d, link, whole, rows, out);
  return QN_OK;
}

/* Products of x [rows, k] with parameters that share this input; out has no `p` for those that the model lacks. */
static qn_status project(const qn__pass *p, const float *x, int64_t rows, int64_t expert, const qn__param *what, int n,
                         view *out) {
  enum { most = 8 };
  qn__decoder *d = p->d;
  view whole[most] = {0};
  int site[most], first = -1;
  for (int i = 0; i < n; i++) {
    const qn__link *link = qn__decoder_link(d, what[i], p->layer, expert);
    out[i] = (view){0};
    site[i] = link->site;
    if (link->site < 0) continue;
    if (first < 0 && p->hook && !p->hook->input(p->hook->ud, d->site[link->site].input, x, rows)) return ENDED;
    if (first < 0) first = i;
    for (int j = first; j < i; j++)
      if (site[j] == site[i]) whole[i] = whole[j];
    if (!whole[i].p) {
      whole[i].ld = d->site[link->site].n;
      QN_TRY(qn__scratch_take(&d->scratch, rows * whole[i].ld, &whole[i].p));
      QN_TRY(qn__linear_run(&d->linears, link->site, x, rows, whole[i].p));
    }
    QN_TRY(take_columns(d, link, whole[i], rows, &out[i]));
    settle(p, out[i], rows, link->n);
  }
  return QN_OK;
}

static qn_status project_one(const qn__pass *p, view x, int64_t rows, int64_t expert, qn__param what, view *out) {
  return project(p, x.p, rows, expert, &what, 1, out);
}

/* ---- Norms ------------------------------------------------------------------------------------------------------- */

/* y = norm(x) for `groups` parts of each row. */
static qn_status norm(const qn__pass *p, qn__param what, view x, int64_t rows, int64_t groups, int64_t n, view y) {
  const float *weight;
  QN_TRY(qn__decoder_vector(p->d, what, p->layer, &weight));
  qn__norm_rows(p->d->pool, &(qn__norm){.x = x.p,
                                        .weight = weight,
                                        .y = y.p,
                                        .ldx = x.ld,
                                        .ldy = y.ld,
                                        .rows = rows,
                                        .groups = groups,
                                        .n = n,
                                        .eps = p->d->config->eps});
  settle(p, y, rows, groups * n);
  return QN_OK;
}

/* What a mixer or mlp reads: x or its norm. */
static qn_status enter(const qn__pass *p, qn__param what, view x, int64_t rows, view *out) {
  const qn__config *c = p->d->config;
  *out = x;
  if (!c->norm_in) return QN_OK;
  QN_TRY(qn__scratch_take(&p->d->scratch, rows * c->hidden, &out->p));
  return norm(p, what, x, rows, 1, c->hidden, *out);
}

/* x += what a mixer or mlp gave, or its norm. */
static qn_status leave(const qn__pass *p, qn__param what, view y, int64_t rows, view x) {
  const qn__config *c = p->d->config;
  if (c->norm_out) QN_TRY(norm(p, what, y, rows, 1, c->hidden, y));
  qn__sum_rows(
      p->d->pool,
      &(qn__sum){
          .x = x.p, .y = y.p, .ldx = x.ld, .ldy = y.ld, .rows = rows, .n = c->hidden, .scale = c->residual_scale});
  settle(p, x, rows, c->hidden);
  return QN_OK;
}

/* ---- Attention --------------------------------------------------------------------------------------------------- */

/* q or k, normalized and turned. */
static qn_status place(const qn__pass *p, qn__param what, view x, int64_t heads) {
  qn__decoder *d = p->d;
  const qn__config *c = d->config;
  const qn__layer_config *l = &c->layer[p->layer];
  const int64_t rows = p->windows * p->length;
  const float *table;
  if (c->qk_norm == QN_QK_HEAD) QN_TRY(norm(p, what, x, rows, heads, c->head_dim, x));
  if (c->qk_norm == QN_QK_ALL) QN_TRY(norm(p, what, x, rows, 1, heads * c->head_dim, x));
  if (l->rope < 0) return QN_OK;
  QN_TRY(qn__decoder_angles(d, l->rope, p->context, &table));
  qn__rotate_rows(d->pool, &(qn__rotate){.x = x.p,
                                         .table = table,
                                         .ldx = x.ld,
                                         .rows = rows,
                                         .length = p->length,
                                         .past = p->past,
                                         .heads = heads,
                                         .dim = c->head_dim,
                                         .pairs = c->rope[l->rope].pairs,
                                         .adjacent = c->pairs});
  settle(p, x, rows, heads * c->head_dim);
  return QN_OK;
}

static qn_status attend(const qn__pass *p, view q, view k, view v, view out) {
  qn__decoder *d = p->d;
  const qn__config *c = d->config;
  const qn__layer_config *l = &c->layer[p->layer];
  const qn__cache *cache = &p->memory->cache;
  const float *sinks = NULL;
  float *scratch;
  if (c->sinks) QN_TRY(qn__decoder_vector(d, QN_P_SINKS, p->layer, &sinks));
  QN_TRY(qn__scratch_take(&d->scratch, d->threads * qn__attention_scratch(cache), &scratch));
  qn__append_rows(
      d->pool,
      &(qn__append){.cache = cache, .k = k.p, .v = v.p, .ldk = k.ld, .ldv = v.ld, .n = p->length, .past = p->past});
  qn__attend(d->pool, &(qn__attention){.cache = cache,
                                       .q = q.p,
                                       .sinks = sinks,
                                       .out = out.p,
                                       .ldq = q.ld,
                                       .ldout = out.ld,
                                       .n = p->length,
                                       .past = p->past,
                                       .heads = l->heads,
                                       .window = l->window,
                                       .scale = c->attention_scale,
                                       .cap = c->attention_softcap,
                                       .scratch = scratch});
  return QN_OK;
}

static qn_status attention(const qn__pass *p, view h, view *out) {
  static const qn__param inputs[] = {QN_P_Q, QN_P_K, QN_P_V, QN_P_Q_GATE};
  const qn__config *c = p->d->config;
  const qn__layer_config *l = &c->layer[p->layer];
  const int64_t rows = p->windows * p->length, n = (int64_t)l->heads * c->head_dim;
  view in[QN_COUNT(inputs)], o = {.ld = n};
  QN_TRY(project(p, h.p, rows, 0, inputs, QN_COUNT(inputs), in));
  QN_TRY(place(p, QN_P_NORM_Q, in[0], l->heads));
  QN_TRY(place(p, QN_P_NORM_K, in[1], l->kv_heads));
  QN_TRY(qn__scratch_take(&p->d->scratch, rows * n, &o.p));
  QN_TRY(attend(p, in[0], in[1], in[2], o));
  if (c->gated)
    qn__gate_rows(p->d->pool,
                  &(qn__gate){.x = o.p, .gate = in[3].p, .ldx = n, .ldgate = in[3].ld, .rows = rows, .n = n});
  settle(p, o, rows, n);
  return project_one(p, o, rows, 0, QN_P_O, out);
}

/* ---- Gated delta net --------------------------------------------------------------------------------------------- */

/* The convolution over q, k and v, whose channels follow one another in it. */
static qn_status convolve(const qn__pass *p, view x[3], const int64_t n[3]) {
  const int64_t taps = p->d->config->delta.conv, channels = n[0] + n[1] + n[2];
  const float *weight;
  QN_TRY(qn__decoder_vector(p->d, QN_P_DELTA_CONV, p->layer, &weight));
  for (int64_t i = 0, at = 0; i < 3; at += n[i++]) {
    view y = {.ld = n[i]};
    QN_TRY(qn__scratch_take(&p->d->scratch, p->windows * p->length * n[i], &y.p));
    qn__conv_rows(p->d->pool, &(qn__conv){.x = x[i].p,
                                          .weight = weight + at * taps,
                                          .y = y.p,
                                          .history = p->memory->conv + at,
                                          .ldx = x[i].ld,
                                          .ldy = y.ld,
                                          .ldhistory = channels,
                                          .windows = p->windows,
                                          .length = p->length,
                                          .n = n[i],
                                          .taps = taps});
    x[i] = y;
  }
  return QN_OK;
}

static qn_status delta(const qn__pass *p, view h, view *out) {
  static const qn__param inputs[] = {QN_P_DELTA_Q, QN_P_DELTA_K, QN_P_DELTA_V,
                                     QN_P_DELTA_Z, QN_P_DELTA_A, QN_P_DELTA_B};
  const qn__delta_config *c = &p->d->config->delta;
  const int64_t rows = p->windows * p->length, keys = (int64_t)c->key_heads * c->key_dim;
  const int64_t values = (int64_t)c->value_heads * c->value_dim;
  view in[QN_COUNT(inputs)], o = {.ld = values};
  const float *decay, *dt;
  QN_TRY(project(p, h.p, rows, 0, inputs, QN_COUNT(inputs), in));
  QN_TRY(convolve(p, in, (const int64_t[]){keys, keys, values}));
  QN_TRY(qn__decoder_vector(p->d, QN_P_DELTA_DECAY, p->layer, &decay));
  QN_TRY(qn__decoder_vector(p->d, QN_P_DELTA_DT, p->layer, &dt));
  QN_TRY(qn__scratch_take(&p->d->scratch, rows * values, &o.p));
  qn__delta_rows(p->d->pool, &(qn__delta){.config = c,
                                          .q = in[0].p,
                                          .k = in[1].p,
                                          .v = in[2].p,
                                          .a = in[4].p,
                                          .b = in[5].p,
                                          .decay = decay,
                                          .dt = dt,
                                          .state = p->memory->state,
                                          .out = o.p,
                                          .ldq = in[0].ld,
                                          .ldk = in[1].ld,
                                          .ldv = in[2].ld,
                                          .lda = in[4].ld,
                                          .ldb = in[5].ld,
                                          .ldout = values,
                                          .windows = p->windows,
                                          .length = p->length});
  QN_TRY(norm(p, QN_P_DELTA_NORM, o, rows, c->value_heads, c->value_dim, o));
  qn__glu_rows(p->d->pool, &(qn__glu){.gate = in[3].p,
                                      .up = o.p,
                                      .y = o.p,
                                      .ldgate = in[3].ld,
                                      .ldup = values,
                                      .ldy = values,
                                      .rows = rows,
                                      .n = values,
                                      .activation = QN_ACT_SILU});
  settle(p, o, rows, values);
  return project_one(p, o, rows, 0, QN_P_DELTA_O, out);
}

/* ---- Mixers ------------------------------------------------------------------------------------------------------ */

/* The memory of windows that begin in this pass and are forgotten after it. */
static qn_status new_memory(const qn__pass *p, int64_t windows, qn__memory *m) {
  float *data;
  int64_t n = qn__memory_init(m, p->d->config, p->layer, windows, p->length, NULL);
  QN_TRY(qn__scratch_take(&p->d->scratch, n, &data));
  memset(data, 0, (size_t)n * sizeof *data);
  qn__memory_init(m, p->d->config, p->layer, windows, p->length, data);
  return QN_OK;
}

static qn_status mix(const qn__pass *whole, int64_t first, int64_t windows, view x) {
  qn__pass p = *whole;
  qn__memory memory;
  view h, y;
  const int64_t rows = windows * p.length;
  if (p.memory) memory = qn__memory_from(p.memory, p.d->config, first, windows);
  else QN_TRY(new_memory(&p, windows, &memory));
  p.windows = windows;
  p.memory = &memory;
  QN_TRY(enter(&p, QN_P_NORM_ATTENTION_IN, x, rows, &h));
  QN_TRY((p.d->config->layer[p.layer].mixer == QN_MIXER_DELTA ? delta : attention)(&p, h, &y));
  return leave(&p, QN_P_NORM_ATTENTION_OUT, y, rows, x);
}

/* ---- Mlp --------------------------------------------------------------------------------------------------------- */

/* activation(gate) * up of what gate and up gave. */
static qn_status glu(const qn__pass *p, const view gate_up[2], int64_t rows, int64_t n, view *h) {
  h->ld = n;
  QN_TRY(qn__scratch_take(&p->d->scratch, rows * n, &h->p));
  qn__glu_rows(p->d->pool, &(qn__glu){.gate = gate_up[0].p,
                                      .up = gate_up[1].p,
                                      .y = h->p,
                                      .ldgate = gate_up[0].ld,
                                      .ldup = gate_up[1].ld,
                                      .ldy = n,
                                      .rows = rows,
                                      .n = n,
                                      .activation = p->d->config->activation,
                                      .limit = p->d->config->limit});
  settle(p, *h, rows, n);
  return QN_OK;
}

/* down(activation(gate) * up). */
static qn_status finish_mlp(const qn__pass *p, const view gate_up[2], int64_t rows, int64_t n, int64_t expert,
                            qn__param down, view *out) {
  view h;
  QN_TRY(glu(p, gate_up, rows, n, &h));
  return project_one(p, h, rows, expert, down, out);
}

/* ---- Experts ----------------------------------------------------------------------------------------------------- */

/* Choices of the router by expert: rows offsets[e] .. offsets[e + 1] - 1 are those of expert e, number at[row] of the
 * router's. `site` has room for a number of each expert. */
typedef struct sorted {
  int64_t experts, n;
  int32_t *at, *offsets;
  int *site;
} sorted;

static qn_status sort_choices(const qn__pass *p, const qn__route *route, sorted *s) {
  float *room;
  *s = (sorted){.experts = p->d->config->experts.n, .n = route->rows * route->used};
  QN_TRY(qn__scratch_take(&p->d->scratch, s->n + 2 * s->experts + 1, &room));
  s->at = (int32_t *)(void *)room;
  s->offsets = s->at + s->n;
  s->site = s->offsets + s->experts + 1;
  int64_t n = 0;
  for (int64_t e = 0; e < s->experts; e++) {
    s->offsets[e] = (int32_t)n;
    for (int64_t i = 0; i < s->n; i++)
      if (route->expert[i] == e) s->at[n++] = (int32_t)i;
  }
  s->offsets[s->experts] = (int32_t)n;
  return QN_OK;
}

/* x: the rows of h that choices at[n] of the router are of. */
static qn_status take_rows(const qn__pass *p, view h, const int32_t *at, int64_t n, const qn__route *route, float **x) {
  const int64_t hidden = p->d->config->hidden;
  QN_TRY(qn__scratch_take(&p->d->scratch, n * hidden, x));
  for (int64_t i = 0; i < n; i++)
    memcpy(*x + i * hidden, h.p + at[i] / route->used * h.ld, (size_t)hidden * sizeof **x);
  return QN_OK;
}

/* y += weight * out, for the rows of y that these choices are of. */
static void add_rows(const qn__pass *p, view out, const int32_t *at, int64_t n, const qn__route *route, view y) {
  for (int64_t i = 0; i < n; i++)
    qn__sum_rows(p->d->pool, &(qn__sum){.x = y.p + at[i] / route->used * y.ld,
                                        .y = out.p + i * out.ld,
                                        .rows = 1,
                                        .n = p->d->config->hidden,
                                        .scale = route->weight[at[i]]});
}

/* y += weight * expert(h) for the tokens that were routed to it. */
static qn_status expert(const qn__pass *p, const sorted *s, int64_t e, view h, const qn__route *route, view y) {
  static const qn__param inputs[] = {QN_P_EXPERT_GATE, QN_P_EXPERT_UP};
  const qn__config *c = p->d->config;
  const int32_t *at = s->at + s->offsets[e];
  const int64_t n = s->offsets[e + 1] - s->offsets[e];
  float *x;
  view in[QN_COUNT(inputs)], out;
  if (!n) return QN_OK;
  QN_TRY(take_rows(p, h, at, n, route, &x));
  QN_TRY(project(p, x, n, e, inputs, QN_COUNT(inputs), in));
  QN_TRY(finish_mlp(p, in, n, c->experts.mlp, e, QN_P_EXPERT_DOWN, &out));
  add_rows(p, out, at, n, route, y);
  return QN_OK;
}

static void sites_of(const qn__pass *p, const sorted *s, qn__param what) {
  for (int64_t e = 0; e < s->experts; e++) s->site[e] = qn__decoder_link(p->d, what, p->layer, e)->site;
}

/* Does a stack serve each of the experts' products, and nobody wants to know of inputs? */
static bool at_once(const qn__pass *p, const sorted *s) {
  for (qn__param what = QN_P_EXPERT_GATE; what <= QN_P_EXPERT_DOWN; what++) {
    sites_of(p, s, what);
    if (p->hook || !qn__linear_is_stack(&p->d->linears, s->site, s->experts)) return false;
  }
  return true;
}

/* As `project`, for all experts: x has the rows of s. */
static qn_status project_experts(const qn__pass *p, const float *x, const sorted *s, qn__param what, view *whole,
                                 view *out) {
  qn__decoder *d = p->d;
  const qn__link *link = qn__decoder_link(d, what, p->layer, 0);
  if (!whole->p) {
    sites_of(p, s, what);
    whole->ld = d->site[link->site].n;
    QN_TRY(qn__scratch_take(&d->scratch, s->n * whole->ld, &whole->p));
    QN_TRY(qn__linear_run_stack(&d->linears, s->site, x, s->offsets, whole->p));
  }
  out->ld = link->n;
  QN_TRY(qn__scratch_take(&d->scratch, s->n * link->n, &out->p));
  for (int64_t e = 0; e < s->experts; e++) {
    int64_t first = s->offsets[e], rows = s->offsets[e + 1] - first;
    view part = {whole->p + first * whole->ld, whole->ld}, to = {out->p + first * out->ld, out->ld};
    if (rows) gather_columns(d, qn__decoder_link(d, what, p->layer, e), part, rows, &to);
  }
  settle(p, *out, s->n, link->n);
  return QN_OK;
}

/* The same for all experts as for one after the other, by three products in all. */
static qn_status all_experts(const qn__pass *p, const sorted *s, view h, const qn__route *route, view y) {
  const qn__config *c = p->d->config;
  const bool fused = qn__decoder_link(p->d, QN_P_EXPERT_GATE, p->layer, 0)->site ==
                     qn__decoder_link(p->d, QN_P_EXPERT_UP, p->layer, 0)->site;
  view whole[3] = {{0}}, in[2], inner, out;
  float *x;
  QN_TRY(take_rows(p, h, s->at, s->n, route, &x));
  QN_TRY(project_experts(p, x, s, QN_P_EXPERT_GATE, &whole[0], &in[0]));
  if (fused) whole[1] = whole[0];
  QN_TRY(project_experts(p, x, s, QN_P_EXPERT_UP, &whole[1], &in[1]));
  QN_TRY(glu(p, in, s->n, c->experts.mlp, &inner));
  QN_TRY(project_experts(p, inner.p, s, QN_P_EXPERT_DOWN, &whole[2], &out));
  add_rows(p, out, s->at, s->n, route, y);
  return QN_OK;
}

/* y += sigmoid(h . router) * shared expert(h), without a router just the expert. */
static qn_status shared_expert(const qn__pass *p, view h, const view gate_up[2], int64_t rows, view y) {
  const qn__config *c = p->d->config;
  view out, gate = {.ld = 1};
  const float *router;
  QN_TRY(finish_mlp(p, gate_up, rows, c->experts.shared, 0, QN_P_SHARED_DOWN, &out));
  if (qn__params_find(p->d->params, QN_P_SHARED_ROUTER, p->layer, 0)) {
    QN_TRY(qn__decoder_vector(p->d, QN_P_SHARED_ROUTER, p->layer, &router));
    QN_TRY(qn__scratch_take(&p->d->scratch, rows, &gate.p));
    qn__dense(p->d->pool, h.p, h.ld, router, rows, 1, c->hidden, gate.p, 1);
    qn__gate_rows(p->d->pool, &(qn__gate){out.p, gate.p, out.ld, gate.ld, rows, c->hidden, .one = true});
  }
  qn__sum_rows(p->d->pool, &(qn__sum){y.p, out.p, y.ld, out.ld, rows, c->hidden, 1});
  return QN_OK;
}

/* Experts in their order, so that sums do not depend on anything else. */
static qn_status experts(const qn__pass *p, view h, int64_t rows, view *y) {
  static const qn__param inputs[] = {QN_P_ROUTER, QN_P_SHARED_GATE, QN_P_SHARED_UP};
  const qn__config *c = p->d->config;
  qn__scratch *scratch = &p->d->scratch;
  view in[QN_COUNT(inputs)];
  float *chosen;
  sorted choices;
  qn__route route = {.rows = rows, .n = c->experts.n, .used = c->experts.used, .normalize = c->experts.normalize};
  QN_TRY(project(p, h.p, rows, 0, inputs, QN_COUNT(inputs), in));
  QN_TRY(qn__scratch_take(scratch, rows * route.used, &chosen));
  QN_TRY(qn__scratch_take(scratch, rows * route.used, &route.weight));
  route.expert = (int32_t *)(void *)chosen;
  route.logits = in[0].p;
  route.ld = in[0].ld;
  qn__route_rows(p->d->pool, &route);
  y->ld = c->hidden;
  QN_TRY(qn__scratch_take(scratch, rows * c->hidden, &y->p));
  memset(y->p, 0, (size_t)(rows * c->hidden) * sizeof *y->p);
  QN_TRY(sort_choices(p, &route, &choices));
  if (at_once(p, &choices)) QN_TRY(all_experts(p, &choices, h, &route, *y));
  else
    for (int64_t e = 0; e < c->experts.n; e++) {
      qn__scratch_mark mark = qn__scratch_here(scratch);
      QN_TRY(expert(p, &choices, e, h, &route, *y));
      qn__scratch_back(scratch, mark);
    }
  return c->experts.shared ? shared_expert(p, h, in + 1, rows, *y) : QN_OK;
}

static qn_status mlp(const qn__pass *p, view x, int64_t rows) {
  static const qn__param inputs[] = {QN_P_GATE, QN_P_UP};
  const int64_t n = p->d->config->layer[p->layer].mlp;
  view h, in[QN_COUNT(inputs)], y;
  QN_TRY(enter(p, QN_P_NORM_MLP_IN, x, rows, &h));
  if (n) {
    QN_TRY(project(p, h.p, rows, 0, inputs, QN_COUNT(inputs), in));
    QN_TRY(finish_mlp(p, in, rows, n, 0, QN_P_DOWN, &y));
  } else QN_TRY(experts(p, h, rows, &y));
  return leave(p, QN_P_NORM_MLP_OUT, y, rows, x);
}

/* ---- A layer ----------------------------------------------------------------------------------------------------- */

static qn_status layer(const qn__pass *p, float *x) {
  const int64_t hidden = p->d->config->hidden, rows = p->windows * p->length;
  const int64_t windows = p->length < chunk_rows ? chunk_rows / p->length : 1;
  qn__scratch_mark mark = qn__scratch_here(&p->d->scratch);
  for (int64_t w = 0; p->half & QN__MIXER && w < p->windows; w += windows) {
    QN_TRY(mix(p, w, least(windows, p->windows - w), (view){x + w * p->length * hidden, hidden}));
    qn__scratch_back(&p->d->scratch, mark);
  }
  for (int64_t r = 0; p->half & QN__MLP && r < rows; r += chunk_rows) {
    QN_TRY(mlp(p, (view){x + r * hidden, hidden}, least(chunk_rows, rows - r)));
    qn__scratch_back(&p->d->scratch, mark);
  }
  return QN_OK;
}

qn_status qn__pass_layer(const qn__pass *p, float *x) {
  qn__scratch_mark mark = qn__scratch_here(&p->d->scratch);
  qn_status status = layer(p, x);
  qn__scratch_back(&p->d->scratch, mark);
  return status == ENDED ? QN_OK : status;
}
