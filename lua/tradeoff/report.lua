-- report.lua - a trade-off as a table of text, as JSON, and as one HTML file that needs nothing else.
--
-- The result (lua/tradeoff.lua): { command, model, machine, texts = { { name, windows, tokens }… }, margin, floor,
-- memory, cache (bytes of keys and values that count in it), candidates, verdict, beside = what was only timed, whole =
-- was there time for all, peak_memory (bytes, of the run), cache_per_token (bytes of keys and values), elsewhere = who
-- else serves it (elsewhere.lua), or nil }. Candidates have the fields of choice.lua, and
--   bpw            bits a weight of the linear layers
--   top1           share of tokens on whose first choice the original agrees
--   rate           beside ratio in decode and prefill: estimate, tokens/s
--   commands       what makes and measures it by hand

local choice, plot, serving = require "lua.tradeoff.choice", require "lua.plot", require "lua.serving"
local page = require "lua.page"
local report = {}

-- ---- Columns --------------------------------------------------------------------------------------------------------

local function half(e) return (e.high - e.low) / 2 end
local function shown(pattern, x) return x and x - x == 0 and pattern:format(x) or "-" end
local function ppl(delta) return 100 * (math.exp(delta) - 1) end

local words = { tied = "as the original", within = "within the margin", outside = "beyond the margin",
  undecided = "text too short", stopped = "given up", broken = "broken",
  untried = "not tried" }

