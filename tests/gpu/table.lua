-- table.lua - the results of a folder as one short table.
--
--     quernel run tests/gpu/table.lua FOLDER
--
-- Ratios are theirs over ours: above 1 we are faster. The share is of the bandwidth of a copy, measured in the same run;
-- a kernel that only reads can pass it a little.

local q = require "quernel"
local folder = arg[1]

-- Rows of FOLDER/NAME by the names in its first line; none if there is no such file.
local function read(name)
  local file, rows, names = io.open(folder .. "/" .. name), {}, nil
  for line in file and file:lines() or function() end do
    local fields = {}
    for field in (line .. ","):gmatch "([^,]*)," do fields[#fields + 1] = field end
    if not names then
      names = fields
    else
      local row = {}
      for i, key in ipairs(names) do row[key] = tonumber(fields[i]) or fields[i] end
      rows[#rows + 1] = row
    end
  end
  if file then file:close() end
  return rows
end

local function key(n, k, m) return ("%d %d %d"):format(n, k, m) end

local cublas, int4pack, torch, triton, ceiling = {}, {}, {}, {}, {}
for _, r in ipairs(read "ceilings.csv") do
  if r.what == "cublas" then cublas[key(r.n, r.k, r.m)] = r.us else ceiling[r.what] = ceiling[r.what] or r end
end
for _, r in ipairs(read "peers.csv") do
  local into = ({ ["torch f16"] = torch, int4pack = int4pack, triton = triton })[r.peer]
  if into then into[key(r.n, r.k, r.m)] = r.us end
end

local function ratio(theirs, ours) return theirs and ("%.2f"):format(theirs / ours) or "-" end

local copy = ceiling.copy and ceiling.copy.rate
for _, what in ipairs { "copy", "stream of 256 MiB", "dense rate", "empty kernel", "empty kernel in a graph" } do
  local r = ceiling[what]
  if r then print(("%-24s %8.1f %s"):format(what, r.rate, r.unit)) end
end
local rows = { { "problem", "M", "us", "GB/s", "of copy", "cuBLAS", "int4pack", "Triton" } }
local tuned = read "tune.csv"
table.sort(tuned, function(a, b)
  if a.problem ~= b.problem then return a.problem < b.problem end
  return a.m < b.m
end)
for _, r in ipairs(tuned) do
  local at, rate = key(r.n, r.k, r.m), r.bytes / r.us / 1e3
  local four = r.problem:find "^int4"
  rows[#rows + 1] = { r.problem, r.m, ("%.1f"):format(r.us), ("%.0f"):format(rate),
    copy and ("%.0f%%"):format(100 * rate / copy) or "-", ratio(cublas[at] or torch[at], r.us),
    ratio(four and int4pack[at], r.us), ratio(four and triton[at], r.us) }
end
q.table(rows)
if #tuned == 0 then print "nothing was tuned yet" end
