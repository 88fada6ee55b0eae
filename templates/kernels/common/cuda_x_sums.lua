-- cuda_x_sums.lua - what a code map adds to its codes, by way of sums of X, so that codes are multiplied as they are.
--
--   sum of X (q + bias) scale  =  sum over groups of scale (sum of X q)  +  sum over groups of scale (bias sum of X)
--
-- The last is a product, too: [features, groups] . [groups, tokens], 128 times shorter than the first where groups have
-- 128 codes. A launch before the product makes bias (sum of X) of each token and group, as the sum of two numbers of
-- the type of scales, T: hi and lo, which have 22 bits between them in f16, and 16 in bf16. They are the second operand
-- of a wgmma m64nBMk16, eight groups at a time; the first are the scales of these groups, twice:
--
--   scratch   [groups / 8][tokens / 8] pairs of core matrices of 8 tokens x 16 bytes: hi, lo
--   a         registers a0, a1: of rows g, g + 8 the scales of groups 2t, 2t + 1; a2, a3 the same
--
-- A byte q = 0 .. 15 is q 2^-9 as e4m3, so all sums are 2^-9 of what they stand for (cuda_codes, CODE_UNIT).
--
-- A tile that ends eight groups, or K, brings their sums into its buffer; a lane has kept its scales of them till then.

local cuda = use "kernels/common/cuda"
local sums = {}

-- Bytes of the sums of eight groups.
local function bytes(v) return v.BM * 32 end

-- Is this done? Of products of 8-bit floats, where tokens are so many that a launch more does not count. Of codes that
-- e4m3 has; of one scale for each row and group, so that it is an operand as it is. f16 has no room for sums of e5m2.
function sums.serve(v)
  local p, m = v.format.planes[1], v.format.map
  return cuda.float8[v.act] ~= nil and v.BM >= 128 and v.format.bits == 4 and m.kind == "int" and not v.problem.experts
    and #v.format.planes == 1 and (p.type == "bf16" or p.type == "f16" and v.act == "e4m3")
    and p.rows == 1 and p.cols > 0 and p.cols % 32 == 0
end

-- The type of scales.
local function type_of(v) return v.format.planes[1].type end

-- Bytes of a buffer for them, behind the planes.
function sums.bytes(v) return sums.serve(v) and bytes(v) or 0 end

-- SPAN: k of a sum, a group or its part in a tile. TILES_OF_SUMS: tiles with eight of them.
function sums.derive(v)
  if not v.RAW then return end
  v.SPAN = v.GROUP_STEPS * 16
  v.TILES_OF_SUMS = 8 * v.SPAN // v.BK
end

-- Bytes of scratch.
function sums.scratch(v) return v.RAW and ceildiv(K, 8 * v.SPAN) * ceildiv(M, v.BM) * bytes(v) or 0 end

