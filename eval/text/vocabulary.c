/* vocabulary.c - tokens, words and merges of a tokenizer: tables that are filled once. */
#include "tokenizer.h"
#include "utf8.h"
#include <stdlib.h>
#include <string.h>

static size_t table_size(size_t most) {
  size_t cap = 16;
  while (cap < 2 * most) cap *= 2;
  return cap;
}

static uint64_t mix(uint64_t h) { return (h ^ h >> 31) * 0x9e3779b97f4a7c15u; }

/* ---- Words to numbers: open addressing, FNV-1a (Fowler, Noll, Vo) ------------------------------------------------ */

enum { EMPTY = 0x811c9dc5 };
static uint64_t longer(uint64_t h, char c) { return (h ^ (uint8_t)c) * 1099511628211u; }

static qn__word *word_slot(const qn__lexicon *l, const char *text, size_t n, uint64_t hash) {
  for (size_t at = mix(hash) >> 20;; at++) {
    qn__word *w = &l->slot[at & (l->cap - 1)];
    if (!w->text || (w->n == n && !memcmp(w->text, text, n))) return w;
  }
}

static uint64_t hash_of(const char *text, size_t n) {
  uint64_t h = EMPTY;
  for (size_t i = 0; i < n; i++) h = longer(h, text[i]);
  return h;
}

qn_status qn__lexicon_init(qn__lexicon *l, size_t most) {
  *l = (qn__lexicon){.cap = table_size(most)};
  if ((l->slot = calloc(l->cap, sizeof *l->slot))) return QN_OK;
  return qn__fail(QN_E_NOMEM, "no memory for %zu words", most);
}

void qn__lexicon_fini(qn__lexicon *l) {
  free(l->slot);
  *l = (qn__lexicon){0};
}

void qn__lexicon_put(qn__lexicon *l, const char *text, size_t n, int32_t id) {
  qn__word *w = word_slot(l, text, n, hash_of(text, n));
  if (n > l->longest) l->longest = n;
  *w = (qn__word){text, (uint32_t)n, id};
}

int32_t qn__lexicon_find(const qn__lexicon *l, const char *text, size_t n) {
  const qn__word *w = word_slot(l, text, n, hash_of(text, n));
  return w->text ? w->id : -1;
}

int32_t qn__lexicon_longest(const qn__lexicon *l, const char *text, size_t n, size_t *length) {
  int32_t id = -1;
  uint64_t h = EMPTY;
  for (size_t i = 1; i <= n && i <= l->longest; i++) {
    h = longer(h, text[i - 1]);
    const qn__word *w = word_slot(l, text, i, h);
    if (w->text) id = w->id, *length = i;
  }
  return id;
}

/* ---- Tokens ------------------------------------------------------------------------------------------------------ */

qn_status qn__tokens_room(qn__tokenizer *t, int64_t size) {
  t->token = qn__arena_take(&t->arena, ((size_t)size + 1) * sizeof *t->token);
  if (!t->token) return qn__fail(QN_E_NOMEM, "no memory for %jd tokens", (intmax_t)size);
  t->size = size;
  memset(t->byte_of, -1, sizeof t->byte_of);
  uint16_t next = 256; /* a byte that cannot be seen is the next character from U+0100 on */
  for (int b = 0; b < 256; b++) {
    bool seen = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    t->shown[b] = seen ? (uint16_t)b : next++;
    t->byte_of[t->shown[b]] = (int16_t)b;
    t->byte_id[b] = -1;
  }
  return qn__lexicon_init(&t->words, (size_t)size);
}

/* "<0x0A>" -> 10; -1: it is no such token. */
static int byte_of(const char *text, size_t n) {
  static const char digits[] = "0123456789ABCDEF";
  if (n != 6 || memcmp(text, "<0x", 3) || text[5] != '>') return -1;
  const char *high = memchr(digits, text[3], 16), *low = memchr(digits, text[4], 16);
  return high && low ? (int)(high - digits) << 4 | (int)(low - digits) : -1;
}

qn_status qn__tokens_put(qn__tokenizer *t, int64_t id, const char *text, size_t n, bool word) {
  qn__token *k = &t->token[id];
  size_t valid = qn__utf8_check(text, n);
  if (valid < n) return qn__fail(QN_E_FORMAT, "token %jd: its byte %zu is no UTF-8", (intmax_t)id, valid);
  if (n > QN_LONGEST) return qn__fail(QN_E_FORMAT, "token %jd has %zu bytes, at most %d", (intmax_t)id, n, QN_LONGEST);
  t->tokens += !k->text;
  k->text = text;
  k->n = (uint32_t)n;
  int byte = byte_of(text, n);
  k->byte = (uint16_t)(byte + 1);
  if (byte >= 0) t->byte_id[byte] = (int32_t)id;
  if (word && n) qn__lexicon_put(&t->words, text, n, (int32_t)id);
  return QN_OK;
}

/* ---- Merges: open addressing ------------------------------------------------------------------------------------- */

qn_status qn__merges_room(qn__tokenizer *t, size_t most) {
  t->merge_cap = table_size(most);
  t->merge = qn__arena_take(&t->arena, t->merge_cap * sizeof *t->merge);
  return t->merge ? QN_OK : qn__fail(QN_E_NOMEM, "no memory for %zu merges", most);
}

static qn__merge *merge_slot(const qn__tokenizer *t, int32_t left, int32_t right) {
  size_t at = mix((uint64_t)left << 32 | (uint32_t)right) >> 20;
  for (;; at++) {
    qn__merge *m = &t->merge[at & (t->merge_cap - 1)];
    if (!m->used || (m->left == left && m->right == right)) return m;
  }
}

qn_status qn__merges_put(qn__tokenizer *t, const char *left, size_t left_n, const char *right, size_t right_n,
                         int32_t rank) {
  char both[2 * QN_LONGEST];
  qn__merge m = {.rank = rank, .used = true};
  m.left = qn__lexicon_find(&t->words, left, left_n);
  m.right = qn__lexicon_find(&t->words, right, right_n);
  m.id = -1;
  if (m.left >= 0 && m.right >= 0) { /* then they fit */
    memcpy(both, left, left_n);
    memcpy(both + left_n, right, right_n);
    m.id = qn__lexicon_find(&t->words, both, left_n + right_n);
  }
  if (m.id < 0)
    return qn__fail(QN_E_FORMAT, "merge %d, of \"%.*s\" and \"%.*s\": not all of it is in the vocabulary", (int)rank,
                    left_n < 64 ? (int)left_n : 64, left, right_n < 64 ? (int)right_n : 64, right);
  *merge_slot(t, m.left, m.right) = m; /* the last of the same pair counts */
  return QN_OK;
}

const qn__merge *qn__merges_find(const qn__tokenizer *t, int32_t left, int32_t right) {
  const qn__merge *m = merge_slot(t, left, right);
  return m->used ? m : NULL;
}

/* ---- Added tokens ------------------------------------------------------------------------------------------------ */

void qn__added_put(qn__added *a, const char *text, size_t n, int32_t id) {
  qn__lexicon_put(&a->words, text, n, id);
  a->first[(uint8_t)*text] = true;
}
