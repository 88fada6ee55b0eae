/* calibrate.c - see calibrate.h. */
#include "calibrate.h"
#include "config.h"
#include "cpu.h"
#include "fail.h"
#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PASS_ROWS = 1024 }; /* about as many go through a layer at once */

/* A model's hidden states after the halves of layers so far. */
typedef struct stream {
  qn__decoder *d;
  float *x; /* [windows * length, hidden] */
} stream;

/* An input whose statistics are taken in the stage. */
typedef struct seen_input {
  int input;
  qn__inputs s;
  float *original; /* what the unquantized model has there: rows of a pass, with QN__SEE_CROSS */
  int64_t rows;    /* of the pass so far */
} seen_input;

struct qn__calibration {
  qn__calibration_options o;
  bool *wanted;
  stream quantized, original;
  qn_pool *pool;
  const qn__site *site;
  int sites, next; /* the first site that was not given out yet */
  int known;       /* sites that are still to be given out without statistics */
  int place;       /* half of a layer, by place_of, that the hidden states stand before */
  int64_t hidden, layers, pass_windows;
  int64_t mapped, room; /* bytes of the hidden states of a stream; that statistics may take */
  bool in_file;         /* hidden states are */
  float *scratch;       /* [rows of a pass, hidden] */
  /* the stage */
  seen_input *in;
  int n_in, last; /* last: the site after those that it serves */
  int64_t pass_rows;
  qn_status failed; /* hidden states and sums are unfinished: nothing comes after it */
};

/* ---- Hidden states ----------------------------------------------------------------------------------------------- */

/* Memory, or a file without a name where it would be too much. */
static qn_status hold(qn__calibration *c, float **out) {
  const char *folder = getenv("TMPDIR");
  char path[4096];
  int flags = MAP_PRIVATE | MAP_ANONYMOUS, file = -1, wrong = 0;
  if (c->in_file) {
    snprintf(path, sizeof path, "%s/quernel-XXXXXX", folder ? folder : "/tmp");
    file = mkstemp(path);
    if (file < 0) return qn__fail(QN_E_IO, "%s: %s", path, strerror(errno));
    unlink(path);
    flags = MAP_SHARED;
    wrong = posix_fallocate(file, 0, c->mapped);
  }
  void *p = wrong ? MAP_FAILED : mmap(NULL, (size_t)c->mapped, PROT_READ | PROT_WRITE, flags, file, 0);
  if (p == MAP_FAILED && !wrong) wrong = errno;
  if (file >= 0) close(file);
  if (wrong)
    return qn__fail(qn__errno_status(wrong), "hidden states of %jd tokens, %jd MB%s%s: %s",
                    (intmax_t)(c->o.windows * c->o.length), (intmax_t)(c->mapped >> 20), file < 0 ? "" : " in ",
                    file < 0 ? "" : path, strerror(wrong));
  *out = p;
  return QN_OK;
}

/* Both models begin alike. */
static qn_status begin_streams(qn__calibration *c, qn__decoder *quantized, qn__decoder *original) {
  const int64_t memory = c->o.memory ? c->o.memory : (int64_t)1 << 30;
  c->mapped = c->o.windows * c->o.length * c->hidden * (int64_t)sizeof(float);
  c->room = memory - c->mapped * (original ? 2 : 1);
  c->in_file = c->room < memory / 2;
  if (c->in_file) c->room = memory;
  c->quantized.d = quantized;
  QN_TRY(hold(c, &c->quantized.x));
  QN_TRY(qn__decoder_embed(quantized, c->o.ids, c->o.windows * c->o.length, c->quantized.x));
  if (!original) return QN_OK;
  c->original.d = original;
  QN_TRY(hold(c, &c->original.x));
  memcpy(c->original.x, c->quantized.x, (size_t)c->mapped);
  return QN_OK;
}

static int64_t windows_of(const qn__calibration *c, int64_t first) {
  return c->o.windows - first < c->pass_windows ? c->o.windows - first : c->pass_windows;
}

/* Halves of layers, numbered through the model. */
static int place_of(const qn__site *site) { return 2 * site->layer + (site->half == QN__MLP); }
static qn__half half_at(int place) { return place % 2 ? QN__MLP : QN__MIXER; }

/* Through the half that they stand before; the weights of a layer that is behind are not needed any more. */
static qn_status advance(qn__calibration *c, stream *s) {
  const int layer = c->place / 2;
  for (int64_t w = 0; w < c->o.windows; w += c->pass_windows)
    QN_TRY(qn__decoder_layer(s->d, layer, half_at(c->place), s->x + w * c->o.length * c->hidden, windows_of(c, w),
                             c->o.length, NULL));
  if (half_at(c->place) == QN__MLP) qn__decoder_forget(s->d, layer);
  return QN_OK;
}

