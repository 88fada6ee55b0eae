/* schedule.h - a cluster at work. */
#ifndef QN_EMU_SCHEDULE_H
#define QN_EMU_SCHEDULE_H
#include "machine.h"

/* Run a while; true when the cluster has ended or the launch stops. */
bool qn__emu_cluster_slice(cluster *c);
#endif
