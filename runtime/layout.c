/* layout.c - layouts, the digit tables of desc.h: how many bytes they take, and whether one is a bijection. Nothing
 * here knows a format or a kernel. */
#include "layout.h"
#include "fail.h"
#include <stdlib.h>
#include <string.h>

#define SECTION_ALIGN 256
#define MAX_BYTES (INT64_C(1) << 48)
#define MAX_ELEMENTS (1 << 20)      /* of a field: a record is a tile, not a matrix */
#define MAX_TILE (INT64_C(1) << 22) /* weights */
#define MAX_BYTES_A_WEIGHT 64       /* a code of 4 bytes and seven planes of 4 take 32 */

static int64_t round_up(int64_t v, int64_t to) { return (v + to - 1) / to * to; }

static int64_t padded(const qn_layout *l, int axis, int64_t size) {
  return round_up(size, axis ? l->tile_k : l->tile_n);
}

/* ---- Sizes ------------------------------------------------------------------------------------------------------- */

int64_t qn__digit_size(const qn_layout *l, const qn_digit *d, int64_t n, int64_t k) {
  int64_t cover = padded(l, d->axis, d->axis ? k : n);
  return d->size ? d->size : (cover + d->stride - 1) / d->stride;
}

int64_t qn__field_elements(const qn_field *f) {
  int64_t count = 1;
  for (uint32_t i = 0; i < f->n_digits; i++) count *= f->digit[i].size;
  return count;
}

int64_t qn__field_bytes(const qn_field *f) { return (qn__field_elements(f) * f->bits + 7) / 8; }

int64_t qn__record_bytes(const qn_section *s) {
  int64_t bytes = 0;
  for (uint32_t i = 0; i < s->n_fields; i++) bytes += qn__field_bytes(&s->field[i]);
  return bytes;
}

static qn_status section_bytes(const qn_layout *l, int i, int64_t n, int64_t k, int64_t *bytes) {
  const qn_section *s = &l->section[i];
  *bytes = qn__record_bytes(s);
  for (uint32_t d = 0; d < s->n_outer; d++)
    if (__builtin_mul_overflow(*bytes, qn__digit_size(l, &s->outer[d], n, k), bytes) || *bytes > MAX_BYTES)
      return qn__fail(QN_E_LIMIT, "layout '%s': a weight of [%lld, %lld] takes more than 2^48 bytes", l->name,
                      (long long)n, (long long)k);
  return QN_OK;
}

qn_status qn__layout_offset(const qn_layout *l, int s, int64_t n, int64_t k, int64_t *offset) {
  *offset = 0;
  for (int i = 0; i < s; i++) {
    int64_t bytes;
    QN_TRY(section_bytes(l, i, n, k, &bytes));
    *offset += round_up(bytes, SECTION_ALIGN);
  }
  return *offset <= MAX_BYTES ? QN_OK : qn__fail(QN_E_LIMIT, "layout '%s': more than 2^48 bytes", l->name);
}

qn_status qn__layout_bytes(const qn_layout *l, int64_t n, int64_t k, int64_t *bytes) {
  return qn__layout_offset(l, (int)l->n_sections, n, k, bytes);
}

/* ---- Check ------------------------------------------------------------------------------------------------------- */

static qn_status digit_check(const qn_layout *l, const qn_digit *d, bool outer) {
  if (d->axis > 1 || !d->stride || (!d->size && !outer) || d->size > INT32_MAX || d->stride > INT32_MAX)
    return qn__fail(QN_E_FORMAT, "layout '%s': digit of axis %u, size %u, stride %u", l->name, d->axis, d->size,
                    d->stride);
  return QN_OK;
}

static int by_stride(const void *a, const void *b) {
  const qn_digit *x = a, *y = b;
  if (x->stride != y->stride) return x->stride < y->stride ? -1 : 1;
  return (x->size > 1 || !x->size) - (y->size > 1 || !y->size); /* a digit of one place stands for nothing */
}

