return format {
  name   = "ternary",
  doc    = "-1, 0 or 1 as the codes 0, 1, 2, times a scale (BitNet b1.58, GGUF TQ1_0, TQ2_0, Q2_0, I2_S)",
  bits   = 2,
  group  = { 256, 64, "g*", "row", "tensor" },
  planes = { scale = { "f16", "bf16", "f32" } },
  decode = function(q, p) return (q - 1) * p.scale end,
}
