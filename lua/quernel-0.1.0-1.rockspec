-- The rock has the Lua module, which is what the tool is made of, and the tool with its worker beside it:
--
--   require "quernel"      tune, pack, serve, quantize, evaluate from a script (docs/lua-api.md)
--   quernel VERB           the same from a command line
--
-- luarocks make lua/quernel-0.1.0-1.rockspec builds it from a clone. A source rock is this file with the archive below
-- in one zip; tests/bare makes it.
rockspec_format = "3.0"
package = "quernel"
version = "0.1.0-1"
source = { url = "file://quernel-0.1.0.tar.gz" }
description = {
  summary = "Kernels for matrix products with quantized weights: generated, measured, served",
  license = "MIT",
}
supported_platforms = { "linux" }
dependencies = { "lua >= 5.4, < 5.5" }
build = {
  type = "command",
  build_command = "cmake -G Ninja -S . -B build-rock -DBUILD_SHARED_LIBS=OFF -DQUERNEL_EMU_LEVELS=OFF" ..
    " && cmake --build build-rock --parallel --target quernel_module quernel_tool quernel-worker",
  install = {
    lib = { quernel = "build-rock/quernel.so" },
    bin = { quernel = "build-rock/quernel", ["quernel-worker"] = "build-rock/quernel-worker" },
  },
}
