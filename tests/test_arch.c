/* test_arch.c - what a checkpoint says of its architecture: every one of the table, in the spellings of old and new
 * versions and of a GGUF; settings and tensors that would make an evaluation wrong are refused by name. */
#include "arch.h"
#include "arch_made.h"
#include "decoder.h"
#include "generator.h"
#include "io_folder.h"
#include "names.h"
#include <math.h>
#include <stddef.h>

static qn_model *open_file(const char *name, const char *file) {
  qn_model *m;
  snprintf(path, sizeof path, "%s/%s/%s", arch_models, name, file);
  ck_assert_msg(qn_model_open(path, &m) == QN_OK, "%s", qn_io_errmsg());
  return m;
}

static qn__config *read_config(const qn_model *m) {
  qn__config *c;
  ck_assert_msg(qn__config_read(m, &c) == QN_OK, "%s", qn__errmsg());
  return c;
}

/* ---- Every architecture ------------------------------------------------------------------------------------------ */

static void find_all(const char *name, const char *file) {
  qn_model *m = open_file(name, file);
  qn__config *c = read_config(m);
  qn__params *p;
  ck_assert_msg(qn__params_open(m, c, &p) == QN_OK, "%s/%s: %s", name, file, qn__errmsg());
  qn__params_close(p);
  qn__config_free(c);
  qn_model_close(m);
}

START_TEST(every_parameter_is_found_and_every_tensor_is_one) {
  find_all(arch_made[_i].name, "");
  if (arch_made[_i].gguf) find_all(arch_made[_i].name, "model.gguf");
}
END_TEST

static void copy(const char *from, const char *to) {
  char command[2 * PATH_MAX + 32];
  snprintf(command, sizeof command, "cp %s %s/%s", from, folder, to);
  ck_assert_int_eq(system(command), 0);
}

START_TEST(old_spellings_say_the_same) {
  char from[PATH_MAX];
  if (!arch_made[_i].old) return;
  snprintf(from, sizeof from, "%s/%s/old.json", arch_models, arch_made[_i].name);
  copy(from, "config.json");
  snprintf(from, sizeof from, "%s/%s/model.safetensors", arch_models, arch_made[_i].name);
  copy(from, "model.safetensors");
  qn_model *new = open_file(arch_made[_i].name, ""), *old = open_folder();
  qn__config *a = read_config(new), *b = read_config(old);
  ck_assert_msg(!memcmp(a, b, offsetof(qn__config, layer)), "%s: another configuration", arch_made[_i].name);
  ck_assert_msg(!memcmp(a->layer, b->layer, (size_t)a->n_layers * sizeof *a->layer), "%s: other layers",
                arch_made[_i].name);
  qn__config_free(a), qn__config_free(b);
  qn_model_close(new), qn_model_close(old);
}
END_TEST

START_TEST(the_table_is_tested_whole) {
  const qn__arch *a;
  for (size_t i = 0; (a = qn__arch_at(i)); i++) {
    bool found = false;
    for (size_t k = 0; k < QN_COUNT(arch_made); k++) {
      const qn__arch *tested;
      const char *known;
      qn_model *m = open_file(arch_made[k].name, "");
      qn__config *c = read_config(m);
      ck_assert_int_eq(qn__arch_find(c->architecture, false, &tested, &known), QN_OK);
      qn__config_free(c);
      found = found || tested == a;
      qn_model_close(m);
    }
    ck_assert_msg(found, "%s: no checkpoint of tests/models/arch is of it; make.py makes one", a->type[0]);
  }
}
END_TEST

/* ---- Settings that are refused ----------------------------------------------------------------------------------- */

static const char base[] = "{%s%s\"model_type\": \"llama\", \"hidden_size\": 32, \"num_hidden_layers\": 2, "
                           "\"num_attention_heads\": 4, \"intermediate_size\": 48, \"max_position_embeddings\": 64, "
                           "\"rms_norm_eps\": 1e-6}";

