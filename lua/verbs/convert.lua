local common = require "lua.common"

return {
  name = "convert", usage = "MODEL -o OUT.safetensors", arguments = { 1, 1 },
  summary = "write a checkpoint of any dialect as neutral planes: codes, scales, zero points",
  about = [[
Each quantized weight NAME.weight becomes NAME.codes, NAME.scale and whatever its format has besides (NAME.perm for
act-order); the metadata of the file names its format. A dense layer is written as [N, K].
Everything else is copied as it is stored.]],
  examples = { "MODEL -o planes.safetensors" },
  options = { { "-o", "FILE", "the file to write" }, common.partial },
  run = function(q, options)
    if not options.o then common.misuse "-o OUT.safetensors is needed" end
    common.output(q, options.o)
    local model = common.model(q, options[1], options)
    common.left_out(common.check(model:write_planes(options.o, { partial = options.partial })))
  end,
}
