/* arch.c - the table of architectures. A row says only what differs from Llama; what is a number of the model itself is
 * in its file, and read by config_read.c. */
#include "arch.h"
#include "fail.h"
#include <stdio.h>
#include <string.h>

/* What Gemma 3's multimodal checkpoints leave out: it is that of the 4B. */
#define GEMMA3                                                                                                         \
  {QN_S_HEADS, 8}, {QN_S_KV_HEADS, 4}, {QN_S_HEAD_DIM, 256}, { QN_S_EPS, 1e-6 }

static const qn__arch table[] = {
    {{"llama"}, {"llama"}, .gguf_pairs = true}, /* in a GGUF Mistral and Mixtral are "llama", too */
    {{"mistral", "ministral", "mixtral"}, .sliding = QN_SLIDING_ALL},
    {{"qwen2", "qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text"},
     {"qwen2", "qwen2vl"},
     .sliding = QN_SLIDING_FROM,
     .standard = {{QN_S_USE_WINDOW, 0}}},
    {{"qwen3", "qwen3_vl_text"},
     {"qwen3", "qwen3vl"},
     .qk_norm = QN_QK_HEAD,
     .sliding = QN_SLIDING_FROM,
     .standard = {{QN_S_USE_WINDOW, 0}, {QN_S_HEAD_DIM, 128}}},
    {{"qwen3_moe", "qwen3_vl_moe_text"},
     {"qwen3moe", "qwen3vlmoe"},
     .qk_norm = QN_QK_HEAD,
     .sliding = QN_SLIDING_ALL,
     .standard = {{QN_S_USE_WINDOW, 0}}},
    {{"qwen3_next"},
     {"qwen3next"},
     .plus_one = true,
     .qk_norm = QN_QK_HEAD,
     .gated = true,
     .delta = true,
     .standard = {{QN_S_ROPE_SHARE, .25}, {QN_S_FULL_PERIOD, 4}}},
    {{"qwen3_5_text", "qwen3_5", "qwen3_5_moe_text", "qwen3_5_moe"},
     {"qwen35", "qwen35moe"},
     .plus_one = true,
     .qk_norm = QN_QK_HEAD,
     .gated = true,
     .delta = true,
     .gguf_tiled = true,
     .standard = {{QN_S_ROPE_SHARE, .25}, {QN_S_FULL_PERIOD, 4}}},
    {{"gemma2"},
     {"gemma2"},
     .norm_out = true,
     .plus_one = true,
     .activation = QN_ACT_GELU_TANH,
     .embed_root = true,
     .sliding = QN_SLIDING_MOST,
     .gguf_query = {46, 144}, /* the 27B */
     .standard = {{QN_S_QUERY_SCALAR, 256},
                  {QN_S_WINDOW, 4096},
                  {QN_S_WINDOW_PERIOD, 2},
                  {QN_S_ATTENTION_CAP, 50},
                  {QN_S_LOGIT_CAP, 30}}},
    {{"gemma3_text", "gemma3"},
     {"gemma3"},
     .norm_out = true,
     .plus_one = true,
     .qk_norm = QN_QK_HEAD,
     .activation = QN_ACT_GELU_TANH,
     .embed_root = true,
     .local_rope = true,
     .sliding = QN_SLIDING_MOST,
     .gguf_query = {62, 168}, /* the 27B */
     .standard = {GEMMA3,
                  {QN_S_QUERY_SCALAR, 256},
                  {QN_S_WINDOW, 4096},
                  {QN_S_WINDOW_PERIOD, 6},
                  {QN_S_ROPE_THETA, 1e6},
                  {QN_S_ROPE_LOCAL_THETA, 1e4}}},
    {{"phi3"}, {"phi3"}, .sliding = QN_SLIDING_ALL},
    {{"granite"}, {"granite"}, .gguf_pairs = true},
    {{"olmo2", "olmo3"}, /* in a GGUF OLMo 3 is "olmo2", too */
     {"olmo2"},
     .norm_out = true,
     .no_norm_in = true,
     .qk_norm = QN_QK_ALL,
     .local_rope = true,
     .gguf_attention = true,
     .sliding = QN_SLIDING_MOST,
     .standard = {{QN_S_WINDOW_PERIOD, 4}, {QN_S_ROPE_THETA, 5e5}}},
    {{"smollm3"},
     {"smollm3"},
     .gguf_pairs = true,
     .standard = {{QN_S_USE_WINDOW, 0}, {QN_S_NO_ROPE_PERIOD, 4}, {QN_S_ROPE_THETA, 2e6}}},
    {{"gpt_oss"},
     {"gpt-oss"},
     .clamped = true,
     .sinks = true,
     .sliding = QN_SLIDING_MOST,
     .standard = {{QN_S_WINDOW_PERIOD, 2}, {QN_S_LIMIT, 7}, {QN_S_ROPE_THETA, 15e4}, {QN_S_ROPE_TRUNCATE, 0}}},
};

/* What people run and we refuse by name, and why. */
static const struct {
  const char *type, *why;
} refused[] = {
    {"gemma3n", "embeddings of each layer"},
    {"gemma4", "heads of several sizes, and layers that share keys"},
    {"deepseek", "latent attention"},
    {"glm", "routers with groups and a bias of their own"},
    {"minimax", "routers with a bias of their own"},
    {"llama4", "attention in chunks"},
};

const qn__arch *qn__arch_at(size_t i) { return i < QN_COUNT(table) ? &table[i] : NULL; }

/* The k-th name of a row, as config.json or a GGUF has it. */
static const char *name_of(const qn__arch *a, bool gguf, size_t k) {
  size_t n = gguf ? QN_COUNT(a->gguf) : QN_COUNT(a->type);
  return k >= n ? NULL : gguf ? a->gguf[k] : a->type[k];
}

/* Names that are known, separated by commas. */
static void list_names(bool gguf, char *out, size_t cap) {
  const char *name;
  *out = 0;
  for (size_t i = 0, at = 0; i < QN_COUNT(table); i++)
    for (size_t k = 0; at < cap && (name = name_of(&table[i], gguf, k)); k++)
      at += (size_t)snprintf(out + at, cap - at, "%s%s", at ? ", " : "", name);
}

qn_status qn__arch_find(const char *name, bool gguf, const qn__arch **out, const char **known) {
  char list[1024];
  for (size_t i = 0; i < QN_COUNT(table); i++)
    for (size_t k = 0; (*known = name_of(*out = &table[i], gguf, k)); k++)
      if (!strcmp(*known, name)) return QN_OK;
  list_names(gguf, list, sizeof list);
  *out = NULL;
  for (size_t i = 0; i < QN_COUNT(refused); i++)
    if (!strncmp(name, refused[i].type, strlen(refused[i].type)))
      return qn__fail(QN_E_FORMAT, "architecture \"%s\" cannot be evaluated yet (%s); those that can: %s", name,
                      refused[i].why, list);
  return qn__fail(QN_E_FORMAT, "architecture \"%s\" is not known; those that can be evaluated: %s", name, list);
}
