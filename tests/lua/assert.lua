-- assert.lua - the assertions that a case is given as `t`, beside t.tests, t.library, t.scratch of test_lua.c.
local t = { tests = QN_TESTS, library = QN_LIBRARY, scratch = QN_SCRATCH }

function t.check(ok, what) if not ok then error(tostring(what or "check"), 2) end end

function t.equal(a, b, what)
  if a ~= b then error(("%s%q, not %q"):format(what and what .. ": " or "", tostring(a), tostring(b)), 2) end
end

local function failed(wanted, plain, fn, ...)
  local ok, why = pcall(fn, ...)
  if ok then error("it did not fail with " .. wanted, 3) end
  if not tostring(why):find(wanted, 1, plain) then error(("%q, not %q"):format(tostring(why), wanted), 3) end
end

function t.fails(pattern, fn, ...) failed(pattern, false, fn, ...) end
function t.says(text, fn, ...) failed(text, true, fn, ...) end

function t.write(name, text)
  local path = t.scratch .. "/" .. name
  local f <close> = assert(io.open(path, "wb"))
  f:write(text)
  return path
end

function t.read(path)
  local f <close> = assert(io.open(path, "rb"))
  return f:read "a"
end

return t
