/* gguf.c - the container of llama.cpp: header, key-values, tensor records, padding, data. Little-endian, versions 2
 * and 3.
 *
 *     "GGUF" u32 version  u64 n_tensors  u64 n_kv
 *     n_kv     x { string key, u32 type, value }
 *     n_tensors x { string name, u32 n_dims, u64 ne[n_dims] (innermost first), u32 ggml type, u64 offset }
 *     padding to general.alignment, data
 *
 * Rules as in ggml's own reader (gguf.cpp): unique keys, offsets are the running sum of padded sizes in the order of
 * the records. A count is believed only as far as the rest of the file could hold that many of the smallest records. */
#include "model.h"
#include <string.h>

typedef struct cursor {
  const qn__map *file;
  size_t at;
} cursor;

static qn_status short_file(const cursor *c, const char *what) {
  return qn__fail(QN_E_FORMAT, "%s: the file ends within %s at byte %zu", c->file->path, what, c->at);
}

static size_t left(const cursor *c) { return c->file->bytes - c->at; }

static qn_status take(cursor *c, uint64_t bytes, const char *what, const uint8_t **p) {
  if (bytes > left(c)) return short_file(c, what);
  *p = c->file->data + c->at;
  c->at += bytes;
  return QN_OK;
}

static qn_status take_u32(cursor *c, const char *what, uint32_t *v) {
  const uint8_t *p = NULL;
  QN_TRY(take(c, 4, what, &p));
  *v = qn__le32(p);
  return QN_OK;
}

static qn_status take_u64(cursor *c, const char *what, uint64_t *v) {
  const uint8_t *p = NULL;
  QN_TRY(take(c, 8, what, &p));
  *v = qn__le64(p);
  return QN_OK;
}

static qn_status take_string(cursor *c, const char *what, const char **s, uint64_t *length) {
  const uint8_t *p = NULL;
  QN_TRY(take_u64(c, what, length));
  QN_TRY(take(c, *length, what, &p));
  *s = (const char *)p;
  return QN_OK;
}

/* A name: a string that is not empty and holds no zero byte. */
static qn_status take_name(cursor *c, const char *what, const char **s, uint64_t *length) {
  QN_TRY(take_string(c, what, s, length));
  if (!*length || memchr(*s, 0, *length))
    return qn__fail(QN_E_FORMAT, "%s: %s before byte %zu is empty or holds a zero byte", c->file->path, what, c->at);
  return QN_OK;
}

/* ---- Key-values -------------------------------------------------------------------------------------------------- */

static const uint8_t width[QN_META_COUNT] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8}; /* 0: string, array */

static void widen(qn_meta *v, const uint8_t *p) {
  int64_t i = 0;
  double d;
  switch (v->type) {
  case QN_META_U8:
    i = p[0];
    break;
  case QN_META_BOOL:
    i = p[0] != 0;
    break;
  case QN_META_I8:
    i = (int8_t)p[0];
    break;
  case QN_META_U16:
    i = qn__le16(p);
    break;
  case QN_META_I16:
    i = (int16_t)qn__le16(p);
    break;
  case QN_META_U32:
    i = qn__le32(p);
    break;
  case QN_META_I32:
    i = (int32_t)qn__le32(p);
    break;
  case QN_META_F32:
    d = (double)qn__f32(p);
    memcpy(&i, &d, 8);
    break;
  default:
    i = (int64_t)qn__le64(p);
    break; /* U64, I64, F64: as they are */
  }
  v->bits = (uint64_t)i;
  if (v->type == QN_META_F32 || v->type == QN_META_F64) memcpy(&v->number, &i, 8);
  else v->number = v->type == QN_META_U64 ? (double)v->bits : (double)i;
}

static qn_status take_array(cursor *c, qn_meta *v) {
  uint32_t item = 0;
  QN_TRY(take_u32(c, "an array", &item));
  QN_TRY(take_u64(c, "an array", &v->count));
  if (item >= QN_META_COUNT || item == QN_META_ARRAY)
    return qn__fail(QN_E_FORMAT, "%s: %s: array of type %u", c->file->path, v->key, item);
  v->item = (qn_meta_type)item;
  v->data = c->file->data + c->at;
  size_t least = item == QN_META_STRING ? 8 : width[item];
  if (v->count > left(c) / least) return short_file(c, v->key);
  if (item != QN_META_STRING) {
    c->at += v->count * least;
    return QN_OK;
  }
  const char *s;
  uint64_t length = 0;
  for (uint64_t i = 0; i < v->count; i++) QN_TRY(take_string(c, v->key, &s, &length));
  return QN_OK;
}

