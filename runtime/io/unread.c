/* unread.c - layouts that exist and that no dialect reads, each by its name; and codes that nobody knows.
 *
 * Nothing quantized is passed over in silence: a tensor of codes that no dialect takes becomes a weight with a refusal.
 * What only a look at shapes or settings tells apart is refused by the dialect itself: its claim() fails, with the name
 * in the text. */
#include "model.h"
#include <stdlib.h>
#include <string.h>

/* ---- Telling them ------------------------------------------------------------------------------------------------ */

/* A layout is told by the suffix of the tensor that holds its codes, by one beside it, and by what the configuration
 * calls it. It is looked for before any dialect, so it must fit nothing that one reads. */
static const struct {
  const char *name, *codes, *beside, *called;
} layouts[] = {
    {"EXL2 (ExLlamaV2)", ".q_weight", ".q_scale", NULL},
    {"EXL3 (ExLlamaV3)", ".trellis", ".suh", NULL},
    {"EXL3 (ExLlamaV3)", ".trellis", ".su", NULL},
    {"QTIP", ".trellis", ".SU", NULL},
    {"QuIP#", ".Qidxs", NULL, NULL},
    {"AQLM", ".codes", ".codebooks", NULL},
    {"VPTQ", ".indices", ".centroids.weight", NULL},
    {"SpQR", ".dense_weights", ".row_offsets", NULL},
    {"SqueezeLLM", ".qweight", ".lookup_table", NULL},
    {"EETQ", ".qweight", ".weight_scales", NULL},
    {"EETQ", ".weight", ".weight_scales", NULL},
    {"OneBit", ".weight", ".weight_scale", "onebit"},
    {"FP-Quant", ".qweight", ".forward_hadamard_matrix", NULL},
    {"HIGGS (FLUTE)", ".weight", ".tables", NULL},
    {"Marlin", ".B", ".s", NULL},
    {"Marlin 2:4", ".B_24", ".B_meta", NULL},
    {"Marlin 2:4 (compressed-tensors marlin-24)", ".weight_packed", ".meta", NULL},
    {"compressed-tensors with a bitmask (sparse)", ".weight.compressed", ".weight.bitmask", NULL},
    {"compressed-tensors with a bitmask (sparse)", ".compressed", ".bitmask", NULL},
    {"MXFP6 (compressed-tensors)", ".weight_packed", ".weight_scale", "mxfp6-pack-quantized"},
    {"QQQ", ".B", ".s_channel", NULL},
    {"quanto", ".weight._data", ".weight._scale", NULL},
    {"torchao", "._weight_qdata", NULL, NULL},
    {"torchao", ".weight:qdata", NULL, NULL},
    {"TensorRT-LLM", ".weight", ".weights_scaling_factor", NULL},
    {"TensorRT-LLM", ".weight", ".per_channel_scale", NULL},
};

/* The name of the layout whose codes the tensor `name` holds, or NULL; *stem: how much of the name is the layer's. */
static const char *find_layout(const qn_model *m, const char *name, size_t *stem) {
  for (size_t i = 0; i < QN_COUNT(layouts); i++) {
    size_t n = strlen(name), k = strlen(layouts[i].codes);
    bool fits = n > k && !strcmp(name + n - k, layouts[i].codes);
    if (!fits || (layouts[i].beside && !qn__sibling(m, name, n - k, layouts[i].beside))) continue;
    if (layouts[i].called && !qn__quant_is(m, layouts[i].called)) continue;
    *stem = n - k;
    return layouts[i].name;
  }
  return NULL;
}

/* Does it look like codes, whatever the layout? */
static bool holds_codes(const qn__stored *s) {
  static const char *const numbers[] = {"F16", "BF16", "F32", "F64", "C64"}, *const wide[] = {"BOOL", "I64", "U64"},
                           *const tables[] = {"position", "token_type", "tid2eid", "mask", "bias", "expert_map"};
  const char *dot = strrchr(s->pub.name, '.'), *leaf = dot ? dot : s->pub.name;
  for (size_t i = 0; i < QN_COUNT(numbers); i++)
    if (!strcmp(s->dtype->name, numbers[i])) return false;
  for (size_t i = 0; i < QN_COUNT(tables); i++)
    if (strstr(leaf, tables[i])) return false;
  for (size_t i = 0; i < QN_COUNT(wide); i++) /* indices and masks, if the name does not say otherwise */
    if (!strcmp(s->dtype->name, wide[i])) return s->pub.bytes && s->pub.n_dims > 1 && strstr(leaf, "weight");
  return s->pub.bytes && (s->pub.n_dims > 1 || s->dtype->elems > 1 || strstr(leaf, "weight")); /* U8 [bytes] */
}

/* ---- Refusing them ----------------------------------------------------------------------------------------------- */

static const qn__dialect unread = {.name = "unread", .key = "", .weight = ""};

static int by_name(const void *a, const void *b) {
  const qn__stored *const *x = a, *const *y = b;
  return strcmp((*x)->pub.name, (*y)->pub.name);
}

