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

local function show_verdicts(title, list, all)
  if #list == 0 then return end
  print(("  %s: %d%s"):format(title, #list, all and "" or "; --all lists them"))
  for _, x in ipairs(all and list or {}) do print(("    %s: %s"):format(x.name or x.key, x.why)) end
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

local function show(q, e, here, options)
  local about = e.about or {}
  print ""
  print(e.hash)
  print(("  %s: %s%s, %s, %s"):format(about.name or "?", about.product or "env.json is damaged",
    about.target == "host" and (", %d threads"):format(about.threads) or "", about.compiler or "?",
    about.driver or "?"))
  print(("  %s to %s, %s; compiled %d, evidence %d, plans %d, damaged %d"):format(day(e.first), day(e.last),
    common.bytes(e.bytes), e.artifacts, e.evidence, e.plans, e.damaged))
  if e.older > 0 then print(("  not read any more, as of an older version: %d; gc removes them"):format(e.older)) end
  print("  " .. use(q, e, here))
  for _, line in ipairs(problems(e.problems)) do print("  " .. line) end
  if options.all then
    show_verdicts("timed, and of no use to today's runs", written_otherwise(q, options.store, e, here), true)
  end
  show_verdicts("rejected, or not compiled", e.rejected, options.all)
  show_verdicts("suspect, as runs went down in them", e.suspects, options.all)
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

function actions.list(q, options)
  local list, evaluated = common.check(q.store.list(options.store)), evaluations(q, options)
  if options.json then
    print(q.json { machines = list, evaluations = evaluated })
    return
  end
  print(q.store.root(options.store))
  local here = environments_here(q)
  for _, e in ipairs(list) do show(q, e, here, options) end
  if evaluated then show_evaluations(evaluated) end
  if #list == 0 and not evaluated then print "nothing was measured yet" end
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
  if n == 0 then common.fail("the store knows nothing of %q; quernel store list --all shows what it knows", what) end
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
function actions.merge(q, options)
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

local wanted = { list = 1, verify = 1, gc = 1, merge = 2, export = 2, diff = 3, forget = 2 }

return {
  name = "store", usage = "list|verify|gc|export TO|merge FROM|diff A B|forget WHAT", arguments = { 1, 3 },
  summary = "look after what was measured: list, check, tidy, carry over, compare, forget",
  about = [[
list shows what was measured, and when, for each machine and compiler, whether runs here use it, and if not, what has
changed. verify finds damaged files. gc removes what nobody can use. export copies all into a folder, for another
machine. merge takes over what another store has, where that is new or rests on more samples. diff shows where
two stores differ. forget removes the timings and verdicts of a problem, a format, a variant (by name or hash) or one
entry (by its key), so that the next run takes them anew: after numbers that were taken while the machine was busy, or
a kernel that was rejected by mistake. Compiled kernels stay. What eval keeps is listed, checked, carried over and
compared, too; gc removes what another build of quernel left long ago, and forget eval all of it.]],
  examples = {
    "list",
    "forget int4.g128:4096x4096    # the machine was busy",
    "merge /mnt/other/quernel    # of another machine of this kind",
  },
  options = {
    { "--store", "DIR", "the store (default: $QUERNEL_CACHE, else ~/.cache/quernel)" },
    { "--all", nil, "list: every rejected and suspect variant with the reason, and those whose templates have changed",
      with = "list" },
    { "--age", "SECONDS", "gc: leave files younger than this; somebody may be working on them (default: an hour; for "
      .. ("evaluations of other builds %d days)"):format(kept_days), with = "gc" },
    { "--json", nil, "print JSON" },
  },
  run = function(q, options)
    local action = common.ask(q.check.among, options[1], q.check.sorted_keys(actions), "action")
    local act, n = actions[action], wanted[action]
    if #options ~= n then common.misuse("%s takes %s", options[1], common.count(n - 1, "argument")) end
    return act(q, options)
  end,
}
