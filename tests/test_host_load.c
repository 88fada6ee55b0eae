/* test_host_load.c - kernels loaded from memory: what runs, what is refused and why, damaged files. */
#include "cpu.h"
#include "device_host.h"
#include "host_load.h"
#include "runtime_fixture.h"
#include <elf.h>
#include <limits.h>

static const char good[] = "static const int table[] = {3, 5, 7};\n"
                           "static const int *const pointer[] = {table + 2, table};\n"
                           "static int counter = 40;\n"
                           "static const int *volatile sink;\n"
                           "__attribute__((visibility(\"default\"))) int value(int i) {\n"
                           "  sink = pointer[i & 1]; return *sink + counter++; }\n"
                           "__attribute__((visibility(\"default\"))) int other(void) { return 11; }\n";

typedef int (*int_of_int)(int);

static int_of_int entry(const qn_host_image *h, const char *name) {
  void *p;
  int_of_int f;
  ck_ok(qn__host_image_entry(h, name, &p));
  memcpy(&f, &p, sizeof f);
  return f;
}

/* Constants, pointers that need relocating, and data of its own, with either table of symbols. */
START_TEST(test_loads_and_runs) {
  static const char *const flags[] = {PLAIN_FLAGS " -fvisibility=hidden", PLAIN_FLAGS " -Wl,--hash-style=sysv",
                                      PLAIN_FLAGS " -Wl,--hash-style=gnu -O3",
                                      PLAIN_FLAGS " -Wl,--hash-style=both -O0"};
  image i = compile(good, flags[_i]);
  qn_host_image *a, *b;
  void *none;
  ck_ok(qn__host_image_check(i.data, i.size));
  ck_ok(qn__host_image_open(NULL, i.data, i.size, &a));
  ck_ok(qn__host_image_open(NULL, i.data, i.size, &b));
  memset(i.data, 0, i.size);
  ck_assert_int_eq(entry(a, "value")(0), 47);
  ck_assert_int_eq(entry(a, "value")(1), 44);
  ck_assert_int_eq(entry(b, "value")(0), 47); /* each load has its own data */
  ck_assert_int_eq(entry(b, "other")(0), 11);
  ck_fails(QN_E_NO_KERNEL, "no function 'counter'", qn__host_image_entry(a, "counter", &none));
  qn__host_image_close(a);
  qn__host_image_close(b);
  qn__host_image_close(NULL);
  free(i.data);
}
END_TEST

START_TEST(test_refused_with_reason) {
  static const struct {
    const char *text, *flags, *part;
  } bad[] = {
      {"extern int missing(int); int value(int i) { return missing(i); }", "", "undefined symbol 'missing'"},
      {"extern int there; int value(int i) { return there + i; }", "", "undefined symbol 'there'"},
      {"int there; int value(int i) { return there += i; }", "", "relocation of type"},
      {"static __thread int t; int value(int i) { return t += i; }", "", "thread-local"},
      {"static int v; __attribute__((constructor)) static void f(void) { v = 1; } int value(int i) { return v + i; }",
       "", "initialisers"},
      {"int value(int i) { return i; }", "-Wl,--no-as-needed -lc", "library"},
      {"int value(int i) { return i; }", "-Wl,-N", "writable and executable"},
  };
  qn_host_image *h;
  image i = compile(bad[_i].text, PLAIN_FLAGS);
  if (bad[_i].flags[0]) {
    char flags[256];
    free(i.data);
    snprintf(flags, sizeof flags, "%s %s", PLAIN_FLAGS, bad[_i].flags);
    i = compile(bad[_i].text, flags);
  }
  ck_fails(QN_E_FORMAT, bad[_i].part, qn__host_image_open(NULL, i.data, i.size, &h));
  ck_assert_ptr_null(h);
  free(i.data);
}
END_TEST

