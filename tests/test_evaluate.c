/* test_evaluate.c - windows, logs, the reference and evaluation, over a decoder of a few lines: what is kept, what is
 * computed again, and that a run that was killed, torn or interrupted ends like one that was not. */
#include "config.h"
#include "evaluate.h"
#include "fail.h"
#include "io_folder.h"
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

/* ---- A decoder --------------------------------------------------------------------------------------------------- */

enum { VOCAB = 50, HIDDEN = 6 };

/* Logits follow from the last two ids and the position. `shift` makes it another model. */
struct qn__decoder {
  qn__config config;
  double shift, wait; /* wait: seconds that a pass takes */
  int bad;            /* an id at which a logit is NaN; -1 */
  int *windows;       /* that it has seen */
};

static struct qn__decoder decoder_of(double shift, int *windows) {
  return (struct qn__decoder){
      .config = {.vocab = VOCAB, .hidden = HIDDEN}, .shift = shift, .bad = -1, .windows = windows};
}

const qn__config *qn__decoder_config(const qn__decoder *d) { return &d->config; }

qn_status qn__decoder_hidden(qn__decoder *d, const int32_t *ids, int64_t windows, int64_t length, float *h) {
  for (int64_t i = 0; i < windows * length; i++) {
    int64_t at = i % length;
    for (int j = 0; j < HIDDEN; j++)
      h[i * HIDDEN + j] = (float)sin(ids[i] * (j + 1) + (at ? ids[i - 1] : 0) * .7 + (double)at * .1 + d->shift * j);
    if (ids[i] == d->bad) h[i * HIDDEN] = NAN;
  }
  nanosleep(&(struct timespec){0, (long)(d->wait * 1e9)}, NULL);
  *d->windows += (int)windows;
  return QN_OK;
}

qn_status qn__decoder_logits(qn__decoder *d, const float *h, int64_t rows, float *logits) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t v = 0; v < d->config.vocab; v++) {
      double sum = 0;
      for (int j = 0; j < HIDDEN; j++) sum += (double)h[r * HIDDEN + j] * cos((double)(v * (j + 2)));
      logits[r * d->config.vocab + v] = (float)(2 * sum);
    }
  return QN_OK;
}

/* ---- Texts ------------------------------------------------------------------------------------------------------- */

enum { IDS = 12000 };
static int32_t text[2][IDS];

static qn__ids ids_of(int which, int64_t n) {
  for (int64_t i = 0; i < n; i++) text[which][i] = (int32_t)((i * i + 7 * i + which * 13) % VOCAB);
  return (qn__ids){.id = text[which], .n = n};
}

static const qn__steps every = {0, INT64_MAX, 1};

static qn__windows cut(int64_t length, bool half, int32_t bos, qn__steps steps, int64_t n0, int64_t n1) {
  qn__ids ids[2] = {ids_of(0, n0), ids_of(1, n1)};
  const qn__domain d[2] = {{"a.txt", &ids[0]}, {"b.txt", &ids[1]}};
  qn__windows w;
  qn_status s = qn__windows_cut(d, n1 ? 2 : 1, &(qn__window_options){length, half, bos, steps}, &w);
  ck_assert_msg(s == QN_OK, "%s", qn__errmsg());
  return w;
}

/* 20 windows of 512 in passes of 4, of two texts */
static qn__windows many(void) { return cut(512, true, -1, (qn__steps){0, 10, 1}, IDS, IDS); }

