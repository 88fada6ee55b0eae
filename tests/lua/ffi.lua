-- The bridge: signatures, ranges, memory. t.library is tests/lua/library.c, built.
local q = require "quernel"

return {
  { "every type of number arrives and returns", function(t)
    local lib = assert(q.ffi.load(t.library))
    for _, row in ipairs {
      { "int8_t take_i8(int8_t)", -128, -128 }, { "uint8_t take_u8(uint8_t x)", 254, 255 },
      { "short take_i16(short int)", 32767, -32767 }, { "unsigned short take_u16(unsigned short int)", 65534, 65535 },
      { "int take_i32(signed)", -2147483647, 2147483647 },
      { "unsigned take_u32(unsigned int)", 4294967294, 4294967295 },
      { "long take_i64(long long int)", 1 << 62, -(1 << 62) }, { "float take_f32(float)", 3, 1.5 },
      { "double take_f64(double)", 0.2, 0.1 }, { "_Bool is_odd(int)", 3, true }, { "bool is_odd(int)", 4, false },
    } do
      local f = assert(lib:func(row[1]))
      t.equal(f(row[2]), row[3], row[1])
    end
  end },

  { "numbers outside their type are refused", function(t)
    local lib = assert(q.ffi.load(t.library))
    local f = lib:func "int8_t take_i8(int8_t)"
    t.fails("128 is outside %-128 %.%. 127", f, 128)
    t.fails("number has no integer representation", f, 0.5)
    t.fails("%-1 is outside 0 %.%. 255", lib:func "uint8_t take_u8(uint8_t)", -1)
    t.fails("takes 1 arguments, not 2", f, 1, 2)
    t.fails("number expected", f, "x")
  end },

  { "eight arguments of every register class", function(t)
    local f = q.ffi.load(t.library):func
      "double many(int a, double b, float c, const char *d, int64_t e, unsigned char f, const double *g, int h);"
    local g = q.ffi.buffer("double", 1)
    g[1] = 0.25
    t.equal(f(1, 2.5, 3, "four", -5, 6, g, 7), 1 + 2.5 + 3 + 4 - 5 + 6 + 0.25 + 7)
  end },

  { "buffers are memory of C, and every access is checked", function(t)
    local lib, x = q.ffi.load(t.library), q.ffi.buffer("float", 4)
    t.equal(#x, 4)
    t.equal(x[4], 0.0)
    x:fill(function(i) return i end)
    t.equal(lib:func "double sum(const float *x, size_t n)"(x, 4), 10.0)
    lib:func "void scale(float *, size_t, float)"(x, 4, 0.5)
    t.equal(x[3], 1.5)
    t.fails("index 5 is outside 1 %.%. 4", function() return x[5] end)
    t.fails("index 0 is outside", function() x[0] = 1 end)
    t.fails("number expected", function() x[1] = "a" end)
    local view = q.ffi.buffer("f32", 2, lib:func "void *at(void *, size_t)"(x, 8))
    t.equal(view[1], 1.5)
    x:close()
    t.fails("closed", function() return x[1] end)
    t.fails("closed", lib:func "double sum(const float *, size_t)", x, 1)
  end },

  { "what is closed, misplaced or too large is refused", function(t)
    local lib, x = assert(q.ffi.load(t.library)), q.ffi.buffer("float", 4)
    local sum, at = lib:func "double sum(const float *x, size_t n)", lib:func "void *at(void *, size_t)"
    t.fails("no multiple of the element's size", q.ffi.buffer, "f32", 1, at(x, 1))
    t.fails("more elements than there are addresses", q.ffi.buffer, "f32", 1 << 62, at(x, 0))
    t.fails('"double" behind a type is no name', lib.func, lib, "int sum(long double)")
    t.fails("the function's name is expected", lib.func, lib, "long double(int)")
    lib:__gc()
    lib:__gc()
    t.fails("sum: its library is closed", sum, x, 4)
    t.fails("the library is closed", lib.func, lib, "int f(void)")
  end },

  { "element types hold what fits and no more", function(t)
    for _, row in ipairs { { "u8", 0, 255 }, { "i8", -128, 127 }, { "u16", 0, 65535 }, { "i16", -32768, 32767 },
      { "u32", 0, 4294967295 }, { "i32", -2147483648, 2147483647 } } do
      local b = q.ffi.buffer(row[1], 3)
      b[1], b[2] = row[2], row[3]
      t.equal(b[1], row[2], row[1])
      t.equal(b[2], row[3], row[1])
      t.equal(b[3], 0, row[1])
      t.fails("is outside", function() b[2] = row[3] + 1 end)
      t.fails("is outside", function() b[2] = row[2] - 1 end)
    end
    local h = q.ffi.buffer("bf16", 1)
    h[1] = 1.00390625 -- halfway to the next bf16: rounds to even
    t.equal(h[1], 1.0)
    t.fails("no type of elements", q.ffi.buffer, "quux", 1)
    t.fails("at least one element", q.ffi.buffer, "u8", 0)
    t.fails("no memory", q.ffi.buffer, "u8", 1 << 62)
  end },

  { "pointers go only where their elements belong", function(t)
    local lib = q.ffi.load(t.library)
    local sum, bytes = lib:func "double sum(const float *, size_t)", lib:func "size_t count_bytes(const char *)"
    t.fails("f32 %* is wanted, the buffer holds f64", sum, q.ffi.buffer("double", 1), 1)
    t.fails("string goes where a const pointer to bytes", sum, "text", 1)
    t.fails("buffer, pointer or nil expected", sum, 1, 1)
    t.equal(bytes "four", 4)
    t.equal(bytes(nil), 0)
    t.equal(bytes(q.ffi.buffer("u8", 8):set "abc"), 3)
    local name_of = lib:func "const char *name_of(int)"
    t.equal(name_of(1), "one")
    t.equal(name_of(2), nil)
  end },

  { "what is no prototype is refused with its text", function(t)
    local lib = q.ffi.load(t.library)
    for text, why in pairs {
      ["int calls(int"] = ", or ) is expected", ["int (void)"] = "name is expected",
      ["int calls[3]"] = "%( is expected",
      ["int calls(void, int)"] = ", or ) is expected", ["int calls(int, void)"] = "cannot be void",
      ["int calls(int, ...)"] = "variable arguments", ["int calls(void) x"] = "something follows",
      ["struct s calls(void)"] = '"s" is no type', ["int calls(long double x)"] = '"double" behind a type',
      [""] = "a type is expected", ["int calls(" .. ("int,"):rep(17) .. "int)"] = "more than 16",
      ["f16 calls(void)"] = "no type that can be passed",
    } do
      t.fails(why, lib.func, lib, text)
    end
  end },

  { "what is not there is nil and a reason", function(t)
    local lib, why, code = q.ffi.load "/nowhere/lib.so"
    t.check(not lib and why:find "/nowhere/lib.so", why)
    t.equal(code, "QN_E_IO")
    local f
    f, why, code = q.ffi.load(t.library):func "int nothing_of_the_kind(void)"
    t.check(not f and why:find "nothing_of_the_kind", why)
    t.equal(code, "QN_E_ARG")
  end },

  { "a function keeps its library", function(t)
    local f = q.ffi.load(t.library):func "int calls(void)"
    collectgarbage()
    collectgarbage()
    local first = f()
    t.equal(f(), first + 1)
    t.equal(tostring(f), "C function calls")
  end },

  { "activations: conversions and 8-bit rows", function(t)
    local x = q.ffi.buffer("f32", 4):fill(function(i) return ({ 1, -2, 0, 0 })[i] end)
    local codes, scale = x:quantize(2, 2)
    t.equal(codes[1], 64) -- 63.5 to even
    t.equal(codes[2], -127)
    t.equal(scale[2], 0.0)
    t.check(math.abs(scale[1] - 2 / 127) < 1e-8)
    t.equal(x:convert "f16"[2], -2.0)
    t.fails("no conversion", x.convert, x, "u8")
    t.fails("more elements", x.quantize, x, 3, 2)
  end },
}
