local common = require "lua.common"

local actions = {}
local hour, kept_days = 3600, 30 -- evaluations of other builds: whoever changes between two builds uses both

-- "SPELLING M=4"… -> a line for each problem, with its M in order.
local function problems(list)
  local ms, order = {}, {}
  for _, key in ipairs(list) do
    local spelling, m = key:match "^(.*) M=(%d+)$"
    if not ms[spelling] then
      ms[spelling] = {}
      order[#order + 1] = spelling
    end
    table.insert(ms[spelling], math.tointeger(m))
  end
  table.sort(order)
  for i, spelling in ipairs(order) do
    table.sort(ms[spelling])
    order[i] = ("%s at M = %s"):format(spelling, table.concat(ms[spelling], ", "))
  end
  return order
end

local function show_list(title, list)
  if #list > 0 then print(("  %s: %d"):format(title, #list)) end
  for _, x in ipairs(list) do print(("    %s: %s"):format(x.name or x.key, x.why)) end
end

local function day(t) return os.date("%Y-%m-%d %H:%M", t) end

-- ---- What of it a run here would use --------------------------------------------------------------------------------

-- The environments of this machine's devices: hash -> as in env.json.
local function environments_here(q)
  local here = {}
  for _, d in ipairs(q.devices()) do
    local hash, about = q.store.environment(d.name)
    if hash then here[hash] = about end
  end
  return here
end

-- Fields of an environment that may differ, as a person says them.
local fields = { { "compiler", "compiler" }, { "cpu", "CPU" }, { "model", "model" }, { "arch", "instruction sets" },
  { "threads", "threads" }, { "cache", "caches" }, { "sms", "SMs" }, { "smem", "shared memory" },
  { "regs", "registers" }, { "policy", "way of timing" }, { "schema", "form of entries" } }

local function differences(q, then_, now)
  local out = {}
  for _, f in ipairs(fields) do
    local a, b = then_[f[1]], now[f[1]]
    if type(a) == "table" then a, b = q.json(a), q.json(b) end
    if a ~= b then out[#out + 1] = ("%s %s, here %s"):format(f[2], a, b) end
  end
  return out
end

-- Would a run here use what an environment holds, and why not? A sentence.
local function use(q, e, here)
  local about, least = e.about or {}, nil
  local now = here[e.hash]
  if now and now.driver == about.driver then return "runs here use it" end
  if now then
    local text = "runs here use it, but it was begun under %s %s, and here is %s; tune --retime takes all times again"
    return text:format(now.target == "host" and "kernel" or "driver", about.driver, now.driver)
  end
  for _, x in pairs(here) do
    local list = x.target == about.target and differences(q, about, x)
    if list and (not least or #list < #least) then least = list end
  end
  if not least then return "no run here uses it: there is no device of its kind" end
  if #least == 1 and about.target == "host" and least[1]:find "^threads" then
    return ("runs here with --device host:%d use it"):format(about.threads)
  end
  return "no run here uses it: " .. table.concat(least, "; ")
end

-- Kernels that were timed, and that today's templates do not write, or write otherwise: list of { name, why }.
local function written_otherwise(q, root, e, here)
  local out, seen = {}, {}
  local store = here[e.hash] and q.store.open(root, here[e.hash].name)
  for _, entry in ipairs(store and common.check(store:entries "evidence") or {}) do
    local shape, hash = entry.key:match "^race [^:]+:(%d+x%d+):%S+ (%x+) "
    local name = entry.value.name
    if hash and not seen[hash] and not name:find "^function/" then
      seen[hash] = true
      local ok, v = pcall(common.variant, q, name, { shape = shape, device = here[e.hash].name })
      local why = not ok and "today's templates have no such kernel" or v.hash ~= hash and "its templates have changed"
      if why then out[#out + 1] = { name = name, why = why } end
    end
  end
  if store then store:close() end
  return out
end

-- A machine and its compiler, when it was measured, how much there is of it, and whether that is of use here.
local function show_machine(e)
  local about = e.about or {}
  print ""
  print(e.hash)
  print(("  %s: %s%s, %s, %s"):format(about.name or "?", about.product or "env.json is damaged",
    about.target == "host" and (", %d threads"):format(about.threads) or "", about.compiler or "?",
    about.driver or "?"))
  print(("  %s to %s, %s; compiled %d, evidence %d, plans %d, damaged %d"):format(day(e.first), day(e.last),
    common.bytes(e.bytes), e.artifacts, e.evidence, e.plans, e.damaged))
  if e.older > 0 then print(("  not read any more, as of an older version: %d; gc removes them"):format(e.older)) end
  print("  " .. e.use)
end

-- Its problems, and what of it is not used.
local function show_contents(e)
  for _, line in ipairs(problems(e.problems)) do print("  " .. line) end
  show_list("timed, and of no use to today's runs", e.stale)
  show_list("rejected, or not compiled", e.rejected)
  show_list("suspect, as runs went down in them", e.suspects)
end

-- What eval keeps, in numbers; nil: nothing.
local function evaluations(q, options)
  local out = { evaluations = 0, older = 0, bytes = 0, first = math.huge, last = 0 }
  for _, x in ipairs(common.check(q.store.evaluations(options.store))) do
    local kind = x.usable and "evaluations" or "older"
    out[kind], out.bytes = out[kind] + 1, out.bytes + x.bytes
    out.first, out.last = math.min(out.first, x.modified), math.max(out.last, x.modified)
  end
  return out.last > 0 and out or nil
end

local function show_evaluations(e)
  print ""
  print(("evaluations: %d, %s to %s, %s"):format(e.evaluations, day(e.first), day(e.last), common.bytes(e.bytes)))
  if e.older == 0 then return end
  print(("  of other builds of quernel: %d; gc removes those that were not written for %d days"):format(e.older,
    kept_days))
end

-- The machines of the store, each with whether runs here use it; and the environments of this machine.
local function machines(q, options)
  local list, here = common.check(q.store.list(options.store)), environments_here(q)
  for _, e in ipairs(list) do e.use = use(q, e, here) end
  return list, here
end

function actions.list(q, options)
  local list, evaluated = machines(q, options), evaluations(q, options)
  if options.json then
    print(q.json { machines = list, evaluations = evaluated })
    return
  end
  print(q.store.root(options.store))
  for _, e in ipairs(list) do
    show_machine(e)
    print(("  %s; rejected, or not compiled: %d; suspect: %d"):format(common.count(#problems(e.problems), "problem"),
      #e.rejected, #e.suspects))
  end
  if evaluated then show_evaluations(evaluated) end
  if #list == 0 and not evaluated then print "nothing was measured yet" end
end

-- All of the machines, or of the one whose hash begins so.
function actions.show(q, options)
  local list, here = machines(q, options)
  local wanted = {}
  for _, e in ipairs(list) do
    if e.hash:sub(1, #(options[2] or "")) == (options[2] or "") then wanted[#wanted + 1] = e end
  end
  if options[2] and #wanted ~= 1 then
    common.fail("%s of %s in the store begin with %q; quernel store list shows them", #wanted,
      common.count(#list, "machine"), options[2])
  end
  for _, e in ipairs(wanted) do e.stale = written_otherwise(q, options.store, e, here) end
  if options.json then
    print(q.json { machines = wanted })
    return
  end
  print(q.store.root(options.store))
  for _, e in ipairs(wanted) do
    show_machine(e)
    show_contents(e)
  end
  if #wanted == 0 then print "nothing was measured yet" end
end

-- Entries about one thing, by any of its names.
function actions.forget(q, options)
  local what, n = options[2], 0
  if what == "eval" then
    n = common.check(q.store.forget_evaluations(options.store, function() return true end))
  end
  local names = { [what] = true }
  for _, target in ipairs { "host", "cuda" } do
    local ok, problem = pcall(q.problem, what, target)
    if ok then names[problem.spelling] = true end
  end
  for name in pairs(names) do n = n + common.check(q.store.forget(options.store, name)) end
  if n == 0 then common.fail("the store knows nothing of %q; quernel store show says what it knows", what) end
  print(("forgotten: %d entries; the next run takes them anew"):format(n))
end

function actions.verify(q, options)
  local list = common.check(q.store.verify(options.store))
  if options.json then print(q.json(list)) end
  for _, x in ipairs(options.json and {} or list) do print(x.path .. ": " .. x.what) end
  if not options.json then print(("%d files are damaged"):format(#list)) end
  return #list > 0 and 1 or 0
end

local function counts(q, options, c)
  if options.json then print(q.json(c)) return end
  print(("copied %d, replaced %d, kept %d, same %d, damaged %d, removed %d"):format(
    c.copied, c.replaced, c.kept, c.same, c.damaged, c.removed))
end
function actions.gc(q, options)
  local age, now = common.number(options, "age", 0), os.time()
  local c = common.check(q.store.gc(options.store, age or hour))
  c.removed = c.removed + common.check(q.store.forget_evaluations(options.store, function(x)
    return not x.usable and now - x.modified >= (age or kept_days * 24 * hour)
  end))
  counts(q, options, c)
end
function actions.import(q, options)
  counts(q, options, common.check(q.store.merge(options.store, options[2])))
end
function actions.export(q, options)
  counts(q, options, common.check(q.store.merge(options[2], common.check(q.store.root(options.store)))))
end

function actions.diff(q, options)
  local list = common.check(q.store.diff(options[2], options[3]))
  if options.json then print(q.json(list)) return end
  for _, x in ipairs(list) do
    local how = not x.a and "only in " .. options[3] or not x.b and "only in " .. options[2] or "differs"
    print(("%s %s: %s"):format(x.kind, x.key, how))
  end
  print(("%d entries differ"):format(#list))
end

-- Actions that take arguments: how many at least, and at most.
local takes = { show = { 0, 1 }, import = { 1, 1 }, export = { 1, 1 }, diff = { 2, 2 }, forget = { 1, 1 } }

return {
  name = "store", usage = "list|show|gc|export TO|import FROM|verify|diff A B|forget X",
  arguments = { 1, 3 },
  summary = "look after what was measured: list, show, tidy, carry over, check, compare, forget",
  about = [[
list names each machine with its compiler, when it was measured, how much there is, and whether runs here use it; if
not, what has changed. show says all of it, or of the machine whose hash begins so: the problems with their M, what was
rejected and why, and which kernels are of no use any more, as the templates write them otherwise. verify finds damaged
files. gc removes what nobody can use. export copies all into a folder, for another machine. import takes over what
such a folder or another store has, where that is new or rests on more samples. diff shows where two stores differ.
forget removes the timings and verdicts of a problem, a format, a variant (by name or hash) or one entry (by its key),
so that the next run takes them anew: after numbers that were taken while the machine was busy, or a kernel that was
rejected by mistake. Compiled kernels stay. What eval keeps is listed, checked, carried over and compared, too; gc
removes what another build of quernel left long ago, and forget eval all of it.]],
  examples = {
    "list",
    "forget int4.g128:4096x4096    # the machine was busy",
    "show 1f3a    # the machine whose hash begins so",
    "import /mnt/other/quernel    # of another machine of this kind",
  },
  options = {
    { "--store", "DIR", "the store (default: $QUERNEL_CACHE, else ~/.cache/quernel)" },
    { "--age", "SECONDS", "gc: leave files younger than this; somebody may be working on them (default: an hour; for "
      .. ("evaluations of other builds %d days)"):format(kept_days), with = "gc" },
    { "--json", nil, "print JSON" },
  },
  run = function(q, options)
    local action = common.ask(q.check.among, options[1], q.check.sorted_keys(actions), "action")
    local least, most = table.unpack(takes[action] or { 0, 0 })
    if #options - 1 < least or #options - 1 > most then
      common.misuse("%s takes %s%s", action, least < most and "at most " or "", common.count(most, "argument"))
    end
    return actions[action](q, options)
  end,
}
