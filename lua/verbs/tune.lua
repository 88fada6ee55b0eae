local common = require "lua.common"

local function ranges(plan)
  local out = {}
  for i, r in ipairs(plan.ranges) do
    local after = plan.ranges[i + 1]
    local last = after and after.m_min - 1
    out[i] = not last and r.m_min .. "+" or last == r.m_min and tostring(last) or r.m_min .. "-" .. last
  end
  return out
end

-- What was measured at one M, as cells of the table.
local function cells(q, p, x, experts)
  if not x then return "-", "-", "-", "-", "-", "-", "-", "-", "-" end
  local bytes = common.read_bytes(q, p, x.m, experts)
  return tostring(x.m), common.us(x.seconds), common.spread(x.spread, x.disturbed), x.raced and "race" or "finals",
    common.gb(bytes, x.seconds), ("%.1f"):format(2.0 * x.m * p.n * p.k / x.seconds / 1e9),
    common.roof(bytes, x.seconds, x.bandwidth),
    x.dense_seconds > 0 and common.us(x.dense_seconds) .. (x.dense_disturbed and " ?" or "") or "-",
    common.ratio(x.dense_seconds > 0 and x.dense_seconds / x.seconds or nil)
end

-- One row for each problem and tuned M; one for a range in which there was no time for any.
local function show(q, result, device, experts)
  local rows = { { "problem", "serves M", "winner", "at M", "us", "spread", "by", "GB/s", "GFLOP/s", "of roof",
    "dense us", "ratio", "error" } }
  local slower = {}
  for _, p in ipairs(result.plans) do
    local names = ranges(p)
    for i, r in ipairs(p.kind == "fastest" and p.n > 0 and p.ranges or {}) do
      for j = 1, math.max(1, #r.points) do
        local x = r.points[j]
        local row = table.pack(p.problem, names[i], common.short(r.variant), cells(q, p, x, experts))
        row[#row + 1] = ("%.1g"):format(r.error)
        rows[#rows + 1] = row
        if x and x.dense_seconds > 0 and x.dense_seconds < x.seconds then
          slower[#slower + 1] = ("%s at M = %d"):format(p.problem, x.m)
        end
      end
    end
  end
  common.table(rows)
  print "spread: how far apart the rounds are: half of what lies between the outer tenths, as a share of us"
  print "by: finals, in turns with the next best; race, alone"
  print "of roof: GB/s, as a share of a plain read of memory at the same time; -: not measured"
  print "error: the largest difference from the reference, as a share of what is allowed: 1 is the limit"
  for _, text in ipairs(slower) do print("slower than the dense product: " .. text) end
  common.say_samples(rows, result.counts, device)
end

local function show_counts(c)
  local text = "compiled %d (known %d, failed %d); verified %d (known %d); timed %d (known %d, again %d); " ..
    "rejected %d; workers restarted %d"
  print(text:format(c.compiled, c.compile_known, c.compile_failed, c.verified, c.verify_known, c.timed, c.timed_known,
    c.again, c.rejected, c.restarts))
end

-- Problems of the model and those given, as spellings; names of layers that are left out.
local function gather(q, options, device)
  local acts = options.act and common.split(options.act, "--act") or nil
  local list, left_out, seen = {}, {}, {}
  for _, act in ipairs(acts or {}) do common.ask(q.problem, "f32:1x1:" .. act, device.target) end
  for _, p in ipairs(options.problem or {}) do
    for _, act in ipairs(acts or { false }) do
      local spelling = common.ask(q.problem, p, device.target, act or nil).spelling
      if not seen[spelling] then list[#list + 1] = spelling end
      seen[spelling] = true
    end
  end
  if options[1] then
    local found
    found, left_out = common.check(q.layer_problems(common.model(q, options[1], options), acts, options.partial,
      device, options.fused))
    table.move(found, 1, #found, #list + 1, list)
  end
  for _, name in ipairs { "partial", "include", "fused" } do
    if options[name] and not options[1] then common.misuse("--%s goes with a MODEL", name) end
  end
  if #list == 0 then common.misuse("a MODEL or --problem P is needed") end
  return list, left_out
end

local function pack_name(options)
  if options.o then return options.o end
  local model, part = options[1], options.shard and "-" .. options.shard:gsub("/", "-of-") or ""
  return model and model:gsub("/+$", ""):match("[^/]+$"):gsub("%.gguf$", ""):gsub("%.safetensors$", "") .. part
    .. ".qpack"
end

-- The problems of this run's shard. A shard may have none: there are more of them than problems.
local function of_shard(q, problems, options, device)
  local i, n = common.shard(options.shard)
  if not n then return problems end
  local mine = q.shard(problems, i, n, device.target)
  if options.json then return mine end
  print(("shard %s: %d of %s"):format(options.shard, #mine, common.count(#problems, "problem")))
  for _, spelling in ipairs(mine) do print("  " .. spelling) end
  if #mine == 0 then print("nothing is left for it, and no pack is written") end
  return mine
end

return {
  name = "tune", usage = "MODEL | --problem P [-o OUT.qpack]", arguments = { 0, 1 },
  summary = "measure kernels for a checkpoint's layers or for given problems, and write a pack",
  about = [[
Every variant is compiled, checked against a float64 reference, and timed with cold weights, as serving will see
them. The dense product (f32 on the host, f16 on a GPU) is timed in the same harness. What was measured is kept in
the store: a second run, or one after an interruption, goes on from there. What was taken while the machine was
busy is marked, and taken again by the next run.]],
  examples = {
    "model.gguf                      # writes model.qpack",
    "--problem int4.g128:4096x4096 --act bf16,i8 --m 1,64 -o x.qpack",
    "MODEL --budget 600 --effort full",
    "MODEL --shard 2/8 -o part-2.qpack    # on one of eight machines",
  },
  options = {
    { "--problem", "P", "FORMAT:[Ex]NxK[:[X~]ACT[-OUT]][EPILOGUE], e.g. int4.g128:4096x4096; may be repeated",
      many = true,
      group = "Problem" },
    { "--act", "LIST",
      "activation types: f32, bf16, i8, e4m3, e5m2 on the host, f32~i8 if X comes in f32 and the call rounds it; f16, "
      .. "bf16, i8, e4m3, e5m2 on CUDA (default: bf16, f16; another where the format needs it)", group = "Problem" },
    common.partial, common.include,
    { "--fused", nil, "also q, k and v as one weight, and gate and up, as quernel.torch serves them where it can",
      group = "Layers" },
    { "--m", "LIST", "numbers of tokens to tune for", default = "1,4,16,64,256", group = "Problem" },
    { "--device", "DEVICE", "host, host:THREADS, cuda:N (default: the first GPU, else the host)", group = "Device" },
    { "--effort", "LEVEL",
      "quick: the short space of variants, few rounds; normal: the full space; full: the same, more rounds",
      default = "quick", group = "Search" },
    common.experts,
    { "--budget", "SECONDS", "stop after this time, with the best found so far", group = "Search" },
    { "--family", "NAMES", "only these kernel families, separated by commas", group = "Search" },
    { "--fix", "NAME=VALUES", "only these values of a parameter; may be repeated", many = true, group = "Search" },
    { "--function", "NAME=LIBRARY:SYMBOL",
      "a function of your own (qn_function in quernel.h) as a further candidate; may be repeated", many = true,
      group = "Search" },
    { "--threads", "N", "threads for compiling (default: all cores)", group = "Search" },
    { "--shard", "I/N", "only the I-th of N parts of the problems, which are about as much work; merge joins the packs",
      group = "Search" },
    { "--retime", nil, "take every time again, whatever the store knows", group = "Search" },
    { "--no-dense", nil, "do not measure the dense product", group = "Search" },
    { "-o", "OUT.qpack", "the pack to write (default: the model's name; without a model, none)" },
    common.overwrite,
    { "--store", "DIR", "where measurements are kept (default: $QUERNEL_CACHE, else ~/.cache/quernel)" },
    { "--progress", nil, "show the bar also where standard error is no terminal" },
    { "--quiet", nil, "show no progress" },
    { "--json", nil, "print JSON" },
  },
  run = function(q, options)
    common.choice(options, "effort", "quick", "normal", "full")
    local m, budget = common.tokens(options.m), common.number(options, "budget", 0)
    local threads = common.whole(options, "threads", 1)
    local device = common.target(q, options)
    if not device.timed then common.fail("%s must not be timed; quernel verify checks kernels on it", device.name) end
    common.shard(options.shard)
    local all, left_out = gather(q, options, device)
    local problems = of_shard(q, all, options, device)
    if #problems == 0 then
      if options.json then print(q.json { plans = {}, left_out = left_out }) end
      return
    end
    local quiet, name = options.json, pack_name(options)
    local experts = common.spread_over(q, options)
    local family, fixed = common.families(q, options.family, device), common.fixed(q, options.fix)
    local functions = common.functions(options["function"])
    if name then common.output_pack(q, name, options, problems, m, device) end
    if not quiet then
      print(("tuning %s on %s: %s"):format(common.count(#problems, "problem"), device.name, device.product))
    end
    options.kept = common.kept_in(q, options.store)
    local result = common.check(q.tune { problems = problems, m = m, effort = options.effort, budget = budget,
      device = device.name, store = options.store, family = family, fixed = fixed, functions = functions,
      experts = experts, threads = threads, retime = options.retime, dense = not options["no-dense"],
      progress = common.progress(q, options) or common.notes() })
    if name then common.check(q.pack(result, name)) end
    common.remarks(result)
    common.left_out(left_out)
    if options.json then
      result.handle, result.pack, result.left_out = nil, name, left_out
      print(q.json(result))
      return
    end
    show(q, result, device, experts)
    if experts then print("rows go to experts as " .. experts.source .. " says") end
    show_counts(result.counts)
    if name then print("pack: " .. name) end
  end,
}
