/* quernel.c - the Lua module `quernel`: luaopen_quernel, and what the bindings share.
 *
 * The same code is linked into the tool and built as a module for a stock lua5.4. All that a person sees is made by
 * lua/quernel.lua, which is carried inside, as are the generator and the templates. $QUERNEL_TEMPLATES names a source
 * tree whose templates come before those inside. */
#include "bind.h"
#include "clock.h"
#include "embed.h"
#include "file.h"
#include "hash.h"
#include "leash.h"
#include "tree.h"
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

int luaopen_quernel(lua_State *L);

/* ---- Shared by the bindings -------------------------------------------------------------------------------------- */

int qn__lua_fail(lua_State *L, qn_status s) {
  const char *text = qn__errmsg();
  luaL_pushfail(L);
  lua_pushstring(L, *text ? text : qn_status_text(s));
  lua_pushstring(L, qn_status_name(s));
  return 3;
}

int qn__lua_outcome(lua_State *L, qn_status s) {
  if (s != QN_OK) return qn__lua_fail(L, s);
  lua_pushboolean(L, true);
  return 1;
}

/* Push field `name` if it is there and of a type that `is` accepts. */
static bool field(lua_State *L, int index, const char *name, int (*is)(lua_State *, int), const char *wanted) {
  if (lua_getfield(L, index, name) == LUA_TNIL) {
    lua_pop(L, 1);
    return false;
  }
  if (!is(L, -1)) luaL_error(L, "field '%s' must be %s, not %s", name, wanted, luaL_typename(L, -1));
  return true;
}

const char *qn__lua_text(lua_State *L, int index, const char *name, const char *absent) {
  if (!field(L, index, name, lua_isstring, "text")) return absent;
  const char *text = lua_tostring(L, -1);
  lua_pop(L, 1); /* the table keeps it */
  return text;
}

static int is_whole(lua_State *L, int index) {
  int ok;
  lua_tointegerx(L, index, &ok);
  return ok;
}

int64_t qn__lua_integer(lua_State *L, int index, const char *name, int64_t absent) {
  if (!field(L, index, name, is_whole, "a whole number")) return absent;
  int64_t x = lua_tointeger(L, -1);
  lua_pop(L, 1);
  return x;
}

bool qn__lua_flag(lua_State *L, int index, const char *name) {
  lua_getfield(L, index, name);
  bool x = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return x;
}

void qn__lua_set_text(lua_State *L, const char *name, const char *value) {
  lua_pushstring(L, value); /* nil for NULL */
  lua_setfield(L, -2, name);
}
void qn__lua_set_number(lua_State *L, const char *name, double value) {
  lua_pushnumber(L, value);
  lua_setfield(L, -2, name);
}
void qn__lua_set_integer(lua_State *L, const char *name, int64_t value) {
  lua_pushinteger(L, value);
  lua_setfield(L, -2, name);
}
void qn__lua_set_flag(lua_State *L, const char *name, bool value) {
  lua_pushboolean(L, value);
  lua_setfield(L, -2, name);
}

void qn__lua_known(lua_State *L, int index, const char *what, const char *fields) {
  index = lua_absindex(L, index);
  lua_getfield(L, LUA_REGISTRYINDEX, "quernel.known");
  lua_pushvalue(L, index);
  lua_pushstring(L, what);
  lua_pushstring(L, fields);
  lua_call(L, 3, 0);
}

/* known(function(table, what, fields)): what C calls for that */
static int set_known(lua_State *L) {
  luaL_checktype(L, 1, LUA_TFUNCTION);
  lua_setfield(L, LUA_REGISTRYINDEX, "quernel.known");
  return 0;
}

bool qn__lua_protected(lua_State *L, lua_CFunction fn, int index, void *ud) {
  lua_pushcfunction(L, fn);
  lua_pushvalue(L, index);
  lua_pushlightuserdata(L, ud);
  return lua_pcall(L, 2, 0, 0) != LUA_OK;
}

void qn__lua_class(lua_State *L, const char *name, const luaL_Reg *methods) {
  luaL_newmetatable(L, name);
  luaL_setfuncs(L, methods, 0);
  if (lua_getfield(L, -1, "__index") == LUA_TNIL) {
    lua_pushvalue(L, -2);
    lua_setfield(L, -3, "__index");
  }
  lua_pop(L, 2);
}

