local common = require "lua.common"

-- The plans of all kinds; those which serve a problem alike are one, with a list of their kinds.
local function merged(q, plans)
  local out, seen = {}, {}
  for _, p in ipairs(plans) do
    local key = q.json { p.problem, p.device, p.ranges }
    if not seen[key] then
      seen[key] = { problem = p.problem, n = p.n, device = p.device, ranges = p.ranges, kinds = {} }
      out[#out + 1] = seen[key]
    end
    table.insert(seen[key].kinds, p.kind)
  end
  return out
end

return {
  name = "pack", usage = "PACK [--json]", arguments = { 1, 1 },
  summary = "show what is in a pack: devices, plans, kernels",
  examples = { "model.qpack --kernels" },
  options = { { "--kernels", nil, "also list the kernels" }, { "--json", nil, "print JSON" } },
  run = function(q, options)
    local pack = common.check(q.open(options[1]))
    local devices, plans, kernels = pack:devices(), pack:plans(), pack:kernels()
    if options.json then
      print(q.json { hash = pack:hash(), devices = devices, plans = plans, kernels = kernels })
      return
    end
    print("hash    " .. pack:hash())
    for i, d in ipairs(devices) do
      print(("device  %d: %s, %s, %d threads"):format(i, d.target, d.product, d.threads))
    end
    local rows = { { "problem", "device", "from M", "kernel", "us", "kinds" } }
    for _, p in ipairs(merged(q, plans)) do
      for _, r in ipairs(p.ranges) do
        local times = {}
        for i, x in ipairs(r.points) do times[i] = ("%s at %d%s%s"):format(common.us(x.seconds), x.m,
          x.raced and " (race)" or "", common.doubted(x.spread, x.disturbed) and " ?" or "") end
        rows[#rows + 1] = { p.n > 0 and p.problem or p.problem:gsub(":0x0:", ":other shapes:"), p.device, r.m_min,
          r.variant .. (r.runner_up and ", else " .. r.runner_up or ""),
          #times > 0 and table.concat(times, ", ") or "-", table.concat(p.kinds, ", ") }
      end
    end
    common.table(rows)
    if not options.kernels then print(common.count(#kernels, "kernel")) return end
    rows = { { "kernel", "bytes", "registers", "shared", "needs" } }
    for _, k in ipairs(kernels) do
      local cuda = k.target == "cuda"
      rows[#rows + 1] = { k.name, k.size, cuda and k.registers or "-", cuda and k.shared or "-", k.arch }
    end
    common.table(rows)
  end,
}
