/* safetensors.c - the container: u64 header length, that many bytes of JSON, data.
 *
 *     {"name": {"dtype": "F16", "shape": [n, k], "data_offsets": [begin, end]}, …, "__metadata__": {…}}
 *
 * The rules are those of the reference implementation (huggingface/safetensors, tensor.rs, validate): the header is at
 * most 100 MB, blanks may stand round it; sorted by offset the tensors follow each other from 0 to the end of the file
 * without hole or overlap; each has exactly the bytes of its shape; no name twice. */
#include "model.h"
#include "pull.h"
#include <stdlib.h>
#include <string.h>

enum { HEADER_MAX = 100000000, NAME_MAX_BYTES = 4096, KEYS_MAX = 1 << 20 };

typedef struct entry {
  uint64_t begin, end;
} entry;

static int by_begin(const void *a, const void *b) {
  const entry *x = a, *y = b;
  if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
  return (x->end > y->end) - (x->end < y->end); /* empty tensors before the one that starts there */
}

static qn_status malformed(const qn__pull *j, const qn__map *f) {
  return qn__fail(QN_E_FORMAT, "%s: header byte %td: %s expected", f->path, j->p - j->start, j->bad);
}

/* [a, b, …] of at most cap numbers; *count is how many. */
static bool numbers(qn__pull *j, int64_t *out, int cap, int *count) {
  *count = 0;
  if (!qn__pull_need(j, '[')) return false;
  if (qn__pull_take(j, ']')) return true;
  do {
    uint64_t v;
    if (!qn__pull_int(j, &v)) return false;
    if (*count == cap || v > INT64_MAX) {
      j->bad = *count == cap ? "a shorter list" : "a number below 2^63";
      return false;
    }
    out[(*count)++] = (int64_t)v;
  } while (qn__pull_take(j, ','));
  return qn__pull_need(j, ']');
}

typedef struct fields {
  char dtype[16];
  size_t dtype_length;
  int64_t dim[QN_MAX_DIMS], offset[2];
  int n_dims, n_offsets;
  bool has_dtype, has_shape;
} fields;

static bool read_fields(qn__pull *j, fields *f) {
  if (!qn__pull_need(j, '{')) return false;
  if (!qn__pull_take(j, '}')) {
    do {
      char key[32];
      if (!qn__pull_string(j, key, sizeof key, NULL) || !qn__pull_need(j, ':')) return false;
      bool ok;
      if (!strcmp(key, "dtype")) {
        f->has_dtype = ok = qn__pull_string(j, f->dtype, sizeof f->dtype, &f->dtype_length);
      } else if (!strcmp(key, "shape")) f->has_shape = ok = numbers(j, f->dim, QN_MAX_DIMS, &f->n_dims);
      else if (!strcmp(key, "data_offsets")) ok = numbers(j, f->offset, 2, &f->n_offsets);
      else ok = qn__pull_skip(j);
      if (!ok) return false;
    } while (qn__pull_take(j, ','));
    if (!qn__pull_need(j, '}')) return false;
  }
  if (!f->has_dtype || !f->has_shape || f->n_offsets != 2) j->bad = "dtype, shape and two data_offsets";
  return !j->bad;
}

static qn_status one_tensor(qn_model *m, const qn__map *file, qn__pull *j, const char *name, size_t length,
                            const uint8_t *data, uint64_t data_bytes) {
  fields f = {0};
  uint64_t want;
  if (!read_fields(j, &f)) return malformed(j, file);
  const qn__dtype *t = qn__safetensors_dtype(f.dtype, f.dtype_length);
  if (!t) return qn__fail(QN_E_FORMAT, "%s: %s: unknown dtype \"%s\"", file->path, name, f.dtype);
  if (!qn__dtype_bytes(t, f.dim, f.n_dims, &want))
    return qn__fail(QN_E_FORMAT, "%s: %s: its shape overflows or ends inside a byte", file->path, name);
  if (f.offset[0] > f.offset[1] || (uint64_t)f.offset[1] > data_bytes)
    return qn__fail(QN_E_FORMAT, "%s: %s: bytes [%jd, %jd) of %ju (a truncated file?)", file->path, name,
                    (intmax_t)f.offset[0], (intmax_t)f.offset[1], (uintmax_t)data_bytes);
  if ((uint64_t)(f.offset[1] - f.offset[0]) != want)
    return qn__fail(QN_E_FORMAT, "%s: %s: %jd bytes, its shape needs %ju", file->path, name,
                    (intmax_t)(f.offset[1] - f.offset[0]), (uintmax_t)want);
  return qn__model_store(m, name, length, t, f.dim, f.n_dims, data + f.offset[0], want);
}

