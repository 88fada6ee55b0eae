/* test_io_open.c - what a checkpoint is made of: shards and their index, parts of a GGUF, metadata, what the
 * configuration and the tensors contradict each other in, and the cost of opening ten gigabytes. */
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

/* ---- Weights ----------------------------------------------------------------------------------------------------- */

/* Codes that no dialect takes: one weight a layer, its reason, its bytes with all that lies beside the codes. A bias
 * and another layer are none of it. */
static const struct {
  const char *config;
  qn_save t[5];
  const char *name, *reason;
  uint64_t bytes;
} unread[] = {
    {"{}",
     {{"a.q_weight", "I32", 2, {4, 8}, zeros},
      {"a.q_scale", "I32", 2, {1, 8}, zeros},
      {"a.q_groups", "I16", 1, {8}, zeros}},
     "a.weight",
     "EXL2",
     128 + 32 + 16},
    {"{}",
     {{"a.trellis", "I16", 3, {1, 2, 16}, zeros}, {"a.suh", "F16", 1, {16}, zeros}, {"a.svh", "F16", 1, {16}, zeros}},
     "a.weight",
     "EXL3",
     64 + 32 + 32},
    {"{}",
     {{"a.codes", "I8", 3, {4, 2, 1}, zeros}, {"a.codebooks", "F16", 4, {1, 8, 1, 8}, zeros}},
     "a.weight",
     "AQLM",
     8 + 128},
    {"{}",
     {{"a.indices", "I32", 3, {1, 4, 8}, zeros}, {"a.centroids.weight", "F16", 2, {1, 64}, zeros}},
     "a.weight",
     "VPTQ",
     128 + 128},
    {"{}",
     {{"a.weight._data", "U8", 2, {4, 8}, zeros}, {"a.weight._scale", "F16", 2, {4, 1}, zeros}},
     "a.weight",
     "quanto",
     32 + 8},
    {"{}", {{"a.Qidxs", "I64", 2, {4, 2}, zeros}, {"a.SU", "F16", 1, {8}, zeros}}, "a.weight", "QuIP#", 64 + 16},
    {"{\"quantization_config\":{\"format\":\"mxfp6-pack-quantized\"}}",
     {{"a.weight_packed", "U8", 2, {2, 24}, zeros}, {"a.weight_scale", "U8", 2, {2, 1}, zeros}},
     "a.weight",
     "MXFP6",
     48 + 2},
    {"{\"quantization_config\":{\"quant_method\":\"onebit\"}}", /* else a dialect's int8 */
     {{"a.weight", "I8", 2, {16, 4}, zeros}, {"a.weight_scale", "F16", 1, {16}, zeros}},
     "a.weight",
     "OneBit",
     64 + 32},
    {"{}",
     {{"a.weight.compressed", "BF16", 2, {16, 4}, zeros}, {"a.weight.bitmask", "U8", 2, {16, 1}, zeros}},
     "a.weight",
     "with a bitmask",
     128 + 16},
    {"{\"quantization_config\":{\"quant_method\":\"other\"}}", /* a scale of 8 bits comes first by name */
     {{"a.weight", "U8", 2, {16, 4}, zeros},
      {"a.scale", "F8_E8M0", 2, {2, 1}, zeros},
      {"a.bias", "F16", 1, {16}, zeros}},
     "a.weight",
     "U8 [16, 4] in a layout that no dialect reads; the configuration calls it \"other\"",
     64 + 2},
    {"{}",
     {{"a.experts.up", "F8_E4M3", 3, {2, 4, 8}, zeros},
      {"a.experts.up_scale", "F32", 3, {2, 1, 1}, zeros},
      {"a.experts.down", "F8_E4M3", 3, {2, 4, 8}, zeros}},
     "a.experts.up",
     "F8_E4M3 [2, 4, 8] in a layout",
     64 + 8},
};

