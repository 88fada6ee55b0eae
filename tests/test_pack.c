/* test_pack.c - packs: what goes in comes out, equal input gives equal bytes, and no damage is ever believed. */
#include "pack.h"
#include "pack_read.h"
#include "pack_seal.h"
#include "runtime_fixture.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define HASH_A "0123456789abcdef0123456789abcdef"
#define HASH_B "aaaabbbbccccddddeeeeffff00001111"

static char path[64];

/* In memory where there is such a place: thousands of small files are written. */
static void set_up(void) {
  const char *directory = access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm";
  snprintf(path, sizeof path, "%s/qn_test_%d.qpack", directory, (int)getpid());
}
static void tear_down(void) { unlink(path); }

static qn_kernel make_kernel(const char *hash, const char *arch, const void *code, size_t size) {
  qn_kernel k = {.target = "host", .registers = 3, .image = code, .size = size};
  snprintf(k.name, sizeof k.name, "host.plain/%.4s", hash);
  snprintf(k.hash, sizeof k.hash, "%s", hash);
  snprintf(k.arch, sizeof k.arch, "%s", arch);
  k.recipe = (qn_recipe){.n_steps = 2, .deterministic = 1};
  k.recipe.scratch = IN(k.recipe, V(M), C(64), O(MUL));
  for (int i = 0; i < 2; i++) {
    qn_step *s = &k.recipe.step[i];
    snprintf(s->entry, sizeof s->entry, "entry%d", i);
    s->n_args = 3, s->arg[0] = QN_ARG_X, s->arg[1] = QN_FIRST_MAP, s->arg[2] = QN_ARG_Y;
    s->n_maps = 1;
    s->map[0] =
        (qn_tensor_map){.operand = QN_ARG_W, .type = QN_T_U8, .rank = 1, .box = {16}, .dim = {IN(k.recipe, V(N))}};
    s->grid[0] = IN(k.recipe, V(N), C(32), O(CEILDIV));
  }
  return k;
}

static qn_plan make_plan(uint32_t bits, int64_t n, int64_t k) {
  qn_plan p = {.kind = QN_PLAN_FASTEST, .format = make_format(bits, 32, bits == 8), .n_ranges = 2, .n_points = 2};
  p.layout = plain_layout(&p.format);
  p.problem = (qn_problem){.n = n, .k = k, .act = QN_T_F32, .out = QN_T_F32};
  if (bits == 8) p.problem.act = QN_T_I8, p.problem.x = QN_T_BF16;
  snprintf(p.problem.format, sizeof p.problem.format, "%s", p.format.name);
  qn__problem_spell(&p.problem);
  p.range[0] = (qn_range){.m_min = 1, .variant = HASH_A, .error = 0.5};
  p.range[1] = (qn_range){.m_min = 9, .variant = HASH_B};
  p.point[0] = (qn_point){.m = 1, .seconds = 1e-5};
  p.point[1] = (qn_point){.m = 16, .seconds = 3e-5, .dense_seconds = 1e-4};
  return p;
}

static const char image_a[] = "the image of one kernel", image_b[] = "another";

/* A pack of two kernels, and plans in the order of `order`, a permutation of three. */
static qn_pack_builder *make_builder(const int order[3]) {
  const qn_plan plans[3] = {make_plan(4, 64, 96), make_plan(4, 0, 0), make_plan(8, 96, 64)};
  qn_kernel a = make_kernel(HASH_A, "", image_a, sizeof image_a),
            b = make_kernel(HASH_B, "x86-64", image_b, sizeof image_b);
  qn_pack_builder *builder;
  ck_ok(qn__pack_builder_new(&builder));
  ck_ok(qn__pack_add_device(builder, "host", "x86-64 avx2", "A machine", 2));
  ck_ok(qn__pack_add_kernel(builder, order[0] ? &a : &b));
  ck_ok(qn__pack_add_kernel(builder, order[0] ? &b : &a));
  ck_ok(qn__pack_add_kernel(builder, &a));
  for (int i = 0; i < 3; i++) ck_ok(qn__pack_add_plan(builder, &plans[order[i]]));
  return builder;
}

static image write_and_read(const int order[3]) {
  qn_pack_builder *b = make_builder(order);
  ck_ok(qn__pack_write(b, path));
  qn__pack_builder_free(b);
  image i = {malloc(1 << 20), 0};
  FILE *f = fopen(path, "rb");
  i.size = fread(i.data, 1, 1 << 20, f);
  fclose(f);
  return i;
}

