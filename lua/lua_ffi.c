/* lua_ffi.c - C functions of any shared library from a script, through libffi, and typed memory to hand them.
 *
 *     local m = assert(q.ffi.load "libm.so.6")
 *     local hypot = assert(m:func "double hypot(double x, double y)")
 *     local x = q.ffi.buffer("float", 1000)      x[1] .. x[1000], every access checked
 *
 * A signature is a C prototype of integers, floats and pointers. Numbers are checked against the range of their type,
 * buffers against the type that is pointed to; what the function does with the memory is its own affair. Strings go
 * where a const pointer to bytes is wanted. No structs by value, no callbacks, no variable arguments. */
#include "bind.h"
#include "types.h"
#include <ctype.h>
#include <dlfcn.h>
#include <ffi.h>
#include <stdlib.h>
#include <string.h>

static const char library_class[] = "quernel.library", function_class[] = "quernel.function",
                  buffer_class[] = "quernel.buffer", pointer_class[] = "quernel.pointer";

/* ---- Types ------------------------------------------------------------------------------------------------------- */

typedef enum kind {
  VOID,
  BOOLEAN,
  SIGNED,
  UNSIGNED,
  FLOATING,
  PACKED /* 16-bit floats, in memory only */
} kind;

typedef struct ctype {
  const char *name; /* short name; C names are mapped to it */
  kind kind;
  size_t size;
  ffi_type *ffi;
  qn_type type;
} ctype;

static const ctype types[] = {
    {"void", VOID, 0, &ffi_type_void, QN_T_NONE},
    {"bool", BOOLEAN, 1, &ffi_type_uint8, QN_T_NONE},
    {"i8", SIGNED, 1, &ffi_type_sint8, QN_T_I8},
    {"u8", UNSIGNED, 1, &ffi_type_uint8, QN_T_U8},
    {"i16", SIGNED, 2, &ffi_type_sint16, QN_T_NONE},
    {"u16", UNSIGNED, 2, &ffi_type_uint16, QN_T_U16},
    {"i32", SIGNED, 4, &ffi_type_sint32, QN_T_I32},
    {"u32", UNSIGNED, 4, &ffi_type_uint32, QN_T_U32},
    {"i64", SIGNED, 8, &ffi_type_sint64, QN_T_NONE},
    {"u64", UNSIGNED, 8, &ffi_type_uint64, QN_T_NONE},
    {"f32", FLOATING, 4, &ffi_type_float, QN_T_F32},
    {"f64", FLOATING, 8, &ffi_type_double, QN_T_F64},
    {"f16", PACKED, 2, NULL, QN_T_F16},
    {"bf16", PACKED, 2, NULL, QN_T_BF16},
    {"e4m3", UNSIGNED, 1, &ffi_type_uint8, QN_T_E4M3},
    {"e5m2", UNSIGNED, 1, &ffi_type_uint8, QN_T_E5M2},
    {"e8m0", UNSIGNED, 1, &ffi_type_uint8, QN_T_E8M0},
};

static const struct {
  const char *c, *name; /* words of the C type, sorted; "int" left out where it stands beside others */
} c_names[] = {
    {"char", "i8"},       {"char signed", "i8"},   {"char unsigned", "u8"},     {"short", "i16"},
    {"int", "i32"},       {"short signed", "i16"}, {"short unsigned", "u16"},   {"signed", "i32"},
    {"unsigned", "u32"},  {"long", "i64"},         {"long signed", "i64"},      {"long unsigned", "u64"},
    {"long long", "i64"}, {"float", "f32"},        {"long long signed", "i64"}, {"long long unsigned", "u64"},
    {"int8_t", "i8"},     {"uint8_t", "u8"},       {"int16_t", "i16"},          {"uint16_t", "u16"},
    {"int32_t", "i32"},   {"uint32_t", "u32"},     {"int64_t", "i64"},          {"uint64_t", "u64"},
    {"size_t", "u64"},    {"ssize_t", "i64"},      {"ptrdiff_t", "i64"},        {"intptr_t", "i64"},
    {"uintptr_t", "u64"}, {"double", "f64"},       {"_Bool", "bool"},
};
_Static_assert(sizeof(long) == 8 && sizeof(void *) == 8, "long and pointers of 64 bits");

