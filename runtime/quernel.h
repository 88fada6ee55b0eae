/* quernel.h - serve tuned kernels for matrix multiplication with quantized weights.
 *
 *     Y[M,N] = epilogue(X[M,K] . dequant(W)[N,K]^T)      N/2 columns where the epilogue has *gate
 *
 * The autotuner (`quernel tune`) measures kernels on one machine and writes the winners, compiled, into a pack: one
 * read-only file. This library opens that file and runs what is in it. It holds no compiler, no Lua and no Python; it
 * never prints, never exits and never aborts.
 *
 *     qn_open(pack, device)          -> qn_context   maps and checks the file
 *     qn_bind(context, problem)      -> qn_gemm      resolves every range of M, loads its kernels
 *     qn_prepack(gemm, planes)       -> qn_weight    the weight, rearranged for the kernels, on the device
 *     qn_run(gemm, weight, args)                     a table look-up and a launch
 *
 * and for the experts of a mixture, a stack of weights of which each row of X meets a few:
 *
 *     qn_prepack_expert(gemm, expert, planes, &stack)    one call for each expert
 *     qn_run_grouped(gemm, stack, args, rows)            all of them at once
 *
 * Trust.  A pack is native code: opening it checks that the file is whole and well formed, qn_run then runs what is in
 * it, with all rights of the process. Open only what you would execute.
 *
 * Words.  M is the number of tokens (rows of X and Y), N the number of output features, K the number of input features.
 * A *problem* is everything but M: "int4.g128:4096x4096:bf16-f32+bias" is a weight format (4-bit codes, a scale per 128
 * codes along K), N x K, the type of X, the type of Y, and an epilogue; "int4.g128:8x4096x4096:bf16-f32" is one of a
 * stack of eight weights, the *experts*. *Planes* are a weight in neutral form, whatever
 * file it came from: one code per weight, and scales and zero points beside them.
 *
 * Threads.  A context may be used from any number of threads at once for qn_run and the read-only calls
 * (qn_gemm_kernel, qn_gemm_workspace, qn_misses and the like). qn_open, qn_close, qn_bind, qn_gemm_free, qn_prepack and
 * qn_weight_free on one context exclude each other: call them from one thread at a time.
 *
 * A pool of threads serves a context on the host. While one call has it, others run on their own thread alone: nobody
 * waits. The pool does not live on in a child of fork(): open a context there.
 *
 * CUDA.  A context uses the primary context of its GPU, as the CUDA runtime and PyTorch do. Pointers and streams must
 * belong to it; those of a context that was made with cuCtxCreate do not. Every call leaves the caller's current
 * context as it was. The NULL stream is the legacy default stream.
 *
 * Errors.  Every function that can fail returns a qn_status, and on failure sets the pointer that it should have given
 * back to NULL. A NULL where something is needed is QN_E_ARG; functions without a status answer it with nothing: NULL,
 * "" or 0. The detail (what, which value, which limit) is one line of text for the calling thread: qn_errmsg, valid
 * until its next call that fails.
 *
 * Structs.  A struct that the caller fills is initialised as a whole, so that all it does not name is zero:
 * (qn_args){.x = x, .y = y, .m = m}. Zero means the default everywhere. The words at its end called `reserved` are
 * zero, too: later versions turn them into fields, for which zero is what was before. An older program thus runs with a
 * newer library; a newer program that asks an older library for what it does not know gets QN_E_ARG, as does one that
 * left the struct uninitialised. Structs that the library makes may grow at their end.
 *
 * Memory.  What the caller hands over (paths, spellings, options, planes) is read during the call only, unless a
 * function says otherwise. What is made here is freed by the function of the same name: gemms and weights first, in any
 * order, then their context. What a context owns of the host's memory is from qn_open_options.allocator. */
#ifndef QUERNEL_H
#define QUERNEL_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

#if defined _WIN32
#define QN_API __declspec(dllexport)
#else
#define QN_API __attribute__((visibility("default")))
#endif

#define QN_VERSION "0.1.0"

/* ---- Status ------------------------------------------------------------------------------------------------------ */

