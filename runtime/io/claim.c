/* claim.c - from stored tensors to weights: each dialect claims the groups of tensors that it understands. */
#include "ct.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const qn__dialect *const qn__dialects[] = {
    &qn__planes,         &qn__ggml,        &qn__bnb4,     &qn__bnb_int8,        &qn__qserve,       &qn__awq,
    &qn__gptq,           &qn__hqq,         &qn__mlx,      &qn__quark_int4,      &qn__quark_mxfp4,  &qn__modelopt_int4,
    &qn__modelopt,       &qn__ct_nvfp4,    &qn__ct_mxfp4, &qn__ct_packed,       &qn__bitnet,       &qn__ct_int,
    &qn__ct_mxfp8,       &qn__ct_float,    &qn__fp8,      &qn__fp8_experts,     &qn__deepseek_fp8, &qn__mistral_fp8,
    &qn__deepseek_mxfp4, &qn__int8_blocks, &qn__gptoss,   &qn__gptoss_original, &qn__plain,        NULL};

const qn_raw *qn__sibling(const qn_model *m, const char *stem, size_t stem_length, const char *suffix) {
  char name[4200]; /* containers refuse names over 4 kB */
  int n = snprintf(name, sizeof name, "%.*s%s", (int)stem_length, stem, suffix);
  return n < (int)sizeof name ? qn_model_find_raw(m, name) : NULL;
}

void qn__shape_text(char *out, size_t cap, int n_dims, const int64_t *dim) {
  size_t at = (size_t)snprintf(out, cap, "[");
  for (int i = 0; i < n_dims && at + 32 < cap; i++)
    at += (size_t)(dim[i] < 0 ? snprintf(out + at, cap - at, "%s*", i ? ", " : "")
                              : snprintf(out + at, cap - at, "%s%jd", i ? ", " : "", (intmax_t)dim[i]));
  snprintf(out + at, cap - at, "]");
}

static const char *part_name(const qn__dialect *d, int i) { return d->part[i - 1] + (*d->part[i - 1] == '!'); }

/* Can dialect d make a weight of stored tensor s? Fills w's parts. */
static bool matches(const qn_model *m, const qn__dialect *d, const qn__stored *s, qn__weight *w) {
  size_t n = strlen(s->pub.name), k = strlen(d->key);
  if (n < k || strcmp(s->pub.name + n - k, d->key)) return false;
  *w = (qn__weight){.dialect = d, .part = {&s->pub}, .pub = {.dialect = d->name, .raw = &s->pub, .slices = 1}};
  for (int i = 1; i < QN__PARTS && d->part[i - 1]; i++) {
    w->part[i] = qn__sibling(m, s->pub.name, n - k, part_name(d, i));
    if (*d->part[i - 1] == '!' && !w->part[i]) return false;
  }
  return !d->match || d->match(m, w);
}

/* The parts are this weight's, and so is what they take. */
static void take_parts(qn__weight *w) {
  uint64_t bytes = 0;
  for (int i = 0; i < QN__PARTS; i++)
    if (w->part[i]) {
      qn_raw *part = (qn_raw *)(uintptr_t)w->part[i];
      part->weight = w->pub.name;
      bytes += part->bytes;
    }
  if (!w->pub.bytes) w->pub.bytes = bytes;
}

/* What every dialect wants: codes, a matrix of them, and activations that are taken as they are. */
static qn_status claim(qn_model *m, qn__weight *w) {
  const char *name = w->part[0]->name;
  if (w->dialect == &qn__plain) return qn__plain.claim(m, w);
  if (!w->part[0]->bytes) return qn__fail(QN_E_FORMAT, "%s: is empty", name);
  const qn_raw *smooth = qn__sibling(m, name, strlen(name) - strlen(w->dialect->key), ".pre_quant_scale");
  if (smooth) return qn__fail(QN_E_SHAPE, "%s: activations that are scaled first are not supported", smooth->name);
  QN_TRY(w->dialect->claim(m, w));
  qn__activation_choose(m, w);
  QN_TRY(qn__activation_scale(m, w));
  if (w->pub.slices >= 1 && w->pub.n >= 1 && w->pub.k >= 1) return QN_OK; /* a block type's scale has bytes, too */
  return qn__fail(QN_E_FORMAT, "%s: a matrix of %jd x %jd x %jd", name, (intmax_t)w->pub.slices, (intmax_t)w->pub.n,
                  (intmax_t)w->pub.k);
}

