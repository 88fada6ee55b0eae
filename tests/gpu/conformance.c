/* conformance.c - does a device do what each form of an instruction is believed to do?
 *
 *     conformance [--device D] [--only WORD]                runs every form and compares with plain C
 *     conformance --device cuda:0 --record DIR              and writes what the GPU answered to DIR/sm_NN.vectors
 *     conformance --device emu:sm_90a --check DIR           and compares with what such a GPU answered
 *     conformance --compile sm_90a                          the assembler takes every form: needs no device
 *     conformance --unconfirmed DIR | --list
 *     conformance [--device D] --lose WORD                  forms so named write to nowhere: do the others get on?
 *
 * Every form runs twice (on the interpreter: in late and in random order) and must answer the same. Sums of floats may
 * differ by what the order of addition allows, everything else by nothing. The forms of a family run in a process of
 * their own: one that loses its context, or its process, fails alone, and another process goes on behind it. Exits 1 if
 * a form fails. */
#include "compile.h"
#include "device_cuda.h"
#include "driver.h"
#include "fail.h"
#include "forms.h"
#include "vectors.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- Kernels ----------------------------------------------------------------------------------------------------- */

static int shared_bytes(const form *f) {
  int words = f->shared == SHARED_TILE ? f->tile : f->dump;
  return f->shared ? 4 * words + f->spare : 0;
}

/* Shared memory begins as the tile or as the pattern, made visible to the async proxy where that reads or writes it. */
static void write_fill(FILE *o, const form *f) {
  const char *value = f->shared == SHARED_TILE ? text("i < %d ? tile[i] : pattern", f->tile) : "pattern";
  if (!f->shared) return;
  fprintf(o, "  for (unsigned i = t; i < %d; i += %d) shared[i] = %s;\n", shared_bytes(f) / 4, f->threads, value);
  if (f->async) fprintf(o, "  asm volatile(\"fence.proxy.async.shared::cta;\" ::: \"memory\");\n");
  fprintf(o, "  __syncthreads();\n");
}

/* The form's text between moves of its registers from and to numbered operands: d, then t, s, g, m, a. */
static void write_asm(FILE *o, const form *f) {
  fprintf(o, "  asm volatile(\"{ .reg .b32 t, s, d<%d>, a<%d>; .reg .b64 g, m; \"\n", f->out + 1, f->in + 1);
  fprintf(o, "    \"mov.b32 t, %%%d; mov.b32 s, %%%d; mov.b64 g, %%%d; mov.b64 m, %%%d; \"\n", f->out, f->out + 1,
          f->out + 2, f->out + 3);
  for (int i = 0; i < f->in; i++) fprintf(o, "    \"mov.b32 a%d, %%%d; \"\n", i, f->out + 4 + i);
  fprintf(o, "    \"%s \"\n", f->text);
  for (int i = 0; i < f->out; i++) fprintf(o, "    \"mov.b32 %%%d, d%d; \"\n", i, i);
  fprintf(o, "    \"}\"\n    :");
  for (int i = 0; i < f->out; i++) fprintf(o, "%s\"=r\"(d[%d])", i ? ", " : " ", i);
  fprintf(o, "\n    : \"r\"(t), \"r\"(s), \"l\"(tile), \"l\"(map)");
  for (int i = 0; i < f->in; i++) fprintf(o, ", \"r\"(a[%d])", i);
  fprintf(o, "\n    : \"memory\");\n");
}

static void write_kernel(FILE *o, const form *f, size_t index) {
  fprintf(o, "#line 1 \"%s\"\n", f->name);
  fprintf(o,
          "extern \"C\" __global__ void __launch_bounds__(%d)\n"
          "form%zu(const unsigned *__restrict__ x, const void *map, unsigned *__restrict__ y) {\n"
          "  const unsigned t = threadIdx.x, s = (unsigned)__cvta_generic_to_shared(shared), *tile = x + %d;\n",
          f->threads, index, f->threads * f->in);
  write_fill(o, f);
  if (f->in)
    fprintf(o, "  unsigned a[%d];\n  for (int i = 0; i < %d; i++) a[i] = x[t * %d + i];\n", f->in, f->in, f->in);
  if (f->out) fprintf(o, "  unsigned d[%d];\n", f->out);
  write_asm(o, f);
  if (f->out) fprintf(o, "  for (int i = 0; i < %d; i++) y[t * %d + i] = d[i];\n", f->out, f->out);
  if (f->dump && !(f->map && f->map->store))
    fprintf(o, "  __syncthreads();\n  for (unsigned i = t; i < %d; i += %d) y[%d + i] = shared[i];\n", f->dump,
            f->threads, f->threads * f->out);
  fprintf(o, "}\n\n");
}

