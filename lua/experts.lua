-- experts.lua - how tokens are spread over the experts of a stack while it is timed, where not evenly.

return function(q, native)
  local experts = {}
  experts.__index = experts

  local kind = "a weight or a count for each expert, as a list in JSON or with blanks or commas between them"

  -- The numbers of a text. nil, message.
  local function numbers_in(text)
    if text:find "^%s*[%[{\"]" then
      local ok, list = pcall(native.parse_json, text)
      if not ok then return nil, "is no JSON; wanted is " .. kind end
      if type(list) ~= "table" or next(list) ~= nil and #list == 0 then return nil, "is no list; wanted is " .. kind end
      return list
    end
    local out = {}
    for word in text:gmatch "[^%s,]+" do out[#out + 1] = tonumber(word) or word end
    return out
  end

  -- Are these weights? nil, message.
  local function check(list)
    local sum = 0
    if #list == 0 then return nil, "holds no number; wanted is " .. kind end
    for i, x in ipairs(list) do
      if type(x) ~= "number" or not (x >= 0 and x < math.huge) then
        return nil, ("expert %d has %s; wanted is a number from 0 on"):format(i - 1,
          type(x) == "string" and native.printable(x) or tostring(x))
      end
      sum = sum + x
    end
    if sum > 0 and sum < math.huge then return true end
    return nil, "the sum of all is " .. (sum > 0 and "beyond all numbers" or "0")
  end

  -- A spread over experts: of a file, or a list of numbers. { name = what evidence has behind the problem's spelling,
  -- "" for an even one, weights = list }. Those of the same shares have the same name. nil, message, code.
  function q.experts(source)
    q.check.kind(source, "string|table", "experts: a path or a list")
    if getmetatable(source) == experts then return source end
    local list, why = source, nil
    if type(source) == "string" then
      local file = io.open(source, "rb")
      local text = file and file:read "a"
      if file then file:close() end
      if not text then return nil, ("%s: cannot be read"):format(source), "QN_E_IO" end
      list, why = numbers_in(text)
    end
    local ok = list
    if list then ok, why = check(list) end
    if not ok then return nil, ("%s: %s"):format(type(source) == "string" and source or "experts", why), "QN_E_ARG" end
    local sum, shares, even = 0, {}, true
    for _, x in ipairs(list) do sum, even = sum + x, even and x == list[1] end
    for i, x in ipairs(list) do shares[i] = ("%.6g"):format(x / sum) end
    local name = even and "" or "@" .. native.hash(table.concat(shares, " ")):sub(1, 16)
    return setmetatable({ name = name, weights = list, source = type(source) == "string" and source or nil },
      experts)
  end

  -- Do these problems or plans have a stack, and all of them as many experts? nil, message, code.
  function experts:fit(list)
    local stacks = 0
    for _, p in ipairs(list) do
      if p.experts and p.experts ~= #self.weights then
        return nil, ("%s: %d numbers; %s has %d experts"):format(self.source or "experts", #self.weights,
          p.spelling or p.problem, p.experts), "QN_E_ARG"
      end
      stacks = stacks + (p.experts and 1 or 0)
    end
    if stacks > 0 then return true end
    return nil, ("%s: there is no stack of experts, FORMAT:ExNxK"):format(self.source or "experts"), "QN_E_ARG"
  end

  -- Where a problem's rows go: a number for each expert; nil: to all alike.
  function experts:share(p) return p.experts and self.name ~= "" and self.weights or nil end

  -- How many of them have rows when m rows are timed.
  function experts:met(m) return native.experts_met(m, #self.weights, self.name ~= "" and self.weights or nil) end
end
