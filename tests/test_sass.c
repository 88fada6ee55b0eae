/* test_sass.c - what the CUDA families become: opcodes, registers and spills of their cubins, for every architecture.
 *
 * A row is a corner of a space: the variants that are likeliest to spill, or those that few tokens want. They are
 * compiled by NVRTC, which must be there; no GPU is needed. Opcodes are the low 12 bits of an instruction, the size of
 * an access stands in its second word, elsewhere for copies of sm_100 and later; the first test holds both against
 * accesses of known size. How far a branch goes is told apart by another.
 *
 *     QN_TABLE=1 build/tests/test_sass | sort        prints what is counted, beside the most that is allowed */
#include "cli_fixture.h"
#include "compile.h"
#include "runtime_fixture.h"
#include <cJSON.h>

static void tell(const char *what, const char *of, const char *arch, double value, double most) {
  if (getenv("QN_TABLE")) printf("%-38s %-72s %-7s %7.2f of %7.2f\n", what, of, arch, value, most);
  fflush(stdout);
}

/* ---- Opcodes ----------------------------------------------------------------------------------------------------- */

typedef struct tally {
  bool sm_100;          /* and later */
  int hmma, imma;       /* products of tensor cores: of 16-bit floats, of integers */
  int qmma, scaled;     /* of 8-bit floats; with scales of their own */
  int hgmma, bulk;      /* products of a warpgroup; bulk copies, by tensor maps or not */
  int copies, copies16; /* LDGSTS, global to shared memory: all, and those of 16 bytes */
  int loads, loads16;   /* LDG */
} tally;

static void count(void *ud, const char *kernel UNUSED, unsigned opcode, const uint64_t word[2]) {
  tally *t = ud;
  t->hmma += opcode == 0x23c;
  t->imma += opcode == 0x237;
  t->qmma += opcode == 0x27a;
  t->scaled += opcode == 0x47a;
  t->hgmma += opcode == 0xdf0;
  t->bulk += opcode == 0x5b4 || opcode == 0x3ba;
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

/* ---- Main loops -------------------------------------------------------------------------------------------------- */

enum { MOST = 1 << 14 };

/* The instructions of the kernels of a cubin, one after the other. */
typedef struct listing {
  int n;
  uint64_t word[MOST][2];
} listing;

static void list(void *ud, const char *kernel UNUSED, unsigned opcode UNUSED, const uint64_t word[2]) {
  listing *l = ud;
  ck_assert_int_lt(l->n, MOST);
  memcpy(l->word[l->n++], word, sizeof *l->word);
}

static unsigned opcode_at(const listing *l, int i) { return l->word[i][0] & 0xfff; }

static const listing *listing_of(const void *cubin, size_t size) {
  static listing l;
  l.n = 0;
  ck_ok(qn__cubin_each(cubin, size, list, &l));
  return &l;
}

static qn_cubin_loop main_loop(const char *arch, const void *cubin, size_t size) {
  qn_cubin_loop loop;
  ck_ok(qn__cubin_loop(cubin, size, atoi(arch + 3), &loop));
  return loop;
}

/* A loop that is known: eight products before it, three in it, two behind. */
START_TEST(loops_are_read) {
#define MMA                                                                                                            \
  "asm volatile(\"mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%4,%4,%4},{%4,%4},"              \
  "{%0,%1,%2,%3};\":\"+f\"(d[0]),\"+f\"(d[1]),\"+f\"(d[2]),\"+f\"(d[3]):\"r\"(a));\n"
  static const char text[] =
      "extern \"C\" __global__ void entry(float *y, int n, unsigned a) {\n"
      "  float d[4] = {y[0], y[1], y[2], y[3]};\n" MMA MMA MMA MMA MMA MMA MMA MMA "#pragma unroll 1\n"
      "  for (int i = 0; i < n; i++) {\n" MMA MMA MMA "  }\n" MMA MMA "  for (int e = 0; e < 4; e++) y[e] = d[e];\n"
      "}\n";
#undef MMA
  qn_source source = {.name = "loop", .target = "cuda", .arch = archs[_i], .text = text};
  qn_artifact a;
  ck_ok(qn__compile(&source, &a));
  tally all = tally_of(archs[_i], a.image, a.size);
  qn_cubin_loop loop = main_loop(archs[_i], a.image, a.size);
  ck_assert_msg(loop.products == 3 && all.hmma == 13 && loop.instructions <= 24,
                "%s: %d products of %d in a loop of %d instructions", archs[_i], loop.products, all.hmma,
                loop.instructions);
  qn__artifact_free(&a);
}
END_TEST

/* ---- Families ---------------------------------------------------------------------------------------------------- */

/* Every tile arrives by asynchronous copies of 16 bytes, X, codes and planes alike; tensor cores multiply. */
static bool is_mma(const tally *t) { return t->hmma > 0 && t->copies > 0 && t->copies16 == t->copies; }
/* The same with products of 8-bit integers only. */
static bool is_imma(const tally *t) { return t->imma > 0 && !t->hmma && t->copies > 0 && t->copies16 == t->copies; }
/* Every tile arrives by bulk copies; warpgroups multiply, and nothing else. */
static bool is_wgmma(const tally *t) { return t->hgmma > 0 && t->bulk > 2 && !t->hmma && !t->imma && !t->copies; }
/* The same for a stack, whose rows of X arrive by asynchronous copies of 16 bytes. */
static bool is_stack(const tally *t) { return t->hgmma > 0 && t->bulk > 1 && !t->hmma && t->copies16 == t->copies; }
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
    {"cuda.mma", "int4.g128:4096x4096:f16-f16", "BM=32 BN=64 STAGES=4 SPLIT=4", is_mma},
    {"cuda.mma", "int4.g128:4096x4096:i8-f16", "BM=128 STAGES=3 SCALE=sum", is_imma},
    {"cuda.mma", "int8.row:4096x4096:i8-bf16", "BM=128 STAGES=3", is_imma}, /* no scale before the end of K */
    {"cuda.gemv", "int4.g20.zf:4096x4096:f16-f16", "UNROLL=4", is_gemv},    /* all that tensor cores do not take */
    {"cuda.wgmma", "q4_k:4096x4096:bf16-bf16", "BM=128 MT=2 SPLIT=2 TOGETHER=2", is_wgmma}, /* most registers */
    {"cuda.wgmma", "int8.g32.z.f32:4096x4096:f16-f16", "BM=32 MT=2 SPLIT=1 SCALE=sum", is_wgmma},
    {"cuda.wgmma", "int4.g128:8x4096x4096:f16-f16", "BM=128 MT=1", is_stack},
};

