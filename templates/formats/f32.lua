return format {
  name   = "f32",
  doc    = "dense IEEE single weights: the baseline of every other format",
  bits   = 32,
  codes  = "f32", -- the code is the number
  decode = function(q) return q end,
}
