-- types.lua - element types: what QN_TYPE_MAP in runtime/quernel.h says of them, and what follows from that.
--
--   types.all.e4m3   { name = "e4m3", bits = 8, bytes = 1, kind = "float", act = "scaled",
--                      exponent = 4, mantissa = 3, bias = 7, max = 448 }
--
-- kind: "unsigned", "signed", "float". act: "plain", X and Y may be of it; "scaled", X may, with a scale a token.

local types = { all = {}, names = {} }

-- Read the list as C writes it (qn__types_text), a line for each type.
function types.read(text)
  local kinds, acts = { UNSIGNED = "unsigned", SIGNED = "signed" }, { PLAIN = "plain", SCALED = "scaled" }
  for name, bits, kind, exponent, mantissa, as_x in text:gmatch "(%S+) (%d+) (%S+) (%d+) (%d+) (%S+)\n" do
    local t = { name = name, bits = math.tointeger(bits), kind = kinds[kind] or "float", act = acts[as_x] }
    t.bytes = t.bits // 8
    if t.kind == "float" then
      t.exponent, t.mantissa, t.ieee = math.tointeger(exponent), math.tointeger(mantissa), kind == "IEEE"
      t.bias = (1 << t.exponent - 1) - 1
      t.max = t.ieee and (2 - 2.0 ^ -t.mantissa) * 2.0 ^ t.bias or (2 - 2.0 ^ (1 - t.mantissa)) * 2.0 ^ (t.bias + 1)
    end
    if bits ~= "0" then types.all[name], types.names[#types.names + 1] = t, name end
  end
end

-- Do activations of this type come with a scale for each token?
function types.scaled(name) return types.all[name].act == "scaled" end

-- Names of the types for which `wanted` is true, those with scales last; as words: "f16, bf16 or f32".
function types.those(wanted)
  local out, scaled = {}, {}
  for _, name in ipairs(types.names) do
    local list = types.scaled(name) and scaled or out
    if wanted(types.all[name]) then list[#list + 1] = name end
  end
  return table.move(scaled, 1, #scaled, #out + 1, out)
end
function types.words(names)
  return table.concat(names, ", ", 1, #names - 1) .. (#names > 1 and " or " or "") .. names[#names]
end

-- Does type a hold every number of type b?
function types.holds(a, b)
  a, b = types.all[a], types.all[b]
  if a.kind ~= "float" then return a == b end
  if b.kind == "float" then return a.mantissa >= b.mantissa and a.exponent >= b.exponent end
  return a.mantissa + 1 >= b.bits - (b.kind == "signed" and 1 or 0) and a.max >= 2.0 ^ b.bits
end

-- ---- Numbers of narrow floats ---------------------------------------------------------------------------------------

-- The code of the number that is nearest to x, of two the even one; beyond the largest, infinity, where there is none
-- the largest.
function types.code(name, x)
  local t = types.all[name]
  local sign = (x < 0 or 1 / x < 0) and 1 << t.exponent + t.mantissa or 0
  local a, e = math.abs(x), 0
  local most = t.ieee and (1 << t.exponent) - 1 << t.mantissa or (1 << t.exponent + t.mantissa) - 2
  if a == 0 then return sign end
  if a > 2 * t.max then return sign | most end
  while a >= 2 do a, e = a / 2, e + 1 end
  while a < 1 and e > 1 - t.bias do a, e = a * 2, e - 1 end
  local scaled = a * 2.0 ^ t.mantissa
  local m = math.tointeger(scaled // 1)
  local rest = scaled - m
  if rest > 0.5 or (rest == 0.5 and m % 2 == 1) then m = m + 1 end
  return sign | math.min((e + t.bias - 1 << t.mantissa) + m, most)
end

-- The number that a finite code means.
function types.value(name, code)
  local t = types.all[name]
  local e, m = code >> t.mantissa & (1 << t.exponent) - 1, code & (1 << t.mantissa) - 1
  local a = (e == 0 and m or m + (1 << t.mantissa)) * 2.0 ^ (math.max(e, 1) - t.bias - t.mantissa)
  return code >> t.exponent + t.mantissa & 1 == 1 and -a or a
end

return types
