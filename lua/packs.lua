-- packs.lua - packs: what is in one, running it, checking and timing its kernels on this machine.

return function(q, native)
  local pack = {}
  pack.__index = pack

  -- Open a pack. options: device, threads, deterministic, batch_invariant (for bind); without a device, the first of
  -- the pack's that is here; functions = { { name =, library =, symbol = }… }, the pack's that are not in it: one that is
  -- not given is replaced by its runner-up.
  function q.open(path, options)
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

  function pack:plans() return self.handle:plans() end
  function pack:kernels() return self.handle:kernels() end
  function pack:devices() return self.handle:devices() end
  function pack:hash() return self.handle:hash() end

  -- Resolve a problem: a gemm with prepack(planes), run{ weight, x, y, m }, kernel(m), problem(). nil, message, code.
  function pack:bind(problem)
    if not self.context then
      local o = {}
      for key, x in pairs(self.options) do o[key] = x end
      local device, why, code = self:device()
      if not device then return nil, why, code end
      o.device = device.name
      self.context, why, code = native.serve(self.path, o)
      if not self.context then return nil, why, code end
    end
    return self.context:bind(problem)
  end

  -- The device that the pack is used on.
  function pack:device()
    if self.options.device then return q.device(self.options.device) end
    local why, code = self.path .. ": the pack holds no device", "QN_E_DEVICE"
    for _, d in ipairs(self:devices()) do
      local here
      here, why, code = q.device(d.target)
      if here then return here end
    end
    return nil, why, code
  end

  -- ---- In a worker -------------------------------------------------------------------------------------------------

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

  -- Visit (plan, range, case, worker) of every range that runs here; each kernel's image lies in a directory meanwhile.
  -- A case is { json, hash, variant }: of the range's kernel, or of the runner-up for a function that is not given.
  local function each_case(self, visit)
    local device, why, code = self:device()
    if not device then return nil, why, code end
    local worker, folder
    worker, why, code = native.worker(q.worker() or "quernel-worker", device.name)
    if not worker then return nil, why, code end
    folder, why, code = native.scratch()
    if not folder then return nil, why, code end
    local images = {}
    local cleaner <close> = setmetatable({}, { __close = function()
      worker:close()
      for hash in pairs(images) do os.remove(folder .. "/" .. hash) end
      os.remove(folder)
    end })
    local visited, amiss = 0, "it is empty"
    for i, plan in ipairs(self:plans()) do
      local here, lacks = fits(self, plan, device)
      amiss = lacks or amiss
      if here then
        for j, range in ipairs(plan.ranges) do
          local f = self.functions[range.variant:match "^function/.*/([^/]+)$"] or {}
          local json, hash, variant = self.handle:case(i, j, folder, f.library, f.symbol)
          if not json then return nil, hash, variant end
          images[hash] = true
          visit(plan, range, { json = json, hash = hash, variant = variant }, worker)
          visited = visited + 1
        end
      end
    end
    if visited == 0 then
      return nil, ("%s: no plan for %s (%s): %s"):format(self.path, device.name, device.arch, amiss), "QN_E_DEVICE"
    end
    return true
  end

  local function ask(worker, op, case, fields, seconds)
    return worker:ask(('{"op":"%s","slot":0,"case":%s%s}'):format(op, case.json, fields or ""), seconds or 300)
  end

  -- The largest M of a range that was tuned, else its first.
  local function tokens_of(range)
    local last = range.points[#range.points]
    return last and last.m or range.m_min
  end

  -- Check every kernel against the reference: on small ragged shapes, and at the plan's own shape. each(plan, m, variant,
  -- error or nil, reason): called as results come. -> number of checks, of failures; or nil, message.
  function pack:verify(each)
    local small, done, failed = {}, 0, 0
    local ok, why, code = each_case(self, function(plan, range, case, worker)
      local key, m = case.hash .. plan.format, tokens_of(range)
      if not small[key] then
        local answer, reason = ask(worker, "verify", case)
        small[key] = answer or { reason = reason }
      end
      local error_, reason = small[key].error, small[key].reason
      if error_ and plan.n > 0 then
        local answer, text = ask(worker, "open", case, (',"m":%d'):format(m))
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

  -- Time the fastest plans again, weights cold, each beside the dense product. options: m = list (default: the tuned
  -- ones), reps, progress(problem, m). -> list of { problem, m, variant, seconds, bytes, bandwidth, tuned_seconds,
  -- dense_seconds, dense_bytes, dense_by }, or nil, message, code.
  function pack:bench(options)
    options = options or {}
    local out, failure = {}, nil
    local dense_of = {} -- measured once for each shape and M
    local function time_dense(worker, plan, then_, m)
      local key = ("%dx%d M=%d"):format(plan.n, plan.k, m)
      if dense_of[key] == nil then
        local answer = worker:ask(('{"op":"blas","n":%d,"k":%d,"m":%d}'):format(plan.n, plan.k, m), 300)
        dense_of[key] = answer or false
      end
      local now = dense_of[key]
      if now and (then_ <= 0 or now.seconds <= then_) then return now.seconds, now.by end
      return then_ > 0 and then_ or nil, "own kernels, when tuned"
    end
    local function measure(plan, point, case, worker)
      local m = point.m
      if options.progress then options.progress(plan.problem, m) end
      local answer, why = ask(worker, "open", case, (',"m":%d'):format(m))
      if answer then answer, why = worker:ask(('{"op":"time","slot":0,"reps":%d}'):format(options.reps or 15), 300) end
      if not answer then
        failure = failure or ("%s M=%d %s: %s"):format(plan.problem, m, case.variant, why)
        return
      end
      local dense, by = time_dense(worker, plan, point.dense_seconds or 0, m)
      local gpu = self:devices()[plan.device].target == "cuda"
      out[#out + 1] = { problem = plan.problem, m = m, variant = case.variant, seconds = median(answer.seconds),
        bytes = plan.bytes, bandwidth = median(answer.bandwidth or {}),
        tuned_seconds = point.seconds, dense_seconds = dense, dense_by = dense and by,
        dense_bytes = (gpu and 2 or 4) * plan.n * plan.k }
    end
    local ok, why, code = each_case(self, function(plan, range, case, worker)
      if plan.kind ~= "fastest" or plan.n == 0 or failure then return end
      for _, point in ipairs(points(plan, range, options.m)) do measure(plan, point, case, worker) end
    end)
    if not ok or failure then return nil, failure or why, code or "QN_E_WRONG" end
    return out
  end
end
