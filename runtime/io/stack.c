/* stack.c - the experts of a layer, however the file has them, as one weight. */
#include "model.h"
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- How many there should be ------------------------------------------------------------------------------------ */

static int64_t said_by_gguf(const qn_model *m) {
  static const char tail[] = ".expert_count";
  const qn_meta *v;
  for (size_t i = 0; (v = qn_model_meta(m, i)); i++) {
    size_t n = strlen(v->key), t = sizeof tail - 1;
    if (n > t && !strcmp(v->key + n - t, tail) && v->type != QN_META_STRING && v->type != QN_META_ARRAY)
      return v->number >= 1 && v->number <= INT32_MAX ? (int64_t)v->number : 0;
  }
  return 0;
}

/* What the configuration says, as Mixtral, Qwen, DeepSeek and GGUFs call it; 0: nothing. */
static int64_t experts_said(const qn_model *m) {
  static const char *const keys[] = {"num_local_experts", "num_experts", "n_routed_experts"};
  int64_t n = said_by_gguf(qn__model_settings(m));
  for (size_t i = 0; n < 1 && i < QN_COUNT(keys); i++) n = qn__value_int(qn__config_value(m, keys[i]), 0);
  return n;
}

/* ---- Making ------------------------------------------------------------------------------------------------------ */

/* A tensor of one expert. Those of the same key are a stack. */
typedef struct member {
  const char *key; /* the name with * for the number */
  int64_t number;
  const qn_tensor *tensor;
} member;

static int by_key(const void *a, const void *b) {
  const member *x = a, *y = b;
  int key = strcmp(x->key, y->key);
  return key ? key : (x->number > y->number) - (x->number < y->number);
}

static int by_place(const void *a, const void *b) {
  const qn_stack *x = a, *y = b;
  return (x->tensor[0] > y->tensor[0]) - (x->tensor[0] < y->tensor[0]);
}

/* "a.experts.12.up.weight" -> "a.experts.*.up.weight" and 12. A key of NULL: it has no such number. */
static qn_status split(qn_model *m, const qn_tensor *t, member *out) {
  static const char word[] = "experts.";
  const char *at = strstr(t->name, word), *digits, *end;
  *out = (member){.tensor = t};
  if (!at || (at != t->name && at[-1] != '.')) return QN_OK;
  digits = end = at + sizeof word - 1;
  while (isdigit((unsigned char)*end) && end - digits < 9) end++;
  if (end == digits || *end != '.') return QN_OK;
  out->number = strtol(digits, NULL, 10);
  out->key = qn__arena_print(&m->arena, "%.*s*%s", (int)(digits - t->name), t->name, end);
  return out->key ? QN_OK : qn__fail(QN_E_NOMEM, "%s", t->name);
}

/* What cannot be read does not speak for itself. */
static bool alike(const qn_tensor *a, const qn_tensor *b) {
  if (!a->format || !b->format) return true;
  return a->n == b->n && a->k == b->k && !strcmp(a->format, b->format);
}

/* A refusal: a text of the model's. */
static qn_status refuse(qn_model *m, const char **out, const char *format, ...) {
  char text[512];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  *out = qn__arena_text(&m->arena, text, strlen(text));
  return *out ? QN_OK : qn__fail(QN_E_NOMEM, "%s", text);
}

/* Why n tensors in the order of their numbers are no stack of `said` experts, or NULL. */
static qn_status judge(qn_model *m, const member *first, size_t n, int64_t said, const char **why) {
  *why = NULL;
  for (size_t i = 0; i < n; i++) {
    intmax_t number = first[i].number;
    if (first[i].tensor->refusal) return refuse(m, why, "expert %jd: %s", number, first[i].tensor->refusal);
    if (said && number >= said)
      return refuse(m, why, "the configuration says %jd experts, and there is number %jd", (intmax_t)said, number);
    if (number != (intmax_t)i) return refuse(m, why, "there is expert %jd, and number %zu is not", number, i);
  }
  if (said <= (int64_t)n) return QN_OK;
  return refuse(m, why, "the configuration says %jd experts, and number %zu is not there", (intmax_t)said, n);
}

