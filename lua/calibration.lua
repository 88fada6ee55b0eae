-- calibration.lua - a model quantized layer by layer, each with what it sees on windows of a text.
--
-- What is done is kept beside the file that is to come: FILE.layer-N holds the planes of a linear layer, and
-- FILE.layers has a line for each, which is written after them. So a run that was killed goes on, with the same result;
-- the first line says what the run is about, and what another one left is removed. A run locks the log as long as it
-- lives.
return function(q, native)
  local errors = { "error2", "weight2", "largest", "output2", "output_error2", "nearest_error2" }
  local scaling = q.import "lua.scaling"(q, native)
  local least = 200 -- of so many tokens an expert must have seen one, or more

  -- ---- The log ------------------------------------------------------------------------------------------------------

  local function log_of(path) return path .. ".layers" end

  local function line_of(site, e)
    local words = { site, e.method, e.tokens }
    for i, name in ipairs(errors) do words[3 + i] = ("%a"):format(e[name]) end
    return table.concat(words, " ") .. "\n"
  end

  -- site -> error, and input -> what was found of its scale; nil: the log is not of the run `key`. Its last line may be
  -- torn.
  local function read_log(file, key)
    local done, inputs = {}, {}
    if file:read "L" ~= key .. "\n" then return nil end
    for line in file:lines "L" do
      local words = {}
      for word in line:gmatch "%S+" do words[#words + 1] = word end
      local input, found = scaling.read(line:sub(-1) == "\n" and words or {})
      if input then
        inputs[input] = found
      elseif #words == 3 + #errors and line:sub(-1) == "\n" then
        local e = { method = words[2], tokens = math.tointeger(words[3]) }
        for i, name in ipairs(errors) do e[name] = tonumber(words[3 + i]) end
        done[math.tointeger(words[1])] = e
      end
    end
    return done, inputs
  end

  -- Remove what runs kept beside the file `path`, but for the log.
  local function remove_parts(path)
    local folder, name = path:match "^(.-)([^/]*)$"
    for _, f in ipairs(native.files(folder == "" and "." or folder)) do
      local rest = f.path:match "[^/]*$"
      rest = rest:sub(1, #name) == name and rest:sub(#name + 1) or ""
      if rest:find "^%.layer%-%d+$" or rest:find "^%.input%-%d+$" then os.remove(f.path) end
    end
  end

  -- Open and lock the log of a run: run.log, and what read_log gives. Or nil, message, code.
  local function open_log(run, key)
    local path = log_of(run.path)
    local ok, why, code
    run.log, why = io.open(path, "a+")
    if not run.log then return nil, why, "QN_E_IO" end
    ok, why, code = native.file_lock(run.log, path)
    if not ok then return nil, why, code end
    local done, inputs = read_log(run.log, key)
    if not done then
      remove_parts(run.path)
      io.open(path, "w"):close()
    end
    run.log:seek "end"
    run.log:write(done and "\n" or key .. "\n")
    run.log:setvbuf "line"
    return done or {}, inputs or {}
  end

  -- ---- A run --------------------------------------------------------------------------------------------------------

  -- Everything that the result follows from, but for layers that are rounded to nearest: take_up has those.
  local function key_of(run, options)
    local hash, why, code = native.model_hash(options.model.handle)
    if not hash then return nil, why, code end
    local build
    build, why, code = native.build()
    if not build then return nil, why, code end
    local words = { build, hash, options.windows.hash, options.method, options.scales or "" }
    for _, c in ipairs(run.chosen) do words[#words + 1] = ("%d %s"):format(c.site, c.format) end
    return native.hash(table.concat(words, "\n"))
  end

  local function part(run, c) return ("%s.layer-%d"):format(run.path, c.site) end

  -- The planes that a layer has by now.
  local function planes_of(run, c)
    local m, why, code = q.model(part(run, c))
    if not m then return nil, why, code end
    local planes
    planes, why, code = m:planes(c.t.name)
    if not planes then return nil, why, code end
    local format = planes:info().format
    if format == c.format then return planes end
    return nil, ("%s: %s is there as %s, not as %s"):format(part(run, c), c.t.name, format, c.format), "QN_E_FORMAT"
  end

  -- What was found before takes the layer's place.
  local function put(run, c)
    local planes, why, code = planes_of(run, c)
    if not planes then return nil, why, code end
    return run.decoder:replace(c.site, planes)
  end

  local function keep(run, c, planes, e)
    local ok, why, code = q.save_planes(part(run, c), c.t.name, planes)
    if ok then ok, why, code = run.decoder:replace(c.site, planes) end
    if not ok then return nil, why, code end
    ok, why = run.log:write(line_of(c.site, e))
    if not ok then return nil, why, "QN_E_IO" end
    c.error = e
    return true
  end

  -- The linear layers that are chosen, in the order in which the model comes by them.
  local function choose(run, options)
    for i, site in ipairs(run.decoder:sites()) do
      local t = options.model.by_name[site.name]
      if t.linear and options.choose(t) then
        local c = { site = i, t = t, n = site.n, k = site.k, layer = site.layer, slice = site.slice,
          format = options.format(t), name = t.slices > 1 and ("%s[%d]"):format(t.name, site.slice - 1) or t.name }
        table.insert(run.chosen, c)
        run.by_name[site.name] = run.by_name[site.name] or {}
        run.by_name[site.name][site.slice] = c
        run.by_site[i] = c
      end
    end
  end

  local function quantize(run, options, c, method, scales, calibration)
    local w, why, code = run.decoder:weight(c.site)
    if not w then return nil, why, code end
    return native.quantize(w, c.n, c.k, q.descriptor(c.format),
      { method = method, scales = scales, threads = options.threads }, calibration)
  end

  -- Why calibration is not enough for a layer, or nil.
  local function too_few(tokens, windows)
    local all = windows.n * windows.length
    if tokens * least < all then
      return ("%d of %d tokens of the calibration came to it; 1 of %d is the least"):format(tokens, all, least)
    end
  end

  -- Quantize a layer; a failure names it. Where statistics are not enough the user may allow rtn; if that fails, too,
  -- it is not for the statistics. It takes the same scales, unless these need statistics themselves.
  local function do_layer(run, options, c, tokens, calibration)
    local why = too_few(tokens, options.windows)
    local planes, e, code
    if not why then
      planes, e, code = quantize(run, options, c, options.method, options.scales, calibration)
      if code == "QN_E_NOMEM" then return nil, ("%s: %s"):format(c.name, e), code end
      why = not planes and e
    end
    if why then
      local scales = options.scales
      planes, e, code = quantize(run, options, c, "rtn", scales and not native.scales_see(scales) and scales or nil)
      if not planes then return nil, ("%s: %s"):format(c.name, e), code end
      if not options.allow_rtn then
        return nil, ("%s: %s; with --allow-rtn it is rounded to nearest"):format(c.name, why), "QN_E_ARG"
      end
    end
    e.method, e.tokens, e.why = why and "rtn" or options.method, tokens, why
    return keep(run, c, planes, e)
  end

  -- Layers that an earlier run has done: the first whose planes cannot be read, or that is rounded to nearest where
  -- this run may not, and those after it, are done again. true, or nil, message, code.
  local function take_up(run, key, options)
    local done, inputs, fault = open_log(run, key)
    if not done then return nil, inputs, fault end
    if select(2, native.method_sees(options.method)) then
      local ok, why, code = scaling.apply(run, options, inputs, too_few)
      if not ok then return nil, why, code end
    end
    run.resumed = 0
    for i, c in ipairs(run.chosen) do
      local e = done[c.site]
      local fits = e and (e.method == options.method or options.allow_rtn)
      if not fits or not planes_of(run, c) then break end
      c.error, run.resumed = e, i
      collectgarbage() -- which does not see by itself what planes weigh
    end
    return true
  end

  -- All layers that are chosen, as calibration comes by them. The decoder holds those of one layer of the model: what
  -- is behind is given back. true, or nil, message, code.
  local function do_layers(run, options, calibration)
    local behind = 0
    for i, c in ipairs(run.chosen) do
      if options.progress then
        options.progress { phase = "calibrate", variant = c.t.name, done = i - 1, total = #run.chosen }
      end
      local site, tokens, fault = calibration:next()
      if not site then return nil, tokens, fault end
      while run.chosen[behind + 1].layer < c.layer do
        behind = behind + 1
        run.decoder:replace(run.chosen[behind].site, nil)
      end
      local ok, why, code
      if i > run.resumed then ok, why, code = do_layer(run, options, c, tokens, calibration)
      else ok, why, code = put(run, c) end
      if not ok then return nil, why, code end
      collectgarbage() -- which does not see by itself what planes weigh
    end
    return true
  end

  local function close_decoders(run)
    for _, d in pairs { run.decoder, run.original } do d:close() end
    run.decoder, run.original = nil, nil
  end

  local function open_decoders(run, options, see)
    for _, name in ipairs { "decoder", see & native.see_cross ~= 0 and "original" or nil } do
      local why, code
      run[name], why, code = q.decoder(options.model, { threads = options.threads })
      if not run[name] then return nil, why, code end
    end
    return true
  end

  -- The layers, one after the other: true, or nil, message, code.
  local function work(run, options, see)
    local ok, why, code = open_decoders(run, options, see)
    if not ok then return nil, why, code end
    choose(run, options)
    local key
    key, why, code = key_of(run, options)
    if not key then return nil, why, code end
    ok, why, code = take_up(run, key, options)
    if not ok then return nil, why, code end
    local wanted = {}
    for i, c in ipairs(run.chosen) do wanted[i] = c.site end
    local calibration <close>, wrong, kind = native.calibration(run.decoder.handle,
      run.original and run.original.handle, options.windows.handle,
      { see = see, threads = options.threads, known = run.resumed }, wanted)
    if not calibration then return nil, wrong, kind end
    return do_layers(run, options, calibration)
  end

  local class = {}
  class.__index = class

  function class:work()
    local ok, why, code = work(self, self.options, native.method_sees(self.options.method))
    close_decoders(self)
    return ok, why, code
  end

  function class:planes(t, slice)
    local c = self.by_name[t.name] and self.by_name[t.name][slice]
    if not c then return nil, ("%s: the decoder does not come by it; leave it out (--skip)"):format(t.name) end
    local planes, why = planes_of(self, c)
    return planes, planes and c.error or why
  end

  function class:forget()
    remove_parts(self.path)
    os.remove(log_of(self.path))
  end

  -- The file is complete, though not yet at its place.
  function class:written() self.log:write "written\n" end

  -- Remove what a run left that was killed when its file was at its place.
  function class:forget_written()
    local path = log_of(self.path)
    local log <close> = io.open(path, "r+")
    if log and native.file_lock(log, path) and log:read "a":find "\nwritten\n" then self:forget() end
  end

  function class:__close()
    close_decoders(self)
    if self.log then self.log:close() end
  end

  -- A run that quantizes the linear layers of a model. options: model; path, of the file that is to come; windows
  -- (q.windows); method; scales; format(t) -> spelling; choose(t); threads; allow_rtn, where calibration is not enough;
  -- progress. It is to be closed (local run <close>), and nobody else can take it up before.
  --   run:work() -> true, or nil, message, code; then
  --   run:planes(t, slice) -> planes, error { …, method, tokens, why }: nil if the decoder does not come by t
  --   run:written()   the file is complete   run:forget()   removes what was kept
  --   run.resumed: layers that an earlier run had done
  --   run.norms, run.scaled, run.kept   with awq: see lua/scaling.lua
  function q.calibrate(options)
    return setmetatable({ path = options.path, options = options, chosen = {}, by_site = {}, by_name = {} }, class)
  end
end
