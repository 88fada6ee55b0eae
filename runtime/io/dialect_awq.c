/* dialect_awq.c - AWQ's 4-bit codes, as several tools lay them out. W[n,k] = scale[n, k/g] * (code[n,k] - zero[n, k/g])
 *
 *     AutoAWQ gemm    qweight I32 [K, N/8]   qzeros I32 [G, N/8]   scales [G, N]
 *                     nibble i of word c is column 8 c + P[i]; so are the zero points
 *     AutoAWQ gemv    qweight I32 [N, K/8]   qzeros I32 [N, Z]   scales [N, 8 Z]   nibbles in order, Z words or more
 * than G / 8 gemv_fast       qweight I16 [N/4, K]   qzeros F16 [R, N] = -zero * scale   scales F16 [R, N]   four rows,
 * 64 codes of each in turn, in the order of its kernel; R is G or more Quark           weight I32 [K, N/8]
 * weight_zero_point I32 [G, N/8]   weight_scale [G, N]   as gemm, or with the nibbles in order; codes and zero points
 * of int4 are signed ModelOpt        weight U8 [N/2, K], an even row in the low nibble, signed   weight_scale [N, G];
 * may be stacked
 *
 * Configurations say "zero_point": false of files of gemm that hold zero points, so the file is believed: W always has
 * them. AWQ's Marlin layout has no qzeros and is refused by its name.
 *
 * Source: AutoAWQ, awq/utils/packing_utils.py and awq/modules/linear/gemv*.py; Quark, export's pack.py; ModelOpt,
 * torch/export/quant_utils.py. */
#include "awq.h"
#include "model.h"
#include <string.h>
#include <strings.h>

enum { CODES, ZEROS, SCALES };
enum { GEMM, GEMV, GEMV_FAST, IN_ORDER, SIGNED = 8, LAYOUT = 7 }; /* mode; IN_ORDER is gemm without the interleaving */

static bool is_float(const qn_raw *r) { return r->type == QN_T_F16 || r->type == QN_T_BF16 || r->type == QN_T_F32; }

/* The groups of `rows` scales, of which a kernel's layout may have more than there are groups. */
static qn_status enter_groups(const qn_model *m, qn__weight *w, int64_t rows) {
  int64_t size = qn__layer_int(m, w, "group_size", qn__layer_int(m, w, "q_group_size", 0));
  bool padded = w->mode == GEMV || w->mode == GEMV_FAST;
  w->groups = padded ? (size > 0 ? w->pub.k / size : 1) : rows;
  if (w->groups < 1 || w->groups > rows || w->pub.n < 1 || w->pub.k < w->groups || w->pub.k % w->groups ||
      (padded && size > 0 && w->pub.k % size))
    return qn__fail(QN_E_FORMAT, "%s: %jd groups do not divide K = %jd", w->part[SCALES]->name, (intmax_t)rows,
                    (intmax_t)w->pub.k);
  if (padded && !size) return qn__fail(QN_E_SHAPE, "%s: no configuration says \"group_size\"", w->part[CODES]->name);
  w->group = w->groups == 1 && size != w->pub.k ? 0 : w->pub.k / w->groups;
  return QN_OK;
}

/* ---- AutoAWQ ----------------------------------------------------------------------------------------------------- */

static bool match(const qn_model *m, const qn__weight *w) {
  const qn_raw *q = w->part[CODES], *s = w->part[SCALES];
  if (!strcmp(qn__quant_text(m, "quant_method"), "awq")) return true;
  return w->part[ZEROS] && q->n_dims == 2 && s->n_dims == 2 && q->dim[1] && s->dim[1] / 8 == q->dim[1] &&
         s->dim[1] % 8 == 0;
}

