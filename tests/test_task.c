/* test_task.c - task files by the rules of lm-evaluation-harness, with tokenizers of a few lines; bad ones by line. */
#include "fail.h"
#include "io_folder.h"
#include "task.h"
#include <math.h>

/* ---- Tokenizers -------------------------------------------------------------------------------------------------- */

/* A byte is a token; with `merges`, a space and the letter behind it are one, and so are "ab". */
static qn_status encode(void *ud, const char *text, size_t size, int32_t **ids, int64_t *n) {
  const bool *merges = ud;
  *ids = malloc((size + 1) * sizeof **ids);
  *n = 0;
  for (size_t i = 0; i < size; i++) {
    bool pair = *merges && i + 1 < size && ((text[i] == ' ' && text[i + 1] != ' ') || !memcmp(text + i, "ab", 2));
    (*ids)[(*n)++] = pair ? 1000 + (unsigned char)text[i + 1] : (unsigned char)text[i];
    i += pair;
  }
  return QN_OK;
}

static bool merges;
static qn__task_options options(int64_t context, int32_t bos) {
  return (qn__task_options){encode, &merges, context, bos};
}

static qn__task read_text(const char *name, const char *text, qn__task_options o) {
  qn__task t;
  put_text(name, text);
  ck_assert_msg(qn__task_read(in_folder(name), &o, &t) == QN_OK, "%s", qn__errmsg());
  return t;
}

/* ---- Pairs ------------------------------------------------------------------------------------------------------- */

static const struct {
  const char *text;
  bool merges;
  int gold;
  int64_t n, context; /* of the first choice, with a BOS */
} pairs[] = {
    {"{\"context\":\"Q:\",\"choices\":[\"yes\",\"no\"],\"gold\":1}", false, 1, 7, 3},
    {"{\"context\":\"Q:\",\"choices\":[\"yes\",\"no\"],\"gold\":1}", true, 1, 6, 3},
    {"{\"context\":\"Q: \\n\\u00a0\",\"choices\":[\"yes\",\"no\"],\"gold\":0}", false, 0, 11, 3}, /* spaces move over */
    {"{\"context\":\"Q:\",\"delimiter\":\"\",\"choices\":[\"yes\",\"no\"],\"gold\":0}", false, 0, 6, 3},
    {"{\"context\":\"a\",\"delimiter\":\"\",\"choices\":[\"bc\",\"no\"],\"gold\":0}", true, 0, 3, 2}, /* cut by count */
    {"{\"context\":\"Q:\",\"continuation\":\" yes\"}", false, 0, 7, 3},
    {"{\"context\":\"\",\"continuation\":\"yes\"}", false, 0, 4, 1},
    {"{\"query\":\"Q\",\"endings\":[\"a\",\"b\",\"c\"],\"label\":\"2\"}", false, 2, 4, 2},
    {"{\"question\":\"Q\",\"choices\":{\"text\":[\"a\",\"b\"],\"label\":[\"1\",\"2\"]},\"answerKey\":\"2\"}", false, 1,
     4, 2},
    {"{\"ctx\":\"Q\",\"options\":[\"a\",\"b\"],\"answer\":\"b\"}", false, 1, 4, 2},
    {"{\"prompt\":\"Q\",\"options\":[\"a\",\"b\"],\"answer\":\"B\"}", false, 1, 4, 2},
};

START_TEST(a_choice_is_what_goes_beyond_the_context) {
  merges = pairs[_i].merges;
  qn__task t = read_text("t.jsonl", pairs[_i].text, options(100, 7));
  ck_assert_int_eq(t.n, 1);
  ck_assert_int_eq(t.item->gold, pairs[_i].gold);
  ck_assert_int_eq(t.item->choice->n, pairs[_i].n);
  ck_assert_int_eq(t.item->choice->context, pairs[_i].context);
  ck_assert_int_eq(t.item->choice->ids[0], 7);
  ck_assert_int_eq(t.truncated, 0);
  qn__task_free(&t);
}
END_TEST

START_TEST(long_items_lose_the_left_and_keep_the_bos) {
  const char *text = "\n{\"context\":\"abcdef\",\"choices\":[\"x\",\"yz\"],\"gold\":0}\n\r\n"
                     "{\"context\":\"a\",\"choices\":[\"x\",\"y\"],\"gold\":0}";
  merges = false;
  qn__task t = read_text("t.jsonl", text, options(5, 7));
  ck_assert(t.n == 2 && t.truncated == 1 && t.item[0].truncated && !t.item[1].truncated && t.longest == 6);
  ck_assert(t.item[0].line == 2 && t.item[1].line == 4);
  const int32_t first[] = {7, 'd', 'e', 'f', ' ', 'x'}, second[] = {7, 'e', 'f', ' ', 'y', 'z'};
  ck_assert(t.item[0].choice[0].n == 6 && t.item[0].choice[0].context == 4);
  ck_assert_mem_eq(t.item[0].choice[0].ids, first, sizeof first);
  ck_assert(t.item[0].choice[1].n == 6 && t.item[0].choice[1].context == 3);
  ck_assert_mem_eq(t.item[0].choice[1].ids, second, sizeof second);
  qn__task_free(&t);
  t = read_text("t.jsonl", text, options(5, -1));
  ck_assert(t.item[0].choice[0].n == 6 && t.item[0].choice[0].ids[0] == 'c' && t.item[1].choice[0].context == 1);
  qn__task_free(&t);
}
END_TEST

