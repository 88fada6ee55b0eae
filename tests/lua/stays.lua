-- stays.lua PROBLEM - verify cuda.wgmma with three CTAs that stay, tiles of 128 tokens and features.
local q = require "quernel"

for _, def in ipairs(q.kernels()) do
  local launch = def.launch
  def.launch = function(v)
    local recipe = launch(v)
    if v.STREAM then recipe.steps[#recipe.steps].grid = { 3 } end
    return recipe
  end
end
local r = assert(q.tune { problems = { arg[1] }, device = "emu:sm_90a", family = "cuda.wgmma", store = "store",
  fixed = { BM = { 128 }, MT = { 1 }, GRID = { "stream" } }, check_only = true })
print(q.json(r.counts))
assert(r.counts.verified == 1 and r.counts.rejected == 0)
