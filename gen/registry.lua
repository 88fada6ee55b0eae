-- registry.lua - what formats and kernels are kept in: copies, so that nobody changes what is registered.

local check = require "gen.check"
local registry = {}

-- A copy of a value, tables all the way down; functions are shared.
function registry.copy(x, seen)
  if type(x) ~= "table" then return x end
  seen = seen or {}
  if seen[x] then return seen[x] end
  local out = setmetatable({}, getmetatable(x))
  seen[x] = out
  for key, y in next, x do rawset(out, registry.copy(key, seen), registry.copy(y, seen)) end
  return out
end

-- Keep a copy of `def`, described in `file` at `where`, under its name; returns the copy. A name is taken once, unless
-- the definition says `replace = true`.
function registry.add(list, def, what, file, where)
  local old = list[def.name]
  if old and not def.replace then
    check.fail(where, "%s is there already, from %s; with replace = true this one takes its place", what, old.where)
  end
  local kept = registry.copy(def)
  kept.file, kept.where, kept.replace = file, where, nil
  list[def.name] = kept
  return kept
end

return registry
