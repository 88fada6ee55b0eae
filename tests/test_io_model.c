/* test_io_model.c - a checkpoint as a whole: what its weights are for, the head of a tied model, the order in which
 * experts are stored, where configurations lie, and files that are something else. */
#include "io_folder.h"

/* ---- What weights are for ---------------------------------------------------------------------------------------- */

static const struct {
  const char *name, *role;
  int64_t dim[3]; /* 0: fewer dimensions */
} weights[] = {
    {"model.layers.0.mlp.up_proj.weight", "linear", {16, 8}},
    {"model.layers.0.mlp.gate_proj.weight", "linear", {16, 8}},
    {"blk.0.ffn_gate.weight", "linear", {16, 8}},
    {"blocks.0.att.gate.weight", "linear", {8, 8}},            /* RWKV: a gate of as many rows */
    {"model.layers.0.conv.in_proj.weight", "linear", {24, 8}}, /* LFM2 */
    {"model.layers.0.mixer.x_proj.weight", "linear", {4, 8}},
    {"model.layers.0.mlp.experts.w13_weight", "linear", {2, 16, 8}},
    {"model.layers.0.attn.in_proj_weight", "linear", {24, 8}},
    {"lm_head.weight", "head", {16, 8}},
    {"embed_out.weight", "head", {16, 8}}, /* GPT-NeoX */
    {"output.weight", "head", {16, 8}},
    {"transformer.output_layer.weight", "head", {16, 8}},
    {"language_model.output.weight", "head", {16, 8}},
    {"model.transformer.ff_out.weight", "head", {16, 8}}, /* OLMo */
    {"model.layers.61.shared_head.head.weight", "head", {16, 8}},
    {"model.layers.0.attention.output.weight", "linear", {8, 8}},
    {"model.transformer.blocks.0.ff_out.weight", "linear", {8, 16}},
    {"block.0.mlp.mlp1_weight", "linear", {16, 8}}, /* gpt-oss; no projector */
    {"model.layers.0.linear_attn.conv1d.weight", "convolution", {64, 1, 4}},
    {"blk.0.ssm_conv1d.weight", "convolution", {8, 4}},
    {"model.layers.0.conv.conv.weight", "convolution", {8, 1, 3}},
    {"model.layers.0.mixer.A_log", "parameter", {16, 8}},
    {"blk.0.ssm_a", "parameter", {16, 8}},
    {"model.layers.0.mlp.experts.gate_up_proj_bias", "parameter", {2, 16}},
    {"model.layers.0.mixer.dt_bias", "vector", {8}},
    {"model.layers.0.mlp.gate.weight", "router", {4, 8}},
    {"model.layers.0.mlp.gate.wg.weight", "router", {4, 8}},            /* Hunyuan */
    {"transformer.blocks.0.ffn.router.layer.weight", "router", {4, 8}}, /* DBRX */
    {"model.layers.0.altup.modality_router.weight", "router", {4, 8}},  /* Gemma 3n */
    {"blk.0.ffn_gate_inp.weight", "router", {4, 8}},
    {"model.layers.0.mlp.shared_expert_gate.weight", "router", {1, 8}},
    {"score.weight", "vector", {1, 8}},
    {"model.layers.0.self_attn.q_norm.weight", "norm", {4, 8}},
    {"transformer.h.0.ln_1.weight", "norm", {8}},
    {"model.embed_tokens.weight", "embedding", {16, 8}},
    {"transformer.wpe.weight", "embedding", {16, 8}},
    {"bert.embeddings.token_type_embeddings.weight", "embedding", {2, 8}},
    {"encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", "embedding", {32, 8}},
    {"model.visual.blocks.0.attn.qkv.weight", "vision, audio", {24, 8}},
    {"vision_tower.encoder.layers.0.mlp.fc1.weight", "vision, audio", {24, 8}},
    {"model.multi_modal_projector.linear_1.weight", "vision, audio", {24, 8}},
    {"thinker.audio_tower.layers.0.fc1.weight", "vision, audio", {24, 8}},
    {"model.connector.modality_projection.proj.weight", "vision, audio", {24, 8}},
    {"model.embed_vision.embedding_projection.weight", "vision, audio", {24, 8}},
    {"v.blk.0.attn_q.weight", "vision, audio", {24, 8}},
    {"model.layers.0.SelfAttention.v.weight", "linear", {8, 8}}, /* T5 */
    {"base_model.model.layers.0.q_proj.lora_A.weight", "adapter", {4, 8}},
};

