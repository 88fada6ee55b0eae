-- steps.lua - the work of a trade-off (run.lua): checkpoints are written, kernels tuned, windows scored, passes timed.

return function(q, native)
  local steps = {}
  steps.__index = steps

  local tuned = { 1, 8, 64, 512 } -- numbers of tokens
  -- Tokens that stand in the cache when a step of decoding is timed, as far as its bytes go.
  local context, cache = 512, 256 << 20

  -- t: model (q.model), original (its q.decoder), scored (q.windows), reference, calibrate (q.windows or nil), tasks
  -- (list of q.task), folder, device, threads, store, tune_progress, tell(share of the step that is done). -> what
  -- run.lua calls
  function steps.new(t)
    local s = setmetatable(t, steps)
    local out = { windows = t.scored.n, tasks = t.tasks, clock = native.clock }
    s.opened, s.bytes_of = {}, {} -- by the name of a candidate
    for _, name in ipairs { "make", "evaluate", "tune", "time", "task" } do
      out[name] = function(...) return steps[name](s, ...) end
    end
    return out
  end

  -- Bytes that a token more takes in the cache of a sequence. Of many tokens, for the cache grows in steps.
  function steps.bytes_of_token(decoder)
    return (decoder:session_bytes(1, 2 * context) - decoder:session_bytes(1, context)) // context
  end

  -- ---- Checkpoints --------------------------------------------------------------------------------------------------

  -- Of different names the files differ: a name that a file cannot have as it is gets its hash, too.
  function steps:path(what, name)
    local mark = name:find "[^%w._+:~]" and "-" .. native.hash(name):sub(1, 8) or ""
    return ("%s/%s/%s%s"):format(self.folder, what, name:gsub("[^%w._+~]", "-"), mark)
  end

  -- Rounding to nearest is all that a copy in another float type needs.
  local methods = { copy = "rtn" }

  -- A candidate's checkpoint: one that was brought, else the folder that is made.
  function steps:place(c) return c.path or self:path("candidates", c.weights) end

  -- A checkpoint is written whole or not at all.
  function steps:write_checkpoint(c, folder)
    local multiplied = {} -- by the decoder: of layers that it leaves out, as those of several tokens, nothing is known
    for _, site in ipairs(self.original:sites()) do multiplied[site.name] = true end
    return self.model:write_quantized(folder, {
      format = c.formats and function(t) return c.formats[t.name] end or c.format,
      method = methods[c.method] or c.method, windows = c.wants_text and self.calibrate or nil, threads = self.threads,
      choose = function(t) return multiplied[t.name] and not t.tied_to or false end })
  end

  function steps:checkpoint(c)
    local place = self:place(c)
    if not c.path and not native.exists(place .. "/model.safetensors") then
      local ok, why, code = self:write_checkpoint(c, place)
      if not ok then return nil, why, code end
    end
    return q.model(place)
  end

  -- Bytes that the weights take when they are packed, and bits a weight of the linear layers.
  local function sizes(m)
    local bytes, packed, weights, covered = 0, 0, 0, {}
    for _, t in ipairs(m:tensors()) do
      if t.linear and t.format and not t.tied_to then
        local count = t.n * t.k * t.slices
        packed, weights, covered[t.name] = packed + t.bpw * count, weights + count, true
      end
    end
    for _, x in ipairs(m:stored()) do if not covered[x.weight] then bytes = bytes + x.bytes end end
    return { bytes = bytes + math.ceil(packed / 8), bpw = packed / weights }
  end

  function steps:make(c)
    local m, why, code = self:checkpoint(c)
    if not m then return nil, why, code end
    return sizes(m)
  end

  -- ---- Kernels ------------------------------------------------------------------------------------------------------

  -- The problem that a weight poses, or the stack that it is of: what is not quantized has the activations that its
  -- type has by itself.
  local function problem_of(m, t, act)
    local whole = m:whole_of(t)
    return m.shape_of(whole.format and whole or t) .. (t.quantized and ":" .. act or "")
  end

  function steps:tune(c, seconds)
    local m, why, code = self:checkpoint(c)
    if not m then return nil, why, code end
    local problems, seen = {}, {}
    for _, t in ipairs(m:tensors()) do
      local spelling = t.linear and t.format and problem_of(m, t, c.act)
      if spelling and not seen[spelling] then problems[#problems + 1], seen[spelling] = spelling, true end
    end
    local result
    result, why, code = q.tune { problems = problems, m = tuned, device = self.device.name, store = self.store,
      dense = false, budget = seconds < math.huge and seconds or nil, threads = self.threads, run = self.run,
      progress = self.tune_progress }
    if not result then return nil, why, code end
    local ok
    ok, why, code = q.pack(result, self:path("packs", c.kernels) .. ".qpack")
    if not ok then return nil, why, code end
    return result.counts.cut == 0 or seconds
  end

  -- ---- Decoders -----------------------------------------------------------------------------------------------------

  -- Close all decoders but that of a candidate.
  function steps:forget(but)
    for name, d in pairs(self.opened) do
      if name ~= but then
        d:close()
        self.opened[name] = nil
      end
    end
    collectgarbage() -- which does not see by itself what packed weights weigh
    self.original:forget() -- which also gives back to the system what is free
  end

  -- Bytes that a candidate takes while it is open: a tied head is there once more, for its kernel.
  local function open_bytes(c, original, m)
    local bytes = c.original and original.bytes or c.bytes
    for _, t in ipairs(m:tensors()) do
      if t.tied_to and not c.original then bytes = bytes + t.n * t.k * t.bpw // 8 end
    end
    return bytes
  end

  -- Decoders stay open while they take no more than the original in f32 and 3/4 GB, and while there is memory.
  function steps:make_room(c, bytes)
    local free, all = q.free_memory() or math.huge, bytes
    for name in pairs(self.opened) do all = all + self.bytes_of[name] end
    if all > self.original.bytes + (3 << 28) or free < 4 * bytes then self:forget() end
    self.bytes_of[c.name] = bytes
  end

  -- The decoder of a candidate for times, with its kernels; it stays open. The original as it is has none.
  function steps:timed(c)
    if self.opened[c.name] then return self.opened[c.name] end
    local m, why, code = self.model, nil, nil
    if not c.original then m, why, code = self:checkpoint(c) end
    if not m then return nil, why, code end
    self:make_room(c, open_bytes(c, self.original, m))
    local d, pack, served
    d, why, code = q.decoder(m, { threads = self.threads })
    if d and c.original then self.opened[c.name] = d end
    if not d or c.original then return d, why, code end
    pack, why, code = q.open(self:path("packs", c.kernels) .. ".qpack",
      { device = self.device.name, threads = self.threads })
    if pack then served, why, code = d:serve_pack(pack, c.act) end
    if not served then
      d:close()
      return nil, why, code
    end
    self.opened[c.name] = d
    return d
  end

  -- The decoder of a candidate beside the original, with or without its kernels.
  function steps:decoder(c, kernels)
    self:forget(c.name)
    if kernels then return self:timed(c) end
    local m, why, code = self:checkpoint(c)
    if not m then return nil, why, code end
    return q.decoder(m, { threads = self.threads, share = 2 })
  end

  function steps:evaluate(c, n, kernels)
    local d, why, code = self:decoder(c, kernels)
    if not d then return nil, why, code end
    local e
    e, why, code = q.evaluate { decoder = d, windows = self.scored, reference = self.reference, stop = n,
      threads = self.threads, log = self:path("scores", kernels and c.name or c.weights),
      progress = function(done, total) self.tell(done / total) end }
    if kernels then d:forget() else d:close() end
    if not e then return nil, why, code end
    return { windows = e.windows, broken = e.broken_tokens, kl = e.kl, delta = e.delta_nll, w_kl = e.w_kl,
      top1 = e.same_top and e.same_top.mean }
  end

  local function answers(self, d, name, i)
    return q.evaluate_task { decoder = d, task = self.tasks[i], threads = self.threads,
      log = self:path("scores", ("task %d %s"):format(i, name)), progress = function(a, b) self.tell(a / b) end }
  end

  function steps:task(c, i)
    local before, after
    local d, why, code = self:decoder(c, true)
    if d then after, why, code = answers(self, d, c.name, i) end
    if after then before, why, code = answers(self, self.original, "original", i) end
    if not before then return nil, why, code end
    for who, broken in pairs { ["the original"] = before.broken, ["the candidate"] = after.broken } do
      if broken > 0 then
        return nil, ("%s: at %d questions the logits of %s are no numbers"):format(self.tasks[i].path, broken, who)
      end
    end
    local x = q.compare_items(before.items, after.items)
    x.name, x.accuracy = self.tasks[i].path:match "[^/]*$", after.acc and after.acc.mean
    return x
  end

  -- As time, with the seconds of each site.
  function steps:pass(c, kind, m)
    self.original:forget() -- which is only evaluated
    local d, why, code = self:timed(c)
    if not d then return nil, why, code end
    local t
    if kind == "prefill" then
      t, why, code = d:time(1, 0, m)
    else
      t, why, code = d:time(m, math.min(context, cache // (m * math.max(1, steps.bytes_of_token(d)))), 1)
    end
    if not c.original then d:forget() end -- room for a pass is made again in its first one, which is not timed
    return t, why, code
  end

  function steps:time(c, kind, m)
    local t, why, code = self:pass(c, kind, m)
    return t and { seconds = t.seconds, linear = t.linear }, why, code
  end

  return steps
end
