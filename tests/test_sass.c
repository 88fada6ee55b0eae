/* test_sass.c - what the CUDA families become: opcodes, registers and spills of their cubins, for every architecture.
 *
 * A row is a corner of a space: the variants that are likeliest to spill, or those that few tokens want. They are
 * compiled by NVRTC, which must be there; no GPU is needed. Opcodes are the low 12 bits of an instruction, the size of
 * an access stands in its second word, elsewhere for copies of sm_100 and later; the first test holds both against
 * accesses of known size. */
#include "cli_fixture.h"
#include "compile.h"
#include "runtime_fixture.h"

/* ---- Opcodes ----------------------------------------------------------------------------------------------------- */

typedef struct tally {
  bool sm_100;          /* and later */
  int hmma, imma;       /* products of tensor cores: of floats, of integers */
  int copies, copies16; /* LDGSTS, global to shared memory: all, and those of 16 bytes */
  int loads, loads16;   /* LDG */
} tally;

static void count(void *ud, const char *kernel UNUSED, unsigned opcode, const uint64_t word[2]) {
  tally *t = ud;
  t->hmma += opcode == 0x23c;
  t->imma += opcode == 0x237;
  t->copies += opcode == 0xfae;
  t->copies16 += opcode == 0xfae && (t->sm_100 ? (word[1] >> 10 & 3) == 2 : (word[1] >> 9 & 7) == 6);
  t->loads += opcode == 0x981;
  t->loads16 += opcode == 0x981 && (word[1] >> 9 & 7) == 6;
}

static const char *const archs[] = {"sm_80", "sm_89", "sm_90a", "sm_100a", "sm_120a"};

static tally tally_of(const char *arch, const void *cubin, size_t size) {
  tally t = {.sm_100 = atoi(arch + 3) >= 100};
  ck_ok(qn__cubin_each(cubin, size, count, &t));
  return t;
}

/* Copies of 4, 8 and 16 bytes, loads of 4, 8 and 16: the counts know them apart. */
START_TEST(sizes_are_read) {
  static const char text[] =
      "extern \"C\" __global__ void entry(const void *x, float4 *y) {\n"
      "  __shared__ __align__(16) char s[4096];\n"
      "  unsigned to = (unsigned)__cvta_generic_to_shared(s) + threadIdx.x * 16;\n"
      "  asm volatile(\"cp.async.ca.shared.global [%0], [%1], 4;\" ::\"r\"(to), \"l\"(x));\n"
      "  asm volatile(\"cp.async.ca.shared.global [%0], [%1], 8;\" ::\"r\"(to), \"l\"(x));\n"
      "  asm volatile(\"cp.async.ca.shared.global [%0], [%1], 16;\" ::\"r\"(to), \"l\"(x));\n"
      "  asm volatile(\"cp.async.cg.shared.global [%0], [%1], 16, %2;\" ::\"r\"(to), \"l\"(x), \"r\"(threadIdx.x));\n"
      "  asm volatile(\"cp.async.wait_all;\");\n"
      "  __syncthreads();\n"
      "  const float2 b = ((const float2 *)x)[threadIdx.x + 7];\n"
      "  float4 c = ((const float4 *)x)[threadIdx.x + 9];\n"
      "  c.x += ((const float *)x)[threadIdx.x] + b.x, c.y += b.y + s[threadIdx.x ^ 1];\n"
      "  y[threadIdx.x] = c;\n"
      "}\n";
  qn_source source = {.name = "sizes", .target = "cuda", .arch = archs[_i], .text = text};
  qn_artifact a;
  ck_ok(qn__compile(&source, &a));
  tally t = tally_of(archs[_i], a.image, a.size);
  ck_assert_msg(t.copies == 4 && t.copies16 == 2 && t.loads == 3 && t.loads16 == 1 && !t.hmma,
                "%s: %d LDGSTS, %d of 16 bytes; %d LDG, %d of 16 bytes; %d HMMA", archs[_i], t.copies, t.copies16,
                t.loads, t.loads16, t.hmma);
  qn__artifact_free(&a);
}
END_TEST

/* ---- Families ---------------------------------------------------------------------------------------------------- */

