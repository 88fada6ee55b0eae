local common = require "lua.common"

local function show_family(q, r, problem)
  local def = q.gen.kernel.family(r.family)
  print(("\n%s: %s\n  source: %s"):format(r.family, def.doc, def.source or def.file))
  local rows = { { "  parameter", "values", "" } }
  for _, x in ipairs(def.params) do
    local values = {}
    for i, y in ipairs(x.values) do values[i] = tostring(y) end
    rows[#rows + 1] = { "  " .. x.name, table.concat(values, " "), x.doc or "" }
  end
  common.table(rows)
  print(("  %d candidates for %s, %d survive"):format(r.candidates, problem, r.survivors))
  for _, x in ipairs(r.removed) do
    if x.count > 0 then print(("  rule %-14s removes %6d: %s"):format(x.rule, x.count, x.why)) end
  end
end

local function space_of(options) return { space = options.space, family = options.family, fixed = options.fix } end

local function show_space(q, options)
  local device = common.target(q, options)
  common.families(q, options.family, device)
  local problem = common.ask(q.problem, options.problem or "int4.g128:4096x4096", device.target)
  local variants, report = q.variants(problem, device, space_of(options))
  if options.json then
    local list = {}
    for i, v in ipairs(variants) do
      list[i] = { name = v.name, hash = v.hash, family = v.family, params = v.params, layout = v.layout.name,
        m_min = v.m_min, m_max = v.m_max }
    end
    print(q.json { problem = problem.spelling, device = device.name, families = report, variants = list })
  elseif options.list then
    for _, v in ipairs(variants) do print(v.name) end
  else
    print(("%s on %s, space: %s"):format(problem.spelling, device.name, options.space))
    for _, r in ipairs(report) do show_family(q, r, problem.spelling) end
  end
end

-- ---- Compiling a whole space ----------------------------------------------------------------------------------------

-- The variants of a space for several problems, each source once.
local function gather(q, options, device)
  local out, seen = {}, {}
  local problems = options.problem and { options.problem } or q.example_problems(device.target)
  for _, spelling in ipairs(problems) do
    local p = common.ask(q.problem, spelling, device.target)
    for _, v in ipairs((q.variants(p, device, space_of(options)))) do
      if not seen[v.hash] then out[#out + 1] = v end
      seen[v.hash] = true
    end
  end
  return out
end

local function compile_space(q, options, arch)
  local device = common.target(q, { arch = arch, device = options.device })
  common.families(q, options.family, device)
  common.check(q.native.compiler(device.target))
  local variants = gather(q, options, device)
  if #variants == 0 then common.fail("%s: no variant is left to compile", device.name) end
  local show, start = common.progress(q, options), q.native.clock()
  local outcomes = common.check(q.compile(variants, { progress = show and function(done, total, name)
    local left = (q.native.clock() - start) / done * (total - done)
    show { phase = "compile", done = done, total = total, variant = name, left = left }
  end }))
  if show then show { phase = "done" } end
  local s = { arch = arch or device.name, variants = #variants, registers = 0, shared = 0, spilling = 0, failed = 0,
    seconds = q.native.clock() - start, list = {} }
  local note = common.notes()
  for i, o in ipairs(outcomes) do
    local name, shared = variants[i].name, common.shared_memory(variants[i], o)
    s.list[i] = { name = name, ok = o.ok, why = o.why, registers = o.registers, shared = shared, spills = o.spills,
      size = o.size, seconds = o.seconds }
    if not o.ok then
      s.failed = s.failed + 1
      note { phase = "compile", variant = name, text = ("on %s: %s"):format(s.arch, o.why) }
    else
      s.registers, s.shared = math.max(s.registers, o.registers), math.max(s.shared, shared)
      if o.spills > 0 then
        s.spilling = s.spilling + 1
        io.stderr:write(("%s on %s spills %d bytes\n"):format(name, s.arch, o.spills))
      end
    end
  end
  note { phase = "done" }
  s.rate = #variants / s.seconds
  return s
end

local function compile_all(q, options)
  local rows = { { "arch", "variants", "registers", "shared", "spilling", "failed", "seconds", "a second" } }
  local all, bad = {}, 0
  for _, arch in ipairs(options.arch and common.split(options.arch, "--arch") or { false }) do
    local s = compile_space(q, options, arch or nil)
    all[#all + 1] = s
    bad = bad + s.failed + s.spilling
    rows[#rows + 1] = { s.arch, s.variants, s.registers, s.shared, s.spilling, s.failed, ("%.1f"):format(s.seconds),
      ("%.2f"):format(s.rate) }
    if options.json ~= true and options.registers then
      for _, x in ipairs(s.list) do
        if x.ok then print(("%s  %s: %d registers, %d bytes shared"):format(s.arch, x.name, x.registers, x.shared)) end
      end
    end
  end
  if options.json then print(q.json(all)) else common.table(rows) end
  return bad > 0 and 1 or 0
end

return {
  name = "kernels", usage = "[--problem P] [--arch A] [--compile-all --arch A,B]", arguments = { 0, 0 },
  summary = "list kernel families, their parameters and what each rule removes; or compile every variant",
  about = [[
--compile-all shows the largest number of registers and of bytes of shared memory that any variant needs. It exits
with 1 if a variant spills registers or does not compile.]],
  examples = {
    "--problem int4.g64.z:4096x4096:i8",
    "--arch sm_90a --family cuda.mma --list",
    "--compile-all --arch sm_80,sm_90a",
  },
  options = {
    { "--problem", "P",
      "FORMAT:[Ex]NxK[:[X~]ACT[-OUT]][EPILOGUE] (default: int4.g128:4096x4096; for --compile-all several)",
      group = "Problem" },
    { "--arch", "ARCH", "CUDA architecture (sm_90a), or \"host\"; with --compile-all a list (default: the device's)",
      group = "Device", without = "--device" },
    { "--device", "DEVICE", "machine whose limits count (default: the GPU, else the host)", group = "Device" },
    { "--space", "SPACE",
      "full: every variant; quick: those of tune --effort quick; reduced: a few with every pair of values",
      default = "full", group = "Search" },
    { "--family", "NAMES", "only these kernel families, separated by commas", group = "Search" },
    { "--fix", "NAME=VALUES", "only these values of a parameter; may be repeated", many = true, group = "Search" },
    { "--compile-all", nil, "compile the space: registers, shared memory, spills, rate", group = "Search" },
    { "--registers", nil, "with --compile-all: a line for each variant", with = "--compile-all" },
    { "--list", nil, "print the names of the variants", without = "--compile-all" },
    { "--progress", nil, "show progress also where standard error is no terminal" },
    { "--quiet", nil, "show no progress" },
    { "--json", nil, "print JSON" },
  },
  run = function(q, options)
    common.choice(options, "space", "full", "quick", "reduced")
    options.fix = common.fixed(q, options.fix)
    if options["compile-all"] then return compile_all(q, options) end
    return show_space(q, options)
  end,
}
