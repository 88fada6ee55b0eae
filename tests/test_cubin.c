/* test_cubin.c - NVRTC behind gen/compile.h, and what is read out of its cubins. NVRTC must be there: without it this
 * program fails, it does not skip. No GPU is needed. */
#include "compile.h"
#include "elf_image.h"
#include "runtime_fixture.h"

static const char *const archs[] = {"sm_75", "sm_80", "sm_89", "sm_90a", "sm_100a", "sm_120a"};

static qn_source cuda(const char *arch, const char *text) {
  return (qn_source){.name = "variant", .target = "cuda", .arch = arch, .text = text};
}

/* ---- Resources --------------------------------------------------------------------------------------------------- */

static const char plain[] = "#line 30 \"templates/kernels/cuda/t.lua\"\n"
                            "extern \"C\" __global__ void entry(const float4 *x, float *y) {\n"
                            "  __shared__ float s[256];\n"
                            "  float4 v = x[threadIdx.x];\n"
                            "  s[threadIdx.x] = v.x + v.y + v.z + v.w;\n"
                            "  __syncthreads();\n"
                            "  y[threadIdx.x] = s[threadIdx.x ^ 1];\n"
                            "}\n";

typedef struct tally {
  int total, ldg, exit, other_kernel;
} tally;

static void count(void *ud, const char *kernel, unsigned opcode, const uint64_t word[2]) {
  tally *t = ud;
  t->total++;
  t->ldg += opcode == 0x981; /* LDG with descriptor, sm_80 and on; sm_75 has 0x381 */
  t->ldg += opcode == 0x381;
  t->exit += opcode == 0x94d;
  t->other_kernel += strcmp(kernel, "entry") != 0;
  (void)word;
}

START_TEST(test_resources) {
  qn_source source = cuda(archs[_i], plain);
  qn_artifact a, b;
  ck_ok(qn__compile(&source, &a));
  ck_assert_int_eq(chdir("/"), 0);
  ck_ok(qn__compile(&source, &b));
  ck_assert_str_eq(a.hash, b.hash); /* equal input, equal bytes, wherever it is compiled */
  ck_assert_str_eq(a.ptx, b.ptx);
  ck_assert_msg(a.registers >= 6 && a.registers <= 64, "%s: %d registers", archs[_i], a.registers);
  ck_assert_int_eq(a.spills, 0);
  ck_assert_int_eq(a.shared, 1024);
  ck_assert_ptr_nonnull(strstr(a.ptx, ".entry entry("));
  qn_cubin_info info;
  ck_ok(qn__cubin_info(a.image, a.size, &info));
  ck_assert_int_eq(info.kernels, 1);
  ck_assert_int_eq(info.registers, a.registers);
  ck_assert_int_eq(info.frame, 0);
  ck_assert_msg(info.shared == 1024 || info.shared == 2048, "%s: .nv.shared of %d", archs[_i], info.shared);
  tally t = {0};
  ck_ok(qn__cubin_each(a.image, a.size, count, &t));
  ck_assert_msg(t.ldg >= 1 && t.exit >= 1 && t.total < 400 && !t.other_kernel, "%s: %d LDG, %d EXIT of %d", archs[_i],
                t.ldg, t.exit, t.total);
  qn__artifact_free(&a);
  qn__artifact_free(&b);
}
END_TEST

/* More live values than registers: the spills must show. */
START_TEST(test_spills) {
  static const char text[] =
      "extern \"C\" __global__ void __launch_bounds__(1024, 2) entry(const float *x, float *y) {\n"
      "  float v[96];\n"
      "  #pragma unroll\n"
      "  for (int i = 0; i < 96; i++) v[i] = x[i * 1024 + threadIdx.x];\n"
      "  __syncthreads();\n"
      "  #pragma unroll\n"
      "  for (int i = 0; i < 96; i++) y[i * 1024 + threadIdx.x] = v[i] * v[(i * 37 + 5) % 96];\n"
      "}\n";
  qn_source source = cuda(archs[_i], text);
  qn_artifact a;
  ck_ok(qn__compile(&source, &a));
  ck_assert_msg(a.registers <= 64, "%s: %d registers", archs[_i], a.registers);
  ck_assert_msg(a.spills > 0, "%s: no spills in\n%s", archs[_i], a.log);
  qn__artifact_free(&a);
}
END_TEST

/* The largest of two kernels counts. */
START_TEST(test_two_kernels) {
  qn_source source = cuda("sm_90a", "extern \"C\" __global__ void small(float *y) { y[0] = 1; }\n"
                                    "extern \"C\" __global__ void large(float *y) {\n"
                                    "  __shared__ float s[512];\n"
                                    "  s[threadIdx.x] = y[threadIdx.x];\n"
                                    "  __syncthreads();\n"
                                    "  y[threadIdx.x] = s[511 - threadIdx.x];\n"
                                    "}\n");
  qn_artifact a;
  qn_cubin_info info;
  ck_ok(qn__compile(&source, &a));
  ck_ok(qn__cubin_info(a.image, a.size, &info));
  ck_assert_int_eq(info.kernels, 2);
  ck_assert_int_eq(a.shared, 2048);
  qn__artifact_free(&a);
}
END_TEST

/* ---- Failures ---------------------------------------------------------------------------------------------------- */

