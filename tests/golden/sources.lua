-- sources.lua - the variants whose source is kept in this folder: one of each family and instruction set, with zero
-- points and a bias, one of them with i8 activations; one of each target with a gate; and one that rounds X. Returns a
-- function that makes them all, as a list of { name =, text = }. Devices are described, not looked at: every machine
-- makes the same.
local q = require "quernel"

local problem, gated = "int4.g64.z:4096x4096:%s+bias", "int4.g64.z:4096x4096:%s+bias.silu*gate+residual"
local integers = "int4.g64.z:4096x4096:i8-f32+bias"

local rounded = "int4.g64.z:4096x4096:f32~i8-f32"

local variants = {
  { "host.gemv.c.golden", "host.gemv", "c-nr16-split-mr2-pf0" },
  { "host.gemv.avx2.golden", "host.gemv", "avx2-nr16-split-mr2-pf0" },
  { "host.gemv.avx512.golden", "host.gemv", "avx512-nr32-record-mr2-pf1024" },
  { "host.gemv.neon.golden", "host.gemv", "neon-nr16-split-mr4-pf0" },
  { "host.gemm.c.golden", "host.gemm", "c-nr16-split-mr2-u1" },
  { "host.gemm.avx2.golden", "host.gemm", "avx2-nr16-record-mr2-u1", integers },
  { "host.gemm.avx512.golden", "host.gemm", "avx512-nr32-split-mr4-u4" },
  { "host.gemm.neon.golden", "host.gemm", "neon-nr16-record-mr4-u1" },
  { "host.gemv.rounded.golden", "host.gemv", "avx512-nr32-record-mr4-pf0", rounded },
  { "cuda.gemv.golden", "cuda.gemv", "w4-u1-mb1", nil, "sm_75" },
  { "cuda.mma.golden", "cuda.mma", "bm32-bn64-bk128-wn4-s4-sum-k2" },
  { "cuda.decode.golden", "cuda.decode", "bm16-wn4-wk2-u4-x1024-sum-k2" },
  { "cuda.wgmma.golden", "cuda.wgmma", "bm128-mt1-weight-k2-c2-tiles" },
  { "cuda.expand.golden", "cuda.expand", "bm256-c2" },
  { "host.gemm.gate.golden", "host.gemm", "avx2-nr16-split-mr2-u1", gated },
  { "cuda.mma.gate.golden", "cuda.mma", "bm32-bn256-bk64-wn4-s4-sum-k4", gated },
}

-- A CPU that has every instruction set; an architecture of GPUs.
local any = setmetatable({}, { __index = function() return true end })
local function device(target, arch)
  return target == "host" and { target = "host", arch = "", isa = any } or q.arch(arch or "sm_90a")
end
local types = { host = "bf16-f32", cuda = "f16-f16" }

return function()
  local out = {}
  for i, x in ipairs(variants) do
    local name, family, values, of, arch = table.unpack(x, 1, 5)
    local def = q.gen.kernel.family(family)
    local params = assert(q.gen.kernel.params(def, values))
    local v = assert(q.variant((of or problem):format(types[def.target]), device(def.target, arch), family, params))
    out[i] = { name = name, text = q.source(v) }
  end
  return out
end
