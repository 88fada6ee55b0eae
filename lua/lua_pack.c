/* lua_pack.c - packs from Lua: writing one from what was tuned, reading what is in one. Serving is lua_serve.c's. */
#include "bind.h"
#include "case.h"
#include "hash.h"
#include "pack.h"
#include "pack_read.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char pack_class[] = "quernel.pack", joint_class[] = "quernel.joint";

/* ---- Plans as tables --------------------------------------------------------------------------------------------- */

static void push_point(lua_State *L, const qn_point *x) {
  lua_newtable(L);
  qn__lua_set_integer(L, "m", x->m);
  qn__lua_set_number(L, "seconds", x->seconds);
  qn__lua_set_number(L, "spread", x->spread);
  qn__lua_set_number(L, "dense_seconds", x->dense_seconds);
  qn__lua_set_number(L, "bandwidth", x->bandwidth);
  qn__lua_set_flag(L, "disturbed", (x->marks & QN_DISTURBED) != 0);
  qn__lua_set_flag(L, "raced", (x->marks & QN_RACED) != 0);
  qn__lua_set_flag(L, "dense_disturbed", (x->marks & QN_DENSE_DISTURBED) != 0);
}

/* Range number i, and in it the points that it serves. */
static void push_range(lua_State *L, const qn_plan *p, uint32_t i, qn__lua_kernel find, void *ud) {
  const qn_range *r = &p->range[i];
  int64_t end = i + 1 < p->n_ranges ? p->range[i + 1].m_min : INT64_MAX;
  const qn_kernel *k = find(ud, r->variant);
  lua_newtable(L);
  qn__lua_set_integer(L, "m_min", r->m_min);
  qn__lua_set_text(L, "hash", r->variant);
  qn__lua_set_text(L, "variant", k ? k->name : r->variant);
  qn__lua_set_number(L, "error", r->error);
  k = *r->runner_up ? find(ud, r->runner_up) : NULL;
  if (k) qn__lua_set_text(L, "runner_up", k->name);
  lua_newtable(L);
  for (uint32_t j = 0, n = 0; j < p->n_points; j++) {
    if (p->point[j].m < r->m_min || p->point[j].m >= end) continue;
    push_point(L, &p->point[j]);
    lua_rawseti(L, -2, ++n);
  }
  lua_setfield(L, -2, "points");
}

void qn__lua_push_plan(lua_State *L, const qn_plan *p, qn__lua_kernel find, void *ud) {
  static const char *const kinds[] = {"fastest", "deterministic", "batch-invariant"};
  int64_t bytes = 0;
  if (p->problem.n) qn__layout_bytes(&p->layout, p->problem.n, p->problem.k, &bytes);
  lua_newtable(L);
  qn__lua_set_text(L, "problem", p->problem.spelling);
  qn__lua_set_text(L, "format", p->problem.format);
  qn__lua_set_text(L, "kind", kinds[p->kind]);
  qn__lua_set_text(L, "layout", p->layout.name);
  qn__lua_set_text(L, "act", qn_type_name((qn_type)p->problem.act));
  qn__lua_set_text(L, "out", qn_type_name((qn_type)p->problem.out));
  qn__lua_set_integer(L, "device", p->device + 1);
  qn__lua_set_integer(L, "n", p->problem.n);
  qn__lua_set_integer(L, "k", p->problem.k);
  qn__lua_set_integer(L, "bytes", bytes);
  if (p->problem.experts) qn__lua_set_integer(L, "experts", p->problem.experts);
  lua_createtable(L, (int)p->n_ranges, 0);
  for (uint32_t i = 0; i < p->n_ranges; i++) {
    push_range(L, p, i, find, ud);
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, "ranges");
}

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

typedef struct reader {
  qn_pack *pack;
  qn_plan plan; /* the plan and the kernel that were looked at last: large, so not on the C stack */
  qn_kernel kernel;
  qn_case c;
} reader;

/* pack_open(path) -> pack, or nil, message, code */
static int pack_open(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  reader *r = lua_newuserdatauv(L, sizeof *r, 0);
  memset(r, 0, sizeof *r);
  luaL_setmetatable(L, pack_class);
  qn_status s = qn__pack_open(NULL, path, &r->pack);
  return s == QN_OK ? 1 : qn__lua_fail(L, s);
}

static int pack_close(lua_State *L) {
  reader *r = luaL_checkudata(L, 1, pack_class);
  if (r->pack) qn__pack_close(r->pack);
  r->pack = NULL;
  return 0;
}

static reader *check_pack(lua_State *L) {
  reader *r = luaL_checkudata(L, 1, pack_class);
  luaL_argcheck(L, r->pack, 1, "the pack is closed");
  return r;
}

static const qn_kernel *find_kernel(void *ud, const char *hash) {
  reader *r = ud;
  int64_t i = qn__pack_find_kernel(r->pack, hash);
  if (i < 0) return NULL;
  qn__pack_kernel(r->pack, (uint32_t)i, &r->kernel);
  return &r->kernel;
}

