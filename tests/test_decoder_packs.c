/* test_decoder_packs.c - a pack's kernel in the place of a linear layer: the input in the type that it takes, the same
 * product as with the weight dequantized. The kernel is made by hand for all shapes. */
#include "decoder_fixture.h"
#include "quantize.h"
#include "serve_fixture.h"
#include <math.h>

/* int4.g32.f32 in the plain layout. ACT: 0 f32, 1 bf16, 2 i8 with a scale for each token. */
static const char any_act[] =
    "typedef long i64; typedef unsigned char u8;\n"
    "typedef struct { const void *x; const u8 *w; float *y; const float *xs, *bias; float *scratch; int *counters;\n"
    "                 const int *perm; i64 m, n, k, ldx, ldy; const float *residual, *scale; i64 ldr; } args;\n"
    "static float at(const args *a, i64 m, i64 k) {\n"
    "  i64 i = m * a->ldx + k;\n"
    "#if ACT == 0\n"
    "  return ((const float *)a->x)[i];\n"
    "#elif ACT == 1\n"
    "  union { unsigned u; float f; } v = {(unsigned)((const unsigned short *)a->x)[i] << 16};\n"
    "  return v.f;\n"
    "#else\n"
    "  return (float)((const signed char *)a->x)[i] * a->xs[m];\n"
    "#endif\n"
    "}\n"
    "__attribute__((visibility(\"default\"))) void one(const args *a, i64 begin, i64 end, int t) {\n"
    "  i64 g = (a->k + 31) / 32;\n"
    "  for (i64 n = begin; n < end; n++)\n"
    "    for (i64 m = 0; m < a->m; m++) {\n"
    "      const u8 *q = a->w + n * g * 16;\n"
    "      const float *s = (const float *)(a->w + (a->n * g * 16 + 255) / 256 * 256) + n * g;\n"
    "      float sum = 0;\n"
    "      for (i64 k = 0; k < a->k; k++)\n"
    "        sum += at(a, m, k) * (float)((q[k / 2] >> k % 2 * 4 & 15) - 8) * s[k / 32];\n"
    "      a->y[m * a->ldy + n] = sum;\n"
    "    }\n"
    "}\n";

static const struct {
  qn_type type;
  const char *flags, *problem, *activation;
} acts[] = {{QN_T_F32, PLAIN_FLAGS " -DACT=0 -fvisibility=hidden", "int4.g32.f32:256x256:f32-f32", NULL},
            {QN_T_BF16, PLAIN_FLAGS " -DACT=1 -fvisibility=hidden", "int4.g32.f32:256x256:bf16-f32", NULL},
            {QN_T_I8, PLAIN_FLAGS " -DACT=2 -fvisibility=hidden", "int4.g32.f32:256x256:i8-f32", "i8.row"}};

static qn_context *pack_for(int act) {
  code = compile(any_act, acts[act].flags);
  snprintf(path, sizeof path, "/tmp/qn_test_%d.qpack", (int)getpid());
  qn_kernel one = kernel_one(), two = kernel_two(); /* the second is not used */
  one.recipe.step[0] = one.recipe.step[1];
  one.recipe.n_steps = 1;
  qn_plan plan = make_plan(0, 0, acts[act].type, false);
  plan.n_ranges = 1;
  write_plans(&one, &two, &plan, 1);
  return open_pack(NULL);
}

enum { ROWS = 37 };

START_TEST(a_kernel_multiplies_as_the_dequantized_weight) {
  static float w[VOCAB * HIDDEN], h[ROWS * HIDDEN], want[ROWS * VOCAB], is[ROWS * VOCAB];
  static double number[VOCAB * HIDDEN];
  static uint16_t half[ROWS * HIDDEN];
  const qn_format f = make_format(4, 32, false);
  qn__quantize_error error;
  qn_planes *planes;
  const qn__site *site;
  char narrow[64];
  qn_gemm *gemm, *other;
  qn_weight *packed;
  qn_context *pack = pack_for(_i);
  opened o = open_model("tiny-llama", (qn__decoder_options){.threads = 2});
  const int head = qn__decoder_sites(o.d, &site) - 1;
  OK(qn__decoder_hidden(o.d, text_ids(), 1, ROWS, h));
  qn_convert(h, QN_T_F32, half, QN_T_BF16, ROWS * HIDDEN); /* h is the same in bf16 */
  qn_convert(half, QN_T_BF16, h, QN_T_F32, ROWS * HIDDEN);
  OK(qn__decoder_weight(o.d, head, w));
  OK(qn__quantize(&f, w, VOCAB, HIDDEN, NULL, &planes, &error));
  OK(qn__dequantize(&f, planes, 0, VOCAB, number));
  for (int i = 0; i < VOCAB * HIDDEN; i++) w[i] = (float)number[i];
  OK(qn__decoder_replace(o.d, head, w));
  OK(qn__decoder_activate(o.d, head, acts[_i].activation));
  OK(qn__decoder_logits(o.d, h, ROWS, want));
  OK(qn_bind(pack, acts[_i].problem, &gemm));
  OK(qn_prepack(gemm, planes, &packed));
  OK(qn__decoder_serve(o.d, head, gemm, packed));
  OK(qn__decoder_logits(o.d, h, ROWS, is));
  for (int i = 0; i < ROWS * VOCAB; i++)
    ck_assert_msg(fabs((double)is[i] - (double)want[i]) < 2e-5 * (10 + fabs((double)want[i])), "%s: %g, not %g",
                  acts[_i].problem, (double)is[i], (double)want[i]);
  ck_assert_mem_ne(is, want, sizeof is); /* sums of another order: the kernel did run */
  snprintf(narrow, sizeof narrow, "int4.g32.f32:64x256:%s-f32", qn_type_name(acts[_i].type));
  OK(qn_bind(pack, narrow, &other));
  ck_fails(QN_E_SHAPE,
           "lm_head.weight is 256 x 256, which 'int4.g32.f32:64x256:", qn__decoder_serve(o.d, head, other, packed));
  OK(qn__decoder_serve(o.d, head, NULL, NULL));
  OK(qn__decoder_logits(o.d, h, ROWS, is));
  ck_assert_mem_eq(is, want, sizeof is);
  close_model(o);
  qn_weight_free(packed), qn_gemm_free(gemm), qn_gemm_free(other), qn_planes_free(planes);
  qn_close(pack);
  tear_down();
}
END_TEST

int main(int argc, char **argv) {
  static const suite_case cases[] = {CASE(a_kernel_multiplies_as_the_dequantized_weight, QN_COUNT(acts))};
  (void)argc;
  return RUN_CASES(argv[0], cases, .timeout = 120);
}
