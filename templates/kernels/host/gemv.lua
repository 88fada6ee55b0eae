-- host.gemv - weights are unpacked in the loop and meet all rows of a tile at once.
--
--   Y[m,n] = sum over k of X[m,k] * W[n,k]
--
--   X[m,k]  row-major                        W[n,k]  panel n / NR, record k / KR, see templates/kernels/common/host.lua
--   Y[m,n]  row-major                        a thread takes a contiguous run of panels: one stream through memory
--
-- The tile and its loops are templates/kernels/common/host_tile.lua. Rows beyond MR read and unpack the panel
-- again, from cache. Beside the MR products of a weight that costs little, so this family serves many rows, too.
--
--   parameter  meaning                              bound by
--   ISA        portable C, AVX2, AVX-512            the CPU
--   NR         columns of a panel                   part of the layout
--   LAYOUT     record: scales between the codes; split: apart
--   MR         rows of a tile                       MR * P registers hold sums
--   PF         bytes that are prefetched ahead      0: no further than the block
--
-- Source: the panel layout and the unsigned trick for int8 follow what ggml, ik_llama.cpp and XNNPACK do on x86.

local host = use "kernels/common/host"
local x = use "kernels/common/host_x"
local tile = use "kernels/common/host_tile"

local rules = { table.unpack(host.rules) }
rules[#rules + 1] = tile.registers
rules[#rules + 1] = { name = "prefetch", why = "prefetching is tried where loads outrun the hardware's own",
  ok = function(v) return v.PF == 0 or host.isa(v).prefetch end }

-- The cache lines of a block, or of a record of several groups, PF bytes ahead. 0 leaves them to the CPU's prefetcher,
-- which follows reads that go from line to line. Steps read the slices of a code in turns; so where there are several,
-- 0 asks for the block's own lines before its first step, in order.
local function prefetch(v)
  if not v.isa.prefetch or v.PF == 0 and #v.slices == 1 then return end
  local lines = math.max((v.GROUPS == 1 and v.RECORD * v.KB // v.KR or v.RECORD) // 64, 1)
  local from = v.GROUPS == 1 and ("(b * %d + i)"):format(lines) or "i"
  return ("for (int i = 0; i < %d; i++) __builtin_prefetch(record + %s%s * 64);"):format(lines,
    v.PF > 0 and v.PF .. " + " or "", from)
end

return kernel {
  name = "host.gemv",
  target = "host",
  rounds = true,
  grouped = true,
  doc = "any number of tokens on the CPU: unpack in the loop",
  source = "panel layouts as in ggml, ik_llama.cpp, XNNPACK",
  params = host.params {
    { name = "MR", values = { 1, 2, 4, 6, 8 }, quick = host.quick({ 1, 4, 8 }, { 1, 2, 6 }),
      doc = "rows of a tile" },
    { name = "PF", values = { 0, 1024, 4096 }, quick = host.quick({ 0, 4096 }, { 0 }),
      doc = "prefetch distance, bytes" },
  },
  rules = rules,
  derive = function(v)
    tile.derive(v)
    v.UNROLL = 2
    if not tile.unroll.ok(v) then v.UNROLL = 1 end
  end,
  layout = function(v) return v.layout end,
  launch = function(v)
    return { steps = x.steps { ceildiv(N, v.NR) }, scratch = tile.scratch(v),
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
    function(w, v) tile.tile(w, v, "weights(codes(record, b, p, t))", prefetch(v)) end,
    function(w, v) tile.entry(w, v) end,
  },
}