/* The first of the sorted tensors whose name is not before `name`. */
static size_t first_from(const qn_model *m, const char *name, size_t length) {
  size_t low = 0, high = m->n_stored;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (strncmp(m->by_name[middle]->pub.name, name, length) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

enum { NEAR = 64 }; /* the tensors of a layer are neighbours by name; the limit keeps hostile files cheap */

/* What the name of a layer is: that of its codes; that of a module whose tensors, or all below, are its parts. */
typedef enum layer { OWN, MODULE, WHOLE_MODULE } layer;

/* Tensor t, whose name begins with the layer's, is a part of it: a scale or the like, but no bias and no codes of
 * another. */
static bool is_part(const qn__stored *t, size_t stem, layer kind, const qn_raw *codes) {
  const char *rest = t->pub.name + stem;
  size_t n = strlen(rest);
  if (t->pub.weight || (*rest != '.' && (*rest != '_' || kind != OWN))) return false;
  if (n >= 4 && !strcmp(rest + n - 4, "bias")) return false;
  return kind == WHOLE_MODULE || (!strchr(rest + 1, '.') && (!holds_codes(t) || t->pub.bytes <= codes->bytes / 8));
}

/* A weight that is listed, and refused: the tensors of its layer are its parts. */
static qn_status refuse(qn_model *m, const qn_raw *codes, const char *name, size_t stem, layer kind) {
  qn__weight *w = &m->weight[m->n_weights++];
  *w = (qn__weight){.dialect = &unread, .part = {codes}, .pub = {.dialect = unread.name, .raw = codes, .slices = 1}};
  w->pub.name = name;
  w->pub.quantized = true;
  w->pub.refusal = qn__arena_print(&m->arena, "%s", qn__errmsg());
  if (!name || !w->pub.refusal) return qn__fail(QN_E_NOMEM, "no memory for a weight's name");
  ((qn_raw *)(uintptr_t)codes)->weight = name;
  w->pub.bytes = codes->bytes;
  size_t first = first_from(m, codes->name, stem);
  for (size_t i = first; i < m->n_stored && i < first + NEAR; i++) {
    qn__stored *t = m->by_name[i];
    if (strncmp(t->pub.name, codes->name, stem)) break;
    if (!is_part(t, stem, kind, codes)) continue;
    t->pub.weight = name;
    w->pub.bytes += t->pub.bytes;
  }
  return QN_OK;
}

qn_status qn__refuse_layouts(qn_model *m) {
  m->by_name = malloc((m->n_stored + 1) * sizeof *m->by_name);
  if (!m->by_name) return qn__fail(QN_E_NOMEM, "no memory for %zu names", m->n_stored);
  for (size_t i = 0; i < m->n_stored; i++) m->by_name[i] = &m->stored[i];
  qsort(m->by_name, m->n_stored, sizeof *m->by_name, by_name);
  for (size_t i = 0, stem; i < m->n_stored; i++) {
    const qn_raw *codes = &m->stored[i].pub;
    const char *layout = codes->weight ? NULL : find_layout(m, codes->name, &stem);
    if (!layout) continue;
    qn__fail(QN_E_SHAPE, "%s is a layout that is not read; take the weights unquantized, or in another layout", layout);
    const char *name = qn__arena_print(&m->arena, "%.*s.weight", (int)stem, codes->name);
    QN_TRY(refuse(m, codes, name, stem, WHOLE_MODULE));
  }
  return QN_OK;
}

/* Codes of nobody's: the layer is the module of "NAME.weight", else NAME where there are NAME_scale or the like, else
 * the module. */
static layer layer_of(const qn_model *m, const qn_raw *codes, size_t *stem) {
  size_t n = strlen(codes->name), next = first_from(m, codes->name, n) + 1;
  const char *dot = strrchr(codes->name, '.'), *after = next < m->n_stored ? m->by_name[next]->pub.name : "";
  bool followed = !strncmp(after, codes->name, n) && (after[n] == '.' || after[n] == '_');
  bool own = !dot || (followed && strcmp(dot, ".weight"));
  *stem = own ? n : (size_t)(dot - codes->name);
  return own ? OWN : MODULE;
}

static qn_status refuse_codes(qn_model *m, const qn_raw *codes, layer kind, size_t stem) {
  const char *quant = qn__quant_name(m);
  char shape[128];
  qn__shape_text(shape, sizeof shape, codes->n_dims, codes->dim);
  qn__fail(QN_E_SHAPE, "%s %s in a layout that no dialect reads%s%s%s", codes->dtype, shape,
           *quant ? "; the configuration calls it \"" : "", quant, *quant ? "\"" : "");
  return refuse(m, codes, codes->name, stem, kind);
}

static int largest_first(const void *a, const void *b) {
  const qn__stored *const *x = a, *const *y = b;
  if ((*x)->pub.bytes != (*y)->pub.bytes) return (*x)->pub.bytes < (*y)->pub.bytes ? 1 : -1;
  return by_name(a, b);
}

/* Who has parts by its own name comes before a module, the largest first: a scale of 8 bits is a part of its codes. */
qn_status qn__refuse_codes(qn_model *m) {
  qn__stored **list = malloc((m->n_stored + 1) * sizeof *list);
  if (!list) return qn__fail(QN_E_NOMEM, "no memory for %zu weights", m->n_stored);
  qn_status s = QN_OK;
  size_t n = 0;
  for (size_t i = 0; i < m->n_stored; i++)
    if (!m->stored[i].pub.weight && holds_codes(&m->stored[i])) list[n++] = &m->stored[i];
  qsort(list, n, sizeof *list, largest_first);
  for (layer kind = OWN; kind <= MODULE; kind++)
    for (size_t i = 0, stem; !s && i < n; i++)
      if (!list[i]->pub.weight && layer_of(m, &list[i]->pub, &stem) == kind)
        s = refuse_codes(m, &list[i]->pub, kind, stem);
  free(list);
  return s;
}
