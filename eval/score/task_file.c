/* task_file.c - JSON lines under the names that benchmarks use, and MMLU's CSV: see task_file.h. */
#include "task_file.h"
#include "fail.h"
#include "file.h"
#include "json.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef struct reader {
  const char *path;
  qn_status (*item)(void *ud, const qn__item_text *x);
  void *ud;
} reader;

static qn_status hand_over(const reader *r, const qn__item_text *x) {
  qn_status s = r->item(r->ud, x);
  if (s == QN_OK || s == QN_E_NOMEM) return s;
  return qn__fail(s, "%s:%jd: %s", r->path, (intmax_t)x->line, qn__errmsg());
}

/* ---- JSON lines -------------------------------------------------------------------------------------------------- */

/* The member that has one of these names. */
static const cJSON *any_of(const cJSON *j, const char *const *names) {
  const cJSON *found = NULL;
  for (; *names && !found; names++) found = qn__json_get(j, *names);
  return found;
}

static const char *const contexts[] = {"context", "query", "question", "ctx", "prompt", NULL};
static const char *const choices[] = {"choices", "endings", "options", NULL};
static const char *const golds[] = {"gold", "label", "answer", "answerKey", NULL};

/* What is wrong with the choices of an item, or NULL. */
static const char *read_choices(const cJSON *list, qn__item_text *x) {
  const cJSON *c;
  if (cJSON_IsObject(list)) list = qn__json_get(list, "text");
  if (!cJSON_IsArray(list)) return "choices are neither a list nor {\"text\": [...]}";
  cJSON_ArrayForEach(c, list) {
    if (x->n == QN_CHOICES) return "it has more than 64 choices";
    if (!cJSON_IsString(c) || !*c->valuestring) return "a choice is no text, or an empty one";
    x->choice[x->n++] = c->valuestring;
  }
  return x->n < 2 ? "it has fewer than two choices" : NULL;
}

/* Number of the right choice: a label, a number from 0 on, also as text, or a letter. -1: none of these. */
static int read_gold(const cJSON *gold, const cJSON *labels) {
  const cJSON *l;
  int i = 0;
  if (cJSON_IsNumber(gold) && gold->valuedouble == gold->valueint) return gold->valueint;
  if (!cJSON_IsString(gold)) return -1;
  const char *text = gold->valuestring;
  cJSON_ArrayForEach(l, labels) {
    if (cJSON_IsString(l) && !strcmp(l->valuestring, text)) return i;
    i++;
  }
  if (labels || !*text) return -1;
  if (!text[1] && isalpha((unsigned char)*text)) return toupper((unsigned char)*text) - 'A';
  return strspn(text, "0123456789") == strlen(text) && strlen(text) < 9 ? atoi(text) : -1;
}

static const char *read_item(const cJSON *j, qn__item_text *x) {
  const cJSON *list = any_of(j, choices), *gold = any_of(j, golds), *context = any_of(j, contexts);
  if (!cJSON_IsObject(j)) return "not a JSON object";
  x->context = cJSON_GetStringValue(context);
  if (!x->context) return "no text under context, query, question, ctx or prompt";
  if (!list) {
    x->delimiter = qn__json_text(j, "delimiter", "");
    x->choice[0] = qn__json_text(j, "continuation", NULL);
    x->n = 1;
    return x->choice[0] ? NULL : "neither choices, endings, options nor continuation";
  }
  x->delimiter = qn__json_text(j, "delimiter", " ");
  const char *why = read_choices(list, x);
  if (why) return why;
  if (!gold) return "no gold, label, answer or answerKey";
  x->gold = read_gold(gold, qn__json_get(list, "label"));
  return x->gold < 0 || x->gold >= x->n ? "the right answer is none of its choices" : NULL;
}

static qn_status read_line(const reader *r, const char *text, size_t size, int64_t line) {
  qn__item_text x = {.line = line};
  cJSON *j;
  qn_status s = qn__json_parse(text, size, &j);
  if (s) return qn__fail(s, "%s:%jd: %s", r->path, (intmax_t)line, qn__errmsg());
  const char *why = read_item(j, &x);
  s = why ? qn__fail(QN_E_FORMAT, "%s:%jd: %s", r->path, (intmax_t)line, why) : hand_over(r, &x);
  cJSON_Delete(j);
  return s;
}

static qn_status read_jsonl(const reader *r, char *text, size_t size) {
  int64_t line = 0;
  for (char *at = text, *end; at < text + size; at = end + 1) {
    end = memchr(at, '\n', (size_t)(text + size - at));
    if (!end) end = text + size;
    line++;
    if (at + strspn(at, " \t\r") < end) QN_TRY(read_line(r, at, (size_t)(end - at), line));
  }
  return QN_OK;
}

/* ---- CSV --------------------------------------------------------------------------------------------------------- */

enum { CELLS = 6 };

