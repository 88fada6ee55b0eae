/* kernel.c - a plain kernel of the test format (4-bit codes less 8, an f32 scale per 32 along K; f32 in and out), and
 * what can be wrong with one. A test puts #define FAULT_… in front of this text and compiles it as a candidate.
 *
 * Packed weight: per row, per 32 codes: the scale, then 16 bytes of codes, the lower nibble first. */
typedef long i64;
struct args {
  const void *x, *w;
  void *y;
  const float *x_scale;
  const void *bias;
  void *ws;
  i64 m, n, k, ldx, ldy;
};

#define GROUP 32
#define RECORD 20

static float dot(const float *x, const unsigned char *w, i64 k, int backwards) {
  i64 groups = (k + GROUP - 1) / GROUP;
  float sum = 0;
  for (i64 i = 0; i < groups; i++) {
    i64 g = backwards ? groups - 1 - i : i;
    const unsigned char *record = w + g * RECORD;
    float scale, part = 0;
    __builtin_memcpy(&scale, record, sizeof scale);
    for (i64 j = 0; j < GROUP; j++) {
#ifdef FAULT_READS_GAP /* trusts that padding is zero and multiplies what lies behind X's last column */
      float v = x[g * GROUP + j];
#else
      float v = g * GROUP + j < k ? x[g * GROUP + j] : 0;
#endif
#ifdef FAULT_TAIL /* forgets the odd last column */
      if (k % 2 && g * GROUP + j == k - 1) v = 0;
#endif
      part += v * (float)((record[4 + j / 2] >> (j % 2 * 4) & 15) - 8);
    }
    sum += part * scale;
  }
  return sum;
}

/* Calls of one object since it was loaded; zero items are no call. */
__attribute__((unused)) static unsigned calls;

__attribute__((visibility("default"))) void qn_test(const struct args *a, i64 begin, i64 end, int thread) {
  i64 groups = (a->k + GROUP - 1) / GROUP;
  float *y = a->y;
  int backwards = 0;
  float factor = 1;
  (void)thread;
  if (begin == 0) __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
#ifdef FAULT_CRASH
  *(volatile int *)8 = 1;
#endif
#ifdef FAULT_SPIN
  for (volatile int forever = 1; forever;) {
  }
#endif
#ifdef FAULT_SLOW /* no fault: time to be killed in */
  for (volatile int i = 0; i < 1000000; i++) {
  }
#endif
#ifdef FAULT_LATE /* right for a hundred calls on one shape, then wrong */
  if (calls > 100) factor = 2;
#endif
#ifdef FAULT_RANDOM /* the same numbers in another order every other call */
  backwards = calls & 1;
#endif
#ifdef FAULT_DEPENDS_ON_M
  backwards = a->m > 2;
#endif
#ifdef FAULT_DEPENDS_ON_BIG_M
  backwards = a->m > 45;
#endif
#ifdef FAULT_INEXACT /* far within any bound for sums this long, yet one unit off */
  factor = 1.0000001f;
#endif
  for (i64 n = begin; n < end; n++)
    for (i64 m = 0; m < a->m; m++) {
#ifdef FAULT_UNWRITTEN
      if (n == a->n - 1 && m == a->m - 1) continue;
#endif
      const unsigned char *w = (const unsigned char *)a->w + n * groups * RECORD;
      y[m * a->ldy + n] = factor * dot((const float *)a->x + m * a->ldx, w, a->k, backwards);
    }
#ifdef FAULT_OVERRUN_Y
  if (end == a->n) y[(a->m - 1) * a->ldy + a->n] = 0;
#endif
#ifdef FAULT_UNDERRUN_W
  if (begin == 0) ((char *)a->w)[-1] = 0;
#endif
#ifdef FAULT_WRITES_X
  if (begin == 0) ((float *)a->x)[0] += 1;
#endif
#ifdef FAULT_WRITES_GAP
  if (end == a->n && a->m > 1 && a->ldy > a->n) y[a->n] = 0;
#endif
}
