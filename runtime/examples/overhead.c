/* overhead.c - what a call costs beside its kernel: overhead PACK [PROBLEM]
 *
 * Prints nanoseconds, the least of ten rounds, of: the look-up that qn_run makes before it launches (for M that go
 * through all ranges); a launch of an empty kernel on the pack's number of threads, and on one; the whole of qn_run for
 * M = 1. Uses the inside of libquernel, on the host. Times nothing on a GPU. */
#include "fail.h"
#include "pack_read.h"
#include "serve.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define ROUNDS 10

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int fail(const char *what) {
  fprintf(stderr, "overhead: %s: %s\n", what, qn__errmsg());
  return 1;
}

typedef struct served {
  qn_gemm *gemm;
  qn_weight *weight;
  qn_args args;
  qn_device *device;
} served;

static void empty(const qn_host_args *a, int64_t begin, int64_t end, int32_t thread) {
  (void)a, (void)begin, (void)end, (void)thread;
}

static void look_up(const served *s, int i) {
  qn_lookup c;
  qn_args a = s->args;
  a.m = 1 + (i * 7 & 255);
  if (qn__gemm_look_up(s->gemm, s->weight, &a, NULL, &c)) exit(fail("look-up"));
}

static void launch(const served *s, int i) {
  qn_launch l = {.grid = {64}};
  qn_host_entry entry = empty;
  (void)i;
  memcpy(&l.fn, &entry, sizeof entry);
  s->device->ops->launch(s->device, &l, NULL, NULL);
}

static void run(const served *s, int i) {
  (void)i;
  if (qn_run(s->gemm, s->weight, &s->args)) exit(fail("run"));
}

static void measure(const char *name, void (*call)(const served *, int), const served *s, int calls) {
  double least = 1e30;
  for (int round = 0; round < ROUNDS; round++) {
    double start = now();
    for (int i = 0; i < calls; i++) call(s, i);
    double each = (now() - start) / calls;
    least = each < least ? each : least;
  }
  printf("%-34s %10.1f ns\n", name, least);
}

/* A weight of zeros for a gemm of the pack, by the format of the plan that serves it. */
static qn_status zero_weight(const char *path, qn_gemm *g, const char *spelling, qn_weight **out) {
  qn_pack *pack;
  qn_plan plan = {0};
  qn_problem p;
  QN_TRY(qn__problem_parse(spelling, &p));
  QN_TRY(qn__pack_open(NULL, path, &pack));
  for (uint32_t i = 0; i < qn__pack_plans(pack) && strcmp(plan.problem.spelling, qn_gemm_problem(g)); i++)
    qn__pack_plan(pack, i, &plan);
  qn__pack_close(pack);
  const qn_format *f = &plan.format;
  qn_planes planes = {.format = f->name, .n = p.n, .k = p.k, .n_planes = (int)f->n_planes + 1};
  void *zeros = calloc((size_t)(p.n * p.k), 8);
  if (!zeros) return qn__fail(QN_E_NOMEM, "%s", spelling);
  planes.plane[0] = (qn_plane){"codes", (qn_type)f->codes, p.n, p.k, zeros};
  for (uint32_t i = 0; i < f->n_planes; i++) {
    const qn_format_plane *s = &f->plane[i];
    planes.plane[1 + i] = (qn_plane){s->name, (qn_type)s->type, s->rows ? (p.n + s->rows - 1) / s->rows : 1,
                                     s->cols ? (p.k + s->cols - 1) / s->cols : 1, zeros};
  }
  qn_status s = qn_prepack(g, &planes, out);
  free(zeros);
  return s;
}

int main(int argc, char **argv) {
  if (argc < 2) return fprintf(stderr, "usage: overhead PACK [PROBLEM]\n"), 2;
  const qn_open_options host = {.device = "host"};
  qn_context *ctx;
  served s = {0};
  if (qn_open(argv[1], &host, &ctx, NULL, 0)) return fail(argv[1]);
  const char *problem = argc > 2 ? argv[2] : qn_problem_at(ctx, 0);
  qn_problem p;
  if (!problem || qn__problem_parse(problem, &p) || qn_bind(ctx, problem, &s.gemm) ||
      zero_weight(argv[1], s.gemm, problem, &s.weight))
    return fail(problem ? problem : "no problem in the pack");
  size_t ws = qn_gemm_workspace(s.gemm, 256);
  s.args = (qn_args){.m = 1, .workspace = aligned_alloc(256, (ws + 256) / 256 * 256)};
  void *zeros[QN_OPERANDS];
  for (qn_arg i = 0; i < QN_OPERANDS; i++) {
    zeros[i] = calloc((size_t)(256 * qn__operand(qn__gemm_problem(s.gemm), i).cols), 4);
    memcpy((char *)&s.args + qn__arg[i].given, &zeros[i], sizeof zeros[i]);
  }
  printf("%s\n", qn_gemm_problem(s.gemm));
  measure("look-up", look_up, &s, 100000);
  measure("qn_run, M = 1, kernel included", run, &s, 200);
  static const char *const devices[] = {"host:1", "host"};
  for (int i = 0; i < 2; i++) {
    char name[40];
    if (qn__device_open(NULL, devices[i], &s.device)) return fail(devices[i]);
    snprintf(name, sizeof name, "empty launch, %d thread%s", s.device->info.threads, i ? "s" : "");
    measure(name, launch, &s, 20000);
    qn__device_close(s.device);
  }
  for (qn_arg i = 0; i < QN_OPERANDS; i++) free(zeros[i]);
  free(s.args.workspace);
  qn_weight_free(s.weight);
  qn_gemm_free(s.gemm);
  qn_close(ctx);
  return 0;
}
