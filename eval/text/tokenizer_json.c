/* tokenizer_json.c - a tokenizer from Hugging Face's tokenizer.json, and what tokenizer_config.json says beside it. */
#include "file.h"
#include "json.h"
#include "tokenizer.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

typedef struct reader {
  qn__tokenizer *t;
  const char *path;
  size_t bytes; /* of the file */
} reader;

static qn_status damaged(const reader *r, const char *what) { return qn__fail(QN_E_FORMAT, "%s: %s", r->path, what); }

static const char *text_of(const cJSON *object, const char *key) { return qn__json_text(object, key, NULL); }

static bool flag_of(const cJSON *object, const char *key, bool absent) {
  const cJSON *x = qn__json_get(object, key);
  return cJSON_IsBool(x) ? cJSON_IsTrue(x) : absent;
}

static const char *keep(reader *r, const char *text, size_t n) { return qn__arena_text(&r->t->arena, text, n); }

/* ---- Parts by their types ---------------------------------------------------------------------------------------- */

typedef struct kind {
  const char *type;
  qn_status (*read)(reader *r, const cJSON *part);
} kind;

/* A normalizer or a pre-tokenizer; `part` may be null. */
static qn_status read_part(reader *r, const cJSON *part, const char *what, const kind *kinds, size_t n) {
  if (!part || cJSON_IsNull(part)) return QN_OK;
  const char *type = text_of(part, "type");
  if (!type) return qn__fail(QN_E_FORMAT, "%s: a %s without a type", r->path, what);
  for (size_t i = 0; i < n; i++)
    if (!strcmp(type, kinds[i].type)) return kinds[i].read(r, part);
  char known[256] = "";
  for (size_t i = 0; i < n; i++)
    snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "", kinds[i].type);
  return qn__fail(QN_E_SHAPE, "%s: %s \"%s\" is not known; known: %s", r->path, what, type, known);
}

/* A step with the text of `key`. */
static qn_status add_with(reader *r, const cJSON *part, const char *key, qn__step step) {
  const char *text = text_of(part, key);
  if (!text) return damaged(r, "a step without its text");
  if (!(step.text = keep(r, text, strlen(text)))) return qn__fail(QN_E_NOMEM, "no memory for a text");
  return qn__step_add(r->t, step, NULL, false);
}

/* "pattern": { "String": "…" } or { "Regex": "…" } */
static qn_status add_pattern(reader *r, const cJSON *part, qn__step step) {
  const cJSON *pattern = qn__json_get(part, "pattern");
  const char *literal = text_of(pattern, "String"), *regex = text_of(pattern, "Regex");
  if (!literal && !regex) return damaged(r, "a pattern that is neither a String nor a Regex");
  return qn__step_add(r->t, step, literal ? literal : regex, literal != NULL);
}

/* ---- Normalizers ------------------------------------------------------------------------------------------------- */

static qn_status read_normalizer(reader *r, const cJSON *part);

static qn_status read_normalizers(reader *r, const cJSON *part) {
  const cJSON *x;
  cJSON_ArrayForEach(x, qn__json_get(part, "normalizers")) QN_TRY(read_normalizer(r, x));
  return QN_OK;
}

static qn_status read_prepend(reader *r, const cJSON *part) {
  r->t->prefix = true;
  return add_with(r, part, "prepend", (qn__step){.kind = QN_STEP_PREPEND});
}

static qn_status read_replace(reader *r, const cJSON *part) {
  const char *content = text_of(part, "content"), *from = text_of(qn__json_get(part, "pattern"), "String");
  const char *to = content ? keep(r, content, strlen(content)) : NULL;
  if (!content) return damaged(r, "Replace without content");
  if (!to) return qn__fail(QN_E_NOMEM, "no memory for a text");
  if (from && !strcmp(from, " ") && *to) r->t->space = to;
  return add_pattern(r, part, (qn__step){.kind = QN_STEP_REPLACE, .text = to});
}

