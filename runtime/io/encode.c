/* encode.c - the table of targets, what a format's name says, and what encode_*.c share. */
#include "encode.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const qn__repacker *const repackers[] = {&qn__encode_gptq, &qn__encode_gptq_v2, &qn__encode_awq,
                                                &qn__encode_ct,   &qn__encode_ct_int,  &qn__encode_ggml};

const char *qn__encode_target(size_t i) { return i < QN_COUNT(repackers) ? repackers[i]->to : NULL; }

/* ---- What a format's name says ----------------------------------------------------------------------------------- */

/* One word of it: "g64", "row", "tensor", "b128x128". Other words say what the planes show. */
static void take_word(qn__source *s, const char *word) {
  intmax_t rows, cols;
  int end = 0;
  if (sscanf(word, "g%jd%n", &cols, &end) == 1 && !word[end]) s->rows = 1, s->cols = cols, s->grouped = true;
  else if (!strcmp(word, "row")) s->rows = 1;
  else if (sscanf(word, "b%jdx%jd%n", &rows, &cols, &end) == 2 && !word[end]) s->rows = rows, s->cols = cols;
}

static qn_status describe(const qn_planes *p, qn__source *s) {
  char text[QN__FORMAT], *rest;
  *s = (qn__source){
      .p = p, .scale = qn_planes_find(p, "scale"), .zero = qn_planes_find(p, "zero"), .min = qn_planes_find(p, "min")};
  if (snprintf(text, sizeof text, "%s", p->format) >= (int)sizeof text)
    return qn__fail(QN_E_SHAPE, "the format's name is longer than any that is known");
  snprintf(s->base, sizeof s->base, "%s", strtok_r(text, ".", &rest));
  for (const char *word; (word = strtok_r(NULL, ".", &rest));) take_word(s, word);
  if (!strncmp(s->base, "int", 3) && s->base[3] >= '1' && s->base[3] <= '8' && !s->base[4]) s->bits = s->base[3] - '0';
  return QN_OK;
}

/* ---- For encode_*.c ---------------------------------------------------------------------------------------------- */

void qn__encode_part(qn__encoded *e, const char *name, const char *dtype, int n_dims, const int64_t *dim) {
  qn_save *part = &e->part[e->count++];
  *part = (qn_save){.name = name, .dtype = dtype, .n_dims = n_dims};
  memcpy(part->dim, dim, (size_t)n_dims * sizeof *dim);
}

qn_status qn__encode_whole(const char *what, int64_t size, int64_t step) {
  return size % step ? qn__fail(QN_E_SHAPE, "%s = %jd is no multiple of %jd", what, (intmax_t)size, (intmax_t)step)
                     : QN_OK;
}

qn_status qn__encode_scales(const qn__source *s) {
  const qn_type t = s->scale->type;
  return t == QN_T_F16 || t == QN_T_BF16
             ? QN_OK
             : qn__fail(QN_E_SHAPE, "its scales are %s; f16 and bf16 are held", qn_type_name(t));
}

/* ---- All of it --------------------------------------------------------------------------------------------------- */

void qn__encoded_free(qn__encoded *e) { free(e); }

/* A copy of e, with room for the parts behind it if there is to be data. */
static qn_status take_room(const qn__encoded *e, bool data, qn__encoded **out) {
  enum { ALIGN = 16 };
  size_t at[QN__PARTS], total = (sizeof *e + ALIGN - 1) / ALIGN * ALIGN;
  for (int i = 0; data && i < e->count; i++) {
    at[i] = total;
    total += (e->bytes[i] + ALIGN - 1) / ALIGN * ALIGN;
  }
  if (!(*out = calloc(1, total))) return qn__fail(QN_E_NOMEM, "no memory for %zu bytes of packed planes", total);
  **out = *e;
  for (int i = 0; data && i < e->count; i++) (*out)->part[i].data = (char *)*out + at[i];
  return QN_OK;
}

static qn_status measure(qn__encoded *e) {
  for (int i = 0; i < e->count; i++) {
    const qn_save *part = &e->part[i];
    uint64_t bytes;
    if (!qn__dtype_bytes(qn__dtype_named(part->dtype, !strcmp(e->dialect, "gguf")), part->dim, part->n_dims, &bytes))
      return qn__fail(QN_E_LIMIT, "%s: its shape overflows", part->name);
    e->bytes[i] = bytes;
  }
  return QN_OK;
}

qn_status qn__encode(const char *to, const qn_planes *p, bool data, qn__encoded **out) {
  size_t i = 0;
  qn__source s;
  *out = NULL;
  while (i < QN_COUNT(repackers) && strcmp(repackers[i]->to, to)) i++;
  if (i == QN_COUNT(repackers)) return qn__fail(QN_E_ARG, "%s: no such target", to);
  QN_TRY(describe(p, &s));
  qn__encoded e = {.dialect = repackers[i]->dialect};
  QN_TRY(repackers[i]->shape(&s, &e));
  QN_TRY(measure(&e));
  QN_TRY(take_room(&e, data, out));
  qn_status status = data ? repackers[i]->fill(&s, *out) : QN_OK;
  if (status) qn__encoded_free(*out), *out = NULL;
  return status;
}
