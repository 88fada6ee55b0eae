/* desc_json.c - descriptors to and from JSON. Each reader takes its fields in the order of the struct and checks sizes
 * and names; then the descriptor as a whole is checked by what the runtime checks it with. */
#include "desc_json.h"
#include "fail.h"
#include "hash.h"
#include "json.h"
#include <float.h>
#include <math.h>
#include <string.h>

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

static qn_status bad(const char *what, const char *problem) {
  return qn__fail(QN_E_FORMAT, "descriptor: %s %s", what, problem);
}

static bool has(const cJSON *j, const char *key) { return qn__json_get(j, key) != NULL; }

static qn_status get_text(const cJSON *j, const char *key, char *out, size_t size) {
  const char *s = qn__json_text(j, key, NULL);
  if (!s) return bad(key, "is missing or no text");
  if (strlen(s) >= size) return bad(key, "is too long");
  memcpy(out, s, strlen(s) + 1);
  return QN_OK;
}

static qn_status as_uint(const cJSON *item, const char *what, uint32_t *out) {
  double x = cJSON_IsNumber(item) ? item->valuedouble : -1;
  if (!(x >= 0 && x <= 0xffffffffu && x == floor(x))) return bad(what, "is no whole number from 0 to 2^32 - 1");
  *out = (uint32_t)x;
  return QN_OK;
}

static qn_status get_uint(const cJSON *j, const char *key, uint32_t *out) {
  return as_uint(qn__json_get(j, key), key, out);
}

static qn_status get_type(const cJSON *j, const char *key, uint32_t *out) {
  const char *s = qn__json_text(j, key, NULL);
  *out = s ? qn_type_from_name(s) : QN_T_NONE;
  return s && (*out != QN_T_NONE || !strcmp(s, "none")) ? QN_OK : bad(key, "is no element type");
}

/* The array under `key`, with at most `most` items. */
static qn_status get_array(const cJSON *j, const char *key, uint32_t most, const cJSON **array, uint32_t *n) {
  *array = qn__json_get(j, key);
  if (!cJSON_IsArray(*array)) return bad(key, "is missing or no array");
  *n = (uint32_t)cJSON_GetArraySize(*array);
  return *n <= most ? QN_OK : bad(key, "has too many items");
}

static const struct {
  const char *text;
  int arity;
} operators[] = {
#define QN_X(name, text, arity) {text, arity},
    QN_EXPR_OP_MAP(QN_X)
#undef QN_X
};

typedef struct names {
  const char *name[16];
  uint32_t n;
} names;

static const names launch_names = {
#define QN_X(name, text) text,
    {QN_VAR_MAP(QN_X)},
#undef QN_X
    QN_VAR_COUNT};

static qn_status read_token(const cJSON *t, const names *vars, qn_expr_op *op) {
  *op = (qn_expr_op){0};
  if (cJSON_IsNumber(t)) {
    *op = (qn_expr_op){.code = QN_OP_CONST, .value = t->valuedouble};
    return QN_OK;
  }
  if (cJSON_IsObject(t)) {
    op->code = QN_OP_LOOKUP;
    return get_uint(t, "lookup", &op->arg);
  }
  const char *s = cJSON_GetStringValue(t);
  for (uint32_t i = 0; s && i < vars->n; i++)
    if (!strcmp(s, vars->name[i])) {
      *op = (qn_expr_op){.code = QN_OP_VAR, .arg = i};
      return QN_OK;
    }
  for (uint32_t i = 0; s && i < QN_COUNT(operators); i++)
    if (*operators[i].text && !strcmp(s, operators[i].text)) {
      op->code = i;
      return QN_OK;
    }
  return bad(s ? s : "a token", "is no number, variable or operator");
}

static qn_status read_expr(const cJSON *array, const names *vars, qn_pool *pool, qn_expr *out) {
  if (!cJSON_IsArray(array)) return bad("an expression", "is no array");
  *out = (qn_expr){.at = cJSON_GetArraySize(array) ? (uint16_t)pool->n : 0};
  const cJSON *t;
  cJSON_ArrayForEach(t, array) {
    if (pool->n == QN_POOL_OPS) return bad("an expression", "has too many tokens");
    QN_TRY(read_token(t, vars, &pool->op[pool->n++]));
    out->n++;
  }
  return QN_OK;
}

