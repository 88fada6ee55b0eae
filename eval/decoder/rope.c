/* rope.c - the frequencies of rotary positions, from what a checkpoint says of them. Formulas as in Hugging Face's
 * transformers, in f32 as there: a frequency that is rounded otherwise shows at far positions. */
#include "rope.h"
#include "fail.h"
#include <math.h>
#include <string.h>

typedef enum kind { DEFAULT, LINEAR, DYNAMIC, LLAMA3, YARN, LONGROPE } kind;

static const struct {
  const char *name;
  kind kind;
} kinds[] = {
    {"", DEFAULT},          {"default", DEFAULT}, {"none", DEFAULT},  {"mrope", DEFAULT}, /* of text alone */
    {"linear", LINEAR},     {"dynamic", DYNAMIC}, {"llama3", LLAMA3}, {"yarn", YARN},
    {"longrope", LONGROPE}, {"su", LONGROPE},
};

/* What one rope is made of. */
typedef struct draft {
  const qn__settings *s;
  qn__rope *r;
  int dims;
  int64_t context, original;
  double theta, factor; /* factor 0: not said */
} draft;

static qn_status number(const draft *d, qn__setting what, double *value) {
  return qn__setting_number(d->s, what, -1, value);
}

static void base_frequencies(double theta, int pairs, float *f) {
  for (int i = 0; i < pairs; i++) f[i] = 1.f / powf((float)theta, (float)(2 * i) / (float)(2 * pairs));
}

void qn__rope_frequencies(const qn__rope *r, int64_t length, float *frequency) {
  bool is_far = r->near && length > r->near;
  memcpy(frequency, is_far ? r->far : r->frequency, sizeof r->frequency);
  if (!is_far || r->dynamic == 0) return;
  double stretch = r->dynamic * (double)length / (double)r->near - (r->dynamic - 1), dims = 2 * r->pairs;
  base_frequencies(r->theta * pow(stretch, dims / (dims - 2)), r->pairs, frequency);
}

/* ---- Kinds ------------------------------------------------------------------------------------------------------- */

static qn_status linear(draft *d) {
  for (int i = 0; i < d->r->pairs; i++) d->r->frequency[i] /= (float)d->factor;
  return QN_OK;
}

static qn_status dynamic(draft *d) {
  d->r->dynamic = d->factor;
  d->r->theta = d->theta;
  d->r->near = d->context;
  return d->context > 0 && d->r->pairs > 1
             ? QN_OK
             : qn__setting_refuse(d->s, QN_S_ROPE_TYPE, "\"dynamic\" needs max_position_embeddings and two pairs");
}

/* Llama 3.1: long waves are stretched, short ones stay, those between are mixed. */
static qn_status llama3(draft *d) {
  double low = 1, high = 4;
  QN_TRY(number(d, QN_S_ROPE_LOW, &low));
  QN_TRY(number(d, QN_S_ROPE_HIGH, &high));
  if (!(low > 0 && high > low))
    return qn__setting_refuse(d->s, QN_S_ROPE_HIGH, "%g, and low_freq_factor is %g; it must be the larger one", high,
                              low);
  float original = (float)d->original, factor = (float)d->factor;
  for (int i = 0; i < d->r->pairs; i++) {
    float f = d->r->frequency[i], wave = 2 * (float)M_PI / f;
    if (wave < original / (float)high) continue;
    float mix = (original / wave - (float)low) / (float)(high - low);
    d->r->frequency[i] = wave > original / (float)low ? f / factor : (1 - mix) * f / factor + mix * f;
  }
  return QN_OK;
}

static double magnitude(double factor, double share) { return factor <= 1 ? 1 : .1 * share * log(factor) + 1; }

/* Peng et al. 2023, arXiv 2309.00071: pairs that turn often in the original context stay, those that turn less than
 * once are stretched, between `low` and `high` goes a ramp. */
