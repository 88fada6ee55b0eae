/* tokenizer_gguf.c - a tokenizer from the keys of a GGUF header (tokenizer.ggml.*).
 *
 * "gpt2" is byte-level BPE. How its text is split is said by a name alone, tokenizer.ggml.pre; the names are
 * llama.cpp's (src/llama-vocab.cpp), the patterns those of the models' own tokenizer.json. "llama" is SentencePiece's
 * BPE, by scores. */
#include "tokenizer.h"
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

/* ---- Splits by name ---------------------------------------------------------------------------------------------- */

#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define WORDS(letter, digits, other)                                                                                   \
  CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?" letter "+|" digits "| ?[^\\s" other "]+[\\r\\n]*|" SPACES
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASES(tail, digits)                                                                                            \
  "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" tail "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" tail "|" digits      \
  "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES

typedef struct way {
  const char *names; /* values of tokenizer.ggml.pre */
  const char *pattern[5];
  bool ignore_merges, nfc, bos; /* bos: where the file does not say */
} way;

static const way ways[] = {
    {.names = " gpt-2 phi-2 ", .pattern = {qn__gpt2_pattern}},
    {.names = " smollm starcoder refact ", .pattern = {"\\p{N}", qn__gpt2_pattern}},
    {.names = " llama-bpe llama3 llama-v3 falcon3 pixtral ",
     .pattern = {WORDS("\\p{L}", "\\p{N}{1,3}", "\\p{L}\\p{N}")},
     .ignore_merges = true,
     .bos = true},
    {.names = " dbrx smaug-bpe ", .pattern = {WORDS("\\p{L}", "\\p{N}{1,3}", "\\p{L}\\p{N}")}},
    {.names = " qwen2 ", .pattern = {WORDS("\\p{L}", "\\p{N}", "\\p{L}\\p{N}")}, .nfc = true},
    {.names = " qwen35 ", .pattern = {WORDS("[\\p{L}\\p{M}]", "\\p{N}", "\\p{L}\\p{M}\\p{N}")}, .nfc = true},
    {.names = " gpt-4o llama4 ", .pattern = {CASES(CONTRACTION "?", "\\p{N}{1,3}")}},
    {.names = " tekken ", .pattern = {CASES("", "\\p{N}")}, .ignore_merges = true, .bos = true},
    {.names = " deepseek-coder ",
     .pattern = {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[一-龥ࠀ-一가-퟿]+", "\\p{N}"}},
    {.names = " deepseek-v3 ",
     .pattern = {"\\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
                 "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
                 "| ?[\\p{P}\\p{S}]+[\\r\\n]*|" SPACES}},
};

const char *qn__tokenizer_pre(const char *const *pattern, size_t n, bool ignore_merges, char out[32]) {
  for (size_t i = 0; i < QN_COUNT(ways); i++) {
    const way *w = &ways[i];
    size_t at = 0;
    while (at < n && at < QN_COUNT(w->pattern) && w->pattern[at] && !strcmp(w->pattern[at], pattern[at])) at++;
    if (at < n || (at < QN_COUNT(w->pattern) && w->pattern[at]) || w->ignore_merges != ignore_merges) continue;
    snprintf(out, 32, "%.*s", (int)strcspn(w->names + 1, " "), w->names + 1);
    return out;
  }
  return NULL;
}

/* ---- Keys -------------------------------------------------------------------------------------------------------- */

typedef struct reader {
  qn__tokenizer *t;
  const qn_model *m;
  bool llama;
} reader;

static const char space[] = "\u2581"; /* SentencePiece's */

static const qn_meta *find(const reader *r, const char *name) {
  char key[64];
  snprintf(key, sizeof key, "tokenizer.ggml.%s", name);
  return qn_model_find_meta(r->m, key);
}

static qn_status damaged(const reader *r, const char *name, const char *what) {
  return qn__fail(QN_E_FORMAT, "%s: tokenizer.ggml.%s: %s", r->m->file[0].path, name, what);
}

/* A list of n elements (n < 0: any number) of that type; NULL if there is none. */
static qn_status find_list(const reader *r, const char *name, qn_meta_type item, int64_t n, const qn_meta **out) {
  *out = find(r, name);
  if (*out && ((*out)->type != QN_META_ARRAY || (*out)->item != item))
    return damaged(r, name, "a list of another type");
  if (*out && n >= 0 && (*out)->count != (uint64_t)n) return damaged(r, name, "not as long as the list of tokens");
  return QN_OK;
}

/* The next text of a list; its length. */
static size_t next_text(const uint8_t **at, const char **text) {
  size_t n = (size_t)qn__le64(*at);
  *text = (const char *)*at + 8;
  *at += 8 + n;
  return n;
}

static bool flag(const reader *r, const char *name, bool absent) {
  const qn_meta *v = find(r, name);
  return v && v->type == QN_META_BOOL ? v->bits != 0 : absent;
}

static int32_t id_of(const reader *r, const char *name, int32_t absent) {
  const qn_meta *v = find(r, name);
  return v && v->type != QN_META_STRING && v->type != QN_META_ARRAY && v->bits < (uint64_t)r->t->size ? (int32_t)v->bits
                                                                                                      : absent;
}

/* Is that text the key's value? */
static bool is(const qn_meta *v, const char *text) {
  return v && v->type == QN_META_STRING && v->count == strlen(text) && !memcmp(v->data, text, v->count);
}

/* ---- Vocabulary -------------------------------------------------------------------------------------------------- */

/* llama.cpp's kinds of tokens (llama.h: llama_token_type). */
enum { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE };

static qn_status read_token(const reader *r, int32_t id, const char *text, size_t n, int32_t kind) {
  qn__tokenizer *t = r->t;
  bool word = kind != CONTROL && kind != UNKNOWN && kind != BYTE;
  qn_status s = qn__tokens_put(t, id, text, n, word);
  if (s != QN_OK) return damaged(r, "tokens", qn__errmsg());
  if (!n || (kind != CONTROL && kind != USER_DEFINED)) return QN_OK;
  if (kind == CONTROL || !r->llama) {
    t->token[id].literal = true;
    qn__added_put(&t->raw, text, n, id);
    return QN_OK;
  }
  char *as =
      qn__arena_take(&t->arena, n * strlen(space) + 1); /* SentencePiece finds them where spaces are written so */
  if (!as) return qn__fail(QN_E_NOMEM, "no memory for a token");
  size_t used = 0;
  for (size_t i = 0; i < n; i++) {
    size_t bytes = text[i] == ' ' ? strlen(space) : 1;
    memcpy(as + used, text[i] == ' ' ? space : text + i, bytes);
    used += bytes;
  }
  qn__added_put(&t->normalized, as, used, id);
  return QN_OK;
}

static qn_status read_tokens(const reader *r) {
  const qn_meta *list, *kinds, *scores;
  QN_TRY(find_list(r, "tokens", QN_META_STRING, -1, &list));
  if (!list->count || list->count > INT32_MAX) return damaged(r, "tokens", "an empty list");
  QN_TRY(find_list(r, "token_type", QN_META_I32, (int64_t)list->count, &kinds));
  QN_TRY(find_list(r, "scores", QN_META_F32, (int64_t)list->count, &scores));
  QN_TRY(qn__tokens_room(r->t, (int64_t)list->count));
  QN_TRY(qn__lexicon_init(&r->t->raw.words, list->count));
  QN_TRY(qn__lexicon_init(&r->t->normalized.words, list->count));
  const uint8_t *at = list->data;
  for (int32_t id = 0; id < (int32_t)list->count; id++) {
    const char *text;
    size_t n = next_text(&at, &text);
    int32_t kind = kinds ? (int32_t)qn__le32((const char *)kinds->data + 4 * (size_t)id) : NORMAL;
    QN_TRY(read_token(r, id, text, n, kind));
    if (scores) r->t->token[id].score = qn__f32((const char *)scores->data + 4 * (size_t)id);
  }
  return QN_OK;
}

/* A merge that makes no token does nothing: a list without any has such a one in its place. */
static qn_status read_merges(const reader *r, bool *any) {
  const qn_meta *list;
  QN_TRY(find_list(r, "merges", QN_META_STRING, -1, &list));
  if (!list || list->count > INT32_MAX) return damaged(r, "merges", "a list is needed");
  QN_TRY(qn__merges_room(r->t, list->count));
  const uint8_t *at = list->data;
  *any = false;
  for (int32_t rank = 0; rank < (int32_t)list->count; rank++) {
    const char *text;
    size_t n = next_text(&at, &text);
    const char *gap = n > 1 ? memchr(text + 1, ' ', n - 1) : NULL;
    if (!gap) return damaged(r, "merges", "a merge that is not of two words");
    size_t left = (size_t)(gap - text);
    *any |= qn__merges_put(r->t, text, left, gap + 1, n - left - 1, rank) == QN_OK;
  }
  return QN_OK;
}

/* ---- The two models ---------------------------------------------------------------------------------------------- */

static qn_status find_way(const reader *r, const way **out) {
  const qn_meta *pre = find(r, "pre");
  char name[64] = "", known[512] = "";
  if (pre && pre->type == QN_META_STRING && pre->count && pre->count < 60)
    snprintf(name, sizeof name, " %.*s ", (int)pre->count, (const char *)pre->data);
  for (size_t i = 0; i < QN_COUNT(ways); i++) {
    *out = &ways[i];
    if (*name && strstr(ways[i].names, name)) return QN_OK;
    snprintf(known + strlen(known), sizeof known - strlen(known), "%.*s", (int)strlen(ways[i].names) - 1,
             ways[i].names);
  }
  return qn__fail(QN_E_SHAPE, "%s: tokenizer.ggml.pre says \"%.*s\" of how text is split; known:%s", r->m->file[0].path,
                  *name ? (int)strlen(name) - 2 : 0, name + 1, known);
}

static qn_status read_gpt2(const reader *r, bool *bos) {
  static const way unsplit = {.names = ""};
  qn__tokenizer *t = r->t;
  const way *w = &unsplit; /* without merges all borders are the same */
  bool any = false;
  QN_TRY(read_merges(r, &any));
  if (any) QN_TRY(find_way(r, &w));
  if (w->nfc) {
    const qn__step nfc = {.kind = QN_STEP_NORMALIZE, .form = UTF8PROC_STABLE | UTF8PROC_COMPOSE};
    QN_TRY(qn__step_add(t, nfc, NULL, false));
  }
  for (size_t i = 0; i < QN_COUNT(w->pattern) && w->pattern[i]; i++)
    QN_TRY(qn__step_add(t, (qn__step){.kind = QN_STEP_SPLIT}, w->pattern[i], false));
  t->ignore_merges = w->ignore_merges;
  t->byte_level = true;
  *bos = w->bos;
  return qn__step_add(t, (qn__step){.kind = QN_STEP_BYTES}, NULL, false);
}

static qn_status read_llama(const reader *r) {
  qn__tokenizer *t = r->t;
  t->space = space;
  t->by_bytes = true;
  t->unknown = id_of(r, "unknown_token_id", 0);
  t->prefix = flag(r, "add_space_prefix", true);
  if (t->prefix) QN_TRY(qn__step_add(t, (qn__step){.kind = QN_STEP_PREPEND, .text = " "}, NULL, false));
  QN_TRY(qn__step_add(t, (qn__step){.kind = QN_STEP_REPLACE, .text = space}, " ", true));
  return qn__step_add(t, (qn__step){.kind = QN_STEP_ADDED, .added = &t->normalized}, NULL, false);
}

qn_status qn__tokenizer_from_gguf(qn__tokenizer *t, const qn_model *m) {
  reader r = {t, m, false};
  const qn_meta *model = find(&r, "model");
  bool gpt2 = is(model, "gpt2"), bos = true;
  r.llama = is(model, "llama");
  QN_TRY(read_tokens(&r));
  t->bos.id = id_of(&r, "bos_token_id", -1);
  t->bos.add = t->bos.id >= 0 && flag(&r, "add_bos_token", false);
  if (!gpt2 && !r.llama) {
    bool text = model && model->type == QN_META_STRING && model->count < 60;
    return qn__fail(QN_E_SHAPE, "%s: a tokenizer of kind \"%.*s\" is not read, only gpt2 and llama", m->file[0].path,
                    text ? (int)model->count : 0, text ? (const char *)model->data : "");
  }
  QN_TRY(qn__step_add(t, (qn__step){.kind = QN_STEP_ADDED, .added = &t->raw}, NULL, false));
  QN_TRY(gpt2 ? read_gpt2(&r, &bos) : read_llama(&r));
  t->bos.add = t->bos.id >= 0 && flag(&r, "add_bos_token", bos);
  t->about = qn__arena_print(&t->arena, "%s, %jd tokens, of %s", gpt2 ? "byte-level BPE" : "SentencePiece BPE",
                             (intmax_t)t->tokens, m->file[0].path);
  return t->about ? QN_OK : qn__fail(QN_E_NOMEM, "no memory for a text");
}
