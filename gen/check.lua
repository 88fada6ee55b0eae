-- check.lua - tables that people write: every field is known and of its kind, and a message says which one is not.
--
-- `fields` gives each field its kinds, "string|list?": one of them, and "?" if it may be left out. A kind is a Lua
-- type, "integer", "count" (an integer from 1 on, for C's int), "list", or "expression" (gen/expr.lua, whole numbers
-- among them). The field "[]" stands for each element of a list.

local expr = require "gen.expr"
local check = {}

-- Raise `text`, begun with the place of the fault where that is known.
function check.fail(where, text, ...)
  error((where and where .. ": " or "") .. text:format(...), 0)
end

-- The value if it is there and true.
function check.that(ok, where, text, ...)
  if not ok then check.fail(where, text, ...) end
  return ok
end

-- Keys of a table, or of two, in order.
function check.sorted_keys(t, other)
  local keys = {}
  for k in pairs(t or {}) do keys[#keys + 1] = k end
  for k in pairs(other or {}) do keys[#keys + 1] = k end
  table.sort(keys)
  return keys
end

-- ---- Names ----------------------------------------------------------------------------------------------------------

-- How many letters must be added, dropped or changed to make `b` of `a`.
local function distance(a, b)
  local row = {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local corner = row[0]
    row[0] = i
    for j = 1, #b do
      local change = corner + (a:byte(i) == b:byte(j) and 0 or 1)
      corner = row[j]
      row[j] = math.min(change, corner + 1, row[j - 1] + 1)
    end
  end
  return row[#b]
end

-- What to say of a word that is not among the known ones (a list): the one that was probably meant, and all of them.
function check.instead(word, known)
  local best, least = nil, math.max(1, math.min(3, #tostring(word) // 2)) + 1
  for _, name in ipairs(known) do
    local d = distance(tostring(word):lower(), name:lower())
    if d < least and d < #name then best, least = name, d end
  end
  local meant = best and ("; did you mean %q?"):format(best) or ";"
  return meant .. " known: " .. (known[1] and table.concat(known, ", ") or "none")
end

-- `word` if it is among the known ones, a list.
function check.among(word, known, what, where)
  for _, name in ipairs(known) do if name == word then return word end end
  check.fail(where, "%s %q is not known%s", what, tostring(word), check.instead(word, known))
end

-- ---- Values ---------------------------------------------------------------------------------------------------------

local kinds = {
  integer = function(x) return math.type(x) == "integer" end,
  number = function(x) return type(x) == "number" and x - x == 0 end,
  count = function(x) return math.type(x) == "integer" and x >= 1 and x < 1 << 31 end,
  list = function(x) return type(x) == "table" and not expr.is(x) and (#x > 0 or next(x) == nil) end,
  expression = function(x) return math.type(x) == "integer" or expr.is(x) end,
}
local names = { string = "text", integer = "a whole number", count = "a whole number from 1 to 2147483647",
  table = "a table", list = "a list", boolean = "true or false", number = "a finite number",
  ["function"] = "a function", expression = "a whole number or an expression" }

function check.described(x)
  if type(x) == "string" then return ("text %q"):format(x) end
  return x == nil and "nothing" or type(x) == "number" and "the number " .. x or "a " .. type(x)
end

-- The value if it is of one of the kinds, "string|list?".
function check.kind(x, wanted, what, where)
  if x == nil and wanted:find "%?" then return end
  local list = {}
  for kind in wanted:gmatch "%a+" do
    if kinds[kind] then
      if kinds[kind](x) then return x end
    elseif type(x) == kind then
      return x
    end
    list[#list + 1] = names[kind]
  end
  check.fail(where, "%s must be %s, not %s", what, table.concat(list, " or "), check.described(x))
end

-- Check a table against its fields. `what` names it, with the table's own name behind it if it has one; returns that.
function check.fields(t, fields, what, where)
  check.kind(t, "table", what, where)
  if type(t.name) == "string" then what = what .. " " .. t.name end
  for key, x in pairs(t) do
    local wanted = math.type(key) == "integer" and fields["[]"] or fields[key]
    if not wanted then
      local known = check.sorted_keys(fields)
      if known[1] == "[]" then table.remove(known, 1) end
      check.fail(where, "%s has no field %q%s", what, tostring(key), check.instead(key, known))
    end
    check.kind(x, wanted, fields[key] and ("%s: %s"):format(what, key) or ("%s: element %d"):format(what, key), where)
  end
  for _, key in ipairs(check.sorted_keys(fields)) do
    if t[key] == nil and not fields[key]:find "%?" and key ~= "[]" then
      check.fail(where, "%s needs the field %q", what, key)
    end
  end
  return what
end

return check
