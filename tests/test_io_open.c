/* test_io_open.c - what a checkpoint is made of: shards and their index; what is written is read; the cost of opening
 * ten gigabytes. */
#include "io_folder.h"
#include <sys/stat.h>
#include <time.h>

/* ---- Shards ------------------------------------------------------------------------------------------------------ */

static void put_shards(const char *index) {
  put_tensors("model-00001-of-00002.safetensors", (qn_save[]){tensor("a.weight", "F16", 4, 8)}, 1);
  put_tensors("model-00002-of-00002.safetensors",
              (qn_save[]){tensor("b.qweight", "I32", 4, 32), tensor("b.qzeros", "I32", 1, 4)}, 2);
  put_tensors("model-00003-of-00002.safetensors", (qn_save[]){tensor("a.weight", "F16", 4, 8)}, 1);
  put_text("model.safetensors.index.json", index);
}

START_TEST(an_index_names_the_shards) {
  put_tensors("more.safetensors", (qn_save[]){tensor("b.scales", "F16", 1, 32)}, 1); /* a scale in another shard */
  put_shards("{\"metadata\":{\"total_size\":1},\"weight_map\":{\"a.weight\":\"model-00001-of-00002.safetensors\","
             "\"b.qweight\":\"model-00002-of-00002.safetensors\",\"b.scales\":\"more.safetensors\"}}");
  qn_model *m = open_folder();
  const qn_tensor *t = qn_model_find(m, "b.weight");
  ck_assert_ptr_nonnull(t);
  ck_assert_msg(t->format != NULL, "%s", t->refusal);
  ck_assert_str_eq(t->format, "int4.row.z");
  ck_assert_int_eq(t->k, 32);
  ck_assert_uint_eq(t->bytes, 4 * 32 * 4 + 4 * 4 + 32 * 2);
  ck_assert_double_eq_tol(qn_tensor_bpw(t), 8.0 * (512 + 16 + 64) / (32 * 32), 1e-9);
  qn_model_close(m);
}
END_TEST

static const struct {
  const char *index, *expected;
} indexes[] = {
    {"{\"weight_map\":{\"c.weight\":\"gone.safetensors\"}}",
     "names gone.safetensors, which is not there; there is model-00001"},
    {"{\"weight_map\":{\"c.weight\":\"../x.safetensors\"}}", "is not a file beside it"},
    {"{\"weight_map\":{\"c.weight\":\"/etc/passwd\"}}", "is not a file beside it"},
    {"{\"weight_map\":{}}", "names no tensor"},
    {"{\"weight_map\":{\"c\":1}}", "'\"' expected"},
    {"{\"weight_map\":{\"a.weight\":\"model-00001-of-00002.safetensors\",\"x\":\"model-00003-of-00002.safetensors\"}}",
     "a.weight occurs twice, in "},
    {"[", "'{' expected"},
};

START_TEST(a_wrong_index_is_refused) {
  put_shards(indexes[_i].index);
  qn_model *m;
  ck_assert_int_ne(qn_model_open(folder, &m), QN_OK);
  ck_assert_msg(strstr(qn_io_errmsg(), indexes[_i].expected) != NULL, "%s", qn_io_errmsg());
}
END_TEST

START_TEST(a_folder_without_an_index_is_read_whole) {
  put_tensors("b.safetensors", (qn_save[]){tensor("b.weight", "BF16", 4, 8)}, 1);
  put_tensors("a.safetensors", (qn_save[]){tensor("a.weight", "F32", 4, 8)}, 1);
  qn_model *m = open_folder();
  ck_assert_str_eq(qn_model_tensor(m, 0)->name, "a.weight");
  ck_assert_str_eq(qn_model_tensor(m, 1)->format, "bf16");
  ck_assert_ptr_null(qn_model_tensor(m, 2));
  qn_model_close(m);
}
END_TEST

START_TEST(folders_without_a_checkpoint_are_refused) {
  refuse(folder, QN_E_IO, "holds no .safetensors and no .gguf");
  put_text("config.json", "[1]");
  refuse(folder, QN_E_FORMAT, "not a JSON object");
  put_text("config.json", "{\"a\":1,}");
  refuse(folder, QN_E_FORMAT, "this is not JSON");
  unlink(in_folder("config.json"));
  ck_assert_int_eq(mkfifo(in_folder("pipe"), 0600), 0);
  refuse(path, QN_E_IO, "not a file");
  put_text("x.safetensors", "");
  refuse(folder, QN_E_FORMAT, "empty");
}
END_TEST

