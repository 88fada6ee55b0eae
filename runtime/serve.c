/* serve.c - the calls of quernel.h: open, bind, prepack, run; and the last two for stacks.
 *
 * Everything that can be decided before a call is decided in bind: which plan, which kernel for which M, and every
 * number that does not depend on M. A call is a search among a few ranges, a little integer arithmetic and the
 * launch. */
#include "serve.h"
#include "cpu.h"
#include "device_host.h"
#include "fail.h"
#include "function.h"
#include "host_load.h"
#include "pack_read.h"
#include "recipe.h"
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_M (INT64_C(1) << 24)

/* A kernel's module, loaded while some gemm uses it. */
typedef struct loaded {
  qn_module *module;
  int uses;
} loaded;

struct qn_context {
  qn_allocator heap;
  qn_pack *pack;
  qn_device *device;
  uint32_t pack_device, kind; /* the plans that serve */
  loaded *kernel;             /* [qn__pack_kernels] */
  char (*problem)[sizeof((qn_problem *)0)->spelling];
  int n_problems;
  atomic_uint_fast64_t misses;
};

typedef struct gemm_range {
  int64_t m_min;
  qn_bound *bound;
  qn_workspace most; /* for any M of it */
  uint32_t kernel;
  char name[sizeof((qn_kernel *)0)->name];
} gemm_range;

/* An operand that the caller of a gemm must give; cols and the bytes of an element, as qn_operand says. */
typedef struct given {
  qn_arg arg, stride;
  bool tokens;
  int64_t cols, bytes;
} given;

struct qn_gemm {
  qn_context *ctx;
  uint32_t n_given;
  given given[QN_OPERANDS];     /* X and Y are the first two */
  uint32_t plan;                /* its number */
  uint32_t n_planned, n_ranges; /* of the plan; bound so far */
  gemm_range *range;
  qn_level level;
  uint64_t key; /* of what a weight must have been packed for */
  qn_problem problem;
  int64_t bytes;                                  /* of a packed weight */
  atomic_bool permuted;                           /* some weight has a permutation */
  char served[sizeof((qn_problem *)0)->spelling]; /* problem of the plan */
};

struct qn_weight {
  qn_context *ctx;
  uint64_t key;
  void *data;
  void *perm;               /* NULL or i32 [K] for each expert, on the device */
  int64_t experts, missing; /* of a stack: experts, and how many of them are not there yet */
  uint8_t *there;           /* [experts]: is it there? NULL: no stack */
};

/* ---- Structs of the caller --------------------------------------------------------------------------------------- */

static qn_status check_zero(const char *name, const uint64_t *reserved, size_t n) {
  uint64_t any = 0;
  for (size_t i = 0; i < n; i++) any |= reserved[i];
  if (!any) return QN_OK;
  return qn__fail(QN_E_ARG,
                  "%s.reserved is not zero: the struct was not initialised, or it asks for what version %s of the "
                  "library does not know",
                  name, QN_VERSION);
}

/* Are the words of *s that this version gives no meaning zero? */
#define CHECK_RESERVED(type, s) check_zero(#type, (s)->reserved, QN_COUNT((s)->reserved))

/* ---- Open -------------------------------------------------------------------------------------------------------- */

/* Does code for `have` run on `want`? That for sm_NNa runs there alone, any other on later minor versions, too. */
static bool sm_fits(const char *have, const char *want) {
  int a = 0, b = 0;
  if (!strcmp(have, want)) return true;
  return !strchr(have, 'a') && sscanf(have, "sm_%d", &a) == 1 && sscanf(want, "sm_%d", &b) == 1 && a / 10 == b / 10 &&
         a <= b;
}

static qn_status kernel_fits(const qn_kernel *k, const qn_device *d) {
  char missing[32];
  if (!qn__target(k->target)->host_code)
    return sm_fits(k->arch, d->info.arch)
               ? QN_OK
               : qn__fail(QN_E_DEVICE, "kernel '%s' is for %s, %s is %s", k->name, k->arch, d->info.name, d->info.arch);
  if (!k->size) return QN_OK; /* a function */
  if (!qn__cpu_has(k->arch, missing, sizeof missing))
    return qn__fail(QN_E_DEVICE, "kernel '%s' needs a CPU with %s; this one has: %s", k->name, missing, qn__cpu_arch());
  return qn__host_image_check(k->image, k->size);
}

/* Does device d run every kernel that a plan names? */
static qn_status plan_fits(const qn_pack *p, const qn_plan *plan, const qn_device *d) {
  for (uint32_t r = 0; r < plan->n_ranges; r++) {
    const char *named[] = {plan->range[r].variant, plan->range[r].runner_up};
    for (size_t n = 0; n < QN_COUNT(named) && *named[n]; n++) {
      qn_kernel k;
      qn__pack_kernel(p, (uint32_t)qn__pack_find_kernel(p, named[n]), &k);
      QN_TRY(kernel_fits(&k, d));
    }
  }
  return QN_OK;
}

/* Which devices of the pack can `d` stand for: those whose plans it runs. Returns why the last of the others is
 * none. */
static qn_status find_fitting(const qn_pack *p, const qn_device *d, bool fits[QN_PACK_MAX_DEVICES]) {
  qn_status s = QN_OK;
  for (uint32_t i = 0; i < qn__pack_devices(p); i++) {
    qn_pack_device pd;
    qn__pack_device(p, i, &pd);
    fits[i] = !strcmp(pd.target, d->info.target);
    if (!fits[i])
      s = qn__fail(QN_E_DEVICE, "the pack is for %s (%s), the device is %s", pd.target, pd.arch, d->info.name);
  }
  for (uint32_t j = 0; j < qn__pack_plans(p); j++) {
    qn_plan_key key;
    qn_plan plan;
    qn__pack_plan_key(p, j, &key);
    if (!fits[key.device]) continue;
    qn__pack_plan(p, j, &plan);
    qn_status here = plan_fits(p, &plan, d);
    if (here) fits[key.device] = false, s = here;
  }
  return s;
}

