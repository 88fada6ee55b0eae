-- int5.lua - a new weight format from a script: what a code means is written once, kernels follow.
--
--     quernel run templates/examples/int5.lua [NxK]
--
-- The rule below is all that is known of the format. The reference, the packing, the checks and the kernels of every
-- family that can take 5-bit codes come from it. To keep the format, move q.format's table to templates/formats.

local q = require "quernel"
local shape = ... or "1024x1024"

q.format {
  name   = "int5",
  doc    = "5-bit codes, a scale and optionally a zero point per group",
  bits   = 5,
  group  = { 128, 64, 32, "row" },
  planes = { scale = { "f16", "bf16", "f32" }, zero = { "none", "u5", "f16" } }, -- "none": the midpoint 16
  decode = function(code, p) return (code - p.zero) * p.scale end,
}

-- Tune it on the host, for one token and for sixteen.
local problem = "int5.g128:" .. shape
local result = assert(q.tune { problems = { problem }, m = { 1, 16 }, effort = "quick",
  device = "host", progress = q.progress() })

local rows = { { "problem", "M", "winner", "us", "of f32" } }
for _, plan in ipairs(result.plans) do
  if plan.kind == "fastest" and plan.n > 0 then
    for _, r in ipairs(plan.ranges) do
      for _, x in ipairs(r.points) do
        rows[#rows + 1] = { plan.problem, x.m, r.variant, ("%.1f"):format(x.seconds * 1e6), ("%.2fx"):format(x.dense_seconds / x.seconds) }
      end
    end
  end
end
q.table(rows)
print(("%d variants compiled, %d verified, %d rejected"):format(result.counts.compiled, result.counts.verified, result.counts.rejected))

-- The same format on a GPU that need not be here: do its kernels compile?
if #q.kernels "cuda" > 0 then
  local variants = q.variants("int5.g128:4096x4096:f16-f16", q.arch "sm_90a", { space = "reduced" })
  local compiled = 0
  for i, o in ipairs(assert(q.compile(variants))) do
    if o.ok then compiled = compiled + 1 else print(variants[i].name .. ": " .. o.why) end
  end
  print(("sm_90a: %d of %d variants compile"):format(compiled, #variants))
end
