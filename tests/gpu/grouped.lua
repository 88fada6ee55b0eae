-- grouped.lua - a stack of eight experts beside a loop of plain products, its own kernels' and cuBLAS'.
--
--     quernel run tests/gpu/grouped.lua DEVICE SECONDS FILE.csv
--
-- Rows go to all experts alike, so that of few rows some have none; a loop calls the others one by one, with as many
-- rows each. Chosen variants alone are tried. A device that must not be timed verifies a few of them.

local q = require "quernel"
local device, seconds, path = table.unpack(arg)
local experts, shape, types = 8, "4096x4096", ":f16-f16"
local format, each = "int4.g128:", { 1, 8, 64 } -- rows of an expert
local stack, one = format .. experts .. "x" .. shape .. types, format .. shape .. types
local timed = q.device(device).timed

local chosen = {}
for i, name in ipairs(dofile "tests/gpu/chosen.lua") do chosen[name] = timed or i == 2 end

local function tune(problem, rows, share)
  return assert(q.tune { problems = { problem }, m = rows, device = device, space = "full", check_only = not timed,
    only = function(name) return chosen[(name:gsub("^([^/]+)/.*/([^/]+)$", "%1/%2"))] end,
    dense = problem ~= stack, budget = tonumber(seconds) * share, progress = q.progress() })
end

-- What the fastest plan took at M: its point, and the kernel.
local function at(result, problem, m)
  for _, plan in ipairs(result.plans) do
    for _, range in ipairs(plan.kind == "fastest" and plan.problem == problem and plan.ranges or {}) do
      for _, point in ipairs(range.points) do if point.m == m then return point, range.variant end end
    end
  end
end

local alike, rows, met = {}, {}, {}
for e = 1, experts do alike[e] = 1 end
for i, m in ipairs(each) do
  rows[i] = m * experts
  met[i] = q.experts(alike):met(rows[i])
end
local grouped, plain = tune(stack, rows, 0.45), tune(one, each, 0.45)
print(("%d and %d kernels verified"):format(grouped.counts.verified + grouped.counts.verify_known,
  plain.counts.verified + plain.counts.verify_known))

local function us(time) return ("%.1f"):format(time * 1e6) end

local out <close> = assert(io.open(path, "w"))
local show = { { "rows", "experts met", "us", "loop us", "ratio", "cuBLAS loop us", "ratio", "kernel" } }
out:write "problem,m,met,us,loop_us,cublas_us,variant\n"
for i, m in ipairs(each) do
  local ours, variant = at(grouped, stack, rows[i])
  local theirs = at(plain, one, m)
  if ours and theirs then
    local loop, cublas = met[i] * theirs.seconds, met[i] * (theirs.dense_seconds or 0)
    out:write(("%s,%d,%d,%s,%s,%s,%s\n"):format(stack, rows[i], met[i], us(ours.seconds), us(loop), us(cublas),
      variant))
    show[#show + 1] = { rows[i], met[i], us(ours.seconds), us(loop),
      ("%.2f"):format(loop / ours.seconds), cublas > 0 and us(cublas) or "-",
      cublas > 0 and ("%.2f"):format(cublas / ours.seconds) or "-", variant }
  end
end
if #show > 1 then q.table(show) else print "nothing was timed" end
