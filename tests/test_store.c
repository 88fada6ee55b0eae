/* test_store.c - the store with invented devices: what is put is got, what is damaged is a miss; environments, layers,
 * artifacts. */
#include "compile.h"
#include "store_fixture.h"
#include <pwd.h>
#include <sys/wait.h>

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
  qn__store_close(s);
  s = open_at(root);
  double sum = 0, want = 0;
  for (size_t i = 0; i < QN_COUNT(keys); i++) {
    ck_assert(get(s, keys[i]) == 1.1e-5 * (double)(1 << i)); /* to the last bit */
    want += get(s, keys[i]);
  }
  ck_assert(get(s, "y") == -1);
  ck_assert_ptr_null(qn__store_get(s, "plan", keys[0])); /* kinds are apart */
  ck_ok(qn__store_each(s, "evidence", sum_up, &sum));
  ck_assert_double_eq_tol(sum, want, 1e-12);
  int calls = 0;
  ck_ok(qn__store_each(s, "evidence", stop_at_once, &calls));
  ck_assert_int_eq(calls, 1);
  ck_ok(qn__store_each(s, "nothing", stop_at_once, &calls));
  ck_assert_int_eq(calls, 1);
  qn__store_close(s);
  qn__store_close(NULL);
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
    ck_ok(qn__store_each(s, "evidence", stop_at_once, &(int){0}));
    text[bit / 8] ^= (char)(1 << bit % 8);
  }
  ck_assert_msg(misses > (int)(7 * n), "%d misses of %zu bits", misses, 8 * n);
  save(path, text, n);
  ck_assert(get(s, key) == 0.25);
  qn__store_close(s);
}
END_TEST

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
  snprintf(other, sizeof other, "%s/evidence/00000000000000000000000000000000.json", qn__store_path(s));
  save(other, text, n); /* whole, but nobody would look for it there */
  int calls = 0;
  for (const char *const *k = (const char *const[]){"[1,2", "{}", "null", "{\"schema\":1,\"key\":3}", "", NULL}; *k;
       k++) {
    save(path, *k, strlen(*k));
    ck_assert(get(s, "a") == -1);
  }
  ck_ok(qn__store_each(s, "evidence", stop_at_once, &calls));
  ck_assert_int_eq(calls, 0);
  unlink(other);
  for (const int *way = (const int[]){S_IFIFO, S_IFDIR, 0}; *way; way++) { /* a FIFO would be waited for, for ever */
    block(path, *way);
    ck_assert(get(s, "a") == -1);
    ck_ok(qn__store_each(s, "evidence", stop_at_once, &calls));
    ck_assert_int_eq(calls, 0);
    put(s, "a", 7);
    ck_assert(get(s, "a") == 7);
    ck_assert_int_eq(files(s, "evidence", "", NULL), 1); /* nothing temporary is left */
  }
  qn__store_close(s);
}
END_TEST

/* ---- Environments and layers ------------------------------------------------------------------------------------- */

static void path_of(const qn_device_info *d, const char *compiler, const char *policy, char out[1024]) {
  qn_store *s;
  ck_ok(qn__store_open(root, d, compiler, policy, &s));
  snprintf(out, 1024, "%s", qn__store_path(s));
  qn__store_close(s);
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
  qn__store_close(system);
  setenv("QUERNEL_CACHE_SYSTEM", lower, 1);
  qn_store *s = open_at(root);
  ck_assert(get(s, "x") == 1);
  put(s, "x", 10); /* the user's comes first, and alone is written */
  ck_assert(get(s, "x") == 10);
  double sum = 0;
  ck_ok(qn__store_each(s, "evidence", sum_up, &sum));
  ck_assert(sum == 12); /* each once */
  char path[1024];
  ck_assert_int_eq(files(s, "evidence", ".json", path), 1);
  save(path, "torn", 4); /* a damaged entry hides nothing */
  ck_assert(get(s, "x") == 1);
  sum = 0;
  ck_ok(qn__store_each(s, "evidence", sum_up, &sum));
  ck_assert(sum == 3);
  qn__store_close(s);
}
END_TEST

START_TEST(test_roots) {
  char path[1024], text[5000];
  qn_store *s;
  setenv("QUERNEL_CACHE", root, 1);
  s = open_at(NULL);
  ck_assert(!strncmp(qn__store_path(s), root, strlen(root)));
  qn__store_close(s);
  unsetenv("QUERNEL_CACHE");
  setenv("XDG_CACHE_HOME", root, 1);
  s = open_at("");
  snprintf(path, sizeof path, "%s/quernel/", root);
  ck_assert(!strncmp(qn__store_path(s), path, strlen(path)));
  qn__store_close(s);
  unsetenv("XDG_CACHE_HOME");
  setenv("HOME", lower, 1);
  s = open_at(NULL);
  snprintf(path, sizeof path, "%s/.cache/quernel/", lower);
  ck_assert(!strncmp(qn__store_path(s), path, strlen(path)));
  qn__store_close(s);
  ck_fails(QN_E_IO, "/dev/null", qn__store_open("/dev/null/store", &gpu, "c", "cold", &s));
  ck_assert_ptr_null(s);
  memset(text, 'x', sizeof text - 1);
  text[0] = '/', text[sizeof text - 1] = 0;
  ck_fails(QN_E_LIMIT, "too long", qn__store_open(text, &gpu, "c", "cold", &s));
}
END_TEST