static void overwrite(const void *data, size_t size) {
  FILE *f = fopen(path, "wb");
  ck_assert_uint_eq(fwrite(data, 1, size, f), size);
  ck_assert_int_eq(fclose(f), 0);
}

static void append(qn_coder *c, void *p, size_t n) {
  c->data = realloc(c->data, c->at + n + 1);
  memcpy(c->data + c->at, p, n);
  c->at += n;
}

/* Equal in every field: their records are. */
static void check_plan(qn_plan have, qn_plan want) {
  qn_coder a = {.bytes = append}, b = {.bytes = append};
  qn__code_plan(&a, &have);
  qn__code_plan(&b, &want);
  ck_assert_uint_eq(a.at, b.at);
  ck_assert_mem_eq(a.data, b.data, a.at);
  free(a.data);
  free(b.data);
}

static void check_kernel(qn_kernel have, qn_kernel want) {
  qn_coder a = {.bytes = append}, b = {.bytes = append};
  qn__code_kernel(&a, &have);
  qn__code_kernel(&b, &want);
  ck_assert_uint_eq(a.at, b.at);
  ck_assert_mem_eq(a.data, b.data, a.at);
  ck_assert_uint_eq(have.size, want.size);
  free(a.data);
  free(b.data);
}

START_TEST(test_what_goes_in_comes_out) {
  image i = write_and_read((int[]){2, 0, 1});
  qn_pack *p;
  qn_pack_device d;
  qn_plan plan, want = make_plan(4, 64, 96);
  qn_kernel k, want_k = make_kernel(HASH_B, "x86-64", image_b, sizeof image_b);
  ck_ok(qn__pack_open(NULL, path, &p));
  ck_assert_uint_eq(qn__pack_devices(p), 1);
  ck_assert_uint_eq(qn__pack_plans(p), 3);
  ck_assert_uint_eq(qn__pack_kernels(p), 2);
  ck_assert_uint_eq(strspn(qn__pack_hash(p), "0123456789abcdef"), 32);
  qn__pack_device(p, 0, &d);
  ck_assert_str_eq(d.arch, "x86-64 avx2");
  ck_assert_uint_eq(d.threads, 2);
  qn__pack_plan(p, 1, &plan); /* sorted: the generic one of int4 comes before it */
  check_plan(plan, want);
  ck_assert_double_eq(plan.point[1].dense_seconds, 1e-4);
  ck_assert_str_eq(plan.format.plane[0].name, "scale");
  qn__pack_plan(p, 2, &plan);
  ck_assert_uint_eq(plan.problem.x, QN_T_BF16);
  ck_assert_uint_eq(plan.layout.section[1].field[0].bits, 32);
  ck_assert_int_eq(qn__pack_find_kernel(p, HASH_A), 0);
  ck_assert_int_eq(qn__pack_find_kernel(p, HASH_B), 1);
  ck_assert_int_eq(qn__pack_find_kernel(p, "00000000000000000000000000000000"), -1);
  ck_assert_int_eq(qn__pack_find_kernel(p, "ffffffffffffffffffffffffffffffff"), -1);
  qn__pack_kernel(p, 1, &k);
  ck_assert_str_eq((const char *)k.image, image_b);
  ck_assert_uint_eq((uintptr_t)k.image % 64, 0);
  check_kernel(k, want_k);
  ck_assert_str_eq(k.recipe.step[1].entry, "entry1");
  ck_assert_int_eq(k.registers, 3);
  qn__pack_close(p);
  free(i.data);
}
END_TEST

START_TEST(test_equal_input_gives_equal_bytes) {
  image a = write_and_read((int[]){0, 1, 2}), b = write_and_read((int[]){2, 1, 0});
  ck_assert_uint_eq(a.size, b.size);
  ck_assert_mem_eq(a.data, b.data, a.size);
  free(a.data);
  free(b.data);
}
END_TEST

START_TEST(test_equal_images_are_kept_once) {
  qn_pack_builder *b;
  struct stat one, two;
  static const char code[20000] = "x";
  char copy[sizeof code];
  memcpy(copy, code, sizeof code);
  for (int i = 0; i < 2; i++) {
    qn_kernel k = make_kernel(HASH_A, "", code, sizeof code), same = make_kernel(HASH_B, "", copy, sizeof copy);
    ck_ok(qn__pack_builder_new(&b));
    ck_ok(qn__pack_add_kernel(b, &k));
    if (i) ck_ok(qn__pack_add_kernel(b, &same));
    ck_ok(qn__pack_write(b, path));
    qn__pack_builder_free(b);
    ck_assert_int_eq(stat(path, i ? &two : &one), 0);
  }
  ck_assert_int_lt(two.st_size, one.st_size + 4000);
}
END_TEST

