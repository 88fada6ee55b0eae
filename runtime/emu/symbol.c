/* symbol.c - what names mean: scopes and symbols; rows of the register file, and constants in them.
 *
 * Every pair of braces is a scope, labels included, because inline asm repeats its names. Source: PTX ISA, "Scoping".
 */
#include "parser.h"
#include <ctype.h>
#include <stdlib.h>

/* ---- Rows and constants ------------------------------------------------------------------------------------------ */

uint32_t qn__emu_row(parser *p, uint32_t bytes) {
  uint32_t at = p->module->file_bytes;
  if (bytes > MAX_FILE - at) qn__emu_refuse(p, "more than %d bytes of registers", MAX_FILE);
  p->module->file_bytes += (bytes + 63) & ~63u;
  return at;
}

static uint32_t constant_slot(const parser *p, uint64_t value, uint32_t width, bool dynamic) {
  uint64_t h = (value * 31 + width * 2 + dynamic) * UINT64_C(0x9e3779b97f4a7c15);
  const constant *c = p->module->constants;
  for (uint32_t i = (uint32_t)(h >> 40) & p->constant_mask;; i = (i + 1) & p->constant_mask) {
    uint32_t k = p->constant_hash[i];
    if (!k || (c[k - 1].value == value && c[k - 1].width == width && c[k - 1].special == dynamic)) return i;
  }
}

uint32_t qn__emu_constant(parser *p, uint64_t value, uint32_t width, bool dynamic) {
  if (width < 8) value &= (UINT64_C(1) << width * 8) - 1;
  uint32_t slot = constant_slot(p, value, width, dynamic);
  if (p->constant_hash[slot]) return p->module->constants[p->constant_hash[slot] - 1].row;
  qn_emu_module *m = p->module;
  if (m->nconstants * 2 > p->constant_mask) qn__emu_refuse(p, "more than %u constants", p->constant_mask / 2);
  qn__emu_grow(p, &m->constants, &m->constants_cap, m->nconstants + 1, sizeof *m->constants);
  uint32_t row = qn__emu_row(p, width * LANES);
  m->constants[m->nconstants++] = (constant){value, row, (uint8_t)width, dynamic};
  p->constant_hash[slot] = m->nconstants;
  return row;
}

/* ---- Symbols ----------------------------------------------------------------------------------------------------- */

static uint32_t hash(const char *s, size_t n) {
  uint32_t h = 2166136261u;
  for (size_t i = 0; i < n; i++) h = (h ^ (uint8_t)s[i]) * 16777619u;
  return (h ^ h >> 15) % BUCKETS;
}

symbol *qn__emu_symbol_in(const parser *p, const char *s, size_t n, uint32_t scope) {
  for (symbol *y = p->symbols[hash(s, n)]; y; y = y->next)
    if (y->scope == scope && y->length == n && !memcmp(y->name, s, n)) return y;
  return NULL;
}

symbol *qn__emu_symbol_find(const parser *p, const char *s, size_t n, uint32_t *index) {
  size_t stem = n;
  while (stem && isdigit((unsigned char)s[stem - 1])) stem--;
  uint64_t k = stem < n && n - stem < 9 ? strtoull(s + stem, NULL, 10) : UINT64_MAX;
  for (uint32_t scope = p->scope;; scope = p->parent[scope]) {
    symbol *y = qn__emu_symbol_in(p, s, n, scope);
    *index = 0;
    if (y && y->kind != Y_RANGE) return y;
    y = stem < n ? qn__emu_symbol_in(p, s, stem, scope) : NULL;
    *index = (uint32_t)k;
    if (y && y->kind == Y_RANGE && k < y->count) return y;
    if (!scope) return NULL;
  }
}

symbol *qn__emu_symbol_new(parser *p, const char *s, int kind, uint64_t at) {
  size_t n = strlen(s);
  symbol *y = qn__emu_symbol_in(p, s, n, p->scope);
  if (y && (kind == Y_LABEL || y->kind != (unsigned)kind)) qn__emu_refuse(p, "%s is declared twice", s);
  y = qn__emu_take(p, sizeof *y);
  uint32_t h = hash(s, n);
  *y = (symbol){.next = p->symbols[h], .name = s, .length = n, .scope = p->scope, .kind = kind, .at = at};
  return p->symbols[h] = y;
}

void qn__emu_scope_open(parser *p) {
  if (p->nscopes == SCOPES) qn__emu_refuse(p, "more than %d scopes", SCOPES);
  p->parent[p->nscopes] = p->scope;
  p->scope = p->nscopes++;
  p->depth++;
}

void qn__emu_scope_close(parser *p) { p->scope = p->parent[p->scope], p->depth--; }