/* ---- Writing ----------------------------------------------------------------------------------------------------- */

START_TEST(what_is_written_is_read) {
  const uint8_t a[3] = {1, 2, 3};
  const double b[2] = {0.5, -2};
  const char *const meta[] = {"format", "a \"quoted\"\n\\ value"};
  const qn_save t[] = {{"a \"name\"", "U8", 1, {3}, a}, {"b", "F64", 2, {1, 2}, b}, {"s", "I32", 0, {0}, zeros}};
  ck_assert_int_eq(qn_safetensors_write(in_folder("x.safetensors"), t, 3, meta, 1), QN_OK);
  qn_model *m;
  ck_assert_msg(qn_model_open(path, &m) == QN_OK, "%s", qn_io_errmsg());
  ck_assert_str_eq(qn_model_raw(m, 0)->name, "b"); /* the widest first */
  ck_assert_mem_eq(qn_model_raw(m, 0)->data, b, sizeof b);
  ck_assert_uint_eq((uintptr_t)qn_model_raw(m, 0)->data % 8, 0);
  ck_assert_mem_eq(qn_model_find_raw(m, "a \"name\"")->data, a, 3);
  ck_assert_int_eq(qn_model_find_raw(m, "s")->n_dims, 0);
  qn_model_close(m);
}
END_TEST

START_TEST(what_cannot_be_written_leaves_nothing) {
  const qn_save twice[] = {tensor("a", "U8", 4, 0), tensor("a", "F32", 4, 0)};
  const qn_save odd = tensor("a", "F99", 4, 0);
  ck_assert_int_eq(qn_safetensors_write(in_folder("x"), twice, 2, NULL, 0), QN_E_ARG);
  ck_assert_int_eq(qn_safetensors_write(in_folder("x"), &odd, 1, NULL, 0), QN_E_ARG);
  ck_assert_int_eq(qn_safetensors_write(in_folder("no/x"), twice, 1, NULL, 0), QN_E_IO);
  const qn_save reserved = tensor("__metadata__", "U8", 4, 0);
  ck_assert_int_eq(qn_safetensors_write(in_folder("x"), &reserved, 1, NULL, 0), QN_E_ARG);
  ck_assert_int_eq(qn_safetensors_write(in_folder("x"), twice, 1, (const char *[]){"key", NULL}, 1), QN_E_ARG);
  ck_assert_int_eq(mkdir(in_folder("x"), 0700), 0); /* the rename must fail */
  ck_assert_int_eq(qn_safetensors_write(path, twice, 1, NULL, 0), QN_E_IO);
  ck_assert_int_eq(qn_npy_write(path, (const float[]){1}, 1, 1), QN_E_IO);
  ck_assert_int_eq(rmdir(path), 0);
  ck_assert_int_eq(rmdir(folder), 0); /* no temporary file was left */
  ck_assert_int_eq(mkdir(folder, 0700), 0);
}
END_TEST

START_TEST(null_is_refused) {
  qn_model *m;
  qn_planes *p;
  size_t length = 1;
  ck_assert_int_eq(qn_model_open(QN_TESTS "/models/tiny-llama-gptq4", &m), QN_OK);
  const qn_tensor *t = qn_model_tensor(m, 0);
  ck_assert_int_eq(qn_model_planes(NULL, t, 0, &p), QN_E_ARG);
  ck_assert_int_eq(qn_model_planes(m, NULL, 0, &p), QN_E_ARG);
  ck_assert_int_eq(qn_model_planes(m, t, 0, NULL), QN_E_ARG);
  ck_assert_int_eq(qn_model_expert(m, NULL, 0, &p), QN_E_ARG);
  ck_assert_ptr_null(p);
  ck_assert(!qn_model_tensor(NULL, 0) && !qn_model_stack(NULL, 0) && !qn_model_raw(NULL, 0) && !qn_model_meta(NULL, 0));
  ck_assert(!qn_model_find(NULL, "x") && !qn_model_find_raw(NULL, "x") && !qn_model_find_meta(NULL, "x"));
  ck_assert(!qn_model_find(m, NULL) && !qn_model_find_raw(m, NULL) && !qn_model_find_meta(m, NULL));
  ck_assert(!qn_model_remark(NULL) && !qn_model_config(NULL, &length) && !length && !qn_model_config(m, NULL));
  ck_assert(qn_tensor_bpw(NULL) == 0 && !qn_planes_find(NULL, "codes"));
  qn_model_release(NULL);
  qn_model_close(m);
  const qn_save one = tensor("a", "U8", 4, 0);
  qn_writer *w;
  ck_assert_int_eq(qn_writer_open(in_folder("x"), &one, 1, NULL, 0, NULL), QN_E_ARG);
  ck_assert_int_eq(qn_writer_open(in_folder("x"), &one, 1, NULL, 0, &w), QN_OK);
  ck_assert_int_eq(qn_writer_put(w, NULL, zeros, 4), QN_E_ARG);
  ck_assert_int_eq(qn_writer_put(w, "a", NULL, 4), QN_E_ARG);
  ck_assert_int_eq(qn_writer_put(NULL, "a", zeros, 4), QN_E_ARG);
  ck_assert_int_eq(qn_writer_close(NULL), QN_E_ARG);
  qn_writer_abandon(w);
}
END_TEST

