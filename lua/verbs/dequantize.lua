local common = require "lua.common"

return {
  name = "dequantize", usage = "MODEL WEIGHT -o FILE.npy", arguments = { 2, 2 },
  summary = "write a weight as float32 [N, K], act-order undone, in NumPy's format",
  examples = { "MODEL model.layers.0.mlp.up_proj.weight -o up.npy" },
  options = {
    { "--slice", "I", "which matrix of a stack, from 1", default = "1", group = "Input" },
    { "-o", "FILE.npy", "the file to write" },
  },
  run = function(q, options)
    if not options.o then common.misuse "-o FILE.npy is needed" end
    local slice = common.whole(options, "slice", 1)
    if not slice then common.misuse("--slice: a whole number is needed") end
    common.output(q, options.o)
    common.check(common.model(q, options[1], options):write_npy(options[2], options.o, slice))
  end,
}
