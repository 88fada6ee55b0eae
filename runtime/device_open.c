/* device_open.c - devices by name. */
#include "cpu.h"
#include "device.h"
#include "device_cuda.h"
#include "device_host.h"
#include "fail.h"
#include <stdlib.h>
#include <string.h>

/* The number after "PREFIX:" in a name, 0 for PREFIX alone, -1 for anything else. */
static int numbered(const char *name, const char *prefix) {
  size_t length = strlen(prefix);
  if (strncmp(name, prefix, length)) return -1;
  if (!name[length]) return 0;
  if (name[length] != ':' || name[length + 1] < '0' || name[length + 1] > '9') return -1;
  char *end;
  long v = strtol(name + length + 1, &end, 10);
  return *end || v > 65535 ? -1 : (int)v;
}

/* Of the process: the library knows no interpreter, and whoever links one says so at its start. */
static struct {
  const char *prefix;
  qn_device_opener open;
} provided;

void qn__device_provide(const char *prefix, qn_device_opener open) {
  provided.prefix = prefix;
  provided.open = open;
}

qn_status qn__device_open(const qn_allocator *heap, const char *name, qn_device **out) {
  *out = NULL;
  if (!name) return qn__device_cuda_open(heap, 0, out) == QN_OK ? QN_OK : qn__device_host_open(heap, 0, out);
  if (!strcmp(name, "host")) return qn__device_host_open(heap, 0, out);
  int number = numbered(name, "host"), cpus = qn__cpu_allowed();
  if (number > 0 && number <= cpus) return qn__device_host_open(heap, number, out);
  if (!strncmp(name, "host:", 5))
    return qn__fail(QN_E_ARG,
                    "device '%s': threads must be a number from 1 to %d, the CPUs that this process may run on", name,
                    cpus);
  if ((number = numbered(name, "cuda")) >= 0) return qn__device_cuda_open(heap, number, out);
  if (provided.open && !strncmp(name, provided.prefix, strlen(provided.prefix))) return provided.open(heap, name, out);
  return qn__fail(QN_E_ARG, "device '%s' unknown; there are host, host:THREADS, cuda:N%s%s%s", name,
                  provided.open ? " and " : "", provided.open ? provided.prefix : "", provided.open ? "ARCH" : "");
}
