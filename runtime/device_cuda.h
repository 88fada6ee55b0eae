/* device_cuda.h - an NVIDIA GPU through its driver, and whatever else fills the same list of driver functions.
 *
 * All contact with CUDA goes through one struct, qn_cuda_driver. It is filled from libcuda.so.1 at run time, or by the
 * PTX interpreter; the rest cannot tell the difference. No CUDA header is needed: the few types are declared here.
 * Functions and constants: CUDA Driver API reference, release 13.0. */
#ifndef QN_DEVICE_CUDA_H
#define QN_DEVICE_CUDA_H
#include "device.h"

/* ---- Driver types ------------------------------------------------------------------------------------------------ */

typedef uint64_t qn_cu_ptr; /* CUdeviceptr; every handle is a void * */

typedef struct qn_cu_attribute { /* CUlaunchAttribute */
  uint32_t id, pad;
  union {
    uint32_t cluster[3];
    int32_t flag;
    char room[64];
  } value;
} qn_cu_attribute;
_Static_assert(sizeof(qn_cu_attribute) == 72, "CUlaunchAttribute");

typedef struct qn_cu_config { /* CUlaunchConfig */
  uint32_t grid[3], block[3], shared;
  void *stream;
  qn_cu_attribute *attributes;
  uint32_t n_attributes;
} qn_cu_config;
_Static_assert(sizeof(qn_cu_config) == 56, "CUlaunchConfig");

/* ---- Driver functions: F(member, symbol, parameters) ------------------------------------------------------------- */

#define QN_CUDA_REQUIRED(F)                                                                                            \
  F(init, "cuInit", (unsigned flags))                                                                                  \
  F(driver_version, "cuDriverGetVersion", (int *version))                                                              \
  F(error_name, "cuGetErrorName", (int error, const char **text))                                                      \
  F(error_text, "cuGetErrorString", (int error, const char **text))                                                    \
  F(device_count, "cuDeviceGetCount", (int *count))                                                                    \
  F(device_get, "cuDeviceGet", (int *device, int ordinal))                                                             \
  F(device_name, "cuDeviceGetName", (char *name, int size, int device))                                                \
  F(device_attribute, "cuDeviceGetAttribute", (int *value, int attribute, int device))                                 \
  F(context_retain, "cuDevicePrimaryCtxRetain", (void **context, int device))                                          \
  F(context_release, "cuDevicePrimaryCtxRelease_v2", (int device))                                                     \
  F(context_current, "cuCtxGetCurrent", (void **context))                                                              \
  F(context_push, "cuCtxPushCurrent_v2", (void *context))                                                              \
  F(context_pop, "cuCtxPopCurrent_v2", (void **context))                                                               \
  F(mem_alloc, "cuMemAlloc_v2", (qn_cu_ptr * p, size_t bytes))                                                         \
  F(mem_free, "cuMemFree_v2", (qn_cu_ptr p))                                                                           \
  F(mem_upload, "cuMemcpyHtoD_v2", (qn_cu_ptr dst, const void *src, size_t bytes))                                     \
  F(mem_download, "cuMemcpyDtoH_v2", (void *dst, qn_cu_ptr src, size_t bytes))                                         \
  F(module_load, "cuModuleLoadData", (void **module, const void *image))                                               \
  F(module_unload, "cuModuleUnload", (void *module))                                                                   \
  F(module_function, "cuModuleGetFunction", (void **function, void *module, const char *name))                         \
  F(function_set, "cuFuncSetAttribute", (void *function, int attribute, int value))                                    \
  F(launch, "cuLaunchKernel",                                                                                          \
    (void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,    \
     void *stream, void **arguments, void **extra))                                                                    \
  F(stream_new, "cuStreamCreate", (void **stream, unsigned flags))                                                     \
  F(stream_free, "cuStreamDestroy_v2", (void *stream))                                                                 \
  F(stream_sync, "cuStreamSynchronize", (void *stream))                                                                \
  F(event_new, "cuEventCreate", (void **event, unsigned flags))                                                        \
  F(event_free, "cuEventDestroy_v2", (void *event))                                                                    \
  F(event_record, "cuEventRecord", (void *event, void *stream))                                                        \
  F(event_sync, "cuEventSynchronize", (void *event))                                                                   \
  F(event_elapsed, "cuEventElapsedTime", (float *milliseconds, void *start, void *end))

