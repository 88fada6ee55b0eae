/* dialect_planes.c - the neutral form itself, as `quernel convert` and `quernel quantize` write it.
 *
 *     NAME.codes U8 | U16 | U32 [N, K]     NAME.PLANE [rows, cols], each plane of the format     NAME.perm I32 [K]
 *
 * A stack of matrices has one dimension more, the first. The header's metadata says what they are: under
 * "quernel.planes" the version, 1, and under the weight's name its format, then each plane and the bits that an element
 * of it needs:
 *
 *     "model.layers.0.mlp.up_proj.weight": "int4.g64.z codes:4 scale:16 zero:4"
 *     "model.layers.1.mlp.up_proj.weight": "int8.row codes:8 scale:16 @i8.row"      @ its activation, if it has one
 *
 * NAME is the weight's name without ".weight" at its end. "quernel.tied" names the head of a tied model.
 * Of a format without planes beside the codes there is NAME.weight instead, [N, K] whatever order the architecture
 * has. */
#include "model.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char key[] = ".codes";

static size_t stem(const qn__weight *w) { return strlen(w->part[0]->name) - strlen(key); }

/* What the header says of the weight that these codes are of. */
static const qn_meta *description(const qn_model *m, const qn__weight *w) {
  char name[4200];
  int n = snprintf(name, sizeof name, "%.*s.weight", (int)stem(w), w->part[0]->name);
  if (n >= (int)sizeof name) return NULL;
  const qn_meta *v = qn_model_find_meta(m, name);
  if (v) return v;
  name[stem(w)] = 0;
  return qn_model_find_meta(m, name);
}

static bool match(const qn_model *m, const qn__weight *w) {
  return !m->gguf && qn_model_find_meta(m, "quernel.planes") && description(m, w);
}

/* The matrix, or stack of them, in part i. */
static qn_status take_shape(const qn__weight *w, int i, int64_t *rows, int64_t *cols) {
  const qn_raw *r = w->part[i];
  int extra = w->part[0]->n_dims - 2, n_dims = strcmp(strrchr(r->name, '.'), ".perm") ? 2 : 1;
  if (r->type == QN_T_NONE || r->n_dims != n_dims + extra || (extra && r->dim[0] != w->pub.slices))
    return qn__fail(QN_E_FORMAT, "%s: %s of %d dimensions is not a plane of %s", r->name, r->dtype, r->n_dims,
                    w->pub.name);
  *rows = n_dims == 2 ? r->dim[extra] : 1;
  *cols = r->dim[extra + n_dims - 1];
  return QN_OK;
}

/* One word, "scale:16", as part i. */
static qn_status take_plane(const qn_model *m, qn__weight *w, int i, const char *word) {
  char suffix[32];
  unsigned bits;
  int64_t rows, cols;
  if (sscanf(word, "%30[^:]:%2u", suffix + 1, &bits) != 2 || bits < 1 || bits > 64 || i == QN__PARTS)
    return qn__fail(QN_E_FORMAT, "%s: \"%s\" is no plane and its bits, or one too many", w->pub.name, word);
  *suffix = '.';
  if (!i != !strcmp(suffix, key)) return qn__fail(QN_E_FORMAT, "%s: the codes are not its first plane", w->pub.name);
  w->part[i] = qn__sibling(m, w->part[0]->name, stem(w), suffix);
  if (!w->part[i]) return qn__fail(QN_E_FORMAT, "%s: no %s beside its codes", w->pub.name, suffix);
  QN_TRY(take_shape(w, i, &rows, &cols));
  uint64_t count = w->part[i]->bytes / (uint64_t)(qn_type_bits(w->part[i]->type) / 8);
  w->pub.bytes += (count * bits + 7) / 8;
  return QN_OK;
}