START_TEST(test_foreign_files) {
  qn_host_image *h;
  image i = compile(good, PLAIN_FLAGS);
  Elf64_Ehdr *e = (Elf64_Ehdr *)i.data;
  const Elf64_Ehdr kept = *e;
  ck_fails(QN_E_FORMAT, "no ELF", qn__host_image_open(NULL, "", 0, &h));
#define REFUSED(status, part, change)                                                                                  \
  *e = kept;                                                                                                           \
  change;                                                                                                              \
  ck_fails(status, part, qn__host_image_open(NULL, i.data, i.size, &h))
  REFUSED(QN_E_FORMAT, "not a little-endian", e->e_ident[1] = 'e');
  REFUSED(QN_E_FORMAT, "not a little-endian", e->e_ident[EI_CLASS] = ELFCLASS32);
  REFUSED(QN_E_DEVICE, "machine", e->e_machine = EM_RISCV);
  REFUSED(QN_E_FORMAT, "not a shared object", e->e_type = ET_REL);
  REFUSED(QN_E_FORMAT, "program headers", e->e_phnum = 0);
  REFUSED(QN_E_FORMAT, "program headers", e->e_phoff = UINT64_MAX);
#undef REFUSED
  free(i.data);
}
END_TEST

static Elf64_Phdr *segment_of(Elf64_Phdr *p, uint64_t at) {
  while (p->p_type != PT_LOAD || at < p->p_vaddr || at - p->p_vaddr >= p->p_memsz) p++;
  return p;
}

/* Files whose parts contradict one another. Tables that cannot be read once pages are protected, a relocation that
 * rewrites the name of a symbol after it was checked, a function in the data. */
START_TEST(test_contradictions) {
  image i = compile(good, PLAIN_FLAGS);
  uint8_t *kept = memcpy(malloc(i.size), i.data, i.size);
  Elf64_Phdr *p = (Elf64_Phdr *)(i.data + ((Elf64_Ehdr *)i.data)->e_phoff), *dynamic = p;
  qn_host_image *h;
  while (dynamic->p_type != PT_DYNAMIC) dynamic++;
  uint64_t at[DT_NUM] = {0};
  for (const Elf64_Dyn *d = (Elf64_Dyn *)(i.data + dynamic->p_offset); d->d_tag; d++)
    if (d->d_tag < DT_NUM) at[d->d_tag] = d->d_un.d_ptr;
  Elf64_Sym *symbol = (Elf64_Sym *)(i.data + at[DT_SYMTAB]); /* these tables lie at their addresses */
  Elf64_Sym *function = symbol + 1;                          /* linkers for aarch64 keep the symbols of sections, too */
  while (ELF64_ST_TYPE(function->st_info) != STT_FUNC) function++;
  Elf64_Rela *rela = (Elf64_Rela *)(i.data + at[DT_RELA]);
  ck_assert_uint_eq(segment_of(p, at[DT_SYMTAB])->p_offset, segment_of(p, at[DT_SYMTAB])->p_vaddr);
#define REFUSED(part, change)                                                                                          \
  memcpy(i.data, kept, i.size);                                                                                        \
  change;                                                                                                              \
  ck_fails(QN_E_FORMAT, part, qn__host_image_open(NULL, i.data, i.size, &h))
  REFUSED("symbol table", segment_of(p, at[DT_SYMTAB])->p_flags = 0);
  REFUSED("symbol table", segment_of(p, at[DT_SYMTAB])->p_flags = PF_R | PF_W);
  REFUSED("no data", rela->r_offset = at[DT_SYMTAB] + sizeof *symbol - 4);
  REFUSED("no data", rela->r_offset = at[DT_STRTAB]);
  REFUSED("no data", rela->r_offset = UINT64_MAX - 7);
  REFUSED("no code", function->st_value = dynamic->p_vaddr);
  REFUSED("no code", function->st_value = UINT64_MAX);
  REFUSED("no name", symbol[1].st_name = UINT32_MAX);
  REFUSED("stay zeros", segment_of(p, at[DT_SYMTAB])->p_memsz++);
  REFUSED("larger than", segment_of(p, dynamic->p_vaddr)->p_memsz = 1 << 27);
#undef REFUSED
  memcpy(i.data, kept, i.size);
  ck_ok(qn__host_image_open(NULL, i.data, i.size, &h));
  qn__host_image_close(h);
  free(kept);
  free(i.data);
}
END_TEST

