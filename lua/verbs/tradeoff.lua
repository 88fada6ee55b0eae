local common = require "lua.common"

-- "3G" -> bytes
local function bytes(options, key)
  local text = options[key]
  if not text then return nil end
  local number, unit = text:match "^([%d.]+)([KMGT]?)i?B?$"
  local power = number and ({ [""] = 0, K = 1, M = 2, G = 3, T = 4 })[unit]
  if not tonumber(number) then common.misuse("--%s: %q is no size, e.g. 3G or 500M", key, text) end
  return math.floor(tonumber(number) * 1000 ^ power)
end

-- "0.5%" or "0.005" -> a share
local function share(options, key)
  local text = options[key]
  local number = tonumber((text:gsub("%%$", "")))
  local x = number and (text:find "%%$" and number / 100 or number)
  if not x or x ~= x or x <= 0 or x >= 1 then common.misuse("--%s: %q is no share, e.g. 0.5%%", key, text) end
  return x
end

local function folder_name(model)
  return "tradeoff-" .. model:gsub("/+$", ""):match("[^/]*$"):gsub("%.gguf$", ""):gsub("%.safetensors$", "")
end

return {
  name = "tradeoff", usage = "MODEL --text FILE [-o DIR]", arguments = { 1, 1 },
  summary = "say what quantizing a model costs in accuracy, and what it buys in memory and time here",
  about = [[
The model is quantized in several ways. Each candidate is compared with the original on the same windows of your text,
with the kernels that were tuned for this machine, and timed in the whole model in turns with 16-bit dense. Candidates
that others beat end after a few windows. A table, a picture and a verdict are written to DIR; a run that was ended
goes on when it is started again. Methods that look at activations need --calibrate.

With --bits, --memory or --target-ms there is a candidate more for each, with a format for each part of a layer: the
one that loses least within so many bits a weight, bytes, or milliseconds a token. Parts are measured one by one.]],
  examples = {
    "MODEL --text mine.txt --calibrate train.txt",
    "MODEL --text a.txt --text b.txt --memory 3G --budget 1800",
    "MODEL --text a.txt --calibrate train.txt --target-ms 25",
    "MODEL --text a.txt --only int4.g64:rtn --only MODEL-GPTQ",
  },
  options = {
    { "--text", "FILE", "UTF-8 text, or token ids as .npy or .jsonl, to compare on; each is a domain (repeatable)",
      many = true, group = "Texts" },
    { "--task", "FILE", "questions, as of eval: .jsonl, or MMLU's .csv (repeatable)", many = true, group = "Texts" },
    { "--calibrate", "FILE", "a text of the same kind for gptq and its like, not one of --text (repeatable)",
      many = true, group = "Texts" },
    { "--ctx", "N", "tokens of a window (default: 512, or what the model was made for)", group = "Texts" },
    { "--windows", "N", "of each text: the first N, or FIRST:END:STEP (default: all)", group = "Texts" },
    { "--score", "WHICH", "half: the second half of a window, as llama.cpp; all: every token", default = "half",
      group = "Texts" },
    { "--margin", "SHARE", "of perplexity that may be lost", default = "0.5%", group = "What is wanted" },
    { "--memory", "SIZE", "that the weights may take, and keys and values of a window, e.g. 3G; with --calibrate one "
      .. "more candidate fills it", group = "What is wanted" },
    { "--only", "CANDIDATE", "FORMAT[:METHOD[:ACT]], e.g. int4.g64:gptq:f32~i8, or a quantized checkpoint, "
      .. "PATH[:ACT], instead of the default ones (repeatable)", many = true, group = "Candidates" },
    { "--candidate", "CANDIDATE", "besides the others (repeatable)", many = true, group = "Candidates" },
    { "--bits", "N", "one more: N bits a weight on average, scales included, each part of a layer in the format that "
      .. "helps most there", with = "--calibrate", group = "Candidates" },
    { "--target-ms", "MS", "one more: so that a token takes MS milliseconds here, by the measured time of each part",
      with = "--calibrate", group = "Candidates" },
    { "--budget", "SECONDS", "begin nothing after this time; the verdict is of what there is", group = "Search" },
    { "--device", "DEVICE", "host or host:THREADS (default: host)", group = "Search" },
    { "--store", "DIR", "where measurements are kept (default: $QUERNEL_CACHE, else ~/.cache/quernel)",
      group = "Search" },
    { "-o", "DIR", "the folder for all that is made (default: tradeoff-MODEL)" },
    { "--progress", nil, "show the bar also where standard error is no terminal" },
    { "--quiet", nil, "show no progress" },
    { "--json", nil, "print JSON" },
  },
  run = function(q, options)
    if not options.text then common.misuse "--text FILE is needed" end
    local folder = options.o or folder_name(options[1])
    options.kept = ("; what was done is kept in %s: the same command goes on from there"):format(printable(folder))
    local device = common.check(q.device(options.device or "host"))
    local parse = q.import "lua.tradeoff.candidates" (q, q.native).parse
    for _, key in ipairs { "only", "candidate" } do
      for _, text in ipairs(options[key] or {}) do
        local c = common.ask(parse, text, device.target)
        if c.wants_text and not options.calibrate then
          common.misuse("%s: %s looks at activations: it needs a text, --calibrate FILE", text, c.method)
        end
      end
    end
    local target = common.number(options, "target-ms", 0)
    local r = common.check(q.tradeoff { model = options[1], texts = options.text,
      tasks = options.task, calibrate = options.calibrate, only = options.only, candidates = options.candidate,
      folder = folder, ctx = common.whole(options, "ctx", 2, 1 << 20), windows = options.windows,
      score = common.choice(options, "score", "half", "all"), margin = share(options, "margin"),
      memory = bytes(options, "memory"),
      bits = common.number(options, "bits", 1, 16), target = target and target / 1e3,
      budget = common.number(options, "budget", 0),
      device = device.name, store = options.store, command = options.command,
      progress = common.progress(q, options) })
    if options.json then print(q.json(r)) return end
    local report = q.import "lua.tradeoff.report"
    common.table(report.rows(r))
    print ""
    common.say(report.legend .. " " .. report.about(r))
    print ""
    for _, text in ipairs(r.verdict.sentences) do common.say(text) end
    if not r.whole then common.say "The budget ended the run: started again, it goes on from there." end
    print("report: " .. r.files.report)
    if r.files.checkpoint then print(("checkpoint: %s\npack: %s"):format(r.files.checkpoint, r.files.pack)) end
    for _, text in ipairs(report.elsewhere(r)) do print(text) end
  end,
}
