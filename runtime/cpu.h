/* cpu.h - the instruction sets of this CPU, by the names that compilers give them (-mavx512f: "avx512f"). */
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
#endif
