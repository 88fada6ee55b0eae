local common = require "lua.common"

-- ---- What is evaluated ----------------------------------------------------------------------------------------------

local function open(run, path, bf16)
  return common.check(run.q.decoder(common.model(run.q, path, {}), { threads = run.threads, bf16 = bf16,
    share = run.options.against and 2 or 1 }))
end

-- The windows' length: what was asked for, else 512 or as much as each model was made for.
local function context(asked, ...)
  local ctx = asked or 512
  for _, d in ipairs { ... } do
    local limit = d:config().context
    if asked and limit > 0 and asked > limit then
      common.misuse("--ctx %d: %s was made for %d tokens", asked, d.model.path, limit)
    end
    ctx = limit > 0 and math.min(ctx, limit) or ctx
  end
  return ctx
end

-- "64 windows of 256 tokens, each alone; all but the first are scored; no BOS"
local function convention(w)
  return ("%d windows of %d tokens, each alone; %s; %s"):format(w.n, w.length,
    w.half and "the second half is scored (--score half, as llama.cpp)" or
    w.bos and "all tokens of the text are scored (--score all, as Hugging Face)" or
    "all tokens but the first are scored (--score all, as Hugging Face)",
    w.bos and ("BOS %d at the head of each"):format(w.bos) or "no BOS")
end

-- ---- Progress -------------------------------------------------------------------------------------------------------

-- A function (done, total) that shows what is evaluated and the time left, judged by what this run has done.
local function countdown(q, show, what)
  local start, begun
  return show and function(done, total)
    local now = q.clock()
    if not start then start, begun = now, done end
    local left = done > begun and (now - start) / (done - begun) * (total - done) or nil
    show { phase = "eval", problem = what, done = done, total = total, left = left }
  end
end

-- ---- Tables ---------------------------------------------------------------------------------------------------------

local function half(e) return e.high and (e.high - e.mean) or nil end
local function number(x, digits) return x and ("%." .. digits .. "f"):format(x) or "-" end
local function percent(x) return x and ("%.2f%%"):format(100 * x) or "-" end
-- A divergence: three digits that count.
local function small(x) return x and (x < 1e-3 and "%.2e" or "%.5f"):format(x) or "-" end

-- Rows of a table: one for each text, and one for all if there are several.
local function each(domains, e, row)
  local rows = {}
  for i, d in ipairs(domains) do rows[i] = row(d.path:match "[^/]*$", e.by_domain[i]) end
  if #domains > 1 then rows[#rows + 1] = row("all", e) end
  return rows
end

local function print_rows(title, rows)
  table.insert(rows, 1, title)
  common.table(rows)
end

local function print_scores(domains, e)
  print_rows({ "text", "tokens", "nats", "±", "perplexity", "bits/byte", "top-1" }, each(domains, e, function(name, x)
    return { name, x.tokens, number(x.nll.mean, 5), number(half(x.nll), 5), number(math.exp(x.nll.mean), 4),
      number(x.bits_per_byte, 4), percent(x.greedy.mean) }
  end))
end

local function comparison_row(name, x)
  return { name, small(x.kl.mean), small(half(x.kl)), small(x.kl.p99), percent(x.same_top.mean),
    number(x.delta_nll.mean, 5), number(half(x.delta_nll), 5), percent(x.delta_p_rms) }
end

