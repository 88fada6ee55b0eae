-- cuda_warpgroup.lua - products of a warpgroup, wgmma: weights from registers, X from shared memory.
--
--   d[64 features, BM tokens] (+)= a[64, 16 of k] . b[16 of k, BM]        wgmma.mma_async m64nBMk16
--
--   a    rows 16 w .. 16 w + 15 are of warp w: its record, as for mma.sync (cuda_codes, cuda_planes)
--   b    a descriptor says where it lies: blocks of 128 bytes of k, as cuda_x puts them
--   d    what a lane has of 16 features and 8 tokens is what mma.sync gives it, so that cuda_reduce serves both
--
-- Products run while the lane makes the next fragment of a: there are two, and at most one group of products is under
-- way, also from one tile to the next. Of 8 bits there is a fragment for each product of a tile: none waits for another
-- but for scales. Sums are never set to zero, since the assembler would then finish every product
-- before the next: the first product writes them.
--
-- The loop over buffers is unrolled, so that most addresses are constants; not where sums meet scales, as the assembler
-- would move them from one set of registers to another at each end of the loop.
--
-- Source: PTX ISA, "wgmma.mma_async", "Matrix Descriptor Format"; weights in registers as in Humming and Machete.

local planes = use "kernels/common/cuda_planes"
local product = use "kernels/common/cuda_product"
local x_sums = use "kernels/common/cuda_x_sums"
local warpgroup = {}

-- UNROLL: buffers that the loop takes at once. AHEAD: fragments of a.
function warpgroup.derive(v)
  v.UNROLL = v.FLUSH and 1 or v.STAGES
  v.AHEAD = v.FLUSH and v.DEPTH == 2 and v.TK // 32 or 2
end

-- The operands of d: their numbers as parts of a string, and their constraints.
local function sums(v, of)
  local names, outs = {}, {}
  for j = 0, v.BM // 8 - 1 do
    local numbers, ties = {}, {}
    for e = 0, 3 do numbers[e + 1], ties[e + 1] = "%" .. 4 * j + e, ('"+%s"(d[%d][%d])'):format(of, j, e) end
    local last = j == v.BM // 8 - 1
    names[j + 1] = ('"%s%s"'):format(table.concat(numbers, ", "), last and "}, " or ", ")
    outs[j + 1] = table.concat(ties, ", ") .. (last and "" or ",")
  end
  return table.concat(names, "\n"), table.concat(outs, "\n")
end

-- The function `name`: a product of the `types`, `k` of k; `part`: C's type of its sums. `signs` as in cuda_product.
local function add(w, v, name, k, types, part, signs)
  local names, outs = sums(v, part == "int" and "r" or "f")
  local at = v.BM // 2
  w([[
    /* d[64 features, ${BM} tokens] = a[64, ${K} of k] . b[${K} of k, ${BM}], and what it was if `more`. */
    fn void ${NAME}(${PART} (*d)[4], const u32 *a, u64 b, int more) {
      asm volatile("{\n.reg .pred more;\nsetp.ne.b32 more, %${MORE}, 0;\n"
                   "wgmma.mma_async.sync.aligned.m64n${BM}k${K}.${TYPES} {"
                   ${NAMES}
                   "{%${A0}, %${A1}, %${A2}, %${A3}}, %${B}, more${SIGNS};\n}"
                   :
                   ${OUTS}
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(more));
    }
  ]], { NAME = name, PART = part, K = k, TYPES = types, NAMES = names, OUTS = outs, A0 = at, A1 = at + 1, A2 = at + 2,
    A3 = at + 3, B = at + 4, MORE = at + 5, SIGNS = signs })
  w.blank()
end

function warpgroup.ptx(w, v)
  w [[
    fn void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
    fn void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
    /* Wait until at most `n` groups of products are under way. */
    template <int n> fn void products_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(n) : "memory"); }

  ]]
  add(w, v, "products_add", v.PRODUCT.k, v.WARPGROUP, v.PART, v.PRODUCT.signs)
  if v.RAW then add(w, v, "sums_add", 16, x_sums.types(v), "float", ", 1, 1, 0") end
  w [[
    /* The operand b of 128-byte rows in shared memory: eight are 1024 bytes. */
    fn u64 descriptor(u32 at) { return 1ull << 62 | 64ull << 32 | 1 << 16 | at >> 4; }
  ]]
  w.blank()
end

-- The sums of a group, times its scales, go to acc.
local function flush(w, v)
  w([[
    if ((s + ${DEPTH}) % GROUP_STEPS == 0) {
      products_wait<0>();
    #pragma unroll
      for (int i = 0; i < MT; i++)
    #pragma unroll
        for (int j = 0; j < NT; j++)
    #pragma unroll
          for (int e = 0; e < 4; e++)
            acc[i][j][e] = __fmaf_rn(${SUM}, term[i].scale[e / 2], acc[i][j][e]);
    }
  ]], { SUM = v.INTEGER and "(float)part[i][j][e]" or "part[i][j][e]" })
end

