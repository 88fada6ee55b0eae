/* json.c - see json.h. A spoiled node has the type cJSON_Invalid, which cJSON refuses to print. */
#include "json.h"
#include "fail.h"
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

/* Where a zero character is written; `n`: nowhere. Outside of texts JSON has no backslashes. */
static size_t find_zero(const char *text, size_t n) {
  for (size_t i = 0; i + 6 <= n; i++) {
    if (text[i] != '\\') continue;
    if (!memcmp(text + i, "\\u0000", 6)) return i;
    i++; /* what is escaped may be a backslash */
  }
  return n;
}

qn_status qn__json_parse(const char *text, size_t n, cJSON **out) {
  const char *end = text;
  errno = 0; /* which tells a lack of memory from a fault of the text */
  *out = cJSON_ParseWithLengthOpts(text, n, &end, false);
  if (!*out && errno == ENOMEM) return qn__fail(QN_E_NOMEM, "no memory for %zu bytes of JSON", n);
  size_t at = (size_t)(end - text), zero = find_zero(text, n);
  const char *why = *out ? "something behind the JSON" : "malformed JSON";
  if (*out)
    while (at < n && text[at] && strchr(" \t\r\n", text[at])) at++;
  if (*out && at == n && zero < n) at = zero, why = "a zero character, \\u0000, is not read";
  else if (*out && at == n) return QN_OK;
  cJSON_Delete(*out);
  *out = NULL;
  return qn__fail(QN_E_FORMAT, "%s at byte %zu", why, at);
}

const cJSON *qn__json_get(const cJSON *object, const char *key) {
  return cJSON_GetObjectItemCaseSensitive(object, key);
}

double qn__json_number(const cJSON *object, const char *key, double absent) {
  const cJSON *x = qn__json_get(object, key);
  return cJSON_IsNumber(x) ? x->valuedouble : absent;
}

int qn__json_int(const cJSON *object, const char *key, int absent) {
  const cJSON *x = qn__json_get(object, key);
  return cJSON_IsNumber(x) ? x->valueint : absent;
}

const char *qn__json_text(const cJSON *object, const char *key, const char *absent) {
  const char *text = cJSON_GetStringValue(qn__json_get(object, key));
  return text ? text : absent;
}

/* ---- Building ---------------------------------------------------------------------------------------------------- */

/* `item` was to be added to `to`. */
static void settle(cJSON *to, cJSON *item, bool added) {
  if (added) return;
  cJSON_Delete(item);
  if (to) to->type = cJSON_Invalid;
}

void qn__json_add(cJSON *object, const char *key, cJSON *item) {
  settle(object, item, cJSON_AddItemToObject(object, key, item));
}

void qn__json_add_text(cJSON *object, const char *key, const char *text) {
  qn__json_add(object, key, cJSON_CreateString(text));
}

/* cJSON prints 15 digits where they are within an ulp or so: then the number is what they say. */
static double as_printed(double x) {
  char text[32];
  snprintf(text, sizeof text, "%.15g", x);
  const double y = strtod(text, NULL);
  return fabs(x - y) <= fmax(fabs(x), fabs(y)) * DBL_EPSILON ? y : x;
}

void qn__json_add_number(cJSON *object, const char *key, double number) {
  qn__json_add(object, key, cJSON_CreateNumber(as_printed(number)));
}

void qn__json_add_flag(cJSON *object, const char *key, bool flag) { qn__json_add(object, key, cJSON_CreateBool(flag)); }

cJSON *qn__json_add_array(cJSON *object, const char *key) {
  qn__json_add(object, key, cJSON_CreateArray());
  return cJSON_GetObjectItemCaseSensitive(object, key);
}

cJSON *qn__json_add_object(cJSON *object, const char *key) {
  qn__json_add(object, key, cJSON_CreateObject());
  return cJSON_GetObjectItemCaseSensitive(object, key);
}

void qn__json_append(cJSON *array, cJSON *item) { settle(array, item, cJSON_AddItemToArray(array, item)); }
void qn__json_append_number(cJSON *array, double number) { qn__json_append(array, cJSON_CreateNumber(number)); }
void qn__json_append_text(cJSON *array, const char *text) { qn__json_append(array, cJSON_CreateString(text)); }

bool qn__json_whole(const cJSON *json) {
  const cJSON *x;
  if (!json || cJSON_IsInvalid(json)) return false;
  cJSON_ArrayForEach(x, json)
    if (!qn__json_whole(x)) return false;
  return true;
}
