/* ids.c - token ids from files: NumPy arrays, lines of JSON, text. */
#include "file.h"
#include "json.h"
#include "model.h"
#include "text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct source {
  const char *path;
  const char *data;
  size_t bytes;
  int64_t vocabulary;
  qn__bos bos;
} source;

static qn_status damaged(const source *s, const char *what) { return qn__fail(QN_E_FORMAT, "%s: %s", s->path, what); }

static qn_status room(const source *s, qn__ids *ids, size_t n) {
  ids->id = n ? calloc(n, sizeof *ids->id) : NULL;
  return ids->id ? QN_OK : n ? qn__fail(QN_E_NOMEM, "%s: no memory for %zu ids", s->path, n) : damaged(s, "no ids");
}

/* Take a BOS away that begins the ids from `from` on: it is put before each window. */
static void drop_bos(const source *s, qn__ids *ids, int64_t from) {
  if (!s->bos.add || ids->n <= from || ids->id[from] != s->bos.id) return;
  ids->n--;
  memmove(ids->id + from, ids->id + from + 1, (size_t)(ids->n - from) * sizeof *ids->id);
}

/* ---- NumPy: magic, version, length of the header, a dictionary of Python, data ----------------------------------- */

static const struct item {
  const char *descr;
  size_t bytes;
} items[] = {{"|u1", 1}, {"<u2", 2}, {"<u4", 4}, {"<i4", 4}, {"<i8", 8}};

static int64_t load(const struct item *k, const char *p) {
  switch (k->descr[1] == 'u' ? k->bytes : 16 + k->bytes) {
  case 1:
    return (uint8_t)*p;
  case 2:
    return qn__le16(p);
  case 4:
    return qn__le32(p);
  case 16 + 4:
    return (int32_t)qn__le32(p);
  default:
    return (int64_t)qn__le64(p);
  }
}

/* What follows 'key': in the header; NULL: it is not there. */
static const char *value_of(const char *header, const char *key) {
  char quoted[32];
  snprintf(quoted, sizeof quoted, "'%s':", key);
  const char *at = strstr(header, quoted);
  return at ? at + strlen(quoted) + strspn(at + strlen(quoted), " ") : NULL;
}

static qn_status read_shape(const source *s, const char *shape, int64_t dim[2], int *n_dims) {
  *n_dims = 0;
  for (const char *at = shape && *shape == '(' ? shape + 1 : ")"; *at != ')';) {
    char *end;
    long long x = strtoll(at, &end, 10);
    if (end == at || x < 0 || *n_dims == 2) return damaged(s, "ids are of one dimension or two, windows x length");
    dim[(*n_dims)++] = x;
    at = end + strspn(end, ", ");
  }
  return *n_dims ? QN_OK : damaged(s, "ids are of one dimension or two, windows x length");
}

/* The header as a text, and where the data begins. */
static qn_status npy_header(const source *s, char header[1024], size_t *data) {
  if (s->bytes < 12 || memcmp(s->data, "\x93NUMPY", 6)) return damaged(s, "no NumPy array");
  bool wide = s->data[6] > 1; /* version 2 has a length of four bytes */
  size_t begin = wide ? 12 : 10, n = wide ? qn__le32(s->data + 8) : qn__le16(s->data + 8);
  if (n > s->bytes - begin || n >= 1024) return damaged(s, "a header that is longer than the file, or than 1 kB");
  memcpy(header, s->data + begin, n);
  header[n] = 0;
  *data = begin + n;
  return QN_OK;
}

static const struct item *item_of(const char *header) {
  const char *descr = value_of(header, "descr");
  for (size_t i = 0; descr && i < QN_COUNT(items); i++)
    if (!strncmp(descr + 1, items[i].descr, 3)) return &items[i];
  return NULL;
}

static qn_status read_npy(const source *s, qn__ids *ids) {
  char header[1024];
  size_t data = 0, count;
  int64_t dim[2];
  int n_dims = 0;
  QN_TRY(npy_header(s, header, &data));
  const struct item *k = item_of(header);
  const char *order = value_of(header, "fortran_order");
  if (!k) return damaged(s, "ids are u8, u16, u32, i32 or i64, little-endian");
  QN_TRY(read_shape(s, value_of(header, "shape"), dim, &n_dims));
  if (!order || (n_dims == 2 && strncmp(order, "False", 5))) return damaged(s, "rows must follow each other (order C)");
  bool fits = !__builtin_mul_overflow((size_t)dim[0], n_dims == 2 ? (size_t)dim[1] : 1, &count);
  if (!fits || count != (s->bytes - data) / k->bytes || (s->bytes - data) % k->bytes)
    return damaged(s, "its shape is not that of its data");
  QN_TRY(room(s, ids, count));
  for (size_t i = 0; i < count; i++) {
    int64_t id = load(k, s->data + data + i * k->bytes);
    if (id < 0 || id >= s->vocabulary)
      return qn__fail(QN_E_FORMAT, "%s: element %zu is %jd; ids are from 0 to %jd", s->path, i, (intmax_t)id,
                      (intmax_t)s->vocabulary - 1);
    ids->id[i] = (int32_t)id;
  }
  ids->n = (int64_t)count;
  if (n_dims == 2) ids->rows = dim[0], ids->cols = dim[1];
  else drop_bos(s, ids, 0);
  return QN_OK;
}