static const ctype *type_find(const char *name) {
  for (size_t i = 0; i < QN_COUNT(c_names); i++)
    if (strcmp(c_names[i].c, name) == 0) name = c_names[i].name;
  for (size_t i = 0; i < QN_COUNT(types); i++)
    if (strcmp(types[i].name, name) == 0) return &types[i];
  return NULL;
}

static const ctype *type_of(qn_type t) {
  for (size_t i = 0; i < QN_COUNT(types); i++)
    if (t != QN_T_NONE && types[i].type == t) return &types[i];
  return NULL;
}

/* ---- Buffers ----------------------------------------------------------------------------------------------------- */

typedef struct buffer {
  const ctype *type;
  size_t count;
  void *data; /* aligned to 64 */
  bool owned; /* else memory of somebody else, seen through a pointer */
} buffer;

static buffer *buffer_new(lua_State *L, const ctype *type, size_t count) {
  buffer *b = lua_newuserdatauv(L, sizeof *b, 0);
  *b = (buffer){.type = type, .count = count};
  luaL_setmetatable(L, buffer_class);
  return b;
}

static void buffer_take(lua_State *L, buffer *b) {
  size_t bytes = b->count <= SIZE_MAX / 4 / b->type->size ? (b->count * b->type->size + 63) / 64 * 64 : 0;
  b->data = bytes ? aligned_alloc(64, bytes) : NULL;
  if (b->data) memset(b->data, 0, bytes);
  else luaL_error(L, "no memory for %I elements of type %s", (lua_Integer)b->count, b->type->name);
  b->owned = true;
}

void *qn__lua_buffer(lua_State *L, qn_type type, size_t count) {
  const ctype *t = type_of(type);
  if (!t) return luaL_error(L, "no buffers of type %s", qn_type_name(type)), NULL;
  buffer *b = buffer_new(L, t, count);
  buffer_take(L, b);
  return b->data;
}

static buffer *check_buffer(lua_State *L, int index) {
  buffer *b = luaL_checkudata(L, index, buffer_class);
  if (!b->count) luaL_argerror(L, index, "the buffer is closed");
  return b;
}

qn_span qn__lua_span(lua_State *L, int index) {
  buffer *b = check_buffer(L, index);
  return (qn_span){.data = b->data, .type = b->type->type, .count = b->count, .bytes = b->count * b->type->size};
}

static const ctype *check_type(lua_State *L, int index) {
  const char *name = luaL_checkstring(L, index);
  const ctype *t = type_find(name);
  if (!t || t->kind == VOID) luaL_argerror(L, index, lua_pushfstring(L, "'%s' is no type of elements", name));
  return t;
}

/* buffer(type, count [, pointer]): zeroed memory, or a view of `count` elements where the pointer points */
static int buffer_make(lua_State *L) {
  const ctype *t = check_type(L, 1);
  lua_Integer count = luaL_checkinteger(L, 2);
  luaL_argcheck(L, count > 0, 2, "a buffer has at least one element");
  void **pointer = lua_isnoneornil(L, 3) ? NULL : luaL_checkudata(L, 3, pointer_class);
  luaL_argcheck(L, !pointer || (size_t)count <= SIZE_MAX / 4 / t->size, 2, "more elements than there are addresses");
  luaL_argcheck(L, !pointer || (uintptr_t)*pointer % t->size == 0, 3,
                "the address is no multiple of the element's size");
  buffer *b = buffer_new(L, t, (size_t)count);
  if (pointer) b->data = *pointer;
  else buffer_take(L, b);
  return 1;
}

static int buffer_gc(lua_State *L) {
  buffer *b = luaL_checkudata(L, 1, buffer_class);
  if (b->owned) free(b->data);
  *b = (buffer){.type = b->type};
  return 0;
}

static void push_element(lua_State *L, const ctype *t, const void *p) {
  uint64_t bits = 0;
  float f;
  double d;
  memcpy(&bits, p, t->size); /* little-endian */
  int unused = 64 - 8 * (int)t->size;
  switch (t->kind) {
  case BOOLEAN:
    lua_pushboolean(L, bits != 0);
    break;
  case SIGNED:
    lua_pushinteger(L, (lua_Integer)(bits << unused) >> unused);
    break;
  case UNSIGNED:
    lua_pushinteger(L, (lua_Integer)bits);
    break; /* u64 beyond 2^63 wraps, as Lua's own integers do */
  default:
    if (t->size == 8) {
      memcpy(&d, p, sizeof d);
    } else {
      qn_convert(p, t->type, &f, QN_T_F32, 1);
      d = (double)f;
    }
    lua_pushnumber(L, d);
  }
}

