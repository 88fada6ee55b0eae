-- common.lua - what several verbs need: tables of text, failures, lists, the choice of a device, progress.

local common = {}

-- End the verb: the world is bad (exit 1), or the command line is (exit 2).
function common.fail(why) error(why, 0) end
function common.misuse(text, ...) error({ misuse = text:format(...) }, 0) end
function common.check(value, why)
  if value == nil or value == false then common.fail(why) end
  return value
end

-- Columns of text; numbers to the right.
function common.table(rows)
  local width = {}
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do width[i] = math.max(width[i] or 0, utf8.len(tostring(cell))) end
  end
  for _, row in ipairs(rows) do
    local out = {}
    for i, cell in ipairs(row) do
      local text = tostring(cell)
      local pad = (" "):rep(width[i] - utf8.len(text))
      out[i] = text:match "^[%d%.%-]+[x%%]?$" and pad .. text or text .. pad
    end
    print((table.concat(out, "  "):gsub("%s+$", "")))
  end
end

function common.split(text, what)
  local out = {}
  for word in text:gmatch "[^,%s]+" do out[#out + 1] = word end
  if #out == 0 then common.misuse("%s: an empty list", what) end
  return out
end

-- "1,16,64" -> sorted list of token counts.
function common.tokens(text)
  local out = {}
  for i, word in ipairs(common.split(text, "--m")) do
    out[i] = math.tointeger(tonumber(word))
    if not out[i] or out[i] < 1 or out[i] > 1 << 20 then common.misuse("--m: %q is no number of tokens from 1 to 1048576", word) end
  end
  table.sort(out)
  for i = #out, 2, -1 do if out[i] == out[i - 1] then table.remove(out, i) end end
  return out
end

-- A device that is here, by name, or an architecture to generate for.
function common.target(q, options)
  if options.arch then return q.arch(options.arch) end
  local d, why = q.device(options.device)
  return common.check(d, why)
end

-- The variant of a printed name, "FAMILY/FORMAT/ACT-OUT[+bias]/VALUES".
function common.variant(q, name, options)
  local family, format, types, bias = name:match "^([^/]+)/([^/]+)/([%w%-]+)(%+?b?i?a?s?)/"
  local def = family and q.gen.kernel.registry[family]
  if not def then common.misuse("%q is no variant's name: FAMILY/FORMAT/ACT-OUT/VALUES; families: see quernel kernels", name) end
  local device = options.arch and q.arch(options.arch) or def.target == "cuda" and q.arch "sm_90a" or common.target(q, options)
  local problem = q.problem(("%s:4096x4096:%s%s"):format(format, types, bias), def.target)
  for _, v in ipairs((q.variants(problem, device, { family = family }))) do
    if v.name == name then return v, device end
  end
  common.fail(("%s: no such variant survives the rules of %s on %s"):format(name, family, device.name))
end

local bar = "━"
-- A progress bar on a terminal; a line every few seconds elsewhere.
function common.progress(q, quiet)
  if quiet then return nil end
  local columns, last, phase = q.native.terminal(), 0, nil
  return function(e)
    local now = q.native.clock()
    if e.text and e.text ~= "" then
      io.stderr:write(columns and "\r\27[K" or "", "  ", e.variant or "", ": ", e.text, "\n")
      return
    end
    if e.phase == "done" then
      if columns then io.stderr:write "\r\27[K" end
      return
    end
    if now - last < (columns and 0.1 or 5) and e.phase == phase then return end
    last, phase = now, e.phase
    local share = e.total > 0 and math.min(1, e.done / e.total) or 0
    local what = e.problem and ("%s M=%d"):format(e.problem, e.m) or e.variant or ""
    local best = e.best > 0 and ("  best %.1f us"):format(e.best * 1e6) or ""
    local line = ("%-7s %3d%%  %4.0f s left  %s%s"):format(e.phase, share * 100 // 1, e.left, what, best)
    if columns then
      local full = (share * 20 + 0.5) // 1
      io.stderr:write("\r\27[K", bar:rep(full), ("─"):rep(20 - full), " ", line:sub(1, math.max(20, columns - 24)))
    else
      io.stderr:write(line, "\n")
    end
  end
end

return common
