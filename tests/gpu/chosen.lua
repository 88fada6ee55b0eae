-- chosen.lua - variants that between them tell most in little time: of every range of M those whose inner loops, bytes
-- under way and ways to share K differ. FAMILY/PARAMETERS; tune.lua times them at M = 1, 16, 64, 256, 2048.

return {
  -- one token to eight: bytes under way of a warp, tensor cores with most of a tile empty
  "cuda.decode/bm8-wn4-wk2-u4-x2048-sum-k2",
  "cuda.decode/bm8-wn4-wk2-u4-x2048-sum-k1", -- for every M
  "cuda.decode/bm8-wn4-wk2-u8-x2048-sum-k2",
  "cuda.decode/bm8-wn2-wk4-u4-x2048-sum-k1",
  "cuda.decode/bm8-wn8-wk1-u4-x2048-sum-k4",
  -- a tile of sixteen
  "cuda.decode/bm16-wn4-wk2-u4-x1024-sum-k1",
  "cuda.decode/bm16-wn4-wk2-u4-x1024-sum-k2",
  "cuda.decode/bm16-wn8-wk1-u4-x1024-sum-k4",
  -- thirty-two
  "cuda.decode/bm32-wn4-wk2-u4-x1024-weight-k2",
  "cuda.mma/bm32-bn128-bk64-wn8-s4-weight-k2",
  "cuda.mma/bm32-bn128-bk128-wn8-s4-sum-k4",
  -- many: accumulators against operands, scales on the weight or on the sum
  "cuda.mma/bm64-bn128-bk64-wn4-s4-weight-k1",
  "cuda.mma/bm64-bn128-bk64-wn4-s4-sum-k2",
  "cuda.mma/bm64-bn128-bk64-wn8-s4-sum-k1",
  "cuda.mma/bm64-bn256-bk64-wn8-s3-weight-k1",
  "cuda.mma/bm64-bn256-bk64-wn8-s4-weight-k2",
  "cuda.mma/bm128-bn128-bk64-wn8-s3-weight-k1",
  "cuda.mma/bm128-bn128-bk64-wn8-s4-weight-k2",
  "cuda.mma/bm128-bn128-bk64-wn8-s4-sum-k1",
  "cuda.expand/bm256-c2",
  -- many on Hopper
  "cuda.wgmma/bm64-mt1-weight-k2-c1-tiles",
  "cuda.wgmma/bm128-mt1-weight-k1-c1-tiles",
  "cuda.wgmma/bm128-mt1-weight-k1-c2-tiles",
  "cuda.wgmma/bm128-mt2-weight-k1-c1-tiles",
  "cuda.wgmma/bm128-mt2-weight-k1-c1-stream",
}
