/* desc.h - descriptors: what the generator knows of a format, a layout and a launch, as plain data.
 *
 * The generator writes them as JSON (cache/desc_json.h reads it), the pack keeps them in binary
 * (runtime/pack_format.h), and the runtime evaluates them: integer expressions for launches, float64 expressions for
 * decoding, digit tables for packing. Everything is fixed-size and holds no pointers, so that a descriptor can be
 * copied with = and hashed. */
#ifndef QN_DESC_H
#define QN_DESC_H
#include "epilogue.h"
#include "types.h"

/* ---- Expressions: postfix programs ------------------------------------------------------------------------------- */

/* JSON: an array of tokens in postfix order: numbers, operator names, variable names, {"lookup": table index},
 * e.g. ["M", 32, "ceildiv", "N", "*"]. Stack depth at most QN_EXPR_STACK. */
#define QN_EXPR_STACK 16
#define QN_EXPR_OP_MAP(X)                                                                                              \
  X(CONST, "", 0)                                                                                                      \
  X(VAR, "", 0)                                                                                                        \
  X(ADD, "+", 2)                                                                                                       \
  X(SUB, "-", 2)                                                                                                       \
  X(MUL, "*", 2)                                                                                                       \
  X(DIV, "/", 2)                                                                                                       \
  X(CEILDIV, "ceildiv", 2)                                                                                             \
  X(MOD, "%", 2)                                                                                                       \
  X(MIN, "min", 2)                                                                                                     \
  X(MAX, "max", 2)                                                                                                     \
  X(LT, "<", 2)                                                                                                        \
  X(EQ, "==", 2)                                                                                                       \
  X(NEG, "neg", 1)                                                                                                     \
  X(SELECT, "select", 3) /* c a b -> c ? a : b */                                                                      \
  X(LOOKUP, "lookup", 1) /* index -> table[arg][index] */                                                              \
  X(BITS, "bits", 3)     /* v lo width -> (v >> lo) & (2^width - 1) */

typedef enum qn_expr_code {
#define QN_X(name, text, arity) QN_OP_##name,
  QN_EXPR_OP_MAP(QN_X)
#undef QN_X
} qn_expr_code;

typedef struct qn_expr_op {
  uint32_t code; /* qn_expr_code */
  uint32_t arg;  /* VAR: index of the variable; LOOKUP: index of the table */
  double value;  /* CONST (integers are exact to 2^53) */
} qn_expr_op;

/* A program to be evaluated; of no tokens: the constant 0. */
typedef struct qn_program {
  const qn_expr_op *op;
  uint32_t n;
} qn_program;

/* A descriptor keeps the tokens of all its expressions in one pool, and of each where it begins. */
#define QN_POOL_OPS 128
typedef struct qn_pool {
  uint32_t n;
  qn_expr_op op[QN_POOL_OPS];
} qn_pool;

typedef struct qn_expr {
  uint16_t at, n; /* in the pool */
} qn_expr;

static inline qn_program qn__program(const qn_pool *p, qn_expr e) { return (qn_program){p->op + e.at, e.n}; }

/* Variables of integer expressions (launch recipes, layouts). */
#define QN_VAR_MAP(X)                                                                                                  \
  X(M, "M")                                                                                                            \
  X(N, "N")                                                                                                            \
  X(K, "K")                                                                                                            \
  X(E, "E") /* E: experts of a stack */                                                                                \
  X(T, "T") /* T: threads of the host pool */                                                                          \
  X(SMS, "SMS")                                                                                                        \
  X(SMEM, "SMEM")                                                                                                      \
  X(L2, "L2") /* device constants of CUDA */
typedef enum qn_var {
#define QN_X(name, text) QN_VAR_##name,
  QN_VAR_MAP(QN_X)
#undef QN_X
      QN_VAR_COUNT
} qn_var;