/* Do the digits of one axis reach every weight up to `size`, and nowhere near 2^31 places beyond? Taken in order of
 * stride, each must start no later than where those below it end; in codes exactly there, or a place would hold an
 * element twice. `share`: weights that are
 * one element anyway, 0 for all. */
static qn_status axis_check(const qn_layout *l, const qn_section *s, const qn_field *f, int axis, int64_t size,
                            uint32_t share) {
  qn_digit d[4 + QN_LAYOUT_DIGITS];
  size_t n = 0;
  for (uint32_t i = 0; i < s->n_outer; i++)
    if (s->outer[i].axis == axis) d[n++] = s->outer[i];
  for (uint32_t i = 0; i < f->n_digits; i++)
    if (f->digit[i].axis == axis) d[n++] = f->digit[i];
  int64_t cover = padded(l, axis, size), reach = share ? share : cover, steps = 0;
  for (size_t i = 0; i < n; i++) {
    int64_t last = d[i].size ? (int64_t)(d[i].size - 1) * d[i].stride : 0;
    if (last >= cover || (steps += last) > INT32_MAX)
      return qn__fail(QN_E_FORMAT, "layout '%s': along %c a digit of size %u and stride %u leads beyond %lld", l->name,
                      "nk"[axis], d[i].size, d[i].stride, (long long)cover);
  }
  qsort(d, n, sizeof *d, by_stride);
  for (size_t i = 0; i < n; i++) {
    if (d[i].size == 1) continue;
    if (d[i].stride > reach || (!f->plane && d[i].stride != reach))
      return qn__fail(QN_E_FORMAT, "layout '%s': along %c a digit of stride %u follows a reach of %lld", l->name,
                      "nk"[axis], d[i].stride, (long long)reach);
    int64_t end = d[i].stride * qn__digit_size(l, &d[i], size, size);
    reach = end > reach ? end : reach;
  }
  if (reach < cover)
    return qn__fail(QN_E_FORMAT, "layout '%s': along %c the digits reach %lld of %lld", l->name, "nk"[axis],
                    (long long)reach, (long long)cover);
  return QN_OK;
}

/* Does every value of a plane's type have its own in the type that is stored? */
static bool widens(qn_type plane, qn_type stored) {
  bool wider = qn_type_bits(plane) < qn_type_bits(stored), code = plane == QN_T_U8 || plane == QN_T_U16;
  return plane == stored ||
         (wider && (stored == QN_T_F32 || (code && (stored == QN_T_U16 || stored == QN_T_U32 || stored == QN_T_I32))));
}

static qn_status field_check(const qn_layout *l, const qn_format *fmt, const qn_section *s, const qn_field *f,
                             int64_t n, int64_t k) {
  if (f->plane > fmt->n_planes || f->n_digits > QN_LAYOUT_DIGITS)
    return qn__fail(QN_E_FORMAT, "layout '%s': field of plane %u with %u digits", l->name, f->plane, f->n_digits);
  int64_t count = 1;
  for (uint32_t i = 0; i < f->n_digits; i++) {
    QN_TRY(digit_check(l, &f->digit[i], false));
    if (f->digit[i].size > MAX_ELEMENTS || (count *= f->digit[i].size) > MAX_ELEMENTS)
      return qn__fail(QN_E_FORMAT, "layout '%s': a field of more than %d elements", l->name, MAX_ELEMENTS);
  }
  if (!f->plane && (f->bits < 1 || f->lo > 31 || f->bits > 32 || f->lo + f->bits > fmt->bits))
    return qn__fail(QN_E_FORMAT, "layout '%s': bits [%u, %u) of a code with %u", l->name, f->lo, f->lo + f->bits,
                    fmt->bits);
  if (f->plane && (!widens((qn_type)fmt->plane[f->plane - 1].type, (qn_type)f->type) || f->lo ||
                   f->bits != (uint32_t)qn_type_bits((qn_type)f->type) || f->bits > 32))
    return qn__fail(QN_E_FORMAT, "layout '%s': plane '%s' stored as type %u in %u bits", l->name,
                    fmt->plane[f->plane - 1].name, f->type, f->bits);
  const qn_format_plane *p = f->plane ? &fmt->plane[f->plane - 1] : NULL;
  if (l->pairs && p && p->rows > 1)
    return qn__fail(QN_E_FORMAT, "layout '%s' pairs rows, but %u of them share an element of plane '%s'", l->name,
                    p->rows, p->name);
  QN_TRY(axis_check(l, s, f, 0, n, p ? p->rows : 1));
  return axis_check(l, s, f, 1, k, p ? p->cols : 1);
}

