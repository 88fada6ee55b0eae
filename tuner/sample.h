/* sample.h - one sample, and who says that it is void.
 *
 * A sample counts if the machine was ours while it was taken. The system says so: no thread of this process had to
 * give its core to something else for more than a fiftieth of the time, besides the microseconds in which a thread that
 * slept gets to a core that is free. And arithmetic says so, run by all threads at once just before and just after:
 * each ran at nearly the best pace of late, which a neighbour on the same core prevents, whom no system sees. What was
 * the best is forgotten by half in a minute, so that a clock which came down to stay is soon its own measure.
 *
 * A sample that does not count is void. It is thrown away and taken again. Where the machine does not calm down, a
 * sample is kept all the same, and marked: it is disturbed. */
#ifndef QN_SAMPLE_H
#define QN_SAMPLE_H
#include "quernel.h"
#include <stdbool.h>

/* What is asked of a machine. Tests ask one that is simulated. */
typedef struct qn_machine {
  double (*now)(void *ud);  /* seconds */
  double (*pace)(void *ud); /* steps/s of arithmetic on the slowest of the threads, all at once; 0: not known */
  double (*lost)(void *ud); /* seconds, since it was asked last, that a thread lost to something else */
  void *ud;
} qn_machine;

typedef struct qn_sampler {
  qn_machine on;
  double best; /* pace of late */
  double at;   /* when it was looked at */
  bool busy;   /* the last sample was disturbed: waiting did not help */
} qn_sampler;

typedef struct qn_sample {
  double seconds, bandwidth; /* bytes/s of plain reads beside it; 0: not measured */
  bool disturbed;
} qn_sample;

/* Samples that are asked for together share their patience. */
typedef struct qn_sampling {
  qn_sampler *by;
  int patience; /* so many may yet be void */
  int thrown;   /* so many were */
  int disturbed;
} qn_sampling;

/* Take one, whatever the machine does: fills seconds and bandwidth. */
typedef qn_status qn_take(void *ud, qn_sample *out);

/* Let the machine come up to its pace, and learn that. */
void qn__sampler_warm(qn_sampler *s);

/* Begin with `count` samples. */
qn_sampling qn__sampling_begin(qn_sampler *s, int count);

/* One of them: the first that counts, or, with no patience left, one that is disturbed. Fails as `take` does. */
qn_status qn__sample(qn_sampling *x, qn_take *take, void *ud, qn_sample *out);
#endif
