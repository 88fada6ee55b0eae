-- init.lua - the generator: loads templates in a sandbox and answers for formats, problems and variants.
--
-- `native` is what the host program gives: types (text, see gen/types.lua), hash(text), problem (gen/lua_problem.h),
-- read(path) -> text and the name that messages give it, or nil, list(folder) -> names. Templates see an explicit
-- environment: no io, no os, no loading; an unknown global is an error.

return function(native)
  local types = require "gen.types"
  types.read(native.types)
  local target = require "gen.target"
  local format = require "gen.format"
  local kernel = require "gen.kernel"
  local layout = require "gen.layout"
  local expr = require "gen.expr"
  local check = require "gen.check"
  local registry = require "gen.registry"
  kernel.hash, kernel.parse = native.hash, native.problem

  local gen = { types = types, target = target, format = format, kernel = kernel, layout = layout, expr = expr,
    check = check, json = require "gen.json" }
  local loaded = {}
  local copy = registry.copy

  local shared = {
    assert = assert, error = error, ipairs = ipairs, next = next, pairs = pairs, select = select, tonumber = tonumber,
    tostring = tostring, type = type,
  }

  -- Where a template calls format or kernel: "templates/formats/int.lua:3".
  local function here()
    local info = debug.getinfo(3, "Sl")
    return ("%s:%d"):format(info.short_src, info.currentline)
  end

  -- Each template has copies of the libraries and of what others return: what it changes, nobody else sees.
  local function environment(name)
    local env = {
      format = function(def) return copy(format.define(def, name, here())) end,
      kernel = function(def) return copy(kernel.define(def, name, here())) end,
      math = copy(math), string = copy(string), table = copy(table),
      layout = copy(layout), types = copy(types), targets = copy(target), expr = copy(expr),
      lookup = expr.lookup, bits = expr.bits,
      ceildiv = expr.ceildiv, min = expr.min, max = expr.max, lt = expr.lt, eq = expr.eq, cond = expr.select,
      M = expr.var "M", N = expr.var "N", K = expr.var "K", T = expr.var "T", E = expr.var "E",
      SMS = expr.var "SMS", SMEM = expr.var "SMEM", L2 = expr.var "L2",
      use = function(path)
        check.that(type(path) == "string" and not path:find "%.%.", nil, "use: %q is no path below templates/",
          tostring(path))
        return copy(gen.load("templates/" .. path .. ".lua"))
      end,
    }
    local names = check.sorted_keys(shared, env)
    return setmetatable(env, {
      __index = function(_, key)
        local x = shared[key]
        if x == nil then error(("unknown name %q%s"):format(tostring(key), check.instead(key, names)), 2) end
        return x
      end,
      __newindex = function(_, key) error(("assignment to global %q; use local"):format(tostring(key)), 2) end,
    })
  end

  -- Run one template file, once; returns what it returns.
  function gen.load(path)
    if loaded[path] == nil then
      local text, place = native.read(path)
      check.that(text, nil, "%s: no such template", path)
      kernel.progress(place or path)
      -- With a variable to close, `return format { … }` is no tail call, and here() finds its line.
      local chunk, why = load("local closed <close> = nil; " .. text, "@" .. (place or path), "t", environment(path))
      if not chunk then error(why, 0) end
      loaded[path] = chunk() or true
    end
    return loaded[path]
  end

  local function load_folder(folder)
    for _, name in ipairs(native.list(folder)) do gen.load(folder .. "/" .. name) end
  end

  -- All formats; kernel families come when they are asked for.
  function gen.load_formats()
    load_folder "templates/formats"
    return gen
  end
  function kernel.load(target_name) load_folder("templates/kernels/" .. target_name) end

  return gen
end