static qn_status take_meta(qn_model *m, cursor *c, qn_meta *v) {
  const char *s = NULL;
  const uint8_t *p = NULL;
  uint64_t length = 0;
  uint32_t type = 0;
  QN_TRY(take_name(c, "a key", &s, &length));
  if (!(v->key = qn__arena_text(&m->arena, s, length))) return qn__fail(QN_E_NOMEM, "%s: a key", c->file->path);
  QN_TRY(take_u32(c, v->key, &type));
  if (type >= QN_META_COUNT) return qn__fail(QN_E_FORMAT, "%s: %s: unknown value type %u", c->file->path, v->key, type);
  v->type = (qn_meta_type)type;
  if (v->type == QN_META_ARRAY) return take_array(c, v);
  if (v->type == QN_META_STRING) {
    QN_TRY(take_string(c, v->key, &s, &v->count));
    v->data = s;
    return QN_OK;
  }
  QN_TRY(take(c, width[type], v->key, &p));
  widen(v, p);
  return QN_OK;
}

static qn_status take_metas(qn_model *m, cursor *c, uint64_t count, qn_meta **out) {
  enum { LEAST = 8 + 1 + 4 + 1 };
  if (count > left(c) / LEAST)
    return qn__fail(QN_E_FORMAT, "%s: %ju keys in %zu bytes", c->file->path, (uintmax_t)count, left(c));
  qn_meta *v = qn__arena_take(&m->arena, (count + !count) * sizeof *v);
  if (!v) return qn__fail(QN_E_NOMEM, "%s: %ju keys", c->file->path, (uintmax_t)count);
  for (uint64_t i = 0; i < count; i++) QN_TRY(take_meta(m, c, &v[i]));
  *out = v;
  return QN_OK;
}

static qn_status find_alignment(const qn__map *file, const qn_meta *meta, uint64_t count, uint64_t *out) {
  *out = 32;
  for (uint64_t i = 0; i < count; i++) {
    if (strcmp(meta[i].key, "general.alignment")) continue;
    uint64_t a = meta[i].bits;
    if (meta[i].type != QN_META_U32 || !a || (a & (a - 1)))
      return qn__fail(QN_E_FORMAT, "%s: general.alignment must be a u32 power of two", file->path);
    *out = a;
  }
  return QN_OK;
}

/* ---- Tensors ----------------------------------------------------------------------------------------------------- */

typedef struct record {
  const char *name;
  uint64_t length, offset, bytes;
  const qn__dtype *dtype; /* NULL: a type that is not known */
  uint32_t type;
  int64_t dim[4];
  int n_dims;
} record;

static qn_status take_record(cursor *c, record *r) {
  uint32_t n_dims = 0, type = 0;
  QN_TRY(take_name(c, "a tensor's name", &r->name, &r->length));
  QN_TRY(take_u32(c, "a tensor's record", &n_dims));
  int shown = r->length < 64 ? (int)r->length : 64;
  if (n_dims > 4)
    return qn__fail(QN_E_FORMAT, "%s: %.*s: %u dimensions, at most 4", c->file->path, shown, r->name, n_dims);
  r->n_dims = (int)n_dims;
  for (int i = r->n_dims; i--;) { /* innermost first in the file */
    uint64_t ne = 0;
    QN_TRY(take_u64(c, "a tensor's record", &ne));
    if (ne > INT64_MAX) return qn__fail(QN_E_FORMAT, "%s: %.*s: a negative dimension", c->file->path, shown, r->name);
    r->dim[i] = (int64_t)ne;
  }
  QN_TRY(take_u32(c, "a tensor's record", &type));
  QN_TRY(take_u64(c, "a tensor's record", &r->offset));
  r->dtype = qn__ggml_dtype(type);
  r->type = type;
  r->bytes = 0;
  if (!r->dtype) return QN_OK; /* size_by_offset() */
  if (!qn__dtype_bytes(r->dtype, r->dim, r->n_dims, &r->bytes))
    return qn__fail(QN_E_FORMAT, "%s: %.*s: its shape overflows or a row is not whole blocks of %d", c->file->path,
                    shown, r->name, r->dtype->elems);
  if (!strcmp(r->dtype->name, "I2_S")) r->bytes += 32; /* one scale after the codes, padded to 32 bytes */
  return QN_OK;
}

