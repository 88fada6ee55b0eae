-- format.lua - weight formats: what a stored code means, described once.
--
-- A format file calls format{…}; a spelling such as "int4.g128.z" fixes its choices (group, type of each plane) and
-- gives a resolved format, in which the decode rule has been run once on symbols and brought to the normal form
--
--     W = map(q) x scale + offset        map: code -> number;  scale, offset: of planes only
--
-- Kernels are generated from map.kind ("int", "table", "float") and from the factors of scale and offset, never from a
-- format's name.
--
-- Spelling: NAME[.GRAIN][.z | .zf | .zf32 | .m][.TYPE of a plane that is not its default]
--
-- A grain says which weights share an element of a plane: "gG" G of a row, "row", "tensor", "bRxC" a block.

local check = require "gen.check"
local expr = require "gen.expr"
local registry = require "gen.registry"
local types = require "gen.types"
local format = { registry = {}, sorted_keys = check.sorted_keys }
local that, sorted_keys = check.that, check.sorted_keys

-- Floats that planes may be of, and of these what codes may be that are numbers: those with a sign.
local plane_floats = types.those(function(t) return t.kind == "float" and t.bits <= 32 end)
local code_floats = types.those(function(t) return t.kind == "float" and t.bits <= 32 and t.mantissa > 0 end)
table.sort(plane_floats)
local is_plane_float = {}
for _, name in ipairs(plane_floats) do is_plane_float[name] = true end

-- Integer plane types are "u1".."u8", and "i2".."i8" with a sign: a number a byte. Returns the element type of the
-- plane and its largest number; with a sign the least is -largest - 1.
local function plane_type(t)
  local sign, bits = t:match "^([ui])(%d)$"
  if sign == "u" then return "u8", (1 << tonumber(bits)) - 1 end
  if sign == "i" and bits ~= "1" then return "i8", (1 << tonumber(bits) - 1) - 1 end
  return is_plane_float[t] and t, 0
end

-- What a choice of plane type adds to the spelling: zero points and minima say that they are there, others their type.
local marks = { zero = { f16 = "zf", f32 = "zf32", other = "z" }, min = { other = "m" } }
local function suffix(plane, option)
  if option == "none" then return "" end
  local mark = marks[plane]
  return mark and (mark[option] or mark.other) or option
end

-- Weights that share an element along N and along K, 0 for all; nil if the word is no grain.
local function grain(word)
  if word == "row" then return 1, 0 end
  if word == "tensor" then return 0, 0 end
  local rows, cols = word:match "^b(%d+)x(%d+)$"
  rows, cols = math.tointeger(rows or 1), math.tointeger(cols or word:match "^g(%d+)$")
  if cols and rows > 0 and cols > 0 and math.max(rows, cols) < 1 << 31 then return rows, cols end
end

local fields = { name = "string", doc = "string?", bits = "integer", codes = "string?", group = "string|list?",
  planes = "table?", per = "table?", decode = "function", replace = "boolean?",
  file = "string?", where = "string?" } -- of the one that a copy was made of

-- Grains that a spelling may choose, or the one there is.
local function check_group(group, what, where)
  that(type(group) ~= "table" or group[1], where, "%s: the list of groups is empty", what)
  for i, g in ipairs(type(group) == "table" and group or { group }) do
    local any = i > 1 and (g == "g*" or g == "b*")
    that(any or grain(math.type(g) and "g" .. g or tostring(g)), where,
      '%s: group %q: a group is a number of weights along K, "row", "tensor", "b128x128" or, after the first, '
      .. '"g*" or "b*"', what, tostring(g))
  end
end

local function check_planes(def, what, where)
  for plane, options in pairs(def.planes or {}) do
    that(type(plane) == "string" and plane:match "^%l[%w_]*$" and plane ~= "codes" and plane ~= "perm", where,
      "%s: a plane's name is a word, and neither \"codes\" nor \"perm\", not %q", what, tostring(plane))
    check.kind(options, "list", ("%s: plane %s"):format(what, plane), where)
    that(options[1], where, "%s: plane %s needs a list of types", what, plane)
    for _, o in ipairs(options) do
      local like_scale = o == "scale" and plane ~= "scale" and def.planes.scale
      that(o == "none" or like_scale or type(o) == "string" and plane_type(o), where,
        '%s: plane %s: unknown type %q; known: none, u1 to u8, i2 to i8, %s; "scale" is that of the plane',
        what, plane, tostring(o), table.concat(plane_floats, ", "))
    end
  end
  for plane, word in pairs(def.per or {}) do
    check.among(plane, sorted_keys(def.planes), what .. ": per: plane", where)
    that(type(word) == "string" and grain(word), where, "%s: per: plane %s has an unknown grain %q", what, plane,
      tostring(word))
  end
