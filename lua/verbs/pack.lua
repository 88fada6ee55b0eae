local common = require "lua.common"

return {
  name = "pack", usage = "PACK [--json]", arguments = { 1, 1 },
  summary = "what is in a pack: devices, plans, kernels",
  options = { { "--kernels", nil, "list the kernels, too" }, { "--json", nil, "print JSON" } },
  run = function(q, options)
    local pack = common.check(q.open(options[1]))
    local devices, plans, kernels = pack:devices(), pack:plans(), pack:kernels()
    if options.json then
      print(q.json { hash = pack:hash(), devices = devices, plans = plans, kernels = kernels })
      return
    end
    print("hash    " .. pack:hash())
    for i, d in ipairs(devices) do print(("device  %d: %s, %s, %d threads"):format(i, d.target, d.product, d.threads)) end
    local rows = { { "problem", "kind", "device", "from M", "kernel", "us" } }
    for _, p in ipairs(plans) do
      for _, r in ipairs(p.ranges) do
        local times = {}
        for i, x in ipairs(r.points) do times[i] = ("%s at %d"):format(common.us(x.seconds), x.m) end
        rows[#rows + 1] = { p.n > 0 and p.problem or p.problem .. " (other shapes)", p.kind, p.device, r.m_min,
          r.variant .. (r.runner_up and ", else " .. r.runner_up or ""), #times > 0 and table.concat(times, ", ") or "-" }
      end
    end
    common.table(rows)
    if not options.kernels then print(("%d kernels"):format(#kernels)) return end
    rows = { { "kernel", "bytes", "registers", "shared", "needs" } }
    for _, k in ipairs(kernels) do rows[#rows + 1] = { k.name, k.size, k.registers, k.shared, k.arch } end
    common.table(rows)
  end,
}