static qn_status finish(qn_model *m, qn__weight *w) {
  const char *name = w->part[0]->name;
  size_t stem = strlen(name) - strlen(w->dialect->key);
  w->pub.name = qn__arena_print(&m->arena, "%.*s%s", (int)stem, name, w->dialect->weight);
  if (!w->pub.name) return qn__fail(QN_E_NOMEM, "no memory for a weight's name");
  w->pub.quantized = w->dialect != &qn__plain;
  qn_status s = claim(m, w);
  if (s == QN_E_NOMEM) return s;
  take_parts(w);
  if (s && !(w->pub.refusal = qn__arena_print(&m->arena, "%s", qn__errmsg())))
    return qn__fail(QN_E_NOMEM, "no memory for a message");
  if (s) *w->format = 0;
  return QN_OK;
}

/* ---- The head of a tied model ------------------------------------------------------------------------------------ */

/* Does the name of the model's class, or of its language model's, contain the word? */
static bool class_has(const qn_model *m, const char *word) {
  const cJSON *class;
  for (int i = 0; i < m->n_configs; i++)
    cJSON_ArrayForEach(class, qn__member(m->config_part[i], "architectures"))
      if (cJSON_IsString(class) && strstr(class->valuestring, word)) return true;
  return false;
}

/* Is what the model puts out words? Who has words to read alone has no head. */
static bool generates(const qn_model *m) {
  if (!m->gguf)
    return class_has(m, "ForCausalLM") || class_has(m, "LMHead") || class_has(m, "ForConditionalGeneration");
  const qn_meta *arch = qn_model_find_meta(m, "general.architecture");
  for (size_t i = 0; i < m->n_meta; i++)
    if (strstr(m->meta[i].key, ".pooling_type") && m->meta[i].bits) return false;
  const char *text = arch && arch->type == QN_META_STRING ? arch->data : "";
  return !memmem(text, arch ? arch->count : 0, "bert", 4) && !memmem(text, arch ? arch->count : 0, "encoder", 7);
}

/* Does the configuration tie the head to the embedding? Who does not say so, and can do without no head, does. A
 * classifier keeps the setting of the model that it was made of, not its head. */
static bool is_tied(const qn_model *m) {
  static const char *const keys[] = {"tie_word_embeddings", "tie_embeddings" /* Mamba */, "weight_tying" /* OLMo */};
  bool said = false;
  if (class_has(m, "Classification")) return false;
  for (int i = 0; i < m->n_configs; i++)
    for (size_t key = 0; key < QN_COUNT(keys); key++) {
      const cJSON *flag = qn__member(m->config_part[i], keys[key]);
      if (cJSON_IsTrue(flag)) return true;
      said = said || cJSON_IsFalse(flag);
    }
  return !said && generates(m);
}

/* A model that ties its output to its embedding stores only the embedding. A file that quernel wrote has the name of
 * the head in its header, as its configuration may lie elsewhere. */
static void tie(qn_model *m) {
  const qn_meta *written = m->gguf ? NULL : qn_model_find_meta(m, "quernel.tied");
  const qn__weight *from = NULL;
  for (size_t i = m->n_weights; i--;) { /* of several the first */
    if (qn__is_head(&m->weight[i].pub)) return;
    if (qn__is_embedding(&m->weight[i].pub)) from = &m->weight[i];
  }
  if (!from || !(written || is_tied(m))) return;
  qn__weight *w = &m->weight[m->n_weights++];
  *w = *from;
  w->pub.name = written ? written->data : m->gguf ? "output.weight" : "lm_head.weight";
  w->pub.role = "head";
  w->pub.tied_to = from->pub.name;
  w->pub.bytes = 0;
}