static qn_status claim_gemm(const qn_model *m, qn__weight *w) {
  const qn_raw *q = w->part[CODES], *s = w->part[SCALES];
  QN_TRY(qn__part_is(w, CODES, "I32 U32", 2, (int64_t[]){-1, -1}));
  w->pub.n = w->rows = q->dim[1] * 8;
  w->pub.k = q->dim[0];
  QN_TRY(qn__part_float(w, SCALES, 2, (int64_t[]){-1, w->pub.n}));
  if (w->dialect == &qn__awq || w->part[ZEROS])
    QN_TRY(qn__part_is(w, ZEROS, "I32 U32", 2, (int64_t[]){s->dim[0], q->dim[1]}));
  return enter_groups(m, w, s->dim[0]);
}

static qn_status claim_gemv(const qn_model *m, qn__weight *w) {
  const qn_raw *q = w->part[CODES], *s = w->part[SCALES];
  QN_TRY(qn__part_is(w, CODES, "I32 U32", 2, (int64_t[]){-1, -1}));
  w->pub.n = w->rows = q->dim[0];
  w->pub.k = q->dim[1] * 8;
  QN_TRY(qn__part_float(w, SCALES, 2, (int64_t[]){w->pub.n, -1}));
  QN_TRY(qn__part_is(w, ZEROS, "I32 U32", 2, (int64_t[]){w->pub.n, qn__ceildiv(s->dim[1], 8)}));
  return enter_groups(m, w, s->dim[1]);
}

static qn_status claim_gemv_fast(const qn_model *m, qn__weight *w) {
  const qn_raw *q = w->part[CODES], *s = w->part[SCALES];
  QN_TRY(qn__part_is(w, CODES, "I16 U16", 2, (int64_t[]){-1, -1}));
  w->pub.n = w->rows = q->dim[0] * 4;
  w->pub.k = q->dim[1];
  if (w->pub.k % 64) return qn__fail(QN_E_FORMAT, "%s: K = %jd is no multiple of 64", q->name, (intmax_t)w->pub.k);
  QN_TRY(qn__part_float(w, SCALES, 2, (int64_t[]){-1, w->pub.n}));
  QN_TRY(qn__part_is(w, ZEROS, s->dtype, 2, s->dim));
  return enter_groups(m, w, s->dim[0]);
}

static qn_status claim(const qn_model *m, qn__weight *w) {
  static const struct {
    const char *version;
    int mode;
    qn_status (*claim)(const qn_model *m, qn__weight *w);
  } layouts[] = {
      {"", GEMM, claim_gemm},     {"gemm", GEMM, claim_gemm}, {"exllama", GEMM, claim_gemm}, /* reordered when loaded */
      {"ipex", GEMM, claim_gemm}, {"gemv", GEMV, claim_gemv}, {"gemv_fast", GEMV_FAST, claim_gemv_fast}};
  const char *version = qn__quant_text(m, "version"), *name = w->part[CODES]->name;
  char grain[24];
  size_t i = 0;
  QN_TRY(qn__layer_configure(m, w));
  int64_t bits = qn__layer_int(m, w, "bits", qn__layer_int(m, w, "w_bit", 4));
  while (i < QN_COUNT(layouts) && strcasecmp(version, layouts[i].version)) i++;
  if (i == QN_COUNT(layouts)) return qn__fail(QN_E_SHAPE, "%s: AWQ's layout \"%s\"; save it as gemm", name, version);
  if (bits != 4) return qn__fail(QN_E_SHAPE, "%s: AWQ of %jd bits; the layout has 4", name, (intmax_t)bits);
  w->bits = 4;
  w->mode = layouts[i].mode;
  QN_TRY(layouts[i].claim(m, w));
  return qn__spell(w, "int4", qn__grain(w, grain), w->mode == GEMV_FAST ? "m" : "z", w->part[SCALES]->type);
}

const uint8_t qn__awq_order[8] = {0, 2, 4, 6, 1, 3, 5, 7};

/* out[n][r] = nibble of row r, column n of [rows, n / 8] words; out has `rows` columns. Tiles, so that reading and
 * writing stay in the cache. */
