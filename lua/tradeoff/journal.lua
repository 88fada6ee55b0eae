-- journal.lua - what a run found out, kept in a file as soon as it is known: a line of JSON each, { key, value }.
--
-- The first line says of which run it is. A line that a killed run left unfinished is passed over, and the work is done
-- again.

return function(encode, decode)
  local journal = {}
  journal.__index = journal

  -- What the lines of a text hold: key -> value. Raises if they belong to another run.
  local function read(text, identity, path)
    local known, head = {}, nil
    for line in text:gmatch "([^\n]*)\n" do
      local ok, entry = pcall(decode, line)
      if ok and type(entry) == "table" then
        if head then known[entry.key] = entry.value else head = entry.run end
      end
    end
    if head and head ~= identity then
      error(("%s is of another run, of %s (or the text, calibration, task, device or build is another); name another "
        .. "folder with -o, or remove that one"):format(path, head), 0)
    end
    return known, head ~= nil
  end

  local function write(self, text)
    local ok, why = self.file:write(text)
    if not ok then error({ why = ("%s: %s"):format(self.path, why), code = "QN_E_IO" }, 0) end
  end

  -- Open or begin the journal of a run that `identity`, a text, tells from others. -> journal, or nil, message. What
  -- cannot be written is raised, { why, code }, as run.blame does.
  function journal.open(path, identity)
    local old, text = io.open(path, "rb"), ""
    if old then
      text = old:read "a" or ""
      old:close()
    end
    local ok, known, begun = pcall(read, text, identity, path)
    if not ok then return nil, known end
    local file, why = io.open(path, "ab")
    if not file then return nil, why end
    file:setvbuf "no"
    local self = setmetatable({ file = file, path = path, known = known }, journal)
    if text ~= "" and text:sub(-1) ~= "\n" then write(self, "\n") end
    if not begun then write(self, encode { run = identity } .. "\n") end
    return self
  end

  function journal:get(key) return self.known[key] end

  function journal:put(key, value)
    self.known[key] = value
    write(self, encode { key = key, value = value } .. "\n")
    return value
  end

  function journal:close() self.file:close() end
  journal.__close = journal.close

  return journal
end
