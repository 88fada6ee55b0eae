-- models.lua - checkpoints: the weights of a model, their planes, the problems that its layers pose.

return function(q, native)
  local beside = q.import "lua.folder"(q, native)
  local model = {}
  model.__index = model

  -- Open a checkpoint: a directory, a .safetensors or a .gguf file.
  function q.model(path)
    local handle, why, code = native.model(path)
    if not handle then return nil, why, code end
    local m = setmetatable({ path = path, handle = handle, list = handle:tensors(), by_name = {}, stack_of = {} },
      model)
    for _, t in ipairs(m.list) do m.by_name[t.name] = t end
    for _, s in ipairs(m:stacks()) do
      for _, name in ipairs(s.tensors) do m.stack_of[name] = s end
    end
    return m
  end

  -- planes(format, n, k, { { name = "codes", data = buffer, rows =, cols = }… }): a weight of the script's own.
  q.planes = native.planes

  -- List of { name, dialect, format, n, k, slices, bytes, bpw, quantized, linear, role, refusal… }.
  function model:tensors() return self.list end
  -- Experts that are one weight: list of { name, format or refusal, experts, n, k, tensors = { name of each, or of the
  -- one that has them as slices } }.
  function model:stacks()
    self.stack_list = self.stack_list or self.handle:stacks()
    return self.stack_list
  end
  function model:stored() return self.handle:stored() end
  function model:config() return self.handle:config() end
  -- What should be told of it as a whole, or nil: an index that lists tensors which no file holds.
  function model:remark() return self.handle:remark() end
  -- Name of its architecture; or nil and why it cannot be evaluated.
  function model:architecture() return self.handle:architecture() end

  -- Take matrices for linear layers that are none by their name: vision towers, routers… choose(t) says which.
  function model:include(choose)
    for _, t in ipairs(self.list) do t.linear = t.linear or t.format ~= nil and choose(t) end
  end

  local function matrix(self, name, slice)
    local t = self.by_name[name]
    if not t then return nil, ("%s: no weight %q; quernel inspect lists them"):format(self.path, name), "QN_E_ARG" end
    if not t.format then return nil, ("%s: %s"):format(name, t.refusal or "it is no matrix"), "QN_E_SHAPE" end
    if slice and (slice < 1 or slice > t.slices) then
      return nil, ("%s: slice %d of %d"):format(name, slice, t.slices), "QN_E_ARG"
    end
    return t
  end

  -- Planes of a weight; `slice` counts the matrices of a stack from 1.
  function model:planes(name, slice)
    local t, why, code = matrix(self, name, slice)
    if not t then return nil, why, code end
    return self.handle:planes(name, slice)
  end

  -- The weight as numbers: buffer f32 [N, K], act-order undone, and its tensor.
  function model:dequantize(name, slice)
    local t, why, code = matrix(self, name, slice)
    if not t then return nil, why, code end
    local descriptor = q.descriptor(t.format)
    local x
    local planes <close>, fault, status = self.handle:planes(name, slice)
    if not planes then return nil, fault, status end
    x, why, code = planes:dequantize(descriptor)
    if not x then return nil, ("%s: %s"):format(name, why), code end
    return x, t
  end

  -- What leaves a part of a model must be asked for: nil, and the list of what is left out, unless it is empty.
  local function whole(self, left_out, partial)
    if partial or #left_out == 0 then return true end
    local out = { ("%s: %d of %d weights must be left out; to go on without them ask for a part (--partial)"):format(
      self.path, #left_out, #self.list) }
    local more, causes = {}, {}
    for _, x in ipairs(left_out) do
      if not more[x.why] then causes[#causes + 1] = x end
      more[x.why] = (more[x.why] or -1) + 1
    end
    for i = 1, math.min(20, #causes) do
      local x, n = causes[i], more[causes[i].why]
      out[#out + 1] = ("left out: %s%s: %s"):format(x.name, n > 0 and (" and %d more"):format(n) or "", x.why)
    end
    if #causes > 20 then
      out[#out + 1] = ("left out for %d other causes; quernel inspect lists all"):format(#causes - 20)
    end
    return nil, table.concat(out, "\n"), "QN_E_SHAPE"
  end

  -- What is multiplied at once as a problem without types: "int4.g128:256x768", of a stack "int4.g128:8x256x768".
  function model.shape_of(x)
    return ("%s:%s%dx%d"):format(x.format, x.experts and x.experts .. "x" or "", x.n, x.k)
  end

  -- The stack that a weight is of, else the weight.
  function model:whole_of(t) return self.stack_of[t.name] or t end

  -- The linear layers, those of a stack as one, grouped by their problem: list of { shape, format, experts or nil, n,
  -- k, quantized, layers = { name… } }, and those that cannot be served: { { name, why }… }. Without `partial` there
  -- must be none of these: else nil, message, code.
  function model:groups(partial)
    local groups, index, left_out, refused = {}, {}, {}, {}
    for _, t in ipairs(self.list) do
      local x = self:whole_of(t)
      local ok, why = x.format, x.refusal or "it is no matrix"
      if t.linear and ok then ok, why = pcall(q.resolve, x.format) end
      if t.linear and ok then
        local shape = model.shape_of(x)
        if not index[shape] then
          index[shape] = { shape = shape, format = x.format, experts = x.experts, n = x.n, k = x.k,
            quantized = t.quantized, layers = {} }
          groups[#groups + 1] = index[shape]
        end
        table.insert(index[shape].layers, t.name)
      elseif t.linear and not refused[x] then
        refused[x], left_out[#left_out + 1] = true, { name = x.name, why = why }
      end
    end
    local ok, why, code = whole(self, left_out, partial)
    if not ok then return nil, why, code end
    return groups, left_out
  end

  -- Layers that read the same X as one weight, which has the rows of all: list of { shape, format, n, k, quantized,
  -- layers }. Those of a stack are served as it is.
  function model:fused()
    local by_first, list = {}, {}
    for _, t in ipairs(self.list) do
      local first = not self.stack_of[t.name] and t.same_x
      if first and not by_first[first] and pcall(q.resolve, t.format) then
        by_first[first] = { format = t.format, n = 0, k = t.k, quantized = t.quantized, layers = {} }
        list[#list + 1] = by_first[first]
      end
      local g = first and by_first[first]
      if g then g.n, g.layers[#g.layers + 1] = g.n + t.n, t.name end
    end
    for _, g in ipairs(list) do g.shape = model.shape_of(g) end
    return list
  end

  -- Are the planes of a group's layers fit for use: no NaN among the scales, no code beyond its bits?
  function model:check(group)
    local descriptor = q.descriptor(group.format)
    for _, name in ipairs(group.layers) do
      for slice = 1, self.by_name[name].slices do
        local planes <close>, why, code = self.handle:planes(name, slice)
        local ok = planes
        if planes then ok, why, code = planes:check(descriptor) end
        if not ok then return nil, ("%s: %s"):format(name, why), code end
      end
    end
    return true
  end

  -- nil, message, code for an output that would take the place of a file of the model.
  local function spared(self, path)
    if not self.handle:holds(path) then return true end
    return nil, ("%s is a file of the model that is read; name another"):format(path), "QN_E_ARG"
  end

  -- Write a weight as a NumPy file of float32 [N, K].
  function model:write_npy(name, path, slice)
    local ok, why, fault = spared(self, path)
    if not ok then return nil, why, fault end
    local x, t, code = self:dequantize(name, slice)
    if not x then return nil, t, code end
    return native.npy_write(path, x, t.n, t.k)
  end

  -- ---- Neutral planes -----------------------------------------------------------------------------------------------

  -- Bits that an element of a plane needs: those of its largest number and of a sign, else of its type.
  local function bits_of(plane)
    local bits = 0
    while (plane.max or 0) >> bits > 0 do bits = bits + 1 end
    return bits > 0 and bits + (plane.type == "i8" and 1 or 0) or native.type_bits(plane.type)
  end

  local function extent(size, share) return share == 0 and 1 or -(-size // share) end

  -- The planes of a weight of N x K in a resolved format: list of { name, type, bits, rows, cols }.
  local function planes_of(descriptor, n, k)
    local list = { { name = "codes", type = descriptor.codes, bits = descriptor.bits, rows = n, cols = k } }
    for _, p in ipairs(descriptor.planes) do
      list[#list + 1] = { name = p.name, type = p.type, bits = bits_of(p), rows = extent(n, p.rows),
        cols = extent(k, p.cols) }
    end
    return list
  end

  -- The same of planes that were read. The bits are the format's; of one that is not known, the types'.
  local function planes_read(planes)
    local info, bits = planes:info(), {}
    local known, f = pcall(q.resolve, info.format)
    for _, p in ipairs(known and planes_of(q.gen.format.descriptor(f), info.n, info.k) or {}) do
      bits[p.name] = p.bits
    end
    for _, p in ipairs(info.planes) do p.bits = bits[p.name] or native.type_bits(p.type) end
    if info.perm then table.insert(info.planes, { name = "perm", type = "i32", bits = 32, cols = info.k }) end
    return info.planes
  end

  -- Bits that a weight of N x K takes in a format, with its scales and zeros.
  function q.weight_bits(format, n, k)
    local bits = 0
    for _, p in ipairs(planes_of(q.gen.format.descriptor(q.resolve(format)), n, k)) do
      bits = bits + p.bits * p.rows * p.cols
    end
    return bits
  end

  -- How a weight is written: the planes, and a function of the slice that makes them. A format without planes beside
  -- its codes, which are floats, is a plain tensor.
  local function as_planes(format, planes, make) return { format = format, planes = planes, make = make } end

  -- A weight as it is: planes of what is quantized; a dense layer [N, K], for only its architecture tells whether it is
  -- stored so. Nil: it is copied.
  local function as_read(self, t)
    if t.tied_to or not (t.quantized or t.linear) then return nil end
    local function make(slice) return self.handle:planes(t.name, slice) end
    local planes, why = make(1)
    if not planes then error(("%s: %s"):format(t.name, why), 0) end
    local plan = as_planes(t.format, planes_read(planes), make)
    plan.float = not t.quantized and t.format or nil
    plan.activation = t.activation
    return plan
  end

  -- Entries of the file for a weight, and the text that its header has for it.
  local function entries_of(t, plan)
    local base, words, out = t.name:gsub("%.weight$", ""), { plan.format }, {}
    for i, p in ipairs(plan.planes) do
      local dims = { p.rows, p.cols }
      if not p.rows then dims = { p.cols } end
      if t.slices > 1 then table.insert(dims, 1, t.slices) end
      out[i] = { name = base .. "." .. p.name, plane = p.name, type = p.type, dims = dims }
      words[i + 1] = ("%s:%d"):format(p.name, p.bits)
    end
    if plan.activation then words[#words + 1] = "@" .. plan.activation end
    if plan.float then out[1].name, out[1].type = t.name, plan.float end
    return out, table.concat(words, " ")
  end

  -- What a file of the model's weights holds, where plan(t) says how each is written, or nothing if it stays as it is
  -- stored: the entries, the header's texts, and the weights to be made. Blocks of GGUF stay as bytes.
  local function contents(self, plan)
    local file, meta, jobs, made, kept = {}, { "quernel.planes", "1" }, {}, {}, {}
    for _, t in ipairs(self.list) do
      local p = not t.refusal and plan(t)
      if p then
        local entries, text = entries_of(t, p)
        jobs[#jobs + 1] = { tensor = t, make = p.make, entries = entries }
        table.move(entries, 1, #entries, #file + 1, file)
        table.move({ t.name, text }, 1, 2, #meta + 1, meta)
        made[t.name] = true
        if p.activation and t.activation_tensor then kept[t.activation_tensor] = true end
      elseif t.tied_to then
        table.move({ "quernel.tied", t.name }, 1, 2, #meta + 1, meta)
      end
    end
    for _, s in ipairs(self:stored()) do
      if not made[s.weight] or kept[s.name] then
        file[#file + 1] = { name = s.name, dtype = s.blocks and "U8" or s.dtype,
          dims = s.blocks and { s.bytes } or s.dims, stored = true }
      end
    end
    return file, meta, jobs
  end

  -- What returned nil, message, code is raised through functions that do not hand it on; attempt returns it again.
  local function must(ok, why, code) return ok or error({ why = why, code = code }, 0) end
  local function attempt(fn, ...)
    local ok, value = pcall(fn, ...)
    if ok then return value or true end
    if type(value) == "table" then return nil, value.why, value.code end
    return nil, value, "QN_E_ARG"
  end

  local function write_slice(writer, job, slice)
    local planes = must(job.make(slice))
    for _, e in ipairs(job.entries) do must(writer:put(e.name, planes, e.plane)) end
  end

  -- A weight's planes are made when they are written, and forgotten.
  local function write_job(writer, job)
    for slice = 1, job.tensor.slices do
      write_slice(writer, job, slice)
      collectgarbage() -- which does not see by itself what planes weigh
    end
  end

  -- What cannot be read, { { name, why }… }. Without `partial` there must be none of it: else nil, message, code.
  function model:unreadable(partial)
    local left_out = {}
    for _, t in ipairs(self.list) do
      if t.refusal then left_out[#left_out + 1] = { name = t.name, why = t.refusal } end
    end
    local ok, why, code = whole(self, left_out, partial)
    if not ok then return nil, why, code end
    return left_out
  end

  -- made(stored name) -> a buffer that is written instead of what is stored, or nil.
  local function write(self, path, plan, options, made)
    local progress = options.progress
    local ok, why, code = spared(self, path)
    local left_out = ok
    if ok then left_out, why, code = self:unreadable(options.partial) end
    if not left_out then return nil, why, code end
    ok, why, code = attempt(function()
      local file, meta, jobs = contents(self, plan)
      local writer <close> = must(native.writer(path, file, meta))
      for _, e in ipairs(file) do
        local other = e.stored and made and made(e.name)
        if other then must(writer:put(e.name, other))
        elseif e.stored then must(writer:put(e.name, self.handle, e.name)) end
      end
      for i, job in ipairs(jobs) do
        if progress then progress { phase = "write", variant = job.tensor.name, done = i - 1, total = #jobs } end
        write_job(writer, job)
      end
      must(writer:close())
    end)
    if progress then progress { phase = "done" } end
    if not ok then return nil, why, code end
    return left_out
  end

  -- Where weights go: fill(FILE) writes them. PATH.safetensors holds them alone; any other path is a folder, a whole
  -- checkpoint (lua/folder.lua). Returns what fill does, which is nil, message, code if something fails.
  local function deliver(self, path, options, fill)
    if path:lower():find "%.safetensors$" then return fill(path) end
    local ok, into = pcall(beside.open, self, path, options)
    if not ok then return nil, into, "QN_E_IO" end
    local folder <close> = into
    local out, why = table.pack(fill(folder:path() .. "/model.safetensors")), nil
    if out[1] then ok, why = pcall(folder.finish, folder) end
    if not ok then return nil, why, "QN_E_IO" end
    return table.unpack(out, 1, out.n)
  end

  -- Write the model as neutral planes: each quantized weight NAME.weight becomes NAME.codes, NAME.scale…; a dense layer
  -- is written as [N, K]; all else is copied as it is stored. path: FILE.safetensors, or a folder, in which
  -- config.json, tokenizer and the like lie beside the weights. options: progress; partial, which copies also what
  -- cannot be read; for a folder config, another one that has config.json and the tokenizer, and overwrite. Returns a
  -- list of what cannot be read, { { name, why }… }, or nil, message, code.
  function model:write_planes(path, options)
    options = options or {}
    q.check.fields(options, { progress = "function?", partial = "boolean?", config = "string?",
      overwrite = "boolean?" }, "options of write_planes")
    return deliver(self, path, options, function(file)
      return write(self, file, function(t) return as_read(self, t) end, options)
    end)
  end

  -- A file with the planes of one matrix, which q.model reads again. True, or nil, message, code.
  function q.save_planes(path, name, planes)
    local entries, text = entries_of({ name = name, slices = 1 },
      { format = planes:info().format, planes = planes_read(planes) })
    local writer <close>, why, code = native.writer(path, entries, { "quernel.planes", "1", name, text })
    if not writer then return nil, why, code end
    for _, e in ipairs(entries) do
      local ok
      ok, why, code = writer:put(e.name, planes, e.plane)
      if not ok then return nil, why, code end
    end
    return writer:close()
  end

  -- The weight in another format: planes, and what that costs, { error2, weight2, largest }: see
  -- eval/quantize/loss.h.
  function model:quantize(name, format, options, slice)
    local x, t, code = self:dequantize(name, slice)
    if not x then return nil, t, code end
    local planes, e
    planes, e, code = native.quantize(x, t.n, t.k, q.descriptor(format),
      { method = options.method, scales = options.scales, threads = options.threads })
    if not planes then return nil, ("%s: %s"):format(name, e), code end
    return planes, e
  end

  -- Sums and the largest of a weight's matrices. The output's are of those that calibration saw.
  local function add_error(row, e)
    for _, name in ipairs { "error2", "weight2", "output2", "output_error2", "nearest_error2" } do
      row[name] = row[name] + e[name]
    end
    row.largest = math.max(row.largest, e.largest)
    if e.tokens then row.tokens = math.min(row.tokens or e.tokens, e.tokens) end
    if e.method == "rtn" then row.rtn = e.why or "calibration was not enough" end
  end

  local function asked_format(options, t)
    local asked = options.format
    return q.gen.format.descriptor(q.resolve(type(asked) == "function" and asked(t) or asked))
  end

  -- The file of write_quantized; run: of a calibration, or nil.
  local function write_as(self, file, run, options)
    local report = {}
    local left_out, why, code = true, nil, nil
    if run then left_out, why, code = run:work() end
    if not left_out then return nil, why, code end
    local function requantized(t)
      local f = asked_format(options, t)
      local planes = planes_of(f, t.n, t.k)
      local row = { name = t.name, format = f.name, n = t.n, k = t.k, slices = t.slices,
        bpw = q.weight_bits(f.name, t.n, t.k) / (t.n * t.k), error2 = 0, weight2 = 0, largest = 0,
        output2 = 0, output_error2 = 0, nearest_error2 = 0 }
      report[#report + 1] = row
      local plan = as_planes(f.name, planes, function(slice)
        local made, e, wrong
        if run then made, e, wrong = run:planes(t, slice)
        else made, e, wrong = self:quantize(t.name, f.name, options, slice) end
        if not made then return nil, e, wrong end
        add_error(row, e)
        return made
      end)
      plan.float = #planes == 1 and f.float ~= "none" and f.float or nil
      return plan
    end
    left_out, why, code = write(self, file, function(t)
      if t.linear and options.choose(t) then return requantized(t) end
      return as_read(self, t)
    end, options, function(name) return run and run.norms and run.norms[name] end)
    if not left_out then return nil, why, code end
    if run then run:written() end
    return report, left_out
  end

  -- The run of a calibration, or nil if the method needs none. `path` names what is kept of it until it ends.
  local function calibrated(self, path, options)
    return native.method_sees(options.method or "rtn") and q.calibrate { model = self, path = path,
      windows = options.windows, method = options.method, scales = options.scales, choose = options.choose,
      format = function(t) return asked_format(options, t).name end, threads = options.threads,
      allow_rtn = options.allow_rtn, progress = options.progress }
  end

  -- Write the model with its linear layers in another format, to a file or a folder (write_planes). options: format,
  -- or a function of the tensor that gives it; method, scales; choose(t), which of them (the head of a tied model among
  -- them: its embedding stays); progress; partial, config, overwrite; for methods that need calibration windows
  -- (q.windows), and allow_rtn, where these are not enough. Returns a list of { name, format, n, k, slices, bpw,
  -- error2, weight2, largest, output2, output_error2, nearest_error2 and tokens if it was calibrated, rtn: why it was
  -- rounded to nearest nevertheless }, what was left out, and with awq { inputs, kept }, which were scaled or not
  -- (lua/scaling.lua); or nil, message, code.
  function model:write_quantized(path, options)
    q.check.fields(options, { format = "string|function", method = "string?", scales = "string?", choose = "function",
      progress = "function?", partial = "boolean?", threads = "count?", windows = "table?", allow_rtn = "boolean?",
      config = "string?", overwrite = "boolean?" }, "options of write_quantized")
    local run <close> = calibrated(self, path:match "^(.-)/*$", options)
    if run and not options.windows then
      return nil, ("method %s needs windows of a text to calibrate on"):format(options.method), "QN_E_ARG"
    end
    if run and not options.overwrite and native.exists(path .. "/model.safetensors") then run:forget_written() end
    local report, left_out, code = deliver(self, path, options, function(file)
      return write_as(self, file, run, options)
    end)
    if not report then return nil, left_out, code end
    if run then run:forget() end
    return report, left_out, run and run.scaled and { inputs = run.scaled, kept = run.kept } or nil
  end

  q.import "lua.export"(q, native, model, beside)
end