START_TEST(codes_that_nobody_reads_are_named) {
  qn_save t[6];
  size_t n = 0;
  while (n < 5 && unread[_i].t[n].name) t[n] = unread[_i].t[n], n++;
  t[n++] = tensor("a_norm.weight", "F16", 4, 8);
  put_text("config.json", unread[_i].config);
  put_tensors("model.safetensors", t, n);
  qn_model *m = open_folder();
  const qn_tensor *w = qn_model_find(m, unread[_i].name);
  ck_assert(w && w->quantized && w->linear && !w->format);
  ck_assert_msg(strstr(w->refusal, unread[_i].reason) != NULL, "%s", w->refusal);
  ck_assert_uint_eq(w->bytes, unread[_i].bytes);
  for (size_t i = 0; i < n; i++) { /* each tensor is a part of some weight */
    const qn_raw *r = qn_model_find_raw(m, t[i].name);
    ck_assert_ptr_nonnull(qn_model_find(m, r->weight));
    bool other = strstr(r->name, "bias") || strstr(r->name, "norm") || strstr(r->name, "down");
    ck_assert_int_eq(r->weight == w->name, !other);
  }
  ck_assert_ptr_nonnull(qn_model_find(m, "a_norm.weight")->format);
  qn_model_close(m);
}
END_TEST

