/* model.h - inside the checkpoint readers: files, names, stored tensors, and the dialects that claim them.
 *
 * Containers (safetensors.c, gguf.c) add stored tensors to a model. Then each dialect (dialect_*.c) claims the groups
 * of stored tensors it understands and makes a weight of each. What looks like codes and nobody claims is refused by
 * name (unread.c); the rest are plain weights. The checks of shapes are done when claiming, so that reading planes
 * cannot run out of a tensor. */
#ifndef QN_IO_MODEL_H
#define QN_IO_MODEL_H
#include "fail.h"
#include "quernel_io.h"
#include <cjson/cJSON.h>

/* ---- Memory that lives as long as the model ---------------------------------------------------------------------- */

typedef struct qn__arena {
  struct qn__chunk *chunk;
} qn__arena;

void *qn__arena_take(qn__arena *a, size_t bytes); /* zeroed, aligned to 16; NULL when out of memory */
char *qn__arena_text(qn__arena *a, const char *s, size_t length);
char *qn__arena_print(qn__arena *a, const char *format, ...) __attribute__((format(printf, 2, 3)));
void qn__arena_fini(qn__arena *a);

/* ---- Names to indices -------------------------------------------------------------------------------------------- */

typedef struct qn__names {
  uint32_t *slot; /* index + 1, 0: free */
  size_t cap, count;
  const void *base; /* array of records that begin with their name */
  size_t stride;
} qn__names;

/* Index `count` records of `stride` bytes, each beginning with a `const char *` name. *twice: NULL, or a name that
 * occurs twice. */
qn_status qn__names_init(qn__names *t, const void *base, size_t count, size_t stride, const char **twice);
const void *qn__names_find(const qn__names *t, const char *name);
void qn__names_fini(qn__names *t);

/* ---- Files ------------------------------------------------------------------------------------------------------- */

typedef struct qn__map {
  const uint8_t *data;
  size_t bytes;
  char *path;
} qn__map;

qn_status qn__map_open(const char *path, qn__map *out); /* read-only; QN_E_IO if absent */
void qn__map_close(qn__map *m);
void qn__map_release(const qn__map *m); /* its pages are read again where they are needed */
bool qn__file_exists(const char *path);

/* ---- Element types ----------------------------------------------------------------------------------------------- */

/* A block of `elems` elements along the last dimension takes `bytes` bytes. */
typedef struct qn__dtype {
  const char *name;
  int id; /* ggml's number, or -1 */
  int elems, bytes;
  qn_type type;
} qn__dtype;

const qn__dtype *qn__safetensors_dtype(const char *name, size_t length);
const qn__dtype *qn__ggml_dtype(uint32_t id);
const qn__dtype *qn__dtype_named(const char *name, bool gguf);
const char *qn__dtype_name(qn_type type); /* as safetensors call it; NULL if they do not have it */

/* Bytes of a tensor; false if the shape overflows 63 bits or does not fill whole blocks. */
bool qn__dtype_bytes(const qn__dtype *t, const int64_t *dim, int n_dims, uint64_t *bytes);

/* ---- The model --------------------------------------------------------------------------------------------------- */

enum { QN__PARTS = QN_MAX_PLANES + 1, QN__FORMAT = 40, QN__CONFIGS = 4 };

typedef struct qn__stored {
  qn_raw pub; /* first: qn__names looks at its name */
  const qn__dtype *dtype;
} qn__stored; /* pub.weight: NULL until it is claimed */

typedef struct qn__weight {
  qn_tensor pub; /* first */
  const struct qn__dialect *dialect;
  const qn_raw *part[QN__PARTS]; /* [0] codes, then as the dialect lists them; NULL where optional and absent */
  int bits;
  int64_t group;        /* codes along K that share a scale; 0: all of a row */
  int64_t rows, groups; /* of the scale plane */
  qn_type scale;
  int mode;         /* of the dialect's own choosing */
  const cJSON *own; /* what the configuration says of this layer alone, or NULL: qn__layer_configure */
  char format[QN__FORMAT];
} qn__weight;

/* The keys of a GGUF file as its header has them, one after the other. */
typedef struct qn__gguf_keys {
  const void *data;
  size_t bytes, count;
} qn__gguf_keys;

