/* compile_nvrtc.c - CUDA kernels: NVRTC, found at run time. One compilation gives PTX, cubin and the assembler's
 * log. */
#include "back_end.h"
#include "compile.h"
#include "elf_image.h"
#include "fail.h"
#include <dlfcn.h>
#include <glob.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
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

/* Of the process, as a library is: loaded once. */
static struct {
#define X(type, name, args) type(*name) args;
  FUNCTIONS(X)
#undef X
} nvrtc;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static char missing[1024]; /* why there is no NVRTC; "" if there is */

/* ---- Finding it -------------------------------------------------------------------------------------------------- */

/* Names that the loader knows, then where toolkits and NVIDIA's wheel put the library. */
static const char *const names[] = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"};
static const char *const places[] = {
    "%s/nvrtc/nvidia/*/lib/libnvrtc.so.1[23]", /* %s: the folder of the program */
    "%s/../nvrtc/nvidia/*/lib/libnvrtc.so.1[23]",
    "/usr/local/cuda/lib64/libnvrtc.so.1[23]",
    "/usr/local/cuda-*/lib64/libnvrtc.so.1[23]",
};
/* Under a folder of $PATH: the packages of the Python that lives there, a virtual environment's too. */
static const char wheel[] = "%s/../lib/python3*/{site,dist}-packages/nvidia/{cu13,cuda_nvrtc}/lib/libnvrtc.so.1[23]";

/* Open the first library that `pattern` finds, %s in it standing for `folder`. */
static void *open_place(const char *pattern, const char *folder, int n) {
  char path[2 * PATH_MAX];
  const char *s = strstr(pattern, "%s");
  if (s) snprintf(path, sizeof path, "%.*s%.*s%s", (int)(s - pattern), pattern, n, folder, s + 2);
  else snprintf(path, sizeof path, "%s", pattern);
  glob_t g;
  void *lib = NULL;
  if (!glob(path, GLOB_BRACE, NULL, &g))
    for (size_t i = 0; i < g.gl_pathc && !lib; i++) lib = dlopen(g.gl_pathv[i], RTLD_NOW | RTLD_LOCAL);
  globfree(&g);
  return lib;
}

static void *find_library(void) {
  void *lib = NULL;
  char program[PATH_MAX];
  ssize_t n = readlink("/proc/self/exe", program, sizeof program);
  while (n > 0 && program[--n] != '/') {
  }
  for (size_t i = 0; i < QN_COUNT(names) && !lib; i++) lib = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
  for (size_t i = 0; i < QN_COUNT(places) && !lib; i++) lib = open_place(places[i], program, n > 0 ? (int)n : 0);
  const char *path = getenv("PATH");
  for (size_t k; path && *path && !lib; path += k + (path[k] == ':'))
    lib = open_place(wheel, path, (int)(k = strcspn(path, ":")));
  return lib;
}

/* Some builds find their own second half only in the loader's path: have it loaded from beside the first. */
static void load_builtins(void) {
  Dl_info self;
  char path[PATH_MAX];
  int major, minor;
  if (!dladdr(*(void **)&nvrtc.Version, &self) || !strchr(self.dli_fname, '/') || nvrtc.Version(&major, &minor)) return;
  snprintf(path, sizeof path, "%.*s/libnvrtc-builtins.so.%d.%d", (int)(strrchr(self.dli_fname, '/') - self.dli_fname),
           self.dli_fname, major, minor);
  dlopen(path, RTLD_LAZY | RTLD_LOCAL);
}

