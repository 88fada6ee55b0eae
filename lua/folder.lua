-- folder.lua - the folder of a checkpoint: what lies beside the weights, and how another one is made.

return function(q, native)
  local beside = {}

  -- What goes with a model besides its weights and config.json, as far as it is there.
  local companions = { "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "tekken.json", "tiktoken.model",
    "chat_template.jinja", "chat_template.json", "preprocessor_config.json", "processor_config.json",
    "video_preprocessor_config.json" }
  local tokenizers = { ["tokenizer.json"] = true, ["tokenizer.model"] = true, ["vocab.json"] = true,
    ["tekken.json"] = true, ["tiktoken.model"] = true }

  local function must(ok, why) return ok or error(why, 0) end

  -- Copies them. Was there a tokenizer?
  local function copy_companions(from, to)
    local tokenizer = false
    for _, name in ipairs(companions) do
      if native.exists(from .. "/" .. name) then
        must(native.file_write(to .. "/" .. name, must(native.file_read(from .. "/" .. name))))
        tokenizer = tokenizer or tokenizers[name] or false
      end
    end
    return tokenizer
  end

  -- The folder of a model's config.json.
  function beside.of(path) return native.is_folder(path) and path or path:match "^(.*)/[^/]*$" or "." end

  -- Keys of the GGUF that says what the model is, and their number: that of the option --config, else the model's own.
  -- Nothing if it is a config.json that says it.
  function beside.header(model, config)
    if not config then return model.handle:gguf_keys() end
    if config:find "%.gguf$" then return must(q.model(config)).handle:gguf_keys() end
  end

  -- Text of config.json. Raises if it is not there, or no JSON.
  function beside.config(folder)
    local path = folder .. "/config.json"
    if not native.exists(path) then
      error(path .. ": not there, and a checkpoint needs it; --config names the folder of the original model, or a "
        .. "GGUF", 0)
    end
    local text = must(native.file_read(path))
    local ok, why = native.json_members(text)
    return ok and text or error(("%s: %s"):format(path, why), 0)
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

  -- A folder to write a checkpoint of `model` into. options: config (the folder that has config.json and the tokenizer;
  -- else the model's), overwrite. Raises for what cannot be written, before any work. Nothing is left if it is closed
  -- before it is finished.
  --   into:path() -> where files are put   into.from   where config.json is   into.text   that will be written; of a
  --   GGUF there is none: its header is written instead, which has the tokenizer, too
  --   into:edit(changes)   members of it set to JSON texts; false: without them
  --   into:finish() -> was there a tokenizer; the folder is at its place
  local class = {}
  class.__index = class

  -- Of how the original was quantized nothing is true of what is written.
  local outdated = { quantization_config = false, compression_config = false, quantization = false }

  function beside.open(model, path, options)
    local from = options.config or beside.of(model.path)
    if native.same_file(path, beside.of(model.path)) then
      error(("%s is the folder of the model that is read; name another"):format(path), 0)
    end
    local into = setmetatable({ from = from }, class)
    into.keys, into.count = beside.header(model, options.config)
    if not into.keys then
      into.text = beside.config(from)
      into:edit(outdated)
    end
    into.folder = must(native.output_folder(path, options.overwrite))
    return into
  end

  function class:path() return self.folder:path() end
  function class:edit(changes) self.text = edited(self.text, must(native.json_members(self.text)), changes) end

  function class:finish()
    local tokenizer = true
    if self.text then
      must(native.file_write(self:path() .. "/config.json", self.text))
      tokenizer = copy_companions(self.from, self:path())
    else
      must(must(native.gguf_writer(self:path() .. "/header.gguf", {}, self.keys, self.count)):close())
    end
    must(self.folder:close())
    return tokenizer
  end

  function class:__close() self.folder:abandon() end

  return beside
end
