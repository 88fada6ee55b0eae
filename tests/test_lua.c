/* test_lua.c - the module `quernel` from Lua: the cases of tests/lua, each in a state of its own.
 *
 * A file returns a list of { name, function(t) }; t.check, t.equal and t.fails are assertions. QN_CASE=TEXT runs the
 * cases whose name holds the text. */
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

static const char *const files[] = {"module", "ffi", "measure", "models"};

static const char assertions[] =
    "local t = { tests = QN_TESTS, library = QN_LIBRARY, scratch = QN_SCRATCH }\n"
    "function t.check(ok, what) if not ok then error(tostring(what or 'check'), 2) end end\n"
    "function t.equal(a, b, what)\n"
    "  if a ~= b then error(('%s%q, not %q'):format(what and what .. ': ' or '', tostring(a), tostring(b)), 2) end\n"
    "end\n"
    "function t.fails(pattern, fn, ...)\n"
    "  local ok, why = pcall(fn, ...)\n"
    "  if ok then error('it did not fail with ' .. pattern, 2) end\n"
    "  if not tostring(why):find(pattern) then error(('%q, not %q'):format(tostring(why), pattern), 2) end\n"
    "end\n"
    "function t.write(name, text)\n"
    "  local path = t.scratch .. '/' .. name\n"
    "  local f = assert(io.open(path, 'wb'))\n"
    "  f:write(text)\n"
    "  f:close()\n"
    "  return path\n"
    "end\n"
    "return t\n";

static char scratch[] = "/tmp/quernel-lua-XXXXXX";

static void set_global(lua_State *L, const char *name, const char *value) {
  lua_pushstring(L, value);
  lua_setglobal(L, name);
}

/* A state with the module, and on the stack the list of cases of a file. */
static lua_State *open_file(const char *file) {
  static qn_lua_memory memory;
  char path[512];
  lua_State *L = qn__lua_state_new(&memory);
  luaL_openlibs(L);
  luaL_requiref(L, "quernel", luaopen_quernel, 0);
  set_global(L, "QN_TESTS", QN_TESTS);
  set_global(L, "QN_LIBRARY", QN_LIBRARY);
  set_global(L, "QN_SCRATCH", scratch);
  set_global(L, "QN_MODULE", QN_BUILD);
  snprintf(path, sizeof path, QN_TESTS "/lua/%s.lua", file);
  if (luaL_dofile(L, path)) {
    fprintf(stderr, "%s\n", lua_tostring(L, -1));
    exit(1);
  }
  return L;
}

static int traceback(lua_State *L) {
  luaL_traceback(L, L, lua_tostring(L, 1), 1);
  return 1;
}

static void run_case(const char *file, int i) {
  lua_State *L = open_file(file);
  lua_rawgeti(L, -1, i + 1);
  lua_rawgeti(L, -1, 1);
  const char *name = lua_tostring(L, -1), *only = getenv("QN_CASE");
  if (only && !strstr(name, only)) return;
  lua_pushcfunction(L, traceback);
  lua_rawgeti(L, -3, 2);
  ck_assert(!luaL_dostring(L, assertions));
  if (lua_pcall(L, 1, 0, -3))
    ck_abort_msg("%s: %s\nagain: QN_CASE='%s' QN_FILE=%s ctest --test-dir " QN_BUILD " -R '^lua$' --output-on-failure",
                 name, lua_tostring(L, -1), name, file);
  lua_close(L);
}

START_TEST(module) { run_case(files[0], _i); }
END_TEST
START_TEST(ffi) { run_case(files[1], _i); }
END_TEST
START_TEST(measure) { run_case(files[2], _i); }
END_TEST
START_TEST(models) { run_case(files[3], _i); }
END_TEST

/* Memory runs out at each of many points of loading the module: an error each time, and at last it is there. */
static int load(lua_State *L) {
  luaL_openlibs(L);
  luaL_requiref(L, "quernel", luaopen_quernel, 0);
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
  lua_State *L = open_file(file);
  int n = (int)lua_rawlen(L, -1);
  lua_close(L);
  return n;
}

int main(int argc, char **argv) {
  (void)argc;
  const TTest *const tests[] = {module, ffi, measure, models};
  if (!mkdtemp(scratch)) return 1;
  char cache[64], remove[64];
  snprintf(cache, sizeof cache, "%s/cache", scratch);
  setenv("QUERNEL_CACHE", cache, 1);
  unsetenv("QUERNEL_TEMPLATES");
  Suite *s = suite_create("lua");
  for (int i = 0; i < 4; i++) {
    const char *only = getenv("QN_FILE");
    if (only && strcmp(only, files[i])) continue;
    TCase *c = tcase_create(files[i]);
    tcase_set_timeout(c, 300);
    tcase_add_loop_test(c, tests[i], 0, count(files[i]));
    suite_add_tcase(s, c);
  }
  TCase *memory = tcase_create("memory");
  tcase_set_timeout(memory, 300);
  tcase_add_test(memory, memory_that_runs_out_is_an_error);
  suite_add_tcase(s, memory);
  int failed = run_suite(s, argv[0]);
  snprintf(remove, sizeof remove, "rm -rf %s", scratch);
  return system(remove) || failed;
}
