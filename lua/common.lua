-- common.lua - what several verbs need: failures, lists, tables of text, units, the choice of a device, progress.

local check = require "gen.check"
local common = {}

-- ---- Ending a verb --------------------------------------------------------------------------------------------------

-- The world is bad: exit 1.
function common.fail(text, ...) error(select("#", ...) > 0 and text:format(...) or text, 0) end
-- The command line is: exit 2.
function common.misuse(text, ...) error({ misuse = text:format(...) }, 0) end
-- The value, or the failure that came with it.
function common.check(value, why, ...)
  if value == nil or value == false then common.fail((tostring(why):gsub("%s+$", ""))) end
  return value, why, ...
end
-- A sentence for who reads along; the verb goes on.
function common.warn(text, ...) io.stderr:write("quernel: ", printable(text:format(...)), "\n") end
-- What the command line asks of the generator: what it refuses is misuse.
function common.ask(fn, ...)
  local out = table.pack(pcall(fn, ...))
  if not out[1] then common.misuse("%s", tostring(out[2])) end
  return table.unpack(out, 2, out.n)
end

-- ---- Values ---------------------------------------------------------------------------------------------------------

-- "a,b" -> { "a", "b" }
function common.split(text, what)
  local out = {}
  for word in (text .. ","):gmatch "%s*(.-)%s*," do
    if word == "" then common.misuse("%s: an element of the list %q is empty", what, text) end
    out[#out + 1] = word
  end
  return out
end

-- The numbers of a list, sorted, each once.
function common.sorted(list)
  local out, seen = {}, {}
  for _, x in ipairs(list) do
    if not seen[x] then out[#out + 1] = x end
    seen[x] = true
  end
  table.sort(out)
  return out
end

-- "1,16,64" -> sorted list of token counts, each once.
function common.tokens(text)
  local out = {}
  for i, word in ipairs(common.split(text, "--m")) do
    local m = math.tointeger(tonumber(word))
    if not m or m < 1 or m > 1 << 20 then common.misuse("--m: %q is no number of tokens from 1 to 1048576", word) end
    out[i] = m
  end
  return common.sorted(out)
end

-- Does the text match one of the patterns, in which * stands for any characters and ? for one?
function common.matches(text, patterns)
  for _, p in ipairs(patterns or {}) do
    if text:match("^" .. p:gsub("[^%w*?]", "%%%0"):gsub("%*", ".*"):gsub("%?", ".") .. "$") then return true end
  end
  return false
end

-- A number that an option gives, or nil.
function common.number(options, key, least, most)
  local text = options[key]
  if not text then return nil end
  local x = tonumber(text)
  if not x or x - x ~= 0 or x < least or most and x > most then
    common.misuse("--%s: %q is no number from %s %s", key, text, least, most and "to " .. most or "on")
  end
  return x
end
function common.whole(options, key, least, most)
  local x = common.number(options, key, least, most or 1000000)
  return x and (math.tointeger(x) or common.misuse("--%s: %q is no whole number", key, options[key]))
end

-- "2/8" -> 2, 8: the second of eight shards; nothing for nil.
function common.shard(text)
  if not text then return end
  local i, n = text:match "^(%d+)/(%d+)$"
  i, n = math.tointeger(tonumber(i)), math.tointeger(tonumber(n))
  if not n then common.misuse("--shard: %q is no I/N, such as 2/8 for the second of eight", text) end
  if n < 1 or n > 10000 then common.misuse("--shard %s: N is from 1 to 10000", text) end
  if i < 1 or i > n then common.misuse("--shard %s: I is from 1 to %d, the first is 1", text, n) end
  return i, n
end

-- "host.gemv,host.gemm" if there are such families for the device; nil for nil.
function common.families(q, text, device)
  q.kernels(device.target) -- a fault of a template is no misuse
  if text then common.ask(q.gen.kernel.families, device.target, text) end
  return text
end

-- A word as a shell reads it, and a command of such words.
function common.quoted(word) return word:find "^[%w_./:,=+-]+$" and word or "'" .. word:gsub("'", "'\\''") .. "'" end
function common.command(program, args)
  local out = { program }
  for i, word in ipairs(args) do out[i + 1] = common.quoted(tostring(word)) end
  return table.concat(out, " ")
end

function common.choice(options, key, ...) return common.ask(check.among, options[key], { ... }, "--" .. key) end

-- { "NR=32", "MR=1,4" } -> { NR = { 32 }, MR = { 1, 4 } }: values of a family's parameters.
function common.fixed(q, list)
  local out, known = {}, list and q.gen.kernel.parameters()
  for _, text in ipairs(list or {}) do
    local name, values = text:match "^([%w_]+)=(.+)$"
    if not name then common.misuse("--fix: %q is no NAME=VALUE[,VALUE…]", text) end
    if not known[name] then common.misuse("--fix: no kernel family has a parameter %q", name) end
    out[name] = {}
    for i, word in ipairs(common.split(values, "--fix")) do
      out[name][i] = known[name][word] or common.misuse("--fix: no kernel family has %s=%s", name, word)
    end
  end
  return out
end

-- { "NAME=LIBRARY:SYMBOL" } -> { { name, library, symbol } }
function common.functions(list)
  local out = {}
  for i, text in ipairs(list or {}) do
    local name, library, symbol = text:match "^([^=]+)=(.+):([%w_]+)$"
    if not name then common.misuse("--function: %q is no NAME=LIBRARY:SYMBOL", text) end
    out[i] = { name = name, library = library, symbol = symbol }
  end
  return out
end

-- ---- Checkpoints ----------------------------------------------------------------------------------------------------

-- The checkpoint that an argument names; --include makes linear layers of what is none by its name.
function common.model(q, path, options)
  local m, why = q.model(path)
  if not m and q.open(path) then common.fail("%s is a pack, not a model; quernel pack shows what it holds", path) end
  common.check(m, why)
  if m:remark() then common.warn("%s", m:remark()) end
  if options.include then m:include(function(t) return common.matches(t.name, options.include) end) end
  return m
end

-- How rows are spread over experts: the option, and what it says, or nil.
common.experts = { "--experts", "FILE",
  "how many rows each expert of a stack has beside the others: numbers, as a list in JSON or with blanks or commas "
  .. "between them (default: all alike)", group = "Problem" }
function common.spread_over(q, options) return options.experts and common.check(q.experts(options.experts)) or nil end

-- Options of verbs that make something of a whole model.
common.partial = { "--partial", nil, "go on without weights that cannot be read; otherwise they are an error",
  group = "Layers" }
common.include = { "--include", "PATTERN",
  "also take matrices whose names say that they are no linear layers, e.g. of vision towers; * for any characters "
  .. "(repeatable)",
  many = true, group = "Layers" }

-- Options of verbs that write a checkpoint, and the check of its place. What is said of a folder is said of no file.
common.config = { "--config", "PATH", "the folder that has config.json and the tokenizer, or a GGUF (default: where "
  .. "MODEL is)", group = "Input" }
common.replace = { "--overwrite", nil, "replace a checkpoint that is there" }
function common.output_checkpoint(q, options)
  if not options.o:lower():find "%.safetensors$" then return end
  for _, name in ipairs { "config", "overwrite" } do
    if options[name] then common.misuse("--%s goes with a folder; %s is a file of weights alone", name, options.o) end
  end
  common.output(q, options.o)
end

function common.left_out(list)
  for _, x in ipairs(list) do common.warn("left out: %s: %s", x.name, x.why) end
  if #list > 0 then common.warn("%s left out: this is a part of the model", common.count(#list, "weight")) end
end

-- ---- Text -----------------------------------------------------------------------------------------------------------

function common.us(seconds) return ("%.1f"):format(seconds * 1e6) end
-- Bytes of weights that a plan's call with M rows reads: of a stack those of the experts that some row meets. experts:
-- of q.experts, how rows go to them; nil: to all alike.
function common.read_bytes(q, plan, m, experts)
  if not plan.experts then return plan.bytes end
  return plan.bytes * q.native.experts_met(m, plan.experts, experts and experts:share(plan))
end

function common.gb(bytes, seconds) return seconds > 0 and ("%.1f"):format(bytes / seconds / 1e9) or "-" end
function common.percent(share) return share and ("%.0f%%"):format(100 * share) or "-" end

-- Is a time not to be believed? Its rounds differ by more than a tenth, or the machine was busy.
function common.doubted(spread, disturbed) return disturbed or (spread or 0) > 0.1 end

-- How far the rounds of a time are apart, with a question mark if it is not to be believed.
function common.spread(spread, disturbed)
  local text = spread and spread > 0 and ("%.1f%%"):format(100 * spread) or "-"
  if not common.doubted(spread, disturbed) then return text end
  return text == "-" and "?" or text .. " ?"
end

-- Bytes a second as a share of what plain reads beside it reached. Nothing reads faster than that: more than 110 % is a
-- fault of the measurement, and gets a question mark.
function common.roof(bytes, seconds, bandwidth)
  local share = bandwidth and bandwidth > 0 and seconds and bytes / seconds / bandwidth
  return common.percent(share or nil) .. (share and share > 1.1 and " ?" or "")
end

-- Below a table: what its question marks mean, if it has any, and how many samples counted.
function common.say_samples(rows, c, device)
  local marked = false
  for _, row in ipairs(rows) do
    for _, cell in ipairs(row) do marked = marked or tostring(cell):find "%?$" end
  end
  if marked then
    common.say("?: not to be believed: the machine was busy, or the rounds differ by more than 10%, or plain reads " ..
      "beside the kernel were slower than its own. tune takes again what it timed on a busy machine, tune --retime all")
  end
  if device.target ~= "host" then return end -- nobody looks at a GPU's samples
  if os.getenv "QUERNEL_BUSY" == "ignore" then common.say "QUERNEL_BUSY=ignore: all samples count" return end
  local text = "%d samples counted; %d were void, as the machine did something else, and were taken again; %d were " ..
    "kept although it was busy"
  common.say(text:format(c.samples - c.disturbed, c.thrown, c.disturbed))
end

function common.short(variant) -- FAMILY/FORMAT/TYPES/VALUES -> FAMILY VALUES
  return (variant:gsub("^([^/]+)/.*/([^/]+)$", "%1 %2"))
end
function common.ratio(x) return x and ("%.2fx"):format(x) or "-" end
function common.bytes(n)
  local units = { "B", "KiB", "MiB", "GiB", "TiB" }
  local i = 1
  while n >= 10240 and i < #units do n, i = n / 1024, i + 1 end
  return ("%.0f %s"):format(n, units[i])
end

function common.count(n, what) return ("%d %s%s"):format(n, what, n == 1 and "" or "s") end

local function length(text) return utf8.len(text) or #text end

-- The lines of a text that is to be `width` wide: broken at spaces, else where a name has a joint.
function common.wrapped(text, width)
  local lines = {}
  while length(text) > width do
    local room = text:sub(1, (utf8.len(text) and utf8.offset(text, width + 1) or width + 1) - 1)
    local cut = room:match "^.*%S +()" or room:match ".*[/,:-]()" or #room + 1
    lines[#lines + 1], text = text:sub(1, cut - 1):gsub("%s+$", ""), text:sub(cut)
  end
  lines[#lines + 1] = text
  return lines
end

-- Make the widest columns of text narrower until the table fits into `room`.
local function fit(width, number, room)
  local excess = 2 * (#width - 1) - room
  for _, w in ipairs(width) do excess = excess + w end
  for _, least in ipairs { 16, 8 } do -- a word of a name or of a sentence, as long as there is room for one
    while excess > 0 do
      local widest
      for i, w in ipairs(width) do
        if not number[i] and w > least and (not widest or w > width[widest]) then widest = i end
      end
      if not widest then break end
      width[widest], excess = width[widest] - 1, excess - 1
    end
  end
end

common.columns = function() end -- of the terminal that a table is printed on; nil: it is printed elsewhere

-- A sentence on standard output, in lines of the terminal's width.
function common.say(text) print(table.concat(common.wrapped(text, common.columns() or math.huge), "\n")) end

-- Columns, the first row their names; a column whose cells are numbers stands to the right. On a terminal, long cells
-- take several lines.
function common.table(rows)
  local width, number = {}, {}
  for r, row in ipairs(rows) do
    check.kind(row, "list", ("table: row %d"):format(r))
    for i, cell in ipairs(row) do
      local text = printable(tostring(cell):gsub("[\n\t]", "?"))
      row[i] = text
      width[i] = math.max(width[i] or 0, length(text))
      if r > 1 and text ~= "-" and text ~= "" then
        number[i] = number[i] ~= false and text:match "^[%-%d][%d%.e+%-]*[x%%]? ?%??$" ~= nil
      end
    end
  end
  fit(width, number, common.columns() or math.huge)
  for _, row in ipairs(rows) do
    local cells, height = {}, 1
    for i, cell in ipairs(row) do
      cells[i] = common.wrapped(cell, width[i])
      height = math.max(height, #cells[i])
    end
    for line = 1, height do
      local out = {}
      for i, lines in ipairs(cells) do
        local text = lines[line] or ""
        local pad = (" "):rep(width[i] - length(text))
        out[i] = number[i] and pad .. text or text .. pad
      end
      print((table.concat(out, "  "):gsub("%s+$", "")))
    end
  end
end

-- ---- Devices and variants -------------------------------------------------------------------------------------------

-- What to generate for: --arch, a described architecture; --device, a machine that is here; else this machine.
function common.target(q, options)
  if options.arch and options.arch ~= "host" then return common.ask(q.arch, options.arch) end
  return common.check(q.device(options.arch == "host" and "host" or options.device))
end

-- The variant of a printed name, FAMILY/FORMAT/ACT-OUT[EPILOGUE][.experts]/VALUES, and the device it is made for.
-- --shape is N and K, of a stack E too: else there are eight.
function common.variant(q, name, options)
  local family, format, types, values = name:match "^([^/]+)/([^/]+)/([%w~]+%-%w+[^/]*)/(.*)$"
  local def = family and q.gen.kernel.family(family)
  if not def then
    common.misuse("%q is no name of a variant, FAMILY/FORMAT/ACT-OUT/VALUES; quernel kernels --list prints them", name)
  end
  if def.target == "cuda" and not options.arch and not options.device then options.arch = "sm_90a" end
  local device = common.target(q, options)
  if device.target ~= def.target then
    common.misuse("%s: a kernel for %s, and %s is none", name, def.target, device.name)
  end
  local shape, own = options.shape or "4096x4096", types:gsub("%.experts$", "")
  if own ~= types and not shape:find "x.*x" then shape = "8x" .. shape end
  local problem = common.ask(q.problem, ("%s:%s:%s"):format(format, shape, own), def.target)
  if (problem.experts == nil) ~= (own == types) then
    common.misuse("--shape %s: %s is a kernel for %s", shape, name, own == types and "one weight" or "stacks")
  end
  local params, why = q.gen.kernel.params(def, values)
  if not params then common.misuse("%s: %s", name, why) end
  local v, rule = q.variant(problem, device, family, params)
  if not v then common.fail("%s on %s: %s", name, device.name, rule) end
  return v, device
end

-- The devices of a pack, and what they are to this machine.
function common.devices(pack)
  for i, d in ipairs(pack:devices()) do
    print(("device  %d: %s, %s, %d threads"):format(i, d.target, d.product, d.threads))
    common.say(("        %s"):format(pack:nearness(i)))
  end
end

-- Programs of a launch as people write them: "ceildiv(N, 64) x M".
function common.sizes(q, programs)
  local out = {}
  for i, program in ipairs(programs) do out[i] = q.gen.expr.text(program) end
  return table.concat(out, " x ")
end

-- Shared memory of a CTA, bytes: what the compiler laid out and what a launch asks for, the most of all steps.
function common.shared_memory(variant, outcome)
  local asked = 0
  for _, step in ipairs(variant.recipe.steps) do -- programs; a size that depends on no M is a single number
    asked = math.max(asked, #step.shared == 1 and math.tointeger(step.shared[1]) or 0)
  end
  return outcome.shared and outcome.shared + asked
end

-- ---- Progress -------------------------------------------------------------------------------------------------------

-- Phase and share; what is at work; the best so far and the time left.
local function progress_parts(e, share)
  local what = { e.problem, (e.m or 0) > 0 and ("M=%d"):format(e.m) or nil }
  what[#what + 1] = e.variant and common.short(e.variant) or nil
  return ("%-7s %3.0f%%  "):format(e.phase, 100 * share), table.concat(what, " "),
    (e.best and e.best > 0 and ("  best %s us"):format(common.us(e.best)) or "") ..
    (e.left and e.left > 0 and ("  %.0f s left"):format(e.left) or "")
end

-- A function for events that prints only what went wrong: a cause once, and when all is done how many more it hit.
-- Causes are the same if they differ in numbers alone.
function common.notes()
  local causes, order = {}, {}
  return function(e)
    for _, c in ipairs(e.phase == "done" and order or {}) do
      if c.more > 0 then io.stderr:write(("%d more: %s\n"):format(c.more, c.text)) end
    end
    if not e.text then return end
    local who = e.variant or e.problem or e.phase
    local at, past = e.text:find(who .. ": ", 1, true) -- some say themselves of whom they speak
    local text = at and e.text:sub(1, at - 1) .. e.text:sub(past + 1) or e.text
    local key = text:gsub("%d+", "#")
    if not causes[key] then
      causes[key] = { text = text, more = 0 }
      order[#order + 1] = causes[key]
      io.stderr:write(who, ": ", text, "\n")
    else
      causes[key].more = causes[key].more + 1
    end
  end
end

-- An output that cannot be written is found before the work.
function common.output(q, path) common.check(q.native.writable(path)) end

-- A pack that holds what the new one would not is not replaced unless that is asked for: has(problem, m, device) says
-- what the new one will hold.
function common.keep_pack(q, path, options, has)
  if not q.native.exists(path) then return end
  local lost, why = q.pack_lacks(path, has)
  if not lost then common.fail("%s; remove it, or name another file with -o", why) end
  if options.overwrite or #lost == 0 then return end
  common.fail("%s holds what this run would not: %s%s; --overwrite replaces it, -o names another", path, lost[1],
    #lost > 1 and (" and %d more"):format(#lost - 1) or "")
end

-- As both, for a pack of these problems, timed at these M on the device.
function common.output_pack(q, path, options, problems, m, device)
  local will = {}
  for _, spelling in ipairs(problems) do
    local p = q.problem(spelling, device.target).spelling
    for _, tokens in ipairs(m) do will[p .. tokens] = true end
  end
  common.output(q, path)
  common.keep_pack(q, path, options, function(problem, tokens, d)
    return will[problem .. tokens] and d.target == device.target and d.product == device.product and
      d.threads == device.threads
  end)
end
common.overwrite = { "--overwrite", nil, "replace a pack even if it holds more than the new one will" }

-- What to say of evidence if a signal ends the tool: options.kept of common.progress.
function common.kept_in(q, store)
  local root = common.check(q.store.root(store))
  return ("; what was measured is kept in %s: the same command goes on from there"):format(printable(root))
end

-- What must be known of how a run of the tuner ended.
function common.remarks(result)
  for line in result.remarks:gmatch "[^\n]+" do io.stderr:write("quernel: ", line, "\n") end
end

-- A function for events { phase, problem, variant, m, done, total, best, left, text }: on a terminal a bar that is
-- redrawn, elsewhere a line every ten seconds. nil if nothing is to be shown. options.kept: what to say of the work
-- done so far if a signal ends the tool.
function common.progress(q, options)
  local shown = not options.quiet and (not options.json or options.progress)
  local columns, last, phase = shown and (q.native.terminal "stderr" or options.progress and 80), 0, nil
  local clear, note = columns and "\r\27[K" or "", common.notes()
  q.native.parting(("%squernel: interrupted%s\n"):format(clear, options.kept or ""))
  if not shown then return nil end
  return function(e)
    local now = q.native.clock()
    if e.text or e.phase == "done" then
      io.stderr:write(clear)
      return note(e)
    end
    if now - last < (columns and 0.1 or 10) and (not columns or e.phase == phase) then return end
    last, phase = now, e.phase
    local share = e.total > 0 and math.min(1, e.done / e.total) or 0
    local bar = columns and 20 or 0
    local head, what, tail = progress_parts(e, share)
    local room = (columns or 1000) - 2 - bar - #head - #tail
    what = printable(what)
    if #what > room then what = what:sub(1, math.max(0, room - 3)) .. "..." end
    local full = math.floor(share * bar + 0.5)
    io.stderr:write(clear, ("━"):rep(full), ("─"):rep(bar - full), columns and " " or "", head, what, tail,
      columns and "" or "\n")
  end
end

return common
