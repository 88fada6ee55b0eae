-- disturbed.lua - is a time believed that was taken while the machine did something else? Run on a quiet machine:
--
--   quernel run tests/bench/disturbed.lua [PROBLEM [M,M,…]]
--
-- A problem is tuned on a new store with one busy process for each CPU beside it: none, for half of the time, for all
-- of it. Each winner is then timed again in quiet. What tune said must be right within the spreads, or marked; and a
-- second tune on that store must leave nothing marked. tests/test_sample.c asks the same of a machine that is
-- simulated. Exit status 1: a wrong time was not marked, or a mark stayed.
local q = require "quernel"
local problem, ms = arg[1] or "int4.g128:1024x1024:i8", {}
for m in (arg[2] or "1,16"):gmatch "%d+" do ms[#ms + 1] = math.tointeger(tonumber(m)) end
local device = assert(q.device "host")

-- Busy processes for so many seconds, at the most. -> a function that ends them.
local function disturb(seconds)
  local pids = {}
  for i = 1, seconds > 0 and device.threads or 0 do
    local out <close> = assert(io.popen(
      ("timeout %d sh -c 'while :; do :; done' >/dev/null 2>&1 & echo $!"):format(math.ceil(seconds))))
    pids[i] = out:read "l"
  end
  return function()
    if #pids > 0 then os.execute("kill " .. table.concat(pids, " ") .. " 2>/dev/null") end
  end
end

local function tuned(store)
  local start = q.clock()
  local result = assert(q.tune { problems = { problem }, m = ms, store = store, dense = false, device = device.name })
  return result, q.clock() - start
end

local function marked(points)
  local n = 0
  for _, x in pairs(points) do n = n + (x.disturbed and 1 or 0) end
  return n
end

-- The points of the fastest plan, by M.
local function points(result)
  local out = {}
  for _, p in ipairs(result.plans) do
    for _, r in ipairs(p.kind == "fastest" and p.n > 0 and p.ranges or {}) do
      for _, x in ipairs(r.points) do out[x.m] = x end
    end
  end
  return out
end

local rows, faults, quiet_seconds = { { "busy", "M", "tune us", "spread", "quiet us", "spread", "verdict" } }, 0, 0
for _, share in ipairs { 0, 0.5, 1 } do
  local scratch = assert(q.native.scratch()) -- goes when it is collected
  local stop = disturb(share == 1 and 3600 or share * quiet_seconds)
  local result, seconds = tuned(scratch:path())
  stop()
  if share == 0 then quiet_seconds = seconds end
  local pack = scratch:path() .. "/x.qpack"
  assert(q.pack(result, pack))
  local known = points(result)
  for _, x in ipairs(assert(assert(q.open(pack, { device = device.name })):bench { m = ms })) do
    local said = known[x.m]
    local wrong = math.abs(said.seconds / x.seconds - 1)
    local verdict = said.disturbed and "marked" or wrong <= said.spread + x.spread and "right"
      or (x.disturbed or x.spread > 0.1 or said.spread > 0.1) and "?" or ("%.0f%% WRONG"):format(100 * wrong)
    if verdict:find "WRONG" then faults = faults + 1 end
    rows[#rows + 1] = { ("%.0f%%"):format(100 * share), x.m, ("%.1f"):format(said.seconds * 1e6),
      ("%.1f%%"):format(100 * said.spread), ("%.1f"):format(x.seconds * 1e6), ("%.1f%%"):format(100 * x.spread),
      verdict }
  end
  local before, again = marked(known), tuned(scratch:path())
  print(("busy %.0f%% of the time: %d of %d times marked; %d samples void, %d disturbed; the next tune took %d again")
    :format(100 * share, before, #ms, result.counts.thrown, result.counts.disturbed, again.counts.again))
  if again.counts.disturbed == 0 and marked(points(again)) > 0 then faults = faults + 1 end
end
q.table(rows)
return faults > 0 and 1 or 0
