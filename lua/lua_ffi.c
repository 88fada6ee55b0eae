/* lua_ffi.c - C functions of any library, called from Lua through libffi; and typed memory to hand them.
 *
 *   local m = q.ffi.load "libm.so.6"                 nil: the process itself
 *   local pow = m:func "double pow(double, double)"  the signature is read, not compiled
 *   local x = q.ffi.buffer("f32", 1024)              x[1] … x[#x], bounds-checked; passed where a pointer is wanted
 *
 * Types: void, int, unsigned, long, unsigned long, int8_t … uint64_t, size_t, float, double, and pointers: `char *` takes
 * and gives text, any other pointer a buffer, nil or a light userdata. A wrong signature is the caller's own risk. */
#include "bind.h"
#include <dlfcn.h>
#include <ffi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char library_class[] = "quernel.library", function_class[] = "quernel.function", buffer_class[] = "quernel.buffer";
enum { max_args = 32 };

/* ---- Buffers --------------------------------------------------------------------------------------------------------- */

typedef struct buffer {
  qn_type type;
  size_t count;
  _Alignas(64) unsigned char data[];
} buffer;

void *qn__lua_buffer(lua_State *L, qn_type type, size_t count) {
  size_t size = (size_t)qn_type_bits(type) / 8;
  if (!size || count > ((size_t)1 << 40) / size) luaL_error(L, "a buffer of %s elements cannot be made", qn_type_name(type));
  buffer *b = lua_newuserdatauv(L, sizeof *b + count * size + 64, 0);
  memset(b, 0, sizeof *b + count * size);
  b->type = type;
  b->count = count;
  luaL_setmetatable(L, buffer_class);
  return b->data;
}

qn_span qn__lua_span(lua_State *L, int index) {
  buffer *b = luaL_checkudata(L, index, buffer_class);
  return (qn_span){b->data, b->type, b->count, b->count * (size_t)qn_type_bits(b->type) / 8};
}

/* buffer(type, count) */
static int buffer_new(lua_State *L) {
  qn_type t = qn_type_from_name(luaL_checkstring(L, 1));
  lua_Integer n = luaL_checkinteger(L, 2);
  luaL_argcheck(L, t != QN_T_NONE, 1, "unknown element type");
  luaL_argcheck(L, n >= 0, 2, "a count of at least 0 is needed");
  qn__lua_buffer(L, t, (size_t)n);
  return 1;
}

static void *element(lua_State *L, qn_span *s) {
  *s = qn__lua_span(L, 1);
  lua_Integer i = luaL_checkinteger(L, 2);
  if (i < 1 || (size_t)i > s->count) luaL_error(L, "index %I is outside 1 .. %I", i, (lua_Integer)s->count);
  return (char *)s->data + (size_t)(i - 1) * (size_t)qn_type_bits(s->type) / 8;
}

static int buffer_get(lua_State *L) {
  qn_span s;
  void *p = element(L, &s);
  float f;
  double d;
  int32_t i = 0;
  switch (s.type) {
  case QN_T_U8: lua_pushinteger(L, *(uint8_t *)p); break;
  case QN_T_I8: lua_pushinteger(L, *(int8_t *)p); break;
  case QN_T_U16: lua_pushinteger(L, *(uint16_t *)p); break;
  case QN_T_U32: lua_pushinteger(L, *(uint32_t *)p); break;
  case QN_T_I32: memcpy(&i, p, 4), lua_pushinteger(L, i); break;
  case QN_T_F64: memcpy(&d, p, 8), lua_pushnumber(L, d); break;
  default:
    if (qn_convert(p, s.type, &f, QN_T_F32, 1) != QN_OK) return luaL_error(L, "elements of %s cannot be read", qn_type_name(s.type));
    lua_pushnumber(L, (double)f);
  }
  return 1;
}

static int buffer_set(lua_State *L) {
  qn_span s;
  void *p = element(L, &s);
  float f = (float)luaL_checknumber(L, 3);
  double d = luaL_checknumber(L, 3);
  switch (s.type) {
  case QN_T_U8: case QN_T_I8: *(uint8_t *)p = (uint8_t)luaL_checkinteger(L, 3); break;
  case QN_T_U16: *(uint16_t *)p = (uint16_t)luaL_checkinteger(L, 3); break;
  case QN_T_U32: case QN_T_I32: *(uint32_t *)p = (uint32_t)luaL_checkinteger(L, 3); break;
  case QN_T_F64: memcpy(p, &d, 8); break;
  default:
    if (qn_convert(&f, QN_T_F32, p, s.type, 1) != QN_OK) return luaL_error(L, "elements of %s cannot be written", qn_type_name(s.type));
  }
  return 0;
}