/* Is `e` a program that can be evaluated: known operators, variables below n_vars, tables below n_tables, a stack that
 * stays within its bounds and ends with one value; integer constants where `integer`? QN_E_FORMAT with the reason. */
qn_status qn__expr_check(qn_program e, uint32_t n_vars, uint32_t n_tables, bool integer);

/* Evaluate over integers. Division rounds down, ceildiv up, both want a positive divisor, as % does. QN_E_LIMIT on
 * overflow of int64, a divisor of zero or less, or a malformed program. */
qn_status qn__expr_i64(qn_program e, const int64_t var[QN_VAR_COUNT], int64_t *out);

/* Bounds of the value while every variable is anywhere between lo and hi, each operand on its own: what rises with all
 * of its variables has the bounds of its ends. QN_E_LIMIT if qn__expr_i64 could fail for one of them, QN_E_FORMAT. */
qn_status qn__expr_bounds(qn_program e, const int64_t lo[QN_VAR_COUNT], const int64_t hi[QN_VAR_COUNT], int64_t *least,
                          int64_t *most);

/* Evaluate all that does not depend on the variables in the set `free` (bit i: variable i): *out gives the same values
 * as e for every value of the free ones, a program that is appended to the pool. Fails as qn__expr_i64 does, for parts
 * that are constant; QN_E_FORMAT: the pool has no room. */
qn_status qn__expr_fold(qn_program e, const int64_t var[QN_VAR_COUNT], uint32_t free, qn_pool *pool, qn_expr *out);

/* Evaluate a checked program over float64 for n <= QN_EXPR_BLOCK elements at once: variable i of element j is
 * var[i][j]. `magnitude`, if not NULL, gets the same expression with every term taken by absolute value and every
 * difference made a sum, the measure that rounding errors are proportional to: (q - z) * s gives (|q| + |z|) * |s|. A
 * look-up outside its table gives NaN. */
#define QN_FORMAT_TABLE 256
#define QN_EXPR_BLOCK 64
void qn__expr_f64(qn_program e, int n, const double *const var[], const float (*table)[QN_FORMAT_TABLE], double *value,
                  double *magnitude);

/* ---- Format ------------------------------------------------------------------------------------------------------ */

#define QN_NAME 64
#define QN_FORMAT_PLANES (QN_MAX_PLANES - 1)

/* A plane other than the codes: element (n, k) of the weight uses plane[n / rows][k / cols]. */
typedef struct qn_format_plane {
  char name[16];
  uint32_t type; /* qn_type; u4 zero points are QN_T_U8 in planes */
  uint32_t max;  /* largest code of an integer plane; 0: no limit */
  uint32_t rows; /* weights that share an element, along N; 0: all of them */
  uint32_t cols; /* the same along K (per row: rows 1, cols 0) */
} qn_format_plane;

/* JSON: {"name":"int4.g128","implied":"g128.f16","bits":4,"codes":"u8","float":"none",
 * "planes":[{"name":"scale","type":"f16","rows":1,"cols":128}],"tables":[[…]],"decode":["q",8,"-","scale","*"]}.
 * Variables of decode: "q", then the planes' names. */
typedef struct qn_format {
  char name[QN_NAME];    /* full spelling, "int4.g128.z" */
  char implied[QN_NAME]; /* words that a spelling may have although they say what is so anyway: "g128.f16"; "" for
                          * none */
  uint32_t bits;         /* of a code: 1..8, 16, 32 */
  uint32_t codes;        /* qn_type of the codes plane: u8, u16, u32 */
  uint32_t cast; /* QN_T_NONE: q is an unsigned integer; else q is a float of this type (f16, bf16, f32, e4m3…) */
  uint32_t n_planes, n_tables;
  qn_format_plane plane[QN_FORMAT_PLANES];
  float table[2][QN_FORMAT_TABLE];
  qn_pool decode; /* one program: VAR 0 is q, VAR 1+i is plane i */
} qn_format;