end

-- Register a format, which was described in `file`, at `where`. Raises with the place and the field if it is not right.
--
--   name, doc, bits     of a code
--   codes               type of codes that are floats; else they are unsigned integers
--   group               grains that a spelling may have, the first if it has none: a number along K, "row", "tensor",
--                       "b128x128"; "g*" and "b*": any size. A string: the one grain there is, which is not spelled
--   planes              of each plane the types, the first being the default. "none": absent, and false in the rule;
--                       "scale": the type that plane scale has
--   per                 grains of planes that have another one
--   decode              function(q, p): the weight from its code and its planes
--   replace             true: in place of the format of that name
function format.define(def, file, where)
  local what = check.fields(def, fields, "format", where)
  that(def.name:match "^%l[%w_]*$", where, "a format's name is a word of small letters, digits and _, not %q", def.name)
  if def.codes then
    check.among(def.codes, code_floats, what .. ": codes", where)
    that(def.bits == types.all[def.codes].bits, where, "%s: codes of type %s have %d bits, not %d", what, def.codes,
      types.all[def.codes].bits, def.bits)
  end
  that(def.codes or def.bits >= 1 and def.bits <= 8, where,
    "%s: bits must be 1 to 8, not %d; codes that are floats say their type in `codes`", what, def.bits)
  check_group(def.group, what, where)
  check_planes(def, what, where)
  return registry.add(format.registry, def, what, file, where)
end

-- ---- Normal form ----------------------------------------------------------------------------------------------------
-- A value is a sum of terms, keyed by the planes that multiply it; the rest of a term depends on the code alone and is
-- kept as one number for each code (or, for codes that are floats, as a factor of a power of q).

local function map(list, fn)
  local out = {}
  for i, x in ipairs(list) do out[i] = fn(x, i) end
  return out
end

local function single(planes, t, power)
  power = power or 0
  return { [table.concat(planes, "*") .. ":" .. power] = { planes = planes, power = power, t = t } }
end

local function add(a, b, sign)
  local out = {}
  for key, x in pairs(a) do out[key] = x end
  for key, y in pairs(b) do
    local x = out[key]
    out[key] = { planes = y.planes, power = y.power,
      t = map(y.t, function(c, i) return (x and x.t[i] or 0) + sign * c end) }
  end
  return out
end

