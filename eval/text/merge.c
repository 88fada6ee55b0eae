/* merge.c - characters become tokens: the best two neighbours are merged, until none can be.
 *
 * Candidates wait in a heap, so that n characters take n log n steps. A candidate whose neighbours have changed since
 * is thrown away when it comes up. Of equally good ones the leftmost is first. */
#include "tokenizer.h"
#include "utf8.h"
#include <stdlib.h>
#include <string.h>

qn_status qn__grow(void *array, size_t *room, size_t n, size_t size) {
  void **p = array;
  if (n <= *room) return QN_OK;
  size_t more = n + n / 2 + 16;
  void *grown = more < SIZE_MAX / size ? realloc(*p, more * size) : NULL;
  if (!grown) return qn__fail(QN_E_NOMEM, "no memory for %zu elements of %zu bytes of a text", more, size);
  *p = grown;
  *room = more;
  return QN_OK;
}

qn_status qn__encoder_put(qn__encoder *e, int32_t id) {
  QN_TRY(qn__grow(&e->out.id, &e->out_room, (size_t)e->out.n + 1, sizeof *e->out.id));
  e->out.id[e->out.n++] = id;
  return QN_OK;
}

/* ---- Characters -------------------------------------------------------------------------------------------------- */

static qn_status add_symbol(qn__encoder *e, const char *text, size_t n, int32_t id) {
  QN_TRY(qn__grow(&e->symbol, &e->symbol_room, e->symbols + 1, sizeof *e->symbol));
  int64_t at = (int64_t)e->symbols++;
  e->symbol[at] = (qn__symbol){text, (uint32_t)n, id, at - 1, -1};
  if (at) e->symbol[at - 1].right = at;
  return QN_OK;
}

static bool has_bytes(const qn__tokenizer *t, const char *s, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (t->byte_id[(uint8_t)s[i]] < 0) return false;
  return t->by_bytes;
}

/* A character that is no word. *unknown: the bytes of unknown characters that wait to become one symbol. */
static qn_status add_stranger(qn__encoder *e, const char *s, size_t n, size_t *unknown) {
  const qn__tokenizer *t = e->t;
  if (!t->merge) return add_symbol(e, s, n, -1); /* it may be a part of a longer word */
  if (has_bytes(t, s, n)) {
    for (size_t i = 0; i < n; i++) QN_TRY(add_symbol(e, s + i, 1, t->byte_id[(uint8_t)s[i]]));
    return QN_OK;
  }
  if (t->unknown < 0) return e->out.dropped++, QN_OK;
  if (*unknown && !t->fuse_unknown) {
    QN_TRY(add_symbol(e, s - *unknown, *unknown, t->unknown));
    *unknown = 0;
  }
  *unknown += n;
  return QN_OK;
}

/* Unknown characters stand behind the bytes that follow them, as they do in `tokenizers`. */
static qn_status add_characters(qn__encoder *e, const char *text, size_t n) {
  size_t unknown = 0;
  for (size_t i = 0, bytes; i < n; i += bytes) {
    bytes = qn__utf8_bytes(text[i]);
    int32_t id = qn__lexicon_find(&e->t->words, text + i, bytes);
    if (id < 0) {
      QN_TRY(add_stranger(e, text + i, bytes, &unknown));
      continue;
    }
    if (unknown) QN_TRY(add_symbol(e, text + i - unknown, unknown, e->t->unknown));
    unknown = 0;
    QN_TRY(add_symbol(e, text + i, bytes, id));
  }
  return unknown ? add_symbol(e, text + n - unknown, unknown, e->t->unknown) : QN_OK;
}

/* ---- Candidates: a heap, the least on top ------------------------------------------------------------------------ */

static bool before(const qn__candidate *a, const qn__candidate *b) {
  return a->order < b->order || (a->order == b->order && a->left < b->left);
}

