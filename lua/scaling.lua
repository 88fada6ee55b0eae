-- scaling.lua - inputs of a model's linear layers scaled (eval/quantize/awq.h) before the layers are calibrated.
--
-- Scales are searched for in the unquantized model, all of them before the first is put in. They are kept beside the
-- file that is to come as its planes are (lua/calibration.lua): FILE.input-N holds a scale, and a line of the log tells
-- of it.
return function(q, native)
  local scaling = {}
  local fields = { "exponent", "output2", "before2", "scaled2" }

  local function part(run, input) return ("%s.input-%d"):format(run.path, input) end

  -- ---- The log ------------------------------------------------------------------------------------------------------

  local function line_of(x)
    local words = { "input", x.input }
    for i, name in ipairs(fields) do words[2 + i] = ("%a"):format(x.found[name]) end
    return table.concat(words, " ") .. "\n"
  end

  -- Words of a line of the log -> input, what was found; or nil.
  function scaling.read(words)
    if words[1] ~= "input" or #words ~= 2 + #fields then return nil end
    local found = {}
    for i, name in ipairs(fields) do found[name] = tonumber(words[2 + i]) end
    return math.tointeger(words[2]), found
  end

  -- ---- Which inputs -------------------------------------------------------------------------------------------------

  -- Why an input cannot be scaled, or what gives it.
  local function giver_of(run, x)
    for _, i in ipairs(x.readers) do
      if not run.by_site[i] then
        return nil, ("%s reads it, too, and is not quantized"):format(run.decoder:sites()[i].name)
      end
    end
    local giver, why = run.decoder:giver(x.input)
    if giver and giver.site and not run.by_site[giver.site] then
      return nil, ("%s, which gives it, is not quantized"):format(run.decoder:sites()[giver.site].name)
    end
    return giver, why
  end

  -- Inputs of the chosen layers, { input, name, readers = sites, giver }, in order; and those that stay as they are,
  -- { name, why }.
  local function inputs_of(run)
    local order, by_input, list, kept = {}, {}, {}, {}
    for i, site in ipairs(run.decoder:sites()) do
      local x = by_input[site.input]
      if not x then
        x = { input = site.input, readers = {} }
        by_input[site.input], order[#order + 1] = x, x
      end
      table.insert(x.readers, i)
      if run.by_site[i] then x.name = x.name or run.by_site[i].name end
    end
    for _, x in ipairs(order) do
      if x.name then
        local why
        x.giver, why = giver_of(run, x)
        if x.giver then list[#list + 1] = x else kept[#kept + 1] = { name = x.name, why = why } end
      end
    end
    return list, kept
  end

  -- ---- The search ---------------------------------------------------------------------------------------------------

  local function save(run, x, scale)
    local writer <close>, why, code = native.writer(part(run, x.input), { { name = "scale", type = "f32",
      dims = { #scale } } }, {})
    if not writer then return nil, why, code end
    local ok
    ok, why, code = writer:put("scale", scale)
    if ok then ok, why, code = writer:close() end
    if not ok then return nil, why, code end
    ok, why = run.log:write(line_of(x))
    return ok, why, "QN_E_IO"
  end

  -- The scale that a file of an earlier run has, or nil.
  local function read(run, x)
    local m = q.model(part(run, x.input))
    return m and m.handle:numbers "scale"
  end

  local function search(run, x, options, calibration)
    local weights = {}
    for i, site in ipairs(x.readers) do
      local c = run.by_site[site]
      local w, why, code = run.decoder:weight(site)
      if not w then return nil, why, code end
      weights[i] = { w, c.n, q.descriptor(c.format) }
    end
    local scale, found, code = native.awq_search(calibration, weights,
      { scales = options.scales, threads = options.threads })
    if not scale then return nil, ("%s: %s"):format(x.name, found), code end
    x.found = found
    local ok, why
    ok, why, code = save(run, x, scale)
    return ok and scale, why, code
  end

  -- Scales of the inputs in the list, those in `known` from an earlier run: input -> buffer. What the text tells too
  -- little of goes to `kept`.
  local function find(run, options, list, kept, known, too_few)
    local scales, wanted, at = {}, {}, {}
    for _, x in ipairs(list) do
      x.found = known[x.input]
      scales[x.input] = x.found and read(run, x)
      if not scales[x.input] then
        wanted[#wanted + 1] = x.readers[1]
        at[x.readers[1]] = x
      end
    end
    local calibration <close>, wrong, fault = native.calibration(run.decoder.handle, nil, options.windows.handle,
      { see = native.see_products, threads = options.threads }, wanted)
    if not calibration then return nil, wrong, fault end
    for i = 0, #wanted do
      local x = at[wanted[i + 1]]
      if options.progress and x then
        options.progress { phase = "scale", variant = x.name, done = i, total = #wanted }
      end
      local site, tokens, code = calibration:next()
      if not site then return nil, tokens, code end
      local why = site > 0 and too_few(tokens, options.windows)
      if why then
        kept[#kept + 1] = { name = at[site].name, why = why }
      elseif site > 0 then
        scales[at[site].input], why, code = search(run, at[site], options, calibration)
        if not scales[at[site].input] then return nil, why, code end
      end
      collectgarbage() -- which does not see by itself what weights weigh
    end
    return scales
  end

  -- ---- The model ----------------------------------------------------------------------------------------------------

  -- Find scales for the chosen layers of a run of q.calibrate and put them into its decoders. run.scaled: list of
  -- { name, exponent, output2, before2, scaled2 }; run.kept: of { name, why }, of what is not scaled; run.norms: stored
  -- name -> buffer in its type. True, or nil, message, code.
  function scaling.apply(run, options, known, too_few)
    local list, kept = inputs_of(run)
    local scales, why, code = find(run, options, list, kept, known, too_few)
    if not scales then return nil, why, code end
    run.scaled, run.kept, run.norms = {}, kept, {}
    for _, x in ipairs(list) do
      local scale = scales[x.input]
      if scale and x.found.exponent >= 0 then
        local ok
        for _, d in ipairs { run.decoder, run.original } do
          ok, why, code = d:scale(x.input, scale)
          if not ok then return nil, ("%s: %s"):format(x.name, why), code end
        end
        if x.giver.norm then run.norms[x.giver.norm] = run.decoder:norm(x.input) end
      end
      if scale then
        x.found.name = x.name
        table.insert(run.scaled, x.found)
      end
    end
    return true
  end

  return scaling
end
