-- packs.lua - packs: what is in one, running it, checking and timing its kernels on this machine.

return function(q, native)
  local pack = {}
  pack.__index = pack

  -- Open a pack. options: device, threads, deterministic, batch_invariant (for bind); without a device, the first of
  -- the pack's that is here; functions = { { name =, library =, symbol = }… }, the pack's that are not in it: one that
  -- is not given is replaced by its runner-up.
  function q.open(path, options)
    q.check.fields(options or {}, { device = "string?", threads = "count?", deterministic = "boolean?",
      batch_invariant = "boolean?", functions = "list?" }, "options of open")
    local handle, why, code = native.pack_open(path)
    if not handle then return nil, why, code end
    options = options or {}
    local functions = {}
    for _, f in ipairs(options.functions or {}) do
      local ok
      ok, why, code = native.function_register(f.name, f.library, f.symbol)
      if not ok then return nil, why, code end
      functions[f.name] = f
    end
    return setmetatable({ path = path, handle = handle, options = options, functions = functions }, pack)
  end

  -- What was timed in a pack and is not in another: list of texts. has(problem, m, device) -> is it there? The device
  -- is { target, arch, product, threads }.
  function q.pack_lacks(path, has)
    local old, why, code = q.open(path)
    if not old then return nil, why, code end
    local lost, devices = {}, old:devices()
    for _, plan in ipairs(old:plans()) do
      local d = devices[plan.device]
      for _, range in ipairs(plan.kind == "fastest" and plan.n > 0 and plan.ranges or {}) do
        for _, point in ipairs(range.points) do
          if not has(plan.problem, point.m, d) then
            lost[#lost + 1] = ("%s at M = %d, timed on %s"):format(plan.problem, point.m, d.product)
          end
        end
      end
    end
    return lost
  end

  -- ---- Joining ------------------------------------------------------------------------------------------------------

  local function device_key(d) return q.json { d.target, d.arch, d.product, d.threads } end

  -- What several packs hold, once: of a problem that more than one has for the same device, the first one's plans.
  -- -> list of { pack = handle, plan = number, problem =, device = }; list of { problem, device, path, first = path }
  -- of those that are left out and differ from what is taken.
  local function gathered(packs, only)
    local out, left, taken = {}, {}, {}
    for _, from in ipairs(packs) do
      local devices, own = from:devices(), {}
      for i, plan in ipairs(from:plans()) do
        local d, at = devices[plan.device], plan.device
        local key = plan.problem .. device_key(d)
        plan.device = nil
        local text = q.json(plan)
        if not only or only(d, at) then
          taken[key] = taken[key] or { from = from, at = at, texts = {} }
          local t = taken[key]
          if t.from == from and t.at == at then
            t.texts[plan.kind] = text
            out[#out + 1] = { pack = from.handle, plan = i, problem = plan.problem, device = d, ranges = plan.ranges }
          elseif plan.n > 0 and t.texts[plan.kind] ~= text and not own[key] then
            own[key] = true
            left[#left + 1] = { problem = plan.problem, device = d, path = from.path, first = t.from.path }
          end
        end
      end
    end
    return out, left
  end

  -- One pack of several, or of a part of one. packs: list of q.open's. options: only(device, number) says whether the
  -- plans of a device are wanted; check(has) is called before anything is written, with what pack_lacks takes, and
  -- raises to keep a file.
  -- -> { plans = how many, left = list of { problem, device, path, first } }: left out, since an earlier pack has them
  -- otherwise; or nil, message, code.
  function q.join(packs, path, options)
    options = options or {}
    q.check.fields(options, { only = "function?", check = "function?" }, "options of join")
    local list, left = gathered(packs, options.only)
    if #list == 0 then return nil, path .. ": nothing to pack, no plan is wanted", "QN_E_ARG" end
    local timed = {}
    local joint <close>, why, code = native.pack_joint()
    local ok = joint
    for _, x in ipairs(list) do
      if ok then ok, why, code = joint:add(x.pack, x.plan) end
      for _, r in ipairs(x.ranges) do
        for _, point in ipairs(r.points) do timed[x.problem .. point.m .. device_key(x.device)] = true end
      end
    end
    if ok and options.check then
      options.check(function(problem, m, device) return timed[problem .. m .. device_key(device)] end)
    end
    if ok then ok, why, code = joint:write(path) end
    if not ok then return nil, why, code end
    return { plans = #list, left = left }
  end

  function pack:plans() return self.handle:plans() end
  function pack:kernels() return self.handle:kernels() end
  function pack:devices() return self.handle:devices() end
  function pack:hash() return self.handle:hash() end

  -- The library's context, which chooses the device, its threads and whose plans serve.
  local function context(self)
    local why, code
    if not self.context then self.context, why, code = native.serve(self.path, self.options) end
    return self.context, why, code
  end

  -- Resolve a problem: a gemm with prepack(planes), run{ weight, x, y, m }, kernel(m), problem(). nil, message, code.
  function pack:bind(problem)
    local c, why, code = context(self)
    if not c then return nil, why, code end
    return c:bind(problem)
  end

  -- The device that the pack is used on.
  function pack:device()
    if self.options.device then return q.device(self.options.device) end
    local c, why, code = context(self)
    if not c then return nil, why, code end
    return q.device(c:device())
  end

  -- ---- In a worker --------------------------------------------------------------------------------------------------

  -- Does a plan of the pack run on the device? Its kernels' instruction sets, or the architecture, must be there.
  -- Else what is amiss, too.
  local function fits(self, plan, device)
    local made_for = self:devices()[plan.device]
    if made_for.target ~= device.target then return false, "it is for " .. made_for.target end
    self.arch = self.arch or {}
    if not next(self.arch) then
      for _, k in ipairs(self:kernels()) do self.arch[k.hash] = k.arch end
    end
    for _, r in ipairs(plan.ranges) do
      for word in self.arch[r.hash]:gmatch "%S+" do
        if not device.isa[word] then return false, ("%s needs %s"):format(r.variant, word) end
      end
    end
    return true
  end

  -- What an open on this machine makes of a device of the pack, by its number: a sentence.
  function pack:nearness(number)
    local d, here = self:devices()[number], nil
    for _, x in ipairs(q.devices()) do
      if x.target == d.target and (not here or x.product == d.product) then here = x end
    end
    if not here then return "there is no device of its kind here" end
    for _, plan in ipairs(self:plans()) do
      if plan.device == number then
        local ok, amiss = fits(self, plan, here)
        if not ok then return "its kernels do not run here: " .. amiss end
      end
    end
    local out = {}
    for _, f in ipairs { { "product", "product" }, { "threads", "threads" }, { "arch", "architecture" } } do
      if d[f[1]] ~= here[f[1]] and (f[1] ~= "threads" or d.target == "host") then
        out[#out + 1] = ("%s %s, here %s"):format(f[2], d[f[1]], here[f[1]])
      end
    end
    if #out == 0 then return "a machine like this one" end
    return "its kernels run here, and were timed elsewhere: " .. table.concat(out, "; ")
  end

  -- A worker on the pack's device, and a directory for the images that it loads. Both go when it is closed.
  local session = {}
  session.__index = session

  local function open_session(self)
    local device, why, code = self:device()
    if not device then return nil, why, code end
    local s = setmetatable({ device = device }, session)
    s.worker, why, code = native.worker(q.worker() or "quernel-worker", device.name)
    if s.worker then s.scratch, why, code = native.scratch() end
    if s.scratch then return s end
    s:__close()
    return nil, why, code
  end

  function session:__close()
    if self.worker then self.worker:close() end
    if self.scratch then self.scratch:close() end
  end

  -- { json, hash, variant } of range number j of plan number i of a pack: of its kernel, or of the runner-up for a
  -- function that is not given.
  function session:case(from, i, j, variant)
    local f = from.functions[variant:match "^function/.*/([^/]+)$"] or {}
    local json, hash, name = from.handle:case(i, j, self.scratch:path(), f.library, f.symbol)
    if not json then return nil, hash, name end
    return { json = json, hash = hash, variant = name, experts = from:plans()[i].experts }
  end

  -- Visit (plan, range, case) of every range that runs here.
  local function each_case(self, s, visit)
    local visited, amiss = 0, "it is empty"
    for i, plan in ipairs(self:plans()) do
      local here, lacks = fits(self, plan, s.device)
      amiss = lacks or amiss
      for j, range in ipairs(here and plan.ranges or {}) do
        local case, why, code = s:case(self, i, j, range.variant)
        if not case then return nil, why, code end
        visit(plan, range, case)
        visited = visited + 1
      end
    end
    if visited > 0 then return true end
    return nil, ("%s: no plan for %s (%s): %s"):format(self.path, s.device.name, s.device.arch, amiss), "QN_E_DEVICE"
  end

  local patience = 300 -- seconds without a sign of life
  function session:ask(op, case, m)
    local share = self.experts and self.experts:share(case) -- of a stack
    return self.worker:ask(('{"op":"%s","slot":0,"case":%s,"m":%d%s}'):format(op, case.json, m,
      share and ',"share":' .. q.json(share) or ""), patience)
  end

  -- The largest M of a range that was tuned, else its first.
  local function tokens_of(range)
    local last = range.points[#range.points]
    return last and last.m or range.m_min
  end

  -- Check every kernel against the reference: on small ragged shapes, and at the plan's own shape. each(plan, m,
  -- variant, error or nil, reason): called as results come. -> number of checks, of failures; or nil, message.
  function pack:verify(each)
    local small, done, failed = {}, 0, 0
    local s <close>, why, code = open_session(self)
    if not s then return nil, why, code end
    local ok
    ok, why, code = each_case(self, s, function(plan, range, case)
      local key, m = case.hash .. plan.format, tokens_of(range)
      if not small[key] then
        local answer, reason = s:ask("verify", case, m)
        small[key] = answer or { reason = reason }
      end
      local error_, reason = small[key].error, small[key].reason
      if error_ and plan.n > 0 then
        local answer, text = s:ask("open", case, m)
        error_, reason = answer and math.max(error_, answer.error), text
      end
      done = done + 1
      if not error_ then failed = failed + 1 end
      if each then each(plan, m, case.variant, error_, reason) end
    end)
    if not ok then return nil, why, code end
    return done, failed
  end

  local function median(list)
    local sorted = table.move(list, 1, #list, 1, {})
    table.sort(sorted)
    local n = #sorted
    return n == 0 and 0 or (sorted[(n + 1) // 2] + sorted[n // 2 + 1]) / 2
  end

  local function serving(plan, m) -- the range of a plan that serves m
    local best = plan.ranges[1]
    for _, r in ipairs(plan.ranges) do if r.m_min <= m then best = r end end
    return best
  end

  -- Of a list of M, those that a range serves, each with what was measured then; without a list, those that were tuned.
  local function points(plan, range, list)
    if not list then return range.points end
    local out = {}
    for _, m in ipairs(list) do
      local known = { m = m }
      for _, x in ipairs(range.points) do if x.m == m then known = x end end
      if serving(plan, m) == range then out[#out + 1] = known end
    end
    return out
  end

  -- An answer's samples -> { seconds, bandwidth, disturbed }: medians, and whether the machine was busy (stats.h). They
  -- are counted in the session.
  function session:sampled(answer)
    self.counts = self.counts or { samples = 0, thrown = 0, disturbed = 0 }
    self.counts.samples = self.counts.samples + #answer.seconds
    for _, name in ipairs { "thrown", "disturbed" } do
      self.counts[name] = self.counts[name] + (answer[name] or 0)
    end
    return { seconds = median(answer.seconds), bandwidth = median(answer.bandwidth or {}),
      disturbed = (answer.disturbed or 0) * 10 > #answer.seconds }
  end

  -- What a case takes, as above. nil, message.
  function session:time(case, m, reps)
    local answer, why = self:ask("open", case, m)
    if answer then answer, why = self.worker:ask(('{"op":"time","slot":0,"reps":%d}'):format(reps), patience) end
    if not answer then return nil, why end
    return self:sampled(answer)
  end

  -- Our own dense kernels, as a pack: of those that the store knows the fastest, else a plain one.
  function session:dense_pack(shapes, list)
    local problems, path = {}, self.scratch:path() .. "/dense.qpack"
    for shape in pairs(shapes) do problems[#problems + 1] = q.dense_problem(shape, self.device.target) end
    if #problems == 0 then return nil end
    local result = q.tune { problems = problems, m = list, device = self.device.name, dense = false, budget = 1e-3 }
    if not result or not q.pack(result, path) then return nil end
    return q.open(path, { device = self.device.name })
  end

  -- The dense product now: the better of the other library and our own kernels, with `by` whom; nil: there is neither,
  -- or it is a stack of experts.
  function session:time_dense(own, plan, m, reps)
    if plan.experts then return end
    local blas = self.worker:ask(('{"op":"blas","n":%d,"k":%d,"m":%d}'):format(plan.n, plan.k, m), patience)
    local best = blas and self:sampled(blas)
    if best then best.by = blas.by end
    for i, p in ipairs(own and own:plans() or {}) do
      for j, range in ipairs(p.kind == "fastest" and p.n == plan.n and p.k == plan.k and p.ranges or {}) do
        local case = serving(p, m) == range and self:case(own, i, j, range.variant)
        local ours = case and self:time(case, m, reps)
        if ours and (not best or ours.seconds < best.seconds) then
          best, ours.by = ours, q.import "lua.common".short(case.variant)
        end
      end
    end
    return best
  end

  -- What another pack has for a plan's problem, with `by` its kernel; nil: it has none that runs here.
  function session:time_other(from, plan, m, reps)
    for i, p in ipairs(from:plans()) do
      local same = p.kind == "fastest" and p.problem == plan.problem and fits(from, p, self.device)
      for j, range in ipairs(same and p.ranges or {}) do
        local case = serving(p, m) == range and self:case(from, i, j, range.variant)
        local other = case and self:time(case, m, reps)
        if other then
          other.by = q.import "lua.common".short(case.variant)
          return other
        end
      end
    end
  end

  -- Does another pack have a plan for one of the things to be timed? nil, message, code.
  local function shares(from, list)
    local has = {}
    for _, p in ipairs(from:plans()) do has[p.problem] = true end
    for _, x in ipairs(list) do if has[x.plan.problem] then return true end end
    return nil, ("%s has none of the problems that are to be timed"):format(from.path), "QN_E_NO_KERNEL"
  end

  -- How rows are spread over the experts of what is to be timed. nil, message, code.
  local function experts_of(list, source)
    local experts, why, code = q.experts(source)
    if not experts then return nil, why, code end
    local plans = {}
    for i, x in ipairs(list) do plans[i] = x.plan end
    local ok
    ok, why, code = experts:fit(plans)
    if not ok then return nil, why, code end
    return experts
  end

  -- Of the fastest plans, what is to be timed: list of { plan, range, case, point }, the shapes, the M. nil, message.
  local function agenda(self, s, list)
    local out, shapes, seen, ms = {}, {}, {}, {}
    local ok, why, code = each_case(self, s, function(plan, range, case)
      for _, point in ipairs(plan.kind == "fastest" and plan.n > 0 and points(plan, range, list) or {}) do
        out[#out + 1] = { plan = plan, case = case, point = point }
        if not plan.experts then shapes[("%dx%d"):format(plan.n, plan.k)] = true end
        if not seen[point.m] then ms[#ms + 1] = point.m end
        seen[point.m] = true
      end
    end)
    table.sort(ms)
    if ok then return out, shapes, ms end
    return nil, why, code
  end

  -- How far apart the rounds' times are: half of what lies between them, as a share of the one in the middle.
  local function spread(rounds, side)
    local t = {}
    for i, r in ipairs(rounds) do t[i] = r[side] and r[side].seconds end
    table.sort(t)
    return #t == #rounds and (t[#t] - t[1]) / 2 / median(t) or 0
  end

  -- A kernel and another product in turns, since a shared machine is not the same a second later: of a few rounds the
  -- one with the middle ratio. time_other(plan, m, reps) -> as sampled, or nil. -> { ours, other }, each { seconds,
  -- spread, bandwidth, disturbed, by }; or nil, message.
  function session:beside(x, reps, time_other)
    local rounds, each = {}, (reps + 2) // 3
    for i = 1, 3 do
      local ours, why = self:time(x.case, x.point.m, each)
      if not ours then return nil, why end
      rounds[i] = { ours = ours, other = time_other(x.plan, x.point.m, each) }
    end
    table.sort(rounds, function(a, b)
      return (a.other and a.other.seconds or 0) / a.ours.seconds < (b.other and b.other.seconds or 0) / b.ours.seconds
    end)
    for side, one in pairs(rounds[2]) do one.spread = spread(rounds, side) end
    return rounds[2]
  end

  -- Time the fastest plans again, weights cold, each beside the dense product or beside what another pack has for the
  -- problem. options: m = list (default: the tuned ones), reps, against = pack, progress(problem, m, done, total),
  -- experts = path or list: how rows are spread over those of stacks (q.experts).
  -- -> list of { problem, m, variant, seconds, spread, disturbed, bytes, bandwidth, tuned_seconds, dense_seconds,
  -- dense_spread, dense_disturbed, dense_bandwidth, dense_bytes, dense_by }, with `against` in the place of `dense` if
  -- that is a pack, and { samples, thrown, disturbed }, how many samples became what; or nil, message, code.
  function pack:bench(options)
    options = options or {}
    q.check.fields(options, { m = "list?", reps = "count?", against = "table?", progress = "function?",
      experts = "string|table?" }, "options of bench")
    local s <close>, why, code = open_session(self)
    if not s then return nil, why, code end
    local list, shapes, ms = agenda(self, s, options.m)
    if not list then return nil, shapes, ms end
    local from, reps, out, ok = options.against, options.reps or 15, {}, true
    if from then ok, why, code = shares(from, list) end
    if ok and options.experts then s.experts, why, code = experts_of(list, options.experts) end
    ok = ok and (s.experts or not options.experts)
    if not ok then return nil, why, code end
    local own = not from and s:dense_pack(shapes, ms) or nil
    local function time_other(plan, m, each)
      if from then return s:time_other(from, plan, m, each) end
      return s:time_dense(own, plan, m, each)
    end
    for i, x in ipairs(list) do
      local plan, m = x.plan, x.point.m
      if options.progress then options.progress(plan.problem, m, i - 1, #list) end
      local r, fault = s:beside(x, reps, time_other)
      if not r then return nil, ("%s M=%d %s: %s"):format(plan.problem, m, x.case.variant, fault), "QN_E_WRONG" end
      local ours, other, beside = r.ours, r.other or {}, from and "against_" or "dense_"
      out[i] = { problem = plan.problem, m = m, variant = x.case.variant, seconds = ours.seconds, spread = ours.spread,
        disturbed = ours.disturbed, bytes = q.import "lua.common".read_bytes(q, plan, m, s.experts),
        bandwidth = ours.bandwidth, tuned_seconds = x.point.seconds }
      for _, key in ipairs { "seconds", "spread", "disturbed", "bandwidth", "by" } do
        out[i][beside .. key] = other[key]
      end
      if not from then out[i].dense_bytes = (s.device.target == "cuda" and 2 or 4) * plan.n * plan.k end
    end
    return out, s.counts
  end
end
