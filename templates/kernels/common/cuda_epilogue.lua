-- cuda_epilogue.lua - from the sums of a tile, out[token][feature] in shared memory, to Y: x_scale[m], the steps of the
-- problem's epilogue, the output type; written along n.

local cuda = use "kernels/common/cuda"
local schedule = use "kernels/common/cuda_schedule"
local epilogue = {}

function epilogue.store(w, v)
  local bytes, scaled, gated = types.all[v.out].bytes, types.scaled(v.act), v.problem.gated
  local row = v.problem.experts and "row" or "m"
  local times, count = scaled and "factor * " or "", gated and 2 or 4
  w([[
    /* ${WHAT} of a row at once, where they all exist and Y is aligned. */
    fn void store(const task &t, const float *out, ${YT} *y, ${EXTRA}int ldy) {
      struct __align__(16) four { float v[4]; };
      struct __align__(${ALIGN}) quad { ${YT} v[${COUNT}]; };
      const bool aligned = ldy % ${COUNT} == 0 && (u64)y % ${ALIGN} == 0;
      for (int i = threadIdx.x; i < ${ROUND} * BN / 4; i += THREADS) {
        const int token = i / (BN / 4), feature = i % (BN / 4) * 4, m = t.m0 + token, n = t.n0 + feature;
        if (m >= t.m || n >= t.n) continue;
        ${ROW}
        ${SCALE}
        const four from = *(const four *)(out + token * PITCH + feature);
        ${YT} *to = y + (i64)${M} * ldy + ${N};
        if (aligned && n + 4 <= t.n) {
          quad u;
    #pragma unroll
          for (int e = 0; e < ${COUNT}; e++)
            u.v[e] = output(${VALUE});
          *(quad *)to = u;
        } else
          for (int e = 0; e < ${COUNT} && ${LEFT} < t.n; e++)
            to[e] = output(${VALUE});
      }
    }
  ]], { YT = cuda.ctype[v.out], ALIGN = count * bytes, COUNT = count, N = gated and "n / 2" or "n",
    LEFT = gated and "n + 2 * e" or "n + e", WHAT = gated and "Four neighbours, which are two," or "Four neighbours",
    ROW = v.problem.experts and ("const int row = %s;"):format(schedule.row_of_y(v, "m")) or "", M = row,
    SCALE = scaled and ("const float factor = x_scale[%s];"):format(schedule.row_of_x(v, "m")) or "",
    VALUE = not gated and cuda.stored(v, times .. "from.v[e]", row, "n + e")
      or cuda.stored(v, times .. "from.v[2 * e]", row, "n / 2 + e", times .. "from.v[2 * e + 1]", "t.n / 2") })
  w.blank()
end

return epilogue
