-- serving.lua - who serves a format elsewhere: the table of the documentation, and what is said of a checkpoint.

local q = require "quernel"
local serving = q.import "lua.serving"
local candidates = q.import "lua.tradeoff.candidates" (q, q.native)

local cases = {}
local function case(name, fn) cases[#cases + 1] = { name, fn } end

case("the documentation has the table and its sources as they are here", function(t)
  local page = t.read(t.tests .. "/../docs/serving-elsewhere.md")
  local rows, sources = serving.markdown()
  t.check(page:find(rows, 1, true), "docs/serving-elsewhere.md wants this table:\n" .. rows)
  t.check(page:gsub("%s+", " "):find(sources, 1, true), "docs/serving-elsewhere.md wants these sources: " .. sources)
  t.check(page:find("read on " .. serving.read, 1, true), "docs/serving-elsewhere.md wants the date " .. serving.read)
end)

case("every source that a row names is there, and every server is one that is known", function(t)
  for _, row in ipairs(serving.rows) do
    for _, cells in ipairs { row.fast or {}, row.other or {} } do
      for stack, text in pairs(cells) do
        q.check.among(stack, serving.stacks, "server")
        local n = tonumber(text:match "%[(%d+)%]")
        t.check(n and serving.sources[n] or text:find "table above", text)
      end
    end
  end
end)

case("what is proposed for a format holds it: its planes are packed", function(t)
  local model = assert(q.model(t.tests .. "/models/tiny-llama"))
  for _, row in ipairs(serving.rows) do
    for format in row.formats:gmatch "%S+" do
      t.equal(q.resolve(format).name, format)
      local planes = assert(model:quantize("model.layers.0.mlp.down_proj.weight", format, { threads = 1 }))
      local to = row.activations == "i8" and row.to .. "/int-quantized" or row.to
      t.check(q.native.encode(to, planes))
    end
  end
end)

-- "gptq: vLLM SGLang; gguf: llama.cpp"
local function places(formats, act)
  local out = {}
  for i, x in ipairs(serving.of(formats, act)) do
    out[i] = ("%s%s: %s"):format(x.to, x.activations and " " .. x.activations or "", table.concat(x.stacks, " "))
  end
  return table.concat(out, "; ")
end

case("each server has the first checkpoint that it reads", function(t)
  t.equal(places({ "int4.g64" }, "bf16"), "gptq: vLLM SGLang TGI")
  t.equal(places({ "int4.g64.bf16" }, "i8"), "gptq: vLLM SGLang TGI")
  t.equal(places({ "int4.g32" }, "i8"), "gptq: vLLM SGLang TGI; gguf: llama.cpp")
  t.equal(places({ "int8.row" }, "i8"), "compressed-tensors i8: vLLM SGLang; gptq: TGI")
  t.equal(places({ "int8.row" }, "f32~i8"), "compressed-tensors i8: vLLM SGLang; gptq: TGI")
  t.equal(places({ "int8.row" }, "bf16"), "gptq: vLLM SGLang TGI")
  t.equal(places({ "mxfp4" }, "i8"), "compressed-tensors: vLLM; gguf: llama.cpp")
end)

case("a mixture is served where all of its formats are", function(t)
  t.equal(places({ "int4.g64", "int8.row" }, "i8"), "gptq: vLLM SGLang TGI")
  t.equal(places({ "int4.g64", "int4.g64.z" }, "i8"), "")
  t.equal(places({ "int3.g64.z", "int4.g64.z" }, "i8"), "")
end)

case("of every format that a candidate can have something is said, of each server once", function(t)
  local formats = { "int4.g64.f32", "int4.g96", "int8.tensor", "e4m3.b128x128", "nf4", "ternary.row" }
  for _, c in ipairs(candidates.default(true)) do formats[#formats + 1] = c.format end
  for _, f in ipairs(q.formats()) do formats[#formats + 1] = q.resolve(f.name).name end
  for _, format in ipairs(formats) do
    for _, act in ipairs { "bf16", "f32~i8" } do
      local found, rest = serving.of({ format }, act)
      local count = #rest
      for _, x in ipairs(found) do count = count + #x.stacks end
      t.equal(count, #serving.stacks, format)
      t.check(serving.sentence({ format }, act, found, rest):find(format, 1, true), format)
    end
  end
end)

case("the sentence says where there is a fast kernel, and where not", function(t)
  local function sentence(formats, act) return serving.sentence(formats, act, serving.of(formats, act)) end
  local as_of = "As of " .. serving.read .. " there is a fast kernel for "
  t.equal(sentence({ "int4.g32" }, "bf16"), as_of .. "int4.g32 in vLLM, SGLang and TGI (as gptq) and llama.cpp (as "
    .. "gguf), none is known in TensorRT-LLM.")
  t.equal(sentence({ "int4.g64" }, "i8"), as_of .. "int4.g64 in vLLM, SGLang and TGI (as gptq), none is known in "
    .. "TensorRT-LLM and llama.cpp. As gptq activations stay in 16 bits there.")
  t.equal(sentence({ "int4.g64" }, "f32~i8"), sentence({ "int4.g64" }, "i8"))
  t.check(sentence({ "mxfp4" }, "e4m3"):find(" As compressed-tensors activations stay in 16 bits there.", 1, true))
  for _, of in ipairs { { "mxfp4", "bf16" }, { "e4m3.row", "e4m3" }, { "int8.row", "bf16" }, { "q4_k", "i8" } } do
    t.equal(sentence({ of[1] }, of[2]):find("16 bits", 1, true), nil, of[1])
  end
  t.equal(sentence({}, "bf16"), "No layer is quantized: other servers need no kernel for it.")
  t.equal(sentence({ "int3.g64.z" }, "i8"), "No other server that is known here has a fast kernel for int3.g64.z "
    .. "(vLLM, SGLang, TGI, TensorRT-LLM and llama.cpp, as of " .. serving.read .. ").")
end)

-- ---- Commands -------------------------------------------------------------------------------------------------------

local elsewhere = q.import "lua.tradeoff.elsewhere" (q)

case("a checkpoint without what a target wants says why there is no command; one of theirs needs none", function(t)
  local sentence, list = elsewhere(t.tests .. "/models/tiny-llama-gptq4", "bf16", "out")
  t.check(sentence:find("int4.g128", 1, true) and list[1].to == "gptq", sentence)
  t.equal(list[1].command or list[1].why, nil)
  assert(q.native.make_folder(t.scratch .. "/alone"))
  local planes = t.scratch .. "/alone/weights.safetensors"
  local model = assert(q.model(t.tests .. "/models/tiny-llama"))
  assert(model:write_quantized(planes, { format = "int4.g64", choose = function(x) return x.role ~= "head" end }))
  sentence, list = elsewhere(planes, "bf16", "out")
  t.equal(sentence:find "head", nil)
  t.equal(list[1].command, nil)
  t.check(list[1].why:find("config.json: not there", 1, true), list[1].why)
end)

return cases
