/* layout_pack.c - planes into packed bytes, record by record, on all threads of a device.
 *
 * What a field of a record holds is first copied by rows into a block. There the rest of a tile at the edge is padding,
 * rows that are paired lie in the layout's order, and what several weights share stands for itself. From the block,
 * words of 32 bits are put together. As a rule each word of a field takes its elements from the same places relative to
 * the first of them. Then a word is a few moves, each of which loads 4 bytes, masks and shifts: 4-bit codes of 8 values
 * of k, for example, take two moves where the second four are the high nibbles of the first four. One move is made for
 * many words at a time, which vectorises. Fields without the rule, or with a width that does not divide 32, go element
 * by element.
 *
 * Nothing here knows a format or a kernel. */
#include "clones.h"
#include "convert.h"
#include "device.h"
#include "fail.h"
#include "heap.h"
#include "layout.h"
#include <string.h>

#define AHEAD 512      /* bytes of a plane's row that are fetched before they are wanted */
#define WORD 32        /* bits */
#define BLOCK_SLACK 64 /* a move loads 4 bytes where an element may have 1, and threads share no cache line */

/* Bits of what a word loads, and by how much they are shifted to their place in it. One of the shifts is 0. */
typedef struct move {
  uint32_t load, mask, left, right;
} move;

/* A field ready to be packed: the plane that it is of, the block, and how its elements or words come from there. */
typedef struct track {
  const qn_field *field;
  const char *data; /* the plane's */
  qn_type from, to;
  int size;              /* bytes of an element of the block */
  int64_t rows, cols;    /* weights that share an element of the plane */
  int64_t length, pitch; /* elements and bytes of its row */
  int64_t half;          /* rows of the layout are pairs of those of the weight, this far apart; 0: they are the same */
  uint32_t pad;
  int64_t count, high, wide; /* elements; rows and columns of the block */
  bool runs;                 /* columns of the block follow one another in the plane */
  bool filled;               /* the field before this one has the same block */
  int32_t *n, *k;            /* [high] and [wide]: places of the block's rows and columns in the record */
  int32_t *at;               /* bytes in the block: [count] of an element, or of each word's first */
  int64_t bytes, n_words;    /* of the field; 0 words: it goes element by element */
  uint32_t n_loads, n_moves; /* of a word */
  int32_t load[WORD];        /* bytes from the word's first element in the block */
  move move[WORD];
} track;

/* ---- The program of a field -------------------------------------------------------------------------------------- */

/* How far apart in the block neighbours of digit i are, in rows or columns: these are sorted as the digits' strides
 * are. */
static int64_t spacing(const qn_field *f, uint32_t i) {
  const qn_digit *d = f->digit;
  int64_t s = 1;
  for (uint32_t j = 0; j < f->n_digits; j++)
    if (d[j].axis == d[i].axis && (d[j].stride < d[i].stride || (d[j].stride == d[i].stride && j > i))) s *= d[j].size;
  return s;
}

/* Of each element of the field, in memory order: its row and column in the block, and where these are in the record. */
static void tabulate(track *t) {
  const qn_field *f = t->field;
  int64_t space[QN_LAYOUT_DIGITS];
  for (uint32_t j = 0; j < f->n_digits; j++) space[j] = spacing(f, j);
  for (int64_t i = 0; i < t->count; i++) {
    int64_t place[2] = {0}, block[2] = {0};
    uint32_t rest = (uint32_t)i;
    for (uint32_t j = f->n_digits; j-- > 0; rest /= f->digit[j].size) {
      int64_t value = rest % f->digit[j].size;
      place[f->digit[j].axis] += value * f->digit[j].stride;
      block[f->digit[j].axis] += value * space[j];
    }
    t->n[block[0]] = (int32_t)place[0], t->k[block[1]] = (int32_t)place[1];
    t->at[i] = (int32_t)(block[0] * t->wide + block[1]) * t->size;
  }
}

