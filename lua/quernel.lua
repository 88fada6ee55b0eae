-- quernel.lua - the module `quernel`, over the C functions in `native`.
--
--   local q = require "quernel"
--   q.format { name = "int5", … }                        register a format; q.kernel { … } a kernel family
--   q.load "path/of/template.lua"                        run a template file in the sandbox
--   q.formats()  q.kernels(target)  q.problem(spelling, target)
--   q.device(name)  q.devices()  q.arch "sm_90a"         a machine that is here, all of them, one that is described
--   q.variants(problem, device, options)                 variants, and what each rule removed
--   q.compile(variants, { progress =, threads = })       outcomes: ok, why, registers, shared, spills, seconds
--   q.tune { problems = {…} | model = path, … }          see below; returns plans and counts
--   q.pack({ result… }, path)                            write a pack
--   q.open(path)                                         a pack: plans(), verify(device, each)
--   q.model(path)                                        a checkpoint: tensors(), write_npy(…)
--   q.ffi.load(library)                                  C functions of any library
--
-- A bad argument raises; a bad world (file, device, compiler) returns nil, message, code.

local native = ...
local gen = { }
local q = { version = native.version, native = native, ffi = native.ffi }

-- The generator's files are inside: `require "gen.format"` finds them.
table.insert(package.searchers, 2, function(name)
  local path = name:gsub("%.", "/") .. ".lua"
  local text = native.read(path) or native.read((path:gsub("%.lua$", "/init.lua")))
  if not text then return "no embedded file " .. path end
  return assert(load(text, "@" .. path, "t")), path
end)

-- Templates must end: a hook counts instructions while they run.
local limit = 500 * 1000 * 1000
local function guarded(fn, ...)
  local function stop() error("a template ran for more than 500 million instructions; does a loop end?", 0) end
  debug.sethook(stop, "", limit)
  local out = table.pack(pcall(fn, ...))
  debug.sethook()
  if not out[1] then error(out[2], 0) end
  return table.unpack(out, 2, out.n)
end

local function list(folder)
  local names = {}
  for name in pairs(native.list(folder)) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function read_user(path) -- a file of the source tree, or one that the user named
  local text = native.read(path)
  if text then return text end
  local f = io.open(path, "rb")
  if f then
    text = f:read "a"
    f:close()
  end
  return text
end

gen = guarded(function() return require "gen.init" { hash = native.hash, read = read_user, list = list }.load_all() end)
q.gen, q.json, q.expr = gen, gen.json, gen.expr
q.lookup, q.bits, q.select = gen.expr.lookup, gen.expr.bits, gen.expr.select

local function caller() return debug.getinfo(3, "S").short_src end
function q.format(def) return gen.format.define(def, caller()) end
function q.kernel(def) return gen.kernel.define(def, caller()) end
function q.load(path) return guarded(gen.load, path) end