START_TEST(windows_follow_the_conventions) {
  qn__windows w = cut(10, false, -1, every, 35, 0);
  ck_assert(w.n == 3 && qn__windows_scored(&w) == 9 && w.first == 0);
  ck_assert_mem_eq(w.ids + 20, text[0] + 20, 10 * sizeof *w.ids);
  qn__windows_free(&w);
  w = cut(10, false, 49, every, 35, 0); /* the BOS costs no token of the text */
  ck_assert(w.n == 3 && qn__windows_scored(&w) == 9 && w.ids[20] == 49);
  ck_assert_mem_eq(w.ids + 21, text[0] + 18, 9 * sizeof *w.ids);
  qn__windows_free(&w);
  w = cut(10, true, 49, every, 35, 0); /* llama.cpp: windows advance by 10, BOS or not; 4 of 10 are scored */
  ck_assert(w.n == 3 && qn__windows_scored(&w) == 4 && w.first == 5 && w.ids[20] == 49);
  ck_assert_mem_eq(w.ids + 21, text[0] + 20, 9 * sizeof *w.ids);
  qn__windows_free(&w);
  w = cut(10, false, -1, (qn__steps){1, 8, 3}, 100, 50); /* 1, 4, 7 of a and 1, 4 of b, in turns */
  const int domain[] = {0, 1, 0, 1, 0};
  const int64_t at[] = {10, 10, 40, 40, 70};
  ck_assert_int_eq(w.n, 5);
  ck_assert_mem_eq(w.domain, domain, sizeof domain);
  for (int i = 0; i < 5; i++) ck_assert_mem_eq(w.ids + 10 * i, text[domain[i]] + at[i], 10 * sizeof *w.ids);
  qn__windows_free(&w);
}
END_TEST

START_TEST(files_of_windows_stay_as_they_are) {
  qn__ids ids = ids_of(0, 30);
  qn__windows w;
  ids.rows = 3, ids.cols = 10;
  const qn__domain d = {"w.npy", &ids};
  ck_assert_int_eq(qn__windows_cut(&d, 1, &(qn__window_options){10, false, 49, every}, &w), QN_OK);
  ck_assert_int_eq(w.n, 3);
  ck_assert_mem_eq(w.ids, text[0], 30 * sizeof *w.ids);
  qn__windows_free(&w);
  ck_assert_int_eq(qn__windows_cut(&d, 1, &(qn__window_options){15, false, 49, every}, &w), QN_E_ARG);
  ck_assert_str_eq(qn__errmsg(), "w.npy: it holds windows of 10 ids, and windows of 15 are wanted: --ctx 10");
}
END_TEST

START_TEST(texts_without_windows_are_refused) {
  qn__ids ids = ids_of(0, 19);
  qn__windows w;
  const qn__domain d = {"a.txt", &ids};
  ck_assert_int_eq(qn__windows_cut(&d, 1, &(qn__window_options){10, false, -1, every}, &w), QN_E_ARG);
  ck_assert_str_eq(qn__errmsg(),
                   "a.txt: its 19 ids are fewer than two windows of 10; take a longer text or a smaller --ctx");
  ids.n = 0;
  ck_assert_int_eq(qn__windows_cut(&d, 1, &(qn__window_options){10, true, -1, every}, &w), QN_E_ARG);
  ids.n = 19;
  ck_assert_int_eq(qn__windows_cut(&d, 1, &(qn__window_options){5, false, -1, {3, 9, 1}}, &w), QN_E_ARG);
  ck_assert_str_eq(qn__errmsg(), "a.txt: it has 3 windows of 5 ids, and the first that is wanted is number 3");
  ck_assert_int_eq(qn__windows_cut(&d, 1, &(qn__window_options){1, false, -1, every}, &w), QN_E_ARG);
  ck_assert_int_eq(qn__windows_cut(&d, 1, &(qn__window_options){2, true, -1, every}, &w), QN_E_ARG);
  ck_assert_str_eq(qn__errmsg(), "windows of 2 ids: 3 to 1048576 can be evaluated");
  ck_assert_int_eq(qn__windows_cut(&d, 0, &(qn__window_options){5, false, -1, every}, &w), QN_E_ARG);
  ck_assert_int_eq(qn__windows_cut(&d, 1, &(qn__window_options){INT64_MAX, false, -1, every}, &w), QN_E_ARG);
}
END_TEST

/* ---- Evaluating -------------------------------------------------------------------------------------------------- */

typedef struct world {
  qn__windows w;
  struct qn__decoder before, after;
  int windows_before, windows_after;
  qn__reference *r;
} world;

static world *begin(const char *reference) {
  static world one;
  one = (world){.w = many()};
  one.before = decoder_of(0, &one.windows_before);
  one.after = decoder_of(.01, &one.windows_after);
  qn_status s = qn__reference_open(&one.before, "model", &one.w, reference, &one.r);
  ck_assert_msg(s == QN_OK, "%s", qn__errmsg());
  return &one;
}

static void finish(world *x) {
  qn__reference_close(x->r);
  qn__windows_free(&x->w);
}

