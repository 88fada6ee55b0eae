/* format.c - what a format asks: is it well formed, and do planes hold what it says? */
#include "clones.h"
#include "convert.h"
#include "desc.h"
#include "fail.h"
#include "heap.h"
#include "narrow.h"
#include <math.h>
#include <string.h>

static qn_status plane_spec_check(const qn_format *f, uint32_t i) {
  const qn_format_plane *p = &f->plane[i];
  if (!p->name[0] || !memchr(p->name, 0, sizeof p->name))
    return qn__fail(QN_E_FORMAT, "format '%s': plane %u has no name", f->name, i);
  if (!strcmp(p->name, "codes")) return qn__fail(QN_E_FORMAT, "format '%s': a second plane 'codes'", f->name);
  for (uint32_t j = 0; j < i; j++)
    if (!strcmp(p->name, f->plane[j].name))
      return qn__fail(QN_E_FORMAT, "format '%s': two planes '%s'", f->name, p->name);
  if (!qn_type_bits((qn_type)p->type))
    return qn__fail(QN_E_FORMAT, "format '%s': plane '%s' has type %u", f->name, p->name, p->type);
  int bits = qn_type_bits((qn_type)p->type) - qn__is_signed(p->type);
  if (p->max && (qn__is_float(p->type) || (bits < 32 && p->max >> bits)))
    return qn__fail(QN_E_FORMAT, "format '%s': plane '%s' of type %s has the limit %u", f->name, p->name,
                    qn_type_name((qn_type)p->type), p->max);
  return QN_OK;
}

qn_status qn__format_check(const qn_format *f) {
  if (!f->name[0] || !memchr(f->name, 0, sizeof f->name)) return qn__fail(QN_E_FORMAT, "format without a name");
  if (f->codes != QN_T_U8 && f->codes != QN_T_U16 && f->codes != QN_T_U32)
    return qn__fail(QN_E_FORMAT, "format '%s': codes of type %u, not u8, u16 or u32", f->name, f->codes);
  if (f->bits < 1 || f->bits > (uint32_t)qn_type_bits((qn_type)f->codes))
    return qn__fail(QN_E_FORMAT, "format '%s': %u bits in a code of type %s", f->name, f->bits,
                    qn_type_name((qn_type)f->codes));
  if (f->cast && (uint32_t)qn_type_bits((qn_type)f->cast) != f->bits)
    return qn__fail(QN_E_FORMAT, "format '%s': codes of %u bits read as type %u", f->name, f->bits, f->cast);
  if (f->n_planes > QN_FORMAT_PLANES || f->n_tables > QN_COUNT(f->table))
    return qn__fail(QN_E_FORMAT, "format '%s': %u planes and %u tables, limits %d and %zu", f->name, f->n_planes,
                    f->n_tables, QN_FORMAT_PLANES, QN_COUNT(f->table));
  for (uint32_t i = 0; i < f->n_planes; i++) QN_TRY(plane_spec_check(f, i));
  if (!f->decode.n) return qn__fail(QN_E_FORMAT, "format '%s': no decode rule", f->name);
  if (f->decode.n > QN_POOL_OPS)
    return qn__fail(QN_E_FORMAT, "format '%s': decode rule of %u tokens", f->name, f->decode.n);
  return qn__expr_check(qn__decode_rule(f), 1 + f->n_planes, f->n_tables, false);
}

static const char *plane_name(const qn_format *f, uint32_t i) { return i ? f->plane[i - 1].name : "codes"; }

const qn_plane *qn__planes_find(const qn_format *f, const qn_planes *p, uint32_t i) {
  for (int j = 0; j < p->n_planes && j < QN_MAX_PLANES; j++)
    if (p->plane[j].name && !strcmp(p->plane[j].name, plane_name(f, i))) return &p->plane[j];
  return NULL;
}

/* Number of elements along an axis of `size` weights, `share` weights an element (0: all of them). */
static int64_t extent(int64_t size, uint32_t share) { return share ? (size + share - 1) / share : 1; }

/* Index of the first element of which, plus `add`, the bits `mask` are above `max`, or -1. A block is searched only if
 * it has one: the loop that tells vectorises. */
#define FIRST_ABOVE(type)                                                                                              \
  for (int64_t i = 0; i < n; i += BLOCK) {                                                                             \
    type v[BLOCK] = {0}, over = 0;                                                                                     \
    int64_t m = n - i < BLOCK ? n - i : BLOCK;                                                                         \
    memcpy(v, (const char *)data + i * (int64_t)sizeof *v, (size_t)m * sizeof *v);                                     \
    for (int j = 0; j < BLOCK; j++) over |= (type)((type)((v[j] + add) & mask) > (type)max);                           \
    for (int j = 0; over; j++)                                                                                         \
      if ((type)((v[j] + add) & mask) > (type)max) return i + j;                                                       \
  }                                                                                                                    \
  return -1

enum { BLOCK = 256 };
QN__CLONES static int64_t first_above_8(const void *data, int64_t n, uint32_t add, uint32_t mask, uint32_t max) {
  FIRST_ABOVE(uint8_t);
}
QN__CLONES static int64_t first_above_16(const void *data, int64_t n, uint32_t add, uint32_t mask, uint32_t max) {
  FIRST_ABOVE(uint16_t);
}
QN__CLONES static int64_t first_above_32(const void *data, int64_t n, uint32_t add, uint32_t mask, uint32_t max) {
  FIRST_ABOVE(uint32_t);
}

