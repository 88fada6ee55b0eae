/* test_library.c - what an engine may count on: errors are the thread's own, memory comes from whom it names, a run
 * allocates nothing, and the library holds nothing but what serving needs. */
#include "serve_fixture.h"
#include <pthread.h>

static void *fail_elsewhere(void *unused) {
  qn_context *c;
  ck_assert_int_eq(qn_open("/tmp/no/such.qpack", NULL, &c, NULL, 0), QN_E_IO);
  return unused;
}

/* The detail is the thread's own, and no success changes it. */
START_TEST(test_errors_of_threads) {
  qn_context *c = open_pack(NULL);
  qn_gemm *g = (qn_gemm *)&c;
  pthread_t thread;
  ck_fails(QN_E_ARG, "form is", qn_bind(c, "nonsense", &g));
  ck_assert_ptr_null(g);
  g = (qn_gemm *)&c;
  ck_fails(QN_E_ARG, "NULL", qn_bind(NULL, "int4.g32.f32:64x96", &g));
  ck_assert_ptr_null(g);
  char before[512];
  snprintf(before, sizeof before, "%s", qn_errmsg());
  ck_assert_int_eq(pthread_create(&thread, NULL, fail_elsewhere, NULL), 0);
  pthread_join(thread, NULL);
  ck_ok(qn_bind(c, "int4.g32.f32:64x96", &g));
  ck_assert_str_eq(qn_errmsg(), before);
  ck_assert_ptr_null(strchr(before, '\n'));
  qn_gemm_free(g);
  qn_close(c);
}
END_TEST

/* An allocator that keeps books, and fails once. In front of a block stands its size. */
typedef struct books {
  size_t blocks, bytes, calls, fail_at;
  bool wrong; /* a size was handed back that was not given */
} books;

static void *kept(void *user, void *p, size_t old_size, size_t new_size) {
  enum { front = 16 };
  books *b = user;
  char *whole = p ? (char *)p - front : NULL;
  b->wrong |= (whole ? *(size_t *)(void *)whole : 0) != old_size;
  if (new_size && ++b->calls == b->fail_at) return NULL;
  b->blocks += (new_size != 0) - (p != NULL), b->bytes += new_size - old_size;
  if (!new_size) return free(whole), NULL;
  whole = realloc(whole, front + new_size);
  *(size_t *)(void *)whole = new_size;
  return whole + front;
}

/* The call; where it meets the failure it says so, and works when it is made again. */
#define MAY_FAIL(call)                                                                                                 \
  do {                                                                                                                 \
    qn_status failed_ = (call);                                                                                        \
    if (failed_)                                                                                                       \
      ck_assert_msg(failed_ == QN_E_NOMEM && account.calls >= account.fail_at, "%s: %s", #call, qn_errmsg());          \
    if (failed_) ck_ok(call);                                                                                          \
  } while (0)

/* Every allocation fails in turn. All that was taken goes back, with its size, and a call takes nothing. */
START_TEST(test_memory_runs_out) {
  bench b = make_bench(64, 96, 12, true, true, 9);
  books account = {0};
  const qn_open_options o = {.device = "host", .threads = 2, .allocator = {kept, &account}};
  do {
    qn_context *c;
    qn_gemm *g;
    qn_weight *w;
    account.calls = 0, account.fail_at++;
    MAY_FAIL(qn_open(path, &o, &c, NULL, 0));
    MAY_FAIL(qn_bind(c, "int4.g32.f32:64x96:f32-f32+bias", &g));
    MAY_FAIL(qn_prepack(g, &b.w.planes, &w));
    size_t before = account.calls;
    qn_args a = args_of(&b, g);
    run_and_compare(&b, g, w, &a);
    ck_assert_uint_eq(account.calls, before);
    free(b.ws), b.ws = NULL;
    qn_weight_free(w);
    qn_gemm_free(g);
    qn_close(c);
    ck_assert(!account.blocks && !account.bytes && !account.wrong);
  } while (account.calls >= account.fail_at);
  ck_assert_uint_gt(account.fail_at, 15); /* what there is to fail */
  free_bench(&b);
}
END_TEST

#if QN_LEAN /* sanitizers have an allocator of their own */
static _Atomic size_t allocations;
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);
void *malloc(size_t size) {
  allocations++;
  return __libc_malloc(size);
}
void *calloc(size_t n, size_t size) {
  allocations++;
  return __libc_calloc(n, size);
}
void *realloc(void *p, size_t size) {
  allocations++;
  return __libc_realloc(p, size);
}

/* A call allocates nothing, in either range of M, with a permutation or none; binding does. */
START_TEST(test_runs_do_not_allocate) {
  qn_context *c = open_pack(&(qn_open_options){.threads = 3});
  qn_gemm *g;
  qn_weight *w;
  size_t before = allocations;
  ck_ok(qn_bind(c, "int4.g32.f32:64x96", &g));
  ck_assert_uint_gt(allocations, before);
  bench b = make_bench(64, 96, _i & 1 ? 12 : 1, false, _i > 1, 5);
  ck_ok(qn_prepack(g, &b.w.planes, &w));
  qn_args a = args_of(&b, g);
  before = allocations;
  qn_status s = QN_OK;
  for (int i = 0; i < 50 && !s; i++) s = qn_run(g, w, &a);
  ck_assert_uint_eq(allocations, before);
  ck_ok(s);
  free_bench(&b);
  qn_weight_free(w);
  qn_gemm_free(g);
  qn_close(c);
}
END_TEST
#endif

