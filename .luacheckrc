-- What luacheck takes for known. Line lengths are tests/style.lua's.
std = "lua54"
max_line_length = false
ignore = { "581" } -- not (a <= b) is no b < a: it holds for a NaN, too

-- What the sandbox of gen/init.lua gives a template, and nothing else.
local template = {
  read_globals = {
    "assert", "error", "ipairs", "next", "pairs", "select", "tonumber", "tostring", "type", "math", "string", "table",
    "format", "kernel", "layout", "types", "targets", "expr", "use", "lookup", "bits", "ceildiv", "min", "max", "lt", "eq", "cond",
    "M", "N", "K", "T", "E", "SMS", "SMEM", "L2",
  },
}
for _, path in ipairs { "templates/formats", "templates/layouts", "templates/kernels", "tests/lua/broken.lua",
  "tests/lua/tensor_map.lua" } do
  files[path] = { std = template }
end
files["lua"] = { read_globals = { "printable" } } -- of lua/quernel.lua
files["tests/lua"] = { read_globals = { "QN_TESTS", "QN_MODULE", "QN_LIBRARY", "QN_SCRATCH" } } -- of tests/test_lua.c
