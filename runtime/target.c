/* target.c - the targets: see target.h. */
#include "target.h"
#include <stddef.h>
#include <string.h>

static const qn_launch_limit host_limits[] = {{"grid.x", QN_GRID, 1, INT64_MAX}, {NULL, 0, 0, 0}};

/* CUDA C++ Programming Guide, "Compute Capabilities": what no device differs in. */
static const qn_launch_limit cuda_limits[] = {
    {"grid.x", QN_GRID, 1, INT32_MAX},
    {"grid.y", QN_GRID + 1, 1, 65535},
    {"grid.z", QN_GRID + 2, 1, 65535},
    {"block.x", QN_BLOCK, 1, 1024},
    {"block.y", QN_BLOCK + 1, 1, 1024},
    {"block.z", QN_BLOCK + 2, 1, 64},
    {"block", QN_BLOCK, 3, 1024},
    {"cluster.x", QN_CLUSTER, 1, 8},
    {"cluster.y", QN_CLUSTER + 1, 1, 8},
    {"cluster.z", QN_CLUSTER + 2, 1, 8},
    {"cluster", QN_CLUSTER, 3, 8},
    {"shared", QN_SHARED, 1, 0},
    {NULL, 0, 0, 0},
};

static const qn_target targets[] = {
    {.name = "host",
     .host_memory = true,
     .host_code = true,
     .limit = host_limits,
     .sum_unit = 0x1p-24,
     .scaled_float = QN_T_BF16},
    {.name = "cuda",
     .events = true,
     .limit = cuda_limits,
     .sum_unit = 0x1p-23,
     .scaled_float = QN_T_F16,
     .scaled_integer = QN_T_F16},
};

const qn_target *qn__target(const char *name) {
  for (size_t i = 0; i < sizeof targets / sizeof *targets; i++)
    if (!strcmp(name, targets[i].name)) return &targets[i];
  return NULL;
}