/* ---- A stage: inputs that can be seen in the same passes --------------------------------------------------------- */

static void end_stage(qn__calibration *c) {
  for (int i = 0; i < c->n_in; i++) {
    qn__inputs_fini(&c->in[i].s);
    free(c->in[i].original);
  }
  c->n_in = 0;
}

static seen_input *find_input(qn__calibration *c, int input) {
  for (int i = 0; i < c->n_in; i++)
    if (c->in[i].input == input) return &c->in[i];
  return NULL;
}

/* Names that differ in numbers alone: experts. */
static bool same_kind(const qn__site *a, const qn__site *b) {
  const char *x = a->name, *y = b->name;
  while (*x && *y) {
    bool digits = isdigit((unsigned char)*x) && isdigit((unsigned char)*y);
    if (!digits && *x++ != *y++) return false;
    for (; digits && isdigit((unsigned char)*x);) x++;
    for (; digits && isdigit((unsigned char)*y);) y++;
  }
  return *x == *y;
}

static int64_t bytes_of(const qn__calibration *c, const qn__site *site) {
  int64_t square = qn__pad(site->k) * qn__pad(site->k) * (int64_t)sizeof(double);
  return site->k * (int64_t)sizeof(double) + (c->o.see & QN__SEE_CROSS ? 2 * square : c->o.see ? square : 0);
}

static qn_status add_input(qn__calibration *c, const qn__site *site) {
  seen_input *in = &c->in[c->n_in];
  *in = (seen_input){.input = site->input};
  QN_TRY(qn__inputs_init(&in->s, site->k, c->o.see));
  c->n_in++;
  if (!(c->o.see & QN__SEE_CROSS)) return QN_OK;
  in->original = malloc((size_t)(c->pass_windows * c->o.length * site->k) * sizeof *in->original);
  return in->original ? QN_OK : qn__fail(QN_E_NOMEM, "inputs of %s", site->name);
}

/* The stage of the next site: its input, and those of experts like it as memory allows; all sites that they serve. */
static qn_status begin_stage(qn__calibration *c) {
  const qn__site *first = &c->site[c->next];
  int64_t room = c->room;
  for (c->last = c->next; c->last < c->sites && c->site[c->last].layer == first->layer; c->last++) {
    const qn__site *site = &c->site[c->last];
    if (!c->wanted[c->last] || find_input(c, site->input)) continue;
    if (c->n_in && (!same_kind(first, site) || room < bytes_of(c, site))) break;
    room -= bytes_of(c, site);
    QN_TRY(add_input(c, site));
  }
  return QN_OK;
}

/* The pass may end when all rows of all inputs are there. */
static bool more(const qn__calibration *c) {
  for (int i = 0; i < c->n_in; i++)
    if (c->in[i].rows < c->pass_rows) return true;
  return false;
}

static bool see_original(void *ud, int input, const float *x, int64_t rows) {
  qn__calibration *c = ud;
  seen_input *in = find_input(c, input);
  if (!in) return true;
  memcpy(in->original + in->rows * in->s.k, x, (size_t)(rows * in->s.k) * sizeof *x);
  in->rows += rows;
  return more(c);
}

static bool see(void *ud, int input, const float *x, int64_t rows) {
  qn__calibration *c = ud;
  seen_input *in = find_input(c, input);
  if (!in) return true;
  const float *original = in->original ? in->original + in->rows * in->s.k : NULL;
  c->failed = qn__inputs_add(&in->s, c->pool, x, original, rows);
  in->rows += rows;
  return !c->failed && more(c);
}

typedef bool (*hook_fn)(void *ud, int input, const float *x, int64_t rows);

static qn_status pass(qn__calibration *c, const stream *s, int64_t first, hook_fn fn) {
  const qn__decoder_hook hook = {c, fn};
  int64_t windows = windows_of(c, first), rows = windows * c->o.length;
  for (int i = 0; i < c->n_in; i++) c->in[i].rows = 0;
  c->pass_rows = rows;
  memcpy(c->scratch, s->x + first * c->o.length * c->hidden, (size_t)(rows * c->hidden) * sizeof *s->x);
  const int layer = c->place / 2;
  if (layer < c->layers)
    return qn__decoder_layer(s->d, layer, half_at(c->place), c->scratch, windows, c->o.length, &hook);
  QN_TRY(qn__decoder_finish(s->d, c->scratch, rows)); /* the head's input */
  fn(c, c->in[0].input, c->scratch, rows);
  return QN_OK;
}

