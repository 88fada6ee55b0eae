/* write.c - arrays out: a NumPy file, whole or not at all. */
#include "model.h"
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

qn_status qn_npy_write(const char *path, const float *x, int64_t n, int64_t k) {
  char header[128], temporary[PATH_MAX];
  if (!path || !x || n < 0 || k < 0) return qn__fail(QN_E_ARG, "npy: path, data and a shape are needed");
  int used = snprintf(header + 10, sizeof header - 10,
                      "{'descr': '<f4', 'fortran_order': False, 'shape': (%lld, %lld), }", (long long)n, (long long)k);
  memset(header + 10 + used, ' ', sizeof header - 10 - (size_t)used - 1);
  header[sizeof header - 1] = '\n';
  memcpy(header, "\x93NUMPY\x01\x00\x76\x00", 10); /* 118 bytes of header follow */
  snprintf(temporary, sizeof temporary, "%s.XXXXXX", path);
  int fd = mkstemp(temporary);
  FILE *f = fd < 0 ? NULL : fdopen(fd, "wb");
  if (!f) return qn__fail(QN_E_IO, "%s: %s", temporary, strerror(errno));
  size_t count = (size_t)n * (size_t)k;
  bool ok =
      fwrite(header, sizeof header, 1, f) == 1 && fwrite(x, sizeof *x, count, f) == count && !fflush(f) && !fsync(fd);
  ok = !fclose(f) && ok && !rename(temporary, path);
  if (ok) return QN_OK;
  qn_status s = qn__fail(QN_E_IO, "%s: cannot be written: %s", path, strerror(errno));
  unlink(temporary);
  return s;
}
