return format {
  name   = "qserve",
  doc    = "4-bit integers brought to int8 by an integer scale and minimum per group, then scaled per row "
        .. "(QServe W4A8)",
  bits   = 4,
  group  = { 128, "g*" },
  planes = { scale = { "u8" }, min = { "u8" }, channel = { "f16" } },
  per    = { channel = "row" },
  decode = function(q, p) return (q * p.scale - p.min) * p.channel end,
}
