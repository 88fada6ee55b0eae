/* generate.c - text from a checkpoint, by tuned kernels: generate PACK MODEL [PROMPT [N]]
 *
 * What an engine does with libquernel, in its smallest form: one sequence, greedy, Llama's architecture, from a folder
 * of safetensors or a GGUF file. The prompt goes through the layers at once (prefill, M = its tokens), then each new
 * token alone (decode, M = 1):
 *
 *     x = embedding[token]
 *     every layer:  x += o(attention(q, k, v)),  q, k, v = of rms(x)
 *                   x += down(silu(gate) * up),  gate, up = of rms(x)
 *     token = the largest of head(rms(x))
 *
 * The seven matrices of a layer and the head are weights of the pack's problems. A vocabulary of 256 is bytes, and the
 * prompt a text; else the prompt is token ids, "1,2,3", as an engine's tokenizer gives them. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include "quernel.h"
#include "quernel_io.h"
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { bytes = 256 }; /* tokens of a vocabulary of bytes */

static _Noreturn void fail(const char *what, const char *why) {
  fprintf(stderr, "generate: %s: %s\n", what, why);
  exit(1);
}

static void *need(size_t size) {
  void *p = aligned_alloc(256, (size + 256) / 256 * 256);
  if (!p) fail("memory", "there is not enough");
  return p;
}

static float *floats(int64_t n) { return need((size_t)n * sizeof(float)); }
static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- The model --------------------------------------------------------------------------------------------------- */

/* A matrix that a kernel multiplies by. */
typedef struct linear {
  qn_gemm *gemm;
  qn_weight *weight;
  qn_type in, out;
  int64_t n, k;
} linear;

enum matrix { Q, K, V, O, GATE, UP, DOWN, MATRICES };

typedef struct layer {
  linear *by; /* [MATRICES] */
  float *norm, *norm_mlp;
  float *keys, *values; /* [context, kv_heads * head_dim] */
} layer;

/* Buffers have room for the rows of one pass. */
typedef struct generator {
  qn_context *pack;
  qn_model *model;
  bool gguf;
  char *config; /* config.json; "" of a GGUF */
  const qn_tensor *embedding;
  qn_planes *codes;      /* of the embedding */
  linear *linear, *head; /* those of all layers, and behind them the head */
  layer *layer;
  float *norm;
  int64_t layers, hidden, mlp, vocab, heads, kv_heads, head_dim, context, length; /* length: tokens in the cache */
  double epsilon, theta;
  float *x, *normed, *query, *attended, *gate, *up, *logits, *scores;
  void *in, *out, *workspace, *counters; /* a kernel's X and Y in its types, and what it asks for */
} generator;

/* ---- Reading it -------------------------------------------------------------------------------------------------- */

/* What a thing is called in a folder of safetensors, and in a GGUF file. */
typedef struct name {
  const char *folder, *gguf;
} name;

