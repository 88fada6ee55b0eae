local common, evidence = require "lua.common", require "lua.evidence"

-- "12.3 us, spread 2.0%"
local function time_of(x)
  return ("%s us, spread %s"):format(common.us(x.seconds), common.spread(x.spread, x.disturbed))
end

-- What bounds a CUDA variant, and what the interpreter counts of one call.
local function bounds(q, v, device, outcome, m, experts)
  if v.target ~= "cuda" or not outcome.ok then return {} end
  local b = { m = m, occupancy = q.occupancy(v, outcome, device) }
  local counters, bytes, served = q.count(v, m, experts)
  if not counters then return { m = m, occupancy = b.occupancy, why = bytes } end
  local plan = { bytes = bytes, experts = v.problem.experts } -- bytes of one of them
  local read = common.read_bytes(q, plan, served, experts)
  b.weight = bytes * (plan.experts or 1)
  b.m, b.counters, b.roofline = served, counters, q.roofline(v, device, read, served)
  if b.roofline then b.predicted = q.predict(v, outcome, device, counters, b.roofline.bytes) end
  return b
end

local function show_bounds(q, b)
  local o, r, c = b.occupancy, b.roofline, b.counters
  if o then
    print(("occupancy  %d CTAs of %d threads on a multiprocessor, %s of its threads; limited by %s"):format(
      o.ctas, o.threads, common.percent(o.share), o.by))
  end
  if r then
    print(("bound      M = %d: %d bytes at the least, %.3g flop; %s us on a %s, by %s"):format(b.m, r.bytes, r.flops,
      common.us(r.seconds), r.product, r.by))
  end
  local p = b.predicted
  if p then
    print(("predicted  M = %d: issue %s us (%.2f instructions for a product), tensor cores %s, bytes %s; with %s that "
      .. "are fixed %s us on a %s, by %s"):format(b.m, common.us(p.issue), p.instructions, common.us(p.tensor),
      common.us(p.bytes), common.us(p.fixed), common.us(p.seconds), p.product, p.by))
  end
  if b.why then print("counted    nothing: " .. b.why) end
  if not c then return end
  local kinds = {}
  for _, name in ipairs(q.gen.format.sorted_keys(c.kinds)) do
    kinds[#kinds + 1] = ("%s %d"):format(name, c.kinds[name])
  end
  print(("counted    M = %d, by the interpreter: %d CTAs, %d warp instructions: %s"):format(b.m, c.ctas, c.warp_insns,
    table.concat(kinds, ", ")))
  print(("  global   %d bytes read, %d written; %d requests, %.2f sectors for 32 bytes asked for"):format(c.load_bytes,
    c.store_bytes, c.global_requests, c.global_sectors / math.max(1, c.global_ideal)))
  print(("  shared   %d requests, %.2fx of the passes that they take without bank conflicts"):format(c.shared_requests,
    c.shared_passes / math.max(1, c.shared_ideal)))
  print(("  products %d of tensor cores, %.3g flop; %d barriers"):format(c.mma, c.mma_flops, c.barriers))
  print(("  weights  %.2f bytes read for each, %.2f lanes a byte"):format(c.weight_distinct / b.weight,
    c.weight_asked / math.max(1, c.weight_distinct)))
  print(("  flight   %d bytes of a CTA at most%s"):format(c.flight_bytes, o and (", %d of a multiprocessor"):format(
    c.flight_bytes * o.ctas) or ""))
end

-- What a compilation came to; registers are known of CUDA kernels only.
local function compiled(v, o)
  if not o.ok then return "no: " .. o.why end
  local text = ("%d bytes in %.2f s"):format(o.size, o.seconds)
  if v.target ~= "cuda" or o.registers == 0 then return text end -- PTX has no registers yet
  return ("%s; %d registers, %d bytes of shared memory, %d bytes spilled"):format(text, o.registers,
    common.shared_memory(v, o), o.spills)
end

local function explain_variant(q, options)
  local m, more = table.unpack(common.tokens(options.m))
  if more then common.misuse("--m: one number of tokens, not %q", options.m) end
  local v, device = common.variant(q, options[1], options)
  local o = common.check(q.compile { v })[1]
  local known = evidence.known(q, options.store, options.device, function(e)
    return e.kind == "evidence" and (e.key:find(v.hash, 1, true) or evidence.finalist(e, v.hash)) ~= nil
  end)
  local b = bounds(q, v, device, o, m, common.spread_over(q, options))
  if options.json then
    print(q.json { name = v.name, hash = v.hash, family = v.family, params = v.params, flags = v.flags, arch = v.arch,
      layout = v.layout, recipe = v.recipe, ok = o.ok, why = o.why, registers = o.registers,
      shared = common.shared_memory(v, o), spills = o.spills, size = o.size, seconds = o.seconds, evidence = known,
      bounds = b })
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
  for _, s in ipairs(v.recipe.steps) do print(("launch     %s, grid %s"):format(s.entry, common.sizes(q, s.grid))) end
  print(("promises   %s, %s"):format(v.recipe.deterministic and "deterministic" or "not deterministic",
    v.recipe.batch_invariant and "batch-invariant" or "not batch-invariant"))
  print("compiled   " .. compiled(v, o))
  show_bounds(q, b)
  for _, e in ipairs(known) do
    local x = e.value
    local met = evidence.finalist(e, v.hash)
    local what = x.rejected and "rejected: " .. x.rejected or (met or x.seconds) and time_of(met or x)
      or ("verified, %.1g of the bound"):format(x.error or 0)
    print(("evidence   %s: %s"):format((e.key:gsub(" ?" .. v.hash, ""):gsub(" rounds=.*", "")), what))
  end
  if #known == 0 then print "evidence   none on this machine" end
end

-- A problem: what the rules leave, and the variants that were timed, by M.
local function explain_problem(q, options)
  local device = common.target(q, options)
  local p = common.ask(q.problem, options[1], device.target)
  local variants, report = q.variants(p, device, { space = "full" })
  local experts = common.spread_over(q, options)
  if experts then common.check(experts:fit { p }) end
  local by_m, order = evidence.timings(q, options.store, options.device, p.spelling .. (experts and experts.name or ""))
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
    print(("\nM = %d: %d variants timed: time, spread, where"):format(m, #by_m[m]))
    for i, x in ipairs(by_m[m]) do
      if i > options.top then break end
      local spread = common.spread(x.spread, x.disturbed)
      print(("  %10s us  %-8s  %-6s  %s"):format(common.us(x.seconds), spread, x.by, x.name))
    end
  end
end

return {
  name = "explain", usage = "VARIANT | PROBLEM", arguments = { 1, 1 },
  summary = "show what is known of a variant: launch, resources, evidence; or of a problem: rules, timings",
  about = "Bounds of a CUDA variant come from data sheets, counters from one call on the interpreter: no measurements.",
  examples = { "int4.g128:4096x4096", "VARIANT --arch sm_90a --m 1    # a name of kernels --list" },
  options = {
    { "--arch", "ARCH", "CUDA architecture", group = "Device", without = "--device" },
    { "--device", "DEVICE", "machine (default: this one)", group = "Device" },
    { "--shape", "[Ex]NxK", "N and K to show a variant for; of a stack ExNxK (E by default 8)",
      default = "4096x4096", group = "Problem" },
    { "--m", "M", "tokens of the call that is counted; the nearest that the variant serves", default = "16",
      group = "Problem" },
    common.experts,
    { "--store", "DIR", "where measurements are kept (default: as for tune)" },
    { "--top", "N", "variants to show for each M", default = "10" },
    { "--json", nil, "print JSON" },
  },
  run = function(q, options)
    options.top = common.whole(options, "top", 1)
    if options[1]:find "/" then return explain_variant(q, options) end
    return explain_problem(q, options)
  end,
}
