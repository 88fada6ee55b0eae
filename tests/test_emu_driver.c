/* test_emu_driver.c - the interpreter behind the CUDA device: what a GPU's driver would do, and what it must refuse. */
#include "driver.h"
#include "runtime_fixture.h"
#include "timer.h"

/* add: y[i] += step * i, over n ints; writes one int beyond them when step is 77, and never ends when it is 99. hold
 * has static shared memory. */
static const char ptx[] = ".version 8.0\n.target sm_80\n.address_size 64\n"
                          ".visible .entry add(.param .u64 y, .param .u32 n, .param .u32 step)\n"
                          "{\n"
                          ".reg .pred %p<3>;\n.reg .b32 %r<8>;\n.reg .b64 %rd<4>;\n"
                          "ld.param.u64 %rd1, [y];\nld.param.u32 %r1, [n];\nld.param.u32 %r2, [step];\n"
                          "mov.u32 %r3, %ctaid.x;\nmov.u32 %r4, %ntid.x;\nmov.u32 %r5, %tid.x;\n"
                          "mad.lo.s32 %r3, %r3, %r4, %r5;\n"
                          "setp.eq.u32 %p2, %r2, 99;\nAGAIN:\n@%p2 bra AGAIN;\n"
                          "setp.eq.u32 %p2, %r2, 77;\n@%p2 add.u32 %r1, %r1, 1;\n"
                          "setp.ge.u32 %p1, %r3, %r1;\n@%p1 ret;\n"
                          "mul.wide.u32 %rd2, %r3, 4;\nadd.s64 %rd3, %rd1, %rd2;\n"
                          "ld.global.u32 %r6, [%rd3];\nmad.lo.s32 %r6, %r3, %r2, %r6;\nst.global.u32 [%rd3], %r6;\n"
                          "ret;\n}\n"
                          ".visible .entry hold(.param .u64 y, .param .u32 n, .param .u32 step)\n"
                          "{\n.shared .align 4 .b8 held[128];\nst.shared.u32 [held], 1;\nret;\n}\n";

enum { count = 100 };

typedef struct rig {
  qn_device *device;
  qn_module *module;
  qn_step step;
  qn_launch launch;
  void *y;
} rig;

static rig open_rig(const char *device) {
  rig r = {.step = {.entry = "add", .n_args = 3, .arg = {QN_ARG_Y, QN_ARG_N, QN_ARG_K}}};
  int32_t zero[count] = {0};
  ck_ok(qn__emu_device_open(NULL, device, &r.device));
  ck_ok(r.device->ops->module_load(r.device, ptx, sizeof ptx, &r.module));
  r.launch = (qn_launch){.grid = {4, 1, 1}, .block = {32, 1, 1}, .cluster = {1, 1, 1}};
  ck_ok(r.device->ops->entry(r.device, r.module, "add", 0, &r.launch.fn));
  ck_ok(r.device->ops->alloc(r.device, sizeof zero, &r.y));
  ck_ok(r.device->ops->upload(r.device, r.y, zero, sizeof zero));
  return r;
}

static qn_status enqueue(rig *r, int64_t step, void *stream) {
  r->launch.step = &r->step;
  return r->device->ops->launch(r->device, &r->launch, &(qn_host_args){.y = r->y, .n = count, .k = step}, stream);
}

static void expect(rig *r, int32_t step) {
  int32_t y[count];
  ck_ok(r->device->ops->download(r->device, y, r->y, sizeof y));
  for (int i = 0; i < count; i++) ck_assert_int_eq(y[i], step * i);
}

static void close_rig(rig *r) {
  r->device->ops->module_free(r->device, r->module);
  r->device->ops->free(r->device, r->y);
  qn__device_close(r->device);
}

START_TEST(is_a_device_of_its_architecture) {
  rig r = open_rig("emu:sm_90a");
  ck_assert_str_eq(r.device->info.name, "emu:sm_90a");
  ck_assert_str_eq(r.device->info.target, "cuda");
  ck_assert_str_eq(r.device->info.arch, "compute_90a");
  ck_assert_int_eq(r.device->info.sm, 90);
  ck_assert_int_eq(r.device->info.smem, 227 << 10);
  ck_assert_int_eq(r.device->info.timed, 0);
  close_rig(&r);
}
END_TEST

START_TEST(launches_in_order_and_counts) {
  rig r = open_rig("emu:sm_80");
  ck_ok(enqueue(&r, 2, NULL));
  ck_ok(enqueue(&r, 3, NULL));
  ck_ok(r.device->ops->sync(r.device, NULL));
  expect(&r, 5);
  const qn_emu_counters *c = qn__emu_device_counters(r.device);
  ck_assert_uint_eq(c->ctas, 4);
  ck_assert_uint_eq(c->global_load_bytes, count * 4);
  ck_assert_uint_eq(c->global_store_bytes, count * 4);
  close_rig(&r);
}
END_TEST

