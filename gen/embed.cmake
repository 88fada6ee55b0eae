# embed.cmake - turn Lua files into a C table of bytes, so that the tool and the module carry what they run.
#
#   cmake -DROOT=<source tree> -DOUT=<file.c> -DFILES=<a.lua;b.lua> -P embed.cmake
#
# Names are paths below ROOT, sorted; the bytes are the files', unchanged. See lua/embed.h.
list(SORT FILES)
set(bodies "")
set(rows "")
set(number 0)
foreach(name ${FILES})
  file(READ "${ROOT}/${name}" hex HEX)
  string(LENGTH "${hex}" digits)
  math(EXPR size "${digits} / 2")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  string(REPLACE "0x0a," "0x0a,\n" bytes "${bytes}") # a line of text, a line of bytes
  string(APPEND bodies "static const unsigned char text${number}[] = {\n${bytes}0x00};\n")
  string(APPEND rows "  {\"${name}\", (const char *)text${number}, ${size}},\n")
  math(EXPR number "${number} + 1")
endforeach()
file(WRITE "${OUT}.new" "/* Made from Lua files by embed.cmake. */\n#include \"embed.h\"\n\n${bodies}\n"
     "const qn_embedded qn__embedded[] = {\n${rows}};\nconst size_t qn__embedded_count = ${number};\n")
file(RENAME "${OUT}.new" "${OUT}")
