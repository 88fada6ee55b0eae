/* rule.h - the instruction set as tables of rules, and what their decoders ask of the parser. */
#ifndef QN_EMU_RULE_H
#define QN_EMU_RULE_H
#include "machine.h"

/* ---- Rules ------------------------------------------------------------------------------------------------------- */

typedef struct parser parser;
typedef struct operand operand;
typedef struct opcode opcode;
typedef void decode_fn(parser *p, insn *i, const opcode *o, operand *ops, int n);

/* One row of the instruction set. pattern: tokens of the opcode, "a|b" alternatives, "?" after an optional one,
 * "*" for digits.
 * form: how operands fill the slots d a b c e: a letter per operand; its width is the type's, twice that when the
 * letter is upper case, or the digit after it; 'p' after it: a predicate. Empty form: decode does it. */
typedef struct rule {
  const char *pattern, *form;
  op_fn *run;
  decode_fn *decode;
  uint8_t kind, control, sub;
} rule;

typedef struct rules {
  const rule *rows;
  size_t count;
} rules;

uint32_t qn__emu_level(void); /* of this machine: index of the tables that are compiled for several */

/* Files of hot arithmetic are compiled once per instruction set; QN_LEVEL tells their tables apart. */
#ifndef QN_LEVEL
#define QN_LEVEL base
#endif
#define LEVEL_NAME_(name, level) qn__emu_##name##_##level
#define LEVEL_NAME(name, level) LEVEL_NAME_(name, level)
#define LEVELED(name) LEVEL_NAME(name, QN_LEVEL)
#define DECLARE_RULES(name) extern const rules name
#define DEFINE_RULES(name, rows) const rules name = {rows, sizeof(rows) / sizeof *(rows)}

enum { LEVELS = 3 };
#ifdef QN_X86_64_LEVELS
#define LEVEL_MAP(X, name) X(name, base) X(name, v3) X(name, v4)
#else
#define LEVEL_MAP(X, name) X(name, base)
#endif
#define DECLARE_LEVEL(name, level) DECLARE_RULES(qn__emu_##name##_##level);
LEVEL_MAP(DECLARE_LEVEL, rules_int)
LEVEL_MAP(DECLARE_LEVEL, rules_select)
LEVEL_MAP(DECLARE_LEVEL, rules_float)
LEVEL_MAP(DECLARE_LEVEL, rules_convert)
LEVEL_MAP(DECLARE_LEVEL, rules_access)
LEVEL_MAP(DECLARE_LEVEL, rules_copy)
LEVEL_MAP(DECLARE_LEVEL, rules_matrix)
LEVEL_MAP(DECLARE_LEVEL, rules_wgmma)
DECLARE_RULES(qn__emu_rules_flow);
DECLARE_RULES(qn__emu_rules_atomic);
DECLARE_RULES(qn__emu_rules_warp);
DECLARE_RULES(qn__emu_rules_async);
DECLARE_RULES(qn__emu_rules_bulk);

/* ---- Operands and opcodes ---------------------------------------------------------------------------------------- */

typedef enum operand_kind { O_NONE, O_REG, O_IMM, O_ADDRESS, O_VECTOR, O_MEMORY, O_NAME, O_SINK } operand_kind;

struct operand {
  operand_kind kind;
  type type;     /* O_REG */
  uint32_t row;  /* O_REG; O_MEMORY: of its base (0: absolute) */
  uint8_t width; /* O_REG, O_MEMORY: bytes per lane of the register */
  uint8_t real;  /* O_IMM: 4 or 8, written as 0f or 0d */
  bool negate;   /* !%p */
  bool dynamic;  /* O_ADDRESS, O_MEMORY: relative to dynamic shared memory */
  uint8_t space; /* O_ADDRESS: of the variable */
  int64_t imm;   /* value, address or offset */
  operand *list; /* O_VECTOR elements; O_MEMORY: coordinates */
  int count;
  operand *second; /* after '|' */
  char name[96];   /* O_NAME */
};

struct opcode {
  char text[160];
  char *token[24];
  int n;
  const rule *rule;
};

/* ---- What decoders ask ------------------------------------------------------------------------------------------- */

/* Stop: the text is wrong or unknown. */
_Noreturn void qn__emu_refuse(parser *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
void *qn__emu_take(parser *p, size_t bytes); /* from the module's arena; refuses when out of memory */
uint32_t qn__emu_row(parser *p, uint32_t bytes);
uint32_t qn__emu_constant(parser *p, uint64_t value, uint32_t width, bool dynamic);

/* Is that token in the opcode; the type it names in position k (k < 0: from the end). */
bool qn__emu_has(const opcode *o, const char *token);
/* Index of the first of the '|'-separated tokens that the opcode has, or -1. */
int qn__emu_which(const opcode *o, const char *tokens);
type qn__emu_token_type(parser *p, const opcode *o, int k);
/* Row of a source operand read as `width` bytes per lane; registers must be that wide. */
uint32_t qn__emu_source(parser *p, const operand *o, uint32_t width);
/* Row of a source that may be wider than the instruction's type; *width gets the register's. */
uint32_t qn__emu_source_wide(parser *p, const operand *o, type t, uint8_t *width);
uint32_t qn__emu_dest(parser *p, const operand *o, uint32_t width);
/* Row of a predicate (a constant becomes a row of bits); `!` is refused unless *negate takes it. */
uint32_t qn__emu_predicate(parser *p, const operand *o, bool *negate);
/* Base row and offset of a memory operand; a row of 32 bits is marked in its bit 0. */
void qn__emu_address(parser *p, const operand *o, uint32_t *row, int64_t *offset);
/* Rows of a vector (or single) operand appended to a new list. */
const uint32_t *qn__emu_list(parser *p, const operand *ops, int n, uint32_t width, uint16_t *count);
void qn__emu_operands(parser *p, const opcode *o, int n, int least, int most);
decode_fn qn__emu_decode_wait; /* of a wait for all but so many groups */
#endif
