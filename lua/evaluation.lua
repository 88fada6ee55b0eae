-- evaluation.lua - what a model makes of texts and tasks: decoders, windows, the reference, scores, comparisons.

return function(q, native)
  local fields = q.check.fields

  -- ---- Decoders -----------------------------------------------------------------------------------------------------

  -- The number in a file of the system, or nil.
  local function number_in(path, pattern)
    local f = io.open(path)
    local text = f and f:read "a" or ""
    if f then f:close() end
    return tonumber(text:match(pattern))
  end

  -- Files of a control group, version 2 and 1: its limit, what it uses, and what of that is a cache of files that the
  -- system drops when memory is wanted.
  local groups = {
    { "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", "inactive_file" },
    { "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes",
      "/sys/fs/cgroup/memory/memory.stat", "total_inactive_file" },
  }

  -- Bytes of memory that are free, as far as the system or a control group says; nil: nobody does. root: where /proc
  -- and /sys are ("").
  function q.free_memory(root)
    root = root or ""
    local free = number_in(root .. "/proc/meminfo", "MemAvailable: *(%d+)")
    free = free and free * 1024
    for _, g in ipairs(groups) do
      local most, used = number_in(root .. g[1], "^(%d+)"), number_in(root .. g[2], "^(%d+)")
      if most and used then
        local cache = number_in(root .. g[3], "%f[%w_]" .. g[4] .. " (%d+)") or 0
        free = math.min(free or math.huge, math.max(0, most - used + cache))
      end
    end
    return free
  end

  local decoder = {}
  decoder.__index = decoder

  -- Bytes of the linear layers in f32.
  local function f32_bytes(model)
    local sum = 0
    for _, t in ipairs(model:tensors()) do sum = sum + (t.linear and 4 * t.n * t.k * t.slices or 0) end
    return sum
  end

  -- A model (q.model) as a function. options: threads; bf16, every step rounded to it; hold, bytes of f32 weights that
  -- may stay in memory, others are made anew in each pass (nil: 0.4 of what is free). share: so many decoders are at
  -- work side by side, and together hold no more than the weights of one and half a GB.
  --   d.bytes: of all its linear layers in f32
  --   d:sites() -> linear layers { name, layer, slice, n, k, input }, the head last   d:config()   d:weight(site)
  --   d:time(batch, before, n) -> { seconds, linear, sites = { seconds of each… } } of a pass of n tokens after
  --   `before` (eval/timing.h)
  --   d:session_bytes(batch, context)   of keys, values and states
  --   d:replace(site, planes | f32 | nil)   d:serve(site, gemm | nil, weight)   nil: the checkpoint's again
  --   d:serve_stack({ site of each expert… }, gemm, stack)
  --   d:giver(input) -> { norm = its stored name } or { site = }, or nil, why it cannot be scaled
  --   d:scale(input, buffer f32 [k])   divide an input and multiply what reads it; the buffer holds the scale as taken
  --   d:norm(input) -> its norm's weights as they are to be stored
  --   d:forget() gives up the memory of all that can be made again
  --   d:activate(site, "i8.row" | nil)   how the dense product's input is rounded; nil: not at all
  function q.decoder(model, options)
    options = options or {}
    fields(options, { threads = "count?", bf16 = "boolean?", hold = "integer?", share = "count?" },
      "options of decoder")
    local bytes, share, free = f32_bytes(model), options.share or 1, q.free_memory() or math.huge
    local given = { threads = options.threads, bf16 = options.bf16,
      hold = options.hold or math.floor(math.min(0.8 * free / math.max(share, 2), (bytes + (1 << 29)) / share)) }
    local handle, why, code = native.decoder(model.handle, given, q.descriptor)
    if not handle then return nil, ("%s: %s"):format(model.path, why), code end
    return setmetatable({ model = model, handle = handle, options = options, bytes = bytes }, decoder)
  end

  function decoder:sites()
    self.list = self.list or self.handle:sites()
    return self.list
  end
  function decoder:config() return self.handle:config() end
  function decoder:weight(site) return self.handle:weight(site) end
  function decoder:serve(site, gemm, weight) return self.handle:serve(site, gemm, weight) end
  function decoder:activate(site, activation) return self.handle:activate(site, activation) end
  function decoder:giver(input) return self.handle:giver(input) end
  function decoder:scale(input, scale) return self.handle:scale(input, scale) end
  function decoder:norm(input) return self.handle:norm(input) end
  function decoder:forget() return self.handle:forget() end
  function decoder:close() return self.handle:close() end
  decoder.__close = decoder.close
  function decoder:time(batch, before, n) return self.handle:time(batch, before, n) end
  function decoder:session_bytes(batch, context) return self.handle:session_bytes(batch, context) end

  -- weight: planes, which are dequantized, or a buffer f32 [n, k]
  function decoder:replace(site, weight)
    local class = getmetatable(weight)
    if not class or class.__name ~= "quernel.planes" then return self.handle:replace(site, weight) end
    local x, why, code = weight:dequantize(q.descriptor(weight:info().format))
    if not x then return nil, why, code end
    return self.handle:replace(site, x)
  end

  function decoder:serve_stack(sites, gemm, weight) return self.handle:serve_stack(sites, gemm, weight) end

  -- Problems of a pack that are the product of a weight, or a stack, and nothing more: list of spellings,
  -- "int4.g128:256x768:bf16-f32".
  local function problems_of(pack, shape, act)
    local out, seen, head = {}, {}, shape .. ":"
    for _, plan in ipairs(pack:plans()) do
      local rest = plan.problem:sub(1, #head) == head and plan.problem:sub(#head + 1)
      if rest and rest:match "^([%w~]+)%-%w+$" == (act or rest:match "^[%w~]+") and not seen[rest] then
        out[#out + 1], seen[rest] = plan.problem, true
      end
    end
    return out
  end

  -- The one problem of a pack with which it serves x, a weight or a stack. False: it has none. nil, message, code: it
  -- has several.
  local function problem_of(model, pack, x, act)
    local problems = x.format and problems_of(pack, model.shape_of(x), act) or {}
    if #problems < 2 then return problems[1] or false end
    return nil, ("%s: the pack has %s; say which activations are meant (--act)"):format(x.name,
      table.concat(problems, " and ")), "QN_E_ARG"
  end

  -- What a decoder's linear layers are, each once: list of { name, sites = { its number }, problem = of the pack or
  -- false }. Experts are one where the pack has their stack. nil, message, code.
  local function layers_of(d, pack, act)
    local out, of_stack = {}, {}
    for i, site in ipairs(d:sites()) do
      local t = d.model.by_name[site.name]
      local stack, own = d.model.stack_of[site.name], t.quantized and act or nil
      local layer = stack and of_stack[stack]
      if not layer then
        local problem, why, code = false, nil, nil
        if stack then problem, why, code = problem_of(d.model, pack, stack, own) end
        if problem then layer = { name = stack.name, stack = stack, sites = {}, problem = problem }
        elseif problem == false and t.linear then problem, why, code = problem_of(d.model, pack, t, own) end
        if problem == nil then return nil, why, code end
        layer = layer or { name = site.name, sites = {}, problem = problem }
        if layer.stack then of_stack[stack] = layer end
        out[#out + 1] = layer
      end
      table.insert(layer.sites, i)
    end
    return out
  end

  -- The weight of a site in a gemm's layout; as expert number `expert` of a stack, which has been begun or is nil.
  local function prepack(d, site, gemm, expert, stack)
    local planes <close>, why, code = d.model:planes(site.name, site.slice)
    if not planes then return nil, why, code end
    if expert then return gemm:prepack_expert(expert, planes, stack) end
    return gemm:prepack(planes)
  end

  -- Serve a layer by a gemm. True, or nil, message, code.
  local function serve(d, layer, gemm)
    local weight, why, code
    for expert, site in ipairs(layer.sites) do
      weight, why, code = prepack(d, d:sites()[site], gemm, layer.stack and expert, weight)
      if not weight then return nil, why, code end
    end
    if layer.stack then return d:serve_stack(layer.sites, gemm, weight) end
    return d:serve(layer.sites[1], gemm, weight)
  end

  -- Linear layers are multiplied by the pack's kernels wherever it has one for them, experts all at once where it has
  -- their stack. act: activations of what is quantized, if the pack has kernels for several. Returns how many layers
  -- are, each expert one, and how many stay dense.
  function decoder:serve_pack(pack, act)
    local served, dense, gemms = 0, 0, {}
    local layers, why, code = layers_of(self, pack, act)
    if not layers then return nil, why, code end
    for _, layer in ipairs(layers) do
      local problem = layer.problem
      if problem then
        local ok
        if not gemms[problem] then
          gemms[problem], why, code = pack:bind(problem)
          if not gemms[problem] then return nil, why, code end
        end
        ok, why, code = serve(self, layer, gemms[problem])
        if not ok then return nil, ("%s: %s"):format(layer.name, why), code end
        served = served + #layer.sites
      else
        dense = dense + #layer.sites
      end
    end
    self:forget() -- what the weights were packed from
    self.served = ("%s %s"):format(pack:hash(), act or "")
    return served, dense
  end

  -- ---- Windows ------------------------------------------------------------------------------------------------------

  -- "64" -> the first 64 of each text; "FIRST:END:STEP" -> numbers from 0, END excluded, each may be left out.
  local function steps(text)
    if not text then return {} end
    text = tostring(text)
    local first, stop, step = (text:match "^%d+$" and "0:" .. text or text):match "^(%d*):(%d*):?(%d*)$"
    local function number(digits, least)
      local n = digits and math.tointeger(tonumber(digits))
      if digits ~= "" and (n or -1) < least then
        error(("windows %q: a number from 1 on, or FIRST:END:STEP with END beyond FIRST"):format(text), 0)
      end
      return n
    end
    local out = { first = number(first, 0), step = number(step, 1) }
    out.stop = number(stop, (out.first or 0) + 1)
    return out
  end

  -- { model =, texts = { path… }, ctx = 512, windows = "64" or "0:384:3", score = "half" or "all", tokenizer = path,
  -- bos = "yes" or "no" (nil: as the model has it) }
  -- -> windows: n, length, scored (tokens of each that are), hash, bos, half, domains = { { path, ids, bytes, dropped,
  -- windows }… }; or nil, message, code. eval/windows.h has the conventions.
  function q.windows(options)
    fields(options, { model = "table", texts = "list", ctx = "count?", windows = "string|number?", score = "string?",
      tokenizer = "string?", bos = "string?" }, "windows")
    fields(options.texts, { ["[]"] = "string" }, "windows: texts")
    local score = options.score or "half"
    q.check.among(score, { "half", "all" }, "score")
    local o = steps(options.windows)
    if options.bos then q.check.among(options.bos, { "yes", "no" }, "bos") end
    o.length, o.half, o.tokenizer, o.bos = options.ctx or 512, score == "half", options.tokenizer, options.bos
    for i, path in ipairs(options.texts) do
      for k = 1, i - 1 do -- its windows would count as others, and intervals come out too narrow
        if native.same_file(path, options.texts[k]) then
          return nil, ("%s: the same text as %s; name each once"):format(path, options.texts[k]), "QN_E_ARG"
        end
      end
    end
    local handle, about, code = native.windows(options.model.handle, options.texts, o)
    if not handle then return nil, about, code end
    about.handle, about.half, about.score = handle, o.half, score
    return about
  end

  -- ---- Evaluating ---------------------------------------------------------------------------------------------------

  -- Of a call that may fail, once: its value is kept in t[field].
  local function once(t, field, call, ...)
    local why, code
    if not t[field] then t[field], why, code = call(...) end
    return t[field], why, code
  end

  -- Text from which follows what a decoder computes, to the last bit: the files of its model, which are read for that,
  -- what was changed, this program and its CPU. `key` names what the decoder does not know of (weights that were
  -- replaced).
  local program = {}
  local function key_of(d, key)
    local model, why, code = once(d.model, "hash", native.model_hash, d.model.handle)
    if not model then return nil, why, code end
    local build, host
    build, why, code = once(program, "build", native.build)
    if not build then return nil, why, code end
    host, why, code = once(program, "host", q.device, "host")
    if not host then return nil, why, code end
    return ("model %s%s; pack %s; %s; by %s on %s"):format(model, d.options.bf16 and " in bf16" or "",
      d.served or "none", key or "", build, host.arch)
  end

  -- { decoder =, windows =, path = file or nil }: what candidates are compared with. In a file the hidden states are
  -- kept; without one they are computed whenever they are needed.
  function q.reference(options)
    fields(options, { decoder = "table", windows = "table", path = "string?" }, "reference")
    local key, why, code = key_of(options.decoder)
    if not key then return nil, why, code end
    local handle
    handle, why, code = native.reference(options.decoder.handle, key, options.windows.handle, options.path)
    if not handle then return nil, why, code end
    return { handle = handle, path = options.path, key = key }
  end

  -- The log of an evaluation: options.log, or a file of the store at the root options.store.
  -- It is named for this program, for no other can use it.
  local function log_of(options, ...)
    local name = options.store and native.hash(table.concat({ ... }, "\n"))
    return options.log or name and ("%s/eval/%s-%s.log"):format(options.store, program.build:sub(1, 8), name)
  end

  -- Bits per byte, from the mean of each domain; nil if a text has no bytes.
  local function bits_per_byte(e, domains)
    local nats, bytes = 0, 0
    for i, d in ipairs(domains) do
      local part = e.by_domain[i]
      if part.tokens > 0 and part.nll then
        local size = d.bytes > 0 and d.bytes / d.ids or 0 / 0
        part.bits_per_byte = size == size and part.nll.mean / math.log(2) / size or nil
        nats, bytes = nats + part.nll.mean * part.tokens, bytes + size * part.tokens
      end
    end
    return bytes > 0 and nats / math.log(2) / bytes or nil
  end

  -- { decoder =, windows =, reference =, log = path or store = root, key =, stop =, threads =, progress(done, total) }
  -- -> { tokens, windows, computed, broken_tokens, broken_logits, nll, greedy, perplexity, bits_per_byte, with a
  -- reference: nll_reference, delta_nll, delta_nll_unpaired, kl, same_top, delta_p, delta_p_rms; by_domain,
  -- by_position (quarters of a window), by_confidence (of the reference: 0 .25 .5 .75 .95 1); w_domain, w_nll,
  -- w_nll_reference, w_kl: means of each window }; or nil, message, code. An estimate: { mean, error, df, low, high },
  -- errors clustered by window, the interval of 95 %; kl and delta_p have p1 p5 p10 median p90 p95 p99 p999 max, too. A
  -- candidate with logits that are no finite numbers has none of these but the counts.
  -- What was evaluated is kept in the log, a file of its own or one of a store, and is not evaluated again. stop: the
  -- first so many windows only, in whole passes.
  function q.evaluate(options)
    fields(options, { decoder = "table", windows = "table", reference = "table?", log = "string?", store = "string?",
      key = "string?", stop = "count?", threads = "count?", progress = "function?" }, "evaluate")
    local d, w, r = options.decoder, options.windows, options.reference
    local key, why, code = key_of(d, options.key)
    if not key then return nil, why, code end
    local e
    e, why, code = native.evaluate(d.handle, w.handle, #w.domains, r and r.handle,
      { log = log_of(options, key, w.hash, r and r.key), key = key, stop = options.stop, threads = options.threads },
      options.progress)
    if not e then return nil, why, code end
    if e.nll then e.perplexity, e.bits_per_byte = math.exp(e.nll.mean), bits_per_byte(e, w.domains) end
    return e
  end

  -- ---- Tasks --------------------------------------------------------------------------------------------------------

  -- { model =, path = .jsonl or .csv, ctx = 512, tokenizer = path } -> task: n, truncated, longest, hash; or nil,
  -- message, code. eval/score/task.h has the rules.
  function q.task(options)
    fields(options, { model = "table", path = "string", ctx = "count?", tokenizer = "string?" }, "task")
    local handle, about, code = native.task(options.model.handle, options.path,
      { context = options.ctx or 512, tokenizer = options.tokenizer })
    if not handle then return nil, about, code end
    about.handle, about.path = handle, options.path
    return about
  end

  -- { decoder =, task =, log = or store =, key =, stop =, progress = } -> { n, computed, broken, acc, acc_norm,
  -- acc_bytes: estimates; items = { 1 or 0: right by acc… } }; or nil, message, code.
  function q.evaluate_task(options)
    fields(options, { decoder = "table", task = "table", log = "string?", store = "string?", key = "string?",
      stop = "count?", threads = "count?", progress = "function?" }, "evaluate_task")
    local key, why, code = key_of(options.decoder, options.key)
    if not key then return nil, why, code end
    return native.evaluate_task(options.decoder.handle, options.task.handle,
      { log = log_of(options, key, options.task.hash), key = key, stop = options.stop, threads = options.threads },
      options.progress)
  end

  -- Two results of the same items, before and after: { difference: estimate in points of 100, worse, better: flips,
  -- mcnemar: p, equivalence: p at `margin` points, 2 by default }.
  function q.compare_items(before, after, margin)
    local d, worse, better = {}, 0, 0
    for i = 1, math.min(#before, #after) do
      d[i] = 100 * (after[i] - before[i])
      worse, better = worse + (d[i] < 0 and 1 or 0), better + (d[i] > 0 and 1 or 0)
    end
    local difference = native.mean(d)
    margin = margin or 2
    -- Without a flip there is no error to judge by; if `margin` of 100 items flipped, so many would show none as often.
    local equivalence = worse + better == 0 and (1 - margin / 100) ^ #d or native.equivalence(difference, margin)
    return { difference = difference, worse = worse, better = better, mcnemar = native.mcnemar(worse, better),
      equivalence = equivalence, margin = margin }
  end

  -- mean { number… }: an estimate, of windows or items.
  q.mean = native.mean
end
