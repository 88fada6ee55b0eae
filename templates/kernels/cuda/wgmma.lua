-- cuda.wgmma - products of warpgroups on Hopper, weights as their first operand, from registers; many tokens.
--
--   Y[m,n] = sum over k of X[m,k] * W[n,k]            computed as  Yt[n,m] = W . Xt, as in cuda.mma
--
--                     BM tokens
--                  +------------+        a CTA makes BN = 128 MT features x BM tokens: two warpgroups multiply, each MT
--            64 MT | consumer 0 |        times 64 features, and a third fills buffers (cuda_producer)
--         features |            |
--                  +------------+          producer   [X: BM x BK][W: records][scales, zero points]  x STAGES
--                  | consumer 1 |          consumer   words of W -> numbers in registers -> wgmma with X in place
--                  |            |
--                  +------------+        a lane makes the next fragment while the product of the one before runs
--
--   X[m,k]   row-major, by a tensor map; by words where TMA cannot, and row by row for a stack of experts
--   W[n,k]   chunk (n / 16, k / 64), see templates/layouts/cuda_fragment.lua; warp w of a warpgroup has the record w of
--            each 64 features
--   Y[m,n]   row-major, through shared memory, so that it is written along n (cuda_reduce, cuda_epilogue)
--
--   parameter  meaning                                              bound by
--   BM         tokens of a CTA                                      registers: the sums, 32 BM MT / 64 of a lane
--   MT         times 64 features of a warpgroup                     registers: the same
--   SCALE      scales multiply weights, or sums of a group
--   SPLIT      CTAs that share K
--   TOGETHER   CTAs side by side along the features that load X together
--   GRID       a CTA for each tile, or for each multiprocessor, which goes from tile to tile (cuda_schedule)
--
-- BK, k of a tile, is 128, so that copies of W are long; or 64, where three buffers or the codes of a lane have no
-- room, or a row of W would be longer than a copy's.
--
-- Source: CUTLASS' and Machete's mixed-input kernels for Hopper; Humming for weights as first operand.

local cuda = use "kernels/common/cuda"
local codes = use "kernels/common/cuda_codes"
local planes = use "kernels/common/cuda_planes"
local activations = use "kernels/common/cuda_x"
local ring = use "kernels/common/cuda_ring"
local producer = use "kernels/common/cuda_producer"
local rows = use "kernels/common/cuda_rows"
local product = use "kernels/common/cuda_product"
local warpgroup = use "kernels/common/cuda_warpgroup"
local x_sums = use "kernels/common/cuda_x_sums"
local reduce = use "kernels/common/cuda_reduce"
local schedule = use "kernels/common/cuda_schedule"
local gather = use "kernels/common/cuda_gather"
local roles = use "kernels/common/cuda_roles"
local epilogue = use "kernels/common/cuda_epilogue"

-- ---- Sizes ----------------------------------------------------------------------------------------------------------

local MOST_WORDS = 160 -- of a lane, for sums and codes: of 232 registers (cuda_roles)
local ROUND = 32 -- tokens of Y at once, where their sums have a place of their own

-- 32-bit words of a lane: sums, twice where they wait for scales, and codes of a tile.
local function words(v)
  local waiting = v.SCALE == "sum" and #cuda.roles(v.format).scale > 0
  return v.MT * v.BM // 2 * (waiting and 2 or 1) + v.MT * v.BK // 64 * v.format.bits
end

-- Those of a buffer, after the choice of BK; OUT_AT, PITCH: where sums for Y lie, floats of a row of them; BARRIERS_AT,
-- SMEM: where barriers begin, shared memory.
local function sizes(v)
  if v.sizes then return v.sizes end
  v.BN, v.WN, v.WK, v.BK, v.STREAM = 128 * v.MT, 8, 1, 128, v.GRID == "stream"
  local out = (v.STREAM and ROUND or v.BM) * (v.BN + 4) * 4
  local apart = (v.STREAM and out or 0) + rows.bytes(v)
  local s = producer.sizes(v, apart)
  if types.all[v.act].bytes > 1 and (s.STAGES < 3 or words(v) > MOST_WORDS or v.format.bits > 8) then
    v.BK = 64
    s = producer.sizes(v, apart)
  end
  v.sizes, s.WORDS_OF_LANE = s, words(v)
  s.TN, s.TK, s.NT = 16, v.BK, v.BM // 8
  s.PITCH, s.OUT_AT = v.BN + 4, v.STREAM and s.STAGES * s.STAGE or 0
  s.BARRIERS_AT = math.max(s.STAGES * s.STAGE, s.OUT_AT + out)
  s.SMEM = s.BARRIERS_AT + producer.BARRIERS + rows.bytes(v)
  return s
