/* parse.c - PTX text into declarations and instructions.
 *
 * One pass over the text. Symbols live in scopes (every pair of braces is one, labels included, because inline asm
 * repeats its names); branches are bound when the function ends. Whatever the parser does not know it refuses, naming
 * the line: a guess would hide in the results. It longjmps out of any depth; all memory is the module's arena.
 * Source: PTX ISA, "Syntax", "State Spaces, Types, and Variables", "Directives". */
#include "parse.h"
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- Memory and refusal ------------------------------------------------------------------------------------------ */

_Noreturn void qn__emu_refuse(parser *p, const char *format, ...) {
  char text[512], where[160] = "";
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  if (p->line && p->line <= p->module->nlines) {
    const char *s = p->module->lines[p->line - 1];
    s += strspn(s, " \t");
    snprintf(where, sizeof where, ": %.*s", (int)strcspn(s, "\r\n") < 120 ? (int)strcspn(s, "\r\n") : 120, s);
  }
  p->status = qn__fail(QN_E_COMPILE, "PTX line %u: %s%s", p->line, text, where);
  longjmp(p->refuse, 1);
}

static _Noreturn void no_memory(parser *p) {
  p->status = qn__fail(QN_E_NOMEM, "PTX line %u: out of memory", p->line);
  longjmp(p->refuse, 1);
}

void *qn__emu_take(parser *p, size_t bytes) {
  void *q = qn__emu_arena(p->module, bytes);
  if (!q) no_memory(p);
  return q;
}

static void grow(parser *p, void *array, uint32_t *cap, uint32_t need, size_t size) {
  if (need <= *cap) return;
  uint32_t n = *cap ? *cap * 2 : 256;
  void *old = *(void **)array, *q = realloc(old, n * size);
  if (!q) no_memory(p);
  memset((char *)q + *cap * size, 0, (n - *cap) * size);
  *(void **)array = q, *cap = n;
}

/* ---- Rows and constants ------------------------------------------------------------------------------------------ */

enum { MAX_FILE = 1 << 26 };

uint32_t qn__emu_row(parser *p, uint32_t bytes) {
  uint32_t at = p->module->file_bytes;
  if (bytes > MAX_FILE - at) qn__emu_refuse(p, "more than %d bytes of registers", MAX_FILE);
  p->module->file_bytes += (bytes + 63) & ~63u;
  return at;
}

static uint32_t constant_slot(const parser *p, uint64_t value, uint32_t width, bool dynamic) {
  uint64_t h = (value * 31 + width * 2 + dynamic) * UINT64_C(0x9e3779b97f4a7c15);
  const constant *c = p->module->constants;
  for (uint32_t i = (uint32_t)(h >> 40) & p->constant_mask;; i = (i + 1) & p->constant_mask) {
    uint32_t k = p->constant_hash[i];
    if (!k || (c[k - 1].value == value && c[k - 1].width == width && c[k - 1].special == dynamic)) return i;
  }
}

uint32_t qn__emu_constant(parser *p, uint64_t value, uint32_t width, bool dynamic) {
  if (width < 8) value &= (UINT64_C(1) << width * 8) - 1;
  uint32_t slot = constant_slot(p, value, width, dynamic);
  if (p->constant_hash[slot]) return p->module->constants[p->constant_hash[slot] - 1].row;
  qn_emu_module *m = p->module;
  if (m->nconstants * 2 > p->constant_mask) qn__emu_refuse(p, "more than %u constants", p->constant_mask / 2);
  grow(p, &m->constants, &m->constants_cap, m->nconstants + 1, sizeof *m->constants);
  uint32_t row = qn__emu_row(p, width * LANES);
  m->constants[m->nconstants++] = (constant){value, row, (uint8_t)width, dynamic};
  p->constant_hash[slot] = m->nconstants;
  return row;
}

/* ---- Lexer ------------------------------------------------------------------------------------------------------- */

static void blank(parser *p) {
  for (;;) {
    if (*p->s == '\n') p->line++, p->s++;
    else if (*p->s == ' ' || *p->s == '\t' || *p->s == '\r' || *p->s == '\f' || *p->s == '\v') p->s++;
    else if (p->s[0] == '/' && p->s[1] == '/') p->s += strcspn(p->s, "\n");
    else if (p->s[0] == '/' && p->s[1] == '*') {
      for (p->s += 2; *p->s && !(p->s[0] == '*' && p->s[1] == '/'); p->s++) p->line += *p->s == '\n';
      if (!*p->s) qn__emu_refuse(p, "comment without end");
      p->s += 2;
    } else return;
  }
}

static bool take(parser *p, char c) {
  blank(p);
  if (*p->s != c) return false;
  p->s++;
  return true;
}

static void expect(parser *p, char c) {
  if (!take(p, c)) qn__emu_refuse(p, "expected '%c' before '%.8s'", c, p->s);
}

static bool word_char(char c) { return isalnum((unsigned char)c) || c == '_' || c == '$' || c == '%'; }

