/* bench.c - seats for variants, rings of weights, and the order of checks and samples. */
#include "bench.h"
#include "call.h"
#include "fail.h"
#include "store.h"
#include <stdlib.h>
#include <string.h>

#define RINGS 6
#define SEATS 12
#define CHECK_ROWS 4
#define CHECK_COLS 96
#define SAMPLE 4e-4 /* seconds that a sample should last; more calls make up for a short one */
#define MOST_CALLS 1024
#define MOST_COPIES 4096
#define SEED 20

typedef struct ring {
  bool used;
  qn_layout layout;
  qn_weights weights;
  int64_t at; /* next copy */
} ring;

typedef struct seat {
  qn_case *c; /* NULL: free */
  ring *ring;
  qn_subject subject;
  qn_call call;
  int64_t m; /* that `calls` is for */
  int calls;
  uint64_t used;
} seat;

struct qn_bench {
  qn_device *device;
  qn_meter *meter;
  qn_problem problem; /* that draws and rings are for */
  qn_format format;
  int64_t rows, m;     /* of the draws; that the reference is for */
  qn_draw draw, noise; /* exact; random activations */
  ring ring[RINGS];
  seat seat[SEATS];
  uint64_t clock;
};

qn_status qn__bench_new(qn_device *d, qn_meter *meter, qn_bench **out) {
  if (!(*out = calloc(1, sizeof **out))) return qn__fail(QN_E_NOMEM, "bench");
  (*out)->device = d, (*out)->meter = meter;
  return QN_OK;
}

static void clear_seat(seat *s) {
  if (!s->c) return;
  qn__call_close(&s->call);
  qn__subject_close(&s->subject);
  free(s->c);
  *s = (seat){0};
}

static void clear_seats(qn_bench *b, const ring *of) {
  for (int i = 0; i < SEATS; i++)
    if (!of || b->seat[i].ring == of) clear_seat(&b->seat[i]);
}

static void clear_ring(qn_bench *b, ring *r) {
  if (!r->used) return;
  clear_seats(b, r);
  qn__weights_close(&r->weights);
  *r = (ring){0};
}

static void clear(qn_bench *b) {
  clear_seats(b, NULL);
  for (int i = 0; i < RINGS; i++) clear_ring(b, &b->ring[i]);
  qn__draw_free(&b->draw);
  qn__draw_free(&b->noise);
  b->rows = 0;
}

void qn__bench_free(qn_bench *b) {
  if (b) clear(b);
  free(b);
}

/* ---- Setting up -------------------------------------------------------------------------------------------------- */

/* The draws for this problem with at least `rows` rows. More rows leave the weights, and so the rings, as they are. */
static qn_status aim(qn_bench *b, const qn_case *c, int64_t rows) {
  const qn_problem *p = &c->problem;
  bool same = b->rows && !strcmp(p->spelling, b->problem.spelling) && !memcmp(&c->format, &b->format, sizeof c->format);
  if (same && rows <= b->rows) return QN_OK;
  if (!same) clear(b);
  clear_seats(b, NULL);
  b->problem = *p, b->format = c->format, b->rows = 0;
  qn__draw_free(&b->draw);
  qn__draw_free(&b->noise);
  QN_TRY(qn__draw_make(&b->format, p, QN_DRAW_EXACT, p->n, p->k, rows, p->k, SEED, &b->draw));
  QN_TRY(qn__draw_make(&b->format, p, QN_DRAW_RANDOM, 1, p->k, rows, p->k, SEED, &b->noise));
  b->rows = rows, b->m = 0;
  return QN_OK;
}

/* The reference for the first m rows. */
static qn_status refer(qn_bench *b, int64_t m) {
  qn_draw *d = &b->draw;
  if (b->m == m) return QN_OK;
  free(d->row), free(d->col), free(d->y), free(d->magnitude);
  d->row = d->col = NULL, d->y = d->magnitude = NULL;
  d->m = m, b->m = 0;
  QN_TRY(qn__draw_reference(&b->format, &b->problem, CHECK_ROWS, CHECK_COLS, d));
  b->m = m;
  return QN_OK;
}

static int64_t ring_copies(const qn_bench *b, int64_t bytes) {
  if (!b->meter) return 1;
  int64_t n = ((int64_t)qn__meter_cold_bytes(b->meter) + bytes - 1) / bytes;
  return n < 2 ? 2 : n > MOST_COPIES ? MOST_COPIES : n;
}

static qn_status find_ring(qn_bench *b, const qn_case *c, ring **out) {
  ring *free_one = NULL;
  for (int i = 0; i < RINGS; i++) {
    ring *r = &b->ring[i];
    *out = r;
    if (r->used && !memcmp(&r->layout, &c->layout, sizeof r->layout)) return QN_OK;
    if (!r->used && !free_one) free_one = r;
  }
  ring *r = *out = free_one ? free_one : &b->ring[b->clock % RINGS];
  clear_ring(b, r);
  int64_t bytes;
  QN_TRY(qn__layout_bytes(&c->layout, b->problem.n, b->problem.k, &bytes));
  QN_TRY(qn__weights_open(b->device, c, &b->draw, ring_copies(b, bytes), &r->weights));
  r->used = true, r->layout = c->layout;
  return QN_OK;
}

