-- cubins.lua ARCH PROBLEM FAMILY NAME=VALUE… - compile the variants that have these values: variant i into the file
-- i.cubin, its source into i.cu, and a line "registers spills name" for each.
local q = require "quernel"

local arch, problem, family = table.unpack(arg)
local fixed = {}
for i = 4, #arg do
  local name, value = arg[i]:match "^(%w+)=(%w+)$"
  fixed[name] = { tonumber(value) or value }
end
local function write(name, text)
  local f <close> = assert(io.open(name, "wb"))
  f:write(text)
end

local variants = q.variants(problem, q.arch(arch), { family = family, fixed = fixed })
for i, o in ipairs(assert(q.compile(variants))) do
  assert(o.ok, o.why)
  write(i - 1 .. ".cubin", o.image)
  write(i - 1 .. ".cu", q.source(variants[i]))
  print(o.registers, o.spills, variants[i].name)
end
