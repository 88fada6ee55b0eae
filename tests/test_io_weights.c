/* test_io_weights.c - weights of a checkpoint: what the configuration says of them, what of them cannot be read and
 * why, and where the two contradict each other. */
#include "io_folder.h"
#include <math.h>

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

#define CT(settings) "{\"quantization_config\":{\"config_groups\":{\"g\":{\"input_activations\":{" settings "}}}}}"

/* Of a weight in e4m3: the activation of its layer, a tensor beside it, and the scale that is taken from that. */
static const struct {
  const char *config, *activation, *tensor;
  float value, scale;
} scaled[] = {
    {CT("\"num_bits\":8,\"type\":\"float\",\"strategy\":\"tensor\",\"dynamic\":false"), "e4m3.tensor", "a.input_scale",
     .5f, .5f},
    {CT("\"num_bits\":8,\"type\":\"float\",\"strategy\":\"tensor\",\"dynamic\":true"), "e4m3.tensor", "b.input_scale",
     .5f, 0},
    {CT("\"num_bits\":8,\"type\":\"float\",\"strategy\":\"token\",\"dynamic\":true"), "e4m3.row", "a.input_scale", .5f,
     0},
    {CT("\"num_bits\":8,\"type\":\"int\",\"symmetric\":false,\"strategy\":\"token\""), "i8z.row", "a.input_scale", .5f,
     0},
    {CT("\"num_bits\":8,\"type\":\"float\",\"strategy\":\"group\",\"group_size\":32,\"scale_dtype\":\"torch.uint8\""),
     "mxfp8.g32", "b.input_scale", 1, 0},
    {CT("\"num_bits\":4,\"type\":\"float\",\"strategy\":\"group\",\"group_size\":32,\"scale_dtype\":\"torch.uint8\""),
     "mxfp4.g32", "b.input_scale", 1, 0},
    {CT("\"num_bits\":4,\"type\":\"int\",\"strategy\":\"token\""), "int4.row", "b.input_scale", 1, 0},
    {CT("\"num_bits\":4,\"type\":\"float\",\"strategy\":\"tensor_group\",\"group_size\":16,\"dynamic\":\"local\""),
     "nvfp4.g16", "a.input_global_scale", 8, .125f},
    {CT("\"num_bits\":4,\"type\":\"float\",\"group_size\":16,\"dynamic\":false"), "nvfp4.g16", "a.input_scale", 8,
     8}, /* ModelOpt's */
    {"{\"quantization_config\":{\"quant_method\":\"modelopt\",\"quant_algo\":\"FP8\"}}", "e4m3.tensor", "a.input_scale",
     .5f, .5f},
    {"{\"quantization_config\":{\"quant_method\":\"modelopt\",\"quant_algo\":\"NVFP4\"}}", "nvfp4.g16", "a.input_scale",
     .5f, .5f},
    {"{\"quantization_config\":{\"quant_method\":\"fp8\",\"activation_scheme\":\"static\"}}", "e4m3.tensor",
     "a.input_scale", .5f, .5f},
    {"{\"quantization_config\":{\"quant_method\":\"fp8\",\"activation_scheme\":\"dynamic\"}}", NULL, "a.input_scale",
     .5f, 0},
};

