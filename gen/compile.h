/* compile.h - from source text to an artifact: NVRTC for CUDA, the system C compiler for the host.
 *
 * Thread-safe; a pool compiles many jobs on all cores. Nothing is linked: libnvrtc is found at run time, and a missing
 * one is named in the error. */
#ifndef QN_COMPILE_H
#define QN_COMPILE_H
#include "artifact.h"
#include "quernel.h"
#include <stdatomic.h>

/* What many sources begin with, compiled once: gcc reads immintrin.h in a third of a second, as long as it takes for a
 * kernel. Lies in a scratch folder. Any thread. */
typedef struct qn_headers qn_headers;
qn_headers *qn__headers_new(size_t sources); /* for so many; NULL: too few, or no memory: each is compiled whole */
void qn__headers_free(qn_headers *h);        /* NULL: nothing; after the last source */

typedef struct qn_source {
  const char *name;   /* for messages: the variant's name */
  const char *target; /* "cuda" or "host" */
  const char *arch;   /* "sm_90a", or "compute_90a" for PTX; ignored for the host */
  const char *flags;  /* of those that a template may pass (back_end.h), space separated: "-mavx512f -mavx512bw"; CUDA:
                         "-lineinfo"; NULL: none */
  const char *text;
  const atomic_bool *stop; /* the C compiler is killed once this is true, and after 120 s; NULL: only then. NVRTC runs
                              in this process and cannot be ended */
  qn_headers *headers;     /* shared with other sources; it does not show in the artifact. NULL: none */
} qn_source;

/* Compile one source.
 * QN_E_COMPILE: the source is at fault; the detail and out->log hold the first diagnostics with the template's
 * file:line (through #line). Also a host kernel that needs a symbol from elsewhere, by name, and CUDA code whose
 * assembler reports a loss of performance (wgmma made serial, registers asked for and not given). What says nothing
 * about the source, and must not be remembered against it: QN_E_DEVICE, the compiler is missing, by name; QN_E_IO, no
 * room for its files, or a signal ended it; QN_E_LIMIT, its time ran out; QN_E_NOMEM. QN_E_ARG: target, architecture,
 * flags. Free *out with qn__artifact_free in every case. Any thread. */
qn_status qn__compile(const qn_source *source, qn_artifact *out);

/* Identity of the compiler of a target, part of the store's environment: "nvrtc 13.0", "gcc 12.2.0", whatever name it
 * is called by. QN_E_DEVICE if it is missing. */
qn_status qn__compiler_version(const char *target, char *text, size_t size);

/* The C compiler used for the host: $QUERNEL_CC (a program, without options), else the first of cc, gcc and clang on
 * $PATH; NULL if there is none. */
const char *qn__compiler_path(void);

/* Compile n sources on `threads` threads (0: all cores). `done` is called from one thread at a time, in completion
 * order, and may take the artifact's pointers by setting them to NULL in place; a non-zero return stops the rest. */
typedef int (*qn_compile_done)(void *ud, size_t i, qn_status status, const char *detail, qn_artifact *a);
qn_status qn__compile_all(const qn_source *sources, size_t n, int threads, qn_compile_done done, void *ud);

/* Opcodes of a kernel's SASS in a cubin: calls `each` with the low 12 bits of every 128-bit instruction and the raw
 * words (sm_75 and later). For tests and `explain`. */
qn_status qn__cubin_each(const void *image, size_t size,
                         void (*each)(void *ud, const char *kernel, unsigned opcode, const uint64_t word[2]), void *ud);

/* The main loop of a cubin for architecture `sm`: of the loops that have most products of tensor cores the shortest.
 * `first` counts the instructions before it, as qn__cubin_each goes through them. No products: there is no such loop.
 * QN_E_FORMAT, QN_E_NOMEM. */
typedef struct qn_cubin_loop {
  int first, instructions, products;
} qn_cubin_loop;
qn_status qn__cubin_loop(const void *image, size_t size, int sm, qn_cubin_loop *out);
#endif
