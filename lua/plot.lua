-- plot.lua - pictures as SVG. Colours are classes, which the page's CSS defines (page.lua).
--
-- plot.scatter {
--   x = "MB", y = "KL",                          what the axes say
--   points = { { x =, y =, low =, high =,        an error bar from low to high, which may be endless
--     name =, title =,                           written beside it, or absent; told when pointed at
--     class = "front" | "behind"… }… },
--   band =,                                      from the bottom up to this y
--   line = { x =, text = },                      upright
-- } -> text; x is linear from 0, y logarithmic
--
-- plot.lines {
--   x = "M", y = "time", unit = function(y) -> text,
--   ticks = { 1, 16… },                          of x
--   series = { { name =, class = "s1"…,          "line": its points have no marks
--     points = { { x =, y =, low =, high =, title =, doubted = true: drawn hollow }… } }… },
-- } -> text; both are logarithmic

local plot = {}

local width, height = 400, 310 -- of the drawing, in units of about a pixel of a phone
local left, right, top, bottom = 54, 12, 12, 42

function plot.escape(text)
  return (tostring(text):gsub("[&<>\"]", { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }))
end
local escape = plot.escape

-- ---- Scales ---------------------------------------------------------------------------------------------------------

-- A step of 1, 2 or 5 times a power of ten, so that about `count` of them reach `most`.
local function step(most, count)
  local power = 10.0 ^ math.floor(math.log(most / count, 10))
  for _, x in ipairs { 1, 2, 5 } do if x * power * count >= most then return x * power end end
  return 10 * power
end