/* How like `d`, running `threads`, a device of the pack is that it can stand for: the same architecture, else the most
 * of it, then the same product, then the nearest number of threads. */
static int64_t likeness(const qn_pack_device *pd, const qn_device_info *d, int threads) {
  int64_t arch = 0, apart = llabs((int64_t)pd->threads - threads);
  int sm;
  if (!strcmp(pd->arch, d->arch)) arch = 1 << 20;
  else if (sscanf(pd->arch, "sm_%d", &sm) == 1) arch = sm;
  else
    for (const char *s = pd->arch; *s; s++) arch += *s == ' '; /* instruction sets */
  return arch << 34 | (int64_t)!strcmp(pd->product, d->product) << 33 | ((INT64_C(1) << 32) - apart);
}

static qn_status choose_plans(const qn_pack *p, const qn_device *d, int threads, uint32_t *chosen) {
  bool fits[QN_PACK_MAX_DEVICES];
  int64_t best = -1;
  qn_status s = find_fitting(p, d, fits);
  for (uint32_t i = 0; i < qn__pack_devices(p); i++) {
    qn_pack_device pd;
    qn__pack_device(p, i, &pd);
    int64_t l = fits[i] ? likeness(&pd, &d->info, threads) : -1;
    if (l > best) best = l, *chosen = i;
  }
  return best < 0 ? s : QN_OK;
}

/* Open a device and choose among the plans. With nothing said, the host runs as many threads as the plans were measured
 * with, but no more than it may use CPUs: those would wait for one another. */
static qn_status try_device(qn_context *c, const char *name, int threads) {
  bool host = !strcmp(name, "host");
  int cpus = qn__cpu_count();
  QN_TRY(qn__device_open(&c->heap, host ? "host:1" : name, &c->device)); /* starts no thread */
  int running = threads ? threads : host ? cpus : c->device->info.threads;
  qn_status s = choose_plans(c->pack, c->device, running, &c->pack_device);
  if (!s && !host) return QN_OK;
  qn__device_close(c->device);
  c->device = NULL;
  QN_TRY(s);
  qn_pack_device pd;
  qn__pack_device(c->pack, c->pack_device, &pd);
  bool measured = !threads && pd.threads && pd.threads < (uint32_t)cpus;
  return qn__device_host_open(&c->heap, measured ? (int)pd.threads : running, &c->device);
}

/* Is `target` that of a device before number i? */
static bool seen_before(const qn_pack *p, uint32_t i, const char *target) {
  qn_pack_device pd;
  while (i-- > 0) {
    qn__pack_device(p, i, &pd);
    if (!strcmp(pd.target, target)) return true;
  }
  return false;
}

/* The device asked for, or with nothing said the first of the pack's that is here. */
static qn_status open_device(qn_context *c, const qn_open_options *o) {
  qn_status s = qn__pack_devices(c->pack) ? QN_OK : qn__fail(QN_E_DEVICE, "the pack holds no device");
  if (o->threads < 0) return qn__fail(QN_E_ARG, "%d threads", o->threads);
  if (o->threads && o->device && strcmp(o->device, "host"))
    return qn__fail(QN_E_ARG, "%d threads on device '%s': only 'host' takes a number beside its name", o->threads,
                    o->device);
  if (s || o->device) return s ? s : try_device(c, o->device, o->threads);
  for (uint32_t i = 0; i < qn__pack_devices(c->pack); i++) {
    qn_pack_device pd;
    qn__pack_device(c->pack, i, &pd);
    if (seen_before(c->pack, i, pd.target)) continue;
    s = try_device(c, pd.target, o->threads);
    if (!s || s == QN_E_NOMEM) return s; /* a lack of memory is no reason to serve from another device */
  }
  return s;
}

static size_t problems_size(const qn_context *c) { return (qn__pack_plans(c->pack) + 1) * sizeof *c->problem; }
static size_t kernels_size(const qn_context *c) { return (qn__pack_kernels(c->pack) + 1) * sizeof *c->kernel; }

/* The spellings of the problems that are served here. */
static qn_status list_problems(qn_context *c) {
  c->problem = qn__alloc_zero(&c->heap, problems_size(c));
  if (!c->problem) return qn__fail(QN_E_NOMEM, "%u problems", qn__pack_plans(c->pack));
  for (uint32_t i = 0; i < qn__pack_plans(c->pack); i++) {
    qn_plan_key key;
    qn_plan plan;
    qn__pack_plan_key(c->pack, i, &key);
    if (key.device != c->pack_device || key.kind != c->kind || !key.n) continue;
    qn__pack_plan(c->pack, i, &plan);
    memcpy(c->problem[c->n_problems++], plan.problem.spelling, sizeof *c->problem);
  }
  return QN_OK;
}

static qn_status open_context(const char *path, const qn_open_options *o, qn_context *c) {
  if (!path) return qn__fail(QN_E_ARG, "qn_open: path is NULL");
  c->kind = o->batch_invariant ? QN_PLAN_BATCH_INVARIANT : o->deterministic ? QN_PLAN_DETERMINISTIC : QN_PLAN_FASTEST;
  QN_TRY(qn__pack_open(&c->heap, path, &c->pack));
  QN_TRY(open_device(c, o));
  c->kernel = qn__alloc_zero(&c->heap, kernels_size(c));
  if (!c->kernel) return qn__fail(QN_E_NOMEM, "%u kernels", qn__pack_kernels(c->pack));
  return list_problems(c);
}

