-- quernel.lua - the module `quernel`, over the C functions in `native`.
--
--   q.format { name = "int5", … }, q.kernel { … }     register a format, a kernel family; q.load(path) runs a template
--   q.formats()  q.kernels(target)                    what is registered
--   q.resolve(spelling)  q.problem(spelling, target, act)  a format, a problem, with all choices fixed
--   q.devices()  q.device(name)  q.arch "sm_90a"      machines that are here; one that is only described
--   q.variants(problem, device, options)              variants, and what each rule removed
--   q.variant(problem, device, family, params)        one of them
--   q.source(variant)  q.compile(variants, options)   text; outcomes { ok, why, registers, shared, spills, seconds… }
--   q.occupancy(…)  q.roofline(…)  q.count(…)  q.predict(…)   of a CUDA variant, no GPU needed (lua/counting.lua)
--   q.tune { problems = {…}, … }  q.pack(result, path)  measure (lua/tuning.lua); write what was measured
--   q.open(path, options)                             a pack: plans, bind/prepack/run, verify, bench (lua/packs.lua)
--   q.model(path)                                     a checkpoint: tensors, planes, numbers (lua/models.lua)
--   q.planes(format, n, k, {…})                       a weight of the script's own
--   q.tokenizer(model)  q.overlap(before, ids)        text as token ids (lua/tokens.lua)
--   q.decoder(model)  q.windows{…}  q.evaluate{…}     what a model makes of texts and tasks (lua/evaluation.lua)
--   q.store                                           the tuner's memory: open, list, verify, diff, merge, gc
--   q.ffi                                             C functions of any library, typed memory
--   q.table(rows)  q.progress(options)  q.clock()     print columns; a function for q.tune's progress; seconds
--
-- A bad argument raises; a bad world (file, device, compiler) returns nil, message, code.

local native = ...
local q = { version = native.version, native = native, ffi = native.ffi, store = native.store }

-- Our own modules come from inside, and are not seen by the script's require.
local modules, environment = {}, {}
local function import(name)
  if modules[name] == nil then
    local path = name:gsub("%.", "/") .. ".lua"
    local text = native.read(path) or error(("%s: not among the files inside"):format(path), 0)
    modules[name] = assert(load(text, "@" .. path, "t", environment))(name) or true
  end
  return modules[name]
end
environment.require = import
-- What our own modules print may hold names from files.
environment.printable = native.printable
function environment.print(text) print(native.printable(text)) end
setmetatable(environment, { __index = _G })
q.import = import

-- ---- The generator --------------------------------------------------------------------------------------------------

-- Run code of templates, with limits (lua/limit.h). A hook counts instructions, so that a loop without end is an error.
-- progress(where) begins a piece of work of the template that was defined there.
local allowed = 200 -- million instructions of a piece of work
local spent, limit, at = 0, nil, nil
local function progress(where)
  if not limit then return end
  spent, at = 0, where
  limit:renew(where)
end

local function count()
  spent = spent + 1
  if spent < allowed then return end
  error(("a template runs for %d million instructions: does a loop end?"):format(allowed), 2)
end

local function guarded(fn, ...)
  if limit then return fn(...) end
  local hook, mask, every = debug.gethook()
  local _ <close> = setmetatable({}, { __close = function(_, why)
    if why == "not enough memory" then error(("%s: a template takes over 512 MiB of memory"):format(at), 0) end
  end })
  local watch <close> = native.limit()
  local _ <close> = setmetatable({}, { __close = function()
    limit = nil
    debug.sethook(hook, mask, every)
  end })
  limit = watch
  progress "templates"
  debug.sethook(count, "", 1000000)
  return fn(...)
end

local function list(folder)
  local names = {}
  for name in pairs(native.list(folder)) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local named = {} -- text of template files that a script named
local function read(path)
  if named[path] then return named[path] end
  return native.read(path)
end

