/* test_open.c - opening a pack: whose plans serve on which machine, files that are none, programs of other versions. */
#include "serve_fixture.h"
#include <sched.h>
#include <sys/stat.h>

START_TEST(test_packs_for_other_machines) {
  qn_context *c;
  char err[300] = "";
  write_pack("avx9000");
  ck_assert_int_eq(qn_open(path, NULL, &c, err, sizeof err), QN_E_DEVICE);
  ck_assert_msg(strstr(err, "needs a CPU with avx9000") != NULL, "%s", err);
  ck_assert_ptr_null(c);
  write_pack(qn__cpu_arch());
  qn_close(open_pack(NULL));
  const qn_open_options cuda = {.device = "cuda:7"}, unknown = {.device = "tpu"}, negative = {.threads = -1};
  ck_assert_int_eq(qn_open(path, &cuda, &c, err, sizeof err), QN_E_DEVICE);
  ck_assert_int_eq(qn_open(path, &unknown, &c, err, 10), QN_E_ARG);
  ck_assert_uint_eq(strlen(err), 9);
  ck_assert_int_eq(qn_open(path, &negative, &c, NULL, 0), QN_E_ARG);
  ck_assert_int_eq(qn_open(NULL, NULL, &c, NULL, 0), QN_E_ARG);
  ck_assert_int_eq(qn_open("/tmp/no/such.qpack", NULL, &c, err, sizeof err), QN_E_IO);
  code.data[18] = 243; /* an image for another CPU, in a pack that does not say so */
  write_pack("");
  ck_assert_int_eq(qn_open(path, NULL, &c, err, sizeof err), QN_E_DEVICE);
  ck_assert_msg(strstr(err, "machine 243") != NULL, "%s", err);
}
END_TEST

static qn_pack_builder *builder;

static void add_device(uint32_t i, const char *target, const char *arch, const char *product, int threads) {
  qn_plan plan = make_plan(64 + i, 96, QN_T_F32, false); /* N tells whose plans serve */
  qn_kernel one = kernel_one();
  one.hash[0] = (char)('a' + i);
  if (!strcmp(target, "cuda")) strcpy(one.target, target), strcpy(one.arch, arch);
  memcpy(plan.range[0].variant, one.hash, sizeof one.hash);
  plan.device = i, plan.n_ranges = 1;
  ck_ok(qn__pack_add_device(builder, target, arch, product, threads));
  ck_ok(qn__pack_add_kernel(builder, &one));
  ck_ok(qn__pack_add_plan(builder, &plan));
}

/* Whose plans serve, and with how many threads. */
static void check_choice(const qn_open_options *o, int device, int threads) {
  qn_context *c = open_pack(o);
  char spelling[64];
  snprintf(spelling, sizeof spelling, "int4.g32.f32:%dx96:f32-f32", 64 + device);
  ck_assert_str_eq(qn_problem_at(c, 0), spelling);
  ck_assert_int_eq(qn__context_device(c)->info.threads, threads);
  qn_close(c);
}

static void allow_cpus(int n) {
  cpu_set_t all, some;
  CPU_ZERO(&some);
  ck_assert_int_eq(sched_getaffinity(0, sizeof all, &all), 0);
  for (int i = 0; CPU_COUNT(&some) < n && i < CPU_SETSIZE; i++)
    if (CPU_ISSET(i, &all)) CPU_SET(i, &some);
  ck_assert_int_eq(sched_setaffinity(0, sizeof some, &some), 0);
}

/* A pack of several machines: the plans of the one most like this, and the threads that these were measured with. */
START_TEST(test_hosts_in_one_pack) {
  qn_device *here;
  ck_ok(qn__device_open(NULL, "host:1", &here));
  ck_ok(qn__pack_builder_new(&builder));
  add_device(0, "host", "x86-64 avx", "a small one", 7);
  add_device(1, "host", here->info.arch, "another", 1);
  add_device(2, "host", here->info.arch, here->info.product, 64);
  add_device(3, "host", here->info.arch, here->info.product, 1);
  ck_ok(qn__pack_write(builder, path));
  qn__pack_builder_free(builder);
  check_choice(&(qn_open_options){.threads = 40}, 2, 40);
  check_choice(&(qn_open_options){.device = "host:1"}, 3, 1);
  allow_cpus(1); /* what was measured with more than there are would wait for itself */
  check_choice(NULL, 3, 1);
  check_choice(&(qn_open_options){.device = "host", .threads = 3}, 3, 3);
  qn_context *c;
  char err[200];
  const qn_open_options two = {.device = "host:2"}, both = {.device = "host:1", .threads = 2}, many = {.threads = 1025};
  ck_assert_int_eq(qn_open(path, &two, &c, err, sizeof err), QN_E_ARG);
  ck_assert_msg(strstr(err, "from 1 to 1,") != NULL, "%s", err);
  ck_assert_int_eq(qn_open(path, &both, &c, err, sizeof err), QN_E_ARG);
  ck_assert_int_eq(qn_open(path, &many, &c, err, sizeof err), QN_E_ARG);
  ck_assert_msg(strstr(err, "1024") != NULL, "%s", err);
  qn__device_close(here);
  write_pack(""); /* one device, measured with two threads */
  c = open_pack(NULL);
  ck_assert_int_eq(qn__context_device(c)->info.threads, 1);
  qn_close(c);
}
END_TEST

