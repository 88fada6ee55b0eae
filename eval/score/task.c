/* task.c - items of a file as ids, after the rules of lm-evaluation-harness: see task.h. */
#include "task.h"
#include "fail.h"
#include "file.h"
#include "hash.h"
#include <stdlib.h>
#include <string.h>

/* ---- Text -------------------------------------------------------------------------------------------------------- */

/* Is the character that ends at text[n] white space for Python's str.rstrip? Its bytes, or 0. */
static size_t space_before(const char *text, size_t n) {
  static const char *const spaces[] = {"\t",           "\n",           "\v",           "\f",           "\r",
                                       "\x1c",         "\x1d",         "\x1e",         "\x1f",         " ",
                                       "\xc2\x85",     "\xc2\xa0",     "\xe1\x9a\x80", "\xe2\x80\x80", "\xe2\x80\x81",
                                       "\xe2\x80\x82", "\xe2\x80\x83", "\xe2\x80\x84", "\xe2\x80\x85", "\xe2\x80\x86",
                                       "\xe2\x80\x87", "\xe2\x80\x88", "\xe2\x80\x89", "\xe2\x80\x8a", "\xe2\x80\xa8",
                                       "\xe2\x80\xa9", "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80"};
  for (size_t i = 0; i < QN_COUNT(spaces); i++) {
    size_t size = strlen(spaces[i]);
    if (size <= n && !memcmp(text + n - size, spaces[i], size)) return size;
  }
  return 0;
}

static size_t stripped(const char *text) {
  size_t n = strlen(text);
  for (size_t size; (size = space_before(text, n)) != 0;) n -= size;
  return n;
}

static int64_t characters(const char *text) {
  int64_t n = 0;
  for (; *text; text++) n += ((unsigned char)*text & 0xc0) != 0x80;
  return n;
}

/* ---- Choices ----------------------------------------------------------------------------------------------------- */

/* Keep the last ids, one more than the model sees; the BOS stays in front. */
static bool truncate_left(qn__choice *c, int64_t most, int32_t bos) {
  int64_t head = bos >= 0, drop = c->n - (most + 1);
  if (drop <= 0) return false;
  memmove(c->ids + head, c->ids + head + drop, (size_t)(c->n - head - drop) * sizeof *c->ids);
  c->n -= drop;
  c->context -= drop;
  return true;
}

/* What is wrong with a choice that was encoded, or NULL. */
static const char *fault(const qn__choice *c, int64_t most, int32_t bos) {
  if (c->context >= c->n) return "its continuation adds no token to the context";
  if (!c->context) return "its context is empty, and the model has no BOS to stand there";
  if (c->n - c->context > most - (bos >= 0)) return "its continuation is longer than --ctx";
  return NULL;
}

/* `whole` is the context, the delimiter and the choice; its first `context` bytes are encoded alone, too. */
static qn_status encode(const qn__task_options *o, const char *whole, size_t context, qn__choice *c) {
  int32_t *before = NULL, *ids = NULL;
  int64_t n_before = 0, n = 0, head = o->bos >= 0;
  qn_status s = o->encode(o->ud, whole, context, &before, &n_before);
  free(before);
  if (s == QN_OK) s = o->encode(o->ud, whole, strlen(whole), &ids, &n);
  if (s == QN_OK && !(c->ids = malloc((size_t)(n + 1) * sizeof *c->ids)))
    s = qn__fail(QN_E_NOMEM, "%jd ids", (intmax_t)n);
  if (s == QN_OK) {
    c->ids[0] = o->bos;
    if (n) memcpy(c->ids + head, ids, (size_t)n * sizeof *ids);
    c->n = n + head;
    c->context = n_before + head;
  }
  free(ids);
  return s;
}

static qn_status make_choice(const qn__task_options *o, const qn__item_text *x, const char *text, qn__task *t,
                             qn__choice *c) {
  char *whole;
  if (asprintf(&whole, "%s%s%s", x->context, x->delimiter, text) < 0) return qn__fail(QN_E_NOMEM, "a choice");
  c->characters = characters(text);
  c->bytes = (int64_t)strlen(text);
  qn_status s = encode(o, whole, stripped(x->context), c);
  free(whole);
  const char *why = s == QN_OK ? fault(c, o->context, o->bos) : NULL;
  if (why) return qn__fail(QN_E_FORMAT, "%s", why);
  if (s == QN_OK && truncate_left(c, o->context, o->bos)) t->item[t->n].truncated = true;
  if (s == QN_OK && c->n > t->longest) t->longest = c->n;
  return s;
}

