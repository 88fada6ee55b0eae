/* layout.h - sizes of a layout's parts, between the file that checks it and the one that packs by it. */
#ifndef QN_LAYOUT_H
#define QN_LAYOUT_H
#include "desc.h"

/* Values of a digit in a weight of [n, k]. */
int64_t qn__digit_size(const qn_layout *l, const qn_digit *d, int64_t n, int64_t k);
int64_t qn__field_elements(const qn_field *f);
int64_t qn__field_bytes(const qn_field *f);
int64_t qn__record_bytes(const qn_section *s);
#endif
