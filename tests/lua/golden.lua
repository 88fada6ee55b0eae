-- The golden sources of tests/golden: what the generator writes now, beside what is kept.
local function files(folder)
  local out <close> = io.popen(("cd '%s' && ls *.golden"):format(folder))
  return out:read "a"
end

local function unified(kept, made)
  local out <close> = io.popen(("diff -u --label kept --label made '%s' '%s' 2>&1"):format(kept, made))
  return out:read "a"
end

local sources = dofile(QN_TESTS .. "/golden/sources.lua")()
local cases, names = {}, {}
for i, x in ipairs(sources) do
  names[i] = x.name .. "\n"
  cases[i] = { x.name, function(t)
    local diff = unified(t.tests .. "/golden/" .. x.name, t.write(x.name, x.text))
    for line in x.text:gmatch "[^\n]+" do t.check(#line <= 120, "is longer than 120: " .. line) end
    t.check(diff == "", ("is not what is made now:\n%sif it is right: tests/golden/refresh"):format(diff))
  end }
end
table.sort(names)
cases[#cases + 1] = { "every file is made", function(t) t.equal(files(t.tests .. "/golden"), table.concat(names)) end }
return cases