static void store_integer(lua_State *L, const ctype *t, void *p, int index) {
  lua_Integer x = luaL_checkinteger(L, index);
  if (t->size < 8) {
    int bits = (int)t->size * 8 - (t->kind == SIGNED);
    lua_Integer high = ((lua_Integer)1 << bits) - 1, low = t->kind == SIGNED ? -high - 1 : 0;
    if (x < low || x > high)
      luaL_argerror(L, index, lua_pushfstring(L, "%I is outside %I .. %I (%s)", x, low, high, t->name));
  }
  memcpy(p, &x, t->size); /* little-endian */
}

/* Store the value at `index` as an element; raises when it does not fit the type. */
static void store_element(lua_State *L, const ctype *t, void *p, int index) {
  float f;
  double d;
  switch (t->kind) {
  case BOOLEAN:
    *(unsigned char *)p = (unsigned char)lua_toboolean(L, index);
    break;
  case SIGNED:
  case UNSIGNED:
    store_integer(L, t, p, index);
    break;
  default:
    d = luaL_checknumber(L, index);
    f = (float)d;
    if (t->size == 8) memcpy(p, &d, sizeof d);
    else qn_convert(&f, QN_T_F32, p, t->type, 1);
  }
}

static char *element(lua_State *L, buffer *b, int index) {
  lua_Integer i = luaL_checkinteger(L, index);
  if (i < 1 || (size_t)i > b->count) luaL_error(L, "index %I is outside 1 .. %I", i, (lua_Integer)b->count);
  return (char *)b->data + (size_t)(i - 1) * b->type->size;
}

/* b[i], or a method */
static int buffer_index(lua_State *L) {
  if (lua_type(L, 2) == LUA_TNUMBER) {
    buffer *b = check_buffer(L, 1);
    push_element(L, b->type, element(L, b, 2));
  } else {
    lua_getmetatable(L, 1);
    lua_pushvalue(L, 2);
    lua_rawget(L, -2);
  }
  return 1;
}

static int buffer_newindex(lua_State *L) {
  buffer *b = check_buffer(L, 1);
  store_element(L, b->type, element(L, b, 2), 3);
  return 0;
}

static int buffer_length(lua_State *L) {
  lua_pushinteger(L, (lua_Integer)((buffer *)luaL_checkudata(L, 1, buffer_class))->count);
  return 1;
}

/* b:type() -> "f32" */
static int buffer_type(lua_State *L) {
  lua_pushstring(L, ((buffer *)luaL_checkudata(L, 1, buffer_class))->type->name);
  return 1;
}

/* b:fill(x) sets every element; b:fill(function(i)) asks for each. Returns b. */
static int buffer_fill(lua_State *L) {
  size_t count = check_buffer(L, 1)->count;
  luaL_checkany(L, 2);
  lua_settop(L, 2);
  for (size_t i = 0; i < count; i++) {
    lua_pushvalue(L, 2);
    if (lua_isfunction(L, 2)) {
      lua_pushinteger(L, (lua_Integer)i + 1);
      lua_call(L, 1, 1);
    }
    buffer *b = check_buffer(L, 1); /* the function may have closed it */
    store_element(L, b->type, (char *)b->data + i * b->type->size, 3);
    lua_pop(L, 1);
  }
  lua_settop(L, 1);
  return 1;
}

/* b:bytes() -> the memory as a string */
static int buffer_bytes(lua_State *L) {
  qn_span s = qn__lua_span(L, 1);
  lua_pushlstring(L, s.data, s.bytes);
  return 1;
}

/* b:set(string): overwrite the beginning. Returns b. */
static int buffer_set(lua_State *L) {
  qn_span s = qn__lua_span(L, 1);
  size_t size;
  const char *text = luaL_checklstring(L, 2, &size);
  luaL_argcheck(L, size <= s.bytes, 2, "more bytes than the buffer has");
  memcpy(s.data, text, size);
  lua_settop(L, 1);
  return 1;
}

/* b:convert(type) -> a new buffer: between f32, f16, bf16 */
static int buffer_convert(lua_State *L) {
  buffer *b = check_buffer(L, 1);
  const ctype *t = check_type(L, 2);
  buffer *out = buffer_new(L, t, b->count);
  buffer_take(L, out);
  if (qn_convert(b->data, b->type->type, out->data, t->type, b->count) != QN_OK)
    return luaL_error(L, "no conversion from %s to %s", b->type->name, t->name);
  return 1;
}

