-- cuda_product.lua - products of the tensor core: what one takes and gives, and the loop of a warp around it.
--
--   d[16 features, 8 tokens] += a[16, k] . b[k, 8]            mma.sync m16n8k16, or k32 for numbers of 8 bits
--
--   a    a fragment of a record: a lane's words of codes, made numbers (cuda_codes) and met by scales (cuda_planes)
--   b    X from shared memory (cuda_x)
--   d    sums; where scales wait for the sums of a group (FLUSH), those of the group, and then of all. An offset waits
--        for the sums of X: those of a product whose `a` are ones
--
-- Addresses in shared memory are what the lane's `places` say, and constants.

local cuda = use "kernels/common/cuda"
local codes = use "kernels/common/cuda_codes"
local planes = use "kernels/common/cuda_planes"
local x = use "kernels/common/cuda_x"
local x_sums = use "kernels/common/cuda_x_sums"
local product = {}

local MOST = 256 -- of k, so that a sum of products of 8-bit integers is at most 2^22

-- Are integers of 8 bits multiplied? Scales must wait for sums over whole steps of 32, and a sum over all of K fit
-- 32 bits.
function product.integer(v)
  if v.act ~= "i8" or v.SCALE ~= "sum" or not cuda.integer(v.format) then return false end
  if #cuda.roles(v.format).scale == 0 and v.problem.k >= (1 << 31) // (128 * 128) then return false end
  for _, p in ipairs(v.format.planes) do if p.cols % 32 > 0 then return false end end
  return true
end

-- Do the tensor cores multiply 8-bit floats? Those of sm_90 do in wgmma only, those of sm_100 in tcgen05; there the
-- assembler would convert them.
local function has_floats(v) return v.WARPGROUPS or v.device.sm == 89 or v.device.sm // 10 == 12 end

-- The 8-bit float that holds every map(q) of codes that take no more than a permutation, else nil.
local function float_of(v)
  local m = v.format.map
  if m.kind == "float" then return cuda.float8[m.type] and m.slope == 1 and m.type or nil end
  if v.format.bits ~= 4 then return nil end
  for _, value in ipairs(m.values) do if not cuda.exact("e4m3", value) then return nil end end
  return "e4m3"
end

local function steps_of_32(v)
  for _, p in ipairs(v.format.planes) do if p.cols % 32 > 0 then return false end end
  return true
end

-- Scales wait for sums over whole steps of 32; a zero point would not leave numbers of the type.
local function floats(v)
  local r = cuda.roles(v.format)
  return cuda.float8[v.act] and has_floats(v) and v.SCALE == "sum" and not r.zero and #r.offset == 0 and steps_of_32(v)
    and float_of(v)
end

-- The tensor core itself multiplies with powers of two of a row and 32 codes. A weight that none meets as it is stored
-- (cuda.expand) has no device.
local function blocks(v)
  local p = v.format.planes
  if not cuda.float8[v.act] or not v.device or v.device.sm // 10 ~= 12 then return nil end
  if #p ~= 1 or p[1].type ~= "e8m0" or p[1].rows ~= 1 or p[1].cols ~= 32 then return nil end
  return codes.is_e2m1(v.format.map) and "e2m1" or float_of(v)
end

-- Products; the first that takes a variant's weights and X is its product. tcgen05 of sm_100 would be one more, with a
-- loop of its own; till then sm_100 has the last.
--
--   k, types, sum    of mma.sync m16n8k, as PTX spells it; $W and $X stand for the types of weights and X. Type of d
--   warpgroup        the types of wgmma; `signs` are factors of both operands and, of 16 bits, that k is the inner
--                    dimension of b. nil: there is none
--   bits             of sums that it keeps, where these are fewer than f32 has. Of 8-bit floats sm_89, and sm_90 in
--                    wgmma, keep 13 (SageAttention2, arXiv 2411.10958, and MMA-Sim, arXiv 2511.10909, measured both),
--                    sm_120 keeps 25 according to MMA-Sim alone: nothing here relies on more than 13
--   scaled           a row's scale, a power of two, goes with `a`
--   takes(v)         the type in which weights are multiplied, of format, activations, SCALE and device; nil: not taken
--
-- One of integers begins its sums over a group at the bits of 1.5 x 2^23, so that they are the last bits of a float.
local products = {
  { k = 32, types = "s32.s8.s8.s32", warpgroup = "s32.s8.s8", signs = "", sum = "int",
    takes = function(v) return product.integer(v) and "s8" end },
  { k = 32, types = "kind::mxf8f6f4.block_scale.scale_vec::1X.f32.$W.$X.f32.ue8m0", sum = "float",
    bits = 13, scaled = true, takes = function(v) return v.SCALE == "weight" and blocks(v) end },
  { k = 32, types = "f32.$W.$X.f32", warpgroup = "f32.$W.$X", signs = ", 1, 1", sum = "float", bits = 13,
    takes = floats },
  { k = 16, types = "f32.$W.$W.f32", warpgroup = "f32.$W.$W", signs = ", 1, 1, 0", sum = "float",
    takes = function(v) return cuda.half_of(v.act) end },
}

