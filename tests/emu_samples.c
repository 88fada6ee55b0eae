/* emu_samples.c - data, launch and reference of the sample kernels. */
#include "emu_samples.h"
#include "fail.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *sample_text(const char *name) {
  char path[1024];
  snprintf(path, sizeof path, "%s/ptx/%s", QN_TESTS, name);
  FILE *f = fopen(path, "rb");
  if (!f) return NULL;
  fseek(f, 0, SEEK_END);
  long n = ftell(f);
  rewind(f);
  char *text = calloc((size_t)n + 1, 1);
  if (text && fread(text, 1, (size_t)n, f) != (size_t)n) free(text), text = NULL;
  fclose(f);
  return text;
}

/* Multiples of 1/8 in -1 .. 1: exact in fp16, sums of products exact in float. */
static double value_at(uint32_t i) {
  i = (i + 12345) * 2654435761u;
  return ((int)(i >> 20 & 15) - 8) / 8.0;
}
static uint16_t half_of(double v) {
  int e;
  if (v == 0) return 0;
  double f = frexp(fabs(v), &e);
  return (uint16_t)((v < 0) << 15 | (e + 14) << 10 | ((int)(f * 2048) & 1023));
}

typedef struct data {
  uint64_t a, b, c, extra;
  double *va, *vb;
} data;

static uint16_t *halves(double **v, size_t n, uint32_t seed) {
  uint16_t *h = malloc(n * 2);
  *v = malloc(n * sizeof **v);
  for (size_t i = 0; i < n; i++) (*v)[i] = value_at((uint32_t)i + seed), h[i] = half_of((*v)[i]);
  return h;
}

static qn_status upload(qn_emu *e, uint64_t *at, void *bytes, size_t n) {
  qn_status s = qn__emu_alloc(e, n, at);
  if (!s) s = qn__emu_write(e, *at, bytes, n);
  free(bytes);
  return s;
}

/* Rows of 4-bit codes packed as gemv.cu says. */
static uint32_t *packed(const sample *s, double **v) {
  uint32_t *w = calloc((size_t)s->n * s->k / 8, 4);
  *v = malloc(sizeof **v * (size_t)s->n * s->k);
  for (int n = 0; n < s->n; n++)
    for (int k = 0; k < s->k; k++) {
      uint32_t code = ((uint32_t)(n * s->k + k) * 2654435761u) >> 28;
      (*v)[(size_t)n * s->k + k] = (int)code - 8;
      w[((size_t)n * s->k + k) / 8] |= code << (4 * (k % 8 / 2) + 16 * (k % 2));
    }
  return w;
}

static qn_status make_data(qn_emu *e, const sample *s, data *d) {
  size_t na = (size_t)(s->kind == SAMPLE_GEMV ? 1 : s->m) * s->k, nb = (size_t)s->n * s->k;
  void *a = halves(&d->va, na, 7),
       *b = s->kind == SAMPLE_GEMV ? (void *)packed(s, &d->vb) : (void *)halves(&d->vb, nb, 99);
  qn_status st = upload(e, &d->a, a, na * 2);
  qn_status su = upload(e, &d->b, b, s->kind == SAMPLE_GEMV ? nb / 2 : nb * 2);
  if (st || su) return st ? st : su;
  if (s->kind == SAMPLE_GEMV) {
    float *scale = malloc(4 * (size_t)s->n);
    for (int n = 0; n < s->n; n++) scale[n] = 0.5f;
    QN_TRY(upload(e, &d->extra, scale, 4 * (size_t)s->n));
  }
  return qn__emu_alloc(e, 4 * (size_t)(s->kind == SAMPLE_GEMV ? 1 : s->m) * s->n, &d->c);
}