static qn_status read_form(reader *r, const cJSON *part) {
  const char *type = text_of(part, "type");
  int form = UTF8PROC_STABLE | (type[2] == 'C' || type[3] == 'C' ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
             (type[2] == 'K' ? UTF8PROC_COMPAT : 0);
  return qn__step_add(r->t, (qn__step){.kind = QN_STEP_NORMALIZE, .form = form}, NULL, false);
}

static qn_status read_normalizer(reader *r, const cJSON *part) {
  static const kind kinds[] = {{"Sequence", read_normalizers},
                               {"Prepend", read_prepend},
                               {"Replace", read_replace},
                               {"NFC", read_form},
                               {"NFD", read_form},
                               {"NFKC", read_form},
                               {"NFKD", read_form}};
  return read_part(r, part, "normalizer", kinds, QN_COUNT(kinds));
}

/* ---- Pre-tokenizers ---------------------------------------------------------------------------------------------- */

static qn_status read_pre(reader *r, const cJSON *part);

static qn_status read_pres(reader *r, const cJSON *part) {
  const cJSON *x;
  cJSON_ArrayForEach(x, qn__json_get(part, "pretokenizers")) QN_TRY(read_pre(r, x));
  return QN_OK;
}

static qn_status read_byte_level(reader *r, const cJSON *part) {
  const qn__step prefix = {.kind = QN_STEP_PREPEND, .text = " ", .unless = " "};
  if (flag_of(part, "add_prefix_space", true)) {
    QN_TRY(qn__step_add(r->t, prefix, NULL, false));
    r->t->prefix = true;
  }
  if (flag_of(part, "use_regex", true))
    QN_TRY(qn__step_add(r->t, (qn__step){.kind = QN_STEP_SPLIT}, qn__gpt2_pattern, false));
  r->t->byte_level = true;
  return qn__step_add(r->t, (qn__step){.kind = QN_STEP_BYTES}, NULL, false);
}

static qn_status read_split(reader *r, const cJSON *part) {
  static const char *const names[] = {[QN_SPLIT_ISOLATED] = "Isolated",
                                      [QN_SPLIT_REMOVED] = "Removed",
                                      [QN_SPLIT_PREVIOUS] = "MergedWithPrevious",
                                      [QN_SPLIT_NEXT] = "MergedWithNext",
                                      [QN_SPLIT_ALIKE] = "Contiguous"};
  const char *behavior = qn__json_text(part, "behavior", "");
  for (size_t i = 0; i < QN_COUNT(names); i++)
    if (!strcmp(names[i], behavior))
      return add_pattern(r, part,
                         (qn__step){QN_STEP_SPLIT, .split = (qn__split)i, .invert = flag_of(part, "invert", false)});
  return qn__fail(QN_E_SHAPE, "%s: Split: behavior \"%s\" is not known", r->path, behavior);
}

static qn_status read_digits(reader *r, const cJSON *part) {
  bool each = flag_of(part, "individual_digits", false);
  return qn__step_add(r->t, (qn__step){.kind = QN_STEP_SPLIT, .split = each ? QN_SPLIT_ISOLATED : QN_SPLIT_ALIKE},
                      "\\p{N}", false);
}

static qn_status read_metaspace(reader *r, const cJSON *part) {
  const char *text = qn__json_text(part, "replacement", "\u2581");
  const char *scheme =
      qn__json_text(part, "prepend_scheme", flag_of(part, "add_prefix_space", true) ? "always" : "never");
  const char *space = keep(r, text, strlen(text));
  if (!space) return qn__fail(QN_E_NOMEM, "no memory for a text");
  r->t->space = space;
  QN_TRY(qn__step_add(r->t, (qn__step){.kind = QN_STEP_REPLACE, .text = space}, " ", true));
  if (strcmp(scheme, "never")) {
    const qn__step prefix = {QN_STEP_PREPEND, .text = space, .unless = space, .at_start = !strcmp(scheme, "first")};
    QN_TRY(qn__step_add(r->t, prefix, NULL, false));
    r->t->prefix = true;
  }
  if (!flag_of(part, "split", true)) return QN_OK;
  return qn__step_add(r->t, (qn__step){.kind = QN_STEP_SPLIT, .split = QN_SPLIT_NEXT}, space, true);
}

static qn_status read_pre(reader *r, const cJSON *part) {
  static const kind kinds[] = {{"Sequence", read_pres},
                               {"ByteLevel", read_byte_level},
                               {"Split", read_split},
                               {"Digits", read_digits},
                               {"Metaspace", read_metaspace}};
  return read_part(r, part, "pre-tokenizer", kinds, QN_COUNT(kinds));
}

/* ---- Vocabulary -------------------------------------------------------------------------------------------------- */

/* The greatest id, which the file must have room for: each token is some bytes of it. */
static qn_status greatest(reader *r, const cJSON *id, int64_t *most) {
  double x = cJSON_IsNumber(id) ? id->valuedouble : -1;
  if (x < 0 || x >= (double)r->bytes || x != (double)(int64_t)x)
    return qn__fail(QN_E_FORMAT, "%s: id %g: ids are whole numbers, and below %zu in a file of that many bytes",
                    r->path, x, r->bytes);
  if ((int64_t)x > *most) *most = (int64_t)x;
  return QN_OK;
}

static qn_status read_words(reader *r, const cJSON *vocab, const cJSON *added) {
  const cJSON *x;
  int64_t most = -1;
  if (!cJSON_IsObject(vocab)) return damaged(r, "model: a vocab is needed");
  cJSON_ArrayForEach(x, vocab) QN_TRY(greatest(r, x, &most));
  cJSON_ArrayForEach(x, added) QN_TRY(greatest(r, qn__json_get(x, "id"), &most));
  QN_TRY(qn__tokens_room(r->t, most + 1));
  cJSON_ArrayForEach(x, vocab) {
    size_t n = strlen(x->string);
    const char *text = keep(r, x->string, n);
    if (!text) return qn__fail(QN_E_NOMEM, "no memory for a token");
    QN_TRY(qn__tokens_put(r->t, (int64_t)x->valuedouble, text, n, true));
  }
  return QN_OK;
}

/* "a b" or ["a", "b"] as two texts; the first is not terminated. */
static qn_status merge_parts(const reader *r, const cJSON *x, const char **left, size_t *left_n, const char **right) {
  const char *first = cJSON_GetStringValue(cJSON_IsArray(x) ? x->child : x);
  const char *space = first && !cJSON_IsArray(x) ? strchr(first, ' ') : NULL;
  const char *second = space ? space + 1 : cJSON_IsArray(x) && x->child ? cJSON_GetStringValue(x->child->next) : NULL;
  if (!first || !second || (space && strchr(second, ' '))) return damaged(r, "a merge that is not of two words");
  *left = first;
  *left_n = space ? (size_t)(space - first) : strlen(first);
  *right = second;
  return QN_OK;
}

static qn_status read_merge(reader *r, const cJSON *x, int32_t rank) {
  const char *left = NULL, *right = NULL;
  size_t left_n = 0;
  QN_TRY(merge_parts(r, x, &left, &left_n, &right));
  size_t right_n = strlen(right);
  qn_status s = qn__merges_put(r->t, left, left_n, right, right_n, rank);
  return s == QN_OK ? s : qn__fail(s, "%s: %s", r->path, qn__errmsg());
}

static qn_status read_model(reader *r, const cJSON *model, const cJSON *added) {
  const cJSON *merges = qn__json_get(model, "merges"), *x;
  qn__tokenizer *t = r->t;
  QN_TRY(read_words(r, qn__json_get(model, "vocab"), added));
  QN_TRY(qn__merges_room(t, (size_t)cJSON_GetArraySize(merges)));
  int32_t rank = 0;
  cJSON_ArrayForEach(x, merges) QN_TRY(read_merge(r, x, rank++));
  const char *unknown = text_of(model, "unk_token");
  if (unknown) t->unknown = qn__lexicon_find(&t->words, unknown, strlen(unknown));
  t->fuse_unknown = flag_of(model, "fuse_unk", false);
  t->by_bytes = flag_of(model, "byte_fallback", false);
  t->ignore_merges = flag_of(model, "ignore_merges", false);
  return QN_OK;
}

/* Models that are not byte pair encoding, and options that are not read. */
static qn_status check_model(const reader *r, const cJSON *model) {
  static const char *const options[] = {"continuing_subword_prefix", "end_of_word_suffix"};
  const char *type = qn__json_text(model, "type", qn__json_get(model, "merges") ? "BPE" : "without a type");
  if (!cJSON_IsObject(model)) return damaged(r, "a model is needed");
  if (strcmp(type, "BPE"))
    return qn__fail(QN_E_SHAPE, "%s: a tokenizer of kind %s is not read, only BPE", r->path, type);
  for (size_t i = 0; i < QN_COUNT(options); i++)
    if (*qn__json_text(model, options[i], ""))
      return qn__fail(QN_E_SHAPE, "%s: model: %s is not read", r->path, options[i]);
  if (qn__json_number(model, "dropout", 0) > 0) return qn__fail(QN_E_SHAPE, "%s: model: dropout is not read", r->path);
  return QN_OK;
}

/* ---- Added tokens ------------------------------------------------------------------------------------------------ */

static qn_status keep_text(qn__encoder *e, const char *text, size_t n) {
  char **kept = e->ud;
  *kept = qn__arena_text((qn__arena *)(uintptr_t)&e->t->arena, text, n);
  return *kept ? QN_OK : qn__fail(QN_E_NOMEM, "no memory for a token");
}

/* What the normalizers, steps 1 to `end`, make of a text; "" if nothing is left of it. */
static qn_status normal_text(reader *r, int end, const char *text, char **out) {
  static char none[1];
  *out = none;
  qn__encoder e = {.t = r->t, .end = end, .sink = keep_text, .ud = out};
  qn_status s = qn__encoder_run(&e, 1, text, strlen(text));
  qn__encoder_fini(&e);
  return s;
}

static qn_status read_added(reader *r, const cJSON *x, int normalizers_end) {
  qn__tokenizer *t = r->t;
  const char *content = text_of(x, "content");
  if (!content) return damaged(r, "an added token without content");
  int64_t id = (int64_t)qn__json_number(x, "id", -1);
  const char *text = keep(r, content, strlen(content));
  if (!text) return qn__fail(QN_E_NOMEM, "no memory for a token");
  QN_TRY(qn__tokens_put(t, id, text, strlen(text), false));
  qn__token *k = &t->token[id];
  k->literal = true;
  k->whole_word = flag_of(x, "single_word", false);
  k->strip_left = flag_of(x, "lstrip", false);
  k->strip_right = flag_of(x, "rstrip", false);
  bool normalized = flag_of(x, "normalized", !flag_of(x, "special", false));
  char *as = (char *)(uintptr_t)text;
  if (normalized) QN_TRY(normal_text(r, normalizers_end, text, &as));
  if (*as) qn__added_put(normalized ? &t->normalized : &t->raw, as, strlen(as), (int32_t)id);
  return QN_OK;
}

static qn_status read_steps(reader *r, const cJSON *root, const cJSON *added) {
  qn__tokenizer *t = r->t;
  const cJSON *x;
  size_t count = (size_t)cJSON_GetArraySize(added);
  QN_TRY(qn__lexicon_init(&t->raw.words, count));
  QN_TRY(qn__lexicon_init(&t->normalized.words, count));
  QN_TRY(qn__step_add(t, (qn__step){.kind = QN_STEP_ADDED, .added = &t->raw}, NULL, false));
  QN_TRY(read_normalizer(r, qn__json_get(root, "normalizer")));
  int end = t->steps;
  cJSON_ArrayForEach(x, added) QN_TRY(read_added(r, x, end));
  QN_TRY(qn__step_add(t, (qn__step){.kind = QN_STEP_ADDED, .added = &t->normalized}, NULL, false));
  return read_pre(r, qn__json_get(root, "pre_tokenizer"));
}

/* ---- The token that begins a text -------------------------------------------------------------------------------- */

/* TemplateProcessing: the special token, if any, that stands before the text. */
static void read_template(reader *r, const cJSON *processor) {
  const cJSON *x;
  cJSON_ArrayForEach(x, qn__json_get(processor, "processors")) read_template(r, x);
  const cJSON *single = qn__json_get(processor, "single");
  const char *name = single ? text_of(qn__json_get(single->child, "SpecialToken"), "id") : NULL;
  const cJSON *ids = name ? qn__json_get(qn__json_get(qn__json_get(processor, "special_tokens"), name), "ids") : NULL;
  if (ids && cJSON_IsNumber(ids->child)) r->t->bos = (qn__bos){ids->child->valueint, true};
}

static int32_t id_of(const qn__tokenizer *t, const char *text) {
  const qn__lexicon *all[] = {&t->raw.words, &t->normalized.words, &t->words};
  for (size_t i = 0; i < QN_COUNT(all); i++) {
    int32_t id = all[i]->slot ? qn__lexicon_find(all[i], text, strlen(text)) : -1;
    if (id >= 0) return id;
  }
  return -1;
}

/* tokenizer_config.json names the BOS, and add_bos_token overrules the template. */
static void read_settings(reader *r, const cJSON *settings) {
  const cJSON *bos = qn__json_get(settings, "bos_token"), *add = qn__json_get(settings, "add_bos_token");
  const char *name = cJSON_IsString(bos) ? bos->valuestring : text_of(bos, "content");
  int32_t id = name ? id_of(r->t, name) : -1;
  if (id >= 0) r->t->bos.id = id;
  if (cJSON_IsBool(add)) r->t->bos.add = cJSON_IsTrue(add) && r->t->bos.id >= 0;
}

/* ---- The files --------------------------------------------------------------------------------------------------- */

static qn_status parse(const char *path, size_t *bytes, cJSON **out) {
  char *text;
  QN_TRY(qn__file_read(path, &text, bytes));
  qn_status s = qn__json_parse(text, *bytes, out);
  free(text);
  return s ? qn__fail(s, "%s: %s", path, qn__errmsg()) : QN_OK;
}

static qn_status read_config_beside(reader *r) {
  const char *slash = strrchr(r->path, '/');
  char path[PATH_MAX];
  cJSON *settings;
  size_t bytes;
  snprintf(path, sizeof path, "%.*stokenizer_config.json", slash ? (int)(slash - r->path) + 1 : 0, r->path);
  if (!qn__file_exists(path)) return QN_OK;
  QN_TRY(parse(path, &bytes, &settings));
  read_settings(r, settings);
  cJSON_Delete(settings);
  return QN_OK;
}

static qn_status read_root(reader *r, const cJSON *root) {
  const cJSON *model = qn__json_get(root, "model"), *added = qn__json_get(root, "added_tokens");
  qn__tokenizer *t = r->t;
  read_template(r, qn__json_get(root, "post_processor"));
  QN_TRY(check_model(r, model));
  QN_TRY(read_model(r, model, added));
  QN_TRY(read_steps(r, root, added));
  const char *what = t->byte_level ? "byte-level BPE" : t->by_bytes ? "BPE with bytes" : "BPE";
  t->about = qn__arena_print(&t->arena, "%s, %jd tokens, of %s", what, (intmax_t)t->tokens, r->path);
  return t->about ? QN_OK : qn__fail(QN_E_NOMEM, "no memory for a text");
}

qn_status qn__tokenizer_from_json(qn__tokenizer *t, const char *path) {
  reader r = {.t = t, .path = path};
  cJSON *root;
  QN_TRY(parse(path, &r.bytes, &root));
  qn_status s = read_root(&r, root);
  cJSON_Delete(root);
  qn_status beside = s == QN_OK ? read_config_beside(&r) : QN_OK;
  return s == QN_OK ? beside : s;
}
