/* forms_async.c - copies that run beside the program: cp.async with every size and zero fill, bulk copies, tensor
 * copies with every swizzle, ranks, and boxes that hang out of the tensor.
 *
 * Shared memory begins as a pattern, so that what a copy leaves alone is seen. Sources: PTX ISA, "cp.async",
 * "cp.async.bulk", "cp.async.bulk.tensor", "Tensors"; CUDA driver API, cuTensorMapEncodeTiled. */
#include "forms.h"
#include <stdlib.h>
#include <string.h>

/* ---- cp.async ---------------------------------------------------------------------------------------------------- */

typedef struct copy_row {
  const char *cache;
  int size;
  bool fill; /* with a source size, a0 */
} copy_row;

static const copy_row copy_rows[] = {{"ca", 4, false}, {"ca", 8, false}, {"ca", 16, false}, {"cg", 16, false},
                                     {"ca", 4, true},  {"ca", 8, true},  {"ca", 16, true},  {"cg", 16, true}};

static void copy_truth(const form *f, const uint32_t *x, uint32_t *y, double *slack) {
  const copy_row *r = f->more;
  const uint8_t *from = (const uint8_t *)(x + f->threads * f->in);
  uint8_t *to = (uint8_t *)(y + f->threads * f->out);
  memset(slack, 0, sizeof *slack * (size_t)form_y_words(f));
  for (int t = 0; t < f->threads; t++) {
    uint32_t bytes = r->fill ? x[t * f->in] : (uint32_t)r->size;
    memset(to + t * r->size, 0, (size_t)r->size);
    memcpy(to + t * r->size, from + t * r->size, bytes);
  }
}
static void copy_draw(const form *f, uint32_t *x, uint64_t *state) {
  const copy_row *r = f->more;
  draw_any(f, x, state);
  for (int t = 0; t < f->threads * f->in; t++) x[t] = draw_below(state, (uint32_t)r->size + 1);
}

static void add_copy(form_list *l, const copy_row *r) {
  const char *name = text("cp.async.%s.shared.global, %d bytes%s", r->cache, r->size, r->fill ? ", zero fill" : "");
  const char *body =
      text(".reg .b32 q; .reg .b64 p; mul.lo.u32 q, t, %d; cvt.u64.u32 p, q; add.u64 p, p, g; add.u32 q, "
           "q, s; cp.async.%s.shared.global [q], [p], %d%s; cp.async.wait_all;",
           r->size, r->cache, r->size, r->fill ? ", a0" : "");
  form_add(l, (form){.family = "cp.async",
                     .name = name,
                     .text = body,
                     .least = 80,
                     .threads = 64,
                     .in = r->fill,
                     .tile = 16 * r->size,
                     .dump = 16 * r->size,
                     .shared = SHARED_PATTERN,
                     .draw = copy_draw,
                     .truth = copy_truth,
                     .more = r});
}

/* ---- Bulk copies ------------------------------------------------------------------------------------------------- */

enum { BULK_WORDS = 1024 };

/* The mbarrier lies behind the dump; thread 0 begins the copy, everyone waits. */
static const char *load_text(const char *copy, int dump, int bytes) {
  return text(".reg .pred p, w; .reg .b32 b; add.u32 b, s, %d; setp.eq.u32 p, t, 0; "
              "@p mbarrier.init.shared::cta.b64 [b], 1; @p fence.mbarrier_init.release.cluster; bar.sync 0; "
              "@p mbarrier.arrive.expect_tx.shared::cta.b64 _, [b], %d; @p %s, [b]; "
              "WAIT: mbarrier.try_wait.parity.shared::cta.b64 w, [b], 0; @!w bra WAIT;",
              dump * 4, bytes, copy);
}

static void same_truth(const form *f, const uint32_t *x, uint32_t *y, double *slack) {
  memset(slack, 0, sizeof *slack * (size_t)form_y_words(f));
  memcpy(y, x, sizeof *y * (size_t)form_y_words(f));
}

static void add_bulk(form_list *l) {
  const char *name = "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes";
  const char *copy = text("%s [s], [g], %d", name, BULK_WORDS * 4);
  form_add(l, (form){.family = "tma",
                     .name = name,
                     .text = load_text(copy, BULK_WORDS, BULK_WORDS * 4),
                     .least = 90,
                     .threads = 64,
                     .tile = BULK_WORDS,
                     .dump = BULK_WORDS,
                     .spare = 16,
                     .shared = SHARED_PATTERN,
                     .async = true,
                     .draw = draw_any,
                     .truth = same_truth});
}

/* ---- Tensor copies ----------------------------------------------------------------------------------------------- */

enum { TYPE_U8 = 0, TYPE_U32 = 2, TYPE_F16 = 6, TYPE_F32 = 7 }; /* CUtensorMapDataType */
enum { NONE, SPAN32, SPAN64, SPAN128 };                         /* CUtensorMapSwizzle */

