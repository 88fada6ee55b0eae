/* test_io_gguf.c - the parts of a GGUF, metadata of every type, and files that lie. */
#include "io_folder.h"

typedef struct blob {
  uint8_t data[4096];
  size_t n;
} blob;

static void put(blob *b, uint64_t v, int bytes) {
  memcpy(b->data + b->n, &v, (size_t)bytes);
  b->n += (size_t)bytes;
}

static void put_string(blob *b, const char *s) {
  put(b, strlen(s), 8);
  memcpy(b->data + b->n, s, strlen(s));
  b->n += strlen(s);
}

static void put_head(blob *b, uint64_t tensors, uint64_t keys) {
  memcpy(b->data, "GGUF", 4);
  b->n = 4;
  put(b, 3, 4), put(b, tensors, 8), put(b, keys, 8);
}

static void put_tensor(blob *b, const char *name, uint64_t k, uint64_t n, uint32_t type, uint64_t offset) {
  put_string(b, name), put(b, 2, 4), put(b, k, 8), put(b, n, 8), put(b, type, 4), put(b, offset, 8);
}

static void put_blob(const char *name, const blob *b, size_t data) { /* pad to 32, then `data` zeros */
  FILE *f = fopen(in_folder(name), "wb");
  ck_assert_ptr_nonnull(f);
  fwrite(b->data, 1, b->n, f);
  fwrite(zeros, 1, (32 - b->n % 32) % 32 + data, f);
  fclose(f);
}

START_TEST(metadata_of_every_type) {
  blob b = {.n = 0};
  put_head(&b, 0, 13);
  static const struct {
    const char *key;
    uint32_t type;
    uint64_t stored;
    int bytes;
    double number;
  } values[] = {{"u8", QN_META_U8, 200, 1, 200},
                {"i8", QN_META_I8, 200, 1, -56},
                {"u16", QN_META_U16, 65535, 2, 65535},
                {"i16", QN_META_I16, 65535, 2, -1},
                {"u32", QN_META_U32, 4e9, 4, 4e9},
                {"i32", QN_META_I32, UINT32_MAX, 4, -1},
                {"f32", QN_META_F32, 0x3fc00000, 4, 1.5},
                {"bool", QN_META_BOOL, 1, 1, 1},
                {"u64", QN_META_U64, 1ull << 63, 8, 0x1p63},
                {"i64", QN_META_I64, UINT64_MAX, 8, -1},
                {"f64", QN_META_F64, 0x4004000000000000, 8, 2.5}};
  for (size_t i = 0; i < QN_COUNT(values); i++)
    put_string(&b, values[i].key), put(&b, values[i].type, 4), put(&b, values[i].stored, values[i].bytes);
  put_string(&b, "text"), put(&b, QN_META_STRING, 4), put_string(&b, "hello");
  put_string(&b, "list"), put(&b, QN_META_ARRAY, 4), put(&b, QN_META_STRING, 4), put(&b, 2, 8);
  put_string(&b, "a"), put_string(&b, "bc");
  put_blob("x.gguf", &b, 0);
  qn_model *m = open_folder();
  for (size_t i = 0; i < QN_COUNT(values); i++) {
    const qn_meta *v = qn_model_find_meta(m, values[i].key);
    ck_assert_ptr_eq(v, qn_model_meta(m, i));
    ck_assert_uint_eq(v->type, values[i].type);
    ck_assert_double_eq(v->number, values[i].number);
  }
  const qn_meta *text = qn_model_find_meta(m, "text"), *list = qn_model_find_meta(m, "list");
  ck_assert_uint_eq(text->count, 5);
  ck_assert_mem_eq(text->data, "hello", 5);
  ck_assert(list->item == QN_META_STRING && list->count == 2);
  ck_assert_mem_eq(list->data, "\1\0\0\0\0\0\0\0a\2", 10);
  ck_assert_ptr_null(qn_model_find_meta(m, "none"));
  ck_assert_ptr_null(qn_model_meta(m, 13));
  qn_model_close(m);
}
END_TEST

START_TEST(parts_of_a_gguf_are_put_together) {
  for (uint64_t part = 0; part < 2; part++) {
    blob b = {.n = 0};
    char name[64];
    put_head(&b, 1, 3);
    put_string(&b, "split.no"), put(&b, QN_META_U16, 4), put(&b, part, 2);
    put_string(&b, "split.count"), put(&b, QN_META_U16, 4), put(&b, 2, 2);
    put_string(&b, "split.tensors.count"), put(&b, QN_META_I32, 4), put(&b, 2, 4);
    put_tensor(&b, part ? "b" : "a", 32, 2, 2, 0);
    snprintf(name, sizeof name, "m-%05d-of-00002.gguf", (int)part + 1);
    put_blob(name, &b, 64);
  }
  qn_model *m;
  for (int part = 1; part <= 2; part++) { /* any of them names the model */
    ck_assert_msg(qn_model_open(in_folder(part == 1 ? "m-00001-of-00002.gguf" : "m-00002-of-00002.gguf"), &m) == QN_OK,
                  "%s", qn_io_errmsg());
    ck_assert(qn_model_find(m, "a") && qn_model_find(m, "b"));
    ck_assert_str_eq(qn_model_find(m, "b")->format, "int4.g32");
    qn_model_close(m);
  }
  char alone[PATH_MAX + 16];
  snprintf(alone, sizeof alone, "%s/alone.gguf", folder);
  ck_assert_int_eq(rename(in_folder("m-00001-of-00002.gguf"), alone), 0);
  refuse(alone, QN_E_FORMAT, "one of 2 parts");
  refuse(in_folder("m-00002-of-00002.gguf"), QN_E_IO, "m-00001-of-00002.gguf");
}
END_TEST

