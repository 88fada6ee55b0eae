/* layout.c - the bijection between planes and packed bytes, driven by the digit tables of desc.h.
 *
 * A section is walked record by record with an odometer over its outer digits; inside a record the place of each
 * element is always the same, so it is tabulated once per field. Bits go through a 64-bit accumulator, in order.
 * Nothing here knows a format or a kernel. */
#include "convert.h"
#include "fail.h"
#include "heap.h"

#include "desc.h"
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

static int64_t digit_size(const qn_layout *l, const qn_digit *d, int64_t n, int64_t k) {
  int64_t cover = padded(l, d->axis, d->axis ? k : n);
  return d->size ? d->size : (cover + d->stride - 1) / d->stride;
}

static int64_t field_elements(const qn_field *f) {
  int64_t count = 1;
  for (uint32_t i = 0; i < f->n_digits; i++) count *= f->digit[i].size;
  return count;
}

static int64_t record_bytes(const qn_section *s) {
  int64_t bytes = 0;
  for (uint32_t i = 0; i < s->n_fields; i++) bytes += (field_elements(&s->field[i]) * s->field[i].bits + 7) / 8;
  return bytes;
}

static qn_status section_bytes(const qn_layout *l, int i, int64_t n, int64_t k, int64_t *bytes) {
  const qn_section *s = &l->section[i];
  *bytes = record_bytes(s);
  for (uint32_t d = 0; d < s->n_outer; d++)
    if (__builtin_mul_overflow(*bytes, digit_size(l, &s->outer[d], n, k), bytes) || *bytes > MAX_BYTES)
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
    int64_t end = d[i].stride * digit_size(l, &d[i], size, size);
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

/* ---- Walking ----------------------------------------------------------------------------------------------------- */

typedef struct place {
  int32_t n, k;
} place;

/* A field ready to be walked: where its elements lie in a record, and the plane that they are of. */
typedef struct track {
  const qn_field *field;
  place *place; /* [count] */
  int64_t count;
  char *data; /* the plane's */
  int size;   /* bytes of an element there */
  qn_type from, to;
  int64_t half; /* rows of the layout are pairs of those of the weight, this far apart; 0: they are the same */
  int64_t rows, cols, ld; /* weights that share an element; elements of a row */
  uint64_t mask, pad;
} track;

/* Move an odometer of digits one step, last digit fastest; *n and *k follow. False when it is back at the start. */
static bool step(const qn_digit *d, const int64_t *size, uint32_t n_digits, int64_t *at, int64_t *n, int64_t *k) {
  for (uint32_t i = n_digits; i-- > 0;) {
    int64_t *axis = d[i].axis ? k : n;
    *axis += d[i].stride;
    if (++at[i] < size[i]) return true;
    *axis -= at[i] * d[i].stride;
    at[i] = 0;
  }
  return false;
}

static qn_status track_init(const qn_allocator *heap, track *t, const qn_layout *l, const qn_format *f,
                            const qn_field *field, const qn_planes *p) {
  const qn_plane *plane = qn__planes_find(f, p, field->plane);
  const qn_format_plane *spec = field->plane ? &f->plane[field->plane - 1] : NULL;
  *t = (track){.field = field, .count = field_elements(field), .rows = 1, .cols = 1, .ld = p->k};
  t->half = l->pairs ? p->n / 2 : 0;
  if (!plane || !plane->data) return qn__fail(QN_E_ARG, "layout '%s': plane %u is missing", l->name, field->plane);
  if (spec) {
    t->rows = spec->rows ? spec->rows : p->n;
    t->cols = spec->cols ? spec->cols : p->k;
    t->ld = plane->cols;
  }
  t->data = (char *)plane->data;
  t->from = plane->type;
  t->to = spec ? (qn_type)field->type : plane->type;
  t->size = qn_type_bits(plane->type) / 8;
  t->mask = (UINT64_C(1) << field->bits) - 1;
  t->pad = field->plane ? 0 : l->pad_code >> field->lo & t->mask;
  if (!(t->place = qn__alloc(heap, (size_t)t->count * sizeof *t->place)))
    return qn__fail(QN_E_NOMEM, "layout '%s': %lld places", l->name, (long long)t->count);
  int64_t at[QN_LAYOUT_DIGITS] = {0}, size[QN_LAYOUT_DIGITS], n = 0, k = 0;
  for (uint32_t i = 0; i < field->n_digits; i++) size[i] = field->digit[i].size;
  for (int64_t i = 0; i < t->count; i++, step(field->digit, size, field->n_digits, at, &n, &k))
    t->place[i] = (place){(int32_t)n, (int32_t)k};
  return QN_OK;
}

static int64_t element_of(const track *t, int64_t n, int64_t k) {
  if (t->half) n = n / 2 + n % 2 * t->half;
  return t->rows == 1 && t->cols == 1 ? n * t->ld + k : n / t->rows * t->ld + k / t->cols;
}

static uint64_t load_bits(const void *p, int size) {
  uint64_t v = 0;
  switch (size) {
  case 1:
    return *(const uint8_t *)p;
  case 2:
    memcpy(&v, p, 2);
    return v;
  case 4:
    memcpy(&v, p, 4);
    return v;
  default:
    return 0;
  }
}

/* The bits that stand for element i in packed memory. Widening is exact. */
static uint64_t get(const track *t, int64_t i) {
  if (t->from == t->to) return load_bits(t->data + i * t->size, t->size) >> t->field->lo & t->mask;
  uint32_t wide = 0;
  qn__store_f64(t->to, &wide, 0, qn__load_f64(t->from, t->data, i));
  return wide;
}

/* One field of the record at (n0, k0), to memory at *mem, which moves past it. */
static void pack_field(const track *t, const qn_planes *p, int64_t n0, int64_t k0, uint8_t **mem) {
  uint64_t acc = 0;
  unsigned fill = 0, bits = t->field->bits;
  uint8_t *dst = *mem;
  for (int64_t i = 0; i < t->count; i++) {
    int64_t n = n0 + t->place[i].n, k = k0 + t->place[i].k;
    acc |= (n < p->n && k < p->k ? get(t, element_of(t, n, k)) : t->pad) << fill;
    for (fill += bits; fill >= 8; fill -= 8, acc >>= 8) *dst++ = (uint8_t)acc;
  }
  if (fill) *dst++ = (uint8_t)acc;
  *mem = dst;
}

/* Every record of a section in memory order; *mem ends behind the last. */
static qn_status pack_section(const qn_allocator *heap, const qn_layout *l, const qn_format *f, const qn_section *s,
                              const qn_planes *p, uint8_t **mem) {
  track t[QN_LAYOUT_FIELDS] = {0};
  qn_status status = QN_OK;
  for (uint32_t i = 0; i < s->n_fields && !status; i++) status = track_init(heap, &t[i], l, f, &s->field[i], p);
  int64_t at[4] = {0}, size[4], n = 0, k = 0;
  for (uint32_t i = 0; i < s->n_outer; i++) size[i] = digit_size(l, &s->outer[i], p->n, p->k);
  if (!status) do
      for (uint32_t i = 0; i < s->n_fields; i++) pack_field(&t[i], p, n, k, mem);
    while (step(s->outer, size, s->n_outer, at, &n, &k));
  for (uint32_t i = 0; i < s->n_fields; i++) qn__free(heap, t[i].place, (size_t)t[i].count * sizeof *t[i].place);
  return status;
}

qn_status qn__layout_pack(const qn_allocator *heap, const qn_layout *l, const qn_format *f, const qn_planes *p,
                          void *dst) {
  for (uint32_t i = 0; i < l->n_sections; i++) {
    int64_t begin, end;
    QN_TRY(qn__layout_offset(l, (int)i, p->n, p->k, &begin));
    QN_TRY(qn__layout_offset(l, (int)i + 1, p->n, p->k, &end));
    uint8_t *mem = (uint8_t *)dst + begin;
    QN_TRY(pack_section(heap, l, f, &l->section[i], p, &mem));
    memset(mem, 0, (size_t)((uint8_t *)dst + end - mem));
  }
  return QN_OK;
}