static int buffer_length(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)qn__lua_span(L, 1).count);
  return 1;
}

/* ---- Signatures ------------------------------------------------------------------------------------------------------ */

typedef enum kind { VOID, INTEGER, NATURAL, FLOAT, DOUBLE, TEXT, POINTER } kind;

static const struct type {
  const char *name;
  kind kind;
  ffi_type *ffi;
} types[] = {
    {"void", VOID, &ffi_type_void},         {"char", INTEGER, &ffi_type_schar},      {"int", INTEGER, &ffi_type_sint},
    {"unsigned int", NATURAL, &ffi_type_uint}, {"unsigned", NATURAL, &ffi_type_uint}, {"long", INTEGER, &ffi_type_slong},
    {"unsigned long", NATURAL, &ffi_type_ulong}, {"size_t", NATURAL, &ffi_type_ulong}, {"int8_t", INTEGER, &ffi_type_sint8},
    {"uint8_t", NATURAL, &ffi_type_uint8},  {"int16_t", INTEGER, &ffi_type_sint16},  {"uint16_t", NATURAL, &ffi_type_uint16},
    {"int32_t", INTEGER, &ffi_type_sint32}, {"uint32_t", NATURAL, &ffi_type_uint32}, {"int64_t", INTEGER, &ffi_type_sint64},
    {"uint64_t", NATURAL, &ffi_type_uint64}, {"float", FLOAT, &ffi_type_float},      {"double", DOUBLE, &ffi_type_double},
    {"char *", TEXT, &ffi_type_pointer},    {"*", POINTER, &ffi_type_pointer},
};

typedef struct function {
  void (*entry)(void);
  ffi_cif cif;
  int n;
  const struct type *result, *arg[max_args];
  ffi_type *ffi[max_args];
} function;

/* The type at the head of `s` (without a parameter's name), and what is behind it. NULL if it is none of the table's. */
static const struct type *parse_type(const char *s, const char **rest) {
  char word[64] = "";
  size_t n = 0;
  int stars = 0;
  const struct type *best = NULL;
  for (;;) {
    s += strspn(s, " \t\n");
    if (*s == '*') {
      stars++, s++;
      continue;
    }
    size_t k = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789");
    if (!k || stars) break;
    if (k == 5 && !strncmp(s, "const", 5)) {
      s += k;
      continue;
    }
    if (n + k + 2 >= sizeof word) return NULL;
    char longer[64];
    snprintf(longer, sizeof longer, "%s%s%.*s", word, n ? " " : "", (int)k, s);
    const struct type *hit = NULL;
    for (size_t i = 0; i < QN_COUNT(types); i++)
      if (!strcmp(types[i].name, longer)) hit = &types[i];
    if (!hit && n) break; /* the parameter's name */
    strcpy(word, longer);
    n = strlen(word);
    best = hit;
    s += k;
  }
  *rest = s;
  if (!stars) return best;
  return stars == 1 && !strcmp(word, "char") ? &types[QN_COUNT(types) - 2] : &types[QN_COUNT(types) - 1];
}

/* library:func(signature) -> callable */
static int library_func(lua_State *L) {
  void **lib = luaL_checkudata(L, 1, library_class);
  const char *signature = luaL_checkstring(L, 2), *s;
  char name[128];
  function *f = lua_newuserdatauv(L, sizeof *f, 1);
  memset(f, 0, sizeof *f);
  f->result = parse_type(signature, &s);
  size_t k = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789");
  if (!f->result || !k || k >= sizeof name) return luaL_error(L, "signature \"%s\": expected TYPE NAME(TYPE, TYPE)", signature);
  snprintf(name, sizeof name, "%.*s", (int)k, s);
  s += k;
  s += strspn(s, " ");
  if (*s++ != '(') return luaL_error(L, "signature \"%s\": ( is missing", signature);
  for (s += strspn(s, " "); *s && *s != ')';) {
    if (f->n == max_args) return luaL_error(L, "signature \"%s\": more than %d arguments", signature, max_args);
    const struct type *t = parse_type(s, &s);
    if (!t) return luaL_error(L, "signature \"%s\": unknown type of argument %d", signature, f->n + 1);
    s += strcspn(s, ",)");
    if (t->kind != VOID) f->ffi[f->n] = t->ffi, f->arg[f->n++] = t;
    if (*s == ',') s++;
  }
  *(void **)&f->entry = dlsym(*lib, name);
  if (!f->entry) return qn__lua_fail(L, qn__fail(QN_E_ARG, "%s is not in this library", name));
  if (ffi_prep_cif(&f->cif, FFI_DEFAULT_ABI, (unsigned)f->n, f->result->ffi, f->ffi) != FFI_OK)
    return luaL_error(L, "signature \"%s\" cannot be called", signature);
  luaL_setmetatable(L, function_class);
  lua_pushvalue(L, 1);
  lua_setiuservalue(L, -2, 1); /* the library stays as long as its functions */
  return 1;
}

