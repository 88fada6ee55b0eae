/* async.h - the life of jobs: issued, gathered in groups, completed at an mbarrier or by a wait. */
#ifndef QN_EMU_ASYNC_H
#define QN_EMU_ASYNC_H
#include "machine.h"

void qn__emu_groups_init(groups *g);
void qn__emu_groups_add(groups *g, job *j);
void qn__emu_groups_commit(worker *k, groups *g, uint32_t lanes);
void qn__emu_groups_wait(groups *g, uint32_t keep, uint32_t lanes, bool open_too);
void qn__emu_groups_drop(groups *g);
job *qn__emu_job(warp *w, const insn *i, uint32_t lanes); /* NULL: out of memory, and the launch ends */
void qn__emu_finish(job *j, uint32_t lanes);
/* Complete one job in flight: of a barrier somebody waits for, else the oldest; random: any. False when there is
 * none. */
bool qn__emu_complete_one(cluster *c);

void qn__emu_mbarrier_change(cluster *c, mbarrier *b, uint32_t arrive, int64_t tx);
mbarrier *qn__emu_mbarrier_at(warp *w, int lane, uint32_t address, cta **where);
#endif