local function product_of(v)
  for _, p in ipairs(products) do
    local weights = p.takes(v)
    if weights then return p, weights end
  end
end

-- Do warpgroups multiply numbers of 8 bits?
function product.warpgroup_bytes(v)
  local p = product_of { format = v.format, act = v.act, SCALE = v.SCALE, device = v.device, problem = v.problem,
    WARPGROUPS = true }
  return p ~= nil and p.k == 32
end

-- Written into v, behind codes.derive and planes.derive; v.WARPGROUPS: they multiply, not warps.
--
--   HALF                the 16-bit type in which weights are numbers, where they are not
--   BYTE, INTEGER       of products of 8-bit numbers: the type of weights. Is it s8?
--   CONVERTS            is X of 8 bits converted, to HALF, before?
--   PRODUCT, DEPTH      the product; its steps of 16 along k. SCALED: scales go with it
--   RAW                 are they codes as they are, whose bias waits for sums of X (cuda_x_sums)?
--   TYPES, WARPGROUP    those of mma.sync, of wgmma
--   FLUSH, WEIGH        do planes wait for the sums of a group? Does anything happen to a fragment? TERMS: either
--   SUMS_X, ONES        are sums of X needed? A register of ones
--   PART, ACC           types of the sums of a group, and of all
--   FEATURE, ROWS       the first feature of a warp in its CTA, text; from one of its tiles to the next: 16 or 64
--   LAST                may a tile begin behind the padded N, where others of the warp do not?
function product.kind(v)
  local weights
  v.HALF = cuda.half_of(v.act)
  v.PRODUCT, weights = product_of(v)
  v.BYTE, v.INTEGER = v.PRODUCT.k == 32 and weights or nil, weights == "s8"
  local function spelt(names) return names and (names:gsub("%$(%u)", { W = weights, X = v.act })) end
  v.TYPES, v.WARPGROUP = spelt(v.PRODUCT.types), spelt(v.PRODUCT.warpgroup)
  v.CONVERTS = types.scaled(v.act) and not v.BYTE
  v.DEPTH, v.SCALED = v.PRODUCT.k // 16, v.PRODUCT.scaled
  v.RAW = v.WARPGROUPS and v.BYTE == "e4m3" and x_sums.serve(v)
  codes.unit(v)
end

function product.derive(v)
  v.FLUSH = v.SCALE == "sum" and #v.SCALES + #v.OFFSETS > 0
  v.SUMS_X = v.SCALE == "sum" and #v.OFFSETS > 0
  v.ONES = v.INTEGER and "0x01010101" or cuda.pair(v.HALF, 1)
  planes.unit(v)
  v.WEIGH = v.SCALE == "weight" and not v.SCALED or v.ZERO_PLANE ~= nil
  v.TERMS = v.WEIGH or v.FLUSH or v.SCALED
  v.PART = v.PRODUCT.sum
  v.ACC = v.FLUSH and "float" or v.PART
  v.FEATURE, v.ROWS = v.FEATURE or "warp % WN * TN", v.ROWS or 16
  for _, p in ipairs(v.planes) do
    if v.ROWS > 16 and v.MT > 1 and p.rows > 0 and not v.by_name[p.name] then v.LAST = true end
  end
  v.GROUP_STEPS = math.min(v.GROUP > 0 and v.GROUP or v.TK, v.TK, v.INTEGER and MOST or v.TK) // 16
end

-- What the recipe says of sums.
function product.sums(v)
  return v.PRODUCT.bits and { bits = v.PRODUCT.bits, depth = v.FLUSH and 16 * v.GROUP_STEPS or nil } or nil
end

-- ---- Rules ----------------------------------------------------------------------------------------------------------

local function rule(name, why, ok) return { name = name, why = why, ok = ok } end

local function half(v) return cuda.half_of(v.act) end

local function exact_map(v) -- does the type that multiplies hold every map(q)?
  for _, value in ipairs(v.format.map.values) do if not cuda.exact(half(v), value) then return false end end
  return true
end

