-- tensor_map.lua - a dense kernel that reads W by a tensor map, 64 of k at once: a warp makes a column of Y.
return kernel {
  name = "cuda.map", target = "cuda", doc = "a family of a test",
  params = { { name = "BK", values = { 64 } } },
  rules = { { name = "type", why = "f16, by copies that need sm_90",
    ok = function(v) return v.format.name == "f16" and v.act == "f16" and v.out == "f16" and v.device.sm >= 90 end } },
  layout = function(v)
    return layout.make { name = "test.rows", tile = { 1, v.BK }, format = v.format, sections = {
      { outer = { layout.n(0, 1), layout.k(0, v.BK) }, layout.codes(0, 16, { layout.k(v.BK) }) } } }
  end,
  launch = function(v)
    local w = { tensor_map = { operand = "w", type = "f16", dims = { v.BK, N * ceildiv(K, v.BK) }, box = { v.BK, 1 } } }
    return { steps = { { args = { "x", w, "y", "m", "n", "k", "ldx", "ldy" }, grid = { N }, block = { 32 } } } }
  end,
  outline = { function(w)
    w [[
      typedef unsigned short u16;
      typedef unsigned int u32;
      typedef unsigned long long u64;
      typedef long long i64;
      struct __align__(64) map { u64 opaque[16]; };

      static __device__ float f32(u16 h) {
        float f;
        asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
        return f;
      }

      extern "C" __global__ void ${entry}(const u16 *x, const __grid_constant__ map w, u16 *y, int m, int n, int k,
                                          int ldx, int ldy) {
        __shared__ __align__(128) u16 box[${BK}];
        __shared__ __align__(8) u64 full;
        const u32 to = (u32)__cvta_generic_to_shared(box), bar = (u32)__cvta_generic_to_shared(&full);
        const int steps = (k + ${BK} - 1) / ${BK};
        u32 parity = 0;
        if (threadIdx.x == 0) {
          asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(bar) : "memory");
          asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        }
        __syncthreads();
        for (int m0 = 0; m0 < m; m0 += 32) {
          const int row = m0 + threadIdx.x;
          float sum = 0;
          for (int s = 0; s < steps; s++) {
            if (threadIdx.x == 0) {
              asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
                           ::"r"(bar), "r"(${BK} * 2) : "memory");
              asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                           "[%0], [%1, {%3, %4}], [%2];"
                           ::"r"(to), "l"(&w), "r"(bar), "r"(0), "r"((int)blockIdx.x * steps + s) : "memory");
            }
            asm volatile("{\n.reg .pred p;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
                         "@!p bra AGAIN;\n}" ::"r"(bar), "r"(parity) : "memory");
            parity ^= 1;
            for (int i = 0; i < ${BK} && row < m && s * ${BK} + i < k; i++)
              sum += f32(x[(i64)row * ldx + s * ${BK} + i]) * f32(box[i]);
            __syncthreads();
          }
          if (row < m) asm("{\n.reg .b16 h;\ncvt.rn.f16.f32 h, %1;\nst.global.b16 [%0], h;\n}"
                           ::"l"(y + (i64)row * ldy + blockIdx.x), "f"(sum) : "memory");
        }
      }
    ]]
  end },
}
