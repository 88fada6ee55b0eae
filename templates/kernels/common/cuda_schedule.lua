-- cuda_schedule.lua - which part of Y, and of K, a CTA works on: struct task, and the lines that set it.
--
--   blockIdx.x   tile of BM tokens x BN features. Tiles go by bands of 16 along M, in a band column by column: those
--                that run at the same time share weights, and X, in L2
--                CTAs of a cluster have the same tokens, and features side by side
--   blockIdx.y   part of K, in tiles of BK: begin .. end - 1 of SPLIT parts
--
-- Or there is a CTA for each multiprocessor (v.STREAM), which goes from tile to tile as long as there is one for each
-- CTA. Of those that are left, CTAs share the tiles of K evenly: one's share may end a tile and begin the next.
--
--   tile       0     1   ...    P-1                      all of K
--              P    P+1  ...   2P-1                      all of K
--             [2P][2P+1][2P+2] in P shares               parts of K, that meet in cuda_reduce
--
-- Of a stack of experts, tiles are of the rows of one expert. A launch before the product sorts the rows and lists the
-- tiles, in scratch, so that nobody but the GPU need know how many there are; what is launched is as many as there can
-- be, and those that are none end at once:
--
--   tiles   [most_tiles]: an expert and its rows, a part of the list behind
--   rows    [m]: rows of Y, those of an expert one behind the other

local planes = use "kernels/common/cuda_planes"
local schedule = {}

local PARTS = 4 -- of a tile that CTAs share, about: more take longer to add than they save
local BAND = 16 -- with 132 multiprocessors 16 x 8 tiles run at once

function schedule.task(w, v)
  w([[
    struct task { /* what this CTA works on */
      const ${XT} *x;
      const u8 *w;
      ${PERM}
      ${MEMBERS}
      int m0, n0, m, n, k, ldx;
      ${ROWS}
      int n_padded;
      i64 run_stride; /* bytes between records of sixteen features and the next */
    };
  ]], { MEMBERS = planes.members(v),
    ROWS = v.problem.experts and "const int *rows; /* of Y: this task has number m0 .. m - 1 */\nint topk;" or "",
    PERM = v.PERM and "const int *perm; /* NULL: X is in the order of the columns of W */" or "" })
  w.blank()
  if v.problem.experts then schedule.lists(w, v) end
  schedule.stream(w, v)
end

-- Row of X, and of Y, for row `m` (text) of the task.
function schedule.row_of_x(v, m) return v.problem.experts and ("t.rows[%s] / t.topk"):format(m) or m end
function schedule.row_of_y(v, m) return v.problem.experts and ("t.rows[%s]"):format(m) or m end

-- ---- Experts --------------------------------------------------------------------------------------------------------

local sort_threads = 1024

local function lists(w)
  w [[
    struct __align__(16) expert_tile { int expert, begin, end, unused; }; /* expert below 0: no tile */
    fn int most_tiles(int m, int experts) { return (m + min(m, experts) * (BM - 1)) / BM; }
    fn const int *rows_of(const u8 *lists, int m, int experts) {
      return (const int *)((const expert_tile *)lists + most_tiles(m, experts));
    }
    fn i64 list_bytes(int m, int experts) { return (most_tiles(m, experts) * 16ll + m * 4ll + 255) / 256 * 256; }

    /* The sum over the lanes before this one, and over all. */
    fn int before(int x, int &all) {
      int sum = x;
    #pragma unroll
      for (int d = 1; d < 32; d *= 2) {
        const int from = __shfl_up_sync(0xffffffff, sum, d);
        if (threadIdx.x % 32 >= d) sum += from;
      }
      all = __shfl_sync(0xffffffff, sum, 31);
      return sum - x;
    }
  ]]
  w.blank()
end