START_TEST(a_name_tells_what_a_weight_is_for) {
  int dims = 0;
  while (dims < 3 && weights[_i].dim[dims]) dims++;
  qn_save t = {weights[_i].name, "BF16", dims, {weights[_i].dim[0], weights[_i].dim[1], weights[_i].dim[2]}, zeros};
  put_tensors("model.safetensors", &t, 1);
  qn_model *m = open_folder();
  const qn_tensor *w = qn_model_tensor(m, 0);
  ck_assert_msg(!strcmp(w->role, weights[_i].role), "%s: %s, not %s", w->name, w->role, weights[_i].role);
  ck_assert_int_eq(w->linear, !strcmp(w->role, "linear") || !strcmp(w->role, "head"));
  qn_model_close(m);
}
END_TEST

/* ---- Weights of the same X --------------------------------------------------------------------------------------- */

START_TEST(weights_of_the_same_x_are_told) {
  put_tensors("model.safetensors",
              (qn_save[]){
                  tensor("a.q_proj.weight", "F16", 16, 8),
                  tensor("a.k_proj.weight", "F16", 4, 8),
                  tensor("a.v_proj.weight", "F16", 4, 8),
                  tensor("a.gate_proj.weight", "F16", 8, 8),
                  tensor("a.up_proj.weight", "BF16", 8, 8), /* of another format */
                  tensor("b.q_proj.weight", "F16", 4, 8),   /* v is not there */
                  tensor("b.k_proj.weight", "F16", 4, 8),
                  tensor("b.gate_proj.weight", "F16", 8, 8),
                  tensor("b.up_proj.weight", "F16", 8, 4), /* of another K */
                  tensor("visual.gate_proj.weight", "F16", 8, 8),
                  tensor("visual.up_proj.weight", "F16", 8, 8), /* not served */
                  tensor("blk.0.attn_q.weight", "F16", 8, 8),
                  tensor("blk.0.attn_k.weight", "F16", 4, 8),
                  tensor("blk.0.attn_v.weight", "F16", 4, 8),
                  tensor("blk.0.ffn_gate.weight", "F16", 4, 8),
                  tensor("blk.0.ffn_up.weight", "F16", 4, 8),
              },
              16);
  qn_model *m = open_folder();
  const qn_tensor *w;
  int together = 0;
  for (size_t i = 0; (w = qn_model_tensor(m, i)); i++) {
    const char *first = NULL;
    if (strstr(w->name, "a.q") || strstr(w->name, "a.k") || strstr(w->name, "a.v")) first = "a.q_proj.weight";
    if (strstr(w->name, "attn_")) first = "blk.0.attn_q.weight";
    if (strstr(w->name, "ffn_")) first = "blk.0.ffn_gate.weight";
    ck_assert_msg(!first == !w->same_x && (!first || !strcmp(first, w->same_x)), "%s: %s", w->name,
                  w->same_x ? w->same_x : "alone");
    together += w->same_x != NULL;
  }
  ck_assert_int_eq(together, 3 + 3 + 2);
  qn_model_close(m);
}
END_TEST

/* ---- Tied heads -------------------------------------------------------------------------------------------------- */

static const struct {
  const char *config, *embedding;
  bool tied;
} heads[] = {
    {"{\"tie_word_embeddings\": true}", "model.embed_tokens.weight", true},
    {"{\"text_config\": {\"tie_word_embeddings\": true}}", "model.language_model.embed_tokens.weight", true},
    {"{\"thinker_config\": {\"text_config\": {\"tie_word_embeddings\": true}}}", "thinker.model.embed_tokens.weight",
     true},
    {"{\"tie_word_embeddings\": false, \"llm_config\": {\"tie_word_embeddings\": true}}", "llm.embed_tokens.weight",
     true},
    {"{\"architectures\": [\"Gemma3ForCausalLM\"]}", "model.embed_tokens.weight",
     true}, /* true where nothing is said */
    {"{\"architectures\": [\"GPT2LMHeadModel\"]}", "transformer.wte.weight", true},
    {"{\"architectures\": [\"InternVLChatModel\"], \"llm_config\": {\"architectures\": [\"Qwen2ForCausalLM\"]}}",
     "language_model.model.embed_tokens.weight", true},
    {"{\"d_model\": 8, \"tie_embeddings\": true}", "backbone.embedding.weight", true}, /* Mamba */
    {"{\"architectures\": [\"OLMoForCausalLM\"], \"weight_tying\": false}", "model.transformer.wte.weight", false},
    {"{\"architectures\": [\"Qwen2ForSequenceClassification\"], \"tie_word_embeddings\": true}",
     "model.embed_tokens.weight", false},
    {"{\"architectures\": [\"LlamaForCausalLM\"], \"tie_word_embeddings\": false}", "model.embed_tokens.weight", false},
    {"{\"architectures\": [\"BertModel\"]}", "bert.embeddings.word_embeddings.weight", false},
    {"{}", "model.embed_tokens.weight", false},
};

