-- cuda.gemv - few tokens without tensor cores: every weight is read once, by one lane, and met there by all tokens.
--
--   Y[m,n] = sum over k of X[m,k] * W[n,k]
--
--               k -->    chunk 0   chunk 1   chunk 2        a CTA makes 16 features of MB tokens
--             +---------------------------------+
--   16        |  warp 0  | warp 1  |  ...  | warp 0  ...    its warps take the chunks of K in turn, UNROLL loads at
--   features  |          |         |       |                once, and add up in order through shared memory at the end
--             +---------------------------------+
--
--   X[m,k]   row-major, read through L1; lanes of equal t = lane % 4 read the same. For a weight in act-order it is
--            gathered as it is read: column j of W meets X[m, perm[j]]
--   W[n,k]   chunk (n / 16, k / 64), see templates/layouts/cuda_fragment.lua: a lane has two rows (g, g + 8;
--            g = lane / 4) and four values of k of each of four fragments (2t, 2t + 1, and these + 8; four neighbours
--            where X has 8 bits)
--   Y[m,n]   row-major
--
--   With W = map(q) x scale + offset: Y += scale x sum(map(q) x) + offset x sum(x), group by group; or, where groups
--   are finer than 16 of k, weight by weight. For activations of 8 bits times x_scale[m] at the end.
--
--   parameter  meaning                                   bound by
--   WARPS      warps that share K                        threads of a CTA
--   UNROLL     records a warp has under way              registers
--   MB         tokens of a CTA                           registers: 4 MB sums
--
-- Source: one warp per rows and direct loads in fragment order as in PyTorch's tinygemm; splitting K over the warps of
-- a CTA as in llama.cpp's mmvq.

local cuda = use "kernels/common/cuda"
local codes = use "kernels/common/cuda_codes"
local planes = use "kernels/common/cuda_planes"
local tensor = use "kernels/common/cuda_product"

-- The 16-bit type that holds map(q).
local function half_type(v)
  local m = v.format.map
  return m.kind == "float" and m.type == "bf16" and "bf16" or "f16"
end

local function registers(v)
  local elements = cuda.fragment.fine(v.format) and 16 or 2 -- of a plane
  return 4 * v.MB + v.UNROLL * v.format.bits + 6 * v.MB + elements * #v.format.planes + 48
end

-- Beside what codes.derive and planes.derive write into v:
--
--   HALF, SCALE             the 16-bit type of map(q), and that scales wait for sums
--   XT, X_SIZE              type of X, and bytes of an element
--   THREADS                 of a CTA
--   SUM_SCALE, SUM_OFFSET   planes that meet sums of a group; none where each weight meets its own (FINE)
--   GROUP_STEPS             steps of 16 along k after which sums meet them
--   TOTAL, TOTAL_PARAMETER, PASS_TOTAL   the sum of X over all of K, where an offset of the row multiplies it:
--                           declared, as a parameter, passed on
--   MIN_BLOCKS, PRECISION   CTAs of a multiprocessor; a line of the head comment
local function derive(v)
  v.HALF, v.SCALE = half_type(v), "sum"
  v.XT, v.EXTRA = cuda.ctype[v.act], cuda.extra_declared(v)
  v.X_SIZE = types.all[v.act].bytes
  v.THREADS = 32 * v.WARPS
  v.layout = cuda.fragment.layout(v.format, v.act)
  codes.derive(v)
  v.CODE_UNIT = 1
  planes.derive(v)
  v.SUM_SCALE, v.SUM_OFFSET = v.FINE and {} or v.format.scale, v.FINE and {} or v.format.offset
  v.GROUP_STEPS = v.GROUPED and math.min(v.GROUP, 64) // 16 or 4
  local total = #v.SUM_OFFSET > 0 and not v.GROUPED
  v.TOTAL = total and "float total[MB] = {}; /* of X */" or ""
  v.TOTAL_PARAMETER, v.PASS_TOTAL = total and ", float *total" or "", total and ", total" or ""
  v.MIN_BLOCKS = cuda.min_blocks(v, registers(v), v.THREADS)
  v.PRECISION = planes.precision(v)