#define QN_STATUS_MAP(X)                                                                                               \
  X(OK, "ok")                                                                                                          \
  X(E_NOMEM, "out of memory")                                                                                          \
  X(E_ARG, "bad argument")                                                                                             \
  X(E_IO, "file cannot be read or written")                                                                            \
  X(E_FORMAT, "file is damaged or of a foreign version")                                                               \
  X(E_SHAPE, "shape not supported")                                                                                    \
  X(E_NO_KERNEL, "no kernel for this problem")                                                                         \
  X(E_DEVICE, "device not present or not fit for this pack")                                                           \
  X(E_CUDA, "CUDA driver error")                                                                                       \
  X(E_LIMIT, "limit exceeded")

typedef enum qn_status {
#define QN_X(name, text) QN_##name,
  QN_STATUS_MAP(QN_X)
#undef QN_X
} qn_status;

/* Name ("QN_E_SHAPE") and text ("shape not supported") of a status. Static strings; any value is accepted. */
QN_API const char *qn_status_name(qn_status s);
QN_API const char *qn_status_text(qn_status s);

/* Version of the library that is running, as "major.minor.patch". */
QN_API const char *qn_version(void);

/* ---- Types ------------------------------------------------------------------------------------------------------- */

/* Element types, all little-endian: name, bits, kind; of floats the bits of exponent and mantissa, whose bias is
 * 2^(exponent - 1) - 1, and which beside numbers hold infinity and NaN (IEEE) or a last code that is NaN (NAN_LAST);
 * whether X and Y may be of that type (PLAIN), or X alone, with a scale for each token (SCALED). */
#define QN_TYPE_MAP(X)                                                                                                 \
  X(NONE, "none", 0, NONE, 0, 0, NO)                                                                                   \
  X(U8, "u8", 8, UNSIGNED, 0, 0, NO)                                                                                   \
  X(U16, "u16", 16, UNSIGNED, 0, 0, NO)                                                                                \
  X(U32, "u32", 32, UNSIGNED, 0, 0, NO)                                                                                \
  X(I8, "i8", 8, SIGNED, 0, 0, SCALED)                                                                                 \
  X(I32, "i32", 32, SIGNED, 0, 0, NO)                                                                                  \
  X(F16, "f16", 16, IEEE, 5, 10, PLAIN)                                                                                \
  X(BF16, "bf16", 16, IEEE, 8, 7, PLAIN)                                                                               \
  X(F32, "f32", 32, IEEE, 8, 23, PLAIN)                                                                                \
  X(F64, "f64", 64, IEEE, 11, 52, NO)                                                                                  \
  X(E4M3, "e4m3", 8, NAN_LAST, 4, 3, SCALED)                                                                           \
  X(E5M2, "e5m2", 8, IEEE, 5, 2, SCALED)                                                                               \
  X(E8M0, "e8m0", 8, NAN_LAST, 8, 0, NO) /* 2^(code - 127), without a sign or a zero */

typedef enum qn_type {
#define QN_X(name, ...) QN_T_##name,
  QN_TYPE_MAP(QN_X)
#undef QN_X
} qn_type;

QN_API const char *qn_type_name(qn_type t);      /* "bf16"; NULL for a value outside the list */
QN_API int qn_type_bits(qn_type t);              /* 16; 0 for a value outside the list */
QN_API qn_type qn_type_from_name(const char *s); /* QN_T_NONE if unknown */

/* ---- Planes: a weight in neutral form ---------------------------------------------------------------------------- */

#define QN_MAX_PLANES 8

/* One matrix of a weight: codes, scales, zero points. Row-major [rows, cols], caller-owned memory of the host. */
typedef struct qn_plane {
  const char *name;   /* "codes", "scale", "zero"... as the format names it */
  qn_type type;       /* codes: u8, u16 or u32, one code an element, the value in the low bits */
  int64_t rows, cols; /* codes: [N, K]; per-group planes: [N, ceil(K/group)]; per row: [N, 1]; per tensor: [1, 1] */
  const void *data;   /* any alignment */
} qn_plane;

