-- kernel.lua - kernel families: from a template and a problem to variants.
--
-- A template is a table (templates/kernels/*): parameters with their values, rules, derived sizes, the layout, the
-- launch recipe and the outline of section functions that write the source. A variant is a template with every
-- parameter fixed, for one problem and one device; it has a stable name and a content hash.
--
--   kernel.variants(problem, device, { space = "full" })  ->  list of variants, report of what the rules removed

local check = require "gen.check"
local expr = require "gen.expr"
local format = require "gen.format"
local layout = require "gen.layout"
local emit = require "gen.emit"
local json = require "gen.json"
local registry = require "gen.registry"
local targets = require "gen.target"
local types = require "gen.types"
-- Given by the host program: hash(text) -> 32 hexadecimal digits; progress(where), called before each candidate
-- with the place of its family; load(target), which runs the templates of its families.
local kernel = { registry = {}, hash = nil, progress = function() end, load = function() end }

local fields = { name = "string", target = "string", doc = "string", source = "string?", params = "list",
  rules = "list", derive = "function?", layout = "function", launch = "function", flags = "function?",
  arch = "function?", m = "function?", cost = "function?", outline = "list", replace = "boolean?",
  rounds = "boolean?", grouped = "boolean?", file = "string?", where = "string?" } -- of the one that a copy was made of
local param_fields = { name = "string", doc = "string?", short = "string?", values = "list", quick = "list|function?" }
local rule_fields = { name = "string", why = "string", ok = "function" }

-- Fields that a variant has beside its parameters.
local taken = { def = true, problem = true, format = true, device = true, params = true, act = true, out = true,
  target = true, entry = true, layout = true }

-- Values of a parameter: they stand in names of variants.
local function check_values(list, what, where)
  check.that(list[1] ~= nil, where, "%s: the list of values is empty", what)
  local seen = {}
  for _, x in ipairs(list) do
    check.that(math.type(x) == "integer" or type(x) == "string" and x:match "^[%w_]+$", where,
      "%s: a value is a whole number or a word, not %q", what, tostring(x))
    check.that(not seen[x], where, "%s: the value %s is there twice", what, x)
    seen[x] = true
  end
end

local function check_params(list, what, where)
  local seen = {}
  for _, p in ipairs(list) do
    local param = check.fields(p, param_fields, what .. ": parameter", where)
    check.that(p.name:match "^%a[%w_]*$", where, "%s: a name is a word", param)
    check.that(not taken[p.name] and not seen[p.name], where, "%s: the name is taken", param)
    seen[p.name] = true
    check_values(p.values, param, where)
    if type(p.quick) == "table" then check_values(p.quick, param .. ": quick", where) end
  end
end

-- Register a family, which was described in `file`, at `where`. Raises with the place and the field if it is not right.
function kernel.define(def, file, where)
  local what = check.fields(def, fields, "kernel", where)
  check.that(("." .. def.name):gsub("%.%a[%w_]*", "") == "", where,
    "a kernel's name is words with dots between, not %q",
    def.name)
  check.among(def.target, targets.names, what .. ": target", where)
  check_params(def.params, what, where)
  for _, r in ipairs(def.rules) do check.fields(r, rule_fields, what .. ": rule", where) end
  for i, section in ipairs(def.outline) do
    check.kind(section, "function", ("%s: outline[%d]"):format(what, i), where)
  end
  return registry.add(kernel.registry, def, what, file, where)
end

-- The families of a target are loaded when somebody first asks for one: that takes as long as to start all else.
local loaded = {}
local function need(target)
  if not loaded[target] then kernel.load(target) end
  loaded[target] = true
end

-- Families of a target, sorted by name: all, or the named ones, "host.gemv,host.gemm". Raises for an unknown
-- one.
function kernel.families(target, named)
  local out, names, wanted = {}, {}, {}
  for _, name in ipairs(target and { targets.get(target).name } or targets.names) do need(name) end
  for _, name in ipairs(format.sorted_keys(kernel.registry)) do
    if not target or kernel.registry[name].target == target then names[#names + 1] = name end
  end
  for name in (named or ""):gmatch "[^,%s]+" do wanted[check.among(name, names, "kernel family")] = true end
  for _, name in ipairs(names) do
    if not named or wanted[name] then out[#out + 1] = kernel.registry[name] end
  end
  return out
end

-- The family of that name, or nil.
function kernel.family(name)
  if not kernel.registry[name] then kernel.families() end
  return kernel.registry[name]
end

-- Parameters of all families: { name = { text of a value = the value } }.
function kernel.parameters()
  local out = {}
  for _, def in ipairs(kernel.families()) do
    for _, p in ipairs(def.params) do
      out[p.name] = out[p.name] or {}
      for _, x in ipairs(p.values) do out[p.name][tostring(x)] = x end
    end
  end
  return out
end

-- ---- Problems -------------------------------------------------------------------------------------------------------

local function goes_with(f, act, target)
  for _, p in ipairs(f.planes) do
    if p.cols % (target.at_once[act] or 1) ~= 0 then return false end
  end
  return f.map.kind ~= "float" or types.holds(act, f.map.type)
end

local function default_act(f, target)
  for _, act in ipairs(target.defaults) do
    if goes_with(f, act, target) then return act end
  end
  return target.defaults[1]
end

-- A problem with its format resolved and its types filled in; runtime/problem.c reads and writes the spelling, and
-- lists operands and steps of the epilogue (gen/lua_problem.h). `act`: the activations of one that leaves them open, as
-- in a spelling (default: the first type that the format goes with).
function kernel.problem(spelling, target_name, act)
  local function parse(...)
    local p, why = kernel.parse(spelling, ...)
    if not p then error(why, 0) end
    return p
  end
  local p = parse()
  local f = format.resolve(p.format)
  local target = targets.get(target_name or "host")
  p = parse(f.name, p.activations or act or default_act(f, target), p.out)
  if not p.out then p = parse(f.name, p.activations, target.out(p.act)) end
  p.format = f
  for _, plane in ipairs(p.gated and f.planes or {}) do
    if plane.rows > 1 then
      error(("problem %q: *gate pairs rows of W that lie N/2 apart, and %d rows of format %s share an element of "
        .. "plane %q; a format with one for each row, or for the whole tensor, can be paired"):format(p.spelling,
        plane.rows, f.name, plane.name), 0)
    end
  end
  return p
end

-- ---- Variants -------------------------------------------------------------------------------------------------------

-- What a function of the family returned, if it is of the kind that is wanted.
local function answer(def, name, wanted, x)
  return check.kind(x, wanted, ("kernel %s: what %s returns"):format(def.name, name), def.where)
end

-- Of the values of `param` those that are wanted: none where the family has no such value.
local function values_of(def, param, space, fixed, device)
  local wanted = fixed and fixed[param.name]
  if wanted ~= nil then
    local out = {}
    for _, x in ipairs(type(wanted) == "table" and wanted or { wanted }) do
      for _, known in ipairs(param.values) do if x == known then out[#out + 1] = x end end
    end
    return out
  end
  if space ~= "quick" or not param.quick then return param.values end
  return type(param.quick) == "function" and answer(def, "quick of " .. param.name, "list", param.quick(device))
    or param.quick
end

local function identifier(text) return (text:gsub("[^%w]+", "_")) end

-- One variant before its rules: parameters and sizes readable as fields.
local function instance(def, problem, device, params)
  local v = { def = def, problem = problem, format = problem.format, device = device, params = params,
    act = problem.act, out = problem.out, target = def.target }
  for name, x in pairs(params) do v[name] = x end
  v.entry = identifier(("%s_%s_%s_%s"):format(def.name, problem.format.name, problem.activations, problem.out))
  return v
end

-- Rules that every family has.
local general = {
  { name = "rounds-x", why = "the family takes X in the type that is multiplied, and does not round it",
    ok = function(v) return v.def.rounds or v.problem.x == v.act end },
  { name = "stack", why = "the family serves one weight, no stack of experts",
    ok = function(v) return v.def.grouped or not v.problem.experts end },
}

local function rules_of(def) return table.move(def.rules, 1, #def.rules, #general + 1, { table.unpack(general) }) end

-- The first rule that rejects v, by its number among all, and the rule. Asked for every variant: nothing is copied.
local function rejected(def, v)
  for i, rule in ipairs(general) do if not rule.ok(v) then return i, rule end end
  for i, rule in ipairs(def.rules) do if not rule.ok(v) then return #general + i, rule end end
end

local function values_text(def, params)
  local out = {}
  for _, p in ipairs(def.params) do
    out[#out + 1] = (p.short or p.name:lower()) .. tostring(params[p.name])
  end
  return table.concat(out, "-")
end

-- The other way, from the last part of a variant's name: { name = value }, or nil and what is amiss.
function kernel.params(def, text)
  local out, rest = {}, text .. "-"
  for _, p in ipairs(def.params) do
    local found, values = "", {}
    for i, x in ipairs(p.values) do
      local word = (p.short or p.name:lower()) .. tostring(x) .. "-"
      if rest:sub(1, #word) == word and #word > #found then found, out[p.name] = word, x end
      values[i] = word:sub(1, -2)
    end
    if found == "" then
      return nil, ("%s has no value %q; known: %s"):format(p.name, rest:match "^[^-]*", table.concat(values, ", "))
    end
    rest = rest:sub(#found + 1)
  end
  if rest ~= "" then return nil, ("%s has no parameter for %q"):format(def.name, rest:sub(1, -2)) end
  return out
end

local methods = {}
methods.__index = methods

-- Write the source. With `lines`, #line directives lead back to the template.
function methods:source(lines)
  if not self.writer then
    local w = emit.new(self.values)
    for _, section in ipairs(self.def.outline) do section(w, self.values) end
    self.writer = w
  end
  return self.writer.text(lines)
end

local recipe_fields = { steps = "list", counters = "expression?", scratch = "expression?", deterministic = "boolean?",
  batch_invariant = "boolean?", pdl = "boolean?", sums = "table?" }
local sums_fields = { bits = "count", depth = "count?" }
local step_fields = { entry = "string?", args = "list?", grid = "list", block = "list?", cluster = "list?",
  shared = "expression?", gathers = "expression?" }

local map_fields = { operand = "string", type = "string", dims = "list", box = "list", swizzle = "integer?" }

-- Arguments as C reads them: names, and tensor maps.
local function arguments(list, step, where)
  local out = {}
  for i, a in ipairs(list) do
    out[i] = a
    if type(a) == "table" then
      local what = ("%s: args[%d]"):format(step, i)
      check.fields(a, { tensor_map = "table" }, what, where)
      local m, dims = a.tensor_map, {}
      check.fields(m, map_fields, what .. ": tensor_map", where)
      for j, e in ipairs(m.dims) do
        dims[j] = expr.program(check.kind(e, "expression", ("%s: dims[%d]"):format(what, j), where))
      end
      out[i] = { tensor_map = { operand = m.operand, type = m.type, dims = dims, box = m.box,
        swizzle = m.swizzle or 0 } }
    end
  end
  return out
end

-- The launch recipe as C reads it.
local function recipe_of(def, v)
  local recipe = answer(def, "launch", "table", def.launch(v))
  local what = check.fields(recipe, recipe_fields, ("kernel %s: launch"):format(def.name), def.where)
  local steps = {}
  for i, s in ipairs(recipe.steps) do
    local step = check.fields(s, step_fields, ("%s: steps[%d]"):format(what, i), def.where)
    local function programs(name)
      local t = {}
      for j, e in ipairs(s[name] or {}) do
        t[j] = expr.program(check.kind(e, "expression", ("%s: %s[%d]"):format(step, name, j), def.where))
      end
      return t
    end
    steps[i] = { entry = s.entry or v.entry, args = arguments(s.args or {}, step, def.where),
      grid = programs "grid", block = programs "block", cluster = programs "cluster",
      shared = expr.program(s.shared or 0), gathers = s.gathers and expr.program(s.gathers) or {} }
  end
  local sums = recipe.sums and check.fields(recipe.sums, sums_fields, what .. ": sums", def.where) or {}
  return { steps = steps, counters = expr.program(recipe.counters or 0), scratch = expr.program(recipe.scratch or 0),
    deterministic = recipe.deterministic ~= false, batch_invariant = recipe.batch_invariant == true,
    pdl = recipe.pdl == true, sum_bits = sums.bits or 0, sum_depth = sums.depth or 0 }
end

-- The M that a variant serves: from, to (0: on); and of how many its tiles are (0: unknown).
local function served(def, v)
  if not def.m then return 1, 0, 0 end
  local least, most, tile = def.m(v)
  answer(def, "m", "count", least)
  answer(def, "m, second,", "integer", most)
  check.that(most == 0 or most >= least, def.where, "kernel %s: m returns %d, %d: it serves no M",
    def.name, least, most)
  return least, most, tile and answer(def, "m, third,", "count", tile) or 0
end

local function complete(def, v)
  v.layout = def.layout(v)
  check.that(type(v.layout) == "table" and v.layout.sections, def.where,
    "kernel %s: layout must return what layout.make returned", def.name)
  local out = setmetatable({ def = def, values = v, problem = v.problem, params = v.params, target = def.target,
    family = def.name, layout = layout.descriptor(v.layout, format.pad_code(v.format), v.problem.gated),
    recipe = recipe_of(def, v),
    flags = def.flags and answer(def, "flags", "string", def.flags(v)) or "",
    arch = def.arch and answer(def, "arch", "string", def.arch(v)) or v.device.arch,
    cost = def.cost and answer(def, "cost", "number", def.cost(v)) or 0 }, methods)
  out.m_min, out.m_max, out.m_tile = served(def, v)
  local p = v.problem
  out.name = ("%s/%s/%s-%s%s%s/%s"):format(def.name, v.format.name, p.activations, p.out, p.epilogue,
    p.experts and ".experts" or "", values_text(def, v.params))
  local parts = { out:source(false), out.flags, out.arch, json(out.recipe), json(out.layout) }
  out.hash = kernel.hash(table.concat(parts, "\0"))
  return out
end

-- Of a list of variants the few that between them have every pair of values, of two parameters, that occurs: one after
-- the other the one with most pairs that are new. Bugs mostly need no more than two values to meet.
local function covering(def, list)
  local function pairs_of(v)
    local out = {}
    for i, a in ipairs(def.params) do
      for j = i, #def.params do
        local b = def.params[j]
        out[#out + 1] = ("%d=%s %d=%s"):format(i, tostring(v.params[a.name]), j, tostring(v.params[b.name]))
      end
    end
    return out
  end
  local pairs_, have, out = {}, {}, {}
  for i, v in ipairs(list) do pairs_[i] = pairs_of(v) end
  while true do
    local best, most = nil, 0
    for i in ipairs(list) do
      local new = 0
      for _, key in ipairs(pairs_[i]) do if not have[key] then new = new + 1 end end
      if new > most then best, most = i, new end
    end
    if not best then return out end
    out[#out + 1] = list[best]
    for _, key in ipairs(pairs_[best]) do have[key] = true end
  end
end

-- The variants of a family that its rules leave (of options.only_one the first), not yet written, and what each rule
-- removed.
local function survivors(def, problem, device, options)
  problem, device = registry.copy(problem), registry.copy(device) -- the family's code may change them
  local r = { family = def.name, candidates = 0, survivors = 0, removed = {} }
  for i, rule in ipairs(rules_of(def)) do r.removed[i] = { rule = rule.name, why = rule.why, count = 0 } end
  local params, out = {}, {}
  local function walk(i)
    local p = def.params[i]
    if p then
      for _, x in ipairs(values_of(def, p, options.space or "full", options.fixed, device)) do
        if options.only_one and #out > 0 then return end
        params[p.name] = x
        walk(i + 1)
      end
      return
    end
    local copy = {}
    for name, x in pairs(params) do copy[name] = x end
    local v = instance(def, problem, device, copy)
    r.candidates = r.candidates + 1
    kernel.progress(def.where)
    local why = rejected(def, v)
    if why then r.removed[why].count = r.removed[why].count + 1 else out[#out + 1] = v end
  end
  walk(1)
  return options.space == "reduced" and covering(def, out) or out, r
end

local options_fields = { space = "string?", family = "string?", fixed = "table?", only_one = "boolean?" }

-- Raise for options that are not known. What is fixed is a parameter of some family, and its values are.
local function check_options(options)
  check.fields(options, options_fields, "options of variants")
  check.among(options.space or "full", { "full", "quick", "reduced" }, "space")
  local known = options.fixed and next(options.fixed) and kernel.parameters()
  for name, wanted in pairs(options.fixed or {}) do
    check.among(name, check.sorted_keys(known), "fixed: parameter")
    for _, x in ipairs(type(wanted) == "table" and wanted or { wanted }) do
      check.that(known[name][tostring(x)] == x, nil, "fixed: no kernel family has %s = %s", name, tostring(x))
    end
  end
end

-- All variants of the families that serve `device.target`. options: space ("full", "quick": what the families name for
-- a short search, "reduced": a few that cover the full one), family (names), fixed ({ NR = 32 }). Returns the variants,
-- and a report per family: { family, candidates, survivors, removed = { { rule, why, count }… } }.
function kernel.variants(problem, device, options)
  options = options or {}
  check_options(options)
  local out, report, seen = {}, {}, {}
  for _, def in ipairs(kernel.families(device.target, options.family)) do
    local list, r = survivors(def, problem, device, options)
    for _, v in ipairs(list) do
      kernel.progress(def.where)
      if def.derive then def.derive(v) end
      local variant = complete(def, v)
      if not seen[variant.hash] then
        seen[variant.hash] = true
        r.survivors = r.survivors + 1
        out[#out + 1] = variant
      end
    end
    report[#report + 1] = r
  end
  return out, report
end

-- Which families of the target take a problem: the same report, without a variant being written. options: only_one (is
-- there any?), family (names).
function kernel.survey(problem, device, options)
  local report = {}
  options = options or {}
  check.fields(options, { only_one = "boolean?", family = "string?" }, "options of survey")
  for i, def in ipairs(kernel.families(device.target, options.family)) do
    local list, r = survivors(def, problem, device, options)
    r.survivors = #list
    report[i] = r
  end
  return report
end

-- Why a family rejects one choice of parameters: rule name and sentence, or nil.
function kernel.rejection(problem, device, family, params)
  local def = kernel.family(family)
  if not def then check.among(family, check.sorted_keys(kernel.registry), "kernel family") end
  for _, p in ipairs(def.params) do
    local values = {}
    for i, x in ipairs(p.values) do values[i] = tostring(x) end
    check.among(tostring(params[p.name]), values, ("%s: value of %s"):format(family, p.name))
  end
  local _, rule = rejected(def, instance(def, registry.copy(problem), registry.copy(device), params))
  if rule then return rule.name, rule.why end
end

return kernel
