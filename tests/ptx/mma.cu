// c[m][n] = sum over k of a[m][k] b[n][k], f16 in, f32 out: tiles of 32 x 64 x 32, four warps side by side along n, a ring of
// three stages filled by cp.async, rows of 64 bytes whose 16-byte units are xored with the row, ldmatrix, mma.sync.
typedef unsigned int u32;
enum { BM = 32, BN = 64, BK = 32, STAGES = 3, A_BYTES = BM * BK * 2, B_BYTES = BN * BK * 2 };

static __device__ u32 place(int row, int unit) { return row * 64 + ((unit ^ (row >> 1 & 3)) << 4); }
static __device__ void copy(u32 to, const void *from, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

extern "C" __global__ void __launch_bounds__(128) gemm(const char *a, const char *b, float *c, int m, int n, int k) {
  extern __shared__ __align__(128) char ring[];
  u32 base = (u32)__cvta_generic_to_shared(ring);
  int t = threadIdx.x, lane = t & 31, warp = t >> 5, m0 = blockIdx.y * BM, n0 = blockIdx.x * BN, steps = k / BK;
  auto fill = [&](int s) {
    u32 to = base + s % STAGES * (A_BYTES + B_BYTES);
    int row = t >> 2, unit = t & 3;
    int in = m0 + row < m;
    copy(to + place(row, unit), a + ((long)(in ? m0 + row : 0) * k + s * BK + unit * 8) * 2, in ? 16 : 0);
#pragma unroll
    for (int h = 0; h < 2; h++, row += 32)
      copy(to + A_BYTES + place(row, unit), b + ((long)(n0 + row) * k + s * BK + unit * 8) * 2, 16);
  };
  float d[2][2][4] = {};
#pragma unroll
  for (int s = 0; s < STAGES - 1; s++) {
    if (s < steps) fill(s);
    asm volatile("cp.async.commit_group;" ::: "memory");
  }
#pragma unroll 1
  for (int s = 0; s < steps; s++) {
    asm volatile("cp.async.wait_group 1;" ::: "memory");
    __syncthreads();
    if (s + STAGES - 1 < steps) fill(s + STAGES - 1);
    asm volatile("cp.async.commit_group;" ::: "memory");
    u32 sa = base + s % STAGES * (A_BYTES + B_BYTES), sb = sa + A_BYTES;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      u32 fa[2][4], fb[4];
#pragma unroll
      for (int i = 0; i < 2; i++)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(fa[i][0]), "=r"(fa[i][1]), "=r"(fa[i][2]), "=r"(fa[i][3])
                     : "r"(sa + place(i * 16 + (lane & 15), h * 2 + (lane >> 4))) : "memory");
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(fb[0]), "=r"(fb[1]), "=r"(fb[2]), "=r"(fb[3])
                   : "r"(sb + place(warp * 16 + (lane & 7) + (lane >> 4) * 8, h * 2 + (lane >> 3 & 1))) : "memory");
#pragma unroll
      for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 2; j++)
          asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                       "{%0, %1, %2, %3};"
                       : "+f"(d[i][j][0]), "+f"(d[i][j][1]), "+f"(d[i][j][2]), "+f"(d[i][j][3])
                       : "r"(fa[i][0]), "r"(fa[i][1]), "r"(fa[i][2]), "r"(fa[i][3]), "r"(fb[2 * j]), "r"(fb[2 * j + 1]));
    }
  }
#pragma unroll
  for (int i = 0; i < 2; i++)
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        int row = m0 + i * 16 + (lane >> 2) + (e >> 1) * 8, col = n0 + warp * 16 + j * 8 + (lane & 3) * 2 + (e & 1);
        if (row < m) c[(long)row * n + col] = d[i][j][e];
      }
}
