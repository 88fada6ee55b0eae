/* store.c - one file per entry under the hash of the environment; see store.h for the rules.
 *
 * An entry's file is named by the hash of its key; the file repeats the key, the schema and a checksum of the value, so
 * that a torn, foreign or damaged file is recognised and counts as a miss. Layers are read user first, then the
 * system's, then what ships with the project; only the user's is written. */
#include "store.h"
#include "fail.h"
#include "file.h"
#include "hash.h"
#include "json.h"
#include "store_file.h"
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { max_layers = 3, room_for_names = 120 };

struct qn_store {
  char layer[max_layers][PATH_MAX]; /* ROOT/ENV of each, the user's first */
  int n_layers;
};

const char *qn__store_path(const qn_store *s) { return s->layer[0]; }
void qn__store_close(qn_store *s) { free(s); }

/* ---- Environment ------------------------------------------------------------------------------------------------- */

/* What two runs must share for the timings of one to serve the other. A GPU's product name and driver are not in it:
 * the same chip is sold under several names. Nor is what nobody can be asked for: the speed of a host's memory, the
 * neighbours of a virtual machine, which CPUs a process is bound to. Machines that differ in that need stores of their
 * own. */
static cJSON *environment(const qn_device_info *d, const char *compiler, const char *policy) {
  cJSON *e = cJSON_CreateObject();
  qn__json_add_number(e, "schema", QN_STORE_SCHEMA);
  qn__json_add_text(e, "target", d->target);
  qn__json_add_text(e, "arch", d->arch);
  qn__json_add_text(e, "model", d->model);
  qn__json_add_text(e, "compiler", compiler);
  qn__json_add_text(e, "policy", policy);
  qn__json_add_number(e, "threads", d->threads);
  qn__json_add_number(e, "sms", d->sms);
  qn__json_add_number(e, "smem", (double)d->smem);
  qn__json_add_number(e, "regs", (double)d->regs);
  cJSON *cache = qn__json_add_array(e, "cache");
  for (int i = 0; i < 3; i++) qn__json_append_number(cache, (double)d->cache[i]);
  if (qn__target(d->target)->host_code)
    qn__json_add_text(e, "cpu", d->product); /* a host's model is its micro-architecture */
  return e;
}

static bool hash_of(const cJSON *env, char hash[33]) {
  char *text = cJSON_PrintUnformatted(env);
  if (text) qn__hash_hex(text, strlen(text), hash);
  cJSON_free(text);
  return text != NULL;
}

/* What is noted beside, for people and tools. */
static void add_names(cJSON *env, const qn_device_info *d) {
  qn__json_add_text(env, "name", d->name);
  qn__json_add_text(env, "product", d->product);
  qn__json_add_text(env, "driver", d->driver);
}

cJSON *qn__store_environment(const qn_device_info *device, const char *compiler, const char *policy, char hash[33]) {
  cJSON *env = environment(device, compiler, policy);
  if (hash_of(env, hash)) add_names(env, device);
  if (qn__json_whole(env)) return env;
  cJSON_Delete(env);
  return NULL;
}

static qn_status add_layer(qn_store *s, const char *root, const char *env) {
  if (!root || !*root) return QN_OK;
  if ((size_t)snprintf(s->layer[s->n_layers++], PATH_MAX, "%s/%s", root, env) >= PATH_MAX - room_for_names)
    return qn__fail(QN_E_LIMIT, "store: path of %zu bytes is too long: %.80s...", strlen(root), root);
  return QN_OK;
}

/* Home as the password database knows it, for a process whose environment does not. */
static qn_status own_home(char *out) {
  struct passwd entry, *found = NULL;
  char text[4096];
  if (getpwuid_r(getuid(), &entry, text, sizeof text, &found) || !found || *found->pw_dir != '/')
    return qn__fail(QN_E_IO,
                    "store: HOME is not set, and the password database has no home of user %ld: "
                    "set QUERNEL_CACHE to a folder",
                    (long)getuid());
  snprintf(out, PATH_MAX, "%s", found->pw_dir);
  return QN_OK;
}

static bool absolute(const char *path) { return path && *path == '/'; } /* others do not count as a home */

qn_status qn__store_root(const char *asked, char out[PATH_MAX]) {
  const char *own = getenv("QUERNEL_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME"), *below = "";
  char known[PATH_MAX];
  if (!asked || !*asked) asked = own;
  if (!asked || !*asked) {
    asked = xdg, below = "/quernel";
    if (!absolute(asked)) asked = home, below = "/.cache/quernel";
    if (!absolute(asked)) QN_TRY(own_home(known));
    if (!absolute(asked)) asked = known;
  }
  if (snprintf(out, PATH_MAX, "%s%s", asked, below) >= PATH_MAX - room_for_names)
    return qn__fail(QN_E_LIMIT, "store: path of %zu bytes is too long: %.80s...", strlen(asked), asked);
  return QN_OK;
}