static qn_status new_context(const qn_open_options *o, qn_context **out) {
  QN_TRY(CHECK_RESERVED(qn_open_options, o)); /* before its allocator is believed */
  *out = qn__alloc_zero(&o->allocator, sizeof **out);
  if (!*out) return qn__fail(QN_E_NOMEM, "context");
  (*out)->heap = o->allocator;
  return QN_OK;
}

qn_status qn_open(const char *path, const qn_open_options *options, qn_context **out, char *err, size_t errlen) {
  static const qn_open_options defaults;
  if (!out) return qn__fail(QN_E_ARG, "qn_open: out is NULL");
  *out = NULL;
  if (!options) options = &defaults;
  qn_context *c = NULL;
  qn_status s = new_context(options, &c);
  if (!s) s = open_context(path, options, c);
  if (!s) return *out = c, QN_OK;
  if (err && errlen) snprintf(err, errlen, "%s", qn__errmsg());
  qn_close(c);
  return s;
}

void qn_close(qn_context *ctx) {
  if (!ctx) return;
  const qn_allocator heap = ctx->heap;
  if (ctx->kernel) qn__free(&heap, ctx->kernel, kernels_size(ctx));
  if (ctx->problem) qn__free(&heap, ctx->problem, problems_size(ctx));
  qn__device_close(ctx->device);
  qn__pack_close(ctx->pack);
  qn__free(&heap, ctx, sizeof *ctx);
}

const char *qn_errmsg(void) { return qn__errmsg(); }

const char *qn_problem_at(const qn_context *ctx, int i) {
  return ctx && i >= 0 && i < ctx->n_problems ? ctx->problem[i] : NULL;
}

const char *qn_pack_hash(const qn_context *ctx) { return ctx ? qn__pack_hash(ctx->pack) : ""; }

uint64_t qn_misses(const qn_context *ctx) { return ctx ? atomic_load_explicit(&ctx->misses, memory_order_relaxed) : 0; }

qn_device *qn__context_device(const qn_context *ctx) { return ctx->device; }

/* ---- Workspace --------------------------------------------------------------------------------------------------- */

/* Can the kernel serve a weight with a permutation? It takes it, or a step before it gathers X. */
static bool permutes(const qn_bound *b) { return b->args >> QN_ARG_PERM & 1; }

static bool on_host(const qn_context *c) { return c->device->target->host_memory; }

static qn_status workspace_for(const qn_gemm *g, const qn_bound *b, int64_t least, int64_t most, bool permuted,
                               qn_workspace *out) {
  qn_status s = qn__bound_workspace(b, least, most, permuted, out);
  return s ? qn__fail(s, "'%s': %s", g->problem.spelling, qn__errmsg()) : QN_OK;
}

/* The last M that range i serves, but at most max_m. */
static int64_t last_of(const qn_gemm *g, uint32_t i, int64_t max_m) {
  return i + 1 < g->n_planned && g->range[i + 1].m_min <= max_m ? g->range[i + 1].m_min - 1 : max_m;
}

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

static qn_workspace workspace_up_to(const qn_gemm *g, int64_t max_m) {
  qn_workspace most = {0}, here;
  bool permuted = g && atomic_load_explicit(&g->permuted, memory_order_relaxed);
  if (max_m > MAX_M) max_m = MAX_M;
  for (uint32_t i = 0; g && i < g->n_ranges && g->range[i].m_min <= max_m; i++)
    if (!workspace_for(g, g->range[i].bound, g->range[i].m_min, last_of(g, i, max_m), permuted, &here))
      most = (qn_workspace){larger(most.counters, here.counters), larger(most.scratch, here.scratch)};
  return most;
}

size_t qn_gemm_workspace(const qn_gemm *gemm, int64_t max_m) { return (size_t)workspace_up_to(gemm, max_m).scratch; }
size_t qn_gemm_counters(const qn_gemm *gemm, int64_t max_m) { return (size_t)workspace_up_to(gemm, max_m).counters; }

/* ---- Bind -------------------------------------------------------------------------------------------------------- */

/* How far a tuned shape is from the wanted one. */
static double distance(const qn_plan_key *key, const qn_problem *p) {
  double experts = p->experts ? fabs(log((double)key->experts / (double)p->experts)) : 0;
  return fabs(log((double)key->n / (double)p->n)) + fabs(log((double)key->k / (double)p->k)) + experts;
}

static bool same_shape(const qn_plan_key *key, const qn_problem *p) {
  return key->n == p->n && key->k == p->k && key->experts == p->experts;
}

/* Types that were not given match any, but for 8-bit activations: their numerics must be asked for. */
static bool same_types(const qn_context *c, const qn_plan_key *key, const qn_problem *p) {
  return key->device == c->pack_device && key->kind == c->kind && !strcmp(key->format, p->format) &&
         !memcmp(key->epilogue, p->epilogue, sizeof p->epilogue) && !key->experts == !p->experts &&
         (p->act ? key->act == p->act && key->x == p->x : !qn__act_scaled(key->act)) && (!p->out || key->out == p->out);
}

/* Give the format the name that the pack's plans have for it: a spelling may say what is so anyway, in any order. */
static void use_name_of_plans(const qn_context *c, qn_problem *p) {
  qn_plan_key key;
  for (uint32_t i = 0; i < qn__pack_plans(c->pack); i++) {
    qn__pack_plan_key(c->pack, i, &key);
    if (!strcmp(key.format, p->format)) return;
  }
  for (uint32_t i = 0; i < qn__pack_plans(c->pack); i++) {
    qn_plan plan;
    qn__pack_plan(c->pack, i, &plan);
    if (qn__format_named(&plan.format, p->format)) {
      memcpy(p->format, plan.format.name, sizeof p->format);
      return;
    }
  }
}

