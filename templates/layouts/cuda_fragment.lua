-- cuda_fragment - weights in the order in which the lanes of a warp hold them for a tensor core.
--
-- mma.m16n8k16 wants a 16 x 16 piece of W in four registers of each lane, two neighbours along k in a register
-- (g = lane / 4, t = lane % 4):
--
--            k = 2t, 2t+1   2t+8, 2t+9
--   n = g          a0           a2            The A operand of wgmma is the same; two B operands of n8 are
--   n = g + 8      a1           a3            (a0, a2) and (a1, a3). So every family shares this layout.
--
-- A chunk is four such fragments, one behind the other along K, and is the record of the layout. A lane has
-- 32 codes of it, as 16 pairs, numbered (fragment, k + 8, n + 8), last fastest. A code of b bits is cut into slices,
-- 5 = 4 + 1; a slice of w bits is a field of its own: words of 32 bits, each with 16 / w pairs, the neighbours 16 bits
-- apart, so that one shift and one mask give both:
--
--   bit   0      w      2w           16     16+w
--         | p    | p+1  | p+2 ...    | p    | p+1 ...
--           k                          k + 1
--
-- The order of k within 16 is free as long as X has the same. Where activations have 8 bits, a lane takes four
-- neighbours, a word of X: 4t, 4t+2 in a0 and a1, 4t+1, 4t+3 in a2 and a3 (so the pairs of a0 and a2, 8 bits apart,
-- are in order).
--
-- A lane loads at most 16 bytes at once, so a field is [load][lane][words].
--
-- Other planes lie apart, each in one of three ways, so that a 16 x 16 piece has one element a row or one in all:
--
--   of the tensor               one element
--   of blocks of 16 c rows      f32, [group][n / 16]; c pieces repeat it
--   else                        [group][n], rows of a lane side by side: [g][n + 8]; rows of a block repeat it
--
-- A group is 16, 32, 64 or a multiple of 128 codes along K; of another multiple of 16, it is the largest of these that
-- divides it, and repeated. Groups of 16 and 32 of a chunk lie side by side, [chunk][n / 16][g][group][n + 8], so that
-- a lane has all elements that a record meets by one load. With groups of another number of codes, all planes of the
-- format have an element for each weight, [chunk][fragment][lane][register][k + 1].
--
-- Source: fragment tables of the PTX ISA, "Matrix Fragments for mma.m16n8k16"; the idea of packing in fragment order is
-- Marlin's (IST-DASLab).

local fragment = {}
local n, k = layout.n, layout.k

fragment.TILE_N, fragment.TILE_K = 64, 128 -- what N and K are padded to
local CHUNK = 64                           -- codes along K of a record

-- The three digits of k within 16: t, a2 after a0, the second of a pair.
local function order(act)
  if types.all[act].bytes == 1 then
    return { name = "cuda.fragment.x8", t = k(4, 4), a2 = k(2, 1), second = k(2, 2) }
  end
  return { name = "cuda.fragment", t = k(4, 2), a2 = k(2, 8), second = k(2, 1) }
end

-- The four binary digits of a pair's number, slowest first.
local function pair_digits(o) return { k(2, 32), k(2, 16), o.a2, n(2, 8) } end

-- A lane's share of a slice of w bits: bytes in all, bytes of a load.
function fragment.load_bytes(w) return 4 * w, math.min(16, 4 * w) end

local function log2(x) return x <= 1 and 0 or 1 + log2(x // 2) end

local function code_field(slice, o)
  local w, p = slice.bits, pair_digits(o)
  local _, load = fragment.load_bytes(w)
  local in_word = log2(16 // w)                    -- pairs of a word
  local in_load = log2(load * 4 // w)              -- pairs of a load
  local digits = { table.unpack(p, 1, 4 - in_load) }
  digits[#digits + 1] = n(8, 1)                    -- g
  digits[#digits + 1] = o.t
  table.move(p, 5 - in_load, 4 - in_word, #digits + 1, digits)
  digits[#digits + 1] = o.second
  table.move(p, 5 - in_word, 4, #digits + 1, digits)
  return layout.codes(slice.lo, w, digits)
end

local function gcd(a, b) return b == 0 and a or gcd(b, a % b) end

-- How plane p of a format is stored: type; `size`, bytes of an element; `rows` that share one (1, 16, 0: all); elements
-- of a row that lie side by side: `per`, of the `cols` weights along K (0: all).
function fragment.stored(p)
  local rows = p.rows % 16 > 0 and 1 or p.rows + p.cols > 0 and 16 or 0
  local type = rows == 16 and "f32" or p.type
  local group = p.cols % fragment.TILE_K == 0 and p.cols or gcd(p.cols, fragment.TILE_K)
  local per = group > 0 and math.max(1, CHUNK // group) or 1
  return { name = p.name, type = type, size = types.all[type].bytes, rows = rows, per = per, cols = group * per }
end

-- Does format f have groups that are not whole steps of the tensor core?
function fragment.fine(f)
  for _, p in ipairs(f.planes) do if p.cols % 16 > 0 then return true end end
  return false
end

local function fine_section(p, o)
  local all = pair_digits(o)
  return { outer = { n(0, 16), k(0, 64) },
    layout.plane(p.name, { all[1], all[2], n(8, 1), o.t, all[3], all[4], o.second }, p.type) }
end

local function plane_section(p)
  local s, digits = fragment.stored(p), {}
  local outer = { s.cols > 0 and k(0, s.cols) or nil }
  if s.rows > 0 then outer[#outer + 1] = n(0, 16) end
  if s.rows == 1 then digits[1] = n(8, 1) end
  if s.per > 1 then digits[#digits + 1] = k(s.per, s.cols // s.per) end
  if s.rows == 1 then digits[#digits + 1] = n(2, 8) end
  return { outer = outer, layout.plane(p.name, digits, s.type) }
end

-- The layout of format f for activations of type `act`.
function fragment.layout(f, act)
  local codes, o = { outer = { n(0, 16), k(0, 64) } }, order(act)
  for i, s in ipairs(layout.slices(f.bits)) do codes[i] = code_field(s, o) end
  local sections = { codes }
  local section = fragment.fine(f) and fine_section or plane_section
  for i, p in ipairs(f.planes) do sections[1 + i] = section(p, o) end
  return layout.make { name = o.name, tile = { fragment.TILE_N, fragment.TILE_K },
    format = f, sections = sections }
end

return fragment
