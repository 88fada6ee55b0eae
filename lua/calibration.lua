-- calibration.lua - a model quantized layer by layer, each with what it sees on windows of a text.
--
-- What is done is kept beside the file that is to come: FILE.layer-N holds the planes of a linear layer, and
-- FILE.layers has a line for each, which is written after them. So a run that was killed goes on, with the same result;
-- the first line says what the run is about, and lines of another one are not used.
return function(q, native)
  local errors = { "error2", "weight2", "largest", "output2", "output_error2", "nearest_error2" }
  local least = 200 -- of so many tokens an expert must have seen one, or more

  -- ---- The log ------------------------------------------------------------------------------------------------------

  local function line_of(site, e)
    local words = { site, e.method, e.tokens }
    for i, name in ipairs(errors) do words[3 + i] = ("%a"):format(e[name]) end
    return table.concat(words, " ") .. "\n"
  end

  -- site -> error, of the run `key` if that is what the file has. The last line of a run may be torn.
  local function read_log(path, key)
    local done, file <close> = {}, io.open(path)
    if not file or file:read "L" ~= key .. "\n" then return {} end
    for line in file:lines "L" do
      local words = {}
      for word in line:gmatch "%S+" do words[#words + 1] = word end
      if #words == 3 + #errors and line:sub(-1) == "\n" then
        local e = { method = words[2], tokens = math.tointeger(words[3]) }
        for i, name in ipairs(errors) do e[name] = tonumber(words[3 + i]) end
        done[math.tointeger(words[1])] = e
      end
    end
    return done
  end

  local function open_log(path, key, done)
    local file, why = io.open(path, next(done) and "a" or "w")
    if not file then return nil, why end
    file:write(next(done) and "\n" or key .. "\n")
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
        local c = { site = i, t = t, n = site.n, k = site.k, slice = site.slice, format = options.format(t) }
        table.insert(run.chosen, c)
        by_name[site.name] = by_name[site.name] or {}
        by_name[site.name][site.slice] = c
        run.by_site[i] = c
      end
    end
    return by_name
  end

  local function quantize(run, options, c, method, calibration)
    local w, why, code = run.decoder:weight(c.site)
    if not w then return nil, why, code end
    return native.quantize(w, c.n, c.k, q.descriptor(c.format),
      { method = method, scales = options.scales, threads = options.threads },
      calibration)
  end

  -- Why calibration is not enough for a layer, or nil.
  local function too_few(tokens, windows)
    local all = windows.n * windows.length
    if tokens * least < all then
      return ("%d of %d tokens of the calibration came to it; 1 of %d is the least"):format(tokens, all, least)
    end
  end

  -- The layer that calibration came by; a failure names it. Where statistics are not enough the user may allow rtn; if
  -- that fails, too, it is not for the statistics.
  local function next_layer(run, options, calibration)
    local site, tokens, code = calibration:next()
    if not site then return nil, tokens, code end
    if site == 0 then return false end
    local c, why = run.by_site[site], too_few(tokens, options.windows)
    local planes, e
    if not why then
      planes, e = quantize(run, options, c, options.method, calibration)
      why = not planes and e
    end
    local name = c.t.slices > 1 and ("%s[%d]"):format(c.t.name, c.slice - 1) or c.t.name
    if why then
      planes, e, code = quantize(run, options, c, "rtn")
      if not planes then return nil, ("%s: %s"):format(name, e), code end
      if not options.allow_rtn then
        return nil, ("%s: %s; with --allow-rtn it is rounded to nearest"):format(name, why), "QN_E_ARG"
      end
    end
    e.method, e.tokens, e.why = why and "rtn" or options.method, tokens, why
    local ok
    ok, why, code = keep(run, c, planes, e)
    return ok and c, why, code
  end

  -- Layers that an earlier run has done. The first whose planes cannot be read, or that is rounded to nearest where
  -- this run may not, and those after it, are done again.
  local function take_up(run, key, options)
    local done, wanted, count = read_log(run.path .. ".layers", key), {}, 0
    for _, c in ipairs(run.chosen) do
      local e = done[c.site]
      local fits = e and (e.method == options.method or options.allow_rtn)
      local planes = #wanted == 0 and fits and planes_of(run, c)
      if planes and run.decoder:replace(c.site, planes) then
        c.error, count = e, count + 1
      else
        wanted[#wanted + 1] = c.site
      end
    end
    local why
    run.log, why = open_log(run.path .. ".layers", key, count > 0 and done or {})
    if not run.log then return nil, why, "QN_E_IO" end
    return wanted, count
  end

  local function open(run, options, see)
    local why, code
    local o = { threads = options.threads }
    run.decoder, why, code = q.decoder(options.model, o)
    if run.decoder and see & native.see_cross ~= 0 then
      run.original, why, code = q.decoder(options.model, o)
    end
    return (see & native.see_cross == 0 or run.original) and run.decoder, why, code
  end

  -- Quantize the linear layers of a model. options: model; path, of the file that is to come; windows (q.windows);
  -- method; scales; format(t) -> spelling; choose(t); threads; allow_rtn, where calibration is not enough; progress.
  -- Returns the run, or nil, message, code:
  --   run:planes(t, slice) -> planes, error { …, method, tokens, why }: nil if the decoder does not come by t
  --   run:forget()  removes what was kept; run.resumed: layers that an earlier run had done
  function q.calibrate(options)
    local run = { path = options.path, chosen = {}, by_site = {} }
    local ok, why, code = open(run, options, native.method_sees(options.method))
    if not ok then return nil, why, code end
    local by_name = choose(run, options)
    local key, wanted, calibration
    key, why, code = key_of(run, options)
    if not key then return nil, why, code end
    wanted, run.resumed, code = take_up(run, key, options)
    if not wanted then return nil, run.resumed, code end
    calibration, why, code = native.calibration(run.decoder.handle, run.original and run.original.handle,
      options.windows.handle, { see = native.method_sees(options.method), threads = options.threads }, wanted)
    if not calibration then return nil, why, code end
    for i = 0, #wanted do
      local at = wanted[i + 1] and run.by_site[wanted[i + 1]]
      if options.progress and at then
        options.progress { phase = "calibrate", variant = at.t.name, done = run.resumed + i, total = #run.chosen }
      end
      local c
      c, why, code = next_layer(run, options, calibration)
      if c == nil then return nil, why, code end
      collectgarbage() -- which does not see by itself what planes weigh
    end
    function run:planes(t, slice)
      local c = by_name[t.name] and by_name[t.name][slice]
      if not c then return nil, ("%s: the decoder does not come by it; leave it out (--skip)"):format(t.name) end
      local planes, wrong = planes_of(self, c)
      return planes, planes and c.error or wrong
    end
    function run:forget()
      self.log:close()
      for _, c in ipairs(self.chosen) do os.remove(part(self, c)) end
      os.remove(self.path .. ".layers")
    end
    return run
  end
end