/* Warpgroups multiply on one architecture only. */
static bool has(const char *arch, const char *family) {
  return (strcmp(family, "cuda.wgmma") != 0 && strcmp(family, "cuda.expand") != 0) || !strcmp(arch, "sm_90a");
}

/* The cubin of variant i that cubins.lua has written. */
static const void *cubin_of(int i, size_t *size) {
  static char cubin[1 << 20];
  char file[32];
  snprintf(file, sizeof file, "%d.cubin", i);
  FILE *f = fopen(cli_path(file), "rb");
  ck_assert_ptr_nonnull(f);
  *size = fread(cubin, 1, sizeof cubin, f);
  fclose(f);
  return cubin;
}

/* Compile the variants that `fix` says, and look at each. */
static void each_variant(const char *arch, const char *family, const char *problem, const char *fix, int row,
                         void (*look)(const char *arch, int row, int i, int spills, const char *name)) {
  int status = cli("quernel run %s/lua/cubins.lua %s %s %s %s", QN_TESTS, arch, problem, family, fix);
  ck_assert_msg(status == 0, "exit %d: %s%s", status, cli_out, cli_err);
  int registers, spills, used, i = 0;
  char name[256];
  for (const char *p = cli_out; sscanf(p, "%d %d %255s%n", &registers, &spills, name, &used) == 3; p += used)
    look(arch, row, i++, spills, name);
  ck_assert_msg(i > 0, "%s: no variant of %s with %s", arch, family, fix);
}

static void check_variant(const char *arch, int corner, int i, int spills, const char *name) {
  size_t size;
  const void *cubin = cubin_of(i, &size);
  tally t = tally_of(arch, cubin, size);
  ck_assert_msg(!spills && corners[corner].is(&t),
                "%s on %s: %d bytes spilled, %d HMMA, %d IMMA, %d QMMA and %d scaled, %d LDGSTS (%d of 16 bytes), "
                "%d LDG (%d)\nagain: quernel explain %s --arch %s",
                name, arch, spills, t.hmma, t.imma, t.qmma, t.scaled, t.copies, t.copies16, t.loads, t.loads16, name,
                arch);
}