/* A type that is not known takes what lies before the next tensor, to which c points, or before the end. */
static qn_status size_by_offset(qn_model *m, cursor c, bool last, uint64_t data_bytes, record *r) {
  record next = {.offset = data_bytes};
  qn__dtype *t = qn__arena_take(&m->arena, sizeof *t);
  if (t) t->name = qn__arena_print(&m->arena, "type %u", r->type);
  if (!t || !t->name) return qn__fail(QN_E_NOMEM, "%s: a type", c.file->path);
  t->id = (int)r->type;
  t->elems = 1;
  r->dtype = t;
  if (!last) QN_TRY(take_record(&c, &next));
  int shown = r->length < 64 ? (int)r->length : 64;
  if (next.offset < r->offset)
    return qn__fail(QN_E_FORMAT, "%s: %.*s: at offset %ju, the next tensor at %ju", c.file->path, shown, r->name,
                    (uintmax_t)r->offset, (uintmax_t)next.offset);
  r->bytes = next.offset - r->offset;
  return QN_OK;
}

static qn_status take_tensors(qn_model *m, cursor *c, uint64_t count, uint64_t align) {
  enum { LEAST = 8 + 1 + 4 + 4 + 8 };
  if (count > left(c) / LEAST)
    return qn__fail(QN_E_FORMAT, "%s: %ju tensors in %zu bytes", c->file->path, (uintmax_t)count, left(c));
  cursor scan = *c; /* a first pass finds where the data begins */
  record r = {0};
  for (uint64_t i = 0; i < count; i++) QN_TRY(take_record(&scan, &r));
  uint64_t start = (scan.at + align - 1) & ~(align - 1), sum = 0;
  uint64_t data_bytes = start < c->file->bytes ? c->file->bytes - start : 0;
  for (uint64_t i = 0; i < count; i++) {
    QN_TRY(take_record(c, &r));
    if (!r.dtype) QN_TRY(size_by_offset(m, *c, i + 1 == count, data_bytes, &r));
    int shown = r.length < 64 ? (int)r.length : 64;
    if (r.offset != sum)
      return qn__fail(QN_E_FORMAT, "%s: %.*s: at offset %ju, the tensors before it end at %ju", c->file->path, shown,
                      r.name, (uintmax_t)r.offset, (uintmax_t)sum);
    if (r.offset > data_bytes || r.bytes > data_bytes - r.offset)
      return qn__fail(QN_E_FORMAT, "%s: %.*s: %ju bytes at %ju, the data has %ju", c->file->path, shown, r.name,
                      (uintmax_t)r.bytes, (uintmax_t)r.offset, (uintmax_t)data_bytes);
    const uint8_t *data = r.bytes ? c->file->data + start + r.offset : c->file->data;
    QN_TRY(qn__model_store(m, r.name, r.length, r.dtype, r.dim, r.n_dims, data, r.bytes));
    sum = r.offset + ((r.bytes + align - 1) & ~(align - 1));
  }
  return QN_OK;
}

/* ---- The file ---------------------------------------------------------------------------------------------------- */

qn_status qn__gguf_read(qn_model *m, const qn__map *file) {
  cursor c = {file, 0};
  const uint8_t *magic = NULL;
  uint32_t version = 0;
  uint64_t n_tensors = 0, n_kv = 0, align;
  qn_meta *meta = NULL;
  QN_TRY(take(&c, 4, "the magic", &magic));
  if (memcmp(magic, "GGUF", 4)) return qn__fail(QN_E_FORMAT, "%s: does not begin with GGUF", file->path);
  QN_TRY(take_u32(&c, "the version", &version));
  if (version != 2 && version != 3)
    return qn__fail(QN_E_FORMAT, "%s: GGUF version %u%s; 2 and 3 are read", file->path, version,
                    version & 0xffff ? "" : " (a big-endian file)");
  QN_TRY(take_u64(&c, "the tensor count", &n_tensors));
  QN_TRY(take_u64(&c, "the key count", &n_kv));
  const size_t keys = c.at;
  QN_TRY(take_metas(m, &c, n_kv, &meta));
  qn__names unique;
  const char *twice;
  qn_status s = qn__names_init(&unique, meta, n_kv, sizeof *meta, &twice);
  if (!s && twice) s = qn__fail(QN_E_FORMAT, "%s: key %s occurs twice", file->path, twice);
  if (s || m->meta) qn__names_fini(&unique);
  if (s) return s;
  if (!m->meta) { /* the first part of a split model holds its metadata */
    m->keys = (qn__gguf_keys){file->data + keys, c.at - keys, n_kv};
    m->meta = meta;
    m->n_meta = n_kv;
    m->meta_names = unique;
  }
  QN_TRY(find_alignment(file, meta, n_kv, &align));
  return take_tensors(m, &c, n_tensors, align);
}
