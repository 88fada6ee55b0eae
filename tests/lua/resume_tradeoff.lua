-- resume_tradeoff.lua FOLDER STORE - a small trade-off for test_resume.c, with the plainest kernels. Prints all that it
-- found.
local q = require "quernel"
local folder, store = table.unpack(arg)
local root = arg[0]:match "^(.*)/lua/[^/]*$"

-- Ids that mean nothing, in a file beside the folder.
local function text(name, n, seed)
  local ids = {}
  for i = 1, n do
    seed = (seed * 1103515245 + 12345) % 2147483648
    ids[i] = seed // 65536 % 96
  end
  assert(q.native.file_write(name, ('{"input_ids":[%s]}\n'):format(table.concat(ids, ","))))
  return { name }
end

local tune = q.tune
function q.tune(o)
  o.budget, o.fixed = 1e-3, { ISA = "c", NR = 16 }
  local result, why, code = tune(o)
  if result then result.counts.cut = 0 end -- a run that was given more time would tune again
  return result, why, code
end

local r = assert(q.tradeoff { model = root .. "/models/arch/llama", texts = text("a.jsonl", 2000, 1),
  calibrate = text("b.jsonl", 2000, 7), ctx = 16, folder = folder, store = store, device = "host:1",
  only = { "int8.row:rtn:bf16", "int4.g32:rtn:bf16", "int4.g32:gptq:bf16" } })
r.peak_memory = nil
for _, c in ipairs(r.candidates) do c.commands = nil end
print(q.json { r.candidates, r.verdict, r.floor })
