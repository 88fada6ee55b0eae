local common = require "lua.common"

local function problems_of(q, options)
  local list, acts = {}, options.act and common.split(options.act, "--act") or { false }
  local function add(base) for _, act in ipairs(acts) do list[#list + 1] = act and base .. ":" .. act or base end end
  for _, p in ipairs(options.problem or {}) do add(p) end
  if options[1] then
    local model = common.check(q.model(options[1]))
    local groups = common.check(model:groups())
    if #groups == 0 then common.fail(options[1] .. ": holds no linear layer") end
    for _, g in ipairs(groups) do
      common.check(model:check(g))
      add(("%s:%dx%d"):format(g.format, g.n, g.k))
    end
  end
  if #list == 0 then common.misuse("tune: a MODEL or --problem P is needed") end
  return list
end

local function ranges(plan)
  local out = {}
  for i, r in ipairs(plan.ranges) do
    local next_min = plan.ranges[i + 1] and plan.ranges[i + 1].m_min
    out[i] = next_min and (r.m_min == next_min - 1 and tostring(r.m_min) or ("%d-%d"):format(r.m_min, next_min - 1)) or r.m_min .. "-"
  end
  return out
end

-- One row per problem and range: the time at the tuned M, and what it means.
local function print_table(result)
  local rows = { { "problem", "M", "winner", "us", "GB/s", "GFLOP/s", "of roof", "vs dense", "error" } }
  local slower = {}
  for _, p in ipairs(result.plans) do
    if p.kind == "fastest" and p.n > 0 then
      local names = ranges(p)
      for i, r in ipairs(p.ranges) do
        local gbs, gflops = p.bytes / r.seconds / 1e9, 2.0 * r.m * p.n * p.k / r.seconds / 1e9
        local roof = r.bandwidth > 0 and r.m <= 16 and ("%.0f%%"):format(100 * gbs * 1e9 / r.bandwidth) or "-"
        local ratio = r.dense_seconds > 0 and r.dense_seconds / r.seconds
        rows[#rows + 1] = { i == 1 and p.problem or "", names[i], r.variant:match "([^/]+)/" .. " " .. r.variant:match "[^/]+$", ("%.1f"):format(r.seconds * 1e6),
          ("%.1f"):format(gbs), ("%.1f"):format(gflops), roof, ratio and ("%.2fx"):format(ratio) or "-", ("%.1e"):format(r.error) }
        if ratio and ratio < 1 then slower[#slower + 1] = ("%s at M=%d runs at %.2fx of dense f32"):format(p.problem, r.m, ratio) end
      end
    end
  end
  common.table(rows)
  print "roof: bytes of weights over the bandwidth a plain read had at the time (M up to 16); error: share of the allowed bound"
  for _, line in ipairs(slower) do print("slower than dense: " .. line) end
end

return {
  name = "tune", group = "Measuring", usage = "tune MODEL | --problem P [-o OUT.qpack]", summary = "measure kernels for a checkpoint's layers or for given problems; write a pack",
  options = { { "--problem", "P", "FORMAT:NxK[:ACT[-OUT]][+bias]; may be repeated", many = true }, { "--m", "LIST", "numbers of tokens to tune for", "1,4,16,64" },
    { "--act", "LIST", "activation types, each a problem of its own: f32, bf16, i8 (host); f16, bf16 (cuda)" }, { "--effort", "LEVEL", "quick, normal or full", "quick" },
    { "--budget", "SECONDS", "stop with the best so far" }, { "--device", "DEVICE", "host, cuda:0" }, { "--store", "DIR", "where evidence is kept" },
    { "-o", "FILE", "the pack to write" }, { "--no-dense", nil, "do not measure the dense product" }, { "--quiet", nil, "no progress" }, { "--json", nil, "print JSON" } },
  positional = { 0, 1 },
  run = function(q, options)
    local device = common.target(q, options)
    if not device.timed then common.fail(device.name .. ": an interpreter must not be timed; use verify") end
    local budget = options.budget and tonumber(options.budget)
    if options.budget and not (budget and budget > 0) then common.misuse("--budget: %q is no number of seconds", options.budget) end
    if not ({ quick = 1, normal = 1, full = 1 })[options.effort] then common.misuse("--effort: %q; known: quick, normal, full", options.effort) end
    local list, m = problems_of(q, options), common.tokens(options.m)
    if not options.json then print(("tuning %d problems on %s (%s)"):format(#list, device.name, device.product)) end
    local result = common.check(q.tune { problems = list, m = m, effort = options.effort, budget = budget, device = device.name,
      store = options.store, dense = not options["no-dense"], progress = common.progress(q, options.quiet or options.json) })
    local name = options.o or options[1] and options[1]:gsub("/+$", ""):match "[^/]+$":gsub("%.gguf$", "") .. ".qpack"
    if name then common.check(q.pack(result, name)) end
    if options.json then
      result.handle = nil
      result.pack = name
      print(q.json(result))
      return
    end
    print_table(result)
    local c = result.counts
    print(("compiled %d (known %d, failed %d); verified %d (known %d); timed %d (known %d); rejected %d; workers restarted %d")
      :format(c.compiled, c.compile_known, c.compile_failed, c.verified, c.verify_known, c.timed, c.timed_known, c.rejected, c.restarts))
    if name then print("pack: " .. name) end
  end,
}
