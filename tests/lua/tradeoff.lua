-- tradeoff.lua - what a trade-off concludes, from measurements that were made up.

local q = require "quernel"
local choice, verdict = q.import "lua.tradeoff.choice", q.import "lua.tradeoff.verdict"
choice.mean = q.mean

local cases = {}
local function case(name, fn) cases[#cases + 1] = { name, fn } end

local function around(mean, half, n) return { mean = mean, low = mean - half, high = mean + half, n = n or 64 } end
local function within(low, mean, high) return { mean = mean, low = low, high = high, n = choice.rounds } end

-- A candidate FORMAT:METHOD:ACT of so many MB; delta and KL in nats, their halves; how many times faster than 16-bit
-- dense with one token, and in prefill.
local function candidate(name, mb, delta, delta_half, kl, ratio, prefill)
  local format, method, act = name:match "^(.-):(.-):(.*)$"
  return { name = name, format = format, method = method, act = act, bytes = mb * 1e6,
    delta = around(delta, delta_half), kl = around(kl, 0.05 * kl), windows = {},
    decode = ratio and { { m = 1, ratio = around(ratio, 0.05) } },
    prefill = ratio and { { m = 512, ratio = around(prefill or 1.5, 0.05) } } }
end

-- The four of the acceptance, with what was measured of them on tiny-llama.
local function seeded()
  local list = {
    candidate("f16:copy:f32", 6.6, 0, 0.00001, 0.000002, 1, 1),
    candidate("int8.row:rtn:bf16", 3.4, 0.00002, 0.00008, 0.00001, 1.9),
    candidate("int4.g64:gptq:bf16", 1.9, 0.0006, 0.0003, 0.00029, 2.8),
    candidate("int2.g64:rtn:bf16", 1.1, 0.0718, 0.0045, 0.06309, 3.5),
  }
  list[1].dense = true
  return list
end

local function of(list, settings)
  settings = settings or {}
  return verdict.of(list, { margin = settings.margin or 0.005, floor = 0.000067, memory = settings.memory,
    beside = settings.beside })
end

-- The sentence that begins so.
local function sentence(v, start)
  for _, text in ipairs(v.sentences) do if text:sub(1, #start) == start then return text end end
end
local function joined(list) return table.concat(list, " ") end

case("of copy, 8, 4 and 2 bits two cannot be told from the original, and 2 bits are beyond the margin", function(t)
  local v = of(seeded())
  t.equal(joined(v.tied), "f16:copy:f32 int8.row:rtn:bf16")
  t.equal(v.chosen, "int4.g64:gptq:bf16")
  t.equal(v.smallest, "int4.g64:gptq:bf16")
  t.equal(joined(v.outside), "int2.g64:rtn:bf16")
  t.says("int2.g64:rtn:bf16 (perplexity +7.44% [+6.96%, +7.93%], KL 0.063)", error, sentence(v, "Beyond the margin"))
  t.equal(sentence(v, "Take"), "Take int4.g64:gptq:bf16: 1.9 MB, 2.80x 16-bit dense, perplexity +0.06% [+0.03%, "
    .. "+0.09%], KL 0.00029. The margin is 0.5% of perplexity.")
  t.check(sentence(v, "On this text f16:copy:f32"), joined(v.sentences))
end)

case("a narrow margin takes the larger one", function(t)
  local v = of(seeded(), { margin = 0.0002 })
  t.equal(v.chosen, "int8.row:rtn:bf16")
  t.equal(joined(v.outside), "int4.g64:gptq:bf16 int2.g64:rtn:bf16")
end)

case("memory is a limit, and may leave nothing", function(t)
  local v = of(seeded(), { memory = 1.5e6 })
  t.equal(v.chosen, nil)
  t.equal(joined(v.large), "f16:copy:f32 int8.row:rtn:bf16 int4.g64:gptq:bf16")
  t.check(sentence(v, "Nothing can be taken: no candidate is within 0.5% of perplexity, fits 1.5 MB"), v.sentences[1])
  v = of(seeded(), { memory = 1000 })
  t.check(sentence(v, "Larger than 0.001 MB, with 0 MB of keys and values: f16:copy:f32 (6.6 MB), "),
    joined(v.sentences))
  t.equal(of(seeded(), { memory = 2e6 }).chosen, "int4.g64:gptq:bf16")
end)

case("what is slower than 16-bit dense is never taken, however small", function(t)
  local list = seeded()
  table.insert(list, candidate("int3.g64:gptq:bf16", 0.1, 0, 0.0001, 0.0001, 0.97))
  local v = of(list)
  t.equal(v.chosen, "int4.g64:gptq:bf16")
  t.equal(v.smallest, "int4.g64:gptq:bf16")
  t.equal(sentence(v, "Not faster"), "Not faster here than 16-bit dense, and not to be taken: int3.g64:gptq:bf16 "
    .. "(0.97x 16-bit dense, which cannot be told from it (0.92x to 1.02x)).")
  local alone = of { list[1], list[5] }
  t.equal(alone.chosen, nil)
  t.check(sentence(alone, "Stay with 16 bits"), joined(alone.sentences))
end)

case("slower with several sequences or in prefill is said of the one that is taken", function(t)
  local list = seeded()
  list[3].decode[2] = { m = 64, ratio = around(0.9, 0.1) }
  list[3].decode[3] = { m = 8, ratio = around(0.8, 0.1) }
  list[3].prefill[1].ratio = around(0.7, 0.1)
  local v = of(list)
  t.equal(v.chosen, "int4.g64:gptq:bf16")
  t.check(sentence(v, "int4.g64:gptq:bf16 is slower than 16-bit dense when 8 and 64 sequences"), joined(v.sentences))
  t.check(sentence(v, "int4.g64:gptq:bf16 is slower than 16-bit dense in prefill, 0.70x at M = 512"))
end)

case("where times cannot be told apart the smaller one is taken, then the nearer one", function(t)
  local a = candidate("int4.g64:rtn:i8", 2, 0, 0.001, 0.001, 3)
  local b = candidate("int4.g128:rtn:i8", 1.9, 0, 0.001, 0.001, 2.95)
  t.equal(of({ a, b }).chosen, "int4.g128:rtn:i8")
  t.equal(of({ b, a }).chosen, "int4.g128:rtn:i8")
  b.bytes, b.kl = a.bytes, around(0.0005, 0.0001)
  t.equal(of({ a, b }).chosen, "int4.g128:rtn:i8")
  b.decode[1].ratio = around(2.8, 0.05)
  t.equal(of({ a, b }).chosen, "int4.g64:rtn:i8")
end)

case("a round that something disturbed does not make a slow one as fast as the fastest", function(t)
  local list = seeded()
  list[2].decode[1].ratio, list[3].decode[1].ratio = within(1.8, 1.9, 9), within(2.7, 2.8, 2.9)
  t.equal(of({ list[1], list[2], list[3] }).chosen, "int4.g64:gptq:bf16")
  list[3].bytes, list[3].decode[1].ratio = 4e6, within(0.5, 2.8, 2.9)
  t.equal(of({ list[1], list[2], list[3] }).chosen, "int8.row:rtn:bf16") -- each lies in the interval of the other
  list[2].decode[1].ratio = within(1.8, 1.9, 2)
  t.equal(of({ list[1], list[2], list[3] }).chosen, "int4.g64:gptq:bf16")
end)

case("a time that cannot be told from that of 16 bits is not called faster", function(t)
  local list = seeded()
  list[3].decode[1].ratio = within(0.95, 1.02, 1.1)
  local v = of { list[1], list[3] }
  t.check(sentence(v, "Take int4.g64:gptq:bf16: 1.9 MB, 1.02x 16-bit dense, which cannot be told from it (0.95x to "
    .. "1.10x), perplexity"), v.sentences[1])
  list[3].decode[1].ratio = choice.middle { 3 }
  v = of { list[1], list[3] }
  t.check(sentence(v, "Take int4.g64:gptq:bf16: 1.9 MB, 3.00x 16-bit dense in a single round, too few to be sure"),
    v.sentences[1])
end)

case("too few rounds decide neither who is taken nor who is given up", function(t)
  local small = candidate("int3.g64:rtn:i8", 1, 0, 0.001, 0.0002, 1)
  local fast = candidate("int4.g64:rtn:i8", 2, 0, 0.001, 0.001, 1)
  small.decode[1].ratio, fast.decode[1].ratio = choice.middle { 2, 2 }, choice.middle { 1.9, 1.9 }
  for i = 1, 4 do small.windows[i], fast.windows[i] = { kl = 0.0001 * i }, { kl = 0.001 + 0.0002 * i } end
  t.equal(#choice.survivors { small, fast }, 2)
  fast.decode[1].ratio = choice.middle { 3, 3 }
  t.equal(of({ small, fast }).chosen, "int3.g64:rtn:i8")
  fast.decode[1].ratio, small.decode[1].ratio = choice.middle { 3, 3, 3, 3, 3, 3 }, choice.middle { 2, 2, 2, 2, 2, 2 }
  t.equal(of({ small, fast }).chosen, "int4.g64:rtn:i8")
end)

case("as the original is only what is so for certain", function(t)
  local list = seeded()
  list[2].kl = { mean = 0.00012, low = 0.00009, high = 0.00015, n = 64 } -- twice the floor is 0.000134
  t.equal(joined(of(list).tied), "f16:copy:f32")
  list[2].kl.high = 0.00013
  t.equal(joined(of(list).tied), "f16:copy:f32 int8.row:rtn:bf16")
end)

case("what was only timed and is faster than the one that is taken is named", function(t)
  local list = seeded()
  local f32 = { name = "f32 dense", decode = { { m = 1, ratio = around(0.6, 0.1) } },
    prefill = { { m = 512, ratio = around(1.8, 0.1) } } }
  t.equal(sentence(of(list, { beside = { f32 } }), "f32 dense"),
    "f32 dense is faster here in prefill: 1.80x 16-bit dense.")
  f32.prefill[1].ratio = around(1.2, 0.1)
  t.equal(sentence(of(list, { beside = { f32 } }), "f32 dense"), nil)
end)

case("a text that is too short says how many windows more would do", function(t)
  local list = seeded()
  list[3].delta = { mean = 0.001, low = -0.011, high = 0.013, n = 4 } -- half a width of 0.012, 0.0039875 to the margin
  local v = of(list)
  t.equal(joined(v.undecided), "int4.g64:gptq:bf16")
  t.equal(v.class["int4.g64:gptq:bf16"].more, 33) -- 4 (0.012 / 0.0039875)^2 = 36.2
  t.equal(v.chosen, "int8.row:rtn:bf16")
  t.says("33 windows more would do", error, sentence(v, "The text is too short to tell for"))
end)

case("several texts, whose degrees of freedom are a fraction, count their windows", function(t)
  local list = seeded()
  list[3].delta = choice.estimate({ mean = 0.001, low = -0.011, high = 0.013, df = 3.7 }, 8)
  local v = of(list)
  t.equal(v.class["int4.g64:gptq:bf16"].more, 65) -- 8 (0.012 / 0.0039875)^2 = 72.5
  list[3].delta = choice.estimate({ mean = 0.001 }, 1)
  t.equal(sentence(of(list), "The text"), "The text is too short to tell for int4.g64:gptq:bf16 (so few windows have "
    .. "no interval).")
end)

case("one that was given up is neither taken nor called undecided", function(t)
  local list = seeded()
  list[3].stopped, list[4].stopped = "q4_k is better", "q4_k is better"
  local v = of(list)
  t.equal(joined(v.stopped), "int4.g64:gptq:bf16")
  t.equal(joined(v.outside), "int2.g64:rtn:bf16")
  t.equal(v.chosen, "int8.row:rtn:bf16")
end)

case("what is worse at a task for certain is beyond the margin, and its answers are told", function(t)
  local list = seeded()
  list[3].tasks = { { name = "qa.jsonl", accuracy = 0.66, difference = around(-5, 2.5), worse = 30, better = 4,
    mcnemar = 6e-6, equivalence = 0.99 } }
  local v = of(list)
  t.equal(v.chosen, "int8.row:rtn:bf16")
  t.equal(joined(v.outside), "int4.g64:gptq:bf16 int2.g64:rtn:bf16")
  t.equal(sentence(v, "Tasks"), "Tasks, against the original: int4.g64:gptq:bf16 qa.jsonl 66.0%, -5.0 points [-7.5, "
    .. "-2.5], 30 answers worse and 4 better, McNemar p = 6e-06, not shown to be equal within 2 points.")
  list[3].tasks[1].difference = around(-3, 2.5)
  t.equal(of(list).chosen, "int4.g64:gptq:bf16")
end)

case("a candidate without numbers or without times is not taken", function(t)
  local list = seeded()
  list[3].broken, list[3].delta, list[3].kl = "3 of 64 windows have logits that are no numbers", nil, nil
  list[2].decode = nil
  local v = of(list)
  t.equal(v.chosen, nil)
  t.equal(sentence(v, "Broken"), "Broken: int4.g64:gptq:bf16 (3 of 64 windows have logits that are no numbers).")
  t.equal(sentence(v, "Not timed"), "Not timed, and so not taken: int8.row:rtn:bf16.")
end)

case("a round that something disturbed does not move the middle", function(t)
  local e = choice.middle { 2, 2.1, 9, 2.2, 1.9, 2.1 }
  t.check(math.abs(e.mean - 2.1) < 1e-9, e.mean)
  t.equal(e.low, 1.9)
  t.equal(e.high, 9)
end)

-- ---- Halving --------------------------------------------------------------------------------------------------------

local function with_windows(c, kls)
  for i, kl in ipairs(kls) do c.windows[i] = { kl = kl } end
  c.kl = choice.estimate(choice.mean(kls), #kls)
  return c
end

case("a method that is clearly worse than another of its format ends after a few windows", function(t)
  local list = {
    with_windows(candidate("int4.g64:rtn:bf16", 2, 0, 1, 1), { 0.002, 0.003, 0.0025, 0.004 }),
    with_windows(candidate("int4.g64:gptq:bf16", 2, 0, 1, 1), { 0.0003, 0.0005, 0.0004, 0.0012 }),
    with_windows(candidate("int4.g64:gptq:i8", 2, 0, 1, 1), { 0.0004, 0.0006, 0.0005, 0.0013 }),
    with_windows(candidate("int3.g64:rtn:bf16", 1, 0, 1, 1), { 0.02, 0.03, 0.025, 0.04 }),
  }
  local left, why = choice.survivors(list)
  t.equal(#left, 3) -- i8 may be faster: it was not timed; 3 bits are smaller
  t.equal(why["int4.g64:rtn:bf16"], "int4.g64:gptq:bf16 is no larger, no slower and closer to the original")
end)

case("between formats times decide, and a broken one goes", function(t)
  local small = with_windows(candidate("nvfp4:gptq:bf16", 1.8, 0, 1, 1, 3), { 1, 2, 3, 4 })
  local large = with_windows(candidate("q4_k:rtn:bf16", 2, 0, 1, 1, 2.5), { 2, 3.5, 4, 5 })
  t.equal(#choice.survivors { small, large }, 1)
  large.decode[1].ratio = around(2.95, 0.05)
  t.equal(#choice.survivors { small, large }, 2)
  large.broken = "no numbers"
  local left, why = choice.survivors { small, large }
  t.equal(#left, 1)
  t.equal(why["q4_k:rtn:bf16"], "no numbers")
end)

case("the front has what nobody beats in both", function(t)
  local list = seeded()
  table.insert(list, candidate("int4.g32:rtn:bf16", 2, 0, 1, 0.0004, 3))
  table.insert(list, candidate("int4.g32:rtn:i8", 2, 0, 1, 0.0004, 3))
  local front = choice.front(list, function(c) return c.bytes end)
  local out = {}
  for _, c in ipairs(list) do if front[c.name] then out[#out + 1] = c.format end end
  t.equal(joined(out), "f16 int8.row int4.g64 int2.g64")
end)

-- ---- The order of the work ------------------------------------------------------------------------------------------

local run, new_journal = q.import "lua.tradeoff.run", q.import "lua.tradeoff.journal"
local journal = new_journal(q.json, q.native.parse_json)

-- Steps that make up their numbers out of the candidate's name, and count in `done` how often each was taken. fail(n)
-- is called before the nth.
local function made_up(done, fail)
  local now, taken = 0, 0
  local function step(name, seconds)
    taken, now = taken + 1, now + seconds
    fail(taken, name)
    done[name] = (done[name] or 0) + 1
  end
  local bits = { f16 = 16, ["int8.row"] = 8, ["int4.g64"] = 4, ["int2.g64"] = 2 }
  local loss = { copy = 1e-6, rtn = 1, gptq = 0.2 }
  local steps = { windows = 12, tasks = { "qa.jsonl" }, clock = function() return now end }
  function steps.make(c)
    step("make " .. c.weights, 1)
    return { bytes = bits[c.format] * 1e6, bpw = bits[c.format] }
  end
  function steps.evaluate(c, n, kernels)
    step(("evaluate %s %d %s"):format(kernels and c.name or c.weights, n, kernels), n)
    local w, kl = {}, loss[c.method] * 4.0 ^ -bits[c.format]
    for i = 1, n do w[i] = kl * (1 + 0.1 * (i % 3)) end
    local function estimate(half) return { mean = kl, low = kl - half, high = kl + half, df = n - 1 } end
    return { windows = n, kl = estimate(kl / 50), delta = estimate(kl / 10), top1 = 1 - kl, w_kl = w,
      broken = c.format == "int2.g64" and c.method == "gptq" and 2 or 0 }
  end
  function steps.tune(c, seconds)
    step("tune " .. c.kernels, 5)
    if c.format == "int8.row" then return nil, "no kernel takes it" end
    return seconds >= 5 or seconds
  end
  function steps.task(c, i)
    step(("task %s %d"):format(c.name, i), 2)
    return { name = steps.tasks[i], accuracy = 0.5, difference = around(-1, 3), worse = 2, better = 1, mcnemar = 1,
      equivalence = 0.2 }
  end
  function steps.time(c, kind, m)
    step(("time %s %s %d"):format(c.kernels, kind, m), 1)
    return { seconds = m * bits[c.format] / 1000, linear = m / 1000 }
  end
  return steps
end

local function fresh()
  local out = {}
  for i, name in ipairs { "f16:copy:f32", "int8.row:rtn:i8", "int4.g64:rtn:bf16", "int4.g64:gptq:bf16",
    "int2.g64:gptq:bf16", "int2.g64:rtn:bf16" } do
    local format, method, act = name:match "^(.-):(.-):(.*)$"
    out[i] = { name = name, format = format, method = method, act = act, weights = format .. ":" .. method,
      kernels = format .. ":" .. act, windows = {} }
  end
  out[1].dense = true
  return out
end

-- A run with the journal of that name; settings as run.all takes them. -> candidates, done, was there time; or raises.
local function do_run(t, name, fail, settings)
  local list, done = fresh(), {}
  local notes <close> = assert(journal.open(t.scratch .. "/" .. name, "a test"))
  local whole = run.all(list, settings or {}, made_up(done, fail or function() end), notes)
  return list, done, whole
end

case("a run tries all, ends what is beaten or broken, and evaluates the rest on all windows", function(t)
  local list, done, whole = do_run(t, "all")
  t.check(whole)
  t.equal(list[2].broken, "no kernel takes it")
  t.equal(list[3].stopped, "int4.g64:gptq:bf16 is no larger, no slower and closer to the original")
  t.equal(list[5].broken, "of 2 tokens the logits are no numbers")
  t.equal(#list[4].windows, 12)
  t.equal(#list[3].windows, 4)
  t.check(math.abs(choice.at(list[4].decode, 8).ratio.mean - 4) < 1e-9)
  t.check(math.abs(choice.at(list[4].prefill, 512).rate.mean - 250) < 1e-6)
  t.check(math.abs(choice.at(list[4].decode, 1).linear.mean - 0.25) < 1e-9)
  t.equal(choice.at(list[3].decode, 1), nil)
  t.equal(done["time int4.g64:bf16 decode 1"], 6)
  t.equal(done["evaluate int4.g64:rtn:bf16 12 true"], nil)
  t.equal(list[4].tasks[1].worse, 2)
end)

case("what the machine cannot do ends the run, and is no candidate's fault", function(t)
  local list, notes <close> = fresh(), assert(journal.open(t.scratch .. "/full", "a test"))
  local work = made_up({}, function() end)
  function work.time() return nil, "x: No space left on device", "QN_E_IO" end
  local ok, fault = pcall(run.all, list, {}, work, notes)
  t.check(not ok and fault.code == "QN_E_IO")
  t.equal(fault.why, "x: No space left on device")
  for _, c in ipairs(list) do t.check(c.broken ~= fault.why, c.name) end
  notes.file = assert(io.open("/dev/full", "w")) -- which notes close
  notes.file:setvbuf "no"
  t.equal(select(2, pcall(notes.put, notes, "key", 1)).why, notes.path .. ": No space left on device")
end)

case("a run that is killed at any step goes on, and does nothing twice", function(t)
  local want, once = do_run(t, "unbroken")
  local steps = 0
  for _, n in pairs(once) do steps = steps + n end
  for at = 1, steps do
    local name, total = "killed" .. at, {}
    local function add(done) for k, n in pairs(done) do total[k] = (total[k] or 0) + n end end
    local list, done = fresh(), {}
    local notes = assert(journal.open(t.scratch .. "/" .. name, "a test"))
    t.fails("killed", run.all, list, {}, made_up(done, function(n) if n == at then error "killed" end end), notes)
    notes:close()
    add(done)
    local f = assert(io.open(t.scratch .. "/" .. name, "ab"))
    f:write '{"key":"make torn' -- the line that was being written
    f:close()
    list, done = do_run(t, name)
    add(done)
    total["tune int8.row:i8"] = once["tune int8.row:i8"] -- what fails is tried again
    t.equal(q.json(list), q.json(want), at)
    t.equal(q.json(total), q.json(once), at)
  end
end)

case("what comes in later is timed in turns with 16-bit dense, not against its times of an earlier run", function(t)
  local function timed(keep)
    local list, done, progress = fresh(), {}, {}
    local notes <close> = assert(journal.open(t.scratch .. "/turns", "a test"))
    local kept = {}
    for _, c in ipairs(list) do if keep[c.name] then kept[#kept + 1] = c end end
    run.all(kept, { progress = function(phase, _, i, n)
      if phase == "time" then progress[#progress + 1] = i / n end
    end }, made_up(done, function() end), notes)
    return done, progress
  end
  local done, progress = timed { ["f16:copy:f32"] = true, ["int4.g64:gptq:bf16"] = true }
  t.equal(done["time f16:f32 decode 1"], choice.rounds)
  t.equal(#progress, choice.rounds * 2)
  for i, share in ipairs(progress) do t.equal(share, (i - 1) / #progress) end
  t.equal(timed({ ["f16:copy:f32"] = true, ["int4.g64:gptq:bf16"] = true })["time f16:f32 decode 1"], nil)
  done = timed { ["f16:copy:f32"] = true, ["int4.g64:gptq:bf16"] = true, ["int2.g64:rtn:bf16"] = true }
  t.equal(done["time f16:f32 decode 1"], choice.rounds)
  t.equal(done["time int4.g64:bf16 decode 1"], choice.rounds)
end)

case("after the budget no step begins, and what there is stands", function(t)
  local list, done, whole = do_run(t, "late", nil, { budget = 31 })
  t.equal(whole, false)
  t.equal(done["make int2.g64:rtn"], 1) -- the last: 6 x (1 + 4) seconds
  t.equal(done["tune f16:f32"], 1)
  t.equal(done["tune int4.g64:bf16"], nil)
  t.equal(list[4].kl.n, 4)
  t.equal(of(list).chosen, nil)
  local nothing = of(do_run(t, "at once", nil, { budget = 0 }), { memory = 1 })
  t.equal(#nothing.untried, 6)
  t.check(sentence(nothing, "Not tried, the budget ended before: f16:copy:f32, "), joined(nothing.sentences))
  list, done, whole = do_run(t, "late")
  t.check(whole and done["tune int4.g64:bf16"] == 1 and not done["make int2.g64:rtn"])
  t.equal(list[1].hurried, 1)
  t.equal(list[4].hurried, nil)
  t.check(sentence(of(list), "An earlier run had little time to tune these, and they may be faster: f16:copy:f32 (1 s"))
  t.equal(of(list, { margin = 0.01 }).chosen, "int4.g64:gptq:bf16")
end)

case("kernels that had time for all that is to be tried are not said to be hurried", function(t)
  do_run(t, "ample", nil, { budget = 1000 })
  for _, c in ipairs((do_run(t, "ample"))) do t.equal(c.hurried, nil, c.name) end
end)

case("a folder of another run is refused", function(t)
  assert(journal.open(t.scratch .. "/journal-of-one", "tiny-llama")):close()
  local j, why = journal.open(t.scratch .. "/journal-of-one", "SmolLM2")
  t.equal(j, nil)
  t.says("is of another run, of tiny-llama (or the text, calibration, task, device or build is another); name another "
    .. "folder with -o, or remove that one", error, why)
end)

-- ---- Steps ----------------------------------------------------------------------------------------------------------

local steps = q.import "lua.tradeoff.steps"

case("a cache of so many sequences that is beyond 256 MB gets fewer tokens, counted one by one", function(t)
  local before
  local original = { time = function(_, _, n)
    before = n
    return { seconds = 2, linear = 1, sites = {} }
  end, forget = function() end,
    session_bytes = function(_, _, tokens) return 1000 + 131072 * ((tokens + 15) // 16 * 16) end }
  local s = { original = original, scored = { n = 1 } }
  local work = steps(q, q.native).new(s)
  s.opened["f32 dense"] = original
  t.equal(steps(q, q.native).bytes_of_token(original), 131072)
  for m, tokens in pairs { [1] = 512, [8] = 256, [64] = 32 } do
    t.equal(q.json(work.time({ name = "f32 dense", original = true }, "decode", m)), '{"linear":1,"seconds":2}')
    t.equal(before, tokens, m)
  end
end)

case("answers that come of logits that are no numbers are not counted as wrong", function(t)
  local broken = {}
  local fake = { compare_items = function() return { worse = 0 } end,
    evaluate_task = function(o) return { broken = broken[o.decoder] or 0, items = {} } end }
  local original = { forget = function() end }
  local s = { original = original, scored = { n = 1 }, tasks = { { path = "qa.jsonl" } }, folder = "f" }
  local work, c = steps(fake, q.native).new(s), { name = "c" }
  s.opened.c = "candidate"
  t.equal(work.task(c, 1).name, "qa.jsonl")
  broken.candidate = 3
  t.equal(select(2, work.task(c, 1)), "qa.jsonl: at 3 questions the logits of the candidate are no numbers")
  broken = { [original] = 1 }
  t.equal(select(2, work.task(c, 1)), "qa.jsonl: at 1 questions the logits of the original are no numbers")
end)

case("layers that the decoder does not multiply are left as they are", function(t)
  local chosen = {}
  local model = { path = "m.gguf", config = function() end, write_quantized = function(_, _, options)
    for _, name in ipairs { "layers.0.q_proj.weight", "mtp.layers.0.q_proj.weight" } do
      chosen[#chosen + 1] = options.choose { name = name } and name or nil
    end
    return nil, "enough"
  end }
  local work = steps(q, q.native).new { folder = t.scratch .. "/left-out", scored = { n = 1 }, model = model,
    original = { sites = function() return { { name = "layers.0.q_proj.weight" } } end } }
  t.equal(select(2, work.make { weights = "int4:rtn", format = "int4", method = "rtn" }), "enough")
  t.equal(joined(chosen), "layers.0.q_proj.weight")
end)

local candidates = q.import "lua.tradeoff.candidates" (q, q.native)

case("of two candidates the files have two names, whatever their paths are", function(t)
  local s, seen = setmetatable({ folder = "f" }, { __index = steps(q, q.native) }), {}
  t.equal(s:path("packs", "int4.g64.z:f32~i8"), "f/packs/int4.g64.z-f32~i8")
  t.equal(s:path("candidates", "q4_k:awq+gptq"), "f/candidates/q4_k-awq+gptq")
  for _, name in ipairs { "a/b", "a-b", "a:b", "a b", "a.b", "a_b", "a//b", "a/b:i8", "a-b:i8", "a-b-i8", "a~b" } do
    local path = s:path("packs", name)
    t.equal(seen[path], nil, name)
    t.check(path:match "^f/packs/[%w._+~-]+$", path)
    seen[path] = name
  end
end)

case("a candidate keeps activations that the call rounds", function(t)
  t.equal(candidates.parse("int4.g32:rtn:f32~i8", "host").name, "int4.g32:rtn:f32~i8")
  t.equal(candidates.parse(".:bf16~e4m3", "host").act, "bf16~e4m3")
end)

case("default candidates keep 16-bit activations, or the call rounds them", function(t)
  local acts = {}
  for _, c in ipairs(candidates.default(true)) do
    acts[c.act] = true
    t.equal(candidates.parse(c.name, "host").kernels, c.kernels)
  end
  t.equal(table.concat(q.check.sorted_keys(acts), " "), "bf16 f32~i8")
end)

case("checkpoints of the same file name are two candidates", function(t)
  local a, b = candidates.brought "a/model.gguf", candidates.brought "b/model.gguf"
  t.check(a.name ~= b.name and a.format ~= b.format, a.name)
  t.equal(candidates.brought "a/model/".name, candidates.brought "a/model".name)
  t.check(candidates.new("int4.g64", "gptq", "i8").wants_text and not a.wants_text)
end)

case("a window that the model was not made for is refused; questions that lose their beginnings are told", function(t)
  local function go(ctx, tasks)
    return q.tradeoff { model = t.tests .. "/models/tiny-llama", texts = { t.tests .. "/models/text/valid.txt" },
      windows = "1", ctx = ctx, tasks = tasks, only = { "int8.row" }, budget = 0, folder = t.scratch .. "/long" }
  end
  t.equal(select(2, go(257)), "ctx 257: " .. t.tests .. "/models/tiny-llama was made for 256 tokens")
  t.check(not q.native.exists(t.scratch .. "/long"))
  local task = t.write("qa.jsonl", ('{"query":"%s","choices":["b","c"],"gold":0}\n'):format(("a"):rep(50)))
  local r = assert(go(16, { task }))
  t.check(sentence(r.verdict, task .. ": 1 of 1 questions are longer than the 16 tokens of a window"),
    joined(r.verdict.sentences))
end)

case("another calibration text needs a folder of its own, and the verdict says if it is the text itself", function(t)
  local path = t.tests .. "/models/text/"
  local function go(calibrate, folder)
    return q.tradeoff { model = t.tests .. "/models/tiny-llama", texts = { path .. "valid.txt" }, windows = "1",
      ctx = 16, calibrate = { calibrate }, only = { "int4.g64:gptq:i8" }, budget = 0,
      folder = t.scratch .. (folder or "/calibrated") }
  end
  local function flatters(r) return joined(r.verdict.sentences):find "that flatters them" end
  t.check(not flatters(assert(go(path .. "calibration.txt"))))
  collectgarbage() -- which closes what the run had open
  t.check(go(path .. "calibration.txt"))
  collectgarbage()
  local r, why = go(path .. "valid.txt")
  t.equal(r, nil)
  t.says("is of another run", error, why)
  t.check(flatters(assert(go(path .. "valid.txt", "/itself"))))
end)

-- ---- Report ---------------------------------------------------------------------------------------------------------

local report = q.import "lua.tradeoff.report"

local function result(list)
  local r = { command = "quernel tradeoff <m> --text a&b.txt", model = "models/<m>",
    machine = "a machine", texts = { { name = "a&b.txt", windows = 64, tokens = 16320 } }, margin = 0.005,
    floor = 0.000067, candidates = list }
  for _, c in ipairs(list) do
    c.commands = { "quernel quantize <m> --format " .. c.format }
    for _, x in ipairs(c.decode or {}) do x.rate = around(100 * x.ratio.mean, 2) end
    for _, x in ipairs(c.prefill or {}) do x.rate = around(1000 * x.ratio.mean, 2) end
  end
  r.verdict = verdict.of(list, r)
  return r
end

local function count(text, pattern) return select(2, text:gsub(pattern, "")) end

case("the page holds every candidate in its table and both pictures, and asks for no other file", function(t)
  local list = seeded()
  list[2].decode = nil
  local page = report.html(result(list))
  t.equal(count(page, "<tr[ >]"), 5)
  t.equal(count(page, "<td "), 4 * count(page, "<th "))
  t.equal(count(page, "<svg "), 2)
  t.equal(count(page, "<circle "), 4 + 3) -- one has no time
  t.equal(count(page, '<tr class="chosen">'), 1)
  t.equal(count(page, '<rect class="band"'), 2)
  t.check(not page:find "https?://" and not page:find "src=", "it loads something")
  t.check(page:find("a&amp;b.txt", 1, true) and not page:find("<m>", 1, true), "a name is not escaped")
  for _, tag in ipairs { "svg", "g", "figure", "table", "tr", "td", "th", "ul", "li", "details", "pre", "div" } do
    t.equal(count(page, "<" .. tag .. "[ >]"), count(page, "</" .. tag .. ">"), tag)
  end
end)

case("what is broken or was not timed has dashes in the table and no place in the pictures", function(t)
  local list = seeded()
  list[3].broken, list[3].delta, list[3].kl, list[3].decode = "no numbers", nil, nil, nil
  local r = result(list)
  local rows = report.rows(r)
  local row = rows[#rows]
  t.equal(row[1], "int4.g64:gptq:bf16")
  t.equal(row[3], "-")
  t.equal(row[#row], "broken")
  t.equal(#row, #report.rows(r)[1])
  t.equal(count(report.html(r), "<circle "), 3 + 3)
end)

case("the printed table begins with what is taken, and fits on 120 columns", function(t)
  local list = seeded()
  table.insert(list, candidate("int4.g32.z:gptaq:bf16", 12345.6, -0.9999, 0.001, 1e-10, 12.34, 12.34))
  for _, m in ipairs { 8, 64 } do table.insert(list[5].decode, { m = m, ratio = around(12.34, 0.1) }) end
  list[5].tasks = { { name = "qa.jsonl", accuracy = 0.999, difference = around(-5, 2.5), worse = 30, better = 4,
    mcnemar = 6e-6, equivalence = 0.99 } }
  list[2].broken, list[2].kl, list[2].delta, list[2].decode = "no numbers", nil, nil, nil
  local rows, order = report.rows(result(list)), {}
  for i = 2, #rows do order[i - 1] = ("%s (%s)"):format(rows[i][1], rows[i][#rows[i]]) end
  t.equal(table.concat(order, " "), "int4.g64:gptq:bf16 (TAKE, within the margin) f16:copy:f32 (16-bit dense) "
    .. "int4.g32.z:gptaq:bf16 (beyond the margin) int2.g64:rtn:bf16 (beyond the margin) int8.row:rtn:bf16 (broken)")
  local widest, width = -2, {}
  for _, row in ipairs(rows) do
    for i, x in ipairs(row) do width[i] = math.max(width[i] or 0, utf8.len(x)) end
  end
  for _, w in ipairs(width) do widest = widest + w + 2 end
  t.check(widest <= 120, ("%d columns"):format(widest))
end)

case("an interval without an end reaches the edge of the picture, and is none in JSON", function(t)
  local list = seeded()
  list[3].kl, list[3].decode[1].ratio = choice.estimate({ mean = 0.0003 }, 1), choice.middle { 2 }
  local r = result(list)
  t.equal(count(report.html(r), "<circle "), 4 + 4)
  local kl = q.native.parse_json(q.json(r)).candidates[3].kl
  t.equal(kl.mean, 0.0003)
  t.equal(type(kl.high) == "number", false)
end)

case("a text that calibration has seen is named", function(t)
  local m, path = assert(q.model(t.tests .. "/models/tiny-llama")), t.tests .. "/models/text/"
  local valid, other = path .. "valid.txt", path .. "calibration.txt"
  t.equal(#assert(q.seen_before(m, { valid }, { other })), 0)
  local seen = assert(q.seen_before(m, { other, valid }, { valid }))
  t.equal(#seen, 1)
  t.check(seen[1]:find("100% of " .. valid .. " (runs of 16 tokens) is in " .. valid, 1, true), seen[1])
end)

return cases