static void unpack(const qn__weight *w, int part, int64_t rows, uint8_t *out) {
  enum { WORDS = 16, DEPTH = 64 };
  static const uint8_t in_order[8] = {0, 1, 2, 3, 4, 5, 6, 7};
  const uint8_t *column_of = (w->mode & LAYOUT) == IN_ORDER ? in_order : qn__awq_order;
  uint8_t flip = w->mode & SIGNED ? 8 : 0;
  int64_t words = w->pub.n / 8;
  for (int64_t c0 = 0; c0 < words; c0 += WORDS)
    for (int64_t r0 = 0; r0 < rows; r0 += DEPTH)
      for (int64_t c = c0; c < words && c < c0 + WORDS; c++)
        for (int64_t r = r0; r < rows && r < r0 + DEPTH; r++) {
          uint32_t word = qn__le32((const uint8_t *)w->part[part]->data + 4 * (r * words + c));
          for (int i = 0; i < 8; i++) out[(c * 8 + column_of[i]) * rows + r] = (word >> 4 * i & 15) ^ flip;
        }
}

/* `count` nibbles of each row of words that may have more. */
static void unpack_rows(const qn__weight *w, int part, int64_t count, uint8_t *out) {
  const qn_raw *r = w->part[part];
  for (int64_t n = 0; n < w->pub.n; n++)
    qn__unpack((const uint8_t *)r->data + 4 * n * r->dim[1], 4, 4, QN__DENSE, count, out + n * count, 1);
}

static void unpack_fast(const qn__weight *w, uint8_t *codes) {
  const uint8_t *from = w->part[CODES]->data;
  for (int64_t n = 0; n < w->pub.n; n++)
    for (int64_t k = 0; k < w->pub.k; k++) {
      int64_t i = k / 8 % 4, j = k / 2 % 4, at = k / 32 * 32 + 8 * j + 4 * (k % 2) + i; /* of 32, for its kernel */
      at = ((n / 4 * (w->pub.k / 64) + at / 64) * 4 + n % 4) * 64 + at % 64;
      codes[n * w->pub.k + k] = from[at / 2] >> 4 * (at % 2) & 15;
    }
}

/* Columns of a float array of [G or more, N], or rows of [N, G or more]. */
static void read_floats(const qn__weight *w, int part, uint8_t *to) {
  const qn_raw *r = w->part[part];
  size_t item = (size_t)qn_type_bits(r->type) / 8;
  int64_t along_n = (w->mode & LAYOUT) == GEMV ? r->dim[1] : 1, along_g = (w->mode & LAYOUT) == GEMV ? 1 : r->dim[1];
  for (int64_t n = 0; n < w->pub.n; n++)
    for (int64_t g = 0; g < w->groups; g++, to += item)
      memcpy(to, (const uint8_t *)r->data + (size_t)(n * along_n + g * along_g) * item, item);
}

static qn_status read(const qn__weight *w, int64_t slice, qn_planes **out) {
  (void)slice;
  int64_t n = w->pub.n, k = w->pub.k;
  bool fast = w->mode == GEMV_FAST;
  const qn__spec spec[] = {{"codes", QN_T_U8, n, k, NULL},
                           {"scale", w->scale, n, w->groups, NULL},
                           {fast ? "min" : "zero", fast ? w->scale : QN_T_U8, n, w->groups, NULL}};
  QN_TRY(qn__planes_new(w, spec, w->part[ZEROS] ? 3 : 2, false, out));
  uint8_t *codes = qn__fill(*out, 0), *zeros = w->part[ZEROS] ? qn__fill(*out, 2) : NULL;
  read_floats(w, SCALES, qn__fill(*out, 1));
  if (fast) unpack_fast(w, codes), read_floats(w, ZEROS, zeros);
  else if (w->mode == GEMV) unpack_rows(w, CODES, k, codes), unpack_rows(w, ZEROS, w->groups, zeros);
  else {
    unpack(w, CODES, k, codes);
    if (zeros) unpack(w, ZEROS, w->groups, zeros);
  }
  return QN_OK;
}

const qn__dialect qn__awq = {"awq", ".qweight", {".qzeros", "!.scales"}, ".weight", match, claim, read};

/* ---- Quark ------------------------------------------------------------------------------------------------------- */

