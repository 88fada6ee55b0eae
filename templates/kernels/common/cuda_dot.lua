-- cuda_dot.lua - products on CUDA cores: a lane's weights of a record as f32, times X of MB tokens.
--
--   acc[m][r] += scale x sum(map(q) x) + offset x sum(x)      a group after the other, r: rows g and g + 8 of a lane
--
-- X is read as it lies, by words. Where it is in act-order or not aligned, a warp gathers 64 of k in shared memory
-- first. Where groups are finer than 16 of k, each weight meets its own scale (planes.weigh). In the end the four lanes
-- of a row, and then the warps, add up in order.
--
-- A family writes struct task and the constants, see cuda.gemv.

local cuda = use "kernels/common/cuda"
local planes = use "kernels/common/cuda_planes"
local dot = {}

-- values(): fragment f as f32; gather(), load_x(): a lane's values of X.
function dot.values(w, v)
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
function dot.scale(w, v, part, sum)
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

-- add_record(): the products of a record with X.
function dot.record(w, v)
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
    dot.scale(w, v, "part", "sum")
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

-- add_records(), add_gathered(): several records, one behind the other.
function dot.records(w)
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
function dot.output(w, v)
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

return dot
