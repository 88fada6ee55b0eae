-- GGUF's I-quants without their code books: a code is a sign above the number of a magnitude, which stands in a table.
-- The last magnitude of iq1 and iq2 is there twice, as they have but three. In iq1 the sign is that of a shift by 1/8.
local kinds = {
  { name = "iq1", bits = 3, sub = "u4", group = { 32, 16 }, of = "IQ1_S, IQ1_M",
    values = { -0.875, 0.125, 1.125, 1.125, -1.125, -0.125, 0.875, 0.875 } },
  { name = "iq2", bits = 3, sub = "u6", group = { 32, 16 }, of = "IQ2_XXS, IQ2_XS, IQ2_S",
    values = { 1, 3.125, 5.375, 5.375, -1, -3.125, -5.375, -5.375 } },
  { name = "iq3_xxs", bits = 4, sub = "u6", group = "g32", of = "IQ3_XXS",
    values = { 1, 3, 5, 7, 9, 11, 13, 15.5, -1, -3, -5, -7, -9, -11, -13, -15.5 } },
  { name = "iq3_s", bits = 4, sub = "u6", group = "g32", of = "IQ3_S",
    values = { 1, 3, 5, 7, 9, 11, 13, 15, -1, -3, -5, -7, -9, -11, -13, -15 } },
}
for _, kind in ipairs(kinds) do
  format {
    name   = kind.name,
    doc    = kind.bits .. "-bit indices into a table, scales in two levels (GGUF " .. kind.of .. ")",
    bits   = kind.bits,
    group  = kind.group,
    planes = { scale = { kind.sub }, d = { "f16" } },
    per    = { d = "g256" },
    decode = function(q, p) return lookup(kind.values, q) * (p.d * p.scale) end,
  }
end
