-- report.lua - what packs know of their kernels, as numbers, as CSV, and as an HTML page (page.lua).
--
-- The numbers (report.of): { packs = { { path, name, hash, devices = { "host, AMD EPYC, 2 threads"… } }… },
-- problems = { { problem, n, k, format, act, points }… }, model = { path, tables } or nil }. A point is the time of a
-- problem at one M:
--   pack, device          numbers, of packs and of that pack's devices
--   m, variant, seconds, spread, disturbed, raced (timed alone, not in the finals), bytes (of the weight)
--   dense_seconds         of the dense product, beside it
--   bandwidth             bytes/s of plain reads, beside it
-- A table of a model is one pack's: { pack, m, act, seconds, bytes, missing (layers without a plan), rows }, its rows
-- { layers = "model.layers.*.mlp.up_proj.weight", count, problem, seconds, bytes }, times and bytes of all of them.

local common, page, plot = require "lua.common", require "lua.page", require "lua.plot"
local escape = plot.escape
local report = {}

-- ---- Numbers --------------------------------------------------------------------------------------------------------

local function device_name(d) return ("%s, %s, %d threads"):format(d.target, d.product, d.threads) end

local function collect(p, number, by_problem, problems)
  for _, plan in ipairs(p.pack:plans()) do
    for _, range in ipairs(plan.kind == "fastest" and plan.n > 0 and plan.ranges or {}) do
      for _, x in ipairs(range.points) do
        local entry = by_problem[plan.problem]
        if not entry then
          entry = { problem = plan.problem, n = plan.n, k = plan.k, format = plan.format, act = plan.act, points = {} }
          by_problem[plan.problem], problems[#problems + 1] = entry, entry
        end
        entry.points[#entry.points + 1] = { pack = number, device = plan.device, m = x.m, variant = range.variant,
          seconds = x.seconds, spread = x.spread, disturbed = x.disturbed, raced = x.raced, bytes = plan.bytes,
          dense_seconds = x.dense_seconds and x.dense_seconds > 0 and x.dense_seconds or nil,
          bandwidth = x.bandwidth and x.bandwidth > 0 and x.bandwidth or nil }
      end
    end
  end
end

-- The layers of a model by what they are called but for numbers, with the time that one pack has for them at its least
-- M. nil if it has none of them.
local function table_of(tensors, problems, number, act)
  local rows, by_name, out = {}, {}, { pack = number, act = act, seconds = 0, bytes = 0, missing = 0 }
  local function point(t)
    for _, entry in ipairs(problems) do
      if entry.format == t.format and entry.n == t.n and entry.k == t.k and entry.act == act then
        for _, x in ipairs(entry.points) do if x.pack == number then return x, entry end end
      end
    end
  end
  for _, t in ipairs(tensors) do
    local x, entry = nil, nil
    if t.linear then x, entry = point(t) end
    if x then
      local key = t.name:gsub("%d+", "*") .. entry.problem
      local row = by_name[key]
      if not row then
        row = { layers = t.name:gsub("%d+", "*"), count = 0, problem = entry.problem, seconds = 0, bytes = 0 }
        by_name[key], rows[#rows + 1] = row, row
      end
      for _, sum in ipairs { row, out } do
        sum.seconds, sum.bytes = sum.seconds + t.slices * x.seconds, sum.bytes + t.slices * x.bytes
      end
      row.count, out.m = row.count + t.slices, x.m
    elseif t.linear then out.missing = out.missing + 1 end
  end
  out.rows = rows
  return out.m and out
end

-- packs: list of { path, pack (q.open) }. model: q.model or nil.
function report.of(packs, model)
  local out, by_problem = { packs = {}, problems = {} }, {}
  for i, p in ipairs(packs) do
    local devices = {}
    for j, d in ipairs(p.pack:devices()) do devices[j] = device_name(d) end
    out.packs[i] = { path = p.path, name = p.path:match "[^/]*$", hash = p.pack:hash(), devices = devices }
    collect(p, i, by_problem, out.problems)
  end
  for _, entry in ipairs(out.problems) do
    table.sort(entry.points, function(a, b)
      if a.m ~= b.m then return a.m < b.m end
      return a.pack < b.pack or a.pack == b.pack and a.device < b.device
    end)
  end
  if not model then return out end
  out.model = { path = model.path, tables = {} }
  for i = 1, #packs do
    local acts, seen = {}, {}
    for _, entry in ipairs(out.problems) do
      if not seen[entry.act] then seen[entry.act], acts[#acts + 1] = true, entry.act end
    end
    for _, act in ipairs(acts) do
      table.insert(out.model.tables, table_of(model:tensors(), out.problems, i, act) or nil)
    end
  end
  return out
end

-- ---- CSV ------------------------------------------------------------------------------------------------------------

local function quoted(x)
  local text = tostring(x == nil and "" or x)
  return text:find '[",\n]' and '"' .. text:gsub('"', '""') .. '"' or text
end

-- A line for each point: times in seconds, rates in bytes/s.
function report.csv(r)
  local names = { "pack", "device", "problem", "m", "kernel", "seconds", "spread", "disturbed", "raced", "bytes",
    "dense_seconds", "bandwidth" }
  local lines = { table.concat(names, ",") }
  for _, entry in ipairs(r.problems) do
    for _, x in ipairs(entry.points) do
      local p, cells = r.packs[x.pack], {}
      local row = { p.path, p.devices[x.device], entry.problem, x.m, x.variant, x.seconds, x.spread, x.disturbed,
        x.raced, x.bytes, x.dense_seconds or "", x.bandwidth or "" }
      for i = 1, #names do cells[i] = quoted(row[i]) end
      lines[#lines + 1] = table.concat(cells, ",")
    end
  end
  return table.concat(lines, "\r\n") .. "\r\n"
end

-- ---- HTML -----------------------------------------------------------------------------------------------------------

-- Where a point is from: the pack, and its device where the pack has several.
local function source(r, x)
  local p = r.packs[x.pack]
  return #p.devices == 1 and p.name or ("%s, %s"):format(p.name, p.devices[x.device])
end

local function time_text(seconds)
  local unit = seconds < 1e-3 and { 1e6, "µs" } or seconds < 1 and { 1e3, "ms" } or { 1, "s" }
  return ("%.3g %s"):format(seconds * unit[1], unit[2])
end

local function title(r, x)
  return ("%s, M = %d: %s ± %.0f%%, %s"):format(source(r, x), x.m, time_text(x.seconds), 100 * (x.spread or 0),
    common.short(x.variant))
end

-- A line of our kernels for each source, then one of the dense product and one of plain reads, of the first source.
local function lines_of(r, entry)
  local out, by_source, ticks, seen = {}, {}, {}, {}
  local dense, reads = { name = "dense", class = "line", points = {} }, { name = "reads", class = "line", points = {} }
  for _, x in ipairs(entry.points) do
    local name = source(r, x)
    local s = by_source[name]
    if not s then
      s = { name = name, class = "s" .. #out % 6 + 1, points = {} }
      by_source[name], out[#out + 1] = s, s
    end
    local spread = x.seconds * (x.spread or 0)
    s.points[#s.points + 1] = { x = x.m, y = x.seconds, low = math.max(x.seconds - spread, x.seconds / 2),
      high = x.seconds + spread, title = title(r, x), doubted = common.doubted(x.spread, x.disturbed) }
    if not seen[x.m] then seen[x.m], ticks[#ticks + 1] = true, x.m end
    if s == out[1] and x.dense_seconds then table.insert(dense.points, { x = x.m, y = x.dense_seconds }) end
    if s == out[1] and x.bandwidth then table.insert(reads.points, { x = x.m, y = x.bytes / x.bandwidth }) end
  end
  if #out == 1 then out[1].name = "tuned" end
  for _, line in ipairs { dense, reads } do if #line.points > 0 then out[#out + 1] = line end end
  return out, ticks
end

local function picture(r, entry)
  local series, ticks = lines_of(r, entry)
  local svg = plot.lines { x = "M, tokens", y = "time of a call", unit = time_text, ticks = ticks, series = series }
  return ("<figure>%s<figcaption>%s</figcaption></figure>"):format(svg, escape(entry.problem))
end

local function points_table(w, r, entry)
  local rows = {}
  for i, x in ipairs(entry.points) do
    local ratio = x.dense_seconds and x.dense_seconds / x.seconds
    rows[i] = { { source(r, x) }, { common.short(x.variant) }, { x.m }, { time_text(x.seconds), x.seconds },
      { common.spread(x.spread, x.disturbed), x.spread or "" }, { x.raced and "race" or "finals" },
      { x.dense_seconds and time_text(x.dense_seconds) or "-", x.dense_seconds or "" },
      { common.ratio(ratio), ratio or "" }, { common.gb(x.bytes, x.seconds), x.bytes / x.seconds },
      { common.roof(x.bytes, x.seconds, x.bandwidth), x.bandwidth and x.bytes / x.seconds / x.bandwidth or "" } }
  end
  page.table(w, { "pack", "kernel", "M", "time", "spread", "by", "dense", "x dense", "GB/s", "of reads" }, rows)
end

local function model_table(w, r, t)
  local rows = {}
  for i, x in ipairs(t.rows) do
    rows[i] = { { x.layers }, { x.problem }, { x.count }, { ("%.2f MB"):format(x.bytes / 1e6), x.bytes },
      { time_text(x.seconds), x.seconds }, { common.percent(x.seconds / t.seconds), x.seconds } }
  end
  w(('<p>%s, activations %s, M = %d: %.2f MB and %s together%s.</p>'):format(escape(r.packs[t.pack].name),
    escape(t.act), t.m, t.bytes / 1e6, time_text(t.seconds),
    t.missing > 0 and ("; %s of the model not in the pack"):format(common.count(t.missing, "layer")) or ""))
  page.table(w, { "layers", "problem", "count", "bytes", "time", "share" }, rows)
end

-- command: that made the page.
function report.html(r, command)
  local names = {}
  for i, p in ipairs(r.packs) do names[i] = p.name end
  local name = escape(table.concat(names, ", "))
  local w, text_of = page.new("Kernels of " .. name)
  w(("<h1>Kernels of %s</h1>"):format(name))
  for _, p in ipairs(r.packs) do
    w(('<p class="soft">%s: tuned on %s. Hash %s.</p>'):format(escape(p.name), escape(table.concat(p.devices, "; ")),
      p.hash))
  end
  w [[<p>Each call reads weights that no cache holds. A time is the median of its rounds; bars and "spread" tell how far
apart these are. A hollow point or a ? is not to be believed: the machine was busy, or its rounds differ by more than a
tenth. "dense" is the faster dense product of 16 or 32 bits, "reads" the time that plain reads of the weight take.</p>]]
  if #r.problems == 0 then w "<p>No plan has a time: kernels were verified, not tuned.</p>" end
  if r.model then w(("<h2>A token of %s</h2>"):format(escape(r.model.path:gsub("/+$", ""):match "[^/]*$"))) end
  for _, t in ipairs(r.model and r.model.tables or {}) do model_table(w, r, t) end
  if #r.problems > 0 then w '<h2>Time against M</h2><div class="plots">' end
  for _, entry in ipairs(r.problems) do w(picture(r, entry)) end
  if #r.problems > 0 then w "</div>" end
  for _, entry in ipairs(r.problems) do
    w(("<h2>%s</h2>"):format(escape(entry.problem)))
    points_table(w, r, entry)
  end
  w '<h2>Commands</h2><p class="soft">This page, its numbers for programs, and the same measured again.</p>'
  w(("<pre>%s</pre>"):format(escape(command)))
  for _, p in ipairs(r.packs) do
    w(("<pre>%s\n%s</pre>"):format(escape(common.command("quernel", { "report", p.path, "--csv" })),
      escape(common.command("quernel", { "bench", p.path }))))
  end
  return text_of()
end

return report
