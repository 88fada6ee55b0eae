local common = require "lua.common"

return {
  name = "report", usage = "PACK… [-o report.html]", arguments = { 1, 64 },
  summary = "show packs as a page: time against M, beside the dense product",
  about = [[
One HTML file that needs nothing else, of one pack or of several side by side: for each problem the time of a call
against the number of tokens, beside the dense product and plain reads of the weight, with the spread of every figure.
With --model also what the layers of that checkpoint take for one token, together. Nothing is measured: these are the
numbers that tune put into the packs; bench takes them again.]],
  examples = { "model.qpack --model MODEL", "a.qpack b.qpack -o machines.html", "model.qpack --csv" },
  options = {
    { "-o", "FILE", "the page", default = "report.html", group = "Output" },
    { "--model", "MODEL", "a checkpoint whose layers are added up", group = "Problem" },
    { "--store", "DIR", "where measurements are kept, for the next best kernels (default: as for tune)" },
    { "--csv", nil, "print CSV, a line for each time, instead", group = "Output" },
    { "--json", nil, "print JSON instead", group = "Output" },
  },
  run = function(q, options)
    local report, evidence, packs, model = q.import "lua.report", q.import "lua.evidence", {}, nil
    if options.csv and options.json then common.misuse "--csv and --json exclude each other" end
    for i, path in ipairs(options) do packs[i] = { path = path, pack = common.check(q.open(path)) } end
    if options.model then model = common.check(q.model(options.model)) end
    local known = {}
    local function timed(problem)
      known[problem] = known[problem] or evidence.timings(q, options.store, nil, problem)
      return known[problem]
    end
    local r = report.of(q, packs, timed, model)
    if options.json then print(q.json(r)) return end
    if options.csv then io.write(report.csv(r)) return end
    common.check(q.native.file_write(options.o, report.html(r, options.command)))
    print("report: " .. options.o)
  end,
}
