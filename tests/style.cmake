# How every file is written; tests/style.lua says what is wrong and what mends it.
add_test(NAME style COMMAND lua5.4 ${CMAKE_CURRENT_SOURCE_DIR}/style.lua)
