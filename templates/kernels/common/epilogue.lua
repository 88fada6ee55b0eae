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

-- What the texts of steps may call, of `F`: float, or a vector of it; e^x is the target's own.
local functions = {
  { "exponential" },
  { "positive" },
  { "magnitude" },
  { "tail", [[
    /* The normal distribution beyond x >= 0, within 7.5e-8. */
    fn ${F} tail(${F} x) {
      ${F} t = 1.0f / (1.0f + 0.231641888f * x);
      ${F} p = 0.127414796f + t * (-0.142248368f + t * (0.710706871f + t * (-0.726576013f + t * 0.530702714f)));
      return exponential(-0.5f * x * x) * t * p;
    }
  ]], calls = "exponential" },
}

-- The functions that the steps call: `own` has those which the target writes itself.
function epilogue.functions(w, v, F, own)
  local called = {}
  for _, s in ipairs(v.problem.steps) do
    for _, f in ipairs(functions) do
      if s.text:find("%f[%w_]" .. f[1] .. "%(") then called[f[1]], called[f.calls or f[1]] = true, true end
    end
  end
  for _, f in ipairs(functions) do
    if called[f[1]] then w(f[2] or own[f[1]], { F = F }) end
  end
end

local function put(text, name, by) return (text:gsub("%f[%w_]" .. name .. "%f[^%w_]", by)) end

-- The lines that turn the sum `v`, with *gate that of the gate's row beside `up`, into what is stored.
-- read(operand, up): text that gives its element, or elements, for `v`, or for `up`.
function epilogue.steps(w, v, read)
  local operands, both = {}, v.problem.gated
  for _, o in ipairs(v.problem.operands) do operands[o.name] = o end
  for _, s in ipairs(v.problem.steps) do
    local o = operands[s.operand]
    if s.pairs then both = false end
    w("v = ${STEP}; /* ${NAME} */",
      { STEP = put(s.text, "o", s.pairs and "up" or o and read(o) or "o"), NAME = s.spelling })
    if both and o then w("up = ${STEP};", { STEP = put(put(s.text, "v", "up"), "o", read(o, true)) }) end
  end
end

return epilogue