static void load(void) {
  const char *own = getenv("QUERNEL_NVRTC");
  void *lib = own && *own ? dlopen(own, RTLD_NOW | RTLD_LOCAL) : find_library();
  if (!lib && own && *own) snprintf(missing, sizeof missing, "QUERNEL_NVRTC: %s", dlerror());
  else if (!lib)
    snprintf(
        missing, sizeof missing,
        "libnvrtc.so.13 (or .12) is neither known to the loader nor in /usr/local/cuda/lib64 nor among the packages "
        "of a python3 on PATH; install a CUDA toolkit or the wheel nvidia-cuda-nvrtc, or set QUERNEL_NVRTC");
  if (!lib) return;
#define X(type, name, args)                                                                                            \
  *(void **)&nvrtc.name = dlsym(lib, "nvrtc" #name);                                                                   \
  if (!nvrtc.name) snprintf(missing, sizeof missing, "libnvrtc lacks nvrtc" #name);
  FUNCTIONS(X)
#undef X
  if (!*missing) load_builtins();
}

static qn_status ready(void) {
  pthread_once(&once, load);
  return *missing ? qn__fail(QN_E_DEVICE, "%s", missing) : QN_OK;
}

static qn_status version(char *text, size_t size) {
  int major, minor;
  QN_TRY(ready());
  nvrtc.Version(&major, &minor);
  snprintf(text, size, "nvrtc %d.%d", major, minor);
  return QN_OK;
}

/* ---- Reading the results ----------------------------------------------------------------------------------------- */

/* The largest number before `word` in the log: "128 bytes smem". */
static int number_before(const char *log, const char *word) {
  int most = 0;
  for (const char *p = log; (p = strstr(p, word)); p += strlen(word)) {
    const char *q = p;
    while (q > log && q[-1] >= '0' && q[-1] <= '9') q--;
    int value = atoi(q);
    if (value > most) most = value;
  }
  return most;
}

/* Text of the compiler: *bytes without the terminator that is added. */
static qn_status take(nvrtcProgram p, int (*size_of)(nvrtcProgram, size_t *), int (*get)(nvrtcProgram, char *),
                      char **out, size_t *bytes) {
  if (size_of(p, bytes)) *bytes = 0;
  *out = calloc(1, *bytes + 1);
  if (!*out) return qn__fail(QN_E_NOMEM, "no memory for %zu bytes of compiler output", *bytes);
  if (*bytes) get(p, *out);
  return QN_OK;
}

/* What the assembler compiles, but to something that must not be run: registers given up, wgmma made serial. */
static qn_status check_log(const qn_source *source, const char *log) {
  static const char *const fatal[] = {"C7508", "setmaxnreg ignored", "Potential Performance Loss"};
  for (size_t i = 0; i < QN_COUNT(fatal); i++) {
    const char *p = strstr(log, fatal[i]);
    if (!p) continue;
    while (p > log && p[-1] != '\n') p--;
    return qn__fail(QN_E_COMPILE, "%s: %.*s", source->name, (int)strcspn(p, "\n"), p);
  }
  return QN_OK;
}

/* Registers and stack from the cubin, which is what will run; the log tells spills apart and must agree. */
static qn_status read_resources(const qn_source *source, qn_artifact *out) {
  qn_cubin_info info;
  QN_TRY(qn__cubin_info(out->image, out->size, &info));
  if (!info.kernels) return qn__fail(QN_E_COMPILE, "%s: the source holds no kernel", source->name);
  int used = number_before(out->log, " registers");
  if (used && used != info.registers)
    return qn__fail(QN_E_COMPILE, "%s: the compiler's log tells of %d registers, the cubin of %d", source->name, used,
                    info.registers);
  out->registers = info.registers;
  out->shared = number_before(out->log, " bytes smem");
  out->spills = number_before(out->log, " bytes spill stores") + number_before(out->log, " bytes spill loads");
  if (info.frame > out->spills) out->spills = info.frame;
  return check_log(source, out->log);
}

/* ---- Compiling --------------------------------------------------------------------------------------------------- */

/* Results of NVRTC that say nothing about the source (nvrtc.h). */
enum { nvrtc_out_of_memory = 1, nvrtc_builtins_missing = 7 };

static qn_status verdict(const qn_source *source, int e, const char *log) {
  char text[1024];
  if (!e) return QN_OK;
  qn_status s = e == nvrtc_out_of_memory ? QN_E_NOMEM : e == nvrtc_builtins_missing ? QN_E_DEVICE : QN_E_COMPILE;
  return qn__fail(s, "%s: %s for %s: %s", source->name, nvrtc.GetErrorString(e), source->arch,
                  qn__first_errors(log, text, sizeof text));
}

/* "compute_90a" asks for PTX, "sm_90a" for a cubin. */
static bool is_virtual(const char *arch) { return !strncmp(arch, "compute_", 8); }

static qn_status compile_program(nvrtcProgram program, const qn_source *source, char *flags, qn_artifact *out) {
  enum { most = 32 };
  char arch[64];
  bool ptx = is_virtual(source->arch);
  snprintf(arch, sizeof arch, "--gpu-architecture=%s", source->arch);
  /* Cubins have no -lineinfo unless asked for: it writes the working directory into the image. */
  const char *option[most] = {arch, "--std=c++17", "-default-device", ptx ? "-lineinfo" : "--ptxas-options=-v"};
  int n = 4;
  for (char *save, *p = strtok_r(flags, " ", &save); p; p = strtok_r(NULL, " ", &save)) {
    if (n == most) return qn__fail(QN_E_ARG, "%s: over %d compiler flags", source->name, most);
    option[n++] = p;
  }
  int e = nvrtc.CompileProgram(program, n, option);
  size_t bytes;
  QN_TRY(take(program, nvrtc.GetProgramLogSize, nvrtc.GetProgramLog, &out->log, &bytes));
  QN_TRY(verdict(source, e, out->log));
  QN_TRY(take(program, nvrtc.GetPTXSize, nvrtc.GetPTX, ptx ? (char **)&out->image : &out->ptx, &bytes));
  out->size = bytes;
  if (ptx) return QN_OK;
  QN_TRY(take(program, nvrtc.GetCUBINSize, nvrtc.GetCUBIN, (char **)&out->image, &out->size));
  return read_resources(source, out);
}

static qn_status compile(const qn_source *source, qn_artifact *out) {
  QN_TRY(ready());
  if (!source->arch || (strncmp(source->arch, "sm_", 3) && !is_virtual(source->arch)))
    return qn__fail(QN_E_ARG, "%s: architecture \"%s\"; expected sm_NN, as in sm_90a, or compute_NN", source->name,
                    source->arch ? source->arch : "");
  nvrtcProgram program = NULL;
  int e = nvrtc.CreateProgram(&program, source->text, source->name, 0, NULL, NULL);
  if (e) return verdict(source, e, "");
  char *flags = strdup(source->flags ? source->flags : "");
  qn_status s = flags ? compile_program(program, source, flags, out) : qn__fail(QN_E_NOMEM, "compiling");
  free(flags);
  nvrtc.DestroyProgram(&program);
  return s;
}

const qn_back_end qn__back_end_nvrtc = {
    "cuda",
    "^(-lineinfo|-G|--?use_fast_math|--?(ftz|prec-sqrt|prec-div|fmad)=(true|false)|--?maxrregcount=[0-9]+"
    "|--extra-device-vectorization|(--ptxas-options|-Xptxas)=-[A-Za-z0-9-]+(=[a-z0-9]+)?|" QN_FLAGS_MACROS ")$",
    "-lineinfo, -G, --use_fast_math, --ftz, --prec-sqrt, --prec-div, --fmad, --maxrregcount, "
    "--extra-device-vectorization, --ptxas-options, -D, -U",
    compile,
    version,
};
