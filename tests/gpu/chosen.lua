-- chosen.lua - variants that between them tell most in little time: of every range of M those whose inner loops, bytes
-- under way and ways to share K differ. FAMILY/PARAMETERS; tune.lua times them at M = 1, 16, 64, 256, 2048.

return {
  -- one token to eight: bytes under way of a warp, shapes of a record, tensor cores with most of a tile empty
  "cuda.gemv/n16-w4-u2-mb1",
  "cuda.gemv/n16-w8-u2-mb1",
  "cuda.gemv/n16-w8-u4-mb1",
  "cuda.gemv/n16-w16-u2-mb1",
  "cuda.gemv/n64-w8-u2-mb1",
  "cuda.gemv/n64-w16-u2-mb1",
  "cuda.gemv/n16-w8-u2-mb8",
  "cuda.mma/n16-bm8-bn64-bk128-wn4-wk2-s6-sum-k1-ordered",
  "cuda.mma/n16-bm8-bn64-bk128-wn4-wk2-s6-sum-k2-ordered",
  "cuda.mma/n16-bm8-bn128-bk128-wn4-wk1-s4-weight-k4-ordered",
  "cuda.mma/n64-bm8-bn256-bk128-wn4-wk1-s4-sum-k8-ordered",
  "cuda.mma/n64-bm8-bn256-bk128-wn4-wk2-s4-weight-k8-ordered",
  -- a tile of sixteen
  "cuda.mma/n16-bm16-bn64-bk128-wn4-wk1-s4-sum-k1-ordered",
  "cuda.mma/n16-bm16-bn64-bk128-wn4-wk2-s6-sum-k2-ordered",
  "cuda.mma/n16-bm16-bn128-bk128-wn8-wk1-s4-weight-k2-ordered",
  "cuda.mma/n16-bm16-bn128-bk128-wn4-wk2-s4-sum-k4-ordered",
  "cuda.mma/n16-bm16-bn128-bk128-wn4-wk2-s4-sum-k4-atomic",
  "cuda.mma/n64-bm16-bn256-bk128-wn4-wk1-s4-sum-k4-ordered",
  "cuda.mma/n64-bm16-bn256-bk128-wn4-wk2-s4-weight-k4-ordered",
  -- thirty-two
  "cuda.mma/n16-bm32-bn64-bk128-wn4-wk1-s4-sum-k1-ordered",
  "cuda.mma/n16-bm32-bn128-bk64-wn8-wk1-s4-weight-k2-ordered",
  "cuda.mma/n16-bm32-bn128-bk128-wn8-wk1-s4-sum-k4-ordered",
  "cuda.mma/n64-bm32-bn256-bk64-wn4-wk1-s4-weight-k4-ordered",
  -- many: accumulators against operands, scales on the weight or on the sum
  "cuda.mma/n16-bm64-bn128-bk64-wn4-wk1-s4-weight-k1-ordered",
  "cuda.mma/n16-bm64-bn128-bk64-wn4-wk1-s4-sum-k2-ordered",
  "cuda.mma/n16-bm64-bn128-bk64-wn8-wk1-s4-sum-k1-ordered",
  "cuda.mma/n16-bm64-bn256-bk64-wn8-wk1-s3-weight-k1-ordered",
  "cuda.mma/n16-bm64-bn256-bk64-wn8-wk1-s4-weight-k2-ordered",
  "cuda.mma/n16-bm128-bn128-bk64-wn8-wk1-s3-weight-k1-ordered",
  "cuda.mma/n16-bm128-bn128-bk64-wn8-wk1-s4-weight-k1-ordered",
  "cuda.mma/n16-bm128-bn128-bk64-wn8-wk1-s4-sum-k1-ordered",
  "cuda.expand/n16-bm128-s4",
}
