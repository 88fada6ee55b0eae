-- main.lua - the command line: finds the verb, reads its options, runs it. Each verb is one file of lua/verbs.
--
-- A verb is a table:
--   name, usage (what follows the name), summary, about (more lines of help), arguments = { least, most },
--   options = { { "--m", "LIST", "what it says", default =, many = true, group = "Problem", with =, without = }… }
--     with, without: the option, or the first argument, that this one goes with only, or does not go with
--   examples = { what follows the name… }, with "# what it does" behind each
--   run = function(q, options) -> exit status (nil: 0)
-- An option without a value name is a flag. `options` has the values by name without dashes, the arguments by number.
--
-- Help goes to stdout and exits 0; misuse to stderr, exit 2; failure to stderr, exit 1: one line each.

local check = require "gen.check"
local common = require "lua.common"

local sections = {
  { "What there is", { "devices", "formats", "kernels", "source" } },
  { "Measuring", { "tune", "bench", "verify", "explain", "store" } },
  { "Packs and checkpoints", { "pack", "merge", "report", "inspect", "dequantize", "quantize", "convert" } },
  { "Accuracy, memory, time", { "tradeoff", "eval", "tokens" } },
  { "Scripts", { "run" } },
}

-- Every verb takes these.
local shared = {
  { "--template", "FILE", "first run a Lua file with a format or a kernel family of your own; may be repeated",
    many = true, group = "Templates" },
}

