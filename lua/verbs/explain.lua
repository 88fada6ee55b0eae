local common = require "lua.common"

-- What the store of this machine knows: entries of evidence whose key has `word` in it.
local function evidence(q, options, word)
  local store, why = q.store.open(options.store, options.device)
  if not store then return nil, why end
  local out, list
  list, why = store:entries "evidence"
  if not list then return nil, why end
  out = {}
  for _, e in ipairs(list) do
    if e.key:find(word, 1, true) then out[#out + 1] = e end
  end
  table.sort(out, function(a, b) return a.key < b.key end)
  return out
end

local function explain_variant(q, options)
  local v, device = common.variant(q, options[1], options)
  local o = common.check(q.compile { v })[1]
  local known = evidence(q, options, v.hash) or {}
  if options.json then
    print(q.json { name = v.name, hash = v.hash, family = v.family, params = v.params, flags = v.flags, arch = v.arch,
      layout = v.layout, recipe = v.recipe, ok = o.ok, why = o.why, registers = o.registers,
      shared = common.shared_memory(v, o), spills = o.spills, size = o.size, seconds = o.seconds, evidence = known })
    return
  end
  print(("%s on %s"):format(v.name, device.name))
  print("hash       " .. v.hash)
  for _, p in ipairs(v.def.params) do
    print(("  %-12s %-8s %s"):format(p.name, tostring(v.params[p.name]), p.doc or ""))
  end
  print("needs      " .. (v.arch ~= "" and v.arch or "any CPU"))
  print(("serves     M from %d%s"):format(v.m_min, v.m_max > 0 and " to " .. v.m_max or " on"))
  print(("layout     %s, tile %d x %d"):format(v.layout.name, v.layout.tile[1], v.layout.tile[2]))
  for _, s in ipairs(v.recipe.steps) do print(("launch     %s, grid %s"):format(s.entry, q.json(s.grid))) end
  print(("promises   %s, %s"):format(v.recipe.deterministic and "deterministic" or "not deterministic",
    v.recipe.batch_invariant and "batch-invariant" or "not batch-invariant"))
  print(o.ok and ("compiled   %d bytes in %.2f s; registers %d, shared memory %d, spills %d"):format(o.size, o.seconds,
    o.registers, common.shared_memory(v, o), o.spills) or "refused    " .. o.why)
  for _, e in ipairs(known) do
    local x = e.value
    local what = x.rejected and "rejected: " .. x.rejected or x.seconds and common.us(x.seconds) .. " us"
      or ("verified, %.1g of the bound"):format(x.error or 0)
    print(("evidence   %s: %s"):format((e.key:gsub(" ?" .. v.hash, "")), what))
  end
  if #known == 0 then print "evidence   none on this machine" end
end

-- A problem: what the rules leave, and the variants that were timed, by M.
local function explain_problem(q, options)
  local device = common.target(q, options)
  local p = common.ask(q.problem, options[1], device.target)
  local variants, report = q.variants(p, device, { space = "full" })
  local known = evidence(q, options, "race " .. p.spelling .. " ") or {}
  local by_m, order = {}, {}
  for _, e in ipairs(known) do
    local m = math.tointeger(tonumber(e.key:match "M=(%d+)$"))
    if m and not by_m[m] then by_m[m], order[#order + 1] = {}, m end
    if m then table.insert(by_m[m], e.value) end
  end
  table.sort(order)
  for _, m in ipairs(order) do
    table.sort(by_m[m], function(a, b)
      local x, y = a.rejected and math.huge or a.seconds, b.rejected and math.huge or b.seconds
      if x ~= y then return x < y end
      return a.name < b.name
    end)
  end
  if options.json then
    local timed = {}
    for i, m in ipairs(order) do timed[i] = { m = m, variants = by_m[m] } end
    print(q.json { problem = p.spelling, device = device.name, families = report, variants = #variants, timed = timed })
    return
  end
  print(("%s on %s: %d variants"):format(p.spelling, device.name, #variants))
  for _, r in ipairs(report) do
    print(("\n%s: %d of %d candidates survive"):format(r.family, r.survivors, r.candidates))
    for _, x in ipairs(r.removed) do
      if x.count > 0 then print(("  rule %-14s removes %6d: %s"):format(x.rule, x.count, x.why)) end
    end
  end
  if #order == 0 then print "\nnothing of it was timed on this machine; quernel tune does" end
  for _, m in ipairs(order) do
    print(("\nM = %d: %d variants timed"):format(m, #by_m[m]))
    for i, x in ipairs(by_m[m]) do
      if i > tonumber(options.top) then break end
      local why = x.rejected and ": " .. x.rejected or ""
      print(("  %10s us  %s%s"):format(x.rejected and "-" or common.us(x.seconds), x.name, why))
    end
  end
end

return {
  name = "explain", usage = "VARIANT | PROBLEM", arguments = { 1, 1 },
  summary = "a variant: parameters, layout, launch, resources, evidence; a problem: rules and what was timed",
  options = {
    { "--arch", "ARCH", "CUDA architecture", group = "Device" },
    { "--device", "DEVICE", "machine (default: this one)", group = "Device" },
    { "--store", "DIR", "what was measured (default: as for tune)" },
    { "--top", "N", "so many variants for each M", default = "10" },
    { "--json", nil, "print JSON" },
  },
  run = function(q, options)
    common.number(options, "top", 1)
    if options[1]:find "/" then return explain_variant(q, options) end
    return explain_problem(q, options)
  end,
}
