-- disturbed.lua - is a time believed that was taken while the machine did something else? Run on a quiet machine:
--
--   quernel run tests/bench/disturbed.lua [PROBLEM [M,M,…]]
--
-- A problem is tuned with one busy process for each CPU beside it: none, for half of the time, for all of it. Each
-- winner is then timed again in quiet. What tune said must be right within the spreads, or marked; and a second tune
-- must leave nothing marked. tests/test_sample.c asks the same of a machine that is simulated. Exit status 1: a wrong
-- time was not marked, or a mark stayed.
local q = require "quernel"
local problem, ms = arg[1] or "int4.g128:1024x1024:i8", {}
for m in (arg[2] or "1,16"):gmatch "%d+" do ms[#ms + 1] = math.tointeger(tonumber(m)) end
local device, doubted = assert(q.device "host"), q.import "lua.common".doubted

-- Busy processes for so many seconds, at the most; they end when the value is closed.
local function disturb(seconds)
  local pids = {}
  for i = 1, seconds > 0 and device.threads or 0 do
    local out <close> = assert(io.popen(
      ("timeout %d sh -c 'while :; do :; done' >/dev/null 2>&1 & echo $!"):format(math.ceil(seconds))))
    pids[i] = out:read "l"
  end
  return setmetatable({}, { __close = function()
    if #pids > 0 then os.execute("kill " .. table.concat(pids, " ") .. " 2>/dev/null") end
  end })
end

local store = assert(q.native.scratch()) -- a store of its own, which goes at the end
io.stdout:setvbuf "line"

-- A tuning with these options, and the seconds that it took.
local function tuned(options)
  local start = q.clock()
  local t = { problems = { problem }, m = ms, store = store:path(), dense = false, device = device.name }
  for key, x in pairs(options) do t[key] = x end
  return assert(q.tune(t)), q.clock() - start
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
local pack = store:path() .. "/x.qpack"
tuned { check_only = true } -- compiles and verifies: what follows only takes times
for _, share in ipairs { 0, 0.5, 1 } do
  local result, seconds
  do
    local _ <close> = disturb(share == 1 and 3600 or share * quiet_seconds)
    result, seconds = tuned { retime = true }
  end
  if share == 0 then quiet_seconds = seconds end
  assert(q.pack(result, pack))
  local known = points(result)
  for _, x in ipairs(assert(assert(q.open(pack, { device = device.name })):bench { m = ms })) do
    local said = known[x.m]
    local wrong = math.abs(said.seconds / x.seconds - 1)
    local verdict = said.disturbed and "marked" or wrong <= said.spread + x.spread and "right"
      or (doubted(x.spread, x.disturbed) or doubted(said.spread)) and "?" or ("%.0f%% WRONG"):format(100 * wrong)
    if verdict:find "WRONG" then faults = faults + 1 end
    rows[#rows + 1] = { ("%.0f%%"):format(100 * share), x.m, ("%.1f"):format(said.seconds * 1e6),
      ("%.1f%%"):format(100 * said.spread), ("%.1f"):format(x.seconds * 1e6), ("%.1f%%"):format(100 * x.spread),
      verdict }
  end
  local before, again = marked(known), tuned {}
  print(("busy %.0f%% of the time: %d of %d times marked; %d samples void, %d disturbed; the next tune took %d again")
    :format(100 * share, before, #ms, result.counts.thrown, result.counts.disturbed, again.counts.again))
  if again.counts.disturbed == 0 and marked(points(again)) > 0 then faults = faults + 1 end
end
q.table(rows)
return faults > 0 and 1 or 0