static qn__evaluated evaluate(world *x, const qn__evaluate_options *o) {
  qn__evaluated e;
  qn_status s = qn__evaluate(&x->after, &x->w, x->r, o, &e);
  ck_assert_msg(s == QN_OK, "%s", qn__errmsg());
  return e;
}

static void same_tokens(const qn__evaluated *a, const qn__evaluated *b) {
  ck_assert_int_eq(a->n, b->n);
  ck_assert_mem_eq(a->log.data, b->log.data, a->at[a->n]);
}

START_TEST(tokens_are_scored_against_what_follows) {
  world *x = begin(NULL);
  qn__evaluated e = evaluate(x, &(qn__evaluate_options){.threads = 1});
  ck_assert(e.n == 20 && e.computed == 20 && x->windows_before == 20 && e.window[3].domain == 1 &&
            e.window[3].n == 255);
  float h[2][512 * HIDDEN], logits[2][VOCAB];
  qn_pool *pool;
  ck_assert_int_eq(qn__pool_new(NULL, 1, &pool), QN_OK);
  for (int64_t window = 0; window < 20; window += 7) {
    const int32_t *ids = x->w.ids + window * 512;
    qn__decoder_hidden(&x->before, ids, 1, 512, h[0]);
    qn__decoder_hidden(&x->after, ids, 1, 512, h[1]);
    for (int64_t i = 0; i < 255; i++) {
      qn__token_score t;
      qn__decoder_logits(&x->before, h[0] + (256 + i) * HIDDEN, 1, logits[0]);
      qn__decoder_logits(&x->after, h[1] + (256 + i) * HIDDEN, 1, logits[1]);
      ck_assert_int_eq(qn__score_rows(pool, logits[0], logits[1], &ids[257 + i], 1, VOCAB, &t), QN_OK);
      ck_assert_mem_eq(&t, &e.window[window].token[i], sizeof t);
    }
  }
  qn__evaluated three = evaluate(x, &(qn__evaluate_options){.threads = 3});
  same_tokens(&e, &three);
  qn__evaluated_free(&three);
  qn__evaluated_free(&e);
  qn__pool_free(pool);
  finish(x);
}
END_TEST

static bool interrupt(void *ud, int64_t done, int64_t total) {
  ck_assert_int_eq(total, 20);
  return done < *(int *)ud;
}

/* Stopped after some windows, interrupted after more, then to the end: each window is computed once. */
START_TEST(what_is_in_the_log_is_not_computed_again) {
  char log[PATH_MAX];
  int end = 9;
  world *x = begin(NULL);
  strcpy(log, in_folder("deep/er/log"));
  qn__evaluated whole = evaluate(x, &(qn__evaluate_options){.threads = 1});
  qn__evaluated e = evaluate(x, &(qn__evaluate_options){.log = log, .key = "x", .stop = 3, .threads = 1});
  ck_assert(e.n == 4 && e.computed == 4);
  qn__evaluated_free(&e);
  e = evaluate(x, &(qn__evaluate_options){.log = log, .key = "x", .progress = interrupt, .ud = &end, .threads = 1});
  ck_assert(e.n == 12 && e.computed == 8);
  qn__evaluated_free(&e);
  e = evaluate(x, &(qn__evaluate_options){.log = log, .key = "x", .threads = 1});
  ck_assert(e.n == 20 && e.computed == 8 && x->windows_after == 40);
  same_tokens(&e, &whole);
  qn__evaluated_free(&e);
  e = evaluate(x, &(qn__evaluate_options){.log = log, .key = "x", .stop = 8, .threads = 1});
  ck_assert(e.n == 8 && e.computed == 0);
  qn__evaluated other;
  ck_assert_int_eq(qn__evaluate(&x->after, &x->w, x->r, &(qn__evaluate_options){.log = log, .key = "x"}, &other),
                   QN_E_IO);
  ck_assert_ptr_nonnull(strstr(qn__errmsg(), "another run is at work on it"));
  qn__evaluated_free(&e);
  ck_assert_int_eq(qn__evaluate(&x->after, &x->w, x->r, &(qn__evaluate_options){.log = log, .key = "y"}, &other),
                   QN_E_ARG);
  ck_assert_ptr_nonnull(strstr(qn__errmsg(), "not the log of this evaluation"));
  qn__evaluated_free(&whole);
  finish(x);
}
END_TEST

