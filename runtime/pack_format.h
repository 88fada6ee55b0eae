/* pack_format.h - the pack, byte by byte, and what it holds. cache/pack.c writes it, runtime/pack_read.c reads it.
 *
 * Every number is little-endian and of fixed width. Sections follow one another without a gap; each begins at a
 * multiple of 64 bytes and its size, zeros at the end included, is one. There is no byte that no checksum covers.
 *
 *   HEADER                                            SECTION TABLE, one entry a section, in the order of kinds
 *    0  u8[8]   "\211QNPACK\n"                          0  u32     kind
 *    8  u32     version, QN_PACK_VERSION                4  u32     records in it
 *   12  u32     byte order, 0x01020304                  8  u64     offset in the file
 *   16  u64     bytes of the file                      16  u64     bytes
 *   24  u32     sections, QN_PACK_SECTIONS             24  u8[16]  XXH3-128 of the section
 *   28  u32     0                                      40  u64     0
 *   32  u8[16]  XXH3-128 of the section table,         48
 *               the content hash of the pack             after the last, zeros up to a multiple of 64
 *   48  u8[16]  XXH3-128 of bytes 0 .. 47
 *   64
 *
 *   1 DEVICES   records, one after another: text target, text arch, text product, u32 threads
 *   2 PLANS     index, sorted by what stands here from format to experts:
 *                 0  u8[64]  format, zeros behind       92  u32  kind of plan
 *                64  u32     activation type            96  u32  device, a number of section 1
 *                68  u32     output type               100  u32  experts of a stack, or 0
 *                72  u32     type of X, or 0           104  u64  offset of the record in section 3
 *                76  u8[8]   epilogue                  112  u64  bytes of the record
 *                84  u32     N     88  u32  K          120  u64  0
 *   3 PLAN      records: see qn__code_plan
 *   4 KERNELS   index, sorted by hash:
 *                 0  u8[32]  hash of the variant, hexadecimal digits
 *                32  u64     offset of the record in section 5      48  u64  offset of the image in section 6
 *                40  u64     bytes of the record                    56  u64  bytes of the image
 *   5 KERNEL    records: see qn__code_kernel
 *   6 IMAGES    compiled code, each once, each at a multiple of 64 bytes
 *
 * Records are sequences of u32, u64, f64 (IEEE 754) and text (u32 length, then the bytes: UTF-8 without control
 * characters, since names are shown on terminals). What comes in which order is said once, by the functions of
 * pack_code.c, which both write and read. */
#ifndef QN_PACK_FORMAT_H
#define QN_PACK_FORMAT_H
#include "desc.h"
#include <string.h>

#define QN_PACK_MAGIC "\211QNPACK\n"
#define QN_PACK_VERSION 8
#define QN_PACK_BYTE_ORDER 0x01020304u
#define QN_PACK_SECTIONS 6
#define QN_PACK_HEADER 64
#define QN_PACK_ENTRY 48
#define QN_PACK_ALIGN 64
#define QN_PACK_TABLE 320 /* bytes of the table with its zeros */
_Static_assert(QN_PACK_TABLE % QN_PACK_ALIGN == 0 && QN_PACK_TABLE >= QN_PACK_SECTIONS * QN_PACK_ENTRY, "table");
#define QN_PACK_PLAN_ENTRY 128
#define QN_PACK_KERNEL_ENTRY 64

/* A pack with more is refused, so that opening any file takes no longer than a second or two. */
#define QN_PACK_MAX_DEVICES 64
#define QN_PACK_MAX_PLANS 8192 /* problems x kinds x devices */
#define QN_PACK_MAX_KERNELS 65536

enum { QN_PACK_DEVICES, QN_PACK_PLANS, QN_PACK_PLAN, QN_PACK_KERNELS, QN_PACK_KERNEL, QN_PACK_IMAGES }; /* kind - 1 */

/* ---- What a pack holds ------------------------------------------------------------------------------------------- */

/* A machine that plans were measured on. */
typedef struct qn_pack_device {
  char target[8];   /* "host", "cuda" */
  char arch[160];   /* qn_device_info.arch */
  char product[96]; /* for people */
  uint32_t threads;
} qn_pack_device;

/* A kernel as a pack keeps it: an artifact with its recipe. */
typedef struct qn_kernel {
  char name[192]; /* "host.gemv/int4.g128/bf16-f32/avx512-nr32-mr4" */
  char hash[33];  /* of the variant */
  char target[8]; /* "host", "cuda" */
  char arch[160]; /* CUDA: "sm_90a"; host: instruction sets required, sorted, space separated ("" for plain) */
  qn_recipe recipe;
  int registers, shared;
  const void *image; /* caller-owned until the builder is written; in the reader, part of the map */
  size_t size; /* 0: not code but a qn_function of the user's own (quernel.h), registered by the name of the entry */
} qn_kernel;

