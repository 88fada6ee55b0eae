/* test_decoder.c - the forward pass on the small checkpoints of tests/models: what their makers measured of them, and
 * that neither threads nor memory nor a cache show in a result. */
#include "decoder.h"
#include "fail.h"
#include "generator.h"
#include "suite.h"
#include "timing.h"
#include <math.h>

enum { WINDOWS = 64, LENGTH = 256, VOCAB = 256, HIDDEN = 256 };

static qn_status format_of(void *ud, const char *spelling, qn_format *out) {
  const char *wrong = generator_format(spelling, out);
  (void)ud;
  return wrong ? qn__fail(QN_E_FORMAT, "%s", wrong) : QN_OK;
}

typedef struct opened {
  qn_model *model;
  qn__decoder *d;
} opened;

static opened open_model(const char *name, qn__decoder_options options) {
  opened o;
  char path[256];
  snprintf(path, sizeof path, QN_TESTS "/models/%s", name);
  options.format = format_of;
  ck_assert_msg(qn_model_open(path, &o.model) == QN_OK, "%s: %s", name, qn_io_errmsg());
  ck_assert_msg(qn__decoder_open(o.model, &options, &o.d) == QN_OK, "%s: %s", name, qn__errmsg());
  return o;
}

static void close_model(opened o) {
  qn__decoder_close(o.d);
  qn_model_close(o.model);
}

#define OK(call) ck_assert_msg((call) == QN_OK, "%s: %s", #call, qn__errmsg())

/* The first bytes of the text: a token is a byte. */
static const int32_t *text_ids(void) {
  static int32_t ids[WINDOWS * LENGTH];
  static unsigned char text[WINDOWS * LENGTH];
  FILE *f = fopen(QN_TESTS "/models/valid.txt", "r");
  ck_assert(f && fread(text, 1, sizeof text, f) == sizeof text);
  fclose(f);
  for (size_t i = 0; i < sizeof text; i++) ids[i] = text[i];
  return ids;
}

/* Mean nats of the bytes behind the first of each window. */
static double cross_entropy(qn__decoder *d, int windows) {
  static float h[WINDOWS * LENGTH * HIDDEN], logits[LENGTH * VOCAB];
  const int32_t *ids = text_ids();
  double total = 0;
  OK(qn__decoder_hidden(d, ids, windows, LENGTH, h));
  for (int w = 0; w < windows; w++) {
    OK(qn__decoder_logits(d, h + w * LENGTH * HIDDEN, LENGTH, logits));
    for (int t = 0; t + 1 < LENGTH; t++) {
      double sum = 0;
      for (int v = 0; v < VOCAB; v++) sum += exp((double)logits[t * VOCAB + v]);
      total += log(sum) - (double)logits[t * VOCAB + ids[w * LENGTH + t + 1]];
    }
  }
  return total / windows / (LENGTH - 1);
}

/* ---- Values ------------------------------------------------------------------------------------------------------ */

/* Cross-entropy by the code of the tools that made them; with what margin. */
static const struct {
  const char *name;
  double nats, margin;
} measured[] = {
    {"tiny-llama", 1.068649, 2e-5},           {"tiny-llama-gptq4", 1.0700, 5e-4},
    {"tiny-llama-gptq4-act", 1.0689, 5e-4},   {"tiny-llama-awq4", 1.0707, 5e-4},
    {"tiny-llama-ct-w4a16", 1.0692, 5e-4},    {"tiny-llama-ct-nvfp4", 1.0706, 5e-4},
    {"tiny-llama-bnb-nf4", 1.0701, 5e-4},     {"tiny-llama-q4_0.gguf", 1.0720, 5e-4},
    {"tiny-llama-q4_k_m.gguf", 1.0690, 7e-4}, /* llama.cpp rounds activations to 8 bits */
    {"tiny-llama-q8_0.gguf", 1.0686, 5e-4},
};

START_TEST(cross_entropy_is_what_the_makers_measured) {
  opened o = open_model(measured[_i].name, (qn__decoder_options){0});
  double nats = cross_entropy(o.d, WINDOWS);
  ck_assert_msg(fabs(nats - measured[_i].nats) <= measured[_i].margin, "%s: %.6f nats, not %.6f", measured[_i].name,
                nats, measured[_i].nats);
  close_model(o);
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
  ck_assert_int_eq(qn__session_bytes(o.d, 4, 8), 2 * qn__session_bytes(o.d, 2, 8));
  qn__session_free(s);
  close_model(o);
}
END_TEST

/* { batch, before, n }: decoding of one and of several sequences, prefill */
static const int64_t passes[][3] = {{1, 16, 1}, {3, 5, 1}, {1, 0, 9}};

START_TEST(a_pass_takes_time_part_of_it_in_linear_layers) {
  opened o = open_model("tiny-llama", (qn__decoder_options){0});
  qn__timing t;
  OK(qn__time_pass(o.d, passes[_i][0], passes[_i][1], passes[_i][2], &t));
  ck_assert_msg(t.linear > 0 && t.linear < t.seconds, "%g s, of that %g s in linear layers", t.seconds, t.linear);
  close_model(o);
}
END_TEST

int main(int argc, char **argv) {
  static const suite_case cases[] = {
      CASE(cross_entropy_is_what_the_makers_measured, QN_COUNT(measured)),
      CASE(a_step_after_skipped_tokens_repeats_and_ends_at_the_context, 1),
      CASE(a_pass_takes_time_part_of_it_in_linear_layers, QN_COUNT(passes)),
  };
  (void)argc;
  return RUN_CASES(argv[0], cases, .timeout = 300);
}
