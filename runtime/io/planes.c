/* planes.c - allocating planes, and the ways that codes are packed into words. */
#include "convert.h"
#include "model.h"
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64 }; /* of each plane, so that vector loads of a consumer are aligned */

static size_t item_bytes(qn_type t) { return (size_t)qn_type_bits(t) / 8; }

/* Can the plane be the file's own bytes? */
static bool in_place(const qn__spec *s) { return s->view && !((uintptr_t)s->view & (item_bytes(s->type) - 1)); }

static bool spec_bytes(const qn__spec *s, size_t *bytes) {
  return !__builtin_mul_overflow((size_t)s->rows, (size_t)s->cols, bytes) &&
         !__builtin_mul_overflow(*bytes, item_bytes(s->type), bytes) && *bytes < SIZE_MAX / 2 / QN_MAX_PLANES - ALIGN;
}

qn_status qn__planes_new(const qn__weight *w, const qn__spec *spec, int count, bool perm, qn_planes **out) {
  size_t total = sizeof(qn_planes) + (perm ? (size_t)w->pub.k * sizeof(int32_t) : 0) + ALIGN, bytes;
  for (int i = 0; i < count; i++) {
    if (!spec_bytes(&spec[i], &bytes))
      return qn__fail(QN_E_LIMIT, "%s: plane %s is too large", w->pub.name, spec[i].name);
    if (!in_place(&spec[i])) total += bytes + ALIGN;
  }
  qn_planes *p = calloc(1, total);
  if (!p) return qn__fail(QN_E_NOMEM, "%s: no memory for %zu bytes of planes", w->pub.name, total);
  *p = (qn_planes){.format = w->pub.format, .n = w->pub.n, .k = w->pub.k, .n_planes = count};
  char *at = (char *)(p + 1);
  if (perm) {
    p->perm = (int32_t *)(void *)at;
    at += (size_t)w->pub.k * sizeof(int32_t);
  }
  for (int i = 0; i < count; i++) {
    const qn__spec *s = &spec[i];
    p->plane[i] = (qn_plane){s->name, s->type, s->rows, s->cols, s->view};
    if (in_place(s)) continue;
    spec_bytes(s, &bytes);
    at += -(uintptr_t)at & (ALIGN - 1);
    p->plane[i].data = at;
    if (s->view) memcpy(at, s->view, bytes);
    at += bytes;
  }
  *out = p;
  return QN_OK;
}

int64_t qn__packed_words(int64_t count, int bits, qn__packing packing) {
  switch (packing) {
  case QN__PADDED:
    return qn__ceildiv(count, 32 / bits);
  case QN__PLANAR: /* groups are whole */
    return qn__ceildiv(count, 32) * bits;
  default:
    return qn__ceildiv(count * bits, 32);
  }
}

/* Code i of a planar group of 32: streams of 4, 2, 1 bits, low bits first. */
static unsigned planar(const uint8_t *words, size_t stride, int bits, int64_t i) {
  const uint8_t *group = words + (size_t)(i / 32 * bits) * stride;
  unsigned code = 0;
  for (int lo = 0, width = 8; width; width /= 2)
    if (bits - lo >= width) {
      int64_t bit = i % 32 * width;
      code |= (qn__le32(group + (size_t)(bit / 32) * stride) >> bit % 32 & ((1u << width) - 1)) << lo;
      group += (size_t)width * stride;
      lo += width;
    }
  return code;
}

/* Words of whole codes. */
static void unpack_words(const uint8_t *words, size_t stride, int bits, int64_t count, uint8_t *out, int64_t step) {
  int per = 32 / bits;
  uint32_t mask = (1u << bits) - 1;
  for (; count > 0; count -= per, words += stride) {
    uint32_t word = qn__le32(words);
    int here = count < per ? (int)count : per;
    for (int i = 0; i < here; i++, word >>= bits, out += step) *out = (uint8_t)(word & mask);
  }
}

/* One stream of bits through the words. */
static void unpack_stream(const uint8_t *words, size_t stride, int bits, int64_t count, uint8_t *out, int64_t step) {
  uint64_t pool = 0;
  int have = 0;
  uint32_t mask = (1u << bits) - 1;
  for (; count--; out += step, pool >>= bits, have -= bits) {
    if (have < bits) {
      pool |= (uint64_t)qn__le32(words) << have;
      words += stride;
      have += 32;
    }
    *out = (uint8_t)(pool & mask);
  }
}

void qn__unpack(const uint8_t *words, size_t stride, int bits, qn__packing packing, int64_t count, uint8_t *out,
                int64_t step) {
  if (packing == QN__PLANAR)
    for (int64_t i = 0; i < count; i++) out[i * step] = (uint8_t)planar(words, stride, bits, i);
  else if (packing == QN__PADDED || 32 % bits == 0) unpack_words(words, stride, bits, count, out, step);
  else unpack_stream(words, stride, bits, count, out, step);
}

void qn__pack(const uint8_t *codes, int bits, int64_t count, uint8_t *words, size_t stride) {
  uint64_t pool = 0;
  int have = 0;
  for (; count > 0 || have > 0; words += stride, pool >>= 32, have -= 32) {
    for (; have < 32 && count > 0; have += bits, count--) pool |= (uint64_t)*codes++ << have;
    qn__put_le32(words, (uint32_t)pool);
  }
}

void qn__transpose(void *dst, const void *src, int64_t rows, int64_t cols, size_t bytes) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < cols; c++)
      memcpy((char *)dst + (size_t)(c * rows + r) * bytes, (const char *)src + (size_t)(r * cols + c) * bytes, bytes);
}

qn_status qn_model_planes(const qn_model *m, const qn_tensor *t, int64_t slice, qn_planes **out) {
  if (out) *out = NULL;
  if (!m || !t || !out) return qn__fail(QN_E_ARG, "qn_model_planes: NULL argument");
  if (!t->format) return qn__fail(QN_E_SHAPE, "%s: %s", t->name, t->refusal ? t->refusal : "not a matrix");
  if (slice < 0 || slice >= t->slices)
    return qn__fail(QN_E_ARG, "%s: slice %jd of %jd", t->name, (intmax_t)slice, (intmax_t)t->slices);
  const qn__weight *w = (const qn__weight *)t; /* pub is its first member */
  return w->dialect->read(w, slice, out);
}

void qn_planes_free(qn_planes *p) { free(p); }

const qn_plane *qn_planes_find(const qn_planes *p, const char *name) {
  for (int i = 0; p && name && i < p->n_planes; i++)
    if (!strcmp(p->plane[i].name, name)) return &p->plane[i];
  return NULL;
}

float qn__load_float(const void *p, qn_type t, size_t i) {
  uint32_t item = 0; /* aligned, whatever p is */
  memcpy(&item, (const uint8_t *)p + i * item_bytes(t), item_bytes(t));
  return (float)qn__load_f64(t, &item, 0);
}
