/* compile_cc.c - host kernels: the system C compiler, from text on its standard input to a shared object.
 *
 * The object is freestanding and position-independent and has no undefined symbol, so that runtime/host_load.c can map
 * it with nothing but relative relocations. The same source, flags and compiler give the same bytes. */
#include "back_end.h"
#include "compile.h"
#include "elf_image.h"
#include "fail.h"
#include "file.h"
#include "leash.h"
#include "process.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { time_limit = 120, max_args = 96 };

/* What a host kernel is, in flags. `family`: only for this compiler. */
static const struct {
  const char *flag, *family;
} fixed_args[] = {
    {"-x", 0},
    {"c", 0},
    {"-", 0},
    {"-std=gnu17", 0},
    {"-O3", 0},
    {"-ffreestanding", 0},                         /* no call to the C library that the text does not write */
    {"-fno-tree-loop-distribute-patterns", "gcc"}, /* nor memset or memcpy made of a loop */
    {"-Werror=implicit-function-declaration", 0},
    {"-fno-stack-protector", 0},
    {"-fPIC", 0},
    {"-shared", 0},
    {"-nostdlib", 0},
    {"-fno-math-errno", 0},
    {"-ffp-contract=off", 0},
    {"-fvisibility=hidden", 0},
    {"-fno-asynchronous-unwind-tables", 0},
    {"-fno-ident", 0}, /* the same bytes every time: no build id, no names of temporary files */
    {"-Wl,--build-id=none", 0},
    {"-Wl,--strip-all", 0},
    {"-Wl,-z,norelro", 0},
    {"-Wl,-z,noexecstack", 0},
};

static bool executable(const char *name) {
  if (strchr(name, '/')) return access(name, X_OK) == 0;
  const char *path = getenv("PATH");
  char full[4096];
  for (const char *p = path ? path : "/usr/bin:/bin"; *p;) {
    int n = (int)strcspn(p, ":");
    snprintf(full, sizeof full, "%.*s/%s", n, p, name);
    if (access(full, X_OK) == 0) return true;
    p += n + (p[n] == ':');
  }
  return false;
}

const char *qn__compiler_path(void) {
  const char *own = getenv("QUERNEL_CC");
  if (own && *own) return own;
  static const char *const names[] = {"cc", "gcc", "clang"};
  for (size_t i = 0; i < QN_COUNT(names); i++)
    if (executable(names[i])) return names[i];
  return NULL;
}

static qn_status find_compiler(const char **cc) {
  *cc = qn__compiler_path();
  if (!*cc)
    return qn__fail(QN_E_DEVICE, "no C compiler: none of cc, gcc, clang is on PATH; install one or set QUERNEL_CC");
  if (!executable(*cc))
    return qn__fail(QN_E_DEVICE, "no C compiler: QUERNEL_CC is \"%s\", which cannot be executed", *cc);
  return QN_OK;
}

/* ---- Which compiler ---------------------------------------------------------------------------------------------- */

/* Ask the preprocessor: it answers alike whatever the compiler is called. */
static qn_status ask_version(const char *cc, char *text, size_t size) {
  static const char question[] = "#if defined __clang__\n"
                                 "quernel clang __clang_major__ __clang_minor__ __clang_patchlevel__\n"
                                 "#elif defined __GNUC__\n"
                                 "quernel gcc __GNUC__ __GNUC_MINOR__ __GNUC_PATCHLEVEL__\n"
                                 "#endif\n";
  char *argv[] = {(char *)(uintptr_t)cc, "-E", "-P", "-x", "c", "-", NULL}, family[8];
  int a, b, c;
  qn_process_result r;
  qn_status s = qn__process_run(argv, NULL, question, 20, NULL, &r);
  const char *answer = s == QN_OK ? strstr(r.output, "quernel ") : NULL;
  if (answer && sscanf(answer, "quernel %7s %d %d %d", family, &a, &b, &c) == 4)
    snprintf(text, size, "%s %d.%d.%d", family, a, b, c);
  else if (s == QN_OK)
    s = qn__fail(QN_E_DEVICE, "%s is neither gcc nor clang%s%.200s", cc, *r.output ? ": " : "", r.output);
  free(r.output);
  return s;
}

/* Of the process, as the compiler on its PATH is: the answer of the last one asked is kept. */
static qn_status compiler_version(const char *cc, char *text, size_t size) {
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  static char known[4096], version[64];
  qn_status s = QN_OK;
  pthread_mutex_lock(&lock);
  if (strcmp(known, cc)) {
    *known = 0;
    s = ask_version(cc, version, sizeof version);
    if (s == QN_OK) snprintf(known, sizeof known, "%s", cc);
  }
  if (s == QN_OK) snprintf(text, size, "%s", version);
  pthread_mutex_unlock(&lock);
  return s;
}

static qn_status version(char *text, size_t size) {
  const char *cc;
  QN_TRY(find_compiler(&cc));
  return compiler_version(cc, text, size);
}

