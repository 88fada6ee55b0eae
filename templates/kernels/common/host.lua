-- host.lua - what the host families share: arithmetic by activation type, layouts, and the hooks of a format.
--
-- Arithmetic.  A vector has LANES columns (16 with AVX-512, 8 with AVX2, else 4); a column's 32-bit lane holds the
-- codes of V values of k:
--
--   activations   V   AVX-512              NEON                AVX2                      C
--   f32           1   f32 (fma)            f32 (fmla)          f32 (fma)                 f32
--   bf16          2   bf16 (vdpbf16ps)     bf16 (bfdot)        f32 (fma)                 f32
--   e4m3          2   as bf16, which holds it, or f32
--   i8            4   u8 x i8 (vpdpbusd)   i8 x i8 (sdot)      u8 x i8 (vpmaddubsw)      f32, exactly
--
-- Products are exact, and with i8 the sums of a group. Sums in f32 are rounded. Where bf16 is multiplied, the numbers
-- of a code map are rounded to it.
--
-- With W = map(q) x scale + offset, the sum over a group is scale x sum(map(q) x) + offset x sum(x), where scale and
-- offset are products of planes. The group is the finest that a plane has; coarser planes are constant over several of
-- them. The sums of x are made once per call, by the step before the product (host_x.lua).
--
-- How codes lie in memory: templates/layouts/host_panel.lua.

local layouts = use "layouts/host_panel"
local epilogue = use "kernels/common/epilogue"
local literals = use "kernels/common/literals"
local host = {}

