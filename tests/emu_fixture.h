/* emu_fixture.h - tests of the PTX interpreter that run a small kernel, k(in, out), and look at what it wrote. */
#ifndef EMU_FIXTURE_H
#define EMU_FIXTURE_H
#include "emu.h"
#include <stdio.h>

/* A kernel's text in the making, written with fprintf(t.f, ...); it stays where it began. */
typedef struct ptx_text {
  FILE *f;
  char *s;
  size_t n;
  char device[16];
} ptx_text;

/* Starts k(in, out, map) for `device` ("sm_90a"). %rd0: in, %rd1: out, %rd2: the tensor map, %r0: thread, %r1: CTA.
 * A thread begins with 168 registers. Free are %r2 to %r31, %rd3 to %rd31, %p0 to %p7, %h0 to %h7 (16 bits). `more`:
 * further declarations, or "". */
void ptx_begin(ptx_text *t, const char *device, const char *more);

/* One run of the text: closes and frees it. `in` is copied to the device, `out` back from it (it starts unwritten).
 * With a map, its address 0 stands for the start of in, 1 for that of out. Fails the test on an error or a finding, in
 * late and in random mode; with `finding`, a kind of finding, when there is none of that kind. `what` names the case in
 * messages. */
typedef struct ptx_case {
  const char *what;
  const char *finding, *says;            /* "race", and words of it; NULL: none may be there, any do */
  uint32_t grid, block, cluster, shared; /* 0: 1, 32, 1, 0 */
  const void *in;
  size_t in_bytes;
  void *out;
  size_t out_bytes;
  void (*look)(const qn_emu_report *r); /* at that of late order; NULL: nobody looks */
  int programmatic; /* the grid begins early: it may read `in`, and no more, until griddepcontrol.wait */
  struct ptx_map {  /* rank 0: none */
    int type, swizzle, fill, of_out;
    uint32_t rank, box[5];
    uint64_t dims[5], strides[4];
  } map;
} ptx_case;
void ptx_run(ptx_text *t, const ptx_case *c);
/* The same for a finished text with such a kernel. */
void ptx_run_text(const char *device, const char *text, const ptx_case *c);

/* Seeded numbers, the same everywhere. */
uint32_t ptx_random(void);
void ptx_seed(uint32_t seed);

/* A floating-point code of 1 sign bit, `exponent` and `mantissa` bits, by the textbook; every code is a number. */
double float_of_code(uint32_t code, int exponent, int mantissa);
#endif
