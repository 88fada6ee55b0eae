local common = require "lua.common"

return {
  name = "source", usage = "VARIANT [--lines] [--ptx]", arguments = { 1, 1 },
  summary = "print the source of a variant, or its PTX; kernels --list and pack print the names",
  examples = { "$(quernel kernels --list | head -1)", "VARIANT --arch sm_90a --ptx" },
  options = {
    { "--arch", "ARCH", "CUDA architecture to generate for (default: sm_90a)", group = "Device",
      without = "--device" },
    { "--device", "DEVICE", "machine to generate for (default: this one)", group = "Device" },
    { "--lines", nil, "with #line directives back to the template", without = "--ptx" },
    { "--ptx", nil, "the PTX that NVRTC makes of a CUDA variant" },
  },
  run = function(q, options)
    local v = common.variant(q, options[1], options)
    if not options.ptx then io.write(q.source(v, options.lines)) return end
    if v.target ~= "cuda" then common.misuse("--ptx: %s is no CUDA variant", v.name) end
    io.write((common.check(q.ptx(v))))
  end,
}
