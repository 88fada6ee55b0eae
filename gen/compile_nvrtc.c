/* compile_nvrtc.c - CUDA kernels: NVRTC, found at run time. One compilation gives PTX, cubin and the assembler's log.
 */
#include "compile_internal.h"
#include "elf_image.h"
#include "fail.h"
#include <dlfcn.h>
#include <glob.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct program *nvrtcProgram; /* opaque to us, as in nvrtc.h */

#define FUNCTIONS(X)                                                                                                   \
  X(int, Version, (int *major, int *minor))                                                                            \
  X(const char *, GetErrorString, (int))                                                                               \
  X(int, CreateProgram,                                                                                                \
    (nvrtcProgram *, const char *source, const char *name, int, const char *const *, const char *const *))             \
  X(int, DestroyProgram, (nvrtcProgram *))                                                                             \
  X(int, CompileProgram, (nvrtcProgram, int n, const char *const *options))                                            \
  X(int, GetProgramLogSize, (nvrtcProgram, size_t *))                                                                  \
  X(int, GetProgramLog, (nvrtcProgram, char *))                                                                        \
  X(int, GetPTXSize, (nvrtcProgram, size_t *))                                                                         \
  X(int, GetPTX, (nvrtcProgram, char *))                                                                               \
  X(int, GetCUBINSize, (nvrtcProgram, size_t *))                                                                       \
  X(int, GetCUBIN, (nvrtcProgram, char *))

static struct {
#define X(type, name, args) type(*name) args;
  FUNCTIONS(X)
#undef X
} nvrtc;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static char missing[1024]; /* why there is no NVRTC; "" if there is */

/* Names the loader knows, then places where toolkits and NVIDIA's wheel put the library. */
static const char *const names[] = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"};
static const char *const places[] = {
    "%s/nvrtc/nvidia/*/lib/libnvrtc.so.1[23]", /* %s: the folder of the program */
    "%s/../nvrtc/nvidia/*/lib/libnvrtc.so.1[23]",
    "/usr/local/cuda/lib64/libnvrtc.so.1[23]",
    "/usr/local/cuda-*/lib64/libnvrtc.so.1[23]",
    "/usr/lib/python3*/site-packages/nvidia/*/lib/libnvrtc.so.1[23]",
    "/usr/local/lib/python3*/*-packages/nvidia/*/lib/libnvrtc.so.1[23]",
};

static void *open_place(const char *pattern) {
  char folder[4096] = "", path[8192];
  ssize_t n = readlink("/proc/self/exe", folder, sizeof folder - 1);
  if (n > 0) folder[n] = 0;
  char *slash = strrchr(folder, '/');
  if (slash) *slash = 0;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
  snprintf(path, sizeof path, pattern, folder);
#pragma GCC diagnostic pop
  glob_t g;
  void *lib = NULL;
  if (!glob(path, 0, NULL, &g))
    for (size_t i = 0; i < g.gl_pathc && !lib; i++) lib = dlopen(g.gl_pathv[i], RTLD_NOW | RTLD_LOCAL);
  globfree(&g);
  return lib;
}

