/* test_text.c - text as token ids: tokenizers against what `tokenizers` and `sentencepiece` made of the same text, how
 * they refuse what they cannot read, ids from files, overlap. */
#include "file.h"
#include "io_folder.h"
#include "pattern.h"
#include "runtime_fixture.h"
#include "text.h"
#include "token_files.h"

/* ---- Ids as recorded --------------------------------------------------------------------------------------------- */

enum { BPE = 15, SCORES = 3 };

static char *text;
static size_t size;
static cJSON *vectors;

static void read_all(void) {
  setup();
  ck_ok(qn__file_read(QN_TESTS "/vectors/unicode.txt", &text, &size));
  ck_assert_ptr_nonnull(vectors = token_vectors());
}

static void free_all(void) {
  free(text);
  cJSON_Delete(vectors);
  teardown();
}

static uint64_t hash_ids(const qn__ids *ids) {
  uint64_t h = 0xcbf29ce484222325u;
  const uint8_t *p = (const uint8_t *)ids->id;
  for (int64_t i = 0; i < 4 * ids->n; i++) h = (h ^ p[i]) * 0x100000001b3u;
  return h;
}

static void compare(const qn__tokenizer *t, const cJSON *v) {
  const char *name = cJSON_GetObjectItem(v, "name")->valuestring;
  const cJSON *first = cJSON_GetObjectItem(v, "first");
  qn__ids ids;
  char hash[17];
  ck_assert_msg(!qn__tokenizer_refusal(t), "%s: %s", name, qn__tokenizer_refusal(t));
  ck_ok(qn__tokenizer_encode(t, text, size, &ids));
  for (int i = 0; i < cJSON_GetArraySize(first); i++)
    ck_assert_msg(ids.id[i] == cJSON_GetArrayItem(first, i)->valueint, "%s: id %d is %d, not %d", name, i, ids.id[i],
                  cJSON_GetArrayItem(first, i)->valueint);
  snprintf(hash, sizeof hash, "%016llx", (unsigned long long)hash_ids(&ids));
  ck_assert_msg(ids.n == cJSON_GetObjectItem(v, "count")->valueint, "%s: %jd ids, not %d", name, (intmax_t)ids.n,
                cJSON_GetObjectItem(v, "count")->valueint);
  ck_assert_str_eq(hash, cJSON_GetObjectItem(v, "hash")->valuestring);
  qn__ids_free(&ids);
}

START_TEST(test_tokenizer_json) {
  const cJSON *v = token_vector(vectors, "bpe", _i);
  char *json = token_json(vectors, v);
  put_text("tokenizer.json", json);
  qn__tokenizer *t;
  ck_ok(qn__tokenizer_open(NULL, in_folder("tokenizer.json"), &t));
  compare(t, v);
  qn__tokenizer_close(t);
  free(json);
}
END_TEST

static void compare_gguf(const cJSON *v) {
  qn_model *m;
  qn__tokenizer *t;
  token_gguf(in_folder("x.gguf"), vectors, v);
  ck_ok(qn_model_open(in_folder("x.gguf"), &m));
  ck_ok(qn__tokenizer_open(m, NULL, &t));
  compare(t, v);
  qn__tokenizer_close(t);
  qn_model_close(m);
}

START_TEST(test_gguf) {
  const cJSON *v = token_vector(vectors, "bpe", _i);
  if (cJSON_IsString(cJSON_GetObjectItem(v, "pre"))) compare_gguf(v);
}
END_TEST

START_TEST(test_scores) { compare_gguf(token_vector(vectors, "scores", _i)); }
END_TEST

START_TEST(test_every_vector_is_tried) {
  ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItem(vectors, "bpe")), BPE);
  ck_assert_int_eq(cJSON_GetArraySize(cJSON_GetObjectItem(vectors, "scores")), SCORES);
}
END_TEST

/* ---- Small tokenizers -------------------------------------------------------------------------------------------- */

/* Open a tokenizer.json, of which a test writes the parts that it is about. */
static qn_status open_json(const char *json, qn__tokenizer **t) {
  put_text("tokenizer.json", json);
  return qn__tokenizer_open(NULL, in_folder("tokenizer.json"), t);
}

