/* write.c - files out, whole or not at all: a NumPy array, and tensors as safetensors or GGUF. */
#include "file.h"
#include "model.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- NumPy ------------------------------------------------------------------------------------------------------- */

qn_status qn__npy_write(const char *path, const char *descr, size_t item, const void *x, const int64_t *dim,
                        int n_dims) {
  enum { HEADER = 128 }; /* a multiple of 64 */
  char header[HEADER + 1], shape[64] = "";
  qn_output o;
  size_t count = 1;
  bool fits = path && x;
  for (int i = 0; i < n_dims && fits; i++) {
    fits = dim[i] >= 0 && !__builtin_mul_overflow(count, (size_t)dim[i], &count);
    snprintf(shape + strlen(shape), sizeof shape - strlen(shape), "%jd, ", (intmax_t)dim[i]);
  }
  if (!fits) return qn__fail(QN_E_ARG, "npy: a path, data and a shape are needed");
  QN_TRY(qn__output_open(&o, path));
  int used =
      snprintf(header, sizeof header, "\x93NUMPY\x01%c\x76%c{'descr': '%s', 'fortran_order': False, 'shape': (%s), }",
               0, 0, descr, shape);
  memset(header + used, ' ', HEADER - 1 - (size_t)used);
  header[HEADER - 1] = '\n';
  fwrite(header, HEADER, 1, o.f);
  if (count) fwrite(x, item, count, o.f);
  return qn__output_close(&o);
}

qn_status qn_npy_write(const char *path, const float *x, int64_t n, int64_t k) {
  return qn__npy_write(path, "<f4", sizeof *x, x, (const int64_t[]){n, k}, 2);
}

/* ---- Tensors ----------------------------------------------------------------------------------------------------- */

typedef struct entry {
  const qn_save *t;
  const qn__dtype *dtype;
  uint64_t bytes, at, written; /* at: where its bytes begin */
} entry;

struct qn_writer {
  qn_output o;
  size_t n;
  entry entry[]; /* by name */
};

static int by_name(const void *a, const void *b) {
  return strcmp(((const entry *)a)->t->name, ((const entry *)b)->t->name);
}

static int as_given(const void *a, const void *b) {
  const entry *x = a, *y = b;
  return (x->t > y->t) - (x->t < y->t);
}

static int by_width_then_name(const void *a, const void *b) {
  const entry *x = a, *y = b;
  if (x->dtype->bytes != y->dtype->bytes) return y->dtype->bytes - x->dtype->bytes;
  return by_name(a, b);
}

/* A container: how entries lie, and the header that they make, in memory that the caller frees. */
typedef struct container {
  bool gguf;
  size_t align;
  int (*order)(const void *, const void *);
  qn_status (*header)(const entry *e, size_t n, const void *meta, size_t n_meta, char **out, size_t *size);
} container;

static uint64_t padded(uint64_t size, size_t align) { return (size + align - 1) / align * align; }

/* Entries in the order of the file, each at a multiple of `align`. */
static qn_status arrange(const qn_save *t, size_t n, const container *c, entry *e) {
  for (size_t i = 0; i < n; i++) {
    e[i] = (entry){.t = &t[i], .dtype = t[i].dtype ? qn__dtype_named(t[i].dtype, c->gguf) : NULL};
    if (!t[i].name || !e[i].dtype || t[i].n_dims < 0 || t[i].n_dims > QN_MAX_DIMS ||
        !qn__dtype_bytes(e[i].dtype, t[i].dim, t[i].n_dims, &e[i].bytes))
      return qn__fail(QN_E_ARG, "tensor %s: its dtype or shape is missing", t[i].name ? t[i].name : "without name");
  }
  qsort(e, n, sizeof *e, by_name);
  for (size_t i = 1; i < n; i++)
    if (!strcmp(e[i].t->name, e[i - 1].t->name)) return qn__fail(QN_E_ARG, "tensor %s is given twice", e[i].t->name);
  qsort(e, n, sizeof *e, c->order);
  for (size_t i = 1; i < n; i++) e[i].at = padded(e[i - 1].at + e[i - 1].bytes, c->align);
  return QN_OK;
}

