/* test_decoder_values.c - the small checkpoints of tests/models have the cross-entropy that their makers measured. */
#include "decoder_fixture.h"
#include <math.h>

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

/* Cross-entropy by the code of the tools that made them; with what margin. */
static const struct {
  const char *name;
  double nats, margin;
  const char *activation; /* of the tool that measured; NULL: the checkpoint's */
} measured[] = {
    {"tiny-llama", 1.068649, 2e-5, NULL},
    {"tiny-llama-gptq4", 1.0700, 5e-4, NULL},
    {"tiny-llama-gptq4-act", 1.0689, 5e-4, NULL},
    {"tiny-llama-awq4", 1.0707, 5e-4, NULL},
    {"tiny-llama-ct-w4a16", 1.0692, 5e-4, NULL},
    {"tiny-llama-ct-w8a8", 1.0698, 5e-4, NULL},
    {"tiny-llama-ct-fp8-block", 1.0694, 5e-4, NULL},
    {"tiny-llama-ct-nvfp4", 1.070485, 2e-5, NULL}, /* in f32; transformers computes it in bf16: 1.070611 */
    {"tiny-llama-bnb-nf4", 1.0701, 5e-4, NULL},
    {"tiny-llama-q4_0.gguf", 1.0720, 5e-4, NULL},
    {"tiny-llama-q4_k_m.gguf", 1.0690, 5e-4, "i8.g256"}, /* llama.cpp's Q8_K */
    {"tiny-llama-q8_0.gguf", 1.0686, 5e-4, NULL},
};

START_TEST(cross_entropy_is_what_the_makers_measured) {
  opened o = open_model(measured[_i].name, (qn__decoder_options){0});
  const qn__site *site;
  for (int i = qn__decoder_sites(o.d, &site); measured[_i].activation && i-- > 0;)
    OK(qn__decoder_activate(o.d, i, measured[_i].activation));
  double nats = cross_entropy(o.d, WINDOWS);
  ck_assert_msg(fabs(nats - measured[_i].nats) <= measured[_i].margin, "%s: %.6f nats, not %.6f", measured[_i].name,
                nats, measured[_i].nats);
  close_model(o);
}
END_TEST

int main(int argc, char **argv) {
  static const suite_case cases[] = {CASE(cross_entropy_is_what_the_makers_measured, QN_COUNT(measured))};
  (void)argc;
  return RUN_CASES(argv[0], cases, .timeout = 300);
}
