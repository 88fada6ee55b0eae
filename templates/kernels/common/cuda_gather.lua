-- cuda_gather.lua - X in the order of the columns of W: a launch before a product that does not look at `perm` itself.
--
--   Y[m,j] = X[m, perm[j]]            of a stack: X[m / topk, perm[e,j]], where row m meets expert e
--
-- It is a launch of its own, since a tensor-core kernel that gathered would do it once for every tile of N, and two
-- bytes at a time. Its Y, which the product reads, has a row for each row of the product's Y.
--
-- A CTA reads all over a row, which it then has in L1: so it takes whole rows, where there are enough of them.
--
--   plain     blockIdx.x   a row of X
--             blockIdx.y   256 of its columns, then those gridDim.y times 256 further on
--   a stack   blockIdx.x   a tile of rows of one expert, as the launch before lists them (cuda_schedule)
--             blockIdx.y   one of these rows, then the one gridDim.y further on

local cuda = use "kernels/common/cuda"
local schedule = use "kernels/common/cuda_schedule"
local gather = {}

local THREADS, ROWS = 256, 8 -- ROWS: of a tile, that a CTA takes

local plain = [=[
  extern "C" __global__ void gather_x(const ${XT} *x, const int *perm, ${XT} *__restrict__ y, int k, int ldx) {
    ${WAIT}
    x += (i64)blockIdx.x * ldx, y += (i64)blockIdx.x * k;
  #pragma unroll 4
    for (int j = blockIdx.y * ${THREADS} + threadIdx.x; j < k; j += gridDim.y * ${THREADS}) y[j] = x[perm[j]];
  }
]=]

local stack = [=[
  extern "C" __global__ void gather_x(const ${XT} *x, const int *perm, ${XT} *__restrict__ y, const u8 *lists, int m,
                                      int k, int ldx, int experts, int topk) {
    ${WAIT}
    const expert_tile tile = ((const expert_tile *)lists)[blockIdx.x];
    if (tile.expert < 0) return;
    perm += (i64)tile.expert * k;
    for (int i = tile.begin + blockIdx.y; i < min(tile.begin + BM, tile.end); i += gridDim.y) {
      const int row = rows_of(lists, m, experts)[i];
      const ${XT} *from = x + (i64)(row / topk) * ldx;
  #pragma unroll 4
      for (int j = threadIdx.x; j < k; j += ${THREADS}) y[(i64)row * k + j] = from[perm[j]];
    }
  }
]=]

function gather.kernel(w, v)
  w "/* X in the order of the columns of W, for a weight in act-order. */"
  w(v.problem.experts and stack or plain,
    { XT = cuda.ctype[v.act], THREADS = THREADS, WAIT = v.PDL and "wait_for_grid();\nlet_next_begin();" or "" })
  w.blank()
end

function gather.step(v)
  local step = { entry = "gather_x", block = { THREADS }, gathers = M * K * types.all[v.act].bytes }
  if v.problem.experts then
    step.args = { "x", "perm", "y", "scratch", "m", "k", "ldx", "experts", "topk" }
    step.grid = { schedule.most_tiles(v), v.BM // ROWS }
  else
    step.args = { "x", "perm", "y", "k", "ldx" }
    step.grid = { M, min(ceildiv(K, THREADS), ceildiv(4 * SMS, M)) }
  end
  return step
end

return gather
