/* lua_store.c - the tuner's store from Lua: its evidence, and the tools that look after it. */
#include "bind.h"
#include "compile.h"
#include "device.h"
#include "json.h"
#include "store.h"
#include "store_tools.h"

static const char store_class[] = "quernel.store";

/* ---- One environment --------------------------------------------------------------------------------------------- */

/* The device of this name and its compiler. */
static qn_status describe(const char *name, qn_device_info *info, char *compiler, size_t size) {
  qn_device *d = NULL;
  QN_TRY(qn__device_open(NULL, name, &d));
  *info = d->info;
  qn__device_close(d);
  return qn__compiler_version(info->target, compiler, size);
}

/* store_open(root or nil, device or nil) -> store of that device, or nil, message, code */
static int store_open(lua_State *L) {
  const char *root = luaL_optstring(L, 1, NULL), *name = luaL_optstring(L, 2, NULL);
  qn_store **store = lua_newuserdatauv(L, sizeof *store, 0);
  *store = NULL;
  luaL_setmetatable(L, store_class);
  qn_device_info info;
  char compiler[128];
  qn_status s = describe(name, &info, compiler, sizeof compiler);
  if (s == QN_OK) s = qn__store_open(root, &info, compiler, QN_STORE_POLICY, store);
  return s == QN_OK ? 1 : qn__lua_fail(L, s);
}

/* environment(device) -> hash, table as in env.json: what a store for the device would be of; or nil, message, code */
static int environment(lua_State *L) {
  qn_device_info info;
  char compiler[128], hash[33];
  qn_status s = describe(luaL_checkstring(L, 1), &info, compiler, sizeof compiler);
  if (s != QN_OK) return qn__lua_fail(L, s);
  cJSON **env = qn__lua_json_box(L);
  *env = qn__store_environment(&info, compiler, QN_STORE_POLICY, hash);
  if (!*env) return qn__lua_fail(L, qn__fail(QN_E_NOMEM, "no memory for an environment"));
  lua_pushstring(L, hash);
  qn__lua_push_json(L, *env);
  return 2;
}

static int store_close(lua_State *L) {
  qn_store **store = luaL_checkudata(L, 1, store_class);
  qn__store_close(*store);
  *store = NULL;
  return 0;
}

static qn_store *check_store(lua_State *L) {
  qn_store **store = luaL_checkudata(L, 1, store_class);
  luaL_argcheck(L, *store, 1, "the store is closed");
  return *store;
}

static int store_path(lua_State *L) {
  lua_pushstring(L, qn__store_path(check_store(L)));
  return 1;
}

/* Entries are gathered as JSON first: nothing may jump out of a visit. */
static int gather(void *ud, const char *key, const cJSON *value) {
  cJSON *copy = cJSON_Duplicate(value, true), *pair = cJSON_CreateObject();
  qn__json_add_text(pair, "key", key);
  qn__json_add(pair, "value", copy);
  qn__json_append(ud, pair);
  return 0;
}

/* Push a list that was gathered; it is freed with the JSON userdata. */
static int push_list(lua_State *L, qn_status s, const cJSON *list) {
  if (s == QN_OK && !qn__json_whole(list)) s = qn__fail(QN_E_NOMEM, "no memory for what the store holds");
  if (s != QN_OK) return qn__lua_fail(L, s);
  qn__lua_push_json(L, list);
  return 1;
}

/* An empty JSON array in a userdata that is left on the stack. */
static cJSON *new_list(lua_State *L) {
  lua_pushliteral(L, "[]");
  cJSON *list = qn__lua_json(L, lua_gettop(L));
  lua_remove(L, -2);
  return list;
}

/* store:entries("evidence" or "plan") -> list of { key=, value= } */
static int store_entries(lua_State *L) {
  static const char *const kinds[] = {"evidence", "plan", NULL};
  qn_store *store = check_store(L);
  const char *kind = kinds[luaL_checkoption(L, 2, NULL, kinds)];
  cJSON *list = new_list(L);
  return push_list(L, qn__store_each(store, kind, gather, list), list);
}

/* ---- Whole roots ------------------------------------------------------------------------------------------------- */

static int add_environment(void *ud, const qn_store_environment *e) {
  cJSON *j = cJSON_CreateObject();
  qn__json_add_text(j, "path", e->path);
  qn__json_add_text(j, "hash", e->hash);
  if (e->about) qn__json_add(j, "about", cJSON_Duplicate(e->about, true));
  qn__json_add_number(j, "artifacts", (double)e->artifacts);
  qn__json_add_number(j, "failures", (double)e->failures);
  qn__json_add_number(j, "evidence", (double)e->evidence);
  qn__json_add_number(j, "plans", (double)e->plans);
  qn__json_add_number(j, "damaged", (double)e->damaged);
  qn__json_add_number(j, "older", (double)e->older);
  qn__json_add_number(j, "bytes", (double)e->bytes);
  qn__json_add_number(j, "first", (double)e->first);
  qn__json_add_number(j, "last", (double)e->last);
  qn__json_add(j, "problems", cJSON_Duplicate(e->problems, true));
  qn__json_add(j, "rejected", cJSON_Duplicate(e->rejected, true));
  qn__json_add(j, "suspects", cJSON_Duplicate(e->suspects, true));
  qn__json_append(ud, j);
  return 0;
}