static qn_status begin(qn_writer *w, const char *path, const container *c, const void *meta, size_t n_meta) {
  char *header = NULL;
  size_t size = 0;
  qn_status s = c->header(w->entry, w->n, meta, n_meta, &header, &size);
  if (!s) s = qn__output_open(&w->o, path);
  if (!s) fwrite(header, 1, size, w->o.f);
  for (size_t i = 0; i < w->n; i++) w->entry[i].at += size;
  uint64_t end = w->n ? w->entry[w->n - 1].at + w->entry[w->n - 1].bytes : size;
  if (!s && c->align > 1 && padded(end, c->align) > end) { /* the last is padded, too */
    fseeko(w->o.f, (off_t)padded(end, c->align) - 1, SEEK_SET);
    fputc(0, w->o.f);
  }
  free(header);
  qsort(w->entry, w->n, sizeof *w->entry, by_name);
  return s;
}

static qn_status open_writer(const char *path, const qn_save *tensor, size_t n, const container *c, const void *meta,
                             size_t n_meta, qn_writer **out) {
  if (!out) return qn__fail(QN_E_ARG, "qn_writer_open: out is NULL");
  *out = NULL;
  if (!path || (n && !tensor) || (n_meta && !meta)) return qn__fail(QN_E_ARG, "a path and tensors are needed");
  qn_writer *w = calloc(1, sizeof *w + n * sizeof *w->entry);
  if (!w) return qn__fail(QN_E_NOMEM, "%zu tensors", n);
  w->n = n;
  qn_status s = arrange(tensor, n, c, w->entry);
  if (!s) s = begin(w, path, c, meta, n_meta);
  if (s) free(w);
  else *out = w;
  return s;
}

qn_status qn_writer_put(qn_writer *w, const char *name, const void *data, size_t bytes) {
  if (!w || !name || (bytes && !data)) return qn__fail(QN_E_ARG, "qn_writer_put: NULL argument");
  entry *e = bsearch(&(entry){.t = &(qn_save){.name = name}}, w->entry, w->n, sizeof *e, by_name);
  if (!e) return qn__fail(QN_E_ARG, "tensor %s: the file has none of that name", name);
  if (bytes > e->bytes - e->written)
    return qn__fail(QN_E_ARG, "tensor %s: %zu bytes after %ju of %ju", name, bytes, (uintmax_t)e->written,
                    (uintmax_t)e->bytes);
  if (fseeko(w->o.f, (off_t)(e->at + e->written), SEEK_SET))
    return qn__fail(qn__errno_status(errno), "%s: %s", w->o.path, strerror(errno));
  if (fwrite(data, 1, bytes, w->o.f) != bytes)
    return qn__fail(qn__errno_status(errno), "%s: %s", w->o.path, strerror(errno));
  e->written += bytes;
  return QN_OK;
}

qn_status qn_writer_close(qn_writer *w) {
  qn_status s = QN_OK;
  if (!w) return qn__fail(QN_E_ARG, "qn_writer_close: NULL argument");
  for (size_t i = 0; !s && i < w->n; i++)
    if (w->entry[i].written < w->entry[i].bytes)
      s = qn__fail(QN_E_ARG, "tensor %s: %ju of %ju bytes were written", w->entry[i].t->name,
                   (uintmax_t)w->entry[i].written, (uintmax_t)w->entry[i].bytes);
  if (s) qn__output_abandon(&w->o);
  else s = qn__output_close(&w->o);
  free(w);
  return s;
}

void qn_writer_abandon(qn_writer *w) {
  if (!w) return;
  qn__output_abandon(&w->o);
  free(w);
}

/* Close a header in memory. The C library gives NULL, and no error, when there is none left to trim it. */
static qn_status end_header(FILE *f, size_t n, char *const *out) {
  bool failed = ferror(f);
  if (!fclose(f) && !failed && *out) return QN_OK;
  return qn__fail(QN_E_NOMEM, "a header for %zu tensors", n);
}

/* ---- safetensors ------------------------------------------------------------------------------------------------- */

static void put_string(FILE *f, const char *s) {
  fputc('"', f);
  for (; *s; s++)
    if (*s == '"' || *s == '\\') fprintf(f, "\\%c", *s);
    else if ((unsigned char)*s < 0x20) fprintf(f, "\\u%04x", *s);
    else fputc(*s, f);
  fputc('"', f);
}

static void put_entry(FILE *f, const entry *e) {
  put_string(f, e->t->name);
  fprintf(f, ":{\"dtype\":\"%s\",\"shape\":[", e->dtype->name);
  for (int i = 0; i < e->t->n_dims; i++) fprintf(f, "%s%jd", i ? "," : "", (intmax_t)e->t->dim[i]);
  fprintf(f, "],\"data_offsets\":[%ju,%ju]}", (uintmax_t)e->at, (uintmax_t)(e->at + e->bytes));
}

