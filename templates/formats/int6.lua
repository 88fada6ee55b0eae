return format {
  name   = "int6",
  doc    = "6-bit codes, a scale and optionally a zero point per group (GGUF Q6_K, GPTQ)",
  bits   = 6,
  group  = { 128, 64, 32, 16, "row" },
  planes = { scale = { "f16", "bf16", "f32" }, zero = { "none", "u6", "f16" } }, -- "none": the midpoint 32
  decode = function(q, p) return (q - p.zero) * p.scale end,
}