/* ---- All of it --------------------------------------------------------------------------------------------------- */

static int by_place(const void *a, const void *b) {
  const qn__weight *x = a, *y = b;
  return (x->part[0] > y->part[0]) - (x->part[0] < y->part[0]);
}

/* Let the dialects, or the plain one, make weights of what is not claimed. */
static qn_status ask_dialects(qn_model *m, bool plain) {
  for (size_t i = 0; i < m->n_stored; i++)
    for (const qn__dialect *const *d = qn__dialects; *d && !m->stored[i].pub.weight; d++) {
      qn__weight *w = &m->weight[m->n_weights];
      if ((*d == &qn__plain) != plain || !matches(m, *d, &m->stored[i], w)) continue;
      QN_TRY(finish(m, w));
      m->n_weights++;
    }
  return QN_OK;
}

qn_status qn__model_claim(qn_model *m) {
  m->weight = calloc(m->n_stored + 2, sizeof *m->weight); /* room for the next candidate and a tied one */
  if (!m->weight) return qn__fail(QN_E_NOMEM, "no memory for %zu weights", m->n_stored);
  m->activation = qn__activation_find(m, &m->arena);
  QN_TRY(qn__refuse_layouts(m));
  QN_TRY(ask_dialects(m, false)); /* first: what is beside codes is not left for the plain one */
  QN_TRY(qn__refuse_codes(m));
  QN_TRY(ask_dialects(m, true));
  qsort(m->weight, m->n_weights, sizeof *m->weight, by_place);
  for (size_t i = 0; i < m->n_weights; i++) m->weight[i].pub.role = qn__role(&m->weight[i].pub, *m->weight[i].format);
  tie(m);
  for (size_t i = 0; i < m->n_weights; i++) { /* from here on weights do not move */
    m->weight[i].pub.format = *m->weight[i].format ? m->weight[i].format : NULL;
    m->weight[i].pub.linear = qn__is_linear(&m->weight[i].pub);
  }
  return QN_OK;
}

/* ---- What dialects use ------------------------------------------------------------------------------------------- */

static bool is_one_of(const char *word, const char *list) { /* words of the list are separated by one blank */
  size_t n = strlen(word);
  for (const char *p = strstr(list, word); p; p = strstr(p + 1, word))
    if ((p == list || p[-1] == ' ') && (!p[n] || p[n] == ' ')) return true;
  return false;
}

qn_status qn__part_is(const qn__weight *w, int i, const char *dtypes, int n_dims, const int64_t *dim) {
  const qn_raw *p = w->part[i];
  char is[256], should[256];
  if (!p) return qn__fail(QN_E_FORMAT, "%s: no %s beside it", w->part[0]->name, part_name(w->dialect, i));
  if (!is_one_of(p->dtype, dtypes)) return qn__fail(QN_E_FORMAT, "%s: dtype %s; %s is read", p->name, p->dtype, dtypes);
  bool ok = p->n_dims == n_dims;
  for (int d = 0; ok && d < n_dims; d++) ok = dim[d] < 0 || p->dim[d] == dim[d];
  if (ok) return QN_OK;
  qn__shape_text(is, sizeof is, p->n_dims, p->dim);
  qn__shape_text(should, sizeof should, n_dims, dim);
  return qn__fail(QN_E_FORMAT, "%s: shape %s; %s is expected", p->name, is, should);
}

qn_status qn__part_float(const qn__weight *w, int i, int n_dims, const int64_t *dim) {
  return qn__part_is(w, i, "F16 BF16 F32", n_dims, dim);
}

const char *qn__grain(const qn__weight *w, char out[24]) {
  if (w->group) snprintf(out, 24, "g%lld", (long long)w->group);
  else snprintf(out, 24, "row");
  return out;
}

