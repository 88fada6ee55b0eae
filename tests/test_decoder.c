/* test_decoder.c - the forward pass on the small checkpoints of tests/models: neither threads nor memory nor a cache
 * show in a result, and weights can be replaced. */
#include "arch_made.h"
#include "decoder_fixture.h"
#include "ops.h"
#include "rounding.h"
#include "rounding_vectors.h"
#include "timing.h"
#include <math.h>

START_TEST(an_activation_that_is_not_computed_is_named) {
  static const char *const unknown[][2] = {{"int4.row", "known: i8, "},
                                           {"i8.column", "known: i8, "},
                                           {"", "known: i8, "},
                                           {"i8.g32x", "known: i8, "},
                                           {"i8.g100", "does not divide its K = 256"},
                                           {"i8.g-16", "does not divide its K = 256"},
                                           {"nvfp4.g16", "the file has no scale for them"}};
  char start[128];
  opened o = open_model("tiny-llama", (qn__decoder_options){0});
  for (size_t i = 0; i < QN_COUNT(unknown); i++) {
    ck_assert_int_eq(qn__decoder_activate(o.d, 0, unknown[i][0]), QN_E_SHAPE);
    snprintf(start, sizeof start, "self_attn.q_proj.weight wants activations as '%s'", unknown[i][0]);
    ck_assert_msg(strstr(qn__errmsg(), start) && strstr(qn__errmsg(), unknown[i][1]), "%s", qn__errmsg());
  }
  close_model(o);
}
END_TEST

START_TEST(an_input_is_rounded_as_the_tool_does_that_made_the_checkpoint) {
  const float *want = rounding_vectors[_i].is;
  float y[64];
  qn_pool *pool;
  qn__rounding r;
  OK(qn__pool_new(NULL, 2, &pool));
  OK(qn__rounding_read(rounding_vectors[_i].activation, 32, rounding_vectors[_i].scale, "a", &r));
  qn__rounding_run(pool, &r, rounding_input, y, 64);
  for (int i = 0; i < 64; i++)
    ck_assert_msg(fabsf(y[i] - want[i]) <= 4e-7f * fabsf(want[i]), "%s: %g of %g, not %g",
                  rounding_vectors[_i].activation, (double)y[i], (double)rounding_input[i], (double)want[i]);
  qn__pool_free(pool);
}
END_TEST

/* ---- Times ------------------------------------------------------------------------------------------------------- */

START_TEST(a_step_after_skipped_tokens_repeats_and_ends_at_the_context) {
  const int32_t ids[2] = {3, 100};
  float first[2 * HIDDEN], again[2 * HIDDEN];
  opened o = open_model("tiny-llama", (qn__decoder_options){0});
  qn__session *s;
  OK(qn__session_new(o.d, 2, 8, &s));
  OK(qn__session_skip(s, 7));
  OK(qn__session_step(s, ids, 1, first));
  ck_assert_int_eq(qn__session_skip(s, 1), QN_E_LIMIT);
  OK(qn__session_rewind(s, 7));
  OK(qn__session_step(s, ids, 1, again));
  ck_assert_mem_eq(first, again, sizeof first);
  qn__session_free(s);
  close_model(o);
}
END_TEST

/* With as many heads as a config may have, the bytes of a session can be beyond 2^63. */
START_TEST(sizes_of_sessions_are_counted_or_refused) {
  static const int64_t refused[][2] = {{0, 8}, {8, 0}, {-1, 8}, {(1 << 16) + 1, 8}, {8, (1 << 24) + 1}};
  static const int64_t no_pass[][3] = {{1, -5, 6}, {1, 5, 0}, {1, 1, INT64_MAX}, {1, INT64_MAX, 1}, {0, 0, 1}};
  opened o = open_model("tiny-llama", (qn__decoder_options){0});
  qn__session *s;
  qn__timing t;
  int64_t two, four;
  for (size_t i = 0; i < QN_COUNT(refused); i++)
    ck_assert_int_eq(qn__session_new(o.d, refused[i][0], refused[i][1], &s), QN_E_ARG);
  for (size_t i = 0; i < QN_COUNT(no_pass); i++)
    ck_assert_int_eq(qn__time_pass(o.d, no_pass[i][0], no_pass[i][1], no_pass[i][2], &t, NULL), QN_E_ARG);
  OK(qn__session_bytes(o.d, 2, 8, &two));
  OK(qn__session_bytes(o.d, 4, 8, &four));
  ck_assert_int_eq(four, 2 * two);
  OK(qn__session_new(o.d, 1, 8, &s));
  ck_assert_int_eq(qn__session_skip(s, -1), QN_E_LIMIT);
  qn__session_free(s);
  qn__config *c = (qn__config *)(uintptr_t)qn__decoder_config(o.d);
  c->head_dim = QN__HEAD_DIM;
  c->layer[0].kv_heads = 1 << 12;
  ck_assert_int_eq(qn__session_new(o.d, 1 << 16, 1 << 24, &s), QN_E_LIMIT);
  close_model(o);
}
END_TEST

