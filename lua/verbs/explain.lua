local common = require "lua.common"
return {
  name = "explain", group = "Measuring", usage = "explain VARIANT", summary = "what a variant is: parameters, layout, launch, resources",
  options = { { "--arch", "ARCH", "CUDA architecture" }, { "--device", "DEVICE", "device to generate for" }, { "--json", nil, "print JSON" } },
  positional = { 1, 1 },
  run = function(q, options)
    local v, device = common.variant(q, options[1], options)
    local o = common.check(q.compile { v })[1]
    local report = { name = v.name, hash = v.hash, family = v.family, params = v.params, flags = v.flags, arch = v.arch, layout = v.layout, recipe = v.recipe,
      ok = o.ok, why = o.why, registers = o.registers, shared = o.shared, spills = o.spills, bytes = o.size, compile_seconds = o.seconds }
    if options.json then print(q.json(report)) return end
    print(("%s on %s"):format(v.name, device.name))
    print("hash      " .. v.hash)
    print("needs     " .. (v.arch ~= "" and v.arch or "any CPU"))
    print("serves    M " .. v.m_min .. (v.m_max > 0 and " to " .. v.m_max or " and more"))
    print("layout    " .. v.layout.name .. (", tile %d x %d"):format(v.layout.tile[1], v.layout.tile[2]))
    print("launch    " .. q.json(v.recipe.steps))
    print("workspace " .. q.json(v.recipe.workspace) .. (v.recipe.deterministic and "; deterministic" or "; not deterministic") .. (v.recipe.batch_invariant and ", batch-invariant" or ""))
    print(o.ok and ("compiled  %d bytes, registers %d, shared memory %d, spills %d, %.2f s"):format(o.size, o.registers, o.shared, o.spills, o.seconds) or "does not compile: " .. o.why)
  end,
}