/* config_groups for different layers: what is said of a, in e4m3, beside one of b, in another way. */
#define CT_OTHER "\"input_activations\":{\"num_bits\":8,\"type\":\"int\",\"strategy\":\"token\"}"
#define CT_FLOAT "\"input_activations\":{\"num_bits\":8,\"type\":\"float\",\"strategy\":\"token\"}"
#define CT_TWO(first, second) "{\"quantization_config\":{\"config_groups\":{\"g\":{" first "},\"h\":{" second "}}}}"
#define TO(targets) "\"targets\":[" targets "],"
static const struct {
  const char *config, *activation;
} grouped[] = {
    {CT_TWO(TO("\"re:b.*\"") CT_OTHER, TO("\"Linear\"") CT_FLOAT), "e4m3.row"},
    {CT_TWO(TO("\"Linear\"") CT_OTHER, TO("\"b\",\"re:a$\"") CT_FLOAT), "e4m3.row"},
    {CT_TWO(TO("\"re:a$\"") CT_OTHER, TO("\"a\"") CT_FLOAT), "e4m3.row"},
    {CT_TWO(TO("\"Linear\"") CT_OTHER, "\"targets\":[\"a\"]"), NULL},
    {CT_TWO(TO("\"b\"") CT_OTHER, TO("\"c\"") CT_FLOAT), "i8.row"}, /* none is meant */
    {CT_TWO(CT_FLOAT, CT_OTHER), "e4m3.row"},
    {CT_TWO(TO("\"re:(?<=x)a\"") CT_OTHER, TO("\"a\"") CT_FLOAT), "e4m3.row"},
    {CT_TWO(TO("\"Linear\"") CT_OTHER, TO("\"re:(?<=x)a\"") CT_FLOAT), "unknown, by the target \"re:(?<=x)a\""},
};

START_TEST(activations_are_of_the_group_that_is_meant) {
  put_text("config.json", grouped[_i].config);
  put_tensors("model.safetensors",
              (qn_save[]){tensor("a.weight", "F8_E4M3", 4, 32), tensor("a.weight_scale", "F32", 1, 0)}, 2);
  qn_model *m = open_folder();
  const qn_tensor *t = qn_model_find(m, "a.weight");
  if (grouped[_i].activation) ck_assert_str_eq(t->activation, grouped[_i].activation);
  else ck_assert_ptr_null(t->activation);
  qn_model_close(m);
}
END_TEST

static const qn_tensor *put_scaled(int i, float value, qn_model **m) {
  put_text("config.json", scaled[i].config);
  put_tensors("model.safetensors",
              (qn_save[]){tensor("a.weight", "F8_E4M3", 4, 32),
                          tensor("a.weight_scale", "F32", 1, 0),
                          {scaled[i].tensor, "F32", 1, {1}, &value}},
              3);
  *m = open_folder();
  return qn_model_find(*m, "a.weight");
}

START_TEST(activations_have_their_scale) {
  qn_model *m;
  const qn_tensor *t = put_scaled(_i, scaled[_i].value, &m);
  ck_assert_msg(t && !t->refusal, "%s", t ? t->refusal : "no weight");
  if (scaled[_i].activation) ck_assert_str_eq(t->activation, scaled[_i].activation);
  else ck_assert_ptr_null(t->activation);
  ck_assert_float_eq(t->activation_scale, scaled[_i].scale);
  qn_model_close(m);
}
END_TEST

START_TEST(a_scale_of_activations_that_is_none_is_named) {
  static const float bad[] = {0, -1, INFINITY, NAN, 1e-45f};
  for (size_t i = 0; i < QN_COUNT(bad); i++) {
    qn_model *m;
    const qn_tensor *t = put_scaled(0, bad[i], &m);
    ck_assert_msg(t->refusal && strstr(t->refusal, "a.input_scale: ") &&
                      strstr(t->refusal, "cannot be a scale of activations"),
                  "%g: %s", (double)bad[i], t->refusal);
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

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(codes_that_nobody_reads_are_named, QN_COUNT(unread)),
      CASE(a_weight_that_cannot_be_read_says_why, QN_COUNT(refusals)),
      CASE(contents_that_contradict_the_header_are_refused, 1),
      CASE(bits_may_differ_from_layer_to_layer, 1),
      CASE(a_rule_is_for_the_names_that_it_matches, QN_COUNT(rules)),
      CASE(activations_are_named, 1),
      CASE(activations_are_of_the_group_that_is_meant, QN_COUNT(grouped)),
      CASE(activations_have_their_scale, QN_COUNT(scaled)),
      CASE(a_scale_of_activations_that_is_none_is_named, 1),
      CASE(unaligned_tensors_are_copied, 1),
      CASE(a_stack_of_experts_has_slices, 1),
  };
  return RUN_CASES(argv[0], cases, setup, teardown, 60);
}
