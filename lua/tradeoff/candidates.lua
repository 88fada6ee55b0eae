-- candidates.lua - what is tried: a format, a method that makes its planes, activations; FORMAT:METHOD:ACT, where ACT
-- is as in the spelling of a problem, "i8" or "f32~i8".

return function(q, native)
  -- 8-bit activations: the call rounds them, with a scale for each group of the weight. With one scale for a token, as
  -- "i8" has it, they are farther from the original and no faster (docs/tradeoff.md).
  local candidates = { narrow = "f32~i8" }

  -- The default: formats, methods, types of activations. At 8 bits every method gives the same; with few bits a zero
  -- point uses the range of a group better, and gptaq is worth its time, which is twice gptq's (docs/quantizing.md).
  local default = {
    { "int8.row int8.g32", "rtn", candidates.narrow },
    { "int4.g128 int4.g64.z int4.g32", "rtn gptq", "bf16 " .. candidates.narrow },
    { "q4_k nvfp4 mxfp4", "rtn gptq", candidates.narrow },
    { "int3.g64.z int2.g32.z", "rtn gptaq", candidates.narrow },
  }
  local methods = native.methods()
  local no_methods = { copy = true, ["as it is"] = true } -- nothing is quantized

  -- Does a method look at activations?
  local function wants_text(method) return not no_methods[method] and native.method_sees(method) ~= nil end

  -- weights, kernels: what candidates share that differ in the rest.
  function candidates.new(format, method, act)
    return { name = ("%s:%s:%s"):format(format, method, act), format = format, method = method, act = act, windows = {},
      weights = ("%s:%s"):format(format, method), kernels = ("%s:%s"):format(format, act),
      wants_text = wants_text(method) }
  end

  -- A problem in that format, with the activations that are asked for or else usual.
  local function usual(format, target, act)
    return q.problem(("%s:256x256%s"):format(format, act and ":" .. act or ""), target)
  end

  function candidates.is_quantized(m)
    for _, t in ipairs(m:tensors()) do if t.linear and t.quantized then return true end end
    return false
  end

  -- A checkpoint that was brought, as it is; of the same file name there may be several.
  function candidates.brought(path, act)
    local c = candidates.new(path:match "^(.-)/*$", "as it is", act or "bf16")
    c.path, c.weights, c.kernels = path, path, path .. ":" .. c.act
    return c
  end

  -- The candidate that a text names: FORMAT[:METHOD[:ACT]], or a checkpoint, PATH[:ACT]. Raises for what there is not.
  function candidates.parse(text, target)
    local path, type = text:match "^(.-):?([%w~]*)$"
    if native.exists(text) then return candidates.brought(text) end
    if native.exists(path) then return candidates.brought(path, type) end
    local format, method, act = text:match "^([^:]+):?([^:]*):?([^:]*)$"
    q.check.that(format, nil, "candidate %q is no FORMAT:METHOD:ACT, and no checkpoint", text)
    method = method ~= "" and q.check.among(method, methods, "method") or "rtn"
    local problem = usual(format, target, act ~= "" and act or nil)
    return candidates.new(problem.format.name, method, problem.activations)
  end

  -- The default ones. calibrated: is there a text for the methods that want one?
  function candidates.default(calibrated)
    local out = {}
    for _, x in ipairs(default) do
      for format in x[1]:gmatch "%S+" do
        for method in x[2]:gmatch "%S+" do
          for act in x[3]:gmatch "%S+" do
            if calibrated or not wants_text(method) then
              out[#out + 1] = candidates.new(q.resolve(format).name, method, act)
            end
          end
        end
      end
    end
    return out
  end

  -- The model in 16 bits: in its own type if that has 16, else bf16; with the activations that its kernels have.
  function candidates.dense(m, target)
    local format = "bf16"
    for _, t in ipairs(m:tensors()) do if t.linear and t.format == "f16" then format = "f16" end end
    local c = candidates.new(format, "copy", usual(format, target).act)
    c.dense = true
    return c
  end

  return candidates
end
