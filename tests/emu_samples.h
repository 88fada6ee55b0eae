/* emu_samples.h - the sample kernels of tests/ptx with their data and their reference, for tests and benchmark. */
#ifndef EMU_SAMPLES_H
#define EMU_SAMPLES_H
#include "emu.h"

typedef enum sample_kind { SAMPLE_GEMV, SAMPLE_MMA, SAMPLE_WGMMA } sample_kind;

typedef struct sample {
  sample_kind kind;
  int m, n, k;
} sample;

/* Text of tests/ptx/NAME; the caller frees it. NULL: not readable. */
char *sample_text(const char *name);
/* Run the sample on that PTX. `how`: mode, seed, checks, threads, budget. *error: largest error of the result against a
 * double reference, as a part of the sum of absolute products (NaN counts as 1e30);
 * NULL: not looked at. *out as qn__emu_run makes it. */
qn_status sample_run(const char *ptx, sample s, const char *device, const qn_emu_launch *how, double *error,
                     qn_emu_report **out);
#endif
