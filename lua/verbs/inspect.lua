local common = require "lua.common"

return {
  name = "inspect", usage = "MODEL [--json]", arguments = { 1, 1 },
  summary = "list every weight of a checkpoint: dialect, format, shape, bits, memory against fp16",
  examples = { "model.gguf", "MODEL --json" },
  options = { { "--json", nil, "print JSON" } },
  run = function(q, options)
    local model = common.model(q, options[1], options)
    local list = model:tensors()
    if options.json then print(q.json(list)) return end
    local rows, bytes, half = { { "weight", "role", "dialect", "format", "N", "K", "bits", "bytes", "of fp16" } }, 0, 0
    local refused = {}
    for _, t in ipairs(list) do
      local fp16 = 2 * t.n * t.k * t.slices
      rows[#rows + 1] = { t.name .. (t.slices > 1 and (" x %d"):format(t.slices) or ""), t.role, t.dialect,
        t.format or "-", t.n > 0 and t.n or "-", t.k > 0 and t.k or "-", ("%.2f"):format(t.bpw), t.bytes,
        fp16 > 0 and common.percent(t.bytes / fp16) or "-" }
      if t.refusal then refused[#refused + 1] = ("%s: %s"):format(t.name, t.refusal) end
      if not t.tied_to then bytes, half = bytes + t.bytes, half + (fp16 > 0 and fp16 or t.bytes) end
    end
    common.table(rows)
    local share = common.percent(half > 0 and bytes / half or nil)
    print(("%d weights, %s, %s of fp16%s"):format(#list, common.bytes(bytes), share,
      #refused > 0 and ("; %d cannot be read and are left out"):format(#refused) or ""))
    for _, text in ipairs(refused) do print("cannot be read: " .. text) end
    for _, s in ipairs(model:stacks()) do
      print(("stack %s: %s"):format(s.name, s.format and model.shape_of(s) or "cannot be read as one: " .. s.refusal))
    end
    local architecture, why = model:architecture()
    print(architecture and ("architecture %s: can be evaluated"):format(architecture) or "cannot be evaluated: " .. why)
  end,
}