/* ---- Compiling --------------------------------------------------------------------------------------------------- */

/* Our environment, but messages in English, and temporary files in `folder`, which goes with all it holds. */
static char **environment(const char *tmpdir) {
  size_t n = 0, kept = 0;
  while (environ[n]) n++;
  char **env = malloc((n + 3) * sizeof *env);
  if (!env) return NULL;
  env[kept++] = (char *)(uintptr_t)tmpdir;
  env[kept++] = (char *)(uintptr_t) "LC_ALL=C";
  for (size_t i = 0; i < n; i++)
    if (strncmp(environ[i], "TMPDIR=", 7) && strncmp(environ[i], "LC_ALL=", 7)) env[kept++] = environ[i];
  env[kept] = NULL;
  return env;
}

/* The command line; `flags` is cut into its words. */
static qn_status arguments(const char *cc, const char *name, char *flags, const char *object, char *argv[max_args]) {
  char version[64];
  QN_TRY(compiler_version(cc, version, sizeof version));
  size_t n = 0;
  argv[n++] = (char *)(uintptr_t)cc;
  for (size_t i = 0; i < QN_COUNT(fixed_args); i++)
    if (!fixed_args[i].family || !strncmp(version, fixed_args[i].family, strlen(fixed_args[i].family)))
      argv[n++] = (char *)(uintptr_t)fixed_args[i].flag;
  for (char *save, *p = strtok_r(flags, " ", &save); p; p = strtok_r(NULL, " ", &save)) {
    if (n == max_args - 3) return qn__fail(QN_E_ARG, "%s: over %d compiler flags", name, max_args);
    argv[n++] = p;
  }
  argv[n++] = (char *)(uintptr_t) "-o";
  argv[n++] = (char *)(uintptr_t)object;
  argv[n] = NULL;
  return QN_OK;
}

/* A failure that says nothing about the source must not be remembered against it. */
static qn_status verdict(const qn_source *source, const char *cc, const qn_process_result *r) {
  static const char *const passing[] = {
      "No space left on device", "File too large", "File size limit exceeded", "annot allocate memory", "Killed signal",
      "memory exhausted",        "out of memory"};
  if (!r->exit_status) return QN_OK;
  if (r->exit_status == 124)
    return qn__fail(QN_E_LIMIT, "%s: %s was killed: there was no more time, or it took over %d s", source->name, cc,
                    time_limit);
  if (r->exit_status > 128)
    return qn__fail(QN_E_IO, "%s: %s ended by signal %d", source->name, cc, r->exit_status - 128);
  qn_status s = QN_E_COMPILE;
  for (size_t i = 0; i < QN_COUNT(passing); i++)
    if (strstr(r->output, passing[i])) s = QN_E_IO;
  return qn__fail(s, "%s: %s", source->name, qn__first_errors(r->output, (char[1024]){0}, 1024));
}

static qn_status compile_in(const char *folder, const char *cc, const qn_source *source, qn_artifact *out) {
  char object[PATH_MAX + 16], tmpdir[PATH_MAX + 16], *argv[max_args];
  snprintf(object, sizeof object, "%s/kernel.so", folder);
  snprintf(tmpdir, sizeof tmpdir, "TMPDIR=%s", folder);
  char *flags = strdup(source->flags ? source->flags : ""), **env = environment(tmpdir);
  qn_process_result r = {0};
  qn_status s = flags && env ? arguments(cc, source->name, flags, object, argv) : qn__fail(QN_E_NOMEM, "compiling");
  if (s == QN_OK) s = qn__process_run(argv, env, source->text, time_limit, source->stop, &r);
  if (s == QN_OK) s = verdict(source, cc, &r);
  if (s == QN_OK) s = qn__file_read(object, (char **)&out->image, &out->size);
  if (s == QN_OK && !out->size) s = qn__fail(QN_E_IO, "%s: %s wrote nothing", object, cc);
  if (s == QN_OK) s = qn__elf_no_undefined(out->image, out->size, source->name);
  out->log = r.output;
  free(flags);
  free(env);
  return s;
}

static qn_status compile(const qn_source *source, qn_artifact *out) {
  const char *cc;
  qn_scratch folder;
  QN_TRY(find_compiler(&cc));
  QN_TRY(qn__scratch_open(&folder));
  qn_status s = compile_in(folder.path, cc, source, out);
  qn__scratch_close(&folder);
  return s;
}

const qn_back_end qn__back_end_cc = {
    "host",
    "^(-O([0-3sgz]|fast)?|-m[a-z0-9._-]+(=[A-Za-z0-9][A-Za-z0-9.+_-]*)?|-f[a-z0-9-]+|-ffp-contract=[a-z]+"
    "|" QN_FLAGS_MACROS ")$",
    "-O, -m, -f without a file, -D, -U",
    compile,
    version,
};
