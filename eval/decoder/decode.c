/* decode.c - qn__decode_rows of linear.h: planes become numbers by the reference's rule. */
#include "fail.h"
#include "linear.h"
#include <stdatomic.h>
#include <stdlib.h>

typedef struct decoding {
  const qn_format *f;
  const qn_planes *p;
  const int32_t *rows;
  float *out;
  atomic_bool no_memory;
} decoding;

/* A weight whose codes are the numbers themselves: f16, bf16, f32. */
static bool is_plain(const qn_format *f) {
  return !f->n_planes && f->decode.n == 1 && (f->cast == QN_T_F16 || f->cast == QN_T_BF16 || f->cast == QN_T_F32);
}

static void convert_rows(void *ud, int64_t begin, int64_t end, int32_t thread) {
  const decoding *a = ud;
  const qn_plane *codes = qn__planes_find(a->f, a->p, 0);
  size_t bytes = (size_t)a->p->k * (size_t)qn_type_bits(codes->type) / 8;
  (void)thread;
  for (int64_t i = begin; i < end; i++) {
    const char *from = (const char *)codes->data + (size_t)(a->rows ? a->rows[i] : i) * bytes;
    qn_convert(from, (qn_type)a->f->cast, a->out + i * a->p->k, QN_T_F32, (size_t)a->p->k);
  }
}

static void decode_rows(void *ud, int64_t begin, int64_t end, int32_t thread) {
  decoding *a = ud;
  const int64_t k = a->p->k;
  double *row = malloc((size_t)k * sizeof *row);
  (void)thread;
  if (!row) a->no_memory = true;
  for (int64_t i = begin; row && i < end; i++) {
    int64_t n = a->rows ? a->rows[i] : i;
    qn__dequantize(a->f, a->p, n, n + 1, row); /* it has tried row 0 .. 0: all planes are there */
    for (int64_t j = 0; j < k; j++) a->out[i * k + (a->p->perm ? a->p->perm[j] : j)] = (float)row[j];
  }
  free(row);
}

qn_status qn__decode_rows(qn_pool *pool, const qn_format *f, const qn_planes *p, const int32_t *rows, int64_t n,
                          float *out) {
  decoding a = {f, p, rows, out, false};
  QN_TRY(qn__dequantize(f, p, 0, 0, NULL));
  qn__pool_run(pool, is_plain(f) && !p->perm ? convert_rows : decode_rows, &a, n);
  return a.no_memory ? qn__fail(QN_E_NOMEM, "a row of %jd weights", (intmax_t)p->k) : QN_OK;
}