START_TEST(the_head_of_a_tied_model_is_its_embedding) {
  put_text("config.json", heads[_i].config);
  put_tensors("model.safetensors", (qn_save[]){tensor(heads[_i].embedding, "F16", 16, 8)}, 1);
  qn_model *m = open_folder();
  const qn_tensor *head = qn_model_find(m, "lm_head.weight"), *embed = qn_model_find(m, heads[_i].embedding);
  ck_assert_str_eq(embed->role, "embedding");
  ck_assert_int_eq(head != NULL, heads[_i].tied);
  if (head) {
    qn_planes *p;
    ck_assert_str_eq(head->tied_to, embed->name);
    ck_assert(head->linear && head->n == 16 && head->k == 8 && head->bytes == 0);
    ck_assert_int_eq(qn_model_planes(m, head, 0, &p), QN_OK);
    ck_assert_ptr_eq(p->plane[0].data, embed->raw->data);
    qn_planes_free(p);
  }
  qn_model_close(m);
}
END_TEST

START_TEST(a_head_of_its_own_is_not_tied) {
  put_text("config.json", "{\"tie_word_embeddings\": true}");
  put_tensors("model.safetensors",
              (qn_save[]){tensor("model.embed_tokens.weight", "F16", 16, 8), tensor("lm_head.weight", "F16", 16, 8)},
              2);
  qn_model *m = open_folder();
  ck_assert_ptr_null(qn_model_find(m, "lm_head.weight")->tied_to);
  ck_assert_ptr_null(qn_model_tensor(m, 2));
  qn_model_close(m);
}
END_TEST

/* ---- Stored [in, out] -------------------------------------------------------------------------------------------- */

#define UP "model.layers.0.mlp.experts.gate_up_proj"
#define DOWN "model.layers.0.mlp.experts.down_proj"

static const struct {
  const char *config, *name;
  int64_t dim[3];
  bool transposed;
  const char *refusal;
} orders[] = {
    {"{\"model_type\":\"gpt_oss\"}", UP, {2, 4, 6}, true, NULL},
    {"{\"model_type\":\"gpt_oss\"}", DOWN, {2, 3, 4}, true, NULL},
    {"{\"model_type\":\"gpt_oss\"}", UP, {2, 4, 4}, true, NULL},
    {"{\"model_type\":\"llama4\",\"text_config\":{\"model_type\":\"llama4_text\"}}", UP, {2, 4, 6}, true, NULL},
    {"{\"text_config\":{\"model_type\":\"qwen3_vl_moe_text\"}}", DOWN, {2, 3, 4}, true, NULL},
    {"{\"model_type\":\"other\",\"hidden_size\":4}", UP, {2, 6, 4}, false, NULL},
    {"{\"model_type\":\"other\",\"hidden_size\":4}", DOWN, {2, 4, 3}, false, NULL},
    {"{\"model_type\":\"other\",\"text_config\":{\"hidden_size\":4}}", UP, {2, 4, 6}, true, NULL},
    {"{\"model_type\":\"other\",\"hidden_size\":4}", DOWN, {2, 3, 4}, true, NULL},
    {"{\"model_type\":\"other\",\"hidden_size\":4}", UP, {2, 4, 4}, false, "no configuration tells"},
    {"{}", UP, {2, 4, 6}, false, "no configuration tells"},
    {"{\"model_type\":\"gpt2\"}", "h.0.attn.c_attn.weight", {4, 12}, true, NULL},
    {"{\"model_type\":\"gpt2\"}", "h.0.attn.c_proj.weight", {4, 4}, true, NULL},
    {"{\"model_type\":\"gpt2\"}", "wte.weight", {12, 4}, false, NULL},
    {"{\"model_type\":\"aria\"}", "model.layers.0.mlp.experts.fc1.weight", {2, 4, 6}, true, NULL},
    {"{\"model_type\":\"granitemoe\"}", "model.layers.0.block_sparse_moe.input_linear.weight", {2, 6, 4}, false, NULL},
    {"{\"model_type\":\"other\",\"hidden_size\":4}", "model.layers.0.experts.up_proj", {2, 4, 6}, true, NULL},
    {"{\"model_type\":\"other\",\"hidden_size\":4}", "model.layers.0.experts.w2", {2, 4, 6}, false, NULL},
    {"{\"model_type\":\"gpt_bigcode\"}", "h.0.attn.c_attn.weight", {12, 4}, false, NULL},
    {"{\"model_type\":\"dbrx\"}", "blocks.0.ffn.experts.mlp.w2", {12, 4}, false, "DBRX"},
};

