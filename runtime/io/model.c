/* model.c - open a checkpoint: find its files, map them, read their headers, claim its weights.
 *
 *     directory     model.safetensors.index.json -> the shards it names; else model.safetensors; else every
 * *.safetensors; else the only .gguf x.safetensors that file, and config.json beside it x.gguf        that file, or
 * with -00001-of-00003 in its name all parts */
#include "model.h"
#include "json.h"
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { CONFIG_MAX = 4 << 20, INDEX_MAX = 100000000, PARTS_MAX = 4096 };

const char *qn_io_errmsg(void) { return qn__errmsg(); }

/* ---- Adding ------------------------------------------------------------------------------------------------------ */

qn_status qn__model_store(qn_model *m, const char *name, size_t length, const qn__dtype *dtype, const int64_t *dim,
                          int n_dims, const uint8_t *data, size_t bytes) {
  if (m->n_stored == m->cap_stored) {
    size_t cap = m->cap_stored ? 2 * m->cap_stored : 64;
    qn__stored *grown = realloc(m->stored, cap * sizeof *grown);
    if (!grown) return qn__fail(QN_E_NOMEM, "%zu tensors", cap);
    m->stored = grown;
    m->cap_stored = cap;
  }
  qn__stored *t = &m->stored[m->n_stored];
  *t = (qn__stored){.dtype = dtype};
  t->pub = (qn_raw){.name = qn__arena_text(&m->arena, name, length),
                    .dtype = dtype->name,
                    .type = dtype->type,
                    .n_dims = n_dims,
                    .data = data,
                    .bytes = bytes};
  if (!t->pub.name) return qn__fail(QN_E_NOMEM, "%zu tensors", m->n_stored + 1);
  memcpy(t->pub.dim, dim, (size_t)n_dims * sizeof *dim);
  m->n_stored++;
  return QN_OK;
}

qn_status qn__model_note(qn_model *m, const char *key, const char *text, size_t length) {
  if (m->n_meta == m->cap_meta) {
    size_t cap = m->cap_meta ? 2 * m->cap_meta : 16;
    qn_meta *grown = qn__arena_take(&m->arena, cap * sizeof *grown);
    if (!grown) return qn__fail(QN_E_NOMEM, "%zu keys", cap);
    if (m->n_meta) memcpy(grown, m->meta, m->n_meta * sizeof *grown);
    m->meta = grown;
    m->cap_meta = cap;
  }
  qn_meta *v = &m->meta[m->n_meta];
  *v = (qn_meta){.key = qn__arena_text(&m->arena, key, strlen(key)),
                 .type = QN_META_STRING,
                 .count = length,
                 .data = qn__arena_text(&m->arena, text, length)};
  if (!v->key || !v->data) return qn__fail(QN_E_NOMEM, "%zu keys", m->n_meta + 1);
  m->n_meta++;
  return QN_OK;
}

static qn_status add_file(qn_model *m, const char *path) {
  qn__map *grown = realloc(m->file, (size_t)(m->n_files + 1) * sizeof *grown);
  if (!grown) return qn__fail(QN_E_NOMEM, "%s", path);
  m->file = grown;
  QN_TRY(qn__map_open(path, &m->file[m->n_files]));
  qn__map *f = &m->file[m->n_files++];
  bool gguf = f->bytes >= 4 && !memcmp(f->data, "GGUF", 4);
  if (m->n_files > 1 && gguf != m->gguf)
    return qn__fail(QN_E_FORMAT, "%s: another container than the part before", path);
  m->gguf = gguf;
  return gguf ? qn__gguf_read(m, f) : qn__safetensors_read(m, f);
}

static qn_status join(char out[PATH_MAX], const char *dir, const char *name) {
  if (snprintf(out, PATH_MAX, "%s%s%s", dir, *dir ? "/" : "", name) >= PATH_MAX)
    return qn__fail(QN_E_ARG, "%s/%s: the path is longer than %d", dir, name, PATH_MAX);
  return QN_OK;
}

/* ---- Configuration ----------------------------------------------------------------------------------------------- */

static qn_status parse_config(const qn__map *f, cJSON **out) {
  if (f->bytes > CONFIG_MAX)
    return qn__fail(QN_E_FORMAT, "%s: %zu bytes, the limit is %d", f->path, f->bytes, CONFIG_MAX);
  *out = f->bytes ? cJSON_ParseWithLength((const char *)f->data, f->bytes) : NULL;
  return cJSON_IsObject(*out) ? QN_OK : qn__fail(QN_E_FORMAT, "%s: not a JSON object", f->path);
}

