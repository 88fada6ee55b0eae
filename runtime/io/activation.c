/* activation.c - how a checkpoint wants the inputs of its layers quantized: qn_tensor.activation and activation_scale.
 *
 *     compressed-tensors   input_activations of config_groups; X.input_scale, or X.input_global_scale, a reciprocal
 *     ModelOpt             the same with less said, or just "quant_algo"; X.input_scale
 *     "fp8"                "activation_scheme"; X.input_scale, Mistral's own X.qscale_act
 *
 * Sources: compressed-tensors, quantization/quant_args.py; vLLM, quantization/modelopt.py and fp8.py. */
#include "ct.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static bool says(const cJSON *object, const char *key, const char *text) {
  const char *s = cJSON_GetStringValue(qn__member(object, key));
  return s && strstr(s, text);
}

/* Types by what is said of them; NULL: anything. The first that fits. */
static const struct {
  const char *type, *scale_dtype;
  int bits, group; /* group 0: any */
  bool zero;
  const char *name;
} types[] = {
    {"int", NULL, 8, 0, false, "i8"},          {"int", NULL, 8, 0, true, "i8z"},
    {"float", "uint8", 8, 32, false, "mxfp8"}, {"float", NULL, 8, 0, false, "e4m3"},
    {"float", "uint8", 4, 32, false, "mxfp4"}, {"float", NULL, 4, 16, false, "nvfp4"},
};

/* "i8.row" of {"type": "int", "num_bits": 8, "strategy": "token"…}; NULL: it says nothing. */
static const char *spelled(const cJSON *in, qn__arena *a) {
  const char *type = cJSON_GetStringValue(qn__member(in, "type")),
             *strategy = cJSON_GetStringValue(qn__member(in, "strategy"));
  int64_t bits = qn__value_int(qn__member(in, "num_bits"), 0), group = qn__value_int(qn__member(in, "group_size"), 0);
  bool zero = cJSON_IsFalse(qn__member(in, "symmetric"));
  char name[32];
  if (!type || bits < 1) return NULL;
  snprintf(name, sizeof name, "%.8s%jd", type, (intmax_t)bits);
  for (size_t i = QN_COUNT(types); i--;)
    if (says(in, "type", types[i].type) && bits == types[i].bits && zero == types[i].zero &&
        (!types[i].group || group == types[i].group) &&
        (!types[i].scale_dtype || says(in, "scale_dtype", types[i].scale_dtype)))
      snprintf(name, sizeof name, "%s", types[i].name);
  if (group > 0 && (!strategy || strstr(strategy, "group")))
    return qn__arena_print(a, "%s.g%jd", name, (intmax_t)group);
  return qn__arena_print(a, "%s.%s", name, !strategy || !strcmp(strategy, "tensor") ? "tensor" : "row");
}

const char *qn__activation_find(const qn_model *m, qn__arena *a) {
  const cJSON *group;
  for (int i = 0; (group = qn__ct_weights(m, i)); i++) {
    const char *found = spelled(qn__member(group, "input_activations"), a);
    if (found) return found;
  }
  if (!strcmp(qn__quant_text(m, "quant_algo"), "NVFP4")) return "nvfp4.g16";
  bool fixed =
      !strcmp(qn__quant_text(m, "quant_algo"), "FP8") || !strcmp(qn__quant_text(m, "activation_scheme"), "static");
  return fixed ? "e4m3.tensor" : NULL;
}

/* How a target of config_groups is meant for a layer: not at all, as every linear layer, by an expression, by an
 * expression that is not understood, by its name. What comes later goes before. */
enum { NOT_MEANT, LINEAR, EXPRESSION, UNKNOWN, NAME };

static int match_target(const char *target, const char *name, size_t length) {
  if (strlen(target) == length && !memcmp(target, name, length)) return NAME;
  if (strncmp(target, "re:", 3)) return strcmp(target, "Linear") ? NOT_MEANT : LINEAR;
  qn__match is = qn__pattern_match(target + 3, name, length);
  return is == QN__MATCH_YES ? EXPRESSION : is == QN__MATCH_NO ? NOT_MEANT : UNKNOWN;
}

void qn__activation_choose(qn_model *m, qn__weight *w) {
  const cJSON *group, *target, *best = NULL;
  const char *name = w->part[0]->name, *by = "";
  size_t length = strlen(name) - strlen(w->dialect->key);
  int most = NOT_MEANT;
  if (!w->pub.activation || w->pub.activation != m->activation || !qn__ct_weights(m, 1)) return;
  for (int i = 0; (group = qn__ct_weights(m, i)); i++)
    cJSON_ArrayForEach(target, qn__member(group, "targets")) {
      const char *t = cJSON_GetStringValue(target);
      int is = t ? match_target(t, name, length) : NOT_MEANT;
      if (is > most) most = is, best = group, by = t;
    }
  if (most == UNKNOWN) w->pub.activation = qn__arena_print(&m->arena, "unknown, by the target \"%s\"", by);
  else if (best) w->pub.activation = spelled(qn__member(best, "input_activations"), &m->arena);
}

qn_status qn__activation_scale(const qn_model *m, qn__weight *w) {
  static const struct {
    const char *suffix;
    bool reciprocal;
  } beside[] = {{".input_global_scale", true}, {".input_scale", false}, {".qscale_act", false}};
  const char *said = w->pub.activation, *name = w->part[0]->name;
  size_t stem = strlen(name) - strlen(w->dialect->key);
  if (!said || (!strstr(said, ".tensor") && strncmp(said, "nvfp4", 5))) return QN_OK;
  for (size_t i = 0; i < QN_COUNT(beside); i++) {
    const qn_raw *r = qn__sibling(m, name, stem, beside[i].suffix);
    if (!r || (r->type != QN_T_F32 && r->type != QN_T_F16 && r->type != QN_T_BF16) ||
        r->bytes * 8 != (size_t)qn_type_bits(r->type))
      continue;
    float v = qn__load_float(r->data, r->type, 0);
    if (!(v > 0 && isfinite(v) && isfinite(1 / v)))
      return qn__fail(QN_E_FORMAT, "%s: %g cannot be a scale of activations", r->name, (double)v);
    w->pub.activation_scale = beside[i].reciprocal ? 1 / v : v;
    w->pub.activation_raw = r;
    ((qn_raw *)(uintptr_t)r)->weight = w->pub.name;
    break;
  }
  return QN_OK;
}