static void encodes(const qn__tokenizer *t, const char *s, const int32_t *want, int64_t n) {
  qn__ids ids;
  ck_ok(qn__tokenizer_encode(t, s, strlen(s), &ids));
  ck_assert_int_eq(ids.n, n);
  ck_assert(!n || !memcmp(ids.id, want, (size_t)n * sizeof *want));
  qn__ids_free(&ids);
}
#define ENCODES(t, s, ...)                                                                                             \
  encodes(t, s, (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

START_TEST(test_merges_of_one_long_piece) { /* in steps that do not grow with the square of its length */
  enum { N = 1 << 20 };
  qn__tokenizer *t;
  ck_ok(open_json("{\"model\":{\"vocab\":{\"a\":0,\"aa\":1,\"aaaa\":2,\"b\":3,\"ab\":4},\"merges\":[\"a a\",\"aa aa\","
                  "\"a b\"]}}",
                  &t));
  char *many = malloc(N);
  memset(many, 'a', N);
  qn__ids ids;
  ck_ok(qn__tokenizer_encode(t, many, N, &ids));
  ck_assert_int_eq(ids.n, N / 4);
  for (int64_t i = 0; i < ids.n; i++) ck_assert_int_eq(ids.id[i], 2);
  qn__ids_free(&ids);
  free(many);
  ENCODES(t, "aaab", 1, 4); /* the lower rank first, of equal ones the left */
  ENCODES(t, "abab", 4, 4);
  encodes(t, "", NULL, 0);
  ck_ok(qn__tokenizer_encode(t, "a\u00e9b", 4, &ids)); /* what has no token is left out, and counted */
  ck_assert(ids.n == 1 && ids.id[0] == 4);
  ck_assert_int_eq(ids.dropped, 1);
  qn__ids_free(&ids);
  ck_fails(QN_E_ARG, "byte 2 is no UTF-8: 0xff", qn__tokenizer_encode(t, "aa\xff", 3, &ids));
  ck_fails(QN_E_ARG, "byte 1 is no UTF-8: 0xed", qn__tokenizer_encode(t, "a\xed\xa0\x80", 4, &ids)); /* a surrogate */
  ck_fails(QN_E_ARG, "byte 0 is no UTF-8: 0xe2", qn__tokenizer_encode(t, "\xe2\x82", 2, &ids));
  qn__tokenizer_close(t);
}
END_TEST

START_TEST(test_decoding) {
  static const char sample[] = " Two words, \u00e9\u0301\n\tspaces  and <|end|>";
  for (int i = 0; i < BPE + SCORES; i++) {
    const cJSON *v = token_vector(vectors, i < BPE ? "bpe" : "scores", i < BPE ? i : i - BPE);
    const char *name = cJSON_GetObjectItem(v, "name")->valuestring;
    if (strstr(name, "unknown") || strstr(name, "without") || !strcmp(name, "splits"))
      continue; /* they lose something */
    qn_model *m = NULL;
    qn__tokenizer *t;
    if (i < BPE) {
      char *json = token_json(vectors, v);
      ck_ok(open_json(json, &t));
      free(json);
    } else {
      token_gguf(in_folder("x.gguf"), vectors, v);
      ck_ok(qn_model_open(in_folder("x.gguf"), &m));
      ck_ok(qn__tokenizer_open(m, NULL, &t));
    }
    qn__ids ids;
    char *back;
    size_t bytes;
    ck_ok(qn__tokenizer_encode(t, sample, strlen(sample), &ids));
    ck_ok(qn__tokenizer_decode(t, ids.id, ids.n, &back, &bytes));
    ck_assert_uint_eq(bytes, strlen(back));
    ck_assert_msg(!strcmp(back, sample), "%s: '%s'", name, back);
    free(back);
    qn__ids_free(&ids);
    ck_fails(QN_E_ARG, "id 99999 (number 1) is not a token",
             qn__tokenizer_decode(t, (int32_t[]){99999}, 1, &back, &bytes));
    qn__tokenizer_close(t);
    qn_model_close(m);
  }
}
END_TEST

/* ---- The token that begins a text -------------------------------------------------------------------------------- */

#define TOKENS                                                                                                         \
  "\"added_tokens\":[{\"id\":1,\"content\":\"<s>\",\"special\":true}],\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}"
#define TEMPLATE                                                                                                       \
  "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}},{\"Sequence\":{\"id\":\"A\"}}],"   \
  "\"special_tokens\":{\"<s>\":{\"ids\":[1]}}}"

START_TEST(test_bos) {
  static const struct {
    const char *json, *settings; /* tokenizer_config.json */
    int32_t id;
    bool add;
  } cases[] = {
      {"{" TOKENS "}", NULL, -1, false},
      {"{\"post_processor\":" TEMPLATE "," TOKENS "}", NULL, 1, true},
      {"{\"post_processor\":{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"}," TEMPLATE "]}," TOKENS "}",
       NULL, 1, true},
      {"{\"post_processor\":" TEMPLATE "," TOKENS "}", "{\"add_bos_token\":false,\"bos_token\":\"<s>\"}", 1, false},
      {"{" TOKENS "}", "{\"add_bos_token\":true,\"bos_token\":{\"content\":\"<s>\"}}", 1, true},
      {"{" TOKENS "}", "{\"add_bos_token\":true,\"bos_token\":null}", -1, false},
      {"{" TOKENS "}", "{\"bos_token\":\"<s>\"}", 1, false},
      {"{\"post_processor\":" TEMPLATE ",\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", NULL, 1, true},
  };
  for (size_t i = 0; i < QN_COUNT(cases); i++) {
    qn__tokenizer *t;
    unlink(in_folder("tokenizer_config.json"));
    if (cases[i].settings) put_text("tokenizer_config.json", cases[i].settings);
    ck_ok(open_json(cases[i].json, &t));
    qn__bos bos = qn__tokenizer_bos(t);
    ck_assert_msg(bos.id == cases[i].id && bos.add == cases[i].add, "case %zu: %d, %d", i, bos.id, bos.add);
    ck_assert_int_eq(qn__tokenizer_set_bos(t, true), bos.id < 0 ? QN_E_ARG : QN_OK);
    ck_assert(qn__tokenizer_bos(t).add == (bos.id >= 0));
    ck_ok(qn__tokenizer_set_bos(t, false));
    ck_assert(!qn__tokenizer_bos(t).add);
    qn__tokenizer_close(t);
  }
}
END_TEST

