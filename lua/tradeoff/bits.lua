-- bits.lua - a format for each part of a model, so that the whole loses least at a given cost. Pure functions.
--
-- A unit is what shares a format: linear layers that multiply the same input, as q, k and v do, or one alone. The
-- divergences of single units nearly add up (that is measured, not proved). So the best choice for a sum of costs is
-- where every step that is paid for gives at least as much for its cost as each that is not: the method of Lagrange.
-- Where the budget ends between two steps, what still fits is taken in the same order.

local bits = {}

-- Options of a unit from the cheapest on, of which each gives less for its cost than the one before: the lower convex
-- hull of loss over cost, a field of theirs.
local function hull(options, cost)
  local order, out = table.move(options, 1, #options, 1, {}), {}
  table.sort(order, function(a, b)
    if a[cost] ~= b[cost] then return a[cost] < b[cost] end
    return a.loss < b.loss
  end)
  local function gain(a, b) return (a.loss - b.loss) / (b[cost] - a[cost]) end
  for _, o in ipairs(order) do
    local last = out[#out]
    if not last or o[cost] > last[cost] and o.loss < last.loss then
      while #out > 1 and gain(out[#out - 1], out[#out]) <= gain(out[#out], o) do out[#out] = nil end
      out[#out + 1] = o
    end
  end
  return out
end

-- units: list of { options = { { loss =, … }… } }; cost: the field of an option that the budget bounds.
-- -> the option of each, the sums of that and of the losses; or nil and the least sum, if that is beyond the budget.
function bits.choose(units, cost, budget)
  local steps, chosen, sum = {}, {}, 0
  for i, unit in ipairs(units) do
    local h = hull(unit.options, cost)
    chosen[i], sum = h[1], sum + h[1][cost]
    for k = 2, #h do
      steps[#steps + 1] = { unit = i, from = h[k - 1], to = h[k], more = h[k][cost] - h[k - 1][cost],
        gain = (h[k - 1].loss - h[k].loss) / (h[k][cost] - h[k - 1][cost]) }
    end
  end
  if sum > budget then return nil, sum end
  table.sort(steps, function(a, b)
    if a.gain ~= b.gain then return a.gain > b.gain end
    if a.unit ~= b.unit then return a.unit < b.unit end
    return a.to[cost] < b.to[cost]
  end)
  for _, s in ipairs(steps) do
    if chosen[s.unit] == s.from and sum + s.more <= budget then chosen[s.unit], sum = s.to, sum + s.more end
  end
  local loss = 0
  for _, o in ipairs(chosen) do loss = loss + o.loss end
  return chosen, sum, loss
end

-- Units of a decoder's sites (d:sites()): lists of sites, those of a layer that share an input or a tensor. keep(site):
-- is it to be quantized?
function bits.units(sites, keep)
  local out, by_key = {}, {}
  for i, site in ipairs(sites) do
    local input, name = ("%d %d"):format(site.layer, site.input), site.name
    if keep(site) then
      local unit = by_key[name] or by_key[input]
      if not unit then
        unit = { layer = site.layer, sites = {}, weights = 0 }
        out[#out + 1] = unit
      end
      by_key[input], by_key[name] = unit, unit
      table.insert(unit.sites, i)
      unit.weights = unit.weights + site.n * site.k
    end
  end
  return out
end

return bits