-- multiply(): a tile in a buffer.
function warpgroup.multiply(w, v)
  local whole = v.format.bits == 16 -- codes are the numbers: a fragment is loaded when it is wanted
  x_sums.settle(w, v)
  w([[
    /* The warpgroup's share of the tile in a buffer; x describes X of the first. A tile that is not `more` than what
     * was sets the sums. ${DONE} */
    fn void multiply(const places &p, const int buffer, u64 x, int more, u32 done, u32 lane,
                     ${ACC} acc[MT][NT][4]${KEPT}) {
      u32 ${CODES}a[${AHEAD}][MT][4];
  ]], { CODES = whole and "" or "q[MT][TK / 64][WORDS], ",
    KEPT = v.RAW and ",\nu64 sums, u32 (*scales)[2], int mine, int group, bool settles" or "", DONE = v.FLUSH
    and "All products end here, and the buffer, whose barrier is `done`, is free."
    or "The products of the tile before end here, and its buffer, whose barrier is `done`, is free." })
  w.push()
  if not whole then
    w [[
      #pragma unroll
      for (int i = 0; i < MT; i++)
      #pragma unroll
        for (int r = 0; r < TK / 64; r++) load_codes(p, buffer + i * 4 * RUN + r * RECORD, q[i][r]);
    ]]
  end
  if v.TERMS then w "terms term[MT];" end
  if v.FLUSH then w "${PART} part[MT][NT][4]; /* sums over the group */" end
  w "#pragma unroll"
  w.push "for (int s = 0; s < TK / 16; s += ${DEPTH}) { /* steps of 16 along k */"
  if v.TERMS then planes.step_terms(w, v, function(p) return x_sums.keep(v, product.raw(v, p)) end) end
  w([[
    const int now = s / ${DEPTH} % ${AHEAD}, at = s * 16 * ${X_SIZE};
    #pragma unroll
    for (int i = 0; i < MT; i++) {
      ${FRAGMENT}
      ${SECOND}
      ${WEIGH}
    }
    products_begin();
    #pragma unroll
    for (int i = 0; i < MT; i++)
      products_add(${SUM}[i], a[now][i], x + (u32)buffer / 16 + (at / X_ROW * X_BLOCK + at % X_ROW) / 16, ${MORE});
    products_commit();
    ${WAIT}
  ]], { FRAGMENT = whole and "load16(p.w16 + buffer + i * 4 * RUN + s / 4 * RECORD + s % 4 * 512, a[now][i]);"
      or "fragment(q[i][s / 4], s % 4, a[now][i]);", WAIT = v.AHEAD == 2 and "products_wait<1>();" or "",
    SECOND = v.DEPTH == 2 and "fragment(q[i][s / 4], s % 4 + 1, a[now][i] + 2);" or "",
    WEIGH = v.WEIGH and "weigh(a[now][i], term[i]);" or "", SUM = v.FLUSH and "part" or "acc",
    MORE = v.FLUSH and "s % GROUP_STEPS" or "s ? 1 : more" })
  if v.FLUSH then flush(w, v)
  else w "if (s == 0 && more) ring_release(done, lane);" end
  w.pop "}"
  if v.RAW then w "if (settles) settle(scales, sums + (u32)buffer / 16, acc);" end
  if v.FLUSH then w "ring_release(done, lane);" end
  w.pop "}"
  w.blank()
end

-- Behind the last tile: its buffer, and those that are left of the round.
local rest = [[
ring_release(b.empty + (tiles - 1) % STAGES * 8, lane);
for (int s = (tiles - 1) % STAGES + 1; s < STAGES; s++) {
  barrier_wait(b.full + s * 8, parity ^ 1);
  ring_release(b.empty + s * 8, lane);
}]]

function warpgroup.consume(w, v)
  w([[
    fn void clear(${ACC} acc[MT][NT][4]) {
    #pragma unroll
      for (int i = 0; i < MT * NT * 4; i++) acc[i / (NT * 4)][i / 4 % NT][i % 4] = 0;
    }

    /* Multiply so many tiles, as they come. */
    fn void consume(const places &p, u32 base, const barriers &b, int tiles, ${ACC} acc[MT][NT][4]${BEGIN}${TURN}) {
      const u64 x = descriptor(base);
      ${KEPT}
      const u32 lane = kept(threadIdx.x % 32);
      ${OWN}
    #pragma unroll 1
      for (int tile = 0; tile < tiles; tile += UNROLL) {
    #pragma unroll
        for (int u = 0; u < UNROLL && tile + u < tiles; u++) {
          const int s = first + u;
          barrier_wait(b.full + s * 8, parity);
          multiply(p, s * STAGE, x, tile | u, b.empty + ${DONE} * 8, lane, acc${SUMS});
        }
        if ((first += UNROLL) == STAGES) first = 0, parity ^= 1;
      }
      products_wait<0>();
      ${REST}
    }
  ]], { TURN = v.STREAM and ", turn &next" or "",
    OWN = v.STREAM and "int &first = next.buffer;\nu32 &parity = next.parity;" or "u32 parity = 0;\nint first = 0;",
    REST = v.STREAM and v.UNROLL > 1 and rest or "", DONE = v.FLUSH and "s" or "((s ? s : STAGES) - 1)",
    BEGIN = v.RAW and ", int begin" or "", KEPT = v.RAW and x_sums.KEPT or "",
    SUMS = v.RAW and x_sums.of_tile(v, "begin + tile + u", "tile + u == tiles - 1") or "" })
  w.blank()
end

return warpgroup
