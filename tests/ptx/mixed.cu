// What compilers make of ordinary code: calls, switches, loops that diverge, local arrays, constants, 8- to 64-bit integers,
// divisions. The same text is C: the test compiles it a second time for the host and compares thread by thread.
#ifdef __CUDACC__
#define FUNCTION static __device__
#define OUTLINE static __device__ __noinline__
#define CONSTANT static __constant__ const
#else
#define FUNCTION static
#define OUTLINE static
#define CONSTANT static const
#endif
typedef unsigned int word;
typedef unsigned long long wide;

CONSTANT word primes[16] = {2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53};

OUTLINE word collatz(word x, word most) {
  word n = 0;
  for (; x > 1 && n < most; n++) x = x & 1 ? 3 * x + 1 : x / 2;
  return n;
}

OUTLINE wide ratio(wide a, wide b) { return a / b * 3 + a % b; }

FUNCTION word choose(word op, word a, word b) {
  switch (op) {
  case 0: return a * b;
  case 1: return a - b;
  case 2: return a / (b | 1);
  case 3: return (word)((int)a % (int)(b | 1));
  case 4: return (word)((int)a >> (b & 31));
  case 5: return primes[b & 15];
  case 6: return (word)(signed char)a + (word)(short)b;
  case 7: return collatz(a & 1023, b & 127);
  case 8: return (word)(((wide)a * b) >> 32);
  default: return a ^ b;
  }
}

// The median of 9 numbers, sorted in an array that is indexed by values.
FUNCTION word median(word seed) {
  word a[9];
  for (int i = 0; i < 9; i++) a[i] = (seed = seed * 1664525u + 1013904223u) >> 8;
  for (int i = 1; i < 9; i++)
    for (int j = i; j > 0 && a[j - 1] > a[j]; j--) {
      word t = a[j];
      a[j] = a[j - 1];
      a[j - 1] = t;
    }
  return a[(seed >> 30) + 3];
}

FUNCTION word fractions(word x) {
  float f = (float)(int)(x >> 9) / (float)((x & 511) + 1);
  double d = (double)x / 7.0;
  return (word)f + (word)(wide)d + (f > 100.0f ? 1u : 0u);
}

FUNCTION word mixed(word x, word i) {
  word r = choose(x % 10, x, i * 2654435761u);
  for (word k = 0; k < (x & 7); k++) r = r * 31 + choose((x >> k) % 10, r, x + k);
  r ^= median(x) + fractions(x);
  if (i & 1) r += (word)ratio(((wide)x << 20) + i, (x & 0xffff) + 1);
  return r + collatz(x & 255, 40);
}

#ifdef __CUDACC__
struct __align__(64) map { wide opaque[16]; };
extern "C" __global__ void k(const word *in, word *out, const __grid_constant__ map unused) {
  word i = blockIdx.x * blockDim.x + threadIdx.x;
  out[i] = mixed(in[i], i);
}
#endif