/* A log cut off anywhere, or with any byte changed, costs only the passes that are no longer whole. */
START_TEST(damaged_logs_are_mended) {
  char log[PATH_MAX];
  world *x = begin(NULL);
  strcpy(log, in_folder("log"));
  const qn__evaluate_options o = {.log = log, .key = "x", .threads = 1};
  qn__evaluated whole = evaluate(x, &o);
  size_t size = whole.at[20] + 20 * 32 + 47;
  FILE *f = fopen(log, "rb");
  char *bytes = malloc(size + 1);
  ck_assert_uint_eq(fread(bytes, 1, size + 1, f), size);
  fclose(f);
  qn__log_close(&(qn__log){.fd = whole.log.fd}), whole.log.fd = -1; /* gives up the lock, keeps the tokens */
  for (size_t cut = 0; cut <= size; cut += size / 23) {
    for (int flip = 0; flip < 2 && cut + 60 < size; flip++) {
      f = fopen(log, "wb");
      bytes[cut + 50] ^= (char)(flip << 4);
      fwrite(bytes, 1, flip ? size : cut, f);
      fclose(f);
      bytes[cut + 50] ^= (char)(flip << 4);
      qn__evaluated e = evaluate(x, &o);
      same_tokens(&e, &whole);
      ck_assert(e.computed % 4 == 0 && e.computed > 0);
      qn__evaluated_free(&e);
    }
  }
  free(bytes);
  qn__evaluated_free(&whole);
  finish(x);
}
END_TEST

static pid_t evaluate_in_a_child(const char *log, const char *reference, int *seen) {
  pid_t child = fork();
  if (child) return child;
  world *x = begin(reference);
  x->before.windows = &seen[0], x->after.windows = &seen[1];
  x->before.wait = x->after.wait = .004;
  evaluate(x, &(qn__evaluate_options){.log = log, .key = "x", .threads = 2});
  _exit(0);
}

/* Children evaluate, one after the other, and are killed at random moments until one comes to the end. Returns how many
 * were. All of them together compute each window once, but for the pass in which a death falls. */
static int kill_until_one_ends(const char *log, const char *reference) {
  int *seen = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), kills = 0, status = 1;
  while (status) {
    pid_t child = evaluate_in_a_child(log, reference, seen);
    nanosleep(&(struct timespec){0, rand() % (40 + kills) * 1000000L}, NULL);
    kill(child, SIGKILL);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(!WIFEXITED(status) || !WEXITSTATUS(status));
    kills += status != 0;
  }
  for (int i = 0; i < 2; i++)
    ck_assert_msg(seen[i] >= 20 && seen[i] <= 20 + 4 * kills, "%d windows for 20, in %d deaths", seen[i], kills);
  return kills;
}

/* QN_SEED repeats the moments, as far as time repeats. */
START_TEST(killed_runs_end_like_one_that_was_not) {
  char log[PATH_MAX], reference[PATH_MAX];
  unsigned seed = getenv("QN_SEED") ? (unsigned)atoi(getenv("QN_SEED")) : (unsigned)time(NULL);
  printf("QN_SEED=%u\n", seed);
  srand(seed);
  strcpy(log, in_folder("log"));
  strcpy(reference, in_folder("reference"));
  for (int kills = 0; kills < 20; unlink(log), unlink(reference)) {
    kills += kill_until_one_ends(log, reference);
    world *x = begin(reference);
    qn__evaluated e = evaluate(x, &(qn__evaluate_options){.log = log, .key = "x"});
    qn__evaluated whole = evaluate(x, &(qn__evaluate_options){0});
    ck_assert(e.computed == 0 && x->windows_before == 0); /* it is all in the files */
    same_tokens(&e, &whole);
    qn__evaluated_free(&e);
    qn__evaluated_free(&whole);
    finish(x);
  }
}
END_TEST

/* ---- The reference ----------------------------------------------------------------------------------------------- */

