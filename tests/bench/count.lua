-- count.lua - what the loop of a host kernel is made of, per product, and which bound that sets. AVX-512 on x86-64.
--
--   quernel run tests/bench/count.lua VARIANT…        names as quernel tune and quernel kernels --list print them
--
-- The kernel is compiled as the tuner does it, and objdump takes it apart. Counted is what the tile with all rows
-- executes for a record of the weight, in units of a product: one vpdpbusd or vdpbf16ps on vectors of 64 bytes. Sums
-- are settled by products in f32, which the same pipes do.
--
-- The bound is that of a core which starts, each cycle, one vector of 64 bytes in its multipliers, two in all its
-- vector units, one load of such a vector (broadcasts are loads, too), and six instructions: Zen 4. Peak is a product a
-- cycle; B/cycle are the bytes of codes (with record layouts of scales, too) that go by at the bound.
local q = require "quernel"
local is_product = { vpdpbusd = true, vdpbf16ps = true }

-- Instructions of an image: { at, name, operands }.
local function disassemble(image)
  local path = os.tmpname()
  local f <close> = assert(io.open(path, "wb"))
  f:write(image)
  f:flush()
  local list = {}
  for line in assert(io.popen("objdump -d --no-show-raw-insn -M att " .. path)):lines() do
    local at, name, operands = line:match "^%s*(%x+):%s+(%S+)%s*(.*)$"
    if at then list[#list + 1] = { at = tonumber(at, 16), name = name, operands = operands } end
  end
  os.remove(path)
  return list
end

-- Loops, by jumps backwards: { first, last } in the list.
local function loops(list)
  local index, out = {}, {}
  for i, x in ipairs(list) do index[x.at] = i end
  for i, x in ipairs(list) do
    local to = x.name:match "^j" and index[tonumber(x.operands:match "^(%x+)" or "", 16)]
    if to and to <= i then out[#out + 1] = { first = to, last = i } end
  end
  return out
end

local function count(list, first, last)
  local c = { products = 0, multipliers = 0, vectors = 0, loads = 0, instructions = 0, settles = 0 }
  for i = first, last do
    local name, operands = list[i].name, list[i].operands
    local function add(key, yes) if yes then c[key] = c[key] + 1 end end
    local settles, vector = name:match "^vf?n?mul" or name:match "^vfn?m", operands:find "%%zmm"
    add("products", is_product[name])
    add("settles", settles)
    add("multipliers", is_product[name] or vector and settles)
    add("vectors", vector and not name:match "^vmov" and not name:match "broadcast")
    add("loads", name:match "^v" and operands:find "%(" and not operands:find "%)$")
    add("instructions", true)
  end
  return c
end

-- The loop within another that holds the fewest products, and how many.
local function innermost(list, all, outer)
  local inner, products
  for _, l in ipairs(all) do
    local within = l ~= outer and l.first >= outer.first and l.last <= outer.last
    local n = within and count(list, l.first, l.last).products or 0
    if n > 0 and (not inner or n < products) then inner, products = l, n end
  end
  return inner, products
end

-- What is executed for a record by the tile with all rows, which has so many products: the smallest loop that settles
-- sums and, with the loop within it run as often as needed, has that many. Of the tiles the one with most products at a
-- time.
local function record(list, total)
  local all, best = loops(list), nil
  for _, outer in ipairs(all) do
    local whole = count(list, outer.first, outer.last)
    local inner, products = innermost(list, all, outer)
    local within = inner and count(list, inner.first, inner.last)
    local rest = whole.products - (products or 0)
    local fits = whole.settles > 0 and whole.products > 0 and (not inner and whole.products == total
      or inner and within.settles == 0 and total > rest)
    local rows, size = products or whole.products, outer.last - outer.first
    if fits and (not best or rows > best.rows or rows == best.rows and size < best.size) then
      best = { whole = whole, within = within, rows = rows, size = size }
      best.more = inner and (total - rest) / products - 1
    end
  end
  if not best then return end
  for key, n in pairs(best.within or {}) do best.whole[key] = best.whole[key] + best.more * n end
  return best.whole
end

local rates = { { "multipliers", 1 }, { "vectors", 2 }, { "loads", 1 }, { "instructions", 6 } }

local function report(name)
  local family, problem, values = name:match "^([^/]+)/([^/]+/[^/]+)/(.*)$"
  assert(family, name .. ": no name of a variant")
  local p = q.problem((problem:gsub("/", ":4096x4096:")), "host")
  local params = assert(q.gen.kernel.params(q.gen.kernel.family(family), values))
  local v = assert(q.variant(p, assert(q.device "host"), family, params))
  local text = q.source(v)
  local function size(what) return tonumber(text:match("[^%w]" .. what .. " = (%d+),")) end
  local products = size "KR" // size "V" * size "MR" * size "NR" // size "LANES"
  local c = assert(record(disassemble(assert(q.compile { v })[1].image), products),
    name .. ": no loop with so many products was found")
  local cycles, why = 0, ""
  for _, r in ipairs(rates) do
    local least = c[r[1]] / r[2] / products
    if least > cycles then cycles, why = least, r[1] end
  end
  print(("%-64s %11.2f %7.2f %5.2f %12.2f %6.0f%% %7.1f  %s"):format(name, c.multipliers / products,
    c.vectors / products, c.loads / products, c.instructions / products, 100 / cycles,
    size "RECORD" / products / cycles, why))
end

print(("%-64s %11s %7s %5s %12s %7s %7s  %s"):format("variant", "multipliers", "vectors", "loads", "instructions",
  "peak", "B/cycle", "bound"))
for _, name in ipairs(arg) do report(name) end