START_TEST(is_what_it_says) {
  int corner = _i % (int)QN_COUNT(corners);
  const char *arch = archs[_i / (int)QN_COUNT(corners)];
  if (!has(arch, corners[corner].family)) return;
  each_variant(arch, corners[corner].family, corners[corner].problem, corners[corner].fix, corner, check_variant);
}
END_TEST

/* Where tensor cores multiply 8-bit floats they do, and nothing else; with scales of their own, where there are such.
 */
static const struct {
  const char *arch, *problem, *fix;
  bool scaled;
} natives[] = {
    {"sm_89", "e4m3.row:4096x4096:e4m3-bf16", "BM=128 STAGES=3", false},
    {"sm_120a", "int4.g128:4096x4096:e4m3-f16", "BM=128 STAGES=3 SCALE=sum", false},
    {"sm_120a", "mxfp4:4096x4096:e4m3-f16", "BM=128 STAGES=3 SCALE=weight", true},
    {"sm_120a", "mxfp8:4096x4096:e5m2-f16", "BM=64 STAGES=3 SCALE=weight SPLIT=1", true},
};

static void check_native(const char *arch, int row, int i, int spills, const char *name) {
  size_t size;
  const void *cubin = cubin_of(i, &size);
  tally t = tally_of(arch, cubin, size);
  ck_assert_msg(!spills && !t.hmma && t.copies16 == t.copies && (natives[row].scaled ? !t.qmma : !t.scaled) &&
                    t.qmma + t.scaled > 0,
                "%s on %s: %d bytes spilled, %d HMMA, %d QMMA, %d with scales\nagain: quernel explain %s --arch %s",
                name, arch, spills, t.hmma, t.qmma, t.scaled, name, arch);
}

START_TEST(floats_of_8_bits_are_native) {
  each_variant(natives[_i].arch, "cuda.mma", natives[_i].problem, natives[_i].fix, _i, check_native);
}
END_TEST

/* Instructions of the main loop for each product of the tensor core, of a warp or of a warpgroup: at most so many. */
static const struct {
  const char *family, *problem, *fix;
  double most;
} loops[] = {
    {"cuda.mma", "int4.g128:8192x8192:f16-f16", "BM=64 BN=128 WN=4 STAGES=4 SCALE=weight SPLIT=1", 4.0},
    {"cuda.mma", "int4.g128:8192x8192:f16-f16", "BM=128 STAGES=4 SCALE=weight", 4.0},
    /* of weights: a fragment of 8 codes a lane meets one product for 8 tokens, two for 16 */
    {"cuda.decode", "int4.g128:8192x8192:f16-f16", "BM=8 WN=4 UNROLL=4 SCALE=sum SPLIT=2", 13},
    {"cuda.decode", "int4.g128:8192x8192:f16-f16", "BM=16 WN=4 UNROLL=4 SCALE=sum SPLIT=2", 7.6},
    {"cuda.decode", "mxfp4:8192x8192:f16-f16", "BM=8 WN=4 UNROLL=4 SCALE=sum SPLIT=2", 20},
    {"cuda.decode", "nvfp4:8192x8192:f16-f16", "BM=8 WN=4 UNROLL=4 SCALE=sum SPLIT=2", 24.5},
    /* a fragment and ones, for the sums of X */
    {"cuda.decode", "q4_k:8192x8192:f16-f16", "BM=8 WN=4 UNROLL=4 SCALE=sum SPLIT=2", 24 / 2},
    /* a product of 64 features and 128 tokens takes 64 clocks of the tensor cores: a third of them is for these */
    {"cuda.wgmma", "int4.g128:8192x8192:f16-f16", "BM=128 MT=1 SPLIT=1 TOGETHER=1", 22},
    {"cuda.wgmma", "int4.g128:8192x8192:f16-f16", "BM=128 MT=2 SPLIT=1 TOGETHER=1 GRID=tiles", 19},
    {"cuda.wgmma", "int4.g128:8192x8192:f16-f16", "BM=256 SPLIT=1 TOGETHER=2", 20},
    {"cuda.expand", "int4.g128:8192x8192:f16-f16", "BM=256 TOGETHER=2", 10}, /* its dense product */
    /* of 32 of k: 16 of these give scales to the sums of a group, 16 more make floats of integers */
    {"cuda.wgmma", "e4m3.b128x128:8192x8192:e4m3-f16", "BM=128 MT=1 SPLIT=1 TOGETHER=1 GRID=tiles", 32},
    {"cuda.wgmma", "int4.g128:8192x8192:i8-f16", "BM=128 MT=1 SPLIT=1 TOGETHER=1 GRID=tiles", 52},
    /* codes as they are: of five products in the loop one, with 16 instructions, runs in each eighth tile, so that 35
     * are executed for each of the four others */
    {"cuda.wgmma", "int4.g128:8192x8192:e4m3-f16", "BM=128 MT=1 SPLIT=1 TOGETHER=1 GRID=tiles", 31},
};