static size_t word(parser *p, const char **at) {
  blank(p);
  *at = p->s;
  while (word_char(*p->s)) p->s++;
  return (size_t)(p->s - *at);
}

static const char *name(parser *p) {
  const char *at;
  size_t n = word(p, &at);
  if (!n || n > 1000) qn__emu_refuse(p, "expected a name before '%.8s'", at);
  char *copy = qn__emu_take(p, n + 1);
  memcpy(copy, at, n);
  return copy;
}

/* A directive's name after its dot, in a buffer of 64. */
static void dotted(parser *p, char out[64]) {
  const char *at;
  expect(p, '.');
  size_t n = word(p, &at);
  if (!n || n > 63) qn__emu_refuse(p, "expected a directive before '%.8s'", at);
  memcpy(out, at, n);
  out[n] = 0;
}

/* A text in quotes, which ends in the line where it begins; returns its length. */
static size_t quoted(parser *p, const char **at) {
  expect(p, '"');
  *at = p->s;
  size_t n = strcspn(p->s, "\"\n");
  if (p->s[n] != '"') qn__emu_refuse(p, "text in quotes without end");
  p->s += n + 1;
  return n;
}

static uint64_t number(parser *p) {
  blank(p);
  bool minus = *p->s == '-';
  if (minus) p->s++;
  int binary = p->s[0] == '0' && (p->s[1] | 32) == 'b' ? 2 : 0; /* what strtoull does not know as a prefix */
  if (!isdigit((unsigned char)p->s[binary])) qn__emu_refuse(p, "expected a number before '%.8s'", p->s);
  char *end;
  errno = 0;
  uint64_t v = strtoull(p->s + binary, &end, binary);
  if (errno) qn__emu_refuse(p, "a number beyond 64 bits");
  while (*end == 'U' || *end == 'u') end++;
  p->s = end;
  return minus ? 0 - v : v;
}

static uint32_t number_below(parser *p, uint64_t limit, const char *what) {
  uint64_t v = number(p);
  if (v >= limit)
    qn__emu_refuse(p, "%s %llu is not below %llu", what, (unsigned long long)v, (unsigned long long)limit);
  return (uint32_t)v;
}

/* ---- Symbols ----------------------------------------------------------------------------------------------------- */

static uint32_t hash(const char *s, size_t n) {
  uint32_t h = 2166136261u;
  for (size_t i = 0; i < n; i++) h = (h ^ (uint8_t)s[i]) * 16777619u;
  return (h ^ h >> 15) % BUCKETS;
}

static symbol *find_in(const parser *p, const char *s, size_t n, uint32_t scope) {
  for (symbol *y = p->symbols[hash(s, n)]; y; y = y->next)
    if (y->scope == scope && y->length == n && !memcmp(y->name, s, n)) return y;
  return NULL;
}

/* A name, or the prefix of a range such as %r<12> with a number behind it; inner scopes first. */
static symbol *find(const parser *p, const char *s, size_t n, uint32_t *index) {
  size_t stem = n;
  while (stem && isdigit((unsigned char)s[stem - 1])) stem--;
  uint64_t k = stem < n && n - stem < 9 ? strtoull(s + stem, NULL, 10) : UINT64_MAX;
  for (uint32_t scope = p->scope;; scope = p->parent[scope]) {
    symbol *y = find_in(p, s, n, scope);
    *index = 0;
    if (y && y->kind != Y_RANGE) return y;
    y = stem < n ? find_in(p, s, stem, scope) : NULL;
    *index = (uint32_t)k;
    if (y && y->kind == Y_RANGE && k < y->count) return y;
    if (!scope) return NULL;
  }
}

static symbol *declare(parser *p, const char *s, int kind, uint64_t at) {
  size_t n = strlen(s);
  symbol *y = find_in(p, s, n, p->scope);
  if (y && (kind == Y_LABEL || y->kind != (unsigned)kind)) qn__emu_refuse(p, "%s is declared twice", s);
  y = qn__emu_take(p, sizeof *y);
  uint32_t h = hash(s, n);
  *y = (symbol){.next = p->symbols[h], .name = s, .length = n, .scope = p->scope, .kind = kind, .at = at};
  return p->symbols[h] = y;
}

static void open_scope(parser *p) {
  if (p->nscopes == SCOPES) qn__emu_refuse(p, "more than %d scopes", SCOPES);
  p->parent[p->nscopes] = p->scope;
  p->scope = p->nscopes++;
  p->depth++;
}

/* ---- Operands ---------------------------------------------------------------------------------------------------- */

static void special_register(parser *p, operand *o, const char *s, size_t n) {
  for (uint32_t k = 0; qn__emu_specials[k]; k++) {
    const char *text = qn__emu_specials[k] + 1;
    if (strlen(text) != n || memcmp(text, s, n)) continue;
    uint32_t width = qn__emu_specials[k][0] == '8' ? 8 : 4;
    if (!p->module->specials[k]) p->module->specials[k] = qn__emu_row(p, width * LANES);
    o->kind = O_REG, o->row = p->module->specials[k], o->width = (uint8_t)width;
    o->type = qn__emu_specials[k][0] == 'p' ? T_PRED : width == 8 ? T_U64 : T_U32;
    return;
  }
  qn__emu_refuse(p, "special register %.*s is not known", (int)n, s);
}