static void load(void) {
  const char *own = getenv("QUERNEL_NVRTC");
  void *lib = NULL;
  if (own && *own) {
    lib = dlopen(own, RTLD_NOW | RTLD_LOCAL);
    if (!lib) snprintf(missing, sizeof missing, "QUERNEL_NVRTC: %s", dlerror());
  } else {
    for (size_t i = 0; i < QN_COUNT(names) && !lib; i++) lib = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    for (size_t i = 0; i < QN_COUNT(places) && !lib; i++) lib = open_place(places[i]);
    if (!lib)
      snprintf(
          missing, sizeof missing,
          "libnvrtc.so.13 was not found; install a CUDA toolkit or the wheel nvidia-cuda-nvrtc, or set QUERNEL_NVRTC");
  }
  if (!lib) return;
#define X(type, name, args)                                                                                            \
  *(void **)&nvrtc.name = dlsym(lib, "nvrtc" #name);                                                                   \
  if (!nvrtc.name) snprintf(missing, sizeof missing, "libnvrtc lacks nvrtc" #name);
  FUNCTIONS(X)
#undef X
}

static qn_status ready(void) {
  pthread_once(&once, load);
  return *missing ? qn__fail(QN_E_DEVICE, "%s", missing) : QN_OK;
}

qn_status qn__nvrtc_version(char *text, size_t size) {
  int major, minor;
  QN_TRY(ready());
  nvrtc.Version(&major, &minor);
  snprintf(text, size, "nvrtc %d.%d", major, minor);
  return QN_OK;
}

/* The largest number that stands before or after `word` in the log: "Used 92 registers", "8 bytes spill stores". */
static int number_before(const char *log, const char *word) {
  int most = 0;
  for (const char *p = log; (p = strstr(p, word)); p += strlen(word)) {
    const char *q = p;
    while (q > log && q[-1] == ' ') q--;
    while (q > log && q[-1] >= '0' && q[-1] <= '9') q--;
    int value = atoi(q);
    if (value > most) most = value;
  }
  return most;
}

static qn_status take(nvrtcProgram p, int (*size_of)(nvrtcProgram, size_t *), int (*get)(nvrtcProgram, char *),
                      char **out, size_t *bytes) {
  if (size_of(p, bytes)) *bytes = 0;
  *out = calloc(1, *bytes + 1);
  if (!*out) return qn__fail(QN_E_NOMEM, "no memory for %zu bytes of compiler output", *bytes);
  if (*bytes) get(p, *out);
  return QN_OK;
}

static qn_status judge(const qn_source *source, qn_artifact *out) {
  qn_cubin_info info;
  QN_TRY(qn__cubin_info(out->image, out->size, &info));
  out->registers = info.registers;
  out->shared = number_before(out->log, " bytes smem");
  out->spills = number_before(out->log, " bytes spill stores") + number_before(out->log, " bytes spill loads");
  if (info.frame > out->spills) out->spills = info.frame;
  if (strstr(out->log, "setmaxnreg ignored"))
    return qn__fail(QN_E_COMPILE, "%s: setmaxnreg was ignored; give __launch_bounds__ its second argument",
                    source->name);
  return QN_OK;
}

qn_status qn__compile_nvrtc(const qn_source *source, qn_artifact *out) {
  QN_TRY(ready());
  char arch[64], flags[1024];
  snprintf(arch, sizeof arch, "--gpu-architecture=%s", source->arch);
  snprintf(flags, sizeof flags, "%s", source->flags ? source->flags : "");
  const char *option[32] = {arch, "-lineinfo", "--std=c++17", "-default-device", "--ptxas-options=-v"};
  int n = 5;
  for (char *save, *p = strtok_r(flags, " ", &save); p && n < 32; p = strtok_r(NULL, " ", &save)) option[n++] = p;

  nvrtcProgram program = NULL;
  int e = nvrtc.CreateProgram(&program, source->text, source->name, 0, NULL, NULL);
  if (e) return qn__fail(QN_E_COMPILE, "%s: nvrtcCreateProgram: %s", source->name, nvrtc.GetErrorString(e));
  e = nvrtc.CompileProgram(program, n, option);
  size_t log_size, ptx_size;
  qn_status s = take(program, nvrtc.GetProgramLogSize, nvrtc.GetProgramLog, &out->log, &log_size);
  if (s == QN_OK && e) {
    char text[1024];
    s = qn__fail(QN_E_COMPILE, "%s: %s: %s", source->name, nvrtc.GetErrorString(e),
                 qn__first_errors(out->log, text, sizeof text));
  }
  if (s == QN_OK) s = take(program, nvrtc.GetPTXSize, nvrtc.GetPTX, &out->ptx, &ptx_size);
  if (s == QN_OK) s = take(program, nvrtc.GetCUBINSize, nvrtc.GetCUBIN, (char **)&out->image, &out->size);
  if (s == QN_OK) s = judge(source, out);
  nvrtc.DestroyProgram(&program);
  return s;
}
