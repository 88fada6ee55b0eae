-- tune.lua - tune a problem and keep its pack.
--
--     quernel run tests/gpu/tune.lua PROBLEM DEVICE SECONDS PACK [CHOSEN.lua]
--
-- With a list of chosen variants only those are tried. What was measured is kept in the store ($QUERNEL_CACHE), so that
-- a run that was cut off goes on where it was. A device that must not be timed verifies a few of them.

local q = require "quernel"
local problem, device, budget, pack, list = table.unpack(arg)
local began = os.time()

-- int4.g128/f16-f16, in the middle of a name, says which problem it is for.
local function short(name) return (name:gsub("^([^/]+)/.*/([^/]+)$", "%1/%2")) end

local timed = q.device(device).timed
local chosen, n, found = {}, 0, 0
-- one that serves every M is among them
for i, name in ipairs(list and dofile(list) or {}) do chosen[name], n = timed or i % 8 == 2, i end
for _, v in ipairs(list and q.variants(problem, q.device(device)) or {}) do
  if chosen[short(v.name)] ~= nil then found = found + 1 end
end
if list then print(("chosen: %d of %d are variants of %s on %s"):format(found, n, problem, device)) end

local result = assert(q.tune { problems = { problem }, m = { 1, 16, 64, 256, 2048 }, device = device, space = "full",
  effort = list and "quick" or "normal", only = list and function(name) return chosen[short(name)] end, dense = false,
  check_only = not timed, budget = tonumber(budget), progress = q.progress() })
local c = result.counts
print(("%d compiled, %d verified (known %d), %d timed (known %d), %d rejected"):format(c.compiled, c.verified,
  c.verify_known, c.timed, c.timed_known, c.rejected))
if #result.plans > 0 then assert(q.pack(result, pack)) end

-- The first step that a budget ends has half of it. 124: what was left out may be asked for again (see run).
if timed and os.time() - began >= budget / 2 then
  print "the time may have been over before all was timed"
  os.exit(124, true)
end
