-- cuda_mma.lua - the parts of cuda.mma below its main loop: copies into shared memory, tensor core, output.

local cuda = use "kernels/common/cuda"
local codes = use "kernels/common/cuda_codes"
local planes = use "kernels/common/cuda_planes"
local parts = {}

-- ---- PTX ------------------------------------------------------------------------------------------------------------

function parts.ptx(w, v)
  w([[
    fn u32 shared_address(const void *p) { return (u32)__cvta_generic_to_shared(p); }

    /* Begin to copy 16 bytes, of which `bytes` come from memory and the rest are zero. */
    fn void copy16(void *to, const void *from, int bytes) {
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                   :: "r"(shared_address(to)), "l"(from), "r"(bytes) : "memory");
    }
    fn void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
    /* Wait until at most `n` of this thread's groups of copies are under way. */
    template <int n> fn void copies_wait() { asm volatile("cp.async.wait_group %0;" :: "n"(n) : "memory"); }

    fn void load4(const u8 *p, u32 *q) { q[0] = *(const u32 *)p; }
    fn void load8(const u8 *p, u32 *q) {
      const u32x2 u = *(const u32x2 *)p;
      q[0] = u.v[0], q[1] = u.v[1];
    }
    fn void load16(const u8 *p, u32 *q) {
      const u32x4 u = *(const u32x4 *)p;
      q[0] = u.v[0], q[1] = u.v[1], q[2] = u.v[2], q[3] = u.v[3];
    }

    /* Two or four 8 x 8 matrices; lane l names row l % 8 of matrix l / 8. */
    fn void load_matrix2(u32 *b, const void *row) {
      asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                   : "=r"(b[0]), "=r"(b[1]) : "r"(shared_address(row)) : "memory");
    }
    fn void load_matrix4(u32 *b, const void *row) {
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3]) : "r"(shared_address(row)) : "memory");
    }

    /* d[16 features, 8 tokens] += a[16, ${K} of k] . b[${K} of k, 8]. */
    fn void multiply_add(${SUM} *d, const u32 *a, const u32 *b) {
      asm volatile("mma.sync.aligned.m16n8k${K}.row.col.${TYPES} {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                   "{%0, %1, %2, %3};"
                   : "+${D}"(d[0]), "+${D}"(d[1]), "+${D}"(d[2]), "+${D}"(d[3])
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
  ]], { K = 16 * v.DEPTH, SUM = v.PART, D = v.INTEGER and "r" or "f",
    TYPES = v.INTEGER and "s32.s8.s8.s32" or ("f32.%s.%s.f32"):format(v.HALF, v.HALF) })
  w.blank()
end

-- ---- Copies ---------------------------------------------------------------------------------------------------------

