-- OCP MX with 8-bit floats: 32 of them share a power of two.
for name, type in pairs { mxfp8 = "e4m3", mxfp8_e5m2 = "e5m2" } do
  format {
    name   = name,
    doc    = "8-bit floats " .. type .. ", a power-of-two scale per 32 of them (OCP MX)",
    bits   = 8,
    codes  = type,
    group  = "g32",
    planes = { scale = { "e8m0" } },
    decode = function(q, p) return q * p.scale end,
  }
end
