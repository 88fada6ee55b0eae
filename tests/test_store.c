/* test_store.c - the store with invented devices: what is put is got, what is damaged is a miss, nobody waits. */
#include "compile.h"
#include "fail.h"
#include "hash.h"
#include "runtime_fixture.h"
#include "store.h"
#include "store_tools.h"
#include <dirent.h>
#include <ftw.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* ---- A root of the test's own ------------------------------------------------------------------------------------ */

static char root[64], lower[64];
static const qn_device_info gpu = {.name = "cuda:0",
                                   .target = "cuda",
                                   .arch = "sm_90a",
                                   .product = "A",
                                   .sms = 132,
                                   .cache = {0, 50 << 20, 0},
                                   .smem = 232448,
                                   .regs = 65536};

static void own_root(void) {
  strcpy(root, "/tmp/quernel-store-XXXXXX");
  strcpy(lower, "/tmp/quernel-lower-XXXXXX");
  ck_assert(mkdtemp(root) && mkdtemp(lower));
  unsetenv("QUERNEL_CACHE_SYSTEM");
}
static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at) {
  (void)st, (void)type, (void)at;
  return remove(path);
}
static void drop_root(void) {
  nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
  nftw(lower, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static qn_store *open_at(const char *at) {
  qn_store *s;
  ck_ok(qn_store_open(at, &gpu, "nvrtc 13.0", "cold", &s));
  return s;
}

static void put(qn_store *s, const char *key, double x) {
  cJSON *j = cJSON_CreateObject();
  cJSON_AddNumberToObject(j, "seconds", x);
  ck_ok(qn_store_put(s, "evidence", key, j));
  cJSON_Delete(j);
}

static double value_of(const cJSON *j) {
  const cJSON *x = cJSON_GetObjectItemCaseSensitive(j, "seconds");
  return cJSON_IsNumber(x) ? x->valuedouble : -2;
}

/* -1: a miss. */
static double get(qn_store *s, const char *key) {
  cJSON *j = qn_store_get(s, "evidence", key);
  double x = j ? value_of(j) : -1;
  cJSON_Delete(j);
  return x;
}

/* The files in ROOT/ENV/KIND with this ending; `path` gets the last of them. */
static int files(const qn_store *s, const char *kind, const char *ending, char path[1024]) {
  char folder[300];
  int n = 0;
  snprintf(folder, sizeof folder, "%s/%s", qn_store_path(s), kind);
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

static size_t load(const char *path, char *data, size_t size) {
  FILE *f = fopen(path, "rb");
  ck_assert_ptr_nonnull(f);
  size_t n = fread(data, 1, size, f);
  fclose(f);
  return n;
}

static void save(const char *path, const char *data, size_t size) {
  FILE *f = fopen(path, "wb");
  ck_assert_ptr_nonnull(f);
  ck_assert_uint_eq(fwrite(data, 1, size, f), size);
  fclose(f);
}

/* ---- Entries ----------------------------------------------------------------------------------------------------- */

static const char *const keys[] = {
    "int4.g128:64x64:bf16-f32|0123|1", "", "../../etc/passwd", "a\nb", "gr\xc3\xbc\xc3\x9f", "x"};

static int sum_up(void *ud, const char *key, const cJSON *value) {
  double *sum = ud;
  int known = 0;
  for (size_t i = 0; i < QN_COUNT(keys); i++) known += !strcmp(key, keys[i]);
  ck_assert_msg(known == 1, "key '%s'", key);
  *sum += value_of(value);
  return 0;
}
static int stop_at_once(void *ud, const char *key, const cJSON *value) {
  (void)key, (void)value;
  return ++*(int *)ud;
}

START_TEST(test_round_trip) {
  qn_store *s = open_at(root);
  for (size_t i = 0; i < QN_COUNT(keys); i++) ck_assert(get(s, keys[i]) == -1);
  for (size_t i = 0; i < QN_COUNT(keys); i++) put(s, keys[i], 100 + (double)i);
  for (size_t i = 0; i < QN_COUNT(keys); i++) put(s, keys[i], 1.1e-5 * (double)(1 << i)); /* the last one counts */
  qn_store_close(s);
  s = open_at(root);
  double sum = 0, want = 0;
  for (size_t i = 0; i < QN_COUNT(keys); i++) {
    ck_assert(get(s, keys[i]) == 1.1e-5 * (double)(1 << i)); /* to the last bit */
    want += get(s, keys[i]);
  }
  ck_assert(get(s, "y") == -1);
  ck_assert_ptr_null(qn_store_get(s, "plan", keys[0])); /* kinds are apart */
  ck_ok(qn_store_each(s, "evidence", sum_up, &sum));
  ck_assert_double_eq_tol(sum, want, 1e-12);
  int calls = 0;
  ck_ok(qn_store_each(s, "evidence", stop_at_once, &calls));
  ck_assert_int_eq(calls, 1);
  ck_ok(qn_store_each(s, "nothing", stop_at_once, &calls));
  ck_assert_int_eq(calls, 1);
  qn_store_close(s);
  qn_store_close(NULL);
}
END_TEST

/* Torn at every length, and each bit of the file flipped: a miss, or harmlessly the same value; never another. */
START_TEST(test_damage) {
  qn_store *s = open_at(root);
  char path[1024], text[4096], key[] = "int4.g128:64x64|0123|16";
  put(s, key, 0.25);
  ck_assert_int_eq(files(s, "evidence", ".json", path), 1);
  size_t n = load(path, text, sizeof text);
  for (size_t cut = 0; cut < n; cut++) {
    save(path, text, cut);
    double x = get(s, key);
    ck_assert_msg(x == -1 || (x == 0.25 && cut + 2 >= n), "torn at %zu of %zu: %g", cut, n, x);
  }
  int misses = 0;
  for (size_t bit = 0; bit < 8 * n; bit++) {
    text[bit / 8] ^= (char)(1 << bit % 8);
    save(path, text, n);
    double x = get(s, key);
    ck_assert_msg(x == -1 || x == 0.25, "bit %zu: %g", bit, x);
    misses += x == -1;
    ck_ok(qn_store_each(s, "evidence", stop_at_once, &(int){0}));
    text[bit / 8] ^= (char)(1 << bit % 8);
  }
  ck_assert_msg(misses > (int)(7 * n), "%d misses of %zu bits", misses, 8 * n);
  save(path, text, n);
  ck_assert(get(s, key) == 0.25);
  qn_store_close(s);
}
END_TEST

/* Something that is no file, or a folder that is not empty, in the place of a file. */
static void block(const char *path, int what) {
  char inside[1100];
  unlink(path);
  ck_assert_int_eq(what == S_IFIFO ? mkfifo(path, 0666) : mkdir(path, 0777), 0);
  snprintf(inside, sizeof inside, "%s/x", path);
  if (what == S_IFDIR) save(inside, "x", 1);
}

/* Another schema, another's entry under this name, a folder or a FIFO in its place. */
START_TEST(test_foreign) {
  qn_store *s = open_at(root);
  char path[1024], other[1024], text[4096], *p;
  put(s, "a", 1);
  files(s, "evidence", ".json", path);
  size_t n = load(path, text, sizeof text - 1);
  text[n] = 0;
  ck_assert_ptr_nonnull(p = strstr(text, "\"schema\":\t"));
  char own = p[10];
  p[10] = '9';
  save(path, text, n);
  ck_assert(get(s, "a") == -1);
  p[10] = own;
  save(path, text, n);
  ck_assert(get(s, "a") == 1);
  snprintf(other, sizeof other, "%s/evidence/00000000000000000000000000000000.json", qn_store_path(s));
  save(other, text, n); /* whole, but nobody would look for it there */
  int calls = 0;
  for (const char *const *k = (const char *const[]){"[1,2", "{}", "null", "{\"schema\":1,\"key\":3}", "", NULL}; *k;
       k++) {
    save(path, *k, strlen(*k));
    ck_assert(get(s, "a") == -1);
  }
  ck_ok(qn_store_each(s, "evidence", stop_at_once, &calls));
  ck_assert_int_eq(calls, 0);
  unlink(other);
  for (const int *way = (const int[]){S_IFIFO, S_IFDIR, 0}; *way; way++) { /* a FIFO would be waited for, for ever */
    block(path, *way);
    ck_assert(get(s, "a") == -1);
    ck_ok(qn_store_each(s, "evidence", stop_at_once, &calls));
    ck_assert_int_eq(calls, 0);
    put(s, "a", 7);
    ck_assert(get(s, "a") == 7);
    ck_assert_int_eq(files(s, "evidence", "", NULL), 1); /* nothing temporary is left */
  }
  qn_store_close(s);
}
END_TEST

/* ---- Environments and layers ------------------------------------------------------------------------------------- */

static void path_of(const qn_device_info *d, const char *compiler, const char *policy, char out[1024]) {
  qn_store *s;
  ck_ok(qn_store_open(root, d, compiler, policy, &s));
  snprintf(out, 1024, "%s", qn_store_path(s));
  qn_store_close(s);
}

START_TEST(test_environment) {
  char base[1024], other[1024];
  path_of(&gpu, "nvrtc 13.0", "cold", base);
  qn_device_info d = gpu;
  strcpy(d.product, "The same chip under another name");
  strcpy(d.driver, "999.9");
  strcpy(d.name, "cuda:3");
  path_of(&d, "nvrtc 13.0", "cold", other);
  ck_assert_str_eq(base, other);
  path_of(&gpu, "nvrtc 13.1", "cold", other);
  ck_assert_str_ne(base, other);
  path_of(&gpu, "nvrtc 13.0", "warm", other);
  ck_assert_str_ne(base, other);
  d = gpu;
  strcpy(d.target, "host");
  path_of(&d, "gcc 12.2.0", "cold", base);
  strcpy(d.product, "another CPU"); /* of a host the name is what tells CPUs apart */
  path_of(&d, "gcc 12.2.0", "cold", other);
  ck_assert_str_ne(base, other);
  path_of(&gpu, "nvrtc 13.0", "cold", base);
  path_of(&gpu, "nvrtc 13.0", "warm", other);
  ck_assert_str_ne(base, other);
  for (int i = 0; i < 6; i++) {
    d = gpu;
    if (i == 0) strcpy(d.arch, "sm_100a");
    if (i == 1) d.sms++;
    if (i == 2) d.smem /= 2;
    if (i == 3) d.cache[1] *= 2;
    if (i == 4) strcpy(d.target, "host");
    if (i == 5) strcpy(d.model, "6144 bits at 3201000 kHz, 1980000 kHz");
    path_of(&d, "nvrtc 13.0", "cold", other);
    ck_assert_msg(strcmp(base, other) != 0, "field %d is not keyed", i);
  }
}
END_TEST

START_TEST(test_layers) {
  qn_store *system = open_at(lower);
  put(system, "x", 1);
  put(system, "a\nb", 2);
  qn_store_close(system);
  setenv("QUERNEL_CACHE_SYSTEM", lower, 1);
  qn_store *s = open_at(root);
  ck_assert(get(s, "x") == 1);
  put(s, "x", 10); /* the user's comes first, and alone is written */
  ck_assert(get(s, "x") == 10);
  double sum = 0;
  ck_ok(qn_store_each(s, "evidence", sum_up, &sum));
  ck_assert(sum == 12); /* each once */
  char path[1024];
  ck_assert_int_eq(files(s, "evidence", ".json", path), 1);
  save(path, "torn", 4); /* a damaged entry hides nothing */
  ck_assert(get(s, "x") == 1);
  sum = 0;
  ck_ok(qn_store_each(s, "evidence", sum_up, &sum));
  ck_assert(sum == 3);
  qn_store_close(s);
}
END_TEST

START_TEST(test_roots) {
  char path[1024], text[5000];
  qn_store *s;
  setenv("QUERNEL_CACHE", root, 1);
  s = open_at(NULL);
  ck_assert(!strncmp(qn_store_path(s), root, strlen(root)));
  qn_store_close(s);
  unsetenv("QUERNEL_CACHE");
  setenv("XDG_CACHE_HOME", root, 1);
  s = open_at("");
  snprintf(path, sizeof path, "%s/quernel/", root);
  ck_assert(!strncmp(qn_store_path(s), path, strlen(path)));
  qn_store_close(s);
  unsetenv("XDG_CACHE_HOME");
  setenv("HOME", lower, 1);
  s = open_at(NULL);
  snprintf(path, sizeof path, "%s/.cache/quernel/", lower);
  ck_assert(!strncmp(qn_store_path(s), path, strlen(path)));
  qn_store_close(s);
  ck_fails(QN_E_IO, "/dev/null", qn_store_open("/dev/null/store", &gpu, "c", "cold", &s));
  ck_assert_ptr_null(s);
  memset(text, 'x', sizeof text - 1);
  text[0] = '/', text[sizeof text - 1] = 0;
  ck_fails(QN_E_LIMIT, "too long", qn_store_open(text, &gpu, "c", "cold", &s));
}
END_TEST

/* Nobody's home is the shared folder for temporary files, nor wherever a program happens to be started. */
START_TEST(test_home_unset) {
  char want[PATH_MAX], found[PATH_MAX];
  snprintf(want, sizeof want, "%s/.cache/quernel", getpwuid(getuid())->pw_dir);
  unsetenv("QUERNEL_CACHE"), unsetenv("XDG_CACHE_HOME"), unsetenv("HOME");
  for (const char *const *home = (const char *const[]){"", ".", "tmp", NULL}; *home; home++) {
    ck_ok(qn_store_root(NULL, found));
    ck_assert_str_eq(found, want);
    setenv("HOME", *home, 1), setenv("XDG_CACHE_HOME", *home, 1);
  }
  int status = 0;
  pid_t nobody = fork(); /* whom the password database does not know, if we may become that */
  if (!nobody)
    _exit(!setuid(3000000) && (qn_store_root(NULL, found) != QN_E_IO || !strstr(qn__errmsg(), "set QUERNEL_")));
  waitpid(nobody, &status, 0);
  ck_assert_int_eq(status, 0);
}
END_TEST

/* What a store holds is run: not from where everybody writes, nor from another user's that was not asked for. */
START_TEST(test_trust) {
  qn_store *s;
  char path[128];
  chmod(root, 0777);
  ck_fails(QN_E_IO, "chmod o-w", qn_store_open(root, &gpu, "c", "cold", &s));
  chmod(root, 0775);
  qn_store_close(open_at(root));
  setenv("XDG_CACHE_HOME", root, 1);
  qn_store_close(open_at(NULL));
  snprintf(path, sizeof path, "%s/quernel", root);
  if (chown(path, 3000000, 3000000)) return; /* that takes root */
  ck_fails(QN_E_IO, "user 3000000's", qn_store_open(NULL, &gpu, "c", "cold", &s));
  qn_store_close(open_at(path));
}
END_TEST

/* ---- Artifacts --------------------------------------------------------------------------------------------------- */

static const char variant[] = "0123456789abcdef0123456789abcdef";

START_TEST(test_artifacts) {
  qn_store *s = open_at(root);
  qn_artifact a = {.image = (unsigned char[]){"\0binary\0with zeros"},
                   .size = 19,
                   .ptx = (char[]){".version 9.0"},
                   .registers = 92,
                   .shared = 4096,
                   .spills = 0,
                   .seconds = 0.125},
              b;
  qn_status status;
  char why[256], path[1024], bytes[19];
  ck_assert(!qn_store_artifact_get(s, variant, &status, &b, why, sizeof why));
  ck_ok(qn_store_artifact_put(s, variant, QN_OK, NULL, &a));
  ck_assert(qn_store_artifact_get(s, variant, &status, &b, why, sizeof why));
  ck_assert_int_eq(status, QN_OK);
  ck_assert(b.size == a.size && !memcmp(b.image, a.image, a.size));
  ck_assert_str_eq(b.ptx, a.ptx);
  ck_assert(b.registers == 92 && b.shared == 4096 && b.spills == 0 && b.seconds == 0.125 && strlen(b.hash) == 32);
  qn_artifact_free(&b);
  ck_assert_int_eq(files(s, "artifact", ".bin", path), 1);
  for (size_t bit = 0; bit < 8 * a.size; bit++) { /* any bit of the image: a miss */
    memcpy(bytes, a.image, a.size);
    bytes[bit / 8] ^= (char)(1 << bit % 8);
    save(path, bytes, a.size);
    ck_assert(!qn_store_artifact_get(s, variant, &status, &b, why, sizeof why));
  }
  for (size_t n = 0; n < a.size; n++) {
    save(path, (char *)a.image, n);
    ck_assert(!qn_store_artifact_get(s, variant, &status, &b, why, sizeof why));
  }
  ck_ok(qn_store_artifact_put(s, variant, QN_OK, NULL, &a)); /* made whole again */
  ck_assert(qn_store_artifact_get(s, variant, &status, &b, why, sizeof why));
  qn_artifact_free(&b);
  files(s, "artifact", ".ptx", path);
  unlink(path);
  ck_assert(!qn_store_artifact_get(s, variant, &status, &b, why, sizeof why));
  qn_store_close(s);
}
END_TEST

/* A real failure to compile is remembered with the template's line. */
START_TEST(test_negative) {
  qn_store *s = open_at(root);
  qn_source source = {.name = "v", .target = "host", .text = "#line 9 \"templates/kernels/host/t.lua\"\nint f( {}\n"};
  qn_artifact a;
  qn_status status = qn_compile(&source, &a), known;
  char why[256];
  ck_assert_int_eq(status, QN_E_COMPILE);
  ck_ok(qn_store_artifact_put(s, variant, status, qn__errmsg(), &a));
  qn_artifact_free(&a);
  qn_store_close(s);
  s = open_at(root);
  ck_assert(qn_store_artifact_get(s, variant, &known, &a, why, sizeof why));
  ck_assert_int_eq(known, QN_E_COMPILE);
  ck_assert_ptr_null(a.image);
  ck_assert_msg(strstr(why, "templates/kernels/host/t.lua:9:") != NULL, "%s", why);
  qn_store_close(s);
}
END_TEST

/* ---- Writers that fail, die and race ----------------------------------------------------------------------------- */

/* Too little room: an error that names the file; what was there stays, nothing half-written is added. */
static void expect_full(qn_store *s) {
  char *big = malloc(1 << 20), before[4096];
  memset(big, 'x', 1 << 20);
  big[(1 << 20) - 1] = 0;
  int n = files(s, "evidence", "", NULL);
  cJSON *j = cJSON_CreateString(big);
  ck_fails(QN_E_IO, qn_store_path(s), qn_store_put(s, "evidence", "a", j));
  snprintf(before, sizeof before, "%s", qn__errmsg());
  ck_assert_msg(strstr(before, "No space left") || strstr(before, "File too large"), "%s", before);
  ck_assert(get(s, "a") == 1);
  ck_fails(QN_E_IO, qn_store_path(s), qn_store_put(s, "evidence", "b", j));
  qn_artifact a = {.image = (unsigned char *)big, .size = 1 << 20};
  ck_fails(QN_E_IO, qn_store_path(s), qn_store_artifact_put(s, variant, QN_OK, NULL, &a));
  qn_status status;
  ck_assert(!qn_store_artifact_get(s, variant, &status, &a, before, sizeof before));
  ck_assert_int_eq(files(s, "evidence", "", NULL), n);
  ck_assert_int_eq(files(s, "artifact", "", NULL), 0);
  cJSON_Delete(j);
  free(big);
}

START_TEST(test_file_too_large) {
  qn_store *s = open_at(root);
  put(s, "a", 1);
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &(struct rlimit){4096, 4096});
  expect_full(s);
  qn_store_close(s);
}
END_TEST

/* A file system of 256 KiB, where the machine lets us mount one; the limit above tests the same without. */
START_TEST(test_disk_full) {
  if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
      mount("tmpfs", root, "tmpfs", 0, "size=256k,mode=700"))
    return;
  qn_store *s = open_at(root);
  put(s, "a", 1);
  expect_full(s);
  qn_store_close(s);
  umount(root);
}
END_TEST

static cJSON *long_value(int i) {
  cJSON *j = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(j, "list");
  cJSON_AddNumberToObject(j, "seconds", i);
  for (int k = 0; k < 500; k++) cJSON_AddItemToArray(list, cJSON_CreateNumber(i));
  return j;
}

static int is_long_value(const cJSON *j) {
  double i = value_of(j);
  const cJSON *list = cJSON_GetObjectItemCaseSensitive(j, "list"), *x;
  cJSON_ArrayForEach(x, list) if (x->valuedouble != i) return 0;
  return cJSON_GetArraySize(list) == 500;
}

/* Killed at any moment, a writer leaves a whole old entry or a whole new one; gc clears away the rest. */
START_TEST(test_killed_writer) {
  qn_store *s = open_at(root);
  rng r = {3};
  int first = 0;
  for (int round = 0; round < 25; round++) {
    pid_t pid = fork();
    if (!pid)
      for (int i = round * 100000;; i++) {
        cJSON *j = long_value(i);
        if (qn_store_put(s, "evidence", "x", j)) _exit(1);
        cJSON_Delete(j);
      }
    usleep((useconds_t)(500 + draw(&r) % 12000));
    kill(pid, SIGKILL);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    cJSON *j = qn_store_get(s, "evidence", "x");
    ck_assert_msg(j ? is_long_value(j) : !first, "round %d: no whole entry", round);
    first |= j != NULL;
    cJSON_Delete(j);
  }
  ck_assert(first);
  int left = files(s, "evidence", "", NULL) - 1;
  qn_store_counts c;
  ck_ok(qn_store_gc(root, 3600, &c));
  ck_assert_uint_eq(c.removed, 0); /* too young: it may be somebody's work */
  ck_ok(qn_store_gc(root, -1, &c));
  ck_assert_int_eq((int)c.removed, left);
  ck_assert_int_eq(files(s, "evidence", "", NULL), 1);
  qn_store_close(s);
}
END_TEST

/* Sixteen writers of one entry and of their own, and a reader who never sees half a file. */
START_TEST(test_many_writers) {
  enum { writers = 16, rounds = 12 };
  pid_t pid[writers];
  for (int w = 0; w < writers; w++)
    if (!(pid[w] = fork())) {
      qn_store *s = open_at(root);
      for (int i = 0; i < rounds; i++) {
        char key[32];
        cJSON *j = long_value(w * 1000 + i);
        snprintf(key, sizeof key, "own %d", w);
        if (qn_store_put(s, "evidence", "shared", j) || qn_store_put(s, "evidence", key, j)) _exit(1);
        cJSON_Delete(j);
      }
      _exit(0);
    }
  qn_store *s = open_at(root);
  int running = writers, seen = 0, failed = 0;
  while (running) {
    cJSON *j = qn_store_get(s, "evidence", "shared");
    ck_assert(j ? is_long_value(j) : !seen); /* once there, always there */
    seen |= j != NULL;
    cJSON_Delete(j);
    for (int w = 0, status; w < writers; w++)
      if (pid[w] && waitpid(pid[w], &status, WNOHANG) == pid[w]) pid[w] = 0, running--, failed += status != 0;
  }
  ck_assert_int_eq(failed, 0);
  for (int w = 0; w < writers; w++) {
    char key[32];
    snprintf(key, sizeof key, "own %d", w);
    ck_assert(get(s, key) == w * 1000 + rounds - 1);
  }
  ck_assert_int_eq(files(s, "evidence", "", NULL), writers + 1);
  qn_store_close(s);
}
END_TEST

/* ---- Tools ------------------------------------------------------------------------------------------------------- */

static void put_samples(qn_store *s, const char *key, double x, int samples) {
  cJSON *j = cJSON_CreateObject();
  cJSON_AddNumberToObject(j, "seconds", x);
  cJSON_AddNumberToObject(j, "samples", samples);
  ck_ok(qn_store_put(s, "evidence", key, j));
  cJSON_Delete(j);
}

static int note_environment(void *ud, const qn_store_environment *e) {
  qn_store_environment *out = ud;
  *out = *e;
  ck_assert_str_eq(cJSON_GetStringValue(cJSON_GetObjectItem(e->about, "arch")), "sm_90a");
  ck_assert_str_eq(cJSON_GetStringValue(cJSON_GetObjectItem(e->about, "product")), "A");
  return 0;
}
static void count_report(void *ud, const char *path, const char *what) {
  ck_assert(*path && *what);
  ++*(int *)ud;
}

START_TEST(test_list_verify_gc) {
  qn_store *s = open_at(root);
  qn_artifact a = {.image = (unsigned char[]){"image"}, .size = 5},
              unused = {.image = (unsigned char[]){"other"}, .size = 5};
  char other[] = "fedcba9876543210fedcba9876543210", path[1024];
  put(s, "x", 1);
  put(s, "y", 2);
  ck_ok(qn_store_artifact_put(s, variant, QN_OK, NULL, &a));
  ck_ok(qn_store_artifact_put(s, other, QN_OK, NULL, &unused));
  ck_ok(qn_store_artifact_put(s, other, QN_E_COMPILE, "why", &unused)); /* its image is named no more */
  qn_store_environment e = {0};
  ck_ok(qn_store_list(root, note_environment, &e));
  ck_assert(e.evidence == 2 && e.artifacts == 1 && e.failures == 1 && e.plans == 0 && e.damaged == 0 && e.bytes > 0);
  int reports = 0;
  ck_ok(qn_store_verify(root, count_report, &reports));
  ck_assert_int_eq(reports, 0);

  files(s, "evidence", ".json", path);
  save(path, "{}", 2);
  snprintf(path, sizeof path, "%s/evidence/.0123.json.AbCdEf", qn_store_path(s));
  save(path, "half", 4);
  ck_ok(qn_store_verify(root, count_report, &reports));
  ck_assert_int_eq(reports, 2);
  qn_store_counts c;
  ck_ok(qn_store_gc(root, -1, &c));
  ck_assert(c.removed == 3 && c.damaged == 2);
  qn_status status;
  char why[64];
  ck_assert(qn_store_artifact_get(s, variant, &status, &a, why, sizeof why));
  ck_assert_uint_eq(a.size, 5);
  qn_artifact_free(&a);
  ck_ok(qn_store_gc(root, -1, &c));
  ck_assert_uint_eq(c.removed, 0);
  ck_ok(qn_store_merge(lower, root, NULL, NULL, &c));
  for (const int *way = (const int[]){S_IFIFO, S_IFDIR, 0}; *way; way++) {
    put(s, "z", 3);
    snprintf(path, sizeof path, "%s/evidence/", qn_store_path(s));
    qn__hash_hex("z", 1, path + strlen(path));
    block(strcat(path, ".json"), *way);
    files(s, "artifact", ".bin", path);
    block(path, *way);
    reports = 0;
    ck_ok(qn_store_verify(root, count_report, &reports));
    ck_assert_int_eq(reports, 2);
    ck_ok(qn_store_merge(lower, root, NULL, NULL, &c));
    ck_assert_uint_eq(c.damaged, 2);
    ck_ok(qn_store_gc(root, -1, &c));
    ck_assert_uint_eq(c.removed, 2);
    ck_ok(qn_store_merge(root, lower, NULL, NULL, &c)); /* the image comes back */
  }
  ck_fails(QN_E_IO, "/no/such/root", qn_store_list("/no/such/root", note_environment, NULL));
  qn_store_close(s);
}
END_TEST

typedef struct difference {
  int only_a, only_b, both;
} difference;
static void note_difference(void *ud, const char *env, const char *kind, const char *key, const cJSON *in_a,
                            const cJSON *in_b) {
  difference *d = ud;
  ck_assert(strlen(env) == 32 && !strcmp(kind, "evidence") && *key);
  d->only_a += !in_b, d->only_b += !in_a, d->both += in_a && in_b;
}

START_TEST(test_diff_merge) {
  qn_store *mine = open_at(root), *theirs = open_at(lower);
  qn_artifact a = {.image = (unsigned char[]){"image"}, .size = 5};
  put_samples(mine, "same", 1, 10), put_samples(theirs, "same", 1, 10);
  put_samples(mine, "weaker", 2, 3), put_samples(theirs, "weaker", 1.5, 30);
  put_samples(mine, "stronger", 2, 30), put_samples(theirs, "stronger", 1.5, 3);
  put_samples(mine, "mine", 7, 1), put_samples(theirs, "theirs", 8, 1), put_samples(theirs, "torn", 9, 1);
  ck_ok(qn_store_artifact_put(theirs, variant, QN_OK, NULL, &a));
  difference d = {0};
  ck_ok(qn_store_diff(root, lower, note_difference, &d));
  ck_assert(d.only_a == 1 && d.only_b == 2 && d.both == 2);
  char path[1024], text[4096];
  put_samples(mine, "torn", 1, 100);
  snprintf(path, sizeof path, "%s/evidence/", qn_store_path(mine));
  qn__hash_hex("torn", 4, path + strlen(path));
  strcat(path, ".json");
  size_t n = load(path, text, sizeof text);
  save(path, text, n / 2); /* a torn one of mine loses to a whole one */
  qn_store_counts c;
  ck_ok(qn_store_merge(root, lower, NULL, NULL, &c));
  ck_assert_msg(c.copied == 3 && c.replaced == 2 && c.kept == 1 && c.same == 1 && c.damaged == 0,
                "copied %zu replaced %zu kept %zu same %zu damaged %zu", c.copied, c.replaced, c.kept, c.same,
                c.damaged);
  ck_assert(get(mine, "same") == 1 && get(mine, "weaker") == 1.5 && get(mine, "stronger") == 2);
  ck_assert(get(mine, "mine") == 7 && get(mine, "theirs") == 8 && get(mine, "torn") == 9);
  ck_assert(get(theirs, "mine") == -1 && get(theirs, "stronger") == 1.5); /* only read */
  qn_status status;
  char why[64];
  ck_assert(qn_store_artifact_get(mine, variant, &status, &a, why, sizeof why));
  qn_artifact_free(&a);
  ck_ok(qn_store_merge(root, lower, NULL, NULL, &c));
  ck_assert(c.copied == 0 && c.replaced == 0 && c.kept == 1); /* twice is once */
  qn_store_close(mine);
  qn_store_close(theirs);
}
END_TEST

/* A verdict, a timing, a suspicion: by problem, hash, name or key; what is compiled stays. */
static const struct {
  const char *what;
  size_t n;
} forgotten[] = {{"int4:8x8:f32-f32", 3},
                 {"my.kernel/a", 4},
                 {"aaaa", 4},
                 {"race int4:8x8:f32-f32 aaaa M=1", 2},
                 {"int4:8x8", 3},
                 {"int4", 3},
                 {"int", 0},
                 {"", 0},
                 {"dddd", 1},
                 {"my.kernel/d", 1},
                 {"my.kernel/c", 0}};

static void put_text(qn_store *s, const char *kind, const char *key, const char *field, const char *text) {
  cJSON *j = cJSON_CreateObject();
  cJSON_AddStringToObject(j, field, text);
  ck_ok(qn_store_put(s, kind, key, j));
  cJSON_Delete(j);
}

START_TEST(test_forget) {
  qn_store *s = open_at(root);
  qn_artifact a = {.image = (unsigned char[]){"image"}, .size = 5};
  qn_status status;
  char why[64];
  size_t n;
  put_text(s, "evidence", "verify aaaa", "name", "my.kernel/a");
  put_text(s, "evidence", "race int4:8x8:f32-f32 aaaa M=1", "name", "my.kernel/a");
  put_text(s, "evidence", "race int8:8x8:f32-f32 bbbb M=1", "name", "my.kernel/b");
  put_text(s, "plan", "int4:8x8:f32-f32 M=1", "variant", "aaaa");
  put_text(s, "suspect", "race int4:8x8:f32-f32 aaaa M=1", "why", "a run went down in it");
  ck_ok(qn_store_artifact_put(s, "aaaa", QN_OK, NULL, &a));
  ck_ok(qn_store_artifact_put(s, "cccc", QN_OK, NULL, &a));
  ck_ok(qn_store_artifact_put(s, "dddd", QN_E_COMPILE, "my.kernel/d: t.lua:3: error", &a));
  ck_ok(qn_store_forget(root, forgotten[_i].what, &n));
  ck_assert_uint_eq(n, forgotten[_i].n);
  ck_assert(qn_store_artifact_get(s, "aaaa", &status, &a, why, sizeof why));
  qn_artifact_free(&a);
  ck_assert(qn_store_artifact_get(s, "dddd", &status, &a, why, sizeof why) == !strstr(forgotten[_i].what, "d"));
  cJSON *other = qn_store_get(s, "evidence", "race int8:8x8:f32-f32 bbbb M=1");
  ck_assert_ptr_nonnull(other);
  cJSON_Delete(other);
  qn_store_close(s);
}
END_TEST

static void add_own(Suite *s, const char *name, const TTest *t) {
  TCase *c = tcase_create(name);
  tcase_set_timeout(c, 120);
  tcase_add_checked_fixture(c, own_root, drop_root);
  tcase_add_test(c, t);
  suite_add_tcase(s, c);
}

int main(int argc, char **argv) {
  (void)argc;
  Suite *s = suite_create("store");
  add_own(s, "round_trip", test_round_trip);
  add_own(s, "damage", test_damage);
  add_own(s, "foreign", test_foreign);
  add_own(s, "environment", test_environment);
  add_own(s, "layers", test_layers);
  add_own(s, "roots", test_roots);
  add_own(s, "home_unset", test_home_unset);
  add_own(s, "trust", test_trust);
  add_own(s, "artifacts", test_artifacts);
  add_own(s, "negative", test_negative);
  add_own(s, "file_too_large", test_file_too_large);
  add_own(s, "disk_full", test_disk_full);
  add_own(s, "killed_writer", test_killed_writer);
  add_own(s, "many_writers", test_many_writers);
  add_own(s, "list_verify_gc", test_list_verify_gc);
  add_own(s, "diff_merge", test_diff_merge);
  TCase *c = tcase_create("forget");
  tcase_add_checked_fixture(c, own_root, drop_root);
  tcase_add_loop_test(c, test_forget, 0, QN_COUNT(forgotten));
  suite_add_tcase(s, c);
  return run_suite(s, argv[0]);
}