product.rules = {
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
  rule("scale-weight", "a scale that is the same for a whole row is applied once, to the sum", function(v)
    local r = cuda.roles(v.format)
    return v.SCALE ~= "weight" or #r.offset > 0 or #r.scale > 0
  end),
  rule("scale-blocks", "scales that the tensor core multiplies with itself need not wait for the sum", function(v)
    return v.SCALE ~= "sum" or blocks(v) == nil
  end),
  rule("scale-rounding", "entries that the type of the product rounds must not be rounded again by a scale", function(v)
    return v.SCALE ~= "weight" or v.format.map.kind ~= "table" or exact_map(v)
  end),
  rule("scale-range", "a code times its scale could exceed the type of the product: scales wait for the sum",
    function(v)
      local m, small = v.format.map, cuda.float8[v.format.map.type]
      local most = small and small.max or m.kind ~= "float" and math.max(-m.lo, m.hi) or 0
      -- scales of checkpoints are well below 16
      return v.SCALE ~= "weight" or blocks(v) ~= nil or 16 * most <= cuda.half[half(v)].max
    end),
}

-- Do tensor cores take this problem, with scales where `scale` says, or anywhere?
function product.serves(v, scale)
  if not scale then return product.serves(v, "sum") or product.serves(v, "weight") end
  local with = { SCALE = scale, act = v.act, format = v.format, device = v.device, problem = v.problem }
  for _, r in ipairs(product.rules) do if not r.ok(with) then return false end end
  return true
end

-- Where scales must be so that numbers of 8 bits are multiplied; nil: they are not.
function product.scale_of_bytes(v)
  for _, scale in ipairs { "sum", "weight" } do
    local with = { SCALE = scale, act = v.act, format = v.format, device = v.device, problem = v.problem }
    if product.serves(v, scale) and product_of(with).k == 32 then return scale end
  end
end

-- ---- PTX ------------------------------------------------------------------------------------------------------------

function product.ptx(w, v)
  w([[
    fn u32 shared_address(const void *p) { return (u32)__cvta_generic_to_shared(p); }

    /* From shared memory. */
    fn u8 shared8(u32 p) {
      u32 d;
      asm volatile("ld.shared.u8 %0, [%1];" : "=r"(d) : "r"(p));
      return (u8)d;
    }
    fn u16 shared16(u32 p) {
      u16 d;
      asm volatile("ld.shared.u16 %0, [%1];" : "=h"(d) : "r"(p));
      return d;
    }
    fn u32 shared32(u32 p) {
      u32 d;
      asm volatile("ld.shared.u32 %0, [%1];" : "=r"(d) : "r"(p));
      return d;
    }
    fn u32x2 shared64(u32 p) {
      u32x2 d;
      asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(d.v[0]), "=r"(d.v[1]) : "r"(p));
      return d;
    }
    fn void load4(u32 p, u32 *q) { q[0] = shared32(p); }
    fn void load8(u32 p, u32 *q) {
      asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(q[0]), "=r"(q[1]) : "r"(p));
    }
    fn void load16(u32 p, u32 *q) {
      asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                   : "=r"(q[0]), "=r"(q[1]), "=r"(q[2]), "=r"(q[3]) : "r"(p));
    }

    /* d[16 features, 8 tokens] += a[16, ${K} of k] . b[${K} of k, 8]${REMARK}. */
    fn void multiply_add(${PART} *d, const u32 *a, const u32 *b${PARAMETER}) {
      asm volatile("mma.sync.aligned.m16n8k${K}.row.col.${TYPES} {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                   "{%0, %1, %2, %3}${SCALES};"
                   : "+${D}"(d[0]), "+${D}"(d[1]), "+${D}"(d[2]), "+${D}"(d[3])
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1])${OPERANDS});
    }
  ]], { K = v.PRODUCT.k, TYPES = v.TYPES, D = v.INTEGER and "r" or "f",
    REMARK = v.SCALED and " times the scales of a; those of b, all of them, are 1" or "",
    PARAMETER = v.SCALED and ", u32 scale" or "", SCALES = v.SCALED and ", %10, {0, 0}, %11, {0, 0}" or "",
    OPERANDS = v.SCALED and ', "r"(scale), "r"(0x7f7f7f7f)' or "" })
  w.blank()
end

-- ---- What a lane reads ----------------------------------------------------------------------------------------------

-- Where plane p is for the first rows of a lane: an address in the first buffer, or, where the planes of a row wait in
-- memory, a pointer.
local function plane_place(v, p)
  local staged = v.by_name[p.name]
  local base, feature = ("t.%s_at"):format(p.name), "feature"
  if staged then base = "base + " .. staged.place
  elseif p.rows == 0 then return base
  else feature = v.BN > cuda.fragment.TILE_N and "min(t.n0 + feature, t.n_padded - TN)" or "(t.n0 + feature)" end
  local at = planes.feature(p, feature, "lane / 4 * 2")
  if staged and v.WK > 1 and p.cols < v.BK then at = planes.step(p, "k_warp / 16", "BN") .. " + " .. at end
  return planes.element(p, base, at)
