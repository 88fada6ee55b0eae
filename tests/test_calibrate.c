/* test_calibrate.c - calibration of the small checkpoints of tests/models: what each linear layer sees, in which order,
 * and what methods make of it. */
#include "arch_made.h"
#include "calibrate.h"
#include "config.h"
#include "fail.h"
#include "generator.h"
#include "quantize.h"
#include "state.h"
#include "suite.h"
#include <math.h>

enum { WINDOWS = 64, LENGTH = 256, HIDDEN = 256, EVALUATED = 3 };

#define OK(call) ck_assert_msg((call) == QN_OK, "%s: %s", #call, qn__errmsg())

/* ---- Models ------------------------------------------------------------------------------------------------------ */

static qn_status format_of(void *ud, const char *spelling, qn_format *out) {
  const char *wrong = generator_format(spelling, out);
  (void)ud;
  return wrong ? qn__fail(QN_E_FORMAT, "%s", wrong) : QN_OK;
}

static qn_model *model;
enum { SITES = 64 };
static float *found[SITES]; /* what each site was replaced by */

static qn__decoder *open_decoder(void) {
  qn__decoder *d;
  OK(qn__decoder_open(model, &(qn__decoder_options){.format = format_of, .threads = 2}, &d));
  return d;
}

static void open_model(const char *name) {
  char path[256];
  snprintf(path, sizeof path, QN_TESTS "/models/%s", name);
  OK(qn_model_open(path, &model));
}

/* Windows of the text; a token is a byte. The first are evaluated, those after them calibrate. */
static int32_t ids[WINDOWS * LENGTH];
static const int32_t *const calibrating = ids + EVALUATED * LENGTH;

static void setup(void) {
  static unsigned char text[WINDOWS * LENGTH];
  FILE *f = fopen(QN_TESTS "/models/text/valid.txt", "r");
  ck_assert(f && fread(text, 1, sizeof text, f) == sizeof text);
  fclose(f);
  for (size_t i = 0; i < sizeof text; i++) ids[i] = text[i];
}

static void teardown(void) {
  qn_model_close(model);
  model = NULL;
  for (int i = 0; i < SITES; i++) free(found[i]), found[i] = NULL;
}

/* ---- A calibrated run -------------------------------------------------------------------------------------------- */

typedef struct asked {
  const char *format, *method;
  int see, threads, windows, length;
  int64_t memory;
  int from, to; /* sites that are quantized now; to: 0: all but the head */
  int known;    /* sites that are replaced by what they were in the run before */
} asked;

/* A number that depends on every bit. */
static uint64_t sum_of(const void *data, int64_t bytes) {
  uint64_t sum = 0, x;
  for (int64_t i = 0; data && i < bytes; i += (int64_t)sizeof x)
    memcpy(&x, (const char *)data + i, sizeof x), sum = sum * 31 + x;
  return sum;
}

static uint64_t sum_of_inputs(const qn__inputs *s) {
  const int64_t vector = s->k * (int64_t)sizeof(double), matrix = s->pad * s->pad * (int64_t)sizeof(double);
  return (uint64_t)s->tokens + sum_of(s->square, vector) + 3 * sum_of(s->h, matrix) + 5 * sum_of(s->cross, matrix);
}

static void replace(qn__decoder *d, int site, const asked *a, const qn__inputs *seen) {
  const qn__site *at;
  qn__decoder_sites(d, &at);
  at += site;
  const size_t count = (size_t)(at->n * at->k);
  float *w = malloc(count * sizeof *w);
  double *is = malloc(count * sizeof *is);
  qn_format f;
  qn_planes *p;
  qn__quantize_error e;
  OK(format_of(NULL, a->format, &f));
  OK(qn__decoder_weight(d, site, w));
  const qn__quantize_options o = {.method = a->method, .threads = a->threads, .seen = seen};
  ck_assert_msg(qn__quantize(&f, w, at->n, at->k, &o, &p, &e) == QN_OK, "%s: %s", at->name, qn__errmsg());
  OK(qn__dequantize(&f, p, 0, at->n, is));
  for (size_t i = 0; i < count; i++) w[i] = (float)is[i];
  OK(qn__decoder_replace(d, site, w));
  free(found[site]);
  found[site] = w;
  qn_planes_free(p), free(is);
}

/* Bytes of the checkpoint's weights in f32 that a layer has at most. */
static int64_t largest_layer(const qn__site *site, int n) {
  int64_t most = 0, sum = 0;
  for (int i = 0; i < n; i++) {
    if (i && site[i].layer != site[i - 1].layer) sum = 0;
    sum += site[i].n * site[i].k * (int64_t)sizeof(float);
    most = sum > most ? sum : most;
  }
  return most;
}

