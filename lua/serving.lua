-- serving.lua - which servers have a fast kernel for a format, and which checkpoint of ours they read. All that is said
-- of it comes from here: the table of docs/serving-elsewhere.md (tests/lua/serving.lua compares them), and the last
-- lines of a trade-off.

local serving = {}

serving.read = "30 November 2026" -- when the sources were
serving.stacks = { "vLLM", "SGLang", "TGI", "TensorRT-LLM", "llama.cpp" }
serving.sources = {
  "vllm `gptq_marlin.py` at 00161ce, `marlin_utils.py` at 007d500", "vllm `awq_marlin.py` at 0322f29",
  "sglang `advanced_features/quantization.md` at 0f4513c", "TGI's page on quantization, 3.3.5",
  "TensorRT-LLM's page on quantization, 1.4.0rc4: checkpoints come from ModelOpt",
  "vllm `compressed_tensors.py`, where schemes are chosen", "vLLM's page on GGUF, which calls it under-optimized",
  "vllm `compressed_tensors_w4a16_mxfp4.py` at 1a6da54", "vllm `compressed_tensors_w4a16_nvfp4.py` at 17b6501",
}

local grouped = "int4.g32 int4.g64 int4.g128 int4.row int8.g32 int8.g64 int8.g128 int8.row"

-- Rows of the table; of several that fit a format, the first one that a server takes is proposed.
--   what          formats as people read them; formats: their names, without the type of the scales
--   act           the activations with which a candidate was measured, if the row is of these alone
--   to, activations   of quernel convert
--   wide          activations stay in 16 bits there, whatever they were measured with
--   fast          server -> kernel, [source]; other: server -> why what we write does not get a fast kernel there
serving.rows = {
  { what = "int8.row, for activations i8", formats = "int8.row", act = "i8", to = "compressed-tensors",
    activations = "i8", fast = { vLLM = "yes [6]", SGLang = "yes [3]" } },
  { what = "int4, int8 of `.g32`, `.g64`, `.g128` or `.row`", formats = grouped, to = "gptq", wide = true,
    fast = { vLLM = "Marlin [1]", SGLang = "Marlin on NVIDIA [3]", TGI = "yes, in maintenance mode [4]" },
    other = { ["TensorRT-LLM"] = "int4, not from these files [5]" } },
  { what = "the same", formats = grouped, to = "compressed-tensors", wide = true,
    fast = { vLLM = "Marlin [6]", SGLang = "yes [3]" } },
  { what = "int4 of these groups with `.z`", formats = "int4.g32.z int4.g64.z int4.g128.z int4.row.z", to = "awq",
    wide = true,
    fast = { vLLM = "Marlin [2]", SGLang = "Marlin on NVIDIA [3]", TGI = "yes, in maintenance mode [4]" },
    other = { ["TensorRT-LLM"] = "not from these files [5]" } },
  { what = "e4m3.row, e4m3.tensor", formats = "e4m3.row e4m3.tensor", to = "compressed-tensors", activations = "e4m3",
    fast = { vLLM = "yes [6]", SGLang = "yes [3]" },
    other = { TGI = "quantizes as it loads [4]", ["TensorRT-LLM"] = "not from these files [5]" } },
  { what = "mxfp4", formats = "mxfp4", to = "compressed-tensors", wide = true, fast = { vLLM = "Marlin [8]" } },
  { what = "nvfp4", formats = "nvfp4", to = "compressed-tensors",
    other = { vLLM = "no: it takes one scale for q, k and v [9]", ["TensorRT-LLM"] = "not from these files [5]" } },
  { what = "int4.g32, int4.g32.m, int5.g32, int5.g32.m, int8.g32, iq4_nl.g32, iq4_xs, q2_k … q6_k, mxfp4", to = "gguf",
    formats = "int4.g32 int4.g32.m int5.g32 int5.g32.m int8.g32 iq4_nl.g32 iq4_xs q2_k q3_k q4_k q5_k q6_k mxfp4",
    fast = { ["llama.cpp"] = "yes: the table above" },
    other = { vLLM = "not a fast one [7]", SGLang = "for types not named [3]" } },
  { what = "nvfp4, ternary.g256", formats = "nvfp4 ternary.g256", to = "gguf",
    fast = { ["llama.cpp"] = "on the CPU: the table above" } },
}

