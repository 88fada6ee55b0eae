return format {
  name   = "int8",
  doc    = "8-bit codes, a scale and optionally a zero point per group or row (GPTQ, compressed-tensors, GGUF Q8_0)",
  bits   = 8,
  group  = { 128, 64, 32, "row" },
  planes = { scale = { "f16", "bf16", "f32" }, zero = { "none", "u8", "f16" } }, -- "none": the midpoint 128
  decode = function(q, p) return (q - p.zero) * p.scale end,
}