struct qn_model {
  qn__arena arena;
  qn__map *file;
  int n_files;
  qn__map config;                        /* config.json */
  cJSON *json;                           /* config.json parsed, or NULL */
  const cJSON *config_part[QN__CONFIGS]; /* the whole of it, then what it says of the language model alone */
  int n_configs;
  cJSON *quant; /* its quantization_config or the separate file's whole object, or NULL */
  cJSON *own;   /* quantize_config.json parsed when quant is that */
  bool gguf;
  qn__gguf_keys keys;      /* of its first part, in its mapping */
  struct qn_model *header; /* of the GGUF that the weights of this folder were made of; or NULL */
  const char *remark;      /* qn_model_remark */
  const char *activation;  /* how compressed-tensors wants them quantized, or NULL */
  qn__stored *stored;
  size_t n_stored, cap_stored;
  qn__stored **by_name; /* the same, sorted */
  qn__weight *weight;
  size_t n_weights;
  qn_stack *stack; /* in the arena */
  size_t n_stacks;
  qn_meta *meta; /* in the arena */
  size_t n_meta, cap_meta;
  qn__names stored_names, weight_names, meta_names;
};

/* The model that has the settings and the tokenizer: its own header, or that of the GGUF which it was made of. */
static inline const qn_model *qn__model_settings(const qn_model *m) { return m->header ? m->header : m; }

/* Append a stored tensor; the name is copied. Data must have been checked to lie in the mapping. */
qn_status qn__model_store(qn_model *m, const char *name, size_t length, const qn__dtype *dtype, const int64_t *dim,
                          int n_dims, const uint8_t *data, size_t bytes);

/* Append a text of a safetensors header. Both are copied. */
qn_status qn__model_note(qn_model *m, const char *key, const char *text, size_t length);

qn_status qn__safetensors_read(qn_model *m, const qn__map *file);
qn_status qn__gguf_read(qn_model *m, const qn__map *file);

/* Claim: make weights of the stored tensors; then stacks of weights (stack.c). */
qn_status qn__model_claim(qn_model *m);
qn_status qn__model_stacks(qn_model *m);

/* ---- Dialects ---------------------------------------------------------------------------------------------------- */

typedef struct qn__dialect {
  const char *name;
  const char *key;                 /* suffix of the tensor that holds the codes */
  const char *part[QN__PARTS - 1]; /* suffixes beside it; "!" in front: the dialect is recognised by it */
  const char *weight;              /* suffix of the weight's name, in place of key */
  bool (*match)(const qn_model *m, const qn__weight *w); /* NULL: key and parts suffice */
  /* Check shapes; fill format, and pub.bytes if it is not what the parts take in the file. Failure: its text refuses */
  qn_status (*claim)(const qn_model *m, qn__weight *w);
  qn_status (*read)(const qn__weight *w, int64_t slice, qn_planes **out);
} qn__dialect;

extern const qn__dialect *const qn__dialects[]; /* most specific first, NULL at the end */

extern const qn__dialect qn__planes, qn__ggml, qn__plain, qn__gptq, qn__hqq, qn__mlx, qn__qserve, qn__bitnet;
/* dialect_awq.c */ extern const qn__dialect qn__awq, qn__quark_int4, qn__modelopt_int4;
/* dialect_bnb.c */ extern const qn__dialect qn__bnb4, qn__bnb_int8;
/* dialect_ct.c */ extern const qn__dialect qn__ct_packed, qn__ct_int, qn__int8_blocks;
/* dialect_fp4.c */ extern const qn__dialect qn__ct_nvfp4, qn__ct_mxfp4, qn__modelopt, qn__gptoss, qn__gptoss_original,
    qn__quark_mxfp4, qn__deepseek_mxfp4;
/* dialect_fp8.c */ extern const qn__dialect qn__ct_float, qn__ct_mxfp8, qn__fp8, qn__fp8_experts, qn__deepseek_fp8,
    qn__mistral_fp8;

/* Refuse by name what is in a layout that no dialect reads (unread.c): before the dialects those that are known, after
 * them all that still looks like codes. */
qn_status qn__refuse_layouts(qn_model *m);
qn_status qn__refuse_codes(qn_model *m);