/* config.json's quantization_config, or the whole of a file that older tools wrote beside it. */
static qn_status read_config(qn_model *m, const char *dir) {
  static const char *const alone[] = {"quantize_config.json", "quant_config.json"};
  char path[PATH_MAX];
  QN_TRY(join(path, dir, "config.json"));
  if (qn__file_exists(path)) {
    QN_TRY(qn__map_open(path, &m->config));
    QN_TRY(parse_config(&m->config, &m->json));
    m->quant = cJSON_GetObjectItemCaseSensitive(m->json, "quantization_config");
    if (!m->quant) m->quant = cJSON_GetObjectItemCaseSensitive(m->json, "compression_config");
  }
  for (size_t i = 0; !m->quant && i < QN_COUNT(alone); i++) {
    QN_TRY(join(path, dir, alone[i]));
    if (!qn__file_exists(path)) continue;
    qn__map f;
    QN_TRY(qn__map_open(path, &f));
    qn_status s = parse_config(&f, &m->own);
    qn__map_close(&f);
    QN_TRY(s);
    m->quant = m->own;
  }
  return QN_OK;
}

int64_t qn__quant_int(const qn_model *m, const char *key, int64_t fallback) {
  const cJSON *v = cJSON_GetObjectItemCaseSensitive(m->quant, key);
  if (cJSON_IsBool(v)) return cJSON_IsTrue(v);
  return cJSON_IsNumber(v) && v->valuedouble >= INT32_MIN && v->valuedouble <= INT32_MAX ? (int64_t)v->valuedouble
                                                                                         : fallback;
}

const char *qn__quant_text(const qn_model *m, const char *key) {
  const cJSON *v = cJSON_GetObjectItemCaseSensitive(m->quant, key);
  return cJSON_IsString(v) ? v->valuestring : "";
}

const char *qn__quant_name(const qn_model *m) {
  static const char *const keys[] = {"quant_method", "quant_algo", "format"};
  const char *name = "";
  for (size_t i = 0; !*name && i < QN_COUNT(keys); i++) name = qn__quant_text(m, keys[i]);
  return name;
}

/* ---- Sharded safetensors ----------------------------------------------------------------------------------------- */

static bool plain_name(const char *s) { return *s && *s != '.' && !strchr(s, '/'); } /* stays inside the directory */

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* {"metadata": …, "weight_map": {"tensor": "file", …}}. Calls each(tensor, file) for every entry. */
static qn_status walk_index(const qn__map *f, qn_status (*each)(void *, const char *, const char *), void *arg) {
  const char *text = (const char *)f->data;
  qn__pull j = {text, text, text + f->bytes, NULL};
  char key[4096], value[NAME_MAX + 1];
  if (!qn__pull_need(&j, '{')) goto bad;
  do {
    if (!qn__pull_string(&j, key, sizeof key, NULL) || !qn__pull_need(&j, ':')) goto bad;
    if (strcmp(key, "weight_map")) {
      if (!qn__pull_skip(&j)) goto bad;
      continue;
    }
    if (!qn__pull_need(&j, '{')) goto bad;
    if (qn__pull_take(&j, '}')) continue;
    do {
      if (!qn__pull_string(&j, key, sizeof key, NULL) || !qn__pull_need(&j, ':')) goto bad;
      if (!qn__pull_string(&j, value, sizeof value, NULL)) goto bad;
      QN_TRY(each(arg, key, value));
    } while (qn__pull_take(&j, ','));
    if (!qn__pull_need(&j, '}')) goto bad;
  } while (qn__pull_take(&j, ','));
  if (qn__pull_need(&j, '}')) return QN_OK;
bad:
  return qn__fail(QN_E_FORMAT, "%s: byte %td: %s expected", f->path, j.p - j.start, j.bad);
}

typedef struct shards {
  qn_model *m;
  const char *index; /* path, for messages */
  char **name;
  size_t count;
} shards;

static qn_status collect(void *arg, const char *tensor, const char *file) {
  shards *s = arg;
  for (size_t i = s->count; i--;) /* neighbours name the same file */
    if (!strcmp(s->name[i], file)) return QN_OK;
  if (!plain_name(file)) return qn__fail(QN_E_FORMAT, "%s: %s: \"%s\" is not a file beside it", s->index, tensor, file);
  if (s->count == PARTS_MAX) return qn__fail(QN_E_LIMIT, "%s: more than %d shards", s->index, PARTS_MAX);
  char **grown = realloc(s->name, (s->count + 1) * sizeof *grown);
  if (grown) s->name = grown;
  if (!grown || !(s->name[s->count] = strdup(file))) return qn__fail(QN_E_NOMEM, "%s", s->index);
  s->count++;
  return QN_OK;
}

