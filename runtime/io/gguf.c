/* gguf.c - the container of llama.cpp, version 3: counts, metadata, tensor table, aligned data.
 * Source: docs/gguf.md of ggml. All metadata types are read; split files are refused by name. */
#include "model.h"
#include <string.h>

typedef struct cursor {
  const uint8_t *p;
  uint64_t left;
  bool bad;
} cursor;

static const uint8_t *take(cursor *c, uint64_t n) {
  static const uint8_t zeros[8];
  if (c->bad || n > c->left) {
    c->bad = true;
    return n <= sizeof zeros ? zeros : NULL;
  }
  c->p += n;
  c->left -= n;
  return c->p - n;
}

static uint32_t u32(cursor *c) { return qn__le32(take(c, 4)); }
static uint64_t u64(cursor *c) { return qn__le64(take(c, 8)); }

static const char *text(cursor *c, uint64_t *length) {
  *length = u64(c);
  return (const char *)take(c, *length);
}

static const int meta_bytes[QN_META_COUNT] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

static void read_number(qn_meta *out, qn_meta_type t, const uint8_t *p) {
  union {
    uint64_t u;
    int64_t i;
    double d;
  } v = {0};
  float f;
  memcpy(&v.u, p, (size_t)meta_bytes[t]);
  switch (t) {
  case QN_META_I8:
    v.i = (int8_t)v.u;
    break;
  case QN_META_I16:
    v.i = (int16_t)v.u;
    break;
  case QN_META_I32:
    v.i = (int32_t)v.u;
    break;
  case QN_META_F32:
    memcpy(&f, p, 4), v.d = f;
    break;
  default:
    break;
  }
  bool real = t == QN_META_F32 || t == QN_META_F64,
       sign = t == QN_META_I8 || t == QN_META_I16 || t == QN_META_I32 || t == QN_META_I64;
  out->number = real ? v.d : sign ? (double)v.i : (double)v.u;
  out->bits = v.u;
}

static void skip_value(cursor *c, uint32_t type, uint64_t count, int depth) {
  if (type >= QN_META_COUNT || depth > 4) c->bad = true;
  else if (meta_bytes[type]) take(c, count > UINT64_MAX / 8 ? UINT64_MAX : count * (uint64_t)meta_bytes[type]);
  else
    for (uint64_t i = 0; i < count && !c->bad; i++) {
      uint64_t n;
      if (type == QN_META_STRING) text(c, &n);
      else {
        uint32_t item = u32(c);
        skip_value(c, item, u64(c), depth + 1);
      }
    }
}

static qn_status read_meta(qn_model *m, const qn__map *f, cursor *c, uint64_t count) {
  if (count > c->left / 13)
    return qn__fail(QN_E_FORMAT, "%s: %llu metadata keys do not fit the file", f->path, (unsigned long long)count);
  m->meta = qn__arena_take(&m->arena, ((size_t)count + 1) * sizeof *m->meta);
  if (!m->meta) return qn__fail(QN_E_NOMEM, "no memory for metadata");
  for (uint64_t i = 0; i < count; i++) {
    qn_meta *out = &m->meta[i];
    uint64_t n;
    const char *key = text(c, &n);
    uint32_t type = u32(c);
    if (c->bad || type >= QN_META_COUNT)
      return qn__fail(QN_E_FORMAT, "%s: metadata key %llu is damaged", f->path, (unsigned long long)i);
    out->key = qn__arena_text(&m->arena, key, n);
    if (!out->key) return qn__fail(QN_E_NOMEM, "no memory for metadata");
    out->type = type;
    if (type == QN_META_STRING) out->data = text(c, &out->count);
    else if (type == QN_META_ARRAY) {
      out->item = u32(c);
      out->count = u64(c);
      out->data = c->p;
      skip_value(c, out->item, out->count, 0);
    } else read_number(out, type, take(c, (uint64_t)meta_bytes[type]));
    if (c->bad) return qn__fail(QN_E_FORMAT, "%s: metadata key %s runs past the end of the file", f->path, out->key);
    m->n_meta++;
  }
  return QN_OK;
}

