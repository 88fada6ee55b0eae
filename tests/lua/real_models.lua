-- real_models.lua FOLDER - what tests/real-models knows of its models, each number beside ours as soon as that is
-- there: ids of Hugging Face's `tokenizers`, nats of transformers in fp32, from the same files; how near SmolLM2 stays
-- in three bits; what the tools of the methods leave of tiny-llama (quantizers.lua). Ends with 1 if one is off.
--
-- What was evaluated or quantized by this program already is taken from FOLDER.
local q = require "quernel"
local folder = ...
local tests = arg[0]:match "^(.*)/lua/[^/]*$"
local text, unicode = tests .. "/models/text/valid.txt", tests .. "/vectors/unicode.txt"
local calibration, store, bad = tests .. "/models/text/calibration.txt", folder .. "/store", 0
local build = assert(q.native.build())
assert(q.native.make_folder(store))

io.stdout:setvbuf "line"
local layout = "%-13s  %-35s  %16s  %16s  %9s  %s"
print(layout:format("model", "what", "is", "should be", "within", ""))

local function line(ok, ...)
  bad = bad + (ok and 0 or 1)
  print(layout:format(...) .. (ok and "ok" or "OFF"))
end

-- within: a number, or "at most"
local function row(model, what, is, should, within)
  local most = within == "at most"
  line(most and is <= should or not most and math.abs(is - should) <= within, model, what, ("%.5f"):format(is),
    ("%.5f"):format(should), within, "")
end

local function shown(phase, what)
  local progress = q.progress {}
  return progress and function(done, total)
    progress { phase = phase, problem = what, done = done, total = total }
  end
end

-- How many ids, and the first half of the FNV-1a hash of all as little-endian i32.
local function summary(ids, n)
  local h = 0xcbf29ce484222325
  for i = 1, n do
    for shift = 0, 24, 8 do h = (h ~ (ids[i] >> shift & 0xff)) * 0x100000001b3 end
  end
  return ("%d %08x"):format(n, h >> 32)
end

local function compare_ids(model, file, path, should)
  local ids, about = assert(q.tokenizer(model)):read(path)
  local is = summary(assert(ids, about), about.n)
  line(is == should, file, "ids of " .. path:match "[^/]*$", is, should, 0, "")
end

-- windows: which; mean, nats: of them, of each; valid, unicode: summaries of ids, by vectors/real_ids.py
local models = {
  { file = "smollm2.gguf", windows = "0:32:2", mean = 2.8769, within = 5e-4,
    valid = "25565 a226d3fc", unicode = "71334 332859fb" },
  { file = "gemma3.gguf", windows = "8", mean = 2.715448, within = 2e-3,
    valid = "24926 f3eba449", unicode = "61237 fb18c6f1",
    nats = { 2.43373, 2.63113, 2.67256, 2.65590, 2.85732, 2.81995, 2.69616, 2.95683 } },
}

-- Methods for three bits, calibrated on 16 windows: the perplexity of the same windows, at most.
local three_bits = { { "gptq", 34.2 }, { "gptaq", 28 }, { "awq", 34.4 } }

local function windows_of(model, file, which)
  return assert(q.windows { model = model, texts = { file }, ctx = 512, windows = which, score = "all" })
end

local function evaluate(model, windows, what)
  local d <close> = assert(q.decoder(model))
  return assert(q.evaluate { decoder = d, windows = windows, store = store, progress = shown("eval", what) })
end

-- A checkpoint that this program has made already, or makes.
local function quantized(model, method)
  local made = ("%s/smollm2-int3-%s"):format(folder, method)
  local known = io.open(made .. ".by")
  local by = known and known:read "a"
  if known then known:close() end
  if by ~= build then
    assert(model:write_quantized(made, { format = "int3.g64.z", method = method, overwrite = true,
      progress = q.progress {}, windows = windows_of(model, calibration, "0:128:8"),
      choose = function(t) return t.linear and t.role ~= "head" end }))
    assert(q.native.file_write(made .. ".by", build))
  end
  return assert(q.model(made))
end

for _, m in ipairs(models) do
  local model = assert(q.model(folder .. "/" .. m.file))
  compare_ids(model, m.file, text, m.valid)
  compare_ids(model, m.file, unicode, m.unicode)
  local w = windows_of(model, text, m.windows)
  local e = evaluate(model, w, m.file)
  row(m.file, ("nats, mean of %d windows"):format(w.n), e.nll.mean, m.mean, m.within)
  for i, nats in ipairs(m.nats or {}) do row(m.file, ("nats, window %d"):format(i - 1), e.w_nll[i], nats, m.within) end
end

local quantizers = dofile(tests .. "/lua/quantizers.lua")
local judge = quantizers.on(tests .. "/models", folder .. "/tiny-llama")
for _, r in ipairs(quantizers.rows) do
  row("tiny-llama", ("KL, %s by %s, %s"):format(table.unpack(r)), judge(r))
end

local smol = assert(q.model(folder .. "/" .. models[1].file))
for _, x in ipairs(three_bits) do
  local e = evaluate(quantized(smol, x[1]), windows_of(smol, text, models[1].windows), x[1])
  row(models[1].file, "perplexity, int3.g64.z by " .. x[1], math.exp(e.nll.mean), x[2], "at most")
end
return bad == 0 and 0 or 1
