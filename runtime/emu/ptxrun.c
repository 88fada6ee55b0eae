/* ptxrun.c - run one kernel of a PTX file on the CPU, with the checks.
 *
 * Exit status: 0 clean, 1 findings or the kernel could not run, 2 misuse. A one-shot tool: memory is left to the
 * exit. */
#include "emu.h"
#include "file.h"
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "ptxrun FILE.ptx [options]: run a kernel on the CPU and report what it does wrong (never its time)\n"
    "  --device sm_90a            pretended GPU (default: the .target of the file)\n"
    "  --kernel NAME              (default: the only one)\n"
    "  --grid X,Y,Z --block X,Y,Z --cluster X,Y,Z   (default 1,1,1)\n"
    "  --shared BYTES             dynamic shared memory\n"
    "  --arg u32:V s32:V u64:V f32:V f16bits:V      a value; in order of the parameters\n"
    "  --arg buf:BYTES[:zero|:random:SEED|:half:SEED|:file:PATH]  a buffer (nothing: not initialised)\n"
    "  --mode late|random[:SEED]  order of warps and async work (default late)\n"
    "  --without init,race,proxy,count   checks to leave out\n"
    "  --threads N --budget N     host threads; warp instructions\n"
    "  --dump N=FILE              write the buffer of argument N (from 0) after the run\n"
    "  --counters                 print what the kernel did\n";

enum { ARGS = 64 };
typedef struct argument {
  uint64_t value, bytes; /* bytes: of a buffer */
} argument;

static int fail(const char *what) { return fprintf(stderr, "ptxrun: %s\n", what), 1; }
static int misuse(const char *what) { return fprintf(stderr, "ptxrun: %s\n%s", what, usage), 2; }

static int extents(const char *s, uint32_t v[3]) {
  v[0] = v[1] = v[2] = 1;
  return sscanf(s, "%u,%u,%u", &v[0], &v[1], &v[2]) >= 1;
}

static uint64_t step(uint64_t *x) {
  *x ^= *x << 13, *x ^= *x >> 7, *x ^= *x << 17;
  return *x;
}

/* Fill a new buffer as the text after its size says. */
static qn_status fill_buffer(qn_emu *e, argument *a, const char *how) {
  uint64_t seed = strrchr(how, ':') ? strtoull(strrchr(how, ':') + 1, NULL, 0) * 2 + 1 : 1;
  if (!*how) return QN_OK;
  if (!strcmp(how, ":zero")) return qn__emu_fill(e, a->value, 0, 1, a->bytes);
  size_t n = (size_t)a->bytes;
  char *data = NULL;
  if (!strncmp(how, ":file:", 6)) {
    QN_TRY(qn__file_read(how + 6, &data, &n));
    if (n > a->bytes) n = (size_t)a->bytes;
  } else {
    if (!(data = malloc(n + 8))) return qn__fail(QN_E_NOMEM, "out of memory");
    for (size_t k = 0; k + 2 <= n + 1; k += 2) {
      uint64_t r = step(&seed);
      uint16_t v =
          strncmp(how, ":half:", 6) ? (uint16_t)r : (uint16_t)((r & 0x83ff) | 0x3800); /* 0.5 to 1, either sign */
      memcpy(data + k, &v, 2);
    }
  }
  qn_status s = qn__emu_write(e, a->value, data, n);
  free(data);
  return s;
}

static qn_status parse_arg(qn_emu *e, const char *s, argument *a) {
  const char *v = strchr(s, ':');
  if (!v) return qn__fail(QN_E_ARG, "argument %s has no value", s);
  v++;
  if (!strncmp(s, "buf:", 4)) {
    char *end;
    a->bytes = strtoull(v, &end, 0);
    QN_TRY(qn__emu_alloc(e, a->bytes, &a->value));
    return fill_buffer(e, a, end);
  }
  if (!strncmp(s, "f32:", 4)) {
    float f = strtof(v, NULL);
    memcpy(&a->value, &f, 4);
  } else if (!strncmp(s, "u32:", 4) || !strncmp(s, "s32:", 4) || !strncmp(s, "u64:", 4) || !strncmp(s, "f16bits:", 8))
    a->value = strtoull(v, NULL, 0);
  else return qn__fail(QN_E_ARG, "argument %s is of no known type", s);
  return QN_OK;
}

static void print_counters(const qn_emu_report *r) {
  const qn_emu_counters *c = &r->counters;
  printf("warp instructions %llu:", (unsigned long long)c->warp_insns);
  for (int k = 0; k < QN_EMU_KINDS; k++)
    if (c->by_kind[k]) printf(" %s %llu", qn__emu_kind_word((qn_emu_kind)k), (unsigned long long)c->by_kind[k]);
  printf("\nglobal: %llu requests, %llu sectors, ideal %llu; %llu bytes read, %llu written, %llu in bulk\n",
         (unsigned long long)c->global_requests, (unsigned long long)c->global_sectors,
         (unsigned long long)c->global_ideal, (unsigned long long)c->global_load_bytes,
         (unsigned long long)c->global_store_bytes, (unsigned long long)c->bulk_bytes);
  printf("shared: %llu requests, %llu passes, ideal %llu\nmma %llu, wgmma (per warp) %llu, barriers %llu, CTAs %llu\n",
         (unsigned long long)c->shared_requests, (unsigned long long)c->shared_passes,
         (unsigned long long)c->shared_ideal, (unsigned long long)c->mma, (unsigned long long)c->wgmma,
         (unsigned long long)c->barriers, (unsigned long long)c->ctas);
  printf("operands of wgmma in shared memory: %llu bytes; in flight in a CTA: %llu bytes at most\n",
         (unsigned long long)c->wgmma_bytes, (unsigned long long)c->flight_bytes);
  for (int k = 0; k < r->ntraffic; k++) {
    const qn_emu_traffic *t = &r->traffic[k];
    printf("read of 0x%llx, %llu bytes: %.2f times, each byte for %.2f lanes\n", (unsigned long long)t->base,
           (unsigned long long)t->size, (double)t->distinct / (double)t->size, (double)t->asked / (double)t->distinct);
  }
}

