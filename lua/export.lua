-- export.lua - a model written as other tools read it: a folder of safetensors with configuration and tokenizer, or a
-- GGUF.

return function(q, native, model, beside)
  local targets, gguf = q.import "lua.targets"(q), q.import "lua.gguf"(native)

  local function must(ok, why) return ok or error(why, 0) end

  -- ---- What becomes of each weight ----------------------------------------------------------------------------------

  local function shape(dims) return "[" .. table.concat(dims, ", ") .. "]" end

  -- Tensors that are copied have the shapes of the model that the configuration is of, if that is there.
  local function check_shapes(self, folder, file)
    local original = folder and q.model(folder)
    local dims_of = {}
    for _, s in ipairs(original and original:stored() or {}) do dims_of[s.name] = s.dims end
    for _, e in ipairs(file) do
      local dims = e.stored and dims_of[e.name]
      if dims and shape(dims) ~= shape(e.dims) then
        error(("%s: %s in %s, %s in %s: that is another model, or one that stores this layer [in, out], which must be "
          .. "quantized then"):format(e.name, shape(e.dims), self.path, shape(dims), folder), 0)
      end
    end
  end

  local function module(name) return (name:gsub("%.weight$", "")) end

  -- The other targets that hold these planes: "awq, gguf"; "no target".
  local function holders(planes)
    local list = {}
    for _, to in ipairs(native.encode_targets()) do
      if not to:find "/" and native.encode(to, planes) then list[#list + 1] = to end
    end
    return #list > 0 and table.concat(list, ", ") or "no target"
  end

  -- "i8.row", "nvfp4.g16"… or nil: what is asked for, else what the checkpoint says of the layer; and the tensor with
  -- the one scale of all inputs, which must have the name that compressed-tensors reads.
  local function activations_of(t, target, options)
    if not target.activations or options.activations == "none" then return nil end
    if options.activations then return options.activations .. ".row" end
    local said, tensor = t.activation, t.activation_tensor
    local two_levels = said and said:find "^nvfp4"
    local name = module(t.name) .. (two_levels and ".input_global_scale" or ".input_scale")
    if (two_levels or tensor) and tensor ~= name then
      error(("%s: activations as %s need %s, which is not there; --activations none leaves them as they are"):format(
        t.name, said, name), 0)
    end
    return said and said .. (tensor and ".static" or ""), tensor
  end

  -- Planes of a weight as the target has them, without data; what it does not hold is an error that says who does.
  local function encoded_of(self, t, to, heads)
    local planes = must(self.handle:planes(t.name))
    local encoded, why = native.encode(to, planes, false, heads)
    if encoded then return encoded, planes end
    error(("%s, %s: %s: %s; it is held by %s"):format(t.name, t.format, to, why, holders(planes)), 0)
  end

  -- How a quantized weight is written: entries of the file, and a layer for the configuration.
  local function plan_of(self, t, target, options)
    local activations, scale = activations_of(t, target, options)
    local to = target.encode(activations)
    local encoded, planes = encoded_of(self, t, to)
    if t.slices > 1 then
      error(("%s: a stack of %d matrices: %s holds one matrix a weight; gguf holds stacks"):format(t.name, t.slices,
        to), 0)
    end
    if t.role == "embedding" then
      error(("%s: a quantized embedding: %s does not hold it, gguf does"):format(t.name, to), 0)
    end
    local parts, dialect = encoded:parts()
    local entries = {}
    for i, p in ipairs(parts) do
      entries[i] = { name = module(t.name) .. p.name, part = p.name, dtype = p.dtype, dims = p.dims }
    end
    return { tensor = t, to = to, activations = activations, scale = scale, entries = entries, name = module(t.name),
      format = t.format, dialect = dialect, head = t.role == "head", perm = planes:info().perm,
      f = q.gen.format.descriptor(q.resolve(t.format)) }
  end

  -- Layers to be made, matrices that stay, and all entries of the file.
  local function plan(self, target, options)
    local layers, dense, file, made, kept = {}, {}, {}, {}, {}
    for _, t in ipairs(self.list) do
      if not t.refusal and t.quantized and not t.tied_to then
        local layer = plan_of(self, t, target, options)
        layers[#layers + 1], made[t.name], kept[layer.scale or ""] = layer, true, true
        table.move(layer.entries, 1, #layer.entries, #file + 1, file)
      elseif t.format and t.role ~= "embedding" and t.role ~= "norm" then
        dense[#dense + 1] = { name = module(t.name), linear = t.linear, head = t.role == "head" }
      end
    end
    for _, s in ipairs(self:stored()) do
      if not made[s.weight] or kept[s.name] then
        file[#file + 1] = { name = s.name, dtype = s.dtype, dims = s.dims, stored = true }
      end
    end
    return layers, dense, file
  end

  -- ---- Writing ------------------------------------------------------------------------------------------------------

  -- The slices of a stack of matrices, each { t, number }: those that one tensor has, or one of each tensor.
  local function slices_of(t)
    local out = {}
    for slice = 1, t.slices do out[slice] = { t, slice } end
    return out
  end

  -- Planes are made when they are written, and forgotten. entries: { name =, part = }.
  local function write_weight(self, writer, slices, to, entries, heads)
    for _, s in ipairs(slices) do
      local t = s[1]
      local planes = must(self.handle:planes(t.name, s[2]))
      local encoded, why = native.encode(to, planes, true, heads)
      if not encoded then error(("%s: %s"):format(t.name, why), 0) end
      for _, e in ipairs(entries) do must(writer:put(e.name, encoded, e.part)) end
      collectgarbage() -- which does not see by itself what they weigh
    end
  end

  local function write_tensors(self, path, layers, file, progress)
    local writer <close> = must(native.writer(path, file, { "format", "pt" }))
    for _, e in ipairs(file) do
      if e.stored then must(writer:put(e.name, self.handle, e.name)) end
    end
    for i, layer in ipairs(layers) do
      if progress then progress { phase = "write", variant = layer.tensor.name, done = i - 1, total = #layers } end
      write_weight(self, writer, slices_of(layer.tensor), layer.to, layer.entries)
    end
    must(writer:close())
  end

  -- What becomes of it: layers, entries of the file, the configuration. Raises for what the target does not hold.
  local function planned(self, target, options)
    local layers, dense, file = plan(self, target, options)
    if #layers == 0 then error(("%s: no quantized layer; quernel quantize makes them"):format(self.path), 0) end
    check_shapes(self, options.config, file)
    return layers, file, must(target.config(layers, dense))
  end

  local function write_folder(self, path, target, options)
    local into <close> = beside.open(self, path, options)
    if not into.text then
      error(("%s has the header of a GGUF, and %s is served with a config.json: --config names a folder that has it")
        :format(self.path, options.to), 0)
    end
    local layers, file, config = planned(self, target, options)
    into:edit { quantization_config = q.json(config) }
    for _, layer in ipairs(layers) do if layer.head then into:edit { tie_word_embeddings = "false" } end end
    if into.text:find('"quantization_config".*"quantization_config"') then
      error(("%s/config.json: a quantization_config within another object would contradict ours; remove it"):format(
        into.from), 0)
    end
    write_tensors(self, into:path() .. "/model.safetensors", layers, file, options.progress)
    if target.file then must(native.file_write(into:path() .. "/" .. target.file, q.json(config) .. "\n")) end
    local tokenizer = into:finish()
    return { layers = #layers, tokenizer = tokenizer, from = into.from,
      remark = target.remark and target.remark(layers) }
  end

  -- ---- GGUF ---------------------------------------------------------------------------------------------------------

  -- Numbers of a vector as f32, for which `place` says what is done to them.
  local function vector(self, name, place)
    local x = must(self.handle:numbers(name))
    local out = place.heads and native.ffi.buffer("f32", #x) or x
    local half = place.heads and #x // place.heads // 2
    for i = 1, #x do
      local from = i
      if half then
        local head, at = (i - 1) // (2 * half), (i - 1) % (2 * half)
        from = head * 2 * half + at % 2 * half + at // 2 + 1
      end
      out[i] = x[from] + (place.add or 0)
    end
    return out
  end

  -- The tensors of a GGUF, in the order of the model's: { place, slices }, matrices of a stack being those of a tensor,
  -- or tensors that have the same place.
  local function stacks_of(self, place_of)
    local out, of_name = {}, {}
    for _, t in ipairs(self.list) do
      local place = not t.tied_to and place_of(t.name)
      local stack = place and place.slice and of_name[place.name]
      if place and not stack then
        stack = { place = place, slices = place.slice and {} or slices_of(t) }
        out[#out + 1], of_name[place.name] = stack, stack
      end
      if place and place.slice then stack.slices[place.slice + 1] = { t, 1 } end
    end
    return out
  end

  -- A stack of a GGUF has all slices, of one type and shape.
  local function check_stack(stack)
    local place, first, last = stack.place, stack.slices[1], 0
    local function refuse(text, ...) error(("%s: " .. text):format(place.name, ...), 0) end
    local function told(t) return ("%s is %s [%d, %d]"):format(t.name, t.format, t.n, t.k) end
    for number in pairs(place.slice and stack.slices or {}) do last = math.max(last, number) end
    for i = 1, math.max(last, place.slices or 0) do
      local s = stack.slices[i]
      if i > place.slices then
        refuse("the configuration says %d experts, and there is number %d", place.slices, last - 1)
      elseif not s then
        refuse("the configuration says %d experts, and number %d is not there", place.slices, i - 1)
      elseif told(s[1]):match " is .*" ~= told(first[1]):match " is .*" then
        refuse("%s, %s: it has one type and shape", told(first[1]), told(s[1]))
      end
    end
  end

  -- Entries of the file and, for each, a function that writes it.
  local function plan_gguf(self, place_of, made)
    local file, jobs = {}, {}
    local function job(entries, name, write)
      table.move(entries, 1, #entries, #file + 1, file)
      jobs[#jobs + 1] = { name = name, write = write }
    end
    local function add(stack)
      check_stack(stack)
      local t, place, slices = stack.slices[1][1], stack.place, stack.slices
      if not t.format then
        local x = must(self.handle:numbers(t.raw))
        job({ { name = place.name, dtype = "F32", dims = { #x } } }, t.name,
          function(writer) must(writer:put(place.name, vector(self, t.raw, place))) end)
        return
      end
      local entries, parts = {}, encoded_of(self, t, "gguf", place.heads):parts()
      for i, p in ipairs(parts) do
        local dims = (t.slices > 1 or place.slice) and { #slices, table.unpack(p.dims) } or p.dims
        entries[i] = { name = module(place.name) .. p.name, part = p.name, dtype = p.dtype, dims = dims }
      end
      job(entries, t.name, function(writer) write_weight(self, writer, slices, "gguf", entries, place.heads) end)
    end
    for _, stack in ipairs(stacks_of(self, place_of)) do add(stack) end
    if made then
      local x = native.ffi.buffer("f32", #made.values)
      for i, v in ipairs(made.values) do x[i] = v end
      job({ { name = made.name, dtype = "F32", dims = { #x } } }, made.name,
        function(writer) must(writer:put(made.name, x)) end)
    end
    return file, jobs
  end

  -- The same of a GGUF: from = where its configuration is, entries of the file, jobs that write them, keys of the
  -- header, remark. What was made of a GGUF has its names, its order of rows, and its header.
  local function planned_gguf(self, path, options)
    if self.handle:is_gguf() then error(("%s is a GGUF already"):format(self.path), 0) end
    local p, place, made = { from = options.config or beside.of(self.path) }, function(name) return { name = name } end
    p.keys, p.count = beside.header(self, options.config)
    if not p.keys then
      local config = native.parse_json(beside.config(p.from))
      p.keys, p.count, p.remark = gguf.keys(config, function(name)
        local file = p.from .. "/" .. name
        return native.exists(file) and must(native.file_read(file)) or nil
      end, p.from, path:match "([^/]*)%.gguf$" or path:match "[^/]*$")
      place, made = gguf.tensors(config)
    end
    p.file, p.jobs = plan_gguf(self, place, made)
    return p
  end

  local function write_gguf(self, path, _, options)
    if native.exists(path) and not options.overwrite then
      error(("%s: there is a file; --overwrite replaces it, -o names another"):format(path), 0)
    end
    local p = planned_gguf(self, path, options)
    local writer <close> = must(native.gguf_writer(path, p.file, p.keys, p.count))
    for i, job in ipairs(p.jobs) do
      if options.progress then
        options.progress { phase = "write", variant = job.name, done = i - 1, total = #p.jobs }
      end
      job.write(writer)
    end
    must(writer:close())
    return { layers = #p.jobs, tokenizer = true, from = p.from, remark = p.remark }
  end

  -- Would export write that? true; or nil and why not. options: to, activations.
  function model:exports(options)
    local ok, why = pcall(function()
      if options.to == "gguf" then return planned_gguf(self, "model.gguf", options) end
      beside.config(beside.of(self.path))
      planned(self, targets[options.to], options)
    end)
    return ok or nil, not ok and why or nil
  end

  -- Write the model as other tools read it. options: to (gptq, gptq_v2, awq, compressed-tensors, gguf), config (the
  -- folder of config.json and the tokenizer; else that of the model), activations (of compressed-tensors: i8, e4m3,
  -- none; else what the model says), overwrite, progress, partial. Returns { layers =, tokenizer = was there one,
  -- from =, remark = what should be told, or nil }, and a list of what cannot be read and was copied as it is; or nil,
  -- message, code.
  function model:export(path, options)
    q.check.fields(options, { to = "string", config = "string?", activations = "string?", overwrite = "boolean?",
      progress = "function?", partial = "boolean?" }, "options of export")
    q.check.among(options.to, { "gptq", "gptq_v2", "awq", "compressed-tensors", "gguf" }, "target")
    local left_out, why, code = self:unreadable(options.partial)
    if not left_out then return nil, why, code end
    local fn = options.to == "gguf" and write_gguf or write_folder
    local ok, report = pcall(fn, self, path, targets[options.to], options)
    if options.progress then options.progress { phase = "done" } end
    if not ok then return nil, report, "QN_E_IO" end
    return report, left_out
  end
end
