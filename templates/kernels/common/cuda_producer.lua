-- cuda_producer.lua - buffers of shared memory that one warpgroup fills while others multiply what is in them.
--
--   producer   wait(empty[s])   ask for X, W, planes of a tile -> full[s]      s = 0, 1, ... STAGES - 1, 0, ...
--   consumers  wait(full[s])    multiply                       -> empty[s]
--
-- A buffer holds what those of cuda_ring do. Its barriers count: of full[s] one arrival and the bytes that were asked
-- for; of empty[s] one arrival of each consumer warp. They lie behind the buffers. A barrier's parity says how often
-- the ring has gone round.
--
--   X        by a tensor map, 64 of k for each copy, in the order of cuda_x: its exchange of pieces is the one of 128
--            bytes, for which buffers begin at multiples of 1024. Beyond M and K come zeros. An X that a map cannot
--            describe, whose address or pitch is not a multiple of 16 bytes, is copied by words
--   W        by a tensor map of the records: RUN bytes for each 16 features; beyond the padded N come zeros
--   planes   by bulk copies. Beyond the padded N come the last 64 features again
--
--   sums     of X of eight groups, where there are some (cuda_x_sums), by a bulk copy
--
-- One thread asks for everything; all of the warpgroup copy by words.
-- Of a stack of experts they copy rows of X (cuda_rows).
--
-- The ring goes on from one part of a CTA's work to the next (v.STREAM). Where the loop over buffers is unrolled, each
-- part begins with the first: those that are left of a round pass empty.
--
-- The CTAs of a cluster have the same tokens. Of X each asks for an equal part of the rows, and all get it: a buffer is
-- empty when the consumers of all of them are done with it.
--
-- Source: PTX ISA, "cp.async.bulk", "cp.async.bulk.tensor", "mbarrier"; producer and consumers are CUTLASS'.

local cuda = use "kernels/common/cuda"
local planes = use "kernels/common/cuda_planes"
local rows = use "kernels/common/cuda_rows"
local ring = use "kernels/common/cuda_ring"
local x = use "kernels/common/cuda_x"
local x_sums = use "kernels/common/cuda_x_sums"
local producer = {}

producer.THREADS = 128
producer.BARRIERS = 256 -- bytes behind the buffers

