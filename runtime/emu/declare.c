/* declare.c - registers, variables, and the heads of functions.
 *
 * Source: PTX ISA, "State Spaces, Types, and Variables", "Kernel and Function Directives", "Performance-Tuning
 * Directives". */
#include "fail.h"
#include "parser.h"
#include <ctype.h>
#include <stdlib.h>

/* ---- Variables --------------------------------------------------------------------------------------------------- */

typedef struct declaration {
  char space[16];
  const char *name;
  type type;
  uint32_t align, vector;
  uint64_t count;
  bool array, open; /* open: [] */
} declaration;

/* After the state space: alignment, type, name, dimensions. Behind .ptr stands what is known of the memory that a
 * parameter points at, its alignment too. PTX ISA, "Variables", "Kernel Parameter Attribute: .ptr". */
static void parse_declaration(parser *p, declaration *d) {
  uint32_t pointee, *align = &d->align;
  d->vector = 1, d->count = 1;
  for (;;) {
    qn__lex_blank(p);
    if (*p->s != '.') break;
    char t[64];
    qn__lex_directive(p, t);
    type ty = qn__emu_type(t, strlen(t));
    if (ty) d->type = ty;
    else if (!strcmp(t, "align")) *align = qn__lex_below(p, 4097, "alignment");
    else if (!strcmp(t, "ptr")) align = &pointee;
    else if (!strcmp(t, "v2") || !strcmp(t, "v4")) d->vector = (uint32_t)(t[1] - '0');
    else if (strcmp(t, "global") && strcmp(t, "shared") && strcmp(t, "const") && strcmp(t, "local") &&
             strcmp(t, "unified"))
      qn__emu_refuse(p, "directive .%s in a declaration is not known", t);
  }
  if (!d->type) qn__emu_refuse(p, "declaration without a type");
  d->name = qn__lex_name(p);
  while (qn__lex_take(p, '[')) {
    d->array = true;
    if (qn__lex_take(p, ']')) {
      d->open = true;
      d->count = 0;
      continue;
    }
    uint64_t n = qn__lex_number(p);
    if (n > UINT32_MAX || d->count * n > UINT32_MAX) qn__emu_refuse(p, "array %s is too large", d->name);
    d->count *= n;
    qn__lex_expect(p, ']');
  }
  uint32_t size = qn__emu_types[d->type].size * d->vector;
  if (!d->align) d->align = size;
  if (d->align & (d->align - 1)) qn__emu_refuse(p, "alignment %u is not a power of two", d->align);
}

static uint64_t declared_bytes(const declaration *d) { return d->count * qn__emu_types[d->type].size * d->vector; }

void qn__emu_parse_registers(parser *p) {
  char t[64];
  qn__lex_directive(p, t);
  type ty = qn__emu_type(t, strlen(t));
  if (!ty || ty == T_B128) qn__emu_refuse(p, "registers of type .%s are not known", t);
  uint32_t width = type_width(ty), stride = ty == T_PRED ? 64 : (width * LANES + 63) & ~63u;
  do {
    const char *s = qn__lex_name(p);
    uint32_t n = 1;
    bool range = qn__lex_take(p, '<');
    if (range) n = qn__lex_below(p, 1 << 20, "number of registers"), qn__lex_expect(p, '>');
    if (n > MAX_FILE / stride) qn__emu_refuse(p, "too many registers");
    symbol *y = qn__emu_symbol_new(p, s, range ? Y_RANGE : Y_REGISTER, qn__emu_row(p, stride * n));
    y->type = ty, y->count = n;
  } while (qn__lex_take(p, ','));
  qn__lex_expect(p, ';');
}

/* PTX ISA, "Initializers". Elements that are addresses take the variable's address. */
static void parse_initializer(parser *p, const declaration *d, uint8_t *data, uint64_t bytes) {
  uint32_t size = qn__emu_types[d->type].size;
  uint64_t at = 0;
  bool braces = qn__lex_take(p, '{');
  do {
    operand o;
    if (braces && qn__lex_take(p, '}')) return;
    qn__lex_blank(p);
    bool generic = !strncmp(p->s, "generic(", 8);
    if (generic) p->s += 8;
    qn__emu_parse_operand(p, &o);
    if (generic) qn__lex_expect(p, ')');
    if (o.kind != O_IMM && (o.kind != O_ADDRESS || o.space != S_GLOBAL)) qn__emu_refuse(p, "initializer is not known");
    if (o.real == 8 && size == 4) qn__emu_refuse(p, "a double does not initialise %s", d->name);
    if (at + size > bytes) qn__emu_refuse(p, "%s has more initialisers than elements", d->name);
    memcpy(data + at, &o.imm, size);
    at += size;
  } while (braces && qn__lex_take(p, ','));
  if (braces) qn__lex_expect(p, '}');
}

static void global_variable(parser *p, const declaration *d, bool constant_space) {
  uint64_t bytes = declared_bytes(d);
  struct variable *v = qn__emu_take(p, sizeof *v);
  if (!bytes || bytes > 1u << 30) qn__emu_refuse(p, "size of %s is %llu", d->name, (unsigned long long)bytes);
  if (qn__emu_block_new(p->module->device, bytes, &v->block)) qn__emu_refuse_memory(p);
  v->block->owned = true;
  v->name = d->name, v->next = p->module->variables, p->module->variables = v;
  qn__emu_symbol_new(p, d->name, Y_GLOBAL, v->block->base);
  memset(v->block->data, 0, bytes); /* static storage starts as zero; an initializer may be shorter */
  free(v->block->shadow);
  v->block->shadow = NULL;
  if (qn__lex_take(p, '=')) parse_initializer(p, d, v->block->data, bytes);
  v->block->readonly = constant_space;
  qn__lex_expect(p, ';');
}