/* Is there something that JSON cannot say, or that readers take for something else? */
static qn_status check_texts(const entry *e, size_t n, const char *const *text, size_t n_texts) {
  for (size_t i = 0; i < n_texts; i++)
    if (!text[i]) return qn__fail(QN_E_ARG, "key or value %zu of the metadata is NULL", i);
  for (size_t i = 0; i < n; i++)
    if (!strcmp(e[i].t->name, "__metadata__"))
      return qn__fail(QN_E_ARG, "tensor __metadata__: safetensors has the metadata under that name");
  return QN_OK;
}

/* The length, then JSON, padded with blanks to a multiple of 8. */
static qn_status make_json(const entry *e, size_t n, const void *meta, size_t n_meta, char **out, size_t *size) {
  const char *const *text = meta;
  uint64_t length = 0;
  QN_TRY(check_texts(e, n, text, 2 * n_meta));
  FILE *f = open_memstream(out, size);
  if (!f) return qn__fail(QN_E_NOMEM, "a header for %zu tensors", n);
  fwrite(&length, sizeof length, 1, f);
  fputc('{', f);
  for (size_t i = 0; i < n_meta; i++) {
    fputs(i ? "," : "\"__metadata__\":{", f);
    put_string(f, text[2 * i]);
    fputc(':', f);
    put_string(f, text[2 * i + 1]);
  }
  if (n_meta) fputs(n ? "}," : "}", f);
  for (size_t i = 0; i < n; i++) {
    if (i) fputc(',', f);
    put_entry(f, &e[i]);
  }
  fputc('}', f);
  for (long at = ftell(f); at % 8; at++) fputc(' ', f);
  QN_TRY(end_header(f, n, out));
  length = *size - sizeof length;
  memcpy(*out, &length, sizeof length);
  return QN_OK;
}

qn_status qn_writer_open(const char *path, const qn_save *tensor, size_t n, const char *const *meta, size_t n_meta,
                         qn_writer **out) {
  static const container safetensors = {false, 1, by_width_then_name, make_json};
  return open_writer(path, tensor, n, &safetensors, meta, n_meta, out);
}

qn_status qn_safetensors_write(const char *path, const qn_save *tensor, size_t n, const char *const *meta,
                               size_t n_meta) {
  qn_writer *w;
  QN_TRY(qn_writer_open(path, tensor, n, meta, n_meta, &w));
  qn_status s = QN_OK;
  for (size_t i = 0; !s && i < n; i++) {
    uint64_t bytes = w->entry[i].bytes;
    const qn_save *t = w->entry[i].t;
    s = !bytes || t->data ? qn_writer_put(w, t->name, t->data, bytes)
                          : qn__fail(QN_E_ARG, "tensor %s: its data is missing", t->name);
  }
  if (!s) return qn_writer_close(w);
  qn_writer_abandon(w);
  return s;
}

/* ---- GGUF -------------------------------------------------------------------------------------------------------- */

enum { GGUF_ALIGN = 32 };

static void put_u32(FILE *f, uint32_t v) { fwrite(&v, sizeof v, 1, f); }
static void put_u64(FILE *f, uint64_t v) { fwrite(&v, sizeof v, 1, f); }

static void put_info(FILE *f, const entry *e) {
  put_u64(f, strlen(e->t->name));
  fputs(e->t->name, f);
  put_u32(f, (uint32_t)e->t->n_dims);
  for (int d = e->t->n_dims; d--;) put_u64(f, (uint64_t)e->t->dim[d]);
  put_u32(f, (uint32_t)e->dtype->id);
  put_u64(f, e->at);
}

/* Magic, version, counts, the keys, which come as the file has them, a record for each tensor, zeros. */
static qn_status make_gguf(const entry *e, size_t n, const void *meta, size_t n_meta, char **out, size_t *size) {
  const qn__gguf_keys *keys = meta;
  FILE *f = open_memstream(out, size);
  (void)n_meta;
  if (!f) return qn__fail(QN_E_NOMEM, "a header for %zu tensors", n);
  fputs("GGUF", f);
  put_u32(f, 3);
  put_u64(f, n);
  put_u64(f, keys->count);
  fwrite(keys->data, 1, keys->bytes, f);
  for (size_t i = 0; i < n; i++) put_info(f, &e[i]);
  for (long at = ftell(f); at % GGUF_ALIGN; at++) fputc(0, f);
  return end_header(f, n, out);
}

qn_status qn__gguf_writer_open(const char *path, const qn_save *tensor, size_t n, const qn__gguf_keys *keys,
                               qn_writer **out) {
  static const container gguf = {true, GGUF_ALIGN, as_given, make_gguf};
  return open_writer(path, tensor, n, &gguf, keys, keys->count, out);
}