static const struct {
  const char *arch, *text;
  qn_status status;
  const char *part;
} broken[] = {
    {"sm_90a", "#line 12 \"templates/kernels/cuda/t.lua\"\n__global__ void f() {\n  return x;\n}\n", QN_E_COMPILE,
     "templates/kernels/cuda/t.lua(13): error: identifier \"x\" is undefined"},
    {"sm_90a", "#include <no_such_file.h>\n", QN_E_COMPILE, "no_such_file.h"},
    {"sm_90a", "__device__ int f() { return 1; }\n", QN_E_COMPILE, "no kernel"},
    {"sm_99", plain, QN_E_COMPILE, "sm_99"},
    {"ptx_90", plain, QN_E_ARG, "ptx_90"},
    {"compute_99", plain, QN_E_COMPILE, "compute_99"},
    {NULL, plain, QN_E_ARG, "sm_NN"},
    /* the assembler's own refusal: an instruction that this architecture lacks */
    {"sm_80", "extern \"C\" __global__ void f() { asm volatile(\"wgmma.fence.sync.aligned;\"); }\n", QN_E_COMPILE,
     "wgmma"},
    /* it compiles, but the registers asked for are not given: C7508 */
    {"sm_90a",
     "extern \"C\" __global__ void __launch_bounds__(256) f(float *y) {\n"
     "  if (threadIdx.x < 128) asm volatile(\"setmaxnreg.inc.sync.aligned.u32 232;\");\n"
     "  else asm volatile(\"setmaxnreg.dec.sync.aligned.u32 24;\");\n"
     "  y[threadIdx.x] = 1;\n}\n",
     QN_E_COMPILE, "setmaxnreg"},
};

START_TEST(test_broken_source) {
  qn_source source = cuda(broken[_i].arch, broken[_i].text);
  qn_artifact a;
  ck_fails(broken[_i].status, broken[_i].part, qn__compile(&source, &a));
  qn__artifact_free(&a);
}
END_TEST

/* The loader is asked once in a process; each of these runs in one of its own. */
START_TEST(test_library_missing) {
  qn_source source = cuda("sm_90a", plain);
  qn_artifact a;
  char text[64];
  setenv("QUERNEL_NVRTC", "/no/such/libnvrtc.so", 1);
  ck_fails(QN_E_DEVICE, "/no/such/libnvrtc.so", qn__compile(&source, &a));
  ck_fails(QN_E_DEVICE, "QUERNEL_NVRTC", qn__compiler_version("cuda", text, sizeof text));
  qn__artifact_free(&a);
}
END_TEST

START_TEST(test_library_foreign) {
  qn_source source = cuda("sm_90a", plain);
  qn_artifact a;
  setenv("QUERNEL_NVRTC", "libm.so.6", 1);
  ck_fails(QN_E_DEVICE, "lacks nvrtc", qn__compile(&source, &a));
  qn__artifact_free(&a);
}
END_TEST

START_TEST(test_version) {
  char text[64];
  int major, minor;
  ck_ok(qn__compiler_version("cuda", text, sizeof text));
  ck_assert_msg(sscanf(text, "nvrtc %d.%d", &major, &minor) == 2 && major >= 12, "version '%s'", text);
}
END_TEST

START_TEST(test_flags) {
  qn_source source = cuda("sm_80", "#if VALUE != 3\n#error flags are lost\n#endif\n__global__ void f() {}\n");
  qn_artifact a;
  ck_fails(QN_E_COMPILE, "flags are lost", qn__compile(&source, &a));
  qn__artifact_free(&a);
  source.flags = "-DVALUE=3";
  ck_ok(qn__compile(&source, &a));
  qn__artifact_free(&a);
}
END_TEST

/* ---- Damage ------------------------------------------------------------------------------------------------------ */

static void ignore(void *ud, const char *kernel, unsigned opcode, const uint64_t word[2]) {
  *(uint64_t *)ud += strlen(kernel) + opcode + word[0] + word[1]; /* read it all */
}

static void read_all(const void *data, size_t size) {
  uint64_t sum = 0;
  qn_cubin_info info;
  (void)qn__cubin_info(data, size, &info);
  (void)qn__cubin_each(data, size, ignore, &sum);
  (void)qn__elf_no_undefined(data, size, "damaged");
}

/* Any bit wrong, any length: a status, never a crash. Each image is a block of its own, so that a sanitizer sees. */
START_TEST(test_damaged) {
  qn_source source = cuda("sm_80", plain);
  qn_artifact a;
  ck_ok(qn__compile(&source, &a));
  rng r = {7};
  for (size_t n = 0; n < a.size; n += 1 + a.size / 500) {
    unsigned char *cut = malloc(n + 1);
    memcpy(cut, a.image, n);
    read_all(cut, n);
    free(cut);
  }
  for (int i = 0; i < 20000; i++) {
    size_t place = i % 2 ? draw(&r) % a.size : draw(&r) % 64; /* the header as often as the rest */
    if (i % 4 == 3) place = a.size - 1 - draw(&r) % 2048;     /* and the section table */
    unsigned char keep = a.image[place];
    a.image[place] = (unsigned char)draw(&r);
    read_all(a.image, a.size);
    a.image[place] = keep;
  }
  ck_fails(QN_E_FORMAT, "no ELF64", qn__cubin_each("text", 4, ignore, &(uint64_t){0}));
  qn_source host = {.name = "variant", .target = "host", .text = "__attribute__((visibility(\"default\"))) int x = 1;"};
  qn_artifact object;
  ck_ok(qn__compile(&host, &object));
  ck_fails(QN_E_FORMAT, "is not CUDA's", qn__cubin_each(object.image, object.size, ignore, &(uint64_t){0}));
  qn__artifact_free(&object);
  qn__artifact_free(&a);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(test_resources, QN_COUNT(archs)),
      CASE(test_spills, QN_COUNT(archs)),
      CASE(test_two_kernels, 1),
      CASE(test_broken_source, QN_COUNT(broken)),
      CASE(test_library_missing, 1),
      CASE(test_library_foreign, 1),
      CASE(test_version, 1),
      CASE(test_flags, 1),
      CASE(test_damaged, 1),
  };
  return RUN_CASES(argv[0], cases, .timeout = 120);
}