/* A weight W[N,K] of the format named by `format`, e.g. "int4.g128" (spelling: see `quernel formats`). */
typedef struct qn_planes {
  const char *format;
  int64_t n, k;
  int n_planes;
  qn_plane plane[QN_MAX_PLANES];
  const int32_t *perm; /* act-order: NULL, or [K]: column j of the codes multiplies X[:, perm[j]] */
  uint64_t reserved[8];
} qn_planes;

/* ---- Context ----------------------------------------------------------------------------------------------------- */

typedef struct qn_context qn_context;
typedef struct qn_gemm qn_gemm;
typedef struct qn_weight qn_weight;

/* Where a context gets memory of the host from. `resize` is shaped like realloc and told how large the block is:
 * p NULL and old_size 0 make a block, new_size 0 frees it and returns NULL; NULL for a new_size above 0 says that there
 * is no memory, and leaves the block as it is. Blocks are aligned as malloc's are. It is called by the thread that
 * calls qn_open, qn_close, qn_bind, qn_gemm_free, qn_prepack or qn_weight_free, never by qn_run. Not taken from it: the
 * stacks of the pool's threads, the mapping of the pack and those of kernels' code, what the C library takes while it
 * reads a file of the system or starts a thread, and whatever the CUDA driver takes. */
typedef struct qn_allocator {
  void *(*resize)(void *user, void *p, size_t old_size, size_t new_size); /* NULL: malloc, realloc and free */
  void *user;
} qn_allocator;

typedef struct qn_open_options {
  const char *device;  /* NULL: the first device of the pack that is here. "host", "host:4" (threads), "cuda:0" */
  int threads;         /* "host": threads of the pool, the caller included, 1 .. 1024; 0: as many as the pack was tuned
                        * with, at most the CPUs that affinity and control groups leave this process */
  int deterministic;   /* 1: use the plans whose repeats agree bit for bit */
  int batch_invariant; /* 1: use the plans in which a row's bits do not depend on M; this goes before the above */
  qn_allocator allocator; /* copied; `user` must last until qn_close */
  uint64_t reserved[6];
} qn_open_options;

/* Map the pack at `path` read-only and check all of it: magic, version, checksums, bounds, and that this machine can
 * run it. Loads no kernel. Do not write to the file until qn_close; replacing it by a rename is fine. `options` may
 * be NULL (all zero). On success *out is a context to be closed with qn_close.
 * A pack may hold plans of several machines. Of those that this machine can run, the plans of the one that is most like
 * it serve: by architecture, then by product, then by number of threads.
 * On failure *out is NULL and, if err is not NULL, the detail is written there (at most errlen bytes, terminated).
 * Returns QN_OK, QN_E_IO, QN_E_FORMAT, QN_E_DEVICE, QN_E_NOMEM, QN_E_ARG. Thread-safe. */
QN_API qn_status qn_open(const char *path, const qn_open_options *options, qn_context **out, char *err, size_t errlen);

/* Close a context. Every gemm and weight made from it must have been freed. NULL is accepted. */
QN_API void qn_close(qn_context *ctx);

/* Detail of the calling thread's last failed call, whatever its context was. Never NULL; owned by the library. */
QN_API const char *qn_errmsg(void);

/* The i-th problem, from 0, with a plan of the kind that was asked for at open, in its spelling; NULL past the last.
 * Owned by the context. */
QN_API const char *qn_problem_at(const qn_context *ctx, int i);

/* 128-bit content hash of the pack as 32 hexadecimal digits: equal on every rank that loaded the same file. */
QN_API const char *qn_pack_hash(const qn_context *ctx);

/* ---- Binding ----------------------------------------------------------------------------------------------------- */

/* How a problem was resolved, best first. */
typedef enum qn_level {
  QN_EXACT,         /* this problem was tuned */
  QN_NEAREST_SHAPE, /* tuned for another N x K of the same format and types */
  QN_GENERIC        /* no tuned shape of these types: the pack's plain kernel for the format */
} qn_level;

