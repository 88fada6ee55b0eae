/* cluster.h - clusters of CTAs: made, started, ended. */
#ifndef QN_EMU_CLUSTER_H
#define QN_EMU_CLUSTER_H
#include "machine.h"

cluster *qn__emu_cluster_new(worker *k); /* NULL: out of memory */
void qn__emu_cluster_free(cluster *c);
/* What a launch leaves to the next of its kernel; freed with the module. Not while workers run. */
void qn__emu_cluster_keep(cluster *c);    /* one that has ended */
cluster *qn__emu_cluster_take(worker *k); /* NULL: none of that shape */
void qn__emu_cluster_start(cluster *c, uint64_t number);
void qn__emu_cluster_end(cluster *c); /* says which async work nobody waited for */
#endif
