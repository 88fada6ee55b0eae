/* serve.c - a whole user of libquernel: serve PACK MODEL [TENSOR [M]]
 *
 * Opens a pack and a checkpoint, binds the problem of one quantized layer, rearranges its weight, runs M tokens and
 * compares with a plain loop in float64. Reads the formats whose rule is (code - zero) * scale, or code * scale plus a
 * minimum: int2 .. int8. */
#include "quernel.h"
#include "quernel_io.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Noreturn void fail(const char *what, const char *why) {
  fprintf(stderr, "serve: %s: %s\n", what, why);
  exit(1);
}

/* Element i of a plane of scales or zero points. */
static double value(const qn_plane *p, int64_t i) {
  float f;
  if (p->type == QN_T_U8) return ((const uint8_t *)p->data)[i];
  qn_convert((const char *)p->data + i * (qn_type_bits(p->type) / 8), p->type, &f, QN_T_F32, 1);
  return (double)f;
}

/* The unit of rounding of a type that weights or results pass through. */
static double unit(qn_type t) { return t == QN_T_BF16 ? 0x1p-8 : t == QN_T_F16 ? 0x1p-10 : 0x1p-23; }

/* Largest |y - reference| as a part of what the arithmetic may cost. */
static double worst(const qn_planes *p, const float *x, const float *y, int64_t m, qn_type act, qn_type out) {
  const qn_plane *codes = qn_planes_find(p, "codes"), *scale = qn_planes_find(p, "scale"),
                 *zero = qn_planes_find(p, "zero"), *min = qn_planes_find(p, "min");
  double most = 0, middle = min ? 0 : 1 << (atoi(p->format + 3) - 1);
  int64_t groups = scale->cols, share = (p->k + groups - 1) / groups;
  double may = (double)(p->k + 8) * 0x1p-24 + unit(act) + unit(out);
  for (int64_t i = 0; i < m; i++)
    for (int64_t n = 0; n < p->n; n++) {
      double sum = 0, magnitude = 0;
      for (int64_t k = 0; k < p->k; k++) {
        int64_t g = n * groups + k / share;
        double q = ((const uint8_t *)codes->data)[n * p->k + k], z = zero ? value(zero, g) : middle,
               s = value(scale, g), least = min ? value(min, g) : 0;
        double xk = (double)x[i * p->k + (p->perm ? p->perm[k] : k)];
        sum += xk * ((q - z) * s + least);
        magnitude += fabs(xk * s) * (q + z) + fabs(xk * least);
      }
      double part = fabs((double)y[i * p->n + n] - sum) / (may * magnitude + 1e-30);
      most = part <= most ? most : part; /* NaN stays */
    }
  return most;
}

int main(int argc, char **argv) {
  char err[512], problem[128], act_name[16] = "", out_name[16] = "";
  qn_context *ctx;
  qn_model *model;
  qn_planes *planes;
  qn_gemm *gemm;
  qn_weight *weight;
  if (argc < 3) return fprintf(stderr, "usage: serve PACK MODEL [TENSOR [M]]\n"), 2;
  if (qn_open(argv[1], NULL, &ctx, err, sizeof err)) fail(argv[1], err);
  if (qn_model_open(argv[2], &model)) fail(argv[2], qn_io_errmsg());

  const qn_tensor *t = argc > 3 ? qn_model_find(model, argv[3]) : qn_model_tensor(model, 0);
  for (size_t i = 0; argc < 4 && t && !(t->quantized && t->linear && !t->refusal); i++) t = qn_model_tensor(model, i);
  if (!t || !t->format || strncmp(t->format, "int", 3)) fail(argv[2], "no such layer in a format of integers");
  if (qn_model_planes(model, t, 0, &planes)) fail(t->name, qn_io_errmsg());
  snprintf(problem, sizeof problem, "%s:%lldx%lld", t->format, (long long)t->n, (long long)t->k);
  if (qn_bind(ctx, problem, &gemm) || qn_prepack(gemm, planes, &weight)) fail(problem, qn_errmsg());

  int64_t m = argc > 4 ? atoll(argv[4]) : 4;
  if (m < 1 || m > 4096) fail(argv[4], "M must be in 1 .. 4096");
  sscanf(qn_gemm_problem(gemm), "%*[^:]:%*[^:]:%15[^-]-%15[^+]", act_name, out_name);
  qn_type act = qn_type_from_name(act_name), out = qn_type_from_name(out_name);
  size_t nx = (size_t)(m * t->k), ny = (size_t)(m * t->n), ws = qn_gemm_workspace(gemm, m);
  float *x = malloc(nx * sizeof *x), *y = malloc(ny * sizeof *y);
  void *xa = malloc(nx * sizeof *x), *yo = malloc(ny * sizeof *y), *work = aligned_alloc(256, (ws + 256) / 256 * 256);
  for (size_t i = 0; i < nx; i++) x[i] = sinf((float)i); /* any numbers of about one */
  if (qn_convert(x, QN_T_F32, xa, act, nx) || qn_convert(xa, act, x, QN_T_F32, nx)) fail(problem, qn_errmsg());

  const qn_args args = {.x = xa, .y = yo, .m = m, .workspace = work};
  if (qn_run(gemm, weight, &args) || qn_convert(yo, out, y, QN_T_F32, ny)) fail(problem, qn_errmsg());
  double part = worst(planes, x, y, m, act, out);
  printf("%s, M = %lld: %s, largest error %.3f of the bound: %s\n", t->name, (long long)m, qn_gemm_kernel(gemm, m),
         part, part <= 1 ? "ok" : "WRONG");
  free(x), free(y), free(xa), free(yo), free(work);
  qn_weight_free(weight), qn_gemm_free(gemm), qn_planes_free(planes), qn_model_close(model), qn_close(ctx);
  return !(part <= 1);
}
