-- verdict.lua - what the measured numbers say, in sentences that carry them. Pure functions over candidates
-- (choice.lua).
--
-- The rules:
--   a candidate is *within the margin* if the whole interval of its delta is, ln(1 + margin) either way.
--   It is *tied* with the original if, besides, its divergence is for certain at most twice the floor: that is what it
--   costs to round weights and activations of the original to bf16.
--   It is *slower* if 16-bit dense takes less time for one token. A slower one is never taken, whatever its size. Nor
--   is one that was not timed, is broken, or needs more memory than there is.
--   Of those that are left the fastest is taken. Where times cannot be told apart, the smallest of those: the middle of
--   each lies in the interval of the other.
--   At a task it may be worse by two points of 100: one that is worse by more for certain is beyond the margin, too.
--   Where the margin lies inside an interval, the text is too short; the interval shrinks with the root of the windows.

local choice, target = require "lua.tradeoff.choice", require "lua.tradeoff.target"
local verdict = {}

-- ---- Classes --------------------------------------------------------------------------------------------------------

local task_margin = 2 -- points of 100

-- A task at which it is worse than the original by more than the margin, for certain; nil: there is none.
local function worse_at(c)
  for _, t in ipairs(c.tasks or {}) do if (t.difference.high or 0) < -task_margin then return t end end
end

local function accuracy(c, limit, floor)
  if c.broken then return "broken" end
  if not c.delta then return "untried" end
  local d = c.delta
  if d.low > limit or d.high < -limit or worse_at(c) then return "outside" end
  if c.stopped then return "stopped" end
  if d.low < -limit or d.high > limit then return "undecided" end
  return c.kl.high <= 2 * floor and "tied" or "within"
end

-- How many windows more would put the margin outside the interval of a mean that stays where it is; nil: no number of
-- them, the mean lies on the margin.
local function windows_more(d, limit)
  local distance = math.abs(math.abs(d.mean) - limit)
  local wanted = d.n * ((d.high - d.low) / 2 / distance) ^ 2
  return wanted < 1e9 and math.max(1, math.tointeger(math.ceil(wanted) - d.n)) or nil
end

