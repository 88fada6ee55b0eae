-- cuda.decode - few tokens on tensor cores: weights go from memory to registers to mma.sync, and wait for nobody.
--
--   Y[m,n] = sum over k of X[m,k] * W[n,k]            computed as  Yt[n,m] = W . Xt, as in cuda.mma
--
--                    SLAB of K
--              +-----------+-----------+
--     16 of N  | warp 0    | warp WN   |     a CTA makes 16 WN features of BM tokens; WK warps share a slab of K, each
--              | warp 1    |           |     a run of records. A lane has UNROLL records in registers (cuda_stream); as
--              |  ...      |           |     soon as one is multiplied, that far behind it the next is asked for
--              +-----------+-----------+
--
--   X[m,k]   a slab of it lies in shared memory (cuda_x): the loop has no barrier. It may be in act-order
--   W[n,k]   chunk (n / 16, k / 64), see templates/layouts/cuda_fragment.lua; read once, past L1, the first to leave
--            L2. Planes are asked for as early as codes
--   Y[m,n]   the sums of the warps, and of the CTAs that share K (cuda_reduce), meet the epilogue
--
-- A warp's records end within its last UNROLL: there X is zero, and the codes are those that were there.
--
--   parameter  meaning                                   bound by
--   BM         tokens of a CTA                           registers
--   WN, WK     warps along the features, that share K
--   UNROLL     records under way in a warp               registers; bytes under way
--   SLAB       k of X in shared memory                   shared memory: BM * SLAB
--   SCALE      scales multiply weights, or sums of a group
--   SPLIT      CTAs that share K
--
-- Source: fragments straight from memory as in PyTorch's tinygemm; the rest follows from cuda.mma.

local cuda = use "kernels/common/cuda"
local codes = use "kernels/common/cuda_codes"
local planes = use "kernels/common/cuda_planes"
local x = use "kernels/common/cuda_x"
local stream = use "kernels/common/cuda_stream"
local ring = use "kernels/common/cuda_ring"
local product = use "kernels/common/cuda_product"
local reduce = use "kernels/common/cuda_reduce"
local schedule = use "kernels/common/cuda_schedule"
local epilogue = use "kernels/common/cuda_epilogue"

-- ---- Sizes ----------------------------------------------------------------------------------------------------------

