/* watch.c - registers that wgmma and loads have in flight: numbered once, looked at whenever an instruction names one.
 */
#include "watch.h"
#include "checks.h"
#include "fail.h"
#include "parser.h"
#include <stdio.h>
#include <stdlib.h>

/* ---- Numbers ----------------------------------------------------------------------------------------------------- */

enum { ROW_STEP = 64 }; /* rows begin at multiples of it; a row of 32 bits may be marked in bit 0 */

static bool is_product(const insn *i) { return i->kind == QN_EMU_K_WGMMA && i->nregs; }
static bool is_load(const insn *i) { return i->kind == QN_EMU_K_GLOBAL && !i->store; }

/* What the text calls the register of a row; of an array of registers the element. */
static char *name_of(parser *p, uint32_t row) {
  char name[64] = "";
  for (int b = 0; b < BUCKETS; b++)
    for (const symbol *y = p->symbols[b]; y; y = y->next) {
      if ((y->kind != Y_REGISTER && y->kind != Y_RANGE) || row < y->at) continue;
      uint64_t index = (row - y->at) / (type_width(y->type) * LANES);
      if (index >= y->count) continue;
      if (y->kind == Y_RANGE) snprintf(name, sizeof name, "%.40s%u", y->name, (unsigned)index);
      else snprintf(name, sizeof name, "%.40s", y->name);
    }
  return strcpy(qn__emu_take(p, strlen(name) + 1), name);
}

/* Give the registers of such instructions numbers, from 1; a '_' keeps 0. */
static void number_rows(parser *p, uint16_t *number, bool (*of)(const insn *i)) {
  qn_emu_module *m = p->module;
  for (uint32_t k = 0; k < m->ncode; k++)
    for (uint32_t r = 0; of(&m->code[k]) && r < m->code[k].nregs; r++) {
      uint32_t row = m->code[k].regs[r];
      if (!row || number[row / ROW_STEP]) continue;
      if (m->nwatched == UINT16_MAX) qn__emu_refuse(p, "more than %d registers of wgmma and loads", UINT16_MAX);
      number[row / ROW_STEP] = (uint16_t)++m->nwatched;
    }
}

/* The numbers of the registers that `i` names: how many, and they; those of a wgmma and a load first, in order. */
static void list_numbers(parser *p, insn *i, const uint16_t *number) {
  const uint32_t single[] = {i->d, i->a, i->b, i->c, i->e};
  bool product = is_product(i), all = product || is_load(i);
  uint32_t nregs = i->control == C_TABLE ? 0 : i->nregs; /* those of a table are targets */
  uint16_t *list = qn__emu_take(p, sizeof *list * (1 + QN_COUNT(single) + nregs)), n = 0;
  for (uint32_t k = 0; k < nregs; k++)
    if (all || number[i->regs[k] / ROW_STEP]) list[++n] = number[i->regs[k] / ROW_STEP];
  for (uint32_t k = 0; !product && k < QN_COUNT(single); k++)
    if (number[single[k] / ROW_STEP]) list[++n] = number[single[k] / ROW_STEP];
  list[0] = n;
  i->watch = n ? list : NULL;
}

void qn__emu_watch_registers(parser *p) {
  qn_emu_module *m = p->module;
  uint32_t rows = m->file_bytes / ROW_STEP;
  uint16_t *number = qn__emu_take(p, sizeof *number * (rows + 1));
  number_rows(p, number, is_product);
  m->nproducts = m->nwatched;
  m->watched = qn__emu_take(p, sizeof *m->watched * (m->nproducts + 1));
  for (uint32_t r = 0; r < rows; r++)
    if (number[r]) m->watched[number[r]] = name_of(p, r * ROW_STEP);
  number_rows(p, number, is_load);
  if (!m->nwatched) return;
  for (uint32_t k = 0; k < m->ncode; k++) list_numbers(p, &m->code[k], number);
}

/* ---- Watching ---------------------------------------------------------------------------------------------------- */

void qn__watch_start(warp *w) {
  for (uint32_t k = 0; k <= w->worker->run->module->nwatched; k++) w->watched[k] = (watched){.touched = true};
}

void qn__watch_fence(warp *w) {
  for (uint32_t k = 0; k <= w->worker->run->module->nproducts; k++)
    w->watched[k].touched = false, w->watched[k].shape = 0;
}

/* Is the register another's? `what` the running instruction does with it. */
static void in_flight(warp *w, uint32_t number, const char *what) {
  const watched *x = &w->watched[number];
  qn__emu_find(w, -1, QN_EMU_F_WGMMA, "%s register %s, which is in %s of the wgmma of line %u, before a wait for that",
               what, w->worker->run->module->watched[number], x->sums ? "D" : "A", x->last->line);
}

void qn__watch_touch(warp *w, const insn *i, uint32_t lanes) {
  for (uint32_t k = 1; k <= i->watch[0]; k++) {
    watched *x = &w->watched[i->watch[k]];
    if (x->sums || x->operands) in_flight(w, i->watch[k], "it uses");
    x->touched = true;
    qn__emu_count_flight(w->cta, -(int64_t)x->loading);
    x->loading = 0;
  }
  uint32_t bytes = (uint32_t)__builtin_popcount(lanes) * qn__emu_types[i->type].size;
  for (uint32_t k = 0; checking(w, QN_EMU_COUNT) && is_load(i) && k < i->nregs; k++) {
    w->watched[i->watch[1 + k]].loading = bytes;
    qn__emu_count_flight(w->cta, bytes);
  }
}

void qn__watch_issue(warp *w, const insn *i, uint32_t sums, uint32_t shape) {
  for (uint32_t k = 0; k < i->watch[0]; k++) {
    uint32_t number = i->watch[1 + k];
    watched *x = &w->watched[number];
    bool of_sums = k < sums;
    if (of_sums ? x->operands : x->sums) in_flight(w, number, of_sums ? "D has" : "A has");
    else if (x->touched || (of_sums && x->shape && x->shape != shape))
      qn__emu_find(w, -1, QN_EMU_F_WGMMA, "no wgmma.fence stands between it and the last %s register %s of %s",
                   x->touched ? "use of" : "wgmma of another shape with", w->worker->run->module->watched[number],
                   of_sums ? "D" : "A");
    x->touched = false, x->last = i;
    if (of_sums) x->sums++, x->shape = shape;
    else x->operands++;
  }
}

void qn__watch_finish(warp *w, const insn *i, uint32_t sums) {
  for (uint32_t k = 0; k < i->watch[0]; k++) {
    watched *x = &w->watched[i->watch[1 + k]];
    if (k < sums) x->sums--;
    else x->operands--;
  }
}
