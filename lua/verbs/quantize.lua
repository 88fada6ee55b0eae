local common = require "lua.common"

local function total(report)
  local sums = { "error2", "weight2", "output2", "output_error2", "nearest_error2" }
  local t = { bits = 0, weights = 0, largest = 0 }
  for _, name in ipairs(sums) do t[name] = 0 end
  for _, r in ipairs(report) do
    local weights = r.slices * r.n * r.k
    t.bits, t.weights = t.bits + r.bpw * weights, t.weights + weights
    for _, name in ipairs(sums) do t[name] = t[name] + r[name] end
    t.largest = math.max(t.largest, r.largest)
  end
  t.layers, t.bpw, t.bits = #report, t.bits / t.weights, nil
  return t
end

-- Root mean squares: of the weights' error, relative to theirs; of the outputs' error, before and after, to theirs.
local function add_rms(r)
  local function ratio(a, b) return b > 0 and (a / b) ^ 0.5 or nil end
  r.rms = ratio(r.error2, r.weight2) or 0
  r.output_rms, r.nearest_rms = ratio(r.output_error2, r.output2), ratio(r.nearest_error2, r.output2)
end

-- The windows of the calibration text, or nil for a method that needs none.
local function windows(q, model, options)
  local needs = q.native.method_sees(options.method)
  if needs and not options.calibrate then
    common.misuse("--method %s needs --calibrate TEXT", options.method)
  elseif not needs then
    return nil
  end
  local decoder = common.check(q.decoder(model, {}))
  local limit, asked = decoder:config().context, common.whole(options, "ctx", 2, 1 << 20)
  decoder:close()
  return common.check(common.ask(q.windows, { model = model, texts = options.calibrate, tokenizer = options.tokenizer,
    ctx = asked or (limit > 0 and math.min(limit, 512) or 512), windows = options.windows or "128", score = "all" }))
end