static qn_status present(void *arg, const char *tensor, const char *file) {
  shards *s = arg;
  const qn_raw *t = qn__names_find(&s->m->stored_names, tensor);
  return t ? QN_OK : qn__fail(QN_E_FORMAT, "%s: tensor %s is not in %s", s->index, tensor, file);
}

static qn_status add_shards(qn_model *m, const char *dir, shards *s) {
  if (s->count) qsort(s->name, s->count, sizeof *s->name, by_text);
  for (size_t i = 0; i < s->count; i++) {
    char path[PATH_MAX];
    QN_TRY(join(path, dir, s->name[i]));
    QN_TRY(add_file(m, path));
  }
  return QN_OK;
}

static void shards_fini(shards *s) {
  for (size_t i = 0; i < s->count; i++) free(s->name[i]);
  free(s->name);
}

static qn_status index_names(qn_model *m) {
  const char *twice;
  QN_TRY(qn__names_init(&m->stored_names, m->stored, m->n_stored, sizeof *m->stored, &twice));
  return twice ? qn__fail(QN_E_FORMAT, "%s: tensor %s occurs twice", m->file[0].path, twice) : QN_OK;
}

static qn_status open_index(qn_model *m, const char *dir, const char *index) {
  qn__map f;
  shards s = {m, index, NULL, 0};
  QN_TRY(qn__map_open(index, &f));
  qn_status st = f.bytes && f.bytes <= INDEX_MAX
                     ? walk_index(&f, collect, &s)
                     : qn__fail(QN_E_FORMAT, "%s: %zu bytes; 1 to %d are read", index, f.bytes, INDEX_MAX);
  if (!st && !s.count) st = qn__fail(QN_E_FORMAT, "%s: names no tensor", index);
  if (!st) st = add_shards(m, dir, &s);
  if (!st) st = index_names(m);
  if (!st) st = walk_index(&f, present, &s);
  qn__map_close(&f);
  shards_fini(&s);
  return st;
}

/* ---- Directories and GGUF parts ---------------------------------------------------------------------------------- */

static bool ends_with(const char *s, const char *tail) {
  size_t n = strlen(s), t = strlen(tail);
  return n >= t && !strcmp(s + n - t, tail);
}

static qn_status open_listing(qn_model *m, const char *dir, const char *tail) { /* every file that ends so */
  shards s = {m, dir, NULL, 0};
  qn_status st = QN_OK;
  DIR *d = opendir(dir);
  if (!d) return qn__fail(QN_E_IO, "%s: %s", dir, strerror(errno));
  for (struct dirent *e; !st && (e = readdir(d));)
    if (plain_name(e->d_name) && ends_with(e->d_name, tail)) st = collect(&s, dir, e->d_name);
  closedir(d);
  if (!st) st = add_shards(m, dir, &s);
  shards_fini(&s);
  return st;
}

static qn_status open_dir(qn_model *m, const char *dir) {
  char path[PATH_MAX];
  QN_TRY(read_config(m, dir));
  QN_TRY(join(path, dir, "model.safetensors.index.json"));
  if (qn__file_exists(path)) return open_index(m, dir, path);
  QN_TRY(join(path, dir, "model.safetensors"));
  if (qn__file_exists(path)) return add_file(m, path);
  QN_TRY(open_listing(m, dir, ".safetensors"));
  if (!m->n_files) QN_TRY(open_listing(m, dir, ".gguf"));
  return m->n_files ? QN_OK : qn__fail(QN_E_IO, "%s: holds no .safetensors and no .gguf file", dir);
}

static uint64_t meta_or(const qn_model *m, const char *key, uint64_t fallback) {
  const qn_meta *v = qn_model_find_meta(m, key);
  return v && v->type != QN_META_STRING && v->type != QN_META_ARRAY ? v->bits : fallback;
}