/* {"key": "text", …}, or null, as MLX writes it. A text that is too long to be of use to us is passed over. */
static qn_status metadata(qn_model *m, const qn__map *file, qn__pull *j) {
  char key[NAME_MAX_BYTES], text[NAME_MAX_BYTES];
  size_t length;
  if (j->end - j->p >= 4 && !memcmp(j->p, "null", 4)) return j->p += 4, QN_OK;
  if (!qn__pull_need(j, '{')) return malformed(j, file);
  if (qn__pull_take(j, '}')) return QN_OK;
  do {
    qn__pull before = *j;
    bool kept = qn__pull_string(j, key, sizeof key, NULL) && qn__pull_need(j, ':') &&
                qn__pull_string(j, text, sizeof text, &length);
    if (m->n_meta == KEYS_MAX) return qn__fail(QN_E_LIMIT, "%s: more than %d keys of metadata", file->path, KEYS_MAX);
    if (kept) QN_TRY(qn__model_note(m, key, text, length));
    if (kept) continue;
    *j = before;
    if (!qn__pull_skip(j) || !qn__pull_need(j, ':') || !qn__pull_skip(j)) return malformed(j, file);
  } while (qn__pull_take(j, ','));
  return qn__pull_need(j, '}') ? QN_OK : malformed(j, file);
}

/* No key of the metadata from number `first` on is there twice; other files of the model may repeat it. */
static qn_status check_keys(const qn_model *m, size_t first, const qn__map *file) {
  qn__names unique;
  const char *twice;
  if (m->n_meta == first) return QN_OK;
  QN_TRY(qn__names_init(&unique, m->meta + first, m->n_meta - first, sizeof *m->meta, &twice));
  qn__names_fini(&unique);
  return twice ? qn__fail(QN_E_FORMAT, "%s: key %s occurs twice", file->path, twice) : QN_OK;
}

/* Do the tensors from number `first` on tile [0, bytes) of the data? */
static qn_status check_tiling(const qn_model *m, size_t first, const qn__map *file, const uint8_t *data,
                              uint64_t bytes) {
  size_t n = m->n_stored - first;
  entry *e = malloc((n + 1) * sizeof *e);
  if (!e) return qn__fail(QN_E_NOMEM, "%s: %zu tensors", file->path, n);
  for (size_t i = 0; i < n; i++) {
    const qn_raw *r = &m->stored[first + i].pub;
    e[i].begin = (uint64_t)((const uint8_t *)r->data - data);
    e[i].end = e[i].begin + r->bytes;
  }
  qsort(e, n, sizeof *e, by_begin);
  uint64_t at = 0;
  qn_status s = QN_OK;
  for (size_t i = 0; !s && i < n; at = e[i++].end)
    if (e[i].begin != at)
      s = qn__fail(QN_E_FORMAT, "%s: tensors %s at data byte %ju", file->path,
                   e[i].begin < at ? "overlap" : "leave a hole", (uintmax_t)(e[i].begin < at ? e[i].begin : at));
  if (!s && at != bytes)
    s = qn__fail(QN_E_FORMAT, "%s: %ju bytes after the last tensor", file->path, (uintmax_t)(bytes - at));
  free(e);
  return s;
}

qn_status qn__safetensors_read(qn_model *m, const qn__map *file) {
  if (file->bytes < 8) return qn__fail(QN_E_FORMAT, "%s: %zu bytes are no safetensors file", file->path, file->bytes);
  uint64_t header = qn__le64(file->data);
  if (header > HEADER_MAX || header > file->bytes - 8)
    return qn__fail(QN_E_FORMAT, "%s: header of %ju bytes; the file has %zu, the limit is %d", file->path,
                    (uintmax_t)header, file->bytes, HEADER_MAX);
  const char *text = (const char *)file->data + 8;
  const uint8_t *data = file->data + 8 + header;
  uint64_t data_bytes = file->bytes - 8 - header;
  size_t first = m->n_stored, first_key = m->n_meta;
  qn__pull j = {text, text, text + header, NULL};
  char name[NAME_MAX_BYTES];
  size_t length;
  if (!qn__pull_need(&j, '{')) return malformed(&j, file);
  if (!qn__pull_take(&j, '}')) {
    do {
      if (!qn__pull_string(&j, name, sizeof name, &length) || !qn__pull_need(&j, ':')) return malformed(&j, file);
      if (strcmp(name, "__metadata__")) QN_TRY(one_tensor(m, file, &j, name, length, data, data_bytes));
      else QN_TRY(metadata(m, file, &j));
    } while (qn__pull_take(&j, ','));
    if (!qn__pull_need(&j, '}')) return malformed(&j, file);
  }
  if (!qn__pull_end(&j))
    return qn__fail(QN_E_FORMAT, "%s: header byte %td: text after the last '}'", file->path, j.p - text);
  QN_TRY(check_keys(m, first_key, file));
  return check_tiling(m, first, file, data, data_bytes);
}
