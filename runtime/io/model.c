/* model.c - opening a checkpoint: which files it is made of, and which weights its stored tensors stand for. */
#include "model.h"
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

const char *qn_io_errmsg(void) { return qn__errmsg(); }

/* ---- Stored tensors
 * -------------------------------------------------------------------------------------------------- */

qn_status qn__model_store(qn_model *m, const char *name, size_t length, const qn__dtype *dtype, const int64_t *dim,
                          int n_dims, const uint8_t *data, size_t bytes) {
  if (m->n_stored == m->cap_stored) {
    size_t cap = m->cap_stored ? m->cap_stored * 2 : 256;
    qn__stored *p = realloc(m->stored, cap * sizeof *p);
    if (!p) return qn__fail(QN_E_NOMEM, "no memory for %zu tensors", cap);
    m->stored = p;
    m->cap_stored = cap;
  }
  qn__stored *s = &m->stored[m->n_stored];
  *s = (qn__stored){.pub = {.dtype = dtype->name, .type = dtype->type, .n_dims = n_dims, .data = data, .bytes = bytes},
                    .dtype = dtype};
  if (n_dims) memcpy(s->pub.dim, dim, (size_t)n_dims * sizeof *dim);
  s->pub.name = qn__arena_text(&m->arena, name, length);
  if (!s->pub.name) return qn__fail(QN_E_NOMEM, "no memory for a tensor's name");
  m->n_stored++;
  return QN_OK;
}

/* ---- Files
 * ----------------------------------------------------------------------------------------------------------- */

static qn_status read_container(qn_model *m, const char *path) {
  qn__map *files = realloc(m->file, ((size_t)m->n_files + 1) * sizeof *files);
  if (!files) return qn__fail(QN_E_NOMEM, "no memory for a file");
  m->file = files;
  qn__map *f = &files[m->n_files];
  QN_TRY(qn__map_open(path, f));
  m->n_files++;
  bool gguf = f->bytes >= 4 && !memcmp(f->data, "GGUF", 4);
  return gguf ? qn__gguf_read(m, f) : qn__safetensors_read(m, f);
}

static bool ends_with(const char *s, const char *end) {
  size_t n = strlen(s), k = strlen(end);
  return n >= k && !strcmp(s + n - k, end);
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* Every .safetensors file of a folder, in the order of their names. */
static qn_status read_folder(qn_model *m, const char *folder) {
  DIR *d = opendir(folder);
  if (!d) return qn__fail(QN_E_IO, "%s: cannot be listed", folder);
  enum { most = 4096 };
  char **name = calloc(most, sizeof *name);
  size_t n = 0;
  for (struct dirent *e; name && (e = readdir(d));)
    if (ends_with(e->d_name, ".safetensors") && n < most) name[n++] = strdup(e->d_name);
  closedir(d);
  qn_status s = n ? QN_OK : qn__fail(QN_E_IO, "%s: holds no .safetensors file", folder);
  if (n) qsort(name, n, sizeof *name, by_name);
  for (size_t i = 0; i < n; i++) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, name[i]);
    if (s == QN_OK) s = read_container(m, path);
    free(name[i]);
  }
  free(name);
  return s;
}

static qn_status read_config(qn_model *m, const char *folder) {
  static const char *const names[] = {"config.json", "quantize_config.json"};
  for (size_t i = 0; i < QN_COUNT(names); i++) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, names[i]);
    if (!qn__file_exists(path)) continue;
    qn__map map, *f = i ? &map : &m->config;
    QN_TRY(qn__map_open(path, f));
    cJSON *j = cJSON_ParseWithLength((const char *)f->data, f->bytes);
    if (i) qn__map_close(f);
    if (!j) return qn__fail(QN_E_FORMAT, "%s: not JSON", path);
    if (i) m->own = j;
    else m->json = j;
  }
  m->quant = cJSON_GetObjectItemCaseSensitive(m->json, "quantization_config");
  if (!m->quant) m->quant = m->own;
  return QN_OK;
}

