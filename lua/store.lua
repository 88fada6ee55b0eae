-- store.lua - what eval keeps is a part of the store: it is checked, carried over and compared with the rest, and
-- listed and forgotten by itself.
--
-- ROOT/eval has a file for each evaluation (eval/log.h), BUILD-HASH.log: only the build of quernel that wrote it can
-- use it. Of the same name all files have the same entries, or some of them, so the one that has more is the better.

return function(q, native)
  local machines = { verify = q.store.verify, merge = q.store.merge, diff = q.store.diff }

  -- What was evaluated, as a store at a root (nil: the default) keeps it: list of { path, name, bytes, modified =
  -- seconds since 1970, usable = is it of this program? }; or nil, message, code.
  function q.store.evaluations(root)
    local build, why, code = native.build()
    if build then root, why, code = q.store.root(root) end
    if not build or not root then return nil, why, code end
    local list, ours = native.files(root .. "/eval"), build:sub(1, 8) .. "-"
    for _, x in ipairs(list) do
      x.name = x.path:match "[^/]*$"
      x.usable = x.name:sub(1, #ours) == ours
    end
    return list
  end

  -- Remove of that what drop(x) says. -> how many; or nil, message, code.
  function q.store.forget_evaluations(root, drop)
    local list, why, code = q.store.evaluations(root)
    local n, ok = 0, list
    for _, x in ipairs(list or {}) do
      if ok and drop(x) then
        ok, why, code = native.remove(x.path)
        n = n + 1
      end
    end
    if not ok then return nil, why, code end
    return n
  end

  -- verify(root) -> list of { path, what }, or nil, message, code
  function q.store.verify(root)
    local out, why, code = machines.verify(root)
    local list = out
    if out then list, why, code = q.store.evaluations(root) end
    if not list then return nil, why, code end
    for _, x in ipairs(list) do
      local log, fault = native.log_look(x.path)
      local text = "%d bytes behind its %d entries are damaged, or a writer was killed; the next run does them again"
      local what = log and log.behind > 0 and text:format(log.behind, log.entries)
      if not log then what = fault:sub(#x.path + 3) end -- which it begins with
      if what then out[#out + 1] = { path = x.path, what = what } end
    end
    return out
  end

  -- Take over a log: how it is counted, a field of merge's counts; or nil, message, code. One that a run is at work on
  -- stays.
  local function take(from, to)
    local theirs, mine = native.log_look(from), native.log_look(to)
    if not theirs then return "damaged" end
    if mine and mine.content == theirs.content then return "same" end
    if mine and mine.entries >= theirs.entries then return "kept" end
    local there <close> = io.open(to, "r+")
    if there and not native.file_lock(there, to) then return "kept" end
    local text, why, code = native.file_read(from)
    local ok = text
    if text then ok, why, code = native.file_write(to, text) end
    if not ok then return nil, why, code end
    return there and "replaced" or "copied"
  end

  -- merge(into or nil, from) -> counts { copied, replaced, kept, same, damaged, removed }, or nil, message, code
  function q.store.merge(into, from)
    local counts, why, code = machines.merge(into, from)
    local list, ok = counts, counts
    if counts then list, why, code = q.store.evaluations(from) end
    if list and #list > 0 then
      into = q.store.root(into) .. "/eval"
      ok, why, code = native.make_folder(into)
    end
    for _, x in ipairs(ok and list or {}) do
      local how
      how, why, code = take(x.path, into .. "/" .. x.name)
      if not how then return nil, why, code end
      counts[how] = counts[how] + 1
    end
    if not list or not ok then return nil, why, code end
    return counts
  end

  -- name -> { entries, content } of the logs that can be read; nil, message, code.
  local function logs_of(root)
    local list, why, code = q.store.evaluations(root)
    if not list then return nil, why, code end
    local out = {}
    for _, x in ipairs(list) do
      local log = native.log_look(x.path)
      if log then out[x.name] = { entries = log.entries, content = log.content } end
    end
    return out
  end

  -- diff(a, b) -> list of { environment, kind, key, a, b }, or nil, message, code; evaluations are of no environment.
  function q.store.diff(a, b)
    local out, why, code = machines.diff(a, b)
    local of_a, of_b = out, nil
    if out then of_a, why, code = logs_of(a) end
    if of_a then of_b, why, code = logs_of(b) end
    if not of_b then return nil, why, code end
    local names = {}
    for _, of in ipairs { of_a, of_b } do for name in pairs(of) do names[name] = true end end
    for _, name in ipairs(q.check.sorted_keys(names)) do
      local x, y = of_a[name], of_b[name]
      if not x or not y or x.content ~= y.content then
        out[#out + 1] = { kind = "evaluation", key = name, a = x, b = y }
      end
    end
    return out
  end
end