/* A stream and its graph, through the driver's own functions as the tuner's timer calls them. */
static qn_status enqueue_step(void *ud, int i, void *stream) { return enqueue(ud, i + 1, stream); }

START_TEST(refuses_to_be_timed) {
  rig r = open_rig("emu:sm_80");
  qn_cuda_timer *t;
  double seconds;
  ck_ok(qn__cuda_timer_new(r.device, &t));
  ck_fails(QN_E_CUDA, "must not be timed", qn__cuda_time(t, _i, enqueue_step, &r, 3, 1, &seconds));
  expect(&r, 6); /* the untimed run: 1 + 2 + 3, launched one by one or replayed from a graph; capturing ran nothing */
  qn__cuda_timer_free(t);
  close_rig(&r);
}
END_TEST

START_TEST(a_finding_destroys_the_context) {
  rig r = open_rig("emu:sm_80");
  ck_ok(enqueue(&r, 77, NULL)); /* as on a GPU, the launch itself succeeds */
  ck_fails(QN_E_CUDA, "outside its allocation", r.device->ops->sync(r.device, NULL));
  ck_fails(QN_E_CUDA, "earlier error", enqueue(&r, 1, NULL));
  qn__device_close(r.device);
  rig again = open_rig("emu:sm_80"); /* a new context knows nothing of it */
  ck_ok(enqueue(&again, 1, NULL));
  expect(&again, 1);
  close_rig(&again);
}
END_TEST

/* What runs far longer than its products can take hangs; the next case's context knows nothing of it. */
START_TEST(a_hang_is_found_soon) {
  rig r = open_rig("emu:sm_80");
  ck_ok(enqueue(&r, 99, NULL));
  ck_fails(QN_E_CUDA, "instruction budget used up", r.device->ops->sync(r.device, NULL));
  close_rig(&r);
}
END_TEST

/* 128 static bytes and 64 less than 48 KB of dynamic ones are beyond what a function has without asking. */
START_TEST(shared_memory_beyond_48_kb_is_asked_for) {
  rig r = open_rig("emu:sm_80");
  r.launch.shared = (48 << 10) - 64;
  ck_ok(r.device->ops->entry(r.device, r.module, "hold", r.launch.shared, &r.launch.fn));
  ck_ok(enqueue(&r, 1, NULL));
  ck_ok(r.device->ops->entry(r.device, r.module, "hold", 0, &r.launch.fn)); /* a caller that does not say it */
  ck_fails(QN_E_CUDA, "beside 128 of static", enqueue(&r, 1, NULL));
  r.launch.shared = (48 << 10) - 128;
  ck_ok(enqueue(&r, 1, NULL));
  ck_fails(QN_E_CUDA, "more shared memory than a block can have",
           r.device->ops->entry(r.device, r.module, "hold", 166912, &r.launch.fn));
  close_rig(&r);
}
END_TEST

START_TEST(names_what_it_refuses) {
  qn_device *d;
  qn_module *m;
  void *fn;
  ck_fails(QN_E_DEVICE, "sm_33", qn__emu_device_open(NULL, "emu:sm_33", &d));
  ck_fails(QN_E_DEVICE, "'' is not an architecture", qn__emu_device_open(NULL, "emu:", &d));
  rig r = open_rig("emu:sm_80");
  ck_fails(QN_E_CUDA, "INVALID_PTX", r.device->ops->module_load(r.device, "nonsense", 9, &m));
  ck_fails(QN_E_NO_KERNEL, "mul", r.device->ops->entry(r.device, r.module, "mul", 0, &fn));
  r.launch.block[0] = 2048;
  ck_fails(QN_E_CUDA, "2048", enqueue(&r, 1, NULL));
  r.launch.block[0] = r.launch.block[1] = INT64_C(1) << 31, r.launch.block[2] = 4; /* 2^64 threads */
  ck_fails(QN_E_CUDA, "block 2147483648", enqueue(&r, 1, NULL));
  close_rig(&r);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(is_a_device_of_its_architecture, 1),
      CASE(launches_in_order_and_counts, 1),
      CASE(refuses_to_be_timed, 2),
      CASE(a_finding_destroys_the_context, 1),
      CASE(a_hang_is_found_soon, 1),
      CASE(shared_memory_beyond_48_kb_is_asked_for, 1),
      CASE(names_what_it_refuses, 1),
  };
  return RUN_CASES(argv[0], cases, .timeout = 120);
}
