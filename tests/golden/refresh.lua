-- refresh.lua - the second half of refresh.
for _, x in ipairs(dofile "tests/golden/sources.lua"()) do
  local f <close> = assert(io.open("tests/golden/" .. x.name, "w"))
  f:write(x.text)
end