START_TEST(what_is_stored_in_out_is_transposed) {
  uint16_t x[2 * 6 * 6];
  for (int i = 0; i < (int)QN_COUNT(x); i++) x[i] = (uint16_t)i;
  const int64_t *d = orders[_i].dim;
  int dims = d[2] ? 3 : 2;
  int64_t rows = d[dims - 2], cols = d[dims - 1];
  put_text("config.json", orders[_i].config);
  put_tensors("model.safetensors", (qn_save[]){{orders[_i].name, "F16", dims, {d[0], d[1], d[2]}, x}}, 1);
  qn_model *m = open_folder();
  const qn_tensor *t = qn_model_tensor(m, 0);
  if (orders[_i].refusal) {
    ck_assert(t->refusal && strstr(t->refusal, orders[_i].refusal) && t->linear);
    qn_model_close(m);
    return;
  }
  bool turned = orders[_i].transposed;
  ck_assert(t->n == (turned ? cols : rows) && t->k == (turned ? rows : cols) && t->slices == (dims == 3 ? d[0] : 1));
  qn_planes *p;
  ck_assert_int_eq(qn_model_planes(m, t, t->slices - 1, &p), QN_OK);
  const uint16_t *codes = p->plane[0].data, *slice = x + (t->slices - 1) * rows * cols;
  for (int64_t n = 0; n < t->n; n++)
    for (int64_t k = 0; k < t->k; k++)
      ck_assert_int_eq(codes[n * t->k + k], turned ? slice[k * cols + n] : slice[n * cols + k]);
  qn_planes_free(p);
  qn_model_close(m);
}
END_TEST

/* ---- Experts ----------------------------------------------------------------------------------------------------- */

START_TEST(experts_are_a_stack_in_the_order_of_their_numbers) {
  static uint16_t x[3][8], both[2][8];
  for (uint16_t i = 0; i < 8; i++) x[0][i] = i, x[1][i] = i + 100, both[0][i] = i + 200, both[1][i] = i + 300;
  put_tensors("model.safetensors",
              (qn_save[]){{"a.experts.1.up.weight", "F16", 2, {2, 4}, x[1]},
                          {"a.experts.0.up.weight", "F16", 2, {2, 4}, x[0]},
                          {"a.shared_experts.0.up.weight", "F16", 2, {2, 4}, x[2]},
                          {"b.experts.down", "F16", 3, {2, 2, 4}, both}},
              4);
  qn_model *m = open_folder();
  const qn_stack *a = qn_model_stack(m, 0), *b = qn_model_stack(m, 1);
  ck_assert_ptr_null(qn_model_stack(m, 2));
  ck_assert_str_eq(a->name, "a.experts.*.up.weight");
  ck_assert_str_eq(b->name, "b.experts.down");
  for (int i = 0; i < 2; i++) {
    const qn_stack *s = i ? b : a;
    ck_assert(s->experts == 2 && s->n == 2 && s->k == 4 && !s->refusal && !strcmp(s->format, "f16"));
    for (int e = 0; e < 2; e++) {
      qn_planes *p;
      ck_assert_int_eq(qn_model_expert(m, s, e, &p), QN_OK);
      ck_assert_mem_eq(p->plane[0].data, i ? both[e] : x[e], sizeof x[e]);
      qn_planes_free(p);
    }
    qn_planes *none;
    ck_assert_int_eq(qn_model_expert(m, s, 2, &none), QN_E_ARG);
    ck_assert(strstr(qn_io_errmsg(), "expert 2, allowed 0 .. 1") && !none);
  }
  ck_assert(!strcmp(a->tensor[1]->name, "a.experts.1.up.weight") && b->tensor[0] == b->tensor[1]);
  qn_model_close(m);
}
END_TEST

/* ---- Configurations ---------------------------------------------------------------------------------------------- */

