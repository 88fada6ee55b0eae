-- broken.lua - a family whose kernel the compiler refuses, at line 20 of this file.
return kernel {
  name = "host.broken", target = "host", doc = "fails", params = { { name = "NR", values = { 16 } } }, rules = {},
  layout = function(v)
    local f = v.format
    return layout.make {
      name = "broken.rows", tile = { v.NR, f.group }, format = f,
      sections = {
        { outer = { layout.n(0, v.NR), layout.k(0, f.group) }, layout.plane("scale", { layout.n(v.NR) }),
          layout.codes(0, 4, { layout.n(v.NR), layout.k(f.group) }) },
      },
    }
  end,
  launch = function(v) return { steps = { { grid = { ceildiv(N, v.NR) } } } } end,
  arch = function() return "" end,
  outline = {
    function(w)
      w [[
        /* A comment, and then: */
        int ${entry} = undeclared_here;
      ]]
    end,
  },
}