-- Numbers of tokens at which 16-bit dense is faster, sorted.
local function slower_at(times)
  local out = {}
  for _, t in ipairs(times or {}) do if t.ratio.mean < 1 then out[#out + 1] = t.m end end
  table.sort(out)
  return out
end

-- name -> { accuracy, more (windows), slower (M of decoding), slow_prefill, large, timed, eligible }
local function classify(list, s)
  local limit, out = math.log(1 + s.margin), {}
  for _, c in ipairs(list) do
    local x = { accuracy = accuracy(c, limit, s.floor), slower = slower_at(c.decode),
      slow_prefill = #slower_at(c.prefill) > 0,
      large = s.memory and c.bytes and c.bytes + (s.cache or 0) > s.memory or false,
      timed = choice.at(c.decode, 1) ~= nil }
    if x.accuracy == "undecided" then x.more = windows_more(c.delta, limit) end
    x.close = x.accuracy == "tied" or x.accuracy == "within"
    x.eligible = x.close and x.timed and x.slower[1] ~= 1 and not x.large and not c.dense
    out[c.name] = x
  end
  return out
end

-- ---- The choice -----------------------------------------------------------------------------------------------------

local function best(list, before)
  local out
  for _, c in ipairs(list) do if not out or before(c, out) then out = c end end
  return out
end

local function smaller(a, b)
  if a.bytes ~= b.bytes then return a.bytes < b.bytes end
  if a.kl.mean ~= b.kl.mean then return a.kl.mean < b.kl.mean end
  return a.name < b.name
end

local function ratio(c) return choice.at(c.decode, 1).ratio end

-- The smallest of those whose time cannot be told from that of the fastest.
local function fastest(list)
  local first, tied = best(list, function(a, b) return ratio(a).mean > ratio(b).mean end), {}
  for _, c in ipairs(list) do
    if choice.alike(ratio(c), ratio(first)) then tied[#tied + 1] = c end
  end
  return best(tied, smaller)
end

local function select(list, keep)
  local out = {}
  for _, c in ipairs(list) do if keep(c) then out[#out + 1] = c end end
  return out
end

-- ---- Sentences ------------------------------------------------------------------------------------------------------

local function share(delta) return ("%+.2f%%"):format(100 * (math.exp(delta) - 1)) end
local function change(c)
  return ("perplexity %s [%s, %s], KL %.2g"):format(share(c.delta.mean), share(c.delta.low), share(c.delta.high),
    c.kl.mean)
end
local function speed(c)
  local r = ratio(c)
  local text = ("%.2fx 16-bit dense"):format(r.mean)
  if r.n == 1 then return text .. " in a single round, too few to be sure" end
  if r.low > 1 or r.high < 1 then return text end
  if r.n < choice.rounds then return ("%s in %d rounds, too few to be sure"):format(text, r.n) end
  return ("%s, which cannot be told from it (%.2fx to %.2fx)"):format(text, r.low, r.high)
end
local function megabytes(n) return (n < 1e6 and "%.2g MB" or "%.1f MB"):format(n / 1e6) end
local function size(c) return megabytes(c.bytes) end
local function names(list, tell)
  local out = {}
  for i, c in ipairs(list) do out[i] = tell and ("%s (%s)"):format(c.name, tell(c)) or c.name end
  return table.concat(out, ", ")
end
local function answers(t)
  local d = t.difference
  local text = "%s %.1f%%, %+.1f points [%s, %s], %d answers worse and %d better, McNemar p = %.2g, %s within %d points"
  return text:format(t.name, 100 * (t.accuracy or 0 / 0), d.mean, d.low and ("%+.1f"):format(d.low) or "?",
    d.high and ("%+.1f"):format(d.high) or "?", t.worse, t.better, t.mcnemar,
    t.equivalence < 0.05 and "equal" or "not shown to be equal", task_margin)
end
local function plain(list) -- "1, 8 and 64"
  local text = table.concat(list, ", ")
  return (text:gsub(", ([^,]*)$", " and %1"))
end

-- Each rule: the sentence that it adds, or nil. v is the verdict so far, s the settings.
local rules = {
  function(v, s)
    if not v.chosen then return end
    local c = v.chosen
    return ("Take %s: %s, %s, %s. The margin is %g%% of perplexity%s."):format(c.name, size(c), speed(c), change(c),
      100 * s.margin, s.memory and " and " .. megabytes(s.memory) or "")
  end,
  function(v)
    if not v.chosen then return end
    if v.smallest == v.chosen then return "It is the smallest of those that may be taken, too." end
    return ("The smallest that may be taken is %s: %s, %s, %s."):format(v.smallest.name, size(v.smallest),
      speed(v.smallest), change(v.smallest))
  end,
  function(v, s)
    if v.chosen then return end
    local near = best(select(v.list, function(c) return c.kl and not c.broken and not c.dense end),
      function(a, b) return a.kl.mean < b.kl.mean end)
    local there = #select(v.list, function(c) return c.dense and v.class[c.name].large end) == 0
    local text = ("%s: no candidate is within %g%% of perplexity%s, and faster."):format(
      there and "Stay with 16 bits" or "Nothing can be taken", 100 * s.margin,
      s.memory and ", fits " .. megabytes(s.memory) or "")
    return near and ("%s The nearest is %s: %s, %s."):format(text, near.name, size(near), change(near)) or text
  end,
  function(v, s)
    if #v.tied == 0 then return "No candidate is so near the original that this text cannot tell them apart." end
    return ("On this text %s cannot be told from the original: KL at most twice the floor of %.2g, which is what "
      .. "rounding to bf16 costs."):format(names(v.tied, change), s.floor)
  end,
  function(v)
    if #v.slower == 0 then return end
    return ("Not faster here than 16-bit dense, and not to be taken: %s."):format(names(v.slower, speed))
  end,
  function(v)
    local c = v.chosen
    local at = c and v.class[c.name].slower or {}
    if #at == 0 then return end
    return ("%s is slower than 16-bit dense when %s sequences decode at once."):format(c.name, plain(at))
  end,
  function(v)
    local c = v.chosen
    if not c or not v.class[c.name].slow_prefill then return end
    local m = slower_at(c.prefill)[1]
    return ("%s is slower than 16-bit dense in prefill, %.2fx at M = %d: do not take it for that."):format(c.name,
      choice.at(c.prefill, m).ratio.mean, m)
  end,
  function(v, s)
    local out = {}
    for _, c in ipairs(s.beside or {}) do
      for _, x in ipairs { { "decode", 1, "decoding" }, { "prefill", 512, "prefill" } } do
        local other, own = choice.at(c[x[1]], x[2]), choice.at(v.chosen and v.chosen[x[1]], x[2])
        if other and other.ratio.mean > math.max(1, own and own.ratio.mean or 1) then
          out[#out + 1] = ("%s is faster here in %s: %.2fx 16-bit dense."):format(c.name, x[3], other.ratio.mean)
        end
      end
    end
    return #out > 0 and table.concat(out, " ") or nil
  end,
  function(v) return target.said(v.list) end,
  function(v)
    if #v.outside == 0 then return end
    return ("Beyond the margin: %s."):format(names(v.outside, change))
  end,
  function(v)
    local out = {}
    for _, c in ipairs(v.list) do
      for _, t in ipairs(c.tasks or {}) do out[#out + 1] = ("%s %s"):format(c.name, answers(t)) end
    end
    if #out == 0 then return end
    return ("Tasks, against the original: %s."):format(table.concat(out, "; "))
  end,
  function(v)
    if #v.undecided == 0 then return end
    return ("The text is too short to tell for %s."):format(names(v.undecided, function(c)
      local more = v.class[c.name].more
      if c.delta.high == math.huge then return "so few windows have no interval" end
      return ("%s; %s"):format(change(c), more and more .. " windows more would do" or "its mean lies on the margin")
    end))
  end,
  function(v, s)
    if #v.large == 0 then return end
    return ("Larger than %s, with %s of keys and values: %s."):format(megabytes(s.memory), megabytes(s.cache or 0),
      names(v.large, size))
  end,
  function(v)
    if #v.untimed == 0 then return end
    return ("Not timed, and so not taken: %s."):format(names(v.untimed))
  end,
  function(v)
    if #v.stopped == 0 then return end
    return ("Given up after a few windows: %s."):format(names(v.stopped, function(c) return c.stopped end))
  end,
  function(v)
    if #v.untried == 0 then return end
    return ("Not tried, the budget ended before: %s."):format(names(v.untried))
  end,
  function(v)
    local hurried = select(v.list, function(c) return c.hurried end)
    if #hurried == 0 then return end
    return ("An earlier run had little time to tune these, and they may be faster: %s. Another folder (-o) tunes them "
      .. "anew; what was measured is in the store."):format(names(hurried, function(c)
        return ("%.0f s"):format(c.hurried)
      end))
  end,
  function(v)
    if #v.broken == 0 then return end
    return ("Broken: %s."):format(names(v.broken, function(c) return c.broken end))
  end,
}

-- settings: margin (share of perplexity, 0.005), floor (KL), memory (bytes or nil), cache (bytes of keys and values
-- that it must hold, too, or nil), beside (what was only timed, or
-- nil). The list must not be empty.
-- -> { chosen, smallest = names or nil; tied, within, outside, undecided, stopped, untried, broken, slower, large,
--      untimed = lists of names; class = name -> what was found; sentences = list }
function verdict.of(list, settings)
  local v = { list = list, class = classify(list, settings) }
  local function those(keep)
    return select(list, function(c) return keep(v.class[c.name], c) end)
  end
  for _, name in ipairs { "tied", "within", "outside", "undecided", "stopped", "untried", "broken" } do
    v[name] = those(function(x) return x.accuracy == name end)
  end
  v.slower = those(function(x, c) return x.slower[1] == 1 and not c.dense end)
  v.large = those(function(x) return x.large end)
  v.untimed = those(function(x, c) return x.close and not x.timed and not c.dense end)
  local eligible = those(function(x) return x.eligible end)
  v.chosen, v.smallest = #eligible > 0 and fastest(eligible) or nil, best(eligible, smaller)
  local out = { class = v.class, sentences = {} }
  for _, rule in ipairs(rules) do out.sentences[#out.sentences + 1] = rule(v, settings) end
  for _, key in ipairs { "tied", "within", "outside", "undecided", "stopped", "untried", "broken", "slower",
    "large", "untimed" } do
    out[key] = {}
    for i, c in ipairs(v[key]) do out[key][i] = c.name end
  end
  out.chosen, out.smallest = v.chosen and v.chosen.name, v.smallest and v.smallest.name
  return out
end

return verdict