/* What a store holds is run. One that everybody may write is not taken, nor another user's that nobody asked for. */
static qn_status trust(const char *root, bool asked) {
  struct stat st;
  if (stat(root, &st)) return QN_OK; /* to be made */
  if (st.st_mode & S_IWOTH)
    return qn__fail(QN_E_IO,
                    "store: every user can write %s, and what it holds is run: chmod o-w it, or name another folder",
                    root);
  if (!asked && st.st_uid != geteuid() && st.st_uid)
    return qn__fail(QN_E_IO,
                    "store: %s is user %ld's, and what it holds is run: set QUERNEL_CACHE, to this folder if "
                    "it is meant",
                    root, (long)st.st_uid);
  return QN_OK;
}

/* The read-only store behind the user's own. */
static qn_status add_system(qn_store *s, const char *env) {
  const char *root = getenv("QUERNEL_CACHE_SYSTEM");
  if (!root || !*root) return QN_OK;
  if (access(root, R_OK | X_OK))
    return qn__fail(qn__errno_status(errno), "store: QUERNEL_CACHE_SYSTEM: %s: %s", root, strerror(errno));
  QN_TRY(trust(root, true));
  return add_layer(s, root, env);
}

/* env.json is for people and tools: it is read by no run, and written by the first. */
static qn_status record_environment(qn_store *s, const cJSON *env, const qn_device_info *d) {
  char path[PATH_MAX + 16];
  snprintf(path, sizeof path, "%s/env.json", s->layer[0]);
  if (!access(path, R_OK)) return QN_OK;
  cJSON *j = cJSON_Duplicate(env, true);
  add_names(j, d);
  char *text = cJSON_Print(j);
  qn_status status =
      text ? qn__store_write(s->layer[0], "env.json", text, strlen(text)) : qn__fail(QN_E_NOMEM, "store");
  cJSON_free(text);
  cJSON_Delete(j);
  return status;
}

static qn_status open_layers(qn_store *s, const char *root, const qn_device_info *device, const cJSON *env) {
  const char *own = getenv("QUERNEL_CACHE");
  char user[PATH_MAX], hash[33];
  if (!hash_of(env, hash)) return qn__fail(QN_E_NOMEM, "store");
  QN_TRY(qn__store_root(root, user));
  QN_TRY(trust(user, (root && *root) || (own && *own)));
  QN_TRY(add_layer(s, user, hash));
  QN_TRY(add_system(s, hash));
  QN_TRY(add_layer(s, QN_STORE_BUNDLED, hash));
  return record_environment(s, env, device);
}

qn_status qn__store_open(const char *root, const qn_device_info *device, const char *compiler, const char *policy,
                         qn_store **out) {
  cJSON *env = environment(device, compiler, policy);
  qn_store *s = calloc(1, sizeof *s);
  qn_status status = s ? open_layers(s, root, device, env) : qn__fail(QN_E_NOMEM, "store");
  cJSON_Delete(env);
  if (status != QN_OK) free(s), s = NULL;
  *out = s;
  return status;
}

/* ---- JSON entries ------------------------------------------------------------------------------------------------ */

/* A valid entry's value from the first layer that has it, of those below `layers`. */
static cJSON *find_entry(const qn_store *s, int layers, const char *kind, const char *key) {
  char name[40], path[PATH_MAX + room_for_names];
  qn__entry_name(key, name);
  for (int i = 0; i < layers; i++) {
    snprintf(path, sizeof path, "%s/%s/%s", s->layer[i], kind, name);
    cJSON *value;
    if (qn__entry_read(path, key, NULL, &value) || value) return value;
  }
  return NULL;
}

cJSON *qn__store_get(qn_store *s, const char *kind, const char *key) { return find_entry(s, s->n_layers, kind, key); }

qn_status qn__store_put(qn_store *s, const char *kind, const char *key, const cJSON *value) {
  char name[40], folder[PATH_MAX + room_for_names], *text = qn__entry_print(key, value);
  if (!text) return qn__fail(QN_E_NOMEM, "no memory for the entry %s", key);
  snprintf(folder, sizeof folder, "%s/%s", s->layer[0], kind);
  qn__entry_name(key, name);
  qn_status status = qn__store_write(folder, name, text, strlen(text));
  cJSON_free(text);
  return status;
}

/* Does no layer above `i` hold this entry? */
static bool uppermost(const qn_store *s, int i, const char *kind, const char *key) {
  cJSON *above = find_entry(s, i, kind, key);
  cJSON_Delete(above);
  return !above;
}

