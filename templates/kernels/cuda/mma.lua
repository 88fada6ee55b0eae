-- cuda.mma - tensor cores (mma.sync), weights as their first operand; from some tokens to many.
--
--   Y[m,n] = sum over k of X[m,k] * W[n,k]            computed as  Yt[n,m] = W . Xt, features along the 16 of m16n8k16
--
--                  BM tokens
--                +----------+         a CTA makes BN features x BM tokens, by WN warps
--        BN      |  warp 0  | TN      a warp: TN features, all BM tokens
--      features  |  warp 1  |
--                |   ...    |         K goes by in tiles of BK through STAGES buffers of shared memory (cuda_ring):
--                +----------+         [X: BM x BK][W: records][scales, zero points]
--
--   X[m,k]   row-major; 8-bit: x_scale[m] meets the sum
--   W[n,k]   chunk (n / 16, k / 64), see templates/layouts/cuda_fragment.lua; records are copied as they are, a lane
--            reads its words with one load and dequantizes in registers (cuda_codes, cuda_planes, cuda_product)
--   Y[m,n]   row-major, through shared memory, so that it is written along n (cuda_reduce, cuda_epilogue)
--
--   parameter  meaning                                              bound by
--   BM, BN     tokens, features of a CTA                            BM * BN / (WN * 32) registers of a lane, the sums
--   BK         k of a tile                                          shared memory: STAGES * BK * (BM of X + BN of W)
--   WN         warps along the features                             TN = BN / WN holds whole records
--   STAGES     buffers: tiles under way plus one
--   SCALE      scales multiply weights, or sums of a group          sums cost registers, weights a rounding
--   SPLIT      CTAs that share K
--
-- Source: the pipeline of cp.async and fragment-ordered weights is Marlin's (Frantar et al., arXiv 2408.11743); weights
-- as first operand, so that 8 tokens fill the tensor core, is CUTLASS' and Humming's for Hopper.

local cuda = use "kernels/common/cuda"
local codes = use "kernels/common/cuda_codes"
local planes = use "kernels/common/cuda_planes"
local activations = use "kernels/common/cuda_x"
local ring = use "kernels/common/cuda_ring"
local product = use "kernels/common/cuda_product"
local reduce = use "kernels/common/cuda_reduce"
local schedule = use "kernels/common/cuda_schedule"
local gather = use "kernels/common/cuda_gather"
local epilogue = use "kernels/common/cuda_epilogue"

-- ---- Sizes ----------------------------------------------------------------------------------------------------------

