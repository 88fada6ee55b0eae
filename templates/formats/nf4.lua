-- The 16 values are the quantiles of a normal distribution of QLoRA (arXiv 2305.14314), appendix E.
local values = {
  -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
  -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
  0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
  0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
}
return format {
  name   = "nf4",
  doc    = "4-bit indices into the normal-float table, a scale per group (bitsandbytes, QLoRA)",
  bits   = 4,
  group  = { 64, 32, 128, "g*", "row" },
  planes = { scale = { "f16", "bf16", "f32" } },
  decode = function(q, p) return lookup(values, q) * p.scale end,
}