void *qn__lua_block(lua_State *L, size_t bytes) {
  void *p = lua_newuserdatauv(L, bytes ? bytes : 1, 0);
  return memset(p, 0, bytes);
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

static const char json_class[] = "quernel.json";

static int json_gc(lua_State *L) {
  cJSON **j = luaL_checkudata(L, 1, json_class);
  cJSON_Delete(*j);
  *j = NULL;
  return 0;
}

cJSON **qn__lua_json_box(lua_State *L) {
  cJSON **j = lua_newuserdatauv(L, sizeof *j, 0);
  *j = NULL;
  luaL_setmetatable(L, json_class);
  return j;
}

cJSON *qn__lua_json(lua_State *L, int index) {
  size_t size;
  const char *text = luaL_checklstring(L, index, &size);
  cJSON **j = qn__lua_json_box(L);
  *j = cJSON_ParseWithLength(text, size);
  char start[64];
  snprintf(start, sizeof start, "%.60s", text);
  if (!*j) luaL_error(L, "malformed JSON: %s", start);
  return *j;
}

void qn__lua_push_json(lua_State *L, const cJSON *j) {
  luaL_checkstack(L, 4, "JSON nested too deep");
  if (cJSON_IsString(j)) {
    lua_pushstring(L, j->valuestring);
  } else if (cJSON_IsNumber(j)) {
    if (fabs(j->valuedouble) < 9e15 && j->valuedouble == trunc(j->valuedouble))
      lua_pushinteger(L, (lua_Integer)j->valuedouble);
    else lua_pushnumber(L, j->valuedouble);
  } else if (cJSON_IsBool(j)) {
    lua_pushboolean(L, cJSON_IsTrue(j));
  } else if (cJSON_IsArray(j) || cJSON_IsObject(j)) {
    lua_newtable(L);
    lua_Integer at = 0;
    for (const cJSON *x = j->child; x; x = x->next) {
      qn__lua_push_json(L, x);
      if (cJSON_IsArray(j)) lua_seti(L, -2, ++at);
      else lua_setfield(L, -2, x->string);
    }
  } else {
    lua_pushnil(L);
  }
}

static int parse_json(lua_State *L) {
  qn__lua_push_json(L, qn__lua_json(L, 1));
  return 1;
}

/* ---- Files inside ------------------------------------------------------------------------------------------------ */

/* Path of a template below $QUERNEL_TEMPLATES; false for what is no template, or if that is not set. */
static bool override_path(const char *name, char path[PATH_MAX]) {
  const char *root = getenv("QUERNEL_TEMPLATES");
  return strncmp(name, "templates", 9) == 0 && root && *root &&
         snprintf(path, PATH_MAX, "%s/%s", root, name) < PATH_MAX;
}

/* Push the text of a file, or nothing. No file is open while Lua may raise. */
static bool push_file(lua_State *L, const char *path) {
  struct stat st;
  if (stat(path, &st) || !S_ISREG(st.st_mode)) return false;
  char *text = qn__lua_block(L, (size_t)st.st_size);
  FILE *f = fopen(path, "rb");
  size_t got = f ? fread(text, 1, (size_t)st.st_size, f) : 0;
  bool ok = f && !ferror(f);
  if (f) fclose(f);
  if (ok) lua_pushlstring(L, text, got);
  lua_remove(L, ok ? -2 : -1);
  return ok;
}

/* read(name) -> text, and the path of the file if it is not one of those inside; or nil */
static int read_embedded(lua_State *L) {
  const char *name = luaL_checkstring(L, 1);
  char path[PATH_MAX];
  if (override_path(name, path) && push_file(L, path)) {
    lua_pushstring(L, path);
    return 2;
  }
  for (size_t i = 0; i < qn__embedded_count; i++)
    if (strcmp(qn__embedded[i].name, name) == 0) {
      lua_pushlstring(L, qn__embedded[i].text, qn__embedded[i].size);
      return 1;
    }
  luaL_pushfail(L);
  return 1;
}

static const char folder_class[] = "quernel.folder";

static void close_folder(DIR **d) {
  if (*d) closedir(*d);
  *d = NULL;
}

static int folder_gc(lua_State *L) {
  close_folder(luaL_checkudata(L, 1, folder_class));
  return 0;
}

/* Push an open folder, which Lua closes if an error keeps the caller from it. NULL in it: there is none. [-0, +1, m] */
static DIR **open_folder(lua_State *L, const char *path) {
  DIR **d = lua_newuserdatauv(L, sizeof(DIR *), 0);
  *d = NULL;
  luaL_setmetatable(L, folder_class);
  *d = opendir(path);
  return d;
}

/* Set the names of a folder's Lua files as keys of the table at `index`; none if there is no such folder. */
static void add_files(lua_State *L, int index, const char *path) {
  DIR **d = open_folder(L, path);
  for (struct dirent *e; *d && (e = readdir(*d));) {
    const char *dot = strrchr(e->d_name, '.');
    if (!dot || strcmp(dot, ".lua") || e->d_name[0] == '.') continue;
    lua_pushboolean(L, 1);
    lua_setfield(L, index, e->d_name);
  }
  close_folder(d);
  lua_pop(L, 1);
}

/* list(folder) -> the names in it that end in .lua, as keys of a table */
static int list_embedded(lua_State *L) {
  const char *folder = luaL_checkstring(L, 1);
  size_t length = strlen(folder);
  lua_newtable(L);
  for (size_t i = 0; i < qn__embedded_count; i++) {
    const char *name = qn__embedded[i].name;
    if (strncmp(name, folder, length) || name[length] != '/' || strchr(name + length + 1, '/')) continue;
    qn__lua_set_flag(L, name + length + 1, true);
  }
  char path[PATH_MAX];
  if (override_path(folder, path)) add_files(L, 2, path);
  return 1;
}

/* ---- The machine around ------------------------------------------------------------------------------------------ */

static int hash(lua_State *L) {
  size_t size;
  const char *text = luaL_checklstring(L, 1, &size);
  char hex[2 * QN_HASH_BYTES + 1];
  qn__hash_hex(text, size, hex);
  lua_pushstring(L, hex);
  return 1;
}

/* clock() -> seconds of a clock that never goes back */
static int now(lua_State *L) {
  lua_pushnumber(L, qn__now());
  return 1;
}

/* terminal("stdout" | "stderr") -> columns of the terminal that it is, or nil */
static int terminal(lua_State *L) {
  static const char *const names[] = {"stdout", "stderr", NULL};
  static const int files[] = {STDOUT_FILENO, STDERR_FILENO};
  struct winsize w;
  int fd = files[luaL_checkoption(L, 1, NULL, names)];
  if (!isatty(fd)) return 0;
  lua_pushinteger(L, ioctl(fd, TIOCGWINSZ, &w) == 0 && w.ws_col ? w.ws_col : 80);
  return 1;
}

/* Of the process: a signal handler says it. */
static char parting_text[1024] = "quernel: interrupted\n";

const char *qn__lua_parting(void) { return parting_text; }

/* parting(text): from now on this is what the tool says when a signal ends it */
static int parting(lua_State *L) {
  snprintf(parting_text, sizeof parting_text, "%s", luaL_checkstring(L, 1));
  return 0;
}

/* The file that holds this code, tool or module. */
static bool own_path(char path[PATH_MAX]) {
  Dl_info info;
  bool known = dladdr((void *)(uintptr_t)luaopen_quernel, &info) && info.dli_fname; /* not in a static program */
  if (known && strchr(info.dli_fname, '/') && realpath(info.dli_fname, path)) return true;
  ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - 1); /* the tool, started through $PATH */
  if (n >= 0) path[n] = 0;
  return n >= 0;
}

