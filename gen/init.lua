-- init.lua - the generator: loads templates in a sandbox and answers for formats, problems and variants.
--
-- `native` is what the host program gives: hash(text), read(path) -> text or nil, list(folder) -> names. Templates see
-- an explicit environment: no io, no os, no loading; an unknown global is an error.

return function(native)
  local format = require "gen.format"
  local kernel = require "gen.kernel"
  local layout = require "gen.layout"
  local expr = require "gen.expr"
  kernel.hash = native.hash

  local gen = { format = format, kernel = kernel, layout = layout, expr = expr, json = require "gen.json" }
  local loaded = {}

  local shared = {
    assert = assert, error = error, ipairs = ipairs, next = next, pairs = pairs, select = select, tonumber = tonumber,
    tostring = tostring, type = type, math = math, string = string, table = table,
  }

  local function environment(name)
    local env = {
      format = function(def) return format.define(def, name) end,
      kernel = function(def) return kernel.define(def, name) end,
      layout = layout, expr = expr, lookup = expr.lookup, bits = expr.bits,
      ceildiv = expr.ceildiv, min = expr.min, max = expr.max, lt = expr.lt, eq = expr.eq, cond = expr.select,
      M = expr.var "M", N = expr.var "N", K = expr.var "K", T = expr.var "T",
      SMS = expr.var "SMS", SMEM = expr.var "SMEM", L2 = expr.var "L2",
      use = function(path) return gen.load("templates/" .. path .. ".lua") end,
    }
    return setmetatable(env, {
      __index = function(_, key)
        local x = shared[key]
        if x == nil then error(("%s: unknown name %q"):format(name, tostring(key)), 2) end
        return x
      end,
      __newindex = function(_, key) error(("%s: assignment to global %q; use local"):format(name, tostring(key)), 2) end,
    })
  end

  -- Run one template file, once; returns what it returns.
  function gen.load(path)
    if loaded[path] == nil then
      local text = native.read(path)
      if not text then error(("%s: no such template"):format(path), 0) end
      local chunk, why = load(text, "@" .. path, "t", environment(path))
      if not chunk then error(why, 0) end
      loaded[path] = chunk() or true
    end
    return loaded[path]
  end

  function gen.load_all()
    for _, folder in ipairs { "templates/formats", "templates/kernels/host", "templates/kernels/cuda" } do
      for _, name in ipairs(native.list(folder)) do gen.load(folder .. "/" .. name) end
    end
    return gen
  end

  return gen
end