function q.formats()
  local out = {}
  for _, name in ipairs(gen.format.sorted_keys(gen.format.registry)) do out[#out + 1] = gen.format.registry[name] end
  return out
end
function q.kernels(target) return gen.kernel.families(target) end
function q.problem(spelling, target) return guarded(gen.kernel.problem, spelling, target) end
function q.resolve(spelling) return guarded(gen.format.resolve, spelling) end

-- ---- Devices -----------------------------------------------------------------------------------------------------

-- Limits of the architectures that CUDA code is made for, where no GPU is here to be asked: shared memory that a CTA
-- may opt in to, registers of an SM, SMs of the usual product. Source: CUDA C++ Programming Guide, compute capabilities.
local architectures = {
  { arch = "sm_75", sm = 75, smem = 65536, sms = 40 },
  { arch = "sm_80", sm = 80, smem = 166912, sms = 108 },
  { arch = "sm_86", sm = 86, smem = 101376, sms = 84 },
  { arch = "sm_89", sm = 89, smem = 101376, sms = 128 },
  { arch = "sm_90a", sm = 90, smem = 232448, sms = 132 },
  { arch = "sm_100a", sm = 100, smem = 232448, sms = 148 },
  { arch = "sm_120a", sm = 120, smem = 101376, sms = 170 },
}

local function dress(d)
  d.isa = {}
  for word in d.arch:gmatch "%S+" do d.isa[word] = true end
  return d
end

function q.arch(name)
  local known = {}
  for _, a in ipairs(architectures) do
    known[#known + 1] = a.arch
    if a.arch == name then
      return dress { name = name, target = "cuda", arch = name, sm = a.sm, smem = a.smem, sms = a.sms, regs = 65536 }
    end
  end
  error(("unknown architecture %q; known: %s"):format(name, table.concat(known, ", ")), 0)
end
function q.architectures() return architectures end

function q.device(name)
  local d, why, code = native.device(name)
  if not d then return nil, why, code end
  return dress(d)
end

-- Every device that is here: GPUs, then the host.
function q.devices()
  local out = {}
  for i = 0, 15 do
    local d = q.device("cuda:" .. i)
    if not d then break end
    out[#out + 1] = d
  end
  out[#out + 1] = q.device "host"
  return out
end

-- ---- Variants ------------------------------------------------------------------------------------------------------

function q.variants(problem, device, options)
  if type(problem) == "string" then problem = q.problem(problem, device.target) end
  return guarded(gen.kernel.variants, problem, device, options)
end

function q.compile(variants, options)
  options = options or {}
  local sources = {}
  for i, v in ipairs(variants) do
    sources[i] = { name = v.name, target = v.target, arch = v.arch, flags = v.flags, text = v:source(true) }
  end
  return native.compile(sources, options.threads, options.progress)
end

-- Problems that between them reach every section of the templates of a target, for compiling and testing a whole space.
function q.example_problems(target)
  if target == "cuda" then return { "int4.g128:4096x4096:f16-f16", "int4.g64.z:4096x4096:bf16-bf16+bias", "int8.g128:4096x4096:f16-f32", "nf4.g64:4096x4096:f16-f16", "f16:4096x4096:f16-f16" } end
  return { "int4.g128:4096x4096:bf16-f32", "int4.g64.z:4096x4096:i8-bf16+bias", "int8.row:4096x4096:f32-f16", "nf4.g64.f32:4096x4096:bf16-f32", "f32:4096x4096:f32-f32" }
end

-- ---- Models --------------------------------------------------------------------------------------------------------

local model = {}
model.__index = model
function q.model(path)
  local handle, why, code = native.model(path)
  if not handle then return nil, why, code end
  return setmetatable({ handle = handle, path = path, list = handle:tensors() }, model)
end
function model:tensors() return self.list end
function model:find(name)
  for _, t in ipairs(self.list) do if t.name == name then return t end end
end
function model:write_npy(name, path)
  local t = self:find(name)
  if not t then return nil, ("the model has no weight %s; quernel inspect lists them"):format(name), "QN_E_ARG" end
  if not t.format then return nil, ("%s: %s"):format(name, t.refusal or "not a matrix"), "QN_E_SHAPE" end
  return self.handle:write_npy(name, q.json(gen.format.descriptor(q.resolve(t.format))), path)
end

-- The quantized linear layers, grouped by (format, N, K): list of { format, n, k, layers = {names} }. A model that has
-- none gives its dense ones. Weights that cannot be read are an error: no layer is left out in silence.
function model:groups()
  local any = false
  for _, t in ipairs(self.list) do any = any or t.quantized and t.linear end
  local out, index = {}, {}
  for _, t in ipairs(self.list) do
    if t.linear and (t.quantized or not any) then
      if t.refusal then return nil, t.refusal, "QN_E_FORMAT" end
      local key = ("%s:%dx%d"):format(t.format, t.n, t.k)
      if not index[key] then
        index[key] = { format = t.format, n = t.n, k = t.k, layers = {} }
        out[#out + 1] = index[key]
      end
      table.insert(index[key].layers, t.name)
    end
  end
  return out
end

-- Are the planes of every layer of a group fit to be used (no NaN among scales, no code beyond its bits)?
function model:check(group)
  local descriptor = q.json(gen.format.descriptor(q.resolve(group.format)))
  for _, name in ipairs(group.layers) do
    local ok, why, code = self.handle:check(name, descriptor)
    if not ok then return nil, why, code end
  end
  return true
end

-- ---- Tuning --------------------------------------------------------------------------------------------------------

local efforts = { quick = 0, normal = 1, full = 2 }

local function candidates(p, device, options)
  local variants = q.variants(p, device, options)
  local out, generic = {}, 0
  for i, v in ipairs(variants) do
    out[i] = { name = v.name, hash = v.hash, family = v.family, source = v:source(true), flags = v.flags, arch = v.arch,
      params = q.json(v.params), layout = v.layout, recipe = v.recipe, m_min = v.m_min, m_max = v.m_max, cost = v.cost }
    local best = out[generic]
    if v.m_min == 1 and v.m_max == 0 and (not best or v.cost < best.cost) then generic = i end
  end
  return out, generic
end

-- tune { problems = { spelling… }, m = { 1, 16… }, effort = "quick", device =, store =, budget =, dense = true,
--        only = function(variant name), progress = function(event), check_only = }
-- -> { plans, counts, bandwidth, device, handle }, or nil, message, code.
function q.tune(t)
  local device, why, code = q.device(t.device)
  if not device then return nil, why, code end
  local effort = efforts[t.effort or "quick"]
  if not effort then error(("effort %q; known: quick, normal, full"):format(tostring(t.effort)), 0) end
  local space = { space = t.space or (effort == 0 and "quick" or "full"), family = t.family, fixed = t.fixed }
  local job, shapes = {}, {}
  local function add(p, baseline, options)
    local list, generic = candidates(p, device, options)
    if t.only and not baseline then
      local kept = {}
      for _, c in ipairs(list) do if t.only(c.name) then kept[#kept + 1] = c end end
      list, generic = kept, 0
    end
    if #list == 0 then
      return nil, ("%s: no kernel family of %s takes it; see quernel kernels --problem %s"):format(p.spelling, device.name, p.spelling), "QN_E_NO_KERNEL"
    end
    job[#job + 1] = { problem = p.spelling, format = gen.format.descriptor(p.format), candidates = list, generic = generic, baseline = baseline }
    return true
  end
  if t.dense ~= false then -- the dense product of every shape, once
    for _, spelling in ipairs(t.problems) do
      local p = q.problem(spelling, device.target)
      local dense = device.target == "cuda" and "f16:%dx%d:f16-f16" or "f32:%dx%d:f32-f32"
      local key = dense:format(p.n, p.k)
      if not shapes[key] then
        shapes[key] = true
        local ok, text, status = add(q.problem(key, device.target), true, { space = "quick" })
        if not ok then return nil, text, status end
      end
    end
  end
  for _, spelling in ipairs(t.problems) do
    local ok, text, status = add(q.problem(spelling, device.target), false, space)
    if not ok then return nil, text, status end
  end
  return native.tune(q.json { problems = job, options = { device = device.name, effort = effort, budget = t.budget or 0,
    m = t.m or {}, store = t.store, threads = t.threads or 0, check_only = t.check_only or false, worker = t.worker or q.worker() } }, t.progress)
end

-- The worker program: beside the tool or the module, else where it was installed.
function q.worker()
  local here = native.folder()
  for _, path in ipairs { os.getenv "QUERNEL_WORKER" or "", here and here .. "/quernel-worker" or "", here and here .. "/../quernel-worker" or "",
    here and here .. "/../libexec/quernel-worker" or "" } do
    if path ~= "" and native.exists(path) then return path end
  end
end

function q.pack(results, path)
  local handles = {}
  for i, r in ipairs(results.handle and { results } or results) do handles[i] = r.handle end
  return native.pack(handles, path)
end
function q.open(path) return native.pack_open(path) end

function q.main(args) return require "lua.main" (q, args) end
return q