-- Instruction sets, each better than the one before where a CPU has both. An entry (kernels/isa/*) says:
--
--   lanes       columns of a vector          registers   of vectors
--   sets        what the CPU must have, as gcc names it; beyond that by product and by output: products, stores
--   flags       flags(sets): for the compiler                    header    that the source includes
--   at_once     function(v, V): how many of the V values of k in a lane one instruction multiplies; 1: each, in f32
--   prefetch    is it worth trying to prefetch?
--
-- and has the hooks that host_tile.lua calls.
local isas = { "c", "avx2", "avx512", "neon" }
for _, name in ipairs(isas) do isas[name] = use("kernels/isa/" .. name) end

local arithmetic = {
  f32 = { V = 1, lane = 32 },
  bf16 = { V = 2, lane = 16 },
  i8 = { V = 4, lane = 8 },
}
-- Those of 8 bits that are floats, as bf16.
for _, name in ipairs(types.those(function(t) return t.act == "scaled" and t.kind == "float" end)) do
  arithmetic[name] = { V = 2, lane = 16, product = "bf16" }
end

-- Element types in C: narrow floats are their bits.
host.ctype = {}
for name, t in pairs(types.all) do
  host.ctype[name] = name == "f32" and "float" or (t.kind == "signed" and "int%d_t" or "uint%d_t"):format(t.bits)
end

local function small_float(name)
  local t = types.all[name]
  return t.kind == "float" and t.bits == 8 and t or nil
end

-- The value of an element %s of X, as text.
local function value(type)
  if type == "f32" or type == "i8" then return "%s" end
  return ({ bf16 = "from_bf16(%s)", f16 = "from_half(%s)" })[type] or "from_fp8(%s)"
end

-- Types of planes that the hooks load.
local loaded = { f32 = true, f16 = true, bf16 = true, e4m3 = true, e5m2 = true, e8m0 = true, u8 = true, i8 = true }

local usual_group = 128                                     -- where scales are per row, or groups very long
local longest_group, longest_record = 256, 4096

-- What lists have between them, sorted.
local function union(lists)
  local out = {}
  for _, list in pairs(lists) do
    for _, x in ipairs(list) do
      if not out[x] then out[#out + 1], out[x] = x, true end
    end
  end
  table.sort(out)
  return out
end

function host.isa(v) return isas[v.ISA] end

local function product(v) return arithmetic[v.act].product or v.act end

-- Instruction sets of a variant, sorted, as gcc names them.
function host.sets(v)
  local isa = host.isa(v)
  return union { isa.sets, isa.products[product(v)] or {}, isa.stores[v.out] or {} }
end

local function has(device, sets)
  for _, s in ipairs(sets) do if not device.isa[s] then return false end end
  return true
end

-- Vectors of a tile's sums.
function host.tile_sums(v) return v.MR * v.NR // host.isa(v).lanes end

-- Values of k that one instruction multiplies, and instructions that multiply a lane.
local function at_once(v) return host.isa(v).at_once(v, arithmetic[v.act].V) end
function host.lane_products(v) return arithmetic[v.act].V // at_once(v) end

-- The machine's name and its sets, sorted: portable C is compiled for one machine, too.
function host.arch(v) return table.concat(union { { v.device.arch:match "%S+" }, host.sets(v) }, " ") end

function host.flags(v) return v.isa.flags(host.sets(v)) end

-- What a quick search tries: the best instruction set that a device has in full, and better ones that it has in part,
-- for the problems that those take.
local function best(device)
  local out = {}
  for i = #isas, 1, -1 do
    local isa = isas[isas[i]]
    if has(device, isa.sets) then table.insert(out, 1, isas[i]) end
    if has(device, union { isa.sets, union(isa.products), union(isa.stores) }) then return out end
  end
end

-- Values that suit what the registers of the best hold.
function host.quick(wide, narrow)
  return function(device)
    local isa = isas[best(device)[1]]
    return isa.lanes * isa.registers >= 512 and wide or narrow
  end
end

-- A family's parameters: those that all have, so that one packed weight serves them, and its own.
function host.params(own)
  return {
    { name = "ISA", values = { table.unpack(isas) }, quick = best,
      doc = "instruction set", short = "" },
    { name = "NR", values = { 16, 32, 64 }, quick = host.quick({ 32, 64 }, { 16, 32 }), doc = "columns of a panel" },
    { name = "LAYOUT", values = { "record", "split" }, doc = "scales between the codes, or apart", short = "" },
    table.unpack(own),
  }
end

-- ---- Groups ---------------------------------------------------------------------------------------------------------

local function gcd(a, b) return b == 0 and a or gcd(b, a % b) end

-- Steps of V values of k to a block: as many as the narrowest slice has in a vector.
function host.steps(v)
  local slices = layout.slices(v.format.bits)
  return 32 // slices[#slices].bits // arithmetic[v.act].V
end

-- Values of k of the finest group of a plane; 0: of the whole row.
local function finest_group(v)
  local group = 0
  for _, p in ipairs(v.format.planes) do
    if p.cols > 0 then group = group > 0 and math.min(group, p.cols) or p.cols end
  end
  return group
end

-- Values of k that are summed before they are scaled: the finest group of a plane. Very long ones are cut.
function host.group(v)
  local group = finest_group(v)
  return (group == 0 or group > longest_group and group % usual_group == 0) and usual_group or group
end

-- Values of k of a record: whole groups and whole blocks.
function host.record(v)
  local group, block = host.group(v), host.steps(v) * arithmetic[v.act].V
  return group // gcd(group, block) * block
end

-- ---- Rules that both families have ----------------------------------------------------------------------------------

host.rules = {
  { name = "act", why = ("host kernels take %s activations"):format(types.words(targets.acts "host")),
    ok = function(v) return targets.takes("host", v.act) end },
  { name = "isa", why = "this CPU does not have the instruction set",
    ok = function(v) return has(v.device, host.sets(v)) end },
  { name = "i8-map",
    why = "int8 dot products need codes that mean integers, or a table of at most 64 numbers that are n / 2^i "
      .. "with n in -128 .. 127",
    ok = function(v)
      local m = v.format.map
      if v.act ~= "i8" or m.kind == "int" then return true end
      return m.kind == "table" and m.unit and v.format.bits <= 6 and m.lo >= -128 * m.unit and m.hi <= 127 * m.unit
    end },
  { name = "float-code",
    why = "codes that are floats keep their precision: f32 and f16 weights need f32 activations, "
      .. "bf16, e4m3 and e5m2 ones f32, bf16 or e4m3",
    ok = function(v)
      local m = v.format.map
      return m.kind ~= "float" or m.slope == 1 and types.holds(product(v), m.type)
    end },
  { name = "plane-type",
    why = "a plane has a type without a loader (f32, f16, bf16, e4m3, e5m2, e8m0 and integers of 8 bits have one)",
    ok = function(v)
      for _, p in ipairs(v.format.planes) do if not loaded[p.type] then return false end end
      return true
    end },
  { name = "pairs",
    why = "bf16 and e4m3 are multiplied two values of k at a time, i8 four: all of them must be of one group",
    ok = function(v) return host.group(v) % arithmetic[v.act].V == 0 end },
  { name = "granularity",
    why = "each coarser group along K must hold whole records of the finest one, of at most 4096 values of k",
    ok = function(v)
      local group, record = host.group(v), host.record(v)
      for _, p in ipairs(v.format.planes) do
        if p.cols ~= 0 and p.cols ~= group and p.cols % record ~= 0 then return false end
      end
      return record <= longest_record
    end },
  { name = "i8-exact",
    why = "without int8 instructions the sums are floats, and a group this long could exceed their 24 bits",
    ok = function(v)
      local m = v.format.map
      local most = v.act == "i8" and at_once(v) == 1 and math.max(-m.lo, m.hi) / m.unit or 0
      return most * 128 * host.group(v) <= 1 << 24
    end },
  { name = "layout", why = "records interleave scales with codes, which needs a scale per group",
    ok = function(v)
      local some = v.LAYOUT == "split"
      for _, p in ipairs(v.format.planes) do some = some or p.cols == host.group(v) end
      return some
    end },
}

-- ---- Sizes ----------------------------------------------------------------------------------------------------------

-- What follows from the problem and the parameters ISA, NR (panel width), LAYOUT; written into v. Its instruction set's
-- prepare(v) adds:
--
--   loose       may the bits above a code be anything? (a look-up ignores them)
--   FILLED      type of an element of X where it is multiplied; FILL, how it becomes that: an expression of element %s
--   ADDED       what codes have more than they mean, which is taken away again where the sums over a group begin
--   CHAIN       steps after which a sum must be settled: a multiple or a divisor of STEPS (none: never)
function host.derive(v)
  local isa, a = host.isa(v), arithmetic[v.act]
  v.isa = isa
  v.V, v.LANE = a.V, a.lane                               -- k values of a 32-bit lane, bits of each
  v.XT, v.VALUE = host.ctype[v.act], value(v.act)         -- type of x, and an element %s as a number
  v.GIVEN, v.GIVEN_VALUE = host.ctype[v.problem.x], value(v.problem.x) -- the same of X as it is given
  v.PRODUCT = product(v)                                  -- what is multiplied
  v.ROUNDED = v.problem.x ~= v.act                        -- is X rounded first? Then by groups of so many (0: by rows)
    and { group = finest_group(v) } or nil
  v.FACTOR = types.scaled(v.act)                          -- of row `at` of x, behind the sums
    and (not v.ROUNDED and "a->x_scale[%s]" or v.ROUNDED.group == 0 and "scales_of(a)[%s]") or nil
  v.AT_ONCE = at_once(v)                                  -- values of k that one instruction multiplies
  v.LANES = isa.lanes                                     -- columns of a vector
  v.VECTOR = 4 * v.LANES                                  -- its bytes
  v.P = v.NR // v.LANES                                   -- vectors of a panel
  v.slices = layout.slices(v.format.bits)                 -- of a code: { lo, bits }
  v.STEPS = host.steps(v)                                 -- of a block, each of V values of k
  v.KB = v.STEPS * v.V                                    -- k values after which every slice is at a vector's start
  v.KR = host.record(v)                                   -- k values of a record
  v.GROUP = host.group(v)                                 -- k values of a group
  v.GROUPS = v.KR // v.GROUP                              -- of a record
  v.sums = #v.format.offset > 0                           -- are the sums of x wanted?
  v.FILLED, v.FILL, v.ADDED = v.XT, "%s", 0
  v.has = { [v.format.map.type or ""] = true }            -- types of its codes and planes
  for _, p in ipairs(v.format.planes) do v.has[p.type] = true end
  isa.prepare(v)
  v.layout = layouts.make(v)
  v.RECORD = v.layout.sections[1].record                  -- its bytes
end

-- ---- Source: types, arguments, constants ----------------------------------------------------------------------------

local function where_codes(v, i) -- byte offset of slice i in a record
  local s = v.slices[i]
  return v.layout.sections[1].fields[("codes bits %d+%d"):format(s.lo, s.bits)].offset
end

function host.head(w, v)
  w([[
    /* ${NAME}: Y[M,N] = X[M,K] . W[N,K]^T on the host${EXPERTS}
     *
     * weights ${FORMAT}, activations ${ACT}, output ${OUT}${EPILOGUE}; ${ARITHMETIC}
     * layout ${LAYOUT_NAME}: panels of ${NR} columns, records of ${KR} x ${NR} codes
     * written by Quernel from ${FILE}; parameters:${PARAMETERS} */
  ]], { NAME = v.def.name, EXPERTS = v.problem.experts and ", for the rows of an expert" or "",
    FORMAT = v.format.name, ACT = v.problem.activations, OUT = v.out,
    EPILOGUE = epilogue.remark(v), LAYOUT_NAME = v.layout.name, FILE = v.def.file, PARAMETERS = literals.parameters(v),
    ARITHMETIC = ({
      f32 = "f32 products and sums", bf16 = "exact products of bf16, f32 sums",
      i8 = "exact int32 sums within a group, f32 across groups" })[v.act]
      or ("a scale per %s, exact products in bf16, f32 sums"):format(
        v.ROUNDED and v.ROUNDED.group > 0 and "group" or "token") })
