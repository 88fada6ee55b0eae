-- report.lua - what packs know of their kernels, as numbers, as CSV, and as an HTML page (page.lua).
--
-- The numbers (report.of): { packs = { { path, name, hash, devices = { "host, AMD EPYC, 2 threads"… } }… },
-- sources = { { pack, device, name }… }, problems = { { problem, n, k, format, act, points }… }, model = { path,
-- tables } or nil }. A source is one device of one pack, both by number. A point is the time of a problem at one M:
--   source                its number
--   m, variant, seconds, spread, disturbed, raced (timed alone, not in the finals), bytes (of the weight)
--   dense_seconds         of the dense product, beside it
--   bandwidth             bytes/s of plain reads, beside it
--   next                  { name, seconds } of the next best, where the store of this machine has these very times
-- A table of a model is one source's: { source, m, act, seconds, bytes, missing (layers without a plan), rows }; a row
-- is { layers = "model.layers.*.mlp.up_proj.weight", count, problem, seconds, bytes }, times and bytes of all of them.

local common, page, plot = require "lua.common", require "lua.page", require "lua.plot"
local escape = plot.escape
local report = {}

-- ---- Numbers --------------------------------------------------------------------------------------------------------

local function device_name(d) return ("%s, %s, %d threads"):format(d.target, d.product, d.threads) end

-- The fastest other variant beside this one in a list by time; nil where that does not have this one, with this time.
local function next_best(list, name, seconds)
  for _, x in ipairs(list or {}) do
    if x.name == name and x.seconds == seconds then
      local other = list[1] == x and list[2] or list[1]
      return other ~= x and { name = other.name, seconds = other.seconds } or nil
    end
  end
end