static const form_map maps[] = {
    /* rank, type, swizzle, fill, bytes, dimensions, box, place */
    {2, TYPE_F16, NONE, 0, 2, {128, 36}, {64, 16}, {64, 8}, false},
    {2, TYPE_F16, SPAN32, 0, 2, {128, 36}, {16, 32}, {16, 8}, false},
    {2, TYPE_F16, SPAN64, 0, 2, {128, 36}, {32, 32}, {32, 8}, false},
    {2, TYPE_F16, SPAN128, 0, 2, {128, 36}, {64, 32}, {64, 8}, false},
    {2, TYPE_U8, SPAN128, 0, 1, {256, 20}, {128, 16}, {128, 3}, false},
    {2, TYPE_F16, NONE, 0, 2, {128, 36}, {64, 16}, {96, 30}, false},
    {2, TYPE_F16, SPAN128, 0, 2, {128, 36}, {64, 32}, {72, 24}, false},
    {2, TYPE_F16, SPAN128, 0, 2, {128, 36}, {64, 32}, {-24, -5}, false},
    {2, TYPE_F16, SPAN64, 1, 2, {128, 36}, {32, 32}, {112, 20}, false},
    {2, TYPE_F32, NONE, 1, 4, {64, 40}, {32, 16}, {48, 32}, false},
    {1, TYPE_U32, NONE, 0, 4, {500}, {256}, {300}, false},
    {3, TYPE_F16, SPAN128, 0, 2, {64, 6, 10}, {64, 4, 4}, {0, 4, 8}, false},
    {2, TYPE_F16, NONE, 0, 2, {128, 36}, {64, 16}, {96, 30}, true},
    {2, TYPE_F16, SPAN128, 0, 2, {128, 36}, {64, 32}, {64, 24}, true},
    {2, TYPE_F16, SPAN32, 0, 2, {128, 36}, {16, 32}, {-8, 8}, true},
};

static int map_bytes(const form_map *m) {
  int bytes = m->element;
  for (int r = 0; r < m->rank; r++) bytes *= (int)m->dim[r];
  return bytes;
}
static int box_bytes(const form_map *m) {
  int bytes = m->element;
  for (int r = 0; r < m->rank; r++) bytes *= (int)m->box[r];
  return bytes;
}

/* Where unit i of 16 bytes of the box lies in shared memory, whose start is a multiple of 1024: bits 4 to 6 of the
 * address xored with bits 7 to 9, none, one, two or three of them. */
static int swizzled(const form_map *m, int byte) { return byte ^ (byte >> 7 & ((1 << m->swizzle) - 1)) << 4; }

/* Byte of the tensor that element i of the box is; -1: outside. */
static int tensor_byte(const form_map *m, int i) {
  int64_t at = 0, step = m->element;
  for (int r = 0; r < m->rank; r++) {
    int64_t c = m->at[r] + i % (int)m->box[r];
    if (c < 0 || c >= (int64_t)m->dim[r]) return -1;
    at += c * step, step *= (int64_t)m->dim[r], i /= (int)m->box[r];
  }
  return (int)at;
}

/* Elements outside read as zero, or, with fill 1, as the NaN of all ones. */
static void tensor_truth(const form *f, const uint32_t *x, uint32_t *y, double *slack) {
  const form_map *m = f->more;
  const uint8_t *from = (const uint8_t *)(x + f->threads * f->in);
  uint8_t *to = (uint8_t *)(y + f->threads * f->out);
  size_t size = (size_t)m->element;
  memset(slack, 0, sizeof *slack * (size_t)form_y_words(f));
  if (m->store) memset(to, PATTERN & 255, (size_t)f->dump * 4);
  for (int i = 0; i < box_bytes(m) / m->element; i++) {
    int at = tensor_byte(m, i), here = swizzled(m, i * m->element);
    if (m->store && at >= 0) memcpy(to + at, from + here, size);
    if (!m->store && at >= 0) memcpy(to + here, from + at, size);
    if (!m->store && at < 0) memset(to + here, m->fill ? 0xff : 0, size);
  }
}

static const char *coordinates(const form_map *m) {
  const char *out = "";
  for (int r = 0; r < m->rank; r++) out = text("%s%s%d", out, r ? ", " : "", m->at[r]);
  return text("{%s}", out);
}

static const char *store_text(const form_map *m) {
  return text(".reg .pred p; setp.eq.u32 p, t, 0; @p cp.async.bulk.tensor.%dd.global.shared::cta.bulk_group [m, %s], "
              "[s]; cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;",
              m->rank, coordinates(m));
}

static void add_tensor(form_list *l, const form_map *m) {
  static const char *const swizzles[] = {"no swizzle", "swizzle 32", "swizzle 64", "swizzle 128"};
  const char *op =
      text("cp.async.bulk.tensor.%dd.%s", m->rank,
           m->store ? "global.shared::cta.bulk_group" : "shared::cluster.global.mbarrier::complete_tx::bytes");
  const char *name =
      text("%s, %d-byte elements, %s, at %s of %llu x %llu%s", op, m->element, swizzles[m->swizzle], coordinates(m),
           (unsigned long long)m->dim[0], (unsigned long long)m->dim[1], m->fill ? ", NaN fill" : "");
  int box = box_bytes(m) / 4, tensor = map_bytes(m) / 4;
  const char *body = m->store ? store_text(m) : load_text(text("%s [s], [m, %s]", op, coordinates(m)), box, box * 4);
  form_add(l, (form){.family = "tma",
                     .name = name,
                     .text = body,
                     .least = 90,
                     .threads = 64,
                     .tile = m->store ? box : tensor,
                     .dump = m->store ? tensor : box,
                     .spare = 16,
                     .shared = m->store ? SHARED_TILE : SHARED_PATTERN,
                     .async = true,
                     .draw = draw_any,
                     .truth = tensor_truth,
                     .more = m,
                     .map = m});
}

void forms_async(form_list *l) {
  for (size_t i = 0; i < sizeof copy_rows / sizeof *copy_rows; i++) add_copy(l, &copy_rows[i]);
  add_bulk(l);
  for (size_t i = 0; i < sizeof maps / sizeof *maps; i++) add_tensor(l, &maps[i]);
}