/* Nobody's home is the shared folder for temporary files, nor wherever a program happens to be started. */
START_TEST(test_home_unset) {
  char want[PATH_MAX], found[PATH_MAX];
  snprintf(want, sizeof want, "%s/.cache/quernel", getpwuid(getuid())->pw_dir);
  unsetenv("QUERNEL_CACHE"), unsetenv("XDG_CACHE_HOME"), unsetenv("HOME");
  for (const char *const *home = (const char *const[]){"", ".", "tmp", NULL}; *home; home++) {
    ck_ok(qn__store_root(NULL, found));
    ck_assert_str_eq(found, want);
    setenv("HOME", *home, 1), setenv("XDG_CACHE_HOME", *home, 1);
  }
  int status = 0;
  pid_t nobody = fork(); /* whom the password database does not know, if we may become that */
  if (!nobody)
    _exit(!setuid(3000000) && (qn__store_root(NULL, found) != QN_E_IO || !strstr(qn__errmsg(), "set QUERNEL_")));
  waitpid(nobody, &status, 0);
  ck_assert_int_eq(status, 0);
}
END_TEST

/* What a store holds is run: not from where everybody writes, nor from another user's that was not asked for. */
START_TEST(test_trust) {
  qn_store *s;
  char path[128];
  chmod(root, 0777);
  ck_fails(QN_E_IO, "chmod o-w", qn__store_open(root, &gpu, "c", "cold", &s));
  chmod(root, 0775);
  qn__store_close(open_at(root));
  setenv("XDG_CACHE_HOME", root, 1);
  qn__store_close(open_at(NULL));
  snprintf(path, sizeof path, "%s/quernel", root);
  if (chown(path, 3000000, 3000000)) return; /* that takes root */
  ck_fails(QN_E_IO, "user 3000000's", qn__store_open(NULL, &gpu, "c", "cold", &s));
  qn__store_close(open_at(path));
}
END_TEST

/* ---- Artifacts --------------------------------------------------------------------------------------------------- */

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
  ck_assert(!qn__store_artifact_get(s, variant, &status, &b, why, sizeof why));
  ck_ok(qn__store_artifact_put(s, variant, QN_OK, NULL, &a));
  ck_assert(qn__store_artifact_get(s, variant, &status, &b, why, sizeof why));
  ck_assert_int_eq(status, QN_OK);
  ck_assert(b.size == a.size && !memcmp(b.image, a.image, a.size));
  ck_assert_str_eq(b.ptx, a.ptx);
  ck_assert(b.registers == 92 && b.shared == 4096 && b.spills == 0 && b.seconds == 0.125 && strlen(b.hash) == 32);
  qn__artifact_free(&b);
  ck_assert_int_eq(files(s, "artifact", ".bin", path), 1);
  for (size_t bit = 0; bit < 8 * a.size; bit++) { /* any bit of the image: a miss */
    memcpy(bytes, a.image, a.size);
    bytes[bit / 8] ^= (char)(1 << bit % 8);
    save(path, bytes, a.size);
    ck_assert(!qn__store_artifact_get(s, variant, &status, &b, why, sizeof why));
  }
  for (size_t n = 0; n < a.size; n++) {
    save(path, (char *)a.image, n);
    ck_assert(!qn__store_artifact_get(s, variant, &status, &b, why, sizeof why));
  }
  ck_ok(qn__store_artifact_put(s, variant, QN_OK, NULL, &a)); /* made whole again */
  ck_assert(qn__store_artifact_get(s, variant, &status, &b, why, sizeof why));
  qn__artifact_free(&b);
  files(s, "artifact", ".ptx", path);
  unlink(path);
  ck_assert(!qn__store_artifact_get(s, variant, &status, &b, why, sizeof why));
  qn__store_close(s);
}
END_TEST

/* A real failure to compile is remembered with the template's line. */
START_TEST(test_negative) {
  qn_store *s = open_at(root);
  qn_source source = {.name = "v", .target = "host", .text = "#line 9 \"templates/kernels/host/t.lua\"\nint f( {}\n"};
  qn_artifact a;
  qn_status status = qn__compile(&source, &a), known;
  char why[256];
  ck_assert_int_eq(status, QN_E_COMPILE);
  ck_ok(qn__store_artifact_put(s, variant, status, qn__errmsg(), &a));
  qn__artifact_free(&a);
  qn__store_close(s);
  s = open_at(root);
  ck_assert(qn__store_artifact_get(s, variant, &known, &a, why, sizeof why));
  ck_assert_int_eq(known, QN_E_COMPILE);
  ck_assert_ptr_null(a.image);
  ck_assert_msg(strstr(why, "templates/kernels/host/t.lua:9:") != NULL, "%s", why);
  qn__store_close(s);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(test_round_trip, 1), CASE(test_damage, 1),   CASE(test_foreign, 1),    CASE(test_environment, 1),
      CASE(test_layers, 1),     CASE(test_roots, 1),    CASE(test_home_unset, 1), CASE(test_trust, 1),
      CASE(test_artifacts, 1),  CASE(test_negative, 1),
  };
  return RUN_CASES(argv[0], cases, own_root, drop_root, 120);
}