/* ---- What is not read -------------------------------------------------------------------------------------------- */

START_TEST(test_refusals) {
  static const char *const cases[][2] = {
      {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", "a tokenizer of kind Unigram is not read, only BPE"},
      {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}", "kind WordPiece is not read"},
      {"{\"model\":{\"vocab\":{}}}", "kind without a type"},
      {"{\"model\":{\"vocab\":{},\"merges\":[],\"end_of_word_suffix\":\"</w>\"}}", "end_of_word_suffix is not read"},
      {"{\"model\":{\"vocab\":{},\"merges\":[],\"dropout\":0.1}}", "dropout is not read"},
      {"{\"normalizer\":{\"type\":\"Precompiled\"}," TOKENS "}",
       "normalizer \"Precompiled\" is not known; known: Sequence, Prepend"},
      {"{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Punctuation\"}]}," TOKENS "}",
       "pre-tokenizer \"Punctuation\" is not known"},
      {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a[b]]\"},\"behavior\":\"Isolated\"}," TOKENS
       "}",
       "a class within a class at byte 2 is not read"},
      {"{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Sideways\"}," TOKENS "}",
       "behavior \"Sideways\" is not known"},
  };
  for (size_t i = 0; i < QN_COUNT(cases); i++) {
    qn__tokenizer *t;
    qn__ids ids;
    ck_ok(open_json(cases[i][0], &t));
    const char *refusal = qn__tokenizer_refusal(t);
    ck_assert_msg(refusal && strstr(refusal, cases[i][1]) && strstr(refusal, "; give token ids instead"), "%zu: %s", i,
                  refusal);
    ck_fails(QN_E_ARG, cases[i][1], qn__tokenizer_encode(t, "a", 1, &ids));
    qn__tokenizer_close(t);
  }
}
END_TEST