local function print_report(report, all)
  local function percent(x) return x and ("%.2f%%"):format(100 * x) or "-" end
  local columns = { { "output", "output_rms" }, { "nearest", "nearest_rms" } }
  if all.nearest_error2 == all.output_error2 then columns[2] = nil end -- with awq alone codes are the nearest ones
  if all.output2 == 0 then columns = {} end
  local rows = { { "layer", "N", "K", "bits", "error", "largest" } }
  for i, c in ipairs(columns) do rows[1][6 + i] = c[1] end
  for _, r in ipairs(report) do
    local row = { r.name .. (r.slices > 1 and (" x %d"):format(r.slices) or ""), r.n, r.k, ("%.2f"):format(r.bpw),
      ("%.4f"):format(r.rms), ("%.3g"):format(r.largest) }
    for i, c in ipairs(columns) do row[6 + i] = percent(r[c[2]]) end
    rows[#rows + 1] = row
  end
  common.table(rows)
  print(("%d layers as %s, %.2f bits a weight: error %.4f, largest %.3g"):format(
    all.layers, report[1].format, all.bpw, all.rms, all.largest))
end

-- What awq scaled, and what it did not, with the cause.
local function print_scaled(scaled)
  local output2, before2, scaled2, count = 0, 0, 0, 0
  for _, x in ipairs(scaled.inputs) do
    output2, before2, scaled2 = output2 + x.output2, before2 + x.before2, scaled2 + x.scaled2
    count = count + (x.exponent >= 0 and 1 or 0)
  end
  local errors = output2 > 0 and (": error of what reads them %.2f%%, unscaled %.2f%%"):format(
    100 * (scaled2 / output2) ^ 0.5, 100 * (before2 / output2) ^ 0.5) or ""
  print(("%d of %d inputs are scaled%s"):format(count, #scaled.inputs + #scaled.kept, errors))
  for _, x in ipairs(scaled.kept) do print(("not scaled: what %s reads: %s"):format(x.name, x.why)) end
end

return {
  name = "quantize", usage = "MODEL --format FORMAT -o OUT", arguments = { 1, 1 },
  summary = "write a checkpoint with its linear layers in another format",
  about = [[
Only linear layers are quantized: embeddings, norms, routers, convolutions and the like stay as they are stored. So
do, by default, vision and audio towers and the head of a tied model (--only lm_head.weight asks for that; the
embedding stays in any case). A layer that is quantized already is dequantized first. Errors are those of the weights:
the root mean square, relative to that of the weights, and the largest.

OUT is a folder with all that the other verbs need: weights as neutral planes (convert says what that is), config.json,
tokenizer; of a GGUF header.gguf, which has both. If it is called NAME.safetensors it is one file, with the weights
alone.

Methods other than rtn look at the inputs that layers get on a text (--calibrate), layer by layer, each behind those
that are quantized already. imatrix searches scales that serve strong inputs; gptq lets codes make up for each other's
errors; gptaq does so against the outputs of the unquantized model. awq first scales the inputs: what gives them, norms
among it, is divided by what their weights are multiplied by; awq+gptq and awq+gptaq go on from there. Errors of the
outputs on that text are shown, too, beside those that nearest codes would have. A run that was killed goes on where it
was.]],
  examples = {
    "MODEL --format int4.g64.z -o q",
    "MODEL --format q4_k --only '*.down_proj.*' -o q.safetensors",
    "MODEL --format int4.g64 --method gptq --calibrate a.txt -o q",
  },
  options = {
    { "--format", "FORMAT", "the format to write; quernel formats lists them", group = "Format" },
    { "--method", "NAME", "rtn: round to nearest; see above for the others", default = "rtn", group = "Format" },
    { "--scales", "RULE", "minmax: nothing is clipped; mse: least squared error; outputs: that of the outputs; full: "
      .. "reaches the largest weight, whatever its sign; full-mse (default: mse for imatrix, outputs for awq, else "
      .. "minmax)", group = "Format" },
    { "--calibrate", "FILE", "text, or ids: .npy, .jsonl (repeatable)", many = true, group = "Calibration" },
    { "--windows", "N", "the first N windows of each text, or FIRST:END:STEP (default: 128)", with = "--calibrate",
      group = "Calibration" },
    { "--ctx", "N", "tokens of a window (default: 512, or what the model was made for)", with = "--calibrate",
      group = "Calibration" },
    { "--tokenizer", "FILE", "a tokenizer.json (default: the model's)", with = "--calibrate", group = "Calibration" },
    { "--allow-rtn", nil, "round to nearest where calibration is not enough", with = "--calibrate",
      group = "Calibration" },
    { "--threads", "N", "threads (default: one for each CPU)" },
    { "--only", "PATTERN", "layers whose name matches, * for any characters (repeatable)", many = true,
      group = "Layers" },
    { "--skip", "PATTERN", "layers to leave as they are (repeatable)", many = true, group = "Layers" },
    common.include, common.partial, common.config,
    { "-o", "PATH", "the folder to write, or a file NAME.safetensors" }, common.replace,
    { "--quiet", nil, "no progress" },
    { "--json", nil, "print JSON" },
  },
  run = function(q, options)
    if not options.o then common.misuse "-o OUT is needed" end
    if not options.format then common.misuse "--format FORMAT is needed" end
    common.ask(q.resolve, options.format)
    common.output_checkpoint(q, options)
    common.choice(options, "method", table.unpack(q.native.methods()))
    if options.scales then common.choice(options, "scales", table.unpack(q.native.scale_rules())) end
    local function choose(t)
      if common.matches(t.name, options.skip) then return false end
      if not options.only then return not t.tied_to end
      return common.matches(t.name, options.only)
    end
    local model, any = common.model(q, options[1], options), false
    for _, t in ipairs(model:tensors()) do any = any or t.linear and choose(t) end
    if not any then common.fail("%s: no linear layer is chosen; quernel inspect lists them", options[1]) end
    local report, left_out, scaled = common.check(model:write_quantized(options.o, {
      format = options.format, method = options.method, scales = options.scales, choose = choose,
      partial = options.partial, config = options.config, overwrite = options.overwrite,
      threads = common.whole(options, "threads", 1, 1024),
      windows = windows(q, model, options), allow_rtn = options["allow-rtn"], progress = common.progress(q, options),
    }))
    common.left_out(left_out)
    local all = total(report)
    for _, r in ipairs(report) do
      add_rms(r)
      if r.rtn then common.warn("%s is rounded to nearest: %s", r.name, r.rtn) end
    end
    add_rms(all)
    if options.json then print(q.json { layers = report, total = all, scaled = scaled }) return end
    print_report(report, all)
    if scaled then print_scaled(scaled) end
  end,
}
