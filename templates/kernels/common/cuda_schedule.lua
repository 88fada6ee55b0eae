-- cuda_schedule.lua - which part of Y, and of K, a CTA works on: struct task, and the lines that set it.
--
--   blockIdx.x   tile of BM tokens x BN features. Tiles go by bands of 16 along M, in a band column by column: those
--                that run at the same time share weights, and X, in L2
--   blockIdx.y   part of K, in tiles of BK: begin .. end - 1 of SPLIT parts

local planes = use "kernels/common/cuda_planes"
local schedule = {}

local BAND = 16 -- with 132 multiprocessors 16 x 8 tiles run at once

function schedule.task(w, v)
  w([[
    struct task { /* what this CTA works on */
      const ${XT} *x;
      const u8 *w;
      ${PERM}
      ${MEMBERS}
      int m0, n0, m, n, k, ldx;
      int n_padded;
      i64 run_stride; /* bytes between records of sixteen features and the next */
    };
  ]], { MEMBERS = planes.members(v),
    PERM = v.PERM and "const int *perm; /* NULL: X is in the order of the columns of W */" or "" })
  w.blank()
end

function schedule.begin(w, v)
  w([[
    const int band = blockIdx.x / (${BAND} * ((n + BN - 1) / BN)), at = blockIdx.x % (${BAND} * ((n + BN - 1) / BN));
    const int rows = min((m + BM - 1) / BM - band * ${BAND}, ${BAND}); /* of tiles */
    task t = {x, w${PERM}};
    t.m0 = (band * ${BAND} + at % rows) * BM, t.n0 = at / rows * BN;
    t.m = m, t.n = n, t.k = k, t.ldx = ldx;
    t.n_padded = (n + ${TILE_N} - 1) / ${TILE_N} * ${TILE_N};
    const int k_padded = (k + ${TILE_K} - 1) / ${TILE_K} * ${TILE_K};
    t.run_stride = (i64)(k_padded / 64) * RECORD;
    ${POINTERS}
    const int tiles = (k + BK - 1) / BK, share = (tiles + SPLIT - 1) / SPLIT;
    const int begin = blockIdx.y * share, end = min(begin + share, tiles);
  ]], { TILE_N = v.layout.tile[1], TILE_K = v.layout.tile[2], BAND = BAND, POINTERS = planes.pointers(v),
    PERM = v.PERM and ", perm" or "" })
end

function schedule.grid(v) return { ceildiv(M, v.BM) * ceildiv(N, v.BN), v.SPLIT } end

return schedule