local function print_comparison(domains, e, floor)
  local rows = each(domains, e, comparison_row)
  if floor then rows[#rows + 1] = comparison_row("floor (bf16)", floor) end
  print_rows({ "text", "KL", "±", "99%", "same top", "Δ nats", "±", "RMS Δp" }, rows)
end

local function print_tasks(tasks, against)
  local rows, compared = {}, {}
  for i, t in ipairs(tasks) do
    rows[i] = { t.name, t.n, percent(t.acc.mean), percent(half(t.acc)), percent(t.acc_norm.mean),
      percent(t.acc_bytes.mean), t.truncated }
    local c = t.comparison
    compared[i] = c and { t.name, percent(t.before), number(c.difference.mean, 2), number(half(c.difference), 2),
      c.worse, c.better, number(c.mcnemar, 3), number(c.equivalence, 3) }
  end
  print_rows({ "task", "items", "acc", "±", "acc_norm", "acc_bytes", "cut" }, rows)
  if not against then return end
  print(("\nagainst %s:"):format(against))
  print_rows({ "task", "its acc", "Δ", "±", "worse", "better", "McNemar p", "2 points p" }, compared)
end

-- ---- The verb -------------------------------------------------------------------------------------------------------

-- What all parts of a run need: the module, the options, the models, how to show progress.
local function prepare(q, options)
  if not options.text and not options.task then common.misuse "--text FILE or --task FILE is needed" end
  common.choice(options, "score", "half", "all")
  local asked = common.whole(options, "ctx", 2, 1 << 20)
  local run = { q = q, options = options, threads = common.whole(options, "threads", 1, 1024),
    store = common.check(q.store.root(options.store)) }
  options.kept = common.kept_in(q, options.store)
  run.show = common.progress(q, options)
  run.after = open(run, options[1], options.bf16)
  run.before = options.against and open(run, options.against)
  run.ctx = context(asked, run.after, run.before)
  if options[2] then
    local pack = common.check(q.open(options[2], { threads = run.threads }))
    run.served, run.dense = common.check(run.after:serve_pack(pack, options.act))
    if run.served == 0 then common.fail("%s has no kernel for a layer of %s", options[2], options[1]) end
  end
  return run
end

-- The scores of the texts, of the candidate and of the floor.
local function texts(run)
  local q, options = run.q, run.options
  local w = common.check(common.ask(q.windows, { model = (run.before or run.after).model, texts = options.text,
    ctx = run.ctx, windows = options.windows, score = options.score, bos = options.bos,
    tokenizer = options.tokenizer }))
  for _, t in ipairs(w.domains) do
    if t.dropped > 0 then
      common.warn("%s: %s without a token left out", t.path, common.count(t.dropped, "character"))
    end
  end
  local reference = run.before and common.check(q.reference { decoder = run.before, windows = w,
    path = options.reference })
  local function evaluate(decoder, what)
    return common.check(q.evaluate { decoder = decoder, windows = w, reference = reference, store = run.store,
      threads = run.threads, progress = countdown(q, run.show, what) })
  end
  local scores = evaluate(run.after, options[1])
  run.after:forget() -- there may be two more
  local rounded <close> = options.floor and open(run, options.against, true) or nil
  return { convention = convention(w), domains = w.domains, scores = scores,
    floor = rounded and evaluate(rounded, "floor") }
end

-- Results of each task, of the candidate and of what it is compared with.
local function tasks(run)
  local q, out = run.q, {}
  for i, path in ipairs(run.options.task) do
    local task = common.check(q.task { model = (run.before or run.after).model, path = path, ctx = run.ctx,
      tokenizer = run.options.tokenizer })
    local function evaluate(decoder)
      return common.check(q.evaluate_task { decoder = decoder, task = task, store = run.store, threads = run.threads,
        progress = countdown(q, run.show, path) })
    end
    local t = evaluate(run.after)
    t.path, t.name, t.truncated = path, path:match "[^/]*$", task.truncated
    if run.before then
      local before = evaluate(run.before)
      t.before, t.broken_before = before.acc and before.acc.mean, before.broken
      t.comparison = t.acc and before.acc and q.compare_items(before.items, t.items)
    end
    out[i] = t
  end
  return out
end

-- What is broken has no numbers: it is told of, and the verb ends with 1.
local function check_broken(run, out)
  local e = out.texts and out.texts.scores
  if e and e.broken_tokens > 0 then
    common.fail("%s is broken: %d logits at %s of %d are no finite numbers; nothing is averaged over them",
      run.options[1], e.broken_logits, common.count(e.broken_tokens, "token"), e.tokens)
  end
  local function check(model, broken, t)
    if broken == 0 then return end
    common.fail("%s is broken: %s of %d of %s have logits that are no finite numbers", model,
      common.count(broken, "item"), t.n, t.name)
  end
  for _, t in ipairs(out.tasks or {}) do
    check(run.options[1], t.broken, t)
    check(run.options.against, t.broken_before or 0, t)
  end
end

local function print_all(out)
  if out.pack then
    print(("%s with the kernels of %s in %d of %d linear layers"):format(out.model, out.pack, out.served,
      out.served + out.dense))
  end
  if out.texts then
    common.say(out.texts.convention)
    print_scores(out.texts.domains, out.texts.scores)
    if out.against then
      print(("\nagainst %s:"):format(out.against))
      print_comparison(out.texts.domains, out.texts.scores, out.texts.floor)
    end
  end
  if out.texts and out.tasks then print "" end
  if out.tasks then print_tasks(out.tasks, out.against) end
end

return {
  name = "eval", usage = "MODEL [PACK] --text FILE [--against MODEL0]", arguments = { 1, 2 },
  summary = "how well a model predicts texts and answers tasks, and how far it is from another",
  about = [[
Texts are cut into windows, each seen alone. For each token the model's probability of it is taken: its negative
logarithm in nats, perplexity, bits per byte. --against compares the logits themselves with those of another model, say
the unquantized one: KL divergence, how often both find the same token likeliest, and the difference of nats, token by
token. With a PACK its kernels multiply wherever it has one, else everything is dense f32. An error (±) is half of an
interval of 95 %, clustered by window. What was evaluated is kept in the store, and is not evaluated again.]],
  examples = {
    "MODEL --text mine.txt",
    "Q model.qpack --text a.txt --text b.c --against MODEL --floor",
    "MODEL --task qa.jsonl --task anatomy_test.csv",
  },
  options = {
    { "--text", "FILE", "UTF-8, or ids: .npy, .jsonl with input_ids; each is a domain (repeatable)", many = true,
      group = "Input" },
    { "--task", "FILE", "questions: .jsonl, or MMLU's .csv (repeatable)", many = true, group = "Input" },
    { "--tokenizer", "FILE", "a tokenizer.json (default: the model's)", group = "Input" },
    { "--ctx", "N", "tokens of a window (default: 512, or what the model was made for)", group = "Windows" },
    { "--windows", "N", "the first N windows of each text, or FIRST:END:STEP (default: all)", group = "Windows" },
    { "--score", "WHICH", "half: the second half, as llama.cpp; all: as Hugging Face", default = "half",
      group = "Windows" },
    { "--bos", "WHICH", "yes or no: a BOS at the head of each window (default: the model's rule)",
      group = "Windows" },
    { "--against", "MODEL0", "compare with this model, token by token", group = "Comparison" },
    { "--reference", "FILE", "keep MODEL0's hidden states there, for further runs", with = "--against",
      group = "Comparison" },
    { "--floor", nil, "also MODEL0, each step rounded to bf16: what is nearer than that is not worse",
      with = "--against", group = "Comparison" },
    { "--act", "TYPE", "activations, if the pack has kernels for several: bf16, i8, f32~i8…", group = "Model" },
    { "--bf16", nil, "round each step to bf16", group = "Model" },
    { "--threads", "N", "threads (default: one for each CPU)", group = "Model" },
    { "--store", "DIR", "where to keep what was evaluated (default: $QUERNEL_CACHE)" },
    { "--progress", nil, "show progress also where standard error is no terminal" },
    { "--quiet", nil, "show no progress" },
    { "--json", nil, "print JSON" },
  },
  run = function(q, options)
    local run = prepare(q, options)
    local out = { model = options[1], pack = options[2], against = options.against, served = run.served,
      dense = run.dense, ctx = run.ctx, score = options.score, texts = options.text and texts(run),
      tasks = options.task and tasks(run) }
    if run.show then run.show { phase = "done" } end
    if options.json then print(q.json(out)) end
    check_broken(run, out)
    if not options.json then print_all(out) end
  end,
}
