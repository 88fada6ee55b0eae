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
  void *scratch;
  int *counters;
  const int *perm;
  i64 m, n, k, ldx, ldy;
  const float *residual, *scale;
  i64 ld_residual;
};

#ifdef __x86_64__ /* a system call; there is no library */
__attribute__((unused)) static long ask_system(long call, long a, long b, long c, long d) {
  register long fourth __asm__("r10") = d, fifth __asm__("r8") = -1, sixth __asm__("r9") = 0;
  __asm__ volatile("syscall"
                   : "+a"(call)
                   : "D"(a), "S"(b), "d"(c), "r"(fourth), "r"(fifth), "r"(sixth)
                   : "rcx", "r11", "memory");
  return call;
}
#endif

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
#ifdef FAULT_FEW_BITS /* keeps 13 bits of a sum */
      unsigned bits;
      __builtin_memcpy(&bits, &part, sizeof bits);
      bits &= ~0u << 11;
      __builtin_memcpy(&part, &bits, sizeof bits);
#endif
    }
    sum += part * scale;
  }
  return sum;
}

/* Calls of one object since it was loaded; zero items are no call. */
__attribute__((unused)) static unsigned calls;

/* What a kernel leaves behind or changes, on its third call. */
static void misbehave(void) {
#ifdef FAULT_ROUNDS
  unsigned control;
  __asm__ volatile("stmxcsr %0" : "=m"(control));
  control |= 0x8040; /* denormals are zeros, in and out */
  __asm__ volatile("ldmxcsr %0" : : "m"(control));
#endif
#ifdef FAULT_X87
  unsigned short control = 0x007f; /* 24 bits of precision */
  __asm__ volatile("fldcw %0" : : "m"(control));
#endif
#ifdef FAULT_BACKWARD
  __asm__ volatile("std");
#endif
#ifdef FAULT_BLOCKS
  unsigned long all = ~0ul;
  ask_system(14, 2, (long)&all, 0, 8);
#endif
#ifdef FAULT_CLOSES
  ask_system(3, 0, 0, 0, 0);
#endif
#ifdef FAULT_LIMITS
  long none[2] = {1 << 20, 1 << 20};
  ask_system(160, 9, (long)none, 0, 0); /* of addresses */
#endif
#ifdef FAULT_TIMER
  ask_system(37, 1000, 0, 0, 0);
#endif
#ifdef FAULT_NICE
  ask_system(141, 0, 0, 15, 0);
#endif
#ifdef FAULT_MASKS
  ask_system(95, 077, 0, 0, 0);
#endif
#ifdef FAULT_DESERTS /* its process group, for that of the caller's parent */
  ask_system(109, 0, ask_system(121, ask_system(110, 0, 0, 0, 0), 0, 0, 0), 0, 0);
#endif
#ifdef FAULT_FORKS
  while (!ask_system(57, 0, 0, 0, 0)) {
    ask_system(112, 0, 0, 0, 0); /* in a session of its own, where killing the worker does not reach it */
    for (;;) ask_system(34, 0, 0, 0, 0);
  }
#endif
#ifdef FAULT_THREAD
  static long stack[512];
  long call = 56;
  __asm__ volatile("syscall\n\ttest %%rax, %%rax\n\tjnz 2f\n1:\tmov $34, %%eax\n\tsyscall\n\tjmp 1b\n2:"
                   : "+a"(call)
                   : "D"(0x50f00), "S"(stack + 500), "d"(0)
                   : "rcx", "r11", "memory");
#endif
}

/* What a kernel does instead of answering. */
static void stumble(void) {
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
}

/* What the result is multiplied by: not 1 where a kernel errs. */
static float factor_of(const struct args *a) {
  float factor = 1;
  (void)a;
#ifdef FAULT_LATE /* right for a hundred calls on one shape, then wrong */
  if (calls > 100) factor = 2;
#endif
#ifdef FAULT_LATER
  if (calls > 1000) factor = 2;
#endif
#ifdef FAULT_ONCE /* in a thousand calls */
  if (calls % 1000 == 999) factor = 2;
#endif
#ifdef FAULT_M7
  if (a->m == 7) factor = 2;
#endif
#ifdef FAULT_ABOVE_40
  if (a->m > 40) factor = 2;
#endif
#ifdef FAULT_ABOVE_1000
  if (a->m > 1000) factor = 2;
#endif
#ifdef FAULT_M512
  if (a->m == 512) factor = 2;
#endif
#ifdef FAULT_N100_K40
  if (a->n == 100 && a->k == 40) factor = 2;
#endif
#ifdef FAULT_NEGATIVE_ZERO
  for (i64 i = 0; i < a->k; i++) factor += ((const unsigned *)a->x)[i] == 0x80000000;
#endif
#ifdef FAULT_DENORMAL
  for (i64 i = 0; a->m > 2 && i < a->k; i++) {
    unsigned bits = ((const unsigned *)a->x)[2 * a->ldx + i] & 0x7fffffff;
    factor += bits && bits < 0x800000;
  }
#endif
#ifdef FAULT_LARGE
  for (i64 i = 0; a->m > 3 && i < a->k; i++) factor += ((const float *)a->x)[3 * a->ldx + i] > 1e6f;
#endif
#ifdef FAULT_TRUSTS_SCRATCH /* that it is zero when a call begins */
  factor += *(const float *)a->scratch;
#endif
#ifdef FAULT_K59
  if (a->k == 59) factor = 2;
#endif
#ifdef FAULT_INEXACT /* far within any bound for sums this long, yet one unit off */
  factor = 1.0000001f;
#endif
  return factor;
}

