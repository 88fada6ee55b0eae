/* fuzz_ptx.c - mutated PTX for the interpreter: an error or a run within its budget, never a crash, never a hang.
 *
 *     fuzz_ptx SEED SECONDS FILE.ptx...          mutants of the files, one after the other
 *     fuzz_ptx SEED case:N FILE.ptx...           mutant N alone, its text on standard output first
 *
 * A mutant is a few edits of one file: bytes, numbers, modifiers, registers, whole lines, some out of other files.
 * Every kernel of it that loads is launched on small buffers. The mutants run in a child, so that the parent can say
 * which one ended it; a mutant that takes half a minute counts as a hang. */
#include "emu.h"
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 1 << 16, PARAM = 4096, PARAMS = 16, HANG_SECONDS = 30 };

static char **files; /* texts */
static int nfiles;
static uint64_t state;

static uint32_t draw(uint32_t below) {
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return (uint32_t)((state >> 16) % below);
}

/* ---- Mutants ----------------------------------------------------------------------------------------------------- */

/* A text being edited: what lies in front of `at`, then `put`, then what follows `at + cut`. */
static char *splice(char *text, size_t at, size_t cut, const char *put, size_t n) {
  size_t length = strlen(text);
  char *out = malloc(length - cut + n + 1);
  if (!out) exit(2);
  memcpy(out, text, at), memcpy(out + at, put, n), memcpy(out + at + n, text + at + cut, length - at - cut + 1);
  free(text);
  return out;
}

static size_t line_at(const char *text, size_t *length) {
  size_t n = strlen(text), at = n ? draw((uint32_t)n) : 0;
  while (at && text[at - 1] != '\n') at--;
  *length = strcspn(text + at, "\n") + (text[at + strcspn(text + at, "\n")] == '\n');
  return at;
}

/* The next place from a random one on that starts with one of `first`, and its extent in characters of `all`. */
static bool token_at(const char *text, const char *first, const char *all, size_t *at, size_t *length) {
  size_t n = strlen(text), from = n ? draw((uint32_t)n) : 0, skip = strcspn(text + from, first);
  *at = from + skip;
  if (!text[*at]) return false;
  *length = 1 + strspn(text + *at + 1, all);
  return true;
}

static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";

static char *edit_byte(char *text) {
  char c = (char)(draw(8) ? 32 + draw(95) : 1 + draw(255));
  size_t n = strlen(text);
  return n ? splice(text, draw((uint32_t)n), draw(2), &c, draw(2)) : text;
}
static char *edit_number(char *text) {
  static const char *const numbers[] = {"0",          "1",          "-1",       "2",           "16",
                                        "31",         "32",         "64",       "127",         "255",
                                        "4096",       "65535",      "1024",     "0f00000000",  "3.5",
                                        "2147483647", "4294967295", "99999999", "-2147483648", "18446744073709551615"};
  const char *put = numbers[draw(sizeof numbers / sizeof *numbers)];
  size_t at, n;
  return token_at(text, "0123456789", "0123456789", &at, &n) ? splice(text, at, n, put, strlen(put)) : text;
}
/* A token of that kind in place of another, from any file. */
static char *edit_token(char *text, const char *first) {
  const char *other = files[draw((uint32_t)nfiles)];
  size_t at, n, from, m;
  if (!token_at(text, first, letters, &at, &n) || !token_at(other, first, letters, &from, &m)) return text;
  return splice(text, at, n, other + from, m);
}
static char *edit_modifier(char *text) { return edit_token(text, "."); }
static char *edit_register(char *text) { return edit_token(text, "%"); }
static char *edit_drop(char *text) {
  size_t n, at = line_at(text, &n);
  return splice(text, at, n, "", 0);
}
static char *edit_insert(char *text) {
  const char *other = files[draw((uint32_t)nfiles)];
  size_t n, m, from = line_at(other, &m), at = line_at(text, &n);
  return splice(text, at, draw(2) ? n : 0, other + from, m);
}
static char *edit_end(char *text) {
  size_t n, at = line_at(text, &n);
  if (!draw(20)) text[at] = 0;
  return text;
}

static char *mutant(void) {
  static char *(*const edits[])(char *) = {edit_byte,     edit_number, edit_number, edit_modifier, edit_modifier,
                                           edit_register, edit_drop,   edit_insert, edit_insert,   edit_end};
  char *text = strdup(files[draw((uint32_t)nfiles)]);
  for (uint32_t n = 1 + draw(4); n; n--) text = edits[draw(sizeof edits / sizeof *edits)](text);
  return text;
}

/* ---- Running ----------------------------------------------------------------------------------------------------- */

/* Parameters by their size: a buffer, a small number, a tensor map. */
static void fill_param(qn_emu *e, const qn_emu_param *p, char *to) {
  uint64_t buffer = 0;
  if (p->size == 4) *(uint32_t *)(void *)to = 1 + draw(100);
  if (p->size < 8 || qn__emu_alloc(e, BUFFER, &buffer)) return;
  if (draw(2)) qn__emu_fill(e, buffer, 0x3c003c00, 4, BUFFER / 4);
  memcpy(to, &buffer, 8);
  if (p->size >= 128)
    qn__emu_tensor_encode(to, 6, 2, buffer, (uint64_t[]){64, 64}, (uint64_t[]){128}, (uint32_t[]){64, 1 + draw(64)},
                          (uint32_t[]){1, 1}, 0, (int)draw(4), 0, (int)draw(2));
}