local function options_of(v)
  local out = table.move(v.options or {}, 1, #(v.options or {}), 1, {})
  return v.raw and out or table.move(shared, 1, #shared, #out + 1, out)
end

local variables = {
  { "QUERNEL_CACHE", "the store: what was measured (default: ~/.cache/quernel)" },
  { "QUERNEL_CACHE_SYSTEM", "a read-only store behind it" },
  { "QUERNEL_CC", "the C compiler for host kernels (default: cc, gcc or clang)" },
  { "QUERNEL_NVRTC", "the path of libnvrtc (default: the toolkit's, or that of NVIDIA's wheel)" },
  { "QUERNEL_CUBLAS", "the path of libcublas (default: the loader's)" },
  { "QUERNEL_TEMPLATES", "a folder whose templates/ come before those inside the tool" },
  { "QUERNEL_WORKER", "the worker program (default: beside the tool, or as installed)" },
  { "QUERNEL_BUSY", "ignore: every sample counts, however busy the machine is; for tests" },
  { "QUERNEL_TRACE", "if set, errors show where in the Lua code they come from" },
}

local function complain(status, text, ...)
  common.warn(text, ...)
  return status
end

local verbs = {}
for _, s in ipairs(sections) do table.move(s[2], 1, #s[2], #verbs + 1, verbs) end

local function verb(name) return require("lua.verbs." .. name) end

-- ---- Help -----------------------------------------------------------------------------------------------------------

local width = 80 -- columns of a terminal that nobody has widened

-- Add the lines of a text.
local function add_text(out, text)
  local lines = common.wrapped(text:gsub("\n", " "), width)
  table.move(lines, 1, #lines, #out + 1, out)
end

-- Add "  NAME  text", the text in a column of its own.
local function add_entry(out, name, text, column)
  if #name > column - 4 then out[#out + 1], name = "  " .. name, "" end
  for _, line in ipairs(common.wrapped(text, width - column)) do
    out[#out + 1], name = ("  " .. name .. (" "):rep(column - 2 - #name) .. line), ""
  end
end

local function add_title(out, text) table.move({ "", text }, 1, 2, #out + 1, out) end

local function help(q)
  local out = {
    ("quernel %s: kernels for matrix products with quantized weights"):format(q.version), "",
    "usage: quernel VERB [options]        quernel VERB --help: the options of a verb",
    "       quernel --version",
    "       quernel --manual DIR           write man pages and what shells complete",
    "                                      below DIR, such as ~/.local/share",
  }
  for _, s in ipairs(sections) do
    add_title(out, s[1])
    for _, name in ipairs(s[2]) do add_entry(out, name, verb(name).summary, 14) end
  end
  add_title(out, "Environment")
  for _, x in ipairs(variables) do add_entry(out, x[1], x[2], 24) end
  return table.concat(out, "\n")
end

-- The options of a verb in their groups: list of { title, { name = "--m LIST", text }… }.
local function groups_of(v)
  local groups = {}
  for _, o in ipairs(options_of(v)) do
    local title = o.group or "Output"
    if not groups[title] then
      groups[title] = { title = title }
      groups[#groups + 1] = groups[title]
    end
    table.insert(groups[title], { name = o[1] .. (o[2] and " " .. o[2] or ""),
      text = o[3] .. (o.default and (" (default: %s)"):format(o.default) or "") })
  end
  return groups
end

local function verb_help(v)
  local out = { ("usage: quernel %s %s"):format(v.name, v.usage), "" }
  add_text(out, v.summary)
  if v.about then
    out[#out + 1] = ""
    add_text(out, v.about)
  end
  for _, group in ipairs(groups_of(v)) do
    add_title(out, group.title)
    for _, o in ipairs(group) do add_entry(out, o.name, o.text, 23) end
  end
  add_title(out, "Examples")
  for _, text in ipairs(v.examples) do out[#out + 1] = ("  quernel %s %s"):format(v.name, text):gsub(" $", "") end
  return table.concat(out, "\n")
end

-- Write what is made of the help into a folder: exit status.
local function write_manual(q, folder)
  if not folder then return complain(2, "--manual needs a value: DIR") end
  local ok, why = require "lua.manual".write(q, { version = q.version, sections = sections, variables = variables,
    verb = verb, options_of = options_of, groups_of = groups_of }, folder)
  return ok and 0 or complain(1, "%s", why)
end

-- What is wrong with the environment: a variable QUERNEL_… that neither the tool nor the scripts around it read.
local function environment_fault(q)
  local known = { "QUERNEL_BUILD", "QUERNEL_GPU_STATE", "QUERNEL_TESTS" }
  for i, x in ipairs(variables) do table.insert(known, i, x[1]) end
  for _, name in ipairs(q.native.environment "QUERNEL_") do
    local ok, why = pcall(check.among, name, known, "environment variable")
    if not ok then return why end
  end
end

-- ---- Reading the arguments ------------------------------------------------------------------------------------------

local function key_of(name) return (name:gsub("^%-+", "")) end

-- Options that do not go with what else is asked for would do nothing.
local function check_company(out, given)
  local function there(name) return given[name] or name == out[1] end
  for name, o in pairs(given) do
    if o.with and not there(o.with) then common.misuse("%s goes with %s only", name, o.with) end
    if o.without and there(o.without) then common.misuse("%s does not go with %s", name, o.without) end
  end
end

local function parse(v, args)
  local out, known, names, given = {}, {}, {}, {}
  for i, o in ipairs(options_of(v)) do
    known[o[1]], names[i] = o, o[1]
    out[key_of(o[1])] = o.default
  end
  local i = 2
  local function value_of(o, inline)
    if not o[2] then
      if inline then common.misuse("%s takes no value", o[1]) end
      return true
    end
    local value = inline
    if not inline then
      i = i + 1
      value = not known[args[i]] and args[i] or ""
    end
    return value ~= "" and value or common.misuse("%s needs a value: %s", o[1], o[2])
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
      local o = known[common.ask(check.among, name or a, names, "option")]
      given[o[1]] = o
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
  check_company(out, given)
  return out
end

-- What follows a script is the script's.
local function wants_help(v, args)
  for i = 2, v.raw and math.min(2, #args) or #args do
    if args[i] == "--" then return false end
    if args[i] == "--help" or args[i] == "-h" then return true end
  end
end

return function(q, args)
  local name = args[1]
  if name == "--help" or name == "-h" or name == "help" and not args[2] then print(help(q)) return 0 end
  if name == "--version" then print("quernel " .. q.version) return 0 end
  if name == "--manual" then return write_manual(q, args[2]) end
  if not name then io.stderr:write(help(q), "\n") return 2 end
  if name == "help" then name, args = args[2], { args[2], "--help" } end
  local fault = environment_fault(q)
  if fault then return complain(2, "%s", fault) end
  local found, why = pcall(check.among, name, verbs, "verb")
  if not found then return complain(2, "%s", why) end
  local v = verb(name)
  if wants_help(v, args) then print(verb_help(v)) return 0 end
  if v.raw then return v.run(q, args) end

  local trace
  local ok, status = xpcall(function()
    local options = parse(v, args)
    options.command = common.command("quernel", args)
    for _, path in ipairs(options.template or {}) do common.check(q.load(path)) end
    return v.run(q, options)
  end, function(e)
    if os.getenv "QUERNEL_TRACE" then trace = debug.traceback(tostring(e), 2) end
    return e
  end)
  if trace then io.stderr:write(trace, "\n") end
  if ok then return status or 0 end
  if type(status) == "table" and status.misuse then return complain(2, "%s: %s", v.name, status.misuse) end
  return complain(1, "%s", tostring(status))
end