local function sort(w, v)
  w([[
    /* List tiles and rows, by the experts that rows have, or by the offsets of rows that are sorted. What is out of
     * range has no tile. One CTA. */
    extern "C" __global__ void __launch_bounds__(${THREADS})
    sort_rows(const int *ids, const int *offsets, u8 *lists, int m, int experts) {
      extern __shared__ int counts[]; /* of each expert: rows, the first of them, the first tile */
      __shared__ int used;
      ${WAIT}
      int *const firsts = counts + experts, *const tiles_before = firsts + experts;
      const int most = most_tiles(m, experts), thread = threadIdx.x;
      expert_tile *const tiles = (expert_tile *)lists;
      int *const rows = (int *)(tiles + most);
      for (int e = thread; e < experts; e += ${THREADS}) {
        const int from = ids ? 0 : offsets[e], to = ids ? 0 : offsets[e + 1];
        counts[e] = from >= 0 && to <= m ? max(to - from, 0) : 0, firsts[e] = from;
      }
      __syncthreads();
      for (int r = thread; r < m && ids; r += ${THREADS})
        if ((u32)ids[r] < (u32)experts) atomicAdd(counts + ids[r], 1);
      __syncthreads();
      if (thread < 32) {
        int row = 0, tile = 0, all;
        for (int e = thread; e - thread < experts; e += 32) {
          const int count = e < experts ? counts[e] : 0, first = row + before(count, all);
          row += all;
          const int at = tile + before((count + BM - 1) / BM, all);
          tile += all;
          if (e >= experts) continue;
          tiles_before[e] = at;
          if (ids) firsts[e] = first;
        }
        if (thread == 0) used = tile;
      }
      __syncthreads();
      for (int e = thread / 32; e < experts; e += ${THREADS} / 32)
        for (int i = thread % 32; i * BM < counts[e] && tiles_before[e] + i < most; i += 32)
          tiles[tiles_before[e] + i] = {e, firsts[e] + i * BM, firsts[e] + counts[e], 0};
      for (int i = min(used, most) + thread; i < most; i += ${THREADS}) tiles[i] = {-1, 0, 0, 0};
      __syncthreads();
      for (int r = thread; r < m; r += ${THREADS})
        if (!ids) rows[r] = r;
        else if ((u32)ids[r] < (u32)experts) rows[atomicAdd(firsts + ids[r], 1)] = r;
    }
  ]], { THREADS = sort_threads, WAIT = v.PDL and "wait_for_grid();\nlet_next_begin();" or "" })
  w.blank()
end

function schedule.lists(w, v) lists(w) sort(w, v) end

function schedule.most_tiles(v) return (M + min(M, E) * (v.BM - 1)) // v.BM end

-- The launch before the product, and the bytes of its lists.
local function sort_step()
  return { entry = "sort_rows", args = { "ids", "offsets", "scratch", "m", "experts" }, grid = { 1 },
    block = { sort_threads }, shared = E * 12 }
end
local function list_bytes(v) return ceildiv(schedule.most_tiles(v) * 16 + M * 4, 256) * 256 end

-- Which row of tiles of its band a CTA has, text.
local function row_of_tile(v) return (v.TOGETHER or 1) > 1 and "at / TOGETHER % rows" or "at % rows" end

