/* back_end.c - what the compilers share. */
#include "back_end.h"
#include <string.h>

const char *qn__first_errors(const char *log, char *buffer, size_t size) {
  size_t used = 0;
  int lines = 0;
  *buffer = 0;
  for (int pass = 0; pass < 2 && !lines; pass++)
    for (const char *p = log; *p && lines < 3;) {
      size_t n = strcspn(p, "\n");
      const char *hit = pass ? p : memmem(p, n, "error", 5);
      if (hit && n && used + n + 3 < size) {
        if (lines++) memcpy(buffer + used, "; ", 3), used += 2;
        memcpy(buffer + used, p, n);
        buffer[used += n] = 0;
      }
      p += n + (p[n] == '\n');
    }
  return buffer;
}