/* Cut the cell at *at out of a text that ends with a zero byte, in place: quotes are taken off. Returns what ended it:
 * ',', '\n', 0, or '"' for the end of the text within quotes. */
static char next_cell(char **at, int64_t *line, char **cell) {
  char *from = *at, *to = *at, end;
  bool quoted = *from == '"';
  *cell = to;
  for (from += quoted; *from; from++) {
    if (quoted && from[0] == '"' && from[1] != '"') quoted = false;
    else if (!quoted && (*from == ',' || *from == '\n')) break;
    else {
      from += quoted && *from == '"';
      *line += *from == '\n';
      *to++ = *from;
    }
  }
  end = *from;
  *at = from + (end != 0);
  if (quoted) return '"';
  if (end != ',' && to > *cell && to[-1] == '\r') to--;
  *to = 0;
  return end;
}

/* Cells of a row, at most CELLS + 1 counted; 0: a quote is not closed. */
static int next_row(char **at, int64_t *line, char *cell[CELLS]) {
  char end = ',', *more;
  int n = 0;
  while (end == ',') {
    end = next_cell(at, line, n < CELLS ? &cell[n] : &more);
    n += n <= CELLS;
  }
  *line += end == '\n';
  return end == '"' ? 0 : n;
}

/* MMLU's prompt, as lm-evaluation-harness writes it. */
static qn_status read_row(const reader *r, char *const cell[CELLS], int64_t line) {
  qn__item_text x = {.line = line, .delimiter = " ", .choice = {"A", "B", "C", "D"}, .n = 4};
  x.gold = toupper((unsigned char)*cell[5]) - 'A';
  if (x.gold < 0 || x.gold > 3 || cell[5][1])
    return qn__fail(QN_E_FORMAT, "%s:%jd: the right answer is '%.20s', none of A, B, C, D", r->path, (intmax_t)line,
                    cell[5]);
  char *text, *question = cell[0] + strspn(cell[0], " \t\r\n");
  size_t n = strlen(question);
  while (n && isspace((unsigned char)question[n - 1])) n--;
  if (asprintf(&text, "%.*s\nA. %s\nB. %s\nC. %s\nD. %s\nAnswer:", (int)n, question, cell[1], cell[2], cell[3],
               cell[4]) < 0)
    return qn__fail(QN_E_NOMEM, "a question");
  x.context = text;
  qn_status s = hand_over(r, &x);
  free(text);
  return s;
}

static qn_status read_csv(const reader *r, char *text, size_t size) {
  int64_t line = 1;
  for (char *at = text; at < text + size;) {
    char *cell[CELLS];
    int64_t begin = line;
    int n = next_row(&at, &line, cell);
    if (n == 1 && !*cell[0]) continue;
    if (!n)
      return qn__fail(QN_E_FORMAT, "%s:%jd: a quote opens in this row and does not close", r->path, (intmax_t)begin);
    if (n != CELLS)
      return qn__fail(QN_E_FORMAT, "%s:%jd: %d cells%s; question, A, B, C, D and the letter are wanted", r->path,
                      (intmax_t)begin, n, n > CELLS ? " or more" : "");
    if (begin == 1 && !strcasecmp(cell[0], "question") && !strcasecmp(cell[5], "answer")) continue; /* a title */
    QN_TRY(read_row(r, cell, begin));
  }
  return QN_OK;
}

/* ---- Files ------------------------------------------------------------------------------------------------------- */

typedef struct counter {
  const reader *r;
  int64_t n;
} counter;

static qn_status count(void *ud, const qn__item_text *x) {
  counter *c = ud;
  c->n++;
  return c->r->item(c->r->ud, x);
}

qn_status qn__task_file_read(const char *path, qn_status (*item)(void *ud, const qn__item_text *x), void *ud) {
  const char *dot = strrchr(path, '.');
  bool csv = dot && !strcasecmp(dot, ".csv"), jsonl = dot && (!strcasecmp(dot, ".jsonl") || !strcasecmp(dot, ".json"));
  if (!csv && !jsonl) return qn__fail(QN_E_FORMAT, "%s: a task is a .jsonl or a .csv file", path);
  char *text;
  size_t size;
  QN_TRY(qn__file_read(path, &text, &size));
  const reader asked = {path, item, ud};
  counter c = {&asked, 0};
  const reader r = {path, count, &c};
  const char *zero = memchr(text, 0, size);
  size_t mark = strncmp(text, "\xef\xbb\xbf", 3) ? 0 : 3; /* a byte order mark, as spreadsheets write it */
  qn_status s = zero  ? qn__fail(QN_E_FORMAT, "%s: a zero byte at offset %td: not a text", path, zero - text)
                : csv ? read_csv(&r, text + mark, size - mark)
                      : read_jsonl(&r, text + mark, size - mark);
  free(text);
  if (s == QN_OK && !c.n) return qn__fail(QN_E_FORMAT, "%s: it has no items", path);
  return s;
}
