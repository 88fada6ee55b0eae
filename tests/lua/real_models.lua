-- real_models.lua FOLDER - what tests/real-models knows of its models: numbers of Hugging Face's `tokenizers` and of
-- transformers in fp32, from the same files. Prints each beside ours; ends with 1 if one is off.
local q = require "quernel"
local folder, store = ..., assert(q.store.root())
local text, bad = "tests/models/text/valid.txt", 0

local rows = { { "model", "what", "is", "should be", "within", "" } }
local function row(model, what, is, should, within)
  local ok = math.abs(is - should) <= within
  bad = bad + (ok and 0 or 1)
  local digits = within > 0 and "%.5f" or "%d"
  rows[#rows + 1] = { model, what, digits:format(is), digits:format(should), within, ok and "ok" or "OFF" }
end

-- windows: which; nats: their mean, or that of each
local models = {
  { file = "smollm2.gguf", ids = 25565, windows = "0:32:2", mean = 2.8769, within = 5e-4 },
  { file = "gemma3.gguf", ids = 24926, windows = "8", mean = 2.715448, within = 2e-3,
    nats = { 2.43373, 2.63113, 2.67256, 2.65590, 2.85732, 2.81995, 2.69616, 2.95683 } },
}

for _, m in ipairs(models) do
  local model = assert(q.model(folder .. "/" .. m.file))
  local d = assert(q.decoder(model))
  local w = assert(q.windows { model = model, texts = { text }, ctx = 512, windows = m.windows, score = "all" })
  local progress = q.progress {}
  local e = assert(q.evaluate { decoder = d, windows = w, store = store, progress = progress and function(done, total)
    progress { phase = "eval", problem = m.file, done = done, total = total }
  end })
  row(m.file, "ids of " .. text:match "[^/]*$", w.domains[1].ids, m.ids, 0)
  row(m.file, ("nats, mean of %d windows"):format(w.n), e.nll.mean, m.mean, m.within)
  for i, nats in ipairs(m.nats or {}) do row(m.file, ("nats, window %d"):format(i - 1), e.w_nll[i], nats, m.within) end
  d:close()
end
q.table(rows)
return bad == 0 and 0 or 1
