/* decode.c - an opcode and its operands into an insn, by the tables of rules that the op files export.
 *
 * A rule's pattern is written like the ISA's syntax line; the first rule that matches wins. What no rule matches is
 * refused. Opcodes repeat, so that the match is remembered per text. */
#include "fail.h"
#include "parser.h"
#include <stdlib.h>

const struct type_info qn__emu_types[TYPES] = {
#define X(n, text, size) {text, size},
    TYPE_MAP(X)
#undef X
};

type qn__emu_type(const char *s, size_t n) {
  for (int t = T_NONE + 1; t < TYPES; t++)
    if (strlen(qn__emu_types[t].name) == n && !memcmp(qn__emu_types[t].name, s, n)) return (type)t;
  return T_NONE;
}

/* ---- Tables ------------------------------------------------------------------------------------------------------ */

#define ROWS(name, level) &qn__emu_##name##_##level,
static const rules *const leveled[][LEVELS] = {
    {LEVEL_MAP(ROWS, rules_int)},     {LEVEL_MAP(ROWS, rules_select)}, {LEVEL_MAP(ROWS, rules_float)},
    {LEVEL_MAP(ROWS, rules_convert)}, {LEVEL_MAP(ROWS, rules_access)}, {LEVEL_MAP(ROWS, rules_copy)},
    {LEVEL_MAP(ROWS, rules_matrix)},  {LEVEL_MAP(ROWS, rules_wgmma)},
};
static const rules *const plain[] = {&qn__emu_rules_flow, &qn__emu_rules_atomic, &qn__emu_rules_warp,
                                     &qn__emu_rules_async, &qn__emu_rules_bulk};

uint32_t qn__emu_level(void) {
#ifdef QN_X86_64_LEVELS
  __builtin_cpu_init();
  bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return v4 ? 2 : v3;
#else
  return 0;
#endif
}

/* ---- Matching ---------------------------------------------------------------------------------------------------- */

/* A '*' in a pattern stands for digits. */
static bool same_token(const char *pattern, size_t n, const char *token) {
  for (; n; n--, pattern++)
    if (*pattern == '*') token += strspn(token, "0123456789");
    else if (*token++ != *pattern) return false;
  return !*token;
}

static bool in_alternatives(const char *alternatives, size_t n, const char *token) {
  for (const char *s = alternatives, *end = s + n; s < end;) {
    const char *stop = memchr(s, '|', (size_t)(end - s));
    size_t k = (size_t)((stop ? stop : end) - s);
    if (same_token(s, k, token)) return true;
    s += k + 1;
  }
  return false;
}

static bool matches(const char *pattern, const opcode *o) {
  int k = 0;
  for (const char *s = pattern; *s;) {
    size_t n = strcspn(s, ".");
    bool optional = s[n - 1] == '?', here = k < o->n && in_alternatives(s, n - optional, o->token[k]);
    if (here) k++;
    else if (!optional) return false;
    s += n + (s[n] == '.');
  }
  return k == o->n;
}

static const rule *match_in(const rules *r, const opcode *o) {
  for (size_t k = 0; k < r->count; k++)
    if (matches(r->rows[k].pattern, o)) return &r->rows[k];
  return NULL;
}

static const rule *match(const parser *p, const opcode *o) {
  const rule *found = NULL;
  for (size_t k = 0; k < QN_COUNT(leveled) && !found; k++) found = match_in(leveled[k][p->level], o);
  for (size_t k = 0; k < QN_COUNT(plain) && !found; k++) found = match_in(plain[k], o);
  return found;
}

static void split(parser *p, opcode *o, const char *text, size_t length) {
  memcpy(o->text, text, length);
  o->text[length] = 0;
  o->n = 0;
  for (char *s = o->text; s; o->n++) {
    if (o->n == (int)QN_COUNT(o->token)) qn__emu_refuse(p, "opcode with more than %zu parts", QN_COUNT(o->token));
    o->token[o->n] = s;
    s = strchr(s, '.');
    if (s) *s++ = 0;
  }
}