/* b:quantize(m, k [, type, else "i8"]) -> buffer of that type [m, k], buffer f32 [m]: rows of f32 activations with a
 * scale each */
static int buffer_quantize(lua_State *L) {
  qn_span x = qn__lua_span(L, 1);
  lua_Integer m = luaL_checkinteger(L, 2), k = luaL_checkinteger(L, 3);
  luaL_argcheck(L, x.type == QN_T_F32, 1, "f32 expected");
  luaL_argcheck(L, m > 0 && k > 0 && (size_t)k <= x.count / (size_t)m, 2, "more elements than the buffer has");
  qn_type type = qn_type_from_name(luaL_optstring(L, 4, "i8"));
  luaL_argcheck(L, qn__act_scaled(type), 4, "a type of activations with scales expected");
  void *codes = qn__lua_buffer(L, type, (size_t)(m * k));
  float *scale = qn__lua_buffer(L, QN_T_F32, (size_t)m);
  qn_quantize_rows(x.data, m, k, k, type, codes, scale);
  return 2;
}

/* ---- Signatures -------------------------------------------------------------------------------------------------- */

enum { MAX_ARGS = 16, MAX_WORD = 64 };

typedef struct argtype {
  const ctype *base;
  int pointers;
  bool constant; /* what is pointed to */
} argtype;

typedef struct function {
  char name[MAX_WORD];
  void (*address)(void);
  unsigned n;
  argtype result, arg[MAX_ARGS];
  ffi_cif cif;
  ffi_type *arg_ffi[MAX_ARGS];
} function;

typedef struct reader {
  lua_State *L;
  const char *all, *at;
} reader;

static void refuse(reader *r, const char *why) { luaL_error(r->L, "signature \"%s\": %s", r->all, why); }

static void skip_space(reader *r) {
  while (isspace((unsigned char)*r->at)) r->at++;
}

static bool accept(reader *r, char c) {
  skip_space(r);
  if (*r->at != c) return false;
  r->at++;
  return true;
}

/* Read a word into `out`; false if there is none. */
static bool word(reader *r, char out[MAX_WORD]) {
  size_t n = 0;
  skip_space(r);
  if (!isalpha((unsigned char)*r->at) && *r->at != '_') return false;
  while (isalnum((unsigned char)r->at[n]) || r->at[n] == '_') n++;
  if (n >= MAX_WORD) refuse(r, "a name is longer than 63 characters");
  memcpy(out, r->at, n);
  out[n] = 0;
  r->at += n;
  return true;
}

static bool one_of(const char *w, const char *const *list) {
  for (; *list; list++)
    if (strcmp(w, *list) == 0) return true;
  return false;
}

static const char *const qualifiers[] = {"const", "volatile", "restrict", "__restrict", "struct", "union", NULL};
static const char *const parts[] = {"unsigned", "signed", "long", "short", "int", "char", NULL};

static int by_text(const void *a, const void *b) { return strcmp(a, b); }

/* Read the words before the stars: qualifiers, then the parts of one type or one name. The word behind them, if any, is
 * what is declared, and is left. */
static const ctype *read_base(reader *r, char joined[4 * MAX_WORD], bool *constant) {
  char words[4][MAX_WORD], w[MAX_WORD];
  size_t n = 0;
  bool integer = false, open = true; /* open: a further part may follow */
  for (const char *before = r->at; word(r, w); before = r->at) {
    bool part = one_of(w, parts);
    if (one_of(w, qualifiers)) {
      *constant = *constant || strcmp(w, "const") == 0;
    } else if ((n || integer) && !(part && open)) {
      r->at = before;
      break;
    } else if (strcmp(w, "int") == 0) {
      integer = true;
    } else {
      if (n == 4) refuse(r, "too many words in a type");
      strcpy(words[n++], w);
      open = part;
    }
  }
  if (!n && !integer) refuse(r, "a type is expected");
  qsort(words, n, sizeof *words, by_text);
  strcpy(joined, n ? words[0] : "int");
  for (size_t i = 1; i < n; i++) strcat(strcat(joined, " "), words[i]);
  return type_find(joined);
}