-- What the verdict says of a candidate, in a few words.
local function mark(c, v)
  local x, out = v.class[c.name], {}
  if not x then return "" end
  out[1] = c.dense and "16-bit dense" or words[x.accuracy]
  if x.slower[1] == 1 and not c.dense then out[#out + 1] = "slower" end
  if x.large then out[#out + 1] = "too large" end
  if v.chosen == c.name then table.insert(out, 1, "TAKE") end
  return table.concat(out, ", ")
end

-- The same in as few as there can be: what decides.
local function reason(c, v)
  local x = v.class[c.name]
  if not x then return "" end
  if v.chosen == c.name then return "TAKE, " .. words[x.accuracy] end
  if c.dense or not x.close then return c.dense and "16-bit dense" or words[x.accuracy] end
  return x.large and "too large" or not x.timed and "not timed" or x.slower[1] == 1 and "slower" or words[x.accuracy]
end

-- { name in the page, value(c, verdict), pattern, name on a terminal or nil: it is not shown there, pattern there if it
-- is another }: of numbers a dash if there is none.
local known = {
  { "candidate", function(c) return c.name end, "%s", "candidate" },
  { "verdict", mark, "%s" },
  { "bits", function(c) return c.bpw end, "%.2f" },
  { "MB", function(c) return c.bytes and c.bytes / 1e6 end, "%.1f", "MB" },
  { "KL", function(c) return c.kl and c.kl.mean end, "%.6f", "KL", "%.1e" },
  { "±", function(c) return c.kl and half(c.kl) end, "%.6f" },
  { "top-1 %", function(c) return c.top1 and 100 * c.top1 end, "%.2f", "top-1", "%.1f" },
  { "ppl %", function(c) return c.delta and ppl(c.delta.mean) end, "%+.3f", "ppl %", "%+.2f" },
  { "±", function(c) return c.delta and 100 * half(c.delta) end, "%.3f", "±", "%.2f" },
}
-- Rates and times, of m sequences or of a prompt of m tokens. On a terminal: one rate, and how many times faster than
-- 16-bit dense.
for _, x in ipairs { { "decode", 1, "decode", "tok/s", "x1" }, { "decode", 8, "8 at once", nil, "x8" },
  { "decode", 64, "64 at once", nil, "x64" }, { "prefill", 512, "prefill", nil, "x512" } } do
  local kind, m, name, rate, ratio = table.unpack(x, 1, 5)
  local function of(c) return choice.at(c[kind], m) end
  known[#known + 1] = { name .. " tok/s", function(c) return of(c) and of(c).rate.mean end, "%.1f", rate, "%.4g" }
  known[#known + 1] = { "x dense", function(c) return of(c) and of(c).ratio.mean end, "%.2f", ratio }
end
local function mean_accuracy(c)
  local sum, n = 0, 0
  for _, t in ipairs(c.tasks or {}) do if t.accuracy then sum, n = sum + t.accuracy, n + 1 end end
  return n > 0 and 100 * sum / n or nil
end
known[#known + 1] = { "tasks %", mean_accuracy, "%.1f", "tasks" }
local decisive = { "verdict", reason, "%s", "verdict" }

local function cell(column, pattern, c, v)
  local x = column[2](c, v)
  if pattern == "%s" then return x, x end
  return shown(pattern, x), x
end

-- In the order in which one would take them: the one that is taken, others that might be, 16 bits, then what is not
-- good enough or was not judged; each of these by its speed.
local place = { ["as the original"] = 2, ["within the margin"] = 2, ["16-bit dense"] = 3, [""] = 4, slower = 5,
  ["too large"] = 5, ["not timed"] = 5, ["text too short"] = 6, ["beyond the margin"] = 7, ["given up"] = 8,
  ["not tried"] = 9, broken = 10 }

local function all_of(result)
  local out, rank = table.move(result.candidates, 1, #result.candidates, 1, {}), {}
  table.move(result.beside or {}, 1, #(result.beside or {}), #out + 1, out)
  for i, c in ipairs(out) do
    local time = choice.at(c.decode, 1)
    rank[c] = { place[reason(c, result.verdict)] or 1, time and -time.ratio.mean or 0,
      c.kl and c.kl.mean or math.huge, i }
  end
  table.sort(out, function(a, b)
    for i, x in ipairs(rank[a]) do if x ~= rank[b][i] then return x < rank[b][i] end end
  end)
  return out
end

-- The columns in which anything stands.
local function columns_of(result, list)
  local out = {}
  for _, column in ipairs(list) do
    local any = false
    for _, c in ipairs(all_of(result)) do any = any or cell(column, column[3], c, result.verdict) ~= "-" end
    if any then out[#out + 1] = column end
  end
  return out
end

-- Rows for common.table, names first: what fits on a terminal of 120 columns.
function report.rows(result)
  local short = {}
  for _, column in ipairs(known) do short[#short + 1] = column[4] and column or nil end
  short[#short + 1] = decisive
  local rows, columns = { {} }, columns_of(result, short)
  for i, column in ipairs(columns) do rows[1][i] = column[4] end
  for _, c in ipairs(all_of(result)) do
    local row = {}
    for i, column in ipairs(columns) do row[i] = cell(column, column[5] or column[3], c, result.verdict) end
    rows[#rows + 1] = row
  end
  return rows
end

-- A line for each kind of checkpoint that other servers read: the command that makes it, or why there is none.
function report.elsewhere(result)
  local out = {}
  for i, x in ipairs(result.elsewhere or {}) do
    out[i] = ("for %s: %s"):format(serving.plain(x.stacks), x.command or x.why and "convert refuses: " .. x.why or
      "the checkpoint as it is")
  end
  return out
end

-- What its columns mean.
report.legend = "x1, x8, x64 and x512: how many times faster than 16-bit dense, for 1, 8 "
  .. "and 64 sequences that decode at once and for a prompt of 512 tokens."

-- ---- HTML -----------------------------------------------------------------------------------------------------------

local escape = plot.escape

-- How a candidate is drawn: taken, slower than dense, on the front, or behind it.
local function class_of(c, result, front)
  local x = result.verdict.class[c.name]
  if not x then return "behind" end
  if result.verdict.chosen == c.name then return "chosen" end
  if x.slower[1] == 1 and not c.dense then return "slower" end
  return front[c.name] and "front" or "behind"
end

local function title(c)
  return ("%s: %.1f MB, KL %.3g [%.3g, %.3g]%s"):format(c.name, c.bytes / 1e6, c.kl.mean, c.kl.low, c.kl.high,
    choice.at(c.decode, 1) and (", %.1f tok/s, %.2fx dense"):format(choice.at(c.decode, 1).rate.mean,
      choice.at(c.decode, 1).ratio.mean) or "")
end

-- KL against a cost, a function of a candidate.
local function picture(result, what, cost, caption)
  local front, points, line = choice.front(result.candidates, cost), {}, nil
  for _, c in ipairs(result.candidates) do
    if c.kl and not c.broken and cost(c) then
      local class = class_of(c, result, front)
      points[#points + 1] = { x = cost(c), y = c.kl.mean, low = math.max(0, c.kl.low), high = c.kl.high, class = class,
        name = class ~= "behind" and c.name or nil, title = title(c) }
      if c.dense then line = { x = cost(c), text = "16-bit dense" } end
    end
  end
  -- Names of what matters most are placed first.
  local order = { chosen = 1, slower = 2, front = 3, behind = 4 }
  table.sort(points, function(a, b)
    if a.class ~= b.class then return order[a.class] < order[b.class] end
    return a.title < b.title
  end)
  local svg = #points > 0 and plot.scatter { x = what, y = "KL, nats a token", points = points, line = line,
    band = 2 * result.floor } or ""
  if svg == "" then return "" end
  return ("<figure>%s<figcaption>%s</figcaption></figure>"):format(svg, escape(caption))
end

local function milliseconds(c)
  local x = choice.at(c.decode, 1)
  return x and 1000 / x.rate.mean
end

local function pictures(w, result)
  w '<div class="plots">'
  w(picture(result, "MB in memory", function(c) return c.bytes / 1e6 end,
    "What is lost against the memory that the weights take."))
  w(picture(result, "ms for a token", milliseconds, "What is lost against the time for one token of one sequence."))
  w '</div><p class="soft">In the band KL is at most twice that of rounding everything to bf16.</p>'
  w '<ul class="key"><li class="chosen"><span>taken</span></li>'
  w '<li class="front"><span>nobody is better in both</span></li><li class="behind"><span>another is</span></li>'
  w '<li class="slower"><span>slower than 16-bit dense</span></li></ul>'
end

local function full_table(w, result)
  local columns = columns_of(result, known)
  local front = choice.front(result.candidates, function(c) return c.bytes end)
  local names, rows = {}, {}
  for i, column in ipairs(columns) do names[i] = column[1] end
  for _, c in ipairs(all_of(result)) do
    local row = { class = class_of(c, result, front) }
    for i, column in ipairs(columns) do
      local text, x = cell(column, column[3], c, result.verdict)
      row[i] = { text, text ~= "-" and x or "" }
    end
    rows[#rows + 1] = row
  end
  page.table(w, names, rows)
end

local function commands(w, result)
  w(("<pre>%s</pre>"):format(escape(result.command)))
  for _, text in ipairs(report.elsewhere(result)) do w(("<pre>%s</pre>"):format(escape(text))) end
  for _, c in ipairs(result.candidates) do
    w(("<details><summary>%s</summary><pre>%s</pre></details>"):format(escape(c.name),
      escape(table.concat(c.commands or {}, "\n"))))
  end
end

-- What was measured on what, in a few sentences.
function report.about(result)
  local texts = {}
  for i, x in ipairs(result.texts) do texts[i] = ("%s: %d windows, %d tokens"):format(x.name, x.windows, x.tokens) end
  local memory = result.cache_per_token and (" Keys and values take %d bytes a token; this run took %.0f MB.")
    :format(result.cache_per_token, (result.peak_memory or 0) / 1e6) or ""
  return ("%s. %s. KL and perplexity are against the unquantized model on the same windows; ± and bars are 95 %% "
    .. "intervals over windows. Times are whole forward passes on this machine, in turns with 16-bit dense.%s"):format(
    table.concat(texts, "; "), result.machine, memory)
end

function report.html(result)
  local name = escape(result.model:gsub("/+$", ""):match "[^/]*$")
  local w, text_of = page.new("Trade-off of " .. name)
  w(('<h1>What quantizing %s costs and buys</h1><p class="soft">%s</p>'):format(name, escape(report.about(result))))
  w '<h2>Verdict</h2><ul class="verdict">'
  for _, text in ipairs(result.verdict.sentences) do w(("<li>%s</li>"):format(escape(text))) end
  w "</ul>"
  w "<h2>Loss against size and time</h2>"
  pictures(w, result)
  w '<h2>All candidates</h2><p class="soft">A column\'s name sorts by it.</p>'
  full_table(w, result)
  w '<h2>Commands</h2><p class="soft">The run, and what makes each number by hand.</p>'
  commands(w, result)
  return text_of()
end

return report