static qn_status open_gguf(qn_model *m, const char *path) {
  unsigned part, parts;
  size_t stem = strlen(path) - strlen("-00001-of-00001.gguf");
  bool split = strlen(path) > strlen("-00001-of-00001.gguf") &&
               sscanf(path + stem, "-%5u-of-%5u.gguf", &part, &parts) == 2 && parts && parts <= PARTS_MAX;
  if (!split) {
    QN_TRY(add_file(m, path));
    uint64_t count = meta_or(m, "split.count", 1);
    return count <= 1 ? QN_OK
                      : qn__fail(QN_E_FORMAT, "%s: one of %ju parts, but not named -00001-of-%05ju.gguf", path,
                                 (uintmax_t)count, (uintmax_t)count);
  }
  for (unsigned i = 1; i <= parts; i++) {
    char name[PATH_MAX];
    if (snprintf(name, sizeof name, "%.*s-%05u-of-%05u.gguf", (int)stem, path, i, parts) >= (int)sizeof name)
      return qn__fail(QN_E_ARG, "%s: the path is too long", path);
    QN_TRY(add_file(m, name));
  }
  uint64_t count = meta_or(m, "split.count", parts), tensors = meta_or(m, "split.tensors.count", m->n_stored);
  if (count != parts || tensors != m->n_stored)
    return qn__fail(QN_E_FORMAT, "%s: %u parts with %zu tensors; split.count is %ju, split.tensors.count %ju", path,
                    parts, m->n_stored, (uintmax_t)count, (uintmax_t)tensors);
  return QN_OK;
}

static qn_status open_file(qn_model *m, const char *path) {
  if (ends_with(path, ".gguf")) return open_gguf(m, path);
  const char *slash = strrchr(path, '/');
  char dir[PATH_MAX];
  if (snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".") >= (int)sizeof dir)
    return qn__fail(QN_E_ARG, "%s: the path is too long", path);
  QN_TRY(read_config(m, slash == path ? "/" : dir));
  return add_file(m, path);
}

/* ---- Public ------------------------------------------------------------------------------------------------------ */

qn_status qn_model_open(const char *path, qn_model **out) {
  if (!out) return qn__fail(QN_E_ARG, "qn_model_open: out is NULL");
  *out = NULL;
  if (!path || !*path) return qn__fail(QN_E_ARG, "qn_model_open: no path");
  struct stat st;
  if (stat(path, &st)) return qn__fail(QN_E_IO, "%s: %s", path, strerror(errno));
  qn_model *m = calloc(1, sizeof *m);
  if (!m) return qn__fail(QN_E_NOMEM, "%s", path);
  qn_status s = S_ISDIR(st.st_mode) ? open_dir(m, path) : open_file(m, path);
  const char *twice;
  if (!s && !m->stored_names.slot) s = index_names(m);
  if (!s && !m->gguf) s = qn__names_init(&m->meta_names, m->meta, m->n_meta, sizeof *m->meta, &twice);
  if (!s) s = qn__model_claim(m);
  if (!s) s = qn__names_init(&m->weight_names, m->weight, m->n_weights, sizeof *m->weight, &twice);
  if (s) qn_model_close(m);
  else *out = m;
  return s;
}

void qn_model_close(qn_model *m) {
  if (!m) return;
  for (int i = 0; i < m->n_files; i++) qn__map_close(&m->file[i]);
  free(m->file);
  qn__map_close(&m->config);
  cJSON_Delete(m->json);
  cJSON_Delete(m->own);
  qn__names_fini(&m->stored_names);
  qn__names_fini(&m->weight_names);
  qn__names_fini(&m->meta_names);
  free(m->stored);
  free(m->weight);
  free(m->by_name);
  qn__arena_fini(&m->arena);
  free(m);
}

const qn_tensor *qn_model_tensor(const qn_model *m, size_t i) { return i < m->n_weights ? &m->weight[i].pub : NULL; }
const qn_tensor *qn_model_find(const qn_model *m, const char *name) { return qn__names_find(&m->weight_names, name); }
const qn_raw *qn_model_raw(const qn_model *m, size_t i) { return i < m->n_stored ? &m->stored[i].pub : NULL; }
const qn_raw *qn_model_find_raw(const qn_model *m, const char *name) { return qn__names_find(&m->stored_names, name); }
const qn_meta *qn_model_meta(const qn_model *m, size_t i) { return i < m->n_meta ? &m->meta[i] : NULL; }
const qn_meta *qn_model_find_meta(const qn_model *m, const char *key) { return qn__names_find(&m->meta_names, key); }

const char *qn_model_config(const qn_model *m, size_t *length) {
  *length = m->config.bytes;
  return (const char *)m->config.data;
}

double qn_tensor_bpw(const qn_tensor *t) {
  double weights = (double)t->slices * (double)t->n * (double)t->k;
  return weights > 0 ? 8 * (double)t->bytes / weights : 0;
}
