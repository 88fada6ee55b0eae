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
  F(stream_sync, "cuStreamSynchronize", (void *stream))

/* May be NULL. What asks for one that is missing fails with its name. */
#define QN_CUDA_OPTIONAL(F)                                                                                            \
  F(launch_ex, "cuLaunchKernelEx", (const qn_cu_config *config, void *function, void **arguments, void **extra))       \
  F(tensor_map, "cuTensorMapEncodeTiled",                                                                              \
    (void *map, int type, uint32_t rank, void *address, const uint64_t *dims, const uint64_t *strides,                 \
     const uint32_t *box, const uint32_t *element_strides, int interleave, int swizzle, int promotion, int fill))

/* Of the tuner, which times; nothing else needs them. */
#define QN_CUDA_TIMING(F)                                                                                              \
  F(stream_new, "cuStreamCreate", (void **stream, unsigned flags))                                                     \
  F(stream_free, "cuStreamDestroy_v2", (void *stream))                                                                 \
  F(event_new, "cuEventCreate", (void **event, unsigned flags))                                                        \
  F(event_free, "cuEventDestroy_v2", (void *event))                                                                    \
  F(event_record, "cuEventRecord", (void *event, void *stream))                                                        \
  F(event_sync, "cuEventSynchronize", (void *event))                                                                   \
  F(event_elapsed, "cuEventElapsedTime", (float *milliseconds, void *start, void *end))                                \
  F(capture_begin, "cuStreamBeginCapture_v2", (void *stream, int mode))                                                \
  F(capture_end, "cuStreamEndCapture", (void *stream, void **graph))                                                   \
  F(graph_new, "cuGraphInstantiateWithFlags", (void **exec, void *graph, unsigned long long flags))                    \
  F(graph_launch, "cuGraphLaunch", (void *exec, void *stream))                                                         \
  F(graph_exec_free, "cuGraphExecDestroy", (void *exec))                                                               \
  F(graph_free, "cuGraphDestroy", (void *graph))

#define F(member, symbol, parameters) int(*member) parameters; /* every one returns a CUresult, 0 for success */
typedef struct qn_cuda_timing {
  QN_CUDA_TIMING(F)
} qn_cuda_timing;

typedef struct qn_cuda_driver {
  QN_CUDA_REQUIRED(F)
  QN_CUDA_OPTIONAL(F)
  /* None of CUDA's, NULL there: the thread's next launch is for so many products, and hangs if it takes far more; no
   * kernel writes where `constant` points, so that one which begins early may read it. */
  void (*expect)(double products, const void *const constant[2]);
  const qn_cuda_timing *timing; /* NULL: that of libcuda.so.1 */
} qn_cuda_driver;
#undef F

/* The driver of this machine, loaded once. QN_E_DEVICE names the library or the function that is missing. */
qn_status qn__cuda_driver(const qn_cuda_driver **out);

/* ---- The device -------------------------------------------------------------------------------------------------- */

/* GPU number `ordinal` with its primary context. QN_E_DEVICE: no driver, no such GPU. */
qn_status qn__device_cuda_open(const qn_allocator *heap, int ordinal, qn_device **out);
/* The same over another provider's functions, which must outlive the device. The provider may then correct info.name,
 * info.arch and info.timed. */
qn_status qn__device_cuda_open_with(const qn_cuda_driver *provider, const qn_allocator *heap, int ordinal,
                                    qn_device **out);

/* ---- For others who drive the same GPU --------------------------------------------------------------------------- */

/* The functions that a device calls; NULL if it is not one of these. */
const qn_cuda_driver *qn__cuda_driver_of(const qn_device *d);
/* Make the device's context current; *pushed tells leave what to undo. QN_E_CUDA if the context is lost. */
qn_status qn__cuda_enter(qn_device *d, bool *pushed);
void qn__cuda_leave(qn_device *d, bool pushed);
/* The status of what a driver function returned; `what` names the call in the text. */
qn_status qn__cuda_result(qn_device *d, int error, const char *what);
#endif
