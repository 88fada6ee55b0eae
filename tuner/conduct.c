/* conduct.c - numbers that say what a thread and the process are like: equal before and after, or the kernel is
 * wrong. */
#include "conduct.h"
#include "fail.h"
#include <dirent.h>
#include <locale.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

/* A number that stands for some bytes, continued from another (FNV-1a). */
static uint64_t mixed(uint64_t h, const void *data, size_t size) {
  const unsigned char *p = data;
  for (size_t i = 0; i < size; i++) h = (h ^ p[i]) * UINT64_C(0x100000001b3);
  return h;
}

typedef struct thing {
  const char *what;
  uint64_t (*now)(void);
} thing;

/* ---- A thread ---------------------------------------------------------------------------------------------------- */

#if defined __x86_64__
static uint64_t vector_unit(void) { return __builtin_ia32_stmxcsr() & ~UINT32_C(0x3f); } /* less what has happened */
static uint64_t x87(void) { /* control and tags: precision, rounding, no registers in use */
  uint16_t env[14];
  __asm__ volatile("fnstenv %0\n\tfldenv %0" : "=m"(env));
  return env[0] | (uint64_t)env[4] << 16;
}
static uint64_t flags(void) { /* direction, alignment checks; forward again, as compiled code takes for granted */
  uint64_t f = __builtin_ia32_readeflags_u64() & 0x40400;
  __asm__ volatile("cld");
  return f;
}
#endif
#if defined __aarch64__
static uint64_t vector_unit(void) {
  uint64_t fpcr;
  __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
  return fpcr;
}
#endif

static uint64_t blocked_signals(void) {
  sigset_t s = {0}; /* the system fills some of it */
  pthread_sigmask(SIG_SETMASK, NULL, &s);
  return mixed(0, &s, sizeof s);
}

static uint64_t affinity(void) {
  cpu_set_t s = {0};
  sched_getaffinity(0, sizeof s, &s);
  return mixed(0, &s, sizeof s);
}

static uint64_t priority(void) { return (uint64_t)getpriority(PRIO_PROCESS, 0) << 8 | (uint64_t)sched_getscheduler(0); }

static uint64_t signal_stack(void) {
  stack_t s = {0};
  sigaltstack(NULL, &s);
  return mixed((uint64_t)s.ss_flags, &s.ss_sp, sizeof s.ss_sp);
}

static uint64_t own_locale(void) { return (uint64_t)(uintptr_t)uselocale((locale_t)0); }

static const thing of_thread[] = {
#if defined __x86_64__
    {"direction or alignment flag", flags}, /* first: see there */
    {"x87 control or registers", x87},
#endif
#if defined __x86_64__ || defined __aarch64__
    {"floating-point control (rounding, denormals, exceptions)", vector_unit},
#endif
    {"blocked signals", blocked_signals},
    {"affinity", affinity},
    {"priority", priority},
    {"stack for signals", signal_stack},
    {"locale", own_locale},
};

/* A launch as its kernel must not see it: what is called has the arguments first. */
typedef struct witness {
  qn_host_args args;
  qn_host_entry entry;
  unsigned cut;
  const thing *_Atomic *changed;
} witness;

/* Up to four pieces, the end first, the last of them short; and an empty one. */
static void in_pieces(const witness *w, int64_t begin, int64_t end, int32_t thread) {
  int64_t n = end - begin, least = n / 4 + 1, piece = least + w->cut / 2 * 7 % (n - least + 1);
  w->entry(&w->args, end, end, thread);
  for (int64_t e = end; e > begin; e -= piece) w->entry(&w->args, e - begin > piece ? e - piece : begin, e, thread);
}

static void run_part(const qn_host_args *a, int64_t begin, int64_t end, int32_t thread) {
  const witness *w = (const void *)a;
  uint64_t before[QN_COUNT(of_thread)];
  for (size_t i = 0; i < QN_COUNT(of_thread); i++) before[i] = of_thread[i].now();
  if (w->cut % 2 && end - begin > 1) in_pieces(w, begin, end, thread);
  else w->entry(&w->args, begin, end, thread);
  for (size_t i = 0; i < QN_COUNT(of_thread); i++)
    if (of_thread[i].now() != before[i]) atomic_store(w->changed, &of_thread[i]);
}

qn_status qn__conduct_launch(qn_device *d, const qn_launch *l, const qn_host_args *a, unsigned cut) {
  const thing *_Atomic changed = NULL;
  witness w = {.args = *a, .cut = cut, .changed = &changed};
  qn_host_entry entry = run_part;
  qn_launch mine = *l;
  memcpy(&w.entry, &l->fn, sizeof w.entry);
  memcpy(&mine.fn, &entry, sizeof mine.fn);
  QN_TRY(d->ops->launch(d, &mine, &w.args, NULL));
  return changed ? qn__fail(QN_E_WRONG, "left the %s of a thread that called it changed", changed->what) : QN_OK;
}

/* ---- The process ------------------------------------------------------------------------------------------------- */

