-- cuda.expand - many tokens: the weight is dequantized once, into scratch, and the dense product reads it there.
--
--   D[n,k] = T(dequant(W)[n,k])                           T: the type of the activations, f16 if they have 8 bits
--   Y[m,n] = sum over k of X[m,k] * D[n,k]                cuda.mma or cuda.wgmma of a dense format: D are its weights
--
--        W                             D: 2 N K bytes of scratch            Y
--      +--------------------------+   +------------------------------+   +-----+
--      | record | record | ...    |-->| record | record | ...        |-->|     |
--      +--------------------------+   +------------------------------+   +-----+
--        expand: a warp takes           product: of warpgroups on
--        a record, in registers         sm_90a, else of warps
--
--   W[n,k]   chunk (n / 16, k / 64), see templates/layouts/cuda_fragment.lua, as in all families
--   D[n,k]   the same fragments, of 512 bytes, 16 of a lane: number (n / 16) * (K / 16) + k / 16: that layout, too
--   X[m,k]   as in the product. For a weight in act-order the CTAs of `expand` put rows of X in order, into scratch
--   Y[m,n]   as in the product
--
--   parameter  meaning                               bound by
--   BM         tokens of a CTA of the product        accumulators
--   TOGETHER   CTAs of it that load X together       only warpgroups can
--
-- The product has as many buffers as there is room for.
--
-- Source: dequantizing to a dense matrix from some number of tokens on is what exllamav2 and bitsandbytes do.

local cuda = use "kernels/common/cuda"
local codes = use "kernels/common/cuda_codes"
local planes = use "kernels/common/cuda_planes"
local gather = use "kernels/common/cuda_gather"
local mma, wgmma = use "kernels/cuda/mma", use "kernels/cuda/wgmma"

local WARPS = 8 -- of a CTA of `expand`; each takes a record: a tile of the layout has as many

-- The variant of another family that multiplies with D. Its tiles have 128 features, or 256 where there are registers.
local function product(v)
  if v.product then return v.product end
  local half, groups = cuda.half_of(v.act), v.device.arch:match "_90a$" and not types.scaled(v.act)
  local d = { def = groups and wgmma or mma, problem = v.problem, device = v.device, act = v.act, out = v.out,
    entry = v.entry .. "_product", BM = v.BM, SCALE = "sum", SPLIT = 1, TOGETHER = v.TOGETHER, GRID = "tiles" }
  d.format = { name = half, bits = 16, planes = {}, scale = {}, offset = {},
    map = { kind = "float", type = half, slope = 1 } }
  if groups then d.MT = 256 // v.BM
  else
    d.BN, d.BK, d.WN = 128, 64, v.BM // 16
    d.STAGES = (v.BM + d.BN) * d.BK * 2 * 4 <= v.device.smem and 4 or 3
  end
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
  product(v).def.derive(product(v))
  v.XT, v.PDL = cuda.ctype[v.act], product(v).PDL -- for its helpers: the product itself waits for all of D
end

local function rule(name, why, ok) return { name = name, why = why, ok = ok } end

local rules = {
  rule("dense", "a weight of 16 bits or more is read where it lies, by cuda.mma",
    function(v) return v.format.bits < 16 end),
  cuda.rules.act,
  cuda.range_rule(function(v) return cuda.half_of(v.act) end),
  rule("together", "only warpgroups load X together",
    function(v) return v.TOGETHER == 1 or product(v).def == wgmma end),
  rule("product", "neither cuda.mma nor cuda.wgmma has such a dense product", function(v)
    for _, r in ipairs(product(v).def.rules) do if not r.ok(product(v)) then return false end end
    return true
  end),
}
for _, r in ipairs(mma.rules) do -- of scales on weights
  if r.name:match "^scale%-r" then
    rules[#rules + 1] = rule(r.name, r.why,
      function(v) return r.ok { SCALE = "weight", act = v.act, format = v.format } end)
  end
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
  w([=[
    /* Y[m,j] = X[m, perm[j]]: rows of X in the order of the columns of W; CTAs take them in turn. */
    fn void gather(const ${XT} *x, const int *perm, ${XT} *y, int m, int k, int ldx) {
      for (int row = blockIdx.x; row < m; row += gridDim.x)
    #pragma unroll 4
        for (int j = threadIdx.x; j < k; j += 32 * WARPS) y[(i64)row * k + j] = x[(i64)row * ldx + perm[j]];
    }

    /* A warp dequantizes a record of W into the record of D in its place. Of a weight in act-order X is gathered. */
    extern "C" __global__ void __launch_bounds__(32 * WARPS)
    ${entry}_expand(const ${XT} *x, const u8 *w, ${XT} *y, const int *perm, u8 *scratch, int m, int n, int k, int ldx) {
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
      if (perm) gather(x, perm, y, m, k, ldx);
    }
  ]=], { TILE_N = v.layout.tile[1], TILE_K = v.layout.tile[2], POINTERS = planes.pointers(v),
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

local common = { [cuda.head] = true, [cuda.helpers] = true, [cuda.pack2] = true, [gather.kernel] = true }

local function multiply(w, v)
  w "namespace product {"
  w.blank()
  w.with(product(v), function()
    for _, section in ipairs(product(v).def.outline) do if not common[section] then section(w, product(v)) end end
  end)
  w "}"
end

-- ---- Launch ---------------------------------------------------------------------------------------------------------

local function launch(v)
  local tile = v.layout.tile
  local records = ceildiv(N, tile[1]) * ceildiv(K, tile[2]) * (tile[1] * tile[2] // 1024)
  local step = product(v).def.launch(product(v)).steps[2]
  step.entry = product(v).entry
  for i, arg in ipairs(step.args) do
    local map = type(arg) == "table" and arg.tensor_map
    if arg == "w" then step.args[i] = "scratch" end
    if map and map.operand == "w" then map.operand = "scratch" end
  end
  assert(tile[1] * tile[2] == WARPS * 1024)
  local before = { entry = v.entry .. "_expand", args = { "x", "w", "y", "perm", "scratch", "m", "n", "k", "ldx" },
    grid = { ceildiv(records, WARPS) }, block = { 32 * WARPS }, gathers = M * K * types.all[v.act].bytes }
  return { steps = { before, step }, scratch = records * 2048, deterministic = true, batch_invariant = true }
end

return kernel {
  name = "cuda.expand",
  target = "cuda",
  doc = "weights dequantized into scratch, then the dense product",
  source = "exllamav2, bitsandbytes",
  params = {
    { name = "BM", values = { 64, 128, 256 }, quick = { 128, 256 }, doc = "tokens of a tile" },
    { name = "TOGETHER", values = { 1, 2 }, doc = "CTAs that load X together", short = "c" },
  },
  rules = rules,
  derive = derive,
  layout = function(v) return v.layout end,
  launch = launch,
  -- finer groups have no other kernel for many
  m = function(v) return cuda.fragment.fine(v.format) and 1 or 65, 0, v.BM end,
  cost = function(v) return product(v).SMEM end,
  outline = { cuda.head, cuda.helpers, cuda.pack2, dequantize, multiply },
}
