/* model.c - open a checkpoint: find its files, map them, read their headers, claim its weights.
 *
 *     a directory      the shards that model.safetensors.index.json names; else model.safetensors; else every
 *                      .safetensors; else the one model of .gguf files
 *     x.safetensors    that file, and config.json beside it
 *                      of either, header.gguf beside it if it was made of a GGUF
 *     x.gguf           that file, or with -00001-of-00003 in its name all parts */
#include "model.h"
#include "pull.h"
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

/* What people take for a checkpoint, by its first bytes. */
static qn_status check_magic(const qn__map *f) {
  static const struct {
    const char *magic, *what;
  } known[] = {
      {"version https://git-lfs", "a git-lfs pointer: the file itself was not downloaded (git lfs pull)"},
      {"PK\3\4", "a zip archive, as PyTorch writes: convert it to safetensors"},
      {"\x80\2\x8a\n", "a pickle, as PyTorch writes: convert it to safetensors"},
      {"\x89HDF", "an HDF5 file, as Keras writes: convert it to safetensors"},
      {"<!DOCTYPE", "a web page: the download failed"},
      {"<html", "a web page: the download failed"},
      {"tjgg", "ggml's format before GGUF: convert it"},
      {"fmgg", "ggml's format before GGUF: convert it"},
      {"lmgg", "ggml's format before GGUF: convert it"},
  };
  for (size_t i = 0; i < QN_COUNT(known); i++) {
    size_t n = strlen(known[i].magic);
    if (f->bytes >= n && !memcmp(f->data, known[i].magic, n))
      return qn__fail(QN_E_FORMAT, "%s: %s", f->path, known[i].what);
  }
  return QN_OK;
}

static qn_status add_file(qn_model *m, const char *path) {
  qn__map *grown = realloc(m->file, (size_t)(m->n_files + 1) * sizeof *grown);
  if (!grown) return qn__fail(QN_E_NOMEM, "%s", path);
  m->file = grown;
  QN_TRY(qn__map_open(path, &m->file[m->n_files]));
  qn__map *f = &m->file[m->n_files++];
  bool gguf = f->bytes >= 4 && !memcmp(f->data, "GGUF", 4);
  QN_TRY(check_magic(f));
  if (m->n_files > 1 && gguf != m->gguf)
    return qn__fail(QN_E_FORMAT, "%s: another container than the part before", path);
  m->gguf = gguf;
  return gguf ? qn__gguf_read(m, f) : qn__safetensors_read(m, f);
}

/* The file that a stored tensor lies in. */
static const char *file_of(const qn_model *m, const qn_raw *r) {
  for (int i = 0; i < m->n_files; i++) {
    const uint8_t *data = r->data, *from = m->file[i].data;
    if (data >= from && data <= from + m->file[i].bytes) return m->file[i].path;
  }
  return "";
}

static qn_status join(char out[PATH_MAX], const char *dir, const char *name) {
  if (snprintf(out, PATH_MAX, "%s%s%s", dir, *dir ? "/" : "", name) >= PATH_MAX)
    return qn__fail(QN_E_ARG, "%s/%s: the path is longer than %d", dir, name, PATH_MAX);
  return QN_OK;
}

/* ---- Configuration ----------------------------------------------------------------------------------------------- */

/* Python writes NaN and Infinity, which are no JSON: they become "", which is no number either. */
static void replace_infinities(char *text) {
  static const char *const words[] = {"NaN", "-Infinity", "Infinity"};
  bool quoted = false;
  for (char *p = text; *p; p++) {
    if (*p == '"') quoted = !quoted;
    else if (quoted && *p == '\\' && p[1]) p++;
    for (size_t i = 0; !quoted && i < QN_COUNT(words); i++) {
      size_t n = strlen(words[i]);
      if (strncmp(p, words[i], n)) continue;
      memset(p, ' ', n);
      p[0] = p[1] = '"';
      p += n - 1;
      break;
    }
  }
}