START_TEST(mmlu_is_asked_as_the_harness_asks) {
  const char *text = "\xef\xbb\xbfquestion,A,B,C,D,answer\r\n"
                     "\" Who, \"\"he\"\" said,\nis it? \",one,\"two, too\",three,four,C\r\n"
                     "2+2,1,2,3,4,d";
  static const char prompt[] = "Who, \"he\" said,\nis it?\nA. one\nB. two, too\nC. three\nD. four\nAnswer:";
  merges = true;
  qn__task t = read_text("t.csv", text, options(1000, -1));
  ck_assert(t.n == 2 && t.item[0].gold == 2 && t.item[0].line == 2 && t.item[1].gold == 3 && t.item[1].line == 4);
  int32_t *ids;
  int64_t n;
  encode(&merges, prompt, sizeof prompt - 1, &ids, &n);
  for (int i = 0; i < 4; i++) {
    const qn__choice *c = &t.item[0].choice[i];
    ck_assert(c->n == n + 1 && c->context == n && c->characters == 1);
    ck_assert_mem_eq(c->ids, ids, (size_t)n * sizeof *ids);
    ck_assert_int_eq(c->ids[n], 1000 + 'A' + i);
  }
  free(ids);
  qn__task_free(&t);
}
END_TEST

/* ---- Bad files --------------------------------------------------------------------------------------------------- */

static const struct {
  const char *name, *text, *message;
} bad[] = {
    {"t.txt", "", "a task is a .jsonl or a .csv file"},
    {"t.jsonl", "", "it has no items"},
    {"t.jsonl", "\n \n", "it has no items"},
    {"t.jsonl", "{\"context\":\"a\",\"continuation\":\"b\"}\n{\"context\":", "t.jsonl:2: malformed JSON"},
    {"t.jsonl", "{\"context\":\"a\",\"continuation\":\"b\"} {\"context\":\"a\"}",
     "t.jsonl:1: something behind the JSON at"},
    {"t.jsonl", "{\"context\":\"a\",\"continuation\":\"b\\\\u0000\\u0000\"}",
     "t.jsonl:1: a zero character, \\u0000, is not"},
    {"t.jsonl", "[]", "t.jsonl:1: not a JSON object"},
    {"t.jsonl", "{\"choices\":[\"a\",\"b\"],\"gold\":0}", ":1: no text under context, query, question, ctx or prompt"},
    {"t.jsonl", "{\"context\":\"a\"}", ":1: neither choices, endings, options nor continuation"},
    {"t.jsonl", "{\"context\":\"a\",\"choices\":[\"b\"],\"gold\":0}", ":1: it has fewer than two choices"},
    {"t.jsonl", "{\"context\":\"a\",\"choices\":\"b\",\"gold\":0}", ":1: choices are neither a list nor"},
    {"t.jsonl", "{\"context\":\"a\",\"choices\":[\"b\",3],\"gold\":0}", ":1: a choice is no text"},
    {"t.jsonl", "{\"context\":\"a\",\"choices\":[\"b\",\"c\"]}", ":1: no gold, label, answer or answerKey"},
    {"t.jsonl", "{\"context\":\"a\",\"choices\":[\"b\",\"c\"],\"gold\":2}", ":1: the right answer is none of"},
    {"t.jsonl", "{\"context\":\"a\",\"choices\":[\"b\",\"c\"],\"gold\":-1}", ":1: the right answer is none of"},
    {"t.jsonl", "{\"context\":\"a\",\"choices\":[\"b\",\"c\"],\"gold\":0.5}", ":1: the right answer is none of"},
    {"t.jsonl", "{\"context\":\"a\",\"choices\":[\"b\",\"c\"],\"gold\":\"C\"}", ":1: the right answer is none of"},
    {"t.jsonl", "{\"context\":\"a\",\"choices\":[\"b\",\"c\"],\"gold\":\"99999999999\"}", ":1: the right answer is"},
    {"t.jsonl", "{\"context\":\"a\",\"choices\":[\"b\",\"cdefghijkl\"],\"gold\":0}", ":1: its continuation is longer"},
    {"t.jsonl", "{\"context\":\"\",\"continuation\":\"b\"}", ":1: its context is empty, and the model has no BOS"},
    {"t.jsonl", "{\"context\":\"a\",\"continuation\":\"b\"}\n\n{\"context\":\"a\",\"continuation\":\"\"}",
     ":3: its continuation adds no token"},
    {"t.csv", "q,1,2,3,4,E\n", "t.csv:1: the right answer is 'E', none of A, B, C, D"},
    {"t.csv", "q,1,2,3,4,AB\n", "t.csv:1: the right answer is 'AB'"},
    {"t.csv", "\"q\n\",1,2,3,4,A\nq,1,2,3\n", "t.csv:3: 4 cells; question, A, B, C, D"},
    {"t.csv", "q,1,2,3,4,A,5,6\n", "t.csv:1: 7 cells or more"},
    {"t.csv", "\"q,1,2,3,4,A\n", "t.csv:1: a quote opens in this row and does not close"},
};

