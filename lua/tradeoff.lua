-- tradeoff.lua - what quantizing a model costs and buys: candidates are made, evaluated and timed (tradeoff/run.lua),
-- and a verdict is given (tradeoff/verdict.lua).

return function(q, native)
  local common = q.import "lua.common"
  local candidates = q.import "lua.tradeoff.candidates" (q, native)
  local journal = q.import "lua.tradeoff.journal" (q.json, native.parse_json)
  local steps = q.import "lua.tradeoff.steps" (q, native)
  local mixed = q.import "lua.tradeoff.mixed" (q)
  local choice, run = q.import "lua.tradeoff.choice", q.import "lua.tradeoff.run"
  local verdict, report = q.import "lua.tradeoff.verdict", q.import "lua.tradeoff.report"
  local elsewhere = q.import "lua.tradeoff.elsewhere" (q)
  choice.mean = q.mean

  local floor_windows = 16
  local calibrate_tokens = 16384 -- of each text; for a model that is kept, more are worth their time

  local fields = { model = "string", texts = "list", tasks = "list?", calibrate = "list?", only = "list?",
    candidates = "list?", bits = "number?", target = "number?", folder = "string", ctx = "count?",
    windows = "string?", score = "string?",
    margin = "number?", memory = "number?", budget = "number?", device = "string?", threads = "count?",
    store = "string?", command = "string?", progress = "function?" }

  -- ---- What is tried ------------------------------------------------------------------------------------------------

  -- The 16-bit copy first, then those that are asked for, and a model that is quantized already as it is; each once.
  -- Raises for one that cannot be.
  local function list_of(t, m, device)
    local out, seen = { candidates.dense(m, device.target) }, {}
    local asked = t.only and {} or candidates.default(t.calibrate ~= nil)
    if candidates.is_quantized(m) then asked[#asked + 1] = candidates.brought(t.model) end
    for _, list in ipairs { t.only or {}, t.candidates or {} } do
      for _, text in ipairs(list) do asked[#asked + 1] = candidates.parse(text, device.target) end
    end
    for _, c in ipairs(asked) do
      q.check.that(t.calibrate or not c.wants_text, nil,
        "%s: %s looks at activations: it needs a text, --calibrate FILE", c.name, c.method)
      if not seen[c.name] then out[#out + 1], seen[c.name] = c, true end
    end
    return out
  end

  -- ---- What everything is held against ------------------------------------------------------------------------------

  -- The divergence that comes of rounding the original to bf16: below it nothing can be told.
  local function noise_floor(s, notes)
    local known = notes:get "floor"
    if known then return known end
    local d <close>, why, code = q.decoder(s.model, { threads = s.threads, bf16 = true, share = 2 })
    if not d then return nil, why, code end
    local e
    e, why, code = q.evaluate { decoder = d, windows = s.scored, reference = s.reference, stop = floor_windows,
      log = s.folder .. "/scores/floor", threads = s.threads,
      progress = function(done, total) s.tell(done / total) end }
    if not e then return nil, ("%s: %s"):format(s.model.path, why), code end
    notes:put("floor", e.kl.mean)
    return e.kl.mean
  end

  -- ---- Results ------------------------------------------------------------------------------------------------------

  -- What makes and measures a candidate by hand.
  local function commands_of(c, t, s)
    local file, pack = s:place(c), s:path("packs", c.kernels) .. ".qpack"
    local quantize, eval = { "quantize", t.model, "--format", c.format }, { "eval", file, pack, "--against", t.model }
    local function add(words, option, values)
      for _, value in ipairs(values or {}) do table.move({ option, value }, 1, 2, #words + 1, words) end
    end
    if c.method ~= "copy" then add(quantize, "--method", { c.method }) end
    if c.wants_text then
      add(quantize, "--calibrate", t.calibrate)
      add(quantize, "--ctx", { s.ctx })
      add(quantize, "--windows", { s.calibrate_windows })
    end
    table.move({ "--overwrite", "-o", file }, 1, 3, #quantize + 1, quantize)
    add(eval, "--text", t.texts)
    add(eval, "--task", t.tasks)
    table.move({ "--ctx", s.ctx, "--score", s.scored.score, "--act", c.act }, 1, 6, #eval + 1, eval)
    add(eval, "--windows", { t.windows })
    local tune = { "tune", file, "--act", c.act, "--m", "1,8,64,512", "--device", s.device.name, "-o", pack }
    local out = { quantize, tune, eval, { "bench", pack } }
    if c.path or c.formats then table.remove(out, 1) end
    for i, words in ipairs(out) do out[i] = common.command("quernel", words) end
    return out
  end

  local function texts_of(windows)
    local out = {}
    for i, d in ipairs(windows.domains) do
      out[i] = { name = d.path:match "[^/]*$", windows = d.windows, tokens = d.windows * windows.scored }
    end
    return out
  end

  local function peak_memory()
    local f <close> = io.open "/proc/self/status"
    local kib = tonumber(f and f:read("a"):match "VmHWM:%s*(%d+)")
    return kib and 1024 * kib
  end

  -- ---- The whole ----------------------------------------------------------------------------------------------------

  -- Windows that formats of mixtures are chosen on: of the calibration texts those that no method sees, else all.
  local function choosing(s, t, windows_of)
    local unseen = windows_of(t.calibrate, s.calibrate_windows .. ":", "all")
    local out, why, code = { windows = unseen or s.calibrate }
    if not unseen then
      table.insert(s.seen, "The calibration texts have no windows that methods do not see: formats of mixtures are "
        .. "chosen on those that they do, which flatters few bits.")
    end
    out.reference, why, code = q.reference { decoder = s.original, windows = out.windows,
      path = t.folder .. "/reference-units" }
    if not out.reference then return nil, why, code end
    return out
  end

  -- What the steps need: model, candidates, windows, reference, folders. nil, message, code. Nothing is written before
  -- all that was asked for is known to be there.
  local function prepare(t, device)
    local s = { folder = t.folder, device = device, threads = t.threads, store = t.store }
    s.run = ("trade-off %d %.9f"):format(os.time(), native.clock())
    local ok, why, code
    s.model, why, code = q.model(t.model)
    if not s.model then return nil, why, code end
    s.list = list_of(t, s.model, device)
    s.original, why, code = q.decoder(s.model, { threads = t.threads, share = 2 })
    if not s.original then return nil, why, code end
    local limit = s.original:config().context
    if t.ctx and limit > 0 and t.ctx > limit then
      return nil, ("ctx %d: %s was made for %d tokens"):format(t.ctx, t.model, limit), "QN_E_ARG"
    end
    s.ctx = t.ctx or limit > 0 and math.min(512, limit) or 512
    local function windows_of(paths, which, score)
      return q.windows { model = s.model, texts = paths, ctx = s.ctx, windows = which, score = score }
    end
    s.scored, why, code = windows_of(t.texts, t.windows, t.score)
    if not s.scored then return nil, why, code end
    s.cache = s.original:session_bytes(1, s.ctx)
    s.wishes, s.parts = mixed.wishes(t, s.model, s.original, s.cache)
    if t.calibrate then
      s.calibrate_windows = math.ceil(calibrate_tokens / s.ctx)
      s.calibrate, why, code = windows_of(t.calibrate, s.calibrate_windows, "all")
      if not s.calibrate then return nil, why, code end
      s.seen, why, code = q.seen_before(s.model, t.texts, t.calibrate)
      if not s.seen then return nil, why, code end
    end
    s.tasks = {}
    for i, path in ipairs(t.tasks or {}) do
      s.tasks[i], why, code = q.task { model = s.model, path = path, ctx = s.ctx }
      if not s.tasks[i] then return nil, why, code end
    end
    ok, why, code = q.store.open(t.store, device.name) -- tune will want it
    if not ok then return nil, why, code end
    ok:close()
    ok, why, code = native.make_folder(t.folder)
    if not ok then return nil, why, code end
    s.reference, why, code = q.reference { decoder = s.original, windows = s.scored, path = t.folder .. "/reference" }
    if s.reference and #s.wishes > 0 then s.choosing, why, code = choosing(s, t, windows_of) end
    if not s.reference or #s.wishes > 0 and not s.choosing then return nil, why, code end
    for _, name in ipairs { "candidates", "packs", "scores" } do
      if ok then ok, why, code = native.make_folder(t.folder .. "/" .. name) end
    end
    return ok and s, why, code
  end

  -- What tells a run from others besides its model: all that numbers in its journal follow from.
  local function identity_of(s)
    local parts = { s.reference.key, s.scored.hash, s.calibrate and s.calibrate.hash or "", s.device.name,
      tostring(s.device.threads) }
    for _, task in ipairs(s.tasks) do parts[#parts + 1] = task.hash end
    return native.hash(table.concat(parts, "\n"))
  end

  -- Progress for run.all, and for the share of a step that is done: events of common.progress, with the time that the
  -- rest of a phase takes if it goes on like this.
  local function teller(show)
    local at = { phase = "", start = 0, done = 0, total = 1, name = "" }
    local function tell(share)
      if not show then return end
      local done, spent = at.done + share, native.clock() - at.start
      show { phase = at.phase, problem = at.name, done = done, total = at.total,
        left = done > 0 and spent / done * (at.total - done) or nil }
    end
    return function(phase, name, done, total)
      if phase ~= at.phase then at.start = native.clock() end
      at.phase, at.name, at.done, at.total = phase, name, done, total
      tell(0)
    end, tell
  end

  -- See q.tradeoff; raises { why, code } for what the machine cannot do (run.blame).
  local function whole_of(t)
    local device, why, code = q.device(t.device)
    if not device then return nil, why, code end
    local s
    s, why, code = prepare(t, device)
    if not s then return nil, why, code end
    local list = s.list
    local progress, tell = teller(t.progress)
    s.tell, s.tune_progress = tell, t.progress
    local notes <close>, fault = journal.open(t.folder .. "/journal", ("%s, %s"):format(t.model, identity_of(s)))
    if not notes then return nil, fault, "QN_E_ARG" end
    local work = steps.new(s)
    progress("floor", t.model, 0, 1)
    local floor
    floor, why, code = noise_floor(s, notes)
    if not floor then return nil, why, code end
    local deadline, tried = native.clock() + (t.budget or math.huge), table.move(list, 1, #list, 1, {})
    for _, c in ipairs(#s.wishes > 0 and mixed.candidates(s, s.parts, s.wishes, work, notes, { new = candidates.new,
      method = "gptq", act = candidates.narrow, budget = t.budget and t.budget / 3, progress = progress }) or {}) do
      list[#list + 1] = c
      if c.formats or c.broken then tried[#tried + 1] = c end
    end
    local beside = { { name = "f32 dense", weights = "original", kernels = "f32", original = true } }
    local settings = { budget = deadline - native.clock(), progress = progress, beside = beside }
    local whole = run.all(tried, settings, work, notes) and #tried == #list
    if t.progress then t.progress { phase = "done" } end
    local r = { command = t.command or "q.tradeoff", model = t.model, texts = texts_of(s.scored), candidates = list,
      machine = ("%s, %d threads"):format(device.product, device.threads), margin = t.margin or 0.005, floor = floor,
      memory = t.memory, cache = s.cache, whole = whole, peak_memory = peak_memory(), beside = beside, files = {},
      cache_per_token = steps.bytes_of_token(s.original) }
    r.verdict = verdict.of(list, r)
    for _, text in ipairs(s.seen or {}) do table.insert(r.verdict.sentences, text) end
    for _, task in ipairs(s.tasks) do
      if task.truncated > 0 then
        table.insert(r.verdict.sentences, ("%s: %d of %d questions are longer than the %d tokens of a window and lose "
          .. "their beginnings."):format(task.path, task.truncated, task.n, s.ctx))
      end
    end
    for _, c in ipairs(list) do
      c.commands = commands_of(c, t, s)
      if r.verdict.chosen == c.name then
        r.files.checkpoint, r.files.pack = s:place(c), s:path("packs", c.kernels) .. ".qpack"
        r.verdict.sentences[#r.verdict.sentences + 1], r.elsewhere = elsewhere(s:place(c), c.act,
          s:path("candidates", c.weights))
      end
    end
    r.files.report, r.files.json = t.folder .. "/tradeoff.html", t.folder .. "/tradeoff.json"
    local ok
    ok, why, code = native.file_write(r.files.report, report.html(r))
    if ok then ok, why, code = native.file_write(r.files.json, q.json(r) .. "\n") end
    if not ok then return nil, why, code end
    return r
  end

  -- q.tradeoff {
  --   model = path, texts = { paths }, calibrate = { paths },   what is quantized, compared on, calibrated with
  --   tasks = { paths }                                         questions, as for q.task
  --   only = { "FORMAT:METHOD:ACT"… }, candidates = { … }       instead of the default ones; besides them
  --   folder = path                                             for all that it makes; a second run goes on there
  --   ctx = 512, windows = "64", score = "half" | "all"         as for q.windows
  --   margin = 0.005, memory = bytes, budget = seconds
  --   bits = 3.2, target = 0.025 (seconds a token)              a candidate more for each, with a format for each part
  --                                                             (tradeoff/mixed.lua); memory has one, too
  --   device = "host", threads =, store =, command = what the user typed, progress = function(event)
  -- }
  -- -> what lua/tradeoff/report.lua says, with files = { report, json, checkpoint, pack }; or nil, message, code
  return function(t)
    q.check.fields(t, fields, "tradeoff")
    local out = table.pack(pcall(whole_of, t))
    if out[1] then return table.unpack(out, 2, out.n) end
    local fault = out[2]
    if type(fault) ~= "table" or not fault.code then error(fault, 0) end
    return nil, ("%s; what was measured is kept in %s: the same command goes on from there"):format(fault.why,
      t.folder), fault.code
  end
end