/* An instruction that computes again what a lane knew before the loop: S2R, S2UR, a product of 64 bits. */
static bool recomputes(unsigned opcode) { return opcode == 0x919 || opcode == 0x9c3 || (opcode & 0x1ff) == 0x025; }

static void check_loop(const char *arch, int row, int i, int spills, const char *name) {
  size_t size;
  const void *cubin = cubin_of(i, &size);
  const listing *l = listing_of(cubin, size);
  const qn_cubin_loop loop = main_loop(arch, cubin, size);
  int n = loop.products, again = 0, shared = 0, immediate = 0;
  for (int j = loop.first; j < loop.first + loop.instructions; j++) {
    again += recomputes(opcode_at(l, j));
    if (opcode_at(l, j) == 0x83b) shared++, immediate += l->word[j][0] >> 40 > 0; /* LDSM, its offset */
  }
  double each = n ? (double)loop.instructions / n : 0;
  tell("instructions of a product", name, arch, each, loops[row].most);
  ck_assert_msg(
      !spills && n && each <= loops[row].most && !again && immediate * 4 >= shared * 3,
      "%s on %s: a loop of %d instructions, %d products: %.2f for each, at most %.2f; %d computed again; %d of %d "
      "LDSM with an offset\nagain: quernel explain %s --arch %s",
      name, arch, loop.instructions, n, each, loops[row].most, again, immediate, shared, name, arch);
}

START_TEST(loop_is_lean) {
  static const char *const of[] = {"sm_80", "sm_90a"};
  int row = _i / (int)QN_COUNT(of);
  if (!has(of[_i % (int)QN_COUNT(of)], loops[row].family)) return;
  each_variant(of[_i % (int)QN_COUNT(of)], loops[row].family, loops[row].problem, loops[row].fix, row, check_loop);
}
END_TEST

/* ---- Dequantization ---------------------------------------------------------------------------------------------- */

/* Instructions that make a fragment of a lane's codes, 8 of them, constants left aside: at most so many. */
static const struct {
  const char *problem, *fix;
  int most;
} fragments[] = {
    {"int4.g128:8192x8192:f16-f16", "SCALE=sum", 9},
    {"int4.g128:8192x8192:bf16-f16", "SCALE=sum", 11},
    {"mxfp4:8192x8192:f16-f16", "SCALE=sum", 12},
    {"int4.g128:8192x8192:i8-f16", "SCALE=sum", 3},
};

static void count_all(void *ud, const char *kernel UNUSED, unsigned opcode, const uint64_t word[2] UNUSED) {
  *(int *)ud += opcode != 0x918 && opcode != 0x947; /* NOP, and the branch that ends a kernel */
}

/* Instructions of a kernel that makes eight fragments, as `how` says, with the fragment() of 0.cu. */
static int count_of(const char *arch, const char *how) {
  static char text[1 << 17];
  cli_read("0.cu", text, sizeof text / 2);
  char *fragment = strstr(text, "fn void fragment("), *end = fragment ? strstr(fragment, "\n}\n") : NULL;
  ck_assert_ptr_nonnull(end);
  sprintf(end + 3,
          "struct __align__(16) four { u32 v[4]; };\n"
          "extern \"C\" __global__ void entry(const u32 *from, four *to) {\n"
          "#pragma unroll\n"
          "  for (int i = 0; i < 8; i++) {\n"
          "    const u32 q = from[i * 32 + threadIdx.x];\n"
          "    four a = {q, q, q, q};\n"
          "    %s;\n"
          "    to[i * 32 + threadIdx.x] = a;\n"
          "  }\n"
          "}\n",
          how);
  qn_source source = {.name = "fragment", .target = "cuda", .arch = arch, .text = text};
  qn_artifact a;
  ck_ok(qn__compile(&source, &a));
  int count = 0;
  ck_ok(qn__cubin_each(a.image, a.size, count_all, &count));
  qn__artifact_free(&a);
  return count;
}

