local common = require "lua.common"

return {
  name = "source", usage = "VARIANT [--lines]", arguments = { 1, 1 },
  summary = "print the source of a variant, by the name that kernels --list and tune print",
  options = {
    { "--arch", "ARCH", "CUDA architecture to generate for (default: sm_90a)", group = "Device" },
    { "--device", "DEVICE", "machine to generate for (default: this one)", group = "Device" },
    { "--lines", nil, "with #line directives back to the template" },
  },
  run = function(q, options) io.write(q.source(common.variant(q, options[1], options), options.lines)) end,
}
