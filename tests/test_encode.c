/* test_encode.c - planes -> tensors of a dialect -> file -> planes: what a target holds comes back bit for bit, what it
 * does not hold is refused with the reason. */
#include "encode.h"
#include "generator.h"
#include "io_folder.h"
#include "runtime_fixture.h"

/* ---- What each target holds -------------------------------------------------------------------------------------- */

enum { N = 32, K = 512 };

static const struct {
  const char *format, *targets; /* that hold it; "order": GPTQ with act-order, too;
                                    "products": compressed-tensors holds it with scales multiplied out */
} held[] = {
    {"int1.g64.z", "compressed-tensors"},
    {"int2.row.z", "gptq gptq_v2 compressed-tensors"},
    {"int3.g128.z", "gptq gptq_v2 compressed-tensors order"},
    {"int3.g16.f32", "compressed-tensors"},
    {"int4.g128", "gptq gptq_v2 compressed-tensors order"},
    {"int4.g64.z", "gptq gptq_v2 compressed-tensors awq"},
    {"int4.g64.z.bf16", "gptq gptq_v2 compressed-tensors awq"},
    {"int4.row.z", "gptq gptq_v2 compressed-tensors awq"},
    {"int4.g32", "gptq gptq_v2 compressed-tensors gguf"},
    {"int4.g32.m", "gguf"},
    {"int4.g20.zf", ""},
    {"int4.g256.bf16", "gptq gptq_v2 compressed-tensors"},
    {"int4.g128.f32", "compressed-tensors"},
    {"int5.g32", "compressed-tensors gguf"},
    {"int5.g32.m", "gguf"},
    {"int6.g16.f32", "compressed-tensors"},
    {"int7.g128.z", "compressed-tensors"},
    {"int8.g32", "gptq gptq_v2 compressed-tensors compressed-tensors/int-quantized gguf"},
    {"int8.row.f32", "compressed-tensors compressed-tensors/int-quantized"},
    {"int8.tensor.z.bf16", "compressed-tensors compressed-tensors/int-quantized"},
    {"iq4_nl.g32", "gguf"},
    {"iq4_nl.g32.f32", ""},
    {"nf4.g64.f32", ""},
    {"ternary.g64", "gguf"},
    {"ternary.g256", "gguf"},
    {"e4m3.b128x128.bf16", "compressed-tensors"},
    {"e4m3.row.f32", "compressed-tensors"},
    {"e4m3.tensor", "compressed-tensors"},
    {"e5m2.b2x4", ""},
    {"mxfp4", "compressed-tensors gguf"},
    {"mxfp8", "compressed-tensors"},
    {"nvfp4", "compressed-tensors gguf"},
    {"q2_k", "gguf"},
    {"q3_k", "gguf products"},
    {"q4_k", "gguf"},
    {"q6_k", "gguf products"},
    {"iq4_xs", "gguf"},
    {"q5_k", "gguf"},
    {"f16", "gguf"},
    {"bf16", "gguf"},
    {"f32", "gguf"},
};

static bool has_word(const char *list, const char *word) {
  size_t n = strlen(word);
  for (const char *at = list; (at = strstr(at, word)); at += n)
    if ((at == list || at[-1] == ' ') && (!at[n] || at[n] == ' ')) return true;
  return false;
}

/* Random planes that a file can have: no zero point 0, which version 1 of GPTQ does not tell from 2^bits; scales of
 * NVFP4 without signs and NaN. */
static weight planes_for(const qn_format *f, int64_t n, int64_t k, rng *r) {
  weight w = random_weight(f, n, k, r);
  for (uint32_t i = 1; i <= f->n_planes; i++) {
    const qn_plane *p = &w.planes.plane[i];
    uint8_t *byte = w.data[i];
    for (int64_t j = 0; j < p->rows * p->cols; j++)
      if (!strcmp(p->name, "zero") && p->type == QN_T_U8 && !byte[j]) byte[j] = 1;
      else if (p->type == QN_T_E4M3) byte[j] &= 0x7e;
  }
  if (!strncmp(f->name, "ternary", 7)) /* three codes of four */
    for (int64_t j = 0; j < n * k; j++) ((uint8_t *)w.data[0])[j] %= 3;
  return w;
}

static void shuffle(int32_t *perm, int64_t k, rng *r) {
  for (int64_t j = 0; j < k; j++) perm[j] = (int32_t)j;
  for (int64_t j = k - 1; j > 0; j--) {
    uint32_t other = below(r, (uint32_t)j + 1);
    int32_t t = perm[j];
    perm[j] = perm[other], perm[other] = t;
  }
}

/* Members of a group keep their order when they are read. */
static void sort_groups(int32_t *perm, int64_t k, int64_t group) {
  for (int64_t g = 0; g < k; g += group)
    for (int64_t i = g; i < g + group; i++)
      for (int64_t j = i + 1; j < g + group; j++)
        if (perm[j] < perm[i]) {
          int32_t t = perm[i];
          perm[i] = perm[j], perm[j] = t;
        }
}

/* ---- Files ------------------------------------------------------------------------------------------------------- */

