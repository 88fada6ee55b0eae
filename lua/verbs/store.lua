local common = require "lua.common"

local actions = {}

function actions.list(q, options)
  local list = common.check(q.store.list(options.store))
  if options.json then print(q.json(list)) return end
  local rows = { { "environment", "artifacts", "failures", "evidence", "plans", "damaged", "bytes" } }
  for _, e in ipairs(list) do
    rows[#rows + 1] = { e.path, e.artifacts, e.failures, e.evidence, e.plans, e.damaged, common.bytes(e.bytes) }
  end
  common.table(rows)
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
  print(("copied %d, replaced %d, kept %d, same %d, damaged %d, removed %d"):format(c.copied, c.replaced, c.kept, c.same,
    c.damaged, c.removed))
end
function actions.gc(q, options)
  counts(q, options, common.check(q.store.gc(options.store, common.number(options, "age", 0))))
end
function actions.merge(q, options)
  counts(q, options, common.check(q.store.merge(options.store, options[2])))
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

local wanted = { list = 1, verify = 1, gc = 1, merge = 2, diff = 3 }

return {
  name = "store", usage = "list | verify | gc | merge FROM | diff A B", arguments = { 1, 3 },
  summary = "look after what was measured: list, check, tidy, carry over, compare",
  examples = { "list", "merge /mnt/other/quernel       # take over what another machine of this kind measured" },
  options = {
    { "--store", "DIR", "the store (default: $QUERNEL_CACHE, else ~/.cache/quernel)" },
    { "--age", "SECONDS", "gc: leave younger files, somebody may be at work on them", default = "3600" },
    { "--json", nil, "print JSON" },
  },
  run = function(q, options)
    local act, n = actions[options[1]], wanted[options[1]]
    if not act then common.misuse("%q; known: list, verify, gc, merge, diff", options[1]) end
    if #options ~= n then common.misuse("%s takes %d arguments", options[1], n - 1) end
    return act(q, options)
  end,
}