/* All sites but the head, in order; what each of them saw and became into `sums`. */
static void run(qn__decoder *d, const asked *a, uint64_t *sums) {
  const qn__site *site;
  int n = qn__decoder_sites(d, &site), at;
  bool *wanted = calloc((size_t)n, sizeof *wanted);
  qn__decoder *original = a->see & QN__SEE_CROSS ? open_decoder() : NULL;
  for (int i = a->from; i < (a->to ? a->to : n - 1); i++) wanted[i] = true;
  const qn__calibration_options o = {.ids = calibrating,
                                     .windows = a->windows,
                                     .length = a->length,
                                     .see = a->see,
                                     .wanted = wanted,
                                     .known = a->known,
                                     .threads = a->threads,
                                     .memory = a->memory};
  qn__calibration *c;
  const qn__inputs *seen;
  int last = -1, given = 0;
  const int64_t most = largest_layer(site, n);
  OK(qn__calibration_new(d, original, &o, &c));
  for (;;) {
    OK(qn__calibration_next(c, &at, &seen));
    if (at < 0) break;
    ck_assert(at > last && wanted[at]);
    ck_assert_int_le(d->linears.held, most);
    if (original) ck_assert_int_le(original->linears.held, most);
    last = at;
    if (given++ < a->known) {
      ck_assert_ptr_null(seen);
      OK(qn__decoder_replace(d, at, found[at]));
      continue;
    }
    ck_assert_int_eq(seen->k, site[at].k);
    const uint64_t saw = sums ? sum_of_inputs(seen) : 0;
    replace(d, at, a, seen);
    if (sums) sums[at] = saw * 31 + sum_of(found[at], site[at].n * site[at].k * (int64_t)sizeof(float));
  }
  qn__calibration_free(c);
  qn__decoder_close(original);
  free(wanted);
}

/* ---- What is seen ------------------------------------------------------------------------------------------------ */

static const asked base = {"int2.g32", "gptaq", QN__SEE_CROSS, .threads = 1, .windows = 3, .length = 150};

/* One of the others pauses, one finds more than a layer done: both between sites of one input. */
START_TEST(neither_threads_nor_a_file_nor_a_pause_show) {
  enum { MIDDLE = 17 };
  static const struct {
    int64_t memory;
    int to, known;
  } others[] = {{0, 0, 0}, {1, MIDDLE, 0}, {1, 0, MIDDLE}};
  static uint64_t want[SITES], have[SITES];
  open_model("tiny-llama");
  qn__decoder *d = open_decoder();
  run(d, &base, want);
  qn__decoder_close(d);
  for (size_t i = 0; i < QN_COUNT(others); i++) {
    asked other = base;
    d = open_decoder();
    other.threads = 3, other.memory = others[i].memory, other.to = others[i].to, other.known = others[i].known;
    memset(have, 0, sizeof have);
    memcpy(have, want, (size_t)other.known * sizeof *have);
    run(d, &other, have);
    other.from = other.to, other.to = 0;
    if (other.from) run(d, &other, have);
    ck_assert_msg(!memcmp(want, have, sizeof want), "other %zu", i);
    qn__decoder_close(d);
  }
}
END_TEST

/* The input of the first layers is the norm of the embeddings; of the head, the final norm. */
START_TEST(inputs_are_those_of_the_pass) {
  const qn__site *site;
  open_model("tiny-llama");
  qn__decoder *d = open_decoder();
  int n = qn__decoder_sites(d, &site), at;
  bool *wanted = calloc((size_t)n, sizeof *wanted);
  wanted[n - 1] = true;
  const qn__calibration_options o = {
      .ids = ids, .windows = EVALUATED, .length = LENGTH, .wanted = wanted, .threads = 2};
  qn__calibration *c;
  const qn__inputs *seen;
  static float h[EVALUATED * LENGTH * HIDDEN];
  OK(qn__calibration_new(d, NULL, &o, &c));
  OK(qn__calibration_next(c, &at, &seen));
  ck_assert_int_eq(at, n - 1);
  ck_assert_int_eq(seen->tokens, EVALUATED * LENGTH);
  OK(qn__decoder_hidden(d, ids, EVALUATED, LENGTH, h));
  for (int k = 0; k < HIDDEN; k++) {
    double sum = 0;
    for (int t = 0; t < EVALUATED * LENGTH; t++) sum += (double)h[t * HIDDEN + k] * (double)h[t * HIDDEN + k];
    ck_assert_double_le(fabs(seen->square[k] * EVALUATED * LENGTH - sum), 1e-9 * sum);
  }
  OK(qn__calibration_next(c, &at, &seen));
  ck_assert_int_eq(at, -1);
  qn__calibration_free(c);
  qn__decoder_close(d);
  free(wanted);
}
END_TEST

