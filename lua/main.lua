-- main.lua - the command line: finds the verb, reads its options, runs it. Each verb is one file of lua/verbs.
--
-- A verb is a table:
--   name, usage (what follows the name), summary, about (more lines of help), arguments = { least, most },
--   options = { { "--m", "LIST", "what it says", default =, many = true, group = "Problem" }… }
--   run = function(q, options) -> exit status (nil: 0)
-- An option without a value name is a flag. `options` has the values by name without dashes, the arguments by number.
--
-- Help goes to stdout and exits 0; misuse to stderr, exit 2; failure to stderr, exit 1: one line each.

local common = require "lua.common"

local sections = {
  { "What there is", { "devices", "formats", "kernels", "source" } },
  { "Measuring", { "tune", "bench", "verify", "explain", "store" } },
  { "Packs and checkpoints", { "pack", "inspect", "dequantize", "quantize", "convert" } },
  { "Scripts", { "run" } },
}

local function verb(name)
  for _, s in ipairs(sections) do
    for _, known in ipairs(s[2]) do
      if known == name then return require("lua.verbs." .. name) end
    end
  end
end

local function help(q)
  local out = {
    ("quernel %s: generate, tune and serve kernels for matrix products with quantized weights"):format(q.version), "",
    "usage: quernel VERB [options]        quernel VERB --help: the options of a verb",
  }
  for _, s in ipairs(sections) do
    table.move({ "", s[1] }, 1, 2, #out + 1, out)
    for _, name in ipairs(s[2]) do out[#out + 1] = ("  %-11s %s"):format(name, verb(name).summary) end
  end
  return table.concat(out, "\n")
end

local function verb_help(v)
  local out = { ("usage: quernel %s %s"):format(v.name, v.usage), "", v.summary }
  if v.about then table.move({ "", v.about }, 1, 2, #out + 1, out) end
  local group
  for _, o in ipairs(v.options or {}) do
    if (o.group or "Output") ~= group then
      group = o.group or "Output"
      table.move({ "", group }, 1, 2, #out + 1, out)
    end
    local default = o.default and (" (default: %s)"):format(o.default) or ""
    out[#out + 1] = ("  %-20s %s%s"):format(o[1] .. (o[2] and " " .. o[2] or ""), o[3], default)
  end
  return table.concat(out, "\n")
end

-- ---- Reading the arguments -----------------------------------------------------------------------------------------

local function key_of(name) return (name:gsub("^%-+", "")) end

local function parse(v, args)
  local out, known = {}, {}
  for _, o in ipairs(v.options or {}) do
    known[o[1]] = o
    out[key_of(o[1])] = o.default
  end
  local i = 2
  local function value_of(o, inline)
    if not o[2] then
      if inline then common.misuse("%s takes no value", o[1]) end
      return true
    end
    if inline then return inline end
    i = i + 1
    return args[i] or common.misuse("%s needs a value: %s", o[1], o[2])
  end
  local options_end = false
  while i <= #args do
    local a = args[i]
    if a == "--" and not options_end then
      options_end = true
    elseif options_end or a:sub(1, 1) ~= "-" or a == "-" then
      out[#out + 1] = a
    else
      local name, inline = a:match "^(%-%-[^=]+)=(.*)$"
      local o = known[name or a] or common.misuse("unknown option %s", name or a)
      local key, value = key_of(o[1]), value_of(o, inline)
      if o.many then
        out[key] = out[key] or {}
        table.insert(out[key], value)
      else
        out[key] = value
      end
    end
    i = i + 1
  end
  local least, most = table.unpack(v.arguments)
  if #out < least then common.misuse("too few arguments; usage: quernel %s %s", v.name, v.usage) end
  if #out > most then common.misuse("unexpected argument %q; usage: quernel %s %s", out[most + 1], v.name, v.usage) end
  return out
end

-- What follows a script is the script's.
local function wants_help(v, args)
  for i = 2, v.raw and math.min(2, #args) or #args do
    if args[i] == "--" then return false end
    if args[i] == "--help" or args[i] == "-h" then return true end
  end
end

local function complain(status, text, ...)
  io.stderr:write("quernel: ", printable(text:format(...)), "\n")
  return status
end

return function(q, args)
  local name = args[1]
  if name == "--help" or name == "-h" or name == "help" and not args[2] then print(help(q)) return 0 end
  if name == "--version" then print("quernel " .. q.version) return 0 end
  if not name then io.stderr:write(help(q), "\n") return 2 end
  if name == "help" then name, args = args[2], { args[2], "--help" } end
  local v = verb(name)
  if not v then return complain(2, "unknown verb %q; quernel --help lists them", name) end
  if wants_help(v, args) then print(verb_help(v)) return 0 end
  if v.raw then return v.run(q, args) end

  local trace
  local ok, status = xpcall(function() return v.run(q, parse(v, args)) end, function(e)
    if os.getenv "QUERNEL_TRACE" then trace = debug.traceback(tostring(e), 2) end
    return e
  end)
  if trace then io.stderr:write(trace, "\n") end
  if ok then return status or 0 end
  if type(status) == "table" and status.misuse then return complain(2, "%s: %s", v.name, status.misuse) end
  return complain(1, "%s", tostring(status))
end
