/* unpack.h - packed bytes back into planes, by arithmetic from the layout's digits: the test of qn__layout_pack. */
#ifndef UNPACK_H
#define UNPACK_H
#include "convert.h"
#include "runtime_fixture.h"

/* Digit i of a mixed-radix number has `size[i]` values; the last goes fastest. Add what the number says to n and k. */
static inline void add_place(const qn_digit *d, const int64_t *size, uint32_t n_digits, int64_t number, int64_t at[2]) {
  for (uint32_t i = n_digits; i-- > 0; number /= size[i]) at[d[i].axis] += number % size[i] * d[i].stride;
}

/* Row of the weight that is row `n` of a layout. */
static inline int64_t weight_row(const qn_layout *l, int64_t rows, int64_t n) {
  return l->pairs ? n % 2 * (rows / 2) + n / 2 : n;
}

static inline uint32_t read_bits(const uint8_t *src, int64_t at, uint32_t bits) {
  uint32_t v = 0;
  for (uint32_t i = 0; i < bits; i++, at++) v |= (uint32_t)(src[at / 8] >> at % 8 & 1) << i;
  return v;
}

static inline void put_element(const qn_format *f, const qn_field *d, const qn_planes *p, const int64_t at[2],
                               uint32_t bits) {
  const qn_plane *plane = qn__planes_find(f, p, d->plane);
  const qn_format_plane codes = {.rows = 1, .cols = 1}, *s = d->plane ? &f->plane[d->plane - 1] : &codes;
  int64_t i = (s->rows ? at[0] / s->rows : 0) * plane->cols + (s->cols ? at[1] / s->cols : 0);
  size_t size = (size_t)qn_type_bits(plane->type) / 8;
  char *to = (char *)(uintptr_t)plane->data + (size_t)i * size;
  uint32_t low = 0;
  if (!d->plane) {
    memcpy(&low, to, size);
    bits = low | bits << d->lo;
  } else if (plane->type != (qn_type)d->type) {
    qn__store_f64(plane->type, to, 0, qn__load_f64((qn_type)d->type, &bits, 0));
    return;
  }
  memcpy(to, &bits, size);
}

/* Into planes of zeros. What is padding must hold what padding does. */
static inline void unpack(const qn_layout *l, const qn_format *f, const uint8_t *src, const qn_planes *p) {
  const int64_t extent[2] = {shares(p->n, l->tile_n) * l->tile_n, shares(p->k, l->tile_k) * l->tile_k};
  for (uint32_t i = 0; i < l->n_sections; i++) {
    const qn_section *s = &l->section[i];
    int64_t records = 1, size[QN_LAYOUT_DIGITS], offset, bit = 0;
    ck_ok(qn__layout_offset(l, (int)i, p->n, p->k, &offset));
    for (uint32_t j = 0; j < s->n_outer; j++) {
      const qn_digit *d = &s->outer[j];
      records *= size[j] = d->size ? d->size : (extent[d->axis] + d->stride - 1) / d->stride;
    }
    for (int64_t r = 0; r < records; r++) {
      int64_t record[2] = {0};
      add_place(s->outer, size, s->n_outer, r, record);
      for (const qn_field *d = s->field; d < s->field + s->n_fields; d++, bit = (bit + 7) / 8 * 8) {
        int64_t count = 1, within[QN_LAYOUT_DIGITS];
        for (uint32_t j = 0; j < d->n_digits; j++) count *= within[j] = d->digit[j].size;
        for (int64_t e = 0; e < count; e++, bit += d->bits) {
          int64_t at[2] = {record[0], record[1]};
          add_place(d->digit, within, d->n_digits, e, at);
          bool there = at[0] < p->n && at[1] < p->k;
          at[0] = weight_row(l, p->n, at[0]);
          uint32_t bits = read_bits(src + offset, bit, d->bits), mask = (uint32_t)((UINT64_C(1) << d->bits) - 1);
          if (there) put_element(f, d, p, at, bits);
          else if (bits != (d->plane ? 0 : l->pad_code >> d->lo & mask))
            ck_abort_msg("layout %s: padding at bit %lld of section %u is %u", l->name, (long long)bit, i, bits);
        }
      }
    }
  }
}
#endif
