-- host_x.lua - the step before a host product: X as its tiles read it.
--
--   tile of MR rows            group of GROUP values of k
--   +--------------------+     +------------------------+
--   | group 0            |     | row 0: GROUP numbers   |   [tile][group][row][k]: a tile reads it from its beginning
--   | group 1            |     | row 1                  |   to its end, and every place is a constant from where it is.
--   | ...                |     | ... row MR - 1         |
--   +--------------------+     +------------------------+
--
-- The numbers are as the product multiplies them (FILLED): converted, or rounded to codes where X is given in another
-- type than that of the activations, and in the order of the columns of W where the weight is in act-order. What fills
-- up the last record is zero, and so are rows that fill up the last tile: their sums go nowhere, but what an earlier
-- call left there may be slow to multiply.
--
-- Beside them, [tile][group][row]:
--
--   starts   where the sums over a group begin: what was added to the codes, taken away again, times the sum of x
--   sums     of x, where W has an offset
--   scales   where X is rounded by groups; where by rows, one for each row
--
-- An item of the step is a row: a call with one wakes no other thread.
--
-- Experts of a stack each have tiles of their own, one expert's behind another's. With the rows of those before and one
-- tile's worth, less one, for each, there is a tile that is free (runtime/grouped.c).

local x = {}

local bytes = { float = 4, int16_t = 2, uint16_t = 2, int8_t = 1 } -- of FILLED

