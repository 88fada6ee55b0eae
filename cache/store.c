/* store.c - one file per entry under the hash of the environment; see store.h for the rules.
 *
 * An entry's file is named by the hash of its key; the file repeats the key, the schema and a checksum of the value, so
 * that a torn, foreign or damaged file is recognised and counts as a miss. Layers are read user first, then the
 * system's, then what ships with the project; only the user's is written. */
#include "store.h"
#include "fail.h"
#include "hash.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { schema = 1, max_layers = 3 };

struct qn_store {
  char layer[max_layers][PATH_MAX]; /* ROOT/ENV of each, the user's first */
  int n_layers;
};

void qn_hash_hex(const void *data, size_t size, char out[33]) {
  uint8_t hash[QN_HASH_BYTES];
  qn__hash128(data, size, hash);
  qn__hash_text(hash, out);
}

const char *qn_store_path(const qn_store *s) { return s->layer[0]; }
void qn_store_close(qn_store *s) { free(s); }

/* ---- Files ----------------------------------------------------------------------------------------------------------
 */

static qn_status make_folders(const char *path) {
  char p[PATH_MAX];
  snprintf(p, sizeof p, "%s", path);
  for (char *c = p + 1;; c++) {
    if (*c && *c != '/') continue;
    char keep = *c;
    *c = 0;
    if (mkdir(p, 0777) && errno != EEXIST) return qn__fail(QN_E_IO, "store: cannot make %s: %s", p, strerror(errno));
    if (!(*c = keep)) return QN_OK;
  }
}

static qn_status write_all(int fd, const void *data, size_t size) {
  const char *p = data;
  while (size) {
    ssize_t n = write(fd, p, size);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return QN_E_IO;
    p += n, size -= (size_t)n;
  }
  return fsync(fd) ? QN_E_IO : QN_OK;
}

/* Write a file whole or not at all: temporary name, fsync, rename, fsync of the folder. */
static qn_status write_file(const char *folder, const char *name, const void *data, size_t size) {
  char path[PATH_MAX], temporary[PATH_MAX];
  QN_TRY(make_folders(folder));
  if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) >= sizeof path ||
      (size_t)snprintf(temporary, sizeof temporary, "%s/.%s.XXXXXX", folder, name) >= sizeof temporary)
    return qn__fail(QN_E_IO, "store: path too long: %s/%s", folder, name);
  int fd = mkstemp(temporary);
  if (fd < 0) return qn__fail(QN_E_IO, "store: %s: %s", temporary, strerror(errno));
  fchmod(fd, 0644);
  qn_status s = write_all(fd, data, size);
  if (s == QN_OK && rename(temporary, path)) s = QN_E_IO;
  if (s != QN_OK) {
    qn__fail(s, "store: cannot write %s (%zu bytes): %s", path, size, strerror(errno));
    unlink(temporary);
  }
  close(fd);
  int dir = s == QN_OK ? open(folder, O_RDONLY | O_DIRECTORY) : -1;
  if (dir >= 0) fsync(dir), close(dir);
  return s;
}

/* The whole file, terminated; NULL if it cannot be read. */
static char *read_file(const char *path, size_t *size) {
  FILE *f = fopen(path, "rb");
  if (!f) return NULL;
  struct stat st;
  char *data = !fstat(fileno(f), &st) && S_ISREG(st.st_mode) ? malloc((size_t)st.st_size + 1) : NULL;
  if (data) {
    *size = fread(data, 1, (size_t)st.st_size, f);
    data[*size] = 0;
  }
  fclose(f);
  return data;
}

/* ---- Environment ----------------------------------------------------------------------------------------------------
 */

static cJSON *environment(const qn_device_info *d, const char *compiler, const char *policy) {
  cJSON *e = cJSON_CreateObject();
  cJSON_AddNumberToObject(e, "schema", schema);
  cJSON_AddStringToObject(e, "target", d->target);
  cJSON_AddStringToObject(e, "arch", d->arch);
  cJSON_AddStringToObject(e, "compiler", compiler);
  cJSON_AddStringToObject(e, "policy", policy);
  cJSON_AddNumberToObject(e, "threads", d->threads);
  cJSON_AddNumberToObject(e, "sms", d->sms);
  cJSON_AddNumberToObject(e, "smem", (double)d->smem);
  cJSON *cache = cJSON_AddArrayToObject(e, "cache");
  for (int i = 0; i < 3; i++) cJSON_AddItemToArray(cache, cJSON_CreateNumber((double)d->cache[i]));
  if (!strcmp(d->target, "host"))
    cJSON_AddStringToObject(e, "cpu", d->product); /* a host's model is its micro-architecture */
  return e;
}