static void place(parser *p, uint32_t *used, const declaration *d, int kind, uint32_t base, uint32_t limit) {
  uint64_t at = ((uint64_t)*used + d->align - 1) & ~(uint64_t)(d->align - 1), end = at + declared_bytes(d);
  if (end > limit) qn__emu_refuse(p, "%s ends at %llu, over the limit of %u", d->name, (unsigned long long)end, limit);
  *used = (uint32_t)end;
  qn__emu_symbol_new(p, d->name, kind, base + at)->size = (uint32_t)declared_bytes(d);
}

void qn__emu_parse_variable(parser *p, const char *where) {
  declaration d = {0};
  parse_declaration(p, &d);
  bool shared = !strcmp(where, "shared");
  if (!strcmp(where, "global") || !strcmp(where, "const")) {
    global_variable(p, &d, *where == 'c');
    return;
  }
  if (shared && d.open) {
    symbol *y = qn__emu_symbol_new(p, d.name, Y_DYNAMIC, 0);
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
  qn__lex_expect(p, ';');
}

/* ---- Functions --------------------------------------------------------------------------------------------------- */

function *qn__emu_function(parser *p, const char *s, bool entry) {
  for (function *f = p->module->functions; f; f = f->next)
    if (!strcmp(f->kernel.name, s)) return f;
  function *f = qn__emu_take(p, sizeof *f);
  f->kernel.name = s, f->module = p->module, f->entry = entry;
  f->next = p->module->functions, p->module->functions = f;
  return f;
}

static uint32_t parse_formals(parser *p, declaration *list, uint32_t most) {
  uint32_t n = 0;
  for (; !qn__lex_take(p, ')'); qn__lex_take(p, ',')) {
    char t[64];
    if (n == most) qn__emu_refuse(p, "more than %u parameters", most);
    qn__lex_directive(p, t);
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
    } else qn__emu_symbol_new(p, d[i].name, Y_LOCAL, list[i].local);
  }
  return list;
}

static void three(parser *p, uint32_t v[3]) {
  v[0] = qn__lex_below(p, 65536, "extent"), v[1] = v[2] = 1;
  for (int k = 1; k < 3 && qn__lex_take(p, ','); k++) v[k] = qn__lex_below(p, 65536, "extent");
}

void qn__emu_parse_pragma(parser *p) {
  const char *at;
  do qn__lex_quoted(p, &at);
  while (qn__lex_take(p, ','));
  qn__lex_expect(p, ';');
}

static void function_directives(parser *p, function *f) {
  static const char *const ignored[] = {"noreturn",       "explicitcluster", "blocksareclusters",    "maxnctapersm",
                                        "maxclusterrank", "abi_preserve",    "abi_preserve_control", "pragma"};
  for (;;) {
    qn__lex_blank(p);
    if (*p->s != '.') return;
    char t[64];
    uint32_t v[3];
    qn__lex_directive(p, t);
    if (!strcmp(t, "maxntid")) three(p, v), f->kernel.max_threads = v[0] * v[1] * v[2];
    else if (!strcmp(t, "reqntid")) three(p, f->kernel.block);
    else if (!strcmp(t, "reqnctapercluster")) three(p, f->kernel.cluster);
    else if (!strcmp(t, "minnctapersm")) f->kernel.min_blocks = qn__lex_below(p, 65536, "number of CTAs");
    else if (!strcmp(t, "maxnreg")) f->kernel.registers = qn__lex_below(p, 65536, "number of registers");
    else {
      bool known = false;
      for (size_t i = 0; i < QN_COUNT(ignored); i++) known |= !strcmp(t, ignored[i]);
      if (!known) qn__emu_refuse(p, "directive .%s of a function is not known", t);
      qn__lex_blank(p);
      if (isdigit((unsigned char)*p->s)) qn__lex_number(p);
      else if (*p->s == '"') qn__emu_parse_pragma(p);
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

void qn__emu_parse_function(parser *p, bool entry) {
  enum { MOST = 256 };
  declaration *rets = qn__emu_take(p, sizeof *rets * MOST), *args = qn__emu_take(p, sizeof *args * MOST);
  uint32_t nrets = 0, nargs = 0;
  if (p->function) qn__emu_refuse(p, "function inside a function");
  qn__emu_scope_open(p);
  if (qn__lex_take(p, '(')) nrets = parse_formals(p, rets, MOST);
  function *f = qn__emu_function(p, qn__lex_name(p), entry);
  bool known = f->args != NULL;
  if (qn__lex_take(p, '(')) nargs = parse_formals(p, args, MOST);
  if (known && (nargs != f->nargs || nrets != f->nrets))
    qn__emu_refuse(p, "%s differs from its declaration", f->kernel.name);
  if (entry && known) qn__emu_refuse(p, "kernel %s is defined twice", f->kernel.name);
  f->nargs = nargs, f->nrets = nrets;
  if (entry) kernel_params(p, f, args, nargs), f->args = qn__emu_take(p, sizeof *f->args);
  else
    f->args = function_params(p, known ? f->args : NULL, args, nargs),
    f->rets = function_params(p, known ? f->rets : NULL, rets, nrets);
  function_directives(p, f);
  if (qn__lex_take(p, ';')) {
    qn__emu_scope_close(p);
    return;
  }
  qn__lex_expect(p, '{');
  start_body(p, f);
}