/* ---- Selection --------------------------------------------------------------------------------------------------- */

typedef struct options {
  const char *device, *record, *check, *only, *unconfirmed, *compile, *lose;
  bool list;
} options;

typedef struct tester {
  const options *how;
  form_list forms;
  vectors known;
  const char *arch; /* of the device, or to compile for */
  int sm;
  FILE *record;
  struct tally { /* shared with the processes that have the device */
    qn_device_info info;
    qn_status opened;
    char why[256];                        /* it did not open */
    int run, failed, textbook, confirmed; /* forms that ran; of them wrong, compared with plain C, with a GPU */
    size_t next;                          /* form of the family; those before have run */
    bool lost;                            /* the context is */
  } * tally;
} tester;

static bool suits(const form *f, int sm) { return sm >= f->least && (!f->most || sm <= f->most); }
static bool chosen(const tester *t, const form *f) {
  const char *only = t->how->only;
  return suits(f, t->sm) && (!only || strstr(f->name, only) || !strcmp(f->family, only));
}

/* ---- Running one form -------------------------------------------------------------------------------------------- */

/* The tensor map of a form over its tile or its dump, in device memory. */
static qn_status make_map(qn_device *d, const form *f, char *x, char *y, void *map) {
  const form_map *m = f->map;
  _Alignas(64) char encoded[128];
  const uint32_t ones[3] = {1, 1, 1};
  uint64_t strides[3] = {(uint64_t)m->element * m->dim[0]};
  char *at = m->store ? y + 4 * f->threads * f->out : x + 4 * f->threads * f->in;
  const qn_cuda_driver *v;
  strides[1] = strides[0] * m->dim[1];
  if (!strncmp(d->info.name, "emu:", 4)) {
    QN_TRY(qn__emu_tensor_encode(encoded, m->type, (uint32_t)m->rank, (uint64_t)(uintptr_t)at, m->dim, strides, m->box,
                                 ones, 0, m->swizzle, 0, m->fill));
    return d->ops->upload(d, map, encoded, sizeof encoded);
  }
  QN_TRY(qn__cuda_driver(&v));
  if (!v->tensor_map) return qn__fail(QN_E_DEVICE, "the driver has no cuTensorMapEncodeTiled");
  int error =
      v->tensor_map(encoded, m->type, (uint32_t)m->rank, at, m->dim, strides, m->box, ones, 0, m->swizzle, 0, m->fill);
  return error ? qn__fail(QN_E_CUDA, "cuTensorMapEncodeTiled: %d", error)
               : d->ops->upload(d, map, encoded, sizeof encoded);
}

static qn_status launch(qn_device *d, const form *f, void *fn, void *x, void *map, char *y, ptrdiff_t away,
                        uint32_t *out) {
  size_t bytes = 4 * (size_t)form_y_words(f);
  qn_step step = {.entry = "form", .n_args = 3, .arg = {QN_ARG_X, QN_ARG_W, QN_ARG_Y}};
  qn_launch l = {.fn = fn,
                 .grid = {1, 1, 1},
                 .block = {f->threads, 1, 1},
                 .cluster = {1, 1, 1},
                 .step = &step,
                 .shared = shared_bytes(f)};
  for (int i = 0; i < form_y_words(f); i++) out[i] = PATTERN;
  QN_TRY(d->ops->upload(d, y, out, bytes));
  if (f->map) QN_TRY(make_map(d, f, x, y, map));
  QN_TRY(d->ops->launch(d, &l, &(qn_host_args){.x = x, .w = map, .y = y + away}, NULL));
  QN_TRY(d->ops->sync(d, NULL));
  return d->ops->download(d, out, y, bytes);
}

/* Twice, with the same answer. With `lose` Y is far from any buffer. */
static qn_status run_form(qn_device *d, const form *f, qn_module *m, size_t index, bool lose, const uint32_t *in,
                          uint32_t *out) {
  const ptrdiff_t away = lose ? (ptrdiff_t)1 << 40 : 0;
  size_t words = (size_t)form_y_words(f);
  uint32_t *again = malloc(4 * words);
  void *x = NULL, *y = NULL, *map = NULL, *fn;
  qn_status s = again ? QN_OK : qn__fail(QN_E_NOMEM, "%s", f->name);
  if (!s) s = d->ops->entry(d, m, text("form%zu", index), shared_bytes(f), &fn);
  if (!s) s = d->ops->alloc(d, 4 * (size_t)form_x_words(f) + 16, &x);
  if (!s) s = d->ops->alloc(d, 4 * words, &y);
  if (!s) s = d->ops->alloc(d, 128, &map);
  if (!s) s = d->ops->upload(d, x, in, 4 * (size_t)form_x_words(f));
  if (!s) s = launch(d, f, fn, x, map, y, away, out);
  if (!s) s = launch(d, f, fn, x, map, y, away, again);
  for (size_t i = 0; i < words && !s; i++)
    if (out[i] != again[i])
      s = qn__fail(QN_E_WRONG, "word %zu is %08x, then %08x: the answer is not always the same", i, out[i], again[i]);
  d->ops->free(d, x), d->ops->free(d, y);
  if (!f->map) d->ops->free(d, map); /* a GPU caches maps by address: that of one must not become another's */
  free(again);
  return s;
}