-- From 0 to a round number beyond `most`: place(x), ticks, its end.
local function linear(most)
  local by = step(most, 5)
  local stop, ticks = math.ceil(most * 1.02 / by) * by, {}
  for i = 0, math.floor(stop / by + 0.5) do ticks[#ticks + 1] = i * by end
  return function(x) return left + (width - left - right) * x / stop end, ticks
end

-- Whole decades around what is there. What lies below is drawn on the edge.
local function logarithmic(least, most)
  local from, to = math.floor(math.log(least, 10)), math.ceil(math.log(most, 10))
  if from == to then to = to + 1 end
  local ticks = {}
  for i = from, to do ticks[#ticks + 1] = i end
  return function(y)
    local share = y > 0 and (math.log(y, 10) - from) / (to - from) or 0
    return height - bottom - (height - top - bottom) * math.max(0, math.min(1, share))
  end, ticks
end

-- ---- Names ----------------------------------------------------------------------------------------------------------

local letter, line_height = 6.6, 14 -- of the names, a little more than they take

local function overlap(a, b) return a[1] < b[3] and b[1] < a[3] and a[2] < b[4] and b[2] < a[4] end

-- Where a name of so many letters fits beside a point, so that it covers no other name or point: x, y, the anchor; nil
-- if it fits nowhere.
local function fit(x, y, letters, taken)
  local w = letters * letter
  for _, c in ipairs { { x + 8, y + 4, "start" }, { x - 8, y + 4, "end" }, { x, y - 9, "middle" },
    { x, y + 18, "middle" }, { x + 8, y - 8, "start" }, { x - 8, y - 8, "end" } } do
    local from = c[3] == "start" and c[1] or c[3] == "end" and c[1] - w or c[1] - w / 2
    local box = { from, c[2] - line_height + 3, from + w, c[2] + 3 }
    local free = box[1] >= left and box[3] <= width and box[2] >= 0
    for _, other in ipairs(taken) do free = free and not overlap(box, other) end
    if free then
      taken[#taken + 1] = box
      return c[1], c[2], c[3]
    end
  end
end

-- ---- A scatter plot -------------------------------------------------------------------------------------------------

-- ticks_y: powers of ten, or, with a unit, numbers.
local function axes(w, t, place_x, ticks_x, place_y, ticks_y)
  for _, tick in ipairs(ticks_y) do
    local y = place_y(t.unit and tick or 10.0 ^ tick)
    w('<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/>', left, width - right, y, y)
    w('<text class="tick" x="%d" y="%.1f" text-anchor="end">%s</text>', left - 6, y + 4,
      t.unit and escape(t.unit(tick)) or ('10<tspan dy="-5">%d</tspan>'):format(tick))
  end
  for _, x in ipairs(ticks_x) do
    w('<text class="tick" x="%.1f" y="%d" text-anchor="middle">%g</text>', place_x(x), height - bottom + 16, x)
  end
  w('<line class="axis" x1="%d" x2="%d" y1="%d" y2="%d"/>', left, width - right, height - bottom, height - bottom)
  w('<text class="name" x="%d" y="%d" text-anchor="middle">%s</text>', (left + width - right) // 2, height - 6,
    escape(t.x))
  if t.unit then return end -- the ticks say what is upright
  w('<text class="name" transform="translate(12 %d) rotate(-90)" text-anchor="middle">%s</text>',
    (top + height - bottom) // 2, escape(t.y))
end

local function draw(w, p, x, y, low, high)
  w('<g class="point %s"><title>%s</title>', p.class, escape(p.title))
  w('<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>', x, x, low, high)
  w('<circle cx="%.1f" cy="%.1f" r="%d"/></g>', x, y, p.class:find "chosen" and 7 or 5)
end

function plot.scatter(t)
  local out, most_x, least, most = {}, t.line and t.line.x or 0, t.band and t.band / 4 or math.huge, 0
  local function w(text, ...) out[#out + 1] = text:format(...) end
  for _, p in ipairs(t.points) do
    most_x, most = math.max(most_x, p.x), math.max(most, p.high < math.huge and p.high or p.y)
    if not t.band and p.y > 0 then least = math.min(least, p.y) end
  end
  if most <= 0 or most_x <= 0 then return "" end
  local place_x, ticks_x = linear(most_x)
  local place_y, ticks_y = logarithmic(math.min(least, most), most)
  local taken = {} -- by points and names
  w('<svg viewBox="0 0 %d %d" role="img" aria-label="%s against %s">', width, height, escape(t.y), escape(t.x))
  if t.band then
    local y = place_y(t.band)
    w('<rect class="band" x="%d" y="%.1f" width="%d" height="%.1f"/>', left, y, width - left - right,
      height - bottom - y)
  end
  axes(w, t, place_x, ticks_x, place_y, ticks_y)
  if t.line then
    w('<line class="dense" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/>', place_x(t.line.x), place_x(t.line.x), top,
      height - bottom)
    w('<text class="tick" x="%.1f" y="%d" text-anchor="end">%s</text>', place_x(t.line.x) - 5, top + 10,
      escape(t.line.text))
  end
  for _, p in ipairs(t.points) do
    local x, y = place_x(p.x), place_y(p.y)
    draw(w, p, x, y, place_y(p.low), place_y(p.high))
    taken[#taken + 1] = { x - 6, y - 6, x + 6, y + 6 }
  end
  for _, p in ipairs(t.points) do
    local x, y, anchor
    if p.name then x, y, anchor = fit(place_x(p.x), place_y(p.y), utf8.len(p.name) or #p.name, taken) end
    if x then w('<text class="name" x="%.1f" y="%.1f" text-anchor="%s">%s</text>', x, y, anchor, escape(p.name)) end
  end
  w "</svg>"
  return table.concat(out, "\n")
end

-- ---- Lines ----------------------------------------------------------------------------------------------------------

-- The numbers among 1, 2, 5 times powers of ten that lie between; of more than two decades, powers alone.
local function round_numbers(least, most)
  local out = {}
  for power = math.floor(math.log(least, 10)), math.ceil(math.log(most, 10)) do
    for _, x in ipairs(most / least > 100 and { 1 } or { 1, 2, 5 }) do
      local y = x * 10.0 ^ power
      if y >= least * 0.999 and y <= most * 1.001 then out[#out + 1] = y end
    end
  end
  return out
end

-- From `low` to `high` on a logarithmic scale, to from … to: place(v).
local function between(low, high, from, to)
  if low >= high then low, high = low / 2, high * 2 end
  return function(v) return from + (to - from) * math.log(v / low) / math.log(high / low) end
end

local function series(w, s, place_x, place_y, taken)
  local line = {}
  for i, p in ipairs(s.points) do line[i] = ("%.1f,%.1f"):format(place_x(p.x), place_y(p.y)) end
  w('<g class="series %s"><polyline points="%s"/>', s.class, table.concat(line, " "))
  for _, p in ipairs(s.class ~= "line" and s.points or {}) do
    local x, y = place_x(p.x), place_y(p.y)
    taken[#taken + 1] = { x - 5, y - 5, x + 5, y + 5 }
    w('<g class="point%s"><title>%s</title><line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>', p.doubted and " doubted"
      or "", escape(p.title), x, x, place_y(p.low), place_y(p.high))
    w('<circle cx="%.1f" cy="%.1f" r="4"/></g>', x, y)
  end
  w "</g>"
end

function plot.lines(t)
  local out, least, most, taken = {}, math.huge, 0, {}
  local function w(text, ...) out[#out + 1] = text:format(...) end
  for _, s in ipairs(t.series) do
    for _, p in ipairs(s.points) do
      least, most = math.min(least, p.y, p.low or p.y), math.max(most, p.y, p.high or p.y)
    end
  end
  if most <= 0 or not t.ticks[1] then return "" end
  local place_x = between(t.ticks[1], t.ticks[#t.ticks], left + 12, width - right - 12)
  local place_y = between(least * 0.9, most * 1.1, height - bottom, top)
  w('<svg viewBox="0 0 %d %d" role="img" aria-label="%s against %s">', width, height, escape(t.y), escape(t.x))
  axes(w, t, place_x, t.ticks, place_y, round_numbers(least * 0.9, most * 1.1))
  for _, s in ipairs(t.series) do series(w, s, place_x, place_y, taken) end
  for _, s in ipairs(t.series) do
    local p = s.points[#s.points]
    local x, y, anchor = fit(place_x(p.x), place_y(p.y), utf8.len(s.name) or #s.name, taken)
    if x then w('<text class="name" x="%.1f" y="%.1f" text-anchor="%s">%s</text>', x, y, anchor, escape(s.name)) end
  end
  w "</svg>"
  return table.concat(out, "\n")
end

return plot
