-- mixed.lua - candidates with a format for each part of the model: the least divergence within so many bits, bytes, or
-- seconds a token.

local bits = require "lua.tradeoff.bits"

return function(q)
  local units = q.import "lua.tradeoff.units" (q)
  local mixed = {}

  -- What may be limited. field: of q.tradeoff's argument; asked, name: how that is told, in units of `scale`, and what
  -- the candidate is called; fills: it is a limit of all candidates, and a mixture fills it; cost: the field of a
  -- unit's option that adds up; left(m, limit): what units (m: units.of) may take of it; tell(m, sum): what is taken if
  -- they take `sum`.
  local kinds = {
    { field = "bits", asked = "--bits %g", name = "mixed-%g-bits", scale = 1, cost = "bits",
      left = function(m, limit) return limit * m.weights end,
      tell = function(m, sum) return ("%.2f bits a weight"):format(sum / m.weights) end },
    { field = "target", asked = "--target-ms %g", name = "mixed-%g-ms", scale = 1e-3, cost = "seconds",
      left = function(m, limit) return limit - m.rest end,
      tell = function(m, sum)
        return ("%.3f ms a token, of which %.3f ms are for what is not quantized"):format((m.rest + sum) * 1e3,
          m.rest * 1e3)
      end },
    { field = "memory", asked = "--memory %g MB", name = "mixed-%g-MB", scale = 1e6, cost = "bits", fills = true,
      left = function(m, limit) return 8 * (limit - m.beside - m.cache) end,
      tell = function(m, sum)
        return ("%.2f MB, of which %.2f MB are not quantized, and %.2f MB keys and values"):format(
          (m.beside + m.cache + sum / 8) / 1e6, m.beside / 1e6, m.cache / 1e6)
      end },
  }

  local function asked(wish) return wish.kind.asked:format(wish.value / wish.kind.scale) end

  -- Why nothing is within a limit: a sentence with the least that there is; nil: there is something.
  local function too_small(m, wish)
    local least = units.ends(m, wish.kind.cost)
    if wish.kind.left(m, wish.value) >= least then return nil end
    return ("%s: the least is %s"):format(asked(wish), wish.kind.tell(m, least))
  end

  -- Is a mixture wanted for this wish? Raises for what cannot be: a limit of bits or memory is known to be too small
  -- before anything is measured. Memory is filled by a mixture unless candidates are listed, or there is room for all
  -- units in the largest of the formats; too little of it may yet do for a candidate that is listed.
  local function wanted(wish, t, m)
    local kind, fills = wish.kind, wish.kind.fills
    if not wish.value or fills and t.only then return false end
    q.check.that(t.calibrate or fills, nil,
      "%s: formats are chosen on a text that is not compared on: it needs --calibrate FILE", asked(wish))
    if kind.cost ~= "bits" then return true end
    local why, _, most = too_small(m, wish), units.ends(m, kind.cost)
    q.check.that(not why or fills and t.candidates, nil, "%s", why)
    return t.calibrate and not why and not (fills and kind.left(m, wish.value) >= most)
  end

  -- The mixtures that are asked for, { kind, value }, and the units of the model. t: of q.tradeoff; cache: bytes of
  -- keys and values that count in memory.
  function mixed.wishes(t, model, decoder, cache)
    local m, out = units.of(model, decoder), {}
    m.cache = cache
    for _, kind in ipairs(kinds) do
      local wish = { kind = kind, value = t[kind.field] }
      if wanted(wish, t, m) then out[#out + 1] = wish end
    end
    return out, m
  end

  -- ---- Candidates ---------------------------------------------------------------------------------------------------

  -- All that the wishes need to know of the units; as units.lose.
  local function measure(s, m, wishes, work, notes, bases, settings)
    local deadline, timed = work.clock() + (settings.budget or math.huge), false
    local o = { progress = settings.progress, late = function() return work.clock() >= deadline end,
      seconds = function() return deadline - work.clock() end }
    local ok, why = units.lose(s, m, notes, bases, o)
    for _, wish in ipairs(wishes) do timed = timed or wish.kind.cost == "seconds" end
    if ok and timed then ok, why = units.time(s, m, work, notes, bases, o) end
    return ok, why
  end

  local function choose(m, c, wish)
    local cost = wish.kind.cost
    local chosen, sum, loss = bits.choose(m.units, cost, wish.kind.left(m, wish.value))
    if not chosen then
      c.broken = too_small(m, wish)
      return
    end
    c.formats, c.predicted = {}, { kl = loss, seconds = cost == "seconds" and m.rest + sum or nil }
    for i, unit in ipairs(m.units) do
      for _, at in ipairs(unit.sites) do c.formats[m.sites[at].name] = chosen[i].format end
    end
  end

  -- A candidate for each of wishes (not empty). s: steps.lua's, with choosing = { windows, reference }; work: steps of
  -- run.all; settings: budget (seconds, nil: no end), progress as of run.all, method, act, new (candidates.new).
  -- -> list: candidates are broken if they cannot be made or if there is none so small, and without formats if the
  -- budget ended before.
  function mixed.candidates(s, m, wishes, work, notes, settings)
    local function new(format) return settings.new(format, settings.method, settings.act) end
    local bases, out = {}, {}
    for i, format in ipairs(units.formats) do bases[i] = new(q.resolve(format).name) end
    local ok, why = measure(s, m, wishes, work, notes, bases, settings)
    for i, wish in ipairs(wishes) do
      local c = new(wish.kind.name:format(wish.value / wish.kind.scale))
      c.broken, c.target = why, wish.kind.field == "target" and wish.value or nil
      if ok then choose(m, c, wish) end
      out[i] = c
    end
    return out
  end

  return mixed
end
