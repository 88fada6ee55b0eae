/* dialect_bnb.c - bitsandbytes.
 *
 * Linear4bit: the weight flattened row by row, two codes in a byte, the first in the high nibble.
 *     X.weight [N K / 2 bytes]   X.weight.absmax F32 or U8 [blocks]   X.weight.quant_map F32 [16]
 *     X.weight.quant_state.bitsandbytes__nf4 (or __fp4): JSON with blocksize and shape
 *     W[i] = quant_map[code[i]] * absmax[i / blocksize]
 * Nested: absmax[j] = nested_quant_map[absmax[j]] * nested_absmax[j / nested_blocksize] + nested_offset, resolved here
 * into f32 scales. Blocks cross the ends of rows when the block size does not divide K; such scales are repeated for
 * groups of gcd(K, blocksize) codes, which do not.
 *
 * Linear8bitLt: X.weight I8 [N, K]   X.SCB F32 [N]: W = int8 * SCB[n] / 127.
 *
 * Source: bitsandbytes, backends/default/ops.py and functional.py. */
#include "model.h"
#include <math.h>
#include <string.h>

enum { WEIGHT, ABSMAX, QUANT_MAP, NESTED_ABSMAX, NESTED_MAP, STATE_NF4, STATE_FP4 };

/* Of templates/formats, by CMakeLists.txt: what the codes mean; of fp4 the codes 0 .. 7. */
static const double nf4[] = {nf4_VALUES}, fp4[] = {fp4_VALUES};

typedef struct state {
  int64_t n, k, blocksize, nested_blocksize;
  float nested_offset;
} state;

static int64_t whole(const cJSON *object, const char *key) {
  const cJSON *v = qn__member(object, key);
  return cJSON_IsNumber(v) && v->valuedouble >= 1 && v->valuedouble <= INT32_MAX ? (int64_t)v->valuedouble : 0;
}

static qn_status read_state(const qn__weight *w, state *out) {
  const qn_raw *r = w->part[w->part[STATE_NF4] ? STATE_NF4 : STATE_FP4];
  errno = 0; /* which tells a lack of memory from a fault of the text */
  cJSON *j = r->bytes && r->bytes < 65536 ? cJSON_ParseWithLength(r->data, r->bytes) : NULL;
  if (!j && errno == ENOMEM) return qn__fail(QN_E_NOMEM, "%s", r->name);
  const cJSON *shape = qn__member(j, "shape"), *n = cJSON_GetArrayItem(shape, 0), *k = cJSON_GetArrayItem(shape, 1),
              *offset = qn__member(j, "nested_offset");
  *out = (state){.blocksize = whole(j, "blocksize"), .nested_blocksize = whole(j, "nested_blocksize")};
  if (cJSON_GetArraySize(shape) == 2 && cJSON_IsNumber(n) && cJSON_IsNumber(k) && n->valuedouble >= 1 &&
      n->valuedouble <= INT32_MAX && k->valuedouble >= 1 && k->valuedouble <= INT32_MAX) {
    out->n = (int64_t)n->valuedouble;
    out->k = (int64_t)k->valuedouble;
  }
  if (cJSON_IsNumber(offset)) out->nested_offset = (float)offset->valuedouble;
  cJSON_Delete(j);
  if (!out->n || !out->blocksize) return qn__fail(QN_E_FORMAT, "%s: no JSON with a shape and a blocksize", r->name);
  if (w->part[NESTED_ABSMAX] && !out->nested_blocksize)
    return qn__fail(QN_E_FORMAT, "%s: nested_blocksize is missing", r->name);
  return QN_OK;
}

/* Code 8 + i of a table of eight is the negative of code i. */
static qn_status check_table(const qn__weight *w, const double *table, size_t size, const char *name) {
  QN_TRY(qn__part_is(w, QUANT_MAP, "F32", 1, (int64_t[]){16}));
  for (size_t i = 0; i < 16; i++) {
    float v = qn__f32((const uint8_t *)w->part[QUANT_MAP]->data + 4 * i);
    double meant = i < size ? table[i] : -table[i - size];
    if (!(fabs((double)v - meant) <= 1e-6))
      return qn__fail(QN_E_SHAPE, "%s: entry %zu is %g, in %s it is %g", w->part[QUANT_MAP]->name, i, (double)v, name,
                      meant);
  }
  return QN_OK;
}

static qn_status check_absmax(const qn__weight *w, const state *st) {
  int64_t blocks = qn__ceildiv(st->n * st->k, st->blocksize);
  const qn_raw *a = w->part[ABSMAX];
  if (a->type == QN_T_BF16)
    return qn__fail(QN_E_SHAPE,
                    "%s: codes in the order of the CPU kernels (absmax is BF16); save with nested scales or "
                    "from a GPU",
                    w->part[WEIGHT]->name);
  if (!w->part[NESTED_ABSMAX]) return qn__part_is(w, ABSMAX, "F32", 1, &blocks);
  QN_TRY(qn__part_is(w, ABSMAX, "U8", 1, &blocks));
  QN_TRY(qn__part_is(w, NESTED_MAP, "F32", 1, (int64_t[]){256}));
  return qn__part_is(w, NESTED_ABSMAX, "F32", 1, (int64_t[]){qn__ceildiv(blocks, st->nested_blocksize)});
}

