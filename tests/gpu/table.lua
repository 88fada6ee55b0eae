-- table.lua - the results of a folder as one short table.
--
--     quernel run tests/gpu/table.lua FOLDER [DEVICE]
--
-- With a device all that the store ($QUERNEL_CACHE) knows of races on it goes to FOLDER/times.csv first: a row for each
-- variant and M that was timed, or rejected. The table has the fastest of each problem and M. Ratios are theirs over
-- ours: above 1 we are faster.

local q = require "quernel"
local folder, device = table.unpack(arg)

-- ---- Files ----------------------------------------------------------------------------------------------------------

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

-- Evidence of races: "race PROBLEM HASH M=16" -> { name, seconds, reps, rejected }.
local function write_times(store)
  local rows = {}
  for _, e in ipairs(store:entries "evidence") do
    local problem, m = e.key:match "^race (%S+) %S+ M=(%d+)$"
    if problem then
      local n, k = problem:match "(%d+)x(%d+):"
      rows[#rows + 1] = ("%s,%s,%s,%s,%s,%.3f,%d,%s"):format(problem, n, k, m, e.value.name, e.value.seconds * 1e6,
        e.value.reps, (e.value.rejected or ""):gsub("[,\n]", ";"))
    end
  end
  table.sort(rows)
  if #rows == 0 then return end
  local out <close> = assert(io.open(folder .. "/times.csv", "w"))
  out:write("problem,n,k,m,variant,us,reps,rejected\n", table.concat(rows, "\n"), "\n")
end

local store = device and q.store.open(nil, device)
if store then write_times(store) end

-- ---- Table ----------------------------------------------------------------------------------------------------------

local function key(n, k, m) return ("%d %d %d"):format(n, k, m) end

local cublas, int4pack, torch, triton, ceiling, stream = {}, {}, {}, {}, {}, {}
for _, r in ipairs(read "ceilings.csv") do
  if r.what == "cublas" then cublas[key(r.n, r.k, r.m)] = r.us else ceiling[r.what] = ceiling[r.what] or r end
  local format = r.what:match "^stream of (%S+)$"
  if format then stream[("%s:%dx%d"):format(format, r.n, r.k)] = r.us end
end
for _, r in ipairs(read "peers.csv") do
  local into = ({ ["torch f16"] = torch, int4pack = int4pack, triton = triton })[r.peer]
  if into then into[key(r.n, r.k, r.m)] = r.us end
end

local best, order, rejected = {}, {}, 0
for _, r in ipairs(read "times.csv") do
  local at = r.problem .. " " .. r.m
  if r.rejected ~= "" then
    rejected = rejected + 1
  elseif r.us > 0 and (not best[at] or r.us < best[at].us) then
    if not best[at] then order[#order + 1] = at end
    best[at] = r
  end
end
table.sort(order, function(a, b)
  local x, y = best[a], best[b]
  if x.problem ~= y.problem then return x.problem < y.problem end
  return x.m < y.m
end)

local function ratio(theirs, ours) return theirs and ("%.2f"):format(theirs / ours) or "-" end

for _, what in ipairs { "copy", "stream of 256 MiB", "dense rate", "empty kernel", "empty kernel in a graph" } do
  local r = ceiling[what]
  if r then print(("%-24s %8.1f %s"):format(what, r.rate, r.unit)) end
end
local rows = { { "problem", "M", "us", "stream", "cuBLAS", "int4pack", "Triton", "variant" } }
for _, at in ipairs(order) do
  local r = best[at]
  local stack = r.problem:find ":%d+x%d+x" -- the others are of one weight
  local shape, four = not stack and key(r.n, r.k, r.m), r.problem:find "^int4"
  rows[#rows + 1] = { r.problem, r.m, ("%.1f"):format(r.us), ratio(stream[r.problem:match "^[^:]+:%d+x%d+"], r.us),
    ratio(cublas[shape] or torch[shape], r.us), ratio(four and int4pack[shape], r.us),
    ratio(four and triton[shape], r.us), (r.variant:gsub("^cuda%.([^/]+)/.*/", "%1 ")) }
end
q.table(rows)
if #order == 0 then print "nothing was timed yet" end
if rejected > 0 then print(("%d variants at one M were rejected: times.csv says why"):format(rejected)) end