/* Are groups added up from the last to the first? */
static int order_of(const struct args *a) {
  int backwards = 0;
  (void)a;
#ifdef FAULT_RANDOM /* the same numbers in another order every other call */
  backwards = calls & 1;
#endif
#ifdef FAULT_DEPENDS_ON_M
  backwards = a->m > 2;
#endif
#ifdef FAULT_DEPENDS_ON_BIG_M
  backwards = a->m > 45;
#endif
  return backwards;
}

/* What a kernel touches beyond its operands, or of those that are not its own. */
static void trespass(const struct args *a, float *y, i64 begin, i64 end) {
  (void)a, (void)y, (void)begin, (void)end;
#ifdef FAULT_EMPTY /* computes a column before it asks whether there is one */
  if (begin >= end) y[begin] = 0;
#endif
#ifdef FAULT_READS_X /* a vector, of which few are wanted */
  for (int i = 0; i < 16; i++) (void)((const volatile float *)a->x)[(a->m - 1) * a->ldx + a->k + i];
#endif
#ifdef FAULT_READS_W
  (void)((const volatile char *)a->w)[-1];
#endif
#ifdef FAULT_REWRITES_Y /* a vector, masked by what was there */
  for (int i = 0; i < 16; i++) ((volatile float *)y)[(a->m - 1) * a->ldy + a->n + i] += 0;
#endif
#ifdef FAULT_SAME_GAP /* what fills the gap nearly always */
  if (end == a->n && a->m > 1 && a->ldy > a->n) *(unsigned *)&y[a->n] = 0xffffffff;
#endif
#ifdef FAULT_REWRITES_GAP /* which is another's meanwhile */
  if (end == a->n && a->m > 1 && a->ldy > a->n) *(volatile unsigned *)&y[a->n] += 0;
#endif
#ifdef FAULT_REWRITES_W
  if (begin == 0) ((volatile char *)a->w)[5] += 0;
#endif
#ifdef FAULT_OVERRUN_Y
  if (end == a->n) y[(a->m - 1) * a->ldy + a->n] = 0;
#endif
#ifdef FAULT_UNDERRUN_W
  if (begin == 0) ((char *)a->w)[-1] = 0;
#endif
#ifdef FAULT_COUNTS /* and does not leave zero */
  if (begin == 0) a->counters[0]++;
#endif
#ifdef FAULT_WRITES_X
  if (begin == 0) ((float *)a->x)[0] += 1;
#endif
#ifdef FAULT_WRITES_GAP
  if (end == a->n && a->m > 1 && a->ldy > a->n) y[a->n] = 0;
#endif
}

__attribute__((visibility("default"))) void qn_test(const struct args *a, i64 begin, i64 end, int thread) {
  i64 groups = (a->k + GROUP - 1) / GROUP;
  float *y = a->y;
  (void)thread;
  if (begin == 0 && __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED) == 3) misbehave();
  stumble();
  float factor = factor_of(a);
  int backwards = order_of(a);
#ifdef FAULT_PAIRS /* takes for granted that its part begins at an even column */
  begin += begin % 2;
#endif
#ifdef FAULT_KEEPS                                           /* memory of each call */
  char *more = (char *)ask_system(9, 0, 1 << 18, 3, 0x8022); /* all of it present */
  if (more) calls += 0 * *more;
#endif
#ifdef FAULT_REMEMBERS /* takes a call with the same pointers for the same call */
  static const void *last_x, *last_w;
  static float known[1 << 14];
  int same = last_x == a->x && last_w == a->w;
#endif
#ifdef FAULT_LAZY /* saves itself the work where Y holds numbers, as while it is timed */
  if (begin < end && y[begin] == y[begin] && a->n == 700) return;
#endif
  for (i64 n = begin; n < end; n++)
    for (i64 m = 0; m < a->m; m++) {
#ifdef FAULT_REMEMBERS
      if (same) {
        y[m * a->ldy + n] = known[m * a->n + n];
        continue;
      }
#endif
#ifdef FAULT_SPOT /* one element of a large product */
      factor = a->n == 700 && n == 333 && m == 11 ? 2 : 1;
#endif
#ifdef FAULT_UNWRITTEN
      if (n == a->n - 1 && m == a->m - 1) continue;
#endif
      const unsigned char *w = (const unsigned char *)a->w + n * groups * RECORD;
      float v = factor * dot((const float *)a->x + m * a->ldx, w, a->k, backwards);
#ifdef FAULT_STORES_FIRST /* and adds what may be in the same place */
      y[m * a->ldy + n] = v;
#endif
      y[m * a->ldy + n] = a->residual ? v + a->residual[m * a->ld_residual + n] : v;
#ifdef FAULT_REMEMBERS
      if (a->m * a->n > 1 << 14) continue;
      known[m * a->n + n] = y[m * a->ldy + n];
      if (n == a->n - 1 && m == a->m - 1) last_x = a->x, last_w = a->w;
#endif
    }
  trespass(a, y, begin, end);
}