/* Where the quantization is described: a GPTQ weight is symmetric if the description is found. */
static const struct {
  const char *file, *text;
} configurations[] = {
    {"config.json", "{\"quantization_config\":{\"bits\":4,\"group_size\":8,\"sym\":true}}"},
    {"config.json", "{\"text_config\":{\"quantization_config\":{\"bits\":4,\"group_size\":8,\"sym\":true}}}"},
    {"config.json", "{\"x\":[NaN,Infinity,-Infinity],\"s\":\"a \\\" NaN\",\"quantization_config\":"
                    "{\"bits\":4,\"group_size\":8,\"sym\":true,\"damp\":NaN}}"},
    {"quantize_config.json", "{\"bits\":4,\"group_size\":8,\"sym\":true,\"dynamic\":[{}]}"}, /* no rules */
    {"hf_quant_config.json", "{\"producer\":{},\"quantization\":{\"bits\":4,\"group_size\":8,\"sym\":true}}"},
};

START_TEST(the_quantization_is_found) {
  put_text("config.json", "{\"quantization_config\":null}");
  put_text(configurations[_i].file, configurations[_i].text);
  put_tensors(
      "model.safetensors",
      (qn_save[]){tensor("a.qweight", "I32", 1, 8), tensor("a.qzeros", "I32", 1, 1), tensor("a.scales", "F16", 1, 8)},
      3);
  qn_model *m = open_folder();
  const qn_tensor *t = qn_model_find(m, "a.weight");
  ck_assert_msg(t->format != NULL, "%s", t->refusal);
  ck_assert_str_eq(t->format, "int4.g8");
  qn_model_close(m);
}
END_TEST

/* ---- Files ------------------------------------------------------------------------------------------------------- */

static const struct {
  const char *start, *expected;
} strangers[] = {
    {"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n", "a git-lfs pointer"},
    {"PK\3\4 and so on", "a zip archive, as PyTorch writes"},
    {"\x80\2\x8a\n and so on", "a pickle"},
    {"<!DOCTYPE html>", "a web page"},
    {"tjgg and so on", "before GGUF"},
};

START_TEST(a_file_of_another_kind_is_named) {
  put_text("model.safetensors", strangers[_i].start);
  refuse(folder, QN_E_FORMAT, strangers[_i].expected);
}
END_TEST

START_TEST(blanks_may_stand_round_a_header) {
  static const char header[] = " \n\t{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}} \n\r\t";
  FILE *f = fopen(in_folder("x.safetensors"), "wb");
  uint64_t n = sizeof header - 1;
  fwrite(&n, 8, 1, f), fwrite(header, 1, n, f), fwrite("\1", 1, 1, f), fclose(f);
  qn_model *m = open_folder();
  ck_assert_ptr_nonnull(qn_model_find_raw(m, "x"));
  qn_model_close(m);
}
END_TEST

static const char *const escapes[] = {"\\u0041", "\\u00e9", "\\u00E9", "\\u\20041", "\\u004\31", "\\u00g1"};

START_TEST(an_escape_has_four_hexadecimal_digits) { /* 0x10 to 0x19 passed for 0 to 9 */
  char header[128];
  uint64_t n = (uint64_t)snprintf(header, sizeof header,
                                  "{\"%s\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", escapes[_i]);
  FILE *f = fopen(in_folder("x.safetensors"), "wb");
  fwrite(&n, 8, 1, f), fwrite(header, 1, n, f), fwrite("\1", 1, 1, f), fclose(f);
  if (_i >= 3) {
    refuse(folder, QN_E_FORMAT, "four hexadecimal digits expected");
    return;
  }
  qn_model *m = open_folder();
  ck_assert_str_eq(qn_model_raw(m, 0)->name, _i ? "\u00e9" : "A");
  qn_model_close(m);
}
END_TEST

START_TEST(a_tensor_that_only_the_index_has_is_remarked) {
  put_tensors("a.safetensors", (qn_save[]){tensor("a.weight", "F16", 4, 8)}, 1);
  put_text("model.safetensors.index.json", "{\"weight_map\":{\"a.weight\":\"a.safetensors\"}}");
  qn_model *m = open_folder();
  ck_assert_ptr_null(qn_model_remark(m));
  qn_model_close(m);
  put_text(
      "model.safetensors.index.json",
      "{\"metadata\":{\"total_size\":NaN},\"weight_map\":{\"a.weight\":\"a.safetensors\",\"b\":\"a.safetensors\"}}");
  m = open_folder();
  ck_assert_ptr_nonnull(strstr(qn_model_remark(m), "lists what its files do not hold: b"));
  qn_model_close(m);
}
END_TEST

