-- cuda.gemv - few tokens without tensor cores: every weight is read once, by one lane, and met there by all tokens.
--
--   Y[m,n] = sum over k of X[m,k] * W[n,k]
--
--               k -->    chunk 0   chunk 1   chunk 2        a CTA makes 16 features of MB tokens
--             +---------------------------------+
--   16        |  warp 0  | warp 1  |  ...  | warp 0  ...    its warps take the chunks of K in turn, UNROLL loads at
--   features  |          |         |       |                once, and add up in order through shared memory at the end
--             +---------------------------------+
--
--   X[m,k]   row-major, read through L1; lanes of equal t = lane % 4 read the same. For a weight in act-order it is
--            gathered as it is read: column j of W meets X[m, perm[j]]
--   W[n,k]   chunk (n / 16, k / 64), see templates/layouts/cuda_fragment.lua: a lane has two rows (g, g + 8;
--            g = lane / 4) and four values of k of each of four fragments (2t, 2t + 1, and these + 8; four neighbours
--            where X has 8 bits)
--   Y[m,n]   row-major
--
--   With W = map(q) x scale + offset: Y += scale x sum(map(q) x) + offset x sum(x), group by group; or, where groups
--   are finer than 16 of k, weight by weight. For activations of 8 bits times x_scale[m] at the end.
--
--   parameter  meaning                                   bound by
--   WARPS      warps that share K                        threads of a CTA
--   UNROLL     records a warp has under way              registers
--   MB         tokens of a CTA                           registers: 4 MB sums
--
-- Source: one warp per rows and direct loads in fragment order as in PyTorch's tinygemm; splitting K over the warps of
-- a CTA as in llama.cpp's mmvq.

local cuda = use "kernels/common/cuda"
local codes = use "kernels/common/cuda_codes"
local planes = use "kernels/common/cuda_planes"
local dot = use "kernels/common/cuda_dot"
local tensor = use "kernels/common/cuda_product"

-- The 16-bit type that holds map(q).
local function half_type(v)
  local m = v.format.map
  return m.kind == "float" and m.type == "bf16" and "bf16" or "f16"
end

local function registers(v)
  local elements = cuda.fragment.fine(v.format) and 16 or 2 -- of a plane
  return 4 * v.MB + v.UNROLL * v.format.bits + 6 * v.MB + elements * #v.format.planes + 48
end

-- Beside what codes.derive and planes.derive write into v:
--
--   HALF, SCALE             the 16-bit type of map(q), and that scales wait for sums
--   XT, X_SIZE              type of X, and bytes of an element
--   THREADS                 of a CTA
--   SUM_SCALE, SUM_OFFSET   planes that meet sums of a group; none where each weight meets its own (FINE)
--   GROUP_STEPS             steps of 16 along k after which sums meet them
--   TOTAL, TOTAL_PARAMETER, PASS_TOTAL   the sum of X over all of K, where an offset of the row multiplies it:
--                           declared, as a parameter, passed on
--   MIN_BLOCKS, PRECISION   CTAs of a multiprocessor; a line of the head comment
local function derive(v)
  v.HALF, v.SCALE = half_type(v), "sum"
  v.XT, v.EXTRA = cuda.ctype[v.act], cuda.extra_declared(v)
  v.X_SIZE = types.all[v.act].bytes
  v.THREADS = 32 * v.WARPS
  v.layout = cuda.fragment.layout(v.format, v.act)
  codes.derive(v)
  v.CODE_UNIT = 1
  planes.derive(v)
  v.SUM_SCALE, v.SUM_OFFSET = v.FINE and {} or v.format.scale, v.FINE and {} or v.format.offset
  v.GROUP_STEPS = v.GROUPED and math.min(v.GROUP, 64) // 16 or 4
  local total = #v.SUM_OFFSET > 0 and not v.GROUPED
  v.TOTAL = total and "float total[MB] = {}; /* of X */" or ""
  v.TOTAL_PARAMETER, v.PASS_TOTAL = total and ", float *total" or "", total and ", total" or ""
  v.MIN_BLOCKS = cuda.min_blocks(v, registers(v), v.THREADS)
  v.PRECISION = planes.precision(v)
end

local function rule(name, why, ok) return { name = name, why = why, ok = ok } end

local rules = {
  rule("device", "NVRTC compiles for sm_75 and later", function(v) return v.device.sm >= 75 end),
  rule("decode", "from sm_80 on cuda.decode takes what tensor cores multiply",
    function(v) return not tensor.serves(v) end),
  cuda.rules.act,
  cuda.range_rule(half_type),
  rule("slope", "codes that are floats have no scale in their code map", function(v)
    return v.format.map.kind ~= "float" or v.format.map.slope == 1
  end),
  rule("registers", "sums, codes and X need more registers than a thread has",
    function(v) return registers(v) <= 200 end),
  rule("residency", "a multiprocessor holds too few such CTAs to hide memory", function(v)
    return registers(v) * v.WARPS * 32 <= (v.device.regs or 65536)
  end),
  rule("flight", "half a kilobyte to a kilobyte under way per warp is enough, and a quarter too little", function(v)
    local bytes = v.UNROLL * 4 * v.format.bits
    return v.UNROLL == 1 and bytes >= 64 or bytes >= 16 and bytes <= 64
  end),
}