static void find_rule(parser *p, opcode *o, const char *text, size_t length) {
  uint32_t h = 5381;
  for (size_t i = 0; i < length; i++) h = h * 33 ^ (uint8_t)text[i];
  struct memo *m = &p->memo[(h ^ h >> 9) & 255];
  split(p, o, text, length);
  if (!m->rule || strncmp(m->text, text, length) || m->text[length]) {
    m->rule = match(p, o);
    memcpy(m->text, text, length);
    m->text[length] = 0;
  }
  o->rule = m->rule;
  if (!o->rule) qn__emu_refuse(p, "instruction %.*s is not known", (int)length, text);
}

/* ---- Questions of decoders --------------------------------------------------------------------------------------- */

bool qn__emu_has(const opcode *o, const char *token) {
  for (int k = 1; k < o->n; k++)
    if (!strcmp(o->token[k], token)) return true;
  return false;
}

int qn__emu_which(const opcode *o, const char *tokens) {
  int index = 0;
  for (const char *s = tokens; *s; index++) {
    size_t n = strcspn(s, "|");
    for (int k = 1; k < o->n; k++)
      if (strlen(o->token[k]) == n && !memcmp(o->token[k], s, n)) return index;
    s += n + (s[n] == '|');
  }
  return -1;
}

type qn__emu_token_type(parser *p, const opcode *o, int k) {
  int at = k < 0 ? o->n + k : k;
  if (at < 0 || at >= o->n) qn__emu_refuse(p, "opcode is too short");
  return qn__emu_type(o->token[at], strlen(o->token[at]));
}

void qn__emu_operands(parser *p, const opcode *o, int n, int least, int most) {
  if (n < least || n > most)
    qn__emu_refuse(p, "%s takes %d%s operands, not %d", o->token[0], least, most > least ? " or more" : "", n);
}

void qn__emu_decode_wait(parser *p, insn *i, const opcode *o, operand *ops, int n) {
  qn__emu_operands(p, o, n, 1, 1);
  if (ops[0].kind != O_IMM || ops[0].imm < 0 || ops[0].imm > 255) qn__emu_refuse(p, "wait_group takes a constant");
  i->imm = ops[0].imm;
}

/* ---- Operands to rows -------------------------------------------------------------------------------------------- */

static uint64_t immediate(parser *p, const operand *o, uint32_t width) {
  double d;
  float f;
  uint32_t bits;
  if (o->real != 8 || width == 8) {
    if (o->real == 4 && width == 8) qn__emu_refuse(p, "a 32-bit real where 64 bits are wanted");
    return (uint64_t)o->imm;
  }
  if (width != 4) qn__emu_refuse(p, "a 64-bit real where %u bits are wanted", width * 8);
  memcpy(&d, &o->imm, 8);
  f = (float)d;
  memcpy(&bits, &f, 4);
  return bits;
}

uint32_t qn__emu_source(parser *p, const operand *o, uint32_t width) {
  if (o->negate || o->second) qn__emu_refuse(p, "'!' or '|' where a value is wanted");
  switch (o->kind) {
  case O_REG:
    if (o->type == T_PRED) qn__emu_refuse(p, "a predicate where a value of %u bits is wanted", width * 8);
    if (o->width != width) qn__emu_refuse(p, "register of %d bits where %u are wanted", o->width * 8, width * 8);
    return o->row;
  case O_IMM:
    return qn__emu_constant(p, immediate(p, o, width), width, false);
  case O_ADDRESS:
    return qn__emu_constant(p, (uint64_t)o->imm, width, o->dynamic);
  case O_NAME:
    qn__emu_refuse(p, "%s is not declared", o->name);
  default:
    qn__emu_refuse(p, "a value is wanted");
  }
}

uint32_t qn__emu_source_wide(parser *p, const operand *o, type t, uint8_t *width) {
  *width = (uint8_t)type_width(t);
  if (o->kind != O_REG) return qn__emu_source(p, o, *width);
  if (o->width < *width) qn__emu_refuse(p, "register of %d bits where %d are wanted", o->width * 8, *width * 8);
  *width = o->width;
  return qn__emu_source(p, o, o->width);
}

uint32_t qn__emu_dest(parser *p, const operand *o, uint32_t width) {
  if (o->kind != O_REG) qn__emu_refuse(p, "a register is wanted as destination");
  for (int k = 0; k < SPECIALS; k++)
    if (p->module->specials[k] == o->row) qn__emu_refuse(p, "a special register cannot be written");
  return qn__emu_source(p, o, width);
}