/* { batch, before, n }: decoding of one and of several sequences, prefill */
static const int64_t passes[][3] = {{1, 16, 1}, {3, 5, 1}, {1, 0, 9}};

START_TEST(a_pass_takes_time_part_of_it_in_linear_layers) {
  opened o = open_model("tiny-llama", (qn__decoder_options){0});
  const qn__site *sites;
  double site[64], sum = 0;
  int n = qn__decoder_sites(o.d, &sites);
  qn__timing t;
  ck_assert_int_le(n, 64);
  OK(qn__time_pass(o.d, passes[_i][0], passes[_i][1], passes[_i][2], &t, site));
  ck_assert_msg(t.linear > 0 && t.linear < t.seconds, "%g s, of that %g s in linear layers", t.seconds, t.linear);
  for (int i = 0; i < n; i++) {
    ck_assert_msg(site[i] > 0, "%s: %g s", sites[i].name, site[i]);
    sum += site[i];
  }
  ck_assert_double_eq_tol(sum, t.linear, 1e-9);
  close_model(o);
}
END_TEST

/* ---- What must not show ------------------------------------------------------------------------------------------ */

enum { FEW = 5 }; /* windows: more than a chunk of them */

typedef struct result {
  float h[FEW * LENGTH * HIDDEN], logits[LENGTH * VOCAB];
} result;

static void compute(qn__decoder *d, result *r) {
  OK(qn__decoder_hidden(d, text_ids(), FEW, LENGTH, r->h));
  OK(qn__decoder_logits(d, r->h, LENGTH, r->logits));
}

static void check_same(const result *a, const result *b, const char *what) {
  ck_assert_msg(!memcmp(a, b, sizeof *a), "%s: other bits", what);
}

/* The number of threads, and memory for less than a layer or for two of four. */
static const qn__decoder_options options[] = {
    {.threads = 2}, {.threads = 3}, {.threads = 1, .hold = 1 << 20}, {.threads = 2, .hold = 7 << 20}};

START_TEST(threads_and_memory_do_not_show) {
  static result want, is;
  opened o = open_model("tiny-llama", (qn__decoder_options){.threads = 1});
  opened other = open_model("tiny-llama", options[_i]);
  compute(o.d, &want);
  for (int pass = 0; pass < 2; pass++) {
    compute(other.d, &is);
    check_same(&want, &is, "a pass");
  }
  close_model(o);
  close_model(other);
}
END_TEST

/* A window in steps of several tokens and of one, beside a window of other tokens. */
START_TEST(a_cache_gives_what_a_pass_gives) {
  char path[256];
  qn_model *expected;
  snprintf(path, sizeof path, QN_TESTS "/models/arch/%s/expected.safetensors", arch_made[_i].name);
  OK(qn_model_open(path, &expected));
  const qn_raw *ids = qn_model_find_raw(expected, "ids");
  const int64_t n = ids->dim[0];
  snprintf(path, sizeof path, "arch/%s", arch_made[_i].name);
  opened o = open_model(path, (qn__decoder_options){.threads = 2});
  const int64_t hidden = qn__decoder_config(o.d)->hidden;
  int32_t *both = malloc((size_t)(2 * n) * sizeof *both), *step = malloc((size_t)(2 * n) * sizeof *step);
  float *want = malloc((size_t)(2 * n * hidden) * sizeof *want), *is = malloc((size_t)(2 * n * hidden) * sizeof *is);
  memcpy(both, ids->data, (size_t)n * sizeof *both);
  for (int64_t i = 0; i < n; i++) both[n + i] = both[n - 1 - i];
  OK(qn__decoder_hidden(o.d, both, 2, n, want));
  qn__session *s;
  OK(qn__session_new(o.d, 2, n, &s));
  for (int64_t at = 0, count = 13; at<n; at += count, count = count> 3 ? 3 : 1) {
    count = count < n - at ? count : n - at;
    for (int64_t i = 0; i < 2 * count; i++) step[i] = both[i / count * n + at + i % count];
    OK(qn__session_step(s, step, count, is));
    for (int64_t i = 0; i < 2 * count * hidden; i++) {
      int64_t row = i / hidden / count * n + at + i / hidden % count;
      double off = fabs((double)is[i] - (double)want[row * hidden + i % hidden]);
      ck_assert_msg(off <= 1e-5 * fmax(1, fabs((double)is[i])), "%s: token %jd is off by %g", arch_made[_i].name,
                    (intmax_t)row, off);
    }
  }
  qn__session_free(s);
  free(both), free(step), free(want), free(is);
  close_model(o);
  qn_model_close(expected);
}
END_TEST

