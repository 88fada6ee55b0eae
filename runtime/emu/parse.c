/* parse.c - PTX text into declarations and instructions, in one pass: the directives of a module, and the loop.
 *
 * Source: PTX ISA, "Directives". */
#include "parse.h"
#include <stdlib.h>

static void parse_target(parser *p) {
  const qn_emu *e = p->module->device;
  do {
    const char *s = qn__lex_name(p);
    char *suffix;
    if (strncmp(s, "sm_", 3)) continue; /* debug, texmode_... */
    long sm = strtol(s + 3, &suffix, 10);
    bool fits = sm <= e->limits.sm;
    if (*suffix == 'a') fits = sm == e->limits.sm && e->suffix == 'a';
    if (*suffix == 'f') fits = sm <= e->limits.sm && sm / 10 == e->limits.sm / 10 && e->suffix;
    if (!fits) qn__emu_refuse(p, "PTX for %s does not run on sm_%d%c", s, e->limits.sm, e->suffix ? e->suffix : ' ');
  } while (qn__lex_take(p, ','));
}

static void parse_file(parser *p) {
  qn_emu_module *m = p->module;
  uint32_t n = qn__lex_below(p, 4096, "file number");
  const char *at;
  size_t length = qn__lex_quoted(p, &at);
  if (n >= m->nfiles) {
    char **more = qn__emu_take(p, sizeof *more * (n + 16));
    if (m->nfiles) memcpy(more, m->files, sizeof *more * m->nfiles);
    m->files = more, m->nfiles = n + 16;
  }
  m->files[n] = memcpy(qn__emu_take(p, length + 1), at, length);
  if (qn__lex_take(p, ',')) qn__lex_number(p), qn__lex_expect(p, ','), qn__lex_number(p);
}

/* PTX ISA, ".loc": the line that the following instructions come from. */
static void parse_loc(parser *p) {
  qn_emu_module *m = p->module;
  qn__emu_grow(p, &m->locs, &m->locs_cap, m->nlocs + 2, sizeof *m->locs);
  uint32_t file = qn__lex_below(p, 4096, "file number"), line = qn__lex_below(p, 1u << 31, "line");
  m->locs[++m->nlocs] = (loc){file, line};
  p->loc_live = m->nlocs;
  p->s += strcspn(p->s, "\n");
}

static void skip_braces(parser *p) {
  while (*p->s && *p->s != '{') p->line += *p->s++ == '\n';
  for (; *p->s && *p->s != '}'; p->s++) p->line += *p->s == '\n';
  qn__lex_expect(p, '}');
}

static void parse_directive(parser *p) {
  char t[64];
  qn__lex_directive(p, t);
  if (!strcmp(t, "version")) qn__lex_number(p), qn__lex_expect(p, '.'), qn__lex_number(p);
  else if (!strcmp(t, "target")) parse_target(p);
  else if (!strcmp(t, "address_size")) {
    if (qn__lex_number(p) != 64) qn__emu_refuse(p, "only 64-bit addresses are supported");
  } else if (!strcmp(t, "visible") || !strcmp(t, "extern") || !strcmp(t, "weak") || !strcmp(t, "common")) return;
  else if (!strcmp(t, "entry") || !strcmp(t, "func")) qn__emu_parse_function(p, *t == 'e');
  else if (!strcmp(t, "reg")) qn__emu_parse_registers(p);
  else if (!strcmp(t, "shared") || !strcmp(t, "global") || !strcmp(t, "const") || !strcmp(t, "local") ||
           !strcmp(t, "param"))
    qn__emu_parse_variable(p, t);
  else if (!strcmp(t, "file")) parse_file(p);
  else if (!strcmp(t, "loc")) parse_loc(p);
  else if (!strcmp(t, "section")) skip_braces(p);
  else if (!strcmp(t, "pragma")) qn__emu_parse_pragma(p);
  else qn__emu_refuse(p, "directive .%s is not known", t);
}

static void close_brace(parser *p) {
  if (!p->function) qn__emu_refuse(p, "'}' without '{'");
  qn__emu_scope_close(p);
  if (!p->scope) qn__emu_end_function(p);
}

void qn__emu_parse(parser *p) {
  for (;;) {
    qn__lex_blank(p);
    if (!*p->s) break;
    if (*p->s == '.') parse_directive(p);
    else if (*p->s == '{' && p->function) p->s++, qn__emu_scope_open(p);
    else if (*p->s == '}') p->s++, close_brace(p);
    else if (*p->s == ';') p->s++;
    else qn__emu_parse_insn(p);
  }
  if (p->function) qn__emu_refuse(p, "text ends inside %s", p->function->kernel.name);
}