uint32_t qn__emu_predicate(parser *p, const operand *o, bool *negate) {
  if (o->negate && !negate) qn__emu_refuse(p, "'!' is not allowed here");
  if (negate) *negate = o->negate;
  if (o->kind == O_IMM) return qn__emu_constant(p, o->imm ? ALL : 0, 4, false);
  if (o->kind != O_REG || o->type != T_PRED) qn__emu_refuse(p, "a predicate is wanted");
  return o->row;
}

void qn__emu_address(parser *p, const operand *o, uint32_t *row, int64_t *offset) {
  if (o->kind != O_MEMORY) qn__emu_refuse(p, "an address in brackets is wanted");
  *offset = o->imm;
  *row = o->row;
  if (o->row && o->width == 8) return;
  if (o->row) { /* 32-bit shared, local or param addresses are widened when used */
    *row |= 1;
    return;
  }
  if (o->dynamic) *row = qn__emu_constant(p, 0, 8, true);
  else *row = qn__emu_constant(p, (uint64_t)o->imm, 8, false), *offset = 0;
}

const uint32_t *qn__emu_list(parser *p, const operand *ops, int n, uint32_t width, uint16_t *count) {
  uint32_t total = 0;
  for (int k = 0; k < n; k++) total += ops[k].kind == O_VECTOR ? (uint32_t)ops[k].count : 1;
  uint32_t *rows = qn__emu_take(p, sizeof *rows * (total + 1)), at = 0;
  for (int k = 0; k < n; k++) {
    const operand *list = ops[k].kind == O_VECTOR ? ops[k].list : &ops[k];
    for (int j = 0; j < (ops[k].kind == O_VECTOR ? ops[k].count : 1); j++)
      rows[at++] = list[j].kind == O_SINK ? 0 : qn__emu_source(p, &list[j], width);
  }
  *count = (uint16_t)total;
  return rows;
}

/* ---- Forms ------------------------------------------------------------------------------------------------------- */

static uint32_t *slot(insn *i, char c) {
  switch (c | 32) {
  case 'd':
    return &i->d;
  case 'a':
    return &i->a;
  case 'b':
    return &i->b;
  case 'c':
    return &i->c;
  default:
    return &i->e;
  }
}

static void fill_form(parser *p, insn *i, const opcode *o, const char *form, const operand *ops, int n) {
  int k = 0;
  for (const char *s = form; *s; k++) {
    char c = *s++;
    uint32_t width = type_width(i->type) * (c < 'a' ? 2 : 1);
    bool marked = *s == 'p', predicate = marked || i->type == T_PRED;
    if (*s >= '1' && *s <= '8') width = (uint32_t)(*s++ - '0');
    s += marked;
    if (k >= n) qn__emu_refuse(p, "%s needs more than %d operands", o->token[0], n);
    *slot(i, c) = predicate         ? qn__emu_predicate(p, &ops[k], NULL)
                  : (c | 32) == 'd' ? qn__emu_dest(p, &ops[k], width)
                                    : qn__emu_source(p, &ops[k], width);
  }
  if (k != n) qn__emu_refuse(p, "%s takes %d operands, not %d", o->token[0], k, n);
}

static uint8_t flags_of(const opcode *o) {
  static const struct {
    const char *token;
    uint8_t flag;
  } map[] = {{"ftz", F_FTZ},   {"sat", F_SAT}, {"satfinite", F_SAT},
             {"relu", F_RELU}, {"NaN", F_NAN}, {"approx", F_APPROX}};
  uint8_t flags = 0;
  for (size_t k = 0; k < QN_COUNT(map); k++) flags |= qn__emu_has(o, map[k].token) ? map[k].flag : 0;
  return flags;
}

void qn__emu_decode(parser *p, insn *i, const char *text, size_t length, operand *ops, int n) {
  opcode o;
  find_rule(p, &o, text, length);
  const rule *r = o.rule;
  i->run = r->run, i->kind = r->kind, i->control = r->control, i->sub = r->sub;
  i->type = (uint8_t)qn__emu_token_type(p, &o, -1);
  i->flags = flags_of(&o);
  if (r->decode) r->decode(p, i, &o, ops, n);
  else fill_form(p, i, &o, r->form, ops, n);
}
