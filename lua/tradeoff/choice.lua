-- choice.lua - which candidates are still worth an evaluation, and which are the picture's front. Pure functions.
--
-- A candidate, as far as it is measured:
--   name, format, method, act
--   bytes          that stay in memory
--   kl             estimate: divergence from the original, nats a token
--   delta          estimate: cross-entropy minus that of the original on the same windows, nats a token
--   windows        list of { kl = … }, one for each window so far, in the order in which windows are evaluated
--   decode, prefill  { { m =, ratio = estimate }… }: of m sequences, or a prompt of m tokens, the time of 16-bit dense
--                  divided by its own; absent: not timed. Also linear, the share of its time in linear layers
--   tasks          { { name =, accuracy =, difference = estimate in points of 100, worse =, better = (answers that
--                  changed), mcnemar =, equivalence = (p, at a margin of 2 points) }… }
--   dense          it is that 16-bit dense
--   hurried        seconds in which an earlier run tuned its kernels, with much less time than there is now
--   formats        of a mixture (mixed.lua): name of a tensor -> format; predicted = { kl, seconds of a step or nil }
--   target         seconds that a step of decoding may take, if it was made for that
--   broken         why no number of it may be used
--
-- An estimate is { mean, low, high, n }: of n windows, with the 95 % interval of their mean; or the middle of n rounds.
-- An interval of which nothing is known has no ends.

local choice = {}

-- ---- Estimates ------------------------------------------------------------------------------------------------------

choice.mean = nil -- function(list of numbers) -> { mean, low, high, df }: set by lua/tradeoff.lua

-- Of a mean with its interval, of n numbers; of one number the interval has no end.
function choice.estimate(x, n)
  return { mean = x.mean, low = x.low or -math.huge, high = x.high or math.huge, n = n }
end

-- Is a's divergence less than b's for certain? By the differences on the windows that both have.
local function closer(a, b)
  local differences = {}
  for i = 1, math.min(#a.windows, #b.windows) do differences[i] = a.windows[i].kl - b.windows[i].kl end
  return #differences > 1 and choice.mean(differences).high < 0
end

choice.rounds = 6 -- how often everything is timed

-- Of times: the median, and all there is between the least and the most. The true median lies in there with a chance of
-- 97 % for six rounds; of fewer the interval has no end. What disturbs a single round moves the median little.
function choice.middle(list)
  local x, n = table.move(list, 1, #list, 1, {}), #list
  table.sort(x)
  local mean, all = (x[(n + 1) // 2] + x[n // 2 + 1]) / 2, n >= choice.rounds
  return { mean = mean, low = all and x[1] or 0, high = all and x[n] or math.huge, n = n }
end

-- Can two such times not be told apart? The middle of each lies in the interval of the other.
function choice.alike(a, b)
  return a.low <= b.mean and b.mean <= a.high and b.low <= a.mean and a.mean <= b.high
end

-- What was measured at m, of `decode` or `prefill`; nil: nothing.
function choice.at(times, m)
  for _, x in ipairs(times or {}) do if x.m == m then return x end end
end

-- ---- Domination -----------------------------------------------------------------------------------------------------

-- Do two candidates run the same kernels? Methods of one format do.
local function same_kernels(a, b) return a.format == b.format and a.act == b.act end

-- Is a no slower than b when it decodes one token, for certain?
local function no_slower(a, b)
  if same_kernels(a, b) then return true end
  local x, y = choice.at(a.decode, 1), choice.at(b.decode, 1)
  return x and y and x.ratio.low >= y.ratio.high
end

-- The candidate that makes another pointless: no larger, no slower, and closer to the original, all of it for certain.
-- nil if there is none.
function choice.dominator(c, list)
  for _, d in ipairs(list) do
    if d ~= c and not d.broken and closer(d, c) and d.bytes <= c.bytes and no_slower(d, c) then return d end
  end
end

-- One round of successive halving: candidates that go on to more windows; of the others, name -> why.
function choice.survivors(list)
  local out, why = {}, {}
  for _, c in ipairs(list) do
    local d = not c.broken and not c.dense and choice.dominator(c, list)
    if c.broken then
      why[c.name] = c.broken
    elseif d then
      why[c.name] = ("%s is no larger, no slower and closer to the original"):format(d.name)
    else
      out[#out + 1] = c
    end
  end
  return out, why
end

-- The front of the picture, name -> true: nobody has less divergence at no more of `cost`, a function of a candidate.
-- Candidates without that cost are left out.
function choice.front(list, cost)
  local order, out, best = {}, {}, math.huge
  for _, c in ipairs(list) do if not c.broken and c.kl and cost(c) then order[#order + 1] = c end end
  table.sort(order, function(a, b)
    if cost(a) ~= cost(b) then return cost(a) < cost(b) end
    if a.kl.mean ~= b.kl.mean then return a.kl.mean < b.kl.mean end
    return a.name < b.name
  end)
  for _, c in ipairs(order) do
    if c.kl.mean < best then out[c.name], best = true, c.kl.mean end
  end
  return out
end

return choice