/* The plan that serves a problem: of its shape, else of the nearest, else for any. */
static qn_status find_plan(const qn_context *c, const qn_problem *p, uint32_t *plan, qn_level *level) {
  double best = INFINITY;
  bool found = false;
  for (uint32_t i = 0; i < qn__pack_plans(c->pack); i++) {
    qn_plan_key key;
    qn__pack_plan_key(c->pack, i, &key);
    if (!same_types(c, &key, p)) continue;
    double d = key.n ? distance(&key, p) : 1e9;
    if (d >= best) continue;
    best = d, *plan = i, found = true;
    *level = !key.n ? QN_GENERIC : same_shape(&key, p) ? QN_EXACT : QN_NEAREST_SHAPE;
  }
  if (found) return QN_OK;
  if (!c->n_problems) return qn__fail(QN_E_NO_KERNEL, "no plan for '%s'; the pack has none of this kind", p->spelling);
  return qn__fail(QN_E_NO_KERNEL, "no plan for '%s'; the pack has %d problems of this kind, the first is %s",
                  p->spelling, c->n_problems, c->problem[0]);
}

static qn_status load_kernel(qn_context *c, uint32_t i, const qn_kernel *k) {
  loaded *l = &c->kernel[i];
  if (!l->uses) QN_TRY(c->device->ops->module_load(c->device, k->image, k->size, &l->module));
  l->uses++;
  return QN_OK;
}

static void release_kernel(qn_context *c, uint32_t i) {
  loaded *l = &c->kernel[i];
  if (--l->uses) return;
  c->device->ops->module_free(c->device, l->module);
  l->module = NULL;
}

/* Look up the entry of every step; each is told the most shared memory that it gets between m_min and m_max. */
static qn_status find_entries(qn_context *c, qn_module *module, qn_bound *b, int64_t m_min, int64_t m_max) {
  qn_launch low[QN_RECIPE_STEPS], high[QN_RECIPE_STEPS];
  uint32_t n;
  QN_TRY(qn__bound_launches(c->device, b, m_min, true, low, &n));
  QN_TRY(qn__bound_launches(c->device, b, m_max, true, high, &n));
  for (uint32_t i = 0; i < b->n_steps; i++) {
    int64_t shared = low[i].shared > high[i].shared ? low[i].shared : high[i].shared;
    QN_TRY(c->device->ops->entry(c->device, module, b->recipe.step[i].entry, shared, &b->step[i].launch.fn));
  }
  return QN_OK;
}

/* The functions of a kernel that is none of the pack's, by the names of its entries. */
static bool find_functions(const qn_recipe *r, void *fn[QN_RECIPE_STEPS]) {
  bool all = true;
  for (uint32_t i = 0; i < r->n_steps; i++) {
    qn_function f = qn__function_find(r->step[i].entry);
    memcpy(&fn[i], &f, sizeof f);
    all = all && f;
  }
  return all;
}

/* The kernel of a range: its variant, or if that is a function which is not registered, the runner-up. */
static uint32_t choose_kernel(const qn_context *c, const qn_range *r, qn_kernel *k, void *fn[QN_RECIPE_STEPS]) {
  uint32_t number = (uint32_t)qn__pack_find_kernel(c->pack, r->variant);
  qn__pack_kernel(c->pack, number, k);
  if (k->size || find_functions(&k->recipe, fn)) return number;
  number = (uint32_t)qn__pack_find_kernel(c->pack, r->runner_up);
  qn__pack_kernel(c->pack, number, k);
  return number;
}

static qn_status bind_range(qn_gemm *g, const qn_plan *plan, uint32_t i) {
  qn_context *c = g->ctx;
  gemm_range *r = &g->range[i];
  void *fn[QN_RECIPE_STEPS] = {NULL};
  const qn_range *planned = &plan->range[i];
  int64_t m_max = i + 1 < plan->n_ranges ? planned[1].m_min - 1 : planned->m_min;
  qn_kernel k;
  uint32_t number = choose_kernel(c, planned, &k, fn);
  if (!(r->bound = qn__alloc(&c->heap, sizeof *r->bound))) return qn__fail(QN_E_NOMEM, "kernel '%s'", k.name);
  g->n_ranges = i + 1;
  memcpy(r->name, k.name, sizeof r->name);
  r->kernel = UINT32_MAX;
  if (!k.size && g->problem.experts)
    return qn__fail(QN_E_NO_KERNEL, "'%s': '%s' is a function, and functions serve no stack", g->problem.spelling,
                    k.name);
  QN_TRY(qn__recipe_bind(c->device, &k.recipe, fn, &g->problem, g->bytes, r->bound));
  if (planned->m_min <= MAX_M) /* later nobody can be told that there is none */
    QN_TRY(workspace_for(g, r->bound, planned->m_min, last_of(g, i, MAX_M), true, &r->most));
  if (!k.size) return QN_OK;
  QN_TRY(load_kernel(c, number, &k));
  r->kernel = number;
  return find_entries(c, c->kernel[number].module, r->bound, planned->m_min, m_max);
}

/* A weight fits a gemm if it was packed in the same layout for the same shape and format. */
static uint64_t weight_key(const qn_plan *plan, const qn_problem *p) {
  char text[3 * QN_NAME + 64];
  uint8_t hash[QN_HASH_BYTES];
  int n = snprintf(text, sizeof text, "%s %s %s %lldx%lldx%lld", plan->format.name, plan->layout.name,
                   plan->layout.hash, (long long)p->experts, (long long)p->n, (long long)p->k);
  qn__hash128(text, (size_t)n, hash);
  return qn__get64(hash);
}