/* Experts first[0], first[step]…, which are all of them. */
static qn_status add(qn_model *m, const char *name, const member *first, size_t step, int64_t experts,
                     const char *refusal) {
  const qn_tensor *of = first->tensor;
  const qn_tensor **list = qn__arena_take(&m->arena, (size_t)experts * sizeof(const qn_tensor *));
  if (!list) return qn__fail(QN_E_NOMEM, "%s: %jd experts", name, (intmax_t)experts);
  for (int64_t e = 0; e < experts; e++) list[e] = first[(size_t)e * step].tensor;
  m->stack[m->n_stacks++] = (qn_stack){.name = name,
                                       .format = refusal ? NULL : of->format,
                                       .refusal = refusal,
                                       .experts = experts,
                                       .n = of->n,
                                       .k = of->k,
                                       .tensor = list};
  return QN_OK;
}

static qn_status add_slices(qn_model *m, const qn_tensor *t, int64_t said) {
  const char *why = t->refusal;
  if (!why && said && said != t->slices)
    QN_TRY(refuse(m, &why, "the configuration says %jd experts, and it has %jd", (intmax_t)said, (intmax_t)t->slices));
  return add(m, t->name, &(member){.tensor = t}, 0, t->slices, why);
}

/* Tensors of one key. Those of several formats or shapes are no stack: each is served by itself. */
static qn_status add_members(qn_model *m, const member *first, size_t n, int64_t said) {
  const char *why;
  for (size_t i = 1; i < n; i++)
    if (!alike(first[0].tensor, first[i].tensor)) return QN_OK;
  QN_TRY(judge(m, first, n, said, &why));
  return add(m, first->key, first, 1, (int64_t)n, why);
}

static qn_status add_all(qn_model *m, member *list) {
  int64_t said = experts_said(m);
  size_t n = 0;
  for (size_t i = 0; i < m->n_weights; i++) {
    const qn_tensor *t = &m->weight[i].pub;
    if (!t->linear || t->tied_to) continue;
    if (t->slices > 1) QN_TRY(add_slices(m, t, said));
    else QN_TRY(split(m, t, &list[n]));
    n += t->slices <= 1 && list[n].key;
  }
  qsort(list, n, sizeof *list, by_key);
  for (size_t i = 0, end; i < n; i = end) {
    for (end = i + 1; end < n && !strcmp(list[i].key, list[end].key);) end++;
    QN_TRY(add_members(m, list + i, end - i, said));
  }
  qsort(m->stack, m->n_stacks, sizeof *m->stack, by_place);
  return QN_OK;
}

qn_status qn__model_stacks(qn_model *m) {
  m->stack = qn__arena_take(&m->arena, (m->n_weights + 1) * sizeof *m->stack);
  member *list = calloc(m->n_weights + 1, sizeof *list);
  qn_status s = m->stack && list ? add_all(m, list) : qn__fail(QN_E_NOMEM, "stacks of %zu weights", m->n_weights);
  free(list);
  return s;
}

/* ---- Public ------------------------------------------------------------------------------------------------------ */

const qn_stack *qn_model_stack(const qn_model *m, size_t i) { return m && i < m->n_stacks ? &m->stack[i] : NULL; }

qn_status qn_model_expert(const qn_model *m, const qn_stack *s, int64_t expert, qn_planes **out) {
  if (out) *out = NULL;
  if (!m || !s || !out) return qn__fail(QN_E_ARG, "qn_model_expert: NULL argument");
  if (s->refusal) return qn__fail(QN_E_SHAPE, "%s: %s", s->name, s->refusal);
  if (expert < 0 || expert >= s->experts)
    return qn__fail(QN_E_ARG, "%s: expert %jd, allowed 0 .. %jd", s->name, (intmax_t)expert, (intmax_t)s->experts - 1);
  const qn_tensor *t = s->tensor[expert];
  return qn_model_planes(m, t, t->slices > 1 ? expert : 0, out);
}
