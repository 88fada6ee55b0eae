/* write.c - files out, whole or not at all: a NumPy array, and tensors as safetensors. */
#include "file.h"
#include "model.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- NumPy ------------------------------------------------------------------------------------------------------- */

qn_status qn_npy_write(const char *path, const float *x, int64_t n, int64_t k) {
  enum { HEADER = 128 }; /* a multiple of 64 */
  char header[HEADER + 1];
  qn_output o;
  size_t count;
  if (!path || !x || n < 0 || k < 0 || __builtin_mul_overflow((size_t)n, (size_t)k, &count))
    return qn__fail(QN_E_ARG, "npy: a path, data and a shape are needed");
  QN_TRY(qn__output_open(&o, path));
  int used = snprintf(header, sizeof header,
                      "\x93NUMPY\x01%c\x76%c{'descr': '<f4', 'fortran_order': False, 'shape': (%jd, %jd), }", 0, 0,
                      (intmax_t)n, (intmax_t)k);
  memset(header + used, ' ', HEADER - 1 - (size_t)used);
  header[HEADER - 1] = '\n';
  fwrite(header, HEADER, 1, o.f);
  if (count) fwrite(x, sizeof *x, count, o.f);
  return qn__output_close(&o);
}

/* ---- safetensors ------------------------------------------------------------------------------------------------- */

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

static int by_width_then_name(const void *a, const void *b) {
  const entry *x = a, *y = b;
  if (x->dtype->bytes != y->dtype->bytes) return y->dtype->bytes - x->dtype->bytes;
  return by_name(a, b);
}

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

/* The JSON, padded with blanks to a multiple of 8. *out is freed by the caller. */
static qn_status make_header(const entry *e, size_t n, const char *const *meta, size_t n_meta, char **out,
                             size_t *size) {
  FILE *f = open_memstream(out, size);
  if (!f) return qn__fail(QN_E_NOMEM, "a header for %zu tensors", n);
  fputc('{', f);
  for (size_t i = 0; i < n_meta; i++) {
    fputs(i ? "," : "\"__metadata__\":{", f);
    put_string(f, meta[2 * i]);
    fputc(':', f);
    put_string(f, meta[2 * i + 1]);
  }
  if (n_meta) fputs(n ? "}," : "}", f);
  for (size_t i = 0; i < n; i++) {
    if (i) fputc(',', f);
    put_entry(f, &e[i]);
  }
  fputc('}', f);
  for (long at = ftell(f); at % 8; at++) fputc(' ', f);
  bool failed = ferror(f);
  if (fclose(f) || failed) return qn__fail(QN_E_NOMEM, "a header for %zu tensors", n);
  return QN_OK;
}

/* Entries in the order of the file: the widest first, then by name. */
static qn_status arrange(const qn_save *t, size_t n, entry *e) {
  for (size_t i = 0; i < n; i++) {
    e[i] = (entry){.t = &t[i], .dtype = t[i].dtype ? qn__safetensors_dtype(t[i].dtype, strlen(t[i].dtype)) : NULL};
    if (!t[i].name || !e[i].dtype || t[i].n_dims < 0 || t[i].n_dims > QN_MAX_DIMS ||
        !qn__dtype_bytes(e[i].dtype, t[i].dim, t[i].n_dims, &e[i].bytes))
      return qn__fail(QN_E_ARG, "tensor %s: its dtype or shape is missing", t[i].name ? t[i].name : "without name");
  }
  qsort(e, n, sizeof *e, by_name);
  for (size_t i = 1; i < n; i++)
    if (!strcmp(e[i].t->name, e[i - 1].t->name)) return qn__fail(QN_E_ARG, "tensor %s is given twice", e[i].t->name);
  qsort(e, n, sizeof *e, by_width_then_name);
  for (size_t i = 1; i < n; i++) e[i].at = e[i - 1].at + e[i - 1].bytes;
  return QN_OK;
}

static qn_status begin(qn_writer *w, const char *path, const char *const *meta, size_t n_meta) {
  char *header = NULL;
  size_t size = 0;
  qn_status s = make_header(w->entry, w->n, meta, n_meta, &header, &size);
  if (!s) s = qn__output_open(&w->o, path);
  if (!s) {
    uint64_t length = size;
    fwrite(&length, sizeof length, 1, w->o.f);
    fwrite(header, 1, size, w->o.f);
    for (size_t i = 0; i < w->n; i++) w->entry[i].at += sizeof length + size;
  }
  free(header);
  qsort(w->entry, w->n, sizeof *w->entry, by_name);
  return s;
}

qn_status qn_writer_open(const char *path, const qn_save *tensor, size_t n, const char *const *meta, size_t n_meta,
                         qn_writer **out) {
  *out = NULL;
  if (!path || (n && !tensor) || (n_meta && !meta))
    return qn__fail(QN_E_ARG, "safetensors: a path and tensors are needed");
  qn_writer *w = calloc(1, sizeof *w + n * sizeof *w->entry);
  if (!w) return qn__fail(QN_E_NOMEM, "%zu tensors", n);
  w->n = n;
  qn_status s = arrange(tensor, n, w->entry);
  if (!s) s = begin(w, path, meta, n_meta);
  if (s) free(w);
  else *out = w;
  return s;
}

qn_status qn_writer_put(qn_writer *w, const char *name, const void *data, size_t bytes) {
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
