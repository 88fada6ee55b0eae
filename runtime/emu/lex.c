/* lex.c - words, numbers and marks of PTX text, and how a parser stops.
 *
 * Whatever the parser does not know it refuses, naming the line: a guess would hide in the results. It longjmps out of
 * any depth; all memory is the module's arena. Source: PTX ISA, "Syntax". */
#include "fail.h"
#include "parser.h"
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

_Noreturn void qn__emu_refuse_memory(parser *p) {
  p->status = qn__fail(QN_E_NOMEM, "PTX line %u: out of memory", p->line);
  longjmp(p->refuse, 1);
}

void *qn__emu_take(parser *p, size_t bytes) {
  void *q = qn__emu_arena(p->module, bytes);
  if (!q) qn__emu_refuse_memory(p);
  return q;
}

void qn__emu_grow(parser *p, void *array, uint32_t *cap, uint32_t need, size_t size) {
  if (need <= *cap) return;
  uint32_t n = *cap ? *cap * 2 : 256;
  void *old = *(void **)array, *q = realloc(old, n * size);
  if (!q) qn__emu_refuse_memory(p);
  memset((char *)q + *cap * size, 0, (n - *cap) * size);
  *(void **)array = q, *cap = n;
}

/* ---- Lexer ------------------------------------------------------------------------------------------------------- */

void qn__lex_blank(parser *p) {
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

bool qn__lex_take(parser *p, char c) {
  qn__lex_blank(p);
  if (*p->s != c) return false;
  p->s++;
  return true;
}

void qn__lex_expect(parser *p, char c) {
  if (!qn__lex_take(p, c)) qn__emu_refuse(p, "expected '%c' before '%.8s'", c, p->s);
}

bool qn__lex_word_char(char c) { return isalnum((unsigned char)c) || c == '_' || c == '$' || c == '%'; }

size_t qn__lex_word(parser *p, const char **at) {
  qn__lex_blank(p);
  *at = p->s;
  while (qn__lex_word_char(*p->s)) p->s++;
  return (size_t)(p->s - *at);
}

const char *qn__lex_name(parser *p) {
  const char *at;
  size_t n = qn__lex_word(p, &at);
  if (!n || n > 1000) qn__emu_refuse(p, "expected a name before '%.8s'", at);
  char *copy = qn__emu_take(p, n + 1);
  memcpy(copy, at, n);
  return copy;
}

void qn__lex_directive(parser *p, char out[64]) {
  const char *at;
  qn__lex_expect(p, '.');
  size_t n = qn__lex_word(p, &at);
  if (!n || n > 63) qn__emu_refuse(p, "expected a directive before '%.8s'", at);
  memcpy(out, at, n);
  out[n] = 0;
}

size_t qn__lex_quoted(parser *p, const char **at) {
  qn__lex_expect(p, '"');
  *at = p->s;
  size_t n = strcspn(p->s, "\"\n");
  if (p->s[n] != '"') qn__emu_refuse(p, "text in quotes without end");
  p->s += n + 1;
  return n;
}

uint64_t qn__lex_number(parser *p) {
  qn__lex_blank(p);
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

uint32_t qn__lex_below(parser *p, uint64_t limit, const char *what) {
  uint64_t v = qn__lex_number(p);
  if (v >= limit)
    qn__emu_refuse(p, "%s %llu is not below %llu", what, (unsigned long long)v, (unsigned long long)limit);
  return (uint32_t)v;
}
