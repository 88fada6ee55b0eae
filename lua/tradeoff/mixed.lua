-- mixed.lua - a candidate with a format for each part of the model, chosen from what each part alone costs.
--
-- Every unit (bits.lua) is put into every format, alone, all else as it is, and evaluated on a few windows. The planes
-- are those of a checkpoint that is wholly in that format.

local bits = require "lua.tradeoff.bits"

return function(q)
  local mixed = {}
  local formats = { "int2.g32.z", "int3.g64.z", "int4.g64.z", "int8.row" }
  local windows = 8

  -- Put the planes of a checkpoint into a decoder's sites; without one, what was there before. nil, message.
  local function exchange(d, unit, m)
    for _, i in ipairs(unit.sites) do
      local site, planes, why, ok = d:sites()[i], nil, nil, nil
      if m then planes, why = m:planes(site.name, site.slice) end
      if planes or not m then ok, why = d:replace(i, planes) end
      if not ok then return nil, why end
    end
    return true
  end

  -- The divergence that comes of a unit alone.
  local function loss_of(s, d, unit, m)
    local ok, why = exchange(d, unit, m)
    if not ok then return nil, why end
    local e
    e, why = q.evaluate { decoder = d, windows = s.scored, reference = s.reference, stop = windows,
      threads = s.threads }
    ok = exchange(d, unit)
    local loss = e and ok and e.kl and e.kl.mean
    return loss, not loss and (why or "its logits are no numbers") or nil
  end

  -- Bits a weight of a unit in a checkpoint.
  local function cost_of(d, unit, m)
    local sum = 0
    for _, i in ipairs(unit.sites) do
      local site = d:sites()[i]
      sum = sum + m.by_name[site.name].bpw * site.n * site.k
    end
    return sum
  end

  -- The units with their options, { format, cost = bits, loss = KL }: journalled one by one. nil, message; nil alone if
  -- there is no time left.
  local function measure(s, notes, bases, progress, late)
    local d <close>, why = q.decoder(s.model, { threads = s.threads })
    if not d then return nil, why end
    local units = bits.units(d:sites(), function(site)
      local t = s.model.by_name[site.name]
      return t and t.linear and not t.tied_to
    end)
    for f, base in ipairs(bases) do
      local m
      for i, unit in ipairs(units) do
        progress("units", base.weights, (f - 1) * #units + i - 1, #bases * #units)
        local key = ("unit %d as %s"):format(i, base.weights)
        local loss = notes:get(key)
        if not loss and late() then return nil end
        if not m then m, why = s:checkpoint(base) end
        if not m then return nil, why end
        if not loss then
          loss, why = loss_of(s, d, unit, m)
          if not loss then return nil, ("%s as %s: %s"):format(d:sites()[unit.sites[1]].name, base.weights, why) end
          notes:put(key, loss)
        end
        unit.options = unit.options or {}
        unit.options[f] = { format = base.format, cost = cost_of(d, unit, m), loss = loss }
      end
    end
    return units, d:sites()
  end

  -- Name of a tensor -> its format, so that there are `wanted` bits a weight on average; as measure.
  local function chosen_formats(s, notes, wanted, bases, progress, late)
    local units, sites = measure(s, notes, bases, progress, late)
    if not units then return nil, sites end
    local weights, out = 0, {}
    for _, unit in ipairs(units) do weights = weights + unit.weights end
    local chosen, least = bits.choose(units, wanted * weights)
    if not chosen then
      return nil, ("--bits %g: the least that there is are %.2f bits a weight"):format(wanted, least / weights)
    end
    for i, unit in ipairs(units) do
      for _, site in ipairs(unit.sites) do out[sites[site].name] = chosen[i].format end
    end
    return out
  end

  -- The candidate of so many bits a weight on average: broken if it cannot be made, or if there is none so small;
  -- without formats if it was late(). candidate: makes one of a format, a method and a type of activations.
  function mixed.candidate(s, notes, wanted, method, act, candidate, progress, late)
    local bases, c = {}, candidate(("mixed-%g"):format(wanted), method, act)
    for i, format in ipairs(formats) do bases[i] = candidate(q.resolve(format).name, method, act) end
    local found, why = chosen_formats(s, notes, wanted, bases, progress, late)
    c.formats, c.broken = found or {}, why
    return c
  end

  return mixed
end