/* folder() -> its directory, or nil */
static int folder(lua_State *L) {
  char path[PATH_MAX];
  if (!own_path(path)) return 0;
  lua_pushlstring(L, path, (size_t)(strrchr(path, '/') - path));
  return 1;
}

/* build() -> hash of it: no two programs that may compute otherwise have the same. nil, message, code */
static int build(lua_State *L) {
  char path[PATH_MAX], text[33], *data;
  size_t size;
  qn_status s = own_path(path) ? qn__file_read(path, &data, &size) : qn__fail(QN_E_IO, "the file of this program");
  if (s != QN_OK) return qn__lua_fail(L, s);
  qn__hash_hex(data, size, text);
  free(data);
  lua_pushstring(L, text);
  return 1;
}

/* printable(text) -> the same without control characters but newline and tab */
static int printable(lua_State *L) {
  size_t size;
  const char *text = luaL_tolstring(L, 1, &size);
  luaL_Buffer b;
  char *out = luaL_buffinitsize(L, &b, size + 1);
  memcpy(out, text, size + 1);
  for (size_t i = 0; i < size; i++)
    if (!out[i]) out[i] = '?';
  qn__printable(out);
  luaL_pushresultsize(&b, size);
  return 1;
}

static const char scratch_class[] = "quernel.scratch";

/* scratch() -> a new empty folder, or nil, message, code; it goes with all that is in it when it is closed */
static int scratch(lua_State *L) {
  qn_scratch *folder = qn__lua_block(L, sizeof *folder);
  luaL_setmetatable(L, scratch_class);
  qn_status s = qn__scratch_open(folder);
  return s == QN_OK ? 1 : qn__lua_fail(L, s);
}

static int scratch_path(lua_State *L) {
  lua_pushstring(L, ((qn_scratch *)luaL_checkudata(L, 1, scratch_class))->path);
  return 1;
}

static int scratch_close(lua_State *L) {
  qn__scratch_close(luaL_checkudata(L, 1, scratch_class));
  return 0;
}

/* exists(path) -> is there such a file or directory */
static int exists(lua_State *L) {
  lua_pushboolean(L, access(luaL_checkstring(L, 1), R_OK) == 0);
  return 1;
}

/* writable(path) -> true if a file can be written there, as qn__output_open does it, or nil, message, code */
static int writable(lua_State *L) {
  qn_output o;
  qn_status s = qn__output_open(&o, luaL_checkstring(L, 1));
  if (s == QN_OK) qn__output_abandon(&o);
  return qn__lua_outcome(L, s);
}

