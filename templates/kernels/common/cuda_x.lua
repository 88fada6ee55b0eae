-- cuda_x.lua - activations in shared memory, and the second operand of a product that is made of them.
--
--            16 bytes
--   row 0   | p0 | p1 | ... | p7 |     a block: 128 bytes of k (64 where a tile has no more) of BM rows of X; blocks
--   row 1   | p1 | p0 | ... | p6 |     follow one another along k. Piece c of row r lies at c ^ (r % 8), of rows of 64
--    ...                               bytes at c ^ (r / 2 % 4), so that eight rows' pieces c are in different banks
--
-- ldmatrix gives the operand as it is: of 16 tokens, or of 8 for two products along k. Of X of 8 bits that is
-- multiplied as f16, a lane loads the word that it needs and converts it, exactly.

local cuda = use "kernels/common/cuda"
local codes = use "kernels/common/cuda_codes"
local schedule = use "kernels/common/cuda_schedule"
local x = {}

-- `columns` of X lie in shared memory at once. Written into v:
--
--   XT, X_SIZE, PIECE   type of X; bytes of an element; elements in 16 bytes
--   X_ROW, X_BLOCK      bytes of a row of a block, of a block
--   X_STEPS             steps of 16 along k of a load
--   WAYS                addresses of X that a lane keeps; the others are as far from one of these as a constant says
function x.derive(v, columns)
  v.XT, v.X_SIZE = cuda.ctype[v.act], types.all[v.act].bytes
  v.PIECE, v.X_ROW = 16 // v.X_SIZE, math.min(128, columns * v.X_SIZE)
  v.X_BLOCK = v.BM * v.X_ROW
  v.X_STEPS = v.DEPTH * (v.BM == 8 and not v.CONVERTS and 2 or 1)
  v.WAYS = math.min(v.X_ROW, v.TK * v.X_SIZE) // 16 // (v.X_SIZE * v.X_STEPS)
end

function x.place(w, v)
  w([[
    /* Where byte `at` of a row lies. */
    fn int place_of_x(int row, int at) {
      return at / X_ROW * X_BLOCK + row * X_ROW + (at % X_ROW / 16 ^ ${SWIZZLE}) * 16 + at % 16;
    }
  ]], { SWIZZLE = v.X_ROW < 128 and "row / 2 % 4" or "row % 8" })
  w.blank()
end

-- Four bytes of a row of X: how many elements, their declaration, two to a line, and the word that they make.
local function word_of_x(v, column)
  local names = v.X_SIZE == 1 and { "a", "b", "c", "d" } or { "lo", "hi" }
  local cast, declaration, word = v.X_SIZE == 1 and "(u8)" or "", "const u32 ", {}
  for i, name in ipairs(names) do
    local at, shift = i > 1 and " + " .. i - 1 or "", (i - 1) * 8 * v.X_SIZE
    declaration = declaration .. ("%s = there && k%s < t.k ? %sfrom[%s] : 0"):format(name, at, cast, column("k" .. at))
      .. (i == #names and ";" or i % 2 == 0 and ",\n  " or ", ")
    word[i] = name .. (shift > 0 and " << " .. shift or "")
  end
  return #names, declaration, table.concat(word, " | ")
end

-- copy_x_by_words(): `columns` (text) of X from k0 on, however it is aligned; beyond M and K zeros. A family whose task
-- has `perm` takes it in that order. `thread` of `threads` that copy, texts; left out: all of the CTA.
function x.by_words(w, v, columns, thread, threads)
  local count, declaration, word = word_of_x(v, function(k) return v.PERM and ("t.perm ? t.perm[%s] : %s"):format(k, k)
    or k end)
  w([[
    /* X from k0 on, by words: for rows that are not aligned to 16 bytes${ORDER}; beyond M and K zeros. */
    fn void copy_x_by_words(const task &t, u8 *to, int k0) {
    #pragma unroll 1
      for (int i = ${THREAD}; i < BM * (${COLUMNS} / ${COUNT}); i += ${THREADS}) {
        const int row = i / (${COLUMNS} / ${COUNT}), at = i % (${COLUMNS} / ${COUNT}), k = k0 + at * ${COUNT};
        const bool there = t.m0 + row < t.m;
        const ${XT} *from = t.x + (i64)(there ? ${ROW} : 0) * t.ldx;
        ${DECLARATION}
        *(u32 *)(to + place_of_x(row, at * 4)) = ${WORD};
      }
    }
  ]], { COLUMNS = columns, COUNT = count, DECLARATION = declaration, WORD = word,
    ROW = schedule.row_of_x(v, "t.m0 + row"), ORDER = v.PERM and ", or in act-order" or "",
    THREAD = thread or "threadIdx.x", THREADS = threads or "THREADS" })
  w.blank()
end

-- ---- Operand --------------------------------------------------------------------------------------------------------

function x.ptx(w)
  w [[
    /* Four 8 x 8 matrices; lane l names row l % 8 of matrix l / 8. */
    fn void load_matrix4(u32 *b, u32 row) {
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3]) : "r"(row));
    }
  ]]
  w.blank()
end

-- Four neighbours of X, of 8 bits each, as the two registers of the operand: first and third, second and fourth.
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

function x.spread(w, v)
  if not v.CONVERTS then return end
  if cuda.float8[v.act] and v.format.map.type ~= v.act then codes.narrow(w, v, v.act) end
  if v.act == "i8" then w(spread.i8, { OFFSET = cuda.pair(v.HALF, -1152) }) else w(spread.float, { ACT = v.act }) end
  w.blank()
end

-- Sets p.x[], where the lane's rows of X lie from column `k_warp` on.
function x.places(w, v)
  local token = v.CONVERTS and "lane / 4" or v.BM > 8 and "lane / 16 * 8 + lane % 8" or "lane % 8"
  local at = v.CONVERTS and "lane % 4 * 4" or v.BM > 8 and "lane / 8 % 2 * 16" or "lane / 8 * 16"
  w([[
    #pragma unroll
    for (int i = 0; i < ${WAYS}; i++)
      p.x[i] = kept(base + place_of_x(${TOKEN}, k_warp * ${X_SIZE} + i * ${STEP} + ${AT}));
  ]], { TOKEN = token, AT = at, STEP = 16 * v.X_STEPS * v.X_SIZE })
end

-- b[j], the operands of 8 tokens that are loaded at once; the register of the one of step s.
function x.declare(w, v) w("u32 b[NT][${COUNT}];", { COUNT = 2 * v.X_STEPS // v.DEPTH }) end
function x.register(v) return v.X_STEPS > v.DEPTH and ("b[j] + s / %d %% 2 * 2"):format(v.DEPTH) or "b[j]" end

-- Load them, at a step s that begins such; `offset` (text) is added to the addresses.
function x.operand(w, v, offset)
  local block = v.X_ROW // 16 // v.X_SIZE -- steps of 16 along k
  local at = ("p.x[s / %d %% %d]%s + s / %d * X_BLOCK"):format(v.X_STEPS, v.WAYS, offset, block)
  w(v.X_STEPS > v.DEPTH and "if (s % ${STEPS} == 0) load_matrix4(b[0], ${AT});" or v.CONVERTS and [[
    #pragma unroll
    for (int j = 0; j < NT; j++) spread(shared32(${AT} + j * 8 * X_ROW), b[j]);
  ]] or [[
    #pragma unroll
    for (int j = 0; j < NT; j += 2) load_matrix4(b[j], ${AT} + j * 8 * X_ROW);
  ]], { AT = at, STEPS = v.X_STEPS })
end

return x