/* A folder without tokenizer.json; a GGUF that says nothing known of how text is split. */
START_TEST(test_models_without_a_tokenizer) {
  static const char *const why[] = {"no tokenizer.json beside it", "tokenizer.ggml.pre says \"mine\""};
  cJSON *v = cJSON_Duplicate(token_vector(vectors, "bpe", 0), true);
  cJSON_ReplaceItemInObject(v, "pre", cJSON_CreateString("mine"));
  token_gguf(in_folder("x.gguf"), vectors, v);
  cJSON_Delete(v);
  for (int i = 0; i < 2; i++) {
    qn_model *m;
    qn__tokenizer *t;
    qn__ids ids;
    ck_ok(qn_model_open(i ? in_folder("x.gguf") : QN_TESTS "/models/tiny-llama-gptq4", &m));
    ck_ok(qn__tokenizer_open(m, NULL, &t));
    ck_assert_msg(strstr(qn__tokenizer_refusal(t), why[i]), "%s", qn__tokenizer_refusal(t));
    int64_t vocabulary = qn__model_vocabulary(m);
    ck_assert_int_eq(vocabulary, i ? 700 : 256);
    put_text("x.jsonl", "{\"input_ids\": [1, 255]}\n");
    ck_ok(qn__ids_read(in_folder("x.jsonl"), t, vocabulary, &ids));
    ck_assert_int_eq(ids.n, 2);
    qn__ids_free(&ids);
    ck_fails(QN_E_ARG, "give token ids instead", qn__ids_read(QN_TESTS "/models/text/valid.txt", t, vocabulary, &ids));
    qn__tokenizer_close(t);
    qn_model_close(m);
  }
}
END_TEST

START_TEST(test_damage) {
  static const char *const cases[][2] = {
      {"", "malformed JSON"},
      {"{\"model\":", "malformed JSON"},
      {"{} {}", "something behind the JSON at byte 3"},
      {"{\"model\":{\"vocab\":{\"a\":0,\"a\\u0000\":1},\"merges\":[]}}",
       "a zero character, \\u0000, is not read at byte 27"},
      {"[]", "a model is needed"},
      {"{\"model\":{\"merges\":[]}}", "a vocab is needed"},
      {"{\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", "id -1: ids are whole numbers"},
      {"{\"model\":{\"vocab\":{\"a\":1e9},\"merges\":[]}}", "id 1e+09"},
      {"{\"model\":{\"vocab\":{\"a\":\"b\"},\"merges\":[]}}", "ids are whole numbers"},
      {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a\"]}}", "a merge that is not of two words"},
      {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a a a\"]}}", "a merge that is not of two words"},
      {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}", "a merge that is not of two words"},
      {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a a\"]}}", "merge 0, of \"a\" and \"a\": not all of it is in"},
      {"{\"model\":{\"vocab\":{\"\xff\":0},\"merges\":[]}}", "token 0: its byte 0 is no UTF-8"},
      {"{\"added_tokens\":[{\"id\":0}],\"model\":{\"vocab\":{},\"merges\":[]}}", "an added token without content"},
      {"{\"normalizer\":{\"type\":\"Prepend\"}," TOKENS "}", "a step without its text"},
      {"{\"normalizer\":{}," TOKENS "}", "a normalizer without a type"},
      {"{\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Removed\"}," TOKENS "}", "neither a String nor a Regex"},
  };
  for (size_t i = 0; i < QN_COUNT(cases); i++) {
    qn__tokenizer *t;
    ck_fails(QN_E_FORMAT, cases[i][1], open_json(cases[i][0], &t));
    ck_assert_ptr_null(t);
  }
}
END_TEST

