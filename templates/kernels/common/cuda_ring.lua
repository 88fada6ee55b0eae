-- cuda_ring.lua - tiles of K on their way: buffers of shared memory which copies fill while others are multiplied.
--
--     buffer 0        buffer 1         ...   buffer STAGES - 1
--   [X][W][planes]  [X][W][planes]         [X][W][planes]       a buffer holds a tile of K
--
--   X        as cuda_x says
--   W        the records of BN features, as they lie in memory: those of 16 features follow one another
--   planes   with groups: [group][feature]; of groups longer than a tile (KEPT) only in the first tile of each
--
-- A thread copies the same pieces of every tile. For each operand it has a cursor: where its first piece comes from,
-- how far the others are, where they go. Cursors are set once and move on by a tile. The loop over the buffers is
-- unrolled, so that an address in shared memory is a register and a constant; kept() sees to it that the register stays
-- one.
--
-- Where rows of X are not aligned to 16 bytes, or K is not a multiple of a piece, tiles go one by one through the first
-- buffer, and X comes by words.
--
-- Source: the ring of buffers of cp.async is CUTLASS' and Marlin's.

local cuda = use "kernels/common/cuda"
local x = use "kernels/common/cuda_x"
local schedule = use "kernels/common/cuda_schedule"
local ring = {}