/* The plan of a gemm, for as long as it is needed: it is larger than all that calls read. Freed by free_plan. */
static qn_status read_plan(const qn_gemm *g, qn_plan **out) {
  if (!(*out = qn__alloc(&g->ctx->heap, sizeof **out)))
    return qn__fail(QN_E_NOMEM, "plan of '%s'", g->problem.spelling);
  qn__pack_plan(g->ctx->pack, g->plan, *out);
  return QN_OK;
}

static void free_plan(const qn_gemm *g, qn_plan *plan) { qn__free(&g->ctx->heap, plan, sizeof *plan); }

static qn_status bind_plan(qn_gemm *g, const qn_plan *plan) {
  g->problem.act = plan->problem.act, g->problem.out = plan->problem.out, g->problem.x = plan->problem.x;
  qn__problem_spell(&g->problem);
  if (qn__layout_check(&plan->layout, &plan->format, g->problem.n, g->problem.k))
    return qn__fail(QN_E_SHAPE, "'%s' cannot be served by '%s': %s", g->problem.spelling, plan->problem.spelling,
                    qn__errmsg());
  QN_TRY(qn__layout_bytes(&plan->layout, g->problem.n, g->problem.k, &g->bytes));
  for (qn_arg i = 0; i < QN_OPERANDS; i++) {
    qn_operand o = qn__operand(&g->problem, i);
    if (o.has) g->given[g->n_given++] = (given){i, o.stride, o.tokens, o.cols, qn_type_bits(o.type) / 8};
  }
  g->key = weight_key(plan, &g->problem);
  memcpy(g->served, plan->problem.spelling, sizeof g->served);
  g->range = qn__alloc_zero(&g->ctx->heap, plan->n_ranges * sizeof *g->range);
  if (!g->range) return qn__fail(QN_E_NOMEM, "%u ranges of M", plan->n_ranges);
  g->n_planned = plan->n_ranges;
  for (uint32_t i = 0; i < plan->n_ranges; i++) g->range[i].m_min = plan->range[i].m_min;
  for (uint32_t i = 0; i < plan->n_ranges; i++) QN_TRY(bind_range(g, plan, i));
  return QN_OK;
}

static qn_status bind(qn_gemm *g, const char *spelling) {
  QN_TRY(qn__problem_parse(spelling, &g->problem));
  use_name_of_plans(g->ctx, &g->problem);
  QN_TRY(find_plan(g->ctx, &g->problem, &g->plan, &g->level));
  qn_plan *plan;
  QN_TRY(read_plan(g, &plan));
  qn_status s = bind_plan(g, plan);
  free_plan(g, plan);
  return s;
}

qn_status qn_bind(qn_context *ctx, const char *problem, qn_gemm **out) {
  if (out) *out = NULL;
  if (!ctx || !problem || !out) return qn__fail(QN_E_ARG, "qn_bind: NULL argument");
  qn_gemm *g = qn__alloc_zero(&ctx->heap, sizeof *g);
  if (!g) return qn__fail(QN_E_NOMEM, "gemm '%s'", problem);
  g->ctx = ctx;
  qn_status s = bind(g, problem);
  if (s) qn_gemm_free(g);
  else *out = g;
  return s;
}

void qn_gemm_free(qn_gemm *gemm) {
  if (!gemm) return;
  for (uint32_t i = 0; i < gemm->n_ranges; i++) {
    if (gemm->range[i].kernel != UINT32_MAX) release_kernel(gemm->ctx, gemm->range[i].kernel);
    qn__free(&gemm->ctx->heap, gemm->range[i].bound, sizeof *gemm->range[i].bound);
  }
  qn__free(&gemm->ctx->heap, gemm->range, gemm->n_planned * sizeof *gemm->range);
  qn__free(&gemm->ctx->heap, gemm, sizeof *gemm);
}

qn_level qn_gemm_level(const qn_gemm *gemm) { return gemm ? gemm->level : QN_GENERIC; }

const char *qn_gemm_problem(const qn_gemm *gemm) { return gemm ? gemm->served : ""; }

const qn_problem *qn__gemm_problem(const qn_gemm *gemm) { return &gemm->problem; }

/* Number of the range that serves m tokens. */
static uint32_t range_of(const qn_gemm *g, int64_t m) {
  uint32_t i = 0;
  while (i + 1 < g->n_ranges && g->range[i + 1].m_min <= m) i++;
  return i;
}

const char *qn_gemm_kernel(const qn_gemm *gemm, int64_t m) {
  return gemm && m > 0 ? gemm->range[range_of(gemm, m)].name : "";
}

/* ---- Prepack ----------------------------------------------------------------------------------------------------- */

static int64_t weights_of(const qn_problem *p) { return p->experts ? p->experts : 1; }

size_t qn_weight_bytes(const qn_gemm *gemm) { return gemm ? (size_t)(gemm->bytes * weights_of(&gemm->problem)) : 0; }

static bool is_identity(const int32_t *perm, int64_t k) {
  int64_t j = 0;
  while (perm && j < k && perm[j] == j) j++;
  return !perm || j == k;
}

/* Room for the permutations of a weight, or of all experts of a stack, each the identity for now. */
static qn_status make_perms(const qn_gemm *g, const int32_t *identity, qn_weight *w) {
  qn_device *d = g->ctx->device;
  size_t bytes = (size_t)g->problem.k * sizeof *identity;
  for (uint32_t i = 0; i < g->n_ranges; i++)
    if (!permutes(g->range[i].bound))
      return qn__fail(QN_E_NO_KERNEL, "'%s': kernel '%s' takes no weight with a permutation (act-order)",
                      g->problem.spelling, g->range[i].name);
  QN_TRY(d->ops->alloc(d, (size_t)weights_of(&g->problem) * bytes, &w->perm));
  for (int64_t e = 0; e < w->experts; e++)
    QN_TRY(d->ops->upload(d, (char *)w->perm + (size_t)e * bytes, identity, bytes));
  return QN_OK;
}

