/* module.c - what a module holds: its memory, and its kernels by name.
 *
 * All of it, but for a few growing arrays, is one arena, so that a refused text leaves nothing behind. */
#include "module.h"
#include "fail.h"
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

void qn__emu_module_free(qn_emu_module *m) {
  if (!m) return;
  for (qn_emu_module **q = &m->device->modules; *q; q = &(*q)->next)
    if (*q == m) {
      *q = m->next;
      break;
    }
  if (m->kept) m->free_kept(m);
  for (struct variable *v = m->variables; v; v = v->next) qn__emu_block_free(m->device, v->block);
  for (struct arena *a = m->arena, *next; a; a = next) next = a->next, free(a);
  free(m->text);
  free(m->lines);
  free(m->code);
  free(m->constants);
  free(m->locs);
  free(m);
}

/* ---- Kernels ----------------------------------------------------------------------------------------------------- */

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