-- Groups along `k`, the most of any plane.
local function groups(v, k)
  local most = 1
  for _, p in ipairs(v.format.planes) do most = math.max(most, p.cols > 0 and k // p.cols or 1) end
  return most
end

-- Sizes that the rules need, too; made once: those of a buffer, and
--
--   TN, TK, MT, NT      a warp's features and k; its products along N and M
--   PITCH, SMEM         floats of a row of sums: lanes of a quarter warp meet different banks; shared memory
--   REGISTERS           an estimate
local function sizes(v)
  if v.sizes then return v.sizes end
  v.WK = 1 -- warps do not share K
  local s = ring.sizes(v)
  v.sizes = s
  s.TN, s.TK = v.BN // v.WN, v.BK
  s.MT, s.NT = s.TN // 16, v.BM // 8
  s.PITCH = v.BN + 4
  s.SMEM = math.max(v.STAGES * s.STAGE, v.BM * s.PITCH * 4)
  local roles = cuda.roles(v.format)
  local flush = v.SCALE == "sum" and #roles.scale + #roles.offset > 0
  -- accumulators, all codes of a tile, two steps of X, cursors, scales and temporaries; what the assembler has under
  -- way of the groups that follow in a tile. Narrow codes are no cheaper than 4 bits: they must be spread.
  local code_bytes = v.BN * v.BK * math.max(v.format.bits, 4) // 8
  s.REGISTERS = s.MT * s.NT * 4 * (flush and 2 or 1)
    + code_bytes // (4 * s.THREADS) + v.BM // 4 + 14 + (s.X_BYTES + code_bytes) // (8 * s.THREADS) + s.TN // 4 + 62
    + (flush and math.min(groups(v, s.TK) - 1, 3) * s.TN * 7 // 8 or 0)
    + (v.SCALE == "sum" and #roles.offset > 0 and v.BM // 2 + 4 or 0)
  return s
end

-- Beside what the common parts derive: KEPT, are groups longer than a tile? Then a warp keeps their terms from tile to
-- tile. EXTRA, parameters of the result; MIN_BLOCKS, CTAs of a multiprocessor; PRECISION, a line of the head comment.
local function derive(v)
  for name, x in pairs(sizes(v)) do v[name] = x end
  v.layout = cuda.fragment.layout(v.format, v.act)
  codes.derive(v)
  product.kind(v)
  planes.derive(v)
  ring.derive(v)
  product.derive(v)
  v.KEPT = v.GROUP > v.BK
  reduce.derive(v)
  v.PDL, v.EXTRA = v.device.sm >= 90, cuda.extra_declared(v)
  v.MIN_BLOCKS = cuda.min_blocks(v, v.REGISTERS, v.THREADS)
  v.PRECISION = planes.precision(v)
end

-- ---- Rules ----------------------------------------------------------------------------------------------------------

local rules = { table.unpack(product.rules) }
local function rule(name, why, ok) rules[#rules + 1] = { name = name, why = why, ok = ok } end

rule("warp", "a warp takes 16, 32 or 64 features", function(v)
  local n = sizes(v).TN
  return n == 16 or n == 32 or n == 64
end)
rule("tile", "the sums of 128 tokens and 256 features leave no registers for the rest", function(v)
  return v.BM * v.BN <= 128 * 128
end)
rule("registers", "accumulators, codes and X need more registers than a thread or a multiprocessor has", function(v)
  local s = sizes(v)
  return s.REGISTERS <= 260 and math.min(s.REGISTERS, 255) * s.THREADS <= (v.device.regs or 65536)
end)
rule("memory", "the buffers need more shared memory than this device has", function(v)
  return sizes(v).SMEM + (v.SPLIT > 1 and reduce.SHARED or 0) <= v.device.smem
end)
rule("planes", "the planes of BN features, of groups that lie side by side, are more than all threads copy at once",
  function(v)
    local s = sizes(v)
    for _, p in ipairs(s.staged) do if p.bytes // p.groups > 16 * s.THREADS then return false end end
    return true
  end)
rule("split", "K is too short: each part should have as many tiles as there are buffers", function(v)
  return v.SPLIT == 1 or v.problem.k >= v.SPLIT * v.STAGES * v.BK
end)
rule("depth", "few tokens are bound by memory and need deep buffers, many by arithmetic and need the room",
  function(v)
    return v.BM == 32 and v.STAGES == 4 or v.BM >= 64 and v.STAGES <= 4 and v.BK == 64
  end)
rule("features", "many tokens need wide tiles, since X is loaded again for every BN features", function(v)
  return v.BM <= 32 or v.BN >= 128
end)
rule("fill",
  "this device has more multiprocessors than there are such tiles of few tokens: take narrow ones, or split K",
  function(v) return v.BM > 32 or v.BN == 64 or v.problem.n // v.BN * v.SPLIT >= v.device.sms // 3 end)
rule("crowd", "there are tiles enough for this device without splitting K so often", function(v)
  local most = v.BM <= 32 and 3 or 1.25 -- CTAs of a multiprocessor
  return v.SPLIT == 1 or -(-v.problem.n // v.BN) * v.SPLIT <= most * v.device.sms
end)

-- ---- Source ---------------------------------------------------------------------------------------------------------

local function constants(w, v)
  w([[
    enum {
      BM = ${BM}, BN = ${BN}, BK = ${BK}, /* tokens, features, k of a tile */
      WN = ${WN}, WK = ${WK}, /* warps along the features, warps that share K */
      STAGES = ${STAGES}, /* buffers */
      SPLIT = ${SPLIT}, SLOTS = ${SLOTS}, /* CTAs that share K, partial sums kept */
      THREADS = 32 * WN * WK,
      TN = BN / WN, TK = BK / WK, /* a warp's features, k */
      MT = TN / 16, NT = BM / 8, /* its products */
      WORDS = ${WORDS}, /* 32-bit words of a record in a lane */
      RECORD = ${RECORD}, /* bytes of a record */
      RUN = BK / 64 * RECORD, /* bytes of records that lie together in a tile */
      GROUP_STEPS = ${GROUP_STEPS}, /* steps of 16 that share scales */
      X_ROW = ${X_ROW}, X_BLOCK = BM * X_ROW, /* bytes of a row of a block of X, of a block */
      X_BYTES = ${X_BYTES}, W_BYTES = BN / 16 * RUN, /* in a buffer */
      ${PLACES}
      PITCH = BN + 4, /* of a row of sums */
    };
    static_assert(STAGE == ${STAGE}, "a buffer holds X, W and the planes of a tile");
    static_assert(TN % 16 == 0 && TK % 64 == 0, "a warp takes whole records");
  ]], { PLACES = ring.places(v) })
  w.blank()
end

local function entry(w, v)
  w([[
    extern "C" __global__ void __launch_bounds__(THREADS, ${MIN_BLOCKS})
    ${entry}(const ${XT} *x, const u8 *w, ${YT} *y, ${EXTRA}${WS}int m, int n, int k, int ldx, int ldy${ROWS}) {
      extern __shared__ __align__(128) u8 memory[];
  ]], { YT = cuda.ctype[v.out], WS = reduce.parameters(v), ROWS = schedule.parameters(v) })
  w.push()
  schedule.begin(w, v)
  w([[
    const u32 base = shared_address(memory);
    const places p = lane_places(t, base);
    cursors c = first_tile(t, base, begin);
    ${ACC} acc[MT][NT][4] = {};
    ${WAIT}
    if (ldx % ${PIECE} == 0 && k % ${PIECE} == 0 && (u64)x % 16 == 0) multiply_all(c, p, end - begin, acc);
    else multiply_unaligned(t, c, p, memory, begin, end, acc);
    ${LAUNCH}
    float *out = (float *)memory;
    gather(p, out, acc);
    ${COMBINE}
    store(t, out, y, ${ARGS}ldy);
  ]], { ARGS = cuda.extra_names(v), COMBINE = reduce.call(v), LAUNCH = v.PDL and "let_next_begin();" or "",
    WAIT = v.PDL and not v.problem.experts and "wait_for_grid();" or "" })
  w.pop "}"
end

local function launch(v)
  local args = { "x", "w", "y" }
  for _, x in ipairs(cuda.extra(v)) do args[#args + 1] = x[1] end
  local grid = schedule.grid(v)
  local workspace, counters, scratch = reduce.workspace(v, grid[1])
  table.move(workspace, 1, #workspace, #args + 1, args)
  table.move({ "m", "n", "k", "ldx", "ldy" }, 1, 5, #args + 1, args)
  local step = { args = args, grid = grid, block = { v.THREADS }, cluster = reduce.cluster(v), shared = v.SMEM }
  local recipe = schedule.recipe(v, gather.step(v), step, counters, scratch)
  recipe.deterministic, recipe.batch_invariant, recipe.pdl, recipe.sums = true, true, v.PDL, product.sums(v)
  return recipe
end

return kernel {
  name = "cuda.mma",
  target = "cuda",
  grouped = true,
  doc = "tensor cores by mma.sync, weights dequantized in registers",
  source = "Marlin (arXiv 2408.11743); CUTLASS and Humming for the operand order",
  params = {
    { name = "BM", values = { 32, 64, 128 }, quick = { 64 }, doc = "tokens of a tile" },
    { name = "BN", values = { 64, 128, 256 }, quick = { 64, 128 }, doc = "features of a tile" },
    { name = "BK", values = { 64, 128 }, quick = { 64 }, doc = "k of a tile" },
    { name = "WN", values = { 4, 8 }, doc = "warps along the features" },
    { name = "STAGES", values = { 3, 4, 6 }, doc = "buffers", short = "s" },
    { name = "SCALE", values = { "weight", "sum" }, doc = "where scales are applied", short = "" },
    { name = "SPLIT", values = { 1, 2, 4, 8 }, doc = "CTAs that share K", short = "k" },
  },
  rules = rules,
  derive = derive,
  layout = function(v) return v.layout end,
  launch = launch,
  m = function(v) -- narrow tiles read the weight often
    return v.BM // 2 + 1, v.BM < 64 and 4 * v.BM * (v.problem.experts or 1) or 0, v.BM
  end,
  cost = function(v) return v.SMEM end,
  outline = { cuda.head, constants, cuda.helpers, cuda.pack2, ring.ptx, activations.ptx, product.ptx, schedule.task,
    activations.place, product.places, codes.load, codes.fragment, planes.conversions, planes.terms,
    activations.spread, product.multiply, ring.cursors, function(w, v) activations.by_words(w, v, "BK") end,
    ring.copies, ring.loop, reduce.gather, reduce.combine, epilogue.store, gather.kernel, entry },
}
