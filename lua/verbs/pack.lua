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

-- Write a pack of the devices that one of the words means: a number, or a pattern for target, architecture or product.
local function extract(q, pack, options)
  local devices, wanted = pack:devices(), {}
  for _, word in ipairs(options.device) do
    local found = false
    for i, d in ipairs(devices) do
      if word == tostring(i) or common.matches(d.target, { word }) or common.matches(d.arch, { word }) or
        common.matches(d.product, { word }) then
        wanted[i], found = true, true
      end
    end
    if not found then
      local names = {}
      for i, d in ipairs(devices) do names[i] = ("%d (%s)"):format(i, d.product) end
      common.fail("%s has no device %q; there are %s", options[1], word, table.concat(names, ", "))
    end
  end
  common.output(q, options.o)
  local result = common.check(q.join({ pack }, options.o, { only = function(_, number) return wanted[number] end,
    check = function(has) common.keep_pack(q, options.o, options, has) end }))
  print(("pack: %s, %s"):format(options.o, common.count(result.plans, "plan")))
end

return {
  name = "pack", usage = "PACK [--device WHICH -o OUT.qpack]", arguments = { 1, 1 },
  summary = "show what is in a pack: devices, plans, kernels; or extract the plans of some devices",
  about = [[
Of each device it is told how near this machine is to it. A pack serves on every machine that runs its kernels; its
times, and what was chosen by them, are those of the machine that it was tuned on.]],
  examples = {
    "model.qpack --kernels",
    "all.qpack --device sm_90a -o h100.qpack    # a part of it",
  },
  options = {
    { "--kernels", nil, "also list the kernels", without = "-o" },
    { "-o", "OUT.qpack", "write the plans of the devices that --device names", with = "--device" },
    { "--device", "WHICH",
      "a device's number, or its target, architecture or product, with * for any characters; may be repeated",
      many = true, with = "-o" },
    common.overwrite,
    { "--json", nil, "print JSON", without = "-o" },
  },
  run = function(q, options)
    local pack = common.check(q.open(options[1]))
    if options.device then return extract(q, pack, options) end
    local devices, plans, kernels = pack:devices(), pack:plans(), pack:kernels()
    if options.json then
      print(q.json { hash = pack:hash(), devices = devices, plans = plans, kernels = kernels })
      return
    end
    print("hash    " .. pack:hash())
    common.devices(pack)
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