static qn_status yarn(draft *d) {
  double fast = 32, slow = 1, truncate = 1, share = 0, all = 0, scale = 0, times = 1;
  QN_TRY(number(d, QN_S_ROPE_BETA_FAST, &fast));
  QN_TRY(number(d, QN_S_ROPE_BETA_SLOW, &slow));
  QN_TRY(number(d, QN_S_ROPE_TRUNCATE, &truncate));
  QN_TRY(number(d, QN_S_ROPE_MSCALE, &share));
  QN_TRY(number(d, QN_S_ROPE_MSCALE_ALL, &all));
  QN_TRY(number(d, QN_S_ROPE_ATTENTION, &scale));
  QN_TRY(number(d, QN_S_ROPE_ATTENTION_GGUF, d->s->arch->gguf_attention ? &scale : &times));
  if (scale == 0 && share != 0 && all != 0) scale = magnitude(d->factor, share) / magnitude(d->factor, all);
  if (scale == 0) scale = magnitude(d->factor, 1);
  d->r->scale = (float)(scale * times);
  if (!(fast > 0 && slow > 0 && d->theta > 1)) return qn__setting_refuse(d->s, QN_S_ROPE_BETA_FAST, "not above 0");
  double turns = (double)d->original / (2 * M_PI), per = d->dims / (2 * log(d->theta));
  double low = per * log(turns / fast), high = per * log(turns / slow);
  if (truncate != 0) low = floor(low), high = ceil(high);
  low = fmax(low, 0), high = fmin(high, d->dims - 1);
  if (low == high) high += .001;
  for (int i = 0; i < d->r->pairs; i++) {
    float ramp = fminf(fmaxf(((float)i - (float)low) / (float)(high - low), 0), 1), keep = 1 - ramp;
    float wave = powf((float)d->theta, (float)(2 * i) / (float)d->dims);
    d->r->frequency[i] = 1 / ((float)d->factor * wave) * (1 - keep) + 1 / wave * keep;
  }
  return QN_OK;
}

/* Divide by factors for each pair: of a GGUF they are a tensor, else a list. */
static qn_status divide(const draft *d, qn__setting what, const char *tensor, float *frequency) {
  const qn_raw *t = d->s->model->gguf ? qn_model_find_raw(d->s->weights, tensor) : NULL;
  if (t && (t->n_dims != 1 || t->dim[0] < d->r->pairs || t->type == QN_T_NONE))
    return qn__fail(QN_E_FORMAT, "%s: %d floats are expected", tensor, d->r->pairs);
  for (int i = 0; i < d->r->pairs; i++) {
    double f = 0;
    if (t) f = (double)qn__load_float(t->data, t->type, (size_t)i);
    else QN_TRY(qn__setting_number(d->s, what, i, &f));
    if (!(f > 0)) return qn__fail(QN_E_FORMAT, "%s: a factor of %g for pair %d of a rope", tensor, f, i);
    frequency[i] /= (float)f;
  }
  return QN_OK;
}

/* Ding et al. 2024, arXiv 2402.13753, as in Phi-3: factors for windows within the original context, others beyond. */
static qn_status longrope(draft *d) {
  qn__rope *r = d->r;
  double scale = 0;
  r->near = d->original;
  memcpy(r->far, r->frequency, sizeof r->far);
  QN_TRY(divide(d, QN_S_ROPE_SHORT, "rope_factors_short.weight", r->frequency));
  QN_TRY(divide(d, QN_S_ROPE_LONG, "rope_factors_long.weight", r->far));
  QN_TRY(number(d, QN_S_ROPE_ATTENTION, &scale));
  QN_TRY(number(d, QN_S_ROPE_ATTENTION_GGUF, &scale));
  if (scale == 0) scale = d->factor <= 1 ? 1 : sqrt(1 + log(d->factor) / log((double)d->original));
  r->scale = (float)scale;
  return QN_OK;
}

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

