-- main.lua - the command line: finds the verb, reads its options, runs it. Each verb is one file of lua/verbs.
--
-- A verb is a table: name, group, usage, summary, options = { { "--m", "LIST", "what", default }… }, positional (how many
-- arguments it takes: { least, most }), run(q, args) -> exit status. An option without a value name is a flag.
-- Help goes to stdout and exits 0; misuse goes to stderr and exits 2; failure exits 1.

local names = { "devices", "formats", "kernels", "source", "tune", "bench", "verify", "explain", "pack", "inspect", "dequantize", "run" }

local function misuse(text, ...)
  io.stderr:write("quernel: ", text:format(...), "\n")
  return 2
end

local function load_verb(name)
  for _, known in ipairs(names) do
    if known == name then return require("lua.verbs." .. name) end
  end
end

local function help(q)
  print("quernel " .. q.version .. ": generate, tune and serve kernels for matrix products with quantized weights\n")
  print("usage: quernel VERB [options]; quernel VERB --help shows the options of a verb\n")
  local groups = { "What there is", "Measuring", "Packs and models", "Scripts" }
  for _, group in ipairs(groups) do
    print(group)
    for _, name in ipairs(names) do
      local v = load_verb(name)
      if v.group == group then print(("  %-44s %s"):format(v.usage, v.summary)) end
    end
    print ""
  end
end

local function verb_help(v)
  print("usage: quernel " .. v.usage .. "\n\n" .. v.summary .. "\n")
  for _, o in ipairs(v.options or {}) do
    local default = o[4] and (" (default: %s)"):format(o[4]) or ""
    print(("  %-26s %s%s"):format(o[1] .. (o[2] and " " .. o[2] or ""), o[3], default))
  end
end

-- Arguments -> table: options by name without dashes, positional ones in order. nil, message on misuse.
local function parse(v, args)
  local out, known = {}, {}
  for _, o in ipairs(v.options or {}) do
    known[o[1]] = o
    if o[4] and o[2] then out[o[1]:gsub("^%-+", "")] = o[4] end
  end
  local i = 2
  while i <= #args do
    local a = args[i]
    local name, value = a:match "^(%-%-?[%w%-]+)=(.*)$"
    name = name or a
    if a:sub(1, 1) == "-" and a ~= "-" then
      local o = known[name]
      if not o then return nil, ("%s: unknown option %s"):format(v.name, name) end
      if o[2] then
        if not value then i = i + 1; value = args[i] end
        if not value then return nil, ("%s: %s needs a value %s"):format(v.name, name, o[2]) end
      else
        value = true
      end
      local key = name:gsub("^%-+", "")
      if o.many then
        out[key] = type(out[key]) == "table" and out[key] or {}
        table.insert(out[key], value)
      else
        out[key] = value
      end
    else
      out[#out + 1] = a
    end
    i = i + 1
  end
  local least, most = v.positional[1], v.positional[2]
  if #out < least then return nil, ("%s: too few arguments; usage: quernel %s"):format(v.name, v.usage) end
  if #out > most then return nil, ("%s: unexpected argument %q; usage: quernel %s"):format(v.name, out[most + 1], v.usage) end
  return out
end

return function(q, args)
  local name = args[1]
  if name == nil then help(q) return 2 end
  if name == "--help" or name == "-h" or name == "help" then help(q) return 0 end
  if name == "--version" then print("quernel " .. q.version) return 0 end
  local v = load_verb(name)
  if not v then return misuse("unknown verb %q; quernel --help lists them", name) end
  for i = 2, #args do
    if args[i] == "--help" or args[i] == "-h" then verb_help(v) return 0 end
    if args[i] == "--" then break end
  end
  if v.raw then return v.run(q, args) end
  local options, why = parse(v, args)
  if not options then return misuse("%s", why) end
  local ok, status = pcall(v.run, q, options)
  if ok then return status or 0 end
  if type(status) == "table" and status.misuse then return misuse("%s", status.misuse) end
  io.stderr:write("quernel: ", tostring(status), "\n")
  return 1
end
