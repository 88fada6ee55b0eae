/* compile_cc.c - host kernels: the system C compiler, from text on its standard input to a shared object.
 *
 * The object is freestanding and position-independent and has no undefined symbol, so that runtime/host_load.c can map
 * it with nothing but relative relocations. The same source, flags and compiler give the same bytes. */
#include "back_end.h"
#include "compile.h"
#include "elf_image.h"
#include "fail.h"
#include "file.h"
#include "hash.h"
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

/* A source ("c") or a header ("c-header"), a file or standard input ("-"); what it becomes; the header that is compiled
 * already ("": none). */
typedef struct task {
  const char *language, *input, *output, *header;
} task;

/* The command line; `flags` is cut into its words. */
static qn_status arguments(const char *cc, const char *name, char *flags, const task *t, char *argv[max_args]) {
  char version[64];
  QN_TRY(compiler_version(cc, version, sizeof version));
  size_t n = 0;
  argv[n++] = (char *)(uintptr_t)cc;
  argv[n++] = (char *)(uintptr_t) "-x";
  argv[n++] = (char *)(uintptr_t)t->language;
  argv[n++] = (char *)(uintptr_t)t->input;
  if (*t->header) argv[n++] = (char *)(uintptr_t) "-include", argv[n++] = (char *)(uintptr_t)t->header;
  for (size_t i = 0; i < QN_COUNT(fixed_args); i++) {
    const char *family = fixed_args[i].family;
    bool links = !strncmp(fixed_args[i].flag, "-Wl,", 4), source = !strcmp(t->language, "c");
    if ((!family || !strncmp(version, family, strlen(family))) && (source || !links))
      argv[n++] = (char *)(uintptr_t)fixed_args[i].flag;
  }
  for (char *save, *p = strtok_r(flags, " ", &save); p; p = strtok_r(NULL, " ", &save)) {
    if (n == max_args - 3) return qn__fail(QN_E_ARG, "%s: over %d compiler flags", name, max_args);
    argv[n++] = p;
  }
  argv[n++] = (char *)(uintptr_t) "-o";
  argv[n++] = (char *)(uintptr_t)t->output;
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

/* Run the compiler on a text with the flags of a source, its temporary files in `folder`. */
static qn_status run(const char *folder, const char *cc, const qn_source *source, const char *text, const task *t,
                     qn_process_result *r) {
  char tmpdir[PATH_MAX + 16], *argv[max_args];
  snprintf(tmpdir, sizeof tmpdir, "TMPDIR=%s", folder);
  char *flags = strdup(source->flags ? source->flags : ""), **env = environment(tmpdir);
  qn_status s = flags && env ? arguments(cc, source->name, flags, t, argv) : qn__fail(QN_E_NOMEM, "compiling");
  if (s == QN_OK) s = qn__process_run(argv, env, text, time_limit, source->stop, r);
  if (s == QN_OK) s = verdict(source, cc, r);
  free(flags);
  free(env);
  return s;
}

/* ---- Headers ----------------------------------------------------------------------------------------------------- */

struct qn_headers {
  pthread_mutex_t lock;
  qn_scratch folder;
  struct {
    char key[33];
    int asked;
    bool ready;
  } of[16];
};

qn_headers *qn__headers_new(size_t sources) {
  enum { few = 8 }; /* to compile a header takes as long as to read it three times */
  qn_headers *h = sources < few ? NULL : calloc(1, sizeof *h);
  if (!h) return NULL;
  if (qn__scratch_open(&h->folder)) return free(h), NULL;
  pthread_mutex_init(&h->lock, NULL);
  return h;
}

void qn__headers_free(qn_headers *h) {
  if (!h) return;
  qn__scratch_close(&h->folder);
  pthread_mutex_destroy(&h->lock);
  free(h);
}

/* The lines with which a source begins, behind comments, that include a header of the system: the length of all. */
static size_t included(const char *text, char *out, size_t size) {
  size_t n = 0;
  for (const char *p = text; p;) {
    p += strspn(p, " \t\r\n");
    size_t line = strcspn(p, "\n");
    if (!strncmp(p, "/*", 2)) {
      p = strstr(p, "*/");
      p = p ? p + 2 : NULL;
    } else if (!strncmp(p, "//", 2) || !strncmp(p, "#line ", 6)) {
      p += line;
    } else if (!strncmp(p, "#include <", 10) && n + line + 2 < size) {
      n += (size_t)snprintf(out + n, size - n, "%.*s\n", (int)line, p);
      p += line;
    } else {
      break;
    }
  }
  return n;
}

/* The place of a key, one more time asked for; -1: there is none left. */
static int ask(qn_headers *h, const char *key) {
  int i = 0, most = (int)QN_COUNT(h->of);
  while (i < most && *h->of[i].key && strcmp(h->of[i].key, key)) i++;
  if (i == most) return -1;
  snprintf(h->of[i].key, sizeof h->of[i].key, "%s", key);
  h->of[i].asked++;
  return i;
}

/* The header of a source, compiled, into path; "" if it has none, or not yet: the second that asks compiles it. Only
 * gcc reads what it has compiled wherever the source comes from. */
static void find_header(const char *folder, const char *cc, const qn_source *source, char *path, size_t size) {
  char text[1024], key[33], version[64], output[PATH_MAX + 64], whole[2048];
  qn_headers *h = source->headers;
  *path = 0;
  if (!h || compiler_version(cc, version, sizeof version) || strncmp(version, "gcc", 3)) return;
  if (!included(source->text, text, sizeof text)) return;
  int n = snprintf(whole, sizeof whole, "%s\n%s\n%s", cc, source->flags ? source->flags : "", text);
  if (n >= (int)sizeof whole) return;
  qn__hash_hex(whole, (size_t)n, key);
  pthread_mutex_lock(&h->lock);
  int i = ask(h, key);
  bool ready = i >= 0 && h->of[i].ready, make = i >= 0 && h->of[i].asked == 2;
  pthread_mutex_unlock(&h->lock);
  snprintf(path, size, "%s/%s.h", h->folder.path, key);
  if (make) {
    qn_process_result r = {0};
    snprintf(output, sizeof output, "%s.gch", path);
    ready = !qn__file_replace(path, text, strlen(text)) &&
            !run(folder, cc, source, text, &(task){"c-header", path, output, ""}, &r);
    free(r.output);
    pthread_mutex_lock(&h->lock);
    h->of[i].ready = ready;
    pthread_mutex_unlock(&h->lock);
  }
  if (!ready) *path = 0;
}

/* ---- One source -------------------------------------------------------------------------------------------------- */

static qn_status compile_in(const char *folder, const char *cc, const qn_source *source, qn_artifact *out) {
  char object[PATH_MAX + 16], header[PATH_MAX + 48];
  snprintf(object, sizeof object, "%s/kernel.so", folder);
  find_header(folder, cc, source, header, sizeof header);
  qn_process_result r = {0};
  qn_status s = run(folder, cc, source, source->text, &(task){"c", "-", object, header}, &r);
  if (s == QN_OK) s = qn__file_read(object, (char **)&out->image, &out->size);
  if (s == QN_OK && !out->size) s = qn__fail(QN_E_IO, "%s: %s wrote nothing", object, cc);
  if (s == QN_OK) s = qn__elf_no_undefined(out->image, out->size, source->name);
  out->log = r.output;
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