end

local function derive(v)
  for name, x in pairs(sizes(v)) do v[name] = x end
  v.FEATURE, v.ROWS = "warp / 4 * 64 * MT + warp % 4 * 16", 64
  v.ARRIVED = "*(u32 *)((u8 *)out - OUT_AT + BARRIERS_AT + STAGES * 16)" -- behind the barriers
  v.PDL, v.WARPGROUPS = true, true
  v.layout = cuda.fragment.layout(v.format, v.act)
  codes.derive(v)
  product.kind(v)
  planes.derive(v)
  producer.derive(v)
  v.WAYS = 0 -- X is no operand of registers
  product.derive(v)
  warpgroup.derive(v)
  x_sums.derive(v)
  reduce.derive(v)
  v.PRODUCERS, v.EXTRA = producer.THREADS, cuda.extra_declared(v)
  v.PRECISION = planes.precision(v)
end

-- ---- Rules ----------------------------------------------------------------------------------------------------------

local rules = { table.unpack(product.rules) }
local function rule(name, why, ok) rules[#rules + 1] = { name = name, why = why, ok = ok } end

local function has_offset(v) return #cuda.roles(v.format).offset > 0 end

rule("hopper", "wgmma is of sm_90a alone", function(v) return v.device.arch:match "_90a$" ~= nil end)
rule("activations", "X of 8 bits is multiplied as it is, by weights that such numbers hold exactly, scales apart",
  function(v) return not types.scaled(v.act) or product.warpgroup_bytes(v) end)
rule("sums", "the sums and codes of a lane leave too few of 232 registers",
  function(v) return sizes(v).WORDS_OF_LANE <= MOST_WORDS end)
rule("stages", "shared memory has room for less than three buffers", function(v) return sizes(v).STAGES >= 3 end)
rule("memory", "the sums need more shared memory than this device has",
  function(v) return sizes(v).SMEM <= v.device.smem end)
rule("scale", "scales multiply weights where there are many tokens, and sums where there are few, if both can be",
  function(v)
    local better = v.BM >= 64 and not types.scaled(v.act) and "weight" or "sum"
    return v.SCALE == better or not product.serves(v, better) or better == "sum" and has_offset(v)
  end)
rule("offset", "sums of X for an offset that waits for the sum are made in cuda.mma and cuda.decode",
  function(v) return v.SCALE ~= "sum" or not has_offset(v) end)
rule("split", "K is too short: each part should have as many tiles as there are buffers",
  function(v) return v.SPLIT == 1 or v.problem.k >= v.SPLIT * sizes(v).STAGES * v.BK end)
rule("crowd", "there are tiles enough for this device without splitting K", function(v)
  return v.SPLIT == 1 or -(-v.problem.n // v.BN) * v.SPLIT <= 2 * v.device.sms
end)

rule("cluster", "loading X together is worth it where tiles have many tokens, and lie side by side",
  function(v) return v.TOGETHER == 1 or v.BM >= 128 and v.problem.n >= v.TOGETHER * v.BN end)

rule("experts", "tiles of a stack are many, and each has tokens of its own; their places and two tiles do not fit into "
  .. "registers", function(v)
    return not v.problem.experts or v.SPLIT == 1 and v.TOGETHER == 1 and v.GRID == "tiles" and v.MT == 1
  end)
rule("stream", "CTAs that stay share K by themselves, and load X alone; few tokens have too few tiles for that",
  function(v) return v.GRID == "tiles" or v.SPLIT == 1 and v.TOGETHER == 1 and v.BM >= 128 end)

-- Small tiles read W too often for many tokens, and K is split as long as there are few tiles; but some kernel must
-- serve every M.
local function served(v)
  local most = v.BM < 128 and 4 * v.BM or 0
  if v.SPLIT > 1 then most = v.BM * math.max(1, 2 * v.device.sms // (-(-v.problem.n // v.BN) * v.SPLIT)) end
  return v.BM // 2 + 1, most, v.BM
end

-- ---- Source ---------------------------------------------------------------------------------------------------------

local function constants(w, v)
  w([[
    enum {
      BM = ${BM}, BN = ${BN}, BK = ${BK}, /* tokens, features, k of a tile */
      STAGES = ${STAGES}, UNROLL = ${UNROLL}, /* buffers, those that the loop takes at once */
      WN = 8, WK = 1, THREADS = 32 * WN, /* warps that multiply */
      TOGETHER = ${TOGETHER}, /* CTAs that load X together */
      SPLIT = ${SPLIT}, SLOTS = ${SLOTS}, /* CTAs that share K, partial sums kept */
      TN = 16, TK = BK, /* a warp's features, k, of a product */
      MT = ${MT}, NT = BM / 8, /* its products; tokens are counted in eights */
      WORDS = ${WORDS}, /* 32-bit words of a record in a lane */
      RECORD = ${RECORD}, /* bytes of a record */
      RUN = BK / 64 * RECORD, /* bytes of records that lie together in a tile */
      GROUP_STEPS = ${GROUP_STEPS}, /* steps of 16 that share scales */
      X_ROW = ${X_ROW}, X_BLOCK = BM * X_ROW, /* bytes of a row of a block of X, of a block */
      X_BYTES = ${X_BYTES}, W_BYTES = BN / 16 * RUN, /* in a buffer */
      ${PLACES}
      PITCH = BN + 4, /* of a row of sums */
      OUT_AT = ${OUT_AT}, ROUND = ${ROUND_TOKENS}, /* where sums for Y lie, tokens of them at once */
      BARRIERS_AT = ${BARRIERS_AT}, /* behind the buffers, and the sums that take their place */
    };
    static_assert(STAGE == ${STAGE}, "a buffer holds X, W and the planes of a tile");
  ]], { PLACES = ring.places(v), ROUND_TOKENS = v.STREAM and ROUND or v.BM })
  w.blank()
end

local function entry(w, v)
  w([[
    extern "C" __global__ void __launch_bounds__(THREADS + ${PRODUCERS}, 1)
    ${entry}(${MAPS}const ${XT} *x, const u8 *w, ${YT} *y, ${EXTRA}${WS}${SUMS}int m, int n, int k, int ldx, ${LDY}) {
      extern __shared__ __align__(1024) u8 memory[];
  ]], { YT = cuda.ctype[v.out], MAPS = producer.parameters(v), WS = reduce.parameters(v), SUMS = x_sums.parameter(v),
    LDY = "int ldy" .. schedule.parameters(v) })
  w.push()
  schedule.begin(w, v)
  x_sums.leave(w, v)
  roles.run(w, v)
  w.pop "}"
end

local function launch(v)
  local args, grid = producer.maps(v), schedule.grid(v)
  table.move({ "x", "w", "y" }, 1, 3, #args + 1, args)
  for _, o in ipairs(cuda.extra(v)) do args[#args + 1] = o[1] end
  local workspace, counters, scratch = reduce.workspace(v, grid[1])
  table.move(workspace, 1, #workspace, #args + 1, args)
  table.move(x_sums.arguments(v), 1, 1, #args + 1, args)
  table.move({ "m", "n", "k", "ldx", "ldy" }, 1, 5, #args + 1, args)
  local step = { args = args, grid = grid, block = { v.THREADS + producer.THREADS }, cluster = { v.TOGETHER },
    shared = v.SMEM }
  local recipe = schedule.recipe(v, gather.step(v), step, counters, x_sums.scratch(v) + scratch)
  if v.RAW then table.insert(recipe.steps, 2, x_sums.step(v)) end
  recipe.deterministic, recipe.batch_invariant, recipe.pdl, recipe.sums = true, not v.STREAM, true, product.sums(v)
  return recipe
end

return kernel {
  name = "cuda.wgmma",
  target = "cuda",
  grouped = true,
  doc = "products of warpgroups (Hopper), weights dequantized in registers",
  source = "CUTLASS and Machete for Hopper; Humming for the operand order",
  params = {
    { name = "BM", values = { 32, 64, 96, 128, 192, 256 }, quick = { 64, 128 }, doc = "tokens of a tile" },
    { name = "MT", values = { 1, 2 }, doc = "times 128 features of a tile", short = "mt" },
    { name = "SCALE", values = { "weight", "sum" }, doc = "where scales are applied", short = "" },
    { name = "SPLIT", values = { 1, 2, 4 }, doc = "CTAs that share K", short = "k" },
    { name = "TOGETHER", values = { 1, 2 }, doc = "CTAs that load X together", short = "c" },
    { name = "GRID", values = { "tiles", "stream" }, doc = "a CTA for a tile, or a multiprocessor", short = "" },
  },
  rules = rules,
  derive = derive,
  layout = function(v) return v.layout end,
  launch = launch,
  m = served,
  cost = function(v) return v.SMEM end,
  outline = { cuda.head, constants, cuda.helpers, cuda.pack2, ring.ptx, producer.ptx, product.ptx, warpgroup.ptx,
    schedule.task, activations.place, product.places, codes.load, codes.fragment, planes.conversions, planes.terms,
    producer.ring, warpgroup.multiply, warpgroup.consume, reduce.gather, reduce.combine, epilogue.store, gather.kernel,
    x_sums.kernel, entry },
}
