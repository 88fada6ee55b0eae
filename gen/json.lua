-- json.lua - encode plain values as JSON; equal values give equal bytes (keys sorted). An empty table is a list, with a
-- metatable an object.
local escapes = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\t"] = "\\t", ["\r"] = "\\r" }

local function encode(x)
  local kind = type(x)
  if kind == "string" then
    return '"' .. x:gsub('[%c"\\]', function(c) return escapes[c] or ("\\u%04x"):format(c:byte()) end) .. '"'
  elseif kind == "number" then
    local i = math.tointeger(x)
    return i and ("%d"):format(i) or x - x == 0 and ("%.17g"):format(x) or "null"
  elseif kind == "table" then
    local out = {}
    if #x > 0 or next(x) == nil and not getmetatable(x) then
      for i, v in ipairs(x) do out[i] = encode(v) end
      return "[" .. table.concat(out, ",") .. "]"
    end
    local keys = {}
    for k in pairs(x) do keys[#keys + 1] = k end
    table.sort(keys)
    for i, k in ipairs(keys) do out[i] = encode(k) .. ":" .. encode(x[k]) end
    return "{" .. table.concat(out, ",") .. "}"
  end
  return tostring(x) -- true, false, nil
end

return encode