-- ---- The table ------------------------------------------------------------------------------------------------------

-- As it stands in the documentation.
function serving.markdown()
  local out = { ("| formats | `--to` | %s |"):format(table.concat(serving.stacks, " | ")),
    "|---|---|" .. ("---|"):rep(#serving.stacks) }
  for _, row in ipairs(serving.rows) do
    local cells = { row.what, ("`%s`"):format(row.to) }
    for _, stack in ipairs(serving.stacks) do
      local fast, other = (row.fast or {})[stack], (row.other or {})[stack]
      cells[#cells + 1] = fast or other or ""
    end
    out[#out + 1] = ("| %s |"):format(table.concat(cells, " | ")):gsub("  +", " ")
  end
  local sources = {}
  for i, x in ipairs(serving.sources) do sources[i] = ("[%d] %s"):format(i, x) end
  return table.concat(out, "\n") .. "\n", table.concat(sources, "; ")
end

-- ---- For a checkpoint -----------------------------------------------------------------------------------------------

local function bare(format) return (format:gsub("%.b?f16$", "")) end

-- What activations are multiplied in: "i8" of "f32~i8".
local function multiplied(act) return act:match "[^~]*$" end

local function fits(row, formats, act)
  if row.act and row.act ~= multiplied(act) then return false end
  for _, format in ipairs(formats) do
    if not (" " .. row.formats .. " "):find(" " .. bare(format) .. " ", 1, true) then return false end
  end
  return #formats > 0
end

-- For a checkpoint with layers in these formats, measured with activations `act`: list of { to, activations, wide,
-- stacks = names }, each server in the first row that it takes; and the servers without a fast kernel.
function serving.of(formats, act)
  local found, rest, taken = {}, {}, {}
  for _, row in ipairs(serving.rows) do
    local stacks = {}
    for _, stack in ipairs(serving.stacks) do
      if row.fast and row.fast[stack] and not taken[stack] and fits(row, formats, act) then
        stacks[#stacks + 1], taken[stack] = stack, true
      end
    end
    if #stacks > 0 then
      found[#found + 1] = { to = row.to, activations = row.activations, wide = row.wide, stacks = stacks }
    end
  end
  for _, stack in ipairs(serving.stacks) do if not taken[stack] then rest[#rest + 1] = stack end end
  return found, rest
end

function serving.plain(list) -- "a, b and c"
  return (table.concat(list, ", "):gsub(", ([^,]*)$", " and %1"))
end

-- Activations of less than 16 bits, as they may be measured.
local narrow = { i8 = true, e4m3 = true, e5m2 = true }

-- That as a sentence.
function serving.sentence(formats, act, found, rest)
  if #formats == 0 then return "No layer is quantized: other servers need no kernel for it." end
  local parts, wide = {}, {}
  for i, x in ipairs(found) do
    parts[i] = ("%s (as %s)"):format(serving.plain(x.stacks), x.to)
    if x.wide and narrow[multiplied(act)] then wide[#wide + 1] = x.to end
  end
  if #found == 0 then
    return ("No other server that is known here has a fast kernel for %s (%s, as of %s)."):format(
      serving.plain(formats), serving.plain(rest), serving.read)
  end
  local none = #rest > 0 and (", none is known in %s"):format(serving.plain(rest)) or ""
  return ("As of %s there is a fast kernel for %s in %s%s.%s"):format(serving.read, serving.plain(formats),
    table.concat(parts, " and "), none,
    #wide > 0 and (" As %s activations stay in 16 bits there."):format(serving.plain(wide)) or "")
end

return serving
