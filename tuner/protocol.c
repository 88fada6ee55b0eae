/* protocol.c - a device's description as JSON. */
#include "protocol.h"
#include "fail.h"
#include "json.h"
#include <stdio.h>

/* The fields of qn_device_info that the supervisor gets, beside `cache`. It evaluates no expressions and gets no `var`.
 */
#define TEXTS(X) X(name) X(target) X(arch) X(product) X(model) X(driver)
#define NUMBERS(X) X(threads) X(sm) X(sms) X(smem) X(regs) X(smem_sm) X(threads_sm) X(ctas_sm) X(timed)

cJSON *qn__info_to_json(const qn_device_info *d) {
  cJSON *j = cJSON_CreateObject();
#define X(field) qn__json_add_text(j, #field, d->field);
  TEXTS(X)
#undef X
#define X(field) qn__json_add_number(j, #field, (double)d->field);
  NUMBERS(X)
#undef X
  cJSON *cache = qn__json_add_array(j, "cache");
  for (int i = 0; i < 3; i++) qn__json_append_number(cache, (double)d->cache[i]);
  return j;
}

static double value_of(const cJSON *x) { return cJSON_IsNumber(x) ? x->valuedouble : 0; }

qn_status qn__info_from_json(const cJSON *j, qn_device_info *out) {
  *out = (qn_device_info){0};
  if (!cJSON_IsObject(j)) return qn__fail(QN_E_FORMAT, "the worker did not describe its device");
#define X(field) snprintf(out->field, sizeof out->field, "%s", qn__json_text(j, #field, ""));
  TEXTS(X)
#undef X
#define X(field) out->field = (__typeof__(out->field))qn__json_number(j, #field, 0);
  NUMBERS(X)
#undef X
  for (int i = 0; i < 3; i++) out->cache[i] = (int64_t)value_of(cJSON_GetArrayItem(qn__json_get(j, "cache"), i));
  return qn__target(out->target) ? QN_OK : qn__fail(QN_E_FORMAT, "the worker's device is of no known target");
}
