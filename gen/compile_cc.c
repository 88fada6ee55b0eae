/* compile_cc.c - host kernels: the system C compiler, from text on its standard input to a shared object.
 *
 * The object is freestanding and position-independent and has no undefined symbol, so that runtime/host_load.c can map
 * it with nothing but relative relocations. The same source, flags and compiler give the same bytes. */
#include "compile_internal.h"
#include "elf_image.h"
#include "fail.h"
#include "process.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { time_limit = 120, max_args = 64 };

static const char *const fixed_args[] = {
    "-x",
    "c",
    "-",
    "-std=gnu17",
    "-O3",
    "-ffreestanding",
    "-fno-stack-protector",
    "-fPIC",
    "-shared",
    "-nostdlib",
    "-w",
    "-fno-math-errno",
    "-ffp-contract=off",
    "-fvisibility=hidden",
    "-fno-asynchronous-unwind-tables",
    "-Wl,--build-id=none",
    "-Wl,-z,norelro",
    "-Wl,-z,noexecstack",
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

const char *qn_compiler_path(void) {
  const char *own = getenv("QUERNEL_CC");
  if (own && *own) return own;
  static const char *const names[] = {"cc", "gcc", "clang"};
  for (size_t i = 0; i < QN_COUNT(names); i++)
    if (executable(names[i])) return names[i];
  return NULL;
}

static qn_status find_compiler(const char **cc) {
  *cc = qn_compiler_path();
  if (!*cc)
    return qn__fail(QN_E_DEVICE, "no C compiler: none of cc, gcc, clang is on PATH; install one or set QUERNEL_CC");
  if (!executable(*cc))
    return qn__fail(QN_E_DEVICE, "no C compiler: QUERNEL_CC is \"%s\", which cannot be executed", *cc);
  return QN_OK;
}

qn_status qn__cc_version(char *text, size_t size) {
  const char *cc;
  QN_TRY(find_compiler(&cc));
  char *argv[] = {(char *)(uintptr_t)cc, "--version", NULL};
  qn_process_result r;
  qn_status s = qn__process_run(argv, NULL, 20, &r);
  if (s == QN_OK) snprintf(text, size, "%.*s", (int)strcspn(r.output, "\n"), r.output);
  free(r.output);
  return s;
}

static qn_status read_file(const char *path, qn_artifact *out) {
  FILE *f = fopen(path, "rb");
  if (!f) return qn__fail(QN_E_IO, "%s: %s", path, strerror(errno));
  fseek(f, 0, SEEK_END);
  long n = ftell(f);
  rewind(f);
  out->image = n > 0 ? malloc((size_t)n) : NULL;
  out->size = out->image ? fread(out->image, 1, (size_t)n, f) : 0;
  fclose(f);
  return out->size && out->size == (size_t)n ? QN_OK : qn__fail(QN_E_IO, "%s: cannot be read", path);
}

qn_status qn__compile_cc(const qn_source *source, qn_artifact *out) {
  const char *cc, *tmp = getenv("TMPDIR");
  QN_TRY(find_compiler(&cc));
  char object[4096], flags[2048];
  snprintf(object, sizeof object, "%s/quernel-XXXXXX", tmp && *tmp ? tmp : "/tmp");
  int fd = mkstemp(object);
  if (fd < 0) return qn__fail(QN_E_IO, "%s: %s", object, strerror(errno));
  close(fd);

  char *argv[max_args] = {(char *)(uintptr_t)cc};
  int n = 1;
  for (size_t i = 0; i < QN_COUNT(fixed_args); i++) argv[n++] = (char *)(uintptr_t)fixed_args[i];
  snprintf(flags, sizeof flags, "%s", source->flags ? source->flags : "");
  for (char *save, *p = strtok_r(flags, " ", &save); p && n < max_args - 3; p = strtok_r(NULL, " ", &save))
    argv[n++] = p;
  argv[n++] = "-o";
  argv[n++] = object;

  qn_process_result r;
  qn_status s = qn__process_run(argv, source->text, time_limit, &r);
  out->log = r.output;
  if (s == QN_OK && r.exit_status == 124)
    s = qn__fail(QN_E_COMPILE, "%s: %s took over %d s", source->name, cc, time_limit);
  else if (s == QN_OK && r.exit_status)
    s = qn__fail(QN_E_COMPILE, "%s: %s", source->name, qn__first_errors(out->log, (char[1024]){0}, 1024));
  if (s == QN_OK) s = read_file(object, out);
  if (s == QN_OK) s = qn__elf_no_undefined(out->image, out->size, source->name);
  unlink(object);
  return s;
}
