-- emit.lua - writing source text that reads as if written by hand.
--
-- A section function receives `w` and calls it with blocks of text. In a block, ${NAME} stands for a value of the
-- variant; a missing name is an error. Blocks are dedented and follow the current indentation (w.push, w.pop). A value
-- of several lines, alone on its line, keeps the indentation of the line. A line that its values make too long is
-- broken. Each block remembers the template's line, so that compilers report errors there.

local helpers = require "gen.helpers"
local emit = {}
local here = debug.getinfo(1, "S").source

local function dedent(text)
  text = text:gsub("^\n", ""):gsub("%s+$", "")
  local margin
  for line in (text .. "\n"):gmatch "(.-)\n" do
    local indent = line:match "^( *)%S"
    if indent and (not margin or #indent < margin) then margin = #indent end
  end
  return text, margin or 0
end

-- A line with its values; nil for one that is no more than a value, which is empty.
local function substitute(line, extra, values, where)
  if not line:find("${", 1, true) then return line end
  local function value(name)
    local x = extra and extra[name]
    if x == nil then x = values[name] end
    if x == nil then error(("%s: ${%s} has no value"):format(where, name), 0) end
    if math.type(x) == "float" and x == x // 1 then x = math.tointeger(x) end
    return tostring(x)
  end
  local indent, name = line:match "^( *)%${([%w_]+)}$"
  if name then
    local text = value(name)
    if text == "" then return nil end
    return (indent .. text:gsub("%s+$", ""):gsub("\n", "\n" .. indent)):gsub("\n +\n", "\n\n")
  end
  return (line:gsub("%${([%w_]+)}", value))
end

-- Lines for the preprocessor stay at the margin.
local function indented(text, depth)
  if depth == 0 then return text end
  local margin = ("  "):rep(depth)
  return (text:gsub("[^\n]+", function(line) return line:find "^#" and line or margin .. line end))
end

-- What goes beyond the last column stands below, from behind the last comma that is in no string.
local columns = 120
local function broken(line, margin)
  if #line <= columns or line:find "^#" then return line end
  local at
  for comma in line:sub(1, columns):gmatch "(),%s" do
    if select(2, line:sub(1, comma):gsub('"', "")) % 2 == 0 then at = comma end
  end
  if not at or at <= #margin then return line end
  return line:sub(1, at) .. "\n" .. broken(margin .. line:sub(at + 2), margin)
end

local function fitting(text)
  if #text <= columns then return text end
  return (text:gsub("[^\n]+", function(line) return broken(line, line:match "^ *" .. "    ") end))
end

local function text_of(chunks, dropped, lines)
  local out, place, number, jumped = {}, nil, 0, false
  for i, c in ipairs(chunks) do
    if type(c) == "table" then
      place, number, jumped = c, c.line, true
    else
      if dropped[i] or c == "" and out[#out] == "" then
        jumped = true
      else
        if lines and place and jumped then out[#out + 1] = ('#line %d "%s"'):format(number, place.file) end
        out[#out + 1], jumped = c, false
      end
      number = number + 1
    end
  end
  return table.concat(out, "\n") .. "\n"
end

function emit.new(values)
  local chunks, depth = {}, 0
  local defined = helpers.new()
  local w = { values = values }

  -- w(text [, extra]): write a block; `extra` has values for this block alone.
  local function write(_, text, extra)
    local level, info = 2, debug.getinfo(2, "Sl")
    while info.source == here do level = level + 1; info = debug.getinfo(level, "Sl") end -- through push and pop
    local where = ("%s:%d"):format(info.short_src, info.currentline)
    local body, margin = dedent(text)
    local first = text:find "\n" and 1 or 0 -- [[ drops the newline behind it: such a text begins one line below
    local number = info.currentline + first
    if info.source:sub(1, 1) == "@" then chunks[#chunks + 1] = { line = number, file = info.source:sub(2) } end
    for line in (body .. "\n"):gmatch "(.-)\n" do
      line = line:sub(margin + 1)
      local out = substitute(line, extra, values, where)
      if out then
        out = fitting(indented(out, depth))
        chunks[#chunks + 1] = out
        if depth == 0 then defined:note(out, #chunks) end
        if out:find "\n" then chunks[#chunks + 1] = { line = number + 1, file = info.source:sub(2) } end
      else
        chunks[#chunks + 1] = { line = number + 1, file = info.source:sub(2) }
      end
      number = number + 1
    end
  end

  function w.blank() chunks[#chunks + 1] = "" end
  function w.push(text, extra) if text then w(text, extra) end depth = depth + 1 end
  function w.pop(text, extra) depth = depth - 1 if text then w(text, extra) end end

  -- Write `body` with the values of another variant.
  function w.with(other, body)
    local mine = values
    values = other
    body()
    values = mine
  end

  -- The text written so far, with or without #line directives.
  function w.text(lines) return text_of(chunks, defined:unused(chunks), lines) end
  return setmetatable(w, { __call = write })
end

return emit