START_TEST(dequantization_is_short) {
  static const char *const of[] = {"sm_80", "sm_90a"};
  int row = _i / 2;
  ck_assert_int_eq(cli("quernel run %s/lua/cubins.lua %s %s cuda.decode BM=8 WN=4 UNROLL=4 SPLIT=1 %s", QN_TESTS,
                       of[_i % 2], fragments[row].problem, fragments[row].fix),
                   0);
  int each = (count_of(of[_i % 2], "fragment(&q, 0, a.v)") - count_of(of[_i % 2], "")) / 8;
  tell("instructions for 8 codes", fragments[row].problem, of[_i % 2], each, fragments[row].most);
  ck_assert_msg(each > 0 && each <= fragments[row].most, "%s on %s: %d instructions, at most %d",
                fragments[row].problem, of[_i % 2], each, fragments[row].most);
}
END_TEST

/* ---- What a call moves ------------------------------------------------------------------------------------------- */

/* Counted by the interpreter, of calls that are mostly main loop. `flight`: bytes that a multiprocessor has asked for
 * and not got, at least; 0: many tokens do not wait for memory. */
static const struct {
  const char *variant, *shape;
  int m, flight;
} calls[] = {
    {"cuda.mma/int4.g128/f16-f16/bm64-bn128-bk64-wn4-s4-weight-k1", "128x2048", 64, 0},
    {"cuda.mma/int4.g64.z/bf16-f16/bm128-bn128-bk64-wn8-s3-weight-k1", "128x1024", 128, 0},
    {"cuda.decode/int4.g128/f16-f16/bm8-wn4-wk2-u4-x2048-sum-k1", "64x8192", 8, 32768},
    {"cuda.wgmma/int4.g128/f16-f16/bm128-mt1-weight-k1-c1-tiles", "128x2048", 128, 0},
};

static double number(const cJSON *at, const char *name) {
  const cJSON *x = cJSON_GetObjectItemCaseSensitive(at, name);
  ck_assert_msg(cJSON_IsNumber(x), "no number %s", name);
  return x->valuedouble;
}

START_TEST(little_is_moved) {
  int status =
      cli("quernel explain %s --shape %s --m %d --arch sm_90a --json", calls[_i].variant, calls[_i].shape, calls[_i].m);
  cJSON *report = cJSON_Parse(cli_out);
  ck_assert_msg(status == 0 && report, "exit %d: %s", status, cli_err);
  const cJSON *bounds = cJSON_GetObjectItemCaseSensitive(report, "bounds");
  const cJSON *counted = cJSON_GetObjectItemCaseSensitive(bounds, "counters");
  double passes = number(counted, "shared_passes") / number(counted, "shared_ideal");
  double weights = number(counted, "weight_distinct") / number(bounds, "weight");
  double flight =
      number(counted, "flight_bytes") * number(cJSON_GetObjectItemCaseSensitive(bounds, "occupancy"), "ctas");
  tell("shared passes", calls[_i].variant, "sm_90a", passes, 1.05);
  tell("bytes of weights", calls[_i].variant, "sm_90a", weights, 1.01);
  if (calls[_i].flight) tell("bytes under way, at least", calls[_i].variant, "sm_90a", flight, calls[_i].flight);
  ck_assert_msg(passes <= 1.05 && weights <= 1.01 && flight >= calls[_i].flight,
                "%s at %s, M = %d: %.3f of the passes of shared memory that it needs, %.3f bytes of weights, %.0f "
                "bytes under way",
                calls[_i].variant, calls[_i].shape, calls[_i].m, passes, weights, flight);
  cJSON_Delete(report);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {CASE(sizes_are_read, QN_COUNT(archs)),
                                     CASE(loops_are_read, QN_COUNT(archs)),
                                     CASE(is_what_it_says, QN_COUNT(archs) * QN_COUNT(corners)),
                                     CASE(loop_is_lean, 2 * QN_COUNT(loops)),
                                     CASE(floats_of_8_bits_are_native, QN_COUNT(natives)),
                                     CASE(dequantization_is_short, 2 * QN_COUNT(fragments)),
                                     CASE(little_is_moved, QN_COUNT(calls))};
  return RUN_CASES(argv[0], cases, cli_enter, cli_leave, 300);
}
