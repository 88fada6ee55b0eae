/* reference_model.c - see reference_model.h. */
#include "reference_model.h"
#include "config.h"
#include "fail.h"
#include "file.h"
#include "hash.h"
#include "model.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE = 4096 };
static const char title[] = "quernel reference 1 ";

struct qn__reference {
  qn__decoder *d;
  const qn__windows *w;
  const char *path;
  int fd;       /* -1: nothing is kept */
  size_t bytes; /* of a window's data */
  int64_t data; /* where they begin in the file */
  char hash[33];
};

/* ---- What it is of ----------------------------------------------------------------------------------------------- */

qn_status qn__model_hash(const qn_model *m, char out[33]) {
  const size_t n = (size_t)m->n_files + 2;
  const qn__map *header = m->header ? m->header->file : NULL;
  uint8_t(*hash)[QN_HASH_BYTES] = calloc(n, sizeof *hash);
  if (!hash) return qn__fail(QN_E_NOMEM, "hashes of %zu files", n);
  for (int i = 0; i < m->n_files; i++) qn__hash128(m->file[i].data, m->file[i].bytes, hash[i]);
  qn__hash128(m->config.data ? (const void *)m->config.data : "", m->config.bytes, hash[n - 2]);
  qn__hash128(header ? (const void *)header->data : "", header ? header->bytes : 0, hash[n - 1]);
  qn__hash_hex(hash, n * sizeof *hash, out);
  free(hash);
  return QN_OK;
}

static void name_it(qn__reference *r, const char *model, int64_t hidden) {
  char of_model[33], text[160];
  qn__hash_hex(model, strlen(model), of_model);
  snprintf(text, sizeof text, "%s %s %jd", of_model, r->w->hash, (intmax_t)hidden);
  qn__hash_hex(text, strlen(text), r->hash);
}

/* ---- The file ---------------------------------------------------------------------------------------------------- */

static qn_status fault(const qn__reference *r, int error) {
  return qn__fail(qn__errno_status(error), "%s: %s", r->path, strerror(error));
}

static qn_status read_at(const qn__reference *r, void *to, size_t size, int64_t at) {
  for (size_t used = 0; used < size;) {
    ssize_t n = pread(r->fd, (char *)to + used, size - used, (off_t)(at + (int64_t)used));
    if (n <= 0) return fault(r, n ? errno : EIO);
    used += (size_t)n;
  }
  return QN_OK;
}

static qn_status write_at(const qn__reference *r, const void *from, size_t size, int64_t at) {
  for (size_t used = 0; used < size;) {
    ssize_t n = pwrite(r->fd, (const char *)from + used, size - used, (off_t)(at + (int64_t)used));
    if (n <= 0) return fault(r, n ? errno : EIO);
    used += (size_t)n;
  }
  return QN_OK;
}

static int64_t hash_place(int64_t window) { return PAGE + window * QN_HASH_BYTES; }
static int64_t data_place(const qn__reference *r, int64_t window) { return r->data + window * (int64_t)r->bytes; }

/* A new file gets its room, then its title: one without is nobody's and begins anew. */
static qn_status begin(qn__reference *r, const char *head) {
  int64_t size = data_place(r, r->w->n);
  int error = posix_fallocate(r->fd, 0, (off_t)size);
  if (!error) return write_at(r, head, strlen(head), 0);
  unlink(r->path);
  return qn__fail(qn__errno_status(error), "%s: %jd MB are needed for the reference's hidden states: %s", r->path,
                  (intmax_t)(size / 1000000 + 1), strerror(error));
}

/* A file that has nothing in it: new, or left by a run that was killed before the title. */
static bool blank(const char page[PAGE], ssize_t n, off_t size, int64_t room) {
  for (ssize_t i = 0; i < n; i++)
    if (page[i]) return false;
  return size <= room;
}

