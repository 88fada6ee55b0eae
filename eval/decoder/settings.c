/* settings.c - values by name, out of config.json or a GGUF header. */
#include "settings.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
  const char *json[2], *gguf;
} keys[QN_S_COUNT] = {
#define QN_X(name, json, other, gguf) {{json, other}, gguf},
    QN_SETTINGS(QN_X)
#undef QN_X
};

/* ---- Where a value is -------------------------------------------------------------------------------------------- */

/* The value in config.json; a null if there is no other; NULL: it is not there. */
static const cJSON *in_json(const qn__settings *s, qn__setting what) {
  const cJSON *null = NULL;
  for (size_t p = 0; p < QN_COUNT(s->part); p++)
    for (size_t i = 0; i < QN_COUNT(keys[what].json); i++) {
      const char *key = keys[what].json[i];
      const cJSON *v = key ? qn__member(s->part[p], key) : NULL;
      if (v && !cJSON_IsNull(v)) return v;
      if (v) null = v;
    }
  return null;
}

static const qn_meta *in_gguf(const qn__settings *s, qn__setting what) {
  char key[128];
  if (!keys[what].gguf || !s->model->gguf) return NULL;
  snprintf(key, sizeof key, "%s.%s", s->name, keys[what].gguf);
  return qn_model_find_meta(s->model, key);
}

bool qn__setting_given(const qn__settings *s, qn__setting what) {
  const cJSON *v = in_json(s, what);
  return (v && !cJSON_IsNull(v)) || in_gguf(s, what);
}

bool qn__setting_is_list(const qn__settings *s, qn__setting what) {
  const qn_meta *meta = in_gguf(s, what);
  return meta ? meta->type == QN_META_ARRAY : cJSON_IsArray(in_json(s, what));
}

bool qn__setting_has(const qn__settings *s, qn__setting what, int64_t number) {
  const cJSON *item, *list = in_json(s, what);
  cJSON_ArrayForEach(item, list)
    if (cJSON_IsNumber(item) && item->valuedouble == (double)number) return true;
  return false;
}

qn_status qn__setting_refuse(const qn__settings *s, qn__setting what, const char *format, ...) {
  char why[512];
  va_list args;
  va_start(args, format);
  vsnprintf(why, sizeof why, format, args);
  va_end(args);
  if (s->model->gguf)
    return qn__fail(QN_E_FORMAT, "GGUF header: %s.%s: %s", s->name, keys[what].gguf ? keys[what].gguf : "?", why);
  const char *key = keys[what].json[0];
  for (size_t p = 0; p < QN_COUNT(s->part); p++)
    if (keys[what].json[1] && qn__member(s->part[p], keys[what].json[1])) key = keys[what].json[1];
  return qn__fail(QN_E_FORMAT, "config.json: %s: %s", key ? key : "?", why);
}

/* ---- Values ------------------------------------------------------------------------------------------------------ */

static qn_status short_list(const qn__settings *s, qn__setting what, int64_t items, int64_t item) {
  return qn__setting_refuse(s, what, "a list of %jd, which says nothing of number %jd", (intmax_t)items,
                            (intmax_t)item);
}

/* The value itself, or element `item` of a list. */
static qn_status json_item(const qn__settings *s, qn__setting what, int64_t item, const cJSON **v) {
  if (!cJSON_IsArray(*v)) return QN_OK;
  int n = cJSON_GetArraySize(*v);
  if (item < 0 || item >= n) return short_list(s, what, n, item);
  *v = cJSON_GetArrayItem(*v, (int)item);
  return QN_OK;
}

/* Element of an array of numbers of a GGUF. */
static qn_status gguf_item(const qn__settings *s, qn__setting what, const qn_meta *m, int64_t item, double *value) {
  if (item < 0 || (uint64_t)item >= m->count) return short_list(s, what, (int64_t)m->count, item);
  const uint8_t *p = m->data;
  size_t i = (size_t)item;
  int32_t word;
  switch (m->item) {
  case QN_META_BOOL:
  case QN_META_U8:
    *value = p[i];
    return QN_OK;
  case QN_META_U32:
    *value = qn__le32(p + 4 * i);
    return QN_OK;
  case QN_META_I32:
    word = (int32_t)qn__le32(p + 4 * i);
    *value = word;
    return QN_OK;
  case QN_META_F32:
    *value = (double)qn__f32(p + 4 * i);
    return QN_OK;
  default:
    return qn__setting_refuse(s, what, "a list of another type than bool, u8, u32, i32 or f32");
  }
}

static double standard(const qn__settings *s, qn__setting what, double fallback) {
  for (size_t i = 0; i < QN__STANDARDS && s->arch->standard[i].what; i++)
    if (s->arch->standard[i].what == what) return s->arch->standard[i].value;
  return fallback;
}

qn_status qn__setting_number(const qn__settings *s, qn__setting what, int64_t item, double *value) {
  const cJSON *v = in_json(s, what);
  const qn_meta *meta = in_gguf(s, what);
  if (cJSON_IsNull(v)) return QN_OK;
  if (!v && !meta) return *value = standard(s, what, *value), QN_OK;
  if (meta && meta->type == QN_META_ARRAY) QN_TRY(gguf_item(s, what, meta, item, value));
  else if (meta && meta->type == QN_META_STRING) return qn__setting_refuse(s, what, "a text; a number is expected");
  else if (meta) *value = meta->number;
  else {
    QN_TRY(json_item(s, what, item, &v));
    if (!cJSON_IsNumber(v) && !cJSON_IsBool(v)) return qn__setting_refuse(s, what, "a number is expected");
    *value = cJSON_IsNumber(v) ? v->valuedouble : (double)cJSON_IsTrue(v);
  }
  return isfinite(*value) ? QN_OK : qn__setting_refuse(s, what, "not a finite number");
}

qn_status qn__setting_size(const qn__settings *s, qn__setting what, int64_t item, int64_t least, int64_t most,
                           int64_t *value) {
  double v = (double)*value;
  QN_TRY(qn__setting_number(s, what, item, &v));
  char said[32] = "missing";
  if (qn__setting_given(s, what)) snprintf(said, sizeof said, "%.15g", v);
  if (!(v >= (double)least && v <= (double)most) || v != floor(v))
    return qn__setting_refuse(s, what, "%s; a whole number from %jd to %jd is expected", said, (intmax_t)least,
                              (intmax_t)most);
  *value = (int64_t)v;
  return QN_OK;
}

qn_status qn__setting_word(const qn__settings *s, qn__setting what, int64_t item, char out[QN__WORD]) {
  const cJSON *v = in_json(s, what);
  const qn_meta *meta = in_gguf(s, what);
  *out = 0;
  if (meta && meta->type != QN_META_STRING) return qn__setting_refuse(s, what, "a text is expected");
  if (meta)
    return snprintf(out, QN__WORD, "%.*s", (int)(meta->count < QN__WORD ? meta->count : QN__WORD),
                    (const char *)meta->data),
           QN_OK;
  if (!v || cJSON_IsNull(v)) return QN_OK;
  QN_TRY(json_item(s, what, item, &v));
  if (!cJSON_IsString(v)) return qn__setting_refuse(s, what, "a text is expected");
  snprintf(out, QN__WORD, "%s", v->valuestring);
  return QN_OK;
}
