-- cuda_roles.lua - what the warpgroups of a CTA do: one fills buffers (cuda_producer), two multiply (cuda_warpgroup).
-- They do it for one tile, or for one part of the work after the other (v.STREAM, cuda_schedule).
--
-- Registers: the CTA begins with 168 a thread; the producer keeps 40, so that consumers may have 232.
--
-- Of one tile, sums for Y take the place of the buffers. Of many, they have a place of their own and go to Y by rounds
-- of ROUND tokens, so that buffers fill meanwhile.

local cuda = use "kernels/common/cuda"
local producer = use "kernels/common/cuda_producer"
local x_sums = use "kernels/common/cuda_x_sums"
local reduce = use "kernels/common/cuda_reduce"
local roles = {}

local REGISTERS = { producer = 40, consumer = 232 } -- of a thread

local begin = [[
  const u32 base = kept(shared_address(memory));
  const barriers b = ring_barriers(base);
  ring_begin(b);
]]

local one_tile = [[
  if (threadIdx.x >= THREADS) {
    fewer_registers<${FEW}>();
    ${PRODUCE}
    return;
  }
  more_registers<${MANY}>();
  const places p = lane_places(t, base);
  ${ACC} acc[MT][NT][4]${ZERO};
  consume(p, base, b, end - begin, acc${BEGIN});
  ${NOTHING}
  wait_for_grid();
  let_next_begin();
  ${MEET} /* those that are left */
  float *out = (float *)memory;
  gather(p, out, acc);
  ${COMBINE}
  store(t, out, y, ${ARGS}ldy);
]]

local many_parts = [[
  part now;
  turn next = {0, threadIdx.x >= THREADS};
  if (threadIdx.x >= THREADS) {
    fewer_registers<${FEW}>();
    for (int i = 0; part_of(t, i, now); i++) {
      go_to(t, now.tile);
      ${PRODUCE}
    }
    return;
  }
  more_registers<${MANY}>();
  float *out = (float *)(memory + OUT_AT);
  u32 &arrived = ${ARRIVED};
  wait_for_grid();
  let_next_begin();
  #pragma unroll 1
  for (int i = 0; part_of(t, i, now); i++) {
    go_to(t, now.tile);
    const places p = lane_places(t, base);
    ${ACC} acc[MT][NT][4]${ZERO};
    consume(p, base, b, now.end - now.begin, acc${BEGIN}, next);
    ${COMBINE}
  #pragma unroll
    for (int j = 0; j < NT; j += ROUND / 8, t.m0 += ROUND) {
      gather(p, out, acc, j);
      store(t, out, y, ${ARGS}ldy);
      consumers_meet();
    }
  }
]]

-- The rest of an entry, whose task t and, of one tile, begin and end are there.
function roles.run(w, v)
  local first, last = v.STREAM and "now.begin" or "begin", v.STREAM and "now.end" or "end"
  w(begin)
  w(v.STREAM and many_parts or one_tile, { FEW = REGISTERS.producer, MANY = REGISTERS.consumer,
    PRODUCE = producer.call(v, first, last), BEGIN = x_sums.begin(v, first), COMBINE = reduce.call(v),
    ARGS = cuda.extra_names(v), MEET = v.TOGETHER > 1 and "cluster_meet();" or "__syncthreads();",
    NOTHING = v.SPLIT > 1 and not v.FLUSH and "if (begin >= end) clear(acc); /* K is too short for this part */" or "",
    ZERO = v.FLUSH and " = {}" or "" })
end

return roles
