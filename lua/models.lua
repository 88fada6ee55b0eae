-- models.lua - checkpoints: the weights of a model, their planes, the problems that its layers pose.

return function(q, native)
  local model = {}
  model.__index = model

  -- Open a checkpoint: a directory, a .safetensors or a .gguf file.
  function q.model(path)
    local handle, why, code = native.model(path)
    if not handle then return nil, why, code end
    local m = setmetatable({ path = path, handle = handle, list = handle:tensors(), by_name = {} }, model)
    for _, t in ipairs(m.list) do m.by_name[t.name] = t end
    return m
  end

  -- planes(format, n, k, { { name = "codes", data = buffer, rows =, cols = }… }): a weight of the script's own.
  q.planes = native.planes

  -- List of { name, dialect, format, n, k, slices, bytes, bpw, quantized, linear, refusal… }.
  function model:tensors() return self.list end
  function model:stored() return self.handle:stored() end
  function model:config() return self.handle:config() end

  local function matrix(self, name)
    local t = self.by_name[name]
    if not t then return nil, ("%s: no weight %q; quernel inspect lists them"):format(self.path, name), "QN_E_ARG" end
    if not t.format then return nil, ("%s: %s"):format(name, t.refusal or "it is no matrix"), "QN_E_SHAPE" end
    return t
  end

  -- Planes of a weight; `slice` counts the matrices of a stack from 1.
  function model:planes(name, slice)
    local t, why, code = matrix(self, name)
    if not t then return nil, why, code end
    return self.handle:planes(name, slice)
  end

  -- The weight as numbers: buffer f32 [N, K], act-order undone, and its tensor.
  function model:dequantize(name, slice)
    local t, why, code = matrix(self, name)
    if not t then return nil, why, code end
    local descriptor, planes, x = q.descriptor(t.format)
    planes, why, code = self.handle:planes(name, slice)
    if not planes then return nil, why, code end
    x, why, code = planes:dequantize(descriptor)
    if not x then return nil, ("%s: %s"):format(name, why), code end
    return x, t
  end

  -- The linear layers, grouped by (format, N, K): list of { format, n, k, layers = { name… } }, and the layers that
  -- cannot be served: { { name, why }… }. Of a quantized model, the quantized ones.
  function model:groups()
    local any = false
    for _, t in ipairs(self.list) do any = any or t.quantized and t.linear end
    local groups, index, left_out = {}, {}, {}
    for _, t in ipairs(self.list) do
      local wanted = t.linear and (t.quantized or not any)
      local ok, why = t.format, t.refusal or "it is no matrix"
      if wanted and ok then ok, why = pcall(q.resolve, t.format) end
      if wanted and ok then
        local key = ("%s:%dx%d"):format(t.format, t.n, t.k)
        if not index[key] then
          index[key] = { format = t.format, n = t.n, k = t.k, layers = {} }
          groups[#groups + 1] = index[key]
        end
        table.insert(index[key].layers, t.name)
      elseif wanted then
        left_out[#left_out + 1] = { name = t.name, why = why }
      end
    end
    return groups, left_out
  end

  -- Are the planes of a group's layers fit for use: no NaN among the scales, no code beyond its bits?
  function model:check(group)
    local descriptor = q.descriptor(group.format)
    for _, name in ipairs(group.layers) do
      for slice = 1, self.by_name[name].slices do
        local planes, why, code = self.handle:planes(name, slice)
        local ok = planes
        if planes then ok, why, code = planes:check(descriptor) end
        if not ok then return nil, ("%s: %s"):format(name, why), code end
      end
    end
    return true
  end

  -- Write a weight as a NumPy file of float32 [N, K].
  function model:write_npy(name, path, slice)
    local x, t, code = self:dequantize(name, slice)
    if not x then return nil, t, code end
    return native.npy_write(path, x, t.n, t.k)
  end

  -- Write the model as neutral planes: each weight NAME.weight becomes NAME.codes, NAME.scale… (a stack's slices
  -- NAME.1.codes…), its format is said in the metadata; all else is copied as it is stored.
  function model:write_planes(path)
    local list, meta, kept = {}, { "quernel.planes", "1" }, {}
    local function add(planes, base, format)
      local info = planes:info()
      for _, p in ipairs(info.planes) do
        list[#list + 1] = { name = base .. "." .. p.name, planes = planes, plane = p.name }
      end
      if info.perm then list[#list + 1] = { name = base .. ".perm", planes = planes, plane = "perm" } end
      table.move({ base, ("%s:%dx%d"):format(format, info.n, info.k) }, 1, 2, #meta + 1, meta)
    end
    for _, t in ipairs(self.list) do
      if t.refusal then return nil, ("%s: %s"):format(t.name, t.refusal), "QN_E_SHAPE" end
      for slice = 1, t.quantized and t.slices or 0 do
        local planes, why, code = self.handle:planes(t.name, slice)
        if not planes then return nil, why, code end
        local base = t.name:gsub("%.weight$", "")
        add(planes, t.slices > 1 and base .. "." .. slice or base, t.format)
      end
      if not t.quantized and t.raw and not t.tied_to and not kept[t.raw] then
        kept[t.raw] = true
        list[#list + 1] = { name = t.name, stored = t.raw }
      end
    end
    return native.safetensors_write(path, list, self.handle, meta)
  end
end
