/* test_oom.c - what works in this process while its memory runs out: readers and writers of checkpoints, quantizing,
 * tokenizers, packs, the store, compiling. See oom.h. */
#include "awq.h"
#include "compile.h"
#include "file.h"
#include "hash.h"
#include "heap.h"
#include "json.h"
#include "oom.h"
#include "pack.h"
#include "pack_read.h"
#include "quantize.h"
#include "quernel_io.h"
#include "store.h"
#include "store_tools.h"
#include "text.h"
#include "token_files.h"
#include "tree.h"
#include "vector_files.h"

/* ---- Sweeps ------------------------------------------------------------------------------------------------------ */

/* Do all of it and give everything back; *result tells what came out. */
typedef qn_status (*work)(uint64_t *result);

static void fail_each(const char *subject, work w, size_t most) {
  uint64_t want = 0, have;
  size_t refused = 0;
  rng sample = {seed_of_sample()};
  ck_ok(w(&want)); /* and whatever the C library keeps from now on */
  arm(0, false);
  ck_ok(w(&have));
  size_t total = calls, tries = total < most ? total : most;
  for (size_t i = 0; i < 2 * tries; i++) {
    size_t begin = i / 2 * total / tries, end = (i / 2 + 1) * total / tries;
    size_t at = 1 + begin + below(&sample, (uint32_t)(end - begin));
    long before = live;
    arm(at, i % 2);
    qn_status s = w(&have);
    arm(0, false);
    long left = live - before; /* checks have memory of their own */
    refused += s != QN_OK;
#define AT "%s: allocation %zu of %zu fails%s (QN_SEED=%llu): "
#define OF subject, at, total, i % 2 ? ", and all after it" : "", (unsigned long long)seed_of_sample()
    ck_assert_msg(s == QN_OK || s == QN_E_NOMEM, AT "%s: %s", OF, qn_status_name(s), qn__errmsg());
    ck_assert_msg(s || have == want, AT "something else comes out", OF);
    ck_assert_msg(!left, AT "%ld blocks are not given back", OF, left);
  }
  ck_assert_uint_gt(refused, tries / 2);
  ck_ok(w(&have));
  ck_assert(have == want);
}

/* Mix bytes into a result. */
static void mix(uint64_t *result, const void *data, size_t size) {
  uint64_t sum[2];
  _Static_assert(sizeof sum == QN_HASH_BYTES, "hash");
  qn__hash128(data, size, (uint8_t *)sum);
  *result = *result * 31 + sum[0];
}

/* ---- Readers and writers ----------------------------------------------------------------------------------------- */

static char path[128];

/* The planes of the first few weights. */
static qn_status read_planes(const qn_model *m, uint64_t *result) {
  const qn_tensor *t;
  for (size_t i = 0, read = 0; (t = qn_model_tensor(m, i)) && read < 3; i++) {
    qn_planes *p;
    if (!t->format || !t->quantized) continue;
    read++;
    QN_TRY(qn_model_planes(m, t, 0, &p));
    for (int j = 0; j < p->n_planes; j++) {
      const qn_plane *x = &p->plane[j];
      mix(result, x->data, (size_t)(x->rows * x->cols * qn_type_bits(x->type) / 8));
    }
    qn_planes_free(p);
  }
  return QN_OK;
}

static qn_status read_model(uint64_t *result) {
  qn_model *m;
  *result = 0;
  QN_TRY(qn_model_open(path, &m));
  qn_status s = read_planes(m, result);
  const qn_tensor *t;
  for (size_t i = 0; (t = qn_model_tensor(m, i)); i++) { /* what is read, and what is refused and why */
    const char *say = t->format ? t->format : t->refusal ? t->refusal : t->name;
    mix(result, say, strlen(say));
  }
  qn_model_close(m);
  return s;
}

static const char *const models[] = {"tiny-llama", "tiny-llama-gptq4-act", "tiny-llama-q4_k_m.gguf"};

START_TEST(test_models) {
  snprintf(path, sizeof path, QN_TESTS "/models/%s", models[_i]);
  fail_each(path, read_model, 200);
}
END_TEST

/* One file of each dialect. */
START_TEST(test_dialects) {
  cJSON *root = vector_file(_i ? QN_TESTS "/vectors/twin_vectors.json" : QN_TESTS "/vectors/format_vectors.json");
  const cJSON *v;
  char last[64] = "";
  ck_assert_ptr_nonnull(root);
  vector_begin();
  cJSON_ArrayForEach(v, vector_list(root)) {
    const char *format = cJSON_GetObjectItem(v, "format")->valuestring;
    if (!strcmp(format, last)) continue;
    snprintf(last, sizeof last, "%s", format);
    snprintf(path, sizeof path, "%s", vector_write(v));
    fail_each(format, read_model, 100);
  }
  vector_end();
  cJSON_Delete(root);
}
END_TEST

