/* layer.c - what the configuration says of one layer, and what the shapes say where it is silent. */
#include "ct.h"
#include <string.h>

/* ---- Settings ---------------------------------------------------------------------------------------------------- */

static size_t module_length(const qn__weight *w) { return strlen(w->part[0]->name) - strlen(w->dialect->key); }

/* "dynamic" of GPTQModel: the first rule counts whose expression matches the name from its start; "-:" in front says
 * that the layer is left as it was. */
static qn_status match_rules(const qn__weight *w, const cJSON *rules, const cJSON **own) {
  const cJSON *rule;
  if (!cJSON_IsObject(rules)) return QN_OK;
  cJSON_ArrayForEach(rule, rules) {
    const char *pattern = rule->string + (strncmp(rule->string, "+:", 2) && strncmp(rule->string, "-:", 2) ? 0 : 2);
    qn__match is = qn__pattern_match(pattern, w->part[0]->name, module_length(w));
    if (is == QN__MATCH_UNKNOWN)
      return qn__fail(QN_E_SHAPE, "%s: whether \"dynamic\"'s rule \"%s\" is meant for it cannot be told",
                      w->part[0]->name, rule->string);
    if (is == QN__MATCH_NO) continue;
    if (strncmp(rule->string, "-:", 2)) *own = rule;
    break;
  }
  return QN_OK;
}

/* An object's entry of the module's name: in AutoRound's "extra_config", and in MLX's configuration itself. */
static const cJSON *find_module(const qn__weight *w, const cJSON *object) {
  size_t length = module_length(w);
  for (const cJSON *v = object ? object->child : NULL; v; v = v->next)
    if (v->string && strlen(v->string) == length && !memcmp(v->string, w->part[0]->name, length)) return v;
  return NULL;
}

qn_status qn__layer_configure(const qn_model *m, qn__weight *w) {
  QN_TRY(match_rules(w, qn__member(m->quant, "dynamic"), &w->own));
  if (!w->own) w->own = find_module(w, qn__member(m->quant, "extra_config"));
  if (!w->own) w->own = find_module(w, m->quant);
  return QN_OK;
}

int64_t qn__value_int(const cJSON *v, int64_t fallback) {
  if (cJSON_IsBool(v)) return cJSON_IsTrue(v);
  return cJSON_IsNumber(v) && v->valuedouble >= INT32_MIN && v->valuedouble <= INT32_MAX ? (int64_t)v->valuedouble
                                                                                         : fallback;
}

int64_t qn__layer_int(const qn_model *m, const qn__weight *w, const char *key, int64_t fallback) {
  return qn__value_int(qn__member(w->own, key), qn__value_int(qn__member(m->quant, key), fallback));
}

const char *qn__layer_text(const qn_model *m, const qn__weight *w, const char *key) {
  const cJSON *v = qn__member(w->own, key);
  if (!v) v = qn__member(m->quant, key);
  return cJSON_IsString(v) ? v->valuestring : "";
}

/* ---- Groups ------------------------------------------------------------------------------------------------------ */

/* The first group size of the configuration with which K makes so many groups; 0 if none does. */
static int64_t configured_group(const qn_model *m, const qn__weight *w, int64_t groups) {
  const cJSON *g;
  int64_t said = qn__layer_int(m, w, "group_size", qn__layer_int(m, w, "q_group_size", 0));
  for (int i = 0;; said = qn__value_int(qn__member(qn__member(g, "weights"), "group_size"), 0)) {
    if (said > 0 && qn__ceildiv(w->pub.k, said) == groups) return said;
    if (!(g = qn__ct_weights(m, i++))) return 0;
  }
}

qn_status qn__layer_group(const qn_model *m, const qn__weight *w, const qn_raw *scales, int64_t groups, int64_t *size) {
  int64_t k = w->pub.k, found = groups > 0 && k % groups == 0 ? k / groups : 0;
  if ((*size = configured_group(m, w, groups))) return QN_OK;
  for (int64_t usual = 16; usual <= 1024; usual *= 2) {
    if (qn__ceildiv(k, usual) != groups || found == usual) continue;
    if (found)
      return qn__fail(QN_E_SHAPE,
                      "%s: %jd groups of K = %jd may have %jd codes or %jd; no configuration says \"group_size\"",
                      scales->name, (intmax_t)groups, (intmax_t)k, (intmax_t)found, (intmax_t)usual);
    found = usual;
  }
  *size = found;
  return found ? QN_OK
               : qn__fail(QN_E_FORMAT, "%s: %jd groups do not divide K = %jd", scales->name, (intmax_t)groups,
                          (intmax_t)k);
}

/* ---- Blocks ------------------------------------------------------------------------------------------------------ */

static bool pair(const cJSON *list, int64_t out[2]) {
  for (int i = 0; i < 2; i++) {
    out[i] = qn__value_int(cJSON_GetArrayItem(list, i), 0);
    if (out[i] < 1) return false;
  }
  return true;
}

bool qn__layer_block(const qn_model *m, const qn__weight *w, int part, int64_t block[2]) {
  const cJSON *g;
  int64_t rows, cols;
  bool found = pair(qn__member(m->quant, "weight_block_size"), block);
  for (int i = 0; !found && (g = qn__ct_weights(m, i)); i++)
    found = pair(qn__member(qn__member(g, "weights"), "block_structure"), block);
  if (!found) block[0] = block[1] = 128;
  return w->part[part]->n_dims >= w->part[0]->n_dims && qn__scale_shape(w, part, &rows, &cols) &&
         rows == qn__ceildiv(w->pub.n, block[0]) && cols == qn__ceildiv(w->pub.k, block[1]) &&
         !(rows == w->pub.n && cols == 1); /* which is a scale for each row */
}
