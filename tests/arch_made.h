/* arch_made.h - the checkpoints of tests/models/arch. */
#ifndef ARCH_MADE_H
#define ARCH_MADE_H
#include "fail.h"
#include "names.h"
#include <stdlib.h>

static const char arch_models[] = QN_TESTS "/models/arch";

/* A folder for each, and what is in it beside config.json, model.safetensors and expected.safetensors. */
static const struct {
  const char *name;
  bool old, gguf; /* old.json, model.gguf */
} arch_made[] = {
    {"llama", true, true},
    {"llama-dynamic", false, false},
    {"mistral", false, false},
    {"mixtral", false, true},
    {"qwen2", false, true},
    {"qwen3", true, false},
    {"qwen3_vl", false, true},
    {"qwen3_moe", false, false},
    {"qwen3_next", true, true},
    {"qwen3_5", false, true},
    {"qwen3_5_moe", false, false},
    {"gemma3", true, true},
    {"phi3", true, true},
    {"granite", false, true},
    {"olmo2", false, false},
    {"olmo3", true, true},
    {"smollm3", true, true},
    {"gpt_oss", true, true},
    {"gpt_oss-mxfp4", false, false},
    {"gemma2", false, true},
};

/* Read everything that names and configuration say; whether it is accepted does not matter. */
static inline void arch_touch(const char *path) {
  qn_model *m;
  qn__config *c = NULL;
  qn__params *p = NULL;
  if (qn_model_open(path, &m)) return;
  float *out = NULL, frequency[QN__HEAD_DIM / 2];
  if (!qn__config_read(m, &c) && !qn__params_open(m, c, &p)) {
    for (int r = 0; r < QN__ROPES; r++)
      for (int64_t length = 1; length < 1 << 20; length *= 32) qn__rope_frequencies(&c->rope[r], length, frequency);
    for (int layer = 0; layer < c->n_layers; layer++)
      for (qn__param what = 0; what < QN_P_COUNT; what++) {
        const qn__rows *r = qn__params_find(p, what, layer, 0);
        if (!r || !(out = calloc((size_t)(r->n * r->k), sizeof *out))) continue;
        if (r->run) qn__params_bias(p, what, layer, 0, out);
        else qn__params_vector(p, what, layer, out);
        free(out);
      }
  }
  qn__params_close(p);
  qn__config_free(c);
  qn_model_close(m);
}
#endif
