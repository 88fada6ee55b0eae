/* parse.c - PTX text into a module, in one pass: its directives, the loop, and what only the whole text can tell.
 *
 * Source: PTX ISA, "Directives". */
#include "fail.h"
#include "parser.h"
#include <stdlib.h>

/* ---- Directives -------------------------------------------------------------------------------------------------- */

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

static void parse(parser *p) {
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

/* ---- The whole --------------------------------------------------------------------------------------------------- */

static void bind_calls(parser *p) {
  for (uint32_t k = 0; k < p->module->ncode; k++) {
    insn *i = &p->module->code[k];
    if (i->control != C_CALL) continue;
    const call *c = i->extra;
    p->line = i->line;
    if (!c->f->defined) qn__emu_refuse(p, "function %s is only declared", c->f->kernel.name);
    if (c->f->entry) qn__emu_refuse(p, "call of a kernel");
    i->target = c->f->first, i->a = c->f->return_row;
  }
}

static int by_line(const void *a, const void *b) {
  return (*(const function *const *)a)->kernel.line - (*(const function *const *)b)->kernel.line;
}

/* Kernels in the order of the text; dynamic shared memory begins behind the static at its own alignment. */
static void list_kernels(parser *p) {
  qn_emu_module *m = p->module;
  uint32_t of_module = m->shared_bytes & 0xffffff, log = m->shared_bytes >> 24;
  for (function *f = m->functions; f; f = f->next) m->nkernels += f->entry && f->defined;
  m->kernels = qn__emu_take(p, sizeof *m->kernels * (size_t)(m->nkernels + 1));
  int n = 0;
  for (function *f = m->functions; f; f = f->next) {
    if (!f->entry || !f->defined) continue;
    m->kernels[n++] = f;
    uint32_t align = f->dynamic > 16 ? f->dynamic : 16;
    if (log && 1u << (log - 1) > align) align = 1u << (log - 1);
    if (f->kernel.static_shared < of_module) f->kernel.static_shared = of_module;
    f->dynamic = SHARED_BASE + ((f->kernel.static_shared + align - 1) & ~(align - 1));
  }
  if (n) qsort(m->kernels, (size_t)n, sizeof *m->kernels, by_line);
}

static qn_status index_lines(qn_emu_module *m) {
  uint32_t n = 1;
  for (const char *s = m->text; *s; s++) n += *s == '\n';
  m->lines = calloc(n, sizeof *m->lines);
  if (!m->lines) return qn__fail(QN_E_NOMEM, "PTX module: out of memory");
  m->lines[m->nlines++] = m->text;
  for (const char *s = m->text; *s; s++)
    if (*s == '\n') m->lines[m->nlines++] = s + 1;
  return QN_OK;
}

static qn_status parse_module(parser *p) {
  enum { CONSTANTS = 1 << 16 };
  p->parent = calloc(SCOPES, sizeof *p->parent);
  p->constant_hash = calloc(CONSTANTS, sizeof *p->constant_hash);
  p->memo = calloc(256, sizeof *p->memo);
  p->constant_mask = CONSTANTS - 1;
  p->level = qn__emu_level();
  p->nscopes = 1;
  p->module->file_bytes = 128; /* row 0 is "absent" */
  if (!p->parent || !p->constant_hash || !p->memo) p->status = qn__fail(QN_E_NOMEM, "PTX module: out of memory");
  else if (!setjmp(p->refuse)) {
    p->s = p->module->text, p->line = 1;
    parse(p);
    bind_calls(p);
    list_kernels(p);
    qn__emu_watch_registers(p);
  }
  free(p->parent);
  free(p->constant_hash);
  free(p->memo);
  return p->status;
}

qn_status qn__emu_module_load(qn_emu *e, const char *ptx, qn_emu_module **out) {
  *out = NULL;
  qn_emu_module *m = calloc(1, sizeof *m);
  parser *p = calloc(1, sizeof *p);
  qn_status s = m && p ? QN_OK : qn__fail(QN_E_NOMEM, "PTX module: out of memory");
  if (m) m->device = e, m->next = e->modules, e->modules = m;
  if (!s) {
    p->module = m, m->text = strdup(ptx);
    s = m->text ? index_lines(m) : qn__fail(QN_E_NOMEM, "PTX module: out of memory");
  }
  if (!s) s = parse_module(p);
  free(p);
  if (s) qn__emu_module_free(m);
  else *out = m;
  return s;
}
