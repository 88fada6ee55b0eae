local common = require "lua.common"

local function verify_pack(q, options)
  local pack = common.check(q.open(options[1], { device = options.device,
      functions = common.functions(options["function"]) }))
  local results = {}
  local done, failed = common.check(pack:verify(function(plan, m, variant, error_, reason)
    results[#results + 1] = { problem = plan.problem, kind = plan.kind, m = m, variant = variant, error = error_,
      why = reason }
    if options.json then return end
    print(("%-5s  %s  M = %d  %s  %s"):format(error_ and "ok" or "WRONG", plan.problem, m, variant,
      error_ and ("%.1g of the bound"):format(error_) or reason))
  end))
  if options.json then print(q.json(results)) else print(("%d checks, %d failed"):format(done, failed)) end
  return failed > 0 and 1 or 0
end

-- Every variant of a space against the reference; nothing is timed.
local function verify_space(q, options)
  local device, problems = common.target(q, options), {}
  for i, p in ipairs(options.problem) do problems[i] = common.ask(q.problem, p, device.target).spelling end
  if options.o then common.output_pack(q, options.o, options, problems, {}, device) end
  options.kept = common.kept_in(q, options.store)
  local result = common.check(q.tune { problems = problems, device = device.name, space = options.space,
    family = common.families(q, options.family, device), fixed = common.fixed(q, options.fix), store = options.store,
    check_only = true, progress = common.progress(q, options) or common.notes() })
  if options.o and #result.plans == 0 then
    common.fail("%s: nothing to pack, no variant that is right takes every M", options.o)
  end
  if options.o then common.check(q.pack(result, options.o)) end
  local c = result.counts
  if options.json then
    print(q.json(c))
  else
    local right = c.verified + c.verify_known + c.compile_failed - c.rejected
    print(("%d of %d variants are right (known %d)%s%s"):format(right, right + c.rejected + c.set_aside, c.verify_known,
      c.compile_failed > 0 and ("; %d do not compile"):format(c.compile_failed) or "",
      c.set_aside > 0 and ("; of %d nothing was found out"):format(c.set_aside) or ""))
  end
  common.remarks(result)
  return c.rejected + c.set_aside > 0 and 1 or 0
end

return {
  name = "verify", usage = "PACK | --problem P", arguments = { 0, 1 },
  summary = "check kernels against the float64 reference: those of a pack, or every variant of a space",
  examples = { "model.qpack", "--problem nvfp4:4096x4096:f16-f16 --device emu:sm_90a" },
  options = {
    { "--problem", "P", "every variant for this problem; may be repeated", many = true, group = "Problem" },
    { "--space", "SPACE",
      "full: every variant; quick: those of tune --effort quick; reduced: a few with every pair of values",
      default = "reduced", group = "Search", with = "--problem" },
    { "--family", "NAMES", "only these kernel families, separated by commas", group = "Search", with = "--problem" },
    { "--fix", "NAME=VALUES", "only these values of a parameter; may be repeated", many = true, group = "Search",
      with = "--problem" },
    { "--device", "DEVICE", "where to run (default: the pack's, or this machine's)", group = "Device" },
    { "-o", "FILE", "with --problem: write a pack with the plain kernel of each problem, not timed",
      with = "--problem" },
    common.overwrite,
    { "--store", "DIR", "where verdicts are kept (default: as for tune)", with = "--problem" },
    { "--function", "NAME=LIBRARY:SYMBOL",
      "a function that the pack names; without it the runner-up runs; may be repeated", many = true,
      without = "--problem" },
    { "--progress", nil, "show progress also where standard error is no terminal" },
    { "--quiet", nil, "show no progress" },
    { "--json", nil, "print JSON" },
  },
  run = function(q, options)
    common.choice(options, "space", "full", "quick", "reduced")
    if options[1] and not options.problem then return verify_pack(q, options) end
    if options[1] or not options.problem then common.misuse("a PACK or --problem P is needed, not both") end
    return verify_space(q, options)
  end,
}
