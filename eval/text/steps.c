/* steps.c - a text on its way through the steps of a tokenizer, piece by piece. */
#include "tokenizer.h"
#include "utf8.h"
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

typedef struct piece {
  const char *text;
  size_t n;
  bool first; /* does the text begin with it? */
} piece;

static qn_status send(qn__encoder *e, int i, piece p);

/* ---- Building ---------------------------------------------------------------------------------------------------- */

const char qn__gpt2_pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

qn_status qn__step_add(qn__tokenizer *t, qn__step step, const char *pattern, bool literal) {
  if (t->steps == QN_STEPS) return qn__fail(QN_E_SHAPE, "more than %d steps are not read", QN_STEPS);
  if (pattern) QN_TRY(qn__pattern_new(pattern, literal, &step.pattern));
  t->step[t->steps++] = step;
  return QN_OK;
}

/* ---- The piece that a step writes -------------------------------------------------------------------------------- */

static qn_status put(qn__encoder *e, int step, const char *text, size_t n) {
  QN_TRY(qn__grow(&e->work[step].text, &e->work[step].room, e->work[step].n + n, 1));
  if (n) memcpy(e->work[step].text + e->work[step].n, text, n);
  e->work[step].n += n;
  return QN_OK;
}

static qn_status send_written(qn__encoder *e, int step, bool first) {
  return send(e, step + 1, (piece){e->work[step].text, e->work[step].n, first});
}

static qn_status prepend(qn__encoder *e, int i, piece p) {
  const qn__step *s = &e->t->step[i];
  size_t n = s->unless ? strlen(s->unless) : 0;
  if ((s->at_start && !p.first) || (n && p.n >= n && !memcmp(p.text, s->unless, n))) return send(e, i + 1, p);
  QN_TRY(put(e, i, s->text, strlen(s->text)));
  QN_TRY(put(e, i, p.text, p.n));
  return send_written(e, i, p.first);
}

static qn_status replace(qn__encoder *e, int i, piece p) {
  const qn__step *s = &e->t->step[i];
  qn__matches m = {.pattern = s->pattern, .data = e->work[i].data, .text = p.text, .n = p.n};
  size_t at = 0;
  for (bool found;; at = m.end) {
    QN_TRY(qn__matches_next(&m, &found));
    QN_TRY(put(e, i, p.text + at, (found ? m.begin : p.n) - at));
    if (!found) return send_written(e, i, p.first);
    QN_TRY(put(e, i, s->text, strlen(s->text)));
  }
}

static qn_status normalize(qn__encoder *e, int i, piece p) {
  utf8proc_uint8_t *out = NULL;
  utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)p.text, (utf8proc_ssize_t)p.n, &out,
                                    (utf8proc_option_t)e->t->step[i].form);
  if (n < 0) return qn__fail(QN_E_NOMEM, "no memory to normalize %zu bytes of a text", p.n);
  qn_status s = send(e, i + 1, (piece){(const char *)out, (size_t)n, p.first});
  free(out);
  return s;
}

static qn_status bytes(qn__encoder *e, int i, piece p) {
  for (size_t b = 0; b < p.n; b++) {
    char out[2];
    size_t n = qn__utf8_put(e->t->shown[(uint8_t)p.text[b]], out);
    QN_TRY(put(e, i, out, n));
  }
  return send_written(e, i, p.first);
}

/* ---- Steps that cut ---------------------------------------------------------------------------------------------- */

static qn_status send_part(qn__encoder *e, int step, piece p, size_t begin, size_t end) {
  return begin < end ? send(e, step + 1, (piece){p.text + begin, end - begin, p.first && !begin}) : QN_OK;
}

/* Does a part stay with the one before? match: is it one, was that one? */
static bool joined(qn__split split, bool was, bool is) {
  switch (split) {
  case QN_SPLIT_PREVIOUS:
    return is && !was;
  case QN_SPLIT_NEXT:
    return was && !is;
  case QN_SPLIT_ALIKE:
    return was == is;
  default:
    return false;
  }
}

/* What waits to be sent, for it may grow by what follows. */
typedef struct waiting {
  size_t begin, end;
  bool any, match;
} waiting;

static qn_status send_waiting(qn__encoder *e, int i, piece p, const waiting *w) {
  if (w->match && e->t->step[i].split == QN_SPLIT_REMOVED) return QN_OK;
  return send_part(e, i, p, w->begin, w->end);
}