/* Resolve a problem and load the kernels of every range of M. The spelling may be any that `quernel tune` takes: types
 * that are left open are those of the pack's first match without scaled activations, a format may be spelled with its
 * defaults. What the pack does not hold is served by the plan of the nearest shape, by the distance of log N and log K,
 * else by a generic plan; format, given types and epilogue must agree. *out is freed with qn_gemm_free before its
 * context closes. Returns QN_OK, QN_E_ARG (spelling), QN_E_SHAPE, QN_E_NO_KERNEL, QN_E_FORMAT and QN_E_DEVICE (a kernel
 * that cannot be loaded), QN_E_LIMIT (a workspace that overflows), QN_E_CUDA, QN_E_NOMEM. */
QN_API qn_status qn_bind(qn_context *ctx, const char *problem, qn_gemm **out);
QN_API void qn_gemm_free(qn_gemm *gemm);

QN_API qn_level qn_gemm_level(const qn_gemm *gemm);
/* Full spelling of the problem that serves, the types of X and Y in it. Owned by the gemm. */
QN_API const char *qn_gemm_problem(const qn_gemm *gemm);

/* Name of the kernel that serves M tokens, "" if m < 1. Owned by the gemm. */
QN_API const char *qn_gemm_kernel(const qn_gemm *gemm, int64_t m);

/* Bytes of workspace, and of counters, that suffice for every M up to max_m, 2^24 at most; of 0 bytes a NULL will do.
 * M is the m of qn_args: of a stack the number of rows of Y.
 * Takes no longer for a larger max_m. Alignment: 256 bytes. Different gemms may share them, if they are as large as the
 * largest asks, but concurrent calls may not: each needs its own.
 *
 * The workspace may hold anything, before a call and after it. Kernels of the host want room for X as they read it, on
 * CUDA and for functions a weight with a permutation does: ask after the weights are prepacked.
 *
 * The counters must be zero before the first call: the caller zeroes them once. Every call leaves them zero. After a
 * call that failed, or whose launch did (on CUDA a later call tells), what they hold is unknown: zero them anew. */
QN_API size_t qn_gemm_workspace(const qn_gemm *gemm, int64_t max_m);
QN_API size_t qn_gemm_counters(const qn_gemm *gemm, int64_t max_m);

/* ---- Weights ----------------------------------------------------------------------------------------------------- */

/* Bytes on the device of a weight of this problem, padding included, of a stack of all its experts; a permutation takes
 * 4 K more, for each expert of a stack if one has it. */
QN_API size_t qn_weight_bytes(const qn_gemm *gemm);

/* Rearrange planes into the layout of the gemm, on the device, where they are when this returns. The weight is for this
 * gemm and for others of its format, shape and layout; it is freed before the context closes, before or after the gemm.
 * Returns QN_OK, QN_E_SHAPE, QN_E_ARG (a plane is missing, of another type or not of this format; a scale is NaN or
 * infinite; a code is beyond the format's bits; perm is no permutation), QN_E_NO_KERNEL (a permutation, and kernels
 * that cannot serve it), QN_E_NOMEM, QN_E_CUDA. */
QN_API qn_status qn_prepack(qn_gemm *gemm, const qn_planes *planes, qn_weight **out);
QN_API void qn_weight_free(qn_weight *weight);

/* The same for expert number `expert` of a stack, 0 .. E - 1 of a gemm for ExNxK. *stack is NULL before the first of
 * its experts, whatever number that has: the call then makes the stack, with room for all. Further calls are given it
 * and fill it; a call for an expert that is there takes its place. A stack serves when all its experts are there. After
 * a failure *stack is what it was, and so are its experts, but for the one of the call, which may be missing. The stack
 * is freed with qn_weight_free. Returns what qn_prepack does; QN_E_ARG also for an expert that the gemm does not have,
 * for a gemm of one weight, as qn_prepack does for one of a stack, and for a stack of another problem or layout. */
QN_API qn_status qn_prepack_expert(qn_gemm *gemm, int64_t expert, const qn_planes *planes, qn_weight **stack);

/* ---- Running ----------------------------------------------------------------------------------------------------- */