/* Every bit of a small pack: opening says QN_E_FORMAT, each time. */
START_TEST(test_a_flipped_bit_is_an_error) {
  image i = write_and_read((int[]){0, 1, 2});
  qn_pack *p;
  int fd = open(path, O_WRONLY);
  for (size_t at = 0; at < i.size; at++) {
    uint8_t flipped = i.data[at] ^ (uint8_t)(1u << at % 8);
    ck_assert_int_eq(pwrite(fd, &flipped, 1, (off_t)at), 1);
    qn_status s = qn__pack_open(NULL, path, &p);
    ck_assert_msg(s == QN_E_FORMAT, "byte %zu of %zu: %s", at, i.size, qn_status_name(s));
    ck_assert_msg(strstr(qn__errmsg(), path) != NULL, "%s", qn__errmsg());
    ck_assert_int_eq(pwrite(fd, &i.data[at], 1, (off_t)at), 1);
  }
  close(fd);
  ck_ok(qn__pack_open(NULL, path, &p));
  qn__pack_close(p);
  free(i.data);
}
END_TEST

START_TEST(test_truncated_files) {
  image i = write_and_read((int[]){0, 1, 2});
  qn_pack *p;
  for (size_t size = 0; size < i.size; size += size < 500 ? 1 : 37) {
    overwrite(i.data, size);
    ck_assert_int_eq(qn__pack_open(NULL, path, &p), QN_E_FORMAT);
  }
  overwrite(i.data, i.size + 1);
  ck_assert_int_eq(qn__pack_open(NULL, path, &p), QN_E_FORMAT);
  free(i.data);
}
END_TEST

START_TEST(test_foreign_files) {
  image i = write_and_read((int[]){0, 1, 2});
  qn_pack *p;
  ck_fails(QN_E_IO, "No such file", qn__pack_open(NULL, "/tmp/there/is/no/such.qpack", &p));
  ck_fails(QN_E_IO, "not a file", qn__pack_open(NULL, "/tmp", &p));
  i.data[8] = QN_PACK_VERSION + 1;
  overwrite(i.data, i.size);
  ck_fails(QN_E_FORMAT, "version 9, this library reads version 8: take a newer", qn__pack_open(NULL, path, &p));
  i.data[8] = QN_PACK_VERSION - 1;
  overwrite(i.data, i.size);
  ck_fails(QN_E_FORMAT, "version 7, this library reads version 8: make it anew with `quernel tune`",
           qn__pack_open(NULL, path, &p));
  overwrite(i.data, i.size / 2);
  ck_fails(QN_E_FORMAT, "version 7", qn__pack_open(NULL, path, &p));
  i.data[8] = QN_PACK_VERSION;
  overwrite(i.data, i.size / 2);
  ck_fails(QN_E_FORMAT, "the file is not whole", qn__pack_open(NULL, path, &p));
  i.data[12] = 1, i.data[15] = 4;
  overwrite(i.data, i.size);
  ck_fails(QN_E_FORMAT, "byte order", qn__pack_open(NULL, path, &p));
  memset(i.data, 'x', i.size);
  overwrite(i.data, i.size);
  ck_fails(QN_E_FORMAT, "not a pack", qn__pack_open(NULL, path, &p));
  free(i.data);
}
END_TEST

