/* lua_pack.c - packs from Lua: what is in one, and are its kernels right on this machine? */
#include "bind.h"
#include "case.h"
#include "pack_read.h"
#include "verify.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char pack_class[] = "quernel.pack";

static qn_pack *check_pack(lua_State *L, int index) {
  qn_pack **p = luaL_checkudata(L, index, pack_class);
  luaL_argcheck(L, *p != NULL, index, "the pack is closed");
  return *p;
}

static int pack_close(lua_State *L) {
  qn_pack **p = luaL_checkudata(L, 1, pack_class);
  if (*p) qn__pack_close(*p);
  *p = NULL;
  return 0;
}

/* pack:plans() -> list of { problem, kind, device, layout, n, k, bytes, ranges = { {m_min, m, variant, …}… } } */
static int pack_plans(lua_State *L) {
  static const char *const kinds[] = {"fastest", "deterministic", "batch-invariant"};
  qn_pack *p = check_pack(L, 1);
  qn_plan *plan = qn__lua_block(L, sizeof *plan);
  qn_kernel *k = qn__lua_block(L, sizeof *k);
  lua_newtable(L);
  for (uint32_t i = 0; i < qn__pack_plans(p); i++) {
    qn__pack_plan(p, i, plan);
    int64_t bytes = 0;
    if (plan->problem.n) qn__layout_bytes(&plan->layout, plan->problem.n, plan->problem.k, &bytes);
    lua_newtable(L);
    qn__lua_set_text(L, "problem", plan->problem.spelling);
    qn__lua_set_text(L, "kind", kinds[plan->kind]);
    qn__lua_set_text(L, "layout", plan->layout.name);
    qn__lua_set_integer(L, "n", plan->problem.n);
    qn__lua_set_integer(L, "k", plan->problem.k);
    qn__lua_set_integer(L, "bytes", bytes);
    lua_newtable(L);
    for (uint32_t r = 0; r < plan->n_ranges; r++) {
      const qn_range *x = &plan->range[r];
      qn__pack_kernel(p, (uint32_t)qn__pack_find_kernel(p, x->variant), k);
      lua_newtable(L);
      qn__lua_set_integer(L, "m_min", x->m_min);
      qn__lua_set_integer(L, "m", x->m_tuned);
      qn__lua_set_text(L, "variant", k->name);
      qn__lua_set_text(L, "hash", x->variant);
      qn__lua_set_number(L, "seconds", x->seconds);
      qn__lua_set_number(L, "dense_seconds", x->dense_seconds);
      qn__lua_set_number(L, "bandwidth", x->bandwidth);
      qn__lua_set_number(L, "error", x->error);
      lua_rawseti(L, -2, r + 1);
    }
    lua_setfield(L, -2, "ranges");
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}

static qn_status verify_image(qn_device *d, const qn_pack *p, const qn_plan *plan, const char *hash, double *error) {
  qn_case *c = calloc(1, sizeof *c);
  qn_kernel *k = calloc(1, sizeof *k);
  qn_draws *draws = NULL;
  char path[] = "/tmp/quernel-kernel-XXXXXX";
  int fd = mkstemp(path);
  qn_status s = c && k && fd >= 0 ? qn__draws_new(&draws) : qn__fail(QN_E_IO, "no memory, or %s cannot be made", path);
  if (s == QN_OK) {
    qn__pack_kernel(p, (uint32_t)qn__pack_find_kernel(p, hash), k);
    c->problem = plan->problem, c->format = plan->format, c->layout = plan->layout, c->recipe = k->recipe;
    c->m_min = 1;
    if (!c->problem.n) c->problem.n = c->problem.k = 256; /* the generic plan */
    snprintf(c->image, sizeof c->image, "%s", path);
    snprintf(c->name, sizeof c->name, "%s", k->name);
    if (write(fd, k->image, k->size) != (ssize_t)k->size) s = qn__fail(QN_E_IO, "%s: cannot be written", path);
  }
  qn_subject subject;
  if (s == QN_OK) s = qn__subject_open(d, c, &subject);
  if (s == QN_OK) {
    s = qn__verify(&subject, draws, error);
    qn__subject_close(&subject);
  }
  if (fd >= 0) close(fd), unlink(path);
  qn__draws_free(draws);
  free(c), free(k);
  return s;
}

/* pack:verify(device or nil, each(problem, kernel, ok, error or reason)) -> true, or nil, message, code: runs every kernel
 * of every plan against the reference, on small shapes. */
static int pack_verify(lua_State *L) {
  qn_pack *p = check_pack(L, 1);
  const char *name = luaL_optstring(L, 2, NULL);
  luaL_checktype(L, 3, LUA_TFUNCTION);
  qn_plan *plan = qn__lua_block(L, sizeof *plan);
  qn_kernel *k = qn__lua_block(L, sizeof *k);
  qn_device *d;
  qn_status s = qn__device_open(name, &d);
  if (s != QN_OK) return qn__lua_fail(L, s);
  for (uint32_t i = 0; i < qn__pack_plans(p); i++) {
    qn__pack_plan(p, i, plan);
    for (uint32_t r = 0; r < plan->n_ranges; r++) {
      double error = 0;
      qn__pack_kernel(p, (uint32_t)qn__pack_find_kernel(p, plan->range[r].variant), k);
      s = verify_image(d, p, plan, plan->range[r].variant, &error);
      lua_pushvalue(L, 3);
      lua_pushstring(L, plan->problem.spelling);
      lua_pushstring(L, k->name);
      lua_pushboolean(L, s == QN_OK);
      if (s == QN_OK) lua_pushnumber(L, error);
      else lua_pushstring(L, qn__errmsg());
      if (lua_pcall(L, 4, 0, 0)) {
        qn__device_close(d);
        return lua_error(L);
      }
    }
  }
  qn__device_close(d);
  lua_pushboolean(L, 1);
  return 1;
}

/* pack_open(path) -> handle, or nil, message, code */
static int pack_open(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  qn_pack **p = lua_newuserdatauv(L, sizeof *p, 0);
  *p = NULL;
  luaL_setmetatable(L, pack_class);
  qn_status s = qn__pack_open(path, p);
  return s == QN_OK ? 1 : qn__lua_fail(L, s);
}

void qn__lua_pack(lua_State *L) {
  static const luaL_Reg methods[] = {{"__gc", pack_close}, {"__close", pack_close}, {"close", pack_close},
                                     {"plans", pack_plans}, {"verify", pack_verify}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"pack_open", pack_open}, {NULL, NULL}};
  qn__lua_class(L, pack_class, methods);
  luaL_setfuncs(L, functions, 0);
}