/* A configuration that says to every reader what it needs. */
static void put_config(const qn_format *f, const char *to) {
  char text[512];
  const qn_format_plane *s = &f->plane[0];
  snprintf(text, sizeof text,
           "{\"quantization_config\":{\"quant_method\":\"%s\",\"checkpoint_format\":\"%s\",\"bits\":%u,"
           "\"group_size\":%d,\"sym\":%s,\"desc_act\":true,\"config_groups\":{\"g\":{\"weights\":{\"num_bits\":%u,"
           "\"group_size\":%d,\"block_structure\":[%u,%u]}}}}}",
           strncmp(to, "gptq", 4) ? to : "gptq", strncmp(to, "gptq", 4) ? "" : to, f->bits, s->cols ? (int)s->cols : -1,
           f->n_planes > 1 ? "false" : "true", f->bits, (int)s->cols, s->rows, s->cols);
  put_text("config.json", text);
}

static qn_model *write_and_open(const qn_format *f, const char *to, qn__encoded *e) {
  char names[QN__PARTS][64];
  qn_model *m;
  for (int i = 0; i < e->count; i++) {
    snprintf(names[i], sizeof names[i], "a%s", e->part[i].name);
    e->part[i].name = names[i];
  }
  if (strcmp(to, "gguf")) {
    put_config(f, to);
    put_tensors("model.safetensors", e->part, (size_t)e->count);
    return open_folder();
  }
  qn_writer *w;
  ck_ok(qn__gguf_writer_open(in_folder("a.gguf"), e->part, (size_t)e->count, &(qn__gguf_keys){"", 0, 0}, &w));
  for (int i = 0; i < e->count; i++) ck_ok(qn_writer_put(w, e->part[i].name, e->part[i].data, e->bytes[i]));
  ck_ok(qn_writer_close(w));
  ck_ok(qn_model_open(in_folder("a.gguf"), &m));
  return m;
}

static void compare(const qn_format *f, const char *to, const qn_planes *p, const qn_planes *back) {
  ck_assert_msg(!strcmp(back->format, f->name), "%s: comes back as %s from %s", f->name, back->format, to);
  ck_assert(back->n == p->n && back->k == p->k && !back->perm == !p->perm);
  if (p->perm) ck_assert_mem_eq(back->perm, p->perm, (size_t)p->k * sizeof *p->perm);
  for (int i = 0; i < p->n_planes; i++) {
    const qn_plane *x = &p->plane[i], *y = qn_planes_find(back, x->name);
    ck_assert_msg(y && y->rows == x->rows && y->cols == x->cols && y->type == x->type, "%s from %s: plane %s", f->name,
                  to, x->name);
    ck_assert_msg(!memcmp(x->data, y->data, (size_t)(x->rows * x->cols) * (size_t)qn_type_bits(x->type) / 8),
                  "%s from %s: plane %s is another", f->name, to, x->name);
  }
}

static void go_round(const qn_format *f, const char *to, const qn_planes *p) {
  qn__encoded *e, *shapes;
  qn_planes *back;
  ck_ok(qn__encode(to, p, false, &shapes));
  ck_ok(qn__encode(to, p, true, &e));
  ck_assert_int_eq(e->count, shapes->count);
  ck_assert_mem_eq(e->bytes, shapes->bytes, sizeof e->bytes);
  qn_model *m = write_and_open(f, to, e);
  const qn_tensor *t = qn_model_find(m, "a.weight");
  ck_assert_msg(t && t->format, "%s from %s: %s", f->name, to, t ? t->refusal : "no a.weight");
  ck_ok(qn_model_planes(m, t, 0, &back));
  compare(f, to, p, back);
  qn_planes_free(back);
  qn_model_close(m);
  qn__encoded_free(e), qn__encoded_free(shapes);
}

START_TEST(what_is_held_comes_back) {
  qn_format f;
  rng r = {1000 + (uint64_t)_i};
  int32_t perm[K];
  const char *why = generator_format(held[_i].format, &f), *to;
  ck_assert_msg(!why, "%s: %s", held[_i].format, why);
  weight w = planes_for(&f, N, K, &r);
  for (size_t i = 0; (to = qn__encode_target(i)); i++) {
    qn__encoded *e;
    w.planes.perm = NULL;
    if (has_word(held[_i].targets, to)) {
      go_round(&f, to, &w.planes);
    } else if (!has_word(held[_i].targets, "products") || strcmp(to, "compressed-tensors")) {
      ck_fails(QN_E_SHAPE, "held", qn__encode(to, &w.planes, false, &e));
      ck_assert_ptr_null(e);
    }
    if (!has_word(held[_i].targets, "order")) continue;
    shuffle(perm, K, &r), sort_groups(perm, K, f.plane[0].cols);
    w.planes.perm = perm;
    if (has_word("gptq gptq_v2", to)) go_round(&f, to, &w.planes);
    else ck_fails(QN_E_SHAPE, "held", qn__encode(to, &w.planes, false, &e));
  }
  free_weight(&w);
}
END_TEST