/* A weight that cannot be read is listed with the reason; the others of the model are fine. */
static const struct {
  const char *config;
  qn_save t[6];
  const char *name, *reason;
} refusals[] = {
    {"{}", {{"a.qweight", "I32", 2, {4, 8}, zeros}}, "a.qweight", "I32 [4, 8] in a layout that no dialect reads"},
    {"{}", {{"a.qweight", "I64", 2, {4, 8}, zeros}}, "a.qweight", "I64 [4, 8] in a layout that no dialect reads"},
    {"{}", {{"a.weight", "F64", 2, {4, 8}, zeros}}, "a.weight", "dtype F64; F16 BF16 F32 is read"},
    {"{\"quantization_config\":{\"checkpoint_format\":\"marlin\"}}",
     {{"a.qweight", "I32", 2, {4, 8}, zeros},
      {"a.qzeros", "I32", 2, {1, 1}, zeros},
      {"a.scales", "F16", 2, {1, 8}, zeros}},
     "a.weight",
     "layout \"marlin\""},
    {"{\"quantization_config\":{\"checkpoint_format\":\"bitblas\"}}",
     {{"a.qweight", "I32", 2, {4, 8}, zeros},
      {"a.qzeros", "I32", 2, {1, 1}, zeros},
      {"a.scales", "F16", 2, {1, 8}, zeros}},
     "a.weight",
     "layout \"bitblas\""},
    {"{\"quantization_config\":{\"quant_method\":\"modelopt\",\"quant_algo\":\"W4A16_AWQ\"}}",
     {{"a.weight", "U8", 2, {4, 32}, zeros},
      {"a.weight_scale", "F16", 2, {8, 1}, zeros},
      {"a.pre_quant_scale", "F16", 1, {32}, zeros}},
     "a.weight",
     "a.pre_quant_scale: activations"},
    {"{\"quantization_config\":{\"quant_method\":\"quark\",\"global_quant_config\":{\"weight\":{\"dtype\":\"int4\","
     "\"qscheme\":\"per_channel\"}}}}",
     {{"a.weight", "I32", 2, {8, 4}, zeros}, {"a.weight_scale", "F16", 1, {8}, zeros}},
     "a.weight",
     "Quark's int4, per_channel"},
    {"{}",
     {{"a.weight", "U32", 2, {8, 4}, zeros},
      {"a.scales", "F16", 2, {8, 1}, zeros},
      {"a.biases", "F16", 2, {8, 1}, zeros}},
     "a.weight",
     "bits x group size"},
    {"{\"quantization\":{\"bits\":4,\"group_size\":64}}",
     {{"a.weight", "U32", 2, {8, 4}, zeros},
      {"a.scales", "F16", 2, {8, 1}, zeros},
      {"a.biases", "F16", 2, {8, 1}, zeros}},
     "a.weight",
     "no whole groups of 64"},
    {"{\"quantization_config\":{\"quant_method\":\"awq\",\"version\":\"gemv\"}}",
     {{"a.qweight", "I32", 2, {8, 4}, zeros},
      {"a.qzeros", "I32", 2, {8, 1}, zeros},
      {"a.scales", "F16", 2, {8, 8}, zeros}},
     "a.weight",
     "no configuration says \"group_size\""},
    {"{\"quantization_config\":{\"quant_method\":\"awq\",\"version\":\"marlin\"}}", /* no zero points */
     {{"a.qweight", "I32", 2, {1, 16}, zeros}, {"a.scales", "F16", 2, {2, 8}, zeros}},
     "a.weight",
     "\"marlin\""},
    {"{\"quantization_config\":{\"quant_method\":\"awq\",\"version\":\"gemm\"}}",
     {{"a.qweight", "I32", 2, {8, 1}, zeros}, {"a.scales", "F16", 2, {2, 8}, zeros}},
     "a.weight",
     "no .qzeros beside it"},
    {"{}",
     {{"a.qweight", "I32", 2, {4, 8}, zeros},
      {"a.qzeros", "I32", 2, {3, 1}, zeros},
      {"a.scales", "F16", 2, {1, 8}, zeros}},
     "a.weight",
     "a.qzeros: shape [3, 1]; [1, *] is expected"},
    {"{}",
     {{"a.qweight", "I32", 2, {4, 8}, zeros},
      {"a.qzeros", "I32", 2, {1, 1}, zeros},
      {"a.scales", "I32", 2, {1, 8}, zeros}},
     "a.weight",
     "a.scales: dtype I32; F16 BF16 F32 is read"},
    {"{}",
     {{"a.weight", "U8", 2, {64, 1}, zeros},
      {"a.weight.absmax", "BF16", 2, {1, 2}, zeros},
      {"a.weight.quant_map", "F32", 1, {16}, zeros},
      {"a.weight.quant_state.bitsandbytes__nf4", "U8", 1, {33}, "{\"shape\":[2,64],\"blocksize\":64}  "}},
     "a.weight",
     "CPU kernels"},
    {"{}",
     {{"a.weight", "U8", 2, {64, 1}, zeros},
      {"a.weight.absmax", "F32", 1, {2}, zeros},
      {"a.weight.quant_map", "F32", 1, {16}, zeros},
      {"a.weight.quant_state.bitsandbytes__nf4", "U8", 1, {33}, "{\"shape\":[2,64],\"blocksize\":64}  "}},
     "a.weight",
     "entry 0 is 0, in nf4 it is -1"},
    {"{}",
     {{"a.weight", "F8_E4M3", 2, {8, 8}, zeros}, {"a.weight_scale_inv", "F32", 2, {3, 1}, zeros}},
     "a.weight",
     "3 x 1 scales do not divide a weight of 8 x 8"},
    {"{}", /* a fuzzer's: 1.7e19 as an integer */
     {{"a.W_q", "U8", 2, {1, 8}, zeros},
      {"a.scale", "F16", 2, {2, 1}, zeros},
      {"a.zero", "F16", 2, {2, 1}, zeros},
      {"a.shape", "I64", 1, {2}, "\2\0\0\0\0\0\0\0\10\0\0\0\0\0\0"},
      {"a.packing", "U8", 1, {7}, "4bit_u8"},
      {"a.axis", "F32", 0, {0}, "\137\147\147\137"}},
     "a.weight",
     "axis -1"},
    {"{}", /* 2^31 x 2^31 codes in one row of ten parts: the bytes of that overflow to what is there */
     {{"a.W_q", "I32", 2, {1, 8}, zeros},
      {"a.scale", "F16", 2, {1, 1}, zeros},
      {"a.zero", "F16", 2, {1, 1}, zeros},
      {"a.shape", "I64", 1, {2}, "\xff\xff\xff\x7f\0\0\0\0\xff\xff\xff\x7f\0\0\0"},
      {"a.packing", "U8", 1, {7}, "3bit_32"}},
     "a.weight",
     "32 bytes for 2147483647 x 2147483647 codes"},
    {"{\"quantization_config\":{\"bits\":3,\"format\":\"gptq_p\"}}", /* a planar group is 32 codes: three words */
     {{"a.qweight", "I32", 2, {2, 32}, zeros},
      {"a.qzeros", "I32", 2, {1, 3}, zeros},
      {"a.scales", "F16", 2, {1, 32}, zeros},
      {"a.g_idx", "I32", 1, {21}, zeros}},
     "a.weight",
     "2 rows of words"},
    {"{\"quantization_config\":{\"bits\":3,\"format\":\"gptq_p\"}}",
     {{"a.qweight", "I32", 2, {3, 21}, zeros},
      {"a.qzeros", "I32", 2, {1, 2}, zeros},
      {"a.scales", "F16", 2, {1, 21}, zeros}},
     "a.weight",
     "2 words for 21 zero points"},
    {"{}", /* 128 and 64, or 96 and 96 */
     {{"a.qweight", "I32", 2, {24, 32}, zeros},
      {"a.qzeros", "I32", 2, {2, 4}, zeros},
      {"a.scales", "F16", 2, {2, 32}, zeros}},
     "a.weight",
     "may have 96 codes or 128"},
    {"{}", /* 64 codes of 2 bits, 42 of 3 or 32 of 4 */
     {{"a.qweight", "I32", 2, {4, 8}, zeros},
      {"a.qzeros", "I32", 2, {1, 1}, zeros},
      {"a.scales", "F16", 2, {1, 8}, zeros}},
     "a.weight",
     "no configuration says \"bits\""},
    {"{\"quantization_config\":{\"bits\":4,\"dynamic\":{\"(?i)A\":{\"bits\":8}}}}",
     {{"a.qweight", "I32", 2, {4, 32}, zeros},
      {"a.qzeros", "I32", 2, {1, 4}, zeros},
      {"a.scales", "F16", 2, {1, 32}, zeros}},
     "a.weight",
     "rule \"(?i)A\""},
};