/* ---- Comparing --------------------------------------------------------------------------------------------------- */

/* Words agree: bit for bit; both no number, where either may be; or floats within the slack. */
static bool agree(const number *t, uint32_t a, uint32_t b, double slack, bool nans) {
  if (a == b) return true;
  if (!t || number_is_integer(t) || t->bits < 16) return false;
  for (int j = 0; j < 32 / t->bits; j++) {
    uint32_t mask = (uint32_t)((UINT64_C(1) << t->bits) - 1), p = a >> j * t->bits & mask, q = b >> j * t->bits & mask;
    double u = number_value(t, p), v = number_value(t, q);
    bool close = slack > 0 && fabs(u - v) <= slack, both = nans && isnan(u) && isnan(v);
    if (p != q && !close && !both) return false;
  }
  return true;
}

static qn_status compare(const form *f, const char *with, const uint32_t *x, const uint32_t *got, const uint32_t *want,
                         const double *slack, double times, bool nans) {
  for (int i = 0; i < form_y_words(f); i++) {
    if (agree(f->result, got[i], want[i], times * slack[i], nans)) continue;
    int thread = f->out && i < f->threads * f->out ? i / f->out : -1;
    const char *in =
        thread >= 0 && f->in ? text(", in: %08x %08x", x[thread * f->in], f->in > 1 ? x[thread * f->in + 1] : 0) : "";
    return qn__fail(QN_E_WRONG, "word %d (thread %d) is %08x; %s: %08x, give or take %g%s", i, thread, got[i], with,
                    want[i], times * slack[i], in);
  }
  return QN_OK;
}

/* Against plain C, and against the GPU's answer, which may have summed in yet another order. */
static qn_status judge(tester *t, const form *f, const vector *known, const uint32_t *x, const uint32_t *y) {
  uint32_t *want = calloc((size_t)form_y_words(f), sizeof *want);
  double *slack = calloc((size_t)form_y_words(f), sizeof *slack);
  qn_status s = want && slack ? QN_OK : qn__fail(QN_E_NOMEM, "%s", f->name);
  if (!s && f->truth) {
    f->truth(f, x, want, slack);
    s = compare(f, "plain C", x, y, want, slack, 1, true);
    t->tally->textbook++;
  }
  if (!s && known) {
    s = compare(f, text("a GPU of %s", known->arch), x, y, known->y, slack, 2, false);
    t->tally->confirmed++;
  }
  free(want), free(slack);
  return s;
}

/* ---- Families ---------------------------------------------------------------------------------------------------- */

static uint64_t seed_of(const char *name) { /* FNV-1a: inputs depend on the form alone */
  uint64_t h = UINT64_C(0xcbf29ce484222325);
  while (*name) h = (h ^ (unsigned char)*name++) * UINT64_C(0x100000001b3);
  return h;
}

static qn_status one_form(tester *t, qn_device *d, const form *f, qn_module *m, size_t index) {
  const vector *known = vectors_find(&t->known, f->name);
  uint64_t state = seed_of(f->name);
  uint32_t *x = calloc((size_t)form_x_words(f) + 1, sizeof *x), *y = calloc((size_t)form_y_words(f), sizeof *y);
  qn_status s = x && y ? QN_OK : qn__fail(QN_E_NOMEM, "%s", f->name);
  if (!s && known && (known->nx != (uint32_t)form_x_words(f) || known->ny != (uint32_t)form_y_words(f)))
    s = qn__fail(QN_E_FORMAT, "its vector is of other sizes: record it again");
  if (!s && known) memcpy(x, known->x, 4 * (size_t)form_x_words(f));
  else if (!s) f->draw(f, x, &state);
  if (!s) s = run_form(d, f, m, index, t->how->lose && strstr(f->name, t->how->lose), x, y);
  if (!s && t->record) s = vectors_append(t->record, f, x, y); /* what it answered, right or wrong */
  if (!s) s = judge(t, f, known, x, y);
  free(x), free(y);
  return s;
}