static qn_status set_perm(const qn_gemm *g, const int32_t *perm, const int32_t *identity, int64_t expert,
                          qn_weight *w) {
  qn_device *d = g->ctx->device;
  size_t bytes = (size_t)g->problem.k * sizeof *perm;
  if (!w->perm) QN_TRY(make_perms(g, identity, w));
  return d->ops->upload(d, (char *)w->perm + (size_t)expert * bytes, perm ? perm : identity, bytes);
}

/* The permutation on the device. While there is none but the identity, there is nothing. */
static qn_status place_perm(const qn_gemm *g, const int32_t *perm, int64_t expert, qn_weight *w) {
  const qn_allocator *heap = &g->ctx->heap;
  int64_t k = g->problem.k;
  if (is_identity(perm, k) && !w->perm) return QN_OK;
  int32_t *identity = qn__alloc(heap, (size_t)k * sizeof *identity);
  if (!identity) return qn__fail(QN_E_NOMEM, "permutation of %lld", (long long)k);
  for (int64_t j = 0; j < k; j++) identity[j] = (int32_t)j;
  qn_status s = set_perm(g, perm, identity, expert, w);
  qn__free(heap, identity, (size_t)k * sizeof *identity);
  return s;
}

/* The host packs in place; a GPU gets a copy of what was packed here. */
static qn_status pack_weight(const qn_gemm *g, const qn_plan *plan, const qn_planes *planes, void *data) {
  qn_device *d = g->ctx->device;
  const qn_allocator *heap = &g->ctx->heap;
  if (on_host(g->ctx)) return qn__layout_pack(d, &plan->layout, &plan->format, planes, data);
  void *packed = qn__alloc(heap, (size_t)g->bytes);
  if (!packed) return qn__fail(QN_E_NOMEM, "weight of %lld bytes", (long long)g->bytes);
  qn_status s = qn__layout_pack(d, &plan->layout, &plan->format, planes, packed);
  if (!s) s = d->ops->upload(d, data, packed, (size_t)g->bytes);
  qn__free(heap, packed, (size_t)g->bytes);
  return s;
}

static qn_status check_planes(const qn_gemm *g, const qn_plan *plan, const qn_planes *planes) {
  QN_TRY(CHECK_RESERVED(qn_planes, planes));
  if (planes->n != g->problem.n || planes->k != g->problem.k)
    return qn__fail(QN_E_SHAPE, "weight of [%lld, %lld] for '%s'", (long long)planes->n, (long long)planes->k,
                    g->problem.spelling);
  return qn__planes_check(&g->ctx->heap, &plan->format, planes);
}

/* Fill the weight, or one expert of a stack. */
static qn_status prepack(qn_gemm *g, const qn_planes *planes, int64_t expert, qn_weight *w) {
  qn_plan *plan;
  QN_TRY(read_plan(g, &plan));
  qn_status s = check_planes(g, plan, planes);
  if (!s) s = place_perm(g, planes->perm, expert, w);
  if (!s) s = pack_weight(g, plan, planes, (char *)w->data + expert * g->bytes);
  free_plan(g, plan);
  if (!s && w->perm) atomic_store_explicit(&g->permuted, true, memory_order_relaxed);
  return s;
}

/* A weight, or a stack, without contents. */
static qn_status new_weight(qn_gemm *g, qn_weight **out) {
  qn_device *d = g->ctx->device;
  const qn_allocator *heap = &g->ctx->heap;
  qn_weight *w = *out = qn__alloc_zero(heap, sizeof *w);
  if (!w) return qn__fail(QN_E_NOMEM, "weight");
  w->ctx = g->ctx, w->key = g->key;
  w->experts = w->missing = g->problem.experts;
  if (w->experts && !(w->there = qn__alloc_zero(heap, (size_t)w->experts)))
    return qn__fail(QN_E_NOMEM, "stack of %lld experts", (long long)w->experts);
  return d->ops->alloc(d, qn_weight_bytes(g), &w->data);
}

qn_status qn_prepack(qn_gemm *gemm, const qn_planes *planes, qn_weight **out) {
  if (out) *out = NULL;
  if (!gemm || !planes || !out) return qn__fail(QN_E_ARG, "qn_prepack: NULL argument");
  if (gemm->problem.experts)
    return qn__fail(QN_E_ARG, "'%s' has a stack of weights: each is packed by qn_prepack_expert",
                    gemm->problem.spelling);
  qn_weight *w;
  qn_status s = new_weight(gemm, &w);
  if (!s) s = prepack(gemm, planes, 0, w);
  if (s) qn_weight_free(w);
  else *out = w;
  return s;
}

static qn_status check_stack(const qn_gemm *g, const qn_weight *stack, int64_t expert) {
  const qn_problem *p = &g->problem;
  if (!p->experts) return qn__fail(QN_E_ARG, "'%s' has one weight, no stack: qn_prepack packs it", p->spelling);
  if (expert < 0 || expert >= p->experts)
    return qn__fail(QN_E_ARG, "'%s': expert %lld, allowed 0 .. %lld", p->spelling, (long long)expert,
                    (long long)p->experts - 1);
  if (stack && (stack->ctx != g->ctx || stack->key != g->key))
    return qn__fail(QN_E_ARG, "'%s': the stack was prepacked for another problem or layout", p->spelling);
  return QN_OK;
}

static void mark(qn_weight *w, int64_t expert, bool there) {
  w->missing += w->there[expert] - there;
  w->there[expert] = there;
}