static void add_layer(qn_store *s, const char *root, const char *env) {
  if (root && *root && s->n_layers < max_layers)
    snprintf(s->layer[s->n_layers++], PATH_MAX, "%.*s/%s", PATH_MAX - 40, root, env);
}

static void user_root(const char *asked, char out[PATH_MAX]) {
  const char *own = getenv("QUERNEL_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  if (asked && *asked) snprintf(out, PATH_MAX, "%s", asked);
  else if (own && *own) snprintf(out, PATH_MAX, "%s", own);
  else if (xdg && *xdg) snprintf(out, PATH_MAX, "%s/quernel", xdg);
  else snprintf(out, PATH_MAX, "%s/.cache/quernel", home && *home ? home : "/tmp");
}

qn_status qn_store_open(const char *root, const qn_device_info *device, const char *compiler, const char *policy,
                        qn_store **out) {
  *out = NULL;
  char user[PATH_MAX], hash[33];
  cJSON *e = environment(device, compiler, policy);
  char *text = cJSON_Print(e);
  qn_store *s = calloc(1, sizeof *s);
  cJSON_Delete(e);
  qn_status status = text && s ? QN_OK : qn__fail(QN_E_NOMEM, "no memory for the store");
  if (status == QN_OK) {
    qn_hash_hex(text, strlen(text), hash);
    user_root(root, user);
    add_layer(s, user, hash);
    add_layer(s, getenv("QUERNEL_CACHE_SYSTEM"), hash);
#ifdef QN_STORE_BUNDLED
    add_layer(s, QN_STORE_BUNDLED, hash);
#endif
    status = write_file(s->layer[0], "env.json", text, strlen(text));
  }
  cJSON_free(text);
  if (status == QN_OK) *out = s;
  else free(s);
  return status;
}

/* ---- JSON entries
 * ---------------------------------------------------------------------------------------------------- */

/* The value of an entry's file if it is whole and, with `key`, the entry that was asked for. */
static cJSON *open_entry(const char *path, const char *key, char **found_key) {
  size_t size;
  char *text = read_file(path, &size), sum[33];
  cJSON *entry = text ? cJSON_Parse(text) : NULL, *value = NULL;
  free(text);
  const char *k = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(entry, "key"));
  const char *check = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(entry, "sum"));
  const cJSON *version = cJSON_GetObjectItemCaseSensitive(entry, "schema");
  cJSON *v = cJSON_GetObjectItemCaseSensitive(entry, "value");
  if (k && check && v && cJSON_IsNumber(version) && version->valueint == schema && (!key || !strcmp(k, key))) {
    char *plain = cJSON_PrintUnformatted(v);
    if (plain) qn_hash_hex(plain, strlen(plain), sum);
    if (plain && !strcmp(sum, check)) {
      value = cJSON_DetachItemViaPointer(entry, v);
      if (found_key) *found_key = strdup(k);
    }
    cJSON_free(plain);
  }
  cJSON_Delete(entry);
  return value;
}

cJSON *qn_store_get(qn_store *s, const char *kind, const char *key) {
  char hash[33], path[PATH_MAX + 80];
  qn_hash_hex(key, strlen(key), hash);
  for (int i = 0; i < s->n_layers; i++) {
    snprintf(path, sizeof path, "%s/%s/%s.json", s->layer[i], kind, hash);
    cJSON *value = open_entry(path, key, NULL);
    if (value) return value;
  }
  return NULL;
}

qn_status qn_store_put(qn_store *s, const char *kind, const char *key, const cJSON *value) {
  char hash[33], sum[33], name[48], folder[PATH_MAX + 40];
  char *plain = cJSON_PrintUnformatted(value);
  cJSON *parsed = plain ? cJSON_Parse(plain) : NULL; /* numbers as a reader will see them */
  cJSON_free(plain);
  plain = parsed ? cJSON_PrintUnformatted(parsed) : NULL;
  cJSON *entry = cJSON_CreateObject();
  if (!plain || !entry) {
    cJSON_free(plain);
    cJSON_Delete(parsed);
    cJSON_Delete(entry);
    return qn__fail(QN_E_NOMEM, "no memory for the entry %s", key);
  }
  qn_hash_hex(plain, strlen(plain), sum);
  qn_hash_hex(key, strlen(key), hash);
  cJSON_free(plain);
  cJSON_AddNumberToObject(entry, "schema", schema);
  cJSON_AddStringToObject(entry, "key", key);
  cJSON_AddStringToObject(entry, "sum", sum);
  cJSON_AddItemToObject(entry, "value", parsed);
  char *text = cJSON_Print(entry);
  cJSON_Delete(entry);
  if (!text) return qn__fail(QN_E_NOMEM, "no memory for the entry %s", key);
  snprintf(folder, sizeof folder, "%s/%s", s->layer[0], kind);
  snprintf(name, sizeof name, "%s.json", hash);
  qn_status status = write_file(folder, name, text, strlen(text));
  cJSON_free(text);
  return status;
}

