-- cuda.mma - tensor cores (mma.sync), weights as their first operand; from a few tokens to many.
--
--   Y[m,n] = sum over k of X[m,k] * W[n,k]            computed as  Yt[n,m] = W . Xt, features along the 16 of m16n8k16
--
--                  BM tokens
--                +----------+         a CTA makes BN features x BM tokens, WN x WK warps
--        BN      |  warp 0  | TN      a warp: TN features, all BM tokens, every WK-th part of TK of each tile of K
--      features  |  warp 1  |
--                |   ...    |         K goes by in tiles of BK through STAGES buffers of shared memory:
--                +----------+         [X: BM x BK][W: records][scales, zero points]
--
--   X[m,k]   row-major; in shared memory 16-byte pieces, piece c of row r at c ^ (r % 8), of rows of 64 bytes at
--            c ^ (r / 2 % 4). ldmatrix gives the B operand. X of 8 bits: x_scale[m] meets the sum. i8 and integers of 8
--            bits are multiplied as such (INTEGER), 32 of k at once, and sums of a group are exact; else a lane loads
--            the words of X that it needs and makes them f16, exactly, and W is f16, too
--   W[n,k]   chunk (n / (16 FN), k / (16 FK)), see templates/layouts/cuda_fragment.lua; cp.async copies records as they
--            are, a lane reads its words with one load and dequantizes in registers
--   Y[m,n]   row-major, through shared memory, so that it is written along n
--
--   parameter  meaning                                              bound by
--   LAYOUT     shape of a record: 16 or 64 features                 part of the layout
--   BM, BN     tokens, features of a CTA                            BM * BN / (WN * 32) registers of a lane, the sums
--   BK         k of a tile                                          shared memory: STAGES * BK * (BM of X + BN of W)
--   WN, WK     warps along the features, warps that share K         TN = BN / WN, TK = BK / WK hold whole records
--   STAGES     buffers: tiles under way plus one
--   SCALE      scales multiply weights, or sums of a group          sums cost registers, weights a rounding
--   SPLIT      CTAs that share K
--   REDUCE     how their sums meet: in order, or by atomic addition (not bit for bit repeatable)
--
-- Source: the pipeline of cp.async and fragment-ordered weights is Marlin's (Frantar et al., arXiv 2408.11743); weights
-- as first operand, so that 8 tokens fill the tensor core, is CUTLASS' and Humming's for Hopper.

local cuda = use "kernels/common/cuda"
local codes = use "kernels/common/cuda_codes"
local planes = use "kernels/common/cuda_planes"
local parts = use "kernels/common/cuda_mma"

local fragments = { n16 = 1, n32 = 2, n64 = 4 } -- FN of a layout; n32 is neither wide nor narrow, and not tried

-- ---- Sizes ----------------------------------------------------------------------------------------------------------