end

-- Lines of an enum: name, value and what it is, aligned.
local function sizes(v)
  local list, out = {
    { "NR", v.NR, "columns of a panel" },
    { "LANES", v.LANES, "columns of a vector" },
    { "P", "NR / LANES", "vectors in a panel" },
    { "MR", v.MR, "rows of a tile" },
    { "V", v.V, "values of k in a 32-bit lane" },
    { "AT_ONCE", v.AT_ONCE, "of those, multiplied by one instruction" },
    { "KB", v.KB, "values of k in a block of vectors" },
    { "KR", v.KR, "values of k in a record" },
    { "GROUP", v.GROUP, "values of k in a group" },
    { "GROUPS", "KR / GROUP", "groups in a record" },
    { "STEPS", "KB / V", "steps of a block" },
    { "RECORD", v.RECORD, "bytes of a record" },
  }, {}
  for i, x in ipairs(list) do out[i] = ("%-21s /* %s */"):format(("%s = %s,"):format(x[1], x[2]), x[3]) end
  return table.concat(out, "\n")
end

-- Types of X as f32. A small float moved into f32's place is itself times a power of two, subnormals included; f16 has
-- an infinity beside. Functions of their names are those of the hooks, for vectors.
local to_f32 = {
  bf16 = "fn float from_bf16(uint16_t x) { return float_of((uint32_t)x << 16); }",
  f16 = [[
    fn float from_half(uint16_t x) {
      uint32_t u = bits_of(float_of((uint32_t)(x & 0x7fff) << 13) * 0x1p112f) | (uint32_t)(x & 0x8000) << 16;
      return float_of((x & 0x7c00) == 0x7c00 ? u | 0x7f800000 : u);
    }
  ]],
  fp8 = [[
    fn float from_fp8(uint8_t x) {
      float f = float_of((uint32_t)(x & 0x7f) << ${SHIFT}) * 0x1p${POWER}f;
      return x & 0x80 ? -f : f;
    }
  ]],
}