static qn_status read_plane(const cJSON *j, qn_format_plane *p) {
  QN_TRY(get_text(j, "name", p->name, sizeof p->name));
  QN_TRY(get_type(j, "type", &p->type));
  QN_TRY(get_uint(j, "max", &p->max));
  QN_TRY(get_uint(j, "rows", &p->rows));
  return get_uint(j, "cols", &p->cols);
}

static qn_status read_table(const cJSON *array, float table[QN_FORMAT_TABLE]) {
  const cJSON *x;
  int k = 0;
  if (!cJSON_IsArray(array)) return bad("tables", "need arrays of numbers");
  cJSON_ArrayForEach(x, array) {
    if (k == QN_FORMAT_TABLE || !cJSON_IsNumber(x) || !(fabs(x->valuedouble) <= FLT_MAX))
      return bad("tables", "need at most 256 numbers each, all of them floats");
    table[k++] = (float)x->valuedouble;
  }
  while (k < QN_FORMAT_TABLE) table[k++] = NAN; /* an index beyond the table is an error that shows */
  return QN_OK;
}

qn_status qn__format_from_json(const cJSON *j, qn_format *out) {
  const cJSON *planes, *tables, *item;
  names vars = {{"q"}, 1};
  memset(out, 0, sizeof *out);
  QN_TRY(get_text(j, "name", out->name, sizeof out->name));
  if (has(j, "implied")) QN_TRY(get_text(j, "implied", out->implied, sizeof out->implied));
  QN_TRY(get_uint(j, "bits", &out->bits));
  QN_TRY(get_type(j, "codes", &out->codes));
  QN_TRY(get_type(j, "float", &out->cast));
  QN_TRY(get_array(j, "planes", QN_FORMAT_PLANES, &planes, &out->n_planes));
  QN_TRY(get_array(j, "tables", QN_COUNT(out->table), &tables, &out->n_tables));
  uint32_t i = 0;
  cJSON_ArrayForEach(item, planes) {
    QN_TRY(read_plane(item, &out->plane[i]));
    vars.name[vars.n++] = out->plane[i++].name;
  }
  i = 0;
  cJSON_ArrayForEach(item, tables) QN_TRY(read_table(item, out->table[i++]));
  qn_expr rule;
  QN_TRY(read_expr(qn__json_get(j, "decode"), &vars, &out->decode, &rule));
  return qn__format_check(out);
}

static qn_status read_digits(const cJSON *j, const char *key, uint32_t most, qn_digit *digit, uint32_t *n) {
  const cJSON *array, *d;
  QN_TRY(get_array(j, key, most, &array, n));
  cJSON_ArrayForEach(d, array) {
    const char *axis = cJSON_GetStringValue(cJSON_GetArrayItem(d, 0));
    if (!axis || (strcmp(axis, "n") && strcmp(axis, "k")) || cJSON_GetArraySize(d) != 3)
      return bad(key, "needs digits [\"n\" or \"k\", size, stride]");
    digit->axis = *axis == 'k';
    QN_TRY(as_uint(cJSON_GetArrayItem(d, 1), key, &digit->size));
    QN_TRY(as_uint(cJSON_GetArrayItem(d, 2), key, &digit->stride));
    digit++;
  }
  return QN_OK;
}

static qn_status read_field(const cJSON *j, const qn_format *f, qn_field *out) {
  char plane[16];
  QN_TRY(get_text(j, "plane", plane, sizeof plane));
  out->plane = strcmp(plane, "codes") ? UINT32_MAX : 0;
  for (uint32_t i = 0; i < f->n_planes; i++)
    if (!strcmp(plane, f->plane[i].name)) out->plane = 1 + i;
  if (out->plane == UINT32_MAX) return bad(plane, "is no plane of the format");
  out->type = f->codes;
  if (out->plane || has(j, "type")) QN_TRY(get_type(j, "type", &out->type));
  if (has(j, "lo")) QN_TRY(get_uint(j, "lo", &out->lo));
  QN_TRY(get_uint(j, "bits", &out->bits));
  return read_digits(j, "digits", QN_LAYOUT_DIGITS, out->digit, &out->n_digits);
}

/* The hash is that of the layout as we write it, whatever order it was read in. */
static qn_status hash_layout(qn_layout *l, const qn_format *f) {
  cJSON *j = qn__layout_to_json(l, f);
  char *text = cJSON_PrintUnformatted(j);
  cJSON_Delete(j);
  if (!text) return qn__fail(QN_E_NOMEM, "no memory for the layout %s", l->name);
  qn__hash_hex(text, strlen(text), l->hash);
  cJSON_free(text);
  return QN_OK;
}