static inline qn_program qn__decode_rule(const qn_format *f) { return (qn_program){f->decode.op, f->decode.n}; }

/* Is `f` well formed: types, sizes, decode rule? QN_E_FORMAT with the reason. */
qn_status qn__format_check(const qn_format *f);

/* Where a call rounds X, each row has a scale for so many values of k, in the order of the columns of W, the last for
 * what is left: for as many as the finest of the planes has along K, or for all `k`. Scale and codes are those that
 * qn_quantize_rows makes of a row of these values. */
int64_t qn__x_group(const qn_format *f, int64_t k);

/* Does a spelling name this format? The words behind the first come in any order, implied ones or not. */
bool qn__format_named(const qn_format *f, const char *spelling);

/* Dequantize rows n0..n1 (exclusive) of a weight into out[(n1-n0), K] float64, by the decode rule evaluated in float64,
 * element by element. The reference of everything: it shares nothing with generated code. */
qn_status qn__dequantize(const qn_format *f, const qn_planes *p, int64_t n0, int64_t n1, double *out);

/* Check that `p` holds what the format asks: name, planes by name in any order, types, shapes, code range, finite
 * scales, a permutation that is one. QN_E_ARG or QN_E_SHAPE. */
qn_status qn__planes_check(const qn_allocator *heap, const qn_format *f, const qn_planes *p);
/* The plane of `p` called as plane i of the format (0: the codes, 1 + i: f->plane[i]); NULL if there is none. */
const qn_plane *qn__planes_find(const qn_format *f, const qn_planes *p, uint32_t i);

/* ---- Layout ------------------------------------------------------------------------------------------------------ */

/* A layout is a bijection from planes to packed bytes: sections one after another, each a list of records; a record is
 * a run of fields, each a small block of one plane. Positions are mixed-radix numbers: reading the digits from first to
 * last gives the place in memory (last fastest), and each digit adds its value x stride to n or to k.
 *
 *   section.outer  digits that number the records; size 0 stands for "as many as cover the padded axis"
 *   field.digits   digits inside the record; an element takes `bits` bits, little-endian within the field
 *
 * JSON: {"name":…,"tile":[n,k],"sections":[{"outer":[["n",0,32],["k",0,128]],"fields":[{"plane":"scale","type":"f16",
 * "bits":16,"digits":[["n",32,1]]},{"plane":"codes","lo":0,"bits":4,"digits":[["k",16,8],["n",32,1],["k",8,1]]}]}]}
 * Elements whose n >= N or k >= K are padding: codes `pad_code`, other planes zero bits. */
#define QN_LAYOUT_SECTIONS QN_MAX_PLANES     /* each plane may have one */
#define QN_LAYOUT_FIELDS (QN_MAX_PLANES + 2) /* all in one record, the codes in three slices */
#define QN_LAYOUT_DIGITS 10

typedef struct qn_digit {
  uint8_t axis; /* 0: n, 1: k */
  uint32_t size, stride;
} qn_digit;

typedef struct qn_field {
  uint32_t plane; /* 0: codes, 1 + i: plane i of the format */
  uint32_t type; /* type stored in memory; differs from the plane's only by an exact widening (f16 -> f32, u8 -> i32) */
  uint32_t lo, bits; /* codes: the slice [lo, lo + bits) of the code; other planes: lo = 0, bits of `type` */
  uint32_t n_digits;
  qn_digit digit[QN_LAYOUT_DIGITS];
} qn_field;

typedef struct qn_section {
  uint32_t n_outer, n_fields;
  qn_digit outer[4];
  qn_field field[QN_LAYOUT_FIELDS];
} qn_section;

