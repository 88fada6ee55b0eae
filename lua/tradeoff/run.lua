-- run.lua - the order of the work: which candidate is made, evaluated and timed when, and what is noted of it.
--
-- Successive halving: all weights on a few windows, as dense numbers; the methods that another of the same format beats
-- end there. The kernels of the others are tuned, tried on these windows, and timed, which ends candidates that are
-- beaten in size, time and divergence. What is left is evaluated on all windows, with its kernels. Every step is noted
-- in the journal, so that a run that was ended goes on; after the budget no step begins, and what there is stands.
--
-- `steps` does the work (lua/tradeoff/steps.lua; tests have their own):
--   steps.windows                            how many there are
--   steps.make(c) -> { bytes, bpw }          write the checkpoint of a candidate
--   steps.evaluate(c, n, kernels) -> scores  on the first n windows; kernels: with those that were tuned, else dense
--   steps.tune(c, seconds) -> true           its kernels; or seconds, if these were too few for all that is to be tried
--   steps.time(c, kind, m) -> { seconds, linear }    a pass, and what of it linear layers take: kind "decode" of m
--                                            sequences, or "prefill" of m tokens
--   steps.task(c, i) -> answers              to task i of steps.tasks, against the original's: c.tasks of choice.lua
--   steps.clock() -> seconds
-- Each returns nil, message, code for a candidate with which that does not work: it is broken, and the others go on.
-- What is no candidate's fault, as a full disk, ends the run: run.blame raises it. Scores are
-- { windows, kl, delta = estimates of q.evaluate, top1, w_kl = { … }, broken = number of tokens }.

local choice = require "lua.tradeoff.choice"
local run = {}

local few = 4 -- windows of the first evaluation
local moments = { { "decode", 1 }, { "decode", 8 }, { "decode", 64 }, { "prefill", 512 } }

-- ---- What was found out ---------------------------------------------------------------------------------------------

local function note_scores(c, s)
  if s.broken > 0 then
    c.broken = ("of %d tokens the logits are no numbers"):format(s.broken)
    return
  end
  c.kl, c.delta, c.top1 = choice.estimate(s.kl, s.windows), choice.estimate(s.delta, s.windows), s.top1
  c.windows = {}
  for i, kl in ipairs(s.w_kl) do c.windows[i] = { kl = kl } end
end

-- Of times by rounds, its own and those of 16-bit dense: what is known of a moment.
local function times_of(m, own, dense)
  local rates, ratios, linear = {}, {}, {}
  for i, t in ipairs(own) do
    rates[i], ratios[i], linear[i] = m / t.seconds, dense[i] and dense[i].seconds / t.seconds, t.linear / t.seconds
  end
  if #ratios == 0 then return nil end
  return { m = m, rate = choice.middle(rates), ratio = choice.middle(ratios), linear = choice.middle(linear) }
end

-- What returned nil, message, code failed by the candidate, or by the machine, QN_E_IO: that is raised, { why, code }.
function run.blame(value, why, code)
  if value == nil and code == "QN_E_IO" then error({ why = why, code = code }, 0) end
  return value, why
end

-- ---- The order ------------------------------------------------------------------------------------------------------

local go = {}
go.__index = go

-- The value of a step, known or done now; nil if there is no time left, or if the candidate breaks.
function go:step(c, key, work)
  local known = self.journal:get(key)
  if known ~= nil then return known end
  if self.steps.clock() >= self.deadline then
    self.late = true
    return nil
  end
  local value, why = run.blame(work())
  if value == nil then
    c.broken = why -- and it is tried again in the next run: memory may have been short
    return nil
  end
  self.journal:put(key, value)
  return value
end