/* Bytes changed behind the checksums: refused, or a pack whose every record can be read; never a crash. */
START_TEST(test_sealed_nonsense) {
  image i = write_and_read((int[]){0, 1, 2});
  uint8_t *copy = malloc(i.size);
  rng r = {(uint64_t)_i};
  int opened = 0;
  for (int round = 0; round < 1500; round++) {
    memcpy(copy, i.data, i.size);
    size_t first = QN_PACK_HEADER + QN_PACK_TABLE;
    for (uint32_t n = 1 + below(&r, 3); n--;) {
      size_t at = first + draw(&r) % (i.size - first);
      copy[at] = below(&r, 2) ? (uint8_t)draw(&r) : copy[at] ^ (uint8_t)(1u << below(&r, 8));
    }
    pack_seal(copy, i.size);
    overwrite(copy, i.size);
    qn_pack *p;
    qn_status s = qn__pack_open(NULL, path, &p);
    ck_assert_msg(s == QN_OK || s == QN_E_FORMAT, "%s: %s", qn_status_name(s), qn__errmsg());
    if (s) continue;
    opened++;
    for (uint32_t j = 0; j < qn__pack_plans(p); j++) {
      qn_plan plan;
      qn__pack_plan(p, j, &plan);
    }
    for (uint32_t j = 0; j < qn__pack_kernels(p); j++) {
      qn_kernel k;
      qn__pack_kernel(p, j, &k);
      volatile uint8_t last = ((const uint8_t *)k.image)[k.size - 1];
      (void)last;
    }
    qn__pack_close(p);
  }
  ck_assert_int_gt(opened, 0); /* names and times may be anything: some must open */
  ck_assert_int_lt(opened, 1500);
  free(copy);
  free(i.data);
}
END_TEST

/* Sealed packs that say too much: refused before any of it is read. */
START_TEST(test_limits) {
  static const struct {
    int section;
    uint32_t count;
    const char *part;
  } cases[] = {{QN_PACK_DEVICES, QN_PACK_MAX_DEVICES + 1, "65 entries in its devices, limit 64"},
               {QN_PACK_PLANS, QN_PACK_MAX_PLANS + 1, "8193 entries in its index of plans, limit 8192"},
               {QN_PACK_KERNELS, UINT32_MAX, "4294967295 entries in its index of kernels, limit 65536"},
               {QN_PACK_KERNELS, 1000, "do not fit"}};
  image i = write_and_read((int[]){0, 1, 2});
  qn_pack *p;
  qn__put32(i.data + QN_PACK_HEADER + cases[_i].section * QN_PACK_ENTRY + 4, cases[_i].count);
  pack_seal(i.data, i.size);
  overwrite(i.data, i.size);
  ck_fails(QN_E_FORMAT, cases[_i].part, qn__pack_open(NULL, path, &p));
  free(i.data);
}
END_TEST

/* Names are shown on terminals: neither written nor read with what a terminal obeys. */
START_TEST(test_names_are_printable) {
  static const char *const bad[] = {"a\033[2J", "a\nb", "a\177", "a\302\233m", "a\377"};
  qn_pack_builder *b;
  qn_pack *p;
  qn_kernel k = make_kernel(HASH_A, "", image_a, sizeof image_a);
  strcpy(k.name, bad[_i]);
  ck_ok(qn__pack_builder_new(&b));
  ck_ok(qn__pack_add_kernel(b, &k));
  ck_fails(QN_E_FORMAT, "control character", qn__pack_write(b, path));
  qn__pack_builder_free(b);
  image i = write_and_read((int[]){0, 1, 2});
  char *name = memmem(i.data, i.size, "host.plain/0123", 15);
  ck_assert_ptr_nonnull(name);
  memcpy(name, bad[_i], strlen(bad[_i]));
  pack_seal(i.data, i.size);
  overwrite(i.data, i.size);
  ck_fails(QN_E_FORMAT, "control character", qn__pack_open(NULL, path, &p));
  ck_assert_ptr_null(strpbrk(qn__errmsg(), "\033\177\n"));
  free(i.data);
}
END_TEST

