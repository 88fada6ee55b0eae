-- compare.lua - a pack beside a function of another library: does it compute the same, and how long do both take?
--
--     quernel run templates/examples/compare.lua [PACK [M]]
--
-- For each problem of the pack a weight is made up, run through the pack, dequantized, and multiplied again by
-- cblas_sgemm of OpenBLAS, called here through q.ffi. Without a pack one is tuned for a small problem first. The
-- largest difference is given as a share of the largest result.
--
-- Times are medians of calls in turn, weights warm: what fits a cache is read from it. quernel bench measures as
-- serving will see it, with cold weights on a machine that is watched.

local q = require "quernel"
local path, m = arg[1], math.tointeger(tonumber(arg[2] or 1)) or error "M: a whole number is needed"
local row_major, no_transpose, transpose = 101, 111, 112 -- enum values of cblas.h

local blas = assert(q.ffi.load "libopenblas.so.0")
local sgemm = assert(blas:func [[void cblas_sgemm(int order, int transa, int transb, int m, int n, int k, float alpha,
  const float *a, int lda, const float *b, int ldb, float beta, float *c, int ldc)]])
local set_threads = assert(blas:func "void openblas_set_num_threads(int)")

if not path then
  path = "compare.qpack"
  local result = assert(q.tune { problems = { "int4.g128:1024x1024:bf16-f32" }, m = { 1, 16 },
    progress = q.progress() })
  assert(q.pack(result, path))
end

-- Planes of a format: all codes, scales of 1 to 1/8, the middle code for zero points.
local function make_up(plan)
  local f = q.resolve(plan.format)
  local codes = q.ffi.buffer(f.bits <= 8 and "u8" or f.bits == 16 and "u16" or "u32", plan.n * plan.k)
  local one = { f16 = 0x3c00, bf16 = 0x3f80, f32 = 0x3f800000 } -- dense weights: the number 1
  codes:fill(one[f.name] or function(i) return i * 2654435761 >> 7 & (1 << f.bits) - 1 end)
  local list = { { name = "codes", data = codes } }
  for _, p in ipairs(f.planes) do
    local rows = p.rows == 0 and 1 or (plan.n + p.rows - 1) // p.rows
    local cols = p.cols == 0 and 1 or (plan.k + p.cols - 1) // p.cols
    local data = q.ffi.buffer(p.type, rows * cols)
    local whole = p.type:find "^[ui]"
    data:fill(p.name == "zero" and 1 << f.bits - 1 or function(i) return whole and 1 or 2.0 ^ -(i % 4) end)
    list[#list + 1] = { name = p.name, data = data, rows = rows, cols = cols }
  end
  return q.planes(f.name, plan.n, plan.k, list), f.name
end

-- Medians of the times of two functions, called in turn.
local function race(a, b)
  local times, clock = { {}, {} }, q.clock
  for round = 1, 21 do
    for i, fn in ipairs { a, b } do
      local start = clock()
      for _ = 1, 8 do fn() end
      times[i][round] = (clock() - start) / 8
    end
  end
  table.sort(times[1])
  table.sort(times[2])
  return times[1][11], times[2][11]
end

local pack = assert(q.open(path))
set_threads(pack:devices()[1].threads)
local rows = { { "problem", "M", "kernel", "pack us", "sgemm us", "difference" } }
for _, plan in ipairs(pack:plans()) do
  if plan.kind == "fastest" and plan.n > 0 and q.problem(plan.problem).epilogue == "" then
    local n, k = plan.n, plan.k
    local gemm, planes, format = assert(pack:bind(plan.problem)), make_up(plan)
    local weight = assert(gemm:prepack(planes))
    local w = assert(planes:dequantize(q.descriptor(format)))
    local x = q.ffi.buffer("f32", m * k):fill(function(i) return (i * 7 % 31 - 15) / 16 end)
    local y, dense = q.ffi.buffer(plan.out, m * n), q.ffi.buffer("f32", m * n)
    local call = { weight = weight, m = m, y = y, x = x }
    local x_type = q.problem(plan.problem).x
    if q.gen.types.scaled(x_type) then
      call.x, call.x_scale = x:quantize(m, k, x_type)
    elseif x_type ~= "f32" then
      call.x = x:convert(x_type)
    end
    local function run() assert(gemm:run(call)) end
    local function product() sgemm(row_major, no_transpose, transpose, m, n, k, 1, x, k, w, k, 0, dense, n) end
    run()
    product()
    local far, largest = 0.0, 0.0
    for i = 1, m * n do
      far, largest = math.max(far, math.abs(y[i] - dense[i])), math.max(largest, math.abs(dense[i]))
    end
    local ours, theirs = race(run, product)
    rows[#rows + 1] = { plan.problem, m, gemm:kernel(m), ("%.1f"):format(ours * 1e6), ("%.1f"):format(theirs * 1e6),
      ("%.1e"):format(far / largest) }
  end
end
q.table(rows)