static void symbol_operand(operand *o, const symbol *y, uint32_t index) {
  static const uint8_t spaces[] = {[Y_SHARED] = S_SHARED, [Y_DYNAMIC] = S_SHARED, [Y_PARAM] = S_PARAM,
                                   [Y_LOCAL] = S_LOCAL,   [Y_GLOBAL] = S_GLOBAL,  [Y_TABLE] = 0};
  if (y->kind == Y_REGISTER || y->kind == Y_RANGE) {
    uint32_t width = type_width(y->type), stride = y->type == T_PRED ? 64 : (width * LANES + 63) & ~63u;
    o->kind = O_REG, o->type = y->type, o->width = (uint8_t)width;
    o->row = (uint32_t)y->at + index * stride;
  } else {
    o->kind = O_ADDRESS, o->imm = (int64_t)y->at, o->space = spaces[y->kind], o->dynamic = y->kind == Y_DYNAMIC;
  }
}

/* The bits of a real in hexadecimal (0f, 0d: `digits` of them), or of a decimal one, which is a double. */
static uint64_t real_bits(parser *p, size_t digits) {
  static const char hex[] = "0123456789abcdefABCDEF";
  char *end;
  uint64_t bits;
  if (digits) {
    if (strspn(p->s + 2, hex) != digits) qn__emu_refuse(p, "a real constant has %zu digits", digits);
    bits = strtoull(p->s + 2, &end, 16);
  } else {
    double value = strtod(p->s, &end);
    memcpy(&bits, &value, sizeof bits);
  }
  p->s = end;
  return bits;
}

/* PTX ISA, "Floating-Point Constants". */
static void literal(parser *p, operand *o) {
  const char *s = p->s + (*p->s == '-');
  size_t whole = strspn(s, "0123456789");
  char mark = *p->s == '0' ? p->s[1] | 32 : 0;
  o->kind = O_IMM;
  if (mark == 'f' || mark == 'd') o->real = mark == 'f' ? 4 : 8, o->imm = (int64_t)real_bits(p, 2 * o->real);
  else if (whole && (s[whole] == '.' || (s[whole] | 32) == 'e')) o->real = 8, o->imm = (int64_t)real_bits(p, 0);
  else o->imm = (int64_t)number(p);
}

static void simple(parser *p, operand *o) {
  blank(p);
  memset(o, 0, sizeof *o);
  if (*p->s == '!') o->negate = true, p->s++, blank(p);
  if (*p->s == '-' || isdigit((unsigned char)*p->s)) {
    literal(p, o);
    return;
  }
  const char *at;
  size_t n = word(p, &at);
  /* special registers have components: %tid.x */
  if (n && *at == '%' && *p->s == '.') {
    p->s++;
    while (word_char(*p->s)) p->s++;
    n = (size_t)(p->s - at);
  }
  if (!n) qn__emu_refuse(p, "expected an operand before '%.8s'", at);
  uint32_t index;
  const symbol *y = find(p, at, n, &index);
  if (n == 1 && *at == '_') o->kind = O_SINK;
  else if (y && y->kind != Y_LABEL && y->kind != Y_TABLE) symbol_operand(o, y, index);
  else if (*at == '%') special_register(p, o, at, n);
  else {
    if (n >= sizeof o->name) qn__emu_refuse(p, "name of %zu characters", n);
    o->kind = O_NAME;
    memcpy(o->name, at, n);
  }
}

static void parse_operand(parser *p, operand *o);

static void parse_list(parser *p, operand *o, char end) {
  enum { MOST = 256 };
  operand *items = NULL;
  uint32_t cap = 0, n = 0;
  if (p->depth > 100) qn__emu_refuse(p, "operands nested too deeply");
  p->depth++;
  for (; !take(p, end); take(p, ',')) {
    if (n == MOST) qn__emu_refuse(p, "more than %d operands in a list", MOST);
    if (n == cap) {
      operand *more = qn__emu_take(p, sizeof *more * (cap ? cap * 2 : 8));
      if (n) memcpy(more, items, sizeof *more * n);
      items = more, cap = cap ? cap * 2 : 8;
    }
    parse_operand(p, &items[n++]);
  }
  p->depth--;
  memset(o, 0, sizeof *o);
  o->kind = O_VECTOR, o->list = items, o->count = (int)n;
}

/* "+ number" or "- number" behind an address. */
static void displace(parser *p, operand *o) {
  blank(p);
  if (*p->s != '+' && *p->s != '-') return;
  if (*p->s == '+') p->s++;
  o->imm = (int64_t)((uint64_t)o->imm + number(p));
}

