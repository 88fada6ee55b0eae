/* cpu.h - the instruction sets of this CPU, by the names that compilers give them (-mavx512f: "avx512f"); how many CPUs
 * this process may use. */
#ifndef QN_CPU_H
#define QN_CPU_H
#include <stdbool.h>
#include <stddef.h>

/* "x86-64" or "aarch64", then the sets that CPU and operating system both support, sorted, a space between two. Static
 * text; the first call finds out. Any thread. */
const char *qn__cpu_arch(void);

/* Does this CPU have every name of `list` (space separated; "" is none)? If not, the first that is missing is written
 * to `missing` (cut at `size`). The base name counts as a set. */
bool qn__cpu_has(const char *list, char *missing, size_t size);

/* CPUs that this process may run on (its affinity), at least 1. Any thread. */
int qn__cpu_allowed(void);

/* CPUs' worth of time that the control groups of this process leave it, at least 1, INT_MAX if they set no quota.
 * Rounded down: threads that together exceed their quota are all stopped until the next period. `root` is put before
 * the paths of /proc and /sys ("" for this system's). Any thread. */
int qn__cpu_quota(const char *root);

/* Threads for work that keeps CPUs busy: the smaller of the two, QN_MOST_THREADS at most. Any thread. */
enum { QN_MOST_THREADS = 1024 };
int qn__cpu_count(void);
#endif