/* Every token goes to as many experts as the model says, whether their statistics fit at once or not. */
START_TEST(experts_see_the_tokens_that_are_sent_to_them) {
  const qn__site *site;
  open_model(_i % 2 ? "arch/qwen3_moe" : "arch/mixtral");
  qn__decoder *d = open_decoder();
  int n = qn__decoder_sites(d, &site), at;
  bool *wanted = calloc((size_t)n, sizeof *wanted);
  int64_t tokens = 0;
  for (int i = 0; i < n; i++) wanted[i] = strstr(site[i].name, "experts.") && strstr(site[i].name, ".down_proj");
  for (int i = 0; i < n; i++) wanted[i] = wanted[i] || strstr(site[i].name, ".w2.");
  for (int i = 0; i < WINDOWS * LENGTH; i++) ids[i] %= (int32_t)qn__decoder_config(d)->vocab;
  const qn__calibration_options o = {.ids = ids,
                                     .windows = 5,
                                     .length = 50,
                                     .see = QN__SEE_PRODUCTS,
                                     .wanted = wanted,
                                     .threads = 2,
                                     .memory = _i / 2 ? 100000 : 0};
  qn__calibration *c;
  const qn__inputs *seen;
  OK(qn__calibration_new(d, NULL, &o, &c));
  for (;;) {
    OK(qn__calibration_next(c, &at, &seen));
    if (at < 0) break;
    tokens += seen->tokens;
  }
  const qn__config *config = qn__decoder_config(d);
  int with_experts = 0;
  for (int i = 0; i < config->n_layers; i++) with_experts += !config->layer[i].mlp;
  ck_assert_int_eq(tokens, with_experts * 5 * 50 * config->experts.used);
  qn__calibration_free(c);
  qn__decoder_close(d);
  free(wanted);
}
END_TEST

START_TEST(experts_of_two_models_are_not_compared) {
  open_model("arch/mixtral");
  qn__decoder *d = open_decoder(), *original = open_decoder();
  const qn__site *site;
  int n = qn__decoder_sites(d, &site), at;
  bool *wanted = calloc((size_t)n, sizeof *wanted);
  for (int i = 0; i < n; i++) wanted[i] = strstr(site[i].name, "experts.") != NULL;
  for (int i = 0; i < WINDOWS * LENGTH; i++) ids[i] %= (int32_t)qn__decoder_config(d)->vocab;
  const qn__calibration_options o = {.ids = ids, .windows = 2, .length = 50, .see = QN__SEE_CROSS, .wanted = wanted};
  qn__calibration *c;
  const qn__inputs *seen;
  OK(qn__calibration_new(d, original, &o, &c));
  ck_assert_int_eq(qn__calibration_next(c, &at, &seen), QN_E_ARG);
  ck_assert_msg(strstr(qn__errmsg(), "sends other tokens to an expert") != NULL, "%s", qn__errmsg());
  ck_assert_int_eq(qn__calibration_next(c, &at, &seen), QN_E_ARG); /* its sums are unfinished */
  ck_assert(at == -1 && !seen);
  qn__calibration_free(c);
  qn__decoder_close(original), qn__decoder_close(d);
  free(wanted);
}
END_TEST

/* ---- Scaled inputs ----------------------------------------------------------------------------------------------- */

/* Every input that can be scaled is, each of its elements by another factor. Returns how many inputs are. */
static int scale_all(qn__decoder *d) {
  const qn__site *site;
  int n = qn__decoder_sites(d, &site), scaled = 0;
  for (int i = 0; i < n; i++) {
    bool first = true;
    qn__giver giver;
    for (int j = 0; j < i; j++) first = first && site[j].input != site[i].input;
    if (!first || qn__decoder_giver(d, site[i].input, &giver)) continue;
    ck_assert(giver.norm ? giver.site < 0 : giver.site >= 0 && giver.site < i);
    float *s = malloc((size_t)site[i].k * sizeof *s);
    for (int64_t k = 0; k < site[i].k; k++) s[k] = 0.3f + (float)(k * 7 % 11) / 5;
    OK(qn__decoder_scale(d, site[i].input, s));
    const double off = !giver.norm ? 1e-6 : qn__decoder_config(d)->plus_one ? 0.2 : 0x1p-6; /* what bf16 makes of it */
    for (int64_t k = 0; k < site[i].k; k++)
      ck_assert_double_le(fabs((double)s[k] / (0.3 + (double)(k * 7 % 11) / 5) - 1), off);
    scaled++;
    free(s);
  }
  return scaled;
}

