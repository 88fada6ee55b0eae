/* overlap.c - how much of a text another one holds: runs of QN_RUN ids, by their hashes. */
#include "fail.h"
#include "text.h"
#include <stdlib.h>
#include <string.h>

typedef struct run {
  uint64_t hash;
  int64_t at;
} run;

static uint64_t hash_run(const int32_t *id) {
  uint64_t h = 0;
  for (int i = 0; i < QN_RUN; i++) h = (h ^ (uint32_t)id[i]) * 0x9e3779b97f4a7c15u, h ^= h >> 29;
  return h;
}

static int by_hash(const void *a, const void *b) {
  const run *x = a, *y = b;
  return x->hash != y->hash ? x->hash < y->hash ? -1 : 1 : x->at < y->at ? -1 : x->at > y->at;
}

static int64_t runs_of(const qn__ids *ids) { return ids->n >= QN_RUN ? ids->n - QN_RUN + 1 : 0; }

/* The first run of that hash; NULL: there is none. */
static const run *find(const run *list, int64_t n, uint64_t hash) {
  int64_t low = 0;
  for (int64_t high = n; low < high;) {
    int64_t middle = low + (high - low) / 2;
    if (list[middle].hash < hash) low = middle + 1;
    else high = middle;
  }
  return low < n && list[low].hash == hash ? &list[low] : NULL;
}

qn_status qn__overlap_measure(const qn__ids *before, const qn__ids *text, qn__overlap *out) {
  int64_t n = runs_of(before);
  *out = (qn__overlap){.runs = runs_of(text)};
  run *list = n ? malloc((size_t)n * sizeof *list) : NULL;
  if (n && !list) return qn__fail(QN_E_NOMEM, "no memory to compare %jd ids", (intmax_t)before->n);
  for (int64_t i = 0; i < n; i++) list[i] = (run){hash_run(before->id + i), i};
  if (n) qsort(list, (size_t)n, sizeof *list, by_hash);
  for (int64_t i = 0; i < out->runs; i++) {
    const run *r = find(list, n, hash_run(text->id + i));
    if (r && !out->seen++) out->at = i, out->from = r->at;
  }
  free(list);
  return QN_OK;
}