/* make_folder(path) -> true, or nil, message, code; with the folders that it is in, and if it is there already */
static int make_folder(lua_State *L) { return qn__lua_outcome(L, qn__tree_make(luaL_checkstring(L, 1))); }

/* files(path) -> list of { path, bytes, modified (seconds since 1970) } of the files in a folder; empty if it is not
 * there */
static int files(lua_State *L) {
  const char *folder = luaL_checkstring(L, 1);
  char path[PATH_MAX];
  struct stat st;
  lua_newtable(L);
  DIR **d = open_folder(L, folder);
  for (struct dirent *f; *d && (f = readdir(*d));) {
    snprintf(path, sizeof path, "%s/%s", folder, f->d_name);
    if (lstat(path, &st) || !S_ISREG(st.st_mode)) continue;
    lua_newtable(L);
    qn__lua_set_text(L, "path", path);
    qn__lua_set_integer(L, "bytes", st.st_size);
    qn__lua_set_integer(L, "modified", st.st_mtime);
    lua_seti(L, 2, luaL_len(L, 2) + 1);
  }
  close_folder(d);
  lua_pop(L, 1);
  return 1;
}

/* remove(path) -> true, or nil, message, code. What is not there, as another process removed it, is removed. */
static int remove_file(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  bool gone = !remove(path) || errno == ENOENT;
  return qn__lua_outcome(L, gone ? QN_OK : qn__fail(QN_E_IO, "%s: cannot be removed: %s", path, strerror(errno)));
}

/* environment(prefix) -> the names of the variables that begin so */
static int environment(lua_State *L) {
  const char *prefix = luaL_checkstring(L, 1);
  lua_newtable(L);
  for (char **e = environ; *e; e++) {
    if (strncmp(*e, prefix, strlen(prefix))) continue;
    lua_pushlstring(L, *e, strcspn(*e, "="));
    lua_seti(L, 2, luaL_len(L, 2) + 1);
  }
  return 1;
}

static const luaL_Reg base[] = {
    {"read", read_embedded},
    {"list", list_embedded},
    {"hash", hash},
    {"parse_json", parse_json},
    {"clock", now},
    {"terminal", terminal},
    {"folder", folder},
    {"exists", exists},
    {"scratch", scratch},
    {"environment", environment},
    {"printable", printable},
    {"parting", parting},
    {"writable", writable},
    {"build", build},
    {"make_folder", make_folder},
    {"files", files},
    {"remove", remove_file},
    {"known", set_known},
    {NULL, NULL},
};

/* $QUERNEL_TEMPLATES, if it is set, has a folder of templates. */
static void check_templates(lua_State *L) {
  char path[PATH_MAX];
  struct stat st;
  if (override_path("templates", path) && (stat(path, &st) || !S_ISDIR(st.st_mode)))
    luaL_error(L, "QUERNEL_TEMPLATES: there is no folder %s", path);
}

/* The module: the chunk lua/quernel.lua, called with the table of native functions. [-0, +1, v] */
QN_API int luaopen_quernel(lua_State *L) {
  static const luaL_Reg json_methods[] = {{"__gc", json_gc}, {NULL, NULL}};
  static const luaL_Reg scratch_methods[] = {
      {"path", scratch_path}, {"close", scratch_close}, {"__gc", scratch_close}, {NULL, NULL}};
  luaL_checkversion(L);
  static const luaL_Reg folder_methods[] = {{"__gc", folder_gc}, {NULL, NULL}};
  qn__lua_class(L, json_class, json_methods);
  qn__lua_class(L, folder_class, folder_methods);
  qn__lua_class(L, scratch_class, scratch_methods);
  check_templates(L);
  lua_pushcfunction(L, read_embedded);
  lua_pushliteral(L, "lua/quernel.lua");
  lua_call(L, 1, 1); /* text */
  size_t size;
  const char *text = luaL_checklstring(L, -1, &size);
  if (luaL_loadbufferx(L, text, size, "@lua/quernel.lua", "t") != LUA_OK) return lua_error(L);
  luaL_newlib(L, base); /* text chunk native */
  qn__lua_gen(L);
  qn__lua_device(L);
  qn__lua_model(L);
  qn__lua_write(L);
  qn__lua_tune(L);
  qn__lua_pack(L);
  qn__lua_serve(L);
  qn__lua_worker(L);
  qn__lua_store(L);
  qn__lua_ffi(L);
  qn__lua_limit(L);
  qn__lua_decoder(L);
  qn__lua_eval(L);
  qn__lua_calibrate(L);
  qn__lua_tokens(L);
  qn__lua_set_text(L, "version", qn_version());
  lua_call(L, 1, 1);
  return 1;
}