static void parse_memory(parser *p, operand *o) {
  operand base;
  simple(p, &base);
  memset(o, 0, sizeof *o);
  o->kind = O_MEMORY, o->space = base.space, o->dynamic = base.dynamic;
  if (base.kind == O_REG && base.type != T_PRED) o->row = base.row, o->width = base.width;
  else if (base.kind == O_ADDRESS || base.kind == O_IMM) o->imm = base.imm;
  else if (base.kind == O_NAME) qn__emu_refuse(p, "%s is not declared", base.name);
  else qn__emu_refuse(p, "an address cannot start like this");
  if (o->row && o->width < 4) qn__emu_refuse(p, "address in a register of %d bytes", o->width);
  displace(p, o);
  if (take(p, ',')) {
    operand coordinates;
    parse_operand(p, &coordinates);
    if (coordinates.kind != O_VECTOR) qn__emu_refuse(p, "coordinates must stand in braces");
    o->list = coordinates.list, o->count = coordinates.count;
  }
  expect(p, ']');
}

static void parse_operand(parser *p, operand *o) {
  if (take(p, '{')) parse_list(p, o, '}');
  else if (take(p, '(')) parse_list(p, o, ')');
  else if (take(p, '[')) parse_memory(p, o);
  else {
    simple(p, o);
    blank(p);
    if (*p->s == '|') {
      p->s++;
      operand *second = qn__emu_take(p, sizeof *second);
      simple(p, second);
      o->second = second;
    } else if (o->kind == O_ADDRESS) displace(p, o);
  }
}

/* ---- Variables --------------------------------------------------------------------------------------------------- */

typedef struct declaration {
  char space[16];
  const char *name;
  type type;
  uint32_t align, vector;
  uint64_t count;
  bool array, open; /* open: [] */
} declaration;

/* After the state space: alignment, type, name, dimensions. PTX ISA, "Variables". */
static void parse_declaration(parser *p, declaration *d) {
  d->vector = 1, d->count = 1;
  for (;;) {
    blank(p);
    if (*p->s != '.') break;
    char t[64];
    dotted(p, t);
    type ty = qn__emu_type(t, strlen(t));
    if (ty) d->type = ty;
    else if (!strcmp(t, "align")) d->align = number_below(p, 4097, "alignment");
    else if (!strcmp(t, "v2") || !strcmp(t, "v4")) d->vector = (uint32_t)(t[1] - '0');
    else if (strcmp(t, "ptr") && strcmp(t, "global") && strcmp(t, "shared") && strcmp(t, "const") &&
             strcmp(t, "local") && strcmp(t, "unified"))
      qn__emu_refuse(p, "directive .%s in a declaration is not known", t);
  }
  if (!d->type) qn__emu_refuse(p, "declaration without a type");
  d->name = name(p);
  while (take(p, '[')) {
    d->array = true;
    if (take(p, ']')) {
      d->open = true;
      d->count = 0;
      continue;
    }
    uint64_t n = number(p);
    if (n > UINT32_MAX || d->count * n > UINT32_MAX) qn__emu_refuse(p, "array %s is too large", d->name);
    d->count *= n;
    expect(p, ']');
  }
  uint32_t size = qn__emu_types[d->type].size * d->vector;
  if (!d->align) d->align = size;
  if (d->align & (d->align - 1)) qn__emu_refuse(p, "alignment %u is not a power of two", d->align);
}

static uint64_t declared_bytes(const declaration *d) { return d->count * qn__emu_types[d->type].size * d->vector; }

static void parse_registers(parser *p) {
  char t[64];
  dotted(p, t);
  type ty = qn__emu_type(t, strlen(t));
  if (!ty || ty == T_B128) qn__emu_refuse(p, "registers of type .%s are not known", t);
  uint32_t width = type_width(ty), stride = ty == T_PRED ? 64 : (width * LANES + 63) & ~63u;
  do {
    const char *s = name(p);
    uint32_t n = 1;
    bool range = take(p, '<');
    if (range) n = number_below(p, 1 << 20, "number of registers"), expect(p, '>');
    if (n > MAX_FILE / stride) qn__emu_refuse(p, "too many registers");
    symbol *y = declare(p, s, range ? Y_RANGE : Y_REGISTER, qn__emu_row(p, stride * n));
    y->type = ty, y->count = n;
  } while (take(p, ','));
  expect(p, ';');
}

/* PTX ISA, "Initializers". Elements that are addresses take the variable's address. */
static void parse_initializer(parser *p, const declaration *d, uint8_t *data, uint64_t bytes) {
  uint32_t size = qn__emu_types[d->type].size;
  uint64_t at = 0;
  bool braces = take(p, '{');
  do {
    operand o;
    if (braces && take(p, '}')) return;
    blank(p);
    bool generic = !strncmp(p->s, "generic(", 8);
    if (generic) p->s += 8;
    parse_operand(p, &o);
    if (generic) expect(p, ')');
    if (o.kind != O_IMM && (o.kind != O_ADDRESS || o.space != S_GLOBAL)) qn__emu_refuse(p, "initializer is not known");
    if (o.real == 8 && size == 4) qn__emu_refuse(p, "a double does not initialise %s", d->name);
    if (at + size > bytes) qn__emu_refuse(p, "%s has more initialisers than elements", d->name);
    memcpy(data + at, &o.imm, size);
    at += size;
  } while (braces && take(p, ','));
  if (braces) expect(p, '}');
}

