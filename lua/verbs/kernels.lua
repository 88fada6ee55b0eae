local common = require "lua.common"

local function report_space(q, options, device)
  local p = q.problem(options.problem, device.target)
  local variants, report = q.variants(p, device, { space = options.space, family = options.family })
  if options.json then
    local list = {}
    for i, v in ipairs(variants) do list[i] = { name = v.name, hash = v.hash, params = v.params } end
    print(q.json { problem = p.spelling, device = device.name, families = report, variants = list })
    return
  end
  print(("%s on %s, space %s"):format(p.spelling, device.name, options.space))
  for _, r in ipairs(report) do
    local def = q.gen.kernel.registry[r.family]
    print(("\n%s: %s (%s)"):format(r.family, def.doc, def.source or def.file))
    local rows = {}
    for _, x in ipairs(def.params) do
      local values = {}
      for i, y in ipairs(x.values) do values[i] = tostring(y) end
      rows[#rows + 1] = { "  " .. x.name, table.concat(values, " "), x.doc or "" }
    end
    common.table(rows)
    print(("  %d candidates, %d survive"):format(r.candidates, r.survivors))
    for _, x in ipairs(r.removed) do
      if x.count > 0 then print(("  rule %-12s removes %5d: %s"):format(x.rule, x.count, x.why)) end
    end
  end
  if options.list then for _, v in ipairs(variants) do print(v.name) end end
end

-- Compile every variant of every architecture asked for; each source once.
local function compile_all(q, options)
  local rows, failed, json = { { "arch", "variants", "registers", "shared", "spills", "failed", "seconds", "per second" } }, 0, {}
  for _, arch in ipairs(options.arch and common.split(options.arch, "--arch") or { "host" }) do
    local device = arch == "host" and common.check(q.device "host") or q.arch(arch)
    local variants, seen = {}, {}
    for _, spelling in ipairs(options.problem and common.split(options.problem) or q.example_problems(device.target)) do
      for _, v in ipairs((q.variants(spelling, device, { space = options.space, family = options.family }))) do
        if not seen[v.hash] then seen[v.hash] = true variants[#variants + 1] = v end
      end
    end
    local start = q.native.clock()
    local show = common.progress(q, options.json)
    local out = common.check(q.compile(variants, { progress = show and function(done, total, name)
      show { phase = "compile", done = done, total = total, variant = name, best = 0, m = 0,
        left = (q.native.clock() - start) / done * (total - done) }
    end }))
    if show then show { phase = "done" } end
    local seconds = q.native.clock() - start
    local most, shared, spills, bad = 0, 0, 0, 0
    for i, o in ipairs(out) do
      if o.ok then
        most, shared = math.max(most, o.registers), math.max(shared, o.shared)
        if o.spills > 0 then
          spills = spills + 1
          io.stderr:write(("%s on %s spills %d bytes\n"):format(variants[i].name, arch, o.spills))
        end
      else
        bad = bad + 1
        io.stderr:write(("%s on %s: %s\n"):format(variants[i].name, arch, o.why))
      end
      json[#json + 1] = { name = variants[i].name, arch = arch, ok = o.ok, why = o.why, registers = o.registers, shared = o.shared, spills = o.spills, seconds = o.seconds }
    end
    failed = failed + bad + spills
    rows[#rows + 1] = { arch, #variants, most, shared, spills, bad, ("%.1f"):format(seconds), ("%.2f"):format(#variants / seconds) }
  end
  if options.json then print(q.json(json)) else common.table(rows) end
  return failed > 0 and 1 or 0
end

return {
  name = "kernels", group = "What there is", usage = "kernels [--problem P] [--compile-all --arch A,B]",
  summary = "kernel families, their parameters, and what each rule removes; or compile the whole space",
  options = { { "--problem", "P", "problem, e.g. int4.g128:4096x4096:bf16-f32" }, { "--arch", "LIST", "CUDA architectures; without: this machine's device" },
    { "--device", "DEVICE", "device whose limits count" }, { "--space", "SPACE", "full, quick or reduced", "full" }, { "--family", "NAME", "one family only" },
    { "--list", nil, "name every variant" }, { "--compile-all", nil, "compile them, report registers, shared memory, spills, rate" }, { "--json", nil, "print JSON" } },
  positional = { 0, 0 },
  run = function(q, options)
    if options["compile-all"] then return compile_all(q, options) end
    local device = options.arch and q.arch(options.arch) or common.target(q, options)
    options.problem = options.problem or "int4.g128:4096x4096"
    report_space(q, options, device)
  end,
}