static void close_gpu(qn_device *d) { (void)d; }
static qn_device_info pretended;
static qn_status open_gpu(const qn_allocator *heap, const char *name, qn_device **out) {
  (void)heap;
  static const qn_device_ops ops = {.close = close_gpu};
  static qn_device gpu;
  pretended = (qn_device_info){.target = "cuda", .product = "one"};
  snprintf(pretended.arch, sizeof pretended.arch, "%s", name + strlen("gpu:"));
  gpu = (qn_device){.ops = &ops, .info = pretended};
  return *out = &gpu, QN_OK;
}

/* Code for an architecture runs on later ones of its generation, and the latest of them is most like it; what has
 * features of its own (an a at the end) runs there only. */
START_TEST(test_gpus_in_one_pack) {
  static const struct {
    const char *device;
    int served;
    const char *refused;
  } cases[] = {{"gpu:sm_80", 0, NULL},
               {"gpu:sm_86", 1, NULL},
               {"gpu:sm_89", 1, NULL},
               {"gpu:sm_90a", 4, NULL},
               {"gpu:sm_90", 0, "the pack is for"},
               {"gpu:sm_75", 0, "is for sm_"}};
  qn__device_provide("gpu:", open_gpu);
  ck_ok(qn__pack_builder_new(&builder));
  add_device(0, "cuda", "sm_80", "", 0);
  add_device(1, "cuda", "sm_86", "", 0);
  add_device(2, "host", "", "", 1);
  add_device(3, "cuda", "sm_90a", "another", 0);
  add_device(4, "cuda", "sm_90a", "one", 0);
  ck_ok(qn__pack_write(builder, path));
  qn__pack_builder_free(builder);
  const qn_open_options o = {.device = cases[_i].device};
  qn_context *c;
  char err[200];
  if (!cases[_i].refused) check_choice(&o, cases[_i].served, 0);
  else ck_assert_int_eq(qn_open(path, &o, &c, err, sizeof err), QN_E_DEVICE);
}
END_TEST

/* A file replaced by a rename stays what it was for who has it open; what is no file is refused, not waited for. */
START_TEST(test_files) {
  qn_context *c = open_pack(NULL), *none;
  char other[80], err[200];
  snprintf(other, sizeof other, "%s.new", path);
  ck_assert_int_eq(rename(path, other), 0);
  ck_assert_int_eq(mkfifo(path, 0600), 0);
  qn_gemm *g;
  ck_ok(qn_bind(c, "int4.g32.f32:64x96", &g));
  qn_gemm_free(g);
  qn_close(c);
  ck_assert_int_eq(qn_open(path, NULL, &none, err, sizeof err), QN_E_IO);
  ck_assert_msg(strstr(err, "not a file") != NULL, "%s", err);
  unlink(other);
}
END_TEST

/* What a program of version 0.1.0 hands over. Sizes never change: a field that came later is zero here. */
typedef struct old_args {
  const void *x;
  const float *x_scale;
  const void *bias;
  void *y;
  int64_t m, ldx, ldy;
  void *workspace, *stream;
  uint64_t zero[8];
} old_args;
_Static_assert(sizeof(old_args) == sizeof(qn_args), "qn_args");
_Static_assert(sizeof(qn_open_options) == 88 && sizeof(qn_function_args) == 208, "qn_open_options, qn_function_args");
_Static_assert(sizeof(qn_planes) == 32 + QN_MAX_PLANES * sizeof(qn_plane) + 72, "qn_planes");

/* Older programs are served; what a newer one may ask for, and what was not initialised, is refused in any word. */
START_TEST(test_programs_of_other_versions) {
  qn_context *c = open_pack(NULL), *none;
  qn_gemm *g;
  qn_weight *w, *no_weight;
  bench b = make_bench(64, 96, 3, false, false, 8);
  ck_ok(qn_bind(c, "int4.g32.f32:64x96", &g));
  ck_ok(qn_prepack(g, &b.w.planes, &w));
  qn_args a = args_of(&b, g), old;
  const old_args of_old = {.x = b.x, .y = b.y, .m = b.m, .ldx = b.ldx, .ldy = b.ldy, .workspace = b.ws};
  memcpy(&old, &of_old, sizeof old);
  run_and_compare(&b, g, w, &old);
  for (size_t i = 0; i < QN_COUNT(a.reserved); i++) {
    qn_args newer = a;
    newer.reserved[i] = 1;
    ck_fails(QN_E_ARG, "qn_args.reserved", qn_run(g, w, &newer));
  }
  for (size_t i = 0; i < QN_COUNT(b.w.planes.reserved); i++) {
    qn_planes newer = b.w.planes;
    newer.reserved[i] = UINT64_C(1) << 63;
    ck_fails(QN_E_ARG, "qn_planes.reserved", qn_prepack(g, &newer, &no_weight));
  }
  for (size_t i = 0; i < QN_COUNT(((qn_open_options *)0)->reserved); i++) {
    qn_open_options newer = {.device = "host"};
    newer.reserved[i] = 1;
    ck_fails(QN_E_ARG, "qn_open_options.reserved", qn_open(path, &newer, &none, NULL, 0));
  }
  free_bench(&b);
  qn_weight_free(w);
  qn_gemm_free(g);
  qn_close(c);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(test_packs_for_other_machines, 1),   CASE(test_hosts_in_one_pack, 1),
      CASE(test_gpus_in_one_pack, 6),           CASE(test_files, 1),
      CASE(test_programs_of_other_versions, 1),
  };
  return RUN_CASES(argv[0], cases, set_up, tear_down, 120);
}
