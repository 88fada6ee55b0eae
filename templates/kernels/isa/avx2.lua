-- avx2.lua - AVX2: portable C whose vectors have 8 columns, compiled for it.

local isa = use "kernels/isa/c"

isa.lanes = 8
isa.sets = { "avx2", "f16c", "fma" }
isa.flags = " -ffp-contract=fast" -- a product and its sum may be one instruction; the kernels do not depend on which

return isa