qn_status qn__layout_from_json(const cJSON *j, const qn_format *f, qn_layout *out) {
  const cJSON *tile, *sections, *s, *x;
  uint32_t n;
  memset(out, 0, sizeof *out);
  QN_TRY(get_text(j, "name", out->name, sizeof out->name));
  QN_TRY(get_array(j, "tile", 2, &tile, &n));
  QN_TRY(as_uint(cJSON_GetArrayItem(tile, 0), "tile", &out->tile_n));
  QN_TRY(as_uint(cJSON_GetArrayItem(tile, 1), "tile", &out->tile_k));
  QN_TRY(get_uint(j, "pad_code", &out->pad_code));
  out->pairs = cJSON_IsTrue(qn__json_get(j, "pairs"));
  QN_TRY(get_array(j, "sections", QN_LAYOUT_SECTIONS, &sections, &out->n_sections));
  qn_section *section = out->section;
  cJSON_ArrayForEach(s, sections) {
    const cJSON *fields;
    QN_TRY(read_digits(s, "outer", QN_COUNT(section->outer), section->outer, &section->n_outer));
    QN_TRY(get_array(s, "fields", QN_LAYOUT_FIELDS, &fields, &section->n_fields));
    qn_field *field = section->field;
    cJSON_ArrayForEach(x, fields) QN_TRY(read_field(x, f, field++));
    section++;
  }
  QN_TRY(hash_layout(out, f));
  return qn__layout_check(out, f, out->tile_n, out->tile_k); /* one tile: larger weights repeat it */
}

/* What is missing has no program, which stands for 1. */
static qn_status read_triple(const cJSON *step, const char *key, qn_pool *pool, qn_expr out[3]) {
  const cJSON *array, *e;
  uint32_t n;
  if (!has(step, key)) return QN_OK;
  QN_TRY(get_array(step, key, 3, &array, &n));
  cJSON_ArrayForEach(e, array) QN_TRY(read_expr(e, &launch_names, pool, out++));
  return QN_OK;
}

/* Bytes; none if there is no such key. */
static qn_status get_size(const cJSON *j, const char *key, qn_pool *pool, qn_expr *out) {
  return has(j, key) ? read_expr(qn__json_get(j, key), &launch_names, pool, out) : QN_OK;
}

/* The argument of that name; QN_ARG_COUNT: there is none. */
static uint8_t arg_of(const char *name) {
  uint8_t i = 0;
  while (name && i < QN_ARG_COUNT && strcmp(name, qn__arg[i].name)) i++;
  return name ? i : QN_ARG_COUNT;
}

static qn_status read_map(const cJSON *j, qn_pool *pool, qn_tensor_map *out) {
  const cJSON *dims, *box, *x;
  uint32_t i = 0, sides;
  out->operand = arg_of(cJSON_GetStringValue(qn__json_get(j, "operand")));
  QN_TRY(get_type(j, "type", &out->type));
  QN_TRY(get_uint(j, "swizzle", &out->swizzle));
  QN_TRY(get_array(j, "dims", QN_MAP_RANK, &dims, &out->rank));
  QN_TRY(get_array(j, "box", QN_MAP_RANK, &box, &sides));
  if (sides != out->rank) return bad("box", "has another number of dimensions than dims");
  cJSON_ArrayForEach(x, dims) QN_TRY(read_expr(x, &launch_names, pool, &out->dim[i++]));
  i = 0;
  cJSON_ArrayForEach(x, box) QN_TRY(as_uint(x, "box", &out->box[i++]));
  return QN_OK;
}

static qn_status read_arg(const cJSON *j, qn_pool *pool, qn_step *out, uint8_t *arg) {
  const cJSON *map = qn__json_get(j, "tensor_map");
  const char *s = cJSON_GetStringValue(j);
  if (map) {
    if (out->n_maps == QN_STEP_MAPS) return bad("args", "has too many tensor maps");
    *arg = (uint8_t)(QN_FIRST_MAP + out->n_maps);
    return read_map(map, pool, &out->map[out->n_maps++]);
  }
  *arg = arg_of(s);
  return *arg < QN_ARG_COUNT ? QN_OK : bad(s ? s : "args", "is no kernel argument");
}

