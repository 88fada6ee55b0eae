-- targets.lua - checkpoints of safetensors that other tools read: for each, what its configuration says of the layers.
--
-- A target is a table:
--   encode(activations) -> what runtime/io/encode.h calls it
--   config(layers, dense) -> the quantization_config of config.json; or nil and why it has none
--   file                 a second place where tools look for that
--   remark(layers) -> what should be told of them, or nil
-- A layer is { name = of the module, format =, dialect = that reads it, f = the format's descriptor, perm = in
-- act-order?, activations = "i8.row", "nvfp4.g16"… as in qn_tensor, ".static" behind it if the one scale for all inputs
-- is in the file; or nil }; `dense` are the modules of matrices that stay as they are, { name =,
-- linear = }.

return function(q)
  -- Of the planes of scales: how many rows and columns of W share one; 0: all.
  local function scale_of(layer)
    for _, p in ipairs(layer.f.planes) do if p.name == "scale" then return p end end
  end

  local function has_zeros(layer)
    for _, p in ipairs(layer.f.planes) do if p.name == "zero" then return true end end
    return false
  end

  local function names(list, keep)
    local out = {}
    for _, x in ipairs(list) do if not keep or keep(x) then out[#out + 1] = x.name end end
    return out
  end

  -- Layers of one format and activations, the most frequent first: list of lists.
  local function by_format(layers)
    local groups, index = {}, {}
    for _, layer in ipairs(layers) do
      local key = layer.format .. " " .. (layer.activations or "")
      local group = index[key]
      if not group then
        group = { place = #groups + 1 }
        index[key], groups[#groups + 1] = group, group
      end
      group[#group + 1] = layer
    end
    table.sort(groups, function(a, b)
      if #a ~= #b then return #a > #b end
      return a.place < b.place
    end)
    return groups
  end

  local function made_by() return { quantizer = { "quernel:" .. q.version } } end

  -- ---- GPTQ ---------------------------------------------------------------------------------------------------------

  local function gptq_layer(layer)
    local scale = scale_of(layer)
    return { bits = layer.f.bits, group_size = scale.cols > 0 and scale.cols or -1, sym = not has_zeros(layer) }
  end

  -- An expression that matches this name alone.
  local function exactly(name) return "^" .. name:gsub("%.", "\\.") .. "$" end

  local function gptq(version)
    return function(layers, dense)
      local groups = by_format(layers)
      local config = gptq_layer(groups[1][1])
      local rules = {}
      for i = 2, #groups do
        for _, layer in ipairs(groups[i]) do rules["+:" .. exactly(layer.name)] = gptq_layer(layer) end
      end
      for _, m in ipairs(dense) do
        if m.linear and not m.head then rules["-:" .. exactly(m.name)] = setmetatable({}, {}) end
      end
      config.quant_method, config.checkpoint_format, config.desc_act = "gptq", version, false
      config.lm_head, config.meta = false, made_by()
      for _, layer in ipairs(layers) do
        config.desc_act = config.desc_act or layer.perm
        config.lm_head = config.lm_head or layer.head
      end
      if next(rules) then config.dynamic = rules end
      return config
    end
  end

  -- ---- AWQ ----------------------------------------------------------------------------------------------------------

  local function awq(layers, dense)
    local groups = by_format(layers)
    if #groups > 1 then
      return nil, ("awq holds one format for all layers; %s is %s, %s is %s"):format(groups[1][1].name,
        groups[1][1].format, groups[2][1].name, groups[2][1].format)
    end
    local scale, head = scale_of(layers[1]), false
    for _, layer in ipairs(layers) do head = head or layer.head end
    return { quant_method = "awq", version = "gemm", bits = 4, zero_point = true, meta = made_by(), lm_head = head,
      group_size = scale.cols > 0 and scale.cols or -1, modules_to_not_convert = names(dense) }
  end

  -- ---- compressed-tensors -------------------------------------------------------------------------------------------

  -- How weights are quantized, by what reads them.
  local kinds = {
    ["nvfp4-pack-quantized"] = { num_bits = 4, type = "float", symmetric = true, strategy = "tensor_group",
      group_size = 16, scale_dtype = "torch.float8_e4m3fn" },
    ["mxfp4-pack-quantized"] = { num_bits = 4, type = "float", symmetric = true, strategy = "group", group_size = 32,
      scale_dtype = "torch.uint8" },
    ["mxfp8-quantized"] = { num_bits = 8, type = "float", symmetric = true, strategy = "group", group_size = 32,
      scale_dtype = "torch.uint8" },
  }

  local function ct_weights(layer, format)
    local out, scale = { dynamic = false }, scale_of(layer)
    if kinds[format] then
      for k, v in pairs(kinds[format]) do out[k] = v end
      return out
    end
    out.num_bits, out.type, out.symmetric = layer.f.bits, format == "float-quantized" and "float" or "int",
      not has_zeros(layer)
    if scale.rows == 0 then out.strategy = "tensor"
    elseif scale.rows == 1 and scale.cols == 0 then out.strategy = "channel"
    elseif scale.rows == 1 then out.strategy, out.group_size = "group", scale.cols
    else out.strategy, out.block_structure = "block", { scale.rows, scale.cols } end
    return out
  end

  -- How activations are quantized, and the weights that they go with.
  local activations_of = {
    i8 = { num_bits = 8, type = "int", symmetric = true, with = "int-quantized" },
    i8z = { num_bits = 8, type = "int", symmetric = false, with = "int-quantized" },
    e4m3 = { num_bits = 8, type = "float", symmetric = true, with = "float-quantized" },
    mxfp8 = { num_bits = 8, type = "float", symmetric = true, scale_dtype = "torch.uint8", with = "mxfp8-quantized" },
    mxfp4 = { num_bits = 4, type = "float", symmetric = true, scale_dtype = "torch.uint8",
      with = "mxfp4-pack-quantized" },
    nvfp4 = { num_bits = 4, type = "float", symmetric = true, scale_dtype = "torch.float8_e4m3fn",
      strategy = "tensor_group", dynamic = "local", with = "nvfp4-pack-quantized" },
  }

  -- Quantized as they come, but with a scale that is in the file. A token's scale becomes one for each 128 of it where
  -- weights have blocks.
  local function ct_activations(text, weights, format)
    local kind, grain, static = text:match "^(%w+)%.(%w+)(.*)$"
    local known = activations_of[kind]
    if not known or known.with ~= format then return nil end
    local out = { num_bits = known.num_bits, type = known.type, symmetric = known.symmetric,
      scale_dtype = known.scale_dtype, dynamic = known.dynamic or static ~= ".static" }
    local group = math.tointeger(tonumber(grain:match "^g(%d+)$"))
    if grain == "row" and weights.strategy == "block" then group = weights.block_structure[2] end
    out.strategy = known.strategy or group and "group" or grain == "tensor" and "tensor" or "token"
    out.group_size = group
    return out
  end

  local function compressed_tensors(layers, dense)
    local config_groups, formats, groups = {}, {}, by_format(layers)
    for i, group in ipairs(groups) do
      local format, activations = group[1].dialect:match "/(.*)", group[1].activations
      local weights = ct_weights(group[1], format)
      local inputs = activations and ct_activations(activations, weights, format)
      if activations and not inputs then
        return nil, ("%s, %s: activations of %s do not go with it; --activations none leaves them as they are"):format(
          group[1].name, group[1].format, activations)
      end
      config_groups["group_" .. i - 1] = { weights = weights, format = format,
        input_activations = inputs,
        targets = #groups == 1 and { "Linear" } or names(group) }
      formats[format] = true
    end
    local one = next(formats)
    return { quant_method = "compressed-tensors", quantization_status = "compressed", config_groups = config_groups,
      format = next(formats, one) and "mixed-precision" or one, ignore = names(dense) }
  end

  local function ct_remark(layers)
    for _, layer in ipairs(layers) do
      if layer.dialect:find "nvfp4" then
        return "nvfp4: the scale of each tensor is stored as its reciprocal and may come back 6e-8 of it off"
      end
    end
  end

  return {
    gptq = { encode = function() return "gptq" end, config = gptq "gptq", file = "quantize_config.json" },
    gptq_v2 = { encode = function() return "gptq_v2" end, config = gptq "gptq_v2", file = "quantize_config.json" },
    awq = { encode = function() return "awq" end, config = awq },
    ["compressed-tensors"] = {
      encode = function(activations)
        return activations and activations:find "^i8" and "compressed-tensors/int-quantized" or "compressed-tensors"
      end,
      config = compressed_tensors, activations = true, remark = ct_remark,
    },
  }
end
