-- style.lua - how every Lua and C file of the tree is written, every Python file of the package, and every page.
--
--   lua5.4 tests/style.lua      FILE:LINE and the rule that is broken, for each place; last, the commands that help
--
-- Lines have at most 120 columns, and so has each banner, exactly; Lua is indented in steps of two; a function has at
-- most 60 lines, a kernel family fewer than 250. C is what clang-format 14 makes of it, and luacheck has nothing to say
-- of Lua (.luacheckrc). Where one of the two is missing that is said, and the rest is checked. Lines of a page have at
-- most 132 columns; its tables and what programs print are as wide as they are. Nowhere stands a mark of unfinished
-- work, or a path of one machine.

local columns, page_columns, function_lines, family_lines = 120, 132, 60, 249
local unfinished = { "TO" .. "DO", "FIX" .. "ME", "XX" .. "X", "HA" .. "CK", "WI" .. "P" }
local own_folders = { "home", "root", "work" }

-- Functions that may be longer: switches with a line or two for each case.
local dispatch = { ["runtime/emu/step.c:run_fragment"] = true }

local root = arg[0]:match "^(.*)/tests/[^/]*$" or "."
local found, help = 0, {}

local function report(file, line, what, ...)
  found = found + 1
  print(("%s:%d: %s"):format(file, line, what:format(...)))
end

local function output(command)
  local pipe = assert(io.popen(("cd '%s' && %s"):format(root, command)))
  local text = pipe:read "a"
  return text, pipe:close()
end

