-- cubins.lua ARCH PROBLEM FAMILY NAME=VALUE… - compile the variants that have these values: variant i into the file
-- i.cubin, and a line "registers spills name" for each.
local q = require "quernel"

local arch, problem, family = table.unpack(arg)
local fixed = {}
for i = 4, #arg do
  local name, value = arg[i]:match "^(%w+)=(%w+)$"
  fixed[name] = { tonumber(value) or value }
end
local variants = q.variants(problem, q.arch(arch), { family = family, fixed = fixed })
for i, o in ipairs(assert(q.compile(variants))) do
  assert(o.ok, o.why)
  local f <close> = assert(io.open(("%d.cubin"):format(i - 1), "wb"))
  f:write(o.image)
  print(o.registers, o.spills, variants[i].name)
end