START_TEST(a_weight_that_cannot_be_read_says_why) {
  qn_save t[7];
  size_t n = 0;
  while (n < 6 && refusals[_i].t[n].name) t[n] = refusals[_i].t[n], n++;
  t[n++] = tensor("z.weight", "F16", 4, 8);
  put_text("config.json", refusals[_i].config);
  put_tensors("model.safetensors", t, n);
  qn_model *m = open_folder();
  const qn_tensor *bad = qn_model_find(m, refusals[_i].name), *good = qn_model_find(m, "z.weight");
  ck_assert(bad && good && good->format && !bad->format);
  ck_assert_msg(strstr(bad->refusal, refusals[_i].reason) != NULL, "%s", bad->refusal);
  qn_planes *p;
  ck_assert_int_eq(qn_model_planes(m, bad, 0, &p), QN_E_SHAPE);
  ck_assert_msg(strstr(qn_io_errmsg(), refusals[_i].reason) != NULL, "%s", qn_io_errmsg());
  ck_assert_int_eq(qn_model_planes(m, good, 1, &p), QN_E_ARG);
  ck_assert_int_eq(qn_model_planes(m, good, 0, &p), QN_OK);
  qn_planes_free(p);
  qn_model_close(m);
}
END_TEST

/* Contents are looked at when planes are asked for. */
static void refuse_planes(const char *config, const int32_t *zero_words, const int32_t *g_idx, const char *expected) {
  put_text("config.json", config);
  put_tensors("model.safetensors",
              (qn_save[]){tensor("a.qweight", "I32", 1, 8),
                          {"a.qzeros", "I32", 2, {2, 1}, zero_words},
                          tensor("a.scales", "F16", 2, 8),
                          {"a.g_idx", "I32", 1, {8}, g_idx}},
              4);
  qn_model *m = open_folder();
  const qn_tensor *t = qn_model_find(m, "a.weight");
  ck_assert_msg(t->format != NULL, "%s", t->refusal);
  qn_planes *p;
  ck_assert_int_eq(qn_model_planes(m, t, 0, &p), QN_E_FORMAT);
  ck_assert_ptr_null(p);
  ck_assert_msg(strstr(qn_io_errmsg(), expected) != NULL, "%s", qn_io_errmsg());
  qn_model_close(m);
}

START_TEST(contents_that_contradict_the_header_are_refused) {
  static const char asym[] = "{\"quantization_config\":{\"bits\":4,\"group_size\":4,\"sym\":false}}",
                    sym[] = "{\"quantization_config\":{\"bits\":4,\"group_size\":4,\"sym\":true}}";
  const int32_t mid[2] = {0x77777777, 0x77777777}, other[2] = {0x77777777, 0x77577777};
  const int32_t natural[8] = {0, 0, 0, 0, 1, 1, 1, 1}, beyond[8] = {0, 0, 0, 0, 1, 1, 1, 2},
                full[8] = {0, 0, 0, 0, 0, 1, 1, 1}, negative[8] = {0, 0, 0, 0, 1, 1, 1, -7};
  refuse_planes(sym, other, natural, "zero point 6 of group 1, row 5");
  refuse_planes(asym, mid, beyond, "group 2 of column 7; there are 2");
  refuse_planes(asym, mid, negative, "group -7 of column 7");
  refuse_planes(asym, mid, full, "group 0 has more than 4 members");
}
END_TEST