static qn_status push(qn__encoder *e, qn__candidate c) {
  QN_TRY(qn__grow(&e->heap, &e->heap_room, e->candidates + 1, sizeof *e->heap));
  size_t at = e->candidates++;
  for (size_t up; at && before(&c, &e->heap[up = (at - 1) / 2]); at = up) e->heap[at] = e->heap[up];
  e->heap[at] = c;
  return QN_OK;
}

static qn__candidate pop(qn__encoder *e) {
  qn__candidate top = e->heap[0], last = e->heap[--e->candidates];
  size_t at = 0;
  for (size_t down; (down = 2 * at + 1) < e->candidates; at = down) {
    down += down + 1 < e->candidates && before(&e->heap[down + 1], &e->heap[down]);
    if (!before(&e->heap[down], &last)) break;
    e->heap[at] = e->heap[down];
  }
  e->heap[at] = last;
  return top;
}

/* Enter a symbol and its right neighbour, if they can be merged. */
static qn_status try_pair(qn__encoder *e, int64_t left) {
  const qn__tokenizer *t = e->t;
  int64_t right = left < 0 ? -1 : e->symbol[left].right;
  if (right < 0) return QN_OK;
  const qn__symbol *a = &e->symbol[left], *b = &e->symbol[right];
  qn__candidate c = {.left = left, .right = right, .n = a->n + b->n};
  if (t->merge) {
    const qn__merge *m = qn__merges_find(t, a->id, b->id);
    if (!m) return QN_OK;
    c.order = m->rank;
    c.id = m->id;
  } else {
    c.id = qn__lexicon_find(&t->words, a->text, c.n);
    if (c.id < 0) return QN_OK;
    c.order = -(double)t->token[c.id].score;
  }
  return push(e, c);
}

static qn_status merge_all(qn__encoder *e) {
  e->candidates = 0;
  for (size_t i = 0; i + 1 < e->symbols; i++) QN_TRY(try_pair(e, (int64_t)i));
  while (e->candidates) {
    qn__candidate c = pop(e);
    qn__symbol *a = &e->symbol[c.left], *b = &e->symbol[c.right];
    if (!a->n || !b->n || a->n + b->n != c.n) continue;
    a->n = c.n;
    a->id = c.id;
    a->right = b->right;
    b->n = 0;
    if (a->right >= 0) e->symbol[a->right].left = c.left;
    QN_TRY(try_pair(e, a->left));
    QN_TRY(try_pair(e, c.left));
  }
  return QN_OK;
}

/* ---- Pieces ------------------------------------------------------------------------------------------------------ */

/* What is no word at the end: its bytes, or the unknown token once for all neighbours of that kind. */
static qn_status put_stranger(qn__encoder *e, const qn__symbol *s, bool after_unknown) {
  const qn__tokenizer *t = e->t;
  if (has_bytes(t, s->text, s->n)) {
    for (size_t i = 0; i < s->n; i++) QN_TRY(qn__encoder_put(e, t->byte_id[(uint8_t)s->text[i]]));
    return QN_OK;
  }
  if (t->unknown < 0) return e->out.dropped++, QN_OK;
  return after_unknown ? QN_OK : qn__encoder_put(e, t->unknown);
}

qn_status qn__merge_piece(qn__encoder *e, const char *text, size_t n) {
  const qn__tokenizer *t = e->t;
  int32_t whole = t->ignore_merges ? qn__lexicon_find(&t->words, text, n) : -1;
  if (whole >= 0) return qn__encoder_put(e, whole);
  e->symbols = 0;
  QN_TRY(add_characters(e, text, n));
  QN_TRY(merge_all(e));
  bool unknown = false;
  for (int64_t i = e->symbols ? 0 : -1; i >= 0; i = e->symbol[i].right) {
    const qn__symbol *s = &e->symbol[i];
    QN_TRY(s->id < 0 ? put_stranger(e, s, unknown) : qn__encoder_put(e, s->id));
    unknown = s->id < 0 && !has_bytes(t, s->text, s->n);
  }
  return QN_OK;
}