static qn_status open_seat(qn_bench *b, const qn_case *c, seat *s) {
  QN_TRY(find_ring(b, c, &s->ring));
  if (!(s->c = malloc(sizeof *s->c))) return qn__fail(QN_E_NOMEM, "case");
  *s->c = *c;
  qn_status status = qn__subject_open(b->device, s->c, &s->subject);
  if (!status && (status = qn__call_open(&s->subject, &s->ring->weights, &b->draw, b->problem.n, &s->call)))
    qn__subject_close(&s->subject);
  if (status) free(s->c), *s = (seat){0};
  return status;
}

static qn_status find_seat(qn_bench *b, const qn_case *c, seat **out) {
  seat *oldest = &b->seat[0];
  b->clock++;
  for (int i = 0; i < SEATS; i++) {
    seat *s = *out = &b->seat[i];
    if (s->c && !strcmp(s->c->hash, c->hash)) return s->used = b->clock, QN_OK;
    if (s->used < oldest->used) oldest = s;
  }
  *out = oldest;
  clear_seat(oldest);
  QN_TRY(open_seat(b, c, oldest));
  oldest->used = b->clock;
  return QN_OK;
}

/* ---- Checking and timing ----------------------------------------------------------------------------------------- */

static qn_status check(qn_bench *b, seat *s, int64_t m, double *error) {
  QN_TRY(qn__call_set(&s->call, &b->draw, m));
  QN_TRY(qn__call_run(&s->call));
  return qn__call_compare(&s->call, error);
}

static qn_status fingerprint(qn_bench *b, seat *s, int64_t m, char bits[33]) {
  QN_TRY(qn__call_set(&s->call, &b->noise, m));
  QN_TRY(qn__call_run(&s->call));
  qn_hash_hex(s->call.out, (size_t)b->problem.n * (size_t)qn_type_bits((qn_type)b->problem.out) / 8, bits);
  return QN_OK;
}

static qn_status enqueue(void *ud, int i, void *stream) {
  (void)i;
  seat *s = ud;
  qn_host_args a = qn__call_args(&s->call, s->ring->at++);
  return qn__bound_run(s->subject.device, s->call.bound, &a, stream);
}

/* Calls that make a sample long enough; where a sample is a graph, they also go round the ring. */
static qn_status count_calls(qn_bench *b, seat *s, int64_t m) {
  if (s->m == m) return QN_OK;
  for (int i = 0; i < 2; i++) { /* the first call warms up */
    double begin = qn__now();
    QN_TRY(enqueue(s, 0, NULL));
    QN_TRY(b->device->ops->sync(b->device, NULL));
    double calls = SAMPLE / (qn__now() - begin);
    s->calls = calls < 1 ? 1 : calls > MOST_CALLS ? MOST_CALLS : (int)calls;
  }
  bool graph = b->device->info.target[0] == 'c';
  if (graph && s->calls < s->ring->weights.copies)
    s->calls = s->ring->weights.copies < MOST_CALLS ? (int)s->ring->weights.copies : MOST_CALLS;
  s->m = m;
  return QN_OK;
}

static qn_status time_seat(qn_bench *b, seat *s, const qn_bench_order *o, qn_bench_result *out) {
  if (!b->meter) return qn__fail(QN_E_DEVICE, "device %s is not for timing", b->device->info.name);
  QN_TRY(qn__call_set(&s->call, &b->noise, o->m));
  QN_TRY(count_calls(b, s, o->m));
  QN_TRY(qn__meter_time(b->meter, enqueue, s, s->calls, o->reps, out->seconds, &out->disturbed));
  return qn__call_guards(&s->call);
}

qn_status qn__bench_time(qn_bench *b, const qn_case *c, const qn_bench_order *o, void (*begin)(void *ud), void *ud,
                         qn_bench_result *out) {
  seat *s;
  out->error = 0, out->disturbed = 0, out->bits[0] = 0;
  if (o->m < 1 || o->m > INT32_MAX || o->reps < 0)
    return qn__fail(QN_E_ARG, "m %lld, reps %d", (long long)o->m, o->reps);
  QN_TRY(aim(b, c, o->rows > o->m ? o->rows : o->m));
  if (o->check) QN_TRY(refer(b, o->m));
  QN_TRY(find_seat(b, c, &s));
  begin(ud);
  if (o->check) {
    QN_TRY(check(b, s, o->m, &out->error));
    QN_TRY(fingerprint(b, s, o->m, out->bits));
  }
  if (o->reps) {
    QN_TRY(time_seat(b, s, o, out));
    if (o->check) QN_TRY(check(b, s, o->m, &out->error));
  }
  return QN_OK;
}
