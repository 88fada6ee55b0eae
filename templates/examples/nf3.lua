-- nf3.lua - a weight format from a script: indices into a table of eight, small scales per 32 times one per 256.
--
--     quernel run templates/examples/nf3.lua [NxK]
--
-- The reference, the packing, the checks and the kernels follow from the rule. Kept: a file in templates/formats.
local q = require "quernel"
local values = { -1, -0.535, -0.2469, 0, 0.1833, 0.382, 0.623, 1 } -- quantiles of a normal distribution

q.format {
  name   = "nf3",
  doc    = "3-bit indices into a table, scales in two levels",
  bits   = 3,
  group  = "g32",
  planes = { scale = { "u6" }, d = { "f16" } },
  per    = { d = "g256" },
  decode = function(code, p) return q.lookup(values, code) * (p.d * p.scale) end,
}

local problem = "nf3:" .. (... or "1024x1024")
local tuned = assert(q.tune { problems = { problem }, m = { 1, 16 }, effort = "quick", device = "host" })
for _, plan in ipairs(tuned.plans) do
  for _, r in ipairs(plan.ranges) do
    for _, x in ipairs(r.points) do print(plan.kind, x.m, r.variant, ("%.1f us"):format(x.seconds * 1e6)) end
  end
end
