-- target.lua - what became of a candidate that was made for a time a token (mixed.lua): does it take that, and is it
-- faster than any that is in one format? Pure functions over candidates (choice.lua).

local choice = require "lua.tradeoff.choice"
local target = {}

local function ms(seconds) return ("%.4g ms"):format(1000 * seconds) end

-- Of what is as near the original in one format, the fastest; nil: there is none.
local function rival(c, list)
  local out
  for _, u in ipairs(list) do
    local t = choice.at(u.decode, 1)
    if not u.formats and not u.dense and not u.broken and not u.stopped and t and u.kl and u.kl.mean <= c.kl.mean
      and (not out or t.ratio.mean > choice.at(out.decode, 1).ratio.mean) then out = u end
  end
  return out
end

-- Why a mixture is not faster than a rival: from what it was chosen.
local function why_not(c, u)
  local mixed = {}
  for _, format in pairs(c.formats) do mixed[format] = true end
  if u.act ~= c.act then return ("its activations are %s, and those of the mixture %s"):format(u.act, c.act) end
  if not mixed[u.format] then return ("%s is not among its formats"):format(u.format) end
  return ("predicted of its parts alone were %s and KL %.2g"):format(ms(c.predicted.seconds), c.predicted.kl)
end

local function against(c, list)
  local u = rival(c, list)
  if not u then return "No candidate in one format that was timed is as near the original" end
  local a, b = choice.at(c.decode, 1), choice.at(u.decode, 1)
  local about = ("%s, the fastest in one format that is as near the original (%s, KL %.2g)"):format(u.name,
    ms(1 / b.rate.mean), u.kl.mean)
  if choice.alike(a.ratio, b.ratio) then
    return ("Its time cannot be told from that of %s: %s"):format(about, why_not(c, u))
  end
  local gain = a.ratio.mean / b.ratio.mean
  if gain > 1 then return ("It is %.2fx as fast as %s"):format(gain, about) end
  return ("It is not faster than %s: %s"):format(about, why_not(c, u))
end

-- A sentence or two of each candidate that has a target and was timed; nil: there is none.
function target.said(list)
  local out = {}
  for _, c in ipairs(list) do
    local t = c.target and not c.broken and choice.at(c.decode, 1)
    if t then
      local takes = ("%s takes %s a token (%s to %s), predicted were %s"):format(c.name, ms(1 / t.rate.mean),
        ms(1 / t.rate.high), ms(1 / t.rate.low), ms(c.predicted.seconds))
      out[#out + 1] = ("%s: the target of %s is %s. %s."):format(takes, ms(c.target),
        1 / t.rate.mean <= c.target and "met" or "missed",
        c.stopped and ("It was given up: %s"):format(c.stopped) or against(c, list))
    end
  end
  return #out > 0 and table.concat(out, " ") or nil
end

return target
