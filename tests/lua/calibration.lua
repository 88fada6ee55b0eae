-- calibration.lua - a model that is quantized layer by layer on a text: runs that end in between, layers that the text
-- does not reach.

local q = require "quernel"
local models = QN_TESTS .. "/models/"

local cases = {}
local function case(name, fn) cases[#cases + 1] = { name, fn } end

local function read(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read "a"
end

local function options(m, text, more)
  local o = { format = "int3.g64.z", method = "gptq", threads = 1, choose = function(t) return t.role == "linear" end,
    windows = assert(q.windows { model = m, texts = { text }, ctx = 64, windows = "4", score = "all" }) }
  for key, value in pairs(more or {}) do o[key] = value end
  return o
end

local function kept(path)
  local pipe <close> = io.popen(("ls -d %s.* 2>&-"):format(path))
  return select(2, pipe:read "a":gsub("\n", ""))
end

-- Quantize, and end at the event n + 1 of a phase. Returns how many there were.
local function ended_after(t, m, path, phase, n, o)
  local seen = 0
  function o.progress(e)
    seen = seen + (e.phase == phase and 1 or 0)
    if seen > n then error("killed", 0) end
  end
  local ok, why = pcall(m.write_quantized, m, path, o)
  t.equal(ok, false)
  t.equal(why, "killed")
  return seen
end

case("a run that ended goes on where it was, to the same weights, alone in a file or in a folder", function(t)
  local m = assert(q.model(models .. "tiny-llama"))
  local text = models .. "text/valid.txt"
  local whole, path = t.scratch .. "/whole.safetensors", t.scratch .. "/parts"
  local report = assert(m:write_quantized(whole, options(m, text, { threads = 3 })))
  t.equal(#report, 28)
  for _, r in ipairs(report) do
    t.check(r.output_error2 < 0.5 * r.nearest_error2, r.name)
    t.equal(r.tokens, 256, r.name)
  end
  t.equal(kept(whole), 0)

  local function ended(n, more) return ended_after(t, m, path, "calibrate", n, options(m, text, more)) end
  ended(10)
  t.equal(kept(path), 11) -- and the log
  local log = assert(io.open(path .. ".layers", "a"))
  log:write "11 gptq 25" -- torn
  log:close()
  t.equal(ended(0), 1)
  t.equal(kept(path), 11)
  ended(16)
  t.equal(kept(path), 17)
  local second = assert(m:write_quantized(path, options(m, text)))
  t.equal(read(path .. "/model.safetensors"), read(whole), "the file")
  for i, r in ipairs(report) do t.equal(second[i].output_error2, r.output_error2, r.name) end
  t.equal(kept(path), 0)

  ended(3, { overwrite = true })
  ended(1, { overwrite = true, scales = "mse" }) -- another run: nothing of the first is taken
  t.equal(kept(path), 2) -- of the other nothing is left
  assert(m:write_quantized(path .. "/", options(m, text, { overwrite = true })))
  t.equal(read(path .. "/model.safetensors"), read(whole), "the file")
  t.equal(kept(path), 0)
end)

case("an expert that too few tokens come to is named, or rounded to nearest where that is allowed", function(t)
  local m = assert(q.model(models .. "arch/mixtral"))
  local text, out = t.scratch .. "/ids.jsonl", t.scratch .. "/experts.safetensors"
  local file <close> = assert(io.open(text, "w"))
  local ids = {}
  for i = 1, 300 do ids[i] = 7 end
  file:write(('{"input_ids":[%s]}\n'):format(table.concat(ids, ",")))
  file:flush()
  local o = options(m, text, { format = "int4.g16" })
  local report, why = m:write_quantized(out, o)
  t.equal(report, nil)
  t.check(why:find "experts%.%d.*of 256 tokens of the calibration came to it; .*%-%-allow%-rtn", why)
  o.allow_rtn, o.scales = true, "outputs" -- a rule that needs the text, too: such an expert has another
  report = assert(m:write_quantized(out, o))
  local rounded = 0
  for _, r in ipairs(report) do rounded = rounded + (r.rtn and 1 or 0) end
  t.check(rounded > 0 and rounded < #report, rounded)
  for _, r in ipairs(report) do t.equal(r.rtn ~= nil, r.tokens * 200 < 256, r.name) end

  for rule, see in pairs { outputs = q.native.see_products, mse = false, full = false } do
    t.equal(q.native.scales_see(rule) or false, see, rule)
  end

  -- A run that may not round to nearest does not take such layers from one that might.
  local layers = 0
  function o.progress(e)
    layers = layers + (e.phase == "calibrate" and 1 or 0)
    if layers == #report then error("killed", 0) end
  end
  t.fails("^killed$", m.write_quantized, m, out, o)
  o.allow_rtn, o.progress = nil, nil
  t.equal(select(2, m:write_quantized(out, o)), why)
end)

case("of two runs with one output the second is refused, and layers in another format are not taken", function(t)
  local m = assert(q.model(models .. "tiny-llama"))
  local path, text = t.scratch .. "/shared.safetensors", models .. "text/valid.txt"
  local o, second, why, code = options(m, text), nil, nil, nil
  function o.progress(e)
    if e.phase == "calibrate" and e.done == 1 then
      second, why, code = m:write_quantized(path, options(m, text, { format = "int4.g64" }))
    end
    if e.phase == "calibrate" and e.done == 3 then error("killed", 0) end
  end
  t.fails("^killed$", m.write_quantized, m, path, o)
  t.equal(second, nil)
  t.equal(why, path .. ".layers: another run is at work on it")
  t.equal(code, "QN_E_IO")
  t.equal(kept(path), 4)

  local name = "model.layers.0.self_attn.q_proj.weight"
  assert(q.save_planes(path .. ".layer-1", name, assert(m:quantize(name, "int4.g64", {}))))
  local format
  function o.progress(e)
    if e.phase == "calibrate" and e.done == 1 then
      format = assert(q.model(path .. ".layer-1")).by_name[name].format
    end
  end
  assert(m:write_quantized(path, o))
  t.equal(format, "int3.g64.z")
  t.equal(kept(path), 0)
end)

case("what a run left that was killed with its folder complete is removed when the folder is refused", function(t)
  local m = assert(q.model(models .. "tiny-llama"))
  local path, text = t.scratch .. "/done", models .. "text/valid.txt"
  local function o(overwrite)
    return options(m, text, { overwrite = overwrite, choose = function(x) return x.name:find "layers%.0%..*_proj" end })
  end
  local calibrate = q.calibrate
  function q.calibrate(about)
    local run = calibrate(about)
    function run.forget() error("killed", 0) end
    return run
  end
  local ok, why = pcall(m.write_quantized, m, path, o())
  q.calibrate = calibrate
  t.equal(ok, false)
  t.equal(why, "killed")
  t.equal(kept(path), 8)
  t.equal(m:write_quantized(path, o()), nil)
  t.equal(kept(path), 0)
  ended_after(t, m, path, "calibrate", 3, o(true))
  t.equal(m:write_quantized(path, o()), nil)
  t.equal(kept(path), 4) -- of a run that goes on
end)

case("memory that runs out is no reason to round a layer to nearest", function(t)
  local m = assert(q.model(models .. "tiny-llama"))
  local quantize = q.native.quantize
  function q.native.quantize(w, n, k, format, o, calibration)
    if o.method == "gptq" then return nil, "64 rows of 256 weights", "QN_E_NOMEM" end
    return quantize(w, n, k, format, o, calibration)
  end
  local made, why, code = m:write_quantized(t.scratch .. "/none.safetensors",
    options(m, models .. "text/valid.txt", { allow_rtn = true }))
  q.native.quantize = quantize
  t.equal(made, nil)
  t.equal(why, "model.layers.0.self_attn.q_proj.weight: 64 rows of 256 weights")
  t.equal(code, "QN_E_NOMEM")
end)

case("what has nothing to do with the text is told as such; without one the method is not run", function(t)
  local m = assert(q.model(models .. "tiny-llama"))
  local o = options(m, models .. "text/valid.txt")
  o.scales = "full"
  local made, wrong = m:write_quantized(t.scratch .. "/out.safetensors", o)
  t.equal(made, nil)
  t.equal(wrong, "model.layers.0.self_attn.q_proj.weight: scales 'full': format 'int3.g64.z' has a zero point or a "
    .. "minimum, and reaches both ends anyway")
  o.windows = nil
  local report, why = m:write_quantized(t.scratch .. "/out.safetensors", o)
  t.equal(report, nil)
  t.equal(why, "method gptq needs windows of a text to calibrate on")
end)

-- ---- Scaled inputs --------------------------------------------------------------------------------------------------

case("a search for scales that ended goes on where it was, to the same file", function(t)
  local m = assert(q.model(models .. "tiny-llama"))
  local whole, path = t.scratch .. "/whole.safetensors", t.scratch .. "/parts.safetensors"
  local function o(threads)
    return options(m, models .. "text/valid.txt", { method = "awq+gptaq", threads = threads,
      choose = function(x) return x.name:find "layers%.[01]%." ~= nil and x.linear end })
  end
  local report, _, scaled = assert(m:write_quantized(whole, o(3)))
  t.equal(#report, 14)
  t.equal(#scaled.inputs, 6) -- q, k, v; gate, up; down
  for _, x in ipairs(scaled.inputs) do
    t.check(x.exponent >= 0 and x.scaled2 < x.before2 and x.before2 < x.output2, x.name)
  end
  t.equal(ended_after(t, m, path, "scale", 4, o(1)), 5)
  local file <close> = assert(io.open(path .. ".input-0", "w")) -- torn
  file:close()
  t.equal(ended_after(t, m, path, "scale", 2, o(1)), 3) -- the first, the fifth
  t.equal(ended_after(t, m, path, "calibrate", 5, o(1)), 6)
  local second, _, again = assert(m:write_quantized(path, o(2)))
  t.equal(read(path), read(whole), "the file")
  for i, r in ipairs(report) do t.equal(second[i].output_error2, r.output_error2, r.name) end
  for i, x in ipairs(scaled.inputs) do t.equal(again.inputs[i].scaled2, x.scaled2, x.name) end
  t.equal(kept(path), 0)
end)

-- A checkpoint like one of tests/models/arch: its config.json, and tensors { name, dims, numbers } as made of each.
local function made_like(t, name, config, make)
  local from, folder = models .. "arch/" .. name, t.scratch .. "/like-" .. name
  local m = assert(q.model(from))
  assert(q.native.make_folder(folder))
  assert(q.native.file_write(folder .. "/config.json", config(read(from .. "/config.json"))))
  local entries, data = {}, {}
  for _, s in ipairs(m:stored()) do
    for _, x in ipairs { make(s.name, s.dims, assert(m.handle:numbers(s.name))) } do
      entries[#entries + 1], data[#data + 1] = { name = x[1], type = "f32", dims = x[2] }, x[3]
    end
  end
  local writer <close> = assert(q.native.writer(folder .. "/model.safetensors", entries, {}))
  for i, e in ipairs(entries) do assert(writer:put(e.name, data[i])) end
  assert(writer:close())
  return folder
end

-- The mistral with as many heads of keys and values as there are of queries: each twice.
local function with_equal_heads(t)
  local dim = 16
  local function config(text) return (text:gsub('"num_key_value_heads": 2', '"num_key_value_heads": 4')) end
  return made_like(t, "mistral", config, function(name, dims, x)
    if not name:find "[kv]_proj" then return { name, dims, x } end
    local each, y = dim * dims[2], q.native.ffi.buffer("f32", 2 * #x)
    for j = 1, #y do y[j] = x[(j - 1) // (2 * each) * each + (j - 1) % each + 1] end
    return { name, { 2 * dims[1], dims[2] }, y }
  end)
end

local function tokens_of(t, vocab)
  local ids = {}
  for i = 1, 300 do ids[i] = i * i * 31 % vocab end
  local path = t.scratch .. "/ids.jsonl"
  assert(q.native.file_write(path, ('{"input_ids":[%s]}\n'):format(table.concat(ids, ","))))
  return path
end

-- The divergence of the checkpoint in a folder from the model of a decoder.
local function divergence(folder, d, windows)
  local made <close> = assert(q.decoder(assert(q.model(folder))))
  local r = assert(q.reference { decoder = d, windows = windows })
  return assert(q.evaluate { decoder = made, windows = windows, reference = r }).kl.mean
end

local function stored(model, name)
  for _, s in ipairs(model:stored()) do if s.name == name then return s.dtype, model.handle:numbers(name) end end
end

-- With eight bits a scaled model computes what it did, if what is divided is what is multiplied.
local written = {
  { "gemma3", norm = "model.layers.0.input_layernorm.weight" }, -- norms of 1 + w
  { "qwen2", "o_proj.weight: 4 heads share the values of 2", norm = "model.layers.0.post_attention_layernorm.weight" },
  { "phi3", norm = "model.norm.weight" },
  { "mixtral", "experts.0.*: experts and their router read the same norm",
    norm = "model.layers.0.input_layernorm.weight", scaled = "w2" },
  { "heads", norm = "model.layers.1.input_layernorm.weight", scaled = "o_proj" },
}
case("a checkpoint with scaled inputs is one like any other", function(t)
  for _, x in ipairs(written) do
    local source = x[1] == "heads" and with_equal_heads(t) or models .. "arch/" .. x[1]
    local m, folder = assert(q.model(source)), t.scratch .. "/" .. x[1] .. "-awq"
    local d <close> = assert(q.decoder(m))
    assert(q.native.make_folder(folder))
    assert(q.native.file_write(folder .. "/config.json", read(source .. "/config.json")))
    local o = options(m, tokens_of(t, d:config().vocab), { format = "int8.row", method = "awq", allow_rtn = true,
      choose = function(y) return y.linear and not y.tied_to end })
    local report, _, scaled = assert(m:write_quantized(folder .. "/model.safetensors", o))
    local names, why = {}, {}
    for i, y in ipairs(scaled.inputs) do names[i] = y.exponent >= 0 and y.name or "" end
    for i, y in ipairs(scaled.kept) do why[i] = y.name .. ": " .. y.why end
    t.check(#report > 0 and table.concat(names, "\n"):find(x.scaled or "down_proj"), table.concat(names, "\n"))
    t.check(not x[2] or table.concat(why, "\n"):find(x[2]), table.concat(why, "\n"))
    local was, before = stored(m, x.norm)
    local is, after = stored(assert(q.model(folder)), x.norm)
    local moved = 0
    for i = 1, #before do moved = moved + (before[i] ~= after[i] and 1 or 0) end
    t.equal(is, was, x[1])
    t.check(moved > #before / 2, ("%s: %d of %d elements of %s changed"):format(x[1], moved, #before, x.norm))
    local kl = divergence(folder, d, o.windows)
    o.method = "rtn"
    assert(m:write_quantized(folder .. "/model.safetensors", o))
    local plain = divergence(folder, d, o.windows)
    t.check(kl < 3 * plain, ("%s: KL %g, unscaled %g"):format(x[1], kl, plain))
  end
end)

case("other tools get the norms of a checkpoint with scaled inputs", function(t)
  local m, folder = assert(q.model(models .. "tiny-llama")), t.scratch .. "/scaled"
  local d <close> = assert(q.decoder(m))
  local o = options(m, models .. "text/valid.txt", { format = "int4.g32", method = "awq",
    choose = function(x) return x.linear and x.name:find "layers%.0%." ~= nil end })
  local _, _, scaled = assert(m:write_quantized(folder, o))
  t.check(scaled.inputs[1].exponent >= 0, scaled.inputs[1].exponent)
  local kl = divergence(folder, d, o.windows)
  for _, to in ipairs { "gguf", "compressed-tensors", "gptq" } do
    local path = ("%s/as-%s%s"):format(t.scratch, to, to == "gguf" and ".gguf" or "")
    assert(assert(q.model(folder)):export(path, { to = to }))
    local is = divergence(path, d, o.windows)
    t.check(math.abs(is - kl) < 0.01 * kl, ("%s: KL %g, as planes %g"):format(to, is, kl))
  end
end)

case("what is made of a GGUF has its header and the norms of the scaled model", function(t)
  local m, path = assert(q.model(models .. "arch/gemma3/model.gguf")), t.scratch .. "/made"
  local d <close> = assert(q.decoder(m))
  local o = options(m, tokens_of(t, d:config().vocab), { format = "int8.g32", method = "awq",
    choose = function(x) return x.linear and not x.tied_to and x.k % 32 == 0 end })
  assert(m:write_quantized(path, o))
  local made, r = assert(q.model(path)), assert(q.reference { decoder = d, windows = o.windows })
  local function kl(model)
    local of <close> = assert(q.decoder(model))
    return assert(q.evaluate { decoder = of, windows = o.windows, reference = r }).kl.mean
  end
  local as_planes = kl(made)
  t.check(as_planes < 1e-4, ("KL %g"):format(as_planes))
  assert(made:export(path .. ".gguf", { to = "gguf" }))
  t.equal(kl(assert(q.model(path .. ".gguf"))), as_planes)
end)

case("what reads or gives an input and is not quantized keeps it from being scaled", function(t)
  local m = assert(q.model(models .. "tiny-llama"))
  local function kept_of(pattern)
    local o = options(m, models .. "text/valid.txt", { method = "awq",
      choose = function(x) return x.name:find(pattern) ~= nil end })
    local _, _, scaled = assert(m:write_quantized(t.scratch .. "/out.safetensors", o))
    t.equal(#scaled.inputs, 0)
    t.equal(#scaled.kept, 1)
    return scaled.kept[1].name .. ": " .. scaled.kept[1].why
  end
  t.equal(kept_of "layers%.0%.self_attn%.[qv]_proj", "model.layers.0.self_attn.q_proj.weight: "
    .. "model.layers.0.self_attn.k_proj.weight reads it, too, and is not quantized")
  t.equal(kept_of "layers%.0%.mlp%.down_proj", "model.layers.0.mlp.down_proj.weight: "
    .. "model.layers.0.mlp.up_proj.weight, which gives it, is not quantized")
end)

case("a module that reads the head, too, keeps its input from being scaled", function(t)
  local function giver_of(path)
    local d <close> = assert(q.decoder(assert(q.model(path))))
    local sites = d:sites()
    return d:giver(sites[#sites].input)
  end
  t.equal(giver_of(models .. "arch/qwen3").norm, "model.norm.weight")
  for _, module in ipairs { "mtp.norm.weight", "blk.9.nextn.shared_head_norm.weight" } do
    local folder = made_like(t, "qwen3", function(text) return text end, function(name, dims, x)
      if name ~= "model.norm.weight" then return { name, dims, x } end
      return { name, dims, x }, { module, dims, x }
    end)
    t.equal(select(2, giver_of(folder)), module .. " is of a module that reads the head, too")
  end
end)

case("methods are as good as those of the tools that people use", function(t)
  local quantizers = dofile(QN_TESTS .. "/lua/quantizers.lua") -- tests/real-models tries all of them
  local judge = quantizers.on(QN_TESTS .. "/models", t.scratch .. "/judged")
  for _, row in ipairs(quantizers.rows) do
    if row.quick then
      local is, should, within = judge(row)
      local most = within == "at most"
      t.check(most and is <= should or not most and math.abs(is - should) <= within,
        ("%s by %s: KL %.6f, should be %.6f, %s"):format(row[1], row[2], is, should, within))
    end
  end
end)

return cases
