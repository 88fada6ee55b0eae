local common = require "lua.common"

local function limits(d)
  if d.target == "cuda" then
    return ("%s, %d SMs, %d KiB of shared memory a CTA, driver %s"):format(d.arch, d.sms, d.smem // 1024, d.driver)
  end
  local text = "%d threads; caches %d KiB, %d KiB, %d MiB; %s"
  return text:format(d.threads, d.l1 // 1024, d.l2 // 1024, d.l3 >> 20, d.arch)
end

return {
  name = "devices", usage = "[--json]", arguments = { 0, 0 },
  summary = "list the machines that kernels can be tuned for here, and the compilers",
  examples = { "", "--json" },
  options = { { "--json", nil, "print JSON" } },
  run = function(q, options)
    local list, compilers = q.devices(), {}
    for _, target in ipairs { "host", "cuda" } do
      local version, why = q.native.compiler(target)
      compilers[target] = version or "none: " .. why
    end
    local gpu, why = q.device "cuda:0"
    if options.json then
      print(q.json { devices = list, compilers = compilers, no_gpu = not gpu and why or nil })
      return
    end
    local rows = { { "device", "product", "limits" } }
    for _, d in ipairs(list) do rows[#rows + 1] = { d.name, d.product, limits(d) } end
    common.table(rows)
    if not gpu then print("\nno GPU: " .. why) end
    print(("\ncompiler for host: %s\ncompiler for CUDA: %s"):format(compilers.host, compilers.cuda))
  end,
}
