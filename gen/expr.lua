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
  ["__lt __le"] = "compare symbols by lt(a, b) and eq(a, b), which give 1 or 0, and choose by cond(c, a, b)",
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

-- A postfix program as people write it, with the parentheses that it needs: { "M", 16, "ceildiv" } -> ceildiv(M, 16).
local binding = { ["*"] = 3, ["/"] = 3, ["%"] = 3, ["+"] = 2, ["-"] = 2, ["<"] = 1, ["=="] = 1 }
local arity = { neg = 1, ceildiv = 2, min = 2, max = 2, select = 3, bits = 3 }
function expr.text(program)
  local stack = {} -- { text, how strongly its operator binds }
  local function pop() return table.remove(stack) end
  for _, token in ipairs(program) do
    local bind, n = binding[token], arity[token]
    local text = tostring(token)
    if type(token) == "table" then
      text = ("table%d[%s]"):format(token.lookup, pop()[1])
    elseif bind then
      local b, a = pop(), pop()
      local left, right = a[2] < bind and "(%s)" or "%s", b[2] <= bind and "(%s)" or "%s"
      text = (left .. " %s " .. right):format(a[1], token, b[1])
    elseif n then
      local arguments = {}
      for i = n, 1, -1 do arguments[i] = pop()[1] end
      text = ("%s(%s)"):format(token, table.concat(arguments, ", "))
    end
    stack[#stack + 1] = { text, bind or 4 }
  end
  return stack[1][1]
end

-- C text over 64-bit integers, fully parenthesised; `names` maps variables to C identifiers (default: themselves).
local infix = { ["+"] = "+", ["-"] = "-", ["*"] = "*", ["//"] = "/", ["%"] = "%", ["<"] = "<", ["=="] = "==" }
function expr.c(e, names)
  local function walk(x)
    if x.op == "const" then return ("%d"):format(x[1]) end
    if x.op == "var" then return names and names[x[1]] or x[1] end
    local a = {}
    for i = 1, #x do a[i] = walk(x[i]) end
    if infix[x.op] then return ("(%s %s %s)"):format(a[1], infix[x.op], a[2]) end
    if x.op == "neg" then return ("(-%s)"):format(a[1]) end
    if x.op == "select" then return ("(%s ? %s : %s)"):format(a[1], a[2], a[3]) end
    if x.op == "ceildiv" then return ("((%s + %s - 1) / %s)"):format(a[1], a[2], a[2]) end
    if x.op == "min" then return ("(%s < %s ? %s : %s)"):format(a[1], a[2], a[1], a[2]) end
    if x.op == "max" then return ("(%s > %s ? %s : %s)"):format(a[1], a[2], a[1], a[2]) end
    error("no C text for " .. x.op)
  end
  return walk(lift(e))
end

return expr