/* Cut at every length, one bit flipped at every place of the tables: refused or loaded, never a crash. */
START_TEST(test_damaged_files) {
  image i = compile(good, PLAIN_FLAGS);
  qn_host_image *h;
  rng r = {5};
  for (size_t size = 0; size < i.size; size += 1 + size / 97) {
    uint8_t *cut = malloc(size + 1); /* so that a sanitizer sees a read beyond the end */
    memcpy(cut, i.data, size);
    if (!qn__host_image_open(NULL, cut, size, &h)) qn__host_image_close(h);
    free(cut);
  }
  for (int round = 0; round < 20000; round++) {
    size_t at = round < 8000 ? (size_t)round % 1200 : draw(&r) % i.size;
    uint8_t kept = i.data[at];
    i.data[at] ^= (uint8_t)(1u << below(&r, 8));
    if (!qn__host_image_open(NULL, i.data, i.size, &h)) {
      void *fn;
      (void)qn__host_image_entry(h, "value", &fn);
      qn__host_image_close(h);
    }
    i.data[at] = kept;
  }
  free(i.data);
}
END_TEST

START_TEST(test_instruction_sets) {
  char missing[32];
  const char *arch = qn__cpu_arch();
  ck_assert(qn__cpu_has("", missing, sizeof missing));
  ck_assert_msg(qn__cpu_has(arch, missing, sizeof missing), "%s", arch);
  ck_assert(!qn__cpu_has("x86-64 avx9000 fma", missing, sizeof missing) || strcmp(missing, ""));
  ck_assert(!qn__cpu_has("avx9000", missing, sizeof missing));
  ck_assert_str_eq(missing, "avx9000");
  ck_assert(!qn__cpu_has("avx51", missing, sizeof missing)); /* a part of a name is no name */
#if defined __x86_64__
  ck_assert_int_eq(strncmp(arch, "x86-64", 6), 0);
  const struct {
    const char *name;
    int have;
  } compilers_word[] = {{"avx2", __builtin_cpu_supports("avx2")},
                        {"fma", __builtin_cpu_supports("fma")},
                        {"avx512f", __builtin_cpu_supports("avx512f")},
                        {"avx512bw", __builtin_cpu_supports("avx512bw")},
                        {"avx512vl", __builtin_cpu_supports("avx512vl")},
                        {"avx512vnni", __builtin_cpu_supports("avx512vnni")},
                        {"avx512bf16", __builtin_cpu_supports("avx512bf16")},
                        {"bmi2", __builtin_cpu_supports("bmi2")}};
  for (size_t i = 0; i < QN_COUNT(compilers_word); i++)
    ck_assert_msg(qn__cpu_has(compilers_word[i].name, missing, sizeof missing) == !!compilers_word[i].have, "%s",
                  compilers_word[i].name);
#endif
}
END_TEST

START_TEST(test_host_device) {
  qn_device *d;
  void *p;
  char text[4] = "";
  ck_ok(qn__device_host_open(NULL, 3, &d));
  ck_assert_str_eq(d->info.arch, qn__cpu_arch());
  ck_assert_int_eq(d->info.threads, 3);
  ck_assert_int_eq(d->info.var[QN_VAR_T], 3);
  for (size_t size = 0; size < 10 << 20; size = size * 9 + 1) {
    ck_ok(d->ops->alloc(d, size, &p));
    ck_assert_uint_eq((uintptr_t)p % 256, 0);
    if (size > 4) {
      ck_ok(d->ops->upload(d, p, "abc", 4));
      ck_ok(d->ops->download(d, text, p, 4));
      ck_assert_str_eq(text, "abc");
    }
    d->ops->free(d, p);
  }
  ck_fails(QN_E_NOMEM, "bytes", d->ops->alloc(d, SIZE_MAX / 2, &p));
  qn__device_close(d);
}
END_TEST

/* The threads asked for are what one gets, under a name that opens the same again; what cannot be had is an error that
 * says how many there are. */
