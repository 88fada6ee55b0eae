/* watch.c - a step is a line of JSON, {"step": what, "limit": seconds}. */
#include "watch.h"
#include <unistd.h>

#define LEAST 5.0      /* seconds; a disturbed machine may hold back a call for some of them */
#define PATIENCE 100.0 /* a slow kernel is the race's business, not a hang */
#define RATE 1e10      /* bytes and products a second that any machine reaches */

/* Of the process, which is a worker: steps are told from deep within a call. */
static FILE *line;

void qn__watch_open(FILE *to) { line = to; }

void qn__watch(const qn_device *d, int64_t m, int64_t n, int64_t k, int64_t bytes, int calls) {
  if (!line || !d->info.timed) return;
  double expected = ((double)bytes + (double)m * (double)n * (double)k) / RATE * calls, limit = PATIENCE * expected;
  fprintf(line, "{\"step\":\"M = %lld of %lld x %lld (calls: %d, expected: %.2g ms)\",\"limit\":%.3g}\n", (long long)m,
          (long long)n, (long long)k, calls, expected * 1e3, limit > LEAST ? limit : LEAST);
  fflush(line);
}

void qn__watch_last(const char *text) {
  char out[256];
  int n = snprintf(out, sizeof out, "{\"step\":\"%s\",\"limit\":%g}\n", text, LEAST);
  if (line && n > 0 && write(fileno(line), out, (size_t)n) < 0) return; /* nobody listens */
}
