-- cuda_reduce.lua - where partial sums meet: those of the warps of a CTA, and those of the CTAs that share K.
--
--   gather()    all warps' sums into shared memory, out[token][feature]; warps that share a place add in order
--   combine()   by way of the workspace: each CTA of a tile leaves its sums in a slot of its own, and the one that
--               comes last adds them in order. Or they are added by atomics to the one slot, which is not repeatable
--               bit for bit; it must begin at zero, and so is a counter

local cuda = use "kernels/common/cuda"
local product = use "kernels/common/cuda_product"
local reduce = {}

reduce.SHARED = 128 -- bytes of shared memory of combine(): `arrived`, and what aligns the buffers behind it

-- SLOTS: partial sums that are kept. ARRIVED: where the word of shared memory that combine() needs is, text; without
-- it there is one more variable.
function reduce.derive(v) v.SLOTS = v.REDUCE == "atomic" and 1 or v.SPLIT end

-- What it needs: names of arguments, bytes of counters and of scratch.
function reduce.workspace(v, tiles)
  if v.SPLIT == 1 then return {}, 0, 0 end
  local counters, sums = ceildiv(tiles * 4, 256) * 256, tiles * (v.SLOTS * v.BM * v.BN * 4)
  if v.REDUCE == "atomic" then return { "counters" }, counters + sums, 0 end
  return { "counters", "scratch" }, counters, sums
end

-- The same as declarations of parameters, and a call.
function reduce.parameters(v)
  if v.SPLIT == 1 then return "" end
  return v.REDUCE == "atomic" and "u32 *counters, " or "u32 *counters, float *scratch, "
end

function reduce.call(v)
  if v.SPLIT == 1 then return "" end
  return ("if (!combine(t, counters, %s, out)) return;"):format(
    v.REDUCE == "ordered" and "scratch" or "(float *)(counters + (gridDim.x + 63) / 64 * 64)")
end

-- Sums that were integers to the end.
local function floats(w, v)
  local unit = v.format.map.unit
  w([[
    float acc[MT][NT][4];
    #pragma unroll
    for (int i = 0; i < MT * NT * 4; i++) {
      const int row = i / (NT * 4), j = i / 4 % NT, e = i % 4;
      acc[row][j][e] = ${UNIT}(float)integer[row][j][e];
    }
  ]], { UNIT = unit == 1 and "" or cuda.f32(unit) .. " * " })
end

function reduce.gather(w, v)
  w "/* All warps' sums into out[token][feature]; warps that share a place add in order. */"
  w.push("fn void gather(const places &p, float *out, ${ACC} ${NAME}[MT][NT][4]) {",
    { NAME = v.ACC == "int" and "integer" or "acc" })
  w "const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, feature = ${FEATURE};"
  if v.ACC == "int" then floats(w, v) end
  product.row_scales(w, v)
  w([[
    #pragma unroll 1
    for (int turn = 0; turn < WK; turn++) {
      if (warp / WN == turn)
    #pragma unroll
        for (int i = 0; i < MT; i++)
    #pragma unroll
          for (int j = 0; j < NT; j++)
    #pragma unroll
            for (int e = 0; e < 4; e++) {
              float *to = out + (j * 8 + lane % 4 * 2 + e % 2) * PITCH + feature + i * ${ROWS} + lane / 4 + e / 2 * 8;
              *to = ${BEFORE}acc[i][j][e];
            }
      __syncthreads();
    }
  ]], { BEFORE = v.WK > 1 and "(turn ? *to : 0.0f) + " or "" })
  w.pop "}"
  w.blank()
end

function reduce.combine(w, v)
  if v.SPLIT == 1 then return end
  local atomic = v.REDUCE == "atomic"
  w([[
    /* One thread counts for the CTA: it has all that was written before a barrier, and hands on all that it found. */
    fn u32 arrive(u32 *counter) {
      u32 before;
      asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;"
                   : "=r"(before) : "l"(counter), "r"(SPLIT - 1) : "memory");
      return before;
    }

    /* A counter for each tile, zero between launches, and SLOTS times BM x BN sums${ZERO}. */
    fn bool combine(const task &t, u32 *counters, float *sums, float *out) {
      ${ARRIVED};
      sums += (i64)blockIdx.x * SLOTS * BM * BN;
      const int count = min(t.m - t.m0, BM) * BN;
      for (int i = threadIdx.x; i < count; i += THREADS) {
        const float mine = out[i / BN * PITCH + i % BN];
        ${PUT}
      }
      __syncthreads();
      if (threadIdx.x == 0) arrived = arrive(counters + blockIdx.x);
      __syncthreads();
      if (arrived != SPLIT - 1) return false;
      for (int i = threadIdx.x; i < count; i += THREADS) {
        float sum = 0;
    #pragma unroll
        for (int s = 0; s < SLOTS; s++) sum += __ldcg(sums + s * BM * BN + i);
        ${CLEAR}
        out[i / BN * PITCH + i % BN] = sum;
      }
      __syncthreads();
      return true;
    }
  ]], { ARRIVED = v.ARRIVED and "u32 &arrived = " .. v.ARRIVED or "__shared__ u32 arrived",
    ZERO = atomic and ", zero, too" or "", CLEAR = atomic and "sums[i] = 0;" or "",
    PUT = atomic and "atomicAdd(sums + i, mine);" or "sums[blockIdx.y * BM * BN + i] = mine;" })
  w.blank()
end

return reduce
