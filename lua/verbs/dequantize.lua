local common = require "lua.common"
return {
  name = "dequantize", group = "Packs and models", usage = "dequantize MODEL WEIGHT -o FILE.npy", summary = "a weight as float32 [N, K], act-order undone, in NumPy's format",
  options = { { "-o", "FILE", "file to write" } },
  positional = { 2, 2 },
  run = function(q, options)
    if not options.o then common.misuse("dequantize: -o FILE.npy is needed") end
    common.check(common.check(q.model(options[1])):write_npy(options[2], options.o))
  end,
}
