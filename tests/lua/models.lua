-- models.lua - checkpoints from end to end: what they decode to, written as planes, written in other formats.

local q = require "quernel"
local models = QN_TESTS .. "/models/"

-- name, dialect and format of down_proj (truth has its first rows), bits a weight with all that the file keeps for it,
-- and the last bit that the tool kept (truth was computed in f16, bf16 or f32).
local checkpoints = {
  { "gptq4", "gptq", "int4.g128", 4.28, 2 ^ -11 },
  { "gptq4-act", "gptq", "int4.g64.z", 4.44, 2 ^ -11 },
  { "awq4", "awq", "int4.g64.z", 4.31, 2 ^ -11 },
  { "ct-w4a16", "compressed-tensors/pack-quantized", "int4.g64", 4.25, 0 },
  { "ct-w8a8", "compressed-tensors/int-quantized", "int8.row", 8.02, 0 },
  { "ct-fp8-block", "compressed-tensors/float-quantized", "e4m3.b128x128", 8.0, 0 },
  { "ct-nvfp4", "compressed-tensors/nvfp4-pack-quantized", "nvfp4", 4.5, 2 ^ -8 },
  { "bnb-nf4", "bitsandbytes/nf4", "nf4.g64.f32", 4.18, 0 },
  { "q4_0.gguf", "gguf/Q4_0", "int4.g32", 4.5, 0 },
  { "q4_k_m.gguf", "gguf/Q6_K", "q6_k", 6.56, 0 },
  { "q8_0.gguf", "gguf/Q8_0", "int8.g32", 8.5, 0 },
}
local layers = {
  { "model.layers.1.self_attn.k_proj.weight", "blk.1.attn_k.weight" },
  { "model.layers.2.mlp.down_proj.weight", "blk.2.ffn_down.weight" },
}

local function path_of(c) return models .. "tiny-llama-" .. c[1] end
local function name_of(c, layer) return layer[c[1]:find "gguf" and 2 or 1] end

local function tensor(model, name)
  for _, t in ipairs(model:tensors()) do if t.name == name then return t end end
end

-- Elements of x, rows of k, that are off by more than `step` of their row's largest.
local function differences(x, truth, k, step)
  local wrong = 0
  for row = 1, #truth, k do
    local largest = 0
    for i = row, row + k - 1 do largest = math.max(largest, math.abs(truth[i])) end
    for i = row, row + k - 1 do
      if not (math.abs(x[i] - truth[i]) <= step * largest) then wrong = wrong + 1 end
    end
  end
  return wrong
end