START_TEST(test_names_of_statuses_and_types) {
  ck_assert_str_eq(qn_status_name(QN_E_SHAPE), "QN_E_SHAPE");
  ck_assert_str_eq(qn_status_text(QN_E_SHAPE), "shape not supported");
  ck_assert_ptr_nonnull(qn_status_name((qn_status)-1));
  ck_assert_ptr_nonnull(qn_status_text((qn_status)1000));
  ck_assert_str_eq(qn_version(), QN_VERSION);
  for (int t = 0; qn_type_name((qn_type)t); t++) ck_assert_int_eq(qn_type_from_name(qn_type_name((qn_type)t)), t);
  ck_assert_ptr_null(qn_type_name((qn_type)-1));
  ck_assert_int_eq(qn_type_bits((qn_type)-1), 0);
  for (int i = 0; i < 100; i++) ck_assert_int_eq(!qn_type_name((qn_type)i), !qn_type_bits((qn_type)i) && i);
  ck_assert_int_eq(qn_type_bits(QN_T_BF16), 16);
  ck_assert_int_eq(qn_type_from_name("u4"), QN_T_NONE);
  ck_assert_int_eq(qn_type_from_name(NULL), QN_T_NONE);
}
END_TEST

/* What an engine links: the C library only, small, no name but those of the header, nothing that prints or ends the
 * process. */
#define DECLARED(headers)                                                                                              \
  "\"$(cd " QN_TESTS "/../runtime && grep -h '^QN_API' " headers " | grep -oE 'qn_[a-z0-9_]+\\(' | tr -d '(' | "       \
  "sort)\""
#define EXPORTS(library, header)                                                                                       \
  "test \"$(nm -D --defined-only " library " | awk '{ print $3 }' | sort)\" = " DECLARED(header)

/* What crosses a file begins with qn__, unless an installed header declares it. */
#define NAMES                                                                                                          \
  "test -z \"$(nm " QN_BUILD "/quernel " QN_BUILD "/quernel-worker | awk '$2 ~ /^[TDBRC]$/ && !/@/ { print $3 }'"      \
  " | grep -vE '^(qn__|_|main$|luaopen_quernel$)' | grep -vxF " DECLARED("quernel.h io/quernel_io.h") ")\""

/* Every function of its sources is in it, but for those by which the tool and the tests get at its inside. */
#define SEAMS                                                                                                          \
  "qn__bound_run|qn__context_device|qn__cuda_driver|qn__cuda_(driver_of|enter|leave|result)|qn__device_provide|"       \
  "qn__expr_f64|qn__gemm_problem|qn__launch_args"
#define HOLDS_ALL                                                                                                      \
  "in=$(nm %s | awk '{ print $3 }') && test -z \"$(nm " QN_BUILD "/runtime/libquernel_static.a | "                     \
  "awk '$2 == \"T\" { print $3 }' | grep -vxF \"$in\" | grep -vxE '" SEAMS "')\""

START_TEST(test_library_is_lean) {
  static const char *const commands[] = {
      HOLDS_ALL,
      NAMES,
      "readelf -d %s | grep -q 'NEEDED.*libc\\.so' && nm %s | grep -q ' qn_run$'", /* these programs see it */
      "test -z \"$(readelf -d %s | grep NEEDED | grep -vE 'lib(c|m|dl|pthread)\\.so|ld-linux|lib[atu]*san')\"",
      "test -z \"$(nm %s | grep -E ' (lua_|luaL_|ffi_|cJSON_|qn__compile)')\"",
      EXPORTS("%s", "quernel.h"),
      EXPORTS(QN_BUILD "/runtime/io/libquernel-io.so", "io/quernel_io.h"),
      ("test -z \"$(nm -D --undefined-only %s | grep -wE "
       "'exit|_exit|abort|v?printf|puts|putchar|perror|__assert_fail')\""),
      "c=$(mktemp) && strip -o $c %s && s=$(stat -c %%s $c) && rm $c && test $s -lt 200000",
  };
  char command[800];
  snprintf(command, sizeof command, commands[_i], QN_BUILD "/runtime/libquernel.so", QN_BUILD "/runtime/libquernel.so");
  ck_assert_msg(system(command) == 0, "%s", command);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
    CASE(test_errors_of_threads, 1),
    CASE(test_memory_runs_out, 1),
#if QN_LEAN
    CASE(test_runs_do_not_allocate, 4),
#endif
    CASE(test_names_of_statuses_and_types, 1),
    CASE(test_library_is_lean, QN_LEAN),
  };
  return RUN_CASES(argv[0], cases, set_up, tear_down, 120);
}
