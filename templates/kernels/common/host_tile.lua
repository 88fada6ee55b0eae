-- host_tile.lua - the loops of the host families: one tile, all panels of a thread.
--
--                 panel: NR = LANES * P columns
--               +-----------------------+
--   row 0 ..    | acc[r][p]             |   a tile: MR rows x NR columns, all of K
--   row MR - 1  +-----------------------+
--
--   A rest of few rows takes a tile of half the height. Rows beyond M are zero and not stored, so that two bodies serve
--   every M. Which products and sums become one instruction is up to the compiler; verifying compares a row's bits over
--   all M.
--
--   for each record (KR values of k), each group     part = sums of map(q) x over the group
--     for each block, step, vector p                 weights = map(codes)
--       for each row r                               part[r][p] += weights . x[r]
--     acc += part * scale + sum(x) * offset
--
--   A record is one group, or, where a group is no whole number of blocks, as many as it takes.

local host = use "kernels/common/host"
local x = use "kernels/common/host_x"
local epilogue = use "kernels/common/epilogue"
local literals = use "kernels/common/literals"
local tile = {}

-- Tiles whose sums in the innermost loop leave a quarter of the registers for weights and x. What changes once a group
-- may lie in memory: acc, and where sums are settled (v.CHAIN), the settled ones.
tile.registers = { name = "registers", why = "the tile's sums do not fit the vector registers",
  ok = function(v) return 4 * host.tile_sums(v) <= 3 * host.isa(v).registers end }

-- Products of a step: those of MR rows and P vectors.
function tile.products(v) return host.tile_sums(v) * host.lane_products(v) end

local longest_body = 192 -- products in the unrolled loop: longer ones take seconds to compile and leave the op cache

tile.unroll = { name = "unroll", why = "the unrolled loop would be too long, or the groups are shorter than a block",
  ok = function(v)
    return v.UNROLL == 1 or host.record(v) == host.group(v)
      and v.UNROLL * host.steps(v) * tile.products(v) <= longest_body
  end }

-- `count` or as many as fit the longest body.
local function unrolled(v, count)
  while count > 1 and count * tile.products(v) > longest_body do count = count // 2 end
  return count
end

function tile.derive(v)
  host.derive(v)
  v.YT = v.out == "f32" and "float" or "uint16_t" -- y in C
end

-- Bytes of scratch: what threads share, then of each those of a panel (an expression; none: 0).
function tile.scratch(v, panel) return x.bytes(v) + T * (panel or 0) end

function tile.hooks(w, v)
  host.codes(w, v)
  v.isa.weights(w, v)
  v.isa.multiply(w, v)
  v.isa.planes(w, v)
  v.isa.store(w, v)
  if epilogue.any(v) then tile.epilogue(w, v) end
end

local functions = {
  exponential = [[
    /* e^x: 2^n times a polynomial of r, where x = n ln 2 + r. Beyond f32 it is infinite, below it about the least. */
    fn f32v exponential(f32v x) {
      i32v low = x < -87.0f, high = x > 89.0f;
      x = (f32v)(((i32v)x & ~(low | high)) | ((i32v)((f32v){0} - 87.0f) & low) | ((i32v)((f32v){0} + 89.0f) & high));
      f32v n = x * 1.44269504f + 0x1.8p23f - 0x1.8p23f, r = x - n * 0.693359375f - n * -2.12194440e-4f;
      f32v p = 8.3334519e-3f + r * (1.3981999e-3f + r * 1.9875691e-4f);
      p = 0.5f + r * (1.6666666e-1f + r * (4.1665796e-2f + r * p));
      return (1.0f + r + r * r * p) * (f32v)((__builtin_convertvector(n, i32v) + 127) << 23);
    }
  ]],
  positive = "fn f32v positive(f32v x) { return (f32v)((i32v)x & ~(x < 0.0f)); }",
  magnitude = "fn f32v magnitude(f32v x) { return (f32v)((i32v)x & 0x7fffffff); }",
}

