-- real_models.lua FOLDER - what tests/real-models knows of its models: numbers of Hugging Face's `tokenizers` and of
-- transformers in fp32, from the same files, and how near SmolLM2 stays in three bits. Prints each beside ours; ends
-- with 1 if one is off.
local q = require "quernel"
local folder, store = ..., assert(q.store.root())
local text, bad = "tests/models/text/valid.txt", 0

local rows = { { "model", "what", "is", "should be", "within", "" } }
local function row(model, what, is, should, within)
  local ok = within == "at most" and is <= should or within ~= "at most" and math.abs(is - should) <= within
  bad = bad + (ok and 0 or 1)
  local digits = within == 0 and "%d" or within == "at most" and "%.2f" or "%.5f"
  rows[#rows + 1] = { model, what, digits:format(is), digits:format(should), within, ok and "ok" or "OFF" }
end

-- windows: which; nats: their mean, or that of each
local models = {
  { file = "smollm2.gguf", ids = 25565, windows = "0:32:2", mean = 2.8769, within = 5e-4 },
  { file = "gemma3.gguf", ids = 24926, windows = "8", mean = 2.715448, within = 2e-3,
    nats = { 2.43373, 2.63113, 2.67256, 2.65590, 2.85732, 2.81995, 2.69616, 2.95683 } },
}

-- Methods for three bits, calibrated on 16 windows: the perplexity of the same windows, at most.
local three_bits = { { "gptq", 34.2 }, { "gptaq", 28 }, { "awq", 34.4 } }

local function windows_of(model, file, which)
  return assert(q.windows { model = model, texts = { file }, ctx = 512, windows = which, score = "all" })
end

local function shown(what)
  local progress = q.progress {}
  return progress and function(done, total)
    progress { phase = "eval", problem = what, done = done, total = total }
  end
end

for _, m in ipairs(models) do
  local model = assert(q.model(folder .. "/" .. m.file))
  local d = assert(q.decoder(model))
  local w = windows_of(model, text, m.windows)
  local e = assert(q.evaluate { decoder = d, windows = w, store = store, progress = shown(m.file) })
  row(m.file, "ids of " .. text:match "[^/]*$", w.domains[1].ids, m.ids, 0)
  row(m.file, ("nats, mean of %d windows"):format(w.n), e.nll.mean, m.mean, m.within)
  for i, nats in ipairs(m.nats or {}) do row(m.file, ("nats, window %d"):format(i - 1), e.w_nll[i], nats, m.within) end
  d:close()
end

local smol = assert(q.model(folder .. "/" .. models[1].file))
for _, x in ipairs(three_bits) do
  local made = folder .. "/smollm2-int3-" .. x[1]
  assert(smol:write_quantized(made, { format = "int3.g64.z", method = x[1], overwrite = true, progress = q.progress {},
    choose = function(t) return t.linear and t.role ~= "head" end,
    windows = windows_of(smol, "tests/models/text/calibration.txt", "0:128:8") }))
  local d <close> = assert(q.decoder(assert(q.model(made))))
  local e = assert(q.evaluate { decoder = d, windows = windows_of(smol, text, models[1].windows), store = store,
    progress = shown(x[1]) })
  row(models[1].file, "perplexity, int3.g64.z by " .. x[1], math.exp(e.nll.mean), x[2], "at most")
end
q.table(rows)
return bad == 0 and 0 or 1
