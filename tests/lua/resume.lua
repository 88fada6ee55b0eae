-- resume.lua STORE - a small tuning run for test_resume.c: portable C, two numbers of tokens. Prints what was done,
-- and what the store gained by it: compiled known artifacts, verified + timed, evidence; then what the plans say.
local q = require "quernel"
local store = arg[1]

local function seen()
  local e = (q.store.list(store) or {})[1]
  return e and e.artifacts or 0, e and e.evidence or 0
end

local artifacts, evidence = seen()
local r = assert(q.tune { problems = { "int4.g32:64x64:f32-f32" }, m = { 1, 4 }, device = "host", store = store,
  dense = false, fixed = { ISA = "c", NR = 16 } })
local c, artifacts_after, evidence_after = r.counts, seen()
local plans = {}
for _, p in ipairs(r.plans) do
  for _, x in ipairs(p.ranges) do plans[#plans + 1] = ("%s:%d:%s"):format(p.kind, x.m_min, x.variant) end
end
print(c.compiled, c.compile_known, artifacts_after - artifacts, c.verified + c.timed, evidence_after - evidence,
  c.rejected, table.concat(plans, " "))