end

local function rule(name, why, ok) return { name = name, why = why, ok = ok } end

local rules = {
  rule("device", "NVRTC compiles for sm_75 and later", function(v) return v.device.sm >= 75 end),
  rule("decode", "from sm_80 on cuda.decode takes what tensor cores multiply",
    function(v) return not tensor.serves(v) end),
  cuda.rules.act,
  cuda.range_rule(half_type),
  rule("slope", "codes that are floats have no scale in their code map", function(v)
    return v.format.map.kind ~= "float" or v.format.map.slope == 1
  end),
  rule("registers", "sums, codes and X need more registers than a thread has",
    function(v) return registers(v) <= 200 end),
  rule("residency", "a multiprocessor holds too few such CTAs to hide memory", function(v)
    return registers(v) * v.WARPS * 32 <= (v.device.regs or 65536)
  end),
  rule("flight", "half a kilobyte to a kilobyte under way per warp is enough, and a quarter too little", function(v)
    local bytes = v.UNROLL * 4 * v.format.bits
    return v.UNROLL == 1 and bytes >= 64 or bytes >= 16 and bytes <= 64
  end),
}

-- ---- Source ---------------------------------------------------------------------------------------------------------

local function constants(w, v)
  w([[
    enum {
      WARPS = ${WARPS}, /* that share K */
      UNROLL = ${UNROLL}, /* records a warp has under way */
      MB = ${MB}, /* tokens */
      THREADS = 32 * WARPS,
      WORDS = ${WORDS}, /* 32-bit words of a record in a lane */
      RECORD = ${RECORD}, /* bytes of a record */
      GROUP_STEPS = ${GROUP_STEPS}, /* steps of 16 that share scales */
    };

    struct task { /* what this lane works on */
      const ${XT} *row[MB]; /* of X; beyond the last row, the last */
      const int *perm; /* NULL: X is in the order of the columns of W */
      ${MEMBERS}
      int n_padded, k;
      ${RECORDS}
      int feature;        /* the first of this lane, as planes count */
      int g, t;
    };
  ]], { MEMBERS = planes.members(v),
    RECORDS = v.FINE and "i64 records; /* before those of this CTA */" or "" })
  w.blank()
end

-- values(): fragment f as f32.
local function values(w, v)
  w "/* Fragment f as f32: two neighbours along k for each of a0 .. a3. */"
  w.push "fn void values(const u32 *q, int f, float *out) {"
  if v.format.bits == 32 then
    w "#pragma unroll"
    w "for (int i = 0; i < 8; i++) out[i] = __uint_as_float(q[f * 8 + i]);"
  else
    w [[
      u32 a[4];
      fragment(q, f, a);
      #pragma unroll
      for (int r = 0; r < 4; r++) out[2 * r] = low(a[r]), out[2 * r + 1] = high(a[r]);
    ]]
  end
  w.pop "}"
  w.blank()
  w([[
    /* X of record c in the order of the columns of W, zero beyond K: for the warp. */
    fn void gather(const task &t, int c, ${XT} (*out)[64]) {
      __syncwarp(); /* what was there is read */
      for (int i = t.g * 4 + t.t; i < 64; i += 32) {
        const int column = c * 64 + i;
        const bool there = column < t.k;
        const int from = there && t.perm ? t.perm[column] : column;
    #pragma unroll
        for (int m = 0; m < MB; m++) out[m][i] = there ? t.row[m][from] : 0;
      }
      __syncwarp();
    }

  ]])
  w(v.X_SIZE == 1 and [[
    /* The four values of X of a lane: those that a0 and a1 meet, those that a2 and a3 meet. */
    fn void load_x(const ${XT} *from, int t, float *x) {
      const u32 u = *(const u32 *)(from + 4 * t);
      x[0] = f32_of_${ACT}((${XT})u), x[1] = f32_of_${ACT}((${XT})(u >> 16));
      x[2] = f32_of_${ACT}((${XT})(u >> 8)), x[3] = f32_of_${ACT}((${XT})(u >> 24));
    }
  ]] or [[
    /* The four values of X of a lane: those that a0 and a1 meet, those that a2 and a3 meet. */
    fn void load_x(const ${XT} *from, int t, float *x) {
      const u32 u = *(const u32 *)(from + 2 * t), v = *(const u32 *)(from + 2 * t + 8);
      x[0] = f32_of_${ACT}((${XT})u), x[1] = f32_of_${ACT}((${XT})(u >> 16));
      x[2] = f32_of_${ACT}((${XT})v), x[3] = f32_of_${ACT}((${XT})(v >> 16));
    }
  ]], { ACT = v.act })
  w.blank()
