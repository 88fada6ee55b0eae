-- mixed.lua - bits per layer: what a mixture of formats is chosen from, what it gives, and what is said of it.

local q = require "quernel"
local choice, target = q.import "lua.tradeoff.choice", q.import "lua.tradeoff.target"
local candidates = q.import "lua.tradeoff.candidates" (q, q.native)
local journal = q.import "lua.tradeoff.journal" (q.json, q.native.parse_json)
local steps = q.import "lua.tradeoff.steps" (q, q.native)
choice.mean = q.mean

local cases = {}
local function case(name, fn) cases[#cases + 1] = { name, fn } end

-- ---- Bits per layer -------------------------------------------------------------------------------------------------

local bits = q.import "lua.tradeoff.bits"

-- The least loss of all choices within the budget, by trying each.
local function exhaustive(units, budget, i, cost, loss)
  if cost > budget then return math.huge end
  if i > #units then return loss end
  local best = math.huge
  for _, o in ipairs(units[i].options) do
    best = math.min(best, exhaustive(units, budget, i + 1, cost + o.cost, loss + o.loss))
  end
  return best
end

case("bits go where they help most: at budgets on the hull nothing is better, between them nearly", function(t)
  local units = {}
  for i = 1, 6 do -- sensitivities that differ, losses that fall by a factor of 4 to 6 for each bit
    units[i] = { options = {} }
    for b = 2, 4 do
      local loss = (1 + i * i % 7) * (4.0 + i % 3) ^ -b
      table.insert(units[i].options, { bits = b, cost = b * (100 + 40 * (i % 2)), loss = loss })
    end
  end
  local exact = 0
  for budget = 1440, 2880, 20 do
    local chosen, cost, loss = bits.choose(units, "cost", budget)
    t.equal(#chosen, 6)
    t.check(cost <= budget, cost)
    local best = exhaustive(units, budget, 1, 0, 0)
    t.check(loss <= 1.25 * best, ("%d: %g, not %g"):format(budget, loss, best))
    if loss <= best * (1 + 1e-12) then exact = exact + 1 end
  end
  t.check(exact >= 20, exact)
end)

case("an option that costs more and loses more is never chosen, and too small a budget says the least", function(t)
  local units = { { options = { { cost = 3, loss = 0.5, name = "odd" }, { cost = 2, loss = 0.4, name = "good" },
    { cost = 1, loss = 1, name = "small" } } } }
  t.equal(bits.choose(units, "cost", 3)[1].name, "good")
  t.equal(bits.choose(units, "cost", 1)[1].name, "small")
  local none, least = bits.choose(units, "cost", 0.5)
  t.equal(none, nil)
  t.equal(least, 1)
end)

case("q, k and v are a unit, and so are gate and up, and a stack of experts", function(t)
  local sites = {}
  for _, x in ipairs { { "q", 0, 1 }, { "k", 0, 1 }, { "v", 0, 1 }, { "o", 0, 2 }, { "gate", 0, 3 }, { "up", 0, 3 },
    { "down", 0, 4 }, { "experts", 1, 5 }, { "experts", 1, 6 }, { "head", 2, 7 } } do
    sites[#sites + 1] = { name = x[2] .. "." .. x[1], layer = x[2], input = x[3], n = 10, k = 3 }
  end
  local out = {}
  for _, u in ipairs(bits.units(sites, function(s) return s.layer < 2 end)) do
    out[#out + 1] = ("%s:%d"):format(table.concat(u.sites, ","), u.weights)
  end
  t.equal(table.concat(out, " "), "1,2,3:90 4:30 5,6:60 7:30 8,9:60")
end)

-- ---- Mixtures -------------------------------------------------------------------------------------------------------

-- A made-up model of two layers, 64x64 and 64x128, and the rest. Either loses as much, by its format. The first takes
-- 1 ms at 2 bits and a quarter more at each further format, the second twice that, and the rest 5 ms.
local function made_up(folder)
  local sites = { { name = "a", layer = 1, input = 0, n = 64, k = 64, slice = 1 },
    { name = "b", layer = 2, input = 1, n = 64, k = 128, slice = 1 } }
  local world = { loss = { ["int2.g32.z"] = 0.8, ["int3.g64.z"] = 0.2, ["int4.g64.z"] = 0.05, ["int8.g32"] = 0.01 } }
  local now -- the format of what was exchanged
  local decoder = setmetatable({ sites = function() return sites end }, { __close = function() end })
  function decoder.replace(_, _, planes)
    now = planes
    return true
  end
  local fake = setmetatable({ decoder = function() return decoder end, evaluate = function()
    return { kl = world.loss[now] and { mean = world.loss[now] } }
  end }, { __index = q })
  local model = { by_name = { a = { linear = true }, b = { linear = true } }, stored = function()
    return { { weight = "a", bytes = 8192 }, { weight = "b", bytes = 16384 }, { weight = "norm", bytes = 100 } }
  end }
  local s = { model = model, choosing = { windows = { hash = "some" } } }
  function s.checkpoint(_, base) return { planes = function() return base.format end } end
  local slow = { ["int2.g32.z"] = 1, ["int3.g64.z"] = 1.25, ["int4.g64.z"] = 1.5, ["int8.g32"] = 1.75 }
  function s.pass(_, base)
    local t = 1e-3 * slow[base.format]
    return { seconds = 5e-3 + 3 * t, sites = { t, 2 * t } }
  end
  local work = { clock = function() return 0 end, make = function() return { bytes = 1, bpw = 1 } end,
    tune = function() return true end }
  local mixed = q.import "lua.tradeoff.mixed" (fake)
  function world.go(asked, budget)
    asked.calibrate = {}
    local wishes, m = mixed.wishes(asked, model, decoder, 1000)
    local notes <close> = assert(journal.open(folder, "a test"))
    return mixed.candidates(s, m, wishes, work, notes, { method = "gptq", act = "i8", new = candidates.new,
      budget = budget, progress = function() end })
  end
  function world.wishes(asked) return mixed.wishes(asked, model, decoder, 1000) end
  return world
end

local function formats_of(c) return ("%s %s"):format(c.formats.a, c.formats.b) end

case("a time is held by the sum of what each product takes and the rest", function(t)
  local world = made_up(t.scratch .. "/time")
  local c = world.go({ target = 8.3e-3 })[1]
  t.equal(c.name, "mixed-8.3-ms:gptq:i8")
  t.equal(c.target, 8.3e-3)
  t.equal(formats_of(c), "int3.g64.z int2.g32.z")
  t.check(math.abs(c.predicted.seconds - 8.25e-3) < 1e-12, c.predicted.seconds)
  t.check(math.abs(c.predicted.kl - 1) < 1e-12, c.predicted.kl)
  t.equal(formats_of(world.go({ target = 8.8e-3 })[1]), "int3.g64.z int3.g64.z")
  t.equal(formats_of(world.go({ target = 1 })[1]), "int8.g32 int8.g32")
  local none = made_up(t.scratch .. "/less").go({ target = 7.9e-3 })[1]
  t.equal(none.formats, nil)
  t.equal(none.broken, "--target-ms 7.9: the least is 8.000 ms a token, of which 5.000 ms are for what is not "
    .. "quantized")
end)

case("a mixture that cannot be made is a broken candidate, and one without time has no formats", function(t)
  local world = made_up(t.scratch .. "/mixed")
  local late = world.go({ bits = 3.5, target = 1 }, 0)
  t.equal(#late, 2)
  for _, c in ipairs(late) do t.check(not c.broken and not c.formats, c.name) end
  t.equal(formats_of(world.go({ bits = 2.9 })[1]), "int3.g64.z int2.g32.z")
  t.equal(formats_of(world.go({ bits = 2.9 }, 0)[1]), "int3.g64.z int2.g32.z") -- all was known
  world = made_up(t.scratch .. "/no-numbers")
  world.loss = {}
  t.equal(world.go({ bits = 3.5 })[1].broken, "a as int2.g32.z:gptq: its logits are no numbers")
end)

case("what cannot be is said before anything is measured, with the least that there is", function(t)
  local world = made_up(t.scratch .. "/refused")
  t.says("--bits 1: the least is 2.56 bits a weight", world.wishes, { bits = 1, calibrate = {} })
  t.says("--memory 0.004 MB: the least is 0.01 MB, of which 0.00 MB are not quantized, and 0.00 MB keys and values",
    world.wishes, { memory = 4000 })
  t.says("--target-ms 20: formats are chosen on a text that is not compared on: it needs --calibrate FILE",
    world.wishes, { target = 20e-3 })
  t.equal(#world.wishes { memory = 4000, candidates = {} }, 0) -- one of them may be smaller
end)

case("memory is filled unless candidates are listed or all fits, and --calibrate is there", function(t)
  local world = made_up(t.scratch .. "/memory")
  t.equal(#world.wishes { memory = 8000, calibrate = {} }, 1)
  t.equal(#world.wishes { memory = 8000 }, 0)
  t.equal(#world.wishes { memory = 8000, calibrate = {}, only = {} }, 0)
  t.equal(#world.wishes { memory = 100000, calibrate = {} }, 0)
  local names = {}
  for i, w in ipairs(world.wishes { memory = 8000, bits = 3, target = 1, calibrate = {} }) do
    names[i] = w.kind.field
  end
  t.equal(table.concat(names, " "), "bits target memory")
end)

-- ---- Formats that are chosen from -----------------------------------------------------------------------------------

case("8 bits of a unit lose less than a scale for a row does, inputs included", function(t)
  local path, units = t.tests .. "/models/", q.import "lua.tradeoff.units" (q)
  local m = assert(q.model(path .. "tiny-llama"))
  local windows = assert(q.windows { model = m, texts = { path .. "text/valid.txt" }, ctx = 256, windows = "8" })
  local original = assert(q.decoder(m, { share = 2 }))
  local reference = assert(q.reference { decoder = original, windows = windows })
  local function kl(format, act)
    local d <close> = assert(q.decoder(m, { share = 2 }))
    for i, site in ipairs(d:sites()) do
      assert(d:replace(i, assert(m:quantize(site.name, format, {}))))
      assert(d:activate(i, act))
    end
    return assert(q.evaluate { decoder = d, windows = windows, reference = reference }).kl.mean
  end
  local format = units.formats[#units.formats]
  local is, row = kl(format, "i8." .. format:match "^int8%.(.*)$"), kl("int8.row", "i8.row")
  print(("%s: KL %.3g, int8.row %.3g"):format(format, is, row))
  t.check(is < row / 2, ("%s: KL %g, int8.row %g"):format(format, is, row))
end)

-- ---- A real model ---------------------------------------------------------------------------------------------------

-- tiny-llama: 16 windows for GPTQ and 4 others for the choice, both of the text for calibration; evaluated on 24 of the
-- other text. -> steps, a function that gives the mixture that is asked for, one that evaluates a candidate.
local function tiny_llama(t)
  local folder, path = t.scratch .. "/tiny", t.tests .. "/models/"
  for _, name in ipairs { "", "/candidates", "/packs", "/scores" } do assert(q.native.make_folder(folder .. name)) end
  local s = { folder = folder, device = q.device "host", model = assert(q.model(path .. "tiny-llama")) }
  s.original = assert(q.decoder(s.model))
  function s.tell() end
  local function windows(text, which)
    return assert(q.windows { model = s.model, texts = { path .. "text/" .. text }, ctx = 256, windows = which,
      score = "all" })
  end
  s.calibrate, s.scored = windows("calibration.txt", "16"), windows("valid.txt", "24")
  s.choosing = { windows = windows("calibration.txt", "128:132") }
  for _, x in ipairs { s, s.choosing } do
    x.reference = assert(q.reference { decoder = s.original, windows = x.windows or x.scored })
  end
  local work, mixed = steps.new(s), q.import "lua.tradeoff.mixed" (q)
  local notes = assert(journal.open(folder .. "/journal", "a test"))
  local function mixture(asked)
    asked.calibrate = {}
    local wishes, m = mixed.wishes(asked, s.model, s.original, 0)
    return mixed.candidates(s, m, wishes, work, notes, { method = "gptq", act = "i8", new = candidates.new,
      progress = function() end })[1]
  end
  local function kl_of(c)
    local made = assert(work.make(c))
    c.bytes = made.bytes
    return assert(work.evaluate(c, 24)).kl.mean, made
  end
  return mixture, kl_of
end

case("at the bits of uniform 3 a mixture loses less, and so it does between 3 and 4", function(t)
  local mixture, kl_of = tiny_llama(t)
  local kl3, made3 = kl_of(candidates.new("int3.g64.z", "gptq", "i8"))
  local kl4, made4 = kl_of(candidates.new("int4.g64.z", "gptq", "i8"))
  local half = (made3.bpw + made4.bpw) / 2
  local kl, made = kl_of(mixture { bits = made3.bpw })
  print(("%.3f bits: KL %.3g, in one format %.3g"):format(made.bpw, kl, kl3))
  t.check(made.bpw <= made3.bpw and kl <= 0.9 * kl3, ("%g bits, KL %g; %g bits, KL %g"):format(made.bpw, kl, made3.bpw,
    kl3))
  kl, made = kl_of(mixture { bits = half })
  local mean = (kl3 * kl4) ^ 0.5
  print(("%.3f bits: KL %.3g, the geometric mean of 3 and 4 bits %.3g"):format(made.bpw, kl, mean))
  t.check(made.bpw <= half and kl <= 0.8 * mean, ("%g bits, KL %g; %g bits, KL %g"):format(made.bpw, kl, half, mean))
  local memory = (made3.bytes + made4.bytes) // 2
  kl, made = kl_of(mixture { memory = memory })
  t.check(made.bytes <= memory and made.bytes > 0.97 * memory and kl <= 0.8 * mean, ("%d bytes of %d, KL %g"):format(
    made.bytes, memory, kl))
end)

-- The ids of a text that means nothing.
local function text_of_ids(t, name, n, seed)
  local ids = {}
  for i = 1, n do
    seed = (seed * 1103515245 + 12345) % 2147483648
    ids[i] = seed // 65536 % 96
  end
  return t.write(name, ('{"input_ids":[%s]}\n'):format(table.concat(ids, ",")))
end

-- Run the verb with the plainest kernels. wait: of what problems those of test.waits (waiting_family) serve, a pattern.
-- -> its JSON; candidates by their names
local function tradeoff(t, folder, words, wait)
  local tune, print = q.tune, _G.print
  function q.tune(o)
    o.budget, o.effort = 1e-3, "quick"
    if wait and o.problems[1]:find(wait) then o.family = "test.waits" end
    return tune(o)
  end
  function _G.print() end
  local status = q.import "lua.main" (q, { "tradeoff", "-o", folder, "--quiet", table.unpack(words) })
  q.tune, _G.print = tune, print
  t.equal(status, 0)
  local r, made = q.native.parse_json(t.read(folder .. "/tradeoff.json")), {}
  for _, c in ipairs(r.candidates) do made[c.name] = c end
  return r, made
end

case("the verb fills a memory with a mixture, and judges it with the default candidates", function(t)
  local path, units = t.tests .. "/models/arch/llama", q.import "lua.tradeoff.units" (q)
  local d <close> = assert(q.decoder(assert(q.model(path))))
  local m, cache = units.of(d.model, d), d:session_bytes(1, 16)
  local least, most = units.ends(m, "bits")
  local memory = m.beside + cache + (least + most) // 16
  local r, made = tradeoff(t, t.scratch .. "/memory", { path, "--text", text_of_ids(t, "a.jsonl", 500, 1),
    "--calibrate", text_of_ids(t, "b.jsonl", 4000, 7), "--ctx", "16", "--memory", tostring(memory), "--bits", "4" })
  for _, c in ipairs(candidates.default(true)) do t.check(made[c.name], c.name) end
  local c, of_bits = made[("mixed-%g-MB:gptq:f32~i8"):format(memory / 1e6)], made["mixed-4-bits:gptq:f32~i8"]
  t.check(of_bits.bpw <= 4 and of_bits.bpw > 3, of_bits.bpw)
  t.check(c.bytes + cache <= memory and c.bytes + cache > 0.95 * memory, ("%d of %d bytes"):format(c.bytes + cache,
    memory))
  local coarse = made["int2.g32.z:gptaq:f32~i8"]
  for _, x in ipairs { c, of_bits } do
    t.equal(x.broken, nil)
    t.check(x.kl.mean > 0 and x.kl.mean < coarse.kl.mean, ("KL %g and %g"):format(x.kl.mean, coarse.kl.mean))
  end
  for name, x in pairs(made) do
    t.equal(r.verdict.class[name].large, x.bytes ~= nil and x.bytes + cache > memory, name)
  end
  t.equal(r.verdict.class[r.verdict.chosen or c.name].large, false)
end)

-- host.gemv under another name, with a step more, in which it waits.
local function waiting_family()
  local base, def = q.gen.kernel.family "host.gemv", {}
  for key, x in pairs(base) do def[key] = x end
  def.name = "test.waits"
  function def.cost(v) return 1000 * base.cost(v) end -- others are the plain ones
  function def.launch(v)
    local l = base.launch(v)
    table.insert(l.steps, 1, { entry = "wait_a_while", grid = { 1 } })
    return l
  end
  def.outline = { table.unpack(base.outline) }
  table.insert(def.outline, function(w)
    w [[
      __attribute__((visibility("default")))
      void wait_a_while(const struct args *a, int64_t begin, int64_t end, int32_t thread) {
        (void)a, (void)begin, (void)end, (void)thread;
        for (volatile int i = 0; i < 200000; i++) {}
      }
    ]]
  end)
  return q.kernel(def)
end

case("a candidate whose kernel is slower than 16-bit dense is not taken, however near and small it is", function(t)
  waiting_family()
  local name = "int4.g32:rtn:bf16"
  local r, made = tradeoff(t, t.scratch .. "/slow", { t.tests .. "/models/arch/llama", "--text",
    text_of_ids(t, "a.jsonl", 500, 1), "--ctx", "16", "--only", name, "--only", "int8.row:rtn:bf16", "--margin",
    "90%" }, "^int4")
  t.equal(made[name].broken, nil)
  local x = r.verdict.class[name]
  t.check(x.close and x.timed and not x.eligible, q.json(x))
  t.equal(x.slower[1], 1)
  t.equal(table.concat(r.verdict.slower, " "):find(name, 1, true) ~= nil, true)
  t.check(r.verdict.chosen ~= name and r.verdict.smallest ~= name, r.verdict.chosen)
  t.check(table.concat(r.verdict.sentences, "\n"):find("not to be taken: .*" .. name:gsub("%p", "%%%0")),
    q.json(r.verdict.sentences))
  t.check(made[name].bytes < made["int8.row:rtn:bf16"].bytes, made[name].bytes)
end)

-- The kernels of 16 bits wait, so that the others are faster wherever this runs. All else is measured.
case("of a copy, 8, 4 and 2 bits two are as the original, the margin says which is taken, 2 bits are not", function(t)
  waiting_family()
  local models = t.tests .. "/models/"
  local text = t.write("calibrate.txt", t.read(models .. "text/calibration.txt"):sub(1, 32 * 256))
  local function go(margin)
    local r, made = tradeoff(t, t.scratch .. "/seeded", { models .. "tiny-llama", "--text", models .. "text/valid.txt",
      "--calibrate", text, "--ctx", "256", "--windows", "32", "--score", "all", "--margin", margin, "--only",
      "int8.row:rtn:bf16", "--only", "int4.g64:gptq:bf16", "--only", "int2.g64:rtn:bf16" }, "^f16")
    t.equal(table.concat(r.verdict.tied, " "), "f16:copy:f32 int8.row:rtn:bf16")
    local bits2 = made["int2.g64:rtn:bf16"]
    t.check(bits2.delta.low > 0.05 and bits2.kl.low > 0.05, q.json { bits2.delta, bits2.kl })
    t.check(table.concat(r.verdict.sentences, "\n"):find(
      "Beyond the margin: .*int2%.g64:rtn:bf16 %(perplexity %+[%d.]+%% %[.-%], KL 0%.%d+%)"))
    return r.verdict.chosen
  end
  local wide = go "0.5%"
  t.check(wide == "int4.g64:gptq:bf16" or wide == "int8.row:rtn:bf16", wide) -- whichever is faster, else the smaller
  t.equal(go "0.1%", "int8.row:rtn:bf16")
end)

case("the verb makes mixtures of a fused checkpoint, times them, and says what became of the target", function(t)
  local r, made = tradeoff(t, t.scratch .. "/fused", { t.tests .. "/models/arch/phi3", "--text",
    text_of_ids(t, "a.jsonl", 500, 1), "--calibrate", text_of_ids(t, "b.jsonl", 4000, 7), "--ctx", "16", "--only",
    "int4.g64.z:gptq:f32~i8", "--bits", "4", "--target-ms", "1000" })
  local c, timed = made["mixed-4-bits:gptq:f32~i8"], made["mixed-1000-ms:gptq:f32~i8"]
  t.check(c.bpw <= 4 and c.bpw > 3 and #c.decode == 3 and c.kl.mean > 0, c.bpw)
  for name, format in pairs(timed.formats) do t.equal(format, "int8.g32", name) end
  t.equal(c.formats["model.layers.0.self_attn.qkv_proj.weight"] ~= nil, true)
  t.equal(c.formats["lm_head.weight"] ~= nil, true)
  local said = table.concat(r.verdict.sentences, "\n")
  t.check(said:find "mixed%-1000%-ms:gptq:f32~i8 takes .* the target of 1000 ms is met", said)
end)

-- ---- What is said of a target ---------------------------------------------------------------------------------------

local function timed(name, seconds, kl, more)
  local format, _, act = name:match "^(.-):(.-):(.*)$"
  local c = { name = name, format = format, act = act, kl = { mean = kl }, decode = { { m = 1,
    rate = choice.middle { 1 / seconds, 1 / seconds, 1 / seconds, 1 / seconds, 1 / seconds, 1 / seconds },
    ratio = { mean = 0.1 / seconds, low = 0.099 / seconds, high = 0.101 / seconds, n = 6 } } } }
  for key, value in pairs(more or {}) do c[key] = value end
  return c
end

local function aimed(seconds, kl, more)
  local c = timed("mixed-25-ms:gptq:i8", seconds, kl, { target = 25e-3, predicted = { seconds = 24.5e-3, kl = 0.0009 },
    formats = { a = "int4.g64.z", b = "int3.g64.z" } })
  for key, value in pairs(more or {}) do c[key] = value end
  return c
end

case("a target is met or missed, and the mixture is held against the fastest that is as near", function(t)
  local worse, slow = timed("int3.g64.z:gptq:i8", 20e-3, 0.003), timed("int8.row:rtn:i8", 40e-3, 0.0001)
  local four = timed("int4.g64.z:gptq:i8", 30e-3, 0.0005)
  local dense = timed("bf16:copy:f32", 10e-3, 0, { dense = true })
  local head = "mixed-25-ms:gptq:i8 takes 24 ms a token (24 ms to 24 ms), predicted were 24.5 ms: the target of 25 ms "
    .. "is "
  t.equal(target.said { aimed(24e-3, 0.001), worse, slow, four, dense }, head .. "met. It is 1.25x as fast as "
    .. "int4.g64.z:gptq:i8, the fastest in one format that is as near the original (30 ms, KL 0.0005).")
  t.equal(target.said { aimed(24e-3, 0.001), worse, dense }, head
    .. "met. No candidate in one format that was timed is as near the original.")
  t.equal(target.said { four, worse }, nil)
  t.equal(target.said { aimed(24e-3, 0.001, { broken = "no" }) }, nil)
  t.check(target.said({ aimed(26e-3, 0.001) }):find "the target of 25 ms is missed")
  t.check(target.said({ aimed(24e-3, 0.001, { stopped = "x is better" }) }):find "It was given up: x is better%.")
end)

case("a mixture that is not faster than a candidate in one format says why", function(t)
  local function why(u) return target.said({ aimed(24e-3, 0.001), u }):match "met%. (.*)$" end
  t.equal(why(timed("int4.g64.z:gptq:i8", 24.1e-3, 0.0005)), "Its time cannot be told from that of int4.g64.z:gptq:i8, "
    .. "the fastest in one format that is as near the original (24.1 ms, KL 0.0005): predicted of its parts alone were "
    .. "24.5 ms and KL 0.0009.")
  t.says("(20 ms, KL 0.0005): nvfp4 is not among its formats.", error, why(timed("nvfp4:gptq:i8", 20e-3, 0.0005)))
  t.says("its activations are bf16, and those of the mixture i8.", error,
    why(timed("int4.g64.z:gptq:bf16", 20e-3, 0.0005)))
end)

return cases