/* One number of a launch as no caller should give it. */
static void spoil(qn_emu_launch *how) {
  static const uint32_t values[] = {0, 2, 3, 16, 33, 1024, 1025, 48 << 10, 232448, 1u << 31, UINT32_MAX};
  uint32_t v = values[draw(sizeof values / sizeof *values)],
           d = draw(3), *const at[] = {&how->grid[d], &how->block[d], &how->cluster[d], &how->dynamic_shared};
  *at[draw(4)] = v;
  if (!draw(8)) how->nparams = (int)v;
}

static void run_kernel(qn_emu *e, const qn_emu_kernel *k) {
  static _Alignas(64) char params[PARAMS][PARAM];
  const void *pointers[PARAMS];
  if (k->nparams > PARAMS) return;
  memset(params, 0, sizeof params);
  for (int n = 0; n < k->nparams; n++) fill_param(e, &k->params[n], params[n]), pointers[n] = params[n];
  static const uint32_t blocks[] = {32, 64, 128, 256, 1, 45};
  qn_emu_launch how = {.grid = {1 + draw(2), 1, 1},
                       .block = {k->block[0] ? k->block[0] : blocks[draw(6)], 1, 1},
                       .dynamic_shared = draw(4) ? 48 << 10 : 0,
                       .params = pointers,
                       .nparams = k->nparams,
                       .mode = draw(2) ? QN_EMU_LATE : QN_EMU_RANDOM,
                       .seed = draw(1000),
                       .without = draw(4) ? 0 : draw(16),
                       .threads = 1 + (int)draw(2),
                       .budget = 100000,
                       .findings_limit = 200};
  if (how.grid[0] % 2 && k->cluster[0] == 2) how.grid[0] = 2;
  if (!draw(4)) spoil(&how);
  qn_emu_report *r;
  char line[400];
  if (qn__emu_run(k, &how, &r)) return;
  for (int n = 0; n < r->count; n++) qn__emu_finding_print(&r->list[n], line, sizeof line);
  qn__emu_report_free(r);
}

/* The device that the text asks for, so that it is not refused for that. */
static qn_status open_device(const char *text, qn_emu **e) {
  char name[16] = "sm_90a";
  const char *target = strstr(text, ".target sm_");
  if (target) sscanf(target, ".target %15[a-z0-9_]", name);
  return qn__emu_open_name(name, e) ? qn__emu_open_name("sm_90a", e) : QN_OK;
}

/* True when it loaded. */
static bool one_case(uint64_t seed, uint64_t n, bool show) {
  state = (seed * 1000003 + n) * UINT64_C(0x9e3779b97f4a7c15) | 1;
  for (int k = 0; k < 8; k++) draw(2);
  char *text = mutant();
  if (show) fputs(text, stdout), fflush(stdout);
  qn_emu *e;
  qn_emu_module *m;
  bool loaded = !open_device(text, &e);
  if (!loaded) return free(text), false;
  alarm(HANG_SECONDS);
  loaded = !qn__emu_module_load(e, text, &m);
  for (int k = 0; loaded && k < qn__emu_kernel_count(m); k++) run_kernel(e, qn__emu_kernel_at(m, k));
  alarm(0);
  qn__emu_close(e);
  free(text);
  return loaded;
}

/* ---- The two processes ------------------------------------------------------------------------------------------- */

typedef struct progress {
  uint64_t cases, loaded;
} progress;

static int child(uint64_t seed, double seconds, progress *shared) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  double start = (double)t.tv_sec + 1e-9 * (double)t.tv_nsec, now = start;
  for (; now - start < seconds || shared->cases < 20; shared->cases++) {
    shared->loaded += one_case(seed, shared->cases, false);
    clock_gettime(CLOCK_MONOTONIC, &t);
    now = (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
  }
  return 0;
}

static int parent(pid_t pid, const char *seed, const progress *shared) {
  int status;
  if (waitpid(pid, &status, 0) < 0) return perror("waitpid"), 2;
  printf("seed %s: %llu mutants, %llu loaded\n", seed, (unsigned long long)shared->cases,
         (unsigned long long)shared->loaded);
  if (WIFEXITED(status) && !WEXITSTATUS(status)) return shared->loaded ? 0 : (puts("not one mutant loaded"), 1);
  printf("ended by mutant %llu: %s\n  again: fuzz_ptx %s case:%llu, then the same files\n",
         (unsigned long long)shared->cases,
         !WIFSIGNALED(status)          ? "a sanitizer's report"
         : WTERMSIG(status) == SIGALRM ? "it hangs"
                                       : strsignal(WTERMSIG(status)),
         seed, (unsigned long long)shared->cases);
  return 1;
}

static char *read_text(const char *path) {
  FILE *f = fopen(path, "rb");
  char *text = f ? calloc(1 << 20, 1) : NULL;
  if (!text || !fread(text, 1, (1 << 20) - 1, f)) perror(path), exit(2);
  fclose(f);
  return text;
}

int main(int argc, char **argv) {
  if (argc < 4) return puts("fuzz_ptx SEED SECONDS|case:N FILE.ptx..."), 2;
  uint64_t seed = strtoull(argv[1], NULL, 10);
  nfiles = argc - 3, files = calloc((size_t)nfiles, sizeof *files);
  for (int k = 0; k < nfiles; k++) files[k] = read_text(argv[3 + k]);
  if (!strncmp(argv[2], "case:", 5)) return one_case(seed, strtoull(argv[2] + 5, NULL, 10), true), 0;
  progress *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) return perror("mmap"), 2;
  fflush(stdout);
  pid_t pid = fork();
  if (pid < 0) return perror("fork"), 2;
  int status = pid ? parent(pid, argv[1], shared) : child(seed, atof(argv[2]), shared);
  for (int k = 0; k < nfiles; k++) free(files[k]);
  free(files);
  return status;
}