local function multiply(a, b)
  local out = {}
  for _, x in pairs(a) do
    for _, y in pairs(b) do
      local planes = table.move(y.planes, 1, #y.planes, #x.planes + 1, { table.unpack(x.planes) })
      table.sort(planes)
      out = add(out, single(planes, map(x.t, function(c, i) return c * y.t[i] end), x.power + y.power), 1)
    end
  end
  return out
end

-- Operators on values, and those whose arguments depend on the code alone: on their numbers for one code.
local on_values = {
  ["+"] = function(a, b) return add(a, b, 1) end,
  ["-"] = function(a, b) return add(a, b, -1) end,
  neg = function(a) return add({}, a, -1) end,
  ["*"] = multiply,
}
local on_codes = {
  ["/"] = function(a, b) return a / b end,
  ["<"] = function(a, b) return a < b and 1 or 0 end,
  ["=="] = function(a, b) return a == b and 1 or 0 end,
  select = function(c, a, b) return c ~= 0 and a or b end,
  bits = function(x, lo, width) return (x // 1 >> lo) & ((1 << width) - 1) end,
}

local function looked_up(list, def)
  return function(index)
    return that(list[index + 1], def.where, "%s: lookup of index %s in a table of %d", def.name, index, #list)
  end
end

-- All codes of a format; a float code is one opaque symbol.
local function codes_of(def)
  local codes = {}
  for i = 1, def.codes and 1 or 1 << def.bits do codes[i] = i - 1 end
  return codes
end

-- The value of a rule, for these codes.
local function fold(tree, def, codes)
  local function constant(x) return map(codes, function() return x end) end

  local function pure(value, op)
    local out
    for _, x in pairs(value) do
      that(#x.planes == 0 and x.power == 0 and not out, def.where,
        "%s: an argument of %s must depend on the code only", def.name, op)
      out = x.t
    end
    return out or constant(0)
  end

  local function walk(x)
    if x.op == "const" then return single({}, constant(x[1])) end
    if x.op == "var" and x[1] ~= "q" then return single({ x[1] }, constant(1)) end
    if x.op == "var" and def.codes then return single({}, constant(1), 1) end
    if x.op == "var" then return single({}, codes) end
    local a = {}
    for i = 1, #x do a[i] = walk(x[i]) end
    if on_values[x.op] then return on_values[x.op](a[1], a[2]) end
    local fn = x.op == "lookup" and looked_up(x.table, def) or on_codes[x.op]
    that(fn, def.where, "%s: operator %s is not for decode rules", def.name, x.op)
    for i = 1, #a do a[i] = pure(a[i], x.op) end
    return single({}, map(codes, function(_, i) return fn(a[1][i], a[2] and a[2][i], a[3] and a[3][i]) end))
  end
  return walk(tree)
end

local function is_constant(t)
  for i = 2, #t do if t[i] ~= t[1] then return false end end
  return true
end

-- The normal form of a value: map, scale and offset. One term depends on the code; the others are the offset, apart
-- from a constant beside the map with the same factors, which belongs to the map.
local function recognise(value, def)
  local codes, scale
  local constants, offset = {}, {}
  for _, key in ipairs(sorted_keys(value)) do
    local x = value[key]
    if x.power == 0 and is_constant(x.t) then
      if x.t[1] ~= 0 then constants[#constants + 1] = { coefficient = x.t[1], planes = x.planes } end
    else
      that(not codes, def.where, "%s: the code meets different scales in one rule", def.name)
      that(x.power <= 1, def.where, "%s: the rule is not linear in a float code", def.name)
      codes, scale = x.t, x.planes
    end
  end
  that(codes, def.where, "%s: decode does not use the code", def.name)
  for _, x in ipairs(constants) do
    if not def.codes and table.concat(x.planes, "*") == table.concat(scale, "*") then
      codes = map(codes, function(c) return c + x.coefficient end)
    else
      offset[#offset + 1] = x
    end
  end
  return codes, scale, offset
end

-- The largest of 1, 1/2 … 1/16 of which every value is a multiple; nil if none is.
local function unit_of(values)
  for j = 0, 4 do
    local all = true
    for _, x in ipairs(values) do all = all and x * (1 << j) % 1 == 0 end
    if all then return 1 / (1 << j) end
  end
end

-- kind "float": a number of that type, times slope; "int": code + bias; "table": anything else. The values of the last
-- two lie in lo .. hi; `unit`: they are multiples of it.
local function classify(values, def)
  if def.codes then return { kind = "float", type = def.codes, slope = values[1] } end
  local bias, affine = values[1], true
  for i, x in ipairs(values) do affine = affine and x == bias + (i - 1) end
  affine = affine and bias % 1 == 0
  return { kind = affine and "int" or "table", bias = affine and bias // 1 or nil, values = values,
    unit = unit_of(values), lo = math.min(table.unpack(values)), hi = math.max(table.unpack(values)) }
end

-- ---- Spelling -> resolved format ------------------------------------------------------------------------------------

-- The grain that a spelling begins with, if it does and may.
local function spelled_grain(def, word, file)
  if not (word and grain(word)) then
    word = tostring(def.group[1])
    return word:match "^%d" and "g" .. word or word
  end
  for _, g in ipairs(def.group) do
    if g == word or "g" .. g == word or g == word:sub(1, 1) .. "*" then return word, true end
  end
  that(false, file, "%s has no group %q; it has %s", def.name, word, table.concat(def.group, ", "))
end

local function uses(tree, plane)
  if tree.op == "var" then return tree[1] == plane end
  for _, x in ipairs(tree) do if expr.is(x) and uses(x, plane) then return true end end
  return false
end

-- The words that may follow a format's name and its grain; right behind the name the grains, too.
local function choices(def, first)
  local known = {}
  for _, g in ipairs(first and type(def.group) == "table" and def.group or {}) do
    known[math.type(g) and "g" .. g or g] = true
  end
  for plane, options in pairs(def.planes or {}) do
    for _, o in ipairs(options) do known[suffix(plane, o)] = true end
  end
  known[""] = nil
  return sorted_keys(known)
end

-- What the words from `at` on choose for each plane; the default where they say nothing.
local function choose(def, words, at, spelling)
  local chosen, given = {}, {}
  for plane, options in pairs(def.planes or {}) do chosen[plane] = options[1] end
  for i = at, #words do
    local hit
    for _, plane in ipairs(sorted_keys(def.planes)) do
      for _, o in ipairs(def.planes[plane]) do
        if not hit and suffix(plane, o) == words[i] and words[i] ~= "" then chosen[plane], hit = o, plane end
      end
    end
    that(hit, spelling, "format %s does not know %q%s", def.name, words[i],
      check.instead(words[i], choices(def, i == 2)))
    that(not given[hit], spelling, "%q and %q both choose the type of plane %s", given[hit], words[i], hit)
    given[hit] = words[i]
  end
  return chosen
end

-- Give f the chosen planes, and its name the words for them: zero points and minima first, then types. `implied`: words
-- that a spelling may have although they are the default.
local function add_planes(f, chosen, implied)
  local def, marked, spelled = f.def, {}, {}
  for _, plane in ipairs(sorted_keys(def.planes)) do
    local o = chosen[plane]
    if o ~= "none" then
      local t, max = plane_type(o == "scale" and chosen.scale or o)
      local rows, cols = f.rows, f.cols
      if def.per and def.per[plane] then rows, cols = grain(def.per[plane]) end
      f.planes[#f.planes + 1] = { name = plane, type = t, max = max, rows = rows, cols = cols }
    end
    local list = o == def.planes[plane][1] and implied or marks[plane] and marked or spelled
    list[#list + 1] = o ~= "none" and suffix(plane, o) or nil
  end
  for i, x in ipairs(f.planes) do f.planes[x.name] = i end
  table.sort(spelled)
  table.move(spelled, 1, #spelled, #marked + 1, marked)
  f.name = table.concat({ f.name, table.unpack(marked) }, ".")
  f.implied = implied[1] and table.concat(implied, ".")
end

-- Run the rule of f on a code and on symbols for its planes: false for a plane that is not chosen.
local function rule_on(f, q)
  local def, p = f.def, {}
  for plane in pairs(def.planes or {}) do p[plane] = f.planes[plane] and expr.var(plane) or false end
  return def.decode(q, setmetatable(p, {
    __index = function(_, k) error(("%s: decode uses plane %q, which is not declared"):format(def.where, k), 0) end,
  }))
end

-- The rule of f as a tree.
local function run_rule(f, spelling)
  local def, tree = f.def, rule_on(f, expr.var "q")
  that(expr.is(tree), def.where, "decode of %s must return an expression of q", def.name)
  for _, x in ipairs(f.planes) do
    that(uses(tree, x.name), spelling, "the rule of %s has no place for its plane %s here", def.name, x.name)
  end
  return tree
end

-- Lua answers q == 3 itself where q is a symbol, with false. So a rule that asks has another value on numbers.
local function check_numbers(f, value)
  local def = f.def
  for i, code in ipairs(def.codes and {} or codes_of(def)) do
    local same, rest = true, fold(expr.const(rule_on(f, code)), def, { code })
    for key, x in pairs(value) do
      local y = rest[key] and rest[key].t[1] or 0
      rest[key], same = nil, same and (x.t[i] == y or y ~= y)
    end
    for _, x in pairs(rest) do same = same and x.t[1] == 0 end
    that(same, def.where, "%s: the rule gives another value for q = %d than for the symbol q: == on symbols is false, "
      .. "whatever they are; write eq(a, b)", def.name, code)
  end
end

-- Resolve a spelling. Raises with the format, the part at fault and what is known.
function format.resolve(spelling)
  local words = {}
  for w in (spelling .. "."):gmatch "([^.]*)%." do words[#words + 1] = w end
  local def = format.registry[words[1]]
  that(def, spelling, "unknown format%s", check.instead(words[1], sorted_keys(format.registry)))
  local f = { name = def.name, def = def, bits = def.bits, rows = 1, cols = 0, planes = {}, doc = def.doc }
  local at, implied = 2, {}
  if type(def.group) == "table" then
    local word, spelled = spelled_grain(def, words[2], spelling)
    f.rows, f.cols = grain(word)
    f.name = f.name .. "." .. word
    at = spelled and 3 or 2
    if word == spelled_grain(def, nil) then implied[1] = word end
  elseif def.group then
    f.rows, f.cols = grain(def.group)
  end
  f.group = f.cols
  add_planes(f, choose(def, words, at, spelling), implied)
  f.decode = run_rule(f, spelling)
  local value = fold(f.decode, def, codes_of(def))
  check_numbers(f, value)
  local values, scale, offset = recognise(value, def)
  for i, x in ipairs(values) do
    that(x - x == 0, def.where, "%s: the rule gives %s for code %d", def.name, x, i - 1)
  end
  f.map, f.scale, f.offset = classify(values, def), scale, offset
  return f
end

-- The code whose map is zero, for padding; 0 where there is none (the kernel then never sees padding as a product:
-- scales of padding are zero).
function format.pad_code(f)
  for i, x in ipairs(f.map.values or {}) do
    if x == 0 then return i - 1 end
  end
  return 0
end

-- Descriptor for C (runtime/desc.h: qn_format).
function format.descriptor(f)
  local tables, planes = {}, {}
  for i, x in ipairs(f.planes) do
    planes[i] = { name = x.name, type = x.type, max = x.max, rows = x.rows, cols = x.cols }
  end
  local decode = expr.postfix(f.decode, tables)
  return { name = f.name, implied = f.implied, bits = f.bits, codes = f.bits <= 8 and "u8" or "u" .. f.bits,
    float = f.def.codes or "none", planes = planes, tables = tables, decode = decode }
end

return format
