-- regret.lua - how much slower is what a search chose than the best of the whole space? Run on a quiet machine:
--
--   quernel run tests/bench/regret.lua STORE M,M,… PROBLEM…
--
-- Each problem is tuned with --effort quick and normal on the store. At each M what they chose and the fastest of the
-- race over the whole space, whatever its layout, meet in interleaved rounds. Regret is the median of the ratios of
-- rounds to the fastest there, less 1.
local q = require "quernel"
local rounds, best_of, patience = 31, 8, 300

local function median(list)
  table.sort(list)
  return (list[(#list + 1) // 2] + list[#list // 2 + 1]) / 2
end

-- What serves m in the fastest plan of a problem.
local function choice(result, problem, m)
  local name
  for _, p in ipairs(result.plans) do
    for _, r in ipairs(p.kind == "fastest" and p.problem == problem and p.ranges or {}) do
      if r.m_min <= m then name = r.variant end
    end
  end
  return name
end

-- Names of the variants that were fastest in the race.
local function fastest(store, problem, m)
  local list, out = {}, {}
  for _, e in ipairs(assert(store:entries "evidence")) do
    if e.key:find("race " .. problem .. " ", 1, true) and e.key:find(("M=%d$"):format(m)) and e.value.seconds then
      list[#list + 1] = e.value
    end
  end
  table.sort(list, function(a, b) return a.seconds < b.seconds end)
  for i = 1, math.min(best_of, #list) do out[i] = list[i].name end
  return out, #list
end

local function case_of(v, outcome, folder)
  local image = folder .. "/" .. v.hash
  local f <close> = assert(io.open(image, "wb"))
  f:write(outcome.image)
  return { problem = v.problem.spelling, format = q.gen.format.descriptor(v.problem.format), name = v.name,
    hash = v.hash, image = image, symbol = "", sum = "", layout = v.layout, recipe = v.recipe, m_min = v.m_min,
    m_max = v.m_max, m_tile = v.m_tile }
end

-- Let variants meet at m. -> { name = { seconds of each round } }, whether a sample was disturbed.
local function meet(device, list, m)
  local worker <close> = assert(q.native.worker(q.worker() or "quernel-worker", device.name))
  local scratch = assert(q.native.scratch()) -- goes when it is collected
  local outcomes, times, disturbed = assert(q.compile(list)), {}, false
  for i, v in ipairs(list) do
    assert(worker:ask(q.json { op = "open", slot = i - 1, m = m, case = case_of(v, outcomes[i], scratch:path()) },
      patience))
    times[v.name] = {}
  end
  for r = 1, rounds do
    for i = 1, #list do
      local slot = (i + r) % #list -- each round begins with another
      local answer = assert(worker:ask(q.json { op = "time", slot = slot, reps = 1 }, patience))
      times[list[slot + 1].name][r], disturbed = answer.seconds[1], disturbed or (answer.disturbed or 0) > 0
    end
  end
  return times, disturbed
end

local function regret(times, name)
  local best, least
  for other, t in pairs(times) do
    local seconds = median { table.unpack(t) }
    if not least or seconds < least then best, least = other, seconds end
  end
  local ratios = {}
  for r, t in ipairs(times[name]) do ratios[r] = t / times[best][r] end
  return median(ratios) - 1, least, best
end

local path, ms = arg[1], {}
for m in (arg[2] or ""):gmatch "%d+" do ms[#ms + 1] = math.tointeger(tonumber(m)) end
if not path or #ms == 0 or not arg[3] then
  error("usage: quernel run tests/bench/regret.lua STORE M,M,… PROBLEM…", 0)
end
local device = assert(q.device "host")
local rows, worst = { { "problem", "M", "timed", "best us", "quick", "normal", "best" } }, { quick = 0, normal = 0 }
for i = 3, #arg do
  local p, chosen = q.problem(arg[i], device.target), {}
  for _, effort in ipairs { "quick", "normal" } do -- in this order: the second goes on from the first
    local result = assert(q.tune { problems = { p.spelling }, m = ms, effort = effort, store = path, dense = false,
      device = device.name })
    chosen[effort] = function(m) return choice(result, p.spelling, m) end
  end
  local variants = {}
  for _, v in ipairs((q.variants(p, device, { space = "full" }))) do variants[v.name] = v end
  local store = assert(q.store.open(path, device.name))
  for _, m in ipairs(ms) do
    local names, timed = fastest(store, p.spelling, m)
    local list, seen = {}, {}
    for _, name in ipairs { chosen.quick(m), chosen.normal(m), table.unpack(names) } do
      if not seen[name] then list[#list + 1] = assert(variants[name], name) end
      seen[name] = true
    end
    local times, disturbed = meet(device, list, m)
    local row = { p.spelling, m, timed }
    for k, effort in ipairs { "quick", "normal" } do
      local share, least, best = regret(times, chosen[effort](m))
      worst[effort] = math.max(worst[effort], share)
      row[4], row[4 + k], row[7] = ("%.1f"):format(least * 1e6), ("%.1f%%"):format(100 * share), best
    end
    if disturbed then row[4] = row[4] .. " ?" end
    rows[#rows + 1] = row
  end
end
q.table(rows)
print(("largest regret: quick %.1f%%, normal %.1f%%"):format(100 * worst.quick, 100 * worst.normal))
