local common = require "lua.common"

return {
  name = "bench", usage = "PACK [--against dense|PACK]", arguments = { 1, 1 },
  summary = "time a pack's kernels again, each beside the dense product",
  about = [[
Weights are cold: every call takes the next of several copies. A kernel and the dense product are timed in turns, in
one process and on the same threads, and a sample counts only if the machine was undisturbed. Of three rounds the one
with the middle ratio is shown; "spread" tells how far apart they are, "tuned us" what tune measured. The dense
product is the faster of two: that of OpenBLAS or cuBLAS, and that of our own dense kernels, if the store knows them.
"of roof" is the rate at which weights are read, as a share of a plain read of memory at the same time. Against another
pack the other product is what that has for the problem.]],
  examples = { "model.qpack", "model.qpack --m 1 --reps 50", "new.qpack --against old.qpack" },
  options = {
    { "--against", "WHAT", "what to compare with: dense, or a pack", default = "dense", group = "Search" },
    { "--m", "LIST", "numbers of tokens (default: those that were tuned)", group = "Problem" },
    common.experts,
    { "--device", "DEVICE", "where to run (default: the first of the pack's devices that is here)", group = "Device" },
    { "--reps", "N", "how many samples to take of each, up to 10000", default = "15", group = "Search" },
    { "--function", "NAME=LIBRARY:SYMBOL",
      "a function that the pack names; without it the runner-up runs; may be repeated", many = true },
    { "--progress", nil, "show progress also where standard error is no terminal" },
    { "--quiet", nil, "show no progress" },
    { "--json", nil, "print JSON" },
  },
  run = function(q, options)
    local m, reps = options.m and common.tokens(options.m), common.whole(options, "reps", 1, 10000)
    local given = { device = options.device, functions = common.functions(options["function"]) }
    local pack = common.check(q.open(options[1], given))
    local against = options.against ~= "dense" and common.check(q.open(options.against, given)) or nil
    local show = common.progress(q, options)
    local function progress(problem, tokens, done, total)
      show { phase = "bench", problem = problem, m = tokens, done = done, total = total }
    end
    local list, counts = common.check(pack:bench { m = m, reps = reps, against = against,
      experts = common.spread_over(q, options),
      progress = show and progress })
    if show then show { phase = "done" } end
    if options.json then print(q.json(list)) return end
    local what = against and "against" or "dense"
    local rows = { { "problem", "M", "us", "spread", "tuned us", "GB/s", "of roof", what .. " us", "spread",
      what .. " GB/s", what .. " of roof", "ratio", what .. " by" } }
    for _, x in ipairs(list) do
      local function of(key) return x[what .. "_" .. key] end
      local seconds, bytes = of "seconds", of "bytes" or x.bytes
      rows[#rows + 1] = { x.problem, x.m, common.us(x.seconds), common.spread(x.spread, x.disturbed),
        x.tuned_seconds and common.us(x.tuned_seconds) or "-", common.gb(x.bytes, x.seconds),
        common.roof(x.bytes, x.seconds, x.bandwidth), seconds and common.us(seconds) or "-",
        seconds and common.spread(of "spread", of "disturbed") or "-", seconds and common.gb(bytes, seconds) or "-",
        common.roof(bytes, seconds, of "bandwidth"), common.ratio(seconds and seconds / x.seconds), of "by" or "-" }
    end
    common.table(rows)
    if counts then common.say_samples(rows, counts, pack:device()) end
  end,
}
