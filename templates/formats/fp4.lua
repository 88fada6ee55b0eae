-- bitsandbytes' own 4-bit float, which is not OCP's e2m1: eight magnitudes, of which 1 is the largest; bit 3 is
-- the sign.
local magnitudes = {
  0.0, 0.0052083334885537624, 0.6666666865348816, 1.0, 0.3333333432674408, 0.5, 0.1666666716337204, 0.25,
}
return format {
  name   = "fp4",
  doc    = "4-bit floats of three exponent bits, a scale per group (bitsandbytes)",
  bits   = 4,
  group  = { 64, 32, 128, "g*", "row" },
  planes = { scale = { "f16", "bf16", "f32" } },
  decode = function(q, p)
    local m = lookup(magnitudes, bits(q, 0, 3))
    return cond(bits(q, 3, 1), -m, m) * p.scale
  end,
}
