local common = require "lua.common"

-- The first spelling of a format, for asking kernel families.
local function families(q, name, device, target)
  local out = {}
  for _, act in ipairs(target == "host" and { "f32", "bf16", "i8" } or { "f16", "bf16" }) do
    local ok, p = pcall(q.problem, ("%s:4096x4096:%s"):format(name, act), target)
    local found = {}
    if ok then
      local _, report = q.variants(p, device, { space = "reduced" })
      for _, r in ipairs(report) do if r.survivors > 0 then found[#found + 1] = r.family end end
    end
    out[#out + 1] = { act = act, families = found }
  end
  return out
end

return {
  name = "formats", group = "What there is", usage = "formats [NAME] [--json]", summary = "weight formats; with a name, its spelling, decode rule and kernels",
  options = { { "--json", nil, "print JSON" }, { "--arch", "ARCH", "CUDA architecture to ask for", "sm_90a" } },
  positional = { 0, 1 },
  run = function(q, options)
    if options[1] then
      local f = q.resolve(options[1])
      local host, cuda = q.device "host", q.arch(options.arch)
      local report = { name = f.name, doc = f.doc, bits = f.bits, group = f.group, descriptor = q.gen.format.descriptor(f),
        host = families(q, f.name, host, "host"), cuda = families(q, f.name, cuda, "cuda") }
      if options.json then print(q.json(report)) return end
      print(("%s: %s"):format(f.name, f.doc))
      print(("bits %d, code map %s, scale %s"):format(f.bits, f.map.kind, #f.scale > 0 and table.concat(f.scale, " * ") or "none"))
      print("decode (postfix): " .. q.json(report.descriptor.decode))
      for _, target in ipairs { "host", "cuda" } do
        for _, x in ipairs(report[target]) do
          print(("%s, %s activations: %s"):format(target, x.act, #x.families > 0 and table.concat(x.families, ", ") or "no family takes it"))
        end
      end
      return
    end
    local list = q.formats()
    if options.json then
      local out = {}
      for i, f in ipairs(list) do out[i] = { name = f.name, doc = f.doc, bits = f.bits, group = f.group or {}, file = f.file } end
      print(q.json(out))
      return
    end
    local rows = { { "format", "bits", "groups", "planes", "" } }
    for _, f in ipairs(list) do
      local groups, planes = {}, {}
      for i, g in ipairs(f.group or {}) do groups[i] = tostring(g) end
      for _, p in ipairs(q.gen.format.sorted_keys(f.planes)) do planes[#planes + 1] = p .. ": " .. table.concat(f.planes[p], "|") end
      rows[#rows + 1] = { f.name, f.bits, table.concat(groups, " "), table.concat(planes, ", "), f.doc }
    end
    common.table(rows)
  end,
}