qn_status qn_prepack_expert(qn_gemm *gemm, int64_t expert, const qn_planes *planes, qn_weight **stack) {
  if (!gemm || !planes || !stack) return qn__fail(QN_E_ARG, "qn_prepack_expert: NULL argument");
  QN_TRY(check_stack(gemm, *stack, expert));
  qn_weight *w = *stack;
  qn_status s = w ? QN_OK : new_weight(gemm, &w);
  if (!s) {
    mark(w, expert, false);
    s = prepack(gemm, planes, expert, w);
  }
  if (!s) mark(w, expert, true), *stack = w;
  else if (w != *stack) qn_weight_free(w);
  return s;
}

void qn_weight_free(qn_weight *weight) {
  if (!weight) return;
  qn_device *d = weight->ctx->device;
  d->ops->free(d, weight->data);
  d->ops->free(d, weight->perm);
  if (weight->there) qn__free(&weight->ctx->heap, weight->there, (size_t)weight->experts);
  qn__free(&weight->ctx->heap, weight, sizeof *weight);
}

/* ---- Run --------------------------------------------------------------------------------------------------------- */

/* Pointer and row stride of an operand in what the caller gives. */
static const void *given_pointer(const qn_args *a, const given *o) {
  const void *p;
  return memcpy(&p, (const char *)a + qn__arg[o->arg].given, sizeof p), p;
}

static int64_t given_stride(const qn_args *a, const given *o) {
  int64_t ld;
  memcpy(&ld, (const char *)a + qn__arg[o->stride].given, sizeof ld);
  return ld ? ld : o->cols;
}

static void pass(qn_host_args *to, const qn_args *a, const given *o) {
  qn__arg_point(to, o->arg, given_pointer(a, o));
  if (o->stride == QN_ARG_COUNT) return;
  qn__arg_count(to, o->stride, given_stride(a, o));
}

/* A residual that is Y has Y's rows. */
static bool in_place(const qn_problem *p, const qn_args *a) {
  int64_t dense = qn__columns(p);
  return (a->ldy ? a->ldy : dense) == (a->ld_residual ? a->ld_residual : dense);
}

static qn_status check_args(const qn_gemm *g, const qn_weight *w, const qn_args *a) {
  const qn_problem *p = &g->problem;
  QN_TRY(CHECK_RESERVED(qn_args, a));
  if (w->ctx != g->ctx || w->key != g->key)
    return qn__fail(QN_E_ARG, "'%s': the weight was prepacked for another problem or layout", p->spelling);
  if (a->m < 0 || a->m > MAX_M)
    return qn__fail(QN_E_ARG, "'%s': m is %lld, allowed 0 .. %lld", p->spelling, (long long)a->m, (long long)MAX_M);
  for (uint32_t i = 0; i < g->n_given; i++) {
    const given *o = &g->given[i];
    const void *at = given_pointer(a, o);
    if (!at) return qn__fail(QN_E_ARG, "'%s': %s is NULL", p->spelling, qn__arg[o->arg].name);
    if ((uintptr_t)at % (uintptr_t)o->bytes)
      return qn__fail(QN_E_ARG, "'%s': %s is not aligned to its elements of %d bytes", p->spelling,
                      qn__arg[o->arg].name, (int)o->bytes);
    if (o->stride == QN_ARG_COUNT) continue;
    int64_t ld = given_stride(a, o);
    if (ld < o->cols || ld > INT32_MAX)
      return qn__fail(QN_E_ARG, "'%s': %s is %lld, allowed %lld .. %d, or 0 for dense rows", p->spelling,
                      qn__arg[o->stride].name, (long long)ld, (long long)o->cols, INT32_MAX);
  }
  if (a->residual == a->y && !in_place(p, a))
    return qn__fail(QN_E_ARG, "'%s': the residual is y, but ldy is %lld and ld_residual %lld; they must be equal",
                    p->spelling, (long long)a->ldy, (long long)a->ld_residual);
  if (((uintptr_t)a->workspace | (uintptr_t)a->counters) % QN_WORKSPACE_ALIGN)
    return qn__fail(QN_E_ARG, "'%s': workspace or counters are not aligned to %d bytes", p->spelling,
                    QN_WORKSPACE_ALIGN);
  return QN_OK;
}

/* Where an operand lies: `rows` rows of so many bytes, each `apart` bytes from the next. */
typedef struct place {
  uintptr_t at, size, apart, rows;
} place;

static place place_of(const qn_gemm *g, const qn_args *a, const given *o, int64_t tokens) {
  int64_t ld = o->stride == QN_ARG_COUNT ? o->cols : given_stride(a, o), rows = a->m;
  if (!o->tokens) rows = weights_of(&g->problem);
  else if (o->arg == QN_ARG_X || o->arg == QN_ARG_X_SCALE) rows = tokens;
  return (place){(uintptr_t)given_pointer(a, o), (uintptr_t)(o->cols * o->bytes), (uintptr_t)(ld * o->bytes),
                 (uintptr_t)rows};
}

static uintptr_t end_of(const place *p) { return p->at + (p->rows - 1) * p->apart + p->size; }

/* Do two operands share memory? Rows of one that lie between those of the other, as far apart, are told apart. */
static bool overlap(const place *low, const place *high) {
  if (low->at > high->at) return overlap(high, low);
  if (end_of(low) <= high->at) return false;
  uintptr_t into = (high->at - low->at) % low->apart;
  return (high->rows > 1 && low->apart != high->apart) || into < low->size || into + high->size > low->apart;
}

