-- cuda_codes.lua - a format's codes: from the words of a record to fragments of numbers, by code map and width.
--
-- load_codes() brings a lane's words of a record; fragment() makes the four registers of fragment f (0 .. 3) of them,
-- each two values of map(q) in the 16-bit type v.HALF (T). One number is exact; where rounding happens is said. Or, for
-- products of 8-bit numbers (v.BYTE, their type), two registers, of rows g and g + 8, each four values of map(q), or
-- of map(q) / unit where they are integers.
--
--   map, width                what is done for a register                                            exact
--   int, one slice            (word & mask) | magic is 2^s + q * 2^o, s the significand of T;         yes
--                             one fma takes 2^s away and scales, so codes are used where they lie
--   int, several slices       slices are shifted together first                                      yes
--   int, 8 bits, bf16         has 7 bits of significand: by way of f32, 2^23 + q                     yes
--   table, 4 bits             prmt picks bytes: low and high bytes of the entries, by 3 bits of the   one rounding
--                             code, then by the fourth                                               to T
--   table e2m1, 4 bits        a 4-bit float: one product moves its fields to where T has them; as below,    yes
--                             but where scales wait for sums, v.UNIT does, too, and multiplies at the end
--   table, other widths       a look-up in memory, which stays in L1                                 one rounding to T
--   float of 8 bits           its fields are moved to where T has them; one multiplication takes the   yes
--                             difference of the biases away, and makes its subnormal numbers normal
--   float of type T           nothing                                                                yes
--   BYTE: int in s8           bytes of codes; one addition and one turn of the sign take the bias      yes
--                             away, or the zero point in its place (weigh() does, then)
--   BYTE: int, 4 bits         codes lie in the upper halves of bytes, whose sign is turned: 16 (q - 8)   yes
--   BYTE: float, e2m1         the codes are the numbers; e2m1 stands in bits 2 to 5 of its byte        yes
--   BYTE: int, RAW            the codes are numbers, q 2^-9 as e4m3; cuda_x_sums takes the bias away     yes
--   BYTE: table, other int    as above, with entries of one byte                                      yes
--
-- Source: magic numbers after Kim et al., "Who Says Elephants Can't Run" (2022), and Marlin.

local cuda = use "kernels/common/cuda"
local fragment = cuda.fragment
local codes = {}

local function words_of(s) return s.bits end -- 32-bit words of a lane and record, one per bit of the slice

-- Are the entries those of a float of a sign, two bits of exponent and one of significand?
function codes.is_e2m1(m)
  if m.kind ~= "table" or #m.values ~= 16 then return false end
  for code, x in ipairs(m.values) do
    local e, f = code - 1 >> 1 & 3, code - 1 & 1
    local size = e == 0 and f / 2 or (1 + f / 2) * 2.0 ^ (e - 1)
    if x ~= (code > 8 and -size or size) then return false end
  end
  return true
end

-- Written into v.
function codes.derive(v)
  v.slices = layout.slices(v.format.bits) -- of a code: { lo, bits }
  v.WORDS = v.format.bits                 -- 32-bit words of a record in a lane: it has 32 codes
  v.RECORD = v.layout.sections[1].record  -- bytes
end

-- v.UNIT: what a sum of fragments' numbers is to be multiplied with in the end, and of it, v.CODE_UNIT, what codes are.
-- f32 has room for that of f16.
function codes.unit(v)
  local roles, m = cuda.roles(v.format), v.format.map
  local waits = v.SCALE == "sum" and #roles.offset == 0
  local sixteenths = v.INTEGER and m.kind == "int" and v.format.bits == 4 and m.bias == -8 and not roles.zero
  v.CODE_UNIT = waits and sixteenths and 1 / 16
    or waits and v.HALF == "f16" and not v.BYTE and codes.is_e2m1(m) and 2.0 ^ 14 or v.RAW and 2.0 ^ 9 or 1
  v.UNIT = v.CODE_UNIT
