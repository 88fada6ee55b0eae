local common = require "lua.common"
return {
  name = "pack", group = "Packs and models", usage = "pack FILE [--json]", summary = "what is in a pack",
  options = { { "--json", nil, "print JSON" } },
  positional = { 1, 1 },
  run = function(q, options)
    local plans = common.check(q.open(options[1])):plans()
    if options.json then print(q.json(plans)) return end
    local rows = { { "problem", "kind", "from M", "kernel", "us when tuned" } }
    for _, p in ipairs(plans) do
      for _, r in ipairs(p.ranges) do
        rows[#rows + 1] = { p.n > 0 and p.problem or p.problem .. " (any shape)", p.kind, r.m_min, r.variant, ("%.1f"):format(r.seconds * 1e6) }
      end
    end
    common.table(rows)
  end,
}
