/* store_file.c - files that are whole or not there; entries that know when they are damaged. */
#include "store_file.h"
#include "fail.h"
#include "file.h"
#include "hash.h"
#include "json.h"
#include "tree.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Files ------------------------------------------------------------------------------------------------------- */

static qn_status make_folders(const char *path) {
  if (qn__tree_make(path) == QN_OK) return QN_OK;
  return qn__fail(QN_E_IO, "store: %s; set QUERNEL_CACHE to another folder", qn__errmsg());
}

/* What lies in a file's place and is none is damage, and makes room. */
static void make_room(const char *path) {
  struct stat st;
  if (!stat(path, &st) && !S_ISREG(st.st_mode)) qn__tree_remove(path);
}

qn_status qn__store_write(const char *folder, const char *name, const void *data, size_t size) {
  char path[PATH_MAX];
  QN_TRY(make_folders(folder));
  if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) >= sizeof path)
    return qn__fail(QN_E_IO, "store: path too long: %s/%s", folder, name);
  make_room(path);
  return qn__file_replace(path, data, size);
}

bool qn__file_hash(const char *path, char out[33]) {
  size_t size;
  char *data;
  qn__file_read(path, &data, &size);
  if (data) qn__hash_hex(data, size, out);
  free(data);
  return data != NULL;
}

/* ---- Entries ----------------------------------------------------------------------------------------------------- */

void qn__entry_name(const char *key, char out[40]) {
  qn__hash_hex(key, strlen(key), out);
  memcpy(out + 32, ".json", 6);
}

/* Hash of a key and of a value as cJSON prints it. */
static bool entry_sum(const char *key, const cJSON *value, char out[33]) {
  char *plain = cJSON_PrintUnformatted(value), *both = NULL;
  int n = plain ? asprintf(&both, "%s\n%s", key, plain) : -1;
  if (n >= 0) qn__hash_hex(both, (size_t)n, out);
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
    qn__json_add_number(entry, "schema", QN_STORE_SCHEMA);
    qn__json_add_text(entry, "key", key);
    qn__json_add_text(entry, "sum", sum);
    qn__json_add(entry, "value", v);
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

bool qn__entry_older(const char *path) {
  size_t size;
  char *text;
  qn__file_read(path, &text, &size);
  cJSON *entry = text ? cJSON_ParseWithLength(text, size) : NULL;
  double schema = qn__json_number(entry, "schema", QN_STORE_SCHEMA);
  bool older = schema >= 1 && schema < QN_STORE_SCHEMA && qn__json_text(entry, "sum", NULL);
  cJSON_Delete(entry);
  free(text);
  return older;
}

qn_status qn__entry_read(const char *path, const char *key, char **found_key, cJSON **value) {
  size_t size;
  char *text, sum[33];
  *value = NULL;
  if (found_key) *found_key = NULL;
  errno = 0; /* tells a want of memory from damage, which nobody else does */
  qn__file_read(path, &text, &size);
  cJSON *entry = text ? cJSON_ParseWithLength(text, size) : NULL;
  free(text);
  const char *k = qn__json_text(entry, "key", NULL);
  const char *check = qn__json_text(entry, "sum", NULL);
  cJSON *v = cJSON_GetObjectItemCaseSensitive(entry, "value");
  if (k && check && v && qn__json_number(entry, "schema", -1) == QN_STORE_SCHEMA &&
      (key ? !strcmp(k, key) : in_place(path, k)) && entry_sum(k, v, sum) && !strcmp(sum, check)) {
    *value = cJSON_DetachItemViaPointer(entry, v);
    if (found_key && !(*found_key = strdup(k))) cJSON_Delete(*value), *value = NULL;
  }
  cJSON_Delete(entry);
  return *value || errno != ENOMEM ? QN_OK : qn__fail(QN_E_NOMEM, "store: no memory for %s", path);
}