static qn_status open_files(qn_model *m, const char *path) {
  struct stat st;
  if (stat(path, &st)) return qn__fail(QN_E_IO, "%s: no such file or folder", path);
  if (!S_ISDIR(st.st_mode)) return read_container(m, path);
  QN_TRY(read_config(m, path));
  return read_folder(m, path);
}

qn_status qn_model_open(const char *path, qn_model **out) {
  *out = NULL;
  if (!path || !*path) return qn__fail(QN_E_ARG, "the path of the model is empty");
  qn_model *m = calloc(1, sizeof *m);
  if (!m) return qn__fail(QN_E_NOMEM, "no memory for a model");
  const char *twice = NULL;
  qn_status s = open_files(m, path);
  if (s == QN_OK) s = qn__names_init(&m->stored_names, m->stored, m->n_stored, sizeof *m->stored, &twice);
  if (s == QN_OK && twice) s = qn__fail(QN_E_FORMAT, "%s: tensor %s is stored twice", path, twice);
  if (s == QN_OK) s = qn__model_claim(m);
  if (s == QN_OK) s = qn__names_init(&m->weight_names, m->weight, m->n_weights, sizeof *m->weight, &twice);
  if (s != QN_OK) qn_model_close(m);
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
  free(m->stored);
  free(m->weight);
  qn__arena_fini(&m->arena);
  free(m);
}

/* ---- Looking
 * ----------------------------------------------------------------------------------------------------------- */

const qn_tensor *qn_model_tensor(const qn_model *m, size_t i) { return i < m->n_weights ? &m->weight[i].pub : NULL; }
const qn_tensor *qn_model_find(const qn_model *m, const char *name) { return qn__names_find(&m->weight_names, name); }
const qn_raw *qn_model_raw(const qn_model *m, size_t i) { return i < m->n_stored ? &m->stored[i].pub : NULL; }
const qn_raw *qn_model_find_raw(const qn_model *m, const char *name) { return qn__names_find(&m->stored_names, name); }
const qn_meta *qn_model_meta(const qn_model *m, size_t i) { return i < m->n_meta ? &m->meta[i] : NULL; }

const qn_meta *qn_model_find_meta(const qn_model *m, const char *key) {
  for (size_t i = 0; i < m->n_meta; i++)
    if (!strcmp(m->meta[i].key, key)) return &m->meta[i];
  return NULL;
}

const char *qn_model_config(const qn_model *m, size_t *length) {
  *length = m->config.bytes;
  return (const char *)m->config.data;
}

double qn_tensor_bpw(const qn_tensor *t) {
  double weights = (double)t->slices * (double)t->n * (double)t->k;
  return weights > 0 ? 8.0 * (double)t->bytes / weights : 0;
}

int64_t qn__quant_int(const qn_model *m, const char *key, int64_t fallback) {
  const cJSON *j = cJSON_GetObjectItemCaseSensitive(m->quant, key);
  if (cJSON_IsBool(j)) return cJSON_IsTrue(j);
  return cJSON_IsNumber(j) ? (int64_t)j->valuedouble : fallback;
}

const char *qn__quant_text(const qn_model *m, const char *key) {
  const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(m->quant, key));
  return s ? s : "";
}

qn_status qn_model_planes(const qn_model *m, const qn_tensor *t, int64_t slice, qn_planes **out) {
  *out = NULL;
  (void)m;
  if (!t->format) return qn__fail(QN_E_SHAPE, "%s: %s", t->name, t->refusal ? t->refusal : "not a matrix");
  if (slice < 0 || slice >= t->slices)
    return qn__fail(QN_E_ARG, "%s: slice %lld of %lld", t->name, (long long)slice, (long long)t->slices);
  const qn__weight *w = (const qn__weight *)t; /* pub is its first member */
  return w->dialect->read(w, slice, out);
}

void qn_planes_free(qn_planes *p) { free(p); }

const qn_plane *qn_planes_find(const qn_planes *p, const char *name) {
  for (int i = 0; i < p->n_planes; i++)
    if (!strcmp(p->plane[i].name, name)) return &p->plane[i];
  return NULL;
}
