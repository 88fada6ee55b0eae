/* runtime_fixture.h - what the tests of the runtime share: a seeded generator, formats and layouts made by hand, planes
 * of any format, kernels compiled by the system C compiler, and packs of them. */
#ifndef QN_RUNTIME_FIXTURE_H
#define QN_RUNTIME_FIXTURE_H
#include "desc.h"
#include "fail.h"
#include "suite.h"
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- Checks ------------------------------------------------------------------------------------------------------ */

#define ck_ok(call)                                                                                                    \
  do {                                                                                                                 \
    qn_status s_ = (call);                                                                                             \
    ck_assert_msg(s_ == QN_OK, "%s: %s: %s", #call, qn_status_name(s_), qn__errmsg());                                 \
  } while (0)

/* The call fails with this status, and its text holds this part. */
#define ck_fails(status, part, call)                                                                                   \
  do {                                                                                                                 \
    qn_status s_ = (call);                                                                                             \
    ck_assert_msg(s_ == (status), "%s: %s, not %s: %s", #call, qn_status_name(s_), qn_status_name(status),             \
                  qn__errmsg());                                                                                       \
    ck_assert_msg(strstr(qn__errmsg(), part) != NULL, "%s: '%s' is not in '%s'", #call, part, qn__errmsg());           \
  } while (0)

/* ---- Random numbers ---------------------------------------------------------------------------------------------- */

typedef struct rng {
  uint64_t state;
} rng;

static inline uint64_t draw(rng *r) { /* splitmix64 */
  uint64_t z = r->state += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  return z ^ z >> 31;
}
static inline uint32_t below(rng *r, uint32_t n) { return (uint32_t)(draw(r) % n); }

/* ---- Expressions ------------------------------------------------------------------------------------------------- */

static inline qn_expr_op op_const(double v) { return (qn_expr_op){.code = QN_OP_CONST, .value = v}; }
static inline qn_expr_op op_var(uint32_t i) { return (qn_expr_op){.code = QN_OP_VAR, .arg = i}; }
static inline qn_expr_op op_of(uint32_t code) { return (qn_expr_op){.code = code}; }
#define EXPR(...)                                                                                                      \
  ((qn_program){(const qn_expr_op[]){__VA_ARGS__}, sizeof((qn_expr_op[]){__VA_ARGS__}) / sizeof(qn_expr_op)})
/* The same in the pool of a recipe. */
#define IN(recipe, ...) in_pool(&(recipe).pool, EXPR(__VA_ARGS__))
static inline qn_expr in_pool(qn_pool *p, qn_program e) {
  if (e.n > QN_POOL_OPS - p->n) ck_abort_msg("expressions of over %d tokens", QN_POOL_OPS);
  memcpy(p->op + p->n, e.op, e.n * sizeof *e.op);
  p->n += e.n;
  return (qn_expr){(uint16_t)(p->n - e.n), (uint16_t)e.n};
}
#define C(v) op_const(v)
#define V(name) op_var(QN_VAR_##name)
#define O(name) op_of(QN_OP_##name)

/* ---- Formats and planes ------------------------------------------------------------------------------------------ */

/* (q - 8) * scale with an f32 scale per `group` codes: "int4.g32.f32". With zero: (q - zero) * scale. */
static inline qn_format make_format(uint32_t bits, uint32_t group, bool zero) {
  qn_format f = {.bits = bits, .codes = QN_T_U8, .n_planes = zero ? 2 : 1};
  snprintf(f.name, sizeof f.name, "int%u.g%u%s.f32", bits, group, zero ? ".z" : "");
  f.plane[0] = (qn_format_plane){.name = "scale", .type = QN_T_F32, .rows = 1, .cols = group};
  f.plane[1] = (qn_format_plane){.name = "zero", .type = QN_T_U8, .max = (1u << bits) - 1, .rows = 1, .cols = group};
  in_pool(&f.decode, EXPR(op_var(0), zero ? op_var(2) : C(1 << (bits - 1)), O(SUB), op_var(1), O(MUL)));
  if (!zero) memset(&f.plane[1], 0, sizeof f.plane[1]);
  return f;
}

typedef struct weight {
  qn_planes planes;
  void *data[QN_MAX_PLANES];
} weight;

static inline int64_t shares(int64_t size, uint32_t share) { return share ? (size + share - 1) / share : 1; }

/* Planes of a format with nothing in them. */
static inline weight empty_weight(const qn_format *f, int64_t n, int64_t k) {
  weight w = {.planes = {.format = f->name, .n = n, .k = k, .n_planes = (int)f->n_planes + 1}};
  for (uint32_t i = 0; i <= f->n_planes; i++) {
    const qn_format_plane *p = i ? &f->plane[i - 1] : NULL;
    qn_plane *out = &w.planes.plane[i];
    *out = (qn_plane){p ? p->name : "codes", (qn_type)(p ? p->type : f->codes), p ? shares(n, p->rows) : n,
                      p ? shares(k, p->cols) : k, NULL};
    out->data = w.data[i] = calloc((size_t)(out->rows * out->cols), (size_t)qn_type_bits(out->type) / 8);
  }
  return w;
}

/* Random codes; integer planes random; float planes powers of two, so that products are exact. */
static inline weight random_weight(const qn_format *f, int64_t n, int64_t k, rng *r) {
  weight w = empty_weight(f, n, k);
  for (uint32_t i = 0; i <= f->n_planes; i++) {
    const qn_plane *p = &w.planes.plane[i];
    uint32_t max = i ? f->plane[i - 1].max : (uint32_t)((UINT64_C(1) << f->bits) - 1);
    for (int64_t j = 0; j < p->rows * p->cols; j++) switch (p->type) {
      case QN_T_F32:
        ((float *)w.data[i])[j] = 1.0f / (float)(1 << below(r, 4));
        break;
      case QN_T_F16:
        ((uint16_t *)w.data[i])[j] = (uint16_t)((15 - below(r, 4)) << 10);
        break;
      case QN_T_U32:
        ((uint32_t *)w.data[i])[j] = (uint32_t)draw(r) & max;
        break;
      case QN_T_U16:
      case QN_T_BF16: /* any bits */
        ((uint16_t *)w.data[i])[j] = (uint16_t)(draw(r) & (max ? max : 0xffff));
        break;
      default: /* integers and floats of 8 bits */
        ((uint8_t *)w.data[i])[j] = (uint8_t)(draw(r) & (max ? max : 255));
        break;
      }
  }
  return w;
}

static inline void free_weight(weight *w) {
  for (int i = 0; i < QN_MAX_PLANES; i++) free(w->data[i]);
}

/* Codes in rows of K (padded), two a byte where they have 4 bits; then the scales, and the zeros, in rows. */
static inline qn_layout plain_layout(const qn_format *f) {
  uint32_t group = f->plane[0].cols;
  qn_layout l = {.name = "plain", .tile_n = 1, .tile_k = group, .pad_code = 1u << (f->bits - 1), .n_sections = 2};
  snprintf(l.hash, sizeof l.hash, "%032x", f->bits);
  l.section[0] = (qn_section){.n_outer = 2, .n_fields = 1, .outer = {{0, 0, 1}, {1, 0, group}}};
  l.section[0].field[0] = (qn_field){.type = f->codes, .bits = f->bits, .n_digits = 1, .digit = {{1, group, 1}}};
  l.section[1] = (qn_section){.n_outer = 2, .n_fields = f->n_planes, .outer = {{0, 0, 1}, {1, 0, group}}};
  for (uint32_t i = 0; i < f->n_planes; i++)
    l.section[1].field[i] =
        (qn_field){.plane = 1 + i, .type = f->plane[i].type, .bits = (uint32_t)qn_type_bits((qn_type)f->plane[i].type)};
  return l;
}

/* ---- Compiled kernels -------------------------------------------------------------------------------------------- */

typedef struct image {
  unsigned char *data;
  size_t size;
} image;

#define PLAIN_FLAGS "-shared -nostdlib -fPIC -O1 -ffreestanding -fno-stack-protector -Wl,-z,norelro,--build-id=none"

/* Compile C text with the system's compiler, or $QUERNEL_CC; fails the test if it does not. */
static inline image compile(const char *text, const char *flags) {
  char source[] = "/tmp/qn_test_XXXXXX.c", object[64], command[512];
  int fd = mkstemps(source, 2);
  ck_assert_int_ge(fd, 0);
  ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
  close(fd);
  snprintf(object, sizeof object, "%s.so", source);
  snprintf(command, sizeof command, "${QUERNEL_CC:-cc} %s -x c %s -o %s", flags, source, object);
  int status = system(command);
  FILE *f = status ? NULL : fopen(object, "rb");
  unlink(source);
  unlink(object);
  ck_assert_msg(f != NULL, "%s: exit status %d", command, status);
  image i = {malloc(1 << 20), 0};
  i.size = fread(i.data, 1, 1 << 20, f);
  fclose(f);
  return i;
}
#endif