static qn_status take_part(qn__encoder *e, int i, piece p, waiting *w, size_t end, bool match) {
  const qn__step *s = &e->t->step[i];
  match ^= s->invert;
  if (!w->any || !joined(s->split, w->match, match)) {
    QN_TRY(send_waiting(e, i, p, w));
    w->begin = w->end;
  }
  *w = (waiting){w->begin, end, true, match};
  return QN_OK;
}

static qn_status split(qn__encoder *e, int i, piece p) {
  qn__matches m = {.pattern = e->t->step[i].pattern, .data = e->work[i].data, .text = p.text, .n = p.n};
  waiting w = {0};
  for (bool found;;) {
    QN_TRY(qn__matches_next(&m, &found));
    size_t end = found ? m.begin : p.n;
    if (end > w.end) QN_TRY(take_part(e, i, p, &w, end, false));
    if (!found) return send_waiting(e, i, p, &w);
    QN_TRY(take_part(e, i, p, &w, m.end, true));
  }
}

/* ---- Added tokens ------------------------------------------------------------------------------------------------ */

static bool is_space(uint32_t c) {
  utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
  return (c >= 9 && c <= 13) || c == 0x85 || (k >= UTF8PROC_CATEGORY_ZS && k <= UTF8PROC_CATEGORY_ZP);
}

/* Alphabetic, marks, decimal digits, connectors, joiners: Unicode TR 18. */
static bool is_word(uint32_t c) {
  utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
  return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NL) || k == UTF8PROC_CATEGORY_PC ||
         (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f189) || c == 0x200c || c == 0x200d;
}

static size_t previous(const char *text, size_t at) { /* where the character before begins */
  do at--;
  while (((uint8_t)text[at] & 0xc0) == 0x80);
  return at;
}

static bool stands_alone(piece p, size_t begin, size_t end) {
  return !(begin && is_word(qn__utf8_point(p.text + previous(p.text, begin)))) &&
         !(end < p.n && is_word(qn__utf8_point(p.text + end)));
}

static qn_status added(qn__encoder *e, int i, piece p) {
  const qn__added *a = e->t->step[i].added;
  size_t sent = 0; /* as far as all is sent */
  for (size_t at = 0, n; at < p.n; at += n) {
    int32_t id = a->first[(uint8_t)p.text[at]] ? qn__lexicon_longest(&a->words, p.text + at, p.n - at, &n) : -1;
    if (id < 0) n = qn__utf8_bytes(p.text[at]);
    if (id < 0 || (e->t->token[id].whole_word && !stands_alone(p, at, at + n))) continue;
    size_t from = at, to = at + n;
    if (e->t->token[id].strip_left)
      while (from > sent && is_space(qn__utf8_point(p.text + previous(p.text, from)))) from = previous(p.text, from);
    if (e->t->token[id].strip_right)
      while (to < p.n && is_space(qn__utf8_point(p.text + to))) to += qn__utf8_bytes(p.text[to]);
    QN_TRY(send_part(e, i, p, sent, from));
    QN_TRY(qn__encoder_put(e, id));
    sent = to;
  }
  return send_part(e, i, p, sent, p.n);
}

/* ---- The way ----------------------------------------------------------------------------------------------------- */

static qn_status send(qn__encoder *e, int i, piece p) {
  static qn_status (*const take[])(qn__encoder *, int, piece) = {
      [QN_STEP_ADDED] = added,         [QN_STEP_PREPEND] = prepend, [QN_STEP_REPLACE] = replace,
      [QN_STEP_NORMALIZE] = normalize, [QN_STEP_BYTES] = bytes,     [QN_STEP_SPLIT] = split,
  };
  if (!p.n) return QN_OK;
  if (i == e->end) return e->sink(e, p.text, p.n);
  const qn__step *s = &e->t->step[i];
  e->work[i].n = 0;
  if (s->pattern && !e->work[i].data && !(e->work[i].data = pcre2_match_data_create(1, NULL)))
    return qn__fail(QN_E_NOMEM, "no memory for a pattern's matches");
  return take[s->kind](e, i, p);
}

qn_status qn__encoder_run(qn__encoder *e, int from, const char *text, size_t n) {
  return send(e, from, (piece){text, n, true});
}

void qn__encoder_fini(qn__encoder *e) {
  for (int i = 0; i < e->t->steps; i++) {
    free(e->work[i].text);
    pcre2_match_data_free(e->work[i].data);
  }
  free(e->symbol), free(e->heap);
  qn__ids_free(&e->out);
}