static argtype read_type(reader *r) {
  char joined[4 * MAX_WORD], w[MAX_WORD];
  argtype t = {0};
  t.base = read_base(r, joined, &t.constant);
  while (accept(r, '*')) {
    t.pointers++;
    const char *before = r->at;
    while (word(r, w) && one_of(w, qualifiers)) before = r->at;
    r->at = before;
  }
  if (!t.base && t.pointers) t.base = &types[0]; /* a pointer to something unknown is a void pointer */
  if (!t.base || (!t.pointers && !t.base->ffi))
    refuse(r, lua_pushfstring(r->L, "\"%s\" is no type that can be passed by value", joined));
  return t;
}

static void read_args(reader *r, function *f) {
  char w[MAX_WORD];
  if (accept(r, ')')) return;
  for (;;) {
    skip_space(r);
    if (strncmp(r->at, "...", 3) == 0) refuse(r, "variable arguments are not supported");
    argtype t = read_type(r);
    if (word(r, w) && type_find(w)) refuse(r, lua_pushfstring(r->L, "\"%s\" behind a type is no name", w));
    if (accept(r, '[')) {
      while (*r->at && *r->at != ']') r->at++;
      if (!accept(r, ']')) refuse(r, "] is expected");
      t.pointers++;
    }
    bool nothing = !t.pointers && t.base->kind == VOID;
    if (nothing && f->n) refuse(r, "an argument cannot be void");
    if (f->n == MAX_ARGS) refuse(r, "more than 16 arguments");
    if (!nothing) f->arg[f->n++] = t;
    if (accept(r, ')')) return;
    if (nothing || !accept(r, ',')) refuse(r, ", or ) is expected");
  }
}

static ffi_type *ffi_of(const argtype *t) { return t->pointers ? &ffi_type_pointer : t->base->ffi; }

/* Read "double pow(double x, double y)" into f. */
static void read_signature(lua_State *L, const char *text, function *f) {
  reader r = {.L = L, .all = text, .at = text};
  f->result = read_type(&r);
  if (!word(&r, f->name) || type_find(f->name)) refuse(&r, "the function's name is expected after its type");
  if (!accept(&r, '(')) refuse(&r, "( is expected after the name");
  read_args(&r, f);
  accept(&r, ';');
  skip_space(&r);
  if (*r.at) refuse(&r, "something follows the prototype");
  for (unsigned i = 0; i < f->n; i++) f->arg_ffi[i] = ffi_of(&f->arg[i]);
  if (ffi_prep_cif(&f->cif, FFI_DEFAULT_ABI, f->n, ffi_of(&f->result), f->arg_ffi) != FFI_OK)
    refuse(&r, "libffi refuses it");
}

/* ---- Libraries and calls ----------------------------------------------------------------------------------------- */

/* load(path or nil) -> library, or nil, message, code. nil: what the program itself has. */
static int library_load(lua_State *L) {
  const char *path = luaL_optstring(L, 1, NULL);
  void **handle = lua_newuserdatauv(L, sizeof *handle, 0);
  *handle = NULL;
  luaL_setmetatable(L, library_class);
  *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  return *handle ? 1 : qn__lua_fail(L, qn__fail(QN_E_IO, "%s", dlerror()));
}

static int library_gc(lua_State *L) {
  void **handle = luaL_checkudata(L, 1, library_class);
  if (*handle) dlclose(*handle);
  *handle = NULL;
  return 0;
}

/* lib:func("double pow(double, double)") -> function, or nil, message, code when the library lacks it */
static int library_func(lua_State *L) {
  void **handle = luaL_checkudata(L, 1, library_class);
  const char *text = luaL_checkstring(L, 2);
  luaL_argcheck(L, *handle, 1, "the library is closed");
  function *f = lua_newuserdatauv(L, sizeof *f, 1);
  memset(f, 0, sizeof *f);
  luaL_setmetatable(L, function_class);
  lua_pushvalue(L, 1); /* the library stays as long as its function */
  lua_setiuservalue(L, -2, 1);
  read_signature(L, text, f);
  void *symbol = dlsym(*handle, f->name);
  if (!symbol) return qn__lua_fail(L, qn__fail(QN_E_ARG, "the library has no function '%s'", f->name));
  memcpy(&f->address, &symbol, sizeof symbol);
  lua_settop(L, 3);
  return 1;
}

/* May a buffer of elements `have` go where a pointer to `want` stands? Bytes are bytes, 16-bit floats travel as u16. */
static bool same_memory(const ctype *have, const ctype *want) {
  return want->kind == VOID || have == want || (have->size == 1 && want->size == 1) ||
         (have->kind == PACKED && want->kind == UNSIGNED && want->size == 2);
}