START_TEST(scales_in_two_levels_are_multiplied_out) {
  static const struct { const char *format, *back; } rows[] = {{"q3_k", "int3.g16.f32"}, {"q6_k", "int6.g16.f32"}};
  qn_format two, one;
  rng r = {7};
  qn__encoded *e;
  qn_planes *back;
  ck_assert_ptr_null(generator_format(rows[_i].format, &two));
  ck_assert_ptr_null(generator_format(rows[_i].back, &one));
  weight w = planes_for(&two, N, K, &r);
  ck_ok(qn__encode("compressed-tensors", &w.planes, true, &e));
  qn_model *m = write_and_open(&one, "compressed-tensors", e);
  ck_ok(qn_model_planes(m, qn_model_find(m, "a.weight"), 0, &back));
  ck_assert_str_eq(back->format, rows[_i].back);
  ck_assert_mem_eq(back->plane[0].data, w.planes.plane[0].data, (size_t)N * K);
  const qn_plane *d = qn_planes_find(&w.planes, "d"), *scale = qn_planes_find(&w.planes, "scale");
  for (int64_t i = 0; i < N * K / 16; i++)
    ck_assert_float_eq(((const float *)qn_planes_find(back, "scale")->data)[i],
                       qn__load_float(d->data, d->type, i / 16) * (float)((const int8_t *)scale->data)[i]);
  qn_planes_free(back);
  qn_model_close(m);
  qn__encoded_free(e);
  free_weight(&w);
}
END_TEST

/* ---- Refusals ---------------------------------------------------------------------------------------------------- */

static const struct {
  const char *to, *format;
  int64_t n, k;
  const char *why;
} refused[] = {
    {"gptq", "int4.g128", 32, 192, "K = 192 is no multiple of 128"},
    {"gptq", "int3.g32", 40, 64, "N = 40 is no multiple of 32"},
    {"gptq", "int4.row", 32, 12, "K = 12 is no multiple of 8"},
    {"gptq", "int4.g32.m", 32, 64, "zero points as integers"},
    {"gptq", "int4.g64.f32", 32, 64, "its scales are f32; f16 and bf16 are held"},
    {"awq", "int4.g64", 32, 64, "int4 with integer zero points is held"},
    {"awq", "int4.g64.z", 12, 64, "N = 12 is no multiple of 8"},
    {"awq", "int4.g64.z", 16, 96, "K = 96 is no multiple of 64"},
    {"compressed-tensors", "q4_k", 32, 256, "integers, q3_k, q6_k, e4m3, nvfp4, mxfp4 and mxfp8 are held"},
    {"compressed-tensors", "int4.g64", 32, 96, "K = 96 is no multiple of 64"},
    {"compressed-tensors", "int4.g64.zf", 32, 64, "integer zero points or none"},
    {"compressed-tensors", "nvfp4", 32, 24, "K = 24 is no multiple of 16"},
    {"compressed-tensors/int-quantized", "int4.g64", 32, 64, "int8 is held"},
    {"gguf", "int4.g64", 32, 64, "int4.g32, int4.g32.m"},
    {"gguf", "q4_k", 32, 320, "K = 320 is no multiple of 256"},
};

START_TEST(what_is_not_held_is_refused) {
  qn_format f;
  rng r = {1};
  qn__encoded *e;
  const char *why = generator_format(refused[_i].format, &f);
  ck_assert_msg(!why, "%s: %s", refused[_i].format, why);
  weight w = planes_for(&f, refused[_i].n, refused[_i].k, &r);
  ck_fails(QN_E_SHAPE, refused[_i].why, qn__encode(refused[_i].to, &w.planes, false, &e));
  free_weight(&w);
}
END_TEST

/* What only the numbers tell. */
START_TEST(numbers_without_a_field_are_refused) {
  qn_format f;
  rng r = {2};
  qn__encoded *e;
  ck_assert_ptr_null(generator_format("int4.g32.z", &f));
  weight w = planes_for(&f, 32, 64, &r);
  ((uint8_t *)w.data[2])[2 * 5 + 1] = 0;
  ck_fails(QN_E_SHAPE, "zero point 0 of row 5, group 1", qn__encode("gptq", &w.planes, true, &e));
  go_round(&f, "gptq_v2", &w.planes);
  free_weight(&w);
  ck_assert_ptr_null(generator_format("nvfp4", &f));
  w = planes_for(&f, 2, 512, &r);
  uint8_t *scale = w.data[1 + (strcmp(f.plane[0].name, "scale") != 0)];
  scale[32 + 16] = 0xb8;
  ck_fails(QN_E_SHAPE, "NVFP4 cannot hold the scales of row 1 from column 256 on",
           qn__encode("gguf", &w.planes, true, &e));
  free_weight(&w);
  ck_fails(QN_E_ARG, "nowhere: no such target", qn__encode("nowhere", &w.planes, true, &e));
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(what_is_held_comes_back, QN_COUNT(held)),
      CASE(scales_in_two_levels_are_multiplied_out, 2),
      CASE(what_is_not_held_is_refused, QN_COUNT(refused)),
      CASE(numbers_without_a_field_are_refused, 1),
  };
  return RUN_CASES(argv[0], cases, setup, teardown, 60);
}
