return format {
  name   = "f16",
  doc    = "dense IEEE half weights: the baseline of every other format",
  bits   = 16,
  codes  = "f16", -- the code is the number
  decode = function(q) return q end,
}