static void global_variable(parser *p, const declaration *d, bool constant_space) {
  uint64_t bytes = declared_bytes(d);
  struct variable *v = qn__emu_take(p, sizeof *v);
  if (!bytes || bytes > 1u << 30) qn__emu_refuse(p, "size of %s is %llu", d->name, (unsigned long long)bytes);
  if (qn__emu_block_new(p->module->device, bytes, &v->block)) no_memory(p);
  v->block->owned = true;
  v->name = d->name, v->next = p->module->variables, p->module->variables = v;
  declare(p, d->name, Y_GLOBAL, v->block->base);
  memset(v->block->data, 0, bytes); /* static storage starts as zero; an initializer may be shorter */
  free(v->block->shadow);
  v->block->shadow = NULL;
  if (take(p, '=')) parse_initializer(p, d, v->block->data, bytes);
  v->block->readonly = constant_space;
  expect(p, ';');
}

static void place(parser *p, uint32_t *used, const declaration *d, int kind, uint32_t base, uint32_t limit) {
  uint64_t at = ((uint64_t)*used + d->align - 1) & ~(uint64_t)(d->align - 1), end = at + declared_bytes(d);
  if (end > limit) qn__emu_refuse(p, "%s ends at %llu, over the limit of %u", d->name, (unsigned long long)end, limit);
  *used = (uint32_t)end;
  declare(p, d->name, kind, base + at)->size = (uint32_t)declared_bytes(d);
}

static void parse_variable(parser *p, const char *where) {
  declaration d = {0};
  parse_declaration(p, &d);
  bool shared = !strcmp(where, "shared");
  if (!strcmp(where, "global") || !strcmp(where, "const")) {
    global_variable(p, &d, *where == 'c');
    return;
  }
  if (shared && d.open) {
    symbol *y = declare(p, d.name, Y_DYNAMIC, 0);
    y->size = d.align;
    if (p->function && d.align > p->function->dynamic) p->function->dynamic = d.align;
    if (!p->function && d.align > p->module->shared_bytes >> 24) /* kept in the top byte as log2 + 1 */
      p->module->shared_bytes = (p->module->shared_bytes & 0xffffff) | (uint32_t)(__builtin_ctz(d.align) + 1) << 24;
  } else if (shared) {
    uint32_t low = p->function ? p->function->kernel.static_shared : p->module->shared_bytes & 0xffffff;
    if (p->function && low < (p->module->shared_bytes & 0xffffff)) low = p->module->shared_bytes & 0xffffff;
    place(p, &low, &d, Y_SHARED, SHARED_BASE, 1 << 20);
    if (p->function) p->function->kernel.static_shared = low;
    else p->module->shared_bytes = (p->module->shared_bytes & 0xff000000) | low;
  } else {
    place(p, &p->module->local_bytes, &d, Y_LOCAL, 0, 1 << 20);
  }
  expect(p, ';');
}

/* ---- Functions --------------------------------------------------------------------------------------------------- */

static function *function_named(parser *p, const char *s, bool entry) {
  for (function *f = p->module->functions; f; f = f->next)
    if (!strcmp(f->kernel.name, s)) return f;
  function *f = qn__emu_take(p, sizeof *f);
  f->kernel.name = s, f->module = p->module, f->entry = entry;
  f->next = p->module->functions, p->module->functions = f;
  return f;
}

static uint32_t parse_formals(parser *p, declaration *list, uint32_t most) {
  uint32_t n = 0;
  for (; !take(p, ')'); take(p, ',')) {
    char t[64];
    if (n == most) qn__emu_refuse(p, "more than %u parameters", most);
    dotted(p, t);
    if (strcmp(t, "param")) qn__emu_refuse(p, "parameters in .%s space are not known", t);
    list[n] = (declaration){0};
    parse_declaration(p, &list[n++]);
  }
  return n;
}

/* Kernel parameters lie in one block, each at its alignment, as the driver lays them out. */
static void kernel_params(parser *p, function *f, const declaration *d, uint32_t n) {
  qn_emu_param *params = qn__emu_take(p, sizeof *params * (n + 1));
  uint32_t used = 0;
  for (uint32_t i = 0; i < n; i++) {
    place(p, &used, &d[i], Y_PARAM, 0, PARAM_BYTES);
    uint32_t size = (uint32_t)declared_bytes(&d[i]);
    params[i] = (qn_emu_param){used - size, size, d[i].align};
  }
  f->kernel.params = params, f->kernel.nparams = (int)n, f->kernel.param_bytes = used;
}

