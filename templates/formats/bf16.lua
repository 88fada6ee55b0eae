return format {
  name   = "bf16",
  doc    = "dense bfloat16 weights: the baseline of every other format",
  bits   = 16,
  codes  = "bf16", -- the code is the number
  decode = function(q) return q end,
}