static qn_status write_files(uint64_t *result) {
  static const float x[6] = {1, 2, 3, 4, 5, 6};
  const qn_save save[] = {{.name = "b", .dtype = "F32", .n_dims = 2, .dim = {2, 3}, .data = x},
                          {.name = "a", .dtype = "U8", .n_dims = 1, .dim = {24}, .data = x}};
  const char *const meta[] = {"key", "value"};
  *result = 0;
  QN_TRY(qn_npy_write(path, x, 2, 3));
  return qn_safetensors_write(path, save, 2, meta, 1);
}

START_TEST(test_writers) {
  snprintf(path, sizeof path, "/tmp/qn_oom_%d", (int)getpid());
  fail_each("write_files", write_files, 100);
  unlink(path);
}
END_TEST

/* ---- Quantizing -------------------------------------------------------------------------------------------------- */

static qn_status quantize(uint64_t *result) {
  static float w[16 * 64];
  const qn_format f = make_format(4, 32, true);
  const qn__quantize_options o = {.scales = "mse", .threads = 2};
  qn__quantize_error e;
  qn_planes *p;
  for (int i = 0; i < 16 * 64; i++) w[i] = (float)(i % 37) - 18;
  *result = 0;
  QN_TRY(qn__quantize(&f, w, 16, 64, &o, &p, &e));
  for (int i = 0; i < p->n_planes; i++)
    mix(result, p->plane[i].data, (size_t)(p->plane[i].rows * p->plane[i].cols * qn_type_bits(p->plane[i].type) / 8));
  qn_planes_free(p);
  return QN_OK;
}

START_TEST(test_quantizing) { fail_each("quantize", quantize, 100); }
END_TEST

static qn_status add_inputs(qn__inputs *s) {
  static float x[8 * 64];
  qn_pool *pool;
  for (int i = 0; i < 8 * 64; i++) x[i] = (float)(i % 29 - 14) * (float)(1 + i % 3);
  QN_TRY(qn__pool_new(NULL, 2, &pool));
  qn_status status = qn__inputs_add(s, pool, x, NULL, 8);
  qn__pool_free(pool);
  qn__inputs_finish(s);
  return status;
}

static qn_status search_scale(uint64_t *result) {
  static float w[16 * 64], scale[64];
  const qn_format f = make_format(4, 32, true);
  const qn__awq_weight reader = {&f, w, 16};
  qn__awq_found found;
  qn__inputs s;
  for (int i = 0; i < 16 * 64; i++) w[i] = (float)(i % 37) - 18;
  *result = 0;
  QN_TRY(qn__inputs_init(&s, 64, QN__SEE_PRODUCTS));
  qn_status status = add_inputs(&s);
  if (!status) status = qn__awq_search(&reader, 1, &s, NULL, 2, scale, &found);
  qn__inputs_fini(&s);
  if (!status) mix(result, scale, sizeof scale);
  return status;
}

START_TEST(test_scaling) { fail_each("scale of an input", search_scale, 100); }
END_TEST

/* ---- Packs ------------------------------------------------------------------------------------------------------- */

static const unsigned char code[100] = "code";

static qn_status fill(qn_pack_builder *b) {
  qn_kernel k = {.name = "k", .hash = "11111111111111111111111111111111", .target = "host", .image = code};
  k.size = sizeof code;
  k.recipe = (qn_recipe){.n_steps = 1, .step = {{.entry = "one"}}};
  qn_plan p = {.format = make_format(4, 32, false), .n_ranges = 1, .range = {{.m_min = 1}}};
  memcpy(p.range[0].variant, k.hash, sizeof k.hash);
  p.layout = plain_layout(&p.format);
  p.problem = (qn_problem){.n = 64, .k = 96, .act = QN_T_F32, .out = QN_T_F32};
  snprintf(p.problem.format, sizeof p.problem.format, "%s", p.format.name);
  qn__problem_spell(&p.problem);
  QN_TRY(qn__pack_add_device(b, "host", "", "", 1));
  QN_TRY(qn__pack_add_kernel(b, &k));
  QN_TRY(qn__pack_add_plan(b, &p));
  return qn__pack_write(b, path);
}

static qn_status write_and_read(uint64_t *result) {
  qn_pack_builder *b;
  qn_pack *p;
  *result = 0;
  QN_TRY(qn__pack_builder_new(&b));
  qn_status s = fill(b);
  qn__pack_builder_free(b);
  QN_TRY(s);
  QN_TRY(qn__pack_open(NULL, path, &p));
  mix(result, qn__pack_hash(p), 32);
  qn__pack_close(p);
  return QN_OK;
}

START_TEST(test_packs) {
  snprintf(path, sizeof path, "/tmp/qn_oom_%d", (int)getpid());
  fail_each("write_and_read", write_and_read, 200);
  unlink(path);
}
END_TEST

/* ---- Text -------------------------------------------------------------------------------------------------------- */