/* Roles (role.c). `matrix`: it has a format. */
const char *qn__role(const qn_tensor *t, bool matrix);
bool qn__is_head(const qn_tensor *t);
bool qn__is_embedding(const qn_tensor *t); /* of tokens */
bool qn__is_linear(const qn_tensor *t);    /* by its role */
/* Fill same_x of t, if it is the first of several, and of those beside it. */
void qn__find_same_x(const qn_model *m, qn_tensor *t);

void qn__shape_text(char *out, size_t cap, int n_dims, const int64_t *dim); /* "[4, *]"; -1 is the star */

/* The stored tensor named stem + suffix, or NULL. */
const qn_raw *qn__sibling(const qn_model *m, const char *stem, size_t stem_length, const char *suffix);

/* The first value of a key in config.json, or in what it says of the language model; NULL: none. Is the architecture
 * ("model_type") this one? */
const cJSON *qn__config_value(const qn_model *m, const char *key);
bool qn__architecture_is(const qn_model *m, const char *name);

/* A member of an object of JSON; NULL: there is none. The name counts letter by letter. */
static inline const cJSON *qn__member(const cJSON *object, const char *key) {
  return cJSON_GetObjectItemCaseSensitive(object, key);
}

/* Settings of the model's quantization. `fallback` when absent or of another type. */
int64_t qn__value_int(const cJSON *value, int64_t fallback); /* a whole number, or a bool */
int64_t qn__quant_int(const qn_model *m, const char *key, int64_t fallback);
const char *qn__quant_text(const qn_model *m, const char *key); /* "" when absent */
const char *qn__quant_name(const qn_model *m);                  /* what it calls itself: "gptq"; "" when it does not */
bool qn__quant_is(const qn_model *m, const char *name); /* does it call itself so: its method, algorithm or format? */

/* The same, where the configuration may say something else of this layer: after qn__layer_configure, which finds it
 * ("dynamic" of GPTQModel, "extra_config" of AutoRound, a key of the module's name of MLX). */
qn_status qn__layer_configure(const qn_model *m, qn__weight *w);
int64_t qn__layer_int(const qn_model *m, const qn__weight *w, const char *key, int64_t fallback);
const char *qn__layer_text(const qn_model *m, const qn__weight *w, const char *key);

/* The size of groups: the configured one that fits, else what K and their number tell; refused if several would do. */
qn_status qn__layer_group(const qn_model *m, const qn__weight *w, const qn_raw *scales, int64_t groups, int64_t *size);

/* Rows and columns of the blocks whose scales are part `part`: as configured, 128 x 128 if nothing is. False if its
 * shape is another. */
bool qn__layer_block(const qn_model *m, const qn__weight *w, int part, int64_t block[2]);

/* Does a regular expression match the text from its start (re.match)? */
typedef enum qn__match { QN__MATCH_NO, QN__MATCH_YES, QN__MATCH_UNKNOWN } qn__match;
qn__match qn__pattern_match(const char *pattern, const char *text, size_t length);

/* Is part i of this dtype and shape? The failure names the part. A dimension of -1 matches any. */
qn_status qn__part_is(const qn__weight *w, int i, const char *dtypes, int n_dims, const int64_t *dim);
qn_status qn__part_float(const qn__weight *w, int i, int n_dims, const int64_t *dim); /* F16, BF16 or F32 */

/* Codes, [N, K] or a stack of E such: enters slices, n, k and rows. Then parts of each slice, with or without a leading
 * E as the codes are; and where those of one slice begin (a part of one element is for all). */
qn_status qn__enter_stack(qn__weight *w, const char *dtypes);
qn_status qn__slice_is(const qn__weight *w, int i, const char *dtypes, int n_dims, const int64_t *dim);
const void *qn__slice(const qn__weight *w, int i, int64_t slice);

/* Rows and columns of the scales of a slice: part i is a scalar, [rows], [rows, cols] or [rows, 1, cols, 1]. */
bool qn__scale_shape(const qn__weight *w, int i, int64_t *rows, int64_t *cols);

/* How the scales of part i lie over w: enters rows, groups and group of w, and says it as a word of the spelling.
 * block: NULL, or the rows and columns of codes that share a scale. */
qn_status qn__scale_grid(const qn_model *m, qn__weight *w, int i, const int64_t *block, char grain[24]);

/* Spell w->format from a base name, the granularity ("row", "tensor", "g128"; "" when the format fixes it), a zero
 * option and the scale's type. */
