/* tokenizer.c - tokenizers: opening, encoding, decoding. */
#include "tokenizer.h"
#include "utf8.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Opening ----------------------------------------------------------------------------------------------------- */

void qn__tokenizer_close(qn__tokenizer *t) {
  if (!t) return;
  for (int i = 0; i < t->steps; i++) pcre2_code_free(t->step[i].pattern);
  qn__lexicon_fini(&t->words);
  qn__lexicon_fini(&t->raw.words);
  qn__lexicon_fini(&t->normalized.words);
  qn__arena_fini(&t->arena);
  free(t);
}

/* What the model's config.json says of its BOS. */
static void read_config(qn__tokenizer *t, const qn_model *m) {
  const cJSON *id = m ? qn__config_value(m, "bos_token_id") : NULL;
  if (cJSON_IsNumber(id) && id->valuedouble >= 0) t->bos.id = id->valueint;
}

static qn_status read_beside(qn__tokenizer *t, const qn_model *m) {
  const char *file = m->file[0].path, *slash = strrchr(file, '/');
  char path[PATH_MAX];
  snprintf(path, sizeof path, "%.*stokenizer.json", slash ? (int)(slash - file) + 1 : 0, file);
  if (qn__file_exists(path)) return qn__tokenizer_from_json(t, path);
  return qn__fail(QN_E_SHAPE,
                  "%s: there is no tokenizer in it, and no tokenizer.json beside it (--tokenizer names one)", file);
}

qn_status qn__tokenizer_open(const qn_model *model, const char *path, qn__tokenizer **out) {
  qn__tokenizer *t = *out = calloc(1, sizeof *t);
  if (!t) return qn__fail(QN_E_NOMEM, "no memory for a tokenizer");
  t->unknown = t->bos.id = -1;
  if (model) model = qn__model_settings(model);
  read_config(t, model);
  qn_status s = path                                                 ? qn__tokenizer_from_json(t, path)
                : qn_model_find_meta(model, "tokenizer.ggml.tokens") ? qn__tokenizer_from_gguf(t, model)
                                                                     : read_beside(t, model);
  if (s == QN_E_SHAPE) {
    t->refusal = t->about =
        qn__arena_print(&t->arena, "%s; give token ids instead, a .npy or .jsonl file", qn__errmsg());
    s = t->refusal ? QN_OK : qn__fail(QN_E_NOMEM, "no memory for a text");
  }
  if (s != QN_OK) qn__tokenizer_close(t), *out = NULL;
  return s;
}

const char *qn__tokenizer_refusal(const qn__tokenizer *t) { return t->refusal; }
const char *qn__tokenizer_about(const qn__tokenizer *t) { return t->about; }
int64_t qn__tokenizer_size(const qn__tokenizer *t) { return t->size; }
qn__bos qn__tokenizer_bos(const qn__tokenizer *t) { return t->bos; }

qn_status qn__tokenizer_set_bos(qn__tokenizer *t, bool add) {
  if (add && t->bos.id < 0) return qn__fail(QN_E_ARG, "the model names no token that begins a text (BOS)");
  t->bos.add = add;
  return QN_OK;
}

/* ---- Encoding ---------------------------------------------------------------------------------------------------- */

void qn__ids_free(qn__ids *ids) {
  free(ids->id);
  *ids = (qn__ids){0};
}

qn_status qn__tokenizer_encode(const qn__tokenizer *t, const char *text, size_t size, qn__ids *out) {
  *out = (qn__ids){0};
  if (t->refusal) return qn__fail(QN_E_ARG, "%s", t->refusal);
  size_t bad = qn__utf8_check(text, size);
  if (bad < size) return qn__fail(QN_E_ARG, "byte %zu is no UTF-8: 0x%02x", bad, (uint8_t)text[bad]);
  if (size > INT32_MAX / 4) return qn__fail(QN_E_LIMIT, "%zu bytes of text, at most %d at once", size, INT32_MAX / 4);
  qn__encoder e = {.t = t, .end = t->steps, .sink = qn__merge_piece};
  qn_status s = qn__encoder_run(&e, 0, text, size);
  if (s == QN_OK) {
    *out = e.out;
    out->bytes = (int64_t)size;
    e.out.id = NULL;
  }
  qn__encoder_fini(&e);
  return s;
}

/* ---- Decoding ---------------------------------------------------------------------------------------------------- */

/* The bytes that a token stands for, never more than it is written with; out: NULL, they are only counted. */
static size_t token_bytes(const qn__tokenizer *t, int32_t id, char *out) {
  const qn__token *k = &t->token[id];
  size_t n = 0, used, space = t->space ? strlen(t->space) : 0;
  if (t->by_bytes && k->byte) return out ? out[0] = (char)(k->byte - 1), 1 : 1;
  for (size_t i = 0; i < k->n; i += used) {
    const char *s = k->text + i;
    uint32_t point = qn__utf8_point(s);
    int byte = -1;
    used = qn__utf8_bytes(*s);
    if (!k->literal && t->byte_level && point < QN_SHOWN) byte = t->byte_of[point];
    if (!k->literal && space && k->n - i >= space && !memcmp(s, t->space, space)) byte = ' ', used = space;
    if (out && byte >= 0) out[n] = (char)byte;
    else if (out) memcpy(out + n, s, used);
    n += byte >= 0 ? 1 : used;
  }
  return n;
}

static bool is_id(const qn__tokenizer *t, int32_t id) { return id >= 0 && id < t->size && t->token[id].text; }

qn_status qn__tokenizer_decode(const qn__tokenizer *t, const int32_t *id, int64_t n, char **text, size_t *size) {
  *text = NULL;
  if (t->refusal) return qn__fail(QN_E_ARG, "%s", t->refusal);
  *size = 0;
  for (int64_t i = 0; i < n; i++) {
    if (!is_id(t, id[i])) return qn__fail(QN_E_ARG, "id %d (number %jd) is not a token", (int)id[i], (intmax_t)i + 1);
    *size += token_bytes(t, id[i], NULL);
  }
  char *at = *text = malloc(*size + 1);
  if (!at) return qn__fail(QN_E_NOMEM, "no memory for %zu bytes of text", *size);
  for (int64_t i = 0; i < n; i++) at += token_bytes(t, id[i], at);
  *at = 0;
  if (t->prefix && **text == ' ') memmove(*text, *text + 1, (*size)--);
  return QN_OK;
}
