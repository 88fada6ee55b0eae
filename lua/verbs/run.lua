return {
  name = "run", usage = "SCRIPT.lua [arguments]", arguments = { 1, 1 }, raw = true,
  summary = "run a Lua script that may require \"quernel\"; its arguments are in `arg`",
  examples = { "templates/examples/nf3.lua 48x512" },
  run = function(_, args)
    local script = args[2]
    if not script then
      io.stderr:write "quernel: run: a script is needed; usage: quernel run SCRIPT.lua [arguments]\n"
      return 2
    end
    _G.arg = { [0] = script, table.unpack(args, 3) }
    local chunk, why = loadfile(script, "t")
    if not chunk then
      io.stderr:write("quernel: ", why, "\n")
      return 1
    end
    local ok, result = xpcall(chunk, debug.traceback, table.unpack(arg))
    if not ok then
      io.stderr:write("quernel: ", tostring(result), "\n")
      return 1
    end
    return math.type(result) == "integer" and result or 0
  end,
}
