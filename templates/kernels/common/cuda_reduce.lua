-- cuda_reduce.lua - where partial sums meet: those of the warps of a CTA, and those of the CTAs that share K.
--
--   gather()    all warps' sums into shared memory, out[token][feature]; warps that share a place add in order
--   combine()   those of the CTAs, in order; true for the one that has the sum
--
--   how         from        the CTAs of a tile
--   cluster     sm_90       are a cluster: the first reads the others' shared memory
--   slots       sm_80       leave their sums in scratch, each in a slot of its own; the one that comes last, by a
--                           counter, adds them
--   shares      v.STREAM    do the same with the registers of a lane, before gather(): as many as there are, each CTA
--                           with two slots (cuda_schedule). gather() and store() then go by rounds of ROUND tokens

local cuda = use "kernels/common/cuda"
local product = use "kernels/common/cuda_product"
local reduce = {}

reduce.SHARED = 128 -- bytes of shared memory of combine(): `arrived`, and what aligns the buffers behind it

-- CLUSTER: do the CTAs that share K make a cluster? SLOTS: partial sums that are kept elsewhere. ARRIVED, of a family
-- that has slots everywhere: where the word of shared memory is that they need, text; else there is one more variable.
function reduce.derive(v)
  v.ROUND, v.MEET = v.STREAM and "ROUND" or "BM", v.STREAM and "consumers_meet();" or "__syncthreads();"
  v.CLUSTER = v.SPLIT > 1 and v.device.sm >= 90 and not v.ARRIVED
  v.SLOTS = v.STREAM and 2 or v.CLUSTER and 1 or v.SPLIT
end

-- What it needs: names of arguments, bytes of counters and of scratch.
function reduce.workspace(v, tiles)
  if v.SLOTS == 1 then return {}, 0, 0 end -- of v.STREAM, `tiles` are CTAs
  return { "counters", "scratch" }, ceildiv(tiles * 4, 256) * 256, tiles * (v.SLOTS * v.BM * v.BN * 4)
end

-- The clusters of a launch: the CTAs that share K are along y.
function reduce.cluster(v) return v.CLUSTER and { 1, v.SPLIT } or nil end

-- The same as declarations of parameters, and a call.
function reduce.parameters(v) return v.SLOTS > 1 and "u32 *counters, float *scratch, " or "" end

function reduce.call(v)
  if v.STREAM then return "if (now.first < now.last && !combine(now, counters, scratch, arrived, acc)) continue;" end
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

-- Those of one of several rounds: a copy, which row scales may change.
local function copy(w)
  w [[
    float acc[MT][NT][4];
    #pragma unroll
    for (int i = 0; i < MT * NT * 4; i++) acc[i / (NT * 4)][i / 4 % NT][i % 4] = all[i / (NT * 4)][i / 4 % NT][i % 4];
  ]]
end

function reduce.gather(w, v)
  local integer = v.ACC == "int"
  w(v.STREAM and "/* All warps' sums of ROUND tokens, from token 8 `first` on, into out[token][feature]. */"
    or "/* All warps' sums into out[token][feature]; warps that share a place add in order. */")
  w.push("fn void gather(const places &p, float *out, ${ACC} ${NAME}[MT][NT][4]${FIRST}) {",
    { NAME = integer and "integer" or v.STREAM and "all" or "acc", FIRST = v.STREAM and ", const int first" or "" })
  if v.STREAM and not integer then copy(w) end
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
          for (int j = ${FROM}; j < ${TO}; j++)
    #pragma unroll
            for (int e = 0; e < 4; e++) {
              float *to = out + (${J} * 8 + lane % 4 * 2 + e % 2) * PITCH
                + feature + i * ${ROWS} + lane / 4 + e / 2 * 8;
              *to = ${BEFORE}acc[i][j][e];
            }
      ${MEET}
    }
  ]], { BEFORE = v.WK > 1 and "(turn ? *to : 0.0f) + " or "", FROM = v.STREAM and "first" or "0",
    TO = v.STREAM and "first + ROUND / 8" or "NT", J = v.STREAM and "(j - first)" or "j" })
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

local function arrive(w)
  w [[
    /* One thread counts for the CTA: it has all that was written before a barrier, and hands on all that it found.
     * Behind the `most` the counter is zero again. */
    fn u32 arrive(u32 *counter, u32 most) {
      u32 before;
      asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;"
                   : "=r"(before) : "l"(counter), "r"(most) : "memory");
      return before;
    }
  ]]
  w.blank()
end

local function shares(w, v)
  arrive(w)
  w([[
    /* The sums of the CTAs that share a tile, in order; true for the one that comes last. */
    fn bool combine(const part &now, u32 *counters, float *sums, u32 &arrived, ${ACC} acc[MT][NT][4]) {
      struct __align__(16) quad { ${ACC} v[4]; };
      quad *const slot = (quad *)sums + threadIdx.x;
      const int mine = blockIdx.x * 2 + ((int)blockIdx.x == now.first ? now.second : 0);
    #pragma unroll
      for (int i = 0; i < MT * NT; i++) {
        const ${ACC} *from = acc[i / NT][i % NT];
        slot[mine * (BM * BN / 4) + i * THREADS] = {from[0], from[1], from[2], from[3]};
      }
      ${MEET}
      if (threadIdx.x == 0) arrived = arrive(counters + now.tile % gridDim.x, now.last - now.first);
      ${MEET}
      if (arrived != now.last - now.first) return false;
    #pragma unroll
      for (int i = 0; i < MT * NT * 4; i++) acc[i / (NT * 4)][i / 4 % NT][i % 4] = 0;
    #pragma unroll 1
      for (int c = now.first; c <= now.last; c++) {
        const quad *from = slot + (c * 2 + (c == now.first ? now.second : 0)) * (BM * BN / 4);
    #pragma unroll
        for (int i = 0; i < MT * NT; i++) {
          const ${TYPE}4 u = __ldcg((const ${TYPE}4 *)(from + i * THREADS));
          ${ACC} *to = acc[i / NT][i % NT];
          to[0] += u.x, to[1] += u.y, to[2] += u.z, to[3] += u.w;
        }
      }
      return true;
    }
  ]], { TYPE = v.ACC })
end

local function slots(w, v)
  arrive(w)
  w([[
    /* A counter for each tile, zero between launches, and SLOTS times BM x BN sums. */
    fn bool combine(const task &t, u32 *counters, float *sums, float *out) {
      ${ARRIVED};
      sums += (i64)blockIdx.x * SLOTS * BM * BN;
      const int count = min(t.m - t.m0, BM) * BN;
      for (int i = threadIdx.x; i < count; i += THREADS)
        sums[blockIdx.y * BM * BN + i] = out[i / BN * PITCH + i % BN];
      __syncthreads();
      if (threadIdx.x == 0) arrived = arrive(counters + blockIdx.x, SPLIT - 1);
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
  if v.SLOTS == 1 and not v.CLUSTER then return end
  local how = v.STREAM and shares or v.CLUSTER and cluster or slots
  how(w, v)
  w.blank()
end

return reduce
