local common = require "lua.common"
return {
  name = "devices", group = "What there is", usage = "devices [--json]", summary = "the machines that kernels can be tuned for here",
  options = { { "--json", nil, "print JSON" } },
  positional = { 0, 0 },
  run = function(q, options)
    local list = q.devices()
    if options.json then
      print(q.json(list))
      return
    end
    local rows = { { "device", "product", "limits" } }
    for _, d in ipairs(list) do
      rows[#rows + 1] = { d.name, d.product, d.target == "host"
        and ("%d threads, caches %d KiB / %d KiB / %d MiB, %s"):format(d.threads, d.l1 // 1024, d.l2 // 1024, d.l3 >> 20, d.arch)
        or ("%s, %d SMs, %d KiB shared memory, driver %s"):format(d.arch, d.sms, d.smem // 1024, d.driver) }
    end
    common.table(rows)
    local gpu, why = q.device "cuda:0"
    if not gpu then print("no GPU: " .. why) end
  end,
}