qn_status qn__spell(qn__weight *w, const char *base, const char *grain, const char *zero, qn_type scale) {
  w->scale = scale;
  const char *type = scale == QN_T_F16 || scale == QN_T_NONE ? "" : qn_type_name(scale);
  snprintf(w->format, sizeof w->format, "%s%s%s%s%s%s%s", base, *grain ? "." : "", grain, *zero ? "." : "", zero,
           *type ? "." : "", type);
  return QN_OK;
}

/* ---- Stacks of matrices ------------------------------------------------------------------------------------------ */

static int stacked(const qn__weight *w) { return w->part[0]->n_dims == 3; }

qn_status qn__enter_stack(qn__weight *w, const char *dtypes) {
  const qn_raw *q = w->part[0];
  int at = stacked(w);
  QN_TRY(qn__part_is(w, 0, dtypes, at + 2, (int64_t[]){-1, -1, -1}));
  w->pub.slices = at ? q->dim[0] : 1;
  w->pub.n = w->rows = q->dim[at];
  w->pub.k = q->dim[at + 1];
  return q->bytes ? QN_OK : qn__fail(QN_E_FORMAT, "%s: a dimension is 0", q->name);
}

qn_status qn__slice_is(const qn__weight *w, int i, const char *dtypes, int n_dims, const int64_t *dim) {
  int64_t all[QN_MAX_DIMS] = {w->pub.slices};
  memcpy(all + stacked(w), dim, (size_t)n_dims * sizeof *dim);
  return qn__part_is(w, i, dtypes, n_dims + stacked(w), all);
}

const void *qn__slice(const qn__weight *w, int i, int64_t slice) {
  const qn_raw *r = w->part[i];
  size_t each = r->bytes / (size_t)w->pub.slices, item = (size_t)qn_type_bits(r->type) / 8;
  return (const uint8_t *)r->data + (each < item ? 0 : (size_t)slice * each); /* one element is for all */
}

/* ---- Scales ------------------------------------------------------------------------------------------------------ */

bool qn__scale_shape(const qn__weight *w, int i, int64_t *rows, int64_t *cols) {
  const qn_raw *s = w->part[i];
  const int64_t *d = s->dim + stacked(w);
  int n = s->n_dims - stacked(w);
  *rows = *cols = 1;
  if (s->bytes * 8 == (size_t)qn_type_bits(s->type)) return true;
  if (n < 0 || (stacked(w) && s->dim[0] != w->pub.slices)) return false;
  bool spaced = n == 4 && d[1] == 1 && d[3] == 1; /* [2, 1, 2, 1] of ModelOpt is [2, 2] */
  if (n > 2 && !spaced) return false;
  if (n) *rows = d[0];
  if (n > 1) *cols = d[spaced ? 2 : 1];
  return *rows > 0 && *cols > 0;
}

qn_status qn__scale_grid(const qn_model *m, qn__weight *w, int i, const int64_t *block, char grain[24]) {
  int64_t n = w->pub.n, k = w->pub.k;
  if (!qn__scale_shape(w, i, &w->rows, &w->groups)) goto bad;
  w->group = 0;
  if (block) {
    if (block[0] < 1 || block[1] < 1 || w->rows != qn__ceildiv(n, block[0]) || w->groups != qn__ceildiv(k, block[1]))
      goto bad;
    w->group = block[1];
    snprintf(grain, 24, "b%jdx%jd", (intmax_t)block[0], (intmax_t)block[1]);
  } else if (w->rows == 1 && w->groups == 1) snprintf(grain, 24, n == 1 ? "row" : "tensor");
  else if (w->rows == n && w->groups == 1) snprintf(grain, 24, "row");
  else {
    if (w->rows != n) goto bad;
    QN_TRY(qn__layer_group(m, w, w->part[i], w->groups, &w->group));
    qn__grain(w, grain);
  }
  return QN_OK;
bad:
  return qn__fail(QN_E_FORMAT, "%s: %jd x %jd scales do not divide a weight of %jd x %jd", w->part[i]->name,
                  (intmax_t)w->rows, (intmax_t)w->groups, (intmax_t)n, (intmax_t)k);
}
