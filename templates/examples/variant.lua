-- variant.lua - new kernels from a script, timed against those that are there.
--
--     quernel run templates/examples/variant.lua [PROBLEM [M]]        M: 1 to 8, 3 if not given
--
-- A family is a table, so a new one can be a copy with some fields changed. Two are made of host.gemv: `tall` has tiles
-- of three rows, which the stock family does not try; `prefetch` asks for records two and four times as far ahead.
-- They pass the same rules, the same checks against the reference and the same races as any other.

local q = require "quernel"
local problem, m = arg[1] or "int4.g128:1024x1024:bf16-f32", math.tointeger(tonumber(arg[2] or 3))
if not m or m < 1 or m > 8 then error(("M: %q is no number from 1 to 8"):format(arg[2])) end

-- A copy of family `base` under another name, with other values of some parameters.
local function derive(base, name, values)
  local def, params = {}, {}
  for key, x in pairs(q.gen.kernel.family(base)) do def[key] = x end
  for i, p in ipairs(def.params) do
    params[i] = { name = p.name, doc = p.doc, short = p.short, values = values[p.name] or p.values,
      quick = not values[p.name] and p.quick or nil }
  end
  def.name, def.params = name, params
  return q.kernel(def)
end

derive("host.gemv", "script.tall", { MR = { 3 }, PF = { 0 } })
derive("host.gemv", "script.prefetch", { MR = { 1 }, PF = { 8192, 16384 } })

-- First the stock families alone, then all: what was compiled, checked and timed once is remembered by the store. 64
-- tokens are tuned as well because the last range of a plan serves every larger M, which kernels for few tokens do not.
local rows = { { "families", "winner", "us", "of f32" } }
local function contest(what, only)
  local result = assert(q.tune { problems = { problem }, m = { m, 64 }, effort = "quick", device = "host",
    only = only, progress = q.progress() })
  for _, plan in ipairs(result.plans) do
    if plan.kind == "fastest" and plan.n > 0 then
      local r = plan.ranges[1]
      local x = r.points[1]
      rows[#rows + 1] = { what, r.variant, ("%.1f"):format(x.seconds * 1e6),
        ("%.2fx"):format(x.dense_seconds / x.seconds) }
    end
  end
  local c = result.counts
  print(("%s: %d variants verified (known %d), %d rejected"):format(what, c.verified, c.verify_known, c.rejected))
end

contest("stock", function(name) return not name:match "^script%." end)
contest("all", nil)
q.table(rows)
