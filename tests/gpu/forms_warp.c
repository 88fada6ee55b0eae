/* forms_warp.c - what the lanes of a warp do together: shfl in every mode and with every kind of clamp and segment,
 * vote, match, redux, elect. Source: PTX ISA, "shfl.sync", "vote.sync", "match.sync", "redux.sync", "elect.sync". */
#include "forms.h"
#include <string.h>

enum { LANES = 32 };

static void exactly(const form *f, double *slack) { memset(slack, 0, sizeof *slack * (size_t)form_y_words(f)); }

/* ---- shfl -------------------------------------------------------------------------------------------------------- */

typedef struct shfl_row {
  const char *mode;
  uint32_t clamp; /* c: clamp in bits 0 to 4, segment mask in bits 8 to 12 */
} shfl_row;

/* Every lane asks for a lane of its own, a1; d1 says whether that lane exists. The manual's own pseudo-code. */
static void shfl_truth(const form *f, const uint32_t *x, uint32_t *y, double *slack) {
  const shfl_row *r = f->more;
  int segment = r->clamp >> 8 & 31, clamp = r->clamp & 31;
  for (int lane = 0; lane < LANES; lane++) {
    int b = x[2 * lane + 1] & 31, most = (lane & segment) | (clamp & ~segment), least = lane & segment, from;
    bool there;
    if (!strcmp(r->mode, "up")) from = lane - b, there = from >= most;
    else if (!strcmp(r->mode, "down")) from = lane + b, there = from <= most;
    else if (!strcmp(r->mode, "bfly")) from = lane ^ b, there = from <= most;
    else from = least | (b & ~segment), there = from <= most;
    y[2 * lane] = x[2 * (there ? from : lane)];
    y[2 * lane + 1] = there;
  }
  exactly(f, slack);
}

static void add_shfl(form_list *l) {
  static const shfl_row rows[] = {
      {"up", 0},        {"up", 0x1800},   {"up", 0x1000},  {"up", 3},       {"down", 31},     {"down", 0x181f},
      {"down", 0x1c1f}, {"down", 0x1807}, {"down", 11},    {"bfly", 31},    {"bfly", 0x181f}, {"bfly", 0x100f},
      {"bfly", 20},     {"idx", 31},      {"idx", 0x181f}, {"idx", 0x1c1f}, {"idx", 0x1803},  {"idx", 9},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    const char *name = text("shfl.sync.%s.b32, c = 0x%x", rows[i].mode, rows[i].clamp);
    const char *body = text(".reg .pred p; shfl.sync.%s.b32 d0|p, a0, a1, 0x%x, -1; selp.u32 d1, 1, 0, p;",
                            rows[i].mode, rows[i].clamp);
    form_add(l, (form){.family = "shfl",
                       .name = name,
                       .text = body,
                       .least = 75,
                       .threads = LANES,
                       .in = 2,
                       .out = 2,
                       .draw = draw_any,
                       .truth = shfl_truth,
                       .more = &rows[i]});
  }
}

/* ---- Rows whose lanes all see all values ------------------------------------------------------------------------- */

typedef struct warp_row {
  const char *family, *text;
  int least, most, out;
  uint32_t keep; /* bits of the inputs that are drawn */
  void (*warp)(const uint32_t *x, int lane, uint32_t *d);
} warp_row;