/* Does each word take its elements, `of` in number, from the same places relative to its first? */
static bool words_alike(const track *t, int64_t of) {
  for (int64_t i = 0; i < t->count; i++)
    if (t->at[i] - t->at[i - i % of] != t->at[i % of] - t->at[0]) return false;
  return t->count % of == 0;
}

/* A load of a word that has the element at byte `at` from the word's first: one that is there, or a new one. */
static uint32_t add_load(track *t, int32_t at) {
  uint32_t i = 0;
  while (i < t->n_loads && (at < t->load[i] || at + t->size > t->load[i] + WORD / 8)) i++;
  if (i == t->n_loads) t->load[t->n_loads++] = at;
  return i;
}

/* Bring an element's bits to bit `to` of a word, by a move that is there or a new one. */
static void add_move(track *t, int32_t at, int32_t to) {
  uint32_t load = add_load(t, at), i = 0;
  int32_t from = (at - t->load[load]) * 8 + (int32_t)t->field->lo, shift = to - from;
  move m = {load, 0, shift > 0 ? (uint32_t)shift : 0, shift < 0 ? (uint32_t)-shift : 0};
  while (i < t->n_moves && (t->move[i].load != load || t->move[i].left != m.left || t->move[i].right != m.right)) i++;
  if (i == t->n_moves) t->move[t->n_moves++] = m;
  t->move[i].mask |= (uint32_t)((UINT64_C(1) << t->field->bits) - 1) << from;
}

static void make_moves(track *t) {
  int32_t bits = (int32_t)t->field->bits, of = WORD / bits;
  if (WORD % bits || !words_alike(t, of)) return;
  for (int32_t i = 0; i < of; i++) add_move(t, t->at[i] - t->at[0], i * bits);
  t->n_words = t->count / of;
  for (int64_t i = 0; i < t->n_words; i++) t->at[i] = t->at[i * of];
}

static int64_t numbers(const track *t) { return t->high + t->wide + t->count; }

static qn_status track_init(const qn_allocator *heap, track *t, const qn_layout *l, const qn_format *f,
                            const qn_field *field, const qn_planes *p) {
  const qn_plane *plane = qn__planes_find(f, p, field->plane);
  const qn_format_plane *spec = field->plane ? &f->plane[field->plane - 1] : NULL;
  if (!plane || !plane->data) return qn__fail(QN_E_ARG, "layout '%s': plane %u is missing", l->name, field->plane);
  *t = (track){.field = field, .data = plane->data, .from = plane->type, .rows = 1, .cols = 1};
  t->length = plane->cols, t->pitch = plane->cols * qn_type_bits(plane->type) / 8;
  if (spec) t->rows = spec->rows ? spec->rows : p->n, t->cols = spec->cols ? spec->cols : p->k;
  t->to = spec ? (qn_type)field->type : plane->type;
  t->size = qn_type_bits(t->to) / 8;
  t->half = l->pairs ? p->n / 2 : 0;
  t->bytes = qn__field_bytes(field);
  t->pad = spec ? 0 : l->pad_code;
  t->count = qn__field_elements(field), t->high = t->wide = 1;
  for (uint32_t i = 0; i < field->n_digits; i++) *(field->digit[i].axis ? &t->wide : &t->high) *= field->digit[i].size;
  if (!(t->n = qn__alloc(heap, (size_t)numbers(t) * sizeof *t->n)))
    return qn__fail(QN_E_NOMEM, "layout '%s': %lld places", l->name, (long long)numbers(t));
  t->k = t->n + t->high, t->at = t->k + t->wide;
  tabulate(t);
  t->runs = t->from == t->to;
  for (int64_t i = 0; i < t->wide; i++) t->runs = t->runs && t->k[i] == i * t->cols;
  make_moves(t);
  return QN_OK;
}

/* ---- The block --------------------------------------------------------------------------------------------------- */