/* ---- Size -------------------------------------------------------------------------------------------------------- */

static long resident_kb(void) {
  long pages = 0;
  FILE *f = fopen("/proc/self/statm", "r");
  if (f && fscanf(f, "%*d %ld", &pages) != 1) pages = 0;
  if (f) fclose(f);
  return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

START_TEST(ten_gigabytes_are_cheap_to_open) { /* 40 layers of seven GPTQ weights, in a file of holes */
  enum { LAYERS = 40, WEIGHTS = 7, N = 8192, K = 9216 };
  char *header = NULL;
  size_t length = 0;
  uint64_t at = 0;
  FILE *h = open_memstream(&header, &length);
  fputc('{', h);
  for (int i = 0; i < LAYERS * WEIGHTS; i++) {
    static const struct {
      const char *name, *dtype;
      int rows, cols, bytes;
    } parts[] = {
        {"qweight", "I32", K / 8, N, 4}, {"qzeros", "I32", K / 128, N / 8, 4}, {"scales", "F16", K / 128, N, 2}};
    for (size_t j = 0; j < QN_COUNT(parts); j++) {
      uint64_t end = at + (uint64_t)parts[j].rows * (uint64_t)parts[j].cols * (uint64_t)parts[j].bytes;
      fprintf(h, "%s\"model.layers.%d.w%d.%s\":{\"dtype\":\"%s\",\"shape\":[%d,%d],\"data_offsets\":[%ju,%ju]}",
              at ? "," : "", i / WEIGHTS, i % WEIGHTS, parts[j].name, parts[j].dtype, parts[j].rows, parts[j].cols,
              (uintmax_t)at, (uintmax_t)end);
      at = end;
    }
  }
  fputc('}', h);
  fclose(h);
  uint64_t n = length;
  FILE *f = fopen(in_folder("model.safetensors"), "wb");
  fwrite(&n, 8, 1, f), fwrite(header, 1, length, f);
  fflush(f);
  ck_assert_uint_ge(at, 10000000000u);
  ck_assert_int_eq(ftruncate(fileno(f), (off_t)(8 + length + at)), 0);
  fclose(f);
  free(header);
  put_text("config.json", "{\"quantization_config\":{\"bits\":4,\"group_size\":128,\"sym\":true}}");
  struct timespec t0, t1;
  long before = resident_kb();
  clock_gettime(CLOCK_MONOTONIC, &t0);
  qn_model *m = open_folder();
  clock_gettime(CLOCK_MONOTONIC, &t1);
  long grown = resident_kb() - before;
  printf("opening %.1f GB: %.2f ms, %ld kB\n", (double)at * 1e-9,
         1e3 * (double)(t1.tv_sec - t0.tv_sec) + 1e-6 * (double)(t1.tv_nsec - t0.tv_nsec), grown);
  ck_assert_int_lt(grown, 20000);
  const qn_tensor *t = qn_model_find(m, "model.layers.39.w6.weight");
  ck_assert_str_eq(t->format, "int4.g128");
  ck_assert(t->n == N && t->k == K);
  qn_model_close(m);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(an_index_names_the_shards, 1),
      CASE(a_wrong_index_is_refused, QN_COUNT(indexes)),
      CASE(a_folder_without_an_index_is_read_whole, 1),
      CASE(folders_without_a_checkpoint_are_refused, 1),
      CASE(what_is_written_is_read, 1),
      CASE(what_cannot_be_written_leaves_nothing, 1),
      CASE(null_is_refused, 1),
      CASE(ten_gigabytes_are_cheap_to_open, 1),
  };
  return RUN_CASES(argv[0], cases, setup, teardown, 60);
}
