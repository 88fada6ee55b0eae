/* lua_eval.c - evaluation from Lua: texts as windows, the reference, scores and their summaries, tasks, statistics. */
#include "bind.h"
#include "config.h"
#include "evaluate.h"
#include "windows.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char windows_class[] = "quernel.windows", reference_class[] = "quernel.reference",
                  task_class[] = "quernel.task", result_class[] = "quernel.evaluated", texts_class[] = "quernel.texts";

static void *new_object(lua_State *L, size_t size, const char *class) {
  void *p = qn__lua_block(L, size);
  luaL_setmetatable(L, class);
  return p;
}

/* ---- Texts and windows ------------------------------------------------------------------------------------------- */

/* What is needed only while windows are cut, or items encoded. */
typedef struct texts {
  qn__tokenizer *tokenizer;
  qn__ids *ids;
  qn__domain *domain;
  int n;
} texts;

static int texts_gc(lua_State *L) {
  texts *t = luaL_checkudata(L, 1, texts_class);
  for (int i = 0; t->ids && i < t->n; i++) qn__ids_free(&t->ids[i]);
  free(t->ids);
  free(t->domain);
  qn__tokenizer_close(t->tokenizer);
  *t = (texts){0};
  return 0;
}

/* bos: "yes", "no"; NULL, as the model has it. */
static qn_status read_texts(const qn_model *m, const char *tokenizer, const char *bos, texts *t) {
  QN_TRY(qn__tokenizer_open(m, tokenizer, &t->tokenizer));
  if (bos) QN_TRY(qn__tokenizer_set_bos(t->tokenizer, !strcmp(bos, "yes")));
  for (int i = 0; i < t->n; i++) {
    QN_TRY(qn__ids_read(t->domain[i].name, t->tokenizer, qn__model_vocabulary(m), &t->ids[i]));
    t->domain[i].ids = &t->ids[i];
  }
  return QN_OK;
}

/* Paths from the list at `index`, which keeps them. */
static texts *new_texts(lua_State *L, int index) {
  texts *t = new_object(L, sizeof *t, texts_class);
  int n = (int)luaL_len(L, index);
  t->ids = calloc((size_t)n + 1, sizeof *t->ids);
  t->domain = calloc((size_t)n + 1, sizeof *t->domain);
  if (!t->ids || !t->domain) return luaL_error(L, "not enough memory"), NULL;
  for (t->n = 0; t->n < n; t->n++) {
    lua_geti(L, index, t->n + 1);
    t->domain[t->n].name = luaL_checkstring(L, -1);
    lua_pop(L, 1);
  }
  return t;
}

static void push_domains(lua_State *L, const texts *t, const qn__windows *w) {
  lua_createtable(L, t->n, 0);
  for (int i = 0; i < t->n; i++) {
    int64_t windows = 0;
    for (int64_t k = 0; k < w->n; k++) windows += w->domain[k] == i;
    lua_newtable(L);
    qn__lua_set_text(L, "path", t->domain[i].name);
    qn__lua_set_integer(L, "ids", t->ids[i].n);
    qn__lua_set_integer(L, "bytes", t->ids[i].bytes);
    qn__lua_set_integer(L, "dropped", t->ids[i].dropped);
    qn__lua_set_integer(L, "windows", windows);
    lua_rawseti(L, -2, i + 1);
  }
}

/* windows(model, { path… }, { length =, half =, first =, stop =, step =, tokenizer =, bos = "yes" | "no" }) -> windows,
 * { n =, length =, scored =, hash =, bos =, domains = { { path, ids, bytes, dropped, windows }… } }, or nil, message,
 * code */