static bool match(const qn_model *m, const qn__weight *w) {
  (void)m;
  return w->part[STATE_NF4] || w->part[STATE_FP4];
}

static qn_status claim(const qn_model *m, qn__weight *w) {
  state st;
  char grain[24];
  (void)m;
  QN_TRY(read_state(w, &st));
  w->bits = 4;
  w->pub.dialect = w->part[STATE_NF4] ? "bitsandbytes/nf4" : "bitsandbytes/fp4";
  w->pub.n = w->rows = st.n;
  w->pub.k = st.k;
  if ((uint64_t)qn__ceildiv(st.n * st.k, 2) != w->part[WEIGHT]->bytes)
    return qn__fail(QN_E_FORMAT, "%s: %zu bytes for %jd x %jd codes of 4 bits", w->part[WEIGHT]->name,
                    w->part[WEIGHT]->bytes, (intmax_t)st.n, (intmax_t)st.k);
  QN_TRY(check_absmax(w, &st));
  QN_TRY(w->part[STATE_NF4] ? check_table(w, nf4, QN_COUNT(nf4), "nf4") : check_table(w, fp4, QN_COUNT(fp4), "fp4"));
  w->group = qn__gcd(st.k, st.blocksize);
  w->groups = st.k / w->group;
  return qn__spell(w, w->part[STATE_NF4] ? "nf4" : "fp4", qn__grain(w, grain), "", QN_T_F32);
}

static float absmax(const qn__weight *w, const state *st, int64_t block) {
  const uint8_t *a = w->part[ABSMAX]->data;
  if (!w->part[NESTED_ABSMAX]) return qn__f32(a + 4 * block);
  float map = qn__f32((const uint8_t *)w->part[NESTED_MAP]->data + 4 * a[block]);
  float scale = qn__f32((const uint8_t *)w->part[NESTED_ABSMAX]->data + 4 * (block / st->nested_blocksize));
  return map * scale + st->nested_offset;
}

static qn_status read(const qn__weight *w, int64_t slice, qn_planes **out) {
  (void)slice;
  int64_t n = w->pub.n, k = w->pub.k;
  const qn__spec spec[] = {{"codes", QN_T_U8, n, k, NULL}, {"scale", QN_T_F32, n, w->groups, NULL}};
  state st;
  QN_TRY(read_state(w, &st));
  QN_TRY(qn__planes_new(w, spec, 2, false, out));
  uint8_t *codes = qn__fill(*out, 0);
  float *scale = qn__fill(*out, 1);
  const uint8_t *from = w->part[WEIGHT]->data;
  for (int64_t i = 0; i < n * k; i++) codes[i] = from[i / 2] >> (i % 2 ? 0 : 4) & 15;
  for (int64_t i = 0; i < n * w->groups; i++) scale[i] = absmax(w, &st, i * w->group / st.blocksize);
  return QN_OK;
}

const qn__dialect qn__bnb4 = {"bitsandbytes/4bit",
                              ".weight",
                              {"!.weight.absmax", ".weight.quant_map", ".weight.nested_absmax",
                               ".weight.nested_quant_map", ".weight.quant_state.bitsandbytes__nf4",
                               ".weight.quant_state.bitsandbytes__fp4"},
                              ".weight",
                              match,
                              claim,
                              read};

/* ---- LLM.int8 ---------------------------------------------------------------------------------------------------- */

enum { SCB = 1, WEIGHT_FORMAT };

static qn_status claim_int8(const qn_model *m, qn__weight *w) {
  (void)m;
  QN_TRY(qn__part_is(w, WEIGHT, "I8", 2, (int64_t[]){-1, -1}));
  w->bits = 8;
  w->pub.n = w->rows = w->part[WEIGHT]->dim[0];
  w->pub.k = w->part[WEIGHT]->dim[1];
  w->groups = 1;
  QN_TRY(qn__part_is(w, SCB, "F32", 1, &w->pub.n));
  const qn_raw *order = w->part[WEIGHT_FORMAT];
  if (order && order->bytes && *(const uint8_t *)order->data)
    return qn__fail(QN_E_SHAPE, "%s: %u; only 0, row by row, is read", order->name, *(const uint8_t *)order->data);
  w->pub.activation = "i8.row";
  return qn__spell(w, "int8", "row", "", QN_T_F32);
}

static qn_status read_int8(const qn__weight *w, int64_t slice, qn_planes **out) {
  (void)slice;
  const qn__spec spec[] = {{"codes", QN_T_U8, w->pub.n, w->pub.k, NULL}, {"scale", QN_T_F32, w->pub.n, 1, NULL}};
  QN_TRY(qn__planes_new(w, spec, 2, false, out));
  uint8_t *codes = qn__fill(*out, 0);
  float *scale = qn__fill(*out, 1);
  const uint8_t *from = w->part[WEIGHT]->data, *scb = w->part[SCB]->data;
  for (int64_t i = 0; i < w->pub.n * w->pub.k; i++) codes[i] = from[i] ^ 0x80;
  for (int64_t i = 0; i < w->pub.n; i++) scale[i] = qn__f32(scb + 4 * i) / 127;
  return QN_OK;
}

const qn__dialect qn__bnb_int8 = {"bitsandbytes/int8", ".weight", {"!.SCB", ".weight_format"}, ".weight", NULL,
                                  claim_int8,          read_int8};