local cases = {}
local function case(name, fn) cases[#cases + 1] = { name, fn } end

for _, c in ipairs(checkpoints) do
  case(c[1] .. " decodes to what its tool decodes", function(t)
    local m, truth = assert(q.model(path_of(c))), assert(q.model(models .. "truth/" .. c[1] .. ".safetensors"))
    local down = tensor(m, name_of(c, layers[2]))
    t.equal(down.dialect, c[2])
    t.equal(down.format, c[3])
    t.check(math.abs(down.bpw - c[4]) < 0.01, down.bpw)
    for _, layer in ipairs(layers) do
      local path = t.scratch .. "/x.npy"
      assert(m:write_npy(name_of(c, layer), path))
      local x, info = assert(m:dequantize(name_of(c, layer)))
      local want = assert(truth:dequantize(layer[1]))
      t.equal(differences(x, want, info.k, c[5]), 0, layer[1])
      local f <close> = assert(io.open(path, "rb"))
      f:seek("set", 128)
      t.check(f:read "a" == x:bytes(), "the NumPy file holds other numbers")
    end
  end)

  case(c[1] .. " is the same model as neutral planes", function(t)
    local m, path = assert(q.model(path_of(c))), t.scratch .. "/planes"
    if not m:config() then path = path .. ".safetensors" end -- a GGUF
    assert(m:write_planes(path, { overwrite = m:config() ~= nil }))
    local back = assert(q.model(path))
    t.check(not m:config() or not back:config():find "quantization_config", back:config())
    t.equal(#back:tensors(), #m:tensors())
    for _, a in ipairs(m:tensors()) do
      local b = tensor(back, a.name)
      t.check(b, a.name)
      t.equal(b.format, a.format, a.name)
      t.equal(b.dialect, a.quantized and "planes" or a.dialect, a.name)
      t.equal(b.activation, a.activation, a.name)
      if a.format then t.check(m:dequantize(a.name):bytes() == back:dequantize(a.name):bytes(), a.name) end
    end
  end)
end

-- Exports: model, target, format of a layer, text that its configuration holds.
local exports = {
  { "gptq4", "gptq", '"group_size":128,' }, { "gptq4-act", "gptq", '"desc_act":true,' },
  { "gptq4-act", "gptq_v2", '"checkpoint_format":"gptq_v2",' }, { "awq4", "awq", '"version":"gemm",' },
  { "awq4", "gptq", '"sym":false' }, { "awq4", "compressed-tensors", '"symmetric":false,' },
  { "ct-w4a16", "compressed-tensors", '"format":"pack%-quantized",' },
  { "ct-w8a8", "compressed-tensors", '"format":"int%-quantized",.*"strategy":"token",' },
  { "ct-fp8-block", "compressed-tensors", '"block_structure":%[128,128%],' },
  { "ct-nvfp4", "compressed-tensors", '"strategy":"tensor_group",' },
  { "q4_0.gguf", "compressed-tensors", "quantized embedding" },
}
for _, e in ipairs(exports) do
  case(e[1] .. " for " .. e[2] .. " is the same model", function(t)
    local m, out = assert(q.model(path_of(e))), t.scratch .. "/out"
    local report, why = m:export(out, { to = e[2], config = models .. "tiny-llama", overwrite = true })
    if e[1]:find "gguf" then return t.check(not report and why:find(e[3]), why) end
    t.equal(assert(report, why).layers, 28)
    local back = assert(q.model(out))
    t.check(back:config():find(e[3]), back:config())
    t.equal(#back:tensors(), #m:tensors())
    for _, a in ipairs(m:tensors()) do
      local b = tensor(back, a.name)
      t.equal(b.format, a.format, a.name)
      t.equal(b.activation, a.activation, a.name)
      if a.format then t.check(m:dequantize(a.name):bytes() == back:dequantize(a.name):bytes(), a.name) end
    end
  end)
end

-- A folder with one layer of nvfp4 whose inputs are nvfp4, too; `beside` has their scale.
local function nvfp4_layer(t, beside)
  local header = ([[{"a.weight_packed":{"dtype":"U8","shape":[2,16],"data_offsets":[0,32]},
    "a.weight_scale":{"dtype":"F8_E4M3","shape":[2,2],"data_offsets":[32,36]},
    "a.weight_global_scale":{"dtype":"F32","shape":[1],"data_offsets":[36,40]},
    "%s":{"dtype":"F32","shape":[1],"data_offsets":[40,44]}}]]):format(beside)
  header = header .. (" "):rep(-#header % 8)
  assert(q.native.make_folder(t.scratch .. "/nvfp4"))
  t.write("nvfp4/model.safetensors", string.pack("<s8", header) .. ("\x21"):rep(36) .. string.pack("<ff", 4, 8))
  t.write("nvfp4/config.json", [[{"quantization_config":{"quant_method":"compressed-tensors","config_groups":{"g":{
    "input_activations":{"num_bits":4,"type":"float","strategy":"tensor_group","group_size":16,"dynamic":"local"}}}}}]])
  return assert(q.model(t.scratch .. "/nvfp4"))
end

case("the scale of activations goes with them, and is gone when the weight is another", function(t)
  local m, out = nvfp4_layer(t, "a.input_global_scale"), t.scratch .. "/nvfp4-out"
  local function check(activation, scale)
    local back = assert(q.model(out))
    local w, found = back.by_name["a.weight"], nil
    t.equal(w.activation, activation)
    t.equal(w.activation_tensor, scale)
    for _, s in ipairs(back:stored()) do found = found or s.name:find "input" and s.name end
    t.equal(found, scale)
    return back
  end
  assert(m:write_planes(out, { overwrite = true }))
  local planes = check("nvfp4.g16", "a.input_global_scale")
  assert(planes:export(t.scratch .. "/nvfp4-ct", { to = "compressed-tensors", overwrite = true }))
  out = t.scratch .. "/nvfp4-ct"
  local config = check("nvfp4.g16", "a.input_global_scale"):config()
  t.check(config:find '"dynamic":"local"', config)
  t.check(config:find '"strategy":"tensor_group".*"strategy":"tensor_group"', config)
  assert(m:export(out, { to = "compressed-tensors", overwrite = true, activations = "none" }))
  check()
  assert(m:write_quantized(out, { format = "int4.g16", choose = function() return true end, overwrite = true }))
  check()
  local ok, why = nvfp4_layer(t, "a.input_scale"):export(out, { to = "compressed-tensors", overwrite = true })
  t.equal(ok, nil)
  t.equal(why, "a.weight: activations as nvfp4.g16 need a.input_global_scale, which is not there; --activations none "
    .. "leaves them as they are")
end)

case("an export that its configuration would contradict is refused; a head of its own unties", function(t)
  local f <close> = assert(io.open(models .. "tiny-llama/config.json"))
  local config = f:read "a"
  local m = assert(q.model(path_of { "ct-w4a16" }))
  t.write("config.json", (config:gsub("{", '{"text_config": {"quantization_config": {}},', 1)))
  local ok, why = m:export(t.scratch .. "/out2", { to = "gptq", config = t.scratch })
  t.check(not ok and why:find "a quantization_config within another object", why)
  t.check(not io.open(t.scratch .. "/out2/config.json"))
  t.write("config.json", (config:gsub('"tie_word_embeddings": false', '"tie_word_embeddings": true', 1)))
  assert(assert(q.model(models .. "tiny-llama")):write_quantized(t.scratch .. "/h.safetensors", { format = "int4.g64",
    choose = function(x) return x.role == "head" end }))
  assert(assert(q.model(t.scratch .. "/h.safetensors")):export(t.scratch .. "/out2", { to = "gptq",
    config = t.scratch }))
  local back = assert(q.model(t.scratch .. "/out2"))
  t.equal(tensor(back, "lm_head.weight").format, "int4.g64")
  t.check(back:config():find '"tie_word_embeddings": false' and back:config():find '"lm_head":true', back:config())
end)

-- Rows of q and k, row i and row i + half of a head side by side.
local function rotated(x, k, heads)
  local rows, out = #x // k, {}
  local half = rows // heads // 2
  for i = 0, rows - 1 do
    local from = i // (2 * half) * 2 * half + i % (2 * half) % 2 * half + i % (2 * half) // 2
    for j = 1, k do out[i * k + j] = x[from * k + j] end
  end
  return out
end

for _, format in ipairs { "int4.g32", "q4_k" } do
  case("tiny-llama as " .. format .. " for gguf is the same model", function(t)
    local planes, out = t.scratch .. "/q.safetensors", t.scratch .. "/q.gguf"
    local function choose(x) return x.name:find "layers%.1%." end
    assert(assert(q.model(models .. "tiny-llama")):write_quantized(planes, { format = format, choose = choose }))
    local m = assert(q.model(planes))
    assert(m:export(out, { to = "gguf", config = models .. "tiny-llama", overwrite = true }))
    local back, given = assert(q.model(out)), assert(q.model(models .. "tiny-llama-q8_0.gguf"))
    t.equal(#back:tensors(), #given:tensors())
    for _, b in ipairs(given:tensors()) do t.check(tensor(back, b.name), b.name) end
    for _, pair in ipairs { { "self_attn.q_proj", "attn_q", 4 }, { "self_attn.k_proj", "attn_k", 2 },
      { "self_attn.v_proj", "attn_v" }, { "mlp.down_proj", "ffn_down" }, { "mlp.up_proj", "ffn_up" } } do
      for layer = 0, 1 do -- a dense one and a quantized one
        local a, info = m:dequantize(("model.layers.%d.%s.weight"):format(layer, pair[1]))
        local name = ("blk.%d.%s.weight"):format(layer, pair[2])
        local b = back:dequantize(name)
        t.equal(tensor(back, name).format, info.format)
        local want, wrong = pair[3] and rotated(a, info.k, pair[3]) or a, 0
        for i = 1, #b do if b[i] ~= want[i] then wrong = wrong + 1 end end
        t.equal(wrong, 0, name)
      end
    end
    t.check(not back:export(t.scratch .. "/r.gguf", { to = "gguf", config = models .. "tiny-llama" }))
  end)
end

-- A folder with the first layer of the checkpoint `name` of tests/models/arch, where `edit` changes the text of its
-- config.json, and a tokenizer of as many bytes as it has tokens.
local function with_tokenizer(t, name, edit)
  local from, folder, vocab = models .. "arch/" .. name, t.scratch .. "/" .. name, {}
  for i = 0, 95 do vocab[i + 1] = ('"%c%c": %d'):format(65 + i // 16, 97 + i % 16, i) end
  assert(q.native.make_folder(folder))
  local config = edit(assert(q.native.file_read(from .. "/config.json")):gsub('("num_hidden_layers": )%d', "%11"))
  assert(q.native.file_write(folder .. "/config.json", config))
  local m, entries = assert(q.model(from)), {}
  for _, s in ipairs(m:stored()) do
    local e = { name = s.name, dtype = s.dtype, dims = s.dims }
    if not e.name:find "layers%.[1-9]" then entries[#entries + 1] = e end
  end
  local writer <close> = assert(q.native.writer(folder .. "/model.safetensors", entries, {}))
  for _, e in ipairs(entries) do assert(writer:put(e.name, m.handle, e.name)) end
  assert(writer:close())
  assert(q.native.file_write(folder .. "/tokenizer.json", ('{"model": {"type": "BPE", "vocab": {%s}, "merges": []}, '
    .. '"pre_tokenizer": {"type": "ByteLevel"}}'):format(table.concat(vocab, ", "))))
  return folder
end

case("experts are slices of one tensor of a gguf", function(t)
  local function same(text) return text end
  local function normalized(text) return (text:gsub('("norm_topk_prob": )false', "%1true")) end
  local function fit(text) return (normalized(text):gsub('("mlp_only_layers": )%b[]', "%1[]")) end
  local ids = t.write("ids.jsonl", ('{"input_ids":[%s]}\n'):format(("5,17,90,3,61,8,44,"):rep(20) .. "1"))
  for _, x in ipairs { { "mixtral", same, "w1" }, { "qwen3_moe", fit, "gate_proj" } } do
    local folder = with_tokenizer(t, x[1], x[2])
    local planes, out = folder .. "/planes", folder .. "/out.gguf"
    assert(assert(q.model(folder)):write_quantized(planes, { format = "int8.g32",
      choose = function(y) return y.name:find("experts%.%d+%." .. x[3]) end }))
    local m = assert(q.model(planes))
    assert(m:export(out, { to = "gguf" }))
    local back = assert(q.model(out))
    local stack = tensor(back, "blk.0.ffn_gate_exps.weight")
    t.equal(stack.format, "int8.g32")
    local a <close>, d = assert(q.decoder(m)), assert(q.decoder(back))
    local windows = assert(q.windows { model = m, texts = { ids }, ctx = 32, score = "all" })
    local r = assert(q.reference { decoder = a, windows = windows })
    local kl = assert(q.evaluate { decoder = d, windows = windows, reference = r }).kl.mean
    d:close()
    t.check(kl < 1e-9, ("%s: KL %g"):format(x[1], kl))
  end
  local function changed(from, to) return function(text) return (fit(text):gsub(from, to)) end end
  for _, x in ipairs { { same, "norm_topk_prob false is not" }, { normalized, "mlp_only_layers %[1%] is not" },
    { changed('("num_local_experts": )6', "%15"), "says 5 experts, and there is number 5" },
    { changed('("num_local_experts": )6', "%17"), "says 7 experts, and number 6 is not there" },
    { changed("qwen3_moe", "qwen3"), "has no place in a GGUF of the architecture qwen3$" },
    { changed('"num_experts_per_tok": 2,', ""), 'no "num_experts_per_tok"' } } do
    local m = assert(q.model(with_tokenizer(t, "qwen3_moe", x[1])))
    local ok, why = m:export(t.scratch .. "/x.gguf", { to = "gguf" })
    t.check(not ok and why:find(x[2]), why)
  end
  local mixed = with_tokenizer(t, "mixtral", same)
  assert(assert(q.model(mixed)):write_quantized(mixed .. "/one", { format = "int8.g32",
    choose = function(y) return y.name:find "experts%.1%.w1" ~= nil end }))
  local ok, why = assert(q.model(mixed .. "/one")):export(t.scratch .. "/x.gguf", { to = "gguf" })
  t.check(not ok and why:find "w1.weight is bf16 .*w1.weight is int8.g32 .*: it has one type and shape", why)
end)

-- What a configuration and a tokenizer.json must have for a GGUF; text that replaces text of those of tiny-llama.
local unfit = {
  { "config.json", '"llama"', '"t5"', 'model_type "t5" has no row in what is written as GGUF; there are gemma3_text,' },
  { "config.json", '"vocab_size": 256', '"vocab_size": 255', "256 tokens, the configuration says vocab_size 255" },
  { "config.json", '"rope_theta": 10000.0', '"rope_scaling": {"type":"dynamic"}', 'a rotation of type "dynamic"' },
  { "config.json", '"rope_theta": 10000.0', '"rope_scaling": {"type":"yarn","factor":4,"beta_slow":1,"beta_fast":16}',
    "yarn with beta_fast 16 is not written" },
  { "config.json", '"llama"', '"mistral","sliding_window":8', "sliding_window 8 is not written as GGUF of the" },
  { "config.json", '"silu"', '"gelu"', "hidden_act gelu is not written as GGUF: llama.cpp takes silu for every" },
  { "config.json", '"llama"', '"qwen2","rope_scaling":{"type":"llama3"}', '"llama3" is not written as GGUF of the' },
  { "config.json", '"hidden_act": "silu"', '"attn_logit_softcapping":50', "attn_logit_softcapping 50 is not written" },
  { "config.json", '"llama"(.*)"hidden_act": "silu"', '"gemma3_text"%1"query_pre_attn_scalar": 168',
    "query_pre_attn_scalar 168 is not written as GGUF: llama.cpp takes 64 for every model of the architecture gemma3" },
  { "config.json", '"rms_norm_eps": 1e%-05,', "", 'no "rms_norm_eps"' },
  { "tokenizer.json", '"type": "BPE"', '"type": "Unigram"', 'a tokenizer of type "Unigram" is not written' },
  { "tokenizer.json", '"merges": %[%]', '"merges": ["Ā Ā"]', "text is split by nothing, for which llama.cpp has no" },
}
for _, u in ipairs(unfit) do
  case("no GGUF: " .. u[4], function(t)
    local made = {}
    for _, name in ipairs { "config.json", "tokenizer.json" } do
      local f <close> = assert(io.open(models .. "tiny-llama/" .. name))
      made[name] = f:read "a"
    end
    local n
    made[u[1]], n = made[u[1]]:gsub(u[2], u[3], 1)
    t.equal(n, 1, u[1])
    for name, text in pairs(made) do t.write(name, text) end
    local ok, why = assert(q.model(path_of { "ct-w4a16" })):export(t.scratch .. "/x.gguf",
      { to = "gguf", config = t.scratch })
    t.check(not ok and why:find(u[4], 1, true), why)
    t.check(not io.open(t.scratch .. "/x.gguf"))
  end)
end

-- Bits a weight, and errors: of int4 in groups of 128 about a tenth is expected of trained weights, four times less for
-- each two bits.
local targets = {
  { "int4.g128", 4.125, 0.12 }, { "int8.row", 8.02, 0.01 }, { "q4_k", 4.5, 0.09 }, { "nvfp4", 4.5, 0.11 },
}
for _, target in ipairs(targets) do
  case("tiny-llama as " .. target[1], function(t)
    local path, name = t.scratch .. "/quantized.safetensors", "model.layers.2.mlp.down_proj.weight"
    local m = assert(q.model(models .. "tiny-llama"))
    local report = assert(m:write_quantized(path, { format = target[1], scales = "mse",
      choose = function() return true end }))
    t.equal(#report, 29)
    local back = assert(q.model(path))
    local info = tensor(back, name)
    t.equal(info.dialect, "planes")
    t.equal(info.format, q.resolve(target[1]).name)
    t.check(math.abs(info.bpw - target[2]) < 0.02, info.bpw)
    t.equal(tensor(back, "model.embed_tokens.weight").dialect, "plain")
    local x, y, error2, weight2 = m:dequantize(name), assert(back:dequantize(name)), 0, 0
    for i = 1, #x do error2, weight2 = error2 + (x[i] - y[i]) ^ 2, weight2 + x[i] ^ 2 end
    t.check((error2 / weight2) ^ 0.5 < target[3], (error2 / weight2) ^ 0.5)
    for _, r in ipairs(report) do -- the report says what a reader finds
      if r.name == name then t.check(math.abs(r.error2 / error2 - 1) < 1e-3, r.error2) end
    end
    local groups = back:groups()
    local problems = 0
    for _, g in ipairs(groups) do problems = problems + #g.layers end
    t.equal(problems, 29)
    for _, g in ipairs(groups) do assert(back:check(g)) end
  end)
end

case("a dense format is a plain tensor; a layer that is not chosen stays", function(t)
  local path = t.scratch .. "/dense.safetensors"
  local m = assert(q.model(models .. "tiny-llama-gptq4"))
  local function choose(x) return x.name:find "layers%.0%." end
  t.equal(#assert(m:write_quantized(path, { format = "bf16", choose = choose })), 7)
  local back = assert(q.model(path))
  t.equal(tensor(back, "model.layers.0.mlp.up_proj.weight").dialect, "plain")
  t.equal(tensor(back, "model.layers.0.mlp.up_proj.weight").format, "bf16")
  t.equal(tensor(back, "model.layers.1.mlp.up_proj.weight").format, "int4.g128")
  t.equal(tensor(back, "model.layers.1.mlp.up_proj.weight").dialect, "planes")
end)

-- A GGUF of one stack of two matrices of 3 x 32, Q8_0: 34 bytes a row.
local function stack_of_experts(t)
  local head = "GGUF" .. string.pack("<I4I8I8 s8I4I8I8I8I4I8", 3, 1, 0, "blk.0.ffn_up_exps.weight", 3, 32, 3, 2, 8, 0)
  local rows = {}
  for r = 1, 6 do
    local codes = {}
    for i = 1, 32 do codes[i] = string.pack("b", (37 * r + 11 * i) % 255 - 127) end
    rows[r] = string.pack("<I2", 0x2c00 + r) .. table.concat(codes)
  end
  return t.write("stack.gguf", head .. ("\0"):rep(-#head % 32) .. table.concat(rows))
end

-- A safetensors file: header, data of zeros.
local function tensors(t, name, header, bytes)
  return t.write(name, string.pack("<s8", header) .. ("\0"):rep(bytes))
end

-- A tied model with one layer, a vision tower and a layer of codes that nobody reads.
local function odd_model(t)
  t.write("config.json", '{"text_config":{"tie_word_embeddings":true}}')
  return tensors(t, "model.safetensors", [[{
    "model.embed_tokens.weight":{"dtype":"F32","shape":[4,32],"data_offsets":[0,512]},
    "model.layers.0.up_proj.weight":{"dtype":"F32","shape":[4,32],"data_offsets":[512,1024]},
    "visual.fc.weight":{"dtype":"F32","shape":[4,32],"data_offsets":[1024,1536]},
    "model.layers.0.down_proj.q_weight":{"dtype":"I32","shape":[4,4],"data_offsets":[1536,1600]},
    "model.layers.0.down_proj.q_scale":{"dtype":"I32","shape":[1,4],"data_offsets":[1600,1616]}}]], 1616)
end

case("a part of a model must be asked for", function(t)
  local m, out = assert(q.model(odd_model(t))), t.scratch .. "/out.safetensors"
  local all = { format = "int4.g32", choose = function() return true end }
  for _, what in ipairs { { m:groups() }, { q.layer_problems(m) }, { m:write_planes(out) },
    { m:write_quantized(out, all) } } do
    t.check(not what[1] and what[2]:find "1 of 5 weights must be left out", what[2])
    t.check(what[2]:find "left out: model.layers.0.down_proj.weight: EXL2", what[2])
  end
  t.fails('has no field "methods"; did you mean "method"%?', m.write_quantized, m, out,
    { format = "f16", choose = print, methods = 1 })
  local list, left_out = q.layer_problems(m, { "bf16" }, true)
  t.equal(table.concat(list, " "), "f32:4x32:bf16") -- the layer and the head
  t.equal(left_out[1].name, "model.layers.0.down_proj.weight")
  t.equal(assert(m:write_planes(out, { partial = true }))[1].name, "model.layers.0.down_proj.weight")
  t.equal(#assert(q.model(out)):stored(), 5) -- what cannot be read is there, with all its parts
end)

case("a tied head is quantized when asked for, a vision tower when included", function(t)
  local m, out = assert(q.model(odd_model(t))), t.scratch .. "/out.safetensors"
  local function names(choose)
    local report, found = assert(m:write_quantized(out, { format = "int4.g32", choose = choose, partial = true })), {}
    for i, r in ipairs(report) do found[i] = r.name end
    table.sort(found)
    return table.concat(found, " ")
  end
  t.equal(names(function(x) return not x.tied_to end), "model.layers.0.up_proj.weight")
  t.equal(names(function() return true end), "lm_head.weight model.layers.0.up_proj.weight")
  local back = assert(q.model(out))
  t.equal(tensor(back, "lm_head.weight").format, "int4.g32")
  t.equal(tensor(back, "model.embed_tokens.weight").format, "f32")
  m:include(function(x) return x.role == "vision, audio" end)
  t.equal(names(function(x) return not x.tied_to end), "model.layers.0.up_proj.weight visual.fc.weight")
end)

case("layers that read the same X are a problem of their own, where that is asked for", function()
  for name, each in pairs { ["tiny-llama-gptq4"] = "int4.g128", ["tiny-llama-q4_0.gguf"] = "int4.g32" } do
    local m = assert(q.model(models .. name))
    local function of(fused)
      return table.concat(assert(q.layer_problems(m, { "bf16" }, false, nil, fused)), " ") .. " "
    end
    for _, shape in ipairs { "512x256", "1536x256" } do -- q, k and v; gate and up
      local spelling = ("%s:%s:bf16 "):format(each, shape)
      assert(not of(false):find(spelling, 1, true), of(false))
      assert(of(true):find(spelling, 1, true), of(true))
    end
    assert(of(true):find(of(false), 1, true) == 1, of(true))
  end
end)

case("activations of 8 bits are for the quantized layers", function()
  local m = assert(q.model(models .. "tiny-llama-gptq4"))
  local list = table.concat(assert(q.layer_problems(m, { "i8", "bf16" })), " ")
  assert(list:find "int4.g128:768x256:i8" and list:find "int4.g128:768x256:bf16", list)
  assert(list:find "f%d+:%d+x256 " and not list:find "f%d+:%d+x256:i8", list)
end)

case("a stack of experts stays one, slice by slice", function(t)
  local m, path = assert(q.model(stack_of_experts(t))), t.scratch .. "/stack.safetensors"
  local name = "blk.0.ffn_up_exps.weight"
  assert(m:write_planes(path))
  local back = assert(q.model(path))
  local info = tensor(back, name)
  t.equal(info.slices, 2)
  t.equal(info.bpw, 8.5)
  for slice = 1, 2 do t.check(m:dequantize(name, slice):bytes() == back:dequantize(name, slice):bytes(), slice) end
  t.check(back:dequantize(name, 1):bytes() ~= back:dequantize(name, 2):bytes())
  local report = assert(m:write_quantized(path, { format = "int4.g32", choose = function() return true end }))
  t.equal(report[1].slices, 2)
  t.equal(tensor(assert(q.model(path)), name).bpw, 4.5)
end)

case("a weight that is no number stops it, by name, and no file is left", function(t)
  local header = '{"a.weight":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}'
  local source = t.write("nan.safetensors", string.pack("<s8ffff", header, 1, 2, 0 / 0, 4))
  local path = t.scratch .. "/none.safetensors"
  local ok, why = assert(q.model(source)):write_quantized(path,
    { format = "int4.g32", choose = function() return true end })
  t.check(not ok and why:find "^a%.weight: plane 'codes'%[1, 0%] is %-?nan, not a finite number", why)
  t.check(not io.open(path))
  local p = io.popen("ls " .. t.scratch .. "/none* 2>/dev/null")
  t.equal(p:read "a", "")
end)

return cases
