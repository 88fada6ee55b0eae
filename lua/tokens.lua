-- tokens.lua - text as token ids: the tokenizer of a checkpoint, ids from files. Ids are buffers of i32.

return function(q, native)
  local tokenizer = {}
  tokenizer.__index = tokenizer

  -- The tokenizer of a model, or that of a tokenizer.json at `path`: about (what it is), refusal (why text cannot be
  -- encoded; nil), size (ids are below it), vocabulary (rows of the model's embedding), bos (the id; nil), add_bos
  -- (does the model's rule put it before a text?). nil, message, code for files that are damaged.
  function q.tokenizer(model, path)
    local handle, t, code = native.tokenizer(model.handle, path)
    if not handle then return nil, t, code end
    t.handle = handle
    return setmetatable(t, tokenizer)
  end

  -- Both: ids (nil: there are none), { n, bytes, dropped (characters without a token), rows, cols (of windows) }; or
  -- nil, message, code. read: of a .npy, a .jsonl, else of a text; eval/text/text.h has the rules.
  function tokenizer:encode(text) return self.handle:encode(text) end
  function tokenizer:read(path)
    return self.handle:read(path, self.vocabulary > 0 and self.vocabulary or self.size)
  end

  -- The text that ids stand for, or nil, message, code.
  function tokenizer:decode(ids) return self.handle:decode(ids) end

  -- ids as a NumPy file: true, or nil, message, code.
  q.ids_write = native.ids_write

  -- How much of `ids` is in `before`, too: { run (ids of a run), runs, seen (of them), at, from (where the first that
  -- was seen begins in each, from 0) }.
  q.overlap = native.overlap

  -- A sentence for each of the files `texts` of which one of `before` holds a tenth or more (phrases that come again in
  -- any text are less); or nil, message, code.
  function q.seen_before(model, texts, before)
    local t, why, code = q.tokenizer(model)
    if not t then return nil, why, code end
    local out, ids = {}, {}
    for _, list in ipairs { texts, before } do
      for _, path in ipairs(list) do
        ids[path], why, code = t:read(path)
        if not ids[path] then return nil, why, code end
      end
    end
    for _, text in ipairs(texts) do
      for _, earlier in ipairs(before) do
        local o = q.overlap(ids[earlier], ids[text])
        if o and o.seen >= 0.1 * o.runs and o.seen > 0 then
          out[#out + 1] = ("%.0f%% of %s (runs of %d tokens) is in %s, too, on which methods are calibrated: that " ..
            "flatters them."):format(100 * o.seen / o.runs, text, o.run, earlier)
        end
      end
    end
    return out
  end
end
