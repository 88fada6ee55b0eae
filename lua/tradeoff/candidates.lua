-- candidates.lua - what is tried: a format, a method that makes its planes, a type of activations; FORMAT:METHOD:ACT.

return function(q)
  local candidates = {}

  -- The default: { formats, methods, types of activations }. At 8 bits every method gives the same; with few bits the
  -- range of a group is used better with a zero point.
  local default = {
    { "int8.row", "rtn", "i8" },
    { "int4.g128 int4.g64.z int4.g32", "rtn gptq", "bf16 i8" },
    { "q4_k nvfp4 mxfp4", "rtn gptq", "i8" },
    { "int3.g64.z int2.g32.z", "rtn gptq", "i8" },
  }
  local needs_text = { gptq = true, gptaq = true, awq = true, imatrix = true } -- methods that look at activations

  local function candidate(format, method, act)
    return { name = ("%s:%s:%s"):format(format, method, act), format = format, method = method, act = act, windows = {},
      weights = ("%s:%s"):format(format, method), kernels = ("%s:%s"):format(format, act) }
  end

  -- The candidate that a text names. METHOD may be left out, then ACT, too. Raises for what there is not.
  function candidates.parse(text, methods, target)
    local format, method, act = text:match "^([^:]+):?([^:]*):?([^:]*)$"
    q.check.that(format, nil, "candidate %q is no FORMAT:METHOD:ACT", text)
    method = method ~= "" and q.check.among(method, methods, "method") or "rtn"
    local problem = q.problem(("%s:256x256"):format(format), target, act ~= "" and act or nil)
    return candidate(problem.format.name, method, problem.act)
  end

  -- The default ones. calibrated: is there a text for the methods that want one?
  function candidates.default(methods, calibrated)
    local out, known = {}, {}
    for _, m in ipairs(methods) do known[m] = calibrated or not needs_text[m] end
    for _, x in ipairs(default) do
      for format in x[1]:gmatch "%S+" do
        for method in x[2]:gmatch "%S+" do
          for act in x[3]:gmatch "%S+" do
            if known[method] then out[#out + 1] = candidate(q.resolve(format).name, method, act) end
          end
        end
      end
    end
    return out
  end

  -- The model's own weights in 16 bits, with the activations of the target's dense product.
  function candidates.dense(format, target)
    local problem = q.problem(format .. ":256x256", target)
    local c = candidate(format, "copy", problem.act)
    c.dense = true
    return c
  end

  function candidates.wants_text(c) return needs_text[c.method] or false end

  return candidates
end