/* Element i of a row of the plane, or padding where i is negative, to a place of the block. */
static void put(const track *t, const char *row, int64_t i, char *to) {
  if (i < 0) qn__copy(to, &t->pad, t->size); /* little-endian */
  else if (t->from == t->to) qn__copy(to, row + i * t->size, t->size);
  else qn__store_f64(t->to, to, 0, qn__load_f64(t->from, row, i));
}

/* The plane's row of row n of the layout. */
static const char *row_of(const track *t, int64_t n) {
  if (t->half) n = n / 2 + n % 2 * t->half;
  return t->data + (t->rows > 1 ? n / t->rows : n) * t->pitch;
}

/* Fill the block for the record at (n0, k0). */
static void fill_block(const track *t, const qn_planes *p, int64_t n0, int64_t k0, char *block) {
  int64_t col = k0 / t->cols, there = t->length - col, run = 0;
  if (t->runs && k0 % t->cols == 0 && there > 0) run = there < t->wide ? there : t->wide;
  for (int64_t i = 0; i < t->high; i++, block += t->wide * t->size) {
    int64_t n = n0 + t->n[i];
    bool here = n < p->n;
    const char *row = here ? row_of(t, n) : NULL;
    if (here && run) {
      const char *from = row + col * t->size;
      /* The row may fill a page, beyond which the CPU itself does not look ahead. */
      __builtin_prefetch((const void *)((uintptr_t)from + AHEAD));
      qn__copy(block, from, run * t->size);
    }
    for (int64_t j = here ? run : 0; j < t->wide; j++) {
      int64_t k = k0 + t->k[j];
      put(t, row, here && k < p->k ? k / t->cols : -1, block + j * t->size);
    }
  }
}

/* ---- From the block ---------------------------------------------------------------------------------------------- */

typedef uint32_t lanes __attribute__((vector_size(64)));
enum { LANES = sizeof(lanes) / sizeof(uint32_t), MANY = 8 * LANES }; /* words, of a vector and at a time */

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Everything is loaded before the first move: a vector of words that were just written would wait for each. */
QN__CLONES static void pack_words(const track *t, const char *block, uint8_t *dst) {
  union {
    uint32_t word[MANY];
    lanes lanes[MANY / LANES];
  } x[WORD];
  for (int64_t i = 0; i < t->n_words; i += MANY) {
    int64_t many = least(t->n_words - i, MANY);
    for (uint32_t j = 0; j < t->n_loads; j++)
      for (int64_t u = 0; u < many; u++) memcpy(&x[j].word[u], block + t->at[i + u] + t->load[j], sizeof *x->word);
    for (int64_t u = 0; u < many; u += LANES, dst += sizeof(lanes)) {
      lanes w = {0};
      for (const move *m = t->move; m < t->move + t->n_moves; m++)
        w |= (x[m->load].lanes[u / LANES] & m->mask) << m->left >> m->right;
      if (many - u >= LANES) memcpy(dst, &w, sizeof w);
      else memcpy(dst, &w, (size_t)(many - u) * sizeof *x->word);
    }
  }
}

static void pack_elements(const track *t, const char *block, uint8_t *dst) {
  uint64_t acc = 0, mask = (UINT64_C(1) << t->field->bits) - 1;
  unsigned fill = 0;
  for (int64_t i = 0; i < t->count; i++) {
    uint32_t v = 0;
    memcpy(&v, block + t->at[i], (size_t)t->size);
    acc |= (v >> t->field->lo & mask) << fill;
    for (fill += t->field->bits; fill >= 8; fill -= 8, acc >>= 8) *dst++ = (uint8_t)acc;
  }
  if (fill) *dst = (uint8_t)acc;
}

/* ---- Sections ---------------------------------------------------------------------------------------------------- */

typedef struct job {
  const qn_section *section;
  const qn_planes *planes;
  track track[QN_LAYOUT_FIELDS];
  int64_t size[4]; /* of the outer digits */
  int64_t record_bytes;
  uint8_t *dst;
  char *blocks; /* one a thread */
  size_t block_bytes;
} job;

