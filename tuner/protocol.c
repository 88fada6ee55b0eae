/* protocol.c - a device's description as JSON. */
#include "protocol.h"
#include "fail.h"
#include "json.h"
#include <stdio.h>

cJSON *qn__info_to_json(const qn_device_info *d) {
  cJSON *j = cJSON_CreateObject(), *cache;
  qn__json_add_text(j, "name", d->name);
  qn__json_add_text(j, "target", d->target);
  qn__json_add_text(j, "arch", d->arch);
  qn__json_add_text(j, "product", d->product);
  qn__json_add_text(j, "model", d->model);
  qn__json_add_text(j, "driver", d->driver);
  qn__json_add_number(j, "threads", d->threads);
  cache = qn__json_add_array(j, "cache");
  for (int i = 0; i < 3; i++) qn__json_append_number(cache, (double)d->cache[i]);
  qn__json_add_number(j, "sm", d->sm);
  qn__json_add_number(j, "sms", d->sms);
  qn__json_add_number(j, "smem", (double)d->smem);
  qn__json_add_number(j, "regs", (double)d->regs);
  qn__json_add_number(j, "smem_sm", (double)d->smem_sm);
  qn__json_add_number(j, "threads_sm", d->threads_sm);
  qn__json_add_number(j, "ctas_sm", d->ctas_sm);
  qn__json_add_number(j, "timed", d->timed);
  return j;
}

static void text(const cJSON *j, const char *key, char *out, size_t size) {
  snprintf(out, size, "%s", qn__json_text(j, key, ""));
}

static double value_of(const cJSON *x) { return cJSON_IsNumber(x) ? x->valuedouble : 0; }

qn_status qn__info_from_json(const cJSON *j, qn_device_info *out) {
  *out = (qn_device_info){0};
  if (!cJSON_IsObject(j)) return qn__fail(QN_E_FORMAT, "the worker did not describe its device");
  text(j, "name", out->name, sizeof out->name);
  text(j, "target", out->target, sizeof out->target);
  if (!qn__target(out->target)) return qn__fail(QN_E_FORMAT, "the worker's device is of no known target");
  text(j, "arch", out->arch, sizeof out->arch);
  text(j, "product", out->product, sizeof out->product);
  text(j, "model", out->model, sizeof out->model);
  text(j, "driver", out->driver, sizeof out->driver);
  out->threads = (int)qn__json_number(j, "threads", 0);
  for (int i = 0; i < 3; i++) out->cache[i] = (int64_t)value_of(cJSON_GetArrayItem(qn__json_get(j, "cache"), i));
  out->sm = (int)qn__json_number(j, "sm", 0);
  out->sms = (int)qn__json_number(j, "sms", 0);
  out->smem = (int64_t)qn__json_number(j, "smem", 0);
  out->regs = (int64_t)qn__json_number(j, "regs", 0);
  out->smem_sm = (int64_t)qn__json_number(j, "smem_sm", 0);
  out->threads_sm = (int)qn__json_number(j, "threads_sm", 0);
  out->ctas_sm = (int)qn__json_number(j, "ctas_sm", 0);
  out->timed = (int)qn__json_number(j, "timed", 0);
  return QN_OK;
}
