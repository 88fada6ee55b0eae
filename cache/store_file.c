/* store_file.c - files that are whole or not there; entries that know when they are damaged. */
#include "store_file.h"
#include "fail.h"
#include "store.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Files ------------------------------------------------------------------------------------------------------- */

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

qn_status qn__store_write(const char *folder, const char *name, const void *data, size_t size) {
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

char *qn__store_read(const char *path, size_t *size) {
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

bool qn__file_hash(const char *path, char out[33]) {
  size_t size;
  char *data = qn__store_read(path, &size);
  if (data) qn_hash_hex(data, size, out);
  free(data);
  return data != NULL;
}

/* ---- Entries ----------------------------------------------------------------------------------------------------- */

void qn__entry_name(const char *key, char out[40]) {
  qn_hash_hex(key, strlen(key), out);
  memcpy(out + 32, ".json", 6);
}

/* Hash of a key and of a value as cJSON prints it. */
static bool entry_sum(const char *key, const cJSON *value, char out[33]) {
  char *plain = cJSON_PrintUnformatted(value), *both = NULL;
  int n = plain ? asprintf(&both, "%s\n%s", key, plain) : -1;
  if (n >= 0) qn_hash_hex(both, (size_t)n, out);
  if (n >= 0) free(both);
  cJSON_free(plain);
  return n >= 0;
}

char *qn__entry_print(const char *key, const cJSON *value) {
  char *plain = cJSON_PrintUnformatted(value), *text = NULL, sum[33];
  cJSON *v = plain ? cJSON_Parse(plain) : NULL; /* numbers as a reader will see them */
  cJSON *entry = cJSON_CreateObject();
  cJSON_free(plain);
  if (v && entry && entry_sum(key, v, sum)) {
    cJSON_AddNumberToObject(entry, "schema", QN_STORE_SCHEMA);
    cJSON_AddStringToObject(entry, "key", key);
    cJSON_AddStringToObject(entry, "sum", sum);
    cJSON_AddItemToObject(entry, "value", v);
    text = cJSON_Print(entry);
    v = NULL;
  }
  cJSON_Delete(v);
  cJSON_Delete(entry);
  return text;
}

/* An entry lies under the name of its key, or nobody would find it. */
static bool in_place(const char *path, const char *key) {
  char name[40];
  qn__entry_name(key, name);
  const char *slash = strrchr(path, '/');
  return !strcmp(slash ? slash + 1 : path, name);
}

cJSON *qn__entry_read(const char *path, const char *key, char **found_key) {
  size_t size;
  char *text = qn__store_read(path, &size), sum[33];
  cJSON *entry = text ? cJSON_ParseWithLength(text, size) : NULL, *value = NULL;
  free(text);
  const char *k = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(entry, "key"));
  const char *check = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(entry, "sum"));
  const cJSON *version = cJSON_GetObjectItemCaseSensitive(entry, "schema");
  cJSON *v = cJSON_GetObjectItemCaseSensitive(entry, "value");
  if (k && check && v && cJSON_IsNumber(version) && version->valuedouble == QN_STORE_SCHEMA &&
      (key ? !strcmp(k, key) : in_place(path, k)) && entry_sum(k, v, sum) && !strcmp(sum, check)) {
    value = cJSON_DetachItemViaPointer(entry, v);
    if (found_key && !(*found_key = strdup(k))) cJSON_Delete(value), value = NULL;
  }
  cJSON_Delete(entry);
  return value;
}
