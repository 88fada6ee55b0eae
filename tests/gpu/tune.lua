-- tune.lua - tune one problem, time its pack again, and put the times into a file of rows.
--
--     quernel run tests/gpu/tune.lua PROBLEM DEVICE SECONDS FOLDER
--
-- FOLDER/tune.csv gets one row for each M, in place of earlier ones of the problem. What was measured is kept in the
-- store ($QUERNEL_CACHE), so that a run that was cut off goes on where it was.

local q = require "quernel"
local problem, device, budget, folder = table.unpack(arg)
local header = "problem,n,k,m,variant,bytes,us,dense_us"

local function read_others(path)
  local kept = {}
  for line in io.lines(path) do
    if line ~= header and line:sub(1, #problem + 1) ~= problem .. "," then kept[#kept + 1] = line end
  end
  return kept
end

local m = { 1, 16, 64, 256, 1024 }
local pack = os.tmpname()
local result = assert(q.tune { problems = { problem }, m = m, device = device, effort = "normal",
  budget = tonumber(budget), progress = q.progress() })
assert(q.pack(result, pack))
local times = assert(assert(q.open(pack, { device = device })):bench { m = m })
os.remove(pack)

local path = folder .. "/tune.csv"
local known = io.open(path)
local rows = known and read_others(path) or {}
if known then known:close() end
for _, t in ipairs(times) do
  local n, k = t.problem:match ":(%d+)x(%d+):"
  rows[#rows + 1] = ("%s,%s,%s,%d,%s,%d,%.3f,%.3f"):format(problem, n, k, t.m, t.variant, t.bytes, t.seconds * 1e6,
    (t.dense_seconds or 0) * 1e6)
end
table.sort(rows)
local out = assert(io.open(path, "w"))
out:write(header, "\n", table.concat(rows, "\n"), "\n")
assert(out:close())