static const name matrices[MATRICES] = {
    {"self_attn.q_proj", "attn_q"},      {"self_attn.k_proj", "attn_k"}, {"self_attn.v_proj", "attn_v"},
    {"self_attn.o_proj", "attn_output"}, {"mlp.gate_proj", "ffn_gate"},  {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
};

/* The tensor, of a layer or, with layer -1, of the model. NULL: there is none. */
static const qn_tensor *find(const generator *g, int64_t i, name n) {
  char text[128] = "";
  if (i >= 0) snprintf(text, sizeof text, "%s.%d.", g->gguf ? "blk" : "model.layers", (int)i);
  snprintf(text + strlen(text), sizeof text - strlen(text), "%s.weight", g->gguf ? n.gguf : n.folder);
  return qn_model_find(g->model, text);
}

/* A number of config.json, wherever it stands there, or of the GGUF's header. */
static double setting(const generator *g, name n, double otherwise) {
  char key[96];
  if (g->gguf) snprintf(key, sizeof key, "llama.%s", n.gguf);
  else snprintf(key, sizeof key, "\"%s\":", n.folder);
  const qn_meta *m = g->gguf ? qn_model_find_meta(g->model, key) : NULL;
  const char *at = g->gguf ? NULL : strstr(g->config, key);
  double value = m ? m->number : at ? atof(at + strlen(key)) : 0;
  return value > 0 ? value : otherwise;
}

static float *vector(const qn_tensor *t, int64_t n) {
  if (!t || t->raw->n_dims != 1 || t->raw->dim[0] != n) fail(t ? t->name : "norm", "not there, or of another length");
  float *v = floats(n);
  if (qn_convert(t->raw->data, t->raw->type, v, QN_T_F32, (size_t)n)) fail(t->name, qn_errmsg());
  return v;
}

/* Bind the problem of a matrix and prepack it. The planes are not needed after that. */
static linear load(const generator *g, const qn_tensor *t, int64_t n, int64_t k) {
  linear l = {.n = n, .k = k};
  qn_planes *planes;
  char problem[128], in[16] = "", out[16] = "";
  if (!t || !t->format) fail(t ? t->name : "a matrix of Llama", t && t->refusal ? t->refusal : "not in this model");
  if (t->n != n || t->k != k) fail(t->name, "its shape is not what the others and the settings make it");
  snprintf(problem, sizeof problem, "%.*s.bias", (int)(strlen(t->name) - strlen(".weight")), t->name);
  if (qn_model_find_raw(g->model, problem)) fail(problem, "this example adds no bias");
  snprintf(problem, sizeof problem, "%s:%lldx%lld", t->format, (long long)n, (long long)k);
  if (qn_model_planes(g->model, t, 0, &planes)) fail(t->name, qn_io_errmsg());
  if (qn_bind(g->pack, problem, &l.gemm) || qn_prepack(l.gemm, planes, &l.weight)) fail(problem, qn_errmsg());
  qn_planes_free(planes);
  sscanf(qn_gemm_problem(l.gemm), "%*[^:]:%*[^:]:%15[^-~]%*[^-]", in); /* f32~i8-f32: X in f32, rounded in the call */
  sscanf(strrchr(qn_gemm_problem(l.gemm), '-'), "-%15[^+]", out);
  l.in = qn_type_from_name(in), l.out = qn_type_from_name(out);
  return l;
}

static float element(const qn_plane *p, int64_t i) {
  float f;
  if (p->type == QN_T_U8) return ((const uint8_t *)p->data)[i];
  qn_convert((const char *)p->data + i * (qn_type_bits(p->type) / 8), p->type, &f, QN_T_F32, 1);
  return f;
}

/* The row of a token: of a type that needs no decoding, or (code - zero) * scale + min. */
static void embed(const generator *g, int32_t token, float *x) {
  const qn_raw *raw = g->embedding->raw;
  size_t row = (size_t)g->hidden;
  if (!g->embedding->quantized) {
    const char *from = (const char *)raw->data + (size_t)token * row * (size_t)(qn_type_bits(raw->type) / 8);
    qn_convert(from, raw->type, x, QN_T_F32, row);
    return;
  }
  const qn_plane *codes = qn_planes_find(g->codes, "codes"), *scale = qn_planes_find(g->codes, "scale"),
                 *zero = qn_planes_find(g->codes, "zero"), *min = qn_planes_find(g->codes, "min");
  float middle = min ? 0 : (float)(1 << (atoi(g->embedding->format + 3) - 1));
  for (int64_t k = 0; k < g->hidden; k++) {
    int64_t at = token * scale->cols + k * scale->cols / g->hidden;
    float code = element(codes, token * g->hidden + k) - (zero ? element(zero, at) : middle);
    x[k] = code * element(scale, at) + (min ? element(min, at) : 0);
  }
}

static void open_embedding(generator *g) {
  const qn_tensor *t = g->embedding = find(g, -1, (name){"model.embed_tokens", "token_embd"});
  if (!t || !t->format) fail("embedding", t && t->refusal ? t->refusal : "not in this model");
  if (t->quantized && strncmp(t->format, "int", 3)) fail(t->name, "this example decodes no embedding in this format");
  if (t->quantized && qn_model_planes(g->model, t, 0, &g->codes)) fail(t->name, qn_io_errmsg());
  g->vocab = t->n, g->hidden = t->k;
}

static void open_settings(generator *g) {
  g->heads = (int64_t)setting(g, (name){"num_attention_heads", "attention.head_count"}, 0);
  if (g->heads < 1) fail("settings", "the number of heads is not in the model");
  g->kv_heads = (int64_t)setting(g, (name){"num_key_value_heads", "attention.head_count_kv"}, (double)g->heads);
  g->head_dim = (int64_t)setting(g, (name){"head_dim", "attention.key_length"}, 0);
  if (!g->head_dim) g->head_dim = g->hidden / g->heads;
  g->epsilon = setting(g, (name){"rms_norm_eps", "attention.layer_norm_rms_epsilon"}, 1e-5);
  g->theta = setting(g, (name){"rope_theta", "rope.freq_base"}, 1e4);
  if (setting(g, (name){"factor", "rope.scaling.factor"}, 1) > 1)
    fail("settings", "this example stretches no positions");
}

static void open_layer(const generator *g, int64_t i, layer *l) {
  const int64_t all = g->heads * g->head_dim, kv = g->kv_heads * g->head_dim;
  const int64_t n[MATRICES] = {all, kv, kv, g->hidden, g->mlp, g->mlp, g->hidden};
  const int64_t k[MATRICES] = {g->hidden, g->hidden, g->hidden, all, g->hidden, g->hidden, g->mlp};
  l->by = g->linear + i * MATRICES;
  for (int j = 0; j < MATRICES; j++) l->by[j] = load(g, find(g, i, matrices[j]), n[j], k[j]);
  l->norm = vector(find(g, i, (name){"input_layernorm", "attn_norm"}), g->hidden);
  l->norm_mlp = vector(find(g, i, (name){"post_attention_layernorm", "ffn_norm"}), g->hidden);
  l->keys = floats(g->context * kv), l->values = floats(g->context * kv);
}

static void open_model(generator *g, const char *pack, const char *model) {
  char err[512];
  if (qn_open(pack, NULL, &g->pack, err, sizeof err)) fail(pack, err);
  if (qn_model_open(model, &g->model)) fail(model, qn_io_errmsg());
  const qn_meta *architecture = qn_model_find_meta(g->model, "general.architecture");
  size_t length = 0;
  const char *config = qn_model_config(g->model, &length);
  g->gguf = architecture;
  g->config = memcpy(memset(need(length + 1), 0, length + 1), config ? config : "", length);
  char type[16] = "", *said = strstr(g->config, "\"model_type\"");
  if (said) sscanf(said, "\"model_type\" : \"%15[^\"]", type);
  if (g->gguf ? architecture->count != 5 || memcmp(architecture->data, "llama", 5) : strcmp(type, "llama") != 0)
    fail(model, "this example knows Llama's architecture alone");
  open_embedding(g);
  open_settings(g);
}

static void open_layers(generator *g) {
  const qn_tensor *up = find(g, 0, matrices[UP]), *head = find(g, -1, (name){"lm_head", "output"});
  if (!up) fail("layer 0", "it has no up projection");
  while (find(g, g->layers, matrices[Q])) g->layers++;
  g->mlp = up->n;
  g->layer = need((size_t)g->layers * sizeof *g->layer);
  g->linear = need((size_t)(g->layers * MATRICES + 1) * sizeof *g->linear);
  g->head = g->linear + g->layers * MATRICES;
  for (int64_t i = 0; i < g->layers; i++) open_layer(g, i, &g->layer[i]);
  g->norm = vector(find(g, -1, (name){"model.norm", "output_norm"}), g->hidden);
  *g->head = load(g, head ? head : g->embedding, g->vocab, g->hidden); /* tied: the embedding is the head */
}

/* ---- Running it -------------------------------------------------------------------------------------------------- */

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* Room for passes of so many rows; all kernels share it, one after the other. */
static void make_room(generator *g, int64_t rows) {
  const int64_t all = g->heads * g->head_dim;
  size_t workspace = 0, counters = 0, widest = 0;
  for (const linear *l = g->linear; l <= g->head; l++) {
    workspace = larger(workspace, qn_gemm_workspace(l->gemm, rows));
    counters = larger(counters, qn_gemm_counters(l->gemm, rows));
    widest = larger(widest, larger((size_t)l->n, (size_t)l->k));
  }
  g->x = floats(rows * g->hidden), g->normed = floats(rows * g->hidden);
  g->query = floats(rows * all), g->attended = floats(rows * all);
  g->gate = floats(rows * g->mlp), g->up = floats(rows * g->mlp);
  g->logits = floats(g->vocab), g->scores = floats(g->context);
  g->in = floats(rows * (int64_t)widest), g->out = floats(rows * (int64_t)widest);
  g->workspace = need(workspace), g->counters = memset(need(counters), 0, counters);
}

/* y[m,n] = x[m,k] . W^T, by way of the kernel's types. */
static void multiply(const generator *g, const linear *l, const float *x, int64_t m, float *y) {
  const bool as_is = l->in == QN_T_F32, direct = l->out == QN_T_F32;
  qn_args a = {.x = as_is ? (const void *)x : g->in, .y = direct ? y : g->out, .m = m};
  a.workspace = g->workspace, a.counters = g->counters;
  if ((!as_is && qn_convert(x, QN_T_F32, g->in, l->in, (size_t)(m * l->k))) || qn_run(l->gemm, l->weight, &a) ||
      (!direct && qn_convert(g->out, l->out, y, QN_T_F32, (size_t)(m * l->n))))
    fail(qn_gemm_problem(l->gemm), qn_errmsg());
}

static void rms(const generator *g, const float *x, const float *weight, int64_t rows, float *y) {
  for (int64_t r = 0; r < rows; r++, x += g->hidden, y += g->hidden) {
    double sum = 0;
    for (int64_t i = 0; i < g->hidden; i++) sum += (double)x[i] * (double)x[i];
    float scale = (float)(1 / sqrt(sum / (double)g->hidden + g->epsilon));
    for (int64_t i = 0; i < g->hidden; i++) y[i] = x[i] * scale * weight[i];
  }
}

/* Turn the heads of a row by its position. Pairs are half a head apart; in a GGUF the rows of q and k were put in an
 * order in which they are neighbours. */
static void rotate(const generator *g, float *row, int64_t heads, int64_t position) {
  const int64_t half = g->head_dim / 2, step = g->gguf ? 2 : 1, apart = g->gguf ? 1 : half;
  for (int64_t i = 0; i < half; i++) {
    float angle = (float)position / powf((float)g->theta, (float)(2 * i) / (float)g->head_dim);
    float c = cosf(angle), s = sinf(angle);
    for (int64_t h = 0; h < heads; h++) {
      float *p = row + h * g->head_dim + i * step, a = p[0], b = p[apart];
      p[0] = a * c - b * s, p[apart] = b * c + a * s;
    }
  }
}

/* One head of the query at `position` over the keys and values up to there. */
static void attend(const generator *g, const layer *l, const float *query, int64_t head, int64_t position, float *out) {
  const int64_t stride = g->kv_heads * g->head_dim, at = head / (g->heads / g->kv_heads) * g->head_dim;
  const float scale = 1 / sqrtf((float)g->head_dim);
  float most = -INFINITY, sum = 0;
  for (int64_t t = 0; t <= position; t++) {
    float dot = 0;
    for (int64_t i = 0; i < g->head_dim; i++) dot += query[i] * l->keys[t * stride + at + i];
    g->scores[t] = dot * scale;
    most = fmaxf(most, g->scores[t]);
  }
  memset(out, 0, (size_t)g->head_dim * sizeof *out);
  for (int64_t t = 0; t <= position; t++) {
    float p = expf(g->scores[t] - most);
    sum += p;
    for (int64_t i = 0; i < g->head_dim; i++) out[i] += p * l->values[t * stride + at + i];
  }
  for (int64_t i = 0; i < g->head_dim; i++) out[i] /= sum;
}

static void run_attention(const generator *g, const layer *l, int64_t rows) {
  const int64_t all = g->heads * g->head_dim, kv = g->kv_heads * g->head_dim;
  float *keys = l->keys + g->length * kv, *values = l->values + g->length * kv;
  rms(g, g->x, l->norm, rows, g->normed);
  multiply(g, &l->by[Q], g->normed, rows, g->query);
  multiply(g, &l->by[K], g->normed, rows, keys); /* right into the cache */
  multiply(g, &l->by[V], g->normed, rows, values);
  for (int64_t r = 0; r < rows; r++) {
    rotate(g, g->query + r * all, g->heads, g->length + r);
    rotate(g, keys + r * kv, g->kv_heads, g->length + r);
  }
  for (int64_t r = 0; r < rows; r++)
    for (int64_t h = 0; h < g->heads; h++) {
      const int64_t at = r * all + h * g->head_dim;
      attend(g, l, g->query + at, h, g->length + r, g->attended + at);
    }
  multiply(g, &l->by[O], g->attended, rows, g->normed);
  for (int64_t i = 0; i < rows * g->hidden; i++) g->x[i] += g->normed[i];
}

static void run_mlp(const generator *g, const layer *l, int64_t rows) {
  rms(g, g->x, l->norm_mlp, rows, g->normed);
  multiply(g, &l->by[GATE], g->normed, rows, g->gate);
  multiply(g, &l->by[UP], g->normed, rows, g->up);
  for (int64_t i = 0; i < rows * g->mlp; i++) g->up[i] *= g->gate[i] / (1 + expf(-g->gate[i]));
  multiply(g, &l->by[DOWN], g->up, rows, g->normed);
  for (int64_t i = 0; i < rows * g->hidden; i++) g->x[i] += g->normed[i];
}

/* Append tokens to the sequence; returns the one that follows. */
static int32_t step(generator *g, const int32_t *token, int64_t rows) {
  int32_t best = 0;
  for (int64_t r = 0; r < rows; r++) embed(g, token[r], g->x + r * g->hidden);
  for (int64_t i = 0; i < g->layers; i++) {
    run_attention(g, &g->layer[i], rows);
    run_mlp(g, &g->layer[i], rows);
  }
  g->length += rows;
  rms(g, g->x + (rows - 1) * g->hidden, g->norm, 1, g->normed);
  multiply(g, g->head, g->normed, 1, g->logits);
  for (int32_t i = 1; i < g->vocab; i++)
    if (g->logits[i] > g->logits[best]) best = i;
  return best;
}

/* ---- The program ------------------------------------------------------------------------------------------------- */

/* Bytes of a text, or the ids that it lists. */
static int64_t read_prompt(const generator *g, const char *text, int32_t *token) {
  int64_t n = 0;
  if (g->vocab == bytes) {
    for (; text[n]; n++) token[n] = (unsigned char)text[n];
    return n;
  }
  for (char *end; *text; text = *end == ',' ? end + 1 : end) {
    long id = strtol(text, &end, 10);
    if (end == text || id < 0 || id >= g->vocab) fail(text, "no token id of this model");
    token[n++] = (int32_t)id;
  }
  return n;
}

static void close_model(generator *g) {
  for (linear *l = g->linear; l <= g->head; l++) qn_weight_free(l->weight), qn_gemm_free(l->gemm);
  for (layer *l = g->layer; l < g->layer + g->layers; l++)
    free(l->norm), free(l->norm_mlp), free(l->keys), free(l->values);
  void *const rest[] = {g->config, g->linear, g->layer,  g->norm,   g->x,  g->normed, g->query,     g->attended,
                        g->gate,   g->up,     g->logits, g->scores, g->in, g->out,    g->workspace, g->counters};
  for (size_t i = 0; i < sizeof rest / sizeof *rest; i++) free(rest[i]);
  qn_planes_free(g->codes), qn_model_close(g->model), qn_close(g->pack);
}

int main(int argc, char **argv) {
  generator g = {0};
  if (argc < 3) return fprintf(stderr, "usage: generate PACK MODEL [PROMPT [N]]\n"), 2;
  open_model(&g, argv[1], argv[2]);

  const char *prompt = argc > 3 ? argv[3] : g.vocab == bytes ? "In the beginning " : "1";
  const int64_t wanted = argc > 4 ? atoll(argv[4]) : 100;
  int32_t *token = need((strlen(prompt) + 1) * sizeof *token);
  const int64_t n = read_prompt(&g, prompt, token);
  if (n < 1) fail("prompt", "it is empty");
  if (wanted < 1 || wanted > 1 << 20) fail(argv[4], "N must be in 1 .. 1048576");
  g.context = n + wanted;
  open_layers(&g);
  make_room(&g, n);

  double start = now();
  int32_t next = step(&g, token, n);
  double prefill = now() - start;
  start = now();
  for (int64_t i = 0; i < wanted; i++) {
    printf(g.vocab == bytes ? "%c" : "%d ", next);
    fflush(stdout);
    if (i + 1 < wanted) next = step(&g, &next, 1);
  }
  double decode = now() - start;
  putchar('\n');
  fprintf(stderr, "prompt: %lld tokens, %.0f tokens/s; then %lld tokens, %.0f tokens/s\n", (long long)n,
          (double)n / prefill, (long long)wanted, (double)(wanted - 1) / decode);
  close_model(&g), free(token);
  return 0;
}
