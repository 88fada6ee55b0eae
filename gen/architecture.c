/* architecture.c - the table of architectures: see architecture.h. */
#include "architecture.h"
#include "fail.h"
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const qn_architecture architectures[] = {
    {75, 65536, 65536, 1024, 16, 1, 72},     {80, 166912, 167936, 2048, 32, 1, 108},
    {86, 101376, 102400, 1536, 16, 1, 84},   {87, 166912, 167936, 1536, 16, 1, 16},
    {88, 101376, 102400, 1536, 16, 1, 16},   {89, 101376, 102400, 1536, 24, 1, 128},
    {90, 232448, 233472, 2048, 32, 8, 132},  {100, 232448, 233472, 2048, 32, 8, 148},
    {103, 232448, 233472, 2048, 32, 8, 148}, {110, 232448, 233472, 1536, 24, 8, 20},
    {120, 101376, 102400, 1536, 24, 8, 170}, {121, 101376, 102400, 1536, 24, 8, 48},
};

static qn_status unknown(int sm, char suffix) {
  char known[16 * QN_COUNT(architectures)], *at = known;
  for (size_t k = 0; k < QN_COUNT(architectures); k++) at += sprintf(at, " sm_%d", architectures[k].sm);
  return qn__fail(QN_E_DEVICE,
                  "unknown architecture \"sm_%d%.1s\"; known:%s, from sm_90 on with a, from sm_100 on with f", sm,
                  &suffix, known);
}

qn_status qn__architecture(int sm, char suffix, const qn_architecture **out) {
  *out = NULL;
  for (size_t k = 0; k < QN_COUNT(architectures); k++)
    if (architectures[k].sm == sm) *out = &architectures[k];
  bool known = !suffix || (suffix == 'a' && sm >= 90) || (suffix == 'f' && sm >= 100);
  return *out && known ? QN_OK : unknown(sm, suffix);
}

qn_status qn__architecture_named(const char *name, char *suffix, const qn_architecture **out) {
  char *end = NULL;
  long sm = strncmp(name, "sm_", 3) ? 0 : strtol(name + 3, &end, 10);
  *out = NULL;
  if (sm <= 0 || sm > 999 || (*end && end[1]))
    return qn__fail(QN_E_DEVICE, "'%s' is not an architecture such as sm_90a", name);
  *suffix = *end;
  return qn__architecture((int)sm, *suffix, out);
}
