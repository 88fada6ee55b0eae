-- units.lua - what each part of a model takes in each of a few formats: bits, divergence, time.
--
-- Every unit (bits.lua) is put into every format, alone, all else as it is, and evaluated on a few windows, none of
-- which is evaluated later. The planes are those of checkpoints that are wholly in one of the formats: the bases. For
-- its time each base is run with its kernels, in turns: a step of decoding tells what each product takes, in the model
-- and with the caches as they are there, and what the rest takes.

local bits, choice = require "lua.tradeoff.bits", require "lua.tradeoff.choice"
local run = require "lua.tradeoff.run"

return function(q)
  -- Every one has groups, for an input has a scale for each group of the weight (candidates.narrow): with one for a row
  -- inputs lose more than weights of 8 bits do, and losses are those of weights alone.
  local units = { formats = { "int2.g32.z", "int3.g64.z", "int4.g64.z", "int8.g32" } }
  local windows = 16 -- at most

  -- ---- What can be known before anything is measured ----------------------------------------------------------------

  -- The parts of a model: { units = those of bits.lua with options = { { format, bits }… }, sites, weights = how many,
  -- beside = bytes of what is in no unit }.
  function units.of(model, decoder)
    local m, covered = { sites = decoder:sites(), weights = 0, beside = 0 }, {}
    m.units = bits.units(m.sites, function(site)
      local t = model.by_name[site.name]
      return t and t.linear and not t.tied_to
    end)
    for _, unit in ipairs(m.units) do
      m.weights, unit.options = m.weights + unit.weights, {}
      for i, format in ipairs(units.formats) do
        local o = { format = q.resolve(format).name, bits = 0 }
        for _, at in ipairs(unit.sites) do
          local site = m.sites[at]
          o.bits, covered[site.name] = o.bits + q.weight_bits(format, site.n, site.k), true
        end
        unit.options[i] = o
      end
    end
    for _, x in ipairs(model:stored()) do if not covered[x.weight] then m.beside = m.beside + x.bytes end end
    return m
  end

  -- The least and the most that all units can take of `cost`, a field of their options.
  function units.ends(m, cost)
    local least, most = 0, 0
    for _, unit in ipairs(m.units) do
      local low, high = math.huge, 0
      for _, o in ipairs(unit.options) do low, high = math.min(low, o[cost]), math.max(high, o[cost]) end
      least, most = least + low, most + high
    end
    return least, most
  end

  -- ---- Divergence ---------------------------------------------------------------------------------------------------

  -- Put the planes of a checkpoint into a decoder's sites; without one, what was there before. nil, message.
  local function exchange(d, unit, checkpoint)
    for _, i in ipairs(unit.sites) do
      local site, planes, why, ok = d:sites()[i], nil, nil, nil
      if checkpoint then planes, why = checkpoint:planes(site.name, site.slice) end
      if planes or not checkpoint then ok, why = d:replace(i, planes) end
      if not ok then return nil, why end
    end
    return true
  end

  -- The divergence that comes of a unit alone.
  local function loss_of(s, d, unit, checkpoint)
    local ok, why = exchange(d, unit, checkpoint)
    if not ok then return nil, why end
    local e
    e, why = run.blame(q.evaluate { decoder = d, windows = s.choosing.windows, reference = s.choosing.reference,
      stop = windows, threads = s.threads })
    ok = exchange(d, unit)
    local loss = e and ok and e.kl and e.kl.mean
    return loss, not loss and (why or "its logits are no numbers") or nil
  end

  -- The loss of every option of a base: journalled one by one. True, or nil, message; nil alone if it is late.
  local function lose_as(s, d, m, notes, base, f, settings)
    local checkpoint, why
    for i, unit in ipairs(m.units) do
      settings.progress("units", base.weights, (f - 1) * #m.units + i - 1, #units.formats * #m.units)
      local key = ("unit %d as %s, on %s"):format(i, base.weights, s.choosing.windows.hash)
      local loss = notes:get(key)
      if not loss then
        if settings.late() then return nil end
        if not checkpoint then checkpoint, why = run.blame(s:checkpoint(base)) end
        if not checkpoint then return nil, why end
        loss, why = loss_of(s, d, unit, checkpoint)
        if not loss then return nil, ("%s as %s: %s"):format(m.sites[unit.sites[1]].name, base.weights, why) end
        notes:put(key, loss)
      end
      unit.options[f].loss = loss
    end
    return true
  end

  -- Give every option its loss. s: steps.lua's; bases: a candidate for each format; settings: progress as of run.all,
  -- late() = is there no time left? True, or nil, message; nil alone if it is late.
  function units.lose(s, m, notes, bases, settings)
    local d <close>, why = run.blame(q.decoder(s.model, { threads = s.threads, share = 2 })) -- beside the original
    if not d then return nil, why end
    for f, base in ipairs(bases) do
      local ok
      ok, why = lose_as(s, d, m, notes, base, f, settings)
      if not ok then return nil, why end
    end
    return true
  end

  -- ---- Time ---------------------------------------------------------------------------------------------------------

  local function shape(site) return ("%dx%d"):format(site.n, site.k) end

  -- Of the seconds of each site in a step: what a product of each shape takes, and what all but the units does. Of
  -- experts only some are multiplied in a step; the mean is over all.
  local function by_shape(m, t)
    local mean, count, rest = {}, {}, t.seconds
    for _, unit in ipairs(m.units) do
      for _, i in ipairs(unit.sites) do
        local key = shape(m.sites[i])
        mean[key], count[key] = (mean[key] or 0) + t.sites[i], (count[key] or 0) + 1
        rest = rest - t.sites[i]
      end
    end
    for key, n in pairs(count) do mean[key] = mean[key] / n end
    return { shapes = mean, rest = rest }
  end

  -- Rounds of each base, in turns, each noted. As units.lose.
  local function rounds_of(s, m, notes, bases, settings)
    local out = {}
    for round = 1, choice.rounds do
      for f, base in ipairs(bases) do
        settings.progress("time", base.kernels, (round - 1) * #bases + f - 1, choice.rounds * #bases)
        local key = ("products of %s, round %d"):format(base.kernels, round)
        local known = notes:get(key)
        if not known then
          if settings.late() then return nil end
          local t, why = run.blame(s:pass(base, "decode", 1))
          if not t then return nil, ("%s: %s"):format(base.name, why) end
          known = notes:put(key, by_shape(m, t))
        end
        out[f] = out[f] or {}
        out[f][round] = known
      end
    end
    return out
  end

  -- Give every option the seconds that its unit takes in a step of decoding, m.rest those of what is in no unit: the
  -- middle of the rounds. work: steps of run.all; settings: seconds() = how many are left, too. As units.lose.
  function units.time(s, m, work, notes, bases, settings)
    local ready = run.prepare(bases, { budget = settings.seconds(), progress = settings.progress }, work, notes)
    for _, base in ipairs(bases) do if base.broken then return nil, ("%s: %s"):format(base.name, base.broken) end end
    if not ready then return nil end
    local rounds, why = rounds_of(s, m, notes, bases, settings)
    if not rounds then return nil, why end
    local rest = {}
    for f, of_base in ipairs(rounds) do
      for _, x in ipairs(of_base) do rest[#rest + 1] = x.rest end
      for _, unit in ipairs(m.units) do
        unit.options[f].seconds = 0
        for _, i in ipairs(unit.sites) do
          local each = {}
          for r, x in ipairs(of_base) do each[r] = x.shapes[shape(m.sites[i])] end
          unit.options[f].seconds = unit.options[f].seconds + choice.middle(each).mean
        end
      end
    end
    m.rest = choice.middle(rest).mean
    return true
  end

  return units
end
