-- tuning.lua - from problems to measured plans: the candidates are made here, the measuring is C (tuner/).

return function(q, native)
  local common = q.import "lua.common"
  local efforts = { quick = 0, normal = 1, full = 2 }

  -- The variants of a space; a family whose quick choice of values leaves nothing on this machine comes in full.
  local function space_of(p, device, options)
    local list, report = q.variants(p, device, options)
    for _, r in ipairs(options.space == "quick" and report or {}) do
      if r.survivors == 0 then
        local more = q.variants(p, device, { space = "full", family = r.family, fixed = options.fixed })
        table.move(more, 1, #more, #list + 1, list)
      end
    end
    return list
  end

  -- Variants as the tuner takes them, and which of them is the plain one that serves shapes nobody tuned: the one of
  -- least cost that takes every M.
  local function candidates(p, device, options, only)
    local out, generic = {}, 0
    for _, v in ipairs(space_of(p, device, options)) do
      if not only or only(v.name) then
        local i = #out + 1
        out[i] = { name = v.name, hash = v.hash, family = v.family, source = q.source(v, true), flags = v.flags,
          arch = v.arch, params = q.json(v.params), layout = v.layout, recipe = v.recipe, m_min = v.m_min,
          m_max = v.m_max, m_tile = v.m_tile, cost = v.cost }
        if v.m_min == 1 and v.m_max == 0 and (generic == 0 or v.cost < out[generic].cost) then generic = i end
      end
    end
    return out, generic
  end

  -- The M that variants serve, as a person says it.
  local function serves(list)
    local least, most = math.huge, 0
    for _, c in ipairs(list) do
      least, most = math.min(least, c.m_min), c.m_max == 0 and math.huge or math.max(most, c.m_max)
    end
    return most == math.huge and ("M from %d on"):format(least) or ("M from %d to %d"):format(least, most)
  end

  -- Where what was asked for does not serve every M, the plain kernel of all families joins: its number.
  local function add_plain(list, p, device, progress)
    local plain, at = candidates(p, device, { space = "quick" })
    if at == 0 then return 0 end
    local text, shared = "what was asked for serves %s; for every other there is %s", false
    for _, c in ipairs(list) do shared = shared or c.layout.name == plain[at].layout.name end
    if not shared then
      text = "what was asked for serves %s, in a layout of its own; a plan has one layout for every M: that of %s"
    end
    if progress then
      progress { phase = "note", problem = p.spelling, done = 0, total = 0,
        text = text:format(serves(list), plain[at].name) }
    end
    list[#list + 1] = plain[at]
    return #list
  end

  -- The user's functions as further candidates, each with every layout of the variants that it takes. A change of the
  -- library makes another candidate of it.
  local function add_functions(list, p, functions)
    local name = "function/%s/%s-%s%s/%s"
    for _, f in ipairs(functions) do
      local seen = {}
      for i = 1, #list do
        local layout = list[i].layout
        if layout and not seen[layout.name] and layout.name:find(f.layout or "") then
          seen[layout.name] = true
          local bytes = native.type_bits(p.x) // 8
          local gather = { entry = "gather_x" .. bytes, args = {}, grid = { { "M" } },
            gathers = { "M", "K", "*", bytes, "*" } }
          local recipe = { steps = { gather, { entry = f.name, args = {}, grid = { f.whole and { 1 } or { "N" } } } },
            counters = {}, scratch = f.scratch or {}, deterministic = f.deterministic ~= false,
            batch_invariant = f.batch_invariant == true }
          list[#list + 1] = { name = name:format(p.format.name, p.activations, p.out, p.epilogue, f.name),
            hash = native.hash(table.concat({ f.name, f.symbol, f.text, q.json(recipe), q.json(layout) }, "\0")),
            family = "function", source = "", flags = "", arch = "", params = q.json { LAYOUT = layout.name },
            library = f.library, symbol = f.symbol, layout = layout, recipe = recipe, m_min = f.m_min or 1,
            m_max = f.m_max or 0, m_tile = 0, cost = 0 }
        end
      end
    end
  end

  local function_fields = { name = "string", library = "string", symbol = "string", m_min = "count?",
    m_max = "integer?", layout = "string?", whole = "boolean?", scratch = "list?", deterministic = "boolean?",
    batch_invariant = "boolean?" }
  local tune_fields = { problems = "list?", model = "string|table?", acts = "list?", device = "string?", m = "list?",
    effort = "string?", budget = "number?", store = "string?", space = "string?", family = "string?", fixed = "table?",
    only = "function?", functions = "list?", dense = "boolean?", retime = "boolean?", run = "string?",
    check_only = "boolean?", experts = "string|table?", threads = "count?", worker = "string?", progress = "function?",
    partial = "boolean?", fused = "boolean?" }

  -- Numbers of tokens, sorted, each once.
  local function tokens(list)
    if #list == 0 then q.check.fail(nil, "tune: m: the list is empty") end
    for i, m in ipairs(list) do
      q.check.that(math.type(m) == "integer" and m >= 1 and m <= 1 << 20, nil,
        "tune: m[%d] must be a whole number from 1 to 1048576, not %s", i, q.check.described(m))
    end
    return common.sorted(list)
  end

  -- Raise for arguments of tune that are not right; returns the M and the problems that are given.
  local function check_tune(t)
    q.check.fields(t, tune_fields, "tune")
    q.check.among(t.effort or "quick", { "quick", "normal", "full" }, "tune: effort")
    q.check.that((t.budget or 0) >= 0, nil, "tune: budget = %s: seconds from 0 on", t.budget)
    for i, p in ipairs(t.problems or {}) do q.check.kind(p, "string", ("tune: problems[%d]"):format(i)) end
    for i, act in ipairs(t.acts or {}) do
      q.problem("f32:1x1:" .. q.check.kind(act, "string", ("tune: acts[%d]"):format(i)))
    end
    q.check.that(not t.acts or t.acts[1] and t.model, nil,
      "tune: acts: one or more types, for the layers of a model; problems name their own")
    q.check.that(t.model or t.problems and #t.problems > 0, nil, "tune: a model or a list of problems is needed")
    return t.m and tokens(t.m) or {}, { table.unpack(t.problems or {}) }
  end

  -- The functions of a call to tune, with the libraries' contents; nil, message, code if one cannot be read.
  local function read_functions(functions, device)
    local out = {}
    for i, f in ipairs(functions or {}) do
      local what = q.check.fields(f, function_fields, ("tune: functions[%d]"):format(i))
      local m_min, m_max = f.m_min or 1, f.m_max or 0
      q.check.that(m_max == 0 or m_max >= m_min, nil, "%s: m_min = %d, m_max = %d: it serves no M", what, m_min, m_max)
      local pattern, fault = pcall(string.find, "", f.layout or "")
      q.check.that(pattern, nil, "%s: layout: %s", what, fault)
      if device.target ~= "host" then
        return nil, ("%s: functions are called on the host, not on %s"):format(f.name, device.name), "QN_E_DEVICE"
      end
      local file, why = io.open(f.library, "rb")
      if not file then return nil, ("%s: %s"):format(f.name, why), "QN_E_IO" end
      out[i] = setmetatable({ text = native.hash(file:read "a") }, { __index = f })
      file:close()
    end
    return out
  end

  -- How rows are spread over the experts of these problems, as it was asked for; false: evenly. nil, message, code.
  local function spread_over(asked, problems)
    if not asked then return false end
    local experts, why, code = q.experts(asked)
    local ok = experts
    if experts then ok, why, code = experts:fit(problems) end
    if not ok then return nil, why, code end
    return experts
  end

  local function none_left(p, device, family)
    local text = "%s: no kernel of %s takes it on %s; quernel kernels --problem says why"
    return nil, text:format(p.spelling, family or "any family", device.name), "QN_E_NO_KERNEL"
  end

  -- What tuning a problem takes, in codes of a weight: its own, and what compiling is worth, whatever the shape.
  local compiling = 1 << 22
  local function work(p) return (p.experts or 1) * p.n * p.k + compiling end

  -- Shard number i of n of a list of problems of a target: each is in one of them, and they are about as much work. It
  -- depends on the problems alone, not on their order, nor on the machine. Spellings in the order of the list; maybe
  -- none.
  function q.shard(problems, i, n, target)
    local sorted, load, mine, out = {}, {}, {}, {}
    for j, spelling in ipairs(problems) do sorted[j] = q.problem(spelling, target) end
    table.sort(sorted, function(a, b)
      if work(a) ~= work(b) then return work(a) > work(b) end
      return a.spelling < b.spelling
    end)
    for j = 1, n do load[j] = 0 end
    for _, p in ipairs(sorted) do -- the largest first, each to who has least
      local least = 1
      for j = 2, n do if load[j] < load[least] then least = j end end
      load[least] = load[least] + work(p)
      mine[p.spelling] = least == i
    end
    for _, spelling in ipairs(problems) do
      if mine[q.problem(spelling, target).spelling] then out[#out + 1] = spelling end
    end
    return out
  end

  -- The dense product of a shape "NxK", that quantized ones are held against.
  function q.dense_problem(shape, target)
    local type = q.gen.target.get(target).dense
    return ("%s:%s:%s-%s"):format(type, shape, type, type)
  end

  -- The dense product of every shape, once: the baseline. It has one weight, so there is none of a stack.
  local function add_dense(job, problems, device)
    local seen = {}
    for _, p in ipairs(problems) do
      local spelling = q.dense_problem(("%dx%d"):format(p.n, p.k), device.target)
      if not seen[spelling] and not p.experts then
        seen[spelling] = true
        local d = q.problem(spelling, device.target)
        local list = candidates(d, device, { space = "quick" })
        if #list > 0 then
          job[#job + 1] = { problem = d.spelling, format = q.gen.format.descriptor(d.format), candidates = list,
            baseline = true }
        end
      end
    end
  end

  -- tune {
  --   problems = { "int4.g128:4096x4096:bf16-f32"… }   spellings
  --   model =                                          or a checkpoint's layers: path or q.model
  --   acts = { "bf16", "i8" }                          activation types of the model's layers
  --   partial = true                                   leave out layers that cannot be served: else they are an error
  --   fused = true                                     also what layers that read the same X are as one
  --   device = "host", m = { 1, 16, 64 }, effort = "quick" | "normal" | "full", budget = seconds, store = directory,
  --   space =, family =, fixed =, only = function(name)  which variants; as for q.variants
  --   functions = { { name =, library =, symbol =,     a qn_function (quernel.h) in a shared library, by its path:
  --     m_min =, m_max =,                              M that it serves
  --     layout = "record",                             Lua pattern of the layouts that it takes (default: any)
  --     whole = true,                                  called once for all of Y, not for parts of its columns
  --     scratch = { "M", "N", "*", 4, "*" },           bytes, in postfix order
  --     deterministic = false, batch_invariant = true  what is promised, and checked }… }
  --   dense = false                                    do not measure the dense product
  --   experts = path or list                           how rows are spread over the experts of stacks (q.experts)
  --   retime = true                                    take every time again, whatever the store knows
  --   run = "of now"                                   take no time again that a call with the same run took
  --   check_only = true                                verify, time nothing: no plans but the plain kernels
  --   threads =, worker =, progress = function(event)
  -- }
  -- -> { plans = { { problem, kind, n, k, bytes, layout, ranges = { { m_min, variant, error, points = { { m, seconds,
  --      spread, disturbed, raced, dense_seconds, dense_disturbed, bandwidth }… } }… } }… },
  --      counts, bandwidth, device, product, threads, left_out }, or nil, message, code.
  function q.tune(t)
    local m, spellings = check_tune(t)
    local device, why, code = q.device(t.device)
    if not device then return nil, why, code end
    if not device.timed and not t.check_only then
      return nil, device.name .. " must not be timed, and choosing is timing; verify works there", "QN_E_DEVICE"
    end
    local effort, left_out = efforts[t.effort or "quick"], {}
    if t.model then
      local list
      list, left_out, code = q.layer_problems(t.model, t.acts, t.partial, device, t.fused)
      if not list then return nil, left_out, code end
      table.move(list, 1, #list, #spellings + 1, spellings)
    end
    local functions
    functions, why, code = read_functions(t.functions, device)
    if not functions then return nil, why, code end
    local problems, job = {}, {}
    for i, spelling in ipairs(spellings) do problems[i] = q.problem(spelling, device.target) end
    local experts
    experts, why, code = spread_over(t.experts, problems)
    if experts == nil then return nil, why, code end
    if t.dense ~= false and not t.check_only then add_dense(job, problems, device) end
    local space = { space = t.space or (effort == 0 and "quick" or "full"), family = t.family, fixed = t.fixed }
    for _, p in ipairs(problems) do
      local list, generic = candidates(p, device, space, t.only)
      if #list == 0 then return none_left(p, device, t.family) end
      if generic == 0 and not t.check_only then generic = add_plain(list, p, device, t.progress) end
      add_functions(list, p, functions)
      job[#job + 1] = { problem = p.spelling, format = q.gen.format.descriptor(p.format), candidates = list,
        generic = generic, baseline = false, share = experts and experts:share(p) or nil,
        share_name = experts and experts:share(p) and experts.name or nil }
    end
    local options = { device = device.name, effort = effort, budget = t.budget or 0, m = m, store = t.store,
      threads = t.threads or 0, check_only = t.check_only or false, retime = t.retime or false,
      run = t.run, worker = t.worker or q.worker() }
    local result
    result, why, code = native.tune(q.json { problems = job, options = options }, t.progress)
    if result then result.left_out, result.experts = left_out, experts and experts.name or nil end
    return result, why, code
  end

  -- Spellings of the problems that a checkpoint's layers pose, one for each activation type, and the layers left out,
  -- which only `partial` allows. Activations of 8 bits are for weights that are quantized; what is dense beside them
  -- has its own. Where a device is given and none of its kernels takes a stack, one of its experts poses the problem.
  -- `fused` adds the problems of layers that read the same X, as one weight. The weights are checked: nil, message,
  -- code for one that is not fit for use.
  function q.layer_problems(m, acts, partial, device, fused)
    local why, code
    if type(m) == "string" then
      m, why, code = q.model(m)
      if not m then return nil, why, code end
    end
    local groups, left_out = m:groups(partial)
    if not groups then return nil, left_out, code end
    local out, seen, any = {}, {}, false
    for _, g in ipairs(groups) do
      local ok
      ok, why, code = m:check(g)
      if not ok then return nil, why, code end
      any = any or g.quantized
    end
    if fused then table.move(m:fused(), 1, #m.list, #groups + 1, groups) end
    for _, g in ipairs(groups) do
      for _, act in ipairs(acts or { false }) do
        local own = not act or any and not g.quantized and q.gen.types.scaled(q.problem("f32:1x1:" .. act).act)
        local types = own and "" or ":" .. act
        local spelling = g.shape .. types
        local p = g.experts and device and q.problem(spelling, device.target)
        if p and #q.variants(p, device, { space = "quick" }) == 0 then
          spelling = m.shape_of { format = g.format, n = g.n, k = g.k } .. types
        end
        if not seen[spelling] then out[#out + 1] = spelling end
        seen[spelling] = true
      end
    end
    if #out == 0 then
      local first = left_out[1]
      local hint = first and (", e.g. %s: %s"):format(first.name, first.why) or "; --include takes other matrices"
      return nil, ("%s: no linear layer that can be served%s"):format(m.path, hint), "QN_E_NO_KERNEL"
    end
    return out, left_out
  end

  -- Write what was tuned, one result or several (machines), into one file. -> true, or nil, message, code.
  function q.pack(results, path)
    q.check.kind(results, "table", "pack: the results of tune")
    q.check.kind(path, "string", "pack: the path")
    local handles, plans = {}, 0
    for i, r in ipairs(results.handle and { results } or results) do
      q.check.that(type(r) == "table" and r.handle, nil, "pack: result %d is none of tune's", i)
      handles[i], plans = r.handle, plans + #r.plans
    end
    if plans == 0 then return nil, path .. ": nothing to pack, no problem has a kernel", "QN_E_ARG" end
    return native.pack_write(handles, path)
  end

  -- Problems that between them reach every section of the templates of a target, for compiling a whole space.
  local examples = {
    host = { "int4.g128:4096x4096:bf16-f32", "int4.g64.z:4096x4096:i8-bf16+bias", "int8.row:4096x4096:f32-f16",
      "nf4.g64.f32:4096x4096:bf16-f32", "f32:4096x4096:f32-f32" },
    cuda = { "int4.g128:4096x4096:f16-f16", "int4.g64.z:4096x4096:bf16-bf16+bias", "int8.g128:4096x4096:i8-f32",
      "nf4.g64:4096x4096:f16-f16", "q4_k:4096x4096:e4m3-bf16", "int4.g1.zf:4096x4096:f16-f16",
      "f16:4096x4096:f16-f16" },
  }
  function q.example_problems(target) return examples[target] end
end
