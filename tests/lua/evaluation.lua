-- evaluation.lua - decoders whose layers a script exchanges, what it is told of the texts, and what it may not do.

local q = require "quernel"
local models = QN_TESTS .. "/models/"
local valid = models .. "text/valid.txt"

local cases = {}
local function case(name, fn) cases[#cases + 1] = { name, fn } end

-- Of tables, as JSON.
local function same(t, a, b) t.equal(q.json(a), q.json(b)) end

local function windows(model, more)
  local o = { model = model, texts = { valid }, ctx = 64, windows = "4", score = "all" }
  for key, value in pairs(more or {}) do o[key] = value end
  return q.windows(o)
end

case("windows say what they are", function(t)
  local m = assert(q.model(models .. "tiny-llama"))
  local w = assert(windows(m, { texts = { valid, models .. "README.md" }, windows = "1:8:3" }))
  same(t, { w.n, w.length, w.scored, tostring(w.bos), w.half }, { 6, 64, 63, "nil", false })
  same(t, { w.domains[1].windows, w.domains[1].ids, w.domains[1].bytes, w.domains[2].path },
    { 3, 103628, 103628, models .. "README.md" })
  t.equal(windows(m, { windows = "1:8:3" }).hash ~= windows(m, { windows = "0:8:3" }).hash, true)
  t.equal(windows(m, { score = "half" }).scored, 31)
  for _, bad in ipairs { "x", "3:", "1:2:0", "0", "-1" } do
    local ok = pcall(windows, m, { windows = bad })
    same(t, { bad, ok }, { bad, bad == "3:" })
  end
  local none, why = windows(m, { texts = { "nowhere.txt" } })
  t.equal(none, nil)
  t.equal(why, "nowhere.txt: No such file or directory")
end)

case("the reader and the decoder agree on which layers read the same X", function(t)
  for _, name in ipairs { "tiny-llama", "tiny-llama-q4_0.gguf" } do
    local m, readers = assert(q.model(models .. name)), {}
    local d <close> = assert(q.decoder(m, { threads = 1 }))
    for _, site in ipairs(d:sites()) do
      readers[site.input] = readers[site.input] or {}
      table.insert(readers[site.input], site.name)
    end
    local first, several = {}, 0
    for _, names in pairs(readers) do
      for _, x in ipairs(names) do first[x] = #names > 1 and names[1] or nil end
      several = several + (#names > 1 and 1 or 0)
    end
    for _, w in ipairs(m:tensors()) do t.equal(w.same_x, first[w.name]) end
    t.equal(several, 2 * 4) -- q, k and v; gate and up
  end
end)

case("a layer that is exchanged is told from the checkpoint's, and comes back", function(t)
  local m, other = assert(q.model(models .. "tiny-llama")), assert(q.model(models .. "tiny-llama-gptq4"))
  local w = assert(windows(m))
  local d <close> = assert(q.decoder(m, { threads = 1 }))
  local r = assert(q.reference { decoder = assert(q.decoder(m)), windows = w })
  local function kl() return assert(q.evaluate { decoder = d, windows = w, reference = r }).kl.mean end
  t.equal(kl(), 0)
  for i, site in ipairs(d:sites()) do
    if site.name == "model.layers.1.mlp.down_proj.weight" then
      assert(d:replace(i, assert(other:planes(site.name))))
      local by_planes = kl()
      t.check(by_planes > 1e-6 and by_planes < 1e-3, by_planes)
      assert(d:replace(i, assert(other:dequantize(site.name))))
      t.equal(kl(), by_planes)
      assert(d:replace(i))
      t.equal(kl(), 0)
      assert(d:activate(i, "i8.row"))
      t.check(kl() > 0, "int8 activations change nothing")
      assert(d:activate(i))
      t.equal(kl(), 0)
      t.equal(select(3, d:activate(i, "i9.row")), "QN_E_SHAPE")
    end
  end
end)

case("means of windows are those of the whole", function(t)
  local m = assert(q.model(models .. "tiny-llama"))
  local w = assert(windows(m, { texts = { valid, models .. "README.md" } }))
  local seen = {}
  local e = assert(q.evaluate { decoder = assert(q.decoder(m)), windows = w,
    progress = function(done, total) seen[#seen + 1] = { done, total } end })
  same(t, seen, { { 8, 8 } })
  t.check(math.abs(q.mean(e.w_nll).mean - e.nll.mean) < 1e-9, "the mean of the windows")
  same(t, e.w_domain, { 1, 2, 1, 2, 1, 2, 1, 2 })
  same(t, { e.by_domain[1].tokens, e.by_domain[2].tokens, #e.by_position }, { 252, 252, 4 })
  t.check(math.abs((e.by_domain[1].nll.mean + e.by_domain[2].nll.mean) / 2 - e.nll.mean) < 1e-9, "of the domains")
  t.equal(e.kl, nil)
end)

case("an error of the progress function is the caller's", function(t)
  local m = assert(q.model(models .. "tiny-llama"))
  local d, w = assert(q.decoder(m)), assert(windows(m))
  local o = { decoder = d, windows = w, log = t.scratch .. "/log",
    progress = function() error("on purpose", 0) end }
  collectgarbage "stop"
  t.fails("^on purpose$", q.evaluate, o)
  o.progress = nil
  local e, why = q.evaluate(o) -- the log is free again
  collectgarbage "restart"
  t.check(e, why)
  d:close()
  t.says("the decoder is closed", q.evaluate, { decoder = d, windows = w })
end)

case("weights that are forgotten or beyond a share are made again, those that were exchanged stay", function(t)
  local m, other = assert(q.model(models .. "tiny-llama")), assert(q.model(models .. "tiny-llama-gptq4"))
  local w = assert(windows(m, { windows = "1" }))
  local function nats(d) return q.json(assert(q.evaluate { decoder = d, windows = w }).nll) end
  local function opened(share)
    local d = assert(q.decoder(m, { threads = 1, share = share }))
    assert(d:replace(3, assert(other:planes(d:sites()[3].name))))
    return d
  end
  local d <close> = opened(1)
  local sharing <close> = opened(1 << 20) -- less than a row
  local before <close> = assert(q.decoder(m, { threads = 1 }))
  local want = nats(d)
  t.check(want ~= nats(before), "the layer that was exchanged")
  d:forget()
  t.equal(nats(d), want)
  t.equal(nats(sharing), want)
  local bytes = 0
  for _, site in ipairs(d:sites()) do bytes = bytes + 4 * site.n * site.k end
  t.equal(d.bytes, bytes)
end)

case("memory that is free: of the system, within a control group, whose cache of files gives way", function(t)
  local function write(path, text)
    path = t.scratch .. "/system/" .. path
    assert(os.execute(("mkdir -p '%s'"):format(path:match "^(.*)/")))
    local f <close> = assert(io.open(path, "w"))
    f:write(text)
  end
  local function free() return q.free_memory(t.scratch .. "/system") end
  t.equal(free(), nil)
  write("proc/meminfo", "MemTotal: 100 kB\nMemAvailable:       90 kB\n")
  t.equal(free(), 90 * 1024)
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
  write("sys/fs/cgroup/memory/memory.usage_in_bytes", "5000\n")
  t.equal(free(), 90 * 1024)
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "50000\n")
  t.equal(free(), 45000)
  write("sys/fs/cgroup/memory/memory.stat", "inactive_file 7\ntotal_inactive_file 1000\n")
  t.equal(free(), 46000)
  write("sys/fs/cgroup/memory.max", "max\n")
  write("sys/fs/cgroup/memory.current", "29000\n")
  t.equal(free(), 46000)
  write("sys/fs/cgroup/memory.max", "30000\n")
  t.equal(free(), 1000)
  write("sys/fs/cgroup/memory.stat", "anon 9000\ninactive_file 20000\nactive_file 100\n")
  t.equal(free(), 21000)
end)

case("what another process has removed already is removed", function(t)
  local folder = t.scratch .. "/removed"
  assert(q.native.make_folder(folder))
  t.equal(q.native.remove(folder .. "/nothing"), true)
  local ok, why = q.native.remove("/proc/version")
  t.equal(ok, nil)
  t.check(why:find("^/proc/version: cannot be removed: "), why)
end)

-- A copy of a file with other bytes at its end, or fewer.
local function spoil(path, keep, more)
  local f = assert(io.open(path, "rb"))
  local text = f:read "a"
  f:close()
  assert(q.native.file_write(path, text:sub(1, keep) .. (more or "")))
  return text
end

case("evaluations are checked, carried over and compared as all of a store is", function(t)
  local m = assert(q.model(models .. "tiny-llama"))
  local d <close> = assert(q.decoder(m))
  local function store(name, stop, which)
    local root = t.scratch .. "/" .. name
    assert(q.native.make_folder(root))
    if not stop then return root end
    local w = assert(windows(m, { ctx = 16, windows = which }))
    return root, assert(q.evaluate { decoder = d, windows = w, store = root, stop = stop, threads = 1 })
  end
  local function differences(a, b)
    local out = {}
    for _, x in ipairs(assert(q.store.diff(a, b))) do
      if x.kind == "evaluation" then out[#out + 1] = ("%s %s"):format(x.a and x.a.entries, x.b and x.b.entries) end
    end
    return table.concat(out, ", ")
  end
  local function merge(into, from)
    local c = assert(q.store.merge(into, from))
    return ("%d %d %d %d %d"):format(c.copied, c.replaced, c.kept, c.same, c.damaged)
  end
  local less, more, empty = store("less", 1, "300"), store("more", 200, "300"), store "empty" -- passes of 128 windows
  store("more", 2, "2") -- of other windows
  local path = assert(q.store.evaluations(less))[1].path
  local found = differences(less, more)
  t.check(found == "128 256, nil 2" or found == "nil 2, 128 256", found)
  t.equal(differences(more, more), "")
  t.equal(merge(more, less), "0 0 1 0 0")
  t.equal(merge(empty, more), "2 0 0 0 0")
  t.equal(differences(more, empty), "")
  local held <close> = assert(io.open(path, "r+"))
  assert(q.native.file_lock(held, path))
  t.equal(merge(less, more), "1 0 1 0 0") -- a run is at work on the other
  held:close()
  t.equal(merge(less, more), "0 1 0 1 0")
  t.equal(merge(less, more), "0 0 0 2 0")
  t.equal(#assert(q.store.verify(less)), 0)
  local _, e = store("less", 200, "300")
  t.equal(e.computed, 0)

  local whole = spoil(path, -2)
  local list = assert(q.store.verify(less))
  same(t, { #list, list[1].path }, { 1, path })
  t.says("bytes behind its 255 entries are damaged, or a writer was killed", error, list[1].what)
  t.equal(merge(less, more), "0 1 0 1 0")
  t.equal(spoil(path, 20), whole)
  t.equal(assert(q.store.verify(less))[1].what, "not the log of an evaluation, or torn before its first entry")
  t.equal(merge(more, less), "0 0 0 1 1")
  t.equal(merge(less, more), "0 1 0 1 0")
  local flipped = whole:sub(60, 60) == "x" and "y" or "x"
  spoil(path, 59, flipped .. whole:sub(61))
  t.says("behind its 0 entries", error, assert(q.store.verify(less))[1].what)
  t.equal(select(2, q.store.verify(t.scratch .. "/nowhere")), ("store: %s/nowhere: No such file or directory"):format(
    t.scratch))
end)

case("a reference and a calibration need the decoders that they are of", function(t)
  local m = assert(q.model(models .. "tiny-llama"))
  local d, w = assert(q.decoder(m)), assert(windows(m))
  local r = assert(q.reference { decoder = d, windows = w })
  local c = assert(q.native.calibration(d.handle, nil, w.handle, {}, { 1 }))
  d:close()
  t.says("its decoder is closed", q.evaluate, { decoder = assert(q.decoder(m)), windows = w, reference = r })
  t.says("its decoder is closed", c.next, c)
end)

case("items are compared one by one", function(t)
  local c = q.compare_items({ 1, 1, 1, 0, 0, 1 }, { 1, 0, 0, 1, 0, 0 })
  same(t, { c.worse, c.better, ("%.6f"):format(c.mcnemar) }, { 3, 1, "0.625000" })
  t.check(math.abs(c.difference.mean + 100 / 3) < 1e-9, c.difference.mean)
  local items = {}
  for i = 1, 149 do items[i] = i % 2 end
  t.check(q.compare_items(items, items).equivalence < 0.05, "149 items without a flip")
  items[149] = nil
  t.check(q.compare_items(items, items).equivalence >= 0.05, "148")
end)

return cases