typedef struct qn_layout {
  char name[QN_NAME];
  char hash[33];
  uint32_t tile_n, tile_k; /* N and K are padded to multiples of these; together at most 2^22 weights */
  uint32_t pairs;          /* 1: its row 2 i is row i of the weight, its row 2 i + 1 is row N / 2 + i; N is even */
  uint32_t pad_code;       /* a code, decoding to zero where the format has one */
  uint32_t n_sections;
  qn_section section[QN_LAYOUT_SECTIONS]; /* every section starts at a multiple of 256 bytes, every field at a byte */
} qn_layout;

/* Is `l` a layout of format `f` for N x K weights: sizes in range, and in every axis of every field the digits form a
 * mixed-radix number that reaches each element (codes: exactly once; other planes may be repeated)? That is what makes
 * packing a bijection. QN_E_FORMAT with the reason. */
qn_status qn__layout_check(const qn_layout *l, const qn_format *f, int64_t n, int64_t k);
/* Bytes of a packed N x K weight, a multiple of 256; QN_E_LIMIT if that is beyond 2^48. */
qn_status qn__layout_bytes(const qn_layout *l, int64_t n, int64_t k, int64_t *bytes);
/* Byte offset of section s. */
qn_status qn__layout_offset(const qn_layout *l, int s, int64_t n, int64_t k, int64_t *offset);
/* Pack planes into dst (qn__layout_bytes bytes), on the host, with the threads and the heap of `d`; NULL: with the
 * caller's thread and the C library's heap. The bytes depend on neither. Planes and layout are checked ones. Any
 * thread. */
typedef struct qn_device qn_device;
qn_status qn__layout_pack(qn_device *d, const qn_layout *l, const qn_format *f, const qn_planes *p, void *dst);

/* ---- Launch recipe ----------------------------------------------------------------------------------------------- */

#define QN_RECIPE_STEPS 3
#define QN_RECIPE_ARGS (QN_ARG_COUNT + QN_STEP_MAPS)

/* What an argument of a step is: the address of an operand, a number, or a tensor map of the step, which is a
 * CUtensorMap of 128 bytes, made for each call. */
typedef enum qn_arg_kind { QN_ARG_POINTER, QN_ARG_NUMBER, QN_ARG_MAP } qn_arg_kind;
#define QN_FIRST_MAP 64 /* an argument from here on is a tensor map, numbered from 0 */
static inline qn_arg_kind qn__arg_kind(uint8_t arg) {
  return arg >= QN_FIRST_MAP ? QN_ARG_MAP : arg < QN_POINTERS ? QN_ARG_POINTER : QN_ARG_NUMBER;
}

/* Boxes of an operand that copies of a kernel move (PTX: cp.async.bulk.tensor). The rows of operands that have a stride
 * are that apart; else one dimension follows another without a gap. */
#define QN_STEP_MAPS 2
#define QN_MAP_RANK 5
typedef struct qn_tensor_map {
  uint32_t operand; /* qn_arg, a pointer */
  uint32_t type;    /* qn_type of an element */
  uint32_t swizzle; /* bytes of a row of the box, within which pieces of 16 are exchanged: 0 (none), 32, 64, 128 */
  uint32_t rank, box[QN_MAP_RANK];
  qn_expr dim[QN_MAP_RANK]; /* elements, the innermost first */
} qn_tensor_map;

/* One launch. Pointers are passed as 64-bit addresses, m n k ldx ldy as int32 on CUDA. On the host the arguments are
 * always a struct qn_host_args, `grid[0]` is the number of work items and block is unused. */
typedef struct qn_step {
  char entry[QN_NAME];
  uint32_t n_args;
  uint8_t arg[QN_RECIPE_ARGS]; /* qn_arg, or QN_FIRST_MAP + number of a map */
  uint32_t n_maps;
  qn_tensor_map map[QN_STEP_MAPS];
  qn_expr grid[3], block[3], cluster[3], shared;
  qn_expr gathers; /* bytes; none: see below */
} qn_step;