local function collect(q, p, source_of, by_problem, problems, timed)
  for _, plan in ipairs(p.pack:plans()) do
    for _, range in ipairs(plan.kind == "fastest" and plan.n > 0 and plan.ranges or {}) do
      for _, x in ipairs(range.points) do
        local entry = by_problem[plan.problem]
        if not entry then
          entry = { problem = plan.problem, experts = plan.experts, n = plan.n, k = plan.k, format = plan.format,
            act = plan.act, points = {} }
          by_problem[plan.problem], problems[#problems + 1] = entry, entry
        end
        entry.points[#entry.points + 1] = { source = source_of[plan.device], m = x.m, variant = range.variant,
          seconds = x.seconds, spread = x.spread, disturbed = x.disturbed, raced = x.raced,
          bytes = common.read_bytes(q, plan, x.m),
          dense_seconds = x.dense_seconds and x.dense_seconds > 0 and x.dense_seconds or nil,
          bandwidth = x.bandwidth and x.bandwidth > 0 and x.bandwidth or nil,
          next = next_best(timed(plan.problem)[x.m], range.variant, x.seconds) }
      end
    end
  end
end

-- The layers of a model by what they are called but for numbers, with the time that a source has for them at its least
-- M. A stack is one layer where the source has it, else as many as it has experts. nil if it has none of them.
local function table_of(model, problems, source, act)
  local rows, by_name, by_shape, counted = {}, {}, {}, {}
  local out = { source = source, act = act, m = math.huge, seconds = 0, bytes = 0, missing = 0, rows = rows }
  for _, entry in ipairs(problems) do
    for _, x in ipairs(entry.act == act and entry.points or {}) do
      if x.source == source and x.m <= out.m then
        if x.m < out.m then out.m, by_shape = x.m, {} end
        by_shape[model.shape_of(entry)] = { point = x, problem = entry.problem }
      end
    end
  end
  for _, t in ipairs(model:tensors()) do
    local stack = model.stack_of[t.name]
    local at_once = stack and stack.format and by_shape[model.shape_of(stack)]
    local has, times = at_once or t.linear and t.format and by_shape[model.shape_of(t)], at_once and 1 or t.slices
    if has and not (at_once and counted[stack]) then
      counted[stack or t] = true
      local layers = t.name:gsub("%d+", "*")
      local key = layers .. has.problem
      if not by_name[key] then
        by_name[key] = { layers = layers, count = 0, problem = has.problem, seconds = 0, bytes = 0 }
        rows[#rows + 1] = by_name[key]
      end
      by_name[key].count = by_name[key].count + times
      for _, sum in ipairs { by_name[key], out } do
        sum.seconds, sum.bytes = sum.seconds + times * has.point.seconds, sum.bytes + times * has.point.bytes
      end
    elseif t.linear and not has then out.missing = out.missing + 1 end
  end
  return #rows > 0 and out or nil
end

-- The sources of a pack by its devices, added to a list; named by the pack's file, by its path where another file has
-- that name, and by the device where the pack has several.
local function add_sources(sources, packs, i)
  local p, out, name = packs[i], {}, packs[i].name
  for j, other in ipairs(packs) do if j ~= i and other.name == p.name then name = p.path end end
  for j, device in ipairs(p.devices) do
    sources[#sources + 1] = { pack = i, device = j, name = #p.devices == 1 and name or name .. ", " .. device }
    out[j] = #sources
  end
  return out
end

-- packs: list of { path, pack (q.open) }. timed: problem -> { M = list } of evidence.timings. model: q.model or nil.
function report.of(q, packs, timed, model)
  local out, by_problem = { packs = {}, sources = {}, problems = {} }, {}
  for i, p in ipairs(packs) do
    local devices = {}
    for j, d in ipairs(p.pack:devices()) do devices[j] = device_name(d) end
    out.packs[i] = { path = p.path, name = p.path:match "[^/]*$", hash = p.pack:hash(), devices = devices }
  end
  for i, p in ipairs(packs) do
    collect(q, p, add_sources(out.sources, out.packs, i), by_problem, out.problems, timed)
  end
  local acts, seen = {}, {}
  for _, entry in ipairs(out.problems) do
    table.sort(entry.points, function(a, b) return a.m < b.m or a.m == b.m and a.source < b.source end)
    if not seen[entry.act] then seen[entry.act], acts[#acts + 1] = true, entry.act end
  end
  if not model then return out end
  out.model = { path = model.path, tables = {} }
  for i = 1, #out.sources do
    for _, act in ipairs(acts) do
      out.model.tables[#out.model.tables + 1] = table_of(model, out.problems, i, act)
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
    "dense_seconds", "bandwidth", "next_kernel", "next_seconds" }
  local lines = { table.concat(names, ",") }
  for _, entry in ipairs(r.problems) do
    for _, x in ipairs(entry.points) do
      local from, cells = r.sources[x.source], {}
      local p = r.packs[from.pack]
      local row = { p.path, p.devices[from.device], entry.problem, x.m, x.variant, x.seconds, x.spread, x.disturbed,
        x.raced, x.bytes, x.dense_seconds or "", x.bandwidth or "", x.next and x.next.name or "",
        x.next and x.next.seconds or "" }
      for i = 1, #names do cells[i] = quoted(row[i]) end
      lines[#lines + 1] = table.concat(cells, ",")
    end
  end
  return table.concat(lines, "\r\n") .. "\r\n"
end

-- ---- HTML -----------------------------------------------------------------------------------------------------------

local function time_text(seconds)
  local unit = seconds < 1e-3 and { 1e6, "µs" } or seconds < 1 and { 1e3, "ms" } or { 1, "s" }
  return ("%.3g %s"):format(seconds * unit[1], unit[2])
end

local function title(r, x)
  return ("%s, M = %d: %s ± %.0f%%, %s"):format(r.sources[x.source].name, x.m, time_text(x.seconds),
    100 * (x.spread or 0), common.short(x.variant))
end

-- A line of our kernels for each source, then one of the dense product and one of plain reads, of the first source.
local function lines_of(r, entry)
  local out, by_source, ticks, seen = {}, {}, {}, {}
  local dense, reads = { name = "dense", class = "line", points = {} }, { name = "reads", class = "line", points = {} }
  for _, x in ipairs(entry.points) do
    local s = by_source[x.source]
    if not s then
      s = { name = r.sources[x.source].name, class = "s" .. #out % 6 + 1, points = {} }
      by_source[x.source], out[#out + 1] = s, s
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
    rows[i] = { { r.sources[x.source].name }, { common.short(x.variant) }, { x.m }, { time_text(x.seconds), x.seconds },
      { common.spread(x.spread, x.disturbed), x.spread or "" }, { x.raced and "race" or "finals" },
      { x.dense_seconds and time_text(x.dense_seconds) or "-", x.dense_seconds or "" },
      { common.ratio(ratio), ratio or "" }, { common.gb(x.bytes, x.seconds), x.bytes / x.seconds },
      { common.roof(x.bytes, x.seconds, x.bandwidth), x.bandwidth and x.bytes / x.seconds / x.bandwidth or "" },
      { x.next and ("%.2fx %s"):format(x.next.seconds / x.seconds, common.short(x.next.name)) or "-",
        x.next and x.next.seconds / x.seconds or "" } }
  end
  page.table(w, { "pack", "kernel", "M", "time", "spread", "by", "dense", "x dense", "GB/s", "of reads", "next best" },
    rows)
end

local function model_table(w, r, t)
  local rows = {}
  for i, x in ipairs(t.rows) do
    rows[i] = { { x.layers }, { x.problem }, { x.count }, { ("%.2f MB"):format(x.bytes / 1e6), x.bytes },
      { time_text(x.seconds), x.seconds }, { common.percent(x.seconds / t.seconds), x.seconds } }
  end
  w(('<p>%s, activations %s, M = %d: %.2f MB and %s together%s.</p>'):format(escape(r.sources[t.source].name),
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
tenth. "dense" is the faster dense product of 16 or 32 bits, "reads" the time that plain reads of the weight take. "next
best" is the fastest other kernel, and how many times that time it took; only the machine that tuned knows it.</p>]]
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
