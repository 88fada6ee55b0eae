-- elsewhere.lua - which other servers take a candidate's checkpoint, and the command that makes what they read.

local common, serving = require "lua.common", require "lua.serving"

return function(q)
  -- Formats of a checkpoint's layers, sorted; dialects in which they are; is its head among them?
  local function formats_of(m)
    local formats, dialects, head = {}, {}, false
    for _, t in ipairs(m:tensors()) do
      if t.linear and t.quantized and not t.tied_to then
        formats[t.format], dialects[t.dialect:match "^[^/]*"] = true, true
        head = head or t.role == "head"
      end
    end
    return q.check.sorted_keys(formats), dialects, head
  end

  local function command(place, x, out)
    local words = { "convert", place, "--to", x.to }
    if x.activations then table.move({ "--activations", x.activations }, 1, 2, #words + 1, words) end
    table.move({ "-o", out .. (x.to == "gguf" and ".gguf" or "-" .. x.to) }, 1, 2, #words + 1, words)
    return common.command("quernel", words)
  end

  -- place: of the checkpoint; act: the activations that it was measured with; out: where a command writes, but for the
  -- ending. -> a sentence; list of { stacks, to, activations, command, or why convert refuses; neither if the
  -- checkpoint is in that dialect already }
  return function(place, act, out)
    local m = assert(q.model(place))
    local formats, dialects, head = formats_of(m)
    local found, rest = serving.of(formats, act)
    local sentence = serving.sentence(formats, act, found, rest)
    for _, x in ipairs(found) do
      if not dialects[x.to] then
        local ok, why = m:exports { to = x.to, activations = x.activations }
        x.command, x.why = ok and command(place, x, out) or nil, why
      end
    end
    if head and #found > 0 then sentence = sentence .. " The head is quantized, too, which not all of them read." end
    return sentence, found
  end
end
