/* protocol.c - a device's description as JSON. */
#include "protocol.h"
#include "fail.h"
#include "json.h"
#include <stdio.h>

cJSON *qn__info_to_json(const qn_device_info *d) {
  cJSON *j = cJSON_CreateObject(), *cache;
  cJSON_AddStringToObject(j, "name", d->name);
  cJSON_AddStringToObject(j, "target", d->target);
  cJSON_AddStringToObject(j, "arch", d->arch);
  cJSON_AddStringToObject(j, "product", d->product);
  cJSON_AddStringToObject(j, "model", d->model);
  cJSON_AddStringToObject(j, "driver", d->driver);
  cJSON_AddNumberToObject(j, "threads", d->threads);
  cache = cJSON_AddArrayToObject(j, "cache");
  for (int i = 0; i < 3; i++) cJSON_AddItemToArray(cache, cJSON_CreateNumber((double)d->cache[i]));
  cJSON_AddNumberToObject(j, "sm", d->sm);
  cJSON_AddNumberToObject(j, "sms", d->sms);
  cJSON_AddNumberToObject(j, "smem", (double)d->smem);
  cJSON_AddNumberToObject(j, "regs", (double)d->regs);
  cJSON_AddNumberToObject(j, "smem_sm", (double)d->smem_sm);
  cJSON_AddNumberToObject(j, "threads_sm", d->threads_sm);
  cJSON_AddNumberToObject(j, "ctas_sm", d->ctas_sm);
  cJSON_AddNumberToObject(j, "timed", d->timed);
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
