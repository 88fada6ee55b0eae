-- cuda_planes.lua - scales and zero points: where they lie, and what they do to a fragment or to a sum.
--
-- With W = map(q) * scale + offset, a tile of 16 rows needs the planes of two rows of a lane, g and g + 8; they are
-- neighbours in the layout. They come as f32, whatever they are stored as:
--
--   on the weight   w = T(map(q) * scale + offset)      one rounding to T: scale of type T alone: one multiplication of
--                                                       pairs; else fma in f32, then rounded
--   on the sum      Y += scale * sum over the group     map(q) is exact or rounded once; all else is f32
--
-- A zero point that is an integer is taken from the code beforehand, exactly.

local cuda = use "kernels/common/cuda"
local planes = {}

-- What the format asks for; written into v: ZERO_PLANE, OFFSETS, GROUPED, GROUP (codes that share all planes, 0: a row).
function planes.derive(v)
  v.ZERO_PLANE, v.OFFSETS = cuda.split_offset(v.format)
  v.GROUPED = cuda.grouped(v.format)
  v.GROUP = 0
  for _, p in ipairs(v.format.planes) do
    if p.cols > 0 then v.GROUP = v.GROUP > 0 and math.min(v.GROUP, p.cols) or p.cols end
  end
end

local pair_of = {
  f16 = { "u32", "f32_of_f16((u16)u)", "f32_of_f16((u16)(u >> 16))" },
  bf16 = { "u32", "f32_of_bf16((u16)u)", "f32_of_bf16((u16)(u >> 16))" },
  u8 = { "u16", "(float)(u & 255)", "(float)(u >> 8)" },
}

-- pair_TYPE(p): two neighbours of a plane; one_TYPE(p): the only one of a tensor, twice.
function planes.loads(w, v)
  local seen = {}
  for _, p in ipairs(v.format.planes) do
    local name = (p.rows == 0 and "one_" or "pair_") .. p.type
    if not seen[name] then
      seen[name] = true
      if p.type == "f32" then
        w("fn f32x2 ${NAME}(const u8 *p) { return {((const float *)p)[0], ((const float *)p)[${SECOND}]}; }",
          { NAME = name, SECOND = p.rows == 0 and 0 or 1 })
      else
        local t = pair_of[p.type]
        w([[
          fn f32x2 ${NAME}(const u8 *p) {
            const ${LOAD} u = *(const ${LOAD} *)p;
            return {${LOW}, ${HIGH}};
          }
        ]], { NAME = name, LOAD = p.rows == 0 and (p.type == "u8" and "u8" or "u16") or t[1], LOW = t[2],
          HIGH = p.rows == 0 and t[2] or t[3] })
      end
    end
  end
  if next(seen) then w.blank() end
end

-- Byte offset of a plane's section in a packed weight, an expression of n and k.
function planes.section(v, name)
  for _, s in ipairs(v.layout.sections) do
    if s.fields[name] then return expr.c(s.offset, { N = "(i64)n", K = "(i64)k" }) end
  end
end

-- The product of planes for row r, and the sum of the offset's terms.
function planes.product(names, coefficient, r)
  local out = {}
  for i, p in ipairs(names) do out[i] = ("%s.v[%s]"):format(p, r) end
  local text = table.concat(out, " * ")
  if coefficient == 1 and text ~= "" then return text end
  if text == "" then return cuda.f32(coefficient) end
  return coefficient == -1 and "-" .. text or cuda.f32(coefficient) .. " * " .. text
end

function planes.offset(terms, r)
  local out = {}
  for i, t in ipairs(terms) do out[i] = planes.product(t.planes, t.coefficient, r) end
  return #out > 0 and table.concat(out, " + ") or "0.0f"
end

-- Does one multiplication of pairs do? The scale is a single plane of type T.
local function native(v)
  local f = v.format
  return #v.OFFSETS == 0 and #f.scale == 1 and f.planes[f.planes[f.scale[1]]].type == v.HALF
end

function planes.precision(v)
  local how = {}
  local m = v.format.map
  if m.kind == "table" then how[1] = "the code map rounded to " .. v.HALF end
  if v.SCALE == "weight" then how[#how + 1] = "map(q) x scale rounded once to " .. v.HALF
  elseif #v.format.planes > 0 then how[#how + 1] = "scales applied to f32 sums" end
  how[#how + 1] = "f32 accumulation"
  return "precision: " .. table.concat(how, ", ")
end

-- struct terms, load_terms(), weigh(): what happens to a fragment of two rows. `v.SCALE` is "weight" or "sum".
function planes.terms(w, v)
  local f = v.format
  local weight, params = v.SCALE == "weight", {}
  if not v.TERMS then return end
  for i, p in ipairs(f.planes) do params[i] = ("const u8 *%s_at"):format(p.name) end
  w.push "struct terms { /* of the rows g and g + 8 of a tile, in one group */"
  if v.ZERO_PLANE then w "u32 zero[2]; /* minus the zero point, twice */" end
  if weight and native(v) then w "u32 scale[2]; /* twice */" else w "float scale[2];" end
  if #v.OFFSETS > 0 then w "float offset[2];" end
  w.pop "};"
  w.blank()
  w.push("fn terms load_terms(${PARAMS}) {", { PARAMS = table.concat(params, ", ") })
  for _, p in ipairs(f.planes) do
    w("const f32x2 ${NAME} = ${LOAD}_${TYPE}(${NAME}_at);", { NAME = p.name, LOAD = p.rows == 0 and "one" or "pair", TYPE = p.type })
  end
  w "terms t;"
  w "#pragma unroll"
  w.push "for (int r = 0; r < 2; r++) {"
  if v.ZERO_PLANE then w("t.zero[r] = pack2(-${NAME}.v[r], -${NAME}.v[r]);", { NAME = v.ZERO_PLANE }) end
  local scale = #f.scale > 0 and planes.product(f.scale, 1, "r") or "1.0f"
  if weight and native(v) then w("t.scale[r] = pack2(${S}, ${S});", { S = scale }) else w("t.scale[r] = ${S};", { S = scale }) end
  if #v.OFFSETS > 0 then w("t.offset[r] = ${TEXT};", { TEXT = planes.offset(v.OFFSETS, "r") }) end
  w.pop "}"
  w "return t;"
  w.pop "}"
  w.blank()

  w.push "fn void weigh(u32 *a, const terms &t) {"
  w "#pragma unroll"
  w.push "for (int r = 0; r < 4; r++) {"
  if v.ZERO_PLANE then w "a[r] = add2(a[r], t.zero[r & 1]);" end
  if weight and native(v) then
    w "a[r] = fma2(a[r], t.scale[r & 1], 0x80008000); /* -0: a product with its sign */"
  elseif weight then
    local offset = #v.OFFSETS > 0 and "t.offset[r & 1]" or "0.0f"
    w("a[r] = pack2(__fmaf_rn(low(a[r]), t.scale[r & 1], ${O}), __fmaf_rn(high(a[r]), t.scale[r & 1], ${O}));", { O = offset })
  end
  w.pop "}"
  w.pop "}"
  w.blank()
end

return planes
