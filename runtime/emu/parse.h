/* parse.h - what the parser hands to the decoders: operands, and how to ask for rows and refuse text. */
#ifndef QN_EMU_PARSE_H
#define QN_EMU_PARSE_H
#include "internal.h"
#include <setjmp.h>

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

typedef struct symbol {
  struct symbol *next; /* in its bucket */
  const char *name;
  size_t length;
  uint32_t scope;
  enum { Y_REGISTER, Y_RANGE, Y_SHARED, Y_DYNAMIC, Y_PARAM, Y_LOCAL, Y_GLOBAL, Y_LABEL, Y_TABLE } kind;
  type type;
  uint64_t at;    /* first row, offset, address or instruction */
  uint32_t count; /* of a range */
  uint32_t size;
} symbol;

typedef struct fixup {
  struct fixup *next;
  uint32_t insn, scope, line;
  const char *name;
  uint32_t *slot; /* where a table wants it; NULL: insn.target */
} fixup;

enum { BUCKETS = 1 << 12, SCOPES = 1 << 16 };

struct parser {
  qn_emu_module *module;
  const char *s;
  uint32_t line, scope, nscopes, depth;
  uint32_t *parent; /* of each scope */
  symbol *symbols[BUCKETS];
  function *function;
  fixup *fixups;
  uint32_t loc, loc_live;
  uint32_t *constant_hash, constant_mask;
  struct memo {
    const rule *rule;
    char text[160];
  } * memo;
  uint32_t level;
  qn_status status;
  jmp_buf refuse;
};

/* Stop: the text is wrong or unknown. */
_Noreturn void qn__emu_refuse(parser *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
void *qn__emu_take(parser *p, size_t bytes); /* from the module's arena; refuses when out of memory */
uint32_t qn__emu_row(parser *p, uint32_t bytes);
uint32_t qn__emu_constant(parser *p, uint64_t value, uint32_t width, bool dynamic);

/* Parse the module's text; does not return when it refuses. */
void qn__emu_parse(parser *p);

/* Decode one instruction into `i`. */
void qn__emu_decode(parser *p, insn *i, const char *text, size_t length, operand *ops, int n);

/* For decoders: is that token in the opcode; the type it names in position k (k < 0: from the end). */
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
/* Base row, offset and width of a memory operand into i->a, i->imm, i->width2. */
void qn__emu_address(parser *p, insn *i, const operand *o, uint32_t *row, int64_t *offset);
/* Rows of a vector (or single) operand appended to a new list. */
const uint32_t *qn__emu_list(parser *p, const operand *ops, int n, uint32_t width, uint16_t *count);
void qn__emu_operands(parser *p, const opcode *o, int n, int least, int most);
#endif