static const struct {
  const char *settings, *expected;
} wrong[] = {
    {"\"model_type\": \"gpt2\"", "architecture \"gpt2\" is not known; those that can be evaluated: llama, mistral"},
    {"\"model_type\": \"deepseek_v3\"",
     "architecture \"deepseek_v3\" cannot be evaluated yet (latent attention); those"},
    {"\"model_type\": \"gemma4_text\"", "\"gemma4_text\" cannot be evaluated yet"},
    {"\"model_type\": 3", "model_type: a text is expected"},
    {"\"hidden_size\": 0", "config.json: hidden_size: 0; a whole number from 1 to 16777216 is expected"},
    {"\"hidden_size\": 1e300", "hidden_size: 1e+300; a whole number"},
    {"\"hidden_size\": 32.5", "hidden_size: 32.5; a whole number"},
    {"\"hidden_size\": \"32\"", "hidden_size: a number is expected"},
    {"\"hidden_size\": 64", "no tensor is the embedding of tokens: a matrix of 64 columns"},
    {"\"num_hidden_layers\": 100000", "num_hidden_layers: 100000; a whole number from 1 to 1024"},
    {"\"num_attention_heads\": 0", "num_attention_heads: 0"},
    {"\"num_key_value_heads\": 3", "layer 0: 3 heads of keys do not divide 4 heads"},
    {"\"num_key_value_heads\": [4]", "num_key_value_heads: a list of 1, which says nothing of number 1"},
    {"\"head_dim\": 1024", "head_dim: 1024; a whole number from 1 to 512"},
    {"\"v_head_dim\": 16", "v_head_dim: 16, and heads of keys have 8"},
    {"\"intermediate_size\": -1", "intermediate_size: -1"},
    {"\"rms_norm_eps\": NaN", "rms_norm_eps: a number is expected"},
    {"\"rms_norm_eps\": 0", "rms_norm_eps: 0 or missing; it must be above 0"},
    {"\"hidden_act\": \"relu2\"", "hidden_act: \"relu2\" is not known; silu, gelu and gelu_pytorch_tanh are"},
    {"\"use_bidirectional_attention\": true", "only causal models can be evaluated"},
    {"\"layer_types\": [\"full_attention\"]", "layer_types: a list of 1, which says nothing of number 1"},
    {"\"layer_types\": [\"chunked_attention\", \"full_attention\"]",
     "layer 0 is \"chunked_attention\"; full_attention,"},
    {"\"layer_types\": [\"linear_attention\", \"full_attention\"]",
     "layer 0 is linear_attention, which llama does not"},
    {"\"layer_types\": [1, 2]", "layer_types: a text is expected"},
    {"\"logits_scaling\": 0", "logits_scaling: 0; logits are divided by it"},
    {"\"num_experts\": 4", "num_experts_per_tok: missing; a whole number from 1 to 4"},
    {"\"num_experts\": 4, \"num_experts_per_tok\": 5", "num_experts_per_tok: 5; a whole number from 1 to 4"},
    {"\"rope_scaling\": {\"type\": \"spiral\"}",
     "type: \"spiral\" is not known; default, linear, dynamic, llama3, yarn"},
    {"\"rope_parameters\": {\"rope_type\": \"proportional\"}", "rope_type: \"proportional\" is not known"},
    {"\"rope_scaling\": {\"type\": \"linear\"}", "factor: 0 or missing; it must be above 0"},
    {"\"rope_scaling\": {\"type\": \"yarn\"}", "factor: 0 or missing; it must be above 0"},
    {"\"rope_scaling\": {\"type\": \"linear\", \"factor\": -2}", "factor: -2; it must be above 0"},
    {"\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4, \"high_freq_factor\": 4}",
     "high_freq_factor: 4, and low_freq_factor is 4; it must be the larger one"},
    {"\"rope_scaling\": {\"type\": \"longrope\", \"factor\": 8, \"short_factor\": [1, 1, 1, 1], \"long_factor\": [2]}",
     "long_factor: a list of 1, which says nothing of number 1"},
    {"\"rope_scaling\": {\"type\": \"longrope\", \"factor\": 8, \"short_factor\": [1, 0, 1, 1]}",
     "a factor of 0 for pair 1 of a rope"},
    {"\"rope_theta\": 0", "a rope of 8 dimensions and base 0"},
    {"\"partial_rotary_factor\": 0.1", "a rope of 0 dimensions"},
    {"\"partial_rotary_factor\": 2", "partial_rotary_factor: 2 is not within 0 and 1"},
};

START_TEST(a_setting_that_cannot_be_evaluated_is_named) {
  char text[2048];
  qn__config *c;
  snprintf(text, sizeof text, base, wrong[_i].settings, ", "); /* of two keys of one name the first is read */
  put_text("config.json", text);
  put_tensors("model.safetensors", (qn_save[]){tensor("model.embed_tokens.weight", "F16", 8, 32)}, 1);
  qn_model *m = open_folder();
  ck_assert_int_eq(qn__config_read(m, &c), QN_E_FORMAT);
  ck_assert_ptr_null(c);
  ck_assert_msg(strstr(qn__errmsg(), wrong[_i].expected) != NULL, "%s: %s", wrong[_i].settings, qn__errmsg());
  qn_model_close(m);
}
END_TEST

