-- helpers.lua - what a source defines and does not use is left out of it.
--
-- Functions at the left margin that begin with `fn`, and types that are defined on one line there, are left out with
-- the comment above where nothing behind them names them. So a template need not ask which helpers a variant wants.

local helpers = {}
helpers.__index = helpers

-- What a line at the left margin begins to define, and whether it ends there.
local function definition(line)
  local name = line:match "^fn [^(]-([%a_][%w_]*)%(" or line:match "^template <[^>]*> fn [^(]-([%a_][%w_]*)%("
  if name then return name, line:match ".*([{}])" == "}" end
  return line:match "^typedef [^{]-([%a_][%w_]*);" or line:match "^typedef [^{]-([%a_][%w_]*) __attribute__"
    or line:match "^typedef struct {.*} ([%w_]+);" or line:match "^struct [^{]-([%a_][%w_]*) {.*};$", true
end

-- { name, its chunks: first, last } in order, and the one that has not ended.
function helpers.new() return setmetatable({ open = nil }, helpers) end

-- Chunk `at` is a line at the left margin.
function helpers:note(line, at)
  if not line:find "^[fst}]" then return end
  local name, whole = definition(line)
  if name then self.open = { name = name, first = at } end
  if self.open and (line == "}" or name and whole) then
    self.open.last = at
    self[#self + 1], self.open = self.open, nil
  end
end

-- The chunks, by number, of definitions that nothing behind them names, and of the comments before those.
function helpers:unused(chunks)
  local dropped, named, last = {}, {}, #chunks
  local function read(first, upto)
    for i = first, upto do
      if type(chunks[i]) == "string" then for word in chunks[i]:gmatch "[%w_]+" do named[word] = true end end
    end
  end
  for d = #self, 1, -1 do
    local x, follower = self[d], self[d + 1]
    read(x.last + 1, last)
    last = x.first - 1
    if named[x.name] then
      read(x.first, x.last)
    else
      for i = x.first, x.last do dropped[i] = true end
      local shared = follower and follower.first == x.last + 1 and not dropped[follower.first] -- the comment is of both
      local above = chunks[last]
      dropped[last] = not shared and type(above) == "string" and above:find "^/%*.*%*/$" and true
    end
  end
  return dropped
end

return helpers