/* May be NULL. What asks for one that is missing fails with its name. */
#define QN_CUDA_OPTIONAL(F)                                                                                            \
  F(launch_ex, "cuLaunchKernelEx", (const qn_cu_config *config, void *function, void **arguments, void **extra))       \
  F(capture_begin, "cuStreamBeginCapture_v2", (void *stream, int mode))                                                \
  F(capture_end, "cuStreamEndCapture", (void *stream, void **graph))                                                   \
  F(graph_new, "cuGraphInstantiateWithFlags", (void **exec, void *graph, unsigned long long flags))                    \
  F(graph_launch, "cuGraphLaunch", (void *exec, void *stream))                                                         \
  F(graph_exec_free, "cuGraphExecDestroy", (void *exec))                                                               \
  F(graph_free, "cuGraphDestroy", (void *graph))                                                                       \
  F(tensor_map, "cuTensorMapEncodeTiled",                                                                              \
    (void *map, int type, uint32_t rank, void *address, const uint64_t *dims, const uint64_t *strides,                 \
     const uint32_t *box, const uint32_t *element_strides, int interleave, int swizzle, int promotion, int fill))

typedef struct qn_cuda_driver { /* every function returns a CUresult, 0 for success */
#define F(member, symbol, parameters) int(*member) parameters;
  QN_CUDA_REQUIRED(F)
  QN_CUDA_OPTIONAL(F)
#undef F
  /* None of CUDA's, NULL there: the thread's next launch is for so many products, and hangs if it takes far
   * more. */
  void (*expect)(double products);
} qn_cuda_driver;

/* The driver of this machine, loaded once. QN_E_DEVICE names the library or the function that is missing. */
qn_status qn__cuda_driver(const qn_cuda_driver **out);

/* ---- The device -------------------------------------------------------------------------------------------------- */

/* GPU number `ordinal` with its primary context. QN_E_DEVICE: no driver, no such GPU. */
qn_status qn__device_cuda_open(const qn_allocator *heap, int ordinal, qn_device **out);
/* The same over another provider's functions, which must outlive the device. The provider may then correct info.name,
 * info.arch and info.timed. */
qn_status qn__device_cuda_open_with(const qn_cuda_driver *driver, const qn_allocator *heap, int ordinal,
                                    qn_device **out);

/* ---- Timing, for the tuner --------------------------------------------------------------------------------------- */

/* A stream and a pair of events. One thread at a time. */
typedef struct qn_cuda_timer qn_cuda_timer;
qn_status qn__cuda_timer_new(qn_device *d, qn_cuda_timer **out);
void qn__cuda_timer_free(qn_cuda_timer *t);

/* Enqueue call number i on the stream. To keep weights out of the L2 cache, let i choose among copies that together are
 * several times its size. */
typedef qn_status (*qn_cuda_enqueue)(void *ud, int i, void *stream);

/* Calls of a repetition, the same for everything that is compared: what it costs to launch their graph is then shared
 * by many, and alike. As many copies of a small weight keep it out of the L2 cache. */
enum { QN_CUDA_CALLS = 64 };

/* Seconds per call, `reps` times: each repetition is one run of enqueue(ud, 0 .. calls - 1), launched one by one or, if
 * `graph`, replayed from a graph captured once. Untimed runs come before, for 20 ms of the GPU's time at least: an idle
 * one raises its clocks only then. QN_E_CUDA, QN_E_DEVICE (no graphs). */
qn_status qn__cuda_time(qn_cuda_timer *t, bool graph, qn_cuda_enqueue enqueue, void *ud, int calls, int reps,
                        double *seconds);
#endif
