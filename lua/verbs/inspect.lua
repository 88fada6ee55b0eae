local common = require "lua.common"
return {
  name = "inspect", group = "Packs and models", usage = "inspect MODEL [--json]", summary = "every weight of a checkpoint: dialect, format, shape, bits, memory against fp16",
  options = { { "--json", nil, "print JSON" } },
  positional = { 1, 1 },
  run = function(q, options)
    local list = common.check(q.model(options[1])):tensors()
    if options.json then print(q.json(list)) return end
    local rows, bytes, half = { { "weight", "dialect", "format", "N", "K", "bits", "bytes", "of fp16" } }, 0, 0
    for _, t in ipairs(list) do
      local fp16 = 2 * t.n * t.k * t.slices
      rows[#rows + 1] = { t.name, t.dialect, t.format or t.refusal or "-", t.n, t.k, ("%.2f"):format(t.bpw), t.bytes, fp16 > 0 and ("%.0f%%"):format(100 * t.bytes / fp16) or "-" }
      bytes, half = bytes + t.bytes, half + (fp16 > 0 and fp16 or t.bytes)
    end
    common.table(rows)
    print(("%d weights, %d bytes, %.0f%% of fp16"):format(#list, bytes, 100 * bytes / half))
  end,
}
