/* test_store_tools.c - what looks after stores: list, verify, gc, diff, merge, forget. */
#include "hash.h"
#include "store_fixture.h"
#include "store_tools.h"

static void put_samples(qn_store *s, const char *key, double x, int samples) {
  cJSON *j = cJSON_CreateObject();
  cJSON_AddNumberToObject(j, "seconds", x);
  cJSON_AddNumberToObject(j, "samples", samples);
  ck_ok(qn__store_put(s, "evidence", key, j));
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
  ck_ok(qn__store_artifact_put(s, variant, QN_OK, NULL, &a));
  ck_ok(qn__store_artifact_put(s, other, QN_OK, NULL, &unused));
  ck_ok(qn__store_artifact_put(s, other, QN_E_COMPILE, "why", &unused)); /* its image is named no more */
  qn_store_environment e = {0};
  ck_ok(qn__store_list(root, note_environment, &e));
  ck_assert(e.evidence == 2 && e.artifacts == 1 && e.failures == 1 && e.plans == 0 && e.damaged == 0 && e.bytes > 0);
  int reports = 0;
  ck_ok(qn__store_verify(root, count_report, &reports));
  ck_assert_int_eq(reports, 0);

  files(s, "evidence", ".json", path);
  save(path, "{}", 2);
  snprintf(path, sizeof path, "%s/evidence/.0123.json.AbCdEf", qn__store_path(s));
  save(path, "half", 4);
  ck_ok(qn__store_verify(root, count_report, &reports));
  ck_assert_int_eq(reports, 2);
  qn_store_counts c;
  ck_ok(qn__store_gc(root, -1, &c));
  ck_assert(c.removed == 3 && c.damaged == 2);
  qn_status status;
  char why[64];
  ck_assert(qn__store_artifact_get(s, variant, &status, &a, why, sizeof why));
  ck_assert_uint_eq(a.size, 5);
  qn__artifact_free(&a);
  ck_ok(qn__store_gc(root, -1, &c));
  ck_assert_uint_eq(c.removed, 0);
  ck_ok(qn__store_merge(lower, root, NULL, NULL, &c));
  for (const int *way = (const int[]){S_IFIFO, S_IFDIR, 0}; *way; way++) {
    put(s, "z", 3);
    snprintf(path, sizeof path, "%s/evidence/", qn__store_path(s));
    qn__hash_hex("z", 1, path + strlen(path));
    block(strcat(path, ".json"), *way);
    files(s, "artifact", ".bin", path);
    block(path, *way);
    reports = 0;
    ck_ok(qn__store_verify(root, count_report, &reports));
    ck_assert_int_eq(reports, 2);
    ck_ok(qn__store_merge(lower, root, NULL, NULL, &c));
    ck_assert_uint_eq(c.damaged, 2);
    ck_ok(qn__store_gc(root, -1, &c));
    ck_assert_uint_eq(c.removed, 2);
    ck_ok(qn__store_merge(root, lower, NULL, NULL, &c)); /* the image comes back */
  }
  ck_fails(QN_E_IO, "/no/such/root", qn__store_list("/no/such/root", note_environment, NULL));
  qn__store_close(s);
}
END_TEST

/* What an earlier version left is not damaged, but goes. */
START_TEST(test_older_entries) {
  static const char earlier[] = "{\"schema\":1,\"key\":\"v\",\"sum\":\"0\",\"value\":{}}";
  qn_store *s = open_at(root);
  qn_store_environment e = {0};
  qn_store_counts c;
  char path[1024];
  int reports = 0;
  put(s, "x", 1);
  snprintf(path, sizeof path, "%s/evidence/earlier.json", qn__store_path(s));
  save(path, earlier, sizeof earlier - 1);
  ck_ok(qn__store_list(root, note_environment, &e));
  ck_assert(e.evidence == 1 && e.older == 1 && e.damaged == 0);
  ck_ok(qn__store_verify(root, count_report, &reports));
  ck_assert_int_eq(reports, 0);
  ck_ok(qn__store_gc(root, -1, &c));
  ck_assert_uint_eq(c.removed, 1);
  qn__store_close(s);
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
  ck_ok(qn__store_artifact_put(theirs, variant, QN_OK, NULL, &a));
  difference d = {0};
  ck_ok(qn__store_diff(root, lower, note_difference, &d));
  ck_assert(d.only_a == 1 && d.only_b == 2 && d.both == 2);
  char path[1024], text[4096];
  put_samples(mine, "torn", 1, 100);
  snprintf(path, sizeof path, "%s/evidence/", qn__store_path(mine));
  qn__hash_hex("torn", 4, path + strlen(path));
  strcat(path, ".json");
  size_t n = load(path, text, sizeof text);
  save(path, text, n / 2); /* a torn one of mine loses to a whole one */
  qn_store_counts c;
  ck_ok(qn__store_merge(root, lower, NULL, NULL, &c));
  ck_assert_msg(c.copied == 3 && c.replaced == 2 && c.kept == 1 && c.same == 1 && c.damaged == 0,
                "copied %zu replaced %zu kept %zu same %zu damaged %zu", c.copied, c.replaced, c.kept, c.same,
                c.damaged);
  ck_assert(get(mine, "same") == 1 && get(mine, "weaker") == 1.5 && get(mine, "stronger") == 2);
  ck_assert(get(mine, "mine") == 7 && get(mine, "theirs") == 8 && get(mine, "torn") == 9);
  ck_assert(get(theirs, "mine") == -1 && get(theirs, "stronger") == 1.5); /* only read */
  qn_status status;
  char why[64];
  ck_assert(qn__store_artifact_get(mine, variant, &status, &a, why, sizeof why));
  qn__artifact_free(&a);
  ck_ok(qn__store_merge(root, lower, NULL, NULL, &c));
  ck_assert(c.copied == 0 && c.replaced == 0 && c.kept == 1); /* twice is once */
  qn__store_close(mine);
  qn__store_close(theirs);
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
  ck_ok(qn__store_put(s, kind, key, j));
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
  ck_ok(qn__store_artifact_put(s, "aaaa", QN_OK, NULL, &a));
  ck_ok(qn__store_artifact_put(s, "cccc", QN_OK, NULL, &a));
  ck_ok(qn__store_artifact_put(s, "dddd", QN_E_COMPILE, "my.kernel/d: t.lua:3: error", &a));
  ck_ok(qn__store_forget(root, forgotten[_i].what, &n));
  ck_assert_uint_eq(n, forgotten[_i].n);
  ck_assert(qn__store_artifact_get(s, "aaaa", &status, &a, why, sizeof why));
  qn__artifact_free(&a);
  ck_assert(qn__store_artifact_get(s, "dddd", &status, &a, why, sizeof why) == !strstr(forgotten[_i].what, "d"));
  cJSON *other = qn__store_get(s, "evidence", "race int8:8x8:f32-f32 bbbb M=1");
  ck_assert_ptr_nonnull(other);
  cJSON_Delete(other);
  qn__store_close(s);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(test_list_verify_gc, 1),
      CASE(test_older_entries, 1),
      CASE(test_diff_merge, 1),
      CASE(test_forget, QN_COUNT(forgotten)),
  };
  return RUN_CASES(argv[0], cases, own_root, drop_root, 120);
}