-- Groups along `k`, the most of any plane.
local function groups(v, k)
  local most = 1
  for _, p in ipairs(v.format.planes) do most = math.max(most, p.cols > 0 and k // p.cols or 1) end
  return most
end

-- Are integers of 8 bits multiplied? Scales must wait for sums over whole steps of 32, and a sum over all of K fit
-- 32 bits.
local function integer(v)
  if v.act ~= "i8" or v.SCALE ~= "sum" or not cuda.integer(v.format) then return false end
  if #cuda.roles(v.format).scale == 0 and v.problem.k >= (1 << 31) // (128 * 128) then return false end
  for _, p in ipairs(v.format.planes) do if p.cols % 32 > 0 then return false end end
  return true
end

-- Sizes that the rules need, too; made once.
local function sizes(v)
  if v.sizes then return v.sizes end
  local s = { FN = fragments[v.LAYOUT] }
  v.sizes = s
  s.FK = 4 // s.FN
  s.TN, s.TK = v.BN // v.WN, v.BK // v.WK
  s.THREADS = 32 * v.WN * v.WK
  s.X_SIZE = types.all[v.act].bytes
  s.X_BYTES, s.W_BYTES = v.BM * v.BK * s.X_SIZE, v.BN * v.BK * v.format.bits // 8
  s.staged, s.by_name, s.STAGE = {}, {}, s.X_BYTES + s.W_BYTES
  for _, plane in ipairs(v.format.planes) do
    local p = cuda.fragment.stored(plane)
    if p.cols > 0 then
      p.place, p.groups = p.name:upper() .. "_AT", math.max(1, v.BK // p.cols) -- its offset in a buffer
      p.bytes = p.groups * v.BN // p.rows * p.size
      s.staged[#s.staged + 1], s.by_name[p.name] = p, p
      s.STAGE = s.STAGE + p.bytes
    end
  end
  s.PITCH = v.BN + 4 -- of a row of sums: lanes of a quarter warp meet different banks
  s.SMEM = math.max(v.STAGES * s.STAGE, v.BM * s.PITCH * 4)
  s.ACCUMULATORS = s.TN // 16 * (v.BM // 8) * 4
  local flush = v.SCALE == "sum" and #cuda.roles(v.format).scale > 0
  -- accumulators, all codes of a tile, two steps of X, addresses of copies, scales and temporaries; what the assembler
  -- has under way of the groups that follow in a tile. Narrow codes are no cheaper than 4 bits: they must be spread.
  local code_bytes = v.BN * v.BK * math.max(v.format.bits, 4) // 8
  s.REGISTERS = s.ACCUMULATORS * (flush and 2 or 1)
    + code_bytes // (4 * s.THREADS) + v.BM // 4 + 14 + (s.X_BYTES + code_bytes) // (8 * s.THREADS) + s.TN // 4 + 62
    + (flush and math.min(groups(v, s.TK) - 1, 3) * s.TN * 7 // 8 or 0)
  return s
end

-- Beside its sizes, and what codes.derive and planes.derive write into v:
--
--   INTEGER, CONVERTS   are 8-bit integers multiplied? Else is X of 8 bits converted, to HALF, before?
--   DEPTH, RUNS         steps of 16 along k of a product; records along K that it needs
--   XT, PIECE, X_ROW    type of X, its elements in 16 bytes, bytes of a row of a tile
--   MT, NT, SLOTS       products of a warp along N and M; partial sums that are kept
--   RUN                 bytes of records that lie together in a tile
--   FLUSH, WEIGH        do scales multiply the sums of a group? Does anything happen to a fragment? TERMS: either
--   PART, ACC           types of the sums of a group, and of all
--   GROUP_STEPS         steps of 16 along k that share scales
local function derive(v)
  for name, x in pairs(sizes(v)) do v[name] = x end
  v.INTEGER = integer(v)
  v.CONVERTS = v.X_SIZE == 1 and not v.INTEGER
  v.DEPTH = v.INTEGER and 2 or 1
  v.RUNS = v.DEPTH > v.FK and 2 or 1
  v.HALF, v.XT = cuda.half_of(v.act), cuda.ctype[v.act]
  v.PIECE, v.X_ROW = 16 // v.X_SIZE, v.X_SIZE == 1 and "BK" or "BK * 2"
  v.EXTRA = cuda.extra_declared(v)
  v.MT, v.NT = v.TN // 16, v.BM // 8
  v.SLOTS = v.REDUCE == "atomic" and 1 or v.SPLIT
  v.layout = cuda.fragment.layout(v.format, v.act, v.FN)
  codes.derive(v)
  planes.derive(v)
  v.RUN = v.BK // (16 * v.FK) * v.RECORD
  v.FLUSH = v.SCALE == "sum" and #v.SCALES > 0
  v.WEIGH = v.SCALE == "weight" or v.ZERO_PLANE ~= nil
  v.TERMS = v.WEIGH or v.FLUSH
  v.PART = v.INTEGER and "int" or "float"
  v.ACC = v.FLUSH and "float" or v.PART
  v.GROUP_STEPS = v.GROUP > 0 and math.min(v.GROUP, v.TK) // 16 or v.TK // 16
  v.MIN_BLOCKS = cuda.min_blocks(v, v.REGISTERS, v.THREADS)
  v.PRECISION = planes.precision(v)
end

-- ---- Rules ----------------------------------------------------------------------------------------------------------

local function rule(name, why, ok) return { name = name, why = why, ok = ok } end

local function half(v) return cuda.half_of(v.act) end

local function exact_map(v) -- does the type that multiplies hold every map(q)?
  for _, x in ipairs(v.format.map.values) do if not cuda.exact(half(v), x) then return false end end
  return true
end

local rules = {
  rule("device", "mma.sync m16n8k16 and cp.async need sm_80", function(v) return v.device.sm >= 80 end),
  cuda.rules.act,
  rule("granularity",
    "groups along K must be multiples of 16 codes, the step of a tensor core; cuda.gemv and cuda.expand take others",
    function(v) return not cuda.fragment.fine(v.format) end),
  rule("dense",
    "tensor cores multiply two numbers of one type: codes that are floats must have that of the activations, "
    .. "f16 for those of 8 bits, or have 8 bits themselves",
    function(v)
      local m = v.format.map
      return m.kind ~= "float" or m.slope == 1 and (m.type == half(v) or cuda.float8[m.type] ~= nil)
    end),
  cuda.range_rule(half),
  rule("warp", "a warp takes 16, 32 or 64 features, and whole records",
    function(v)
      local s = sizes(v)
      return (s.TN == 16 or s.TN == 32 or s.TN == 64) and s.TN % (16 * s.FN) == 0 and s.TK % (16 * s.FK) == 0
    end),
  rule("threads", "4 or 8 warps keep the tensor cores of a multiprocessor busy", function(v)
    return v.WN * v.WK == 4 or v.WN * v.WK == 8
  end),
  rule("scale-sum", "an offset that is not an integer zero point cannot wait for the sum", function(v)
    return v.SCALE ~= "sum" or #cuda.roles(v.format).offset == 0
  end),
  rule("scale-weight", "a scale that is the same for a whole row is applied once, to the sum", function(v)
    local r = cuda.roles(v.format)
    return v.SCALE ~= "weight" or #r.offset > 0 or #r.scale > 0
  end),
  rule("scale-rounding", "entries that the type of the product rounds must not be rounded again by a scale", function(v)
    return v.SCALE ~= "weight" or v.format.map.kind ~= "table" or exact_map(v)
  end),
  rule("scale-range", "a code times its scale could exceed the type of the product: scales wait for the sum",
    function(v)
      local m, small = v.format.map, cuda.float8[v.format.map.type]
      local most = small and small.max or m.kind ~= "float" and math.max(-m.lo, m.hi) or 0
      return v.SCALE ~= "weight" or 16 * most <= cuda.half[half(v)].max -- scales of checkpoints are well below 16
    end),
  rule("tile", "the sums of 128 tokens and 256 features leave no registers for the rest", function(v)
    return v.BM * v.BN <= 128 * 128
  end),
  rule("registers", "accumulators, codes and X need more registers than a thread or a multiprocessor has", function(v)
    local s = sizes(v)
    return s.REGISTERS <= 260 and math.min(s.REGISTERS, 255) * s.THREADS <= (v.device.regs or 65536)
  end),
  rule("memory", "the buffers need more shared memory than this device has", function(v)
    return sizes(v).SMEM + (v.SPLIT > 1 and parts.COMBINE_BYTES or 0) <= v.device.smem
  end),
  rule("reduce", "without a split there is nothing to reduce",
    function(v) return v.SPLIT > 1 or v.REDUCE == "ordered" end),
  rule("atomic", "two sums are added in order as fast as by atomics",
    function(v) return v.SPLIT ~= 2 or v.REDUCE == "ordered" end),
  rule("split", "K is too short: each part should have as many tiles as there are buffers", function(v)
    return v.SPLIT == 1 or v.problem.k >= v.SPLIT * v.STAGES * v.BK
  end),
  rule("split-tokens", "splitting K helps few tokens only; with many there are tiles enough", function(v)
    return v.BM <= 32 or v.SPLIT == 1 or v.BM == 64 and v.SPLIT == 2
  end),
  rule("share-k", "warps share K only where few tokens leave them nothing else to do",
    function(v) return v.WK == 1 or v.BM <= 16 end),
  rule("depth", "few tokens are bound by memory and need deep buffers, many by arithmetic and need the room",
    function(v)
      if v.BM <= 16 then return v.STAGES >= 4 and v.BK == 128 end
      return v.BM == 32 and v.STAGES == 4 or v.BM >= 64 and v.STAGES <= 4 and v.BK == 64
    end),
  rule("features", "many tokens need wide tiles, since X is loaded again for every BN features", function(v)
    return v.BM <= 32 or v.BN >= 128
  end),
  rule("fill",
    "this device has more multiprocessors than there are such tiles of few tokens: take narrow ones, or split K",
    function(v) return v.BM > 32 or v.BN == 64 or v.problem.n // v.BN * v.SPLIT >= v.device.sms // 3 end),
  rule("crowd", "there are tiles enough for this device without splitting K", function(v)
    return v.SPLIT == 1 or -(-v.problem.n // v.BN) * v.SPLIT <= 3 * v.device.sms
  end),
}

-- ---- Source ---------------------------------------------------------------------------------------------------------

-- Constants that say where the planes of a tile lie in a buffer, behind X and W, and its size.
local function buffer(v)
  local lines, size = {}, "X_BYTES + W_BYTES"
  for i, p in ipairs(v.staged) do
    lines[i] = ("%s = %s,"):format(p.place, size)
    size = ("%s + %d"):format(p.place, p.bytes)
  end
  lines[#lines + 1] = ("STAGE = %s, /* bytes of a buffer */"):format(size)
  return table.concat(lines, "\n")
end

local function constants(w, v)
  w([[
    enum {
      BM = ${BM}, BN = ${BN}, BK = ${BK}, /* tokens, features, k of a tile */
      WN = ${WN}, WK = ${WK}, /* warps along the features, warps that share K */
      STAGES = ${STAGES}, /* buffers */
      SPLIT = ${SPLIT}, SLOTS = ${SLOTS}, /* CTAs that share K, partial sums kept */
      FN = ${FN}, FK = ${FK}, /* fragments of a record along N, along K */
      THREADS = 32 * WN * WK,
      TN = BN / WN, TK = BK / WK, /* a warp's features, k */
      MT = TN / 16, NT = BM / 8, /* its products */
      WORDS = ${WORDS}, /* 32-bit words of a record in a lane */
      RECORD = ${RECORD}, /* bytes of a record */
      RUN = BK / (16 * FK) * RECORD, /* bytes of records that lie together in a tile */
      GROUP_STEPS = ${GROUP_STEPS}, /* steps of 16 that share scales */
      X_BYTES = BM * ${X_ROW}, W_BYTES = BN / (16 * FN) * RUN, /* in a buffer */
      ${BUFFER}
      PITCH = BN + 4, /* of a row of sums */
    };
    static_assert(STAGE == ${STAGE}, "a buffer holds X, W and the planes of a tile");
    static_assert(TN % (16 * FN) == 0 && TK % (16 * FK) == 0, "a warp takes whole records");

    struct task { /* what this CTA works on */
      const ${XT} *x;
      const u8 *w;
      ${MEMBERS}
      int m0, n0, m, n, k, ldx;
      int n_padded;
      i64 run_stride; /* bytes between the runs of a tile */
      bool aligned;   /* rows of X are, to 16 bytes */
    };
  ]], { MEMBERS = planes.members(v), BUFFER = buffer(v) })
  w.blank()
end

-- Sums that were integers to the end.
local function floats(v)
  local unit = v.format.map.unit
  return ([[
float sum[MT][NT][4];
#pragma unroll
for (int i = 0; i < MT * NT * 4; i++) {
  const int row = i / (NT * 4), j = i / 4 %% NT, e = i %% 4;
  sum[row][j][e] = %s(float)acc[row][j][e];
}
gather(t, out, sum);]]):format(unit == 1 and "" or cuda.f32(unit) .. " * ")
end

-- Where the partial sums of a split K begin.
local function sums_at(v)
  return v.REDUCE == "ordered" and "scratch" or "(float *)(counters + (gridDim.x + 63) / 64 * 64)"
end

local function entry(w, v)
  w([[
    fn void load(const task &t, u8 *stage, int tile) {
      load_w(t, stage, tile);
      if (t.aligned) load_x(t, stage, tile * BK);
      else load_x_unaligned(t, stage, tile * BK);
      ${PLANES}
    }

    extern "C" __global__ void __launch_bounds__(THREADS, ${MIN_BLOCKS})
    ${entry}(const ${XT} *x, const u8 *w, ${YT} *y, ${EXTRA}${WS}int m, int n, int k, int ldx, int ldy) {
      extern __shared__ __align__(128) u8 memory[];
      const int rows = (m + BM - 1) / BM; /* of tiles; neighbours share weights */
      task t = {x, w};
  ]], { PLANES = v.GROUPED and "load_planes(t, stage, tile * BK);" or "", YT = cuda.ctype[v.out],
    WS = v.SPLIT == 1 and "" or v.REDUCE == "atomic" and "u32 *counters, " or "u32 *counters, float *scratch, " })
  w.push()
  w([[
    t.m0 = blockIdx.x % rows * BM, t.n0 = blockIdx.x / rows * BN;
    t.m = m, t.n = n, t.k = k, t.ldx = ldx;
    t.n_padded = (n + ${TILE_N} - 1) / ${TILE_N} * ${TILE_N};
    const int k_padded = (k + ${TILE_K} - 1) / ${TILE_K} * ${TILE_K};
    t.run_stride = (i64)(k_padded / (16 * FK)) * RECORD;
    t.aligned = ldx % ${PIECE} == 0 && (u64)x % 16 == 0;
    ${POINTERS}

    const int tiles = (k + BK - 1) / BK, share = (tiles + SPLIT - 1) / SPLIT;
    const int begin = blockIdx.y * share, end = min(begin + share, tiles);
    ${ACC} acc[MT][NT][4] = {};
    #pragma unroll
    for (int s = 0; s < STAGES - 1; s++) {
      if (begin + s < end) load(t, memory + s * STAGE, begin + s);
      copies_commit();
    }
    int now = 0, next = STAGES - 1; /* buffers: to compute with, to fill */
    for (int tile = begin; tile < end; tile++) {
      copies_wait<STAGES - 2>();
      __syncthreads(); /* everybody's copies are here, and the buffer to fill is free */
      if (tile + STAGES - 1 < end) load(t, memory + next * STAGE, tile + STAGES - 1);
      copies_commit();
      multiply(t, memory + now * STAGE, acc);
      now = now + 1 < STAGES ? now + 1 : 0;
      next = next + 1 < STAGES ? next + 1 : 0;
    }
    copies_wait<0>();
    __syncthreads();
    float *out = (float *)memory;
    ${GATHER}
    ${COMBINE}
    store(t, out, y, ${ARGS}ldy);
  ]], { TILE_N = v.layout.tile[1], TILE_K = v.layout.tile[2], POINTERS = planes.pointers(v),
    ARGS = cuda.extra_names(v), GATHER = v.ACC == "float" and "gather(t, out, acc);" or floats(v),
    COMBINE = v.SPLIT > 1 and ("if (!combine(t, counters, %s, out)) return;"):format(sums_at(v)) or "" })
  w.pop "}"
end

local function launch(v)
  local args = { "x", "w", "y" }
  for _, x in ipairs(cuda.extra(v)) do args[#args + 1] = x[1] end
  local tiles, ordered = ceildiv(M, v.BM) * ceildiv(N, v.BN), v.REDUCE == "ordered"
  local workspace, counters, scratch = parts.workspace(v, tiles)
  table.move(workspace, 1, #workspace, #args + 1, args)
  table.move({ "m", "n", "k", "ldx", "ldy" }, 1, 5, #args + 1, args)
  local product = { args = args, grid = { tiles, v.SPLIT }, block = { v.THREADS }, shared = v.SMEM }
  return { steps = { cuda.gather_step(v), product },
    counters = counters, scratch = scratch, deterministic = ordered, batch_invariant = ordered }
end

return kernel {
  name = "cuda.mma",
  target = "cuda",
  doc = "tensor cores by mma.sync, weights dequantized in registers",
  source = "Marlin (arXiv 2408.11743); CUTLASS and Humming for the operand order",
  params = {
    { name = "LAYOUT", values = { "n16", "n64" }, doc = "features of a record", short = "" },
    { name = "BM", values = { 8, 16, 32, 64, 128 }, quick = { 16, 64 }, doc = "tokens of a tile" },
    { name = "BN", values = { 64, 128, 256 }, quick = { 64, 128 }, doc = "features of a tile" },
    { name = "BK", values = { 64, 128 }, quick = { 128 }, doc = "k of a tile" },
    { name = "WN", values = { 4, 8 }, doc = "warps along the features" },
    { name = "WK", values = { 1, 2, 4 }, doc = "warps that share K" },
    { name = "STAGES", values = { 3, 4, 6 }, doc = "buffers", short = "s" },
    { name = "SCALE", values = { "weight", "sum" }, doc = "where scales are applied", short = "" },
    { name = "SPLIT", values = { 1, 2, 4, 8 }, doc = "CTAs that share K", short = "k" },
    { name = "REDUCE", values = { "ordered", "atomic" }, doc = "how their sums meet", short = "" },
  },
  rules = rules,
  derive = derive,
  layout = function(v) return v.layout end,
  launch = launch,
  m = function(v) -- tiles of few tokens read the weight too often for many; but some kernel must serve every M
    if v.BM > 16 then return v.BM // 2 + 1, 0, v.BM end
    return 1, v.BM == 16 and v.SPLIT == 1 and 0 or 4 * v.BM, v.BM
  end,
  cost = function(v) return v.SMEM end,
  outline = {
    cuda.head,
    constants,
    cuda.helpers,
    cuda.pack2,
    parts.ptx,
    codes.load,
    codes.fragment,
    planes.loads,
    planes.terms,
    parts.load_weights,
    parts.load_x,
    parts.load_planes,
    parts.spread,
    parts.multiply,
    parts.gather,
    parts.combine,
    parts.store,
    cuda.gather,
    entry,
  },
}
