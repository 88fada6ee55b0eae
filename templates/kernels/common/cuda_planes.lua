-- cuda_planes.lua - scales, zero points, minima: where they lie, and what they do to a fragment or to a sum.
--
-- A tile of 16 rows needs the planes of two rows of a lane, g and g + 8. They are neighbours in the layout, or one
-- element where all 16 rows share it (templates/layouts/cuda_fragment.lua). All are read as f32.
-- With W = ((map(q) - zero) x scale + offset) x row, each a product of planes or a sum of such (cuda.roles):
--
--   on the weight   w = T(map(q) * scale + offset)      one rounding to T. A scale of one plane whose type T holds: one
--                                                       multiplication of pairs; else fma in f32, then rounded
--   on the sum      Y += scale * sum over the group     map(q) is exact or rounded once; all else is f32
--   in either       Y = row * sum over K                f32
--   INTEGER         Y += scale * sum over the group     the sum is exact; the rest is f32
--   FINE            w = map(q) * scale + offset in f32, each weight with its own
--
-- A zero point that is an integer is taken from the code beforehand, exactly.

local cuda = use "kernels/common/cuda"
local codes = use "kernels/common/cuda_codes"
local planes = {}

-- What the format asks for; written into v:
--
--   ZERO_PLANE, SCALES, OFFSETS, ROW_SCALES   what each plane does to a weight or a sum (cuda.roles)
--   planes     as they are stored, by number and by name
--   GROUP      codes that share all planes, 0: a row. GROUPED: is there such a number?
--   FINE       groups are finer than fragments: each weight has an element of every plane, and is whole before it is
--              multiplied
function planes.derive(v)
  local r = cuda.roles(v.format)
  v.FINE = cuda.fragment.fine(v.format)
  v.ZERO_PLANE, v.SCALES, v.OFFSETS, v.ROW_SCALES = r.zero, r.scale, r.offset, r.row
  v.planes, v.GROUP = {}, 0
  for i, p in ipairs(v.format.planes) do
    local s = v.FINE and { name = p.name, type = p.type, size = types.all[p.type].bytes } or cuda.fragment.stored(p)
    v.planes[i], v.planes[p.name] = s, s
    if not v.FINE and s.cols > 0 then
      local group = s.cols // s.per
      v.GROUP = v.GROUP > 0 and math.min(v.GROUP, group) or group
    end
  end
  v.GROUPED = v.GROUP > 0
end

-- Does one multiplication of pairs do? The scale is a single plane whose every value T holds.
local function native(v)
  local f = v.format
  return v.SCALE == "weight" and #v.OFFSETS == 0 and #v.SCALES == 1
    and types.holds(v.HALF, f.planes[f.planes[v.SCALES[1]]].type)
end

-- Is plane p such a scale, and of type T itself?
local function is_as_stored(v, p) return native(v) and p.name == v.SCALES[1] and p.type == v.HALF end

-- What a lane has of plane p in a group, as stored, for its two rows: two neighbours, or one element. Bytes, and type.
local function bytes(p) return p.size * (p.rows == 1 and 2 or 1) end
local words = { "u8", "u16", [4] = "u32", [8] = "u32x2", [16] = "u32x4" }
function planes.ctype(p) return words[bytes(p)] end

-- What it has of all groups that lie side by side: loads, bytes and type of one.
function planes.loads(p)
  local all = bytes(p) * p.per
  local one = math.min(all, 16)
  return all // one, one, one == 1 and "u32" or words[one]
end

-- Are its two elements bytes? They are passed on as a word, and where in it they are.
local function bytewise(p) return bytes(p) == 2 and p.size == 1 end

-- As arguments of terms_of(), the elements read by planes.read.
function planes.argument(v, p, at) return planes.read(v, p, at) .. (bytewise(p) and ", 0" or "") end