typedef enum qn_plan_kind {
  QN_PLAN_FASTEST,
  QN_PLAN_DETERMINISTIC,
  QN_PLAN_BATCH_INVARIANT,
  QN_PLAN_KINDS
} qn_plan_kind;

#define QN_PLAN_POINTS 24
#define QN_PLAN_RANGES (4 * QN_PLAN_POINTS) /* winners of points and between them, who fills gaps, and one beyond */
typedef struct qn_range {
  int64_t m_min;      /* serves m_min <= M < next range's m_min; the first is 1, the last has no end */
  char variant[33];   /* hash of a qn_kernel */
  char runner_up[33]; /* if `variant` is a function, what serves where the process has not registered it; else "" */
  double error;       /* largest |y - reference| / bound seen by the verifier, <= 1 */
} qn_range;

/* What the kernel that serves M took when it was tuned. */
typedef struct qn_point {
  int64_t m;
  double seconds;       /* median */
  double spread;        /* how far apart its rounds were, as a share of that; 0: not known */
  double dense_seconds; /* the dense product in the same harness; 0: not measured */
  double bandwidth;     /* bytes/s read by a plain stream at the time; 0: not measured */
  uint32_t marks;       /* of enum qn_mark */
} qn_point;

enum qn_mark {
  QN_DISTURBED = 1,       /* the machine did something else meanwhile */
  QN_RACED = 2,           /* it is of the race, where a kernel runs alone; else of the finals, in turns with others */
  QN_DENSE_DISTURBED = 4, /* as the first, of the dense product */
  QN_MARKS = 7
};

/* The kernels that serve one problem on one device. A generic plan, for shapes that were not tuned, has N = K = 0,
 * and one expert if it is for stacks. */
typedef struct qn_plan {
  qn_problem problem;
  uint32_t kind;   /* qn_plan_kind */
  uint32_t device; /* number of the pack's device, in the order in which they were added */
  qn_format format;
  qn_layout layout;
  uint32_t n_ranges, n_points;
  qn_range range[QN_PLAN_RANGES]; /* by rising m_min, neighbours never the same kernel */
  qn_point point[QN_PLAN_POINTS]; /* by rising m; none if nothing was timed */
} qn_plan;

/* Is it fit to serve: descriptors valid, ranges ascending from 1, texts of the right form? QN_E_FORMAT. */
qn_status qn__plan_check(const qn_plan *p);
qn_status qn__kernel_check(const qn_kernel *k);
qn_status qn__pack_device_check(const qn_pack_device *d);

/* ---- Records ----------------------------------------------------------------------------------------------------- */

/* A position in a record that is being read or written. `bytes` moves n bytes between the record and p, or sets
 * `error`: the first thing that goes wrong is kept, and nothing is done after it. */
typedef struct qn_coder qn_coder;
struct qn_coder {
  void (*bytes)(qn_coder *c, void *p, size_t n);
  uint8_t *data;
  size_t size, at; /* reading: bytes of the record, and those read; writing: room, and bytes written */
  const char *error;
};

void qn__code_device(qn_coder *c, qn_pack_device *d);
void qn__code_plan(qn_coder *c, qn_plan *p);
void qn__code_kernel(qn_coder *c, qn_kernel *k); /* all but the image */

/* ---- Numbers in indices ------------------------------------------------------------------------------------------ */

static inline void qn__put32(uint8_t *p, uint32_t v) {
  for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> 8 * i);
}
static inline void qn__put64(uint8_t *p, uint64_t v) {
  for (int i = 0; i < 8; i++) p[i] = (uint8_t)(v >> 8 * i);
}
static inline uint32_t qn__get32(const uint8_t *p) {
  return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static inline uint64_t qn__get64(const uint8_t *p) { return qn__get32(p) | (uint64_t)qn__get32(p + 4) << 32; }

/* Order of two entries of the index of plans: by format, then by the numbers from activation to experts. */
static inline int qn__pack_plan_order(const uint8_t *a, const uint8_t *b) {
  int order = memcmp(a, b, QN_NAME);
  for (int i = QN_NAME; i < 104 && !order; i += 4)
    order = (qn__get32(a + i) > qn__get32(b + i)) - (qn__get32(a + i) < qn__get32(b + i));
  return order;
}
#endif