-- visit(c) for all of the list that are not broken, with progress; before: how many visits of `total` were others'.
function go:each(phase, list, visit, before, total)
  for i, c in ipairs(list) do
    if self.late then return end
    self.progress(phase, c.name, (before or 0) + i - 1, total or #list)
    if not c.broken then visit(c) end
  end
end

function go:make(c)
  local made = self:step(c, "make " .. c.weights, function() return self.steps.make(c) end)
  if made then c.bytes, c.bpw = made.bytes, made.bpw end
  return made
end

function go:evaluate(c, n, kernels)
  local key = ("evaluate %s %d"):format(kernels and c.name or c.weights, n)
  local scores = self:step(c, key, function() return self.steps.evaluate(c, n, kernels) end)
  if scores then note_scores(c, scores) end
  return scores
end

function go:answer(c)
  c.tasks = {}
  for i in ipairs(self.steps.tasks) do
    c.tasks[#c.tasks + 1] = self:step(c, ("task %s %d"):format(c.name, i), function() return self.steps.task(c, i) end)
  end
end

-- End those that others beat.
function go:halve()
  local left, why = choice.survivors(self.list)
  for _, c in ipairs(self.list) do c.stopped = not c.broken and why[c.name] or nil end
  return left
end

-- A part of what is left of the budget for each kernel that must still be tuned: half of it is for what follows.
-- Kernels are not tuned again: then all that was measured with them would be void. c.hurried: seconds that they had in
-- an earlier run, if these were too few and there are more than twice as many now.
function go:tune(list)
  for i, c in ipairs(list) do
    local seconds = (self.deadline - self.steps.clock()) / 2 / (#list - i + 1)
    self.progress("tune", c.kernels, i - 1, #list)
    seconds = math.max(1, seconds)
    local took = self:step(c, "tune " .. c.kernels, function() return self.steps.tune(c, seconds) end)
    if not took and self.late then return end
    c.hurried = type(took) == "number" and seconds > 2 * took and took or nil
  end
end

-- A number for what is timed together: rounds of another list were other rounds.
function go:turns(list)
  local kernels = {}
  for i, c in ipairs(list) do kernels[i] = c.kernels end
  table.sort(kernels)
  local key = "in turns: " .. table.concat(kernels, ", ")
  local number = self.journal:get(key)
  if number then return number end
  return self.journal:put(key, self.journal:put("turns", (self.journal:get "turns" or 0) + 1))
end

-- In turns: in each round everything once, so that what the machine does meanwhile hits all alike.
function go:time(list)
  local taken, turns = {}, self:turns(list) -- kernels, kind and m -> seconds by rounds
  local function key(c, moment) return ("time %s %s %d"):format(c.kernels, moment[1], moment[2]) end
  for round = 1, choice.rounds do
    self:each("time", list, function(c) -- moment by moment: it need not be opened more than once
      for _, moment in ipairs(moments) do
        local name = key(c, moment)
        local t = self:step(c, ("%s, turns %d, round %d"):format(name, turns, round), function()
          return self.steps.time(c, moment[1], moment[2])
        end)
        taken[name] = taken[name] or {}
        if t then taken[name][round] = t end
      end
    end, (round - 1) * #list, choice.rounds * #list)
  end
  local dense
  for _, c in ipairs(list) do dense = c.dense and c or dense end
  for _, c in ipairs(list) do
    c.decode, c.prefill = {}, {}
    for _, moment in ipairs(moments) do
      local own = not c.broken and taken[key(c, moment)]
      local t = own and dense and times_of(moment[2], own, taken[key(dense, moment)] or {})
      if t then table.insert(c[moment[1]], t) end
    end
  end
end

local function start(list, settings, steps, journal)
  return setmetatable({ list = list, steps = steps, journal = journal, progress = settings.progress or function() end,
    deadline = settings.budget and steps.clock() + settings.budget or math.huge }, go)
end

-- Only write and tune a list of candidates. As run.all, which does not do it again.
function run.prepare(list, settings, steps, journal)
  local g = start(list, settings, steps, journal)
  g:each("try", list, function(c) g:make(c) end)
  g:tune(list)
  return not g.late
end

-- Do the work for a list of candidates, the 16-bit dense one among them. settings: budget (seconds; nil: no end),
-- progress(phase, name, done, total), beside (a list of what is only timed). -> was there time for all of it? The
-- candidates have what choice.lua says.
function run.all(list, settings, steps, journal)
  local g = start(list, settings, steps, journal)
  local n = math.min(few, steps.windows)
  g:each("try", list, function(c) if g:make(c) then g:evaluate(c, n) end end)
  g:tune(g:halve())
  g:each("try", g:halve(), function(c) g:evaluate(c, n, true) end)
  local timed = g:halve()
  g:time(table.move(settings.beside or {}, 1, #(settings.beside or {}), #timed + 1, timed))
  local last = g:halve()
  g:each("evaluate", last, function(c) g:evaluate(c, steps.windows, true) end)
  g:each("task", last, function(c) g:answer(c) end)
  return not g.late
end

return run
