-- host_panel.lua - the layouts of the host families: W[N,K] cut into panels of NR columns, each one stream of records.
--
--            panel 0           panel 1                       record: KR values of k (groups) of NR columns
--   k0   +-------------+   +-------------+                +--------+--------+---------------+--------------+
--        |  record 0   |   |  record 0   |   host.record  | scales | zeros… | codes, slice 0 | slice 1 …   |
--   KR   +-------------+   +-------------+                +--------+--------+---------------+--------------+
--        |  record 1   |   |  record 1   |
--   2 KR +-------------+   +-------------+   host.split   the codes alone; each other plane in a section of its own
--
-- Of every plane a panel has NR elements side by side, for each group; what several columns share is repeated. A plane
-- with coarser groups than the finest (super-scales) has a section of its own in either layout.
--
-- A code of b bits is cut into slices of 1, 2, 4, 8, 16 or 32 bits (5 = 4 + 1). A 64-byte vector of a slice of w bits
-- holds 16 columns x 32 / w values of k; the lane of (n, k mod V) has them at shifts 0, w, 2w… for k / V = 0, 1, 2…
--
-- A layout depends on the problem (slices, group), on V, the values of k that the arithmetic wants side by side, and on
-- NR; never on tile, unrolling or prefetch: one packed weight serves every kernel of its problem with that panel.

local layouts = {}

local function code_fields(v)
  local out = {}
  for i, s in ipairs(v.slices) do
    local span = 32 // s.bits
    local digits = { layout.k(v.KR // span, span), layout.n(v.NR // 16, 16), layout.n(16) }
    if v.V > 1 then digits[#digits + 1] = layout.k(v.V) end
    digits[#digits + 1] = layout.k(v.LANE // s.bits, v.V)
    out[i] = layout.codes(s.lo, s.bits, digits)
  end
  return out
end

-- Is plane p stored with the codes?
function layouts.inside(v, p) return v.LAYOUT == "record" and p.cols == v.GROUP end

local function plane_field(v, p)
  local digits = { layout.n(v.NR) }
  if p.cols == v.GROUP and v.GROUPS > 1 then table.insert(digits, 1, layout.k(v.GROUPS, v.GROUP)) end
  return layout.plane(p.name, digits)
end

-- The layout of a variant with sizes V, LANE, KR, GROUP, GROUPS, slices and parameters NR, LAYOUT.
function layouts.make(v)
  local panels = layout.n(0, v.NR)
  local record = { outer = { panels, layout.k(0, v.KR) } }
  local sections = { record }
  for _, p in ipairs(v.format.planes) do
    local field = plane_field(v, p)
    if layouts.inside(v, p) then
      record[#record + 1] = field
    else
      local along_k = p.cols > 0 and layout.k(0, p.cols == v.GROUP and v.KR or p.cols) or nil
      sections[#sections + 1] = { outer = { panels, along_k }, field }
    end
  end
  for _, field in ipairs(code_fields(v)) do record[#record + 1] = field end
  return layout.make { name = ("host.%s.n%dv%d"):format(v.LAYOUT, v.NR, v.V), tile = { v.NR, v.KR }, format = v.format,
    sections = sections }
end

return layouts
