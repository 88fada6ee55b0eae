-- cuda_rows.lua - buffers of a stack of experts, whose rows of X lie anywhere: the producer's warpgroup copies them.
--
--   X        by cp.async, 16 bytes a thread, to where a tensor map would put them (cuda_x). Which row of X each token
--            has, stands in shared memory, behind the barriers. Up to two tiles are under way, and at most two fewer
--            than there are buffers: one of these is free when the tile behind its own is multiplied. A tile is handed
--            on when its copies have come, and wgmma may see them
--   W        by bulk copies, RUN bytes each, since no tensor map says where an expert begins

local schedule = use "kernels/common/cuda_schedule"
local rows = {}

local function lag(v) return math.min(2, v.STAGES - 2) end

-- Bytes behind the barriers.
function rows.bytes(v) return v.problem.experts and v.BM * 4 or 0 end

-- Records of an expert; beyond the padded N come the last again.
rows.RECORDS = [[
for (int i = 0; i < BN / 16; i++)
  copy_bulk(to + W_AT + i * RUN, t.w + min(t.n0 / 16 + i, t.n_padded / 16 - 1) * t.run_stride + (i64)tile * RUN, RUN,
            full);]]

local function copy(w, threads)
  w([[
    /* Begin to copy X of a tile; beyond M and K zeros. `row`: of X, of each token; below 0: none. */
    fn void copy_x(const task &t, const int *row, u32 to, int k0) {
      const int piece = threadIdx.x % (BK / ${PIECE}), k = k0 + piece * ${PIECE};
      const int bytes = min(max(t.k - k, 0) * ${X_SIZE}, 16);
    #pragma unroll 4
      for (int i = (threadIdx.x - THREADS) / (BK / ${PIECE}); i < BM; i += ${PRODUCERS} / (BK / ${PIECE})) {
        const int from = row[i], there = from < 0 ? 0 : bytes;
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                     :: "r"(to + place_of_x(i, piece * 16)), "l"(there ? t.x + (i64)from * t.ldx + k : t.x), "r"(there)
                     : "memory");
      }
    }
  ]], { PRODUCERS = threads })
  w.blank()
end

-- produce(), as in cuda_producer, for so many threads; `bytes`: of a tile's planes.
function rows.produce(w, v, bytes, threads)
  copy(w, threads)
  w([[
    /* Copies of the tile before the last `n` have come: a buffer is full. */
    template <int n> fn void hand_on(u32 full) {
      copies_wait<n>();
      writes_for_products();
      producers_meet();
      if (threadIdx.x == THREADS) barrier_arrive(full);
    }

    static_assert(STAGES >= ${LAG} + 2, "a buffer is free when the tile behind its own is multiplied");

    /* Fill buffers with tiles begin .. end - 1. Are rows of X `aligned`? */
    fn void produce(const task &t, bool aligned, int *row, u8 *memory, u32 base, const barriers &b,
                    int begin, int end) {
      u32 parity = 1;
      int s = 0;
      for (int i = threadIdx.x - THREADS; i < BM; i += ${PRODUCERS}) row[i] = t.m0 + i < t.m ? ${ROW} : -1;
      producers_meet();
    #pragma unroll 1
      for (int tile = begin; tile < end; tile++) {
        const u32 to = base + s * STAGE;
        barrier_wait(b.empty + s * 8, parity);
        if (threadIdx.x == THREADS) {
          barrier_expect(b.full + s * 8, W_BYTES + ${PLANES});
          ask_for_w(t, to, b.full + s * 8, tile);
        }
        if (aligned) copy_x(t, row, to, tile * BK);
        else copy_x_by_words(t, memory + s * STAGE, tile * BK);
        copies_commit();
        if (tile - begin >= ${LAG}) hand_on<${LAG}>(b.full + (s + STAGES - ${LAG}) % STAGES * 8);
        if (++s == STAGES) s = 0, parity ^= 1;
      }
    #pragma unroll 1
      for (int left = min(end - begin, ${LAG}); left > 0; left--)
        hand_on<0>(b.full + (s + STAGES - left) % STAGES * 8);
    }
  ]], { PLANES = bytes, PRODUCERS = threads, LAG = lag(v), ROW = schedule.row_of_x(v, "t.m0 + i") })
  w.blank()
end

return rows
