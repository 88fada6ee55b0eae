local common = require "lua.common"

-- The pack's winners and the dense product, timed again side by side: a tuning run whose only candidates are the winners,
-- with a store of its own so that nothing is remembered.
return {
  name = "bench", group = "Measuring", usage = "bench PACK [--against dense]", summary = "time a pack's kernels again, with the dense product in the same run",
  options = { { "--against", "WHAT", "dense", "dense" }, { "--m", "LIST", "numbers of tokens; without: those that were tuned" }, { "--device", "DEVICE", "device to run on" }, { "--quiet", nil, "no progress" }, { "--json", nil, "print JSON" } },
  positional = { 1, 1 },
  run = function(q, options)
    if options.against ~= "dense" then common.misuse("--against: %q; known: dense", options.against) end
    local pack = common.check(q.open(options[1]))
    local problems, winners, m, seen = {}, {}, {}, {}
    for _, p in ipairs(pack:plans()) do
      if p.kind == "fastest" and p.n > 0 then
        problems[#problems + 1] = p.problem
        for _, r in ipairs(p.ranges) do
          winners[r.variant] = true
          if not seen[r.m] then seen[r.m] = true m[#m + 1] = r.m end
        end
      end
    end
    table.sort(m)
    if options.m then m = common.tokens(options.m) end
    local store = os.tmpname()
    os.remove(store)
    local result, why = q.tune { problems = problems, m = m, effort = "normal", device = options.device, store = store, only = function(name) return winners[name] end,
      progress = common.progress(q, options.quiet or options.json) }
    os.execute("rm -rf '" .. store .. "'")
    common.check(result, why)
    result.handle = nil
    if options.json then print(q.json(result)) return end
    local rows = { { "problem", "M", "us", "dense us", "ratio", "GB/s", "dense GB/s", "read GB/s" } }
    for _, p in ipairs(result.plans) do
      if p.kind == "fastest" and p.n > 0 then
        for _, r in ipairs(p.ranges) do
          rows[#rows + 1] = { p.problem, r.m, ("%.1f"):format(r.seconds * 1e6), ("%.1f"):format(r.dense_seconds * 1e6), ("%.2fx"):format(r.dense_seconds / r.seconds),
            ("%.1f"):format(p.bytes / r.seconds / 1e9), ("%.1f"):format(4.0 * p.n * p.k / r.dense_seconds / 1e9), ("%.1f"):format(r.bandwidth / 1e9) }
        end
      end
    end
    common.table(rows)
  end,
}