static qn_status check_rows(const qn__calibration *c) {
  for (int i = 0; i < c->n_in; i++)
    if (c->in[i].rows != c->pass_rows)
      return qn__fail(QN_E_ARG,
                      "%s: the unquantized model sends other tokens to an expert than the quantized one, so "
                      "that their inputs cannot be compared; quantize with gptq, or leave experts out",
                      c->site[c->next].name);
  return QN_OK;
}

static qn_status run_stage(qn__calibration *c) {
  QN_TRY(begin_stage(c));
  for (int64_t w = 0; w < c->o.windows; w += c->pass_windows) {
    if (c->original.d) {
      QN_TRY(pass(c, &c->original, w, see_original));
      QN_TRY(check_rows(c));
    }
    QN_TRY(pass(c, &c->quantized, w, see));
    if (c->failed) return qn__fail(c->failed, "%s: %s", c->site[c->next].name, qn__errmsg());
  }
  for (int i = 0; i < c->n_in; i++) qn__inputs_finish(&c->in[i].s);
  return QN_OK;
}

/* ---- All of it --------------------------------------------------------------------------------------------------- */

static qn_status init(qn__calibration *c, qn__decoder *quantized, qn__decoder *original) {
  const qn__calibration_options *o = &c->o;
  c->hidden = qn__decoder_config(quantized)->hidden;
  c->layers = qn__decoder_config(quantized)->n_layers;
  c->sites = qn__decoder_sites(quantized, &c->site);
  c->pass_windows = o->length < PASS_ROWS ? PASS_ROWS / o->length : 1;
  if (c->pass_windows > o->windows) c->pass_windows = o->windows;
  c->known = o->known;
  c->wanted = malloc((size_t)c->sites * sizeof *c->wanted);
  c->in = calloc((size_t)c->sites, sizeof *c->in);
  c->scratch = malloc((size_t)(c->pass_windows * o->length * c->hidden) * sizeof *c->scratch);
  if (!c->wanted || !c->in || !c->scratch) return qn__fail(QN_E_NOMEM, "a pass of %jd tokens", (intmax_t)o->length);
  memcpy(c->wanted, o->wanted, (size_t)c->sites * sizeof *c->wanted);
  QN_TRY(qn__pool_new(NULL, o->threads ? o->threads : qn__cpu_count(), &c->pool));
  return begin_streams(c, quantized, o->see & QN__SEE_CROSS ? original : NULL);
}

qn_status qn__calibration_new(qn__decoder *quantized, qn__decoder *original, const qn__calibration_options *options,
                              qn__calibration **out) {
  *out = NULL;
  if (options->windows < 1 || options->length < 1)
    return qn__fail(QN_E_ARG, "calibration on %jd windows of %jd tokens: at least one of each is needed",
                    (intmax_t)options->windows, (intmax_t)options->length);
  qn__calibration *c = calloc(1, sizeof *c);
  if (!c) return qn__fail(QN_E_NOMEM, "a calibration");
  c->o = *options;
  qn_status s = init(c, quantized, original);
  if (s) qn__calibration_free(c);
  else *out = c;
  return s;
}

void qn__calibration_free(qn__calibration *c) {
  if (!c) return;
  end_stage(c);
  if (c->quantized.x) munmap(c->quantized.x, (size_t)c->mapped);
  if (c->original.x) munmap(c->original.x, (size_t)c->mapped);
  qn__pool_free(c->pool);
  free(c->wanted);
  free(c->in);
  free(c->scratch);
  free(c);
}

/* The half of the next site is reached, and its input seen if it is not known. */
static qn_status next_stage(qn__calibration *c) {
  end_stage(c);
  for (; c->place < place_of(&c->site[c->next]); c->place++) {
    QN_TRY(advance(c, &c->quantized));
    if (c->original.d) QN_TRY(advance(c, &c->original));
  }
  return c->known ? QN_OK : run_stage(c);
}

qn_status qn__calibration_next(qn__calibration *c, int *site, const qn__inputs **seen) {
  *site = -1;
  *seen = NULL;
  while (c->next < c->sites && !c->wanted[c->next]) c->next++;
  if (c->next == c->sites) return QN_OK;
  if (c->failed) return qn__fail(c->failed, "calibration failed at %s; begin anew", c->site[c->next].name);
  if (c->next >= c->last) c->failed = next_stage(c);
  if (c->failed) return c->failed;
  *site = c->next++;
  if (c->known) return c->known--, QN_OK;
  *seen = &find_input(c, c->site[*site].input)->s;
  return QN_OK;
}
