local common = require "lua.common"

return {
  name = "merge", usage = "PACK… -o OUT.qpack", arguments = { 1, 1000 },
  summary = "join packs of several machines, or of the shards of a tuning, in one file",
  about = [[
The new pack has what the packs have: plans of every device and problem, with their kernels and times. Whoever opens it
gets the plans of the machine that is most like the one they are on. Where two packs have plans of one problem for the
same device, those of the pack that is named first are taken; where they differ, that is told. Nothing is measured.]],
  examples = {
    "part-*.qpack -o model.qpack    # of quernel tune --shard",
    "new.qpack old.qpack -o all.qpack    # new.qpack goes first",
  },
  options = {
    { "-o", "OUT.qpack", "the pack to write" },
    common.overwrite,
    { "--json", nil, "print JSON" },
  },
  run = function(q, options)
    if not options.o then common.misuse "-o OUT.qpack is needed" end
    local packs = {}
    for i, path in ipairs(options) do packs[i] = common.check(q.open(path)) end
    common.output(q, options.o)
    local result = common.check(q.join(packs, options.o, {
      check = function(has) common.keep_pack(q, options.o, options, has) end }))
    for _, x in ipairs(result.left) do
      common.warn("%s on %s: taken from %s; what %s has differs", x.problem, x.device.product, x.first, x.path)
    end
    local joined = common.check(q.open(options.o))
    if options.json then
      print(q.json { pack = options.o, hash = joined:hash(), devices = joined:devices(), plans = result.plans,
        left_out = result.left })
      return
    end
    common.devices(joined)
    print(("pack: %s, %s of %s"):format(options.o, common.count(result.plans, "plan"),
      common.count(#packs, "pack")))
  end,
}
