/* instruct.c - operands and instructions; control flow, whose targets are bound when the function ends.
 *
 * Source: PTX ISA, "Instruction Operands", "Control Flow Instructions". */
#include "parser.h"
#include <ctype.h>
#include <stdlib.h>

/* ---- Operands ---------------------------------------------------------------------------------------------------- */

static const struct special {
  const char *name;
  type type;
} specials[] = {
#define X(name, type, value) {name, type},
    SPECIAL_MAP(X)
#undef X
};

static void special_register(parser *p, operand *o, const char *s, size_t n) {
  uint32_t *rows = p->module->specials;
  for (int k = 0; k < SPECIALS; k++) {
    const struct special *x = &specials[k];
    if (strlen(x->name) != n || memcmp(x->name, s, n)) continue;
    uint32_t width = type_width(x->type);
    if (!rows[k]) rows[k] = qn__emu_row(p, width * LANES);
    o->kind = O_REG, o->type = x->type, o->row = rows[k], o->width = (uint8_t)width;
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
  else o->imm = (int64_t)qn__lex_number(p);
}

static void simple(parser *p, operand *o) {
  qn__lex_blank(p);
  memset(o, 0, sizeof *o);
  if (*p->s == '!') o->negate = true, p->s++, qn__lex_blank(p);
  if (*p->s == '-' || isdigit((unsigned char)*p->s)) {
    literal(p, o);
    return;
  }
  const char *at;
  size_t n = qn__lex_word(p, &at);
  /* special registers have components: %tid.x */
  if (n && *at == '%' && *p->s == '.') {
    p->s++;
    while (qn__lex_word_char(*p->s)) p->s++;
    n = (size_t)(p->s - at);
  }
  if (!n) qn__emu_refuse(p, "expected an operand before '%.8s'", at);
  uint32_t index;
  const symbol *y = qn__emu_symbol_find(p, at, n, &index);
  if (n == 1 && *at == '_') o->kind = O_SINK;
  else if (y && y->kind != Y_LABEL && y->kind != Y_TABLE) symbol_operand(o, y, index);
  else if (*at == '%') special_register(p, o, at, n);
  else {
    if (n >= sizeof o->name) qn__emu_refuse(p, "name of %zu characters", n);
    o->kind = O_NAME;
    memcpy(o->name, at, n);
  }
}

static void parse_list(parser *p, operand *o, char end) {
  enum { MOST = 256 };
  operand *items = NULL;
  uint32_t cap = 0, n = 0;
  if (p->depth > 100) qn__emu_refuse(p, "operands nested too deeply");
  p->depth++;
  for (; !qn__lex_take(p, end); qn__lex_take(p, ',')) {
    if (n == MOST) qn__emu_refuse(p, "more than %d operands in a list", MOST);
    if (n == cap) {
      operand *more = qn__emu_take(p, sizeof *more * (cap ? cap * 2 : 8));
      if (n) memcpy(more, items, sizeof *more * n);
      items = more, cap = cap ? cap * 2 : 8;
    }
    qn__emu_parse_operand(p, &items[n++]);
  }
  p->depth--;
  memset(o, 0, sizeof *o);
  o->kind = O_VECTOR, o->list = items, o->count = (int)n;
}

/* "+ number" or "- number" behind an address. */
static void displace(parser *p, operand *o) {
  qn__lex_blank(p);
  if (*p->s != '+' && *p->s != '-') return;
  if (*p->s == '+') p->s++;
  o->imm = (int64_t)((uint64_t)o->imm + qn__lex_number(p));
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
  if (qn__lex_take(p, ',')) {
    operand coordinates;
    qn__emu_parse_operand(p, &coordinates);
    if (coordinates.kind != O_VECTOR) qn__emu_refuse(p, "coordinates must stand in braces");
    o->list = coordinates.list, o->count = coordinates.count;
  }
  qn__lex_expect(p, ']');
}

void qn__emu_parse_operand(parser *p, operand *o) {
  if (qn__lex_take(p, '{')) parse_list(p, o, '}');
  else if (qn__lex_take(p, '(')) parse_list(p, o, ')');
  else if (qn__lex_take(p, '[')) parse_memory(p, o);
  else {
    simple(p, o);
    qn__lex_blank(p);
    if (*p->s == '|') {
      p->s++;
      operand *second = qn__emu_take(p, sizeof *second);
      simple(p, second);
      o->second = second;
    } else if (o->kind == O_ADDRESS) displace(p, o);
  }
}

/* ---- Instructions ------------------------------------------------------------------------------------------------ */

static insn *new_insn(parser *p) {
  qn_emu_module *m = p->module;
  qn__emu_grow(p, &m->code, &m->code_cap, m->ncode + 2, sizeof *m->code);
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
  function *f = qn__emu_function(p, copy_name(p, ops[k].name), false);
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
    symbol *y = qn__emu_symbol_find(p, ops[1].name, strlen(ops[1].name), &index);
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
    add_fixup(p, p->module->ncode, qn__lex_name(p), &slots[n++]);
  } while (qn__lex_take(p, ','));
  qn__lex_expect(p, ';');
  qn__emu_symbol_new(p, label, Y_TABLE, (uintptr_t)slots)->count = n;
}

