/* module.c - a module from its text to its kernels: memory, parsing, binding of calls, look-ups.
 *
 * All that a module holds, but for a few growing arrays, is one arena, so that a refused text leaves nothing behind. */
#include "fail.h"
#include "parse.h"
#include <stdio.h>
#include <stdlib.h>

/* ---- Memory ------------------------------------------------------------------------------------------------------ */

struct arena {
  struct arena *next;
  size_t used, size;
  max_align_t data[];
};

void *qn__emu_arena(qn_emu_module *m, size_t bytes) {
  bytes = (bytes + 15) & ~(size_t)15;
  if (!m->arena || m->arena->size - m->arena->used < bytes) {
    size_t size = bytes > 1 << 16 ? bytes : 1 << 16;
    struct arena *a = calloc(1, sizeof *a + size);
    if (!a) return NULL;
    a->next = m->arena, a->size = size, m->arena = a;
  }
  void *p = (char *)m->arena->data + m->arena->used;
  m->arena->used += bytes;
  return p;
}

/* ---- Finishing --------------------------------------------------------------------------------------------------- */

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
    qn__emu_parse(p);
    bind_calls(p);
    list_kernels(p);
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

void qn__emu_module_free(qn_emu_module *m) {
  if (!m) return;
  for (qn_emu_module **q = &m->device->modules; *q; q = &(*q)->next)
    if (*q == m) {
      *q = m->next;
      break;
    }
  for (struct variable *v = m->variables; v; v = v->next) qn__emu_block_free(m->device, v->block);
  for (struct arena *a = m->arena, *next; a; a = next) next = a->next, free(a);
  free(m->text);
  free(m->lines);
  free(m->code);
  free(m->constants);
  free(m->locs);
  free(m);
}

qn_status qn__emu_kernel_find(qn_emu_module *m, const char *wanted, const qn_emu_kernel **out) {
  char names[256] = "";
  *out = NULL;
  if (!wanted && m->nkernels == 1) return *out = &m->kernels[0]->kernel, QN_OK;
  for (int i = 0; i < m->nkernels; i++) {
    const qn_emu_kernel *k = &m->kernels[i]->kernel;
    if (wanted && !strcmp(k->name, wanted)) return *out = k, QN_OK;
    size_t used = strlen(names);
    snprintf(names + used, sizeof names - used, " %s", k->name);
  }
  return qn__fail(QN_E_ARG, "PTX module has no kernel %s; it has:%s", wanted ? wanted : "by default",
                  *names ? names : " none");
}

int qn__emu_kernel_count(const qn_emu_module *m) { return m->nkernels; }
const qn_emu_kernel *qn__emu_kernel_at(const qn_emu_module *m, int i) {
  return i >= 0 && i < m->nkernels ? &m->kernels[i]->kernel : NULL;
}
