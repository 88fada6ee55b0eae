local common = require "lua.common"

local function total(report)
  local t = { bits = 0, weights = 0, error2 = 0, weight2 = 0, largest = 0 }
  for _, r in ipairs(report) do
    local weights = r.slices * r.n * r.k
    t.bits, t.weights = t.bits + r.bpw * weights, t.weights + weights
    t.error2, t.weight2 = t.error2 + r.error2, t.weight2 + r.weight2
    t.largest = math.max(t.largest, r.largest)
  end
  return { layers = #report, weights = t.weights, bpw = t.bits / t.weights, error2 = t.error2, weight2 = t.weight2,
    largest = t.largest }
end

local function rms(r) return r.weight2 > 0 and (r.error2 / r.weight2) ^ 0.5 or 0 end

return {
  name = "quantize", usage = "MODEL --format FORMAT -o OUT.safetensors", arguments = { 1, 1 },
  summary = "write a checkpoint with its linear layers in another format",
  about = [[
Only linear layers are quantized: embeddings, norms, routers, convolutions and the like stay as they are stored. So
do, by default, vision and audio towers and the head of a tied model (--only lm_head.weight asks for that; the
embedding stays in any case). A layer that is quantized already is dequantized first. The file holds neutral planes,
as convert writes them. Errors are those of the weights: the root mean square, relative to that of the weights, and
the largest.]],
  examples = {
    "MODEL --format int4.g64.z -o q.safetensors",
    "MODEL --format q4_k --only '*.down_proj.*' -o q.safetensors",
  },
  options = {
    { "--format", "FORMAT", "the format to write; quernel formats lists them", group = "Format" },
    { "--method", "NAME", "rtn: round to nearest", default = "rtn", group = "Format" },
    { "--scales", "RULE", "minmax: nothing is clipped; mse: least squared error", default = "minmax",
      group = "Format" },
    { "--only", "PATTERN", "layers whose name matches, * for any characters (repeatable)", many = true,
      group = "Layers" },
    { "--skip", "PATTERN", "layers to leave as they are (repeatable)", many = true, group = "Layers" },
    common.include, common.partial,
    { "-o", "FILE", "the file to write" },
    { "--quiet", nil, "no progress" },
    { "--json", nil, "print JSON" },
  },
  run = function(q, options)
    if not options.o then common.misuse "-o OUT.safetensors is needed" end
    if not options.format then common.misuse "--format FORMAT is needed" end
    common.ask(q.resolve, options.format)
    common.output(q, options.o)
    common.choice(options, "method", "rtn")
    common.choice(options, "scales", "minmax", "mse")
    local function choose(t)
      if common.matches(t.name, options.skip) then return false end
      if not options.only then return not t.tied_to end
      return common.matches(t.name, options.only)
    end
    local model, any = common.model(q, options[1], options), false
    for _, t in ipairs(model:tensors()) do any = any or t.linear and choose(t) end
    if not any then common.fail("%s: no linear layer is chosen; quernel inspect lists them", options[1]) end
    local report, left_out = common.check(model:write_quantized(options.o, {
      format = options.format, method = options.method, scales = options.scales, choose = choose,
      partial = options.partial, progress = common.progress(q, options),
    }))
    common.left_out(left_out)
    local all = total(report)
    for _, r in ipairs(report) do r.rms = rms(r) end
    all.rms = rms(all)
    if options.json then print(q.json { layers = report, total = all }) return end
    local rows = { { "layer", "N", "K", "bits", "error", "largest" } }
    for _, r in ipairs(report) do
      rows[#rows + 1] = { r.name .. (r.slices > 1 and (" x %d"):format(r.slices) or ""), r.n, r.k,
        ("%.2f"):format(r.bpw), ("%.4f"):format(r.rms), ("%.3g"):format(r.largest) }
    end
    common.table(rows)
    print(("%d layers as %s, %.2f bits a weight: error %.4f, largest %.3g"):format(
      all.layers, report[1].format, all.bpw, all.rms, all.largest))
  end,
}
