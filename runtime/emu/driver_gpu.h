/* driver_gpu.h - pretended GPUs by number, the contexts of threads, and what went wrong: what the functions of a CUDA
 * driver keep between calls. One lock guards all of it. */
#ifndef QN_EMU_DRIVER_GPU_H
#define QN_EMU_DRIVER_GPU_H
#include "emu.h"
#include <pthread.h>

/* ---- Errors ------------------------------------------------------------------------------------------------------ */

#define RESULT_MAP(X)                                                                                                  \
  X(0, SUCCESS, "no error")                                                                                            \
  X(1, INVALID_VALUE, "invalid argument")                                                                              \
  X(2, OUT_OF_MEMORY, "out of memory")                                                                                 \
  X(101, INVALID_DEVICE, "invalid device ordinal")                                                                     \
  X(201, INVALID_CONTEXT, "no context is current")                                                                     \
  X(209, NO_BINARY_FOR_GPU, "no code for this architecture")                                                           \
  X(218, INVALID_PTX, "the PTX is refused")                                                                            \
  X(500, NOT_FOUND, "named symbol not found")                                                                          \
  X(700, ILLEGAL_ADDRESS, "an illegal memory access was encountered")                                                  \
  X(701, LAUNCH_OUT_OF_RESOURCES, "too many resources requested for launch")                                           \
  X(702, LAUNCH_TIMEOUT, "the launch does not end")                                                                    \
  X(716, MISALIGNED_ADDRESS, "misaligned address")                                                                     \
  X(719, LAUNCH_FAILED, "the kernel is wrong")                                                                         \
  X(801, NOT_SUPPORTED, "operation not supported: the interpreter is not timed")

enum {
#define X(code, name, text) name = code,
  RESULT_MAP(X)
#undef X
      WORDS = 768 /* bytes of an error's text */
};

int qn__emu_say(int error, const char *text); /* returns `error`; `text` is what error_text then tells this thread */
int qn__emu_result(qn_status s);              /* the driver's result for a status of the interpreter */
int qn__emu_error_name(int error, const char **text);
int qn__emu_error_text(int error, const char **text);

/* ---- GPUs and contexts ------------------------------------------------------------------------------------------- */

typedef struct gpu {
  char arch[16]; /* "sm_90a" */
  qn_emu *emu;   /* while the context is retained */
  int retained;
  struct module *modules; /* what is loaded; a context takes them with it */
  int error;              /* that destroyed the context */
  char text[WORDS];
  qn_emu_counters counters; /* of the last launch */
  qn_emu_traffic weight;    /* what it read of the allocation that holds the weight */
} gpu;

enum { MOST_GPUS = 16 };
gpu *qn__emu_gpu(int ordinal);             /* NULL: there is none. Under the lock, as what follows */
int qn__emu_gpu_ordinal(const char *arch); /* entered if it is new; -1 when there are too many */
gpu *qn__emu_gpu_current(void);            /* of the thread's context, or NULL */
int qn__emu_gpu_push(gpu *g);
int qn__emu_gpu_pop(void **context);

extern pthread_mutex_t qn__emu_driver_lock;
static inline void unlock(int *locked) { (void)locked, pthread_mutex_unlock(&qn__emu_driver_lock); }
#define LOCKED __attribute__((cleanup(unlock), unused)) int locked_ = pthread_mutex_lock(&qn__emu_driver_lock)

/* The current context, or the error that a call meets at once. */
#define ENTER(g)                                                                                                       \
  LOCKED;                                                                                                              \
  gpu *g = qn__emu_gpu_current();                                                                                      \
  if (!g || !g->emu) return qn__emu_say(INVALID_CONTEXT, "no context is current");                                     \
  if (g->error) return qn__emu_say(g->error, g->text)

/* ---- Functions of a kernel --------------------------------------------------------------------------------------- */

typedef struct function {
  struct function *next; /* of its module */
  gpu *g;
  const qn_emu_kernel *kernel;
  uint32_t dynamic;  /* most dynamic shared memory of a launch */
  uint64_t launches; /* so far */
} function;
#endif