-- The same of what planes.loads brings: `load` is a text for a number of a load, s one for a step along k.
function planes.of_group(p, load, s)
  local count, one = planes.loads(p)
  if p.per == 1 then return load "0" .. (bytewise(p) and ", 0" or "") end
  local number = ("%s / %d %% %d"):format(s, 4 // p.per, p.per) -- of the group
  local function word(at)
    local of = count > 1 and load(("(%s) / 4"):format(at)) or load "0"
    return one == 4 and of or ("%s.v[(%s) %% %d]"):format(of, at, one // 4)
  end
  if bytes(p) == 4 then return word(number) end
  if bytes(p) == 8 then return ("u32x2{%s, %s}"):format(word(number .. " * 2"), word(number .. " * 2 + 1")) end
  return ("%s, %s %% 2 * 2"):format(word(number .. " / 2"), number)
end

-- Text of that load, from the address `at`, which has 32 bits in shared memory.
function planes.read(v, p, at)
  if v.by_name and v.by_name[p.name] then return ("shared%d(%s)"):format(8 * bytes(p), at) end
  return ("*(const %s *)(%s)"):format(planes.ctype(p), at)
end

-- Is it met as 2^23 + b, the f32 whose last bits are the byte? What it multiplies takes 2^23 times itself away.
local function is_magic(v, p) return p.type == "u8" and bytewise(p) and p.name ~= v.ZERO_PLANE and not v.FINE end

-- Where a scale of e4m3 waits for the sum, what its exponent lacks as f16 goes into v.UNIT, the last factor of sums.
function planes.unit(v)
  v.LACKS = nil
  for _, name in ipairs(v.FLUSH and #v.OFFSETS == 0 and v.SCALES or {}) do
    local p = v.planes[name]
    if p.type == "e4m3" and bytewise(p) and not v.LACKS then v.LACKS, v.UNIT = p, v.UNIT * 256 end
  end
end

-- The function that makes numbers of it.
local function convert_name(v, p)
  return (p.rows == 1 and "pair_" or "one_") .. (is_magic(v, p) and "magic" or p.type)
    .. (is_as_stored(v, p) and "x2" or v.LACKS == p and "_less" or "")
end

-- Two bytes of a word, from byte `at` on, which a constant says.
local two_bytes = {
  magic = [[
    fn f32x2 pair_magic(u32 u, int at = 0) { /* 2^23 and a byte */
      return {__uint_as_float(prmt(u, 0x4b000000, 0x7440 + at)), __uint_as_float(prmt(u, 0x4b000000, 0x7441 + at))};
    }
  ]],
  e4m3 = [[
    fn f32x2 ${NAME}(u32 u, int at = 0) { /* fields where f16 has them, behind two signs: times 2^-8 */
      u = prmt(u, u, 0x9180 + at * 0x1111) << 7 & 0xbf80bf80;
      ${BIAS}
      return {f32_of_f16((u16)u), f32_of_f16((u16)(u >> 16))};
    }
  ]],
  e8m0 = [[
    fn f32x2 pair_e8m0(u32 u, int at = 0) { /* as bf16; 2^-127 is below the normal numbers */
      u = prmt(u, 0, 0x4140 + at * 0x0101) << 7;
      asm("max.bf16x2 %0, %0, %1;" : "+r"(u) : "r"(0x00400040));
      return {__uint_as_float(u << 16), __uint_as_float(u & 0xffff0000)};
    }
  ]],
  other = [[
    fn f32x2 pair_${TYPE}(u32 u, int at = 0) {
      return {f32_of_${TYPE}((u8)(u >> at * 8)), f32_of_${TYPE}((u8)(u >> at * 8 + 8))};
    }
  ]],
}

local function convert(w, v, p)
  local pair = p.rows == 1
  local values = { NAME = convert_name(v, p), RAW = planes.ctype(p), TYPE = p.type, BITS = 8 * p.size }
  if is_as_stored(v, p) then
    values.SECOND = pair and "0x3232" or "0x1010"
    return w("fn u32x2 ${NAME}(${RAW} u) { return {prmt(u, u, 0x1010), prmt(u, u, ${SECOND})}; }", values)
  elseif p.type == "f32" then
    values.FIRST, values.SECOND = pair and "u.v[0]" or "u", pair and "u.v[1]" or "u"
    return w("fn f32x2 ${NAME}(${RAW} u) { return {__uint_as_float(${FIRST}), __uint_as_float(${SECOND})}; }", values)
  elseif bytewise(p) then
    values.BIAS = v.LACKS ~= p and 'asm("mul.rn.f16x2 %0, %0, %1;" : "+r"(u) : "r"(0x5c005c00));' or ""
    local pairs_of_bf16 = p.type == "e8m0" and v.device.sm < 80 -- there are none
    return w(is_magic(v, p) and two_bytes.magic or not pairs_of_bf16 and two_bytes[p.type] or two_bytes.other, values)
  end
  values.SECOND = pair and ("(u%d)(u >> %d)"):format(8 * p.size, 8 * p.size) or "u"
  w("fn f32x2 ${NAME}(${RAW} u) { return {f32_of_${TYPE}((u${BITS})u), f32_of_${TYPE}(${SECOND})}; }", values)
end

-- pair_TYPE(u): two neighbours of a plane; one_TYPE(u): an element, twice. x2: each in both halves of a word.
function planes.conversions(w, v)
  local seen = {}
  if v.FINE then return planes.weigh(w, v) end
  for _, p in ipairs(v.planes) do
    if not seen[convert_name(v, p)] then convert(w, v, p) end
    seen[convert_name(v, p)] = true
  end
  if next(seen) then
    w "fn i64 section(i64 bytes) { return (bytes + 255) / 256 * 256; } /* each plane begins at such an address */"
    w.blank()
  end
end

-- Bytes of section s of the layout, an expression of t.n_padded and k_padded.
local function section_bytes(v, s)
  local text = ""
  for _, d in ipairs(s.outer) do
    local size, tile = d[1] == "n" and "t.n_padded" or "k_padded", v.layout.tile[d[1] == "n" and 1 or 2]
    local count = d[3] > tile and ("(%s + %d) / %d"):format(size, d[3] - 1, d[3]) or ("%s / %d"):format(size, d[3])
    text = text .. (text == "" and "(i64)%s * " or "(%s) * "):format(count)
  end
  return text .. s.record
end

-- Statements that set the pointers of the task `t`: planes lie one behind the other.
function planes.pointers(v)
  local lines, before = {}, "w"
  for i, p in ipairs(v.planes) do
    lines[i] = ("t.%s_at = %s + section(%s);"):format(p.name, before, section_bytes(v, v.layout.sections[i]))
    before = ("t.%s_at"):format(p.name)
  end
  return table.concat(lines, "\n")
end

-- Bytes of a packed weight, an expression of t.n_padded and k_padded.
function planes.weight_bytes(v)
  local terms = {}
  for i, s in ipairs(v.layout.sections) do terms[i] = ("(%s + 255) / 256 * 256"):format(section_bytes(v, s)) end
  return table.concat(terms, " + ")
end

-- Their declarations in struct task.
function planes.members(v)
  local names = {}
  for i, p in ipairs(v.planes) do names[i] = ("*%s_at"):format(p.name) end
  return #names > 0 and ("const u8 %s; /* planes */"):format(table.concat(names, ", ")) or ""
end

-- Address of element `at` (text) of plane p, which begins at `base`.
function planes.element(p, base, at)
  if p.size == 1 then return ("%s + %s"):format(base, at) end
  return ("%s + %s * %d"):format(base, at:match "^%w+$" or "(" .. at .. ")", p.size)
end

-- Elements before those of `feature` (text), if `lane` (text) is what a lane adds to it; and before step `step` along
-- k, where there are so many features `across`.
function planes.feature(p, feature, lane)
  local at = p.rows == 16 and feature .. " / 16" or lane and feature .. " + " .. lane or feature
  return p.per == 1 and at or ("(%s) * %d"):format(at, p.per)
end

function planes.step(p, step, across)
  local set = p.rows == 16 and ("(%s / 16)"):format(across) or across
  if p.per == 1 then return ("%s / %d * %s"):format(step, p.cols // 16, set) end
  return ("%s / 4 * (%s * %d) + %s / %d %% %d%s"):format(step, set, p.per, step, 4 // p.per, p.per,
    p.rows == 1 and " * 2" or "")
end

-- Address of plane p, as stored, for the lane's features at step `step` along k.
function planes.of_lane(p)
  local base = ("t.%s_at"):format(p.name)
  if p.rows == 0 then return base end
  local at = planes.feature(p, "t.feature")
  if p.cols > 0 then at = ("%s + %s"):format(planes.step(p, "(i64)step", "t.n_padded"), at) end
  return planes.element(p, base, at)
end

-- The product of planes (NAME2: of two rows) for row r, and the sum of the offset's terms; of the variable NAME
-- without r.
function planes.product(v, names, coefficient, r)
  local out, magic = {}, {}
  for _, name in ipairs(names) do
    local list = r and is_magic(v, v.planes[name]) and magic or out
    list[#list + 1] = r and ("%s2.v[%s]"):format(name, r) or name
  end
  local text = table.concat(out, " * ")
  if text == "" then text = cuda.f32(coefficient)
  elseif coefficient == -1 then text = "-" .. text
  elseif coefficient ~= 1 then text = cuda.f32(coefficient) .. " * " .. text end
  for _, byte in ipairs(magic) do text = ("__fmaf_rn(%s, %s, (%s) * -0x1p23f)"):format(byte, text, text) end
  return text
end

function planes.offset(v, terms, r)
  local out = {}
  for i, t in ipairs(terms) do out[i] = planes.product(v, t.planes, t.coefficient, r) end
  return table.concat(out, " + ")
end

function planes.precision(v)
  local how = {}
  local m = v.format.map
  if v.SCALED then return "precision: products of 8-bit floats, scaled by the tensor core, f32 accumulation" end
  if v.INTEGER then return "precision: exact sums of 8-bit integers, scales applied to them in f32" end
  if v.BYTE then how[1] = "products of 8-bit floats"
  elseif m.kind == "table" then how[1] = "the code map rounded to " .. v.HALF end
  if v.SCALE == "weight" then
    how[#how + 1] = "map(q) x scale rounded once to " .. v.HALF
      .. (v.HALF == "f16" and " (infinite beyond 65504)" or "")
  end
  if v.FINE and v.SCALE == "sum" then how[#how + 1] = "scales applied to each weight in f32"
  elseif v.SCALE == "sum" and #v.format.planes > 0 or #v.ROW_SCALES > 0 then
    how[#how + 1] = "scales applied to f32 sums"
  end
  how[#how + 1] = "f32 accumulation"
  return "precision: " .. table.concat(how, ", ")
end

-- FINE: eight_TYPE, elements of the eight weights that a lane has of a fragment; weigh(): from map(q) to the weight.
function planes.weigh(w, v)
  local f, seen = v.format, {}
  for _, p in ipairs(v.planes) do
    if not seen[p.type] then
      w("struct __align__(${ALIGN}) eight_${TYPE} { ${CTYPE} v[8]; };",
        { ALIGN = math.min(8 * p.size, 16), TYPE = p.type, CTYPE = cuda.ctype[p.type] })
    end
    seen[p.type] = true
  end
  w [[
    fn i64 section(i64 bytes) { return (bytes + 255) / 256 * 256; } /* each plane begins at such an address */

    /* The weights of fragment f of record `at`, whose codes stand for value. */
    fn void weigh(const task &t, i64 at, int f, int lane, float *value) {
      at = ((at * 4 + f) * 32 + lane) * 8;
  ]]
  w.push()
  for _, p in ipairs(v.planes) do
    w("const eight_${TYPE} ${NAME}s = *(const eight_${TYPE} *)(${AT});", { TYPE = p.type, NAME = p.name,
      AT = planes.element(p, ("t.%s_at"):format(p.name), "at") })
  end
  w "#pragma unroll"
  w.push "for (int e = 0; e < 8; e++) {"
  for _, p in ipairs(v.planes) do
    w("const float ${NAME} = ${VALUE};",
      { NAME = p.name, VALUE = (p.type == "f32" and "%ss.v[e]" or "f32_of_" .. p.type .. "(%ss.v[e])"):format(p.name) })
  end
  w("value[e] = value[e]${SCALE}${OFFSET};", { SCALE = #f.scale > 0 and " * " .. planes.product(v, f.scale, 1) or "",
    OFFSET = #f.offset > 0 and " + " .. planes.offset(v, f.offset) or "" })
  w.pop "}"
  w.pop "}"
  w.blank()
end

-- The planes that a fragment meets: all but those that wait for the sum over K.
function planes.met(v)
  local waiting, out = {}, {}
  for _, name in ipairs(v.ROW_SCALES) do waiting[name] = true end
  for _, p in ipairs(v.planes) do if not waiting[p.name] then out[#out + 1] = p end end
  return out
end

-- Declarations of planes' two rows, made of what was loaded: raw(p) is its text.
function planes.declare(w, v, list, raw)
  for _, p in ipairs(list) do
    w("const ${TYPE} ${NAME}2 = ${CONVERT}(${RAW});",
      { TYPE = is_as_stored(v, p) and "u32x2" or "f32x2", NAME = p.name, CONVERT = convert_name(v, p), RAW = raw(p) })
  end
end

-- SCALED: the tensor core takes a scale as it is stored, of row g from the first of four lanes, of g + 8 from the next.
local function scaled_terms(w, v, parameter)
  w([[
    struct terms { u32 scale; };

    fn terms terms_of(${PARAMETER}) { return {${NAME} >> (${NAME}_at + threadIdx.x % 2) * 8}; }
  ]], { PARAMETER = parameter, NAME = v.SCALES[1] })
  w.blank()
end

-- struct terms, terms_of(), weigh(): what happens to a fragment of two rows. `v.SCALE` is "weight" or "sum".
function planes.terms(w, v)
  local weight, params = v.SCALE == "weight", {}
  if not v.TERMS then return end
  for i, p in ipairs(planes.met(v)) do
    params[i] = bytewise(p) and ("u32 %s, int %s_at"):format(p.name, p.name)
      or ("%s %s"):format(planes.ctype(p), p.name)
  end
  if v.SCALED then return scaled_terms(w, v, params[1]) end
  w.push "struct terms { /* of the rows g and g + 8 of a tile, in one group */"
  if v.ZERO_PLANE then
    w("u32 zero[2]; /* ${WHAT} */",
      { WHAT = v.INTEGER and "128 less the zero point, four times" or "minus the zero point, twice" })
  end
  if #v.SCALES > 0 or weight then w(native(v) and "u32 scale[2]; /* twice */" or "float scale[2];") end
  if #v.OFFSETS > 0 then w "float offset[2];" end
  w.pop "};"
  w.blank()
  w.push("fn terms terms_of(${PARAMS}) {", { PARAMS = table.concat(params, ", ") })
  planes.declare(w, v, planes.met(v), function(p)
    return bytewise(p) and ("%s, %s_at"):format(p.name, p.name) or p.name
  end)
  w "terms t;"
  w "#pragma unroll"
  w.push "for (int r = 0; r < 2; r++) {"
  if v.ZERO_PLANE then
    w(v.INTEGER and "t.zero[r] = (u32)(${BIAS} - (int)${NAME}2.v[r]) * 0x01010101;"
      or "t.zero[r] = pack2(-${NAME}2.v[r], -${NAME}2.v[r]);",
      { NAME = v.ZERO_PLANE, BIAS = math.tointeger(128 + v.format.map.bias) })
  end
  if #v.SCALES > 0 or weight then
    local as_stored = is_as_stored(v, v.planes[v.SCALES[1] or ""] or {})
    w(native(v) and not as_stored and "t.scale[r] = pack2(${S}, ${S});" or "t.scale[r] = ${S};",
      { S = planes.product(v, v.SCALES, v.INTEGER and v.format.map.unit or 1, "r") })
  end
  if #v.OFFSETS > 0 then w("t.offset[r] = ${TEXT};", { TEXT = planes.offset(v, v.OFFSETS, "r") }) end
  w.pop "}"
  w "return t;"
  w.pop "}"
  w.blank()

  if not (v.ZERO_PLANE or weight) then return end
  w.push "fn void weigh(u32 *a, const terms &t) {"
  w "#pragma unroll"
  w.push "for (int r = 0; r < 4; r++) {"
  if v.ZERO_PLANE then
    w("a[r] = ${SUM};", { SUM = v.INTEGER and codes.signed("a[r]", "t.zero[r & 1]") or "add2(a[r], t.zero[r & 1])" })
  end
  if native(v) then
    w "a[r] = mul2(a[r], t.scale[r & 1]);"
  elseif weight then
    w([[
      const float scale = t.scale[r & 1], offset = ${OFFSET};
      a[r] = pack2(__fmaf_rn(low(a[r]), scale, offset), __fmaf_rn(high(a[r]), scale, offset));
    ]], { OFFSET = #v.OFFSETS > 0 and "t.offset[r & 1]" or "0.0f" })
  end
  w.pop "}"
  w.pop "}"
  w.blank()
end

-- The terms of the group that step s is in; raw(p): what the lane has of plane p, text.
function planes.step_terms(w, v, raw)
  local all = {}
  for i, p in ipairs(planes.met(v)) do all[i] = raw(p) end
  w([[
    if (${BEGINS})
    #pragma unroll
      for (int i = 0; i < MT; i++)
        term[i] = terms_of(${RAW});
  ]], { RAW = table.concat(all, ",\n"), BEGINS = v.KEPT and "s == 0 && fresh" or "s % GROUP_STEPS == 0" })
end

return planes