-- What lies in a buffer, for the rules of a family, too; of the parameters BM, BN, BK, WN, WK, STAGES:
--
--   THREADS, X_SIZE                  of a CTA; bytes of an element of X
--   X_BYTES, W_BYTES, STAGE          in a buffer: X, W, all
--   staged, by_name                  planes that lie in a buffer
function ring.sizes(v)
  local s = { THREADS = 32 * v.WN * v.WK, X_SIZE = types.all[v.act].bytes, staged = {}, by_name = {} }
  s.X_BYTES, s.W_BYTES = v.BM * v.BK * s.X_SIZE, v.BN * v.BK * v.format.bits // 8
  s.STAGE = s.X_BYTES + s.W_BYTES
  for _, plane in ipairs(v.format.planes) do
    local p = cuda.fragment.stored(plane)
    if p.cols > 0 then
      p.place, p.groups = p.name:upper() .. "_AT", math.max(1, v.BK // p.cols) -- where it lies in a buffer, sets
      p.bytes = p.groups * v.BN // p.rows * p.per * p.size
      s.staged[#s.staged + 1], s.by_name[p.name] = p, p
      s.STAGE = s.STAGE + p.bytes
    end
  end
  return s
end

-- RUN: bytes of records that lie together in a tile.
function ring.derive(v)
  x.derive(v, v.BK)
  v.RUN = v.BK // 64 * v.RECORD
end

-- Constants that say where everything lies in a buffer, and its size, a multiple of v.ALIGN where there is one.
function ring.places(v)
  local lines, size = { "W_AT = X_BYTES," }, "X_BYTES + W_BYTES"
  for _, p in ipairs(v.staged) do
    lines[#lines + 1] = ("%s = %s,"):format(p.place, size)
    size = ("%s + %d"):format(p.place, p.bytes)
  end
  if (v.SUMS_BYTES or 0) > 0 then
    lines[#lines + 1] = ("SUMS_AT = %s,"):format(size)
    size = ("SUMS_AT + %d"):format(v.SUMS_BYTES)
  end
  if v.ALIGN then size = ("(%s + %d) / %d * %d"):format(size, v.ALIGN - 1, v.ALIGN, v.ALIGN) end
  lines[#lines + 1] = ("STAGE = %s, /* bytes of a buffer */"):format(size)
  return table.concat(lines, "\n")
end

-- ---- PTX ------------------------------------------------------------------------------------------------------------

function ring.ptx(w)
  w [[
    /* x, through a shuffle with itself: the assembler, which cannot know that, keeps it in a register, where it would
     * compute it again for each tile. */
    template <class T> fn T kept(T x) { return __shfl_sync(0xffffffff, x, threadIdx.x % 32); }

    /* p += step, which the compiler would make a product of several such. */
    template <class T> fn void advance(T *&p, i64 step) { asm("add.s64 %0, %0, %1;" : "+l"(p) : "l"(step)); }
    template <class T> fn void advance(T *&p, u32 step) {
      asm("{ .reg .u32 lo, hi; mov.b64 {lo, hi}, %0; add.cc.u32 lo, lo, %1; addc.u32 hi, hi, 0; mov.b64 %0, {lo, hi}; }"
          : "+l"(p) : "r"(step));
    }

    /* Begin to copy 16 bytes to shared memory, or as many zeros. */
    fn void copy16(u32 to, const void *from, bool there) {
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                   :: "r"(to), "l"(from), "r"(there ? 16 : 0) : "memory");
    }
    fn void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
    /* Wait until at most `n` of this thread's groups of copies are under way. */
    template <int n> fn void copies_wait() { asm volatile("cp.async.wait_group %0;" :: "n"(n) : "memory"); }
  ]]
  w.blank()
end

-- ---- Cursors --------------------------------------------------------------------------------------------------------

-- Rounds in which all threads copy `count` pieces, and the condition (text) where some threads have none.
local function rounds(v, count)
  if count >= v.THREADS then return count // v.THREADS, "" end
  return 1, ("if (c.thread < %d) "):format(count)
end

-- Of plane p: features of a piece, pieces of a group.
local function pieces(v, p)
  local features = 16 // (p.size * p.per) * p.rows
  return features, v.BN // features
end

-- Are there tiles with features beyond the padded N?
local function over(v) return v.BN > cuda.fragment.TILE_N end

-- Of a stack each piece of X has a place of its own, as rows lie anywhere.
local function gathered_x(w, v)
  w([[
    #pragma unroll
    for (int j = 0; j < ${COUNT}; j++) {
      const int m = t.m0 + row + j * (THREADS / (BK / ${PIECE}));
      c.x[j] = t.x + (i64)(m < t.m ? ${ROW} : 0) * t.ldx + k0 + piece * ${PIECE};
    }
  ]], { COUNT = rounds(v, v.X_BYTES // 16), ROW = schedule.row_of_x(v, "m") })
end

-- Has plane p a count of its own of what is left of its group?
local function counts(v, p) return p.cols > v.BK and not (v.KEPT and p.cols == v.GROUP) end

-- The cursor of plane p.
local function first_plane(w, v, p)
  local features, across = pieces(v, p)
  w([[
    const int ${NAME}_feature = t.n0 + thread % ${ACROSS} * ${FEATURES};
    const i64 ${NAME}_group = t.n_padded / ${FEATURES} * 16; /* bytes */
    c.${NAME}_features = t.n_padded - ${NAME}_feature${LEFT};
    c.${NAME} = t.${NAME}_at + (k0 / ${COLS} + thread / ${ACROSS}) * ${NAME}_group;
    c.${NAME} += ${NAME}_feature / ${FEATURES} * 16;
    c.${NAME}_step = kept(${NAME}_group * ${STEP});
    c.${NAME}_to = kept(base + ${PLACE} + thread * 16);
  ]], { NAME = p.name, COLS = p.cols, ACROSS = across, FEATURES = features, PLACE = p.place,
    LEFT = counts(v, p) and (", c.%s_left = %d - k0 %% %d"):format(p.name, p.cols, p.cols) or "",
    STEP = p.groups // rounds(v, p.groups * across) })
end

function ring.cursors(w, v)
  local experts = v.problem.experts
  if v.KEPT then
    w([[
      /* Is the tile behind one that had so much of k left of its group the first of the next? */
      fn bool group_ends(int &left) { return (left -= BK) ? false : (left = ${GROUP}, true); }
    ]], { GROUP = v.GROUP })
    w.blank()
  end
  w "/* Of a thread: NAME its first piece, NAME_step how far the next is, NAME_to where they go. */"
  w.push "struct cursors {"
  w([[
    const ${XT} *x${PIECES};
    const u8 *w;
    i64 ${X_STEP}w_step;
    u32 thread, x_to, w_to;
    int rows, columns, features; /* from the first piece on, of X, of X, of W */
  ]], { PIECES = experts and ("[%d]"):format(rounds(v, v.X_BYTES // 16)) or "", X_STEP = experts and "" or "x_step, " })
  if v.KEPT then w "bool fresh; /* does the next tile begin a group, or this CTA's part of K? */\nint left; /* of it */"
  end
  for _, p in ipairs(v.staged) do
    w("const u8 *${NAME};\ni64 ${NAME}_step;\nu32 ${NAME}_to;\nint ${NAME}_features${LEFT}",
      { NAME = p.name, LEFT = counts(v, p) and (", %s_left; /* of its group */"):format(p.name) or ";" })
  end
  w.pop "};"
  w.blank()
  w([[
    fn cursors first_tile(const task &t, u32 base, int tile) {
      const int thread = threadIdx.x, warp = thread / 32, k0 = tile * BK;
      const int row = thread / (BK / ${PIECE}), piece = thread % (BK / ${PIECE});
      cursors c;
      c.thread = kept(thread);
      c.rows = t.m - t.m0 - row, c.columns = t.k - k0 - piece * ${PIECE};
  ]])
  w.push()
  if experts then gathered_x(w, v)
  else
    w [[
      c.x = t.x + (i64)(t.m0 + row) * t.ldx + k0 + piece * ${PIECE};
      c.x_step = kept((i64)t.ldx * (THREADS / (BK / ${PIECE}) * ${X_SIZE})); /* bytes, as all steps */
    ]]
  end
  w [[
    c.x_to = kept(base + place_of_x(row, piece * 16));
    c.features = t.n_padded - t.n0 - warp * 16;
    c.w = t.w + (t.n0 / 16 + warp) * t.run_stride + (i64)tile * RUN + thread % 32 * 16;
    c.w_step = kept(t.run_stride * (THREADS / 32));
    c.w_to = kept(base + W_AT + warp * RUN + thread % 32 * 16);
  ]]
  if v.KEPT then w("c.fresh = true, c.left = ${GROUP} - k0 % ${GROUP};", { GROUP = v.GROUP }) end
  for _, p in ipairs(v.staged) do first_plane(w, v, p) end
  w "return c;"
  w.pop "}"
  w.blank()
end

-- ---- Copies ---------------------------------------------------------------------------------------------------------

local function copy_x(w, v)
  local count, some = rounds(v, v.X_BYTES // 16)
  if v.problem.experts then
    w([[
      fn void copy_x(cursors &c, u32 buffer) {
        enum { ROWS = THREADS / (BK / ${PIECE}) }; /* between a thread's pieces */
      #pragma unroll
        for (int j = 0; j < ${COUNT}; c.x[j++] += BK)
          ${SOME}copy16(buffer + c.x_to + j * ROWS * X_ROW, c.x[j], c.columns > 0 && j * ROWS < c.rows);
        c.columns -= BK;
      }
    ]], { COUNT = count, SOME = some })
    return
  end
  w([[
    fn void copy_x(cursors &c, u32 buffer) {
      enum { ROWS = THREADS / (BK / ${PIECE}) }; /* between a thread's pieces */
      const ${XT} *from = c.x;
    #pragma unroll
      for (int j = 0; j < ${COUNT}; j++, advance(from, c.x_step))
        ${SOME}copy16(buffer + c.x_to + j * ROWS * X_ROW, from, c.columns > 0 && j * ROWS < c.rows);
      c.x += BK, c.columns -= BK;
    }
  ]], { COUNT = count, SOME = some })
end

-- A warp takes the records of sixteen features, and then those of other sixteen.
local function copy_weights(w, v)
  local runs, warps, lanes = v.BN // 16, v.THREADS // 32, v.RUN // 16
  local conditions = {}
  if runs < warps then conditions[1] = ("c.thread < %d"):format(runs * 32) end
  if lanes % 32 > 0 then
    conditions[#conditions + 1] = ("i * 32 + c.thread %% 32 < %d"):format(lanes)
  end
  w([[
    const u8 *from = c.w;
    #pragma unroll
    for (int j = 0; j < ${RUNS}; j++, advance(from, c.w_step))
    #pragma unroll
      for (int i = 0; i < ${LOADS}; i++)
        ${SOME}copy16(buffer + c.w_to + j * (THREADS / 32) * RUN + i * 512, from + i * 512, ${THERE});
    c.w += RUN;
  ]], { RUNS = math.max(1, runs // warps), LOADS = (lanes + 31) // 32, SOME = #conditions > 0
    and "if (" .. table.concat(conditions, " && ") .. ") " or "",
    THERE = over(v) and "j * (THREADS / 32) * 16 < c.features" or "true" })
end

local function copy_plane(w, v, p)
  local _, across = pieces(v, p)
  local count, some = rounds(v, p.groups * across)
  w([[
    from = c.${NAME};
    #pragma unroll
    for (int j = 0; j < ${COUNT}; j++, advance(from, c.${NAME}_step))
      ${SOME}copy16(buffer + c.${NAME}_to + j * THREADS * 16, from, ${THERE});
  ]], { COUNT = count, SOME = some, NAME = p.name, THERE = over(v) and ("c.%s_features > 0"):format(p.name) or "true" })
end

-- On to the groups of the next tile.
local function advance_plane(w, v, p)
  local _, across = pieces(v, p)
  w(counts(v, p) and "if (!(c.${NAME}_left -= BK)) c.${NAME} += c.${NAME}_step, c.${NAME}_left = ${COLS};"
    or v.KEPT and "if (c.fresh) c.${NAME} += c.${NAME}_step;"
    or "c.${NAME} += ${COUNT} * c.${NAME}_step;",
    { NAME = p.name, COLS = p.cols, COUNT = rounds(v, p.groups * across) })
end

function ring.copies(w, v)
  w "/* Begin to copy X of the next tile, beyond M and K zeros. */"
  copy_x(w, v)
  w "/* Begin to copy its W and planes, beyond the padded N zeros. */"
  w.push "fn void copy_w(cursors &c, u32 buffer) {"
  copy_weights(w, v)
  if v.KEPT then w.push "if (c.fresh) {" end
  for _, p in ipairs(v.staged) do copy_plane(w, v, p) end
  if v.KEPT then
    w.pop "}"
    w "c.fresh = group_ends(c.left);"
  end
  for _, p in ipairs(v.staged) do advance_plane(w, v, p) end
  w.pop "}"
  w.blank()
end

-- The main loop: multiply(), of the family, takes what a lane reads (places) and a buffer.
function ring.loop(w, v)
  w([[
    /* Multiply `tiles` tiles from where the cursors stand. */
    fn void multiply_all(cursors &c, const places &p, int tiles, ${ACC} acc[MT][NT][4]) {
      ${KEEP}
    #pragma unroll
      for (int s = 0; s < STAGES - 1; s++) {
        if (s < tiles) copy_x(c, s * STAGE), copy_w(c, s * STAGE);
        copies_commit();
      }
    #pragma unroll 1
      for (; tiles > 0; tiles -= STAGES)
    #pragma unroll
        for (int s = 0; s < STAGES && s < tiles; s++) {
          copies_wait<STAGES - 2>();
          __syncthreads(); /* everybody's copies are here, and the buffer before this one is free */
          const int next = (s + STAGES - 1) % STAGES * STAGE;
          if (s + STAGES - 1 < tiles) copy_x(c, next), copy_w(c, next);
          copies_commit();
          multiply(p, s * STAGE, ${TERMS}acc);
          ${NEXT}
        }
      copies_wait<0>();
      __syncthreads();
    }

    /* The same for an X that is not aligned, a tile after the other. */
    fn void multiply_unaligned(const task &t, cursors &c, const places &p, u8 *buffer, int tile, int end,
                               ${ACC} acc[MT][NT][4]) {
      ${TERM}
    #pragma unroll 1
      for (; tile < end; tile++) {
        ${FRESH}
        copy_w(c, 0);
        copy_x_by_words(t, buffer, tile * BK);
        copies_commit();
        copies_wait<0>();
        __syncthreads();
        multiply(p, 0, ${TERMS}acc);
        __syncthreads();
      }
    }
  ]], { KEEP = v.KEPT and "terms term[MT];\nbool fresh = true;\nint left = c.left;" or "",
    TERMS = v.KEPT and "fresh, term, " or "", NEXT = v.KEPT and "fresh = group_ends(left);" or "",
    TERM = v.KEPT and "terms term[MT];" or "", FRESH = v.KEPT and "const bool fresh = c.fresh;" or "" })
  w.blank()
end

return ring