START_TEST(bits_may_differ_from_layer_to_layer) { /* GPTQModel's "dynamic": the configuration's bits are a default */
  put_text("config.json", "{\"quantization_config\":{\"bits\":4,\"group_size\":32,\"sym\":false}}");
  put_tensors("model.safetensors",
              (qn_save[]){tensor("a.qweight", "I32", 16, 32), tensor("a.qzeros", "I32", 2, 8),
                          tensor("a.scales", "F16", 2, 32), tensor("b.qweight", "I32", 6, 32),
                          tensor("b.qzeros", "I32", 1, 3), tensor("b.scales", "BF16", 1, 32)},
              6);
  qn_model *m = open_folder();
  ck_assert_str_eq(qn_model_find(m, "a.weight")->format, "int8.g32.z");
  ck_assert_str_eq(qn_model_find(m, "b.weight")->format, "int3.row.z.bf16");
  ck_assert_int_eq(qn_model_find(m, "a.weight")->k, 64);
  ck_assert_int_eq(qn_model_find(m, "b.weight")->k, 64);
  qn_model_close(m);
}
END_TEST

/* The rules of "dynamic", and whether they are meant for model.layers.10.mlp.up_proj, as Python's re.match sees it. */
static const struct {
  const char *rule;
  bool meant;
} rules[] = {
    {"model.layers.10.mlp.up_proj", true},
    {"+:model", true},
    {"+:.*up_proj", true},
    {"+:.*up_proj$", true},
    {"+:up_proj", false},     /* from the start of the name */
    {"-:.*up_proj.*", false}, /* one that is left as it is has no settings */
    {"+:.*\\\\.10\\\\..*", true},
    {"+:.*\\\\.1\\\\..*", false},
    {"+:.*layers\\\\.(8|9|1\\\\d)\\\\.mlp", true},
    {"+:.*layers\\\\.(?:[2-9]|1[1-9])\\\\.", false},
    {"+:.*\\\\.[^.]*_proj$", true},
    {"+:.*?\\\\.mlp\\\\.(?!gate)\\\\w+", true},
    {"+:.*?\\\\.mlp\\\\.(?!up)\\\\w+", false},
    {"+:(?=.*mlp).*up_proj", true},
    {"+:(model\\\\.)?(\\\\w+\\\\.){5}\\\\w+$", false},
    {"+:(model\\\\.)?(\\\\w+\\\\.){3}\\\\w+$", true},
    {"+:(\\\\w+\\\\.){2,}up", true},
    {"+:(((((\\\\w*)*)*)*\\\\.?)*)*!", false}, /* where others try forever */
    {"+:^$|^model\\\\.layers", true},
    {"+:lm_head|", true},
};

START_TEST(a_rule_is_for_the_names_that_it_matches) {
  char config[256];
  snprintf(config, sizeof config,
           "{\"quantization_config\":{\"bits\":4,\"group_size\":32,\"sym\":true,\"dynamic\":{\"never\":{\"bits\":8},"
           "\"%s\":{\"sym\":false},\".*\":{\"sym\":true}}}}",
           rules[_i].rule);
  put_text("config.json", config);
  put_tensors("model.safetensors",
              (qn_save[]){tensor("model.layers.10.mlp.up_proj.qweight", "I32", 8, 32),
                          tensor("model.layers.10.mlp.up_proj.qzeros", "I32", 2, 4),
                          tensor("model.layers.10.mlp.up_proj.scales", "F16", 2, 32)},
              3);
  qn_model *m = open_folder();
  const qn_tensor *t = qn_model_tensor(m, 0);
  ck_assert_msg(t->format != NULL, "%s", t->refusal);
  ck_assert_msg(!strcmp(t->format, rules[_i].meant ? "int4.g32.z" : "int4.g32"), "%s: %s", rules[_i].rule, t->format);
  qn_model_close(m);
}
END_TEST

START_TEST(activations_are_named) {
  static const char *const models[][3] = {
      {"tiny-llama-ct-w8a8", "i8.row"}, {"tiny-llama-ct-fp8-block", "e4m3.g128"}, {"tiny-llama-ct-w4a16", NULL}};
  for (size_t i = 0; i < QN_COUNT(models); i++) {
    char name[256];
    qn_model *m;
    snprintf(name, sizeof name, QN_TESTS "/models/%s", models[i][0]);
    ck_assert_int_eq(qn_model_open(name, &m), QN_OK);
    const qn_tensor *t = qn_model_find(m, "model.layers.0.mlp.up_proj.weight");
    if (models[i][1]) ck_assert_str_eq(t->activation, models[i][1]);
    else ck_assert_ptr_null(t->activation);
    qn_model_close(m);
  }
}
END_TEST