static qn_status read_step(const cJSON *j, qn_pool *pool, qn_step *out) {
  const cJSON *args, *a;
  QN_TRY(get_text(j, "entry", out->entry, sizeof out->entry));
  QN_TRY(get_array(j, "args", QN_RECIPE_ARGS, &args, &out->n_args));
  uint8_t *arg = out->arg;
  cJSON_ArrayForEach(a, args) QN_TRY(read_arg(a, pool, out, arg++));
  QN_TRY(read_triple(j, "grid", pool, out->grid));
  QN_TRY(read_triple(j, "block", pool, out->block));
  QN_TRY(read_triple(j, "cluster", pool, out->cluster));
  QN_TRY(get_size(j, "shared", pool, &out->shared));
  return get_size(j, "gathers", pool, &out->gathers);
}

qn_status qn__recipe_from_json(const cJSON *j, qn_recipe *out) {
  const cJSON *steps, *s;
  memset(out, 0, sizeof *out);
  QN_TRY(get_array(j, "steps", QN_RECIPE_STEPS, &steps, &out->n_steps));
  qn_step *step = out->step;
  cJSON_ArrayForEach(s, steps) QN_TRY(read_step(s, &out->pool, step++));
  out->deterministic = cJSON_IsTrue(qn__json_get(j, "deterministic"));
  out->batch_invariant = cJSON_IsTrue(qn__json_get(j, "batch_invariant"));
  out->pdl = cJSON_IsTrue(qn__json_get(j, "pdl"));
  out->sum_bits = (uint32_t)qn__json_number(j, "sum_bits", 0),
  out->sum_depth = (uint32_t)qn__json_number(j, "sum_depth", 0);
  QN_TRY(get_size(j, "counters", &out->pool, &out->counters));
  QN_TRY(get_size(j, "scratch", &out->pool, &out->scratch));
  return qn__recipe_check(out);
}

/* ---- Writing ----------------------------------------------------------------------------------------------------- */

static cJSON *write_expr(qn_program e, const names *vars) {
  cJSON *out = cJSON_CreateArray();
  for (uint32_t i = 0; i < e.n; i++) {
    const qn_expr_op *op = &e.op[i];
    cJSON *t;
    if (op->code == QN_OP_CONST) t = cJSON_CreateNumber(op->value);
    else if (op->code == QN_OP_VAR) t = cJSON_CreateString(vars->name[op->arg]);
    else if (op->code == QN_OP_LOOKUP) qn__json_add_number(t = cJSON_CreateObject(), "lookup", op->arg);
    else t = cJSON_CreateString(operators[op->code].text);
    qn__json_append(out, t);
  }
  return out;
}

cJSON *qn__format_to_json(const qn_format *f) {
  cJSON *out = cJSON_CreateObject(), *planes, *tables;
  names vars = {{"q"}, 1};
  qn__json_add_text(out, "name", f->name);
  if (*f->implied) qn__json_add_text(out, "implied", f->implied);
  qn__json_add_number(out, "bits", f->bits);
  qn__json_add_text(out, "codes", qn_type_name((qn_type)f->codes));
  qn__json_add_text(out, "float", qn_type_name((qn_type)f->cast));
  planes = qn__json_add_array(out, "planes");
  for (uint32_t i = 0; i < f->n_planes; i++) {
    const qn_format_plane *p = &f->plane[i];
    cJSON *x = cJSON_CreateObject();
    qn__json_add_text(x, "name", p->name);
    qn__json_add_text(x, "type", qn_type_name((qn_type)p->type));
    qn__json_add_number(x, "max", p->max);
    qn__json_add_number(x, "rows", p->rows);
    qn__json_add_number(x, "cols", p->cols);
    qn__json_append(planes, x);
    vars.name[vars.n++] = p->name;
  }
  tables = qn__json_add_array(out, "tables");
  for (uint32_t i = 0; i < f->n_tables; i++) {
    cJSON *x = cJSON_CreateArray();
    for (int k = 0; k < QN_FORMAT_TABLE && !isnan(f->table[i][k]); k++) qn__json_append_number(x, f->table[i][k]);
    qn__json_append(tables, x);
  }
  qn__json_add(out, "decode", write_expr(qn__decode_rule(f), &vars));
  return out;
}

static cJSON *write_digits(const qn_digit *d, uint32_t n) {
  cJSON *out = cJSON_CreateArray();
  for (; n--; d++) {
    cJSON *x = cJSON_CreateArray();
    qn__json_append_text(x, d->axis ? "k" : "n");
    qn__json_append_number(x, d->size);
    qn__json_append_number(x, d->stride);
    qn__json_append(out, x);
  }
  return out;
}