/* ---- Lines of JSON ----------------------------------------------------------------------------------------------- */

static qn_status read_line(const source *s, const cJSON *list, size_t line, qn__ids *ids) {
  const cJSON *x;
  int64_t from = ids->n;
  if (!cJSON_IsArray(list)) return qn__fail(QN_E_FORMAT, "%s:%zu: a line is {\"input_ids\": [...]}", s->path, line);
  cJSON_ArrayForEach(x, list) {
    double id = cJSON_IsNumber(x) ? x->valuedouble : -1;
    if (!(id >= 0 && id < (double)s->vocabulary) || id != (double)(int64_t)id)
      return qn__fail(QN_E_FORMAT, "%s:%zu: %s%.17g among the ids; they are whole numbers from 0 to %jd", s->path, line,
                      cJSON_IsNumber(x) ? "" : "no number: ", cJSON_IsNumber(x) ? x->valuedouble : 0,
                      (intmax_t)s->vocabulary - 1);
    ids->id[ids->n++] = (int32_t)id;
  }
  drop_bos(s, ids, from);
  return QN_OK;
}

static qn_status read_jsonl(const source *s, qn__ids *ids) {
  QN_TRY(room(s, ids, s->bytes / 2 + 1)); /* an id takes two bytes of the file */
  size_t line = 1;
  for (const char *at = s->data, *end = at + s->bytes, *stop; at < end; at = stop + 1, line++) {
    stop = memchr(at, '\n', (size_t)(end - at));
    if (!stop) stop = end;
    if (at + strspn(at, " \t\r\n") >= stop) continue;
    cJSON *json;
    qn_status status = qn__json_parse(at, (size_t)(stop - at), &json);
    if (status) return qn__fail(status, "%s:%zu: %s", s->path, line, qn__errmsg());
    status = read_line(s, qn__json_get(json, "input_ids"), line, ids);
    cJSON_Delete(json);
    QN_TRY(status);
  }
  return ids->n ? QN_OK : damaged(s, "no ids");
}

/* ---- Any file ---------------------------------------------------------------------------------------------------- */

static qn_status read_text(const source *s, const qn__tokenizer *t, qn__ids *ids) {
  if (!s->bytes) return damaged(s, "an empty text");
  qn_status status = qn__tokenizer_encode(t, s->data, s->bytes, ids);
  if (status == QN_E_ARG && !qn__tokenizer_refusal(t)) return damaged(s, qn__errmsg());
  if (status != QN_OK) return qn__fail(status, "%s: %s", s->path, qn__errmsg());
  for (int64_t i = 0; i < ids->n; i++)
    if (ids->id[i] >= s->vocabulary)
      return qn__fail(QN_E_FORMAT,
                      "%s: token %d is beyond the model's vocabulary of %jd: the tokenizer is another model's", s->path,
                      (int)ids->id[i], (intmax_t)s->vocabulary);
  return QN_OK;
}

static bool ends_in(const char *path, const char *end) {
  size_t n = strlen(path), k = strlen(end);
  return n >= k && !strcmp(path + n - k, end);
}

qn_status qn__ids_read(const char *path, const qn__tokenizer *t, int64_t vocabulary, qn__ids *out) {
  source s = {.path = path, .vocabulary = vocabulary, .bos = qn__tokenizer_bos(t)};
  char *data;
  *out = (qn__ids){0};
  QN_TRY(qn__file_read(path, &data, &s.bytes));
  s.data = data;
  qn_status status = ends_in(path, ".npy")     ? read_npy(&s, out)
                     : ends_in(path, ".jsonl") ? read_jsonl(&s, out)
                                               : read_text(&s, t, out);
  free(data);
  if (status != QN_OK) qn__ids_free(out);
  return status;
}

int64_t qn__model_vocabulary(const qn_model *model) {
  const qn_tensor *t;
  for (size_t i = 0; (t = qn_model_tensor(model, i)); i++)
    if (!strcmp(t->role, "embedding")) return t->n;
  return 0;
}

qn_status qn__ids_write(const char *path, const qn__ids *ids) {
  return qn__npy_write(path, "<i4", sizeof *ids->id, ids->id, (const int64_t[]){ids->n}, 1);
}