/* Parameters of a .func are local memory of the calling thread; recursion is not supported. */
static struct formal *function_params(parser *p, struct formal *old, const declaration *d, uint32_t n) {
  struct formal *list = old ? old : qn__emu_take(p, sizeof *list * (n + 1));
  for (uint32_t i = 0; i < n; i++) {
    if (!old) {
      uint32_t *used = &p->module->local_bytes;
      place(p, used, &d[i], Y_LOCAL, 0, 1 << 20);
      list[i].size = (uint32_t)declared_bytes(&d[i]), list[i].local = *used - list[i].size;
    } else if (list[i].size != declared_bytes(&d[i])) {
      qn__emu_refuse(p, "parameter %s differs from its declaration", d[i].name);
    } else declare(p, d[i].name, Y_LOCAL, list[i].local);
  }
  return list;
}

static void three(parser *p, uint32_t v[3]) {
  v[0] = number_below(p, 65536, "extent"), v[1] = v[2] = 1;
  for (int k = 1; k < 3 && take(p, ','); k++) v[k] = number_below(p, 65536, "extent");
}

static void pragma(parser *p) {
  const char *at;
  do quoted(p, &at);
  while (take(p, ','));
  expect(p, ';');
}

static void function_directives(parser *p, function *f) {
  static const char *const ignored[] = {
      "noreturn", "explicitcluster", "blocksareclusters", "minnctapersm",         "maxnctapersm",
      "maxnreg",  "maxclusterrank",  "abi_preserve",      "abi_preserve_control", "pragma"};
  for (;;) {
    blank(p);
    if (*p->s != '.') return;
    char t[64];
    uint32_t v[3];
    dotted(p, t);
    if (!strcmp(t, "maxntid")) three(p, v), f->kernel.max_threads = v[0] * v[1] * v[2];
    else if (!strcmp(t, "reqntid")) three(p, f->kernel.block);
    else if (!strcmp(t, "reqnctapercluster")) three(p, f->kernel.cluster);
    else {
      bool known = false;
      for (size_t i = 0; i < QN_COUNT(ignored); i++) known |= !strcmp(t, ignored[i]);
      if (!known) qn__emu_refuse(p, "directive .%s of a function is not known", t);
      blank(p);
      if (isdigit((unsigned char)*p->s)) number(p);
      else if (*p->s == '"') pragma(p);
    }
  }
}

static void start_body(parser *p, function *f) {
  if (f->defined) qn__emu_refuse(p, "function %s is defined twice", f->kernel.name);
  f->defined = true, f->first = p->module->ncode, f->kernel.line = (int)p->line;
  if (!f->entry) f->return_row = qn__emu_row(p, 4 * LANES);
  p->function = f;
  p->loc_live = 0;
}

static void parse_function(parser *p, bool entry) {
  enum { MOST = 256 };
  declaration *rets = qn__emu_take(p, sizeof *rets * MOST), *args = qn__emu_take(p, sizeof *args * MOST);
  uint32_t nrets = 0, nargs = 0;
  if (p->function) qn__emu_refuse(p, "function inside a function");
  open_scope(p);
  if (take(p, '(')) nrets = parse_formals(p, rets, MOST);
  function *f = function_named(p, name(p), entry);
  bool known = f->args != NULL;
  if (take(p, '(')) nargs = parse_formals(p, args, MOST);
  if (known && (nargs != f->nargs || nrets != f->nrets))
    qn__emu_refuse(p, "%s differs from its declaration", f->kernel.name);
  if (entry && known) qn__emu_refuse(p, "kernel %s is defined twice", f->kernel.name);
  f->nargs = nargs, f->nrets = nrets;
  if (entry) kernel_params(p, f, args, nargs), f->args = qn__emu_take(p, sizeof *f->args);
  else
    f->args = function_params(p, known ? f->args : NULL, args, nargs),
    f->rets = function_params(p, known ? f->rets : NULL, rets, nrets);
  function_directives(p, f);
  if (take(p, ';')) {
    p->scope = p->parent[p->scope], p->depth--;
    return;
  }
  expect(p, '{');
  start_body(p, f);
}

/* ---- Instructions ------------------------------------------------------------------------------------------------ */

static insn *new_insn(parser *p) {
  qn_emu_module *m = p->module;
  grow(p, &m->code, &m->code_cap, m->ncode + 2, sizeof *m->code);
  insn *i = &m->code[m->ncode];
  *i = (insn){.guard = -1, .line = p->line, .loc = p->loc_live};
  return i;
}

static void add_fixup(parser *p, uint32_t at, const char *label, uint32_t *slot) {
  fixup *f = qn__emu_take(p, sizeof *f);
  *f = (fixup){p->fixups, at, p->scope, p->line, label, slot};
  p->fixups = f;
}

static char *copy_name(parser *p, const char *s) { return strcpy(qn__emu_take(p, strlen(s) + 1), s); }

static const uint32_t *call_list(parser *p, const operand *o, uint32_t n) {
  uint32_t *list = qn__emu_take(p, sizeof *list * (n + 1));
  if ((uint32_t)o->count != n) qn__emu_refuse(p, "call with %d values where %u are declared", o->count, n);
  for (uint32_t k = 0; k < n; k++) {
    if (o->list[k].kind != O_ADDRESS || o->list[k].space != S_LOCAL) qn__emu_refuse(p, "a call takes .param variables");
    list[k] = (uint32_t)o->list[k].imm;
  }
  return list;
}

