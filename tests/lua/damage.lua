-- Copies a checkpoint's safetensors with a NaN as the first scale of its first layer: damage.lua FROM TO
local f = assert(io.open(arg[1], "rb"))
local text = f:read "a"
f:close()
local header = 8 + string.unpack("<I8", text)
local first = text:match '"model.layers.0.mlp.down_proj.scales":{[^}]*"data_offsets":%[(%d+)'
local at = header + math.tointeger(tonumber(first))
f = assert(io.open(arg[2], "wb"))
f:write(text:sub(1, at), "\xff\x7f", text:sub(at + 3))
f:close()