local function from_x(w, v)
  w "fn float float_of(uint32_t u) { return (union { uint32_t u; float f; }){u}.f; }"
  w "fn uint32_t bits_of(float f) { return (union { float f; uint32_t u; }){f}.u; }"
  for _, type in ipairs(union { { v.act }, { v.problem.x }, { v.PRODUCT } }) do
    local t = small_float(type)
    local text = to_f32[t and "fp8" or type]
    if text then w(text, t and { SHIFT = 23 - t.mantissa, POWER = 127 - t.bias }) end
  end
  if v.FILL:match "bf16_of_fp8" then w "fn uint16_t bf16_of_fp8(uint8_t x) { return bits_of(from_fp8(x)) >> 16; }" end
end

-- Lines of struct args: the fields of qn_function_args.
local function fields(v)
  local declared = { w = "const uint8_t", y = "void", scratch = "void", counters = "void", offsets = "const int32_t",
    rows = "const int32_t" }
  local out, numbers = {}, false
  for _, o in ipairs(v.problem.operands) do declared[o.name] = declared[o.name] or "const " .. host.ctype[o.type] end
  for _, f in ipairs(v.problem.fields) do
    local text = f.number and "int64_t " .. f.name or ("%s *%s"):format(declared[f.name] or "const void", f.name)
    out[#out + 1] = (#out == 0 and "" or numbers and f.number and ", " or ";\n")
      .. (numbers and f.number and f.name or text)
    numbers = f.number
  end
  return table.concat(out) .. ";"
end

function host.constants(w, v)
  if v.isa.header then w("#include <${HEADER}>", { HEADER = v.isa.header }) end
  w([[
    #include <stdint.h>

    struct args {
      ${FIELDS}
    };

    enum {
      ${SIZES}
    };
    _Static_assert(KR % KB == 0, "a record holds whole blocks");

    #define fn static inline __attribute__((always_inline))
    typedef uint32_t unaligned_u32 __attribute__((aligned(1), may_alias));
    typedef float f32v __attribute__((vector_size(${VECTOR})));
    typedef int32_t i32v __attribute__((vector_size(${VECTOR})));
    typedef uint32_t u32v __attribute__((vector_size(${VECTOR})));
    typedef uint16_t u16v __attribute__((vector_size(${HALF})));
    typedef uint8_t u8v __attribute__((vector_size(${LANES})));
    fn int64_t section(int64_t bytes) { return (bytes + 255) / 256 * 256; } /* each plane begins at such an offset */
  ]], { FIELDS = fields(v), SIZES = sizes(v), HALF = v.VECTOR // 2 })
  from_x(w, v)
  w.blank()
end

-- codes(record, b, p, t): the codes of LANES columns, V values of k, in 32-bit lanes. Bits above a code are zero unless
-- the hook `weights` does not mind them (v.loose).
function host.codes(w, v)
  local lane = v.LANE == 8 and 16 or v.LANE                -- there are no byte shifts; the mask makes up for it
  w("typedef uint${LANE}_t slice __attribute__((vector_size(${VECTOR}), aligned(1), may_alias));", { LANE = lane })
  if #v.slices > 1 then w "fn slice moved(slice x, int up) { return up < 0 ? x >> -up : x << up; }" end
  w([[
    /* Codes of step t of block b, vector p: k = b * KB + t * V + (0 .. V - 1) for LANES columns. */
    fn u32v codes(const uint8_t *record, int b, int p, int t) {
  ]])
  w.push()
  local terms = {}
  for i, s in ipairs(v.slices) do
    local steps = v.LANE // s.bits
    local vectors = v.KB * s.bits // 32                    -- of this slice in a block
    local at = vectors == 1 and "b" or ("(b * %d + t / %d)"):format(vectors, steps)
    local from = where_codes(v, i)
    local text = ("*(const slice *)(record + %s(%s * P + p) * %d)"):format(from > 0 and from .. " + " or "", at,
      v.VECTOR)
    local down = steps > 1 and ("t %% %d%s"):format(steps, s.bits > 1 and " * " .. s.bits or "")
    if s.lo > 0 then text = ("moved(%s, %d%s)"):format(text, s.lo, down and " - " .. down or "")
    elseif down then text = ("%s >> (%s)"):format(text, down) end
    w("slice s${I} = ${TEXT};", { I = i, TEXT = text })
    local mask = (1 << s.bits) - 1 << s.lo
    if v.LANE == 8 then mask = mask << 8 | mask end
    local bare = s.bits == v.LANE or v.loose and #v.slices == 1
    terms[i] = bare and "s" .. i or ("(s%d & 0x%x)"):format(i, mask)
  end
  w("return (u32v)${TEXT};", { TEXT = #terms == 1 and terms[1] or "(" .. table.concat(terms, " | ") .. ")" })
  w.pop "}"
  w.blank()
end

return host