/* PTX ISA, "call". Only direct calls; arguments are .param variables. */
static void decode_call(parser *p, insn *i, operand *ops, int n) {
  operand none = {.kind = O_VECTOR};
  int k = n && ops[0].kind == O_VECTOR;
  const operand *rets = k ? &ops[0] : &none, *args = n > k + 1 ? &ops[k + 1] : &none;
  if (n <= k || ops[k].kind != O_NAME) qn__emu_refuse(p, "indirect calls are not supported");
  function *f = function_named(p, copy_name(p, ops[k].name), false);
  if (!f->args || f->entry) qn__emu_refuse(p, "function %s is not declared", ops[k].name);
  call *c = qn__emu_take(p, sizeof *c);
  *c = (call){f, call_list(p, args, f->nargs), call_list(p, rets, f->nrets)};
  i->control = C_CALL, i->extra = c, i->kind = QN_EMU_K_BRANCH;
}

/* PTX ISA, "bra", "brx.idx", "ret", "exit". False: not control flow. */
static bool decode_flow(parser *p, insn *i, const char *text, operand *ops, int n) {
  i->kind = QN_EMU_K_BRANCH;
  if (!strcmp(text, "bra") || !strcmp(text, "bra.uni")) {
    if (n != 1 || ops[0].kind != O_NAME) qn__emu_refuse(p, "bra needs a label");
    i->control = C_BRANCH;
    add_fixup(p, p->module->ncode, copy_name(p, ops[0].name), NULL);
  } else if (!strcmp(text, "brx.idx") || !strcmp(text, "brx.idx.uni")) {
    if (n != 2 || ops[1].kind != O_NAME) qn__emu_refuse(p, "brx.idx needs an index and a table");
    i->control = C_TABLE, i->a = qn__emu_source(p, &ops[0], 4);
    uint32_t index;
    symbol *y = find(p, ops[1].name, strlen(ops[1].name), &index);
    if (!y || y->kind != Y_TABLE) qn__emu_refuse(p, "%s is not a table of targets", ops[1].name);
    i->regs = (const uint32_t *)(uintptr_t)y->at, i->nregs = (uint16_t)y->count;
  } else if (!strcmp(text, "ret") || !strcmp(text, "ret.uni")) i->control = p->function->entry ? C_EXIT : C_RETURN;
  else if (!strcmp(text, "exit")) i->control = C_EXIT;
  else if (!strcmp(text, "call") || !strcmp(text, "call.uni")) decode_call(p, i, ops, n);
  else return false;
  if (i->control == C_RETURN) i->a = p->function->return_row;
  return true;
}

/* PTX ISA, ".branchtargets". */
static void parse_table(parser *p, const char *label) {
  enum { MOST = 4096 };
  uint32_t *slots = qn__emu_take(p, sizeof *slots * MOST), n = 0;
  do {
    if (n == MOST) qn__emu_refuse(p, "more than %d branch targets", MOST);
    add_fixup(p, p->module->ncode, name(p), &slots[n++]);
  } while (take(p, ','));
  expect(p, ';');
  declare(p, label, Y_TABLE, (uintptr_t)slots)->count = n;
}

static void parse_guard(parser *p, insn *i) {
  operand o;
  simple(p, &o);
  if (o.kind != O_REG || o.type != T_PRED) qn__emu_refuse(p, "a guard must be a predicate register");
  i->guard = (int32_t)o.row, i->negate = o.negate;
  blank(p);
}

static void parse_insn(parser *p) {
  enum { MOST = 12 };
  operand ops[MOST];
  int n = 0;
  if (!p->function) qn__emu_refuse(p, "expected a directive");
  insn *i = new_insn(p);
  if (take(p, '@')) parse_guard(p, i);
  const char *at;
  size_t length = word(p, &at);
  blank(p);
  if (i->guard < 0 && length && p->s[0] == ':' && p->s[1] != ':') {
    p->s++;
    char *label = qn__emu_take(p, length + 1);
    memcpy(label, at, length);
    blank(p);
    if (!strncmp(p->s, ".branchtargets", 14)) p->s += 14, parse_table(p, label);
    else declare(p, label, Y_LABEL, p->module->ncode);
    return;
  }
  for (p->s = at; word_char(*p->s) || *p->s == '.' || *p->s == ':'; p->s++) continue;
  length = (size_t)(p->s - at);
  char text[160];
  if (!length || length >= sizeof text) qn__emu_refuse(p, "expected an instruction before '%.8s'", at);
  memcpy(text, at, length);
  text[length] = 0;
  for (; !take(p, ';'); take(p, ',')) {
    if (n == MOST) qn__emu_refuse(p, "more than %d operands", MOST);
    parse_operand(p, &ops[n++]);
  }
  if (!decode_flow(p, i, text, ops, n)) qn__emu_decode(p, i, text, length, ops, n);
  p->module->ncode++;
}

