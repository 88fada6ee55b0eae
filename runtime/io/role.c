/* role.c - what a weight is for, told by its name: what multiplies activations is tuned and quantized, else nothing;
 * and which of them read the same X. */
#include "model.h"
#include <stdio.h>
#include <string.h>

/* A name is a path of modules: the last one of "model.layers.0.mlp.up_proj.weight" is "up_proj". */
typedef enum place {
  STARTS,       /* the name begins with the word */
  A_MODULE,     /* some module begins with it */
  LAST_HAS,     /* the last module contains it */
  LAST_IS,      /* the last module is it */
  LAST_IS_FLAT, /* and there are fewer rows than columns */
} place;

static const char tower[] = "vision, audio";

static const struct {
  const char *role, *word;
  place place;
} roles[] = {
    {tower, "vision", A_MODULE},
    {tower, "visual", A_MODULE},
    {tower, "audio", A_MODULE},
    {tower, "image", A_MODULE},
    {tower, "img_", A_MODULE},
    {tower, "speech", A_MODULE},
    {tower, "multi_modal", A_MODULE},
    {tower, "multimodal", A_MODULE},
    {tower, "mm_", A_MODULE},
    {tower, "vpm", A_MODULE},
    {tower, "apm", A_MODULE},
    {tower, "resampler", A_MODULE},
    {tower, "patch_merger", A_MODULE},
    {tower, "connector", A_MODULE},
    {tower, "aligner", A_MODULE},
    {tower, "projector", A_MODULE},
    {tower, "mlp1.", STARTS}, /* InternVL's projector */
    {tower, "embed_vision", A_MODULE},
    {tower, "embed_audio", A_MODULE},
    {tower, "token2wav", A_MODULE},
    {tower, "code2wav", A_MODULE},
    {tower, "v.blk.", STARTS}, /* a GGUF's */
    {tower, "a.blk.", STARTS},
    {tower, "mm.", STARTS},
    {"adapter", "lora_", A_MODULE},
    {"router", "router", A_MODULE},
    {"router", "router", LAST_HAS},
    {"router", "gate", LAST_IS_FLAT},
    {"router", "wg", LAST_IS_FLAT},
    {"router", "gate_inp", LAST_HAS},
    {"router", "shared_expert_gate", LAST_IS},
    {"head", "lm_head", LAST_IS},
    {"head", "embed_out", LAST_IS},
    {"head", "output_layer", LAST_IS},
    {"head", "head", LAST_IS},
    {"head", "output.weight", STARTS},
    {"head", "language_model.output.weight", STARTS},    /* InternLM2 */
    {"head", "model.transformer.ff_out.weight", STARTS}, /* OLMo, Molmo */
    {"head", "proj_out.weight", STARTS},                 /* Whisper */
    {"embedding", "embed", LAST_HAS},
    {"embedding", "token_embd", LAST_HAS},
    {"embedding", "token_type", LAST_HAS},
    {"embedding", "position", LAST_HAS},
    {"embedding", "pos_emb", LAST_HAS},
    {"embedding", "rel_pos", LAST_HAS},
    {"embedding", "attention_bias", LAST_HAS},
    {"embedding", "wte", LAST_IS},
    {"embedding", "wpe", LAST_IS},
    {"embedding", "shared", LAST_IS}, /* T5 */
    {"norm", "norm", LAST_HAS},
    {"norm", "ln_", LAST_HAS},
    {"convolution", "conv", LAST_HAS},
    {"table", "rope", LAST_HAS},
    {"table", "rotary", A_MODULE},
};

static bool ends_with(const char *s, size_t n, const char *tail) {
  size_t t = strlen(tail);
  return n >= t && !memcmp(s + n - t, tail, t);
}

/* The last module of a name; *length of it. */
static const char *last_module(const char *name, size_t *length) {
  size_t n = strlen(name);
  if (ends_with(name, n, ".weight")) n -= strlen(".weight");
  size_t at = n;
  while (at && name[at - 1] != '.') at--;
  *length = n - at;
  return name + at;
}

static bool is_at(const char *name, const char *word, place where, const qn_tensor *t) {
  size_t k = strlen(word), n;
  const char *last = last_module(name, &n), *found = strstr(last, word);
  if (where == STARTS) return !strncmp(name, word, k);
  if (where == LAST_HAS) return found && (size_t)(found - last) + k <= n;
  if (where != A_MODULE) return n == k && found == last && (where == LAST_IS || t->n < t->k);
  for (const char *at = strstr(name, word); at; at = strstr(at + 1, word))
    if (at == name || at[-1] == '.') return true;
  return false;
}

const char *qn__role(const qn_tensor *t, bool matrix) {
  for (size_t i = 0; i < QN_COUNT(roles); i++)
    if (is_at(t->name, roles[i].word, roles[i].place, t)) return roles[i].role;
  if (t->refusal) return "linear";
  if (!matrix || t->n == 1 || t->k == 1) return "vector";
  if (t->slices > 1) return "linear"; /* experts may be parameters of a module */
  return ends_with(t->name, strlen(t->name), "weight") ? "linear" : "parameter"; /* Mamba's A_log */
}

bool qn__is_linear(const qn_tensor *t) { return !strcmp(t->role, "linear") || qn__is_head(t); }
bool qn__is_head(const qn_tensor *t) { return !strcmp(t->role, "head"); }

bool qn__is_embedding(const qn_tensor *t) { /* of tokens */
  static const char *const names[] = {"embed_tokens",    "token_embd", "wte",        "tok_embeddings", "embed_in",
                                      "word_embeddings", "embedding",  "embeddings", "shared"};
  for (size_t i = 0; i < QN_COUNT(names); i++)
    if (is_at(t->name, names[i], LAST_IS, t)) return !strcmp(t->role, "embedding");
  return false;
}

/* ---- Weights that read the same X -------------------------------------------------------------------------------- */

enum { TOGETHER = 3 };

/* Their last modules; those of a GGUF below. */
static const char *const readers[][TOGETHER] = {
    {"q_proj", "k_proj", "v_proj"},
    {"gate_proj", "up_proj"},
    {"attn_q", "attn_k", "attn_v"},
    {"ffn_gate", "ffn_up"},
};

/* The weight whose name differs from that of `t` in its last module, if both can be one matrix. */
static qn_tensor *beside(const qn_model *m, const qn_tensor *t, const char *module) {
  char name[4200]; /* containers refuse names over 4 kB */
  size_t length;
  const char *last = last_module(t->name, &length);
  int n = snprintf(name, sizeof name, "%.*s%s%s", (int)(last - t->name), t->name, module, last + length);
  qn_tensor *other = n < (int)sizeof name ? (qn_tensor *)(uintptr_t)(const void *)qn_model_find(m, name) : NULL;
  bool fits = other && t->linear && other->linear && t->format && other->format && !strcmp(t->format, other->format) &&
              t->k == other->k && t->slices == 1 && other->slices == 1;
  return fits ? other : NULL;
}

void qn__find_same_x(const qn_model *m, qn_tensor *t) {
  for (size_t i = 0; i < QN_COUNT(readers); i++) {
    qn_tensor *all[TOGETHER] = {0};
    size_t want = 0, have = 0;
    if (!is_at(t->name, readers[i][0], LAST_IS, t)) continue;
    for (; want < TOGETHER && readers[i][want]; want++)
      if ((all[want] = beside(m, t, readers[i][want]))) have++;
    for (size_t j = 0; have == want && j < want; j++) all[j]->same_x = t->name;
  }
}