START_TEST(test_device_names) {
  qn_device *d, *again;
  char name[32], limit[32];
  int cpus = qn__cpu_allowed();
  ck_ok(qn__device_open(NULL, "host", &d));
  ck_assert_str_eq(d->info.name, "host");
  ck_assert_int_eq(d->info.threads, qn__cpu_count());
  qn__device_close(d);
  for (int n = 1; n <= cpus; n++) {
    snprintf(name, sizeof name, "host:%d", n);
    ck_ok(qn__device_open(NULL, name, &d));
    ck_assert_int_eq(d->info.threads, n);
    ck_ok(qn__device_open(NULL, d->info.name, &again));
    ck_assert_int_eq(again->info.threads, n);
    qn__device_close(d), qn__device_close(again);
  }
  snprintf(name, sizeof name, "host:%d", cpus + 1);
  snprintf(limit, sizeof limit, "from 1 to %d,", cpus);
  const char *const bad[] = {"host:0", "host:x", "host:", "host:2x", "host:-1", "host:99999", "host:4294967297", name};
  for (size_t i = 0; i < QN_COUNT(bad); i++) ck_fails(QN_E_ARG, limit, qn__device_open(NULL, bad[i], &d));
  static const char *const unknown[] = {"", "gpu", "hosts", "cuda:-1", "cuda0"};
  for (size_t i = 0; i < QN_COUNT(unknown); i++) ck_fails(QN_E_ARG, "cuda:N", qn__device_open(NULL, unknown[i], &d));
}
END_TEST

/* Control groups of both versions: the least quota on the way up, or where the mount begins in a container. */
START_TEST(test_quota_of_cpus) {
  static const struct {
    const char *groups, *file[3]; /* paths with their text */
    int cpus;
  } cases[] = {
      {"0::/a/b\n", {"sys/fs/cgroup/a/b/cpu.max=max 100000", "sys/fs/cgroup/a/cpu.max=250000 100000"}, 2},
      {"0::/a/b\n", {"sys/fs/cgroup/a/b/cpu.max=50000 100000"}, 1},
      {"0::/../other\n", {"sys/fs/cgroup/cpu.max=300000 100000"}, 3},
      {"0::/\n", {"sys/fs/cgroup/cpu.max=max 100000"}, INT_MAX},
      {"5:cpuset:/x\n4:cpuacct,cpu:/x\n0::/x\n",
       {"sys/fs/cgroup/cpu/x/cpu.cfs_quota_us=400000", "sys/fs/cgroup/cpu/x/cpu.cfs_period_us=100000"},
       4},
      {"4:cpu:/docker/x\n",
       {"sys/fs/cgroup/cpu/cpu.cfs_quota_us=-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us=100000"},
       INT_MAX},
      {"4:cpuset:/\n3:name=systemd:/\nnonsense\n", {"sys/fs/cgroup/cpu/cpu.cfs_quota_us=1"}, INT_MAX},
      {"0::/\n", {"sys/fs/cgroup/cpu.max=9223372036854775807 1"}, INT_MAX},
      {"0::/\n", {"sys/fs/cgroup/cpu.max=100000 0"}, INT_MAX},
      {NULL, {0}, INT_MAX},
  };
  char root[] = "/tmp/qn_test_XXXXXX", command[2048];
  ck_assert_ptr_nonnull(mkdtemp(root));
  size_t n =
      (size_t)snprintf(command, sizeof command, "cd %s && mkdir -p proc/self && printf '%%b' '%s' >proc/self/cgroup",
                       root, cases[_i].groups ? cases[_i].groups : "");
  for (int i = 0; i < 3 && cases[_i].file[i]; i++) {
    const char *file = cases[_i].file[i], *text = strchr(file, '=');
    n += (size_t)snprintf(command + n, sizeof command - n, " && mkdir -p $(dirname %.*s) && echo '%s' >%.*s",
                          (int)(text - file), file, text + 1, (int)(text - file), file);
  }
  ck_assert_int_eq(cases[_i].groups ? system(command) : 0, 0);
  ck_assert_int_eq(qn__cpu_quota(root), cases[_i].cpus);
  snprintf(command, sizeof command, "rm -r %s", root);
  ck_assert_int_eq(system(command), 0);
}
END_TEST

int main(int argc, char **argv) {
  (void)argc;
  static const suite_case cases[] = {
      CASE(test_loads_and_runs, 4), CASE(test_refused_with_reason, 7), CASE(test_foreign_files, 1),
      CASE(test_contradictions, 1), CASE(test_damaged_files, 1),       CASE(test_instruction_sets, 1),
      CASE(test_host_device, 1),    CASE(test_device_names, 1),        CASE(test_quota_of_cpus, 10),
  };
  return RUN_CASES(argv[0], cases, .timeout = 120);
}
