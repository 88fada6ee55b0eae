local common = require "lua.common"

-- A checkpoint for other tools: a folder.
local function export(q, options)
  local model = common.model(q, options[1], options)
  local report, left_out = common.check(model:export(options.o, {
    to = options.to, config = options.config, activations = options.activations, overwrite = options.overwrite,
    partial = options.partial, progress = common.progress(q, options),
  }))
  common.left_out(left_out)
  if report.remark then common.warn("%s", report.remark) end
  if not report.tokenizer then
    common.warn("%s: no tokenizer.json or tokenizer.model: %s has no tokenizer", report.from, options.o)
  end
  print(("%s as %s in %s"):format(common.count(report.layers, options.to == "gguf" and "tensor" or "layer"), options.to,
    options.o))
end

return {
  name = "convert", usage = "MODEL [--to TOOL] -o OUT", arguments = { 1, 1 },
  summary = "write a checkpoint as other tools read it, or of any dialect as neutral planes",
  about = [[
--to gptq, gptq_v2, awq and compressed-tensors write a folder: weights packed as that tool packs them, config.json with
its quantization_config, tokenizer and generation files as they are. --to gguf writes one file. Nothing is quantized
anew: what a target cannot hold bit for bit is refused, and the message names the targets that can. MODEL is what
quernel quantize wrote, or a checkpoint of any dialect.
Without --to OUT is a folder, too, with weights as neutral planes, or if it is called NAME.safetensors one file with
these alone. Each quantized weight NAME.weight becomes NAME.codes, NAME.scale and whatever its format has besides
(NAME.perm for act-order); the metadata of the file names its format. A dense layer is written as [N, K]. Everything
else is copied as it is stored.]],
  examples = {
    "MODEL -o planes.safetensors",
    "q --to gptq -o model-gptq",
    "q.safetensors --to gguf --config MODEL -o model.gguf",
  },
  options = {
    { "--to", "TOOL", "gptq, gptq_v2, awq, compressed-tensors or gguf" },
    common.config,
    { "--activations", "TYPE", "of compressed-tensors: i8 or e4m3, quantized as they come, or none (default: what "
      .. "the checkpoint says)", with = "--to" },
    { "-o", "PATH", "the folder or the file to write" },
    common.replace,
    common.partial,
    { "--quiet", nil, "no progress", with = "--to" },
  },
  run = function(q, options)
    if not options.o then common.misuse "-o OUT is needed" end
    if options.to then
      common.choice(options, "to", "gptq", "gptq_v2", "awq", "compressed-tensors", "gguf")
      if options.activations then common.choice(options, "activations", "i8", "e4m3", "none") end
      return export(q, options)
    end
    common.output_checkpoint(q, options)
    local model = common.model(q, options[1], options)
    common.left_out(common.check(model:write_planes(options.o, { partial = options.partial, config = options.config,
      overwrite = options.overwrite })))
  end,
}