end

-- Ones, the first operand of a product that adds up X: as part of `places`, and their value.
function product.ones(w, v) if v.SUMS_X then w "u32 ones[4];" end end

function product.set_ones(w, v)
  if not v.SUMS_X then return end
  w("#pragma unroll")
  w("for (int i = 0; i < 4; i++) p.ones[i] = kept(${ONE});", { ONE = v.ONES })
end

-- How far from there that of the tile `i` of 16 rows lies, in the step `s` of the warp's k, text of both.
local function plane_at(v, p)
  if p.rows == 0 then return "p." .. p.name end
  local staged, at = v.by_name[p.name], ("i * %d"):format(v.ROWS * p.per // (p.rows == 16 and 16 or 1))
  if not staged and v.LAST then at = p.rows == 16 and "min(i * 64, p.left) / 16" or "min(i * 64, p.left)" end
  if staged and v.TK > p.cols // p.per then at = planes.step(p, "s", "BN") .. " + " .. at end
  return planes.element(p, "p." .. p.name .. (staged and " + buffer" or ""), at)
end

function product.places(w, v)
  local sizes = codes.loads(v)
  w.push "struct places { /* of what this lane reads, in the first buffer */"
  if v.WAYS > 0 then w "u32 x[${WAYS}];" end
  product.ones(w, v)
  for _, b in ipairs(sizes) do w("u32 w${BYTES};", { BYTES = b }) end
  for _, p in ipairs(v.planes) do
    w("${TYPE}${NAME};", { TYPE = v.by_name[p.name] and "u32 " or "const u8 *", NAME = p.name })
  end
  if v.LAST then w "int left; /* features behind the first tile */" end
  w.pop "};"
  w.blank()
  w([[
    fn places lane_places(const task &t, u32 base) {
      const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, k_warp = warp / WN * TK, feature = ${FEATURE};
      places p;
  ]])
  w.push()
  if v.WAYS > 0 then x.places(w, v) end
  product.set_ones(w, v)
  for _, b in ipairs(sizes) do
    w("p.w${BYTES} = kept(base + W_AT + feature / 16 * RUN + k_warp / 64 * RECORD + lane * ${BYTES});", { BYTES = b })
  end
  for _, p in ipairs(v.planes) do
    w(v.by_name[p.name] and "p.${NAME} = kept(${AT});" or "p.${NAME} = ${AT};",
      { NAME = p.name, AT = plane_place(v, p) })
  end
  if v.LAST then w "p.left = t.n_padded - TN - min(t.n0 + feature, t.n_padded - TN);" end
  w "return p;"
  w.pop "}"
  w.blank()
end

-- ---- The loop of a warp ---------------------------------------------------------------------------------------------

-- The sums of a group, times its scales, go to acc, and those of X, times its offsets. All rows of `sum` are equal.
local function flush(w, v)
  local zero = v.INTEGER and "MAGIC" or "0"
  local function number(sum) return v.INTEGER and ("__int_as_float(%s) - 0x1.8p23f"):format(sum) or sum end
  w([[
    if ((s + ${DEPTH}) % GROUP_STEPS == 0)
    #pragma unroll
      for (int i = 0; i < MT; i++)
    #pragma unroll
        for (int j = 0; j < NT; j++)
    #pragma unroll
          for (int e = 0; e < 4; e++) {
            acc[i][j][e] = __fmaf_rn(${SUM}, ${SCALE}, acc[i][j][e]);
            ${OFFSET}
            part[i][j][e] = ${ZERO};
          }
  ]], { SUM = number("part[i][j][e]"), SCALE = #v.SCALES > 0 and "term[i].scale[e / 2]" or "1.0f",
    OFFSET = v.SUMS_X and ("acc[i][j][e] = __fmaf_rn(%s, term[i].offset[e / 2], acc[i][j][e]);"):format(
      number("sum[j][e % 2]")) or "", ZERO = zero })
  if not v.SUMS_X then return end
  w([[
    if ((s + ${DEPTH}) % GROUP_STEPS == 0)
    #pragma unroll
      for (int j = 0; j < NT * 4; j++) sum[j / 4][j % 4] = ${ZERO};
  ]], { ZERO = zero })
end

-- multiply(): MT x NT products of 16 features, 8 tokens and TK of k. Where its operands are, a family says, by texts:
--
--   head       of the function
--   codes      what brings the codes of a step; q: those of the 16-row tile i
--   raw(p)     an element of plane p, as stored; offset: what is added to addresses of X
--   after      what ends a step
function product.loop(w, v, of)
  w(of.head)
  w.push()
  if v.TERMS and not v.KEPT then w "terms term[MT];" end
  if v.FLUSH and v.INTEGER then
    w [[
      const int MAGIC = 0x4b400000; /* zero of the sums over the group, see below */
      int part[MT][NT][4];
      #pragma unroll
      for (int i = 0; i < MT * NT * 4; i++) part[i / (NT * 4)][i / 4 % NT][i % 4] = MAGIC;
    ]]
  elseif v.FLUSH then w "float part[MT][NT][4] = {}; /* sums over the group */" end
  if v.SUMS_X then
    w([[
      ${PART} sum[NT][4]; /* of X, over the group */
      #pragma unroll
      for (int j = 0; j < NT * 4; j++) sum[j / 4][j % 4] = ${ZERO};
    ]], { ZERO = v.INTEGER and "MAGIC" or "0" })
  end
  x.declare(w, v)
  if of.declare then w(of.declare) end
  w "#pragma unroll"
  w.push "for (int s = 0; s < TK / 16; s += ${DEPTH}) { /* steps of 16 along k */"
  if of.codes then w(of.codes) end
  if v.TERMS then planes.step_terms(w, v, of.raw) end
  x.operand(w, v, of.offset)
  w([[
    #pragma unroll
    for (int i = 0; i < MT; i++) {
      u32 a[4];
      fragment(${Q}, s % 4, a);
      ${SECOND}
      ${WEIGH}
    #pragma unroll
      for (int j = 0; j < NT; j++) multiply_add(${SUM}[i][j], a, ${B}${SCALE});
    }
  ]], { SUM = v.FLUSH and "part" or "acc", Q = of.q, B = x.register(v),
    SECOND = v.DEPTH == 2 and ("fragment(%s, s %% 4 + 1, a + 2);"):format(of.q) or "",
    WEIGH = v.WEIGH and "weigh(a, term[i]);" or "", SCALE = v.SCALED and ", term[i].scale" or "" })
  if v.SUMS_X then
    w([[
      #pragma unroll
      for (int j = 0; j < NT; j++) multiply_add(sum[j], p.ones, ${B});
    ]], { B = x.register(v) })
  end
  if v.FLUSH then flush(w, v) end
  if of.after then w(of.after) end
  w.pop "}"
  w.pop "}"
  w.blank()
end

-- Text that reads plane p for tile i and step s, from a buffer.
function product.raw(v, p) return planes.argument(v, p, plane_at(v, p)) end

-- From the buffers of cuda_ring.
function product.multiply(w, v)
  product.loop(w, v, {
    head = v.KEPT and [[
      /* The warp's share of the tile in a buffer: MT x NT products of 16 features, 8 tokens and TK of k. The terms of a
       * group are read in its first tile, or the first of this CTA: one that is `fresh`. */
      fn void multiply(const places &p, const int buffer, bool fresh, terms *term, ${ACC} acc[MT][NT][4]) {
    ]] or [[
      /* The warp's share of the tile in a buffer: MT x NT products of 16 features, 8 tokens and TK of k. */
      fn void multiply(const places &p, const int buffer, ${ACC} acc[MT][NT][4]) {
    ]],
    declare = "u32 q[MT][WORDS];",
    codes = [[
      if (s % 4 == 0)
      #pragma unroll
        for (int i = 0; i < MT; i++) load_codes(p, buffer + i * RUN + s / 4 * RECORD, q[i]);
    ]],
    q = "q[i]", offset = " + buffer",
    raw = function(p) return product.raw(v, p) end,
  })
end

-- Scales of a row, and the unit of sums, once, at the end: for gather().
function product.row_scales(w, v)
  if #v.ROW_SCALES == 0 and v.UNIT == 1 then return end
  local list = {}
  for i, name in ipairs(v.ROW_SCALES) do list[i] = v.planes[name] end
  w "#pragma unroll"
  w.push "for (int i = 0; i < MT; i++) {"
  planes.declare(w, v, list, function(p) return product.raw(v, p) end)
  w([[
    #pragma unroll
    for (int j = 0; j < NT; j++)
    #pragma unroll
      for (int e = 0; e < 4; e++) acc[i][j][e] *= ${SCALE};
  ]], { SCALE = planes.product(v, v.ROW_SCALES, v.UNIT, "e / 2") })
  w.pop "}"
end

return product