/* ---- Items ------------------------------------------------------------------------------------------------------- */

typedef struct maker {
  const qn__task_options *o;
  qn__task *t;
  int64_t room;
} maker;

static qn_status add(void *ud, const qn__item_text *x) {
  maker *m = ud;
  qn__task *t = m->t;
  if (t->n == m->room) {
    int64_t room = m->room * 2 + 64;
    qn__item *grown = realloc(t->item, (size_t)room * sizeof *grown);
    if (!grown) return qn__fail(QN_E_NOMEM, "%jd items", (intmax_t)room);
    t->item = grown;
    m->room = room;
  }
  qn__item *item = &t->item[t->n];
  *item = (qn__item){.line = x->line, .n = x->n, .gold = x->gold, .choice = calloc((size_t)x->n, sizeof *item->choice)};
  if (!item->choice) return qn__fail(QN_E_NOMEM, "%d choices", x->n);
  qn_status s = QN_OK;
  for (int i = 0; s == QN_OK && i < x->n; i++) s = make_choice(m->o, x, x->choice[i], t, &item->choice[i]);
  t->truncated += item->truncated;
  t->n++; /* also of one that failed: it is freed with the others */
  return s;
}

/* A hash of hashes: of each item its right answer and what is seen of its choices. */
static qn_status name_it(qn__task *t) {
  uint8_t(*hash)[QN_HASH_BYTES] = calloc((size_t)t->n + 1, sizeof *hash);
  if (!hash) return qn__fail(QN_E_NOMEM, "%jd items", (intmax_t)t->n);
  for (int64_t i = 0; i < t->n; i++)
    for (int c = 0; c < t->item[i].n; c++) {
      const qn__choice *x = &t->item[i].choice[c];
      struct {
        uint8_t before[QN_HASH_BYTES], ids[QN_HASH_BYTES];
        int64_t gold, context, characters, bytes;
      } all = {.gold = t->item[i].gold, .context = x->context, .characters = x->characters, .bytes = x->bytes};
      memcpy(all.before, hash[i], sizeof all.before);
      qn__hash128(x->ids, (size_t)x->n * sizeof *x->ids, all.ids);
      qn__hash128(&all, sizeof all, hash[i]);
    }
  qn__hash_hex(hash, (size_t)t->n * sizeof *hash, t->hash);
  free(hash);
  return QN_OK;
}

qn_status qn__task_read(const char *path, const qn__task_options *o, qn__task *out) {
  maker m = {.o = o, .t = out};
  *out = (qn__task){0};
  qn_status s = qn__task_file_read(path, add, &m);
  if (s == QN_OK) s = name_it(out);
  if (s != QN_OK) qn__task_free(out);
  return s;
}

void qn__task_free(qn__task *t) {
  for (int64_t i = 0; i < t->n; i++) {
    for (int c = 0; t->item[i].choice && c < t->item[i].n; c++) free(t->item[i].choice[c].ids);
    free(t->item[i].choice);
  }
  free(t->item);
  *t = (qn__task){0};
}

/* ---- Answers ----------------------------------------------------------------------------------------------------- */

qn__answer qn__answer_of(const qn__token_score *token, int64_t n) {
  qn__answer a = {.greedy = 1};
  for (int64_t i = 0; i < n; i++) {
    a.log_likelihood -= (double)token[i].nll;
    a.greedy &= token[i].greedy;
    a.not_finite += token[i].not_finite;
  }
  return a;
}

/* The choice with the largest likelihood, divided by what `length` says of it. */
static int likeliest(const qn__item *x, const qn__answer *a, double (*length)(const qn__choice *)) {
  int best = 0;
  for (int i = 1; i < x->n; i++)
    if (a[i].log_likelihood / length(&x->choice[i]) > a[best].log_likelihood / length(&x->choice[best])) best = i;
  return best;
}

static double one(const qn__choice *c) { return (void)c, 1; }
static double in_characters(const qn__choice *c) { return (double)c->characters; }
static double in_bytes(const qn__choice *c) { return (double)c->bytes; }

qn__verdict qn__judge(const qn__item *x, const qn__answer *a) {
  qn__verdict v = {0};
  for (int i = 0; i < x->n; i++) v.broken = v.broken || a[i].not_finite;
  if (v.broken) return v;
  if (x->n == 1) return (qn__verdict){a->greedy, a->greedy, a->greedy, false};
  v.acc = likeliest(x, a, one) == x->gold;
  v.acc_norm = likeliest(x, a, in_characters) == x->gold;
  v.acc_bytes = likeliest(x, a, in_bytes) == x->gold;
  return v;
}