START_TEST(bad_items_are_named_by_line) {
  qn__task t;
  merges = false;
  qn__task_options o = options(8, -1);
  put_text(bad[_i].name, bad[_i].text);
  ck_assert_int_eq(qn__task_read(in_folder(bad[_i].name), &o, &t), QN_E_FORMAT);
  ck_assert_msg(strstr(qn__errmsg(), bad[_i].message) != NULL, "%s, not %s", qn__errmsg(), bad[_i].message);
  ck_assert(!t.item && !t.n);
}
END_TEST

START_TEST(a_file_that_is_none_is_told) {
  qn__task t;
  qn__task_options o = options(8, -1);
  ck_assert_int_eq(qn__task_read(in_folder("none.jsonl"), &o, &t), QN_E_IO);
  FILE *f = fopen(in_folder("z.csv"), "wb");
  ck_assert_int_eq(fwrite("q,1,2\0,3", 1, 8, f), 8);
  fclose(f);
  ck_assert_int_eq(qn__task_read(in_folder("z.csv"), &o, &t), QN_E_FORMAT);
  ck_assert_ptr_nonnull(strstr(qn__errmsg(), "a zero byte at offset 5"));
}
END_TEST

/* ---- Answers ----------------------------------------------------------------------------------------------------- */

START_TEST(the_likeliest_choice_is_taken) {
  qn__choice choice[3] = {
      {.characters = 10, .bytes = 30}, {.characters = 2, .bytes = 2}, {.characters = 5, .bytes = 5}};
  qn__item x = {.n = 3, .gold = 1, .choice = choice};
  qn__answer a[3] = {{-20, 0, 0}, {-5, 0, 0}, {-6, 0, 0}}; /* -2, -2.5, -1.2 a character; -.67, -2.5, -1.2 a byte */
  qn__verdict v = qn__judge(&x, a);
  ck_assert(v.acc && !v.acc_norm && !v.acc_bytes && !v.broken);
  x.gold = 2, v = qn__judge(&x, a);
  ck_assert(!v.acc && v.acc_norm && !v.acc_bytes);
  x.gold = 0, v = qn__judge(&x, a);
  ck_assert(!v.acc && !v.acc_norm && v.acc_bytes);
  a[0].log_likelihood = -5, v = qn__judge(&x, a);
  ck_assert(v.acc); /* of equals the first */
  a[2].not_finite = 1, v = qn__judge(&x, a);
  ck_assert(v.broken && !v.acc);
}
END_TEST

START_TEST(a_continuation_is_right_if_it_is_greedy) {
  qn__token_score token[2] = {{.nll = 1, .greedy = 1}, {.nll = 2, .greedy = 1}};
  qn__answer a = qn__answer_of(token, 2);
  qn__item x = {.n = 1};
  ck_assert(a.log_likelihood == -3 && a.greedy && qn__judge(&x, &a).acc);
  token[0].greedy = 0;
  a = qn__answer_of(token, 2);
  ck_assert(!a.greedy && !qn__judge(&x, &a).acc);
}
END_TEST

/* ---- Seeds of the fuzzer ----------------------------------------------------------------------------------------- */

static void put_seed(const char *dir, int i, const char *text, char letter) {
  char to[PATH_MAX];
  snprintf(to, sizeof to, "%s/task-%d", dir, i);
  FILE *f = fopen(to, "wb");
  if (!f || fprintf(f, "%c%s", letter, text) < 0 || fclose(f)) perror(to), exit(2);
}

static void put_seeds(const char *dir) {
  int n = 0;
  for (size_t i = 0; i < QN_COUNT(pairs); i++) put_seed(dir, n++, pairs[i].text, 'q');
  for (size_t i = 0; i < QN_COUNT(bad); i++) put_seed(dir, n++, bad[i].text, strstr(bad[i].name, "csv") ? 'c' : 'q');
  put_seed(dir, n++, "question,A,B,C,D,answer\r\n\" a \"\"b\"\",\n\",1,\"2,3\",4,5,C\n2+2,1,2,3,4,d", 'c');
}

int main(int argc, char **argv) {
  if (argc > 2 && !strcmp(argv[1], "--seeds")) return put_seeds(argv[2]), 0;
  const suite_case cases[] = {
      CASE(a_choice_is_what_goes_beyond_the_context, (int)QN_COUNT(pairs)),
      CASE(long_items_lose_the_left_and_keep_the_bos, 1),
      CASE(mmlu_is_asked_as_the_harness_asks, 1),
      CASE(bad_items_are_named_by_line, (int)QN_COUNT(bad)),
      CASE(a_file_that_is_none_is_told, 1),
      CASE(the_likeliest_choice_is_taken, 1),
      CASE(a_continuation_is_right_if_it_is_greedy, 1),
  };
  return RUN_CASES(argv[0], cases, setup, teardown, 60);
}