static void pack_record(const job *j, int64_t record, char *block) {
  int64_t place[2] = {0}, rest = record;
  uint8_t *dst = j->dst + record * j->record_bytes;
  for (uint32_t i = j->section->n_outer; i-- > 0; rest /= j->size[i])
    place[j->section->outer[i].axis] += rest % j->size[i] * j->section->outer[i].stride;
  for (const track *t = j->track; t < j->track + j->section->n_fields; dst += t++->bytes) {
    if (!t->filled) fill_block(t, j->planes, place[0], place[1], block);
    if (t->n_words) pack_words(t, block, dst);
    else pack_elements(t, block, dst);
  }
}

static void pack_records(void *ud, int64_t begin, int64_t end, int32_t thread) {
  const job *j = ud;
  for (int64_t i = begin; i < end; i++) pack_record(j, i, j->blocks + (size_t)thread * j->block_bytes);
}

/* Do two fields in a row read the same block, as slices of codes do? */
static bool same_block(const track *a, const track *b) {
  size_t places = (size_t)(a->high + a->wide) * sizeof *a->n; /* of rows, then of columns */
  return a->field->plane == b->field->plane && a->to == b->to && a->high == b->high && a->wide == b->wide &&
         !memcmp(a->n, b->n, places);
}

static qn_status tracks_init(job *j, const qn_allocator *heap, const qn_layout *l, const qn_format *f) {
  for (uint32_t i = 0; i < j->section->n_fields; i++) {
    track *t = &j->track[i];
    QN_TRY(track_init(heap, t, l, f, &j->section->field[i], j->planes));
    t->filled = i && same_block(t - 1, t);
    size_t bytes = (size_t)(t->count * t->size) + BLOCK_SLACK;
    if (bytes > j->block_bytes) j->block_bytes = bytes;
  }
  return QN_OK;
}

/* Fills the section and zeroes what follows it, `bytes` in all. */
static qn_status pack_section(qn_device *d, const qn_layout *l, const qn_format *f, job *j, int64_t bytes) {
  const qn_allocator *heap = d ? d->heap : NULL;
  size_t threads = d && d->ops->share ? (size_t)d->host_threads : 1;
  int64_t records = 1;
  for (uint32_t i = 0; i < j->section->n_outer; i++)
    records *= j->size[i] = qn__digit_size(l, &j->section->outer[i], j->planes->n, j->planes->k);
  qn_status s = tracks_init(j, heap, l, f);
  if (!s && !(j->blocks = qn__alloc(heap, threads * j->block_bytes)))
    s = qn__fail(QN_E_NOMEM, "layout '%s': %zu blocks of %zu bytes", l->name, threads, j->block_bytes);
  if (!s && threads > 1) d->ops->share(d, pack_records, j, records);
  else if (!s) pack_records(j, 0, records, 0);
  qn__free(heap, j->blocks, threads * j->block_bytes);
  for (uint32_t i = 0; i < QN_LAYOUT_FIELDS; i++)
    qn__free(heap, j->track[i].n, (size_t)numbers(&j->track[i]) * sizeof(int32_t));
  if (!s) memset(j->dst + records * j->record_bytes, 0, (size_t)(bytes - records * j->record_bytes));
  return s;
}

qn_status qn__layout_pack(qn_device *d, const qn_layout *l, const qn_format *f, const qn_planes *p, void *dst) {
  for (uint32_t i = 0; i < l->n_sections; i++) {
    int64_t begin, end;
    QN_TRY(qn__layout_offset(l, (int)i, p->n, p->k, &begin));
    QN_TRY(qn__layout_offset(l, (int)i + 1, p->n, p->k, &end));
    job j = {.section = &l->section[i],
             .planes = p,
             .record_bytes = qn__record_bytes(&l->section[i]),
             .dst = (uint8_t *)dst + begin};
    QN_TRY(pack_section(d, l, f, &j, end - begin));
  }
  return QN_OK;
}