/* Y is written while the others are read: only the residual may be Y. `tokens`: rows of X. */
static qn_status check_apart(const qn_gemm *g, const qn_args *a, int64_t tokens) {
  const place y = place_of(g, a, &g->given[QN_ARG_Y], tokens);
  for (uint32_t i = 0; i < g->n_given; i++) {
    const given *o = &g->given[i];
    const place here = place_of(g, a, o, tokens);
    if (o->arg == QN_ARG_Y || (o->arg == QN_ARG_RESIDUAL && a->residual == a->y) || !overlap(&y, &here)) continue;
    return qn__fail(QN_E_ARG, "'%s': y overlaps %s", g->problem.spelling, qn__arg[o->arg].name);
  }
  return QN_OK;
}

/* Which expert each row meets: all that can be said without reading it. */
static qn_status check_rows(const qn_gemm *g, const qn_weight *w, const qn_args *a, const qn_rows *r) {
  const char *spelling = g->problem.spelling;
  int64_t experts = g->problem.experts;
  QN_TRY(CHECK_RESERVED(qn_rows, r));
  if (!r->offsets == !r->ids)
    return qn__fail(QN_E_ARG, "'%s': offsets and ids of rows are %s; one of them is wanted", spelling,
                    r->ids ? "both given" : "both NULL");
  if (((uintptr_t)r->offsets | (uintptr_t)r->ids) % sizeof *r->ids)
    return qn__fail(QN_E_ARG, "'%s': offsets or ids of rows are not aligned to their elements of %zu bytes", spelling,
                    sizeof *r->ids);
  if (r->offsets && r->n_offsets != experts + 1)
    return qn__fail(QN_E_ARG, "'%s': %lld offsets of rows for %lld experts, wanted are %lld", spelling,
                    (long long)r->n_offsets, (long long)experts, (long long)experts + 1);
  if (r->topk < 0 || (r->topk > 1 && (r->offsets || a->m % r->topk)))
    return qn__fail(QN_E_ARG, "'%s': topk is %lld; %s", spelling, (long long)r->topk,
                    r->offsets ? "with offsets X has a row for each of Y" : "m must be a multiple of it");
  if (!w->missing) return QN_OK;
  int64_t e = 0;
  while (w->there[e]) e++;
  return qn__fail(QN_E_ARG, "'%s': expert %lld of the stack has not been prepacked", spelling, (long long)e);
}

/* What is NULL must not be needed for this M. */
static qn_status check_workspace(const qn_gemm *g, const qn_bound *b, const qn_weight *w, const qn_args *a) {
  qn_workspace need;
  QN_TRY(workspace_for(g, b, a->m, a->m, w->perm != NULL, &need));
  bool counters = need.counters && !a->counters;
  if (!counters && (!need.scratch || a->workspace)) return QN_OK;
  return qn__fail(QN_E_ARG, "'%s': m = %lld needs %lld bytes of %s", g->problem.spelling, (long long)a->m,
                  (long long)(counters ? need.counters : need.scratch), counters ? "counters" : "workspace");
}

qn_status qn__gemm_look_up(const qn_gemm *g, const qn_weight *w, const qn_args *a, const qn_rows *rows,
                           qn_lookup *out) {
  const gemm_range *r = &g->range[range_of(g, a->m)];
  const qn_bound *b = r->bound;
  if ((r->most.scratch && !a->workspace) || (r->most.counters && !a->counters)) QN_TRY(check_workspace(g, b, w, a));
  out->args = (qn_host_args){.w = w->data,
                             .scratch = a->workspace,
                             .counters = a->counters,
                             .perm = w->perm,
                             .m = a->m,
                             .n = g->problem.n,
                             .k = g->problem.k};
  for (uint32_t i = 0; i < g->n_given; i++) pass(&out->args, a, &g->given[i]);
  if (rows) {
    out->args.offsets = rows->offsets, out->args.ids = rows->ids;
    out->args.topk = rows->topk ? rows->topk : 1, out->args.experts = g->problem.experts;
  }
  return qn__call_launches(g->ctx->device, b, &out->args, out->launch, &out->n_launches);
}

static qn_status run(const qn_gemm *g, const qn_weight *w, const qn_args *a, const qn_rows *rows) {
  qn_lookup c;
  if (g->level != QN_EXACT) atomic_fetch_add_explicit(&g->ctx->misses, 1, memory_order_relaxed);
  QN_TRY(qn__gemm_look_up(g, w, a, rows, &c));
  return qn__launch_all(g->ctx->device, c.launch, c.n_launches, c.args, a->stream);
}

qn_status qn_run(const qn_gemm *gemm, const qn_weight *weight, const qn_args *args) {
  if (!gemm || !weight || !args) return qn__fail(QN_E_ARG, "qn_run: NULL argument");
  if (gemm->problem.experts)
    return qn__fail(QN_E_ARG, "'%s' has a stack of weights: qn_run_grouped runs it", gemm->problem.spelling);
  if (!args->m) return QN_OK;
  QN_TRY(check_args(gemm, weight, args));
  QN_TRY(check_apart(gemm, args, args->m));
  return run(gemm, weight, args, NULL);
}

qn_status qn_run_grouped(const qn_gemm *gemm, const qn_weight *stack, const qn_args *args, const qn_rows *rows) {
  if (!gemm || !stack || !args || !rows) return qn__fail(QN_E_ARG, "qn_run_grouped: NULL argument");
  if (!gemm->problem.experts)
    return qn__fail(QN_E_ARG, "'%s' has one weight, no stack: qn_run runs it", gemm->problem.spelling);
  if (!args->m) return QN_OK;
  QN_TRY(check_args(gemm, stack, args));
  QN_TRY(check_rows(gemm, stack, args, rows));
  QN_TRY(check_apart(gemm, args, args->m / (rows->topk ? rows->topk : 1)));
  return run(gemm, stack, args, rows);
}