/* Every tile arrives by asynchronous copies of 16 bytes, X, codes and planes alike; tensor cores multiply. */
static bool is_mma(const tally *t) { return t->hmma > 0 && t->copies > 0 && t->copies16 == t->copies; }
/* The same with products of 8-bit integers only. */
static bool is_imma(const tally *t) { return t->imma > 0 && !t->hmma && t->copies > 0 && t->copies16 == t->copies; }
/* A lane's codes arrive by loads of 16 bytes, and nothing else is as wide; CUDA cores multiply. */
static bool is_gemv(const tally *t) { return t->loads16 > 0 && !t->hmma && !t->copies; }

static const struct {
  const char *family, *problem, *fix;
  bool (*is)(const tally *t);
} corners[] = {
    {"cuda.mma", "int4.g64.z:4096x4096:bf16-bf16+bias", "BM=128 STAGES=3", is_mma},
    {"cuda.mma", "int8.g128:4096x4096:f16-f32", "BM=64 WN=4 STAGES=3 SPLIT=1", is_mma},
    {"cuda.mma", "nvfp4:4096x4096:f16-f16", "BM=64 STAGES=3 SPLIT=1", is_mma}, /* four groups in a tile */
    {"cuda.mma", "int1.g32.z:4096x4096:bf16-f32", "BM=128 STAGES=3", is_mma},
    {"cuda.mma", "int4.g128:4096x4096:f16-f16", "LAYOUT=n64 BM=16 STAGES=4 SPLIT=8", is_mma},
    {"cuda.mma", "int4.g128:4096x4096:i8-f16", "BM=128 STAGES=3 SCALE=sum", is_imma},
    {"cuda.mma", "int8.row:4096x4096:i8-bf16", "BM=128 STAGES=3", is_imma}, /* no scale before the end of K */
    {"cuda.gemv", "int4.g128:4096x4096:f16-f16", "MB=8 UNROLL=4", is_gemv},
    {"cuda.gemv", "int4.g64.z:4096x4096:bf16-bf16+bias", "WARPS=2 UNROLL=1 MB=4", is_gemv}, /* many CTAs of two warps */
    {"cuda.gemv", "nf4.g64:4096x4096:bf16-f16", "LAYOUT=n64 UNROLL=4", is_gemv},
};

static void check_variant(const char *arch, int corner, int i, int spills, const char *name) {
  static char cubin[1 << 20];
  char file[32];
  snprintf(file, sizeof file, "%d.cubin", i);
  FILE *f = fopen(cli_path(file), "rb");
  ck_assert_ptr_nonnull(f);
  tally t = tally_of(arch, cubin, fread(cubin, 1, sizeof cubin, f));
  fclose(f);
  ck_assert_msg(!spills && corners[corner].is(&t),
                "%s on %s: %d bytes spilled, %d HMMA, %d IMMA, %d LDGSTS (%d of 16 bytes), %d LDG (%d)\n"
                "again: quernel explain %s --arch %s",
                name, arch, spills, t.hmma, t.imma, t.copies, t.copies16, t.loads, t.loads16, name, arch);
}

START_TEST(is_what_it_says) {
  int corner = _i % (int)QN_COUNT(corners);
  const char *arch = archs[_i / (int)QN_COUNT(corners)];
  int status = cli("quernel run %s/lua/cubins.lua %s %s %s %s", QN_TESTS, arch, corners[corner].problem,
                   corners[corner].family, corners[corner].fix);
  ck_assert_msg(status == 0, "exit %d: %s%s", status, cli_out, cli_err);
  int registers, spills, used, i = 0;
  char name[256];
  for (const char *p = cli_out; sscanf(p, "%d %d %255s%n", &registers, &spills, name, &used) == 3; p += used)
    check_variant(arch, corner, i++, spills, name);
  ck_assert_msg(i > 0, "%s: no variant of %s with %s", arch, corners[corner].family, corners[corner].fix);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {CASE(sizes_are_read, QN_COUNT(archs)),
                                     CASE(is_what_it_says, QN_COUNT(archs) * QN_COUNT(corners))};
  return RUN_CASES(argv[0], cases, cli_enter, cli_leave, 300);
}