START_TEST(unaligned_tensors_are_copied) { /* an odd header moves all data by a byte */
  static const char header[] = "{\"a\":{\"dtype\":\"F16\",\"shape\":[1,3],\"data_offsets\":[0,6]}}  ";
  FILE *f = fopen(in_folder("x.safetensors"), "wb");
  uint64_t n = sizeof header - 1;
  n -= n % 2 == 0;
  fwrite(&n, 8, 1, f), fwrite(header, 1, n, f), fwrite("\1\2\3\4\5\6", 1, 6, f), fclose(f);
  qn_model *m;
  qn_planes *p;
  ck_assert_msg(qn_model_open(path, &m) == QN_OK, "%s", qn_io_errmsg());
  ck_assert_int_eq(qn_model_planes(m, qn_model_tensor(m, 0), 0, &p), QN_OK);
  ck_assert_uint_eq((uintptr_t)p->plane[0].data % 2, 0);
  ck_assert_mem_eq(p->plane[0].data, "\1\2\3\4\5\6", 6);
  qn_planes_free(p);
  qn_model_close(m);
}
END_TEST

START_TEST(a_stack_of_experts_has_slices) {
  uint16_t x[2 * 3 * 4];
  for (int i = 0; i < 24; i++) x[i] = (uint16_t)i;
  put_tensors("model.safetensors", (qn_save[]){{"experts", "F16", 3, {2, 3, 4}, x}}, 1);
  qn_model *m = open_folder();
  const qn_tensor *t = qn_model_tensor(m, 0);
  qn_planes *p;
  ck_assert(t->slices == 2 && t->n == 3 && t->k == 4);
  ck_assert_int_eq(qn_model_planes(m, t, 1, &p), QN_OK);
  ck_assert_mem_eq(p->plane[0].data, x + 12, 24);
  qn_planes_free(p);
  qn_model_close(m);
}
END_TEST

/* ---- GGUF -------------------------------------------------------------------------------------------------------- */

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
  ck_assert_int_eq(mkdir(in_folder("x"), 0700), 0); /* the rename must fail */
  ck_assert_int_eq(qn_safetensors_write(path, twice, 1, NULL, 0), QN_E_IO);
  ck_assert_int_eq(qn_npy_write(path, (const float[]){1}, 1, 1), QN_E_IO);
  ck_assert_int_eq(rmdir(path), 0);
  ck_assert_int_eq(rmdir(folder), 0); /* no temporary file was left */
  ck_assert_int_eq(mkdir(folder, 0700), 0);
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
  Suite *s = suite_create("io_open");
  TCase *t = tcase_create("models");
  tcase_set_timeout(t, 60);
  tcase_add_checked_fixture(t, setup, teardown);
  tcase_add_test(t, an_index_names_the_shards);
  tcase_add_loop_test(t, a_wrong_index_is_refused, 0, (int)QN_COUNT(indexes));
  tcase_add_test(t, a_folder_without_an_index_is_read_whole);
  tcase_add_test(t, folders_without_a_checkpoint_are_refused);
  tcase_add_loop_test(t, codes_that_nobody_reads_are_named, 0, (int)QN_COUNT(unread));
  tcase_add_loop_test(t, a_weight_that_cannot_be_read_says_why, 0, (int)QN_COUNT(refusals));
  tcase_add_test(t, contents_that_contradict_the_header_are_refused);
  tcase_add_test(t, bits_may_differ_from_layer_to_layer);
  tcase_add_loop_test(t, a_rule_is_for_the_names_that_it_matches, 0, (int)QN_COUNT(rules));
  tcase_add_test(t, activations_are_named);
  tcase_add_test(t, unaligned_tensors_are_copied);
  tcase_add_test(t, a_stack_of_experts_has_slices);
  tcase_add_test(t, metadata_of_every_type);
  tcase_add_test(t, parts_of_a_gguf_are_put_together);
  tcase_add_test(t, a_type_that_is_not_known_spares_the_others);
  tcase_add_loop_test(t, a_lying_gguf_is_refused, 0, (int)QN_COUNT(lies));
  tcase_add_test(t, what_is_written_is_read);
  tcase_add_test(t, what_cannot_be_written_leaves_nothing);
  tcase_add_test(t, ten_gigabytes_are_cheap_to_open);
  suite_add_tcase(s, t);
  return run_suite(s, argv[0]);
}
