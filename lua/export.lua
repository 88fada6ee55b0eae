-- export.lua - a model written as other tools read it: a folder of safetensors with configuration and tokenizer.

return function(q, native, model)
  local targets = q.import "lua.targets"(q)

  -- What goes with a model beside its weights and config.json, as far as it is there.
  local companions = { "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "tekken.json", "tiktoken.model",
    "chat_template.jinja", "chat_template.json", "preprocessor_config.json", "processor_config.json",
    "video_preprocessor_config.json" }
  local tokenizers = { "tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json", "tiktoken.model" }

  local function must(ok, why) return ok or error(why, 0) end

  -- ---- What is beside the weights -----------------------------------------------------------------------------------

  local function folder_of(path)
    return native.is_folder(path) and path or path:match "^(.*)/[^/]*$" or "."
  end

  local function read_config(folder)
    local path = folder .. "/config.json"
    if not native.exists(path) then
      error(path .. ": not there, and a checkpoint needs it; --config names the folder of the original model", 0)
    end
    local text = must(native.file_read(path))
    local members, why = native.json_members(text)
    return text, members or error(("%s: %s"):format(path, why), 0), path
  end

  -- The text of an object with members set to JSON texts; false: without them.
  local function edited(text, members, changes)
    local out, seen = {}, {}
    local function add(name, value) if value then out[#out + 1] = ("  %s: %s"):format(q.json(name), value) end end
    for _, m in ipairs(members) do
      local change = changes[m.name]
      if change == nil then change = text:sub(m.from, m.to):gsub("^%s+", "") end
      add(m.name, change)
      seen[m.name] = true
    end
    local rest = {}
    for name in pairs(changes) do if not seen[name] then rest[#rest + 1] = name end end
    table.sort(rest)
    for _, name in ipairs(rest) do add(name, changes[name]) end
    return "{\n" .. table.concat(out, ",\n") .. "\n}\n"
  end

  -- ---- What becomes of each weight ----------------------------------------------------------------------------------

  local function module(name) return (name:gsub("%.weight$", "")) end

  -- The other targets that hold these planes: "awq, gguf"; "no target".
  local function holders(planes)
    local list = {}
    for _, to in ipairs(native.encode_targets()) do
      if not to:find "/" and native.encode(to, planes) then list[#list + 1] = to end
    end
    return #list > 0 and table.concat(list, ", ") or "no target"
  end

  -- "i8", "e4m3", or nil: what is asked for, else what the checkpoint says of the layer.
  local function activations_of(t, target, options)
    if not target.activations or options.activations == "none" then return nil end
    return options.activations or t.activation and t.activation:match "^(%w+)%."
  end

  -- How a quantized weight is written: entries of the file, and a layer for the configuration.
  local function plan_of(self, t, target, options)
    local activations = activations_of(t, target, options)
    local to = target.encode(activations)
    local planes = must(self.handle:planes(t.name))
    local encoded, why = native.encode(to, planes)
    if not encoded then
      error(("%s, %s: %s: %s; it is held by %s"):format(t.name, t.format, to, why, holders(planes)), 0)
    end
    if t.slices > 1 then
      error(("%s: a stack of %d matrices: %s holds one matrix a weight"):format(t.name, t.slices, to), 0)
    end
    if t.role == "embedding" then
      error(("%s: a quantized embedding: %s does not hold it"):format(t.name, to), 0)
    end
    local parts, dialect = encoded:parts()
    local entries = {}
    for i, p in ipairs(parts) do
      entries[i] = { name = module(t.name) .. p.name, part = p.name, dtype = p.dtype, dims = p.dims }
    end
    return { tensor = t, to = to, activations = activations, entries = entries, name = module(t.name),
      format = t.format, dialect = dialect, head = t.role == "head", perm = planes:info().perm,
      f = q.gen.format.descriptor(q.resolve(t.format)) }
  end

  -- Layers to be made, matrices that stay, and all entries of the file.
  local function plan(self, target, options)
    local layers, dense, file, made = {}, {}, {}, {}
    for _, t in ipairs(self.list) do
      if not t.refusal and t.quantized and not t.tied_to then
        local layer = plan_of(self, t, target, options)
        layers[#layers + 1], made[t.name] = layer, true
        table.move(layer.entries, 1, #layer.entries, #file + 1, file)
      elseif t.format and t.role ~= "embedding" and t.role ~= "norm" then
        dense[#dense + 1] = { name = module(t.name), linear = t.linear, head = t.role == "head" }
      end
    end
    for _, s in ipairs(self:stored()) do
      if not made[s.weight] then file[#file + 1] = { name = s.name, dtype = s.dtype, dims = s.dims, stored = true } end
    end
    return layers, dense, file
  end

  -- ---- Writing ------------------------------------------------------------------------------------------------------

  local function write_tensors(self, path, layers, file, progress)
    local writer <close> = must(native.writer(path, file, { "format", "pt" }))
    for _, e in ipairs(file) do
      if e.stored then must(writer:put(e.name, self.handle, e.name)) end
    end
    for i, layer in ipairs(layers) do
      if progress then progress { phase = "write", variant = layer.tensor.name, done = i - 1, total = #layers } end
      local planes = must(self.handle:planes(layer.tensor.name))
      local encoded, why = native.encode(layer.to, planes, true)
      if not encoded then error(("%s: %s"):format(layer.tensor.name, why), 0) end
      for _, e in ipairs(layer.entries) do must(writer:put(e.name, encoded, e.part)) end
      planes, encoded = nil, nil -- luacheck: ignore
      collectgarbage() -- which does not see by itself what they weigh
    end
    must(writer:close())
  end

  local function copy_companions(from, to)
    local found = {}
    for _, name in ipairs(companions) do
      if native.exists(from .. "/" .. name) then
        must(native.file_write(to .. "/" .. name, must(native.file_read(from .. "/" .. name))))
        found[name] = true
      end
    end
    for _, name in ipairs(tokenizers) do if found[name] then return true end end
    return false
  end

  local function write_folder(self, path, target, options)
    local from = options.config or folder_of(self.path)
    if native.same_file(path, folder_of(self.path)) then
      error(("%s is the folder of the model that is read; name another"):format(path), 0)
    end
    local text, members = read_config(from)
    local layers, dense, file = plan(self, target, options)
    if #layers == 0 then error(("%s: no quantized layer; quernel quantize makes them"):format(self.path), 0) end
    local config = must(target.config(layers, dense))
    local changes = { quantization_config = q.json(config), compression_config = false, quantization = false }
    for _, layer in ipairs(layers) do if layer.head then changes.tie_word_embeddings = "false" end end
    local folder <close> = must(native.output_folder(path, options.overwrite))
    write_tensors(self, folder:path() .. "/model.safetensors", layers, file, options.progress)
    must(native.file_write(folder:path() .. "/config.json", edited(text, members, changes)))
    if target.file then must(native.file_write(folder:path() .. "/" .. target.file, q.json(config) .. "\n")) end
    local tokenizer = copy_companions(from, folder:path())
    must(folder:close())
    return { layers = #layers, tokenizer = tokenizer, from = from }
  end

  -- Write the model as other tools read it. options: to (gptq, gptq_v2, awq, compressed-tensors), config (the folder of
  -- config.json and the tokenizer; else that of the model), activations (of compressed-tensors: i8, e4m3, none; else
  -- what the model says), overwrite, progress, partial. Returns { layers =, tokenizer = was there one, from = }, and a
  -- list of what cannot be read and was copied as it is; or nil, message, code.
  function model:export(path, options)
    q.check.fields(options, { to = "string", config = "string?", activations = "string?", overwrite = "boolean?",
      progress = "function?", partial = "boolean?" }, "options of export")
    q.check.among(options.to, { "gptq", "gptq_v2", "awq", "compressed-tensors" }, "target")
    local left_out, why, code = self:unreadable(options.partial)
    if not left_out then return nil, why, code end
    local ok, report = pcall(write_folder, self, path, targets[options.to], options)
    if options.progress then options.progress { phase = "done" } end
    if not ok then return nil, report, "QN_E_IO" end
    return report, left_out
  end
end