/* Each a header that lies in one way. */
static void lie_magic(blob *b) { put_head(b, 0, 0), b->data[3] = 'X'; }
static void lie_version(blob *b) { put_head(b, 0, 0), b->data[4] = 1; }
static void lie_big_endian(blob *b) { put_head(b, 0, 0), b->data[4] = 0, b->data[7] = 3; }
static void lie_tensors(blob *b) { put_head(b, 1ull << 60, 0); }
static void lie_keys(blob *b) { put_head(b, 0, UINT64_MAX); }
static void lie_twice(blob *b) {
  put_head(b, 0, 2);
  for (int i = 0; i < 2; i++) put_string(b, "k"), put(b, 0, 4), put(b, 0, 1);
}
static void lie_string(blob *b) {
  put_head(b, 0, 1);
  put_string(b, "key.of.some.length"), put(b, QN_META_STRING, 4), put(b, UINT64_MAX, 8);
}
static void lie_array(blob *b) {
  put_head(b, 0, 1);
  put_string(b, "key.of.some.length"), put(b, QN_META_ARRAY, 4), put(b, QN_META_U64, 4), put(b, 1ull << 61, 8);
}
static void lie_nested(blob *b) {
  put_head(b, 0, 1);
  put_string(b, "key.of.some.length"), put(b, QN_META_ARRAY, 4), put(b, QN_META_ARRAY, 4), put(b, 0, 8);
}
static void lie_alignment(blob *b) {
  put_head(b, 0, 1);
  put_string(b, "general.alignment"), put(b, QN_META_U32, 4), put(b, 24, 4);
}
static void lie_row(blob *b) { put_head(b, 1, 0), put_tensor(b, "w", 40, 2, 2, 0); }
static void lie_shape(blob *b) { put_head(b, 1, 0), put_tensor(b, "w", 1ull << 62, 1ull << 40, 0, 0); }
static void lie_negative(blob *b) { put_head(b, 1, 0), put_tensor(b, "w", 1ull << 63, 1, 0, 0); }
static void lie_type(blob *b) { /* 999: it takes what lies before the next */
  put_head(b, 2, 0);
  put_tensor(b, "w", 32, 1, 999, 64), put_tensor(b, "x", 32, 1, 2, 32);
}
static void lie_offset(blob *b) { put_head(b, 1, 0), put_tensor(b, "w", 32, 1, 2, 32); }
static void lie_size(blob *b) { put_head(b, 1, 0), put_tensor(b, "w", 32, 1000, 2, 0); }
static void lie_same(blob *b) {
  put_head(b, 2, 0);
  put_tensor(b, "w", 32, 1, 2, 0), put_tensor(b, "w", 32, 1, 2, 32);
}

static const struct {
  void (*lie)(blob *b);
  const char *expected;
} lies[] = {{lie_magic, "header of"},
            {lie_version, "GGUF version 1"},
            {lie_big_endian, "a big-endian file"},
            {lie_tensors, "1152921504606846976 tensors in"},
            {lie_keys, "18446744073709551615 keys in"},
            {lie_twice, "key k occurs twice"},
            {lie_string, "ends within key.of.some.length"},
            {lie_array, "ends within key.of.some.length"},
            {lie_nested, "array of type 9"},
            {lie_alignment, "power of two"},
            {lie_row, "not whole blocks of 32"},
            {lie_shape, "shape overflows"},
            {lie_negative, "a negative dimension"},
            {lie_type, "at offset 64, the next tensor at 32"},
            {lie_offset, "at offset 32, the tensors before it end at 0"},
            {lie_size, "18000 bytes at 0, the data has 64"},
            {lie_same, "tensor w occurs twice"}};

START_TEST(a_type_that_is_not_known_spares_the_others) {
  blob b = {.n = 0};
  put_head(&b, 3, 1);
  put_string(&b, "general.architecture"), put(&b, QN_META_STRING, 4), put_string(&b, "llama");
  put_tensor(&b, "blk.0.a.weight", 32, 2, 139, 0), put_tensor(&b, "token_embd.weight", 32, 2, 8, 96);
  put_tensor(&b, "blk.0.c.weight", 32, 2, 999, 192);
  put_blob("x.gguf", &b, 192 + 40);
  qn_model *m = open_folder();
  const qn_tensor *t = qn_model_find(m, "blk.0.a.weight"), *last = qn_model_find(m, "blk.0.c.weight");
  ck_assert(t->linear && t->quantized && t->bytes == 96 && last->bytes == 40);
  ck_assert_ptr_nonnull(strstr(t->refusal, "type 139 [2, 32] in a layout"));
  const qn_tensor *head = qn_model_find(m, "output.weight"); /* as llama.cpp does */
  ck_assert_str_eq(head->format, "int8.g32");
  ck_assert_str_eq(head->tied_to, "token_embd.weight");
  qn_model_close(m);
}
END_TEST

START_TEST(a_lying_gguf_is_refused) {
  blob b = {.n = 0};
  lies[_i].lie(&b);
  put_blob("x.gguf", &b, 64);
  refuse(path, QN_E_FORMAT, lies[_i].expected);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(metadata_of_every_type, 1),
      CASE(parts_of_a_gguf_are_put_together, 1),
      CASE(a_type_that_is_not_known_spares_the_others, 1),
      CASE(a_lying_gguf_is_refused, QN_COUNT(lies)),
  };
  return RUN_CASES(argv[0], cases, setup, teardown, 60);
}
