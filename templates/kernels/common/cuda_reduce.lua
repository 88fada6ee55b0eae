-- cuda_reduce.lua - where partial sums meet: those of the warps of a CTA, and those of the CTAs that share K.
--
--   gather()    all warps' sums into shared memory, out[token][feature]; warps that share a place add in order
--   combine()   those of the CTAs, in order; true for the one that has the sum
--
--   how         from        the CTAs of a tile
--   cluster     sm_90       are a cluster: the first reads the others' shared memory
--   slots       sm_80       leave their sums in scratch, each in a slot of its own; the one that comes last, by a
--                           counter, adds them

local cuda = use "kernels/common/cuda"
local product = use "kernels/common/cuda_product"
local reduce = {}

reduce.SHARED = 128 -- bytes of shared memory of combine(): `arrived`, and what aligns the buffers behind it

-- CLUSTER: do the CTAs that share K make a cluster? SLOTS: partial sums that are kept elsewhere. ARRIVED, of a family
-- that has slots everywhere: where the word of shared memory is that they need, text; else there is one more variable.
function reduce.derive(v)
  v.CLUSTER = v.SPLIT > 1 and v.device.sm >= 90 and not v.ARRIVED
  v.SLOTS = v.CLUSTER and 1 or v.SPLIT
end

-- What it needs: names of arguments, bytes of counters and of scratch.
function reduce.workspace(v, tiles)
  if v.SLOTS == 1 then return {}, 0, 0 end
  return { "counters", "scratch" }, ceildiv(tiles * 4, 256) * 256, tiles * (v.SLOTS * v.BM * v.BN * 4)
end

-- The clusters of a launch: the CTAs that share K are along y.
function reduce.cluster(v) return v.CLUSTER and { 1, v.SPLIT } or nil end

-- The same as declarations of parameters, and a call.
function reduce.parameters(v) return v.SLOTS > 1 and "u32 *counters, float *scratch, " or "" end

function reduce.call(v)
  if v.SPLIT == 1 then return "" end
  return ("if (!combine(t, %sout)) return;"):format(v.SLOTS > 1 and "counters, scratch, " or "")
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

local function cluster(w)
  w [[
    /* All CTAs of the cluster are here, with all that they have written. */
    fn void cluster_barrier() {
      asm volatile("barrier.cluster.arrive.aligned;\n\tbarrier.cluster.wait.aligned;" ::: "memory");
    }

    /* The float at this address in the shared memory of CTA `rank` of the cluster. */
    fn float remote(u32 at, u32 rank) {
      float f;
      asm volatile("{ .reg .u32 there; mapa.shared::cluster.u32 there, %1, %2; ld.shared::cluster.f32 %0, [there]; }"
                   : "=f"(f) : "r"(at), "r"(rank));
      return f;
    }

    fn bool combine(const task &t, float *out) {
      cluster_barrier();
      const int count = blockIdx.y == 0 ? min(t.m - t.m0, BM) * BN : 0;
      for (int i = threadIdx.x; i < count; i += THREADS) {
        float *mine = out + i / BN * PITCH + i % BN, sum = *mine;
    #pragma unroll
        for (int s = 1; s < SPLIT; s++) sum += remote(shared_address(mine), s);
        *mine = sum;
      }
      cluster_barrier(); /* nobody leaves before its sums are read */
      return blockIdx.y == 0;
    }
  ]]
end

local function slots(w, v)
  w([[
    /* One thread counts for the CTA: it has all that was written before a barrier, and hands on all that it found. */
    fn u32 arrive(u32 *counter) {
      u32 before;
      asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;"
                   : "=r"(before) : "l"(counter), "r"(SPLIT - 1) : "memory");
      return before;
    }

    /* A counter for each tile, zero between launches, and SLOTS times BM x BN sums. */
    fn bool combine(const task &t, u32 *counters, float *sums, float *out) {
      ${ARRIVED};
      sums += (i64)blockIdx.x * SLOTS * BM * BN;
      const int count = min(t.m - t.m0, BM) * BN;
      for (int i = threadIdx.x; i < count; i += THREADS)
        sums[blockIdx.y * BM * BN + i] = out[i / BN * PITCH + i % BN];
      __syncthreads();
      if (threadIdx.x == 0) arrived = arrive(counters + blockIdx.x);
      __syncthreads();
      if (arrived != SPLIT - 1) return false;
      for (int i = threadIdx.x; i < count; i += THREADS) {
        float sum = 0;
    #pragma unroll
        for (int s = 0; s < SLOTS; s++) sum += __ldcg(sums + s * BM * BN + i);
        out[i / BN * PITCH + i % BN] = sum;
      }
      __syncthreads();
      return true;
    }
  ]], { ARRIVED = v.ARRIVED and "u32 &arrived = " .. v.ARRIVED or "__shared__ u32 arrived" })
end

function reduce.combine(w, v)
  if v.SPLIT == 1 then return end
  local how = v.CLUSTER and cluster or slots
  how(w, v)
  w.blank()
end

return reduce