cJSON *qn__layout_to_json(const qn_layout *l, const qn_format *f) {
  cJSON *out = cJSON_CreateObject(), *tile, *sections;
  qn__json_add_text(out, "name", l->name);
  qn__json_add_number(out, "pad_code", l->pad_code);
  if (l->pairs) qn__json_add_flag(out, "pairs", true);
  sections = qn__json_add_array(out, "sections");
  for (const qn_section *s = l->section; s < l->section + l->n_sections; s++) {
    cJSON *section = cJSON_CreateObject(), *fields = cJSON_CreateArray();
    for (const qn_field *x = s->field; x < s->field + s->n_fields; x++) {
      cJSON *field = cJSON_CreateObject();
      qn__json_add_number(field, "bits", x->bits);
      qn__json_add(field, "digits", write_digits(x->digit, x->n_digits));
      qn__json_add_number(field, "lo", x->lo);
      qn__json_add_text(field, "plane", x->plane ? f->plane[x->plane - 1].name : "codes");
      qn__json_add_text(field, "type", qn_type_name((qn_type)x->type));
      qn__json_append(fields, field);
    }
    qn__json_add(section, "fields", fields);
    qn__json_add(section, "outer", write_digits(s->outer, s->n_outer));
    qn__json_append(sections, section);
  }
  tile = qn__json_add_array(out, "tile");
  qn__json_append_number(tile, l->tile_n);
  qn__json_append_number(tile, l->tile_k);
  return out;
}

static cJSON *write_triple(const qn_pool *pool, const qn_expr e[3]) {
  cJSON *out = cJSON_CreateArray();
  for (int i = 0; i < 3; i++) qn__json_append(out, write_expr(qn__program(pool, e[i]), &launch_names));
  return out;
}

static cJSON *write_map(const qn_pool *pool, const qn_tensor_map *m) {
  cJSON *out = cJSON_CreateObject(), *map = cJSON_CreateObject(), *dims, *box;
  qn__json_add_text(map, "operand", qn__arg[m->operand].name);
  qn__json_add_text(map, "type", qn_type_name((qn_type)m->type));
  qn__json_add_number(map, "swizzle", m->swizzle);
  dims = qn__json_add_array(map, "dims"), box = qn__json_add_array(map, "box");
  for (uint32_t i = 0; i < m->rank; i++) {
    qn__json_append(dims, write_expr(qn__program(pool, m->dim[i]), &launch_names));
    qn__json_append_number(box, m->box[i]);
  }
  qn__json_add(out, "tensor_map", map);
  return out;
}

cJSON *qn__recipe_to_json(const qn_recipe *r) {
  cJSON *out = cJSON_CreateObject(), *steps = qn__json_add_array(out, "steps");
  for (const qn_step *s = r->step; s < r->step + r->n_steps; s++) {
    cJSON *step = cJSON_CreateObject(), *args;
    qn__json_add_text(step, "entry", s->entry);
    args = qn__json_add_array(step, "args");
    for (uint32_t i = 0; i < s->n_args; i++)
      if (qn__arg_kind(s->arg[i]) == QN_ARG_MAP)
        qn__json_append(args, write_map(&r->pool, &s->map[s->arg[i] - QN_FIRST_MAP]));
      else qn__json_append_text(args, qn__arg[s->arg[i]].name);
    qn__json_add(step, "grid", write_triple(&r->pool, s->grid));
    qn__json_add(step, "block", write_triple(&r->pool, s->block));
    qn__json_add(step, "cluster", write_triple(&r->pool, s->cluster));
    qn__json_add(step, "shared", write_expr(qn__program(&r->pool, s->shared), &launch_names));
    qn__json_add(step, "gathers", write_expr(qn__program(&r->pool, s->gathers), &launch_names));
    qn__json_append(steps, step);
  }
  qn__json_add(out, "counters", write_expr(qn__program(&r->pool, r->counters), &launch_names));
  qn__json_add(out, "scratch", write_expr(qn__program(&r->pool, r->scratch), &launch_names));
  qn__json_add_flag(out, "deterministic", r->deterministic != 0);
  qn__json_add_flag(out, "batch_invariant", r->batch_invariant != 0);
  qn__json_add_flag(out, "pdl", r->pdl != 0);
  qn__json_add_number(out, "sum_bits", r->sum_bits), qn__json_add_number(out, "sum_depth", r->sum_depth);
  return out;
}
