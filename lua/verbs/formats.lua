local common = require "lua.common"

-- For each activation type: the families that take the format, and of those that do not, the rule that refuses.
local function families(q, name, device)
  local out = {}
  for _, act in ipairs(q.gen.target.acts(device.target)) do
    local row = { act = act, take = {}, refuse = {} }
    for _, r in ipairs(q.survey(("%s:4096x4096:%s"):format(name, act), device)) do
      local worst
      for _, x in ipairs(r.removed) do
        if x.count > 0 and (not worst or x.count > worst.count) then worst = x end
      end
      if r.survivors > 0 then
        row.take[#row.take + 1] = r.family
      else
        row.refuse[#row.refuse + 1] = { family = r.family, why = worst and worst.why or "no variant" }
      end
    end
    out[#out + 1] = row
  end
  return out
end

-- The families of a target that take the format with some activation type. One that takes it is not asked again: to
-- refuse it with another type is to go through the whole space.
local function takers(q, name, device)
  local list, left = {}, nil
  for _, act in ipairs(q.gen.target.acts(device.target)) do
    local options = { only_one = true, family = left and table.concat(left, ",") }
    left = {}
    for _, r in ipairs(q.survey(("%s:4096x4096:%s"):format(name, act), device, options)) do
      table.insert(r.survivors > 0 and list or left, r.family)
    end
  end
  table.sort(list)
  return list
end

-- The weights that share an element of a plane.
local function sharing(p)
  if p.rows == 0 then return "tensor" end
  if p.cols == 0 then return "row" end
  if p.rows == 1 then return ("%d codes of a row"):format(p.cols) end
  return ("block of %d rows x %d columns"):format(p.rows, p.cols)
end

local function show_one(q, options)
  local f = common.ask(q.resolve, options[1])
  local host, cuda = common.check(q.device "host"), common.ask(q.arch, options.arch)
  local d = q.gen.format.descriptor(f)
  local report = { name = f.name, doc = f.doc, file = f.def.file, bits = f.bits, map = f.map.kind, scale = f.scale,
    descriptor = d, host = families(q, f.name, host), cuda = families(q, f.name, cuda) }
  if options.json then print(q.json(report)) return end
  print(("%s: %s (%s)"):format(f.name, f.doc, f.def.file))
  print(("\nbits      %d per code, code map: %s%s"):format(f.bits, f.map.kind,
    f.map.lo and (", %g .. %g"):format(f.map.lo, f.map.hi) or ""))
  for _, p in ipairs(d.planes) do
    print(("plane     %s %s, one per %s"):format(p.name, p.type, sharing(p)))
  end
  print("decode    " .. q.gen.expr.text(d.decode, d.planes))
  for _, device in ipairs { host, cuda } do
    print(("\n%s (%s)"):format(device.target, device.target == "host" and "this machine" or device.arch))
    for _, row in ipairs(report[device.target]) do
      print(("  %-5s activations  %s"):format(row.act, #row.take > 0 and table.concat(row.take, ", ") or "no family"))
      for _, x in ipairs(row.refuse) do print(("        %s: %s"):format(x.family, x.why)) end
    end
  end
end

local function show_all(q, options)
  local rows, list = { { "format", "bits", "groups", "planes", "host", "cuda", "what" } }, {}
  local host, cuda = common.check(q.device "host"), common.ask(q.arch, options.arch)
  local function short(names) return (table.concat(names, " "):gsub("%f[%w]%w+%.", "")) end
  for i, f in ipairs(q.formats()) do
    local groups, planes = {}, {}
    for j, g in ipairs(type(f.group) == "string" and { "(" .. f.group .. ")" } or f.group or {}) do
      groups[j] = math.type(g) and "g" .. g or g
    end
    for _, p in ipairs(q.gen.format.sorted_keys(f.planes)) do
      planes[#planes + 1] = p .. " " .. table.concat(f.planes[p], "|")
    end
    local on_host, on_cuda = takers(q, f.name, host), takers(q, f.name, cuda)
    rows[i + 1] = { f.name, f.bits, table.concat(groups, " "), table.concat(planes, ", "), short(on_host),
      short(on_cuda), f.doc }
    list[i] = { name = f.name, doc = f.doc, bits = f.bits, group = f.group or {}, planes = f.planes, file = f.file,
      host = on_host, cuda = on_cuda }
  end
  if options.json then print(q.json(list)) return end
  common.table(rows)
  print [[

spelling: NAME[.gG|.row|.tensor|.bRxC][.z|.zf|.zf32|.m][.TYPE of the scales]. Left out, the first group and the first
type are meant. g* and b* stand for any size; a group in parentheses is the only one, and is not spelled. The columns
host and cuda list the kernel families that take the format with its first group and types.]]
end

return {
  name = "formats", usage = "[FORMAT] [--json]", arguments = { 0, 1 },
  summary = "list weight formats; or show one: its planes, its decode rule, the kernels that take it",
  examples = { "", "int4.g64.z    # its planes, its rule, its kernels" },
  options = { { "--arch", "ARCH", "CUDA architecture whose kernels are listed", default = "sm_90a", group = "Device" },
    { "--json", nil, "print JSON" } },
  run = function(q, options)
    if options[1] then return show_one(q, options) end
    return show_all(q, options)
  end,
}
