-- evidence.lua - what the store of this machine knows of variants and problems; for explain and report.

local common = require "lua.common"
local evidence = {}

-- Entries of evidence and of plans, those that `wanted` takes, by key. root, device: as of q.store.open.
function evidence.known(q, root, device, wanted)
  if root then common.check(q.store.list(root)) end -- to ask makes no store
  local store = q.store.open(root, device)
  local out = {}
  for _, kind in ipairs(store and { "evidence", "plan" } or {}) do
    for _, e in ipairs(common.check(store:entries(kind))) do
      e.kind = kind
      if wanted(e) then out[#out + 1] = e end
    end
  end
  table.sort(out, function(x, y) return x.key < y.key end)
  return out
end

-- What a variant, by its hash, took in the finals of an entry; nil: it was not there.
function evidence.finalist(e, hash)
  for _, x in ipairs(e.value.finalists or {}) do
    if x.hash == hash then
      return { seconds = x.seconds, spread = x.spread, disturbed = e.value.disturbed, name = x.name }
    end
  end
end

-- What is known of a problem, by M: for each variant what it took in the finals, where it was there, else in the race.
-- A variant that was there more than once, beside others, took what the plan says; else what is last in the store.
-- -> { M = { { name, seconds, spread, disturbed, by }… } }, fastest first, and the M
function evidence.timings(q, root, device, spelling)
  local by_m, order, plan = {}, {}, {}
  local known = evidence.known(q, root, device, function(e)
    return e.key:find(spelling .. (e.kind == "plan" and " M=" or " "), 1, true) ~= nil
  end)
  local function note(m, hash, x, by)
    if not by_m[m] then by_m[m], order[#order + 1] = {}, m end
    local old = by_m[m][hash]
    if old and (by == "race" or old.seconds == plan[m]) then return end
    by_m[m][hash] = { name = x.name, seconds = x.seconds, spread = x.spread, disturbed = x.disturbed, by = by }
  end
  local function each(visit)
    for _, e in ipairs(known) do
      local m = math.tointeger(tonumber(e.key:match " M=(%d+)"))
      if m then visit(e, m) end
    end
  end
  each(function(e, m) if e.kind == "plan" then plan[m] = e.value.seconds end end)
  each(function(e, m)
    for _, x in ipairs(e.value.finalists or {}) do note(m, x.hash, evidence.finalist(e, x.hash), "finals") end
  end)
  each(function(e, m)
    local hash = e.key:match "^race %S+ (%x+)"
    if hash and e.value.seconds then note(m, hash, e.value, "race") end
  end)
  table.sort(order)
  for m, list in pairs(by_m) do
    local sorted = {}
    for _, x in pairs(list) do sorted[#sorted + 1] = x end
    table.sort(sorted, function(x, y)
      if x.seconds ~= y.seconds then return x.seconds < y.seconds end
      return x.name < y.name
    end)
    by_m[m] = sorted
  end
  return by_m, order
end

return evidence
