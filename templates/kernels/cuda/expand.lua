-- cuda.expand - many tokens: the weight is dequantized once, into scratch, and the dense product reads it there.
--
--   D[n,k] = T(dequant(W)[n,k])                           T: the type of the activations, f16 if they have 8 bits
--   Y[m,n] = sum over k of X[m,k] * D[n,k]                cuda.mma for a dense format, whose weights are D
--
--        W                             D: 2 N K bytes of scratch            Y
--      +--------------------------+   +------------------------------+   +-----+
--      | record | record | ...    |-->| record | record | ...        |-->|     |
--      +--------------------------+   +------------------------------+   +-----+
--        expand: a warp takes           product: as in cuda.mma
--        a record, in registers
--
--   W[n,k]   chunk (n / 16, k / 64), see templates/layouts/cuda_fragment.lua, as in cuda.mma and cuda.gemv
--   D[n,k]   the same fragments, of 512 bytes, 16 of a lane: number (n / 16) * (K / 16) + k / 16: that layout, too
--   X, Y     as in cuda.mma
--
--   parameter  meaning                               bound by
--   BM         tokens of a CTA of the product        accumulators
--   STAGES     buffers of the product                shared memory
--
-- Source: dequantizing to a dense matrix from some number of tokens on is what exllamav2 and bitsandbytes do.

local cuda = use "kernels/common/cuda"
local codes = use "kernels/common/cuda_codes"
local planes = use "kernels/common/cuda_planes"
local mma = use "kernels/cuda/mma"

local WARPS = 8 -- of a CTA of `expand`; each takes a record: a tile of the layout has as many

-- The variant of cuda.mma that multiplies with D.
local function product(v)
  if v.product then return v.product end
  local d = { def = mma, problem = v.problem, device = v.device, act = v.act, out = v.out,
    entry = v.entry .. "_product", BM = v.BM, BN = 128, BK = 64, WN = v.BM // 16,
    STAGES = v.STAGES, SCALE = "sum", SPLIT = 1 }
  local half = cuda.half_of(v.act)
  d.format = { name = half, bits = 16, planes = {}, scale = {}, offset = {},
    map = { kind = "float", type = half, slope = 1 } }
  v.product = d
  return d
end