/* pack:plans() -> list of plans */
static int pack_plans(lua_State *L) {
  reader *r = check_pack(L);
  lua_newtable(L);
  for (uint32_t i = 0; i < qn__pack_plans(r->pack); i++) {
    qn__pack_plan(r->pack, i, &r->plan);
    qn__lua_push_plan(L, &r->plan, find_kernel, r);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}

/* pack:kernels() -> list of { name, hash, target, arch, registers, shared, size, deterministic, batch_invariant } */
static int pack_kernels(lua_State *L) {
  reader *r = check_pack(L);
  lua_newtable(L);
  for (uint32_t i = 0; i < qn__pack_kernels(r->pack); i++) {
    const qn_kernel *k = &r->kernel;
    qn__pack_kernel(r->pack, i, &r->kernel);
    lua_newtable(L);
    qn__lua_set_text(L, "name", k->name);
    qn__lua_set_text(L, "hash", k->hash);
    qn__lua_set_text(L, "target", k->target);
    qn__lua_set_text(L, "arch", k->arch);
    qn__lua_set_integer(L, "registers", k->registers);
    qn__lua_set_integer(L, "shared", k->shared);
    qn__lua_set_integer(L, "size", (int64_t)k->size);
    qn__lua_set_flag(L, "deterministic", k->recipe.deterministic != 0);
    qn__lua_set_flag(L, "batch_invariant", k->recipe.batch_invariant != 0);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}

/* pack:devices() -> list of { target, arch, product, threads }: the machines that the plans were measured on */
static int pack_devices(lua_State *L) {
  reader *r = check_pack(L);
  lua_newtable(L);
  for (uint32_t i = 0; i < qn__pack_devices(r->pack); i++) {
    qn_pack_device d;
    qn__pack_device(r->pack, i, &d);
    lua_newtable(L);
    qn__lua_set_text(L, "target", d.target);
    qn__lua_set_text(L, "arch", d.arch);
    qn__lua_set_text(L, "product", d.product);
    qn__lua_set_integer(L, "threads", d.threads);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}

static int pack_hash(lua_State *L) {
  lua_pushstring(L, qn__pack_hash(check_pack(L)->pack));
  return 1;
}

/* ---- Kernels out of a pack, for the worker ----------------------------------------------------------------------- */

static qn_status write_image(const qn_kernel *k, const char *path) {
  FILE *f = fopen(path, "wb");
  bool ok = f && fwrite(k->image, 1, k->size, f) == k->size;
  if (f && fclose(f)) ok = false;
  return ok ? QN_OK : qn__fail(qn__errno_status(errno), "%s: %s", path, strerror(errno));
}

static qn_status make_case(reader *r, uint32_t plan, uint32_t range, const char *folder, const char *library,
                           const char *symbol) {
  const int64_t any = 512; /* the shape that a plan for any shape is tried at */
  qn_case *c = &r->c;
  qn__pack_plan(r->pack, plan, &r->plan);
  const qn_plan *p = &r->plan;
  const qn_kernel *k = find_kernel(r, p->range[range].variant);
  if (!k->size && !library) k = find_kernel(r, p->range[range].runner_up);
  memset(c, 0, sizeof *c);
  c->problem = p->problem;
  if (!c->problem.n) {
    c->problem.n = c->problem.k = any;
    qn__problem_spell(&c->problem);
  }
  c->format = p->format;
  c->layout = p->layout;
  c->recipe = k->recipe;
  c->m_min = p->range[range].m_min;
  c->m_max = range + 1 < p->n_ranges ? p->range[range + 1].m_min - 1 : 0;
  memcpy(c->name, k->name, sizeof k->name);
  memcpy(c->hash, k->hash, sizeof k->hash);
  if (!k->size) {
    snprintf(c->image, sizeof c->image, "%s", library);
    snprintf(c->symbol, sizeof c->symbol, "%s", symbol);
    return QN_OK;
  }
  qn__hash_hex(k->image, k->size, c->sum);
  if ((size_t)snprintf(c->image, sizeof c->image, "%s/%s", folder, k->hash) >= sizeof c->image)
    return qn__fail(QN_E_ARG, "%s: the path is too long", folder);
  return write_image(k, c->image);
}

/* pack:case(plan, range, folder[, library, symbol]) -> JSON for the worker, hash and name of the kernel. Its image is
 * written to the folder. A function is looked for in the library; without one it is the range's runner-up that is
 * returned. Numbers from 1. */
static int pack_case(lua_State *L) {
  reader *r = check_pack(L);
  lua_Integer plan = luaL_checkinteger(L, 2), range = luaL_checkinteger(L, 3);
  const char *folder = luaL_checkstring(L, 4);
  luaL_argcheck(L, plan >= 1 && plan <= (lua_Integer)qn__pack_plans(r->pack), 2, "no such plan");
  qn__pack_plan(r->pack, (uint32_t)plan - 1, &r->plan);
  luaL_argcheck(L, range >= 1 && range <= (lua_Integer)r->plan.n_ranges, 3, "no such range");
  qn_status s = make_case(r, (uint32_t)plan - 1, (uint32_t)range - 1, folder, luaL_optstring(L, 5, NULL),
                          luaL_optstring(L, 6, ""));
  if (s != QN_OK) return qn__lua_fail(L, s);
  cJSON *j = qn__case_to_json(&r->c);
  char *text = j ? cJSON_PrintUnformatted(j) : NULL;
  cJSON_Delete(j);
  if (!text) return qn__lua_fail(L, qn__fail(QN_E_NOMEM, "no memory for a case"));
  lua_pushstring(L, text); /* leaks `text` only when Lua itself is out of memory */
  cJSON_free(text);
  lua_pushstring(L, r->c.hash);
  lua_pushstring(L, r->c.name);
  return 3;
}

/* ---- One pack of the plans of several ---------------------------------------------------------------------------- */

typedef struct joint {
  qn_pack_builder *builder;
  qn_pack_device device[QN_PACK_MAX_DEVICES]; /* those of the new pack */
  uint32_t n;
} joint;

/* pack_joint() -> joint, or nil, message, code */
static int joint_new(lua_State *L) {
  joint *j = lua_newuserdatauv(L, sizeof *j, 1);
  memset(j, 0, sizeof *j);
  luaL_setmetatable(L, joint_class);
  lua_newtable(L); /* the packs that plans came from: their kernels stay in their maps */
  lua_setiuservalue(L, -2, 1);
  qn_status s = qn__pack_builder_new(&j->builder);
  return s == QN_OK ? 1 : qn__lua_fail(L, s);
}

static int joint_free(lua_State *L) {
  joint *j = luaL_checkudata(L, 1, joint_class);
  qn__pack_builder_free(j->builder);
  j->builder = NULL;
  return 0;
}

/* The new pack's number of a device: that of an equal one, else another. */
static qn_status join_device(joint *j, const qn_pack *from, uint32_t *number) {
  qn_pack_device d;
  qn__pack_device(from, *number, &d);
  for (*number = 0; *number < j->n; ++*number) {
    const qn_pack_device *x = &j->device[*number];
    if (!strcmp(x->target, d.target) && !strcmp(x->arch, d.arch) && !strcmp(x->product, d.product) &&
        x->threads == d.threads)
      return QN_OK;
  }
  QN_TRY(qn__pack_add_device(j->builder, d.target, d.arch, d.product, (int)d.threads));
  j->device[j->n++] = d;
  return QN_OK;
}

static qn_status join_plan(joint *j, reader *r, uint32_t number) {
  qn_plan *p = &r->plan;
  qn__pack_plan(r->pack, number, p);
  QN_TRY(join_device(j, r->pack, &p->device));
  for (uint32_t i = 0; i < p->n_ranges; i++) {
    const char *const hash[] = {p->range[i].variant, p->range[i].runner_up};
    for (int k = 0; k < 2; k++)
      if (*hash[k]) QN_TRY(qn__pack_add_kernel(j->builder, find_kernel(r, hash[k])));
  }
  return qn__pack_add_plan(j->builder, p);
}

/* joint:add(pack, plan) -> true, or nil, message, code: a plan of a pack by its number from 1, with its device and its
 * kernels */
static int joint_add(lua_State *L) {
  joint *j = luaL_checkudata(L, 1, joint_class);
  reader *r = luaL_checkudata(L, 2, pack_class);
  lua_Integer plan = luaL_checkinteger(L, 3);
  luaL_argcheck(L, j->builder, 1, "the joint is closed");
  luaL_argcheck(L, r->pack, 2, "the pack is closed");
  luaL_argcheck(L, plan >= 1 && plan <= (lua_Integer)qn__pack_plans(r->pack), 3, "no such plan");
  lua_getiuservalue(L, 1, 1);
  lua_pushvalue(L, 2);
  lua_pushboolean(L, 1);
  lua_rawset(L, -3);
  return qn__lua_outcome(L, join_plan(j, r, (uint32_t)plan - 1));
}

/* joint:write(path) -> true, or nil, message, code. No pack that plans came from may have been closed. */
static int joint_write(lua_State *L) {
  joint *j = luaL_checkudata(L, 1, joint_class);
  const char *path = luaL_checkstring(L, 2);
  luaL_argcheck(L, j->builder, 1, "the joint is closed");
  return qn__lua_outcome(L, qn__pack_write(j->builder, path));
}

void qn__lua_pack(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"plans", pack_plans}, {"kernels", pack_kernels}, {"devices", pack_devices},
      {"hash", pack_hash},   {"case", pack_case},       {"close", pack_close},
      {"__gc", pack_close},  {"__close", pack_close},   {NULL, NULL},
  };
  static const luaL_Reg joint_methods[] = {
      {"add", joint_add}, {"write", joint_write}, {"__gc", joint_free}, {"__close", joint_free}, {NULL, NULL},
  };
  static const luaL_Reg functions[] = {{"pack_open", pack_open}, {"pack_joint", joint_new}, {NULL, NULL}};
  qn__lua_class(L, pack_class, methods);
  qn__lua_class(L, joint_class, joint_methods);
  luaL_setfuncs(L, functions, 0);
}
