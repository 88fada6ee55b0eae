-- includes.lua - which folder's files may include which folder's headers, and that no two files need each other.

-- The arrows of the architecture. quernel.h has what everybody may know; a folder may include its own headers.
local arrows = {
  ["runtime/base"] = {},
  ["runtime"] = { "runtime/base" },
  ["runtime/io"] = { "runtime/base", "runtime" },
  ["runtime/emu"] = { "runtime/base", "runtime", "gen" }, -- architectures that it stands in for
  ["runtime/examples"] = { "runtime/base", "runtime", "runtime/io" },
  ["eval/quantize"] = { "runtime/base", "runtime", "runtime/io" },
  ["eval/text"] = { "runtime/base", "runtime", "runtime/io" },
  ["eval/decoder"] = { "runtime/base", "runtime", "runtime/io" },
  ["eval/score"] = { "runtime/base", "runtime", "runtime/io" },
  ["eval"] = { "runtime/base", "runtime", "runtime/io", "eval/quantize", "eval/text", "eval/decoder", "eval/score" },
  ["gen"] = { "runtime/base" },
  ["cache"] = { "runtime/base", "runtime" },
  ["tuner"] = { "runtime/base", "runtime", "runtime/emu", "gen", "cache" },
  ["lua"] = { "runtime/base", "runtime", "runtime/io", "runtime/emu", "gen", "cache", "tuner",
    "eval", "eval/quantize", "eval/text", "eval/decoder", "eval/score" },
}
local public = "runtime/quernel.h"

local function folder(path) return path:match "^(.*)/" end
-- A header, and the file that has its name.
local function unit(path) return path:match "^(.*)%.[ch]$" end

-- Of headers of the same name in several folders, the one that a file may include; else the first.
local function meant(path, list)
  for _, dir in ipairs(arrows[folder(path)]) do
    for _, header in ipairs(list or {}) do if folder(header) == dir then return header end end
  end
  return list and list[1]
end

-- path -> list of the paths that it includes, of all C files of the folders above.
local function read_graph(root)
  local graph, by_name = {}, {}
  for dir in pairs(arrows) do
    local list <close> = assert(io.popen(("ls %s/%s/*.[ch] 2>&-"):format(root, dir)))
    for path in list:lines() do
      path = path:sub(#root + 2)
      local name = path:match "[^/]*$"
      graph[path], by_name[name] = {}, by_name[name] or {}
      table.insert(by_name[name], path)
    end
  end
  for path, out in pairs(graph) do
    for line in io.lines(root .. "/" .. path) do
      local name = line:match '^#include "(.*)"'
      local beside = name and folder(path) .. "/" .. name
      out[#out + 1] = name and (graph[beside] and beside or meant(path, by_name[name]) or name)
    end
  end
  return graph
end

-- Includes that no arrow allows: "gen/x.c includes tuner/y.h".
local function forbidden(graph)
  local out = {}
  for path, list in pairs(graph) do
    local allowed = { [folder(path)] = true }
    for _, dir in ipairs(arrows[folder(path)]) do allowed[dir] = true end
    for _, to in ipairs(list) do
      if to ~= public and not allowed[folder(to) or ""] then out[#out + 1] = ("%s includes %s"):format(path, to) end
    end
  end
  table.sort(out)
  return out
end

-- A way from a unit back to itself: "a -> b -> a"; nil if there is none.
local function circle(graph)
  local edges, state, way = {}, {}, {}
  for path, list in pairs(graph) do
    local from = unit(path)
    edges[from] = edges[from] or {}
    for _, to in ipairs(list) do if unit(to) ~= from then table.insert(edges[from], unit(to)) end end
  end
  local function visit(x)
    way[#way + 1] = x
    if state[x] == "open" then return table.concat(way, " -> ") end
    if not state[x] then
      state[x] = "open"
      for _, to in ipairs(edges[x] or {}) do
        local found = visit(to)
        if found then return found end
      end
      state[x] = "done"
    end
    way[#way] = nil
  end
  for x in pairs(edges) do
    local found = visit(x)
    if found then return found end
  end
end

return {
  { "headers are included along the arrows only", function(t)
    t.equal(table.concat(forbidden(read_graph(t.tests .. "/..")), "\n"), "")
  end },
  { "no files include each other in a circle", function(t) t.equal(circle(read_graph(t.tests .. "/..")), nil) end },
  { "an include against the arrows and a circle are found", function(t)
    local graph = {
      ["runtime/base/a.h"] = { "runtime/base/b.h" }, ["runtime/base/b.h"] = {},
      ["runtime/base/b.c"] = { "runtime/base/b.h", "runtime/base/c.h" }, ["runtime/base/c.h"] = { "runtime/base/a.h" },
      ["gen/x.c"] = { "runtime/y.h", public, "runtime/base/a.h", "gen/x.h", "z.h" },
    }
    t.equal(table.concat(forbidden(graph), "\n"), "gen/x.c includes runtime/y.h\ngen/x.c includes z.h")
    t.check(circle(graph), "a -> b -> c -> a is no circle")
    graph["runtime/base/b.c"] = { "runtime/base/b.h" }
    t.equal(circle(graph), nil)
  end },
}