-- As ring.sizes, and as many STAGES as the device has room for beside `apart` bytes, up to 6.
function producer.sizes(v, apart)
  local s = ring.sizes(v)
  s.ALIGN, s.SUMS_BYTES = 1024, x_sums.bytes(v)
  s.STAGE = (s.STAGE + s.SUMS_BYTES + 1023) // 1024 * 1024
  s.STAGES = math.min(6, (v.device.smem - producer.BARRIERS - apart) // s.STAGE)
  return s
end

-- BOX: elements of X along k that a copy moves, a row of a block; RUN as in ring.derive.
function producer.derive(v)
  ring.derive(v)
  v.BOX = v.X_ROW // v.X_SIZE
end

-- Arguments of the launch, and the same as declarations; of a stack none.
function producer.maps(v)
  if v.problem.experts then return {} end
  local run = v.RECORD // 8 -- elements of 8 bytes in a record
  return { { tensor_map = { operand = "x", type = v.act, dims = { K, M }, box = { v.BOX, v.BM // v.TOGETHER },
    swizzle = 128 } },
    { tensor_map = { operand = "w", type = "f64", dims = { ceildiv(K, cuda.fragment.TILE_K)
      * (cuda.fragment.TILE_K // 64 * run), ceildiv(N, cuda.fragment.TILE_N) * (cuda.fragment.TILE_N // 16) },
      box = { v.BK // 64 * run, v.BN // 16 } } } }
end
function producer.parameters(v)
  return v.problem.experts and ""
    or "const __grid_constant__ tensor_map x_map, const __grid_constant__ tensor_map w_map, "
end

-- A call of produce(), for the tiles `first` .. `last` - 1, texts.
function producer.call(v, first, last)
  local experts = v.problem.experts
  return ("produce(t, %sldx %% %d == 0 && (u64)x %% 16 == 0, %smemory, base, b, %s, %s%s);"):format(
    experts and "" or "&x_map, &w_map, ", v.PIECE,
    experts and ("(int *)(memory + BARRIERS_AT + %d), "):format(producer.BARRIERS) or v.RAW and "sums, " or "",
    first, last, v.STREAM and ", next" or "")
end

-- ---- PTX ------------------------------------------------------------------------------------------------------------

local function barriers(w)
  w [[
    struct __align__(64) tensor_map { u64 opaque[16]; };

    fn void barrier_init(u32 barrier, int arrivals) {
      asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" :: "r"(barrier), "r"(arrivals) : "memory");
    }
    fn void barrier_arrive(u32 barrier) {
      asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" :: "r"(barrier) : "memory");
    }
    /* Its phase waits for so many bytes of copies, too. */
    fn void barrier_expect(u32 barrier, int bytes) {
      asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" :: "r"(barrier), "r"(bytes) : "memory");
    }
    /* Until the phase of this parity has ended. */
    fn void barrier_wait(u32 barrier, u32 parity) {
      asm volatile("{\n.reg .pred done;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                   "@!done bra AGAIN;\n}" :: "r"(barrier), "r"(parity) : "memory");
    }
  ]]
  w.blank()
end

function producer.ptx(w, v)
  barriers(w)
  w([[
    /* Begin to copy the box at (column, row), or so many bytes. */
    fn void copy_box(u32 to, const tensor_map *map, int column, int row, u32 barrier) {
      asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                   "[%0], [%1, {%2, %3}], [%4];"
                   :: "r"(to), "l"(map), "r"(column), "r"(row), "r"(barrier) : "memory");
    }
    /* The same for all CTAs of the cluster, at the same place of each. */
    fn void copy_box_to_all(u32 to, const tensor_map *map, int column, int row, u32 barrier) {
      asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
                   ".multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;"
                   :: "r"(to), "l"(map), "r"(column), "r"(row), "r"(barrier), "h"((u16)${ALL}) : "memory");
    }
    fn u32 cluster_rank() {
      u32 r;
      asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
      return r;
    }
    /* All threads of the cluster that are left. */
    fn void cluster_meet() {
      asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
    }
    /* Arrive at the same barrier of CTA `rank`. */
    fn void barrier_arrive_at(u32 barrier, u32 rank) {
      asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
                   "mbarrier.arrive.shared::cluster.b64 _, [there];\n}"
                   :: "r"(barrier), "r"(rank) : "memory");
    }
    fn void copy_bulk(u32 to, const u8 *from, int bytes, u32 barrier) {
      asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                   :: "r"(to), "l"(from), "r"(bytes), "r"(barrier) : "memory");
    }
    /* What this thread wrote to shared memory is there for wgmma. */
    fn void writes_for_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
    /* All threads that multiply. */
    fn void consumers_meet() { asm volatile("bar.sync 2, ${CONSUMERS};" ::: "memory"); }
    /* All threads of the producer. */
    fn void producers_meet() { asm volatile("bar.sync 1, ${PRODUCERS};" ::: "memory"); }
    template <int n> fn void fewer_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" :: "n"(n)); }
    template <int n> fn void more_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" :: "n"(n)); }
  ]], { ALL = (1 << v.TOGETHER) - 1, CONSUMERS = v.THREADS })
  w.blank()
end

-- ---- The ring -------------------------------------------------------------------------------------------------------

local function ring_places(w, v)
  w([[
    struct barriers { u32 full, empty; }; /* the first of each */
    struct turn { int buffer; u32 parity; }; /* which is next, and of which parity is its phase */

    fn barriers ring_barriers(u32 base) { return {base + BARRIERS_AT, base + BARRIERS_AT + STAGES * 8}; }

    /* For all of the ${GROUP}. */
    fn void ring_begin(const barriers &b) {
      if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
          barrier_init(b.full + s * 8, 1);
          barrier_init(b.empty + s * 8, TOGETHER * THREADS / 32);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
      }
      ${MEET}
    }

    /* A warp of consumers is done with a buffer. */
    fn void ring_release(u32 empty, u32 lane) {
      ${RELEASE}
    }
  ]], { GROUP = v.TOGETHER > 1 and "cluster" or "CTA",
    MEET = v.TOGETHER > 1 and "cluster_meet();" or "__syncthreads();",
    RELEASE = v.TOGETHER > 1 and "if (lane < TOGETHER) barrier_arrive_at(empty, lane);"
      or "if (lane == 0) barrier_arrive(empty);" })
  w.blank()
end

-- The pieces of plane p: a row of each set of groups that a tile has.
local function copy_plane(w, p)
  local blocks = p.rows == 16
  w([[
    for (int group = 0; group < ${GROUPS}; group++)
      for (int n = 0; n < BN; n += across) {
        const int feature = min(t.n0 + n, t.n_padded - ${TILE_N}), at = ${AT};
        const i64 from = (i64)(tile * BK / ${COLS} + group) * ${PITCH} + ${FEATURE};
        copy_bulk(${TO}, ${FROM}, ${BYTES}, full);
      }
  ]], { GROUPS = p.groups, COLS = p.cols, TILE_N = cuda.fragment.TILE_N,
    AT = planes.feature(p, blocks and "(group * BN + n)" or "group * BN + n"),
    PITCH = (blocks and "(t.n_padded / 16)" or "t.n_padded") .. (p.per > 1 and " * " .. p.per or ""),
    FEATURE = planes.feature(p, "feature"),
    TO = planes.element(p, "to + " .. p.place, "at"), FROM = planes.element(p, ("t.%s_at"):format(p.name), "from"),
    BYTES = ("across * %d"):format(p.per * p.size) .. (blocks and " / 16" or "") })
end

-- Behind the last tile of a part: the buffers that are left of the round. Only the thread that fills them looks at
-- their barriers, whose phases may pass twice before another does.
local rest = [[
if (s) {
  for (; s < STAGES && !thread; s++) {
    barrier_wait(b.empty + s * 8, parity);
    barrier_arrive(b.full + s * 8);
  }
  s = 0, parity ^= 1;
}]]

-- ask_for_x(), produce(); `bytes`: of a tile's planes.
local function produce(w, v, bytes)
  local together = v.TOGETHER > 1
  x_sums.ask(w, v)
  w([[
    fn void ask_for_x(const task &t, const tensor_map *map, u32 to, u32 full, int tile) {
      ${PART}
      for (int at = 0; at < BK; at += ${BOX})
        ${COPY}(to + at / ${BOX} * X_BLOCK${ROWS}, map, tile * BK + at, t.m0${FIRST}, full);
    }

    /* Fill buffers with tiles begin .. end - 1. `mapped`: does x_map describe X? The first of X waits for the grid that
     * may have made it, W does not. */
    fn void produce(const task &t, const tensor_map *x_map, const tensor_map *w_map, bool mapped, ${SUMS}u8 *memory,
                    u32 base, const barriers &b, int begin, int end${TURN}) {
      const int thread = threadIdx.x - THREADS;
      if (mapped && thread) return;
      ${OWN}
    #pragma unroll 1
      for (int tile = begin; tile < end; tile++) {
        const u32 to = base + s * STAGE, full = b.full + s * 8;
        barrier_wait(b.empty + s * 8, parity);
        if (!thread) {
          barrier_expect(full, W_BYTES + ${PLANES} + (mapped ? X_BYTES : 0));
          ask_for_w(t, w_map, to, full, tile);
        }
        if (tile == begin) wait_for_grid();
        ${ASK_SUMS}
        if (mapped) ask_for_x(t, x_map, to, full, tile);
        else {
          copy_x_by_words(t, memory + s * STAGE, tile * BK);
          writes_for_products();
          producers_meet();
        }
        if (!thread) barrier_arrive(full);
        if (++s == STAGES) s = 0, parity ^= 1;
      }
      ${REST}
    }
  ]], { PLANES = bytes, SUMS = v.RAW and "const u8 *sums, " or "",
    ASK_SUMS = v.RAW and "if (!thread) ask_for_sums(t, sums, to, full, tile, tile == end - 1);" or "",
    COPY = together and "copy_box_to_all" or "copy_box",
    PART = together and "const int first = cluster_rank() * (BM / TOGETHER); /* of the rows of this CTA */" or "",
    TURN = v.STREAM and ", turn &next" or "",
    OWN = v.STREAM and "int &s = next.buffer;\nu32 &parity = next.parity;" or "u32 parity = 1;\nint s = 0;",
    REST = v.STREAM and v.UNROLL > 1 and rest or "",
    ROWS = together and " + first * X_ROW" or "", FIRST = together and " + first" or "" })
  w.blank()
end

function producer.ring(w, v)
  local bytes, experts = 0, v.problem.experts
  for _, p in ipairs(v.staged) do bytes = bytes + p.bytes end
  ring_places(w, v)
  x.by_words(w, v, "BK", "threadIdx.x - THREADS", tostring(producer.THREADS))
  w([[
    /* Ask for W and the planes of a tile. */
    fn void ask_for_w(const task &t, ${MAP}u32 to, u32 full, int tile) {
      const int across = t.n0 + BN <= t.n_padded ? BN : ${TILE_N};
      ${RECORDS}
  ]], { TILE_N = cuda.fragment.TILE_N, MAP = experts and "" or "const tensor_map *map, ",
    RECORDS = experts and rows.RECORDS or "copy_box(to + W_AT, map, tile * (RUN / 8), t.n0 / 16, full);" })
  w.push()
  for _, p in ipairs(v.staged) do copy_plane(w, p) end
  w.pop "}"
  w.blank()
  if experts then rows.produce(w, v, bytes, producer.THREADS) else produce(w, v, bytes) end
end

return producer
