/* write.c - files out, whole or not at all: a NumPy array, and tensors as safetensors. */
#include "model.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- Temporary name, then rename --------------------------------------------------------------------------------- */

typedef struct output {
  FILE *f;
  const char *path;
  char temporary[PATH_MAX];
} output;

static qn_status output_open(output *o, const char *path) {
  static _Atomic unsigned serial; /* so that threads that write the same file do not share a temporary one */
  o->path = path;
  o->f = NULL;
  if (snprintf(o->temporary, sizeof o->temporary, "%s.%ld-%u.tmp", path, (long)getpid(), serial++) >=
      (int)sizeof o->temporary)
    return qn__fail(QN_E_ARG, "%s: the path is longer than %d", path, PATH_MAX);
  int fd = open(o->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0) return qn__fail(QN_E_IO, "%s: %s", o->temporary, strerror(errno));
  o->f = fdopen(fd, "wb");
  if (o->f) return QN_OK;
  qn_status s = qn__fail(QN_E_IO, "%s: %s", o->temporary, strerror(errno));
  close(fd);
  unlink(o->temporary);
  return s;
}

/* Errors of all writes before show here, too. */
static qn_status output_close(output *o) {
  bool ok = !ferror(o->f) && !fflush(o->f) && !fsync(fileno(o->f));
  int why = errno;
  if (fclose(o->f) && ok) ok = false, why = errno;
  if (ok && rename(o->temporary, o->path)) ok = false, why = errno;
  if (ok) return QN_OK;
  unlink(o->temporary);
  return qn__fail(QN_E_IO, "%s: cannot be written: %s", o->path, strerror(why));
}

/* ---- NumPy ------------------------------------------------------------------------------------------------------- */

qn_status qn_npy_write(const char *path, const float *x, int64_t n, int64_t k) {
  enum { HEADER = 128 }; /* a multiple of 64 */
  char header[HEADER + 1];
  output o;
  size_t count;
  if (!path || !x || n < 0 || k < 0 || __builtin_mul_overflow((size_t)n, (size_t)k, &count))
    return qn__fail(QN_E_ARG, "npy: a path, data and a shape are needed");
  QN_TRY(output_open(&o, path));
  int used = snprintf(header, sizeof header,
                      "\x93NUMPY\x01%c\x76%c{'descr': '<f4', 'fortran_order': False, 'shape': (%jd, %jd), }", 0, 0,
                      (intmax_t)n, (intmax_t)k);
  memset(header + used, ' ', HEADER - 1 - (size_t)used);
  header[HEADER - 1] = '\n';
  fwrite(header, HEADER, 1, o.f);
  if (count) fwrite(x, sizeof *x, count, o.f);
  return output_close(&o);
}

/* ---- safetensors ------------------------------------------------------------------------------------------------- */

typedef struct entry {
  const qn_save *t;
  const qn__dtype *dtype;
  uint64_t bytes;
} entry;

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

static void put_entry(FILE *f, const entry *e, uint64_t at) {
  put_string(f, e->t->name);
  fprintf(f, ":{\"dtype\":\"%s\",\"shape\":[", e->dtype->name);
  for (int i = 0; i < e->t->n_dims; i++) fprintf(f, "%s%jd", i ? "," : "", (intmax_t)e->t->dim[i]);
  fprintf(f, "],\"data_offsets\":[%ju,%ju]}", (uintmax_t)at, (uintmax_t)(at + e->bytes));
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
  uint64_t at = 0;
  for (size_t i = 0; i < n; at += e[i++].bytes) {
    if (i) fputc(',', f);
    put_entry(f, &e[i], at);
  }
  fputc('}', f);
  while (ftell(f) % 8) fputc(' ', f);
  if (!ferror(f) && !fclose(f)) return QN_OK;
  return qn__fail(QN_E_NOMEM, "a header for %zu tensors", n);
}

static qn_status check(const qn_save *t, size_t n, entry *e) {
  for (size_t i = 0; i < n; i++) {
    e[i] = (entry){&t[i], t[i].dtype ? qn__safetensors_dtype(t[i].dtype, strlen(t[i].dtype)) : NULL, 0};
    if (!t[i].name || !e[i].dtype || t[i].n_dims < 0 || t[i].n_dims > QN_MAX_DIMS ||
        !qn__dtype_bytes(e[i].dtype, t[i].dim, t[i].n_dims, &e[i].bytes) || (e[i].bytes && !t[i].data))
      return qn__fail(QN_E_ARG, "tensor %s: its dtype, shape or data is missing",
                      t[i].name ? t[i].name : "without name");
  }
  qsort(e, n, sizeof *e, by_name);
  for (size_t i = 1; i < n; i++)
    if (!strcmp(e[i].t->name, e[i - 1].t->name)) return qn__fail(QN_E_ARG, "tensor %s is given twice", e[i].t->name);
  qsort(e, n, sizeof *e, by_width_then_name);
  return QN_OK;
}

qn_status qn_safetensors_write(const char *path, const qn_save *tensor, size_t n, const char *const *meta,
                               size_t n_meta) {
  char *header = NULL;
  size_t size = 0;
  output o;
  if (!path || (n && !tensor) || (n_meta && !meta))
    return qn__fail(QN_E_ARG, "safetensors: a path and tensors are needed");
  entry *e = calloc(n + 1, sizeof *e);
  qn_status s = e ? check(tensor, n, e) : qn__fail(QN_E_NOMEM, "%zu tensors", n);
  if (!s) s = make_header(e, n, meta, n_meta, &header, &size);
  if (!s) s = output_open(&o, path);
  if (!s) {
    uint64_t length = size;
    fwrite(&length, sizeof length, 1, o.f);
    fwrite(header, 1, size, o.f);
    for (size_t i = 0; i < n; i++)
      if (e[i].bytes) fwrite(e[i].t->data, 1, e[i].bytes, o.f);
    s = output_close(&o);
  }
  free(header);
  free(e);
  return s;
}
