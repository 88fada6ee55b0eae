-- OCP's 8-bit floats; the code is the number.
for _, type in ipairs { "e4m3", "e5m2" } do
  format {
    name   = type,
    doc    = "8-bit floats " .. type .. ", a scale per block, row, tensor or group (compressed-tensors, DeepSeek)",
    bits   = 8,
    codes  = type,
    group  = { "b128x128", "b*", "row", "tensor", "g*" },
    planes = { scale = { "f16", "bf16", "f32" } },
    decode = function(q, p) return q * p.scale end,
  }
end
