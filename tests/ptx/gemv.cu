// y[n] = scale[n] * sum over k of (w[n][k] - 8) x[k]: a warp per row, 4-bit codes, fp16 arithmetic by inline PTX.
typedef unsigned int u32;
typedef unsigned short u16;

static __device__ u32 fma2(u32 a, u32 b, u32 c) {
  u32 d;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}
static __device__ u32 sub2(u32 a, u32 b) {
  u32 d;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}
static __device__ u32 codes(u32 v) {  // two 4-bit codes (bits 0-3 and 16-19) as fp16 1024 + code
  u32 d;
  asm("lop3.b32 %0, %1, 0x000f000f, 0x64006400, 0xea;" : "=r"(d) : "r"(v));
  return d;
}
static __device__ float low(u32 h) {
  float f;
  asm("{.reg .f16 a, b; mov.b32 {a, b}, %1; cvt.f32.f16 %0, a;}" : "=f"(f) : "r"(h));
  return f;
}

// w: [n][k/8] words, code p of a word in bits 4(p/2) + 16(p%2); x: [k] f16; one warp per row.
extern "C" __global__ void __launch_bounds__(64) gemv(const u32 *w, const u32 *x, const float *scale, float *y, int n, int k) {
  int lane = threadIdx.x & 31, row = blockIdx.x * 2 + (threadIdx.x >> 5);
  if (row >= n) return;
  float sum = 0;
  for (int i = lane; i < k / 8; i += 32) {
    u32 v = w[row * (k / 8) + i], part = 0;
#pragma unroll
    for (int p = 0; p < 4; p++) part = fma2(sub2(codes(v >> 4 * p), 0x64086408), x[i * 4 + p], part);
    sum += low(part) + low(part >> 16);
  }
#pragma unroll
  for (int o = 16; o; o >>= 1) sum += __shfl_xor_sync(~0u, sum, o);
  if (lane == 0) y[row] = sum * scale[row];
}
