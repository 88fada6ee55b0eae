-- The module end to end: tune one small problem, pack, serve, verify, bench, and what the store keeps.
local q = require "quernel"

local N, K, GROUP = 80, 160, 32
local problem = ("int4.g%d:%dx%d:f32-f32"):format(GROUP, N, K)

-- A quick run: one portable variant of each family at two M. The store is the test program's own, so that later cases
-- know it.
local function tune(extra)
  local seen = {}
  local function first(name)
    local family = name:match "^[^/]+"
    if seen[family] then return false end
    seen[family] = true
    return true
  end
  local options = { problems = { problem }, m = { 1, 5 }, effort = "quick", dense = false, fixed = { ISA = "c" },
    only = first }
  for key, x in pairs(extra or {}) do options[key] = x end
  return q.tune(options)
end

local function packed(t)
  local path = t.scratch .. "/measure.qpack"
  assert(q.pack(assert(tune()), path))
  return path
end

-- A weight, activations, and the product by the formula.
local function example(m)
  local groups = K // GROUP
  local codes = q.ffi.buffer("u8", N * K):fill(function(i) return i * 7 % 16 end)
  local scale = q.ffi.buffer("f16", N * groups):fill(function(i) return 2.0 ^ -(i % 4) end)
  local planes = q.planes(("int4.g%d"):format(GROUP), N, K,
    { { name = "codes", data = codes }, { name = "scale", data = scale, cols = groups } })
  local x = q.ffi.buffer("f32", m * K):fill(function(i) return i * 5 % 9 - 4 end)
  local function y(row, n)
    local sum = 0.0
    for k = 0, K - 1 do
      local w = (codes[n * K + k + 1] - 8) * scale[n * groups + k // GROUP + 1]
      sum = sum + x[row * K + k + 1] * w
    end
    return sum
  end
  return planes, x, y
end

return {
  { "tuning gives plans for every M, and counts", function(t)
    local phases = {}
    local r = assert(tune { progress = function(e) phases[e.phase] = true end })
    t.check(r.counts.compiled + r.counts.compile_known >= 1)
    t.check(next(phases), "progress was told")
    local plan
    for _, p in ipairs(r.plans) do
      if p.kind == "fastest" and p.problem == problem then plan = p end
    end
    t.check(plan, "there is a plan")
    t.equal(plan.ranges[1].m_min, 1)
    for _, range in ipairs(plan.ranges) do
      t.check(#range.points > 0 and range.error <= 1)
      for _, x in ipairs(range.points) do t.check(x.seconds > 0) end
    end
    local again = assert(tune())
    t.equal(again.counts.compiled, 0)
    t.equal(again.counts.verified, 0)
    t.equal(again.counts.timed, 0)
  end },

  { "an error in the progress function comes out", function(t)
    t.fails("stop here", tune, { progress = function() error "stop here" end })
  end },

  { "a pack of it computes the product exactly", function(t)
    local pack = assert(q.open(packed(t)))
    local gemm = assert(pack:bind(problem))
    t.equal(select(2, gemm:problem()), "exact")
    local m = 5
    local planes, x, expected = example(m)
    local weight = assert(gemm:prepack(planes))
    local y = q.ffi.buffer("f32", m * N)
    assert(gemm:run { weight = weight, x = x, y = y, m = m })
    for row = 0, m - 1 do
      for n = 0, N - 1 do t.equal(y[row * N + n + 1], expected(row, n), ("Y[%d, %d]"):format(row, n)) end
    end
    t.check(gemm:kernel(m):find "int4.g32")
  end },

  { "X in floats is rounded in the call; a row that is not finite is no other's", function(t)
    local rounded = ("int4.g%d:%dx%d:f32~i8-f32"):format(GROUP, N, K)
    local path, m = t.scratch .. "/rounded.qpack", 3
    assert(q.pack(assert(tune { problems = { rounded }, check_only = true }), path))
    local gemm = assert(assert(q.open(path)):bind(rounded))
    local planes, x, expected = example(m)
    for i = 1, m * K, GROUP do x[i] = 127 end -- the scale of each group is 1, and nothing is lost
    local inf = 3 * K // 2
    local lost = x[inf]
    local weight, y = assert(gemm:prepack(planes)), q.ffi.buffer("f32", m * N)
    local call = { weight = weight, x = x, y = y, m = m }
    assert(gemm:run(call))
    for i = 1, m * N do t.equal(y[i], expected((i - 1) // N, (i - 1) % N)) end
    for _, odd in ipairs { 1 / 0, 0 / 0 } do
      x[inf] = odd
      assert(gemm:run(call))
      x[inf] = lost
      for i = 1, m * N do
        local finite = math.abs(y[i]) < 1 / 0
        t.equal(finite, (i - 1) // N ~= 1, ("Y[%d] = %s"):format(i, y[i]))
      end
    end
  end },

  { "X in floats is rounded by the groups of a weight in act-order, whose columns stand in other places", function(t)
    local model = assert(q.model(QN_TESTS .. "/models/tiny-llama-gptq4-act"))
    local name = "model.layers.2.mlp.down_proj.weight"
    local planes, w = assert(model:planes(name)), assert(model:dequantize(name))
    local info, m, path = planes:info(), 3, t.scratch .. "/order.qpack"
    t.check(info.perm)
    local spelling = ("%s:%dx%d:f32~i8-f32"):format(info.format, info.n, info.k)
    assert(q.pack(assert(tune { problems = { spelling }, check_only = true }), path))
    local gemm = assert(assert(q.open(path)):bind(spelling))
    -- Each row is of one magnitude: so is each group of it, and its codes are exact. One that goes by another row's, or
    -- by places of X that are not the weight's, is not.
    local x = q.ffi.buffer("f32", m * info.k):fill(function(i)
      return (i * 5 % 7 < 3 and -1 or 1) * 127.0 * (1 << (i - 1) // info.k)
    end)
    local y = q.ffi.buffer("f32", m * info.n)
    assert(gemm:run { weight = assert(gemm:prepack(planes)), x = x, y = y, m = m })
    for row = 0, m - 1 do
      for n = 0, info.n - 1 do
        local sum, most = 0, 0
        for k = 1, info.k do
          local term = w[n * info.k + k] * x[row * info.k + k]
          sum, most = sum + term, most + math.abs(term)
        end
        t.check(math.abs(y[row * info.n + n + 1] - sum) <= 1e-5 * most, ("Y[%d, %d]"):format(row, n))
      end
    end
  end },

  { "the threads that were asked for are tuned and served with; a spelling that is tuned is bound", function(t)
    local spelling = ("int4.g%d.f16:%dx%d:f32"):format(GROUP, N, K) -- f16 is what it is anyway
    local r = assert(tune { problems = { spelling }, device = "host:1", budget = 1, store = t.scratch .. "/one" })
    t.equal(r.threads, 1)
    local path = t.scratch .. "/one.qpack"
    assert(q.pack(r, path))
    local pack = assert(q.open(path))
    t.equal(pack:devices()[1].threads, 1)
    t.equal(pack:device().threads, 1)
    t.equal(select(2, assert(pack:bind(spelling)):problem()), "exact")
    for _, name in ipairs { "host:0", "host:99999", "host:x" } do
      local none, why, code = tune { device = name }
      t.check(not none and code == "QN_E_ARG" and why:find "from 1 to %d+, the CPUs", why)
    end
  end },

  { "CUDA kernels are served by the interpreter, which is never timed", function(t)
    local cuda = ("int4.g%d:%dx%d:f16-f32"):format(GROUP, N, K)
    local options = { problems = { cuda }, device = "emu:sm_90a", family = "cuda.decode",
      fixed = { BM = 8, WN = 4, UNROLL = 4, SPLIT = 1 }, check_only = true,
      store = t.scratch .. "/emulated" }
    local path, m = t.scratch .. "/cuda.qpack", 3
    assert(q.pack(assert(q.tune(options)), path))
    local gemm = assert(assert(q.open(path, { device = "emu:sm_90a" })):bind(cuda))
    t.equal(select(2, gemm:problem()), "generic")
    local planes, x, expected = example(m)
    local y = q.ffi.buffer("f32", m * N)
    assert(gemm:run { weight = assert(gemm:prepack(planes)), x = x:convert "f16", y = y, m = m })
    for row = 0, m - 1 do
      for n = 0, N - 1 do t.equal(y[row * N + n + 1], expected(row, n), ("Y[%d, %d]"):format(row, n)) end
    end
    options.check_only = nil
    local none, why, code = q.tune(options)
    t.check(not none and why:find "must not be timed", why)
    t.equal(code, "QN_E_DEVICE")
  end },

  -- A kernel that does not gather X, one that has slots besides, for which K is another's, longer, and one that
  -- gathers. Nothing is timed here, so that only kernels for any number of tokens are packed: they are made such.
  { "a weight in act-order is served by CUDA kernels, which leave the counters zero", function(t)
    local model = assert(q.model(QN_TESTS .. "/models/tiny-llama-gptq4-act"))
    local name = "model.layers.2.mlp.down_proj.weight"
    local planes, w = assert(model:planes(name)), assert(model:dequantize(name))
    local info = planes:info()
    local spelling = "%s:%dx%d:f16-f32"
    local cuda, longer = spelling:format(info.format, info.n, info.k), spelling:format(info.format, info.n, 2 * info.k)
    local x = q.ffi.buffer("f32", 9 * info.k):fill(function(i) return i * 5 % 9 - 4 end)
    t.check(info.perm)
    for _, def in ipairs(q.kernels()) do def.m = nil end
    for i, kernels in ipairs { { "cuda.mma", 1, 32 }, { "cuda.mma", 2, 32 }, { "cuda.decode", 1, 8 } } do
      local family, split, tokens = table.unpack(kernels)
      local path = ("%s/order%d.qpack"):format(t.scratch, i)
      assert(q.pack(assert(q.tune { problems = { longer }, device = "emu:sm_80", family = family, check_only = true,
        fixed = { BM = tokens, BN = 64, BK = 64, STAGES = 4, SCALE = "sum", SPLIT = split, WN = 4, WK = 2, UNROLL = 4 },
        store = t.scratch .. "/emulated" }), path))
      local gemm = assert(assert(q.open(path, { device = "emu:sm_80" })):bind(cuda))
      local weight = assert(gemm:prepack(planes))
      t.equal(gemm:kernel(1):match "^[%w.]+", family)
      t.equal(gemm:workspace(1) > 0, family == "cuda.mma")
      for _, m in ipairs { 1, 9 } do
        local y, counters = q.ffi.buffer("f32", m * info.n), q.ffi.buffer("u8", gemm:counters(m) + 256)
        local workspace = q.ffi.buffer("u8", gemm:workspace(m) + 256):fill(function() return 255 end) -- NaN
        assert(gemm:run { weight = weight, x = x:convert "f16", y = y, m = m, workspace = workspace,
          counters = counters })
        for at = 1, #counters do t.equal(counters[at], 0) end
        t.equal(#counters > 256, split == 2)
        local call = { weight = weight, x = x:convert "f16", y = y, m = m }
        assert(gemm:run(call))
        t.equal(call.workspace, nil)
        for at = 0, m * info.n - 1, 7 do
          local sum, size = 0.0, 0.0
          for k = 1, info.k do
            local p = x[at // info.n * info.k + k] * w[at % info.n * info.k + k]
            sum, size = sum + p, size + math.abs(p)
          end
          t.check(math.abs(y[at + 1] - sum) <= 2.0 ^ -9 * size,
            ("%s, M = %d: Y[%d] is %g, not %g"):format(gemm:kernel(m), m, at, y[at + 1], sum))
        end
      end
    end
  end },

  { "a kernel reads W by a tensor map that its recipe describes", function(t)
    local dense, path = "f16:64x128:f16-f16", t.scratch .. "/map.qpack"
    assert(q.load(t.tests .. "/lua/tensor_map.lua"))
    local r = assert(q.tune { problems = { dense }, device = "emu:sm_90a", family = "cuda.map", check_only = true,
      store = t.scratch .. "/emulated" })
    t.equal(r.counts.verified, 1)
    t.equal(r.counts.rejected, 0)
    assert(q.pack(r, path))
    local gemm = assert(assert(q.open(path, { device = "emu:sm_90a" })):bind(dense))
    t.equal(gemm:kernel(1):match "^[%w.]+", "cuda.map")
  end },

  { "arguments that do not fit are refused", function(t)
    local gemm = assert(assert(q.open(packed(t))):bind(problem))
    local planes, x = example(1)
    local weight, y = assert(gemm:prepack(planes)), q.ffi.buffer("f32", N)
    t.fails("x is missing", gemm.run, gemm, { weight = weight, y = y })
    t.fails("y holds 80 elements, 160 are needed", gemm.run, gemm,
      { weight = weight, x = q.ffi.buffer("f32", 2 * K), y = y, m = 2 })
    t.fails("x holds bf16, the problem wants f32", gemm.run, gemm, { weight = weight, x = x:convert "bf16", y = y })
    t.fails("m = 0 is outside", gemm.run, gemm, { weight = weight, x = x, y = y, m = 0 })
    t.fails("ldx = 4611686018427387904 is beyond", gemm.run, gemm,
      { weight = weight, x = x, y = y, m = 3, ldx = 1 << 62 })
    t.fails('run: field "wieght" is not known; did you mean "weight"%?', gemm.run, gemm,
      { wieght = weight, x = x, y = y })
    t.fails("x is missing", gemm.run, gemm,
      setmetatable({ weight = weight, y = y }, { __index = { x = x } })) -- a table alone keeps what it is asked for
    t.fails("ldx = 3 is less than 160", gemm.run, gemm, { weight = weight, x = x, y = y, ldx = 3 })
    local none, why, code = assert(q.open(packed(t))):bind "nf4.g64:8x8:f32-f32"
    t.check(not none and why, why)
    t.equal(code, "QN_E_NO_KERNEL")
  end },

  { "every kernel of the pack verifies, and is timed", function(t)
    local pack = assert(q.open(packed(t)))
    local seen = 0
    local done, failed = assert(pack:verify(function(_, _, _, error_, why)
      seen = seen + 1
      t.check(error_, why)
    end))
    t.equal(done, seen)
    t.equal(failed, 0)
    local list = assert(pack:bench { reps = 2, m = { 1, 3 } })
    t.equal(#list, 2)
    for _, x in ipairs(list) do t.check(x.seconds > 0 and x.problem == problem) end
  end },

  { "what a pack holds", function(t)
    local pack = assert(q.open(packed(t)))
    t.equal(#pack:hash(), 32)
    t.equal(pack:devices()[1].target, "host")
    t.check(#pack:kernels() >= 1)
    for _, p in ipairs(pack:plans()) do t.equal(p.format, "int4.g32") end
  end },

  { "a damaged or missing pack is nil and a reason", function(t)
    local f = assert(io.open(packed(t), "rb"))
    local text = f:read "a"
    f:close()
    local bad = t.write("bad.qpack", text:sub(1, 300) .. "x" .. text:sub(302))
    local pack, why, code = q.open(bad)
    t.check(not pack and why:find "bad.qpack", why)
    t.equal(code, "QN_E_FORMAT")
    pack, why, code = q.open(t.scratch .. "/none.qpack")
    t.check(not pack, why)
    t.equal(code, "QN_E_IO")
  end },

  { "a user's format is tuned like any other", function(t)
    q.format { name = "int5_test", doc = "five bits", bits = 5, group = { 32 }, planes = { scale = { "f16" } },
      decode = function(code, p) return (code - 16) * p.scale end }
    local r = assert(tune { problems = { "int5_test.g32:64x64:f32-f32" }, m = { 1 } })
    t.check(#r.plans > 0)
  end },

  { "the store knows what was seen", function(t)
    assert(tune())
    local store = assert(q.store.open())
    t.check(store:path():find(t.scratch, 1, true), store:path())
    local races = 0
    for _, e in ipairs(assert(store:entries "evidence")) do
      if e.key:find("race " .. problem, 1, true) then
        races = races + 1
        t.check(e.value.seconds > 0)
      end
    end
    t.check(races >= 2, races .. " races")
    t.equal(#assert(q.store.verify()), 0)
    t.equal(#assert(q.store.list()), 1)
    local other = t.scratch .. "/other"
    t.check(assert(q.store.merge(other, os.getenv "QUERNEL_CACHE")).copied > 0)
    t.equal(#assert(q.store.diff(other, os.getenv "QUERNEL_CACHE")), 0)
  end },

  { "without an AVX-512 machine every problem still has a kernel for any number of tokens", function(t)
    local d = q.device "host"
    d.arch, d.isa = "x86-64", { ["x86-64"] = true }
    for _, act in ipairs { "f32", "bf16", "i8" } do
      local all = 0
      for _, v in ipairs((q.variants("int4.g128:64x256:" .. act, d))) do all = all + (v.m_max == 0 and 1 or 0) end
      t.check(all > 0, act)
    end
  end },

  { "a function of the user's own is verified, raced and served", function(t)
    local mine = { name = "mine", library = t.library, symbol = "product", layout = "record.n16v1",
      batch_invariant = true }
    local spelling = ("int4.g%d.f32:%dx%d:f32-f32"):format(GROUP, N, K)
    local function contest(f)
      return assert(tune { problems = { spelling }, fixed = { ISA = "c", NR = 16 }, functions = { f } })
    end
    local r = contest(mine)
    t.equal(r.counts.rejected, 0)
    local seen
    for _, e in ipairs(assert(assert(q.store.open()):entries "evidence")) do
      seen = seen or e.key:find("race " .. spelling, 1, true) and e.value.name:find "^function/" and e.value.seconds > 0
    end
    t.check(seen, "it was timed")
    local path = t.scratch .. "/function.qpack"
    assert(q.pack(r, path))
    t.equal(select(2, assert(assert(q.open(path, { functions = { mine } })):verify())), 0)
    t.equal(select(2, assert(assert(q.open(path)):verify())), 0) -- the runners-up
    r = contest { name = "wrong", library = t.library, symbol = "scale" }
    t.check(r.counts.rejected >= 1)
    t.fails('functions%[1%] x needs the field "symbol"', contest, { name = "x", library = t.library })
    local none, why = tune { functions = { { name = "x", library = "/nowhere.so", symbol = "f" } } }
    t.check(not none and why:find "/nowhere.so", why)
    none, why = q.open(path, { functions = { { name = "mine", library = t.library, symbol = "nothing_there" } } })
    t.check(not none and why:find "nothing_there", why)
  end },

  { "a problem that no family takes says so", function(t)
    local r, why, code = tune { only = function() return false end }
    t.check(not r and why:find "no kernel of any family takes it", why)
    t.equal(code, "QN_E_NO_KERNEL")
  end },

  { "what tune, pack and their like are given is checked", function(t)
    local p = { problem }
    for text, options in pairs {
      ["effort \"heroic\" is not known; known: quick, normal, full"] = { problems = p, effort = "heroic" },
      ["no field \"efort\"; did you mean \"effort\"%?"] = { problems = p, efort = "quick" },
      ["no field \"problem\"; did you mean \"problems\"%?"] = { problem = p },
      ["problems must be a list, not text \"x\""] = { problems = "x" },
      ["problems%[1%] must be text, not the number 7"] = { problems = { 7 } },
      ["a model or a list of problems is needed"] = { problems = {} },
      ["m%[1%] must be a whole number from 1 to 1048576, not the number 0"] = { problems = p, m = { 0 } },
      ["m%[2%] must be a whole number from 1 to 1048576, not the number %-3"] = { problems = p, m = { 1, -3 } },
      ["m%[1%] must be a whole number from 1 to 1048576, not the number 1.5"] = { problems = p, m = { 1.5 } },
      ["m%[1%] must be a whole number from 1 to 1048576, not text \"x\""] = { problems = p, m = { "x" } },
      ["m%[1%] must be a whole number from 1 to 1048576, not the number 2097152"] = { problems = p, m = { 1 << 21 } },
      ["m: the list is empty"] = { problems = p, m = {} },
      ["m must be a list, not the number 1"] = { problems = p, m = 1 },
      ["budget = %-1: seconds from 0 on"] = { problems = p, budget = -1 },
      ["budget must be a finite number, not the number inf"] = { problems = p, budget = math.huge },
      ["threads must be a whole number from 1 to 2147483647"] = { problems = p, threads = 0 },
      ["threads must be a whole number from 1 to 2147483647, not"] = { problems = p, threads = 1 << 40 },
      ["acts: one or more types, for the layers of a model"] = { problems = p, acts = { "bf16" } },
      ["activations are f16, bf16"] = { model = "x", acts = { "bf17" } },
      ["kernel family \"host.gem\" is not known; did you mean \"host.gemm\"%?"] = { problems = p, family = "host.gem" },
      ["fixed: parameter \"NRR\" is not known"] = { problems = p, fixed = { NRR = 1 } },
      ["space \"all\" is not known; known: full, quick, reduced"] = { problems = p, space = "all" },
      ["functions%[1%] x has no field \"symbl\"; did you mean \"symbol\"%?"] =
        { problems = p, functions = { { name = "x", symbl = "y" } } },
      ["functions%[1%] x: m_min = 3, m_max = 2: it serves no M"] =
        { problems = p, functions = { { name = "x", library = "x", symbol = "x", m_min = 3, m_max = 2 } } },
      ["functions%[1%] x: layout: unfinished capture"] =
        { problems = p, functions = { { name = "x", library = "x", symbol = "x", layout = "(" } } },
    } do t.fails(text, q.tune, options) end
    t.fails('options of variants has no field "famly"', q.variants, problem, q.device "host", { famly = "host.gemm" })
    t.fails("options of compile: threads must be", q.compile, {}, { threads = "all" })
    t.fails('options of open has no field "devise"; did you mean "device"%?', q.open, "x.qpack", { devise = "host" })
    t.fails("pack: result 1 is none of tune's", q.pack, { {} }, "x")
  end },

  { "a family for few M is joined by the plain kernel of all, and both are named", function(t)
    local said
    q.gen.kernel.family("host.gemv").m = function() return 1, 8, 1 end
    local r = assert(q.tune { problems = { problem }, m = { 1 }, family = "host.gemv", dense = false,
      fixed = { ISA = { "c" }, MR = { 1 }, NR = { 16 }, PF = { 0 } },
      progress = function(e) said = said or e.text end })
    t.check(said and said:find "serves M from 1 to 8, in a layout of its own; .*that of host.gemm/", said)
    for _, plan in ipairs(r.plans) do
      if plan.kind == "fastest" then t.check(plan.ranges[#plan.ranges].variant:find "^host.gemm/") end
    end
  end },

  { "a worker that is asked nonsense answers with a failure", function(t)
    local w = assert(q.native.worker(q.worker(), "host"))
    local answer, why = w:ask '{"op":"dance"}'
    t.check(not answer and why:find "unknown request", why)
    t.fails("not JSON", w.ask, w, "{")
    t.fails("seconds above 0", w.ask, w, "{}", 0 / 0)
    w:close()
    t.fails("closed", w.ask, w, "{}")
    local none
    none, why = q.native.worker("/nowhere/worker", "host")
    t.check(not none and #why > 0, why)
  end },
}