typedef union value {
  int64_t i;
  uint64_t u;
  float f;
  double d;
  const void *p;
  ffi_arg result;
} value;

static value argument(lua_State *L, const struct type *t, int index) {
  value v = {0};
  switch (t->kind) {
  case FLOAT: v.f = (float)luaL_checknumber(L, index); break;
  case DOUBLE: v.d = luaL_checknumber(L, index); break;
  case TEXT: v.p = lua_isnil(L, index) ? NULL : luaL_checkstring(L, index); break;
  case POINTER:
    if (lua_isnil(L, index)) v.p = NULL;
    else if (lua_islightuserdata(L, index)) v.p = lua_touserdata(L, index);
    else if (lua_type(L, index) == LUA_TSTRING) v.p = lua_tostring(L, index);
    else v.p = qn__lua_span(L, index).data;
    break;
  default: v.i = luaL_checkinteger(L, index); /* little-endian: the low bytes are the narrower types */
  }
  return v;
}

static int function_call(lua_State *L) {
  function *f = luaL_checkudata(L, 1, function_class);
  int given = lua_gettop(L) - 1;
  if (given != f->n) return luaL_error(L, "%d arguments given, %d wanted", given, f->n);
  value v[max_args], out = {0};
  void *pointer[max_args];
  for (int i = 0; i < f->n; i++) {
    v[i] = argument(L, f->arg[i], i + 2);
    pointer[i] = &v[i];
  }
  ffi_call(&f->cif, f->entry, &out, pointer);
  switch (f->result->kind) {
  case VOID: return 0;
  case INTEGER: {
    int shift = 64 - 8 * (int)f->result->ffi->size;
    lua_pushinteger(L, (lua_Integer)(out.u << shift) >> shift);
    break;
  }
  case NATURAL: {
    int shift = 64 - 8 * (int)f->result->ffi->size;
    lua_pushinteger(L, (lua_Integer)(out.u << shift >> shift));
    break;
  }
  case FLOAT: lua_pushnumber(L, (double)out.f); break;
  case DOUBLE: lua_pushnumber(L, out.d); break;
  case TEXT: lua_pushstring(L, out.p); break;
  case POINTER:
    if (out.p) lua_pushlightuserdata(L, (void *)(uintptr_t)out.p);
    else lua_pushnil(L);
  }
  return 1;
}

/* load(path or nil) -> library, or nil, message, code */
static int library_load(lua_State *L) {
  const char *path = luaL_optstring(L, 1, NULL);
  void **lib = lua_newuserdatauv(L, sizeof *lib, 0);
  *lib = NULL;
  luaL_setmetatable(L, library_class);
  *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  return *lib ? 1 : qn__lua_fail(L, qn__fail(QN_E_IO, "%s", dlerror()));
}

static int library_close(lua_State *L) {
  void **lib = luaL_checkudata(L, 1, library_class);
  if (*lib) dlclose(*lib);
  *lib = NULL;
  return 0;
}

void qn__lua_ffi(lua_State *L) {
  static const luaL_Reg library[] = {{"__gc", library_close}, {"func", library_func}, {NULL, NULL}};
  static const luaL_Reg callable[] = {{"__call", function_call}, {NULL, NULL}};
  static const luaL_Reg memory[] = {{"__index", buffer_get}, {"__newindex", buffer_set}, {"__len", buffer_length}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"load", library_load}, {"buffer", buffer_new}, {NULL, NULL}};
  qn__lua_class(L, library_class, library);
  qn__lua_class(L, function_class, callable);
  qn__lua_class(L, buffer_class, memory);
  luaL_newlib(L, functions);
  lua_setfield(L, -2, "ffi");
}