typedef struct qn_args {
  const void *x;        /* [m, K] of the problem's type of X, row stride ldx elements; not checked for NaN */
  const float *x_scale; /* [m], only where X itself has 8 bits, else ignored: X = x * x_scale[row] */
  const void *bias;     /* [N] f32, only for problems with +bias */
  void *y;              /* [m, N] of the problem's output type, row stride ldy elements; [m, N/2] with *gate */
  int64_t m, ldx, ldy;  /* ldx, ldy: 0 means dense (K, columns of Y) */
  void *workspace;      /* qn_gemm_workspace(gemm, m) bytes, one per concurrent call; may hold anything */
  void *stream;         /* CUstream; unused on the host */
  void *counters;       /* qn_gemm_counters(gemm, m) bytes, one per concurrent call; zeroed once by the caller */
  const void *residual; /* of the shape and type of Y, row stride ld_residual (0: dense), only for +residual */
  const float *scale;   /* one value, only for problems with *scale */
  int64_t ld_residual;
  uint64_t reserved[4];
} qn_args;

/* Y = epilogue(X . W^T). Pointers are memory of the device, caller-owned, aligned to their element; Y overlaps no other
 * operand and no workspace, but the residual may be Y itself, with rows as far apart (Y += ...). Faster where rows of X
 * and Y start at multiples of 16 bytes. On CUDA asynchronous on args->stream and capturable in a graph; on the host
 * complete on return. No lock, no allocation, no file, no compilation. m = 0 does nothing, more than 2^24 is refused.
 * Rows of X beyond m and columns of Y beyond N are not touched. Returns QN_OK, QN_E_ARG, QN_E_CUDA. Any thread; a
 * workspace and counters per concurrent call. */
QN_API qn_status qn_run(const qn_gemm *gemm, const qn_weight *weight, const qn_args *args);

/* Which expert of a stack each row meets; one of two ways.
 *
 *   sorted     offsets: rows offsets[e] .. offsets[e + 1] - 1 of X and of Y are those of expert e; from 0 on, rising, m
 *              at most. Rows from the last offset on meet nobody.
 *   gathered   ids: row r of Y is row r / topk of X times expert ids[r]. What a router gives as ids[tokens][topk] is
 *              this for the tokens' X and m = tokens * topk; of the product behind it, which has a row of X for each of
 *              them already, topk is 1. An id below 0 is nobody's, as where another process has the expert.
 *
 * Rows of Y that meet nobody are not touched. Both lists are memory of the device. */
typedef struct qn_rows {
  const int32_t *offsets; /* [n_offsets], or NULL */
  int64_t n_offsets;      /* E + 1 */
  const int32_t *ids;     /* [m], or NULL */
  int64_t topk;           /* 0: 1 */
  uint64_t reserved[4];
} qn_rows;

/* Y[r] = epilogue(X[row of X for r] . W[expert of r]^T) for every row of Y. As qn_run, and besides: `m` of the
 * arguments is the number of rows of Y, and that of X is m / topk; so many x_scale are read; bias is [E, N] and scale
 * [E], those of an expert one behind the other; residual has the rows of Y. Sums over the experts of a token are left
 * to the caller. On the host counts are read and checked within the call: QN_E_ARG for offsets that fall or go beyond
 * m, and for an id of E or more; nothing has been computed then. No number of rows is needed on the host's side, nor
 * waited for, so that a CUDA graph may hold the call: there such a row meets nobody. Returns QN_OK, QN_E_ARG (also
 * where there are not E + 1 offsets, m is no multiple of topk, both lists or none are given, or an expert of the stack
 * has not been prepacked), QN_E_CUDA. Any thread; a workspace and counters per concurrent call. */
QN_API qn_status qn_run_grouped(const qn_gemm *gemm, const qn_weight *stack, const qn_args *args, const qn_rows *rows);

/* Calls of qn_run and qn_run_grouped since open whose problem was not resolved exactly. */
QN_API uint64_t qn_misses(const qn_context *ctx);

/* ---- Functions of your own --------------------------------------------------------------------------------------- */

