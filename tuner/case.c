/* case.c - cases to and from JSON, and onto a device. */
#include "case.h"
#include "desc_json.h"
#include "fail.h"
#include "file.h"
#include "function.h"
#include "hash.h"
#include "json.h"
#include "store.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

cJSON *qn__case_to_json(const qn_case *c) {
  cJSON *j = cJSON_CreateObject();
  qn__json_add_text(j, "problem", c->problem.spelling);
  qn__json_add(j, "format", qn__format_to_json(&c->format));
  qn__json_add_text(j, "name", c->name);
  qn__json_add_text(j, "hash", c->hash);
  qn__json_add_text(j, "image", c->image);
  qn__json_add_text(j, "sum", c->sum);
  qn__json_add_text(j, "symbol", c->symbol);
  qn__json_add(j, "layout", qn__layout_to_json(&c->layout, &c->format));
  qn__json_add(j, "recipe", qn__recipe_to_json(&c->recipe));
  qn__json_add_number(j, "m_min", (double)c->m_min);
  qn__json_add_number(j, "m_max", (double)c->m_max);
  qn__json_add_number(j, "m_tile", (double)c->m_tile);
  return j;
}

static qn_status text(const cJSON *j, const char *key, char *out, size_t size) {
  const char *s = qn__json_text(j, key, NULL);
  if (!s || strlen(s) >= size) return qn__fail(QN_E_FORMAT, "case: '%s' is missing or too long", key);
  memcpy(out, s, strlen(s) + 1);
  return QN_OK;
}

static qn_status count(const cJSON *j, const char *key, int64_t *out) {
  const cJSON *v = qn__json_get(j, key);
  if (!cJSON_IsNumber(v) || !(v->valuedouble >= 0 && v->valuedouble <= INT32_MAX))
    return qn__fail(QN_E_FORMAT, "case: '%s' is no number in 0 .. 2^31 - 1", key);
  *out = (int64_t)v->valuedouble;
  return QN_OK;
}

qn_status qn__case_from_json(const cJSON *j, qn_case *out) {
  char spelling[sizeof out->problem.spelling];
  *out = (qn_case){0};
  QN_TRY(text(j, "problem", spelling, sizeof spelling));
  QN_TRY(text(j, "name", out->name, sizeof out->name));
  QN_TRY(text(j, "hash", out->hash, sizeof out->hash));
  QN_TRY(text(j, "image", out->image, sizeof out->image));
  QN_TRY(text(j, "sum", out->sum, sizeof out->sum));
  QN_TRY(text(j, "symbol", out->symbol, sizeof out->symbol));
  QN_TRY(count(j, "m_min", &out->m_min));
  QN_TRY(count(j, "m_max", &out->m_max));
  QN_TRY(count(j, "m_tile", &out->m_tile));
  QN_TRY(qn__problem_parse(spelling, &out->problem));
  QN_TRY(qn__format_from_json(qn__json_get(j, "format"), &out->format));
  QN_TRY(qn__layout_from_json(qn__json_get(j, "layout"), &out->format, &out->layout));
  QN_TRY(qn__recipe_from_json(qn__json_get(j, "recipe"), &out->recipe));
  QN_TRY(qn__layout_check(&out->layout, &out->format, out->problem.n, out->problem.k));
  return qn__recipe_check(&out->recipe);
}

/* ---- Loading ----------------------------------------------------------------------------------------------------- */

static qn_status load(qn_device *d, const qn_case *c, const char *image, size_t size, qn_subject *out) {
  char sum[33];
  qn__hash_hex(image, size, sum);
  if (c->sum[0] && strcmp(sum, c->sum))
    return qn__fail(QN_E_IO, "%s is damaged: its content hash is %s, not %s", c->image, sum, c->sum);
  QN_TRY(d->ops->module_load(d, image, size, &out->module));
  int64_t var[QN_VAR_COUNT];
  memcpy(var, d->info.var, sizeof var);
  var[QN_VAR_M] = c->m_min, var[QN_VAR_N] = c->problem.n, var[QN_VAR_K] = c->problem.k;
  for (uint32_t i = 0; i < c->recipe.n_steps; i++) {
    int64_t shared = 0;
    QN_TRY(qn__expr_i64(qn__program(&c->recipe.pool, c->recipe.step[i].shared), var, &shared));
    QN_TRY(d->ops->entry(d, out->module, c->recipe.step[i].entry, shared, &out->fn[i]));
  }
  return QN_OK;
}

static qn_status open_library(qn_device *d, const qn_case *c, qn_subject *out) {
  if (!d->target->host_code) return qn__fail(QN_E_DEVICE, "%s: functions are the host's", c->name);
  out->library = dlopen(c->image, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE); /* it may have threads */
  if (!out->library) return qn__fail(QN_E_IO, "%s", dlerror());
  uint32_t last = c->recipe.n_steps - 1;
  for (uint32_t i = 0; i < last; i++) {
    qn_function f = qn__function_find(c->recipe.step[i].entry);
    memcpy(&out->fn[i], &f, sizeof f);
    if (!f) return qn__fail(QN_E_NO_KERNEL, "the library has no function '%s'", c->recipe.step[i].entry);
  }
  out->fn[last] = dlsym(out->library, c->symbol);
  return out->fn[last] ? QN_OK : qn__fail(QN_E_NO_KERNEL, "%s has no function %s", c->image, c->symbol);
}

qn_status qn__subject_open(qn_device *d, const qn_case *c, qn_subject *out) {
  char *image = NULL;
  size_t size = 0;
  *out = (qn_subject){.c = c, .device = d};
  if (*c->symbol) {
    qn_status s = open_library(d, c, out);
    if (s) qn__subject_close(out);
    return s;
  }
  QN_TRY(qn__file_read(c->image, &image, &size)); /* PTX is text: it ends with a zero byte */
  qn_status s = load(d, c, image, size, out);
  free(image);
  if (s) qn__subject_close(out);
  return s;
}

void qn__subject_close(qn_subject *s) {
  if (s->library) dlclose(s->library);
  if (s->module) s->device->ops->module_free(s->device, s->module);
  *s = (qn_subject){0};
}