-- Lines of an entry behind the sizes of the task: which tile of which expert.
local function expert_tile(v)
  local at = ("band * %d + %s"):format(BAND, row_of_tile(v))
  local lines = { ("const expert_tile tile = ((const expert_tile *)lists)[%s];"):format(at),
    "if (tile.expert < 0) return;",
    "t.rows = rows_of(lists, m, experts), t.topk = topk;",
    "t.m0 = tile.begin, t.m = tile.end;",
    ("w += tile.expert * (%s), t.w = w;"):format(planes.weight_bytes(v)) }
  if v.PDL then table.insert(lines, 1, "wait_for_grid(); /* which made the lists */") end
  if v.PERM then lines[#lines + 1] = "if (perm) t.perm = perm + (i64)tile.expert * k;" end
  for _, o in ipairs(v.problem.operands) do
    if not o.tokens then
      lines[#lines + 1] = ("%s += (i64)tile.expert * %s;"):format(o.name, o.columns and "n" or "1")
    end
  end
  if v.SLOTS > 1 then lines[#lines + 1] = "scratch += list_bytes(m, experts) / 4;" end
  return table.concat(lines, "\n")
end

-- ---- Tasks ----------------------------------------------------------------------------------------------------------

-- Parameters of an entry behind those of the product: text, and names of arguments.
function schedule.parameters(v) return v.problem.experts and ", const u8 *lists, int experts, int topk" or "" end

-- The recipe of a product: its step, what comes before it, and what its sums ask for. `gather`: the step of cuda_gather
-- (which needs the lists) or nil.
function schedule.recipe(v, gather, product, counters, scratch)
  local steps = {}
  if v.problem.experts then
    table.move({ "scratch", "experts", "topk" }, 1, 3, #product.args + 1, product.args)
    steps[1], scratch = sort_step(), list_bytes(v) + scratch
  end
  steps[#steps + 1] = gather
  steps[#steps + 1] = product
  return { steps = steps, counters = counters, scratch = scratch }
end

-- Lines that find tile `number` (text): its column, its row in a band, and what they say of `t`.
local function find(w, v, number, m, n, first)
  local together = v.TOGETHER or 1
  w([[
    const int columns = ${COLUMNS};
    const int band = ${NUMBER} / (${BAND} * columns), at = ${NUMBER} % (${BAND} * columns);
    const int rows = min(${TILES} - band * ${BAND}, ${BAND}); /* of tiles */
    ${TASK}
    ${FIRST}t.n0 = ${COLUMN} * BN;
  ]], { NUMBER = number, BAND = BAND,
    TILES = v.problem.experts and "most_tiles(m, experts)" or ("(%s + BM - 1) / BM"):format(m),
    COLUMNS = together > 1 and ("(%s + BN * TOGETHER - 1) / (BN * TOGETHER) * TOGETHER"):format(n)
      or ("(%s + BN - 1) / BN"):format(n),
    COLUMN = together > 1 and "(at / (rows * TOGETHER) * TOGETHER + at % TOGETHER)" or "at / rows", TASK = first,
    FIRST = v.problem.experts and ""
      or ("t.m0 = (band * %d + %s) * BM, "):format(BAND, row_of_tile(v)) })
end

function schedule.begin(w, v)
  local task = ("task t = {x, w%s};"):format(v.PERM and ", perm" or "")
  if v.STREAM then w(task) else find(w, v, "blockIdx.x", "m", "n", task) end
  w([[
    t.m = m, t.n = n, t.k = k, t.ldx = ldx;
    t.n_padded = (n + ${TILE_N} - 1) / ${TILE_N} * ${TILE_N};
    const int k_padded = (k + ${TILE_K} - 1) / ${TILE_K} * ${TILE_K};
    t.run_stride = (i64)(k_padded / 64) * RECORD;
    ${EXPERT}
    ${POINTERS}
    ${SHARE}
  ]], { TILE_N = v.layout.tile[1], TILE_K = v.layout.tile[2], POINTERS = planes.pointers(v),
    EXPERT = v.problem.experts and expert_tile(v) or "", SHARE = not v.STREAM and [[
const int tiles = (k + BK - 1) / BK, share = (tiles + SPLIT - 1) / SPLIT;
const int begin = blockIdx.y * share, end = min(begin + share, tiles);]] or "" })
end

-- Of v.STREAM: struct part, and part_of(), the part number i of a CTA.
function schedule.stream(w, v)
  if not v.STREAM then return end
  w [[
    struct part { /* of K of a tile: begin .. end - 1. CTAs first .. last share it, the first in its slot `second` */
      int tile, begin, end, first, last, second;
    };
  ]]
  w.blank()
  w.push "fn void go_to(task &t, int tile) {"
  find(w, v, "tile", "t.m", "t.n", "")
  w.pop "}"
  w.blank()
  w([[
    /* Part number i of this CTA; false: there is none. */
    fn bool part_of(const task &t, int i, part &p) {
      const int tiles = ((t.m + BM - 1) / BM) * ((t.n + BN - 1) / BN), depth = (t.k + BK - 1) / BK, ctas = gridDim.x;
      const int whole = tiles / ctas, left = tiles % ctas * depth;
      p = {(int)blockIdx.x + i * ctas, 0, depth, 0, 0, 0};
      if (i < whole) return true;
      const int share = max((left + ctas - 1) / ctas, (depth + ${PARTS} - 1) / ${PARTS}), from = blockIdx.x * share;
      const int to = min(from + share, left), tile = from / depth + i - whole, at = tile * depth;
      if (at >= to) return false;
      p = {whole * ctas + tile, max(from - at, 0), min(to - at, depth), at / share, (at + depth - 1) / share,
           at % share != 0};
      return true;
    }
  ]], { PARTS = PARTS })
  w.blank()
end

function schedule.grid(v)
  local together = v.TOGETHER or 1
  if v.STREAM then return { SMS } end
  local rows = v.problem.experts and schedule.most_tiles(v) or ceildiv(M, v.BM)
  return { rows * ceildiv(N, v.BN * together) * together, v.SPLIT }
end

return schedule