/* All launches of a call. A step that gathers writes X in the order of the weight's columns, dense, if the weight has
 * a permutation: `gathers` bytes before the scratch of the other steps are its y, and the steps after it find X there,
 * of a stack with a row for each of Y. At most one step gathers, and not the last. It runs for such a weight only,
 * unless it takes W: then it has something else to do as well, and gathers where `perm` is not NULL.
 *
 * The workspace has two parts: counters are zero when a call begins, and the kernels leave them zero; scratch may hold
 * anything.
 *
 * JSON:
 * {"steps":[{"entry":"qn_gemv","args":["x","w","y","m"],"grid":[[..],[..],[..]],"block":[…],"shared":[…],
 *            "gathers":[…]}],
 *  "counters":[…],"scratch":[…],"deterministic":true,"batch_invariant":true,"pdl":false,"sum_bits":0,
 *  "sum_depth":0}; a missing grid or block entry
 * is 1, other sizes are 0. */
typedef struct qn_recipe {
  uint32_t n_steps;
  uint32_t deterministic, batch_invariant, pdl; /* flags */
  uint32_t sum_bits;                            /* that tensor cores keep of sums, 0: as many as f32 has */
  uint32_t sum_depth;                           /* of so many products, before these are added in f32; 0: of all */
  qn_step step[QN_RECIPE_STEPS];
  qn_expr counters, scratch; /* bytes */
  qn_pool pool;              /* of its expressions */
} qn_recipe;

/* Host kernels have the signature of a user's function: they compute work items [begin, end) of grid[0]; `thread` is in
 * [0, T) and unique among concurrent calls of one launch. */
typedef qn_function_args qn_host_args;
typedef qn_function qn_host_entry;

/* Is `r` well formed: 1 .. QN_RECIPE_STEPS steps, each with an entry, known arguments and valid expressions? */
qn_status qn__recipe_check(const qn_recipe *r);

/* ---- Problem ----------------------------------------------------------------------------------------------------- */

enum { QN_EXPERTS = 4096 }; /* of a stack, at most */

/* Spelling: FORMAT:[Ex]NxK[:[X~]ACT[-OUT]][EPILOGUE]; with E a stack of so many weights, of which each row meets one;
 * X, ACT and OUT as type names (bf16, f16, f32, i8), EPILOGUE the steps
 * of epilogue.h in their order. */
typedef struct qn_problem {
  char spelling[192]; /* full: types always present, "int4.g128:4096x4096:bf16-f32+bias" */
  char format[QN_NAME];
  int64_t n, k;
  int64_t experts;   /* weights of a stack; 0: no stack but one weight */
  uint32_t act, out; /* qn_type: what W is multiplied with, and Y */
  uint32_t x;        /* qn_type of X if the call rounds it to `act` (see qn__x_group); QN_T_NONE: X is of type `act` */
  uint8_t epilogue[QN_EPILOGUE_STEPS]; /* qn_epilogue, zeros behind the last */
} qn_problem;

static inline qn_type qn__x_type(const qn_problem *p) { return (qn_type)(p->x ? p->x : p->act); }

/* Does the epilogue make one column of Y of a gate's and another's row of W? Columns of Y: N, or half of it. */
bool qn__gated(const qn_problem *p);
static inline int64_t qn__columns(const qn_problem *p) { return qn__gated(p) ? p->n / 2 : p->n; }

/* Parse a spelling. Missing types are left QN_T_NONE. QN_E_ARG with the reason (QN_E_SHAPE for N and K outside
 * 1 .. 2^31 - 1, E outside 1 .. QN_EXPERTS). */
qn_status qn__problem_parse(const char *spelling, qn_problem *out);
/* Write the spelling into p->spelling from the other fields; types that are QN_T_NONE are left out. */
void qn__problem_spell(qn_problem *p);
/* Is the epilogue one that a spelling can have? QN_E_ARG names the step and says what is allowed. */
qn_status qn__epilogue_check(const qn_problem *p);
#endif
