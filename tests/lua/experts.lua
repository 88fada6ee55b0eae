-- experts.lua - stacks of experts: of checkpoints, however these store them; in a pack, in a model, from a script; and
-- how tokens are spread over them.

local q = require "quernel"
local models = QN_TESTS .. "/models/arch/"

local cases = {}
local function case(name, fn) cases[#cases + 1] = { name, fn } end

-- One portable variant of host.gemv for each problem, at one M.
local function tune(t, problems, more)
  local seen = {}
  local options = { problems = problems, m = { 9 }, dense = false, family = "host.gemv", fixed = { ISA = "c" },
    store = t.scratch .. "/store", only = function(name)
      local problem = name:match "^(.*)/"
      local first = seen[problem] == nil
      seen[problem] = seen[problem] or name
      return first or seen[problem] == name
    end }
  for key, x in pairs(more or {}) do options[key] = x end
  return q.tune(options)
end

-- ---- Checkpoints ----------------------------------------------------------------------------------------------------

local stored = {
  { "mixtral", "model.layers.0.block_sparse_moe.experts.*.w1.weight", "bf16:4x48x32", 6 },
  { "mixtral/model.gguf", "blk.0.ffn_gate_exps.weight", "bf16:4x48x32", 6 },
  { "qwen3_moe", "model.layers.0.mlp.experts.*.down_proj.weight", "bf16:6x32x24", 6 },
  { "qwen3_5_moe", "model.layers.0.mlp.experts.*.down_proj.weight", "bf16:6x32x24", 6 },
  { "gpt_oss", "model.layers.0.mlp.experts.gate_up_proj", "bf16:4x96x32", 4 },
  { "gpt_oss-mxfp4", "model.layers.0.mlp.experts.gate_up_proj", "mxfp4:3x64x32", 4 },
}

case("experts are one weight, whether a file has them in one tensor or in many", function(t)
  for _, x in ipairs(stored) do
    local m = assert(q.model(models .. x[1]))
    local found
    for _, s in ipairs(m:stacks()) do if s.name == x[2] then found = s end end
    t.check(found and not found.refusal, x[1])
    t.equal(m.shape_of(found), x[3], x[1])
    t.equal(#m:stacks(), x[4], x[1])
    local problems = " " .. table.concat(assert(q.layer_problems(m)), " ") .. " "
    t.check(problems:find(" " .. x[3] .. " ", 1, true), problems)
    local one, others = (" " .. x[3] .. " "):gsub(":%d+x", ":"), false -- an expert's, and is another layer like it?
    for _, w in ipairs(m:tensors()) do
      others = others or w.linear and not m.stack_of[w.name] and " " .. m.shape_of(w) .. " " == one
    end
    t.equal(problems:find(one, 1, true) ~= nil, others, problems)
    local old = table.concat(assert(q.layer_problems(m, nil, false, q.arch "sm_75")), " ") -- it has none for stacks
    t.check((" " .. old .. " "):find(one, 1, true) and not old:find ":%d+x%d+x", old)
  end
end)

-- Experts 0, 1, 2 of two columns, those of `numbers`, in a format each.
local function few(t, numbers, formats)
  local entries, at = {}, 0
  for i, n in ipairs(numbers) do
    local format = formats and formats[i] or "F32"
    local bytes = format == "F32" and 64 or 32
    entries[i] = ('"model.layers.0.mlp.experts.%d.up_proj.weight":{"dtype":"%s","shape":[4,4],"data_offsets":[%d,%d]}')
      :format(n, format, at, at + bytes)
    at = at + bytes
  end
  local header = "{" .. table.concat(entries, ",") .. "}"
  t.write("model.safetensors", string.pack("<s8", header) .. ("\0"):rep(at))
end

case("experts that are not there, or too many, are named", function(t)
  local function refusal(config, numbers, formats)
    t.write("config.json", config)
    few(t, numbers, formats)
    local m = assert(q.model(t.scratch))
    local list, why = q.layer_problems(m)
    return list and table.concat(list, " ") or why, m
  end
  for _, x in ipairs {
    { '{"num_local_experts":3}', { 0, 2 }, "there is expert 2, and number 1 is not" },
    { '{"num_experts":4}', { 0, 1, 2 }, "the configuration says 4 experts, and number 3 is not there" },
    { '{"text_config":{"n_routed_experts":2}}', { 0, 1, 2 },
      "the configuration says 2 experts, and there is number 2" },
    { "{}", { 1, 2 }, "there is expert 1, and number 0 is not" },
  } do
    local why, m = refusal(x[1], x[2])
    t.check(why:find("experts.*.up_proj.weight: " .. x[3], 1, true), why)
    t.equal(#assert(q.layer_problems(m, nil, true) == nil and { 1 }), 1) -- nothing else is in it
  end
  t.equal(refusal("{}", { 0, 1, 2 }), "f32:3x4x4")
  t.equal(refusal("{}", { 2, 0, 1 }), "f32:3x4x4")
  t.equal(refusal("{}", { 0, 1, 2 }, { "F32", "F16", "F32" }), "f32:4x4 f16:4x4") -- of several formats: each by itself
end)

-- ---- In a model -----------------------------------------------------------------------------------------------------

-- The first ids of some windows.
local function windows(t, m)
  local ids = {}
  for i = 1, 96 do ids[i] = i * 37 % 60 + 1 end
  local text = t.write("ids.jsonl", ('{"input_ids":[%s]}\n'):format(table.concat(ids, ",")))
  return assert(q.windows { model = m, texts = { text }, ctx = 32, score = "all" })
end

-- Spellings of a model's problems: of those of its experts alone.
local function of_experts(m)
  local out, seen = {}, {}
  for _, s in ipairs(m:stacks()) do
    local spelling = m.shape_of(s) .. ":f32-f32"
    if not seen[spelling] then out[#out + 1] = spelling end
    seen[spelling] = true
  end
  return out
end

case("a model runs its experts at once where the pack has their stack", function(t)
  for _, name in ipairs { "mixtral", "qwen3_moe", "qwen3_5_moe", "gpt_oss", "gpt_oss-mxfp4" } do
    local m = assert(q.model(models .. name))
    local w = windows(t, m)
    local path, experts = t.scratch .. "/experts.qpack", 0
    assert(q.pack(assert(tune(t, of_experts(m))), path))
    for _, s in ipairs(m:stacks()) do experts = experts + s.experts end
    local d <close> = assert(q.decoder(m, { threads = 2 }))
    local r = assert(q.reference { decoder = assert(q.decoder(m)), windows = w })
    local pack = assert(q.open(path))
    local served, dense = d:serve_pack(pack)
    t.equal(served, experts, name)
    t.equal(served + dense, #d:sites(), name)
    local e = assert(q.evaluate { decoder = d, windows = w, reference = r })
    t.check(e.kl.mean > 0 and e.kl.mean < 1e-9, ("%s: %g"):format(name, e.kl.mean))
    local time = assert(d:time(1, 8, 1))
    local spent = 0
    for i, site in ipairs(d:sites()) do if site.name:find "exp" then spent = spent + time.sites[i] end end
    t.check(spent > 0 and spent <= time.linear, name)
  end
end)

case("a stack of which not all products are there serves its experts one by one", function(t)
  local m = assert(q.model(models .. "mixtral"))
  local w, path = windows(t, m), t.scratch .. "/two.qpack"
  assert(q.pack(assert(tune(t, { "bf16:4x48x32:f32-f32" })), path)) -- w1, w3
  local d <close> = assert(q.decoder(m, { threads = 2 }))
  local r = assert(q.reference { decoder = assert(q.decoder(m)), windows = w })
  t.equal(d:serve_pack(assert(q.open(path))), 2 * 2 * 4)
  local e = assert(q.evaluate { decoder = d, windows = w, reference = r })
  t.check(e.kl.mean > 0 and e.kl.mean < 1e-9, e.kl.mean)
end)

case("a stack is for the experts that it was made for", function(t)
  local m = assert(q.model(models .. "qwen3_moe"))
  local d <close> = assert(q.decoder(m))
  local sites = {}
  for i, site in ipairs(d:sites()) do
    if site.name:find "layers%.0.*experts.*down_proj" then sites[#sites + 1] = i end
  end
  local path, spelling = t.scratch .. "/one.qpack", "bf16:6x32x24:f32-f32"
  assert(q.pack(assert(tune(t, { spelling, "bf16:32x24:f32-f32" })), path))
  local pack = assert(q.open(path))
  local gemm, one = assert(pack:bind(spelling)), assert(pack:bind "bf16:32x24:f32-f32")
  local stack
  for e, i in ipairs(sites) do
    local planes <close> = assert(m:planes(d:sites()[i].name))
    stack = assert(gemm:prepack_expert(e, planes, stack))
  end
  local function refuses(text, fn, ...)
    local ok, why = fn(...)
    t.check(not ok and why:find(text, 1, true), why)
  end
  local planes = assert(m:planes(d:sites()[sites[1]].name))
  local weight = assert(one:prepack(planes))
  refuses("expert 6, allowed 0 .. 5", gemm.prepack_expert, gemm, 7, planes, stack)
  refuses("is for a stack", d.serve, d, sites[1], gemm, stack)
  refuses("6 experts, 'bf16:32x24:f32-f32' has 0", d.serve_stack, d, sites, one, weight)
  refuses("5 experts, '" .. spelling .. "' has 6", d.serve_stack, d, { table.unpack(sites, 1, 5) }, gemm, stack)
  t.fails("no such site", d.serve_stack, d, { 0 }, gemm, stack)
  assert(d:serve_stack(sites, gemm, stack))
  assert(d:serve(sites[1], one, weight)) -- each of them may be served by something else again
end)

-- ---- From a script --------------------------------------------------------------------------------------------------

local N, K, M = 16, 32, 6

local function spell(experts) return ("int4.g32:%dx%dx%d:f32-f32+bias"):format(experts, N, K) end
local spelling = spell(3)

local function planes_of(e)
  local codes = q.ffi.buffer("u8", N * K):fill(function(i) return (i * 7 + e) % 16 end)
  local scale = q.ffi.buffer("f16", N):fill(function() return 2.0 ^ -e end)
  return q.planes("int4.g32", N, K, { { name = "codes", data = codes }, { name = "scale", data = scale, cols = 1 } }),
    function(x, row, n)
      local sum = 0.0
      for k = 0, K - 1 do sum = sum + x[row * K + k + 1] * (codes[n * K + k + 1] - 8) * 2.0 ^ -e end
      return sum
    end
end

local function list(...)
  local numbers = { ... }
  return q.ffi.buffer("i32", #numbers):fill(function(i) return numbers[i] end)
end

-- A stack of so many experts, served from a pack: its gemm; run(rows) -> Y, or nil and why; and a check of a row of Y,
-- which is of row `from` of X and an expert, below 0: nobody.
local function served(t, experts)
  local path = t.scratch .. "/script.qpack"
  assert(q.pack(assert(tune(t, { spell(experts) })), path))
  local gemm = assert(assert(q.open(path)):bind(spell(experts)))
  local products, stack = {}, nil
  for e = 1, experts do
    local planes
    planes, products[e] = planes_of(e)
    stack = assert(gemm:prepack_expert(e, planes, stack))
  end
  local x = q.ffi.buffer("f32", M * K):fill(function(i) return i * 5 % 9 - 4 end)
  local bias = q.ffi.buffer("f32", experts * N):fill(function(i) return i end)
  local function run(rows)
    local y = q.ffi.buffer("f32", M * N):fill(function() return 99 end)
    local args = { weight = stack, x = x, bias = bias, y = y, m = M }
    for key, value in pairs(rows) do args[key] = value end
    local ok, why = gemm:run(args)
    return ok and y, why
  end
  local function check(y, row, from, expert)
    for n = 0, N - 1 do
      t.equal(y[row * N + n + 1], expert < 0 and 99 or products[expert + 1](x, from, n) + bias[expert * N + n + 1])
    end
  end
  return gemm, run, check
end

-- What is said of bad rows.
local function refuses(t, run, bad)
  for text, rows in pairs(bad) do
    local none, why = run(rows)
    t.check(not none and why:find(text, 1, true), why)
  end
end

case("a script runs a stack by ids and by offsets, and is told what is wrong with them", function(t)
  local _, run, check = served(t, 3)
  local y = assert(run { ids = list(2, 0, -1, 1, 1, 2) })
  for row, e in ipairs { 2, 0, -1, 1, 1, 2 } do check(y, row - 1, row - 1, e) end
  y = assert(run { ids = list(2, 0, 1, 1, -1, 2), topk = 2 })
  for row, e in ipairs { 2, 0, 1, 1, -1, 2 } do check(y, row - 1, (row - 1) // 2, e) end
  y = assert(run { offsets = list(0, 2, 2, 5) })
  for row, e in ipairs { 0, 0, 2, 2, 2, -1 } do check(y, row - 1, row - 1, e) end
  refuses(t, run, {
    ["3 offsets of rows for 3 experts, wanted are 4"] = { offsets = list(0, 2, 6) },
    ["offset 2 of rows is 1, allowed 2 .. m = 6"] = { offsets = list(0, 2, 1, 6) },
    ["offset 3 of rows is 7, allowed 5 .. m = 6"] = { offsets = list(0, 2, 5, 7) },
    ["offset 0 of rows is 1, allowed 0"] = { offsets = list(1, 2, 5, 6) },
    ["id 4 of rows is expert 3, the stack has 3"] = { ids = list(0, 0, 0, 0, 3, 0) },
  })
  t.fails("ids or offsets, one of them, is wanted", run, {})
  t.fails("ids or offsets, one of them, is wanted", run, { ids = list(0, 0, 0, 0, 0, 0), offsets = list(0, 0, 0, 0) })
  t.fails("ids holds 5 elements, 6 are needed", run, { ids = list(0, 0, 0, 0, 0) })
  t.fails("topk = 4, of which m = 6 must be a multiple", run, { ids = list(0, 0, 0, 0, 0, 0), topk = 4 })
end)

case("a stack of one expert is a stack", function(t)
  local gemm, run, check = served(t, 1)
  local y = assert(run { ids = list(0, -1, 0, 0, -1, 0), topk = 2 })
  for row, e in ipairs { 0, -1, 0, 0, -1, 0 } do check(y, row - 1, (row - 1) // 2, e) end
  y = assert(run { offsets = list(0, 4) })
  for row, e in ipairs { 0, 0, 0, 0, -1, -1 } do check(y, row - 1, row - 1, e) end
  y = assert(run { offsets = list(0, 0) })
  for row = 0, M - 1 do check(y, row, row, -1) end
  refuses(t, run, {
    ["1 offsets of rows for 1 experts, wanted are 2"] = { offsets = list(0) },
    ["offset 1 of rows is 7, allowed 0 .. m = 6"] = { offsets = list(0, 7) },
    ["id 2 of rows is expert 1, the stack has 1"] = { ids = list(0, 0, 1, 0, 0, 0) },
  })
  local planes <close> = planes_of(1)
  local none, why = gemm:prepack(planes)
  t.check(not none and why:find("each is packed by qn_prepack_expert", 1, true), why)
  none, why = gemm:prepack_expert(2, planes)
  t.check(not none and why:find("expert 1, allowed 0 .. 0", 1, true), why)
  none, why = assert(q.open(t.scratch .. "/script.qpack")):bind "int4.g32:16x32:f32-f32+bias"
  t.check(not none and why:find("int4.g32:16x32:f32-f32+bias", 1, true), why)
end)

-- ---- How tokens are spread ------------------------------------------------------------------------------------------

case("a spread over experts is read from a list or a file, and named by its shares", function(t)
  local plain, json = t.write("plain", "4 2,\n1.5\t0\n"), t.write("list.json", " [8, 4, 3, 0] ")
  local a, b = assert(q.experts(plain)), assert(q.experts(json))
  t.equal(table.concat(a.weights, " "), "4 2 1.5 0")
  t.check(a.name:find "^@%x+$" and #a.name == 17, a.name)
  t.equal(a.name, b.name)
  t.check(assert(q.experts { 4, 2, 0, 1.5 }).name ~= a.name)
  t.equal(assert(q.experts { 3, 3, 3 }).name, "")
  t.equal(a:met(1), 1)
  t.equal(a:met(1000), 3)
  local met = assert(q.experts { 1, 1, 1, 1, 1, 1, 1, 1 }):met(8)
  t.check(met > 2 and met < 8, met)
  for text, why in pairs {
    ["1 2 x 4"] = "expert 2 has x; wanted is a number from 0 on",
    ["1 -2"] = "expert 1 has -2; wanted is a number from 0 on",
    ["1 nan"] = "expert 1 has nan; wanted is",
    ["[1, [2]]"] = "wanted is a number from 0 on",
    ["0 0"] = "the sum of all is 0",
    ["1e308 1e308"] = "the sum of all is beyond all numbers",
    [""] = "holds no number; wanted is a weight or a count for each expert",
    ["[1, 2"] = "is no JSON; wanted is a weight or a count for each expert",
    ['{"a": 1}'] = "is no list; wanted is a weight or a count for each expert",
  } do
    local path = t.write("bad", text)
    local none, what = q.experts(path)
    t.check(not none and what:find(path .. ": ", 1, true) and what:find(why, 1, true), what)
    t.check(not what:find "\n", what)
  end
  local none, why = q.experts(t.scratch .. "/nowhere")
  t.check(not none and why:find "cannot be read", why)
end)

case("times of different spreads never meet", function(t)
  local store = t.scratch .. "/spread"
  local function counts(more)
    local r = assert(tune(t, { spelling }, more))
    return r.counts.timed, r.counts.timed_known, r.experts
  end
  local evenly = { store = store }
  local timed, known = counts(evenly)
  t.check(timed > 0 and known == 0)
  local skewed = { store = store, experts = { 5, 1, 0 } }
  local again, none_known, name = counts(skewed)
  t.check(again > 0 and none_known == 0, "what was timed evenly is not taken for it")
  t.equal(name, q.experts({ 10, 2, 0 }).name)
  t.check(select(2, counts(skewed)) > 0, "what is known of this spread")
  t.check(select(2, counts(evenly)) > 0, "what is known of the even one")
  local keys = 0
  for _, e in ipairs(q.store.open(store, "host"):entries "evidence") do
    if e.key:find("race " .. spelling .. name .. " ", 1, true) then keys = keys + 1 end
  end
  t.equal(keys, 1)
  local none, why = tune(t, { spelling }, { experts = { 1, 2 } })
  t.check(not none and why:find("2 numbers; " .. spelling .. " has 3 experts", 1, true), why)
  none, why = tune(t, { "int4.g32:16x32:f32-f32" }, { experts = { 1, 2 } })
  t.check(not none and why:find("there is no stack of experts", 1, true), why)
end)

case("a pack is timed again with another spread", function(t)
  local path = t.scratch .. "/bench.qpack"
  assert(q.pack(assert(tune(t, { spelling })), path))
  local pack = assert(q.open(path))
  local evenly = assert(pack:bench { m = { 64 }, reps = 3 })
  local one = assert(pack:bench { m = { 64 }, reps = 3, experts = { 0, 1, 0 } })
  t.check(evenly[1].bytes > 2.9 * one[1].bytes and evenly[1].seconds > 0 and one[1].seconds > 0)
  local none, why = pack:bench { experts = { 1, 2, 3, 4 } }
  t.check(not none and why:find("4 numbers; " .. spelling .. " has 3 experts", 1, true), why)
end)

return cases
