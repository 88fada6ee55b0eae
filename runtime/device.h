/* device.h - one table of functions per kind of device: the host's thread pool, a CUDA GPU through its driver, the PTX
 * interpreter. The rest of Quernel knows devices only through this table.
 *
 * Memory of the host device is ordinary memory. Functions return qn_status with the detail in qn__errmsg(). A device
 * may be launched on from any thread; load and free of modules exclude each other. */
#ifndef QN_DEVICE_H
#define QN_DEVICE_H
#include "desc.h"
#include "heap.h"
#include "pool.h"
#include "target.h"

typedef struct qn_module qn_module; /* opaque, of the device that made it */

typedef struct qn_device_info {
  char name[32];  /* opens this device again: "host", "host:1", "cuda:0", "emu:sm_90a" */
  char target[8]; /* "host" or "cuda": which templates serve it */
  char arch[160]; /* "sm_90a", or the host's instruction sets: "x86-64 avx2 fma avx512f …" sorted, space separated */
  char product[96]; /* a name for people; of a GPU it is not keyed: the same chip is sold under several */
  char model[64];   /* what times depend on beside the sizes. Host: vendor, family and model of the CPU; CUDA: width of
                       the memory bus and the highest clocks */
  char driver[32];
  int threads;               /* host: threads of the pool */
  int64_t cache[3];          /* bytes of L1d, L2 (per core), L3; CUDA: 0, L2, 0 */
  int sm, sms;               /* CUDA: 90, 132 */
  int64_t smem, regs;        /* CUDA: opt-in shared memory of a CTA, registers of an SM */
  int64_t smem_sm;           /* CUDA: shared memory of an SM */
  int threads_sm, ctas_sm;   /* CUDA: what an SM holds of each */
  int timed;                 /* 0: the device must not be timed (interpreter) */
  int64_t var[QN_VAR_COUNT]; /* device constants for expressions; M, N, K are filled per call */
} qn_device_info;

/* An entry point with its launch, sizes already evaluated. */
typedef struct qn_launch {
  void *fn; /* qn_host_entry or CUfunction */
  int64_t grid[3], block[3], cluster[3], shared, gathers;
  int64_t dim[QN_STEP_MAPS][QN_MAP_RANK];
  const qn_step *step; /* argument list */
  int pdl;
} qn_launch;

struct qn_device {
  const struct qn_device_ops *ops;
  const qn_target *target;  /* its kind; info.target is the name */
  const qn_allocator *heap; /* what the device itself takes of the host's memory */
  qn_device_info info;
  int host_threads; /* that share() uses, the caller's included */
};

typedef struct qn_device_ops {
  void (*close)(qn_device *d);
  qn_status (*alloc)(qn_device *d, size_t bytes, void **p); /* 256-byte aligned; contents undefined */
  void (*free)(qn_device *d, void *p);
  qn_status (*upload)(qn_device *d, void *dst, const void *src, size_t bytes); /* synchronous */
  qn_status (*download)(qn_device *d, void *dst, const void *src, size_t bytes);
  qn_status (*module_load)(qn_device *d, const void *image, size_t bytes,
                           qn_module **m); /* host object, cubin or PTX */
  void (*module_free)(qn_device *d, qn_module *m);
  qn_status (*entry)(qn_device *d, qn_module *m, const char *name, int64_t shared,
                     void **fn); /* shared: most it gets */
  qn_status (*launch)(qn_device *d, const qn_launch *l, const qn_host_args *a, void *stream);
  qn_status (*sync)(qn_device *d, void *stream);
  void (*share)(qn_device *d, qn_pool_fn fn, void *ud, int64_t items); /* among the host's threads */
} qn_device_ops;

/* Open by name: "host", "host:2" (threads, at most as many as this process may use CPUs), "cuda:0"; NULL: the first
 * GPU, else the host. QN_E_ARG lists the names. */
qn_status qn__device_open(const qn_allocator *heap, const char *name, qn_device **out);

typedef qn_status (*qn_device_opener)(const qn_allocator *heap, const char *name, qn_device **out);
/* From now on names that begin with `prefix` ("emu:", borrowed) are opened by `open`. For one kind of device that this
 * library does not hold; called before other threads open devices. */
void qn__device_provide(const char *prefix, qn_device_opener open);
static inline void qn__device_close(qn_device *d) {
  if (d) d->ops->close(d);
}
#endif
