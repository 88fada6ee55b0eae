/* fuzz_pack.c - libFuzzer target for packs (clang, cmake -DQUERNEL_FUZZ=ON -DQUERNEL_SANITIZE=address,undefined).
 *
 * tests/fuzz runs it, from a pack that test_serve --seeds DIR writes. Input: a pack, whose sizes and checksums are made
 * right, so that what stands behind them is seen; or only its checksums, if byte 28 is not the 0 that a pack has there
 * (byte 29: weights have a permutation). All of it is done that comes before a kernel runs: open, bind, workspace,
 * prepack. */
#include "fail.h"
#include "pack_read.h"
#include "pack_seal.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define MOST (1 << 18) /* elements of a plane */

static char path[64];

static void clean(void) { unlink(path); }

/* Sections one after another, each as long as it says or as what is left. */
static size_t fit(uint8_t *pack, size_t bytes) {
  size_t at = QN_PACK_HEADER + QN_PACK_TABLE;
  for (int i = 0; i < QN_PACK_SECTIONS; i++) {
    uint8_t *e = pack + QN_PACK_HEADER + i * QN_PACK_ENTRY;
    uint64_t size = qn__get64(e + 16) / QN_PACK_ALIGN * QN_PACK_ALIGN,
             left = (bytes - at) / QN_PACK_ALIGN * QN_PACK_ALIGN;
    if (size > left || i + 1 == QN_PACK_SECTIONS) size = left;
    qn__put32(e, (uint32_t)i + 1);
    qn__put64(e + 8, at);
    qn__put64(e + 16, size);
    qn__put64(e + 40, 0);
    at += size;
  }
  memcpy(pack, QN_PACK_MAGIC, 8);
  qn__put32(pack + 8, QN_PACK_VERSION);
  qn__put32(pack + 12, QN_PACK_BYTE_ORDER);
  qn__put32(pack + 24, QN_PACK_SECTIONS);
  return at;
}

/* A weight of zeros in planes of exactly their size; false if it is too large to be worth the time. */
static bool make_planes(const qn_format *f, int64_t n, int64_t k, qn_planes *p) {
  *p = (qn_planes){.format = f->name, .n = n, .k = k};
  for (uint32_t i = 0; i <= f->n_planes; i++) {
    const qn_format_plane codes = {.name = "codes", .type = f->codes, .rows = 1, .cols = 1},
                          *s = i ? &f->plane[i - 1] : &codes;
    int64_t rows = s->rows ? (n + s->rows - 1) / s->rows : 1, cols = s->cols ? (k + s->cols - 1) / s->cols : 1;
    if (rows > MOST / cols) return false;
    p->plane[p->n_planes++] = (qn_plane){i ? f->plane[i - 1].name : "codes", (qn_type)s->type, rows, cols,
                                         calloc((size_t)(rows * cols), (size_t)qn_type_bits((qn_type)s->type) / 8)};
  }
  return true;
}

static void touch_problem(qn_context *c, const qn_plan *plan, bool permuted) {
  qn_problem problem = plan->problem;
  qn_gemm *g;
  qn_planes p = {0};
  qn_weight *w;
  if (!problem.n) problem.n = 33, problem.k = 70; /* generic */
  qn__problem_spell(&problem);
  if (qn_bind(c, problem.spelling, &g)) return;
  qn_gemm_workspace(g, 40);
  qn_gemm_workspace(g, INT64_MAX);
  int64_t packed; /* a layout may fill up a small weight to a large one */
  bool small = !qn__layout_bytes(&plan->layout, problem.n, problem.k, &packed) && packed <= 2 * MOST;
  if (small && make_planes(&plan->format, problem.n, problem.k, &p)) {
    int32_t *perm = permuted ? malloc((size_t)problem.k * sizeof *perm) : NULL;
    for (int64_t i = 0; perm && i < problem.k; i++) perm[i] = (int32_t)(problem.k - 1 - i);
    p.perm = perm;
    if (!qn_prepack(g, &p, &w)) qn_weight_free(w);
    qn_gemm_workspace(g, INT64_MAX);
    free(perm);
  }
  for (int i = 0; i < p.n_planes; i++) free((void *)p.plane[i].data);
  qn_gemm_free(g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  if (!*path) {
    snprintf(path, sizeof path, "%s/quernel-fuzz-%d.qpack", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm",
             (int)getpid());
    atexit(clean);
  }
  if (bytes < QN_PACK_HEADER + QN_PACK_TABLE) return 0;
  uint8_t *pack = memcpy(malloc(bytes), data, bytes);
  bool raw = pack[28], permuted = pack[29];
  qn__put32(pack + 28, 0);
  if (!raw) bytes = fit(pack, bytes);
  pack_seal(pack, bytes);
  FILE *f = fopen(path, "wb");
  if (!f || fwrite(pack, 1, bytes, f) != bytes || fclose(f)) perror(path), exit(2);
  free(pack);

  const qn_open_options host = {.device = "host:1"}; /* starts no thread */
  qn_context *c;
  qn_pack *again;
  if (qn_open(path, &host, &c, NULL, 0)) return 0;
  if (!qn__pack_open(NULL, path, &again)) {
    for (uint32_t i = 0; i < qn__pack_plans(again) && i < 16; i++) {
      qn_plan plan;
      qn__pack_plan(again, i, &plan);
      touch_problem(c, &plan, permuted);
    }
    qn__pack_close(again);
  }
  qn_close(c);
  return 0;
}
