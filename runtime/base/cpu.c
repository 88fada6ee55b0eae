/* cpu.c - what may be used here. Instruction sets: the CPU's word, and on x86-64 the operating system's as well, since
 * registers that it does not save are as good as absent. One table row a set; sets that no kernel needs are left out.
 * CPUs: those of the affinity mask, as far as control groups (version 1 or 2) leave them time. */
#include "cpu.h"
#include "fail.h"
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#if defined __x86_64__
#include <cpuid.h>
#define BASE "x86-64"

enum { EAX, EBX, ECX, EDX };
#define XMM_YMM 0x06u
#define ZMM (XMM_YMM | 0xe0u)

/* Intel SDM vol. 2A, CPUID: leaf, subleaf, register, bit; and the state of XCR0 that must be on. */
static const struct {
  const char *name;
  unsigned leaf, subleaf, reg, bit, state;
} sets[] = {
    {"avx", 1, 0, ECX, 28, XMM_YMM},    {"avx2", 7, 0, EBX, 5, XMM_YMM},    {"avx512bf16", 7, 1, EAX, 5, ZMM},
    {"avx512bw", 7, 0, EBX, 30, ZMM},   {"avx512cd", 7, 0, EBX, 28, ZMM},   {"avx512dq", 7, 0, EBX, 17, ZMM},
    {"avx512f", 7, 0, EBX, 16, ZMM},    {"avx512fp16", 7, 0, EDX, 23, ZMM}, {"avx512ifma", 7, 0, EBX, 21, ZMM},
    {"avx512vbmi", 7, 0, ECX, 1, ZMM},  {"avx512vbmi2", 7, 0, ECX, 6, ZMM}, {"avx512vl", 7, 0, EBX, 31, ZMM},
    {"avx512vnni", 7, 0, ECX, 11, ZMM}, {"avxvnni", 7, 1, EAX, 4, XMM_YMM}, {"bmi2", 7, 0, EBX, 8, 0},
    {"f16c", 1, 0, ECX, 29, XMM_YMM},   {"fma", 1, 0, ECX, 12, XMM_YMM},
};

static unsigned enabled_state(void) {
  unsigned a, b, c, d, low, high;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return 0; /* OSXSAVE */
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

static bool present(size_t i) {
  unsigned r[4];
  if (!__get_cpuid_count(sets[i].leaf, sets[i].subleaf, &r[EAX], &r[EBX], &r[ECX], &r[EDX])) return false;
  return r[sets[i].reg] >> sets[i].bit & 1 && (enabled_state() & sets[i].state) == sets[i].state;
}

#elif defined __aarch64__
#include <sys/auxv.h>
#define BASE "aarch64"

/* Linux, Documentation/arch/arm64/elf_hwcaps.rst; names as in -march=armv8-a+NAME. */
static const struct {
  const char *name;
  unsigned long type, bit;
} sets[] = {{"bf16", AT_HWCAP2, 14}, {"dotprod", AT_HWCAP, 20}, {"fp16", AT_HWCAP, 10},
            {"i8mm", AT_HWCAP2, 13}, {"sve", AT_HWCAP, 22},     {"sve2", AT_HWCAP2, 1}};

static bool present(size_t i) { return getauxval(sets[i].type) >> sets[i].bit & 1; }
#else
#error "host kernels are loaded on x86-64 and aarch64 only"
#endif

static char arch[160]; /* of the process: found out once */

static void find_out(void) {
  size_t used = (size_t)snprintf(arch, sizeof arch, "%s", BASE);
  for (size_t i = 0; i < QN_COUNT(sets); i++)
    if (present(i) && used + 1 + strlen(sets[i].name) < sizeof arch)
      used += (size_t)snprintf(arch + used, sizeof arch - used, " %s", sets[i].name);
}

const char *qn__cpu_arch(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, find_out);
  return arch;
}

/* Is the word of `length` bytes at `word` in a space-separated list? */
static bool listed(const char *list, const char *word, size_t length) {
  for (; *list; list += strspn(list, " ")) {
    size_t n = strcspn(list, " ");
    if (n == length && !memcmp(list, word, n)) return true;
    list += n;
  }
  return false;
}

bool qn__cpu_has(const char *list, char *missing, size_t size) {
  for (list += strspn(list, " "); *list; list += strspn(list, " ")) {
    size_t n = strcspn(list, " ");
    if (!listed(qn__cpu_arch(), list, n)) {
      snprintf(missing, size, "%.*s", (int)n, list);
      return false;
    }
    list += n;
  }
  return true;
}

/* ---- How many ---------------------------------------------------------------------------------------------------- */

int qn__cpu_allowed(void) {
  cpu_set_t set;
  int n = sched_getaffinity(0, sizeof set, &set) ? (int)sysconf(_SC_NPROCESSORS_ONLN) : CPU_COUNT(&set);
  return n > 0 ? n : 1;
}

/* The numbers at the beginning of file `name` in a folder; returns how many of the two are there. */
static int read_numbers(const char *folder, const char *name, long long *a, long long *b) {
  char path[PATH_MAX];
  if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) >= sizeof path) return 0;
  FILE *f = fopen(path, "re");
  int n = f ? fscanf(f, "%lld %lld", a, b) : 0;
  if (f) fclose(f);
  return n;
}

/* Version 2 has both numbers in one file ("max 100000": no quota), version 1 each in its own (-1: no quota). */
static int group_quota(const char *folder) {
  long long quota = -1, period = -1, none;
  if (read_numbers(folder, "cpu.max", &quota, &period) < 2) {
    read_numbers(folder, "cpu.cfs_quota_us", &quota, &none);
    read_numbers(folder, "cpu.cfs_period_us", &period, &none);
  }
  if (quota < 1 || period < 1 || quota / period >= INT_MAX) return INT_MAX;
  return quota < period ? 1 : (int)(quota / period);
}

/* The least quota of a group and those around it. In a container the path may be one that only the host sees; the files
 * of its own group then lie where the mount begins. */
static int least_quota(char *folder, size_t mount) {
  int least = INT_MAX, quota;
  for (char *end = folder + strlen(folder); end; end = strrchr(folder + mount, '/')) {
    *end = 0;
    least = (quota = group_quota(folder)) < least ? quota : least;
  }
  return least;
}

int qn__cpu_quota(const char *root) {
  char path[PATH_MAX], line[PATH_MAX];
  int least = INT_MAX;
  snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
  FILE *f = fopen(path, "re");
  while (f && fgets(line, sizeof line, f)) { /* NUMBER:CONTROLLERS:GROUP */
    char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!group) continue;
    *controllers = ',', *group = ',';
    bool two = group == controllers + 1, one = memmem(controllers, (size_t)(group + 1 - controllers), ",cpu,", 5);
    size_t mount = (size_t)snprintf(path, sizeof path, "%s/sys/fs/cgroup%s", root, two ? "" : "/cpu");
    if ((!two && !one) || mount >= sizeof path) continue;
    snprintf(path + mount, sizeof path - mount, "%.*s", (int)strcspn(group + 1, "\n"), group + 1);
    int quota = least_quota(path, mount);
    least = quota < least ? quota : least;
  }
  if (f) fclose(f);
  return least;
}

int qn__cpu_count(void) {
  int allowed = qn__cpu_allowed(), quota = qn__cpu_quota(""), least = quota < allowed ? quota : allowed;
  return least < QN_MOST_THREADS ? least : QN_MOST_THREADS;
}
