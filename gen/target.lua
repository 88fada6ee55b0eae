-- target.lua - the kinds of machine that kernels are generated for, and what they differ in here. What a target offers
-- at run time, C knows (qn_target, runtime/device.h).
--
--   takes      may activations be of an element type?
--   defaults   activation types of a problem that leaves them open: the first that the format goes with
--   out        the output type then, by that of the activations
--   at_once    values of k that are multiplied together and so share a group
--   dense      the format of the product that quantized ones are compared with

local check = require "gen.check"
local types = require "gen.types"
local target = {}

target.all = {
  host = { name = "host", takes = function(t) return t.name ~= "f16" end, defaults = { "bf16", "f32" },
    out = function() return "f32" end, at_once = { bf16 = 2 }, dense = "f32" },
  cuda = { name = "cuda", takes = function(t) return t.name ~= "f32" end, defaults = { "f16", "bf16" },
    out = function(act) return types.scaled(act) and "f16" or act end, at_once = {}, dense = "f16" },
}
target.names = check.sorted_keys(target.all)

-- Raises, naming `what`, for one that there is not.
function target.get(name, what) return target.all[check.among(name, target.names, what or "target")] end

-- May activations be of this type? All such types.
function target.takes(name, act) return types.all[act].act ~= nil and target.all[name].takes(types.all[act]) end
function target.acts(name) return types.those(function(t) return target.takes(name, t.name) end) end

return target