static qn_status encode_text(uint64_t *result) {
  static const char sample[] = "In 1234 e\u0301 said:\n\n<|word|> \u4e00 \u00b2\u00a0 <|end|> the end";
  qn__tokenizer *t;
  qn__ids ids;
  char *text = NULL;
  size_t size = 0;
  *result = 0;
  QN_TRY(qn__tokenizer_open(NULL, path, &t));
  qn_status s = qn__tokenizer_encode(t, sample, sizeof sample - 1, &ids);
  if (!s) s = qn__tokenizer_decode(t, ids.id, ids.n, &text, &size);
  if (!s) mix(result, ids.id, (size_t)ids.n * sizeof *ids.id), mix(result, text, size);
  free(text);
  qn__ids_free(&ids);
  qn__tokenizer_close(t);
  return s;
}

/* Every kind of step. */
START_TEST(test_tokenizers) {
  static const int some[] = {9, 10, 11, 14}; /* prefix; splits and a normal form; characters; replaced by a pattern */
  cJSON *vectors = token_vectors();
  char *json = token_json(vectors, token_vector(vectors, "bpe", some[_i]));
  snprintf(path, sizeof path, "/tmp/qn_oom_%d.json", (int)getpid());
  ck_ok(qn__file_replace(path, json, strlen(json)));
  free(json);
  cJSON_Delete(vectors);
  fail_each("tokenizer", encode_text, 200);
  unlink(path);
}
END_TEST

/* ---- Compiling --------------------------------------------------------------------------------------------------- */

static qn_status compile_kernel(uint64_t *result) {
  const qn_source source = {
      .name = "k", .target = "host", .flags = "", .text = "__attribute__((visibility(\"default\"))) void k(void) {}\n"};
  qn_artifact a;
  qn_status s = qn__compile(&source, &a);
  *result = a.size;
  qn__artifact_free(&a);
  return s;
}

START_TEST(test_compiling) { fail_each("compile_kernel", compile_kernel, 30); }
END_TEST

/* ---- The store --------------------------------------------------------------------------------------------------- */

static char folder[] = "/tmp/qn_oom_XXXXXX";

static int count_entries(void *ud, const char *key, const cJSON *value) {
  (void)key, (void)value;
  ++*(uint64_t *)ud;
  return 0;
}

/* What a run that was cut short left behind is whole, or not there. */
static qn_status store_entry(qn_store *s, uint64_t *result) {
  cJSON *old = qn__store_get(s, "evidence", "key"), *new = cJSON_CreateObject();
  double was = qn__json_number(old, "x", 3);
  cJSON_Delete(old);
  qn__json_add_number(new, "x", 3);
  qn_status status = was == 3 ? qn__store_put(s, "evidence", "key", new) : QN_E_FORMAT;
  cJSON_Delete(new);
  QN_TRY(status);
  cJSON *back = qn__store_get(s, "evidence", "key");
  if (!back) return QN_E_NOMEM; /* a miss */
  mix(result, &(double){qn__json_number(back, "x", 0)}, sizeof(double));
  cJSON_Delete(back);
  return qn__store_each(s, "evidence", count_entries, result);
}

static qn_status store_artifact(qn_store *s, uint64_t *result) {
  qn_artifact a = {.image = (unsigned char *)"image", .size = 5}, back;
  qn_status known;
  char why[64];
  QN_TRY(qn__store_artifact_put(s, "variant", QN_OK, "", &a));
  if (!qn__store_artifact_get(s, "variant", &known, &back, why, sizeof why)) return QN_E_NOMEM;
  mix(result, back.image, back.size);
  qn__artifact_free(&back);
  return known;
}

static qn_status use_store(uint64_t *result) {
  const qn_device_info device = {.name = "cuda:0", .target = "cuda", .arch = "sm_90a"};
  qn_store *s;
  *result = 0;
  QN_TRY(qn__store_open(folder, &device, "nvrtc", "cold", &s));
  qn_status status = store_entry(s, result);
  if (!status) status = store_artifact(s, result);
  qn__store_close(s);
  qn_store_counts counts; /* all is in use, whether it can be read or not */
  if (!status) status = qn__store_gc(folder, 0, &counts);
  return status || !counts.removed ? status : QN_E_FORMAT;
}

START_TEST(test_store) {
  ck_assert_ptr_nonnull(mkdtemp(folder));
  fail_each("store", use_store, 100);
  qn__tree_remove(folder);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(test_models, QN_COUNT(models)),
      CASE(test_dialects, 2),
      CASE(test_writers, 1),
      CASE(test_quantizing, 1),
      CASE(test_scaling, 1),
      CASE(test_packs, 1),
      CASE(test_tokenizers, 4),
      CASE(test_compiling, 1),
      CASE(test_store, 1),
  };
  return RUN_CASES(argv[0], cases, .timeout = 120);
}