-- Codes along K that share all scales; a row's: the most.
local function group(v)
  local least = math.huge
  for _, p in ipairs(v.format.planes) do
    local s = cuda.fragment.stored(p)
    if s.cols > 0 then least = math.min(least, s.cols // s.per) end
  end
  return least
end

-- An estimate. Sums of short groups have their scales, and what the assembler has under way of the groups that follow.
local function registers(v, scale, times)
  local unroll, raw, roles = v.UNROLL * (times or 1), 0, cuda.roles(v.format)
  local waits = scale == "sum" and #roles.scale + #roles.offset > 0
  for _, p in ipairs(v.format.planes) do
    local wide = waits and #roles.offset > 0 and types.all[p.type].bytes > 1
    raw = raw + (p.cols > 0 and math.max(1, unroll * 64 // p.cols) or 1) * (wide and 2 or 1)
  end
  return v.BM // 2 * (waits and (#roles.offset > 0 and 3 or 2) or 1) + unroll * v.format.bits + raw
    + 2 * #v.format.planes + v.BM // 4 + 48
    + (waits and v.BM * v.BM // 48 + (group(v) <= 32 and 20 or 0) or 0)
end

local function shared(v) return math.max(v.BM * v.SLAB * types.all[v.act].bytes, v.BM * (16 * v.WN + 4) * 4) end

local function derive(v) -- WINDOW: steps of 16 whose instructions the assembler may mix; it spills for more
  v.BN, v.BK, v.TN, v.TK, v.MT, v.NT = 16 * v.WN, v.SLAB, 16, 64 * v.UNROLL, 1, v.BM // 8
  v.THREADS, v.by_name, v.PERM, v.FIRST = 32 * v.WN * v.WK, {}, true, true
  v.layout = cuda.fragment.layout(v.format, v.act)
  codes.derive(v)
  product.kind(v)
  planes.derive(v)
  x.derive(v, v.SLAB)
  product.derive(v)
  reduce.derive(v)
  v.PDL, v.EXTRA = v.device.sm >= 90, cuda.extra_declared(v)
  v.MIN_BLOCKS = cuda.min_blocks(v, registers(v, v.SCALE), v.THREADS)
  v.WINDOW = registers(v, v.SCALE) > 96 and 2 or 4
  v.PRECISION = planes.precision(v)
end

-- Where scales cost less. A weight takes them by pairs if there is one, of a type that the product has; a group of
-- weights that is not for a few fragments is better left to the sums, if there are registers for them. Products of
-- numbers of 8 bits leave no choice.
local function cheaper(v)
  local bytes = product.scale_of_bytes(v)
  if bytes then return bytes end
  local f, roles = v.format, cuda.roles(v.format)
  local scale = #roles.offset == 0 and #roles.scale == 1 and f.planes[f.planes[roles.scale[1]]]
  local by_pairs = scale and types.holds(cuda.half_of(v.act), scale.type)
  return (by_pairs and v.BM // 8 > group(v) // 16 or registers(v, "sum") > 128) and "weight" or "sum"
end

-- ---- Rules ----------------------------------------------------------------------------------------------------------

local rules = { table.unpack(product.rules) }
local function rule(name, why, ok) rules[#rules + 1] = { name = name, why = why, ok = ok } end

rule("threads", "8 warps to a CTA", function(v) return v.WN * v.WK == 8 end)
rule("groups", "a warp's records under way must be whole groups, or lie in one", function(v)
  for _, p in ipairs(v.format.planes) do
    local cols = p.cols > 0 and cuda.fragment.stored(p).cols or 64
    if cols % (64 * v.UNROLL) > 0 and 64 * v.UNROLL % cols > 0 then return false end
  end
  return true
end)
rule("registers", "sums, codes and planes need more registers than leave room for two CTAs",
  function(v) return registers(v, v.SCALE) <= 128 end)
rule("planes", "codes of 32 words and scales of more than four groups leave no room for two CTAs",
  function(v) return v.UNROLL * v.format.bits < 32 or group(v) < 64 or v.UNROLL * 64 // group(v) <= 4 end)
rule("flight", "two to four kilobytes under way per warp are enough, and less too little", function(v)
  local bytes = v.UNROLL * 128 * v.format.bits
  return bytes <= 4096 and (bytes >= 2048 or v.UNROLL >= 4 or v.BM == 8 and registers(v, v.SCALE, 2) > 128)
end)
rule("memory", "X needs more shared memory than leaves room for two CTAs",
  function(v) return 2 * (shared(v) + 1024) <= (v.device.smem_sm or 2 * v.device.smem) end)
rule("slab", "a warp's part of a slab is less than its records under way",
  function(v) return v.SLAB // v.WK >= 64 * v.UNROLL end)
rule("slab-long", "a slab of X is long where few tokens leave the room, and K is as long",
  function(v) return (v.SLAB == 2048) == (v.BM == 8 and v.problem.k >= 2048) end)
rule("scale", "scales are applied where that takes fewer instructions: to 8 weights of a lane, or its sums",
  function(v) return v.SCALE == cheaper(v) or not product.serves(v, cheaper(v)) end)
rule("split", "K has not as many slabs", function(v) return v.SPLIT == 1 or v.problem.k >= v.SPLIT * v.SLAB end)
rule("crowd", "there are CTAs enough for this device without splitting K",
  function(v) return v.SPLIT == 1 or -(-v.problem.n // (16 * v.WN)) * v.SPLIT <= 4 * v.device.sms end)

-- ---- Source ---------------------------------------------------------------------------------------------------------

local function constants(w)
  w([[
    enum {
      BM = ${BM}, BN = 16 * ${WN}, /* tokens, features of a CTA */
      WN = ${WN}, WK = ${WK}, /* warps along the features, warps that share K */
      UNROLL = ${UNROLL}, /* records under way in a warp */
      SLAB = ${SLAB}, BK = SLAB, /* k of X in shared memory */
      SPLIT = ${SPLIT}, SLOTS = ${SLOTS}, /* CTAs that share K, partial sums kept */
      THREADS = 32 * WN * WK,
      TN = 16, TK = 64 * UNROLL, MT = 1, NT = BM / 8, /* a warp's features, k at once; its products */
      WORDS = ${WORDS}, /* 32-bit words of a record in a lane */
      RECORD = ${RECORD}, /* bytes of a record */
      GROUP_STEPS = ${GROUP_STEPS}, /* steps of 16 that share scales */
      X_ROW = ${X_ROW}, X_BLOCK = BM * X_ROW, /* bytes of a row of a block of X, of a block */
      PITCH = BN + 4, /* of a row of sums */
    };
  ]])
  w.blank()
end

local function copy_x(w, v)
  w([[
    /* Begin to copy X from k0 on; beyond M and K zeros. */
    fn void copy_x(const task &t, u32 base, int k0) {
    #pragma unroll 1
      for (int i = threadIdx.x; i < BM * (SLAB / ${PIECE}); i += THREADS) {
        const int row = i / (SLAB / ${PIECE}), piece = i % (SLAB / ${PIECE}), k = k0 + piece * ${PIECE};
        const bool there = t.m0 + row < t.m && k < t.k;
        copy16(base + place_of_x(row, piece * 16), there ? t.x + (i64)(${ROW}) * t.ldx + k : t.x, there);
      }
    }
  ]], { ROW = schedule.row_of_x(v, "t.m0 + row") })
  w.blank()
end

local function entry(w, v)
  w([[
    extern "C" __global__ void __launch_bounds__(THREADS, ${MIN_BLOCKS})
    ${entry}(const ${XT} *x, const u8 *w, ${YT} *y, const int *perm, ${EXTRA}${WS}int m, int n, int k,
             int ldx, int ldy${ROWS}) {
      extern __shared__ __align__(128) u8 memory[];
  ]], { YT = cuda.ctype[v.out], WS = reduce.parameters(v), ROWS = schedule.parameters(v) })
  w.push()
  schedule.begin(w, v)
  w([[
    t.m0 = kept(t.m0), t.n0 = kept(t.n0);
    const u32 base = shared_address(memory);
    const bool pieces = !perm && ldx % ${PIECE} == 0 && k % ${PIECE} == 0 && (u64)x % 16 == 0;
    const int k_warp = threadIdx.x / 32 / WN * (SLAB / WK);
    places p;
    ${ACC} acc[MT][NT][4] = {};
    int slab = begin;
    do { /* once where K is too short for this part, too, for what p says */
      const int k0 = slab * SLAB + k_warp, records = min(max(k - k0 + 63, 0) / 64, SLAB / WK / 64);
      p = first_records(t, base, k_warp, k0, records);
      ${WAIT}
      __syncthreads(); /* everybody is done with the slab before */
      if (pieces) copy_x(t, base, slab * SLAB);
      else copy_x_by_words(t, memory, slab * SLAB);
      copies_commit();
      copies_wait<0>();
      __syncthreads();
    #pragma unroll 1
      while (p.left > -UNROLL) {
        multiply(p, acc);
        next_records(p);
      }
    } while (++slab < end);
    __syncthreads();
    ${LAUNCH}
    float *out = (float *)memory;
    gather(p, out, acc);
    ${COMBINE}
    store(t, out, y, ${ARGS}ldy);
  ]], { ARGS = cuda.extra_names(v), COMBINE = reduce.call(v), WAIT = v.PDL and "wait_for_grid();" or "",
    LAUNCH = v.PDL and "let_next_begin();" or "" })
  w.pop "}"
end

local function launch(v)
  local args = { "x", "w", "y", "perm" }
  for _, o in ipairs(cuda.extra(v)) do args[#args + 1] = o[1] end
  local grid = schedule.grid(v)
  local workspace, counters, scratch = reduce.workspace(v, grid[1])
  table.move(workspace, 1, #workspace, #args + 1, args)
  table.move({ "m", "n", "k", "ldx", "ldy" }, 1, 5, #args + 1, args)
  local step = { args = args, grid = grid, block = { v.THREADS }, cluster = reduce.cluster(v), shared = shared(v) }
  local recipe = schedule.recipe(v, nil, step, counters, scratch)
  recipe.deterministic, recipe.batch_invariant, recipe.pdl, recipe.sums = true, true, v.PDL, product.sums(v)
  return recipe
end

return kernel {
  name = "cuda.decode",
  target = "cuda",
  grouped = true,
  doc = "few tokens: weights from memory straight into tensor cores",
  source = "tinygemm (PyTorch)",
  params = {
    { name = "BM", values = { 8, 16, 32 }, quick = { 8, 16 }, doc = "tokens of a CTA" },
    { name = "WN", values = { 2, 4, 8 }, quick = { 4 }, doc = "warps along the features" },
    { name = "WK", values = { 1, 2, 4 }, doc = "warps that share K" },
    { name = "UNROLL", values = { 2, 4, 8 }, doc = "records under way in a warp", short = "u" },
    { name = "SLAB", values = { 1024, 2048 }, doc = "k of X in shared memory", short = "x" },
    { name = "SCALE", values = { "weight", "sum" }, doc = "where scales are applied", short = "" },
    { name = "SPLIT", values = { 1, 2, 4, 8 }, doc = "CTAs that share K", short = "k" },
  },
  rules = rules,
  derive = derive,
  layout = function(v) return v.layout end,
  launch = launch,
  m = function(v) -- but some kernel must serve every M
    return 1, v.BM == 8 and v.SPLIT == 1 and 0 or 2 * v.BM * (v.problem.experts or 1), v.BM
  end,
  cost = shared,
  outline = { cuda.head, constants, cuda.helpers, cuda.pack2, ring.ptx, x.ptx, product.ptx, codes.stream, schedule.task,
    x.place, stream.places, codes.load, codes.fragment, planes.conversions, planes.terms, x.spread, stream.begin,
    stream.multiply, function(w, v) x.by_words(w, v, "SLAB") end, copy_x, reduce.gather, reduce.combine, epilogue.store,
    entry },
}