static int64_t first_above(qn_type t, const void *data, int64_t n, uint32_t add, uint32_t mask, uint32_t max) {
  switch (qn_type_bits(t)) {
  case 8:
    return first_above_8(data, n, add, mask, max);
  case 16:
    return first_above_16(data, n, add, mask, max);
  case 32:
    return first_above_32(data, n, add, mask, max);
  default:
    return -1;
  }
}

/* Index of the first element that is NaN or infinite, or -1. */
static int64_t first_not_finite(qn_type t, const void *data, int64_t n) {
  qn_form f = qn__form[t];
  for (int64_t i = 0; t == QN_T_F64 && i < n; i++)
    if (!isfinite(qn__load_f64(t, data, i))) return i;
  return t == QN_T_F64 ? -1 : first_above(t, data, n, 0, qn__form_ones(f), qn__form_largest(f));
}

static qn_status plane_check(const qn_format *f, const qn_planes *p, uint32_t i) {
  const qn_format_plane codes = {.type = f->codes, .rows = 1, .cols = 1}, *want = i ? &f->plane[i - 1] : &codes;
  const char *name = plane_name(f, i);
  const qn_plane *have = qn__planes_find(f, p, i);
  if (!have || !have->data) return qn__fail(QN_E_ARG, "weight of format '%s': plane '%s' is missing", f->name, name);
  if (have->type != (qn_type)want->type)
    return qn__fail(QN_E_ARG, "plane '%s' is %s, format '%s' wants %s", name,
                    qn_type_name(have->type) ? qn_type_name(have->type) : "of no type", f->name,
                    qn_type_name((qn_type)want->type));
  int64_t rows = extent(p->n, want->rows), cols = extent(p->k, want->cols);
  if (have->rows != rows || have->cols != cols)
    return qn__fail(QN_E_SHAPE,
                    "plane '%s' is [%lld, %lld], format '%s' wants [%lld, %lld] for a weight of [%lld, %lld]", name,
                    (long long)have->rows, (long long)have->cols, f->name, (long long)rows, (long long)cols,
                    (long long)p->n, (long long)p->k);
  uint32_t max = i ? want->max : f->bits < 32 ? (UINT32_C(1) << f->bits) - 1 : 0;
  uint32_t below = qn__is_signed(have->type) ? max + 1 : 0; /* so many numbers are less than 0 */
  int64_t bad = max ? first_above(have->type, have->data, rows * cols, below, UINT32_MAX, max + below) : -1;
  if (bad >= 0)
    return qn__fail(QN_E_ARG, "plane '%s'[%lld, %lld] is %g, the limit of format '%s' is %u", name,
                    (long long)(bad / cols), (long long)(bad % cols), qn__load_f64(have->type, have->data, bad),
                    f->name, max);
  qn_type value = i ? have->type : f->cast ? (qn_type)f->cast : have->type;
  if ((bad = first_not_finite(value, have->data, qn__is_float(value) ? rows * cols : 0)) >= 0)
    return qn__fail(QN_E_ARG, "plane '%s'[%lld, %lld] is %g, not a finite number", name, (long long)(bad / cols),
                    (long long)(bad % cols), qn__load_f64(value, have->data, bad));
  return QN_OK;
}

static qn_status perm_check(const qn_allocator *heap, const int32_t *perm, int64_t k) {
  uint8_t *seen = qn__alloc_zero(heap, (size_t)k);
  if (!seen) return qn__fail(QN_E_NOMEM, "permutation of %lld", (long long)k);
  int64_t j = 0;
  while (j < k && perm[j] >= 0 && perm[j] < k && !seen[perm[j]]) seen[perm[j++]] = 1;
  qn__free(heap, seen, (size_t)k);
  if (j < k)
    return qn__fail(QN_E_ARG, "perm[%lld] = %d is twice there or not below K = %lld", (long long)j, perm[j],
                    (long long)k);
  return QN_OK;
}

/* The planes are those of the format and no others: a zero point that nobody reads would be another weight. */
static qn_status names_check(const qn_format *f, const qn_planes *p) {
  for (int j = 0; j < p->n_planes; j++) {
    uint32_t i = 0;
    while (i <= f->n_planes && qn__planes_find(f, p, i) != &p->plane[j]) i++;
    if (i > f->n_planes)
      return qn__fail(QN_E_ARG, "plane %d, '%s': format '%s' has no such plane, or it is given twice", j,
                      p->plane[j].name ? p->plane[j].name : "NULL", f->name);
  }
  return QN_OK;
}

qn_status qn__planes_check(const qn_allocator *heap, const qn_format *f, const qn_planes *p) {
  if (p->n < 1 || p->k < 1 || p->n > INT32_MAX || p->k > INT32_MAX)
    return qn__fail(QN_E_SHAPE, "weight of [%lld, %lld]: N and K must be in 1 .. 2147483647", (long long)p->n,
                    (long long)p->k);
  if (!p->format || !qn__format_named(f, p->format))
    return qn__fail(QN_E_ARG, "weight is of format '%s', not '%s'", p->format ? p->format : "NULL", f->name);
  if (p->n_planes < 1 || p->n_planes > QN_MAX_PLANES)
    return qn__fail(QN_E_ARG, "weight of %d planes, allowed 1 .. %d", p->n_planes, QN_MAX_PLANES);
  for (uint32_t i = 0; i <= f->n_planes; i++) QN_TRY(plane_check(f, p, i));
  QN_TRY(names_check(f, p));
  return p->perm ? perm_check(heap, p->perm, p->k) : QN_OK;
}
