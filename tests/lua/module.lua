-- The module: formats, problems, variants, templates of the user, checkpoints.
local q = require "quernel"

-- A small kernel family for templates made here; BODY is its C text, RULE an expression of v.
local family = [[
return kernel {
  name = "host.NAME", target = "host", doc = "a family of a test",
  params = { { name = "NR", values = { 16, 32 } } },
  rules = { { name = "size", why = "a size of the test", ok = function(v) return RULE end } },
  layout = function(v)
    local f = v.format
    return layout.make { name = "test.rows", tile = { v.NR, f.group }, format = f, sections = {
      { outer = { layout.n(0, v.NR), layout.k(0, f.group) }, layout.plane("scale", { layout.n(v.NR) }),
        layout.codes(0, 4, { layout.n(v.NR), layout.k(f.group) }) } } }
  end,
  launch = function(v) return { steps = { { grid = { ceildiv(N, v.NR) } } } } end,
  arch = function() return "" end,
  outline = { function(w, v)
    w "BODY"
  end },
}
]]

local function add_family(t, name, rule, body)
  local text = family:gsub("NAME", name):gsub("RULE", rule):gsub("BODY", (body:gsub("%%", "%%%%")))
  return assert(q.load(t.write(name .. ".lua", text)))
end

return {
  { "formats are there, sorted, with their files", function(t)
    local seen = {}
    for i, f in ipairs(q.formats()) do
      seen[f.name] = f
      t.check(i == 1 or q.formats()[i - 1].name < f.name)
    end
    for _, name in ipairs { "int4", "int8", "nf4", "f16", "bf16", "f32" } do t.check(seen[name], name) end
    t.equal(seen.int4.file, "templates/formats/int.lua")
  end },

  { "spellings resolve to one full form; what is wrong is named", function(t)
    t.equal(q.problem("int4:64x128", "host").spelling, "int4.g128:64x128:bf16-f32")
    t.equal(q.problem("int4.g64.z:1x1:i8+bias", "host").spelling, "int4.g64.z:1x1:i8-f32+bias")
    t.fails("^nope: unknown format; known: ", q.problem, "nope:4x4")
    t.fails("N = 0 is outside 1 %.%. 2147483647", q.problem, "int4:0x4")
    t.fails("K = 2147483648 is outside", q.problem, "int4:4x2147483648")
    t.fails('target "gpu" is not known; known: cuda, host', q.problem, "int4:4x4", "gpu")
    t.fails('int4 has no group "b2x2"', q.problem, "int4.b2x2:4x4")
    t.fails("activations are f16", q.problem, "int4:4x4:q7")
  end },

  { "what functions are given is checked, before any code of ours meets it", function(t)
    local host, problem = q.device "host", "f32:32x64:f32-f32"
    for name, what in pairs { load = "path", resolve = "spelling", descriptor = "spelling", problem = "spelling",
      arch = "name", variants = "problem", survey = "problem", variant = "problem", source = "variant",
      compile = "variants", open = "path", model = "path", occupancy = "variant", predict = "variant", ptx = "variant",
      roofline = "variant",
      count = "variant", table = "rows" } do
      t.fails(("^%s: %s must be "):format(name, what), q[name])
    end
    t.fails("^device: name must be text, not a table", q.device, {})
    t.fails("^variants: device must be a table, not text \"host\"", q.variants, problem, "host")
    t.fails("^source: a variant of q.variants is wanted", q.compile, { {} })
    t.fails("^table: row 2 must be a list", q.table, { { "a" }, 3 })
    t.fails('kernel family "host.gem" is not known; did you mean "host.gemm"', q.variant, problem, host, "host.gem", {})
    t.fails('host.gemm: value of NR "17" is not known; did you mean "16"%? known: ', q.variant, problem, host,
      "host.gemm", { ISA = "c", NR = 17 })
    local first = q.variants(problem, host, { family = "host.gemm", fixed = { ISA = "c" } })[1]
    t.equal(q.variant(problem, host, "host.gemm", first.params).name, first.name)
    local ok, why = q.load "/"
    t.check(ok == nil and why:find "^/: Is a directory", why)
    t.equal(q.json { 1 / 0, 2 }, "[null,2]")
  end },

  { "a prediction is the largest of issue slots, tensor cores and bytes", function(t)
    local h200, rtx = { sm = 90, sms = 132 }, { sm = 120, sms = 170 }
    local function predicted(device, act, instructions, products, flops, kinds)
      return q.predict({ problem = { act = act } }, { loop = { instructions = instructions, products = 1 } }, device,
        { ctas = 132, mma = products, mma_flops = products * flops, kinds = kinds }, 4.32e6)
    end
    -- 132 x 4 schedulers of 989e12 / (132 x 4096) clocks a second; 4.32e12 bytes a second
    local clock = 989e12 / (132 * 4096)
    local p = predicted(h200, "f16", 10, 528000, 4096, {})
    t.check(math.abs(p.issue - 10 * 1000 / clock) < 1e-12 and p.by == "issue" and p.seconds == p.issue + p.fixed, p.by)
    t.check(math.abs(p.tensor - 528000 * 4096 / (0.62 * 989e12)) < 1e-12, p.tensor)
    t.check(math.abs(p.bytes - 1e-6) < 1e-12, p.bytes)
    p = predicted(h200, "f16", 20, 52800, 65536, { wgmma = 52800 }) -- m64n128k16, of a warp
    t.check(math.abs(p.tensor - 52800 * 65536 / (0.95 * 989e12)) < 1e-12 and p.by == "tensor cores", p.tensor)
    local wide, narrow = predicted(rtx, "f16", 1, 528000, 4096, {}), predicted(rtx, "e4m3", 1, 528000, 8192, {})
    t.equal(wide.tensor, narrow.tensor)
    t.equal(predicted(h200, "f16", 1, 1, 4096, {}).by, "bytes")
    t.equal(q.predict({}, {}, h200, { mma = 1 }, 1), nil)
  end },

  { "a format of the script has variants and decodes", function(t)
    local def = q.format {
      name = "ternary_test", doc = "-1, 0, 1", bits = 2, group = { 32 }, planes = { scale = { "f16" } },
      decode = function(code, p) return (code - 1) * p.scale end,
    }
    t.check(def.file:find "module.lua", def.file)
    t.check(#q.variants("ternary_test.g32:64x64:f32-f32", q.device "host", { space = "reduced" }) > 0)
    local codes = q.ffi.buffer("u8", 32):fill(function(i) return i % 3 end)
    local scale = q.ffi.buffer("f16", 1):fill(0.5)
    local planes = q.planes("ternary_test.g32", 1, 32,
      { { name = "codes", data = codes }, { name = "scale", data = scale, cols = 1 } })
    local x = assert(planes:dequantize(q.descriptor "ternary_test.g32"))
    for i = 1, 32 do t.equal(x[i], (i % 3 - 1) * 0.5) end
    scale[1] = 0 / 0
    local ok, why, code = planes:check(q.descriptor "ternary_test.g32")
    t.check(not ok and why:find "scale", why)
    t.equal(code, "QN_E_ARG")
  end },

  { "planes that are too small for their buffer are refused", function(t)
    local few = { { name = "codes", data = q.ffi.buffer("u8", 5) } }
    t.fails("plane codes: 2 x 3 elements, its buffer holds 5", q.planes, "int8.row", 2, 3, few)
    t.fails('plane: field "dat" is not known; did you mean "data"%?', q.planes, "int8.row", 1, 1, { { dat = 1 } })
  end },

  { "planes keep their buffers, and notice when they are closed", function(t)
    local codes = q.ffi.buffer("u16", 4):fill(0x3c00)
    local list = { { name = "codes", data = codes } }
    local planes = q.planes("f16", 2, 2, list)
    list[1] = nil
    collectgarbage()
    t.equal(assert(planes:dequantize(q.descriptor "f16"))[4], 1.0)
    codes:close()
    t.fails("plane codes: its buffer is closed", planes.dequantize, planes, q.descriptor "f16")
    planes:__gc()
    t.fails("the planes are closed", planes.info, planes)
  end },

  { "candidates are counted: each survives, is removed by a rule, or is somebody's equal", function(t)
    local variants, report = q.variants("int4.g128:4096x4096:bf16-f32", q.device "host")
    local survivors = 0
    for _, r in ipairs(report) do
      local removed = 0
      for _, x in ipairs(r.removed) do
        removed = removed + x.count
        t.check(#x.why > 10, x.rule)
      end
      t.check(r.survivors + removed <= r.candidates)
      survivors = survivors + r.survivors
    end
    t.equal(survivors, #variants)
    t.check(#variants >= 40, #variants .. " variants")
    local layouts = {}
    for _, v in ipairs(variants) do layouts[v.layout.name] = true end
    t.check(next(layouts, (next(layouts))), "two layouts compete")
  end },

  { "a variant's source is the same bytes each time, and leads back to the template", function(t)
    local d = q.device "host"
    local a = q.variants("int4.g128:4096x4096:bf16-f32", d, { space = "quick" })[1]
    local b = q.variants("int4.g128:4096x4096:bf16-f32", d, { space = "quick" })[1]
    t.equal(q.source(a), q.source(b))
    t.equal(a.hash, b.hash)
    t.check(not q.source(a):find "#line")
    t.check(q.source(a, true):find '#line %d+ "templates/kernels/')
  end },

  { "a family of the user joins; its rules count", function(t)
    add_family(t, "rules", "v.NR == 16", "void ${entry}(void);\\n")
    local variants, report = q.variants("int4.g32:64x64:f32-f32", q.device "host", { family = "host.rules" })
    t.equal(#variants, 1)
    t.equal(variants[1].params.NR, 16)
    local removed = report[1].removed[#report[1].removed] -- behind those of rules that all families have
    t.equal(removed.count, 1)
    t.equal(removed.why, "a size of the test")
    local problem = q.problem "int4.g32:64x64:f32-f32"
    t.equal(q.gen.kernel.rejection(problem, q.device "host", "host.rules", { NR = 32 }), "size")
  end },

  { "a kernel that does not compile is reported at the template's line", function(t)
    add_family(t, "broken", "v.NR == 16", "int f(void) { return nothing_here; }")
    local v = q.variants("int4.g32:64x64:f32-f32", q.device "host", { family = "host.broken" })
    local o = assert(q.compile(v))[1]
    t.check(not o.ok)
    t.equal(o.status, "QN_E_COMPILE")
    t.check(o.why:find "broken%.lua:14:.*nothing_here", o.why)
  end },

  { "bytes are multiplied as integers as long as the sums over K fit 32 bits", function(t)
    for k, product in pairs { [131071] = "s32.s8.s8", [131072] = "f32.f16.f16" } do
      local v = q.variants(("int8.row:64x%d:i8-f16"):format(k), q.arch "sm_90a",
        { space = "quick", family = "cuda.mma" })
      t.check(#v > 0, k)
      for i = 1, #v do t.check(q.source(v[i]):find(product, 1, true), v[i].name) end
    end
  end },

  { "a call is one launch; of cuda.expand, or with X in act-order where it is not taken as it is, two", function(t)
    for _, arch in ipairs { "sm_75", "sm_80", "sm_90a" } do
      for _, v in ipairs((q.variants("int4.g128:4096x4096:f16-f16", q.arch(arch), { space = "reduced" }))) do
        local few = v.family == "cuda.decode" or v.family == "cuda.gemv" -- they take X in act-order as it is
        t.equal(#v.recipe.steps, few and 1 or 2, v.name)
        local first = v.recipe.steps[1]
        t.equal(#first.gathers > 0, not few, v.name)
        local takes = table.concat(first.args, " ")
        t.equal(takes:find "%f[%w]w%f[%W]" ~= nil, few or v.family == "cuda.expand", v.name) -- always launched
      end
    end
  end },

  { "progress of compiling is told, and may raise", function(t)
    local v = q.variants("f32:64x64:f32-f32", q.device "host", { space = "reduced", fixed = { ISA = "c" } })
    t.check(#v > 0)
    local calls = 0
    assert(q.compile({ v[1] }, { progress = function(done, total, name)
      calls = calls + 1
      t.equal(done, 1)
      t.equal(total, 1)
      t.equal(name, v[1].name)
    end }))
    t.equal(calls, 1)
    t.fails("enough", q.compile, { v[1] }, { progress = function() error "enough" end })
  end },

  { "a template with a syntax error is named with its line", function(t)
    t.fails("syntax%.lua:2: ", q.load, t.write("syntax.lua", "return format {\n  name = = 4 }"))
  end },

  { "a template that never ends is stopped", function(t)
    t.fails("million instructions", q.load, t.write("forever.lua", "while true do end"))
    local rule = "(function() while true do end end)()"
    add_family(t, "endless", rule, "")
    t.fails("million instructions", q.variants, "int4.g32:64x64:f32-f32", q.device "host", { family = "host.endless" })
    t.equal(debug.gethook(), nil) -- the script's own code is not counted
  end },

  { "a template that takes memory without end is stopped, and what comes after goes on", function(t)
    local hoard = "local page, t = ('x'):rep(4096), {} for i = 1, 1 << 30 do t[i] = page:rep(4096 + i) end"
    t.fails("hoard.lua: a template takes over 512 MiB of memory", q.load, t.write("hoard.lua", hoard))
    t.fails("huge.lua", q.load, t.write("huge.lua", "return ('x'):rep(1 << 40)"))
    local mine = ("x"):rep(1 << 20) -- the script's own memory is its own affair
    t.check(#q.variants("f32:64x64:f32-f32", q.device "host", { space = "quick" }) > 0 and #mine == 1 << 20)
  end },

  { "templates see no system and no globals", function(t)
    for _, name in ipairs { "io", "os", "require", "load", "debug", "_G", "getmetatable", "pcall", "collectgarbage" } do
      t.fails(('unknown name "%s"'):format(name), q.load, t.write("peek_" .. name .. ".lua", "return " .. name))
    end
    t.fails("assignment to global", q.load, t.write("assign.lua", "x = 1"))
    local f, why, code = q.load(t.scratch .. "/missing.lua")
    t.check(not f and why:find "missing.lua", why)
    t.equal(code, "QN_E_IO")
  end },

  { "the script's require does not see our files", function(t)
    t.check(not pcall(require, "gen.format"))
    t.check(not pcall(require, "lua.common"))
    t.check(type(q.progress { quiet = true }) == "nil" and q.clock() > 0)
  end },

  { "devices: the host is there, architectures are described, what is absent says why", function(t)
    local d = assert(q.device "host")
    t.equal(d.target, "host")
    t.check(d.threads >= 1 and next(d.isa))
    t.equal(q.device("host:1").threads, 1)
    t.equal(q.arch("sm_90a").smem, 232448)
    t.fails("sm_12", q.arch, "sm_12")
    local none, why, code = q.device "abacus"
    t.check(not none and why:find "abacus", why)
    t.equal(code, "QN_E_ARG")
  end },

  { "a checkpoint: weights, groups, numbers", function(t)
    local m = assert(q.model(t.tests .. "/models/tiny-llama-gptq4-act"))
    local groups, left_out = m:groups()
    t.equal(#left_out, 0)
    local layers = 0
    for _, g in ipairs(groups) do
      layers = layers + #g.layers
      assert(m:check(g))
    end
    t.equal(layers, 29) -- the head is one, dense
    local x, tensor = assert(m:dequantize "model.layers.2.mlp.down_proj.weight")
    t.equal(#x, tensor.n * tensor.k)
    local planes = m:planes "model.layers.2.mlp.down_proj.weight"
    t.equal(planes:info().perm, true)
    local nothing, why, code = m:dequantize "model.norm.weight"
    t.check(not nothing and why:find "model.norm.weight", why)
    t.equal(code, "QN_E_SHAPE")
    nothing, why = m:planes "nope"
    t.check(not nothing and why:find "no weight \"nope\"", why)
  end },

  { "planes written as safetensors read back as they were", function(t)
    local m = assert(q.model(t.tests .. "/models/tiny-llama-gptq4-act"))
    local path = t.scratch .. "/planes.safetensors"
    assert(m:write_planes(path))
    local back = assert(q.model(path))
    local stored = {}
    for _, x in ipairs(back:stored()) do stored[x.name] = x end
    local info = m:planes("model.layers.0.self_attn.q_proj.weight"):info()
    local codes = stored["model.layers.0.self_attn.q_proj.codes"]
    t.equal(codes.dtype, "U8")
    t.equal(codes.dims[1], info.n)
    t.equal(codes.dims[2], info.k)
    t.equal(stored["model.layers.0.self_attn.q_proj.perm"].dtype, "I32")
    t.check(stored["model.norm.weight"])
  end },

  { "the docs name all that the module and its templates have", function(t)
    local function named(page, words)
      local file <close> = assert(io.open(t.tests .. "/../docs/" .. page))
      local text = file:read "a"
      for _, word in ipairs(words) do t.check(text:find("%f[%w_]" .. word .. "%f[^%w_]"), page .. ": " .. word) end
    end
    local function known(fn, ...) -- what a misspelt word is told of
      local out, _, why = {}, pcall(fn, ...)
      for word in why:match "known: (.*)":gmatch "[%w_]+" do out[#out + 1] = word end
      t.check(#out > 5, why)
      return out
    end
    for _, list in ipairs { q, q.ffi, q.store } do named("lua-api.md", q.gen.format.sorted_keys(list)) end
    named("lua-api.md", known(q.tune, { nope = 1 }))
    named("formats-and-kernels.md", known(q.format, { nope = 1 }))
    named("formats-and-kernels.md", known(q.kernel, { nope = 1 }))
    named("formats-and-kernels.md", known(q.load, t.write("nope.lua", "return nope")))
  end },

  { "a stock Lua loads the module", function(t)
    local script = t.write("stock.lua", ([[
      package.cpath = %q
      local q = require "quernel"
      assert(#q.formats() >= 6)
      assert(#q.variants("int4.g128:64x128:f32-f32", q.device "host", { space = "quick" }) > 0)
      print(q.version)
    ]]):format(QN_MODULE .. "/?.so"))
    local p = io.popen("lua5.4 " .. script .. " 2>&1")
    local out = p:read "a"
    t.check(p:close(), out)
    t.equal(out, q.version .. "\n")
  end },
}
