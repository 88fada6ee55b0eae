-- draws.lua MODEL TEXTS CTX WINDOWS LIST RESULTS SCRATCH - what methods cost in divergence, over draws of calibration.
--
-- TEXTS: CALIBRATE,EVALUATE of a domain, domains parted by ':'. Of each line of LIST, "format method scales", the
-- linear layers are quantized after WINDOWS windows of CTX tokens of each domain, five times, spread over its text from
-- number 0, 1, 2, 3 or 4 on. Then the model is evaluated on 16 windows of every domain. RESULTS gets a line for each
-- draw; what it has already is not done again. At the end come mean and standard deviation over the draws. SCRATCH: a
-- folder for candidates.
local q = require "quernel"
local path, texts, ctx, windows, list, results, scratch = ...
ctx, windows = math.tointeger(ctx), math.tointeger(windows)
local draws, judged = 5, 16
local model = assert(q.model(path))

local domains = {}
for calibrate, evaluate in texts:gmatch "([^,:]+),([^,:]+)" do
  domains[#domains + 1] = { calibrate = calibrate, evaluate = evaluate, name = evaluate:match "([^/]*)%.%w+$" }
end

-- n windows spread over a text, from number d on.
local function spread(text, n, d)
  local o = { model = model, texts = { text }, ctx = ctx, score = "all" }
  local step = assert(q.windows(o)).n // n
  o.windows = ("%d:%d:%d"):format(d, n * step, step)
  return assert(q.windows(o))
end

local original <close> = assert(q.decoder(model, { share = 2 }))
for _, d in ipairs(domains) do
  d.windows = spread(d.evaluate, judged, 0)
  d.reference = assert(q.reference { decoder = original, windows = d.windows })
end

-- "valid 1.098036 0.001770 0.9816": cross-entropy, divergence and top-1 on each domain.
local function measure(domain, draw, format, method, scales)
  local folder, out = scratch .. "/candidate", {}
  assert(model:write_quantized(folder, { format = format, method = method, scales = scales, overwrite = true,
    windows = method ~= "rtn" and spread(domain.calibrate, windows, draw) or nil,
    choose = function(t) return t.linear and t.role ~= "head" end }))
  local d <close> = assert(q.decoder(assert(q.model(folder)), { share = 2 }))
  for i, x in ipairs(domains) do
    local e = assert(q.evaluate { decoder = d, windows = x.windows, reference = x.reference })
    out[i] = ("%s %.6f %.6f %.4f"):format(x.name, e.nll.mean, e.kl.mean, e.same_top.mean)
  end
  return table.concat(out, "\t")
end

local done, keys = {}, {}
for line in io.open(results) and io.lines(results) or function() end do
  local key, values = line:match "^([^\t]*)\t(.*)$"
  if key then done[key] = values end
end
local file <close> = assert(io.open(results, "a"))
file:setvbuf "line"
for draw = 0, draws - 1 do
  for line in io.lines(list) do
    local format, method, scales = line:match "^(%S+)%s+(%S+)%s+(%S+)"
    for _, d in ipairs(method ~= "rtn" and domains or draw == 0 and { domains[1] } or {}) do -- rtn sees no text
      local what = ("%s %s %s %s"):format(format, method, scales, d.name)
      local key = what .. " " .. draw
      if not done[key] then
        done[key] = measure(d, draw, format, method, scales)
        file:write(key, "\t", done[key], "\n")
        collectgarbage()
      end
      keys[what] = keys[what] or {}
      if #keys[what] == 0 then keys[#keys + 1] = what end
      table.insert(keys[what], done[key])
    end
  end
end

local rows = { { "format", "method", "scales", "calibrated on", "draws" } }
for _, d in ipairs(domains) do table.insert(rows[1], "KL on " .. d.name) end
for _, what in ipairs(keys) do
  local row = {}
  for word in what:gmatch "%S+" do row[#row + 1] = word end
  row[#row + 1] = #keys[what]
  for _, d in ipairs(domains) do
    local sum, squares, n = 0, 0, #keys[what]
    for _, values in ipairs(keys[what]) do
      local kl = tonumber(("\t" .. values):match("\t" .. d.name .. " %S+ (%S+)"))
      sum, squares = sum + kl, squares + kl * kl
    end
    local mean = sum / n
    row[#row + 1] = ("%.6f"):format(mean)
      .. (n > 1 and (" ± %.6f"):format(math.sqrt(math.max(0, squares - n * mean * mean) / (n - 1))) or "")
  end
  rows[#rows + 1] = row
end
q.table(rows)
