-- cuda_stream.lua - records of W on their way from memory straight to the registers of a lane, and no barrier between.
--
--   records of the warp   | r | r+1 | r+2 | r+3 | r+4 | ...
--                           ^---- UNROLL ----^    as soon as r is multiplied, r + UNROLL is asked for in its place
--
-- Planes are asked for as early as codes: a lane has those of its UNROLL records, as they are stored. Those of a whole
-- row come once. Behind the last record nothing is asked for: there X is zero, and the codes are what they were.

local codes = use "kernels/common/cuda_codes"
local planes = use "kernels/common/cuda_planes"
local x = use "kernels/common/cuda_x"
local product = use "kernels/common/cuda_product"
local stream = {}

-- Sets of plane p, of groups that lie side by side, that a lane has under way.
local function sets(v, p) return p.cols > 0 and math.max(1, v.TK // p.cols) or 1 end

-- Planes that are met in the loop: which of them change in it.
local function moving(v)
  local out = {}
  for _, p in ipairs(planes.met(v)) do if p.cols > 0 then out[#out + 1] = p end end
  return out
end

function stream.places(w, v)
  w.push "struct places { /* of a lane: where what comes next is, and what has come */"
  w "u32 x[${WAYS}];"
  product.ones(w, v)
  for _, b in ipairs(codes.loads(v)) do w("const u8 *w${BYTES};", { BYTES = b }) end
  w "u32 q[UNROLL][WORDS];\nint left; /* records behind these */"
  for _, p in ipairs(v.planes) do w("const u8 *${NAME};", { NAME = p.name }) end
  for _, p in ipairs(planes.met(v)) do
    local loads, _, type = planes.loads(p)
    w("${TYPE} ${NAME}_raw[${COUNT}];", { TYPE = type, NAME = p.name, COUNT = sets(v, p) * loads })
  end
  for _, p in ipairs(moving(v)) do w("u32 ${NAME}_step;\nint ${NAME}_left; /* of its group */", { NAME = p.name }) end
  w.pop "};"
  w.blank()
end

-- Ask for set `e` (text) of plane p where record `record` (text) is there, and go on to the next.
local function ask(v, p, e, record)
  local lines, loads, bytes = {}, planes.loads(p)
  for i = 0, loads - 1 do
    lines[#lines + 1] = ("memory%d(p.%s%s, p.%s_raw[%s], %s);"):format(bytes, p.name,
      i > 0 and " + " .. i * bytes or "", p.name, loads > 1 and ("%s * %d + %d"):format(e, loads, i) or e, record)
  end
  if p.cols > 0 and p.cols <= v.TK then
    lines[#lines + 1] = ("advance(p.%s, p.%s_step);"):format(p.name, p.name)
  end
  return table.concat(lines, "\n")
end

function stream.begin(w, v)
  w([[
    /* Ask for the first of `records` records from k0 on; x is where X of k0 lies. */
    fn places first_records(const task &t, u32 base, int k_warp, int k0, int records) {
      const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
      const int feature = min(t.n0 + warp % WN * 16, t.n_padded - 16);
      const u8 *w = t.w + feature / 16 * t.run_stride + (i64)(k0 / 64) * RECORD;
      places p = {};
      p.left = records - UNROLL;
  ]])
  w.push()
  x.places(w, v)
  product.set_ones(w, v)
  for _, b in ipairs(codes.loads(v)) do w("p.w${BYTES} = w + lane * ${BYTES};", { BYTES = b }) end
  w [[
    #pragma unroll
    for (int u = 0; u < UNROLL; u++)
      load_codes(p, u * RECORD, p.q[u], u < records);
  ]]
  for _, p in ipairs(v.planes) do
    local at = planes.feature(p, "feature", "lane / 4 * 2")
    local pitch = ("t.n_padded%s"):format(p.rows == 16 and " / 16" or "") .. (p.per > 1 and " * " .. p.per or "")
    if p.cols > 0 then at = ("(i64)(k0 / %d) * (%s) + %s"):format(p.cols, pitch, at) end
    w("p.${NAME} = ${AT};", { NAME = p.name, AT = p.rows == 0 and ("t.%s_at"):format(p.name)
      or planes.element(p, ("t.%s_at"):format(p.name), at) })
    if p.cols > 0 then
      w("p.${NAME}_step = kept((u32)(${PITCH}) * ${SIZE}), p.${NAME}_left = ${COLS} - k0 % ${COLS};",
        { NAME = p.name, PITCH = pitch, SIZE = p.size, COLS = p.cols })
    end
  end
  for _, p in ipairs(planes.met(v)) do
    for e = 0, sets(v, p) - 1 do w(ask(v, p, e, ("%d < records"):format(p.cols > 0 and e * p.cols // 64 or 0))) end
  end
  w "return p;"
  w.pop "}"
  w.blank()
end

-- What has been multiplied makes room for what comes next.
local function after(v)
  local lines = { ("if (s %% 4 == %d) load_codes(p, (s / 4 + UNROLL) * RECORD, p.q[s / 4], s / 4 < p.left);"):format(
    4 - v.DEPTH) }
  for _, p in ipairs(moving(v)) do
    local steps = p.cols // 16
    if p.cols <= v.TK then
      local there = steps > 4 and ("s / %d * %d < p.left"):format(steps, steps // 4) or "s / 4 < p.left"
      lines[#lines + 1] = ("if ((s + %d) %% %d == 0) {\n  %s\n}"):format(v.DEPTH, steps,
        (ask(v, p, ("s / %d"):format(steps), there):gsub("\n", "\n  ")))
    end
  end
  if v.BM > 8 then
    lines[#lines + 1] = "if ((s + ${DEPTH}) % ${WINDOW} == 0) __syncwarp(); /* no more is begun before it */"
  end
  return table.concat(lines, "\n")
end

function stream.multiply(w, v)
  product.loop(w, v, {
    head = [[
      /* The records that a lane has, times their X; those that follow are asked for. */
      fn void multiply(places &p, ${ACC} acc[MT][NT][4]) {
    ]],
    q = "p.q[s / 4]", offset = "", after = after(v),
    raw = function(p)
      local loads = planes.loads(p)
      local set = p.cols > 0 and p.cols < v.TK and ("s / %d"):format(p.cols // 16)
      return planes.of_group(p, function(load)
        local at = set and (loads > 1 and ("%s * %d + %s"):format(set, loads, load) or set) or load
        return ("p.%s_raw[%s]"):format(p.name, at)
      end, "s")
    end,
  })
  w([[
    fn void next_records(places &p) {
    #pragma unroll
      for (int i = 0; i < ${WAYS}; i++) p.x[i] += TK * ${X_SIZE} / X_ROW * X_BLOCK;
  ]])
  w.push()
  for _, b in ipairs(codes.loads(v)) do w("p.w${BYTES} += UNROLL * RECORD;", { BYTES = b }) end
  for _, p in ipairs(moving(v)) do
    if p.cols > v.TK then
      w([[
        if (!(p.${NAME}_left -= TK)) {
          p.${NAME}_left = ${COLS}, p.${NAME} += p.${NAME}_step;
          ${ASK}
        }
      ]], { NAME = p.name, COLS = p.cols, ASK = ask(v, p, 0, "p.left > 0") })
    end
  end
  w "p.left -= UNROLL;"
  w.pop "}"
  w.blank()
end

return stream