-- epilogue(): from the sums of LANES columns, from `n` on, to what is stored. Nothing is read beyond the last column.
function tile.epilogue(w, v)
  local declared = {}
  for _, o in ipairs(epilogue.operands(v)) do
    if o.columns and not declared[o.type] then v.isa.operand(w, o.type) end
    declared[o.type] = declared[o.type] or o.columns
  end
  epilogue.functions(w, v, "f32v", functions)
  if v.problem.gated then
    w [[
      /* Every other column from `first` on, to the front. */
      fn f32v every_other(f32v x, int first) {
        f32v y = {0};
        for (int i = 0; i < LANES / 2; i++) y[i] = x[2 * i + first];
        return y;
      }

      fn f32v epilogue(const struct args *a, f32v v, int64_t row, int64_t n, int64_t count) {
    ]]
    w.push()
    w "f32v up = every_other(v, 1); /* the gate's sums and those of the up rows */"
    w "v = every_other(v, 0);"
  else w.push "fn f32v epilogue(const struct args *a, f32v v, int64_t row, int64_t n, int64_t count) {" end
  epilogue.steps(w, v, function(o, up)
    if not o.columns then return "*a->" .. o.name end
    local at = (o.tokens and (" + row * a->%s"):format(o.stride) or "") .. " + n" .. (up and " + a->n / 2" or "")
    return ("operand_%s(a->%s%s, count)"):format(o.type, o.name, at)
  end)
  w "return v;"
  w.pop "}"
  w.blank()
end

-- Bytes of so many elements of plane p: "NR * 2".
local function bytes(p, count)
  local size = types.all[p.type].bytes
  return size == 1 and count or ("%s * %d"):format(count, size)
end

-- Has plane p an element for each group of a record?
local function grouped(v, p) return p.cols == v.GROUP and v.GROUPS > 1 end

-- Bytes of plane p for a panel and a record, where it lies behind the codes.
local function panel_bytes(v, p) return bytes(p, grouped(v, p) and "GROUPS * NR" or "NR") end

-- Lines that declare where the planes begin that lie behind the codes, NAME_at; each has a section of its own.
local function plane_sections(v)
  local sections, planes = v.layout.sections, v.format.planes
  if #sections == 1 then return "" end
  local lines, before, size = { "const int64_t panels = (a->n + NR - 1) / NR;" }, "a->w", "RECORD"
  local names = { K = "a->k", [("ceildiv(N, %d)"):format(v.NR)] = "panels",
    [("ceildiv(K, %d)"):format(v.KR)] = "records" }
  for i = 2, #sections do
    local p = planes[planes[sections[i].fields[1].plane]]
    lines[i] = ("const uint8_t *%s_at = %s + section(%s * %s);"):format(p.name, before,
      expr.c(sections[i - 1].count, names), size)
    before, size = p.name .. "_at", panel_bytes(v, p)
  end
  return table.concat(lines, "\n")
end

-- Where the NR elements of plane p for the current group lie.
local function plane_address(v, p)
  local inner = grouped(v, p) and " + s * " .. bytes(p, "NR") or ""
  local field = v.layout.sections[1].fields[p.name]
  if field then return (field.offset > 0 and "record + " .. field.offset or "record") .. inner end
  local at = "panel"
  if p.cols == v.GROUP then at = "(panel * records + g)"
  elseif p.cols > 0 then
    at = ("(panel * ((a->k + %d) / %d) + g / %d)"):format(p.cols - 1, p.cols, p.cols // v.KR)
  end
  return ("%s_at + %s * %s%s"):format(p.name, at, panel_bytes(v, p), inner)
end

local function product(factors, coefficient)
  local out = table.concat(factors, " * ")
  if coefficient == 1 then return out end
  if coefficient == -1 then return "-" .. out end
  return literals.f32(coefficient) .. " * " .. out
end

-- Lines that add a finished group to the tile.
local function finish(w, v)
  local f = v.format
  if #f.planes == 0 then
    w "for (int p = 0; p < P; p++)"
    w "  for (int r = 0; r < R; r++) acc[r][p] += as_float(part[r][p]);"
    return
  end
  w.push "for (int p = 0; p < P; p++) {"
  for _, p in ipairs(f.planes) do
    w("f32v ${NAME} = load_${NAME}(${AT} + p * ${BYTES});",
      { NAME = p.name, AT = plane_address(v, p), BYTES = bytes(p, "LANES") })
  end
  local factor, sum = #f.scale > 0 and " * " .. f.scale[1] or "", ""
  if #f.scale > 1 then
    w("f32v factor = ${TEXT};", { TEXT = table.concat(f.scale, " * ") })
    factor = " * factor"
  end
  if #f.offset > 0 then
    local terms = {}
    for i, t in ipairs(f.offset) do
      terms[i] = #t.planes > 0 and product(t.planes, t.coefficient)
        or ("(f32v){0} + %s"):format(literals.f32(t.coefficient))
    end
    w("f32v offset = ${TEXT};", { TEXT = table.concat(terms, " + ") })
    sum = " + offset * sums[r]"
  end
  local text = "as_float(part[r][p])" .. factor .. sum
  if v.ROUNDED and v.ROUNDED.group > 0 then text = ("scales[r] * (%s)"):format(text) end
  w("for (int r = 0; r < R; r++)\n  acc[r][p] += ${TEXT};", { TEXT = text })
  w.pop "}"
end

-- Before a step of a group, where a sum holds the products of only so many: they go where there is room for all.
local function settle(w, v, step)
  if v.CHAIN and v.CHAIN < v.GROUP // v.V then
    w([[
      if (${STEP} > 0 && ${STEP} % ${CHAIN} == 0)
        for (int r = 0; r < R; r++)
          for (int p = 0; p < P; p++) part[r][p] = settle(part[r][p]);
    ]], { STEP = step })
  end
end

-- The loop over what is left of a group: its blocks and their steps, or, of a group within a record, its steps.
local function steps(w, v, read, prefetch)
  local whole = v.GROUPS == 1
  if whole then
    w "#pragma GCC unroll ${UNROLL}"
    w.push "for (int b = 0; b < KR / KB; b++) {"
    if prefetch then w(prefetch) end
  end
  w("#pragma GCC unroll ${TIMES}\n${LOOP}", { TIMES = unrolled(v, whole and v.STEPS or v.GROUP // v.V),
    LOOP = whole and "for (int t = 0; t < STEPS; t++) {" or "for (int i = 0; i < GROUP / V; i++) {" })
  w.push()
  if not whole then w "const int b = (s * (GROUP / V) + i) / STEPS, t = (s * (GROUP / V) + i) % STEPS;" end
  settle(w, v, whole and "(b * STEPS + t)" or "i")
  w([[
    weight_t weight[P];
    for (int p = 0; p < P; p++) weight[p] = ${READ};
    #pragma GCC unroll 4
    for (int j = 0; j < V; j += AT_ONCE)
    #pragma GCC unroll 16
      for (int r = 0; r < R; r++)
    #pragma GCC unroll 16
        for (int p = 0; p < P; p++) part[r][p] = multiply(part[r][p], weight[p], x + r * GROUP + ${AT}, j);
  ]], { READ = read, AT = whole and "b * KB + t * V" or "i * V" })
  w.pop "}"
  if whole then w.pop "}" end
end

-- What the step before left for a tile, by the names that the loops have for it: { name, function, type }.
local function left(v)
  local out = { { "x", "x_of", v.FILLED } }
  if v.ADDED ~= 0 then out[#out + 1] = { "starts", "starts_of", "int32_t" } end
  if v.sums then out[#out + 1] = { "sums", "sums_of", "float" } end
  if v.ROUNDED and v.ROUNDED.group > 0 then out[#out + 1] = { "scales", "scales_of", "float" } end
  return out
end

local function first_group(v)
  local out = {}
  for i, n in ipairs(left(v)) do
    out[i] = ("const %s *%s = %s(a) + place(a, row, 0)%s;"):format(n[3], n[1], n[2], n[1] == "x" and " * GROUP" or "")
  end
  return table.concat(out, "\n")
end

local function next_group(v)
  local out = {}
  for i, n in ipairs(left(v)) do out[i] = ("%s += MR%s"):format(n[1], n[1] == "x" and " * GROUP" or "") end
  return table.concat(out, ", ") .. ";"
end

-- The groups of a record, of which it has at least one.
local function groups(w, v, read, prefetch)
  if v.GROUPS > 1 then
    if prefetch then w(prefetch) end
    w("#pragma GCC unroll ${TIMES}", { TIMES = unrolled(v, v.KR // v.V) == v.KR // v.V and v.GROUPS or 1 })
    w.push "for (int s = 0; s < GROUPS; s++) {"
  end
  w "sum_t part[MR][P] = {0};"
  if v.ADDED ~= 0 then
    w([[
      for (int r = 0; r < R; r++) /* what was added to the codes, times the sum of x */
        for (int p = 0; p < P; p++) part[r][p] = start(starts[r]);
    ]])
  end
  steps(w, v, read, prefetch)
  finish(w, v)
  w(next_group(v))
  if v.GROUPS > 1 then w.pop "}" end
end

-- What is stored, `count` columns from n on; where columns are pairs, half as many.
local single = [[
const int64_t n = panel * NR + p * LANES, count = a->n - n;
if (count > 0) store((%s *)a->y + %s * a->ldy + n, %s, count);]]
local paired = [[
const int64_t n = panel * NR + p * LANES, count = a->n - n < LANES ? (a->n - n) / 2 : LANES / 2;
if (count > 0) store((%s *)a->y + %s * a->ldy + n / 2, %s, count);]]

-- tile(): `read` is the expression that gives the weights of (b, t, p); `record` walks the panel either way.
function tile.tile(w, v, read, prefetch)
  w([[
    /* R rows from `row` on by the columns of one panel. */
    fn void tile(const struct args *a, ${SCRATCH}int64_t panel, int64_t row, const int R) {
      const int64_t records = (a->k + KR - 1) / KR;
      const uint8_t *record = a->w + panel * records * RECORD;
      ${PLANES}
      ${FIRST_GROUP}
      ${SUMS}

      for (int64_t g = 0; g < records; g++, record += RECORD) {
  ]], { SCRATCH = v.scratch and "const weight_t *scratch, " or "", PLANES = plane_sections(v),
    FIRST_GROUP = first_group(v), SUMS = v.isa.sums or "f32v acc[MR][P] = {0};" })
  w.push() w.push()
  groups(w, v, read, prefetch)
  w.pop "}"
  w.blank()
  local gated = v.problem.gated
  local scale_at = v.ROUNDED and x.row_of_scales or x.row_of_x
  local sum = "acc[r][p]" .. (v.FACTOR and " * " .. v.FACTOR:format(scale_at(v, "row + r")) or "")
  local row = v.problem.experts and x.row_of_y(v, "row + r")
  w([[
    for (int r = 0; r < R && row + r < a->m; r++)
      for (int p = 0; p < P; p++) {
        ${STORE}
      }
  ]], { STORE = (gated and paired or single):format(v.YT, row or "(row + r)", epilogue.any(v)
    and ("epilogue(a, %s, %s, n%s, count)"):format(sum, row or "row + r", gated and " / 2" or "") or sum) })
  w.pop "}"
  w.blank()
end

-- The entry: panels begin .. end - 1. `each_panel` writes what comes before a panel's tiles.
function tile.entry(w, v, each_panel)
  local call = v.scratch and "scratch, " or ""
  w "__attribute__((visibility(\"default\")))"
  w.push "void ${entry}(const struct args *a, int64_t begin, int64_t end, int32_t thread) {"
  if v.scratch then
    w([[
      const int64_t shared_bytes = ((uint8_t *)(${END}) - (uint8_t *)a->scratch + 63) / 64 * 64;
      const int64_t scratch_bytes = (a->k + KR - 1) / KR * (KR / V) * P * (int64_t)sizeof(weight_t);
      weight_t *scratch = (weight_t *)((uint8_t *)a->scratch + shared_bytes + thread * scratch_bytes);
    ]], { END = x.ends(v) })
  else w "(void)thread;" end
  w.push("for (int64_t panel = begin; panel < end; panel++)${BRACE}", { BRACE = each_panel and " {" or "" })
  if each_panel then each_panel(w, v) end
  w.push "for (int64_t row = 0; row < a->m; row += MR)"
  if v.MR > 1 then
    w("if (a->m - row > MR / 2) tile(a, ${CALL}panel, row, MR);\nelse tile(a, ${CALL}panel, row, MR / 2);",
      { CALL = call })
  else
    w("tile(a, ${CALL}panel, row, MR);", { CALL = call })
  end
  w.pop()
  w.pop(each_panel and "}")
  w.pop "}"
end

return tile
