-- literals.lua - numbers and tables as C writes them, and the parameters of a variant in the head of its source.

local literals = {}

-- A number as a C literal of f32.
function literals.f32(x) return (("%.9gf"):format(x):gsub("^(-?%d+)f$", "%1.0f")) end

-- A table of `count` entries, the values repeated, `per_line` a line.
function literals.entries(values, count, show, per_line)
  local out = {}
  for i = 0, count - 1 do
    out[#out + 1] = show(values[i % #values + 1]) .. "," .. ((i + 1) % per_line == 0 and "\n" or " ")
  end
  return (table.concat(out):gsub("%s+$", ""))
end

function literals.parameters(v)
  local out = ""
  for _, p in ipairs(v.def.params) do out = out .. (" %s=%s"):format(p.name, tostring(v.params[p.name])) end
  return out
end

return literals