static qn_status claim(const qn_model *m, qn__weight *w) {
  const qn_meta *v = description(m, w);
  const qn_meta *version = qn_model_find_meta(m, "quernel.planes");
  const qn_raw *codes = w->part[0];
  char text[4200], *rest, *word;
  memcpy(text, v->data, v->count + 1); /* shorter than 4 kB, and terminated */
  w->pub.name = v->key;
  if (strcmp(version->data, "1"))
    return qn__fail(QN_E_SHAPE, "%s: neutral planes of version %s; 1 is read", w->pub.name,
                    (const char *)version->data);
  if (codes->n_dims < 2 || codes->n_dims > 3)
    return qn__fail(QN_E_FORMAT, "%s: %d dimensions", codes->name, codes->n_dims);
  w->pub.slices = codes->n_dims == 3 ? codes->dim[0] : 1;
  QN_TRY(take_shape(w, 0, &w->pub.n, &w->pub.k));
  word = strtok_r(text, " ", &rest);
  if (!word || strlen(word) >= sizeof w->format)
    return qn__fail(QN_E_FORMAT, "%s: the header names no format for it", w->pub.name);
  memcpy(w->format, word, strlen(word) + 1);
  int i = 0;
  while ((word = strtok_r(NULL, " ", &rest)) && *word != '@') QN_TRY(take_plane(m, w, i++, word));
  if (word) w->pub.activation = (const char *)v->data + (word + 1 - text); /* the rest of it */
  return i ? QN_OK : qn__fail(QN_E_FORMAT, "%s: the header names no planes", w->pub.name);
}

/* Are the k numbers 0 .. k - 1 in some order? */
static qn_status check_order(const qn__weight *w, const int32_t *perm) {
  int64_t k = w->pub.k, j = 0;
  bool *seen = calloc((size_t)k, sizeof *seen);
  if (!seen) return qn__fail(QN_E_NOMEM, "%s: an order of %jd", w->pub.name, (intmax_t)k);
  while (j < k && perm[j] >= 0 && perm[j] < k && !seen[perm[j]]) seen[perm[j++]] = true;
  free(seen);
  return j == k ? QN_OK
                : qn__fail(QN_E_FORMAT, "%s: perm[%jd] = %d is there twice or not below %jd", w->pub.name, (intmax_t)j,
                           perm[j], (intmax_t)k);
}

static qn_status read(const qn__weight *w, int64_t slice, qn_planes **out) {
  qn__spec spec[QN__PARTS];
  const uint8_t *perm = NULL;
  int count = 0;
  for (int i = 0; i < QN__PARTS && w->part[i]; i++) {
    const qn_raw *r = w->part[i];
    const char *name = r->name + stem(w) + 1;
    const uint8_t *data = (const uint8_t *)r->data + (uint64_t)slice * (r->bytes / (uint64_t)w->pub.slices);
    int64_t rows, cols;
    QN_TRY(take_shape(w, i, &rows, &cols));
    if (strcmp(name, "perm")) spec[count++] = (qn__spec){name, r->type, rows, cols, data};
    else perm = data;
    if (perm == data && (r->type != QN_T_I32 || cols != w->pub.k))
      return qn__fail(QN_E_FORMAT, "%s: %s[%jd] is not an order of %jd columns", r->name, r->dtype, (intmax_t)cols,
                      (intmax_t)w->pub.k);
  }
  if (count > QN_MAX_PLANES) return qn__fail(QN_E_FORMAT, "%s: more than %d planes", w->pub.name, QN_MAX_PLANES);
  QN_TRY(qn__planes_new(w, spec, count, perm, out));
  if (!perm) return QN_OK;
  int32_t *to = (int32_t *)(uintptr_t)(*out)->perm;
  memcpy(to, perm, (size_t)w->pub.k * sizeof *to);
  qn_status s = check_order(w, to);
  if (s) qn_planes_free(*out), *out = NULL;
  return s;
}

const qn__dialect qn__planes = {"planes", key, {NULL}, ".weight", match, claim, read};
