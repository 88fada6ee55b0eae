/* parser.h - what the parts of the parser share: its state, words of the text, names.
 *
 *     lex.c -> symbol.c -> declare.c, instruct.c -> parse.c: the loop */
#ifndef QN_EMU_PARSER_H
#define QN_EMU_PARSER_H
#include "rule.h"
#include <setjmp.h>

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

/* ---- Text (lex.c) ------------------------------------------------------------------------------------------------ */

_Noreturn void qn__emu_refuse_memory(parser *p);
/* Room for `need` elements in an array of the heap, new ones zeroed. */
void qn__emu_grow(parser *p, void *array, uint32_t *cap, uint32_t need, size_t size);
void qn__lex_blank(parser *p);        /* go on to what is neither space nor comment */
bool qn__lex_take(parser *p, char c); /* past `c`, if it is next */
void qn__lex_expect(parser *p, char c);
bool qn__lex_word_char(char c);
size_t qn__lex_word(parser *p, const char **at);   /* its length; 0: there is none */
const char *qn__lex_name(parser *p);               /* a copy in the arena */
void qn__lex_directive(parser *p, char out[64]);   /* its name, after the dot */
size_t qn__lex_quoted(parser *p, const char **at); /* its length; it ends in the line where it begins */
uint64_t qn__lex_number(parser *p);
uint32_t qn__lex_below(parser *p, uint64_t limit, const char *what);

/* ---- Names (symbol.c) -------------------------------------------------------------------------------------------- */

enum { MAX_FILE = 1 << 26 }; /* bytes of a register file */

symbol *qn__emu_symbol_in(const parser *p, const char *s, size_t n, uint32_t scope);
/* A name, or the prefix of a range such as %r<12> with a number behind it; inner scopes first. */
symbol *qn__emu_symbol_find(const parser *p, const char *s, size_t n, uint32_t *index);
symbol *qn__emu_symbol_new(parser *p, const char *s, int kind, uint64_t at);
void qn__emu_scope_open(parser *p);
void qn__emu_scope_close(parser *p);

/* ---- Parts of a module (declare.c, instruct.c) ------------------------------------------------------------------- */

void qn__emu_parse_registers(parser *p);
void qn__emu_parse_variable(parser *p, const char *where); /* "shared", "const"... */
void qn__emu_parse_pragma(parser *p);
void qn__emu_parse_function(parser *p, bool entry); /* its head; what follows up to end_function is its body */
function *qn__emu_function(parser *p, const char *s, bool entry); /* made when it is new */
void qn__emu_parse_operand(parser *p, operand *o);
void qn__emu_parse_insn(parser *p);
/* An opcode and its operands into `i` (decode.c). */
void qn__emu_decode(parser *p, insn *i, const char *text, size_t length, operand *ops, int n);
void qn__emu_end_function(parser *p);
void qn__emu_watch_registers(parser *p); /* of the whole text: numbers those of wgmma, fills insn.watch (watch.c) */
#endif