START_TEST(test_patterns) {
  static const struct {
    const char *pattern, *text;
    int matches; /* -1: it is not read */
  } cases[] = {
      {"\\s", "a \t\n\v\xc2\x85\u00a0\u1680\u2028\u3000\u180eb", 9}, /* but no U+180E */
      {"\\S", " \u180ea", 2},
      {"[^\\s]", " \u180ea", 2},
      {"\\w", "a\u00e9\u0301_\u00b2\u24d0-", 6}, /* marks, numbers and circled letters, too */
      {"\\p{Han}", "\u4e00\u3001\u3007", 2},     /* by its script: no comma */
      {"\\p{^Han}", "\u4e00\u3001", 1},
      {"a$", "a\na", 2}, /* at the end of each line */
      {"[]a]", "]a", 2},
      {"x*", "axb", 3},
      {"(?i:'s)", "'S's'\u017f", 3},
      {"a{1,2}", "aaa", 2},
      {"[a[b]]", NULL, -1},
      {"[a&&b]", NULL, -1},
      {"[\\S]", NULL, -1},
      {"\\h", NULL, -1},
      {"\\b", NULL, -1},
      {"\\1(a)", NULL, -1},
      {"a{,2}", NULL, -1},
      {"a{2}+", NULL, -1},
      {"(?m:.)", NULL, -1},
      {"(?i)a", NULL, -1},
      {"(", NULL, -1},
      {"", NULL, -1},
      {"\\", NULL, -1},
  };
  for (size_t i = 0; i < QN_COUNT(cases); i++) {
    pcre2_code *p;
    qn_status s = qn__pattern_new(cases[i].pattern, false, &p);
    ck_assert_msg(s == (cases[i].matches < 0 ? QN_E_SHAPE : QN_OK), "%s: %s", cases[i].pattern, qn__errmsg());
    if (s) continue;
    qn__matches m = {.pattern = p, .data = pcre2_match_data_create(1, NULL), .text = cases[i].text};
    m.n = strlen(m.text);
    int count = 0;
    for (bool found = true; found; count += found) ck_ok(qn__matches_next(&m, &found));
    ck_assert_msg(count == cases[i].matches, "%s: %d matches, not %d", cases[i].pattern, count, cases[i].matches);
    pcre2_match_data_free(m.data);
    pcre2_code_free(p);
  }
}
END_TEST

