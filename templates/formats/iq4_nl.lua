local values = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 }

format {
  name   = "iq4_nl",
  doc    = "4-bit indices into a table of 16 integers, a scale per group (GGUF IQ4_NL)",
  bits   = 4,
  group  = { 32, "g*" },
  planes = { scale = { "f16", "bf16", "f32" } },
  decode = function(q, p) return lookup(values, q) * p.scale end,
}

format {
  name   = "iq4_xs",
  doc    = "4-bit indices into a table of 16 integers, scales in two levels (GGUF IQ4_XS)",
  bits   = 4,
  group  = "g32",
  planes = { scale = { "i6" }, d = { "f16" } },
  per    = { d = "g256" },
  decode = function(q, p) return lookup(values, q) * (p.d * p.scale) end,
}
