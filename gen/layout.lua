-- layout.lua - layouts: bijections from planes to packed bytes, as tables of digits (runtime/desc.h has the meaning).
--
--   layout.make{ name = "host.panel", tile = { 32, 128 }, format = f, sections = {
--     { outer = { n(0, 32), k(0, 128) },                 -- 0: as many as cover the padded axis
--       plane("scale", { n(32) }),
--       codes(0, 4, { k(16, 8), n(32), k(8) }) } } }
--
-- n(size, stride) and k(size, stride) are digits, slowest first. make() checks that every section covers every element
-- of its planes (of the codes exactly once), and derives sizes: record bytes, field offsets, records of a section
-- over N and K. Each section begins at a multiple of 256 bytes.

local check = require "gen.check"
local expr = require "gen.expr"
local types = require "gen.types"
local layout = {}

local function digit(axis, size, stride)
  for _, x in ipairs { size, stride or 1 } do
    if math.type(x) ~= "integer" or x < 0 then
      error(("%s(size, stride): whole numbers from 0 on, not %s"):format(axis, check.described(x)), 3)
    end
  end
  return { axis, size, stride or 1 }
end
function layout.n(size, stride) return digit("n", size, stride) end
function layout.k(size, stride) return digit("k", size, stride) end

-- A field holding bits [lo, lo + bits) of the codes.
function layout.codes(lo, bits, digits) return { plane = "codes", lo = lo, bits = bits, digits = digits } end
-- A field holding another plane, stored as `type` (default: the plane's own).
function layout.plane(name, digits, type) return { plane = name, type = type, digits = digits } end

-- Split a code width into slices of 1, 2, 4, 8, 16 or 32 bits, widest first: 5 = 4 + 1. Returns { {lo, bits}… }.
function layout.slices(bits)
  local out, lo = {}, 0
  for _, w in ipairs { 32, 16, 8, 4, 2, 1 } do
    if bits - lo >= w then out[#out + 1] = { lo = lo, bits = w }; lo = lo + w end
  end
  return out
end

local function fail(name, text, ...) error(("layout %s: " .. text):format(name, ...), 0) end

-- Digits along one axis, by stride, must chain: each starts where those below it end. A plane of which `share` weights
-- have one element (0: all) may start a digit earlier and so repeat elements.
local function check_chain(name, digits, axis, share, repeats, what)
  if share == 0 then return end
  local list, reach = {}, share
  for _, d in ipairs(digits) do if d[1] == axis and d[2] ~= 1 then list[#list + 1] = d end end
  table.sort(list, function(a, b) return a[3] < b[3] end)
  for i, d in ipairs(list) do
    if d[3] > reach or d[3] < reach and not repeats then
      fail(name, "%s: digit %s(%d, %d) should have stride %d", what, axis, d[2], d[3], reach)
    end
    if d[2] == 0 then
      if i ~= #list then fail(name, "%s: an open digit must have the largest stride", what) end
      return
    end
    reach = math.max(reach, d[3] * d[2])
  end
end

local fields = { name = "string", tile = "list", format = "table", sections = "list" }
local section_fields = { outer = "list", ["[]"] = "table" }

function layout.make(spec)
  local what = check.fields(spec, fields, "layout")
  for i, s in ipairs(spec.sections) do check.fields(s, section_fields, ("%s: sections[%d]"):format(what, i)) end
  local f, name, tile = spec.format, spec.name, spec.tile
  local l = { name = name, tile = tile, sections = {}, format = f }
  local N, K = expr.var "N", expr.var "K"
  local covered = {}
  for s, sec in ipairs(spec.sections) do
    local out = { outer = sec.outer, fields = {} }
    local record, count = 0, expr.const(1)
    for _, d in ipairs(sec.outer) do
      count = count * (d[2] == 0 and expr.ceildiv(expr.ceildiv(d[1] == "n" and N or K, tile[d[1] == "n" and 1 or 2]) *
        tile[d[1] == "n" and 1 or 2], d[3]) or d[2])
      local size = tile[d[1] == "n" and 1 or 2]
      if d[2] == 0 and size % d[3] ~= 0 and d[3] % size ~= 0 then
        fail(name, "the tile (%d x %d) and an outer stride of %d: neither is a multiple of the other",
          tile[1], tile[2], d[3])
      end
    end
    for _, field in ipairs(sec) do
      local plane = field.plane ~= "codes" and f.planes[f.planes[field.plane] or 0]
      if field.plane ~= "codes" and not plane then fail(name, "format %s has no plane %s", f.name, field.plane) end
      local kind = field.type or (plane and plane.type) or (field.bits <= 8 and "u8" or "u" .. field.bits)
      local bits = plane and types.all[kind].bits or field.bits
      local all = { table.unpack(sec.outer) }
      table.move(field.digits, 1, #field.digits, #all + 1, all)
      local label = field.plane .. (plane and "" or (" bits %d+%d"):format(field.lo, field.bits))
      check_chain(name, all, "n", plane and plane.rows or 1, plane, label)
      check_chain(name, all, "k", plane and plane.cols or 1, plane, label)
      local elements = 1
      for _, d in ipairs(field.digits) do elements = elements * d[2] end
      if elements * bits % 8 ~= 0 then
        fail(name, "%s: %d elements of %d bits are not whole bytes", label, elements, bits)
      end
      out.fields[#out.fields + 1] = { plane = field.plane, type = kind, lo = field.lo or 0, bits = bits,
        digits = field.digits, offset = record, bytes = elements * bits // 8 }
      out.fields[label] = out.fields[#out.fields]
      out.fields[field.plane] = out.fields[field.plane] or out.fields[#out.fields]
      record = record + elements * bits // 8
      covered[field.plane] = (covered[field.plane] or 0) + (plane and 1 or bits)
    end
    out.record = record
    out.count = count
    l.sections[s] = out
  end
  if covered.codes ~= f.bits then fail(name, "%d of %d code bits are stored", covered.codes or 0, f.bits) end
  for _, p in ipairs(f.planes) do
    if covered[p.name] ~= 1 then fail(name, "plane %s is stored %d times", p.name, covered[p.name] or 0) end
  end
  return l
end

-- Descriptor for C (runtime/desc.h: qn_layout).
-- `pairs_rows`: rows of a gate and of an up projection alternate.
function layout.descriptor(l, pad_code, pairs_rows)
  local sections = {}
  for i, s in ipairs(l.sections) do
    local list = {}
    for j, x in ipairs(s.fields) do
      list[j] = { plane = x.plane, type = x.type, lo = x.lo, bits = x.bits, digits = x.digits }
    end
    sections[i] = { outer = s.outer, fields = list }
  end
  return { name = l.name .. (pairs_rows and ".pairs" or ""), tile = l.tile, pad_code = pad_code,
    pairs = pairs_rows or nil, sections = sections }
end

return layout
