-- compare.lua - what a pack promises for one token, beside OpenBLAS called from here.
--
--     quernel run templates/examples/compare.lua [PACK]
--
-- Without a pack one is made for a small problem. The time of a kernel is the one measured when the pack was tuned;
-- cblas_sgemv is called here, through q.ffi, on f32 weights of the same shape. Both read weights that no cache holds:
-- the matrix exists in several copies, taken in turn. The two were not measured at the same time, and nothing keeps the
-- machine quiet now, so no ratio is printed: `dense us` is the one that was timed beside the kernel; see quernel bench.

local q = require "quernel"
local common = require "lua.common"
local clock = q.native.clock
local row_major, no_transpose = 101, 111 -- enum values of cblas.h

local blas = common.check(q.ffi.load "libopenblas.so.0")
local function func(prototype) return common.check(blas:func(prototype)) end
local set_threads = func "void openblas_set_num_threads(int)"
local config = func "const char *openblas_get_config(void)"
local copy = func "void cblas_scopy(int n, const float *x, int incx, float *y, int incy)"
local sgemv = func [[void cblas_sgemv(int order, int trans, int m, int n, float alpha, const float *a, int lda,
  const float *x, int incx, float beta, float *y, int incy)]]

-- Seconds of y = W x, the median of nine rounds. N x K f32 in as many copies as fill `cold` bytes.
local function time_sgemv(n, k, cold)
  local w, x, y = {}, q.ffi.buffer("float", k):fill(function(i) return i % 13 - 6 end), q.ffi.buffer("float", n)
  for i = 1, cold // (4 * n * k) + 2 do w[i] = q.ffi.buffer("float", n * k) end
  w[1]:fill(function(i) return i % 251 - 125 end)
  for i = 2, #w do copy(n * k, w[1], 1, w[i], 1) end
  local times, at = {}, 0
  for round = 0, 9 do -- round 0 warms up
    local calls = math.max(1, (1 << 24) // (n * k))
    local start = clock()
    for _ = 1, calls do
      at = at % #w + 1
      sgemv(row_major, no_transpose, n, k, 1, w[at], k, x, 1, 0, y, 1)
    end
    times[round] = (clock() - start) / calls
  end
  table.sort(times)
  for i = 1, #w do w[i]:close() end
  return times[5]
end

local path = arg[1]
if not path then -- the last range of a plan serves every larger M; the kernel for one token needs one above it
  path = os.tmpname()
  local result = common.check(q.tune { problems = { "int4.g128:1024x1024:bf16-f32" }, m = { 1, 16 }, effort = "quick", device = "host",
    progress = common.progress(q) })
  common.check(q.pack(result, path))
end
local plans = common.check(q.open(path)):plans()
if not arg[1] then os.remove(path) end

local host = common.check(q.device "host")
set_threads(host.threads)
print(config() .. (", %d threads"):format(host.threads))
local rows, known = { { "problem", "kernel", "us when tuned", "dense us", "sgemv us now" } }, {}
for _, p in ipairs(plans) do
  if p.kind == "fastest" and p.n > 0 and p.ranges[1].m == 1 then
    local key, r = p.n .. "x" .. p.k, p.ranges[1]
    known[key] = known[key] or time_sgemv(p.n, p.k, math.max(1 << 26, math.min(4 * host.l3, 1 << 30)))
    rows[#rows + 1] = { p.problem, r.variant, ("%.1f"):format(r.seconds * 1e6), ("%.1f"):format(r.dense_seconds * 1e6),
      ("%.1f"):format(known[key] * 1e6) }
  end
end
if #rows == 1 then common.fail(path .. ": nothing in it was tuned for one token") end
common.table(rows)
