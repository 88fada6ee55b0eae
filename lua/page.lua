-- page.lua - an HTML page that needs nothing else: light and dark, readable on a phone and on paper, tables that sort.

local plot = require "lua.plot"
local escape = plot.escape
local page = {}

local style = [[
:root { --paper: #fff; --ink: #1b1f24; --soft: #646b75; --rule: #dfe3e8; --front: #1f5fd0; --behind: #a3abb5;
  --chosen: #0b7a43; --slower: #c2410c; --band: #1f5fd01a; --s1: #1f5fd0; --s2: #b3261e; --s3: #0b7a43; --s4: #7b3fb5;
  --s5: #9a6700; --s6: #0f7a8a; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e6e9ed; --soft: #98a1ad; --rule: #2c323a;
  --front: #7ea6ff; --behind: #5b646f; --chosen: #4ccb8a; --slower: #ff9257; --band: #7ea6ff22; --s1: #7ea6ff;
  --s2: #ff8a80; --s3: #4ccb8a; --s4: #c69cf4; --s5: #e0b34c; --s6: #5cc8d8; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; line-height: 1.25; margin: .5rem 0; } h2 { font-size: 1.1rem; margin: 1.75rem 0 .5rem; }
p, li { max-width: 46rem; } .soft { color: var(--soft); font-size: .9rem; }
ul.verdict { padding-left: 1.2rem; } ul.verdict li:first-child { font-weight: 600; }
h2, li, p, code { overflow-wrap: anywhere; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem; }
figure { margin: 0; max-width: 36rem; } figcaption { color: var(--soft); font-size: .9rem; }
svg { width: 100%; height: auto; display: block; } svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
svg tspan { font-size: 9px; }
svg .tick { fill: var(--soft); }
svg text.name { paint-order: stroke; stroke: var(--paper); stroke-width: 3px; }
svg .grid { stroke: var(--rule); } svg .axis { stroke: var(--soft); }
svg .band { fill: var(--band); } svg .dense { stroke: var(--soft); stroke-dasharray: 4 3; }
.point circle { fill: currentColor; stroke: var(--paper); stroke-width: 1.5; } .point line { stroke: currentColor;
  stroke-width: 1.5; }
.series polyline { fill: none; stroke: currentColor; stroke-width: 1.5; }
.series.line polyline { stroke-dasharray: 4 3; }
.series .doubted circle { fill: var(--paper); stroke: currentColor; }
.series.line { color: var(--soft); } .s1 { color: var(--s1); } .s2 { color: var(--s2); } .s3 { color: var(--s3); }
.s4 { color: var(--s4); } .s5 { color: var(--s5); } .s6 { color: var(--s6); }
.front { color: var(--front); } .behind { color: var(--behind); } .chosen { color: var(--chosen); }
.slower { color: var(--slower); } .key { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; padding: 0;
  list-style: none; font-size: .9rem; } .key li::before { content: "●"; margin-right: .35rem; }
.key span { color: var(--ink); }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .55rem; text-align: right; border-bottom: 1px solid var(--rule); }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); }
th:nth-child(2), td:nth-child(2) { text-align: left; }
th button { font: inherit; font-weight: 600; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; }
th[aria-sort=ascending] button::after { content: " ▲"; } th[aria-sort=descending] button::after { content: " ▼"; }
tbody tr[class] { color: inherit; } tr.chosen td { font-weight: 600; }
tr.chosen td:first-child { color: var(--chosen); }
tr.front td:first-child { color: var(--front); } tr.slower td:first-child { color: var(--slower); }
tr.behind td { color: var(--soft); }
pre { overflow-x: auto; background: var(--band); padding: .6rem; font-size: .8rem; } summary { cursor: pointer; }
@media print { body { max-width: none; padding: 0; font-size: 11px; } figure, tr { break-inside: avoid; }
  .wide { overflow: visible; } th:first-child, td:first-child { position: static; } pre { white-space: pre-wrap; } }]]

local script = [[
for (const table of document.querySelectorAll("table"))
  for (const [at, th] of table.querySelectorAll("th").entries()) th.querySelector("button").onclick = () => {
    const body = table.querySelector("tbody"), up = th.getAttribute("aria-sort") !== "ascending";
    for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
    th.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = row => row.children[at].dataset.v ?? row.children[at].textContent;
    const order = (a, b) => a === "" || b === "" ? (a === "") - (b === "") :
      (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b) * (up ? 1 : -1);
    body.append(...[...body.rows].sort((a, b) => order(value(a), value(b))));
  };]]

-- A page of that title, which is text of HTML -> w(text), which writes to it, and text_of(), which ends it.
function page.new(title)
  local out = {}
  local function w(text) out[#out + 1] = text end
  w '<!doctype html><html lang="en"><head><meta charset="utf-8">'
  w '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
  w(("<title>%s</title><style>%s</style></head><body>"):format(title, style))
  return w, function()
    w(("<script>%s</script></body></html>"):format(script))
    return table.concat(out, "\n") .. "\n"
  end
end

-- names: of columns. rows: { { shown, value to sort by }…, class = of the row }.
function page.table(w, names, rows)
  w '<div class="wide"><table><thead><tr>'
  for _, name in ipairs(names) do
    w(('<th scope="col"><button type="button">%s</button></th>'):format(escape(name)))
  end
  w "</tr></thead><tbody>"
  for _, row in ipairs(rows) do
    local cells = {}
    for i, c in ipairs(row) do
      cells[i] = ('<td data-v="%s">%s</td>'):format(escape(c[2] == nil and c[1] or c[2]), escape(c[1]))
    end
    w(("<tr%s>%s</tr>"):format(row.class and (' class="%s"'):format(row.class) or "", table.concat(cells)))
  end
  w "</tbody></table></div>"
end

return page
