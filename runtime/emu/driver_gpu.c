/* driver_gpu.c - pretended GPUs, contexts, and errors, as a CUDA driver keeps them.
 *
 * Ordinals number the architectures in the order in which they were first opened. */
#include "driver_gpu.h"
#include "fail.h"
#include <stdio.h>
#include <string.h>

/* ---- Errors ------------------------------------------------------------------------------------------------------ */

static _Thread_local int last_error; /* whose text `detail` is */
static _Thread_local char detail[WORDS];

int qn__emu_say(int error, const char *text) {
  snprintf(detail, sizeof detail, "%s", text);
  return last_error = error;
}

int qn__emu_result(qn_status s) {
  static const struct {
    qn_status status;
    int error;
  } table[] = {{QN_OK, SUCCESS},
               {QN_E_NOMEM, OUT_OF_MEMORY},
               {QN_E_COMPILE, INVALID_PTX},
               {QN_E_DEVICE, NO_BINARY_FOR_GPU},
               {QN_E_LIMIT, LAUNCH_OUT_OF_RESOURCES}};
  for (size_t i = 0; i < QN_COUNT(table); i++)
    if (table[i].status == s) return s ? qn__emu_say(table[i].error, qn__errmsg()) : SUCCESS;
  return qn__emu_say(INVALID_VALUE, qn__errmsg());
}

int qn__emu_error_name(int error, const char **text) {
  *text = NULL;
#define X(code, name, sentence)                                                                                        \
  if (error == code) *text = "CUDA_" #name;
  RESULT_MAP(X)
#undef X
  return *text ? SUCCESS : INVALID_VALUE;
}

int qn__emu_error_text(int error, const char **text) {
  *text = error && error == last_error ? detail : NULL;
#define X(code, name, sentence)                                                                                        \
  if (error == code && !*text) *text = sentence;
  RESULT_MAP(X)
#undef X
  return *text ? SUCCESS : INVALID_VALUE;
}

/* ---- GPUs and contexts ------------------------------------------------------------------------------------------- */

enum { most_contexts = 8 };

/* Of the process, as those of a CUDA driver are: its functions name them by number, and take no handle. */
static gpu gpus[MOST_GPUS];
static int n_gpus;
pthread_mutex_t qn__emu_driver_lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local gpu *stack[most_contexts];
static _Thread_local int depth;

gpu *qn__emu_gpu(int ordinal) { return ordinal >= 0 && ordinal < n_gpus ? &gpus[ordinal] : NULL; }

int qn__emu_gpu_ordinal(const char *arch) {
  int i = 0;
  while (i < n_gpus && strcmp(gpus[i].arch, arch)) i++;
  if (i == MOST_GPUS) return -1;
  if (i == n_gpus) snprintf(gpus[n_gpus++].arch, sizeof gpus->arch, "%s", arch);
  return i;
}

gpu *qn__emu_gpu_current(void) { return depth ? stack[depth - 1] : NULL; }

int qn__emu_gpu_push(gpu *g) {
  if (depth == most_contexts) return qn__emu_say(INVALID_VALUE, "contexts are pushed and not popped");
  return stack[depth++] = g, SUCCESS;
}

int qn__emu_gpu_pop(void **context) {
  if (!depth) return qn__emu_say(INVALID_CONTEXT, "no context is current");
  return *context = stack[--depth], SUCCESS;
}