/* The address that the Lua value at `index` stands for. */
static void *pointer_arg(lua_State *L, const argtype *t, int index) {
  void **pointer;
  if (lua_isnoneornil(L, index)) return NULL;
  if (lua_type(L, index) == LUA_TSTRING) {
    if (!t->constant || t->pointers > 1 || t->base->size > 1)
      luaL_argerror(L, index, "a string goes where a const pointer to bytes is wanted");
    return (void *)(uintptr_t)lua_tostring(L, index);
  }
  if ((pointer = luaL_testudata(L, index, pointer_class))) return *pointer;
  if (!luaL_testudata(L, index, buffer_class)) luaL_typeerror(L, index, "buffer, pointer or nil");
  buffer *b = check_buffer(L, index);
  if (t->pointers > 1 || !same_memory(b->type, t->base))
    luaL_argerror(L, index, lua_pushfstring(L, "%s * is wanted, the buffer holds %s", t->base->name, b->type->name));
  return b->data;
}

static void push_result(lua_State *L, const argtype *t, const void *value) {
  void *p;
  memcpy(&p, value, sizeof p);
  if (!t->pointers) {
    push_element(L, t->base, value); /* little-endian: the low bytes come first */
  } else if (!p) {
    lua_pushnil(L);
  } else if (t->pointers == 1 && t->constant && strcmp(t->base->name, "i8") == 0) {
    lua_pushstring(L, p);
  } else {
    *(void **)lua_newuserdatauv(L, sizeof p, 0) = p;
    luaL_setmetatable(L, pointer_class);
  }
}

static int function_call(lua_State *L) {
  function *f = luaL_checkudata(L, 1, function_class);
  union value {
    void *p;
    uint64_t u;
    double d;
  } value[MAX_ARGS] = {0}, result = {0};
  void *at[MAX_ARGS];
  int given = lua_gettop(L) - 1;
  if (given != (int)f->n) return luaL_error(L, "%s takes %d arguments, not %d", f->name, (int)f->n, given);
  lua_getiuservalue(L, 1, 1);
  if (!*(void **)lua_touserdata(L, -1)) return luaL_error(L, "%s: its library is closed", f->name);
  lua_pop(L, 1);
  lua_rotate(L, 1, -1); /* the function goes last, so that messages count arguments from 1 */
  for (unsigned i = 0; i < f->n; i++) {
    at[i] = &value[i];
    if (f->arg[i].pointers) value[i].p = pointer_arg(L, &f->arg[i], (int)i + 1);
    else store_element(L, f->arg[i].base, &value[i], (int)i + 1);
  }
  ffi_call(&f->cif, f->address, &result, at);
  if (!f->result.pointers && f->result.base->kind == VOID) return 0;
  push_result(L, &f->result, &result);
  return 1;
}

static int function_text(lua_State *L) {
  lua_pushfstring(L, "C function %s", ((function *)luaL_checkudata(L, 1, function_class))->name);
  return 1;
}

void qn__lua_ffi(lua_State *L) {
  static const luaL_Reg library_methods[] = {{"func", library_func}, {"__gc", library_gc}, {NULL, NULL}};
  static const luaL_Reg function_methods[] = {{"__call", function_call}, {"__tostring", function_text}, {NULL, NULL}};
  static const luaL_Reg pointer_methods[] = {{NULL, NULL}};
  static const luaL_Reg buffer_methods[] = {
      {"__index", buffer_index},     {"__newindex", buffer_newindex},
      {"__len", buffer_length},      {"__gc", buffer_gc},
      {"close", buffer_gc},          {"type", buffer_type},
      {"fill", buffer_fill},         {"bytes", buffer_bytes},
      {"set", buffer_set},           {"convert", buffer_convert},
      {"quantize", buffer_quantize}, {NULL, NULL},
  };
  static const luaL_Reg functions[] = {{"load", library_load}, {"buffer", buffer_make}, {NULL, NULL}};
  qn__lua_class(L, library_class, library_methods);
  qn__lua_class(L, function_class, function_methods);
  qn__lua_class(L, pointer_class, pointer_methods);
  qn__lua_class(L, buffer_class, buffer_methods);
  luaL_newlib(L, functions);
  lua_setfield(L, -2, "ffi");
}
