-- GGUF's super-blocks of 256: small integer scales and minima, each times an f16 of the super-block. Without minima the
-- scales have a sign.
local kinds = {
  { name = "q2_k", bits = 2, group = "g16", sub = "u4" },
  { name = "q4_k", bits = 4, group = "g32", sub = "u6" },
  { name = "q5_k", bits = 5, group = "g32", sub = "u6" },
}
for _, kind in ipairs(kinds) do
  format {
    name   = kind.name,
    doc    = kind.bits .. "-bit integers, scales and minima in two levels (GGUF " .. kind.name:upper() .. ")",
    bits   = kind.bits,
    group  = kind.group,
    planes = { scale = { kind.sub }, min = { kind.sub }, d = { "f16" }, dmin = { "f16" } },
    per    = { d = "g256", dmin = "g256" },
    decode = function(q, p) return q * (p.d * p.scale) - p.dmin * p.min end,
  }
end

local signed = {
  { name = "q3_k", bits = 3, sub = "i6" },
  { name = "q6_k", bits = 6, sub = "i8" },
}
for _, kind in ipairs(signed) do
  format {
    name   = kind.name,
    doc    = kind.bits .. "-bit integers, scales in two levels (GGUF " .. kind.name:upper() .. ")",
    bits   = kind.bits,
    group  = "g16",
    planes = { scale = { kind.sub }, d = { "f16" } },
    per    = { d = "g256" },
    decode = function(q, p) return (q - (1 << kind.bits - 1)) * (p.d * p.scale) end,
  }
end