typedef struct entry {
  const char *name;
  uint64_t length, offset, bytes;
  const qn__dtype *dtype;
  int n_dims;
  int64_t dim[QN_MAX_DIMS];
} entry;

static qn_status read_entry(const qn__map *f, cursor *c, entry *e) {
  e->name = text(c, &e->length);
  e->n_dims = (int)u32(c);
  if (c->bad || e->n_dims < 0 || e->n_dims > 4)
    return qn__fail(QN_E_FORMAT, "%s: tensor table is damaged or truncated", f->path);
  for (int i = e->n_dims; i-- > 0;) e->dim[i] = (int64_t)u64(c); /* stored innermost first */
  uint32_t type = u32(c);
  e->offset = u64(c);
  if (c->bad) return qn__fail(QN_E_FORMAT, "%s: tensor table is truncated", f->path);
  e->dtype = qn__ggml_dtype(type);
  if (!e->dtype)
    return qn__fail(QN_E_FORMAT, "%s: tensor %.*s: unknown type %u", f->path, (int)e->length, e->name, type);
  if (!qn__dtype_bytes(e->dtype, e->dim, e->n_dims, &e->bytes))
    return qn__fail(QN_E_FORMAT, "%s: tensor %.*s: shape overflows or does not fill blocks of %d", f->path,
                    (int)e->length, e->name, e->dtype->elems);
  return QN_OK;
}

static qn_status read_tensors(qn_model *m, const qn__map *f, cursor *c, uint64_t count, uint64_t alignment) {
  if (count > c->left / 24)
    return qn__fail(QN_E_FORMAT, "%s: %llu tensors do not fit the file", f->path, (unsigned long long)count);
  cursor table = *c;
  entry e;
  for (uint64_t i = 0; i < count; i++) QN_TRY(read_entry(f, c, &e));
  uint64_t head = (uint64_t)(c->p - f->data), base = (head + alignment - 1) / alignment * alignment;
  for (uint64_t i = 0; i < count; i++) {
    QN_TRY(read_entry(f, &table, &e));
    if (e.offset % alignment || base > f->bytes || e.offset > f->bytes - base || e.bytes > f->bytes - base - e.offset)
      return qn__fail(QN_E_FORMAT,
                      "%s: tensor %.*s: %llu bytes at offset %llu are outside the file or unaligned (truncated file?)",
                      f->path, (int)e.length, e.name, (unsigned long long)e.bytes, (unsigned long long)e.offset);
    QN_TRY(qn__model_store(m, e.name, e.length, e.dtype, e.dim, e.n_dims, f->data + base + e.offset, e.bytes));
  }
  return QN_OK;
}

qn_status qn__gguf_read(qn_model *m, const qn__map *f) {
  cursor c = {f->data, f->bytes, false};
  uint32_t magic = u32(&c), version = u32(&c);
  uint64_t tensors = u64(&c), keys = u64(&c);
  if (c.bad || magic != 0x46554747) return qn__fail(QN_E_FORMAT, "%s: no GGUF file", f->path);
  if (version != 3) return qn__fail(QN_E_FORMAT, "%s: GGUF version %u; 3 is read", f->path, version);
  QN_TRY(read_meta(m, f, &c, keys));
  uint64_t alignment = 32;
  for (size_t i = 0; i < m->n_meta; i++) {
    const qn_meta *x = &m->meta[i];
    if (!strcmp(x->key, "general.alignment")) alignment = x->bits;
    if (!strcmp(x->key, "split.count") && x->number > 1)
      return qn__fail(QN_E_FORMAT, "%s: part of a file split in %.0f; merge the parts first", f->path, x->number);
  }
  if (alignment < 8 || alignment > 1 << 20 || alignment & (alignment - 1))
    return qn__fail(QN_E_FORMAT, "%s: alignment of %llu is no power of two from 8 to 1048576", f->path,
                    (unsigned long long)alignment);
  m->gguf = true;
  return read_tensors(m, f, &c, tensors, alignment);
}
