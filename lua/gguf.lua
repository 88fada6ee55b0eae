-- gguf.lua - a model of Hugging Face as llama.cpp reads it: names of tensors, keys of the header, the tokenizer.
--
-- Source: llama.cpp, conversion/, gguf-py/gguf/constants.py, and what each src/models/ARCHITECTURE.cpp loads.

return function(native)
  local gguf = {}

  local function fail(text, ...) error(text:format(...), 0) end

  -- ---- Architectures ------------------------------------------------------------------------------------------------

  -- By model_type. name: the architecture's; rotate: rows of q and k are brought into llama.cpp's order; norm: what is
  -- added to the weights of norms; outer: norms stand behind attention and mlp, not before the latter alone; keys: more
  -- of the header, { name, kind, key of config.json, value if that is not there }; window: "key" if layers may have
  -- one, "ignored" if llama.cpp reads the key and computes without; factors: rope_freqs.weight is read; experts: it has
  -- some, and if it is a text, their width is that key of config.json.
  --   What it takes for granted and no key says: act, of the mlp (silu); query(config), the root of attention's scale;
  -- settings, { key of config.json, value if that is not there, value that is taken for granted }.
  local scales = { { "attention.scale", "f32", "attention_multiplier" }, { "embedding_scale", "f32",
    "embedding_multiplier" }, { "residual_scale", "f32", "residual_multiplier" }, { "logit_scale", "f32",
    "logits_scaling", 1 } }
  local function gemma_query(config)
    return config.num_hidden_layers == 62 and config.hidden_size // config.num_attention_heads or config.head_dim or 256
  end
  local architectures = {
    llama = { name = "llama", rotate = true, factors = true },
    mistral = { name = "llama", rotate = true, factors = true },
    mixtral = { name = "llama", rotate = true, factors = true, experts = true },
    granite = { name = "granite", rotate = true, factors = true, keys = scales },
    qwen2 = { name = "qwen2" },
    qwen3 = { name = "qwen3" },
    qwen3_moe = { name = "qwen3moe", experts = "moe_intermediate_size",
      settings = { { "norm_topk_prob", false, true }, { "decoder_sparse_step", 1, 1 }, { "mlp_only_layers" } } },
    olmo2 = { name = "olmo2", outer = true },
    gemma3_text = { name = "gemma3", norm = 1, outer = true, window = "key", act = "gelu_pytorch_tanh",
      query = gemma_query, keys = { { "final_logit_softcapping", "f32", "final_logit_softcapping" } } },
    phi3 = { name = "phi3", window = "ignored" },
  }

  local function architecture(config)
    local known = {}
    for name in pairs(architectures) do known[#known + 1] = name end
    table.sort(known)
    return architectures[config.model_type] or fail("config.json: model_type %q has no row in what is written as GGUF;"
      .. " there are %s", tostring(config.model_type), table.concat(known, ", "))
  end

  -- ---- Names --------------------------------------------------------------------------------------------------------

  local outside = { ["embed_tokens"] = "token_embd", ["norm"] = "output_norm" }
  local inside = {
    ["input_layernorm"] = "attn_norm", ["self_attn.q_proj"] = "attn_q", ["self_attn.k_proj"] = "attn_k",
    ["self_attn.v_proj"] = "attn_v", ["self_attn.o_proj"] = "attn_output", ["self_attn.qkv_proj"] = "attn_qkv",
    ["self_attn.q_norm"] = "attn_q_norm", ["self_attn.k_norm"] = "attn_k_norm", ["mlp.gate_proj"] = "ffn_gate",
    ["mlp.up_proj"] = "ffn_up", ["mlp.gate_up_proj"] = "ffn_up", ["mlp.down_proj"] = "ffn_down",
    ["pre_feedforward_layernorm"] = "ffn_norm", ["post_feedforward_layernorm"] = "post_ffw_norm",
    ["mlp.gate"] = "ffn_gate_inp", ["block_sparse_moe.gate"] = "ffn_gate_inp",
  }
  local of_expert = { gate_proj = "ffn_gate_exps", up_proj = "ffn_up_exps", down_proj = "ffn_down_exps",
    w1 = "ffn_gate_exps", w3 = "ffn_up_exps", w2 = "ffn_down_exps" }

  -- "model.layers.3.self_attn.q_proj.weight" -> "blk.3.attn_q.weight"; of the weight of an expert, whose tensor has
  -- those of all experts, its number, from 0, too.
  local function name_of(arch, name)
    local rest = name:gsub("^model%.", "")
    local stem, tail = rest:match "^(.*)%.(%a+)$"
    if rest == "lm_head.weight" then return "output.weight" end
    local layer, part = (stem or ""):match "^layers%.(%d+)%.(.*)$"
    local expert, matrix = (part or ""):match "%.experts%.(%d+)%.(.*)$"
    local to = layer and (inside[part] or arch.experts and tail == "weight" and of_expert[matrix]) or outside[stem]
    if part == "post_attention_layernorm" then to = arch.outer and "post_attention_norm" or "ffn_norm" end
    if not to or tail ~= "weight" and tail ~= "bias" then
      fail("%s: this tensor has no place in a GGUF of the architecture %s", name, arch.name)
    end
    return (layer and "blk." .. layer .. "." or "") .. to .. "." .. tail, math.tointeger(expert)
  end

  -- How many heads' rows of a tensor are rotated; nil: none.
  local function heads_of(arch, config, name)
    if not arch.rotate then return nil end
    if name:find "attn_q%.%a+$" then return config.num_attention_heads end
    if name:find "attn_k%.%a+$" then return config.num_key_value_heads or config.num_attention_heads end
  end

  -- ---- Keys of the header -------------------------------------------------------------------------------------------

  local kinds = { u32 = { 4, "<I4" }, i32 = { 5, "<i4" }, f32 = { 6, "<f" }, bool = { 7, "B" }, text = { 8, "<s8" } }

  local function packed(kind, value)
    if kind == "bool" then value = value and 1 or 0 end
    return string.pack(kinds[kind][2], value)
  end

  local function keys_new() return { count = 0 } end
  local function add(keys, name, kind, value)
    if value == nil then return end
    keys.count = keys.count + 1
    keys[#keys + 1] = string.pack("<s8I4", name, kinds[kind][1]) .. packed(kind, value)
  end
  local function add_list(keys, name, kind, list)
    local out = {}
    for i, x in ipairs(list) do out[i] = packed(kind, x) end
    keys.count = keys.count + 1
    keys[#keys + 1] = string.pack("<s8I4I4I8", name, 9, kinds[kind][1], #list) .. table.concat(out)
  end

  -- The rotation's settings, whichever way they are spelled.
  local function rope_of(config)
    local rope = {}
    for _, t in ipairs { config.rope_scaling or {}, config.rope_parameters or {} } do
      for k, v in pairs(t.full_attention or t) do rope[k] = v end
    end
    rope.kind = rope.rope_type or rope.type or "default"
    rope.base = config.rope_theta or rope.rope_theta or 10000
    return rope
  end

  local function head_dim(config) return config.head_dim or config.hidden_size // config.num_attention_heads end

  -- Factors of Llama 3 for each frequency, a tensor of its own; nil for other rotations.
  local function rope_factors(config)
    local rope, dim, out = rope_of(config), head_dim(config), {}
    if rope.kind ~= "llama3" then return nil end
    local low = rope.original_max_position_embeddings / rope.low_freq_factor
    local high = rope.original_max_position_embeddings / rope.high_freq_factor
    for i = 1, dim // 2 do
      local wavelength = 2 * math.pi * rope.base ^ (2 * (i - 1) / dim)
      local smooth = (rope.original_max_position_embeddings / wavelength - rope.low_freq_factor) /
        (rope.high_freq_factor - rope.low_freq_factor)
      out[i] = wavelength < high and 1 or wavelength > low and rope.factor or
        1 / ((1 - smooth) / rope.factor + smooth)
    end
    return out
  end

  -- Settings of yarn that go into no key, and what llama.cpp has for them.
  local unwritten = { { "attention_factor" }, { "mscale" }, { "mscale_all_dim" }, { "beta_fast", 32 },
    { "beta_slow", 1 }, { "truncate", true } }

  local function add_rope(keys, prefix, config)
    local rope = rope_of(config)
    add(keys, prefix .. "rope.freq_base", "f32", rope.base)
    add(keys, prefix .. "rope.dimension_count", "u32",
      math.floor(head_dim(config) * (config.partial_rotary_factor or rope.partial_rotary_factor or 1)))
    if rope.kind == "default" or rope.kind == "llama3" then return end
    if rope.kind ~= "linear" and rope.kind ~= "yarn" then
      fail("config.json: a rotation of type %q is not written as GGUF; default, linear, yarn and llama3 are", rope.kind)
    end
    for _, s in ipairs(rope.kind == "yarn" and unwritten or {}) do
      local value = rope[s[1]]
      if value ~= nil and value ~= s[2] then
        fail("config.json: yarn with %s %s is not written as GGUF; without it, it is", s[1], tostring(value))
      end
    end
    add(keys, prefix .. "rope.scaling.type", "text", rope.kind)
    add(keys, prefix .. "rope.scaling.factor", "f32", rope.factor)
    add(keys, prefix .. "rope.scaling.original_context_length", "u32", rope.original_max_position_embeddings)
  end

  -- The window of layers that have one, which layers, and the base of their own rotation. An architecture without the
  -- key has no window that is shorter than the context.
  local function add_window(keys, prefix, arch, config)
    local size = config.use_sliding_window ~= false and math.tointeger(config.sliding_window)
    if not size then return end
    if not arch.window and size < config.max_position_embeddings then
      fail("config.json: sliding_window %d is not written as GGUF of the architecture %s, which sees the whole context",
        size, arch.name)
    end
    if arch.window then add(keys, prefix .. "attention.sliding_window", "u32", size) end
    if arch.window ~= "key" then return end
    local pattern, rope = {}, (config.rope_parameters or {}).sliding_attention or {}
    for i, kind in ipairs(config.layer_types or {}) do pattern[i] = kind == "sliding_attention" end
    if #pattern > 0 then add_list(keys, prefix .. "attention.sliding_window_pattern", "bool", pattern)
    else add(keys, prefix .. "attention.sliding_window_pattern", "u32", config.sliding_window_pattern) end
    if (rope.rope_type or "default") ~= "default" then
      fail("config.json: a rotation of type %q of layers with a window is not written as GGUF", rope.rope_type)
    end
    add(keys, prefix .. "rope.freq_base_swa", "f32", config.rope_local_base_freq or rope.rope_theta)
  end

  -- Settings that no key says must be what llama.cpp takes for granted.
  local function check_assumed(arch, config)
    local function check(name, value, assumed)
      if value == nil or value == assumed then return end
      fail("config.json: %s %s is not written as GGUF: llama.cpp takes %s for every model of the architecture %s", name,
        tostring(value), assumed == nil and "none" or tostring(assumed), arch.name)
    end
    check("hidden_act", config.hidden_activation or config.hidden_act, arch.act or "silu")
    check("query_pre_attn_scalar", config.query_pre_attn_scalar, arch.query and arch.query(config))
    check("attn_logit_softcapping", config.attn_logit_softcapping, nil)
    check("use_bidirectional_attention", config.use_bidirectional_attention, false)
    for _, s in ipairs(arch.settings or {}) do
      local value = config[s[1]]
      if value == nil then value = s[2] end
      if type(value) == "table" then value = #value > 0 and "[" .. table.concat(value, ", ") .. "]" or nil end
      check(s[1], value, s[3])
    end
    if rope_of(config).kind == "llama3" and not arch.factors then
      fail('config.json: a rotation of type "llama3" is not written as GGUF of the architecture %s', arch.name)
    end
  end

  local function experts_of(config) return config.num_experts or config.num_local_experts end

  local function add_model(keys, arch, config, name)
    local prefix, missing = arch.name .. ".", nil
    local function need(key)
      if config[key] == nil then missing = missing or key end
      return config[key]
    end
    add(keys, "general.architecture", "text", arch.name)
    add(keys, "general.name", "text", name)
    add(keys, "general.quantization_version", "u32", 2)
    add(keys, prefix .. "block_count", "u32", need "num_hidden_layers")
    add(keys, prefix .. "context_length", "u32", need "max_position_embeddings")
    add(keys, prefix .. "embedding_length", "u32", need "hidden_size")
    add(keys, prefix .. "feed_forward_length", "u32", need "intermediate_size")
    add(keys, prefix .. "attention.head_count", "u32", need "num_attention_heads")
    add(keys, prefix .. "attention.layer_norm_rms_epsilon", "f32", need "rms_norm_eps")
    add(keys, prefix .. "vocab_size", "u32", need "vocab_size")
    if arch.experts then
      add(keys, prefix .. "expert_count", "u32", experts_of(config) or need "num_experts")
      add(keys, prefix .. "expert_used_count", "u32", need "num_experts_per_tok")
      if arch.experts ~= true then add(keys, prefix .. "expert_feed_forward_length", "u32", need(arch.experts)) end
    end
    if missing then fail("config.json: no %q", missing) end
    check_assumed(arch, config)
    add(keys, prefix .. "attention.head_count_kv", "u32", config.num_key_value_heads or config.num_attention_heads)
    add(keys, prefix .. "attention.key_length", "u32", head_dim(config))
    add(keys, prefix .. "attention.value_length", "u32", head_dim(config))
    for _, k in ipairs(arch.keys or {}) do add(keys, prefix .. k[1], k[2], config[k[3]] or k[4]) end
    add_window(keys, prefix, arch, config)
    add_rope(keys, prefix, config)
  end

  -- ---- The tokenizer ------------------------------------------------------------------------------------------------

  local NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

  -- Texts and kinds of all ids.
  local function vocabulary(tokenizer, size)
    local tokens, kind, model = {}, {}, tokenizer.model
    for text, id in pairs(model.vocab) do
      tokens[id + 1] = text
      kind[id + 1] = model.byte_fallback and text:find "^<0x%x%x>$" and BYTE or text == model.unk_token and UNKNOWN
        or NORMAL
    end
    for _, t in ipairs(tokenizer.added_tokens or {}) do
      tokens[t.id + 1] = t.content
      if kind[t.id + 1] ~= UNKNOWN then kind[t.id + 1] = t.special and CONTROL or USER_DEFINED end
    end
    for id = 1, math.max(size, #tokens) do
      if not tokens[id] then tokens[id], kind[id] = ("[PAD%d]"):format(id - 1), UNUSED end
    end
    if #tokens > size then
      fail("tokenizer.json: %d tokens, the configuration says vocab_size %d", #tokens, size)
    end
    return tokens, kind
  end

  -- Each pair that is joined, "a b", in order.
  local function merges_of(model)
    local out = {}
    for i, m in ipairs(model.merges) do out[i] = type(m) == "table" and m[1] .. " " .. m[2] or m end
    return out
  end

  -- SentencePiece joins what has the highest score: tokens that are joined first have it.
  local function scores_of(model, tokens)
    local rank, out = {}, {}
    for i, m in ipairs(merges_of(model)) do
      local text = m:gsub(" ", "", 1)
      rank[text] = rank[text] or i
    end
    for id, text in ipairs(tokens) do out[id] = -(rank[text] or 0) end
    return out
  end

  -- The steps of a part that may be a sequence.
  local function steps(part, list)
    if not part then return {} end
    return part.type == "Sequence" and part[list] or { part }
  end

  -- Expressions that text is split by, in order, and whether its bytes are letters.
  local function splits(tokenizer)
    local out, bytes = {}, false
    for _, s in ipairs(steps(tokenizer.pre_tokenizer, "pretokenizers")) do
      if s.type == "Split" then out[#out + 1] = s.pattern.Regex or s.pattern.String
      elseif s.type == "Digits" and s.individual_digits then out[#out + 1] = "\\p{N}"
      elseif s.type == "ByteLevel" then
        bytes = true
        if s.use_regex ~= false then out[#out + 1] = "gpt2" end
      end
    end
    return out, bytes
  end

  local function add_bytes(keys, tokenizer, patterns)
    local merges = merges_of(tokenizer.model)
    local pre = #merges == 0 and "default" or native.gguf_pre(patterns, tokenizer.model.ignore_merges or false)
    if not pre then
      fail("tokenizer.json: text is split by %s, for which llama.cpp has no name that is known here",
        #patterns > 0 and table.concat(patterns, " then ") or "nothing")
    end
    add(keys, "tokenizer.ggml.model", "text", "gpt2")
    add(keys, "tokenizer.ggml.pre", "text", pre)
    add_list(keys, "tokenizer.ggml.merges", "text", #merges > 0 and merges or { "\u{100} \u{100}" }) -- one is needed
  end

  local function add_pieces(keys, tokenizer, tokens)
    local prefix = false
    for _, s in ipairs(steps(tokenizer.normalizer, "normalizers")) do prefix = prefix or s.type == "Prepend" end
    for _, s in ipairs(steps(tokenizer.pre_tokenizer, "pretokenizers")) do
      prefix = prefix or s.type == "Metaspace" and s.prepend_scheme ~= "never"
    end
    add(keys, "tokenizer.ggml.model", "text", "llama")
    add(keys, "tokenizer.ggml.pre", "text", "default")
    add_list(keys, "tokenizer.ggml.scores", "f32", scores_of(tokenizer.model, tokens))
    add(keys, "tokenizer.ggml.add_space_prefix", "bool", prefix)
  end

  -- Does the text begin with that token, as the post-processor says?
  local function begins_with(tokenizer, token)
    for _, step in ipairs(steps(tokenizer.post_processor, "processors")) do
      local first = step.type == "TemplateProcessing" and step.single and step.single[1]
      if first and first.SpecialToken and first.SpecialToken.id == token then return true end
    end
    return false
  end

  local function add_special(keys, tokenizer, tokens, config, settings)
    local id_of = {}
    for id, text in ipairs(tokens) do id_of[text] = id - 1 end
    for _, s in ipairs { { "bos", "bos" }, { "eos", "eos" }, { "pad", "padding" }, { "unk", "unknown" } } do
      local said, number = settings[s[1] .. "_token"], config[s[1] .. "_token_id"]
      local id = id_of[type(said) == "table" and said.content or said or false]
      if not id and number then id = type(number) == "table" and number[1] or number end
      add(keys, "tokenizer.ggml." .. s[2] .. "_token_id", "u32", id)
      if s[1] == "bos" then
        local add_bos = settings.add_bos_token
        if add_bos == nil then add_bos = id ~= nil and begins_with(tokenizer, tokens[id + 1]) end
        add(keys, "tokenizer.ggml.add_bos_token", "bool", add_bos)
      end
    end
  end

  -- files: function(name) -> text of a file beside config.json, or nil.
  local function add_tokenizer(keys, config, files, folder)
    local text = files "tokenizer.json"
    if not text then
      fail("%s/tokenizer.json: not there, and a GGUF holds it; --config names the folder that has it", folder)
    end
    local tokenizer = native.parse_json(text)
    if not tokenizer.model or tokenizer.model.type ~= "BPE" then
      fail("%s/tokenizer.json: a tokenizer of type %q is not written as GGUF; BPE is", folder,
        tostring(tokenizer.model and tokenizer.model.type))
    end
    local settings = native.parse_json(files "tokenizer_config.json" or "{}")
    local tokens, kind = vocabulary(tokenizer, config.vocab_size)
    local patterns, bytes = splits(tokenizer)
    if bytes then add_bytes(keys, tokenizer, patterns) else add_pieces(keys, tokenizer, tokens) end
    add_list(keys, "tokenizer.ggml.tokens", "text", tokens)
    add_list(keys, "tokenizer.ggml.token_type", "i32", kind)
    add_special(keys, tokenizer, tokens, config, settings)
    local template = files "chat_template.jinja" or settings.chat_template
    if type(template) == "string" then add(keys, "tokenizer.chat_template", "text", template) end
  end

  -- ---- The file -----------------------------------------------------------------------------------------------------

  -- Keys of the header: text and number. Then what should be told of the file, or nil.
  function gguf.keys(config, files, folder, name)
    local keys, arch = keys_new(), architecture(config)
    add_model(keys, arch, config, name)
    add_tokenizer(keys, config, files, folder)
    local size = arch.window == "ignored" and math.tointeger(config.sliding_window)
    local remark = size and size < config.max_position_embeddings and
      ("llama.cpp computes %s without its window of %d tokens"):format(arch.name, size) or nil
    return table.concat(keys), keys.count, remark
  end

  -- How tensors are written: { name = in the file, heads = to rotate, add = to a vector's elements, slice = number in a
  -- stack of slices, or nil } of a name of Hugging Face; and vectors that are made: { name, values }, or nil.
  function gguf.tensors(config)
    local arch = architecture(config)
    local function place(name)
      local to, slice = name_of(arch, name)
      return { name = to, slice = slice, slices = slice and experts_of(config), heads = heads_of(arch, config, to),
        add = to:find "norm%.weight$" and arch.norm }
    end
    local factors = rope_factors(config)
    return place, factors and { name = "rope_freqs.weight", values = factors }
  end

  return gguf
end