static qn_status section_check(const qn_layout *l, const qn_format *fmt, const qn_section *s, int64_t n, int64_t k) {
  if (s->n_outer > QN_COUNT(s->outer) || s->n_fields < 1 || s->n_fields > QN_LAYOUT_FIELDS)
    return qn__fail(QN_E_FORMAT, "layout '%s': section of %u outer digits and %u fields", l->name, s->n_outer,
                    s->n_fields);
  for (uint32_t i = 0; i < s->n_outer; i++) QN_TRY(digit_check(l, &s->outer[i], true));
  for (uint32_t i = 0; i < s->n_fields; i++) QN_TRY(field_check(l, fmt, s, &s->field[i], n, k));
  return QN_OK;
}

qn_status qn__layout_check(const qn_layout *l, const qn_format *f, int64_t n, int64_t k) {
  uint64_t have_bits = 0, want_bits = (UINT64_C(1) << f->bits) - 1;
  uint32_t have_planes = 0;
  if (!memchr(l->name, 0, sizeof l->name) || !memchr(l->hash, 0, sizeof l->hash))
    return qn__fail(QN_E_FORMAT, "layout without a name");
  if (l->n_sections < 1 || l->n_sections > QN_LAYOUT_SECTIONS || l->tile_n < 1 || l->tile_k < 1 ||
      l->tile_n > MAX_TILE || l->tile_k > MAX_TILE / l->tile_n || l->pad_code > want_bits)
    return qn__fail(QN_E_FORMAT, "layout '%s': %u sections, tile %u x %u, pad code %u", l->name, l->n_sections,
                    l->tile_n, l->tile_k, l->pad_code);
  if (l->pairs > 1 || (l->pairs && n % 2))
    return qn__fail(QN_E_FORMAT, "layout '%s': pairs %u for %lld rows", l->name, l->pairs, (long long)n);
  for (uint32_t i = 0; i < l->n_sections; i++) {
    const qn_section *s = &l->section[i];
    QN_TRY(section_check(l, f, s, n, k));
    for (uint32_t j = 0; j < s->n_fields; j++) {
      const qn_field *field = &s->field[j];
      if (field->plane) have_planes |= 1u << field->plane;
      else have_bits |= ((UINT64_C(1) << field->bits) - 1) << field->lo;
    }
  }
  if (have_bits != want_bits || have_planes != (1u << (1 + f->n_planes)) - 2)
    return qn__fail(QN_E_FORMAT, "layout '%s': format '%s' has bits or planes that it does not store", l->name,
                    f->name);
  int64_t bytes, most = padded(l, 0, n) * padded(l, 1, k) + QN_LAYOUT_SECTIONS * SECTION_ALIGN;
  QN_TRY(qn__layout_bytes(l, n, k, &bytes));
  return bytes / MAX_BYTES_A_WEIGHT <= most
             ? QN_OK
             : qn__fail(QN_E_FORMAT, "layout '%s': %lld bytes for a weight of [%lld, %lld]", l->name, (long long)bytes,
                        (long long)n, (long long)k);
}