/* A file names its kind; Phi-3's older ones name another one than they are. */
static qn_status find_kind(const draft *d, kind *out) {
  qn__settings own = *d->s;
  char word[QN__WORD];
  own.part[1] = NULL; /* "type" means something else there */
  QN_TRY(qn__setting_word(&own, QN_S_ROPE_TYPE, -1, word));
  bool is_long = qn__setting_given(&own, QN_S_ROPE_SHORT) ||
                 (own.model->gguf && qn_model_find_raw(own.weights, "rope_factors_short.weight"));
  for (size_t i = 0; i < QN_COUNT(kinds); i++) {
    if (strcmp(word, kinds[i].name)) continue;
    bool unnamed = !*word && d->s->model->gguf && qn__setting_given(&own, QN_S_ROPE_FACTOR); /* as in llama.cpp */
    *out = is_long ? LONGROPE : unnamed ? LINEAR : kinds[i].kind;
    return QN_OK;
  }
  return qn__setting_refuse(d->s, QN_S_ROPE_TYPE,
                            "\"%s\" is not known; default, linear, dynamic, llama3, yarn and longrope are", word);
}

static qn_status read_sizes(draft *d, int head_dim) {
  double share = 1;
  QN_TRY(number(d, QN_S_ROPE_THETA, &d->theta));
  QN_TRY(number(d, QN_S_ROPE_SHARE, &share));
  if (!(share > 0 && share <= 1)) return qn__setting_refuse(d->s, QN_S_ROPE_SHARE, "%g is not within 0 and 1", share);
  int64_t dims = (int64_t)(head_dim * share);
  if (d->s->model->gguf) QN_TRY(qn__setting_size(d->s, QN_S_ROPE_DIMS, -1, 2, head_dim, &dims));
  if (!(d->theta > 0) || dims < 2 || dims % 2)
    return qn__setting_refuse(d->s, QN_S_ROPE_THETA, "a rope of %jd dimensions and base %g", (intmax_t)dims, d->theta);
  d->dims = (int)dims;
  d->r->pairs = d->dims / 2;
  d->r->scale = 1;
  return QN_OK;
}

static qn_status read_scaling(draft *d) {
  static qn_status (*const apply[])(draft *) = {
      [LINEAR] = linear, [DYNAMIC] = dynamic, [LLAMA3] = llama3, [YARN] = yarn, [LONGROPE] = longrope};
  kind k = DEFAULT;
  QN_TRY(find_kind(d, &k));
  if (k == DEFAULT) return QN_OK;
  d->original = d->context;
  QN_TRY(qn__setting_size(d->s, QN_S_ROPE_ORIGINAL, -1, 0, INT32_MAX, &d->original));
  QN_TRY(number(d, QN_S_ROPE_FACTOR, &d->factor));
  bool derived = d->factor == 0 && d->original && qn__setting_given(d->s, QN_S_ROPE_ORIGINAL);
  if (derived) d->factor = (double)d->context / (double)d->original;
  if (!(d->factor > 0))
    return qn__setting_refuse(d->s, QN_S_ROPE_FACTOR, "%g%s; it must be above 0", d->factor,
                              d->factor == 0 ? " or missing" : "");
  if (k > DYNAMIC && d->original < 2) return qn__setting_refuse(d->s, QN_S_ROPE_ORIGINAL, "the file does not say it");
  return apply[k](d);
}

qn_status qn__rope_read(const qn__settings *s, const qn__config *c, bool local, qn__rope *r) {
  draft d = {.s = s, .r = r, .context = c->context, .theta = 10000};
  QN_TRY(read_sizes(&d, c->head_dim));
  if (local && !s->part[0]) QN_TRY(number(&d, QN_S_ROPE_LOCAL_THETA, &d.theta));
  if (!(d.theta > 0)) return qn__setting_refuse(s, QN_S_ROPE_LOCAL_THETA, "%g; it must be above 0", d.theta);
  base_frequencies(d.theta, r->pairs, r->frequency);
  bool has_factors = s->model->gguf && !local && qn_model_find_raw(s->weights, "rope_freqs.weight");
  if (has_factors) return divide(&d, QN_S_COUNT, "rope_freqs.weight", r->frequency); /* Llama 3.1's, precomputed */
  return local && (s->model->gguf || !s->part[0]) ? QN_OK : read_scaling(&d);
}