end

-- Bytes of the loads that bring a lane's words, without repetition.
function codes.loads(v)
  local out, seen = {}, {}
  for _, s in ipairs(v.slices) do
    local _, load = fragment.load_bytes(s.bits)
    if not seen[load] then out[#out + 1], seen[load] = load, true end
  end
  return out
end

-- A function that loads from memory: `name`; `to`, its parameter; PTX's `type`; `count` registers, d(i), of constraint
-- `letter`. `hint`: not kept in L1. `guarded`: on a condition, without a branch.
local function loader(w, v, of)
  local outs, names, ins = {}, {}, { '"l"(p)' }
  for i = 0, of.count - 1 do
    outs[i + 1], names[i + 1] = ('"%s%s"(%s)'):format(of.guarded and "+" or "=", of.letter, of.d(i)), "%" .. i
  end
  local function operand(text) -- its number
    ins[#ins + 1] = text
    return "%" .. of.count + #ins - 1
  end
  local policy = of.hint and v.FIRST and ", " .. operand '"l"(evict_first())'
  local predicate = of.guarded and operand '"r"((int)there)'
  local values = { NAME = of.name, TO = of.to, TYPE = of.type, POLICY = policy or "",
    HINT = (of.hint and ".L1::no_allocate" or "") .. (policy and ".L2::cache_hint" or ""), FROM = "%" .. of.count,
    D = of.count > 1 and "{" .. table.concat(names, ", ") .. "}" or "%0",
    PREDICATE = predicate, OUTS = table.concat(outs, ", "), INS = table.concat(ins, ", ") }
  w(of.guarded and [[
    fn void ${NAME}(const u8 *p, ${TO}, bool there) {
      asm volatile("{ .reg .pred there; setp.ne.s32 there, ${PREDICATE}, 0; "
                   "@there ld.global.nc${HINT}.${TYPE} ${D}, [${FROM}]${POLICY}; }"
                   : ${OUTS} : ${INS});
    }
  ]] or [[
    fn void ${NAME}(const u8 *p, ${TO}) {
      asm volatile("ld.global.nc${HINT}.${TYPE} ${D}, [${FROM}]${POLICY};" : ${OUTS} : ${INS});
    }
  ]], values)
end

-- load4, load8, load16: words of codes from memory. With v.FIRST they are the first to leave L2 again, which needs
-- sm_80, every load has a condition, and there are memory1 .. memory16, of planes.
function codes.stream(w, v)
  if v.FIRST then
    w [[
      fn u64 evict_first() {
        u64 policy;
        asm("createpolicy.fractional.L2::evict_first.b64 %0;" : "=l"(policy));
        return policy;
      }
    ]]
    for bytes, to in pairs { "u32", "u16", [4] = "u32", [8] = "u32x2", [16] = "u32x4" } do
      local count = math.max(1, bytes // 4)
      loader(w, v, { name = "memory" .. bytes, to = to .. " &d", letter = to == "u16" and "h" or "r", count = count,
        d = function(i) return count > 1 and ("d.v[%d]"):format(i) or "d" end,
        type = (count > 1 and ("v%d."):format(count) or "") .. "u" .. math.min(8 * bytes, 32), guarded = true })
    end
  end
  w "/* Weights pass once: they are not kept in L1. */"
  for _, bytes in ipairs { 4, 8, 16 } do
    loader(w, v, { name = "load" .. bytes, to = "u32 *q", d = function(i) return ("q[%d]"):format(i) end, hint = true,
      letter = "r", count = bytes // 4, type = (bytes > 4 and ("v%d."):format(bytes // 4) or "") .. "u32",
      guarded = v.FIRST })
  end
  w.blank()
end

-- load_codes(), from memory or, in a family that has `places`, from shared memory; there p.wN says where a lane's loads
-- of N bytes begin in the first record.
function codes.load(w, v)
  w "/* A lane's words of a record: word `first + i` belongs to slice bits first and up. */"
  local there = v.FIRST and ", there" or ""
  w.push(v.WAYS and "fn void load_codes(const places &p, int record, u32 *q${THERE}) {"
    or "fn void load_codes(const u8 *record, int lane, u32 *q) {", { THERE = v.FIRST and ", bool there" or "" })
  local first = 0
  for _, s in ipairs(v.slices) do
    local bytes, load = fragment.load_bytes(s.bits)
    local at = v.layout.sections[1].fields[("codes bits %d+%d"):format(s.lo, s.bits)].offset
    for i = 0, bytes // load - 1 do
      local from = at + i * 32 * load
      w(v.WAYS and "load${BYTES}(p.w${BYTES} + record${FROM}, q${TO}${THERE});"
        or "load${BYTES}(record${FROM} + lane * ${BYTES}, q${TO});", { BYTES = load,
        FROM = from > 0 and " + " .. from or "", TO = first > 0 and " + " .. first or "", THERE = there })
      first = first + load // 4
    end
  end
  w.pop "}"
  w.blank()
end

local function word_at(base, offset) return ("q[%s%s]"):format(base, offset > 0 and " + " .. offset or "") end

-- The word of register r of fragment f, as an expression of f, and the bit of the code in it: base (of f) + offset.
local function place(s, first, r)
  local per = 16 // s.bits                                     -- registers of a word
  if per <= 1 then return word_at("f * 4", first + r), nil, 0 end
  if per == 2 then return word_at("f * 2", first + r // 2), nil, r % 2 * s.bits end
  if per == 4 then return word_at("f", first), nil, r * s.bits end
  return word_at(("f / %d"):format(per // 4), first), ("f %% %d * %d"):format(per // 4, 4 * s.bits), r * s.bits
end

local function shifted(word, by)
  return by == 0 and word or by > 0 and ("%s >> %d"):format(word, by) or ("%s << %d"):format(word, -by)
end
local function twice(x) return ("0x%04x%04x"):format(x, x) end

-- Undo the magic: value = 2^s + q * 2^o becomes q + bias.
local function unmagic(h, o, expression, bias)
  local c = bias - 2.0 ^ (h.significand - o)
  if o == 0 then return ("add2(%s, %s)"):format(expression, cuda.pair(h.name, c)) end
  return ("fma2(%s, %s, %s)"):format(expression, cuda.pair(h.name, 2.0 ^ -o), cuda.pair(h.name, c))
end

local function int_one_slice(w, v)
  local h, s, bias = cuda.half[v.HALF], v.slices[1], v.format.map.bias
  for r = 0, 3 do
    local word, base, o = place(s, 0, r)
    local by = o + s.bits <= h.significand and 0 or (o >= 8 and o - 8 + s.bits <= h.significand) and 8 or o
    if base then word = ("(%s >> %s)"):format(word, base) end
    local mask = twice(((1 << s.bits) - 1) << (o - by))
    local code = ("and_or(%s, %s, %s)"):format(shifted(word, by), mask, twice(h.magic))
    w("a[${R}] = ${VALUE};", { R = r, VALUE = unmagic(h, o - by, code, bias) })
  end
end

-- Both codes of register r, put together of their slices, as integers in 16-bit halves.
local function whole_codes(v, r)
  local terms, first = {}, 0
  for i, s in ipairs(v.slices) do
    local word, base, o = place(s, first, r)
    if base then word = ("(%s >> %s)"):format(word, base) end
    terms[i] = ("(%s & %s)"):format(shifted(word, o - s.lo), twice(((1 << s.bits) - 1) << s.lo))
    first = first + words_of(s)
  end
  return table.concat(terms, " | ")
end

local function int_slices(w, v)
  local h = cuda.half[v.HALF]
  for r = 0, 3 do
    local code = whole_codes(v, r) .. " | " .. twice(h.magic)
    w("a[${R}] = ${VALUE};", { R = r, VALUE = unmagic(h, 0, code, v.format.map.bias) })
  end
end

local function int_wide(w, v)
  w "const float zero = ${ZERO}; /* 2^23 less the bias */"
  for r = 0, 3 do
    local word, _, o = place(v.slices[1], 0, r)
    local byte = o // 8
    w("a[${R}] = pack2(magic(${WORD}, 0x744${LO}) - zero, magic(${WORD}, 0x744${HI}) - zero);",
      { R = r, WORD = word, LO = byte, HI = byte + 2 })
  end
end

-- A 16-entry table by prmt: the fragment's eight codes are one word.
local function table_permute(w)
  w [[
    const u32 three = q[f] & 0x77777777, fourth = (q[f] & 0x88888888) >> 1 | 0x32103210;
    u32 byte[2][2]; /* [k parity][low, high byte]: of four values each */
    #pragma unroll
    for (int h = 0; h < 2; h++)
    #pragma unroll
      for (int b = 0; b < 2; b++) {
        u32 first = prmt(table[b][0], table[b][1], three >> 16 * h);
        u32 second = prmt(table[b][2], table[b][3], three >> 16 * h);
        byte[h][b] = prmt(first, second, fourth >> 16 * h);
      }
    #pragma unroll
    for (int r = 0; r < 4; r += 2) {
      u32 even = prmt(byte[0][0], byte[0][1], r ? 0x7362 : 0x5140);
      u32 odd = prmt(byte[1][0], byte[1][1], r ? 0x7362 : 0x5140);
      a[r] = prmt(even, odd, 0x5410);
      a[r + 1] = prmt(even, odd, 0x7632);
    }
  ]]
end

-- c = 8 s + m, sign and size, becomes c * 2^low - (c - 7) * 8 * 2^low: m lies at bit `low`, and what is above has the
-- sign at bit 15, of 7 - m or of -m (but zero has none). What the lower half then borrows lies below in the upper one.
-- Where c lies too far left for that, s and m are moved.
local function four_bit_float(w, v)
  local h = cuda.half[v.HALF]
  local low = h.significand - 1 -- where its three bits of size go to
  local fields = twice(7 << low | 0x8000)
  for r = 0, 3 do
    local word, _, o = place(v.slices[1], 0, r)
    local code
    if o <= low then
      code = ("((%s & %s) * -%du + 0x%08x) & %s"):format(word, twice(15 << o), 7 << low - o,
        (7 << low + 3) * 0x00010001 + 0x10000, fields)
    else
      code = ("and_or(%s, 0x80008000, %s & %s)"):format(shifted(word, o - 12), shifted(word, o - low), twice(7 << low))
    end
    w("a[${R}] = ${VALUE};", { R = r,
      VALUE = v.CODE_UNIT == 1 and ("mul2(%s, %s)"):format(code, cuda.pair(h.name, 2.0 ^ (h.bias - 1))) or code })
  end
end

local function table_memory(w, v)
  for r = 0, 3 do
    w("u32 c${R} = ${CODES};", { R = r, CODES = whole_codes(v, r) })
    w("a[${R}] = table[c${R} & 0xffff] | (u32)table[c${R} >> 16] << 16;", { R = r })
  end
end

local function float_same(w, v)
  for r = 0, 3 do w("a[${R}] = ${WORD};", { R = r, WORD = (place(v.slices[1], 0, r)) }) end
end

-- The codes go to the upper bytes of their halves, and from there to T.
local function float_narrow(w, v)
  for r = 0, 3 do
    local word, _, o = place(v.slices[1], 0, r)
    w("a[${R}] = ${T}x2_of_${TYPE}(${UPPER});",
      { R = r, T = v.HALF, TYPE = v.format.map.type, UPPER = shifted(word, o - 8) })
  end
end

-- TYPEx2 of two 8-bit floats of type `from`.
function codes.narrow(w, v, from)
  local h, m = cuda.half[v.HALF], cuda.float8[from]
  local right, times = 8 + m.significand - h.significand, h.bias - m.bias
  local fields = right > 0 and ("(c & 0x7f007f00) >> %d | c & 0x80008000"):format(right) or "c & 0xff00ff00"
  w("/* Two codes in upper bytes: their fields where ${T} has them${FACTOR} */", { T = v.HALF,
    FACTOR = times > 0 and (", times 2^%d, the difference of the biases."):format(times) or "." })
  w("fn u32 ${T}x2_of_${TYPE}(u32 c) { return ${VALUE}; }", { T = v.HALF, TYPE = from,
    VALUE = times > 0 and ("mul2(%s, %s)"):format(fields, cuda.pair(h.name, 2.0 ^ times)) or fields })
end

-- BYTE: four codes each of the rows g, of a0 and a2, and g + 8, of a1 and a3, as expressions.
local function four_codes(w, v)
  local s = v.slices[1]
  if v.format.bits == 4 then return { "q[f] & 0x0f0f0f0f", "q[f] >> 4 & 0x0f0f0f0f" } end
  if v.format.bits == 8 then
    return { ("prmt(%s, %s, 0x6240)"):format(place(s, 0, 0), place(s, 0, 2)),
      ("prmt(%s, %s, 0x7351)"):format(place(s, 0, 1), place(s, 0, 3)) }
  end
  for r = 0, 3 do w("const u32 c${R} = ${CODES};", { R = r, CODES = whole_codes(v, r) }) end
  return { "c0 | c2 << 8", "c1 | c3 << 8" }
end

-- Codes in bytes, plus what the four bytes `add` say less 128 (text), as signed bytes.
function codes.signed(expression, add) return ("((%s) + %s) ^ 0x80808080"):format(expression, add) end

local function int_bytes(w, v)
  local bias = math.tointeger(v.format.map.bias)
  if v.CODE_UNIT < 1 then
    return w "a[0] = (q[f] << 4 & 0xf0f0f0f0) ^ 0x80808080, a[1] = (q[f] & 0xf0f0f0f0) ^ 0x80808080;"
  end
  for i, four in ipairs(four_codes(w, v)) do
    local value = v.ZERO_PLANE and four or bias == -128 and four .. " ^ 0x80808080"
      or codes.signed(four, ("0x%08x"):format((128 + bias) * 0x01010101))
    w("a[${I}] = ${VALUE};", { I = i - 1, VALUE = value })
  end
end

local function bytes_same(w, v)
  local fields = { "q[f] << 2 & 0x3c3c3c3c", "q[f] >> 2 & 0x3c3c3c3c" }
  for i, four in ipairs(v.BYTE == "e2m1" and fields or four_codes(w, v)) do
    w("a[${I}] = ${CODES};", { I = i - 1, CODES = four })
  end
end

local function bytes_permute(w)
  w [[
    const u32 three = q[f] & 0x77777777, fourth = (q[f] & 0x88888888) >> 1 | 0x32103210;
    u32 half[2]; /* first, second of the pairs: of four values each */
    #pragma unroll
    for (int h = 0; h < 2; h++)
      half[h] = prmt(prmt(table[0], table[1], three >> 16 * h), prmt(table[2], table[3], three >> 16 * h),
                     fourth >> 16 * h);
    a[0] = prmt(half[0], half[1], 0x6420), a[1] = prmt(half[0], half[1], 0x7531);
  ]]
end

local function bytes_memory(w, v)
  for i, four in ipairs(four_codes(w, v)) do w("a[${I}] = look_up(${CODES});", { I = i - 1, CODES = four }) end
end

-- Which of the above, and what it needs in front.
local function method(v)
  local m, h = v.format.map, cuda.half[v.HALF]
  local permute = #v.slices == 1 and v.slices[1].bits == 4
  if v.BYTE and (m.kind == "float" or v.BYTE == "e2m1" or v.RAW) then return bytes_same end
  if v.BYTE then return m.kind == "int" and v.INTEGER and int_bytes or permute and bytes_permute or bytes_memory end
  if m.kind == "float" then return v.format.bits == 8 and float_narrow or float_same end
  if m.kind == "table" and codes.is_e2m1(m) then return four_bit_float end
  if m.kind == "table" then return permute and table_permute or table_memory end
  if v.format.bits > h.significand then return int_wide end
  return #v.slices == 1 and int_one_slice or int_slices
end

local function entry_bits(v)
  local out, m = {}, v.format.map
  for i, x in ipairs(m.values) do
    out[i] = v.INTEGER and math.tointeger(x / m.unit) & 255 or types.code(v.BYTE or v.HALF, x)
  end
  return out
end

-- Byte b of the 16 entries in four words.
local function words_of_bytes(v, b)
  local bits, out = entry_bits(v), {}
  for i = 0, 3 do
    local word = 0
    for j = 0, 3 do word = word | (bits[4 * i + j + 1] >> 8 * b & 255) << 8 * j end
    out[i + 1] = ("0x%08x"):format(word)
  end
  return table.concat(out, ", ")
end

local function table_of_entries(w, v, type)
  local bits, lines = entry_bits(v), {}
  for i, b in ipairs(bits) do
    lines[(i - 1) // 8 + 1] = (lines[(i - 1) // 8 + 1] or "") .. (type == "u8" and "0x%02x, " or "0x%04x, "):format(b)
  end
  w("static __device__ const ${TYPE} table[${COUNT}] = { /* the code map */\n    ${ROWS}\n};",
    { TYPE = type, COUNT = #bits, ROWS = table.concat(lines, "\n") })
end

local before = {
  [float_narrow] = function(w, v) codes.narrow(w, v, v.format.map.type) end,
  [int_wide] = function(w)
    w [[
      /* The f32 whose bits are 0x4b0000 and the byte chosen: 2^23 + byte. */
      fn float magic(u32 word, u32 selector) { return __uint_as_float(prmt(word, 0x4b000000, selector)); }
    ]]
  end,
  [table_permute] = function(w, v)
    w "static __device__ constexpr u32 table[2][4] = { /* the code map: low bytes, high bytes */"
    w("    {${ROW}},", { ROW = words_of_bytes(v, 0) })
    w("    {${ROW}}};", { ROW = words_of_bytes(v, 1) })
  end,
  [bytes_permute] = function(w, v)
    w("static __device__ constexpr u32 table[4] = {${ROW}}; /* the code map */", { ROW = words_of_bytes(v, 0) })
  end,
  [table_memory] = function(w, v) table_of_entries(w, v, "u16") end,
  [bytes_memory] = function(w, v)
    table_of_entries(w, v, "u8")
    w [[
      fn u32 look_up(u32 c) {
        return table[c & 255] | table[c >> 8 & 255] << 8 | table[c >> 16 & 255] << 16 | table[c >> 24] << 24;
      }
    ]]
  end,
}

-- fragment(): see above.
function codes.fragment(w, v)
  local how = method(v)
  if before[how] then before[how](w, v) end
  if how == int_wide then v.ZERO = cuda.f32(8388608 - v.format.map.bias) end
  w(v.BYTE and "/* Fragment f of a record: four ${VALUES} in each of a0, row g, and a1, row g + 8. */"
    or "/* Fragment f of a record: map(q) in ${HALF}, registers a0 .. a3. */",
    { VALUES = v.ZERO_PLANE and "codes" or v.INTEGER and "signed values" or v.BYTE })
  w.push "fn void fragment(const u32 *q, int f, u32 *a) {"
  how(w, v)
  w.pop "}"
  w.blank()
end

return codes
