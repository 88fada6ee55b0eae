// ceilings.cu - the simplest kernels that reach a limit of the machine; compiled at run time by ceilings.c.
// x, y: 16-byte units, n of them.

extern "C" __global__ void empty() {}

// Random halves between -1 and 1: nothing is timed on zeros.
extern "C" __global__ void fill(unsigned *y, int words, int seed) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < words; i += gridDim.x * blockDim.x) {
    unsigned v = (i ^ seed * 0x9e3779b9u) * 0x85ebca6bu;
    v = (v ^ v >> 15) * 0xc2b2ae35u;
    y[i] = (v ^ v >> 13) & 0xb3ffb3ffu | 0x08000800u;
  }
}

extern "C" __global__ void __launch_bounds__(256) copy(const uint4 *__restrict__ x, uint4 *__restrict__ y, int n) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) y[i] = x[i];
}

// What any kernel must do that reads a weight once: four loads of 16 bytes in flight in each thread, and a result that
// depends on every bit: y has one word for each warp.
extern "C" __global__ void __launch_bounds__(256) stream(const uint4 *__restrict__ x, unsigned *__restrict__ y, int n) {
  unsigned sum = 0;
  int step = gridDim.x * blockDim.x;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += 4 * step) {
    uint4 v[4];
#pragma unroll
    for (int j = 0; j < 4; j++)
      v[j] = i + j * step < n ? __ldcs(&x[i + j * step]) : make_uint4(0, 0, 0, 0);
#pragma unroll
    for (int j = 0; j < 4; j++) sum ^= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
  }
#pragma unroll
  for (int lane = 16; lane; lane /= 2) sum ^= __shfl_xor_sync(~0u, sum, lane);
  if (threadIdx.x % 32 == 0) y[(blockIdx.x * blockDim.x + threadIdx.x) / 32] = sum;
}