/* list(root) -> the environments of a store */
static int list(lua_State *L) {
  const char *root = luaL_optstring(L, 1, NULL);
  cJSON *found = new_list(L);
  return push_list(L, qn__store_list(root, add_environment, found), found);
}

/* root(root or nil) -> the folder that is meant */
static int store_root(lua_State *L) {
  char path[PATH_MAX];
  qn_status s = qn__store_root(luaL_optstring(L, 1, NULL), path);
  lua_pushstring(L, path);
  return s == QN_OK ? 1 : qn__lua_fail(L, s);
}

static void add_damage(void *ud, const char *path, const char *what) {
  cJSON *j = cJSON_CreateObject();
  qn__json_add_text(j, "path", path);
  qn__json_add_text(j, "what", what);
  qn__json_append(ud, j);
}

/* verify(root) -> list of { path=, what= }: every file that is damaged */
static int verify(lua_State *L) {
  const char *root = luaL_optstring(L, 1, NULL);
  cJSON *found = new_list(L);
  return push_list(L, qn__store_verify(root, add_damage, found), found);
}

static void add_difference(void *ud, const char *env, const char *kind, const char *key, const cJSON *a,
                           const cJSON *b) {
  cJSON *j = cJSON_CreateObject();
  qn__json_add_text(j, "environment", env);
  qn__json_add_text(j, "kind", kind);
  qn__json_add_text(j, "key", key);
  if (a) qn__json_add(j, "a", cJSON_Duplicate(a, true));
  if (b) qn__json_add(j, "b", cJSON_Duplicate(b, true));
  qn__json_append(ud, j);
}

/* diff(a, b) -> list of { environment=, kind=, key=, a=, b= } */
static int diff(lua_State *L) {
  const char *a = luaL_checkstring(L, 1), *b = luaL_checkstring(L, 2);
  cJSON *found = new_list(L);
  return push_list(L, qn__store_diff(a, b, add_difference, found), found);
}

static int push_counts(lua_State *L, qn_status s, const qn_store_counts *c) {
  if (s != QN_OK) return qn__lua_fail(L, s);
  lua_newtable(L);
  qn__lua_set_integer(L, "copied", (int64_t)c->copied);
  qn__lua_set_integer(L, "replaced", (int64_t)c->replaced);
  qn__lua_set_integer(L, "kept", (int64_t)c->kept);
  qn__lua_set_integer(L, "same", (int64_t)c->same);
  qn__lua_set_integer(L, "damaged", (int64_t)c->damaged);
  qn__lua_set_integer(L, "removed", (int64_t)c->removed);
  return 1;
}

/* merge(into or nil, from) -> counts */
static int merge(lua_State *L) {
  qn_store_counts c = {0};
  qn_status s = qn__store_merge(luaL_optstring(L, 1, NULL), luaL_checkstring(L, 2), NULL, NULL, &c);
  return push_counts(L, s, &c);
}

/* gc(root or nil, age in seconds) -> counts */
static int gc(lua_State *L) {
  qn_store_counts c = {0};
  qn_status s = qn__store_gc(luaL_optstring(L, 1, NULL), luaL_optnumber(L, 2, 3600), &c);
  return push_counts(L, s, &c);
}

/* forget(root or nil, what) -> number of entries removed */
static int forget(lua_State *L) {
  size_t n;
  qn_status s = qn__store_forget(luaL_optstring(L, 1, NULL), luaL_checkstring(L, 2), &n);
  if (s != QN_OK) return qn__lua_fail(L, s);
  lua_pushinteger(L, (lua_Integer)n);
  return 1;
}

void qn__lua_store(lua_State *L) {
  static const luaL_Reg methods[] = {
      {"path", store_path}, {"entries", store_entries}, {"close", store_close}, {"__gc", store_close}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"open", store_open}, {"environment", environment},
                                       {"root", store_root}, {"list", list},
                                       {"verify", verify},   {"diff", diff},
                                       {"merge", merge},     {"gc", gc},
                                       {"forget", forget},   {NULL, NULL}};
  qn__lua_class(L, store_class, methods);
  luaL_newlib(L, functions);
  lua_setfield(L, -2, "store");
}