/* Visit the numbers that name the entries of a folder of /proc; how many there are. */
static uint64_t count_entries(const char *folder, void (*visit)(int number, uint64_t *ud), uint64_t *ud) {
  DIR *d = opendir(folder);
  uint64_t n = 0;
  for (const struct dirent *e; d && (e = readdir(d));)
    if (*e->d_name != '.') {
      if (visit) visit(atoi(e->d_name), ud);
      n++;
    }
  if (d) closedir(d);
  return n;
}

static void add_file(int fd, uint64_t *sum) {
  struct stat s;
  if (fstat(fd, &s)) return;
  *sum += mixed(mixed((uint64_t)fd, &s.st_dev, sizeof s.st_dev), &s.st_ino, sizeof s.st_ino);
}

static uint64_t descriptors(void) {
  uint64_t sum = 0;
  count_entries("/proc/self/fd", add_file, &sum);
  return sum;
}

static uint64_t signal_handlers(void) {
  uint64_t sum = 0;
  for (int i = 1; i < NSIG; i++) {
    struct sigaction a;
    if (!sigaction(i, NULL, &a)) sum = mixed(sum, &a.sa_handler, sizeof a.sa_handler);
  }
  return sum;
}

static uint64_t limits(void) {
  uint64_t sum = 0;
  for (int i = 0; i < RLIM_NLIMITS; i++) {
    struct rlimit r = {0};
    getrlimit((__rlimit_resource_t)i, &r);
    sum = mixed(sum, &r, sizeof r);
  }
  return sum;
}

static uint64_t lines(const char *path) {
  FILE *f = fopen(path, "r");
  uint64_t n = 0;
  for (int c; f && (c = fgetc(f)) != EOF;) n += c == '\n';
  if (f) fclose(f);
  return n;
}

static uint64_t timers(void) {
  uint64_t running = lines("/proc/self/timers");
  for (int i = ITIMER_REAL; i <= ITIMER_PROF; i++) {
    struct itimerval t = {0};
    getitimer((__itimer_which_t)i, &t);
    running += t.it_value.tv_sec || t.it_value.tv_usec;
  }
  return running;
}

static uint64_t working_folder(void) {
  struct stat s = {0};
  return stat(".", &s) ? 0 : mixed(s.st_dev, &s.st_ino, sizeof s.st_ino);
}

static uint64_t environment(void) {
  uint64_t sum = 0;
  for (char **e = environ; e && *e; e++) sum = mixed(sum, *e, strlen(*e));
  return sum;
}

static uint64_t locale(void) {
  const char *name = setlocale(LC_ALL, NULL);
  return mixed(0, name, strlen(name));
}

static uint64_t mask_of_files(void) {
  mode_t m = umask(0);
  umask(m);
  return m;
}

static uint64_t group(void) { return (uint64_t)getpgrp(); }

static uint64_t threads(void) { return count_entries("/proc/self/task", NULL, NULL); }

static uint64_t children(void) {
  siginfo_t i;
  return !waitid(P_ALL, 0, &i, WEXITED | WNOHANG | WNOWAIT);
}

/* A thread's children: they may have left the group that is killed when the worker is. */
static void kill_children(int thread, uint64_t *ud) {
  char path[64];
  int pid;
  (void)ud;
  snprintf(path, sizeof path, "/proc/self/task/%d/children", thread);
  FILE *f = fopen(path, "r");
  while (f && fscanf(f, "%d", &pid) == 1) kill(pid, SIGKILL);
  if (f) fclose(f);
}

/* Limits first: under one that is too low nothing else can be found out. */
static const thing of_process[] = {{"limits of resources", limits},
                                   {"open files", descriptors},
                                   {"handling of signals", signal_handlers},
                                   {"timers", timers},
                                   {"working folder", working_folder},
                                   {"environment", environment},
                                   {"locale", locale},
                                   {"mask of new files", mask_of_files},
                                   {"process group", group},
                                   {"child processes", children},
                                   {"threads", threads}};
_Static_assert(QN_COUNT(of_process) <= QN_CONDUCTS, "room for a number each");

/* Bytes of memory in use. */
static size_t resident(void) {
  size_t pages = 0;
  FILE *f = fopen("/proc/self/statm", "r");
  if (f && fscanf(f, "%*u %zu", &pages) != 1) pages = 0;
  if (f) fclose(f);
  return pages * (size_t)sysconf(_SC_PAGESIZE);
}

void qn__conduct_note(qn_conduct *before) {
  for (size_t i = 0; i < QN_COUNT(of_process); i++) before->value[i] = of_process[i].now();
  before->resident = resident();
}

qn_status qn__conduct_check(const qn_conduct *before, bool threads_allowed, int calls) {
  enum { KEPT = 16384, ONCE = 64 << 20 }; /* bytes that a call may keep, and all together */
  if (children()) count_entries("/proc/self/task", kill_children, NULL);
  for (size_t i = 0; i < QN_COUNT(of_process); i++)
    if (!(threads_allowed && of_process[i].now == threads) && of_process[i].now() != before->value[i])
      return qn__fail(QN_E_WRONG, "left the process with other %s than before", of_process[i].what);
  size_t now = resident(), most = before->resident + ONCE + (size_t)calls * KEPT;
  return now <= most ? QN_OK
                     : qn__fail(QN_E_WRONG, "keeps memory: %zu MiB more in use after %d calls",
                                (now - before->resident) >> 20, calls);
}
