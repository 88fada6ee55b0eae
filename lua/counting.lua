-- counting.lua - what can be said of a CUDA variant without a GPU: how many CTAs a multiprocessor holds, what one call
-- does, counted by the interpreter, and the least time that memory and tensor cores allow. Bounds, never a measurement.

return function(q, native)
  local function constant(program) return #program == 1 and math.tointeger(program[1]) end

  -- CTAs that a multiprocessor of the device holds, and what limits them; `outcome` is the variant's compilation.
  -- nil where the size of a CTA depends on the call, or registers are not known: of PTX, which the interpreter runs.
  function q.occupancy(variant, outcome, device)
    local step = variant.recipe.steps[#variant.recipe.steps]
    local threads, shared = 1, constant(step.shared)
    for _, e in ipairs(step.block) do threads = threads and constant(e) and threads * constant(e) end
    if not threads or threads < 1 or not shared or (outcome.registers or 0) == 0 then return nil end
    local warps = (threads + 31) // 32
    local limits = {
      { "threads", device.threads_sm // threads },
      { "CTAs", device.ctas_sm },
      { "registers", device.regs // ((outcome.registers + 7) // 8 * 8 * 32 * warps) }, -- given out by 8 a thread
      { "shared memory", device.smem_sm // (shared + outcome.shared + 1024) },         -- 1 KiB of a CTA is the system's
    }
    table.sort(limits, function(a, b) return a[2] < b[2] end)
    local ctas = limits[1][2]
    return { ctas = ctas, by = limits[1][1], threads = threads, share = ctas * threads / device.threads_sm }
  end

  -- What a call of m tokens moves and computes at the least, and the time that data sheets allow for it.
  -- Products: NVIDIA's data sheets; bytes/s of memory, dense flop/s of f16 with f32 sums, of a multiprocessor and clock
  -- too; the share of these that mma.sync reaches.
  local products = {
    [75] = { "T4", 320e9, 65e12, 1024, 1 }, [80] = { "A100 80GB SXM", 2039e9, 312e12, 2048, 1 },
    [86] = { "RTX 3090", 936e9, 71e12, 512, 1 }, [89] = { "RTX 4090", 1008e9, 165e12, 512, 1 },
    [90] = { "H200", 4800e9, 989e12, 4096, 0.62 }, [100] = { "B200", 8000e9, 2250e12, 8192, 0.5 },
    [120] = { "RTX 5090", 1792e9, 210e12, 512, 1 },
  }
  function q.roofline(variant, device, weight_bytes, m)
    local p, product = variant.problem, products[device.sm]
    if not product then return nil end
    local all = q.gen.types.all
    local bytes = weight_bytes + m * (p.k * all[p.x].bytes + p.n * all[p.out].bytes)
    local flops = 2.0 * m * p.n * p.k
    local memory, compute = bytes / product[2], flops / product[3]
    return { bytes = bytes, flops = flops, product = product[1], seconds = math.max(memory, compute),
      by = memory > compute and "memory" or "tensor cores" }
  end

  -- The time that a call is expected to take: what is fixed, and the largest of
  --
  --   issue          instructions of the main loop, one a clock and scheduler, of which a multiprocessor has four
  --   tensor cores   products, at the rate that the kind of product reaches, 0.95 of wgmma; of 8-bit numbers twice
  --                  that of f16
  --   bytes          each operand once, at 0.9 of what the data sheet says of memory
  --
  -- of the multiprocessor that has most CTAs. From machine code and counts of a call (q.count); `bytes` as q.roofline
  -- says. nil where either is missing: of PTX, or of a kernel without tensor cores.
  function q.predict(variant, outcome, device, counters, bytes)
    local product, loop = products[device.sm], outcome.loop
    if not product or not loop or counters.mma == 0 then return nil end
    local each, flops_each = loop.instructions / loop.products, counters.mma_flops / counters.mma
    local name, rate, peak, flops, reach = table.unpack(product)
    local clock, wgmma = peak / (device.sms * flops), counters.kinds.wgmma ~= nil
    local narrow = flops_each > 4096 -- an mma.sync of 16-bit numbers has so many
    if wgmma then narrow = q.gen.types.all[variant.problem.act].bits == 8 end
    local busiest = math.ceil(counters.ctas / device.sms) / counters.ctas -- its share of all CTAs
    local p = { product = name, instructions = each, fixed = 1.75e-6, bytes = bytes / (0.9 * rate),
      issue = counters.mma * busiest * each / (4 * clock),
      tensor = counters.mma_flops * busiest / (flops * (narrow and 2 or 1) * (wgmma and 0.95 or reach) * clock) }
    for _, what in ipairs { { "issue", "issue" }, { "tensor", "tensor cores" }, { "bytes", "bytes" } } do
      if p[what[1]] > (p.most or 0) then p.most, p.by = p[what[1]], what[2] end
    end
    p.seconds, p.most = p.most + p.fixed, nil
    return p
  end

  -- The PTX of a CUDA variant, the variant with the same parameters that the interpreter runs, and that device; or nil,
  -- message, code.
  function q.ptx(variant)
    local device, why, code = q.device("emu:" .. variant.arch:gsub("^compute_", "sm_"))
    if not device then return nil, why, code end
    local twin, outcome
    twin, why, code = q.variant(variant.problem, device, variant.family, variant.params)
    if not twin then return nil, ("%s on %s: %s"):format(variant.name, device.name, why), code end
    outcome, why, code = q.compile { twin }
    if not outcome then return nil, why, code end
    if not outcome[1].ok then return nil, outcome[1].why, outcome[1].status end
    return outcome[1].image, twin, device
  end

  -- One call of m tokens at the variant's own shape on the interpreter, checked like any other: the variant with the
  -- same parameters is made for it and compiled to PTX. Of an m that the variant does not serve, the nearest that it
  -- does. experts: of q.experts, or nil. -> counters, bytes of the packed weight, m; or nil, message, code.
  function q.count(variant, m, experts)
    m = math.max(m, variant.m_min)
    if variant.m_max > 0 then m = math.min(m, variant.m_max) end
    local text, twin, device = q.ptx(variant)
    if not text then return nil, twin, device end
    local scratch, worker, why, code
    scratch, why, code = native.scratch()
    if not scratch then return nil, why, code end
    local image = scratch:path() .. "/image"
    local _ <close> = setmetatable({}, { __close = function()
      if worker then worker:close() end
      scratch:close()
    end })
    local f <close> = assert(io.open(image, "wb"))
    f:write(text)
    f:close()
    worker, why, code = native.worker(q.worker() or "quernel-worker", device.name)
    if not worker then return nil, why, code end
    local answer
    answer, why, code = worker:ask(q.json { op = "count", slot = 0, m = m,
      share = experts and experts:share(twin.problem) or nil, case = { problem = twin.problem.spelling,
      format = q.gen.format.descriptor(twin.problem.format), name = twin.name, hash = twin.hash, image = image,
      symbol = "", sum = "", layout = twin.layout, recipe = twin.recipe, m_min = twin.m_min, m_max = twin.m_max,
      m_tile = twin.m_tile } }, 600)
    if not answer then return nil, why, code end
    return answer.counters, answer.bytes, m
  end
end
