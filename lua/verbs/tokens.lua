local common = require "lua.common"

local function numbers(ids, n)
  local out = {}
  for i = 1, n do out[i] = ids[i] end
  return out
end

-- { file, tokens, bytes, dropped, ids } of each file.
local function read_all(t, paths)
  local out = {}
  for i, path in ipairs(paths) do
    local ids, about, code = t:read(path)
    if not ids then common.check(nil, code and about or ("%s: it has no tokens"):format(path)) end
    out[i] = { file = path, ids = ids, tokens = about.n, bytes = about.bytes > 0 and about.bytes or nil,
      dropped = about.dropped }
  end
  return out
end

local function print_overlap(list, before)
  for _, x in ipairs(list) do
    local o = x.overlap
    print(o.seen == 0 and ("%s: none of its runs of %d tokens is in %s"):format(x.file, o.run, before) or
      ("%s: %s of its runs of %d tokens are in %s, too; the first begins at token %d, there at %d"):format(
        x.file, ("%.1f%%"):format(100 * o.seen / o.runs), o.run, before, o.at, o.from))
  end
end

local function print_table(t, list)
  print(("%s; %s"):format(t.refusal and "ids as given" or t.about,
    t.add_bos and ("BOS %d before each text"):format(t.bos) or "no BOS"))
  local rows = { { "file", "tokens", "bytes", "bytes/token", "left out" } }
  for _, x in ipairs(list) do
    rows[#rows + 1] = { x.file, x.tokens, x.bytes or "-", x.bytes and ("%.2f"):format(x.bytes / x.tokens) or "-",
      x.dropped }
  end
  common.table(rows)
end

local function as_json(q, t, list)
  local out = { tokenizer = t.about, bos = t.bos, add_bos = t.add_bos, files = {} }
  for i, x in ipairs(list) do
    out.files[i] = { file = x.file, tokens = x.tokens, bytes = x.bytes, dropped = x.dropped, overlap = x.overlap,
      ids = numbers(x.ids, x.tokens) }
  end
  return q.json(out)
end

return {
  name = "tokens", usage = "MODEL FILE… [--ids | --npy OUT.npy | --decode]", arguments = { 2, math.huge },
  summary = "texts as the token ids of a model, and back",
  about = [[
The tokenizer is that in the GGUF, or the tokenizer.json beside the weights. A FILE is UTF-8 text, or ids: .npy, or
.jsonl with input_ids. Special tokens in a text are taken as such. A BOS is not among the ids: where the model wants
one, evaluation puts it before each window. Without an option tokens are counted; "left out" are characters for which
the vocabulary has no token.]],
  examples = {
    "MODEL mine.txt                    # count",
    "MODEL mine.txt --npy mine.npy     # for another program",
    "MODEL mine.npy --decode",
    "MODEL test.txt --before train.txt # is a part of it in both?",
  },
  options = {
    { "--tokenizer", "FILE", "a tokenizer.json (default: the model's)", group = "Input" },
    { "--before", "TEXT", "how much of each FILE is in TEXT, too", group = "Input", without = "--decode" },
    { "--ids", nil, "print ids, a line for each file" },
    { "--npy", "OUT.npy", "write the ids of one file, i32", without = "--decode" },
    { "--decode", nil, "print the text that ids stand for", without = "--ids" },
    { "--json", nil, "print JSON, ids included", without = "--decode" },
  },
  run = function(q, options)
    local paths = table.move(options, 2, #options, 1, {})
    if options.npy and #paths > 1 then common.misuse("--npy goes with one FILE, not %d", #paths) end
    local t = common.check(q.tokenizer(common.model(q, options[1], options), options.tokenizer))
    local list = read_all(t, paths)
    if options.before then
      local before = read_all(t, { options.before })[1]
      for _, x in ipairs(list) do x.overlap = common.check(q.overlap(before.ids, x.ids)) end
    end
    if options.npy then common.check(q.ids_write(options.npy, list[1].ids)) end
    if options.json then return print(as_json(q, t, list)) end
    if options.decode then
      for _, x in ipairs(list) do io.stdout:write((common.check(t:decode(x.ids)))) end
    elseif options.ids then
      for _, x in ipairs(list) do print(table.concat(numbers(x.ids, x.tokens), " ")) end
    else
      print_table(t, list)
    end
    if options.before then print_overlap(list, options.before) end
  end,
}