qn_status qn__store_each(qn_store *s, const char *kind, int (*each)(void *ud, const char *key, const cJSON *value),
                         void *ud) {
  qn_status status = QN_OK;
  for (int i = 0, stop = 0; i < s->n_layers && !stop && !status; i++) {
    char folder[PATH_MAX + room_for_names], path[PATH_MAX + room_for_names + NAME_MAX + 2];
    snprintf(folder, sizeof folder, "%s/%s", s->layer[i], kind);
    DIR *d = opendir(folder);
    if (!d && errno == ENOMEM) status = qn__fail(QN_E_NOMEM, "store: no memory for %s", folder);
    for (struct dirent *f; d && !stop && !status && (f = readdir(d));) {
      const char *suffix = strrchr(f->d_name, '.');
      if (f->d_name[0] == '.' || !suffix || strcmp(suffix, ".json")) continue;
      snprintf(path, sizeof path, "%s/%s", folder, f->d_name);
      char *key;
      cJSON *value;
      status = qn__entry_read(path, NULL, &key, &value);
      if (value && uppermost(s, i, kind, key)) stop = each(ud, key, value);
      cJSON_Delete(value);
      free(key);
    }
    if (d) closedir(d);
  }
  return status;
}

/* ---- Artifacts --------------------------------------------------------------------------------------------------- */

/* A file of the compiler's, named by its hash: whole, or not found. */
static char *read_blob(const qn_store *s, const char *hash, const char *suffix, size_t *size) {
  char path[PATH_MAX + room_for_names], sum[33];
  for (int i = 0; hash && i < s->n_layers; i++) {
    snprintf(path, sizeof path, "%s/artifact/%.32s.%s", s->layer[i], hash, suffix);
    char *data;
    qn__file_read(path, &data, size);
    if (data) qn__hash_hex(data, *size, sum);
    if (data && !strcmp(sum, hash)) return data;
    free(data);
  }
  return NULL;
}

static qn_status write_blob(const qn_store *s, const void *data, size_t size, const char *suffix, char hash[33]) {
  char folder[PATH_MAX + room_for_names], name[48];
  qn__hash_hex(data, size, hash);
  snprintf(folder, sizeof folder, "%s/artifact", s->layer[0]);
  snprintf(name, sizeof name, "%s.%s", hash, suffix);
  return qn__store_write(folder, name, data, size);
}

/* The compiled files of an entry; without all of them it is a miss. */
static bool get_image(const qn_store *s, const cJSON *j, qn_artifact *out) {
  const char *image = qn__json_text(j, "image", NULL), *ptx = qn__json_text(j, "ptx", NULL);
  size_t size;
  out->image = (unsigned char *)read_blob(s, image, "bin", &out->size);
  if (ptx) out->ptx = read_blob(s, ptx, "ptx", &size);
  if (!out->image || (ptx && !out->ptx)) {
    qn__artifact_free(out);
    return false;
  }
  snprintf(out->hash, sizeof out->hash, "%s", image);
  out->registers = qn__json_int(j, "registers", 0);
  out->shared = qn__json_int(j, "shared", 0);
  out->spills = qn__json_int(j, "spills", 0);
  out->seconds = qn__json_number(j, "seconds", 0);
  return true;
}

bool qn__store_artifact_get(qn_store *s, const char *hash, qn_status *status, qn_artifact *out, char *why,
                            size_t whylen) {
  *out = (qn_artifact){0};
  cJSON *j = qn__store_get(s, "artifact", hash);
  const char *reason = qn__json_text(j, "why", NULL);
  bool found = reason != NULL;
  if (found) {
    *status = (qn_status)qn__json_int(j, "status", 0);
    if (whylen) snprintf(why, whylen, "%s", reason);
    found = *status != QN_OK || get_image(s, j, out); /* a failure has no image */
  }
  cJSON_Delete(j);
  return found;
}

qn_status qn__store_artifact_put(qn_store *s, const char *hash, qn_status status, const char *why,
                                 const qn_artifact *a) {
  char image[33], ptx[33];
  bool ok = status == QN_OK;
  if (ok) QN_TRY(write_blob(s, a->image, a->size, "bin", image)); /* before the entry that names it */
  if (ok && a->ptx) QN_TRY(write_blob(s, a->ptx, strlen(a->ptx), "ptx", ptx));
  cJSON *j = cJSON_CreateObject();
  qn__json_add_number(j, "status", status);
  qn__json_add_text(j, "why", why ? why : "");
  if (ok) {
    qn__json_add_text(j, "image", image);
    if (a->ptx) qn__json_add_text(j, "ptx", ptx);
    qn__json_add_number(j, "size", (double)a->size);
    qn__json_add_number(j, "registers", a->registers);
    qn__json_add_number(j, "shared", a->shared);
    qn__json_add_number(j, "spills", a->spills);
    qn__json_add_number(j, "seconds", a->seconds);
  }
  qn_status result = qn__store_put(s, "artifact", hash, j);
  cJSON_Delete(j);
  return result;
}