START_TEST(weights_alone_are_refused) {
  qn__config *c;
  qn_model *m;
  put_tensors("model.safetensors", (qn_save[]){tensor("model.embed_tokens.weight", "F16", 8, 32)}, 1);
  ck_assert_int_eq(qn_model_open(in_folder("model.safetensors"), &m), QN_OK);
  ck_assert_int_eq(qn__config_read(m, &c), QN_E_FORMAT);
  ck_assert_msg(strstr(qn__errmsg(), "no config.json beside the weights") != NULL, "%s", qn__errmsg());
  qn_model_close(m);
}
END_TEST

/* ---- Tensors that are refused ------------------------------------------------------------------------------------ */

/* Changes to a checkpoint's tensors. `drop` is left out; `add` is one more; names begin with `prefix` in place of
 * "model.", of all but the head. expected NULL: all is found. */
static const struct {
  const char *model, *drop, *prefix;
  qn_save add;
  const char *expected;
} changes[] = {
    {"llama", NULL, "model.language_model.", {"model.visual.layers.0.a.weight", "F16", 2, {2, 2}, zeros}, NULL},
    {"llama", NULL, "language_model.model.", {"mtp.layers.0.a.weight", "F16", 2, {2, 2}, zeros}, NULL},
    {"llama", NULL, NULL, {"model.layers.1.self_attn.rotary_emb.inv_freq", "F32", 1, {8}, zeros}, NULL},
    {"llama", NULL, NULL, {"model.layers.2.mlp.up_proj.weight", "F16", 2, {2, 2}, zeros}, NULL}, /* beyond the last */
    {"llama",
     "model.layers.1.mlp.up_proj.weight",
     NULL,
     {0},
     "the model has no tensor model.layers.1.mlp.up_proj.weight or model.layers.1.mlp.gate_up_proj.weight"},
    {"llama", "lm_head.weight", NULL, {0}, "the model has no head"},
    {"llama", "model.norm.weight", NULL, {0}, "the model has no tensor model.norm.weight"},
    {"gemma3", "model.layers.0.pre_feedforward_layernorm.weight", NULL, {0}, "the model has no tensor"},
    {"llama",
     NULL,
     NULL,
     {"model.layers.0.mlp.act.scales", "F32", 1, {32}, zeros},
     "model.layers.0.mlp.act.scales: no parameter of the architecture \"llama\""},
    {"llama",
     "model.layers.0.self_attn.k_proj.weight",
     NULL,
     {"model.layers.0.self_attn.k_proj.weight", "F16", 2, {16, 32}, zeros},
     "k_proj.weight: 1 matrices of 16 x 32; the configuration makes it 32 x 32"},
    {"llama",
     "model.layers.0.self_attn.k_proj.bias",
     NULL,
     {"model.layers.0.self_attn.k_proj.bias", "F16", 1, {16}, zeros},
     "16 elements of F16; 32 floats are expected"},
    {"llama", "model.norm.weight", NULL, {"model.norm.weight", "I32", 1, {32}, zeros}, "32 elements of I32; 32 floats"},
    {"mixtral", "model.layers.1.block_sparse_moe.experts.3.w2.weight", NULL, {0}, "experts.3"},
};

static void put_changed(size_t which) {
  qn_save *save = calloc(256, sizeof *save);
  char(*names)[128] = calloc(256, sizeof *names), from[PATH_MAX];
  qn_model *m = open_file(changes[which].model, "");
  const qn_raw *raw;
  size_t n = 0;
  bool dropped = !changes[which].drop;
  for (size_t i = 0; (raw = qn_model_raw(m, i)); i++) {
    if (changes[which].drop && !strcmp(raw->name, changes[which].drop)) dropped = true;
    else {
      bool renamed = changes[which].prefix && !strncmp(raw->name, "model.", 6);
      snprintf(names[n], sizeof *names, "%s%s", renamed ? changes[which].prefix : "", raw->name + (renamed ? 6 : 0));
      save[n] = (qn_save){names[n], raw->dtype, raw->n_dims, {0}, raw->data};
      memcpy(save[n++].dim, raw->dim, sizeof raw->dim);
    }
  }
  ck_assert_msg(dropped, "%s has no %s", changes[which].model, changes[which].drop);
  if (changes[which].add.name) save[n++] = changes[which].add;
  put_tensors("model.safetensors", save, n);
  snprintf(from, sizeof from, "%s/%s/config.json", arch_models, changes[which].model);
  copy(from, "config.json");
  qn_model_close(m);
  free(names), free(save);
}

