return {
  name = "run", group = "Scripts", usage = "run SCRIPT.lua [arguments]", summary = "run a Lua script with the module quernel (require \"quernel\"); arguments are in `arg`",
  raw = true, positional = { 1, 1 },
  run = function(q, args)
    if not args[2] then
      io.stderr:write "quernel: run: a script is needed; usage: quernel run SCRIPT.lua [arguments]\n"
      return 2
    end
    arg = { [0] = args[2], table.unpack(args, 3) }
    local chunk, why = loadfile(args[2], "t")
    if not chunk then error(why, 0) end
    local status = chunk(table.unpack(arg))
    return math.type(status) == "integer" and status or 0
  end,
}