static qn_status parse_config(const qn__map *f, cJSON **out) {
  if (f->bytes > CONFIG_MAX)
    return qn__fail(QN_E_FORMAT, "%s: %zu bytes, the limit is %d", f->path, f->bytes, CONFIG_MAX);
  char *text = strndup((const char *)f->data, f->bytes);
  if (!text) return qn__fail(QN_E_NOMEM, "%s", f->path);
  replace_infinities(text);
  const char *end = text;
  errno = 0; /* which tells a lack of memory from a fault of the text */
  *out = cJSON_ParseWithOpts(text, &end, true);
  qn_status s = *out              ? QN_OK
                : errno == ENOMEM ? qn__fail(QN_E_NOMEM, "%s", f->path)
                                  : qn__fail(QN_E_FORMAT, "%s: byte %td: this is not JSON", f->path, end - text);
  free(text);
  return s || cJSON_IsObject(*out) ? s : qn__fail(QN_E_FORMAT, "%s: not a JSON object", f->path);
}

/* The parts of a configuration that speak of the language model, however deep they lie. */
static void find_parts(qn_model *m, const cJSON *part) {
  static const char *const names[] = {"text_config", "llm_config", "language_config", "lm_config", "thinker_config"};
  if (!cJSON_IsObject(part) || m->n_configs == QN__CONFIGS) return;
  m->config_part[m->n_configs++] = part;
  for (size_t i = 0; i < QN_COUNT(names); i++) find_parts(m, qn__member(part, names[i]));
}

const cJSON *qn__config_value(const qn_model *m, const char *key) {
  const cJSON *v = NULL;
  for (int i = 0; !v && i < m->n_configs; i++) v = qn__member(m->config_part[i], key);
  return v;
}

bool qn__architecture_is(const qn_model *m, const char *name) {
  for (int i = 0; i < m->n_configs; i++) {
    const cJSON *v = qn__member(m->config_part[i], "model_type");
    if (cJSON_IsString(v) && !strcmp(v->valuestring, name)) return true;
  }
  return false;
}

/* The object at the first of these keys that holds one. */
static cJSON *first_object(const qn_model *m, const char *const *keys, size_t n) {
  for (size_t i = 0; i < n; i++) {
    const cJSON *v = qn__config_value(m, keys[i]);
    if (cJSON_IsObject(v)) return (cJSON *)(uintptr_t)v;
  }
  return NULL;
}

/* How the model is quantized: config.json says it, else a file of its own beside it, ModelOpt's one level down. */
static qn_status read_config(qn_model *m, const char *dir) {
  static const char *const keys[] = {"quantization_config", "compression_config", "quantization"},
                           *const alone[] = {"quantize_config.json", "quant_config.json", "hf_quant_config.json"};
  char path[PATH_MAX];
  QN_TRY(join(path, dir, "config.json"));
  if (qn__file_exists(path)) {
    QN_TRY(qn__map_open(path, &m->config));
    QN_TRY(parse_config(&m->config, &m->json));
    find_parts(m, m->json);
    m->quant = first_object(m, keys, QN_COUNT(keys));
  }
  for (size_t i = 0; !m->quant && i < QN_COUNT(alone); i++) {
    QN_TRY(join(path, dir, alone[i]));
    if (!qn__file_exists(path)) continue;
    qn__map f;
    QN_TRY(qn__map_open(path, &f));
    qn_status s = parse_config(&f, &m->own);
    qn__map_close(&f);
    QN_TRY(s);
    cJSON *inner = cJSON_GetObjectItemCaseSensitive(m->own, "quantization");
    m->quant = cJSON_IsObject(inner) ? inner : m->own;
  }
  return QN_OK;
}

int64_t qn__quant_int(const qn_model *m, const char *key, int64_t fallback) {
  return qn__value_int(qn__member(m->quant, key), fallback);
}

