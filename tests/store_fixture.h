/* store_fixture.h - stores of invented devices in a folder of the test's own, and ways to spoil their files. */
#ifndef STORE_FIXTURE_H
#define STORE_FIXTURE_H
#include "fail.h"
#include "runtime_fixture.h"
#include "store.h"
#include <dirent.h>
#include <ftw.h>
#include <sys/stat.h>

static char root[64], lower[64];
static const qn_device_info gpu = {.name = "cuda:0",
                                   .target = "cuda",
                                   .arch = "sm_90a",
                                   .product = "A",
                                   .sms = 132,
                                   .cache = {0, 50 << 20, 0},
                                   .smem = 232448,
                                   .regs = 65536};

static inline void own_root(void) {
  strcpy(root, "/tmp/quernel-store-XXXXXX");
  strcpy(lower, "/tmp/quernel-lower-XXXXXX");
  ck_assert(mkdtemp(root) && mkdtemp(lower));
  unsetenv("QUERNEL_CACHE_SYSTEM");
}
static inline int remove_one(const char *path, const struct stat *st, int type, struct FTW *at) {
  (void)st, (void)type, (void)at;
  return remove(path);
}
static inline void drop_root(void) {
  nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
  nftw(lower, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static inline qn_store *open_at(const char *at) {
  qn_store *s;
  ck_ok(qn__store_open(at, &gpu, "nvrtc 13.0", "cold", &s));
  return s;
}

static inline void put(qn_store *s, const char *key, double x) {
  cJSON *j = cJSON_CreateObject();
  cJSON_AddNumberToObject(j, "seconds", x);
  ck_ok(qn__store_put(s, "evidence", key, j));
  cJSON_Delete(j);
}

static inline double value_of(const cJSON *j) {
  const cJSON *x = cJSON_GetObjectItemCaseSensitive(j, "seconds");
  return cJSON_IsNumber(x) ? x->valuedouble : -2;
}

/* -1: a miss. */
static inline double get(qn_store *s, const char *key) {
  cJSON *j = qn__store_get(s, "evidence", key);
  double x = j ? value_of(j) : -1;
  cJSON_Delete(j);
  return x;
}

/* The files in ROOT/ENV/KIND with this ending; `path` gets the last of them. */
static inline int files(const qn_store *s, const char *kind, const char *ending, char path[1024]) {
  char folder[300];
  int n = 0;
  snprintf(folder, sizeof folder, "%s/%s", qn__store_path(s), kind);
  DIR *d = opendir(folder);
  for (struct dirent *f; d && (f = readdir(d));) {
    size_t k = strlen(f->d_name), e = strlen(ending);
    if (!strcmp(f->d_name, ".") || !strcmp(f->d_name, "..") || k < e || strcmp(f->d_name + k - e, ending)) continue;
    n++;
    if (path) snprintf(path, 1024, "%s/%s", folder, f->d_name);
  }
  if (d) closedir(d);
  return n;
}

static inline size_t load(const char *path, char *data, size_t size) {
  FILE *f = fopen(path, "rb");
  ck_assert_ptr_nonnull(f);
  size_t n = fread(data, 1, size, f);
  fclose(f);
  return n;
}

static inline void save(const char *path, const char *data, size_t size) {
  FILE *f = fopen(path, "wb");
  ck_assert_ptr_nonnull(f);
  ck_assert_uint_eq(fwrite(data, 1, size, f), size);
  fclose(f);
}

/* Something that is no file, or a folder that is not empty, in the place of a file. */
static inline void block(const char *path, int what) {
  char inside[1100];
  unlink(path);
  ck_assert_int_eq(what == S_IFIFO ? mkfifo(path, 0666) : mkdir(path, 0777), 0);
  snprintf(inside, sizeof inside, "%s/x", path);
  if (what == S_IFDIR) save(inside, "x", 1);
}

/* The hash of a kernel variant. */
static const char variant[] = "0123456789abcdef0123456789abcdef";
#endif