-- What lies in the scratch, one behind the other: { name, type in C, count (an expression), shape }. All but the first
-- have four bytes; so do V of the first.
local function parts(v)
  local groups = ceildiv(K, v.KR) * v.GROUPS
  local tiles = v.problem.experts and (M + min(E, M) * (v.MR - 1)) // v.MR or ceildiv(M, v.MR)
  local places = tiles * (groups * v.MR)
  local list = { { "x_of", v.FILLED, places * v.GROUP, "[tile][group][row][k]" } }
  local function add(name, type, count) list[#list + 1] = { name, type, count or places, "[tile][group][row]" } end
  if v.ADDED ~= 0 then add("starts_of", "int32_t") end
  if v.sums then add("sums_of", "float") end
  if v.ROUNDED then add("scales_of", "float", v.ROUNDED.group == 0 and M or nil) end
  if v.ROUNDED and v.ROUNDED.group == 0 then list[#list][4] = "[row]" end
  return list
end

-- What the caller has for row `row` of a call, or of an expert: its row of X, of Y; and where scales by rows are.
function x.row_of_x(v, row) return v.problem.experts and ("row_of_x(a, %s)"):format(row) or row end
function x.row_of_y(v, row) return v.problem.experts and ("row_of_y(a, %s)"):format(row) or row end
function x.row_of_scales(v, row) return v.problem.experts and "a->offsets[a->expert] + " .. row or row end

-- Bytes of scratch that the threads share, at its beginning.
function x.bytes(v)
  local sum = expr.const(0)
  for i, p in ipairs(parts(v)) do sum = sum + p[3] * (i == 1 and bytes[v.FILLED] or 4) end
  return ceildiv(sum, 64) * 64
end

-- Where part i ends, in C; where the last one does.
local function ends(v, i)
  local name, _, _, shape = table.unpack(parts(v)[i])
  local rows = v.problem.experts and "all_rows(a)" or "a->m"
  return ("%s(a) + %s"):format(name, shape == "[row]" and rows or i == 1 and "places(a) * GROUP" or "places(a)")
end
function x.ends(v) return ends(v, #parts(v)) end

local function places(w, v)
  if v.problem.experts then
    w [[
      fn int64_t all_rows(const struct args *a) { return a->offsets[a->experts]; }

      /* Row of Y, and of X, that is number `row` of the expert. */
      fn int64_t row_of_y(const struct args *a, int64_t row) {
        const int64_t i = a->offsets[a->expert] + row;
        return a->rows ? a->rows[i] : i;
      }
      fn int64_t row_of_x(const struct args *a, int64_t row) { return row_of_y(a, row) / a->topk; }

    ]]
  end
  w([[
    /* Where the numbers of a row are for a group, as arrange_x leaves them in the scratch; behind them are those of the
     * next rows of its tile. */
    fn int64_t groups_of_row(const struct args *a) { return (a->k + KR - 1) / KR * GROUPS; }
    fn int64_t place(const struct args *a, int64_t row, int64_t group) {
      return (${TILE} * groups_of_row(a) + group) * MR + row % MR;
    }
    fn int64_t places(const struct args *a) { return ${TILES} * MR * groups_of_row(a); }
  ]], v.problem.experts
    and { TILE = "((a->offsets[a->expert] + a->expert * (MR - 1)) / MR + row / MR)",
      TILES = "(all_rows(a) + a->experts * (MR - 1)) / MR" }
    or { TILE = "row / MR", TILES = "(a->m + MR - 1) / MR" })
  for i, p in ipairs(parts(v)) do
    w("fn ${TYPE} *${NAME}(const struct args *a) { return (${TYPE} *)${AT}; } /* ${SHAPE} */",
      { NAME = p[1], TYPE = p[2], SHAPE = p[4], AT = i == 1 and "a->scratch" or "(" .. ends(v, i - 1) .. ")" })
  end
  w.blank()
end

-- code_of(): the nearest code, of two the even one, never beyond the largest. Returns that one's value.
local function code(w, v)
  local t = types.all[v.act]
  if t.kind ~= "float" then
    w [[
      fn int8_t code_of(float v) { /* the sum rounds: its last place is 1 */
        int32_t code = (int32_t)(bits_of(v + 0x1.8p23f) - bits_of(0x1.8p23f));
        code = code > -127 ? code : -127;
        return (int8_t)(code < 127 ? code : 127);
      }
    ]]
    w.blank()
    return 127
  end
  local shift, largest = 23 - t.mantissa, types.code(v.act, t.max)
  w([[
    fn uint8_t code_of(float v) { /* what lies below the normal numbers is rounded by a sum */
      uint32_t u = bits_of(v), a = u & 0x7fffffff, unit = ${UNIT};
      uint32_t tiny = bits_of(float_of(a) + float_of(unit)) - unit;
      uint32_t normal = (a + ${HALF} + (a >> ${SHIFT} & 1) - ${BIAS}) >> ${SHIFT};
      uint32_t code = a < ${NORMAL} ? tiny : normal;
      return (uint8_t)((code > ${LARGEST} ? ${LARGEST} : code) | u >> 31 << 7);
    }
  ]], { UNIT = ("0x%x"):format(151 - t.bias - t.mantissa << 23), HALF = ("0x%x"):format((1 << shift - 1) - 1),
    SHIFT = shift, BIAS = ("0x%x"):format(127 - t.bias << 23), NORMAL = ("0x%x"):format(128 - t.bias << 23),
    LARGEST = largest })
  w.blank()
  return t.max
end

-- The rule is that of qn_quantize_rows, for a row or for each group.
local function scale(w, v)
  local largest = code(w, v)
  w([[
    /* The scale of n values of a row from column k on. */
    fn float scale_of(const struct args *a, int64_t row, int64_t k, int64_t n, const int32_t *perm) {
      const ${GIVEN} *x = a->x + ${ROW} * a->ldx;
      uint32_t top = 0; /* magnitudes are in the same order as integers, and NaN is the largest */
      for (int64_t i = 0; i < n; i++) {
        uint32_t u = bits_of(${VALUE}) & 0x7fffffff;
        top = u > top ? u : top;
      }
      return float_of(top) / ${LARGEST};
    }
  ]], { ROW = x.row_of_x(v, "row"), LARGEST = ("%d.0f"):format(largest),
    VALUE = v.GIVEN_VALUE:format "x[perm ? perm[k + i] : k + i]" })
  w.blank()
end

-- sum_of(): the sum over a group; of floats in an order that vectors can keep.
local function sum(w, v)
  if v.FILLED:match "^int" then
    w([[
      fn int32_t sum_of(const ${FILLED} *x) {
        int32_t sum = 0;
        for (int k = 0; k < GROUP; k++) sum += x[k];
        return sum;
      }
    ]])
    w.blank()
    return
  end
  local lanes = 16
  while v.GROUP % lanes ~= 0 do lanes = lanes // 2 end
  w([[
    fn float sum_of(const ${FILLED} *x) {
      float lane[${COUNT}] = {0}, sum = 0;
      for (int k = 0; k < GROUP; k += ${COUNT})
        for (int i = 0; i < ${COUNT}; i++) lane[i] += ${VALUE};
      for (int i = 0; i < ${COUNT}; i++) sum += lane[i];
      return sum;
    }
  ]], { COUNT = lanes, VALUE = v.FILLED == "uint16_t" and "from_bf16(x[k + i])" or "x[k + i]" })
  w.blank()
end

-- Numbers of a group, from those given: lines of C.
local function group(w, v)
  local given = "given[perm ? perm[i] : i]"
  local number = v.FILL:format(v.ROUNDED
    and ("code_of(%s / unit)"):format(v.GIVEN_VALUE:format(given)) or given)
  w([[
    /* Group g of a row: the first n numbers are there. */
    fn void arrange_group(const struct args *a, int64_t row, int64_t g, int64_t n, const int32_t *perm${SCALE}) {
      const ${GIVEN} *restrict given = a->x + ${ROW} * a->ldx + (perm ? 0 : g * GROUP);
      const int64_t at = place(a, row, g);
      ${FILLED} *restrict x = x_of(a) + at * GROUP;
  ]], { ROW = x.row_of_x(v, "row"), SCALE = v.ROUNDED and ", float scale" or "" })
  w.push()
  if v.ROUNDED then w "const float unit = scale == 0 ? 1 : scale;" end
  w "perm = perm ? perm + g * GROUP : 0;"
  w("for (int64_t i = 0; i < n; i++) x[i] = ${NUMBER};", { NUMBER = number })
  w "for (int64_t i = n; i < GROUP; i++) x[i] = 0;"
  local summed = v.ADDED ~= 0 and v.sums and "sum" or "sum_of(x)"
  if summed == "sum" then w("const int32_t sum = sum_of(x);") end
  if v.ADDED ~= 0 then w("starts_of(a)[at] = ${FACTOR} * ${SUM};", { FACTOR = -v.ADDED, SUM = summed }) end
  if v.sums then w("sums_of(a)[at] = ${SUM};", { SUM = summed == "sum" and "(float)sum" or summed }) end
  if v.ROUNDED and v.ROUNDED.group > 0 then w "scales_of(a)[at] = scale;" end
  w.pop "}"
  w.blank()
end

local function row(w, v)
  local by = v.ROUNDED and v.ROUNDED.group
  w.push "fn void arrange_row(const struct args *a, int64_t row, const int32_t *perm) {"
  if by then w("float scale${FIRST};", { FIRST = by == 0 and " = scale_of(a, row, 0, a->k, perm)" or " = 0" }) end
  if by == 0 then w("scales_of(a)[${AT}] = scale;", { AT = x.row_of_scales(v, "row") }) end
  w.push "for (int64_t g = 0; g < groups_of_row(a); g++) {"
  w "const int64_t left = a->k - g * GROUP;"
  if by and by > 0 then
    w([[
      if (left >= ${BY}${FIRST}) scale = scale_of(a, row, g * GROUP, ${BY}, perm);
      else if (left > 0${FIRST}) scale = scale_of(a, row, g * GROUP, left, perm);
    ]], { BY = by == v.GROUP and "GROUP" or by,
      FIRST = by > v.GROUP and (" && g %% %d == 0"):format(by // v.GROUP) or "" })
  end
  w([[
    if (left >= GROUP) arrange_group(a, row, g, GROUP, perm${SCALE});
    else arrange_group(a, row, g, left > 0 ? left : 0, perm${SCALE});
  ]], { SCALE = by and ", scale" or "" })
  w.pop "}"
  w.pop "}"
  w.blank()
end

-- Rows that a tile of MR or of MR / 2 rows reads beyond the last one.
local function clear(w, v)
  w([[
    fn void clear_rows(const struct args *a) {
      const int64_t rows = (a->m + MR / 2 - 1) / (MR / 2) * (MR / 2);
      for (int64_t row = a->m; row < rows; row++)
        for (int64_t g = 0; g < groups_of_row(a); g++) {
          const int64_t at = place(a, row, g);
          for (int i = 0; i < GROUP; i++) x_of(a)[at * GROUP + i] = 0;
  ]])
  w.push() w.push() w.push()
  for i, p in ipairs(parts(v)) do
    if i > 1 and p[4] ~= "[row]" then w("${NAME}(a)[at] = 0;", { NAME = p[1] }) end
  end
  w.pop "}" w.pop() w.pop "}"
  w.blank()
end

function x.arrange(w, v)
  places(w, v)
  if v.ROUNDED then scale(w, v) end
  if v.ADDED ~= 0 or v.sums then sum(w, v) end
  group(w, v)
  row(w, v)
  local rests = v.MR > 2 -- can a tile have more rows than there are?
  if rests then clear(w, v) end
  w([[
    /* Rows begin .. end - 1 of X, in the order of the columns of W. */
    __attribute__((visibility("default")))
    void arrange_x(const struct args *a, int64_t begin, int64_t end, int32_t thread) {
      (void)thread;
      for (int64_t row = begin; row < end; row++)
        if (a->perm) arrange_row(a, row, a->perm);
        else arrange_row(a, row, 0);${CLEAR}
    }
  ]], { CLEAR = rests and "\n  if (end == a->m) clear_rows(a);" or "" })
  w.blank()
end

-- The steps of a call whose product has this grid.
function x.steps(grid) return { { entry = "arrange_x", args = { "perm" }, grid = { M } }, { grid = grid } } end

return x
