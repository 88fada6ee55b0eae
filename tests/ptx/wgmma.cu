// c[m][n] = sum over k of a[m][k] b[n][k], f16 in, f32 out, on Hopper: tiles of 64 x 32 x 64; a producer thread moves both
// operands by TMA (128-byte swizzle) through a ring of three mbarrier pairs, one warpgroup multiplies from shared memory.
// The result goes through shared memory and out by a bulk tensor store.
typedef unsigned int u32;
typedef unsigned long long u64;
struct __align__(64) map { u64 opaque[16]; };
enum { BM = 64, BN = 32, BK = 64, STAGES = 3, A_BYTES = BM * BK * 2, B_BYTES = BN * BK * 2 };

static __device__ void wait(u32 bar, u32 parity) {
  asm volatile("{\n.reg .pred p;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@!p bra AGAIN;\n}" ::"r"(bar), "r"(parity) : "memory");
}
static __device__ void load(u32 to, const map *m, u32 bar, int x, int y) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];"
               ::"r"(to), "l"(m), "r"(bar), "r"(x), "r"(y) : "memory");
}
static __device__ u64 descriptor(u32 at) { return (u64)(at >> 4 & 0x3fff) | 1ull << 16 | 64ull << 32 | 1ull << 62; }

extern "C" __global__ void __launch_bounds__(256, 1)
gemm(const __grid_constant__ map ma, const __grid_constant__ map mb, const __grid_constant__ map mc, int k) {
  extern __shared__ __align__(1024) char ring[];
  __shared__ __align__(8) u64 bars[2 * STAGES];
  u32 base = ((u32)__cvta_generic_to_shared(ring) + 1023) & ~1023u, full = (u32)__cvta_generic_to_shared(bars), empty = full + 8 * STAGES;
  u32 sc = base + STAGES * (A_BYTES + B_BYTES);
  int t = threadIdx.x, steps = k / BK;
  if (t == 0) {
    for (int s = 0; s < STAGES; s++) {
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(full + 8 * s) : "memory");
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 128;" ::"r"(empty + 8 * s) : "memory");
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  if (t >= 128) {
    if (t == 128) {
#pragma unroll 1
      for (int s = 0; s < steps; s++) {
        int slot = s % STAGES;
        wait(empty + 8 * slot, s / STAGES & 1 ^ 1);
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(full + 8 * slot), "r"(A_BYTES + B_BYTES) : "memory");
        u32 at = base + slot * (A_BYTES + B_BYTES);
        load(at, &ma, full + 8 * slot, s * BK, blockIdx.y * BM);
        load(at + A_BYTES, &mb, full + 8 * slot, s * BK, blockIdx.x * BN);
      }
    }
    return;
  }
  float d[16] = {};
#pragma unroll 1
  for (int s = 0; s < steps; s++) {
    int slot = s % STAGES;
    u32 at = base + slot * (A_BYTES + B_BYTES);
    wait(full + 8 * slot, s / STAGES & 1);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int h = 0; h < 4; h++)
      asm volatile("wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, "
                   "%13, %14, %15}, %16, %17, 1, 1, 1, 0, 0;"
                   : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
                     "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15])
                   : "l"(descriptor(at + h * 32)), "l"(descriptor(at + A_BYTES + h * 32)));
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(empty + 8 * slot) : "memory");
  }
  int lane = t & 31, row = (t >> 5) * 16 + (lane >> 2);
#pragma unroll
  for (int e = 0; e < 16; e++)
    asm volatile("st.shared.f32 [%0], %1;" ::"r"(sc + ((row + (e >> 1 & 1) * 8) * BN + (e >> 2) * 8 + (lane & 3) * 2 + (e & 1)) * 4), "f"(d[e]) : "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  asm volatile("bar.sync 1, 128;" ::: "memory");
  if (t == 0) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::"l"(&mc), "r"(sc), "r"(blockIdx.x * BN), "r"(blockIdx.y * BM) : "memory");
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
    asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
  }
}
