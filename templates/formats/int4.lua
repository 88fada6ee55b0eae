return format {
  name   = "int4",
  doc    = "4-bit codes, a scale and optionally a zero point per group (GPTQ, AWQ, compressed-tensors, GGUF Q4_0)",
  bits   = 4,
  group  = { 128, 64, 32, "row" },
  planes = { scale = { "f16", "bf16", "f32" }, zero = { "none", "u4", "f16" } }, -- "none": the midpoint 8
  decode = function(q, p) return (q - p.zero) * p.scale end,
}
