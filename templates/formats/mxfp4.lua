-- OCP's 4-bit float e2m1: bit 3 is the sign. NVFP4 has the same codes and finer scales, two levels of them.
local magnitudes = { 0, 0.5, 1, 1.5, 2, 3, 4, 6 }
local function e2m1(q)
  local m = lookup(magnitudes, bits(q, 0, 3))
  return cond(bits(q, 3, 1), -m, m)
end

format {
  name   = "mxfp4",
  doc    = "4-bit floats e2m1, a power-of-two scale per 32 of them (OCP MX, gpt-oss, GGUF MXFP4)",
  bits   = 4,
  group  = "g32",
  planes = { scale = { "e8m0" } },
  decode = function(q, p) return e2m1(q) * p.scale end,
}

format {
  name   = "nvfp4",
  doc    = "4-bit floats e2m1, an e4m3 scale per 16 of them, times one per tensor (ModelOpt, compressed-tensors, "
        .. "GGUF NVFP4)",
  bits   = 4,
  group  = "g16",
  planes = { scale = { "e4m3" }, global = { "f32" } },
  per    = { global = "tensor" },
  decode = function(q, p) return e2m1(q) * (p.scale * p.global) end,
}