const char *qn__quant_text(const qn_model *m, const char *key) {
  const cJSON *v = qn__member(m->quant, key);
  return cJSON_IsString(v) ? v->valuestring : "";
}

static const char *const quant_names[] = {"quant_method", "quant_algo", "format"};

const char *qn__quant_name(const qn_model *m) {
  const char *name = "";
  for (size_t i = 0; !*name && i < QN_COUNT(quant_names); i++) name = qn__quant_text(m, quant_names[i]);
  return name;
}

bool qn__quant_is(const qn_model *m, const char *name) {
  for (size_t i = 0; i < QN_COUNT(quant_names); i++)
    if (!strcmp(qn__quant_text(m, quant_names[i]), name)) return true;
  return false;
}

/* ---- Sharded safetensors ----------------------------------------------------------------------------------------- */

static bool plain_name(const char *s) { return *s && *s != '.' && !strchr(s, '/'); } /* stays inside the directory */

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

typedef struct files {
  const char *where; /* the index or folder that names them, for messages */
  char **name;       /* sorted, each once */
  size_t count;
} files;

/* The first of the names that is not before this one. */
static size_t place_of(const files *s, const char *name) {
  size_t low = 0, high = s->count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (strcmp(s->name[middle], name) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

static qn_status add_name(void *arg, const char *tensor, const char *file) {
  files *s = arg;
  size_t at = place_of(s, file);
  if (at < s->count && !strcmp(s->name[at], file)) return QN_OK;
  if (!plain_name(file)) return qn__fail(QN_E_FORMAT, "%s: %s: \"%s\" is not a file beside it", s->where, tensor, file);
  if (s->count == PARTS_MAX) return qn__fail(QN_E_LIMIT, "%s: more than %d files", s->where, PARTS_MAX);
  char **grown = realloc(s->name, (s->count + 1) * sizeof *grown);
  if (grown) s->name = grown;
  char *copy = grown ? strdup(file) : NULL;
  if (!copy) return qn__fail(QN_E_NOMEM, "%s", s->where);
  memmove(s->name + at + 1, s->name + at, (s->count++ - at) * sizeof *s->name);
  s->name[at] = copy;
  return QN_OK;
}

static void files_fini(files *s) {
  for (size_t i = 0; i < s->count; i++) free(s->name[i]);
  free(s->name);
}

/* The files of a folder that end so. The caller ends the list, also after a failure. */
static qn_status list_files(const char *dir, const char *tail, files *out) {
  *out = (files){.where = dir};
  qn_status s = QN_OK;
  DIR *d = opendir(dir);
  if (!d) return qn__fail(qn__errno_status(errno), "%s: %s", dir, strerror(errno));
  for (struct dirent *e; !s && (e = readdir(d));)
    if (plain_name(e->d_name) && qn__ends_with(e->d_name, tail)) s = add_name(out, dir, e->d_name);
  closedir(d);
  return s;
}

/* "a, b and 3 more" */
static const char *some_names(const files *s, char out[512]) {
  enum { SHOWN = 6 };
  size_t at = 0;
  *out = 0;
  for (size_t i = 0; i < s->count && i < SHOWN && at < 400; i++)
    at += (size_t)snprintf(out + at, 512 - at, "%s%.80s", i ? ", " : "", s->name[i]);
  if (s->count > SHOWN) snprintf(out + at, 512 - at, " and %zu more", s->count - SHOWN);
  return out;
}

static qn_status add_files(qn_model *m, const char *dir, const files *s) {
  for (size_t i = 0; i < s->count; i++) {
    char path[PATH_MAX];
    QN_TRY(join(path, dir, s->name[i]));
    QN_TRY(add_file(m, path));
  }
  return QN_OK;
}

static qn_status index_names(qn_model *m) {
  const char *twice;
  QN_TRY(qn__names_init(&m->stored_names, m->stored, m->n_stored, sizeof *m->stored, &twice));
  if (!twice) return QN_OK;
  const char *file[2] = {"", ""};
  for (size_t i = 0, n = 0; i < m->n_stored && n < 2; i++)
    if (!strcmp(m->stored[i].pub.name, twice)) file[n++] = file_of(m, &m->stored[i].pub);
  if (!strcmp(file[0], file[1])) return qn__fail(QN_E_FORMAT, "%s: tensor %s occurs twice", file[0], twice);
  return qn__fail(QN_E_FORMAT, "tensor %s occurs twice, in %s and %s: several models in a folder? name one file", twice,
                  file[0], file[1]);
}

typedef struct absent {
  qn_model *m;
  size_t count;
  char first[128];
} absent;

static qn_status check_present(void *arg, const char *tensor, const char *file) {
  absent *a = arg;
  (void)file;
  if (qn__names_find(&a->m->stored_names, tensor)) return QN_OK;
  if (!a->count++) snprintf(a->first, sizeof a->first, "%s", tensor);
  return QN_OK;
}

/* Of "x-00001-of-00003.gguf" the length of "x" and the number of parts, of "x.gguf" that of "x" and 0; tail:
 * ".gguf". */
static size_t stem_of(const char *path, const char *tail, unsigned *parts) {
  size_t n = strlen(path) - strlen(tail), part = strlen("-00001-of-00001");
  unsigned i;
  if (n > part && sscanf(path + n - part, "-%5u-of-%5u.", &i, parts) == 2 && *parts && *parts <= PARTS_MAX)
    return n - part;
  *parts = 0;
  return n;
}

/* Files that are parts by their names must be all of them. */
static qn_status check_parts(const files *s, const char *tail) {
  char names[512];
  for (size_t i = 0, end; i < s->count; i = end) {
    unsigned parts, others;
    size_t stem = stem_of(s->name[i], tail, &parts);
    for (end = i + 1; end < s->count; end++)
      if (stem_of(s->name[end], tail, &others) != stem || others != parts || strncmp(s->name[i], s->name[end], stem))
        break;
    if (parts && end - i != parts)
      return qn__fail(QN_E_IO, "%s: %zu of the %u parts of %.*s: there is %s; complete the download, or name one file",
                      s->where, end - i, parts, (int)stem, s->name[i], some_names(s, names));
  }
  return QN_OK;
}

/* Files that an index names must be there; a tensor that is in none of them is remarked upon. */
static qn_status check_files(const char *dir, const files *s) {
  char path[PATH_MAX], names[512];
  files there;
  for (size_t i = 0; i < s->count; i++) {
    QN_TRY(join(path, dir, s->name[i]));
    if (qn__file_exists(path)) continue;
    qn_status st = list_files(dir, ".safetensors", &there);
    if (!st)
      st = qn__fail(QN_E_IO, "%s names %s, which is not there%s%s; %s", s->where, s->name[i],
                    there.count ? "; there is " : "", some_names(&there, names),
                    there.count ? "complete the download, or remove the index to read what there is"
                                : "complete the download");
    files_fini(&there);
    return st;
  }
  return QN_OK;
}

static qn_status open_index(qn_model *m, const char *dir, const char *index) {
  qn__map f;
  files s = {.where = index};
  absent missing = {.m = m};
  QN_TRY(qn__map_open(index, &f));
  qn_status st = f.bytes <= INDEX_MAX
                     ? walk_index(&f, add_name, &s)
                     : qn__fail(QN_E_FORMAT, "%s: %zu bytes, the limit is %d", index, f.bytes, INDEX_MAX);
  if (!st && !s.count) st = qn__fail(QN_E_FORMAT, "%s: names no tensor", index);
  if (!st) st = check_files(dir, &s);
  if (!st) st = add_files(m, dir, &s);
  if (!st) st = index_names(m);
  if (!st) st = walk_index(&f, check_present, &missing);
  if (!st && missing.count &&
      !(m->remark = qn__arena_print(&m->arena, "%s lists what its files do not hold: %s%s", index, missing.first,
                                    missing.count > 1 ? " and more" : "")))
    st = qn__fail(QN_E_NOMEM, "%s", index);
  qn__map_close(&f);
  files_fini(&s);
  return st;
}

/* ---- GGUF, whole or in parts ------------------------------------------------------------------------------------- */

static uint64_t meta_or(const qn_model *m, const char *key, uint64_t fallback) {
  const qn_meta *v = qn_model_find_meta(m, key);
  return v && v->type != QN_META_STRING && v->type != QN_META_ARRAY ? v->bits : fallback;
}

static qn_status open_gguf(qn_model *m, const char *path) {
  unsigned parts;
  size_t stem = stem_of(path, ".gguf", &parts);
  if (!parts) {
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

/* The GGUF files of a folder must be the parts of one model. */
static qn_status open_one_gguf(qn_model *m, const char *dir, const files *s) {
  unsigned parts, others;
  char path[PATH_MAX], names[512];
  size_t stem = stem_of(s->name[0], ".gguf", &parts);
  for (size_t i = 1; i < s->count; i++)
    if (stem_of(s->name[i], ".gguf", &others) != stem || others != parts || strncmp(s->name[0], s->name[i], stem))
      return qn__fail(QN_E_ARG, "%s: several models; name one of %s", dir, some_names(s, names));
  QN_TRY(join(path, dir, s->name[0]));
  return open_gguf(m, path);
}

/* ---- Directories ------------------------------------------------------------------------------------------------- */

/* No checkpoint that is read. Is there one that is not? */
static qn_status nothing_there(const char *dir) {
  static const char *const tails[] = {".bin", ".pt", ".pth", ".ckpt", ".h5"};
  qn_status st = QN_OK;
  for (size_t i = 0; !st && i < QN_COUNT(tails); i++) {
    files s;
    char names[512];
    st = list_files(dir, tails[i], &s);
    if (!st && s.count)
      st = qn__fail(QN_E_IO, "%s: holds no .safetensors and no .gguf file; convert %s to safetensors", dir,
                    some_names(&s, names));
    files_fini(&s);
  }
  return st ? st : qn__fail(QN_E_IO, "%s: holds no .safetensors and no .gguf file", dir);
}

static qn_status open_dir(qn_model *m, const char *dir) {
  char path[PATH_MAX];
  files s;
  QN_TRY(read_config(m, dir));
  QN_TRY(join(path, dir, "model.safetensors.index.json"));
  if (qn__file_exists(path)) return open_index(m, dir, path);
  QN_TRY(join(path, dir, "model.safetensors"));
  if (qn__file_exists(path)) return add_file(m, path);
  qn_status st = list_files(dir, ".safetensors", &s);
  if (!st) st = check_parts(&s, ".safetensors");
  if (!st) st = add_files(m, dir, &s);
  files_fini(&s);
  if (st || m->n_files) return st;
  st = list_files(dir, ".gguf", &s);
  if (!st && s.count) st = open_one_gguf(m, dir, &s);
  files_fini(&s);
  return st || m->n_files ? st : nothing_there(dir);
}

static qn_status open_file(qn_model *m, const char *path) {
  if (qn__ends_with(path, ".gguf")) return open_gguf(m, path);
  if (qn__ends_with(path, ".json"))
    return qn__fail(QN_E_FORMAT, "%s: holds no weights; name the folder it lies in", path);
  const char *slash = strrchr(path, '/');
  char dir[PATH_MAX];
  if (snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".") >= (int)sizeof dir)
    return qn__fail(QN_E_ARG, "%s: the path is too long", path);
  QN_TRY(read_config(m, slash == path ? "/" : dir));
  return add_file(m, path);
}

/* Weights that were made of a GGUF have its header beside them, a GGUF without tensors. */
static qn_status read_header(qn_model *m) {
  const char *file = m->file[0].path, *slash = strrchr(file, '/');
  char path[PATH_MAX];
  if (snprintf(path, sizeof path, "%.*sheader.gguf", slash ? (int)(slash - file) + 1 : 0, file) >= (int)sizeof path)
    return qn__fail(QN_E_ARG, "%s: the path is too long", file);
  if (!qn__file_exists(path)) return QN_OK;
  m->header = calloc(1, sizeof *m->header);
  if (!m->header) return qn__fail(QN_E_NOMEM, "%s", path);
  QN_TRY(add_file(m->header, path));
  return m->header->gguf ? QN_OK : qn__fail(QN_E_FORMAT, "%s: not a GGUF file", path);
}

/* ---- Public ------------------------------------------------------------------------------------------------------ */

qn_status qn_model_open(const char *path, qn_model **out) {
  if (!out) return qn__fail(QN_E_ARG, "qn_model_open: out is NULL");
  *out = NULL;
  if (!path || !*path) return qn__fail(QN_E_ARG, "qn_model_open: no path");
  struct stat st;
  if (stat(path, &st)) return qn__fail(qn__errno_status(errno), "%s: %s", path, strerror(errno));
  qn_model *m = calloc(1, sizeof *m);
  if (!m) return qn__fail(QN_E_NOMEM, "%s", path);
  qn_status s = S_ISDIR(st.st_mode) ? open_dir(m, path) : open_file(m, path);
  const char *twice;
  if (!s && !m->gguf) s = read_header(m);
  if (!s && !m->stored_names.slot) s = index_names(m);
  if (!s && !m->gguf) s = qn__names_init(&m->meta_names, m->meta, m->n_meta, sizeof *m->meta, &twice);
  if (!s) s = qn__model_claim(m);
  if (!s) s = qn__model_stacks(m);
  if (!s) s = qn__names_init(&m->weight_names, m->weight, m->n_weights, sizeof *m->weight, &twice);
  for (size_t i = 0; !s && i < m->n_weights; i++) qn__find_same_x(m, &m->weight[i].pub);
  if (s) qn_model_close(m);
  else *out = m;
  return s;
}

void qn_model_release(const qn_model *m) {
  for (int i = 0; m && i < m->n_files; i++) qn__map_release(&m->file[i]);
}

void qn_model_close(qn_model *m) {
  if (!m) return;
  qn_model_close(m->header);
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

const qn_tensor *qn_model_tensor(const qn_model *m, size_t i) {
  return m && i < m->n_weights ? &m->weight[i].pub : NULL;
}
const qn_tensor *qn_model_find(const qn_model *m, const char *name) {
  return m ? qn__names_find(&m->weight_names, name) : NULL;
}
const qn_raw *qn_model_raw(const qn_model *m, size_t i) { return m && i < m->n_stored ? &m->stored[i].pub : NULL; }
const qn_raw *qn_model_find_raw(const qn_model *m, const char *name) {
  return m ? qn__names_find(&m->stored_names, name) : NULL;
}
const qn_meta *qn_model_meta(const qn_model *m, size_t i) { return m && i < m->n_meta ? &m->meta[i] : NULL; }
const qn_meta *qn_model_find_meta(const qn_model *m, const char *key) {
  return m ? qn__names_find(&m->meta_names, key) : NULL;
}

const char *qn_model_remark(const qn_model *m) { return m ? m->remark : NULL; }

const char *qn_model_config(const qn_model *m, size_t *length) {
  if (length) *length = m ? m->config.bytes : 0;
  if (!m || !length) return NULL;
  return (const char *)m->config.data;
}

double qn_tensor_bpw(const qn_tensor *t) {
  double weights = t ? (double)t->slices * (double)t->n * (double)t->k : 0;
  return weights > 0 ? 8 * (double)t->bytes / weights : 0;
}
