local common = require "lua.common"
return {
  name = "source", group = "What there is", usage = "source VARIANT [--lines]", summary = "print the source of a variant, by the name that kernels and tune print",
  options = { { "--lines", nil, "with #line directives back to the template" }, { "--arch", "ARCH", "CUDA architecture", nil },
    { "--device", "DEVICE", "device to generate for", nil } },
  positional = { 1, 1 },
  run = function(q, options)
    io.write(common.variant(q, options[1], options):source(options.lines or false))
  end,
}