static int windows_cut(lua_State *L) {
  const qn_model *m = qn__lua_model_at(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  luaL_checktype(L, 3, LUA_TTABLE);
  qn__window_options o = {.length = qn__lua_integer(L, 3, "length", 512),
                          .half = qn__lua_flag(L, 3, "half"),
                          .steps = {qn__lua_integer(L, 3, "first", 0), qn__lua_integer(L, 3, "stop", INT64_MAX),
                                    qn__lua_integer(L, 3, "step", 1)}};
  texts *t = new_texts(L, 2);
  qn__windows *w = new_object(L, sizeof *w, windows_class);
  qn_status s = read_texts(m, qn__lua_text(L, 3, "tokenizer", NULL), qn__lua_text(L, 3, "bos", NULL), t);
  if (s == QN_OK) {
    qn__bos bos = qn__tokenizer_bos(t->tokenizer);
    o.bos = bos.add ? bos.id : -1;
    s = qn__windows_cut(t->domain, t->n, &o, w);
  }
  if (s != QN_OK) return qn__lua_fail(L, s);
  lua_newtable(L);
  qn__lua_set_integer(L, "n", w->n);
  qn__lua_set_integer(L, "length", w->length);
  qn__lua_set_integer(L, "scored", qn__windows_scored(w));
  qn__lua_set_text(L, "hash", w->hash);
  if (o.bos >= 0) qn__lua_set_integer(L, "bos", o.bos);
  push_domains(L, t, w);
  lua_setfield(L, -2, "domains");
  return 2;
}

static int windows_gc(lua_State *L) {
  qn__windows_free(luaL_checkudata(L, 1, windows_class));
  return 0;
}

const qn__windows *qn__lua_windows_at(lua_State *L, int index) { return luaL_checkudata(L, index, windows_class); }

/* model_hash(model) -> 32 hexadecimal digits: of all its files, which are read */
static int model_hash(lua_State *L) {
  char hash[33];
  qn_status s = qn__model_hash(qn__lua_model_at(L, 1), hash);
  if (s != QN_OK) return qn__lua_fail(L, s);
  lua_pushstring(L, hash);
  return 1;
}

/* ---- The reference ----------------------------------------------------------------------------------------------- */

/* The user value keeps decoder, windows and path. */
typedef struct reference {
  qn__reference *r;
} reference;

/* reference(decoder, hash of its model, windows, path or nil) -> reference, or nil, message, code */
static int reference_open(lua_State *L) {
  qn__decoder *d = qn__lua_decoder_at(L, 1);
  const char *model = luaL_checkstring(L, 2), *path = luaL_optstring(L, 4, NULL);
  const qn__windows *w = qn__lua_windows_at(L, 3);
  lua_settop(L, 4);
  reference *r = lua_newuserdatauv(L, sizeof *r, 1);
  r->r = NULL;
  luaL_setmetatable(L, reference_class);
  lua_createtable(L, 4, 0);
  for (int i = 1; i <= 4; i++) lua_pushvalue(L, i), lua_rawseti(L, -2, i);
  lua_setiuservalue(L, -2, 1);
  qn_status s = qn__reference_open(d, model, w, path, &r->r);
  return s == QN_OK ? 1 : qn__lua_fail(L, s);
}

static qn__reference *check_reference(lua_State *L, int index) {
  reference *r = luaL_checkudata(L, index, reference_class);
  luaL_argcheck(L, r->r, index, "the reference is closed");
  qn__lua_check_decoders(L, index, 1);
  return r->r;
}

static int reference_close(lua_State *L) {
  reference *r = luaL_checkudata(L, 1, reference_class);
  qn__reference_close(r->r);
  r->r = NULL;
  return 0;
}

/* ---- Summaries --------------------------------------------------------------------------------------------------- */

/* A number that is one: a field of NaN is left out. */
static void set_number(lua_State *L, const char *name, double x) {
  if (isfinite(x)) qn__lua_set_number(L, name, x);
}

/* { mean =, error =, df =, low =, high = }: an interval of 95 %, unless there is but one cluster */
static void push_estimate(lua_State *L, qn__estimate e) {
  double half = qn__half_width(e, .95);
  lua_newtable(L);
  set_number(L, "mean", e.mean);
  set_number(L, "error", e.error);
  set_number(L, "df", e.df);
  set_number(L, "low", e.mean - half);
  set_number(L, "high", e.mean + half);
}

static void set_estimate(lua_State *L, const char *name, qn__estimate e) {
  push_estimate(L, e);
  lua_setfield(L, -2, name);
}

static void set_percentiles(lua_State *L, const char *name, const double at[QN_PERCENTILES]) {
  static const char *const names[QN_PERCENTILES] = {"p1", "p5", "p10", "median", "p90", "p95", "p99", "p999", "max"};
  lua_getfield(L, -1, name);
  for (int i = 0; i < QN_PERCENTILES; i++) set_number(L, names[i], at[i]);
  lua_pop(L, 1);
}

static void fill_summary(lua_State *L, const qn__summary *s, bool compared) {
  qn__lua_set_integer(L, "tokens", s->tokens);
  qn__lua_set_integer(L, "windows", s->windows);
  qn__lua_set_integer(L, "broken_tokens", s->broken_tokens);
  qn__lua_set_integer(L, "broken_logits", s->broken_logits);
  if (s->broken_tokens || !s->tokens) return;
  set_estimate(L, "nll", s->nll);
  set_estimate(L, "greedy", s->greedy);
  if (!compared) return;
  set_estimate(L, "nll_reference", s->nll_reference);
  set_estimate(L, "delta_nll", s->delta_nll);
  set_estimate(L, "delta_nll_unpaired", s->delta_nll_unpaired);
  set_estimate(L, "kl", s->kl);
  set_percentiles(L, "kl", s->kl_at);
  set_estimate(L, "same_top", s->same_top);
  set_estimate(L, "delta_p", s->delta_p);
  set_percentiles(L, "delta_p", s->delta_p_at);
  set_number(L, "delta_p_rms", s->delta_p_rms);
}

/* ---- Evaluating -------------------------------------------------------------------------------------------------- */

/* The script's progress function, at `index`; its first error is kept on the stack. */
typedef struct teller {
  lua_State *L;
  int index;
  int64_t done, total;
  bool raised, stop;
} teller;

static int tell_script(lua_State *L) {
  teller *t = lua_touserdata(L, 2);
  lua_settop(L, 1);
  lua_pushinteger(L, t->done);
  lua_pushinteger(L, t->total);
  lua_call(L, 2, 1);
  t->stop = lua_isboolean(L, -1) && !lua_toboolean(L, -1);
  return 0;
}

static bool tell(void *ud, int64_t done, int64_t total) {
  teller *t = ud;
  if (lua_isnoneornil(t->L, t->index)) return true;
  t->done = done;
  t->total = total;
  t->raised = qn__lua_protected(t->L, tell_script, t->index, t);
  return !t->raised && !t->stop;
}

/* Options of the table at `index`: log =, key =, stop =, threads =. */
static qn__evaluate_options read_options(lua_State *L, int index, teller *t) {
  luaL_checktype(L, index, LUA_TTABLE);
  luaL_checkstack(L, 20, NULL);
  return (qn__evaluate_options){.log = qn__lua_text(L, index, "log", NULL),
                                .key = qn__lua_text(L, index, "key", ""),
                                .stop = qn__lua_integer(L, index, "stop", 0),
                                .threads = (int)qn__lua_integer(L, index, "threads", 0),
                                .progress = tell,
                                .ud = t};
}

/* log_look(path) -> { entries =, behind =, content = } of a log (eval/log.h), or nil, message, code */
static int log_look(lua_State *L) {
  qn__log_summary of;
  qn_status s = qn__log_look(luaL_checkstring(L, 1), &of);
  if (s != QN_OK) return qn__lua_fail(L, s);
  lua_createtable(L, 0, 3);
  qn__lua_set_integer(L, "entries", (int64_t)of.entries);
  qn__lua_set_integer(L, "behind", (int64_t)of.behind);
  lua_pushstring(L, of.content), lua_setfield(L, -2, "content");
  return 1;
}

typedef struct result {
  qn__evaluated tokens;
  qn__answered answers;
} result;

static int result_gc(lua_State *L) {
  result *r = luaL_checkudata(L, 1, result_class);
  qn__evaluated_free(&r->tokens);
  qn__answered_free(&r->answers);
  return 0;
}

static result *new_result(lua_State *L) {
  result *r = new_object(L, sizeof *r, result_class);
  r->tokens.log.fd = r->answers.log.fd = -1;
  return r;
}

static qn_status set_parts(lua_State *L, const qn__evaluated *e, const char *name, int n, int *field, qn__part *part,
                           bool compared) {
  qn__summary s;
  lua_createtable(L, n, 0);
  for (*field = 0; *field < n; ++*field) {
    QN_TRY(qn__summarize(e->window, (size_t)e->n, *part, &s));
    lua_newtable(L);
    fill_summary(L, &s, compared);
    lua_rawseti(L, -2, *field + 1);
  }
  *field = -1;
  lua_setfield(L, -2, name);
  return QN_OK;
}

/* Means of each window, for whoever pairs two candidates. */
static void set_windows(lua_State *L, const qn__evaluated *e, bool compared) {
  static const char *const names[] = {"w_domain", "w_nll", "w_nll_reference", "w_kl"};
  int count = compared ? 4 : 2;
  for (int i = 0; i < count; i++) lua_createtable(L, (int)e->n, 0);
  for (int64_t w = 0; w < e->n; w++) {
    double sum[4] = {(double)(e->window[w].domain + 1) * (double)e->window[w].n};
    for (int64_t i = 0; i < e->window[w].n; i++) {
      const qn__token_score *t = &e->window[w].token[i];
      sum[1] += (double)t->nll, sum[2] += (double)t->nll_reference, sum[3] += (double)t->kl;
    }
    for (int i = 0; i < count; i++) {
      lua_pushnumber(L, sum[i] / (double)e->window[w].n);
      lua_rawseti(L, i - count - 1, w + 1);
    }
  }
  for (int i = count - 1; i >= 0; i--) lua_setfield(L, -i - 2, names[i]);
}

static qn_status push_evaluated(lua_State *L, const qn__evaluated *e, int domains, bool compared) {
  qn__summary s;
  qn__part p = QN_ALL_TOKENS;
  lua_newtable(L);
  QN_TRY(qn__summarize(e->window, (size_t)e->n, p, &s));
  fill_summary(L, &s, compared);
  qn__lua_set_integer(L, "computed", e->computed);
  QN_TRY(set_parts(L, e, "by_domain", domains, &p.domain, &p, compared));
  QN_TRY(set_parts(L, e, "by_position", QN_QUARTILES, &p.quartile, &p, compared));
  if (compared) QN_TRY(set_parts(L, e, "by_confidence", QN_CONFIDENCES, &p.confidence, &p, compared));
  if (!s.broken_tokens) set_windows(L, e, compared);
  return QN_OK;
}

/* evaluate(decoder, windows, number of domains, reference or nil, options, progress or nil) -> table, or nil, message,
 * code */
static int evaluate(lua_State *L) {
  qn__decoder *d = qn__lua_decoder_at(L, 1);
  const qn__windows *w = qn__lua_windows_at(L, 2);
  int domains = (int)luaL_checkinteger(L, 3);
  qn__reference *r = lua_isnil(L, 4) ? NULL : check_reference(L, 4);
  lua_settop(L, 6);
  teller t = {.L = L, .index = 6};
  qn__evaluate_options o = read_options(L, 5, &t);
  result *x = new_result(L);
  qn_status s = qn__evaluate(d, w, r, &o, &x->tokens);
  if (s == QN_OK && !t.raised) s = push_evaluated(L, &x->tokens, domains, r != NULL);
  qn__evaluated_free(&x->tokens); /* the next evaluation may want the log */
  if (t.raised) return lua_error(L);
  return s == QN_OK ? 1 : qn__lua_fail(L, s);
}

/* ---- Tasks ------------------------------------------------------------------------------------------------------- */

static qn_status encode(void *ud, const char *text, size_t size, int32_t **ids, int64_t *n) {
  qn__ids all = {0};
  QN_TRY(qn__tokenizer_encode(ud, text, size, &all));
  *ids = all.id;
  *n = all.n;
  return QN_OK;
}

/* task(model, path, { context =, tokenizer = }) -> task, { n =, truncated =, longest =, hash = }; or nil, message,
 * code */
static int task_read(lua_State *L) {
  const qn_model *m = qn__lua_model_at(L, 1);
  const char *path = luaL_checkstring(L, 2);
  luaL_checktype(L, 3, LUA_TTABLE);
  lua_newtable(L);
  texts *t = new_texts(L, lua_gettop(L));
  qn__task *task = new_object(L, sizeof *task, task_class);
  qn_status s = qn__tokenizer_open(m, qn__lua_text(L, 3, "tokenizer", NULL), &t->tokenizer);
  if (s == QN_OK) {
    qn__bos bos = qn__tokenizer_bos(t->tokenizer);
    s = qn__task_read(
        path, &(qn__task_options){encode, t->tokenizer, qn__lua_integer(L, 3, "context", 512), bos.add ? bos.id : -1},
        task);
  }
  if (s != QN_OK) return qn__lua_fail(L, s);
  lua_newtable(L);
  qn__lua_set_integer(L, "n", task->n);
  qn__lua_set_integer(L, "truncated", task->truncated);
  qn__lua_set_integer(L, "longest", task->longest);
  qn__lua_set_text(L, "hash", task->hash);
  return 2;
}

static int task_gc(lua_State *L) {
  qn__task_free(luaL_checkudata(L, 1, task_class));
  return 0;
}

/* { n =, computed =, broken =, acc =, acc_norm =, acc_bytes =: estimates; items = { 0 or 1: right by acc… } } */
static void push_answered(lua_State *L, const qn__task *t, const qn__answered *a) {
  static const char *const names[] = {"acc", "acc_norm", "acc_bytes"};
  double *right = qn__lua_block(L, 3 * (size_t)(a->n + 1) * sizeof *right);
  int64_t broken = 0;
  lua_newtable(L);
  lua_createtable(L, (int)a->n, 0);
  for (int64_t i = 0; i < a->n; i++) {
    qn__verdict v = qn__judge(&t->item[i], qn__answers(a, i));
    right[i] = v.acc, right[a->n + i] = v.acc_norm, right[2 * a->n + i] = v.acc_bytes;
    broken += v.broken;
    lua_pushinteger(L, v.acc);
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, "items");
  qn__lua_set_integer(L, "n", a->n);
  qn__lua_set_integer(L, "computed", a->computed);
  qn__lua_set_integer(L, "broken", broken);
  for (int i = 0; !broken && i < 3; i++) set_estimate(L, names[i], qn__mean(right + i * a->n, NULL, (size_t)a->n));
}

/* evaluate_task(decoder, task, options, progress or nil) -> table, or nil, message, code */
static int evaluate_task(lua_State *L) {
  qn__decoder *d = qn__lua_decoder_at(L, 1);
  const qn__task *task = luaL_checkudata(L, 2, task_class);
  lua_settop(L, 4);
  teller t = {.L = L, .index = 4};
  qn__evaluate_options o = read_options(L, 3, &t);
  result *x = new_result(L);
  qn_status s = qn__evaluate_task(d, task, &o, &x->answers);
  if (s == QN_OK && !t.raised) push_answered(L, task, &x->answers);
  qn__answered_free(&x->answers);
  if (t.raised) return lua_error(L);
  return s == QN_OK ? 1 : qn__lua_fail(L, s);
}

/* ---- Statistics -------------------------------------------------------------------------------------------------- */

/* mean({ number… }) -> { mean =, error =, df =, low =, high = } */
static int mean(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  size_t n = (size_t)luaL_len(L, 1);
  double *x = qn__lua_block(L, (n + 1) * sizeof *x);
  for (size_t i = 0; i < n; i++) {
    lua_rawgeti(L, 1, (lua_Integer)i + 1);
    x[i] = luaL_checknumber(L, -1);
    lua_pop(L, 1);
  }
  push_estimate(L, qn__mean(x, NULL, n));
  return 1;
}

/* mcnemar(worse, better) -> p */
static int mcnemar(lua_State *L) {
  lua_Integer worse = luaL_checkinteger(L, 1), better = luaL_checkinteger(L, 2);
  luaL_argcheck(L, worse >= 0 && better >= 0, 1, "counts are not negative");
  lua_pushnumber(L, qn__mcnemar(worse, better));
  return 1;
}

/* equivalence({ mean =, error =, df = }, margin) -> p by which a difference of the margin or more is rejected */
static int equivalence(lua_State *L) {
  double x[3] = {0, NAN, 1};
  static const char *const names[] = {"mean", "error", "df"};
  luaL_checktype(L, 1, LUA_TTABLE);
  for (int i = 0; i < 3; i++) {
    lua_getfield(L, 1, names[i]);
    x[i] = luaL_optnumber(L, -1, x[i]);
    lua_pop(L, 1);
  }
  lua_pushnumber(L, qn__equivalence((qn__estimate){x[0], x[1], x[2]}, luaL_checknumber(L, 2)));
  return 1;
}

void qn__lua_eval(lua_State *L) {
  static const luaL_Reg reference_methods[] = {
      {"close", reference_close}, {"__gc", reference_close}, {"__close", reference_close}, {NULL, NULL}};
  static const struct {
    const char *name;
    lua_CFunction gc;
  } plain[] = {{windows_class, windows_gc}, {task_class, task_gc}, {result_class, result_gc}, {texts_class, texts_gc}};
  static const luaL_Reg functions[] = {
      {"windows", windows_cut},
      {"model_hash", model_hash},
      {"reference", reference_open},
      {"evaluate", evaluate},
      {"log_look", log_look},
      {"task", task_read},
      {"evaluate_task", evaluate_task},
      {"mean", mean},
      {"mcnemar", mcnemar},
      {"equivalence", equivalence},
      {NULL, NULL},
  };
  qn__lua_class(L, reference_class, reference_methods);
  for (size_t i = 0; i < QN_COUNT(plain); i++)
    qn__lua_class(L, plain[i].name, (luaL_Reg[]){{"__gc", plain[i].gc}, {NULL, NULL}});
  luaL_setfuncs(L, functions, 0);
}