qn_status qn_store_each(qn_store *s, const char *kind, int (*each)(void *ud, const char *key, const cJSON *value),
                        void *ud) {
  for (int i = 0, stop = 0; i < s->n_layers && !stop; i++) {
    char folder[PATH_MAX + 40], path[PATH_MAX + 320], upper[PATH_MAX + 320];
    snprintf(folder, sizeof folder, "%s/%s", s->layer[i], kind);
    DIR *d = opendir(folder);
    struct dirent *f;
    while (d && !stop && (f = readdir(d))) {
      if (f->d_name[0] == '.') continue;
      int shadowed = 0;
      for (int j = 0; j < i && !shadowed; j++) {
        snprintf(upper, sizeof upper, "%s/%s/%s", s->layer[j], kind, f->d_name);
        shadowed = access(upper, R_OK) == 0;
      }
      snprintf(path, sizeof path, "%s/%s", folder, f->d_name);
      char *key = NULL;
      cJSON *value = shadowed ? NULL : open_entry(path, NULL, &key);
      if (value && key) stop = each(ud, key, value);
      cJSON_Delete(value);
      free(key);
    }
    if (d) closedir(d);
  }
  return QN_OK;
}

/* ---- Artifacts
 * ------------------------------------------------------------------------------------------------------- */

static const cJSON *item(const cJSON *j, const char *key) { return cJSON_GetObjectItemCaseSensitive(j, key); }
static int integer(const cJSON *j, const char *key) {
  return cJSON_IsNumber(item(j, key)) ? item(j, key)->valueint : 0;
}

bool qn_store_artifact_get(qn_store *s, const char *hash, qn_status *status, qn_artifact *out, char *why,
                           size_t whylen) {
  *out = (qn_artifact){0};
  cJSON *j = qn_store_get(s, "artifact", hash);
  const char *image = cJSON_GetStringValue(item(j, "image")), *reason = cJSON_GetStringValue(item(j, "why"));
  if (!j || !reason) {
    cJSON_Delete(j);
    return false;
  }
  *status = (qn_status)integer(j, "status");
  snprintf(why, whylen, "%s", reason);
  bool found = *status != QN_OK; /* a failure has no image */
  for (int i = 0; i < s->n_layers && !found && image; i++) {
    char path[PATH_MAX + 80], sum[33];
    snprintf(path, sizeof path, "%s/artifact/%.40s.bin", s->layer[i], image);
    out->image = (unsigned char *)read_file(path, &out->size);
    if (out->image) qn_hash_hex(out->image, out->size, sum);
    found = out->image && !strcmp(sum, image);
    if (!found) free(out->image), out->image = NULL;
  }
  if (found && image) {
    snprintf(out->hash, sizeof out->hash, "%s", image);
    out->registers = integer(j, "registers");
    out->shared = integer(j, "shared");
    out->spills = integer(j, "spills");
    out->seconds = cJSON_IsNumber(item(j, "seconds")) ? item(j, "seconds")->valuedouble : 0;
  }
  cJSON_Delete(j);
  return found;
}

qn_status qn_store_artifact_put(qn_store *s, const char *hash, qn_status status, const char *why,
                                const qn_artifact *a) {
  char folder[PATH_MAX + 40], name[48];
  if (status == QN_OK) {
    snprintf(folder, sizeof folder, "%s/artifact", s->layer[0]);
    snprintf(name, sizeof name, "%s.bin", a->hash);
    QN_TRY(write_file(folder, name, a->image, a->size));
  }
  cJSON *j = cJSON_CreateObject();
  cJSON_AddNumberToObject(j, "status", status);
  cJSON_AddStringToObject(j, "why", why ? why : "");
  if (status == QN_OK) {
    cJSON_AddStringToObject(j, "image", a->hash);
    cJSON_AddNumberToObject(j, "size", (double)a->size);
    cJSON_AddNumberToObject(j, "registers", a->registers);
    cJSON_AddNumberToObject(j, "shared", a->shared);
    cJSON_AddNumberToObject(j, "spills", a->spills);
    cJSON_AddNumberToObject(j, "seconds", a->seconds);
  }
  qn_status result = qn_store_put(s, "artifact", hash, j);
  cJSON_Delete(j);
  return result;
}