START_TEST(tensors_that_do_not_fit_are_named) {
  qn__params *p;
  put_changed((size_t)_i);
  qn_model *m = open_folder();
  qn__config *c = read_config(m);
  qn_status s = qn__params_open(m, c, &p);
  const char *expected = changes[_i].expected;
  ck_assert_msg(expected ? s && !p && strstr(qn__errmsg(), expected) : !s, "%s", s ? qn__errmsg() : "it is accepted");
  qn__params_close(p);
  qn__config_free(c);
  qn_model_close(m);
}
END_TEST

/* ---- Logits ------------------------------------------------------------------------------------------------------ */

static const double margin = 1e-4; /* transformers' sums and ours are both f32, in another order */

static qn_status format_of(void *ud, const char *spelling, qn_format *out) {
  const char *bad = generator_format(spelling, out);
  (void)ud;
  return bad ? qn__fail(QN_E_FORMAT, "%s", bad) : QN_OK;
}

#define OK(call) ck_assert_msg((call) == QN_OK, "%s: %s", #call, qn__errmsg())

/* All tokens at once, or seven and then one after the other. */
static void run(qn__decoder *d, const int32_t *id, int64_t rows, bool cached, float *h) {
  int64_t hidden = qn__decoder_config(d)->hidden;
  qn__session *s;
  if (!cached) {
    OK(qn__decoder_hidden(d, id, 1, rows, h));
    return;
  }
  OK(qn__session_new(d, 1, rows, &s));
  for (int64_t at = 0, n = 7; at < rows; at += n, n = 1) OK(qn__session_step(s, id + at, n, h + at * hidden));
  qn__session_free(s);
}

static void compare(const char *name, const char *file, const char *recorded, bool cached) {
  qn_model *m = open_file(name, file), *e = open_file(name, "expected.safetensors");
  const qn_raw *ids = qn_model_find_raw(e, "ids"), *logits = qn_model_find_raw(e, recorded);
  ck_assert(ids && logits && logits->dim[0] <= ids->dim[0]);
  int64_t rows = logits->dim[0], vocab = logits->dim[1];
  qn__decoder *d;
  OK(qn__decoder_open(m, &(qn__decoder_options){.format = format_of, .threads = 1}, &d));
  float *h = calloc((size_t)(rows * qn__decoder_config(d)->hidden), sizeof *h);
  float *y = calloc((size_t)(rows * vocab), sizeof *y), *right = calloc((size_t)(rows * vocab), sizeof *right);
  int32_t *id = calloc((size_t)rows, sizeof *id);
  memcpy(id, ids->data, (size_t)rows * sizeof *id), memcpy(right, logits->data, logits->bytes);
  run(d, id, rows, cached, h);
  OK(qn__decoder_logits(d, h, rows, y));
  double worst = 0;
  int64_t at = 0;
  for (int64_t i = 0; i < rows * vocab; i++) {
    double off = fabs((double)y[i] - (double)right[i]);
    if (!(off <= worst)) worst = off, at = i;
  }
  ck_assert_msg(worst <= margin, "%s/%s, %s: token %jd, logit %jd is %g, and transformers says %g (%g is allowed)",
                name, file, recorded, (intmax_t)(at / vocab), (intmax_t)(at % vocab), (double)y[at], (double)right[at],
                margin);
  free(h), free(y), free(right), free(id);
  qn__decoder_close(d);
  qn_model_close(e), qn_model_close(m);
}

static bool is_recorded(const char *name, const char *tensor) {
  qn_model *e = open_file(name, "expected.safetensors");
  bool found = qn_model_find_raw(e, tensor);
  qn_model_close(e);
  return found;
}

START_TEST(logits_are_those_of_transformers) {
  const char *name = arch_made[_i].name;
  compare(name, "", "logits", false);
  if (is_recorded(name, "logits.short")) compare(name, "", "logits.short", false); /* within the original context */
}
END_TEST

START_TEST(logits_of_a_gguf_are_the_same) {
  const char *name = arch_made[_i].name;
  if (arch_made[_i].gguf)
    compare(name, "model.gguf", is_recorded(name, "logits.gguf") ? "logits.gguf" : "logits", false);
  if (!strcmp(name, "olmo3")) compare(name, "today.gguf", "logits", false); /* YaRN's scale under another key */
}
END_TEST