static qn_status open_file(qn__reference *r) {
  char head[64], page[PAGE];
  struct stat st;
  int length = snprintf(head, sizeof head, "%s%s\n", title, r->hash);
  r->fd = open(r->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666);
  if (r->fd < 0) return fault(r, errno);
  QN_TRY(qn__file_lock(r->fd, r->path));
  ssize_t n = fstat(r->fd, &st) ? -1 : pread(r->fd, page, sizeof page, 0);
  if (n < 0) return fault(r, errno);
  if (blank(page, n, st.st_size, data_place(r, r->w->n))) return begin(r, head);
  if (n >= length && !memcmp(page, head, (size_t)length)) return QN_OK;
  if (n < length || memcmp(page, title, strlen(title)))
    return qn__fail(QN_E_ARG, "%s: not a reference; name another file", r->path);
  return qn__fail(
      QN_E_ARG,
      "%s: the reference of another model, of other windows or of another build of quernel; remove it, or name "
      "another file",
      r->path);
}

qn_status qn__reference_open(qn__decoder *d, const char *model, const qn__windows *w, const char *path,
                             qn__reference **out) {
  qn__reference *r = *out = calloc(1, sizeof *r);
  if (!r) return qn__fail(QN_E_NOMEM, "a reference");
  int64_t hidden = qn__decoder_config(d)->hidden;
  *r = (qn__reference){.d = d, .w = w, .path = path, .fd = -1};
  r->bytes = (size_t)(qn__windows_scored(w) * hidden) * sizeof(float);
  r->data = (hash_place(w->n) + PAGE - 1) / PAGE * PAGE;
  name_it(r, model, hidden);
  qn_status s = path ? open_file(r) : QN_OK;
  if (s != QN_OK) qn__reference_close(r), *out = NULL;
  return s;
}

void qn__reference_close(qn__reference *r) {
  if (!r) return;
  if (r->fd >= 0) close(r->fd);
  free(r);
}

qn__decoder *qn__reference_decoder(const qn__reference *r) { return r->d; }
const qn__windows *qn__reference_windows(const qn__reference *r) { return r->w; }
const char *qn__reference_hash(const qn__reference *r) { return r->hash; }

/* ---- Hidden states ----------------------------------------------------------------------------------------------- */

qn_status qn__scored_hidden(qn__decoder *d, const qn__windows *w, int64_t first, int64_t count, float *h) {
  int64_t hidden = qn__decoder_config(d)->hidden, scored = qn__windows_scored(w);
  float *all = malloc((size_t)(count * w->length * hidden) * sizeof *all);
  if (!all) return qn__fail(QN_E_NOMEM, "hidden states of %jd windows", (intmax_t)count);
  qn_status s = qn__decoder_hidden(d, w->ids + first * w->length, count, w->length, all);
  for (int64_t i = 0; s == QN_OK && i < count; i++)
    memcpy(h + i * scored * hidden, all + (i * w->length + w->first) * hidden, (size_t)(scored * hidden) * sizeof *h);
  free(all);
  return s;
}

/* Are they in the file? Then h has them. */
static bool kept(const qn__reference *r, int64_t window, float *h) {
  uint8_t should[QN_HASH_BYTES], is[QN_HASH_BYTES];
  if (r->fd < 0 || read_at(r, should, sizeof should, hash_place(window)) ||
      read_at(r, h, r->bytes, data_place(r, window)))
    return false;
  qn__hash128(h, r->bytes, is);
  return !memcmp(is, should, sizeof is);
}

static qn_status keep(const qn__reference *r, int64_t window, const float *h) {
  uint8_t hash[QN_HASH_BYTES];
  if (r->fd < 0) return QN_OK;
  qn__hash128(h, r->bytes, hash);
  QN_TRY(write_at(r, h, r->bytes, data_place(r, window)));
  return write_at(r, hash, sizeof hash, hash_place(window));
}

/* A pass is computed whole or not at all, so that its windows always have the same company. */
qn_status qn__reference_hidden(qn__reference *r, int64_t first, int64_t count, float *h) {
  bool all = true;
  for (int64_t i = 0; all && i < count; i++) all = kept(r, first + i, h + (size_t)i * r->bytes / sizeof *h);
  if (all) return QN_OK;
  QN_TRY(qn__scored_hidden(r->d, r->w, first, count, h));
  for (int64_t i = 0; i < count; i++) QN_TRY(keep(r, first + i, h + (size_t)i * r->bytes / sizeof *h));
  return QN_OK;
}
