-- expr.lua - symbolic values: a rule written in Lua runs once on them and becomes a tree.
--
-- The same trees serve launch recipes (integers over M, N, K…), layouts and decode rules (float64 over the code q and
-- the planes). A tree is read in three ways: as a postfix program for the C evaluators, as C text, and, for decode
-- rules, as the normal form of format.lua.

local expr = {}
local node = { __name = "expression" } -- no __index: nobody reaches it through a symbol

local function make(op, ...) return setmetatable({ op = op, ... }, node) end

local function lift(x)
  if getmetatable(x) == node then return x end
  if math.type(x) then return make("const", x) end
  error(("an expression needs numbers and symbols, not a %s"):format(type(x)), 3)
end

function expr.is(x) return getmetatable(x) == node end
function expr.var(name) return make("var", name) end
function expr.const(x) return lift(x) end

local function binary(op, fold)
  return function(a, b)
    a, b = lift(a), lift(b)
    if a.op == "const" and b.op == "const" then return make("const", fold(a[1], b[1])) end
    return make(op, a, b)
  end
end

node.__add = binary("+", function(a, b) return a + b end)
node.__sub = binary("-", function(a, b) return a - b end)
node.__mul = binary("*", function(a, b) return a * b end)
node.__div = binary("/", function(a, b) return a / b end)
node.__idiv = binary("//", function(a, b) return a // b end)
node.__mod = binary("%", function(a, b) return a % b end)
node.__unm = function(a) return make("neg", lift(a)) end

-- What Lua would answer with a truth value or an integer at once: there is a function for it, or none.
for events, instead in pairs {
  ["__lt __le __eq"] = "compare symbols by lt(a, b) and eq(a, b), which give 1 or 0, and choose by cond(c, a, b)",
  ["__band __bor __bxor __shl __shr __bnot"] = "take bits of a symbol by bits(x, lowest, how many)",
  ["__pow"] = "write the power of a symbol as a product",
} do
  for event in events:gmatch "%S+" do node[event] = function() error(instead, 2) end end
end

expr.ceildiv = binary("ceildiv", function(a, b) return -(-a // b) end)
expr.min = binary("min", math.min)
expr.max = binary("max", math.max)
expr.lt = binary("<", function(a, b) return a < b and 1 or 0 end)
expr.eq = binary("==", function(a, b) return a == b and 1 or 0 end)

function expr.select(c, a, b) return make("select", lift(c), lift(a), lift(b)) end
function expr.bits(v, lo, width)
  if not (math.type(lo) == "integer" and math.type(width) == "integer" and lo >= 0 and width > 0
    and lo + width <= 32) then
    error("bits(x, lowest, how many): whole numbers, and no bit beyond the 32nd", 2)
  end
  return make("bits", lift(v), lift(lo), lift(width))
end

-- lookup(table, index): `table` is a Lua array of numbers, its first element for index 0.
function expr.lookup(t, index)
  if type(t) ~= "table" or #t == 0 then error("lookup needs a table of numbers as its first argument", 2) end
  for i, x in ipairs(t) do
    if not math.type(x) then error(("lookup: element %d of the table is a %s, not a number"):format(i, type(x)), 2) end
  end
  local n = make("lookup", lift(index))
  n.table = t
  return n
end

-- Postfix tokens for the C evaluators. `tables` collects the tables that are looked up.
function expr.postfix(e, tables)
  local out = {}
  local function walk(x)
    if x.op == "const" or x.op == "var" then
      out[#out + 1] = x[1]
    else
      for i = 1, #x do walk(x[i]) end
      if x.op == "lookup" then
        local at
        for i, t in ipairs(tables) do at = t == x.table and i or at end
        if not at then tables[#tables + 1] = x.table; at = #tables end
        out[#out + 1] = { lookup = at - 1 }
      else
        out[#out + 1] = x.op
      end
    end
  end
  walk(lift(e))
  return out
end

-- The same of an expression over whole numbers, where a division must say how it rounds.
function expr.program(e)
  local out = expr.postfix(e, {})
  for i, token in ipairs(out) do
    if token == "/" then error("sizes are whole numbers: divide by // or by ceildiv(a, b)", 0) end
    out[i] = token == "//" and "/" or token
  end
  return out
end

-- ---- Text -----------------------------------------------------------------------------------------------------------

-- How strongly operators bind; arguments of the functions.
local binding = { ["*"] = 3, ["/"] = 3, ["%"] = 3, ["+"] = 2, ["-"] = 2, ["<"] = 1, ["=="] = 1 }
local arity = { neg = 1, ceildiv = 2, min = 2, max = 2, select = 3, bits = 3 }

-- a op b with the parentheses that it needs, and how strongly it binds. Operands are pairs { text, how they bind }.
local function infix(op, a, b)
  local bind = binding[op]
  local left, right = a[2] < bind and "(%s)" or "%s", b[2] <= bind and "(%s)" or "%s"
  return { (left .. " %s " .. right):format(a[1], op, b[1]), bind }
end

-- A postfix program as people write it: { "M", 16, "ceildiv" } -> ceildiv(M, 16). planes: those that it may name; one
-- of them can have the name of a function.
function expr.text(program, planes)
  local stack, named = {}, {}
  for _, p in ipairs(planes or {}) do named[p.name] = true end
  local function pop() return table.remove(stack) end
  for _, token in ipairs(program) do
    local top = { tostring(token), 4 }
    if type(token) == "table" then
      top[1] = ("table%d[%s]"):format(token.lookup, pop()[1])
    elseif binding[token] then
      local b, a = pop(), pop()
      top = infix(token, a, b)
    elseif arity[token] and not named[token] then
      local arguments = {}
      for i = arity[token], 1, -1 do arguments[i] = pop()[1] end
      top[1] = ("%s(%s)"):format(token, table.concat(arguments, ", "))
    end
    stack[#stack + 1] = top
  end
  return stack[1][1]
end

-- ---- C --------------------------------------------------------------------------------------------------------------

-- What whole numbers allow: no neutral element stays, constants come last and meet, and ceildiv takes what it can of a
-- multiple. Sizes are not negative.
local simplify = {
  ["+"] = function(a, b)
    if a[1] == 0 then return b end
    return b[1] == 0 and a or nil
  end,
  ["*"] = function(a, b)
    if b[1] == 1 then return a end
    if a.op == "const" then return b * a end
    if b.op == "*" and b[2].op == "const" then return a * b[1] * b[2] end
    if a.op == "*" and a[2].op == "const" then
      return b.op == "const" and a[1] * (a[2] * b) or a[1] * b * a[2]
    end
  end,
  ceildiv = function(a, b)
    if b[1] == 1 then return a end
    if b.op ~= "const" then return nil end
    if a.op == "*" and a[2].op == "const" and a[2][1] % b[1] == 0 then return a[1] * (a[2][1] // b[1]) end
    if a.op == "ceildiv" and a[2].op == "const" then return expr.ceildiv(a[1], a[2] * b) end
  end,
}

local function folded(x)
  if x.op == "const" or x.op == "var" then return x end
  local a = {}
  for i = 1, #x do a[i] = folded(x[i]) end
  local better = simplify[x.op] and simplify[x.op](a[1], a[2])
  return better and folded(better) or make(x.op, table.unpack(a))
end

-- What C writes otherwise than we do; operands as for infix.
local function least(x, bind) return x[2] < bind and "(" .. x[1] .. ")" or x[1] end
local function choose(test, a, b) return { ("%s ? %s : %s"):format(test, least(a, 1), least(b, 1)), 0 } end
local in_c = {
  ["//"] = function(a, b) return infix("/", a, b) end,
  neg = function(a) return { "-" .. least(a, 4), 4 } end,
  select = function(c, a, b) return choose(least(c, 1), a, b) end,
  min = function(a, b) return choose(least(a, 2) .. " < " .. least(b, 2), a, b) end,
  max = function(a, b) return choose(least(a, 2) .. " > " .. least(b, 2), a, b) end,
  ceildiv = function(a, b)
    local n = tonumber(b[1])
    local last = n and infix("+", a, { ("%d"):format(n - 1), 4 }) or infix("-", infix("+", a, b), { "1", 4 })
    return infix("/", last, b)
  end,
}

-- C text over 64-bit integers, simplified, with the parentheses that it needs. `names` gives identifiers for variables
-- (default: themselves) and for what expr.text writes: { N = "a->n", ["ceildiv(K, 64)"] = "records" }.
function expr.c(e, names)
  local function walk(x)
    local name = names and names[expr.text(expr.program(x))]
    if name then return { name, 4 } end
    if x.op == "const" then return { ("%d"):format(x[1]), 4 } end
    if x.op == "var" then return { x[1], 4 } end
    local a = {}
    for i = 1, #x do a[i] = walk(x[i]) end
    if in_c[x.op] then return in_c[x.op](table.unpack(a)) end
    if not binding[x.op] then error("no C text for " .. x.op) end
    return infix(x.op, a[1], a[2])
  end
  return walk(folded(lift(e)))[1]
end

return expr