local gen = import "gen.init" {
  types = native.types, hash = native.hash, problem = native.problem, read = read, list = list,
}
local load_families = gen.kernel.load
function gen.kernel.load(target) return guarded(load_families, target) end
gen.kernel.progress = progress
guarded(gen.load_formats)
native.known(function(t, what, fields) -- for tables that C reads
  local known = {}
  for name in fields:gmatch "%S+" do known[#known + 1] = name end
  for key in pairs(t) do gen.check.among(key, known, what .. ": field") end
end)
q.gen, q.json, q.check = gen, gen.json, gen.check
q.lookup, q.bits, q.select = gen.expr.lookup, gen.expr.bits, gen.expr.select -- for decode rules

local function define(registrar, def)
  local info = debug.getinfo(3, "Sl")
  return registrar(def, info.short_src, ("%s:%d"):format(info.short_src, info.currentline))
end
function q.format(def) return (define(gen.format.define, def)) end
function q.kernel(def)
  gen.kernel.families() -- whose names are taken
  return (define(gen.kernel.define, def))
end

-- Run a template file, sandboxed. Returns what it returns: the format or the kernel family.
function q.load(path)
  gen.kernel.families() -- whose names are taken
  local f, why = io.open(path, "rb")
  if not f then return nil, why, "QN_E_IO" end
  named[path], why = f:read "a"
  f:close()
  if not named[path] then return nil, ("%s: %s"):format(path, why), "QN_E_IO" end
  return guarded(gen.load, path)
end

function q.formats()
  local out = {}
  for i, name in ipairs(gen.format.sorted_keys(gen.format.registry)) do out[i] = gen.format.registry[name] end
  return out
end
function q.kernels(target) return gen.kernel.families(target) end
function q.resolve(spelling) return guarded(gen.format.resolve, spelling) end
function q.problem(spelling, target, act) return guarded(gen.kernel.problem, spelling, target, act) end

-- What C wants to know of a format, as JSON.
function q.descriptor(spelling) return q.json(gen.format.descriptor(q.resolve(spelling))) end

-- A spelling, or what q.problem returned.
local function problem_for(problem, device)
  return type(problem) == "string" and q.problem(problem, device.target) or problem
end

-- problem: spelling or what q.problem returned. options: space ("full", "quick", "reduced"), family
-- ("host.gemv,host.gemm"), fixed = { NR = 32 }.
function q.variants(problem, device, options)
  return guarded(gen.kernel.variants, problem_for(problem, device), device, options)
end
-- Of each family, how many variants its rules leave, and how many each rule removes: nothing is written.
-- options: only_one (stop at the first that is left).
function q.survey(problem, device, options)
  return guarded(gen.kernel.survey, problem_for(problem, device), device, options)
end
-- The variant of one choice of a family's parameters, { NR = 16, … }; or nil and the sentence of the rule that
-- rejects it.
function q.variant(problem, device, family, params)
  problem = problem_for(problem, device)
  local rule, why = guarded(gen.kernel.rejection, problem, device, family, params)
  if rule then return nil, ("rule %s rejects it: %s"):format(rule, why), "QN_E_NO_KERNEL" end
  return q.variants(problem, device, { family = family, fixed = params })[1]
end
function q.source(variant, lines)
  return guarded(gen.check.that(variant.source, nil, "source: a variant of q.variants is wanted"), variant, lines)
end

-- Compile on all cores. options: threads, progress = function(done, total, name).
function q.compile(variants, options)
  options = options or {}
  q.check.fields(options, { threads = "count?", progress = "function?" }, "options of compile")
  local sources = {}
  for i, v in ipairs(variants) do
    sources[i] = { name = v.name, target = v.target, arch = v.arch, flags = v.flags, text = q.source(v, true) }
  end
  return native.compile(sources, options.threads, options.progress)
end

-- ---- Devices --------------------------------------------------------------------------------------------------------

local function with_isa(d)
  d.isa = {}
  for word in d.arch:gmatch "%S+" do d.isa[word] = true end
  return d
end

-- A device that is here: "host", "host:4", "cuda:0", or an interpreter of PTX, "emu:sm_90a"; nil: the first GPU, else
-- the host.
function q.device(name)
  local d, why, code = native.device(name)
  if not d then return nil, why, code end
  return with_isa(d)
end

-- A device to generate for, by architecture ("sm_90a"), with the limits of the largest product that has it. Raises when
-- it is not known.
function q.arch(name)
  local d, why = native.architecture(name)
  return with_isa(d or error(why, 0))
end

-- All of them: GPUs, then the host.
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

-- The worker program: beside the tool or the module, else where it was installed with them.
function q.worker()
  local here, set = native.folder() or ".", os.getenv "QUERNEL_WORKER"
  if set and set ~= "" then return set end
  for _, path in ipairs { "", "/../libexec", "/../../../libexec", "/../../../../libexec", "/../../../bin" } do
    path = here .. path .. "/quernel-worker"
    if native.exists(path) then return path end
  end
end

import "lua.models"(q, native)
import "lua.experts"(q, native)
import "lua.tuning"(q, native)
import "lua.packs"(q, native)
import "lua.counting"(q, native)
import "lua.tokens"(q, native)
import "lua.evaluation"(q, native)
import "lua.store"(q, native)
import "lua.calibration"(q, native)
function q.tradeoff(t) return import "lua.tradeoff"(q, native)(t) end -- much text for every start

local common = import "lua.common"
common.columns = function() return native.terminal "stdout" end
q.table, q.clock = common.table, native.clock
function q.progress(options)
  q.check.fields(options or {}, { quiet = "boolean?", json = "boolean?", progress = "boolean?" }, "options of progress")
  return common.progress(q, options or {})
end

-- ---- Arguments ------------------------------------------------------------------------------------------------------

-- Of functions that scripts call: each argument's name and kind (gen/check.lua). Those which take one table check it.
local arguments = {
  load = "path string", resolve = "spelling string", descriptor = "spelling string", arch = "name string",
  problem = "spelling string, target string?, act string?", kernels = "target string?", device = "name string?",
  variants = "problem string|table, device table, options table?", compile = "variants list, options table?",
  survey = "problem string|table, device table, options table?", source = "variant table, lines boolean?",
  variant = "problem string|table, device table, family string, params table", open = "path string, options table?",
  model = "path string", occupancy = "variant table, outcome table, device table", ptx = "variant table",
  predict = "variant table, outcome table, device table, counters table, bytes number",
  roofline = "variant table, device table, weight_bytes number, m count",
  count = "variant table, m count, experts table?", table = "rows list",
}
for name, text in pairs(arguments) do
  local fn, kinds = q[name], {}
  for argument, kind in text:gmatch "([%w_]+) ([%w|?]+)" do kinds[#kinds + 1] = { name .. ": " .. argument, kind } end
  q[name] = function(...)
    for i, x in ipairs(kinds) do q.check.kind((select(i, ...)), x[2], x[1]) end
    return fn(...)
  end
end

function q.main(args) return import "lua.main"(q, args) end
return q