-- Factors of a row belong to the weight here, like all others.
local function factors(v)
  local rows = v.ROW_SCALES
  local function with_rows(names)
    local out = { table.unpack(names) }
    return table.move(rows, 1, #rows, #out + 1, out)
  end
  local offsets = {}
  for i, term in ipairs(v.OFFSETS) do
    offsets[i] = { coefficient = term.coefficient, planes = with_rows(term.planes) }
  end
  v.SCALES, v.OFFSETS, v.ROW_SCALES = with_rows(v.SCALES), offsets, {}
end

local function derive(v)
  v.HALF, v.SCALE = cuda.half_of(v.act), "weight"
  v.WARPS = WARPS
  v.layout = cuda.fragment.layout(v.format, v.act)
  codes.derive(v)
  v.CODE_UNIT = 1
  planes.derive(v)
  factors(v)
  v.TERMS = #v.planes > 0 and not v.FINE
  v.PRECISION = planes.precision(v)
  mma.derive(product(v))
end

local function rule(name, why, ok) return { name = name, why = why, ok = ok } end

local rules = {
  rule("dense", "a weight of 16 bits or more is read where it lies, by cuda.mma",
    function(v) return v.format.bits < 16 end),
  cuda.rules.act,
  cuda.range_rule(function(v) return cuda.half_of(v.act) end),
}
for _, r in ipairs(mma.rules) do -- what the product asks for, and what scales on weights ask for
  local weight = r.name:match "^scale%-r"
  rules[#rules + 1] = rule(r.name, r.why, function(v)
    if not weight then return r.ok(product(v)) end
    return r.ok { SCALE = "weight", act = v.act, format = v.format }
  end)
end

-- ---- Source ---------------------------------------------------------------------------------------------------------

local fine = [[
  float value[8];
  #pragma unroll
  for (int r = 0; r < 4; r++) value[2 * r] = low(a.v[r]), value[2 * r + 1] = high(a.v[r]);
  weigh(t, record, f, lane, value);
  #pragma unroll
  for (int r = 0; r < 4; r++) a.v[r] = pack2(value[2 * r], value[2 * r + 1]);]]

local function expand(w, v)
  local at = {}
  for i, p in ipairs(v.TERMS and planes.met(v) or {}) do at[i] = planes.argument(v, p, planes.of_lane(p)) end
  w([[
    /* A warp dequantizes a record of W into the record of D in its place. */
    extern "C" __global__ void __launch_bounds__(32 * WARPS)
    ${entry}_expand(const u8 *w, u8 *scratch, int n, int k) {
      const int lane = threadIdx.x % 32, k_padded = (k + ${TILE_K} - 1) / ${TILE_K} * ${TILE_K};
      const int columns = k_padded / 64; /* records of K */
      task t;
      t.n_padded = (n + ${TILE_N} - 1) / ${TILE_N} * ${TILE_N};
      ${POINTERS}
      const i64 record = (i64)blockIdx.x * WARPS + threadIdx.x / 32;
      t.feature = (int)(record / columns) * 16 + lane / 4 * 2;
      u32 q[WORDS];
      load_codes(w + record * RECORD, lane, q);
    #pragma unroll
      for (int f = 0; f < 4; f++) {
        const int step = (int)(record % columns) * 4 + f;
        u32x4 a;
        fragment(q, f, a.v);
        ${WEIGH}
        *(u32x4 *)(scratch + (record / columns * (k_padded / 16) + step) * 512 + lane * 16) = a;
      }
    }
  ]], { TILE_N = v.layout.tile[1], TILE_K = v.layout.tile[2], POINTERS = planes.pointers(v),
    WEIGH = v.FINE and fine or v.TERMS and ("weigh(a.v, terms_of(%s));"):format(table.concat(at, ",\n")) or "" })
end

local function dequantize(w, v)
  w "namespace dequantize {"
  w.blank()
  w([[
    enum {
      WARPS = ${WARPS}, /* of a CTA */
      WORDS = ${WORDS}, /* 32-bit words of a record in a lane */
      RECORD = ${RECORD}, /* bytes of a record */
    };

    struct task {
      ${MEMBERS}
      int n_padded, feature; /* the first of this lane, as planes count */
    };
  ]], { MEMBERS = planes.members(v) })
  w.blank()
  for _, section in ipairs { codes.stream, codes.load, codes.fragment, planes.conversions, planes.terms,
    expand } do section(w, v) end
  w "}"
  w.blank()
end

local common = { [cuda.head] = true, [cuda.helpers] = true, [cuda.pack2] = true, [cuda.gather] = true }

local function multiply(w, v)
  w "namespace product {"
  w.blank()
  w.with(product(v), function()
    for _, section in ipairs(mma.outline) do if not common[section] then section(w, product(v)) end end
  end)
  w "}"
end

-- ---- Launch ---------------------------------------------------------------------------------------------------------

local function launch(v)
  local tile = v.layout.tile
  local records = ceildiv(N, tile[1]) * ceildiv(K, tile[2]) * (tile[1] * tile[2] // 1024)
  local step = mma.launch(product(v)).steps[2]
  step.entry = product(v).entry
  for i, name in ipairs(step.args) do step.args[i] = name == "w" and "scratch" or name end
  assert(tile[1] * tile[2] == WARPS * 1024)
  local before = { entry = v.entry .. "_expand", args = { "w", "scratch", "n", "k" },
    grid = { ceildiv(records, WARPS) }, block = { 32 * WARPS } }
  return { steps = { cuda.gather_step(v), before, step }, scratch = records * 2048, deterministic = true,
    batch_invariant = true }
end

return kernel {
  name = "cuda.expand",
  target = "cuda",
  doc = "weights dequantized into scratch, then the dense product",
  source = "exllamav2, bitsandbytes",
  params = {
    { name = "BM", values = { 64, 128 }, quick = { 128 }, doc = "tokens of a tile" },
    { name = "STAGES", values = { 3, 4 }, quick = { 3 }, doc = "buffers", short = "s" },
  },
  rules = rules,
  derive = derive,
  layout = function(v) return v.layout end,
  launch = launch,
  -- finer groups have no other kernel for many
  m = function(v) return cuda.fragment.fine(v.format) and 1 or 65, 0, v.BM end,
  cost = function(v) return product(v).SMEM end,
  outline = { cuda.head, cuda.helpers, cuda.pack2, cuda.gather, dequantize, multiply },
}