-- Slots of cuda_reduce lie behind them.
function sums.leave(w, v)
  if not v.RAW or v.SLOTS == 1 then return end
  w("scratch += (i64)((k + ${MORE}) / ${SPAN}) * ((m + BM - 1) / BM) * ${FLOATS}; /* sums of X */",
    { MORE = 8 * v.SPAN - 1, SPAN = 8 * v.SPAN, FLOATS = bytes(v) // 4 })
end

-- The launch. Of the product: its argument, the same as a parameter, and what consume() is told of a part of K.
function sums.step(v)
  return { entry = "sum_x", args = { "x", "scratch", "m", "k", "ldx" },
    grid = { ceildiv(M, v.BM) * (v.BM // 8), ceildiv(K, 8 * v.SPAN) }, block = { 256 } }
end
function sums.arguments(v) return v.RAW and { "scratch" } or {} end
function sums.parameter(v) return v.RAW and "const u8 *sums, " or "" end
function sums.begin(v, begin) return v.RAW and ", " .. begin or "" end

function sums.kernel(w, v)
  if not v.RAW then return end
  local piece = math.min(16, v.SPAN // 4) -- bytes that a lane loads at once
  w([[
    fn u16 ${T}_near(float f) {
      u16 h;
      asm("cvt.rn.${T}.f32 %0, %1;" : "=h"(h) : "f"(f));
      return h;
    }

    /* bias (sum of X) of eight tokens and eight groups, as hi and lo: a warp has a token, four lanes have a group. */
    extern "C" __global__ void __launch_bounds__(256) sum_x(const ${XT} *x, u8 *sums, int m, int k, int ldx) {
      struct __align__(${ALIGN}) piece { u32 v[${WORDS}]; };
      const int token = threadIdx.x / 32, lane = threadIdx.x % 32, row = blockIdx.x * 8 + token;
      const int from = (blockIdx.y * 32 + lane) * ${PER}, left = row < m ? k - from : 0;
      const bool aligned = ldx % ${ALIGN} == 0 && (u64)x % ${ALIGN} == 0;
      wait_for_grid();
      let_next_begin();
      float sum = 0;
      x += (i64)row * ldx + from;
    #pragma unroll
      for (int i = 0; i < ${PER}; i += ${ALIGN}) {
        if (aligned && left >= i + ${ALIGN}) {
          const piece p = *(const piece *)(x + i);
    #pragma unroll
          for (int e = 0; e < ${ALIGN}; e++) sum += f32_of_${ACT}((u8)(p.v[e / 4] >> e % 4 * 8));
        } else
          for (int e = i; e < i + ${ALIGN} && e < left; e++) sum += f32_of_${ACT}((u8)x[e]);
      }
      sum += __shfl_xor_sync(0xffffffff, sum, 1);
      sum += __shfl_xor_sync(0xffffffff, sum, 2);
      sum *= ${BIAS};
      const u16 hi = ${T}_near(sum), lo = ${T}_near(sum - f32_of_${T}(hi));
      const i64 at = ((i64)blockIdx.y * gridDim.x + blockIdx.x) * 256 + token * 16 + lane / 4 * 2;
      if (lane % 4 < 2) *(u16 *)(sums + at + lane % 4 * 128) = lane % 4 ? lo : hi;
    }
  ]], { T = type_of(v), ACT = v.act, PER = v.SPAN // 4, ALIGN = piece, WORDS = piece // 4,
    BIAS = cuda.f32(v.format.map.bias / v.CODE_UNIT) })
  w.blank()
end

-- Does tile `tile` end eight groups? `last`: or K? Texts.
local function ends(v, tile, last)
  return ("%s %% %d == %d || %s"):format(tile, v.TILES_OF_SUMS, v.TILES_OF_SUMS - 1, last)
end

-- ---- Producer -------------------------------------------------------------------------------------------------------

function sums.ask(w, v)
  if not v.RAW then return end
  w([[
    /* Ask for the sums of X of eight groups, with the tile that ends them, or is the last. */
    fn void ask_for_sums(const task &t, const u8 *sums, u32 to, u32 full, int tile, bool last) {
      if (!(${ENDS})) return;
      barrier_expect(full, ${BYTES});
      sums += ((i64)(tile / ${TILES}) * ((t.m + BM - 1) / BM) + t.m0 / BM) * ${BYTES};
      copy_bulk(to + SUMS_AT, sums, ${BYTES}, full);
    }
  ]], { ENDS = ends(v, "tile", "last"), TILES = v.TILES_OF_SUMS, BYTES = bytes(v) })
  w.blank()
end

-- ---- Consumers ------------------------------------------------------------------------------------------------------

-- The word of scales that a text reads, kept if it is one of the lane's; what a lane has of eight groups; what
-- multiply() is told of it, and of a tile.
function sums.keep(v, text)
  return v.RAW and ("keep(scales[i], %s, group + s / GROUP_STEPS, mine)"):format(text) or text
end
sums.KEPT = [[
const u64 sums = sums_descriptor(base + SUMS_AT);
u32 scales[MT][2] = {};
const int mine = kept((int)threadIdx.x % 4 * 2);]]
function sums.of_tile(v, tile, last)
  local groups = 8 // v.TILES_OF_SUMS
  return (", sums, scales, mine, (%s) %% %d%s, %s"):format(tile, v.TILES_OF_SUMS, groups > 1 and " * " .. groups or "",
    ends(v, "(" .. tile .. ")", last))
end

-- The types of that product.
function sums.types(v) return ("f32.%s.%s"):format(type_of(v), type_of(v)) end

-- keep(); settle(): add what the code map adds to eight groups.
function sums.settle(w, v)
  if not v.RAW then return end
  w([[
    /* Of the words of scales that go by, one for each group, a lane keeps numbers 2t and 2t + 1 of eight. */
    fn u32 keep(u32 *kept, u32 now, int group, int mine) {
      if (group == mine) kept[0] = now;
      if (group - 1 == mine) kept[1] = now;
      return now;
    }

    /* The operand b of pairs of core matrices, 128 bytes each. */
    fn u64 sums_descriptor(u32 at) { return 16ull << 32 | 8 << 16 | at >> 4; }

    fn void settle(u32 (*kept)[2], u64 sums, float acc[MT][NT][4]) {
      u32 a[MT][4];
    #pragma unroll
      for (int i = 0; i < MT; i++) {
        a[i][0] = a[i][2] = prmt(kept[i][0], kept[i][1], 0x5410);
        a[i][1] = a[i][3] = prmt(kept[i][0], kept[i][1], 0x7632);
        kept[i][0] = kept[i][1] = 0;
      }
      products_begin();
    #pragma unroll
      for (int i = 0; i < MT; i++) sums_add(acc[i], a[i], sums, 1);
      products_commit();
      products_wait<0>();
    }
  ]])
  w.blank()
end

return sums