/* ---- Linear layers ----------------------------------------------------------------------------------------------- */

START_TEST(a_weight_that_replaces_itself_changes_nothing_and_another_one_does) {
  static result want, is;
  static float w[768 * 256];
  const qn__site *site;
  opened o = open_model("tiny-llama-gptq4-act", (qn__decoder_options){0});
  int n = qn__decoder_sites(o.d, &site);
  ck_assert_int_eq(n, 4 * 7 + 1);
  compute(o.d, &want);
  for (int i = 0; i < n; i++) {
    OK(qn__decoder_weight(o.d, i, w));
    OK(qn__decoder_replace(o.d, i, w));
  }
  compute(o.d, &is);
  check_same(&want, &is, "each weight in its own place");
  w[0] += 1;
  OK(qn__decoder_replace(o.d, n - 1, w));
  compute(o.d, &is);
  ck_assert_mem_eq(is.h, want.h, sizeof is.h);
  ck_assert_mem_ne(is.logits, want.logits, sizeof is.logits);
  for (int i = 0; i < n; i++) OK(qn__decoder_replace(o.d, i, NULL));
  compute(o.d, &is);
  check_same(&want, &is, "the checkpoint's again");
  close_model(o);
}
END_TEST

typedef struct seen {
  int64_t rows[5 * 4 + 1];
  int stop; /* at this input */
} seen;

static bool see(void *ud, int input, const float *x, int64_t rows) {
  seen *s = ud;
  ck_assert(x != NULL);
  s->rows[input] += rows;
  return input != s->stop;
}

START_TEST(a_layer_is_its_halves) {
  static float x[2][FEW * LENGTH * HIDDEN];
  seen s = {.stop = -1};
  const qn__site *site;
  opened o = open_model("tiny-llama", (qn__decoder_options){0});
  int n = qn__decoder_sites(o.d, &site);
  for (int i = 0; i < 2; i++) OK(qn__decoder_embed(o.d, text_ids(), FEW * LENGTH, x[i]));
  OK(qn__decoder_layer(o.d, 0, QN__BOTH, x[0], FEW, LENGTH, NULL));
  for (qn__half half = QN__MIXER; half <= QN__MLP; half++) {
    memset(s.rows, 0, sizeof s.rows);
    OK(qn__decoder_layer(o.d, 0, half, x[1], FEW, LENGTH, &(qn__decoder_hook){&s, see}));
    for (int i = 0; i < n && !site[i].layer; i++)
      ck_assert_int_eq(s.rows[site[i].input], site[i].half == half ? FEW * LENGTH : 0);
  }
  ck_assert_mem_eq(x[0], x[1], sizeof x[0]);
  close_model(o);
}
END_TEST

START_TEST(a_hook_sees_every_input_once_and_may_end_the_layer) {
  static float x[FEW * LENGTH * HIDDEN];
  seen s = {.stop = -1};
  const qn__site *site;
  opened o = open_model("tiny-llama", (qn__decoder_options){0});
  int n = qn__decoder_sites(o.d, &site);
  for (int i = 0; i < 3; i++) ck_assert_int_eq(site[i].input, site[0].input);
  ck_assert_int_ne(site[3].input, site[0].input);
  OK(qn__decoder_embed(o.d, text_ids(), FEW * LENGTH, x));
  OK(qn__decoder_layer(o.d, 0, QN__BOTH, x, FEW, LENGTH, &(qn__decoder_hook){&s, see}));
  for (int i = 0; i < n; i++) ck_assert_int_eq(s.rows[site[i].input], site[i].layer ? 0 : FEW * LENGTH);
  s.stop = site[10].input; /* of o_proj in layer 1 */
  OK(qn__decoder_layer(o.d, 1, QN__BOTH, x, 1, LENGTH, &(qn__decoder_hook){&s, see}));
  ck_assert_int_eq(s.rows[site[7].input], LENGTH);
  ck_assert_int_eq(s.rows[site[10].input], LENGTH);
  ck_assert_int_eq(s.rows[site[11].input], 0);
  close_model(o);
}
END_TEST