START_TEST(a_folder_holds_one_model) {
  put_text("a-Q4_0.gguf", "GGUF");
  put_text("a-Q8_0.gguf", "GGUF");
  refuse(folder, QN_E_ARG, "several models; name one of a-Q4_0.gguf, a-Q8_0.gguf");
  put_tensors("a.safetensors", (qn_save[]){tensor("a.weight", "F16", 4, 8)}, 1);
  put_tensors("b.safetensors", (qn_save[]){tensor("a.weight", "F16", 4, 8)}, 1);
  refuse(folder, QN_E_FORMAT, "/a.safetensors and ");
}
END_TEST

START_TEST(parts_without_an_index_are_all_there) {
  put_tensors("b.safetensors", (qn_save[]){tensor("c.weight", "F16", 4, 8)}, 1);
  put_tensors("m-00001-of-00002.safetensors", (qn_save[]){tensor("a.weight", "F16", 4, 8)}, 1);
  refuse(folder, QN_E_IO, "1 of the 2 parts of m: ");
  put_tensors("m-00002-of-00002.safetensors", (qn_save[]){tensor("b.weight", "F16", 4, 8)}, 1);
  qn_model_close(open_folder());
}
END_TEST

START_TEST(another_container_is_to_be_converted) {
  put_text("pytorch_model.bin", "x");
  refuse(folder, QN_E_IO, "convert pytorch_model.bin to safetensors");
  put_text("model.safetensors.index.json", "{}");
  refuse(path, QN_E_FORMAT, "name the folder it lies in");
}
END_TEST

/* ---- Memory ------------------------------------------------------------------------------------------------------ */

/* Bytes of files in this process' memory. */
static int64_t mapped_bytes(void) {
  long all, resident, shared;
  FILE *f = fopen("/proc/self/statm", "r");
  ck_assert_int_eq(fscanf(f, "%ld %ld %ld", &all, &resident, &shared), 3);
  fclose(f);
  return shared * sysconf(_SC_PAGESIZE);
}

/* FNV-1a of all that is stored. */
static uint64_t hash_of(const qn_model *m, int64_t *bytes) {
  uint64_t hash = 14695981039346656037u;
  const qn_raw *r;
  *bytes = 0;
  for (size_t i = 0; (r = qn_model_raw(m, i)); *bytes += (int64_t)r->bytes, i++)
    for (size_t j = 0; j < r->bytes; j++) hash = (hash ^ ((const uint8_t *)r->data)[j]) * 1099511628211u;
  return hash;
}

START_TEST(memory_of_files_is_given_back_and_read_again) {
  qn_model *m;
  int64_t bytes;
  ck_assert_int_eq(qn_model_open(QN_TESTS "/models/tiny-llama", &m), QN_OK);
  uint64_t hash = hash_of(m, &bytes);
  int64_t before = mapped_bytes();
  qn_model_release(m);
  int64_t after = mapped_bytes();
  ck_assert_msg(before - after > bytes / 2, "%jd bytes were read, %jd given back", (intmax_t)bytes,
                (intmax_t)(before - after));
  ck_assert_uint_eq(hash_of(m, &bytes), hash);
  qn_model_close(m);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(a_name_tells_what_a_weight_is_for, QN_COUNT(weights)),
      CASE(weights_of_the_same_x_are_told, 1),
      CASE(the_head_of_a_tied_model_is_its_embedding, QN_COUNT(heads)),
      CASE(a_head_of_its_own_is_not_tied, 1),
      CASE(what_is_stored_in_out_is_transposed, QN_COUNT(orders)),
      CASE(experts_are_a_stack_in_the_order_of_their_numbers, 1),
      CASE(the_quantization_is_found, QN_COUNT(configurations)),
      CASE(a_file_of_another_kind_is_named, QN_COUNT(strangers)),
      CASE(blanks_may_stand_round_a_header, 1),
      CASE(an_escape_has_four_hexadecimal_digits, QN_COUNT(escapes)),
      CASE(a_tensor_that_only_the_index_has_is_remarked, 1),
      CASE(a_folder_holds_one_model, 1),
      CASE(parts_without_an_index_are_all_there, 1),
      CASE(another_container_is_to_be_converted, 1),
      CASE(memory_of_files_is_given_back_and_read_again, 1),
  };
  return RUN_CASES(argv[0], cases, setup, teardown, 60);
}