/* Norms of 1 + w, experts, fused weights, delta nets: the scaled model computes what it did. */
START_TEST(a_scaled_model_computes_the_same) {
  enum { LEAST = 2 }; /* of the layers: what comes before down, at least */
  char name[64];
  snprintf(name, sizeof name, "arch/%s", arch_made[_i].name);
  open_model(name);
  qn__decoder *d = open_decoder();
  const int64_t vocab = qn__decoder_config(d)->vocab, hidden = qn__decoder_config(d)->hidden;
  float *h = malloc((size_t)(LENGTH * hidden) * sizeof *h);
  float *logits = malloc((size_t)(2 * LENGTH * vocab) * sizeof *logits), *again = logits + LENGTH * vocab;
  for (int i = 0; i < LENGTH; i++) ids[i] %= (int32_t)vocab;
  OK(qn__decoder_hidden(d, ids, 1, LENGTH, h));
  OK(qn__decoder_logits(d, h, LENGTH, logits));
  ck_assert_int_ge(scale_all(d), strncmp(arch_made[_i].name, "gpt_oss", 7) ? LEAST : 1);
  OK(qn__decoder_hidden(d, ids, 1, LENGTH, h));
  OK(qn__decoder_logits(d, h, LENGTH, again));
  double most = 0, off = 0;
  for (int64_t i = 0; i < LENGTH * vocab; i++) {
    most = fmax(most, fabs((double)logits[i]));
    off = fmax(off, fabs((double)again[i] - (double)logits[i]));
  }
  ck_assert_msg(off > 0 && off < 1e-4 * most, "%s: logits of %g are off by %g", name, most, off);
  free(h), free(logits);
  qn__decoder_close(d);
}
END_TEST

static const struct {
  const char *model, *site, *why;
} unscaled[] = {
    {"tiny-llama", "layers.0.self_attn.o_proj", "heads share the values of"},
    {"arch/mixtral", "experts.0.", "experts and their router read the same norm"},
    {"arch/olmo2", "layers.0.self_attn.q_proj", "no norm stands before it"},
    {"arch/qwen3_5", "layers.0.linear_attn.out_proj", "its heads share the weights of one norm"},
    {"arch/gpt_oss", "experts.down_proj", "cut off at a limit"},
    {"arch/llama", "layers.0.mlp.down_proj", "up_proj.weight, which gives it, has a bias"},
};

START_TEST(what_cannot_be_scaled_is_told) {
  open_model(unscaled[_i].model);
  qn__decoder *d = open_decoder();
  const qn__site *site;
  qn__giver giver;
  int n = qn__decoder_sites(d, &site), at = 0;
  while (at < n && !strstr(site[at].name, unscaled[_i].site)) at++;
  ck_assert_msg(at < n, "%s has no %s", unscaled[_i].model, unscaled[_i].site);
  float *s = calloc((size_t)site[at].k, sizeof *s);
  ck_assert_int_eq(qn__decoder_giver(d, site[at].input, &giver), QN_E_SHAPE);
  ck_assert_msg(strstr(qn__errmsg(), unscaled[_i].why) != NULL, "%s", qn__errmsg());
  ck_assert_int_eq(qn__decoder_scale(d, site[at].input, s), QN_E_SHAPE);
  free(s);
  qn__decoder_close(d);
}
END_TEST

START_TEST(a_site_that_is_replaced_is_not_scaled) {
  open_model("tiny-llama");
  qn__decoder *d = open_decoder();
  const qn__site *site;
  qn__decoder_sites(d, &site);
  float *w = calloc((size_t)(site->n * site->k), sizeof *w), s[HIDDEN];
  for (int i = 0; i < HIDDEN; i++) s[i] = 2;
  OK(qn__decoder_replace(d, 0, w));
  ck_assert_int_eq(qn__decoder_scale(d, site->input, s), QN_E_ARG);
  ck_assert_msg(strstr(qn__errmsg(), "is replaced, and cannot be scaled") != NULL, "%s", qn__errmsg());
  free(w);
  qn__decoder_close(d);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  const suite_case cases[] = {
      CASE(neither_threads_nor_a_file_nor_a_pause_show, 1),
      CASE(inputs_are_those_of_the_pass, 1),
      CASE(experts_see_the_tokens_that_are_sent_to_them, 4),
      CASE(experts_of_two_models_are_not_compared, 1),
      CASE(a_scaled_model_computes_the_same, QN_COUNT(arch_made)),
      CASE(what_cannot_be_scaled_is_told, QN_COUNT(unscaled)),
      CASE(a_site_that_is_replaced_is_not_scaled, 1),
  };
  return RUN_CASES(argv[0], cases, .enter = setup, .leave = teardown, .timeout = 300);
}