static bool is_quark(const qn_model *m, const qn__weight *w) {
  return w->part[CODES]->type == QN_T_I32 && is_float(w->part[SCALES]) &&
         !strcmp(qn__quant_text(m, "quant_method"), "quark");
}

static const char *text(const cJSON *object, const char *key) {
  const char *s = cJSON_GetStringValue(qn__member(object, key));
  return s ? s : "";
}

static qn_status claim_quark(const qn_model *m, qn__weight *w) {
  const cJSON *all = qn__member(m->quant, "global_quant_config"), *config = qn__member(all, "weight"),
              *export = qn__member(m->quant, "export");
  const char *type = text(config, "dtype"), *scheme = text(config, "qscheme"), *order = text(export, "pack_method");
  char grain[24];
  if (strcmp(scheme, "per_group") || (strcmp(type, "int4") && strcmp(type, "uint4")) ||
      cJSON_GetArraySize(qn__member(m->quant, "layer_quant_config")))
    return qn__fail(QN_E_SHAPE,
                    "%s: Quark's %s, %s, maybe with exceptions; int4 and uint4 per group for all layers are read",
                    w->part[CODES]->name, *type ? type : "unknown type", *scheme ? scheme : "of unknown scheme");
  w->bits = 4;
  w->mode = (strcmp(order, "order") ? GEMM : IN_ORDER) | (strcmp(type, "int4") ? 0 : SIGNED);
  QN_TRY(claim_gemm(m, w));
  bool sym = !w->part[ZEROS];
  if (sym && !(w->mode & SIGNED)) return qn__fail(QN_E_FORMAT, "%s: no zero points beside it", w->part[CODES]->name);
  return qn__spell(w, "int4", qn__grain(w, grain), sym ? "" : "z", w->part[SCALES]->type);
}

const qn__dialect qn__quark_int4 = {
    "quark/int4", ".weight", {".weight_zero_point", "!.weight_scale"}, ".weight", is_quark, claim_quark, read};

/* ---- ModelOpt ---------------------------------------------------------------------------------------------------- */

enum { SCALES_2 = ZEROS };

static bool is_modelopt(const qn_model *m, const qn__weight *w) {
  const qn_raw *q = w->part[CODES], *s = w->part[SCALES];
  int last = q->n_dims - 1;
  (void)m;
  return q->type == QN_T_U8 && is_float(s) && last > 0 && s->n_dims == q->n_dims &&
         s->dim[last - 1] / 2 == q->dim[last - 1] && s->dim[last - 1] % 2 == 0;
}

static qn_status claim_modelopt(const qn_model *m, qn__weight *w) {
  char grain[24];
  QN_TRY(qn__enter_stack(w, "U8"));
  w->bits = 4;
  w->pub.n *= 2;
  QN_TRY(qn__scale_grid(m, w, SCALES, NULL, grain));
  if (w->part[SCALES_2]) return qn__fail(QN_E_SHAPE, "%s: ModelOpt's W4A8_AWQ is not read", w->part[SCALES_2]->name);
  return qn__spell(w, "int4", grain, "", w->part[SCALES]->type);
}

static qn_status read_modelopt(const qn__weight *w, int64_t slice, qn_planes **out) {
  int64_t n = w->pub.n, k = w->pub.k;
  const uint8_t *from = qn__slice(w, CODES, slice);
  const qn__spec spec[] = {{"codes", QN_T_U8, n, k, NULL},
                           {"scale", w->scale, w->rows, w->groups, qn__slice(w, SCALES, slice)}};
  QN_TRY(qn__planes_new(w, spec, 2, false, out));
  uint8_t *codes = qn__fill(*out, 0);
  for (int64_t i = 0; i < n * k; i++) codes[i] = (from[i / k / 2 * k + i % k] >> 4 * (i / k % 2) & 15) ^ 8;
  return QN_OK;
}

const qn__dialect qn__modelopt_int4 = {"modelopt/int4", ".weight",   {".weight_scale_2", "!.weight_scale"},
                                       ".weight",       is_modelopt, claim_modelopt,
                                       read_modelopt};