/* One product, as a function of your own computes it on the host. The library sets `reserved` to
 * zero, so a function that was made for a newer one reads zero in every field that this one does not know. */
typedef struct qn_function_args {
  const void *x, *w;         /* X as in qn_args; the weight, packed in the layout that the function was tuned with */
  void *y;                   /* as in qn_args */
  const float *x_scale;      /* [m] where X itself has 8 bits, else NULL */
  const void *bias;          /* [N] f32 for problems with +bias, else NULL */
  void *scratch;             /* of the size that the function was tuned with, else unspecified; it may hold anything */
  void *counters;            /* zero bytes that the call leaves zero; of kernels in a pack, NULL for functions */
  const int32_t *perm;       /* NULL: X is in the order of the columns of W already */
  int64_t m, n, k, ldx, ldy; /* ldx, ldy in elements */
  const void *residual;      /* as in qn_args, so it may be y; NULL where the problem has none, as the next */
  const float *scale;
  int64_t ld_residual; /* in elements */
  /* What kernels for stacks read; zero for functions. Rows sorted by expert, those of `expert` from offsets[expert] on:
   * row i of them is row rows[i] of Y (NULL: i), and that / topk of X. */
  const int32_t *ids, *offsets, *rows;
  int64_t experts, expert, topk;
  uint64_t reserved[4];
} qn_function_args;

/* Compute columns [begin, end) of Y, all m rows, called for parts of [0, N), however they are cut (one may be empty),
 * from several threads at once; `thread` is below the number of threads and differs between concurrent calls. A
 * function that was tuned as a whole is called once, with begin 0 and end 1, and computes all of Y, on threads of its
 * own if it likes. It may not keep the pointers, and leaves thread and process as they were: rounding, signals, files,
 * limits, no thread, no child. */
typedef void (*qn_function)(const qn_function_args *args, int64_t begin, int64_t end, int32_t thread);

/* `quernel tune --function NAME=LIBRARY:SYMBOL` verifies and times a function beside the generated kernels. The pack
 * holds its name, never a path. Register the function under that name before qn_bind; where it is not registered, the
 * plan's runner-up, a kernel in the pack, serves. A gemm that is bound already keeps what it found. NULL unregisters
 * a name. The name is copied. Returns QN_OK, QN_E_ARG (no name, or one of 64 bytes or more), QN_E_LIMIT (64 functions).
 * Any thread. */
QN_API qn_status qn_function_register(const char *name, qn_function fn);

/* ---- Activations ------------------------------------------------------------------------------------------------- */

/* Quantize rows of X[m,k] f32 to `type`, which comes with a scale for each row: scale = absmax / the largest number of
 * the type (127 of i8, 448 of e4m3, 57344 of e5m2), q = X / scale to nearest, ties to even, all in f32; a row of zeros
 * gets scale 0. No code of a finite row is a NaN, and -128 is not used. The scale of a row with a NaN is NaN, else with
 * an infinity infinite, and its codes are unspecified. Host memory; ldx in elements, k or more; q is dense [m,k], scale
 * is [m]. m = 0 does nothing. Returns QN_OK, QN_E_ARG (a type without scales, a size below these, a NULL). Any thread.
 *
 * A problem such as "int4.g128:4096x4096:f32~i8-f32" takes X in f32 and does this within qn_run, in the workspace, for
 * each group of columns that shares a scale of W, or for whole rows where W has one scale a row. A row of X that is not
 * finite makes its row of the product infinite or NaN. */
QN_API qn_status qn_quantize_rows(const float *x, int64_t m, int64_t k, int64_t ldx, qn_type type, void *q,
                                  float *scale);

/* Convert n elements among f16, bf16 and f32, to nearest, ties to even; what is beyond the largest becomes infinite,
 * NaN stays NaN. Host memory, any alignment, src and dst apart. Returns QN_OK, QN_E_ARG for other types. Any thread. */
QN_API qn_status qn_convert(const void *src, qn_type from, void *dst, qn_type to, size_t n);

#ifdef __cplusplus
}
#endif
#endif