static qn_status launch(const qn_emu_kernel *f, const sample *s, const data *d, const qn_emu_launch *how,
                        qn_emu_report **out) {
  qn_emu_launch l = *how;
  _Alignas(64) char maps[3][128];
  const void *gemv[] = {&d->b, &d->a, &d->extra, &d->c, &s->n, &s->k},
             *mma[] = {&d->a, &d->b, &d->c, &s->m, &s->n, &s->k};
  const void *wgmma[] = {maps[0], maps[1], maps[2], &s->k};
  uint32_t one[2] = {1, 1};
  switch (s->kind) {
  case SAMPLE_GEMV:
    l.params = gemv, l.nparams = 6;
    l.grid[0] = (uint32_t)(s->n + 1) / 2, l.grid[1] = l.grid[2] = 1, l.block[0] = 64;
    break;
  case SAMPLE_MMA:
    l.params = mma, l.nparams = 6, l.dynamic_shared = 18432;
    l.grid[0] = (uint32_t)s->n / 64, l.grid[1] = (uint32_t)(s->m + 31) / 32, l.grid[2] = 1, l.block[0] = 128;
    break;
  default:
    l.params = wgmma, l.nparams = 4, l.dynamic_shared = 3 * 12288 + 8192 + 1024;
    l.grid[0] = (uint32_t)(s->n + 31) / 32, l.grid[1] = (uint32_t)(s->m + 63) / 64, l.grid[2] = 1, l.block[0] = 256;
    QN_TRY(qn__emu_tensor_encode(maps[0], 6, 2, d->a, (uint64_t[]){(uint64_t)s->k, (uint64_t)s->m},
                                 (uint64_t[]){(uint64_t)s->k * 2}, (uint32_t[]){64, 64}, one, 0, 3, 0, 0));
    QN_TRY(qn__emu_tensor_encode(maps[1], 6, 2, d->b, (uint64_t[]){(uint64_t)s->k, (uint64_t)s->n},
                                 (uint64_t[]){(uint64_t)s->k * 2}, (uint32_t[]){64, 32}, one, 0, 3, 0, 0));
    QN_TRY(qn__emu_tensor_encode(maps[2], 7, 2, d->c, (uint64_t[]){(uint64_t)s->n, (uint64_t)s->m},
                                 (uint64_t[]){(uint64_t)s->n * 4}, (uint32_t[]){32, 64}, one, 0, 0, 0, 0));
  }
  l.block[1] = l.block[2] = 1;
  return qn__emu_run(f, &l, out);
}

static double worst(const sample *s, const data *d, const float *c) {
  double error = 0;
  int rows = s->kind == SAMPLE_GEMV ? 1 : s->m;
  for (int m = 0; m < rows; m++)
    for (int n = 0; n < s->n; n++) {
      double sum = 0, size = 1e-3;
      for (int k = 0; k < s->k; k++) {
        double p = d->va[(size_t)m * s->k + k] * d->vb[(size_t)n * s->k + k] * (s->kind == SAMPLE_GEMV ? 0.5 : 1);
        sum += p, size += fabs(p);
      }
      double off = fabs(c[(size_t)m * s->n + n] - sum) / size;
      error = off <= 1e30 ? fmax(error, off) : 1e30;
    }
  return error;
}

qn_status sample_run(const char *ptx, sample s, const char *device, const qn_emu_launch *how, double *error,
                     qn_emu_report **out) {
  qn_emu *e;
  qn_emu_module *m;
  const qn_emu_kernel *f;
  data d = {0};
  *out = NULL;
  if (error) *error = 1e30;
  size_t bytes = 4 * (size_t)(s.kind == SAMPLE_GEMV ? 1 : s.m) * s.n;
  float *c = malloc(bytes);
  QN_TRY(qn__emu_open_name(device, &e));
  qn_status st = qn__emu_module_load(e, ptx, &m);
  if (!st) st = qn__emu_kernel_find(m, NULL, &f);
  if (!st) st = make_data(e, &s, &d);
  if (!st) st = launch(f, &s, &d, how, out);
  if (!st) st = qn__emu_read(e, c, d.c, bytes);
  if (!st && error) *error = worst(&s, &d, c);
  free(c);
  free(d.va);
  free(d.vb);
  qn__emu_close(e);
  return st;
}