qn_status qn__spell(qn__weight *w, const char *base, const char *grain, const char *zero, qn_type scale);
const char *qn__grain(const qn__weight *w, char out[24]); /* "g<group>", or "row" when group is 0 */

/* ---- Writing ----------------------------------------------------------------------------------------------------- */

/* A GGUF file, to be filled as one of safetensors; its tensors lie in the order given. */
qn_status qn__gguf_writer_open(const char *path, const qn_save *tensor, size_t n, const qn__gguf_keys *keys,
                               qn_writer **out);

/* ---- Making planes ----------------------------------------------------------------------------------------------- */

typedef struct qn__spec {
  const char *name;
  qn_type type;
  int64_t rows, cols;
  const void *view; /* NULL: to be filled; else the plane is these bytes (copied only if unaligned) */
} qn__spec;

/* Planes of a weight in one allocation. perm: room for a permutation, out->perm. */
qn_status qn__planes_new(const qn__weight *w, const qn__spec *spec, int count, bool perm, qn_planes **out);

/* The bytes of plane i, to be filled by the reader that made it. */
static inline void *qn__fill(qn_planes *p, int i) { return (void *)(uintptr_t)p->plane[i].data; }

/* Act-order: `part` holds the group of each k (I32). Fills the permutation that planes_new made room for and reorders
 * the codes (u8, plane 0) with it; p->perm becomes NULL if the order is the natural one. */
qn_status qn__order_groups(const qn__weight *w, int part, int64_t slice, qn_planes *p);

/* ---- Writing ----------------------------------------------------------------------------------------------------- */

/* An array in row-major order as a NumPy file; descr as NumPy spells it ("<i4"), of `item` bytes. See qn_npy_write. */
qn_status qn__npy_write(const char *path, const char *descr, size_t item, const void *x, const int64_t *dim,
                        int n_dims);

/* ---- Packed codes ------------------------------------------------------------------------------------------------ */

/* How codes of `bits` bits lie in 32-bit words. */
typedef enum qn__packing {
  QN__DENSE,  /* one stream, least significant bits first, straddling words */
  QN__PADDED, /* 32/bits codes a word, the top bits unused */
  QN__PLANAR  /* per 32 codes, streams of 4, 2, 1 bits one after the other (low bits first) */
} qn__packing;

/* Unpack `count` codes from words `stride` bytes apart into out[i * step]. Words needed: qn__packed_words(). */
void qn__unpack(const uint8_t *words, size_t stride, int bits, qn__packing packing, int64_t count, uint8_t *out,
                int64_t step);
int64_t qn__packed_words(int64_t count, int bits, qn__packing packing);

/* The reverse, for QN__DENSE. */
void qn__pack(const uint8_t *codes, int bits, int64_t count, uint8_t *words, size_t stride);

/* dst[c][r] = src[r][c]; elements of 1, 2 or 4 bytes. */
void qn__transpose(void *dst, const void *src, int64_t rows, int64_t cols, size_t bytes);

/* Little-endian loads from unaligned memory, and stores. */
static inline uint16_t qn__le16(const void *p) {
  uint16_t v;
  __builtin_memcpy(&v, p, 2);
  return v;
}
static inline uint32_t qn__le32(const void *p) {
  uint32_t v;
  __builtin_memcpy(&v, p, 4);
  return v;
}
static inline void qn__put_le32(void *p, uint32_t v) { __builtin_memcpy(p, &v, 4); }
static inline uint64_t qn__le64(const void *p) {
  uint64_t v;
  __builtin_memcpy(&v, p, 8);
  return v;
}

static inline float qn__f32(const void *p) {
  float v;
  __builtin_memcpy(&v, p, 4);
  return v;
}

/* Element i of an array of floats of any type, aligned or not. */
float qn__load_float(const void *p, qn_type t, size_t i);

static inline bool qn__ends_with(const char *s, const char *tail) {
  size_t n = __builtin_strlen(s), t = __builtin_strlen(tail);
  return n >= t && !__builtin_strcmp(s + n - t, tail);
}

static inline int64_t qn__ceildiv(int64_t a, int64_t b) { return a / b + (a % b != 0); }
static inline int64_t qn__gcd(int64_t a, int64_t b) { return b ? qn__gcd(b, a % b) : a; }
#endif
