-- resume.lua STORE - a small tuning run for test_resume.c: portable C, two numbers of tokens. Prints what was done,
-- and what the store gained by it: compiled known artifacts, verified + timed, evidence.
local q = require "quernel"
local store = arg[1]

local function seen()
  local e = (q.store.list(store) or {})[1]
  return e and e.artifacts or 0, e and e.evidence or 0
end

local artifacts, evidence = seen()
local r = assert(q.tune { problems = { "int4.g32:64x64:f32-f32" }, m = { 1, 4 }, device = "host", store = store, dense = false,
  fixed = { ISA = "c", NR = 16 } })
local c, artifacts_after, evidence_after = r.counts, seen()
print(c.compiled, c.compile_known, artifacts_after - artifacts, c.verified + c.timed, evidence_after - evidence, c.rejected)