static const char *family_source(const tester *t, const char *family) {
  char *source = NULL;
  size_t size;
  FILE *o = open_memstream(&source, &size);
  if (!o) abort();
  fprintf(o, "extern __shared__ __align__(1024) unsigned shared[];\nstatic const unsigned pattern = 0x%xu;\n\n",
          PATTERN);
  for (size_t i = 0; i < t->forms.n; i++)
    if (!strcmp(t->forms.form[i].family, family) && chosen(t, &t->forms.form[i])) write_kernel(o, &t->forms.form[i], i);
  fclose(o);
  return source;
}

static void complain(tester *t, const char *what) {
  printf("FAILED %s: %s\n", what, qn__errmsg());
  t->tally->failed++;
}

/* In the family's process: its forms from tally.next on, until one loses the context. */
static qn_status each_form(tester *t, qn_device *d, const char *family, const qn_artifact *a) {
  qn_module *m;
  QN_TRY(d->ops->module_load(d, a->image, a->size, &m));
  while (!t->tally->lost && t->tally->next < t->forms.n) {
    size_t i = t->tally->next++;
    const form *f = &t->forms.form[i];
    if (strcmp(f->family, family) || !chosen(t, f)) continue;
    t->tally->run++;
    qn_status s = one_form(t, d, f, m, i);
    if (!s) continue;
    complain(t, f->name);
    t->tally->lost = s == QN_E_CUDA;
  }
  d->ops->module_free(d, m);
  return QN_OK;
}

/* Open the device, for the family's forms; without a family only to tell what it is. */
static void use_device(tester *t, const char *family, const qn_artifact *a) {
  qn_device *d = NULL;
  qn_status s = qn__device_open(NULL, t->how->device, &d);
  if (!s && !family) t->tally->info = d->info;
  if (!s && family) s = each_form(t, d, family, a);
  t->tally->opened = s;
  if (s) snprintf(t->tally->why, sizeof t->tally->why, "%s", qn__errmsg());
  qn__device_close(d);
}

/* The same in a process of its own. QN_E_WRONG: it was ended by a signal. */
static qn_status use_device_apart(tester *t, const char *family, const qn_artifact *a) {
  int status = 0;
  fflush(stdout);
  pid_t pid = fork();
  if (!pid) {
    use_device(t, family, a);
    fflush(stdout);
    _exit(0);
  }
  if (pid < 0 || waitpid(pid, &status, 0) < 0) return qn__fail(QN_E_IO, "no process for %s", t->how->device);
  if (WIFSIGNALED(status)) return qn__fail(QN_E_WRONG, "it ended its process: %s", strsignal(WTERMSIG(status)));
  return t->tally->opened ? qn__fail(t->tally->opened, "%s", t->tally->why) : QN_OK;
}

static qn_status all_forms(tester *t, const char *family, const qn_artifact *a) {
  size_t begin;
  t->tally->next = 0;
  do {
    begin = t->tally->next, t->tally->lost = false;
    qn_status s = use_device_apart(t, family, a);
    if (s != QN_E_WRONG || t->tally->next == begin) QN_TRY(s); /* it is not a form's fault */
    else complain(t, t->forms.form[t->tally->next - 1].name), t->tally->lost = true;
  } while (t->tally->lost);
  return QN_OK;
}

static qn_status one_family(tester *t, const char *family) {
  qn_artifact a = {0};
  qn_source source = {.name = family, .target = "cuda", .arch = t->arch, .text = family_source(t, family)};
  qn_status s = qn__compile(&source, &a);
  if (!s && !t->how->compile) s = all_forms(t, family, &a);
  qn__artifact_free(&a);
  free((char *)source.text);
  return s;
}

/* ---- Listing ----------------------------------------------------------------------------------------------------- */

typedef bool form_test(const tester *t, const form *f);
static bool is_unconfirmed(const tester *t, const form *f) { return !vectors_find(&t->known, f->name); }
static bool is_form(const tester *t, const form *f) { return (void)t, (void)f, true; }

static const char *architectures(const form *f) {
  return f->most == f->least ? text("sm_%d", f->least)
         : f->most           ? text("sm_%d to sm_%d", f->least, f->most)
                             : text("from sm_%d", f->least);
}