static void bind(parser *p, const fixup *f) {
  uint32_t scope = f->scope;
  for (;; scope = p->parent[scope]) {
    const symbol *y = find_in(p, f->name, strlen(f->name), scope);
    if (y && y->kind == Y_LABEL) {
      *(f->slot ? f->slot : &p->module->code[f->insn].target) = (uint32_t)y->at;
      return;
    }
    if (!scope) break;
  }
  p->line = f->line;
  qn__emu_refuse(p, "label %s is not defined", f->name);
}

static void end_function(parser *p) {
  insn *i = new_insn(p);
  i->control = p->function->entry ? C_EXIT : C_RETURN, i->a = p->function->return_row, i->kind = QN_EMU_K_BRANCH;
  p->module->ncode++;
  for (; p->fixups; p->fixups = p->fixups->next) bind(p, p->fixups);
  p->function = NULL;
}

/* ---- Directives -------------------------------------------------------------------------------------------------- */

static void parse_target(parser *p) {
  const qn_emu *e = p->module->device;
  do {
    const char *s = name(p);
    char *suffix;
    if (strncmp(s, "sm_", 3)) continue; /* debug, texmode_... */
    long sm = strtol(s + 3, &suffix, 10);
    bool fits = sm <= e->limits.sm;
    if (*suffix == 'a') fits = sm == e->limits.sm && e->suffix == 'a';
    if (*suffix == 'f') fits = sm <= e->limits.sm && sm / 10 == e->limits.sm / 10 && e->suffix;
    if (!fits) qn__emu_refuse(p, "PTX for %s does not run on sm_%d%c", s, e->limits.sm, e->suffix ? e->suffix : ' ');
  } while (take(p, ','));
}

static void parse_file(parser *p) {
  qn_emu_module *m = p->module;
  uint32_t n = number_below(p, 4096, "file number");
  const char *at;
  size_t length = quoted(p, &at);
  if (n >= m->nfiles) {
    char **more = qn__emu_take(p, sizeof *more * (n + 16));
    if (m->nfiles) memcpy(more, m->files, sizeof *more * m->nfiles);
    m->files = more, m->nfiles = n + 16;
  }
  m->files[n] = memcpy(qn__emu_take(p, length + 1), at, length);
  if (take(p, ',')) number(p), expect(p, ','), number(p);
}

/* PTX ISA, ".loc": the line that the following instructions come from. */
static void parse_loc(parser *p) {
  qn_emu_module *m = p->module;
  grow(p, &m->locs, &m->locs_cap, m->nlocs + 2, sizeof *m->locs);
  uint32_t file = number_below(p, 4096, "file number"), line = number_below(p, 1u << 31, "line");
  m->locs[++m->nlocs] = (loc){file, line};
  p->loc_live = m->nlocs;
  p->s += strcspn(p->s, "\n");
}

static void skip_braces(parser *p) {
  while (*p->s && *p->s != '{') p->line += *p->s++ == '\n';
  for (; *p->s && *p->s != '}'; p->s++) p->line += *p->s == '\n';
  expect(p, '}');
}

static void parse_directive(parser *p) {
  char t[64];
  dotted(p, t);
  if (!strcmp(t, "version")) number(p), expect(p, '.'), number(p);
  else if (!strcmp(t, "target")) parse_target(p);
  else if (!strcmp(t, "address_size")) {
    if (number(p) != 64) qn__emu_refuse(p, "only 64-bit addresses are supported");
  } else if (!strcmp(t, "visible") || !strcmp(t, "extern") || !strcmp(t, "weak") || !strcmp(t, "common")) return;
  else if (!strcmp(t, "entry") || !strcmp(t, "func")) parse_function(p, *t == 'e');
  else if (!strcmp(t, "reg")) parse_registers(p);
  else if (!strcmp(t, "shared") || !strcmp(t, "global") || !strcmp(t, "const") || !strcmp(t, "local") ||
           !strcmp(t, "param"))
    parse_variable(p, t);
  else if (!strcmp(t, "file")) parse_file(p);
  else if (!strcmp(t, "loc")) parse_loc(p);
  else if (!strcmp(t, "section")) skip_braces(p);
  else if (!strcmp(t, "pragma")) pragma(p);
  else qn__emu_refuse(p, "directive .%s is not known", t);
}

static void close_brace(parser *p) {
  if (!p->function) qn__emu_refuse(p, "'}' without '{'");
  p->scope = p->parent[p->scope], p->depth--;
  if (!p->scope) end_function(p);
}

void qn__emu_parse(parser *p) {
  for (;;) {
    blank(p);
    if (!*p->s) break;
    if (*p->s == '.') parse_directive(p);
    else if (*p->s == '{' && p->function) p->s++, open_scope(p);
    else if (*p->s == '}') p->s++, close_brace(p);
    else if (*p->s == ';') p->s++;
    else parse_insn(p);
  }
  if (p->function) qn__emu_refuse(p, "text ends inside %s", p->function->kernel.name);
}