-- `count` pieces of 16 bytes, by all threads: `i` is the piece.
local function each_piece(w, v, count, body)
  if count > v.THREADS then
    w "#pragma unroll"
    w.push("for (int j = 0; j < ${ROUNDS}; j++) {", { ROUNDS = (count + v.THREADS - 1) // v.THREADS })
    w "const int i = j * THREADS + threadIdx.x;"
    if count % v.THREADS ~= 0 then w("if (i >= ${COUNT}) break;", { COUNT = count }) end
  else
    w.push(count < v.THREADS and "if (threadIdx.x < ${COUNT}) {" or "{", { COUNT = count })
    w "const int i = threadIdx.x;"
  end
  body()
  w.pop "}"
end

-- Piece c, of 16 bytes, of a row of X lies at c ^ swizzle: eight rows' pieces c are in different banks.
local function swizzle(v, row) return row .. (v.BK * v.X_SIZE < 128 and " / 2 % 4" or " % 8") end

-- Four bytes of a row of X: how many elements, their declaration, two to a line, and the word that they make.
local function word_of_x(v)
  local names = v.X_SIZE == 1 and { "a", "b", "c", "d" } or { "lo", "hi" }
  local cast, declaration, word = v.X_SIZE == 1 and "(u8)" or "", "const u32 ", {}
  for i, name in ipairs(names) do
    local at, shift = i > 1 and " + " .. i - 1 or "", (i - 1) * 8 * v.X_SIZE
    declaration = declaration .. ("%s = there && k%s < t.k ? %sfrom[%d] : 0"):format(name, at, cast, i - 1)
      .. (i == #names and ";" or i % 2 == 0 and ",\n  " or ", ")
    word[i] = name .. (shift > 0 and " << " .. shift or "")
  end
  return #names, declaration, table.concat(word, " | ")
end

function parts.load_x(w, v)
  w.push "fn void load_x(const task &t, u8 *stage, int k0) {"
  each_piece(w, v, v.X_BYTES // 16, function()
    w([[
      const int row = i / (BK / ${PIECE}), c = i % (BK / ${PIECE}), k = k0 + c * ${PIECE};
      const int count = t.m0 + row < t.m ? min(max(t.k - k, 0), ${PIECE}) : 0;
      const ${XT} *from = count ? t.x + (i64)(t.m0 + row) * t.ldx + k : t.x;
      copy16(stage + row * ${X_ROW} + (c ^ ${AT}) * 16, from, ${BYTES});
    ]], { AT = swizzle(v, "row"), BYTES = v.X_SIZE == 1 and "count" or "count * 2" })
  end)
  w.pop "}"
  w.blank()
  local count, declaration, word = word_of_x(v)
  w([[
    /* The same where rows are not aligned to 16 bytes. */
    fn void load_x_unaligned(const task &t, u8 *stage, int k0) {
    #pragma unroll 1
      for (int i = threadIdx.x; i < BM * BK / ${COUNT}; i += THREADS) {
        const int row = i / (BK / ${COUNT}), k = k0 + i % (BK / ${COUNT}) * ${COUNT};
        const ${XT} *from = t.x + (i64)(t.m0 + row) * t.ldx + k;
        const bool there = t.m0 + row < t.m;
        ${DECLARATION}
        *(u32 *)(stage + row * ${X_ROW} + (i % (BK / ${COUNT}) / 4 ^ ${AT}) * 16 + i % 4 * 4) = ${WORD};
      }
    }
  ]], { COUNT = count, DECLARATION = declaration, WORD = word, AT = swizzle(v, "row") })
  w.blank()
end

-- Copy 16 bytes of W that belong to `feature` and the next; those beyond the padded N are zero.
local function copy_weights(w, v, to, base, offset, feature)
  local c = { TO = to, BASE = base, OFFSET = offset, FEATURE = feature }
  if v.BN == cuda.fragment.TILE_N then return w("copy16(${TO}, ${BASE} + ${OFFSET}, 16);", c) end
  w([[
    const bool there = ${FEATURE} < t.n_padded;
    copy16(${TO}, ${BASE} + (there ? ${OFFSET} : 0),
           there ? 16 : 0);
  ]], c)
end

function parts.load_weights(w, v)
  w "/* W: the records of a tile, as they are; those beyond the padded N are zero. */"
  w.push "fn void load_w(const task &t, u8 *stage, int tile) {"
  each_piece(w, v, v.W_BYTES // 16, function()
    w "const int run = i / (RUN / 16), at = i % (RUN / 16) * 16;"
    copy_weights(w, v, "stage + X_BYTES + i * 16", "t.w",
      "(t.n0 / (16 * FN) + run) * t.run_stride + (i64)tile * RUN + at",
      "t.n0 + run * 16 * FN")
  end)
  w.pop "}"
  w.blank()
end

function parts.load_planes(w, v)
  if not v.GROUPED then return end
  w "/* Planes with groups: those of a tile, [group][feature]. */"
  w.push "fn void load_planes(const task &t, u8 *stage, int k0) {"
  for _, p in ipairs(v.staged) do
    local piece = 16 // p.size * p.rows -- features of 16 bytes
    each_piece(w, v, p.groups * v.BN // piece, function()
      w("const int group = k0 / ${COLS} + i / (BN / ${PIECE}), feature = t.n0 + i % (BN / ${PIECE}) * ${PIECE};",
        { COLS = p.cols, PIECE = piece })
      copy_weights(w, v, ("stage + %s + i * 16"):format(p.place), ("t.%s_at"):format(p.name),
        ("((i64)group * t.n_padded + feature) / %d * 16"):format(piece), "feature")
    end)
  end
  w.pop "}"
  w.blank()
end

-- ---- B operand ------------------------------------------------------------------------------------------------------

-- Four neighbours of X, of 8 bits each, as the two registers of the B operand: first and third, second and fourth.
local spread = {
  i8 = [[
    /* With the sign turned, x + 128 below 0x64 is 1152 + x. */
    fn void spread(u32 x, u32 *b) {
      x ^= 0x80808080;
      b[0] = add2(and_or(x, 0x00ff00ff, 0x64006400), ${OFFSET});
      b[1] = add2(and_or(x >> 8, 0x00ff00ff, 0x64006400), ${OFFSET});
    }
  ]],
  float = "fn void spread(u32 x, u32 *b) { b[0] = f16x2_of_${ACT}(x << 8), b[1] = f16x2_of_${ACT}(x); }",
}

-- What load_b() needs in front.
function parts.spread(w, v)
  if not types.scaled(v.act) or v.INTEGER then return end
  if cuda.float8[v.act] and v.format.map.type ~= v.act then codes.narrow(w, v, v.act) end
  if v.act == "i8" then w(spread.i8, { OFFSET = cuda.pair(v.HALF, -1152) }) else w(spread.float, { ACT = v.act }) end
  w.blank()
end

-- b[j], the operand of 8 tokens at step s. Matrices are loaded as they lie; where X has 8 bits and is multiplied as
-- f16, a lane converts the word that it needs.
local function load_b(w, v)
  if v.CONVERTS then
    return w([[
      #pragma unroll
      for (int j = 0; j < NT; j++) {
        const u8 *x = stage + (token + j * 8) * ${X_ROW} + (k_warp / 16 + s ^ ${AT}) * 16 + lane % 4 * 4;
        spread(*(const u32 *)x, b[j]);
      }
    ]], { AT = swizzle(v, "token") })
  end
  w([[
    #pragma unroll
    for (int j = 0; j < NT; j += ${STEP}) {
      const int c = (k_warp + s * 16) / ${PIECE} + lane / 8 % 2;
      load_matrix${COUNT}(b[j], stage + (token + j * 8) * ${X_ROW} + (c ^ ${AT}) * 16);
    }
  ]], { STEP = v.BM > 8 and 2 or 1, COUNT = v.BM > 8 and 4 or 2, AT = swizzle(v, "lane") })
end

-- The token, of the first eight or sixteen, whose row a lane reads or names.
local function token(v)
  if v.CONVERTS then return "lane / 4" end
  return v.BM > 8 and "lane / 16 * 8 + lane % 8" or "lane % 8"
end

-- ---- Product --------------------------------------------------------------------------------------------------------

-- Address of plane p, as stored, for the rows that a lane has in the 16-row tile `i` of the warp. `row` is where the
-- first of them lies in the planes of a CTA, `s` the step of the warp's k.
local function plane_address(v, p)
  local base = ("t.%s_at"):format(p.name)
  if p.rows == 0 then return base end
  if p.cols == 0 then
    local at = v.BN > cuda.fragment.TILE_N and "min(t.n0 + row, t.n_padded - 2)" or "(t.n0 + row)"
    return planes.element(p, base, "(i64)" .. at)
  end
  local at, pitch = "row", "BN"
  if p.rows == 16 then at, pitch = "feature / 16 + i", "(BN / 16)" end
  if v.BK > p.cols then at = ("(k_warp + s * 16) / %d * %s + %s"):format(p.cols, pitch, at) end
  return planes.element(p, "stage + " .. v.by_name[p.name].place, at)
end

-- A loop over the 16-row tiles of a warp, whose planes are met.
local function each_tile(w, list, body)
  w "#pragma unroll"
  w.push "for (int i = 0; i < MT; i++) {"
  for _, p in ipairs(list) do
    if p.rows == 1 then
      w "const int row = feature + i / FN * 16 * FN + lane / 4 * 2 * FN + i % FN * 2; /* as planes count */"
      break
    end
  end
  body()
  w.pop "}"
end

local function terms(w, v)
  if not v.TERMS then return end
  local at = {}
  for i, p in ipairs(planes.met(v)) do at[i] = plane_address(v, p) end
  w "if (s % GROUP_STEPS == 0)"
  w.push()
  each_tile(w, planes.met(v), function() w("term[i] = load_terms(${AT});", { AT = table.concat(at, ",\n  ") }) end)
  w.pop()
end

-- The sums of a group, times its scales, go to acc. Integers begin at the bits of 1.5 x 2^23, so that they are the last
-- bits of a float.
local function flush(w, v)
  w([[
    if ((s + ${DEPTH}) % GROUP_STEPS == 0 || s + ${DEPTH} == TK / 16)
    #pragma unroll
      for (int i = 0; i < MT; i++)
    #pragma unroll
        for (int j = 0; j < NT; j++)
    #pragma unroll
          for (int e = 0; e < 4; e++) {
            acc[i][j][e] = __fmaf_rn(${SUM}, term[i].scale[e / 2], acc[i][j][e]);
            part[i][j][e] = ${ZERO};
          }
  ]], { SUM = v.INTEGER and "__int_as_float(part[i][j][e]) - 0x1.8p23f" or "part[i][j][e]",
    ZERO = v.INTEGER and "MAGIC" or "0" })
end

-- Records of a step: their codes, and the fragments that make an operand a of them.
local function load_records(w, v)
  if v.RUNS == 1 then
    return w [[
      u32 q[MT / FN][WORDS];
      #pragma unroll
      for (int cn = 0; cn < MT / FN; cn++) load_codes(records + cn * RUN + ck * RECORD, lane, q[cn]);
    ]]
  end
  w [[
    u32 q[2][MT / FN][WORDS]; /* of two records along K */
    #pragma unroll
    for (int i = 0; i < 2 * (MT / FN); i++)
      load_codes(records + i / 2 * RUN + (ck + i % 2) * RECORD, lane, q[i % 2][i / 2]);
  ]]
end

local function fragments(v)
  if v.DEPTH == 1 then return "fragment(q[i / FN], i % FN * FK + fk, a);" end
  if v.RUNS == 2 then return "fragment(q[0][i / FN], i % FN, a);\nfragment(q[1][i / FN], i % FN, a + 2);" end
  return "fragment(q[i / FN], i % FN * FK + fk, a);\nfragment(q[i / FN], i % FN * FK + fk + 1, a + 2);"
end

function parts.multiply(w, v)
  w([[
    /* The warp's share of a tile: MT x NT products of 16 features, 8 tokens and TK of k. */
    fn void multiply(const task &t, const u8 *stage, ${ACC} acc[MT][NT][4]) {
      const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
      const int k_warp = warp / WN * TK, feature = warp % WN * TN;
      const u8 *records = stage + X_BYTES + feature / (16 * FN) * RUN + k_warp / (16 * FK) * RECORD;
      const int token = ${TOKEN}; /* whose row of X this lane names */
  ]], { TOKEN = token(v) })
  w.push()
  if v.TERMS then w "terms term[MT];" end
  if v.FLUSH and v.INTEGER then
    w [[
      const int MAGIC = 0x4b400000; /* zero of the sums over the group, see below */
      int part[MT][NT][4];
      #pragma unroll
      for (int i = 0; i < MT * NT * 4; i++) part[i / (NT * 4)][i / 4 % NT][i % 4] = MAGIC;
    ]]
  elseif v.FLUSH then w "float part[MT][NT][4] = {}; /* sums over the group */" end
  w "#pragma unroll"
  w.push(v.RUNS == 1 and "for (int ck = 0; ck < TK / (16 * FK); ck++) {"
    or "for (int ck = 0; ck < TK / (16 * FK); ck += 2) {")
  load_records(w, v)
  if v.RUNS == 1 then
    w "#pragma unroll"
    w.push(v.DEPTH == 1 and "for (int fk = 0; fk < FK; fk++) {" or "for (int fk = 0; fk < FK; fk += 2) {")
    w "const int s = ck * FK + fk; /* step of 16 along k */"
  else w "const int s = ck; /* step of 16 along k */" end
  terms(w, v)
  w "u32 b[NT][2];"
  load_b(w, v)
  w([[
    #pragma unroll
    for (int i = 0; i < MT; i++) {
      u32 a[4];
      ${FRAGMENTS}
      ${WEIGH}
    #pragma unroll
      for (int j = 0; j < NT; j++) multiply_add(${SUM}[i][j], a, b[j]);
    }
  ]], { SUM = v.FLUSH and "part" or "acc", FRAGMENTS = fragments(v), WEIGH = v.WEIGH and "weigh(a, term[i]);" or "" })
  if v.FLUSH then flush(w, v) end
  if v.RUNS == 1 then w.pop "}" end
  w.pop "}"
  w.pop()
  w "}"
  w.blank()
end

-- ---- Output ---------------------------------------------------------------------------------------------------------

-- Scales of a row, once, at the end.
local function row_scales(w, v)
  if #v.ROW_SCALES == 0 then return end
  local list = {}
  for i, name in ipairs(v.ROW_SCALES) do list[i] = v.planes[name] end
  each_tile(w, list, function()
    planes.declare(w, v, list, function(p) return plane_address(v, p) end)
    w([[
      #pragma unroll
      for (int j = 0; j < NT; j++)
      #pragma unroll
        for (int e = 0; e < 4; e++) acc[i][j][e] *= ${SCALE};
    ]], { SCALE = planes.product(v.ROW_SCALES, 1, "e / 2") })
  end)
end

function parts.gather(w, v)
  w [[
    /* All warps' sums into out[token][feature]; warps that share a place add in order. */
    fn void gather(const task &t, float *out, float acc[MT][NT][4]) {
      const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, feature = warp % WN * TN;
  ]]
  w.push()
  row_scales(w, v)
  w([[
    #pragma unroll 1
    for (int turn = 0; turn < WK; turn++) {
      if (warp / WN == turn)
    #pragma unroll
        for (int i = 0; i < MT; i++)
    #pragma unroll
          for (int j = 0; j < NT; j++)
    #pragma unroll
            for (int e = 0; e < 4; e++) {
              float *to = out + (j * 8 + lane % 4 * 2 + e % 2) * PITCH + feature + i * 16 + lane / 4 + e / 2 * 8;
              *to = ${BEFORE}acc[i][j][e];
            }
      __syncthreads();
    }
  ]], { BEFORE = v.WK > 1 and "(turn ? *to : 0.0f) + " or "" })
  w.pop "}"
  w.blank()
end

parts.COMBINE_BYTES = 128 -- of shared memory: `arrived`, and what aligns the buffers behind it

-- Where partial sums of a split K meet: a counter for each tile, and a slot of sums for each part of K in scratch. What
-- atomics add to must begin at zero, so that their one slot is a counter, too, and is left zero.
function parts.workspace(v, tiles)
  if v.SPLIT == 1 then return {}, 0, 0 end
  local counters, sums = ceildiv(tiles * 4, 256) * 256, tiles * (v.SLOTS * v.BM * v.BN * 4)
  if v.REDUCE == "atomic" then return { "counters" }, counters + sums, 0 end
  return { "counters", "scratch" }, counters, sums
end

-- Split K: partial sums meet in the workspace; the CTA that comes last finishes the tile.
function parts.combine(w, v)
  if v.SPLIT == 1 then return end
  local atomic = v.REDUCE == "atomic"
  w([[
    /* One thread counts for the CTA: it has all that was written before a barrier, and hands on all that it found. */
    fn u32 arrive(u32 *counter) {
      u32 before;
      asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;"
                   : "=r"(before) : "l"(counter), "r"(SPLIT - 1) : "memory");
      return before;
    }

    /* A counter for each tile, zero between launches, and SLOTS times BM x BN sums${ZERO}. */
    fn bool combine(const task &t, u32 *counters, float *sums, float *out) {
      __shared__ u32 arrived;
      sums += (i64)blockIdx.x * SLOTS * BM * BN;
      const int count = min(t.m - t.m0, BM) * BN;
      for (int i = threadIdx.x; i < count; i += THREADS) {
        const float mine = out[i / BN * PITCH + i % BN];
        ${PUT}
      }
      __syncthreads();
      if (threadIdx.x == 0) arrived = arrive(counters + blockIdx.x);
      __syncthreads();
      if (arrived != SPLIT - 1) return false;
      for (int i = threadIdx.x; i < count; i += THREADS) {
        float sum = 0;
    #pragma unroll
        for (int s = 0; s < SLOTS; s++) sum += __ldcg(sums + s * BM * BN + i);
        ${CLEAR}
        out[i / BN * PITCH + i % BN] = sum;
      }
      __syncthreads();
      return true;
    }
  ]], { ZERO = atomic and ", zero, too" or "", CLEAR = atomic and "sums[i] = 0;" or "",
    PUT = atomic and "atomicAdd(sums + i, mine);" or "sums[blockIdx.y * BM * BN + i] = mine;" })
  w.blank()
end

function parts.store(w, v)
  local bytes, scaled, gated = types.all[v.out].bytes, types.scaled(v.act), v.problem.gated
  local times, count = scaled and "factor * " or "", gated and 2 or 4
  w([[
    /* ${WHAT} of a row at once, where they all exist and Y is aligned. */
    fn void store(const task &t, const float *out, ${YT} *y, ${EXTRA}int ldy) {
      struct __align__(${ALIGN}) quad { ${YT} v[${COUNT}]; };
      const bool aligned = ldy % ${COUNT} == 0 && (u64)y % ${ALIGN} == 0;
      for (int i = threadIdx.x; i < BM * BN / 4; i += THREADS) {
        const int token = i / (BN / 4), feature = i % (BN / 4) * 4, m = t.m0 + token, n = t.n0 + feature;
        if (m >= t.m || n >= t.n) continue;
        ${SCALE}
        const float *from = out + token * PITCH + feature;
        ${YT} *to = y + (i64)m * ldy + ${N};
        if (aligned && n + 4 <= t.n) {
          quad u;
    #pragma unroll
          for (int e = 0; e < ${COUNT}; e++)
            u.v[e] = output(${VALUE});
          *(quad *)to = u;
        } else
          for (int e = 0; e < ${COUNT} && ${LEFT} < t.n; e++)
            to[e] = output(${VALUE});
      }
    }
  ]], { YT = cuda.ctype[v.out], ALIGN = count * bytes, COUNT = count, N = gated and "n / 2" or "n",
    LEFT = gated and "n + 2 * e" or "n + e", WHAT = gated and "Four neighbours, which are two," or "Four neighbours",
    SCALE = scaled and "const float factor = x_scale[m];" or "",
    VALUE = gated and cuda.stored(v, times .. "from[2 * e]", "m", "n / 2 + e", times .. "from[2 * e + 1]", "t.n / 2")
      or cuda.stored(v, times .. "from[e]", "m", "n + e") })
  w.blank()
end

return parts