START_TEST(a_reference_is_kept_and_known_again) {
  char file[PATH_MAX];
  strcpy(file, in_folder("reference"));
  world *x = begin(file);
  qn__evaluated first = evaluate(x, &(qn__evaluate_options){0});
  ck_assert_int_eq(x->windows_before, 20);
  qn__reference *other;
  ck_assert_int_eq(qn__reference_open(&x->before, "model", &x->w, file, &other), QN_E_IO);
  ck_assert_ptr_nonnull(strstr(qn__errmsg(), "another run is at work on it"));
  finish(x);

  int fd = open(file, O_WRONLY); /* one number of window 5 */
  ck_assert_int_eq(pwrite(fd, "x", 1, 8192 + 5 * 255 * HIDDEN * 4 + 77), 1);
  close(fd);
  x = begin(file);
  qn__evaluated second = evaluate(x, &(qn__evaluate_options){0});
  ck_assert_int_eq(x->windows_before, 4); /* its pass */
  same_tokens(&first, &second);
  qn__reference_close(x->r);

  ck_assert_int_eq(qn__reference_open(&x->before, "another", &x->w, file, &x->r), QN_E_ARG);
  ck_assert_ptr_nonnull(strstr(qn__errmsg(), "the reference of another model, of other windows"));
  int zero = open(in_folder("zero"), O_WRONLY | O_CREAT, 0666); /* begins like a header of 256 bytes of safetensors */
  ck_assert_int_eq(write(zero, "\0\1\0\0\0\0\0\0{}", 10), 10);
  close(zero);
  ck_assert_int_eq(qn__reference_open(&x->before, "model", &x->w, in_folder("zero"), &x->r), QN_E_ARG);
  put_text("text", "precious");
  ck_assert_int_eq(qn__reference_open(&x->before, "model", &x->w, in_folder("text"), &x->r), QN_E_ARG);
  ck_assert_ptr_nonnull(strstr(qn__errmsg(), "not a reference"));
  ck_assert_ptr_null(x->r);
  qn__evaluated_free(&first);
  qn__evaluated_free(&second);
  qn__windows_free(&x->w);
}
END_TEST

/* A limit on the size of files stands for a full disk. */
START_TEST(a_full_disk_is_told_and_nothing_is_lost) {
  char log[PATH_MAX];
  world *x = begin(NULL);
  qn__evaluated e;
  strcpy(log, in_folder("log"));
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &(struct rlimit){60000, RLIM_INFINITY});
  qn__reference_close(x->r);
  ck_assert_int_eq(qn__reference_open(&x->before, "model", &x->w, in_folder("r"), &x->r), QN_E_IO);
  ck_assert_ptr_nonnull(strstr(qn__errmsg(), "1 MB are needed for the reference's hidden states: File too large"));
  ck_assert_int_ne(access(in_folder("r"), F_OK), 0);
  const qn__evaluate_options o = {.log = log, .key = "x", .threads = 1};
  ck_assert_int_eq(qn__evaluate(&x->after, &x->w, NULL, &o, &e), QN_E_IO);
  ck_assert_msg(strstr(qn__errmsg(), log) != NULL, "%s", qn__errmsg());
  setrlimit(RLIMIT_FSIZE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY});
  ck_assert_int_eq(qn__evaluate(&x->after, &x->w, NULL, &o, &e), QN_OK);
  ck_assert_int_eq(e.computed, 12); /* two passes were kept */
  qn__evaluated_free(&e);
  finish(x);
}
END_TEST

/* ---- What cannot be compared ------------------------------------------------------------------------------------- */

START_TEST(broken_logits_are_counted_or_refused) {
  world *x = begin(NULL);
  qn__summary s;
  x->after.bad = 3;
  qn__evaluated e = evaluate(x, &(qn__evaluate_options){.stop = 4});
  ck_assert_int_eq(qn__summarize(e.window, (size_t)e.n, QN_ALL_TOKENS, &s), QN_OK);
  ck_assert(s.broken_tokens > 0 && s.broken_logits == s.broken_tokens * VOCAB && s.broken_tokens < s.tokens);
  qn__evaluated_free(&e);
  x->before.bad = 3;
  ck_assert_int_eq(qn__evaluate(&x->after, &x->w, x->r, &(qn__evaluate_options){0}, &e), QN_E_ARG);
  ck_assert_ptr_nonnull(strstr(qn__errmsg(), "the reference has logits that are no finite numbers"));
  x->before.bad = -1;
  x->after.config.vocab = VOCAB - 1;
  ck_assert_int_eq(qn__evaluate(&x->after, &x->w, x->r, &(qn__evaluate_options){0}, &e), QN_E_ARG);
  ck_assert_str_eq(qn__errmsg(), "the model has a vocabulary of 49, the reference one of 50: they cannot be compared");
  x->after.config.vocab = VOCAB;
  qn__windows other = cut(512, true, -1, (qn__steps){0, 9, 1}, IDS, IDS);
  ck_assert_int_eq(qn__evaluate(&x->after, &other, x->r, &(qn__evaluate_options){0}, &e), QN_E_ARG);
  ck_assert_str_eq(qn__errmsg(), "the reference is of other windows");
  qn__windows_free(&other);
  finish(x);
}
END_TEST