end

-- Y += scale x part + offset x sum(x), for the rows of a lane.
local function scale(w, v, part, sum)
  planes.declare(w, v, v.planes, function(p) return planes.read(v, p, planes.of_lane(p)) end)
  local product = ("%s[m][r]"):format(part)
  if #v.SUM_SCALE > 0 then
    local factor = planes.product(v, v.SUM_SCALE, 1, "r")
    product = ("%s * %s"):format(product, #v.SUM_SCALE > 1 and "(" .. factor .. ")" or factor)
  end
  w([[
    #pragma unroll
    for (int m = 0; m < MB; m++)
    #pragma unroll
      for (int r = 0; r < 2; r++) {
        acc[m][r] ${ASSIGN} ${PRODUCT};
        ${OFFSET}
      }
  ]], { ASSIGN = v.GROUPED and "+=" or "=", PRODUCT = product,
    OFFSET = #v.SUM_OFFSET > 0
      and ("acc[m][r] += (%s) * %s[m];"):format(planes.offset(v, v.SUM_OFFSET, "r"), sum) or "" })
end

local function record(w, v)
  local sums = #v.SUM_OFFSET > 0
  local part, sum = v.GROUPED and "part" or "acc", v.GROUPED and "sum" or "total"
  w([[
    /* Add the products of record `c`, whose words are q, with its rows of X. */
    fn void add_record(const task &t, int c, const u32 *q, const ${XT} *const *row,
                       float acc[MB][2]${TOTAL_PARAMETER}) {
  ]])
  w.push()
  if v.GROUPED then
    w "float part[MB][2] = {};"
    if sums then w "float sum[MB] = {};" end
  end
  w "#pragma unroll"
  w.push "for (int s = 0; s < 4; s++) { /* 16 of k */"
  w([[
    float x[MB][4];
    #pragma unroll
    for (int m = 0; m < MB; m++) {
      load_x(row[m] + s * 16, t.t, x[m]);
      ${SUMS}
    }
    float value[8];
    values(q, s, value);
    ${WEIGH}
    #pragma unroll
    for (int m = 0; m < MB; m++)
    #pragma unroll
      for (int e = 0; e < 8; e++) /* register e / 2: row g + e / 2 % 2 * 8 */
        ${PART}[m][e / 2 % 2] += value[e] * x[m][e / 4 * 2 + e % 2];
  ]], { WEIGH = v.FINE and "weigh(t, t.records + c, s, t.g * 4 + t.t, value);" or "", PART = part,
    SUMS = sums and sum .. "[m] += x[m][0] + x[m][1] + x[m][2] + x[m][3];" or "" })
  if v.GROUPED then
    w.push "if ((s + 1) % GROUP_STEPS == 0) {"
    w "const int step = c * 4 + s;"
    scale(w, v, "part", "sum")
    if v.GROUP_STEPS < 4 then
      w [[
        #pragma unroll
        for (int m = 0; m < MB; m++) {
      ]]
      if sums then w "  sum[m] = 0;" end
      w "#pragma unroll"
      w "  for (int r = 0; r < 2; r++) part[m][r] = 0;"
      w "}"
    end
    w.pop "}"
  end
  w.pop "}"
  w.pop()
  w "}"
  w.blank()
end

local function records(w)
  w([[
    /* Records c and those that follow a warp, UNROLL at once, which lie within K; rows of X are aligned to words. */
    fn void add_records(const task &t, int c, const u8 *column, float acc[MB][2]${TOTAL_PARAMETER}) {
      u32 q[UNROLL][WORDS];
    #pragma unroll
      for (int u = 0; u < UNROLL; u++) load_codes(column + (i64)(c + u * WARPS) * RECORD, t.g * 4 + t.t, q[u]);
    #pragma unroll
      for (int u = 0; u < UNROLL; u++) {
        const ${XT} *row[MB];
    #pragma unroll
        for (int m = 0; m < MB; m++) row[m] = t.row[m] + (c + u * WARPS) * 64;
        add_record(t, c + u * WARPS, q[u], row, acc${PASS_TOTAL});
      }
    }

    /* The same for up to UNROLL records below `end`, by way of X gathered in shared memory. */
    fn void add_gathered(const task &t, int c, int end, const u8 *column, ${XT} (*x)[64],
                         float acc[MB][2]${TOTAL_PARAMETER}) {
      const ${XT} *row[MB];
      u32 q[UNROLL * WORDS];
    #pragma unroll
      for (int m = 0; m < MB; m++) row[m] = x[m];
    #pragma unroll
      for (int u = 0; u < UNROLL; u++)
        if (c + u * WARPS < end) load_codes(column + (i64)(c + u * WARPS) * RECORD, t.g * 4 + t.t, q + u * WORDS);
    #pragma unroll 1
      for (int u = 0; u < UNROLL && c < end; u++, c += WARPS) {
        gather(t, c, x);
        add_record(t, c, q, row, acc${PASS_TOTAL});
    #pragma unroll
        for (int i = WORDS; i < UNROLL * WORDS; i++) q[i - WORDS] = q[i]; /* the next comes first */
      }
    }
  ]])
  w.blank()
end

-- What a thread stores: a sum, or what a gate's and an up row's sum make.
local single = [[
for (int i = threadIdx.x; i < MB * 16; i += THREADS) {
  const int row = i / 16, to = column * 16 + i %% 16;
  if (m0 + row >= m || to >= n) continue;
  float s = 0;
  for (int j = 0; j < WARPS; j++) s += out[j][row][i %% 16];
  y[(i64)(m0 + row) * ldy + to] = output(%s);
}]]
local paired = [[
for (int i = threadIdx.x; i < MB * 8; i += THREADS) {
  const int row = i / 8, at = i %% 8 * 2, to = column * 8 + at / 2;
  if (m0 + row >= m || to >= n / 2) continue;
  float s = 0, up = 0;
  for (int j = 0; j < WARPS; j++) s += out[j][row][at], up += out[j][row][at + 1];
  y[(i64)(m0 + row) * ldy + to] = output(%s);
}]]

-- The sums of the warps, added up in order.
local function output(w, v)
  local times = types.scaled(v.act) and " * x_scale[m0 + row]" or ""
  w([[
    #pragma unroll
    for (int i = 0; i < MB; i++)
    #pragma unroll
      for (int r = 0; r < 2; r++) {
        float s = acc[i][r]; /* over the four lanes that share a row */
        s += __shfl_xor_sync(0xffffffff, s, 1);
        s += __shfl_xor_sync(0xffffffff, s, 2);
        if (t.t == 0) out[warp][i][r * 8 + t.g] = s;
      }
    __syncthreads();
    ${STORE}
  ]], { STORE = v.problem.gated
      and paired:format(cuda.stored(v, "s" .. times, "m0 + row", "to", "up" .. times, "n / 2"))
    or single:format(cuda.stored(v, "s" .. times, "m0 + row", "to")) })
end

local function entry(w, v)
  w([[
    extern "C" __global__ void __launch_bounds__(THREADS, ${MIN_BLOCKS})
    ${entry}(const ${XT} *x, const u8 *w, ${YT} *y, const int *perm, ${EXTRA}int m, int n, int k, int ldx, int ldy) {
      __shared__ float out[WARPS][MB][16];
      __shared__ __align__(4) ${XT} gathered[WARPS][MB][64];
      const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
      const int blocks = (m + MB - 1) / MB, m0 = blockIdx.x % blocks * MB, column = blockIdx.x / blocks;
      const int records = (k + 64 - 1) / 64;
      const int k_padded = (k + ${TILE_K} - 1) / ${TILE_K} * ${TILE_K};
      const u8 *column_at = w + (i64)column * (k_padded / 64) * RECORD;
      const bool words = !perm && ldx % ${PER_WORD} == 0 && (u64)x % 4 == 0;
      task t;
    #pragma unroll
      for (int i = 0; i < MB; i++) t.row[i] = x + (i64)min(m0 + i, m - 1) * ldx;
      t.n_padded = (n + ${TILE_N} - 1) / ${TILE_N} * ${TILE_N}, t.k = k, t.perm = perm, t.g = lane / 4, t.t = lane % 4;
      t.feature = column * 16 + t.g * 2;
      ${RECORDS}
      ${POINTERS}

      float acc[MB][2] = {};
      ${TOTAL}
      int c = warp;
      if (words)
        for (const int whole = k / 64; c + (UNROLL - 1) * WARPS < whole; c += UNROLL * WARPS)
          add_records(t, c, column_at, acc${PASS_TOTAL});
      for (; c < records; c += UNROLL * WARPS)
        add_gathered(t, c, records, column_at, gathered[warp], acc${PASS_TOTAL});
  ]], { YT = cuda.ctype[v.out], PER_WORD = 4 // v.X_SIZE, TILE_N = v.layout.tile[1], TILE_K = v.layout.tile[2],
    POINTERS = planes.pointers(v), RECORDS = v.FINE and "t.records = (i64)column * (k_padded / 64);" or "" })
  w.push()
  if not v.GROUPED and not v.FINE and #v.format.planes > 0 then
    w.push "{ /* scales of a row */"
    scale(w, v, "acc", "total")
    w.pop "}"
  end
  output(w, v)
  w.pop "}"
end

local function launch(v)
  local args = { "x", "w", "y", "perm" }
  for _, x in ipairs(cuda.extra(v)) do args[#args + 1] = x[1] end
  table.move({ "m", "n", "k", "ldx", "ldy" }, 1, 5, #args + 1, args)
  return { steps = { { args = args, grid = { ceildiv(M, v.MB) * ceildiv(N, 16) }, block = { v.THREADS } } },
    deterministic = true, batch_invariant = true }
end

return kernel {
  name = "cuda.gemv",
  target = "cuda",
  doc = "few tokens on CUDA cores, f32 products",
  source = "tinygemm (PyTorch), mmvq (llama.cpp)",
  params = {
    { name = "WARPS", values = { 2, 4, 8, 16 }, quick = { 4, 8 }, doc = "warps that share K", short = "w" },
    { name = "UNROLL", values = { 1, 2, 4, 8 }, doc = "records under way in a warp", short = "u" },
    { name = "MB", values = { 1, 2, 4, 8 }, quick = { 1, 4 }, doc = "tokens of a CTA" },
  },
  rules = rules,
  derive = derive,
  layout = function(v) return v.layout end,
  launch = launch,
  m = function(v) return 1, 8, v.MB end,
  cost = function(v) return v.WARPS * v.MB end,
  outline = {
    cuda.head,
    constants,
    cuda.helpers,
    codes.stream,
    codes.load,
    function(w, v) if v.format.bits < 32 then codes.fragment(w, v) end end,
    planes.conversions,
    values,
    record,
    records,
    entry,
  },
}
