-- host.gemm - many tokens: a panel's weights are unpacked once, into a thread's scratch, and meet every row from there.
--
--   Y[m,n] = sum over k of X[m,k] * W[n,k]
--
--   scratch[(k / V) * P + p]   16 columns x V values of k, as the arithmetic wants them; K * NR numbers, in L2
--
-- Index maps, tile and loops as in host.gemv; the work of unpacking is divided by the number of tiles.
--
-- It is the idea of cuda.expand with the panel in L2. Blocks of K that stay in L1, each under all tiles before the
-- next, were tried: with AVX-512 host.gemv is faster for any M, because memory does not wait there while a block is
-- unpacked.
--
--   parameter  meaning                              bound by
--   ISA, NR, LAYOUT   as in host.gemv, so that one packed weight serves both
--   MR         rows of a tile                       MR * P registers hold sums
--   UNROLL     blocks unrolled in the inner loop
--
-- Source: expanding a panel before the product is what ik_llama.cpp, BesTLA and oneDNN do from some number of rows on.

local host = use "kernels/common/host"
local x = use "kernels/common/host_x"
local tile = use "kernels/common/host_tile"

local rules = { table.unpack(host.rules) }
rules[#rules + 1] = tile.registers
rules[#rules + 1] = tile.unroll
rules[#rules + 1] = { name = "reuse", why = "a tile with so few sums waits for its loads",
  ok = function(v) return 4 * host.tile_sums(v) >= host.isa(v).registers end }

local function unpack_panel(w)
  w [[
    const uint8_t *record = a->w + panel * ((a->k + KR - 1) / KR) * RECORD;
    weight_t *out = scratch;
    for (int64_t k = 0; k < a->k; k += KR, record += RECORD)
      for (int b = 0; b < KR / KB; b++)
    #pragma GCC unroll ${STEPS}
        for (int t = 0; t < STEPS; t++)
          for (int p = 0; p < P; p++) *out++ = weights(codes(record, b, p, t));
  ]]
end

return kernel {
  name = "host.gemm",
  target = "host",
  rounds = true,
  grouped = true,
  doc = "many tokens on the CPU: unpack a panel once",
  source = "panel expansion as in ik_llama.cpp, BesTLA, oneDNN",
  params = host.params {
    { name = "MR", values = { 2, 4, 6, 8, 12 }, quick = host.quick({ 4, 8 }, { 2, 4, 6 }), doc = "rows of a tile" },
    { name = "UNROLL", values = { 1, 4 }, quick = host.quick({ 1 }, { 1, 4 }),
      doc = "blocks unrolled in the inner loop", short = "u" },
  },
  rules = rules,
  derive = function(v)
    v.scratch = true -- a panel's weights are kept as weight_t
    tile.derive(v)
    v.WEIGHT_BYTES = v.VECTOR * host.lane_products(v) -- of a weight_t
  end,
  layout = function(v) return v.layout end,
  launch = function(v)
    local panel = ceildiv(K, v.KR) * (v.KR // v.V * v.P * v.WEIGHT_BYTES)
    return { steps = x.steps { ceildiv(N, v.NR) }, scratch = tile.scratch(v, panel),
      batch_invariant = true }
  end,
  flags = host.flags,
  arch = host.arch,
  m = function(v) return 1, 0, v.MR end,
  cost = function(v) return v.NR * v.MR end,
  outline = {
    host.head,
    host.constants,
    tile.hooks,
    x.arrange,
    function(w, v) tile.tile(w, v, "scratch[((g * (KR / KB) + b) * STEPS + t) * P + p]") end,
    function(w, v) tile.entry(w, v, unpack_panel) end,
  },
}