START_TEST(test_builder_refuses) {
  qn_pack_builder *b = make_builder((int[]){0, 1, 2});
  qn_plan p;
  qn_kernel k;
#define PLAN(part, change)                                                                                             \
  p = make_plan(4, 32, 32);                                                                                            \
  change;                                                                                                              \
  ck_assert_msg(qn__pack_add_plan(b, &p) != QN_OK, "%s", part);                                                        \
  ck_assert_msg(strstr(qn__errmsg(), part) != NULL, "'%s' is not in '%s'", part, qn__errmsg())
  PLAN("device 1 of 1", p.device = 1);
  PLAN("has not been added", p.range[1].variant[0] = 'f');
  PLAN("names no variant", p.range[1].variant[0] = 'x');
  PLAN("range 0 begins", p.range[0].m_min = 2);
  PLAN("range 1 begins", p.range[1].m_min = 1);
  PLAN("ranges", p.n_ranges = 0);
  PLAN("points", p.n_points = QN_PLAN_POINTS + 1);
  PLAN("point 1", p.point[1].m = 1);
  PLAN("kind", p.kind = 3);
  PLAN("not the problem", p.problem.n = 31);
  PLAN("not the problem", p.problem.act = 0);
  PLAN("not the problem", p.problem.x = QN_T_BF16; qn__problem_spell(&p.problem));
  PLAN("not the problem", p.problem.k = 0; qn__problem_spell(&p.problem));
  PLAN("reach", p.layout.section[0].outer[0].stride = 2);
  PLAN("decode", p.format.decode.n = 0);
  PLAN("added twice", p = make_plan(4, 64, 96));
  for (int i = 1; i < QN_PACK_MAX_DEVICES; i++) ck_ok(qn__pack_add_device(b, "host", "", "", 1));
  ck_fails(QN_E_LIMIT, "at most 64 devices", qn__pack_add_device(b, "host", "", "", 1));
  ck_fails(QN_E_FORMAT, "'tpu'", qn__pack_add_device(b, "tpu", "", "", 1));
#undef PLAN
#define KERNEL(part, change)                                                                                           \
  k = make_kernel("99990000999900009999000099990000", "", image_a, sizeof image_a);                                    \
  change;                                                                                                              \
  ck_assert_msg(qn__pack_add_kernel(b, &k) != QN_OK, "%s", part);                                                      \
  ck_assert_msg(strstr(qn__errmsg(), part) != NULL, "'%s' is not in '%s'", part, qn__errmsg())
  KERNEL("hash", k.hash[3] = 0);
  KERNEL("target", strcpy(k.target, "tpu"));
  KERNEL("no function", k.size = 0; strcpy(k.target, "cuda"));
  KERNEL("2 steps gather X", k.recipe.step[0].gathers = k.recipe.step[1].gathers = IN(k.recipe, V(M)));
  KERNEL("the last step gathers", k.recipe.step[1].gathers = IN(k.recipe, V(M)));
  KERNEL("no image", k.image = NULL);
  KERNEL("steps", k.recipe.n_steps = 4);
  KERNEL("no entry", k.recipe.step[1].entry[0] = 0);
  KERNEL("argument", k.recipe.step[0].arg[0] = QN_ARG_COUNT);
  KERNEL("argument 65", k.recipe.step[0].arg[1]++);
  KERNEL("box is 257", k.recipe.step[0].map[0].box[0] = 257);
  KERNEL("swizzle 16", k.recipe.step[0].map[0].swizzle = 16);
  KERNEL("3 tensor maps", k.recipe.step[0].n_maps = 3);
  KERNEL("variable", k.recipe.pool.op[k.recipe.step[0].grid[0].at].arg = 50);
  KERNEL("tokens 128 .. 131, the recipe has 11", k.recipe.step[0].grid[0].at = QN_POOL_OPS);
  KERNEL("recipe of 129 tokens", k.recipe.pool.n = QN_POOL_OPS + 1);
#undef KERNEL
  qn__pack_builder_free(b);
  qn__pack_builder_free(NULL);
}
END_TEST

/* A write that fails leaves what was there, and nothing beside it. */
START_TEST(test_a_full_disk_leaves_nothing) {
  qn_pack_builder *b = make_builder((int[]){0, 1, 2});
  qn_pack *p;
  char command[128];
  ck_ok(qn__pack_write(b, path));
  signal(SIGXFSZ, SIG_IGN);
  const struct rlimit small = {1000, 1000};
  ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
  ck_fails(QN_E_IO, path, qn__pack_write(b, path));
  ck_fails(QN_E_IO, "/tmp/there/is", qn__pack_write(b, "/tmp/there/is/no/such.qpack"));
  ck_ok(qn__pack_open(NULL, path, &p));
  qn__pack_close(p);
  snprintf(command, sizeof command, "test $(ls %s* | wc -l) = 1", path);
  ck_assert_int_eq(system(command), 0);
  qn__pack_builder_free(b);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(test_what_goes_in_comes_out, 1),
      CASE(test_equal_input_gives_equal_bytes, 1),
      CASE(test_equal_images_are_kept_once, 1),
      CASE(test_a_flipped_bit_is_an_error, 1),
      CASE(test_truncated_files, 1),
      CASE(test_foreign_files, 1),
      CASE(test_sealed_nonsense, 4),
      CASE(test_limits, 4),
      CASE(test_names_are_printable, 5),
      CASE(test_builder_refuses, 1),
      CASE(test_a_full_disk_leaves_nothing, 1),
  };
  return RUN_CASES(argv[0], cases, set_up, tear_down, 120);
}