START_TEST(test_pattern_that_takes_too_long) {
  qn__tokenizer *t;
  qn__ids ids;
  ck_ok(open_json(
      "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a+)+b\"},\"behavior\":\"Isolated\"}," TOKENS
      "}",
      &t));
  ck_fails(QN_E_LIMIT, "takes too long", qn__tokenizer_encode(t, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaacb", 38, &ids));
  qn__tokenizer_close(t);
}
END_TEST

/* ---- Ids from files ---------------------------------------------------------------------------------------------- */

static qn__tokenizer *with_bos(void) {
  qn__tokenizer *t;
  ck_ok(open_json("{\"post_processor\":" TEMPLATE "," TOKENS "}", &t));
  return t;
}

/* A NumPy file of version 1 with this dictionary and these bytes. */
static void put_npy(const char *dictionary, const void *data, size_t bytes) {
  FILE *f = fopen(in_folder("x.npy"), "wb");
  ck_assert_ptr_nonnull(f);
  fprintf(f, "\x93NUMPY\x01%c%c%c%s\n", 0, (int)strlen(dictionary) + 1, 0, dictionary);
  fwrite(data, 1, bytes, f);
  fclose(f);
}
#define NPY(descr, shape) "{'descr': '" descr "', 'fortran_order': False, 'shape': " shape ", }"

START_TEST(test_npy) {
  static const struct {
    const char *dictionary;
    uint64_t data[2];
    size_t bytes;
    int64_t rows, cols;
    const char *error; /* NULL: ids 5, 6; of one dimension, without the BOS before them */
  } cases[] = {
      {NPY("<i4", "(2,)"), {5 | 6ull << 32}, 8, 0, 0, NULL},
      {NPY("<i4", "(3,)"), {1 | 5ull << 32, 6}, 12, 0, 0, NULL},
      {NPY("<u2", "(2,)"), {5 | 6 << 16}, 4, 0, 0, NULL},
      {NPY("<u4", "(2,)"), {5 | 6ull << 32}, 8, 0, 0, NULL},
      {NPY("|u1", "(2,)"), {5 | 6 << 8}, 2, 0, 0, NULL},
      {NPY("<i8", "(2,)"), {5, 6}, 16, 0, 0, NULL},
      {NPY("<i8", "(1, 2)"), {5, 6}, 16, 1, 2, NULL},
      {NPY("<i8", "(2, 1)"), {5, 6}, 16, 2, 1, NULL},
      {NPY("<i4", "(3,)"), {5 | 6ull << 32}, 8, 0, 0, "its shape is not that of its data"},
      {NPY("<i4", "(2,)"), {5 | 6ull << 32}, 7, 0, 0, "its shape is not that of its data"},
      {NPY("<i4", "(4611686018427387904, 4)"), {0}, 8, 0, 0, "its shape is not that of its data"},
      {NPY("<i4", "(0,)"), {0}, 0, 0, 0, "no ids"},
      {NPY("<i4", "()"), {0}, 4, 0, 0, "one dimension or two"},
      {NPY("<i4", "(1, 1, 2)"), {0}, 8, 0, 0, "one dimension or two"},
      {NPY("<i4", "(-2,)"), {0}, 8, 0, 0, "one dimension or two"},
      {NPY("<f4", "(2,)"), {0}, 8, 0, 0, "ids are u8, u16, u32, i32 or i64"},
      {NPY(">i4", "(2,)"), {0}, 8, 0, 0, "ids are u8, u16, u32, i32 or i64"},
      {"{'descr': '<i4', 'fortran_order': True, 'shape': (1, 2), }", {0}, 8, 0, 0, "order C"},
      {"{}", {0}, 8, 0, 0, "ids are u8"},
      {NPY("<i4", "(2,)"), {5 | 7ull << 32}, 8, 0, 0, "x.npy: element 1 is 7; ids are from 0 to 6"},
      {NPY("<i8", "(2,)"), {5, UINT64_MAX}, 16, 0, 0, "element 1 is -1"},
  };
  qn__tokenizer *t = with_bos();
  for (size_t i = 0; i < QN_COUNT(cases); i++) {
    qn__ids ids;
    put_npy(cases[i].dictionary, cases[i].data, cases[i].bytes);
    qn_status s = qn__ids_read(in_folder("x.npy"), t, 7, &ids);
    ck_assert_msg(s == (cases[i].error ? QN_E_FORMAT : QN_OK), "%zu: %s", i, qn__errmsg());
    if (cases[i].error) ck_assert_msg(strstr(qn__errmsg(), cases[i].error), "%zu: %s", i, qn__errmsg());
    if (cases[i].error) continue;
    ck_assert_int_eq(ids.n, 2);
    ck_assert(ids.id[0] == 5 && ids.id[1] == 6);
    ck_assert(ids.rows == cases[i].rows && ids.cols == cases[i].cols);
    qn__ids_free(&ids);
  }
  put_text("x.npy", "\x93NUMPY\x01");
  qn__ids ids;
  ck_fails(QN_E_FORMAT, "no NumPy array", qn__ids_read(in_folder("x.npy"), t, 7, &ids));
  qn__tokenizer_close(t);
}
END_TEST

START_TEST(test_jsonl) {
  static const struct {
    const char *lines, *error; /* NULL: ids 5, 6 */
  } cases[] = {
      {"{\"input_ids\": [5, 6]}\n", NULL},
      {"{\"input_ids\": [1, 5], \"more\": 0}\n\n{\"input_ids\": [1, 6]}", NULL}, /* the BOS of each line */
      {"{\"input_ids\": []}\r\n{\"input_ids\": [5,6]}\r\n", NULL},
      {"{\"input_ids\": [5]}\n{\"input_ids\": [7]}\n",
       "x.jsonl:2: 7 among the ids; they are whole numbers from 0 to 6"},
      {"{\"input_ids\": [5, -1]}\n", "x.jsonl:1: -1 among the ids"},
      {"{\"input_ids\": [5, 0.5]}\n", "x.jsonl:1: 0.5 among the ids"},
      {"{\"input_ids\": [5, \"6\"]}\n", "x.jsonl:1: no number"},
      {"{\"input_ids\": [1e999]}\n", "x.jsonl:1: "},
      {"{\"input_ids\": 5}\n", "x.jsonl:1: a line is {\"input_ids\": [...]}"},
      {"[5, 6]\n", "x.jsonl:1: a line is"},
      {"\n{\"input_ids\": [5\n", "x.jsonl:2: malformed JSON"},
      {"{\"input_ids\": [5]} {\"input_ids\": [6]}\n", "x.jsonl:1: something behind the JSON at byte 19"},
      {"\n\n", "no ids"},
      {"", "no ids"},
  };
  qn__tokenizer *t = with_bos();
  for (size_t i = 0; i < QN_COUNT(cases); i++) {
    qn__ids ids;
    put_text("x.jsonl", cases[i].lines);
    if (cases[i].error) {
      ck_fails(QN_E_FORMAT, cases[i].error, qn__ids_read(in_folder("x.jsonl"), t, 7, &ids));
      continue;
    }
    ck_ok(qn__ids_read(in_folder("x.jsonl"), t, 7, &ids));
    ck_assert_msg(ids.n == 2 && ids.id[0] == 5 && ids.id[1] == 6, "case %zu", i);
    qn__ids_free(&ids);
  }
  qn__tokenizer_close(t);
}
END_TEST

START_TEST(test_text_files) {
  qn__tokenizer *t = with_bos();
  qn__ids ids, again;
  put_text("x.txt", "aaa");
  ck_ok(qn__ids_read(in_folder("x.txt"), t, 2, &ids));
  ck_assert(ids.n == 3 && ids.bytes == 3);
  ck_ok(qn__ids_write(in_folder("x.npy"), &ids));
  ck_ok(qn__ids_read(in_folder("x.npy"), t, 2, &again));
  ck_assert(again.n == ids.n && !memcmp(again.id, ids.id, 12) && !again.bytes);
  qn__ids_free(&ids), qn__ids_free(&again);
  put_text("x.txt", "");
  ck_fails(QN_E_FORMAT, "x.txt: an empty text", qn__ids_read(in_folder("x.txt"), t, 2, &ids));
  put_text("x.txt", "a\xc0");
  ck_fails(QN_E_FORMAT, "x.txt: byte 1 is no UTF-8", qn__ids_read(in_folder("x.txt"), t, 2, &ids));
  put_text("x.txt", "a<s>");
  ck_fails(QN_E_FORMAT, "token 1 is beyond the model's vocabulary of 1", qn__ids_read(in_folder("x.txt"), t, 1, &ids));
  ck_fails(QN_E_IO, "nowhere", qn__ids_read("/nowhere", t, 2, &ids));
  qn__tokenizer_close(t);
}
END_TEST

START_TEST(test_byte_tokenizer) { /* of the small checkpoint: a byte is a token */
  qn_model *m;
  qn__tokenizer *t;
  qn__ids ids;
  ck_ok(qn_model_open(_i ? QN_TESTS "/models/tiny-llama-q8_0.gguf" : QN_TESTS "/models/tiny-llama", &m));
  ck_ok(qn__tokenizer_open(m, NULL, &t));
  ck_ok(qn__tokenizer_encode(t, text, size, &ids));
  ck_assert_int_eq(ids.n, (int64_t)size);
  for (size_t i = 0; i < size; i++) ck_assert_int_eq(ids.id[i], (uint8_t)text[i]);
  qn__ids_free(&ids);
  qn__tokenizer_close(t);
  qn_model_close(m);
}
END_TEST

/* ---- Overlap ----------------------------------------------------------------------------------------------------- */

START_TEST(test_overlap) {
  enum { N = 1000 };
  int32_t before[N], after[N];
  rng r = {1};
  for (int i = 0; i < N; i++) before[i] = (int32_t)below(&r, 50000), after[i] = (int32_t)below(&r, 50000);
  qn__overlap o;
  const qn__ids a = {.id = before, .n = N}, b = {.id = after, .n = N}, few = {.id = after, .n = QN_RUN - 1};
  ck_ok(qn__overlap_measure(&a, &b, &o));
  ck_assert(o.seen == 0 && o.runs == N - QN_RUN + 1);
  memcpy(after + 600, before + 100, 50 * sizeof *after);
  ck_ok(qn__overlap_measure(&a, &b, &o));
  ck_assert_int_eq(o.seen, 50 - QN_RUN + 1);
  ck_assert(o.at == 600 && o.from == 100);
  ck_ok(qn__overlap_measure(&a, &a, &o));
  ck_assert_int_eq(o.seen, o.runs);
  ck_ok(qn__overlap_measure(&few, &a, &o));
  ck_assert_int_eq(o.seen, 0);
  ck_ok(qn__overlap_measure(&a, &few, &o));
  ck_assert_int_eq(o.runs, 0);
}
END_TEST

/* ---- A corpus for fuzz_text -------------------------------------------------------------------------------------- */

static void seed(const char *dir, const char *family, char kind, const void *data, size_t bytes) {
  static int serial;
  char name[PATH_MAX];
  snprintf(name, sizeof name, "%s/%s-%d", dir, family, serial++);
  FILE *f = fopen(name, "wb");
  if (!f || fputc(kind, f) < 0 || fwrite(data, 1, bytes, f) != bytes || fclose(f)) perror(name), exit(1);
}

/* The tokenizers of the vectors with few words, and files of ids. */
static void put_seeds(const char *dir) {
  static const char small[] =
      "{\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"<unk>\":3,\"<0x0A>\":4},\"merges\":[[\"a\",\"b\"]]}";
  static const char lines[] = "{\"input_ids\": [1, 2]}\n{\"input_ids\": [3]}\n";
  static const char npy[] = "\x93NUMPY\x01\0\x40\0" NPY("<i4", "(2,)") "      \n\1\0\0\0\2\0\0\0";
  char gguf[PATH_MAX], *data;
  size_t bytes;
  const cJSON *v, *m;
  snprintf(gguf, sizeof gguf, "%s/x.gguf", dir);
  vectors = token_vectors();
  for (int i = 0; (v = token_vector(vectors, "bpe", i)); i++) {
    cJSON *few = cJSON_CreateObject(), *models = cJSON_AddObjectToObject(few, "models");
    cJSON_ArrayForEach(m, cJSON_GetObjectItem(vectors, "models"))
      cJSON_AddItemToObject(models, m->string, cJSON_Parse(small));
    char *json = token_json(few, v);
    seed(dir, "tokenizer", 't', json, strlen(json));
    if (cJSON_IsString(cJSON_GetObjectItem(v, "pre"))) {
      token_gguf(gguf, few, v);
      if (qn__file_read(gguf, &data, &bytes)) exit(1);
      seed(dir, "tokenizer", 'g', data, bytes);
      free(data);
    }
    free(json);
    cJSON_Delete(few);
  }
  unlink(gguf);
  seed(dir, "ids", 'l', lines, sizeof lines - 1);
  seed(dir, "ids", 'n', npy, sizeof npy - 1);
  cJSON_Delete(vectors);
}

int main(int argc, char **argv) {
  if (argc > 2 && !strcmp(argv[1], "--seeds")) return put_seeds(argv[2]), 0;
  static const suite_case cases[] = {
      CASE(test_tokenizer_json, BPE),
      CASE(test_gguf, BPE),
      CASE(test_scores, SCORES),
      CASE(test_every_vector_is_tried, 1),
      CASE(test_merges_of_one_long_piece, 1),
      CASE(test_decoding, 1),
      CASE(test_bos, 1),
      CASE(test_refusals, 1),
      CASE(test_models_without_a_tokenizer, 1),
      CASE(test_damage, 1),
      CASE(test_patterns, 1),
      CASE(test_pattern_that_takes_too_long, 1),
      CASE(test_npy, 1),
      CASE(test_jsonl, 1),
      CASE(test_text_files, 1),
      CASE(test_byte_tokenizer, 2),
      CASE(test_overlap, 1),
  };
  return RUN_CASES(argv[0], cases, .enter = read_all, .leave = free_all, .timeout = 120);
}
