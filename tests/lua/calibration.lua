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
  local pipe <close> = io.popen(("ls %s.layer* 2>&-"):format(path))
  return select(2, pipe:read "a":gsub("\n", ""))
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

  local function ended_after(n, more)
    local seen = 0
    local o = options(m, text, more)
    function o.progress(e)
      seen = seen + (e.phase == "calibrate" and 1 or 0)
      if seen > n then error("killed", 0) end
    end
    local ok, why = pcall(m.write_quantized, m, path, o)
    t.equal(ok, false)
    t.equal(why, "killed")
    return seen
  end
  ended_after(10)
  t.equal(kept(path), 11) -- and the log
  local log = assert(io.open(path .. ".layers", "a"))
  log:write "11 gptq 25" -- torn
  log:close()
  t.equal(ended_after(0), 1)
  t.equal(kept(path), 11)
  ended_after(16)
  t.equal(kept(path), 17)
  local second = assert(m:write_quantized(path, options(m, text)))
  t.equal(read(path .. "/model.safetensors"), read(whole), "the file")
  for i, r in ipairs(report) do t.equal(second[i].output_error2, r.output_error2, r.name) end
  t.equal(kept(path), 0)

  ended_after(3, { overwrite = true })
  ended_after(1, { overwrite = true, scales = "mse" }) -- another run: nothing of the first is taken
  t.equal(kept(path), 4) -- planes of 2 and 3 lie there still, the log knows of 1 alone
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
  o.allow_rtn = true
  report = assert(m:write_quantized(out, o))
  local rounded = 0
  for _, r in ipairs(report) do rounded = rounded + (r.rtn and 1 or 0) end
  t.check(rounded > 0 and rounded < #report, rounded)
  for _, r in ipairs(report) do t.equal(r.rtn ~= nil, r.tokens * 200 < 256, r.name) end

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

return cases
