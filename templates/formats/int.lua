-- Integer codes of each width, 1 to 8 bits. Without a zero point and a minimum, zero is the middle of the range.
for bits = 1, 8 do
  format {
    name   = "int" .. bits,
    doc    = bits .. "-bit integers; a scale, and a zero point or a minimum "
          .. "(GPTQ, AWQ, compressed-tensors, HQQ, MLX, GGUF)",
    bits   = bits,
    group  = { 128, 64, 32, 16, "g*", "row", "tensor" },
    planes = {
      scale = { "f16", "bf16", "f32" },
      zero  = { "none", "u" .. bits, "f16", "f32" },
      min   = { "none", "scale" },
    },
    decode = function(q, p)
      if p.min then return q * p.scale + p.min end
      return (q - (p.zero or 1 << bits - 1)) * p.scale
    end,
  }
end
