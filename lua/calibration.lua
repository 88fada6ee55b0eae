-- calibration.lua - a model quantized layer by layer, each with what it sees on windows of a text.
--
-- What is done is kept beside the file that is to come: FILE.layer-N holds the planes of a linear layer, and
-- FILE.layers has a line for each, which is written after them. So a run that was killed goes on, with the same result;
-- the first line says what the run is about, and lines of another one are not used.
return function(q, native)
  local errors = { "error2", "weight2", "largest", "output2", "output_error2", "nearest_error2" }
  local scaling = q.import "lua.scaling"(q, native)
  local least = 200 -- of so many tokens an expert must have seen one, or more

  -- ---- The log ------------------------------------------------------------------------------------------------------

  local function line_of(site, e)
    local words = { site, e.method, e.tokens }
    for i, name in ipairs(errors) do words[3 + i] = ("%a"):format(e[name]) end
    return table.concat(words, " ") .. "\n"
  end

  -- site -> error, and input -> what was found of its scale, of the run `key` if that is what the file has. The last
  -- line of a run may be torn.
  local function read_log(path, key)
    local done, inputs, file <close> = {}, {}, io.open(path)
    if not file or file:read "L" ~= key .. "\n" then return {}, {} end
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

  local function open_log(path, key, goes_on)
    local file, why = io.open(path, goes_on and "a" or "w")
    if not file then return nil, why end
    file:write(goes_on and "\n" or key .. "\n")
    file:setvbuf "line"
    return file
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
    return m:planes(c.t.name)
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
    local by_name = {}
    for i, site in ipairs(run.decoder:sites()) do
      local t = options.model.by_name[site.name]
      if t.linear and options.choose(t) then
        local c = { site = i, t = t, n = site.n, k = site.k, layer = site.layer, slice = site.slice,
          format = options.format(t), name = t.slices > 1 and ("%s[%d]"):format(t.name, site.slice - 1) or t.name }
        table.insert(run.chosen, c)
        by_name[site.name] = by_name[site.name] or {}
        by_name[site.name][site.slice] = c
        run.by_site[i] = c
      end
    end
    return by_name
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
      planes, e, code = quantize(run, options, c, "rtn", options.scales ~= "outputs" and options.scales or nil)
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
    local done, inputs = read_log(run.path .. ".layers", key)
    local ok, why, code
    run.log, why = open_log(run.path .. ".layers", key, next(done) or next(inputs))
    if not run.log then return nil, why, "QN_E_IO" end
    if select(2, native.method_sees(options.method)) then
      ok, why, code = scaling.apply(run, options, inputs, too_few)
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

  local function close(run)
    for _, d in pairs { run.decoder, run.original } do d:close() end
  end

  local function open(run, options, see)
    for _, name in ipairs { "decoder", see & native.see_cross ~= 0 and "original" or nil } do
      local why, code
      run[name], why, code = q.decoder(options.model, { threads = options.threads })
      if not run[name] then
        close(run)
        return nil, why, code
      end
    end
    return true
  end

  -- The layers, one after the other: true, or nil, message, code.
  local function work(run, options)
    local key, ok, why, code
    key, why, code = key_of(run, options)
    if not key then return nil, why, code end
    ok, why, code = take_up(run, key, options)
    if not ok then return nil, why, code end
    local wanted = {}
    for i, c in ipairs(run.chosen) do wanted[i] = c.site end
    local calibration <close>, wrong, kind = native.calibration(run.decoder.handle,
      run.original and run.original.handle, options.windows.handle,
      { see = native.method_sees(options.method), threads = options.threads, known = run.resumed }, wanted)
    if not calibration then return nil, wrong, kind end
    return do_layers(run, options, calibration)
  end

  -- Quantize the linear layers of a model. options: model; path, of the file that is to come; windows (q.windows);
  -- method; scales; format(t) -> spelling; choose(t); threads; allow_rtn, where calibration is not enough; progress.
  -- Returns the run, or nil, message, code:
  --   run:planes(t, slice) -> planes, error { …, method, tokens, why }: nil if the decoder does not come by t
  --   run:forget()  removes what was kept; run.resumed: layers that an earlier run had done
  --   run.norms, run.scaled, run.kept   with awq: see lua/scaling.lua
  function q.calibrate(options)
    local run = { path = options.path, chosen = {}, by_site = {} }
    local ok, why, code = open(run, options, native.method_sees(options.method))
    if not ok then return nil, why, code end
    local by_name = choose(run, options)
    ok, why, code = work(run, options)
    close(run)
    if not ok then return nil, why, code end
    function run:planes(t, slice)
      local c = by_name[t.name] and by_name[t.name][slice]
      if not c then return nil, ("%s: the decoder does not come by it; leave it out (--skip)"):format(t.name) end
      local planes, wrong = planes_of(self, c)
      return planes, planes and c.error or wrong
    end
    function run:forget()
      self.log:close()
      for _, c in ipairs(self.chosen) do os.remove(part(self, c)) end
      scaling.forget(self)
      os.remove(self.path .. ".layers")
    end
    return run
  end
end
