local common = require "lua.common"

local function verify_pack(q, options)
  local pack = common.check(q.open(options[1]))
  local results, bad = {}, 0
  common.check(pack:verify(options.device, function(problem, kernel, ok, detail)
    results[#results + 1] = { problem = problem, kernel = kernel, ok = ok, detail = detail }
    if not ok then bad = bad + 1 end
    if not options.json then print(("%-5s %s  %s  %s"):format(ok and "ok" or "WRONG", problem, kernel, ok and ("%.1e of the bound"):format(detail) or detail)) end
  end))
  if options.json then print(q.json(results)) else print(("%d kernels checked, %d wrong"):format(#results, bad)) end
  return bad > 0 and 1 or 0
end

-- Every variant of a space against the reference, without timing.
local function verify_space(q, options)
  local device = common.target(q, options)
  local result = common.check(q.tune { problems = options.problem, device = device.name, space = options.space, store = options.store,
    family = options.family, dense = false, check_only = true, progress = common.progress(q, options.json or options.quiet) })
  local c = result.counts
  result.handle = nil
  if options.json then print(q.json(c))
  else print(("%d variants verified (known %d), %d rejected"):format(c.verified, c.verify_known, c.rejected)) end
  return c.rejected > 0 and 1 or 0
end

return {
  name = "verify", group = "Measuring", usage = "verify PACK | --problem P", summary = "check kernels against the float64 reference: those of a pack, or every variant of a space",
  options = { { "--problem", "P", "every variant of this problem; may be repeated", many = true }, { "--space", "SPACE", "full, quick or reduced", "reduced" },
    { "--family", "NAME", "one family only" }, { "--device", "DEVICE", "device to run on" }, { "--store", "DIR", "where evidence is kept" },
    { "--quiet", nil, "no progress" }, { "--json", nil, "print JSON" } },
  positional = { 0, 1 },
  run = function(q, options)
    if options[1] then return verify_pack(q, options) end
    if not options.problem then common.misuse("verify: a PACK or --problem P is needed") end
    return verify_space(q, options)
  end,
}