static void parse_guard(parser *p, insn *i) {
  operand o;
  simple(p, &o);
  if (o.kind != O_REG || o.type != T_PRED) qn__emu_refuse(p, "a guard must be a predicate register");
  i->guard = (int32_t)o.row, i->negate = o.negate;
  qn__lex_blank(p);
}

void qn__emu_parse_insn(parser *p) {
  enum { MOST = 12 };
  operand ops[MOST];
  int n = 0;
  if (!p->function) qn__emu_refuse(p, "expected a directive");
  insn *i = new_insn(p);
  if (qn__lex_take(p, '@')) parse_guard(p, i);
  const char *at;
  size_t length = qn__lex_word(p, &at);
  qn__lex_blank(p);
  if (i->guard < 0 && length && p->s[0] == ':' && p->s[1] != ':') {
    p->s++;
    char *label = qn__emu_take(p, length + 1);
    memcpy(label, at, length);
    qn__lex_blank(p);
    if (!strncmp(p->s, ".branchtargets", 14)) p->s += 14, parse_table(p, label);
    else qn__emu_symbol_new(p, label, Y_LABEL, p->module->ncode);
    return;
  }
  for (p->s = at; qn__lex_word_char(*p->s) || *p->s == '.' || *p->s == ':'; p->s++) continue;
  length = (size_t)(p->s - at);
  char text[160];
  if (!length || length >= sizeof text) qn__emu_refuse(p, "expected an instruction before '%.8s'", at);
  memcpy(text, at, length);
  text[length] = 0;
  for (; !qn__lex_take(p, ';'); qn__lex_take(p, ',')) {
    if (n == MOST) qn__emu_refuse(p, "more than %d operands", MOST);
    qn__emu_parse_operand(p, &ops[n++]);
  }
  if (!decode_flow(p, i, text, ops, n)) qn__emu_decode(p, i, text, length, ops, n);
  p->module->ncode++;
}

static void bind(parser *p, const fixup *f) {
  uint32_t scope = f->scope;
  for (;; scope = p->parent[scope]) {
    const symbol *y = qn__emu_symbol_in(p, f->name, strlen(f->name), scope);
    if (y && y->kind == Y_LABEL) {
      *(f->slot ? f->slot : &p->module->code[f->insn].target) = (uint32_t)y->at;
      return;
    }
    if (!scope) break;
  }
  p->line = f->line;
  qn__emu_refuse(p, "label %s is not defined", f->name);
}

void qn__emu_end_function(parser *p) {
  insn *i = new_insn(p);
  i->control = p->function->entry ? C_EXIT : C_RETURN, i->a = p->function->return_row, i->kind = QN_EMU_K_BRANCH;
  p->module->ncode++;
  for (; p->fixups; p->fixups = p->fixups->next) bind(p, p->fixups);
  p->function = NULL;
}
