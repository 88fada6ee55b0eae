/* test_lua.c - the cases of tests/lua, each in a state of its own that has the module `quernel`.
 *
 * test_lua [UNIT] runs the files of a unit, as ctest calls it. A file returns a list of { name, function(t) }; t holds
 * assertions and paths (tests/lua/assert.lua). QN_CASE=TEXT runs the cases whose name holds the text. */
#include "limit.h"
#include "suite.h"
#include <check.h>
#include <lauxlib.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int luaopen_quernel(lua_State *L);

static const struct {
  const char *unit, *name;
} files[] = {{"gen", "gen"},        {"gen", "golden"},  {"lua", "includes"}, {"lua", "module"},  {"lua", "ffi"},
             {"lua", "measure"},    {"lua", "models"},  {"lua", "tradeoff"}, {"lua", "serving"}, {"lua", "calibration"},
             {"lua", "evaluation"}, {"lua", "experts"}, {"mixed", "mixed"}};
enum { FILES = sizeof files / sizeof *files, MOST = 1000 }; /* cases of a file */

static char scratch[] = "/tmp/quernel-lua-XXXXXX";

static void set_global(lua_State *L, const char *name, const char *value) {
  lua_pushstring(L, value);
  lua_setglobal(L, name);
}

/* Push what a file of tests/lua returns. */
static void push_file(lua_State *L, const char *name) {
  char path[512];
  snprintf(path, sizeof path, QN_TESTS "/lua/%s.lua", name);
  if (luaL_dofile(L, path)) {
    fprintf(stderr, "%s\n", lua_tostring(L, -1));
    exit(1);
  }
}

/* A state with the module. */
static lua_State *new_state(void) {
  static qn_lua_memory memory;
  lua_State *L = qn__lua_state_new(&memory);
  luaL_openlibs(L);
  luaL_requiref(L, "quernel", luaopen_quernel, 0);
  set_global(L, "QN_TESTS", QN_TESTS);
  set_global(L, "QN_LIBRARY", QN_LIBRARY);
  set_global(L, "QN_SCRATCH", scratch);
  set_global(L, "QN_MODULE", QN_BUILD);
  lua_settop(L, 0);
  return L;
}

static int traceback(lua_State *L) {
  luaL_traceback(L, L, lua_tostring(L, 1), 1);
  return 1;
}

/* Case _i % MOST of file _i / MOST. */
START_TEST(lua_case) {
  const char *unit = files[_i / MOST].unit, *file = files[_i / MOST].name, *only = getenv("QN_CASE");
  lua_State *L = new_state();
  lua_pushcfunction(L, traceback); /* 1 */
  push_file(L, file);
  lua_rawgeti(L, 2, _i % MOST + 1); /* 3: { name, function } */
  lua_rawgeti(L, 3, 1);             /* 4 */
  lua_rawgeti(L, 3, 2);
  push_file(L, "assert");
  const char *name = lua_tostring(L, 4);
  if ((!only || strstr(name, only)) && lua_pcall(L, 1, 0, 1))
    ck_abort_msg("%s: %s\nagain: CK_RUN_CASE=%s QN_CASE='%.*s' ctest --test-dir " QN_BUILD
                 " -R '^%s$' --output-on-failure",
                 name, lua_tostring(L, -1), file, (int)strcspn(name, "'"), name, unit);
  lua_close(L);
}
END_TEST

/* Memory runs out at each of many points of loading the module and generating a kernel: an error each time, and at last
 * it is there. */
static const char generate[] =
    "local q, family = require 'quernel', 'cuda.mma'\n"
    "local params = q.gen.kernel.params(q.gen.kernel.family(family), "
    "'bm32-bn64-bk128-wn4-s4-sum-k1')\n"
    "local v = assert(q.variant('int4.g64.z:4096x4096:f16-f16+bias', q.arch 'sm_90a', family, params))\n"
    "assert(q.source(v):find '__global__')\n";

static int load(lua_State *L) {
  luaL_openlibs(L);
  luaL_requiref(L, "quernel", luaopen_quernel, 0);
  if (luaL_loadstring(L, generate)) return lua_error(L);
  lua_call(L, 0, 0);
  return 0;
}

START_TEST(memory_that_runs_out_is_an_error) {
  int failed = 0;
  for (size_t most = 20000;; most += most / 12) {
    qn_lua_memory memory;
    lua_State *L = qn__lua_state_new(&memory);
    memory.most = most;
    lua_pushcfunction(L, load);
    int status = lua_pcall(L, 0, 0, 0);
    ck_assert_msg(!status || strstr(lua_tostring(L, -1), "memory"), "with %zu bytes: %s", most, lua_tostring(L, -1));
    lua_close(L);
    if (!status) break;
    failed++;
  }
  ck_assert_int_ge(failed, 10);
}
END_TEST

static int count(const char *file) {
  lua_State *L = new_state();
  push_file(L, file);
  int n = (int)lua_rawlen(L, -1);
  lua_close(L);
  return n;
}

int main(int argc, char **argv) {
  const char *unit = argc > 1 ? argv[1] : "lua";
  if (!mkdtemp(scratch)) return 1;
  char cache[64], remove[64];
  snprintf(cache, sizeof cache, "%s/cache", scratch);
  setenv("QUERNEL_CACHE", cache, 1);
  unsetenv("QUERNEL_TEMPLATES");
  Suite *s = suite_create(unit);
  for (int i = 0; i < FILES; i++) {
    if (strcmp(unit, files[i].unit)) continue;
    TCase *c = tcase_create(files[i].name);
    tcase_set_timeout(c, 1200);
    tcase_add_loop_test(c, lua_case, i * MOST, i * MOST + count(files[i].name));
    suite_add_tcase(s, c);
  }
  if (!strcmp(unit, "lua")) {
    TCase *memory = tcase_create("memory");
    tcase_set_timeout(memory, 300);
    tcase_add_test(memory, memory_that_runs_out_is_an_error);
    suite_add_tcase(s, memory);
  }
  int failed = run_unit(s, unit);
  snprintf(remove, sizeof remove, "rm -rf %s", scratch);
  return system(remove) || failed;
}