/* ---- The noise floor --------------------------------------------------------------------------------------------- */

/* KL of the bf16 executor to the f32 one: 6.7e-5 was measured with PyTorch. */
START_TEST(bf16_is_as_far_off_as_elsewhere) {
  static result want, is;
  opened o = open_model("tiny-llama", (qn__decoder_options){0});
  opened rounded = open_model("tiny-llama", (qn__decoder_options){.bf16 = true});
  compute(o.d, &want);
  compute(rounded.d, &is);
  double kl = 0;
  for (int t = 0; t < LENGTH; t++) {
    const float *a = want.logits + t * VOCAB, *b = is.logits + t * VOCAB;
    double sum_a = 0, sum_b = 0;
    for (int v = 0; v < VOCAB; v++) sum_a += exp((double)a[v]), sum_b += exp((double)b[v]);
    for (int v = 0; v < VOCAB; v++)
      kl += exp((double)a[v]) / sum_a * ((double)a[v] - (double)b[v] - log(sum_a) + log(sum_b));
  }
  kl /= LENGTH;
  ck_assert_msg(kl > 3e-5 && kl < 1.3e-4, "KL %g", kl);
  close_model(o);
  close_model(rounded);
}
END_TEST

START_TEST(a_token_outside_the_vocabulary_is_named) {
  float x[2 * HIDDEN];
  opened o = open_model("tiny-llama", (qn__decoder_options){0});
  ck_assert_int_eq(qn__decoder_embed(o.d, (const int32_t[]){7, 256}, 2, x), QN_E_ARG);
  ck_assert_str_eq(qn__errmsg(), "token 1 is 256; the vocabulary is 0 .. 255");
  close_model(o);
}
END_TEST

static const struct {
  float logits[4];
  int32_t want[3];
  bool is_nan; /* the weights */
} routes[] = {
    {{2, 3, 3, 1}, {1, 2, 0}, false},
    {{1, NAN, 3, NAN}, {1, 3, 2}, true},
    {{NAN, NAN, NAN, NAN}, {0, 1, 2}, true},
};

START_TEST(router_logits_that_are_no_numbers_come_first) {
  int32_t expert[3];
  float weight[3];
  qn_pool *pool;
  OK(qn__pool_new(NULL, 1, &pool));
  qn__route_rows(pool, &(qn__route){routes[_i].logits, 4, 1, 4, 3, true, expert, weight});
  ck_assert_mem_eq(expert, routes[_i].want, sizeof expert);
  for (int i = 0; i < 3; i++) ck_assert(isnan(weight[i]) == routes[_i].is_nan);
  qn__pool_free(pool);
}
END_TEST

int main(int argc, char **argv) {
  static const suite_case cases[] = {
      CASE(an_activation_that_is_not_computed_is_named, 1),
      CASE(an_input_is_rounded_as_the_tool_does_that_made_the_checkpoint, QN_COUNT(rounding_vectors)),
      CASE(threads_and_memory_do_not_show, QN_COUNT(options)),
      CASE(a_cache_gives_what_a_pass_gives, QN_COUNT(arch_made)),
      CASE(a_weight_that_replaces_itself_changes_nothing_and_another_one_does, 1),
      CASE(a_layer_is_its_halves, 1),
      CASE(a_hook_sees_every_input_once_and_may_end_the_layer, 1),
      CASE(bf16_is_as_far_off_as_elsewhere, 1),
      CASE(a_token_outside_the_vocabulary_is_named, 1),
      CASE(router_logits_that_are_no_numbers_come_first, QN_COUNT(routes)),
      CASE(a_step_after_skipped_tokens_repeats_and_ends_at_the_context, 1),
      CASE(sizes_of_sessions_are_counted_or_refused, 1),
      CASE(a_pass_takes_time_part_of_it_in_linear_layers, QN_COUNT(passes)),
  };
  (void)argc;
  return RUN_CASES(argv[0], cases, .timeout = 300);
}