/* A heading for each family, then its forms that pass the test. */
static void list_forms(const tester *t, const char *what, form_test *test) {
  for (size_t i = 0; i < t->forms.n; i++) {
    const char *family = t->forms.form[i].family;
    int all = 0, here = 0;
    if (i && !strcmp(t->forms.form[i - 1].family, family)) continue;
    for (size_t j = 0; j < t->forms.n; j++)
      if (!strcmp(t->forms.form[j].family, family)) all++, here += test(t, &t->forms.form[j]);
    printf("%s: %d of %d forms%s\n", family, here, all, what);
    for (size_t j = 0; j < t->forms.n; j++)
      if (!strcmp(t->forms.form[j].family, family) && test(t, &t->forms.form[j]))
        printf("  %s (%s)\n", t->forms.form[j].name, architectures(&t->forms.form[j]));
  }
}

/* ---- Command line ------------------------------------------------------------------------------------------------ */

static int usage(void) {
  fprintf(stderr, "usage: conformance [--device D] [--only WORD] [--record DIR] [--check DIR]\n"
                  "       conformance --compile ARCH | --list | --unconfirmed DIR\n");
  return 2;
}

static bool parse(int argc, char **argv, options *o) {
  const struct {
    const char *name, **value;
  } known[] = {{"--device", &o->device}, {"--record", &o->record},           {"--check", &o->check},
               {"--only", &o->only},     {"--unconfirmed", &o->unconfirmed}, {"--compile", &o->compile},
               {"--lose", &o->lose}};
  for (int i = 1; i < argc; i++) {
    size_t j = 0;
    if (!strcmp(argv[i], "--list")) {
      o->list = true;
      continue;
    }
    while (j < QN_COUNT(known) && strcmp(argv[i], known[j].name)) j++;
    if (j == QN_COUNT(known) || ++i == argc) return false;
    *known[j].value = argv[i];
  }
  return true;
}

/* The first form of a family that is chosen; NULL: none is. */
static const form *chosen_of(const tester *t, const char *family) {
  for (size_t i = 0; i < t->forms.n; i++)
    if (!strcmp(t->forms.form[i].family, family) && chosen(t, &t->forms.form[i])) return &t->forms.form[i];
  return NULL;
}

static void each_family(tester *t) {
  for (size_t i = 0; i < t->forms.n; i++) {
    const char *family = t->forms.form[i].family;
    if (chosen_of(t, family) != &t->forms.form[i]) continue;
    if (one_family(t, family)) complain(t, text("family %s", family));
  }
}

static qn_status run_all(tester *t) {
  struct tally *n = t->tally;
  QN_TRY(use_device_apart(t, NULL, NULL));
  t->arch = n->info.arch, t->sm = n->info.sm;
  if (t->how->check) QN_TRY(vectors_read(t->how->check, t->sm, &t->known));
  if (t->how->record) QN_TRY(vectors_create(t->how->record, &n->info, &t->record));
  each_family(t);
  printf("%s (%s): %d forms, %d wrong; %d compared with plain C, %d with what a GPU answered\n", t->how->device,
         t->arch, n->run, n->failed, n->textbook, n->confirmed);
  return n->failed ? QN_E_WRONG : QN_OK;
}

static qn_status compile_all(tester *t) {
  t->arch = t->how->compile, t->sm = atoi(t->arch + strcspn(t->arch, "0123456789"));
  each_family(t);
  if (!t->tally->failed) printf("%s: every form compiles\n", t->arch);
  return t->tally->failed ? QN_E_COMPILE : QN_OK;
}

static qn_status unconfirmed(tester *t) {
  QN_TRY(vectors_read(t->how->unconfirmed, 0, &t->known));
  list_forms(t, " unconfirmed by a GPU", is_unconfirmed);
  return QN_OK;
}

int main(int argc, char **argv) {
  options o = {.device = "cuda:0"};
  tester t = {.how = &o};
  qn_status s = QN_OK;
  if (!parse(argc, argv, &o)) return usage();
  t.tally = mmap(NULL, sizeof *t.tally, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (t.tally == MAP_FAILED) return perror("conformance"), 1;
  forms_lane(&t.forms), forms_convert(&t.forms), forms_warp(&t.forms), forms_matrix(&t.forms), forms_wgmma(&t.forms);
  forms_async(&t.forms);
  qn__device_provide("emu:", qn__emu_device_open);
  if (o.list) list_forms(&t, "", is_form);
  else s = (o.unconfirmed ? unconfirmed : o.compile ? compile_all : run_all)(&t);
  if (s && !t.tally->failed) fprintf(stderr, "conformance: %s\n", qn__errmsg());
  if (t.record) fclose(t.record);
  vectors_free(&t.known), free(t.forms.form);
  return s != QN_OK;
}
