/* log.c - see log.h. */
#include "log.h"
#include "fail.h"
#include "file.h"
#include "hash.h"
#include "tree.h"
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char title[] = "quernel log 2 ";
enum { HEAD = sizeof title - 1 + 2 * QN_HASH_BYTES + 1 };

typedef struct record {
  uint8_t hash[QN_HASH_BYTES]; /* of all that follows it */
  int64_t entry;
  uint64_t size;
} record; /* the bytes follow */

static size_t size_of(const qn__log *l, int64_t entry) { return l->at[entry + 1] - l->at[entry]; }

static qn_status fault(const qn__log *l, int error) {
  return qn__fail(qn__errno_status(error), "%s: %s", l->path, strerror(error));
}

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

static void hash_of(const char *at, size_t bytes, uint8_t out[QN_HASH_BYTES]) {
  qn__hash128(at + QN_HASH_BYTES, sizeof(record) - QN_HASH_BYTES + bytes, out);
}

/* The bytes of the record at the head of `size` bytes; 0: it is not whole. */
static size_t read_record(const char *from, size_t size, record *r) {
  uint8_t hash[QN_HASH_BYTES];
  if (size < sizeof *r) return 0;
  memcpy(r, from, sizeof *r);
  if (r->size > size - sizeof *r) return 0;
  hash_of(from, r->size, hash);
  return memcmp(hash, r->hash, sizeof hash) ? 0 : sizeof *r + r->size;
}

/* Take over the records at the head of what follows the title; returns how many bytes of it are whole. */
static size_t take(qn__log *l, const char *from, size_t size) {
  size_t used = 0, bytes;
  record r;
  while ((bytes = read_record(from + used, size - used, &r)) > 0) {
    if (r.entry < 0 || r.entry >= l->n || r.size != size_of(l, r.entry)) break;
    memcpy(l->data + l->at[r.entry], from + used + sizeof r, r.size);
    l->done[r.entry] = true;
    used += bytes;
  }
  return used;
}

qn_status qn__log_look(const char *path, qn__log_summary *out) {
  char *text;
  size_t size, used = HEAD, bytes;
  uint8_t content[QN_HASH_BYTES] = {0};
  record r;
  *out = (qn__log_summary){0};
  QN_TRY(qn__file_read(path, &text, &size));
  bool is_log = size >= HEAD && !memcmp(text, title, sizeof title - 1) && text[HEAD - 1] == '\n';
  while (is_log && (bytes = read_record(text + used, size - used, &r)) > 0) {
    for (int i = 0; i < QN_HASH_BYTES; i++) content[i] ^= r.hash[i];
    out->entries++;
    used += bytes;
  }
  free(text);
  if (!is_log) return qn__fail(QN_E_FORMAT, "%s: not the log of an evaluation, or torn before its first entry", path);
  out->behind = size - used;
  qn__hash_text(content, out->content);
  return QN_OK;
}

/* A file that has not even its title was torn at once, and begins anew. */
static qn_status read_all(qn__log *l, const char head[HEAD + 1]) {
  char *text;
  size_t size, used = 0;
  QN_TRY(qn__file_read(l->path, &text, &size));
  bool ours = size >= HEAD && !memcmp(text, head, HEAD);
  bool begun = size < HEAD && !memcmp(text, head, size);
  if (ours) used = HEAD + take(l, text + HEAD, size - HEAD);
  free(text);
  if (!ours && !begun)
    return qn__fail(QN_E_ARG,
                    "%s: not the log of this evaluation, but of another model, text or build of quernel; remove it, or "
                    "name another",
                    l->path);
  if (ftruncate(l->fd, (off_t)used) || lseek(l->fd, 0, SEEK_END) < 0) return fault(l, errno);
  return QN_OK;
}

/* ---- Writing ----------------------------------------------------------------------------------------------------- */

/* All of it, or the file stays as it was. */
static qn_status append(qn__log *l, const void *bytes, size_t size) {
  off_t end = lseek(l->fd, 0, SEEK_END);
  ssize_t n = write(l->fd, bytes, size);
  int error = n < 0 ? errno : ENOSPC;
  if (n == (ssize_t)size) return QN_OK;
  if (ftruncate(l->fd, end)) error = errno;
  return fault(l, error);
}

qn_status qn__log_put(qn__log *l, int64_t first, int64_t count) {
  size_t size = l->at[first + count] - l->at[first] + (size_t)count * sizeof(record);
  char *all = l->fd < 0 ? NULL : calloc(1, size + 1), *to = all;
  if (l->fd >= 0 && !all) return qn__fail(QN_E_NOMEM, "%s: %zu bytes", l->path, size);
  for (int64_t i = first; all && i < first + count; i++) {
    record r = {.entry = i, .size = size_of(l, i)};
    memcpy(to, &r, sizeof r);
    memcpy(to + sizeof r, l->data + l->at[i], r.size);
    hash_of(to, r.size, (uint8_t *)to);
    to += sizeof r + r.size;
  }
  qn_status s = all ? append(l, all, size) : QN_OK;
  free(all);
  for (int64_t i = first; s == QN_OK && i < first + count; i++) l->done[i] = true;
  return s;
}

/* ---- Opening ----------------------------------------------------------------------------------------------------- */

static qn_status open_file(qn__log *l, const char *key) {
  char head[HEAD + 1], hash[33], copy[PATH_MAX];
  qn__hash_hex(key, strlen(key), hash);
  snprintf(head, sizeof head, "%s%s\n", title, hash);
  snprintf(copy, sizeof copy, "%s", l->path);
  QN_TRY(qn__tree_make(dirname(copy)));
  l->fd = open(l->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666);
  if (l->fd < 0) return fault(l, errno);
  QN_TRY(qn__file_lock(l->fd, l->path));
  QN_TRY(read_all(l, head));
  return lseek(l->fd, 0, SEEK_END) ? QN_OK : append(l, head, HEAD);
}

qn_status qn__log_open(qn__log *l, const char *path, const char *key, int64_t n, const size_t *at) {
  *l = (qn__log){.fd = -1, .path = path, .n = n, .at = at};
  l->data = calloc(1, at[n] + 1);
  l->done = calloc((size_t)n + 1, sizeof *l->done);
  qn_status s = l->data && l->done ? QN_OK : qn__fail(QN_E_NOMEM, "a log of %zu bytes", at[n]);
  if (s == QN_OK && path) s = open_file(l, key);
  if (s != QN_OK) qn__log_close(l);
  return s;
}

void qn__log_close(qn__log *l) {
  if (l->fd >= 0) close(l->fd);
  free(l->data);
  free(l->done);
  *l = (qn__log){.fd = -1};
}