static uint32_t ballot(const uint32_t *x, int lanes) {
  uint32_t set = 0;
  for (int i = 0; i < lanes; i++) set |= (x[i] & 1) << i;
  return set;
}
static void votes(const uint32_t *x, int lane, uint32_t *d) {
  uint32_t set = ballot(x, LANES);
  (void)lane;
  d[0] = set, d[1] = set != 0, d[2] = !~set, d[3] = !set || !~set;
}
static void some_vote(const uint32_t *x, int lane, uint32_t *d) { *d = lane < 20 ? ballot(x, 20) : 7; }
static uint32_t like(const uint32_t *x, uint32_t v) {
  uint32_t set = 0;
  for (int i = 0; i < LANES; i++) set |= (uint32_t)(x[i] == v) << i;
  return set;
}
static void matches(const uint32_t *x, int lane, uint32_t *d) {
  d[0] = like(x, x[lane]);
  d[1] = !~d[0] ? ~0u : 0, d[2] = !~d[0], d[3] = ~0u, d[4] = 1;
}
static void sums(const uint32_t *x, int lane, uint32_t *d) {
  (void)lane;
  d[0] = 0, d[1] = d[2] = *x, d[3] = d[4] = *x, d[5] = ~0u, d[6] = d[7] = 0;
  for (int i = 0; i < LANES; i++) {
    d[0] += x[i];
    d[1] = x[i] < d[1] ? x[i] : d[1], d[2] = x[i] > d[2] ? x[i] : d[2];
    d[3] = (int32_t)x[i] < (int32_t)d[3] ? x[i] : d[3], d[4] = (int32_t)x[i] > (int32_t)d[4] ? x[i] : d[4];
    d[5] &= x[i], d[6] |= x[i], d[7] ^= x[i];
  }
}
static void elected(const uint32_t *x, int lane, uint32_t *d) { (void)x, d[0] = lane == 0; }

static const warp_row rows[] = {
    {"vote",
     ".reg .pred p, q; .reg .b32 v; and.b32 v, a0, 1; setp.ne.u32 p, v, 0; vote.sync.ballot.b32 d0, p, -1; "
     "vote.sync.any.pred q, p, -1; selp.u32 d1, 1, 0, q; vote.sync.all.pred q, p, -1; selp.u32 d2, 1, 0, q; "
     "vote.sync.uni.pred q, p, -1; selp.u32 d3, 1, 0, q;",
     75, 0, 4, ~0u, votes},
    {"vote",
     ".reg .pred p, q; .reg .b32 v; and.b32 v, a0, 1; setp.ne.u32 p, v, 0; mov.u32 d0, 7; setp.lt.u32 q, t, 20; "
     "@!q bra SKIP; vote.sync.ballot.b32 d0, p, 0xfffff; SKIP:",
     75, 0, 1, ~0u, some_vote},
    {"match",
     ".reg .pred p; .reg .b32 v; match.any.sync.b32 d0, a0, -1; match.all.sync.b32 d1|p, a0, -1; "
     "selp.u32 d2, 1, 0, p; and.b32 v, a0, 0; match.all.sync.b32 d3|p, v, -1; selp.u32 d4, 1, 0, p;",
     75, 0, 5, 7, matches},
    {"redux",
     "redux.sync.add.u32 d0, a0, -1; redux.sync.min.u32 d1, a0, -1; redux.sync.max.u32 d2, a0, -1; "
     "redux.sync.min.s32 d3, a0, -1; redux.sync.max.s32 d4, a0, -1; redux.sync.and.b32 d5, a0, -1; "
     "redux.sync.or.b32 d6, a0, -1; redux.sync.xor.b32 d7, a0, -1;",
     80, 0, 8, 0xf00ff00f, sums},
    {"elect", ".reg .pred p; elect.sync _|p, -1; selp.u32 d0, 1, 0, p;", 90, 0, 1, ~0u, elected},
};
static const char *const names[] = {"vote.sync.ballot, any, all, uni", "vote.sync.ballot of twenty lanes",
                                    "match.any.sync.b32, match.all.sync.b32", "redux.sync.add, min, max, and, or, xor",
                                    "elect.sync"};

static void warp_truth(const form *f, const uint32_t *x, uint32_t *y, double *slack) {
  const warp_row *r = f->more;
  for (int lane = 0; lane < LANES; lane++) r->warp(x, lane, y + lane * f->out);
  exactly(f, slack);
}

static void draw_kept(const form *f, uint32_t *x, uint64_t *state) {
  const warp_row *r = f->more;
  for (int i = 0; i < form_x_words(f); i++) x[i] = draw_bits(state) & r->keep;
}

void forms_warp(form_list *l) {
  add_shfl(l);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    form_add(l, (form){.family = rows[i].family,
                       .name = names[i],
                       .text = rows[i].text,
                       .least = rows[i].least,
                       .most = rows[i].most,
                       .threads = LANES,
                       .in = 1,
                       .out = rows[i].out,
                       .draw = draw_kept,
                       .truth = warp_truth,
                       .more = &rows[i]});
}
