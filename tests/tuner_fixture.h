/* tuner_fixture.h - a format, a layout and candidates that the tuner's tests share, compiled for real from
 * tests/candidates/kernel.c; a folder of one's own, gone at the end. */
#ifndef TUNER_FIXTURE_H
#define TUNER_FIXTURE_H
#include "case.h"
#include "compile.h"
#include "fail.h"
#include "hash.h"
#include "store.h"
#include "tuner.h"
#include <check.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KERNEL QN_TESTS "/candidates/kernel.c"
#define WORKER QN_BUILD "/quernel-worker"

/* ---- A folder ---------------------------------------------------------------------------------------------------- */

static char folder[] = "/tmp/qn-tuner-XXXXXX";

static inline int remove_one(const char *path, const struct stat *s, int kind, struct FTW *f) {
  (void)s, (void)kind, (void)f;
  return remove(path);
}

static inline void folder_init(void) {
  strcpy(folder + strlen(folder) - 6, "XXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(folder));
}

static inline void folder_fini(void) { nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS); }

/* ---- Format, layout, recipe -------------------------------------------------------------------------------------- */

static inline qn_expr_op constant(double v) { return (qn_expr_op){.code = QN_OP_CONST, .value = v}; }
static inline qn_expr_op variable(uint32_t i) { return (qn_expr_op){.code = QN_OP_VAR, .arg = i}; }
static inline qn_expr_op operator(qn_expr_code code) { return (qn_expr_op){.code = code}; }

static inline qn_format test_format(void) {
  return (qn_format){.name = "t4.g32",
                     .bits = 4,
                     .codes = QN_T_U8,
                     .n_planes = 1,
                     .plane = {{.name = "scale", .type = QN_T_F32, .rows = 1, .cols = 32}},
                     .decode = {5, {variable(0), constant(8), operator(QN_OP_SUB), variable(1), operator(QN_OP_MUL)}}};
}

/* Records of a scale and 32 codes, a row after the other. `name` alone makes another layout of it. */
static inline qn_layout test_layout(const char *name) {
  qn_layout l = {.tile_n = 1, .tile_k = 32, .pad_code = 8, .n_sections = 1};
  snprintf(l.name, sizeof l.name, "%s", name);
  qn__hash_hex(name, strlen(name), l.hash);
  l.section[0] = (qn_section){.n_outer = 2,
                              .n_fields = 2,
                              .outer = {{0, 0, 1}, {1, 0, 32}},
                              .field = {{.plane = 1, .type = QN_T_F32, .bits = 32},
                                        {.type = QN_T_U8, .bits = 4, .n_digits = 1, .digit = {{1, 32, 1}}}}};
  return l;
}

static inline qn_recipe test_recipe(bool batch_invariant) {
  qn_recipe r = {.n_steps = 1, .deterministic = 1, .batch_invariant = batch_invariant};
  strcpy(r.step[0].entry, "qn_test");
  r.pool = (qn_pool){2, {variable(QN_VAR_N), constant(4)}};
  r.step[0].grid[0] = (qn_expr){0, 1};
  r.counters = r.scratch = (qn_expr){1, 1};
  return r;
}

static inline qn_problem test_problem(int64_t n, int64_t k) {
  qn_problem p = {.format = "t4.g32", .n = n, .k = k, .act = QN_T_F32, .out = QN_T_F32};
  qn__problem_spell(&p);
  return p;
}

/* ---- Candidates -------------------------------------------------------------------------------------------------- */

/* The text of the kernel with a fault ("CRASH"; NULL: none) and a remark that makes it another variant. The caller
 * frees it. */
static inline char *kernel_text(const char *fault, const char *remark) {
  char *text = NULL;
  size_t size;
  FILE *out = open_memstream(&text, &size), *in = fopen(KERNEL, "r");
  ck_assert_msg(in != NULL, "%s is missing", KERNEL);
  if (fault) fprintf(out, "#define FAULT_%s 1\n", fault);
  fprintf(out, "/* %s */\n", remark);
  for (int c; (c = fgetc(in)) != EOF;) fputc(c, out);
  fclose(in);
  fclose(out);
  return text;
}

/* A case of n x k whose object is compiled into the folder. The caller frees it. */
static inline qn_case *test_case(const char *fault, int64_t n, int64_t k) {
  qn_case *c = calloc(1, sizeof *c);
  char *text = kernel_text(fault, "case");
  qn_artifact a;
  qn_source source = {.name = fault ? fault : "good", .target = "host", .flags = "", .text = text};
  ck_assert_msg(qn__compile(&source, &a) == QN_OK, "%s", qn__errmsg());
  c->problem = test_problem(n, k);
  c->format = test_format();
  c->layout = test_layout("t4.rows");
  c->recipe = test_recipe(true);
  c->m_min = 1;
  snprintf(c->name, sizeof c->name, "%s", source.name);
  qn__hash_hex(text, strlen(text), c->hash);
  snprintf(c->sum, sizeof c->sum, "%s", a.hash);
  snprintf(c->image, sizeof c->image, "%s/%s.bin", folder, a.hash);
  FILE *f = fopen(c->image, "wb");
  ck_assert(f && fwrite(a.image, 1, a.size, f) == a.size);
  fclose(f);
  qn__artifact_free(&a);
  free(text);
  return c;
}

/* ---- A worker that is a script ----------------------------------------------------------------------------------- */

/* To it every kernel is right and takes a millisecond. `start` and `answer` are what it does besides, in the shell's
 * words, before it says hello and before it answers a request: $op of kernel $name at $m in $slot, about to say $status
 * and $seconds, and $more fields.
 * `once` is true the first time, whichever worker asks; $used in a worker that has answered before. */
static inline const char *script_worker(const char *start, const char *answer) {
  static char path[64];
  snprintf(path, sizeof path, "%s/worker", folder);
  FILE *f = fopen(path, "w");
  ck_assert_ptr_nonnull(f);
  fprintf(
      f,
      "#!/bin/sh\ncd '%s' || exit 1\nNOMEM=%d CUDA=%d WRONG=%d used=false\n"
      "once() { mkdir \"once$1\" 2>/dev/null; }\n"
      "%s\n"
      "echo "
      "'{\"status\":0,\"info\":{\"name\":\"host:2\",\"target\":\"host\",\"arch\":\"x86-64\",\"threads\":2,\"timed\":1}}"
      "'\n"
      "while read -r line; do\n"
      "  id=${line##*'\"id\":'}; id=${id%%\\}*}\n"
      "  op=${line#*'\"op\":\"'}; op=${op%%%%'\"'*}\n"
      "  slot=${line#*'\"slot\":'}; slot=${slot%%%%,*}\n"
      "  case $op in\n"
      "    verify|open|rows) name=${line%%%%'\",\"hash\":\"'*}; name=${name##*'\"name\":\"'}\n"
      "      m=${line#*'\"m\":'}; m=${m%%%%,*}; eval \"name_$slot=$name m_$slot=$m\";;\n"
      "    *) eval \"name=\\$name_$slot m=\\$m_$slot\";;\n"
      "  esac\n"
      "  status=0 seconds=0.001 more=\n"
      "  %s\n"
      "  used=true\n"
      "  echo "
      "'{\"why\":\"because\",\"error\":0.5,\"seconds\":['$seconds'],'$more'\"status\":'$status',\"id\":'$id'}'\n"
      "done\n",
      folder, QN_E_NOMEM, QN_E_CUDA, QN_E_WRONG, start, answer);
  fclose(f);
  ck_assert_int_eq(chmod(path, 0755), 0);
  return path;
}
#endif