START_TEST(logits_with_a_cache_are_the_same) { compare(arch_made[_i].name, "", "logits", true); }
END_TEST

/* ---- Damage ------------------------------------------------------------------------------------------------------ */

enum { ROUNDS = 60, MOST = 1 << 18, HEADER = 2048 };

static size_t slurp(const char *from, uint8_t *to) {
  FILE *f = fopen(from, "rb");
  ck_assert_ptr_nonnull(f);
  size_t n = fread(to, 1, MOST, f);
  ck_assert(n && n < MOST);
  fclose(f);
  return n;
}

static void spill(const char *name, const uint8_t *bytes, size_t n) {
  FILE *f = fopen(in_folder(name), "wb");
  ck_assert(f && fwrite(bytes, 1, n, f) == n && fclose(f) == 0);
}

/* Another digit or letter somewhere in a config.json; another byte in the header of a GGUF. */
static void damage(uint8_t *at, size_t n, bool text) {
  for (int i = 0; i < 3; i++) at[(size_t)rand() % n] = text ? "0123456789-[]{}e,tn\""[rand() % 20] : (uint8_t)rand();
}

static void touch_damaged(const char *name, const char *file, const char *to, const char *open) {
  static uint8_t whole[MOST], changed[MOST];
  char from[PATH_MAX];
  snprintf(from, sizeof from, "%s/%s/%s", arch_models, name, file);
  size_t n = slurp(from, whole);
  for (int round = 0; round < ROUNDS; round++) {
    memcpy(changed, whole, n);
    damage(changed, n < HEADER ? n : HEADER, strstr(file, "json"));
    spill(to, changed, n);
    arch_touch(in_folder(open));
  }
}

START_TEST(damaged_configurations_break_nothing) { /* fuzz_arch searches on */
  char from[PATH_MAX];
  srand(1);
  snprintf(from, sizeof from, "%s/%s/model.safetensors", arch_models, arch_made[_i].name);
  copy(from, "model.safetensors");
  touch_damaged(arch_made[_i].name, "config.json", "config.json", "");
  if (arch_made[_i].old) touch_damaged(arch_made[_i].name, "old.json", "config.json", "");
  if (arch_made[_i].gguf) touch_damaged(arch_made[_i].name, "model.gguf", "x.gguf", "x.gguf");
}
END_TEST

/* The corpus of fuzz_arch. */
static void put_seeds(const char *dir) {
  static uint8_t text[MOST];
  for (size_t i = 0; i < QN_COUNT(arch_made); i++)
    for (int old = 0; old <= arch_made[i].old; old++) {
      char from[PATH_MAX], to[PATH_MAX];
      snprintf(from, sizeof from, "%s/%s/%s.json", arch_models, arch_made[i].name, old ? "old" : "config");
      snprintf(to, sizeof to, "%s/arch-%zu-%d", dir, i, old);
      text[0] = (uint8_t)('a' + i);
      FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
      if (!in || !out) perror(from), exit(2);
      size_t n = fread(text + 1, 1, MOST - 1, in);
      if (fwrite(text, 1, n + 1, out) != n + 1 || fclose(out) || fclose(in)) perror(to), exit(2);
    }
}

int main(int n, char **argv) {
  if (n > 2 && !strcmp(argv[1], "--seeds")) return put_seeds(argv[2]), 0;
  static const suite_case cases[] = {
      CASE(every_parameter_is_found_and_every_tensor_is_one, QN_COUNT(arch_made)),
      CASE(old_spellings_say_the_same, QN_COUNT(arch_made)),
      CASE(the_table_is_tested_whole, 1),
      CASE(a_setting_that_cannot_be_evaluated_is_named, QN_COUNT(wrong)),
      CASE(weights_alone_are_refused, 1),
      CASE(tensors_that_do_not_fit_are_named, QN_COUNT(changes)),
      CASE(logits_are_those_of_transformers, QN_COUNT(arch_made)),
      CASE(logits_of_a_gguf_are_the_same, QN_COUNT(arch_made)),
      CASE(logits_with_a_cache_are_the_same, QN_COUNT(arch_made)),
      CASE(damaged_configurations_break_nothing, QN_COUNT(arch_made)),
  };
  return RUN_CASES(argv[0], cases, setup, teardown, 60);
}