local function files(pattern, folder)
  local list = {}
  for name in output(("find ./%s -name 'build*' -prune -o -name .git -prune -o -name '%s' -print"):format(folder or "",
    pattern)):gmatch "%./([^\n]+)" do list[#list + 1] = name end
  table.sort(list)
  return list
end

local function read(name)
  local file = assert(io.open(root .. "/" .. name))
  return file:read "a", file:close()
end

-- ---- Lines ----------------------------------------------------------------------------------------------------------

-- Lines of Lua that begin inside a string in long brackets: their indentation is that of the text.
local function inside_strings(text)
  local inside, at, line = {}, 1, 1
  local function skip(from, to, is_string)
    for _ in text:sub(from, to):gmatch "\n" do
      line = line + 1
      inside[line] = is_string
    end
    at = to + 1
  end
  while true do
    local from = text:find("[\"'%[%-]", at)
    if not from then return inside end
    skip(at, from - 1)
    local level = text:match("^%[(=*)%[", from) or text:match("^%-%-%[(=*)%[", from)
    local quote = text:match("^[\"']", from)
    if level then skip(from, select(2, text:find("]" .. level .. "]", from, true)), true)
    elseif quote then
      local to = from + 1
      while text:sub(to, to) ~= quote do to = to + (text:sub(to, to) == "\\" and 2 or 1) end
      skip(from, to)
    elseif text:find("^%-%-", from) then skip(from, text:find("\n", from, true) - 1)
    else skip(from, from) end
  end
end

local function width_of(line) return utf8.len(line) or #line end

-- What no line may have, of code or of a page.
local function check_line(name, number, line, most)
  if width_of(line) > most then report(name, number, "%d columns, at most %d are read easily", width_of(line), most) end
  if line:find "\t" then report(name, number, "a tab: indent with spaces") end
  if line:find "%s$" then report(name, number, "blanks at the end of the line") end
  for _, word in ipairs(unfinished) do
    if line:find("%f[%w]" .. word .. "%f[%W]") then report(name, number, "%s: finish it, or leave it out", word) end
  end
  for _, folder in ipairs(own_folders) do
    local path = "/" .. folder .. "/"
    if line:find("%f[%w/]" .. path) then report(name, number, "%s: a path that other machines do not have", path) end
  end
end

local function check_end(name, text, number, blank)
  if text:sub(-1) ~= "\n" then report(name, number + 1, "the last line does not end") end
  if blank > 0 then report(name, number, "a blank line at the end of the file") end
end

local function check_page(name, text)
  local number, blank, printed = 0, 0, false
  for line in text:gmatch "([^\n]*)\n" do
    number = number + 1
    if line:find "^%s*```" then printed = not printed end
    check_line(name, number, line, (printed or line:find "^|") and math.huge or page_columns)
    blank = line == "" and blank + 1 or 0
    if not printed and (blank > 1 or blank == number) then report(name, number, "a blank line too many") end
  end
  if printed then report(name, number, "what ``` begins does not end") end
  check_end(name, text, number, blank)
end

-- blanks: how many blank lines may follow each other.
local function check_lines(name, text, blanks, inside)
  local number, blank = 0, 0
  for line in text:gmatch "([^\n]*)\n" do
    number = number + 1
    check_line(name, number, line, columns)
    blank = line == "" and blank + 1 or 0
    if blank > blanks or blank == number then report(name, number, "a blank line too many") end
    if line:find "^%s*%-%- %-%-%-%- " or line:find "^%s*/%* %-%-%-%- " or line:find "^%s*# %-%-%-%- " then
      if width_of(line) ~= columns or not line:find "%-%-%-$" and not line:find "%-%-%- %*/$" then
        report(name, number, "a banner is one line of %d columns: -- ---- Title ---…", columns)
      end
    end
    if inside and not inside[number] and #line:match "^ *" % 2 ~= 0 then
      report(name, number, "indented by %d: steps of two", #line:match "^ *")
    end
  end
  check_end(name, text, number, blank)
end

-- ---- Functions ------------------------------------------------------------------------------------------------------

local function check_length(file, name, first, last)
  local key = file .. ":" .. name
  if last - first + 1 <= function_lines then return end
  if dispatch[key] then dispatch[key] = "used" return end
  report(file, first, "%s has %d lines: split it where its steps are, at most %d", name, last - first + 1,
    function_lines)
end

-- A definition begins at the left margin and ends with a brace there.
local function check_c_functions(file, text)
  local number, first, name = 0, nil, nil
  for line in text:gmatch "([^\n]*)\n" do
    number = number + 1
    if line:find "^[%a_]" and not line:find "^[%w_]+:$" then first, name = number, line:match "([%w_]+)%(" end
    if line == "}" and name then check_length(file, name, first, number) end
  end
end

-- One begins at its "def" and ends where a line that is not blank stands as far to the left.
local function check_python_functions(file, text)
  local number, open = 0, {}
  for line in (text .. "the end\n"):gmatch "([^\n]*)\n" do
    number = number + 1
    local indent = line:find "%S"
    while indent and open[1] and indent <= open[#open].indent and not line:find "^%s*%)" do
      local f = table.remove(open)
      check_length(file, f.name, f.first, f.last)
    end
    if indent then
      for _, f in ipairs(open) do f.last = number end
    end
    local name = line:match "^%s*def ([%w_]+)"
    if name then open[#open + 1] = { name = name, indent = indent, first = number, last = number } end
  end
end

-- As the compiler sees them. What a whole file returns, `return function(…)` at the left margin, is its module.
local function check_lua_functions(list, texts)
  local listing = output(("for f in %s; do luac5.4 -l -p $f; done"):format(table.concat(list, " ")))
  for file, first, last in listing:gmatch "\nfunction <([^:\n]+):(%d+),(%d+)>" do
    local number, opening = 0, nil
    for line in texts[file]:gmatch "([^\n]*)\n" do
      number = number + 1
      if number == tonumber(first) then opening = line break end
    end
    local name = opening:match "function ([%w_.:]+)" or opening:match "([%w_]+) = function" or "a function"
    if not opening:find "^return function" then check_length(file, name, tonumber(first), tonumber(last)) end
  end
end

-- ---- Other programs -------------------------------------------------------------------------------------------------

local function check_format(list)
  if not output "clang-format --version 2>&1":find " 14%." then
    return print "clang-format 14 is not here: the layout of C is not checked (apt-get install clang-format)"
  end
  local text = output(("clang-format --dry-run %s 2>&1"):format(table.concat(list, " ")))
  local wrong = {}
  for file, line in text:gmatch "([^\n:]+):(%d+):%d+: warning" do
    if not wrong[file] then
      report(file, tonumber(line), "clang-format writes it otherwise")
      wrong[#wrong + 1] = file
    end
    wrong[file] = true
  end
  if wrong[1] then help[#help + 1] = "clang-format -i " .. table.concat(wrong, " ") end
end

local function check_lua(list)
  if not output "luacheck --version 2>&1":find "Luacheck:" then
    return print "luacheck is not here: names in Lua are not checked (apt-get install lua-check)"
  end
  local text = output("luacheck --no-color --codes --formatter plain " .. table.concat(list, " "))
  for file, line, what in text:gmatch "([^\n:]+):(%d+):%d+: ([^\n]+)" do report(file, tonumber(line), "%s", what) end
end

-- ---- All ------------------------------------------------------------------------------------------------------------

local lua, c, python, pages = files "*.lua", files "*.[ch]", files("*.py", "python"), files "*.md"
local texts = {}
for _, name in ipairs(pages) do check_page(name, read(name)) end
for _, name in ipairs(lua) do
  texts[name] = read(name)
  check_lines(name, texts[name], 1, inside_strings(texts[name]))
  local length = select(2, texts[name]:gsub("\n", ""))
  if name:find "^templates/kernels/%a+/" and not name:find "/common/" and length > family_lines then
    report(name, length, "a family has at most %d lines: what others could use goes to common/", family_lines)
  end
end
check_lua_functions(lua, texts)
check_lua(lua)
for _, name in ipairs(c) do
  local text = read(name)
  check_lines(name, text, 1)
  check_c_functions(name, text)
end
for _, name in ipairs(python) do
  local text = read(name)
  check_lines(name, text, 2)
  check_python_functions(name, text)
end
check_format(c)
for name, used in pairs(dispatch) do
  if used ~= "used" then report("tests/style.lua", 1, "%s is listed as long and is not: take it off the list", name) end
end

if found > 0 then
  help[#help + 1] = "lua5.4 tests/style.lua"
  print(("%d places; to mend and to look again:\n  %s"):format(found, table.concat(help, "\n  ")))
  os.exit(1)
end
local done = "%d files of Lua, %d of C, %d of Python and %d pages are as they should be"
print(done:format(#lua, #c, #python, #pages))
