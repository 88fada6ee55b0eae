-- epilogue.lua - what becomes of a sum before it is stored: the steps of a problem's epilogue, for every target.
--
-- What a step does is one row of runtime/epilogue.h, in text that C and CUDA share. A target says how it declares the
-- hook, and how an operand is read there.

local epilogue = {}

-- Does a variant's problem have one?
function epilogue.any(v) return v.problem.steps[1] ~= nil end

-- Behind the types, in the head of a source.
function epilogue.remark(v) return epilogue.any(v) and ", epilogue " .. v.problem.epilogue or "" end

-- Operands that the steps read, in the order of the problem's.
function epilogue.operands(v)
  local read, out = {}, {}
  for _, s in ipairs(v.problem.steps) do if s.operand then read[s.operand] = true end end
  for _, o in ipairs(v.problem.operands) do if read[o.name] then out[#out + 1] = o end end
  return out
end

-- The lines that turn the sum `v` into what is stored. read(operand): text that gives its element, or elements.
function epilogue.steps(w, v, read)
  local o = {}
  for _, operand in ipairs(epilogue.operands(v)) do o[operand.name] = read(operand) end
  for _, s in ipairs(v.problem.steps) do
    w("v = ${STEP}; /* ${NAME} */", { STEP = s.text:gsub("%f[%w_]o%f[^%w_]", o[s.operand] or "o"), NAME = s.spelling })
  end
end

return epilogue