static int dump(qn_emu *e, const char *spec, const argument *args, int n) {
  char *end;
  long k = strtol(spec, &end, 10);
  if (*end != '=' || k < 0 || k >= n || !args[k].bytes) return misuse("--dump needs N=FILE, N a buffer");
  char *data = malloc((size_t)args[k].bytes);
  if (!data) return fail("no memory for the dump");
  qn_status s = qn__emu_read(e, data, args[k].value, args[k].bytes);
  if (!s) s = qn__file_replace(end + 1, data, (size_t)args[k].bytes);
  free(data);
  return s ? fail(qn__errmsg()) : 0;
}

static const char *target_of(const char *ptx, char name[32]) {
  const char *s = strstr(ptx, "\n.target ");
  return s && sscanf(s + 9, "%31[a-z_0-9]", name) == 1 ? name : "sm_80";
}

static unsigned without_of(const char *s) {
  static const char *const words[] = {"init", "race", "proxy", "count"};
  unsigned r = 0;
  for (int k = 0; k < 4; k++) r |= strstr(s, words[k]) ? 1u << k : 0;
  return r;
}

typedef struct {
  const char *device, *kernel, *dumps[16], *texts[ARGS];
  int ndumps, nargs;
  bool counters;
  qn_emu_launch how;
} options;

/* The options of argv; the one that is not understood, or NULL. */
static const char *parse_options(int argc, char **argv, options *w) {
  for (int k = 2; k < argc; k++) {
    const char *o = argv[k];
    if (!strcmp(o, "--counters")) {
      w->counters = true;
      continue;
    }
    if (k + 1 == argc) return o;
    const char *v = argv[++k];
    if (!strcmp(o, "--device")) w->device = v;
    else if (!strcmp(o, "--kernel")) w->kernel = v;
    else if (!strcmp(o, "--grid")) extents(v, w->how.grid);
    else if (!strcmp(o, "--block")) extents(v, w->how.block);
    else if (!strcmp(o, "--cluster")) extents(v, w->how.cluster);
    else if (!strcmp(o, "--shared")) w->how.dynamic_shared = (uint32_t)strtoul(v, NULL, 0);
    else if (!strcmp(o, "--threads")) w->how.threads = atoi(v);
    else if (!strcmp(o, "--budget")) w->how.budget = strtoull(v, NULL, 0);
    else if (!strcmp(o, "--without")) w->how.without = without_of(v);
    else if (!strcmp(o, "--mode") && !strcmp(v, "late")) w->how.mode = QN_EMU_LATE;
    else if (!strcmp(o, "--mode") && !strncmp(v, "random", 6))
      w->how.mode = QN_EMU_RANDOM, w->how.seed = v[6] == ':' ? strtoull(v + 7, NULL, 0) : 1;
    else if (!strcmp(o, "--dump") && w->ndumps < 16) w->dumps[w->ndumps++] = v;
    else if (!strcmp(o, "--arg") && w->nargs < ARGS) w->texts[w->nargs++] = v;
    else return o;
  }
  return NULL;
}

int main(int argc, char **argv) {
  options w = {.how = {.grid = {1, 1, 1}, .block = {1, 1, 1}}};
  if (argc < 2) return misuse("a PTX file is wanted");
  if (!strcmp(argv[1], "--help")) return fputs(usage, stdout), 0;
  const char *unknown = parse_options(argc, argv, &w);
  if (unknown) return misuse(unknown);
  size_t bytes;
  char *ptx;
  if (qn__file_read(argv[1], &ptx, &bytes)) return fail(qn__errmsg());
  qn_emu *e;
  qn_emu_module *m;
  const qn_emu_kernel *f;
  argument args[ARGS] = {{0, 0}};
  char target[32];
  const void *params[ARGS];
  qn_emu_report *report;
  if (qn__emu_open_name(w.device ? w.device : target_of(ptx, target), &e) || qn__emu_module_load(e, ptx, &m) ||
      qn__emu_kernel_find(m, w.kernel, &f))
    return fail(qn__errmsg());
  for (int k = 0; k < w.nargs; k++) {
    if (parse_arg(e, w.texts[k], &args[k])) return fail(qn__errmsg());
    params[k] = &args[k].value;
  }
  w.how.params = params, w.how.nparams = w.nargs;
  for (int k = 0; k < w.nargs && k < f->nparams; k++)
    if (f->params[k].size > 8) return fail("parameters over 8 bytes cannot be given");
  if (qn__emu_run(f, &w.how, &report)) return fail(qn__errmsg());
  for (int k = 0; k < report->count; k++) {
    char line[1024];
    puts(qn__emu_finding_print(&report->list[k], line, sizeof line));
  }
  if (w.counters) print_counters(report);
  int status = report->findings != 0;
  for (int k = 0; k < w.ndumps; k++) status |= dump(e, w.dumps[k], args, w.nargs);
  qn__emu_report_free(report);
  qn__emu_close(e);
  free(ptx);
  return status;
}