-- ---- Source ---------------------------------------------------------------------------------------------------------

local function constants(w, v)
  w([[
    enum {
      WARPS = ${WARPS}, /* that share K */
      UNROLL = ${UNROLL}, /* records a warp has under way */
      MB = ${MB}, /* tokens */
      THREADS = 32 * WARPS,
      WORDS = ${WORDS}, /* 32-bit words of a record in a lane */
      RECORD = ${RECORD}, /* bytes of a record */
      GROUP_STEPS = ${GROUP_STEPS}, /* steps of 16 that share scales */
    };

    struct task { /* what this lane works on */
      const ${XT} *row[MB]; /* of X; beyond the last row, the last */
      const int *perm; /* NULL: X is in the order of the columns of W */
      ${MEMBERS}
      int n_padded, k;
      ${RECORDS}
      int feature;        /* the first of this lane, as planes count */
      int g, t;
    };
  ]], { MEMBERS = planes.members(v),
    RECORDS = v.FINE and "i64 records; /* before those of this CTA */" or "" })
  w.blank()
end

local function entry(w, v)
  w([[
    extern "C" __global__ void __launch_bounds__(THREADS, ${MIN_BLOCKS})
    ${entry}(const ${XT} *x, const u8 *w, ${YT} *y, const int *perm, ${EXTRA}int m, int n, int k, int ldx, int ldy) {
      __shared__ float out[WARPS][MB][16];
      __shared__ __align__(4) ${XT} gathered[WARPS][MB][64];
      const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
      const int blocks = (m + MB - 1) / MB, m0 = blockIdx.x % blocks * MB, column = blockIdx.x / blocks;
      const int records = (k + 64 - 1) / 64;
      const int k_padded = (k + ${TILE_K} - 1) / ${TILE_K} * ${TILE_K};
      const u8 *column_at = w + (i64)column * (k_padded / 64) * RECORD;
      const bool words = !perm && ldx % ${PER_WORD} == 0 && (u64)x % 4 == 0;
      task t;
    #pragma unroll
      for (int i = 0; i < MB; i++) t.row[i] = x + (i64)min(m0 + i, m - 1) * ldx;
      t.n_padded = (n + ${TILE_N} - 1) / ${TILE_N} * ${TILE_N}, t.k = k, t.perm = perm, t.g = lane / 4, t.t = lane % 4;
      t.feature = column * 16 + t.g * 2;
      ${RECORDS}
      ${POINTERS}

      float acc[MB][2] = {};
      ${TOTAL}
      int c = warp;
      if (words)
        for (const int whole = k / 64; c + (UNROLL - 1) * WARPS < whole; c += UNROLL * WARPS)
          add_records(t, c, column_at, acc${PASS_TOTAL});
      for (; c < records; c += UNROLL * WARPS)
        add_gathered(t, c, records, column_at, gathered[warp], acc${PASS_TOTAL});
  ]], { YT = cuda.ctype[v.out], PER_WORD = 4 // v.X_SIZE, TILE_N = v.layout.tile[1], TILE_K = v.layout.tile[2],
    POINTERS = planes.pointers(v), RECORDS = v.FINE and "t.records = (i64)column * (k_padded / 64);" or "" })
  w.push()
  if not v.GROUPED and not v.FINE and #v.format.planes > 0 then
    w.push "{ /* scales of a row */"
    dot.scale(w, v, "acc", "total")
    w.pop "}"
  end
  dot.output(w, v)
  w.pop "}"
end

local function launch(v)
  local args = { "x", "w", "y", "perm" }
  for _, x in ipairs(cuda.extra(v)) do args[#args + 1] = x[1] end
  table.move({ "m", "n", "k", "ldx", "ldy" }, 1, 5, #args + 1, args)
  return { steps = { { args = args, grid = { ceildiv(M, v.MB) * ceildiv(N, 16) }, block = { v.THREADS } } },
    deterministic = true, batch_invariant = true }
end

return kernel {
  name = "cuda.gemv",
  target = "cuda",
  doc = "few tokens on CUDA cores, f32 products",
  source = "tinygemm (PyTorch), mmvq (llama.cpp)",
  params = {
    { name = "WARPS", values = { 2, 4, 8, 16 }, quick = { 4, 8 }, doc = "warps that share K", short = "w" },
    { name = "UNROLL", values = { 1, 2, 4, 8 }, doc = "records under way in a warp", short = "u" },
    { name = "MB", values = { 1, 2, 4, 8 }, quick = { 1, 4 }, doc = "tokens of a CTA" },
  },
  rules = rules,
  derive = derive,
  layout = function(v) return v.layout end,
  launch = launch,
  m = function(v) return 1, 8, v.MB end,
  cost = function(v) return v.WARPS * v.MB end,
  outline = {
    cuda.head,
    constants,
    cuda.helpers,
    codes.stream,
    codes.load,
    function(w, v) if v.format.bits < 32 then codes.fragment(w, v) end end,
    planes.conversions,
    dot.values,
    dot.record,
    dot.records,
    entry,
  },
}
