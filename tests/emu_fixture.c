/* emu_fixture.c - running small kernels on the PTX interpreter. */
#include "emu_fixture.h"
#include "fail.h"
#include <check.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

void ptx_begin(ptx_text *t, const char *device, const char *more) {
  snprintf(t->device, sizeof t->device, "%s", device);
  t->f = open_memstream(&t->s, &t->n);
  fprintf(t->f,
          ".version 9.0\n.target %s\n.address_size 64\n.extern .shared .align 1024 .b8 ring[];\n"
          ".visible .entry k(.param .u64 in, .param .u64 out, .param .align 64 .b8 map[128])\n.maxnreg 168\n{\n"
          ".reg .b32 %%r<32>;\n.reg .b64 %%rd<32>;\n.reg .pred %%p<8>;\n.reg .b16 %%h<8>;\n%s"
          "ld.param.u64 %%rd0, [in];\nld.param.u64 %%rd1, [out];\nmov.b64 %%rd2, map;\ncvta.param.u64 %%rd2, %%rd2;\n"
          "mov.u32 %%r0, %%tid.x;\nmov.u32 %%r1, %%ctaid.x;\n",
          device, more);
}

static void encode_map(void *map, const ptx_case *c, uint64_t in, uint64_t out) {
  const struct ptx_map *m = &c->map;
  static const uint32_t steps[5] = {1, 1, 1, 1, 1};
  if (m->rank)
    ck_assert_msg(!qn__emu_tensor_encode(map, m->type, m->rank, m->of_out ? out : in, m->dims, m->strides, m->box,
                                         steps, 0, m->swizzle, 0, m->fill),
                  "%s: %s", c->what, qn__errmsg());
}

static void check_findings(const qn_emu_report *r, const ptx_case *c) {
  char line[1024] = "";
  bool found = false;
  for (int i = 0; i < r->count && !found; i++)
    found = c->finding && !strcmp(qn__emu_finding_word(r->list[i].kind), c->finding) &&
            strstr(qn__emu_finding_print(&r->list[i], line, sizeof line), c->says ? c->says : "");
  if (c->finding)
    ck_assert_msg(found, "%s: no %s was found that says '%s'; the last: %s", c->what, c->finding,
                  c->says ? c->says : "", line);
  else
    ck_assert_msg(!r->findings, "%s: %s", c->what, r->count ? qn__emu_finding_print(r->list, line, sizeof line) : "");
}

static void run_once(const char *device, const char *text, const ptx_case *c, qn_emu_mode mode, uint64_t seed) {
  qn_emu *e;
  qn_emu_module *m;
  const qn_emu_kernel *k;
  qn_emu_report *r;
  uint64_t in = 0, out;
  _Alignas(64) char map[128] = {0};
  ck_assert_msg(!qn__emu_open_name(device, &e), "%s", qn__errmsg());
  ck_assert(!c->in_bytes || (!qn__emu_alloc(e, c->in_bytes, &in) && !qn__emu_write(e, in, c->in, c->in_bytes)));
  ck_assert(!qn__emu_alloc(e, c->out_bytes, &out));
  ck_assert_msg(!qn__emu_module_load(e, text, &m), "%s: %s", c->what, qn__errmsg());
  ck_assert(!qn__emu_kernel_find(m, "k", &k));
  encode_map(map, c, in, out);
  qn_emu_launch how = {.grid = {c->grid ? c->grid : 1, 1, 1},
                       .block = {c->block ? c->block : 32, 1, 1},
                       .cluster = {c->cluster, c->cluster ? 1 : 0, c->cluster ? 1 : 0},
                       .dynamic_shared = c->shared,
                       .programmatic = c->programmatic,
                       .constant = {in},
                       .params = (const void *[]){&in, &out, map},
                       .nparams = 3,
                       .mode = mode,
                       .seed = seed,
                       .threads = 1,
                       .budget = 10000000};
  ck_assert_msg(!qn__emu_run(k, &how, &r), "%s: %s", c->what, qn__errmsg());
  check_findings(r, c);
  if (c->look && mode == QN_EMU_LATE) c->look(r);
  ck_assert(!qn__emu_read(e, c->out, out, c->out_bytes));
  qn__emu_report_free(r);
  qn__emu_close(e);
}

void ptx_run_text(const char *device, const char *text, const ptx_case *c) {
  void *first = malloc(c->out_bytes);
  run_once(device, text, c, QN_EMU_LATE, 0);
  memcpy(first, c->out, c->out_bytes);
  run_once(device, text, c, QN_EMU_RANDOM, 3);
  ck_assert_msg(c->finding || !memcmp(first, c->out, c->out_bytes), "%s: late and random mode differ", c->what);
  free(first);
}

void ptx_run(ptx_text *t, const ptx_case *c) {
  fprintf(t->f, "ret;\n}\n");
  fclose(t->f);
  ptx_run_text(t->device, t->s, c);
  free(t->s);
}

static uint32_t state = 1;
void ptx_seed(uint32_t seed) { state = seed * 2654435761u + 1; }
uint32_t ptx_random(void) {
  state ^= state << 13, state ^= state >> 17, state ^= state << 5;
  return state * 0x9e3779b1u;
}

double float_of_code(uint32_t code, int exponent, int mantissa) {
  int bias = (1 << (exponent - 1)) - 1, e = (int)(code >> mantissa) & ((1 << exponent) - 1);
  double f = ldexp((double)(code & ((1u << mantissa) - 1)), -mantissa);
  double v = e ? ldexp(1 + f, e - bias) : ldexp(f, 1 - bias);
  return code >> (exponent + mantissa) & 1 ? -v : v;
}