/* ---- Tasks ------------------------------------------------------------------------------------------------------- */

static qn_status encode(void *ud, const char *from, size_t size, int32_t **ids, int64_t *n) {
  (void)ud;
  *ids = malloc((size + 1) * sizeof **ids);
  *n = (int64_t)size;
  for (size_t i = 0; i < size; i++) (*ids)[i] = from[i] % VOCAB;
  return QN_OK;
}

static double log_likelihood(world *x, const qn__choice *c) {
  float h[64 * HIDDEN], logits[VOCAB];
  double sum = 0;
  qn__decoder_hidden(&x->after, c->ids, 1, c->n, h);
  for (int64_t i = c->context; i < c->n; i++) {
    double all = 0;
    qn__decoder_logits(&x->after, h + (i - 1) * HIDDEN, 1, logits);
    for (int v = 0; v < VOCAB; v++) all += exp((double)logits[v]);
    sum += (double)logits[c->ids[i]] - log(all);
  }
  return sum;
}

START_TEST(choices_get_the_likelihood_of_their_continuation) {
  static const char items[] = "{\"context\":\"Who?\",\"choices\":[\"me\",\"a longer one\",\"you\"],\"gold\":1}\n"
                              "{\"context\":\"Which?\",\"delimiter\":\"\",\"choices\":[\"A\",\"B\",\"C\"],\"gold\":1}\n"
                              "{\"context\":\"This\",\"continuation\":\" one\"}\n";
  char log[PATH_MAX];
  world *x = begin(NULL);
  qn__task t;
  qn__answered a;
  put_text("t.jsonl", items);
  ck_assert_int_eq(qn__task_read(in_folder("t.jsonl"), &(qn__task_options){encode, NULL, 60, -1}, &t), QN_OK);
  strcpy(log, in_folder("log"));
  const qn__evaluate_options first = {.log = log, .key = "x", .stop = 2}, all = {.log = log, .key = "x"};
  ck_assert_int_eq(qn__evaluate_task(&x->after, &t, &first, &a), QN_OK);
  ck_assert(a.n == 2 && a.computed == 2 && x->windows_after == 3 + 1); /* of one token each: one input */
  qn__answered_free(&a);
  ck_assert_int_eq(qn__evaluate_task(&x->after, &t, &all, &a), QN_OK);
  ck_assert(a.n == 3 && a.computed == 1);
  for (int i = 0; i < 3; i++)
    for (int c = 0; c < t.item[i].n; c++)
      ck_assert_double_le(fabs(qn__answers(&a, i)[c].log_likelihood - log_likelihood(x, &t.item[i].choice[c])), 1e-5);
  qn__answered_free(&a);
  qn__task_free(&t);
  finish(x);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  const suite_case cases[] = {
      CASE(windows_follow_the_conventions, 1),
      CASE(files_of_windows_stay_as_they_are, 1),
      CASE(texts_without_windows_are_refused, 1),
      CASE(tokens_are_scored_against_what_follows, 1),
      CASE(what_is_in_the_log_is_not_computed_again, 1),
      CASE(damaged_logs_are_mended, 1),
      CASE(killed_runs_end_like_one_that_was_not, 1),
      CASE(a_reference_is_kept_and_known_again, 1),
      CASE(a_full_disk_is_told_and_nothing_is_lost, 1),
      CASE(broken_logits_are_counted_or_refused, 1),
      CASE(choices_get_the_likelihood_of_their_continuation, 1),
  };
  return RUN_CASES(argv[0], cases, setup, teardown, 60);
}
